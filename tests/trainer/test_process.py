"""Real commands: what they print, what they leave behind, and that nothing of them outlives its end."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

import trainer
from trainer.errors import CannotStart, WouldNotDie
from trainer.files import KEPT_BYTES, LOG_NAME, read_result
from trainer.marks import find_marked, kill_marked
from trainer.process import (
    Ended,
    _on_exit_in_thread,
    _result,
    find_program,
    network_cut_problem,
    run_command,
    start_command,
    start_training,
)
from trainer.spec import CommandSpec, Result, Scoring, TrainingSpec
from trainer.summary import MetricStream

REPOSITORY = Path(trainer.__file__).parents[1]
Make = Callable[..., TrainingSpec]
MakeGuard = Callable[..., CommandSpec]
Dies = Callable[[int, float], bool]
PidIn = Callable[[Path], int]

BLOCK = "print('---'); print('val_bpb: 0.5'); print('peak_vram_mb: 123.4'); print('depth: 8')"
DAEMON = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with open("daemon.pid", "w") as file:
            print(os.getpid(), file=file)
        time.sleep(60)
    os._exit(0)
while not os.path.exists("daemon.pid"):
    time.sleep(0.01)
"""


async def train(spec: TrainingSpec) -> Result:
    return await start_training(spec).wait()


async def test_a_training_that_prints_a_block_is_scored_and_kept(training: Make) -> None:
    spec = training(f"print('hello'); {BLOCK}")
    running = start_training(spec)
    assert abs(running.pid_started - psutil.Process().create_time()) < 3600
    result = await running.wait()
    assert (result.outcome, result.score, result.exit_code, result.why) == ("scored", 0.5, 0, "")
    assert result.metrics == {"val_bpb": 0.5, "peak_vram_mb": 123.4, "depth": 8}
    assert result.peak_memory_mb == 123.4
    assert result.nonce == spec.nonce
    assert 0 < result.seconds < 10
    assert result.tail.startswith("hello\n---\nval_bpb: 0.5")
    assert (spec.outdir / LOG_NAME).read_text() == "hello\n---\nval_bpb: 0.5\npeak_vram_mb: 123.4\ndepth: 8\n"
    assert read_result(spec.outdir) == result == await running.wait()


async def test_a_crash_tells_its_exception_and_both_streams_are_kept_in_order(training: Make) -> None:
    result = await train(training("import sys; print('out'); print('err', file=sys.stderr); raise ValueError('shape')"))
    assert (result.outcome, result.exit_code) == ("crash", 1)
    assert result.why == "exit code 1: ValueError: shape"
    assert result.tail.startswith("out\nerr\nTraceback")


async def test_a_kill_by_someone_else_is_taken_for_the_kernel_short_of_memory(training: Make) -> None:
    result = await train(training("import os; os.kill(os.getpid(), 9)"))
    assert (result.outcome, result.exit_code) == ("oom", -9)


async def test_the_time_limit_kills_the_whole_tree(training: Make, workdir: Path, dies_within: Dies) -> None:
    """A grandchild in a session of its own, without its parent and deaf to SIGTERM, dies as well."""
    spec = training(f"{DAEMON}\nprint('training', flush=True)\ntime.sleep(60)", timeout_s=1.0)
    result = await train(spec)
    assert (result.outcome, result.score) == ("timeout", None)
    assert 1.0 <= result.seconds < 2.0
    assert "1 s" in result.why
    assert dies_within(int((workdir / "daemon.pid").read_text()), 0)
    assert find_marked(spec.mark) == []


async def test_what_a_program_leaves_running_is_killed_and_does_not_hold_up_its_end(
    training: Make, workdir: Path, dies_within: Dies
) -> None:
    """The daemon holds the pipe open; the score counts all the same."""
    result = await train(training(f"{DAEMON}\n{BLOCK}"))
    assert (result.outcome, result.score) == ("scored", 0.5)
    assert result.seconds < 5
    assert dies_within(int((workdir / "daemon.pid").read_text()), 0)


