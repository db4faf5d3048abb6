"""What is going on: the whole state of a workspace, folded from the log. Pure.

`State.apply` takes one event after the other, in order; nothing else changes it, and `loop/machine`
only reads it. An experiment is kept in detail while it has no verdict; afterwards a few words of it
stay (`Done`), so the memory of a long night stays small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import msgspec

from eventstore import events as e
from eventstore.envelope import Event

RunStatus = Literal["queued", "active", "paused", "finished", "refused", "withdrawn"]

UNCOUNTED_FAILURES = frozenset({"lost", "stopped"})
"""Classes of `proposal.failed` that say nothing about the proposer."""

OUTSIDE_FAILURES = frozenset(
    {
        "rate_limited",  # 429
        "overloaded",  # 529, 500, 503, 504
        "offline",  # no connection, a cut stream, no answer in time
        "unauthorised",  # 401, 403, no key
        "no_credit",  # 402
        "bad_request",  # 400, 404, 413: a model that is gone, a setting it does not take
        "agent_failed",  # the agent's command cannot be started, or ended with an error
        "broken",  # the proposer cannot be made
    }
)
"""Classes that no other answer would cure: a remote proposer is asked again later, however often they come."""

REMOTE = frozenset({"claude", "agent"})
"""Kinds of proposers whose answers take seconds to minutes and may fail for reasons outside."""

HYPOTHESIS_KEPT, ERROR_KEPT = 300, 200
"""Characters of a hypothesis and of a crash's last line that stay in memory when an experiment is over."""


class Trial(msgspec.Struct):
    """
    One training of one commit. *open_at* and *scoring_at* are the positions of intents without an outcome, or 0.

    *scored_at* is where it got its score, *checks_at* where what would be kept was checked; *scored* is the newest.
    """

    trial: int
    seed: int
    open_at: int = 0
    slot: int = 0
    nonce: str = ""
    started: e.TrainingStarted | None = None
    finished: e.TrainingFinished | None = None
    finished_at: int = 0
    lost: int = 0
    scoring_at: int = 0
    scoring_checks: bool = False
    scored: e.ScoringFinished | None = None
    scored_at: int = 0
    checks_at: int = 0


class Experiment(msgspec.Struct):
    """
    An experiment without a verdict yet. Positions are 0 where the event has not happened.

    *asks* counts the asks that were answered, *known_at* is the position whose verdicts the open ask was shown;
    an ask that a crash cut off is asked again with the same number and the same knowledge.
    """

    number: int
    asks: int = 0
    ask_at: int = 0
    known_at: int = 0
    request: e.ProposalRequested | None = None
    proposal: e.ProposalReceived | None = None
    proposal_at: int = 0
    proposal_waits: bool = False
    failures: int = 0
    last_failure: e.ProposalFailed | None = None
    last_failure_at: int = 0
    approved: bool = False
    rejected: str | None = None
    rejected_at: int = 0
    attempt: int = -1
    prepared: e.ExperimentPrepared | None = None
    prepared_at: int = 0
    prepared_time: str = ""
    committed: e.ExperimentCommitted | None = None
    committed_at: int = 0
    trials: list[Trial] = []  # a Struct makes each a list of its own
    guard_at: int = 0
    guard: e.GuardFinished | None = None
    guard_done_at: int = 0
    repairs: int = 0
    rebases: int = 0
    remeasured_at: int = 0
    description: str = ""

    @property
    def in_hand(self) -> bool:
        """Whether it has left the queue of proposals: an attempt of it is prepared."""
        return self.prepared is not None

    @property
    def last(self) -> Trial | None:
        """The newest trial of the newest attempt."""
        return self.trials[-1] if self.trials else None

    @property
    def peak_memory_mb(self) -> float | None:
        """The largest peak among the trials of the newest attempt, or None if none was measured."""
        peaks = [trial.finished.peak_memory_mb for trial in self.trials if trial.finished is not None]
        return max((peak for peak in peaks if peak is not None), default=None)


class Keep(msgspec.Struct, frozen=True, gc=False):
    """An experiment whose commit is on the branch."""

    experiment: int
    commit: str
    score: float
    peak_memory_mb: float | None
    decided_at: int


