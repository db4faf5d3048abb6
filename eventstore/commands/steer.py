"""pause, resume, stop, budget: what people ask of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import click

from eventstore import events as e
from eventstore import requests, views
from eventstore.console import Asked, ask, ask_all, fail, guarded, now, open_home, read_state, say, tell, until_utc
from eventstore.home import Home
from eventstore.projections.run_state import State
from eventstore.zone import local_zone

Limit = Literal["experiments", "until", "usd"]


@click.command("pause")
@click.argument("tag", required=False)
@click.option("--now", "at_once", is_flag=True, help="Cut the training in hand off; it is run again later.")
@click.pass_context
@guarded
def pause_command(ctx: click.Context, tag: str | None, at_once: bool) -> None:
    """Hold the active run, or TAG, after the experiment in hand.

    What is known stays known: `nightshift resume` goes on where the run was held.

    \b
      nightshift pause          lets the experiment in hand get its verdict
      nightshift pause --now    frees the device at once
    """
    home = open_home(ctx)
    mode = _mode(at_once)
    _told(home, ask(home, lambda state: requests.pause(state, tag, mode), _what("pause", tag, at_once), tag))


@click.command("resume")
@click.argument("tag", required=False)
@click.pass_context
@guarded
def resume_command(ctx: click.Context, tag: str | None) -> None:
    """Let the paused run go on.

    \b
      nightshift resume
    """
    home = open_home(ctx)
    _told(home, ask(home, lambda state: requests.resume(state, tag), _what("resume", tag), tag))


@click.command("stop")
@click.argument("tag", required=False)
@click.option("--now", "at_once", is_flag=True, help="Cut off what is in hand; it gets no verdict.")
@click.pass_context
@guarded
def stop_command(ctx: click.Context, tag: str | None, at_once: bool) -> None:
    """End the active run, or TAG, after the experiment in hand. A run that waits in the queue is withdrawn.

    What was kept stays on the branch. A run that has ended cannot be resumed; start another one from its branch.

    \b
      nightshift stop              ends the active run in good order
      nightshift stop --now        kills the training in hand
      nightshift stop dec01        takes dec01 out of the queue, or ends it
    """
    home = open_home(ctx)
    mode = _mode(at_once)
    _told(home, ask(home, lambda state: requests.stop(state, tag, mode), _what("stop", tag, at_once), tag))


def _mode(at_once: bool) -> e.StopMode:
    return "now" if at_once else "after_experiment"


def _what(verb: str, tag: str | None, at_once: bool = False) -> str:
    return " ".join(word for word in (verb, tag, "--now" if at_once else None) if word)


def _told(home: Home, asked: Asked) -> None:
    sentence = views.asked(asked.run, asked.data)
    if isinstance(asked.data, e.RunWithdrawn):
        say(sentence)
    else:
        tell(home, sentence)


# ---------------------------------------------------------------- budget


@click.command("budget")
@click.argument("tag", required=False)
@click.option("--experiments", type=int, metavar="N", help="End after N verdicts, the baseline not counted.")
@click.option("--until", metavar="TIME", help="End at this time: 08:00 (the next one, here) or a full ISO time.")
@click.option("--usd", type=float, metavar="AMOUNT", help="End when proposals have cost this much in all.")
@click.option("--no-experiments", is_flag=True, help="Take the limit of experiments away.")
@click.option("--no-until", is_flag=True, help="Take the end time away.")
@click.option("--no-usd", is_flag=True, help="Take the limit of money away.")
@click.pass_context
@guarded
def budget_command(
    ctx: click.Context,
    tag: str | None,
    experiments: int | None,
    until: str | None,
    usd: float | None,
    no_experiments: bool,
    no_until: bool,
    no_usd: bool,
) -> None:
    """Change the limits of the active run, or TAG, while it runs or waits. Without an option, show them.

    Limits are totals: a run with 40 verdicts and `--experiments 50` goes on for 10 more.

    \b
      nightshift budget
      nightshift budget --experiments 200 --until 08:00
      nightshift budget nov21 --no-until
    """
    home = open_home(ctx)
    given: dict[Limit, int | float | str | None] = {"experiments": experiments, "until": until, "usd": usd}
    changes: dict[Limit, int | float | str | None] = {name: value for name, value in given.items() if value is not None}
    for name, off in _named(no_experiments, no_until, no_usd):
        if off and name in changes:
            raise click.UsageError(f"--{name} and --no-{name} contradict each other")
        if off:
            changes[name] = None
    if not changes:
        _show_budget(home, tag)
        return
    if until is not None:
        changes["until"] = until_utc(until)
    _change_budget(home, tag, changes)


def _named(no_experiments: bool, no_until: bool, no_usd: bool) -> Sequence[tuple[Limit, bool]]:
    return (("experiments", no_experiments), ("until", no_until), ("usd", no_usd))


def _show_budget(home: Home, tag: str | None) -> None:
    run = views.pick(read_state(home), tag)
    if isinstance(run, requests.Refused):
        fail(run.why)
    for sentence in views.budget(run, local_zone(), now()):
        say(sentence)


def _change_budget(home: Home, tag: str | None, changes: dict[Limit, int | float | str | None]) -> None:
    def judge(state: State) -> list[requests.Answer]:
        return [requests.budget(state, tag, limit, value) for limit, value in changes.items()]

    words = " ".join(f"--no-{name}" if value is None else f"--{name} {value}" for name, value in changes.items())
    asked = ask_all(home, judge, f"{_what('budget', tag)} {words}", tag)
    zone = local_zone()
    sentences = [views.budget_change(x.run, x.data, zone) for x in asked if isinstance(x.data, e.BudgetChanged)]
    tell(home, "\n".join(sentences))
