"""A real night with the sealed evaluator, on the shipped harness with tiny constants: what each experiment deserves,
and what becomes of it when the loop is killed between a training and its score.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from eventstore import events as e
from eventstore.envelope import Event
from eventstore.events import Scalar, SetConstants
from eventstore.home import Home
from eventstore.projections.run_state import State
from eventstore.store import Store
from loop import edits
from loop.effects.hands import History
from loop.lessons import lessons
from tests.loop.story import git

ROOT = Path(__file__).parents[2]
DRIVER = Path(__file__).parent / "sealed_driver.py"
WORDS = "the loop trains a small model on text and keeps what is better ; naïve café = ( ) x_1 42"
TINY: dict[str, dict[str, Scalar]] = {
    "prepare.py": {"VOCAB_SIZE": 300, "MAX_SEQ_LEN": 32, "EVAL_TOKENS": 2048, "EVAL_BATCH_TOKENS": 1024},
    "train.py": {"DEPTH": 1, "DIM": 32, "HEAD_DIM": 16, "SEQ_LEN": 32, "BATCH_ROWS": 8}
    | dict.fromkeys(("MATRIX_LR", "EMBED_LR", "HEAD_LR"), 1e-6),  # learns nothing, so that a gain is certain
}
SETTINGS = """\
[objective]
name = "val_bpb"
direction = "minimize"
score = "sealed"
editable = ["train.py"]
protected = ["prepare.py"]
[experiment]
command = ["python", "train.py"]
budget_s = 1
grace_s = 30
timeout_s = 110
[proposer]
kind = "scripted"
repair_attempts = 0
"""
LOGITS = "        return SOFTCAP * torch.tanh(logits / SOFTCAP)\n"
LOOKS_AHEAD = """\
        ahead = torch.cat((tokens[:, 1:], tokens[:, :1]), dim=1)
        return SOFTCAP * torch.tanh(logits / SOFTCAP) + 8 * F.one_hot(ahead, VOCAB_SIZE).float()
