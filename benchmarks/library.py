"""The peer: the same night in the `eventsourcing` library, one aggregate for each run, in its SQLite.

Needs the extra `bench`. Its domain events carry what ours do: run, type, version, time, actor, cause, and the data as
a dict, which is what its JSON transcoder gives back. Its SQLite is Python's own, in WAL and with a sync at each
commit, as it sets it up; the figures beside it are taken from the same disk in the same run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import msgspec
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, AggregateEvent
from eventsourcing.persistence import ApplicationRecorder, StoredEvent

from eventstore.envelope import Event, NewEvent
from eventstore.events import Data

NAME = f"eventsourcing {version('eventsourcing')}"
SPACE = UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")
PAGE = 1_000
BATCH = 500


class Run(Aggregate):
    """A run as an aggregate: its events carry everything, it keeps nothing."""

    class Happened(AggregateEvent):
        run: str
        type: str
        number: int
        at: str
        actor: str
        cause: int | None
        data: dict[str, Any]

        def apply(self, aggregate: Any) -> None:
            """Nothing to keep."""


class Nights(Application[UUID]):
    """The application as a person would write it."""

    @classmethod
    def at(cls, path: Path) -> Nights:
        return cls(env={"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(path)})


def happened(originator: UUID, number: int, event: NewEvent, data: dict[str, Any]) -> Run.Happened:
    """*event* as the *number*-th domain event of its aggregate."""
    return Run.Happened(
        originator_id=originator,
        originator_version=number,
        timestamp=datetime.now(UTC),
        run=event.run,
        type=type(event.data).TYPE,
        number=type(event.data).VERSION,
        at=event.at,
        actor=event.actor,
        cause=event.cause if isinstance(event.cause, int) else None,
        data=data,
    )


def save(application: Nights, aggregate: Run, event: NewEvent) -> None:
    """Store one event as a person would: trigger it on the aggregate and save that."""
    aggregate.trigger_event(
        Run.Happened,
        run=event.run,
        type=type(event.data).TYPE,
        number=type(event.data).VERSION,
        at=event.at,
        actor=event.actor,
        cause=event.cause if isinstance(event.cause, int) else None,
        data=msgspec.to_builtins(event.data),
    )
    application.save(aggregate)


def write(application: Nights, events: Iterable[NewEvent]) -> None:
    """Store a whole night in batches, as fast as its recorder takes them."""
    counts: dict[UUID, int] = {}
    batch: list[StoredEvent] = []
    for event in events:
        originator = uuid5(SPACE, event.run)
        counts[originator] = counts.get(originator, 0) + 1
        domain = happened(originator, counts[originator], event, msgspec.to_builtins(event.data))
        batch.append(application.mapper.to_stored_event(domain))
        if len(batch) == BATCH:
            application.recorder.insert_events(batch)
            batch = []
    application.recorder.insert_events(batch)


def read(application: Nights) -> Iterator[tuple[int, Run.Happened]]:
    """Every domain event in the order of its notifications, in pages: its normal path."""
    recorder: ApplicationRecorder = application.recorder
    start = 1
    while page := recorder.select_notifications(start, PAGE):
        for notification in page:
            yield notification.id, application.mapper.to_domain_event(notification)
        start = page[-1].id + 1


def as_ours(position: int, domain: Run.Happened, kinds: Mapping[str, type[Data]]) -> Event:
    """What the projections take: an envelope with typed data, made from a domain event."""
    return Event(
        position,
        "",
        domain.run,
        domain.type,
        domain.number,
        domain.at,
        domain.actor,
        domain.cause,
        msgspec.convert(domain.data, kinds[domain.type]),
        b"",
    )
