"""What a confined child may see and use, and the words that make it so. Pure.

A `View` is what someone wants to show a child, a `Machine` is what this machine can do about it; from both come the
words of bubblewrap's command line, the rules of landlock, and the sentence that tells people what they got.

bubblewrap builds a new file system out of nothing, so what is not named here is not there. Guaranteed by
`bubblewrapped`: namespaces of its own of every kind, no capabilities, no further user namespace, death with the
process that started it, one writable folder and folders in memory that cannot outgrow their size, everything else
read-only, the root too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from trainer.errors import InvalidSpec

if TYPE_CHECKING:
    from trainer.spec import Cut, Launch

Mode = Literal["required", "best", "off"]
"""What is wanted: full isolation or no start; the best that works here; none."""

Level = Literal["bubblewrap", "landlock", "none"]
"""What is got, best first."""

MIB = 2**20
TMP = Path("/tmp")
USER = "nightshift"

KERNEL = tuple(Path("/proc") / name for name in ("sys", "sysrq-trigger", "irq", "bus", "fs", "acpi", "scsi", "mtrr"))
"""What steers the kernel of the whole machine. Root may write there without any capability, also as the root of a user
namespace, and bubblewrap leaves it open to that root: one line in /proc/sys/kernel/core_pattern is a way out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """
    What a child with all that comes of it may use.

    Attributes:
        memory_mb: MiB that the tree may hold in memory, and each process of it may ask for; None: nine tenths of
            the machine's.
        processes: Processes and threads at once.
        disk_mb: MiB of the work folder, and of one file.
        tmp_mb: MiB of each folder in memory (/tmp, /dev/shm, home).
    """

    memory_mb: int | None = None
    processes: int = 4096
    disk_mb: int = 65_536
    tmp_mb: int = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """
    What a child may see besides the system, the interpreter and its own work folder.

    Attributes:
        mode: `required` is not started where bubblewrap does not work.
        read: Files and folders that it may read, at the paths they have.
        write: Files and folders that it may change.
        hidden: Folders that are empty for it and read-only, although they lie in one that it may read. What it may
            read or write below them is there all the same.
        veils: Pairs: a file that is shown in the place of another.
        devices: Device files, such as /dev/nvidia0; and with one of them no limit of address space, which CUDA needs.
        home: Where HOME leads; it is in memory, and empty but for what *read* and *write* put there.
        scratch: A folder for temporary files where none can be made in memory.
        network: True: the machine's network. False: none, as far as this machine can cut it; what must not start
            otherwise says so in its spec.

    Raises:
        InvalidSpec: If a path is not absolute or has `..` in it, where it could not be told what lies in what.
    """

    mode: Mode = "best"
    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()
    veils: tuple[tuple[Path, Path], ...] = ()
    devices: tuple[Path, ...] = ()
    home: Path = TMP
    scratch: Path | None = None
    network: bool = False
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        named = (*self.read, *self.write, *self.hidden, *self.devices, self.home, *(place for _, place in self.veils))
        if wrong := [path for path in named if not path.is_absolute() or ".." in path.parts]:
            raise InvalidSpec("view", f"{wrong[0]}, expected an absolute path without `..`")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """
    What was found to hold here, and where things lie.

    Attributes:
        bwrap: Path of a bubblewrap that works; empty: none does, and *bwrap_problem* says why in one phrase.
        closes_namespaces: It can forbid further user namespaces.
        landlock: Version of landlock's interface, 0: none, and *landlock_problem* says why.
        network_problem: Why a network namespace cannot be made without bubblewrap; empty: it can.
        counts_processes: The kernel counts a sandbox's processes by itself; it does not count those of root.
        prlimit: Path of the program of that name.
        links: Links in the root, as /bin -> usr/bin.
        system: What every program needs to read, of the system.
        network_files: Pairs of source and place: what a program needs to know of the network.
        interpreter: What Python needs to read: environment, base, folders of what is installed from its source.
        memory_mb: MiB of the machine.
    """

    bwrap: str = ""
    bwrap_problem: str = "it was not tried"
    closes_namespaces: bool = True
    landlock: int = 0
    landlock_problem: str = "it was not tried"
    network_problem: str = "it was not tried"
    counts_processes: bool = False
    prlimit: str = ""
    links: Mapping[str, str] = field(default_factory=dict)
    system: tuple[Path, ...] = ()
    network_files: tuple[tuple[Path, Path], ...] = ()
    interpreter: tuple[Path, ...] = ()
    memory_mb: int = 2**20


# ---------------------------------------------------------------- which, and what people are told


def level_of(mode: Mode, machine: Machine) -> Level:
    """What a child gets that asks for *mode* here. For `required` see `refusal`."""
    if mode == "off":
        return "none"
    if machine.bwrap:
        return "bubblewrap"
    return "landlock" if machine.landlock else "none"


def refusal(mode: Mode, machine: Machine) -> str:
    """One sentence with the remedy if *mode* cannot be had here; empty if it can."""
    if mode != "required" or machine.bwrap:
        return ""
    return (
        f"sandbox.mode is 'required', and bubblewrap does not work here ({machine.bwrap_problem}); {REMEDY}, or set "
        "sandbox.mode = 'best' in nightshift.toml"
    )


