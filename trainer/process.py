"""Start a command, watch it, kill it with everything that came of it. The only place that starts processes.

Guaranteed: when `wait` returns, or `stop`, no process of the tree is left that can be found (see `marks` for the
one kind that cannot), the pipe is closed, and of a training the result is on the disk. The direct child dies with
the loop (Linux), the others are found by their mark when the next loop starts. Output of any size, in any bytes,
takes a constant amount of memory.

A command with a `View` is confined, by what this machine offers (`machine`): bubblewrap with landlock, landlock alone,
or nothing. One without a view may read what this user can read. The network alone can be cut (Linux): the child is
then in a network namespace of its own that has no device, and in a user namespace, out of which it can neither join
another one nor look into a process outside. A socket that is a file, such as Docker's, is no network: without
bubblewrap it stays reachable for who may open the file.

Start on the event loop's thread: the kernel sends the parent-death signal when the starting *thread* ends, so a
child started in a pool would be killed with the pool.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import IO, Generic, TypeVar

import psutil

from trainer import marks
from trainer.errors import CannotStart, WouldNotDie
from trainer.files import (
    LOG_NAME,
    KeptLog,
    check_room,
    claim_of_file,
    fresh_hand_over,
    fresh_outdir,
    read_facts,
    remove_score_file,
    take_hand_over,
    write_result,
)
from trainer.gate import Gate
from trainer.outcome import Ending, HandedOver, classify, classify_sealed
from trainer.sandbox import find, landlock, plan
from trainer.sandbox.plan import Machine, Rules, View
from trainer.sandbox.watch import Watch
from trainer.spec import (
    GATE_VARIABLE,
    HAND_OVER_NAME,
    CommandResult,
    CommandSpec,
    Cut,
    Launch,
    Result,
    Seal,
    TrainingSpec,
    is_passed_on,
    launch_of,
)
from trainer.summary import MetricStream, Progress, Summary, clean_tail

CHUNK = 2**16
"""Bytes, as many as a pipe holds."""

DRAIN_CHUNKS = 64
"""A pipe can hold no more after its writers are dead; one that escaped and goes on printing is not listened to."""

FIRST_SAMPLE_S = 0.01
SAMPLE_EVERY_S = 0.25
SAMPLE_SHARE_MAX = 0.02
"""Looking at the tree may take this share of a core; on a host with many processes it is looked at less often."""

LAST_LOOK_S = 0.05
WATCH_EVERY_S = 0.1
"""How often the limits of a view are looked at: a short look, of some 0.1 ms."""

CLASSIFIED_TAIL = 2**16
"""Bytes of the end in which the last traceback is looked for; one through many frames has some 10 kB."""

TAIL_MAX = 4_000
MIB = 2**20
PR_SET_PDEATHSIG = 1
PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000

PROBE_TIMEOUT_S = 10.0
ASK_TIMEOUT_S = 60.0

R_co = TypeVar("R_co", covariant=True)


def start_training(
    spec: TrainingSpec,
    *,
    device: str = "cpu",
    environ: Mapping[str, str] | None = None,
    here: Machine | None = None,
    data: Sequence[int] = (),
) -> Running[Result]:
    """
    Start a training. Call it on the thread of the running event loop.

    Args:
        device: Name of the device it was given; only kept, `spec.env` tells the child.
        data: Open files that the child gets at GO; they stay the caller's, and open until then.
        environ: The environment of which the allowed part is passed on, ours by default.
        here: What this machine can confine a child with, by default what was found.

    Raises:
        CannotStart: If the command, its folder, the output folder or the score file is not usable, or the view
            requires more than there is.
        OutputUnwritable: If the log cannot be made.
    """
    if spec.scoring.file is not None and spec.scoring.kind == "json":
        remove_score_file(spec, spec.scoring.file)
    fresh_outdir(spec, spec.outdir)
    stream = MetricStream(spec.scoring.name if spec.scoring.kind in ("stdout", "sealed") else None)
    if spec.seal is None:
        child = Child(spec, stream, spec.outdir / LOG_NAME, environ, here)
        return Running(child, lambda ended: _result(spec, ended, stream.finish()), device)
    fresh_hand_over(spec)
    gate = Gate(data)
    try:
        told = {**spec.env, GATE_VARIABLE: str(gate.child)}
        child = Child(
            replace(spec, env=told, pass_fds=(*spec.pass_fds, gate.child)),
            stream,
            spec.outdir / LOG_NAME,
            environ,
            here,
        )
    except BaseException:
        gate.close()
        raise
    child.wait_at(gate, spec.budget_s + spec.seal.grace_s)
    return Running(child, lambda ended: _result(spec, ended, stream.finish()), device)


def start_command(
    spec: CommandSpec, *, environ: Mapping[str, str] | None = None, here: Machine | None = None
) -> Running[CommandResult]:
    """Start a command that is not scored, such as a guard. Only the end of its output is kept. As `start_training`."""
    return Running(Child(spec, MetricStream(None), None, environ, here), _command_result, "cpu")


async def run_command(
    spec: CommandSpec, *, environ: Mapping[str, str] | None = None, here: Machine | None = None
) -> CommandResult:
    """Run a command to its end. Cancelling this kills its whole tree first. Raises `CannotStart`."""
    running = start_command(spec, environ=environ, here=here)
    try:
        return await running.wait()
    finally:
        await running.stop()


def find_program(spec: CommandSpec, *, environ: Mapping[str, str] | None = None) -> str:
    """
    Find the program that *spec* would start, and return its path.

    Raises:
        CannotStart: If the work folder or the program is missing, or the program cannot be executed.
    """
    launch = _launch(spec, environ)
    word = launch.argv[0]
    if not launch.cwd.is_dir():
        raise CannotStart(spec.command, f"its work folder {launch.cwd} is missing")
    if "/" in word:
        word = str(launch.cwd / word)
    found = shutil.which(word, path=launch.env.get("PATH", os.defpath))
    if found is None:
        raise CannotStart(
            spec.command, "no such program can be executed; install it, or give its path in `command` (nightshift.toml)"
        )
    return found


@dataclass(frozen=True, slots=True)
class Ended:
    """The bare facts of how a child ended; *tail* is raw."""

    cut: Cut
    exit_code: int | None
    seconds: float
    peak_resident_mb: float | None
    tail: bytes
    survivors: tuple[int, ...]
    excess: str = ""
    trained_s: float | None = None
    is_late: bool = False


class Running(Generic[R_co]):
    """A command that was started; `wait` gives what *finish* made of its end. A `Training` of `executors.base`."""

    def __init__(self, child: Child, finish: Callable[[Ended], R_co], device: str) -> None:
        self.pid = child.pid
        self.pid_started = child.pid_started
        self.device = device
        self._child = child
        self._finish = finish
        self._task = asyncio.create_task(self._run(), name=f"child {child.pid}")

    def progress(self) -> Progress | None:
        return self._child.progress()

    async def wait(self) -> R_co:
        return await asyncio.shield(self._task)

    async def stop(self) -> None:
        self._child.cut("stopped")
        await asyncio.wait([self._task])

    def when_done(self, call: Callable[[], None]) -> None:
        """Have *call* called once nothing of it runs any more."""
        self._task.add_done_callback(lambda _: call())

    async def _run(self) -> R_co:
        ended = await self._child.watch()
        return await asyncio.to_thread(self._finish, ended)  # it waits for the disk


class Child:
    """
    One process, what it prints and every process that comes of it.

    It is collected last, after its tree is dead: until then its pid, which names its process group too, cannot
    pass to another process.
    """

    def __init__(
        self,
        spec: CommandSpec,
        stream: MetricStream,
        log: Path | None,
        environ: Mapping[str, str] | None,
        here: Machine | None,
    ) -> None:
        self._spec = spec
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self._exited = asyncio.Event()
        self._cut: Cut = ""
        self._excess = ""
        self._peak = 0
        self._gate: Gate | None = None
        self._went_at: float | None = None
        self._is_late = False
        program = find_program(spec, environ=environ)
        view = spec.view if spec.view is None or spec.view.mode != "off" else None
        here = machine() if here is None and view is not None else here
        self._confined = Confined(_launch(spec, environ))
        if view is not None and here is not None:
            self._confined = confine(self._confined.launch, view, here, program)
        if not self._confined.launch.network and (problem := network_cut_problem()) is not None:
            self._confined.clear_up()
            raise CannotStart(spec.command, f"it must have no network, but {problem}, or let it have one")
        self._log = KeptLog(log)
        self._pipe, write_end = os.pipe()
        try:
            self._popen = _spawn(self._confined, write_end)
        except (OSError, subprocess.SubprocessError) as error:
            os.close(self._pipe)
            self._log.close()
            raise CannotStart(spec.command, f"the system refuses it ({error})") from error
        finally:
            os.close(write_end)
        self._started = self._loop.time()
        self._patience = asyncio.timeout_at(self._started + spec.timeout_s)
        self.pid = self._popen.pid
        root = psutil.Process(self.pid)
        self.pid_started = root.create_time()
        self._tree = marks.Tree(root, spec.mark)
        self._watch = None
        if view is not None and here is not None:
            self._watch = Watch(self._tree, spec.workdir, view.limits, here)
        os.set_blocking(self._pipe, False)
        self._loop.add_reader(self._pipe, self._read)
        self._forget_exit = on_exit(self._popen, self._exited.set)

    def progress(self) -> Progress | None:
        return self._stream.progress()

    def wait_at(self, gate: Gate, most_s: float) -> None:
        """Listen at its gate; once it has gone through, it has *most_s* to come to its end."""

        def went() -> None:
            self._went_at = self._loop.time()
            ends_at = self._went_at + most_s
            if ends_at < self._started + self._spec.timeout_s:
                with contextlib.suppress(RuntimeError):  # it is over, and so is the wait for it
                    self._patience.reschedule(ends_at)
                    self._is_late = True  # if it is killed for its time from now on

        self._gate = gate
        gate.listen(went)

    def cut(self, why: Cut) -> None:
        """Kill it now, for a reason; the first reason stands. After its end nothing happens."""
        if not self._exited.is_set():
            self._cut = self._cut or why
            self._kill_group()

    async def watch(self) -> Ended:
        """Watch it to its end, or its time limit, and leave nothing of it behind. Once, in one task."""
        sampler = asyncio.create_task(self._sample())
        try:
            try:
                async with self._patience:
                    await self._exited.wait()
            except TimeoutError:
                # We may have been suspended ourselves: one that ended in time is only now heard of.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LAST_LOOK_S):
                        await self._exited.wait()
                self.cut("timeout")
            ended_at = self._loop.time()
        finally:
            sampler.cancel()
            if self._gate is not None:
                self._gate.close()
            survivors = await self._bury()
            self._log.close()
            await asyncio.to_thread(self._confined.clear_up)
        return Ended(
            self._cut,
            self._popen.returncode,
            ended_at - self._started,
            self._peak / MIB if self._peak else None,
            self._log.end(CLASSIFIED_TAIL),
            survivors,
            self._excess,
            None if self._went_at is None else ended_at - self._went_at,
            self._is_late,
        )

    async def _sample(self) -> None:
        pause = FIRST_SAMPLE_S
        while True:
            began = self._loop.time()
            resident = self._tree.resident_bytes()
            self._peak = max(self._peak, resident)
            self._keep_limits(resident / MIB)
            next_at = max(began + pause, began + (self._loop.time() - began) / SAMPLE_SHARE_MAX)
            while (rest := next_at - self._loop.time()) > 0:
                await asyncio.sleep(min(rest, WATCH_EVERY_S) if self._watch is not None else rest)
                self._keep_limits(None)
            pause = min(2 * pause, SAMPLE_EVERY_S)

    def _keep_limits(self, resident_mb: float | None) -> None:
        """Kill the tree if it uses more than its view allows."""
        if self._watch is not None and not self._cut and (found := self._watch.look(resident_mb)) is not None:
            why, self._excess = found
            self.cut(why)

    async def _bury(self) -> tuple[int, ...]:
        """Kill what is left until nothing is, then take the rest of the output and collect the child."""
        patience_ends = self._loop.time() + marks.PATIENCE_S
        self._kill_group()
        while (left := self._tree.living()) or not self._exited.is_set():
            if self._loop.time() > patience_ends:
                break
            marks.kill(left)
            self._kill_group()
            await asyncio.sleep(marks.LOOK_AGAIN_S)
        self._forget_exit()
        for _ in range(DRAIN_CHUNKS):
            if self._pipe < 0 or not self._read():
                break
        self._close_pipe()
        self._popen.poll()
        survivors = [process.pid for process in left]
        return tuple(survivors if self._exited.is_set() else [self.pid, *survivors])

    def _kill_group(self) -> None:
        if self._popen.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def _read(self) -> bool:
        """Take what is in the pipe; tell whether there was anything."""
        try:
            chunk = os.read(self._pipe, CHUNK)
        except BlockingIOError:
            return False
        if not chunk:
            self._close_pipe()
            return False
        self._log.write(chunk)
        self._stream.feed(chunk)
        return True

    def _close_pipe(self) -> None:
        if self._pipe >= 0:
            self._loop.remove_reader(self._pipe)
            os.close(self._pipe)
            self._pipe = -1


def _launch(spec: CommandSpec, environ: Mapping[str, str] | None) -> Launch:
    return launch_of(spec, environ=os.environ if environ is None else environ, python=sys.executable)


@dataclass(frozen=True, slots=True)
class Confined:
    """A command and what holds it: *rules* of landlock in its *interface*, *scratch* a folder that it has meanwhile."""

    launch: Launch
    rules: Rules | None = None
    interface: int = 0
    scratch: Path | None = None

    def clear_up(self) -> None:
        """Remove what was made for it, once nothing of it runs."""
        if self.scratch is not None:
            shutil.rmtree(self.scratch, ignore_errors=True)


def confine(launch: Launch, view: View, here: Machine, program: str) -> Confined:
    """
    Put around a command what *here* can hold it with, as much as its view asks for.

    Args:
        program: The path of the program, which it is shown besides.

    Raises:
        CannotStart: If the view requires more than there is.
    """
    if why := plan.refusal(view.mode, here):
        raise CannotStart(launch.argv, why)
    view = replace(view, read=(*view.read, *_besides(Path(program), launch.cwd, view, here)))
    match plan.level_of(view.mode, here):
        case "bubblewrap":
            rules = plan.rules_beside_bubblewrap(view)
            beside = None if landlock.says_nothing(rules, here.landlock) else rules
            return Confined(plan.bubblewrapped(launch, view, here), beside, here.landlock)
        case "landlock":
            _make_scratch(launch, view.scratch)
            rules = plan.rules_alone(launch.cwd, view, here)
            return Confined(plan.landlocked(launch, view, here), rules, here.landlock, view.scratch)
    return Confined(launch)


def _make_scratch(launch: Launch, folder: Path | None) -> None:
    if folder is None:
        return
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    except OSError as error:
        raise CannotStart(launch.argv, f"its folder {folder} cannot be made ({error})") from error


def _besides(program: Path, cwd: Path, view: View, here: Machine) -> list[Path]:
    """The program, and where its links lead, if they lie in no folder that is shown."""
    shown = (*here.system, *here.interpreter, *view.read, *view.write, cwd, *map(Path, here.links))
    return [path for path in {program, program.resolve()} if not any(path.is_relative_to(folder) for folder in shown)]


@cache
def machine() -> Machine:
    """What this machine can hold a command with. It is really tried, once in the life of this process: some 60 ms."""
    return find.look(_attempt, sys.executable, os.environ, network_cut_problem() or "")


def _attempt(argv: Sequence[str], env: Mapping[str, str]) -> find.Attempt:
    try:
        ended = subprocess.run(
            argv,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=PROBE_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return find.Attempt(127, str(error))
    return find.Attempt(ended.returncode, ended.stdout.decode("utf-8", "replace"))


def python_says(code: str, folder: Path, *, environ: Mapping[str, str] | None = None) -> str:
    """
    Run a few lines of ours with Python in *folder*, whose modules they may import, and return what they print.

    Raises:
        CannotStart: If they fail, with the last line that they said.
    """
    passed = {name: value for name, value in (os.environ if environ is None else environ).items() if is_passed_on(name)}
    try:
        ended = subprocess.run(
            (sys.executable, "-c", code),
            cwd=folder,
            env={**passed, "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=ASK_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise CannotStart(("python",), str(error)) from error
    if ended.returncode != 0:
        said = clean_tail(ended.stderr, TAIL_MAX).strip().rpartition("\n")[2]
        raise CannotStart(("python",), said or f"exit code {ended.returncode}")
    return ended.stdout.decode("utf-8", "replace").strip()


def _spawn(confined: Confined, output: int) -> subprocess.Popen[bytes]:
    """Start a command of an experiment, its input from a file."""
    with contextlib.ExitStack() as stack:
        data = confined.launch.stdin
        file = subprocess.DEVNULL if data is None else stack.enter_context(_as_file(data)).fileno()
        return _popen(confined, file, output, signal.SIGKILL)


def _popen(confined: Confined, stdin: int, output: int, with_us: signal.Signals) -> subprocess.Popen[bytes]:
    """Start it in a session of its own, so that the terminal's Ctrl-C does not reach it and its group is known."""
    launch, rules = confined.launch, confined.rules
    ruleset = None if rules is None else landlock.make(rules, confined.interface)
    try:
        prepare = _before_exec(os.getpid(), launch.network, with_us, ruleset, alone=rules is not None and rules.files)
        return subprocess.Popen(
            launch.argv,
            cwd=launch.cwd,
            env=launch.env,
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=launch.pass_fds,
            preexec_fn=prepare,  # noqa: PLW1509 - a few system calls, no lock
        )
    finally:
        if ruleset is not None:
            os.close(ruleset)