async def test_an_orphan_without_the_mark_dies_if_it_was_seen_as_a_child_before(
    training: Make, workdir: Path, dies_within: Dies
) -> None:
    shell = "env -i setsid sleep 60 & echo $! > orphan.pid; sleep 0.7"
    result = await train(training(command=("sh", "-c", f"sh -c '{shell}'; sleep 0.3; echo 'val_bpb: 1'")))
    assert result.outcome == "scored"
    assert dies_within(int((workdir / "orphan.pid").read_text()), 0)


async def test_stop_takes_well_under_a_second_and_kills_the_tree(
    training: Make, workdir: Path, pid_in: PidIn, dies_within: Dies
) -> None:
    running = start_training(training(f"{DAEMON}\n{BLOCK}\ntime.sleep(60)"))
    daemon = await asyncio.to_thread(pid_in, workdir / "daemon.pid")
    began = time.monotonic()
    await running.stop()
    assert time.monotonic() - began < 0.5
    assert dies_within(daemon, 0)
    result = await running.wait()
    assert (result.outcome, result.score) == ("stopped", None)
    await running.stop()
    assert await running.wait() == result


async def test_stopping_after_the_end_changes_nothing(training: Make) -> None:
    running = start_training(training(BLOCK))
    result = await running.wait()
    await running.stop()
    assert (await running.wait()).outcome == result.outcome == "scored"


