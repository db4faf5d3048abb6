"""Commands and trainings with a view: all that a sandbox must not change, and what it must."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from trainer.errors import CannotStart
from trainer.marks import find_marked, kill_marked
from trainer.process import machine, run_command, spawn_service, start_command, start_training
from trainer.sandbox.plan import Limits, Machine, View
from trainer.spec import CommandSpec, Scoring, TrainingSpec

BLOCK = "print('---'); print('val_bpb: 1.25'); print('peak_vram_mb: 0.0')"
Make = Callable[..., CommandSpec]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def command(work: Path) -> Make:
    def make(code: str = "", *words: str, **wanted: object) -> CommandSpec:
        usual = {
            "command": ("python", "-c", code, *words),
            "workdir": work,
            "mark": f"{uuid.uuid4().hex}/nov21/3/x",
            "timeout_s": 20.0,
            "view": View(mode="required"),
        }
        return CommandSpec(**{**usual, **wanted})  # type: ignore[arg-type]

    return make


def as_training(spec: CommandSpec, outdir: Path) -> TrainingSpec:
    return TrainingSpec(
        command=spec.command,
        workdir=spec.workdir,
        mark=spec.mark,
        timeout_s=spec.timeout_s,
        view=spec.view,
        outdir=outdir,
        budget_s=1.0,
        seed=1,
        scoring=Scoring(kind="stdout", name="val_bpb"),
    )


async def until(comes: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not comes():  # noqa: ASYNC110 - another process does it
            await asyncio.sleep(0.01)


# ---------------------------------------------------------------- what stays as it is


@pytest.mark.parametrize(
    ("code", "outcome", "exit_code"),
    [
        (BLOCK, "scored", 0),
        ("import sys; sys.exit(3)", "crash", 3),
        ("import os; os.kill(os.getpid(), 11)", "crash", 128 + signal.SIGSEGV),
        ("import os; os.kill(os.getpid(), 9)", "oom", 128 + signal.SIGKILL),
        ("bytearray(2**40)", "oom", 1),
        ("import time; time.sleep(60)", "timeout", -signal.SIGKILL),
    ],
)
@pytest.mark.parametrize("confined", [True, False])
async def test_a_training_ends_as_it_does_without(
    here: Machine, command: Make, tmp_path: Path, code: str, outcome: str, exit_code: int, confined: bool
) -> None:
    slow = {"timeout_s": 0.7} if outcome == "timeout" else {}
    spec = command(code, **slow) if confined else command(code, view=None, **slow)
    result = await start_training(as_training(spec, tmp_path / "out")).wait()
    by_signal = not confined and exit_code > 128
    assert (result.outcome, result.exit_code) == (outcome, 128 - exit_code if by_signal else exit_code)
    assert result.score == (1.25 if outcome == "scored" else None)
    assert find_marked(spec.mark) == []


async def test_input_output_and_descriptors_go_through(here: Machine, command: Make) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        code = (
            "import os, sys; os.write(int(sys.argv[1]), sys.stdin.buffer.read())\n"
            "print('out'); print('err', file=sys.stderr)"
        )
        spec = command(code, str(theirs.fileno()), stdin="the input", pass_fds=(theirs.fileno(),))
        ended = await run_command(spec)
        assert sorted(ended.tail.split()) == ["err", "out"]
        assert ours.recv(100) == b"the input"


async def test_what_it_makes_in_its_folder_stays_and_is_ours(here: Machine, command: Make, work: Path) -> None:
    await run_command(command("open('made', 'w').write('x'); import os; os.mkdir('artifacts')"))
    assert (work / "made").read_text() == "x" and (work / "artifacts").is_dir()
    assert (work / "made").stat().st_uid == os.getuid()


async def test_processes_inside_are_found_by_their_mark_and_killed(here: Machine, command: Make, work: Path) -> None:
    """As the next loop does with what an earlier one left."""
    spec = command("import os, time; os.fork(); open('up', 'a').write('x'); time.sleep(60)")
    running = start_command(spec)
    await until(lambda: (work / "up").exists() and len((work / "up").read_text()) == 2)
    inside = set(find_marked(spec.mark)) - {running.pid}
    assert len(inside) >= 3  # bubblewrap's first process, and the two
    assert set(kill_marked(spec.mark.split("/", maxsplit=1)[0])) >= inside
    assert (await running.wait()).exit_code == -9
    assert find_marked(spec.mark) == []


async def test_a_stop_leaves_nothing(here: Machine, command: Make, work: Path) -> None:
    spec = command(
        "import os, signal, time\nfor n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\n"
        "if os.fork() == 0:\n    os.setsid()\n    os.fork()\nopen('up', 'w').close(); time.sleep(60)"
    )
    running = start_command(spec)
    await until((work / "up").exists)
    began = time.monotonic()
    await running.stop()
    assert time.monotonic() - began < 2
    assert find_marked(spec.mark) == [] and not psutil.pid_exists(running.pid)


async def test_memory_is_measured_inside(here: Machine, command: Make, tmp_path: Path) -> None:
    spec = command(f"x = bytearray(150 * 2**20); x[::4096] = x[::4096]; import time; time.sleep(1); {BLOCK}")
    result = await start_training(as_training(spec, tmp_path / "out")).wait()
    assert result.peak_memory_mb is not None and 150 < result.peak_memory_mb < 260


@pytest.mark.parametrize("level", ["bubblewrap", "landlock"])
def test_nothing_of_it_survives_who_started_it(here: Machine, work: Path, level: str) -> None:
    """Killed by SIGKILL, with no chance to put anything in order."""
    code = f"""
