"""A hidden process keeps its secrets from its neighbours of the same user."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "eventstore" / "hidden.py"
NOBODY = 65534
RUN = """\
import subprocess, sys
{source}
print("hidden" if {hides} and hide() else "open", flush=True)
child = subprocess.run(["/bin/sh", "-c", "echo started"], capture_output=True, text=True)
print(child.stdout, end="", flush=True)
sys.stdin.read()
"""
REACHES = "import os, sys; sys.exit(not os.access(sys.executable, os.X_OK))"
LOOK = """\
import os, sys
for name in ("environ", "mem", "maps"):
    try:
        open(f"/proc/{sys.argv[1]}/{name}", "rb").read(0 if name == "mem" else 10_000)
        print(name)
    except PermissionError:
        pass
"""


@pytest.fixture
def as_user() -> tuple[str, ...]:
    """The words before a program that run it without the privileges of root, and a Python that it can reach."""
    if os.geteuid() != 0:
        return (sys.executable,)
    setpriv = shutil.which("setpriv")
    for python in (sys.executable, "/usr/bin/python3"):
        words = (str(setpriv), f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", python)
        if setpriv and Path(python).exists() and subprocess.run((*words, "-c", REACHES), check=False).returncode == 0:
            return words
    pytest.skip("root sees everything, and no Python here can be run by another user")


@pytest.fixture
def process(as_user: tuple[str, ...], request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """A process with a secret in its environment that has hidden itself, or not."""
    code = RUN.format(
        source=SOURCE.read_text().replace("from __future__ import annotations\n", ""), hides=request.param
    )
    environ = {"PATH": os.environ["PATH"], "SOME_KEY": "the secret"}
    with subprocess.Popen(
        (*as_user, "-c", code), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ, cwd="/"
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == ("hidden\n" if request.param else "open\n")
        assert running.stdout.readline() == "started\n"  # it starts programs as before
        yield running
        running.kill()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
@pytest.mark.parametrize(("process", "seen"), [(True, ""), (False, "environ mem maps")], indirect=["process"])
def test_a_neighbour_sees_the_secrets_of_an_open_process_only(
    as_user: tuple[str, ...], process: subprocess.Popen[str], seen: str
) -> None:
    looked = subprocess.run(
        (*as_user, "-c", LOOK, str(process.pid)), capture_output=True, text=True, check=True, cwd="/", timeout=20
    )
    assert looked.stdout.split() == seen.split()
