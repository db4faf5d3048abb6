"""program show, edit, diff, log, pull."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path

import click

from eventstore import requests, views
from eventstore.console import ask, fail, guarded, open_home, open_log, say, show, tell
from eventstore.files import replace_file
from eventstore.home import Home
from eventstore.plain import plain
from eventstore.projections.program import Program, ProgramVersion, Uses
from eventstore.projections.run_state import State
from eventstore.zone import local_zone

FILE = "program.md"
DRAFT = "program.draft.md"
"""Where in .nightshift a text is kept that was refused, so that nobody's words are lost."""


@click.group("program")
def program_command() -> None:
    """Show, edit, compare and pull program.md, the research instructions.

    The version in force is the newest one in the log. During a run only `program edit` (here or in Slack)
    changes it; what is in the checkout is read when a run starts.

    \b
      nightshift program show
      nightshift program edit
      nightshift program pull
    """


# ---------------------------------------------------------------- looking


@program_command.command("show")
@click.argument("version", required=False)
@click.pass_context
@guarded
def show_command(ctx: click.Context, version: str | None) -> None:
    """Print the text in force, or of VERSION: a position or the beginning of a hash, from `program log`.

    \b
      nightshift program show
      nightshift program show 3f2a91c0
    """
    _print_text(_version(_program(open_home(ctx)), version).text)


@program_command.command("diff")
@click.argument("old", required=False)
@click.argument("new", required=False)
@click.option("--checkout", is_flag=True, help="Compare the text in force with program.md in the checkout.")
@click.pass_context
@guarded
def diff_command(ctx: click.Context, old: str | None, new: str | None, checkout: bool) -> None:
    """Show what changed between two versions; by default between the last two.

    \b
      nightshift program diff                     the newest change
      nightshift program diff 3f2a91c0            from that version to the one in force
      nightshift program diff 3f2a91c0 81d4c3aa
      nightshift program diff --checkout
    """
    home = open_home(ctx)
    program = _program(home)
    if checkout:
        if old is not None:
            raise click.UsageError("--checkout compares with the version in force: name no version beside it")
        before, after = _version(program, None).text, _read(home.root / FILE)
        names = ("in force", FILE)
    else:
        newer = _version(program, new)
        older = _version(program, old) if old is not None else _before(program, newer)
        before, after = older.text, newer.text
        names = (older.hash[:8], newer.hash[:8])
    _print_diff(before, after, names)


@program_command.command("log")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
@guarded
def log_command(ctx: click.Context, as_json: bool) -> None:
    """List the versions, newest first: position in the log, hash, when, who, and what came of each.

    An experiment counts for the version under which it was proposed last, once it has a verdict; it is kept as long
    as it is on its run's branch. Baselines do not count.

    \b
      nightshift program log
    """
    home = open_home(ctx)
    program, uses = _program(home), Uses()
    with open_log(home) as log:
        for event in log.stream():
            uses.apply(event)
    found = views.versions(program.versions, uses.of_versions())
    if as_json:
        click.echo(views.as_json(found))
        return
    from eventstore import screens  # noqa: PLC0415 - not for JSON

    show(screens.versions(found, local_zone()))


# ---------------------------------------------------------------- changing


@program_command.command("edit")
@click.option("--file", "file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), metavar="FILE",
              help="Take the text of FILE (`-` is stdin) instead of opening an editor.")  # fmt: skip
@click.option(
    "--base", metavar="VERSION", help="With --file: the version you edited; refused if it is in force no more."
)
@click.pass_context
@guarded
def edit_command(ctx: click.Context, file: Path | None, base: str | None) -> None:
    """Put a new text in force: opens $EDITOR on the newest one.

    If someone else changed the text while you wrote, yours is refused and kept in .nightshift/program.draft.md, and
    their change is shown as a diff.

    \b
      nightshift program edit
      nightshift program show > p.md; ...; nightshift program edit --file p.md --base 3f2a91c0
    """
    if base is not None and file is None:
        raise click.UsageError("--base goes with --file: without a file, the editor opens the newest version")
    home = open_home(ctx)
    program = _program_or_none(home)
    newest = program.in_force
    if file is not None:
        seen = _version(program, base) if base is not None else newest
        text = _read(file)
    else:
        seen = newest
        edited = click.edit(seen.text if seen is not None else _checkout_text(home), extension=".md")
        if edited is None:
            say("Nothing was changed.")
            return
        text = edited
    _put(home, seen, text)


