"""Write the tables that people read.

Guaranteed: after a whole write a table is the old one or the new one, never a part (temporary file, fsync, rename).
Most changes add a row at the end; that row alone is then appended, in one write, if the file is as it was left. So a
row costs the same after ten thousand of them. A power cut may take a part of an appended row: the next loop compares
every table with the log at its start and writes what differs whole.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from eventstore.home import Home
from eventstore.projections.results import Extent, Results


@dataclass(frozen=True, slots=True)
class _Left:
    """How a file was left: which rows of which run it holds, and by what it is known again."""

    tag: str
    extent: Extent
    inode: int
    size: int


@dataclass(slots=True)
class Tables:
    """The results.tsv of each run, and the copy in the root of the run that was started last."""

    home: Home
    _left: dict[Path, _Left] = field(default_factory=dict)

    def write(self, results: Results, tag: str, is_newest: bool) -> None:
        """Bring a run's table up to date; for the run started last, also the copy. Raises `OSError`."""
        self._write(self.home.results_path(tag), results, tag)
        if is_newest:
            self._write(self.home.root / "results.tsv", results, tag)

    def _write(self, path: Path, results: Results, tag: str) -> None:
        extent = results.extent(tag)
        left = self._left.pop(path, None)  # if this fails, the next write is a whole one
        added = results.added(tag, left.extent) if left is not None and left.tag == tag else None
        if left is None or added is None or not _append(path, left, added.encode()):
            _replace(path, results.tsv(tag).encode())
        facts = path.stat()
        self._left[path] = _Left(tag, extent, facts.st_ino, facts.st_size)


def _append(path: Path, left: _Left, data: bytes) -> bool:
    """Add *data* to a file that is as it was left; False if it is not, or takes only a part."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        facts = os.fstat(file)
        if (facts.st_ino, facts.st_size) != (left.inode, left.size):
            return False
        if data:
            if os.write(file, data) != len(data):
                return False
            os.fsync(file)
        return True
    finally:
        os.close(file)


def _replace(path: Path, data: bytes) -> None:
    try:
        if path.read_bytes() == data:
            return
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
