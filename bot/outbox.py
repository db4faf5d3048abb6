"""What is due: which posts and edits, in which order, with what in them. Pure.

Guaranteed, if `post.requested` is appended before a post leaves and the board is at the head of the log then: no key is
ever due twice; a reply is due only when its parent has a ts, and after the replies before it; a message is edited at
most once in `EDIT_EVERY_S`, to its newest state. An edit is no event: after a start, what may still change is edited
once more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from bot.board import (
    Approval,
    Board,
    Budget,
    Crashes,
    Item,
    Open,
    Plan,
    ProgramChange,
    RefusedRun,
    Tally,
    Thread,
    Trouble,
    Verdict,
)
from bot.message import Message
from bot.schedule import Default
from bot.text import permalink
from bot.views import thread as views
from eventstore.codec import canonical_json
from eventstore.envelope import format_at, parse_at

EDIT_EVERY_S = 30.0
UNSURE_S = 600.0
"""What changed so shortly before the newest post of an earlier bot, it may not have lived to show in an edit."""
LATE_S = 600.0
"""Age in seconds from which a post says when it happened."""
SAYS_WHEN = frozenset({"plan", "verdict", "best", "crashes", "budget", "paused", "finished", "program", "trouble"})
"""Kinds that speak of a moment."""

LINKED = frozenset({"best", "crashes", "budget", "paused", "finished", "trouble"})
"""Kinds that stand in the channel and lead to the thread of their run."""

What = Literal["post", "again", "edit"]


@dataclass(frozen=True, slots=True)
class Due:
    """
    One thing to do.

    Attributes:
        what: `post`: request it, then post it. `again`: it was requested by a bot that died, so it may stand already.
            `edit`: of the message *ts*, which is known by *key*.
        message: What it says; None for a digest, which is drawn from the log, and for what can no longer be said.
        run: The tag that its events belong to; empty for none.
        thread_ts: The parent of a reply; empty for a message of the channel.
        position: The event it speaks of; posts are made in this order.
        from_position, to_position: The window of a digest or of a reply that sums up, else 0.
        late_s: For a digest, how late it is.
    """

    key: str
    kind: str
    what: What
    channel: str
    message: Message | None = None
    run: str = ""
    thread_ts: str = ""
    ts: str = ""
    position: int = 0
    from_position: int = 0
    to_position: int = 0
    late_s: float = 0.0
    requested_at: str = ""


@dataclass(frozen=True, slots=True)
class Rules:
    """
    What does not come from the log.

    Attributes:
        channel: Where runs are posted; None for nowhere.
        digest_at, digest_zone: The hour of that channel's digest until someone asks for another; None for no digest.
        booted_at: When this bot started; *boot*, how far the log went then.
        workspace_url: As `auth.test` says it; empty for no links.
        unsure_at: What changed since may not be shown; in the log's form, empty if there was no bot before.
    """

    channel: str | None
    digest_at: str | None
    digest_zone: str
    booted_at: datetime
    boot: int = 0
    workspace_url: str = ""
    unsure_at: str = ""

    def begun(self, board: Board) -> Rules:
        """The rules of a bot that starts with this *board*."""
        if not board.made_at:
            return replace(self, boot=board.position)
        unsure = parse_at(board.made_at) - timedelta(seconds=UNSURE_S)
        return replace(self, boot=board.position, unsure_at=format_at(unsure))

    def default(self, board: Board) -> Default | None:
        """The digest that nobody had to ask for."""
        if self.channel is None or self.digest_at is None:
            return None
        since = min(parse_at(board.first_at), self.booted_at) if board.first_at else self.booted_at
        return Default(self.channel, self.digest_at, self.digest_zone, since)


@dataclass(frozen=True, slots=True)
class Edited:
    """What a message said when it was last sent (None if that failed), and when that was."""

    fingerprint: str | None
    at: datetime


@dataclass(slots=True)
class Memory:
    """
    What this process remembers beside the log; all of it may be lost.

    Attributes:
        edited: By the key of the message.
        orphans: Keys that were requested by a bot that is gone.
        lost: Keys of parents that somebody deleted.
    """

    edited: dict[str, Edited] = field(default_factory=dict)
    orphans: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)


def due(board: Board, now: datetime, rules: Rules, memory: Memory, loop: str | None) -> tuple[Due, ...]:
    """
    Everything that is due, in the order in which each channel is to see it.

    Args:
        board: At the head of the log.
        loop: Who serves the workspace, from `Home.holder`.
    """
    look = _Look(board, now, rules, memory, loop)
    posts = sorted([*look.posts(), *look.digests()], key=lambda one: one.position)  # stable: a thread keeps its order
    return (*look.again(), *look.edits(), *posts)


def fingerprint(message: Message) -> str:
    """Names what a message shows: the same for two that differ only in the values of their buttons."""
    shown = canonical_json([message.text, _without_values(list(message.blocks))])
    return hashlib.sha256(shown.encode("utf-8", "surrogatepass")).hexdigest()


def _without_values(part: Any) -> Any:
    if isinstance(part, dict):
        return {name: _without_values(value) for name, value in part.items() if name != "value"}
    return [_without_values(value) for value in part] if isinstance(part, list | tuple) else part


def _kept(message: Message | None, may_repeat: bool) -> Message | None:
    """An edit still says what the message said of itself."""
    return views.may_repeat(message) if message is not None and may_repeat else message


@dataclass(frozen=True, slots=True)
class _Look:
    """One look at the board."""

    board: Board
    now: datetime
    rules: Rules
    memory: Memory
    loop: str | None

    # ------------------------------------------------------------ posts

    def posts(self) -> Iterator[Due]:
        for thread in self.board.threads.values():
            yield from self._parent(thread)
            if thread.ts and not self._is_lost(thread):
                yield from self._replies(thread)
        for item in self.board.notices:
            channel = item.channel or self.rules.channel
            if channel is not None:
                yield self._post(item, channel)

    def _parent(self, thread: Thread) -> Iterator[Due]:
        if self._is_lost(thread):
            key = f"{thread.key}/parent/{self.board.position}"
            yield self._post(Item(key, "parent", thread.tag, thread.position, thread.at), thread.channel)
        elif not thread.parent_at and self.rules.channel is not None and self.board.run_of(thread) is not None:
            yield self._post(Item(thread.key, "parent", thread.tag, thread.position, thread.at), self.rules.channel)

    def _replies(self, thread: Thread) -> Iterator[Due]:
        before = thread.before_item()
        for item in [*([before] if before is not None else []), *thread.waiting]:
            yield replace(self._post(item, thread.channel), thread_ts=thread.ts)

    def _post(self, item: Item, channel: str) -> Due:
        tally = item.card if isinstance(item.card, Tally) else None
        return Due(
            key=item.key,
            kind=item.kind,
            what="post",
            channel=channel,
            message=self._message(item),
            run=item.run,
            position=item.position,
            from_position=tally.from_position if tally is not None else 0,
            to_position=tally.to_position if tally is not None else 0,
        )

    def _is_lost(self, thread: Thread) -> bool:
        return thread.key in self.memory.lost and bool(thread.ts)

    # ------------------------------------------------------------ digests

    def digests(self) -> Iterator[Due]:
        for one in self.board.schedules.due(self.now, self.rules.default(self.board)):
            yield Due(
                key=one.key,
                kind="digest",
                what="post",
                channel=one.channel,
                position=one.upto,
                from_position=one.after,
                to_position=one.upto,
                late_s=one.late_s,
            )
        for asked in self.board.asked.values():
            yield Due(
                key=asked.key,
                kind="digest",
                what="post",
                channel=asked.channel,
                position=asked.position,
                from_position=asked.after,
                to_position=asked.upto,
            )

    # ------------------------------------------------------------ what a crash left open

    def again(self) -> Iterator[Due]:
        for key, known in self.board.open.items():
            if key in self.memory.orphans:
                found = self._again(known)
                if found is not None:
                    yield found

    def _again(self, known: Open) -> Due | None:
        request, item = known.request, known.item
        found = self.board.thread_of(request.key)
        is_reply = request.kind in ("plan", "approval", "verdict", "before")
        thread_ts = found[0].ts if found is not None and is_reply else ""
        if is_reply and found is not None and (not thread_ts or self._is_lost(found[0])):
            return None  # its parent is to be posted first
        has_place = not is_reply or found is not None  # a run of the same tag was asked for since
        return Due(
            key=request.key,
            kind=request.kind,
            what="again",
            channel=request.channel,
            message=self._message(item) if item is not None and has_place else None,
            run=known.run,
            thread_ts=thread_ts,
            position=known.position,
            from_position=request.from_position,
            to_position=request.to_position,
            requested_at=known.at,
        )

    # ------------------------------------------------------------ edits

    def edits(self) -> Iterator[Due]:
        for thread in self.board.threads.values():
            if not thread.ts or self._is_lost(thread):
                continue
            if self._may_have_changed(thread):
                message = self._parent_message(thread)
                yield from self._edit(thread.key, "parent", thread, thread.ts, _kept(message, thread.may_repeat))
            for asked in thread.approvals.values():
                if asked.ts:
                    shown = _kept(views.approval(self.board.state, thread.tag, asked), asked.may_repeat)
                    yield from self._edit(asked.item.key, "approval", thread, asked.ts, shown)

    def _may_have_changed(self, thread: Thread) -> bool:
        newest = self.board.state.newest
        if not thread.over_at or (newest is not None and newest.tag == thread.tag):
            return True
        finished = f"{thread.key}/finished"
        is_untold = any(item.key == finished for item in self.board.notices)
        is_unsure = bool(self.rules.unsure_at) and thread.changed_on >= self.rules.unsure_at
        return is_untold or is_unsure or thread.changed_at > self.rules.boot

    def _edit(self, key: str, kind: str, thread: Thread, ts: str, message: Message | None) -> Iterator[Due]:
        last = self.memory.edited.get(key)
        if message is None:
            return
        if last is not None:
            is_early = self.now - last.at < timedelta(seconds=EDIT_EVERY_S)
            if is_early or last.fingerprint == fingerprint(message):
                return
        yield Due(key=key, kind=kind, what="edit", channel=thread.channel, message=message, run=thread.tag, ts=ts)

    # ------------------------------------------------------------ what they say

    def _parent_message(self, thread: Thread) -> Message | None:
        run = self.board.run_of(thread)
        if run is None:
            return None
        return views.parent(self.board.state, run, self.loop, self.now, self.board.besides.of(run.tag))

    def _message(self, item: Item) -> Message | None:
        message = self._bare(item)
        if message is not None and item.kind in LINKED:
            message = self._linked(message, item.run)
        if message is None or item.kind not in SAYS_WHEN:
            return message
        at = parse_at(item.at)
        return views.late(message, at) if self.now - at > timedelta(seconds=LATE_S) else message

    def _linked(self, message: Message, tag: str) -> Message:
        thread = self.board.threads.get(tag)
        if thread is None or self._is_lost(thread):
            return message
        return views.linked(message, tag, permalink(self.rules.workspace_url, thread.channel, thread.ts))

    def _bare(self, item: Item) -> Message | None:
        state, tag = self.board.state, item.run
        match item.card:
            case Plan() if item.kind == "approval":
                return views.approval(state, tag, self._approval(item))
            case Plan() as card:
                return views.plan(card)
            case Verdict() as card:
                return views.verdict(state, tag, card) if item.kind == "verdict" else views.best(state, tag, card)
            case Tally() as card:
                return views.before(card)
            case Crashes() as card:
                return views.crashes(state, tag, card)
            case Budget() as card:
                return views.budget(state, tag, card)
            case RefusedRun() as card:
                return views.refused(tag, card)
            case ProgramChange() as card:
                return views.program(card)
            case Trouble() as card:
                return views.trouble(state, tag, card)
        found = self.board.thread_of(item.key)
        if found is not None and item.kind == "parent":
            return self._parent_message(found[0])
        run = state.runs.get(tag)
        if run is None or run.started is None:
            return None
        return views.finished(run, self.now, self.board.besides.of(tag))

    def _approval(self, item: Item) -> Approval:
        found = self.board.thread_of(item.key)
        known = found[0].approvals.values() if found is not None else ()
        return next((asked for asked in known if asked.item.key == item.key), Approval(item))
