"""`nightshift bot` as a program: what it checks, what it says, and what it never says."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path

import pytest

from bot.sandbox.clock import LoopClock
from bot.sandbox.methods import SCOPES
from bot.sandbox.server import Sandbox
from eventstore import events as e
from eventstore.home import Home
from tests.bot.serving import SETTINGS, append, logged, started, workspace

ROOT = Path(__file__).parents[2]
PATIENCE_S = 90.0
"""What a program that takes a second may take on a machine that is busy with other tests."""
ALL = SCOPES | {"channels:history", "groups:history", "channels:read", "groups:read"}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return workspace(tmp_path)


def environ(slack: Sandbox | None = None, **more: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SLACK_")}
    if slack is None:
        return clean | more
    own = {"SLACK_BOT_TOKEN": slack.bot_token, "SLACK_APP_TOKEN": slack.app_token, "SLACK_API_URL": slack.base_url}
    return clean | own | more


async def bot(home: Home, *args: str, env: dict[str, str]) -> tuple[int, str, str]:
    """Run the command to its end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "nightshift", "-C", str(home.root), "bot", *args),
        cwd=ROOT,
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE_S):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def checked(home: Home, env: dict[str, str]) -> dict[str, tuple[str, str, str]]:
    _, out, _ = await bot(home, "--check", "--json", env=env)
    return {check["what"]: (check["outcome"], check["found"], check["fix"]) for check in json.loads(out)["checks"]}


def slack_at_work(**settings: object) -> Sandbox:
    return Sandbox(**{"clock": LoopClock(time.time()), "scopes": ALL} | settings)  # type: ignore[arg-type]


# ---------------------------------------------------------------- starting


async def test_without_a_token_it_says_which_and_where_to_get_it(home: Home) -> None:
    code, _, err = await bot(home, env=environ())
    assert code == 1 and "SLACK_BOT_TOKEN is not set" in err and "OAuth & Permissions" in err
    assert len(err.strip().splitlines()) == 1


async def test_tokens_in_each_others_place_are_told_apart_and_not_shown(home: Home) -> None:
    env = environ(SLACK_BOT_TOKEN="xapp-1-secret", SLACK_APP_TOKEN="xoxb-2-secret")
    code, out, err = await bot(home, env=env)
    assert code == 1 and "begins with xapp-" in err and "secret" not in out + err


async def test_without_a_channel_it_says_so(home: Home) -> None:
    home.settings_path.write_text(SETTINGS.replace('channel = "C1"\n', ""))
    code, _, err = await bot(home, env=environ())
    assert code == 1 and "slack.channel" in err


async def test_a_revoked_token_is_one_sentence_with_the_remedy(home: Home) -> None:
    async with slack_at_work() as slack:
        code, out, err = await bot(home, env=environ(slack, SLACK_BOT_TOKEN="xoxb-revoked-1"))
    assert code == 1 and "invalid_auth" in err and "revoked-1" not in out + err


async def test_it_serves_until_it_is_told_to_end_and_says_no_token(home: Home) -> None:
    async with slack_at_work() as slack:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "nightshift", "-C", str(home.root), "bot", "--verbose"),
            cwd=ROOT,
            env=environ(slack),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        await slack.connected(timeout_s=PATIENCE_S)
        seen = await slack.command("/nightshift", "start nov21", user="U1")
        assert seen.acked and len(logged(home, e.RunRequested)) == 1
        process.terminate()
        async with asyncio.timeout(PATIENCE_S):
            said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()
        assert slack.bot_token not in said.decode() and slack.app_token not in said.decode()
        assert "serving C1 in the workspace" in said.decode()


# ---------------------------------------------------------------- checking


async def test_a_good_set_up_is_all_good(home: Home) -> None:
    async with slack_at_work() as slack:
        code, out, _ = await bot(home, "--check", env=environ(slack))
        assert code == 0 and "NOT OK" not in out, out
        for word in ("hello and a ping came back", "the bot is in #research", "history scopes", "clock"):
            assert word in out
        assert slack.bot_token not in out and slack.app_token not in out
        assert not slack.messages("C1"), "a check posts nothing"


async def test_nothing_set_up_is_one_note(home: Home) -> None:
    home.settings_path.write_text(SETTINGS.partition("[slack]")[0])
    code, out, _ = await bot(home, "--check", env=environ())
    assert code == 0 and out.count("note") == 1