def _put(home: Home, seen: ProgramVersion | None, text: str) -> None:
    base_hash = seen.hash if seen is not None else ""
    was_overtaken = False

    def judge(state: State) -> requests.Answer:
        nonlocal was_overtaken
        answer = requests.edit_program(state, base_hash, text)
        if isinstance(answer, requests.Refused) and state.program_hash not in (base_hash, requests.text_hash(text)):
            was_overtaken = True
            replace_file(home.state / DRAFT, text.encode())
            return requests.Refused(f"{answer.why} (your text is in {home.state / DRAFT})")
        return answer

    try:
        asked = ask(home, judge, "program edit")
    except click.ClickException:
        if was_overtaken:
            _tell_what_came_between(home, seen)
        raise
    tell(home, views.asked(asked.run, asked.data))
    if seen is None:
        say(f"The next run starts from a commit: if its {FILE} is one that the log has not seen, that one wins, so")
        say(f"`nightshift program pull` and commit {FILE} before you start one.")


def _tell_what_came_between(home: Home, seen: ProgramVersion | None) -> None:
    """Print on stderr what others changed since the version *seen*, and how to put one's own text over it."""
    newest = _version(_program(home), None)
    before, names = ("", "nothing") if seen is None else (seen.text, f"{seen.hash[:8]}, which you edited")
    changed = _diff(before, newest.text, (names, f"{newest.hash[:8]}, in force now"))
    click.echo(plain(changed), err=True)
    command = f"nightshift program edit --file {home.state / DRAFT} --base {newest.hash[:8]}"
    click.echo(f"Once your text has that change: `{command}`", err=True)


@program_command.command("pull")
@click.option("--force", is_flag=True, help="Overwrite a text that the log has never seen.")
@click.pass_context
@guarded
def pull_command(ctx: click.Context, force: bool) -> None:
    """Write the text in force into program.md in the checkout.

    A text there that is one of the log's versions is replaced; one that the log has never seen would be lost,
    so it is refused without --force.

    \b
      nightshift program pull
    """
    home = open_home(ctx)
    program = _program(home)
    newest, path = _version(program, None), home.root / FILE
    if path.exists():
        here = path.read_bytes()
        if here == newest.text.encode():
            say(f"{FILE} is the version in force already ({newest.hash[:8]}).")
            return
        known = {version.text.encode() for version in program.versions}
        if here not in known and not force:
            fail(
                f"{path} has a text that the log has never seen: `nightshift program edit --file {FILE}` puts it in "
                "force, `nightshift program diff --checkout` shows it, `--force` overwrites it"
            )
    replace_file(path, newest.text.encode())
    say(f"{FILE} is now the version in force ({newest.hash[:8]}).")


# ---------------------------------------------------------------- reading


def _program_or_none(home: Home) -> Program:
    program = Program()
    if home.log_path.exists():
        with open_log(home) as log:
            for event in log.stream():
                program.apply(event)
    return program


def _program(home: Home) -> Program:
    program = _program_or_none(home)
    if program.in_force is None:
        fail(f"the log has no {FILE} yet: the first run records the one in the checkout, or `nightshift program edit`")
    return program


def _version(program: Program, name: str | None) -> ProgramVersion:
    newest = program.in_force
    if name is None and newest is not None:
        return newest
    found = views.version_named(program.versions, name or "")
    if isinstance(found, requests.Refused):
        fail(found.why)
    return found


def _before(program: Program, version: ProgramVersion) -> ProgramVersion:
    older = [x for x in program.versions if x.position < version.position]
    if not older:
        fail(f"{version.hash[:8]} is the first version: there is nothing before it to compare with")
    return older[-1]


def _read(file: Path) -> str:
    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        return data.decode()
    except UnicodeDecodeError as error:
        fail(f"{file} is not text in UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8")


def _checkout_text(home: Home) -> str:
    path = home.root / FILE
    return _read(path) if path.exists() else ""


def _print_text(text: str) -> None:
    """As it is for a file or a pipe; on a terminal without what a terminal would obey."""
    if sys.stdout.isatty():
        click.echo(plain(text), nl=not text.endswith("\n"))
    else:
        click.echo(text.encode(), nl=False)  # bytes go out as they are


def _diff(before: str, after: str, names: tuple[str, str]) -> str:
    return "\n".join(difflib.unified_diff(before.splitlines(), after.splitlines(), *names, lineterm=""))


def _print_diff(before: str, after: str, names: tuple[str, str]) -> None:
    text = _diff(before, after, names)
    if not text:
        say(f"{names[0]} and {names[1]} are the same.")
        return
    from eventstore import screens  # noqa: PLC0415 - only where there is something to draw

    show(screens.diff(text))
