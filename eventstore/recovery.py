"""Check a workspace's log against all that was computed from it, and put a backup in its place.

`check` asks one question after the other and gives each an answer of its own, so that one fault hides no
other. It changes nothing and may run beside a working loop.

`restore` loses nothing: the files of the log that it replaces, and tables of runs that the backup does not
know, are kept in `.nightshift/set-aside/`. A restore that is cut off at any moment leaves the old log, the new
one, or one that opening and `check` refuse (a log without its tail); asking again finishes it.

Not covered by a restore: git. Commits of experiments that the backup does not know stay where they are, and
`check` names each one.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from eventstore.connection import connect, translated
from eventstore.driver import sqlite3
from eventstore.envelope import Event, Head
from eventstore.errors import EventsTooNew, EventstoreError, LogCorrupt, LogUnavailable, NotALog
from eventstore.events import CATALOGUE
from eventstore.files import replace_file
from eventstore.home import Home
from eventstore.integrity import START, check_chain, check_witness, cut
from eventstore.log import Row, event_of
from eventstore.maintenance import copy_checked
from eventstore.projections.results import Results
from eventstore.projections.run_state import State
from eventstore.requests import tag_problem
from eventstore.schema import check_schema, version_of
from eventstore.witness import read_witness, sync_folder, witness_path, write_witness

PAGE = 1000
SHOWN = 3
"""How many faults of one kind are named; the rest is counted."""

SETTLE_TRIES, SETTLE_S = 20, 0.1
"""How often tables are looked at again while a loop is at work, which writes them just after its events."""

_AFTER = """
SELECT position, id, run, type, version, at, actor, cause, data, chain
FROM events WHERE position > ? ORDER BY position LIMIT ?
"""
_SHARED_FIRST, _SHARED_SIZE = 0x40000002, 510
"""The bytes of a database on which every connection in WAL mode holds a lock for as long as it is open."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer to one question about the log: whether it holds, and one sentence."""

    what: str
    holds: bool
    says: str


@dataclass(frozen=True, slots=True)
class Restored:
    """
    What a restore did.

    Attributes:
        head: Where the log ends now.
        aside: The folder with what was replaced; None if there was nothing.
        tables: Runs whose table was written anew.
        orphans: Runs that the log does not know any more; their tables are in *aside*.
    """

    head: Head
    aside: Path | None
    tables: tuple[str, ...]
    orphans: tuple[str, ...]


@dataclass(slots=True)
class _Folded:
    """The projections of a log up to *position*."""

    position: int = 0
    unknown: int = 0
    state: State = field(default_factory=State)
    results: Results = field(default_factory=Results)

    def take(self, event: Event) -> None:
        self.state.apply(event)
        self.results.apply(event)
        self.position = event.position
        self.unknown += type(event.data).__name__ == "UnknownEvent"


# ---------------------------------------------------------------- check


def check(home: Home, commits: Sequence[tuple[str, Head]] | None = None) -> list[Finding]:
    """
    Answer, in this order: pages, schema, chain, witness, commits, events, tables.

    Args:
        commits: Heads that commits in git name, with the refs that hold them; None where git was not asked.

    Raises:
        NotALog: If there is no log, or the file is none.
        LogTooNew: If a newer Nightshift wrote it.
        LogUnavailable: If it cannot be read now.
    """
    path = home.log_path
    if not path.exists() and (witness := read_witness(path)) is not None:
        raise cut(0, witness)
    try:
        witness, altered = read_witness(path), None
    except NotALog as error:  # read before the log, so that a writer at work cannot put it ahead
        witness, altered = None, error
    conn = connect(path).conn
    try:
        with translated(path):
            conn.execute("PRAGMA query_only = ON")
            version_of(conn, path)
        return list(_findings(home, conn, witness, altered, commits))
    finally:
        conn.close()


