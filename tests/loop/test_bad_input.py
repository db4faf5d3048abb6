"""Bad input gets one clear sentence; nothing is started, nothing is half made."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from eventstore.home import Home
from eventstore.store import Store
from tests.loop.story import git

SETTINGS = """\
[objective]
name = "cost"
direction = "minimize"
editable = ["model.py"]
protected = ["judge.py"]
[experiment]
command = ["python", "model.py"]
budget_s = 5
timeout_s = 10
[sweep]
X = { low = 0.0, high = 1.0 }
"""


def nightshift(folder: Path, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "nightshift", "-C", str(folder), *args)
    environ = {**os.environ, **variables}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environ, check=False)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    (folder / "model.py").write_text("X = 0.5\nprint('cost:', X)\n")
    (folder / "judge.py").write_text("")
    (folder / "nightshift.toml").write_text(SETTINGS)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "start")
    return folder


def replaced(old: str, new: str) -> Callable[[Path], None]:
    """Change the settings; the sentence must come without a commit, since they are read from the folder."""

    def change(folder: Path) -> None:
        text = (folder / "nightshift.toml").read_text()
        assert old in text
        (folder / "nightshift.toml").write_text(text.replace(old, new))

    return change


def removed(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        git(folder, "rm", "-q", name)
        git(folder, "commit", "-q", "-m", "without it")

    return change


def elsewhere(folder: Path) -> None:
    """The branch of the tag exists and points at another commit than the start."""
    git(folder, "commit", "-q", "--allow-empty", "-m", "later")
    git(folder, "branch", "autoresearch/night", "HEAD~1")


def without_git(folder: Path) -> None:
    subprocess.run(("rm", "-rf", str(folder / ".git")), check=True)


def without_commit(folder: Path) -> None:
    without_git(folder)
    git(folder, "init", "-q", "-b", "main")


BAD = [
    ("unknown key", replaced("budget_s", "buget_s"), "night", ["experiment.buget_s", "budget_s"]),
    ("wrong type", replaced("budget_s = 5", 'budget_s = "5"'), "night", ["experiment.budget_s", "'5'", "number"]),
    ("impossible value", replaced("budget_s = 5", "budget_s = -5"), "night", ["experiment.budget_s", "-5"]),
    ("not TOML", replaced("[sweep]", "[sweep"), "night", ["nightshift.toml", "line"]),
    ("command not found", replaced('"python"', '"pythn9"'), "night", ["experiment.command", "pythn9", "not found"]),
    ("protected file not in git", removed("judge.py"), "night", ["judge.py", "not in the commit"]),
    ("editable file not in git", removed("model.py"), "night", ["model.py", "objective.editable"]),
    ("overlap", replaced('["judge.py"]', '["*.py"]'), "night", ["model.py", "editable", "protected"]),
    ("no such constant", replaced("X =", "Y ="), "night", ["sweep.Y", "model.py"]),
    ("not built", replaced("[sweep]", '[verdict]\nrule = "confirm"\n\n[sweep]'), "night", ["confirm", "not built"]),
    ("sealed", replaced('name = "cost"', 'name = "cost"\nscore = "sealed"'), "night", ["sealed", "prepare.py"]),
    ("tag with spaces", lambda _folder: None, "two words", ["'two words'", "letters"]),
    ("tag that is a path", lambda _folder: None, "../up", ["'../up'", "letters"]),
    ("branch elsewhere", elsewhere, "night", ["autoresearch/night", "choose another tag"]),
    ("no git", without_git, "night", ["not a git repository", "git init"]),
    ("empty repository", without_commit, "night", ["no commit yet", "git commit"]),
]


@pytest.mark.parametrize(("change", "tag", "words"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_start_refuses_in_one_sentence_and_asks_for_nothing(
    workspace: Path, change: Callable[[Path], None], tag: str, words: list[str]
) -> None:
    change(workspace)
    done = nightshift(workspace, "start", tag)
    assert done.returncode == 1, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and "Traceback" not in done.stderr, done.stderr
    assert all(word in lines[0] for word in words), lines[0]
    log = Home(workspace).log_path
    if log.exists():
        with Store.open(log) as store:
            assert not [event for event in store.stream() if event.type == "run.requested"]
    if (workspace / ".git").exists():
        refs = git(workspace, "for-each-ref", "--format=%(refname)").split()
        assert not [ref for ref in refs if ref.startswith("refs/nightshift")]


def test_a_folder_that_is_no_workspace_is_told_how_to_become_one(tmp_path: Path) -> None:
    done = nightshift(tmp_path, "status")
    assert done.returncode == 1 and "nightshift init" in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_tag_is_used_once(workspace: Path) -> None:
    assert nightshift(workspace, "start", "night").returncode == 0
    again = nightshift(workspace, "start", "night")
    assert again.returncode == 1 and "choose another tag" in again.stderr


def test_an_unknown_override_is_refused(workspace: Path) -> None:
    done = nightshift(workspace, "start", "night", "--set", "experiment.budget=3")
    assert done.returncode == 1 and "experiment.budget" in done.stderr


def test_a_full_disk_is_refused_before_anything_starts(workspace: Path) -> None:
    from loop import preflight

    with pytest.raises(preflight.Refusal, match="512 MB are needed"):
        preflight.check_disk(workspace, free_mb=3.0)


def test_a_second_loop_is_refused_and_names_the_first(workspace: Path) -> None:
    with Home(workspace).hold():
        done = nightshift(workspace, "loop", "--until-idle")
    assert done.returncode == 1 and f"pid {os.getpid()}" in done.stderr and "another loop" in done.stderr


@pytest.mark.parametrize("command", [("status",), ("loop", "--until-idle"), ("log", "verify")])
def test_a_corrupted_log_is_refused_with_the_reason(workspace: Path, command: tuple[str, ...]) -> None:
    assert nightshift(workspace, "start", "night").returncode == 0
    Home(workspace).log_path.write_bytes(b"this is no database, though it is long enough to look like one" * 100)
    done = nightshift(workspace, *command)
    assert done.returncode == 1 and "events.db" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [("status",), ("loop", "--until-idle"), ("start", "second")])
def test_a_log_from_a_newer_version_is_refused(workspace: Path, command: tuple[str, ...]) -> None:
    assert nightshift(workspace, "start", "night").returncode == 0
    set_version(Home(workspace).log_path, 99)
    done = nightshift(workspace, *command)
    assert done.returncode == 1 and "99" in done.stderr and "newer" in done.stderr


def set_version(path: Path, version: int) -> None:
    import sqlite3

    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("mine\n")
    done = nightshift(tmp_path, "init", str(tmp_path))
    assert done.returncode == 1 and "train.py" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["train.py"] and (
        tmp_path / "train.py"
    ).read_text() == "mine\n"
