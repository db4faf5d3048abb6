"""train.py as it is run: a child process that trains for real and prints one block, or says why not."""

from __future__ import annotations

import math
import re
import shutil
from typing import TYPE_CHECKING

import pytest

from loop import profiles

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
def even_score(prepared: Workspace) -> float:
    """The score of a model that gives every token the same chance."""
    prepare = prepared.module("prepare")
    folder = next(prepared.cache.glob("*/manifest.json")).parent
    targets = prepare.evaluation_rows(prepare.open_tokens(folder, "select"))[1]
    scored = targets[targets != prepare.BOS]
    return math.log2(300) * len(scored) / prepare.token_lengths(folder)[scored].sum()


def test_two_seconds_of_training_print_one_line_of_progress_and_the_block_of_the_field_to_the_letter(
    prepared: Workspace, even_score: float
) -> None:
    trained = prepared.run("train.py", NIGHTSHIFT_BUDGET_S="2")
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
    progress, _, block = trained.stdout.partition("\n")
    assert block == expected
    assert trained.stderr == ""
    states = progress.split("\r")[1:]
    assert len(states) > 5
    assert all(PROGRESS.fullmatch(state) for state in states)
    assert "(100.0%)" in states[-1]
    assert 2.0 <= got["training_seconds"] < 4.0
    assert got["total_seconds"] >= got["training_seconds"]
    assert got["depth"] == 2
    assert got["num_steps"] > 10
    assert got["peak_vram_mb"] > 100
    assert got["val_bpb"] < 0.9 * even_score


def test_the_same_seed_and_steps_give_the_same_score(prepared: Workspace) -> None:
    scores = [
        block_of(prepared.run("train.py", NIGHTSHIFT_MAX_STEPS="10", NIGHTSHIFT_SEED=seed))["val_bpb"]
        for seed in ("1", "1", "2")
    ]
    assert scores[0] == scores[1] != scores[2]


@pytest.mark.parametrize("constants", [{"SOFTCAP": 0.0}, {"LOSS_MAX": 1.0}])
def test_a_loss_of_nan_or_beyond_the_limit_fails_at_once(
    make: Maker, corpus: Path, prepared: Workspace, tmp_path: Path, constants: dict[str, float]
) -> None:
    workspace = make.workspace(tmp_path / "workspace", corpus, train=constants)
    ended = workspace.run("train.py", NIGHTSHIFT_CACHE=str(prepared.cache))
    assert ended.returncode == 1
    assert ended.stdout.splitlines()[-1] == "FAIL"
    assert "---" not in ended.stdout


def test_muon_trains_too(make: Maker, corpus: Path, prepared: Workspace, tmp_path: Path, even_score: float) -> None:
    changes = {"MATRIX_OPTIMIZER": "muon", "MATRIX_LR": 0.02, "EMBED_LR": 0.1, "WARMDOWN": 0.5, "ACCUMULATION": 2}
    workspace = make.workspace(tmp_path / "workspace", corpus, train=changes)
    ended = workspace.run("train.py", NIGHTSHIFT_CACHE=str(prepared.cache), NIGHTSHIFT_MAX_STEPS="60")
    got = block_of(ended)
    assert got["num_steps"] == 60
    assert got["val_bpb"] < 0.9 * even_score


def test_windows_train_too(make: Maker, corpus: Path, prepared: Workspace, tmp_path: Path, even_score: float) -> None:
    changes = {"DEPTH": 3, "WINDOW_PATTERN": "S", "SHORT_WINDOW": 8, "EMBED_LR": 0.01, "MATRIX_LR": 0.01}
    workspace = make.workspace(tmp_path / "workspace", corpus, train=changes)
    ended = workspace.run("train.py", NIGHTSHIFT_CACHE=str(prepared.cache), NIGHTSHIFT_MAX_STEPS="60")
    assert block_of(ended)["val_bpb"] < 0.9 * even_score


# ---------------------------------------------------------------- the start


def test_a_dry_run_starts_and_stops_before_any_data(make: Maker, corpus: Path, tmp_path: Path) -> None:
    """Without a cache, so that it could not train if it would."""
    workspace = make.workspace(tmp_path / "workspace", corpus, train={"WINDOW_PATTERN": "SL"})
    ended = workspace.run("train.py", "--dry", CUDA_VISIBLE_DEVICES="")
    assert ended.returncode == 0
    assert re.fullmatch(
        r"ready to train on cpu: [\d,]+ parameters, built in \d+\.\d s, compiled and warm in \d+\.\d s\n", ended.stdout
    )
    assert ended.stderr == ""


COMPILE = """
import os, torch, train
train.keep_compiled()
from torch._dynamo.utils import counters
square = torch.compile(lambda x: x @ x)  # a product needs no C++ compiler
assert square(torch.eye(3)).tolist() == torch.eye(3).tolist()
print(os.environ["TORCHINDUCTOR_CACHE_DIR"], counters["inductor"]["fxgraph_cache_hit"])
"""