class Done(msgspec.Struct, frozen=True, gc=False):
    """
    An experiment that is over. A Struct because a frozen dataclass of as many fields takes ten times as long to make.

    *edits* are kept only where they are constants, which is all a search needs; *hypothesis* and *error* (a
    crash's last line, where the program itself crashed: else the reason says more) are cut. *prepared_at* and
    *finished_at* are where the diff and the end of the log are.
    """

    experiment: int
    verdict: e.Verdict | None
    score: float | None
    reason: str
    description: str
    edits: tuple[e.FileEdit, ...]
    commit: str
    base_commit: str
    attempt: int
    proposal_at: int
    decided_at: int
    prepared_at: int = 0
    finished_at: int = 0
    gain: float | None = None
    lines: int = 0
    hypothesis: str = ""
    error: str = ""


@dataclass(slots=True)
class Run:
    """
    One run, from its request on.

    Attributes:
        changed: The limits that a person changed while it was queued.
        failure, failures_alike: The class of the proposer's last failure, and how many of it came in a row; empty
            and 0 once it has answered.
        retry_at: When a remote proposer may be asked again, in the log's form; empty for at once.
        failed_time: When it failed last, by the same clock.
        waiting: Set while the proposer fails and no other one can stand in.
        switched: Set while another proposer stands in, since *switched_time*.
        stand_in_exhausted: Why the one that stands in or fills idle devices has nothing more; empty if it has.
        usd_out: An ask did not fit into what is left of the money.
        tried: What was tried, by its content hash: the experiment that did.
    """

    tag: str
    request: e.RunRequested
    requested_at: int
    requested_time: str
    requested_by: str
    status: RunStatus = "queued"
    started: e.RunStarted | None = None
    started_at: int = 0
    started_time: str = ""
    refused: e.RunRefused | None = None
    finished: e.RunFinished | None = None
    finished_time: str = ""
    limits: e.Limits = field(default_factory=e.Limits)
    changed: set[str] = field(default_factory=set)
    pause: e.StopMode | None = None
    pause_at: int = 0
    resume_at: int = 0
    paused_why: str = ""
    stop: e.StopMode | None = None
    stop_at: int = 0
    experiments: dict[int, Experiment] = field(default_factory=dict)
    done: list[Done] = field(default_factory=list)
    done_by_number: dict[int, int] = field(default_factory=dict)
    keeps: list[Keep] = field(default_factory=list)
    pending_keep: Keep | None = None
    vetoes: dict[int, int] = field(default_factory=dict)
    agains: dict[int, int] = field(default_factory=dict)
    tip: str = ""
    next_number: int = 0
    counts: dict[str, int] = field(default_factory=lambda: {"keep": 0, "discard": 0, "crash": 0})
    usd: float = 0.0
    usd_unknown: bool = False
    warned: set[str] = field(default_factory=set)
    failures_in_a_row: int = 0
    exhausted: str = ""
    failure: str = ""
    failures_alike: int = 0
    retry_at: str = ""
    failed_time: str = ""
    waiting: e.ProposerWaiting | None = None
    switched: e.ProposerSwitched | None = None
    switched_time: str = ""
    stand_in_exhausted: str = ""
    usd_out: bool = False
    approvals: int = 0
    tried: dict[str, int] = field(default_factory=dict)
    last_at: int = 0

    @property
    def best(self) -> Keep | None:
        """The experiment at the tip of the branch, the baseline at first."""
        return self.keeps[-1] if self.keeps else None

    @property
    def verdicts(self) -> int:
        """Verdicts after the baseline's: what `limits.experiments` counts."""
        return sum(self.counts.values()) - (1 if 0 in self.done_by_number else 0)

    @property
    def is_over(self) -> bool:
        return self.status in ("finished", "refused", "withdrawn")

    @property
    def proposer(self) -> str:
        """The kind of its proposer, from the settings that govern it; empty before it has started."""
        return str(self._proposer_setting("kind"))

    def is_own(self, request: e.ProposalRequested | None) -> bool:
        """Whether the run's own proposer was asked: not a stand-in, and not for an old edit."""
        return request is not None and request.purpose != "again" and request.kind in (self.proposer, "")

    def _proposer_setting(self, name: str) -> Any:
        settings = self.started.settings if self.started is not None else {}
        return settings.get("proposer", {}).get(name, "")

    @property
    def usd_open(self) -> float:
        """The most that asks without an answer may still cost."""
        asked = [x.request for x in self.experiments.values() if x.ask_at and x.request is not None]
        return sum(request.usd_reserved for request in asked)

    @property
    def usd_left(self) -> float | None:
        """Money that no ask has spent or may still spend; None without a limit."""
        return None if self.limits.usd is None else max(0.0, self.limits.usd - self.usd - self.usd_open)

    def awaits_approval(self, experiment: Experiment) -> bool:
        """
        Whether a person must approve its proposal before it is tried.

        Only what the run's own proposer thought up: not what a sweep fills in, nor an old edit that a person asked
        for, nor a repair of what was approved.
        """
        mode = self._proposer_setting("approval")
        is_new = experiment.proposal_waits and not experiment.in_hand and experiment.rejected is None
        if mode not in ("first", "all") or not is_new or experiment.approved:
            return False
        return self.is_own(experiment.request) and (mode == "all" or self.approvals == 0)

    def finished_experiment(self, number: int) -> Done | None:
        """The experiment *number* if it is over, else None."""
        index = self.done_by_number.get(number)
        return None if index is None else self.done[index]

    def keep_of(self, number: int) -> Keep | None:
        """The keep of experiment *number* if its commit is on the branch, else None."""
        return next((keep for keep in self.keeps if keep.experiment == number), None)


