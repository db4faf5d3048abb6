"""Restores that are killed at a random moment, each judged at once.

    python -m tests.attack.killed_restores ROOT BACKUP LIVE KILLS SEED

ROOT is a workspace, BACKUP a backup of its log, LIVE a copy of its state as it was before. After each kill
the log must be the old one, the new one, or one that is refused; then the restore is asked for again and
must end with the new one. Prints a list of one word per kill, which is what was found: old, new, refused, WRONG.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from statistics import median

from eventstore.errors import EventstoreError
from eventstore.home import Home
from eventstore.maintenance import verify
from eventstore.recovery import check, restore
from tests.attack.nursery import fork, status_of


def state_of(home: Home) -> str:
    try:
        head = verify(home.log_path)
    except EventstoreError:
        return "refused"
    return f"{head.position} {head.chain.hex()}"


def put_back(home: Home, live: Path) -> None:
    shutil.rmtree(home.state)
    shutil.copytree(live, home.state)


def timed(home: Home, backup: Path, live: Path) -> float:
    """How long a whole restore takes, from the fork on."""
    put_back(home, live)
    started = time.monotonic()
    assert status_of(fork(lambda: restore(home, backup, "first"))) == 0
    return time.monotonic() - started


def main(root: Path, backup: Path, live: Path, kills: int, seed: int) -> list[str]:
    home, chance, found = Home(root), random.Random(seed), []
    old, new = state_of(home), f"{(head := verify(backup)).position} {head.chain.hex()}"
    names = {old: "old", new: "new", "refused": "refused"}
    whole_s = median(timed(home, backup, live) for _ in range(7))
    for n in range(kills):
        put_back(home, live)
        pid = fork(lambda: restore(home, backup, "again"))
        time.sleep(chance.uniform(0, whole_s * 1.3))
        os.kill(pid, signal.SIGKILL)
        status_of(pid)
        word = names.get(state_of(home), "WRONG")
        restore(home, backup, f"finish-{n}")
        whole = state_of(home) == new and all(finding.holds for finding in check(home))
        kept = any(state_of_file(file) == old for file in home.state.glob("set-aside/*/events.db"))
        found.append(word if whole and kept else "WRONG")
    return found


def state_of_file(file: Path) -> str:
    try:
        head = verify(file)
    except EventstoreError:
        return "refused"
    return f"{head.position} {head.chain.hex()}"


if __name__ == "__main__":
    print(json.dumps(main(*map(Path, sys.argv[1:4]), *map(int, sys.argv[4:6]))))
