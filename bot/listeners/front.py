"""What all listeners share: answering in time, once, and where the person asked.

Guaranteed: Slack gets its ack within `ACK_WAIT_S` however slow the log is, and the person is told in the end how it
went; a delivery that comes again while it is remembered is acked again and answered no second time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bot.desk import Desk, Form, Reply, Sender, Wrong
from bot.message import Message, View
from bot.notifier import Done, Notifier, NotNow
from bot.views import answers, modals
from bot.views.answers import File
from eventstore import events as e

ACK_WAIT_S = 1.0
"""How long an ack waits for the log; Slack shows the person an error after 3 s."""
FORM_WAIT_S = 0.3
"""How long a form is waited for before "One moment…" is opened: its trigger lives for 3 s."""
REMEMBERED_S = 900.0
"""Slack repeats a delivery for some minutes."""

T = TypeVar("T")
Body = Mapping[str, Any]
Result = Reply | Form | Wrong


@dataclass(slots=True)
class Once:
    """Deliveries that this process is serving or has served lately, each with what came of it."""

    monotonic: Callable[[], float]
    _served: dict[str, tuple[float, asyncio.Task[Result]]] = field(default_factory=dict)

    def serve(
        self, delivery: str, make: Callable[[], Coroutine[Any, Any, Result]]
    ) -> tuple[asyncio.Task[Result], bool]:
        """The task that serves a delivery, and whether it is new."""
        now_s = self.monotonic()
        while self._served and now_s - next(iter(self._served.values()))[0] > REMEMBERED_S:
            del self._served[next(iter(self._served))]
        known = self._served.get(delivery)
        if known is not None:
            return known[1], False
        task = asyncio.create_task(make(), name=f"delivery {delivery}")
        self._served[delivery] = (now_s, task)
        return task, True

    async def settle(self, timeout_s: float) -> None:
        """Let what is being served come to its end."""
        tasks = {task for _, task in self._served.values() if not task.done()}
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)


@dataclass(slots=True)
class Front:
    """
    What the listeners need.

    Attributes:
        post: Posts a message of its own to a channel, under a key; comes back when it stands.
        thread_of: The ts of a run's message in a channel; empty if it has none there.
    """

    desk: Desk
    door: Notifier
    once: Once
    post: Callable[[str, Message, str], Awaitable[None]]
    thread_of: Callable[[str, str], str]
    ack_wait_s: float = ACK_WAIT_S
    form_wait_s: float = FORM_WAIT_S
    _later: set[asyncio.Task[Any]] = field(default_factory=set)

    async def settle(self, timeout_s: float) -> None:
        """Let requests that are being served, and answers on their way, come to their end."""
        await self.once.settle(timeout_s)
        if self._later:
            await asyncio.wait(self._later, timeout=timeout_s)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """For the length of a `with`, count the task that it is in among what `settle` waits for."""
        task = asyncio.current_task()
        assert task is not None
        self._later.add(task)
        try:
            yield
        finally:
            self._later.discard(task)

    async def tell(self, url: str, reply: Reply) -> None:
        """Answer through a `response_url`."""
        must(await self.door.respond(url, reply.message, in_channel=reply.is_public))
        if reply.run_asked:
            self.desk.when_refused(reply.run_asked, lambda refused: self._refused_later(url, refused))

    async def tell_channel(self, sender: Sender, reply: Reply) -> None:
        """
        Say what was asked for in a form or in the Home tab where everyone sees it: in the channel it was asked for in,
        else in the one of the runs. The person is told if the run could not start.
        """
        channel = sender.channel or self.desk.channel
        if channel is None:
            return
        if reply.run_asked:
            self.desk.when_refused(
                reply.run_asked,
                lambda refused: self.in_background(
                    self.door.ephemeral(channel, sender.user, _could_not_start(refused)),
                ),
            )
        await self.post(channel, reply.message, f"asked/{sender.delivery}")

    def _refused_later(self, url: str, refused: e.RunRefused) -> None:
        self.in_background(self.door.respond(url, _could_not_start(refused)))

    def in_background(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do something that nobody waits for; it is held until it is done, because the event loop itself does not."""
        task = asyncio.create_task(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def share(self, channel: str, file: File, tag: str) -> None:
        """Put a file into the thread of its run where that is in this channel, else into the channel."""
        must(await self.door.share(channel, file.name, file.data, thread_ts=self.thread_of(channel, tag)))

    async def show_form(self, trigger: str, task: asyncio.Task[Result]) -> Reply | None:
        """
        Open the form that *task* makes; "One moment…" before it if that takes longer.

        Returns:
            What is to be told instead, where it came to no form before anything was opened.
        """
        if await finished(task, self.form_wait_s):
            result = task.result()
            if isinstance(result, Form):
                must(await self.door.open_view(trigger, result.view))
                return None
            return result if isinstance(result, Reply) else None
        result, is_shown = await self._open_then(trigger, modals.loading(), task)
        return result if isinstance(result, Reply) and not is_shown else None

    async def show_answer(self, trigger: str, task: asyncio.Task[Result], *, in_time: bool) -> None:
        """Show in a modal what *task* comes to; if it is not done *in_time*, first that it is not recorded yet."""
        if in_time:
            must(await self.door.open_view(trigger, _view_of(task.result())))
        else:
            await self._open_then(trigger, modals.told("Nightshift", answers.not_recorded_yet().text), task)

    async def _open_then(self, trigger: str, first: View, task: asyncio.Task[Result]) -> tuple[Result, bool]:
        """Open a modal that becomes what *task* comes to; that, and whether it is shown."""
        opened = await self.door.open_view(trigger, first)
        result = await task
        if isinstance(opened, Done):
            view = opened.data.get("view", {})
            must(await self.door.update_view(str(view.get("id")), _view_of(result), str(view.get("hash")) or None))
        return result, isinstance(opened, Done)


def _could_not_start(refused: e.RunRefused) -> Message:
    return answers.refused(f"{refused.why}: {refused.remedy}")


def _view_of(result: Result) -> View:
    if isinstance(result, Form):
        return result.view
    return told_view(result) if isinstance(result, Reply) else modals.told("Nightshift", "This form cannot be read.")


def told_view(reply: Reply) -> View:
    """An answer as a modal."""
    return modals.told("Nightshift", reply.words) | {"blocks": list(reply.message.blocks)}


async def finished(task: asyncio.Task[T], timeout_s: float) -> bool:
    """Wait for a task at most so long; it goes on if that was not enough. Raises nothing."""
    done, _ = await asyncio.wait({task}, timeout=timeout_s)
    return bool(done)


def delivery_of(body: Body) -> str:
    """What tells a delivery from every other one, also when it comes again, over a restart too."""
    event_id, trigger = body.get("event_id"), body.get("trigger_id")
    if trigger or event_id:
        return str(trigger or event_id)
    view = body.get("view") or {}
    return f"{view.get('id')}.{view.get('hash')}"


def user_of(body: Body) -> tuple[str, str]:
    """Who did it, and the workspace that the person belongs to, in an interaction's body."""
    user = body.get("user") or {}
    return str(user.get("id", "")), str(user.get("team_id") or (body.get("team") or {}).get("id", ""))


def must(came: Done | NotNow) -> None:
    """Raise `NotTold` if it did not work."""
    if isinstance(came, NotNow):
        raise NotTold(came.why)


class NotTold(Exception):
    """Slack did not take an answer; what was asked for stands all the same."""
