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
        remote: The proposer's answers take seconds to minutes and may fail for reasons outside. Then no device
            waits for one: proposals are placed as they come, a repair that is asked for holds no slot, failures
            bring pauses and a stand-in instead of the run's pause, and people's ideas are passed on.
        stand_in: The kind of proposer that takes over while the run's own fails, empty if there is none.
        fill_idle: Whether the stand-in also fills devices that are idle because no proposal is ready.
        ahead: Proposals made for each slot while it trains; 0 asks when the slot is free.
        unapproved_max: Proposals for each slot that may wait for a person before no more are asked for.
        alike_max: Failures of one class in a row after which the stand-in takes over, or the wait is announced.
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
    remote: bool = False
    stand_in: str = ""
    fill_idle: bool = False
    ahead: int = 1
    unapproved_max: int = 3
    alike_max: int = 3
    repair_attempts: int = 0
    asks_max: int = 3
    failures_max: int = 9
    rebases_max: int = 3
    lost_max: int = 2
    warn_share: float = 0.8
