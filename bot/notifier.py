"""The one door out: everything that is sent to Slack goes through here.

Guaranteed: no payload leaves that `bot.blocks` refuses; no channel and no method is used more often than Slack allows,
nor before a `Retry-After` has passed; a post that may have arrived is looked for by its key before it is sent again,
and says that it may repeat where the bot may not look. `post` comes back only when the post stands or never will:
while Slack is away it waits, and says so through `on_trouble`. No error of Slack or of the network is raised.

The client must be made with `retry_handlers=[]`: its own retries would send a message twice.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from aiohttp import ClientConnectorError, ClientError
from slack_sdk.errors import SlackApiError, SlackRequestError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.webhook.async_client import AsyncWebhookClient

from bot import blocks, faults
from bot.faults import Fault
from bot.message import PICTURE, Block, Message, Picture, View
from bot.pacing import POSTS, RATES, TIER_4, Pace
from bot.views.thread import may_repeat

EVENT_TYPE = "nightshift_post"
"""`event_type` of the metadata by which a post is found again."""
PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 60.0)
"""Between tries, the last one for ever."""
PATIENCE = 3
"""Failures in a row after which people are told."""
PICTURE_S = 6.0
"""The longest that a post waits for its picture, in real seconds."""
POLL_S = 0.5
SKEW_S = 300.0
"""How far Slack's clock may be behind ours when a post is looked for."""
PAGES = 10
PAGE = 200
RESPONSE_TIMEOUT_S = 10

Answer = Mapping[str, Any]
Call = Callable[[], Awaitable[Any]]
Say = Callable[[str, str], Awaitable[None]]
_BROKEN = (SlackRequestError, ClientError, OSError, TimeoutError, AttributeError, ValueError)
# AttributeError, ValueError: what the client makes of answers that are neither JSON nor HTML


@dataclass(frozen=True, slots=True)
class Made:
    """
    The message stands as *ts*.

    Attributes:
        left_out: Its picture if that could not be put into it.
        may_repeat: It may stand twice, and says so.
    """

    ts: str
    left_out: Picture | None = None
    may_repeat: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """It will never stand; *why* in one sentence."""

    why: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The message it is about (the parent of a reply, the one to be edited) is gone."""

    why: str


@dataclass(frozen=True, slots=True)
class NotNow:
    """It did not work and was not tried again."""

    why: str


@dataclass(frozen=True, slots=True)
class Done:
    """The call worked; *data* is Slack's answer."""

    data: Answer


class _Failed(Exception):
    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.why)
        self.fault = fault


