"""The log in SQLite: append and read.

Guaranteed: what `append` returned is on the disk, also after kill -9; a batch is there whole or not at
all; positions have no gap and no repeat, with any number of processes writing; an id is taken once; rows
are never changed or removed by a program that writes through SQLite as it finds the file (triggers) or
through this class (authorizer).

Not guaranteed: that a disk which lies about its syncs kept anything; that someone who removes the
triggers first cannot change rows. `maintenance.verify` finds what they changed.

Opening checks, in this order: the version of SQLite, that the file is ours and not from a newer version,
the schema to the letter, the witness, then (unless told not to) SQLite's own quick check and the chain
behind the witness's position.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from eventstore.bells import ring
from eventstore.connection import TIMEOUT_S, connect, translated, tune, unreadable
from eventstore.driver import Database, sqlite3
from eventstore.envelope import GENESIS, Event, Head, NewEvent
from eventstore.errors import LogCorrupt, LogUnavailable, PositionConflict
from eventstore.integrity import START, check_chain, check_not_back, check_pages, check_witness, cut
from eventstore.log import Draft, Row, drafts, event_of, first_positions, seal
from eventstore.schema import SCHEMA_VERSION, authorize, check_schema, migrate, version_of
from eventstore.witness import Witness, read_witness

_COLUMNS = "position, id, run, type, version, at, actor, cause, data, chain"
_INSERT = f"INSERT INTO events ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_BY_ID = f"SELECT {_COLUMNS} FROM events WHERE id = ?"
_AFTER = f"SELECT {_COLUMNS} FROM events WHERE position > ? ORDER BY position LIMIT ?"
_HEAD = "SELECT position, chain FROM events ORDER BY position DESC LIMIT 1"


class Store:
    """
    The log in one SQLite file. Use in the thread that opened it. See `log.Log` for what append and read promise.

    Attributes:
        path: The file.
        db: The connection, for reading through sqlite-utils. What would change the log is refused on it.
    """

    def __init__(self, path: Path, db: Database) -> None:
        self.path = path
        self.db = db
        self._bells = path.parent / "bells"
        self._witness = Witness(path)
        self._place = path.absolute()
        self._file: tuple[int, int] | None = None
        self._last = START

    @classmethod
    def open(cls, path: Path | str, *, create: bool = True, check: bool = True, timeout_s: float = TIMEOUT_S) -> Store:
        """
        Open the log at *path*.

        Args:
            create: Make the file and its folder if there are none.
            check: Run SQLite's quick check, which reads the whole file, and verify the rows behind the witness.
                A short command that only reads may do without.
            timeout_s: How long to wait for another writer, here and in `append`.

        Raises:
            SqliteUnsafe: If this SQLite may corrupt a log that two processes write.
            NotALog: If there is no file and *create* is false, it is something else, or its schema was altered.
            LogTooNew: If a newer Nightshift wrote it.
            LogCorrupt: If rows are missing at its end, or those behind the witness do not hold.
            LogUnavailable: If it cannot be opened or locked.
        """
        path = Path(path)
        if create:
            _make_folder(path.parent)
        store = cls(path, connect(path, create=create, timeout_s=timeout_s))
        try:
            with translated(path):
                store._prepare(timeout_s, check=check)
        except BaseException:
            store.close()
            raise
        return store

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def append(self, events: Sequence[NewEvent], *, expected: int | None = None) -> list[int]:
        """Append a batch, all of it or nothing, and return the positions. See `log.Log.append`."""
        batch = drafts(events)
        if not batch:
            return []
        self._check_place()
        with translated(self.path), self._writing():
            known = self._known(batch)
            positions = first_positions(batch, known)
            if positions is not None:
                return positions
            head = self._head()
            check_not_back(head, self._last)
            if expected is not None and expected != head.position:
                raise PositionConflict(expected, head.position)
            rows = seal(batch, head)
            self.db.conn.executemany(_INSERT, rows)
            self.db.conn.execute("COMMIT")
        self._last = Head(rows[-1].position, rows[-1].chain)
        self._announce(self._last)
        return [row.position for row in rows]

    def read(self, after: int = 0, *, limit: int = 1000) -> list[Event]:
        """Return at most *limit* events behind position *after*, in order. See `log.Log.read`."""
        return [event_of(row) for row in self._page(after, limit)]

    def stream(self, after: int = 0) -> Iterator[Event]:
        """Yield every event behind *after* up to the head. See `log.Log.stream`."""
        while page := self.read(after):
            yield from page
            after = page[-1].position

    def rows(self, after: int = 0) -> Iterator[Row]:
        """Yield the rows behind *after* up to the head as they are stored, in pages like `stream`."""
        while page := self._page(after, 1000):
            yield from map(Row._make, page)
            after = page[-1][0]

    def head(self) -> Head:
        """Return where the log ends."""
        with translated(self.path):
            return self._head()

    def close(self) -> None:
        """Close the connection. A second call does nothing."""
        with suppress(OSError):  # the log itself is safe without its witness
            self._witness.close()
        self.db.conn.close()

    def _prepare(self, timeout_s: float, *, check: bool) -> None:
        """Check the file, bring it up to date and put the guards on. Writes nothing before it is known as ours."""
        conn = self.db.conn
        witness = read_witness(self.path)
        version = version_of(conn, self.path)
        if version == 0 and witness is not None:
            raise cut(0, witness)
        tune(conn, timeout_s)
        if version < SCHEMA_VERSION:
            migrate(conn, self.path)
        check_schema(conn, self.path)
        if witness is not None:
            check_witness(conn, witness)
        if check:
            check_pages(conn, self.path)
            head = check_chain(conn, witness or START)
            if head.position:
                with suppress(OSError):
                    self._witness.see(head)
        authorize(conn)
        self._file = _identity(self._place)  # now: SQLite makes a new file when it first writes to it

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the write lock; roll back whatever was not committed at the end."""
        # IMMEDIATE: under a plain BEGIN, reading and then writing fails at once when another process wrote between.
        self.db.conn.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            if self.db.conn.in_transaction:  # a full disk has rolled back by itself
                self.db.conn.execute("ROLLBACK")

    def _check_place(self) -> None:
        """Raise `LogUnavailable` if the file that is open is not the one at its path: what is written would be lost."""
        if _identity(self._place) != self._file:
            raise LogUnavailable(
                f"{self.path} was moved, removed or replaced while it was open: put the right file there, its .witness "
                "beside it, and start again"
            )

    def _known(self, batch: Sequence[Draft]) -> dict[str, Row]:
        found = (self.db.conn.execute(_BY_ID, (draft.id,)).fetchone() for draft in batch)
        return {row[1]: Row._make(row) for row in found if row is not None}

    def _head(self) -> Head:
        row = self.db.conn.execute(_HEAD).fetchone()
        return Head(*row) if row is not None else Head(0, GENESIS)

    def _page(self, after: int, limit: int) -> list[Row]:
        """Read a page to its end: a half-read cursor would hold a read transaction and let the WAL grow."""
        after = max(after, 0)
        self._check_place()
        with translated(self.path):
            try:
                rows: list[Row] = self.db.conn.execute(_AFTER, (after, limit)).fetchall()
            except sqlite3.DatabaseError as error:
                if not unreadable(error):
                    raise
                raise LogCorrupt(self._unreadable(after), f"SQLite cannot read the row ({error})") from error
        if rows and rows[-1][0] != after + len(rows):
            gap = next(expected for expected, row in enumerate(rows, after + 1) if row[0] != expected)
            raise LogCorrupt(gap, "the row is missing")
        return rows

    def _unreadable(self, after: int) -> int:
        """Find the first row that cannot be read. One by one, because the driver reads a row ahead."""
        while True:
            try:
                self.db.conn.execute(_AFTER, (after, 1)).fetchall()
            except sqlite3.DatabaseError:
                return after + 1
            after += 1

    def _announce(self, head: Head) -> None:
        """Tell followers and the witness. Neither may fail an append that is already on the disk."""
        ring(self._bells)  # first: the witness wakes its thread, which then stands in the way of every system call here
        with suppress(OSError):
            self._witness.see(head)


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file is at *path*: its device and number; None if there is none."""
    try:
        facts = os.stat(path)  # noqa: PTH116 - a Path would double the cost, and this is asked before each append
    except FileNotFoundError:
        return None
    return facts.st_dev, facts.st_ino


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LogUnavailable(f"the folder {folder} cannot be made ({error.strerror})") from error
