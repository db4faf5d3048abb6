"""A loop as a person starts it, in a process of its own, and what a person does beside it."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from eventstore import events as e
from eventstore.home import Home
from eventstore.store import Store
from tests.night.story import ROOT

PATIENCE_S = 60.0


def nightshift(folder: Path, *words: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "nightshift", "-C", str(folder), *words)


def environ(more: Mapping[str, str] | None = None) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **(more or {})}


@contextmanager
def loop(folder: Path, more: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A loop that serves until the queue is empty. It is killed at the end, if it still runs."""
    process = subprocess.Popen(
        nightshift(folder, "loop", "--until-idle"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=environ(more),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def serve(folder: Path, more: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Serve until the queue is empty, or it ends otherwise: the exit code and what was said."""
    with loop(folder, more) as process:
        said, _ = process.communicate(timeout=PATIENCE_S)
        return process.returncode, said


def ask(folder: Path, *words: str) -> str:
    """What a person types, which must work."""
    done = subprocess.run(
        nightshift(folder, *words), capture_output=True, text=True, check=False, cwd=ROOT, env=environ()
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def facts(folder: Path) -> list[e.Data | e.UnknownEvent]:
    with Store.open(Home(folder).log_path, create=False, check=False) as log:
        return [event.data for event in log.stream()]


def wait_for(what: str, holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, f"waited a minute for {what}"
        time.sleep(0.02)


def wait_for_fact(folder: Path, kind: type[e.Data], experiment: int | None = None, count: int = 1) -> None:
    def holds() -> bool:
        found = [x for x in facts(folder) if isinstance(x, kind)]
        return sum(experiment is None or getattr(x, "experiment", None) == experiment for x in found) >= count

    wait_for(kind.TYPE, holds)


def paused_why(folder: Path) -> str:
    """Why the run was paused last; waits for it."""
    wait_for_fact(folder, e.RunPaused)
    return [x for x in facts(folder) if isinstance(x, e.RunPaused)][-1].why


def slow_git(folder: Path, word: str, seconds: float) -> dict[str, str]:
    """An environment in which the git command *word* takes longer, as long as *folder*/slow is there."""
    real = shutil.which("git")
    folder.mkdir()
    (folder / "slow").touch()
    wrapper = folder / "git"
    wrapper.write_text(
        "#!/bin/sh\n"
        f'case " $* " in *" {word} "*)\n'
        f"  [ ! -e {folder}/slow ] || {{ touch {folder}/began; sleep {seconds:g}; }};;\nesac\n"
        f'exec {real} "$@"\n'
    )
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
