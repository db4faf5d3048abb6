"""A full disk: refused in one sentence, nothing acknowledged is lost, and with room again it goes on."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Tally

Attack = Callable[..., str]

TRIALS = [12, pytest.param(300, marks=[pytest.mark.long, pytest.mark.timeout(900)])]


def judge(attack: Attack, tally: Tally, how: str, name: str, folder: Path, trials: int) -> None:
    count = tally("a full disk loses nothing and says so", name)
    found = json.loads(attack("full_disks", how, folder, trials, 31))
    for faults in found:
        count.see(not faults)
    print([faults for faults in found if faults])
    assert count.held == count.made == trials


@pytest.mark.parametrize("trials", TRIALS)
def test_a_limit_on_file_size(attack: Attack, tally: Tally, tmp_path: Path, trials: int) -> None:
    judge(attack, tally, "limit", "RLIMIT_FSIZE at a random byte", tmp_path, trials)


@pytest.mark.parametrize("trials", TRIALS)
def test_a_small_file_system(attack: Attack, tally: Tally, tmp_path: Path, trials: int) -> None:
    if shutil.which("unshare") is None or _denied():
        pytest.skip("this machine lets nobody mount a tmpfs of its own")
    judge(attack, tally, "tmpfs", "a tmpfs of 1 MB filled up", tmp_path, trials)


def _denied() -> bool:
    command = ("unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/tmp")
    return subprocess.run(command, capture_output=True, check=False).returncode != 0