import asyncio
from dataclasses import replace
from pathlib import Path
from trainer.process import machine, start_command
from trainer.sandbox.plan import View
from trainer.spec import CommandSpec
async def main():
    beat = "import time\\nwhile True: open('beat', 'a').write('x'); time.sleep(0.01)"
    spec = CommandSpec(command=("python", "-c", beat), workdir=Path({str(work)!r}), mark="a/b/0/{uuid.uuid4().hex}",
                       timeout_s=60, view=View())
    here = machine() if {level == "bubblewrap"} else replace(machine(), bwrap="")
    await start_command(spec, here=here).wait()
asyncio.run(main())
"""
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen((sys.executable, "-c", code), env=environ) as starter:
        while not (work / "beat").exists():
            time.sleep(0.01)
            assert starter.poll() is None
        starter.kill()
    time.sleep(0.2)
    before = (work / "beat").stat().st_size
    time.sleep(0.2)
    assert (work / "beat").stat().st_size == before


# ---------------------------------------------------------------- what a view shows and hides


async def test_folders_are_shown_hidden_and_shown_again_below(here: Machine, command: Make, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name in ("open/file", "closed/file", "closed/inner/file"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text(name)
    view = View(mode="required", read=(data, data / "closed" / "inner"), hidden=(data / "closed",))
    code = f"""
import os
for name in ("open/file", "closed/file", "closed/inner/file"):
    print(os.path.exists("{data}/" + name))
for name in ("open", "closed", "closed/inner"):
    try:
        open("{data}/" + name + "/new", "w")
    except OSError as error:
        print(error.errno)
"""
    assert (await run_command(command(code, view=view))).tail.split() == ["True", "False", "True", "30", "30", "30"]


async def test_a_veil_is_seen_in_the_place_of_a_file(here: Machine, command: Make, tmp_path: Path) -> None:
    (tmp_path / "shown").write_text("nothing")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("the text")
    view = View(mode="required", read=(tmp_path / "data",), veils=((tmp_path / "shown", tmp_path / "data" / "file"),))
    assert (await run_command(command(f"print(open('{tmp_path}/data/file').read())", view=view))).tail == "nothing"


async def test_a_home_holds_what_is_put_there_and_nothing_else(here: Machine, command: Make, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".tool").mkdir(parents=True)
    (home / "private").write_text("x")
    view = View(mode="required", home=home, write=(home / ".tool",))
    code = (
        "import os; from pathlib import Path\n"
        "open(Path.home() / '.tool' / 'new', 'w'); print(sorted(os.listdir(Path.home())))"
    )
    ended = await run_command(command(code, view=view))
    assert ended.tail == "['.tool']"
    assert (home / ".tool" / "new").exists()


@pytest.mark.parametrize(("allowed", "said"), [(True, "connected"), (False, "refused")])
async def test_the_network_is_there_where_it_is_allowed(here: Machine, command: Make, allowed: bool, said: str) -> None:
    code = """
import socket, sys
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=5)
    print("connected")
except OSError:
    print("refused")
