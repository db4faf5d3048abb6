"""The table of the log, its guards, its migrations, and which SQLite may write it.

The guards are triggers in the file, which hold for every program that writes through SQLite, and an
authorizer on our own connections, which also refuses what no trigger sees (dropping a trigger, altering
the table, turning pragmas). A program that takes the triggers away first can change rows; that is what
the chain and the witness are for (`integrity`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from eventstore.driver import sqlite3
from eventstore.errors import LogTooNew, NotALog, SqliteUnsafe

APPLICATION_ID = 0x4E534854
"""`NSHT`, in the file's header: the file is ours."""

EVENTS = """
CREATE TABLE events (
  position INTEGER PRIMARY KEY,
  id       TEXT NOT NULL UNIQUE CHECK (id <> ''),
  run      TEXT NOT NULL,
  type     TEXT NOT NULL CHECK (type <> ''),
  version  INTEGER NOT NULL CHECK (version >= 1),
  at       TEXT NOT NULL CHECK (at GLOB
    '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9].[0-9][0-9][0-9][0-9][0-9][0-9]Z'),
  actor    TEXT NOT NULL CHECK (actor <> ''),
  cause    INTEGER CHECK (cause >= 1 AND cause < position),
  data     TEXT NOT NULL CHECK (json_valid(data)),
  chain    BLOB NOT NULL CHECK (length(chain) = 32)
) STRICT
"""

NO_UPDATE = """
CREATE TRIGGER events_no_update BEFORE UPDATE ON events BEGIN
  SELECT RAISE(ABORT, 'events are never changed');
END
"""

NO_DELETE = """
CREATE TRIGGER events_no_delete BEFORE DELETE ON events BEGIN
  SELECT RAISE(ABORT, 'events are never removed');
END
"""

NEXT_POSITION = """
CREATE TRIGGER events_next_position BEFORE INSERT ON events
WHEN NEW.position IS NOT (SELECT coalesce(max(position), 0) + 1 FROM events) BEGIN
  SELECT RAISE(ABORT, 'an event takes the position behind the head');
END
"""

NEW_ID = """
CREATE TRIGGER events_new_id BEFORE INSERT ON events
WHEN EXISTS (SELECT 1 FROM events WHERE id = NEW.id) BEGIN
  SELECT RAISE(ABORT, 'an event id is never used again');
END
"""
"""Stops REPLACE and IGNORE by id on connections without `recursive_triggers`, where the delete trigger is silent."""

MIGRATIONS: tuple[tuple[str, ...], ...] = ((EVENTS, NO_UPDATE, NO_DELETE, NEXT_POSITION, NEW_ID),)
"""Statements that lead from schema version n to n + 1, in `user_version`. Grows only; never edited once released."""

SCHEMA_VERSION = len(MIGRATIONS)

READABLE_PRAGMAS = frozenset(
    {
        "data_version",
        "database_list",
        "foreign_key_list",
        "index_info",
        "index_list",
        "index_xinfo",
        "integrity_check",
        "quick_check",
        "table_info",
        "table_list",
        "table_xinfo",
    }
)
"""Pragmas that only tell something, also with an argument. Any other may be read but not set."""

ACTING_PRAGMAS = frozenset({"incremental_vacuum", "optimize", "wal_checkpoint"})
"""Pragmas that act without an argument."""


def check_version(version: tuple[int, int, int]) -> None:
    """
    Refuse an SQLite that may corrupt a log which two processes write.

    The WAL-reset bug is in 3.7.0 to 3.51.2. Fixed in 3.51.3 and later, and in 3.50.7 and 3.44.6 of their
    lines; 3.52.0 was withdrawn for other faults. Source: sqlite.org/wal.html and its release notes.

    Raises:
        SqliteUnsafe: Naming the version found and the remedy.
    """
    fixed = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51, 0) or (3, 44, 6) <= version < (3, 45, 0)
    if not fixed or version == (3, 52, 0):
        raise SqliteUnsafe(".".join(map(str, version)))


def version_of(conn: sqlite3.Connection, path: object) -> int:
    """
    Return the schema version of the file behind *conn*, 0 for an empty one. Writes nothing.

    Raises:
        NotALog: If it is some other SQLite database.
        LogTooNew: If a newer Nightshift made it.
    """
    with _snapshot(conn):  # another process may be making the log at this moment
        (application,) = conn.execute("PRAGMA application_id").fetchone()
        (version,) = conn.execute("PRAGMA user_version").fetchone()
        (objects,) = conn.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if (application, version, objects) == (0, 0, 0):
        return 0
    if application != APPLICATION_ID:
        raise NotALog(f"{path} is an SQLite database but not a log of Nightshift: name another file")
    if version > SCHEMA_VERSION:
        raise LogTooNew(found=version, known=SCHEMA_VERSION)
    return int(version)


def migrate(conn: sqlite3.Connection, path: object) -> None:
    """Bring the schema to `SCHEMA_VERSION`, all steps in one transaction. Raises what `version_of` raises."""
    conn.execute("BEGIN IMMEDIATE")
    try:
        version = version_of(conn, path)
        for number, statements in enumerate(MIGRATIONS[version:], version + 1):
            for statement in statements:
                conn.execute(statement)
            conn.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            conn.execute(f"PRAGMA user_version = {number}")
        conn.execute("COMMIT")
    except BaseException:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise


def check_schema(conn: sqlite3.Connection, path: object) -> None:
    """Raise `NotALog` if the tables, indexes and triggers are not exactly those of `SCHEMA_VERSION`."""
    found = _objects(conn)
    expected = _expected()
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            what = "is missing" if name not in found else "was changed" if name in expected else "does not belong here"
            raise NotALog(f"{path}: {name} {what}: someone altered this log's schema; restore a backup made before")


def authorize(conn: sqlite3.Connection) -> None:
    """Let *conn* only read, and append to `events`. Set once the schema stands; it binds statements prepared later."""
    conn.set_authorizer(_authorizer)


@contextmanager
def _snapshot(conn: sqlite3.Connection) -> Iterator[None]:
    """Let several reads see one moment, in the transaction that is open or in one of their own."""
    if conn.in_transaction:
        yield
        return
    conn.execute("BEGIN")
    try:
        yield
    finally:
        conn.execute("ROLLBACK")


def _objects(conn: sqlite3.Connection) -> dict[str, str]:
    rows = conn.execute("SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'")
    return {f"{kind} {name}": sql for kind, name, sql in rows.fetchall()}


@cache
def _expected() -> dict[str, str]:
    conn = sqlite3.connect(":memory:", isolation_level=None)
    try:
        migrate(conn, ":memory:")
        return _objects(conn)
    finally:
        conn.close()


_ALWAYS = frozenset(
    {
        sqlite3.SQLITE_FUNCTION,
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_RECURSIVE,
        sqlite3.SQLITE_SAVEPOINT,
        sqlite3.SQLITE_SELECT,
        sqlite3.SQLITE_TRANSACTION,
    }
)


def _authorizer(action: int, first: str | None, second: str | None, *_: Any) -> int:
    """Allow by list; what SQLite may learn to do one day is refused until it stands here."""
    if action in _ALWAYS or (action == sqlite3.SQLITE_INSERT and first == "events"):
        return int(sqlite3.SQLITE_OK)
    if action == sqlite3.SQLITE_PRAGMA and (
        first in READABLE_PRAGMAS or (second is None and first not in ACTING_PRAGMAS)
    ):
        return int(sqlite3.SQLITE_OK)
    return int(sqlite3.SQLITE_DENY)
