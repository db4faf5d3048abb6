"""The profiles fit the files they are for."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest
import torch

from eventstore import settings
from eventstore.events import Scalar, SetConstants
from loop import edits, profiles

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Maker

NAMES = list(profiles.PROFILES)


def files(make: Maker, profile: str) -> dict[str, str]:
    """The shipped files with the profile's constants set."""
    texts = {name: (make.shipped / name).read_text() for name in ("prepare.py", "train.py")}
    sets = [SetConstants(path, values) for path, values in profiles.PROFILES[profile].constants.items()]
    return texts | (edits.apply(sets, texts, editable=list(texts)) if sets else {})


def constants(text: str) -> dict[str, Scalar]:
    found = {}
    for node in ast.parse(text).body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Constant)
        ):
            found[node.targets[0].id] = node.value.value
    return found


def test_the_shipped_files_are_the_cpu_profile() -> None:
    assert profiles.PROFILES["cpu"].constants == {}


@pytest.mark.parametrize("profile", NAMES)
def test_every_constant_of_a_profile_is_in_its_file_and_keeps_its_type(make: Maker, profile: str) -> None:
    for path, values in profiles.PROFILES[profile].constants.items():
        shipped = constants((make.shipped / path).read_text())
        changed = constants(files(make, profile)[path])
        assert {name: type(value) for name, value in values.items()} == {name: type(shipped[name]) for name in values}
        assert changed == shipped | values


@pytest.mark.parametrize("profile", NAMES)
def test_the_settings_are_valid_and_agree_with_the_harness(make: Maker, profile: str) -> None:
    read = settings.parse(profiles.PROFILES[profile].settings)
    assert read.objective.score == "sealed"
    assert (read.objective.name, read.objective.direction) == ("val_bpb", "minimize")
    assert read.experiment.budget_s == constants(files(make, profile)["prepare.py"])["TIME_BUDGET_S"]
    assert read.experiment.timeout_s >= 1.5 * read.experiment.budget_s


@pytest.mark.parametrize("profile", NAMES)
def test_the_tables_that_are_commented_out_are_valid_too(profile: str) -> None:
    text = re.sub(r"^# (?=\[|\w+ = )", "", profiles.PROFILES[profile].settings, flags=re.MULTILINE)
    read = settings.parse(text)
    assert read.guard is not None and read.limits.until == "08:00"
    assert read.slack.channel and read.slack.admins and read.digest.zone == "Europe/Berlin"


@pytest.mark.parametrize("profile", NAMES)
def test_the_start_lies_inside_every_swept_range(make: Maker, profile: str) -> None:
    start = constants(files(make, profile)["train.py"])
    for name, values in settings.parse(profiles.PROFILES[profile].settings).sweep.items():
        if isinstance(values, settings.Choice):
            assert start[name] in values.choices
        else:
            assert values.low <= start[name] <= values.high
            assert isinstance(start[name], int) == (isinstance(values.low, int) and isinstance(values.high, int))


def test_the_gpu_model_has_the_size_of_the_fields_baseline(make: Maker, tmp_path: Path) -> None:
    """Upstream's depth 8, width 512 and 8,192 tokens have 50.3 M parameters; a step takes 2^18 tokens."""
    changes = profiles.PROFILES["gpu"].constants
    workspace = make.workspace(
        tmp_path / "workspace", tmp_path, prepare=changes["prepare.py"], train=changes["train.py"]
    )
    train = workspace.module("train")
    with torch.device("meta"):
        model = train.GPT(torch.bfloat16)
        logits = model(torch.zeros((2, train.MAX_SEQ_LEN), dtype=torch.int64))
    assert logits.shape == (2, 2048, 8192)
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(50.3, abs=0.1)
    assert train.BATCH_ROWS * train.SEQ_LEN * train.ACCUMULATION == 2**18
    assert model.is_short == [True, True, True, False] * 2


def test_the_gpu_profile_scores_as_many_rows_as_the_field_does(make: Maker) -> None:
    """10,240 rows of 2,048 tokens, in whole batches: the last is no smaller, so nothing is compiled a second time."""
    harness = constants(files(make, "gpu")["prepare.py"])
    assert harness["CORPUS"] == "climbmix"
    assert (harness["MAX_SEQ_LEN"], harness["VOCAB_SIZE"], harness["TIME_BUDGET_S"]) == (2048, 8192, 300.0)
    assert harness["EVAL_TOKENS"] == 40 * 524_288 == 10_240 * harness["MAX_SEQ_LEN"]
    assert harness["EVAL_TOKENS"] % harness["EVAL_BATCH_TOKENS"] == 0