def _findings(
    home: Home,
    conn: sqlite3.Connection,
    witness: Head | None,
    altered: NotALog | None,
    commits: Sequence[tuple[str, Head]] | None,
) -> Iterator[Finding]:
    path, folded = home.log_path, _Folded()
    yield _finding("pages", path, lambda: _pages(conn, path))
    yield _finding("schema", path, lambda: _schema(conn, path))
    yield _finding("chain", path, lambda: _chain(conn))
    yield _finding("witness", path, lambda: _witness(conn, witness, altered))
    if commits is not None:
        yield _finding("commits", path, lambda: _commits(conn, commits))
    events = _finding("events", path, lambda: _events(conn, folded))
    yield events
    if events.holds:
        yield _finding("tables", path, lambda: _tables(home, conn, folded))


def _finding(what: str, path: Path, look: Callable[[], str]) -> Finding:
    try:
        with translated(path):
            return Finding(what, True, look())
    except LogUnavailable:
        raise
    except (EventstoreError, sqlite3.DatabaseError) as error:
        return Finding(what, False, str(error))


def _pages(conn: sqlite3.Connection, path: Path) -> str:
    """The whole integrity check: unlike the quick one it also compares the index of ids with the rows."""
    (answer,) = conn.execute("PRAGMA integrity_check(1)").fetchone()
    if answer != "ok":
        raise NotALog(f"{path} is damaged ({answer}): restore a backup")
    return "SQLite finds every page and index whole"


def _schema(conn: sqlite3.Connection, path: Path) -> str:
    check_schema(conn, path)
    return "the table and its guards are as they were made"


def _chain(conn: sqlite3.Connection) -> str:
    head = check_chain(conn, START)
    return f"{head.position} events, each on the hash of the one before, the last {head.chain.hex()}"


def _witness(conn: sqlite3.Connection, witness: Head | None, altered: NotALog | None) -> str:
    if altered is not None:
        raise altered
    if witness is None:
        return "there is none: the end of the log cannot be vouched for until the next append"
    check_witness(conn, witness)
    return f"it saw position {witness.position}, and the log has it"


def _commits(conn: sqlite3.Connection, commits: Sequence[tuple[str, Head]]) -> str:
    bad = [(ref, head) for ref, head in commits if _chain_at(conn, head.position) != head.chain]
    bad.sort(key=lambda found: found[1].position)
    if not bad:
        return f"{len(commits)} commits name a position of the log, and it is what they say"
    refs = ", ".join(f"{ref} ({head.position})" for ref, head in bad[:SHOWN])
    more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    raise LogCorrupt(
        bad[0][1].position,
        f"{len(bad)} of {len(commits)} commits name events that are not in it: {refs}{more} (after a restore on "
        "purpose, remove such refs with `git update-ref -d REF` and put the branch back to its best likewise)",
    )


def check_commits(path: Path, commits: Sequence[tuple[str, Head]]) -> None:
    """
    Compare the log at *path* with what the commits of its own runs name of it; other runs may be of another log.

    Args:
        commits: As for `check`: refs `refs/nightshift/<tag>/...` with the heads that their commits name.

    Raises:
        LogCorrupt: If one names an event that is not in the log: it was rewritten, or is an older one.
    """
    conn = connect(path).conn
    try:
        with translated(path):
            conn.execute("PRAGMA query_only = ON")
            ours = {run for (run,) in conn.execute("SELECT DISTINCT run FROM events WHERE type = 'run.started'")}
            _commits(conn, [(ref, head) for ref, head in commits if ref.split("/")[2] in ours])
    finally:
        conn.close()


