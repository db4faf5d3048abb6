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
from loop.proposers.base import Broken, Proposer
from loop.workspace import Workspace
from trainer.executors.base import Executor, Training

T = TypeVar("T")

TEXT_MAX = 4_000
LINE_MAX = 200


class Recorder(Protocol):
    """Appends facts as one batch and returns their positions."""

    async def __call__(self, facts: Sequence[c.Append]) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class Around:
    """
    What the loop is given by its composition root.

    Attributes:
        now: The clock, aware.
        new_id: A new unique text.
        proposer_of: The proposer that a run's settings name.
        read_at: Reads the event at a position of the log.
        about: What `run.started` says of this machine: host, sandbox, versions.
    """

    home: Home
    workspace: Workspace
    executor: Executor
    proposer_of: Callable[[st.Settings, Path], Proposer]
    now: Callable[[], datetime]
    new_id: Callable[[], str]
    read_at: Callable[[int], Awaitable[Event]]
    about: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Active:
    """The active run's settings, made from its `run.started` once."""

    tag: str
    settings: st.Settings
    policy: Policy
    proposer: Proposer


class Hands:
    """
    Shared by all effects of one loop process.

    Attributes:
        trainings: What is in training now, by run and experiment; for the screen.
        held: Effects that failed in a run that is over: not tried again by this process.
    """

    def __init__(self, around: Around, append: Recorder) -> None:
        self.around = around
        self.append = append
        self.trainings: dict[tuple[str, int], Training] = {}
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
            proposer = self._proposer(settings)
            slots = self.around.executor.capacity()
            policy = preflight.policy_of(settings, slots, can_repair=proposer.can_repair)
            self._active = Active(run.tag, settings, policy, proposer)
        return self._active

    def _proposer(self, settings: st.Settings) -> Proposer:
        """The proposer that *settings* name; if it cannot be made any more, one that says so, and the run pauses."""
        try:
            return self.around.proposer_of(settings, self.around.home.root)
        except LoopError as error:
            return Broken(settings.proposer.kind, f"the proposer cannot be made ({error})")

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
