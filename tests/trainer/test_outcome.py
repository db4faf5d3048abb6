"""Every way in which a training can end, and the golden logs."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.outcome import classify, last_exception, signal_of
from trainer.spec import Cut, Scoring
from trainer.summary import Claim, MetricStream, clean_tail

LOGS = Path(__file__).parent / "logs"
STDOUT = Scoring(kind="stdout", name="val_bpb")
PASS = Scoring(kind="pass", name="tests")
GOOD = Claim(0.9)
NONE = Claim(None, "no_metric", "the output holds no line `val_bpb: <number>`")
TWO = Claim(None, "tampered", "the output holds 2 metric blocks")
TRACE = 'Traceback (most recent call last):\n  File "train.py", line 3, in <module>\n    go()\n'


def ending(
    scoring: Scoring, cut: Cut, exit_code: int | None, claim: Claim | None, tail: str
) -> tuple[str, float | None, str]:
    end = classify(scoring, cut=cut, timeout_s=600.0, exit_code=exit_code, claim=claim, tail=tail)
    return end.outcome, end.score, end.why


@pytest.mark.parametrize(
    ("cut", "exit_code", "claim", "tail", "outcome", "why"),
    [
        ("", 0, GOOD, "", "scored", ""),
        ("", 0, NONE, "", "no_metric", "no line `val_bpb: <number>`"),
        ("", 0, TWO, "", "tampered", "2 metric blocks"),
        ("", 0, None, "", "no_metric", "gave no score"),
        ("stopped", -9, GOOD, "", "stopped", "on request"),
        ("stopped", 0, GOOD, "", "stopped", "on request"),
        ("timeout", -9, GOOD, "", "timeout", "600 s"),
        ("timeout", 1, GOOD, TRACE + "MemoryError", "timeout", "600 s"),
        ("", None, NONE, "", "crash", "not seen to end"),
        ("", -9, NONE, "", "oom", "SIGKILL that was not ours"),
        ("", 137, NONE, "", "oom", "SIGKILL that was not ours"),
        ("", -11, GOOD, "", "crash", "SIGSEGV"),
        ("", 134, NONE, "", "crash", "SIGABRT"),
        ("", -40, NONE, "", "crash", "signal 40"),
        ("", 1, NONE, TRACE + "MemoryError", "oom", "MemoryError"),
        ("", 1, NONE, TRACE + "torch.OutOfMemoryError: CUDA out of memory. Tried", "oom", "Tried"),
        ("", 1, NONE, TRACE + "RuntimeError: CUDA out of memory. Tried", "oom", "Tried"),
        (
            "",
            1,
            NONE,
            TRACE + "RuntimeError: [enforce fail at alloc_cpu.cpp:126] err == 0. "
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes. Error code 12",
            "oom",
            "DefaultCPUAllocator",
        ),
        ("", 1, NONE, TRACE + "ValueError: CUDA out of memory was not it", "crash", "exit code 1: ValueError"),
        ("", 1, GOOD, TRACE + "KeyError: 'x'\nsome line at exit", "crash", "KeyError: 'x'"),
        ("", 1, NONE, "loss is inf\nFAIL", "diverged", "NaN or exploded"),
        ("", 1, NONE, "step 00005 ( 1.0%) | loss: nan    FAIL", "diverged", "NaN or exploded"),
        ("", 2, NONE, "FAIL", "crash", "exit code 2: FAIL"),
        ("", 1, NONE, "FAIL\ninference is over", "crash", "exit code 1: inference is over"),
        ("", 1, NONE, "test_x: FAIL", "crash", "test_x: FAIL"),
        ("", 1, NONE, "FAIL\n" + TRACE + "OSError: no", "crash", "OSError"),
        ("", 3, TWO, "", "crash", "exit code 3, no output"),
        ("", 255, NONE, "", "crash", "exit code 255"),
    ],
)
def test_every_way_to_end(
    cut: Cut, exit_code: int | None, claim: Claim | None, tail: str, outcome: str, why: str
) -> None:
    found, score, reason = ending(STDOUT, cut, exit_code, claim, tail)
    assert found == outcome
    assert why in reason
    assert score == (0.9 if outcome == "scored" else None)
    assert "\n" not in reason
    assert len(reason) <= 300


@pytest.mark.parametrize(
    ("cut", "exit_code", "tail", "outcome", "score"),
    [
        ("", 0, "", "scored", 1.0),
        ("", 1, "", "scored", 0.0),
        ("", 1, "FAIL", "scored", 0.0),
        ("", 5, TRACE + "ValueError", "scored", 0.0),
        ("", 255, "", "scored", 0.0),
        ("", 1, TRACE + "MemoryError", "oom", None),
        ("", -9, "", "oom", None),
        ("", -6, "", "crash", None),
        ("", 139, "", "crash", None),
        ("timeout", -9, "", "timeout", None),
        ("stopped", -9, "", "stopped", None),
    ],
)
def test_an_exit_code_is_a_score_of_a_command_that_must_pass(
    cut: Cut, exit_code: int, tail: str, outcome: str, score: float | None
) -> None:
    assert ending(PASS, cut, exit_code, None, tail)[:2] == (outcome, score)


GOLDEN = {
    "ok.log": (0, "scored", 0.9979),
    "nan.log": (1, "diverged", None),
    "oom.log": (1, "oom", None),
    "killed.log": (-9, "oom", None),
    "two_blocks.log": (0, "tampered", None),
    "bare.log": (0, "scored", 1.25),
    "bare_twice.log": (0, "tampered", None),
    "no_newline.log": (0, "scored", 0.9979),
    "carriage_return.log": (0, "scored", 0.9979),
    "binary.log": (0, "scored", 0.9979),
    "nan_score.log": (0, "tampered", None),
    "word_score.log": (0, "no_metric", None),
    "no_metric.log": (0, "no_metric", None),
    "crash.log": (1, "crash", None),
    "survived_oom.log": (0, "scored", 0.9979),
}


def test_every_golden_log_is_read() -> None:
    assert {path.name for path in LOGS.iterdir()} == set(GOLDEN)


@pytest.mark.parametrize("log", GOLDEN)
def test_a_golden_log_ends_as_it_should(log: str) -> None:
    exit_code, outcome, score = GOLDEN[log]
    raw = (LOGS / log).read_bytes()
    stream = MetricStream("val_bpb")
    stream.feed(raw)
    assert ending(STDOUT, "", exit_code, stream.finish().claim, clean_tail(raw, 65536))[:2] == (outcome, score)


def test_the_last_traceback_names_the_exception() -> None:
    tail = clean_tail((LOGS / "crash.log").read_bytes(), 65536)
    assert last_exception(tail) == "ValueError: the model could not be run: CUDA out of memory was not the reason"
    assert last_exception("ValueError: no traceback before it") is None
    assert last_exception(TRACE) is None


def test_a_shell_tells_the_signal_of_its_child_by_its_exit_code() -> None:
    assert [signal_of(code) for code in (0, 1, 128, 129, 137, 159, 160, 255, -9)] == [
        None,
        None,
        None,
        1,
        9,
        31,
        None,
        None,
        9,
    ]
