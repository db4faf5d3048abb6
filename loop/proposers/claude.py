"""The proposer `claude`: one conversation with Anthropic's Messages API for each ask. The only door to its SDK.

Guaranteed:

- A conversation is at most `reads` + 3 calls: the model may look up past experiments, and gets one correction in
  all, be it for no tool call, an input that is not by the schema, or an edit that the desk objects to.
- An answer counts only if the vendor says that it is whole; what a cut stream left behind is never used.
- Each call is accounted for, failed ones too. With `usd_max` the calls of an ask never come to more: before each
  one its worst case is reckoned, without the cache, and its output limited to what is left.
- Whatever goes wrong is a `ProposalError` of a class in `loop/failures`, without the key in its text. Only a
  cancellation passes through, and errors of the desk. No connection stays open between two calls.

Not guaranteed: that a call which failed before the vendor answered cost nothing, although it is counted so; the
tokens of the prompt are estimated. One cut off later is counted at its worst: its input as the vendor counted it,
and all the output that it was allowed.

Source of the API's rules: https://platform.claude.com/docs/en/models/opus-5-5/migration-guide (thinking is always
on, a tool cannot be forced, no sampling parameters) and docs/en/build-with-claude/prompt-caching.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, cast

import anthropic
import httpx2

from eventstore.codec import clean
from eventstore.events import ModelCall, Tokens
from eventstore.plain import plain_line
from loop import prompts
from loop.fences import estimate_tokens, fenced
from loop.proposers import answers, costs
from loop.proposers.base import Proposal, ProposalError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anthropic.types import MessageParam, TextBlockParam, ToolParam, ToolResultBlockParam, Usage

    from eventstore import settings as st
    from eventstore.settings import Price
    from loop.proposers.base import Ask, Desk, Past

BASE_URL = "https://api.anthropic.com"

CONNECT_S = 30.0
"""Seconds to wait for a connection; an answer may take `timeout_s`."""

OUTPUT_MIN = 2_000
"""Fewer output tokens than this are not worth a call: thinking counts among them."""

READ_DIFF_MAX, READ_TAIL_MAX, READ_TEXT_MAX = 12_000, 4_000, 1_000
"""Characters of a past experiment's diff, of its log's end, and of what was said of it."""

READ_TOKENS_MAX = 10_000
"""At least what all of that is estimated at: half its characters and the fences."""

OVERHEAD_TOKENS = 1_000
"""What the vendor adds to a prompt with tools (a few hundred tokens), and some room."""

WHY_MAX = 400

NO_READS = (
    f"No more experiments can be looked up for this proposal. Decide with what you know and call `{answers.PROPOSE}`."
)


class Claude:
    """
    Asks a model of Anthropic's.

    Args:
        settings: The table [claude].
        api_key: Sent to *base_url* only, in a header, and never along with a redirect.
        base_url: Another server that speaks the Messages API; None for Anthropic's own.
    """

    kind = "claude"
    can_repair = True

    def __init__(self, settings: st.Claude, *, api_key: str, base_url: str | None = None) -> None:
        self._settings = settings
        self._key = api_key.strip()
        self._base_url = base_url or BASE_URL
        self._client: anthropic.AsyncAnthropic | None = None
        self._tools = answers.tools(settings.reads)
        self._tool_tokens = estimate_tokens(json.dumps(self._tools)) + OVERHEAD_TOKENS
        self.worst_usd = costs.worst_ask_usd(
            self._price,
            prompt_tokens=settings.prompt_tokens + self._tool_tokens,
            output_tokens=settings.output_tokens,
            calls=settings.reads + 3 if settings.reads else 2,
            read_tokens=settings.reads * READ_TOKENS_MAX,
        )

    @property
    def _price(self) -> Price | None:
        return self._settings.prices.get(self._settings.model)

    async def close(self) -> None:
        """Let go of the SDK's client; the next ask makes a new one."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def propose(self, ask: Ask, desk: Desk) -> Proposal:
        prompt = prompts.build(ask, tokens_max=self._settings.prompt_tokens, answer="tool")
        talk = _Talk(
            prompt_hash=prompt.hash,
            system=_sections(prompt.system),
            messages=[{"role": "user", "content": _sections(prompt.user)}],
            context_tokens=estimate_tokens(prompt.text) + self._tool_tokens,
            output_left=self._settings.output_tokens,
            usd_max=ask.usd_max,
        )
        if fault := _fault_of_key(self._key):
            raise talk.failed("unauthorised", fault)
        if ask.usd_max is not None and self._price is None:
            why = f"the price of {self._settings.model} is not known, so a limit of money cannot be kept"
            raise talk.failed("over_budget", f"{why}: add it to [claude.prices] or lift the limit")
        return await self._converse(talk, ask, desk)

    async def _converse(self, talk: _Talk, ask: Ask, desk: Desk) -> Proposal:
        while True:
            heard = await self._call(talk)
            try:
                step = answers.interpret([(use.name, use.input) for use in heard.uses], ask, self._settings.reads)
            except answers.Unusable as unusable:
                talk.correct(heard, "unparsable", str(unusable))
                continue
            if isinstance(step, answers.Look):
                talk.hear(heard, await self._look_up(talk, step, desk))
                continue
            objection = await desk.check(step.edits)
            if objection is None:
                return talk.proposal(step, heard)
            talk.correct(heard, objection.failure, _line(objection.why, WHY_MAX), step)

    async def _look_up(self, talk: _Talk, look: answers.Look, desk: Desk) -> str:
        talk.reads += 1
        if talk.reads > self._settings.reads + 1:
            raise talk.failed("unparsable", "the model goes on looking up experiments instead of proposing one")
        if talk.reads > self._settings.reads:
            return NO_READS
        past = await desk.look_up(look.experiment)
        left = self._settings.reads - talk.reads
        return f"{told(past, look.experiment)}{left} more can be looked up for this proposal.\n"

    # ------------------------------------------------------------ one call

    async def _call(self, talk: _Talk) -> _Heard:
        """Make the next call of *talk* and account for it. Raises `ProposalError`."""
        max_tokens = self._allowance(talk)
        seen, began = _Seen(), time.monotonic()
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                heard = await self._stream(talk, max_tokens, seen)
        except Exception as error:  # whatever the SDK raises; a cancellation is no Exception
            fault = _fault_of(error, seen.answered, self._settings.timeout_s)
            talk.calls.append(
                ModelCall(
                    model=self._settings.model,
                    usd=self._usd_of_failed(talk, max_tokens, seen),
                    seconds=time.monotonic() - began,
                    request=_line(seen.request or _request_of(error), 100),
                    error=fault.failure,
                )
            )
            why = _line(fault.why.replace(self._key, "[key]"), WHY_MAX).replace(self._key, "[key]")
            raise talk.failed(fault.failure, why, retry_after_s=fault.retry_after_s) from None  # it may hold the key
        talk.calls.append(
            ModelCall(
                model=heard.model,
                stop_reason=heard.stop_reason,
                tokens=heard.tokens,
                usd=costs.usd_of(heard.tokens, self._price),
                seconds=time.monotonic() - began,
                request=_line(seen.request, 100),
            )
        )
        if (failure := failure_of_stop(heard.stop_reason)) is not None:
            raise talk.failed(failure, _why_stopped(heard, max_tokens))
        talk.output_left -= heard.tokens.output
        return heard

    def _allowance(self, talk: _Talk) -> int:
        """Output tokens of the next call. Raises `ProposalError` if tokens or money are used up."""
        least = min(OUTPUT_MIN, self._settings.output_tokens)
        if talk.output_left < least:
            written = f"{self._settings.output_tokens - talk.output_left} of {self._settings.output_tokens}"
            raise talk.given_up or talk.failed(
                "truncated", f"{written} output tokens are used and no proposal has come"
            )
        price = self._price
        if talk.usd_max is None or price is None:
            return talk.output_left
        left = talk.usd_max - (costs.sum_of(talk.calls).usd or 0.0)
        pays_for = costs.affordable_output(left, talk.context_tokens, price)
        if pays_for is not None and pays_for < least:
            why = f"{max(left, 0.0):.2f} USD are left for this proposal, less than a call may cost"
            raise talk.given_up or talk.failed("over_budget", why)
        return talk.output_left if pays_for is None else min(talk.output_left, pays_for)

    def _usd_of_failed(self, talk: _Talk, max_tokens: int, seen: _Seen) -> float | None:
        """What a failed call is counted at: nothing before the vendor answered, else the most that it can cost."""
        price = self._price
        if price is None or not seen.answered:
            return None if price is None else 0.0
        if seen.input is None:
            return costs.worst_call_usd(talk.context_tokens, max_tokens, price)
        return costs.usd_of(
            Tokens(
                input=seen.input.input,
                cache_write=seen.input.cache_write,
                cache_read=seen.input.cache_read,
                output=max_tokens,
            ),
            price,
        )

    async def _stream(self, talk: _Talk, max_tokens: int, seen: _Seen) -> _Heard:
        """Send the conversation and wait for the whole answer; *seen* holds what was learnt even if it breaks off."""
        effort = self._settings.effort
        async with self._open().messages.stream(
            model=self._settings.model,
            max_tokens=max_tokens,
            system=talk.system,
            tools=cast("list[ToolParam]", self._tools),
            tool_choice={"type": "auto", "disable_parallel_tool_use": True},  # a tool cannot be forced
            messages=talk.messages,
            output_config={"effort": effort} if effort is not None else anthropic.omit,
        ) as stream:
            seen.request = stream.request_id or ""
            kind = stream.response.headers.get("content-type", "")
            if not kind.startswith("text/event-stream"):
                raise _NoMessage(f"the answer is {_line(kind, 80) or 'of no type'}, not a stream of events")
            seen.answered = True
            async for event in stream:
                if event.type == "message_start":
                    seen.input = tokens_of(event.message.usage)
            if seen.input is None:
                raise _NoMessage("the answer ended before it began")
            message = await stream.get_final_message()
        if message.stop_reason is None:
            raise _NoMessage("the answer broke off")
        details = message.stop_details
        return _Heard(
            content=message.content,
            uses=tuple(
                _Use(block.id, block.name, block.input) for block in message.content if block.type == "tool_use"
            ),
            model=_line(message.model, 100),
            stop_reason=_line(message.stop_reason, 100),
            stop_why=_line(" ".join(filter(None, (details.category, details.explanation))), 300) if details else "",
            tokens=tokens_of(message.usage),
        )

    def _open(self) -> anthropic.AsyncAnthropic:
        """The SDK's client. Of the environment, it heeds proxies and certificates only."""
        if self._client is None:
            self._client = anthropic.AsyncAnthropic(
                api_key=self._key,
                base_url=self._base_url,
                max_retries=0,  # the loop paces, under its own ceiling and with its own record
                timeout=httpx2.Timeout(self._settings.timeout_s, connect=min(CONNECT_S, self._settings.timeout_s)),
                open_telemetry={"traces": False, "propagation": False},
                http_client=anthropic.DefaultAsyncHttpxClient(
                    follow_redirects=False,  # the prompt and the key go where they were sent, or nowhere
                    limits=httpx2.Limits(max_keepalive_connections=0),  # minutes pass between calls
                ),
            )
            self._client._custom_headers = {}  # from ANTHROPIC_CUSTOM_HEADERS, which could replace any of ours
        return self._client


