"""Forms that are submitted: field errors beside the fields, the outcome in the modal or in the channel."""

from __future__ import annotations

from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp

from bot import values
from bot.desk import Form, Reply, Sender, Wrong
from bot.listeners.front import Body, Front, Result, delivery_of, finished, must, told_view, user_of
from bot.notifier import NotNow
from bot.views import answers, modals

CALLBACKS = (modals.START, modals.PROGRAM, modals.CONFIRM, modals.VETO, modals.REJECT)


def register(app: AsyncApp, front: Front) -> None:
    """Have *app* serve every form."""

    async def submitted(ack: AsyncAck, body: dict[str, Any], view: dict[str, Any]) -> None:
        with front.answering():
            await serve(front, ack, body, view)

    for callback in CALLBACKS:
        app.view(callback)(submitted)


async def serve(front: Front, ack: AsyncAck, body: Body, view: Body) -> None:
    """
    Serve one form. What it asks for is in the log before the ack, if the log is not slow.

    Raises:
        NotTold: If Slack did not take the answer.
    """
    callback, metadata = str(view.get("callback_id", "")), str(view.get("private_metadata", ""))
    given: modals.Values = (view.get("state") or {}).get("values") or {}
    form = values.from_metadata(metadata)
    sender = Sender(*user_of(body), form.channel or None if form is not None else None, delivery_of(body))
    task, is_new = front.once.serve(sender.delivery, lambda: front.desk.submitted(callback, metadata, given, sender))
    if not await finished(task, front.ack_wait_s):
        await ack(response_action="update", view=modals.told("Nightshift", answers.not_recorded_yet().text))
        if is_new:
            await _tell_late(front, str(view.get("id")), sender, await task)
        return
    if task.exception() is not None:
        await ack(response_action="update", view=modals.told("Nightshift", "Something went wrong here."))
        await task
    result = task.result()
    await _ack(ack, result)
    if is_new and isinstance(result, Reply) and result.is_public:
        await front.tell_channel(sender, result)


async def _ack(ack: AsyncAck, result: Result) -> None:
    if isinstance(result, Wrong):
        await ack(response_action="errors", errors=result.errors)
    elif isinstance(result, Form):
        await ack(response_action="update", view=result.view)
    elif result.is_public:  # the channel is told
        await ack(response_action="clear")
    else:
        await ack(response_action="update", view=told_view(result))


async def _tell_late(front: Front, view_id: str, sender: Sender, result: Result) -> None:
    """Say in the form how it ended after all, or, if the person has closed it meanwhile, in the channel."""
    if isinstance(result, Wrong):
        words = "; ".join(result.errors.values())
        result = Reply(answers.refused(words), words=words)
    came = await front.door.update_view(view_id, result.view if isinstance(result, Form) else told_view(result))
    if isinstance(result, Reply) and result.is_public:
        await front.tell_channel(sender, result)
    elif isinstance(result, Reply) and isinstance(came, NotNow) and sender.channel is not None:
        must(await front.door.ephemeral(sender.channel, sender.user, result.message))
    else:
        must(came)
