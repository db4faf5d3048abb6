"""How long a device waits between two experiments: from `training.finished` to the next `training.started`.

    python benchmarks/bench_gap.py [--quick]

A real loop process, real git and real child processes; proposals are ready ahead. The gap holds everything in
between: scoring, verdict, branch move, results.tsv, preparing and committing the next edit, a fresh folder, the
start of the child. Half of the experiments are kept. The floor is measured in the same run: one child that does
nothing (fork, exec, exit) and the durable appends alone, before the run and after it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from table import AT, Row, make_repository, nightshift, run, show_time, times

from eventstore import events as e
from eventstore.envelope import NewEvent, parse_at
from eventstore.home import Home
from eventstore.store import Store

SETTINGS = """\
[objective]
name = "cost"
direction = "minimize"
editable = ["program.py"]
[experiment]
command = ["python", "-S", "program.py"]
budget_s = 5
timeout_s = 30
[proposer]
kind = "scripted"
[scripted]
file = "script.json"
"""


def measure(quick: bool) -> list[Row]:
    experiments, seconds = (8, 0.3) if quick else (30, 0.5)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_workspace(root, experiments, seconds)
        before_s = median(floor(root / f"floor{n}") for n in range(5))
        nightshift("-C", folder, "loop", "--until-idle", cwd=root)
        floor_s = median((before_s, *(floor(root / f"floor{n}") for n in range(5, 10))))
        gaps_s = gaps(root)
    p50, beside = median(gaps_s), "10 appends and an empty child"
    return [
        Row(
            f"gap between trainings, p50 of {len(gaps_s)}",
            show_time(p50),
            beside,
            show_time(floor_s),
            times(p50, floor_s),
            "100 ms",
            p50 <= 0.1,
        ),
        Row("the longest of them", show_time(max(gaps_s)), beside, show_time(floor_s), times(max(gaps_s), floor_s)),
    ]


def make_workspace(root: Path, experiments: int, seconds: float) -> None:
    (root / "program.py").write_text(f"import time\nCOST = 1000.0\ntime.sleep({seconds})\nprint('cost:', COST)\n")
    (root / "nightshift.toml").write_text(SETTINGS)
    script = [
        {
            "experiment": n,
            "description": f"number {n}",
            "edits": [{"edit": "set", "path": "program.py", "values": {"COST": 1000.0 - n if n % 2 else 2000.0 + n}}],
        }
        for n in range(1, experiments + 1)
    ]
    (root / "script.json").write_text(json.dumps(script))
    make_repository(root)
    asked = e.RunRequested(tag="bench", from_ref="HEAD", zone="UTC", limits=e.Limits(experiments=experiments))
    with Store.open(Home(root).log_path) as log:
        log.append([NewEvent("ask", "bench", AT, "bench", asked)])


def floor(folder: Path) -> float:
    """Seconds of what no loop can do without, on this disk, now."""
    with Store.open(folder / "events.db") as log:
        began = time.perf_counter()
        for n in range(10):
            log.append([NewEvent(f"n{n}", "", AT, "bench", e.LoopStopped(why="floor"))])
        subprocess.run((sys.executable, "-S", "-c", ""), check=True)
        return time.perf_counter() - began


def gaps(root: Path) -> list[float]:
    with Store.open(Home(root).log_path) as log:
        events = list(log.stream())
    out, finished = [], None
    for event in events:
        if isinstance(event.data, e.TrainingFinished):
            finished = parse_at(event.at)
        elif isinstance(event.data, e.TrainingStarted) and finished is not None:
            out.append((parse_at(event.at) - finished).total_seconds())
    return out


if __name__ == "__main__":
    run(__doc__, measure)
