"""The alarm clock."""

from __future__ import annotations

import asyncio
import time

from bot.scheduler import alarm


async def test_it_rings_when_it_is_wound_up_and_again_in_the_event_loop() -> None:
    rung = asyncio.Queue[asyncio.AbstractEventLoop]()
    async with alarm(lambda: rung.put_nowait(asyncio.get_running_loop()), every_s=0.02):
        assert rung.qsize() == 1
        for _ in range(3):
            assert await asyncio.wait_for(rung.get(), 5) is asyncio.get_running_loop()


async def test_a_ring_that_is_late_is_not_lost_and_not_doubled() -> None:
    rung: list[float] = []
    async with alarm(lambda: rung.append(time.monotonic()), every_s=0.1):
        time.sleep(0.35)  # noqa: ASYNC251 (the event loop is held up: three rings are due)
        await asyncio.sleep(0.02)
        assert len(rung) == 2


async def test_afterwards_it_is_silent() -> None:
    rung: list[float] = []
    async with alarm(lambda: rung.append(0.0), every_s=0.01):
        pass
    count = len(rung)
    await asyncio.sleep(0.05)
    assert len(rung) == count
