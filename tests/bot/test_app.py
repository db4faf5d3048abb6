"""The bot as people meet it: commands, clicks, forms and the Home tab, over real sockets."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from bot.sandbox.server import Sandbox
from eventstore import events as e
from tests.bot.serving import append, around, logged, serving, started, workspace


async def test_a_command_is_in_the_log_before_its_ack_and_told_to_the_channel(tmp_path: Path) -> None:
    home = workspace(tmp_path)
    async with Sandbox() as slack, serving(around(home, slack), slack):
        seen = await slack.command("/nightshift", "start nov21 --experiments 5", user="U1", channel="C1")
        assert seen.acked and not seen.timed_out
        requested = logged(home, e.RunRequested)
        assert len(requested) == 1 and requested[0].actor == "slack:T1/U1" and requested[0].id.startswith("slack:")
        assert any("nov21" in post.text for post in seen.posts)
