"""Trainings that hand a model over: the gate, the clock behind it, and what each child deserves. No torch here."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer.errors import CannotStart, DataUnusable, InvalidSpec, OutputUnwritable
from trainer.executors.local import LocalExecutor
from trainer.files import BLOCK_BEGINS, HANDED_OVER, read_facts, read_result, take_hand_over, write_block
from trainer.gate import Data
from trainer.outcome import HandedOver, classify_sealed
from trainer.process import machine
from trainer.sandbox.plan import View
from trainer.spec import HAND_OVER_NAME, Cut, DataFile, Result, Scoring, Seal, TrainingSpec
from trainer.summary import MetricStream, facts_of_json

Train = Callable[..., Any]
TEXT = b"once upon a time " * 1000
SEALED = Scoring(kind="sealed", name="val_bpb")

CHILD = """\
import json, os, socket, sys, time
from pathlib import Path
handed = Path(os.environ["NIGHTSHIFT_HAND_OVER"])
gate = socket.socket(fileno=int(os.environ["NIGHTSHIFT_GATE"]))
def ready():
    gate.sendall(b"READY\\n")
    said, files, *_ = socket.recv_fds(gate, 64, 1)
    assert said == b"GO\\n", said
    return files[0]
def hand_over():
    for name in ("weights.safetensors", "graph.json"):
        (handed / name).write_bytes(b"x")
    (handed / "facts.json").write_text(json.dumps({"num_steps": "12", "peak_vram_mb": "33.5"}))
"""


@pytest.fixture
def train(training: Callable[..., TrainingSpec], tmp_path: Path) -> Train:
    """Runs a child to its end; what it is handed is `TEXT`."""
    (tmp_path / "tokens.bin").write_bytes(TEXT)

    async def run(code: str, *, grace_s: float = 5.0, sha256: str = "", **wanted: Any) -> Result:
        data = (DataFile(tmp_path / "tokens.bin", sha256),)
        seal = Seal(data, tmp_path / "state" / "handed", grace_s)
        spec = training(CHILD + code, scoring=SEALED, seal=seal, **wanted)
        return await (await LocalExecutor().start(spec, 0)).wait()

    return run


# ---------------------------------------------------------------- the gate


@pytest.mark.parametrize("view", [None, View()])
async def test_the_text_comes_with_go_and_the_model_is_out_of_reach_afterwards(
    train: Train, tmp_path: Path, view: View | None
) -> None:
    result = await train("print(len(os.read(ready(), 10**6))); hand_over()", view=view)
    assert (result.outcome, result.score, result.tail) == ("scored", None, str(len(TEXT)))
    assert result.metrics == {"num_steps": 12, "peak_vram_mb": 33.5}
    assert result.trained_s is not None and 0 < result.trained_s < result.seconds
    handed = tmp_path / "state" / "handed"
    assert sorted(path.name for path in handed.iterdir()) == ["facts.json", "graph.json", "weights.safetensors"]
    assert read_result(tmp_path / "out") == result


WRITES = """
file = ready()
for name in (f"/proc/self/fd/{file}", file):
    try:
        os.write(os.open(name, os.O_RDWR) if isinstance(name, str) else name, b"mine")
        print("wrote")
    except OSError as error:
        print(error.strerror)