# ---------------------------------------------------------------- one conversation


@dataclass(frozen=True, slots=True)
class _Use:
    id: str
    name: str
    input: object


@dataclass(frozen=True, slots=True)
class _Heard:
    """A whole answer. *content* is the SDK's blocks, which go back unchanged and in place."""

    content: Sequence[Any]
    uses: tuple[_Use, ...]
    model: str
    stop_reason: str
    stop_why: str
    tokens: Tokens


@dataclass(slots=True)
class _Seen:
    """What is known of a call while it runs. *answered*: the vendor has begun to answer, so it costs money."""

    request: str = ""
    answered: bool = False
    input: Tokens | None = None


@dataclass(slots=True)
class _Talk:
    """
    The state of one ask.

    *context_tokens* is the most that the next call's input comes to; *given_up* is raised if there can be no next
    call, so that it fails for what was wrong with the answer, and not for what a second chance would have cost.
    """

    prompt_hash: str
    system: list[TextBlockParam]
    messages: list[MessageParam]
    context_tokens: int
    output_left: int
    usd_max: float | None
    reads: int = 0
    calls: list[ModelCall] = field(default_factory=list)
    given_up: ProposalError | None = None

    def hear(self, heard: _Heard, reply: str, *, is_error: bool = False) -> None:
        """Add an answer and what is said to it: to every tool call that it holds, else as the next message."""
        self.messages.append({"role": "assistant", "content": heard.content})
        results: list[ToolResultBlockParam] = [
            {"type": "tool_result", "tool_use_id": use.id, "content": reply, "is_error": is_error} for use in heard.uses
        ]
        self.messages.append({"role": "user", "content": results or reply})
        said = heard.tokens
        self.context_tokens = said.input + said.cache_write + said.cache_read + said.output
        self.context_tokens += estimate_tokens(reply) * max(len(heard.uses), 1) + OVERHEAD_TOKENS

    def correct(self, heard: _Heard, failure: str, why: str, draft: answers.Draft | None = None) -> None:
        """Say what is wrong and let the model answer again. Raises `ProposalError` the second time."""
        failed = self.failed(failure, why, draft)
        if self.given_up is not None or not (heard.uses or _ends_in_text(heard)):
            raise failed
        self.given_up = failed
        again = f"That cannot be used: {why}. Nothing has been changed. Call `{answers.PROPOSE}` once more, complete."
        self.hear(heard, again, is_error=True)

    def failed(
        self, failure: str, why: str, draft: answers.Draft | None = None, *, retry_after_s: float | None = None
    ) -> ProposalError:
        return ProposalError(
            failure,
            why,
            costs.sum_of(self.calls),
            retry_after_s=retry_after_s,
            prompt_hash=self.prompt_hash,
            description=draft.description if draft is not None else "",
            edits=draft.edits if draft is not None else (),
        )

    def proposal(self, draft: answers.Draft, heard: _Heard) -> Proposal:
        return Proposal(
            description=draft.description,
            edits=draft.edits,
            hypothesis=draft.hypothesis,
            expected_effect=draft.expected_effect,
            rationale=draft.rationale,
            idea_used=draft.idea_used,
            idea_why=draft.idea_why,
            model=heard.model,
            stop_reason=heard.stop_reason,
            spent=costs.sum_of(self.calls),
            prompt_hash=self.prompt_hash,
        )