class State:
    """The workspace as the log tells it up to `position`."""

    def __init__(self) -> None:
        self.position = 0
        self.loop: e.LoopStarted | None = None
        self.runs: dict[str, Run] = {}
        self.queue: list[str] = []
        self.current: str | None = None
        self.program_hash = ""
        self.program_at = 0
        self.program_positions: dict[str, int] = {}
        self.troubles: dict[str, e.TroubleNoticed] = {}
        self.digests: dict[str, e.DigestScheduled] = {}
        self.ideas: dict[int, e.IdeaSuggested] = {}

    @classmethod
    def of(cls, events: Iterable[Event]) -> State:
        """Fold *events*, which begin at position 1."""
        state = cls()
        for event in events:
            state.apply(event)
        return state

    @property
    def active(self) -> Run | None:
        """The run that has started and is not over, paused or not."""
        return self.runs[self.current] if self.current is not None else None

    @property
    def newest(self) -> Run | None:
        """The run that started last, over or not."""
        started = [run for run in self.runs.values() if run.started is not None]
        return max(started, key=lambda run: run.started_at, default=None)

    def apply(self, event: Event) -> None:
        """Take the next event. A type not known here, or of a run not known here, changes only the position."""
        self.position = event.position
        data = event.data
        of_run = _OF_RUN.get(type(data))  # by class, so that an unknown version of a known type finds no handler
        if of_run is not None:
            run = self.runs.get(event.run)
            if run is not None:
                run.last_at = event.position
                of_run(self, run, data, event)
            return
        of_workspace = _OF_WORKSPACE.get(type(data))
        if of_workspace is not None:
            of_workspace(self, event)


# ---------------------------------------------------------------- events of the workspace


def _loop_started(state: State, event: Event) -> None:
    state.loop = cast(e.LoopStarted, event.data)


def _loop_stopped(state: State, _event: Event) -> None:
    state.loop = None


def _program(state: State, event: Event) -> None:
    data = cast("e.ProgramRecorded | e.ProgramEdited", event.data)
    state.program_hash = data.hash
    state.program_at = event.position
    state.program_positions[data.hash] = event.position


def _trouble_noticed(state: State, event: Event) -> None:
    data = cast(e.TroubleNoticed, event.data)
    state.troubles[data.kind] = data


def _trouble_cleared(state: State, event: Event) -> None:
    state.troubles.pop(cast(e.TroubleCleared, event.data).kind, None)


def _digest_scheduled(state: State, event: Event) -> None:
    data = cast(e.DigestScheduled, event.data)
    if data.at:
        state.digests[data.channel] = data
    else:
        state.digests.pop(data.channel, None)


def _idea_suggested(state: State, event: Event) -> None:
    state.ideas[event.position] = cast(e.IdeaSuggested, event.data)


def _idea_closed(state: State, event: Event) -> None:
    state.ideas.pop(cast("e.IdeaWithdrawn | e.IdeaUsed | e.IdeaDeclined", event.data).idea, None)


