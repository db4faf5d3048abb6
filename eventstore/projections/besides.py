"""What results.tsv does not say of a run: refused proposals, repairs, what was abandoned, idle devices. Pure.

A proposal that was refused before any of its code ran has no row, nor has an experiment that ended without a
verdict; a crash that was repaired twice looks like any other. This is where they are found.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from eventstore.events import (
    ExperimentAbandoned,
    ExperimentPrepared,
    ProposalFailed,
    ProposalReceived,
    TrainingFinished,
    TrainingStarted,
)
from eventstore.projections.run_state import OUTSIDE_FAILURES, UNCOUNTED_FAILURES

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventstore.envelope import Event

NOT_OF_AN_ANSWER = OUTSIDE_FAILURES | UNCOUNTED_FAILURES | {"exhausted", "no_repair", "over_budget"}
"""Classes of `proposal.failed` that refuse nothing: no answer came, or there was none to give."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """
    An answer that was refused before any of its code ran.

    Attributes:
        failure: Its class, as in `proposal.failed`.
        description: What it wanted to do; empty where the answer could not be read.
        position: Where in the log the refusal stands.
    """

    experiment: int
    failure: str
    why: str
    description: str
    position: int


@dataclass(slots=True)
class Beside:
    """
    One run.

    Attributes:
        repairs: How often each repaired experiment was repaired, by its number.
        abandoned: Why each experiment ended that has no verdict, by its number.
        idle_s: Seconds that devices stood idle between two trainings of the same loop process.
        gaps: How many such pauses are known; `idle_s` says nothing while there is none.
        training_s: Seconds of training, those without a score too.
    """

    refusals: list[Refusal] = field(default_factory=list)
    repairs: dict[int, int] = field(default_factory=dict)
    abandoned: dict[int, str] = field(default_factory=dict)
    idle_s: float = 0.0
    gaps: int = 0
    training_s: float = 0.0
    _described: dict[int, tuple[int, str]] = field(default_factory=dict)

    @property
    def idle_share(self) -> float | None:
        """The share of the time, 0 to 1, that devices stood idle; None while it is not known."""
        whole = self.idle_s + self.training_s
        return self.idle_s / whole if self.gaps and whole > 0 else None


class Besides:
    """Every run's `Beside`, folded event by event with `apply`."""

    def __init__(self) -> None:
        self._runs: dict[str, Beside] = {}

    def apply(self, event: Event) -> None:
        """Take in the next event of the log."""
        handler = _HANDLERS.get(type(event.data))
        if handler is not None:
            run = self._runs.get(event.run)
            if run is None:
                run = self._runs[event.run] = Beside()
            handler(run, event.data, event.position)

    def of(self, tag: str) -> Beside:
        """What is known of the run *tag*; empty for one that the log says nothing of."""
        return self._runs.get(tag) or Beside()


def _received(run: Beside, data: ProposalReceived, _position: int) -> None:
    run._described[data.experiment] = data.ask, data.description


def _failed(run: Beside, data: ProposalFailed, position: int) -> None:
    if data.failure in NOT_OF_AN_ANSWER:
        return
    ask, described = run._described.get(data.experiment, (-1, ""))
    description = data.description or (described if ask == data.ask else "")
    refusal = Refusal(
        experiment=data.experiment, failure=data.failure, why=data.why, description=description, position=position
    )
    run.refusals.append(refusal)


def _prepared(run: Beside, data: ExperimentPrepared, _position: int) -> None:
    run._described.pop(data.experiment, None)
    if data.step == "repair":
        run.repairs[data.experiment] = run.repairs.get(data.experiment, 0) + 1


def _abandoned(run: Beside, data: ExperimentAbandoned, _position: int) -> None:
    run._described.pop(data.experiment, None)
    run.abandoned[data.experiment] = data.why


def _training(run: Beside, data: TrainingStarted, _position: int) -> None:
    if data.idle_s is not None:
        run.idle_s += data.idle_s
        run.gaps += 1


def _trained(run: Beside, data: TrainingFinished, _position: int) -> None:
    run.training_s += data.seconds


_HANDLERS: dict[type, Callable[[Beside, Any, int], None]] = {
    ProposalReceived: _received,
    ProposalFailed: _failed,
    ExperimentPrepared: _prepared,
    ExperimentAbandoned: _abandoned,
    TrainingStarted: _training,
    TrainingFinished: _trained,
}
