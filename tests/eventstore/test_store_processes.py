"""The log under real processes: killed at random, writing at the same time, out of disk."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eventstore.maintenance import verify
from eventstore.store import Store

StartChild = Callable[..., Any]

EVENT = """
import json, os, sys
from pathlib import Path
from eventstore.envelope import NewEvent
from eventstore.errors import LogUnavailable, PositionConflict
from eventstore.events import RunPaused
from eventstore.store import Store

def event(name, why="x"):
    return NewEvent(id=name, run="nov21", at="2026-11-21T08:00:00.000000Z", actor="loop@box", data=RunPaused(why=why))
"""

ENDLESS = (
    EVENT
    + """
path, side, name = sys.argv[1:]
acknowledged = os.open(side, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
with Store.open(path) as store:
    print("ready", flush=True)
    n = 0
    while True:
        n += 1
        batch = [event(f"{name}-{n}-{m}") for m in range(n % 3 + 1)]
        positions = store.append(batch)
        line = "".join(f"{position} {new.id}\\n" for position, new in zip(positions, batch))
        os.write(acknowledged, line.encode())
"""
)

COUNTED = (
    EVENT
    + """
path, name, count, expecting = sys.argv[1:]
conflicts = 0
with Store.open(path) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    for n in range(int(count)):
        while True:
            try:
                store.append([event(f"{name}-{n}")], expected=store.head().position if expecting == "yes" else None)
                break
            except PositionConflict:
                conflicts += 1
print(conflicts)
"""
)

CRAMPED = (
    EVENT
    + """
import resource
path = sys.argv[1]
positions = []
with Store.open(path) as store:
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    try:
        while True:
            positions += store.append([event(f"full-{len(positions)}", "x" * 5000)])
    except LogUnavailable as error:
        message = str(error)
    readable = [read.position for read in store.stream()]
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
print(json.dumps({"positions": positions, "readable": readable, "message": message}))
"""
)


def test_no_acknowledged_event_is_lost_by_kill_9(child: StartChild, path: Path, tmp_path: Path) -> None:
    """Ten writers one after the other, each killed at a random moment of its appends."""
    side = tmp_path / "acknowledged"
    chance = random.Random(2611)
    for kill in range(10):
        process = child(ENDLESS, path, side, f"writer{kill}")
        assert process.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.005, 0.1))
        process.kill()
        process.wait()
    head = verify(path)
    with Store.open(path) as store:
        found = {read.position: read.id for read in store.stream()}
    lines = side.read_text().splitlines()
    acknowledged = {int(position): id_ for position, id_ in (line.split() for line in lines)}
    print(f"{len(acknowledged)} acknowledged, {len(found)} in the log, 10 kills")
    assert len(acknowledged) > 10
    assert acknowledged.items() <= found.items()
    assert sorted(found) == list(range(1, head.position + 1))
    batches: dict[str, list[int]] = {}
    for id_ in found.values():
        batches.setdefault(id_.rsplit("-", 1)[0], []).append(int(id_.rsplit("-", 1)[1]))
    for name, members in batches.items():  # also what was not acknowledged is whole
        assert members == list(range(int(name.split("-")[1]) % 3 + 1))


def _two_writers(child: StartChild, path: Path, expecting: str) -> list[int]:
    processes = [child(COUNTED, path, name, 100, expecting) for name in ("loop", "bot")]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    conflicts = [int(process.communicate()[0]) for process in processes]
    with Store.open(path) as store:
        ids = [read.id for read in store.stream()]
    assert verify(path).position == 200
    assert sorted(ids) == sorted(f"{name}-{n}" for name in ("loop", "bot") for n in range(100))
    for name in ("loop", "bot"):
        assert [id_ for id_ in ids if id_.startswith(name)] == [f"{name}-{n}" for n in range(100)]
    return conflicts


def test_two_processes_write_at_once_without_gap_or_loss(child: StartChild, path: Path) -> None:
    assert _two_writers(child, path, "no") == [0, 0]


def test_two_processes_that_expect_a_position_only_ever_conflict(child: StartChild, path: Path) -> None:
    print("conflicts:", _two_writers(child, path, "yes"))


def test_a_full_disk_loses_nothing_that_was_acknowledged(child: StartChild, path: Path) -> None:
    """A limit on file size stands for the disk: what fits is kept, what does not is refused in one sentence."""
    answer = json.loads(child(CRAMPED, path).communicate()[0])
    assert len(answer["positions"]) > 5
    assert answer["readable"] == answer["positions"]
    assert "check the disk" in answer["message"] or "no space left" in answer["message"]
    assert verify(path).position == len(answer["positions"])
    with Store.open(path) as store:  # and with room again it goes on
        first = store.read(limit=1)[0]
        assert first.id == "full-0"
