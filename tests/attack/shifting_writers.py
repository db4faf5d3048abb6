"""Writers that come and go while others follow: some end well, some are killed, some leave sockets of dead followers.

python -m tests.attack.shifting_writers LOG BELLS APPENDS SEED
"""

from __future__ import annotations

import os
import random
import socket
import sys
import time
from functools import partial
from pathlib import Path

from eventstore.store import Store
from tests.attack.nursery import event, fork, kill, status_of


def write(log: Path, name: str, count: int, seed: int) -> None:
    chance = random.Random(seed)
    with Store.open(log, check=False) as store:
        for n in range(count):
            store.append([event(f"{name}-{n}-{m}") for m in range(chance.randint(1, 3))])
            if chance.random() < 0.3:
                time.sleep(chance.uniform(0, 0.004))


def vandalise(bells: Path, chance: random.Random) -> None:
    """Delete a socket that is listened on, leave one whose process is gone, or put a file where a socket should be."""
    hung = sorted(bells.glob("*.bell")) if bells.is_dir() else []
    if hung and chance.random() < 0.5:
        chance.choice(hung).unlink(missing_ok=True)
    os.chdir(bells.parent)  # a socket's path must be short
    name = f"bells/{chance.random()}.bell"
    bells.mkdir(exist_ok=True)
    if chance.random() < 0.5:
        Path(name).touch()
    else:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
            dead.bind(name)


def main(log: Path, bells: Path, appends: int, seed: int) -> None:
    chance, done, k = random.Random(seed), 0, 0
    while done < appends:
        count = chance.randint(5, 60)
        pid = fork(partial(write, log, f"w{k}", count, seed + k))
        vandalise(bells, chance)
        if chance.random() < 0.3:
            time.sleep(chance.uniform(0, 0.1))
            kill(pid)
        elif status_of(pid):
            sys.exit("a writer failed")
        done += count
        k += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
