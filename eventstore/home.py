"""Where a workspace keeps its state, and who serves it.

One loop and one bot per workspace: `Home.hold` takes an `flock` on `.nightshift/loop.lock` or `bot.lock`, which the
kernel gives back when the process ends, however it ends. The file stays; what is written in it (pid and host) is for
messages only and says nothing while nobody holds the lock.

An `flock` cannot be looked at, only tried. `Home.holder` tries for a shared one, which never meets
another `holder` call but, for the microseconds until it is given back, would turn an exclusive one away.
So `hold` tries for a second before it gives up. (`F_GETLK` sees another kind of lock; `/proc/locks` is
Linux only and shows wrong process ids across containers.) The lock works between processes of one
machine; do not share a workspace over a network file system.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

from eventstore.errors import Held, NoWorkspace

STATE = ".nightshift"
SETTINGS = "nightshift.toml"

Server = Literal["loop", "bot"]
"""Who serves a workspace: what carries runs out, and what tells Slack of them."""

RETRY_S = 1.0
_TRY_EVERY_S = 0.02


@dataclass(frozen=True, slots=True)
class Home:
    """The paths of the workspace at *root*. Makes no file or folder but for the lock."""

    root: Path

    @classmethod
    def find(cls, start: Path) -> Home:
        """
        Find the workspace that *start* is in: the nearest folder upwards with nightshift.toml or .nightshift.

        Raises:
            NoWorkspace: If there is none up to the root of the file system.
        """
        start = start.resolve()
        for folder in (start, *start.parents):
            if _is_workspace(folder):
                return cls(folder)
        raise NoWorkspace(
            f"no workspace in {start} or above it ({SETTINGS} marks one): "
            "go to one, or make this folder one with `nightshift init`"
        )

    @classmethod
    def at(cls, root: Path) -> Home:
        """The workspace that *root* itself is. Raises `NoWorkspace` if it is none, whatever lies above it."""
        root = root.resolve()
        if not _is_workspace(root):
            raise NoWorkspace(
                f"{root} is no workspace ({SETTINGS} marks one): make it one with `nightshift init {root}`"
            )
        return cls(root)

    @property
    def state(self) -> Path:
        return self.root / STATE

    @property
    def settings_path(self) -> Path:
        return self.root / SETTINGS

    @property
    def log_path(self) -> Path:
        return self.state / "events.db"

    @property
    def bells(self) -> Path:
        return self.state / "bells"

    def lock_path(self, server: Server = "loop") -> Path:
        return self.state / f"{server}.lock"

    @property
    def mark_id(self) -> str:
        """A short id of this workspace, the same from every process that resolves it to the same path."""
        return sha256(os.fsencode(self.root.resolve())).hexdigest()[:16]

    def results_path(self, tag: str) -> Path:
        return self.state / "runs" / tag / "results.tsv"

    def run_dir(self, tag: str, n: int, attempt: int, trial: int) -> Path:
        """Where the log and the artifacts of one training are kept."""
        return self.state / "runs" / tag / str(n) / f"{attempt}.{trial}"

    def work_dir(self, tag: str, n: int, attempt: int, trial: int) -> Path:
        """Where one training runs, on a checkout of its own."""
        return self.state / "work" / tag / str(n) / f"{attempt}.{trial}"

    def handed_dir(self, tag: str, n: int, attempt: int, trial: int) -> Path:
        """The model that one training has handed over, from its end to the verdict."""
        return self.state / "handed" / tag / str(n) / f"{attempt}.{trial}"

    def compiled_dir(self, tag: str) -> Path:
        """What the baseline of a run has compiled, for the experiments after it to begin with a copy of."""
        return self.state / "compiled" / tag

    def evaluator_dir(self, tag: str) -> Path:
        """What the evaluator of a run works with: a copy of the harness, and a folder to stand in."""
        return self.state / "evaluator" / tag

    def guard_dir(self, tag: str, n: int, attempt: int) -> Path:
        """Where the guard of one attempt runs, on a checkout of its own."""
        return self.state / "work" / tag / str(n) / f"{attempt}.guard"

    def proposal_dir(self, tag: str, n: int, ask: int) -> Path:
        """Where one ask for a proposal works, on a checkout of its own."""
        return self.state / "proposals" / tag / str(n) / str(ask)

    @contextmanager
    def hold(self, server: Server = "loop", *, retry_s: float = RETRY_S) -> Iterator[None]:
        """
        Be the one *server* of this workspace for the length of a `with`. Waits up to *retry_s* for the lock.

        A child made by fork without exec would keep the lock; a started program does not inherit it.

        Raises:
            Held: Naming the process that has it.
        """
        self.state.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.lock_path(server), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._take(lock, server, retry_s)
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
            try:
                yield
            finally:
                os.ftruncate(lock, 0)
        finally:
            os.close(lock)  # gives the lock back

    def holder(self, server: Server = "loop") -> str | None:
        """Say who serves this workspace, as in "pid 4711 on gpu-box", or None if nobody does."""
        try:
            lock = os.open(self.lock_path(server), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
        except BlockingIOError:
            return _written_in(lock)
        finally:
            os.close(lock)

    def _take(self, lock: int, server: Server, retry_s: float) -> None:
        deadline = time.monotonic() + retry_s
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    raise Held(server, _written_in(lock)) from error
            time.sleep(_TRY_EVERY_S)


def _is_workspace(folder: Path) -> bool:
    return (folder / SETTINGS).is_file() or (folder / STATE).is_dir()


def _written_in(lock: int) -> str:
    # One that has just taken the lock may not have written yet, and what a killed one wrote may still stand.
    return os.pread(lock, 200, 0).decode("utf-8", "replace").strip() or "a process that is just starting"