def _sections(sections: Sequence[prompts.Section]) -> list[TextBlockParam]:
    """
    Sections as blocks, with a breakpoint of the cache where one belongs.

    A training takes minutes, so the cache of five minutes would always have gone cold: it is the one of an hour.
    """
    return [
        {"type": "text", "text": section.text, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
        if section.cached
        else {"type": "text", "text": section.text}
        for section in sections
        if section.text  # an empty block is refused
    ]


def _ends_in_text(heard: _Heard) -> bool:
    """Whether the answer can be sent back without a tool call: it must not be empty or end in thinking."""
    texts = [block.text.strip() for block in heard.content if block.type == "text"]
    return bool(heard.content) and heard.content[-1].type == "text" and all(texts)


def told(past: Past | None, experiment: int) -> str:
    """What a model is shown of a past experiment; all of it stands in fences."""
    if past is None:
        return f"There is no finished experiment {experiment} in this run. "
    of = f"experiment {experiment}"
    words = f"{past.description}\nOutcome: {past.outcome}\nHypothesis: {past.hypothesis}"
    parts = [fenced(f"what is known of {of}", words, 3 * READ_TEXT_MAX)]
    if past.diff:
        parts.append(fenced(f"the diff of {of}", past.diff, READ_DIFF_MAX))
    if past.tail:
        parts.append(fenced(f"the end of the log of {of}", past.tail, READ_TAIL_MAX, keep="tail"))
    return "".join(parts)


# ---------------------------------------------------------------- what the vendor says, in our words


def tokens_of(usage: Usage) -> Tokens:
    """The vendor's count; what it leaves out is 0. Raises `TypeError` for what is no count: the SDK checks nothing."""
    return Tokens(
        input=_count(usage.input_tokens),
        cache_write=_count(usage.cache_creation_input_tokens),
        cache_read=_count(usage.cache_read_input_tokens),
        output=_count(usage.output_tokens),
    )


def _count(value: object) -> int:
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
        raise TypeError(f"a number of tokens is {value!r}")
    return value


def _word(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a name is {value!r}")
    return value


STOPS: dict[str, str | None] = {
    "end_turn": None,
    "tool_use": None,
    "refusal": "refused",
    "max_tokens": "truncated",
    "model_context_window_exceeded": "truncated",
}


def failure_of_stop(stop_reason: str) -> str | None:
    """The class of an answer that must not be used, by why the model stopped; None if it may be."""
    return STOPS.get(stop_reason, "unparsable")


def _why_stopped(heard: _Heard, max_tokens: int) -> str:
    match failure_of_stop(heard.stop_reason):
        case "refused":
            return "the model declined to answer" + (f": {heard.stop_why}" if heard.stop_why else "")
        case "truncated":
            return f"the answer was cut off by {heard.stop_reason}, with {max_tokens} output tokens allowed"
        case _:
            return f"the model stopped by {heard.stop_reason!r}, which is no end of an answer"


STATUSES = {
    401: "unauthorised",
    402: "no_credit",
    403: "unauthorised",
    408: "offline",
    409: "overloaded",
    429: "rate_limited",
    500: "overloaded",
    502: "overloaded",
    503: "overloaded",
    504: "overloaded",
    529: "overloaded",
}
KINDS = {
    "api_error": "overloaded",
    "authentication_error": "unauthorised",
    "billing_error": "no_credit",
    "overloaded_error": "overloaded",
    "permission_error": "unauthorised",
    "rate_limit_error": "rate_limited",
    "timeout_error": "overloaded",
}
SPEND_LIMITS = frozenset({"contract_spend_limit_reached", "enforced_spend_limit_reached"})


def failure_of_status(status: int, kind: str = "", code: str = "") -> str:
    """
    The class of an error of the API.

    Args:
        status: Of HTTP; an error inside a stream that had begun has 200, and goes by *kind*.
        kind: The type that the vendor gives it, such as "overloaded_error".
        code: The cause that the vendor names; a spent limit comes as 429 but does not pass by waiting.
    """
    if code in SPEND_LIMITS:
        return "no_credit"
    if status < 400:
        return KINDS.get(kind, "bad_request" if kind or status >= 300 else "overloaded")
    return STATUSES.get(status, "overloaded" if status >= 500 else "bad_request")


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """
    Seconds that *headers* (names in lower case) ask to wait, from a number or a date; None if they do not say.

    A date is taken relative to the answer's own, so that no clock of ours comes into it.
    """
    said = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", said):
        return float(said)
    try:
        until, at = parsedate_to_datetime(said), parsedate_to_datetime(headers.get("date", ""))
        return max(0.0, (until - at).total_seconds())
    except (ValueError, TypeError, OverflowError):  # no date, or only one of them with a zone
        return None


class _NoMessage(Exception):
    """A connection that brought no whole message, although nothing failed in the SDK's eyes."""


@dataclass(frozen=True, slots=True)
class _Fault:
    failure: str
    why: str
    retry_after_s: float | None = None


def _fault_of(error: Exception, answered: bool, timeout_s: float) -> _Fault:
    """What an exception out of a call means. *answered*: the vendor had begun to answer."""
    name = type(error).__name__
    match error:
        case anthropic.APIStatusError():
            return _fault_of_status(error)
        case _NoMessage():
            return _Fault("offline", str(error))
        case TimeoutError() | anthropic.APITimeoutError() | httpx2.TimeoutException():
            return _Fault("offline", f"no answer within {timeout_s:g} s ({name})")
        case anthropic.APIConnectionError():
            cause = error.__cause__ or error
            wrong = isinstance(cause, httpx2.UnsupportedProtocol | httpx2.LocalProtocolError)
            return _Fault("bad_request" if wrong else "offline", f"no connection: {type(cause).__name__}: {cause}")
        case httpx2.HTTPError():
            return _Fault("offline", f"the connection broke off: {name}: {error}")
    if answered or isinstance(error, anthropic.APIResponseValidationError):
        return _Fault("unparsable", f"the answer cannot be read: {name}: {error}")
    return _Fault("bad_request", f"the request cannot be made: {name}: {error}")


def _fault_of_status(error: anthropic.APIStatusError) -> _Fault:
    kind, status = error.type if isinstance(error.type, str) else "", error.status_code
    failure = failure_of_status(status, kind, error.error_code or "")
    named = " ".join(filter(None, (str(status) if status != 200 else "", kind))) or "an error"
    return _Fault(
        failure,
        f"the API answered {named}: {error.api_message or error.message}",
        retry_after_s(error.response.headers),
    )


def _request_of(error: Exception) -> str:
    return (error.request_id or "") if isinstance(error, anthropic.APIStatusError) else ""


def _fault_of_key(key: str) -> str:
    """Why *key* cannot be sent; empty if it can. Nothing of the key is said."""
    if not key:
        return "there is no API key: set ANTHROPIC_API_KEY"
    if not re.fullmatch(r"[!-~]+", key):
        return "the API key has blanks or characters that no key has: set ANTHROPIC_API_KEY anew"
    return ""


def _line(text: str, limit: int) -> str:
    return clean(plain_line(text), limit)