async def test_cancelling_a_wait_leaves_the_training_alone(training: Make) -> None:
    running = start_training(training(f"import time; time.sleep(0.3); {BLOCK}"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(running.wait(), 0.05)
    assert (await running.wait()).outcome == "scored"


async def test_the_child_sees_no_secret(training: Make, workdir: Path) -> None:
    """Neither in its own environment nor in that of any process above it that we start."""
    secrets = dict.fromkeys(("ANTHROPIC_API_KEY", "SLACK_BOT_TOKEN", "AWS_SECRET_ACCESS_KEY", "X_KEY"), "hunter2")
    spec = training("import json, os; json.dump(dict(os.environ), open('env.json', 'w'))", env={"DEPTH": "4"})
    await start_training(spec, environ={**os.environ, **secrets}).wait()
    seen = json.loads((workdir / "env.json").read_text())
    assert "hunter2" not in seen.values()
    assert seen["NIGHTSHIFT_MARK"] == spec.mark
    assert (seen["NIGHTSHIFT_SEED"], float(seen["NIGHTSHIFT_BUDGET_S"]), seen["DEPTH"]) == ("42", 5.0, "4")


@pytest.fixture
def our_input_is_a_pipe() -> Iterator[None]:
    """As if someone could type to us."""
    kept, (read_end, write_end) = os.dup(0), os.pipe()
    os.write(write_end, b"typed")
    os.dup2(read_end, 0)
    yield
    os.dup2(kept, 0)
    for descriptor in (kept, read_end, write_end):
        os.close(descriptor)


@pytest.mark.usefixtures("our_input_is_a_pipe")
async def test_the_child_has_no_input_and_no_descriptor_of_ours(training: Make) -> None:
    spec = training("import os, sys; print(repr(sys.stdin.read()), sorted(map(int, os.listdir('/proc/self/fd')))[:4])")
    assert (await train(spec)).tail == "'' [0, 1, 2, 3]"  # 3 is the folder being listed


async def test_the_child_reads_the_input_it_is_given(guard: MakeGuard) -> None:
    """More than a pipe holds, whether it is read to its end, in part or not at all."""
    text = "ü" * 2**20
    whole = "import sys; data = sys.stdin.buffer.read(); print(len(data), data[-2:].decode())"
    assert (await run_command(guard(whole, stdin=text))).tail == f"{2**21} ü"
    assert (
        await run_command(guard("import sys; print(sys.stdin.buffer.read(2))", stdin=b"\xff\x00"))
    ).tail == r"b'\xff\x00'"
    assert (await run_command(guard("print('deaf')", stdin=text))).tail == "deaf"


async def test_a_secret_that_is_named_reaches_the_child_and_no_other_one(guard: MakeGuard, workdir: Path) -> None:
    environ = {**os.environ, "AGENT_API_KEY": "hunter2", "OTHER_API_KEY": "hunter3"}
    spec = guard("import json, os; json.dump(dict(os.environ), open('env.json', 'w'))", secrets=("AGENT_API_KEY",))
    await run_command(spec, environ=environ)
    seen = json.loads((workdir / "env.json").read_text())
    assert seen["AGENT_API_KEY"] == "hunter2"
    assert "hunter3" not in seen.values()


async def test_python_is_the_interpreter_that_runs_us(training: Make) -> None:
    assert (await train(training("import sys; print(sys.executable)"))).tail == sys.executable


async def test_a_hundred_megabytes_before_the_block_leave_memory_flat(training: Make) -> None:
    line = "step 00123 ( 45.0%) | loss: 3.210 | 12ms | 53,210 tok/s | left 5s"
    code = f"import sys\nfor _ in range(100):\n sys.stdout.write({line!r} * 2**14 + '\\n' * 2**16)\n{BLOCK}"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    spec = training(code)
    result = await train(spec)
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    size_mb = 100 * (len(line) * 2**14 + 2**16) / 2**20
    print(f"{size_mb:.0f} MB in {result.seconds:.2f} s, memory grew by {grown_mb:.1f} MB")
    assert (result.outcome, result.score) == ("scored", 0.5)
    assert size_mb > 100
    assert grown_mb < 16
    assert abs((spec.outdir / LOG_NAME).stat().st_size - 2 * KEPT_BYTES) < 100


async def test_a_long_log_is_cut_in_the_middle_exactly(training: Make) -> None:
    code = "import sys\nsys.stdout.buffer.write(bytes(range(256)) * 12288)"
    spec = training(code)
    await train(spec)
    output = bytes(range(256)) * 12288
    note = b"\n[nightshift: %d bytes are missing here]\n" % (len(output) - 2 * KEPT_BYTES)
    assert (spec.outdir / LOG_NAME).read_bytes() == output[:KEPT_BYTES] + note + output[-KEPT_BYTES:]


async def test_progress_is_seen_while_it_trains(training: Make) -> None:
    running = start_training(
        training("import time; print('\\rstep 7 ( 50.0%) | loss: 2.5', end='', flush=True); time.sleep(60)")
    )
    assert running.progress() is None
    while (progress := running.progress()) is None:  # noqa: ASYNC110 - it is polled, as the screen does
        await asyncio.sleep(0.01)
    assert (progress.step, progress.fraction, progress.loss) == (7, 0.5, 2.5)
    await running.stop()


async def test_without_a_block_memory_is_what_the_tree_was_seen_to_hold(training: Make) -> None:
    """Parent and child hold 64 MiB each; both count."""
    hog = "import time; x = bytearray(2**26); time.sleep(2.5)"  # both are up together on a busy machine too
    code = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {hog!r}])\n{hog}\np.wait()"
    result = await train(training(f"{code}\nprint('val_bpb: 1')\nprint('peak_vram_mb: 5')"))
    assert result.outcome == "scored"
    assert result.peak_memory_mb is not None
    assert 128 < result.peak_memory_mb < 400


async def test_a_claim_of_no_device_memory_does_not_hide_what_the_tree_held(training: Make) -> None:
    hog = "import time; x = bytearray(2**26); time.sleep(0.5)"
    result = await train(training(f"{hog}\nprint('---'); print('val_bpb: 1'); print('peak_vram_mb: 0.0')"))
    assert result.peak_memory_mb is not None
    assert result.peak_memory_mb > 64


