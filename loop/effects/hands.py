"""What every effect works with: the doors, the active run's settings, and a way to write facts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

from eventstore import events as e
from eventstore import settings as st
from eventstore.codec import clean
from eventstore.envelope import Event
from eventstore.home import Home
from eventstore.projections.run_state import Run
from loop import commands as c
from loop import preflight
from loop.errors import LoopError
from loop.policy import Policy
from loop.proposers.base import Ask, Broken, Proposer
from loop.workspace import Workspace
from trainer.executors.base import Executor, Training

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


@dataclass(frozen=True, slots=True)
class Active:
    """The active run's settings, made from its `run.started` once; *proposers* by their kind."""

    tag: str
    settings: st.Settings
    policy: Policy
    proposers: Mapping[str, Proposer]


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

    def close(self) -> None:
        self._git.shutdown()

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
