"""Text on its way into and out of Slack. Pure.

Text of models, logs and people is data: it is bounded, freed of control characters and escaped, so that nothing in
it mentions anyone, makes a link or ends a code block.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from eventstore.codec import clean
from eventstore.plain import plain, plain_line

Element = dict[str, Any]

_MARKS = "*_~`"
_USER = re.compile("[UW][A-Z0-9]{1,30}")
_URL = re.compile(r"https?://[^\s<>|\"]{1,500}")
_CHANNEL = re.compile("[CDG][A-Z0-9]{1,30}")
_TS = re.compile(r"[0-9]{1,12}\.[0-9]{6}")


def escape(text: str) -> str:
    """Escape exactly what Slack asks for, and nothing else."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def unescape(text: str) -> str:
    """Undo what Slack does to text that people send; once, before it is stored."""
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def line(text: str, limit: int) -> str:
    """Untrusted text as one line of at most *limit* characters; not yet escaped."""
    return clean(plain_line(text), limit)


def mrkdwn(text: str, limit: int) -> str:
    """
    Untrusted text as one line inside mrkdwn, at most *limit* characters after escaping.

    Marks of formatting lose their meaning by a zero-width space behind each.
    """
    safe = "".join(
        char + "\u200b" if char in _MARKS else char for char in escape(line(text.replace("\u200b", ""), limit))
    )
    return safe if len(safe) <= limit else _cut(safe, limit)


def _cut(safe: str, limit: int) -> str:
    """Cut escaped text, never through an entity or between a mark and what takes its meaning."""
    head = safe[: max(0, limit - 1)]
    if head and head[-1] in _MARKS:
        head = head[:-1]
    at = head.rfind("&")
    if at >= 0 and ";" not in head[at:]:
        head = head[:at]
    return head + "…"


def preformatted(text: str, limit: int) -> Element:
    """Untrusted text of several lines as a block that shows it as it is; it cannot be ended from inside."""
    shown = clean(plain(text), limit) or " "
    return {
        "type": "rich_text",
        "elements": [{"type": "rich_text_preformatted", "elements": [{"type": "text", "text": shown}]}],
    }


def person(actor: str) -> str:
    """Who did something, in mrkdwn: a mention for `slack:<team>/<user>`, else the name of the actor as text."""
    kind, _, name = actor.partition(":")
    user = name.partition("/")[2]
    if kind == "slack" and _USER.fullmatch(user):
        return f"<@{user}>"
    return mrkdwn(name or actor, 80)


def date(at: datetime) -> str:
    """A moment in the reader's own zone, in mrkdwn; UTC where it cannot be shown so."""
    return f"<!date^{int(at.timestamp())}^{{date_short}} {{time}}|{at:%Y-%m-%d %H:%M} UTC>"


def link(url: str, words: str) -> str:
    """A link of our own, in mrkdwn; empty for what is no address. *words* is safe text."""
    return f"<{url}|{words}>" if _URL.fullmatch(url) else ""


def permalink(workspace_url: str, channel: str, ts: str) -> str:
    """
    The address of a message, as Slack's "Copy link" gives it; empty where a part of it is not known.

    Args:
        workspace_url: As `auth.test` says it, such as https://example.slack.com/.
    """
    if not (_URL.fullmatch(workspace_url) and _CHANNEL.fullmatch(channel) and _TS.fullmatch(ts)):
        return ""
    return f"{workspace_url.rstrip('/')}/archives/{channel}/p{ts.replace('.', '')}"
