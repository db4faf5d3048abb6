"""A night with a bit of everything: real git, real processes, a scripted proposer, a person who meddles.

The driver (`restart_driver.py`) serves it; the tests of restarts and of replay copy it and look at its end.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eventstore import events as e
from eventstore.envelope import NewEvent
from eventstore.home import Home
from eventstore.maintenance import verify
from eventstore.projections.results import Results
from eventstore.store import Store

DRIVER = Path(__file__).parent / "restart_driver.py"
ROOT = Path(__file__).parents[2]
AT = "2026-01-01T00:00:00.000000Z"

TRAIN = """\
import os, sys, time
A = 5.0
MODE = "ok"
NEXT = 0
GUARD = "ok"
time.sleep(60 if MODE == "sleep" else 0.15)
print("---")
print(f"val_bpb:          {A:.6f}")
print("peak_vram_mb:     10.0")
"""
GUARD = "import pathlib, sys\nsys.exit('GUARD = \"ok\"' not in pathlib.Path('train.py').read_text())\n"
SETTINGS = """\
[objective]
name = "val_bpb"
direction = "minimize"
editable = ["train.py"]
protected = ["guard.py"]
[experiment]
command = ["python", "train.py"]
budget_s = 1
timeout_s = 2
[guard]
command = ["python", "guard.py"]
timeout_s = 20
[proposer]
kind = "scripted"
[scripted]
file = "night.json"
"""


def sets(experiment: int, ask: int | None = None, usd: float = 0.0, **values: Any) -> dict[str, Any]:
    edit = {"edit": "set", "path": "train.py", "values": values}
    entry = {"experiment": experiment, "description": f"set {values}", "edits": [edit], "usd": usd}
    return entry if ask is None else {**entry, "ask": ask}


def replaces(search: str, replace: str) -> dict[str, Any]:
    return {"edit": "blocks", "path": "train.py", "blocks": [{"search": search, "replace": replace}]}


NIGHT = [
    sets(1, A=4.0, usd=0.3),
    sets(2, A=4.5),
    {**sets(3, ask=0), "edits": [replaces("NEXT = 0", "NEXT = misspelt")]},
    {**sets(3, ask=1, usd=0.3), "edits": [replaces("NEXT = misspelt", "NEXT = 3"), replaces("A = 4.0", "A = 3.9")]},
    sets(4, A=3.5),
    sets(5, A=1.0, GUARD="bad"),
    sets(6, A=4.2, NEXT=6),
    sets(8, A=0.1),
    {"experiment": 9, "ask": 0, "fail": "overloaded", "why": "try later"},
    sets(9, ask=1, A=3.4, usd=0.3),
    {
        "experiment": 10,
        "ask": 0,
        "edits": [replaces("nowhere", "x")],
        "description": "search for what is not there",
    },
    sets(10, ask=1, MODE="sleep"),
    sets(11, A=3.3),
]
REQUESTS = (
    e.RunRequested(tag="night", from_ref="HEAD", zone="UTC", limits=e.Limits(experiments=20, usd=1.0), seed=7),
    e.RunRequested(tag="refused", from_ref="no-such-branch", zone="UTC"),
    e.RunRequested(tag="stopped", from_ref="HEAD", zone="UTC", seed=7),
    e.RunRequested(tag="blocked", from_ref="HEAD", zone="UTC", overrides={"scripted.file": "short.json"}, seed=7),
    e.RunRequested(tag="until", from_ref="HEAD", zone="UTC", limits=e.Limits(until=AT), seed=7),
)


def make_workspace(folder: Path) -> Path:
    """A repository and a log with five requests."""
    folder.mkdir()
    for name, text in {
        "train.py": TRAIN,
        "guard.py": GUARD,
        "nightshift.toml": SETTINGS,
        "program.md": "# try what lowers it\n",
        "night.json": json.dumps(NIGHT),
        "short.json": json.dumps([sets(1, A=4.0)]),
    }.items():
        (folder / name).write_text(text)
    for args in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-q", "-m", "start")):
        git(folder, *args)
    (folder / ".nightshift" / "work").mkdir(parents=True)
    (folder / ".nightshift" / "work" / "blocked").write_text("a file where a folder has to be\n")
    with Store.open(Home(folder).log_path) as log:
        log.append([NewEvent(f"ask:{data.tag}", data.tag, AT, "cli:person", data) for data in REQUESTS])
    return folder


def git(folder: Path, *args: str) -> str:
    identity = ("-c", "user.name=A Person", "-c", "user.email=person@example.org")
    return subprocess.run(("git", *identity, *args), cwd=folder, check=True, capture_output=True, text=True).stdout


def serve(folder: Path, kill_after: int = 0) -> int:
    """Run a loop to its end, or to its death; return its exit code."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = (sys.executable, str(DRIVER), str(folder), str(kill_after))
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environ, check=False)
    assert done.returncode in (0, -9), done.stderr
    return done.returncode


@dataclass(frozen=True)
class Ended:
    """What must not depend on when the loop was killed."""

    verdicts: list[tuple[Any, ...]]
    tables: dict[str, str]
    tips: dict[str, str]
    refs: list[str]
    types: Counter[str]


def ended(folder: Path) -> Ended:
    home = Home(folder)
    verify(home.log_path)
    with Store.open(home.log_path) as log:
        events = list(log.stream())
    results = Results()
    for event in events:
        results.apply(event)
    tables = {}
    for tag in ("night", "stopped", "blocked", "until"):
        assert home.results_path(tag).read_text() == results.tsv(tag)
        tables[tag] = without_commits(results.tsv(tag))
    refs = git(folder, "for-each-ref", "--format=%(refname)", "refs/nightshift", "refs/heads").split()
    tips = {ref: git(folder, "rev-parse", f"{ref}^{{tree}}") for ref in refs}
    verdicts = [
        (event.run, x.experiment, x.verdict, x.score, x.gain, x.reason)
        for event in events
        if isinstance(x := event.data, e.ExperimentDecided)
    ]
    return Ended(sorted(verdicts), tables, tips, refs, Counter(event.type for event in events))


def without_commits(table: str) -> str:
    return re.sub(r"^[0-9a-f]{7}\t", "<commit>\t", table, flags=re.MULTILINE)
