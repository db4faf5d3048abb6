"""How soon another process sees an event, and what it costs to wait for one.

    python benchmarks/bench_follow.py [--quick]

The writer appends here, one event every 5 to 25 ms; the follower is a process of its own. Its time for each event and
the time at which `append` returned are of the same monotonic clock. Negative is possible: the bell rings just before
`append` returns. Beside it, in turns on the same log, a follower as one writes without a bell: a query every 10 ms.
The library has no way to follow its SQLite, so its users write that one too.

The cost of waiting is the processor time of each follower, and of a whole `nightshift loop` without work, over seconds
in which nothing is appended.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import psutil
from table import AT, Row, make_repository, p99, run, show_time, times

from eventstore import events as e
from eventstore.envelope import NewEvent
from eventstore.follow import follow
from eventstore.home import Home
from eventstore.store import Store
from eventstore.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator

POLL_S = 0.010
BELLS, POLLS = "--bells", "--polls"
SETTINGS = '[objective]\nname = "cost"\ndirection = "minimize"\n[experiment]\ncommand = ["true"]\n'


def measure(quick: bool) -> list[Row]:
    blocks, events, idle_s = (1, 80, 2.0) if quick else (4, 120, 5.0)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "nightshift.toml").write_text(SETTINGS)
        make_repository(root)
        home = Home(root)
        seen_s: dict[str, list[float]] = {BELLS: [], POLLS: []}
        with Store.open(home.log_path) as log:
            for _ in range(blocks):
                for kind in (BELLS, POLLS):
                    seen_s[kind] += latencies(log, kind, events)
            idle = {kind: idle_share(log, kind, idle_s) for kind in (BELLS, POLLS)}
        loop = loop_share(root, idle_s)
    polled = idle[POLLS]
    ours, poll = seen_s[BELLS], seen_s[POLLS]
    beside = "a query every 10 ms"
    p50, poll_p50 = median(ours), median(poll)
    return [
        Row(
            f"an event seen by another process after its append, p99 of {len(ours)}",
            show_time(p99(ours)),
            beside,
            show_time(p99(poll)),
            times(p99(ours), p99(poll)),
            "25 ms",
            p99(ours) <= 0.025,
        ),
        Row("the same, p50", show_time(p50), beside, show_time(poll_p50), times(p50, poll_p50)),
        Row(
            "a follower that waits, share of a core",
            f"{idle[BELLS]:.2%}",
            beside,
            f"{polled:.2%}",
            times(idle[BELLS], polled),
            "1 %",
            idle[BELLS] < 0.01,
        ),
        Row(
            "a loop without work, share of a core",
            f"{loop:.2%}",
            beside,
            f"{polled:.2%}",
            times(loop, polled),
        ),
    ]


# ---------------------------------------------------------------- the writer


def latencies(log: Store, kind: str, events: int) -> list[float]:
    """Seconds from the return of each append to when the follower had the event."""
    pause = random.Random(1)
    returned: dict[int, int] = {}
    with follower(log, kind) as child:
        for _ in range(events):
            time.sleep(pause.uniform(0.005, 0.025))
            (position,) = log.append([note(log.head().position + 1)])
            returned[position] = time.monotonic_ns()
        assert child.stdout is not None
        seen = [map(int, child.stdout.readline().split()) for _ in range(events)]
    return [(at - returned[position]) / 1e9 for position, at in seen]


def idle_share(log: Store, kind: str, seconds: float) -> float:
    with follower(log, kind) as child:
        return share(child.pid, seconds)


def loop_share(root: Path, seconds: float) -> float:
    command = (sys.executable, "-m", "nightshift", "-C", str(root), "loop")
    loop = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while Home(root).holder() is None:
            time.sleep(0.05)
        time.sleep(1.0)  # until it waits
        return share(loop.pid, seconds)
    finally:
        loop.terminate()
        loop.wait()


def share(pid: int, seconds: float) -> float:
    """The part of a core that a process takes."""
    before, began = cpu_s(pid), time.monotonic()
    time.sleep(seconds)
    return (cpu_s(pid) - before) / (time.monotonic() - began)


def cpu_s(pid: int) -> float:
    """Processor time so far, to the nanosecond where the kernel tells it, else to 10 ms."""
    try:
        return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9
    except FileNotFoundError:
        spent = psutil.Process(pid).cpu_times()
        return spent.user + spent.system


@contextmanager
def follower(log: Store, kind: str) -> Iterator[subprocess.Popen[str]]:
    """A process that prints the position and its time of every event that is appended from now on."""
    command = (sys.executable, __file__, kind, str(log.path), str(log.head().position))
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        child.stdout.readline()  # it is up
        time.sleep(0.1)
        yield child
    finally:
        child.terminate()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def note(number: int) -> NewEvent:
    return NewEvent(f"note-{number}", "", AT, "bench", e.LoopStopped(why="nothing left to do"))


# ---------------------------------------------------------------- the followers, each a process


async def with_bells(path: Path, after: int) -> None:
    async with Worker.open(path, create=False, check=False) as log:
        print("up", flush=True)
        async for events in follow(log, path.parent / "bells", after):
            tell([event.position for event in events])


def with_polls(path: Path, after: int) -> None:
    with Store.open(path, create=False, check=False) as log:
        print("up", flush=True)
        while True:
            events = log.read(after)
            if events:
                after = events[-1].position
                tell([event.position for event in events])
            time.sleep(POLL_S)


def tell(positions: list[int]) -> None:
    now = time.monotonic_ns()
    for position in positions:
        print(position, now, flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == [BELLS]:
        asyncio.run(with_bells(Path(sys.argv[2]), int(sys.argv[3])))
    elif sys.argv[1:2] == [POLLS]:
        with_polls(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        run(__doc__, measure)
