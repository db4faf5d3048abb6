"""The clock of the loopback Slack: one that tests turn by hand, and one that follows the event loop."""

from __future__ import annotations

import asyncio
from typing import Protocol

START_S = 1_763_676_000.0
"""Unix seconds at which a clock starts unless told otherwise: 2025-11-20 22:00 UTC."""


class Clock(Protocol):
    """Unix seconds, and a way to wait for a moment of them."""

    def now(self) -> float:
        """Tell the time, in Unix seconds."""
        ...

    async def until(self, moment: float) -> None:
        """Wait until `now()` is at least *moment*."""
        ...


class ManualClock:
    """Stands still until `advance` is called; whoever waits for a moment that has come is woken."""

    def __init__(self, start: float = START_S) -> None:
        self._now = start
        self._waiting: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass."""
        self._now += seconds
        for moment, waiter in self._waiting:
            if moment <= self._now and not waiter.done():
                waiter.set_result(None)
        self._waiting = [(moment, waiter) for moment, waiter in self._waiting if not waiter.done()]

    async def until(self, moment: float) -> None:
        if moment > self._now:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append((moment, waiter))
            await waiter


class LoopClock:
    """Runs with the event loop, from *start* (Unix seconds) at its first use."""

    def __init__(self, start: float = START_S) -> None:
        self._start = start
        self._first: float | None = None

    def now(self) -> float:
        loop = asyncio.get_running_loop().time()
        if self._first is None:
            self._first = loop
        return self._start + loop - self._first

    async def until(self, moment: float) -> None:
        await asyncio.sleep(max(0.0, moment - self.now()))
