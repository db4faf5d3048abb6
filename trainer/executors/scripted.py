"""An executor that plays a script instead of training, under the same contract. Pure.

It ships so that a loop can be run through any course of events in no time and without a process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from trainer.errors import CannotStart, NoFreeSlot, NotScripted
from trainer.spec import Result
from trainer.summary import parse_progress

if TYPE_CHECKING:
    from trainer.spec import Outcome, TrainingSpec
    from trainer.summary import Progress

FIRST_PID = 2**22 + 1
"""Above what Linux gives to processes, so that a scripted pid never names a real one."""


class Gate(Protocol):
    """What a waiter waits at until it is set. `asyncio.Event` is one; it comes as an argument to keep this pure."""

    def set(self) -> None: ...

    def is_set(self) -> bool: ...

    async def wait(self) -> object: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """
    How a scripted training goes. The fields up to *tail* are those of `Result`.

    Attributes:
        held: It goes on until it is released or stopped.
        shows: Its progress line, or empty for none.
        cannot_start: Why it does not start at all; empty if it does.
    """

    outcome: Outcome = "scored"
    score: float | None = None
    seconds: float = 1.0
    metrics: Mapping[str, int | float | str] = field(default_factory=dict)
    peak_memory_mb: float | None = None
    exit_code: int | None = 0
    why: str = ""
    tail: str = ""
    held: bool = False
    shows: str = ""
    cannot_start: str = ""


def scored(score: float, *, peak_memory_mb: float | None = 100.0, held: bool = False) -> Answer:
    """A training that ends well."""
    return Answer(score=score, peak_memory_mb=peak_memory_mb, held=held)


def failed(outcome: Outcome, why: str, *, tail: str = "", exit_code: int | None = 1) -> Answer:
    """A training that ends without a score."""
    return Answer(outcome=outcome, why=why, tail=tail, exit_code=exit_code)


Script = Mapping[tuple[int, int, int], Answer] | Callable[["TrainingSpec"], Answer]
"""Answers by experiment, attempt and trial, or worked out from the spec."""


class ScriptedTraining:
    """A training that goes as its answer says."""

    def __init__(self, spec: TrainingSpec, answer: Answer, pid: int, device: str, gate: Gate) -> None:
        self.spec = spec
        self.pid = pid
        self.pid_started = 0.0
        self.device = device
        self._answer = answer
        self._gate = gate
        self._stopped = False
        if not answer.held:
            gate.set()

    @property
    def over(self) -> bool:
        return self._gate.is_set()

    def release(self) -> None:
        """Let a held training come to its end."""
        self._gate.set()

    def progress(self) -> Progress | None:
        return parse_progress(self._answer.shows.encode()) if self._answer.shows else None

    async def wait(self) -> Result:
        await self._gate.wait()
        if self._stopped:
            return Result(outcome="stopped", seconds=0.0, nonce=self.spec.nonce, why="it was stopped on request")
        answer = self._answer
        return Result(
            outcome=answer.outcome,
            seconds=answer.seconds,
            nonce=self.spec.nonce,
            score=answer.score,
            metrics=answer.metrics,
            peak_memory_mb=answer.peak_memory_mb,
            exit_code=answer.exit_code,
            why=answer.why,
            tail=answer.tail,
        )

    async def stop(self) -> None:
        self._stopped = self._stopped or not self.over
        self._gate.set()


class ScriptedExecutor:
    """
    Plays *script* on its slots; `started` holds every training in order.

    Args:
        gate: Makes a new `Gate`: `asyncio.Event`.
    """

    def __init__(self, script: Script, *, gate: Callable[[], Gate], devices: tuple[str, ...] = ("cpu",)) -> None:
        self.started: list[ScriptedTraining] = []
        self._script = script
        self._gate = gate
        self._devices = devices
        self._slots: dict[int, ScriptedTraining] = {}

    def capacity(self) -> int:
        return len(self._devices)

    def device(self, slot: int) -> str:
        if not 0 <= slot < len(self._devices):
            raise NoFreeSlot(slot, f"does not exist, there are {len(self._devices)}, numbered from 0")
        return self._devices[slot]

    async def start(self, spec: TrainingSpec, slot: int) -> ScriptedTraining:
        """As `Executor.start`. Raises also `NotScripted` where the script has no answer."""
        device = self.device(slot)
        if slot in self._slots and not self._slots[slot].over:
            raise NoFreeSlot(slot, f"({device}) has a training already; wait for its end")
        answer = self._answer(spec)
        if answer.cannot_start:
            raise CannotStart(spec.command, answer.cannot_start)
        training = ScriptedTraining(spec, answer, FIRST_PID + len(self.started), device, self._gate())
        self.started.append(training)
        self._slots[slot] = training
        return training

    def _answer(self, spec: TrainingSpec) -> Answer:
        if not isinstance(self._script, Mapping):
            return self._script(spec)
        key = (spec.experiment, spec.attempt, spec.trial)
        if key not in self._script:
            raise NotScripted(*key)
        return self._script[key]
