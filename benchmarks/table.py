"""What the benchmarks share: a row of the one table, the ways to measure, and the machine in words.

A row is a ratio to a peer or a limit that was measured in the same run, because a disk's speed drifts within minutes.
Each `bench_*.py` is a program of its own that prints its rows; `run_all.py` runs them one after the other.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
AT = "2026-01-01T00:00:00.000000Z"
"""The time of events whose time is of no matter."""


@dataclass(frozen=True, slots=True)
class Row:
    """
    One line of the table.

    Attributes:
        what: What was measured, and on how much.
        ours, peer: The two figures with their units.
        beside: What the peer or the limit is.
        ratio: As it is read: "1.32 x", "4.1 x faster".
        target: What it must be, or empty where there is no target.
        is_met: Whether it is; None without a target.
    """

    what: str
    ours: str
    beside: str
    peer: str
    ratio: str
    target: str = ""
    is_met: bool | None = None


def run(about: str | None, measure: Callable[[bool], list[Row]]) -> None:
    """
    The command line of one benchmark: measure, and print the rows.

    Args:
        about: Its docstring.
        measure: Takes whether it shall be quick: fewer and smaller, for a look.
    """
    parser = argparse.ArgumentParser(description=(about or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a look in seconds")
    parser.add_argument("--json", action="store_true", help="rows as JSON, for run_all.py")
    options = parser.parse_args()
    rows = measure(options.quick)
    if options.json:
        print(json.dumps([asdict(row) for row in rows]))
    else:
        print(as_table(rows))


def times(ours: float, peer: float) -> str:
    """How many times the peer's cost ours is."""
    return f"{ours / peer:.2f} x"


def faster(ours: float, peer: float) -> str:
    """How many times faster than the peer ours is; both are times."""
    return f"{peer / ours:.1f} x faster" if peer > ours else f"{ours / peer:.2f} x slower"


def p99(values: Sequence[float]) -> float:
    """The value that 99 of 100 do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(0.99 * len(ordered)) - 1)]


def show_time(seconds: float) -> str:
    """A time in the unit that fits it."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.2f} s"


def interleaved(rounds: int, works: Sequence[Callable[[], object]]) -> list[list[float]]:
    """
    Seconds of each work in each round: A B C, then B C A, and so on, so that drift falls on all alike.

    The collector runs before each and is off during it: a pause belongs to no one of them.
    """
    found: list[list[float]] = [[] for _ in works]
    for turn in range(rounds):
        for step in range(len(works)):
            index = (turn + step) % len(works)
            gc.collect()
            gc.disable()
            try:
                began = time.perf_counter()
                works[index]()
                found[index].append(time.perf_counter() - began)
            finally:
                gc.enable()
    return found


def medians(rounds: Iterable[Sequence[float]]) -> list[float]:
    return [median(values) for values in rounds]


def nightshift(*args: str, cwd: Path, **environ: str) -> None:
    """Run one command of `nightshift` to its end, its output thrown away."""
    command = (sys.executable, "-m", "nightshift", *args)
    subprocess.run(command, check=True, cwd=cwd, env={**os.environ, **environ}, stdout=subprocess.DEVNULL)


def make_repository(root: Path) -> None:
    """Make *root*, with all that is in it, a git repository of one commit."""
    identity = ("-c", "user.name=Bench", "-c", "user.email=bench@example.org")
    for args in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "start")):
        subprocess.run(("git", *identity, *args), cwd=root, check=True)


def memory_folder() -> Path | None:
    """A folder in memory, for what is not about the disk; None where there is none."""
    folder = Path("/dev/shm")
    return folder if folder.is_dir() and os.access(folder, os.W_OK) else None


def as_table(rows: Sequence[Row]) -> str:
    """The rows as Markdown, columns aligned."""
    lines = [("what", "measured", "beside", "its figure", "ratio", "target", "")]
    lines += [(r.what, r.ours, r.beside, r.peer, r.ratio, r.target, _mark(r.is_met)) for r in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    lines.insert(1, tuple("-" * width for width in widths))
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in padded)


def _mark(is_met: bool | None) -> str:
    return "" if is_met is None else "met" if is_met else "MISSED"


def machine() -> str:
    """This machine in words, with the load that others put on it."""
    from eventstore.driver import sqlite3

    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores, {memory_gb:.0f} GB of memory, {_disk()}, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
        f"load {os.getloadavg()[0]:.1f} at the start"
    )


def _disk() -> str:
    """What the temporary folder, on which all this is measured, lies on."""
    device = Path(tempfile.gettempdir()).stat().st_dev
    block = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    if not block.exists():
        return f"a file system without a disk of its own below {tempfile.gettempdir()}"
    name = block.resolve().name
    return f"a virtual disk ({name})" if name.startswith(("vd", "xvd")) else f"the disk {name}"
