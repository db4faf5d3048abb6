"""Train a commit, score it, and guard what would be kept."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import msgspec

from eventstore import events as e
from eventstore import settings as st
from eventstore.codec import clean
from eventstore.errors import EventstoreError
from eventstore.projections.run_state import Run
from loop import commands as c
from loop.effects import sealing, views
from loop.effects.hands import TEXT_MAX, Hands
from loop.effects.leftovers import begin_compiled, keep_of_training
from loop.errors import WorkspaceError
from trainer.errors import CannotScore, CannotStart, DataUnusable, OutputUnwritable, WouldNotDie
from trainer.evaluator.protocol import Request
from trainer.files import LOG_NAME, check_room, read_facts, read_result, write_block
from trainer.process import run_command
from trainer.spec import CommandSpec, Result, Scoring, Seal, TrainingSpec


async def train(hands: Hands, command: c.Train, run: Run, request: e.TrainingRequested, position: int) -> None:
    home = hands.around.home
    place = (command.tag, command.experiment, command.attempt, command.trial)
    folder, outdir = home.work_dir(*place), home.run_dir(*place)
    try:
        result = await _trained(hands, command, run, request, position, folder, outdir)
    except asyncio.CancelledError:
        result = Result(outcome="stopped", seconds=0.0, why="it was cut off before it began", nonce=request.nonce)
    except (OSError, OutputUnwritable, WorkspaceError, CannotScore, DataUnusable) as error:
        # Not the training's fault: closed as stopped, it is trained again after the pause and does not count as lost.
        why = clean(f"not trained: {error}", TEXT_MAX)
        failed = Result(outcome="stopped", seconds=0.0, why=why, nonce=request.nonce)
        await hands.record(command.tag, _finished(command, request.nonce, failed), position)
        raise
    await hands.record(command.tag, _finished(command, request.nonce, result), position)
    await asyncio.to_thread(keep_of_training, home, command.tag, command.experiment, folder, outdir)


async def _trained(
    hands: Hands, command: c.Train, run: Run, request: e.TrainingRequested, position: int, folder: Path, outdir: Path
) -> Result:
    active = hands.active(run)
    assert active is not None  # its intent was written for the active run
    seal = await _seal(hands, command, run, active.settings) if sealing.is_sealed(active.settings) else None
    await _fresh_checkout(hands, command.commit, folder, outdir)
    if command.experiment:
        await asyncio.to_thread(begin_compiled, folder, hands.around.home.compiled_dir(command.tag))
    spec = TrainingSpec(
        command=request.command,
        workdir=folder,
        outdir=outdir,
        mark=hands.mark(command.tag, command.experiment, request.nonce),
        attempt=command.attempt,
        trial=command.trial,
        budget_s=request.budget_s,
        timeout_s=request.timeout_s,
        seed=request.seed,
        scoring=scoring_of(active.settings),
        env=views.environment_of(hands.around.environ, folder),
        view=views.of_experiment(active.settings, hands.around.home, folder, hands.around.environ),
        seal=seal,
    )
    try:
        training = await hands.around.executor.start(spec, command.slot)
    except CannotStart as error:
        return Result(outcome="crash", seconds=0.0, why=str(error), nonce=request.nonce)
    key = (command.tag, command.experiment)
    hands.trainings[key] = training
    free_since = hands.free_since.pop(command.slot, None)
    started = e.TrainingStarted(
        experiment=command.experiment,
        attempt=command.attempt,
        trial=command.trial,
        nonce=request.nonce,
        pid=training.pid,
        pid_started=training.pid_started,
        device=training.device,
        idle_s=round(hands.around.monotonic() - free_since, 4) if free_since is not None else None,
    )
    try:
        await hands.record(command.tag, started, position)
        return _of_its_own(await training.wait(), folder)
    except asyncio.CancelledError:
        await training.stop()
        return await training.wait()
    except EventstoreError:  # nothing can be said of it any more, so it must not go on
        await training.stop()
        with suppress(OutputUnwritable, WouldNotDie):
            await training.wait()
        raise
    finally:
        hands.free_since[command.slot] = hands.around.monotonic()
        del hands.trainings[key]


def _of_its_own(result: Result, folder: Path) -> Result:
    """A training from under which somebody removed the folder did not fail by itself: it is lost, and done again."""
    if result.outcome in ("scored", "stopped") or folder.is_dir():
        return result
    return replace(result, outcome="lost", score=None, why="its work folder was removed while it ran")


async def _seal(hands: Hands, command: c.Train, run: Run, settings: st.Settings) -> Seal:
    """What the training is handed. Its scorer is waited for: it starts beside no training that it would slow down."""
    home = hands.around.home
    await asyncio.to_thread(sealing.forget_models, home, run)
    await (await hands.scorer(run)).ready()
    handed = home.handed_dir(command.tag, command.experiment, command.attempt, command.trial)
    return sealing.seal_of(sealing.cache_of_run(run, hands.around.environ), handed, settings)


async def close_training(hands: Hands, command: c.CloseTraining) -> None:
    place = (command.tag, command.experiment, command.attempt, command.trial)
    folder, outdir = hands.around.home.work_dir(*place), hands.around.home.run_dir(*place)
    result = await asyncio.to_thread(read_result, outdir)
    if result is None or result.nonce != command.nonce:
        why = "the loop or the machine ended while it trained"
        result = Result(outcome="lost", seconds=0.0, why=why, nonce=command.nonce)
    await hands.record(command.tag, _finished(command, command.nonce, result), command.cause)
    await asyncio.to_thread(keep_of_training, hands.around.home, command.tag, command.experiment, folder, outdir)


async def score(hands: Hands, command: c.Score, run: Run, position: int) -> None:
    active = hands.active(run)
    assert active is not None  # its intent was written for the active run
    if sealing.is_sealed(active.settings):
        await _score_sealed(hands, command, run, active.settings, position)
        return
    trial = run.experiments[command.experiment].trials[command.trial]
    finished = trial.finished
    score = finished.score if finished is not None else None
    data = e.ScoringFinished(
        experiment=command.experiment,
        attempt=command.attempt,
        trial=command.trial,
        outcome="scored" if score is not None else "no_metric",
        score=score,
        claim=score,
        why="" if score is not None else "the training ended well but gave no score",
    )
    await hands.record(command.tag, data, position)


async def _score_sealed(hands: Hands, command: c.Score, run: Run, settings: st.Settings, position: int) -> None:
    home = hands.around.home
    place = (command.tag, command.experiment, command.attempt, command.trial)
    folder, log = home.handed_dir(*place), home.run_dir(*place) / LOG_NAME
    trial = run.experiments[command.experiment].trials[command.trial]
    began = hands.around.monotonic()
    known = trial.scored.score if command.checks and trial.scored is not None else None
    request = Request(
        folder=str(folder),
        seed=trial.seed,
        score=known is None,
        probe=command.checks,
        report=command.checks,
        second_opinion=command.checks,
    )
    data = e.ScoringFinished(
        experiment=command.experiment,
        attempt=command.attempt,
        trial=command.trial,
        outcome="lost",
        why="the model that was handed over is gone, so it is trained again",
    )
    try:
        if await asyncio.to_thread(folder.is_dir):
            answer = await (await hands.scorer(run)).score(request)
            data = sealing.finished_of(data, answer, hands.around.monotonic() - began, known)
            if data.score is not None:
                facts = await asyncio.to_thread(read_facts, folder)
                await asyncio.to_thread(write_block, log, settings.objective.name, data.score, facts)
    except asyncio.CancelledError:
        data = msgspec.structs.replace(data, outcome="stopped", why="")
    await hands.record(command.tag, data, position)


async def guard(hands: Hands, command: c.RunGuard, run: Run, position: int) -> None:
    request = (await hands.around.read_at(command.request or position)).data
    assert isinstance(request, e.GuardRequested)  # the position comes from the log's own record of it
    active = hands.active(run)
    assert active is not None  # its intent was written for the active run
    home = hands.around.home
    folder = home.guard_dir(command.tag, command.experiment, command.attempt)
    try:
        await _fresh_checkout(hands, command.commit, folder, None)
        spec = CommandSpec(
            command=request.command,
            workdir=folder,
            mark=hands.mark(command.tag, command.experiment, request.nonce),
            timeout_s=request.timeout_s,
            env=views.environment_of(hands.around.environ, folder),
            view=views.of_experiment(active.settings, home, folder, hands.around.environ),
        )
        ended = await run_command(spec)
        if ended.exit_code != 0:
            await asyncio.to_thread(check_room, folder)
        data = e.GuardFinished(
            experiment=command.experiment,
            attempt=command.attempt,
            result="timeout" if ended.timed_out else "passed" if ended.exit_code == 0 else "failed",
            seconds=round(ended.seconds, 3),
            exit_code=ended.exit_code,
            tail=f"{ended.tail}\n{ended.why}".strip() if ended.why else ended.tail,
        )
    except CannotStart as error:
        data = e.GuardFinished(
            experiment=command.experiment, attempt=command.attempt, result="failed", seconds=0.0, tail=str(error)
        )
    except asyncio.CancelledError:
        data = e.GuardFinished(experiment=command.experiment, attempt=command.attempt, result="stopped", seconds=0.0)
    await hands.record(command.tag, data, position)
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def _fresh_checkout(hands: Hands, commit: str, folder: Path, outdir: Path | None) -> None:
    def make() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        if outdir is not None:
            shutil.rmtree(outdir, ignore_errors=True)
            outdir.mkdir(parents=True)
        hands.around.workspace.checkout(commit, folder)

    await hands.in_git(make)


def scoring_of(settings: st.Settings) -> Scoring:
    """How the trainer is to find the score, from the objective."""
    objective = settings.objective
    if objective.direction == "pass":
        return Scoring(kind="pass", name=objective.name)
    return Scoring(kind=objective.score, name=objective.name, file=objective.score_file, key=objective.score_key)


def _finished(command: c.Train | c.CloseTraining, nonce: str, result: Result) -> e.TrainingFinished:
    return e.TrainingFinished(
        experiment=command.experiment,
        attempt=command.attempt,
        trial=command.trial,
        nonce=nonce,
        outcome=result.outcome,
        seconds=round(result.seconds, 3),
        score=result.score,
        metrics=dict(result.metrics),
        peak_memory_mb=result.peak_memory_mb,
        exit_code=result.exit_code,
        why=result.why,
        tail=result.tail,
        trained_s=round(result.trained_s, 3) if result.trained_s is not None else None,
    )
