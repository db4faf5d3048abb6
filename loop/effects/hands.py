"""What every effect works with: the doors, the active run's settings, and a way to write facts."""

from __future__ import annotations

import asyncio
import os
import shutil
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

from eventstore import events as e
from eventstore import settings as st
from eventstore.codec import clean
from eventstore.envelope import Event
from eventstore.home import Home
from eventstore.projections.run_state import Done, Run
from loop import commands as c
from loop import preflight
from loop.effects import sealing
from loop.errors import LoopError
from loop.policy import Policy
from loop.proposers.base import Ask, Broken, Proposer, Tried
from loop.workspace import Workspace
from trainer.executors.base import Executor, Training
from trainer.scorer import EvaluatorScorer, Place
from trainer.scoring import Scorer

T = TypeVar("T")

TEXT_MAX = 4_000
LINE_MAX = 200


class Recorder(Protocol):
    """Appends facts as one batch and returns their positions."""

    async def __call__(self, facts: Sequence[c.Append]) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class Means:
    """
    What a proposer may be made with.

    Attributes:
        folder_of: The folder that belongs to one ask alone.
        checkout: Writes the files of a commit into a fresh folder.
        mark_of: What the processes of one ask carry in their environment.
    """

    root: Path
    folder_of: Callable[[Ask], Path]
    checkout: Callable[[str, Path], Awaitable[None]]
    mark_of: Callable[[Ask], str]


@dataclass(frozen=True, slots=True)
class Around:
    """
    What the loop is given by its composition root.

    Attributes:
        now: The clock, aware.
        new_id: A new unique text.
        monotonic: Seconds of a clock that is never set.
        jitter: A number from 0 to 1, drawn at random.
        proposer_of: Makes the proposer of a kind by a run's settings; raises `LoopError` if it cannot be made.
        read_at: Reads the event at a position of the log.
        about: What `run.started` says of this machine: host, versions.
        environ: The environment of the loop.
        scorer_of: Makes what scores the models of a run.
    """

    home: Home
    workspace: Workspace
    executor: Executor
    proposer_of: Callable[[st.Settings, str, Means], Proposer]
    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    jitter: Callable[[], float]
    new_id: Callable[[], str]
    read_at: Callable[[int], Awaitable[Event]]
    about: Mapping[str, Any]
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    scorer_of: Callable[[Place], Scorer] = EvaluatorScorer


class History:
    """What a proposer is told of a run's past. Each verdict is put into words once, not for each ask."""

    def __init__(self) -> None:
        self._told: list[Tried] = []
        self._decided_at: list[int] = []
        self._seen = 0

    def before(self, run: Run, known_at: int) -> tuple[Tried, ...]:
        """The verdicts of *run*, always the same one, that stood before the position *known_at*, oldest first."""
        for done in run.done[self._seen :]:
            if done.verdict is not None and done.experiment > 0:
                self._told.append(_tried(done, done.verdict))
                self._decided_at.append(done.decided_at)
        self._seen = len(run.done)
        return tuple(self._told[: bisect_left(self._decided_at, known_at)])


def _tried(done: Done, verdict: e.Verdict) -> Tried:
    return Tried(
        experiment=done.experiment,
        edits=done.edits,
        verdict=verdict,
        score=done.score,
        description=done.description,
        gain=done.gain,
        reason=done.reason,
        hypothesis=done.hypothesis,
        lines=done.lines,
        error=done.error,
    )


@dataclass(frozen=True, slots=True)
class Active:
    """The active run's settings, made from its `run.started` once; *proposers* by their kind."""

    tag: str
    settings: st.Settings
    policy: Policy
    proposers: Mapping[str, Proposer]
    history: History = field(default_factory=History)


