"""What tests of the log share: a few events, both logs, a plain connection, and real child processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils.utils import sqlite3

import eventstore
from eventstore.envelope import NewEvent
from eventstore.events import TrainingFinished
from eventstore.log import Log
from eventstore.memory import MemoryLog
from eventstore.store import Store

MakeEvent = Callable[..., NewEvent]
StartChild = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def event() -> MakeEvent:
    """Make event number n; keyword arguments replace envelope fields."""

    def make(n: int, **changes: Any) -> NewEvent:
        data = TrainingFinished(
            experiment=n,
            attempt=0,
            trial=0,
            nonce=f"nonce-{n}",
            outcome="scored",
            seconds=1.5,
            score=1.25,
            metrics={"val_bpb": 1.25, "num_steps": 10},
            tail="step 10 / 10 …",
        )
        first = NewEvent(
            id=f"id-{n}", run="nov21", at="2026-11-21T08:00:00.000000Z", actor="loop@box", data=data, cause=None
        )
        return replace(first, **changes)

    return make


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "events.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store.open(path) as opened:
        yield opened


@pytest.fixture(params=["store", "memory"])
def log(request: pytest.FixtureRequest) -> Log:
    """Each log in turn: a test that takes it is part of the contract of both."""
    return request.getfixturevalue("store") if request.param == "store" else MemoryLog()


@pytest.fixture
def plain() -> Iterator[Callable[[Path], sqlite3.Connection]]:
    """Open a file the way another program would: no guard of ours on the connection."""
    opened = []

    def connect(path: Path) -> sqlite3.Connection:
        opened.append(sqlite3.connect(path, isolation_level=None))
        return opened[-1]

    yield connect
    for conn in opened:
        conn.close()


@pytest.fixture
def child() -> Iterator[StartChild]:
    """Start a Python process that runs *source* with *args* in sys.argv[1:]. None outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def start(source: str, *args: object) -> subprocess.Popen[str]:
        root = Path(eventstore.__file__).parent.parent
        process = subprocess.Popen(
            [sys.executable, "-c", source, *map(str, args)],
            env={**os.environ, "PYTHONPATH": str(root)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