def _run_requested(state: State, event: Event) -> None:
    data = cast(e.RunRequested, event.data)
    run = Run(data.tag, data, event.position, event.at, event.actor, limits=data.limits, last_at=event.position)
    state.runs[data.tag] = run
    state.queue.append(data.tag)


# ---------------------------------------------------------------- events of a run


def _leave_queue(state: State, run: Run) -> None:
    if run.tag in state.queue:
        state.queue.remove(run.tag)


def _run_withdrawn(state: State, run: Run, _data: Any, _event: Event) -> None:
    run.status = "withdrawn"
    _leave_queue(state, run)


def _run_refused(state: State, run: Run, data: e.RunRefused, _event: Event) -> None:
    if data.request != run.requested_at:  # it was withdrawn and asked for again since
        return
    run.status = "refused"
    run.refused = data
    _leave_queue(state, run)


def _run_started(state: State, run: Run, data: e.RunStarted, event: Event) -> None:
    if run.status == "withdrawn" or event.cause not in (None, run.requested_at):  # too late: its branch was being taken
        run.stop, run.stop_at = "now", event.position
    run.status = "active"
    run.started, run.started_at, run.started_time = data, event.position, event.at
    run.limits = msgspec.structs.replace(data.limits, **{name: getattr(run.limits, name) for name in run.changed})
    run.tip = data.base_commit
    state.current = run.tag
    _leave_queue(state, run)


def _pause_requested(_state: State, run: Run, data: e.RunPauseRequested, event: Event) -> None:
    run.pause, run.pause_at = data.mode, event.position


def _resume_requested(_state: State, run: Run, _data: Any, event: Event) -> None:
    run.pause = None
    if run.status == "paused":
        run.resume_at = event.position


def _stop_requested(_state: State, run: Run, data: e.RunStopRequested, event: Event) -> None:
    run.stop, run.stop_at = data.mode, event.position


def _run_paused(_state: State, run: Run, data: e.RunPaused, _event: Event) -> None:
    run.status = "paused"
    run.paused_why = data.why
    run.pause = None
    run.resume_at = 0


def _run_resumed(_state: State, run: Run, _data: Any, _event: Event) -> None:
    run.status = "active"
    run.paused_why = ""
    run.resume_at = 0
    run.failures_in_a_row = 0
    run.retry_at = ""


def _run_finished(state: State, run: Run, data: e.RunFinished, event: Event) -> None:
    run.status = "finished"
    run.finished, run.finished_time = data, event.at
    run.experiments.clear()
    run.agains.clear()
    run.pending_keep = None  # someone else holds the branch, so this keep never came onto it
    if state.current == run.tag:
        state.current = None


def _budget_changed(_state: State, run: Run, data: e.BudgetChanged, _event: Event) -> None:
    limits = {"experiments": run.limits.experiments, "until": run.limits.until, "usd": run.limits.usd}
    run.limits = e.Limits(**{**limits, data.limit: data.new})  # type: ignore[arg-type]
    run.warned.discard(data.limit)
    if data.limit == "usd":
        run.usd_out = False
    if run.started is None:
        run.changed.add(data.limit)


def _budget_warned(_state: State, run: Run, data: e.BudgetWarned, _event: Event) -> None:
    run.warned.add(data.limit)


# ---------------------------------------------------------------- proposals


def _proposal_requested(_state: State, run: Run, data: e.ProposalRequested, event: Event) -> None:
    experiment = run.experiments.get(data.experiment)
    if experiment is None:
        experiment = run.experiments[data.experiment] = Experiment(data.experiment)
        run.next_number = max(run.next_number, data.experiment + 1)
        if data.again_of is not None:
            run.agains.pop(data.again_of, None)
    if experiment.request is None or experiment.request.ask != data.ask:
        experiment.known_at = event.position
    experiment.ask_at = event.position
    experiment.request = data


def _proposal_received(_state: State, run: Run, data: e.ProposalReceived, event: Event) -> None:
    _spend(run, data.usd)
    experiment = run.experiments.get(data.experiment)
    if experiment is None:
        return
    if run.is_own(experiment.request):
        run.failure, run.failures_alike, run.retry_at, run.waiting = "", 0, "", None
    experiment.ask_at = 0
    experiment.asks += 1
    experiment.proposal, experiment.proposal_at = data, event.position
    experiment.proposal_waits = True
    experiment.approved = False
    experiment.last_failure = None
    if data.attempt == 0:  # a repair keeps the name of what it repairs
        experiment.description = data.description


