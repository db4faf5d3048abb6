"""experiment list, show, diff, log, approve, reject, veto, again."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from eventstore import events as e
from eventstore import requests, views
from eventstore.codec import clean
from eventstore.console import ask, fail, guarded, open_home, open_log, read_state, show, tell
from eventstore.home import Home
from eventstore.plain import as_on_terminal, plain_line
from eventstore.projections.besides import Besides
from eventstore.projections.results import Results, Row
from eventstore.projections.run_state import Run
from eventstore.projections.story import Attempt, Story
from eventstore.zone import local_zone

LOG_LINES = 50
ATTEMPT_FOLDER = re.compile(r"(\d+)\.(\d+)")

Command = Callable[..., Any]


def of_run(command: Command) -> Command:
    """The option `--tag` of every command here."""
    return click.option("--tag", help="The run; by default the active one, else the one that started last.")(command)


@click.group("experiment")
def experiment_command() -> None:
    """Look at experiments, approve or reject a proposal, take a keep back, or take an edit up again.

    Experiments are numbered from 0, the baseline, in each run.

    \b
      nightshift experiment list
      nightshift experiment show 7
      nightshift experiment approve 9
      nightshift experiment veto 7 "it overfits"
    """


# ---------------------------------------------------------------- looking


@experiment_command.command("list")
@of_run
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
@guarded
def list_command(ctx: click.Context, tag: str | None, as_json: bool) -> None:
    """List every experiment of a run: its verdict and the reason, also those in hand and those abandoned.

    A proposal that waits for approval is listed with what it means to do and the command that approves it.

    \b
      nightshift experiment list
      nightshift experiment list --tag nov21 --json
    """
    home = open_home(ctx)
    run = _run(home, tag)
    results, besides = Results(), Besides()
    with open_log(home) as log:
        for event in log.stream(run.requested_at - 1):
            results.apply(event)
            besides.apply(event)
    lines = views.lines(run, results.rows(run.tag), home.holder(), besides.of(run.tag))
    if as_json:
        click.echo(views.as_json(lines))
        return
    from eventstore import screens  # noqa: PLC0415 - not for JSON

    show(screens.experiments(lines, results.metric(run.tag)))


@experiment_command.command("show")
@click.argument("number", type=click.IntRange(min=0))
@of_run
@click.option("--json", "as_json", is_flag=True, help="For programs: all of it, the diff and the logs' tails too.")
@click.pass_context
@guarded
def show_command(ctx: click.Context, number: int, tag: str | None, as_json: bool) -> None:
    """Tell the whole story of experiment NUMBER: who proposed it, what it cost, what was run, how it was judged.

    Of a proposal that was never applied, such as one that waits for approval, the code is shown too.

    \b
      nightshift experiment show 7
      nightshift experiment show 7 --tag nov21 --json
    """
    home = open_home(ctx)
    run = _run(home, tag)
    story, row = _story(home, run, number)
    ideas = _ideas(home, story)
    if as_json:
        told = [{"idea": position, "by": idea.by, "text": idea.text} for position, idea in ideas.items()]
        click.echo(views.as_json({"story": story, "row": row, "ideas": told}))
        return
    from eventstore import screens  # noqa: PLC0415 - not for JSON

    open_one = run.experiments.get(number)
    now_is, waiting = "the run ended before its verdict", None
    if open_one is not None:
        awaits = run.awaits_approval(open_one)
        waiting = views.waiting(open_one) if awaits else None
        now_is = views.stage(open_one, home.holder(), awaits_approval=awaits)
    show(screens.story(story, row, now_is, local_zone(), ideas=ideas, waiting=waiting))


def _ideas(home: Home, story: Story) -> dict[int, e.IdeaSuggested]:
    """The ideas that an experiment was asked to use, by position, each with whom to credit."""
    found: dict[int, e.IdeaSuggested] = {}
    with open_log(home) as log:
        for position in {asked.idea for asked in story.asks if asked.idea is not None}:
            for event in log.read(position - 1, limit=1):
                if isinstance(event.data, e.IdeaSuggested):
                    by = event.data.by or event.actor
                    found[position] = msgspec.structs.replace(event.data, by=by)
    return found


@experiment_command.command("diff")
@click.argument("number", type=click.IntRange(min=0))
@of_run
@click.option("--attempt", type=click.IntRange(min=0), help="A repair or another base; by default the last one.")
@click.pass_context
@guarded
def diff_command(ctx: click.Context, number: int, tag: str | None, attempt: int | None) -> None:
    """Print what experiment NUMBER changed, against the commit it was built on.

    Kept or not, every diff is in the log. Without a terminal it is printed byte for byte, so git can apply it.
    Of a proposal that was never applied its edit is printed, which is no patch yet.

    \b
      nightshift experiment diff 7
      nightshift experiment diff 7 | git apply
    """
    home = open_home(ctx)
    run = _run(home, tag)
    story, _ = _story(home, run, number)
    if not story.attempts and attempt is None and story.edits:
        what = "its proposal" if story.proposals else "a proposal that was refused"
        click.echo(
            f"Experiment {number} of {run.tag} was never applied: this is the edit of {what}, no patch.", err=True
        )
        text = views.edit_text(story.edits)
    else:
        text = _attempt(story, attempt).prepared.diff
    if not text:
        click.echo(f"Experiment {number} of {run.tag} changes nothing.", err=True)
    elif sys.stdout.isatty():
        from eventstore import screens  # noqa: PLC0415 - only for a terminal

        show(screens.diff(text))
    else:
        click.echo(text.encode(), nl=False)  # bytes go out as they are


def _attempt(story: Story, attempt: int | None) -> Attempt:
    found = [x for x in story.attempts if attempt is None or x.prepared.attempt == attempt]
    if found:
        return found[-1]
    if story.attempts:
        known = ", ".join(str(x.prepared.attempt) for x in story.attempts)
        fail(f"experiment {story.experiment} of {story.tag} has no attempt {attempt}: there is {known}")
    fail(f"experiment {story.experiment} of {story.tag} was never applied and has no proposal, so there is no diff")


# ---------------------------------------------------------------- a training's log


@experiment_command.command("log")
@click.argument("number", type=click.IntRange(min=0))
@of_run
@click.option("--attempt", type=click.IntRange(min=0), help="By default the last one.")
@click.option("--trial", type=click.IntRange(min=0), help="By default the last one.")
@click.option("-n", "--lines", type=click.IntRange(min=1), default=LOG_LINES, show_default=True, help="The last lines.")
@click.option("--all", "whole", is_flag=True, help="The whole log.")
@click.pass_context
@guarded
def log_command(
    ctx: click.Context, number: int, tag: str | None, attempt: int | None, trial: int | None, lines: int, whole: bool
) -> None:
    """Print what the training of experiment NUMBER printed.

    Control characters are taken out, and of a line that rewrites itself only its last state is shown.

    \b
      nightshift experiment log 7
      nightshift experiment log 7 --all --attempt 0
    """
    home = open_home(ctx)
    run = _run(home, tag)
    story, _ = _story(home, run, number)
    kept = _log_files(home.run_dir(run.tag, number, 0, 0).parent, attempt, trial)
    if kept:
        found = as_on_terminal(kept[-1].read_bytes().decode("utf-8", "replace"))
    else:
        found = as_on_terminal(_tail(story, attempt, trial))
        click.echo("The log file is not there; this is the end of it that the event log keeps.", err=True)
    for line in found if whole else found[-lines:]:
        click.echo(line)


def _log_files(folder: Path, attempt: int | None, trial: int | None) -> list[Path]:
    """The logs that are kept, the newest training last."""
    found = []
    for path in folder.glob("*/run.log"):
        named = ATTEMPT_FOLDER.fullmatch(path.parent.name)
        if named is not None:
            place = int(named[1]), int(named[2])
            if attempt in (None, place[0]) and trial in (None, place[1]):
                found.append((place, path))
    return [path for _, path in sorted(found)]


def _tail(story: Story, attempt: int | None, trial: int | None) -> str:
    for one in reversed(story.attempts):
        for training in reversed(one.trainings):
            if attempt in (None, one.prepared.attempt) and trial in (None, training.trial) and training.finished:
                return training.finished.tail
    fail(f"experiment {story.experiment} of {story.tag} has no finished training of that attempt and trial yet")


# ---------------------------------------------------------------- asking


@experiment_command.command("approve")
@click.argument("number", type=click.IntRange(min=0))
@of_run
@click.pass_context
@guarded
def approve_command(ctx: click.Context, number: int, tag: str | None) -> None:
    """Let the proposal of experiment NUMBER be tried, which waits for that.

    With proposer.approval = "all" every proposal waits, with "first" those up to the first one that is approved.

    \b
      nightshift experiment show 9
      nightshift experiment approve 9
    """
    home = open_home(ctx)
    _ask(home, lambda state: requests.approve(state, tag, number), f"approve {number}", tag)


@experiment_command.command("reject")
@click.argument("number", type=click.IntRange(min=0))
@click.argument("why", nargs=-1)
@of_run
@click.pass_context
@guarded
def reject_command(ctx: click.Context, number: int, why: tuple[str, ...], tag: str | None) -> None:
    """Turn the proposal of experiment NUMBER down before any of its code runs. WHY is for the record.

    \b
      nightshift experiment reject 9 "it reads the evaluation data"
    """
    home = open_home(ctx)
    reason = _why(why)
    _ask(home, lambda state: requests.reject(state, tag, number, reason), f"reject {number}", tag)


@experiment_command.command("veto")
@click.argument("number", type=click.IntRange(min=0))
@click.argument("why", nargs=-1)
@of_run
@click.pass_context
@guarded
def veto_command(ctx: click.Context, number: int, why: tuple[str, ...], tag: str | None) -> None:
    """Take the keep NUMBER off the branch again, with every keep built on it. WHY is for the record.

    The branch goes back to before it; the commits stay under refs/nightshift. Runs that are over can be vetoed too.

    \b
      nightshift experiment veto 7 "it only wins by training longer"
    """
    home = open_home(ctx)
    reason = _why(why)
    _ask(home, lambda state: requests.veto(state, tag, number, reason), f"veto {number}", tag)


@experiment_command.command("again")
@click.argument("number", type=click.IntRange(min=0))
@of_run
@click.pass_context
@guarded
def again_command(ctx: click.Context, number: int, tag: str | None) -> None:
    """Take the edit of experiment NUMBER up again as a new experiment, on today's best.

    \b
      nightshift experiment again 7
    """
    home = open_home(ctx)
    _ask(home, lambda state: requests.again(state, tag, number), f"again {number}", tag)


def _why(words: tuple[str, ...]) -> str:
    return clean(plain_line(" ".join(words)), requests.WHY_MAX)


def _ask(home: Home, judge: Callable[[Any], requests.Answer], what: str, tag: str | None) -> None:
    asked = ask(home, judge, f"experiment {what}" + (f" --tag {tag}" if tag else ""), tag)
    tell(home, views.asked(asked.run, asked.data))


# ---------------------------------------------------------------- reading the log


def _run(home: Home, tag: str | None) -> Run:
    run = views.pick_started(read_state(home), tag)
    if isinstance(run, requests.Refused):
        fail(run.why)
    return run


def _story(home: Home, run: Run, number: int) -> tuple[Story, Row | None]:
    """The story of an experiment and its row of results.tsv."""
    if number >= run.next_number:
        fail(views.no_such_experiment(run, number))
    story, results = Story(run.tag, number), Results()
    with open_log(home) as log:
        for event in log.stream(run.requested_at - 1):
            story.apply(event)
            results.apply(event)
    row = next((row for row in results.rows(run.tag) if row.experiment == number), None)
    return story, row
