"""The alarm clock: it rings at even intervals and when it is wound up, and decides nothing.

What is due is for `bot.schedule` to say, from the log; so a ring that is late, doubled or lost changes nothing but the
minute at which a digest is posted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

EVERY_S = 20.0


@asynccontextmanager
async def alarm(ring: Callable[[], None], every_s: float = EVERY_S) -> AsyncIterator[None]:
    """Call *ring* now and every *every_s* seconds, in the event loop, for the length of an `async with`."""

    async def rings() -> None:  # a coroutine runs in the event loop, anything else in a thread
        ring()

    scheduler = AsyncIOScheduler(
        timezone=UTC, job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
    )
    scheduler.add_job(rings, IntervalTrigger(seconds=every_s, timezone=UTC))
    scheduler.start()
    try:
        ring()
        yield
    finally:
        scheduler.shutdown(wait=False)