def test_what_one_experiment_has_compiled_the_next_one_finds(prepared: Workspace, tmp_path: Path) -> None:
    """In a folder below the cache of the corpus, which the loop names to every experiment."""
    said = [prepared.run("-c", COMPILE, NIGHTSHIFT_CACHE=str(tmp_path)).stdout.split() for _ in range(2)]
    assert said == [[str(tmp_path / "compiled"), "0"], [str(tmp_path / "compiled"), "1"]]


def test_the_environment_may_name_another_folder_for_what_is_compiled(prepared: Workspace, tmp_path: Path) -> None:
    code = "import os, train; train.keep_compiled(); print(os.environ['TORCHINDUCTOR_CACHE_DIR'])"
    said = prepared.run("-c", code, TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "mine")).stdout
    assert said == f"{tmp_path / 'mine'}\n"


@pytest.mark.gpu
def test_on_a_gpu_the_model_of_the_profile_trains_and_is_scored(make: Maker, corpus: Path, tmp_path: Path) -> None:
    """With its windows, in bfloat16, compiled; on little text and for a few steps."""
    constants = {name: dict(values) for name, values in profiles.PROFILES["gpu"].constants.items()}
    short = {"CORPUS": str(corpus), "MAX_SEQ_LEN": 512, "EVAL_TOKENS": 4096, "VOCAB_SIZE": 300}
    few = {"SEQ_LEN": 512, "BATCH_ROWS": 8, "ACCUMULATION": 1}
    workspace = make.workspace(
        tmp_path / "w", corpus, prepare=constants["prepare.py"] | short, train=constants["train.py"] | few
    )
    assert workspace.run("prepare.py").returncode == 0
    got = block_of(workspace.run("train.py", NIGHTSHIFT_MAX_STEPS="20"))
    assert got["num_steps"] == 20
    assert got["mfu_percent"] > 0


# ---------------------------------------------------------------- ready() and hand_over()


def test_without_a_cache_it_says_what_to_run(make: Maker, corpus: Path, tmp_path: Path) -> None:
    ended = make.workspace(tmp_path / "workspace", corpus).run("train.py")
    assert ended.returncode == 1
    assert re.fullmatch(
        r"prepare\.py: no prepared corpus .* for this prepare\.py: run `python prepare\.py` first\n", ended.stderr
    )
    assert ended.stdout == ""


@pytest.mark.parametrize("name", ["train/tokens.bin", "tokenizer.json", "manifest.json"])
def test_damaged_data_is_not_trained_on(
    make: Maker, corpus: Path, prepared: Workspace, tmp_path: Path, name: str
) -> None:
    damaged = damage(make.workspace(tmp_path / "workspace", corpus), prepared, name)
    ended = damaged.run("-c", "import prepare; prepare.ready()")
    assert ended.returncode == 1
    assert f"is damaged ({name} is" in ended.stderr
    assert "run `python prepare.py`" in ended.stderr


def test_damaged_rows_are_not_scored(make: Maker, corpus: Path, prepared: Workspace, tmp_path: Path) -> None:
    damaged = damage(make.workspace(tmp_path / "workspace", corpus), prepared, "select/tokens.bin")
    ended = damaged.run("-c", f"{SETUP}\nprepare.ready()\n{HAND_OVER}")
    assert ended.returncode == 1
    assert "no score: the cache" in ended.stderr
    assert "is damaged (select/tokens.bin is altered)" in ended.stderr
    assert "---" not in ended.stdout


def damage(workspace: Workspace, prepared: Workspace, name: str) -> Workspace:
    """Give *workspace* a copy of the prepared cache with the last byte of one file changed."""
    shutil.copytree(prepared.cache, workspace.cache)
    path = next(workspace.cache.glob("*/manifest.json")).parent / name
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    return workspace


def test_ready_comes_first_and_once_and_hand_over_once(prepared: Workspace) -> None:
    no_model = f"model = None\n{HAND_OVER}"
    early = prepared.run("-c", f"import prepare\n{no_model}")
    assert "RuntimeError: hand_over() was called before ready()" in early.stderr
    twice_ready = prepared.run("-c", "import prepare; prepare.ready(); prepare.ready()")
    assert "RuntimeError: ready() was called twice" in twice_ready.stderr
    twice_over = prepared.run("-c", f"{SETUP}\nprepare.ready()\n{HAND_OVER}\n{HAND_OVER}")
    assert "RuntimeError: hand_over() was called twice" in twice_over.stderr
    assert twice_over.stdout.count("---") == 1
    assert [ended.returncode for ended in (early, twice_ready, twice_over)] == [1, 1, 1]


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
