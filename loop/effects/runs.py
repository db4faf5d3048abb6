"""Start a queued run, or refuse it."""

from __future__ import annotations

import hashlib

from eventstore import events as e
from eventstore import settings as st
from eventstore.envelope import format_at
from eventstore.projections.run_state import Run, State
from loop import commands as c
from loop import preflight
from loop.effects.hands import Hands
from loop.errors import CannotPropose, WorkspaceError
from trainer.process import machine
from trainer.sandbox import plan


async def start(hands: Hands, command: c.StartRun, state: State, run: Run) -> None:
    around = hands.around
    try:
        ready = await hands.in_git(preflight.check, around.home.root, around.workspace, run.request, around.now())
        preflight.check_money(ready.settings, _usd(run, ready))
        for kind in {ready.settings.proposer.kind, preflight.stand_in_of(ready.settings)} - {""}:
            hands.make_proposer(ready.settings, kind)
        await hands.in_git(around.workspace.create_branch, command.tag, ready.base_commit)
    except preflight.Refusal as refusal:
        await _refuse(hands, command, refusal)
        return
    except CannotPropose as error:
        await _refuse(hands, command, preflight.Refusal("proposer", str(error), error.remedy))
        return
    except WorkspaceError as error:  # someone took the branch since it was checked
        await _refuse(hands, command, preflight.Refusal(error.code, str(error), "choose another tag"))
        return
    facts = _told_of_the_sandbox(hands, command, state, ready)
    known = ready.program_hash in state.program_positions
    if not known:
        recorded = e.ProgramRecorded(hash=ready.program_hash, text=ready.program)
        facts.append(c.Append("", recorded, command.request))
    program_hash = state.program_hash if known else ready.program_hash
    started = _started(hands, command.tag, run, ready, program_hash)
    await hands.append([*facts, c.Append(command.tag, started, command.request)])


def _started(hands: Hands, tag: str, run: Run, ready: preflight.Ready, program_hash: str) -> e.RunStarted:
    seed = run.request.seed
    return e.RunStarted(
        branch=f"autoresearch/{tag}",
        base_commit=ready.base_commit,
        settings=st.to_data(ready.settings),
        limits=ready.limits,
        program_hash=program_hash,
        harness_hash=ready.harness_hash,
        settings_hash=ready.settings_hash,
        seed=seed if seed is not None else _seed_of(tag),
        host=hands.around.about["host"],
        device=hands.around.executor.device(0),
        sandbox=plan.words(ready.settings.sandbox.mode, machine()),
        versions=hands.around.about["versions"],
        corpus=ready.corpus,
        rows_hash=ready.rows_hash,
    )


def _told_of_the_sandbox(hands: Hands, command: c.StartRun, state: State, ready: preflight.Ready) -> list[c.Append]:
    """The trouble that experiments are held by less than bubblewrap, or that this is over."""
    what = plan.weakness(ready.settings.sandbox.mode, machine())
    known = state.troubles.get("sandbox")
    if what and (known is None or known.what != what):
        noticed = e.TroubleNoticed(kind="sandbox", what=what, since=format_at(hands.around.now()))
        return [c.Append("", noticed, command.request)]
    if known is not None and not what:
        return [c.Append("", e.TroubleCleared(kind="sandbox", what=known.what), command.request)]
    return []


def _usd(run: Run, ready: preflight.Ready) -> float | None:
    """The limit of money at its start: a queued run's may have been changed since it was asked for."""
    return run.limits.usd if "usd" in run.changed else ready.limits.usd


async def _refuse(hands: Hands, command: c.StartRun, refusal: preflight.Refusal) -> None:
    data = e.RunRefused(request=command.request, code=refusal.code, why=refusal.why, remedy=refusal.remedy)
    await hands.record(command.tag, data, command.request)


def _seed_of(tag: str) -> int:
    """A seed for a run whose asker set none: the same tag gives the same seed."""
    return int.from_bytes(hashlib.sha256(tag.encode()).digest()[:4], "big") % 1_000_000
