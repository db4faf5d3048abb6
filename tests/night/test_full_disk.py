"""A disk that is full, or may only be read: told, survived, and with room again the night ends as it would have."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Tally
from tests.night.story import NIGHT_REQUEST, ROOT, Nursery, differences, ended, make_workspace
from tests.night.test_matrix import PROMISE, sample

PARTS = 4
WRITES = ("file open", "file os.mkdir", "file os.rename")
MAY_ADD = (
    "run.paused", "run.resumed", "run.resume_requested", "trouble.noticed", "trouble.cleared", "run.refused",
    "run.requested",
)  # fmt: skip


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workspace(tmp_path_factory.mktemp("full") / "workspace", NIGHT_REQUEST)


def full_everywhere(workspace: Path, folder: Path, part: int, parts: int, tally: Tally, *, quick: bool) -> None:
    """One write after the other fails for once, as on a full disk, in a night of its own."""
    broken: list[str] = []
    count = tally(PROMISE, "one write that finds the disk full, room again afterwards")
    with Nursery() as nursery:
        whole = shutil.copytree(workspace, folder / "whole", symlinks=True)
        assert nursery.serve(whole, record=folder / "points") == 0
        reference = ended(whole)
        points = [x for x in (folder / "points").read_text().splitlines() if x.startswith(WRITES)]
        for point in (sample(points) if quick else points)[part::parts]:
            night = shutil.copytree(workspace, folder / "night", symlinks=True)
            first = nursery.serve(night, fail_at=point)
            code = nursery.serve(night) if first else first
            said = nursery.errors(night).read_text()
            found = [x for x in differences(reference, ended(night)) if not x.endswith(MAY_ADD)]
            if not count.see(not (code or found or "Traceback" in said)):
                broken.append(f"{point}: exit codes {first}, {code}, {found} {said}")
            shutil.rmtree(night)
            nursery.errors(night).unlink()
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("part", range(2))
def test_a_full_disk_at_each_kind_of_write(workspace: Path, tmp_path: Path, tally: Tally, part: int) -> None:
    full_everywhere(workspace, tmp_path, part, 2, tally, quick=True)


@pytest.mark.long
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("part", range(PARTS))
def test_a_full_disk_at_every_write(workspace: Path, tmp_path: Path, tally: Tally, part: int) -> None:
    full_everywhere(workspace, tmp_path, part, PARTS, tally, quick=False)


def _denied() -> bool:
    command = ("unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/tmp")
    return shutil.which("unshare") is None or subprocess.run(command, capture_output=True, check=False).returncode != 0


def on_a_small_disk(how: str, folder: Path, *words: str) -> list[list[str]]:
    if _denied():
        pytest.skip("this machine lets nobody mount a tmpfs of its own")
    command = (sys.executable, "-m", "tests.night.small_disks", how, str(folder), *words)
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environ, check=False)
    assert done.returncode == 0, done.stderr
    faults: list[list[str]] = json.loads(done.stdout.splitlines()[-1])
    return faults


@pytest.mark.parametrize(
    "sizes",
    [
        "0 150",
        pytest.param(" ".join(map(str, range(0, 700, 25))), marks=[pytest.mark.long]),
    ],
)
@pytest.mark.timeout(900)
def test_a_disk_that_runs_full_in_the_night(tmp_path: Path, tally: Tally, sizes: str) -> None:
    """A real file system with so many kB left once the run has started: SQLite, git and the training meet it too."""
    faults = on_a_small_disk("full", tmp_path, *sizes.split())
    count = tally(PROMISE, "a small disk that is full, room again afterwards")
    for found in faults:
        count.see(not found)
    assert not any(faults), faults


@pytest.mark.parametrize("how", ["all", "runs"])
def test_a_disk_that_may_only_be_read(tmp_path: Path, how: str) -> None:
    """The whole workspace when the loop starts; or the folder of the runs from the middle of the night."""
    faults = on_a_small_disk(f"read-only {how}", tmp_path)
    assert faults == [[]], faults
