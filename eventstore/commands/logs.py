"""log tail, verify, check, export, backup, restore, path."""

from __future__ import annotations

import asyncio
import io
import sys
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click
import msgspec

from eventstore import maintenance, views
from eventstore.console import console, fail, guarded, now, open_home, open_log, say
from eventstore.files import replacing
from eventstore.home import Home
from eventstore.log import Row
from eventstore.store import Store
from eventstore.zone import local_zone

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventstore.envelope import Head

TAIL = 20

COMMITS = "eventstore.commits"
"""The key in click's `meta` of who asks git: from a folder to the heads that its commits name, see `recovery.check`."""


@click.group("log")
def log_command() -> None:
    """Read, check, export, back up and restore the event log.

    Everything that happened is one row in .nightshift/events.db; everything shown elsewhere is computed from it.

    \b
      nightshift log tail --follow
      nightshift log check
      nightshift log backup ~/backups/nov21.db
    """


@log_command.command("path")
@click.pass_context
@guarded
def path_command(ctx: click.Context) -> None:
    """Print where the log is.

    \b
      sqlite3 "$(nightshift log path)" "SELECT type, count(*) FROM events GROUP BY type"
    """
    click.echo(open_home(ctx).log_path)


# ---------------------------------------------------------------- tail


@log_command.command("tail")
@click.option("-n", "--lines", type=click.IntRange(min=0), default=TAIL, show_default=True, help="The last events.")
@click.option("--follow", "-f", is_flag=True, help="Stay, and print what comes until Ctrl-C.")
@click.option(
    "--json", "as_json", is_flag=True, help="Whole rows, one JSON object a line, in the form of `log export`."
)
@click.option("--type", "prefix", default="", metavar="PREFIX", help="Only types that begin like this: experiment.")
@click.pass_context
@guarded
def tail_command(ctx: click.Context, lines: int, follow: bool, as_json: bool, prefix: str) -> None:
    """Print the last events, one a line, long texts cut.

    \b
      nightshift log tail -n 50 --type experiment.
      nightshift log tail --follow --json | jq .type
    """
    home = open_home(ctx)
    write = _writer(as_json)
    with open_log(home) as log:
        # Without a filter the last rows are found by their position, with one every row must be looked at.
        start = max(log.head().position - lines, 0) if not prefix else 0
        found: deque[Row] = deque(maxlen=lines)
        after = start
        for row in log.rows(start):
            after = row.position
            if row.type.startswith(prefix):
                found.append(row)
        write(found)
        if follow:
            with suppress(KeyboardInterrupt):  # the way to end it
                asyncio.run(_follow(home, log, after, prefix, write))


def _writer(as_json: bool) -> Callable[[Iterable[Row]], None]:
    if as_json:

        def write(rows: Iterable[Row]) -> None:
            for row in rows:
                click.echo(views.row_json(row))

        return write
    from eventstore import screens  # noqa: PLC0415 - not for JSON

    out, zone = console(), local_zone()

    def draw(rows: Iterable[Row]) -> None:
        for row in rows:
            out.print(screens.row_line(row, zone), soft_wrap=True)

    return draw


async def _follow(home: Home, log: Store, after: int, prefix: str, write: Callable[[Iterable[Row]], None]) -> None:
    from eventstore.follow import Bell  # noqa: PLC0415 - only here

    async with Bell(home.bells) as bell:
        while True:
            rows = list(log.rows(after))
            if rows:
                after = rows[-1].position
                write(row for row in rows if row.type.startswith(prefix))
            else:
                await bell.wait()


# ---------------------------------------------------------------- verify, check


@log_command.command("verify")
@click.pass_context
@guarded
def verify_command(ctx: click.Context) -> None:
    """Recompute the chain of the whole log. Exit code 1 names the first position that does not hold.

    \b
      nightshift log verify
    """
    head = maintenance.verify(open_home(ctx).log_path)
    say(f"The log holds: {head.position} events, the last one has the chain {head.chain.hex()}.")


@log_command.command("check")
@click.option("--json", "as_json", is_flag=True, help="A list of objects with what, holds and says.")
@click.pass_context
@guarded
def check_command(ctx: click.Context, as_json: bool) -> None:
    """Check the log and all that was computed from it. Exit code 1 if anything does not hold.

    Each question gets its own answer: SQLite's integrity check, the table and its triggers, the chain, the
    witness file, the commits that name a position of the log, whether every event decodes, and whether every
    results.tsv is what the log gives. Changes nothing, and may run beside a working loop.

    \b
      nightshift log check
    """
    from eventstore import recovery  # noqa: PLC0415 - only here

    home = open_home(ctx)
    findings = recovery.check(home, _commits(ctx, home))
    if as_json:
        click.echo(msgspec.json.encode(findings).decode())
    else:
        width = max(len(finding.what) for finding in findings)
        for finding in findings:
            say(f"{'ok ' if finding.holds else 'BAD'} {finding.what:<{width}}  {finding.says}")
    if not all(finding.holds for finding in findings):
        ctx.exit(1)


def _commits(ctx: click.Context, home: Home) -> list[tuple[str, Head]] | None:
    ask: Callable[[Path], list[tuple[str, Head]] | None] | None = ctx.meta.get(COMMITS)
    return None if ask is None else ask(home.root)


# ---------------------------------------------------------------- export, backup, restore


@log_command.command("export")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@click.pass_context
@guarded
def export_command(ctx: click.Context, file: Path, force: bool) -> None:
    """Write the whole log to FILE as JSON lines, or to stdout if FILE is `-`.

    \b
      nightshift log export nov21.jsonl
      nightshift log export - | gzip > nov21.jsonl.gz
    """
    log = open_home(ctx).log_path
    if str(file) == "-":
        _export(log, sys.stdout.buffer)
        return
    if file.exists() and not force:
        fail(f"{file} exists: name a new file, or replace it with --force")
    with replacing(file) as out:
        count = _export(log, out)
    say(f"Exported {count} events to {file}.")


def _export(log: Path, out: BinaryIO) -> int:
    text = io.TextIOWrapper(out, encoding="utf-8", newline="\n")
    try:
        return maintenance.export(log, text)
    finally:
        text.detach()  # writes what is left and leaves *out* open


@log_command.command("backup")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.pass_context
@guarded
def backup_command(ctx: click.Context, file: Path) -> None:
    """Copy the log to the new FILE and check the copy. Works while a loop writes.

    \b
      nightshift log backup ~/backups/nov21.db
    """
    head = maintenance.backup(open_home(ctx).log_path, file)
    say(f"Backed up {head.position} events to {file}, and the copy holds.")


@log_command.command("restore")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.pass_context
@guarded
def restore_command(ctx: click.Context, file: Path) -> None:
    """Put the backup FILE in the place of the log, and write every results.tsv anew.

    Stop the loop and the bot first. FILE is checked before anything is touched, and stays where it is. What it
    replaces is kept in .nightshift/set-aside/. Commits of experiments that FILE does not know stay in git;
    `nightshift log check` names them.

    \b
      nightshift log restore ~/backups/nov21.db
    """
    from eventstore import recovery  # noqa: PLC0415 - only here

    home = open_home(ctx)
    done = recovery.restore(home, file, now().strftime("%Y%m%dT%H%M%SZ"))
    say(f"Restored {done.head.position} events from {file}; {len(done.tables)} results.tsv were written anew.")
    if done.aside is not None:
        say(f"What was there before is in {done.aside}.")
    if done.orphans:
        say(f"The restored log does not know of {', '.join(done.orphans)}: their tables are there as well.")
