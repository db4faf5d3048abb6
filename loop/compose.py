"""Put the loop process together: doors, clock, ids, settings, screen. Nothing here decides anything."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import platform
import random
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
from eventstore.maintenance import verify
from eventstore.recovery import check_commits, check_versions
from eventstore.worker import Worker
from loop.effects import views
from loop.effects.hands import Around, Means
from loop.effects.leftovers import put_away
from loop.errors import BadScript, CannotPropose
from loop.proposers.base import Proposer
from loop.proposers.folder import remove
from loop.proposers.scripted import Scripted
from loop.proposers.sweep import Sweep
from loop.screen import Screen
from loop.shell import Shell
from loop.workspace import Workspace
from trainer.executors.local import LocalExecutor
from trainer.marks import kill_marked
from trainer.process import machine
from trainer.sandbox import plan


async def serve(
    home: Home,
    *,
    until_idle: bool,
    out: Console,
    until_held: bool = False,
    open_log: Callable[[Path], AbstractAsyncContextManager[Worker]] = Worker.open,
) -> int:
    """Compose the loop and run it to its end. The lock is held by the caller; *open_log* opens the log."""
    killed = kill_marked(home.mark_id)  # first: what an earlier loop began, a git command too, goes on without it
    if killed:
        out.print(f"Killed {len(killed)} processes that an earlier loop left behind.")
    workspace = Workspace.open(home.root, mark=f"{home.mark_id}/git")
    for name in workspace.clear_locks():
        out.print(f"Removed {name}, a lock that a dead git command left behind.")
    workspace.clear_scratch()
    workspace.exclude("/.nightshift/")
    workspace.exclude("/results.tsv")
    remove(home.state / "proposals")  # folders of asks that it left
    for problem in put_away(home):
        out.print(problem, style="red")
    async with open_log(home.log_path) as log, Bell(home.bells) as bell:
        await asyncio.to_thread(check_log, home, workspace)
        around = Around(
            home=home,
            workspace=workspace,
            executor=LocalExecutor(),
            proposer_of=make_proposer,
            now=now,
            monotonic=time.monotonic,
            jitter=random.random,
            new_id=new_id,
            read_at=lambda position: _read_at(log, position),
            about={"host": platform.node(), "versions": versions()},
        )
        screen = Screen(out, time.monotonic, live_from=(await log.head()).position)
        shell = Shell(log, around, bell, f"loop@{platform.node()}", screen.on_event)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, shell.stop, f"received {number.name}")
        shown = asyncio.create_task(screen.show(shell))
        try:
            await shell.serve(started_event(), until_idle=until_idle, until_held=until_held)
        finally:
            shown.cancel()
            await asyncio.gather(shown, return_exceptions=True)
    out.print(f"The loop has stopped ({shell.stop_why}).")
    return 0


def check_log(home: Home, workspace: Workspace) -> None:
    """
    Check every row of the log before anything follows from it, and that it is the one that our commits name.

    Raises:
        LogCorrupt, NotALog: If it is damaged, rewritten or an older one.
        EventsTooNew: If a newer Nightshift wrote facts to it that this one cannot read.
    """
    verify(home.log_path)
    check_versions(home.log_path)
    check_commits(home.log_path, workspace.log_heads())


async def _read_at(log: Worker, position: int) -> Event:
    return (await log.read(position - 1, limit=1))[0]


def make_proposer(settings: st.Settings, kind: str, means: Means) -> Proposer:
    """The proposer of that kind. Raises `CannotPropose` with the remedy."""
    if kind == "scripted":
        return _scripted(means.root / settings.scripted.file)
    if kind == "claude":
        return _claude(settings)
    if kind == "agent":
        return _agent(settings, means)
    return Sweep(settings.sweep)


def claude_key() -> str:
    """The key for Anthropic's API, from the environment. Raises `CannotPropose` if there is none."""
    key = os.environ.get("ANTHROPIC_API_KEY", "").strip()
    if not key:
        raise CannotPropose(
            "proposer.kind = 'claude' needs a key and the loop has none",
            "set ANTHROPIC_API_KEY in the environment of `nightshift loop` and ask again",
        )
    return key


def _claude(settings: st.Settings) -> Proposer:
    key = claude_key()
    from loop.proposers.claude import Claude  # noqa: PLC0415 - the SDK takes a second that only this kind should pay

    return Claude(settings.claude, api_key=key, base_url=os.environ.get("ANTHROPIC_BASE_URL") or None)


def _agent(settings: st.Settings, means: Means) -> Proposer:
    from loop.proposers.agent import Agent  # noqa: PLC0415 - as above

    return Agent(
        settings.agent,
        editable=tuple(settings.objective.editable),
        protected=tuple(settings.objective.protected),
        prompt_tokens=settings.claude.prompt_tokens,
        folder_of=means.folder_of,
        checkout=means.checkout,
        mark_of=means.mark_of,
        environ=os.environ,
        view=views.of_agent(settings, Home(means.root)),
    )


def _scripted(path: Path) -> Scripted:
    try:
        return Scripted.from_data(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
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
        sandbox=plan.words("best", machine()),
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
