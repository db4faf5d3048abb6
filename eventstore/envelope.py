"""The envelope: what every event carries besides its data. Pure.

`NewEvent` is what a writer hands in, `Event` what a reader gets back. The order of events is their
`position` and nothing else; `at` may go backwards when a clock is set.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from eventstore.errors import InvalidEvent

if TYPE_CHECKING:
    from eventstore.events import Data, UnknownEvent

AT_FORM = "%Y-%m-%dT%H:%M:%S.%fZ"
AT_PATTERN = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z", re.ASCII)

GENESIS = bytes(32)
"""The `chain` before the first event."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """A cause inside the same batch: the row at *index* (from 0) of the events appended together."""

    index: int


@dataclass(frozen=True, slots=True)
class NewEvent:
    """
    An event on its way into the log.

    Attributes:
        id: Unique for ever. From the delivery where there is one, else a time-ordered uuid.
        run: The run's tag, or empty for an event of no run.
        at: UTC, microseconds, `2026-11-21T08:00:00.000000Z`; made by `format_at`.
        actor: `loop@<host>`, `cli:<user>` or `slack:<team>/<user>`.
        data: The typed facts; their class gives `type` and `version`.
        cause: Position of the event that led to this one, an earlier row of the same batch, or None.
    """

    id: str
    run: str
    at: str
    actor: str
    data: Data
    cause: int | Earlier | None = None


class Event(msgspec.Struct, frozen=True, gc=False):
    """
    An event read from the log. *chain* is 32 bytes; *data* is `UnknownEvent` for a type or version not known here.

    A Struct because a replay makes a million of them: a frozen dataclass takes 1 us each, this 0.06.
    """

    position: int
    id: str
    run: str
    type: str
    version: int
    at: str
    actor: str
    cause: int | None
    data: Data | UnknownEvent
    chain: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """Where the log ends. Position 0 and `GENESIS` mean that it is empty."""

    position: int
    chain: bytes


def format_at(moment: datetime) -> str:
    """Write an aware datetime as the log does: UTC with six digits. Raises `InvalidEvent` for a naive one."""
    if moment.tzinfo is None:
        raise InvalidEvent(f"a time without a zone ({moment.isoformat()}): pass an aware datetime")
    return moment.astimezone(UTC).strftime(AT_FORM)


def parse_at(text: str) -> datetime:
    """Read a time as the log writes it. Raises `InvalidEvent` for any other form."""
    if not AT_PATTERN.fullmatch(text):
        raise InvalidEvent(f"not a time of the log: {text!r}, expected the form 2026-11-21T08:00:00.000000Z")
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidEvent(f"not a time: {text!r} ({error})") from error
