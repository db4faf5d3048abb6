"""Small real commands in a temporary folder, under a workspace id that no other test has."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from trainer.marks import find_marked, kill_marked
from trainer.spec import CommandSpec, Scoring, TrainingSpec


@pytest.fixture
def workspace_id() -> Iterator[str]:
    """A workspace of its own; after the test no process with its mark may be left."""
    ours = uuid.uuid4().hex
    yield ours
    left = find_marked(ours)
    kill_marked(ours)
    assert left == []


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def training(tmp_path: Path, workdir: Path, workspace_id: str) -> Callable[..., TrainingSpec]:
    """A spec that trains by running *code* in Python, or *command*; anything else of it can be set."""

    def make(code: str = "", **wanted: Any) -> TrainingSpec:
        usual = {
            "command": ("python", "-c", code),
            "workdir": workdir,
            "outdir": tmp_path / "out",
            "mark": f"{workspace_id}/nov21/3/{uuid.uuid4().hex[:8]}",
            "timeout_s": 30.0,
            "budget_s": 5.0,
            "seed": 42,
            "scoring": Scoring(kind="stdout", name="val_bpb"),
        }
        return TrainingSpec(**{**usual, **wanted})

    return make


@pytest.fixture
def guard(workdir: Path, workspace_id: str) -> Callable[..., CommandSpec]:
    """A spec of a command that is not scored, running *code* in Python, or *command*."""

    def make(code: str = "", **wanted: Any) -> CommandSpec:
        usual = {
            "command": ("python", "-c", code),
            "workdir": workdir,
            "mark": f"{workspace_id}/nov21/3/{uuid.uuid4().hex[:8]}",
            "timeout_s": 30.0,
        }
        return CommandSpec(**{**usual, **wanted})

    return make


@pytest.fixture
def dies_within() -> Callable[[int, float], bool]:
    """Tells whether a process is gone, or only waits to be collected, before so many seconds are over."""

    def wait(pid: int, seconds: float) -> bool:
        ends = time.monotonic() + seconds
        while True:
            try:
                if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                    return True
            except psutil.NoSuchProcess:
                return True
            if time.monotonic() >= ends:
                return False
            time.sleep(0.01)

    return wait


@pytest.fixture
def pid_in() -> Callable[[Path], int]:
    """Waits for a process to write its pid into a file, and gives it."""

    def wait(path: Path) -> int:
        ends = time.monotonic() + 10
        while time.monotonic() < ends:
            if path.exists() and (text := path.read_text()).endswith("\n"):
                return int(text)
            time.sleep(0.01)
        raise AssertionError(f"no pid came in {path.name}")

    return wait
