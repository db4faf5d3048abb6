"""`/nightshift`: parse, ask the desk, ack in time, answer."""

from __future__ import annotations

import asyncio
from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp

from bot import intents as i
from bot.asking import Request
from bot.desk import Reply, Sender
from bot.listeners.front import Front, Result, delivery_of, finished
from bot.text import unescape
from bot.views import answers


def register(app: AsyncApp, front: Front) -> None:
    """Have *app* serve the slash command."""

    @app.command(i.COMMAND)
    async def nightshift(ack: AsyncAck, body: dict[str, Any]) -> None:
        with front.answering():
            await serve(front, ack, body)


async def serve(front: Front, ack: AsyncAck, body: dict[str, Any]) -> None:
    """
    Serve one command. What asks for something is in the log before the ack, if the log is not slow.

    Raises:
        NotTold: If Slack did not take the answer.
    """
    url = str(body.get("response_url", ""))
    intent = i.parse(unescape(str(body.get("text") or "")))
    sender = Sender(str(body["user_id"]), str(body["team_id"]), str(body["channel_id"]), delivery_of(body))
    task, is_new = front.once.serve(sender.delivery, lambda: front.desk.typed(intent, sender))
    if opens_form(intent):
        await ack()
        if is_new:
            await _form(front, str(body.get("trigger_id", "")), url, task)
        return
    if isinstance(intent, Request) and not await finished(task, front.ack_wait_s):
        await ack(text=answers.not_recorded_yet().text)
    else:
        await ack()
    if is_new:
        await _answer(front, url, sender, task)


def opens_form(intent: i.Intent | i.Mistake) -> bool:
    """Whether a command is answered by a modal."""
    return isinstance(intent, i.Program) or (isinstance(intent, i.Start) and intent.tag is None)


async def _form(front: Front, trigger: str, url: str, task: asyncio.Task[Result]) -> None:
    reply = await front.show_form(trigger, task)
    if reply is not None:
        await front.tell(url, reply)


async def _answer(front: Front, url: str, sender: Sender, task: asyncio.Task[Result]) -> None:
    result = await task
    if not isinstance(result, Reply):
        return
    await front.tell(url, result)
    if result.file is not None and sender.channel is not None:
        await front.share(sender.channel, result.file, result.run)
