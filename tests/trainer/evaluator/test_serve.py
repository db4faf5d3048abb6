"""The warm process: forks that are safe with threads, nothing left behind, a harness that must be usable."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import safetensors.torch
from torch import nn

from tests.trainer.evaluator.conftest import ROOT, Server
from trainer.evaluator import protocol
from trainer.evaluator.evaluate import died_of

HandedOver = Callable[[str], tuple[nn.Module, Path]]


def test_any_number_of_workers_finds_the_same_to_the_last_bit(
    workspace: tuple[Path, Path], handed_over: HandedOver, server: Server
) -> None:
    folder = handed_over("softcap")[1]
    wanted = {"seed": 1, "probe": True, "report": True, "second_opinion": True}
    alone = server.ask(folder, **wanted)
    started = Server(*workspace, "--workers", "3")
    try:
        shared = started.ask(folder, **wanted)
        assert started.ready.workers == 3
        for name in ("outcome", "score", "report_score", "probe"):
            assert getattr(shared, name) == getattr(alone, name)
        assert shared.second_opinion is not None and alone.second_opinion is not None
        assert shared.second_opinion.hidden == pytest.approx(alone.second_opinion.hidden, abs=1e-9)
        assert len(psutil.Process(started.process.pid).threads()) == 1
        assert psutil.Process(started.process.pid).children() == []
    finally:
        assert started.close() == 0


def test_what_one_of_the_workers_finds_wrong_is_the_answer(
    workspace: tuple[Path, Path], handed_over: HandedOver, tmp_path: Path
) -> None:
    """NaN for one token only: the one batch that has it may be anybody's."""
    folder = Path(shutil.copytree(handed_over("softcap")[1], tmp_path / "handed"))
    weights = safetensors.torch.load((folder / "weights.safetensors").read_bytes())
    weights["embedding.weight"][299] = math.nan  # stands before each document
    (folder / "weights.safetensors").write_bytes(safetensors.torch.save(weights))
    started = Server(*workspace, "--workers", "3")
    try:
        answer = started.ask(folder)
        assert (answer.outcome, answer.score) == ("diverged", None)
        assert started.ask(handed_over("softcap")[1]).outcome == "scored"
    finally:
        assert started.close() == 0


def test_memory_and_files_stay_flat(server: Server, handed_over: HandedOver) -> None:
    folder = handed_over("softcap")[1]
    process = psutil.Process(server.process.pid)
    server.ask(folder)
    before = process.memory_info().rss, process.num_fds()
    for seed in range(10):
        server.ask(folder, seed=seed)
    after = process.memory_info().rss, process.num_fds()
    assert after[0] < before[0] + 2**21 and after[1] == before[1]


def test_the_ready_line_says_what_is_scored(server: Server) -> None:
    ready = server.ready
    assert (ready.version, ready.rows, ready.report_rows) == (protocol.VERSION, 64, 64)
    assert len(ready.rows_sha256) == 64 and (ready.device, ready.workers) == ("cpu", 1)


def test_the_answer_says_where_the_time_went(server: Server, handed_over: HandedOver) -> None:
    answer = server.ask(handed_over("softcap")[1], report=True, second_opinion=True)
    assert set(answer.seconds) == {"load", "select", "report", "whole"}
    assert 50 < answer.peak_mb < 4096


def test_a_fork_dies_with_the_server(workspace: tuple[Path, Path], handed_over: HandedOver, tmp_path: Path) -> None:
    started = Server(*workspace)
    assert started.process.stdin is not None
    assert started.process.stdout is not None
    folder = shutil.copytree(handed_over("softcap")[1], tmp_path / "handed")
    started.process.stdin.write(b"".join(protocol.encode(protocol.Request(str(folder), seed=n)) for n in range(200)))
    started.process.stdin.flush()
    server = psutil.Process(started.process.pid)
    children: list[psutil.Process] = []
    deadline = time.monotonic() + 20
    while not children and time.monotonic() < deadline:
        children = server.children()
    os.kill(started.process.pid, signal.SIGKILL)
    started.process.wait()
    started.process.stdin.close()
    started.process.stdout.close()
    assert children
    assert psutil.wait_procs(children, timeout=10)[1] == []


@pytest.mark.parametrize(
    ("status", "outcome", "why"),
    [
        (signal.SIGSEGV, "crash", "an operator of torch died of SIGSEGV on the model"),
        (signal.SIGKILL, "oom", "most often the system ran out of memory"),
        (signal.SIGXCPU, "timeout", "more processor time"),
        (1 << 8, "crash", "exit code 1"),
    ],
)
def test_a_process_that_says_nothing_is_told_by_how_it_ended(status: int, outcome: str, why: str) -> None:
    assert died_of(status)[0] == outcome and why in died_of(status)[1]


FAILS = "\n\ndef register_operators():\n    1 / 0\n"
SPOILT: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "no prepare.py": (lambda folder, _: (folder / "prepare.py").unlink(), "does not load"),
    "one that does not load": (
        lambda folder, _: (folder / "prepare.py").write_text("raise SystemExit(3)"),
        "SystemExit",
    ),
    "one without rows": (lambda folder, _: (folder / "prepare.py").write_text("VOCAB_SIZE = 3"), "lacks MAX_SEQ_LEN"),
    "a kernel that fails": (
        lambda folder, _: (folder / "prepare.py").write_text((folder / "prepare.py").read_text() + FAILS),
        "register_operators() of",
    ),
    "other rows": (lambda _, cache: (cache / "select" / "tokens.bin").write_bytes(b"\0" * 4000), "is damaged"),
    "no cache": (lambda _, cache: shutil.rmtree(cache), "is damaged"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_harness_that_cannot_be_used_is_said_so(what: str, workspace: tuple[Path, Path], tmp_path: Path) -> None:
    spoil, why = SPOILT[what]
    folder, cache = tmp_path / "harness", tmp_path / "cache"
    folder.mkdir()
    shutil.copy(workspace[0] / "prepare.py", folder)
    shutil.copytree(workspace[1], cache)
    spoil(folder, cache)
    command = (sys.executable, "-m", "trainer.evaluator", "--harness", str(folder), "--cache", str(cache))
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("evaluator: ") and why in ended.stderr and ended.stderr.count("\n") == 1
