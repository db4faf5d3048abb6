"""What the attacks share: running one of the processes beside this file, and how a log is judged afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import eventstore
from eventstore.store import Store
from tests.attack.nursery import event

Attack = Callable[..., str]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def attack() -> Iterator[Attack]:
    """Run `tests.attack.<name>` to its end and return what it printed. Nothing of it outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def run(name: str, *args: object) -> str:
        package = Path(eventstore.__file__).parent.parent
        process = subprocess.Popen(
            [sys.executable, "-m", f"tests.attack.{name}", *map(str, args)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{package}{os.pathsep}{ROOT}"},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        out, _ = process.communicate()
        assert process.returncode == 0, f"{name} ended with {process.returncode}"
        return out

    yield run
    for process in started:
        with suppress(ProcessLookupError):  # its group is gone with it
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where the log will be."""
    return tmp_path / "state" / "events.db"


@pytest.fixture
def filled(log: Path) -> Path:
    """A log of 60 events in batches of 1 to 5, closed: all of it in one file."""
    with Store.open(log) as store:
        fill(store, 60)
    return log


def fill(store: Store, count: int) -> None:
    n = store.head().position
    end = n + count
    while n < end:
        batch = [event(f"id-{m}", "y" * (m * 53 % 700)) for m in range(n + 1, min(n + 1 + n % 5, end) + 1)]
        n = store.append(batch)[-1]
