"""Turn an edit into a tree, a tree into a commit, and move the run's branch."""

from __future__ import annotations

from functools import partial

from eventstore import events as e
from eventstore.envelope import Head
from eventstore.projections.run_state import Experiment, Run, State
from eventstore.witness import trailer
from loop import commands as c
from loop.effects.hands import Active, Hands, one_line
from loop.errors import BranchTaken, EditRefused, MergeConflict
from loop.workspace import Prepared


async def prepare(hands: Hands, command: c.Prepare, state: State, run: Run) -> None:
    active = hands.active(run)
    experiment = run.experiments.get(command.experiment)
    if active is None:
        return
    if experiment is None:
        await _prepare_baseline(hands, command)
        return
    request = experiment.request
    program_at = state.program_positions.get(request.program_hash, 0) if request is not None else 0
    program = await hands.program_text(program_at) if program_at else None
    origin = run.started.base_commit if run.started is not None else command.tip
    try:
        prepared = await hands.in_git(_applied, hands, command.step, command.tip, experiment, active, program, origin)
    except MergeConflict:
        await _conflict(hands, command)
    except EditRefused as refused:
        if command.step == "rebase" or request is None or request.purpose == "again":
            await _conflict(hands, command)
            return
        why = one_line(refused.why)
        data = e.ProposalFailed(
            experiment=command.experiment, ask=request.ask, failure=refused.failure, why=why, usd=0.0
        )
        await hands.record(command.tag, data, command.cause)
    else:
        double = twin(run, command.experiment, prepared.content_hash) if command.step == "first" else None
        if double is not None and request is not None and request.purpose == "new":
            data = e.ProposalFailed(
                experiment=command.experiment,
                ask=request.ask,
                failure="same_as_tried",
                why=f"on the best of now it is the same as experiment {double}",
                usd=0.0,
            )
            await hands.record(command.tag, data, command.cause)
            return
        subject, body = _message(command, experiment)
        data_prepared = e.ExperimentPrepared(
            experiment=command.experiment,
            attempt=command.attempt,
            step=command.step,
            base_commit=command.tip,
            tree=prepared.tree,
            subject=subject,
            body=body,
            diff=prepared.diff,
            lines_added=prepared.lines_added,
            lines_removed=prepared.lines_removed,
            content_hash=prepared.content_hash,
        )
        await hands.record(command.tag, data_prepared, command.cause)


def twin(run: Run, number: int, content_hash: str) -> int | None:
    """Another experiment of the run that tried the same, or is about to; None if there is none."""
    for other in run.experiments.values():
        if other.number != number and other.prepared is not None and other.prepared.content_hash == content_hash:
            return other.number
    return run.tried.get(content_hash)


def _applied(
    hands: Hands,
    step: e.Step,
    tip: str,
    experiment: Experiment,
    active: Active,
    program: str | None,
    origin: str,
) -> Prepared:
    """
    The experiment's change on top of *tip*.

    Constants and search blocks say what they mean by themselves: where they still fit they are applied to the
    tip as it is now. All else is brought over by a three-way merge from the commit it was meant for.
    """
    objective = active.settings.objective
    prepare = partial(
        hands.around.workspace.prepare,
        tip=tip,
        editable=objective.editable,
        protected=objective.protected,
        program=program,
        origin=origin,
    )
    proposal, before = experiment.proposal, experiment.committed
    assert proposal is not None  # only the baseline has none, and it is not prepared here
    if step == "repair" and before is not None and experiment.prepared is not None:
        return prepare(proposal.edits, edits_base=before.commit, merge_base=experiment.prepared.base_commit)
    portable = not any(isinstance(edit, e.WholeFile) for edit in proposal.edits) and not experiment.repairs
    if portable and tip != proposal.base_commit:
        try:
            return prepare(proposal.edits, edits_base=tip)
        except EditRefused as refused:
            if refused.failure == "changes_nothing":
                raise
    if step == "rebase" and before is not None and experiment.prepared is not None:
        return prepare((), edits_base=before.commit, merge_base=experiment.prepared.base_commit)
    return prepare(proposal.edits, edits_base=proposal.base_commit)


async def _conflict(hands: Hands, command: c.Prepare) -> None:
    if command.on_conflict is not None:
        await hands.record(command.tag, command.on_conflict, command.cause)


async def _prepare_baseline(hands: Hands, command: c.Prepare) -> None:
    workspace = hands.around.workspace
    tree = await hands.in_git(workspace.tree_of, command.tip)
    data = e.ExperimentPrepared(
        experiment=0,
        attempt=0,
        step="first",
        base_commit=command.tip,
        tree=tree,
        subject="baseline",
        content_hash=await hands.in_git(workspace.content_hash, command.tip, command.tip, {}, ()),
    )
    await hands.record(command.tag, data, command.cause)


async def commit(hands: Hands, command: c.Commit, run: Run) -> None:
    """
    Commit what was prepared. All of it follows from that one event, so twice gives the same commit.

    The message ends with the event's position and chain: a witness of the log in another place.
    """
    experiment = run.experiments[command.experiment]
    prepared, at = experiment.prepared, experiment.prepared_time
    if prepared is None:
        return
    commit = prepared.base_commit
    if command.experiment > 0:
        event = await hands.around.read_at(experiment.prepared_at)
        body = f"{prepared.body}\n{trailer(Head(event.position, event.chain))}"
        commit = await hands.in_git(
            hands.around.workspace.commit, prepared.tree, prepared.base_commit, prepared.subject, body, at
        )
    ref = await hands.in_git(hands.around.workspace.keep_ref, command.tag, command.experiment, command.attempt, commit)
    data = e.ExperimentCommitted(
        experiment=command.experiment, attempt=command.attempt, commit=commit, tree=prepared.tree, ref=ref
    )
    await hands.record(command.tag, data, command.cause)


async def move(hands: Hands, command: c.MoveBranch, run: Run) -> None:
    try:
        await hands.in_git(hands.around.workspace.move_branch, command.tag, command.from_commit, command.to_commit)
    except BranchTaken as taken:
        await _branch_taken(hands, command, run, taken)
        return
    data = e.BranchMoved(
        experiment=command.experiment,
        from_commit=command.from_commit,
        to_commit=command.to_commit,
        why="veto" if command.why == "veto" else "keep",
    )
    await hands.record(command.tag, data, command.cause)


async def _branch_taken(hands: Hands, command: c.MoveBranch, run: Run, taken: BranchTaken) -> None:
    """Someone else moved the branch: an open run pauses; in one that is over, the veto is refused."""
    if not run.is_over:
        await hands.record(command.tag, e.RunPaused(why=str(taken)), command.cause)
        return
    who = (await hands.around.read_at(command.cause)).actor
    refused = e.RequestRefused(who=who, what=f"veto {command.experiment}", why=str(taken))
    await hands.record(command.tag, refused, command.cause)


def _message(command: c.Prepare, experiment: Experiment) -> tuple[str, str]:
    proposal = experiment.proposal
    hypothesis = proposal.hypothesis.strip() if proposal is not None else ""
    trailers = (
        f"Nightshift-Run: {command.tag}\n"
        f"Nightshift-Experiment: {command.experiment}\n"
        f"Nightshift-Attempt: {command.attempt}"
    )
    return experiment.description or f"experiment {command.experiment}", f"{hypothesis}\n\n{trailers}".strip()
