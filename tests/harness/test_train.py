"""train.py as it is run: a child process that trains for real and prints one block, or says why not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from conftest import Maker, Workspace

BLOCK = re.compile(r"(?m)^---\n((?:\w+: +\S+\n)+)\Z")
PROGRESS = re.compile(
    r"step \d{5} \([ \d]{2}\d\.\d%\) \| loss: \d+\.\d{3} \| dt: \d+ms \| tok/s: [\d,]+ \| left: \d+s {2}"
)

HAND_OVER = "prepare.hand_over(model, total_tokens=1, num_steps=1, num_params=1, depth=1, mfu_percent=0.0)"
SETUP = """
import time, torch, prepare
class Even(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(300))
    def forward(self, tokens):
        return self.weight.expand(*tokens.shape, -1)
model = Even()
"""


def block_of(ended: subprocess.CompletedProcess[str]) -> dict[str, float]:
    assert ended.returncode == 0, ended.stdout[-300:] + ended.stderr
    found = BLOCK.search(ended.stdout)
    assert found is not None, ended.stdout[-500:]
    return {line.split(":")[0]: float(line.split(":")[1]) for line in found[1].splitlines()}


@pytest.fixture(scope="module")
def trained(prepared: Workspace) -> subprocess.CompletedProcess[str]:
    """A real training of two seconds."""
    return prepared.run("train.py", NIGHTSHIFT_BUDGET_S="2")


def test_two_seconds_of_training_end_with_the_block_of_the_field_to_the_letter(
    trained: subprocess.CompletedProcess[str],
) -> None:
    got = block_of(trained)
    expected = (
        "---\n"
        f"val_bpb:          {got['val_bpb']:.6f}\n"
        f"training_seconds: {got['training_seconds']:.1f}\n"
        f"total_seconds:    {got['total_seconds']:.1f}\n"
        f"peak_vram_mb:     {got['peak_vram_mb']:.1f}\n"
        f"mfu_percent:      {got['mfu_percent']:.2f}\n"
        f"total_tokens_M:   {got['total_tokens_M']:.1f}\n"
        f"num_steps:        {int(got['num_steps'])}\n"
        f"num_params_M:     {got['num_params_M']:.1f}\n"
        f"depth:            {int(got['depth'])}\n"
    )
    assert trained.stdout.endswith("\n" + expected)
    assert trained.stdout.count("val_bpb") == 1
    assert trained.stderr == ""


def test_the_block_tells_what_happened(trained: subprocess.CompletedProcess[str]) -> None:
    got = block_of(trained)
    assert 2.0 <= got["training_seconds"] < 3.0
    assert got["total_seconds"] >= got["training_seconds"]
    assert got["depth"] == 2
    assert got["num_steps"] > 20
    assert got["peak_vram_mb"] > 100
    # An even guess costs log2(300) bits for each token of two bytes or so: training must have learned something.
    assert 0.5 < got["val_bpb"] < 3.5


def test_progress_is_one_line_that_is_written_over(trained: subprocess.CompletedProcess[str]) -> None:
    line = trained.stdout.split("\n---\n")[0]
    assert "\n" not in line
    states = line.split("\r")[1:]
    assert len(states) > 5
    assert all(PROGRESS.fullmatch(state) for state in states)
    assert "(100.0%)" in states[-1]


def test_the_same_seed_and_steps_give_the_same_score(prepared: Workspace) -> None:
    scores = [
        block_of(prepared.run("train.py", NIGHTSHIFT_MAX_STEPS="10", NIGHTSHIFT_SEED=seed))["val_bpb"]
        for seed in ("1", "1", "2")
    ]
    assert scores[0] == scores[1] != scores[2]


@pytest.mark.parametrize("constants", [{"EMBED_LR": 1e39}, {"LOSS_MAX": 1.0}])
def test_a_loss_of_nan_or_beyond_the_limit_fails_at_once(
    make: Maker, corpus: Path, prepared: Workspace, tmp_path: Path, constants: dict[str, float]
) -> None:
    workspace = make.workspace(tmp_path / "workspace", corpus, train=constants)
    ended = workspace.run("train.py", NIGHTSHIFT_CACHE=str(prepared.cache))
    assert ended.returncode == 1
    assert ended.stdout.splitlines()[-1] == "FAIL"
    assert "---" not in ended.stdout


def test_muon_trains_too(make: Maker, corpus: Path, prepared: Workspace, tmp_path: Path) -> None:
    changes = {"MATRIX_OPTIMIZER": "muon", "MATRIX_LR": 0.02, "EMBED_LR": 0.1, "WARMDOWN": 0.5, "ACCUMULATION": 2}
    workspace = make.workspace(tmp_path / "workspace", corpus, train=changes)
    ended = workspace.run("train.py", NIGHTSHIFT_CACHE=str(prepared.cache), NIGHTSHIFT_MAX_STEPS="60")
    got = block_of(ended)
    assert got["num_steps"] == 60
    assert got["val_bpb"] < 3.0


# ---------------------------------------------------------------- ready() and hand_over()


def test_without_a_cache_it_says_what_to_run(make: Maker, corpus: Path, tmp_path: Path) -> None:
    ended = make.workspace(tmp_path / "workspace", corpus).run("train.py")
    assert ended.returncode == 1
    assert re.fullmatch(
        r"prepare\.py: no prepared corpus .* for this prepare\.py: run `python prepare\.py` first\n", ended.stderr
    )
    assert ended.stdout == ""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("train/tokens.bin", "the cache"),
        ("tokenizer.json", "the cache"),
        ("manifest.json", "the cache"),
        ("select/tokens.bin", "no score: the cache"),
    ],
)
def test_damaged_data_is_neither_trained_on_nor_scored(
    make: Maker, corpus: Path, prepared: Workspace, tmp_path: Path, name: str, said: str
) -> None:
    import shutil

    workspace = make.workspace(tmp_path / "workspace", corpus)
    shutil.copytree(prepared.cache, workspace.cache)
    damaged = next(workspace.cache.glob("*/manifest.json")).parent / name
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    ended = workspace.run("-c", f"{SETUP}\nprepare.ready()\n{HAND_OVER}")
    assert ended.returncode == 1
    assert f"prepare.py: {said}" in ended.stderr
    assert "is damaged" in ended.stderr
    assert "---" not in ended.stdout


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (HAND_OVER, "RuntimeError: hand_over() was called before ready()"),
        ("prepare.ready(); prepare.ready()", "RuntimeError: ready() was called twice"),
        (f"prepare.ready()\n{HAND_OVER}\n{HAND_OVER}", "RuntimeError: hand_over() was called twice"),
    ],
)
def test_the_order_is_ready_then_hand_over_each_once(prepared: Workspace, code: str, said: str) -> None:
    ended = prepared.run("-c", SETUP + code)
    assert ended.returncode == 1
    assert said in ended.stderr
    assert ended.stdout.count("---") <= 1


def test_a_deadline_that_is_ignored_gives_no_score(prepared: Workspace) -> None:
    ended = prepared.run("-c", f"{SETUP}\nprepare.ready()\ntime.sleep(2.2)\n{HAND_OVER}", NIGHTSHIFT_BUDGET_S="0.1")
    assert ended.returncode == 1
    assert "no score: train.py trained for 2.2 s of 0.1 s" in ended.stderr
    assert "---" not in ended.stdout


def test_output_that_is_not_finite_gives_no_score(prepared: Workspace) -> None:
    broken = "model.weight.data[0] = float('inf')"
    ended = prepared.run("-c", f"{SETUP}\nprepare.ready()\n{broken}\n{HAND_OVER}")
    assert ended.returncode == 1
    assert ended.stdout.endswith("the model's output is not finite\nFAIL\n")
    assert "---" not in ended.stdout
