"""Verify, back up and export a log.

The form of an export: UTF-8, one JSON object per line, lines end in "\\n", in the order of positions. The
keys are the table's columns in the table's order: `position`, `id`, `run`, `type`, `version`, `at`,
`actor`, `cause`, `data`, `chain`. `cause` is a number or null. `chain` is 64 hexadecimal digits. `data`
is the object itself, byte for byte the canonical JSON that is stored and hashed; fields equal to their
default are left out of it (docs/events.md has the defaults). Nothing is upcast or left out.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TextIO

import msgspec

from eventstore.connection import connect, translated
from eventstore.driver import sqlite3
from eventstore.envelope import Head
from eventstore.errors import BackupRefused, LogUnavailable, NotALog
from eventstore.integrity import check_chain, check_pages, check_witness, cut
from eventstore.log import Row
from eventstore.schema import check_schema, version_of
from eventstore.store import Store
from eventstore.witness import read_witness, sync_folder


def verify(log: Store | Path | str) -> Head:
    """
    Recompute the whole chain of a log, compare it with its witness and its schema, and return its head.

    Reads through a connection of its own and changes nothing, so it may run beside a working loop.

    Raises:
        LogCorrupt: Naming the first position whose row was altered, is missing or stands elsewhere, or the
            one behind the last row if the log was cut.
        NotALog: If it is no log of ours, or its rows hold but its table or triggers were altered.
        LogTooNew: If a newer Nightshift wrote it.
        LogUnavailable: If it cannot be read now.
    """
    path = _path_of(log)
    witness = read_witness(path)
    if witness is not None and not path.exists():
        raise cut(0, witness)
    return _verify(path, witness)


def backup(log: Store | Path | str, target: Path | str) -> Head:
    """
    Copy a log, also one that is being written, into the new file *target*, and return the copy's head.

    The copy is made under another name, checked like a log by `verify`, synced and renamed, so that *target* is
    whole or not there. It is a log of its own: put it in the place of the old one, or open it as it is.

    Raises:
        BackupRefused: If *target* exists or its folder does not.
        LogCorrupt, NotALog, LogTooNew: As `verify`; there is no backup then.
        LogUnavailable: If the log cannot be read or the copy not written now.
    """
    path, target = _path_of(log), Path(target)
    _check_target(target)
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    try:
        head = copy_checked(path, partial)
        _check_target(target)
        partial.rename(target)
        sync_folder(target.parent)
    finally:
        partial.unlink(missing_ok=True)
    return head


def copy_checked(path: Path, copy: Path) -> Head:
    """
    Copy the log at *path* into the new file *copy*, check the copy, wait for the disk and return its head.

    Raises:
        LogCorrupt, NotALog, LogTooNew: As `verify`; the copy may be there all the same, for the caller to remove.
        LogUnavailable: If the log cannot be read or the copy not written now.
    """
    witness = read_witness(path)
    _copy(path, copy)
    head = _verify(copy, witness)
    with copy.open("rb") as file:
        os.fsync(file.fileno())
    return head


def export(log: Store | Path | str, out: TextIO, after: int = 0) -> int:
    """
    Write the rows behind position *after* to *out* in the form above, and return how many.

    Raises:
        LogCorrupt: If a row is missing or cannot be read.
        NotALog, LogTooNew, LogUnavailable: As `Store.open`, for a path.
    """
    if isinstance(log, Store):
        return sum(1 for row in log.rows(after) if out.write(_line(row)))
    with Store.open(log, create=False, check=False) as store:
        return export(store, out, after)


def _line(row: Row) -> str:
    fields = row._asdict() | {"data": msgspec.Raw(row.data.encode()), "chain": row.chain.hex()}
    return msgspec.json.encode(fields).decode() + "\n"


def _path_of(log: Store | Path | str) -> Path:
    return log.path if isinstance(log, Store) else Path(log)


def _verify(path: Path, witness: Head | None) -> Head:
    conn = connect(path).conn
    try:
        with translated(path):
            conn.execute("PRAGMA query_only = ON")
            return _check_all(conn, path, witness)
    finally:
        conn.close()


def _check_all(conn: sqlite3.Connection, path: Path, witness: Head | None) -> Head:
    if version_of(conn, path) == 0:
        raise NotALog(f"{path} is an empty file: nothing was ever logged in it") if witness is None else cut(0, witness)
    try:
        head = check_chain(conn)
    except sqlite3.OperationalError:
        check_schema(conn, path)  # says so if a table or column is missing
        raise
    if witness is not None:
        check_witness(conn, witness)
    check_schema(conn, path)
    check_pages(conn, path)
    return head


def _copy(path: Path, partial: Path) -> None:
    conn = connect(path).conn  # without the authorizer, which refuses VACUUM INTO
    try:
        with translated(path):
            version_of(conn, path)
            conn.execute("VACUUM INTO ?", (str(partial),))
    except LogUnavailable as error:
        raise LogUnavailable(f"the backup of {path} to {partial.parent} failed ({error.__cause__})") from error
    finally:
        conn.close()


def _check_target(target: Path) -> None:
    if target.exists():
        raise BackupRefused(f"{target} exists: a backup never overwrites, name a new file")
    if not target.parent.is_dir():
        raise BackupRefused(f"the folder {target.parent} does not exist: make it, or name a file in another")
