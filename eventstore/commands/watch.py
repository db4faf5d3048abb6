"""status and results: what is going on, and what came of it."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from pathlib import Path

import click

from eventstore import views
from eventstore.console import console, fail, guarded, now, open_home, open_log, read_state, say, show
from eventstore.files import replace_file
from eventstore.home import Home
from eventstore.plain import plain
from eventstore.projections.besides import Besides
from eventstore.projections.results import Results
from eventstore.projections.run_state import State
from eventstore.requests import Refused
from eventstore.store import Store
from eventstore.zone import local_zone

REFRESH_S = 1.0
"""How often `--watch` redraws while nothing happens, so that its clocks move."""


# ---------------------------------------------------------------- status


@click.command("status")
@click.argument("tag", required=False)
@click.option("--watch", is_flag=True, help="Stay, and show every change until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="For programs; with --watch one line for each change.")
@click.pass_context
@guarded
def status_command(ctx: click.Context, tag: str | None, watch: bool, as_json: bool) -> None:
    """Show what is going on: the loop, the active run or TAG, its best, its limits, the queue, the last verdicts.

    Also who proposes and what is wrong with it, what proposals cost, how long devices stood idle, which proposals
    wait for approval, and how many ideas are open.

    \b
      nightshift status
      nightshift status --watch
      nightshift status --json | jq .run.best.score
    """
    home = open_home(ctx)
    if not watch:
        state, besides = State(), Besides()
        if home.log_path.exists():
            with open_log(home) as log:
                _catch_up(state, besides, log)
        _show_status(_status(home, state, besides, tag), as_json)
        return
    if not home.log_path.exists():
        fail("there is no log yet, so nothing to watch: `nightshift start TAG` asks for a run")
    with suppress(KeyboardInterrupt):  # the way to end it
        asyncio.run(_watch(home, tag, as_json))


def _status(home: Home, state: State, besides: Besides, tag: str | None) -> views.Status:
    run = views.pick(state, tag)
    if isinstance(run, Refused):
        if tag is not None:
            fail(run.why)
        return views.status(state, None, home.holder(), now())
    return views.status(state, run, home.holder(), now(), besides.of(run.tag))


def _show_status(view: views.Status, as_json: bool) -> None:
    if as_json:
        click.echo(views.as_json(view))
        return
    from eventstore import screens  # noqa: PLC0415 - not for JSON

    show(screens.status(view, local_zone(), now()))


async def _watch(home: Home, tag: str | None, as_json: bool) -> None:
    from rich.live import Live  # noqa: PLC0415 - only here

    from eventstore import screens  # noqa: PLC0415 - not for JSON
    from eventstore.follow import Bell  # noqa: PLC0415 - only here

    state, besides, zone, out = State(), Besides(), local_zone(), console()
    live = Live(console=out, auto_refresh=False) if out.is_terminal and not as_json else None
    async with Bell(home.bells) as bell:
        with open_log(home) as log:
            shown = -1
            if live is not None:
                live.start()
            try:
                while True:
                    _catch_up(state, besides, log)
                    view = _status(home, state, besides, tag)
                    if live is not None:
                        live.update(screens.status(view, zone, now()), refresh=True)
                    elif state.position != shown and as_json:
                        click.echo(views.as_json(view, indented=False))
                    elif state.position != shown:
                        show(screens.status(view, zone, now()), "")
                    shown = state.position
                    await bell.wait(REFRESH_S)
            finally:
                if live is not None:
                    live.stop()


def _catch_up(state: State, besides: Besides, log: Store) -> None:
    for event in log.stream(state.position):
        state.apply(event)
        besides.apply(event)


# ---------------------------------------------------------------- results


@click.command("results")
@click.argument("tag", required=False)
@click.option("--check", type=click.Path(dir_okay=False, exists=True, path_type=Path), metavar="FILE",
              help="Compare FILE with the log instead of printing; exit code 1 if they differ.")  # fmt: skip
@click.option("--figure", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.png",
              help="Draw the staircase of the best score instead of printing.")  # fmt: skip
@click.option("--refused", is_flag=True,
              help="Instead: what was refused before its code ran, repaired, or abandoned.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="All that is known of each row, for programs.")
@click.pass_context
@guarded
def results_command(
    ctx: click.Context, tag: str | None, check: Path | None, figure: Path | None, refused: bool, as_json: bool
) -> None:
    """Print results.tsv of the run that started last, or of TAG, computed from the log.

    On a terminal, what has no row follows below it: refused proposals, repairs and abandoned experiments.

    \b
      nightshift results
      nightshift results --refused
      nightshift results nov21 --check results.tsv
      nightshift results nov21 --figure nov21.png
    """
    if figure is not None and figure.suffix.lower() != ".png":
        raise click.BadParameter(f"{figure} is no name of a picture: end it in .png", param_hint="--figure")
    home = open_home(ctx)
    results, besides = Results(), Besides()
    if home.log_path.exists():
        with open_log(home) as log:
            for event in log.stream():
                results.apply(event)
                besides.apply(event)
    tag = _with_results(home, results, tag)
    if check is not None:
        _check(results.tsv(tag).encode(), check, tag)
    if figure is not None:
        _draw(results, tag, figure)
    beyond = views.beyond(besides.of(tag), results.rows(tag))
    if as_json:
        click.echo(views.as_json(_table(results, tag, beyond)))
    elif refused:
        _show_beyond(beyond, tag)
    elif check is None and figure is None:
        _print(results.tsv(tag), beyond)


def _print(tsv: str, beyond: views.Beyond) -> None:
    """results.tsv and nothing else, byte for byte, but for a person at a terminal."""
    if not sys.stdout.isatty():
        click.echo(tsv.encode(), nl=False)  # bytes go out as they are
        return
    click.echo(plain(tsv), nl=False)
    if not beyond.is_empty:
        from eventstore import screens  # noqa: PLC0415 - not for JSON

        show("", screens.beyond(beyond))


def _show_beyond(beyond: views.Beyond, tag: str) -> None:
    if beyond.is_empty:
        say(f"No proposal of {tag} was refused, nothing was repaired, and every experiment that is over has a verdict.")
        return
    from eventstore import screens  # noqa: PLC0415 - only where there is something to draw

    show(screens.beyond(beyond))


def _with_results(home: Home, results: Results, tag: str | None) -> str:
    if tag is None and results.tags:
        return results.tags[-1]
    if tag in results.tags:
        return tag
    run = views.pick_started(read_state(home), tag)
    fail(run.why if isinstance(run, Refused) else f"the run {run.tag} has no results yet")


def _check(ours: bytes, file: Path, tag: str) -> None:
    difference = views.first_difference(ours, file.read_bytes())
    if difference is not None:
        fail(f"{file} is not the results.tsv of {tag}: {difference}")
    say(f"{file} is exactly what the log says of {tag}.")


def _draw(results: Results, tag: str, file: Path) -> None:
    from eventstore.projections.figure import staircase  # noqa: PLC0415 - only for a picture

    replace_file(file, staircase(results.rows(tag), results.metric(tag), results.direction(tag), tag))
    say(f"Drew {tag} into {file}.")


def _table(results: Results, tag: str, beyond: views.Beyond) -> dict[str, object]:
    return {
        "run": tag,
        "metric": results.metric(tag),
        "direction": results.direction(tag),
        "rows": results.rows(tag),
        "refused": beyond.refused,
        "repaired": beyond.repaired,
        "abandoned": beyond.abandoned,
    }
