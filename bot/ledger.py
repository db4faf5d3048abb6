"""The log as the bot sees it: everything folded from it, kept up to date, and the one way to ask for something.

Guaranteed: a request is judged on the state at the end of the log and stands only if nobody appended in between, else
it is judged again; a delivery that the log knows already is answered as the first time and appends nothing; of two
requests that contradict each other exactly one stands, and the other is refused for the reason that the first one
made. All requests go through one lock, so those of this process never meet each other at the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from bot.board import Board
from bot.deliveries import Deliveries, event_id
from eventstore.codec import clean
from eventstore.envelope import Event, NewEvent, format_at
from eventstore.errors import LogUnavailable, PositionConflict
from eventstore.events import Data, RequestRefused
from eventstore.plain import plain_line
from eventstore.projections.program import Program
from eventstore.projections.results import Results
from eventstore.projections.run_state import State
from eventstore.requests import Accepted, Answer, Refused
from eventstore.worker import Worker

TRIES = 20
"""How often a request is judged again because another process appended in between."""
PAGE = 1_000
WHAT_MAX = 200
WHY_MAX = 1_000

Judge = Callable[[State], Answer]
Words = Callable[[State, Accepted, int], str]
"""Says what was asked for: the state as it was judged, the request, its position."""


@dataclass(frozen=True, slots=True)
class Asked:
    """
    What came of a request: the event at *position*, which is a `RequestRefused` if it was refused.

    Attributes:
        words: What was asked for, in a sentence, or why it was refused.
        is_new: False where this very delivery had been answered before.
    """

    position: int
    run: str
    data: Data
    words: str
    is_new: bool = True

    @property
    def is_refused(self) -> bool:
        return isinstance(self.data, RequestRefused)


class Ledger:
    """
    The log and what is folded from it.

    Attributes:
        board: The workspace as it is, and what is posted of it.
        deliveries: What came of deliveries.
        results, program: As the projections of these names.
    """

    def __init__(self, log: Worker, now: Callable[[], datetime]) -> None:
        self.log = log
        self.board = Board()
        self.deliveries = Deliveries()
        self.results = Results()
        self.program = Program()
        self._now = now
        self._lock = asyncio.Lock()
        self._watchers: list[Callable[[Sequence[Event]], None]] = []

    @property
    def state(self) -> State:
        """The workspace up to the newest event folded."""
        return self.board.state

    def watch(self, call: Callable[[Sequence[Event]], None]) -> None:
        """Have *call* called with each page of events that was folded, in order."""
        self._watchers.append(call)

    async def catch_up(self) -> None:
        """Fold what was appended since. Raises `LogCorrupt` and `LogUnavailable`."""
        async with self._lock:
            await self._fold()

    async def append(self, events: Sequence[NewEvent], *, expected: int | None = None) -> list[int]:
        """Append and fold. As `Log.append`."""
        async with self._lock:
            positions = await self.log.append(events, expected=expected)
            await self._fold()
            return positions

    async def ask(
        self, judge: Judge, words: Words, *, delivery: str, actor: str, what: str, tag: str | None = ""
    ) -> Asked:
        """
        Ask for one thing. A refusal is appended too, as `request.refused`.

        Args:
            judge: One of `eventstore.requests`, bound to what was asked; or what gives a refusal that stands already.
            delivery: The id of what Slack delivered.
            what: The request in words, for the record of a refusal.
            tag: The run that a refusal belongs to: None for the active or else the newest one, empty for none.

        Raises:
            LogUnavailable: If the log could not be written, or others kept coming between.
        """
        id_ = event_id(delivery)
        async with self._lock:
            for _ in range(TRIES):
                await self._fold()
                known = self.deliveries.get(id_)
                if known is not None:
                    before = State()  # what it was judged on is gone
                    return _asked(before, known.position, known.run, known.data, words, is_new=False)
                answer = judge(self.state)
                run, data = _event_of(self.state, answer, actor, what, tag)
                event = NewEvent(id_, run, format_at(self._now()), actor, data)
                expected = None if isinstance(answer, Refused) else self.state.position
                try:
                    positions = await self.log.append([event], expected=expected)
                except PositionConflict:
                    continue
                asked = _asked(self.state, positions[0], run, data, words)
                await self._fold()
                return asked
        raise LogUnavailable(f"something was appended each of {TRIES} times that this was asked: try again")

    async def _fold(self) -> None:
        while page := await self.log.read(self.state.position, limit=PAGE):
            for event in page:
                self.board.apply(event)
                self.deliveries.apply(event)
                self.results.apply(event)
                self.program.apply(event)
            for call in self._watchers:
                call(page)
            if len(page) < PAGE:
                break


def _asked(before: State, position: int, run: str, data: Data, words: Words, *, is_new: bool = True) -> Asked:
    if isinstance(data, RequestRefused):
        return Asked(position, run, data, data.why, is_new)
    return Asked(position, run, data, words(before, Accepted(run, data), position), is_new)


def _event_of(state: State, answer: Answer, actor: str, what: str, tag: str | None) -> tuple[str, Data]:
    if not isinstance(answer, Refused):
        return answer.run, answer.data
    run = state.runs.get(tag) if tag is not None else state.active or state.newest
    refused = RequestRefused(
        who=actor, what=clean(plain_line(what), WHAT_MAX), why=clean(plain_line(answer.why), WHY_MAX)
    )
    return (run.tag if run is not None else ""), refused
