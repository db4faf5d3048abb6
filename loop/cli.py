"""The commands that make a workspace and run experiments: init, demo, start, loop, up, doctor, train."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, ParamSpec, TypeVar

import click
from rich.markup import escape

from eventstore import events as e
from eventstore import requests
from eventstore import settings as st
from eventstore.checks import Report, text
from eventstore.console import Asked, ask, console, fail, new_id, now, open_home, read_state, say, until_utc
from eventstore.console import guarded as guarded_by_eventstore
from eventstore.hidden import hide
from eventstore.home import Home
from eventstore.views import as_json as as_json_text
from eventstore.zone import local_zone
from loop import demo, doctor, preflight, profiles, template
from loop.compose import serve
from loop.effects import sealing
from loop.effects.trainings import scoring_of
from loop.errors import LoopError
from loop.supervise import Program, Supervisor, environment_of
from loop.workspace import Workspace
from trainer.errors import TrainerError
from trainer.evaluator.protocol import Answer, Request
from trainer.executors.local import LocalExecutor
from trainer.files import LOG_NAME, write_block
from trainer.scorer import EvaluatorScorer
from trainer.spec import TrainingSpec

P = ParamSpec("P")
R = TypeVar("R")

TELL_S = 5.0
"""How long `start` waits to hear from a running loop whether the run started."""


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """Let *command* end with one sentence and exit code 1 where git, a setting or a program is not as needed."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (LoopError, TrainerError, preflight.Refusal) as error:
            fail(str(error))

    return guarded_by_eventstore(run)


# ---------------------------------------------------------------- init


@click.command("init")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=Path())
@click.option("--profile", type=click.Choice(list(profiles.PROFILES)), default="cpu", show_default=True,
              help="cpu: a small model that starts deliberately mediocre; gpu: for one large GPU.")  # fmt: skip
@guarded
def init_command(folder: Path, profile: str) -> None:
    """Make FOLDER (default: here) a workspace with train.py, prepare.py, program.md and nightshift.toml.

    A folder that is no git repository becomes one, with one commit. In a repository of your own only files that
    are not there yet are written, and you commit them. To optimise a program of your own you need only a
    nightshift.toml: see docs/settings.md.

    \b
      nightshift init mywork --profile cpu
    """
    made = template.make_workspace(folder, profile)
    out = console()
    out.print(f"[bold]{escape(str(folder.resolve()))}[/] is a workspace (profile {profile}).")
    for name in made.written:
        out.print(f"  wrote {name}")
    if made.committed:
        out.print(f"  committed as {made.committed[:7]}")
    else:
        out.print("  commit these files before you start a run: a run begins at a commit")
    out.print("Next: `python prepare.py` once, then `nightshift start TAG` and `nightshift loop`.")


# ---------------------------------------------------------------- start


@click.command("start")
@click.argument("tag")
@click.option("--from", "from_ref", default="HEAD", show_default=True, help="Commit, branch or tag to start from.")
@click.option("--experiments", type=int, help="End after this many verdicts.")
@click.option("--until", help="End at this time: 08:00 (the next one, here) or a full ISO time.")
@click.option("--usd", type=float, help="End when proposals have cost this much.")
@click.option("--seed", type=int, help="Seed of the run; by default it follows from the tag.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Override a setting for this run only.")
@click.pass_context
@guarded
def start_command(
    ctx: click.Context,
    tag: str,
    from_ref: str,
    experiments: int | None,
    until: str | None,
    usd: float | None,
    seed: int | None,
    sets: tuple[str, ...],
) -> None:
    """Ask for a run called TAG on the branch autoresearch/TAG.

    Everything is checked before anything is asked. If another run is active, this one waits in the queue.

    \b
      nightshift start nov21 --until 08:00 --experiments 100
      nightshift start quick --set experiment.budget_s=30
    """
    home = open_home(ctx)
    zone = local_zone()
    limits = e.Limits(experiments=experiments, until=until_utc(until) if until is not None else None, usd=usd)
    overrides = dict(_override(text) for text in sets)
    requested = e.RunRequested(tag=tag, from_ref=from_ref, zone=zone, limits=limits, overrides=overrides, seed=seed)
    problem = requests.tag_problem(tag) or requests.limits_problem(limits)
    if problem:
        fail(problem)
    _check(home, requested)
    asked = ask(
        home,
        lambda state: requests.start(
            state, tag, zone, from_ref=from_ref, limits=limits, overrides=overrides, seed=seed
        ),
        f"start {tag}",
        tag,
    )
    _tell_started(home, tag, asked)


