"""What the command line shows, as values: state and rows in, words and numbers out. Pure.

`screens` draws these, `--json` prints them as they are. A value that does not exist is None here and no key
in the JSON.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from eventstore import events as e
from eventstore.envelope import parse_at
from eventstore.log import Row
from eventstore.plain import duration, plain, plain_line, shortened
from eventstore.projections.besides import Beside, Refusal
from eventstore.projections.ideas import Idea
from eventstore.projections.program import ProgramVersion, Use
from eventstore.projections.results import Row as ResultsRow
from eventstore.projections.results import one_line
from eventstore.projections.run_state import REMOTE, Done, Experiment, Run, State
from eventstore.requests import Refused

VERDICTS_SHOWN = 10
HYPOTHESIS_SHOWN = 200
"""Characters of a hypothesis where it stands beside other things."""
TEXT_MAX = 60
"""Characters of each text inside an event that `log tail` shows."""

FAILURE_WORDS = {
    "rate_limited": "rate limited",
    "overloaded": "overloaded",
    "offline": "cannot be reached",
    "unauthorised": "key refused",
    "no_credit": "out of credit",
    "bad_request": "request refused",
    "agent_failed": "the agent's command failed",
    "broken": "cannot be started",
    "refused": "the model declined",
    "truncated": "answer cut off",
    "unparsable": "answer cannot be read",
    "edit_does_not_apply": "edit does not apply",
    "edit_touches_protected": "edit touches a protected file",
    "not_python": "edit breaks the syntax",
    "changes_nothing": "edit changes nothing",
    "same_as_tried": "same as one tried before",
    "timeout": "took too long",
    "exhausted": "nothing left to propose",
    "no_repair": "no repair known",
    "over_budget": "more than the money left",
    "lost": "cut off by a crash of the loop",
    "stopped": "cut off by request",
}
"""The classes of `proposal.failed` as people read them."""


def failure_words(failure: str) -> str:
    """A class of `proposal.failed` in words; one that is not known here as it is, without its underscores."""
    return FAILURE_WORDS.get(failure) or plain_line(failure).replace("_", " ")


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what is shown."""


# ---------------------------------------------------------------- which run is meant


def pick(state: State, tag: str | None) -> Run | Refused:
    """The run *tag*; without one the active run, else the one that started last, else the next in the queue."""
    if tag is None:
        queued = state.runs[state.queue[0]] if state.queue else None
        return (
            state.active
            or state.newest
            or queued
            or Refused("there is no run yet: `nightshift start TAG` asks for one")
        )
    return state.runs.get(tag) or Refused(unknown_tag(tag, state.runs))


def pick_started(state: State, tag: str | None) -> Run | Refused:
    """As `pick`, for what only a run that has started can have."""
    run = pick(state, tag)
    if isinstance(run, Run) and run.started is None:
        return Refused(f"the run {run.tag} is {run.status}: it has not started, so there is nothing of it to show")
    return run


def unknown_tag(tag: str, known: Collection[str]) -> str:
    """The sentence for a tag that names no run."""
    near = get_close_matches(tag, known, 1)
    hint = f"did you mean {near[0]}?" if near else "`nightshift status` shows the runs"
    return f"there is no run {tag!r}: {hint}"


# ---------------------------------------------------------------- status


class Best(View, frozen=True):
    """The tip of the branch. *gain* is against the baseline, above 0 is better; None for the baseline itself."""

    experiment: int
    score: float
    baseline: float
    gain: float | None


class AtWork(View, frozen=True):
    """An experiment without a verdict: *stage* in words, *seconds* since its training began, where it trains."""

    experiment: int
    stage: str
    description: str
    seconds: float | None = None


class Spent(View, frozen=True):
    """One limit: *left* and *limit* in its own unit (verdicts, seconds and a UTC time, US dollars)."""

    name: str
    limit: int | float | str
    left: float


