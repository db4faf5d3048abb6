"""10,000 scripted experiments in one loop process: what it holds, and what an experiment costs it, from first to last.

    python benchmarks/bench_soak.py [--quick]

A process of its own with the real shell, machine, log and git. Scripted are the proposer, which answers at once, and
the executor, which "trains" in no time and without a child: with a process for each training this would take hours.
Half of the changes are kept, each tenth crashes. Log and repository are in memory where there is a folder for that
(/dev/shm), because neither disk nor git's own speed is in question here.

Ten marks on the way show whether anything grows: resident memory, open files, threads, child processes, and processor
time for an experiment. Time by the clock is told besides; it has the disk and the neighbours in it.
"""

from __future__ import annotations

import asyncio
import gc
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
MARKS = 10
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


# ---------------------------------------------------------------- the loop process


class Forgetful(ScriptedExecutor):
    """Keeps no list of what it ran: here only the loop's own memory is to grow."""

    async def start(self, spec: TrainingSpec, slot: int) -> ScriptedTraining:
        training = await super().start(spec, slot)
        self.started.clear()
        return training


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
