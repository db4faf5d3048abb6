"""Where an experiment and a run stand, as tables over logs told event by event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from eventstore import events as e
from eventstore import requests as ask
from eventstore.projections.run_state import Trial
from loop import decide as d
from loop.stages import Ending, candidate_of, ending_of, net_lines, outcome_of, stage_of

Tell = Callable[[Any], Any]
NOON = "2026-11-01T12:00:00.000000Z"
BEFORE_NOON = "2026-11-01T11:59:59.999999Z"


def scoring_ended(outcome: e.Outcome, score: float | None = None, why: str = "") -> e.ScoringFinished:
    return e.ScoringFinished(experiment=1, attempt=0, trial=0, outcome=outcome, score=score, why=why)


def remeasured() -> e.ExperimentRemeasureRequested:
    return e.ExperimentRemeasureRequested(experiment=1, trial=1, seed=8, why="close")


# ---------------------------------------------------------------- the stage of an experiment


@pytest.mark.parametrize(
    ("stage", "tell"),
    [
        ("asking", lambda s: s.asked(1)),
        ("waiting", lambda s: s.proposed(1)),
        ("idle", lambda s: s.asked(1).failed(1, "overloaded")),
        ("idle", lambda s: s.asked(1).failed(1, "lost")),
        ("asking", lambda s: s.asked(1).failed(1, "overloaded").asked(1, ask=1)),
        ("idle", lambda s: s.proposed(1).failed(1, "edit_does_not_apply")),
        ("committing", lambda s: s.proposed(1).only_prepared(1)),
        ("to_train", lambda s: s.proposed(1).prepared(1)),
        ("training", lambda s: s.proposed(1).prepared(1).training(1)),
        ("to_train", lambda s: s.proposed(1).prepared(1).crashed(1, "lost")),
        ("to_train", lambda s: s.proposed(1).prepared(1).crashed(1, "stopped")),
        ("failed", lambda s: s.proposed(1).prepared(1).crashed(1)),
        ("failed", lambda s: s.proposed(1).prepared(1).crashed(1, "timeout")),
        ("to_score", lambda s: s.proposed(1).prepared(1).crashed(1, "scored")),
        ("to_score", lambda s: s.proposed(1).prepared(1).crashed(1, "scored").scoring(1)),
        (
            "to_score",
            lambda s: s.proposed(1).prepared(1).crashed(1, "scored").scoring(1).tell(scoring_ended("stopped")),
        ),
        ("scored", lambda s: s.proposed(1).prepared(1).trained(1, 0.9)),
        ("failed", lambda s: s.proposed(1).prepared(1).crashed(1, "scored").scoring(1).tell(scoring_ended("tampered"))),
        ("to_train", lambda s: s.proposed(1).prepared(1).trained(1, 0.9).tell(remeasured())),
        ("training", lambda s: s.proposed(1).prepared(1).trained(1, 0.9).tell(remeasured()).training(1, trial=1)),
        ("asking", lambda s: s.proposed(1).prepared(1).crashed(1).asked(1, ask=1, purpose="repair")),
        ("waiting", lambda s: s.proposed(1).prepared(1).crashed(1).asked(1, 1, purpose="repair").received(1, 1)),
        ("failed", lambda s: s.proposed(1).prepared(1).crashed(1).asked(1, 1, purpose="repair").failed(1, "no", 1)),
        ("committing", lambda s: s.proposed(1).prepared(1).trained(1, 0.9).only_prepared(1, attempt=1, step="rebase")),
    ],
)
def test_the_stage_of_an_experiment(stage: str, tell: Tell, new_story: Any) -> None:
    assert stage_of(tell(new_story().measured()).run.experiments[1]) == stage


# ---------------------------------------------------------------- why a trial has no score


FINISHED = e.TrainingFinished(
    experiment=1, attempt=0, trial=0, nonce="n", outcome="crash", seconds=1.0, why="ValueError: no"
)
ENDED_WELL = e.TrainingFinished(experiment=1, attempt=0, trial=0, nonce="n", outcome="scored", seconds=1.0)


@pytest.mark.parametrize(
    ("trial", "expected"),
    [
        (Trial(0, 7, finished=FINISHED), ("crash", "ValueError: no")),
        (Trial(0, 7), ("lost", "it never finished")),
        (
            Trial(0, 7, finished=ENDED_WELL, scored=scoring_ended("tampered", why="two blocks")),
            ("tampered", "two blocks"),
        ),
        (
            Trial(0, 7, finished=ENDED_WELL, scored=scoring_ended("scored", why="no number")),
            ("no_metric", "no number"),
        ),
    ],
)
def test_why_a_trial_has_no_score(trial: Trial, expected: tuple[str, str]) -> None:
    assert outcome_of(trial) == expected


# ---------------------------------------------------------------- what the verdict looks at


def test_there_is_no_candidate_before_the_first_score(new_story: Any) -> None:
    assert candidate_of(new_story().measured().proposed(1).prepared(1).crashed(1).run.experiments[1]) is None


def test_a_candidate_has_the_scores_and_the_largest_peak_of_its_trials_and_its_net_lines(new_story: Any) -> None:
    story = new_story().measured().proposed(1).prepared(1, lines=-4).trained(1, 0.5, memory_mb=80.0)
    story.tell(remeasured()).trained(1, 0.75, trial=1, memory_mb=90.0)
    experiment = story.run.experiments[1]
    assert net_lines(experiment) == -4
    assert candidate_of(experiment) == d.Candidate((0.5, 0.75), 90.0, -4)


def test_a_new_attempt_forgets_the_scores_of_the_one_before(new_story: Any) -> None:
    story = new_story().measured().proposed(1).prepared(1, lines=3).trained(1, 0.5, memory_mb=80.0)
    experiment = story.prepared(1, attempt=1, step="rebase", lines=2).run.experiments[1]
    assert (candidate_of(experiment), experiment.peak_memory_mb, net_lines(experiment)) == (None, None, 2)


def test_nothing_prepared_adds_no_lines(new_story: Any) -> None:
    assert net_lines(new_story().measured().proposed(1).run.experiments[1]) == 0


# ---------------------------------------------------------------- the end of a run


def baseline_crash(story: Any) -> Any:
    return story.started().prepared(0).crashed(0).decided(0, "crash")


def spent(story: Any, usd: float) -> Any:
    return story.measured(limits=e.Limits(usd=2.0)).asked(1).failed(1, "overloaded", usd=usd)


def exhausted(story: Any, n: int) -> Any:
    abandoned = e.ExperimentAbandoned(experiment=n, reason="exhausted", why="nothing more")
    return story.asked(n).failed(n, "exhausted").tell(abandoned)


ALL = e.Limits(experiments=1, until=NOON, usd=2.0)


def costly() -> e.ProposalFailed:
    return e.ProposalFailed(experiment=9, ask=0, failure="overloaded", why="later", usd=2.0)


def discarded(story: Any, n: int) -> Any:
    return story.proposed(n).prepared(n).trained(n, 2.0).decided(n, "discard", 2.0)


@pytest.mark.parametrize(
    ("now", "direction", "tell", "reason", "why"),
    [
        (NOON, "minimize", lambda s: s.measured(), None, None),
        (NOON, "minimize", lambda s: s.started(), None, None),
        (
            NOON,
            "minimize",
            lambda s: s.measured().ask(ask.stop(s.state, None)),
            "stopped",
            "stopped by request after the experiments in hand",
        ),
        (NOON, "minimize", baseline_crash, "baseline_failed", "the baseline has no score to compare with (crash)"),
        (NOON, "pass", lambda s: s.started(), None, None),
        (NOON, "pass", lambda s: s.measured(0.0), None, None),
        (NOON, "pass", lambda s: s.measured(1.0), "passed", "experiment 0 passes"),
        (NOON, "pass", lambda s: s.measured(0.0).kept(1, 1.0), "passed", "experiment 1 passes"),
        (NOON, "minimize", lambda s: s.measured(1.0).kept(1, 1.5), None, None),
        (NOON, "minimize", lambda s: s.measured(limits=e.Limits(experiments=1)), None, None),
        (
            NOON,
            "minimize",
            lambda s: discarded(s.measured(limits=e.Limits(experiments=1)), 1),
            "experiments",
            "all 1 experiments are done",
        ),
        (BEFORE_NOON, "minimize", lambda s: s.measured(limits=e.Limits(until=NOON)), None, None),
        (NOON, "minimize", lambda s: s.measured(limits=e.Limits(until=NOON)), "until", f"its time was up at {NOON}"),
        (NOON, "minimize", lambda s: spent(s, 1.99), None, None),
        (NOON, "minimize", lambda s: spent(s, 2.0), "usd", "$2.00 of $2.00 are spent"),
        (NOON, "minimize", lambda s: spent(s, 2.5), "usd", "$2.50 of $2.00 are spent"),
        (
            NOON,
            "minimize",
            lambda s: exhausted(s.measured(), 1),
            "exhausted",
            "the proposer has nothing more to propose (it was exhausted)",
        ),
        # a person's stop comes first, then the baseline, then the goal, then the limits
        (NOON, "minimize", lambda s: baseline_crash(s).ask(ask.stop(s.state, None)), "stopped", None),
        (NOON, "pass", baseline_crash, "baseline_failed", None),
        (NOON, "pass", lambda s: s.measured(1.0, e.Limits(until=NOON)), "passed", None),
        (NOON, "minimize", lambda s: discarded(s.measured(limits=ALL), 1), "experiments", None),
        (NOON, "minimize", lambda s: s.measured(limits=ALL), "until", None),
        (BEFORE_NOON, "minimize", lambda s: exhausted(s.measured(limits=ALL).tell(costly()), 1), "usd", None),
        # exhausted, but something is still to be done
        (NOON, "minimize", lambda s: exhausted(s.measured().asked(1), 2), None, None),
        (
            NOON,
            "minimize",
            lambda s: exhausted(discarded(s.measured(), 2), 1).ask(ask.again(s.state, None, 2)),
            None,
            None,
        ),
    ],
)
def test_why_a_run_ends(
    now: str, direction: str, tell: Tell, reason: str | None, why: str | None, new_story: Any
) -> None:
    ending = ending_of(tell(new_story()).run, now, direction)
    if reason is None:
        assert ending is None
        return
    assert ending is not None
    assert (ending.reason, ending.why) == (reason, why or ending.why)


@pytest.mark.parametrize(
    ("tell", "cause"),
    [
        (lambda s: s.measured().ask(ask.stop(s.state, None)), "run.stop_requested"),
        (lambda s: s.measured(limits=e.Limits(until=NOON)), "experiment.decided"),
        (lambda s: s.started(limits=e.Limits(until=NOON)), "run.started"),
    ],
)
def test_the_cause_of_an_end_is_the_request_or_the_last_verdict(tell: Tell, cause: str, new_story: Any) -> None:
    story = tell(new_story())
    ending = ending_of(story.run, NOON, "minimize")
    assert isinstance(ending, Ending)
    assert next(x.type for x in story.log.stream() if x.position == ending.cause) == cause
