"""Keep a program of ours running beside us: its output comes line by line, and it is asked to end before it is killed.

Unlike a command of an experiment it is trusted: it gets the environment it is given, whole, has no time limit, and
puts its own things in order when it is asked to end. It is in a session of its own, so that Ctrl-C in a terminal
reaches it only through us, and it is asked to end if we are gone (Linux).

Not guaranteed: that what it started is gone when it is. It sees to that itself.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from trainer.errors import CannotStart
from trainer.process import CHUNK, on_exit, spawn_service
from trainer.sandbox.plan import View

LINE_MAX = 8_000
"""Bytes of one line; a longer one comes in pieces."""


class Service:
    """A program that runs. *on_line* gets each line of its output, without its end, undecodable bytes replaced."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        on_line: Callable[[str], None],
        view: View | None = None,
        stdin: int = subprocess.DEVNULL,
    ) -> None:
        """
        Start it. Call it on the thread of the running event loop.

        Args:
            view: What it may see; None: all that this user can.
            stdin: A descriptor that it reads from.

        Raises:
            CannotStart: If the system refuses it, or the view requires more than there is.
        """
        self._on_line = on_line
        self._loop = asyncio.get_running_loop()
        self._exited = asyncio.Event()
        self._rest = b""
        self._pipe, write_end = os.pipe()
        try:
            self._popen = spawn_service(argv, cwd, env, write_end, view=view, stdin=stdin)
        except CannotStart:
            os.close(self._pipe)
            raise
        except (OSError, subprocess.SubprocessError) as error:
            os.close(self._pipe)
            raise CannotStart(tuple(argv), f"the system refuses it ({error})") from error
        finally:
            os.close(write_end)
        self.pid = self._popen.pid
        os.set_blocking(self._pipe, False)
        self._loop.add_reader(self._pipe, self._read)
        self._forget_exit = on_exit(self._popen, self._exited.set)
        self._ended = asyncio.create_task(self._watch(), name=f"service {self.pid}")

    async def wait(self) -> int:
        """Wait for its end and return its exit code, negative for a death by signal."""
        return await asyncio.shield(self._ended)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens once it has ended."""
        if not self._exited.is_set():
            self._popen.send_signal(number)

    async def end(self, number: signal.Signals = signal.SIGTERM, *, grace_s: float) -> int:
        """Ask it to end with *number*, kill it after *grace_s*, and return its exit code."""
        self.send(number)
        try:
            async with asyncio.timeout(grace_s):
                return await self.wait()
        except TimeoutError:
            self.send(signal.SIGKILL)
            return await self.wait()

    async def _watch(self) -> int:
        try:
            await self._exited.wait()
        finally:
            self._forget_exit()
            while self._pipe >= 0 and self._read():  # what it said last
                pass
            self._close_pipe()
            if self._rest:
                self._say(self._rest)
        return self._popen.wait()

    def _read(self) -> bool:
        """Take what is in the pipe; tell whether there was anything."""
        try:
            chunk = os.read(self._pipe, CHUNK)
        except BlockingIOError:
            return False
        if not chunk:
            self._close_pipe()
            return False
        *lines, rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._say(self._in_pieces(line))
        self._rest = self._in_pieces(rest)
        return True

    def _in_pieces(self, line: bytes) -> bytes:
        """Say all of a line but its last piece, which is returned."""
        while len(line) > LINE_MAX:
            self._say(line[:LINE_MAX])
            line = line[LINE_MAX:]
        return line

    def _say(self, line: bytes) -> None:
        self._on_line(line.decode("utf-8", "replace").rstrip("\r"))

    def _close_pipe(self) -> None:
        if self._pipe >= 0:
            self._loop.remove_reader(self._pipe)
            os.close(self._pipe)
            self._pipe = -1
