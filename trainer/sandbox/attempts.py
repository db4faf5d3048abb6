"""Ways out of a sandbox, each really tried. This file is the program that runs inside; it imports nothing of ours.

    python -c <this file> '{"tcp": {"port": 4711}, ...}'

Each attempt is a function; what it returns, or the error it met, is printed as one JSON object by its name: a pair of
whether it came through as far as it can tell from inside, and what it got. Some can only be judged from outside: a
datagram that was sent says nothing of its arrival.

Nothing here harms the machine it runs on unconfined: files are opened for writing and closed again, the victim of
signals is a process started for that, bombs end at the size they are told.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Got = tuple[bool, str]

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
PTRACE_SEIZE = 0x4206
WAIT_S = 0.3
ENV_MAX = 2**20
CONTROLS = ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/drop_caches")
TRIGGERS = ("/proc/sysrq-trigger", "/proc/kcore", "/proc/mtrr", "/dev/mem", "/dev/kmsg")


def tcp(host: str, port: int) -> Got:
    """Connect to a server."""
    with socket.create_connection((host, port), timeout=WAIT_S) as connection:
        return True, f"connected to {connection.getpeername()}"


def udp(host: str, port: int, word: str) -> Got:
    """Send a datagram."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.sendto(word.encode(), (host, port))
    return False, "sent"


def dns(host: str, port: int) -> Got:
    """Ask a name server and wait for its answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.settimeout(WAIT_S)
        out.sendto(b"\0\1\1\0\0\1\0\0\0\0\0\0\7example\3com\0\0\1\0\1", (host, port))
        return True, f"an answer of {len(out.recv(512))} bytes"


def unix(path: str) -> Got:
    """Connect to a socket that is a file; a name that begins with @ is no file but a name of the network's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as out:
        out.connect("\0" + path[1:] if path.startswith("@") else path)
    return True, "connected"


def read(paths: list[str]) -> Got:
    """Read files, or list folders; through if one of them gives anything."""
    found = []
    for path in paths:
        try:
            if os.listdir(path) if os.path.isdir(path) else Path(path).read_bytes()[:100].strip(b"\0"):  # noqa: PTH208, PTH112
                found.append(path)
        except OSError:
            continue
    return bool(found), f"read {', '.join(found)}" if found else "nothing there to read"


def environ(word: str) -> Got:
    """Look for *word* in the environment of every process in sight, 1 among them."""
    seen = 0
    for name in os.listdir("/proc"):  # noqa: PTH208
        if not name.isdecimal() or int(name) == os.getpid():
            continue
        try:
            text = Path(f"/proc/{name}/environ").read_bytes()[:ENV_MAX]
        except OSError:
            continue
        seen += 1
        if word.encode() in text:
            return True, f"it stands in /proc/{name}/environ"
    return False, f"looked into {seen} processes"


