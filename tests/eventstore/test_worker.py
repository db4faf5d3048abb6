"""The asyncio face of the log: order, errors, and what a cancelled caller leaves behind."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlite_utils import Database

from eventstore.connection import connect
from eventstore.envelope import GENESIS, Head, NewEvent
from eventstore.errors import InvalidEvent, LogUnavailable, NotALog, PositionConflict
from eventstore.events import RunPaused
from eventstore.store import Store
from eventstore.worker import Worker

MakeEvent = Callable[..., NewEvent]


def lock(path: Path) -> Database:
    """Hold the write lock of the log, as another process would."""
    other = connect(path)
    other.conn.execute("BEGIN IMMEDIATE")
    return other


async def test_what_is_appended_can_be_read(path: Path, event: MakeEvent) -> None:
    async with Worker.open(path) as worker:
        assert await worker.head() == Head(0, GENESIS)
        assert await worker.append([event(1), event(2)]) == [1, 2]
        assert await worker.append([event(3)], expected=2) == [3]
        read = await worker.read()
        assert [found.id for found in read] == ["id-1", "id-2", "id-3"]
        assert [found.id for found in await worker.read(1, limit=1)] == ["id-2"]
        assert await worker.head() == Head(3, read[-1].chain)


async def test_calls_are_carried_out_in_the_order_they_were_made(path: Path, event: MakeEvent) -> None:
    async with Worker.open(path) as worker:
        positions = await asyncio.gather(*(worker.append([event(n)]) for n in range(1, 31)))
        assert positions == [[n] for n in range(1, 31)]


async def test_errors_pass_as_they_are_and_the_worker_goes_on(path: Path, event: MakeEvent) -> None:
    async with Worker.open(path) as worker:
        with pytest.raises(InvalidEvent):
            await worker.append([event(1, data=RunPaused(why="\ud800"))])
        with pytest.raises(PositionConflict):
            await worker.append([event(1)], expected=7)
        assert await worker.append([event(1)]) == [1]


async def test_a_log_that_cannot_be_opened_leaves_no_thread(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("words, only words\n" * 99)
    before = threading.active_count()
    for path, error in ((tmp_path / "notes", NotALog), (tmp_path, LogUnavailable)):
        with pytest.raises(error):
            async with Worker.open(path):
                pass
    assert threading.active_count() == before


async def test_an_append_in_hand_outlives_its_cancelled_caller(path: Path, event: MakeEvent) -> None:
    async with Worker.open(path) as worker:
        other = lock(path)
        in_hand = asyncio.create_task(worker.append([event(1), event(2)]))
        queued = asyncio.create_task(worker.append([event(3)]))
        await asyncio.sleep(0.05)
        in_hand.cancel()
        queued.cancel()
        assert [type(result) for result in await asyncio.gather(in_hand, queued, return_exceptions=True)] == [
            asyncio.CancelledError
        ] * 2
        other.conn.execute("ROLLBACK")
        other.conn.close()
        assert [found.id for found in await worker.read()] == ["id-1", "id-2", "id-3"]
        assert await worker.append([event(1), event(2)]) == [1, 2]


async def test_leaving_waits_for_what_was_asked_before(path: Path, event: MakeEvent) -> None:
    async with Worker.open(path) as worker:
        other = lock(path)
        asked = asyncio.create_task(worker.append([event(1)]))
        await asyncio.sleep(0.05)
        asked.cancel()
        asyncio.get_running_loop().call_later(0.1, other.conn.execute, "ROLLBACK")
    other.conn.close()
    with Store.open(path) as store:
        assert store.head().position == 1


async def test_the_event_loop_goes_on_while_an_append_waits_for_a_lock(path: Path, event: MakeEvent) -> None:
    async with Worker.open(path) as worker:
        other = lock(path)
        waiting = asyncio.create_task(worker.append([event(1)]))
        for _ in range(5):
            await asyncio.sleep(0.01)
        assert not waiting.done()
        other.conn.execute("ROLLBACK")
        other.conn.close()
        assert await waiting == [1]


async def test_a_list_changed_after_the_call_is_appended_as_it_was(path: Path, event: MakeEvent) -> None:
    async with Worker.open(path) as worker:
        other = lock(path)
        blocker = asyncio.create_task(worker.append([event(1)]))
        batch = [event(2)]
        asked = asyncio.create_task(worker.append(batch))
        await asyncio.sleep(0.02)
        batch.clear()
        other.conn.execute("ROLLBACK")
        other.conn.close()
        assert (await blocker, await asked) == ([1], [2])


async def test_an_opening_whose_caller_is_cancelled_closes_again(path: Path) -> None:
    before = threading.active_count()

    async def open_and_stay() -> None:
        async with Worker.open(path):
            await asyncio.sleep(60)

    for delay_s in (0.0, 0.001, 0.01, 0.05):
        task = asyncio.create_task(open_and_stay())
        await asyncio.sleep(delay_s)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert threading.active_count() == before


async def test_a_leaving_that_is_cancelled_too_still_finishes_in_the_thread(path: Path, event: MakeEvent) -> None:
    started = asyncio.Event()
    left = []

    async def append_and_leave() -> None:
        async with Worker.open(path) as worker:
            left.append(asyncio.create_task(worker.append([event(1)])))
            started.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(append_and_leave())
    await started.wait()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await left[0] == [1]
    with Store.open(path) as store:
        assert store.head().position == 1


async def test_what_a_call_raises_after_its_caller_was_cancelled_is_printed_nowhere(
    path: Path, event: MakeEvent
) -> None:
    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: complaints.append(about))
    async with Worker.open(path) as worker:
        held = lock(path)
        asking = asyncio.create_task(worker.append([event(1)], expected=7))  # refused, once it has the lock
        await asyncio.sleep(0.05)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        held.conn.execute("ROLLBACK")
        held.conn.close()
        assert await worker.append([event(2)]) == [1]
    gc.collect()
    assert complaints == []
