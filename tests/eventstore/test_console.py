"""Asking: judged on the newest state, again if someone came between, and never half."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest

from eventstore import events as e
from eventstore import requests
from eventstore.console import TRIES, ask, ask_all, fail, guarded, new_id, now, tell, who
from eventstore.envelope import Event, NewEvent, format_at
from eventstore.errors import LogCorrupt
from eventstore.home import Home
from eventstore.projections.run_state import State
from eventstore.store import Store


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "nightshift.toml").write_text("")
    return Home(tmp_path)


def someone_appends(home: Home) -> None:
    trouble = e.TroubleNoticed(kind="disk", what="full", since="2026-11-21T08:00:00.000000Z")
    with Store.open(home.log_path) as log:
        log.append([NewEvent(new_id(), "", format_at(now()), "loop@box", trouble)])


def logged(home: Home) -> list[Event]:
    with Store.open(home.log_path) as log:
        return list(log.stream())


def start(tag: str) -> Callable[[State], requests.Answer]:
    return lambda state: requests.start(state, tag, "UTC")


def test_a_request_is_appended_and_its_position_returned(home: Home) -> None:
    someone_appends(home)
    asked = ask(home, start("nov21"), "start nov21")
    assert (asked.position, asked.run) == (2, "nov21")
    event = logged(home)[-1]
    assert (event.actor, event.cause, event.data) == (who(), None, asked.data)


def test_a_request_is_judged_again_on_what_came_between(home: Home) -> None:
    judged: list[int] = []

    def judge(state: State) -> requests.Answer:
        judged.append(state.position)
        if len(judged) <= 2:
            someone_appends(home)
        return requests.start(state, "nov21", "UTC")

    assert ask(home, judge, "start nov21").position == 3
    assert judged == [0, 1, 2]


def test_a_request_that_became_impossible_in_between_is_refused(home: Home) -> None:
    def judge(state: State) -> requests.Answer:
        if state.position == 0:
            ask(home, start("nov21"), "start nov21")
        return requests.start(state, "nov21", "UTC")

    with pytest.raises(click.ClickException, match=re.escape("the run nov21 exists (queued)")):
        ask(home, judge, "start nov21", "nov21")
    assert [(event.type, event.run) for event in logged(home)] == [
        ("run.requested", "nov21"),
        ("request.refused", "nov21"),
    ]


def test_asking_ends_where_someone_always_comes_between(home: Home) -> None:
    def judge(state: State) -> requests.Answer:
        someone_appends(home)
        return requests.start(state, "nov21", "UTC")

    with pytest.raises(click.ClickException, match="try again"):
        ask(home, judge, "start nov21")
    assert [event.type for event in logged(home)] == ["trouble.noticed"] * TRIES


def test_of_several_requests_none_is_asked_if_one_is_refused(home: Home) -> None:
    with pytest.raises(click.ClickException, match="is not a name"):
        ask_all(home, lambda state: (start("good")(state), start("b ad")(state)), "start both")
    assert [event.type for event in logged(home)] == ["request.refused"]


def test_a_refusal_belongs_to_the_run_that_was_meant_if_there_is_one(home: Home) -> None:
    ask(home, start("nov21"), "start nov21")
    for tag, run in (("nov21", "nov21"), ("nov22", ""), ("", ""), (None, "")):
        with pytest.raises(click.ClickException):
            ask(home, lambda _: requests.Refused("no"), "pause", tag)
        assert logged(home)[-1].run == run


def test_asking_needs_no_loop_but_says_that_there_is_none(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    tell(home, "Asked.")
    assert capsys.readouterr().out.splitlines()[1].startswith("No loop is running: `nightshift loop`")
    with home.hold():
        tell(home, "Asked.")
    assert capsys.readouterr().out == "Asked.\n"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (LogCorrupt(7, "the row is missing"), "the log does not hold at position 7: the row is missing"),
        (FileNotFoundError(2, "No such file or directory", "a.md"), "a.md: No such file or directory"),
        (PermissionError(13, "Permission denied", b"a.md"), "a.md: Permission denied"),
    ],
)
def test_errors_of_the_log_and_of_files_become_one_sentence_and_exit_code_1(error: Exception, sentence: str) -> None:
    @guarded
    def command() -> None:
        raise error

    with pytest.raises(click.ClickException) as told:
        command()
    assert told.value.exit_code == 1
    assert told.value.message.startswith(sentence)


def test_other_errors_pass_as_they_are() -> None:
    @guarded
    def command(error: Exception) -> None:
        raise error

    for error in (BrokenPipeError(32, "Broken pipe"), KeyError("x"), click.UsageError("wrong")):
        with pytest.raises(type(error)) as told:
            command(error)
        assert told.value is error


def test_a_failure_is_one_line_without_control_characters() -> None:
    with pytest.raises(click.ClickException) as told:
        fail("no run 'a\x1b[2Jb'\nhere")
    assert told.value.message == "no run 'ab' here"


def test_the_asker_is_named_also_without_a_name_in_the_system() -> None:
    assert re.fullmatch(r"cli:\S+", who())


def test_ids_are_unique_and_the_clock_knows_its_zone() -> None:
    assert len({new_id() for _ in range(100)}) == 100
    assert now().tzinfo is UTC
    assert abs((datetime.now(UTC) - now()).total_seconds()) < 5
