"""Verify names the first row that does not hold; backups are checked prefixes; exports have the form they promise."""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils.utils import sqlite3

from eventstore.codec import row_hash
from eventstore.envelope import GENESIS, Head, NewEvent
from eventstore.errors import BackupRefused, LogCorrupt, LogTooNew, NotALog
from eventstore.maintenance import backup, export, verify
from eventstore.store import Store

MakeEvent = Callable[..., NewEvent]
Plain = Callable[[Path], sqlite3.Connection]

LAST = 9
COLUMNS = ("id", "run", "type", "version", "at", "actor", "cause", "data", "chain")
OTHER: dict[str, object] = {
    "id": "id-99",
    "run": "nov22",
    "type": "run.paused",
    "version": 2,
    "at": "2026-11-21T08:00:00.000001Z",
    "actor": "cli:eve",
    "cause": None,
    "data": '{"why":"x"}',
    "chain": bytes(31) + b"\x01",
}


@pytest.fixture
def filled(path: Path, event: MakeEvent) -> Path:
    with Store.open(path) as store:
        store.append([event(1)])
        store.append([event(n, cause=1) for n in range(2, LAST + 1)])
    return path


@pytest.fixture
def tamper(filled: Path, plain: Plain) -> Callable[..., None]:
    """Change the log as someone with the file and a plain SQLite can: triggers off, statements, triggers on."""

    def change(*statements: tuple[str, Sequence[object]]) -> None:
        conn = plain(filled)
        triggers = conn.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        conn.execute("PRAGMA ignore_check_constraints = ON")
        for name, _ in triggers:
            conn.execute(f"DROP TRIGGER {name}")
        for sql, values in statements:
            conn.execute(sql, values)
        for _, sql in triggers:
            conn.execute(sql)
        conn.close()

    return change


def corrupt_position(log: Path) -> int:
    with pytest.raises(LogCorrupt) as caught:
        verify(log)
    assert f"position {caught.value.position}" in str(caught.value)
    return caught.value.position


def test_a_log_that_holds_gives_its_head(filled: Path) -> None:
    with Store.open(filled) as store:
        head = store.head()
        assert head.position == LAST
        assert verify(store) == verify(filled) == verify(str(filled)) == head


def test_an_empty_log_holds(path: Path) -> None:
    with Store.open(path) as store:
        assert verify(store) == Head(0, GENESIS)


@pytest.mark.parametrize("position", [1, 5, LAST])
@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_changed_by_hand_is_found_at_its_row(
    filled: Path, tamper: Callable[..., None], column: str, position: int
) -> None:
    value = 3 if (column, position) == ("cause", 1) else OTHER[column]
    tamper((f"UPDATE events SET {column} = ? WHERE position = ?", (value, position)))
    assert corrupt_position(filled) == position


@pytest.mark.parametrize("position", [1, 5, LAST])
@pytest.mark.parametrize("moved_to", [0, -7, LAST + 1, 99])
def test_a_position_changed_by_hand_is_found_where_the_row_was(
    filled: Path, tamper: Callable[..., None], position: int, moved_to: int
) -> None:
    """A row moved before the first is found at 1: that is the first position that does not hold."""
    tamper(("UPDATE events SET position = ? WHERE position = ?", (moved_to, position)))
    assert corrupt_position(filled) == (position if moved_to > 0 else 1)


@pytest.mark.parametrize("position", [1, 5, LAST])
def test_a_removed_row_is_found_also_at_the_end(filled: Path, tamper: Callable[..., None], position: int) -> None:
    tamper(("DELETE FROM events WHERE position = ?", (position,)))
    assert corrupt_position(filled) == position


def test_a_row_removed_and_the_rest_moved_up_is_found(filled: Path, tamper: Callable[..., None]) -> None:
    tamper(
        ("DELETE FROM events WHERE position = 5", ()),
        *(("UPDATE events SET position = ? WHERE position = ?", (n - 1, n)) for n in range(6, LAST + 1)),
    )
    assert corrupt_position(filled) == 5


@pytest.mark.parametrize(("one", "other"), [(1, 2), (3, 7), (1, LAST), (LAST - 1, LAST)])
def test_two_rows_swapped_are_found_at_the_first(
    filled: Path, tamper: Callable[..., None], one: int, other: int
) -> None:
    move = "UPDATE events SET position = ? WHERE position = ?"
    tamper((move, (1000, one)), (move, (one, other)), (move, (other, 1000)))
    assert corrupt_position(filled) == one


