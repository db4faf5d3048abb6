"""Two at once: two bots of one workspace, two workspaces with the same tokens, two people with opposite wishes."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bot.checkup import examine
from bot.sandbox.clock import LoopClock
from bot.sandbox.methods import HISTORY, SCOPES
from bot.sandbox.model import Posted
from bot.sandbox.server import Sandbox
from eventstore import events as e
from eventstore.envelope import NewEvent, format_at
from eventstore.home import Home
from eventstore.store import Store
from tests.bot.serving import SETTINGS, append, around, logged, serving, started, workspace

ROOT = Path(__file__).parents[2]
PATIENCE_S = 90.0


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return workspace(tmp_path)


def slack_at_work(**settings: object) -> Sandbox:
    scopes = SCOPES | HISTORY | {"files:read"}
    return Sandbox(**{"clock": LoopClock(time.time()), "scopes": scopes} | settings)  # type: ignore[arg-type]


def texts(posts: Iterable[Posted]) -> str:
    return "\n".join(post.text for post in posts)


# ---------------------------------------------------------------- bots


def with_a_digest_due(home: Home) -> None:
    """Make a digest due since a minute: the bot has served before, and something happened."""
    now = datetime.now(UTC)
    hour = f"{now - timedelta(minutes=1):%H:%M}"
    home.settings_path.write_text(SETTINGS.replace('at = "off"', f'at = "{hour}"\nzone = "UTC"'))
    earlier = format_at(now - timedelta(hours=2))
    told: tuple[e.Data, ...] = (
        *started(),
        e.PostRequested(key="run/nov21@1", channel="C1", kind="parent"),
        e.PostFailed(key="run/nov21@1", why="refused"),
    )
    with Store.open(home.log_path) as log:
        log.append([NewEvent(f"earlier-{n}", "nov21", earlier, "loop@box", data) for n, data in enumerate(told)])


async def start_bot(home: Home, slack: Sandbox, *args: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "nightshift", "-C", str(home.root), "bot", *args),
        cwd=ROOT,
        env={
            "PATH": "",
            "SLACK_BOT_TOKEN": slack.bot_token,
            "SLACK_APP_TOKEN": slack.app_token,
            "SLACK_API_URL": slack.base_url,
        },
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_of_two_bots_started_at_once_one_serves_and_the_other_says_who(home: Home) -> None:
    with_a_digest_due(home)
    async with slack_at_work() as slack:
        bots = await asyncio.gather(*(start_bot(home, slack) for _ in range(2)))
        ended = [asyncio.create_task(bot.communicate()) for bot in bots]
        try:
            await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED, timeout=PATIENCE_S)
            loser = next(index for index, task in enumerate(ended) if task.done())
            said = ended[loser].result()[1].decode()
            assert bots[loser].returncode == 1 and len(said.strip().splitlines()) == 1, said
            assert f"another bot already serves this workspace (pid {bots[1 - loser].pid} on " in said
            posted = lambda: [post for post in slack.messages("C1") if "Nightshift digest" in post.text]  # noqa: E731
            await slack.until(posted, timeout_s=PATIENCE_S)
            once = await start_bot(home, slack, "--once", "digest")
            assert "another bot already serves" in (await once.communicate())[1].decode() and once.returncode == 1
        finally:
            for bot in bots:
                if bot.returncode is None:
                    bot.terminate()
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.gather(*ended)
        assert len(posted()) == 1
    requested = [event.data.key for event in logged(home, e.PostRequested) if isinstance(event.data, e.PostRequested)]
    assert len(requested) == len(set(requested))


async def test_two_workspaces_with_the_same_tokens_are_told(
    home: Home, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "other").mkdir()
    other = workspace(tmp_path / "other")
    with caplog.at_level(logging.WARNING, "bot.app"):
        async with slack_at_work() as slack, serving(around(home, slack), slack):
            assert "connections" not in caplog.text
            async with serving(around(other, slack), slack):
                await slack.until(lambda: "Slack counts 2 connections with these tokens" in caplog.text)


async def test_a_check_counts_the_connections_that_are_not_of_this_workspace(home: Home) -> None:
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        made = around(home, slack)
        for bots, outcome, says in ((1, "ok", "a ping came back"), (0, "note", "Slack counts 1 more connection")):
            found = await examine(made.settings, made.tokens, made.base_url, made.now(), bots=bots)
            (check,) = (check for check in found.checks if check.what == "slack: connection")
            assert check.outcome == outcome and says in check.found


# ---------------------------------------------------------------- people


def paused() -> list[e.Data]:
    return [*started(), e.RunPauseRequested(), e.RunPaused(why="asked to pause")]


@pytest.mark.parametrize("first", ["stop", "resume"])
async def test_of_stop_and_resume_at_once_the_log_decides_and_both_are_told(home: Home, first: str) -> None:
    append(home, "nov21", *paused())
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        await slack.until(lambda: slack.messages("C1"))
        (parent,) = slack.messages("C1")
        people = {"stop": "U1", "resume": "U2"}
        order = sorted(people, key=lambda name: name != first)
        clicks = await asyncio.gather(*(slack.click(parent.ts, name, user=people[name]) for name in order))
        seen = dict(zip(order, clicks, strict=True))
        (stop,) = logged(home, e.RunStopRequested)
        resumes = logged(home, e.RunResumeRequested)
        await slack.until(lambda: "nov21 is to end" in texts(seen["stop"].posts))
        if resumes:  # it came first: the run went on and was to end, in this order
            assert resumes[0].position < stop.position and not logged(home, e.RequestRefused)
            await slack.until(lambda: "nov21 is to go on" in texts(seen["resume"].posts))
        else:
            (refused,) = logged(home, e.RequestRefused)
            assert refused.position > stop.position and refused.actor == "slack:T1/U2"
            await slack.until(lambda: "nov21 is stopping already" in texts(seen["resume"].ephemerals))
