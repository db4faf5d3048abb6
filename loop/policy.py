"""What a run's settings mean to the decisions of the loop. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Guard:
    """A command that must exit 0 before a gain is kept."""

    command: tuple[str, ...]
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Policy:
    """
    Everything the machine and the verdict need to know of a run's settings.

    Attributes:
        equal_within: Scores this close are equal, in the objective's unit.
        gain_per_line: A gain below this times the net lines added is not worth it; 0 turns the rule off.
        memory_factor_max: How much peak memory may grow against the best, as a factor.
        slots: Trainings at a time; each slot is one device.
        repair_attempts: How often a crash goes back to the proposer, 0 if it cannot repair.
        asks_max: Proposals asked for one experiment before it is abandoned.
        failures_max: Failed proposals in a row, over all experiments, before the run pauses.
        rebases_max: How often a better score on an old tip is put on the newer one and trained again.
        lost_max: Trainings of one trial lost to crashes of the machine before the experiment is abandoned.
        warn_share: Share of the money spent at which people are warned, 0 to 1.
    """

    metric: str
    direction: Literal["minimize", "maximize", "pass"]
    scoring: Literal["stdout", "json", "sealed"]
    rule: Literal["strict", "confirm"]
    proposer: str
    command: tuple[str, ...]
    budget_s: float
    timeout_s: float
    equal_within: float = 0.0
    gain_per_line: float = 0.0
    memory_factor_max: float = 1.5
    guard: Guard | None = None
    slots: int = 1
    repair_attempts: int = 0
    asks_max: int = 3
    failures_max: int = 9
    rebases_max: int = 3
    lost_max: int = 2
    warn_share: float = 0.8
