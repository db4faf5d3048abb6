"""The driver, as sqlite-utils finds it, imported in one place.

It is `pysqlite3`, which carries a safe SQLite, where that is installed, else Python's own. Everything of ours takes
it from here: an `except` on another module's errors catches nothing, and one file opened through two SQLite
libraries in one process loses its locks.

sqlite-utils also imports numpy where it finds it, to name columns after numpy's types, of which a log has none. That
import took 70 ms and 12 MB of every command that opens the log, so it is kept from it.
"""

from __future__ import annotations

import sys

_unused = {"numpy", "pandas"} - sys.modules.keys()
sys.modules.update(dict.fromkeys(_unused))  # type: ignore[arg-type]  # None: an import fails as if it were not there
try:
    from sqlite_utils import Database
    from sqlite_utils.utils import sqlite3
finally:
    for _name in _unused:
        del sys.modules[_name]

__all__ = ["Database", "sqlite3"]
