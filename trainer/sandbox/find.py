"""What this machine can do to confine a child, found out by really trying it.

`look` takes some tens of milliseconds and starts processes, by the function it is given; ask once and keep the answer.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from trainer.sandbox import landlock
from trainer.sandbox.plan import MIB, TMP, Machine, View, bubblewrapped
from trainer.spec import Launch

ROOT_LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
SYSTEM = (
    *("/usr", "/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime"),
    *("/etc/timezone", "/nix/store", "/gnu/store"),
    *("/sys/devices/system/cpu", "/sys/devices/system/node"),  # how many cores there are, and where
)
NETWORK_FILES = (
    *("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf", "/etc/services"),
    *("/etc/ssl", "/etc/ca-certificates", "/etc/pki"),
)
GRAPHICS = (
    *("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset", "/dev/nvidia-caps"),
    *("/dev/kfd", "/dev/dri"),
)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

INTERPRETER_PROBE = """\
import json, os, sys
found = [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, *sys.path]
for name, module in list(sys.modules.items()):
    if name.startswith("__editable__"):
        found += getattr(module, "MAPPING", {}).values()
        for folders in getattr(module, "NAMESPACES", {}).values():
            found += folders
found += [path + ".py" for path in found]
print(json.dumps(found))
"""
"""What the interpreter looks at when it imports; an installed source names its folders in a finder of its own."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """How an attempt ended; *exit_code* is negative for a signal and 127 where it could not be started."""

    exit_code: int
    said: str


Try = Callable[[Sequence[str], Mapping[str, str]], Attempt]
"""Runs words with an environment for at most some seconds, without input."""


def look(attempt: Try, python: str, environ: Mapping[str, str], network_problem: str) -> Machine:
    """
    Find out what holds here.

    Args:
        python: The interpreter that experiments run with.
        environ: Where HOME and PATH are looked up.
        network_problem: Why a network namespace cannot be made without bubblewrap; empty if it can.
    """
    version, why = landlock.version()
    machine = Machine(
        landlock=version,
        landlock_problem=why,
        network_problem=network_problem,
        counts_processes=os.geteuid() != 0,
        prlimit=shutil.which("prlimit", path=PATH) or "",
        links={path: str(Path(path).readlink()) for path in ROOT_LINKS if Path(path).is_symlink()},
        system=_there((*SYSTEM, *(path for path in ROOT_LINKS if not Path(path).is_symlink()))),
        network_files=tuple((path.resolve(), path) for path in _there(NETWORK_FILES)),
        interpreter=interpreter_of(attempt, python, environ),
        memory_mb=psutil.virtual_memory().total // MIB,
    )
    return _with_bubblewrap(attempt, machine, environ)


def _with_bubblewrap(attempt: Try, machine: Machine, environ: Mapping[str, str]) -> Machine:
    found = shutil.which("bwrap", path=environ.get("PATH", PATH))
    if found is None:
        return replace(machine, bwrap_problem="it is not installed")
    said = ""
    for closes in (True, False):  # an older one, or one that is setuid, cannot forbid further namespaces
        tried = replace(machine, bwrap=found, closes_namespaces=closes)
        launch = bubblewrapped(Launch(argv=("true",), env={"PATH": PATH}, cwd=TMP), View(), tried)
        ended = attempt(launch.argv, launch.env)
        if ended.exit_code == 0:
            return tried
        said = said or ended.said.strip().rpartition("\n")[2] or f"it ended with exit code {ended.exit_code}"
    return replace(machine, bwrap_problem=said[:200])


def interpreter_of(attempt: Try, python: str, environ: Mapping[str, str]) -> tuple[Path, ...]:
    """The folders and files that *python* needs to read, each also where its links lead; no folder below another."""
    env = {name: environ[name] for name in ("HOME", "PATH") if name in environ}
    ended = attempt((python, "-P", "-c", INTERPRETER_PROBE), env)
    try:
        named = json.loads(ended.said)
    except ValueError:
        named = []
    paths = {Path(path) for path in (*named, python) if path.startswith("/") and Path(path).exists()}
    paths |= {path.resolve() for path in paths}
    paths -= {Path("/")}
    return tuple(sorted(path for path in paths if not any(parent in paths for parent in path.parents)))


def graphics_devices(number: int | None) -> tuple[Path, ...]:
    """
    The device files of one NVIDIA device, counted from 0 in the order of the bus; None: of all graphics devices.

    Empty where there is none.
    """
    shared = _there(GRAPHICS)
    cards = sorted((path for path in Path("/dev").glob("nvidia[0-9]*")), key=lambda path: int(path.name[6:]))
    if number is not None:
        cards = [card for card in cards if card.name == f"nvidia{_minor(number)}"]
        shared = tuple(path for path in shared if "nvidia" in path.name)
    return (*cards, *shared) if cards or "/dev/kfd" in map(str, shared) else ()


def graphics_files() -> tuple[Path, ...]:
    """What a program must read besides to use a graphics device."""
    return _there(("/proc/driver/nvidia", "/sys", "/etc/OpenCL", "/etc/vulkan", "/etc/nvidia", "/opt/rocm"))


def graphics_name(number: int) -> str:
    """What CUDA calls the *number*th device wherever it stands: its UUID, or the number where that is not told."""
    name = _told(number).get("GPU UUID", "")
    return name if name.startswith("GPU-") and "?" not in name else str(number)


def _minor(number: int) -> str:
    """The number in the name of the device file of the *number*th device on the bus."""
    minor = _told(number).get("Device Minor", "")
    return minor if minor.isdecimal() else str(number)


def _told(number: int) -> dict[str, str]:
    """What the driver says of the *number*th device on the bus; empty where it says nothing."""
    cards = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    if number >= len(cards):
        return {}
    lines = (line.partition(":") for line in cards[number].read_text(errors="replace").splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}


def _there(paths: Sequence[str]) -> tuple[Path, ...]:
    return tuple(Path(path) for path in paths if Path(path).exists())
