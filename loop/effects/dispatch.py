"""Everything the loop does to the world: which effect carries out which command of `loop/commands`.

An effect that has an intent event is started when that event is durable, and ends by recording its outcome,
also when it is cut off: a cancelled effect writes "stopped" and returns. Nothing here decides anything; what
is done when something does not work comes in with the command or goes back as a fact.
"""

from __future__ import annotations

import traceback

from eventstore import events as e
from eventstore.codec import clean
from eventstore.envelope import Earlier, format_at
from eventstore.errors import LogCorrupt, LogUnavailable
from eventstore.projections.run_state import Run, State
from loop import commands as c
from loop.effects import attempts, proposals, runs, sealing, trainings
from loop.effects.hands import TEXT_MAX, Active, Hands
from loop.errors import WorkspaceError
from trainer.errors import CannotScore, DataUnusable, OutputUnwritable, WouldNotDie


def intent_of(hands: Hands, command: c.Effect, state: State, usd_taken: float = 0.0) -> e.Data | None:
    """
    The event that must be durable before *command* is begun, or None where an earlier one is its intent.

    *usd_taken* is what other asks of the same batch have reserved: all of them together stay within the limit.
    """
    active = hands.active(state.active)
    if active is None:
        return None
    policy = active.policy
    match command:
        case c.Propose():
            return e.ProposalRequested(
                experiment=command.experiment,
                ask=command.ask,
                kind=command.kind,
                purpose=command.purpose,
                base_commit=command.base_commit,
                program_hash=state.program_hash,
                attempt=command.attempt,
                again_of=command.again_of,
                idea=command.idea,
                usd_reserved=_reserved(active, command, state.runs[command.tag], usd_taken),
            )
        case c.Train():
            return e.TrainingRequested(
                experiment=command.experiment,
                attempt=command.attempt,
                trial=command.trial,
                slot=command.slot,
                commit=command.commit,
                command=policy.command,
                seed=_seed(state, command),
                budget_s=policy.budget_s,
                timeout_s=policy.timeout_s,
                nonce=hands.around.new_id(),
            )
        case c.Score(request=None):
            started = state.runs[command.tag].started
            return e.ScoringRequested(
                experiment=command.experiment,
                attempt=command.attempt,
                trial=command.trial,
                evaluator=sealing.EVALUATOR if sealing.is_sealed(active.settings) else sealing.IN_PLACE,
                rows_hash=started.rows_hash if started is not None else "",
                checks=command.checks,
            )
        case c.RunGuard(request=None) if policy.guard is not None:
            return e.GuardRequested(
                experiment=command.experiment,
                attempt=command.attempt,
                command=policy.guard.command,
                timeout_s=policy.guard.timeout_s,
                nonce=hands.around.new_id(),
            )
    return None


async def carry_out(hands: Hands, command: c.Effect, state: State, intent: e.Data | None, position: int) -> None:
    """
    Carry out *command*. *position* is its intent's; *state* is only read before the first await.

    A fault of the disk, of git or of this program pauses the run and says so, because the next loop would only
    meet it again: the run waits for a person, and the loop goes on to serve what they ask. Only a fault of the log
    itself is raised: then nothing can be said any more.
    """
    run = state.runs[command.tag]
    try:
        await _do(hands, command, state, run, intent, position)
    except (OSError, OutputUnwritable) as error:
        what = clean(f"{command.key[0]} failed: {error}", TEXT_MAX)
        noticed = e.TroubleNoticed(kind="disk", what=what, since=format_at(hands.around.now()))
        await _pause(hands, command, run, what, [c.Append("", noticed, None)])
    except WouldNotDie as error:
        what = clean(str(error), TEXT_MAX)
        noticed = e.TroubleNoticed(kind="device", what=what, since=format_at(hands.around.now()))
        await _pause(hands, command, run, what, [c.Append("", noticed, None)])
    except (WorkspaceError, CannotScore, DataUnusable) as error:
        await _pause(hands, command, run, clean(str(error), TEXT_MAX), [])
    except (LogUnavailable, LogCorrupt):
        raise
    except Exception as error:
        traceback.print_exc()
        why = f"a fault of Nightshift in {' '.join(map(str, command.key))}, please report it: {error!r}"
        await _pause(hands, command, run, clean(why, TEXT_MAX), [])


async def _do(hands: Hands, command: c.Effect, state: State, run: Run, intent: e.Data | None, position: int) -> None:
    match command:
        case c.StartRun():
            await runs.start(hands, command, state, run)
        case c.Propose() if isinstance(intent, e.ProposalRequested):
            await proposals.propose(hands, command, state, run, intent, position)
        case c.Prepare():
            await attempts.prepare(hands, command, state, run)
        case c.Commit():
            await attempts.commit(hands, command, run)
        case c.Train() if isinstance(intent, e.TrainingRequested):
            await trainings.train(hands, command, run, intent, position)
        case c.CloseTraining():
            await trainings.close_training(hands, command)
        case c.Score():
            await trainings.score(hands, command, run, position)
        case c.RunGuard():
            await trainings.guard(hands, command, run, position)
        case c.MoveBranch():
            await attempts.move(hands, command, run)


async def _pause(hands: Hands, command: c.Effect, run: Run, why: str, noticed: list[c.Append]) -> None:
    """Hold the run until a person has looked; a queued one is refused, and one that is over left alone."""
    cause = Earlier(0) if noticed else None
    if run.status == "active":
        await hands.append([*noticed, c.Append(run.tag, e.RunPaused(why=why), cause)])
    elif isinstance(command, c.StartRun):
        refused = e.RunRefused(request=command.request, code="trouble", why=why, remedy="mend it and ask again")
        await hands.append([*noticed, c.Append(run.tag, refused, command.request)])
    else:
        if run.is_over:
            hands.held.add(command.key)
        await hands.append(noticed)


def _reserved(active: Active, command: c.Propose, run: Run, usd_taken: float) -> float:
    """The most that an ask may cost: its proposer's worst case, or what is left of the money if that is less."""
    proposer = active.proposers.get(command.kind)
    worst = proposer.worst_usd if proposer is not None else 0.0
    if worst is None:
        return 0.0
    return worst if run.usd_left is None else min(worst, max(0.0, run.usd_left - usd_taken))


def _seed(state: State, command: c.Train) -> int:
    run = state.runs[command.tag]
    return (run.started.seed if run.started is not None else 0) + command.trial
