"""The loop process after 10,000 experiments: its memory, files, threads, and whether it has become slower.

    python benchmarks/bench_memory.py [--quick]

A process of its own with the real shell, machine, log and git. Scripted are the proposer, which answers at once, and
the executor, which "trains" in no time and without a child: with a process for each training this would take hours.
Half of the changes are kept, each tenth crashes. Log and repository are in memory where there is a folder for that
(/dev/shm), because neither disk nor git's own speed is in question here.
"""

from __future__ import annotations

import asyncio
import json
import platform
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from table import AT, Row, make_repository, memory_folder, run, show_time, times

from eventstore import events as e
from eventstore.bells import Bell
from eventstore.console import new_id, now
from eventstore.envelope import NewEvent
from eventstore.home import Home
from eventstore.store import Store
from eventstore.worker import Worker
from loop.compose import started_event
from loop.effects.hands import Around
from loop.proposers.scripted import Entry, Scripted
from loop.shell import Shell
from loop.workspace import Workspace
from trainer.executors.scripted import Answer, ScriptedExecutor, failed, scored

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventstore.envelope import Event
    from loop.proposers.base import Ask
    from trainer.executors.scripted import ScriptedTraining
    from trainer.spec import TrainingSpec

CHILD = "--child"
SETTINGS = """\
[objective]
name = "cost"
direction = "minimize"
editable = ["program.py"]
[experiment]
command = ["python", "program.py"]
budget_s = 5
timeout_s = 30
[proposer]
kind = "scripted"
[scripted]
file = "none.json"
"""


def measure(quick: bool) -> list[Row]:
    marks = (30, 150, 300) if quick else (1_000, 5_000, 10_000)
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        root = Path(folder)
        (root / "program.py").write_text("COST = 1000000.0\nprint('cost:', COST)\n")
        (root / "nightshift.toml").write_text(SETTINGS)
        make_repository(root)
        asked = e.RunRequested(tag="bench", from_ref="HEAD", zone="UTC", limits=e.Limits(experiments=marks[-1]))
        with Store.open(Home(root).log_path) as log:
            log.append([NewEvent("ask", "bench", AT, "bench", asked)])
        command = (sys.executable, __file__, CHILD, folder, *map(str, marks))
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    first, middle, last = (json.loads(line) for line in done.stdout.splitlines())
    rows = [
        Row(
            f"memory of the loop after {mark:,} scripted experiments",
            f"{found['rss_mb']:.0f} MB",
            f"after {marks[0]:,}",
            f"{first['rss_mb']:.0f} MB",
            times(found["rss_mb"], first["rss_mb"]),
            *(("1.5 x", found["rss_mb"] <= 1.5 * first["rss_mb"]) if found is last else ()),
        )
        for mark, found in ((marks[1], middle), (marks[2], last))
    ]
    for what in ("files", "threads"):
        held = last[what] <= first[what]
        name = f"{what} it has open" if what == "files" else what
        ratio = times(last[what], first[what])
        rows.append(
            Row(
                f"its {name} after {marks[-1]:,}",
                str(last[what]),
                f"after {marks[0]:,}",
                str(first[what]),
                ratio,
                "1 x",
                held,
            )
        )
    slow, fast = last["each_s"], first["each_s"]
    what = f"its time for an experiment, from {marks[1]:,} to {marks[2]:,}"
    rows.append(Row(what, show_time(slow), f"the first {marks[0]:,}", show_time(fast), times(slow, fast)))
    return rows


# ---------------------------------------------------------------- the loop process


class Forgetful(ScriptedExecutor):
    """Keeps no list of what it ran: here only the loop's own memory is to grow."""

    async def start(self, spec: TrainingSpec, slot: int) -> ScriptedTraining:
        training = await super().start(spec, slot)
        self.started.clear()
        return training


class Marks:
    """Looks at this process each time that a number of experiments is decided, and prints what it saw."""

    def __init__(self, marks: list[int]) -> None:
        self._left = marks
        self._before = 0
        self._began = time.monotonic()
        self._me = psutil.Process()

    def on_event(self, event: Event) -> None:
        if not isinstance(event.data, e.ExperimentDecided) or event.data.experiment != self._left[0]:
            return
        at = self._left.pop(0) if len(self._left) > 1 else self._left[0]
        seen = {
            "rss_mb": self._me.memory_info().rss / 1e6,
            "files": self._me.num_fds(),
            "threads": self._me.num_threads(),
            "each_s": (time.monotonic() - self._began) / (at - self._before),
        }
        self._before, self._began = at, time.monotonic()
        print(json.dumps(seen), flush=True)


async def serve(root: Path, on_event: Callable[[Event], None]) -> None:
    home = Home(root)
    workspace = Workspace.open(root)
    with home.hold():
        async with Worker.open(home.log_path) as log, Bell(home.bells) as bell:

            async def read_at(position: int) -> Event:
                return (await log.read(position - 1, limit=1))[0]

            around = Around(
                home=home,
                workspace=workspace,
                executor=Forgetful(answer, gate=asyncio.Event),
                proposer_of=lambda _settings, _kind, _means: Scripted(propose),
                now=now,
                monotonic=time.monotonic,
                jitter=random.random,
                new_id=new_id,
                read_at=read_at,
                about={"host": platform.node(), "sandbox": "none", "versions": {}},
            )
            shell = Shell(log, around, bell, "loop@bench", on_event)
            await shell.serve(started_event(), until_idle=True)


def propose(ask: Ask) -> Entry:
    n = ask.experiment
    edit = e.SetConstants("program.py", {"COST": 1e6 - n if n % 2 else 2e6 + n})
    return Entry(n, description=f"number {n}", hypothesis="another cost", edits=(edit,))


def answer(spec: TrainingSpec) -> Answer:
    cost = float((spec.workdir / "program.py").read_text().split()[2])
    if int(cost) % 10 == 0 and cost != 1e6:
        return failed("crash", "the command ended with exit code 1", tail="ValueError: no such cost\n")
    return scored(cost)


if __name__ == "__main__":
    if sys.argv[1:2] == [CHILD]:
        asyncio.run(serve(Path(sys.argv[2]), Marks([int(mark) for mark in sys.argv[3:]]).on_event))
    else:
        run(__doc__, measure)
