"""Slack in a terminal, without an account: type commands, click buttons, fill forms, and see what the bot posts.

It drives a `Sandbox` as people do, so the bot behind it is the real one over real sockets.
"""

from __future__ import annotations

import asyncio
import shlex
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO

from bot.html import page
from bot.sandbox.forms import NothingToTouch
from bot.sandbox.model import Posted, Refusal, ShownView
from bot.sandbox.pages import cards
from bot.sandbox.render import block_lines, text_lines
from bot.sandbox.server import Sandbox, Seen
from bot.sandbox.workspace import BOT_USER
from eventstore.files import replace_file
from eventstore.plain import plain_line

Read = Callable[[], Awaitable[str | None]]
"""Gives the next line; None at the end of the input."""

HELP = """\
  /nightshift status      a slash command, as in Slack
  messages                what stands in this channel, with the numbers that click and thread take
  thread N                the replies to message N
  click N ACTION [VALUE]  press a button of message N; the action is the second word in its brackets
  home                    open the App Home of the bot
  click home ACTION       press a button there
  click form ACTION       press a button in the open form
  submit FIELD=VALUE ...  fill in and submit the open form; quote a value that has spaces
  close                   close the open form
  as NAME | in CHANNEL    be somebody else, be elsewhere
  page FILE               write what you have before you as an HTML page, with pictures
  quit"""


