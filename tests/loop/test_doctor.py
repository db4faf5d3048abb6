"""`loop --check` and `doctor`: what is missing is named with its remedy, and no secret is shown."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from bot.sandbox.clock import LoopClock
from bot.sandbox.methods import HISTORY, SCOPES
from bot.sandbox.server import Sandbox
from eventstore.checks import Report, not_ok, note, ok, read_report, report, text
from eventstore.home import Home
from eventstore.views import as_json
from loop.doctor import examine, loop_checks
from trainer.process import machine
from trainer.sandbox.selftest import CASES

ROOT = Path(__file__).parents[2]
GIT = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
SETTINGS = (
    '[objective]\nname = "cost"\ndirection = "minimize"\neditable = ["model.py"]\n'
    '[experiment]\ncommand = ["python", "model.py"]\nbudget_s = 5\ntimeout_s = 10\n'
    "[sweep]\nX = { low = 0, high = 8 }\n"
)
SLACK = '[slack]\nchannel = "C1"\nadmins = ["U1"]\n'
ALL = SCOPES | HISTORY | {"files:read", "channels:read", "groups:read"}


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


async def test_the_sandbox_is_tried_and_each_attempt_is_a_line(workspace: Path) -> None:
    runs = workspace / ".nightshift" / "runs"
    runs.mkdir(parents=True)
    (runs / "log").write_text("x")
    found = await loop_checks(Home.at(workspace), {}, try_sandbox=True)
    tried = {check.what: check for check in found.checks if check.what.startswith("sandbox: ")}
    if machine().bwrap:
        assert {check.outcome for check in tried.values()} == {"ok"}, tried
    assert len(tried) == len(CASES) + 2 and {"sandbox: read the checkout", "sandbox: a fork bomb"} <= set(tried)


async def test_a_sandbox_that_is_off_is_said_and_not_tried(workspace: Path) -> None:
    (workspace / "nightshift.toml").write_text(SETTINGS + '[sandbox]\nmode = "off"\n')
    found = await loop_checks(Home.at(workspace), {}, try_sandbox=True)
    said = [check for check in found.checks if check.what.startswith("sandbox")]
    assert [check.found for check in said] == ["none (sandbox.mode = 'off')"]


async def test_what_is_not_committed_is_named(workspace: Path) -> None:
    (workspace / "nightshift.toml").write_text(SETTINGS.replace("model.py", "other.py", 1))
    outcome, found, _ = (await outcomes(workspace))["files"]
    assert outcome == "not_ok" and "other.py" in found


async def test_a_folder_without_git_is_one_line_and_the_rest_goes_on(tmp_path: Path) -> None:
    (tmp_path / "nightshift.toml").write_text(SETTINGS)
    found = await outcomes(tmp_path)
    assert found["git"][0] == "not_ok" and "git init" in found["git"][1] and found["disk"][0] == "ok"


async def test_a_key_for_claude_is_not_shown(workspace: Path) -> None:
    (workspace / "nightshift.toml").write_text(SETTINGS + '[proposer]\nkind = "claude"\n')
    found = await loop_checks(Home.at(workspace), {"ANTHROPIC_API_KEY": "sk-secret-1234"})
    assert {check.what: check.outcome for check in found.checks}["claude: key"] == "ok"
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


# ---------------------------------------------------------------- the command


async def doctor(folder: Path, *args: str, **environ: str) -> tuple[int, str]:
    """Run `nightshift doctor`: its exit code and what it printed."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("SLACK_", "ANTHROPIC_"))}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "nightshift", "-C", str(folder), "doctor", *args),
        cwd=ROOT,
        env=own | environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(60):
        said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


def slack_of(slack: Sandbox) -> dict[str, str]:
    return {
        "SLACK_BOT_TOKEN": slack.bot_token,
        "SLACK_APP_TOKEN": slack.app_token,
        "SLACK_API_URL": slack.base_url,
    }


def at_work(scopes: frozenset[str] = ALL) -> Sandbox:
    return Sandbox(clock=LoopClock(time.time()), scopes=scopes)


async def test_a_good_machine_is_all_good_for_people(workspace: Path) -> None:
    (workspace / "nightshift.toml").write_text(SETTINGS + SLACK)
    async with at_work() as slack:
        code, said = await doctor(workspace, **slack_of(slack))
        assert slack.bot_token not in said and slack.app_token not in said
    assert code == 0 and said.rstrip().endswith("All good.") and "NOT OK" not in said, said
    for words in ("settings ", "the bot is in #research", "hello and a ping came back", "as Slack's"):
        assert words in said


async def test_what_is_wrong_with_loop_and_slack_is_in_one_report_for_programs(workspace: Path) -> None:
    settings = SETTINGS + SLACK.replace("C1", "C2") + '[proposer]\nkind = "claude"\n'
    (workspace / "nightshift.toml").write_text(settings)
    async with at_work(SCOPES - {"files:write"} | {"channels:read"}) as slack:
        code, said = await doctor(workspace, "--json", **slack_of(slack))
    found = {check["what"]: check for check in json.loads(said)["checks"]}
    wrong = {what for what, check in found.items() if check["outcome"] == "not_ok"}
    assert code == 1 and wrong == {"claude: key", "slack: scopes", "slack: channel C2"}
    assert all(found[what]["fix"] for what in wrong)


async def test_settings_that_are_broken_are_said_once(workspace: Path) -> None:
    (workspace / "nightshift.toml").write_text(SETTINGS.replace("budget_s = 5", "budget_s = -5"))
    code, said = await doctor(workspace)
    assert code == 1 and said.count("experiment.budget_s: got -5") == 1, said
    assert "-> mend the setting" in said and said.splitlines()[-1].startswith("1 of ")


async def test_without_git_and_with_tokens_in_each_others_place_each_is_told_apart(workspace: Path) -> None:
    (workspace / "nightshift.toml").write_text(SETTINGS + SLACK)
    async with at_work() as slack:
        swapped = slack_of(slack) | {"SLACK_BOT_TOKEN": slack.app_token, "SLACK_APP_TOKEN": slack.bot_token}
        code, said = await doctor(workspace, "--json", PATH="/nonexistent", **swapped)
        assert not slack.calls and slack.bot_token not in said and slack.app_token not in said
    found = {check["what"]: check for check in json.loads(said)["checks"]}
    wrong = {what for what, check in found.items() if check["outcome"] == "not_ok"}
    assert code == 1 and wrong == {"git", "slack: bot token", "slack: app token"}
    assert found["git"]["fix"] == "install git"
    assert found["slack: bot token"]["found"] == "SLACK_BOT_TOKEN holds a token that begins with xapp-"


def test_a_report_is_found_behind_other_output_and_only_there() -> None:
    made = report([ok("a", "fine"), note("b", "could be better"), not_ok("c", "broken", "mend it")])
    assert read_report(f"DeprecationWarning: x\n{{not json\n{as_json(made)}") == made
    assert read_report("nothing of the kind") is None
    assert not made.is_ok and Report(is_ok=True, checks=()).is_ok
    assert "NOT OK" in text(made) and "-> mend it" in text(made) and "1 of 3 need something done." in text(made)
