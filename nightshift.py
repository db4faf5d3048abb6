"""The `nightshift` command: it names the subcommands and imports none of them until it is called."""

from __future__ import annotations

import importlib
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from eventstore.envelope import Head

COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("loop.cli", "Make a workspace: a git repository with train.py, prepare.py, program.md and settings."),
    "demo": ("loop.cli", "Run a short real research run on the CPU, from nothing to a picture."),
    "loop": ("loop.cli", "Serve the workspace: run what is asked for, until stopped."),
    "bot": ("bot.cli", "Serve Slack: take commands, post what happens, send the digest."),
    "up": ("loop.cli", "Run the loop and the Slack bot beside each other, and restart either."),
    "doctor": ("loop.cli", "Check everything that loop and bot need, and say how to mend it."),
    "train": ("loop.cli", "Run the experiment's command once on the files as they are, and say how it ended."),
    "start": ("loop.cli", "Ask for a run."),
    "pause": ("eventstore.cli", "Hold the active run after the experiment in hand, or now."),
    "resume": ("eventstore.cli", "Let a paused run go on."),
    "stop": ("eventstore.cli", "End a run after the experiment in hand, or now."),
    "budget": ("eventstore.cli", "Change a limit of a run: experiments, time or money."),
    "status": ("eventstore.cli", "Show what is going on."),
    "results": ("eventstore.cli", "Print results.tsv from the log, compare it, or draw it."),
    "digest": ("eventstore.cli", "Tell what came of the night, as the team reads it in the morning."),
    "experiment": ("eventstore.cli", "Look at experiments; approve, reject, take back or repeat one."),
    "idea": ("eventstore.cli", "Suggest what to try, list what was suggested, take an idea back."),
    "program": ("eventstore.cli", "Show, edit, compare and pull program.md, the research instructions."),
    "log": ("eventstore.cli", "Read, check, export, back up and restore the event log."),
}
"""Each subcommand, where it lives, and the one sentence that `nightshift --help` shows."""

GROUPS = (
    ("Begin", ("init", "demo", "doctor", "start", "up", "loop", "bot", "train")),
    ("Watch", ("status", "results", "digest", "experiment", "log")),
    ("Steer", ("pause", "resume", "stop", "budget", "idea", "program")),
)


class Lazy(click.Group):
    """A group that imports a command's module only when that command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(COMMANDS[cmd_name][0]), f"{cmd_name}_command")
        if not isinstance(command, click.Command):
            raise TypeError(f"{cmd_name} is not a command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, names in GROUPS:
            with formatter.section(title):
                formatter.write_dl([(name, COMMANDS[name][1]) for name in names])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, without importing the commands to find the nearest name of a mistyped one."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = get_close_matches(args[0], COMMANDS, 1)
            hint = f" Did you mean {near[0]}?" if near else " `nightshift --help` lists the commands."
            ctx.fail(f"There is no command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="nightshift")
@click.option(
    "-C",
    "--workspace",
    type=click.Path(file_okay=False),
    envvar="NIGHTSHIFT_WORKSPACE",
    help="The workspace; by default the folder you are in, or the nearest one above that is one.",
)
@click.pass_context
def main(ctx: click.Context, workspace: str | None) -> None:
    """Nightshift runs experiments all night and keeps what works.

    A loop proposes a change to one file, runs it for a fixed time, scores it, and keeps the change on a git
    branch if the score got better. Everything that happens is an event in one log, .nightshift/events.db;
    results.tsv, status and pictures are computed from it.

    A first night:

    \b
      nightshift init mywork && cd mywork   make a workspace
      python prepare.py                     get the data ready, once
      nightshift start nov21                ask for a run
      nightshift loop                       serve it, in a terminal that stays open
      nightshift status                     look, from another terminal
    """
    ctx.obj = workspace
    ctx.meta["eventstore.commits"] = commits_of  # `log check` is below the door of git


def commits_of(root: Path) -> list[tuple[str, Head]] | None:
    """The heads of the log that commits in the repository at *root* name; None where there is no repository."""
    from loop.errors import GitFailed, WorkspaceError  # noqa: PLC0415 - only for `log check`
    from loop.workspace import Workspace  # noqa: PLC0415

    try:
        return Workspace.open(root).log_heads()
    except GitFailed as error:
        raise click.ClickException(str(error)) from error
    except WorkspaceError:
        return None


if __name__ == "__main__":
    sys.exit(main())
