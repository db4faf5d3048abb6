"""Where an experiment and a run stand, read off the folded log. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from eventstore import events as e
from eventstore.projections.run_state import UNCOUNTED_FAILURES, Experiment, Run, Trial
from loop.crashes import looks_trivial
from loop.decide import Candidate

Stage = Literal[
    "asking",  # a proposal is asked for
    "waiting",  # a proposal is there and waits for a slot
    "idle",  # no proposal, and none asked for
    "committing",  # prepared, not committed
    "to_train",  # committed, a training is due
    "training",
    "to_score",  # trained, a score is due
    "scored",  # has a score, waits for its verdict
    "failed",  # has no score and will have none in this attempt
]


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a run takes up nothing new. *reason* is a word, *why* the sentence for people."""

    reason: str
    why: str
    cause: int


def stage_of(experiment: Experiment) -> Stage:
    """Where an undecided experiment stands, from its record alone."""
    if experiment.ask_at:
        return "asking"
    if experiment.proposal_waits:
        return "waiting"
    if not experiment.in_hand:
        return "idle"
    if experiment.committed is None:
        return "committing"
    trial = experiment.last
    if trial is None:
        return "to_train"
    if trial.open_at:
        return "training"
    if trial.finished is None or trial.finished.outcome in UNCOUNTED_FAILURES:
        return "to_train"
    if trial.finished.outcome != "scored":
        return "failed"
    if trial.scored is None:
        return "to_score"
    return "scored" if trial.scored.score is not None else "failed"


def outcome_of(trial: Trial) -> tuple[e.Outcome, str]:
    """Why a trial has no score: its outcome and the sentence that goes with it."""
    scored = trial.scored
    if scored is not None:
        return "no_metric" if scored.outcome == "scored" else scored.outcome, scored.why
    if trial.finished is None:
        return "lost", "it never finished"
    return trial.finished.outcome, trial.finished.why


def ending_of(run: Run, now: str, direction: str) -> Ending | None:
    """Why the run is to end after the experiments in hand, or None while it may go on."""
    limits, best = run.limits, run.best
    last = run.done[-1].decided_at if run.done else run.started_at
    baseline = run.finished_experiment(0)
    if run.stop is not None:
        return Ending("stopped", "stopped by request after the experiments in hand", run.stop_at)
    if baseline is not None and not run.keeps:
        return Ending("baseline_failed", f"the baseline has no score to compare with ({baseline.reason})", last)
    if direction == "pass" and best is not None and best.score >= 1:
        return Ending("passed", f"experiment {best.experiment} passes", last)
    if limits.experiments is not None and run.verdicts >= limits.experiments:
        return Ending("experiments", f"all {limits.experiments} experiments are done", last)
    if limits.until is not None and now >= limits.until:
        return Ending("until", f"its time was up at {limits.until}", last)
    if limits.usd is not None and (run.usd >= limits.usd or run.usd_out):
        return Ending("usd", f"${run.usd:.2f} of ${limits.usd:.2f} are spent", last)
    if run.exhausted and not run.experiments and not run.agains:
        return Ending("exhausted", f"the proposer has nothing more to propose ({run.exhausted})", last)
    return None


def is_trivial(experiment: Experiment) -> bool:
    """Whether its crash looks like a slip of its edit, which a repair may cure."""
    trial, prepared = experiment.last, experiment.prepared
    if trial is None or trial.finished is None or prepared is None:
        return False
    return looks_trivial(trial.finished.tail, prepared.diff)


def candidate_of(experiment: Experiment) -> Candidate | None:
    scores = [trial.scored.score for trial in experiment.trials if trial.scored is not None]
    known = tuple(score for score in scores if score is not None)
    return Candidate(known, experiment.peak_memory_mb, net_lines(experiment)) if known else None


def net_lines(experiment: Experiment) -> int:
    prepared = experiment.prepared
    return prepared.lines_added - prepared.lines_removed if prepared is not None else 0