class Notifier:
    """
    Sends to Slack with *client*. Safe for many tasks at once; posts of one channel belong to one task, for their order.

    Args:
        clock: Monotonic seconds.
        sleep: Waits that many seconds of *clock*.
        on_trouble, on_well: Called with a channel: posts to it wait because of what the sentence says; they pass.
    """

    def __init__(
        self,
        client: AsyncWebClient,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_trouble: Say | None = None,
        on_well: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self._client = client
        self._clock = clock
        self._sleep = sleep
        self._pace = Pace()
        self.on_trouble = on_trouble
        self.on_well = on_well

    # ------------------------------------------------------------ posts

    async def post(
        self, channel: str, message: Message, *, key: str, since_s: float, thread_ts: str = "", is_again: bool = False
    ) -> Made | Refused | Lost:
        """
        Post *message* and come back when it stands.

        Args:
            key: Goes into the metadata.
            since_s: When the post was requested, in Unix seconds; it is not looked for before that.
            thread_ts: The parent of a reply.
            is_again: It may stand already, from an earlier life of the bot.
        """
        problem = refusal(message, "message")
        if problem is not None:
            message = replace(message, extra=())
            if refusal(message, "message") is not None:
                return Refused(problem)
        sending = _Sending(channel, key, thread_ts, since_s, message, is_unclear=is_again)
        while True:
            fault = await self._try_to_post(sending)
            if not isinstance(fault, Fault):
                await self._well(channel)
                return fault
            if fault.kind == "lost":
                return Lost(fault.why)
            if fault.kind == "refused" or (fault.kind == "blocks" and not sending.shrink()):
                return Refused(fault.why)
            await self._pause(sending, fault)

    async def _try_to_post(self, sending: _Sending) -> Made | Fault:
        try:
            is_marked = False
            if sending.is_unclear:
                found, may_look = await self._find(sending)
                if found is not None:
                    return Made(str(found["ts"]), None if _has_image(found.get("blocks")) else sending.picture)
                is_marked = not may_look
            ready = _with_picture(sending.message, await self._file_of(sending))
            answer = await self._call(
                "chat.postMessage", sending.channel, lambda: self._send(sending, ready, is_marked)
            )
            return Made(str(answer.get("ts", "")), sending.picture if ready.picture is None else None, is_marked)
        except _Failed as failed:
            return failed.fault

    async def _send(self, sending: _Sending, message: Message, is_marked: bool) -> Any:
        shown = _marked(message) if is_marked else message
        return await self._client.chat_postMessage(
            channel=sending.channel,
            text=shown.text,
            blocks=_blocks(shown) or None,
            thread_ts=sending.thread_ts or None,
            metadata=_metadata(sending.key),
            unfurl_links=False,
            unfurl_media=False,
        )

    async def _pause(self, sending: _Sending, fault: Fault) -> None:
        if fault.kind in ("limited", "blocks"):  # `_call` waits for the first; the second goes out smaller at once
            return
        sending.failures += 1
        if fault.kind == "unclear":
            sending.is_unclear = True
        if self.on_trouble is not None and (fault.kind == "closed" or sending.failures >= PATIENCE):
            await self.on_trouble(sending.channel, fault.why)
        step = len(PAUSES_S) if fault.kind == "closed" else sending.failures
        await self._sleep(PAUSES_S[min(step, len(PAUSES_S)) - 1])

    async def _well(self, channel: str) -> None:
        if self.on_well is not None:
            await self.on_well(channel)

    async def _find(self, sending: _Sending) -> tuple[dict[str, Any] | None, bool]:
        """Look for the post by its key: the message or None, and whether the bot may look (and did to the end)."""
        cursor = ""
        for _ in range(PAGES):
            try:
                page = await self._page(sending, cursor)
            except _Failed as failed:
                if failed.fault.kind in ("limited", "unsent", "unclear"):
                    raise
                return None, False  # no scope, or not in the channel
            for one in _dicts(page.get("messages")):
                payload = _dict(_dict(one.get("metadata")).get("event_payload"))
                if payload.get("key") == sending.key and one.get("ts"):
                    return one, True
            cursor = str(_dict(page.get("response_metadata")).get("next_cursor") or "")
            if not cursor:
                return None, True
        return None, False

    async def _page(self, sending: _Sending, cursor: str) -> Answer:
        asked: dict[str, Any] = {"channel": sending.channel, "limit": PAGE, "include_all_metadata": True}
        asked |= {"oldest": f"{sending.since_s - SKEW_S:.6f}"} | ({"cursor": cursor} if cursor else {})
        if sending.thread_ts:
            return await self._call(
                "conversations.replies",
                sending.channel,
                lambda: self._client.conversations_replies(ts=sending.thread_ts, **asked),
            )
        return await self._call(
            "conversations.history", sending.channel, lambda: self._client.conversations_history(**asked)
        )

    # ------------------------------------------------------------ pictures and files

    async def _file_of(self, sending: _Sending) -> str | None:
        """The id of the post's picture, which is uploaded once; None if it has none or that did not work."""
        if sending.message.picture is not None and sending.file is None:
            sending.file = await self.upload(sending.message.picture) or ""
        return sending.file or None

    async def upload(self, picture: Picture) -> str | None:
        """Upload without a channel and wait until blocks may name it; None if that does not work soon."""
        try:
            async with asyncio.timeout(PICTURE_S):
                answer = await self._call("files", "", lambda: self._upload_call(picture))
                file = str(_dict(answer.get("file")).get("id") or "")
                for _ in range(int(PICTURE_S / POLL_S)):
                    if not file or await self._is_ready(file):
                        return file or None
                    await self._sleep(POLL_S)
        except (_Failed, TimeoutError):
            return None
        return None

    async def _upload_call(self, picture: Picture) -> Any:
        return await self._client.files_upload_v2(
            content=picture.data, filename=picture.name, title=picture.name, alt_txt=picture.alt_text[:1_000]
        )

    async def _is_ready(self, file: str) -> bool:
        answer = await self._call("files", "", lambda: self._client.files_info(file=file))
        known = _dict(answer.get("file"))
        return bool(known.get("mimetype")) or any(name.startswith("thumb_") for name in known)

    async def share(
        self, channel: str, name: str, data: bytes, *, thread_ts: str = "", alt_text: str = "", comment: str = ""
    ) -> Done | NotNow:
        """Put a file into a channel or, with *thread_ts*, a thread. *comment* is mrkdwn. Tried once."""
        return await self._once(
            "files",
            channel,
            lambda: self._client.files_upload_v2(
                channel=channel,
                content=data,
                filename=name,
                title=name,
                alt_txt=alt_text[:1_000] or None,
                thread_ts=thread_ts or None,
                initial_comment=comment or None,
            ),
        )

    # ------------------------------------------------------------ edits

    async def edit(self, channel: str, ts: str, message: Message, *, key: str) -> Made | Refused | Lost | NotNow:
        """Let the message *ts* say something else. Tried once: a newer state will follow."""
        problem = refusal(message, "update")
        if problem is not None:
            return Refused(problem)
        try:
            await self._call("chat.update", channel, lambda: self._update(channel, ts, message, key))
            return Made(ts)
        except _Failed as failed:
            kind, why = failed.fault.kind, failed.fault.why
            return Lost(why) if kind == "lost" else Refused(why) if kind in ("refused", "blocks") else NotNow(why)

    async def _update(self, channel: str, ts: str, message: Message, key: str) -> Any:
        return await self._client.chat_update(
            channel=channel, ts=ts, text=message.text, blocks=_blocks(message), metadata=_metadata(key)
        )

    # ------------------------------------------------------------ answers to one person

    async def ephemeral(self, channel: str, user: str, message: Message, *, thread_ts: str = "") -> Done | NotNow:
        """Show *message* to one person. It is gone when they reload, and is never the only record."""
        problem = refusal(message, "message")
        if problem is not None:
            return NotNow(problem)
        return await self._once(
            "chat.postEphemeral",
            channel,
            lambda: self._client.chat_postEphemeral(
                channel=channel,
                user=user,
                text=message.text,
                blocks=_blocks(message) or None,
                thread_ts=thread_ts or None,
            ),
        )

    async def respond(
        self, url: str, message: Message, *, in_channel: bool = False, replaces: bool = False
    ) -> Done | NotNow:
        """Answer through a `response_url`, to the person alone or in the channel; *replaces* what was clicked."""
        problem = refusal(message, "message")
        if problem is not None:
            return NotNow(problem)
        return await self._once("response_url", "", lambda: self._respond(url, message, in_channel, replaces))

    async def _respond(self, url: str, message: Message, in_channel: bool, replaces: bool) -> Any:
        client = AsyncWebhookClient(url, timeout=RESPONSE_TIMEOUT_S, retry_handlers=[], session=self._client.session)
        answer = await client.send(
            text=message.text,
            blocks=_blocks(message) or None,
            response_type="in_channel" if in_channel else "ephemeral",
            replace_original=replaces,
            unfurl_links=False,
            unfurl_media=False,
        )
        if answer.status_code != 200:
            after = str(answer.headers.get("Retry-After", ""))
            word = answer.body if answer.status_code < 500 else None
            raise _Failed(faults.of_answer(word, answer.status_code, channel="", retry_after=after))
        return {"ok": True}

    async def open_view(self, trigger_id: str, view: View) -> Done | NotNow:
        """Open a modal; the trigger lives for 3 s."""
        return await self._view(view, lambda: self._client.views_open(trigger_id=trigger_id, view=view))

    async def update_view(self, view_id: str, view: View, hash_: str | None = None) -> Done | NotNow:
        """Change an open modal; with *hash_* only if nobody changed it since (`hash_conflict`)."""
        return await self._view(view, lambda: self._client.views_update(view_id=view_id, view=view, hash=hash_))

    async def publish_home(self, user: str, view: View, hash_: str | None = None) -> Done | NotNow:
        """Show a person's App Home; see `update_view` for *hash_*."""
        return await self._view(view, lambda: self._client.views_publish(user_id=user, view=view, hash=hash_))

    async def _view(self, view: View, call: Call) -> Done | NotNow:
        surface: blocks.Surface = "home" if view.get("type") == "home" else "modal"
        found = blocks.problems(view, surface)
        if found:
            return NotNow(_words(found))
        return await self._once("views", "", call)

    # ------------------------------------------------------------ one call

    async def _once(self, method: str, channel: str, call: Call) -> Done | NotNow:
        try:
            return Done(await self._call(method, channel, call))
        except _Failed as failed:
            return NotNow(failed.fault.why)

    async def _call(self, method: str, channel: str, call: Call) -> Answer:
        """Wait for the turn of *method*, make one call and return its data. Raises `_Failed` for everything else."""
        is_post = method == "chat.postMessage"
        key = f"{method} {channel}" if is_post else method
        wait_s = self._pace.reserve(key, POSTS if is_post else RATES.get(method, TIER_4), self._clock())
        if wait_s > 0:
            await self._sleep(wait_s)
        while (barred_s := self._pace.barred(key, self._clock())) > 0:
            await self._sleep(barred_s)
        try:
            answer = await call()
        except Exception as error:
            fault = error.fault if isinstance(error, _Failed) else _fault(error, channel)
            if fault.kind == "limited":
                self._pace.bar(key, self._clock() + fault.retry_after_s)
            raise _Failed(fault) from None  # its cause would show what was sent
        return cast(Answer, answer if isinstance(answer, dict) else answer.data)


@dataclass(slots=True)
class _Sending:
    """One post on its way."""

    channel: str
    key: str
    thread_ts: str
    since_s: float
    message: Message
    is_unclear: bool
    failures: int = 0
    picture: Picture | None = None
    file: str | None = None

    def __post_init__(self) -> None:
        self.picture = self.message.picture

    def shrink(self) -> bool:
        """Leave out what Slack may not take, one thing at a time; False if there is nothing left to leave out."""
        if self.message.extra:
            self.message = replace(self.message, extra=())
            return True
        if self.message.picture is not None:
            self.message = _with_picture(self.message, None)
            return True
        return False


def refusal(message: Message, surface: blocks.Surface) -> str | None:
    """Why `bot.blocks` refuses a message, with pointers, or None."""
    found = blocks.problems({"text": message.text, "blocks": _blocks(message)}, surface)
    return _words(found) if found else None


def _words(found: Iterable[blocks.Problem]) -> str:
    return "; ".join(f"{one.pointer or '/'}: {one.why} ({one.code})" for one in list(found)[:3])


def _blocks(message: Message) -> list[Block]:
    return [*message.blocks, *message.extra]


def _metadata(key: str) -> dict[str, Any]:
    return {"event_type": EVENT_TYPE, "event_payload": {"key": key}}


def _with_picture(message: Message, file: str | None) -> Message:
    """Put the id of the uploaded picture where it stands, or leave out the blocks that show it."""
    if message.picture is None:
        return message
    if file is None:
        kept = tuple(block for block in message.blocks if not _shows_picture(block))
        return replace(message, blocks=kept, picture=None)
    return replace(message, blocks=tuple(_named(block, file) for block in message.blocks))


def _has_image(part: Any) -> bool:
    if isinstance(part, dict):
        return "slack_file" in part or any(_has_image(value) for value in part.values())
    return isinstance(part, list) and any(_has_image(value) for value in part)


def _marked(message: Message) -> Message:
    """Say that it may repeat, in the place of its last block if there is no room."""
    marked = may_repeat(message)
    return marked if refusal(marked, "message") is None else may_repeat(replace(message, blocks=message.blocks[:-1]))


def _shows_picture(part: Any) -> bool:
    if isinstance(part, dict):
        return part.get("slack_file") == PICTURE or any(_shows_picture(value) for value in part.values())
    return isinstance(part, list | tuple) and any(_shows_picture(value) for value in part)


def _named(part: Any, file: str) -> Any:
    if isinstance(part, dict):
        return {
            name: {"id": file} if name == "slack_file" and value == PICTURE else _named(value, file)
            for name, value in part.items()
        }
    return [_named(value, file) for value in part] if isinstance(part, list | tuple) else part


def _fault(error: Exception, channel: str) -> Fault:
    if isinstance(error, SlackApiError):
        return _of_response(error.response, channel)
    name = type(error).__name__
    if isinstance(error, ClientConnectorError):  # no route, no name, nobody listens
        return faults.unsent(name)
    if isinstance(error, _BROKEN):
        return faults.unclear(name)
    at = traceback.extract_tb(error.__traceback__)[-1]  # not its message: that may hold an address with a secret in it
    return Fault("refused", f"a fault of Nightshift, please report it: {name} in {Path(at.filename).name}:{at.lineno}")


def _of_response(response: Any, channel: str) -> Fault:
    """Judge what the client raised; its answer may be of another class where that was no JSON."""
    status = int(getattr(response, "status_code", 0) or getattr(response, "status", 0) or 0)
    data = getattr(response, "data", None)
    answer = data if isinstance(data, dict) else {}
    found = _dict(answer.get("response_metadata")).get("messages")
    return faults.of_answer(
        answer.get("error"),
        status,
        channel=channel,
        messages=[str(one) for one in found] if isinstance(found, list) else (),
        needed=str(answer.get("needed") or ""),
        retry_after=str(getattr(response, "headers", {}).get("Retry-After", "")),
    )


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