REMEDY = (
    "install it (Debian, Ubuntu: apt-get install bubblewrap) and allow user namespaces (by sysctl: "
    "kernel.unprivileged_userns_clone = 1, user.max_user_namespaces above 0, "
    "kernel.apparmor_restrict_unprivileged_userns = 0; in a container a seccomp profile that permits `unshare` and "
    "`mount`)"
)


def words(mode: Mode, machine: Machine) -> str:
    """What an experiment is held by, in a few words for `run.started`: `bubblewrap, landlock 7` for example."""
    match level_of(mode, machine):
        case "bubblewrap":
            return f"bubblewrap, landlock {machine.landlock}" if machine.landlock else "bubblewrap"
        case "landlock":
            network = "no network" if not machine.network_problem else "no TCP, but UDP"
            return f"landlock {machine.landlock} ({network}; no bubblewrap: {machine.bwrap_problem})"
    if mode == "off":
        return "none (sandbox.mode = 'off')"
    return f"none (no bubblewrap: {machine.bwrap_problem}; no landlock: {machine.landlock_problem})"


def weakness(mode: Mode, machine: Machine) -> str:
    """One sentence on what does not hold, if less is got than bubblewrap gives; empty if all is well, or nobody asked
    for more."""
    level = level_of(mode, machine)
    if level == "bubblewrap" or mode == "off":
        return ""
    if level == "landlock":
        network = "" if not machine.network_problem else ", UDP is open"
        what = (
            f"only landlock holds experiments: a process that hides may outlive its experiment{network}, and socket "
            "files such as Docker's, and /dev/shm, can be reached"
        )
    else:
        what = "nothing holds experiments: their code runs as you, with your files and your network"
    return f"{what}; bubblewrap does not work here ({machine.bwrap_problem}): {REMEDY}"


# ---------------------------------------------------------------- bubblewrap


def bubblewrapped(launch: Launch, view: View, machine: Machine) -> Launch:
    """
    Put bubblewrap around *launch*. The words of the program stay the last ones.

    bubblewrap itself is started with the environment of the child: its own first process inside keeps the environment
    it was started with, where the child can read it.
    """
    network = view.network and launch.network
    argv = [machine.bwrap, "--unshare-all", "--unshare-user"]
    if machine.closes_namespaces:
        argv.append("--disable-userns")
    if network:
        argv.append("--share-net")
    argv += ["--die-with-parent", "--new-session", "--cap-drop", "ALL", "--hostname", USER]
    argv += _mounts(launch.cwd, view, machine, network)
    argv += ["--chdir", str(launch.cwd), "--"]
    argv += [*_limited(view, machine), *launch.argv]
    return replace(launch, argv=tuple(argv), env=inside(launch.env, view, TMP), network=True)


def inside(env: Mapping[str, str], view: View, tmp: Path) -> dict[str, str]:
    """The environment of a confined child: its home, its temporary files and its name are not the person's."""
    home = view.home if tmp == TMP else tmp
    return {
        **env,
        "HOME": str(home),
        "USER": USER,
        "LOGNAME": USER,
        "TMPDIR": str(tmp),
        "XDG_CACHE_HOME": str((tmp if home == TMP else home) / ".cache"),
    }


def _mounts(cwd: Path, view: View, machine: Machine, network: bool) -> list[str]:
    """All mounts, parents before what lies in them; at one path the last of the list below counts."""
    size = str(view.limits.tmp_mb * MIB)
    found: dict[Path, list[str]] = {}

    def put(path: Path, *words: str) -> None:
        found.pop(path, None)
        found[path] = list(words)

    for link, target in machine.links.items():
        put(Path(link), "--symlink", target, link)
    shown = [path for path in (*machine.system, *machine.interpreter, *view.read) if not _is_linked(path, machine)]
    for path in shown:
        put(path, "--ro-bind-try", str(path), str(path))
    if network:
        for source, place in machine.network_files:
            put(place, "--ro-bind-try", str(source), str(place))
    closed = [path for path in view.hidden if any(path.is_relative_to(other) for other in (*shown, *view.write))]
    for path in closed:
        put(path, "--tmpfs", str(path))
    for source, place in view.veils:
        put(place, "--ro-bind", str(source), str(place))
    put(Path("/proc"), "--proc", "/proc")
    for path in KERNEL:
        put(path, "--ro-bind-try", str(path), str(path))
    put(Path("/dev"), "--dev", "/dev")
    for path in {TMP, Path("/dev/shm"), view.home}:
        put(path, "--perms", "1777", "--size", size, "--tmpfs", str(path))
    for path in view.devices:
        put(path, "--dev-bind-try", str(path), str(path))
    for path in view.write:
        put(path, "--bind-try", str(path), str(path))
    put(cwd, "--bind", str(cwd), str(cwd))
    ordered = sorted(found.items(), key=lambda item: len(item[0].parts))  # it keeps the order of equals
    argv = [word for _, words_ in ordered for word in words_]
    for path in (*closed, Path("/dev"), Path("/")):  # else they could be filled, out of everyone's memory
        if path != cwd and path not in view.write:
            argv += ["--remount-ro", str(path)]
    return argv


