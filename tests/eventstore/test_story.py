"""The story of one experiment, folded from hand-made events."""

from __future__ import annotations

from typing import Any

from eventstore import events as e
from eventstore.envelope import NewEvent
from eventstore.memory import MemoryLog
from eventstore.projections.story import Cost, IdeaAnswer, Story, Word

AT = "2026-11-21T08:00:00.000000Z"


def story(*facts: tuple[str, e.Data], experiment: int = 1) -> Story:
    """The story of an experiment of nov21; each fact comes with its actor."""
    log = MemoryLog()
    runs = {"other": "other"}
    log.append([NewEvent(f"id-{n}", runs.get(by, "nov21"), AT, by, data) for n, (by, data) in enumerate(facts)])
    told = Story("nov21", experiment)
    for event in log.stream():
        told.apply(event)
    return told


def asked(experiment: int, again_of: int | None = None) -> e.ProposalRequested:
    return e.ProposalRequested(experiment=experiment, ask=0, kind="sweep", purpose="new", base_commit="b",
                               program_hash="p", again_of=again_of)  # fmt: skip


def prepared(attempt: int = 0) -> e.ExperimentPrepared:
    return e.ExperimentPrepared(experiment=1, attempt=attempt, step="first", base_commit="b", tree="t", subject="s")


def training(nonce: str, trial: int = 0) -> e.TrainingRequested:
    return e.TrainingRequested(experiment=1, attempt=0, trial=trial, slot=0, commit="c", command=("x",), seed=7 + trial,
                               budget_s=1, timeout_s=2, nonce=nonce)  # fmt: skip


def ended(nonce: str, outcome: e.Outcome, trial: int = 0) -> e.TrainingFinished:
    return e.TrainingFinished(experiment=1, attempt=0, trial=trial, nonce=nonce, outcome=outcome, seconds=1)


def test_a_lost_training_and_the_one_that_took_its_place_are_both_told() -> None:
    told = story(
        ("loop", prepared()),
        ("loop", training("n1")),
        ("loop", training("n2")),
        ("loop", ended("n1", "lost")),
        ("loop", ended("n2", "scored")),
        ("loop", e.ScoringFinished(experiment=1, attempt=0, trial=0, outcome="scored", score=1.5)),
    )
    trainings = told.attempts[0].trainings
    assert [x.finished.outcome for x in trainings if x.finished is not None] == ["lost", "scored"]
    assert [x.scored is not None for x in trainings] == [False, True]


def test_each_trial_has_its_own_score() -> None:
    told = story(
        ("loop", prepared()),
        ("loop", training("n1")),
        ("loop", ended("n1", "scored")),
        ("loop", e.ScoringFinished(experiment=1, attempt=0, trial=0, outcome="scored", score=1.5)),
        ("loop", e.ExperimentRemeasureRequested(experiment=1, trial=1, seed=8, why="within the noise")),
        ("loop", training("n2", trial=1)),
        ("loop", ended("n2", "scored", trial=1)),
        ("loop", e.ScoringFinished(experiment=1, attempt=0, trial=1, outcome="scored", score=1.25)),
    )
    scores = [x.scored.score for x in told.attempts[0].trainings if x.scored is not None]
    assert scores == [1.5, 1.25]
    assert [x.why for x in told.remeasures] == ["within the noise"]


def test_what_people_said_keeps_their_names() -> None:
    told = story(
        ("loop", asked(1)),
        ("cli:ada", e.ProposalApproved(experiment=1)),
        ("cli:bob", e.ProposalRejected(experiment=1, why="no")),
        ("cli:eve", e.KeepVetoed(experiment=1, why="cheats")),
        ("cli:bob", e.KeepVetoed(experiment=1, why="later")),
    )
    assert told.approved == Word("cli:ada", AT, "")
    assert told.rejected == Word("cli:bob", AT, "no")
    assert told.vetoes == {1: Word("cli:eve", AT, "cheats")}


def test_an_edit_taken_up_again_is_told_on_both_sides() -> None:
    facts = (("loop", asked(1)), ("loop", asked(4, again_of=1)), ("loop", asked(4, again_of=1)))
    assert story(*facts).taken_up_as == [4]
    assert story(*facts, experiment=4).asks[0].again_of == 1


def test_other_experiments_and_other_runs_are_not_in_it() -> None:
    told = story(
        ("loop", asked(2)),
        ("other", asked(1)),
        ("other", e.KeepVetoed(experiment=1)),
        ("loop", ended("n", "scored")),
    )
    assert (told.asks, told.vetoes, told.attempts) == ([], {}, [])


def failed(ask: int, failure: str, **more: Any) -> e.ProposalFailed:
    return e.ProposalFailed(experiment=1, ask=ask, failure=failure, why="", **more)


def answered(ask: int, attempt: int = 0, **more: Any) -> e.ProposalReceived:
    return e.ProposalReceived(experiment=1, ask=ask, attempt=attempt, base_commit="b", description="", edits=(EDIT,),
                              **more)  # fmt: skip


EDIT = e.WholeFile(path="train.py", text="x")
CALL = e.ModelCall(model="m")


def test_answers_are_told_in_the_order_in_which_they_came() -> None:
    came: list[e.ProposalReceived | e.ProposalFailed] = [
        failed(0, "lost"),
        failed(0, "lost"),
        failed(0, "overloaded"),
        failed(1, "stopped"),
        answered(1),
        failed(1, "edit_does_not_apply"),
        answered(2),
        failed(3, "truncated"),
        answered(4, attempt=1),
    ]
    assert story(*(("loop", one) for one in came)).answers == came


def test_the_cost_counts_the_asks_that_came_to_nothing_too() -> None:
    tokens = e.Tokens(input=10, cache_write=1, cache_read=100, output=5)
    facts = [
        failed(0, "truncated", usd=0.25, tokens=tokens, calls=(CALL,), seconds=2.0),
        answered(1, usd=0.5, tokens=tokens, calls=(CALL, CALL), seconds=3.0),
    ]
    told = story(*(("loop", one) for one in facts)).cost
    assert told == Cost(0.75, False, e.Tokens(input=20, cache_write=2, cache_read=200, output=10), 5.0, 3)
    assert story(("loop", answered(0))).cost == Cost(0.0, True, e.Tokens(), 0.0, 0)
    assert story().cost == Cost(0, False, e.Tokens(), 0, 0)


def test_the_edits_shown_are_the_newest_that_stood_or_else_the_newest_refused() -> None:
    other = e.WholeFile(path="train.py", text="y")
    refused = failed(0, "not_python", edits=(other,))
    assert story(("loop", refused), ("loop", failed(1, "truncated"))).edits == (other,)
    assert story(("loop", answered(0)), ("loop", refused)).edits == (EDIT,)
    assert story().edits == ()


def test_what_became_of_an_idea_is_told_of_its_experiment_only() -> None:
    told = story(
        ("loop", e.IdeaDeclined(idea=3, experiment=1, why="tried")),
        ("loop", e.IdeaUsed(idea=4, experiment=1)),
        ("loop", e.IdeaUsed(idea=5, experiment=2)),
    )
    assert told.ideas == [IdeaAnswer(3, False, "tried"), IdeaAnswer(4, True, "")]
