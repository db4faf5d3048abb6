"""A short night that has every kind of effect in it, and what must be the same whenever its loop was killed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import psutil

from eventstore import events as e
from eventstore.envelope import NewEvent
from eventstore.home import Home
from eventstore.maintenance import verify
from eventstore.projections.results import Results
from eventstore.store import Store
from tests.loop.story import git, without_commits

ROOT = Path(__file__).parents[2]
AT = "2026-01-01T00:00:00.000000Z"

TRAIN = """\
exec 9<../../../../../alive
flock -n 9 || { echo two trainings at once; exit 3; }
A=5
C=0
E=0
# here
mkdir -p artifacts && echo $A > artifacts/model
echo ---
echo "val_bpb: $((A + C + E)).0"
echo "peak_vram_mb: 10.0"
"""
"""It holds a lock while it lives: a second one beside it would fail, and the night would end otherwise."""

SETTINGS = """\
[objective]
name = "val_bpb"
direction = "minimize"
editable = ["train.sh"]
protected = ["guard.sh"]
[experiment]
command = ["sh", "train.sh"]
budget_s = 1
timeout_s = 20
[guard]
command = ["sh", "guard.sh"]
timeout_s = 20
[proposer]
kind = "scripted"
[scripted]
file = "night.json"
[sandbox]
read = ["alive"]
"""


def replaces(experiment: int, ask: int | None, search: str, replace: str) -> dict[str, Any]:
    block = {"edit": "blocks", "path": "train.sh", "blocks": [{"search": search, "replace": replace}]}
    entry = {"experiment": experiment, "description": f"{search} to {replace}", "edits": [block]}
    return entry if ask is None else {**entry, "ask": ask}


SLIP = "echo train.sh:6: misspelt && exit 4"
NIGHT = [
    replaces(1, None, "A=5", "A=4"),
    replaces(2, None, "C=0", "C=1"),
    replaces(3, 0, "# here", SLIP),
    replaces(3, 1, SLIP, "B=2"),
    replaces(4, None, "E=0", "E=-2"),
]
"""A keep that is vetoed, a discard, a crash whose repair is no better, and a keep that stays."""

NIGHT_REQUEST = e.RunRequested(tag="night", from_ref="HEAD", zone="UTC", limits=e.Limits(experiments=4), seed=7)
STOPPED_REQUEST = e.RunRequested(
    tag="stopped", from_ref="HEAD", zone="UTC", seed=7, overrides={"experiment.command": ["sh", "-c", "sleep 30"]}
)


def make_workspace(folder: Path, *requests: e.RunRequested, nap_s: float = 0) -> Path:
    """A repository and a log with requests; each training takes *nap_s* longer than it must."""
    folder.mkdir(parents=True)
    for name, text in {
        "train.sh": TRAIN.replace("# here", f"sleep {nap_s:g}\n# here") if nap_s else TRAIN,
        "guard.sh": "! grep -q misspelt train.sh\n",
        "nightshift.toml": SETTINGS,
        "program.md": "# try what lowers it\n",
        "night.json": json.dumps(NIGHT),
        "alive": "",
    }.items():
        (folder / name).write_text(text)
    for args in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-q", "-m", "start")):
        git(folder, *args)
    with Store.open(Home(folder).log_path) as log:
        log.append([NewEvent(f"ask:{data.tag}", data.tag, AT, "cli:person", data) for data in requests])
    return folder


class Nursery:
    """Forks loops, see `driver`. For use in a `with`. *environ* is theirs, ours by default."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = os.environ if environ is None else environ

    def __enter__(self) -> Self:
        environ = {**self._environ, "PYTHONPATH": str(ROOT)}
        command = (sys.executable, "-m", "tests.night.driver")
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environ
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def serve(
        self, folder: Path, *, kill_at: str = "", fail_at: str = "", record: Path | None = None, person: bool = False
    ) -> int:
        """
        Run a loop to its end, or to its death; return its exit code: 0, -9, or 1 if it said that it cannot go on.

        Args:
            person: Instead of a loop, a person who appends one request and goes.
        """
        errors = self.errors(folder)
        asked = {
            "workspace": str(folder),
            "kill_at": kill_at,
            "fail_at": fail_at,
            "record": str(record or ""),
            "errors": str(errors),
            "person": person,
        }
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        assert code in (0, 1, -9), f"ended with {code}\n{errors.read_text()}"
        return code

    @staticmethod
    def errors(folder: Path) -> Path:
        """Where a loop's stderr goes."""
        return folder.with_name(f"{folder.name}.errors")


