"""A night written by hand: events as a log would give them, a minute apart, for tests of what is told of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from eventstore import events as e
from eventstore.envelope import Event, format_at

LOOP, ADA, GRACE = "loop@gpu-box", "cli:ada", "slack:T1/U2"
EVENING = datetime(2026, 11, 20, 21, tzinfo=UTC)
SETTINGS = {
    "objective": {"name": "val_bpb", "direction": "minimize", "editable": ["train.py"]},
    "experiment": {"command": ["python", "train.py"]},
}
CONSTANTS = (e.SetConstants(path="train.py", values={"LR": 0.5}),)


@dataclass
class Night:
    """A log that grows event by event. *minutes* is what each event takes."""

    began: datetime = EVENING
    minutes: float = 1.0
    events: list[Event] = field(default_factory=list)
    base: float = 1.0

    @property
    def position(self) -> int:
        return len(self.events)

    @property
    def at(self) -> str:
        """The time of the next event."""
        return format_at(self.began + timedelta(minutes=self.minutes * len(self.events)))

    def write(self, run: str, data: e.Data, actor: str = LOOP, cause: int | None = None) -> int:
        """Append one event and return its position."""
        position = len(self.events) + 1
        event = Event(position, f"id-{position}", run, data.TYPE, data.VERSION, self.at, actor, cause, data, b"")
        self.events.append(event)
        return position

    def request(self, tag: str, actor: str = ADA) -> int:
        return self.write(tag, e.RunRequested(tag=tag, from_ref="HEAD", zone="UTC"), actor)

    def start(
        self, tag: str, score: float | None = 1.0, *, settings: dict[str, Any] | None = None, program: str = "p" * 64
    ) -> None:
        """Request and start a run, with its baseline."""
        request = self.request(tag)
        started = e.RunStarted(
            branch=f"autoresearch/{tag}", base_commit="b" * 40, settings=SETTINGS | (settings or {}),
            limits=e.Limits(), program_hash=program, harness_hash="h", settings_hash="s", seed=7, host="gpu-box",
            device="cpu", sandbox="none", versions={},
        )  # fmt: skip
        if not self.events or not any(isinstance(event.data, e.ProgramRecorded) for event in self.events):
            self.write("", e.ProgramRecorded(hash=program, text="# program"))
        self.write(tag, started, cause=request)
        self.prepare(tag, 0)
        self.train(tag, 0, score)
        if score is not None:
            self.write(tag, e.ExperimentDecided(experiment=0, attempt=0, verdict="keep", reason="baseline", trials=1,
                                                score=score))  # fmt: skip

    def ask(self, tag: str, n: int, *, ask: int = 0, kind: str = "sweep", program: str = "p" * 64, **more: Any) -> None:
        asked: dict[str, Any] = {"purpose": "new", **more}
        self.write(tag, e.ProposalRequested(experiment=n, ask=ask, kind=kind, base_commit="b" * 40,
                                            program_hash=program, **asked))  # fmt: skip

    def propose(self, tag: str, n: int, description: str = "", *, kind: str = "sweep", program: str = "p" * 64,
                **more: Any) -> None:  # fmt: skip
        self.ask(tag, n, kind=kind, program=program)
        facts: dict[str, Any] = {"usd": 0.0, **more}
        self.write(tag, e.ProposalReceived(experiment=n, ask=0, base_commit="b" * 40, edits=CONSTANTS,
                                           description=description or f"try {n}", **facts))  # fmt: skip

    def refuse_answer(self, tag: str, n: int, failure: str, *, ask: int = 0, **more: Any) -> None:
        facts: dict[str, Any] = {"why": "no good", "usd": 0.0, **more}
        self.write(tag, e.ProposalFailed(experiment=n, ask=ask, failure=failure, **facts))

    def prepare(self, tag: str, n: int, *, attempt: int = 0) -> None:
        self.write(tag, e.ExperimentPrepared(experiment=n, attempt=attempt, step="repair" if attempt else "first",
                                             base_commit="b" * 40, tree="t", subject="s", lines_added=1))  # fmt: skip
        commit = f"{n:x}-{attempt}".ljust(40, "c")
        self.write(tag, e.ExperimentCommitted(experiment=n, attempt=attempt, commit=commit, tree="t", ref="r"))

    def train(self, tag: str, n: int, score: float | None, *, attempt: int = 0, idle_s: float | None = None,
              seconds: float = 300.0, outcome: e.Outcome = "crash", tail: str = "", why: str = "") -> None:  # fmt: skip
        nonce = f"{n}.{attempt}"
        self.write(tag, e.TrainingRequested(experiment=n, attempt=attempt, trial=0, slot=0, commit="c", command=("x",),
                                            seed=7, budget_s=300, timeout_s=600, nonce=nonce))  # fmt: skip
        self.write(tag, e.TrainingStarted(experiment=n, attempt=attempt, trial=0, nonce=nonce, pid=1, pid_started=1,
                                          device="cpu", idle_s=idle_s))  # fmt: skip
        ended: e.Outcome = outcome if score is None else "scored"
        self.write(tag, e.TrainingFinished(experiment=n, attempt=attempt, trial=0, nonce=nonce, outcome=ended,
                                           seconds=seconds, score=score, tail=tail, why=why))  # fmt: skip
        if score is not None:
            self.write(tag, e.ScoringRequested(experiment=n, attempt=attempt, trial=0, evaluator="stdout"))
            self.write(tag, e.ScoringFinished(experiment=n, attempt=attempt, trial=0, outcome="scored", score=score))

    def keep(self, tag: str, n: int, score: float, before: float, standing: e.Standing = "untested", *,
             description: str = "", move: bool = True, **more: Any) -> None:  # fmt: skip
        """An experiment that is kept, whole."""
        self.propose(tag, n, description, **more)
        self.prepare(tag, n)
        self.train(tag, n, score, idle_s=0.5)
        self.decide(tag, n, "keep", score, before, f"better by {before - score:.6g}", standing=standing)
        if move:
            self.write(tag, e.BranchMoved(experiment=n, from_commit="b", to_commit="c", why="keep"))

    def discard(self, tag: str, n: int, score: float, before: float, reason: str = "", *, guard: bool = False,
                **more: Any) -> None:  # fmt: skip
        """An experiment that is discarded, whole; *guard*: because the guard failed."""
        self.propose(tag, n, **more)
        self.prepare(tag, n)
        self.train(tag, n, score, idle_s=0.5)
        if guard:
            self.write(tag, e.GuardFinished(experiment=n, attempt=0, result="failed", seconds=1, exit_code=1))
        self.decide(tag, n, "discard", score, before, reason or f"worse by {score - before:.6g}")

    def crash(self, tag: str, n: int, outcome: e.Outcome = "crash", *, tail: str = "", why: str = "",
              before: float = 1.0) -> None:  # fmt: skip
        """An experiment that crashes, whole."""
        self.propose(tag, n)
        self.prepare(tag, n)
        self.train(tag, n, None, outcome=outcome, tail=tail, why=why)
        self.decide(tag, n, "crash", None, before, f"{outcome}: {why}" if why else outcome)

    def decide(self, tag: str, n: int, verdict: e.Verdict, score: float | None, before: float, reason: str,
               **more: Any) -> None:  # fmt: skip
        gain = None if score is None else before - score
        self.write(tag, e.ExperimentDecided(experiment=n, attempt=0, verdict=verdict, reason=reason, trials=1,
                                            score=score, best_before=before, gain=gain, **more))  # fmt: skip

    def veto(self, tag: str, n: int, why: str = "", *, served: bool = True) -> None:
        self.write(tag, e.KeepVetoed(experiment=n, why=why), GRACE)
        if served:
            self.write(tag, e.BranchMoved(experiment=n, from_commit="c", to_commit="b", why="veto"))
