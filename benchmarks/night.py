"""Made-up nights: events as a loop writes them, for logs of any size, the same for the same numbers.

An experiment is 10 or 11 events of 280 bytes of data on average, the proposal, the diff and the metrics among them.
Each 7th verdict is a keep, each 19th a crash with the end of its log. A run has at most 10,000 experiments.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha1
from pathlib import Path

from eventstore import events as e
from eventstore.envelope import NewEvent, format_at
from eventstore.store import Store

RUN_MAX = 10_000
"""Experiments of one run."""

BATCH = 500
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
ACTOR = "loop@bench"
SETTINGS = {
    "objective": {"name": "val_bpb", "direction": "minimize", "editable": ["train.py"]},
    "experiment": {"command": ["python", "train.py"], "budget_s": 300.0, "timeout_s": 600.0},
    "proposer": {"kind": "sweep", "approval": "none"},
}
DIFF = """\
--- a/train.py
+++ b/train.py
@@ -31,7 +31,7 @@
 EMBEDDING_LR = 0.6
 UNEMBEDDING_LR = 0.004
-MATRIX_LR = {old}
+MATRIX_LR = {new}
 SCALAR_LR = 0.5
 WEIGHT_DECAY = 0.2
"""
RATIONALE = """\
Of the 30 experiments that changed MATRIX_LR, those between 0.05 and 0.07 lost least after 300 s, while the loss of \
the first 100 steps fell fastest at the high end. That speaks for a high rate early and a longer warmdown. The \
embedding rate was not moved with it so far, and the two keeps that did move both at once cannot tell which of them \
helped, so this one moves the matrix rate alone and leaves WARMDOWN_RATIO where it is. If the final loss is worse \
by less than 0.002 the schedule is next; if it is worse by more, the rate is settled and the width is worth the \
next ten attempts. What would speak against it is a loss that diverges in the first 50 steps, as in the two crashes \
at 0.2.
"""
TAIL = """\
Traceback (most recent call last):
  File "train.py", line 411, in <module>
    loss = model(x, y)
RuntimeError: mat1 and mat2 shapes cannot be multiplied ({n}x128 and 64x512)
"""


def events(count: int) -> Iterator[NewEvent]:
    """Exactly *count* events, run after run."""
    left = count
    for number in range(1 + count // RUN_MAX):
        for event in run_events(f"run{number}", RUN_MAX):
            if left == 0:
                return
            left -= 1
            yield event


def run_events(tag: str, experiments: int) -> Iterator[NewEvent]:
    """One run whole: its request, a baseline and *experiments* verdicts, its end."""
    told = _Teller(tag)
    limits = e.Limits(experiments=experiments)
    yield told.new(e.RunRequested(tag=tag, from_ref="HEAD", zone="UTC", limits=limits))
    yield told.new(
        e.RunStarted(
            branch=f"autoresearch/{tag}",
            base_commit=told.tip,
            settings=SETTINGS,
            limits=limits,
            program_hash="",
            harness_hash="",
            settings_hash="",
            seed=1,
            host="bench",
            device="cpu",
            sandbox="none",
            versions={"python": "3.11"},
        )
    )
    for n in range(experiments + 1):
        yield from _experiment(told, n)
    yield told.new(e.RunFinished(reason="experiments", why=f"{experiments} experiments are decided"))


def write(path: Path, events: Iterator[NewEvent]) -> int:
    """Append *events* to the log at *path* and return how many there were."""
    with Store.open(path) as log:
        batch: list[NewEvent] = []
        for event in events:
            batch.append(event)
            if len(batch) == BATCH:
                log.append(batch)
                batch = []
        log.append(batch)
        return log.head().position


class _Teller:
    """Gives events their ids and times, and remembers the branch."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.count = 0
        self.tip = _hash(tag)
        self.best = 1.0

    def new(self, data: e.Data) -> NewEvent:
        self.count += 1
        at = format_at(BEGAN + timedelta(milliseconds=250 * self.count))
        return NewEvent(f"{self.tag}-{self.count:012d}-{'0' * 16}", self.tag, at, ACTOR, data)