def _proposal_failed(_state: State, run: Run, data: e.ProposalFailed, event: Event) -> None:
    _spend(run, data.usd)
    experiment = run.experiments.get(data.experiment)
    if experiment is None:
        return
    request = experiment.request
    experiment.ask_at = 0
    experiment.proposal_waits = False
    experiment.last_failure, experiment.last_failure_at = data, event.position
    if data.failure in UNCOUNTED_FAILURES:
        return
    experiment.asks += 1 if data.ask == experiment.asks else 0
    is_outside = run.proposer in REMOTE and data.failure in OUTSIDE_FAILURES
    experiment.failures += 0 if is_outside or data.failure == "over_budget" else 1
    if data.failure == "over_budget":
        run.usd_out = True
    elif run.is_own(request):
        _proposer_failed(run, experiment, data, event)
    elif request is not None and request.purpose != "again":  # an old edit is nobody's fault
        run.stand_in_exhausted = data.why


def _proposer_failed(run: Run, experiment: Experiment, data: e.ProposalFailed, event: Event) -> None:
    """A failure of the run's own proposer; nothing left to propose is not one, it ends the run."""
    purpose = experiment.request.purpose if experiment.request is not None else "new"
    if data.failure == "exhausted" and purpose == "new":
        run.exhausted = data.why
        return
    run.failures_in_a_row += 1
    run.failures_alike = run.failures_alike + 1 if data.failure == run.failure else 1
    run.failure = data.failure
    run.retry_at = data.retry_at
    run.failed_time = event.at


def _switched(_state: State, run: Run, data: e.ProposerSwitched, event: Event) -> None:
    run.switched = data if data.to_kind != run.proposer else None
    run.switched_time = event.at if run.switched is not None else ""
    run.waiting = None


def _waiting(_state: State, run: Run, data: e.ProposerWaiting, _event: Event) -> None:
    run.waiting = data


def _spend(run: Run, usd: float | None) -> None:
    if usd is None:
        run.usd_unknown = True
    else:
        run.usd += usd


def _approved(_state: State, run: Run, data: e.ProposalApproved, _event: Event) -> None:
    experiment = run.experiments.get(data.experiment)
    if experiment is not None:
        experiment.approved = True
        run.approvals += 1


def _rejected(_state: State, run: Run, data: e.ProposalRejected, event: Event) -> None:
    experiment = run.experiments.get(data.experiment)
    if experiment is not None:
        experiment.rejected, experiment.rejected_at = data.why, event.position


def _experiment_requested(_state: State, run: Run, data: e.ExperimentRequested, event: Event) -> None:
    run.agains[data.of] = event.position


# ---------------------------------------------------------------- attempts


def _prepared(_state: State, run: Run, data: e.ExperimentPrepared, event: Event) -> None:
    experiment = run.experiments.get(data.experiment)
    if experiment is None:  # the baseline has no proposal
        experiment = run.experiments[data.experiment] = Experiment(data.experiment, description="baseline")
        run.next_number = max(run.next_number, data.experiment + 1)
    run.failures_in_a_row = 0
    experiment.failures = 0
    experiment.attempt = data.attempt
    experiment.prepared, experiment.prepared_at, experiment.prepared_time = data, event.position, event.at
    experiment.committed, experiment.committed_at = None, 0
    experiment.proposal_waits = False
    experiment.trials = []
    experiment.guard, experiment.guard_at, experiment.guard_done_at = None, 0, 0
    experiment.remeasured_at = 0
    if data.step == "repair":
        experiment.repairs += 1
    elif data.step == "rebase":
        experiment.rebases += 1


def _committed(_state: State, run: Run, data: e.ExperimentCommitted, event: Event) -> None:
    experiment = run.experiments.get(data.experiment)
    if experiment is not None:
        experiment.committed, experiment.committed_at = data, event.position