def check_versions(path: Path) -> None:
    """
    Look whether every event of a type that is known here is of a version that is known here.

    A view passes over what it does not know; a loop that did would decide again what is decided there. Events of
    unknown types do not disturb it: they are of a part of Nightshift that is newer than this one.

    Raises:
        EventsTooNew: Naming the first one.
    """
    conn = connect(path).conn
    try:
        with translated(path):
            conn.execute("PRAGMA query_only = ON")
            found = conn.execute("SELECT min(position), type, version FROM events GROUP BY type, version").fetchall()
    finally:
        conn.close()
    for position, type_, version in sorted(found):
        kind = CATALOGUE.get(type_)
        if kind is not None and version > kind.VERSION:
            raise EventsTooNew(type_, version, kind.VERSION, position)


def _chain_at(conn: sqlite3.Connection, position: int) -> bytes | None:
    row = conn.execute("SELECT chain FROM events WHERE position = ?", (position,)).fetchone()
    return row[0] if row is not None else None


def _events(conn: sqlite3.Connection, folded: _Folded) -> str:
    _fold(conn, folded)
    unknown = f", {folded.unknown} of types unknown to this version" if folded.unknown else ""
    return f"{folded.position} decoded and folded{unknown}"


def _fold(conn: sqlite3.Connection, folded: _Folded) -> None:
    """Take in what is behind *folded*, in pages, so that no read transaction lets the WAL grow."""
    while page := conn.execute(_AFTER, (folded.position, PAGE)).fetchall():
        for expected, row in enumerate(page, folded.position + 1):
            if row[0] != expected:
                raise LogCorrupt(expected, "the row is missing")
            folded.take(event_of(Row._make(row)))


def _tables(home: Home, conn: sqlite3.Connection, folded: _Folded) -> str:
    for _ in range(SETTLE_TRIES):
        wrong = _wrong_tables(home, folded)
        if not wrong or home.holder() is None:
            break
        time.sleep(SETTLE_S)
        _fold(conn, folded)
    if wrong:
        raise NotALog(f"{'; '.join(wrong[:SHOWN])}: the next `nightshift loop` writes every table of the log anew")
    there = sum(home.results_path(tag).exists() for tag in _started(folded))
    return f"{there} results.tsv are what the log gives"


def _wrong_tables(home: Home, folded: _Folded) -> list[str]:
    wrong = []
    for tag in _started(folded):
        path = home.results_path(tag)
        if path.exists() and path.read_bytes() != folded.results.tsv(tag).encode():
            wrong.append(f"the results.tsv of {tag} is not what the log gives")
    wrong += [f"there is a results.tsv of {tag}, a run that the log does not know" for tag in _strangers(home, folded)]
    copy, newest = home.root / "results.tsv", _newest(folded.state)
    if newest is not None and copy.exists() and copy.read_bytes() != folded.results.tsv(newest).encode():
        wrong.append(f"the results.tsv in {home.root} is not that of {newest}, the run started last")
    return wrong


def _strangers(home: Home, folded: _Folded) -> list[str]:
    """Tags with a table that no run of the log has."""
    there = {path.parent.name for path in (home.state / "runs").glob("*/results.tsv")}
    return sorted(there.difference(_started(folded)))


def _started(folded: _Folded) -> tuple[str, ...]:
    """Tags of the runs that have a table. A log made elsewhere may hold one that would lead out of the folder."""
    runs = folded.state.runs.items()
    return tuple(tag for tag, run in runs if run.started is not None and not tag_problem(tag))


def _newest(state: State) -> str | None:
    return state.newest.tag if state.newest is not None and state.newest.started is not None else None


# ---------------------------------------------------------------- restore


