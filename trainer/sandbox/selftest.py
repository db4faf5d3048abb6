"""Try to get out of the sandbox of this machine, in every known way, and say what each attempt got.

The program that tries is `attempts`; what it meets (servers, a victim, secrets) is real and set up here. Every attempt
is judged by what can be seen from outside, where that tells more than what the program believes of itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets as tokens
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trainer.process import run_command, start_command
from trainer.sandbox import attempts
from trainer.sandbox.plan import Limits, Machine, View
from trainer.spec import CommandResult, CommandSpec

TIMEOUT_S = 20.0
AT_ONCE = 4
LIMITS = Limits(memory_mb=256, processes=100, disk_mb=48, tmp_mb=16)
"""Small ones, so that trying them is quick and harms nobody."""

PROGRAM = Path(attempts.__file__).read_text(encoding="utf-8")
"""What runs inside; it is told to Python as text, as no file of ours is shown there."""

HEARTBEAT = """\
import os, sys, time
file = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
for _ in range(200):
    os.write(file, b"%d\\n" % os.getpid())
    time.sleep(0.02)
"""
"""What a process that was left behind does: for four seconds it shows that it lives."""

LIVES_S = 0.5
"""So long it is listened for; on a busy machine one that lives is not heard at once."""


@dataclass(frozen=True, slots=True)
class Row:
    """
    What one attempt got.

    Attributes:
        what: The attempt, in a few words.
        held: Whether the sandbox held.
        got: What it met, or what it came to.
    """

    what: str
    held: bool
    got: str


@dataclass(slots=True)
class Outside:
    """What is there for an attempt to reach: addresses, a victim, secrets; and what reached us."""

    tcp: int
    udp: int
    socket: str
    abstract: str
    victim: int
    secret: str
    folder: Path
    owner: str
    reached: set[str] = field(default_factory=set)


async def table(
    view: View,
    unreadable: Mapping[str, Sequence[Path]] | None = None,
    owner: str = "selftest",
    here: Machine | None = None,
) -> list[Row]:
    """
    Try everything against *view*, of which only the limits are replaced by small ones. It takes some seconds.

    Args:
        unreadable: What must not be read (files, or folders that must look empty), by what it is.
        owner: The first part of the mark that the processes carry.
        here: What this machine can confine a child with, by default what was found.

    Raises:
        CannotStart: If nothing can be started, as where the view requires more than there is.
    """
    async with outside(owner) as world:
        cases = dict(CASES)
        for what, paths in (unreadable or {}).items():
            cases[f"read:{what}"] = Case(f"read {what}", _Read(tuple(map(str, paths))))
        gentle = {name: case for name, case in cases.items() if not case.alone}
        turns = asyncio.Semaphore(AT_ONCE)

        async def tried(some: dict[str, Case]) -> dict[str, Row]:
            async with turns:
                return await _tried(some, view, world, here)

        parts = [gentle, *({name: case} for name, case in cases.items() if case.alone)]
        rows = {name: row for part in await asyncio.gather(*map(tried, parts)) for name, row in part.items()}
        return [rows[name] for name in cases]


async def attempt(name: str, view: View, world: Outside, here: Machine | None = None) -> Row:
    """Try one of `CASES` against *view*. Raises `CannotStart`."""
    return (await _tried({name: CASES[name]}, view, world, here))[name]


# ---------------------------------------------------------------- what is set up outside


@contextlib.asynccontextmanager
async def outside(owner: str = "selftest") -> AsyncIterator[Outside]:
    """Servers of every kind, a process to attack with a secret in its environment, and a folder with a secret file."""
    loop = asyncio.get_running_loop()
    word = tokens.token_hex(8)
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nightshift-selftest-")))
        (folder / "secret.txt").write_text(word)
        world = Outside(0, 0, str(folder / "socket"), f"@nightshift-{word}", 0, word, folder, owner)

        async def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        for server in (
            await asyncio.start_server(connected, "127.0.0.1", 0),
            await asyncio.start_unix_server(connected, world.socket),
            await asyncio.start_unix_server(connected, "\0" + world.abstract[1:]),
        ):
            await stack.enter_async_context(server)
            if not world.tcp:
                world.tcp = int(server.sockets[0].getsockname()[1])
        transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(world), local_addr=("127.0.0.1", 0))
        stack.callback(transport.close)
        world.udp = int(transport.get_extra_info("sockname")[1])
        victim = CommandSpec(
            command=("python", "-I", "-S", "-c", "import time; print('up', flush=True); time.sleep(60)"),
            workdir=folder,
            mark=f"{owner}/selftest/0/{tokens.token_hex(4)}",
            timeout_s=60.0,
            env={"NIGHTSHIFT_SELFTEST_VICTIM": word},
        )
        running = start_command(victim)
        stack.push_async_callback(running.stop)
        world.victim = running.pid
        yield world


class _Datagrams(asyncio.DatagramProtocol):
    """Remembers what came and answers it."""

    def __init__(self, world: Outside) -> None:
        self._world = world

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        self._world.reached.add(data.decode("latin-1"))
        self._transport.sendto(b"answer", address)


# ---------------------------------------------------------------- the attempts


@dataclass(frozen=True, slots=True)
class Case:
    """
    One attempt.

    Attributes:
        what: What it is, for people.
        arguments: For the function of `attempts` that has the name before the colon.
        alone: It may end its process, so none is tried in the same one behind it.
        arrived: Whether it came through, by what is seen from outside; None: as it says itself.
    """

    what: str
    arguments: Callable[[Outside], dict[str, Any]]
    alone: bool = False
    arrived: Callable[[Outside], bool] | None = None


@dataclass(frozen=True, slots=True)
class _Read:
    paths: tuple[str, ...]

    def __call__(self, _: Outside) -> dict[str, Any]:
        return {"paths": list(self.paths)}


def _none(_: Outside) -> dict[str, Any]:
    return {}


def _lives(world: Outside) -> bool:
    """Whether the process that was left behind goes on writing."""
    file = world.folder / "daemon" / "heartbeat"
    if not file.exists():
        return False
    before = file.stat().st_size
    ends_at = time.monotonic() + LIVES_S
    while file.stat().st_size == before and time.monotonic() < ends_at:
        time.sleep(0.02)
    return file.stat().st_size > before


def private_files() -> list[str]:
    """Files of the person, as far as there are some in the usual places."""
    home = Path.home()
    found: list[str] = []
    for folder in (home, home / ".ssh", home / ".aws"):
        with contextlib.suppress(OSError):
            found += [str(path) for path in folder.iterdir() if path.is_file() and os.access(path, os.R_OK)]
    return found[:50]


def _elsewhere(world: Outside) -> list[str]:
    places = ("/", "/usr", "/etc", "/dev", "/run", "/var/tmp", "/home", "/root", sys.prefix, Path.home())
    return [str(world.folder), *map(str, places)]


def _written(world: Outside) -> bool:
    """Whether a file arrived anywhere outside; it is removed."""
    found = False
    for folder in _elsewhere(world):
        with contextlib.suppress(OSError):
            Path(folder, f"selftest-{world.secret}").unlink()
            found = True
    return found


LOCAL = "127.0.0.1"
CASES: dict[str, Case] = {
    "tcp": Case("network by TCP", lambda world: {"host": LOCAL, "port": world.tcp}),
    "udp": Case(
        "network by UDP",
        lambda world: {"host": LOCAL, "port": world.udp, "word": world.secret},
        arrived=lambda world: world.secret in world.reached,
    ),
    "dns": Case("network by DNS", lambda world: {"host": LOCAL, "port": world.udp}),
    "unix": Case("a socket file of the machine", lambda world: {"path": world.socket}),
    "unix:abstract": Case("a socket name of the machine", lambda world: {"path": world.abstract}),
    "read": Case("read a file outside", lambda world: {"paths": [str(world.folder / "secret.txt")]}),
    "read:home": Case("read home", lambda _: {"paths": private_files()}),
    "environ": Case("a secret in /proc/*/environ", lambda world: {"word": world.secret}),
    "write": Case(
        "write outside",
        lambda world: {"paths": _elsewhere(world), "name": f"selftest-{world.secret}"},
        arrived=_written,
    ),
    "write:memory": Case(
        "write where no size is set",
        lambda world: {"paths": ["/", "/dev", "/home", "/root", "/run"], "name": world.secret, "stays": False},
    ),
    "kernel": Case("steer the kernel by /proc", _none),
    "mount": Case("mount a file system", _none),
    "trace": Case("trace a process outside", lambda world: {"pid": world.victim}),
    "kill": Case("signal a process outside", lambda world: {"pid": world.victim}),
    "descriptors": Case("open files of ours", lambda _: {"known": []}),
    "processes": Case("a fork bomb", lambda _: {"count": 3 * LIMITS.processes}, alone=True),
    "memory": Case("a memory bomb", lambda _: {"mb": 512}, alone=True),
    "shared": Case("a memory bomb in nameless files", lambda _: {"mb": 512}, alone=True),
    "fill:tmp": Case("fill /tmp", lambda _: {"path": "/tmp", "mb": 64}, alone=True),
    "fill:shm": Case("fill /dev/shm", lambda _: {"path": "/dev/shm", "mb": 64}, alone=True),
    "fill:file": Case("one huge file", lambda _: {"path": ".", "mb": 64}, alone=True),
    "fill:disk": Case("fill the disk", lambda _: {"path": ".", "mb": 160, "files": 4}, alone=True),
    "daemon": Case(
        "a process left behind", lambda _: {"file": "heartbeat", "code": HEARTBEAT}, alone=True, arrived=_lives
    ),
}


async def _tried(cases: Mapping[str, Case], view: View, world: Outside, here: Machine | None) -> dict[str, Row]:
    """Run the attempts in one child. What it did not come to say was cut off: it did not come through."""
    wanted = {name: case.arguments(world) for name, case in cases.items()}
    folder = world.folder / next(iter(cases)).replace(":", "-")
    folder.mkdir(exist_ok=True)
    view = replace(view, limits=LIMITS, scratch=folder.with_name(f"{folder.name}.scratch"))
    spec = CommandSpec(
        command=("python", "-s", "-c", PROGRAM, json.dumps(wanted)),
        workdir=folder,
        mark=f"{world.owner}/selftest/0/{tokens.token_hex(4)}",
        timeout_s=TIMEOUT_S,
        view=view,
    )
    ended = await run_command(spec, here=here)
    found: dict[str, tuple[bool, str]] = {}
    for line in ended.tail.splitlines():
        with contextlib.suppress(ValueError):
            found |= json.loads(line)
    rows = {}
    for name, case in cases.items():
        through, got = found.get(name, (False, _end_of(ended)))
        if case.arrived is not None:
            through = await asyncio.to_thread(case.arrived, world)
            got = "came through" if through else f"{got}; outside there is nothing of it"
        rows[name] = Row(case.what, not through, got)
    return rows


def _end_of(ended: CommandResult) -> str:
    """How the child ended that said nothing more."""
    last = ended.tail.strip().rpartition("\n")[2]
    return (
        ended.why or (ended.cut and f"killed: {ended.cut}") or f"ended with exit code {ended.exit_code}: {last[:100]}"
    )
