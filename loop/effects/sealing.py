"""Sealed scoring, as far as it touches the disk: where the corpus and the harness lie, what a training is handed,
which models wait for their score.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from eventstore import events as e
from eventstore import settings as st
from eventstore.home import Home
from eventstore.projections.run_state import Run
from loop import preflight
from loop.effects import views
from trainer.errors import CannotScore
from trainer.evaluator.protocol import VERSION, Answer
from trainer.scorer import Place
from trainer.spec import DataFile, Seal

EVALUATOR = f"sealed/{VERSION}"
IN_PLACE = "in-place/1"
"""The evaluator of scores that the command itself prints or writes; the score is its claim."""

TRAIN_TOKENS = "train/tokens.bin"


def is_sealed(settings: st.Settings) -> bool:
    return settings.objective.score == "sealed"


def seal_of(cache: Path, handed: Path, settings: st.Settings) -> Seal:
    """What a training is handed, from which corpus. Raises `CannotScore` if that is not there."""
    manifest = preflight.read_manifest(cache)
    try:
        digest = str(manifest["files"][TRAIN_TOKENS]["sha256"])
    except (KeyError, TypeError) as error:
        raise CannotScore(f"the prepared corpus {cache} is gone or damaged: run `python prepare.py` again") from error
    return Seal((DataFile(cache / TRAIN_TOKENS, digest),), handed, settings.experiment.grace_s)


def cache_of_run(run: Run, environ: Mapping[str, str]) -> Path:
    """The corpus that a run began with. Raises `CannotScore` if it is not there any more, or another."""
    started = run.started
    assert started is not None  # only a run that has started trains
    cache = views.cache_of(environ) / started.corpus
    if not started.corpus or preflight.rows_hash(preflight.read_manifest(cache)) != started.rows_hash:
        raise CannotScore(
            f"the prepared corpus {cache}, with which the run began, is not there or not what it was: run "
            "`python prepare.py` in the workspace, and resume the run"
        )
    return cache


def place_of(settings: st.Settings, home: Home, tag: str, cache: Path, harness: Path, handed: Path) -> Place:
    """What the evaluator of a run works on; *harness* is its copy of prepare.py, *handed* has all models in it."""
    return Place(
        harness=harness,
        cache=cache,
        workdir=home.evaluator_dir(tag) / "stand",
        mark=f"{home.mark_id}/{tag}/0/evaluator",
        view=views.of_evaluator(settings, cache, harness, handed),
        timeout_s=settings.experiment.timeout_s,
    )


def finished_of(
    data: e.ScoringFinished, answer: Answer, seconds: float, known: float | None = None
) -> e.ScoringFinished:
    """The outcome of a request, its place taken from *data*. *known* is the score where it was not asked for."""
    probe, opinion = answer.probe, answer.second_opinion
    checks = None
    if probe is not None:
        checks = e.Checks(
            rows=probe.rows,
            moved=probe.moved,
            largest=probe.largest,
            positions=opinion.positions if opinion is not None else 0,
            given=opinion.given if opinion is not None else 0.0,
            hidden=opinion.hidden if opinion is not None else 0.0,
        )
    return e.ScoringFinished(
        experiment=data.experiment,
        attempt=data.attempt,
        trial=data.trial,
        outcome=answer.outcome,
        score=known if answer.outcome == "scored" and answer.score is None else answer.score,
        report_score=answer.report_score,
        seconds=round(seconds, 3),
        why=answer.why,
        checks=checks,
    )


def forget_models(home: Home, run: Run) -> None:
    """Remove the models of experiments that have their verdict, and those of other runs."""
    folder = home.state / "handed"
    for tag in folder.iterdir() if folder.is_dir() else ():
        if tag.name != run.tag:
            shutil.rmtree(tag, ignore_errors=True)
            continue
        for number in tag.iterdir():
            if not number.name.isdecimal() or int(number.name) not in run.experiments:
                shutil.rmtree(number, ignore_errors=True)
