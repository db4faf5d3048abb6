"""The witness of a log: its last position and chain, kept where the log is not.

The chain finds a row that was altered, removed or moved, as long as a later row follows. A log cut at its
end keeps a valid chain (SQLite itself drops the tail of a damaged WAL without a word), so the head is also
kept in two other places:

- in `<log>.witness`, one line written after each append;
- in the trailer of each experiment's commit (`trailer`), which also shows a log that was rewritten whole,
  as long as the repository was not.

The file may lag: it is written after the commit, so a process killed in between leaves the older line, and
two writers at the same moment may leave the lower of their two positions. A witness ahead of the log
therefore always means that rows are gone. Not covered: someone who rewrites the log, the file and git.

The line has a fixed length and is written in place by one call, with a check sum by which a reader knows
the half of one. A thread then waits for the disk, beside the appends and not in them: waiting in each append
made it 1.4 times as slow, this costs it nothing that could be measured. Rings of several appends become one
sync. What that gives up: rows lost together with a power failure, within the milliseconds before the sync.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from eventstore.envelope import Head
from eventstore.errors import NotALog

TRAILER = "Nightshift-Log"
"""The key of the trailer."""

_LINE = 95
"""Bytes of a witness: 20 digits, 64 and 8 hexadecimal digits, spaces and a line end."""

_READS = 100
"""How often a witness is read that does not add up: a read may overtake half of a write."""


def trailer(head: Head) -> str:
    """The line that names *head* at the end of a commit message: `Nightshift-Log: 412 6f0e…`."""
    return f"{TRAILER}: {head.position} {head.chain.hex()}"


def parse_head(text: str) -> Head | None:
    """Read a position and a chain in hexadecimal, as in the value of a trailer. None for anything else."""
    position, _, chain = text.partition(" ")
    if not (position.isascii() and position.isdigit() and len(position) <= 20 and len(chain) == 64):
        return None
    try:
        return Head(int(position), bytes.fromhex(chain))
    except ValueError:
        return None


def witness_path(log: Path) -> Path:
    """Where the witness of *log* is."""
    return log.with_name(log.name + ".witness")


def read_witness(log: Path) -> Head | None:
    """
    Return the head that the witness of *log* saw, or None if there is no witness.

    Raises:
        NotALog: If the file holds anything else.
    """
    path = witness_path(log)
    try:
        for _ in range(_READS):
            line = path.read_bytes()
            if head := _parse(line):
                return head
    except FileNotFoundError:
        return None
    if not line:  # made, and then killed before it was written
        return None
    raise NotALog(f"{path} was altered: if you know why, remove it, and the log is checked without it")


class Witness:
    """
    The witness of *log*, kept open by a writer. Its methods raise `OSError` where the file cannot be written.

    A fault of the disk in the thread ends the syncing; `close` syncs once more and raises it.
    """

    def __init__(self, log: Path) -> None:
        self._path = witness_path(log)
        self._file: int | None = None
        self._thread: threading.Thread | None = None
        self._seen = threading.Event()
        self._ending = False

    def see(self, head: Head) -> None:
        """Set the witness to *head*, unless it is already there or further. Does not wait for the disk."""
        if self._file is None:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        seen = _parse(os.pread(self._file, _LINE, 0))
        if seen is None or seen.position < head.position:
            os.pwrite(self._file, _line(head), 0)
            self._sync_soon(self._file)

    def close(self) -> None:
        """Wait until what was seen is on the disk."""
        file, self._file = self._file, None
        if self._thread is not None:
            self._ending = True
            self._seen.set()
            self._thread.join()
            self._thread = None
        if file is not None:
            try:
                os.fsync(file)
            finally:
                os.close(file)

    def _sync_soon(self, file: int) -> None:
        if self._thread is None:
            self._ending = False
            self._thread = threading.Thread(target=self._sync, args=(file,), name="witness", daemon=True)
            self._thread.start()
        self._seen.set()

    def _sync(self, file: int) -> None:
        with suppress(OSError):
            sync_folder(self._path.parent)  # the file may be new
            while True:
                self._seen.wait()
                if self._ending:
                    return
                self._seen.clear()
                os.fdatasync(file) if hasattr(os, "fdatasync") else os.fsync(file)


def write_witness(log: Path, head: Head) -> None:
    """Make *head* the witness of *log* whatever it saw before, on the disk when this returns."""
    witness_path(log).unlink(missing_ok=True)
    witness = Witness(log)
    try:
        witness.see(head)
    finally:
        witness.close()
    sync_folder(log.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in *folder* are on the disk."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _line(head: Head) -> bytes:
    line = f"{head.position:020d} {head.chain.hex()}"
    return f"{line} {sha256(line.encode()).hexdigest()[:8]}\n".encode()


def _parse(line: bytes) -> Head | None:
    head = parse_head(line[:85].decode("ascii", "replace"))
    return head if head is not None and _line(head) == line else None
