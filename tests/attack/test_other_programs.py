"""A program that opens the log with a plain SQLite meets the triggers and checks that stand in the file itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database
from sqlite_utils.utils import sqlite3

from eventstore.envelope import NewEvent
from eventstore.events import RunPaused
from eventstore.maintenance import verify
from eventstore.store import Store
from tests.attack.nursery import AT
from tests.conftest import Tally
from tests.eventstore.test_store_guards import REFUSED_BY_THE_TABLE, TRIGGERED, Attempt, content, refused, row

PROMISE = "another program that finds the log as it is cannot change it"


@pytest.fixture
def three(log: Path) -> Path:
    """A log of the events id-1, id-2, id-3."""
    with Store.open(log) as store:
        store.append([NewEvent(f"id-{n}", "nov21", AT, "loop@box", RunPaused(why="x")) for n in (1, 2, 3)])
    return log


@pytest.mark.parametrize("recursive", ["ON", "OFF"])
@pytest.mark.parametrize("attempt", [case[1] for case in TRIGGERED], ids=[case[0] for case in TRIGGERED])
def test_what_another_program_tries_is_refused(three: Path, tally: Tally, attempt: Attempt, recursive: str) -> None:
    count = tally(PROMISE, f"changing statements and sqlite-utils calls, recursive_triggers={recursive}")
    db = Database(sqlite3.connect(three, isolation_level=None), execute_plugins=False)
    try:
        db.conn.execute(f"PRAGMA recursive_triggers = {recursive}")
        before = content(db)
        assert count.see(refused(db, attempt) and content(db) == before)
    finally:
        db.conn.close()
    assert verify(three).position == 3


@pytest.mark.parametrize(
    "changes", [case[1] for case in REFUSED_BY_THE_TABLE], ids=[c[0] for c in REFUSED_BY_THE_TABLE]
)
def test_rows_of_another_form_are_refused(three: Path, tally: Tally, changes: dict[str, Any]) -> None:
    count = tally(PROMISE, "rows that are no event: NaN, JSON5, a cause ahead, a short chain")
    conn = sqlite3.connect(three, isolation_level=None)
    try:
        values = tuple({**row(4, "x"), **changes}.values())
        with pytest.raises(sqlite3.IntegrityError):
            conn.execute(f"INSERT INTO events VALUES ({', '.join('?' * 10)})", values)
        count.see(True)
    finally:
        conn.close()
