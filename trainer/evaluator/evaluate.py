"""Answer one request: load, rehearse, score, probe. Everything that can be wrong with a model becomes an answer.

On a CPU the batches are shared out among forks, one thread each: threads would wait for each other at every operator,
and one busy neighbour slows all of them. Which process ran a batch changes nothing in the score.
"""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from trainer.evaluator import interpret, probes
from trainer.evaluator.errors import GraphRefused, OperatorRefused, Rejected
from trainer.evaluator.forks import Fork
from trainer.evaluator.harness import Harness
from trainer.evaluator.interpret import Program
from trainer.evaluator.probes import Finding, Opinion
from trainer.evaluator.protocol import Answer, Outcome, Probe, Request, SecondOpinion
from trainer.evaluator.score import Rows, Share, Watch, nats_by_batch

FOREVER_S = 1e9
Name = Literal["select", "report"]


class Part(msgspec.Struct):
    """What one share of the work came to. *outcome* is empty if it went well."""

    outcome: str = ""
    why: str = ""
    select: dict[int, float] = {}
    report: dict[int, float] = {}
    finding: Finding = Finding()
    opinion: Opinion = Opinion()
    seconds: dict[str, float] = {}
    peak_mb: float = 0.0


class Evaluation:
    """
    One request.

    Args:
        device: Where the graph runs, `cpu` or `cuda`.
        memory_bytes: What the values of one batch may take at once.
        workers: How many processes share the work.
    """

    def __init__(self, harness: Harness, request: Request, *, device: str, memory_bytes: int, workers: int) -> None:
        self.harness = harness
        self.request = request
        self.device = device
        self.memory_bytes = memory_bytes
        self.workers = workers

    def answer(self) -> Answer:
        """The answer. Raises nothing that a model can cause; what kills a process is for the one around it."""
        began = time.perf_counter()
        loaded_s = 0.0
        try:
            program = self._load()
            loaded_s = time.perf_counter() - began
            whole = _joined(self._shares(program))
        except (GraphRefused, Rejected, MemoryError) as error:
            whole = Part(*_outcome_of(error))
        seconds = {"load": loaded_s, **whole.seconds, "whole": time.perf_counter() - began}
        return self._answered(whole, {name: round(value, 4) for name, value in seconds.items()})

    def _answered(self, whole: Part, seconds: dict[str, float]) -> Answer:
        asked, found, opinion = self.request, whole.finding, whole.opinion
        outcome, why = whole.outcome, whole.why
        if not outcome and found.moved:
            outcome = "tampered"
            why = (
                f"what it predicts at a position moved when what follows was changed, in {found.moved} of {found.rows} "
                f"rows, by up to {found.largest:.3g} nats: it looks at later tokens or at other rows"
            )
        mean = [nats / max(1, opinion.positions) for nats in (opinion.given, opinion.hidden)]
        if not outcome and not opinion.is_honest:
            outcome = "tampered"
            why = (
                f"it scores {mean[0]:.4f} nats a token, but {mean[1]:.4f} where what follows is hidden: "
                "it looks at later tokens or at other rows"
            )
        is_scored = not outcome
        return Answer(
            outcome=msgspec.convert(outcome or "scored", Outcome),
            why=why,
            score=self.harness.bits_per_byte(whole.select, self.harness.select) if is_scored and asked.score else None,
            report_score=self.harness.bits_per_byte(whole.report, self.harness.report)
            if is_scored and asked.report
            else None,
            probe=Probe(found.rows, found.moved, found.largest) if asked.probe and found.rows else None,
            second_opinion=SecondOpinion(opinion.positions, *mean) if opinion.positions else None,
            seconds=seconds,
            peak_mb=max(whole.peak_mb, _peak_mb()),
        )

    def _load(self) -> Program:
        program = interpret.load(Path(self.request.folder), trusted=self.harness.trusted, device=self.device)
        interpret.check_claims(program.graph, self.harness.select.inputs.size(1), self.harness.select.vocab)
        interpret.rehearse(program, self.harness.batch_rows, self.memory_bytes)
        return program

    def _shares(self, program: Program) -> list[Part]:
        """All shares, run beside each other; the first one here."""
        count = self.workers

        def work(number: int) -> Callable[[], bytes]:
            return lambda: msgspec.json.encode(self._share(program, Share(number, count)))

        forks = [Fork(work(number)) for number in range(1, count)]
        parts = [self._share(program, Share(0, count))]
        for fork in forks:
            said, _ = fork.heard(time.monotonic() + FOREVER_S)  # the process around this one keeps the time
            parts.append(_part_of(said, fork.end()))
        return parts

    def _share(self, program: Program, share: Share) -> Part:
        part = Part(select={}, report={}, seconds={})
        rows, seed = self.harness.select, self.request.seed
        causality, opinion = probes.Causality(program, rows, seed), probes.HiddenFuture(program, rows, seed)
        asked = ((self.request.probe, causality), (self.request.second_opinion, opinion))
        watches: list[Watch] = [watch for is_asked, watch in asked if is_asked]
        try:
            with _Timed(part, "select"):
                rows_max = None if self.request.score else probes.ROWS_MAX * bool(watches)
                part.select = self._nats(program, rows, share, watches, rows_max)
            part.finding, part.opinion = causality.finding, opinion.opinion
            if self.request.report:
                with _Timed(part, "report"):
                    part.report = self._nats(program, self.harness.report, share)
        except (Rejected, MemoryError) as error:
            part.outcome, part.why = _outcome_of(error)
        part.peak_mb = _peak_mb()
        return part

    def _nats(
        self, program: Program, rows: Rows, share: Share, watches: Sequence[Watch] = (), rows_max: int | None = None
    ) -> dict[int, float]:
        return nats_by_batch(
            program,
            rows,
            batch_rows=self.harness.batch_rows,
            seed=self.request.seed,
            device=self.device,
            share=share,
            watches=watches,
            rows_max=rows_max,
        )


