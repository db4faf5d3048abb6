"""Before GO a training has no text to train on; with GO it gets it, and the clock starts.

The child says READY through a socket and is answered GO with open files. They are copies in memory that nobody can
write any more: a descriptor of the file itself could be opened anew for writing, through /proc, by its owner.

Guaranteed: what was not asked for is not handed in; what is handed in is what its checksum says.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import socket
from collections.abc import Callable, Sequence

from trainer.errors import DataUnusable
from trainer.spec import DataFile

READY = b"READY\n"
GO = b"GO\n"
CHUNK = 2**20


class Data:
    """
    The files of trainings, each read once and kept as long as it is the same file.

    What is no longer asked for is let go, so that it holds one corpus at a time.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[object, ...], int] = {}

    def hold(self, files: Sequence[DataFile]) -> list[int]:
        """
        Descriptors to read *files* by; they belong to this object.

        Raises:
            DataUnusable: If a file cannot be read, or its checksum is another.
        """
        keys = [self._key(file) for file in files]
        for key in self._held.keys() - set(keys):
            os.close(self._held.pop(key))
        for key, file in zip(keys, files, strict=True):
            if key not in self._held:
                self._held[key] = _sealed(file)
        return [self._held[key] for key in keys]

    def close(self) -> None:
        while self._held:
            os.close(self._held.popitem()[1])

    def __del__(self) -> None:
        self.close()

    @staticmethod
    def _key(file: DataFile) -> tuple[object, ...]:
        try:
            facts = file.path.stat()
        except OSError as error:
            raise DataUnusable(f"{file.path} cannot be read ({error.strerror})") from error
        return file.path, file.sha256, facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns


class Gate:
    """
    The harness's side of one training's gate, from before its start to GO.

    Attributes:
        child: The number of the descriptor that the child gets; closed by `listen`.
    """

    def __init__(self, files: Sequence[int]) -> None:
        """*files* are handed in at GO, and remain the caller's."""
        self._files = list(files)
        self._on_go: Callable[[], None] = lambda: None
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self.child = self._theirs.fileno()
        self._heard = b""
        self._loop: asyncio.AbstractEventLoop | None = None

    def listen(self, on_go: Callable[[], None]) -> None:
        """The child runs: wait for it. *on_go* is called at GO, on the event loop."""
        self._theirs.close()
        self._on_go = on_go
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._ours, self._hear)

    def close(self) -> None:
        """Let nobody through any more. Harmless a second time."""
        if self._loop is not None:
            self._loop.remove_reader(self._ours)
            self._loop = None
        self._ours.close()
        self._theirs.close()

    def _hear(self) -> None:
        try:
            said = self._ours.recv(len(READY))
        except BlockingIOError:
            return
        except OSError:
            said = b""
        self._heard += said
        if said and READY.startswith(self._heard) and self._heard != READY:
            return
        if self._heard == READY:
            try:
                socket.send_fds(self._ours, [GO], self._files)
            except OSError:  # it has just ended
                pass
            else:
                self._on_go()
        self.close()


def _sealed(file: DataFile) -> int:
    """A descriptor for reading of a copy that cannot change. Where the system has no such, of the file itself."""
    try:
        with file.path.open("rb") as source:
            if not hasattr(os, "memfd_create"):
                _check(file, hashlib.file_digest(source, "sha256").hexdigest())
                return os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
            memory = os.memfd_create(file.path.name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            try:
                digest = hashlib.sha256()
                while chunk := source.read(CHUNK):
                    digest.update(chunk)
                    _write(memory, chunk)
                _check(file, digest.hexdigest())
                fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
                return os.open(f"/proc/self/fd/{memory}", os.O_RDONLY | os.O_CLOEXEC)  # else it could not be mapped
            finally:
                os.close(memory)
    except OSError as error:
        raise DataUnusable(f"{file.path} cannot be read ({error.strerror})") from error


_SEALS = (
    fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    if hasattr(fcntl, "F_ADD_SEALS")
    else 0
)


def _write(file: int, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(file, rest) :]


def _check(file: DataFile, found: str) -> None:
    if file.sha256 and found != file.sha256:
        raise DataUnusable(f"{file.path} is not what it was when it was made: run `python prepare.py` to make it again")
