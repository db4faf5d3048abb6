"""The loop process: fold the log, ask the machine, do what it says, wait for something to happen.

One turn is `step`. Facts and the intents of effects go into the log as one batch that stands only if nobody
appended since the state was folded; otherwise the machine is asked again. Effects run as tasks beside each
other and write their own outcomes. Nothing is remembered between turns but the folded state and the tasks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from eventstore import events as e
from eventstore.bells import Bell
from eventstore.codec import clean
from eventstore.envelope import Event, NewEvent, format_at
from eventstore.errors import PositionConflict
from eventstore.projections.results import Results
from eventstore.projections.run_state import State
from eventstore.worker import Worker
from loop import commands as c
from loop.effects.dispatch import carry_out, intent_of
from loop.effects.hands import TEXT_MAX, Around, Hands
from loop.machine import next_commands
from loop.tables import Tables

POLL_S = 0.25
"""How long the loop sleeps at most: the safety net under the bell, and how exactly `until` is met."""
PAGE = 1_000
_TABLE = "a results.tsv cannot be written: "


@dataclass(slots=True)
class Shell:
    """
    One loop over one log.

    Attributes:
        log: The worker that owns the connection.
        around: Doors and constants, see `effects.hands.Around`.
        bell: Rings when anyone has appended.
        actor: Who the loop's events are by.
        on_event: Called with every event of the log, in order, from the first; for a screen.
    """

    log: Worker
    around: Around
    bell: Bell
    actor: str
    on_event: Callable[[Event], None] = lambda _event: None
    state: State = field(default_factory=State)
    results: Results = field(default_factory=Results)
    tables: Tables = field(init=False)
    hands: Hands = field(init=False)
    tasks: dict[c.Key, asyncio.Task[None]] = field(default_factory=dict)
    cancelled: set[c.Key] = field(default_factory=set)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    stop_why: str = ""

    def __post_init__(self) -> None:
        self.hands = Hands(self.around, self._append)
        self.tables = Tables(self.around.home)

    def stop(self, why: str) -> None:
        """Ask the loop to end in good order; safe to call from a signal handler of the event loop."""
        self.stop_why = self.stop_why or why
        self.stopping.set()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is queued, active or at work, and no veto waits."""
        return not self.tasks and not self.state.queue and self.state.active is None

    @property
    def is_held(self) -> bool:
        """Whether the active run is paused and nothing is at work."""
        active = self.state.active
        return not self.tasks and active is not None and active.status == "paused"

    async def serve(self, started: e.LoopStarted, *, until_idle: bool = False, until_held: bool = False) -> None:
        """
        Run until stopped, or until the queue is empty, or until the run is paused, which nobody is there to resume.

        Raises:
            LogUnavailable: If the log cannot be written; it tells the next loop what was open.
        """
        await self._fold()
        await self._append([c.Append("", started, None)])
        try:
            while not self.stopping.is_set():
                if await self.step():
                    continue
                if until_idle and self.is_idle:
                    self.stop("nothing left to do")
                    break
                if until_held and self.is_held:
                    self.stop("the run is paused")
                    break
                await self._wait()
        finally:
            await self._close()

    async def step(self) -> bool:
        """Do one turn; return whether there was anything to do."""
        self._reap()
        await self._fold()
        active = self.hands.active(self.state.active)
        policy = active.policy if active is not None else None
        running = frozenset(self.tasks) | self.cancelled | self.hands.held
        commands = next_commands(self.state, running, format_at(self.around.now()), policy)
        if not commands:
            return False
        for command in commands:
            if isinstance(command, c.Cancel):
                self._cancel(command)
        return await self._begin([command for command in commands if not isinstance(command, c.Cancel)])

    async def _begin(self, commands: Sequence[c.Append | c.Effect]) -> bool:
        """Write facts and intents as one batch, then start the effects. False if someone appended in between."""
        facts = [command for command in commands if isinstance(command, c.Append)]
        effects = self._with_intents([command for command in commands if not isinstance(command, c.Append)])
        intents = [c.Append(command.tag, intent, _cause(command)) for command, intent in effects if intent is not None]
        try:
            positions = await self._append([*facts, *intents], expected=self.state.position)
        except PositionConflict:
            return True
        at = iter(positions[len(facts) :])
        before = self.state
        await self._fold()
        for command, intent in effects:
            position = next(at) if intent is not None else _request_of(command)
            self.tasks[command.key] = asyncio.create_task(
                carry_out(self.hands, command, before, intent, position), name=" ".join(map(str, command.key))
            )
        return bool(facts or effects)

    def _with_intents(self, commands: Sequence[c.Effect]) -> list[tuple[c.Effect, e.Data | None]]:
        found: list[tuple[c.Effect, e.Data | None]] = []
        usd_taken = 0.0
        for command in commands:
            intent = intent_of(self.hands, command, self.state, usd_taken)
            usd_taken += intent.usd_reserved if isinstance(intent, e.ProposalRequested) else 0.0
            found.append((command, intent))
        return found

    def _cancel(self, command: c.Cancel) -> None:
        task = self.tasks.get(command.target)
        if task is not None:
            task.cancel()
            self.cancelled.add(command.key)

    def _reap(self) -> None:
        """Forget effects that have ended; raise what one of them raised."""
        for key, task in list(self.tasks.items()):
            if task.done():
                del self.tasks[key]
                self.cancelled.discard(("cancel", *key))
                if not task.cancelled():
                    task.result()

    async def _fold(self) -> None:
        """Take in what was appended since the last turn, and rewrite the tables that it changed."""
        changed: set[str] = set()
        while page := await self.log.read(self.state.position, limit=PAGE):
            for event in page:
                self.state.apply(event)
                self.results.apply(event)
                self.on_event(event)
                if event.type in ("experiment.decided", "branch.moved", "run.started"):
                    changed.add(event.run)
            if len(page) < PAGE:
                break
        for tag in sorted(changed):
            await self._write_results(tag)

    async def _write_results(self, tag: str) -> None:
        """Bring a table up to date. One that cannot be written is a trouble that is told, no reason to end."""
        newest = self.state.newest
        is_newest = newest is not None and newest.tag == tag
        known = self.state.troubles.get("disk")
        try:
            await asyncio.to_thread(self.tables.write, self.results, tag, is_newest)
        except OSError as error:
            what = clean(f"{_TABLE}{error}", TEXT_MAX)
            if known is None or known.what != what:
                noticed = e.TroubleNoticed(kind="disk", what=what, since=format_at(self.around.now()))
                await self._append([c.Append("", noticed, None)])
        else:
            if known is not None and known.what.startswith(_TABLE):
                await self._append([c.Append("", e.TroubleCleared(kind="disk", what=known.what), None)])

    async def _append(self, facts: Sequence[c.Append], *, expected: int | None = None) -> list[int]:
        if not facts:
            return []
        at = format_at(self.around.now())
        events = [NewEvent(self.around.new_id(), f.run, at, self.actor, f.data, f.cause) for f in facts]
        return await self.log.append(events, expected=expected)

    async def _wait(self) -> None:
        """Sleep until the log grew, an effect ended, a stop was asked for, or the safety poll is due."""
        waits = {
            asyncio.ensure_future(self.bell.wait(POLL_S)),
            asyncio.ensure_future(self.stopping.wait()),
        }
        await asyncio.wait({*waits, *self.tasks.values()}, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    async def _close(self) -> None:
        """Cut off what is at work; each effect writes its own outcome. Then say that the loop has stopped."""
        for task in self.tasks.values():
            task.cancel()
        ended = await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        await self.hands.close()
        faults = [x for x in ended if isinstance(x, Exception)]
        why = self.stop_why or "a fault of the loop itself"
        await self._append([c.Append("", e.LoopStopped(why=why), None)])
        await self._fold()
        if faults:
            raise faults[0]


def _cause(command: c.Effect) -> int | None:
    return command.request if isinstance(command, c.StartRun) else command.cause


def _request_of(command: c.Effect) -> int:
    """The position of the open request that an effect takes up, or 0 if it has none."""
    if isinstance(command, c.Score | c.RunGuard):
        return command.request or 0
    return 0
