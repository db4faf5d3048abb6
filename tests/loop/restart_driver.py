"""A real loop process that kills itself after the k-th append. Not a test: `test_restart` starts it.

    python restart_driver.py WORKSPACE K

K = 0 never kills. The process stands for a loop and for a person at a terminal: after each append, and at
the start, it appends the person's requests that are due by now. Their ids are fixed, so a request that is in
the log already is not appended twice, whenever the process was killed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from eventstore import events as e
from eventstore.envelope import Event, NewEvent
from eventstore.home import Home
from eventstore.requests import text_hash
from eventstore.worker import Worker
from loop.compose import serve

AT = "2026-01-01T00:00:00.000000Z"


def due(root: Path, events: Sequence[Event]) -> list[tuple[str, str, e.Data]]:
    """What the person asks for, given the log: id, run, request. Also tidies up and meddles where the story says so."""
    out: list[tuple[str, str, e.Data]] = []
    for event in events:
        data = event.data
        match event.run, data:
            case "night", e.ExperimentDecided(experiment=1):
                out.append(("pause", "night", e.RunPauseRequested()))
            case "night", e.RunPaused():
                out.append(("resume", "night", e.RunResumeRequested()))
            case "night", e.ExperimentDecided(experiment=4):
                out.append(("veto", "night", e.KeepVetoed(experiment=4, why="looks wrong")))
            case "night", e.ExperimentDecided(experiment=5):
                out.append(("again", "night", e.ExperimentRequested(of=2)))
                out.append(("program", "", _edit(events)))
            case "night", e.ExperimentDecided(experiment=7):
                out.append(("budget", "night", e.BudgetChanged(limit="experiments", old=20, new=10)))
            case "night", e.ProposalReceived(experiment=8):
                out.append(("reject", "night", e.ProposalRejected(experiment=8, why="not this one")))
            case "night", e.RunFinished():
                base = next(x.data.base_commit for x in events if isinstance(x.data, e.RunStarted))
                subprocess.run(("git", "update-ref", "refs/heads/autoresearch/night", base), cwd=root, check=True)
                out.append(("late veto", "night", e.KeepVetoed(experiment=9)))
            case "stopped", e.TrainingStarted(experiment=1):
                out.append(("stop", "stopped", e.RunStopRequested(mode="now")))
            case "blocked", e.RunPaused():
                if (blocker := root / ".nightshift" / "work" / "blocked").is_file():
                    blocker.unlink()
                out.append(("unblocked", "blocked", e.RunResumeRequested()))
    return out


def _edit(events: Sequence[Event]) -> e.ProgramEdited:
    base = next(event.data.hash for event in events if isinstance(event.data, e.ProgramRecorded))
    text = "# look elsewhere\n"
    return e.ProgramEdited(base_hash=base, hash=text_hash(text), text=text)


class DyingWorker(Worker):
    """A worker whose process is killed right after its k-th append has become durable."""

    appends_left = 0
    root = Path()

    async def append(self, events: Sequence[NewEvent], *, expected: int | None = None) -> list[int]:
        positions = await super().append(events, expected=expected)
        DyingWorker.appends_left -= 1
        if DyingWorker.appends_left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        await self.person()
        return positions

    async def person(self) -> None:
        log: list[Event] = []
        while page := await self.read(len(log)):
            log += page
        for name, run, data in due(self.root, log):
            await super().append([NewEvent(f"person:{name}", run, AT, "cli:person", data)])


async def main(root: Path, kill_after: int) -> int:
    home = Home(root)
    DyingWorker.appends_left = kill_after
    DyingWorker.root = root
    async with DyingWorker.open(home.log_path) as log:
        await log.person()
    with home.hold():
        return await serve(home, until_idle=True, out=Console(quiet=True), open_log=DyingWorker.open)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]))))