def _override(text: str) -> tuple[str, Any]:
    """Read `experiment.budget_s=30`: the value as TOML, a bare word as text."""
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise click.BadParameter(f"{text!r}: write KEY=VALUE, such as experiment.budget_s=30", param_hint="--set")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def _check(home: Home, requested: e.RunRequested) -> None:
    """Refuse at once what the loop would refuse later."""
    preflight.check(home.root, Workspace.open(home.root), requested, now())


def _tell_started(home: Home, tag: str, asked: Asked) -> None:
    out = console()
    out.print(f"Asked for the run [bold]{tag}[/] (position {asked.position}).")
    if home.holder() is None:
        out.print("No loop is running: `nightshift loop` serves it.")
        return
    deadline = time.monotonic() + TELL_S
    while time.monotonic() < deadline:
        run = read_state(home).runs[tag]
        if run.refused is not None:
            fail(f"the run {tag} was refused: {run.refused.why}; {run.refused.remedy}")
        if run.started is not None:
            out.print(f"It started on {run.started.branch}: `nightshift status --watch` follows it.")
            return
        time.sleep(0.1)
    out.print("It waits in the queue: `nightshift status` shows what is before it.")


# ---------------------------------------------------------------- loop


@click.command("loop")
@click.option("--until-idle", is_flag=True, help="End when the queue is empty instead of waiting for more.")
@click.option("--check", is_flag=True, help="Only say whether this machine can run experiments.")
@click.option("--json", "as_json", is_flag=True, help="With --check: for programs.")
@click.pass_context
@guarded
def loop_command(ctx: click.Context, until_idle: bool, check: bool, as_json: bool) -> None:
    """Serve the workspace: run what is asked for, until Ctrl-C or SIGTERM.

    One loop serves a workspace at a time. When it ends, in whatever way, the next one goes on where the log
    says; a training that was cut off is run again.

    \b
      nightshift loop                 waits for runs
      nightshift loop --until-idle    ends with the queue
    """
    home = open_home(ctx)
    if check:
        _show_report(asyncio.run(doctor.loop_checks(home, os.environ, try_sandbox=True)), as_json)
    hide()
    with home.hold():
        sys.exit(asyncio.run(serve(home, until_idle=until_idle, out=console())))


def _show_report(found: Report, as_json: bool) -> NoReturn:
    """Print what was checked; exit code 1 if something needs to be done."""
    click.echo(as_json_text(found) if as_json else text(found))
    sys.exit(0 if found.is_ok else 1)


# ---------------------------------------------------------------- up, doctor


@click.command("up")
@click.pass_context
@guarded
def up_command(ctx: click.Context) -> None:
    """Run the loop and the Slack bot beside each other, until Ctrl-C or SIGTERM.

    Each is a process of its own. One that dies is started again, after a pause that grows while it dies young; when
    this ends, both are told to end and waited for. Without tokens in SLACK_BOT_TOKEN and SLACK_APP_TOKEN the loop
    runs alone.

    \b
      nightshift up
    """
    home = open_home(ctx)
    names = ["loop", "bot"] if any(os.environ.get(name) for name in TOKENS) else ["loop"]
    if "bot" not in names:
        click.echo(f"No Slack: neither {TOKENS[0]} nor {TOKENS[1]} is set, so the loop runs alone (docs/slack.md).")
    hide()
    words = _nightshift(home)
    programs = [Program(name, (*words, name), environment_of(name, os.environ)) for name in names]
    sys.exit(asyncio.run(_supervise(Supervisor(programs, home.root, say))))


TOKENS = ("SLACK_BOT_TOKEN", "SLACK_APP_TOKEN")
"""Only whether they are set matters here; the bot reads them."""


def _nightshift(home: Home) -> tuple[str, ...]:
    """The words of this very Nightshift on this workspace, whatever lies in the folder it is started in."""
    return (sys.executable, "-P", "-m", "nightshift", "-C", str(home.root))


