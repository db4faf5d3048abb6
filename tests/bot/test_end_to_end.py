"""One night from the first command to the last row: a real loop process, the real bot, a strict Slack."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from bot import blocks
from bot.sandbox.methods import HISTORY, SCOPES
from bot.sandbox.model import Posted
from bot.sandbox.server import Sandbox, Seen
from eventstore import events as e
from eventstore.home import Home
from eventstore.projections.results import Results
from tests.bot.looked_at import said
from tests.bot.serving import around, logged, serving

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0
"""For what takes seconds on a machine that has nothing else to do."""
GIT = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
SETTINGS = """\
[objective]
name = "cost"
direction = "minimize"
editable = ["model.py"]
[experiment]
command = ["python", "model.py"]
budget_s = 5
timeout_s = 60
[proposer]
kind = "sweep"
[sweep]
X = {{ low = -4.0, high = 8.0 }}
[slack]
channel = "C1"
admins = ["U1"]
operators = ["U2"]
[digest]
at = "08:00"
zone = "{zone}"
"""
MODEL = """\
import os
import time

X = 8.0
print(dict(os.environ))
time.sleep(2.5)
print(f'cost: {(X - 2) ** 2 + 1:.6f}')
"""
PROGRAM = "# Goal\n\nMake the cost small.\n\n# Rules\n\nChange X only.\n"


def repository(folder: Path, zone: str) -> Home:
    """A repository that knows nothing of Nightshift, and settings in it."""
    settings = SETTINGS.format(zone=zone)
    for name, text in (("model.py", MODEL), ("program.md", PROGRAM), ("nightshift.toml", settings)):
        (folder / name).write_text(text)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "a program")
    return Home.at(folder)


def git(folder: Path, *args: str) -> str:
    command = ("git", "-c", "user.name=A", "-c", "user.email=a@example.org", *args)
    done = subprocess.run(command, cwd=folder, env={**os.environ, **GIT}, check=True, capture_output=True, text=True)
    return done.stdout


@contextlib.asynccontextmanager
async def loop_process(home: Home, output: Path, **environ: str) -> AsyncIterator[None]:
    """`nightshift loop`, as another process; what it says goes to *output*."""
    with output.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "nightshift", "-C", str(home.root), "loop"),
            cwd=ROOT,
            env={**os.environ, **environ},
            stdout=file,
            stderr=file,
        )
    try:
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(PATIENCE_S):
            code = await process.wait()
        assert code == 0, said_in(output)


def said_in(output: Path) -> str:
    return output.read_text(errors="replace")


def bot_beside(home: Home, slack: Sandbox, clock: Clock) -> contextlib.AbstractAsyncContextManager[None]:
    """The bot, in this process, on the clock of the test."""
    return serving(around(home, slack, now=clock.at, ring_every_s=0.2), slack)


class Clock:
    """The time, for Slack and the bot, which the test may move. Where *zone* is, it is evening at first."""

    def __init__(self) -> None:
        ahead = (20 - datetime.now(UTC).hour + 11) % 24 - 11
        self.zone = f"Etc/GMT{-ahead:+d}"  # the sign is the other way round there
        self._moved = timedelta()
        self._jump = asyncio.Event()

    def at(self) -> datetime:
        return datetime.now(UTC) + self._moved

    def now(self) -> float:
        return self.at().timestamp()

    async def until(self, moment: float) -> None:
        while (left := moment - self.now()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._jump.wait(), left)

    def move_to(self, hour: int) -> datetime:
        """Move it to a little after *hour* of the next day; returns the hour sharp."""
        there = self.at().astimezone(ZoneInfo(self.zone))
        assert 20 <= there.hour < 22
        due = there.replace(hour=hour, minute=0, second=0, microsecond=0) + timedelta(days=1)
        self.advance(due - there + timedelta(seconds=5))
        return due

    def advance(self, by: timedelta) -> None:
        self._moved += by
        self._jump.set()
        self._jump = asyncio.Event()


async def test_a_night(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "apscheduler")
    caplog.set_level(logging.INFO)
    clock = Clock()
    (tmp_path / "work").mkdir()
    home = repository(tmp_path / "work", clock.zone)
    slack = Sandbox(clock=clock, scopes=SCOPES | HISTORY | {"files:read"})
    tokens = {"SLACK_BOT_TOKEN": slack.bot_token, "SLACK_APP_TOKEN": slack.app_token}
    async with slack, loop_process(home, tmp_path / "loop.out", **tokens), bot_beside(home, slack, clock):
        parent = await evening(home, slack)
        due = clock.move_to(8)
        await morning(home, slack, f"digest/C1/{due:%Y-%m-%d}")
        await new_program(home, slack)
        await end(home, slack, parent, clock)
    check_results(home)
    check_slack(slack)
    check_thread(slack, parent)
    keys = [event.data.key for event in logged(home, e.PostRequested) if isinstance(event.data, e.PostRequested)]
    assert len(keys) == len(set(keys)) and not logged(home, e.PostFailed)
    assert "Traceback" not in caplog.text and "serving C1 in the workspace" in caplog.text
    check_secrets(tmp_path, caplog.text, *tokens.values())


# ---------------------------------------------------------------- what people do


async def evening(home: Home, slack: Sandbox) -> Posted:
    """Someone starts a run; its message appears, and experiments below it. Returns the message."""
    seen = await slack.command("/nightshift", "start night", user="U1", channel="C1")
    assert seen.acked
    await soon(slack, lambda: post(slack, "run/night@"))
    parent = post(slack, "run/night@")
    assert parent is not None
    await soon(slack, lambda: len([key for _, key in replies(slack, parent) if key.endswith("/verdict")]) >= 3)
    assert any("Asked for the run night" in one.text for one in slack.messages("C1"))
    assert len(logged(home, e.ExperimentDecided)) >= 3
    return parent


async def morning(home: Home, slack: Sandbox, key: str) -> None:
    """It is eight: the digest comes, with a picture that everyone can read of."""
    await soon(slack, lambda: post(slack, key))
    digest = post(slack, key)
    assert digest is not None and "Nightshift digest" in digest.text
    await soon(slack, lambda: slack.pictures(digest))
    (picture,) = slack.pictures(digest)
    assert picture.data.startswith(b"\x89PNG") and "cost" in picture.alt_text
    shown = [block for block in digest.blocks if block["type"] == "image"]
    assert [block["slack_file"]["id"] for block in shown] == [picture.id] and shown[0]["alt_text"] == picture.alt_text
    await soon(slack, lambda: any(isinstance(x.data, e.PostMade) and x.data.key == key for x in logged(home)))


async def new_program(home: Home, slack: Sandbox) -> None:
    """Someone changes what to research, is asked once more, and the next proposals follow it."""
    form = await opened(slack, await slack.command("/nightshift", "program", user="U1"))
    await slack.submit(form, {"section-0": "# Goal\n\nMake the cost tiny."}, user="U1")
    assert not logged(home, e.ProgramEdited)
    assert "tiny" in said(slack.views("U1")[-1].body["blocks"])
    await slack.submit(form, user="U1")
    await soon(slack, lambda: logged(home, e.ProgramEdited))
    (edited,) = logged(home, e.ProgramEdited)
    assert isinstance(edited.data, e.ProgramEdited) and edited.actor == "slack:T1/U1"
    new, text = edited.data.hash, edited.data.text
    assert text == PROGRAM.replace("small", "tiny")
    await soon(slack, lambda: post(slack, "program/"))
    told = post(slack, "program/")
    assert told is not None
    words = said(told.blocks)
    assert "<@U1>" in words and "-Make the cost small." in words and "+Make the cost tiny." in words
    await soon(slack, lambda: committed_for(home, new))
    assert all(git(home.root, "show", f"{commit}:program.md") == text for commit in committed_for(home, new))


async def end(home: Home, slack: Sandbox, parent: Posted, clock: Clock) -> None:
    """Someone ends the run with a click; everything that happened is told before this is over."""
    await slack.click(parent.ts, "stop", user="U2")
    await soon(slack, lambda: logged(home, e.RunFinished))
    (asked,) = logged(home, e.RunStopRequested)
    assert asked.actor == "slack:T1/U2"
    await soon(slack, lambda: post(slack, "run/night@", "/finished"))
    clock.advance(timedelta(minutes=1))  # messages are not changed more often
    await soon(slack, lambda: "finished" in parent.text)
    home_tab = (await slack.open_home("U2")).home
    assert home_tab is not None and "night" in said(home_tab.body["blocks"])


# ---------------------------------------------------------------- what there is then


def check_results(home: Home) -> None:
    """What the loop wrote is what the log says, to the byte."""
    results = Results()
    for event in logged(home):
        results.apply(event)
    written = (home.root / "results.tsv").read_bytes()
    assert results.tsv("night").encode() == written == home.results_path("night").read_bytes()
    command = (sys.executable, "-m", "nightshift", "-C", str(home.root), "results")
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    assert printed.stdout == written
    rows = [line.split("\t") for line in written.decode().splitlines()]
    decided = logged(home, e.ExperimentDecided)
    assert rows[0] == ["commit", "cost", "memory_gb", "status", "description"] and len(rows) == 1 + len(decided)
    assert rows[1][1:] == ["37.000000", "0.0", "keep", "baseline"]


def check_slack(slack: Sandbox) -> None:
    """Slack took everything, in time, and nobody was notified who did nothing."""
    assert not slack.timeouts and not slack.early_retries and not slack.hub.refused and not slack.hub.strays
    assert {call.error for call in slack.calls} == {None}
    assert {ping.who for ping in slack.pings} <= {"U1", "U2"}
    for room in slack.space.messages.values():
        for one in room:
            for version in (*one.edits, one):
                payload = {"text": version.text, "blocks": list(version.blocks)}
                assert not blocks.problems(payload, "message"), payload
    for shown in slack.space.ephemerals:
        assert not blocks.problems({"text": shown.text, "blocks": list(shown.blocks)}, "message")
    for view in slack.space.homes.values():
        for body in (*view.history, view.body):
            assert not blocks.problems(sent(body), "home")
    for view in slack.space.views.values():
        if view.body["type"] == "modal":
            for body in (*view.history, view.body):
                assert not blocks.problems(sent(body), "modal")


def check_thread(slack: Sandbox, parent: Posted) -> None:
    """Every experiment has its plan, if it had one, before its verdict, and neither twice."""
    told = [re.sub(r"^run/night@\d+/", "", key) for _, key in replies(slack, parent)]
    assert len(told) == len(set(told))
    for number in (1, 2, 3):
        assert told.index(f"{number}/plan") < told.index(f"{number}/verdict")
    assert told.index("0/verdict") < told.index("1/verdict") < told.index("2/verdict") < told.index("3/verdict")


def check_secrets(folder: Path, log: str, *tokens: str) -> None:
    """No token is in anything that was written: the log, what programs said, what experiments printed."""
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert {"loop.out", "events.db"} <= {path.name for path in written}
    for token in tokens:
        assert token not in log
        assert not [path for path in written if token.encode() in path.read_bytes()]


# ---------------------------------------------------------------- looking


async def soon(slack: Sandbox, holds: Callable[[], object]) -> None:
    await slack.until(holds, PATIENCE_S)


async def opened(slack: Sandbox, seen: Seen) -> str:
    """The id of the form that an act of a person opened."""
    await soon(slack, lambda: seen.views)
    return seen.views[-1].id


def committed_for(home: Home, program_hash: str) -> list[str]:
    """The commits of experiments that were proposed for that program."""
    proposed = {
        event.data.experiment
        for event in logged(home, e.ProposalRequested)
        if isinstance(event.data, e.ProposalRequested) and event.data.program_hash == program_hash
    }
    return [
        event.data.commit
        for event in logged(home, e.ExperimentCommitted)
        if isinstance(event.data, e.ExperimentCommitted) and event.data.experiment in proposed
    ]


def keyed(slack: Sandbox) -> Iterator[tuple[Posted, str]]:
    """The messages of the channel and its threads that have keys, oldest first."""
    for one in slack.space.messages.get("C1", ()):
        key = ((one.metadata or {}).get("event_payload") or {}).get("key")
        if key is not None:
            yield one, str(key)


def post(slack: Sandbox, start: str, last: str = "") -> Posted | None:
    """The first message whose key starts and ends so, or None."""
    found = (one for one, key in keyed(slack) if key.startswith(start) and key.endswith(last))
    return next(found, None)


def replies(slack: Sandbox, parent: Posted) -> list[tuple[Posted, str]]:
    """What stands below a message, with keys."""
    return [(one, key) for one, key in keyed(slack) if one.thread_ts == parent.ts != one.ts]


def sent(body: dict[str, object]) -> dict[str, object]:
    """A view as the bot sent it: without what Slack adds."""
    return {name: value for name, value in body.items() if name not in ("id", "hash")}
