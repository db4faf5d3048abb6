"""How long a device waits between two experiments: from `training.finished` to the next `training.started`.

    python benchmarks/bench_gap.py [--experiments 30] [--seconds 1.0]

A real loop process, real git and real child processes; proposals are ready ahead. The gap holds everything in
between: scoring, verdict, branch move, results.tsv, preparing and committing the next edit, a fresh folder, the
start of the child. Half of the experiments are kept. The floor is measured in the same run: one child that does
nothing (fork, exec, exit) and the durable appends alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from eventstore import events as e
from eventstore.envelope import NewEvent, parse_at
from eventstore.home import Home
from eventstore.store import Store

AT = "2026-01-01T00:00:00.000000Z"
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiments", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_workspace(root, options.experiments, options.seconds)
        floor_ms = floor(root)
        subprocess.run((sys.executable, "-m", "nightshift", "-C", folder, "loop", "--until-idle"), check=True)
        gaps_ms = sorted(gaps(root))
    p50, p90, worst = median(gaps_ms), gaps_ms[int(0.9 * len(gaps_ms))], gaps_ms[-1]
    print(f"gap between trainings, {len(gaps_ms)} gaps: p50 {p50:.0f} ms, p90 {p90:.0f} ms, max {worst:.0f} ms")
    print(f"floor in the same run (10 durable appends and one empty child): {floor_ms:.0f} ms")
    print(f"p50 / floor = {p50 / floor_ms:.1f}")


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
    identity = ("-c", "user.name=Bench", "-c", "user.email=bench@example.org")
    for args in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "start")):
        subprocess.run(("git", *identity, *args), cwd=root, check=True)
    asked = e.RunRequested(tag="bench", from_ref="HEAD", zone="UTC", limits=e.Limits(experiments=experiments))
    with Store.open(Home(root).log_path) as log:
        log.append([NewEvent("ask", "bench", AT, "bench", asked)])


def floor(root: Path) -> float:
    """Milliseconds of what no loop can do without, on this disk, now."""
    began = time.perf_counter()
    with Store.open(root / "floor.db") as log:
        opened = time.perf_counter() - began
        for n in range(10):
            log.append([NewEvent(f"n{n}", "", AT, "bench", e.LoopStopped(why="floor"))])
    subprocess.run((sys.executable, "-S", "-c", ""), check=True)
    return (time.perf_counter() - began - opened) * 1000


def gaps(root: Path) -> list[float]:
    with Store.open(Home(root).log_path) as log:
        events = list(log.stream())
    out, finished = [], None
    for event in events:
        if isinstance(event.data, e.TrainingFinished):
            finished = parse_at(event.at)
        elif isinstance(event.data, e.TrainingStarted) and finished is not None:
            out.append((parse_at(event.at) - finished).total_seconds() * 1000)
    return out


if __name__ == "__main__":
    main()
