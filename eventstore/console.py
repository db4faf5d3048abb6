"""What the command lines share: the clock, ids, the asker, the workspace, asking, and how errors are told.

`eventstore.cli` and `loop.cli` are composition roots; the clock and the randomness they pass on are made
here and nowhere else in the two packages.
"""

from __future__ import annotations

import functools
import getpass
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, ParamSpec, TypeVar

import click

from eventstore import codec
from eventstore.envelope import NewEvent, format_at
from eventstore.errors import EventstoreError, PositionConflict, SettingsError
from eventstore.events import Data, RequestRefused
from eventstore.home import Home
from eventstore.ids import time_ordered_id
from eventstore.plain import plain, plain_line
from eventstore.projections.run_state import State
from eventstore.requests import Accepted, Answer, Refused
from eventstore.store import Store
from eventstore.zone import local_zone

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

P = ParamSpec("P")
R = TypeVar("R")

TRIES = 20
"""How often a request is judged again because someone appended in between."""

PIPE_WIDTH = 10_000
"""Columns where there is no terminal, so that a table keeps each row on one line and cuts nothing."""


# ---------------------------------------------------------------- clock, ids, names


def now() -> datetime:
    """The time, aware, in UTC."""
    return datetime.now(UTC)  # noqa: TID251 - the one clock of both command lines


def new_id() -> str:
    """An id for an event."""
    return time_ordered_id(now(), os.urandom(10))


def who() -> str:
    """The actor of what is asked at this terminal, `cli:<user>`."""
    try:
        user = getpass.getuser()
    except (ImportError, KeyError, OSError):  # a container's user without a name
        user = f"uid{os.getuid()}"
    return f"cli:{''.join(char for char in user if char.isprintable())}"


# ---------------------------------------------------------------- telling


def fail(sentence: str) -> NoReturn:
    """End the command with *sentence* on stderr and exit code 1."""
    raise click.ClickException(plain_line(sentence))


def say(text: str) -> None:
    """Print text that may come from outside, as it would be on a terminal that obeys nothing."""
    click.echo(plain(text))


def console() -> Console:
    """A console on stdout: colours on a terminal, plain text of any width elsewhere."""
    from rich.console import Console  # noqa: PLC0415 - not for commands that print one sentence

    found = Console(highlight=False, emoji=False)
    return found if found.is_terminal else Console(highlight=False, emoji=False, color_system=None, width=PIPE_WIDTH)


def show(*parts: RenderableType) -> None:
    """Print what `screens` drew; without a terminal, lines do not end in spaces."""
    out = console()
    if out.is_terminal:
        out.print(*parts, sep="\n")
        return
    with out.capture() as drawn:
        out.print(*parts, sep="\n")
    click.echo("\n".join(line.rstrip() for line in drawn.get().splitlines()))


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """Let *command* end with one sentence and exit code 1 where the log, a file or the disk is not as needed."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except EventstoreError as error:
            fail(str(error))
        except OSError as error:
            if error.filename is None or error.strerror is None:  # a closed pipe: click knows what to do
                raise
            fail(f"{os.fsdecode(error.filename)}: {error.strerror}")

    return run


# ---------------------------------------------------------------- workspace and log


def open_home(ctx: click.Context) -> Home:
    """The workspace that `-C` names, else the one that the current folder is in. Raises `NoWorkspace`."""
    option: str | None = ctx.find_root().obj
    return Home.find(Path.cwd()) if option is None else Home.at(Path(option))


def open_log(home: Home) -> Store:
    """The log, to be read; use it in a `with`. Raises what `Store.open` raises; `NotALog` if there is none yet."""
    return Store.open(home.log_path, create=False, check=False)


def read_state(home: Home) -> State:
    """The state of the workspace as the log tells it, empty where there is no log yet."""
    if not home.log_path.exists():
        return State()
    with open_log(home) as log:
        return State.of(log.stream())


# ---------------------------------------------------------------- asking


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that stands in the log, at *position*."""

    position: int
    run: str
    data: Data


def ask(home: Home, judge: Callable[[State], Answer], what: str, tag: str | None = "") -> Asked:
    """
    Ask for one thing: fold the state, judge, and append if nobody came between, else judge again.

    A refusal is appended too, as `request.refused`, and ends the command with its sentence.

    Args:
        judge: One of `requests`, bound to what was asked.
        what: The request in words, such as `pause nov21`, for the record of a refusal.
        tag: The run that a refusal belongs to: None for the active or else the newest one, empty for none.
    """
    return ask_all(home, lambda state: (judge(state),), what, tag)[0]


def ask_all(home: Home, judge: Callable[[State], Sequence[Answer]], what: str, tag: str | None = "") -> list[Asked]:
    """Ask for several things at once: all are appended, or, if one is refused, none."""
    actor = who()
    with Store.open(home.log_path) as log:
        state = State()
        for _ in range(TRIES):
            for event in log.stream(state.position):
                state.apply(event)
            accepted: list[Accepted] = []
            for answer in judge(state):
                if isinstance(answer, Refused):
                    _refuse(log, _run_meant(state, tag), actor, what, answer.why)
                accepted.append(answer)
            try:
                positions = log.append([_event(a.run, a.data, actor) for a in accepted], expected=state.position)
            except PositionConflict:
                continue
            return [Asked(at, a.run, a.data) for at, a in zip(positions, accepted, strict=True)]
    fail(f"something was appended to the log each of {TRIES} times that {what!r} was asked: try again")


def _run_meant(state: State, tag: str | None) -> str:
    run = state.runs.get(tag) if tag is not None else state.active or state.newest
    return run.tag if run is not None else ""


def _refuse(log: Store, run: str, actor: str, what: str, why: str) -> NoReturn:
    refused = RequestRefused(who=actor, what=codec.clean(plain_line(what), 200), why=plain_line(why))
    log.append([_event(run, refused, actor)])
    fail(why)


def _event(run: str, data: Data, actor: str) -> NewEvent:
    return NewEvent(new_id(), run, format_at(now()), actor, data)


def tell(home: Home, sentence: str) -> None:
    """Print what was asked for and, while nobody serves the workspace, what will read it."""
    say(sentence)
    if home.holder() is None:
        say("No loop is running: `nightshift loop` starts one, which then reads this.")


def until_utc(text: str) -> str:
    """Read an `--until`, a time of day here or a full time, as the log writes times. Wrong usage if it is neither."""
    from eventstore.settings import resolve_until  # noqa: PLC0415 - only for this option

    try:
        return format_at(resolve_until(text, local_zone(), now()))
    except SettingsError as error:
        raise click.BadParameter(
            f"{text!r} is not a time: write the next time of day here as 08:00, or a full one as "
            "2026-11-22T08:00+01:00",
            param_hint="--until",
        ) from error
