"""The verdict as one table: every branch of `decide`, with its gain and its exact words.

Scores are sums of powers of two, so that "exactly equal_within" is exact.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from loop import decide as d
from loop.policy import Policy

POLICY = Policy(
    metric="val_bpb",
    direction="minimize",
    scoring="stdout",
    rule="strict",
    proposer="scripted",
    command=("python", "train.py"),
    budget_s=300,
    timeout_s=600,
)
BEST = d.Best(experiment=3, score=1.0, peak_memory_mb=100.0)
MAXIMIZE: dict[str, Any] = {"direction": "maximize"}
NOISY: dict[str, Any] = {"equal_within": 0.25}
LINES: dict[str, Any] = {"gain_per_line": 0.0625}
PASS: dict[str, Any] = {"direction": "pass"}


def judge(candidate: d.Candidate, best: d.Best = BEST, **policy: Any) -> tuple[type, float | None, str]:
    decision = d.decide(best, candidate, replace(POLICY, **policy))
    assert not isinstance(decision, d.Remeasure), "the strict rule needs one training"
    return type(decision), decision.gain, decision.reason


def scored(*scores: float, memory_mb: float | None = 100.0, lines: int = 0) -> d.Candidate:
    return d.Candidate(scores, memory_mb, lines)


@pytest.mark.parametrize(
    ("policy", "candidate", "verdict", "gain", "reason"),
    [
        # the direction
        ({}, scored(0.75), d.Keep, 0.25, "better by 0.25"),
        ({}, scored(1.25), d.Discard, -0.25, "worse by 0.25"),
        ({}, scored(1.0), d.Discard, 0.0, "no better than the best"),
        (MAXIMIZE, scored(1.25), d.Keep, 0.25, "better by 0.25"),
        (MAXIMIZE, scored(0.75), d.Discard, -0.25, "worse by 0.25"),
        (MAXIMIZE, scored(1.0), d.Discard, 0.0, "no better than the best"),
        ({}, scored(0.123456789), d.Keep, 1.0 - 0.123456789, "better by 0.876543"),
        ({}, scored(-1.0), d.Keep, 2.0, "better by 2"),
        # scores this close are equal, the bound included on either side
        (NOISY, scored(0.75), d.Discard, 0.25, "no better than the best"),
        (NOISY, scored(0.75 - 2**-20), d.Keep, 0.25 + 2**-20, "better by 0.250001"),
        (NOISY, scored(1.25), d.Discard, -0.25, "no better than the best"),
        (NOISY, scored(1.25 + 2**-20), d.Discard, -0.25 - 2**-20, "worse by 0.250001"),
        ({**NOISY, **MAXIMIZE}, scored(1.25), d.Discard, 0.25, "no better than the best"),
        ({**NOISY, **MAXIMIZE}, scored(1.5), d.Keep, 0.5, "better by 0.5"),
        # equal and simpler
        ({}, scored(1.0, lines=-1), d.Keep, 0.0, "equal, and 1 line simpler"),
        ({}, scored(1.0, lines=-12), d.Keep, 0.0, "equal, and 12 lines simpler"),
        ({}, scored(1.0, lines=3), d.Discard, 0.0, "no better than the best"),
        (NOISY, scored(1.25, lines=-2), d.Keep, -0.25, "equal, and 2 lines simpler"),
        (NOISY, scored(0.75, lines=-2), d.Keep, 0.25, "equal, and 2 lines simpler"),
        ({}, scored(1.0 + 2**-20, lines=-12), d.Discard, -(2**-20), "worse by 9.53674e-07"),
        # what a gain may cost in lines
        (LINES, scored(0.75, lines=4), d.Keep, 0.25, "better by 0.25"),
        (LINES, scored(0.75, lines=5), d.Discard, 0.25, "a gain of 0.25 is not worth 5 lines"),
        (LINES, scored(0.96875, lines=1), d.Discard, 0.03125, "a gain of 0.03125 is not worth 1 line"),
        (LINES, scored(0.96875, lines=0), d.Keep, 0.03125, "better by 0.03125"),
        (LINES, scored(0.96875, lines=-9), d.Keep, 0.03125, "better by 0.03125"),
        ({}, scored(0.96875, lines=900), d.Keep, 0.03125, "better by 0.03125"),
        # memory
        ({}, scored(0.75, memory_mb=150.0), d.Keep, 0.25, "better by 0.25"),
        ({}, scored(0.75, memory_mb=100.0 + d.MEMORY_SLACK_MB), d.Keep, 0.25, "better by 0.25"),
        (
            {},
            scored(0.75, memory_mb=165.0),
            d.Discard,
            0.25,
            "peak memory grew 1.65-fold, allowed is 1.5-fold",
        ),
        (
            {"memory_factor_max": 2.0},
            scored(0.75, memory_mb=300.0),
            d.Discard,
            0.25,
            "peak memory grew 3.00-fold, allowed is 2-fold",
        ),
        (
            {},
            scored(1.0, memory_mb=200.0, lines=-5),
            d.Discard,
            0.0,
            "peak memory grew 2.00-fold, allowed is 1.5-fold",
        ),
        ({}, scored(1.0, memory_mb=200.0), d.Discard, 0.0, "no better than the best"),
        ({}, scored(1.25, memory_mb=200.0), d.Discard, -0.25, "worse by 0.25"),
        (
            LINES,
            scored(0.96875, memory_mb=200.0, lines=1),
            d.Discard,
            0.03125,
            "peak memory grew 2.00-fold, allowed is 1.5-fold",
        ),
        ({}, scored(0.75, memory_mb=None), d.Keep, 0.25, "better by 0.25"),
        ({}, scored(1.0, memory_mb=None, lines=-5), d.Keep, 0.0, "equal, and 5 lines simpler"),
        # several trials: their mean
        ({}, scored(0.5, 1.0), d.Keep, 0.25, "better by 0.25"),
        ({}, scored(0.5, 2.0), d.Discard, -0.25, "worse by 0.25"),
        ({}, scored(0.5, 1.0, 1.5), d.Discard, 0.0, "no better than the best"),
        (MAXIMIZE, scored(2.0, 0.5), d.Keep, 0.25, "better by 0.25"),
    ],
)
def test_the_strict_rule(
    policy: dict[str, Any], candidate: d.Candidate, verdict: type, gain: float, reason: str
) -> None:
    assert judge(candidate, **policy) == (verdict, gain, reason)


@pytest.mark.parametrize("best_mb", [None, 0.0])
@pytest.mark.parametrize(("score", "reason"), [(0.75, "better by 0.25"), (1.0, "equal, and 5 lines simpler")])
def test_memory_that_the_best_did_not_measure_refuses_nothing(best_mb: float | None, score: float, reason: str) -> None:
    best = d.Best(3, 1.0, best_mb)
    verdict, _, words = judge(scored(score, memory_mb=9_000.0, lines=-5), best)
    assert (verdict, words) == (d.Keep, reason)


@pytest.mark.parametrize(
    ("best", "candidate", "verdict", "gain", "reason"),
    [
        (0.0, scored(1.0), d.Keep, 1.0, "passes"),
        (0.0, scored(0.0), d.Discard, 0.0, "does not pass"),
        (0.0, scored(1.0, memory_mb=9_000.0, lines=900), d.Keep, 1.0, "passes"),
        (0.0, scored(0.0, lines=-9), d.Discard, 0.0, "does not pass"),
        (0.0, scored(1.0, 0.0), d.Discard, 0.5, "does not pass"),
        (1.0, scored(1.0), d.Keep, 0.0, "passes"),
    ],
)
def test_direction_pass_keeps_only_a_score_of_one(
    best: float, candidate: d.Candidate, verdict: type, gain: float, reason: str
) -> None:
    """Memory, lines and `equal_within` play no part: the command passes or it does not."""
    policy = {**PASS, **LINES, "equal_within": 5.0}
    assert judge(candidate, d.Best(0, best, 100.0), **policy) == (verdict, gain, reason)


@pytest.mark.parametrize(("direction", "gain"), [("minimize", 0.5), ("maximize", -0.5), ("pass", -0.5)])
def test_a_gain_is_positive_when_the_candidate_is_better(direction: Any, gain: float) -> None:
    assert d.gain_of(0.5, 1.0, replace(POLICY, direction=direction)) == gain