def _is_linked(path: Path, machine: Machine) -> bool:
    """Whether *path* lies behind a link of the root, where the link itself already leads to it."""
    return any(path.is_relative_to(link) for link in machine.links)


def _limited(view: View, machine: Machine) -> list[str]:
    """The words that set limits of the kernel for what is behind them."""
    if not machine.prlimit:
        return []
    limits = view.limits
    argv = [machine.prlimit, "--core=0", f"--fsize={limits.disk_mb * MIB}"]
    if machine.counts_processes:
        argv.append(f"--nproc={limits.processes}")
    if not view.devices:  # of what is written to, not of addresses: a corpus that is only mapped may be larger
        argv.append(f"--data={memory_mb(limits, machine) * MIB}")
    return [*argv, "--"]


def memory_mb(limits: Limits, machine: Machine) -> int:
    """MiB that a child with all that comes of it may hold."""
    return limits.memory_mb if limits.memory_mb is not None else machine.memory_mb * 9 // 10


# ---------------------------------------------------------------- landlock


@dataclass(frozen=True, slots=True)
class Rules:
    """What landlock is to allow. *files* False: files are none of its business, bubblewrap sees to them."""

    files: bool
    tcp: bool
    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()


DEVICES = tuple(
    Path("/dev") / name for name in ("null", "zero", "full", "random", "urandom", "tty", "shm", "ptmx", "pts")
)


def rules_beside_bubblewrap(view: View) -> Rules:
    """The second layer: sockets and signals. Rules for files would forbid bubblewrap its mounts."""
    return Rules(files=False, tcp=view.network)


def rules_alone(cwd: Path, view: View, machine: Machine) -> Rules:
    """
    The fallback. It cannot show less of a folder than all: one that has a hidden folder in it is not shown, but for
    what is named below the hidden one.
    """
    named = [*map(Path, machine.links), *machine.system, *machine.interpreter, *view.read]
    if view.network:
        named += [source for source, _ in machine.network_files]
    read = [path for path in named if not any(hidden.is_relative_to(path) for hidden in view.hidden)]
    scratch = [view.scratch] if view.scratch is not None else []
    return Rules(
        files=True,
        tcp=view.network,
        read=(*read, Path("/proc"), Path("/sys/devices/system")),
        write=(cwd, *scratch, *view.write, *view.devices, *DEVICES),
    )


def landlocked(launch: Launch, view: View, machine: Machine) -> Launch:
    """What is started where landlock is all there is; the rules are set by who starts it."""
    cut = not (view.network or machine.network_problem)
    return replace(
        launch,
        argv=(*_limited(view, replace(machine, counts_processes=False)), *launch.argv),
        env=inside(launch.env, view, view.scratch or launch.cwd),
        network=launch.network and not cut,
    )


# ---------------------------------------------------------------- limits that are watched


@dataclass(frozen=True, slots=True)
class Seen:
    """What a tree was seen to use, and what the machine has left. MiB; None: not looked at."""

    held_mb: float | None = None
    tasks: int | None = None
    written_mb: float | None = None
    disk_free_mb: float | None = None
    available_mb: float | None = None
    shared_grown_mb: float = 0.0


DISK_FLOOR_MB = 256.0
"""MiB of the disk below which it is about to be full."""

DISK_SMALL_MB = 16.0
"""MiB of a work folder that fill no disk: others did, and then it is the disk's trouble (`files.check_room`)."""


def floor_mb(machine: Machine) -> float:
    """MiB of memory below which the machine is in danger."""
    return max(256.0, machine.memory_mb / 50)


def excess(seen: Seen, limits: Limits, machine: Machine) -> tuple[Cut, str] | None:
    """Why a tree must be killed, and the sentence for people; None if it may go on."""
    if seen.tasks is not None and seen.tasks > limits.processes:
        return "processes", f"killed: it had {seen.tasks} processes and threads, the limit is {limits.processes}"
    most = memory_mb(limits, machine)
    if seen.held_mb is not None and seen.held_mb > most:
        return "memory", f"killed: it held {seen.held_mb:.0f} MB of memory, the limit is {most}"
    if seen.written_mb is not None and seen.written_mb > limits.disk_mb:
        return "disk", f"killed: its work folder had {seen.written_mb:.0f} MB, the limit is {limits.disk_mb}"
    free = seen.disk_free_mb
    written = seen.written_mb or 0.0
    if written > DISK_SMALL_MB and free is not None and free < min(DISK_FLOOR_MB, written):
        return "disk", f"killed: {free:.0f} MB were left on the disk, and its work folder had {written:.0f}"
    held = (seen.held_mb or 0.0) + seen.shared_grown_mb
    left = seen.available_mb
    if left is not None and left < min(floor_mb(machine), held):
        return "memory", f"killed: {left:.0f} MB of the machine's memory were left, and it held {held:.0f}"
    return None
