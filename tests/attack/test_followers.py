"""Followers see each event once and in order, whatever happens to bells, sockets and writers."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from eventstore.follow import follow
from eventstore.maintenance import verify
from eventstore.store import Store
from eventstore.worker import Worker
from tests.attack.nursery import event
from tests.conftest import Tally

ROOT = Path(__file__).parents[2]
LAST = "the-last"
KINDS = ("rung", "its bells elsewhere", "its socket too long")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder: the whole path of a temporary one may be too long for a socket."""
    monkeypatch.chdir(tmp_path)
    return Path()


def bells_of(kind: str, here: Path) -> Path:
    return {"rung": here / "bells", "its bells elsewhere": here / "elsewhere"}.get(kind, here / ("long" * 30))


async def follow_to_the_end(
    log: Path, bells: Path, after: int, late_s: float, has_seen: asyncio.Event
) -> list[tuple[int, str]]:
    await asyncio.sleep(late_s)
    seen: list[tuple[int, str]] = []
    async with Worker.open(log) as worker, aclosing(follow(worker, bells, after, poll_s=0.05)) as pages:
        async for page in pages:
            seen += [(found.position, found.id) for found in page]
            has_seen.set()
            if seen[-1][1] == LAST:
                return seen
    raise AssertionError("the follower ended by itself")


@pytest.mark.parametrize(
    ("appends", "followers"), [(200, 6), pytest.param(6000, 12, marks=[pytest.mark.long, pytest.mark.timeout(600)])]
)
async def test_followers_see_each_event_once_and_in_order(
    here: Path, tally: Tally, appends: int, followers: int
) -> None:
    log, chance = here / "events.db", random.Random(appends)
    with Store.open(log) as store:
        store.append([event(f"early-{n}") for n in range(20)])
    starts = [chance.choice((0, 7, 20)) for _ in range(followers)]
    have_seen = [asyncio.Event() for _ in starts]
    async with asyncio.timeout(500):
        following = [
            asyncio.create_task(
                follow_to_the_end(log, bells_of(KINDS[k % 3], here), starts[k], chance.uniform(0, 1), have_seen[k])
            )
            for k in range(followers)
        ]
        writing = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.attack.shifting_writers", str(log.resolve()), str((here / "bells").resolve()),
            str(appends), "3", cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert await writing.wait() == 0
        for has_seen in have_seen:  # so that each goes on at least once, however fast the writer was
            await has_seen.wait()
        with Store.open(log) as store:
            store.append([event(LAST)])
            wanted = [(read.position, read.id) for read in store.stream()]
        seen = await asyncio.gather(*following)
    assert verify(log).position == len(wanted) > appends / 2
    for k, found in enumerate(seen):
        count = tally(
            "a follower sees each event once and in order", f"follower, {KINDS[k % 3]}; sockets deleted, writers killed"
        )
        for one, other in zip(found, wanted[starts[k] :], strict=True):
            count.see(one == other)
        assert count.held == count.made