class Money(View, frozen=True):
    """
    What proposals cost, in US dollars.

    Attributes:
        spent: The sum of the known prices; *unknown* is true if some are not known.
        limit: None without a limit.
        left: What of the limit no ask has spent or may still spend.
        open: The most that asks without an answer may still cost.
        is_out: The last ask did not fit into what is left.
    """

    spent: float
    unknown: bool
    limit: float | None
    left: float | None
    open: float
    is_out: bool


class Proposing(View, frozen=True):
    """
    Who proposes, and what is wrong with it.

    Attributes:
        failure: The class of its last failure, *failure_words* in words; None while it answers.
        failures: How many of that class came in a row.
        retry_at: UTC in the log's form; None for at once.
        stand_in: Who stands in for it since *stand_in_since* and why; None if nobody does.
        stand_in_exhausted: Why the stand-in has nothing more.
        is_waiting: Nobody stands in, so the run waits for it.
    """

    kind: str
    failure: str | None = None
    failure_words: str | None = None
    failures: int = 0
    retry_at: str | None = None
    stand_in: str | None = None
    stand_in_since: str | None = None
    stand_in_why: str | None = None
    stand_in_exhausted: str | None = None
    is_waiting: bool = False


class Waiting(View, frozen=True):
    """A proposal that waits for a person's approval: what it means to do, and the commands."""

    experiment: int
    description: str
    hypothesis: str
    show: str
    approve: str
    reject: str


class Idle(View, frozen=True):
    """How long devices stood idle between trainings: *share* of the whole time, 0 to 1."""

    share: float
    idle_s: float
    training_s: float


class Verdict(View, frozen=True):
    """One experiment that is over. *verdict* is what results.tsv says, or `abandoned`."""

    experiment: int
    verdict: str
    score: float | None
    description: str
    reason: str


