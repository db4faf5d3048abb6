"""How long people wait for the bot: 50 slash commands at once, from the envelope to its ack. Slack's limit is 3 s.

    python benchmarks/bench_ack.py [--quick]

The real bot, as a process of its own, against the loopback Slack in this one; real sockets, a real log on this disk.
Every command asks for something that is appended before its ack (`idea ...`). First on a free log; then once more
while another process holds the log's write lock, where the bot is to ack at the latest after 1 s and to tell the
outcome later. The time of an ack is what the loopback Slack has in its record: envelope sent to ack received. Told is
the time until the answer that everyone sees stands.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from statistics import median

from table import Row, p99, run, show_time, times

from bot.sandbox.clock import LoopClock
from bot.sandbox.methods import SCOPES
from bot.sandbox.server import Sandbox, Seen
from eventstore import events as e
from eventstore.home import Home
from eventstore.store import Store

LIMIT_S = 3.0
"""After which Slack shows the person `operation_timeout`."""
TARGET_S = 0.2
COMMANDS = 50
HOLD_S = 2.0
PATIENCE_S = 60.0
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
operators = ["U1", "U2"]
[digest]
at = "off"
"""
HOLDER = """\
import sqlite3, sys, time
log = sqlite3.connect(sys.argv[1], isolation_level=None)
log.execute("BEGIN IMMEDIATE")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
log.execute("ROLLBACK")
"""


def measure(quick: bool) -> list[Row]:
    """The rows: on a free log, and while another process holds it."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "nightshift.toml").write_text(SETTINGS)
        return asyncio.run(both(Home.at(Path(folder)), 10 if quick else COMMANDS))


async def both(home: Home, commands: int) -> list[Row]:
    async with Sandbox(clock=LoopClock(time.time()), scopes=SCOPES) as slack:
        async with serving(home, slack):
            free = await burst(slack, "a", commands)
        async with serving(home, slack):  # a new one, that has no answers of the first to give still
            with holding(home, HOLD_S):
                held = await burst(slack, "b", commands)
    with Store.open(home.log_path) as log:
        ideas = [event for event in log.stream() if isinstance(event.data, e.IdeaSuggested)]
    if len(ideas) != 2 * commands:
        sys.exit(f"{len(ideas)} of {2 * commands} are in the log")
    what = f"{commands} slash commands at once, envelope to ack, p99"
    return [
        row(what, free, TARGET_S),
        row(f"the same while another process holds the log for {HOLD_S:g} s", held, None),
    ]


async def burst(slack: Sandbox, name: str, commands: int) -> Sequence[tuple[Seen, float]]:
    """So many commands at once, each with the seconds after which its outcome was told."""

    async def one(number: int) -> tuple[Seen, float]:
        began = time.perf_counter()
        text = f"idea {name}{number} try a longer warmdown"
        seen = await slack.command("/nightshift", text, user="U1", wait_s=0)
        await slack.until(lambda: any(f"{name}{number} " in post.text for post in seen.posts), PATIENCE_S)
        return seen, time.perf_counter() - began

    return await asyncio.gather(*(one(number) for number in range(commands)))


@asynccontextmanager
async def serving(home: Home, slack: Sandbox) -> AsyncIterator[None]:
    """`nightshift bot`, as a process."""
    own = {"SLACK_BOT_TOKEN": slack.bot_token, "SLACK_APP_TOKEN": slack.app_token, "SLACK_API_URL": slack.base_url}
    command = (sys.executable, "-m", "nightshift", "-C", str(home.root), "bot")
    process = await asyncio.create_subprocess_exec(*command, env={**os.environ, **own}, stderr=subprocess.DEVNULL)
    try:
        await slack.connected(timeout_s=PATIENCE_S)
        await slack.command("/nightshift", "whoami", user="U1")  # who asks is looked up, as after any first command
        yield
    finally:
        process.terminate()
        await process.wait()
        await slack.until(lambda: not slack.hub.sockets, PATIENCE_S)


@contextmanager
def holding(home: Home, seconds: float) -> Iterator[None]:
    """Another process holds the log's write lock for so long, from before the first command on."""
    command = (sys.executable, "-c", HOLDER, str(home.log_path), str(seconds))
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield


def row(what: str, seen: Sequence[tuple[Seen, float]], target_s: float | None) -> Row:
    acks_s = [one.ack_s for one, _ in seen if one.ack_s is not None]
    late = sum(one.timed_out for one, _ in seen)
    worst, told = p99(acks_s), max(told_s for _, told_s in seen)
    ours = f"{show_time(worst)} (p50 {show_time(median(acks_s))}; {late} late; told within {show_time(told)})"
    is_met = None if target_s is None else worst <= target_s and not late
    target = f"{show_time(target_s)} or less" if target_s is not None else ""
    return Row(what, ours, "Slack's limit", show_time(LIMIT_S), times(worst, LIMIT_S), target, is_met)


if __name__ == "__main__":
    run(__doc__, measure)
