"""Damaged files: a cut or flipped WAL, flipped bits in the log itself, rows altered, removed, swapped, rewritten.

SQLite drops the tail of a damaged WAL without a word and reads a flipped payload as it is, so each attack
is also made without the guard that tells: the witness, the chain. That is counted as well.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils.utils import sqlite3

from eventstore.codec import row_hash
from eventstore.connection import connect
from eventstore.envelope import GENESIS, Head
from eventstore.errors import EventstoreError, LogCorrupt, NotALog
from eventstore.home import Home
from eventstore.integrity import check_chain
from eventstore.maintenance import verify
from eventstore.recovery import check
from eventstore.store import Store
from eventstore.witness import read_witness, witness_path, write_witness
from tests.attack.conftest import fill
from tests.conftest import Tally

APPENDS = 40
COLUMNS = ("id", "run", "type", "version", "at", "actor", "cause", "data", "chain")

TRIALS = [60, pytest.param(3000, marks=[pytest.mark.long, pytest.mark.timeout(900)])]


@pytest.fixture
def crashed(log: Path, tmp_path: Path) -> Path:
    """A log whose machine stopped: the first third is in the file, the rest still in the WAL."""
    with Store.open(log) as store:
        fill(store, APPENDS)
    with Store.open(log) as store:
        fill(store, 2 * APPENDS)
        for name in ("", "-wal", ".witness"):
            copy = tmp_path / "crashed" / f"events.db{name}"
            copy.parent.mkdir(exist_ok=True)
            shutil.copy(f"{log}{name}", copy)
    return tmp_path / "crashed" / "events.db"


def ids_of(path: Path) -> list[str]:
    with Store.open(path, create=False, check=False) as store:
        return [read.id for read in store.stream()]


def copy_of(path: Path, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(path.parent, folder)
    return folder / path.name


def told(path: Path) -> bool:
    """Whether opening or verifying the log is refused with one of our own errors."""
    answers = []
    for look in (lambda: verify(path), lambda: Store.open(path, create=False).close()):
        try:
            look()
            answers.append(False)
        except (LogCorrupt, NotALog):
            answers.append(True)
    return answers[0] or answers[1]


def cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def flip(content: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]


def overwrite(content: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(content))
    return content[:at] + bytes(min(4096, len(content) - at)) + content[at + 4096 :]


@pytest.mark.parametrize("trials", TRIALS)
@pytest.mark.parametrize(("how", "damage"), [("cut at a random offset", cut), ("one bit flipped", flip)])
def test_a_damaged_wal_leaves_a_prefix_and_the_witness_tells(
    crashed: Path, tmp_path: Path, tally: Tally, how: str, damage: Callable[..., bytes], trials: int
) -> None:
    prefix = tally("a damaged WAL leaves a clean prefix", f"WAL {how}")
    by_witness = tally("lost events are told", f"WAL {how}: told by the witness")
    silent = tally("lost events are told", f"WAL {how}: no word without the witness (control)")
    chance, whole = random.Random(how), crashed.with_name("events.db-wal").read_bytes()
    expected = ids_of(copy_of(crashed, tmp_path / "whole"))
    assert len(expected) == 3 * APPENDS
    lost = []
    for _ in range(trials):
        path = copy_of(crashed, tmp_path / "trial")
        path.with_name("events.db-wal").write_bytes(damage(whole, chance))
        tells = told(path)
        witness_path(path).unlink()
        with Store.open(path, create=False) as store:
            ids = [read.id for read in store.stream()]
            head = store.head()
        witness_path(path).unlink(missing_ok=True)
        prefix.see(ids == expected[: len(ids)] and len(ids) >= APPENDS and verify(path) == head)
        by_witness.see(tells == (len(ids) < len(expected)))
        if len(ids) < len(expected):
            silent.see(True)  # verify above found nothing
            lost.append(len(expected) - len(ids))
    prefix.note = f"{sum(lost)} events dropped by SQLite in {len(lost)} logs"
    assert prefix.held == prefix.made == trials
    assert by_witness.held == by_witness.made == trials
    assert silent.made > trials * 0.9


@pytest.mark.parametrize("trials", TRIALS)
@pytest.mark.parametrize(("how", "damage"), [("one bit flipped", flip), ("4 KB of zeros", overwrite), ("cut", cut)])
def test_a_damaged_file_is_told_or_gives_the_rows_as_they_were(
    filled: Path, tmp_path: Path, tally: Tally, how: str, damage: Callable[..., bytes], trials: int
) -> None:
    """Some bytes of a file mean nothing; any other change is an error of ours: no other rows, no foreign error."""
    count = tally("no damaged row is ever taken for a good one", f"events.db {how} at a random place")
    chance, whole = random.Random(how), filled.read_bytes()
    with Store.open(filled, check=False) as store:
        expected = list(store.rows())
    harmless = 0
    for _ in range(trials):
        path = copy_of(filled, tmp_path / "trial")
        path.write_bytes(damage(whole, chance))
        try:
            verify(path)
            with Store.open(path, create=False) as store:
                count.see(list(store.rows()) == expected)
            harmless += 1
        except EventstoreError:
            count.see(True)
    count.note = f"{count.made - harmless} told, {harmless} without effect"
    assert count.held == count.made == trials


# ---------------------------------------------------------------- rows changed through SQLite by someone with the file


def tamper(path: Path, *statements: tuple[str, Sequence[object]]) -> None:
    """Change the log as someone with the file and a plain SQLite can: triggers off, statements, triggers on."""
    conn = sqlite3.connect(path, isolation_level=None)
    triggers = conn.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    conn.execute("PRAGMA ignore_check_constraints = ON")
    for name, _ in triggers:
        conn.execute(f"DROP TRIGGER {name}")
    for sql, values in statements:
        conn.execute(sql, values)
    for _, sql in triggers:
        conn.execute(sql)
    conn.close()


def alter(path: Path, last: int, chance: random.Random) -> int:
    position, column = chance.randint(1, last), chance.choice(COLUMNS)
    values: dict[str, Any] = {
        "version": chance.randint(2, 99), "cause": chance.randint(1, 99), "chain": chance.randbytes(32),
        "data": f'{{"why":"{chance.random()}"}}', "type": "run.resumed", "at": "2026-11-21T09:00:00.000000Z",
    }  # fmt: skip
    value = values.get(column, f"{column}-{chance.random()}")
    tamper(path, (f"UPDATE events SET {column} = ? WHERE position = ?", (value, position)))
    return position


def remove(path: Path, last: int, chance: random.Random) -> int:
    position = chance.randint(1, last)
    tamper(path, ("DELETE FROM events WHERE position = ?", (position,)))
    return position


def remove_and_close_up(path: Path, last: int, chance: random.Random) -> int:
    position = chance.randint(1, last)
    up = [("UPDATE events SET position = ? WHERE position = ?", (n - 1, n)) for n in range(position + 1, last + 1)]
    tamper(path, ("DELETE FROM events WHERE position = ?", (position,)), *up)
    return position


def swap(path: Path, last: int, chance: random.Random) -> int:
    one, other = sorted(chance.sample(range(1, last + 1), 2))
    move = "UPDATE events SET position = ? WHERE position = ?"
    tamper(path, (move, (last + 99, one)), (move, (one, other)), (move, (other, last + 99)))
    return one


def add(path: Path, last: int, chance: random.Random) -> int:
    columns = "run, type, version, at, actor, cause, data, chain"
    copy = f"INSERT INTO events SELECT ?, ?, {columns} FROM events WHERE position = ?"
    tamper(path, (copy, (last + 1, f"x-{chance.random()}", chance.randint(1, last))))
    return last + 1


def rewrite(path: Path, last: int, chance: random.Random) -> int:
    """Change a row and give it and all behind it a chain that fits: only a head kept elsewhere tells."""
    position = chance.randint(1, last)
    conn = sqlite3.connect(path, isolation_level=None)
    rows = conn.execute("SELECT * FROM events ORDER BY position").fetchall()
    conn.close()
    previous = rows[position - 2][-1] if position > 1 else GENESIS
    statements: list[tuple[str, Sequence[object]]] = []
    for row in rows[position - 1 :]:
        columns = list(row[:-1])
        if columns[0] == position:
            columns[6] = "cli:eve"
        previous = row_hash(previous, *columns)
        statements.append(("UPDATE events SET actor = ?, chain = ? WHERE position = ?", (columns[6], previous, row[0])))
    tamper(path, *statements)
    return last


def cut_off(path: Path, last: int, chance: random.Random) -> int:
    position = chance.randint(1, last)
    tamper(path, ("DELETE FROM events WHERE position >= ?", (position,)))
    return position


BY_CHAIN = [
    ("a column altered", alter),
    ("a row removed", remove),
    ("a row removed, the rest moved up", remove_and_close_up),
    ("two rows swapped", swap),
    ("a row added", add),
]
BY_WITNESS = [("a row rewritten with all the chain behind it", rewrite), ("the tail removed", cut_off)]


@pytest.mark.parametrize("trials", [25, pytest.param(400, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
@pytest.mark.parametrize(("how", "change"), BY_CHAIN + BY_WITNESS, ids=[case[0] for case in BY_CHAIN + BY_WITNESS])
def test_verify_names_the_first_row_that_does_not_hold(
    filled: Path, tmp_path: Path, tally: Tally, how: str, change: Callable[..., int], trials: int
) -> None:
    named = tally("verify names the first position that does not hold", f"{how}, triggers taken off")
    chance, last = random.Random(how), verify(filled).position
    for _ in range(trials):
        path = copy_of(filled, tmp_path / "trial")
        position = change(path, last, chance)
        with pytest.raises(LogCorrupt) as caught:
            verify(path)
        named.see(caught.value.position == position)
    assert named.held == named.made == trials


@pytest.mark.parametrize(("how", "change"), BY_WITNESS, ids=[case[0] for case in BY_WITNESS])
def test_without_a_witness_the_chain_alone_does_not_tell(
    filled: Path, tmp_path: Path, tally: Tally, how: str, change: Callable[..., int]
) -> None:
    silent = tally("lost events are told", f"{how}: no word without the witness (control)")
    chance, last = random.Random(how), verify(filled).position
    for _ in range(20):
        path = copy_of(filled, tmp_path / "trial")
        change(path, last, chance)
        witness_path(path).unlink()
        silent.see(verify(path).position <= last)
    assert silent.held == silent.made


def test_commits_in_git_tell_of_a_log_rewritten_with_its_witness(filled: Path, tmp_path: Path, tally: Tally) -> None:
    """The log and the file beside it are in the same hands; the trailers of experiment commits are not."""
    counted = tally("lost events are told", "log and witness rewritten alike: told by commits")
    control = tally("lost events are told", "log and witness rewritten alike: no word without commits (control)")
    chance, last = random.Random(5), verify(filled).position
    conn = connect(filled).conn
    heads = "SELECT position, chain FROM events WHERE position IN (10, 30, ?)"
    commits = [(f"refs/nightshift/nov21/{n}/0", Head(n, chain)) for n, chain in conn.execute(heads, (last,)).fetchall()]
    conn.close()
    for n in range(40):
        path = copy_of(filled, tmp_path / "root" / ".nightshift")
        (rewrite if n % 2 else cut_off)(path, last, chance)
        conn = connect(path).conn
        head = check_chain(conn)
        conn.close()
        witness_path(path).unlink()
        if head.position:
            write_witness(path, head)
        home = Home(tmp_path / "root")
        control.see(all(finding.holds for finding in check(home)))
        answers = {finding.what: finding for finding in check(home, commits)}
        said = answers["commits"]
        counted.see(not said.holds and "commits name events that are not in it" in said.says)
        assert read_witness(path) == (head if head.position else None)
    assert counted.held == counted.made == 40
    assert control.held == control.made


def test_an_index_that_no_longer_fits_its_rows_is_told_by_check(filled: Path, tmp_path: Path, tally: Tally) -> None:
    """The quick check at each opening does not compare them: a known id would be taken for a new one."""
    counted = tally("no damaged row is ever taken for a good one", "a flipped bit in the index of ids: told by check")
    control = tally("no damaged row is ever taken for a good one", "the same: no word from verify (control)")
    whole = filled.read_bytes()
    for n in range(2, 61):
        place = whole.index(f"id-{n}".encode() + bytes([n]))  # an entry of the index: id and position
        path = copy_of(filled, tmp_path / "root" / ".nightshift")
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        control.see(verify(path).position == 60)
        answers = {finding.what: finding.holds for finding in check(Home(tmp_path / "root"))}
        counted.see(answers == {what: what != "pages" for what in answers})
    assert control.held == control.made
    assert counted.held == counted.made == 59
