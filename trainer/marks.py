"""Find and kill processes by the mark in their environment, and whole trees of them.

Every command we start carries `NIGHTSHIFT_MARK=<workspace id>/<tag>/<experiment>/<nonce>`, and all its children
inherit it: also those that left the process group, the session and their parent. What is not found: a process
that cleared its environment, left the session and lost its parent, all before it was first looked at. Only a PID
namespace holds such a one.

SIGKILL at once, never SIGTERM: the code is not trusted, and whatever it would do with the warning is unwanted.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterable, Iterator

import psutil

from trainer.errors import WouldNotDie
from trainer.spec import MARK_VARIABLE

PATIENCE_S = 10.0
"""How long a killed process may take to go: the driver may have much memory to give back."""

LOOK_AGAIN_S = 0.005
GONE = (psutil.NoSuchProcess, psutil.ZombieProcess)


def find_marked(prefix: str) -> list[int]:
    """
    Find the living processes whose mark is *prefix* or lies under it, ourselves excepted.

    Args:
        prefix: A whole mark, or its first parts without a slash at the end, such as the workspace's id.
    """
    return sorted(process.pid for process in _marked(prefix))


def kill_marked(workspace_id: str) -> list[int]:
    """
    Kill every process with a mark of this workspace, until none is left; return the pids.

    It blocks, for milliseconds as a rule: the first thing a loop does when it holds the lock.

    Raises:
        WouldNotDie: If some are still there after 10 s.
    """
    killed: set[int] = set()
    patience_ends = time.monotonic() + PATIENCE_S
    dying: list[psutil.Process] = []
    while found := [*_marked(workspace_id), *(process for process in dying if is_alive(process))]:
        if time.monotonic() > patience_ends:
            raise WouldNotDie(sorted({process.pid for process in found}))
        kill(found)
        killed |= {process.pid for process in found}
        dying = found
        time.sleep(LOOK_AGAIN_S)
    return sorted(killed)


class Tree:
    """
    A process with all that came of it, remembered so that an orphan is still known as one of the tree.

    Look often enough: a process is found by its mark, as a child of one that was seen alive, or because it
    was seen before. Process ids are never trusted alone, psutil compares the start time as well.
    """

    def __init__(self, root: psutil.Process, mark: str) -> None:
        self.root = root
        self._mark = mark
        self._seen: dict[int, psutil.Process] = {}

    def resident_bytes(self) -> int:
        """Memory that the tree holds now; pages shared by two processes count in both."""
        return sum(_resident(process) for process in [self.root, *self._family()])

    def proportional_bytes(self) -> int:
        """Memory that the tree holds now, a page that several processes share divided by their number. It walks all
        their pages: a millisecond for some hundred MB."""
        return sum(_proportional(process) for process in [self.root, *self._family()])

    def tasks(self) -> int:
        """Processes and threads of the tree, the root's own among them."""
        return sum(_tasks(process) for process in [self.root, *self._family()])

    def nameless_bytes(self) -> int:
        """Memory in files without a name that processes of the tree have open; it shows in no process's own."""
        found: dict[tuple[int, int], int] = {}
        for process in [self.root, *self._family()]:
            with contextlib.suppress(OSError):
                for descriptor in os.scandir(f"/proc/{process.pid}/fd"):
                    with contextlib.suppress(OSError):
                        if os.readlink(descriptor.path).startswith("/memfd:"):  # noqa: PTH115
                            file = os.stat(descriptor.path)  # noqa: PTH116
                            found[file.st_dev, file.st_ino] = file.st_blocks * 512
        return sum(found.values())

    def living(self) -> list[psutil.Process]:
        """Every process of the tree that is alive, but for the root. It reads all of /proc: some milliseconds."""
        found = {process.pid: process for process in self._family()}
        found |= {process.pid: process for process in _marked(self._mark) if process.pid not in found}
        found.pop(self.root.pid, None)
        self._seen = found
        return [process for process in found.values() if is_alive(process)]

    def _family(self) -> list[psutil.Process]:
        """Descendants of the root, and of those seen earlier whose parent is gone."""
        found = {process.pid: process for process in _descendants(self.root)}
        for orphan in [process for pid, process in self._seen.items() if pid not in found and is_alive(process)]:
            found[orphan.pid] = orphan
            found |= {child.pid: child for child in _descendants(orphan)}
        self._seen = found
        return list(found.values())


def kill(processes: Iterable[psutil.Process]) -> None:
    """Send SIGKILL to each that is still the process it was. One that is gone, or not ours to kill, is passed over:
    the caller looks again until none is left, or its patience ends."""
    for process in processes:
        with contextlib.suppress(*GONE, psutil.AccessDenied):
            process.kill()


def is_alive(process: psutil.Process) -> bool:
    """Tell whether it still runs. One that has ended and only waits to be collected is not alive."""
    try:
        return process.is_running() and process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except GONE:
        return False


def _marked(prefix: str) -> Iterator[psutil.Process]:
    for pid in psutil.pids():
        if pid == os.getpid() or not _bears(pid, prefix):
            continue
        with contextlib.suppress(*GONE):
            process = psutil.Process(pid)
            if _bears(pid, prefix) and is_alive(process):  # again: the pid may have passed to another meanwhile
                yield process


def _bears(pid: int, prefix: str) -> bool:
    mark = _mark_of(pid)
    return mark is not None and (mark == prefix or mark.startswith(f"{prefix}/"))


def _mark_of(pid: int) -> str | None:
    """The mark in a process's environment, or None where it has none or its environment is not ours to read."""
    if not sys.platform.startswith("linux"):
        with contextlib.suppress(psutil.Error):
            return psutil.Process(pid).environ().get(MARK_VARIABLE)
        return None
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123 - a Path would double the cost of a whole scan
            environment = file.read()
        name = f"{MARK_VARIABLE}=".encode()
        return next((os.fsdecode(v[len(name) :]) for v in environment.split(b"\0") if v.startswith(name)), None)
    return None


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except GONE:
        return []


def _proportional(process: psutil.Process) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open(f"/proc/{process.pid}/smaps_rollup", "rb") as file:  # noqa: PTH123
            line = next((line for line in file if line.startswith(b"Pss:")), b"Pss: 0 kB")
        return int(line.split()[1]) * 1024
    return 0


def _tasks(process: psutil.Process) -> int:
    with contextlib.suppress(*GONE, psutil.AccessDenied):
        return int(process.num_threads())
    return 0


def _resident(process: psutil.Process) -> int:
    with contextlib.suppress(*GONE, psutil.AccessDenied):
        return int(process.memory_info().rss)
    return 0
