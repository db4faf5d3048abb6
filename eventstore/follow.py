"""Following a log live: every event once, in order, soon after its commit.

What is new is always read from the log (`position > after`); the bell only says when to look. The order
is what makes it safe: hang the bell, then read to the head, then wait for a ring or for the safety poll.
A commit after the read rings a bell that already hangs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from eventstore.bells import POLL_S, Bell
from eventstore.envelope import Event
from eventstore.worker import Worker

__all__ = ["Bell", "follow"]


async def follow(worker: Worker, bells_dir: Path, after: int = 0, poll_s: float = POLL_S) -> AsyncIterator[list[Event]]:
    """
    Yield what is in the log behind position *after* and then what is appended, for ever, in non-empty pages.

    Close it (`contextlib.aclosing`) to take the bell down at once rather than when it is collected.

    Raises:
        LogCorrupt: If a row is missing or cannot be read.
        LogUnavailable: If the log cannot be read now.
    """
    async with Bell(bells_dir) as bell:
        while True:
            events = await worker.read(after)
            if events:
                after = events[-1].position
                yield events
            else:
                await bell.wait(poll_s)
