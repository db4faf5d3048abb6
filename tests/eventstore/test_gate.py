"""Which SQLite may write a log, and what is said where it may not."""

from __future__ import annotations

import sqlite3 as stdlib_sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils.utils import sqlite3

from eventstore.errors import SqliteUnsafe
from eventstore.schema import check_version


@pytest.mark.parametrize("version", [(3, 44, 6), (3, 44, 9), (3, 50, 7), (3, 51, 3), (3, 53, 0), (3, 53, 4), (4, 0, 0)])
def test_a_fixed_sqlite_is_taken(version: tuple[int, int, int]) -> None:
    check_version(version)


@pytest.mark.parametrize(
    "version",
    [(3, 6, 23), (3, 40, 1), (3, 44, 5), (3, 45, 0), (3, 46, 1), (3, 50, 6), (3, 51, 0), (3, 51, 2), (3, 52, 0)],
)
def test_an_affected_or_withdrawn_sqlite_is_refused_with_the_remedy(version: tuple[int, int, int]) -> None:
    with pytest.raises(SqliteUnsafe, match="pip install pysqlite3") as caught:
        check_version(version)
    assert caught.value.found == ".".join(map(str, version))


def test_the_driver_in_use_passes() -> None:
    check_version(sqlite3.sqlite_version_info)


def test_opening_a_log_asks_the_gate(child: Callable[..., Any], path: Path) -> None:
    """A process that has only Python's own SQLite opens the log if that version is safe, else it is told."""
    source = (
        "import sys; sys.modules['pysqlite3'] = None\n"
        "from eventstore.errors import SqliteUnsafe\n"
        "from eventstore.store import Store\n"
        "try: Store.open(sys.argv[1]).close(); print('opened')\n"
        "except SqliteUnsafe as error: print(error.found)\n"
    )
    answer = child(source, path).communicate()[0].strip()
    try:
        check_version(stdlib_sqlite3.sqlite_version_info)
        assert answer == "opened"
    except SqliteUnsafe:
        assert answer == stdlib_sqlite3.sqlite_version
        assert not path.exists()