"""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        ended = await run_command(command(code, port, view=View(mode="required", network=allowed)))
    assert ended.tail == said


async def test_a_program_of_the_person_is_shown_and_its_folder_is_not(
    here: Machine, command: Make, tmp_path: Path
) -> None:
    (tmp_path / "tools").mkdir()
    program = tmp_path / "tools" / "train"
    program.write_text('#!/bin/sh\nls "$(dirname "$0")"; echo ran\n')
    program.chmod(0o755)
    (tmp_path / "tools" / "private").write_text("x")
    assert (await run_command(command(command=(str(program),)))).tail.split() == ["train", "ran"]


async def test_nothing_of_one_start_is_there_in_the_next(here: Machine, command: Make) -> None:
    code = (
        "import os; places = ('/tmp', '/dev/shm'); print([os.listdir(place) for place in places])\n"
        "[open(place + '/x', 'w') for place in places]"
    )
    said = [(await run_command(command(code))).tail for _ in range(2)]
    assert said[0] == said[1] and "'x'" not in said[1]


# ---------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("code", "limits", "cut", "said"),
    [
        (
            "import os, time\n[bytearray(40 * 2**20) for _ in range(1)]\nfor _ in range(4):\n"
            "    if os.fork() == 0: break\nx = bytearray(40 * 2**20); x[::4096] = x[::4096]; time.sleep(20)",
            Limits(memory_mb=120),
            "memory",
            "of memory, the limit is 120",
        ),
        (
            "import threading, time\n"
            "for _ in range(60): threading.Thread(target=time.sleep, args=(20,), daemon=True).start()\ntime.sleep(20)",
            Limits(processes=30),
            "processes",
            "processes and threads, the limit is 30",
        ),
        (
            "import time\nfor n in range(4): open(f'{time.time()}', 'wb').write(bytes(9 * 2**20))\ntime.sleep(20)",
            Limits(disk_mb=16),
            "disk",
            "its work folder had",
        ),
    ],
)
async def test_what_uses_too_much_together_is_killed_with_the_reason(
    here: Machine, command: Make, tmp_path: Path, code: str, limits: Limits, cut: str, said: str
) -> None:
    """Each process by itself stays below the limit."""
    uncounted = replace(here, counts_processes=False)
    spec = command(code, view=View(mode="required", limits=limits))
    ended = await run_command(spec, here=uncounted)
    assert (ended.cut, ended.exit_code) == (cut, -9) and said in ended.why
    result = await start_training(as_training(spec, tmp_path / "out"), here=uncounted).wait()
    assert result.outcome == ("oom" if cut == "memory" else "crash") and said in result.why


async def test_memory_that_many_share_counts_once(here: Machine, command: Make) -> None:
    """Workers that fork off a large parent hold what it holds, together."""
    code = """
import os, time
x = bytearray(60 * 2**20); x[::4096] = x[::4096]
children = []
for _ in range(6):
    child = os.fork()
    if child == 0:
        time.sleep(1)
        os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
print("done")
"""
    ended = await run_command(command(code, view=View(mode="required", limits=Limits(memory_mb=160))))
    assert (ended.tail, ended.why) == ("done", "")


# ---------------------------------------------------------------- modes


async def test_required_is_not_started_where_it_cannot_be_had(here: Machine, command: Make, work: Path) -> None:
    less = replace(here, bwrap="", bwrap_problem="it is not installed")
    with pytest.raises(CannotStart, match=r"it is not installed.*apt-get install bubblewrap.*sandbox.mode = 'best'"):
        start_command(command("open('ran', 'w')"), here=less)
    assert not (work / "ran").exists()


async def test_best_starts_with_what_there_is(here: Machine, command: Make, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    spec = command("import tempfile; print(tempfile.gettempdir())", view=View(scratch=scratch))
    nothing = replace(here, bwrap="", landlock=0)
    assert (await run_command(spec, here=nothing)).exit_code == 0
    if here.landlock:
        assert (await run_command(spec, here=replace(here, bwrap=""))).tail == str(scratch)
        assert not scratch.exists()  # it goes with the command


async def test_what_must_not_have_a_network_is_not_started_with_one(here: Machine, command: Make) -> None:
    """A view takes the network as far as that is possible; a command that must not have one says so itself."""
    if not here.landlock:
        pytest.skip("no landlock here")
    less = replace(here, bwrap="", network_problem="refused")
    assert (await run_command(command("print(1)", view=View()), here=less)).tail == "1"
    here_it_can = machine().network_problem == ""
    if here_it_can:
        assert (await run_command(command("print(1)", view=View(), network=False), here=less)).tail == "1"


# ---------------------------------------------------------------- programs of ours that are confined too


def test_a_service_can_be_confined_and_spoken_to(here: Machine, work: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    code = (
        f"import os; print(input(), os.path.exists('{tmp_path}/secret'), os.path.exists('{work}'), flush=True); input()"
    )
    reads, writes = os.pipe()
    env = {"PATH": os.environ["PATH"]}
    with spawn_service(
        (sys.executable, "-c", code), work, env, writes, view=View(mode="required"), stdin=subprocess.PIPE
    ) as service:
        os.close(writes)
        assert service.stdin is not None
        service.stdin.write(b"hello\n")
        service.stdin.flush()
        with os.fdopen(reads, "rb") as output:
            assert output.readline() == b"hello False True\n"
            service.terminate()
            assert output.read() == b""  # nothing of it has the pipe any more
