"""The log in memory: the twin of `store.Store`, held to the same tests. Pure.

It keeps every promise but durability: data is stored encoded and decoded on each read, so what a reader
gets has gone through the codec as it would through the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from eventstore.envelope import GENESIS, Event, Head, NewEvent
from eventstore.errors import PositionConflict
from eventstore.log import Row, drafts, event_of, first_positions, seal


class MemoryLog:
    """An empty log that lives as long as the object. See `log.Log` for what its methods promise."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._by_id: dict[str, Row] = {}

    def append(self, events: Sequence[NewEvent], *, expected: int | None = None) -> list[int]:
        """Append a batch, all of it or nothing, and return the positions."""
        batch = drafts(events)
        if not batch:
            return []
        known = {draft.id: self._by_id[draft.id] for draft in batch if draft.id in self._by_id}
        positions = first_positions(batch, known)
        if positions is not None:
            return positions
        head = self.head()
        if expected is not None and expected != head.position:
            raise PositionConflict(expected, head.position)
        rows = seal(batch, head)
        self._rows += rows
        self._by_id.update((row.id, row) for row in rows)
        return [row.position for row in rows]

    def read(self, after: int = 0, *, limit: int = 1000) -> list[Event]:
        """Return at most *limit* events behind position *after*, in order."""
        start = max(after, 0)
        return [event_of(row) for row in self._rows[start : start + limit]]

    def stream(self, after: int = 0) -> Iterator[Event]:
        """Yield every event behind *after* up to the head."""
        while page := self.read(after):
            yield from page
            after = page[-1].position

    def head(self) -> Head:
        """Return where the log ends."""
        return Head(self._rows[-1].position, self._rows[-1].chain) if self._rows else Head(0, GENESIS)
