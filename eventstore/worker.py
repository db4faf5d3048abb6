"""The log for asyncio: one thread owns the connection, everyone awaits it.

SQLite connections belong to a thread, and an append may wait for the disk or, up to 10 s, for another
writer. Calls run one after the other in the order they were made.

A call that was made is carried out: a caller cancelled while awaiting `append` does not learn the
positions, but the batch is in the log whole, or, if the append failed, not at all. Appending it again
with the same ids tells.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeVar

from eventstore.envelope import Event, Head, NewEvent
from eventstore.log import Log
from eventstore.store import Store

T = TypeVar("T")


class Worker:
    """A log behind its thread. Errors of the log pass through as they are. Made by `open`."""

    def __init__(self, log: Log, thread: ThreadPoolExecutor) -> None:
        self._log = log
        self._thread = thread

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path | str, *, create: bool = True, check: bool = True) -> AsyncIterator[Worker]:
        """
        Open the log at *path* for the length of an `async with`. Arguments and errors are those of `Store.open`.

        Leaving waits for the calls made before, also for those whose callers were cancelled.
        """
        opened = ExitStack()  # entered and closed in the thread, to which the connection belongs
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="eventstore") as thread:
            try:
                log = await _carried_out(
                    thread, lambda: opened.enter_context(Store.open(path, create=create, check=check))
                )
                yield cls(log, thread)
            finally:  # behind all calls in the queue, an opening whose caller was cancelled among them
                await _carried_out(thread, opened.close)

    async def append(self, events: Sequence[NewEvent], *, expected: int | None = None) -> list[int]:
        """Append a batch, all of it or nothing, and return the positions. See `log.Log.append`."""
        batch = tuple(events)  # the caller's list may change before the thread gets to it
        return await _carried_out(self._thread, lambda: self._log.append(batch, expected=expected))

    async def read(self, after: int = 0, limit: int = 1000) -> list[Event]:
        """Return at most *limit* events behind position *after*, in order. See `log.Log.read`."""
        return await _carried_out(self._thread, lambda: self._log.read(after, limit=limit))

    async def head(self) -> Head:
        """Return where the log ends."""
        return await _carried_out(self._thread, self._log.head)


async def _carried_out(thread: ThreadPoolExecutor, call: Callable[[], T]) -> T:
    """
    Run *call* in the thread. Cancelling the caller does not take it out of the queue.

    What it raises is the caller's; one that was cancelled has gone, and asyncio is not to print it instead.
    """
    carried_out = asyncio.get_running_loop().run_in_executor(thread, call)
    carried_out.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.shield(carried_out)
