"""Checking the chain of a log, and the witness beside it.

The chain finds a row that was altered, removed or moved, as long as a later row follows. A log cut at its
end keeps a valid chain (SQLite itself drops the tail of a damaged WAL without a word), so after each
append the head is also written to `<log>.witness`: one line, position and chain in hexadecimal.

It may lag: it is written after the commit, so a process killed in between leaves the older one, and two
writers at the same moment may leave the lower of their two positions. A witness ahead of the log therefore
always means that rows are gone. Not covered: someone who rewrites the end of the log and the witness too.

The line has a fixed length and is written in place by one call, with a check sum by which a reader knows
the half of one. Replacing the file by a rename instead took as long as a commit on ext4 (170-230 us; in
place 2). For the same reason it is synced when a store is closed and not on each append, which made an
append about 1.5 times as slow. What that gives up: rows lost together with a power failure, within the
seconds that the system takes to write the witness by itself.
"""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

from sqlite_utils.utils import sqlite3

from eventstore.codec import row_hash
from eventstore.connection import unreadable
from eventstore.envelope import GENESIS, Head
from eventstore.errors import LogCorrupt, NotALog

PAGE = 1000
"""Rows per query, so that checking a long log holds no read transaction that would let the WAL grow."""

_LINE = 95
"""Bytes of a witness: 20 digits, 64 and 8 hexadecimal digits, spaces and a line end."""

_READS = 100
"""How often a witness is read that does not add up: a read may overtake half of a write."""

START = Head(0, GENESIS)
"""Before the first row."""

_ROWS = """
SELECT position, CAST(id AS BLOB), CAST(run AS BLOB), CAST(type AS BLOB), version, CAST(at AS BLOB),
  CAST(actor AS BLOB), cause, CAST(data AS BLOB), chain
FROM events WHERE position > ? ORDER BY position LIMIT ?
"""  # as bytes, because a damaged row may no longer be UTF-8


def check_chain(conn: sqlite3.Connection, start: Head = START) -> Head:
    """
    Recompute the chain of every row behind *start*, a head that is known to hold, and return the log's head.

    Raises:
        LogCorrupt: Naming the first position that does not hold.
    """
    if start == START:
        _check_first(conn)
    head = start
    while (reached := _check_page(conn, head)) != head:
        head = reached
    return head


def check_pages(conn: sqlite3.Connection, path: Path) -> None:
    """
    Run SQLite's quick check: 1 us per event.

    Raises:
        LogCorrupt: If it finds a fault and a row does not hold, naming the row.
        NotALog: If it finds a fault although all rows hold, as in an index.
    """
    (answer,) = conn.execute("PRAGMA quick_check(1)").fetchone()
    if answer != "ok":
        head = check_chain(conn)
        raise NotALog(f"{path} is damaged though its {head.position} rows hold ({answer}): restore a backup")


def check_witness(conn: sqlite3.Connection, witness: Head) -> None:
    """
    Compare the log with what *witness* saw.

    Read the witness before the log, so that a writer at work cannot put it ahead of what is read here.

    Raises:
        LogCorrupt: If the log ends before the witness's position or has another chain there.
    """
    row = conn.execute("SELECT chain FROM events WHERE position = ?", (witness.position,)).fetchone()
    if row is None:
        (end,) = conn.execute("SELECT coalesce(max(position), 0) FROM events").fetchone()
        raise cut(end, witness)
    if row[0] != witness.chain:
        raise LogCorrupt(witness.position, "its chain is not the one the witness saw, so the log was rewritten")


def cut(end: int, witness: Head) -> LogCorrupt:
    """Make the error for a log that ends at position *end*, before its witness."""
    return LogCorrupt(
        end + 1,
        f"the log was cut, it ends at {end} but {witness.position} events had been written (if you put an older "
        "backup in its place on purpose, remove the .witness file beside it)",
    )


def read_witness(log: Path) -> Head | None:
    """
    Return the head that the witness of *log* saw, or None if there is no witness.

    Raises:
        NotALog: If the file holds anything else.
    """
    path = _witness_path(log)
    try:
        for _ in range(_READS):
            line = path.read_bytes()
            if head := _parse(line):
                return head
    except FileNotFoundError:
        return None
    if not line:  # made, and then killed before it was written
        return None
    raise NotALog(f"{path} was altered: if you know why, remove it, and the log is checked without it")


class Witness:
    """The witness of *log*, kept open by a writer. Its methods raise `OSError` where the file cannot be written."""

    def __init__(self, log: Path) -> None:
        self._path = _witness_path(log)
        self._file: int | None = None

    def see(self, head: Head) -> None:
        """Set the witness to *head*, unless it is already there or further. Does not wait for the disk."""
        if self._file is None:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        seen = _parse(os.pread(self._file, _LINE, 0))
        if seen is None or seen.position < head.position:
            os.pwrite(self._file, _line(head), 0)

    def close(self) -> None:
        """Wait until what was seen is on the disk."""
        file, self._file = self._file, None
        if file is not None:
            try:
                os.fsync(file)
            finally:
                os.close(file)


def _line(head: Head) -> bytes:
    line = f"{head.position:020d} {head.chain.hex()}"
    return f"{line} {sha256(line.encode()).hexdigest()[:8]}\n".encode()


def _parse(line: bytes) -> Head | None:
    try:
        position, chain, _ = line.split()
        head = Head(int(position), bytes.fromhex(chain.decode()))
    except ValueError:
        return None
    return head if _line(head) == line else None


def _witness_path(log: Path) -> Path:
    return log.with_name(log.name + ".witness")


def _check_first(conn: sqlite3.Connection) -> None:
    (lowest,) = conn.execute("SELECT min(position) FROM events").fetchone()
    if lowest is not None and lowest < 1:
        raise LogCorrupt(1, f"a row stands before it, at position {lowest}")


def _check_page(conn: sqlite3.Connection, head: Head, limit: int = PAGE) -> Head:
    try:
        rows = conn.execute(_ROWS, (head.position, limit)).fetchall()
    except sqlite3.DatabaseError as error:
        if not unreadable(error):
            raise
        if limit > 1:  # one row at a time, up to the one that cannot be read
            return _check_page(conn, head, 1)
        raise LogCorrupt(head.position + 1, f"SQLite cannot read the row ({error})") from error
    for *columns, chain in rows:
        if columns[0] != head.position + 1:
            raise LogCorrupt(head.position + 1, f"the row is missing, the next one is at {columns[0]}")
        if row_hash(head.chain, *columns) != chain:
            raise LogCorrupt(columns[0], "the row is not what was written")
        head = Head(columns[0], chain)
    return head
