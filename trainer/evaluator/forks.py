"""Forks of this process that do one piece of work, say one thing, and are gone.

A fork of a process with threads is not safe; so nothing here is used by a process that has, or ever had, more than
one. A fork dies with the process that made it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import time
import traceback
from collections.abc import Callable

SAID_BYTES_MAX = 2**20
PR_SET_PDEATHSIG = 1


class Fork:
    """
    Starts a fork that runs *work*, which returns what it has to say, at most `SAID_BYTES_MAX` bytes.

    The fork has no standard input. An exception in it is printed to standard error and it says nothing.
    """

    def __init__(self, work: Callable[[], bytes]) -> None:
        self._read_end, write_end = os.pipe()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            _be_the_fork(work, parent, self._read_end, write_end)
        os.close(write_end)

    def heard(self, deadline: float) -> tuple[bytes, bool]:
        """What it said until it ended, and whether *deadline* (`time.monotonic`, seconds) came first."""
        said = bytearray()
        while len(said) <= SAID_BYTES_MAX:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._read_end], [], [], left)[0]:
                return bytes(said), True
            chunk = os.read(self._read_end, 65_536)
            if not chunk:
                break
            said += chunk
        return bytes(said), False

    def end(self) -> int:
        """Kill it if it is still there. Returns its wait status, as of `os.waitpid`."""
        os.close(self._read_end)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        return os.waitpid(self.pid, 0)[1]


def _be_the_fork(work: Callable[[], bytes], parent: int, read_end: int, write_end: int) -> None:
    """Work, say it and end, never returning to what the parent was doing."""
    code = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before this
            os._exit(1)
        os.close(read_end)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        said = memoryview(work())[:SAID_BYTES_MAX]
        while said:
            said = said[os.write(write_end, said) :]
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