def write(paths: list[str], name: str, stays: bool = True) -> Got:
    """Make a file in each folder. It stays, so that it can be seen from outside, or is removed."""
    made = []
    for folder in paths:
        try:
            os.close(os.open(f"{folder}/{name}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            made.append(folder)
            if not stays:
                os.unlink(f"{folder}/{name}")  # noqa: PTH108
        except OSError:
            continue
    return bool(made), f"wrote to {', '.join(made)}" if made else "nowhere"


def kernel() -> Got:
    """Open what steers the kernel for writing, or the machine's memory for reading; nothing is written."""
    opened = []
    for path in (*CONTROLS, *TRIGGERS):
        try:
            os.close(os.open(path, os.O_WRONLY if path in CONTROLS else os.O_RDWR))
            opened.append(path)
        except OSError:
            continue
    return bool(opened), f"opened {', '.join(opened)}" if opened else "nothing opens"


def mount() -> Got:
    """Mount a file system over the work folder, in a namespace of one's own, so that nobody else sees it."""
    libc = ctypes.CDLL(None, use_errno=True)

    def attempt() -> bool:
        alone = libc.unshare(CLONE_NEWNS) == 0 or libc.unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0
        private = alone and libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) == 0
        return bool(private and libc.mount(b"none", bytes(Path.cwd()), b"tmpfs", 0, None) == 0)

    child = os.fork()
    if child == 0:
        os._exit(0 if attempt() else ctypes.get_errno() or 1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code == 0, "mounted" if code == 0 else os.strerror(code)


def trace(pid: int) -> Got:
    """Attach to a process outside as a debugger does."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if libc.ptrace(PTRACE_SEIZE, pid, None, None) == 0:
        return True, "attached"
    return False, os.strerror(ctypes.get_errno())


def kill(pid: int) -> Got:
    """Send a signal to a process outside."""
    os.kill(pid, signal.SIGCONT)
    return True, "sent"


def descriptors(known: list[int]) -> Got:
    """Find open files that came along by mistake."""
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        if int(name) > 2 and int(name) not in known:
            try:
                found.append(f"{name}: {os.readlink(f'/proc/self/fd/{name}')}")  # noqa: PTH115
            except OSError:
                continue  # the listing itself
    return bool(found), ", ".join(found) or "none"


def processes(count: int) -> Got:
    """Start so many processes that wait, then end them."""
    started: list[int] = []
    try:
        for _ in range(count):
            child = os.fork()
            if child == 0:
                time.sleep(20)
                os._exit(0)
            started.append(child)
            if not len(started) % 50:
                time.sleep(0.02)
        time.sleep(WAIT_S)
    finally:
        for child in started:
            os.kill(child, signal.SIGKILL)
        for child in started:
            os.waitpid(child, 0)
    return len(started) == count, f"started {len(started)} of {count}"


def memory(mb: int) -> Got:
    """Take so many MiB and write to all of them."""
    taken = [bytearray(2**24) for _ in range(mb // 16)]
    for block in taken:
        block[:: mmap.PAGESIZE] = b"x" * len(block[:: mmap.PAGESIZE])
    time.sleep(WAIT_S)
    return True, f"took {16 * len(taken)} MB"


def shared(mb: int) -> Got:
    """The same in memory that belongs to no process: files without a name."""
    taken = 0
    while taken < mb:
        descriptor = os.memfd_create("x")  # it stays open
        taken += sum(os.write(descriptor, bytes(2**24)) // 2**20 for _ in range(2))
    time.sleep(WAIT_S)
    return True, f"took {taken} MB"


def fill(path: str, mb: int, files: int = 1) -> Got:
    """Write so many MiB into a folder, as one file or several, and remove them again."""
    made = []
    written = 0
    try:
        for number in range(files):
            name = f"{path}/nightshift-selftest-{os.getpid()}-{number}"
            with open(name, "wb", buffering=0) as file:  # noqa: PTH123
                made.append(name)
                for _ in range(max(1, mb // files)):
                    written += file.write(bytes(2**20)) // 2**20
        time.sleep(WAIT_S)
    except OSError as error:
        return False, f"{error.strerror} after {written} MB"
    finally:
        for name in made:
            os.unlink(name)  # noqa: PTH108
    return True, f"wrote {written} MB"


def daemon(file: str, code: str) -> Got:
    """Leave a process behind that has no parent, session, environment or open file of ours, and ignores signals."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            os.closerange(0, 64)
            os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", code, file], {})
        os._exit(0)
    time.sleep(WAIT_S)
    return True, "left"


ATTEMPTS: dict[str, Callable[..., Got]] = {
    attempt.__name__: attempt
    for attempt in (
        *(tcp, udp, dns, unix, read, environ, write, kernel, mount, trace, kill, descriptors, processes, memory),
        *(shared, fill, daemon),
    )
}


def main(wanted: dict[str, dict[str, Any]]) -> None:
    """Try each and print what it got, at once: the next one may be the end of this process."""
    for name, arguments in wanted.items():
        try:
            through, got = ATTEMPTS[name.partition(":")[0]](**arguments)
        except (OSError, MemoryError) as error:
            through, got = False, str(getattr(error, "strerror", None) or type(error).__name__)
        sys.stdout.write(json.dumps({name: [through, got]}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
