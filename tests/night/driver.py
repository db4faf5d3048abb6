"""Real loop processes that die at a point. Not a test: `story.Nursery` starts it.

    python -m tests.night.driver

One process that has loaded everything and opened nothing forks a loop for each line of JSON that it reads,
`{"workspace": …, "record": …, "kill_at": …, "fail_at": …, "errors": …}`, and answers with a line: how the loop ended.
Starting Python for each of some thousand loops would take longer than the loops.

A loop's process stands for a loop and for a person at a terminal, whose requests it appends when they are due: their
ids are fixed, so one that is in the log already is not appended twice.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from eventstore import events as e
from eventstore.envelope import Event, NewEvent
from eventstore.errors import EventstoreError
from eventstore.home import Home
from eventstore.store import Store
from eventstore.worker import Worker
from loop.compose import serve
from tests.night.points import Points

AT = "2026-01-01T00:00:00.000000Z"


def due(events: Sequence[Event]) -> list[tuple[str, str, e.Data]]:
    """What the person asks for, given the log: id, run, request."""
    out: list[tuple[str, str, e.Data]] = []
    for event in events:
        match event.run, event.data:
            case "night", e.ExperimentDecided(experiment=2):
                out.append(("veto", "night", e.KeepVetoed(experiment=1, why="looks wrong")))
            case run, e.RunPaused():
                out.append((f"resume {event.position}", run, e.RunResumeRequested()))
            case run, e.RunRefused(code="trouble"):
                asked = next(x.data for x in events if x.run == run and isinstance(x.data, e.RunRequested))
                out.append((f"again {event.position}", run, asked))
            case "stopped", e.TrainingStarted():
                out.append(("stop", "stopped", e.RunStopRequested(mode="now")))
    return out


class PersonsWorker(Worker):
    """A worker whose process is a person too."""

    async def append(self, events: Sequence[NewEvent], *, expected: int | None = None) -> list[int]:
        positions = await super().append(events, expected=expected)
        await self.person()
        return positions

    async def person(self) -> None:
        log: list[Event] = []
        while page := await self.read(len(log)):
            log += page
        known = {event.id for event in log}
        for name, run, data in due(log):
            if f"person:{name}" not in known:
                await super().append([NewEvent(f"person:{name}", run, AT, "cli:person", data)])


async def run(home: Home) -> int:
    async with PersonsWorker.open(home.log_path) as log:
        await log.person()
    with home.hold():
        return await serve(home, until_idle=True, out=Console(quiet=True), open_log=PersonsWorker.open)


def live(asked: dict[str, Any]) -> int:
    """A loop's whole life, in a process of its own."""
    os.setsid()
    home = Home(Path(asked["workspace"]))
    record = Path(asked["record"]) if asked["record"] else None
    if record is not None or asked["kill_at"] or asked["fail_at"]:
        Points(home.root, kill_at=asked["kill_at"], fail_at=asked["fail_at"], record=record).watch()
    if asked["person"]:
        with Store.open(home.log_path, create=False) as log:
            log.append([NewEvent("person:idea", "", AT, "cli:person", e.IdeaSuggested(text="a colder start"))])
        return 0
    return asyncio.run(run(home))


def fork(asked: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        sys.stdin.close()
        os.dup2(os.open(asked["errors"], os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        os.dup2(2, 1)
        code = live(asked)
    except (EventstoreError, OSError) as error:  # what the command says in one sentence
        print(f"Error: {error}", file=sys.stderr)
        code = 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin:
        _, status = os.waitpid(fork(json.loads(line)), 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