def spawn_service(
    argv: Sequence[str],
    cwd: Path,
    env: Mapping[str, str],
    output: int,
    *,
    view: View | None = None,
    stdin: int = subprocess.DEVNULL,
    pass_fds: tuple[int, ...] = (),
) -> subprocess.Popen[bytes]:
    """
    Start a program of ours that is to run beside us; `service` watches it. Both its outputs go to *output*.

    It is told to end (SIGTERM), not killed, when the thread that started it ends: it has things to put in order. In
    bubblewrap it is killed, and nothing watches the limits of its view that the kernel does not keep.

    Raises:
        OSError, subprocess.SubprocessError: If the system refuses it.
        CannotStart: If the view requires more than there is.
    """
    confined = Confined(Launch(tuple(argv), env, cwd, pass_fds=pass_fds))
    if view is not None and view.mode != "off":
        confined = confine(confined.launch, view, machine(), argv[0])
    return _popen(confined, stdin, output, signal.SIGTERM)


def _as_file(data: bytes) -> IO[bytes]:
    """*data* as a file without a name: unlike a pipe it holds all of it, whether the child reads or not."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    try:
        file.write(data)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _before_exec(
    parent: int,
    network: bool,
    with_us: signal.Signals = signal.SIGKILL,
    ruleset: int | None = None,
    alone: bool = False,
) -> Callable[[], None] | None:
    """
    What the child does between fork and exec: leave the network where that is asked, have itself sent *with_us*
    when the thread that started it ends, give itself up to the rules of landlock. Linux only; elsewhere nothing does
    it, and what a killed loop leaves is found by its mark.

    In this order: the kernel may forget the signal when a process enters a new user namespace.
    """
    libc = _libc()
    if libc is None:
        return None
    leave_network = None if network else _leave_network(libc)
    enter_rules = None if ruleset is None else landlock.enter(ruleset, alone=alone)

    def prepare() -> None:
        if leave_network is not None:
            leave_network()
        libc.prctl(PR_SET_PDEATHSIG, with_us, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            os.kill(os.getpid(), signal.SIGKILL)
        if enter_rules is not None:
            enter_rules()

    return prepare


@cache
def _libc() -> ctypes.PyDLL | None:
    """Looked up before the fork: behind it, other threads may hold locks that nobody will release."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.PyDLL(None, use_errno=True)  # PyDLL: the lock of the interpreter is not let go on the way
    libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    libc.unshare.argtypes = [ctypes.c_int]
    return libc


