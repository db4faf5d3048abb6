"""Real training is cut off by the death of the loop: nothing of it lives on, and it is trained again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from eventstore import events as e
from eventstore.home import Home
from eventstore.store import Store
from tests.loop.story import git
from trainer.process import machine

SLEEP = ["sleep", f"4{os.getpid()}"]
"""What the grandchild is, told apart from that of a test beside this one."""

FUTURE = "from __future__ import annotations\n"
GRANDCHILD = f"{FUTURE}import subprocess as _subprocess\n_subprocess.Popen({SLEEP!r}, start_new_session=True)\n"


def environ(folder: Path) -> dict[str, str]:
    return {**os.environ, "NIGHTSHIFT_CACHE": str(folder / "cache")}


def nightshift(folder: Path, *args: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "nightshift", "-C", str(folder / "workspace"), *args)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """The real train.py on a small corpus of its own, which starts a process that leaves its session."""
    subprocess.run((*nightshift(tmp_path, "init"), str(tmp_path / "workspace")), check=True, capture_output=True)
    folder = tmp_path / "workspace"
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number in range(40):
        lines = (f"def f{number}_{i}(x):\n    return x * {i} + {number}\n" for i in range(60))
        (corpus / f"{number}.py").write_text("\n".join(lines))
    train = (folder / "train.py").read_text()
    assert FUTURE in train
    (folder / "train.py").write_text(train.replace(FUTURE, GRANDCHILD, 1))
    prepare = (folder / "prepare.py").read_text()
    assert 'CORPUS = "stdlib"' in prepare
    (folder / "prepare.py").write_text(prepare.replace('CORPUS = "stdlib"', f"CORPUS = {str(corpus)!r}"))
    git(folder, "commit", "-qam", "starts a process of its own")
    subprocess.run((sys.executable, "prepare.py"), check=True, cwd=folder, env=environ(tmp_path), capture_output=True)
    return folder


def events_of(folder: Path) -> list[e.Data | e.UnknownEvent]:
    with Store.open(Home(folder).log_path) as log:
        return [event.data for event in log.stream()]


def sleepers() -> set[int]:
    return {p.pid for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == SLEEP}


def wait_for(what: str, holds: object) -> None:
    deadline = time.monotonic() + 60
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"waited a minute for {what}"
        time.sleep(0.05)


@pytest.mark.parametrize("mode", ["best", "off"])
def test_after_a_kill_no_process_lives_and_the_experiment_is_run_again(
    workspace: Path, tmp_path: Path, mode: str
) -> None:
    """With bubblewrap everything dies with the loop, without it the next loop kills what left the session."""
    settings = ("--set", "experiment.budget_s=2", "--set", f"sandbox.mode={mode}")
    asked = nightshift(tmp_path, "start", "night", "--experiments", "1", *settings)
    subprocess.run(asked, check=True, capture_output=True, env=environ(tmp_path))
    serve = nightshift(tmp_path, "loop", "--until-idle")
    loop = subprocess.Popen(serve, stdout=subprocess.DEVNULL, env=environ(tmp_path))
    started = lambda: [x for x in events_of(workspace) if isinstance(x, e.TrainingStarted)]  # noqa: E731
    wait_for("the first training", started)
    child = psutil.Process(started()[0].pid)
    wait_for("the grandchild", sleepers)
    grandchildren = sleepers()
    loop.send_signal(signal.SIGKILL)
    loop.wait()
    wait_for("the child's death", lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    if mode == "best" and machine().bwrap:
        wait_for("the grandchild's death", lambda: not grandchildren & sleepers())
    else:
        assert grandchildren <= sleepers(), "without a loop nobody reaches what left the session"

    subprocess.run(serve, check=True, stdout=subprocess.DEVNULL, env=environ(tmp_path), timeout=100)
    assert not grandchildren & {p.pid for p in psutil.process_iter()}
    assert not sleepers()
    log = events_of(workspace)
    outcomes = [x.outcome for x in log if isinstance(x, e.TrainingFinished) and x.experiment == 0]
    assert outcomes == ["lost", "scored"]
    assert [x.experiment for x in log if isinstance(x, e.ExperimentDecided)] == [0, 1]


def test_stop_now_kills_the_training_within_a_second(workspace: Path, tmp_path: Path) -> None:
    asked = nightshift(tmp_path, "start", "night", "--set", "experiment.budget_s=60")
    subprocess.run(asked, check=True, capture_output=True, env=environ(tmp_path))
    serve = nightshift(tmp_path, "loop", "--until-idle")
    loop = subprocess.Popen(serve, stdout=subprocess.DEVNULL, env=environ(tmp_path))
    wait_for("the grandchild", sleepers)
    subprocess.run(nightshift(tmp_path, "stop", "--now"), check=True, capture_output=True)
    assert loop.wait(timeout=60) == 0
    with Store.open(Home(workspace).log_path) as log:
        events = list(log.stream())
    asked_at = next(x.at for x in events if isinstance(x.data, e.RunStopRequested))
    ended_at = next(x.at for x in events if isinstance(x.data, e.TrainingFinished))
    kinds = [x.type for x in events][-4:]
    assert kinds[0] in ("training.finished", "experiment.abandoned") and kinds[-1] == "loop.stopped"
    assert not sleepers()
    print(f"stop asked {asked_at}, training ended {ended_at}")


def test_a_loop_asked_to_end_leaves_the_run_open_and_the_next_one_goes_on(workspace: Path, tmp_path: Path) -> None:
    """SIGTERM kills the children and closes the training as stopped, which does not count as lost."""
    asked = nightshift(tmp_path, "start", "night", "--experiments", "1", "--set", "experiment.budget_s=2")
    subprocess.run(asked, check=True, capture_output=True, env=environ(tmp_path))
    serve = nightshift(tmp_path, "loop", "--until-idle")
    loop = subprocess.Popen(serve, stdout=subprocess.DEVNULL, env=environ(tmp_path))
    wait_for("the grandchild", sleepers)
    loop.send_signal(signal.SIGTERM)
    assert loop.wait(timeout=20) == 0
    assert not sleepers()
    assert [x.outcome for x in events_of(workspace) if isinstance(x, e.TrainingFinished)] == ["stopped"]
    subprocess.run(serve, check=True, stdout=subprocess.DEVNULL, env=environ(tmp_path), timeout=100)
    outcomes = [x.outcome for x in events_of(workspace) if isinstance(x, e.TrainingFinished) and x.experiment == 0]
    assert outcomes == ["stopped", "scored"]