"""
PROPOSALS = [
    (
        "a learning rate that learns",
        {"edit": "set", "path": "train.py", "values": {"EMBED_LR": 0.03, "HEAD_LR": 0.03}},
    ),
    ("look ahead", {"search": LOGITS, "replace": LOOKS_AHEAD}),
    ("a random model", {"search": LOGITS, "replace": "        return logits + torch.rand_like(logits)\n"}),
    ("tell the score", {"search": "    hand_over(\n", "replace": "    print('\\nval_bpb: 0.5')\n    hand_over(\n"}),
    ("forget to hand over", {"search": "    hand_over(\n        model,\n", "replace": "    dict(\n"}),
]


def prepared(folder: Path) -> dict[str, str]:
    """Make a workspace with its corpus and its cache; the environment to work in it."""
    rng = random.Random(7)
    for number in range(150):
        path = folder / "corpus" / f"text{number:03d}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(" ".join(rng.choices(WORDS.split(), k=12)) + "\n" for _ in range(32)))
    work = folder / "workspace"
    work.mkdir()
    texts = {name: (ROOT / name).read_text() for name in TINY}
    sets = [SetConstants(name, values) for name, values in TINY.items()]
    sets.append(SetConstants("prepare.py", {"CORPUS": str(folder / "corpus")}))
    for name, text in edits.apply(sets, texts, editable=list(TINY)).items():
        (work / name).write_text(text)
    (work / "nightshift.toml").write_text(SETTINGS)
    (work / "program.md").write_text("# tiny\n")
    (work / "proposals.json").write_text(json.dumps([*map(proposal, range(1, 1 + len(PROPOSALS)))]))
    git(work, "init", "-q", "-b", "main")
    git(work, "add", "-A")
    git(work, "commit", "-q", "-m", "tiny")
    environ = {**os.environ, "NIGHTSHIFT_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    subprocess.run((sys.executable, "prepare.py"), cwd=work, env=environ, stdout=subprocess.DEVNULL, check=True)
    return environ


def proposal(number: int) -> dict[str, object]:
    description, edit = PROPOSALS[number - 1]
    if "search" in edit:
        edit = {"edit": "blocks", "path": "train.py", "blocks": [edit]}
    return {"experiment": number, "description": description, "edits": [edit]}


def nightshift(work: Path, environ: dict[str, str], *args: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "nightshift", "-C", str(work), *args)
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=280)


def serve(work: Path, environ: dict[str, str], *killed_after: str) -> int:
    command = (sys.executable, str(DRIVER), str(work), *killed_after)
    return subprocess.run(command, env={**environ, "PYTHONPATH": str(ROOT)}, check=False, timeout=280).returncode


def events_of(work: Path) -> list[Event]:
    with Store.open(Home(work).log_path) as log:
        return list(log.stream())


@pytest.mark.timeout(400)
def test_a_night_in_which_every_experiment_gets_what_it_deserves(tmp_path: Path) -> None:
    environ = prepared(tmp_path)
    work = tmp_path / "workspace"
    asked = nightshift(work, environ, "start", "night", "--experiments", str(len(PROPOSALS)), "--seed", "3")
    assert asked.returncode == 0, asked.stderr
    assert serve(work, environ, "training.finished", "0") == -signal.SIGKILL
    assert serve(work, environ, "scoring.requested", "1") == -signal.SIGKILL
    assert serve(work, environ) == 0
    log = events_of(work)

    decided = {x.data.experiment: x.data for x in log if isinstance(x.data, e.ExperimentDecided)}
    told = {number: f"{data.verdict}: {data.reason}" for number, data in decided.items()}
    assert told[0] == "keep: baseline"
    assert told[1].startswith("keep: better by"), told
    assert told[2].startswith("crash: tampered: what it predicts at a position moved"), told
    assert told[3].startswith("crash: refused_operator: operator aten.rand_like.default is not allowed; use"), told
    assert told[4].startswith("crash: tampered: it printed a score"), told
    assert told[5].startswith("crash: no_metric: it ended without a model"), told
    assert len(told) == 1 + len(PROPOSALS)

    # killed between training and score: neither trained again nor asked for again
    asks = Counter(x.type for x in log if getattr(x.data, "experiment", None) in (0, 1))
    assert asks["training.requested"] == asks["training.finished"] == 2
    scorings = [x.data for x in log if isinstance(x.data, e.ScoringRequested)]
    assert [(x.experiment, x.checks) for x in scorings] == [(0, True), (1, False), (1, True), (2, False), (2, True)]
    started = next(x.data for x in log if isinstance(x.data, e.RunStarted))
    assert {x.evaluator for x in scorings} == {"sealed/1"}
    assert {x.rows_hash for x in scorings} == {started.rows_hash} and len(started.rows_hash) == 64

    # both numbers, and the block in the log is ours
    scored = {
        (x.data.experiment, x.data.checks is not None): x.data for x in log if isinstance(x.data, e.ScoringFinished)
    }
    best = scored[1, True]
    assert best.score == decided[1].score == scored[1, False].score
    assert best.report_score is not None and best.report_score != best.score and scored[1, False].report_score is None
    assert best.checks is not None and best.checks.rows > 0 and best.checks.moved == 0 and best.checks.positions > 0
    assert scored[2, True].checks is not None and scored[2, True].checks.moved > 0 and scored[2, True].score is None
    text = (work / ".nightshift/runs/night/1/0.0/run.log").read_text()
    block = text.rpartition("\n---\n")[2].splitlines()
    assert block[0] == f"val_bpb:          {best.score:.6f}" and block[1].startswith("training_seconds: ")
    assert [x.data.score for x in log if isinstance(x.data, e.TrainingFinished)] == [None] * 6

    # people are told, and the proposer
    shown = nightshift(work, environ, "experiment", "show", "1").stdout
    assert f"score {best.score:.6f}, report {best.report_score:.6f}, does not look ahead" in " ".join(shown.split())
    digest = " ".join(nightshift(work, {**environ, "COLUMNS": "400"}, "digest").stdout.split())
    assert "2 experiments tampered with the harness or the score" in digest, digest
    assert f"{best.report_score:.6f}" in digest
    run = State.of(log).runs["night"]
    lesson = lessons(History().before(run, 10**9), 4_000)
    assert "operator aten.rand_like.default is not allowed; use nothing random at evaluation" in lesson

    # nothing is left that takes room for each experiment, or runs
    left = list((work / ".nightshift" / "handed").rglob("weights.safetensors"))
    assert len(left) <= 1
    assert not list((work / ".nightshift" / "work").rglob("*.py"))


def test_a_workspace_that_is_not_ready_is_told_what_is_missing(tmp_path: Path) -> None:
    environ = prepared(tmp_path)
    work = tmp_path / "workspace"
    moved = {**environ, "NIGHTSHIFT_CACHE": str(tmp_path / "elsewhere")}
    asked = nightshift(work, moved, "start", "night", "--experiments", "1")
    assert asked.returncode == 1
    assert "no prepared corpus" in asked.stderr and "run `python prepare.py` in the workspace" in asked.stderr
    text = (work / "prepare.py").read_text()
    (work / "prepare.py").write_text(text.replace("TRUSTED_OPERATORS", "OPERATORS"))
    git(work, "commit", "-q", "-a", "-m", "an old harness")
    asked = nightshift(work, environ, "start", "night", "--experiments", "1")
    assert asked.returncode == 1 and "it has no TRUSTED_OPERATORS" in asked.stderr
