"""How long a person waits for an answer from a log of 10,000 experiments.

    python benchmarks/bench_commands.py [--quick]

Each command is a process of its own, from its start to its end, as in a terminal. `--help` stands beside a bare Python,
the others beside the least that could answer: a process that opens the same file by the same driver, fetches and
decodes every row, and prints nothing.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import night
from bench_replay import fetch_and_decode
from table import Row, interleaved, make_repository, medians, nightshift, run, show_time, times

from eventstore.home import Home

TAG = "nov21"
DECODES = "--decodes"
SETTINGS = '[objective]\nname = "val_bpb"\ndirection = "minimize"\n[experiment]\ncommand = ["true"]\n'


def measure(quick: bool) -> list[Row]:
    experiments, rounds = (2_000, 3) if quick else (10_000, 7)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "nightshift.toml").write_text(SETTINGS)
        make_repository(root)
        log = Home(root).log_path
        night.write(log, night.run_events(TAG, experiments))
        works = (
            lambda: nightshift("--help", cwd=root),
            lambda: subprocess.run((sys.executable, "-c", ""), check=True),
            lambda: nightshift("status", cwd=root),
            lambda: nightshift("results", cwd=root),
            lambda: nightshift("experiment", "show", str(experiments // 2), cwd=root),
            lambda: subprocess.run((sys.executable, __file__, DECODES, str(log)), check=True),
        )
        for work in works:
            work()  # compiled modules and file pages
        helped, bare, status, results, show, decoded = medians(interleaved(rounds, works))
    of = f"of {experiments:,} experiments"
    beside = "a process that decodes the log"
    return [
        Row("nightshift --help", show_time(helped), "python -c ''", show_time(bare), times(helped, bare)),
        Row(f"nightshift status {of}", show_time(status), beside, show_time(decoded), times(status, decoded)),
        Row(f"nightshift results {of}", show_time(results), beside, show_time(decoded), times(results, decoded)),
        Row(f"nightshift experiment show {of}", show_time(show), beside, show_time(decoded), times(show, decoded)),
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == [DECODES]:
        fetch_and_decode(Path(sys.argv[2]))
    else:
        run(__doc__, measure)
