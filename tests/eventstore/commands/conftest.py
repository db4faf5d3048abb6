"""What tests of the command line share: a workspace, runs written by hand into a real log, and `nightshift` itself."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from eventstore import events as e
from eventstore.envelope import Event, NewEvent, format_at
from eventstore.home import Home
from eventstore.requests import text_hash
from eventstore.store import Store
from nightshift import main

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's `&` does that, and children inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

LOOP, ADA = "loop@gpu-box", "cli:ada"
SETTINGS = {
    "objective": {"name": "val_bpb", "direction": "minimize", "editable": ["train.py"]},
    "experiment": {"command": ["python", "train.py"], "budget_s": 300.0, "timeout_s": 600.0},
}
PROGRAM = "# Research\n\nMake val_bpb smaller.\n"
DIFF = """\
--- a/train.py
+++ b/train.py
@@ -1 +1 @@
-LR = 0.04
+LR = 0.02
"""


@dataclass
class Scribe:
    """Writes a plausible log, event by event, a minute apart, ending about now."""

    home: Home
    began: datetime = field(default_factory=lambda: datetime.now(UTC) - timedelta(hours=2))
    count: int = 0
    held: list[NewEvent] | None = None

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Append what is written in the `with` as one batch: one wait for the disk instead of sixty."""
        self.held = []
        yield
        held, self.held = self.held, None
        self._append(held)

    def write(self, *facts: tuple[str, e.Data], actor: str = LOOP) -> None:
        """Append facts, each with the tag of its run."""
        batch = []
        for run, data in facts:
            self.count += 1
            at = format_at(self.began + timedelta(minutes=self.count))
            batch.append(NewEvent(f"{data.TYPE}-{self.count}-{self.home.root.name}", run, at, actor, data))
        if self.held is not None:
            self.held += batch
        else:
            self._append(batch)

    def _append(self, batch: list[NewEvent]) -> None:
        with Store.open(self.home.log_path) as log:
            log.append(batch)

    def ask(self, tag: str, data: e.Data) -> None:
        self.write((tag, data), actor=ADA)

    def start(self, tag: str, limits: e.Limits | None = None, **proposer: str) -> None:
        """Request and start a run, with its baseline: score 1.5. Keywords are keys of [proposer]."""
        limits = limits or e.Limits()
        self.ask(tag, e.RunRequested(tag=tag, from_ref="HEAD", zone="UTC", limits=limits))
        started = e.RunStarted(
            branch=f"autoresearch/{tag}",
            base_commit="b" * 40,
            settings={**SETTINGS, "proposer": proposer} if proposer else SETTINGS,
            limits=limits,
            program_hash=text_hash(PROGRAM),
            harness_hash="h",
            settings_hash="s",
            seed=7,
            host="gpu-box",
            device="cpu",
            sandbox="none",
            versions={},
        )
        self.write(("", e.ProgramRecorded(hash=text_hash(PROGRAM), text=PROGRAM)), (tag, started))
        self.prepare(tag, 0, base="b", diff="")
        self.train(tag, 0, 1.5)
        self.decide(tag, 0, "keep", 1.5, "baseline")

    def ask_for(self, tag: str, n: int, kind: str = "sweep", *, program: str = PROGRAM, **more: Any) -> None:
        asked: dict[str, Any] = {"ask": 0, "purpose": "new", **more}
        requested = e.ProposalRequested(
            experiment=n, kind=kind, base_commit="b" * 40, program_hash=text_hash(program), **asked
        )
        self.write((tag, requested))

    def propose(
        self, tag: str, n: int, description: str, edit: e.FileEdit, kind: str = "sweep", program: str = PROGRAM,
        **more: Any,
    ) -> None:  # fmt: skip
        self.ask_for(tag, n, kind, program=program)
        self.answer(tag, n, description, edit, **more)

    def answer(self, tag: str, n: int, description: str, edit: e.FileEdit, **more: Any) -> None:
        facts: dict[str, Any] = {"ask": 0, "usd": 0.0, **more}
        received = e.ProposalReceived(
            experiment=n, base_commit="b" * 40, description=description, edits=(edit,), **facts
        )
        self.write((tag, received))

    def fail_ask(self, tag: str, n: int, failure: str, why: str, *, ask: int = 0, **more: Any) -> None:
        facts: dict[str, Any] = {"usd": 0.0, **more}
        self.write((tag, e.ProposalFailed(experiment=n, ask=ask, failure=failure, why=why, **facts)))

    def prepare(self, tag: str, n: int, *, base: str, diff: str = DIFF, attempt: int = 0) -> None:
        commit = f"{n:x}{attempt:x}".ljust(40, "c") if n else base * 40
        prepared = e.ExperimentPrepared(
            experiment=n, attempt=attempt, step="repair" if attempt else "first", base_commit=base * 40,
            tree="t" * 40, subject="s", diff=diff, lines_added=1, lines_removed=1,
        )  # fmt: skip
        ref = f"refs/nightshift/{tag}/{n}/{attempt}"
        committed = e.ExperimentCommitted(experiment=n, attempt=attempt, commit=commit, tree="t" * 40, ref=ref)
        self.write((tag, prepared), (tag, committed))

    def begin_training(self, tag: str, n: int, *, attempt: int = 0, pid_started: float = 0.0) -> None:
        self.write(
            (tag, e.TrainingRequested(experiment=n, attempt=attempt, trial=0, slot=0, commit="c" * 40,
                                      command=("python", "train.py"), seed=7, budget_s=300, timeout_s=600,
                                      nonce=f"nonce-{n}-{attempt}")),
            (tag, e.TrainingStarted(experiment=n, attempt=attempt, trial=0, nonce=f"nonce-{n}-{attempt}", pid=1,
                                    pid_started=pid_started, device="cpu")),
        )  # fmt: skip

    def train(self, tag: str, n: int, score: float | None, *, attempt: int = 0, tail: str = "") -> None:
        """Train and score; without a score it crashes."""
        self.begin_training(tag, n, attempt=attempt)
        nonce = f"nonce-{n}-{attempt}"
        if score is None:
            crashed = e.TrainingFinished(experiment=n, attempt=attempt, trial=0, nonce=nonce, outcome="crash",
                                         seconds=3, exit_code=1, why="exit code 1: ValueError", tail=tail)  # fmt: skip
            self.write((tag, crashed))
            return
        finished = e.TrainingFinished(experiment=n, attempt=attempt, trial=0, nonce=nonce, outcome="scored",
                                      seconds=301.5, score=score, peak_memory_mb=2048.0, tail=tail)  # fmt: skip
        self.write(
            (tag, finished),
            (tag, e.ScoringRequested(experiment=n, attempt=attempt, trial=0, evaluator="stdout")),
            (tag, e.ScoringFinished(experiment=n, attempt=attempt, trial=0, outcome="scored", score=score)),
        )

    def decide(self, tag: str, n: int, verdict: e.Verdict, score: float | None, reason: str, **more: Any) -> None:
        decided = e.ExperimentDecided(experiment=n, attempt=more.pop("attempt", 0), verdict=verdict, reason=reason,
                                      trials=1, score=score, **more)  # fmt: skip
        self.write((tag, decided))
        if verdict == "keep" and n:
            self.write((tag, e.BranchMoved(experiment=n, from_commit="b" * 40, to_commit="c" * 40, why="keep")))