class _Timed:
    """Notes the wall clock of a block, in seconds."""

    def __init__(self, part: Part, name: Name) -> None:
        self.part = part
        self.name = name

    def __enter__(self) -> None:
        self.began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.part.seconds[self.name] = time.perf_counter() - self.began


def died_of(status: int) -> tuple[Outcome, str]:
    """The outcome and the sentence for a fork that said nothing, by its wait status."""
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if number == signal.SIGXCPU:
        return "timeout", "scoring it took more processor time than it may"
    if number == signal.SIGKILL:
        return "oom", "scoring it was killed: most often the system ran out of memory"
    if number:
        return "crash", f"an operator of torch died of {signal.Signals(number).name} on the model"
    return "crash", f"scoring it ended without an answer, exit code {os.waitstatus_to_exitcode(status)}"


def _outcome_of(error: GraphRefused | Rejected | MemoryError) -> tuple[str, str]:
    match error:
        case OperatorRefused():
            return "refused_operator", error.why
        case GraphRefused():
            return "tampered", f"what was handed over is not what the exporter writes: {error.why}"
        case Rejected():
            return error.outcome, error.why
        case _:
            return "oom", "the model takes more memory than the evaluator may use"


def _part_of(said: bytes, status: int) -> Part:
    try:
        return msgspec.json.decode(said, type=Part)
    except msgspec.DecodeError:
        outcome, why = died_of(status)
        return Part(outcome, why)


def _joined(parts: list[Part]) -> Part:
    """All parts as one; the first that went wrong says why."""
    bad = next((part for part in parts if part.outcome), Part())
    names = [name for part in parts[:1] for name in part.seconds]
    seconds = {name: max(part.seconds.get(name, 0.0) for part in parts) for name in names}
    return Part(
        bad.outcome,
        bad.why,
        {index: nats for part in parts for index, nats in part.select.items()},
        {index: nats for part in parts for index, nats in part.report.items()},
        sum((part.finding for part in parts), Finding()),
        sum((part.opinion for part in parts), Opinion()),
        seconds,
        max(part.peak_mb for part in parts),
    )


def _peak_mb() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
