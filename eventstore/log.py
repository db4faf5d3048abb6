"""What a log promises its callers, and the part of appending that needs no database. Pure.

`Log` is the face that `store.Store` and `memory.MemoryLog` share. Both append in the same three steps:
`drafts` validates and encodes before any lock, `first_positions` recognises a batch that is already
there, `seal` gives positions and chain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from eventstore import codec
from eventstore.envelope import Earlier, Event, Head, NewEvent, parse_at
from eventstore.errors import IdReused, InvalidEvent, LogCorrupt
from eventstore.events import WORKSPACE_EVENTS

WITH_OR_WITHOUT_RUN = frozenset(
    {
        "request.refused",
        "post.requested",
        "post.made",
        "post.failed",
        "idea.suggested",
        "idea.withdrawn",
        "idea.used",
        "idea.declined",
    }
)
"""Types that may belong to a run or to none. All others belong to a run, or are `WORKSPACE_EVENTS`."""


class Log(Protocol):
    """An append-only log of events, positions 1, 2, 3 ... without gaps."""

    def append(self, events: Sequence[NewEvent], *, expected: int | None = None) -> list[int]:
        """
        Append a batch, all of it or nothing, and return the positions.

        A batch whose ids are all in the log with the same content (everything but `at`) is not appended
        again: the first positions come back, whatever *expected* says, so that a retry is always safe.
        An empty batch does nothing.

        Args:
            expected: The position at which the log must end now, or None for wherever it ends.

        Raises:
            InvalidEvent: If an event must not be in the log. Checked before any lock is taken.
            IdReused: If an id is in the log or the batch with other content, or only part of a batch is there.
            PositionConflict: If the log ends elsewhere than *expected*.
            LogUnavailable: If the database could not be locked or written. Nothing was appended, unless the
                fault came in the very last step: append again with the same ids.
        """

    def read(self, after: int = 0, *, limit: int = 1000) -> list[Event]:
        """Return at most *limit* events behind position *after*, in order. Raises `LogCorrupt` for a gap."""

    def stream(self, after: int = 0) -> Iterator[Event]:
        """Yield every event behind *after* up to the head, read in pages: nothing stays open in between."""

    def head(self) -> Head:
        """Return where the log ends."""


class Draft(NamedTuple):
    """An event that is valid in itself and encoded; its position is not known yet."""

    id: str
    run: str
    type: str
    version: int
    at: str
    actor: str
    cause: int | Earlier | None
    data: str


class Row(NamedTuple):
    """One row of the table, columns in the order of the table. *data* is canonical JSON, *chain* 32 bytes."""

    position: int
    id: str
    run: str
    type: str
    version: int
    at: str
    actor: str
    cause: int | None
    data: str
    chain: bytes


def drafts(events: Sequence[NewEvent]) -> list[Draft]:
    """Validate and encode a batch. Raises `InvalidEvent` naming the event, `IdReused` for an id twice in it."""
    batch = [_draft(index, event) for index, event in enumerate(events)]
    seen: set[str] = set()
    for draft in batch:
        if draft.id in seen:
            raise IdReused(draft.id, "is twice in one batch")
        seen.add(draft.id)
    return batch


def first_positions(batch: Sequence[Draft], known: Mapping[str, Row]) -> list[int] | None:
    """
    Return the positions of a batch that is already in the log, or None for a new one.

    Args:
        known: The rows of the log that have one of the batch's ids, by id.

    Raises:
        IdReused: If a known id has other content (run, type, version, actor, cause or data; a retry may
            carry a later `at`), or if only some ids are known.
    """
    if not known:
        return None
    for draft in batch:
        if draft.id not in known:
            there = next(iter(known.values()))
            raise IdReused(there.id, f"is in the log (position {there.position}) without {draft.id!r} of its batch")
        if difference := _difference(draft, known[draft.id], batch, known):
            raise IdReused(draft.id, f"is in the log (position {known[draft.id].position}) with another {difference}")
    return [known[draft.id].position for draft in batch]


def seal(batch: Sequence[Draft], head: Head) -> list[Row]:
    """Give a new batch its positions behind *head*, its causes and its chain. Raises `InvalidEvent` for a cause."""
    rows = []
    chain = head.chain
    for position, draft in enumerate(batch, head.position + 1):
        cause = head.position + 1 + draft.cause.index if isinstance(draft.cause, Earlier) else draft.cause
        if cause is not None and not 1 <= cause < position:
            raise InvalidEvent(f"{draft.type} ({draft.id!r}): cause {cause} is no position before its own, {position}")
        columns = (position, draft.id, draft.run, draft.type, draft.version, draft.at, draft.actor, cause, draft.data)
        chain = codec.row_hash(chain, *columns)
        rows.append(Row(*columns, chain))
    return rows


def event_of(row: Row) -> Event:
    """Decode a row. Raises `LogCorrupt` if its data are not those of its type, or a column holds no such value."""
    position, id_, run, type_, version, at, actor, cause, text, chain = row
    try:
        data = codec.decode(type_, version, text)
    except (InvalidEvent, TypeError) as error:  # damage may leave a NULL or a number where text was
        raise LogCorrupt(position, str(error)) from error
    return Event(position, id_, run, type_, version, at, actor, cause, data, chain)


def _draft(index: int, event: NewEvent) -> Draft:
    try:
        data = codec.encode(event.data)
        kind = type(event.data)
        _check_envelope(index, event, kind.TYPE)
    except InvalidEvent as error:
        raise InvalidEvent(f"event {index} of the batch: {error}") from error
    return Draft(event.id, event.run, kind.TYPE, kind.VERSION, event.at, event.actor, event.cause, data)


def _check_envelope(index: int, event: NewEvent, type_: str) -> None:
    for name, text in (("id", event.id), ("actor", event.actor)):
        if not text:
            raise InvalidEvent(f"{type_}: {name} is empty")
    for name, text in (("id", event.id), ("actor", event.actor), ("run", event.run)):
        if not text.isprintable():  # control characters and lone surrogates are not
            raise InvalidEvent(f"{type_}: {name} {text!a} has characters that cannot be printed")
    parse_at(event.at)
    if type_ in WORKSPACE_EVENTS and event.run:
        raise InvalidEvent(f"{type_}: belongs to the workspace, yet its run is {event.run!r}: leave run empty")
    if not event.run and type_ not in WORKSPACE_EVENTS and type_ not in WITH_OR_WITHOUT_RUN:
        raise InvalidEvent(f"{type_}: belongs to a run, yet its run is empty: give the run's tag")
    if isinstance(event.cause, Earlier) and not 0 <= event.cause.index < index:
        raise InvalidEvent(f"{type_}: its cause, event {event.cause.index} of the batch, does not come before it")


def _difference(draft: Draft, row: Row, batch: Sequence[Draft], known: Mapping[str, Row]) -> str:
    """Name the first column in which *draft* is not what *row* recorded. Empty if none."""
    cause = draft.cause
    if isinstance(cause, Earlier):
        earlier = known.get(batch[cause.index].id)
        cause = earlier.position if earlier else None
    pairs = {
        "run": (draft.run, row.run),
        "type": (draft.type, row.type),
        "version": (draft.version, row.version),
        "actor": (draft.actor, row.actor),
        "cause": (cause, row.cause),
        "data": (draft.data, row.data),
    }
    return next((name for name, (new, old) in pairs.items() if new != old), "")