async def _supervise(supervisor: Supervisor) -> int:
    events = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        events.add_signal_handler(number, supervisor.stop, number)
    return await supervisor.run()


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
@guarded
def doctor_command(ctx: click.Context, as_json: bool) -> None:
    """Check everything that loop and bot need, and say how to mend what is missing.

    Settings, git, disk, log, interpreter, device, data and keys; tokens, scopes, channels, clock and connection of
    Slack. Nothing is changed, nothing is posted, and no secret is shown. Exit code 1 if something needs to be done.

    \b
      nightshift doctor
      nightshift doctor --json | jq '.checks[] | select(.outcome == "not_ok")'
    """
    home = open_home(ctx)
    _show_report(asyncio.run(doctor.examine(home, os.environ, _nightshift(home))), as_json)


# ---------------------------------------------------------------- train


@click.command("train")
@click.option("--budget", "budget_s", type=float, help="Training time in seconds instead of the setting.")
@click.pass_context
@guarded
def train_command(ctx: click.Context, budget_s: float | None) -> None:
    """Run the experiment's command once, on the files as they are now, and say how it ended.

    Nothing is logged, committed or kept: this is for trying out a workspace by hand.

    \b
      nightshift train --budget 5
    """
    home = open_home(ctx)
    settings = preflight.read_settings(home.root)
    sys.exit(asyncio.run(_train_once(home, settings, budget_s)))


async def _train_once(home: Home, settings: st.Settings, budget_s: float | None) -> int:
    out = console()
    outdir = home.state / "train"
    outdir.mkdir(parents=True, exist_ok=True)
    experiment = settings.experiment
    cache = preflight.find_corpus(home.root) if sealing.is_sealed(settings) else None
    spec = TrainingSpec(
        command=tuple(experiment.command),
        workdir=home.root,
        outdir=outdir,
        mark=f"{home.mark_id}/train/0/{new_id()}",
        budget_s=budget_s or experiment.budget_s,
        timeout_s=max(experiment.timeout_s, budget_s or 0),
        seed=0,
        scoring=scoring_of(settings),
        seal=sealing.seal_of(cache, outdir / "handed" / "1", settings) if cache is not None else None,
    )
    training = await LocalExecutor().start(spec, 0)
    waiting = asyncio.ensure_future(training.wait())
    with out.status("starting") as status:
        while not waiting.done():
            await asyncio.wait({waiting}, timeout=0.25)
            progress = training.progress()
            if progress is not None:
                status.update(escape(progress.text))
    result = await waiting
    if result.outcome != "scored":
        out.print(f"[red]{result.outcome}[/]: {escape(result.why)}")
        out.print(escape(result.tail), style="dim")
        return 1
    score, besides = result.score, ""
    if cache is not None:
        answer = await _score_once(home, settings, cache, outdir)
        if answer.score is None:
            out.print(f"[red]{answer.outcome}[/]: {escape(answer.why)}")
            return 1
        score, besides = answer.score, f" (on the report rows {answer.report_score:.6f})"
        write_block(outdir / LOG_NAME, settings.objective.name, answer.score, result.metrics)
    out.print(f"{settings.objective.name} {score:.6f}{besides} in {result.seconds:.1f} s, log in {outdir}/run.log")
    return 0


async def _score_once(home: Home, settings: st.Settings, cache: Path, outdir: Path) -> Answer:
    """Score what was handed over in the folder of a training by hand."""
    scorer = EvaluatorScorer(sealing.place_of(settings, home, "train", cache, home.root, outdir / "handed"))
    try:
        return await scorer.score(Request(str(outdir / "handed" / "1"), probe=True, report=True, second_opinion=True))
    finally:
        await scorer.close()


# ---------------------------------------------------------------- demo


@click.command("demo")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=Path("demo"))
@click.option("--experiments", type=click.IntRange(1, 1000), default=6, show_default=True)
@click.option("--budget", "budget_s", type=float, default=profiles.DEMO_BUDGET_S, show_default=True,
              help="Seconds of training for each experiment.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--proposer", type=click.Choice(["sweep", "claude"]), default="sweep", show_default=True,
              help="claude asks the API and costs money; it needs ANTHROPIC_API_KEY.")  # fmt: skip
@guarded
def demo_command(folder: Path, experiments: int, budget_s: float, seed: int, proposer: str) -> None:
    """Run a short real research run on the CPU: a workspace, real text, a baseline and a few experiments.

    A small GPT is trained on the source code of Python's standard library. Called again, it adds another run
    to the same folder.

    \b
      nightshift demo
      nightshift demo /tmp/try --experiments 12 --seed 7
      nightshift demo /tmp/try --proposer claude --experiments 3
    """
    sys.exit(demo.run(folder, experiments, budget_s, seed, proposer, console()))
