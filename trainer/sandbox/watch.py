"""Watch what a tree of processes uses, cheaply, for the limits that the kernel does not keep.

Most looks read two short files of /proc: how many tasks the machine has, how much memory it has left. Only if one of
them moved by as much as the limit are the processes themselves, or the files of the work folder, counted.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from trainer import marks
from trainer.sandbox.plan import DISK_FLOOR_MB, MIB, Limits, Machine, Seen, excess, floor_mb, memory_mb
from trainer.spec import Cut

COUNTING_SHARE_MAX = 0.1
"""Counting memory exactly may take this share of a core."""


class Watch:
    """
    The looks at one tree.

    Args:
        folder: The work folder, whose size is limited.
    """

    def __init__(self, tree: marks.Tree, folder: Path, limits: Limits, machine: Machine) -> None:
        self._tree = tree
        self._folder = folder
        self._limits = limits
        self._machine = machine
        self._tasks = _tasks()
        self._shared_mb = _memory()[1]
        self._free_mb = _free_mb(folder)
        self._count_again_at = 0.0

    def look(self, resident_mb: float | None = None) -> tuple[Cut, str] | None:
        """
        Say why the tree must be killed, and the sentence for people; None if it may go on.

        Args:
            resident_mb: MiB that it holds, where the caller has just looked.
        """
        tasks = _tasks()
        counted = tasks is not None and self._tasks is not None and tasks - self._tasks > self._limits.processes
        available, shared = _memory()
        grown = max(0.0, shared - self._shared_mb)
        free = _free_mb(self._folder)
        full = free < DISK_FLOOR_MB or self._free_mb - free > self._limits.disk_mb
        seen = Seen(
            held_mb=self._held_mb(resident_mb, available, grown),
            tasks=self._tree.tasks() if counted else None,
            written_mb=_size_mb(self._folder, self._limits.disk_mb) if full else None,
            disk_free_mb=free,
            available_mb=available,
            shared_grown_mb=grown,
        )
        return excess(seen, self._limits, self._machine)

    def _held_mb(self, resident_mb: float | None, available_mb: float | None, grown_mb: float) -> float | None:
        """MiB that the tree holds, counted exactly, which is slow, where a quick look says that it may be too much.

        The quick look counts pages that processes share in each of them, so it may say so all the time.
        """
        most = memory_mb(self._limits, self._machine)
        scarce = available_mb is not None and available_mb < floor_mb(self._machine)
        nameless = grown_mb > most / 2  # files without a name are memory of nobody
        if not (scarce or nameless or (resident_mb is not None and resident_mb > most)):
            return None
        if time.monotonic() < self._count_again_at:
            return None
        began = time.monotonic()
        held = self._tree.proportional_bytes() + (self._tree.nameless_bytes() if nameless else 0)
        took = time.monotonic() - began
        self._count_again_at = began + took / COUNTING_SHARE_MAX
        return held / MIB


def _tasks() -> int | None:
    """Processes and threads of the machine."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])
    return None


def _memory() -> tuple[float | None, float]:
    """MiB of memory that the machine has left, and that is shared or in files in memory."""
    found = {}
    with contextlib.suppress(OSError, ValueError, IndexError), Path("/proc/meminfo").open() as file:
        for line in file:
            name, _, value = line.partition(":")
            if name in {"MemAvailable", "Shmem"}:
                found[name] = int(value.split()[0]) / 1024
    return found.get("MemAvailable"), found.get("Shmem", 0.0)


def _free_mb(folder: Path) -> float:
    try:
        disk = os.statvfs(folder)
    except OSError:
        return 0.0
    return disk.f_bavail * disk.f_frsize / MIB


def _size_mb(folder: Path, enough_mb: float) -> float:
    """MiB of the files below *folder*, no further counted than *enough_mb* and a bit; no link is followed."""
    total = 0.0
    for path, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(f"{path}/{name}").st_blocks * 512 / MIB
        if total > enough_mb:
            break
    return total