def _training_requested(_state: State, run: Run, data: e.TrainingRequested, event: Event) -> None:
    experiment = run.experiments.get(data.experiment)
    if experiment is None:
        return
    while len(experiment.trials) <= data.trial:
        experiment.trials.append(Trial(len(experiment.trials), data.seed))
    trial = experiment.trials[data.trial]
    trial.seed, trial.slot, trial.nonce = data.seed, data.slot, data.nonce
    trial.open_at = event.position
    trial.started = None


def _trial(run: Run, experiment: int, trial: int) -> Trial | None:
    found = run.experiments.get(experiment)
    return found.trials[trial] if found is not None and trial < len(found.trials) else None


def _training_started(_state: State, run: Run, data: e.TrainingStarted, _event: Event) -> None:
    trial = _trial(run, data.experiment, data.trial)
    if trial is not None:
        trial.started = data


def _training_finished(_state: State, run: Run, data: e.TrainingFinished, event: Event) -> None:
    trial = _trial(run, data.experiment, data.trial)
    if trial is None:
        return
    trial.open_at = 0
    trial.finished, trial.finished_at = data, event.position
    if data.outcome == "lost":
        trial.lost += 1


def _scoring_requested(_state: State, run: Run, data: e.ScoringRequested, event: Event) -> None:
    trial = _trial(run, data.experiment, data.trial)
    if trial is not None:
        trial.scoring_at, trial.scoring_checks = event.position, data.checks


def _scoring_finished(_state: State, run: Run, data: e.ScoringFinished, event: Event) -> None:
    trial = _trial(run, data.experiment, data.trial)
    if trial is None:
        return
    trial.scoring_at = 0
    if data.outcome == "stopped":
        return
    if data.outcome == "lost":  # trained again, under its number
        trial.finished, trial.finished_at = None, event.position
        trial.scored, trial.scored_at, trial.checks_at = None, 0, 0
        trial.lost += 1
        return
    trial.scored = data
    trial.scored_at = trial.scored_at or event.position
    if data.checks is not None:
        trial.checks_at = event.position


def _guard_requested(_state: State, run: Run, data: e.GuardRequested, event: Event) -> None:
    experiment = run.experiments.get(data.experiment)
    if experiment is not None:
        experiment.guard_at = event.position


def _guard_finished(_state: State, run: Run, data: e.GuardFinished, event: Event) -> None:
    experiment = run.experiments.get(data.experiment)
    if experiment is None:
        return
    experiment.guard_at = 0
    if data.result != "stopped":
        experiment.guard, experiment.guard_done_at = data, event.position


def _remeasure_requested(_state: State, run: Run, data: e.ExperimentRemeasureRequested, event: Event) -> None:
    experiment = run.experiments.get(data.experiment)
    if experiment is not None and len(experiment.trials) == data.trial:
        experiment.trials.append(Trial(data.trial, data.seed))
        experiment.remeasured_at = event.position


# ---------------------------------------------------------------- verdicts


def _decided(_state: State, run: Run, data: e.ExperimentDecided, event: Event) -> None:
    experiment = run.experiments.pop(data.experiment, None)
    if experiment is None:
        return
    run.counts[data.verdict] += 1
    commit = experiment.committed.commit if experiment.committed is not None else ""
    if experiment.prepared is not None and experiment.prepared.content_hash:
        run.tried.setdefault(experiment.prepared.content_hash, data.experiment)
    _bury(run, experiment, event, data, data.reason)
    if data.verdict != "keep" or data.score is None:
        return
    keep = Keep(data.experiment, commit, data.score, experiment.peak_memory_mb, event.position)
    if data.experiment == 0:
        run.keeps.append(keep)
    else:
        run.pending_keep = keep


def _abandoned(_state: State, run: Run, data: e.ExperimentAbandoned, event: Event) -> None:
    experiment = run.experiments.pop(data.experiment, None)
    if experiment is not None:
        _bury(run, experiment, event, None, data.why)


