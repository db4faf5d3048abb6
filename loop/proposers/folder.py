"""What a program that nobody has read did to a folder: looked at, and removed, without trusting anything in it.

Guaranteed: no link is followed, no pipe, socket or device is opened, and reading stops at bounds that the caller or
this module sets. Whatever was left, of any depth and with any permissions that the owner can lift, is removed.
Only for a folder in which nothing runs any more.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from loop.errors import LoopError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FOLDER = "a folder"
LINK = "a symbolic link"
SPECIAL = "a pipe, a socket or a device"
CLOSED = "a folder that cannot be read"
UNREADABLE = "it cannot be read"
DELETED = "deleted"

SKIPPED = frozenset({".git", "__pycache__"})
"""Names that are not looked at, at any depth."""

COMPARED_MAX = 2**20
"""Bytes of a file that is compared by its content; a larger one by its size, its times and its inode."""

COMPARED_IN_ALL_MAX = 2**26
DEPTH_MAX = 64


class Unfit(LoopError):
    """The folder, or a file in it, is not fit to be read. *why* is a phrase such as "a symbolic link"."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(why)


@dataclass(frozen=True, slots=True)
class Seen:
    """
    An entry as it was seen.

    Attributes:
        kind: Empty for a plain file, else what it is instead.
        digest: Of the content, or of where a link leads; empty where it was not read.
        stamp: Inode, size and times, which a change moves.
    """

    kind: str
    digest: bytes = b""
    stamp: tuple[int, ...] = ()

    def is_as(self, other: Seen) -> bool:
        """Whether the entry was not changed; permissions aside."""
        if self.kind != other.kind:
            return False
        return self.digest == other.digest if self.digest and other.digest else self.stamp == other.stamp


@dataclass(slots=True)
class _Budget:
    entries: int
    compared: int = field(default=COMPARED_IN_ALL_MAX)


def survey(root: Path, entries_max: int) -> dict[str, Seen]:
    """
    Look at every entry under *root*, by its path with forward slashes.

    Raises:
        Unfit: If *root* is no folder any more, or holds more than *entries_max* entries.
    """
    try:
        if not stat.S_ISDIR(os.lstat(root).st_mode):
            raise Unfit("the folder itself was replaced")
    except FileNotFoundError as error:
        raise Unfit("the folder itself was removed") from error
    found: dict[str, Seen] = {}
    budget = _Budget(entries_max)
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            for name, seen in _listing(root, folder, budget):
                found[name] = seen
                if seen.kind == FOLDER:
                    pending.append(name)
        except OSError:
            found[folder] = Seen(CLOSED)
    return found


def _listing(root: Path, folder: str, budget: _Budget) -> Iterator[tuple[str, Seen]]:
    if folder.count("/") >= DEPTH_MAX:
        raise OSError(errno.ENAMETOOLONG, "too deep")
    with os.scandir(root / folder) as entries:
        for entry in entries:
            if entry.name in SKIPPED:
                continue
            budget.entries -= 1
            if budget.entries < 0:
                raise Unfit("the folder holds too many files")
            yield f"{folder}/{entry.name}".lstrip("/"), _seen(entry, budget)


def _seen(entry: os.DirEntry[str], budget: _Budget) -> Seen:
    try:
        facts = entry.stat(follow_symlinks=False)
        stamp = (facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
        if stat.S_ISDIR(facts.st_mode):
            return Seen(FOLDER)
        if stat.S_ISLNK(facts.st_mode):
            return Seen(LINK, hashlib.sha256(os.fsencode(os.readlink(entry.path))).digest())  # noqa: PTH115 - no Path yet
        if not stat.S_ISREG(facts.st_mode):
            return Seen(SPECIAL)
        if facts.st_size > min(COMPARED_MAX, budget.compared):
            return Seen("", stamp=stamp)
        budget.compared -= facts.st_size
        return Seen("", hashlib.sha256(read_plain(entry.path, COMPARED_MAX)).digest(), stamp)
    except OSError:
        return Seen(UNREADABLE)
    except Unfit as unfit:
        return Seen(unfit.why)


def differences(before: Mapping[str, Seen], after: Mapping[str, Seen]) -> dict[str, str]:
    """
    What was made, changed or deleted, by path: what stands there now (empty: a plain file), or `DELETED`.

    Folders by themselves are no difference, only one where something else was.
    """
    found: dict[str, str] = {}
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if new is None:
            if old is not None and old.kind != FOLDER:
                found[path] = DELETED
        elif old is None:
            if new.kind != FOLDER:
                found[path] = new.kind
        elif not new.is_as(old):
            found[path] = new.kind
    return found


def read_plain(path: str | Path, most: int) -> bytes:
    """
    Read a plain file of at most *most* bytes.

    Raises:
        Unfit: If it is something else, larger, not there, or not to be opened. Links on the way are not looked for.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Unfit(LINK if error.errno == errno.ELOOP else UNREADABLE) from error
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Unfit(SPECIAL)
        data = file.read(most + 1)
    if len(data) > most:
        raise Unfit(f"larger than {_size(most)}")
    return data


def _size(n_bytes: int) -> str:
    return f"{n_bytes // 2**20} MiB" if n_bytes >= 2**20 else f"{n_bytes // 2**10} KiB"


def remove(folder: Path) -> None:
    """
    Remove *folder* with all that is in it; it may be missing. A link in its place is removed, not what it leads to.

    Inner folders are moved up before they are emptied, so that no depth is too deep for the system's longest path.

    Raises:
        OSError: If something cannot be removed.
    """
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
        return
    if not folder.exists():
        return
    numbers = count()
    while inner := _cleared(folder):
        for path in inner:
            for deeper in _cleared(path):
                target = next(p for n in numbers if not os.path.lexists(p := folder / f".{n}"))
                deeper.rename(target)
            path.rmdir()
    folder.rmdir()


def _cleared(folder: Path) -> list[Path]:
    """Delete what is in *folder* but for the folders in it, which are returned, open to their owner."""
    inner = []
    folder.chmod(0o700)
    with os.scandir(folder) as entries:
        listing = list(entries)
    for entry in listing:
        path = folder / entry.name
        if entry.is_dir(follow_symlinks=False):
            path.chmod(0o700)  # to be moved elsewhere, a folder must be writable itself
            inner.append(path)
        else:
            path.unlink()
    return inner