async def test_a_score_file_is_read_and_one_left_by_an_earlier_run_is_not(training: Make, workdir: Path) -> None:
    (workdir / "score.json").write_text('{"test": {"acc": 0.9}}')
    scoring = Scoring(kind="json", name="acc", file="score.json", key="test.acc")
    assert (await train(training("pass", scoring=scoring))).outcome == "no_metric"
    result = await train(training("open('score.json', 'w').write('{\"test\": {\"acc\": 0.5}}')", scoring=scoring))
    assert (result.outcome, result.score) == ("scored", 0.5)


@pytest.mark.parametrize(
    ("code", "outcome", "score"),
    [("pass", "scored", 1.0), ("raise SystemExit(3)", "scored", 0.0), ("import os; os.abort()", "crash", None)],
)
async def test_a_command_that_must_pass_is_scored_by_its_exit_code(
    training: Make, code: str, outcome: str, score: float | None
) -> None:
    result = await train(training(code, scoring=Scoring(kind="pass", name="tests")))
    assert (result.outcome, result.score) == (outcome, score)


async def test_a_start_that_fails_says_why_and_leaves_no_result(
    training: Make, tmp_path: Path, workdir: Path, workspace_id: str
) -> None:
    (workdir / "no_interpreter").write_text("x")
    (workdir / "no_interpreter").chmod(0o755)
    (workdir / "not_executable").write_text("x")
    for command, folder, why in (
        (("no-such-program", "x"), workdir, "no such program"),
        (("./not_executable",), workdir, "no such program"),
        (("./no_interpreter",), workdir, "Exec format error"),
        (("python",), tmp_path / "gone", "gone is missing"),
    ):
        spec = training(command=command, workdir=folder)
        with pytest.raises(CannotStart, match=why) as refused:
            start_training(spec)
        assert refused.value.command == command
        assert read_result(spec.outdir) is None
    assert find_marked(workspace_id) == []


def test_a_program_is_found_before_anything_runs(guard: MakeGuard, workdir: Path) -> None:
    (workdir / "run.sh").write_text("#!/bin/sh\n")
    (workdir / "run.sh").chmod(0o755)
    assert find_program(guard()) == sys.executable
    assert find_program(guard(command=("./run.sh",))) == str(workdir / "run.sh")
    assert find_program(guard(command=("sh",)), environ={"PATH": "/bin"}) == "/bin/sh"
    with pytest.raises(CannotStart):
        find_program(guard(command=("sh",)), environ={"PATH": "/nowhere"})


@pytest.mark.parametrize(
    ("code", "timeout_s", "cut", "exit_code"),
    [
        ("print('ok')", 30.0, "", 0),
        ("raise SystemExit(3)", 30.0, "", 3),
        ("import time; time.sleep(60)", 0.3, "timeout", -9),
    ],
)
async def test_a_guard_tells_how_it_ended(
    guard: MakeGuard, code: str, timeout_s: float, cut: str, exit_code: int
) -> None:
    result = await run_command(guard(code, timeout_s=timeout_s))
    assert (result.cut, result.exit_code, result.timed_out) == (cut, exit_code, cut == "timeout")
    assert result.tail == ("ok" if cut == "" and exit_code == 0 else "")
    assert result.seconds < 5


async def test_a_guard_can_be_stopped(guard: MakeGuard) -> None:
    running = start_command(guard("import time; time.sleep(60)"))
    await running.stop()
    assert (await running.wait()).cut == "stopped"


async def test_cancelling_a_guard_kills_its_tree_first(
    guard: MakeGuard, workdir: Path, pid_in: PidIn, dies_within: Dies
) -> None:
    task = asyncio.create_task(run_command(guard(f"{DAEMON}\ntime.sleep(60)")))
    daemon = await asyncio.to_thread(pid_in, workdir / "daemon.pid")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert dies_within(daemon, 0)


async def test_a_hundred_starts_leave_no_descriptor_and_no_zombie_behind(guard: MakeGuard) -> None:
    await run_command(guard(command=("true",)))
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - Path.iterdir would hold one itself
    for _ in range(100):
        await run_command(guard(command=("true",)))
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert psutil.Process().children() == []


