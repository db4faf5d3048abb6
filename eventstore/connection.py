"""The one way to a connection, and SQLite's errors in our words.

A connection belongs to the thread that made it and must not cross a fork. Local disks only.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eventstore.driver import Database, sqlite3
from eventstore.errors import EventstoreError, InvalidEvent, LogUnavailable, NotALog
from eventstore.schema import check_version

TIMEOUT_S = 10.0
"""How long a connection waits for another writer."""


def connect(path: Path, *, create: bool = False, timeout_s: float = TIMEOUT_S) -> Database:
    """
    Open the file in autocommit mode, with no plugin and no guard, changing nothing in it.

    Raises:
        SqliteUnsafe: If this SQLite may corrupt a log.
        NotALog: If there is no file and *create* is false.
        LogUnavailable: If it cannot be opened.
    """
    check_version(sqlite3.sqlite_version_info)
    if not create and not path.exists():
        raise NotALog(f"there is no log at {path}: `nightshift init` makes a workspace, its first run the log")
    uri = f"{path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
    with translated(path):
        conn = sqlite3.connect(uri, uri=True, timeout=timeout_s, isolation_level=None)
        return Database(conn, recursive_triggers=True, execute_plugins=False)


def tune(conn: sqlite3.Connection, timeout_s: float = TIMEOUT_S) -> None:
    """Set what a writing connection needs: WAL, a sync at each commit, a wait for other writers, no mmap."""
    conn.execute(f"PRAGMA busy_timeout = {round(timeout_s * 1000)}").fetchall()
    _use_wal(conn, timeout_s)
    conn.execute("PRAGMA synchronous = FULL")  # NORMAL may lose recent commits at a power loss
    conn.execute("PRAGMA recursive_triggers = ON")
    conn.execute("PRAGMA mmap_size = 0").fetchall()


def _use_wal(conn: sqlite3.Connection, timeout_s: float) -> None:
    """Switch a new file to WAL. SQLite does not wait by itself while another process does the same."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            (mode,) = conn.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise LogUnavailable(f"SQLite cannot use a WAL here (it stays at {mode}): use a folder on a local disk")
            return
        except sqlite3.OperationalError as error:
            if not _name(error).startswith("SQLITE_BUSY") or time.monotonic() >= deadline:
                raise
            time.sleep(0.01)


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors about *path* into this package's. A mistake in our own SQL passes as it is."""
    try:
        yield
    except UnicodeDecodeError as error:  # the driver decodes what SQLite says of a damaged schema, and it quotes it
        raise NotALog(f"{path} is damaged (text in it is not UTF-8): restore a backup") from error
    except sqlite3.DatabaseError as error:
        ours = _translation(path, error)
        if ours is None:
            raise
        raise ours from error


def unreadable(error: sqlite3.DatabaseError) -> bool:
    """Tell whether *error* means that stored bytes are damaged (the driver names no code for broken UTF-8)."""
    name = _name(error)
    return name.startswith("SQLITE_CORRUPT") or (not name and "UTF-8" in str(error))


def _name(error: sqlite3.DatabaseError) -> str:
    # pysqlite3 gives base names (SQLITE_BUSY), Python's own driver extended ones (SQLITE_BUSY_SNAPSHOT).
    return getattr(error, "sqlite_errorname", "")


def _translation(path: Path, error: sqlite3.DatabaseError) -> EventstoreError | None:
    name = _name(error)
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return LogUnavailable(f"{path} stayed locked by another process: find what holds it open, then try again")
    if name.startswith("SQLITE_FULL"):
        return LogUnavailable(f"no space left to write {path}: free some, then try again")
    if name.startswith(("SQLITE_IOERR", "SQLITE_NOLFS")):
        return LogUnavailable(f"reading or writing {path} failed ({error}): check the disk and its free space")
    if name.startswith(("SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_READONLY")):
        return LogUnavailable(f"{path} cannot be opened for writing ({error}): check its folder and permissions")
    if name.startswith("SQLITE_NOTADB"):
        return NotALog(f"{path} is not an SQLite database: name another file, or restore a backup of the log")
    if unreadable(error):
        return NotALog(f"{path} is damaged ({error}): restore a backup")
    if name.startswith("SQLITE_CONSTRAINT"):
        return InvalidEvent(f"the log's table refused the row ({error})")
    return None
