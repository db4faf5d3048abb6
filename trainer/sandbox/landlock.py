"""Landlock, by its three system calls: a process gives up rights for itself and for all that comes of it.

It takes no privilege and no program. By version of the interface: 1 files, 4 TCP, 5 device controls, 6 signals to, and
abstract sockets of, processes outside. In all of them a process inside can neither trace one outside nor read its
environment or memory. It does not hold UDP, the number of processes, memory, or files that are open already.

The rules are made by the process that starts the child (`make`); the child only gives itself up to them (`enter`),
which is two system calls and takes no lock, as must be between fork and exec.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainer.sandbox.plan import Rules

CREATE, ADD, RESTRICT = 444, 445, 446  # the same on every architecture but alpha
VERSION_QUESTION = 1
PATH_BENEATH = 1
PR_SET_NO_NEW_PRIVS = 38
PR_CAPBSET_DROP = 24
CAPABILITIES = 64

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
TO_READ = EXECUTE | READ_FILE | READ_DIR
RIGHTS = {1: (1 << 13) - 1, 2: REFER, 3: TRUNCATE, 5: IOCTL_DEV}
"""Rights to files by the version that brought them."""
TCP_SINCE, TCP = 4, 0b11
SCOPE_SINCE, SCOPE = 6, 0b11
"""Bind and connect; abstract sockets and signals."""


class _Attributes(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> tuple[int, str]:
    """The version of the interface, and an empty text; or 0, and why there is none."""
    if not sys.platform.startswith("linux"):
        return 0, f"it takes Linux, and this is {sys.platform}"
    found = _libc().syscall(CREATE, None, ctypes.c_size_t(0), ctypes.c_long(VERSION_QUESTION))
    if found > 0:
        return int(found), ""
    error = ctypes.get_errno()
    why = {errno.ENOSYS: "the kernel has none, it takes 5.13", errno.EOPNOTSUPP: "it is not switched on at boot (lsm=)"}
    return 0, why.get(error, os.strerror(error))


def make(rules: Rules, interface: int) -> int:
    """
    Make the rules and return a descriptor of them, which is the caller's to close. Paths that are not there are
    passed over.

    Raises:
        OSError: If the kernel refuses.
    """
    libc = _libc()
    files = sum(right for since, right in RIGHTS.items() if since <= interface) if rules.files else 0
    network = 0 if rules.tcp or interface < TCP_SINCE else TCP
    attributes = _Attributes(files, network, SCOPE if interface >= SCOPE_SINCE else 0)
    size = 24 if interface >= SCOPE_SINCE else 16 if interface >= TCP_SINCE else 8
    ruleset = int(libc.syscall(CREATE, ctypes.byref(attributes), ctypes.c_size_t(size), ctypes.c_long(0)))
    if ruleset < 0:
        raise _error("landlock_create_ruleset")
    try:
        if rules.files:
            for path in rules.read:
                _allow(libc, ruleset, path, files & TO_READ)
            for path in rules.write:
                _allow(libc, ruleset, path, files)
    except BaseException:
        os.close(ruleset)
        raise
    return ruleset


def says_nothing(rules: Rules, interface: int) -> bool:
    """Whether this version can do nothing of what the rules ask."""
    return not rules.files and (rules.tcp or interface < TCP_SINCE) and interface < SCOPE_SINCE


def enter(ruleset: int, *, alone: bool) -> Callable[[], None]:
    """
    What a child calls, between fork and exec, to be held by the rules for good. Raises `OSError` if that fails.

    Args:
        alone: Nothing else holds it. A child of root then gives up the privileges of root too, one of which reads the
            environment of any process, whatever landlock says of it.
    """
    libc = _libc()

    def restrict() -> None:
        for capability in range(CAPABILITIES if alone else 0):
            libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)  # refused to all but root, who alone has them
        if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise _error("no_new_privs")
        if libc.syscall(RESTRICT, ctypes.c_long(ruleset), ctypes.c_long(0)) != 0:
            raise _error("landlock_restrict_self")

    return restrict


def _allow(libc: ctypes.PyDLL, ruleset: int, path: Path, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= OF_FILES
        beneath = _Beneath(rights, descriptor)
        if (
            libc.syscall(
                ADD, ctypes.c_long(ruleset), ctypes.c_long(PATH_BENEATH), ctypes.byref(beneath), ctypes.c_long(0)
            )
            != 0
        ):
            raise _error(f"landlock_add_rule for {path}")
    finally:
        os.close(descriptor)


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


def _libc() -> ctypes.PyDLL:
    libc = ctypes.PyDLL(None, use_errno=True)  # PyDLL: the lock of the interpreter is not let go on the way
    libc.syscall.restype = ctypes.c_long
    libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    return libc
