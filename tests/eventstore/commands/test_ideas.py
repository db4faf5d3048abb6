"""`nightshift idea`: people's words reach the proposer, and say what became of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstore import events as e
from eventstore.envelope import Event
from eventstore.home import Home
from eventstore.maintenance import verify
from nightshift import main

Nightshift = Callable[..., Result]
Logged = Callable[[], list[Event]]

NO_LOOP = "No loop is running: `nightshift loop` starts one, which then reads this.\n"


def test_words_that_name_no_command_are_an_idea(nightshift: Nightshift, home: Home, logged: Logged) -> None:
    result = nightshift("idea", "try", "GeGLU")
    promise = "Idea 1 is in the queue: the next proposal is asked to use it or to say why not.\n"
    assert (result.exit_code, result.output) == (0, promise + NO_LOOP)
    last = logged()[-1]
    assert (last.run, last.actor, last.data) == ("", "cli:ada", e.IdeaSuggested(text="try GeGLU"))


@pytest.mark.parametrize(
    ("arguments", "stdin", "text", "by"),
    [
        (("--by", "Grace", "clip", "it"), None, "clip it", "Grace"),
        (("clip it", "--by", "Grace\nHopper"), None, "clip it", "Grace Hopper"),
        (("suggest", "clip it"), None, "clip it", ""),
        (("--", "list", "the norms"), None, "list the norms", ""),
        (("--", "withdraw the dropout"), None, "withdraw the dropout", ""),
        (("list the norms",), None, "list the norms", ""),
        (("-",), "two\r\nlines\n", "two\nlines", ""),
        (("red \x1b[31mtext\x1b[0m\x07",), None, "red text", ""),
        (("half a pair \udcff",), None, "half a pair \ufffd", ""),
    ],
)
def test_an_idea_may_come_in_many_ways(
    nightshift: Nightshift, logged: Logged, arguments: tuple[str, ...], stdin: str | None, text: str, by: str
) -> None:
    assert nightshift("idea", *arguments, stdin=stdin).exit_code == 0
    assert logged()[-1].data == e.IdeaSuggested(text=text, by=by)


def test_a_run_that_sweeps_does_not_read_ideas_and_this_is_said(nightshift: Nightshift, scribe: Any) -> None:
    scribe.start("nov21", kind="sweep")
    output = nightshift("idea", "try GeGLU").output
    assert "nov21 proposes with sweep and a sweep does not read ideas" in output
    assert "waits for a run whose proposer.kind is claude or agent" in output


def test_an_idea_knows_how_many_wait_before_it(nightshift: Nightshift, agent: Any, home: Home) -> None:
    with home.hold():
        assert "the next proposal after the one that waits before it is asked" in nightshift("idea", "a").output
        assert "the next proposal after the 2 that wait before it is asked" in nightshift("idea", "b").output


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("",), "the idea is empty: say what to try"),
        (("\x1b[31m\x07",), "the idea is empty: say what to try"),
        (("x" * 2_001,), "the idea is 2001 characters long, at most 2000 are allowed"),
        (("clip the gradients",), "this idea is in the queue already"),
        (("withdraw", "1"), "there is no open idea 1: `nightshift idea list` shows them"),
    ],
)
def test_a_refused_idea_is_recorded_and_told(
    nightshift: Nightshift, agent: Any, logged: Logged, arguments: tuple[str, ...], why: str
) -> None:
    result = nightshift("idea", *arguments)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"Error: {why}\n")
    last = logged()[-1].data
    assert isinstance(last, e.RequestRefused)
    assert last.why == why and last.what.startswith("idea")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("list", "of", "norms"), "An idea that begins with it goes behind `--`: nightshift idea -- list"),
        (("withdraw", "the", "dropout"), "`withdraw` takes the number of an idea, not 'the'"),
        (("withdraw", "0"), "0 is not in the range x>=1"),
        (("withdraw",), "Missing argument 'NUMBER'"),
        (("clip it", "--by", " "), "give a name"),
        (("--loud", "clip it"), "No such option"),
    ],
)
def test_words_that_cannot_be_meant_are_wrong_usage(
    nightshift: Nightshift, home: Home, arguments: tuple[str, ...], hint: str
) -> None:
    result = nightshift("idea", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert hint in result.stderr
    assert not home.state.exists()


def test_bytes_that_are_no_text_are_refused(nightshift: Nightshift, home: Home) -> None:
    result = CliRunner().invoke(main, ["-C", str(home.root), "idea", "-"], input=b"caf\xe9")
    assert result.exit_code == 1
    assert "stdin is not text in UTF-8" in result.stderr
    huge = CliRunner().invoke(main, ["-C", str(home.root), "idea", "-"], input=b"x" * 1_000_001)
    assert huge.exit_code == 1 and "more than 1000000 bytes" in huge.stderr


# ---------------------------------------------------------------- list, withdraw


def test_the_list_has_the_open_ideas_oldest_first(nightshift: Nightshift, agent: Any) -> None:
    nightshift("idea", "warm up\nlonger", "--by", "Lin")
    lines = [line.split(maxsplit=1) for line in nightshift("idea", "list").output.splitlines()]
    assert lines[0] == ["idea", "by       when                 text"]
    assert [line[0] for line in lines[1:]] == ["2", "45"]
    assert lines[1][1].endswith("clip the gradients") and lines[1][1].startswith("cli:ada")
    assert lines[2][1].endswith("warm up longer") and lines[2][1].startswith("Lin")


def test_the_whole_list_says_what_came_of_each(nightshift: Nightshift, agent: Any) -> None:
    agent.write(("feb01", e.IdeaDeclined(idea=2, experiment=4, why="1 does it")))
    agent.ask("", e.IdeaSuggested(text="more layers"))
    assert nightshift("idea", "withdraw", 46).exit_code == 0
    ends = [line.split("  ")[-1].strip() for line in nightshift("idea", "list", "--all").output.splitlines()[1:]]
    assert ends == ["used in 1 of feb01: keep", "declined in 4 of feb01: 1 does it", "withdrawn"]
    view = json.loads(nightshift("idea", "list", "--all", "--json").output)
    assert view[0] == {
        "position": 1, "by": "Grace", "at": view[0]["at"], "text": "try GeGLU", "state": "used", "run": "feb01",
        "experiment": 1, "verdict": "keep",
    }  # fmt: skip
    assert json.loads(nightshift("idea", "list", "--json").output) == []


def test_a_keep_that_was_taken_back_is_no_keep_of_its_idea(nightshift: Nightshift, agent: Any) -> None:
    agent.ask("feb01", e.KeepVetoed(experiment=1))
    agent.write(("feb01", e.BranchMoved(experiment=1, from_commit="c" * 40, to_commit="b" * 40, why="veto")))
    assert "used in 1 of feb01: discard" in nightshift("idea", "list", "--all").output


def test_an_empty_list_says_how_to_fill_it_and_makes_no_log(nightshift: Nightshift, home: Home) -> None:
    assert nightshift("idea", "list").output == "No idea is open: `nightshift idea TEXT` suggests one.\n"
    assert nightshift("idea", "list", "--all").output == "There is no idea yet.\n"
    assert nightshift("idea", "list", "--json").output == "[]\n"
    assert not home.state.exists()


def test_an_idea_is_taken_back_by_its_number(nightshift: Nightshift, agent: Any, logged: Logged) -> None:
    result = nightshift("idea", "withdraw", 2)
    assert (result.exit_code, result.output) == (0, "Withdrawn: idea 2 will not be asked for any more.\n")
    assert logged()[-1].data == e.IdeaWithdrawn(idea=2)


def test_an_idea_that_is_being_thought_about_may_still_be_used(nightshift: Nightshift, agent: Any) -> None:
    agent.ask_for("feb01", 5, "claude", idea=2)
    output = nightshift("idea", "withdraw", 2).output
    assert output.endswith("Experiment 5 of feb01 was asked to use it already, and may still do so.\n")


# ---------------------------------------------------------------- any words


@given(words=st.text(st.characters(), max_size=80), by=st.text(st.characters(), max_size=20))
@settings(deadline=None, max_examples=60)
def test_an_idea_of_any_kind_breaks_neither_the_terminal_nor_the_log(
    tmp_path_factory: pytest.TempPathFactory, words: str, by: str
) -> None:
    root = _workspace(tmp_path_factory)
    home = Home(root)
    arguments = ["-C", str(root), "idea", "--by", by, "--", words]
    given = CliRunner().invoke(main, arguments, catch_exceptions=False, env={"LOGNAME": "ada", "TZ": "UTC"})
    assert given.exit_code in (0, 1, 2)
    for more in ((), ("--all",), ("--json",)):
        listed = CliRunner().invoke(main, ["-C", str(root), "idea", "list", *more], env={"TZ": "UTC"})
        assert listed.exit_code == 0
        output = given.output + listed.stdout_bytes.decode()
        assert not [char for char in output if char != "\n" and (ord(char) < 32 or 127 <= ord(char) < 160)]
        assert not set("\u202e\u2066\u200f") & set(output)
    if home.log_path.exists():
        verify(home.log_path)


def _workspace(factory: pytest.TempPathFactory) -> Path:
    """One for all examples: an idea is refused while another like it is open, which is part of the test."""
    root = factory.getbasetemp() / "any-words"
    root.mkdir(exist_ok=True)
    (root / "nightshift.toml").touch()
    return root
