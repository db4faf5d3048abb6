"""Buttons, in messages, in modals and in the Home tab: who may is judged at the click, and what is now."""

from __future__ import annotations

import asyncio
from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp

from bot import values
from bot.desk import Form, Reply, Sender
from bot.listeners.front import Body, Front, Result, delivery_of, finished, must, told_view, user_of
from bot.views import answers

FORMS = frozenset({"edit_program", "veto", "reject"})
"""Buttons that are answered by a modal."""


def register(app: AsyncApp, front: Front) -> None:
    """Have *app* serve every button."""

    async def clicked(ack: AsyncAck, body: dict[str, Any], action: dict[str, Any]) -> None:
        with front.answering():
            await serve(front, ack, body, action)

    for name in values.ACTIONS:
        app.action(name)(clicked)


async def serve(front: Front, ack: AsyncAck, body: Body, action: Body) -> None:
    """
    Serve one click. What it asks for is in the log before the ack, if the log is not slow.

    Raises:
        NotTold: If Slack did not take the answer.
    """
    name, value = str(action.get("action_id", "")), str(action.get("value", ""))
    sender = Sender(*user_of(body), channel_of(body), delivery_of(body))
    task, is_new = front.once.serve(sender.delivery, lambda: front.desk.clicked(name, value, sender))
    if name in FORMS:
        await ack()
        if is_new:
            await _form(front, body, task)
        return
    in_time = await finished(task, front.ack_wait_s)
    await ack()
    if is_new:
        await _answer(front, body, sender, task, in_time)


def channel_of(body: Body) -> str | None:
    """Where the button is: the channel of its message, or the one that its modal was asked for in; None for Home."""
    channel = body.get("channel")
    if channel:
        return str(channel.get("id"))
    view = body.get("view") or {}
    form = values.from_metadata(str(view.get("private_metadata", ""))) if view.get("type") == "modal" else None
    return form.channel or None if form is not None else None


async def _form(front: Front, body: Body, task: asyncio.Task[Result]) -> None:
    view = body.get("view") or {}
    if view.get("type") == "modal":  # it takes the place of the one that the button is in
        result = await task
        if isinstance(result, Form | Reply):
            shown = result.view if isinstance(result, Form) else told_view(result)
            must(await front.door.update_view(str(view.get("id")), shown, str(view.get("hash", "")) or None))
        return
    trigger, url = str(body.get("trigger_id", "")), str(body.get("response_url") or "")
    reply = await front.show_form(trigger, task)
    if reply is None:
        return
    if url:
        await front.tell(url, reply)
    else:
        must(await front.door.open_view(trigger, told_view(reply)))


async def _answer(front: Front, body: Body, sender: Sender, task: asyncio.Task[Result], in_time: bool) -> None:
    """Answer beside the button, or, in the Home tab, in a modal and where everyone sees it."""
    url = str(body.get("response_url") or "")
    if url:
        if not in_time:
            await front.door.respond(url, answers.not_recorded_yet())
        result = await task
        if isinstance(result, Reply):
            await front.tell(url, result)
        return
    try:
        await front.show_answer(str(body.get("trigger_id", "")), task, in_time=in_time)
    finally:
        result = await task
        if isinstance(result, Reply) and result.is_public:
            await front.tell_channel(sender, result)
