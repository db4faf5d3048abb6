"""Each message stands once and in order although the bot is killed around any call that it makes. Real processes.

The night here is told step by step by the test, which stands for the loop and for a person. The first life of the bot
is left alone: every call of it that posts, uploads, edits or answers is a place to kill another bot at, at each moment
that such a call has.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bot.sandbox.methods import HISTORY, SCOPES
from bot.sandbox.model import Posted
from bot.sandbox.server import Sandbox
from eventstore import events as e
from eventstore.envelope import Event, NewEvent, format_at
from eventstore.files import replace_file
from eventstore.requests import text_hash
from eventstore.store import Store
from tests.bot.killed_driver import moved, named
from tests.bot.nights import ADA, LOOP, Night
from tests.bot.outgoing import FILES, shown
from tests.bot.serving import SETTINGS, workspace

ROOT = Path(__file__).parents[2]
DRIVER = Path(__file__).parent / "killed_driver.py"
SPEED = 100.0
DIGEST = "digest/C1/2026-11-22"
NIGHT, NEXT = "run/night", "run/next"
PROGRAM = "# Goal\n\nMake it small.\n"

ALL = SCOPES | FILES | HISTORY

POST_MOMENTS = ("claimed", "arrived", "done", "replied", "appended")
"""After `post.requested`; before Slack looks; when it is posted; when the bot knows; after `post.made`."""
CALL_MOMENTS = ("arrived", "done", "answered")
"""Before Slack looks; when it is done; when the answer has left. The log holds nothing of such a call."""


# ---------------------------------------------------------------- the night


class Loop(Night):
    """What a loop and a person append, at the time of the fast clock."""

    def __init__(self, log: Store, now: Callable[[], datetime]) -> None:
        super().__init__()
        self.store, self.clock, self.said = log, now, 0

    def say(self, data: e.Data, run: str = "night", actor: str = LOOP, cause: int | None = None) -> int:
        self.said += 1
        is_of_run = data.TYPE not in ("program.recorded", "program.edited")
        event = NewEvent(f"told-{self.said}", run if is_of_run else "", format_at(self.clock()), actor, data, cause)
        return self.store.append([event])[0]

    def edit_program(self) -> None:
        new = PROGRAM + "\n# Rules\n\nBe brief.\n"
        self.say(e.ProgramEdited(base_hash=text_hash(PROGRAM), hash=text_hash(new), text=new), actor=ADA)


@dataclass(frozen=True)
class Step:
    """
    A part of the night, over when so much stands in Slack and in the log.

    Attributes:
        happens: Tells it; or None for the person who asks for results.
        keys: The posts that it leads to.
        parents: What the message of a run says at the end of it, by the key.
    """

    happens: Callable[[Loop], object] | None
    keys: tuple[str, ...] = ()
    parents: Mapping[str, str] = field(default_factory=dict)
    later: timedelta = timedelta()


def begin(loop: Loop) -> None:
    loop.say(e.ProgramRecorded(hash=text_hash(PROGRAM), text=PROGRAM))
    loop.ask("night", experiments=50)


def start(loop: Loop) -> None:
    loop.start("night", experiments=50)
    loop.experiment(0, "keep", "night", score=1.0)


def go_on_with_next(loop: Loop) -> None:
    loop.start("next")
    loop.experiment(0, "keep", "next", score=1.0)


STORY = (
    Step(begin, (NIGHT,), {NIGHT: "waits its turn"}),
    Step(start, (f"{NIGHT}/0/verdict",), {NIGHT: "running"}),
    Step(
        lambda loop: loop.experiment(1, "keep", "night", score=0.9),
        (f"{NIGHT}/1/plan", f"{NIGHT}/1/verdict", f"{NIGHT}/best/1"),
        {NIGHT: "0.9"},
    ),
    Step(lambda loop: loop.ask("next"), (NEXT,), {NEXT: "waits its turn"}),
    Step(
        lambda loop: loop.experiment(2, "discard", "night", score=1.1),
        (f"{NIGHT}/2/plan", f"{NIGHT}/2/verdict"),
        {NIGHT: "after 48 more"},
    ),
    Step(Loop.edit_program, ("program/",)),
    Step(None),
    Step(lambda loop: loop.finish("night"), (f"{NIGHT}/finished",), {NIGHT: "finished"}),
    Step(go_on_with_next, (f"{NEXT}/0/verdict",), {NEXT: "running"}),
    Step(lambda _loop: None, (DIGEST, f"{DIGEST}/1", f"{DIGEST}/2"), later=timedelta(hours=10)),
)
THREAD = [f"{NIGHT}/{rest}" for rest in ("0/verdict", "1/plan", "1/verdict", "2/plan", "2/verdict")]


# ---------------------------------------------------------------- where and when to kill


@dataclass(frozen=True)
class Point:
    """*moment* of *call*, which is the key of a post, or a method and what tells this call of it from the others."""

    moment: str
    call: str

    def __str__(self) -> str:
        return f"{self.moment} {self.call}"


@dataclass
class Life:
    """
    A night with a bot that is killed at each of *points*, one after the other, and started again each time.

    Attributes:
        calls: Every place there was to kill at, in order.
        deaths: Where it was killed.
    """

    folder: Path
    points: Sequence[Point]
    scopes: frozenset[str]
    calls: list[str] = field(default_factory=list)
    deaths: list[Point] = field(default_factory=list)
    step: int = 0
    process: asyncio.subprocess.Process | None = None
    killed: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.left = list(self.points)
        self.began = time.time()
        self.folder.mkdir()
        self.home = workspace(self.folder, SETTINGS.replace('at = "off"', 'at = "08:00"\nzone = "UTC"'))
        self.slack = Sandbox(clock=self, scopes=self.scopes, salt="A")
        self.slack.watch = self.watch
        self.log: list[Event] = []

    # the clock of Slack

    def now(self) -> float:
        return moved(self.folder, self.began, SPEED)

    async def until(self, moment: float) -> None:
        await asyncio.sleep(max(0.0, moment - self.now()) / SPEED)

    # the killer

    def watch(self, moment: str, method: str, args: Mapping[str, Any]) -> bool:
        call = self.call_of(method, args)
        if call is None:
            return False
        if moment == "arrived" and call not in self.calls:
            self.calls.append(call)
        point = Point(moment, call)
        if point not in self.left or self.process is None:
            return False
        self.died_at(point)
        self.killed.add(self.process.pid)
        self.process.kill()
        return True

    def died_at(self, point: Point) -> None:
        self.left.remove(point)
        self.deaths.append(point)

    def call_of(self, method: str, args: Mapping[str, Any]) -> str | None:
        """The name of a call that people see something of; of edits and answers one in each step that must have one."""
        if method == "chat.postMessage":
            return named(args["metadata"]["event_payload"]["key"])
        if method == "chat.update":
            key, step = named(args["metadata"]["event_payload"]["key"]), STORY[self.step]
            return f"edit {key} in step {self.step}" if key in step.parents and key not in step.keys else None
        if method == "response_url":
            return f"answer in step {self.step}"
        if method == "files.getUploadURLExternal":
            return f"announce {args['filename']}"
        if method == "upload":
            return f"upload {self.slack.space.files[args['file']].name}"
        if method == "files.completeUploadExternal":
            return f"complete {self.slack.space.files[args['files'][0]['id']].name}"
        return None

    # the bot

    async def keep_alive(self) -> None:
        """Start a bot, and another one whenever it was killed."""
        while True:
            planned = next((point for point in self.left if point.moment in ("claimed", "replied", "appended")), None)
            mine = (planned.moment, planned.call) if planned is not None else ("never", "-")
            with (self.folder / "stderr").open("ab") as said:
                self.process = await asyncio.create_subprocess_exec(
                    *(sys.executable, str(DRIVER), str(self.folder), self.slack.base_url),
                    *(repr(self.began), str(SPEED), *mine),
                    cwd=ROOT,
                    env={"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"},
                    stderr=said,
                )
            deaths = len(self.deaths)
            try:
                code = await self.process.wait()
            except asyncio.CancelledError:  # the test failed
                self.process.kill()
                await self.process.wait()
                raise
            if code == 0:
                return
            assert code == -9, (self.folder / "stderr").read_text()[-4_000:]
            if len(self.deaths) == deaths:
                assert planned is not None
                self.died_at(planned)

    # the night

    async def live(self) -> None:
        """Tell the whole story, each step once the one before it is over."""
        async with self.slack, asyncio.TaskGroup() as tasks:
            with contextlib.ExitStack() as stack:
                stack.enter_context(self.home.hold())
                store = stack.enter_context(Store.open(self.home.log_path))
                loop = Loop(store, lambda: datetime.fromtimestamp(self.now(), UTC))
                alive = tasks.create_task(self.keep_alive())
                for self.step, step in enumerate(STORY):
                    if step.later:
                        replace_file(self.folder / "ahead", str(step.later.total_seconds()).encode())
                    if step.happens is None:
                        await self.ask_for_results()
                    else:
                        step.happens(loop)
                    await self.slack.until(lambda step=step: self.is_over(step, store), timeout_s=60)
                await self.rest()
                assert self.process is not None
                self.process.terminate()
                await alive

    def is_over(self, step: Step, store: Store) -> bool:
        while page := store.read(len(self.log)):
            self.log += page
        made = {named(event.data.key) for event in self.log if isinstance(event.data, e.PostMade)}
        stands = all(key in made for key in step.keys)
        return stands and all(words in self.parent(key) for key, words in step.parents.items())

    def parent(self, key: str) -> str:
        """What the message of a run says; the last one if it was posted twice."""
        return next((shown(post.blocks) for post in reversed(self.posts()) if key_of(post) == key), "")

    async def ask_for_results(self) -> None:
        """Type `results`, again if the bot died over it and no file came."""
        while not self.files():
            await self.slack.until(self.serves, timeout_s=20)
            deaths = len(self.deaths)
            await self.slack.command("/nightshift", "results night", user="U1", wait_s=0)
            await self.slack.until(lambda deaths=deaths: self.files() or len(self.deaths) > deaths, timeout_s=20)

    def serves(self) -> bool:
        """Whether the newest bot is connected, and not killed."""
        return (
            self.process is not None
            and self.process.returncode is None
            and self.process.pid not in self.killed
            and (self.folder / f"ready-{self.process.pid}").exists()
        )

    async def rest(self) -> None:
        """Let a bot serve for a while in which nothing happens."""
        quiet = 0
        while quiet < 10:
            await asyncio.sleep(0.03)
            quiet = quiet + 1 if self.serves() else 0

    # what came of it

    def posts(self) -> list[Posted]:
        """All messages that stand and that were posted under a key."""
        return [post for post in self.slack.space.messages.get("C1", ()) if post.metadata]

    def files(self) -> list[Posted]:
        return [post for post in self.slack.space.messages.get("C1", ()) if post.files]

    def keys(self) -> list[str]:
        return [key_of(post) for post in self.posts()]

    def thread(self) -> list[str]:
        """The replies to the message of the run, in order."""
        return [key_of(post) for post in self.posts() if post.thread_ts and key_of(post).startswith(f"{NIGHT}/")]

    def problems(self) -> list[str]:
        """What is not as it should be, in plain words."""
        found = [f"{self.left} not reached"] if self.left else []
        found += self.problems_with_copies() if HISTORY - self.scopes else self.problems_without()
        parents = {post.ts: key_of(post) for post in self.posts()}
        if any(parents.get(post.thread_ts) not in (NIGHT, NEXT, DIGEST) for post in self.posts() if post.thread_ts):
            found.append("a reply stands below another message")
        if list(dict.fromkeys(self.thread())) != THREAD:
            found.append(f"the thread is {self.thread()}")
        return found + self.other_problems()

    def problems_without(self) -> list[str]:
        """Where the bot may look for its messages, each stands exactly once."""
        counts = Counter(self.keys())
        found = [f"{counts - EXPECTED} too many, {EXPECTED - counts} missing"] if counts != EXPECTED else []
        return found + [f"{key_of(post)} says that it may repeat" for post in self.posts() if may_repeat(post)]

    def problems_with_copies(self) -> list[str]:
        """Where it may not, none is missing; one that may be a copy says so, and a copy does."""
        found = [] if set(self.keys()) == set(EXPECTED) else [f"{set(EXPECTED) - set(self.keys())} missing"]
        once: set[str] = set()
        for post in self.posts():
            if key_of(post) in once and not may_repeat(post):
                found.append(f"{key_of(post)} is a copy and does not say so")
            once.add(key_of(post))
        marked = [key_of(post) for post in self.posts() if may_repeat(post)]
        if len(marked) > len(self.deaths):
            found.append(f"{marked} say that they may repeat, after {len(self.deaths)} deaths")
        return found

    def other_problems(self) -> list[str]:
        """What is not as it should be in any case."""
        found = [f"{len(self.files())} files"] if [len(post.files) for post in self.files()] != [1] else []
        for post in self.posts():
            pictures = self.slack.pictures(post)
            if len(pictures) != (key_of(post) == DIGEST) or any(not one.alt_text for one in pictures):
                found.append(f"{key_of(post)} shows {len(pictures)} pictures")
        for key, words in LAST.items():
            if words not in self.parent(key):
                found.append(f"{key} says {self.parent(key)[:200]!r}")
        asked = [event.data.key for event in self.log if isinstance(event.data, e.PostRequested)]
        return found + ([f"requested twice: {asked}"] if len(asked) != len(set(asked)) else [])


EXPECTED = Counter(key for step in STORY for key in step.keys)
LAST = {key: words for step in STORY for key, words in step.parents.items()}
"""What the message of each run says in the end."""


def key_of(post: Posted) -> str:
    assert post.metadata is not None
    return named(post.metadata["event_payload"]["key"])


def may_repeat(post: Posted) -> bool:
    return "may repeat" in shown(post.blocks)


async def lived(folder: Path, points: Sequence[Point] = (), scopes: frozenset[str] = ALL) -> Life:
    life = Life(folder, points, scopes)
    await life.live()
    return life


def points_of(calls: Sequence[str]) -> list[Point]:
    """Every place to kill at."""
    return [Point(moment, call) for call in calls for moment in (CALL_MOMENTS if " " in call else POST_MOMENTS)]


def spread(calls: Sequence[str], every: int) -> list[Point]:
    """A place at one call of so many, at one moment after the other."""
    found = []
    for index, call in enumerate(calls[::every]):
        moments = CALL_MOMENTS if " " in call else POST_MOMENTS
        found.append(Point(moments[index % len(moments)], call))
    return found


@pytest.fixture(scope="session")
def calls(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The calls of a bot that nobody kills."""
    whole = asyncio.run(lived(tmp_path_factory.mktemp("night") / "whole"))
    assert not whole.problems()
    return whole.calls


