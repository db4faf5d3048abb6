"""The verdict: keep, discard or measure again. Pure; this is where a score becomes a decision.

A gain is always positive when the candidate is better, whatever the direction of the objective.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from loop.policy import Policy

MEMORY_SLACK_MB = 64.0
"""Growth up to this is never too much: the sampled memory of a program that runs for a moment differs that much."""


@dataclass(frozen=True, slots=True)
class Best:
    """What the candidate is compared with: the experiment at the tip of the branch."""

    experiment: int
    score: float
    peak_memory_mb: float | None


@dataclass(frozen=True, slots=True)
class Candidate:
    """
    A trained and scored commit.

    Attributes:
        scores: One score for each trial, finite, in the objective's unit.
        peak_memory_mb: The largest peak of its trials, None if not measured.
        lines: Net lines added against the tip; negative is simpler.
    """

    scores: tuple[float, ...]
    peak_memory_mb: float | None
    lines: int

    @property
    def score(self) -> float:
        return fmean(self.scores)


@dataclass(frozen=True, slots=True)
class Keep:
    """The commit becomes the tip."""

    gain: float
    reason: str


@dataclass(frozen=True, slots=True)
class Discard:
    """The branch stays where it is."""

    gain: float
    reason: str


@dataclass(frozen=True, slots=True)
class Remeasure:
    """One training does not tell; train the same commit with another seed."""

    reason: str


Decision = Keep | Discard | Remeasure


def gain_of(score: float, best: float, policy: Policy) -> float:
    """How much better *score* is than *best*, in the objective's unit; negative is worse."""
    return best - score if policy.direction == "minimize" else score - best


def decide(best: Best, candidate: Candidate, policy: Policy) -> Decision:
    """
    Judge a candidate against the best by the strict rule.

    Better by more than `equal_within` is kept, unless memory grew beyond its factor or the gain is not worth
    the lines it adds. Equal is kept only if it is simpler. In direction `pass` only a score of 1 is kept.
    """
    gain = gain_of(candidate.score, best.score, policy)
    if policy.direction == "pass":
        return Keep(gain, "passes") if candidate.score >= 1 else Discard(gain, "does not pass")
    refusal = _too_much_memory(best, candidate, policy)
    if gain > policy.equal_within:
        return Discard(gain, refusal) if refusal else _worth_its_lines(gain, candidate, policy)
    if gain < -policy.equal_within:
        return Discard(gain, f"worse by {_figure(-gain)}")
    if candidate.lines >= 0:
        return Discard(gain, "no better than the best")
    return Discard(gain, refusal) if refusal else Keep(gain, f"equal, and {_lines(-candidate.lines)} simpler")


def _worth_its_lines(gain: float, candidate: Candidate, policy: Policy) -> Decision:
    if candidate.lines > 0 and gain < policy.gain_per_line * candidate.lines:
        return Discard(gain, f"a gain of {_figure(gain)} is not worth {_lines(candidate.lines)}")
    return Keep(gain, f"better by {_figure(gain)}")


def _too_much_memory(best: Best, candidate: Candidate, policy: Policy) -> str:
    if not best.peak_memory_mb or candidate.peak_memory_mb is None:
        return ""
    factor = candidate.peak_memory_mb / best.peak_memory_mb
    grown_mb = candidate.peak_memory_mb - best.peak_memory_mb
    if factor <= policy.memory_factor_max or grown_mb <= MEMORY_SLACK_MB:
        return ""
    return f"peak memory grew {factor:.2f}-fold, allowed is {policy.memory_factor_max:g}-fold"


def _figure(gain: float) -> str:
    return f"{gain:.6g}"


def _lines(count: int) -> str:
    return f"{count} line" if count == 1 else f"{count} lines"
