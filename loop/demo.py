"""The demo: a workspace, real text, a baseline and a few experiments, from nothing to a picture."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from eventstore import events as e
from eventstore import requests
from eventstore.console import Asked, ask, fail, new_id, read_state
from eventstore.home import Home
from eventstore.projections.run_state import Run, State
from eventstore.store import Store
from eventstore.zone import local_zone
from loop import template
from loop.compose import claude_key, serve
from loop.screen import headline, recent
from trainer.process import run_command
from trainer.spec import CommandSpec


def run(folder: Path, experiments: int, budget_s: float, seed: int, proposer: str, out: Console) -> int:
    """Make or reuse the workspace *folder*, run experiments there, say what there is now; return an exit code."""
    if proposer == "claude":
        claude_key()  # before minutes are spent on data
    began = time.monotonic()
    home = Home(folder.resolve())
    if not home.settings_path.exists():
        out.print(f"[bold]1[/] Making a workspace in {escape(str(home.root))}")
        template.make_workspace(home.root, "cpu")
    else:
        out.print(f"[bold]1[/] Using the workspace in {escape(str(home.root))}")
    out.print("[bold]2[/] Preparing the data: text, tokenizer, tokens (once; later runs find them ready)")
    _prepare_data(home, out)
    with home.hold():
        tag = _free_tag(home)
        out.print(f"[bold]3[/] The run {tag}: a baseline and {experiments} experiments of {budget_s:g} s each")
        asked = _ask(home, tag, experiments, budget_s, seed, proposer)
        code = asyncio.run(serve(home, until_idle=True, until_held=True, out=out))
    _summary(home, tag, asked, out, time.monotonic() - began)
    if why := read_state(home).runs[tag].paused_why:
        fail(f"the run paused: {why}; mend that, then in {home.root}: nightshift resume, nightshift loop --until-idle")
    return code


def _ask(home: Home, tag: str, experiments: int, budget_s: float, seed: int, proposer: str) -> Asked:
    limits = e.Limits(experiments=experiments)
    overrides = {"experiment.budget_s": budget_s, "proposer.kind": proposer}
    return ask(
        home,
        lambda state: requests.start(state, tag, local_zone(), limits=limits, overrides=overrides, seed=seed),
        f"start {tag}",
    )


def _prepare_data(home: Home, out: Console) -> None:
    spec = CommandSpec(
        command=("python", "prepare.py"), workdir=home.root, mark=f"{home.mark_id}/prepare/0/{new_id()}", timeout_s=600
    )
    with out.status("preparing"):
        ended = asyncio.run(run_command(spec))
    last_line = (ended.tail.strip().splitlines() or ["it printed nothing"])[-1]
    if ended.exit_code != 0:
        fail(f"prepare.py failed with exit code {ended.exit_code}: {last_line}")
    out.print(f"  {escape(last_line)}")


def _free_tag(home: Home) -> str:
    taken = read_state(home).runs
    return next(tag for n in range(1, 10_000) if (tag := "demo" if n == 1 else f"demo{n}") not in taken)


def _summary(home: Home, tag: str, asked: Asked, out: Console, seconds: float) -> None:
    from eventstore.projections import figure  # noqa: PLC0415 - matplotlib is slow to import
    from eventstore.projections.results import Results  # noqa: PLC0415 - goes with the line above

    with Store.open(home.log_path) as log:
        events = list(log.stream())
    run = State.of(events).runs[tag]
    if run.refused is not None:
        fail(f"the run was refused: {run.refused.why}; {run.refused.remedy}")
    results = Results()
    for event in events:
        results.apply(event)
    picture = home.root / "progress.png"
    picture.write_bytes(figure.staircase(results.rows(tag), results.metric(tag), results.direction(tag), tag))
    out.print(headline(run))
    out.print(recent(run, out.width))
    out.print(f"\n{len(events) - asked.position + 1} events, {seconds:.0f} s. What you have now, in {home.root}:")
    for path, what in (
        (home.root / "results.tsv", "one row for each experiment"),
        (picture, "the staircase of the best score"),
        (home.log_path, "the log everything is computed from"),
    ):
        out.print(f"  {path.relative_to(home.root)}  [dim]{what}[/]")
    out.print(f"  branch {run.started.branch if run.started else ''}  [dim]the commits that were kept[/]")
    _what_next(home, run, out)


def _what_next(home: Home, run: Run, out: Console) -> None:
    here = Path.cwd()
    where = home.root.relative_to(here) if home.root.is_relative_to(here) else home.root
    script = Path(sys.executable).with_name("nightshift")
    nightshift = "nightshift" if shutil.which("nightshift") or not script.exists() else str(script)
    branch = run.started.branch if run.started is not None else ""
    table = Table.grid(padding=(0, 2))
    for command, what in (
        (f"cd {where}", ""),
        (f"{nightshift} experiment list", "what was tried, and why it was kept or not"),
        (f"{nightshift} experiment diff 1", "the change of experiment 1"),
        (f"git log --oneline {branch}", "the kept changes"),
        (f"{nightshift} start night --until 08:00", "ask for a whole night; then"),
        (f"{nightshift} loop", "serves it, in a terminal that stays open"),
    ):
        table.add_row(f"  {command}", f"[dim]{what}[/]")
    out.print("\nGo on:")
    out.print(table)
