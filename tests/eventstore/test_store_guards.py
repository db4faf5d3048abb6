"""The database itself refuses to change what was logged. Each guard is also taken away, to show that it matters.

An attempt is tried with all guards, with each of its guards as the only one, and without its guards: only
the last must go through. Triggers stand in the file and so hold for other programs too; the authorizer is
on our own connections only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database
from sqlite_utils.utils import sqlite3

from eventstore import schema
from eventstore.connection import connect
from eventstore.envelope import NewEvent
from eventstore.store import Store

MakeEvent = Callable[..., NewEvent]
Attempt = Callable[[Database], object]

GUARDS = {
    "update": schema.NO_UPDATE,
    "delete": schema.NO_DELETE,
    "next": schema.NEXT_POSITION,
    "id": schema.NEW_ID,
}
COLUMNS = ("position", "id", "run", "type", "version", "at", "actor", "cause", "data", "chain")


def row(position: int | None, id_: str) -> dict[str, Any]:
    at = "2026-11-21T08:00:00.000000Z"
    values = (position, id_, "nov21", "run.paused", 1, at, "loop@box", None, '{"why":"x"}', bytes(32))
    return dict(zip(COLUMNS, values, strict=True))


def insert(how: str, position: int | None, id_: str, tail: str = "") -> Attempt:
    fields = {name: value for name, value in row(position, id_).items() if name != "position" or position is not None}
    sql = f"{how} INTO events ({', '.join(fields)}) VALUES ({', '.join('?' * len(fields))}) {tail}"
    return lambda db: db.conn.execute(sql, tuple(fields.values()))


def sql(text: str) -> Attempt:
    return lambda db: db.conn.execute(text)


# The log holds 3 events: id-1, id-2, id-3. An attempt, the guards that stop it, and those that also do with
# recursive_triggers on, where a REPLACE fires the delete trigger.
TRIGGERED: list[tuple[str, Attempt, set[str], set[str]]] = [
    ("UPDATE", sql("UPDATE events SET actor = 'eve' WHERE position = 2"), {"update"}, set()),
    ("update()", lambda db: db["events"].update(2, {"actor": "eve"}), {"update"}, set()),
    ("convert()", lambda db: db["events"].convert("actor", lambda _: "eve"), {"update"}, set()),
    ("DELETE", sql("DELETE FROM events WHERE position = 3"), {"delete"}, set()),
    ("DELETE of all", sql("DELETE FROM events"), {"delete"}, set()),
    ("delete()", lambda db: db["events"].delete(2), {"delete"}, set()),
    ("delete_where()", lambda db: db["events"].delete_where("position > 1"), {"delete"}, set()),
    ("truncate=True", lambda db: db["events"].insert_all([row(1, "x")], truncate=True), {"delete"}, set()),
    ("a gap", insert("INSERT", 5, "x"), {"next"}, set()),
    ("a position before the first", insert("INSERT", 0, "x"), {"next"}, set()),
    ("no position", insert("INSERT", None, "x"), {"next"}, set()),
    ("REPLACE of a position", insert("REPLACE", 2, "x"), {"next"}, {"delete"}),
    ("REPLACE of a row", insert("REPLACE", 2, "id-2"), {"next", "id"}, {"delete"}),
    ("IGNORE on a position", insert("INSERT OR IGNORE", 2, "x"), {"next"}, set()),
    (
        "upsert of a position",
        insert("INSERT", 2, "x", "ON CONFLICT (position) DO UPDATE SET actor = 'eve'"),
        {"next", "update"},
        set(),
    ),
    ("insert(replace=True)", lambda db: db["events"].insert(row(2, "x"), replace=True), {"next"}, {"delete"}),
    ("insert(ignore=True)", lambda db: db["events"].insert(row(2, "x"), ignore=True), {"next"}, set()),
    ("upsert()", lambda db: db["events"].upsert(row(2, "x"), pk="position"), {"next", "update"}, set()),
    ("REPLACE of an id at head + 1", insert("REPLACE", 4, "id-2"), {"id"}, {"delete"}),
    ("IGNORE on an id at head + 1", insert("INSERT OR IGNORE", 4, "id-2"), {"id"}, set()),
    ("DO NOTHING on an id at head + 1", insert("INSERT", 4, "id-2", "ON CONFLICT (id) DO NOTHING"), {"id"}, set()),
    (
        "insert(replace=True) of an id",
        lambda db: db["events"].insert(row(4, "id-2"), replace=True),
        {"id"},
        {"delete"},
    ),
]

UNTRIGGERED: list[tuple[str, Attempt]] = [
    ("DROP TRIGGER", sql("DROP TRIGGER events_no_update")),
    ("DROP TABLE", sql("DROP TABLE events")),
    ("drop()", lambda db: db["events"].drop()),
    ("ALTER TABLE", sql("ALTER TABLE events ADD COLUMN mood TEXT")),
    ("RENAME", sql("ALTER TABLE events RENAME TO happenings")),
    ("insert(alter=True)", lambda db: db["events"].insert({**row(4, "x"), "mood": "calm"}, alter=True)),
    ("add_column()", lambda db: db["events"].add_column("mood", str)),
    ("transform()", lambda db: db["events"].transform(types={"actor": str})),
    ("create_index()", lambda db: db["events"].create_index(["run"])),
    ("CREATE TABLE", sql("CREATE TABLE other (x)")),
    ("CREATE TRIGGER", sql("CREATE TRIGGER t AFTER INSERT ON events BEGIN SELECT 1; END")),
    ("CREATE TEMP TRIGGER", sql("CREATE TEMP TRIGGER t AFTER INSERT ON events BEGIN SELECT 1; END")),
    ("CREATE VIEW", sql("CREATE VIEW v AS SELECT 1")),
    ("another table", lambda db: db["other"].insert({"x": 1})),
    ("ATTACH", sql("ATTACH ':memory:' AS other")),
    ("ANALYZE", sql("ANALYZE")),
    ("REINDEX", sql("REINDEX")),
    ("writable_schema", sql("PRAGMA writable_schema = ON")),
    ("recursive_triggers off", sql("PRAGMA recursive_triggers = OFF")),
    ("checks off", sql("PRAGMA ignore_check_constraints = ON")),
    ("synchronous off", sql("PRAGMA synchronous = OFF")),
    ("another user_version", sql("PRAGMA user_version = 7")),
    ("optimize", sql("PRAGMA optimize")),
]

REFUSED_BY_THE_TABLE: list[tuple[str, dict[str, Any]]] = [
    ("NaN", {"data": '{"x":NaN}'}),
    ("JSON5", {"data": "{why:1}"}),
    ("no JSON", {"data": ""}),
    ("a blob", {"data": b"\x00\x01"}),
    ("a time without micros", {"at": "2026-11-21T08:00:00Z"}),
    ("letters for digits", {"at": "2026-11-2XT08:00:00.000000Z"}),
    ("a cause ahead", {"cause": 4}),
    ("a cause before the first", {"cause": 0}),
    ("a short chain", {"chain": b"short"}),
    ("no actor", {"actor": ""}),
    ("a null run", {"run": None}),
    ("text for a number", {"version": "one"}),
]


@pytest.fixture
def filled(path: Path, event: MakeEvent) -> Path:
    with Store.open(path) as store:
        store.append([event(1), event(2), event(3)])
    return path


@pytest.fixture
def guarded(filled: Path) -> Iterator[Callable[..., Database]]:
    """Open the log of 3 events with only the triggers named, and the authorizer or not."""
    opened = []

    def open_(triggers: Collection[str], *, recursive: bool, authorizer: bool = False) -> Database:
        db = connect(filled)
        opened.append(db)
        for name in schema_triggers(db):
            db.conn.execute(f"DROP TRIGGER {name}")
        for name in triggers:
            db.conn.execute(GUARDS[name])
        db.conn.execute(f"PRAGMA recursive_triggers = {'ON' if recursive else 'OFF'}")
        if authorizer:
            schema.authorize(db.conn)
        return db

    yield open_
    for db in opened:
        db.conn.close()


def schema_triggers(db: Database) -> list[str]:
    return [name for (name,) in db.conn.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall()]


def content(db: Database) -> Sequence[Any]:
    return db.conn.execute("SELECT * FROM events ORDER BY position").fetchall()  # type: ignore[no-any-return]


def refused(db: Database, attempt: Attempt) -> bool:
    """Try it, undo what it left open, and tell whether it was refused."""
    try:
        attempt(db)
    except sqlite3.Error:
        return True
    finally:
        if db.conn.in_transaction:
            db.conn.execute("ROLLBACK")
    return False


@pytest.mark.parametrize("recursive", [True, False], ids=["recursive", "flat"])
@pytest.mark.parametrize(("attempt", "stops", "more"), [a[1:] for a in TRIGGERED], ids=[a[0] for a in TRIGGERED])
def test_triggers_stop_it_and_nothing_else_would(
    guarded: Callable[..., Database], attempt: Attempt, stops: set[str], more: set[str], recursive: bool
) -> None:
    stops = stops | more if recursive else stops
    for triggers in (set(GUARDS), *({name} for name in stops)):
        db = guarded(triggers, recursive=recursive)
        before = content(db)
        assert refused(db, attempt), f"{triggers} did not stop it"
        assert content(db) == before
        db.conn.close()
    assert not refused(guarded(set(GUARDS) - stops, recursive=recursive), attempt), "it needs no guard"


@pytest.mark.parametrize("attempt", [a[1] for a in UNTRIGGERED], ids=[a[0] for a in UNTRIGGERED])
def test_the_authorizer_stops_what_no_trigger_sees(guarded: Callable[..., Database], attempt: Attempt) -> None:
    db = guarded(GUARDS, recursive=True, authorizer=True)
    schema_before, before = db.conn.execute("SELECT * FROM sqlite_schema").fetchall(), content(db)
    assert refused(db, attempt)
    assert db.conn.execute("SELECT * FROM sqlite_schema").fetchall() == schema_before
    assert content(db) == before
    db.conn.close()
    assert not refused(guarded(GUARDS, recursive=True), attempt), "it needs no guard"


@pytest.mark.parametrize(
    "attempt", [a[1] for a in TRIGGERED + UNTRIGGERED], ids=[a[0] for a in TRIGGERED + UNTRIGGERED]
)
def test_a_store_lets_nobody_change_its_log(filled: Path, attempt: Attempt) -> None:
    with Store.open(filled) as store:
        before = content(store.db)
        assert refused(store.db, attempt)
        assert content(store.db) == before


@pytest.mark.parametrize("changes", [r[1] for r in REFUSED_BY_THE_TABLE], ids=[r[0] for r in REFUSED_BY_THE_TABLE])
def test_the_table_takes_no_row_of_another_form(filled: Path, changes: dict[str, Any]) -> None:
    db = connect(filled)
    values = tuple({**row(4, "x"), **changes}.values())
    with pytest.raises(sqlite3.IntegrityError):
        db.conn.execute(f"INSERT INTO events VALUES ({', '.join('?' * 10)})", values)
    db.conn.execute(f"INSERT INTO events VALUES ({', '.join('?' * 10)})", tuple(row(4, "x").values()))
    db.conn.close()


def test_vacuum_into_is_refused_on_a_store(store: Store, tmp_path: Path) -> None:
    assert refused(store.db, sql(f"VACUUM INTO '{tmp_path / 'copy.db'}'"))


def test_a_store_can_be_read_through_sqlite_utils(filled: Path) -> None:
    with Store.open(filled) as store:
        assert [found["id"] for found in store.db["events"].rows_where("position > 1")] == ["id-2", "id-3"]
        assert store.db["events"].count == 3
        assert store.db.table_names() == ["events"]
        assert [column.name for column in store.db["events"].columns] == list(COLUMNS)
        assert store.db["events"].pks == ["position"]


def test_a_store_is_durable_and_guarded_as_configured(store: Store) -> None:
    def pragma(name: str) -> object:
        return store.db.conn.execute(f"PRAGMA {name}").fetchone()[0]

    assert pragma("journal_mode") == "wal"
    assert pragma("synchronous") == 2  # FULL
    assert pragma("busy_timeout") == 10_000
    assert pragma("recursive_triggers") == 1
    assert pragma("mmap_size") == 0
