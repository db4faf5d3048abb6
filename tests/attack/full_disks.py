"""Writers that run out of disk, each killed by it at another byte.

    python -m tests.attack.full_disks limit FOLDER TRIALS SEED    a limit on file size (RLIMIT_FSIZE)
    python -m tests.attack.full_disks tmpfs FOLDER TRIALS SEED    a small file system, in a mount namespace of its own

Each appends until it is refused, reads what is there, then (on the tmpfs) room is made and the refused batch is
appended again. Prints one list of faults per trial, empty where everything held.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path

from eventstore.errors import LogUnavailable
from eventstore.maintenance import verify
from eventstore.store import Store
from tests.attack.nursery import event, fork, status_of

SIZE = 1 << 20


def fill_up(path: Path, chance: random.Random) -> tuple[list[int], list[str], list[str]]:
    """Append until refused. Returns the positions, the ids of the refused batch, and what went wrong."""
    faults: list[str] = []
    positions: list[int] = []
    with Store.open(path) as store:
        for n in range(100_000):
            names = [f"e-{n}-{m}" for m in range(chance.randint(1, 4))]
            try:
                positions += store.append([event(name, "x" * chance.randint(1, 4000)) for name in names])
            except LogUnavailable as error:
                if "no space left" not in str(error) and "check the disk" not in str(error):
                    faults.append(f"said {error}")
                break
        if [read.position for read in store.stream()] != positions:
            faults.append("what was acknowledged is not what can be read by the writer")
    with Store.open(path, create=False) as store:
        if [read.position for read in store.stream()] != positions:
            faults.append("what was acknowledged is not what can be read by another")
    if not positions:
        faults.append("nothing fitted at all")
    return positions, names, faults


def limited(path: Path, seed: int, answer: Path) -> None:
    chance = random.Random(seed)
    Store.open(path).close()
    limit = chance.randint(40_000, 400_000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    positions, names, faults = fill_up(path, chance)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    faults += go_on(path, positions, names)
    answer.write_text(json.dumps(faults))


def on_tmpfs(mount: Path, seed: int, answer: Path) -> None:
    chance = random.Random(seed)
    ballast = mount / "ballast"
    ballast.write_bytes(bytes(chance.randint(0, SIZE // 2)))
    path = mount / str(seed) / "events.db"
    try:
        positions, names, faults = fill_up(path, chance)
        ballast.unlink()
        subprocess.run(("mount", "-o", f"remount,size={3 * SIZE}", str(mount)), check=True)
        faults += go_on(path, positions, names)
    finally:
        subprocess.run(("rm", "-rf", str(path.parent)), check=True)
        subprocess.run(("mount", "-o", f"remount,size={SIZE}", str(mount)), check=True)
    answer.write_text(json.dumps(faults))


def go_on(path: Path, positions: list[int], names: list[str]) -> list[str]:
    """With room again: the log is whole and takes the refused batch under its ids."""
    faults = []
    head = verify(path)
    if head.position != len(positions):
        faults.append(f"{len(positions)} acknowledged, {head.position} there")
    with Store.open(path) as store:
        expected = list(range(head.position + 1, head.position + 1 + len(names)))
        if store.append([event(name) for name in names]) != expected:
            faults.append("the refused batch was half there")
    if verify(path).position != expected[-1]:
        faults.append("not good after going on")
    return faults


def main(how: str, folder: Path, trials: int, seed: int) -> list[list[str]]:
    found = []
    for n in range(trials):
        answer = folder / "answer.json"
        answer.unlink(missing_ok=True)
        if how == "limit":
            pid = fork(partial(limited, folder / str(n) / "events.db", seed + n, answer))
        else:
            pid = fork(partial(on_tmpfs, folder / "mount", seed + n, answer))
        status = status_of(pid)
        found.append(json.loads(answer.read_text()) if status == 0 else [f"ended with {status}"])
    return found


if __name__ == "__main__":
    _, how_, folder_, trials_, seed_ = sys.argv
    if how_ == "tmpfs" and os.environ.get("IN_NAMESPACE") != "1":
        os.environ["IN_NAMESPACE"] = "1"
        again = (sys.executable, "-m", "tests.attack.full_disks", *sys.argv[1:])
        os.execvp("unshare", ("unshare", "--map-root-user", "--mount", *again))
    if how_ == "tmpfs":
        (Path(folder_) / "mount").mkdir()
        subprocess.run(("mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", f"{folder_}/mount"), check=True)
    print(json.dumps(main(how_, Path(folder_), int(trials_), int(seed_))))
