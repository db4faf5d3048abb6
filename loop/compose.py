"""Put the loop process together: doors, clock, ids, settings, screen. Nothing here decides anything."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import platform
import signal
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path

import psutil
from rich.console import Console

from eventstore import events as e
from eventstore import settings as st
from eventstore.console import new_id, now
from eventstore.envelope import Event
from eventstore.follow import Bell
from eventstore.home import Home
from eventstore.worker import Worker
from loop.effects.hands import Around
from loop.errors import BadScript
from loop.proposers.base import Proposer
from loop.proposers.scripted import Scripted
from loop.proposers.sweep import Sweep
from loop.screen import Screen
from loop.shell import Shell
from loop.workspace import Workspace
from trainer.executors.local import LocalExecutor
from trainer.marks import kill_marked


async def serve(
    home: Home,
    *,
    until_idle: bool,
    out: Console,
    open_log: Callable[[Path], AbstractAsyncContextManager[Worker]] = Worker.open,
) -> int:
    """Compose the loop and run it to its end. The lock is held by the caller; *open_log* opens the log."""
    workspace = Workspace.open(home.root)
    workspace.clear_scratch()
    workspace.exclude("/.nightshift/")
    workspace.exclude("/results.tsv")
    killed = kill_marked(home.mark_id)
    if killed:
        out.print(f"Killed {len(killed)} processes that an earlier loop left behind.")
    async with open_log(home.log_path) as log, Bell(home.bells) as bell:
        around = Around(
            home=home,
            workspace=workspace,
            executor=LocalExecutor(),
            proposer_of=make_proposer,
            now=now,
            new_id=new_id,
            read_at=lambda position: _read_at(log, position),
            about={"host": platform.node(), "sandbox": "none", "versions": versions()},
        )
        screen = Screen(out, time.monotonic, live_from=(await log.head()).position)
        shell = Shell(log, around, bell, f"loop@{platform.node()}", screen.on_event)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, shell.stop, f"received {number.name}")
        shown = asyncio.create_task(screen.show(shell))
        try:
            await shell.serve(started_event(), until_idle=until_idle)
        finally:
            shown.cancel()
            await asyncio.gather(shown, return_exceptions=True)
    out.print(f"The loop has stopped ({shell.stop_why}).")
    return 0


async def _read_at(log: Worker, position: int) -> Event:
    return (await log.read(position - 1, limit=1))[0]


def make_proposer(settings: st.Settings, root: Path) -> Proposer:
    """The proposer that the settings name. Raises `BadScript` if its file cannot be read."""
    if settings.proposer.kind == "scripted":
        return _scripted(root / settings.scripted.file)
    return Sweep(settings.sweep)


def _scripted(path: Path) -> Scripted:
    try:
        return Scripted.from_data(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise BadScript(f"the script of proposals {path} cannot be read ({error})") from error


def started_event() -> e.LoopStarted:
    """Who this loop process is."""
    process = psutil.Process()
    return e.LoopStarted(
        host=platform.node(),
        boot_id=_boot_id(),
        pid=process.pid,
        pid_started=process.create_time(),
        nightshift=importlib.metadata.version("nightshift"),
        sandbox="none",
    )


def _boot_id() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else f"up-since-{psutil.boot_time():.0f}"


def versions() -> dict[str, str]:
    """Versions that may move a score: of Nightshift, Python, and torch where it is installed."""
    found = {"nightshift": importlib.metadata.version("nightshift"), "python": platform.python_version()}
    with suppress(importlib.metadata.PackageNotFoundError):  # a workspace that trains nothing has none
        found["torch"] = importlib.metadata.version("torch")
    return found