class Terminal:
    """One person at a time in the sandbox. *write* gets whole lines."""

    def __init__(self, slack: Sandbox, read: Read, write: Callable[[str], None]) -> None:
        self._slack, self._read, self._write = slack, read, write
        self._user = next(iter(slack.space.people))
        self._channel = next(iter(slack.space.channels))
        self._numbers: dict[tuple[str, str], int] = {}
        self._shown = 0

    async def run(self) -> None:
        """Serve lines until the input ends or somebody quits; what the bot posts meanwhile is shown as it comes."""
        self._write(f"You are {self._name(self._user)} in #{self._name(self._channel)}. Type help.")
        watcher = asyncio.create_task(self._watch())
        try:
            while (line := await self._read()) is not None and line.strip() not in ("quit", "exit"):
                await self._serve(line.strip())
                self._news()
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            await self._slack.change()
            self._news()

    async def _serve(self, line: str) -> None:
        try:
            await self._do(line)
        except (NothingToTouch, Refusal, ValueError) as error:
            self._write(f"! {plain_line(str(error))}")

    async def _do(self, line: str) -> None:
        if line.startswith("/"):
            command, _, text = line.partition(" ")
            self._tell(await self._slack.command(command, text.strip(), user=self._user, channel=self._channel))
            return
        word, *rest = shlex.split(line) or [""]
        if not word:
            return
        if word in ("help", "messages") and not rest:
            self._help() if word == "help" else self._list()
        elif word == "home" and not rest:
            self._tell(await self._slack.open_home(self._user))
        elif word == "close" and not rest:
            await self._slack.close_view(self._form().id, user=self._user)
        elif word == "submit":
            values = dict(_pair(each) for each in rest)
            self._tell(await self._slack.submit(self._form().id, values, user=self._user, wait_s=2.0))
        elif word == "click" and len(rest) in (2, 3):
            self._tell(await self._click(*rest))
        elif word == "thread" and len(rest) == 1:
            self._thread(self._message(rest[0]))
        elif word == "page" and len(rest) == 1:
            self._page(Path(rest[0]))
        elif word in ("as", "in") and len(rest) == 1:
            self._move(word, rest[0])
        else:
            raise ValueError(f"{plain_line(line)[:60]}: not understood; type help")

    async def _click(self, where: str, action: str, value: str | None = None) -> Seen:
        if where in ("home", "form"):
            home = self._slack.home(self._user)
            if where == "home" and home is None:
                raise ValueError("the App Home was not opened yet; type home")
            shown = home if where == "home" and home is not None else self._form()
            return await self._slack.click_view(shown.id, action, user=self._user, value=value)
        posted = self._message(where)
        self._confirm(posted, action)
        return await self._slack.click(posted.ts, action, user=self._user, channel=posted.channel, value=value)

    def _confirm(self, posted: Posted, action: str) -> None:
        """Show the dialog that Slack would ask first; here it is answered with yes."""
        for block in posted.blocks:
            for element in block.get("elements", ()):
                if element.get("action_id") == action and "confirm" in element:
                    asked = element["confirm"]
                    self._write(f"  ? {plain_line(asked['text']['text'])} — {plain_line(asked['confirm']['text'])}")

    def _help(self) -> None:
        self._write(HELP)

    def _list(self) -> None:
        for posted in self._slack.messages(self._channel):
            self._show(posted)

    def _thread(self, parent: Posted) -> None:
        replies = self._slack.thread(parent.channel, parent.ts)
        self._write(f"  {len(replies)} in the thread of {self._number(parent)}")
        for posted in replies:
            self._show(posted)

    def _page(self, file: Path) -> None:
        found = cards(self._slack.space, self._user, self._channel)
        try:
            replace_file(
                file, page(found, f"#{self._name(self._channel)}, as {self._name(self._user)} sees it").encode()
            )
        except OSError as error:
            raise ValueError(f"{file} cannot be written: {error.strerror}") from error
        self._write(f"  wrote {plain_line(str(file))}")

    def _move(self, word: str, wanted: str) -> None:
        things = self._slack.space.people if word == "as" else self._slack.space.channels
        found = next((key for key, each in things.items() if wanted.lstrip("@#") in (key, each.name)), None)
        if found is None:
            raise ValueError(
                f"{plain_line(wanted)} is not here; there are: {', '.join(e.name for e in things.values())}"
            )
        self._user, self._channel = (found, self._channel) if word == "as" else (self._user, found)
        self._write(f"You are {self._name(self._user)} in #{self._name(self._channel)}.")

    # What is shown

    def _tell(self, seen: Seen) -> None:
        """Say what is not in a message: failures, complaints, silence."""
        self._news()
        said = {each.text for each in seen.ephemerals}
        for text in seen.texts:
            if text not in said:
                self._write(f"! {plain_line(text)}")
        if not seen.anything() and not seen.acked:
            self._write("  (nothing)")

    def _news(self) -> None:
        """Show what came since the last time, in the order in which it came."""
        space = self._slack.space
        posts = [each for many in space.messages.values() for each in many]
        mine = [each for each in space.ephemerals if each.seen_by == self._user]
        home = self._slack.home(self._user)
        views = [*self._slack.views(self._user), *([home] if home else [])]
        everything: list[Posted | ShownView] = [*posts, *mine, *views]
        for each in sorted((each for each in everything if each.n > self._shown), key=lambda each: each.n):
            self._shown = each.n
            self._show(each) if isinstance(each, Posted) else self._show_view(each)

    def _show(self, posted: Posted) -> None:
        where = "only you see this" if posted.seen_by else f"#{self._name(posted.channel)}"
        notes = [
            where,
            *(["in a thread"] if not posted.shown_in_channel() else []),
            *(["edited"] if posted.edits else []),
        ]
        self._write(f"{self._number(posted)}. {self._name(posted.user)} ({', '.join(notes)})")
        lines = block_lines(posted.blocks, self._name) if posted.blocks else text_lines(posted.text, self._name)
        for line in [*lines, *(f"[file: {plain_line(file.name)}]" for file in posted.files)]:
            self._write("   " + line)

    def _show_view(self, shown: ShownView) -> None:
        title = shown.body.get("title", {}).get("text", "App Home")
        self._write(f"┌ {plain_line(title)}")
        for line in block_lines(shown.body["blocks"], self._name):
            self._write("│ " + line)
        submit = shown.body.get("submit")
        self._write("└ " + (f"submit: {plain_line(submit['text'])}" if submit else ""))

    def _number(self, posted: Posted) -> int:
        return self._numbers.setdefault((posted.channel, posted.ts), len(self._numbers) + 1)

    def _message(self, number: str) -> Posted:
        everything = [each for many in self._slack.space.messages.values() for each in many]
        for posted in (*everything, *self._slack.ephemerals(self._user)):
            if number.isdigit() and self._numbers.get((posted.channel, posted.ts)) == int(number):
                return posted
        raise ValueError(f"there is no message {plain_line(number)}; type messages")

    def _form(self) -> ShownView:
        if not (forms := self._slack.views(self._user)):
            raise ValueError("no form is open")
        return forms[-1]

    def _name(self, key: str) -> str:
        space = self._slack.space
        if key == BOT_USER:
            return "nightshift"
        found = space.people.get(key) or space.channels.get(key)
        return found.name if found else plain_line(key)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{plain_line(text)}: expected FIELD=VALUE")
    return name, value


def lines_of(stream: IO[str]) -> Read:
    """
    Read lines of *stream* (such as stdin) without holding the event loop up. Call it inside the loop.

    The thread that waits for a line ends with the process.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[str | None] = asyncio.Queue()

    def pump() -> None:
        try:
            for line in stream:
                loop.call_soon_threadsafe(queue.put_nowait, line)
            loop.call_soon_threadsafe(queue.put_nowait, None)
        except RuntimeError:
            return  # the loop is closed: nobody reads any more

    threading.Thread(target=pump, name="terminal", daemon=True).start()
    return queue.get