@pytest.mark.timeout(300)  # a dozen starts of a real program, on a machine that may be busy
@pytest.mark.parametrize(("scopes", "every"), [(ALL, 3), (ALL - HISTORY, 4)], ids=["may look", "may not look"])
async def test_whatever_it_is_killed_over_nothing_is_lost_and_nothing_comes_twice_unsaid(
    tmp_path: Path, calls: Sequence[str], scopes: frozenset[str], every: int
) -> None:
    killed = await lived(tmp_path / "killed", spread(calls, every), scopes)
    assert not killed.problems(), f"{[str(point) for point in killed.deaths]}"
    print(f"killed {len(killed.deaths)} times in one night")
    assert len(killed.deaths) == len(calls[::every])


@pytest.mark.long
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("scopes", [ALL, ALL - HISTORY], ids=["may look", "may not look"])
async def test_killed_at_any_moment_of_any_call_each_message_stands_once(
    tmp_path: Path, calls: Sequence[str], scopes: frozenset[str], part: int
) -> None:
    points = points_of(calls)[part::4]
    failed: dict[Point, list[str]] = {}
    for number, point in enumerate(points):
        folder = tmp_path / f"killed-{number}"
        try:
            problems = (await lived(folder, [point], scopes)).problems()
        except ExceptionGroup as group:  # a step that was never over, or a bot that ended by itself
            problems = [repr(error) for error in group.exceptions]
        if problems:
            failed[point] = problems
        shutil.rmtree(folder)
    print(f"killed at {len(points)} places: {len(points) - len(failed)} of {len(points)} nights as they should be")
    assert not failed, "\n".join(f"{point}: {problems}" for point, problems in failed.items())
