"""What people see is a function of the log, and someone else's code can compute it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from eventstore.home import Home
from eventstore.maintenance import export
from eventstore.store import Store
from tests.loop.story import ROOT, git, make_workspace, serve

REPLAY = ROOT / "tests" / "replay_stdlib.py"


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_workspace(tmp_path_factory.mktemp("night") / "workspace")
    assert serve(folder) == 0
    return folder


def replay(source: Path, tag: str) -> bytes:
    command = (sys.executable, "-I", "-S", str(REPLAY), str(source), tag)
    return subprocess.run(command, check=True, capture_output=True).stdout


@pytest.mark.parametrize("tag", ["night", "stopped", "blocked", "until"])
def test_a_script_without_our_code_gives_the_same_results(night: Path, tmp_path: Path, tag: str) -> None:
    """From the database and from the export, byte for byte what the loop wrote."""
    home = Home(night)
    written = home.results_path(tag).read_bytes()
    exported = tmp_path / "events.jsonl"
    with Store.open(home.log_path) as log, exported.open("w", encoding="utf-8") as out:
        export(log, out)
    assert replay(home.log_path, tag) == written
    assert replay(exported, tag) == written


def test_the_independent_script_is_short_and_imports_only_the_standard_library() -> None:
    text = REPLAY.read_text()
    assert len(text.splitlines()) <= 80
    imports = [line.split()[1].partition(".")[0] for line in text.splitlines() if line.startswith(("import", "from"))]
    assert set(imports) <= {"__future__", *sys.stdlib_module_names}


@pytest.mark.parametrize("tag", ["night", "blocked"])
def test_the_kept_rows_are_the_commits_of_the_branch(night: Path, tag: str) -> None:
    """The person of the story moved the branch of `night` after its end; git still knows where the loop left it."""
    rows = [line.split("\t") for line in Home(night).results_path(tag).read_text().splitlines()[1:]]
    kept = [row[0] for row in rows[1:] if row[3] == "keep"]
    tip = f"{kept[-1]}" if tag == "night" else f"autoresearch/{tag}"
    commits = git(night, "rev-list", "--reverse", f"main..{tip}").split()
    assert [commit[:7] for commit in commits] == kept
