"""Where a process can be killed: a recorder around every door, and a way to die at any point that it found.

The recorder is an audit hook and a profile function of the interpreter, put on by the driver of a test: the product
has no port for it and cannot forget to call one. Every file that is opened for writing, renamed, made or removed,
every process that is started or signalled, every socket that is bound or written to raises an audit event by itself,
wherever the code for it is, so a new effect adds a point by itself. What raises none is seen as the call of a
built-in function: a transaction begun, filled and committed, a line written in place, a process that has been made.

A point lies before each effect; and after those whose next one may be another thread's: transactions, starts,
signals and writes in place. A point is named by its door, by what happens there, and by which time it is:
`git update-ref refs/heads/autoresearch/night #2`. So the same point is found again though threads run otherwise.

Not seen: what SQLite and git do inside of a statement or a command. `tests/attack` kills inside the one; the other
goes on without us, which is what happens to a git command whose loop is killed.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir
from typing import Any

HARMLESS = re.compile(
    r"array\.|builtins\.|code\.|compile|cpython\.|ctypes\.|exec|fcntl\.|function\.|gc\.|glob\.|import|marshal\.|mmap\.|"
    r"object\.|os\.(add_dll|fwalk|getxattr|listdir|listxattr|putenv|scandir|unsetenv|walk)|pathlib\.|pickle\.|resource\.|"
    r"setopencodehook|shutil\.|signal\.pthread_kill|socket\.(__new__|get|connect)|sqlite3\.|sys\.|tempfile\.|time\."
)
"""Audit events that change nothing outside the process, or are made of others that are seen."""

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
AFTER_TOO = frozenset({"os.kill", "os.killpg"})
_CHANGING = re.compile(r"[0-9a-f]{12,}|(?<=tmp/git-)\w+|(?<=\.)\d+(?=\.partial)|\b\d{2,}\b")


class _Here(threading.local):
    """What a thread is about."""

    inside = False
    in_transaction = False
    started = "process"
    after = ""


class Points:
    """
    Counts the points that this process comes to.

    Args:
        root: The workspace; paths in names are relative to it.
        kill_at: The name of the point to die at, or empty.
        fail_at: The name of the point at which the disk is full for once, or empty.
        record: Where names are written, a line each, or None.
    """

    def __init__(self, root: Path, *, kill_at: str = "", fail_at: str = "", record: Path | None = None) -> None:
        self._root = str(root)
        self._kill_at = kill_at
        self._fail_at = fail_at
        self._counts: Counter[str] = Counter()
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._here = _Here()
        self._record = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644) if record is not None else -1

    def watch(self) -> None:
        """Begin, in this thread and those that are started from now on."""
        sys.addaudithook(self._audit)
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)

    def come_to(self, name: str) -> None:
        """Be at a point: write it down, or die. Raises `OSError` where the disk is to be full."""
        if os.getpid() != self._pid:  # a child between fork and exec: its own end is the next point
            return
        with self._lock:
            self._counts[name] += 1
            name = f"{name} #{self._counts[name]}"
            if name == self._kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            if self._record >= 0:
                os.write(self._record, f"{name}\n".encode())
        if name == self._fail_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """What the recorder does is no effect of the loop."""
        self._here.inside = True
        try:
            yield
        finally:
            self._here.inside = False

    # ------------------------------------------------------------ audit events

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if HARMLESS.match(event) or self._here.inside:
            return
        with self._inside():
            name = self._name(event, args)
            if name:
                self.come_to(name)
                self._here.after = name if event in AFTER_TOO else ""

    def _name(self, event: str, args: tuple[Any, ...]) -> str:
        if event == "open":
            path, _, flags = args
            if not isinstance(path, str | bytes | os.PathLike) or not flags & WRITES:
                return ""
            text = os.fsdecode(path)
            if self._is_nothing(text) or Path(text).is_dir():  # a folder: for a file without a name
                return ""
            return f"file open {self._short(text)}"
        if event == "subprocess.Popen":
            name = self._command([os.fsdecode(word) for word in args[1]])
            self._here.started = name
            return name
        if event in ("os.kill", "os.killpg"):
            return f"process {event} {signal.Signals(args[1]).name}" if args[1] else ""
        door = "bell" if event.startswith("socket.") else "file" if event.startswith("os.") else "other"
        words = [os.fsdecode(x) for x in args if isinstance(x, str | bytes | os.PathLike)]
        return "" if any(map(self._is_nothing, words)) else " ".join((door, event, *map(self._short, words)))

    def _is_nothing(self, path: str) -> bool:
        """Whether what happens to *path* is nothing to another loop: files of the system, and temporary ones."""
        return not path.startswith(self._root) and path.startswith(("/dev/", "/proc/", f"{gettempdir()}/"))

    def _command(self, argv: list[str]) -> str:
        """A command by what it is, without the words that are different each time."""
        if (at := next((i for i, word in enumerate(argv) if Path(word).name == "git"), None)) is not None:
            words = argv[at + 1 :]
            while words and words[0] == "-c":
                words = words[2:]
            refs = [word for word in words[1:] if word.startswith("refs/")]
            return self._short(" ".join(("git", *words[:1], *refs)))
        return self._short(f"process start {Path(argv[0]).name} {' '.join(argv[-2:])[-40:]!r}")

    def _short(self, text: str) -> str:
        return _CHANGING.sub("…", text.replace(self._root, ""))

    # ------------------------------------------------------------ calls of built-in functions

    def _profile(self, frame: Any, event: str, function: Any) -> None:
        if event == "c_return" and not self._here.inside:
            with self._inside():
                self._returned(frame, function)

    def _returned(self, frame: Any, function: Any) -> None:
        name = function.__name__
        if name in ("kill", "killpg"):
            if self._here.after:
                self.come_to(f"{self._here.after}, done")
                self._here.after = ""
        elif name == "fork_exec":
            self.come_to(f"{self._here.started}, started")
        elif name in ("execute", "executemany"):
            self._transaction(frame, function)
        elif name in ("pwrite", "write") and (
            function.__module__ == "posix" or type(function.__self__).__name__ == "FileIO"
        ):
            self.come_to(f"file {name} in {frame.f_code.co_qualname}, done")

    def _transaction(self, frame: Any, function: Any) -> None:
        """A transaction that was begun, filled or committed by the call that has just returned."""
        connection = function.__self__
        is_open = getattr(connection, "in_transaction", None)
        if is_open is None:
            return
        was_open = self._here.in_transaction
        self._here.in_transaction = is_open
        if is_open and function.__name__ == "executemany":
            self.come_to(f"store filled {self._batch(frame)}")
        elif is_open != was_open:
            self.come_to(f"store {'begun' if is_open else 'committed'} {self._batch(frame)}")

    @staticmethod
    def _batch(frame: Any) -> str:
        """The types of the events that are being appended."""
        while frame is not None:
            batch = frame.f_locals.get("batch") if frame.f_code.co_name == "append" else None
            if batch:
                return " ".join(draft.type for draft in batch)
            frame = frame.f_back
        return "schema"