def constants(**values: e.Scalar) -> e.SetConstants:
    return e.SetConstants(path="train.py", values=values)


TOKENS = e.Tokens(input=100, cache_read=900, output=50)
CALL = e.ModelCall(model="claude-opus-5-5", stop_reason="tool_use")
GEGLU = e.ReplaceBlocks(
    path="train.py",
    blocks=(
        e.Block(search="def mlp(x):\n    return relu(x)\n", replace="def mlp(x):\n    return geglu(x)\n"),
        e.Block(search="import torch\n", replace="import torch\nimport geglu\n"),
    ),
)
RETRY_AT = (datetime.now(UTC) + timedelta(days=2)).replace(hour=2, minute=14)


def write_finished(scribe: Scribe, tag: str = "nov21") -> None:
    """A run that is over: keeps 1 and 4, discard 2, crash 3 (repaired once in vain), 5 abandoned."""
    scribe.start(tag)
    scribe.propose(tag, 1, "halve the learning rate", constants(LR=0.02), hypothesis="the rate is too high",
                   expected_effect="a smoother descent")  # fmt: skip
    scribe.prepare(tag, 1, base="b")
    scribe.train(tag, 1, 1.4, tail="step 10\n")
    scribe.decide(tag, 1, "keep", 1.4, "better by 0.100000", best_before=1.5, gain=0.1)
    scribe.propose(tag, 2, "double the depth", constants(DEPTH=8))
    scribe.prepare(tag, 2, base="1")
    scribe.train(tag, 2, 1.45)
    scribe.decide(tag, 2, "discard", 1.45, "worse by 0.050000", best_before=1.4, gain=-0.05)
    blocks = e.ReplaceBlocks(path="train.py", blocks=(e.Block(search="a", replace="b"),))
    scribe.propose(tag, 3, "use a new optimizer", blocks)
    scribe.prepare(tag, 3, base="1")
    scribe.train(tag, 3, None)
    scribe.prepare(tag, 3, base="1", attempt=1)
    scribe.train(tag, 3, None, attempt=1, tail="Traceback\nValueError: \x1b[31mred\x1b[0m\n")
    scribe.decide(tag, 3, "crash", None, "crash: exit code 1", attempt=1, best_before=1.4)
    scribe.propose(tag, 4, "warm up longer", constants(WARMUP=0.2))
    scribe.prepare(tag, 4, base="1")
    scribe.train(tag, 4, 1.3)
    scribe.decide(tag, 4, "keep", 1.3, "better by 0.100000", best_before=1.4, gain=0.1)
    scribe.propose(tag, 5, "a last idea", constants(LR=0.5))
    scribe.write((tag, e.ExperimentAbandoned(experiment=5, reason="stopped", why="the run was stopped")))
    scribe.write((tag, e.RunFinished(reason="stopped", why="stopped by cli:ada")))


