"""Doorbells: how a writer tells the processes that follow a log that something was committed.

A follower binds a Unix datagram socket in the log's `bells` folder and sleeps on it. A ring carries
nothing and may be lost or doubled: what is new is always read from the log.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

SUFFIX = ".bell"

POLL_S = 0.25
"""Safety poll while a bell hangs: the longest that a lost ring can delay an event."""

BELL_LESS_POLL_S = 0.02
"""Poll where no bell can hang (path longer than 107 bytes, no Unix sockets)."""


def ring(bells_dir: Path) -> None:
    """Ring every bell in *bells_dir*. Never waits and never fails: a follower that misses it polls soon."""
    with suppress(OSError):  # no folder: nobody has ever followed
        names = [entry.path for entry in os.scandir(bells_dir) if entry.name.endswith(SUFFIX)]
        if names:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                for name in names:
                    _ring_one(sender, name)


def _ring_one(sender: socket.socket, name: str) -> None:
    try:
        sender.sendto(b"!", name)
    except ConnectionRefusedError:  # its process died without taking it down
        with suppress(OSError):
            Path(name).unlink()
    except OSError:  # a full queue rings already; a bell just taken down needs no ring
        pass


class Bell:
    """
    A bell in *bells_dir* that writers ring after each commit, for the length of an `async with`.

    A ring that comes while nobody waits is kept, so that the next `wait` returns at once.

    Attributes:
        path: The socket, or None where none could be made; `wait` then returns after `BELL_LESS_POLL_S`.
    """

    def __init__(self, bells_dir: Path) -> None:
        self.path: Path | None = None
        self._dir = bells_dir
        self._socket: socket.socket | None = None
        self._rung = asyncio.Event()

    async def __aenter__(self) -> Self:
        path = self._dir / f"{secrets.token_hex(6)}{SUFFIX}"
        hung = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._dir.mkdir(parents=True, exist_ok=True)
            hung.setblocking(False)
            hung.bind(str(path))
            asyncio.get_running_loop().add_reader(hung, self._hear, hung)
        except OSError:  # too long a path, a full or foreign folder, a file system without sockets: poll
            hung.close()
        else:
            self.path, self._socket = path, hung
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._socket is not None and self.path is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            with suppress(OSError):  # someone else took it down
                self.path.unlink()

    async def wait(self, timeout_s: float = POLL_S) -> bool:
        """
        Wait until the bell rings or *timeout_s* is over, and tell whether there may be something new to read.

        False means that the time passed without a ring. Look all the same now and then: a ring can be lost.
        """
        if self._socket is None:
            await asyncio.sleep(min(timeout_s, BELL_LESS_POLL_S))
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await self._rung.wait()
        except TimeoutError:
            return False
        self._rung.clear()
        return True

    def _hear(self, hung: socket.socket) -> None:
        with suppress(BlockingIOError):  # the queue is empty: many rings are one
            while hung.recv(16):
                pass
        self._rung.set()