def _bury(run: Run, experiment: Experiment, event: Event, decided: e.ExperimentDecided | None, reason: str) -> None:
    proposal, trial = experiment.proposal, experiment.last
    edits = proposal.edits if proposal is not None else ()
    tail = trial.finished.tail if trial is not None and trial.finished is not None else ""
    crashed = trial is not None and trial.finished is not None and trial.finished.outcome == "crash"
    run.done_by_number[experiment.number] = len(run.done)
    run.done.append(
        Done(
            experiment=experiment.number,
            verdict=decided.verdict if decided is not None else None,
            score=decided.score if decided is not None else None,
            reason=reason,
            description=experiment.description,
            edits=edits if all(isinstance(edit, e.SetConstants) for edit in edits) else (),
            commit=experiment.committed.commit if experiment.committed is not None else "",
            base_commit=experiment.prepared.base_commit if experiment.prepared is not None else "",
            attempt=experiment.attempt,
            proposal_at=experiment.proposal_at,
            decided_at=event.position,
            prepared_at=experiment.prepared_at,
            finished_at=trial.finished_at if trial is not None else 0,
            gain=decided.gain if decided is not None else None,
            lines=decided.lines if decided is not None else 0,
            hypothesis=proposal.hypothesis[:HYPOTHESIS_KEPT] if proposal is not None else "",
            error=_last_line(tail) if crashed and decided is not None and decided.verdict == "crash" else "",
        )
    )


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip()[:ERROR_KEPT] if lines else ""


def _branch_moved(_state: State, run: Run, data: e.BranchMoved, _event: Event) -> None:
    run.tip = data.to_commit
    if data.why == "keep":
        if run.pending_keep is not None and run.pending_keep.experiment == data.experiment:
            run.keeps.append(run.pending_keep)
            run.pending_keep = None
        return
    while run.keeps and run.keep_of(data.experiment) is not None:
        run.vetoes.pop(run.keeps.pop().experiment, None)


def _vetoed(_state: State, run: Run, data: e.KeepVetoed, event: Event) -> None:
    run.vetoes.setdefault(data.experiment, event.position)


def _refused(_state: State, run: Run, _data: Any, event: Event) -> None:
    """A request that the loop could not serve is no longer open; the refusal's cause names it."""
    for number, position in list(run.vetoes.items()):
        if position == event.cause:
            del run.vetoes[number]


_WORKSPACE: dict[str, Callable[[State, Event], None]] = {
    "loop.started": _loop_started,
    "loop.stopped": _loop_stopped,
    "run.requested": _run_requested,
    "program.recorded": _program,
    "program.edited": _program,
    "trouble.noticed": _trouble_noticed,
    "trouble.cleared": _trouble_cleared,
    "digest.scheduled": _digest_scheduled,
    "idea.suggested": _idea_suggested,
    "idea.withdrawn": _idea_closed,
    "idea.used": _idea_closed,
    "idea.declined": _idea_closed,
}

_RUN: dict[str, Callable[[State, Run, Any, Event], None]] = {
    "run.withdrawn": _run_withdrawn,
    "run.refused": _run_refused,
    "run.started": _run_started,
    "run.pause_requested": _pause_requested,
    "run.resume_requested": _resume_requested,
    "run.stop_requested": _stop_requested,
    "run.paused": _run_paused,
    "run.resumed": _run_resumed,
    "run.finished": _run_finished,
    "budget.changed": _budget_changed,
    "budget.warned": _budget_warned,
    "proposal.requested": _proposal_requested,
    "proposal.received": _proposal_received,
    "proposal.failed": _proposal_failed,
    "proposal.approved": _approved,
    "proposal.rejected": _rejected,
    "proposer.switched": _switched,
    "proposer.waiting": _waiting,
    "experiment.requested": _experiment_requested,
    "experiment.prepared": _prepared,
    "experiment.committed": _committed,
    "training.requested": _training_requested,
    "training.started": _training_started,
    "training.finished": _training_finished,
    "scoring.requested": _scoring_requested,
    "scoring.finished": _scoring_finished,
    "guard.requested": _guard_requested,
    "guard.finished": _guard_finished,
    "experiment.remeasure_requested": _remeasure_requested,
    "experiment.decided": _decided,
    "experiment.abandoned": _abandoned,
    "branch.moved": _branch_moved,
    "keep.vetoed": _vetoed,
    "request.refused": _refused,
}

_OF_WORKSPACE: dict[type, Callable[[State, Event], None]] = {
    e.CATALOGUE[name]: handler for name, handler in _WORKSPACE.items()
}

_OF_RUN: dict[type, Callable[[State, Run, Any, Event], None]] = {
    e.CATALOGUE[name]: handler for name, handler in _RUN.items()
}