def write_agent(scribe: Scribe, tag: str = "feb01") -> None:
    """
    A run of the proposer claude that asks a person first, with ideas 1 (used in 1) and 2 (open).

    1 is a keep whose first ask touched a protected file and whose crash was repaired; 2 came to nothing; 3 waits for
    approval. The last ask was for 4, and claude was overloaded.
    """
    scribe.ask("", e.IdeaSuggested(text="try GeGLU", by="Grace"))
    scribe.ask("", e.IdeaSuggested(text="clip the gradients"))
    scribe.start(tag, e.Limits(usd=5.0), kind="claude", approval="all")
    scribe.ask_for(tag, 1, "claude", idea=1, usd_reserved=0.5)
    scribe.fail_ask(tag, 1, "edit_touches_protected", "prepare.py is protected", description="read the held-out rows",
                    edits=(e.WholeFile(path="prepare.py", text="x = 1\n"),), usd=0.25, tokens=TOKENS, seconds=10.0,
                    calls=(CALL,))  # fmt: skip
    scribe.ask_for(tag, 1, "claude", ask=1, idea=1, usd_reserved=0.5)
    scribe.answer(tag, 1, "use GeGLU", GEGLU, ask=1, hypothesis="gates help", model="claude-opus-5-5", usd=0.5,
                  tokens=TOKENS, seconds=41.2, calls=(CALL, CALL), ignored=("notes.txt",))  # fmt: skip
    scribe.write((tag, e.IdeaUsed(idea=1, experiment=1)))
    scribe.ask(tag, e.ProposalApproved(experiment=1))
    scribe.prepare(tag, 1, base="b")
    scribe.train(tag, 1, None, tail="NameError: geglu\n")
    scribe.ask_for(tag, 1, "claude", ask=2, purpose="repair", attempt=1)
    scribe.answer(tag, 1, "import geglu", constants(GATE=1), ask=2, attempt=1, model="claude-opus-5-5", usd=0.125,
                  tokens=TOKENS, seconds=5.0, calls=(CALL,))  # fmt: skip
    scribe.prepare(tag, 1, base="b", attempt=1)
    scribe.train(tag, 1, 1.25, attempt=1)
    scribe.decide(tag, 1, "keep", 1.25, "better by 0.250000", attempt=1, best_before=1.5, gain=0.25)
    scribe.ask_for(tag, 2, "claude")
    scribe.fail_ask(tag, 2, "same_as_tried", "it comes to the same files as experiment 1", description="GeGLU again")
    scribe.write((tag, e.ExperimentAbandoned(experiment=2, reason="no_proposal", why="no usable proposal in 3 asks")))
    scribe.propose(tag, 3, "clip at 1.0", GEGLU, kind="claude", hypothesis="spikes hurt", model="claude-opus-5-5")
    scribe.ask_for(tag, 4, "claude", usd_reserved=0.5)
    for ask in (0, 1):
        scribe.fail_ask(tag, 4, "overloaded", "529: overloaded", ask=ask, retry_at=format_at(RETRY_AT))
    scribe.ask_for(tag, 4, "claude", ask=2, usd_reserved=0.5)


