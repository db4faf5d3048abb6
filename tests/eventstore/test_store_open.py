"""Opening a log: what is refused, with which sentence, and that nothing foreign is touched."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils.utils import sqlite3

from eventstore.envelope import Head, NewEvent
from eventstore.errors import LogCorrupt, LogTooNew, LogUnavailable, NotALog
from eventstore.schema import SCHEMA_VERSION
from eventstore.store import Store
from eventstore.witness import Witness, read_witness

MakeEvent = Callable[..., NewEvent]
Plain = Callable[[Path], sqlite3.Connection]


@pytest.fixture
def filled(path: Path, event: MakeEvent) -> Path:
    with Store.open(path) as store:
        store.append([event(n) for n in range(1, 301)])
    return path


def witness_of(path: Path) -> Path:
    return path.with_name(path.name + ".witness")


def live_copy(store: Store, folder: Path) -> Path:
    """The files of an open log as a power loss would leave them: nothing checkpointed at a close."""
    folder.mkdir()
    for file in store.path.parent.iterdir():
        if not file.name.endswith("-shm"):
            shutil.copy(file, folder)
    return folder / store.path.name


def test_a_log_is_there_again_after_closing(path: Path, event: MakeEvent) -> None:
    with Store.open(path) as store:
        store.append([event(1)])
    with Store.open(str(path), create=False) as store:
        assert store.append([event(2)]) == [2]
        assert [read.id for read in store.read()] == ["id-1", "id-2"]


def test_closing_twice_does_no_harm(path: Path) -> None:
    store = Store.open(path)
    store.close()
    store.close()


def test_a_missing_log_is_only_made_when_asked(path: Path) -> None:
    with pytest.raises(NotALog, match=r"there is no log at .*nightshift init"):
        Store.open(path, create=False)
    assert not path.parent.exists()


def test_a_text_file_is_not_a_log(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("many words, none of them SQL\n" * 100)
    with pytest.raises(NotALog, match=r"notes\.txt is not an SQLite database"):
        Store.open(text)
    assert text.read_text().startswith("many words")


def test_a_folder_is_not_a_log(tmp_path: Path) -> None:
    with pytest.raises(LogUnavailable, match="cannot be opened"):
        Store.open(tmp_path)


def test_a_path_through_a_file_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LogUnavailable, match=r"the folder .* cannot be made"):
        Store.open(tmp_path / "file" / "events.db")


def test_another_database_is_refused_and_left_as_it_was(tmp_path: Path, plain: Plain) -> None:
    other = tmp_path / "other.db"
    conn = plain(other)
    conn.execute("CREATE TABLE songs (title)")
    conn.close()
    before = other.read_bytes()
    with pytest.raises(NotALog, match="is an SQLite database but not a log of Nightshift"):
        Store.open(other)
    assert other.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["other.db"]


def test_a_log_of_a_newer_version_is_refused(filled: Path, plain: Plain) -> None:
    plain(filled).execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(LogTooNew) as caught:
        Store.open(filled)
    assert (caught.value.found, caught.value.known) == (SCHEMA_VERSION + 1, SCHEMA_VERSION)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("DROP TRIGGER events_no_delete", "trigger events_no_delete is missing"),
        ("CREATE INDEX by_run ON events (run)", "index by_run does not belong here"),
        ("ALTER TABLE events ADD COLUMN mood TEXT", "table events was changed"),
    ],
)
def test_an_altered_schema_is_refused_by_name(filled: Path, plain: Plain, change: str, message: str) -> None:
    plain(filled).execute(change)
    with pytest.raises(NotALog, match=message):
        Store.open(filled)


def test_a_log_locked_for_too_long_is_unavailable_and_usable_afterwards(
    path: Path, plain: Plain, event: MakeEvent
) -> None:
    with Store.open(path, timeout_s=0.05) as store:
        other = plain(path)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LogUnavailable, match="stayed locked by another process"):
            store.append([event(1)])
        other.execute("ROLLBACK")
        assert store.append([event(1)]) == [1]


def test_a_damaged_page_is_found_at_the_opening(filled: Path) -> None:
    content = bytearray(filled.read_bytes())
    at = content.index(b"nonce-150")
    start = at - at % 4096
    content[start : start + 4096] = b"\xff" * 4096
    filled.write_bytes(content)
    with pytest.raises((NotALog, LogCorrupt), match=r"damaged|does not hold"):
        Store.open(filled)


def test_a_log_shortened_in_its_middle_is_refused(filled: Path) -> None:
    content = filled.read_bytes()
    filled.write_bytes(content[: len(content) // 2 // 4096 * 4096])
    with pytest.raises((NotALog, LogCorrupt), match=r"damaged|does not hold"):
        Store.open(filled)


def test_a_log_replaced_by_an_older_one_is_refused_until_the_witness_is_removed(
    path: Path, tmp_path: Path, event: MakeEvent
) -> None:
    with Store.open(path) as store:
        store.append([event(1)])
    shutil.copy(path, tmp_path / "old.db")
    with Store.open(path) as store:
        store.append([event(2), event(3)])
    shutil.copy(tmp_path / "old.db", path)
    with pytest.raises(
        LogCorrupt, match=r"it ends at 1 but 3 events had been written .*remove the \.witness"
    ) as caught:
        Store.open(path)
    assert caught.value.position == 2
    witness_of(path).unlink()
    with Store.open(path) as store:
        assert store.head().position == 1
    assert witness_of(path).exists()


def test_an_emptied_or_removed_log_is_not_taken_for_a_new_one(filled: Path) -> None:
    filled.write_bytes(b"")
    with pytest.raises(LogCorrupt, match="it ends at 0 but 300 events had been written"):
        Store.open(filled)
    filled.unlink()
    with pytest.raises(LogCorrupt, match="it ends at 0 but 300 events had been written"):
        Store.open(filled)


def test_a_witness_of_another_chain_is_an_alarm(filled: Path, tmp_path: Path, event: MakeEvent) -> None:
    with Store.open(tmp_path / "other.db") as other:
        other.append([event(n, actor="cli:eve") for n in range(1, 301)])
    shutil.copy(witness_of(tmp_path / "other.db"), witness_of(filled))
    with pytest.raises(LogCorrupt, match="the log was rewritten") as caught:
        Store.open(filled)
    assert caught.value.position == 300


def test_a_scribbled_witness_is_an_error_with_a_remedy(filled: Path) -> None:
    witness_of(filled).write_text("12 chickens\n")
    with pytest.raises(NotALog, match=r"events\.db\.witness was altered: if you know why, remove it"):
        Store.open(filled)


def test_a_witness_never_goes_back(filled: Path) -> None:
    """Of two writers at the same moment, the one that committed first may come last."""
    witness = Witness(filled)
    witness.see(Head(302, bytes(32)))
    witness.see(Head(301, bytes(31) + b"x"))
    witness.close()
    assert read_witness(filled) == Head(302, bytes(32))


def test_an_append_survives_without_bell_and_witness(path: Path, event: MakeEvent) -> None:
    """Neither may fail an append: here both are folders where files should be."""
    with Store.open(path) as store:
        witness_of(path).mkdir()
        (path.parent / "bells").mkdir()
        (path.parent / "bells" / "x.bell").mkdir()
        assert store.append([event(1)]) == [1]


@pytest.mark.parametrize("check", [True, False])
def test_rows_behind_the_witness_are_verified_when_opening_with_a_check(
    path: Path, plain: Plain, event: MakeEvent, check: bool
) -> None:
    with Store.open(path) as store:
        store.append([event(1)])
    old_witness = witness_of(path).read_bytes()
    with Store.open(path) as store:
        store.append([event(2), event(3)])
    witness_of(path).write_bytes(old_witness)
    conn = plain(path)
    (trigger,) = conn.execute("SELECT sql FROM sqlite_schema WHERE name = 'events_no_update'").fetchone()
    conn.execute("DROP TRIGGER events_no_update")
    conn.execute("UPDATE events SET actor = 'eve' WHERE position = 2")
    conn.execute(trigger)
    conn.close()
    if not check:
        Store.open(path, check=False).close()
        return
    with pytest.raises(LogCorrupt) as caught:
        Store.open(path)
    assert caught.value.position == 2


@pytest.fixture
def crashed(path: Path, tmp_path: Path, event: MakeEvent) -> Path:
    """A log of 30 appends whose machine stopped: everything is still in the WAL."""
    with Store.open(path) as store:
        for n in range(1, 31):
            store.append([event(n)])
        return live_copy(store, tmp_path / "crashed")


def test_a_wal_cut_anywhere_leaves_a_prefix_and_the_witness_tells(crashed: Path, tmp_path: Path) -> None:
    whole = crashed.with_name("events.db-wal").read_bytes()
    lengths = set()
    for size in range(len(whole) // 2, len(whole), len(whole) // 24):
        cut = tmp_path / str(size) / "events.db"
        shutil.copytree(crashed.parent, cut.parent)
        cut.with_name("events.db-wal").write_bytes(whole[:size])
        with pytest.raises(LogCorrupt, match="the log was cut") as caught:
            Store.open(cut)
        witness_of(cut).unlink()
        with Store.open(cut) as store:
            assert [read.id for read in store.stream()] == [f"id-{n}" for n in range(1, caught.value.position)]
        lengths.add(caught.value.position - 1)
    assert len(lengths) > 5


def test_a_flipped_bit_in_the_wal_drops_the_tail_silently_and_only_the_witness_tells(crashed: Path) -> None:
    wal = crashed.with_name("events.db-wal")
    content = bytearray(wal.read_bytes())
    content[len(content) * 2 // 3] ^= 1
    wal.write_bytes(content)
    witness = witness_of(crashed).read_bytes()
    witness_of(crashed).unlink()
    with Store.open(crashed) as store:
        assert 0 < store.head().position < 30  # SQLite sees nothing wrong
    witness_of(crashed).write_bytes(witness)
    with pytest.raises(LogCorrupt, match="the log was cut"):
        Store.open(crashed)


def test_a_row_that_sqlite_cannot_read_is_named(filled: Path) -> None:
    content = bytearray(filled.read_bytes())
    at = content.index(b"nonce-250")
    content[at] = 0xFF  # no longer UTF-8
    filled.write_bytes(content)
    with Store.open(filled, check=False) as store:
        assert len(store.read(limit=249)) == 249
        with pytest.raises(LogCorrupt, match="SQLite cannot read the row") as caught:
            list(store.stream())
        assert caught.value.position == 250


def test_a_missing_row_stops_reading(filled: Path, plain: Plain) -> None:
    conn = plain(filled)
    (trigger,) = conn.execute("SELECT sql FROM sqlite_schema WHERE name = 'events_no_delete'").fetchone()
    conn.execute("DROP TRIGGER events_no_delete")
    conn.execute("DELETE FROM events WHERE position = 7")
    conn.execute(trigger)
    conn.close()
    with Store.open(filled, check=False) as store:
        assert len(store.read(limit=6)) == 6
        for after in (0, 6):
            with pytest.raises(LogCorrupt, match="the row is missing") as caught:
                store.read(after)
            assert caught.value.position == 7


def test_a_row_of_a_known_type_with_foreign_data_stops_reading(filled: Path, plain: Plain) -> None:
    conn = plain(filled)
    conn.execute(
        "INSERT INTO events SELECT 301, 'x', run, 'run.paused', 1, at, actor, NULL, '{\"why\":5}', chain "
        "FROM events WHERE position = 300"
    )
    conn.execute(
        "INSERT INTO events SELECT 302, 'y', run, 'run.dreamt', 1, at, actor, NULL, '{\"why\":5}', chain "
        "FROM events WHERE position = 300"
    )
    conn.close()
    with Store.open(filled, check=False) as store:
        with pytest.raises(LogCorrupt, match=r"run\.paused version 1 does not decode") as caught:
            store.read(300)
        assert caught.value.position == 301
        assert store.read(301)[0].data.raw == '{"why":5}'  # type: ignore[union-attr]


def test_a_log_being_made_is_waited_for(path: Path) -> None:
    """SQLite itself does not wait when a file that someone is about to write is to become a WAL database."""
    path.parent.mkdir()
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.2, other.execute, ["ROLLBACK"])
    release.start()
    with Store.open(path) as store:
        assert store.head().position == 0
    release.join()
    other.close()


def test_many_processes_may_make_the_log_at_the_same_moment(child: Callable[..., Any], path: Path) -> None:
    source = (
        "import sys\n"
        "from eventstore.store import Store\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "with Store.open(sys.argv[1]) as store: print(store.head().position)\n"
    )
    processes = [child(source, path) for _ in range(4)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate()[0] for process in processes] == ["0\n"] * 4
