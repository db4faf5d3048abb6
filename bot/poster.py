"""Makes what is due: requests each post in the log, sends it, and writes down what came of it.

Guaranteed: a key is requested once in the life of a log, because a request is appended only where nothing came between
it and the look at the log that found it due; the posts of a channel are made one after the other, and channels do not
wait for each other; what a bot that died had requested is looked for before it is posted again. For this nobody else
may serve the workspace (`Home.hold`): `adopt` takes every post that is open as left behind. While Slack is away
everything waits in the log, where one `trouble.noticed` says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from bot import outbox
from bot.board import Board
from bot.message import Message
from bot.notifier import Lost, Made, Notifier, NotNow, Refused
from bot.outbox import Due, Edited, Memory, Rules
from eventstore import events as e
from eventstore.codec import clean
from eventstore.envelope import NewEvent, format_at, parse_at
from eventstore.errors import EventstoreError, IdReused, LogUnavailable, PositionConflict
from eventstore.plain import plain_line

LOG = logging.getLogger(__name__)
POLL_S = 5.0
"""The longest that a deferred edit or a digest waits for someone to look."""
LOG_PAUSE_S = 1.0
AHEAD_MAX = 20
"""Posts that go before a digest: a fast run always has something older to say."""
WHY_MAX = 500
EDITED_KEPT = 500

Draw = Callable[[e.PostRequested, str, float], Awaitable[tuple[Message, Sequence[Message]]]]
"""Draws a digest from its request (`schedule.window_of`), when that was (in the log's form) and how late it is."""


class Log(Protocol):
    """What is needed of `eventstore.worker.Worker`."""

    async def append(self, events: Sequence[NewEvent], *, expected: int | None = None) -> list[int]: ...


class Poster:
    """
    Serves the outbox of one workspace, until cancelled.

    Args:
        catch_up: Brings *board* to the head of the log.
        draw: For digests.
        holder: `Home.holder`.
        new_id: Ids for events, unique for ever.
        actor: `bot@<host>`.

    Attributes:
        memory: What this process remembers; for tests.
    """

    def __init__(
        self,
        log: Log,
        board: Board,
        notifier: Notifier,
        rules: Rules,
        *,
        catch_up: Callable[[], Awaitable[None]],
        draw: Draw,
        holder: Callable[[], str | None],
        now: Callable[[], datetime],
        new_id: Callable[[], str],
        actor: str,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.memory = Memory()
        self._log = log
        self._board = board
        self._notifier = notifier
        self._rules = rules
        self._catch_up = catch_up
        self._draw = draw
        self._holder = holder
        self._now = now
        self._new_id = new_id
        self._actor = actor
        self._sleep = sleep
        self._woken = asyncio.Event()
        self._claiming = asyncio.Lock()
        self._telling = asyncio.Lock()
        self._troubled: set[str] = set()
        self._aside: set[tuple[str, str]] = set()
        self._lanes: dict[str, asyncio.Task[None]] = {}
        notifier.on_trouble = self._trouble
        notifier.on_well = self._well

    def wake(self) -> None:
        """Look again soon: something was appended, or the alarm clock rang."""
        self._woken.set()

    async def run(self) -> None:
        """Make what is due, for ever. Raises `LogCorrupt` and whatever else a fault of the log is that stays."""
        await self._catch_up()
        self.adopt()
        async with asyncio.TaskGroup() as lanes:
            while True:
                self._woken.clear()
                for channel in await self._channels():
                    if channel not in self._lanes or self._lanes[channel].done():
                        self._lanes[channel] = lanes.create_task(self._lane(channel))
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await self._woken.wait()

    async def settle(self) -> None:
        """Make what is due now and come back; what is deferred stays. For tests and `--once`."""
        await self._catch_up()
        while channels := await self._channels():
            await asyncio.gather(*(self._lane(channel) for channel in channels))

    def adopt(self) -> None:
        """Take what is open in the log as left behind by a bot that died. `run` does it at its start."""
        self._rules = self._rules.begun(self._board)
        self.memory.orphans = set(self._board.open)

    # ------------------------------------------------------------ lanes

    async def _channels(self) -> list[str]:
        try:
            await self._catch_up()
        except LogUnavailable as error:
            LOG.warning("the log cannot be read now: %s", error)
            return []
        return list(dict.fromkeys(due.channel for due in self._due()))

    def _due(self) -> list[Due]:
        found = outbox.due(self._board, self._now(), self._rules, self.memory, self._holder())
        return [due for due in found if (due.key, due.what) not in self._aside]

    async def _lane(self, channel: str) -> None:
        """Make what is due in *channel*, one after the other, and a digest at the latest after `AHEAD_MAX` others."""
        ahead = 0
        while True:
            found = [due for due in self._due() if due.channel == channel]
            if not found:
                return
            digest = next((due for due in found if due.kind == "digest"), found[0])
            due = digest if ahead >= AHEAD_MAX else found[0]
            ahead = 0 if due.kind == "digest" else ahead + 1
            try:
                await self._make(due)
                await self._catch_up()
            except LogUnavailable as error:
                LOG.warning("the log cannot be written now: %s", error)
                if due.what != "edit":  # whether it was requested, or its post made, is for the log to say
                    ours = [key for key, known in self._board.open.items() if known.request.channel == channel]
                    self.memory.orphans.update([due.key, *ours])
                await self._sleep(LOG_PAUSE_S)
                with suppress(LogUnavailable):
                    await self._catch_up()
            except EventstoreError:
                raise
            except Exception as error:  # a fault of ours in one message must not silence all others
                LOG.exception("%s cannot be made, please report it", due.key)
                await self._set_aside(due, error)

    async def _set_aside(self, due: Due, error: Exception) -> None:
        """Do without a post or an edit that cannot be made; the next life of the bot may try what was not requested."""
        self._aside.add((due.key, due.what))
        await self._catch_up()
        if due.what != "edit" and due.key in self._board.open:
            why = f"a fault of Nightshift, please report it: {type(error).__name__}"
            await self._append(due, e.PostFailed(key=due.key, why=why))
            await self._catch_up()

    async def _make(self, due: Due) -> None:
        if due.what == "edit":
            await self._edit(due)
        elif due.kind == "digest":
            await self._digest(due)
        elif due.kind == "digest_reply":
            await self._digest_reply(due)
        elif due.what == "again":
            await self._send(due, due.message)
        else:
            claimed = await self._claim(due)
            if claimed is not None:
                await self._send(claimed, claimed.message)

    async def _claim(self, due: Due, replies: int = 0) -> Due | None:
        """
        Append `post.requested` if *due* still is, and for a digest those of its *replies* with it.

        Returns:
            It as it is now and when it was requested, or None if someone else has it.
        """
        async with self._claiming:
            while True:
                await self._catch_up()
                fresh = next((one for one in self._due() if (one.key, one.what) == (due.key, "post")), None)
                if fresh is None:
                    return None
                head, at = self._board.position, format_at(self._now())
                batch = [self._requested(fresh, fresh.key, fresh.kind, at)]
                names = [f"{fresh.key}/{number}" for number in range(1, replies + 1)]
                batch += [self._requested(fresh, name, "digest_reply", at) for name in names]
                try:
                    positions = await self._log.append(batch, expected=head)
                except PositionConflict:
                    continue
                self._note_claimed(fresh)
                await self._catch_up()
                return replace(fresh, position=positions[0], requested_at=at)

    def _requested(self, due: Due, key: str, kind: str, at: str) -> NewEvent:
        data = e.PostRequested(
            key=key, channel=due.channel, kind=kind, from_position=due.from_position, to_position=due.to_position
        )
        cause = due.position if 0 < due.position <= self._board.position and due.kind != "digest" else None
        return NewEvent(self._new_id(), due.run, at, self._actor, data, cause)

    def _note_claimed(self, due: Due) -> None:
        found = self._board.thread_of(due.key)
        if found is not None and due.kind == "parent":
            self.memory.lost.discard(found[0].key)

    # ------------------------------------------------------------ one post

    async def _send(self, due: Due, message: Message | None) -> str | None:
        """Post what was requested and append what came of it. Returns its ts if it stands."""
        if message is None:
            await self._append(due, e.PostFailed(key=due.key, why="what it was to say is no longer known"))
            return None
        came = await self._notifier.post(
            due.channel,
            message,
            key=due.key,
            since_s=parse_at(due.requested_at).timestamp(),
            thread_ts=due.thread_ts,
            is_again=due.what == "again",
        )
        if isinstance(came, Lost):
            self._lose(due)
            return None
        if isinstance(came, Refused):
            why = clean(plain_line(came.why), WHY_MAX)
            LOG.error("the post %s was given up: %s", due.key, why)
            await self._append(due, e.PostFailed(key=due.key, why=why))
            return None
        self._note_shown(due, message)
        await self._append(due, e.PostMade(key=due.key, channel=due.channel, ts=came.ts, may_repeat=came.may_repeat))
        if came.left_out is not None:
            picture, thread_ts = came.left_out, due.thread_ts or came.ts
            shared = await self._notifier.share(
                due.channel, picture.name, picture.data, thread_ts=thread_ts, alt_text=picture.alt_text
            )
            if isinstance(shared, NotNow):
                LOG.warning("the picture of %s could not be shared: %s", due.key, shared.why)
        return came.ts

    def _note_shown(self, due: Due, message: Message) -> None:
        """Remember what a message that may be edited shows, under the key of its edits."""
        found = self._board.thread_of(due.key)
        key = found[0].key if found is not None and due.kind == "parent" else due.key
        if due.kind in ("parent", "approval"):
            self._note_edited(key, outbox.fingerprint(message))

    def _note_edited(self, key: str, fingerprint: str | None) -> None:
        self.memory.edited.pop(key, None)  # to the end: the newest are kept
        self.memory.edited[key] = Edited(fingerprint, self._now())
        while len(self.memory.edited) > EDITED_KEPT:
            del self.memory.edited[next(iter(self.memory.edited))]

    def _lose(self, due: Due) -> None:
        """The parent of a reply is gone: it gets a new one, and then the reply its turn again."""
        found = self._board.thread_of(due.key)
        if found is not None:
            LOG.warning("the message of the run %s is gone: a new one is posted", found[0].tag)
            self.memory.lost.add(found[0].key)
        self.memory.orphans.add(due.key)

    async def _append(self, due: Due, data: e.PostMade | e.PostFailed) -> None:
        """Append an outcome, however long the log needs: the message stands already."""
        word = "made" if isinstance(data, e.PostMade) else "failed"
        event = NewEvent(
            f"post:{data.key}:{word}", due.run, format_at(self._now()), self._actor, data, due.position or None
        )
        while True:
            try:
                await self._log.append([event])
                break
            except IdReused as error:  # another bot made it too
                LOG.warning("%s", error)
                break
            except LogUnavailable as error:
                LOG.warning("the log cannot be written now: %s", error)
                await self._sleep(LOG_PAUSE_S)
        self.memory.orphans.discard(data.key)

    # ------------------------------------------------------------ digests

    async def _digest(self, due: Due) -> None:
        """Draw a digest, request it and its replies in one batch, and post them."""
        head, replies = await self._drawn(due, due.key)
        claimed = due if due.what == "again" else await self._claim(due, len(replies))
        if claimed is None:
            return
        ts = await self._send(claimed, head)
        replies = replies if ts is not None else ()
        await self._replies(replace(claimed, what="post", kind="digest_reply", thread_ts=ts or ""), due.key, replies)

    async def _digest_reply(self, due: Due) -> None:
        """Post the replies that a bot requested which died after the digest itself was posted."""
        head, _, _number = due.key.rpartition("/")
        above = self._board.digests.get(due.channel)
        _, replies = await self._drawn(due, head)
        if above is None or above.key != head:
            replies = ()
        await self._replies(replace(due, thread_ts=above.ts if above is not None else ""), head, replies)

    async def _replies(self, due: Due, head: str, replies: Sequence[Message]) -> None:
        """
        Post those replies of the digest *head* that are open, in their order.

        *due* tells whether the first of them may stand already. The others do not: each was to be sent only after what
        came of the one before was in the log.
        """
        keys = [key for key in self._board.open if key.rpartition("/")[0] == head]
        for key in sorted(keys, key=lambda key: int(key.rpartition("/")[2])):
            number = int(key.rpartition("/")[2])
            message = replies[number - 1] if number <= len(replies) else None
            await self._send(replace(due, key=key), message)
            due = replace(due, what="post")

    async def _drawn(self, due: Due, key: str) -> tuple[Message, Sequence[Message]]:
        window = {"from_position": due.from_position, "to_position": due.to_position}
        request = e.PostRequested(key=key, channel=due.channel, kind="digest", **window)
        return await self._draw(request, due.requested_at or format_at(self._now()), due.late_s)

    # ------------------------------------------------------------ edits

    async def _edit(self, due: Due) -> None:
        if due.message is None:
            return
        came = await self._notifier.edit(due.channel, due.ts, due.message, key=due.key)
        if not isinstance(came, Made):
            LOG.warning("the message %s could not be edited: %s", due.key, came.why)
        if isinstance(came, Lost) and due.kind == "parent":
            self.memory.lost.add(due.key)
        self._note_edited(due.key, None if isinstance(came, NotNow) else outbox.fingerprint(due.message))

    # ------------------------------------------------------------ Slack itself

    async def _trouble(self, channel: str, why: str) -> None:
        """Say once that Slack cannot be used."""
        async with self._telling:
            self._troubled.add(channel)
            await self._catch_up()
            if "slack" in self._board.state.troubles:
                return
            at = format_at(self._now())
            what = clean(plain_line(f"posts to {channel} wait: {why}"), WHY_MAX)
            LOG.warning("%s", what)
            noticed = e.TroubleNoticed(kind="slack", what=what, since=at)
            await self._log.append([NewEvent(self._new_id(), "", at, self._actor, noticed)])
            await self._catch_up()

    async def _well(self, channel: str) -> None:
        """Say that Slack can be used again, if it was said that it cannot."""
        self._troubled.discard(channel)
        if self._troubled or "slack" not in self._board.state.troubles:
            return
        async with self._telling:
            await self._catch_up()
            known = self._board.state.troubles.get("slack")
            if known is not None:
                cleared = e.TroubleCleared(kind="slack", what=known.what)
                event = NewEvent(self._new_id(), "", format_at(self._now()), self._actor, cleared)
                await self._log.append([event])
                await self._catch_up()
