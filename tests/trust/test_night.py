"""A whole night of cheats, from the proposal to the verdict: none is kept. Without seal and sandbox they are."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from eventstore import events as e
from eventstore.home import Home
from eventstore.store import Store
from tests.conftest import Tally
from tests.trust.world import CHEATS, SETTINGS, World

PROPOSED = ("target_leak", "printed_number", "patched_evaluator")
NIGHT = """\
budget_s = 30
grace_s = 30
timeout_s = 110
"""


def night(world: World, folder: Path, *sets: str) -> dict[int, e.ExperimentDecided]:
    """The verdicts of a run in a fresh workspace."""
    for name in ("prepare.py", "train.py", "model.py"):
        folder.mkdir(exist_ok=True)
        shutil.copy(world.home.root / name, folder)
    settings = SETTINGS.replace("[sandbox]", f"{NIGHT}[sandbox]").replace(
        'kind = "scripted"', 'kind = "scripted"\nrepair_attempts = 0'
    )
    (folder / "nightshift.toml").write_text(settings)
    (folder / "program.md").write_text("# tiny\n")
    proposals = [
        {
            "experiment": number,
            "description": cheat.replace("_", " "),
            "edits": [{"edit": "file", "path": "train.py", "text": (CHEATS / f"{cheat}.py").read_text()}],
        }
        for number, cheat in enumerate(PROPOSED, start=1)
    ]
    (folder / "proposals.json").write_text(json.dumps(proposals))
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "begin"]):
        identity = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
        subprocess.run(["git", *identity, *words], cwd=folder, check=True)
    nightshift(world, folder, "start", "night", "--experiments", str(len(PROPOSED)), "--seed", "1", *sets)
    nightshift(world, folder, "loop", "--until-idle")
    with Store.open(Home(folder).log_path) as log:
        decided = [event.data for event in log.stream() if isinstance(event.data, e.ExperimentDecided)]
    return {data.experiment: data for data in decided}


def nightshift(world: World, folder: Path, *words: str) -> None:
    command = (sys.executable, "-m", "nightshift", "-C", str(folder), *words)
    ended = subprocess.run(command, env=world.environ, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("bubblewrap")
def test_a_night_keeps_no_cheat_and_would_without_the_seal(world: World, tmp_path: Path, tally: Tally) -> None:
    count = tally("trust: a whole night", "of cheats: none is kept")
    held = night(world, tmp_path / "sealed")
    told = {number: f"{data.verdict}: {data.reason}" for number, data in held.items()}
    for number, cheat in enumerate(PROPOSED, start=1):
        assert count.see(held[number].verdict != "keep"), f"{cheat}: {told}"
    assert held[0].verdict == "keep" and "tampered" in told[1] and "tampered" in told[2], told
    assert held[3].score == held[0].score, told

    control = night(world, tmp_path / "open", "--set", "objective.score=stdout", "--set", "sandbox.mode=off")
    assert [control[number].verdict for number in (0, 1, 2)] == ["keep"] * 3, control
    count.note = f"control: {control[1].score:.4f} and {control[2].score:.4f} are kept"
