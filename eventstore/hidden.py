"""Keep a process of ours, and the secrets in it, from being looked into by what runs as the same user.

A process that has hidden itself cannot be traced, and its environment, memory and open files in /proc are root's to
read (Linux). That holds until it starts another program: what it starts is visible again, and hides itself or not.
Root, a debugger included, sees everything all the same; `py-spy` and `gdb` take sudo. There is no core dump of it.
"""

from __future__ import annotations

import ctypes
import sys

PR_SET_DUMPABLE = 4


def hide() -> bool:
    """Hide this process; tell whether that worked, as it does on every Linux."""
    if not sys.platform.startswith("linux"):
        return False
    return int(ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, *(ctypes.c_ulong(value) for value in (0, 0, 0, 0)))) == 0
