"""What Slack's refusals mean for a post: wait, try again, look first, tell people, or give up. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from eventstore.codec import clean
from eventstore.plain import plain_line

Kind = Literal["limited", "unsent", "unclear", "closed", "lost", "blocks", "refused"]

WHY_MAX = 500
RETRY_AFTER_S = 30.0
"""For a 429 that does not say how long to wait."""
RETRY_AFTER_MAX_S = 900.0

UNCLEAR = frozenset({"internal_error", "fatal_error", "service_unavailable", "request_timeout", "team_added_to_org"})
LOST = frozenset({"message_not_found", "thread_not_found", "cannot_reply_to_message", "cant_update_message"})
BLOCKS = frozenset({"invalid_blocks", "invalid_blocks_format", "msg_blocks_too_long", "slack_file_not_found"})
TOKEN = frozenset({"invalid_auth", "not_authed", "token_revoked", "token_expired", "account_inactive"})
SCOPE = frozenset({"missing_scope", "no_permission", "not_allowed_token_type", "ekm_access_denied", "access_denied"})
CHANNEL = {
    "not_in_channel": "the bot is not in the channel {channel}: invite it there with `/invite`",
    "channel_not_found": "the bot cannot see the channel {channel}: invite it there, or correct slack.channel",
    "is_archived": "the channel {channel} is archived: take it out of the archive, or set another slack.channel",
    "restricted_action": "the workspace does not let the bot post in {channel}: an admin of the workspace can",
    "restricted_action_read_only_channel": "the channel {channel} is read-only for the bot: an admin can change that",
    "restricted_action_thread_only_channel": "only replies may be posted in {channel}: set another slack.channel",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """
    Why a call came to nothing, and what that means.

    Attributes:
        kind: `limited`: not looked at, come back after *retry_after_s*. `unsent`: it never left. `unclear`: it may
            have been done. `closed`: nothing passes until a person does what *why* says. `lost`: the message it is
            about is gone. `blocks`: what it shows is not taken. `refused`: everything else that no repeat would cure.
        why: One sentence, without a secret and without what was sent.
    """

    kind: Kind
    why: str
    retry_after_s: float = 0.0


def of_answer(
    error: str | None,
    status: int,
    *,
    channel: str,
    messages: Sequence[str] = (),
    needed: str = "",
    retry_after: str = "",
) -> Fault:
    """
    Judge an answer that is not `ok`.

    Args:
        error: What Slack calls it; None where the answer was not Slack's (a page of HTML).
        status: Of HTTP.
        messages: `response_metadata.messages`.
        needed: The scope that is missing.
        retry_after: The header.
    """
    if status == 429 or error in ("ratelimited", "rate_limited"):
        return Fault("limited", "Slack asks to wait", _seconds(retry_after))
    if error is None or status >= 500 or error in UNCLEAR:
        return Fault("unclear", f"Slack answers {status}" + (f" ({_word(error)})" if error else " without a reason"))
    if error in TOKEN:
        why = f"Slack does not take the bot's token ({error}): put the right one into SLACK_BOT_TOKEN and start again"
        return Fault("closed", why)
    if error in SCOPE:
        scope = f" (needed: {_word(needed)})" if needed else ""
        return Fault("closed", f"the bot may not do this ({error}){scope}: install the app with its manifest again")
    if error in CHANNEL:
        return Fault("closed", CHANNEL[error].format(channel=_word(channel)))
    if error in LOST:
        return Fault("lost", f"the message is gone ({error})")
    details = clean(plain_line("; ".join(messages)), WHY_MAX)
    why = f"Slack refuses it: {_word(error)}" + (f" ({details})" if details else "")
    return Fault("blocks" if error in BLOCKS else "refused", clean(why, WHY_MAX))


def unsent(why: str) -> Fault:
    """No connection was made."""
    return Fault("unsent", f"Slack cannot be reached ({_word(why)})")


def unclear(why: str) -> Fault:
    """The connection broke, or no answer came in time."""
    return Fault("unclear", f"Slack did not answer ({_word(why)})")


def _seconds(retry_after: str) -> float:
    try:
        return min(max(float(retry_after), 1.0), RETRY_AFTER_MAX_S)
    except ValueError:
        return RETRY_AFTER_S


def _word(text: str | None) -> str:
    return clean(plain_line(text or ""), 120)
