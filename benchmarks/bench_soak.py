"""10,000 scripted experiments in one loop process: what it holds, and what an experiment costs it, from first to last.

    python benchmarks/bench_soak.py [--quick]

A process of its own with the real shell, machine, log and git; the night of `bench_memory`. Ten marks on the way show
whether anything grows: resident memory, open files, threads, child processes, and processor time for an experiment.
Time by the clock is told besides; it has the disk and the neighbours in it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from bench_memory import SETTINGS, serve
from table import AT, Row, make_repository, memory_folder, run, show_time, times

from eventstore import events as e
from eventstore.envelope import NewEvent
from eventstore.home import Home
from eventstore.store import Store

if TYPE_CHECKING:
    from eventstore.envelope import Event

CHILD = "--child"
MARKS = 10


def measure(quick: bool) -> list[Row]:
    total = 300 if quick else 10_000
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        root = Path(folder)
        (root / "program.py").write_text("COST = 1000000.0\nprint('cost:', COST)\n")
        (root / "nightshift.toml").write_text(SETTINGS)
        make_repository(root)
        asked = e.RunRequested(tag="bench", from_ref="HEAD", zone="UTC", limits=e.Limits(experiments=total))
        with Store.open(Home(root).log_path) as log:
            log.append([NewEvent("ask", "bench", AT, "bench", asked)])
        command = (sys.executable, __file__, CHILD, folder, str(total))
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seen = [json.loads(line) for line in done.stdout.splitlines()]
    for at in seen:
        print(json.dumps(at), file=sys.stderr)
    return [_row(seen, *what) for what in WHAT]


WHAT = (
    ("memory", "rss_mb", 1.5, "{:.0f} MB"),
    ("open files", "files", 1.0, "{:.0f}"),
    ("threads", "threads", 1.0, "{:.0f}"),
    ("child processes", "children", 1.0, "{:.0f}"),
    ("processor time for an experiment", "cpu_s", 1.25, ""),
    ("time for an experiment", "each_s", None, ""),
)


def _row(seen: list[dict[str, float]], name: str, key: str, most: float | None, form: str) -> Row:
    """The last tenth beside the first one."""
    first, last = seen[0], seen[-1]
    show = form.format if form else show_time
    target = (f"{most:g} x", last[key] <= most * first[key]) if most is not None else ()
    tenths = f"{last['at']:,.0f} experiments"
    ratio = times(last[key], first[key]) if first[key] else "1 x"
    return Row(f"{name} after {tenths}", show(last[key]), f"after {first['at']:,.0f}", show(first[key]), ratio, *target)


class Looks:
    """Looks at this process at each tenth of the way, and prints what it saw."""

    def __init__(self, total: int) -> None:
        self._every = total // MARKS
        self._me = psutil.Process()
        self._began, self._cpu = time.monotonic(), self._used()

    def on_event(self, event: Event) -> None:
        data = event.data
        if not isinstance(data, e.ExperimentDecided) or not data.experiment or data.experiment % self._every:
            return
        gc.collect()
        seen = {
            "at": data.experiment,
            "rss_mb": round(self._me.memory_info().rss / 1e6, 1),
            "files": self._me.num_fds(),
            "threads": self._me.num_threads(),
            "children": len(self._me.children(recursive=True)),
            "cpu_s": (self._used() - self._cpu) / self._every,
            "each_s": (time.monotonic() - self._began) / self._every,
        }
        print(json.dumps(seen), flush=True)
        self._began, self._cpu = time.monotonic(), self._used()

    def _used(self) -> float:
        """Processor time of this process; of its children, git's, none."""
        times_ = self._me.cpu_times()
        return float(times_.user + times_.system)


if __name__ == "__main__":
    if sys.argv[1:2] == [CHILD]:
        asyncio.run(serve(Path(sys.argv[2]), Looks(int(sys.argv[3])).on_event))
    else:
        run(__doc__, measure)
