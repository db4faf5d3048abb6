"""A real bot process, on a fast clock, that may kill itself around an append. Not a test: `test_killed` starts it.

    python killed_driver.py WORKSPACE BASE_URL BEGAN SPEED MOMENT KEY

Its clock begins at `START_S` at the moment BEGAN of the machine's, runs SPEED times as fast, and is ahead by what the
file `ahead` in the workspace says. MOMENT is `claimed`, `replied` or `appended` of the post KEY (positions left out),
or `never`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from bot.app import Around, serve
from bot.checkup import Tokens
from bot.sandbox.loopback import Loopback
from eventstore import events as e
from eventstore import settings as st
from eventstore.envelope import NewEvent
from eventstore.home import Home
from eventstore.worker import Worker

START_S = datetime(2026, 11, 21, 22, 0, tzinfo=UTC).timestamp()


def named(key: str) -> str:
    """A key without positions, which depend on what else is in the log."""
    return re.sub(r"@\d+|(?<=program/)\d+", "", key)


def moved(root: Path, began: float, speed: float) -> float:
    """The time in Unix seconds."""
    ahead = root / "ahead"
    return START_S + (time.time() - began) * speed + (float(ahead.read_text()) if ahead.exists() else 0.0)


class DyingWorker(Worker):
    """A worker whose process is killed before or right after an append that is about one post."""

    moment = ""
    key = ""

    async def append(self, events: Sequence[NewEvent], *, expected: int | None = None) -> list[int]:
        self._die("replied", e.PostMade, events)
        positions = await super().append(events, expected=expected)
        self._die("claimed", e.PostRequested, events)
        self._die("appended", e.PostMade, events)
        return positions

    def _die(self, moment: str, kind: type[e.PostMade | e.PostRequested], events: Sequence[NewEvent]) -> None:
        about = [named(event.data.key) for event in events if isinstance(event.data, kind)]
        if self.moment == moment and self.key in about:
            os.kill(os.getpid(), signal.SIGKILL)


async def main(root: Path, base_url: str, began: float, speed: float) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    ids = itertools.count(1)
    home = Home(root)
    with contextlib.ExitStack() as stack:
        stack.enter_context(home.hold("bot"))
        await serve(
            Around(
                home=home,
                settings=st.parse(home.settings_path.read_text()),
                tokens=Tokens(Loopback.bot_token, Loopback.app_token),
                base_url=base_url,
                zone="UTC",
                host="box",
                now=lambda: datetime.fromtimestamp(moved(root, began, speed), UTC),
                monotonic=lambda: time.monotonic() * speed,
                new_id=lambda: f"bot-{os.getpid()}-{next(ids):012d}",
                stop=stop,
                ready=(root / f"ready-{os.getpid()}").touch,
                ring_every_s=0.1,
                sleep=lambda seconds: asyncio.sleep(seconds / speed),
                open_log=DyingWorker.open,
            )
        )


if __name__ == "__main__":
    DyingWorker.moment, DyingWorker.key = sys.argv[5:7]
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), float(sys.argv[4])))