async def test_many_at_once_do_not_disturb_each_other(training: Make, tmp_path: Path) -> None:
    specs = [
        training(f"import time; time.sleep(0.2); print('val_bpb: {n}')", outdir=tmp_path / str(n)) for n in range(1, 9)
    ]
    results = await asyncio.gather(*map(train, specs))
    assert [result.score for result in results] == list(range(1, 9))


async def test_an_end_is_noticed_by_a_thread_where_the_system_has_no_pidfd() -> None:
    child = subprocess.Popen(["true"])  # noqa: ASYNC220 - it is what the thread waits for
    ended = asyncio.Event()
    _on_exit_in_thread(child, ended.set)()
    await asyncio.wait_for(ended.wait(), 10)
    assert child.returncode == 0


def test_processes_that_outlive_their_kill_are_an_error_and_the_result_is_kept(training: Make, tmp_path: Path) -> None:
    spec = training(outdir=tmp_path)
    ended = Ended("timeout", None, 30.0, None, b"", (4711,))
    with pytest.raises(WouldNotDie, match="4711") as error:
        _result(spec, ended, MetricStream("val_bpb").finish())
    assert error.value.pids == (4711,)
    kept = read_result(tmp_path)
    assert kept is not None
    assert kept.outcome == "timeout"


# ---------------------------------------------------------------- without network

needs_cut = pytest.mark.skipif(network_cut_problem() is not None, reason=f"no network cut: {network_cut_problem()}")

CONNECT = """
import socket, sys
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=5).close()
    print("connected")
except OSError as error:
    print("no network" if error.errno == 101 else error)
"""


@pytest.fixture
def listener() -> Iterator[int]:
    """The port of someone who listens on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


@needs_cut
@pytest.mark.parametrize(("network", "said"), [(True, "connected"), (False, "no network")])
async def test_a_child_without_network_reaches_nobody(
    guard: MakeGuard, listener: int, network: bool, said: str
) -> None:
    result = await run_command(guard(command=("python", "-c", CONNECT, str(listener)), network=network))
    assert (result.tail, result.exit_code) == (said, 0)


@needs_cut
async def test_a_child_without_network_cannot_join_ours_nor_look_into_our_process(guard: MakeGuard) -> None:
    code = f"""
for path in ("/proc/{os.getpid()}/ns/net", "/proc/{os.getpid()}/environ"):
    try:
        open(path).read()
        print("opened", path)
    except PermissionError:
        print("refused")
"""
    assert (await run_command(guard(code, network=False))).tail == "refused\nrefused"


@needs_cut
async def test_without_network_all_else_is_as_ever(training: Make, workdir: Path, dies_within: Dies) -> None:
    """The user, the folder, the environment, the score; and the time limit kills a daemon that left the session."""
    spec = training(f"import os; print(os.getuid(), os.getgid(), os.getcwd(), os.environ['NIGHTSHIFT_MARK']); {BLOCK}")
    said = [(await train(replace(spec, network=network))).tail for network in (True, False)]
    assert said[0] == said[1]
    slow = training(f"{DAEMON}\ntime.sleep(60)", timeout_s=1.0, network=False)
    result = await train(slow)
    assert (result.outcome, result.exit_code) == ("timeout", -9)
    assert dies_within(int((workdir / "daemon.pid").read_text()), 0)
    assert find_marked(slow.mark) == []
    with pytest.raises(CannotStart, match="no such program"):
        start_training(training(command=("no-such-program",), network=False))


@needs_cut
async def test_a_child_without_network_can_write_what_it_could_before(guard: MakeGuard, workdir: Path) -> None:
    await run_command(guard("open('made.txt', 'w').write('x')", network=False))
    made = (workdir / "made.txt").stat()
    assert (made.st_uid, made.st_gid) == (os.getuid(), os.getgid())


def test_where_the_network_cannot_be_cut_nothing_runs_and_the_reason_is_told(workdir: Path, workspace_id: str) -> None:
    """In a process whose own user namespace allows no further one, as many a container does."""
    code = f"""
