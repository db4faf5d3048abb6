"""Ask a proposer and write down what it answers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta

from eventstore import events as e
from eventstore.codec import clean
from eventstore.envelope import Earlier, format_at
from eventstore.projections.run_state import (
    OUTSIDE_FAILURES,
    UNCOUNTED_FAILURES,
    Done,
    Experiment,
    Run,
    State,
)
from loop import commands as c
from loop import preflight
from loop.effects.desk import LogDesk
from loop.effects.hands import TEXT_MAX, Active, Hands, one_line
from loop.failures import pause_s
from loop.proposers.base import Ask, Idea, InFlight, Objection, Proposal, ProposalError, Spent


async def propose(
    hands: Hands, command: c.Propose, state: State, run: Run, request: e.ProposalRequested, position: int
) -> None:
    """Ask, check the answer, and record the proposal or why there is none."""
    active = hands.active(run)
    if active is None:
        return
    began = hands.around.now()
    ask = _ask(active, command, run, request, position)
    program_at = state.program_at
    done = run.finished_experiment(command.again_of) if command.again_of is not None else None
    try:
        if done is not None:
            ask, proposal = await _take_up_again(hands, ask, done)
        else:
            proposal = await _answer(hands, active, command, run, ask, program_at)
    except ProposalError as error:
        await _failed(hands, active, command, run, position, error, began)
    except asyncio.CancelledError:
        # Nobody knows what the vendor makes of an answer that was cut off: its reserved worst case counts.
        stopped = ProposalError("stopped", "it was cut off", Spent(request.usd_reserved))
        await _failed(hands, active, command, run, position, stopped, began)
    else:
        received = _received(hands, command, ask.base_commit, proposal, began)
        await hands.append([c.Append(command.tag, received, position), *_about_the_idea(command, proposal)])


async def _answer(hands: Hands, active: Active, command: c.Propose, run: Run, ask: Ask, program_at: int) -> Proposal:
    """A proposal whose edit may be tried. Raises `ProposalError`."""
    editable = active.settings.objective.editable
    whole = replace(
        ask,
        files=await hands.in_git(hands.around.workspace.read_files, ask.base_commit, editable),
        program=await hands.program_text(program_at),
        idea=await _idea(hands, command.idea),
    )
    desk = LogDesk(hands, active, run, command.experiment, ask.base_commit)
    proposal = await active.proposers[command.kind].propose(whole, desk)
    objection = await desk.check(proposal.edits)
    if objection is not None:
        raise _refused(proposal, objection)
    return proposal


def _refused(proposal: Proposal, objection: Objection) -> ProposalError:
    return ProposalError(
        objection.failure,
        objection.why,
        proposal.spent,
        prompt_hash=proposal.prompt_hash,
        description=proposal.description,
        edits=proposal.edits,
    )


async def _idea(hands: Hands, position: int | None) -> Idea | None:
    if position is None:
        return None
    event = await hands.around.read_at(position)
    if not isinstance(event.data, e.IdeaSuggested):
        return None
    return Idea(position, event.data.text, event.data.by or event.actor)


# ---------------------------------------------------------------- the question


def _ask(active: Active, command: c.Propose, run: Run, request: e.ProposalRequested, position: int) -> Ask:
    """The question as far as the folded log knows it, which is read now: it moves on while files are read."""
    known_at = command.known_at or position
    best = run.best
    baseline = run.finished_experiment(0)
    experiment = run.experiments.get(command.experiment)
    return Ask(
        tag=command.tag,
        experiment=command.experiment,
        ask=command.ask,
        attempt=command.attempt,
        purpose=command.purpose,
        base_commit=command.base_commit,
        files={},
        program="",
        history=active.history.before(run, known_at),
        in_flight=_in_flight(run, command.experiment + (command.purpose == "repair"), known_at),
        seed=run.started.seed if run.started is not None else 0,
        metric=active.policy.metric,
        direction=active.policy.direction,
        editable=tuple(active.settings.objective.editable),
        budget_s=active.policy.budget_s,
        best=best.score if best is not None else None,
        best_experiment=best.experiment if best is not None else None,
        baseline=baseline.score if baseline is not None else None,
        crash_tail=_crash_tail(experiment) if command.purpose == "repair" else "",
        last_failure=_last_failure(experiment),
        usd_max=request.usd_reserved if run.limits.usd is not None else None,
    )


def _in_flight(run: Run, below: int, known_at: int) -> tuple[InFlight, ...]:
    """Experiments *below* a number that had no verdict at *known_at*, also those that have one by now."""
    flying = {
        x.number: InFlight(x.number, x.proposal.edits, x.description, x.proposal.hypothesis)
        for x in run.experiments.values()
        if x.proposal is not None
    }
    for done in reversed(run.done):
        if done.decided_at < known_at:
            break
        flying[done.experiment] = InFlight(done.experiment, done.edits, done.description, done.hypothesis)
    return tuple(flying[n] for n in sorted(flying) if 0 < n < below)


def _crash_tail(experiment: Experiment | None) -> str:
    trial = experiment.last if experiment is not None else None
    return trial.finished.tail if trial is not None and trial.finished is not None else ""


def _last_failure(experiment: Experiment | None) -> str:
    """What was wrong with the last answer, where it was the answer that was wrong."""
    failure = experiment.last_failure if experiment is not None else None
    if failure is None or failure.failure in UNCOUNTED_FAILURES | OUTSIDE_FAILURES:
        return ""
    what = f" ({failure.description})" if failure.description else ""
    return f"{failure.failure}{what}: {failure.why}"


# ---------------------------------------------------------------- the answer


def _received(hands: Hands, command: c.Propose, base: str, proposal: Proposal, began: datetime) -> e.ProposalReceived:
    return e.ProposalReceived(
        experiment=command.experiment,
        ask=command.ask,
        base_commit=base,
        attempt=command.attempt,
        description=one_line(proposal.description),
        edits=tuple(proposal.edits),
        hypothesis=clean(proposal.hypothesis, TEXT_MAX),
        expected_effect=clean(proposal.expected_effect, TEXT_MAX),
        rationale=clean(proposal.rationale, TEXT_MAX),
        model=proposal.model,
        stop_reason=proposal.stop_reason,
        tokens=proposal.spent.tokens,
        usd=proposal.spent.usd,
        seconds=hands.seconds_since(began),
        calls=proposal.spent.calls,
        prompt_hash=proposal.prompt_hash,
        ignored=proposal.ignored,
    )


def _about_the_idea(command: c.Propose, proposal: Proposal) -> list[c.Append]:
    """Whether the idea that was asked for is used, as a fact of its own: an idea is answered once."""
    if command.idea is None:
        return []
    data: e.Data = e.IdeaUsed(idea=command.idea, experiment=command.experiment)
    if not proposal.idea_used:
        why = clean(proposal.idea_why, TEXT_MAX) or "it did not say why"
        data = e.IdeaDeclined(idea=command.idea, experiment=command.experiment, why=why)
    return [c.Append(command.tag, data, Earlier(0))]


async def _failed(
    hands: Hands, active: Active, command: c.Propose, run: Run, cause: int, error: ProposalError, began: datetime
) -> None:
    data = e.ProposalFailed(
        experiment=command.experiment,
        ask=command.ask,
        failure=error.failure,
        why=one_line(error.why),
        tokens=error.spent.tokens,
        usd=error.spent.usd,
        seconds=hands.seconds_since(began),
        calls=error.spent.calls,
        prompt_hash=error.prompt_hash,
        retry_at=_retry_at(hands, active, command, run, error),
        description=one_line(error.description),
        edits=tuple(error.edits),
    )
    await hands.record(command.tag, data, cause)


def _retry_at(hands: Hands, active: Active, command: c.Propose, run: Run, error: ProposalError) -> str:
    """When a remote proposer may be asked again, in the log's form; empty for at once."""
    if not active.policy.remote or command.kind != active.policy.proposer:
        return ""
    alike = run.failures_alike + 1 if run.failure == error.failure else 1
    first_s = active.settings.proposer.retry_s
    pause = pause_s(error.failure, alike, first_s, error.retry_after_s, hands.around.jitter())
    return format_at(hands.around.now() + timedelta(seconds=pause)) if pause is not None else ""


async def _take_up_again(hands: Hands, ask: Ask, done: Done) -> tuple[Ask, Proposal]:
    """The change of an old experiment as a proposal of its own, meant for the commit it was made on."""
    edits: tuple[e.FileEdit, ...] = done.edits if done.attempt == 0 else ()
    if not edits:
        edits = await hands.in_git(
            hands.around.workspace.changes, done.base_commit, done.commit, (preflight.PROGRAM_FILE,)
        )
    what = f"again {done.experiment}: {done.description}"
    return replace(ask, base_commit=done.base_commit), Proposal(description=what, edits=edits)
