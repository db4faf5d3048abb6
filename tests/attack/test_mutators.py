"""Every public method of sqlite-utils' `Database` and `Table`: none changes a log through a store.

Each method stands in exactly one of the lists below, so that one which a new release adds fails the first test
until someone has looked at it. What changes something is called twice: on a store, and as a control on a connection
without authorizer to a copy without triggers, where it must go through.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database
from sqlite_utils.db import Table
from sqlite_utils.utils import sqlite3

from eventstore.connection import connect
from eventstore.store import Store
from tests.attack.nursery import AT
from tests.conftest import Tally

Call = Callable[[Database], object]


def row(position: int, id_: str) -> dict[str, Any]:
    names = ("position", "id", "run", "type", "version", "at", "actor", "cause", "data", "chain")
    return dict(
        zip(names, (position, id_, "r", "run.paused", 1, AT, "eve", None, '{"why":"x"}', bytes(32)), strict=True)
    )


def events(db: Database) -> Table:
    return db.table("events")


def _attach(db: Database) -> None:
    (_, _, file) = db.conn.execute("PRAGMA database_list").fetchone()
    db.attach("other", f"{file}.other")


def _in_atomic(db: Database) -> None:
    with db.atomic():
        db.execute(UPDATE)


UPDATE = "UPDATE events SET actor = 'eve' WHERE position = 2"

CHANGING: dict[str, list[Call]] = {
    # of the database
    "add_foreign_keys": [lambda db: db.add_foreign_keys([("events", "cause", "events", "position")])],
    "analyze": [lambda db: db.analyze()],
    "atomic": [_in_atomic],
    "attach": [_attach],
    "create_table": [
        lambda db: db.create_table("other", {"x": int}),
        lambda db: db.create_table("events", {"x": int}, replace=True),
        lambda db: db.create_table("events", {"position": int, "mood": str}, transform=True),
    ],
    "create_view": [lambda db: db.create_view("v", "SELECT 1")],
    "disable_wal": [lambda db: db.disable_wal()],
    "enable_counts": [lambda db: db.enable_counts(), lambda db: events(db).enable_counts()],
    "execute": [lambda db: db.execute(UPDATE).fetchall(), lambda db: db.execute("DELETE FROM events")],
    "execute_returning_dicts": [lambda db: list(db.execute_returning_dicts(UPDATE + " RETURNING *"))],
    "executescript": [lambda db: db.executescript(f"{UPDATE}; DROP TABLE events;")],
    "index_foreign_keys": [lambda db: db.index_foreign_keys()],
    "query": [lambda db: list(db.query(UPDATE + " RETURNING *"))],
    "rename_table": [lambda db: db.rename_table("events", "happenings")],
    "reset_counts": [lambda db: db.reset_counts()],
    # of a table
    "add_column": [lambda db: events(db).add_column("mood", str)],
    "add_foreign_key": [lambda db: events(db).add_foreign_key("cause", "events", "position")],
    "add_missing_columns": [lambda db: events(db).add_missing_columns([{"mood": "calm"}])],
    "convert": [
        lambda db: events(db).convert("actor", lambda _: "eve"),
        lambda db: events(db).convert("actor", lambda _: {"who": "eve"}, multi=True),
    ],
    "create": [lambda db: db.table("other").create({"x": int}), lambda db: events(db).create({"x": int}, replace=True)],
    "create_index": [lambda db: events(db).create_index(["run"])],
    "delete": [lambda db: events(db).delete(2)],
    "delete_where": [lambda db: events(db).delete_where(), lambda db: events(db).delete_where("position > 2")],
    "drop": [lambda db: events(db).drop()],
    "drop_index": [lambda db: events(db).drop_index("idx_events_run")],
    "duplicate": [lambda db: events(db).duplicate("copy")],
    "enable_fts": [lambda db: events(db).enable_fts(["actor"], create_triggers=True)],
    "disable_fts": [lambda db: events(db).disable_fts()],
    "populate_fts": [lambda db: events(db).populate_fts(["actor"])],
    "rebuild_fts": [lambda db: events(db).rebuild_fts()],
    "optimize": [lambda db: events(db).optimize()],
    "extract": [lambda db: events(db).extract("actor")],
    "insert": [
        lambda db: events(db).insert(row(2, "x"), replace=True),
        lambda db: events(db).insert(row(99, "x")),
        lambda db: events(db).insert({**row(61, "x"), "mood": "calm"}, alter=True),
        lambda db: db.table("other").insert({"x": 1}),
    ],
    "insert_all": [
        lambda db: events(db).insert_all([row(1, "x")], truncate=True),
        lambda db: events(db).insert_all([row(2, "id-2"), row(3, "y")], replace=True),
    ],
    "insert_chunk": [lambda db: events(db).insert_all([row(2, "z")], replace=True, batch_size=1)],
    "lookup": [lambda db: db.table("actors").lookup({"name": "eve"})],
    "m2m": [lambda db: events(db).update(2).m2m("tags", {"name": "x"}, pk="id")],
    "transform": [
        lambda db: events(db).transform(types={"actor": str}),
        lambda db: events(db).transform(drop={"chain"}),
    ],
    "update": [
        lambda db: events(db).update(2, {"actor": "eve"}),
        lambda db: events(db).update(2, {"mood": "calm"}, alter=True),
    ],
    "upsert": [lambda db: events(db).upsert(row(2, "x"), pk="position")],
    "upsert_all": [lambda db: events(db).upsert_all([row(2, "x"), row(3, "y")], pk="position")],
}
"""What would change the log, its schema or its mode. `insert_chunk` is a step of `insert_all`, called through it."""

UNNOTICED = {"optimize", "populate_fts", "rebuild_fts", "reset_counts"}
"""Change a search index or a table of counts, which are not compared here, so there is no control."""

HARMLESS = {
    # these need the spatialite extension, which a connection of ours does not load
    "init_spatialite", "add_geometry_column", "create_spatial_index",
    # transactions and the connection itself
    "begin", "close", "commit", "rollback", "ensure_autocommit_on", "enable_wal", "vacuum",
    # functions of this one connection
    "register_function", "register_fts4_bm25",
}  # fmt: skip

READING = {
    "analyze_column", "build_insert_queries_and_params", "cached_counts", "checks", "column_checks", "columns",
    "columns_dict", "count", "count_where", "create_table_sql", "default_values", "detect_fts", "execute_count",
    "exists", "foreign_keys", "get", "guess_foreign_column", "guess_foreign_table", "has_counts_triggers", "indexes",
    "iterdump", "journal_mode", "last_pk", "last_rowid", "m2m_table_candidates", "pks", "pks_and_rows_where", "quote",
    "quote_default_value", "quote_fts", "resolve_foreign_keys", "rows", "rows_where", "schema", "search", "search_sql",
    "sqlite_version", "strict", "supports_on_conflict", "supports_strict", "table", "table_checks", "table_names",
    "tables", "tracer", "transform_sql", "triggers", "triggers_dict", "use_counts_table", "use_rowid",
    "value_or_default", "view", "view_names", "views", "virtual_table_using", "xindexes",
}  # fmt: skip


FIRST: dict[str, Call] = {
    "index_foreign_keys": lambda db: events(db).add_foreign_key("cause", "events", "position"),
    "drop_index": lambda db: events(db).create_index(["run"]),
    **dict.fromkeys(
        ("disable_fts", "populate_fts", "rebuild_fts", "optimize"), lambda db: events(db).enable_fts(["actor"])
    ),
}
"""What has to be there for a mutator to find something to do. On a store this is refused already."""

CASES = [(name, call) for name, calls in CHANGING.items() for call in calls]
IDS = [f"{name}-{number}" for name, calls in CHANGING.items() for number in range(len(calls))]


def seen(conn: sqlite3.Connection) -> list[Any]:
    """All that a mutator could change: rows, schema, mode, attached databases."""
    questions = (
        "SELECT * FROM sqlite_schema ORDER BY name",
        "PRAGMA journal_mode",
        "PRAGMA database_list",
        "PRAGMA user_version",
    )
    answers = [conn.execute(question).fetchall() for question in questions]
    with suppress(sqlite3.OperationalError):  # the control may have dropped or renamed it
        answers.append(conn.execute("SELECT * FROM events ORDER BY position").fetchall())
    return answers


def try_it(db: Database, call: Call) -> None:
    """Call it, whatever comes of it, and undo what it left open."""
    try:
        call(db)
    except Exception as error:  # sqlite-utils answers a refusal with errors of many kinds
        print(type(error).__name__, error)
    finally:
        if db.conn.in_transaction:
            db.conn.execute("ROLLBACK")


def test_every_public_method_of_sqlite_utils_was_looked_at() -> None:
    there = {name for kind in (Database, Table) for name in dir(kind) if not name.startswith("_")}
    assert there == CHANGING.keys() | HARMLESS | READING
    assert not (CHANGING.keys() & READING or CHANGING.keys() & HARMLESS or READING & HARMLESS)


@pytest.mark.parametrize(("name", "call"), CASES, ids=IDS)
def test_a_mutator_does_nothing_on_a_store_and_its_work_without_the_guards(
    filled: Path, tmp_path: Path, tally: Tally, name: str, call: Call
) -> None:
    refused = tally(
        "no program of ours changes a row or the schema", "mutators of sqlite-utils on a store: without effect"
    )
    control = tally(
        "no program of ours changes a row or the schema",
        "the same without triggers and authorizer: went through (control)",
    )
    shutil.copytree(filled.parent, tmp_path / "bare")
    with Store.open(filled) as store:
        before = seen(store.db.conn)
        try_it(store.db, FIRST.get(name, Database.table_names))
        try_it(store.db, call)  # most raise; a few find nothing to do, as there is no index to drop
        assert refused.see(seen(store.db.conn) == before)
    with Store.open(filled) as store:
        assert seen(store.db.conn) == before
    bare = connect(tmp_path / "bare" / "events.db")
    try:
        bare.conn.execute("PRAGMA journal_mode = WAL").fetchall()
        for (trigger,) in bare.conn.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
            bare.conn.execute(f"DROP TRIGGER {trigger}")
        try_it(bare, FIRST.get(name, Database.table_names))
        before = seen(bare.conn)
        try_it(bare, call)
        if name not in UNNOTICED:
            assert control.see(seen(bare.conn) != before), "nothing happens without the guards either"
    finally:
        bare.conn.close()


HARMLESS_CALLS: dict[str, Call] = {
    "begin": lambda db: db.begin(),
    "commit": lambda db: db.commit(),
    "rollback": lambda db: db.rollback(),
    "enable_wal": lambda db: db.enable_wal(),
    "vacuum": lambda db: db.vacuum(),
    "init_spatialite": lambda db: db.init_spatialite(),
    "add_geometry_column": lambda db: events(db).add_geometry_column("g", "POINT"),
    "create_spatial_index": lambda db: events(db).create_spatial_index("g"),
    "register_function": lambda db: db.register_function(lambda: 1, name="one"),
    "register_fts4_bm25": lambda db: db.register_fts4_bm25(),
    "use_rowid": lambda db: events(db).use_rowid,
    "analyze_column": lambda db: events(db).analyze_column("actor"),
    "iterdump": lambda db: list(db.iterdump()),
    "cached_counts": lambda db: db.cached_counts(),
}


@pytest.mark.parametrize("name", HARMLESS_CALLS)
def test_what_is_harmless_leaves_rows_and_schema_as_they_are(filled: Path, tally: Tally, name: str) -> None:
    count = tally("no program of ours changes a row or the schema", "other methods that write or might: without effect")
    with Store.open(filled) as store:
        before = seen(store.db.conn)
        try_it(store.db, HARMLESS_CALLS[name])
        assert count.see(seen(store.db.conn) == before)
