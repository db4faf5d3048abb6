"""What is shown, to whom, and in which words: decisions as tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.errors import InvalidSpec
from trainer.sandbox.plan import (
    KERNEL,
    Level,
    Limits,
    Machine,
    Mode,
    Seen,
    View,
    bubblewrapped,
    excess,
    landlocked,
    level_of,
    refusal,
    rules_alone,
    rules_beside_bubblewrap,
    weakness,
    words,
)
from trainer.spec import Cut, Launch

HERE = Machine(
    bwrap="/usr/bin/bwrap",
    landlock=7,
    network_problem="",
    counts_processes=True,
    prlimit="/usr/bin/prlimit",
    links={"/bin": "usr/bin"},
    system=(Path("/usr"), Path("/bin"), Path("/etc/ld.so.cache")),
    network_files=((Path("/run/resolve/stub.conf"), Path("/etc/resolv.conf")),),
    interpreter=(Path("/home/ann/venv"),),
    memory_mb=10_000,
)
WORK = Path("/home/ann/project/.nightshift/work/nov21/3/0.0")
LAUNCH = Launch(argv=("/home/ann/venv/bin/python", "train.py"), env={"HOME": "/home/ann", "A": "1"}, cwd=WORK)
MOUNTS = {
    **dict.fromkeys(("--ro-bind", "--ro-bind-try", "--bind", "--bind-try", "--dev-bind-try", "--symlink"), 2),
    **dict.fromkeys(("--tmpfs", "--proc", "--dev", "--remount-ro"), 1),
}


def test_a_small_view_in_all_its_words() -> None:
    launch = bubblewrapped(LAUNCH, View(limits=Limits(memory_mb=100, processes=50, disk_mb=10, tmp_mb=1)), HERE)
    kernel = [word for path in KERNEL for word in ("--ro-bind-try", str(path), str(path))]
    tmpfs = ("--perms", "1777", "--size", "1048576", "--tmpfs")
    assert list(launch.argv) == [
        *(
            "/usr/bin/bwrap",
            "--unshare-all",
            "--unshare-user",
            "--disable-userns",
            "--die-with-parent",
            "--new-session",
        ),
        *("--cap-drop", "ALL", "--hostname", "nightshift", "--symlink", "usr/bin", "/bin"),
        *("--ro-bind-try", "/usr", "/usr", "--proc", "/proc", "--dev", "/dev", *tmpfs, "/tmp"),
        *("--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"),
        *kernel,
        *(*tmpfs, "/dev/shm", "--ro-bind-try", "/home/ann/venv", "/home/ann/venv"),
        *("--bind", str(WORK), str(WORK), "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", str(WORK), "--"),
        *("/usr/bin/prlimit", "--core=0", "--fsize=10485760", "--nproc=50", "--data=104857600", "--"),
        *LAUNCH.argv,
    ]
    assert launch.cwd == WORK


def mounts(launch: Launch) -> list[tuple[str, str, str]]:
    """Every mount in order: kind, source (empty if it has none), place."""
    argv = list(launch.argv[: launch.argv.index("--chdir")])
    found = []
    for at, word in enumerate(argv):
        if word in MOUNTS:
            *source, place = argv[at + 1 : at + 1 + MOUNTS[word]]
            found.append((word, source[0] if source else "", place))
    return found


def shown(view: View, here: Machine = HERE, launch: Launch = LAUNCH) -> list[tuple[str, str, str]]:
    return mounts(bubblewrapped(launch, view, here))


PROJECT = Path("/home/ann/project")


@pytest.mark.parametrize(
    ("view", "mount"),
    [
        (View(read=(Path("/data"),)), ("--ro-bind-try", "/data", "/data")),
        (View(write=(Path("/data"),)), ("--bind-try", "/data", "/data")),
        (View(home=Path("/home/ann")), ("--tmpfs", "", "/home/ann")),
        (View(devices=(Path("/dev/nvidia0"),)), ("--dev-bind-try", "/dev/nvidia0", "/dev/nvidia0")),
        (View(read=(Path("/home"),), hidden=(PROJECT,)), ("--tmpfs", "", str(PROJECT))),
        (View(read=(Path("/home"),), hidden=(PROJECT,)), ("--remount-ro", "", str(PROJECT))),
        (View(veils=((Path("/zeros"), Path("/usr/lib/x.py")),)), ("--ro-bind", "/zeros", "/usr/lib/x.py")),
        (View(network=True), ("--ro-bind-try", "/run/resolve/stub.conf", "/etc/resolv.conf")),
    ],
)
def test_what_a_view_names_is_mounted(view: View, mount: tuple[str, str, str]) -> None:
    assert mount in shown(view)
    assert mount not in shown(View())


def test_a_folder_that_lies_in_nothing_shown_needs_no_hiding() -> None:
    assert not [place for _, _, place in shown(View(hidden=(PROJECT,))) if place == str(PROJECT)]


@pytest.mark.parametrize("path", [Path("data"), Path("/data/../home")])
def test_a_path_that_hides_where_it_leads_is_refused(path: Path) -> None:
    for name in ("read", "write", "hidden", "devices"):
        with pytest.raises(InvalidSpec, match=r"without `\.\.`"):
            View(**{name: (path,)})  # type: ignore[arg-type]


def test_the_network_is_cut_unless_view_and_command_both_have_it() -> None:
    def shares(view: bool, command: bool) -> bool:
        launch = bubblewrapped(replace(LAUNCH, network=command), View(network=view), HERE)
        assert launch.network  # bubblewrap sees to it, nobody else has to
        return "--share-net" in launch.argv

    assert [shares(view, command) for view in (True, False) for command in (True, False)] == [True, False, False, False]


def test_a_device_takes_the_limit_of_address_space_away() -> None:
    assert not any(
        word.startswith("--data=") for word in bubblewrapped(LAUNCH, View(devices=(Path("/dev/x"),)), HERE).argv
    )


def test_an_older_bubblewrap_is_not_asked_for_what_it_cannot_do() -> None:
    assert "--disable-userns" not in bubblewrapped(LAUNCH, View(), replace(HERE, closes_namespaces=False)).argv


def test_the_child_is_told_of_another_home_and_name() -> None:
    env = bubblewrapped(LAUNCH, View(), HERE).env
    assert env["A"] == "1" and env["USER"] == "nightshift"
    assert {env[name] for name in ("HOME", "TMPDIR")} == {"/tmp"} and env["XDG_CACHE_HOME"] == "/tmp/.cache"
    assert bubblewrapped(LAUNCH, View(home=Path("/home/ann")), HERE).env["HOME"] == "/home/ann"


paths = st.lists(st.sampled_from(["a", "b", "usr", "home", "tmp", "dev", "proc"]), min_size=1, max_size=4).map(
    lambda parts: Path("/", *parts)
)
some = st.lists(paths, max_size=4).map(tuple)


@given(read=some, write=some, hidden=some, home=paths, cwd=paths)
def test_parents_come_first_and_only_what_may_be_written_is_writable(
    read: tuple[Path, ...], write: tuple[Path, ...], hidden: tuple[Path, ...], home: Path, cwd: Path
) -> None:
    view = View(read=read, write=write, hidden=hidden, home=home)
    found = [mount for mount in shown(view, launch=replace(LAUNCH, cwd=cwd)) if mount[0] != "--remount-ro"]
    places = [Path(place) for _, _, place in found]
    assert len(set(places)) == len(places)
    for at, place in enumerate(places):
        assert not [late for late in places[at + 1 :] if place != late and place.is_relative_to(late)]
    writable = {Path(place) for kind, _, place in found if kind in {"--bind", "--bind-try"}}
    assert writable == {cwd, *write}
    assert [kind for kind, _, place in found if Path(place) == cwd] == ["--bind"]
    closed = {Path(place) for kind, _, place in shown(view, launch=replace(LAUNCH, cwd=cwd)) if kind == "--remount-ro"}
    assert not closed & writable


# ---------------------------------------------------------------- which, and what people are told

NOTHING = Machine(bwrap_problem="it is not installed", landlock_problem="the kernel has none, it takes 5.13")
LANDLOCK = replace(HERE, bwrap="", bwrap_problem="it is not installed")


@pytest.mark.parametrize(
    ("mode", "machine", "level", "said"),
    [
        ("best", HERE, "bubblewrap", "bubblewrap, landlock 7"),
        ("required", HERE, "bubblewrap", "bubblewrap, landlock 7"),
        ("best", replace(HERE, landlock=0), "bubblewrap", "bubblewrap"),
        ("off", HERE, "none", "none (sandbox.mode = 'off')"),
        ("best", LANDLOCK, "landlock", "landlock 7 (no network; no bubblewrap: it is not installed)"),
        (
            "best",
            replace(LANDLOCK, network_problem="refused"),
            "landlock",
            "landlock 7 (no TCP, but UDP; no bubblewrap: it is not installed)",
        ),
        (
            "best",
            NOTHING,
            "none",
            "none (no bubblewrap: it is not installed; no landlock: the kernel has none, it takes 5.13)",
        ),
    ],
)
def test_the_best_that_works_is_taken_and_said(mode: Mode, machine: Machine, level: Level, said: str) -> None:
    assert (level_of(mode, machine), words(mode, machine)) == (level, said)


def test_only_less_than_bubblewrap_is_refused_and_loud() -> None:
    assert refusal("required", HERE) == refusal("best", NOTHING) == refusal("off", NOTHING) == ""
    assert "apt-get install bubblewrap" in refusal("required", LANDLOCK) and "'best'" in refusal("required", NOTHING)
    assert weakness("best", HERE) == weakness("off", NOTHING) == ""
    assert "only landlock" in weakness("best", LANDLOCK) and "UDP" not in weakness("best", LANDLOCK)
    assert "UDP is open" in weakness("best", replace(LANDLOCK, network_problem="refused"))
    assert "code runs as you" in weakness("best", NOTHING) and "not installed" in weakness("best", NOTHING)


# ---------------------------------------------------------------- landlock


def test_landlock_alone_shows_no_folder_that_has_a_hidden_one_in_it() -> None:
    view = View(read=(Path("/home"), Path("/data")), hidden=(PROJECT,), write=(Path("/out"),), scratch=Path("/s"))
    rules = rules_alone(WORK, view, HERE)
    assert Path("/data") in rules.read and Path("/home") not in rules.read
    assert {WORK, Path("/out"), Path("/s")} <= set(rules.write) and rules.files and not rules.tcp
    assert not set(rules.read) & {Path("/home/ann"), Path("/")}


@pytest.mark.parametrize(
    ("wanted", "problem", "cut"), [(False, "", True), (False, "refused", False), (True, "", False)]
)
def test_landlock_alone_leaves_the_network_where_that_is_possible(wanted: bool, problem: str, cut: bool) -> None:
    launch = landlocked(LAUNCH, View(network=wanted), replace(LANDLOCK, network_problem=problem))
    assert launch.network is not cut
    assert not landlocked(replace(LAUNCH, network=False), View(network=True), LANDLOCK).network
    assert launch.argv[-2:] == LAUNCH.argv and not [word for word in launch.argv if "nproc" in word]


def test_beside_bubblewrap_landlock_forbids_no_mount() -> None:
    assert not rules_beside_bubblewrap(View()).files


# ---------------------------------------------------------------- limits

LIMITS = Limits(memory_mb=1000, processes=10, disk_mb=100)


@pytest.mark.parametrize(
    ("seen", "cut", "said"),
    [
        (Seen(), None, ""),
        (Seen(held_mb=1000, tasks=10, written_mb=100, available_mb=300, disk_free_mb=300), None, ""),
        (Seen(held_mb=1001), "memory", "it held 1001 MB of memory, the limit is 1000"),
        (Seen(tasks=11), "processes", "it had 11 processes and threads, the limit is 10"),
        (Seen(tasks=11, held_mb=2000), "processes", "it had 11"),
        (Seen(written_mb=101), "disk", "its work folder had 101 MB, the limit is 100"),
        (Seen(written_mb=90, disk_free_mb=80), "disk", "80 MB were left on the disk, and its work folder had 90"),
        (Seen(written_mb=10, disk_free_mb=80), None, ""),  # full, but not by this one
        (Seen(written_mb=15, disk_free_mb=0), None, ""),  # the same
        (Seen(available_mb=200, held_mb=201), "memory", "200 MB of the machine's memory were left, and it held 201"),
        (Seen(available_mb=200, shared_grown_mb=201), "memory", "and it held 201"),
        (Seen(available_mb=200, held_mb=100), None, ""),
    ],
)
def test_what_is_too_much(seen: Seen, cut: Cut | None, said: str) -> None:
    found = excess(seen, LIMITS, HERE)
    assert (found[0] if found else None) == cut
    assert said in (found[1] if found else "")


def test_without_a_limit_nine_tenths_of_the_memory_may_be_held() -> None:
    assert excess(Seen(held_mb=9000), Limits(), HERE) is None
    assert excess(Seen(held_mb=9001), Limits(), HERE) is not None
