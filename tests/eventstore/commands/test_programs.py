"""`nightshift program`: nobody's words are lost, and nobody's edit overwrites another's unseen."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from eventstore import events as e
from eventstore.envelope import Event
from eventstore.home import Home
from eventstore.requests import text_hash

Nightshift = Callable[..., Result]
Logged = Callable[[], list[Event]]

FIRST = "# Research\n\nMake val_bpb smaller.\n"
SECOND = "# Research\n\nMake val_bpb smaller. Try other optimizers.\n"


def edit(scribe: Any, text: str, base: str) -> None:
    scribe.ask("", e.ProgramEdited(base_hash=text_hash(base), hash=text_hash(text), text=text))


@pytest.fixture
def editor(tmp_path: Path) -> Callable[[str], str]:
    """An editor that runs a shell command on the file, as the value of $EDITOR."""

    def make(command: str) -> str:
        script = tmp_path / "editor.sh"
        script.write_text(f'#!/bin/sh\nfile="$1"\n{command}\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        return str(script)

    return make


def test_show_prints_the_text_in_force_byte_for_byte(nightshift: Nightshift, finished: Any) -> None:
    assert nightshift("program", "show").stdout_bytes == FIRST.encode()
    edit(finished, SECOND, FIRST)
    assert nightshift("program", "show").output == SECOND
    assert nightshift("program", "show", text_hash(FIRST)[:8]).output == FIRST
    assert nightshift("program", "show", "2").output == FIRST


def test_an_unknown_version_and_a_log_without_one_are_refused(nightshift: Nightshift, scribe: Any) -> None:
    assert "the log has no program.md yet" in nightshift("program", "show").stderr
    scribe.start("nov21")
    result = nightshift("program", "show", "abcd1234")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "there is no version 'abcd1234' of program.md: `nightshift program log` lists them" in result.stderr


def test_log_lists_the_versions_newest_first(nightshift: Nightshift, finished: Any) -> None:
    edit(finished, SECOND, FIRST)
    lines = [line.split() for line in nightshift("program", "log").output.splitlines()]
    assert lines[0] == ["position", "hash", "when", "who", "lines", "experiments", "kept"]
    assert (lines[1][1], lines[1][4:]) == (text_hash(SECOND)[:8], ["cli:ada", "3", "0", "0", "in", "force"])
    assert (lines[2][0], lines[2][1]) == ("2", text_hash(FIRST)[:8])
    view = json.loads(nightshift("program", "log", "--json").output)
    assert [version["in_force"] for version in view] == [True, False]


def test_log_counts_what_ran_under_each_version_and_what_is_still_kept(nightshift: Nightshift, finished: Any) -> None:
    edit(finished, SECOND, FIRST)
    finished.start("dec01")
    finished.propose("dec01", 1, "later", e.SetConstants(path="train.py", values={"LR": 1}), program=SECOND)
    finished.prepare("dec01", 1, base="b")
    finished.train("dec01", 1, 1.2)
    finished.decide("dec01", 1, "keep", 1.2, "better")

    def counts() -> list[tuple[int, int]]:
        view = json.loads(nightshift("program", "log", "--json").output)
        return [(version["experiments"], version["kept"]) for version in view]

    assert counts() == [(0, 0), (1, 1), (4, 2)]
    finished.ask("nov21", e.KeepVetoed(experiment=4))
    finished.write(("nov21", e.BranchMoved(experiment=4, from_commit="c" * 40, to_commit="b" * 40, why="veto")))
    assert counts() == [(0, 0), (1, 1), (4, 1)]


def test_diff_shows_the_newest_change_or_that_between_two_versions(nightshift: Nightshift, finished: Any) -> None:
    assert "there is nothing before it" in nightshift("program", "diff").stderr
    edit(finished, SECOND, FIRST)
    first, second = text_hash(FIRST)[:8], text_hash(SECOND)[:8]
    forward = nightshift("program", "diff").output.splitlines()
    assert forward[:2] == [f"--- {first}", f"+++ {second}"]
    assert forward[-2:] == ["-Make val_bpb smaller.", "+Make val_bpb smaller. Try other optimizers."]
    assert nightshift("program", "diff", second, first).output.splitlines()[-1] == "+Make val_bpb smaller."
    assert nightshift("program", "diff", first, first).output == f"{first} and {first} are the same.\n"


def test_the_editor_opens_on_the_newest_text_and_what_is_saved_is_in_force(
    nightshift: Nightshift, finished: Any, logged: Logged, editor: Callable[[str], str]
) -> None:
    result = nightshift(
        "program", "edit", EDITOR=editor('sed -i "s/smaller\\./smaller. Try other optimizers./" "$file"')
    )
    assert result.output.splitlines()[0] == (
        f"program.md is now {text_hash(SECOND)[:8]}, was {text_hash(FIRST)[:8]}; the next proposal follows it."
    )
    last = logged()[-1]
    assert (last.run, last.actor) == ("", "cli:ada")
    assert last.data == e.ProgramEdited(base_hash=text_hash(FIRST), hash=text_hash(SECOND), text=SECOND)


def test_an_editor_that_saves_nothing_changes_nothing(
    nightshift: Nightshift, finished: Any, logged: Logged, editor: Callable[[str], str]
) -> None:
    before = len(logged())
    assert nightshift("program", "edit", EDITOR=editor("true")).output == "Nothing was changed.\n"
    assert len(logged()) == before


def test_a_text_whose_base_was_overtaken_is_refused_and_kept(
    nightshift: Nightshift, finished: Any, home: Home, logged: Logged, tmp_path: Path
) -> None:
    edit(finished, SECOND, FIRST)
    mine = tmp_path / "mine.md"
    mine.write_text("mine\n")
    result = nightshift("program", "edit", "--file", mine, "--base", text_hash(FIRST)[:8])
    assert result.exit_code == 1
    assert "program.md has changed since you read it" in result.stderr
    assert (home.state / "program.draft.md").read_text() == "mine\n"
    assert logged()[-1].data.TYPE == "request.refused"
    first, second = text_hash(FIRST)[:8], text_hash(SECOND)[:8]
    assert result.stdout == ""
    assert result.stderr.startswith(f"--- {first}, which you edited\n+++ {second}, in force now\n")
    assert "\n-Make val_bpb smaller.\n+Make val_bpb smaller. Try other optimizers.\n" in result.stderr
    draft = home.state / "program.draft.md"
    assert f"`nightshift program edit --file {draft} --base {second}`" in result.stderr
    assert nightshift("program", "edit", "--file", draft, "--base", second).exit_code == 0


def test_a_file_without_a_base_follows_the_version_in_force(
    nightshift: Nightshift, finished: Any, logged: Logged, home: Home
) -> None:
    assert nightshift("program", "edit", "--file", "-", stdin=SECOND).exit_code == 0
    assert logged()[-1].data == e.ProgramEdited(base_hash=text_hash(FIRST), hash=text_hash(SECOND), text=SECOND)
    result = nightshift("program", "edit", "--file", "-", stdin=SECOND)
    assert (result.exit_code, result.stderr) == (1, "Error: program.md has this text already\n")
    assert not (home.state / "program.draft.md").exists()


def test_a_file_that_is_not_utf8_or_not_there_is_one_sentence(
    nightshift: Nightshift, finished: Any, tmp_path: Path
) -> None:
    (tmp_path / "latin.md").write_bytes(b"caf\xe9\n")
    assert "latin.md is not text in UTF-8" in nightshift("program", "edit", "--file", tmp_path / "latin.md").stderr
    result = nightshift("program", "edit", "--file", tmp_path / "none.md")
    assert (result.exit_code, result.stderr) == (1, f"Error: {tmp_path}/none.md: No such file or directory\n")


def test_an_edit_before_the_first_run_says_what_the_first_run_does(nightshift: Nightshift, home: Home) -> None:
    result = nightshift("program", "edit", "--file", "-", stdin=FIRST)
    assert result.exit_code == 0
    assert "that one wins" in result.output


def test_pull_writes_the_text_in_force_and_does_nothing_twice(
    nightshift: Nightshift, finished: Any, home: Home
) -> None:
    path = home.root / "program.md"
    assert nightshift("program", "pull").output == f"program.md is now the version in force ({text_hash(FIRST)[:8]}).\n"
    assert path.read_text() == FIRST
    path.chmod(0o640)
    assert "already" in nightshift("program", "pull").output
    edit(finished, SECOND, FIRST)
    assert nightshift("program", "pull").exit_code == 0
    assert path.read_text() == SECOND
    assert path.stat().st_mode & 0o777 == 0o640


def test_pull_never_overwrites_a_text_that_the_log_has_not_seen_unless_forced(
    nightshift: Nightshift, finished: Any, home: Home
) -> None:
    path = home.root / "program.md"
    path.write_text("my own unsaved words\n")
    result = nightshift("program", "pull")
    assert result.exit_code == 1
    assert "has a text that the log has never seen" in result.stderr
    assert path.read_text() == "my own unsaved words\n"
    assert "-Make val_bpb smaller." in nightshift("program", "diff", "--checkout").output
    assert nightshift("program", "pull", "--force").exit_code == 0
    assert path.read_text() == FIRST
    assert not [path for path in home.root.iterdir() if path.suffix == ".partial"]
