"""Checking the pages, the chain and the heads of a log.

The chain finds a row that was altered, removed or moved, as long as a later row follows. For the end of the
log there are heads that were kept elsewhere: see `witness`.
"""

from __future__ import annotations

from pathlib import Path

from eventstore.codec import row_hash
from eventstore.connection import unreadable
from eventstore.driver import sqlite3
from eventstore.envelope import GENESIS, Head
from eventstore.errors import LogCorrupt, NotALog

PAGE = 1000
"""Rows per query, so that checking a long log holds no read transaction that would let the WAL grow."""

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


def check_not_back(head: Head, last: Head) -> None:
    """
    Compare the head of an open log with the *last* one that was appended here.

    Raises:
        LogCorrupt: If the log has become shorter, or another one.
    """
    if head.position < last.position or (head.position == last.position and head.chain != last.chain):
        raise LogCorrupt(
            head.position + 1, f"it was changed while it was open, {last.position} events had been written to it"
        )


def cut(end: int, witness: Head) -> LogCorrupt:
    """Make the error for a log that ends at position *end*, before its witness."""
    return LogCorrupt(
        end + 1,
        f"the log was cut, it ends at {end} but {witness.position} events had been written (if you put an older "
        "backup in its place on purpose, remove the .witness file beside it)",
    )


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
