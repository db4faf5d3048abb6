"""The fold: what the log says about a workspace and its runs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstore import events as e
from eventstore.envelope import Event
from eventstore.projections.run_state import Done, Experiment, Keep, Run, State

TAG = "nov21"
Told = e.Data | tuple[str, e.Data] | list[Any]
"""An event of the run TAG, one of another run, or several in order."""


def at(position: int) -> str:
    return f"2026-11-21T08:{position // 60 % 60:02d}:{position % 60:02d}.000000Z"


def event(position: int, run: str, data: e.Data, cause: int | None = None) -> Event:
    return Event(position, f"id-{position}", run, data.TYPE, data.VERSION, at(position), "cli:ada", cause, data, b"")


def events(*told: Told) -> list[Event]:
    flat: list[tuple[str, e.Data]] = []

    def flatten(one: Told) -> None:
        if isinstance(one, list):
            for part in one:
                flatten(part)
        else:
            flat.append(one if isinstance(one, tuple) else (TAG, one))

    flatten(list(told))
    return [event(position, run, data) for position, (run, data) in enumerate(flat, start=1)]


def state_of(*told: Told) -> State:
    return State.of(events(*told))


def run_of(*told: Told) -> Run:
    return state_of(*told).runs[TAG]


def contents(state: State) -> dict[str, Any]:
    """Everything but the position, as it is now."""
    return copy.deepcopy({name: value for name, value in vars(state).items() if name != "position"})


# ---------------------------------------------------------------- what is told


def requested(tag: str = TAG, limits: e.Limits | None = None) -> tuple[str, e.Data]:
    return (tag, e.RunRequested(tag=tag, from_ref="HEAD", zone="UTC", limits=limits or e.Limits()))


def begun(tag: str = TAG, limits: e.Limits | None = None) -> tuple[str, e.Data]:
    data = e.RunStarted(
        branch=f"autoresearch/{tag}",
        base_commit="c0",
        settings={"proposer": {"kind": "scripted"}},
        limits=limits or e.Limits(),
        program_hash="",
        harness_hash="",
        settings_hash="",
        seed=7,
        host="box",
        device="cpu",
        sandbox="none",
        versions={},
    )
    return (tag, data)


def asked(n: int, ask: int = 0, purpose: e.Purpose = "new", **fields: Any) -> e.Data:
    given: dict[str, Any] = {"kind": "scripted", "base_commit": "c0", "program_hash": ""}
    return e.ProposalRequested(experiment=n, ask=ask, purpose=purpose, **{**given, **fields})


def received(n: int, ask: int = 0, **fields: Any) -> e.Data:
    given: dict[str, Any] = {"base_commit": "c0", "description": f"idea {n}", "edits": (), "usd": 0.0}
    return e.ProposalReceived(experiment=n, ask=ask, **{**given, **fields})


def failed(n: int, failure: str, ask: int = 0, usd: float | None = 0.0) -> e.Data:
    return e.ProposalFailed(experiment=n, ask=ask, failure=failure, why=f"it was {failure}", usd=usd)


def prepared(n: int, attempt: int = 0, step: e.Step = "first") -> e.Data:
    return e.ExperimentPrepared(experiment=n, attempt=attempt, step=step, base_commit="c0", tree="t", subject="s")


def committed(n: int, attempt: int = 0) -> e.Data:
    return e.ExperimentCommitted(experiment=n, attempt=attempt, commit=f"c{n}.{attempt}", tree="t", ref="ref")


def training(n: int, trial: int = 0, nonce: str = "a", slot: int = 0) -> e.Data:
    return e.TrainingRequested(
        experiment=n,
        attempt=0,
        trial=trial,
        slot=slot,
        commit=f"c{n}.0",
        command=("python", "train.py"),
        seed=7 + trial,
        budget_s=300,
        timeout_s=600,
        nonce=nonce,
    )


def trains(n: int, trial: int = 0, nonce: str = "a") -> e.TrainingStarted:
    return e.TrainingStarted(experiment=n, attempt=0, trial=trial, nonce=nonce, pid=4711, pid_started=1.0, device="cpu")


def trained(
    n: int, trial: int = 0, outcome: e.Outcome = "scored", peak_memory_mb: float | None = None, nonce: str = "a"
) -> e.TrainingFinished:
    return e.TrainingFinished(
        experiment=n,
        attempt=0,
        trial=trial,
        nonce=nonce,
        outcome=outcome,
        seconds=1.0,
        peak_memory_mb=peak_memory_mb,
    )


def scoring(n: int, trial: int = 0) -> e.Data:
    return e.ScoringRequested(experiment=n, attempt=0, trial=trial, evaluator="in-place/1")


def scored(n: int, trial: int = 0, outcome: e.Outcome = "scored", score: float | None = 1.0) -> e.ScoringFinished:
    return e.ScoringFinished(experiment=n, attempt=0, trial=trial, outcome=outcome, score=score)


def guarding(n: int) -> e.Data:
    return e.GuardRequested(experiment=n, attempt=0, command=("pytest",), timeout_s=60, nonce="g")


def guarded(n: int, result: Any) -> e.GuardFinished:
    return e.GuardFinished(experiment=n, attempt=0, result=result, seconds=1.0)


def measured_again(n: int, trial: int = 1) -> e.Data:
    return e.ExperimentRemeasureRequested(experiment=n, trial=trial, seed=8, why="too close")


def judged(n: int, verdict: e.Verdict, score: float | None = None) -> e.Data:
    return e.ExperimentDecided(experiment=n, attempt=0, verdict=verdict, reason="so", trials=1, score=score)


def abandoned(n: int) -> e.Data:
    return e.ExperimentAbandoned(experiment=n, reason="rejected", why="no")


def moved(n: int, to_commit: str, why: Any = "keep") -> e.Data:
    return e.BranchMoved(experiment=n, from_commit="a", to_commit=to_commit, why=why)


def proposed(n: int) -> list[Told]:
    return [asked(n), received(n)]


def in_hand(n: int) -> list[Told]:
    return [*(proposed(n) if n > 0 else []), prepared(n), committed(n)]


def decided(n: int, verdict: e.Verdict, score: float | None = None) -> list[Told]:
    return [*in_hand(n), training(n), trained(n), judged(n, verdict, score)]


def kept(n: int) -> list[Told]:
    return [*decided(n, "keep", 1.0 - n / 100), moved(n, f"c{n}.0")]


STARTED: list[Told] = [requested(), begun()]
MEASURED: list[Told] = [*STARTED, *decided(0, "keep", 1.0)]
PAUSE = e.RunPauseRequested()
PAUSED = e.RunPaused(why="asked to pause")
RESUME = e.RunResumeRequested()
RESUMED = e.RunResumed(why="asked to go on")
FINISHED = e.RunFinished(reason="stopped", why="asked to stop")


# ---------------------------------------------------------------- runs: the queue and their life


@pytest.mark.parametrize(
    ("told", "status", "current", "queue"),
    [
        ([requested()], "queued", None, [TAG]),
        ([requested(), e.RunWithdrawn()], "withdrawn", None, []),
        ([requested(), e.RunRefused(request=1, code="x", why="no", remedy="yes")], "refused", None, []),
        (STARTED, "active", TAG, []),
        ([*STARTED, PAUSE], "active", TAG, []),
        ([*STARTED, PAUSE, PAUSED], "paused", TAG, []),
        ([*STARTED, PAUSED, RESUME], "paused", TAG, []),
        ([*STARTED, PAUSED, RESUME, RESUMED], "active", TAG, []),
        ([*STARTED, e.RunStopRequested()], "active", TAG, []),
        ([*STARTED, FINISHED], "finished", None, []),
        ([*STARTED, PAUSED, FINISHED], "finished", None, []),
        ([*STARTED, requested("dec1"), requested("dec2")], "active", TAG, ["dec1", "dec2"]),
        ([requested("dec1"), *STARTED, ("dec1", FINISHED)], "active", TAG, ["dec1"]),  # of a run not started
        ([requested(), e.RunWithdrawn(), requested()], "queued", None, [TAG]),
    ],
)
def test_where_a_run_stands(told: list[Told], status: str, current: str | None, queue: list[str]) -> None:
    state = state_of(*told)
    run = state.runs[TAG]
    assert (run.status, state.current, state.queue) == (status, current, queue)
    assert (state.active is run) == (status in ("active", "paused"))
    assert run.is_over == (status in ("withdrawn", "refused", "finished"))


def test_the_queue_is_in_the_order_of_the_requests_whoever_leaves_it() -> None:
    told: list[Told] = [requested(tag) for tag in "abcd"]
    assert state_of(*told).queue == ["a", "b", "c", "d"]
    refused = ("c", e.RunRefused(request=3, code="x", why="no", remedy="yes"))
    assert state_of(*told, ("b", e.RunWithdrawn()), refused, begun("a"), requested("b")).queue == ["d", "b"]


def test_the_newest_run_is_the_one_that_started_last() -> None:
    told: list[Told] = [requested("a"), requested("b"), begun("b"), ("b", FINISHED), begun("a"), requested("c")]
    assert state_of(requested()).newest is None
    for length, tag in ((3, "b"), (4, "b"), (5, "a"), (6, "a")):
        newest = state_of(*told[:length]).newest
        assert newest is not None
        assert newest.tag == tag


def test_a_run_remembers_who_asked_for_it_when_and_how_it_ended() -> None:
    run = run_of(*STARTED, PAUSED, FINISHED)
    assert (run.requested_by, run.requested_at, run.requested_time) == ("cli:ada", 1, at(1))
    assert (run.started_at, run.started_time, run.tip) == (2, at(2), "c0")
    assert (run.finished, run.finished_time, run.last_at) == (FINISHED, at(4), 4)
    refused = e.RunRefused(request=1, code="x", why="no", remedy="yes")
    assert run_of(requested(), refused).refused == refused


def test_a_run_that_was_withdrawn_while_its_branch_was_taken_is_stopped_at_once() -> None:
    run = run_of(requested(), e.RunWithdrawn(), begun())
    assert (run.status, run.stop, run.stop_at) == ("active", "now", 3)
    assert run_of(*STARTED).stop is None


def test_a_tag_asked_for_again_begins_anew() -> None:
    told: list[Told] = [requested(), e.BudgetChanged(limit="usd", new=1.0), e.RunWithdrawn(), requested()]
    assert run_of(*told) == run_of(("", e.LoopStopped(why="x")), *[("", e.LoopStopped(why="x"))] * 2, requested())


@pytest.mark.parametrize(
    ("told", "pause", "resume_at", "paused_why"),
    [
        ([PAUSE], "after_experiment", 0, ""),
        ([PAUSE, e.RunPauseRequested(mode="now")], "now", 0, ""),
        ([PAUSE, RESUME], None, 0, ""),
        ([PAUSE, PAUSED], None, 0, "asked to pause"),
        ([PAUSED, RESUME], None, 4, "asked to pause"),
        ([PAUSED, RESUME, RESUMED], None, 0, ""),
        ([PAUSED, RESUME, PAUSED], None, 0, "asked to pause"),
    ],
)
def test_pausing_and_resuming(told: list[Told], pause: str | None, resume_at: int, paused_why: str) -> None:
    run = run_of(*STARTED, *told)
    assert (run.pause, run.resume_at, run.paused_why) == (pause, resume_at, paused_why)


def test_the_newest_stop_and_pause_say_how_and_when() -> None:
    run = run_of(*STARTED, PAUSE, e.RunStopRequested(), e.RunStopRequested(mode="now"))
    assert (run.pause, run.pause_at, run.stop, run.stop_at) == ("after_experiment", 3, "now", 5)


def test_a_run_that_is_over_has_nothing_in_hand() -> None:
    run = run_of(
        *MEASURED, *decided(1, "discard"), *decided(2, "keep", 0.5), *proposed(3), e.ExperimentRequested(of=1), FINISHED
    )
    assert (run.experiments, run.agains, run.pending_keep) == ({}, {}, None)
    assert [done.experiment for done in run.done] == [0, 1, 2]


def test_the_end_of_one_run_leaves_another_active() -> None:
    state = state_of(*STARTED, FINISHED, requested("dec1"), begun("dec1"), FINISHED)
    assert state.current == "dec1"


# ---------------------------------------------------------------- limits and money


@pytest.mark.parametrize(
    ("told", "limits"),
    [
        ([requested(limits=e.Limits(usd=1.0))], e.Limits(usd=1.0)),
        (
            [requested(limits=e.Limits(usd=1.0)), begun(limits=e.Limits(usd=2.0, experiments=5))],
            e.Limits(usd=2.0, experiments=5),
        ),
        (
            [requested(limits=e.Limits(usd=1.0)), e.BudgetChanged(limit="usd", old=1.0, new=3.0)],
            e.Limits(usd=3.0),
        ),
        (
            [requested(), e.BudgetChanged(limit="usd", new=3.0), begun(limits=e.Limits(usd=2.0, experiments=5))],
            e.Limits(usd=3.0, experiments=5),
        ),
        (
            [
                requested(limits=e.Limits(usd=1.0)),
                e.BudgetChanged(limit="usd", old=1.0),
                begun(limits=e.Limits(usd=1.0)),
            ],
            e.Limits(),
        ),
        (
            [
                requested(),
                begun(limits=e.Limits(usd=2.0, experiments=5)),
                e.BudgetChanged(limit="experiments", old=5, new=9),
            ],
            e.Limits(usd=2.0, experiments=9),
        ),
        ([requested(), begun(limits=e.Limits(until=at(0))), e.BudgetChanged(limit="until", old=at(0))], e.Limits()),
    ],
)
def test_a_limit_that_a_person_changed_holds_whether_the_run_had_started_or_not(
    told: list[Told], limits: e.Limits
) -> None:
    assert run_of(*told).limits == limits


def test_a_warning_is_open_until_its_limit_changes() -> None:
    warned: list[Told] = [*STARTED, e.BudgetWarned(limit="usd", share=0.9)]
    assert run_of(*warned).warned == {"usd"}
    assert run_of(*warned, e.BudgetChanged(limit="experiments", new=3)).warned == {"usd"}
    assert run_of(*warned, e.BudgetChanged(limit="usd", new=3)).warned == set()


@pytest.mark.parametrize(
    ("told", "usd", "unknown"),
    [
        ([asked(1, usd_reserved=9.0)], 0.0, False),
        ([asked(1), received(1, usd=0.25), asked(2), received(2, usd=0.5)], 0.75, False),
        ([asked(1), failed(1, "overloaded", usd=0.25), asked(1, 1), received(1, 1, usd=0.5)], 0.75, False),
        ([asked(1), received(1, usd=None)], 0.0, True),
        ([asked(1), received(1, usd=None), asked(2), received(2, usd=0.5)], 0.5, True),
        ([asked(1), failed(1, "lost", usd=None)], 0.0, True),
        ([asked(1), received(1, usd=0.0)], 0.0, False),
        ([received(9, usd=0.25), failed(9, "stopped", usd=0.25)], 0.5, False),  # its experiment is over
    ],
)
def test_what_a_run_has_cost_and_whether_that_is_all(told: list[Told], usd: float, unknown: bool) -> None:
    run = run_of(*STARTED, *told)
    assert (run.usd, run.usd_unknown) == (usd, unknown)


# ---------------------------------------------------------------- proposals


@pytest.mark.parametrize(
    ("told", "failures"),
    [
        ([asked(1), failed(1, "overloaded")], 1),
        ([asked(1), failed(1, "overloaded"), asked(1, 1), failed(1, "refusal", 1), asked(2), failed(2, "x")], 3),
        ([asked(1), failed(1, "lost"), asked(1), failed(1, "stopped")], 0),
        ([asked(1), failed(1, "exhausted")], 0),
        ([asked(1, purpose="repair"), failed(1, "exhausted")], 1),
        ([asked(1, purpose="again", again_of=3), failed(1, "edit_does_not_apply")], 0),
        ([asked(1), failed(1, "x"), asked(1, 1), received(1, 1)], 1),
        ([asked(1), failed(1, "x"), asked(1, 1), received(1, 1), prepared(1)], 0),
        ([asked(1), failed(1, "x"), PAUSED, RESUMED], 0),
    ],
)
def test_failures_in_a_row_end_with_an_edit_that_fits_or_a_resume(told: list[Told], failures: int) -> None:
    assert run_of(*STARTED, *told).failures_in_a_row == failures


@pytest.mark.parametrize(("purpose", "exhausted"), [("new", "it was exhausted"), ("repair", ""), ("again", "")])
def test_only_a_proposer_asked_for_something_new_is_exhausted(purpose: e.Purpose, exhausted: str) -> None:
    assert run_of(*STARTED, asked(1, purpose=purpose), failed(1, "exhausted")).exhausted == exhausted


@pytest.mark.parametrize(
    ("told", "fields"),
    [
        ([], {"asks": 0, "ask_at": 3, "known_at": 3, "proposal_waits": False}),
        ([received(1)], {"asks": 1, "ask_at": 0, "known_at": 3, "proposal_waits": True, "description": "idea 1"}),
        ([failed(1, "x")], {"asks": 1, "ask_at": 0, "failures": 1, "last_failure_at": 4}),
        ([failed(1, "lost")], {"asks": 0, "ask_at": 0, "failures": 0, "last_failure_at": 4}),
        ([failed(1, "lost"), asked(1)], {"asks": 0, "ask_at": 5, "known_at": 3}),  # the same ask, the same knowledge
        ([failed(1, "x"), asked(1, 1)], {"asks": 1, "ask_at": 5, "known_at": 5}),
        ([failed(1, "x"), asked(1, 1), received(1, 1)], {"asks": 2, "failures": 1, "last_failure": None}),
        ([received(1), failed(1, "edit_does_not_apply")], {"asks": 1, "failures": 1, "proposal_waits": False}),
        ([received(1), prepared(1)], {"failures": 0, "proposal_waits": False, "attempt": 0, "in_hand": True}),
        ([failed(1, "x"), asked(1, 1), received(1, 1), prepared(1)], {"failures": 0, "asks": 2}),
        ([received(1), e.ProposalApproved(experiment=1)], {"approved": True, "rejected": None}),
        (
            [received(1), e.ProposalApproved(experiment=1), failed(1, "x"), asked(1, 1), received(1, 1)],
            {"approved": False},  # it was another edit that was approved
        ),
        ([received(1), e.ProposalRejected(experiment=1)], {"rejected": "", "rejected_at": 5, "approved": False}),
        ([received(1), e.ProposalRejected(experiment=1, why="no")], {"rejected": "no"}),
    ],
)
def test_the_life_of_a_proposal(told: list[Told], fields: dict[str, Any]) -> None:
    experiment = run_of(*STARTED, asked(1), *told).experiments[1]
    assert {name: getattr(experiment, name) for name in fields} == fields


def test_the_next_number_is_behind_all_that_were_ever_given() -> None:
    told: list[Told] = [*STARTED, asked(1), asked(4), asked(2), abandoned(4)]
    assert [run_of(*told[:length]).next_number for length in range(2, 7)] == [0, 2, 5, 5, 5]
    assert run_of(*STARTED, prepared(0)).next_number == 1


def test_an_edit_taken_up_again_is_asked_for_until_its_proposal_is() -> None:
    told: list[Told] = [*MEASURED, *decided(1, "discard", 2.0), *decided(2, "discard", 2.0)]
    both = [e.ExperimentRequested(of=2), e.ExperimentRequested(of=1)]
    position = len(events(*told))
    assert run_of(*told, *both).agains == {2: position + 1, 1: position + 2}
    assert run_of(*told, *both, asked(3, purpose="again", again_of=2)).agains == {1: position + 2}


# ---------------------------------------------------------------- attempts and trials


def last(*told: Told) -> Experiment:
    return run_of(*STARTED, *in_hand(1), *told).experiments[1]


def test_the_life_of_a_trial() -> None:
    asked_at = len(events(*STARTED, *in_hand(1))) + 1
    steps: list[Told] = [training(1, slot=2), trains(1), trained(1, peak_memory_mb=5.0), scoring(1), scored(1)]
    told = [last(*steps[:length]).last for length in range(6)]
    assert told[0] is None
    seen = [
        (
            trial.open_at,
            trial.started,
            trial.finished,
            trial.finished_at,
            trial.scoring_at,
            trial.scored,
            trial.scored_at,
        )
        for trial in told[1:]
        if trial is not None
    ]
    finished = trained(1, peak_memory_mb=5.0)
    assert seen == [
        (asked_at, None, None, 0, 0, None, 0),
        (asked_at, trains(1), None, 0, 0, None, 0),
        (0, trains(1), finished, asked_at + 2, 0, None, 0),
        (0, trains(1), finished, asked_at + 2, asked_at + 3, None, 0),
        (0, trains(1), finished, asked_at + 2, 0, scored(1), asked_at + 4),
    ]
    assert all(trial is not None and (trial.slot, trial.seed, trial.nonce) == (2, 7, "a") for trial in told[1:])


def test_a_lost_training_is_counted_and_trained_again_as_the_same_trial() -> None:
    lost: list[Told] = [training(1), trains(1), trained(1, outcome="lost")]
    trial = last(*lost, training(1, nonce="b", slot=1)).last
    assert trial is not None
    assert (trial.trial, trial.lost, trial.nonce, trial.slot, trial.started) == (0, 1, "b", 1, None)
    assert trial.open_at > 0
    again = last(*lost, training(1, nonce="b"), trained(1, outcome="lost", nonce="b")).last
    assert again is not None
    assert again.lost == 2
    stopped = last(training(1), trained(1, outcome="stopped")).last
    assert stopped is not None
    assert stopped.lost == 0


def test_a_step_that_was_cut_off_is_closed_without_a_result() -> None:
    trial = last(training(1), trained(1), scoring(1), scored(1, outcome="stopped", score=None)).last
    assert trial is not None
    assert (trial.scoring_at, trial.scored, trial.scored_at) == (0, None, 0)
    experiment = last(guarding(1), guarded(1, "stopped"))
    assert (experiment.guard_at, experiment.guard, experiment.guard_done_at) == (0, None, 0)


def test_a_guard_is_open_until_it_ends() -> None:
    position = len(events(*STARTED, *in_hand(1)))
    assert last(guarding(1)).guard_at == position + 1
    experiment = last(guarding(1), guarded(1, "failed"))
    assert (experiment.guard_at, experiment.guard_done_at) == (0, position + 2)
    assert experiment.guard == guarded(1, "failed")


def test_another_measurement_is_another_trial() -> None:
    first: list[Told] = [training(1), trained(1, peak_memory_mb=5.0), scoring(1), scored(1)]
    experiment = last(*first, measured_again(1))
    assert [(trial.trial, trial.seed, trial.open_at) for trial in experiment.trials] == [(0, 7, 0), (1, 8, 0)]
    assert experiment.remeasured_at == len(events(*STARTED, *in_hand(1), *first)) + 1
    after = last(*first, measured_again(1), measured_again(1), training(1, 1), trained(1, 1, peak_memory_mb=7.5))
    assert len(after.trials) == 2
    assert after.peak_memory_mb == 7.5
    assert last(training(1)).peak_memory_mb is None
    assert last(training(1), trained(1)).peak_memory_mb is None


@pytest.mark.parametrize(("step", "repairs", "rebases"), [("first", 0, 0), ("repair", 1, 0), ("rebase", 0, 1)])
def test_a_new_attempt_begins_with_no_commit_trial_or_guard(step: e.Step, repairs: int, rebases: int) -> None:
    ended: list[Told] = [training(1), trained(1), measured_again(1), guarding(1), guarded(1, "failed")]
    experiment = last(*ended, prepared(1, 1, step))
    assert (experiment.attempt, experiment.repairs, experiment.rebases) == (1, repairs, rebases)
    assert (experiment.committed, experiment.committed_at, experiment.trials, experiment.last) == (None, 0, [], None)
    assert (experiment.guard, experiment.guard_at, experiment.guard_done_at, experiment.remeasured_at) == (
        None,
        0,
        0,
        0,
    )


def test_the_baseline_is_an_experiment_without_a_proposal() -> None:
    run = run_of(*STARTED, prepared(0))
    assert (run.experiments[0].description, run.experiments[0].proposal) == ("baseline", None)
    assert (run.experiments[0].prepared_at, run.experiments[0].prepared_time) == (3, at(3))


# ---------------------------------------------------------------- verdicts and the branch


def branch(*told: Told) -> tuple[list[int], int | None, str, dict[int, int]]:
    """The keeps, the keep that waits for its move, the tip, and the open vetoes."""
    run = run_of(*MEASURED, *told)
    pending = run.pending_keep.experiment if run.pending_keep is not None else None
    assert run.best == (run.keeps[-1] if run.keeps else None)
    return [keep.experiment for keep in run.keeps], pending, run.tip, run.vetoes


THREE: list[Told] = [*kept(1), *kept(2), *decided(3, "discard", 2.0), *kept(4)]
HERE = len(events(*MEASURED, *THREE)) + 1


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ([], ([0], None, "c0", {})),
        (decided(1, "discard", 2.0), ([0], None, "c0", {})),
        (decided(1, "crash"), ([0], None, "c0", {})),
        (decided(1, "keep", 0.5), ([0], 1, "c0", {})),
        ([*decided(1, "keep", 0.5), FINISHED], ([0], None, "c0", {})),
        (kept(1), ([0, 1], None, "c1.0", {})),
        ([*kept(1), moved(1, "c1.0")], ([0, 1], None, "c1.0", {})),  # said twice
        ([*decided(1, "keep", 0.5), moved(2, "x")], ([0], 1, "x", {})),  # of another experiment
        (THREE, ([0, 1, 2, 4], None, "c4.0", {})),
        ([*THREE, e.KeepVetoed(experiment=2)], ([0, 1, 2, 4], None, "c4.0", {2: HERE})),
        ([*THREE, e.KeepVetoed(experiment=2), e.KeepVetoed(experiment=2)], ([0, 1, 2, 4], None, "c4.0", {2: HERE})),
        ([*THREE, e.KeepVetoed(experiment=4), moved(4, "c2.0", "veto")], ([0, 1, 2], None, "c2.0", {})),
        ([*THREE, e.KeepVetoed(experiment=2), moved(2, "c1.0", "veto")], ([0, 1], None, "c1.0", {})),
        (
            [*THREE, e.KeepVetoed(experiment=4), e.KeepVetoed(experiment=1), moved(1, "c0", "veto")],
            ([0], None, "c0", {}),  # 4 was built on 1: its own veto is served too
        ),
        (
            [*THREE, e.KeepVetoed(experiment=1), e.KeepVetoed(experiment=4), moved(4, "c2.0", "veto")],
            ([0, 1, 2], None, "c2.0", {1: HERE}),
        ),
        ([*THREE, e.KeepVetoed(experiment=4), FINISHED, moved(4, "c2.0", "veto")], ([0, 1, 2], None, "c2.0", {})),
        ([*THREE, moved(3, "c2.0", "veto")], ([0, 1, 2, 4], None, "c2.0", {})),  # never was on the branch
        ([*THREE, *decided(5, "keep", 0.1), e.KeepVetoed(experiment=5)], ([0, 1, 2, 4], 5, "c4.0", {5: HERE + 7})),
    ],
)
def test_what_is_on_the_branch(told: list[Told], found: Any) -> None:
    assert branch(*told) == found


def test_a_keep_without_a_score_is_a_verdict_but_never_the_best() -> None:
    run = run_of(*STARTED, *decided(0, "keep"))
    assert (run.best, run.pending_keep, run.counts["keep"]) == (None, None, 1)


def test_a_keep_is_known_by_its_commit_score_memory_and_position() -> None:
    told: list[Told] = [*MEASURED, *in_hand(1), training(1), trained(1, peak_memory_mb=5.0), judged(1, "keep", 0.5)]
    keep = Keep(experiment=1, commit="c1.0", score=0.5, peak_memory_mb=5.0, decided_at=len(events(*told)))
    assert run_of(*told).pending_keep == keep
    run = run_of(*told, moved(1, "c1.0"))
    assert (run.best, run.keep_of(1), run.keep_of(2)) == (keep, keep, None)


def refusal_of(cause: int | None) -> dict[int, int]:
    before = events(*MEASURED, *THREE, e.KeepVetoed(experiment=2), e.KeepVetoed(experiment=4))
    refused = e.RequestRefused(who="cli:ada", what="veto", why="the branch was moved by someone else")
    return State.of([*before, event(len(before) + 1, TAG, refused, cause)]).runs[TAG].vetoes


def test_a_refusal_closes_the_veto_that_caused_it_and_no_other() -> None:
    assert refusal_of(HERE) == {4: HERE + 1}
    assert refusal_of(HERE + 1) == {2: HERE}
    assert refusal_of(1) == refusal_of(None) == {2: HERE, 4: HERE + 1}


@pytest.mark.parametrize(
    ("told", "counts", "verdicts"),
    [
        (STARTED, (0, 0, 0), 0),
        (MEASURED, (1, 0, 0), 0),
        ([*STARTED, *decided(0, "crash")], (0, 0, 1), 0),
        ([*MEASURED, *THREE, *decided(5, "crash")], (4, 1, 1), 5),
        ([*MEASURED, *proposed(1), abandoned(1)], (1, 0, 0), 0),
        ([*MEASURED, *kept(1), moved(1, "c0", "veto")], (2, 0, 0), 1),  # the verdict was given
        ([*MEASURED, *decided(1, "keep", 0.5), judged(1, "discard")], (2, 0, 0), 1),  # decided once only
    ],
)
def test_verdicts_are_counted_once_and_the_baseline_apart(
    told: list[Told], counts: tuple[int, int, int], verdicts: int
) -> None:
    run = run_of(*told)
    assert (run.counts["keep"], run.counts["discard"], run.counts["crash"]) == counts
    assert run.verdicts == verdicts


def test_of_an_experiment_that_is_over_a_few_words_stay() -> None:
    constants = (e.SetConstants(path="train.py", values={"LR": 0.1}),)
    before: list[Told] = [*MEASURED, asked(1), received(1, edits=constants), prepared(1), committed(1)]
    position = len(events(*before))
    run = run_of(*before, judged(1, "discard", 2.0))
    assert run.finished_experiment(1) == Done(
        experiment=1,
        verdict="discard",
        score=2.0,
        reason="so",
        description="idea 1",
        edits=constants,
        commit="c1.0",
        base_commit="c0",
        attempt=0,
        proposal_at=position - 2,
        decided_at=position + 1,
        prepared_at=position - 1,
        gain=None,
    )
    assert (run.finished_experiment(0) is run.done[0], run.finished_experiment(2)) == (True, None)
    mixed = (*constants, e.WholeFile(path="train.py", text="x"))
    assert run_of(*MEASURED, asked(1), received(1, edits=mixed), abandoned(1)).done[1] == Done(
        experiment=1,
        verdict=None,
        score=None,
        reason="no",
        description="idea 1",
        edits=(),
        commit="",
        base_commit="",
        attempt=-1,
        proposal_at=position - 2,
        decided_at=position - 1,
    )


def test_after_2000_experiments_only_the_undecided_are_kept_in_detail() -> None:
    night: list[Told] = [part for n in range(1, 2_001) for part in decided(n, "discard", 2.0)]
    run = run_of(*MEASURED, *night, *in_hand(2_001), *proposed(2_002), asked(2_003))
    assert list(run.experiments) == [2_001, 2_002, 2_003]
    assert (len(run.done), run.verdicts, run.next_number) == (2_001, 2_000, 2_004)
    found = run.finished_experiment(1_999)
    assert found is not None
    assert found.experiment == 1_999


# ---------------------------------------------------------------- the workspace


def workspace(*data: e.Data) -> State:
    return state_of(*[("", one) for one in data])


def test_before_the_first_event_there_is_nothing() -> None:
    state = State()
    assert (state.position, state.loop, state.active, state.newest) == (0, None, None, None)
    assert (state.program_hash, state.program_at, state.program_positions) == ("", 0, {})
    assert (state.runs, state.queue, state.troubles, state.digests, state.ideas) == ({}, [], {}, {}, {})


def test_the_loop_that_serves_the_workspace() -> None:
    loop = e.LoopStarted(host="box", boot_id="b", pid=1, pid_started=1.0, nightshift="1", sandbox="none")
    other = msgspec.structs.replace(loop, pid=2)
    assert workspace(loop).loop == loop
    assert workspace(loop, other).loop == other  # the first one crashed
    assert workspace(loop, e.LoopStopped(why="asked to")).loop is None


def test_the_program_in_force_is_the_newest_and_all_that_ever_were_are_known() -> None:
    first = e.ProgramRecorded(hash="a", text="A")
    state = workspace(first, e.ProgramEdited(base_hash="a", hash="b", text="B"))
    assert (state.program_hash, state.program_at, state.program_positions) == ("b", 2, {"a": 1, "b": 2})
    back = workspace(first, e.ProgramEdited(base_hash="a", hash="b", text="B"), first)
    assert (back.program_hash, back.program_at, back.program_positions) == ("a", 3, {"a": 3, "b": 2})


def test_a_trouble_lasts_until_it_is_cleared() -> None:
    disk = e.TroubleNoticed(kind="disk", what="no space left", since=at(1))
    more = e.TroubleNoticed(kind="disk", what="still none", since=at(2))
    device = e.TroubleNoticed(kind="device", what="it is gone", since=at(3))
    clear = e.TroubleCleared(kind="disk", what="no space left")
    assert workspace(disk, device, more).troubles == {"disk": more, "device": device}
    assert workspace(disk, device, clear, clear).troubles == {"device": device}


def test_a_digest_is_at_its_newest_hour_until_it_is_turned_off() -> None:
    def set_to(channel: str, hour: str = "") -> e.DigestScheduled:
        return e.DigestScheduled(channel=channel, at=hour, zone="UTC" if hour else "")

    state = workspace(set_to("#a", "08:00"), set_to("#b", "09:00"), set_to("#a", "07:00"))
    assert state.digests == {"#a": set_to("#a", "07:00"), "#b": set_to("#b", "09:00")}
    assert workspace(set_to("#a", "08:00"), set_to("#a"), set_to("#b")).digests == {}


@pytest.mark.parametrize(
    ("told", "still_open"),
    [
        ([], [1, 2]),
        ([e.IdeaUsed(idea=1, experiment=3)], [2]),
        ([e.IdeaDeclined(idea=2, experiment=3, why="tried")], [1]),
        ([e.IdeaWithdrawn(idea=1), e.IdeaWithdrawn(idea=1)], [2]),
        ([e.IdeaWithdrawn(idea=7)], [1, 2]),
        ([e.IdeaUsed(idea=1, experiment=3), e.IdeaSuggested(text="a")], [2, 4]),
    ],
)
def test_an_idea_is_open_until_it_is_used_declined_or_withdrawn(told: list[e.Data], still_open: list[int]) -> None:
    state = workspace(e.IdeaSuggested(text="a"), e.IdeaSuggested(text="b", by="Grace"), *told)
    assert list(state.ideas) == still_open


# ---------------------------------------------------------------- any log

LOOP = e.LoopStarted(host="box", boot_id="b", pid=1, pid_started=1.0, nightshift="1", sandbox="none")
EVERYTHING = events(
    ("", LOOP),
    ("", e.ProgramRecorded(hash="a", text="A")),
    requested(limits=e.Limits(usd=1.0)),
    e.BudgetChanged(limit="usd", old=1.0, new=2.0),
    begun(),
    requested("dec1"),
    requested("dec2"),
    ("dec2", e.RunWithdrawn()),
    *decided(0, "keep", 1.0),
    ("", e.IdeaSuggested(text="a")),
    ("", e.IdeaSuggested(text="b")),
    ("", e.IdeaSuggested(text="c")),
    asked(1, idea=14),
    failed(1, "overloaded", usd=None),
    e.ProposerWaiting(kind="claude", failure="overloaded", why="it is busy"),
    e.ProposerSwitched(from_kind="claude", to_kind="sweep", why="overloaded"),
    asked(1, 1),
    received(1, 1),
    e.ProposalApproved(experiment=1),
    e.IdeaUsed(idea=14, experiment=1),
    e.IdeaDeclined(idea=15, experiment=1, why="tried"),
    ("", e.IdeaWithdrawn(idea=16)),
    prepared(1),
    committed(1),
    training(1),
    trains(1),
    trained(1, outcome="lost"),
    training(1, nonce="b"),
    trained(1, nonce="b", peak_memory_mb=5.0),
    scoring(1),
    scored(1),
    measured_again(1),
    training(1, 1),
    trained(1, 1),
    scoring(1, 1),
    scored(1, 1),
    guarding(1),
    guarded(1, "passed"),
    judged(1, "keep", 0.9),
    moved(1, "c1.0"),
    *kept(2),
    e.KeepVetoed(experiment=1),
    moved(1, "c0", "veto"),
    e.ExperimentRequested(of=2),
    asked(3, purpose="again", again_of=2),
    received(3),
    e.ProposalRejected(experiment=3),
    abandoned(3),
    ("", e.TroubleNoticed(kind="disk", what="no space left", since=at(1))),
    PAUSE,
    PAUSED,
    RESUME,
    ("", e.TroubleCleared(kind="disk", what="no space left")),
    RESUMED,
    e.BudgetWarned(limit="usd", share=0.9),
    *kept(4),
    e.KeepVetoed(experiment=4),
    e.RequestRefused(who="cli:ada", what="veto", why="the branch was moved"),
    ("", e.DigestScheduled(channel="#ml", at="08:00", zone="UTC")),
    ("", e.DigestRequested(channel="#ml")),
    e.PostRequested(key="k", channel="#ml", kind="digest"),
    e.PostMade(key="k", channel="#ml", ts="1"),
    e.PostFailed(key="l", why="gone"),
    ("", e.ProgramEdited(base_hash="a", hash="b", text="B")),
    *in_hand(5),
    training(5),
    *decided(6, "keep", 0.1),
    e.RunStopRequested(mode="now"),
    FINISHED,
    ("dec1", e.RunRefused(request=6, code="x", why="no", remedy="yes")),
    ("", e.LoopStopped(why="asked to")),
)


def test_the_log_of_these_tests_has_every_type_of_event() -> None:
    assert {one.type for one in EVERYTHING} == set(e.CATALOGUE)


def test_folding_in_two_halves_equals_folding_at_once() -> None:
    """Between the halves another state is folded: two of them share nothing."""
    for cut in range(len(EVERYTHING) + 1):
        state = State.of(EVERYTHING[:cut])
        whole = State.of(EVERYTHING)
        for one in EVERYTHING[cut:]:
            state.apply(one)
        assert vars(state) == vars(whole), f"cut at {cut}"


def test_folding_changes_no_event() -> None:
    before = copy.deepcopy(EVERYTHING)
    State.of(EVERYTHING)
    assert before == EVERYTHING


@given(st.lists(st.sampled_from(EVERYTHING), max_size=80))
@settings(deadline=None)
def test_in_whatever_order_events_come_the_fold_goes_on(log: list[Event]) -> None:
    """A log is never refused here: what an event speaks of and is not there, it does not change."""
    state = State()
    for position, one in enumerate(log, start=1):
        state.apply(event(position, one.run, one.data, one.cause))  # type: ignore[arg-type]
    assert state.position == len(log)
    assert state.current is None or state.active is state.runs[state.current]


@pytest.mark.parametrize("cut", [3, 40, len(EVERYTHING) - 4])
@pytest.mark.parametrize("run", ["", TAG, "ghost"])
def test_an_unknown_type_or_version_changes_only_the_position(cut: int, run: str) -> None:
    state = State.of(EVERYTHING[:cut])
    before = contents(state)
    unknown: list[tuple[str, int]] = [("moon.risen", 1), *((type_, 99) for type_ in e.CATALOGUE)]
    for position, (type_, version) in enumerate(unknown, start=cut + 1):
        raw = e.UnknownEvent(raw='{"tag":"nov21","experiment":1}')
        state.apply(Event(position, f"id-{position}", run, type_, version, at(1), "x", None, raw, b""))
        assert state.position == position
    assert contents(state) == before


def test_an_event_of_a_run_that_does_not_exist_changes_only_the_position() -> None:
    state = State.of(EVERYTHING[:60])
    before = contents(state)
    of_runs = [one.data for one in EVERYTHING if one.run == TAG and not one.type.startswith(("idea.", "run.requested"))]
    assert len({type(data) for data in of_runs}) > 30
    for position, data in enumerate(of_runs, start=61):
        state.apply(event(position, "ghost", data))  # type: ignore[arg-type]
        assert state.position == position
    assert contents(state) == before


LATE: dict[str, Callable[[int], e.Data]] = {
    "failed": lambda n: failed(n, "stopped"),
    "received": received,
    "approved": lambda n: e.ProposalApproved(experiment=n),
    "rejected": lambda n: e.ProposalRejected(experiment=n),
    "committed": committed,
    "training": training,
    "trains": trains,
    "trained": trained,
    "scoring": scoring,
    "scored": scored,
    "guarding": guarding,
    "guarded": lambda n: guarded(n, "passed"),
    "measured again": measured_again,
    "decided": lambda n: judged(n, "keep", 0.1),
    "abandoned": abandoned,
}


@pytest.mark.parametrize("tell", LATE.values(), ids=LATE)
@pytest.mark.parametrize("n", [1, 77])
def test_what_comes_late_for_an_experiment_that_is_over_or_never_was_changes_nothing(
    n: int, tell: Callable[[int], e.Data]
) -> None:
    told: list[Told] = [*MEASURED, *decided(1, "discard", 2.0)]
    before, after = state_of(*told), state_of(*told, tell(n))
    before.runs[TAG].last_at += 1
    assert contents(after) == contents(before)
