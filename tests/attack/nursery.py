"""What the attacks' own processes share: events, forks, and where time runs out.

An attack with thousands of processes cannot afford to start Python for each, so one process that has opened
nothing forks them. Run as `python -m tests.attack.<name>`; the answer is JSON on stdout.
"""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable

from eventstore.envelope import NewEvent
from eventstore.events import RunPaused

AT = "2026-11-21T08:00:00.000000Z"


def event(name: str, why: str = "x") -> NewEvent:
    return NewEvent(id=name, run="nov21", at=AT, actor="loop@box", data=RunPaused(why=why))


def fork(work: Callable[[], object]) -> int:
    """Do *work* in a child and return its process id. The child ends with 0, or with 1 after an error."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def kill(pid: int) -> None:
    """kill -9, and wait for the end."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def status_of(pid: int, limit_s: float = 60.0) -> int:
    """Wait for a child and return its exit status, negative for a signal; one that hangs is killed."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    kill(pid)
    return -signal.SIGKILL