class RunView(View, frozen=True):
    """
    One run.

    *asked* is what people asked of it that the loop has not done yet, in words; *waiting* are the proposals that a
    person must approve, *money* is None where nothing costs anything.
    """

    tag: str
    status: str
    why: str
    asked_by: str
    asked_at: str
    started_at: str | None = None
    finished_at: str | None = None
    branch: str | None = None
    metric: str = ""
    direction: str = ""
    best: Best | None = None
    verdicts: int = 0
    kept: int = 0
    discarded: int = 0
    crashed: int = 0
    usd: float = 0.0
    usd_unknown: bool = False
    limits: tuple[Spent, ...] = ()
    proposer: Proposing | None = None
    money: Money | None = None
    idle: Idle | None = None
    at_work: tuple[AtWork, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    asked: tuple[str, ...] = ()
    last: tuple[Verdict, ...] = ()


class Queued(View, frozen=True):
    """A run that waits its turn."""

    tag: str
    asked_by: str
    asked_at: str


class Status(View, frozen=True):
    """
    What is going on.

    *loop* says who serves the workspace, None if nobody does; *ideas* counts the open ones; *next* is what one could
    do.
    """

    position: int
    loop: str | None
    run: RunView | None
    queue: tuple[Queued, ...]
    troubles: tuple[e.TroubleNoticed, ...]
    ideas: int
    next: str


def status(state: State, run: Run | None, loop: str | None, now: datetime, beside: Beside | None = None) -> Status:
    """
    Say what is going on.

    Args:
        run: The run to tell of, from `pick`; None if there is none.
        loop: `Home.holder`.
        beside: Of the run; without it nothing is said of idle devices.
    """
    queue = tuple(Queued(tag=tag, asked_by=r.requested_by, asked_at=r.requested_time) for tag, r in _queue(state))
    return Status(
        position=state.position,
        loop=loop,
        run=run_view(run, loop, now, beside) if run is not None else None,
        queue=queue,
        troubles=tuple(state.troubles.values()),
        ideas=len(state.ideas),
        next=next_step(state, run, loop),
    )


def run_view(run: Run, loop: str | None, now: datetime, beside: Beside | None = None) -> RunView:
    """Say how a run stands; see `status`."""
    if run.started is None:
        return RunView(
            tag=run.tag,
            status=run.status,
            why=f"{run.refused.why}; {run.refused.remedy}" if run.refused is not None else "",
            asked_by=run.requested_by,
            asked_at=run.requested_time,
            limits=_limits(run, now),
        )
    objective = run.started.settings["objective"]
    on_branch = len(run.keeps) + (run.pending_keep is not None)
    return RunView(
        tag=run.tag,
        status=run.status,
        why=run.finished.why if run.finished is not None else run.paused_why,
        asked_by=run.requested_by,
        asked_at=run.requested_time,
        started_at=run.started_time,
        finished_at=run.finished_time or None,
        branch=run.started.branch,
        metric=objective["name"],
        direction=objective["direction"],
        best=_best(run, objective["direction"]),
        verdicts=run.verdicts,
        kept=max(on_branch - (0 in run.done_by_number), 0),
        discarded=run.counts["discard"] + run.counts["keep"] - on_branch,  # a keep taken back is a discard
        crashed=run.counts["crash"],
        usd=run.usd,
        usd_unknown=run.usd_unknown,
        limits=() if run.is_over else _limits(run, now),
        proposer=None if run.is_over or not run.proposer else _proposing(run),
        money=_money(run),
        idle=_idle(beside),
        at_work=() if run.is_over else tuple(_at_work(run, x, loop, now) for x in run.experiments.values()),
        waiting=tuple(waiting(x) for x in awaiting(run)),
        asked=_asked(run),
        last=tuple(_verdict(run, done) for done in run.done[-VERDICTS_SHOWN:][::-1]),
    )


def next_step(state: State, run: Run | None, loop: str | None) -> str:
    """One sentence: what to do next, with the command."""
    if run is None:
        return "`nightshift start TAG` asks for a run."
    if loop is None and (state.queue or state.active is not None):
        return "no loop is running: `nightshift loop` starts one."
    if loop is None and run.vetoes:
        return "no loop is running: `nightshift loop` starts one, which takes the vetoed keep off the branch."
    if run.status == "paused":
        return f"`nightshift resume` lets {run.tag} go on, `nightshift stop` ends it."
    if run.status == "active" and (first := next(iter(awaiting(run)), None)) is not None:
        commands = waiting(first)
        return f"`{commands.show}` shows what waits for approval, `{commands.approve}` lets it be tried."
    if run.status == "active":
        return "`nightshift status --watch` follows it, `nightshift stop` ends it after the experiment in hand."
    if run.status == "queued":
        return f"it waits its turn; `nightshift stop {run.tag}` takes it back."
    if run.started is None:
        return "`nightshift start TAG` asks for a run."
    return (
        f"`nightshift results {run.tag} --figure {run.tag}.png` draws it, "
        f"`nightshift start TAG --from {run.started.branch}` goes on from its best."
    )


def _queue(state: State) -> list[tuple[str, Run]]:
    return [(tag, state.runs[tag]) for tag in state.queue]


def _best(run: Run, direction: str) -> Best | None:
    if run.best is None:
        return None
    baseline, best = run.keeps[0], run.best
    gain = baseline.score - best.score if direction == "minimize" else best.score - baseline.score
    return Best(
        experiment=best.experiment,
        score=best.score,
        baseline=baseline.score,
        gain=gain if best is not baseline else None,
    )


def _limits(run: Run, now: datetime) -> tuple[Spent, ...]:
    found = []
    limits = run.limits
    if limits.experiments is not None:
        left = max(limits.experiments - run.verdicts, 0)
        found.append(Spent(name="experiments", limit=limits.experiments, left=left))
    if limits.until is not None:
        seconds = (parse_at(limits.until) - now).total_seconds()
        found.append(Spent(name="until", limit=limits.until, left=max(seconds, 0.0)))
    if limits.usd is not None:
        found.append(Spent(name="usd", limit=limits.usd, left=max(limits.usd - run.usd, 0.0)))
    return tuple(found)


def _money(run: Run) -> Money | None:
    if not (run.usd or run.usd_unknown or run.usd_open or run.limits.usd is not None):
        return None
    return Money(
        spent=run.usd,
        unknown=run.usd_unknown,
        limit=run.limits.usd,
        left=run.usd_left,
        open=run.usd_open,
        is_out=run.usd_out,
    )


def _idle(beside: Beside | None) -> Idle | None:
    share = beside.idle_share if beside is not None else None
    if beside is None or share is None:
        return None
    return Idle(share=share, idle_s=round(beside.idle_s, 3), training_s=round(beside.training_s, 3))


def _proposing(run: Run) -> Proposing:
    switched = run.switched
    found = Proposing(
        kind=run.proposer,
        stand_in=switched.to_kind if switched is not None else None,
        stand_in_since=run.switched_time if switched is not None else None,
        stand_in_why=plain_line(switched.why) if switched is not None else None,
        stand_in_exhausted=plain_line(run.stand_in_exhausted) or None,
        is_waiting=run.waiting is not None,
    )
    if not run.failure:
        return found
    return msgspec.structs.replace(
        found,
        failure=run.failure,
        failure_words=failure_words(run.failure),
        failures=run.failures_alike,
        retry_at=run.retry_at or None,
    )


def awaiting(run: Run) -> list[Experiment]:
    """The experiments whose proposals wait for a person's approval, by their numbers."""
    return [x for _, x in sorted(run.experiments.items()) if run.awaits_approval(x)]


def waiting(experiment: Experiment) -> Waiting:
    """What a proposal that waits for approval means to do, and how to say yes or no."""
    number, proposal = experiment.number, experiment.proposal
    return Waiting(
        experiment=number,
        description=one_line(experiment.description),
        hypothesis=plain_line(proposal.hypothesis) if proposal is not None else "",
        show=f"nightshift experiment show {number}",
        approve=f"nightshift experiment approve {number}",
        reject=f"nightshift experiment reject {number}",
    )


def _asked(run: Run) -> tuple[str, ...]:
    after = "after the experiment in hand"
    asked = []
    if run.stop is not None and not run.is_over:
        asked.append("to end " + (after if run.stop == "after_experiment" else "now"))
    if run.pause is not None and not run.is_over:
        asked.append("to pause " + (after if run.pause == "after_experiment" else "now"))
    if run.resume_at and not run.is_over:
        asked.append("to go on")
    asked += [f"to take keep {number} back" for number in run.vetoes]
    asked += [f"to take experiment {number} up again" for number in run.agains]
    return tuple(asked)


def stage(experiment: Experiment, loop: str | None, *, awaits_approval: bool = False) -> str:
    """Where an experiment without a verdict stands, in words. Without a loop, what was open is cut off."""
    trial = experiment.last
    if awaits_approval:
        return "proposed, waits for approval"
    if experiment.ask_at:
        at_work = "waits for its repair" if experiment.in_hand else "waits for its proposal"
    elif trial is not None and trial.open_at:
        at_work = "in training" if trial.started is not None else "its training begins"
    elif trial is not None and trial.scoring_at:
        at_work = "being scored"
    elif experiment.guard_at:
        at_work = "in the guard"
    else:
        return _at_rest(experiment)
    return at_work if loop is not None else f"cut off ({at_work}), the next loop does it again"


def _at_rest(experiment: Experiment) -> str:
    trial = experiment.last
    if experiment.rejected is not None and experiment.proposal_waits:
        return "rejected, about to be abandoned"
    if experiment.proposal_waits:
        return f"{'repaired' if experiment.in_hand else 'proposed'}, waits for a device"
    if trial is not None and trial.scored is not None and trial.scored.outcome == "scored":
        return "scored, waits for its verdict"
    if trial is not None and trial.finished is not None:
        return "trained, waits for what is next"
    return "waits for its training" if experiment.in_hand else "waits for its proposal"


def _at_work(run: Run, experiment: Experiment, loop: str | None, now: datetime) -> AtWork:
    trial = experiment.last
    began = trial.started.pid_started if trial is not None and trial.open_at and trial.started is not None else None
    seconds = max((now - datetime.fromtimestamp(began, UTC)).total_seconds(), 0.0) if began and loop else None
    description = one_line(experiment.description)
    words = stage(experiment, loop, awaits_approval=run.awaits_approval(experiment))
    return AtWork(experiment=experiment.number, stage=words, description=description, seconds=seconds)


def _verdict(run: Run, done: Done) -> Verdict:
    verdict: str = done.verdict or "abandoned"
    if verdict == "keep" and not _is_on_branch(run, done.experiment):
        verdict = "discard"
    return Verdict(
        experiment=done.experiment,
        verdict=verdict,
        score=done.score,
        description=one_line(done.description),
        reason=plain_line(done.reason),
    )


def _is_on_branch(run: Run, number: int) -> bool:
    pending = run.pending_keep
    return run.keep_of(number) is not None or (pending is not None and pending.experiment == number)


# ---------------------------------------------------------------- experiments


class Line(View, frozen=True):
    """One experiment in a list. *verdict* is results.tsv's word, `abandoned`, or None while there is none."""

    experiment: int
    commit: str
    verdict: str | None
    score: float | None
    gain: float | None
    memory_gb: float | None
    description: str
    reason: str


def lines(run: Run, rows: Iterable[ResultsRow], loop: str | None, beside: Beside | None = None) -> list[Line]:
    """
    Every experiment of a run by its number: those with a row of results.tsv, the abandoned and those in hand.

    Without *beside* nothing is said of repairs.
    """
    repairs = beside.repairs if beside is not None else {}
    found = {row.experiment: _row_line(row, repairs.get(row.experiment, 0)) for row in rows}
    for done in run.done:
        if done.verdict is None:
            verdict = _verdict(run, done)
            found[done.experiment] = _bare_line(done.experiment, done.commit, "abandoned", verdict.reason, done)
    for experiment in run.experiments.values():
        commit = experiment.committed.commit if experiment.committed is not None else ""
        found[experiment.number] = _bare_line(
            experiment.number, commit, None, _open_words(run, experiment, loop), experiment
        )
    return [found[number] for number in sorted(found)]


def _open_words(run: Run, experiment: Experiment, loop: str | None) -> str:
    if not run.awaits_approval(experiment):
        return stage(experiment, loop)
    asked = waiting(experiment)
    meant = f"; {shortened(asked.hypothesis, HYPOTHESIS_SHOWN)}" if asked.hypothesis else ""
    return f"{stage(experiment, loop, awaits_approval=True)} (`{asked.approve}`){meant}"


def times(count: int) -> str:
    """How often, in words."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _row_line(row: ResultsRow, repairs: int) -> Line:
    reason = plain_line(row.reason) + (f" (repaired {times(repairs)})" if repairs else "")
    if row.vetoed is not None:
        reason = f"taken back by the veto of {row.vetoed} ({reason})"
    return Line(
        experiment=row.experiment,
        commit=row.commit,
        verdict=row.status,
        score=row.score,
        gain=row.gain,
        memory_gb=row.memory_gb,
        description=row.description,
        reason=reason,
    )


def _bare_line(number: int, commit: str, verdict: str | None, reason: str, of: Done | Experiment) -> Line:
    return Line(
        experiment=number,
        commit=commit[:7],
        verdict=verdict,
        score=None,
        gain=None,
        memory_gb=None,
        description=one_line(of.description),
        reason=reason,
    )


def no_such_experiment(run: Run, number: int) -> str:
    """The sentence for a number that the run has not given."""
    if run.next_number == 0:
        return f"the run {run.tag} has no experiment yet"
    last = run.next_number - 1
    return f"the run {run.tag} has no experiment {number}: its experiments are 0 to {last}"


def edit_words(edit: e.FileEdit) -> str:
    """An edit in one line."""
    if isinstance(edit, e.SetConstants):
        return f"{edit.path}: " + ", ".join(f"{name} = {value!r}" for name, value in edit.values.items())
    if isinstance(edit, e.ReplaceBlocks):
        count = len(edit.blocks)
        return f"{edit.path}: {count} block{'s' if count > 1 else ''} replaced"
    count = len(edit.text.splitlines())
    return f"{edit.path}: written anew, {count} line{'s' if count != 1 else ''}"


def edit_text(edits: Iterable[e.FileEdit]) -> str:
    """
    Edits as far as they can be read without the files they are meant for, in the manner of a diff.

    Of a replacement the searched text is shown as removed and the new one as added, lines that both have as
    context; of a new file every line is added; of a constant only its new value is known.
    """
    return "".join(f"{line}\n" for edit in edits for line in _edit_lines(edit))


def _edit_lines(edit: e.FileEdit) -> list[str]:
    if isinstance(edit, e.SetConstants):
        return [f"+++ {edit.path}: constants", *(f"+{name} = {value!r}" for name, value in edit.values.items())]
    if isinstance(edit, e.WholeFile):
        return [f"+++ {edit.path}: the whole file", *(f"+{line}" for line in edit.text.splitlines())]
    found = []
    for number, block in enumerate(edit.blocks, 1):
        found += [f"+++ {edit.path}: block {number} of {len(edit.blocks)}", *_block_lines(block)]
    return found


def _block_lines(block: e.Block) -> list[str]:
    before, after = block.search.splitlines(), block.replace.splitlines()
    compared = difflib.SequenceMatcher(None, before, after, autojunk=True)
    found: list[str] = []
    for tag, old_from, old_to, new_from, new_to in compared.get_opcodes():
        if tag == "equal":
            found += [f" {line}" for line in before[old_from:old_to]]
        else:
            found += [f"-{line}" for line in before[old_from:old_to]]
            found += [f"+{line}" for line in after[new_from:new_to]]
    return found


# ---------------------------------------------------------------- results


class Repaired(View, frozen=True):
    """An experiment that crashed and was repaired. *verdict* is what came of it; None while there is none."""

    experiment: int
    repairs: int
    verdict: str | None


class Abandoned(View, frozen=True):
    """An experiment that ended without a verdict."""

    experiment: int
    why: str


class Beyond(View, frozen=True):
    """What a run's results.tsv does not say; see `Beside`."""

    refused: tuple[Refusal, ...]
    repaired: tuple[Repaired, ...]
    abandoned: tuple[Abandoned, ...]

    @property
    def is_empty(self) -> bool:
        return not (self.refused or self.repaired or self.abandoned)


def beyond(beside: Beside, rows: Iterable[ResultsRow]) -> Beyond:
    """What a run's results.tsv does not say."""
    verdicts = {row.experiment: row.status for row in rows}
    return Beyond(
        refused=tuple(beside.refusals),
        repaired=tuple(
            Repaired(experiment=number, repairs=count, verdict=verdicts.get(number))
            for number, count in sorted(beside.repairs.items())
        ),
        abandoned=tuple(Abandoned(experiment=number, why=why) for number, why in sorted(beside.abandoned.items())),
    )


def first_difference(expected: bytes, found: bytes) -> str | None:
    """Where *found* first differs from *expected*, in one sentence with the line's number, or None if nowhere."""
    if expected == found:
        return None
    ours, theirs = expected.splitlines(keepends=True), found.splitlines(keepends=True)
    for number, (our, their) in enumerate(zip(ours, theirs, strict=False), 1):
        if our != their:
            return f"line {number} differs: the log says {_quoted(our)}, the file says {_quoted(their)}"
    number = min(len(ours), len(theirs)) + 1
    if len(ours) > len(theirs):
        return f"line {number} is missing: the log says {_quoted(ours[number - 1])}"
    return f"line {number} is too much: the file says {_quoted(theirs[number - 1])}"


def _quoted(line: bytes) -> str:
    return repr(line.decode("utf-8", "backslashreplace"))


# ---------------------------------------------------------------- what was asked


def asked(run: str, data: e.Data) -> str:
    """What was asked for, in one sentence."""
    after = "after the experiment in hand"
    match data:
        case e.RunPauseRequested(mode=mode):
            return f"Asked: {run} is to pause {after if mode == 'after_experiment' else 'now'}."
        case e.RunResumeRequested():
            return f"Asked: {run} is to go on."
        case e.RunStopRequested(mode=mode):
            return f"Asked: {run} is to end {after if mode == 'after_experiment' else 'now'}."
        case e.RunWithdrawn():
            return f"Withdrawn: {run} had not started and will not."
        case e.KeepVetoed(experiment=number):
            return f"Asked: keep {number} of {run} is to be taken off the branch, with every keep built on it."
        case e.ExperimentRequested(of=number):
            return f"Asked: the edit of experiment {number} of {run} is to be taken up again on today's best."
        case e.ProposalApproved(experiment=number):
            return f"Approved: the proposal of experiment {number} of {run} is tried when a device is free."
        case e.ProposalRejected(experiment=number):
            return f"Rejected: the proposal of experiment {number} of {run} will not be tried."
        case e.IdeaWithdrawn(idea=position):
            return f"Withdrawn: idea {position} will not be asked for any more."
        case e.ProgramEdited():
            was = f", was {data.base_hash[:8]}" if data.base_hash else ""
            return f"program.md is now {data.hash[:8]}{was}; the next proposal follows it."
    raise TypeError(f"{data.TYPE} is not a request with a sentence")


def idea_asked(state: State, position: int) -> str:
    """
    What becomes of the idea that was put at *position*, in one or two sentences.

    Args:
        state: The workspace before it.
    """
    ahead = len(state.ideas)
    turn = (
        f" after the {ahead} that wait before it"
        if ahead > 1
        else " after the one that waits before it"
        if ahead
        else ""
    )
    promise = f"Idea {position} is in the queue: the next proposal{turn} is asked to use it or to say why not."
    run = state.active
    if run is None or run.proposer in REMOTE:
        return promise
    who = (
        "a sweep does not read ideas" if run.proposer == "sweep" else f"{run.proposer or 'its proposer'} reads no ideas"
    )
    return (
        f"Idea {position} is in the queue. {run.tag} proposes with {run.proposer or 'another proposer'} and {who}: it "
        "waits for a run whose proposer.kind is claude or agent."
    )


def idea_still_asked(state: State, position: int) -> str:
    """What to say of an idea that is withdrawn while a proposer is thinking about it; empty if none is."""
    asked = [
        f"Experiment {x.number} of {run.tag}"
        for run in state.runs.values()
        for x in run.experiments.values()
        if x.ask_at and x.request is not None and x.request.idea == position
    ]
    return f"{asked[0]} was asked to use it already, and may still do so." if asked else ""


def budget_change(run: str, data: e.BudgetChanged, zone: str) -> str:
    """A changed limit in one sentence."""
    return f"Changed: {data.limit} of {run} is {limit_words(data.new, zone)} (was {limit_words(data.old, zone)})."


def limit_words(value: int | float | str | None, zone: str) -> str:
    """A limit's value for people; a time is shown in *zone*."""
    if value is None:
        return "without limit"
    return f"{local(value, zone)} {zone}" if isinstance(value, str) else f"{value:g}"


def budget(run: Run, zone: str, now: datetime) -> list[str]:
    """The limits of a run, a sentence each."""
    left = {spent.name: spent.left for spent in _limits(run, now)}
    limits = run.limits
    words = [f"{run.tag}: experiments {limit_words(limits.experiments, zone)}"]
    if limits.experiments is not None:
        words[0] += f", {left['experiments']:g} left"
    words.append(f"{run.tag}: until {limit_words(limits.until, zone)}")
    if limits.until is not None:
        words[1] += f", {duration(left['until'])} left"
    unknown = " and more at unknown prices" if run.usd_unknown else ""
    coming = f", open asks may still cost {run.usd_open:.2f}" if run.usd_open else ""
    words.append(f"{run.tag}: usd {limit_words(limits.usd, zone)}, {run.usd:.2f} spent{unknown}{coming}")
    return words


# ---------------------------------------------------------------- ideas


class IdeaLine(View, frozen=True):
    """
    An idea in a list, known by *position*.

    *run* and *experiment* are where it was used or declined, *verdict* what came of its use: the word of results.tsv,
    `abandoned`, or None while there is none.
    """

    position: int
    by: str
    at: str
    text: str
    state: str
    run: str | None = None
    experiment: int | None = None
    verdict: str | None = None
    why: str | None = None


def ideas(found: Iterable[Idea], state: State) -> list[IdeaLine]:
    """Ideas with what came of them."""
    return [
        IdeaLine(
            position=idea.position,
            by=plain_line(idea.by),
            at=idea.at,
            text=plain(idea.text),
            state=idea.state,
            run=idea.experiment_run or None,
            experiment=idea.experiment,
            verdict=_verdict_of(state, idea) if idea.state == "used" else None,
            why=plain_line(idea.why) or None,
        )
        for idea in found
    ]


def _verdict_of(state: State, idea: Idea) -> str | None:
    run = state.runs.get(idea.experiment_run)
    done = run.finished_experiment(idea.experiment) if run is not None and idea.experiment is not None else None
    return _verdict(run, done).verdict if run is not None and done is not None else None


# ---------------------------------------------------------------- program, log


class Version(View, frozen=True):
    """
    A version of program.md in a list.

    *lines* counts its lines, *in_force* is true of the newest, *experiments* had a verdict under it, *kept* of them
    are on their branch.
    """

    position: int
    at: str
    actor: str
    hash: str
    lines: int
    experiments: int
    kept: int
    in_force: bool


def versions(found: Iterable[ProgramVersion], uses: Mapping[int, Use]) -> list[Version]:
    """The versions, newest first; *uses* by their position."""
    listed = [
        Version(
            position=version.position,
            at=version.at,
            actor=version.actor,
            hash=version.hash,
            lines=len(version.text.splitlines()),
            experiments=use.experiments,
            kept=use.kept,
            in_force=False,
        )
        for version in found
        for use in (uses.get(version.position, Use()),)
    ][::-1]
    return [msgspec.structs.replace(listed[0], in_force=True), *listed[1:]] if listed else []


def version_named(found: Iterable[ProgramVersion], name: str) -> ProgramVersion | Refused:
    """The newest version whose position is *name*, or whose hash begins with it (4 characters or more)."""
    known = list(found)
    for version in reversed(known):
        if name == str(version.position) or (len(name) >= 4 and version.hash.startswith(name.lower())):
            return version
    return Refused(f"there is no version {name!r} of program.md: `nightshift program log` lists them")


def row_json(row: Row) -> str:
    """A row as one line of JSON, in the form of an export."""
    fields = row._asdict() | {"data": msgspec.Raw(row.data.encode()), "chain": row.chain.hex()}
    return msgspec.json.encode(fields).decode()


def data_words(data: str) -> str:
    """The data of a row on one line: canonical JSON with every long text cut."""
    return json.dumps(_cut(json.loads(data)), ensure_ascii=False)


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return shortened(plain_line(value), TEXT_MAX)
    if isinstance(value, dict):
        return {_cut(key): _cut(part) for key, part in value.items()}
    return [_cut(part) for part in value] if isinstance(value, list) else value


# ---------------------------------------------------------------- shared


def clock(at: str, zone: str, now: datetime) -> str:
    """A time of the log on the clocks of *zone*: the time of day, with the date where it is not today's."""
    there = parse_at(at).astimezone(ZoneInfo(zone))
    is_today = there.date() == now.astimezone(ZoneInfo(zone)).date()
    return there.strftime("%H:%M" if is_today else "%Y-%m-%d %H:%M")


def local(at: str, zone: str) -> str:
    """A time of the log on the clocks of *zone*, to the second."""
    return parse_at(at).astimezone(ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M:%S")


def as_json(value: object, *, indented: bool = True) -> str:
    """A view as JSON, on one line if not *indented*; what is None is left out."""
    text = msgspec.json.encode(_without_none(msgspec.to_builtins(value)))
    return (msgspec.json.format(text) if indented else text).decode()


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_none(part) for name, part in value.items() if part is not None}
    return [_without_none(part) for part in value] if isinstance(value, list | tuple) else value
