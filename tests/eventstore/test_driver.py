"""The one import of the driver."""

from __future__ import annotations

import subprocess
import sys


def loaded(code: str) -> str:
    """What *code* prints in a fresh interpreter."""
    return subprocess.run((sys.executable, "-c", code), check=True, capture_output=True, text=True).stdout.strip()


def test_opening_a_log_does_not_load_numpy() -> None:
    """sqlite-utils would, where it is installed: 70 ms of every command that opens the log."""
    assert loaded("import sys, eventstore.store; print('numpy' in sys.modules)") == "False"


def test_numpy_can_be_imported_before_and_after() -> None:
    assert loaded("import eventstore.store, numpy; print(numpy.int64(3) + 1)") == "4"
    assert loaded("import numpy, eventstore.store, numpy as np; print(np is numpy, np.int64(3) + 1)") == "True 4"


def test_it_is_the_one_that_sqlite_utils_uses() -> None:
    code = "import eventstore.driver as d, sqlite_utils, sqlite_utils.utils as u; "
    assert loaded(code + "print(d.sqlite3 is u.sqlite3, d.Database is sqlite_utils.Database)") == "True True"