async def test_missing_scopes_are_named(home: Home) -> None:
    async with slack_at_work(scopes={"commands", "chat:write"}) as slack:
        found = await checked(home, environ(slack))
    assert found["slack: scopes"][:2] == ("not_ok", "missing: files:write, users:read")
    assert found["slack: history scopes"][0] == "note" and "may repeat" in found["slack: history scopes"][1]
    assert found["slack: channel C1"][0] == "note"


@pytest.mark.parametrize(("channel", "says"), [("C2", "not in #random"), ("C3", "archived"), ("C9", "not found")])
async def test_a_channel_that_cannot_be_posted_to_is_named(home: Home, channel: str, says: str) -> None:
    home.settings_path.write_text(SETTINGS.replace('"C1"', f'"{channel}"'))
    async with slack_at_work() as slack:
        outcome, found, fix = (await checked(home, environ(slack)))[f"slack: channel {channel}"]
    assert outcome == "not_ok" and says in found and fix


async def test_slack_that_cannot_be_reached_is_told(home: Home) -> None:
    async with slack_at_work() as slack:
        env = environ(slack)
    found = await checked(home, env)
    assert found["slack: sign-in"][0] == "not_ok" and "cannot be reached" in found["slack: sign-in"][1]
    assert found["slack: connection"][0] == "not_ok"


# ---------------------------------------------------------------- trying


async def test_a_digest_can_be_looked_at_without_slack(home: Home, tmp_path: Path) -> None:
    append(home, "nov21", *started())
    page = tmp_path / "digest.html"
    code, out, err = await bot(home, "--once", "digest", "--dry-run", "--html", str(page), env=environ())
    assert code == 0, err
    head = json.loads(out)[0]
    assert "Nightshift digest" in head["text"] and head["blocks"]
    assert "Nightshift digest" in page.read_text() and not logged(home, e.PostRequested)


async def test_one_digest_is_posted_and_the_program_ends(home: Home) -> None:
    append(home, "nov21", *started())
    async with slack_at_work() as slack:
        code, _, err = await bot(home, "--once", "digest", env=environ(slack))
        assert code == 0, err
        assert any("Nightshift digest" in post.text for post in slack.messages("C1"))
    assert {event.data.kind for event in logged(home, e.PostRequested) if isinstance(event.data, e.PostRequested)} >= {
        "digest"
    }


async def test_a_newcomer_tries_the_bot_in_a_terminal(home: Home) -> None:
    home.settings_path.write_text(SETTINGS.partition("[slack]")[0])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "nightshift", "-C", str(home.root), "bot", "--sandbox-workspace"),
        cwd=ROOT,
        env=environ(PYTHONUNBUFFERED="1"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    stdin, stdout = process.stdin, process.stdout
    assert stdin is not None and stdout is not None
    so_far = ""
    async with asyncio.timeout(PATIENCE_S):
        for typed, shown in (
            ("", "Type help"),
            ("/nightshift start nov21", "Asked for the run nov21"),
            ("as cleo", "You are cleo"),
            ("/nightshift stop", "takes the role"),
            (f"page {home.root / 'seen.html'}", "wrote"),
        ):
            stdin.write(f"{typed}\n".encode())
            line = ""
            while shown.lower() not in line.lower():
                line = (await stdout.readline()).decode()
                so_far += line
                assert line, f"{shown!r} was never shown, only {so_far}"
        stdin.write(b"quit\n")
        stdin.close()
        await stdout.read()
        assert await process.wait() == 0
    assert [event.run for event in logged(home, e.RunRequested)] == ["nov21"]
    seen = (home.root / "seen.html").read_text()
    assert "Asked for the run nov21" in seen and "takes the role" in seen


async def test_a_bot_that_cannot_begin_in_a_terminal_says_why(home: Home) -> None:
    home.settings_path.write_text(SETTINGS.partition("[slack]")[0])
    home.state.mkdir()
    home.log_path.write_bytes(b"not a log of events" * 500)
    code, out, err = await bot(home, "--sandbox-workspace", env=environ())
    assert code == 1 and "events.db" in err and "Traceback" not in err and "Type help" not in out


async def test_a_workspace_with_a_real_slack_is_not_tried_in_a_terminal(home: Home) -> None:
    code, _, err = await bot(home, "--sandbox-workspace", env=environ())
    assert code == 1 and "slack.channel" in err and not home.log_path.exists()


@pytest.mark.parametrize("args", [("--dry-run",), ("--once", "digest", "--html", "x.html"), ("--once", "weather")])
async def test_options_that_make_no_sense_are_wrong_usage(home: Home, args: tuple[str, ...]) -> None:
    code, _, err = await bot(home, *args, env=environ())
    assert code == 2 and "Error:" in err
