"""The evaluator as a process that stays warm: requests by line on standard input, answers by line on standard output.

    python -m trainer.evaluator --harness FOLDER --cache FOLDER [--device cpu] [--workers N] [--timeout-s S]

torch, the harness and the rows are loaded once. Each request is answered by a fork of this process, so nothing that a
hostile graph does to its process is there for the next one: not a crash, not memory, not a changed global. The fork
has limits of its own and is killed when it takes too long; then the answer says so.

This process and its forks compute with one thread only, always. OpenMP keeps its threads between two uses, a fork has
none of them, and its first parallel loop would wait for them for ever. For the same reason CUDA is touched in the
forks alone.
"""

from __future__ import annotations

import argparse
import importlib
import os
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

from trainer.evaluator import graph as graphs
from trainer.evaluator import harness as harnesses
from trainer.evaluator import interpret, operators, protocol
from trainer.evaluator.evaluate import Evaluation, died_of
from trainer.evaluator.forks import Fork
from trainer.evaluator.graph import Graph, Node, Ref, Weight
from trainer.evaluator.harness import Harness, HarnessUnusable
from trainer.evaluator.protocol import Answer, Ready, Request
from trainer.summary import clean

OPEN_FILES_MAX = 64
CPU_GRACE_S = 5


@dataclass(frozen=True, slots=True)
class Limits:
    """
    What one request may take.

    Attributes:
        timeout_s: Wall clock from the request to the answer.
        memory_bytes: Address space beyond what the warm process has; also bounds the values of one batch. Not enforced
            as address space with CUDA, which reserves far more than it uses.
        workers: How many processes share the scoring, each with these limits but for the timeout, which is of all.
    """

    timeout_s: float
    memory_bytes: int
    workers: int


def main(arguments: list[str] | None = None) -> int:
    """Serve until standard input ends. Returns the exit code: 0, or 1 if the harness cannot be used."""
    began = time.perf_counter()
    parser = argparse.ArgumentParser(prog="trainer.evaluator", description=str(__doc__).splitlines()[0])
    parser.add_argument("--harness", type=Path, required=True, help="the folder of prepare.py, from the run's base")
    parser.add_argument("--cache", type=Path, required=True, help="the prepared corpus: the folder of manifest.json")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, or auto: cuda where there is one")
    parser.add_argument("--workers", type=int, default=0, help="processes that score (default: one a core; 1 on a GPU)")
    parser.add_argument("--timeout-s", type=float, default=120.0, help="for one request")
    parser.add_argument("--memory-mb", type=int, default=4096, help="for one request")
    asked = parser.parse_args(arguments)
    if asked.device == "auto":
        asked.device = "cuda" if has_cuda() else "cpu"
    workers = 1 if asked.device != "cpu" else asked.workers or len(os.sched_getaffinity(0))
    limits = Limits(asked.timeout_s, asked.memory_mb * 2**20, workers)
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever prints, prints to standard error: the answers are a channel of their own
    try:
        harness = harnesses.load(asked.harness, asked.cache)
    except HarnessUnusable as error:
        print(f"evaluator: {error}", file=sys.stderr, flush=True)  # noqa: T201 - the one who starts it reads this
        return 1
    warm_up()
    if harness.trusted:
        importlib.import_module("torch._dynamo")  # 1 s that the first call of a custom operator takes, in every fork
    took = time.perf_counter() - began
    rows = (len(harness.select), len(harness.report), harness.rows_sha256())
    answers.write(protocol.encode(Ready(protocol.VERSION, *rows, asked.device, workers, round(took, 3))))
    serve(sys.stdin.buffer, answers, harness, device=asked.device, limits=limits)
    return 0


def serve(requests: BinaryIO, answers: BinaryIO, harness: Harness, *, device: str, limits: Limits) -> None:
    """Answer every line of *requests*, in order, until they end."""
    while line := requests.readline(protocol.REQUEST_BYTES_MAX + 1):
        try:
            if not line.endswith(b"\n"):
                raise ValueError(f"no Request: the line is cut, or longer than {protocol.REQUEST_BYTES_MAX:,} bytes")
            request = protocol.decode(line, Request)
        except ValueError as error:
            answers.write(protocol.encode(Answer("crash", why=clean(str(error), interpret.WHY_MAX))))
            continue
        answers.write(protocol.encode(answer_in_fork(harness, request, device=device, limits=limits)))


def answer_in_fork(harness: Harness, request: Request, *, device: str, limits: Limits) -> Answer:
    """Answer *request* in a fork of this process, which is gone when this returns, whatever it did."""
    deadline = time.monotonic() + limits.timeout_s

    def work() -> bytes:
        _set_limits(device, limits)
        evaluation = Evaluation(
            harness, request, device=device, memory_bytes=limits.memory_bytes, workers=limits.workers
        )
        return protocol.encode(evaluation.answer())

    fork = Fork(work)
    try:
        said, is_late = fork.heard(deadline)
    finally:
        status = fork.end()
    if is_late:
        return Answer("timeout", why=f"scoring it took longer than {limits.timeout_s:g} s")
    try:
        return protocol.decode(said, Answer)
    except ValueError:
        outcome, why = died_of(status)
        return Answer(outcome, why=why)


def _set_limits(device: str, limits: Limits) -> None:
    cpu_s = int(limits.timeout_s) + CPU_GRACE_S
    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CPU: cpu_s,
    }
    if device == "cpu":
        wanted[resource.RLIMIT_NOFILE] = OPEN_FILES_MAX
        wanted[resource.RLIMIT_AS] = _address_space_bytes() + limits.memory_bytes
    for which, value in wanted.items():
        _, hard = resource.getrlimit(which)
        limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (limit, limit))


def _address_space_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def has_cuda() -> bool:
    """Whether there is a device for CUDA. Asked of the driver's management library: CUDA must not begin here."""
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    return torch.cuda.is_available()


def warm_up() -> None:
    """
    Run a tiny graph once, with one thread, so that no fork pays for what torch loads at its first use.

    The rules by which operators work on shapes alone take 1 to 2 s to load.
    """
    nodes = (
        Node("n0", "aten.embedding.default", (Ref("w0"), Ref("tokens"))),
        Node("n1", "aten.rms_norm.default", (Ref("n0"), (8,))),
        Node("n2", "aten.linear.default", (Ref("n1"), Ref("w1"))),
        Node("n3", "aten.softmax.int", (Ref("n2"), -1)),
        Node("n4", "aten.unsqueeze.default", (Ref("n3"), 1)),
        Node("n5", "aten.scaled_dot_product_attention.default", (Ref("n4"), Ref("n4"), Ref("n4"), None, 0.0, True)),
        Node("n6", "aten.squeeze.dim", (Ref("n5"), 1)),
        Node("n7", "aten.tanh.default", (Ref("n6"),)),
    )
    weights = (Weight("w0", "float32", (8, 8)), Weight("w1", "float32", (8, 8)))
    tiny = Graph(4, 8, weights, nodes, "n7")
    made = {weight.name: torch.zeros(weight.shape) for weight in weights}
    program = interpret.Program(tiny, interpret.steps_of(tiny, operators.check(graphs.parse(graphs.dump(tiny)))), made)
    interpret.rehearse(program, 2)
    torch.log_softmax(program(torch.zeros((2, 4), dtype=torch.int64)), dim=-1)
