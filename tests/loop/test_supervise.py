"""`nightshift up`: what dies is started again, what is to end ends, and no secret goes where it is not needed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from eventstore.home import Home
from eventstore.store import Store
from loop.supervise import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    WELL_S,
    Again,
    Program,
    Supervisor,
    after_death,
    end_words,
    environment_of,
)

ENV = {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1"}
ROOT = Path(__file__).parents[2]
UNTIL_TOLD = (
    "import signal, sys, time\n"
    "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
    "signal.signal(signal.SIGINT, lambda *_: sys.exit(0))\n"
    "print('ready'); time.sleep(60)"
)


# ---------------------------------------------------------------- what to do


def test_pauses_grow_while_it_dies_young_and_begin_anew_once_it_was_well() -> None:
    deaths, pauses = 0, []
    for _ in range(9):
        again = after_death(deaths, 0.1)
        deaths = again.deaths
        pauses.append(again.pause_s)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60] and pauses[-1] == LONGEST_PAUSE_S
    assert after_death(deaths, WELL_S) == Again(0, FIRST_PAUSE_S)
    assert after_death(10_000, 0.0).pause_s == LONGEST_PAUSE_S


def test_neither_program_sees_the_secrets_of_the_other() -> None:
    environ = {
        "PATH": "/bin",
        "SLACK_BOT_TOKEN": "xoxb-1",
        "SLACK_API_URL": "http://127.0.0.1",
        "ANTHROPIC_API_KEY": "k",
        "MY_PASSWORD": "p",
        "GIT_SSH_COMMAND": "ssh",
    }
    assert set(environment_of("loop", environ)) == {"PATH", "ANTHROPIC_API_KEY", "MY_PASSWORD", "GIT_SSH_COMMAND"}
    assert set(environment_of("bot", environ)) == {"PATH", "SLACK_BOT_TOKEN", "SLACK_API_URL", "GIT_SSH_COMMAND"}


def test_a_program_does_not_show_its_environment() -> None:
    assert "xoxb" not in repr(Program("bot", ("x",), {"SLACK_BOT_TOKEN": "xoxb-1"}))


@pytest.mark.parametrize(
    ("code", "words"),
    [(1, "it ended with exit code 1"), (-9, "it was killed by SIGKILL"), (-200, "it was killed by signal 200")],
)
def test_an_end_has_words(code: int, words: str) -> None:
    assert end_words("it", code) == words


# ---------------------------------------------------------------- doing it


def program(name: str, code: str) -> Program:
    return Program(name, (sys.executable, "-c", code), ENV)


def supervisor(said: list[str], folder: Path, *programs: Program, grace_s: float = 10) -> Supervisor:
    return Supervisor(programs, folder, said.append, grace_s=grace_s, pause_scale=0.01)


async def until(said: list[str], text: str, times: int = 1) -> None:
    async with asyncio.timeout(60):
        while sum(text in line for line in said) < times:  # noqa: ASYNC110 - the lines come from other processes
            await asyncio.sleep(0.01)


async def test_one_that_dies_is_started_again_and_the_other_does_not_notice(tmp_path: Path) -> None:
    said: list[str] = []
    up = supervisor(said, tmp_path, program("loop", UNTIL_TOLD), program("bot", "print('born'); raise SystemExit(7)"))
    running = asyncio.create_task(up.run())
    await until(said, "bot  | born", 3)
    up.stop()
    await running
    assert said.count("loop | ready") == 1
    told = [line for line in said if "exit code 7" in line]
    assert told[0] == "bot  | it ended with exit code 7; starting it again in 1 s"
    assert told[1] == "bot  | it ended with exit code 7; starting it again in 2 s"


async def test_both_are_told_with_the_same_signal_and_waited_for(tmp_path: Path) -> None:
    said: list[str] = []
    code = UNTIL_TOLD.replace(
        "signal.SIGINT, lambda *_: sys.exit(0)", "signal.SIGINT, lambda *_: (print('INT'), sys.exit(0))"
    )
    up = supervisor(said, tmp_path, program("loop", code), program("bot", code))
    running = asyncio.create_task(up.run())
    await until(said, "ready", 2)
    up.stop(signal.SIGINT)
    assert await running == 0
    assert sorted(line for line in said if "INT" in line) == ["bot  | INT", "loop | INT"]


async def test_one_that_does_not_end_is_killed_and_the_exit_code_says_so(tmp_path: Path) -> None:
    said: list[str] = []
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready'); time.sleep(60)"
    up = supervisor(said, tmp_path, program("loop", deaf), grace_s=0.1)
    running = asyncio.create_task(up.run())
    await until(said, "ready")
    up.stop()
    assert await running == 1
    assert said[-1] == "loop | it was killed by SIGKILL"


async def test_told_twice_passes_it_on_twice(tmp_path: Path) -> None:
    said: list[str] = []
    stubborn = (
        "import signal, sys, time\n"
        "def told(*_):\n"
        "    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        "    print('not yet')\n"
        "signal.signal(signal.SIGTERM, told)\n"
        "print('ready')\n"
        "while True: time.sleep(60)"
    )
    up = supervisor(said, tmp_path, program("loop", stubborn))
    running = asyncio.create_task(up.run())
    await until(said, "ready")
    up.stop()
    await until(said, "not yet")
    up.stop()
    assert await running == 0 and said[-1] == "loop | ended"


async def test_a_stop_in_the_pause_before_a_new_start_ends_at_once(tmp_path: Path) -> None:
    said: list[str] = []
    up = Supervisor([program("bot", "raise SystemExit(1)")], tmp_path, said.append)
    running = asyncio.create_task(up.run())
    await until(said, "starting it again")
    up.stop()
    async with asyncio.timeout(60):
        assert await running == 0


async def test_a_program_that_cannot_be_started_is_tried_again(tmp_path: Path) -> None:
    said: list[str] = []
    up = supervisor(said, tmp_path, Program("loop", ("/no/such/program",), ENV))
    running = asyncio.create_task(up.run())
    await until(said, "cannot start '/no/such/program'", 2)
    up.stop()
    await running


def test_up_without_slack_runs_the_loop_alone_until_it_is_told_to_end(tmp_path: Path) -> None:
    """The real command, with a real loop."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SLACK_")}
    init = (sys.executable, "-m", "nightshift", "init", str(tmp_path / "w"))
    subprocess.run(init, cwd=ROOT, env=environ, check=True)
    up = subprocess.Popen(
        (sys.executable, "-m", "nightshift", "-C", str(tmp_path / "w"), "up"),
        cwd=ROOT,
        env={**environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert up.stdout is not None
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not has_started(tmp_path / "w"):
        time.sleep(0.05)
    up.send_signal(signal.SIGINT)
    said = up.stdout.read()
    up.stdout.close()
    assert up.wait(30) == 0, said
    assert "the loop runs alone" in said and "loop | The loop has stopped (received SIGINT)." in said


@pytest.fixture
def training_workspace(tmp_path: Path) -> Path:
    """A workspace whose training does not end."""
    folder = tmp_path / "w"
    folder.mkdir()
    (folder / "model.py").write_text("import time\nX = 1\ntime.sleep(60)\n")
    (folder / "nightshift.toml").write_text(
        '[objective]\nname = "cost"\ndirection = "minimize"\neditable = ["model.py"]\n'
        '[experiment]\ncommand = ["python", "model.py"]\nbudget_s = 50\ntimeout_s = 60\n'
        "[sweep]\nX = { low = 0, high = 8 }\n"
    )
    for args in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-q", "-m", "a program")):
        command = ("git", "-c", "user.name=A", "-c", "user.email=a@example.org", *args)
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


def test_a_loop_that_is_killed_takes_its_training_with_it_and_comes_back(training_workspace: Path) -> None:
    """The real command; nothing of it is left in the end."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SLACK_")}
    words = (sys.executable, "-m", "nightshift", "-C", str(training_workspace))
    subprocess.run((*words, "start", "nov21"), cwd=ROOT, env=environ, check=True, capture_output=True)
    up = subprocess.Popen((*words, "up"), cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True)
    try:
        training = training_below(up.pid)
        (loop,) = [each for each in psutil.Process(up.pid).children() if each.cmdline()[-1] == "loop"]
        loop.kill()
        assert training not in psutil.wait_procs([training], timeout=10)[1]
        again = training_below(up.pid)
        everything = [again, *psutil.Process(up.pid).children(recursive=True)]
        began = time.monotonic()
        up.terminate()
        said, _ = up.communicate(timeout=30)
        assert up.returncode == 0 and time.monotonic() - began < 10, said
    finally:
        up.kill()
        up.wait()
    assert psutil.wait_procs(everything, timeout=5)[1] == []
    assert "loop | it was killed by SIGKILL; starting it again in 1 s" in said


def training_below(pid: int) -> psutil.Process:
    """The training itself, not what holds it, among all that came of a process."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.cmdline()[1:] == ["model.py"]:
                    return process
        time.sleep(0.02)
    raise AssertionError("no training began")


def has_started(workspace: Path) -> bool:
    path = Home.at(workspace).log_path
    if not path.exists():
        return False
    with Store.open(path, check=False) as log:
        return any(event.type == "loop.started" for event in log.stream())
