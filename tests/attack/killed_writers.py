"""Writers that are killed at a random moment: while opening, appending, checkpointing or closing.

    python -m tests.attack.killed_writers LOG SIDE KILLS SEED

Each appends batches of 1 to 4 and writes position and id of what `append` returned to SIDE, which stands for
whoever was told that it is done. Now and then two write at once, and now and then one closes and opens again.
"""

from __future__ import annotations

import os
import random
import sys
import time
from functools import partial
from pathlib import Path

from eventstore.store import Store
from tests.attack.nursery import event, fork, kill

BATCH = 4


def size_of(n: int) -> int:
    """How many events batch *n* of a writer has."""
    return n % BATCH + 1


def write(log: Path, side: Path, writer: str) -> None:
    """Append for ever. Ids are `<writer>-<batch>-<member>`."""
    acknowledged = os.open(side, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    n = 0
    while True:
        with Store.open(log) as store:
            for _ in range(20):
                n += 1
                batch = [event(f"{writer}-{n}-{m}", "x" * (n * 37 % 900)) for m in range(size_of(n))]
                positions = store.append(batch)
                lines = [f"{position} {new.id}\n" for position, new in zip(positions, batch, strict=True)]
                os.write(acknowledged, "".join(lines).encode())


def wait_for_more(side: Path, before: int) -> None:
    """Wait until a writer has acknowledged something, however busy the machine is."""
    deadline = time.monotonic() + 10
    while side.stat().st_size == before and time.monotonic() < deadline:
        time.sleep(0.001)


def main(log: Path, side: Path, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    done = 0
    while done < kills:
        crew = min(chance.choice((1, 1, 1, 2)), kills - done)
        writers = [fork(partial(write, log, side, f"w{done + k}")) for k in range(crew)]
        before = side.stat().st_size
        if chance.random() < 0.8:  # else it may still be opening
            wait_for_more(side, before)
        for pid in writers:
            time.sleep(chance.uniform(0, 0.03))
            kill(pid)
        done += crew


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