def _experiment(told: _Teller, n: int) -> Iterator[NewEvent]:
    commit, nonce = _hash(f"{told.tag} {n}") if n else told.tip, f"{n:032x}"
    rate = round(0.04 + (n % 97) * 0.001, 4)
    if n:
        yield told.new(
            e.ProposalRequested(
                experiment=n, ask=0, kind="sweep", purpose="new", base_commit=told.tip, program_hash=_hash("program")
            )
        )
        yield told.new(
            e.ProposalReceived(
                experiment=n,
                ask=0,
                base_commit=told.tip,
                description=f"MATRIX_LR {rate}",
                edits=(e.SetConstants("train.py", {"MATRIX_LR": rate}),),
                hypothesis="a rate nearer to the best one found so far trains faster in the same time",
                expected_effect="-0.003",
                rationale=RATIONALE,
                usd=0.0,
            )
        )
    yield told.new(
        e.ExperimentPrepared(
            experiment=n,
            attempt=0,
            step="first",
            base_commit=told.tip,
            tree=_hash(f"tree {n}"),
            subject=f"MATRIX_LR {rate}",
            diff=DIFF.format(old=0.04, new=rate) if n else "",
            lines_added=1,
            lines_removed=1,
            content_hash=_hash(f"content {told.tag} {n}"),
        )
    )
    yield told.new(
        e.ExperimentCommitted(
            experiment=n,
            attempt=0,
            commit=commit,
            tree=_hash(f"tree {n}"),
            ref=f"refs/nightshift/{told.tag}/{n}/0",
        )
    )
    yield from _training(told, n, commit, nonce)
    yield from _verdict(told, n, commit)


def _training(told: _Teller, n: int, commit: str, nonce: str) -> Iterator[NewEvent]:
    crashed = _crashed(n)
    yield told.new(
        e.TrainingRequested(
            experiment=n,
            attempt=0,
            trial=0,
            slot=0,
            commit=commit,
            command=("python", "train.py"),
            seed=1,
            budget_s=300.0,
            timeout_s=600.0,
            nonce=nonce,
        )
    )
    yield told.new(
        e.TrainingStarted(
            experiment=n,
            attempt=0,
            trial=0,
            nonce=nonce,
            pid=4711 + n,
            pid_started=1e9 + n,
            device="cuda:0",
            idle_s=0.05,
        )
    )
    yield told.new(
        e.TrainingFinished(
            experiment=n,
            attempt=0,
            trial=0,
            nonce=nonce,
            outcome="crash" if crashed else "scored",
            seconds=312.125,
            score=None if crashed else _score(told, n),
            metrics={}
            if crashed
            else {
                "training_seconds": 300.1,
                "total_seconds": 325.9,
                "peak_vram_mb": 45060.2,
                "mfu_percent": 39.8,
                "total_tokens_M": 499.6,
                "num_steps": 953,
                "num_params_M": 50.3,
                "depth": 8,
            },
            peak_memory_mb=45060.2,
            exit_code=1 if crashed else 0,
            why="the command ended with exit code 1" if crashed else "",
            tail=TAIL.format(n=n) if crashed else "",
        )
    )
    if not crashed:
        yield told.new(e.ScoringRequested(experiment=n, attempt=0, trial=0, evaluator="in-place/1"))
        score = _score(told, n)
        yield told.new(e.ScoringFinished(experiment=n, attempt=0, trial=0, outcome="scored", score=score, claim=score))


def _verdict(told: _Teller, n: int, commit: str) -> Iterator[NewEvent]:
    crashed, kept, before = _crashed(n), _kept(n), told.best
    score = None if crashed else _score(told, n)
    gain = None if score is None else round(before - score, 6)
    yield told.new(
        e.ExperimentDecided(
            experiment=n,
            attempt=0,
            verdict="crash" if crashed else "keep" if kept else "discard",
            reason="crash" if crashed else f"better by {gain}" if kept else f"worse by {gain}",
            trials=1,
            score=score,
            best_before=before if n else None,
            gain=gain if n else None,
        )
    )
    if kept and score is not None:
        told.best = score
        if n:
            yield told.new(e.BranchMoved(experiment=n, from_commit=told.tip, to_commit=commit, why="keep"))
            told.tip = commit


def _crashed(n: int) -> bool:
    return n > 0 and n % 19 == 0


def _kept(n: int) -> bool:
    return n == 0 or (n % 7 == 0 and not _crashed(n))


def _score(told: _Teller, n: int) -> float:
    return round(told.best - 1e-6, 6) if _kept(n) else round(told.best + 0.001 + (n % 13) * 1e-4, 6)


def _hash(text: str) -> str:
    return sha1(text.encode(), usedforsecurity=False).hexdigest()
