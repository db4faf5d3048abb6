"""The morning's digest over ends and starts of the whole bot: once, late if need be, not where it was turned off."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bot.sandbox.clock import ManualClock
from bot.sandbox.methods import HISTORY, SCOPES
from bot.sandbox.model import Posted
from bot.sandbox.server import Sandbox
from eventstore import events as e
from eventstore.envelope import NewEvent, format_at
from eventstore.store import Store
from tests.bot.outgoing import shown
from tests.bot.serving import SETTINGS, around, logged, serving, started, workspace

EVENING = datetime(2026, 11, 21, 22, 0, tzinfo=UTC)
MORNING = EVENING + timedelta(hours=10)
AT_EIGHT = SETTINGS.replace('at = "off"', 'at = "08:00"\nzone = "UTC"')


class Night:
    """A workspace with a run, a Slack, and lives of the bot at different hours."""

    def __init__(self, folder: Path, slack: Sandbox) -> None:
        self.home, self.slack, self.told = workspace(folder, AT_EIGHT), slack, 0

    @contextlib.asynccontextmanager
    async def bot_at(self, now: datetime) -> AsyncIterator[None]:
        """Serve for a while; what happens is told at the beginning of it."""
        clock = self.slack.clock
        assert isinstance(clock, ManualClock)
        clock.advance(now.timestamp() - clock.now())
        bot = around(self.home, self.slack, now=lambda: datetime.fromtimestamp(clock.now(), UTC), ring_every_s=0.05)
        async with serving(bot, self.slack):
            yield

    def tell(self, at: datetime, *told: e.Data) -> None:
        with Store.open(self.home.log_path) as log:
            for data in told:
                self.told += 1
                log.append([NewEvent(f"told-{self.told}", "nov21", format_at(at), "loop@box", data)])

    def digests(self) -> list[Posted]:
        return [post for post in self.slack.messages("C1") if "Nightshift digest" in post.text]

    async def a_while(self) -> None:
        """Long enough for the alarm clock to ring several times."""
        await asyncio.sleep(0.4)


@pytest.fixture
async def night(tmp_path: Path) -> AsyncIterator[Night]:
    scopes = SCOPES | HISTORY | {"files:read"}
    async with Sandbox(clock=ManualClock(EVENING.timestamp()), scopes=scopes, post_burst=100) as slack:
        yield Night(tmp_path, slack)


async def test_down_at_eight_and_up_at_ten_past_nine_it_comes_once_and_says_so(night: Night) -> None:
    night.tell(EVENING, *started())
    async with night.bot_at(EVENING):
        await night.slack.until(lambda: logged(night.home, e.PostMade))
    async with night.bot_at(MORNING + timedelta(minutes=70)):
        await night.slack.until(night.digests, timeout_s=20)
    (digest,) = night.digests()
    assert "late" in shown(digest.blocks)
    async with night.bot_at(MORNING + timedelta(minutes=80)):
        await night.a_while()
    night.tell(MORNING + timedelta(minutes=90), e.IdeaSuggested(text="a longer warmdown"))
    async with night.bot_at(MORNING + timedelta(hours=12)):
        await night.a_while()
    assert night.digests() == [digest]


async def test_once_turned_off_the_hour_of_the_settings_does_not_come_back_with_a_restart(night: Night) -> None:
    night.tell(EVENING, *started())
    async with night.bot_at(EVENING):
        await night.slack.until(lambda: logged(night.home, e.PostMade))
        seen = await night.slack.command("/nightshift", "digest off", user="U1")
        await night.slack.until(lambda: any("No more digests here" in post.text for post in seen.posts))
    for days in (0, 1):
        day = MORNING + timedelta(days=days)
        night.tell(day - timedelta(hours=1), e.IdeaSuggested(text=f"an idea of day {days}"))
        async with night.bot_at(day + timedelta(minutes=5)):
            await night.a_while()
            seen = await night.slack.command("/nightshift", "digest", user="U3")
            await night.slack.until(lambda seen=seen: any("gets no digest" in post.text for post in seen.ephemerals))
    assert not night.digests()
    async with night.bot_at(day + timedelta(minutes=6)):
        await night.slack.command("/nightshift", "digest at 08:00", user="U1")
    night.tell(day + timedelta(hours=1), e.IdeaSuggested(text="another idea"))
    async with night.bot_at(day + timedelta(days=1, minutes=1)):
        await night.slack.until(night.digests, timeout_s=20)
    assert len(night.digests()) == 1
