"""One night from the first command to the last row: a real loop process, the real bot, a strict Slack."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from bot.sandbox.clock import LoopClock
from bot.sandbox.methods import HISTORY, SCOPES
from bot.sandbox.server import Sandbox
from eventstore import events as e
from eventstore.home import Home
from eventstore.projections.results import Results
from tests.bot.serving import around, logged, serving

ROOT = Path(__file__).parents[2]
BERLIN = ZoneInfo("Europe/Berlin")
GIT = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
SETTINGS = """\
[objective]
name = "cost"
direction = "minimize"
editable = ["model.py"]
[experiment]
command = ["python", "model.py"]
budget_s = 5
timeout_s = 20
[sweep]
X = { low = -4.0, high = 8.0 }
[slack]
channel = "C1"
admins = ["U1"]
operators = ["U2"]
[digest]
at = "08:00"
zone = "Europe/Berlin"
"""
MODEL = "import time\nX = 8.0\ntime.sleep(2.5)\nprint(f'cost: {(X - 2) ** 2 + 1:.6f}')\n"
PROGRAM = "# Goal\n\nMake the cost small.\n\n# Rules\n\nChange X only.\n"


def repository(folder: Path) -> Home:
    for name, text in (("model.py", MODEL), ("program.md", PROGRAM), ("nightshift.toml", SETTINGS)):
        (folder / name).write_text(text)
    for args in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-q", "-m", "a program")):
        command = ("git", "-c", "user.name=A", "-c", "user.email=a@example.org", *args)
        subprocess.run(command, cwd=folder, env={**os.environ, **GIT}, check=True, capture_output=True)
    return Home.at(folder)


@contextlib.asynccontextmanager
async def loop_process(home: Home) -> AsyncIterator[None]:
    """`nightshift loop`, as another process."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "nightshift", "-C", str(home.root), "loop"),
        cwd=ROOT,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        async with asyncio.timeout(20):
            assert await process.wait() == 0


class Clock:
    """The time, which a test may move."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def move_to(self, hour: int) -> datetime:
        """Move it to a little after the next time that clocks in Berlin show *hour*."""
        there = self.now().astimezone(BERLIN)
        due = there.replace(hour=hour, minute=0, second=0, microsecond=0)
        due = due if due > there else due + timedelta(days=1)
        self.ahead += due - there + timedelta(seconds=5)
        return due


async def test_a_night(tmp_path: Path) -> None:
    home, clock = repository(tmp_path), Clock()
    slack = Sandbox(clock=LoopClock(time.time()), scopes=SCOPES | HISTORY | {"files:read"})
    async with slack, loop_process(home), serving(around(home, slack, now=clock.now, ring_every_s=0.2), slack):
        # the evening: someone starts a run
        seen = await slack.command("/nightshift", "start night", user="U1", channel="C1")
        assert seen.acked
        await slack.until(lambda: len(slack.messages("C1")) >= 2, timeout_s=20)
        parent = next(post for post in slack.messages("C1") if "Asked for" not in post.text)
        # experiments appear below its message
        await slack.until(
            lambda: (
                sum("kept" in reply.text or "discarded" in reply.text for reply in slack.thread("C1", parent.ts)) >= 2
            ),
            timeout_s=30,
        )
        verdicts = logged(home, e.ExperimentDecided)
        assert len(verdicts) >= 2
        # the morning: the digest, with a picture
        due = clock.move_to(8)
        await slack.until(lambda: any("Nightshift digest" in post.text for post in slack.messages("C1")), timeout_s=20)
        (digest,) = (post for post in slack.messages("C1") if "Nightshift digest" in post.text)
        (picture,) = slack.pictures(digest)
        assert picture.data.startswith(b"\x89PNG") and "cost" in picture.alt_text
        await slack.until(lambda: f"digest/C1/{due:%Y-%m-%d}" in made(home))
        # someone changes what to research, and the next proposal follows it
        (view,) = (await slack.command("/nightshift", "program", user="U1")).views
        await slack.submit(view.id, {"section-0": "# Goal\n\nMake the cost tiny."}, user="U1")
        await slack.submit(view.id, user="U1")
        (edited,) = logged(home, e.ProgramEdited)
        assert isinstance(edited.data, e.ProgramEdited)
        new = edited.data.hash
        await slack.until(lambda: any(asked(home, new)), timeout_s=20)
        # and ends the run with a click
        seen = await slack.click(parent.ts, "stop", user="U2")
        await slack.until(lambda: logged(home, e.RunFinished), timeout_s=20)
        await slack.until(lambda: "finished" in slack.messages("C1")[-1].text, timeout_s=40)
    results = Results()
    for event in logged(home):
        results.apply(event)
    assert results.tsv("night") == (home.root / "results.tsv").read_text() == home.results_path("night").read_text()
    keys = [event.data.key for event in logged(home, e.PostRequested) if isinstance(event.data, e.PostRequested)]
    assert len(keys) == len(set(keys))
    assert not slack.timeouts and not slack.early_retries
    assert {ping.who for ping in slack.pings} <= {"U1", "U2"}


def made(home: Home) -> list[str]:
    """The keys of the posts that stand."""
    return [event.data.key for event in logged(home, e.PostMade) if isinstance(event.data, e.PostMade)]


def asked(home: Home, program_hash: str) -> list[bool]:
    """Of each proposal asked for, whether it was for that program."""
    return [
        isinstance(event.data, e.ProposalRequested) and event.data.program_hash == program_hash
        for event in logged(home, e.ProposalRequested)
    ]
