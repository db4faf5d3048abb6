"""What results.tsv does not say of a run."""

from __future__ import annotations

import pytest

from eventstore import events as e
from eventstore.envelope import Event
from eventstore.projections.besides import Beside, Besides, Refusal
from loop import failures


def folded(*log: tuple[str, e.Data]) -> Besides:
    besides = Besides()
    for position, (run, data) in enumerate(log, start=1):
        besides.apply(Event(position, f"id-{position}", run, data.TYPE, 1, "", "loop@box", None, data, b""))
    return besides


def of_run(*log: e.Data) -> Beside:
    return folded(*(("nov21", data) for data in log)).of("nov21")


def failed(failure: str, ask: int = 0, description: str = "") -> e.ProposalFailed:
    return e.ProposalFailed(experiment=1, ask=ask, failure=failure, why="because", description=description)


def received(ask: int) -> e.ProposalReceived:
    return e.ProposalReceived(experiment=1, ask=ask, base_commit="b", description=f"answer {ask}", edits=())


def prepared(step: e.Step) -> e.ExperimentPrepared:
    return e.ExperimentPrepared(experiment=1, attempt=0, step=step, base_commit="b", tree="t", subject="s")


def training(idle_s: float | None) -> e.TrainingStarted:
    return e.TrainingStarted(
        experiment=1, attempt=0, trial=0, nonce="n", pid=1, pid_started=1.0, device="cpu", idle_s=idle_s
    )


def trained(seconds: float) -> e.TrainingFinished:
    return e.TrainingFinished(experiment=1, attempt=0, trial=0, nonce="n", outcome="crash", seconds=seconds)


@pytest.mark.parametrize("failure", sorted(failures.ANSWER))
def test_an_answer_that_was_no_good_is_refused(failure: str) -> None:
    refusal = Refusal(experiment=1, failure=failure, why="because", description="grow", position=1)
    assert of_run(failed(failure, description="grow")).refusals == [refusal]


@pytest.mark.parametrize("failure", sorted({*failures.OUTSIDE, "lost", "stopped", "exhausted", "no_repair"}))
def test_where_there_was_no_answer_nothing_is_refused(failure: str) -> None:
    assert of_run(failed(failure)).refusals == []


def test_a_proposal_that_no_longer_fits_is_refused_under_its_own_description() -> None:
    told = of_run(received(0), failed("edit_does_not_apply", ask=0), failed("truncated", ask=1))
    assert [refusal.description for refusal in told.refusals] == ["answer 0", ""]


def test_repairs_are_counted_and_an_edit_put_on_a_newer_tip_is_none() -> None:
    assert of_run(prepared("first"), prepared("repair"), prepared("rebase"), prepared("repair")).repairs == {1: 2}


def test_idle_time_is_a_share_of_the_whole_and_not_known_before_the_second_training() -> None:
    assert of_run(training(None), trained(30.0)).idle_share is None
    assert of_run(training(None), trained(30.0), training(10.0)).idle_share == 0.25
    assert of_run(training(None), trained(30.0), training(0.0)).idle_share == 0.0


def test_runs_are_kept_apart_and_one_that_is_not_known_is_empty() -> None:
    abandoned = e.ExperimentAbandoned(experiment=4, reason="rejected", why="no")
    besides = folded(("nov21", abandoned), ("dec01", trained(1.0)), ("dec01", e.RunResumed(why="x")))
    assert (besides.of("nov21").abandoned, besides.of("dec01").abandoned) == ({4: "no"}, {})
    assert besides.of("jan01") == Beside()
