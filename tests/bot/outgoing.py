"""A door out to the loopback Slack, on a clock that sleeping moves."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from slack_sdk.web.async_client import AsyncWebClient

from bot.notifier import Notifier
from bot.sandbox.clock import ManualClock
from bot.sandbox.methods import HISTORY, SCOPES
from bot.sandbox.server import Sandbox

FILES = frozenset({"files:read"})
ALL = SCOPES | HISTORY | FILES


def clock_of(slack: Sandbox) -> ManualClock:
    assert isinstance(slack.clock, ManualClock)
    return slack.clock


@dataclass
class Door:
    """
    The door of one bot.

    Attributes:
        slept_s: How long it waited, pause by pause.
        troubles, wells: What it said of each channel; *told* is set with the first trouble.
    """

    slack: Sandbox
    slept_s: list[float] = field(default_factory=list)
    troubles: list[tuple[str, str]] = field(default_factory=list)
    wells: list[str] = field(default_factory=list)
    told: asyncio.Event = field(default_factory=asyncio.Event)

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        clock_of(self.slack).advance(seconds)
        await asyncio.sleep(0)

    async def on_trouble(self, channel: str, what: str) -> None:
        self.troubles.append((channel, what))
        self.told.set()

    async def on_well(self, channel: str) -> None:
        self.wells.append(channel)

    def open(self, timeout_s: int = 2) -> Notifier:
        web = AsyncWebClient(self.slack.bot_token, base_url=self.slack.base_url, retry_handlers=[], timeout=timeout_s)
        return Notifier(
            web, clock=clock_of(self.slack).now, sleep=self.sleep, on_trouble=self.on_trouble, on_well=self.on_well
        )


def texts(slack: Sandbox, channel: str = "C1") -> list[str]:
    """The messages that stand in a channel, by their texts."""
    return [posted.text for posted in slack.messages(channel)]


def shown(blocks: Any) -> str:
    """All texts of blocks."""
    if isinstance(blocks, dict):
        return "\n".join(
            [shown(value) if name != "text" or not isinstance(value, str) else value for name, value in blocks.items()]
        )
    return "\n".join(shown(part) for part in blocks) if isinstance(blocks, list | tuple) else ""
