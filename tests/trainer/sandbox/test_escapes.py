"""Every way out is tried for real, in the sandbox and, as a control, outside of it, where it must come through."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from trainer.process import machine, network_cut_problem, run_command
from trainer.sandbox import attempts, selftest
from trainer.sandbox.plan import Machine, View, bubblewrapped
from trainer.sandbox.selftest import CASES
from trainer.spec import CommandSpec, Launch


def not_held(view: View, here: Machine | None = None) -> dict[str, str]:
    """What came through, with what it got."""
    rows = dict(zip(CASES, asyncio.run(selftest.table(view, here=here)), strict=True))
    return {name: row.got for name, row in rows.items() if not row.held}


def test_bubblewrap_holds_every_attempt(here: Machine) -> None:
    assert not_held(View(mode="required"), here) == {}


def test_bubblewrap_alone_holds_them_too(here: Machine) -> None:
    assert not_held(View(mode="required"), replace(here, landlock=0)) == {}


def test_control_without_a_sandbox_every_attempt_comes_through() -> None:
    expected = set(CASES) - {"descriptors"}  # its control is below
    if os.geteuid() != 0:
        expected -= {"kernel", "write:memory"}  # only root has the right to it anyway
    if not selftest.private_files():
        expected -= {"read:home"}
    if os.geteuid() != 0 and network_cut_problem() is not None:
        expected -= {"mount"}
    assert set(not_held(View(mode="off"))) == expected


def test_landlock_alone_holds_all_but_what_is_said_of_it(only_landlock: Machine) -> None:
    passes = {"unix", "daemon"} | ({"udp", "dns"} if only_landlock.network_problem else set())
    if only_landlock.landlock < 6:
        passes |= {"kill", "unix:abstract"}
    assert set(not_held(View(), only_landlock)) == passes


async def test_control_a_descriptor_that_is_passed_on_purpose_is_found(here: Machine, tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file:
        spec = CommandSpec(
            command=("python", "-c", selftest.PROGRAM, json.dumps({"descriptors": {"known": []}})),
            workdir=tmp_path,
            mark="test/descriptors/0/x",
            timeout_s=20,
            view=View(),
            pass_fds=(file.fileno(),),
        )
        said = json.loads((await run_command(spec, here=here)).tail)
        assert said["descriptors"][0] is True and f"{file.fileno()}: " in said["descriptors"][1]


# ---------------------------------------------------------------- secrets in bubblewrap's own environment


LOOK = "print(open('/proc/1/environ').read())"


def test_bubblewrap_keeps_no_secret_of_ours(here: Machine, tmp_path: Path) -> None:
    """Started by a process that has one in its environment, as the loop has."""
    code = f"""
import asyncio
from pathlib import Path
from trainer.process import start_command
from trainer.sandbox.plan import View
from trainer.spec import CommandSpec
async def main():
    words = ("python", "-c", {LOOK!r} + "; import time; time.sleep(0.5)")
    spec = CommandSpec(command=words, workdir=Path({str(tmp_path)!r}), mark="a/b/0/c", timeout_s=20, view=View())
    running = start_command(spec)
    seen = Path(f"/proc/{{running.pid}}/environ").read_text()  # of bubblewrap itself, from outside
    print(seen, (await running.wait()).tail)
asyncio.run(main())
"""
    repository = str(Path(attempts.__file__).parents[2])
    environ = {**os.environ, "PYTHONPATH": repository, "ANTHROPIC_API_KEY": "sk-secret", "HARMLESS": "sk-secret"}
    ended = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert "NIGHTSHIFT_MARK=a/b/0/c" in ended.stdout and "sk-secret" not in ended.stdout


def test_control_clearing_the_environment_behind_bubblewrap_hides_nothing(here: Machine, tmp_path: Path) -> None:
    launch = bubblewrapped(Launch((sys.executable, "-c", LOOK), {"PATH": os.environ["PATH"]}, tmp_path), View(), here)
    argv = [launch.argv[0], "--clearenv", *launch.argv[1:]]
    environ = {**launch.env, "ANTHROPIC_API_KEY": "sk-secret"}
    ended = subprocess.run(argv, env=environ, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "sk-secret" in ended.stdout


# ---------------------------------------------------------------- as another user


def test_a_user_without_privileges_is_held_as_well(here: Machine, request: pytest.FixtureRequest) -> None:
    """Where we are root: the whole table again as nobody, whose processes the kernel counts."""
    if os.geteuid() != 0:
        pytest.skip("the tests above were that")
    words = as_nobody()
    if words is None:
        pytest.skip("no Python here can be run by another user")
    home = request.getfixturevalue("open_folder")
    shutil.chown(home, 65534)
    code = """
import asyncio, json
from trainer.process import machine
from trainer.sandbox.plan import View
from trainer.sandbox.selftest import table
print(json.dumps([(row.what, row.got) for row in asyncio.run(table(View(mode="required"))) if not row.held]))
print(machine().counts_processes)
"""
    paths = [str(Path(attempts.__file__).parents[2]), *(path for path in sys.path if path.endswith("site-packages"))]
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": os.pathsep.join(paths)}
    ended = subprocess.run([*words, "-c", code], env=environ, capture_output=True, text=True, check=False, cwd="/")
    assert ended.stdout.split("\n")[:2] == ["[]", "True"], ended


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that another user can reach, as those of the other tests cannot be."""
    with tempfile.TemporaryDirectory(prefix="nightshift-nobody-") as folder:
        yield Path(folder)


REACHES = "import os, sys, psutil, msgspec; sys.exit(not os.access(sys.executable, os.X_OK))"


def as_nobody() -> list[str] | None:
    """The words that run a Python as nobody, with our packages, or None."""
    setpriv = shutil.which("setpriv")
    path = os.pathsep.join(path for path in sys.path if path.endswith("site-packages"))
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": path}
    for python in (sys.executable, f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"):
        words = [str(setpriv), "--reuid=65534", "--regid=65534", "--clear-groups", python]
        if setpriv and Path(python).exists():
            tried = subprocess.run([*words, "-c", REACHES], env=environ, check=False, cwd="/", capture_output=True)
            if tried.returncode == 0:
                return words
    return None


def test_a_machine_without_user_namespaces_is_said_to_have_none(here: Machine, tmp_path: Path) -> None:
    """In a process whose own user namespace allows no further one, as many a container does."""
    code = """
import ctypes, os, sys
from pathlib import Path
user, group = os.getuid(), os.getgid()
if ctypes.CDLL(None).unshare(0x10000000):
    sys.exit(77)
Path("/proc/self/setgroups").write_text("deny")
Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
Path("/proc/sys/user/max_user_namespaces").write_text("0")
import asyncio
from trainer.errors import CannotStart
from trainer.process import machine, run_command
from trainer.sandbox.plan import View, level_of, words
from trainer.spec import CommandSpec
spec = CommandSpec(command=("true",), workdir=Path("."), mark="a/b/0/c", timeout_s=20, view=View(mode="required"))
try:
    asyncio.run(run_command(spec))
except CannotStart as error:
    print(error)
print(level_of("best", machine()), machine().bwrap_problem)
"""
    environ = {**os.environ, "PYTHONPATH": str(Path(attempts.__file__).parents[2])}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    if ended.returncode == 77 or "PermissionError" in ended.stderr:
        pytest.skip("this machine allows no user namespace, so none can be made that forbids another")
    refused, level = ended.stdout.splitlines()
    assert "sandbox.mode is 'required', and bubblewrap does not work here" in refused
    assert level.startswith("landlock " if machine().landlock else "none ") and "max_*_namespaces" in level
