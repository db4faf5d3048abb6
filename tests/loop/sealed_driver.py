"""A loop that is killed right after it has written one event: `python sealed_driver.py ROOT [TYPE EXPERIMENT]`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from eventstore.envelope import NewEvent
from eventstore.home import Home
from eventstore.worker import Worker
from loop.compose import serve


class DyingWorker(Worker):
    """A worker whose process is killed when an event of a type, of an experiment, has become durable."""

    last: tuple[str, int] = ("", -1)

    async def append(self, events: Sequence[NewEvent], *, expected: int | None = None) -> list[int]:
        positions = await super().append(events, expected=expected)
        if any((event.data.TYPE, getattr(event.data, "experiment", None)) == self.last for event in events):
            os.kill(os.getpid(), signal.SIGKILL)
        return positions


async def main(root: Path, last: Sequence[str]) -> int:
    home = Home(root)
    if last:
        DyingWorker.last = (last[0], int(last[1]))
    with home.hold():
        return await serve(home, until_idle=True, out=Console(quiet=True), open_log=DyingWorker.open)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(Path(sys.argv[1]), sys.argv[2:])))