def test_an_added_row_is_found(filled: Path, tamper: Callable[..., None]) -> None:
    tamper(
        (
            "INSERT INTO events SELECT position + 1, 'x', run, type, version, at, actor, cause, data, chain "
            "FROM events WHERE position = ?",
            (LAST,),
        )
    )
    assert corrupt_position(filled) == LAST + 1


def test_a_last_row_rewritten_with_a_chain_that_fits_is_told_by_the_witness(
    filled: Path, tamper: Callable[..., None], plain: Plain
) -> None:
    *columns, _ = plain(filled).execute("SELECT * FROM events WHERE position = ?", (LAST,)).fetchone()
    (previous,) = plain(filled).execute("SELECT chain FROM events WHERE position = ?", (LAST - 1,)).fetchone()
    columns[6] = "cli:eve"
    chain = row_hash(previous, *columns)
    tamper(("UPDATE events SET actor = 'cli:eve', chain = ? WHERE position = ?", (chain, LAST)))
    assert corrupt_position(filled) == LAST


def test_the_rows_are_checked_before_the_schema(filled: Path, plain: Plain) -> None:
    """Someone who dropped a trigger and changed a row left two traces: the row is the one to name."""
    conn = plain(filled)
    conn.execute("DROP TRIGGER events_no_update")
    with pytest.raises(NotALog, match="trigger events_no_update is missing"):
        verify(filled)
    conn.execute("UPDATE events SET actor = 'eve' WHERE position = 4")
    assert corrupt_position(filled) == 4


def test_a_flipped_bit_in_a_stored_row_is_found(filled: Path) -> None:
    content = bytearray(filled.read_bytes())
    content[content.index(b"nonce-6")] ^= 1
    filled.write_bytes(content)
    assert corrupt_position(filled) == 6


def test_a_row_of_broken_text_is_found(filled: Path) -> None:
    content = bytearray(filled.read_bytes())
    content[content.index(b"nonce-6")] = 0xFF
    filled.write_bytes(content)
    assert corrupt_position(filled) == 6


def test_a_page_of_rubbish_is_found(path: Path, event: MakeEvent) -> None:
    with Store.open(path) as store:
        store.append([event(n) for n in range(1, 201)])
    content = bytearray(path.read_bytes())
    start = content.index(b"nonce-100") // 4096 * 4096
    content[start : start + 4096] = b"\xff" * 4096
    path.write_bytes(content)
    assert 50 < corrupt_position(path) <= 100


def test_a_log_that_is_gone_is_told_by_the_witness(filled: Path) -> None:
    filled.unlink()
    assert corrupt_position(filled) == 1


@pytest.mark.parametrize(
    ("break_", "error", "message"),
    [
        (lambda path: path.write_text("no database at all\n" * 99), NotALog, "is not an SQLite database"),
        (lambda path: path.write_bytes(b""), NotALog, "is an empty file"),
        (lambda path: path.unlink(), NotALog, "there is no log at"),
        (lambda path: sql(path, "PRAGMA user_version = 99"), LogTooNew, "schema version 99"),
        (lambda path: sql(path, "PRAGMA application_id = 99"), NotALog, "not a log of Nightshift"),
        (lambda path: sql(path, "DROP TABLE events"), NotALog, "table events is missing"),
        (lambda path: sql(path, "ALTER TABLE events RENAME actor TO who"), NotALog, "table events was changed"),
    ],
)
def test_what_is_no_log_is_said_in_one_sentence(
    filled: Path, break_: Callable[[Path], object], error: type[Exception], message: str
) -> None:
    filled.with_name("events.db.witness").unlink()
    break_(filled)
    with pytest.raises(error, match=message):
        verify(filled)


def sql(path: Path, statement: str) -> None:
    conn = sqlite3.connect(path, isolation_level=None)
    conn.execute(statement)
    conn.close()


WRITER = """
import sys
from eventstore.envelope import NewEvent
from eventstore.events import RunPaused
from eventstore.store import Store
with Store.open(sys.argv[1]) as store:
    print("ready", flush=True)
    n = 0
    while True:
        n += 1
        store.append([NewEvent(id=f"w-{n}", run="r", at="2026-11-21T08:00:00.000000Z", actor="a",
                               data=RunPaused(why="x" * 200))])
"""


