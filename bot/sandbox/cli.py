"""The loopback Slack as a program: `python -m bot.sandbox.cli` says how to reach it and serves one person."""

from __future__ import annotations

import asyncio
import sys
import time

import click

from bot.sandbox.clock import LoopClock
from bot.sandbox.methods import HISTORY, SCOPES
from bot.sandbox.server import Sandbox
from bot.sandbox.terminal import Terminal, lines_of


@click.command()
@click.option("--port", default=0, show_default="any", help="Listen on this port of 127.0.0.1.")
def main(port: int) -> None:
    """Serve a workspace that exists only here, and be a person in it."""
    asyncio.run(_serve(port))


async def _serve(port: int) -> None:
    scopes = SCOPES | HISTORY | {"files:read", "channels:read", "groups:read", "usergroups:read"}
    async with Sandbox(clock=LoopClock(time.time()), scopes=scopes, port=port) as slack:
        click.echo(
            f"base_url  {slack.base_url}\nSLACK_BOT_TOKEN={slack.bot_token}\nSLACK_APP_TOKEN={slack.app_token}\n"
        )
        await Terminal(slack, lines_of(sys.stdin), click.echo).run()


if __name__ == "__main__":
    main()
