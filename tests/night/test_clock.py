"""The clock of a machine jumps: an hour back, a day forward. Nothing hangs and nothing is done twice."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from eventstore import events as e
from eventstore.bells import Bell
from eventstore.console import new_id
from eventstore.envelope import Event, NewEvent, format_at
from eventstore.home import Home
from eventstore.worker import Worker
from loop.compose import started_event
from loop.effects.hands import Around
from loop.proposers.base import Ask
from loop.proposers.scripted import Entry, Scripted
from loop.shell import Shell
from loop.workspace import Workspace
from tests.loop.conftest import POLICY, Story, at
from tests.loop.story import git
from trainer.executors.scripted import Answer, ScriptedExecutor, scored
from trainer.spec import TrainingSpec

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
BACK, FORWARD = timedelta(hours=-1), timedelta(days=1)
SETTINGS = """\
[objective]
name = "cost"
direction = "minimize"
editable = ["program.py"]
[experiment]
command = ["python", "program.py"]
budget_s = 5
timeout_s = 30
[proposer]
kind = "scripted"
[scripted]
file = "none.json"
"""


class Clock:
    """Goes on by half a minute each time it is looked at, and jumps when it is told."""

    def __init__(self) -> None:
        self.at = NOON

    def __call__(self) -> datetime:
        self.at += timedelta(seconds=30)
        return self.at


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "program.py").write_text("COST = 1000.0\nprint('cost:', COST)\n")
    (tmp_path / "nightshift.toml").write_text(SETTINGS)
    for words in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-qm", "start")):
        git(tmp_path, *words)
    return tmp_path


def propose(ask: Ask) -> Entry:
    values = {"COST": 1000.0 - ask.experiment}
    return Entry(ask.experiment, description="lower", edits=(e.SetConstants("program.py", values),))


def train(spec: TrainingSpec) -> Answer:
    return scored(float((spec.workdir / "program.py").read_text().split()[2]))


async def night(root: Path, limits: e.Limits, jump: timedelta, when: Callable[[Event], bool]) -> list[Event]:
    """A night whose clock jumps at an event. Returns its log."""
    home, clock, log = Home(root), Clock(), list[Event]()

    def on_event(event: Event) -> None:
        log.append(event)
        if when(event):
            clock.at += jump

    async with Worker.open(home.log_path) as worker, Bell(home.bells) as bell:

        async def read_at(position: int) -> Event:
            return (await worker.read(position - 1, limit=1))[0]

        asked = e.RunRequested(tag="night", from_ref="HEAD", zone="UTC", limits=limits, seed=1)
        await worker.append([NewEvent("ask", "night", format_at(NOON), "cli:person", asked)])
        around = Around(
            home=home,
            workspace=Workspace.open(root),
            executor=ScriptedExecutor(train, gate=asyncio.Event),
            proposer_of=lambda _settings, _kind, _means: Scripted(propose),
            now=clock,
            monotonic=time.monotonic,
            jitter=random.Random(1).random,
            new_id=new_id,
            read_at=read_at,
            about={"host": "box", "versions": {}},
        )
        shell = Shell(worker, around, bell, "loop@box", on_event)
        async with asyncio.timeout(60):
            await shell.serve(started_event(), until_idle=True)
    return log


def of(log: list[Event], kind: type[Any]) -> list[Any]:
    return [event.data for event in log if isinstance(event.data, kind)]


@pytest.mark.parametrize("jump", [BACK, FORWARD], ids=["an hour back", "a day forward"])
@pytest.mark.parametrize("kind", [e.ProposalRequested, e.TrainingStarted, e.ExperimentDecided, e.BranchMoved])
async def test_a_jump_changes_nothing_of_what_is_decided(root: Path, jump: timedelta, kind: type[e.Data]) -> None:
    def when(event: Event) -> bool:
        return isinstance(event.data, kind) and getattr(event.data, "experiment", None) == 1

    log = await night(root, e.Limits(experiments=3), jump, when)
    assert [(x.experiment, x.verdict) for x in of(log, e.ExperimentDecided)] == [(n, "keep") for n in range(4)]
    assert [x.reason for x in of(log, e.RunFinished)] == ["experiments"]
    assert all(x.seconds >= 0 for x in of(log, e.ProposalReceived))


async def test_a_day_forward_ends_a_run_that_had_two_hours_left(root: Path) -> None:
    until = format_at(NOON + timedelta(hours=2))
    log = await night(root, e.Limits(until=until), FORWARD, lambda x: isinstance(x.data, e.BranchMoved))
    assert [x.reason for x in of(log, e.RunFinished)] == ["until"]
    assert len(of(log, e.ExperimentDecided)) < 6


async def test_an_hour_back_gives_a_run_that_hour_and_no_more(root: Path) -> None:
    until = format_at(NOON + timedelta(minutes=30))
    jumps = iter([True])
    log = await night(
        root, e.Limits(until=until), BACK, lambda x: isinstance(x.data, e.BranchMoved) and next(jumps, False)
    )
    assert [x.reason for x in of(log, e.RunFinished)] == ["until"]
    assert max(event.at for event in log) < format_at(NOON + timedelta(minutes=50))


@pytest.mark.parametrize(("minutes", "asked"), [(1, False), (5, True), (24 * 60, True), (-60, True)])
def test_a_proposer_that_is_to_be_left_in_peace_is_asked_again_after_any_jump(minutes: int, asked: bool) -> None:
    """With the clock set back it would wait for an hour longer: it is asked at once instead."""
    story = Story(policy=replace(POLICY, proposer="claude", remote=True)).measured()
    story.minute = 120
    story.asked(1).failed(1, "offline", retry_at=at(125))
    story.minute += minutes
    assert ("propose 1 new, ask 1" in story.next()) == asked