def _leave_network(libc: ctypes.PyDLL) -> Callable[[], None]:
    """
    What a child does, before it has threads, to be in a network namespace without a device. It takes a user namespace
    to be allowed that without privilege; the user and the group stay who they are in it, all others are nobody.
    """
    user, group = os.geteuid(), os.getegid()
    identity = (
        ("/proc/self/setgroups", b"deny"),  # without privilege the condition for the next two
        ("/proc/self/uid_map", b"%d %d 1" % (user, user)),
        ("/proc/self/gid_map", b"%d %d 1" % (group, group)),
    )

    def leave() -> None:
        if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        if libc.prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0:  # the files below belong to root as long as we hide
            libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
        for path, value in identity:
            file = os.open(path, os.O_WRONLY)
            os.write(file, value)
            os.close(file)

    return leave


@cache
def network_cut_problem() -> str | None:
    """
    Say in one phrase why this machine cannot cut a command off the network, and what to do; None if it can.

    It is really tried, once in the life of this process: it takes some ten milliseconds.
    """
    libc = _libc()
    if libc is None:
        return f"cutting the network takes Linux, and this is {sys.platform}"
    leave = _leave_network(libc)

    def attempt() -> None:
        try:
            leave()
        except OSError as error:
            os._exit(error.errno or errno.EIO)  # an exception would come out without its reason

    probe = (sys.executable, "-I", "-S", "-c", "import os; print(os.readlink('/proc/self/ns/net'))")
    try:
        ended = subprocess.run(
            probe,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=PROBE_TIMEOUT_S,
            preexec_fn=attempt,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"the attempt to cut the network failed ({error})"
    if ended.returncode != 0:
        reason = os.strerror(ended.returncode) if ended.returncode > 0 else f"killed by signal {-ended.returncode}"
        return (
            f"this machine refuses user and network namespaces ({reason}); allow them (Linux: sysctl "
            "user.max_user_namespaces above 0, kernel.apparmor_restrict_unprivileged_userns = 0, and in a container a "
            "seccomp profile that permits `unshare`)"
        )
    if ended.stdout.decode().strip() == str(Path("/proc/self/ns/net").readlink()):
        return "a process that left this machine's network is still in it"
    return None


def on_exit(popen: subprocess.Popen[bytes], call: Callable[[], None]) -> Callable[[], None]:
    """
    Have *call* called on the event loop when the process has ended, without collecting it where the system can.

    Returns:
        A function that ends the watch; call it once.
    """
    loop = asyncio.get_running_loop()
    try:
        descriptor = os.pidfd_open(popen.pid)
    except (AttributeError, OSError):  # not Linux, or one before 5.3
        return _on_exit_in_thread(popen, call)

    def ended() -> None:
        loop.remove_reader(descriptor)
        call()

    def forget() -> None:
        loop.remove_reader(descriptor)
        os.close(descriptor)

    loop.add_reader(descriptor, ended)
    return forget


def _on_exit_in_thread(popen: subprocess.Popen[bytes], call: Callable[[], None]) -> Callable[[], None]:
    """The same where a thread must wait, which collects the child at once."""
    waiting = asyncio.ensure_future(asyncio.to_thread(popen.wait))
    waiting.add_done_callback(lambda _: call())
    return lambda: None


def _result(spec: TrainingSpec, ended: Ended, summary: Summary) -> Result:
    """Judge the end of a training, write the result down and return it. Raises `OutputUnwritable`, `WouldNotDie`."""
    text = clean_tail(ended.tail, CLASSIFIED_TAIL)
    metrics = summary.metrics
    if spec.seal is None:
        ending = _ending(spec, ended, summary, text)
    else:
        ending = _sealed_ending(spec, spec.seal, ended, summary, text)
        metrics = read_facts(spec.seal.handed)
    if ending.outcome != "scored" and not ended.cut:
        check_room(spec.workdir)
    result = Result(
        outcome=ending.outcome,
        seconds=ended.seconds,
        nonce=spec.nonce,
        score=ending.score,
        metrics=metrics,
        peak_memory_mb=_peak_memory_mb(metrics, ended, is_checked=spec.seal is not None),
        exit_code=ended.exit_code,
        why=ending.why,
        tail=clean_tail(ended.tail, TAIL_MAX),
        trained_s=ended.trained_s,
    )
    write_result(spec.outdir, result)
    if ended.survivors:
        raise WouldNotDie(ended.survivors)
    return result


def _ending(spec: TrainingSpec, ended: Ended, summary: Summary, text: str) -> Ending:
    return classify(
        spec.scoring,
        cut=ended.cut,
        timeout_s=spec.timeout_s,
        exit_code=ended.exit_code,
        claim=claim_of_file(spec.workdir, spec.scoring) if spec.scoring.kind == "json" else summary.claim,
        tail=text,
        excess=ended.excess,
    )


def _sealed_ending(spec: TrainingSpec, seal: Seal, ended: Ended, summary: Summary, text: str) -> Ending:
    """Take over what it has handed over, if it came to its end by itself, and judge that end."""
    handed = HandedOver() if ended.cut else take_hand_over(spec.workdir / HAND_OVER_NAME, seal.handed)
    late = (
        f"killed: it had not ended {seal.grace_s:g} s after the {spec.budget_s:g} s of its budget, which began when it "
        "was given its text; what it hands over later does not count"
    )
    return classify_sealed(
        spec.scoring,
        cut=ended.cut,
        timeout_s=spec.timeout_s,
        was_ready=ended.trained_s is not None,
        late=late if ended.is_late else "",
        exit_code=ended.exit_code,
        claims=summary.claims + (spec.scoring.name in read_facts(seal.handed)),
        handed=handed,
        tail=text,
        excess=ended.excess,
    )


def _command_result(ended: Ended) -> CommandResult:
    if ended.survivors:
        raise WouldNotDie(ended.survivors)
    return CommandResult(
        cut=ended.cut,
        exit_code=ended.exit_code,
        seconds=ended.seconds,
        tail=clean_tail(ended.tail, TAIL_MAX),
        why=ended.excess,
    )


def _peak_memory_mb(metrics: Mapping[str, int | float | str], ended: Ended, *, is_checked: bool) -> float | None:
    """What it says of its memory; where that is not to be trusted, no less than it was seen to hold."""
    claimed = metrics.get("peak_vram_mb")
    if isinstance(claimed, int | float) and claimed > 0:
        return max(float(claimed), (is_checked and ended.peak_resident_mb) or 0.0)
    return ended.peak_resident_mb
