"""Several writers at once, with and without an expected position.

    python -m tests.attack.busy_writers LOG WRITERS APPENDS SEED

Odd writers expect a position and try again on a conflict; each now and then closes and opens, and now and then
repeats a batch that it has written. Prints how many conflicts there were; any other error ends with 1.
"""

from __future__ import annotations

import os
import random
import struct
import sys
from functools import partial
from pathlib import Path

from eventstore.errors import PositionConflict
from eventstore.store import Store
from tests.attack.nursery import event, fork, status_of


def write(log: Path, name: str, appends: int, seed: int, expecting: bool) -> int:
    chance, conflicts, n = random.Random(seed), 0, 0
    while n < appends:
        with Store.open(log, check=chance.random() < 0.1) as store:
            for _ in range(min(chance.randint(1, 60), appends - n)):
                batch = [event(f"{name}-{n}-{m}", "x" * (n % 500)) for m in range(n % 3 + 1)]
                while True:
                    try:
                        positions = store.append(batch, expected=store.head().position if expecting else None)
                        break
                    except PositionConflict:
                        conflicts += 1
                if chance.random() < 0.1 and store.append(batch, expected=0) != positions:
                    raise AssertionError("a repeated batch came back at other positions")
                n += 1
    return conflicts


def main(log: Path, writers: int, appends: int, seed: int) -> int:
    out, into = os.pipe()

    def work(k: int) -> None:
        os.write(into, struct.pack("q", write(log, f"w{k}", appends, seed + k, k % 2 == 1)))

    pids = [fork(partial(work, k)) for k in range(writers)]
    statuses = [status_of(pid, 600) for pid in pids]
    if any(statuses):
        sys.exit(f"writers ended with {statuses}")
    return sum(struct.unpack("q", os.read(out, 8))[0] for _ in pids)


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), *map(int, sys.argv[2:5])))
