"""The real slack-sdk and slack-bolt against the loopback Slack."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.sandbox.server import Sandbox

PNG = b"\x89PNG\r\n\x1a\n" + b"pixels"


def client(slack: Sandbox, token: str | None = None) -> AsyncWebClient:
    """A Web API client that does not retry."""
    return AsyncWebClient(slack.bot_token if token is None else token, base_url=slack.base_url, retry_handlers=[])


def bolt(slack: Sandbox) -> AsyncApp:
    """A Bolt app that knows who it is without asking."""

    async def authorize() -> AuthorizeResult:
        return AuthorizeResult(
            enterprise_id=None, team_id="T1", bot_token=slack.bot_token, bot_id="B0BOT", bot_user_id="U0BOT"
        )

    return AsyncApp(client=client(slack), authorize=authorize)


@contextlib.asynccontextmanager
async def running(slack: Sandbox, app: AsyncApp, ping_interval_s: float = 10) -> AsyncIterator[AsyncSocketModeHandler]:
    """Connect the app over Socket Mode for the length of the block."""
    handler = AsyncSocketModeHandler(app, slack.app_token, ping_interval=ping_interval_s)
    before = len(slack.hub.sockets)
    await handler.connect_async()
    try:
        await slack.connected(before + 1)
        yield handler
    finally:
        await handler.close_async()


async def refused(call: Awaitable[Any]) -> SlackApiError:
    """The error that the real client raises."""
    with pytest.raises(SlackApiError) as caught:
        await call
    return caught.value


async def error_of(call: Awaitable[Any]) -> str | None:
    """What Slack called the error."""
    error: str | None = (await refused(call)).response["error"]
    return error


def plain(text: str = "text") -> dict[str, Any]:
    return {"type": "plain_text", "text": text}


def section(text: str = "text", **more: Any) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}, **more}


def button(action_id: str = "stop", text: str = "Stop", **more: Any) -> dict[str, Any]:
    return {"type": "button", "action_id": action_id, "text": {"type": "plain_text", "text": text}, **more}


def buttons(*elements: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "actions", "elements": list(elements), **more}


def field(block_id: str = "tag", **element: Any) -> dict[str, Any]:
    label = {"type": "plain_text", "text": block_id}
    inside = {"type": "plain_text_input", "action_id": "value", **element}
    return {"type": "input", "block_id": block_id, "label": label, "element": inside}


def modal(*blocks: dict[str, Any], **more: Any) -> dict[str, Any]:
    title = {"type": "plain_text", "text": "Start"}
    return {"type": "modal", "title": title, "submit": title, "blocks": list(blocks or (section(),)), **more}


def home(*blocks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "home", "blocks": list(blocks or (section(),)), **more}
