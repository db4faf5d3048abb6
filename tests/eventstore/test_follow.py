"""A follower sees every event once and in order, with bells that ring, are lost, or were never hung."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from eventstore.bells import Bell, ring
from eventstore.envelope import NewEvent
from eventstore.follow import follow
from eventstore.store import Store
from eventstore.worker import Worker

MakeEvent = Callable[..., NewEvent]

WRITER = """
import sys, time
from eventstore.envelope import NewEvent
from eventstore.events import RunPaused
from eventstore.store import Store
path, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with Store.open(path) as store:
    for n in range(first, first + count):
        store.append([NewEvent(id=f"id-{n}", run="r", at="2026-11-21T08:00:00.000000Z", actor="a",
                               data=RunPaused(why="x"))])
        time.sleep(0.001 * (n % 4))
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder: the whole path of a temporary one may be too long for a socket."""
    monkeypatch.chdir(tmp_path)
    return Path()


@pytest.fixture
def path(here: Path) -> Path:
    return here / "events.db"


@pytest.fixture
def bells(here: Path) -> Path:
    return here / "bells"


def names_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


async def take(path: Path, bells: Path, count: int, after: int = 0, poll_s: float = 30.0) -> list[str]:
    """Follow until *count* events came. With the long poll only a bell can wake it in time."""
    ids: list[str] = []
    async with (
        Worker.open(path) as worker,
        asyncio.timeout(60),
        aclosing(follow(worker, bells, after, poll_s)) as pages,
    ):
        async for page in pages:
            ids += [found.id for found in page]
            if len(ids) >= count:
                break
    return ids


async def test_what_is_there_comes_first_and_what_follows_comes_after(
    path: Path, bells: Path, child: Callable[..., Any], event: MakeEvent
) -> None:
    """Two writer processes one after the other, the second one being the first restarted."""
    with Store.open(path) as store:
        store.append([event(1), event(2), event(3)])
    taking = asyncio.create_task(take(path, bells, 82, after=1))
    for first in (4, 44):
        writer = child(WRITER, path, first, 40)
        await asyncio.to_thread(writer.wait)
    assert await taking == [f"id-{n}" for n in range(2, 84)]
    assert names_in(bells) == []


async def test_a_ring_wakes_a_follower_at_once(path: Path, bells: Path, event: MakeEvent) -> None:
    with Store.open(path) as store:
        taking = asyncio.create_task(take(path, bells, 1))
        await asyncio.sleep(0.3)
        started = time.monotonic()
        store.append([event(1)])
        assert await taking == ["id-1"]
        assert time.monotonic() - started < 5  # the poll would take 30


async def test_without_its_socket_a_follower_polls(path: Path, bells: Path, event: MakeEvent) -> None:
    with Store.open(path) as store:
        taking = asyncio.create_task(take(path, bells, 20, poll_s=0.05))
        await asyncio.sleep(0.2)
        for name in names_in(bells):
            (bells / name).unlink()
        for n in range(1, 21):
            store.append([event(n)])
            await asyncio.sleep(0.01)
        assert await taking == [f"id-{n}" for n in range(1, 21)]


async def test_with_every_ring_lost_a_follower_polls(path: Path, here: Path, event: MakeEvent) -> None:
    """Its bell hangs where no writer looks."""
    with Store.open(path) as store:
        taking = asyncio.create_task(take(path, here / "elsewhere", 5, poll_s=0.05))
        for n in range(1, 6):
            store.append([event(n)])
            await asyncio.sleep(0.02)
        assert await taking == [f"id-{n}" for n in range(1, 6)]


async def test_rings_without_news_yield_nothing(path: Path, bells: Path, event: MakeEvent) -> None:
    with Store.open(path) as store:
        taking = asyncio.create_task(take(path, bells, 1))
        for _ in range(50):
            ring(bells)
            await asyncio.sleep(0.002)
        store.append([event(1)])
        assert await taking == ["id-1"]


async def test_where_no_socket_fits_a_follower_polls(path: Path, here: Path, event: MakeEvent) -> None:
    deep = here / ("long" * 30)
    with Store.open(path) as store:
        taking = asyncio.create_task(take(path, deep, 3))
        await asyncio.sleep(0.1)
        store.append([event(1), event(2)])
        await asyncio.sleep(0.05)
        store.append([event(3)])
        assert await taking == ["id-1", "id-2", "id-3"]
    assert names_in(deep) == []


async def test_more_than_a_page_comes_in_pages(path: Path, bells: Path, event: MakeEvent) -> None:
    with Store.open(path) as store:
        store.append([event(n) for n in range(1, 2502)])
    assert await take(path, bells, 2501) == [f"id-{n}" for n in range(1, 2502)]


async def test_a_ring_before_the_wait_is_kept(here: Path) -> None:
    async with Bell(here) as bell:
        ring(here)
        await asyncio.sleep(0.01)
        assert await bell.wait(30)
        assert not await bell.wait(0.01)


async def test_many_rings_are_one(here: Path) -> None:
    """More than the socket's queue holds: the writer neither waits nor fails."""
    async with Bell(here) as bell:
        for _ in range(3000):
            ring(here)
        assert await bell.wait(30)
        await asyncio.sleep(0.01)
        assert not await bell.wait(0.01)


async def test_a_bell_can_be_waited_for_together_with_a_task(here: Path) -> None:
    async with Bell(here) as bell:
        waiting, task = asyncio.create_task(bell.wait(30)), asyncio.create_task(asyncio.sleep(0.01))
        done, _ = await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
        assert done == {task}
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        ring(here)
        assert await bell.wait(30)


async def test_every_bell_of_a_folder_is_rung_and_taken_down_after_use(here: Path) -> None:
    async with Bell(here) as one, Bell(here) as other:
        assert one.path != other.path
        ring(here)
        assert await one.wait(30)
        assert await other.wait(30)
    assert names_in(here) == []


async def test_a_bell_too_long_for_a_socket_says_so_and_asks_to_look_soon(here: Path) -> None:
    async with Bell(here / ("long" * 30)) as bell:
        assert bell.path is None
        started = time.monotonic()
        assert await bell.wait(30)
        assert time.monotonic() - started < 5


def test_the_bell_of_a_dead_process_is_taken_down(here: Path) -> None:
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    dead.bind(os.fspath(here / "dead.bell"))
    dead.close()
    (here / "README").touch()
    ring(here)
    assert names_in(here) == ["README"]


def test_ringing_where_nobody_ever_followed_does_nothing(here: Path) -> None:
    ring(here / "bells")
    assert names_in(here) == []
