"""Everything that can go wrong in the log, as one small tree.

A message says what happened, where, what was expected and what to do. What a program needs to react
is a field, never something to parse out of the message.
"""

from __future__ import annotations


class EventstoreError(Exception):
    """Base of all errors raised by this package."""


class SqliteUnsafe(EventstoreError):
    """The SQLite library at hand may corrupt a log that two processes write."""

    def __init__(self, found: str) -> None:
        self.found = found
        super().__init__(
            f"SQLite {found} can corrupt a log that two processes write (the WAL-reset bug); needed is 3.51.3 or "
            "newer except 3.52.0, or 3.50.7, or 3.44.6: install it with `pip install pysqlite3`"
        )


class NotALog(EventstoreError):
    """The file is not a log of ours, or its tables differ from what this version writes."""


class LogTooNew(EventstoreError):
    """The log was written by a newer version of Nightshift."""

    def __init__(self, found: int, known: int) -> None:
        self.found = found
        self.known = known
        super().__init__(
            f"this log has schema version {found}, this Nightshift knows up to {known}: "
            "install the newer Nightshift that wrote it"
        )


class EventsTooNew(EventstoreError):
    """The log has facts in a form of a newer version of Nightshift."""

    def __init__(self, type_: str, found: int, known: int, position: int) -> None:
        super().__init__(
            f"this log has {type_} version {found} at position {position}, this Nightshift knows up to {known}: "
            "install the newer Nightshift that wrote it"
        )


class LogCorrupt(EventstoreError):
    """A row was altered, removed or reordered. *position* is the first one that does not hold."""

    def __init__(self, position: int, what: str) -> None:
        self.position = position
        super().__init__(f"the log does not hold at position {position}: {what}; restore a backup made before it")


class LogUnavailable(EventstoreError):
    """SQLite could not do its work now: locked for too long, disk full, read or write fault."""


class BackupRefused(EventstoreError):
    """A backup cannot go where it was asked to."""


class PositionConflict(EventstoreError):
    """Someone appended in between: the log's head is not where the caller saw it."""

    def __init__(self, expected: int, head: int) -> None:
        self.expected = expected
        self.head = head
        super().__init__(f"expected the log to end at position {expected}, it ends at {head}: read on and decide again")


class IdReused(EventstoreError):
    """An event id is already in the log, or twice in the batch, with other content."""

    def __init__(self, event_id: str, why: str) -> None:
        self.event_id = event_id
        super().__init__(f"event id {event_id!r} {why}: an id names one event for ever")


class InvalidEvent(EventstoreError):
    """An event that the log must not take: unknown type, NaN, a lone surrogate, a malformed time or cause."""


class SettingsError(EventstoreError):
    """A setting that is unknown, of the wrong type or impossible. *key* is its dotted name."""

    def __init__(self, key: str, problem: str) -> None:
        self.key = key
        super().__init__(f"nightshift.toml: {key}: {problem}" if key else f"nightshift.toml: {problem}")


class Held(EventstoreError):
    """Another loop or bot (*server*) holds its lock of this workspace."""

    def __init__(self, server: str, holder: str) -> None:
        self.server, self.holder = server, holder
        super().__init__(f"another {server} already serves this workspace ({holder}): stop it first, or use it")


class NoWorkspace(EventstoreError):
    """No workspace was found here."""