def _grown(log: Path, since: Head) -> Head:
    """Verify until the writer got further than *since*: on a busy machine it may be asleep for a while."""
    deadline = time.monotonic() + 30
    while (head := verify(log)).position <= since.position:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return head


def test_a_log_can_be_verified_and_backed_up_while_another_process_writes(
    child: Callable[..., Any], filled: Path, tmp_path: Path
) -> None:
    process = child(WRITER, filled)
    assert process.stdout.readline() == "ready\n"
    saved = Head(LAST, GENESIS)
    for n in range(5):
        seen = _grown(filled, saved)
        saved = backup(filled, tmp_path / f"{n}.db")
        assert saved.position >= seen.position
        assert verify(tmp_path / f"{n}.db") == saved
    _grown(filled, saved)
    process.kill()
    process.wait()
    with Store.open(filled) as live, Store.open(tmp_path / "4.db") as copy:
        assert copy.read(limit=10_000) == live.read(limit=saved.position)
    assert not list(tmp_path.glob("*.partial*"))


def test_a_backup_is_a_log_that_can_be_opened_and_written(filled: Path, tmp_path: Path, event: MakeEvent) -> None:
    with Store.open(filled) as store:
        head = backup(store, tmp_path / "saved.db")
        assert head == store.head()
    with Store.open(tmp_path / "saved.db") as copy:
        assert copy.append([event(50)]) == [LAST + 1]


def test_a_restored_backup_is_behind_what_was_seen_until_the_witness_is_removed(
    filled: Path, tmp_path: Path, event: MakeEvent
) -> None:
    backup(filled, tmp_path / "saved.db")
    with Store.open(filled) as store:
        store.append([event(50)])
    shutil.copy(tmp_path / "saved.db", filled)
    assert corrupt_position(filled) == LAST + 1
    filled.with_name("events.db.witness").unlink()
    assert verify(filled).position == LAST


def test_a_backup_never_overwrites(filled: Path, tmp_path: Path) -> None:
    target = tmp_path / "saved.db"
    target.write_text("precious")
    with pytest.raises(BackupRefused, match=r"saved\.db exists"):
        backup(filled, target)
    assert target.read_text() == "precious"
    with pytest.raises(BackupRefused, match=r"the folder .*nowhere does not exist"):
        backup(filled, tmp_path / "nowhere" / "saved.db")


def test_a_damaged_log_is_not_backed_up(filled: Path, tamper: Callable[..., None], tmp_path: Path) -> None:
    tamper(("UPDATE events SET actor = 'eve' WHERE position = 3", ()))
    with pytest.raises(LogCorrupt):
        backup(filled, tmp_path / "saved.db")
    tamper(("DELETE FROM events WHERE position > 2", ()))
    with pytest.raises(LogCorrupt, match="the log was cut"):
        backup(filled, tmp_path / "saved.db")
    assert [file.name for file in tmp_path.iterdir()] == ["state"]


def test_an_export_has_every_column_of_every_row_in_order(filled: Path, plain: Plain) -> None:
    out = io.StringIO()
    assert export(filled, out) == LAST
    lines = out.getvalue().split("\n")
    assert lines.pop() == ""
    rows = plain(filled).execute("SELECT * FROM events ORDER BY position").fetchall()
    for line, row in zip(lines, rows, strict=True):
        fields = json.loads(line)
        assert list(fields) == ["position", *COLUMNS]
        assert fields["data"] == json.loads(row[8])
        assert f'"data":{row[8]},"chain":' in line  # the stored bytes themselves, so the chain can be recomputed
        assert (*list(fields.values())[:8], bytes.fromhex(fields["chain"])) == (*row[:8], row[9])


def test_an_export_may_start_behind_a_position(filled: Path) -> None:
    out = io.StringIO()
    with Store.open(filled) as store:
        assert export(store, out, after=LAST - 2) == 2
    assert [json.loads(line)["position"] for line in out.getvalue().splitlines()] == [LAST - 1, LAST]


def test_an_export_of_nothing_is_empty(path: Path) -> None:
    out = io.StringIO()
    with Store.open(path) as store:
        assert export(store, out) == 0
    assert out.getvalue() == ""