@dataclass(frozen=True)
class Ended:
    """What must not depend on when the loop was killed."""

    verdicts: list[tuple[Any, ...]]
    moves: list[tuple[Any, ...]]
    finished: list[tuple[Any, ...]]
    tables: dict[str, str]
    trees: dict[str, str]
    files: list[str]
    processes: list[str]
    types: Counter[str]


ADDED_BY_A_RESTART = frozenset(
    {"loop.started", "loop.stopped", "proposal.failed", "proposal.requested",
     "training.requested", "training.started", "training.finished"}
)  # fmt: skip


def ended(folder: Path) -> Ended:
    home = Home(folder)
    verify(home.log_path)
    with Store.open(home.log_path) as log:
        events = list(log.stream())
    results = Results()
    for event in events:
        results.apply(event)
    tables = {}
    for tag in results.tags:
        assert home.results_path(tag).read_text() == results.tsv(tag)
        tables[tag] = without_commits(results.tsv(tag))
    tables["in the root"] = without_commits((folder / "results.tsv").read_text())
    refs = git(folder, "for-each-ref", "--format=%(refname)").split()
    found = [(event.run, event.data) for event in events]
    return Ended(
        verdicts=[
            (run, x.experiment, x.verdict, x.score, x.gain, x.reason)
            for run, x in found
            if isinstance(x, e.ExperimentDecided)
        ],
        moves=[(run, x.experiment, x.why) for run, x in found if isinstance(x, e.BranchMoved)],
        finished=[(run, x.reason) for run, x in found if isinstance(x, e.RunFinished)],
        tables=tables,
        trees={ref: git(folder, "rev-parse", f"{ref}^{{tree}}") for ref in refs},
        files=left_files(folder),
        processes=left_processes(folder),
        types=Counter(event.type for event in events),
    )


def left_files(folder: Path) -> list[str]:
    """Every file and folder of the workspace, and what is not meant to stay in the repository."""
    found = []
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        in_git = name.startswith(".git/")
        if name.endswith(".lock") if in_git else not name.startswith(MAY_DIFFER):
            found.append(name)
    return sorted(found)


MAY_DIFFER = (".nightshift/tmp", ".nightshift/bells", ".nightshift/runs/stopped/0/0.0/")
"""Folders that are made when they are needed; of a training that was stopped there is a result or there is none."""


def left_processes(folder: Path) -> list[str]:
    """Processes that work in the workspace or name it."""
    left = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = [*(process.info["cmdline"] or ()), process.info["cwd"] or ""]
        if any(re.search(rf"{re.escape(str(folder))}(/|$)", word) for word in words):
            left.append(" ".join(words))
    return left


def differences(reference: Ended, found: Ended) -> list[str]:
    out = []
    for field in fields(Ended):
        there, here = getattr(reference, field.name), getattr(found, field.name)
        if field.name != "types" and there != here:
            if field.name == "files":
                there, here = sorted(set(there) - set(here)), sorted(set(here) - set(there))
            out.append(f"{field.name}: {str(here)[:600]} instead of {str(there)[:600]}")
    extra = found.types - reference.types
    out += [f"extra {name}" for name in extra if name not in ADDED_BY_A_RESTART]
    out += [f"missing {name}" for name in reference.types - found.types if name != "loop.stopped"]
    return out
