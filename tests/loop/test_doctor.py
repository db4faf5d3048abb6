"""`loop --check` and `doctor`: what is missing is named with its remedy, and no secret is shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from eventstore.checks import Report, not_ok, note, ok, read_report, report, text
from eventstore.home import Home
from eventstore.views import as_json
from loop.doctor import examine, loop_checks

ROOT = Path(__file__).parents[2]
GIT = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
SETTINGS = (
    '[objective]\nname = "cost"\ndirection = "minimize"\neditable = ["model.py"]\n'
    '[experiment]\ncommand = ["python", "model.py"]\nbudget_s = 5\ntimeout_s = 10\n'
    "[sweep]\nX = { low = 0, high = 8 }\n"
)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "model.py").write_text("X = 1\nprint(f'cost: {X}')\n")
    (tmp_path / "nightshift.toml").write_text(SETTINGS)
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-q", "-m", "a program")
    return tmp_path


def git(folder: Path, *args: str) -> None:
    command = ("git", "-c", "user.name=A", "-c", "user.email=a@example.org", *args)
    subprocess.run(command, cwd=folder, env={**os.environ, **GIT}, check=True, capture_output=True)


async def outcomes(folder: Path, environ: Mapping[str, str] | None = None) -> dict[str, tuple[str, str, str]]:
    found = await loop_checks(Home.at(folder), environ or {})
    return {check.what: (check.outcome, check.found, check.fix) for check in found.checks}


async def test_a_good_workspace_is_all_good(workspace: Path) -> None:
    found = await loop_checks(Home.at(workspace), {})
    assert found.is_ok
    names = {check.what for check in found.checks}
    assert {"python", "settings", "git", "files", "disk", "log", "loop", "network cut"} <= names


async def test_a_broken_setting_is_named_with_its_remedy(workspace: Path) -> None:
    (workspace / "nightshift.toml").write_text(SETTINGS.replace("budget_s = 5", "budget_s = -5"))
    outcome, found, fix = (await outcomes(workspace))["settings"]
    assert outcome == "not_ok" and "experiment.budget_s" in found and fix


async def test_what_is_not_committed_is_named(workspace: Path) -> None:
    (workspace / "nightshift.toml").write_text(SETTINGS.replace("model.py", "other.py", 1))
    outcome, found, _ = (await outcomes(workspace))["files"]
    assert outcome == "not_ok" and "other.py" in found


async def test_a_folder_without_git_is_one_line_and_the_rest_goes_on(tmp_path: Path) -> None:
    (tmp_path / "nightshift.toml").write_text(SETTINGS)
    found = await outcomes(tmp_path)
    assert found["git"][0] == "not_ok" and found["disk"][0] == "ok"


async def test_a_missing_key_for_claude_is_named_and_a_present_one_is_not_shown(workspace: Path) -> None:
    (workspace / "nightshift.toml").write_text(SETTINGS + '[proposer]\nkind = "claude"\n')
    assert (await outcomes(workspace))["claude: key"][0] == "not_ok"
    found = await loop_checks(Home.at(workspace), {"ANTHROPIC_API_KEY": "sk-secret-1234"})
    assert "claude: key" in as_json(found) or "claude: price" in as_json(found)
    assert "sk-secret" not in as_json(found) + text(found)


async def test_data_that_is_not_prepared_is_named_with_the_command(workspace: Path) -> None:
    said = "prepare.py: no prepared corpus: run `python prepare.py` first"
    (workspace / "prepare.py").write_text(f"def current_cache():\n    raise SystemExit({said!r})\n")
    outcome, found, fix = (await outcomes(workspace))["data"]
    assert (outcome, found) == ("not_ok", said) and "python prepare.py" in fix


async def test_both_answers_are_joined_and_a_program_that_breaks_is_a_line(workspace: Path) -> None:
    """Small programs stand in for loop and bot; each sees only its own secrets."""
    child = workspace / "child.py"
    child.write_text(
        "import json, os, sys\n"
        "print('a warning before it')\n"
        "if sys.argv[1] == 'bot': raise SystemExit('it broke')\n"
        "seen = sorted(n for n in os.environ if n.endswith(('_TOKEN', '_KEY')))\n"
        "check = {'what': 'seen', 'outcome': 'ok', 'found': ' '.join(seen)}\n"
        "print(json.dumps({'is_ok': True, 'checks': [check]}, indent=2))\n"
    )
    environ = {**os.environ, "SLACK_BOT_TOKEN": "xoxb-1", "ANTHROPIC_API_KEY": "sk-1"}
    found = await examine(Home.at(workspace), environ, (sys.executable, str(child)))
    assert not found.is_ok
    assert [(check.what, check.outcome) for check in found.checks] == [("seen", "ok"), ("bot", "not_ok")]
    assert "SLACK" not in found.checks[0].found and "ANTHROPIC_API_KEY" in found.checks[0].found
    assert "it broke" in found.checks[1].found


def test_the_command_prints_what_programs_read(workspace: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SLACK_")}
    command = (sys.executable, "-m", "nightshift", "-C", str(workspace), "doctor", "--json")
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)
    found = json.loads(done.stdout)
    assert found["is_ok"] is True and done.returncode == 0, done.stdout
    assert {"python", "slack"} <= {check["what"] for check in found["checks"]}


def test_a_report_is_found_behind_other_output_and_only_there() -> None:
    made = report([ok("a", "fine"), note("b", "could be better"), not_ok("c", "broken", "mend it")])
    assert read_report(f"DeprecationWarning: x\n{{not json\n{as_json(made)}") == made
    assert read_report("nothing of the kind") is None
    assert not made.is_ok and Report(is_ok=True, checks=()).is_ok
    assert "NOT OK" in text(made) and "-> mend it" in text(made) and "1 of 3 need something done." in text(made)
