"""The whole bot, in this process, against a loopback Slack and a log in a folder."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from sqlite_utils.utils import sqlite3

from bot.app import Around, serve
from bot.checkup import Tokens
from bot.sandbox.server import Sandbox
from eventstore import events as e
from eventstore import settings as st
from eventstore.envelope import Event, NewEvent, format_at
from eventstore.home import Home
from eventstore.store import Store

SETTINGS = """\
[objective]
name = "cost"
direction = "minimize"
editable = ["model.py"]
[experiment]
command = ["python", "model.py"]
budget_s = 5
timeout_s = 10
[slack]
channel = "C1"
admins = ["U1"]
operators = ["U2"]
[digest]
at = "off"
"""
_ids = itertools.count(1)


def workspace(folder: Path, settings: str = SETTINGS) -> Home:
    """A workspace with settings and nothing else."""
    (folder / "nightshift.toml").write_text(settings)
    return Home.at(folder)


def around(
    home: Home,
    slack: Sandbox,
    *,
    now: Callable[[], datetime] | None = None,
    change: Callable[[st.Settings], st.Settings] = lambda settings: settings,
    ready: Callable[[], None] = lambda: None,
    ring_every_s: float = 20.0,
    ping_every_s: float = 10.0,
) -> Around:
    """What the bot is made of, for a test."""
    return Around(
        home=home,
        settings=change(st.parse(home.settings_path.read_text())),
        tokens=Tokens(slack.bot_token, slack.app_token),
        base_url=slack.base_url,
        zone="Europe/Berlin",
        host="box",
        now=now or (lambda: datetime.now(UTC)),
        monotonic=time.monotonic,
        new_id=lambda: f"bot-{next(_ids):012d}",
        stop=asyncio.Event(),
        ready=ready,
        ring_every_s=ring_every_s,
        ping_every_s=ping_every_s,
    )


@contextlib.asynccontextmanager
async def held(home: Home, most_s: float = 8.0) -> AsyncIterator[None]:
    """Let nobody else write the log for the length of a `with`, as another process with a long write would."""
    path = str(home.log_path)
    ready, over = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def hold() -> None:
        lock = sqlite3.connect(path, isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        loop.call_soon_threadsafe(ready.set)
        over.wait(most_s)
        lock.execute("ROLLBACK")
        lock.close()

    holding = asyncio.create_task(asyncio.to_thread(hold))
    await ready.wait()
    try:
        yield
    finally:
        over.set()
        await holding


@contextlib.asynccontextmanager
async def serving(made: Around, slack: Sandbox) -> AsyncIterator[None]:
    """Run the bot for the length of a `with`; a fault of it ends the test."""
    before = {socket.number for socket in slack.hub.sockets}  # of an earlier bot, which may be closing still
    bot = asyncio.create_task(serve(made))
    connected = asyncio.create_task(
        slack.until(lambda: any(socket.number not in before for socket in slack.hub.sockets), timeout_s=60)
    )
    await asyncio.wait({bot, connected}, return_when=asyncio.FIRST_COMPLETED)
    if bot.done():
        connected.cancel()
        await bot
    try:
        await connected
        yield
    finally:
        made.stop.set()
        async with asyncio.timeout(15):
            await bot


def append(home: Home, run: str, *data: e.Data, actor: str = "loop@box") -> list[int]:
    """Append events as the loop or someone at the command line would."""
    with Store.open(home.log_path) as log:
        at = format_at(datetime.now(UTC))
        return log.append([NewEvent(f"test-{next(_ids)}", run, at, actor, one) for one in data])


def logged(home: Home, kind: type[e.Data] | None = None) -> list[Event]:
    """The events of the log, of one type if *kind* is given."""
    with Store.open(home.log_path, check=False) as log:
        return [event for event in log.stream() if kind is None or isinstance(event.data, kind)]


def started(tag: str = "nov21", settings: dict[str, object] | None = None) -> Sequence[e.Data]:
    """The events of a run that was asked for and has started."""
    data = st.to_data(st.parse(SETTINGS))
    return (
        e.RunRequested(tag=tag, from_ref="HEAD", zone="UTC"),
        e.RunStarted(
            branch=f"autoresearch/{tag}",
            base_commit="a" * 40,
            settings=data | (settings or {}),
            limits=e.Limits(),
            program_hash="",
            harness_hash="",
            settings_hash="",
            seed=1,
            host="box",
            device="cpu",
            sandbox="none",
            versions={},
        ),
    )


def with_slack(**changes: object) -> Callable[[st.Settings], st.Settings]:
    """Change keys of [slack]."""
    return lambda settings: msgspec.structs.replace(settings, slack=msgspec.structs.replace(settings.slack, **changes))