def restore(home: Home, backup: Path, stamp: str) -> Restored:
    """
    Put *backup* in the place of the workspace's log, whatever state that is in, and write the tables anew.

    The backup is copied and checked as by `maintenance.verify` first; until then nothing is touched.

    Args:
        stamp: Names the folder in `.nightshift/set-aside/` that takes what is replaced; one that is there already
            is left alone, and a number put behind the name.

    Raises:
        Held: If a loop serves the workspace.
        LogUnavailable: If another process has the log open, or the disk is full.
        NotALog, LogTooNew, LogCorrupt: If the backup is no log that holds.
    """
    with home.hold():
        path, stamp = home.log_path, _free(home, stamp)
        if not backup.is_file():
            raise NotALog(f"there is no file {backup}: name a backup made by `nightshift log backup`")
        if path.exists() and path.samefile(backup):
            raise NotALog(f"{backup} is the log itself: name a backup of it")
        _check_alone(path)
        partial = path.with_name(f"{path.name}.restore.partial")
        partial.unlink(missing_ok=True)
        try:
            head = copy_checked(backup, partial)
            aside = _set_aside(home, stamp)
            _put_in_place(path, partial, head)
        finally:
            partial.unlink(missing_ok=True)
        folded = _folded(path)
        orphans = _move_strangers(home, folded, stamp)
        tables = _write_tables(home, folded)
        sync_folder(home.state)
        return Restored(head, aside if aside.exists() else None, tables, orphans)


def _check_alone(path: Path) -> None:
    """
    Refuse while another process has the log open: it would go on writing to the file that was moved away.

    Every connection in WAL mode holds a shared lock for as long as it is open, also on a damaged file.
    """
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, _SHARED_SIZE, _SHARED_FIRST)
    except (BlockingIOError, PermissionError) as error:
        raise LogUnavailable(
            f"another process has {path} open: stop what reads or writes it, such as a bot, then try again"
        ) from error
    finally:
        os.close(file)


def _set_aside(home: Home, stamp: str) -> Path:
    """Keep every file of the log under another name as well, on the disk, before any of them goes."""
    aside, path = _aside(home, stamp), home.log_path
    for file in (path, Path(f"{path}-wal"), witness_path(path)):
        if file.exists():
            aside.mkdir(parents=True, exist_ok=True)
            _keep(file, aside / file.name)
    if aside.exists():
        sync_folder(aside)
        sync_folder(aside.parent)
        sync_folder(home.state)
    return aside


def _keep(file: Path, kept: Path) -> None:
    try:
        os.link(file, kept)
    except OSError:  # a file system without hard links
        shutil.copy2(file, kept)
        with kept.open("rb") as copy:
            os.fsync(copy.fileno())


def _put_in_place(path: Path, partial: Path, head: Head) -> None:
    """The old WAL goes first: SQLite would take it for the new file's. In between, the old witness refuses the log."""
    for tail in ("-wal", "-shm"):
        Path(f"{path}{tail}").unlink(missing_ok=True)
    sync_folder(path.parent)
    partial.replace(path)
    sync_folder(path.parent)
    write_witness(path, head)


def _folded(path: Path) -> _Folded:
    folded, conn = _Folded(), connect(path).conn
    try:
        with translated(path):
            _fold(conn, folded)
    finally:
        conn.close()
    return folded


def _move_strangers(home: Home, folded: _Folded, stamp: str) -> tuple[str, ...]:
    strangers = _strangers(home, folded)
    for tag in strangers:
        kept = _aside(home, stamp) / "runs" / tag / "results.tsv"
        kept.parent.mkdir(parents=True, exist_ok=True)
        home.results_path(tag).replace(kept)
    return tuple(strangers)


def _write_tables(home: Home, folded: _Folded) -> tuple[str, ...]:
    tags = _started(folded)
    for tag in tags:
        home.results_path(tag).parent.mkdir(parents=True, exist_ok=True)
        replace_file(home.results_path(tag), folded.results.tsv(tag).encode())
    newest = _newest(folded.state)
    if newest is not None:
        replace_file(home.root / "results.tsv", folded.results.tsv(newest).encode())
    return tags


def _free(home: Home, stamp: str) -> str:
    """*stamp*, or with the lowest number behind it that no folder has."""
    if not _aside(home, stamp).exists():
        return stamp
    return next(name for n in count(2) if not _aside(home, name := f"{stamp}-{n}").exists())


def _aside(home: Home, stamp: str) -> Path:
    return home.state / "set-aside" / stamp