import asyncio, ctypes, os, sys
from pathlib import Path
user, group = os.getuid(), os.getgid()
if ctypes.CDLL(None).unshare(0x10000000):
    sys.exit(77)
Path("/proc/self/setgroups").write_text("deny")
Path("/proc/self/uid_map").write_text(f"{{user}} {{user}} 1")
Path("/proc/self/gid_map").write_text(f"{{group}} {{group}} 1")
Path("/proc/sys/user/max_net_namespaces").write_text("0")
from trainer.errors import CannotStart
from trainer.process import run_command
from trainer.spec import CommandSpec
spec = CommandSpec(command=("touch", "ran"), workdir=Path({str(workdir)!r}), mark="{workspace_id}/t/1/x", timeout_s=5.0,
                   network=False)
try:
    asyncio.run(run_command(spec))
except CannotStart as error:
    print(error)
"""
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    ended = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)
    if ended.returncode == 77 or "PermissionError" in ended.stderr:
        pytest.skip("this machine allows no user namespace, so none can be made that forbids another")
    assert ended.stdout.startswith("cannot start 'touch': it must have no network, but this machine refuses"), ended
    assert "No space left" in ended.stdout
    assert not (workdir / "ran").exists()


# ---------------------------------------------------------------- the death of the loop

HELPER = """
import asyncio, sys
from pathlib import Path
from trainer.process import start_training
from trainer.spec import Scoring, TrainingSpec
workdir, mark, code, then, network = sys.argv[1:]
async def main():
    running = start_training(TrainingSpec(
        command=("python", "-c", code), workdir=Path(workdir), outdir=Path(workdir, "out"), mark=mark, timeout_s=60.0,
        budget_s=5.0, seed=1, scoring=Scoring(kind="stdout", name="val_bpb"), network=network == "network"))
    Path(workdir, "child.new").write_text(f"{running.pid}\\n")
    Path(workdir, "child.new").rename(Path(workdir, "child.pid"))
    if then == "wait":
        await running.wait()
    while not Path(workdir, "daemon.pid").exists():
        await asyncio.sleep(0.01)
asyncio.run(main())
"""


@pytest.fixture
def loop_process(workdir: Path, workspace_id: str) -> Callable[..., subprocess.Popen[bytes]]:
    """Starts a process that trains, with a daemon as grandchild, and then waits for it or simply returns."""

    def start(then: str, network: str = "network") -> subprocess.Popen[bytes]:
        mark = f"{workspace_id}/nov21/1/abc"
        code = f"{DAEMON}\ntime.sleep(60)"
        environ = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        return subprocess.Popen([sys.executable, "-c", HELPER, str(workdir), mark, code, then, network], env=environ)

    return start


@pytest.mark.parametrize("network", ["network", pytest.param("none", marks=needs_cut)])
def test_a_child_dies_with_its_loop_and_the_next_loop_kills_the_rest(
    loop_process: Callable[..., subprocess.Popen[bytes]],
    network: str,
    workdir: Path,
    workspace_id: str,
    pid_in: PidIn,
    dies_within: Dies,
) -> None:
    loop = loop_process("wait", network)
    child, daemon = pid_in(workdir / "child.pid"), pid_in(workdir / "daemon.pid")
    loop.send_signal(signal.SIGKILL)
    loop.wait()
    assert dies_within(child, 1)
    assert find_marked(workspace_id) == [daemon]
    assert read_result(workdir / "out") is None
    assert kill_marked(workspace_id) == [daemon]
    assert dies_within(daemon, 0)


def test_an_event_loop_that_is_closed_leaves_nothing_running(
    loop_process: Callable[..., subprocess.Popen[bytes]], workdir: Path, pid_in: PidIn, dies_within: Dies
) -> None:
    loop = loop_process("return")
    assert loop.wait(20) == 0
    assert dies_within(pid_in(workdir / "child.pid"), 0)
    assert dies_within(pid_in(workdir / "daemon.pid"), 0)