def write_active(scribe: Scribe, tag: str = "dec01") -> None:
    """A run at work: keep 1, experiment 2 in training for 42 s, proposal 3 ready; jan01 waits in the queue."""
    scribe.start(tag, e.Limits(experiments=20, usd=5.0, until=format_at(datetime.now(UTC) + timedelta(minutes=125))))
    scribe.propose(tag, 1, "halve the learning rate", constants(LR=0.02))
    scribe.prepare(tag, 1, base="b")
    scribe.train(tag, 1, 1.25)
    scribe.decide(tag, 1, "keep", 1.25, "better by 0.250000", best_before=1.5, gain=0.25)
    scribe.propose(tag, 2, "double the depth", constants(DEPTH=8))
    scribe.prepare(tag, 2, base="1")
    scribe.begin_training(tag, 2, pid_started=time.time() - 42)
    scribe.propose(tag, 3, "another width", constants(WIDTH=96))
    scribe.ask("jan01", e.RunRequested(tag="jan01", from_ref="HEAD", zone="UTC"))


@pytest.fixture
def agent(scribe: Scribe) -> Scribe:
    with scribe.at_once():
        write_agent(scribe)
    return scribe


Nightshift = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """An empty workspace, without a log."""
    (tmp_path / "nightshift.toml").write_text("")
    return Home(tmp_path)


@pytest.fixture
def scribe(home: Home) -> Scribe:
    return Scribe(home)


@pytest.fixture
def finished(scribe: Scribe) -> Scribe:
    with scribe.at_once():
        write_finished(scribe)
    return scribe


@pytest.fixture
def active(scribe: Scribe) -> Scribe:
    with scribe.at_once():
        write_active(scribe)
    return scribe


@pytest.fixture
def nightshift(home: Home) -> Nightshift:
    """Call `nightshift -C <workspace> …` as user ada in the zone UTC; more of the environment as keywords."""

    def call(*args: object, stdin: str | None = None, **env: str) -> Result:
        command: Sequence[str] = ["-C", str(home.root), *map(str, args)]
        environ = {"TZ": "UTC", "LOGNAME": "ada", **env}
        return CliRunner().invoke(main, command, input=stdin, env=environ, catch_exceptions=False)

    return call


@pytest.fixture
def logged(home: Home) -> Callable[[], list[Event]]:
    """All events of the log, read anew."""

    def read() -> list[Event]:
        with Store.open(home.log_path, create=False) as log:
            return list(log.stream())

    return read
