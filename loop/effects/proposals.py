"""Ask a proposer and write down what it answers."""

from __future__ import annotations

import asyncio
from datetime import datetime

from eventstore import events as e
from eventstore.codec import clean
from eventstore.projections.run_state import Done, Experiment, Run, State
from loop import commands as c
from loop import preflight
from loop.effects.hands import TEXT_MAX, Hands, one_line
from loop.proposers.base import Ask, Proposal, ProposalError, Tried


async def propose(hands: Hands, command: c.Propose, state: State, run: Run, position: int) -> None:
    active = hands.active(run)
    if active is None:
        return
    began = hands.around.now()
    program_at = state.program_at
    history = _history(run, command.known_at or position)
    in_flight = _in_flight(run, command.experiment, command.known_at or position)
    crashed = _crash_tail(run.experiments.get(command.experiment)) if command.purpose == "repair" else ""
    seed = run.started.seed if run.started is not None else 0
    done = run.finished_experiment(command.again_of) if command.again_of is not None else None
    try:
        if done is not None:
            base, proposal = await _take_up_again(hands, done)
        else:
            base = command.base_commit
            editable = active.settings.objective.editable
            ask = Ask(
                tag=command.tag,
                experiment=command.experiment,
                ask=command.ask,
                attempt=command.attempt,
                purpose=command.purpose,
                base_commit=base,
                files=await hands.in_git(hands.around.workspace.read_files, base, editable),
                program=await hands.program_text(program_at),
                history=history,
                in_flight=in_flight,
                seed=seed,
                metric=active.policy.metric,
                direction=active.policy.direction,
                crash_tail=crashed,
            )
            proposal = await active.proposer.propose(ask)
    except ProposalError as error:
        await _proposal_failed(hands, command, position, error, began)
    except asyncio.CancelledError:
        stopped = ProposalError("stopped", "it was cut off")
        await _proposal_failed(hands, command, position, stopped, began)
    else:
        await hands.record(command.tag, _received(hands, command, base, proposal, began), position)


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
        tokens=proposal.tokens,
        usd=proposal.usd,
        seconds=hands.seconds_since(began),
    )


async def _proposal_failed(hands: Hands, command: c.Propose, cause: int, error: ProposalError, began: datetime) -> None:
    data = e.ProposalFailed(
        experiment=command.experiment,
        ask=command.ask,
        failure=error.failure,
        why=one_line(error.why),
        tokens=error.tokens,
        usd=error.usd,
        seconds=hands.seconds_since(began),
    )
    await hands.record(command.tag, data, cause)


async def _take_up_again(hands: Hands, done: Done) -> tuple[str, Proposal]:
    """The change of an old experiment as a proposal of its own, meant for the commit it was made on."""
    edits: tuple[e.FileEdit, ...] = done.edits if done.attempt == 0 else ()
    if not edits:
        edits = await hands.in_git(
            hands.around.workspace.changes, done.base_commit, done.commit, (preflight.PROGRAM_FILE,)
        )
    what = f"again {done.experiment}: {done.description}"
    return done.base_commit, Proposal(description=what, edits=edits, usd=0.0)


def _history(run: Run, known_at: int) -> tuple[Tried, ...]:
    """What a proposer is told of the past: the verdicts that stood before *known_at*."""
    return tuple(
        Tried(done.experiment, done.edits, done.verdict, done.score, done.description)
        for done in run.done
        if done.verdict is not None and done.experiment > 0 and done.decided_at < known_at
    )


def _in_flight(run: Run, number: int, known_at: int) -> tuple[tuple[e.FileEdit, ...], ...]:
    """Edits of earlier experiments that had no verdict at *known_at*, also of those that have one by now."""
    edits = {x.number: x.proposal.edits for x in run.experiments.values() if x.proposal is not None}
    for done in reversed(run.done):
        if done.decided_at < known_at:
            break
        edits[done.experiment] = done.edits
    return tuple(edits[n] for n in sorted(edits) if 0 < n < number)


def _crash_tail(experiment: Experiment | None) -> str:
    trial = experiment.last if experiment is not None else None
    return trial.finished.tail if trial is not None and trial.finished is not None else ""