hand_over()
"""


async def test_what_is_handed_in_cannot_be_written_by_any_of_its_names(train: Train, tmp_path: Path) -> None:
    result = await train(WRITES)
    assert result.tail.split("\n") == ["Operation not permitted", "Bad file descriptor"]
    assert (tmp_path / "tokens.bin").read_bytes() == TEXT


def test_the_control_a_descriptor_of_the_file_itself_can_be_opened_for_writing(tmp_path: Path) -> None:
    path = tmp_path / "tokens.bin"
    path.write_bytes(TEXT)
    with path.open("rb") as file, Path(f"/proc/self/fd/{file.fileno()}").open("r+b") as again:
        again.write(b"mine")
    assert path.read_bytes().startswith(b"mine")


def test_a_file_is_read_once_and_again_only_when_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "tokens.bin"
    path.write_bytes(TEXT)
    data = Data()
    (first,) = data.hold([DataFile(path)])
    assert data.hold([DataFile(path)]) == [first]
    path.write_bytes(TEXT + b"more")
    (second,) = data.hold([DataFile(path)])
    assert os.pread(second, 10**6, 0) == TEXT + b"more"
    data.close()
    with pytest.raises(OSError):
        os.fstat(second)


async def test_text_that_is_not_what_it_was_is_handed_to_nobody(train: Train, tmp_path: Path) -> None:
    good = hashlib.sha256(TEXT).hexdigest()
    assert (await train("ready(); hand_over()", sha256=good)).outcome == "scored"
    (tmp_path / "tokens.bin").write_bytes(TEXT[:-1] + b"!")
    with pytest.raises(DataUnusable, match=r"tokens\.bin is not what it was .* run `python prepare\.py`"):
        await train("Path('ran').touch(); ready(); hand_over()", sha256=good)
    (tmp_path / "tokens.bin").unlink()
    with pytest.raises(DataUnusable, match=r"cannot be read \(No such file"):
        await train("Path('ran').touch()", sha256=good)
    assert not (tmp_path / "work" / "ran").exists()


@pytest.mark.parametrize("said", ["b'STEADY\\n'", "b'READY'", "b'READY' + b'!' * 10**5"])
async def test_whoever_says_something_else_is_not_let_through(train: Train, said: str) -> None:
    code = f"gate.settimeout(1)\ntry:\n    gate.sendall({said}); print(gate.recv(9))\nexcept OSError: print('no')"
    result = await train(code)
    assert result.tail in ("b''", "no") and result.trained_s is None


# ---------------------------------------------------------------- the clock


async def test_what_comes_before_go_is_not_counted(train: Train) -> None:
    result = await train("time.sleep(1); ready(); hand_over()", budget_s=0.1, grace_s=0.6)
    assert result.outcome == "scored", result.why
    assert result.seconds > 1 > result.trained_s


@pytest.mark.parametrize("view", [None, View()])
async def test_what_is_handed_over_late_does_not_count(train: Train, tmp_path: Path, view: View | None) -> None:
    result = await train("ready(); time.sleep(1); hand_over(); print('done')", budget_s=0.2, grace_s=0.3, view=view)
    assert (result.outcome, result.tail) == ("timeout", "")
    assert "had not ended 0.3 s after the 0.2 s of its budget" in result.why
    assert not (tmp_path / "state" / "handed").exists()


async def test_a_model_handed_over_in_time_by_one_that_trains_on_does_not_count_either(
    train: Train, tmp_path: Path
) -> None:
    result = await train("ready(); hand_over(); time.sleep(9)", budget_s=0.2, grace_s=0.3)
    assert result.outcome == "timeout"
    assert not (tmp_path / "state" / "handed").exists()


async def test_one_that_never_says_ready_ends_at_the_limit_of_the_whole(train: Train) -> None:
    result = await train("hand_over(); time.sleep(9)", timeout_s=0.5, budget_s=0.1)
    assert result.outcome == "timeout"
    assert result.why == "it did not call ready() of prepare.py within 0.5 s, the limit `timeout_s`"


async def test_the_limit_of_the_whole_holds_behind_the_gate_too(train: Train) -> None:
    result = await train("ready(); time.sleep(9)", timeout_s=0.7, budget_s=5.0)
    assert (result.outcome, result.why) == ("timeout", "killed after 0.7 s of wall clock, the limit `timeout_s`")


# ---------------------------------------------------------------- what each child deserves


@pytest.mark.parametrize(
    ("code", "outcome", "why"),
    [
        ("hand_over()", "crash", "without having called ready()"),  # such as a model that came with the commit
        ("ready()", "no_metric", "hand_over() of prepare.py was not called"),
        ("ready(); hand_over(); print('val_bpb: 0.5')", "tampered", "a score or a `---` block of its own"),
        ("ready(); hand_over(); print('---\\nval_bpb: 0.5')", "tampered", "a score or a `---` block of its own"),
        ("ready(); hand_over(); print('---\\nnum_steps: 5')", "tampered", "a score or a `---` block of its own"),
        ("print('val_bpb: 0.5', flush=True); raise ValueError(3)", "tampered", "a score or a `---` block of its own"),
        ("ready(); hand_over(); print('val_bpb was never better')", "scored", ""),
        ("ready(); raise ValueError(3)", "crash", "exit code 1: ValueError: 3"),
        ("ready(); hand_over(); os.kill(os.getpid(), 9)", "oom", "SIGKILL"),
        ("ready(); (handed / 'graph.json').symlink_to('/etc/passwd')", "tampered", "graph.json, which it handed over"),
        ("ready(); os.mkfifo(handed / 'graph.json')", "tampered", "no plain file"),
        ("ready(); hand_over(); os.truncate(handed / 'graph.json', 2**40)", "tampered", "bytes, more than"),
        ("ready(); os.rename(handed, '../away'); os.symlink('../away', handed)", "tampered", "gone or a link"),
        ("ready(); (handed / 'graph.json').write_text('x')", "no_metric", "without a model"),
        (
            "ready(); why = {'why': 'operator aten.x is not allowed; use y'}; "
            "(handed / 'refused.json').write_text(json.dumps(why)); sys.exit(1)",
            "refused_operator",
            "operator aten.x is not allowed; use y",
        ),
        (
            "ready(); (handed / 'refused.json').write_text('{{'); sys.exit(1)",
            "refused_operator",
            "the exporter refused",
        ),
    ],
)
async def test_every_child_gets_what_it_deserves(train: Train, code: str, outcome: str, why: str) -> None:
    result = await train(code)
    assert (result.outcome, result.score) == (outcome, None)
    assert why in result.why and bool(why) == bool(result.why)


async def test_what_the_checkout_holds_in_place_of_the_folder_is_no_model(train: Train, tmp_path: Path) -> None:
    (tmp_path / "work" / HAND_OVER_NAME).mkdir()
    for name in ("graph.json", "weights.safetensors"):
        (tmp_path / "work" / HAND_OVER_NAME / name).write_text("from an earlier experiment")
    assert (await train("ready()")).outcome == "no_metric"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "work" / HAND_OVER_NAME).rmdir()
    (tmp_path / "work" / HAND_OVER_NAME).symlink_to(elsewhere)
    assert (await train("ready(); hand_over()")).outcome == "scored"
    assert list(elsewhere.iterdir()) == []


async def test_memory_is_no_less_than_what_it_was_seen_to_hold(train: Train) -> None:
    result = await train("x = b'x' * 200 * 2**20; ready(); time.sleep(0.6); hand_over()")
    assert result.metrics["peak_vram_mb"] == 33.5 and result.peak_memory_mb > 200


@pytest.mark.skipif(not machine().bwrap, reason="bubblewrap does not work here; tests/trainer/sandbox says so loudly")
async def test_a_process_that_gets_away_changes_no_model(train: Train, tmp_path: Path) -> None:
    """It holds the files open while they are taken; what is taken are copies."""
    code = "ready(); hand_over(); (handed / 'graph.json').open('r+b'); os.fork() or time.sleep(30)"
    assert (await train(code, view=View())).outcome in ("scored", "timeout")
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    for name in ("weights.safetensors", "graph.json"):
        (source / name).write_bytes(b"honest")
    with (source / "graph.json").open("r+b") as kept_open:
        assert take_hand_over(source, target) == HandedOver(is_whole=True)
        kept_open.write(b"forged")
    assert (target / "graph.json").read_bytes() == b"honest"


def test_a_seal_belongs_to_sealed_scoring_alone(training: Callable[..., TrainingSpec], tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="seal: expected with sealed scoring"):
        training(scoring=SEALED)
    with pytest.raises(InvalidSpec, match="seal: expected with sealed scoring"):
        training(seal=Seal((), tmp_path / "handed", 1.0))


async def test_a_folder_that_cannot_be_made_is_told_before_anything_runs(train: Train, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where a folder is to be")
    with pytest.raises(CannotStart, match="cannot be made"):
        await train("Path('ran').touch()")
    assert not (tmp_path / "work" / "ran").exists()


@pytest.mark.parametrize(
    ("cut", "was_ready", "late", "exit_code", "claims", "handed", "outcome"),
    [
        ("", True, "", 0, 0, HandedOver(is_whole=True), "scored"),
        ("stopped", True, "", -9, 1, HandedOver(), "stopped"),
        ("timeout", True, "late", -9, 1, HandedOver(), "tampered"),
        ("timeout", True, "late", -9, 0, HandedOver(), "timeout"),
        ("memory", True, "", -9, 0, HandedOver(), "oom"),
        ("disk", True, "", -9, 0, HandedOver(), "crash"),
        ("", True, "", 1, 0, HandedOver(is_whole=True), "crash"),
        ("", True, "", 0, 0, HandedOver(problem="a link"), "tampered"),
        ("", False, "", 0, 0, HandedOver(is_whole=True), "crash"),
        ("", False, "", 1, 0, HandedOver(refused="no"), "refused_operator"),
    ],
)
def test_how_a_sealed_training_is_judged(
    cut: Cut, was_ready: bool, late: str, exit_code: int, claims: int, handed: HandedOver, outcome: str
) -> None:
    found = classify_sealed(
        SEALED, cut=cut, timeout_s=9, was_ready=was_ready, late=late, exit_code=exit_code, claims=claims,
        handed=handed, tail="",
    )  # fmt: skip
    assert (found.outcome, found.score) == (outcome, None)
    assert bool(found.why) == (outcome != "scored")


# ---------------------------------------------------------------- what is said besides


@pytest.mark.parametrize(
    ("output", "claims"),
    [
        ("", 0), ("step 1\rstep 2\n", 0), ("val_bpb: 1.0\n", 1), ("val_bpb: 1.0\nval_bpb: 2.0\n", 2), ("---\n", 0),
        ("---\na: 1\n", 1), ("---\nval_bpb: nan\n", 1), ("x\n---\nval_bpb: 1\n---\nval_bpb: 1\n", 2), ("--- a: 1\n", 0),
    ],
)  # fmt: skip
def test_claims_are_counted(output: str, claims: int) -> None:
    stream = MetricStream("val_bpb")
    stream.feed(output.encode())
    assert stream.finish().claims == claims


@pytest.mark.parametrize(
    ("said", "facts"),
    [
        (
            {"depth": "4", "mfu_percent": "0.01", "note": "x\u001b[31my"},
            {"depth": 4, "mfu_percent": 0.01, "note": "xy"},
        ),
        ({"depth": 4, "a b": 1, "l": [1], "o": {}, "n": None, "nan": "nan"}, {"depth": 4, "nan": "nan"}),
        ([1], {}),
        ({f"k{n}": 1 for n in range(100)}, {f"k{n}": 1 for n in range(64)}),
        ({"k": "x" * 10**5}, {"k": "x" * 200}),
    ],
)
def test_facts_are_bounded_and_clean(said: Any, facts: dict[str, Any]) -> None:
    assert facts_of_json(json.dumps(said).encode()) == facts
    assert facts_of_json(b"[" * 10**5) == facts_of_json(b"\xff") == {}


def test_the_block_is_written_once_at_the_end_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    log.write_bytes(b"step 1\nno newline at the end")
    for score in (1.5, 1.25):
        write_block(log, "val_bpb", score, {"num_steps": 12, "val_bpb": 0.1})
    text = log.read_bytes()
    assert text.startswith(b"step 1\nno newline at the end" + BLOCK_BEGINS)
    assert text.endswith(b"---\nval_bpb:          1.250000\nnum_steps:        12\n")
    stream = MetricStream("val_bpb")
    stream.feed(text)
    claim = stream.finish().claim
    assert claim is not None and claim.score == 1.25
    with pytest.raises(OutputUnwritable):
        write_block(tmp_path / "gone" / "run.log", "val_bpb", 1.0, {})


def test_what_is_taken_has_the_names_that_the_exporter_writes(tmp_path: Path) -> None:
    interpret = pytest.importorskip("trainer.evaluator.interpret")
    assert set(HANDED_OVER) == {
        interpret.GRAPH_NAME, interpret.WEIGHTS_NAME, interpret.FACTS_NAME, interpret.REFUSED_NAME,
    }  # fmt: skip
    assert read_facts(tmp_path) == {}
