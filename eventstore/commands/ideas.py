"""idea: suggest what to try, list, withdraw."""

from __future__ import annotations

import sys

import click

from eventstore import requests, views
from eventstore.codec import clean
from eventstore.console import ask, fail, guarded, open_home, open_log, say, show, tell
from eventstore.home import Home
from eventstore.plain import plain, plain_line
from eventstore.projections.ideas import Idea, Ideas
from eventstore.projections.run_state import State
from eventstore.zone import local_zone

SUGGEST = "suggest"
STDIN_MAX_BYTES = 1_000_000
HELP = ("-h", "--help")
NAME_MAX = 80
"""Characters of the name that is credited."""


class WordsOrCommand(click.Group):
    """A group whose words are an idea if the first of them names no command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in HELP:
            args = [SUGGEST, *args]
        elif args[:1] == ["list"] and any(not word.startswith("-") for word in args[1:]):
            ctx.fail("`list` takes no words. An idea that begins with it goes behind `--`: nightshift idea -- list …")
        elif args[:1] == ["withdraw"] and len(args) > 1 and not args[1].lstrip("-").isdigit() and args[1] not in HELP:
            ctx.fail(
                f"`withdraw` takes the number of an idea, not {args[1]!r}. An idea that begins with it goes behind "
                "`--`: nightshift idea -- withdraw …"
            )
        return super().parse_args(ctx, args)


@click.group("idea", cls=WordsOrCommand, subcommand_metavar="TEXT... | list | withdraw N")
def idea_command() -> None:
    """Suggest what to try, in plain words: the next proposal is asked to use the idea, or to say why not.

    Ideas belong to the workspace and are asked for one at a time, the oldest first. A model or an agent reads them,
    a sweep does not. An idea that begins with the word `list`, `suggest` or `withdraw` goes behind `--` or into
    quotes with what follows.

    \b
      nightshift idea "try GeGLU instead of ReLU squared"
      nightshift idea --by Grace warm up for longer
      nightshift idea - < idea.txt
      nightshift idea -- list the norms of all layers, then clip the largest
      nightshift idea list
      nightshift idea withdraw 412
    """


@idea_command.command(SUGGEST)
@click.argument("text", nargs=-1, required=True)
@click.option("--by", metavar="NAME", help="Whom to credit; by default you.")
@click.pass_context
@guarded
def suggest_command(ctx: click.Context, text: tuple[str, ...], by: str | None) -> None:
    """Put the idea TEXT into the queue; `-` reads it from stdin. `nightshift idea TEXT` is short for this.

    \b
      nightshift idea suggest "try GeGLU instead of ReLU squared" --by Grace
    """
    home = open_home(ctx)
    words = _stdin() if text == ("-",) else " ".join(text)
    idea, name = _cleaned(words), _name(by)
    before = State()

    def judge(state: State) -> requests.Answer:
        nonlocal before
        before = state
        return requests.suggest_idea(state, idea, name)

    asked = ask(home, judge, f"idea {plain_line(idea)}")
    tell(home, views.idea_asked(before, asked.position))


def _cleaned(text: str) -> str:
    """Text from a person without what a terminal would obey; its lines stay lines."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return plain(clean(lines, STDIN_MAX_BYTES)).strip()


def _stdin() -> str:
    data = sys.stdin.buffer.read(STDIN_MAX_BYTES + 1)
    if len(data) > STDIN_MAX_BYTES:
        fail(f"stdin has more than {STDIN_MAX_BYTES} bytes: an idea has at most {requests.IDEA_MAX} characters")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        fail(f"stdin is not text in UTF-8 ({error.reason} at byte {error.start}): send it as UTF-8")


def _name(by: str | None) -> str:
    if by is None:
        return ""
    name = clean(plain_line(by), NAME_MAX)
    if not name:
        raise click.BadParameter("it is empty: give a name, or leave it out to be credited yourself", param_hint="--by")
    return name


@idea_command.command("list")
@click.option("--all", "whole", is_flag=True, help="Also those used, declined and withdrawn, with what came of them.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
@guarded
def list_command(ctx: click.Context, whole: bool, as_json: bool) -> None:
    """List the open ideas, oldest first: the order in which they are asked for.

    \b
      nightshift idea list
      nightshift idea list --all --json
    """
    home = open_home(ctx)
    found, state = _ideas(home)
    lines = views.ideas([idea for idea in found if whole or idea.state == "open"], state)
    if as_json:
        click.echo(views.as_json(lines))
        return
    if not lines:
        more = "" if whole or not found else f" ({len(found)} were: `nightshift idea list --all`)"
        say(f"No idea is open{more}: `nightshift idea TEXT` suggests one." if not whole else "There is no idea yet.")
        return
    from eventstore import screens  # noqa: PLC0415 - not for JSON

    show(screens.ideas(lines, local_zone(), with_state=whole))


def _ideas(home: Home) -> tuple[tuple[Idea, ...], State]:
    ideas, state = Ideas(), State()
    if home.log_path.exists():
        with open_log(home) as log:
            for event in log.stream():
                ideas.apply(event)
                state.apply(event)
    return ideas.all(), state


@idea_command.command("withdraw")
@click.argument("number", type=click.IntRange(min=1))
@click.pass_context
@guarded
def withdraw_command(ctx: click.Context, number: int) -> None:
    """Take the open idea NUMBER back, as `nightshift idea list` numbers them.

    \b
      nightshift idea withdraw 412
    """
    home = open_home(ctx)
    late = ""

    def judge(state: State) -> requests.Answer:
        nonlocal late
        late = views.idea_still_asked(state, number)
        return requests.withdraw_idea(state, number)

    asked = ask(home, judge, f"idea withdraw {number}")
    say(views.asked(asked.run, asked.data))
    if late:
        say(late)
