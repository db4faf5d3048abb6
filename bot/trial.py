"""`nightshift bot --sandbox-workspace`: the real bot in a terminal, with a Slack that exists only in this process."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import replace

import click
import msgspec

from bot.app import Around, serve
from bot.checkup import Tokens
from bot.errors import NotConfigured
from bot.sandbox.methods import HISTORY, SCOPES
from bot.sandbox.server import Sandbox
from bot.sandbox.terminal import Read, Terminal, lines_of
from eventstore import settings as st

CHANNEL = "C1"
CONNECT_S = 60.0
"""How long the bot may take to get ready; on a machine that is busy with other work this is not a moment."""
SLACK = st.Slack(channel=CHANNEL, admins=("U1",), operators=("U2",))
MORE_SCOPES = {"files:read", "channels:read", "groups:read", "usergroups:read"}
HELLO = """\
A Slack that exists only here; the bot and the log behind it are the real ones. ada is an admin, ben an operator, cleo
may only look (`as cleo`). `nightshift loop` in another terminal serves what you start here. What is posted stays in the
log of this workspace, so begin with a fresh one when you set up the real Slack.
"""


async def try_out(around: Around, read: Read | None = None, write: Callable[[str], None] = click.echo) -> None:
    """
    Run the bot against a loopback Slack and a person at the terminal, until the person quits.

    Args:
        around: Tokens, address and [slack] in it do not count; its `stop` ends the bot.

    Raises:
        NotConfigured: If the workspace has a real Slack: its log would get posts that are nowhere.
    """
    if around.settings.slack.channel is not None:
        raise NotConfigured(
            "this workspace posts to a real Slack (slack.channel in nightshift.toml): try the bot in another one, made "
            "with `nightshift init`"
        )
    scopes = SCOPES | HISTORY | MORE_SCOPES
    async with Sandbox(scopes=scopes) as slack:
        settings = msgspec.structs.replace(around.settings, slack=SLACK)
        tokens = Tokens(slack.bot_token, slack.app_token)
        bot = asyncio.create_task(serve(replace(around, settings=settings, tokens=tokens, base_url=slack.base_url)))
        connected = asyncio.create_task(slack.connected(timeout_s=CONNECT_S))
        await asyncio.wait({bot, connected}, return_when=asyncio.FIRST_COMPLETED)
        if bot.done():
            connected.cancel()
            await bot
            return
        await connected
        write(HELLO)
        typing = asyncio.create_task(Terminal(slack, read or lines_of(sys.stdin), write).run())
        await asyncio.wait({bot, typing}, return_when=asyncio.FIRST_COMPLETED)
        around.stop.set()
        typing.cancel()
        await asyncio.gather(typing, return_exceptions=True)
        await bot