class Hands:
    """
    Shared by all effects of one loop process.

    Attributes:
        trainings: What is in training now, by run and experiment; for the screen.
        free_since: When each slot's last training ended, by the monotonic clock.
        held: Effects that failed in a run that is over: not tried again by this process.
    """

    def __init__(self, around: Around, append: Recorder) -> None:
        self.around = around
        self.append = append
        self.trainings: dict[tuple[str, int], Training] = {}
        self.free_since: dict[int, float] = {}
        self.held: set[c.Key] = set()
        self._git = ThreadPoolExecutor(max_workers=1, thread_name_prefix="git")
        self._active: Active | None = None
        self._scorer: tuple[str, Scorer] | None = None
        self._making_scorer = asyncio.Lock()

    async def close(self) -> None:
        """End the evaluator, and the thread that works with git."""
        if self._scorer is not None:
            await self._scorer[1].close()
        self._git.shutdown()

    async def scorer(self, run: Run) -> Scorer:
        """
        What scores the models of *run*, on a copy of its harness; that of another run is ended.

        Raises:
            CannotScore: If the corpus is not there any more.
        """
        async with self._making_scorer:
            if self._scorer is None or self._scorer[0] != run.tag:
                if self._scorer is not None:
                    await self._scorer[1].close()
                self._scorer = None
                self._scorer = (run.tag, self.around.scorer_of(await self._place(run)))
            return self._scorer[1]

    async def _place(self, run: Run) -> Place:
        active, started, home = self.active(run), run.started, self.around.home
        assert active is not None
        assert started is not None
        cache = sealing.cache_of_run(run, self.around.environ)
        folder, handed = home.evaluator_dir(run.tag), home.state / "handed" / run.tag

        def copy() -> None:
            shutil.rmtree(home.evaluator_dir(""), ignore_errors=True)  # of earlier runs too
            self.around.workspace.checkout(started.base_commit, folder / "harness")
            handed.mkdir(parents=True, exist_ok=True)

        await self.in_git(copy)
        return sealing.place_of(active.settings, home, run.tag, cache, folder / "harness", handed)

    def active(self, run: Run | None) -> Active | None:
        """Settings, policy and proposer of the active run, from the copy in the log that governs it."""
        if run is None or run.started is None:
            return None
        if self._active is None or self._active.tag != run.tag:
            settings = st.from_data(run.started.settings)
            kind = settings.proposer.kind
            proposers = {
                name: self._proposer(settings, name) for name in {kind, preflight.stand_in_of(settings)} - {""}
            }
            slots = self.around.executor.capacity()
            policy = preflight.policy_of(settings, slots, can_repair=proposers[kind].can_repair)
            self._active = Active(run.tag, settings, policy, proposers)
        return self._active

    def _proposer(self, settings: st.Settings, kind: str) -> Proposer:
        """The proposer of that kind; if it cannot be made any more, one that says so, and the run pauses or waits."""
        try:
            return self.make_proposer(settings, kind)
        except LoopError as error:
            return Broken(kind, f"the proposer cannot be made ({error})")

    def make_proposer(self, settings: st.Settings, kind: str) -> Proposer:
        """Make a proposer. Raises `LoopError` if that is not possible."""
        home = self.around.home

        async def checkout(commit: str, folder: Path) -> None:
            await self.in_git(self.around.workspace.checkout, commit, folder)

        means = Means(
            root=home.root,
            folder_of=lambda ask: home.proposal_dir(ask.tag, ask.experiment, ask.ask),
            checkout=checkout,
            mark_of=lambda ask: self.mark(ask.tag, ask.experiment, self.around.new_id()),
        )
        return self.around.proposer_of(settings, kind, means)

    async def record(self, run: str, data: e.Data, cause: int | None) -> int:
        """Append one fact and return its position."""
        return (await self.append([c.Append(run, data, cause)]))[0]

    async def in_git(self, work: Callable[..., T], *args: Any, **named: Any) -> T:
        """Run blocking work in the one thread that may touch the repository."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._git, lambda: work(*args, **named))

    async def program_text(self, position: int) -> str:
        """The program that the event at *position* put in force; empty for 0."""
        if not position:
            return ""
        data = (await self.around.read_at(position)).data
        return data.text if isinstance(data, e.ProgramRecorded | e.ProgramEdited) else ""

    def mark(self, tag: str, experiment: int, nonce: str) -> str:
        """What a child and its children carry in their environment, so that a later loop finds them."""
        return f"{self.around.home.mark_id}/{tag}/{experiment}/{nonce}"

    def seconds_since(self, began: datetime) -> float:
        return round(max(0.0, (self.around.now() - began).total_seconds()), 3)


def one_line(text: str) -> str:
    """A description as one bounded line without control characters."""
    return " ".join(clean(text, LINE_MAX * 4).split())[:LINE_MAX]
