"""What tests of the loop's core share: a log told event by event, and a world that carries out commands.

Neither knows disks, git, processes or a clock: a commit is a word, a branch an entry of a dict, and what
would happen comes from a `Fate`. Both write through `MemoryLog`, so all data goes through the codec.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from eventstore import events as e
from eventstore.envelope import Earlier, Event, NewEvent
from eventstore.memory import MemoryLog
from eventstore.projections.run_state import OUTSIDE_FAILURES, Run, State
from eventstore.requests import Accepted, Answer
from loop import commands as c
from loop import decide as d
from loop.machine import Judge, next_commands
from loop.policy import Policy

TAG = "nov21"
LOOP = "loop@box"
PERSON = "cli:ada"

DIFF = "--- a/train.py\n+++ b/train.py\n@@ -1 +1 @@\n-A = 1\n+A = x\n"
SLIP = 'Traceback (most recent call last):\n  File "train.py", line 1, in <module>\nNameError: name x is not defined'
"""An edit and the end of a log that blames it: a crash that may be repaired."""

POLICY = Policy(
    metric="val_bpb",
    direction="minimize",
    scoring="stdout",
    rule="strict",
    proposer="scripted",
    command=("python", "train.py"),
    budget_s=300,
    timeout_s=600,
)


def at(minute: int) -> str:
    return f"2026-11-{1 + minute // 1440:02d}T{minute // 60 % 24:02d}:{minute % 60:02d}:00.000000Z"


def commit_of(experiment: int, attempt: int, base: str) -> str:
    """The id of a commit, fixed by what is in it and what it stands on."""
    if experiment == 0:
        return base
    return f"c{experiment}.{attempt}-" + hashlib.sha256(f"{experiment}.{attempt} on {base}".encode()).hexdigest()[:6]


# ---------------------------------------------------------------- commands in short


def brief(command: c.Command) -> str:
    """A command as a few words, so that a table of them can be read."""
    match command:
        case c.Append(data=data):
            return _brief_fact(data)
        case c.Cancel(target=target):
            return "cancel " + " ".join(str(part) for part in (target[0], *target[2:]))
        case c.StartRun(tag=tag):
            return f"start {tag}"
        case c.Propose(experiment=n, ask=ask, purpose=purpose):
            of = f" of {command.again_of}" if command.again_of is not None else ""
            return f"propose {n} {purpose}{of}, ask {ask}"
        case c.Prepare(experiment=n, attempt=attempt, step=step):
            return f"prepare {n}.{attempt} {step}"
        case c.Commit(experiment=n, attempt=attempt):
            return f"commit {n}.{attempt}"
        case c.Train(experiment=n, attempt=attempt, trial=trial, slot=slot):
            return f"train {n}.{attempt}.{trial} on {slot}"
        case c.CloseTraining(experiment=n, attempt=attempt, trial=trial):
            return f"close training {n}.{attempt}.{trial}"
        case c.Score(experiment=n, attempt=attempt, trial=trial, request=request):
            return f"score {n}.{attempt}.{trial}" + " with checks" * command.checks + (" again" if request else "")
        case c.RunGuard(experiment=n, attempt=attempt, request=request):
            return f"guard {n}.{attempt}" + (" again" if request else "")
        case c.MoveBranch(experiment=n, why=why):
            return f"move branch, {why} {n}"


def _brief_fact(data: e.Data) -> str:
    match data:
        case e.ExperimentDecided(experiment=n, verdict=verdict, reason=reason):
            return f"{n} is {verdict}: {reason}"
        case e.ExperimentAbandoned(experiment=n, reason=reason):
            return f"{n} is abandoned: {reason}"
        case e.ExperimentRemeasureRequested(experiment=n, trial=trial):
            return f"{n} is measured again, trial {trial}"
        case e.ProposalFailed(experiment=n, failure=failure):
            return f"proposal {n} failed: {failure}"
        case e.RunPaused(why=why):
            return f"paused: {why}"
        case e.RunFinished(reason=reason):
            return f"finished: {reason}"
        case e.ScoringFinished(experiment=n, outcome=outcome):
            return f"scoring {n} {outcome}"
        case e.GuardFinished(experiment=n, result=result):
            return f"guard {n} {result}"
    return data.TYPE


# ---------------------------------------------------------------- a log told event by event


@dataclass
class Story:
    """
    A log written by hand. Each method appends one event and returns the story; `brief` of what comes next is `next`.

    Names of commits follow from experiment, attempt and base; the base of a run is the commit "base".
    """

    policy: Policy = POLICY
    judge: Judge = d.decide
    tag: str = TAG
    log: MemoryLog = field(default_factory=MemoryLog)
    state: State = field(default_factory=State)
    on_event: Callable[[Event, State], None] = lambda _event, _state: None
    minute: int = 0
    approval: str = "none"

    @property
    def run(self) -> Run:
        return self.state.runs[self.tag]

    def add(self, run: str, data: e.Data, cause: int | None = None, actor: str = LOOP) -> int:
        return self.append([c.Append(run, data, cause)], actor)[0]

    def append(self, facts: Sequence[c.Append], actor: str = LOOP, expected: int | None = None) -> list[int]:
        """Append a batch, fold it, and return the positions."""
        head = self.log.head().position
        batch = [
            NewEvent(f"id-{head + i}", fact.run, at(self.minute), actor, fact.data, fact.cause)
            for i, fact in enumerate(facts)
        ]
        positions = self.log.append(batch, expected=expected)
        for event in self.log.read(self.state.position):
            self.state.apply(event)
            self.on_event(event, self.state)
        return positions

    def ask(self, answer: Answer) -> Story:
        """Append what a person asked for; the request must be acceptable."""
        assert isinstance(answer, Accepted), answer
        self.add(answer.run, answer.data, actor=PERSON)
        return self

    def tell(self, data: e.Data) -> Story:
        """Append any event of the run."""
        self.add(self.tag, data)
        return self

    def commands(self, *running: c.Key) -> list[c.Command]:
        return next_commands(self.state, frozenset(running), at(self.minute), self.policy, self.judge)

    def next(self, *running: Sequence[str | int]) -> list[str]:
        """The next commands in short. *running* are keys without the tag, such as ("train", 1)."""
        keys = [(key[0], self.tag, *key[1:]) for key in running]
        return [brief(command) for command in self.commands(*keys)]

    # ---- a run

    def requested(self, tag: str = TAG, limits: e.Limits | None = None) -> Story:
        self.add(tag, e.RunRequested(tag=tag, from_ref="HEAD", zone="UTC", limits=limits or e.Limits()), actor=PERSON)
        return self

    def started(self, limits: e.Limits | None = None) -> Story:
        """Requested and started."""
        self.requested(self.tag, limits)
        return self.tell(run_started(self.tag, "base", limits or e.Limits(), self.policy, self.approval))

    def measured(self, score: float = 1.0, limits: e.Limits | None = None, memory_mb: float | None = None) -> Story:
        """Started, and its baseline kept."""
        self.started(limits).prepared(0).trained(0, score=score, memory_mb=memory_mb)
        return self.decided(0, score=score)

    # ---- a proposal

    def asked(self, n: int, ask: int = 0, **fields: Any) -> Story:
        kind = self.policy.proposer
        given: dict[str, Any] = {"kind": kind, "purpose": "new", "program_hash": "", "base_commit": self.run.tip}
        return self.tell(e.ProposalRequested(experiment=n, ask=ask, **{**given, **fields}))

    def received(self, n: int, ask: int = 0, **fields: Any) -> Story:
        given: dict[str, Any] = {"base_commit": self.run.tip, "description": f"idea {n}", "edits": (), "usd": 0.0}
        return self.tell(e.ProposalReceived(experiment=n, ask=ask, **{**given, **fields}))

    def failed(self, n: int, failure: str, ask: int = 0, usd: float = 0.0, retry_at: str = "") -> Story:
        why = f"it was {failure}"
        return self.tell(e.ProposalFailed(experiment=n, ask=ask, failure=failure, why=why, usd=usd, retry_at=retry_at))

    def proposed(self, n: int) -> Story:
        """Asked and received."""
        return self.asked(n).received(n)

    # ---- an attempt

    def prepared(self, n: int, attempt: int = 0, step: e.Step = "first", lines: int = 0, base: str = "") -> Story:
        """Prepared and committed."""
        return self.only_prepared(n, attempt, step, lines, base).committed(n, attempt)

    def only_prepared(self, n: int, attempt: int = 0, step: e.Step = "first", lines: int = 0, base: str = "") -> Story:
        return self.tell(
            e.ExperimentPrepared(
                experiment=n,
                attempt=attempt,
                step=step,
                base_commit=base or self.run.tip,
                tree=f"t{n}.{attempt}",
                subject=f"idea {n}",
                diff=DIFF if n > 0 else "",
                lines_added=max(0, lines),
                lines_removed=max(0, -lines),
            )
        )

    def committed(self, n: int, attempt: int = 0) -> Story:
        prepared = self.run.experiments[n].prepared
        assert prepared is not None
        commit = commit_of(n, attempt, prepared.base_commit)
        return self.tell(
            e.ExperimentCommitted(experiment=n, attempt=attempt, commit=commit, tree=prepared.tree, ref="ref")
        )

    def training(self, n: int, slot: int = 0, trial: int = 0) -> Story:
        """Its training was requested and has started."""
        experiment = self.run.experiments[n]
        assert experiment.committed is not None
        nonce = f"nonce-{self.state.position}"
        attempt = experiment.attempt
        self.tell(training_requested(self.policy, n, attempt, trial, slot, experiment.committed.commit, nonce))
        return self.tell(training_started(n, attempt, trial, nonce))

    def trained_as(
        self, n: int, outcome: e.Outcome, score: float | None = None, memory_mb: float | None = None
    ) -> Story:
        """Its open training ended."""
        experiment = self.run.experiments[n]
        trial = experiment.last
        assert trial is not None
        return self.tell(
            e.TrainingFinished(
                experiment=n,
                attempt=experiment.attempt,
                trial=trial.trial,
                nonce=trial.nonce,
                outcome=outcome,
                seconds=1.0,
                score=score,
                peak_memory_mb=memory_mb,
                why="" if outcome == "scored" else "it broke",
                tail=SLIP if outcome == "crash" else "",
            )
        )

    def scored(self, n: int, score: float) -> Story:
        """Its training ended well and its score came."""
        return self.scoring(n).score_came(n, score)

    def scoring(self, n: int, *, checks: bool = False) -> Story:
        experiment = self.run.experiments[n]
        trial = experiment.last
        assert trial is not None
        data = e.ScoringRequested(
            experiment=n, attempt=experiment.attempt, trial=trial.trial, evaluator="in-place/1", checks=checks
        )
        return self.tell(data)

    def score_came(self, n: int, score: float | None, outcome: e.Outcome = "scored", *, checks: bool = False) -> Story:
        experiment = self.run.experiments[n]
        trial = experiment.last
        assert trial is not None
        return self.tell(
            e.ScoringFinished(
                experiment=n,
                attempt=experiment.attempt,
                trial=trial.trial,
                outcome=outcome,
                score=score,
                why="" if outcome == "scored" else "it is so",
                checks=e.Checks(rows=9) if checks else None,
            )
        )

    def checked(self, n: int, score: float | None, outcome: e.Outcome = "scored") -> Story:
        """It was scored again, with all checks."""
        return self.scoring(n, checks=True).score_came(n, score, outcome, checks=True)

    def trained(self, n: int, score: float, slot: int = 0, trial: int = 0, memory_mb: float | None = None) -> Story:
        """Trained and scored."""
        return self.training(n, slot, trial).trained_as(n, "scored", score, memory_mb).scored(n, score)

    def crashed(self, n: int, outcome: e.Outcome = "crash", slot: int = 0) -> Story:
        return self.training(n, slot).trained_as(n, outcome)

    def guarding(self, n: int) -> Story:
        attempt = self.run.experiments[n].attempt
        data = e.GuardRequested(experiment=n, attempt=attempt, command=("pytest",), timeout_s=60, nonce="guard")
        return self.tell(data)

    def guarded(self, n: int, result: Any, exit_code: int | None = None) -> Story:
        attempt = self.run.experiments[n].attempt
        data = e.GuardFinished(experiment=n, attempt=attempt, result=result, seconds=1.0, exit_code=exit_code)
        return self.tell(data)

    # ---- a verdict

    def decided(self, n: int, verdict: e.Verdict = "keep", score: float | None = None) -> Story:
        experiment = self.run.experiments[n]
        return self.tell(
            e.ExperimentDecided(
                experiment=n, attempt=experiment.attempt, verdict=verdict, reason=verdict, trials=1, score=score
            )
        )

    def moved(self, n: int) -> Story:
        """The branch was moved to the keep that waits for it."""
        keep = self.run.pending_keep
        assert keep is not None
        return self.tell(e.BranchMoved(experiment=n, from_commit=self.run.tip, to_commit=keep.commit, why="keep"))

    def kept(self, n: int, score: float) -> Story:
        """From its proposal to the branch."""
        return self.proposed(n).prepared(n).trained(n, score).decided(n, score=score).moved(n)


def run_started(tag: str, base: str, limits: e.Limits, policy: Policy, approval: str = "none") -> e.RunStarted:
    return e.RunStarted(
        branch=f"autoresearch/{tag}",
        base_commit=base,
        settings={
            "objective": {"name": "val_bpb", "direction": "minimize"},
            "proposer": {"kind": policy.proposer, "approval": approval},
            "claude": {"model": "some-model", "prices": {"some-model": {}}},
        },
        limits=limits,
        program_hash="",
        harness_hash="",
        settings_hash="",
        seed=7,
        host="box",
        device="cpu",
        sandbox="none",
        versions={},
    )


def training_requested(
    policy: Policy, n: int, attempt: int, trial: int, slot: int, commit: str, nonce: str
) -> e.TrainingRequested:
    return e.TrainingRequested(
        experiment=n,
        attempt=attempt,
        trial=trial,
        slot=slot,
        commit=commit,
        command=policy.command,
        seed=7 + trial,
        budget_s=policy.budget_s,
        timeout_s=policy.timeout_s,
        nonce=nonce,
    )


def training_started(n: int, attempt: int, trial: int, nonce: str) -> e.TrainingStarted:
    return e.TrainingStarted(
        experiment=n, attempt=attempt, trial=trial, nonce=nonce, pid=4711, pid_started=1.0, device="cpu"
    )


# ---------------------------------------------------------------- a world that carries out commands


@dataclass
class Fate:
    """
    What happens when the world carries something out. The default: everything works, each idea gains 0.01.

    Attributes:
        failures: By (experiment, ask): the class of the failed proposal.
        misfits: By (experiment, attempt): "conflict" or "refused".
        outcomes: By (experiment, attempt): how each training of it ends.
        scorings: By experiment, and whether checks were asked for: what a sealed scoring comes to.
        scores: By experiment; the baseline's is 1.0.
        guards: By experiment: the guard's result.
    """

    failures: dict[tuple[int, int], str] = field(default_factory=dict)
    misfits: dict[tuple[int, int], str] = field(default_factory=dict)
    outcomes: dict[tuple[int, int], e.Outcome] = field(default_factory=dict)
    scorings: dict[tuple[int, bool], e.Outcome] = field(default_factory=dict)
    scores: dict[int, float] = field(default_factory=dict)
    guards: dict[int, str] = field(default_factory=dict)
    usd: float = 0.0

    def failure(self, experiment: int, ask: int, _knows: str) -> str:
        return self.failures.get((experiment, ask), "")

    def remote_failure(self, _experiment: int, _position: int) -> str:
        return ""

    def misfit(self, experiment: int, attempt: int, _base: str) -> str:
        return self.misfits.get((experiment, attempt), "")

    def outcome(self, experiment: int, attempt: int, _trial: int) -> e.Outcome:
        return self.outcomes.get((experiment, attempt), "scored")

    def scoring(self, experiment: int, _position: int, *, checks: bool) -> e.Outcome:
        return self.scorings.get((experiment, checks), "scored")

    def score(self, experiment: int, _attempt: int, _trial: int) -> float:
        return self.scores.get(experiment, 1.0 - 0.01 * experiment)

    def guard(self, experiment: int, _attempt: int) -> str:
        return self.guards.get(experiment, "passed")

    def lines(self, _experiment: int) -> int:
        return 0


@dataclass
class Dice(Fate):
    """A fate drawn from a seed: the same question always has the same answer."""

    seed: int = 0
    baseline_works: bool = True
    asks_fail: bool = True

    def roll(self, *what: object) -> float:
        """A number in [0, 1) fixed by the seed and *what*."""
        digest = hashlib.sha256(repr((self.seed, *what)).encode()).digest()
        return int.from_bytes(digest[:6], "big") / 2**48

    def failure(self, experiment: int, ask: int, knows: str) -> str:
        if not self.asks_fail:
            return ""
        roll = self.roll("proposal", experiment, ask, knows)
        return "overloaded" if roll < 0.1 else "no_repair" if roll < 0.12 else "exhausted" if roll < 0.125 else ""

    def remote_failure(self, experiment: int, position: int) -> str:
        """Of a proposer far away; asked again it may answer, so the position counts."""
        if not self.asks_fail:
            return ""
        roll = self.roll("remote", experiment, position)
        words = ("offline", "rate_limited", "unparsable", "same_as_tried", "over_budget", "no_repair")
        return words[int(roll * 20)] if roll < 0.3 and int(roll * 20) < len(words) else ""

    def misfit(self, experiment: int, attempt: int, base: str) -> str:
        roll = self.roll("fits", experiment, attempt, base)
        return "conflict" if roll < 0.1 else "refused" if roll < 0.15 else ""

    def outcome(self, experiment: int, attempt: int, trial: int) -> e.Outcome:
        if experiment == 0 and self.baseline_works:
            return "scored"
        roll = self.roll("training", experiment, attempt, trial)
        return "scored" if roll < 0.7 else "crash" if roll < 0.9 else "timeout"

    def scoring(self, experiment: int, position: int, *, checks: bool) -> e.Outcome:
        if experiment == 0 and self.baseline_works:
            return "scored"
        roll = self.roll("scoring", experiment, position)
        if checks and roll < 0.1:
            return "tampered"
        return "lost" if roll < 0.13 else "refused_operator" if roll < 0.16 else "scored"

    def score(self, experiment: int, attempt: int, trial: int) -> float:
        return round(1.0 - 0.01 * experiment + 0.03 * self.roll("score", experiment, attempt, trial), 3)

    def guard(self, experiment: int, attempt: int) -> str:
        if experiment == 0 and self.baseline_works:
            return "passed"
        roll = self.roll("guard", experiment, attempt)
        return "failed" if roll < 0.2 else "timeout" if roll < 0.25 else "passed"

    def lines(self, experiment: int) -> int:
        return int(self.roll("lines", experiment) * 20) - 8


@dataclass
class World(Story):
    """
    A loop and its surroundings: `turn` asks the machine and begins what it orders, `finish` ends one effect.

    Attributes:
        running: Effects at work, by key, with their intent and its position.
        cancelled: Keys of the cancels that have been ordered.
        held: Moves that are not to be tried again by this loop.
        branches: Where each run's branch points; a test may move one behind the loop's back.
        parents: The parent of each commit.
        results: Outcomes that trainings left on the disk before the loop died, by nonce.
    """

    fate: Fate = field(default_factory=Fate)
    running: dict[c.Key, tuple[c.Effect, e.Data | None, int]] = field(default_factory=dict)
    lingering: set[c.Key] = field(default_factory=set)
    cancelled: set[c.Key] = field(default_factory=set)
    held: set[c.Key] = field(default_factory=set)
    branches: dict[str, str] = field(default_factory=dict)
    parents: dict[str, str] = field(default_factory=dict)
    results: dict[str, e.Outcome] = field(default_factory=dict)
    turns: int = 0

    def turn(self) -> list[c.Command]:
        """Ask the machine, write facts and intents as one batch, begin the effects. Returns what was ordered."""
        self.turns += 1
        keys = frozenset(self.running) | self.lingering | self.cancelled | self.held
        commands = self.commands(*keys)
        assert commands == self.commands(*keys), "asked twice, the machine gave two answers"
        facts = [x for x in commands if isinstance(x, c.Append)]
        effects = [x for x in commands if not isinstance(x, c.Append | c.Cancel)]
        assert not keys & {x.key for x in effects}, "an effect in flight was ordered again"
        self.cancelled |= {x.key for x in commands if isinstance(x, c.Cancel)}
        intents = [(x, self._intent(x, i)) for i, x in enumerate(effects)]
        batch = facts + [c.Append(x.tag, data, _cause(x)) for x, data in intents if data is not None]
        positions = iter(self.append(batch, expected=self.state.position)[len(facts) :])
        for effect, intent in intents:
            position = next(positions) if intent is not None else getattr(effect, "request", None) or 0
            self.running[effect.key] = (effect, intent, position)
        return commands

    def finish(self, key: c.Key, *, linger: bool = False, fault: bool = False) -> None:
        """Let an effect end and write what came of it. *linger*: its task is not gathered yet, see `reap`."""
        command, intent, position = self.running.pop(key)
        if linger:
            self.lingering.add(key)
        if fault:
            self._fault(command)
        else:
            self._end(command, intent, position, cut_off=("cancel", *key) in self.cancelled)
        if not linger:
            self.cancelled.discard(("cancel", *key))

    def reap(self) -> None:
        """Gather the tasks that have ended."""
        self.cancelled -= {("cancel", *key) for key in self.lingering}
        self.lingering.clear()

    def crash(self, *, leave: bool) -> None:
        """The loop dies. *leave*: what was at work got as far as it could without telling the log."""
        for command, intent, position in self.running.values():
            if leave:
                self._half(command, intent, position)
        self.running.clear()
        self.lingering.clear()
        self.cancelled.clear()
        self.held.clear()

    def step(self) -> bool:
        """One turn or, where that orders nothing, the end of one effect. False if there is nothing left to do."""
        if any(not isinstance(command, c.Cancel) for command in self.turn()):
            return True
        if not self.running:
            return False
        self.finish(self.next_to_finish())
        return True

    def settle(self, *, steps_max: int = 2_000) -> World:
        """Step until there is nothing left to do."""
        for _ in range(steps_max):
            if not self.step():
                return self
        raise AssertionError(f"still at work after {steps_max} steps, at position {self.state.position}")

    def next_to_finish(self) -> c.Key:
        """The effect that ends first: trainings take longest, then guards, the rest in the order of their beginning."""
        slow = {"guard": 1, "train": 2}
        return min(self.running, key=lambda key: slow.get(str(key[0]), 0))

    def until(self, *types: str, experiment: int | None = None) -> World:
        """Step until an event of one of *types*, of *experiment* where given, has just been written."""
        before = self.state.position
        while self.step():
            for event in self.log.read(before):
                if event.type in types and experiment in (None, getattr(event.data, "experiment", None)):
                    return self
            before = self.state.position
        raise AssertionError(f"there is nothing left to do, and no {types} came")

    def verdicts(self) -> list[tuple[int, str, float | None, str]]:
        """What was decided, in order."""
        return [
            (x.data.experiment, x.data.verdict, x.data.score, x.data.reason)
            for x in self.log.stream()
            if isinstance(x.data, e.ExperimentDecided)
        ]

    # ---- intents

    def _intent(self, command: c.Effect, index: int) -> e.Data | None:
        nonce = f"nonce-{self.state.position}-{index}"
        match command:
            case c.Propose():
                return e.ProposalRequested(
                    experiment=command.experiment,
                    ask=command.ask,
                    kind=command.kind,
                    purpose=command.purpose,
                    base_commit=command.base_commit,
                    program_hash=self.state.program_hash,
                    attempt=command.attempt,
                    again_of=command.again_of,
                    idea=command.idea,
                    usd_reserved=self.fate.usd,
                )
            case c.Train(experiment=n, attempt=attempt, trial=trial):
                return training_requested(self.policy, n, attempt, trial, command.slot, command.commit, nonce)
            case c.Score(request=None):
                return e.ScoringRequested(
                    experiment=command.experiment,
                    attempt=command.attempt,
                    trial=command.trial,
                    evaluator="in-place/1",
                    checks=command.checks,
                )
            case c.RunGuard(request=None):
                return e.GuardRequested(
                    experiment=command.experiment,
                    attempt=command.attempt,
                    command=("pytest",),
                    timeout_s=9,
                    nonce=nonce,
                )
        return None

    # ---- outcomes

    def _end(self, command: c.Effect, intent: e.Data | None, position: int, *, cut_off: bool) -> None:
        match command:
            case c.StartRun():
                self._start(command)
            case c.Propose():
                self._propose(command, position, cut_off)
            case c.Prepare():
                self._prepare(command)
            case c.Commit():
                self._commit(command)
            case c.Train() if isinstance(intent, e.TrainingRequested):
                self._train(command, intent, position, cut_off)
            case c.CloseTraining() if not cut_off:
                self._trained(command, command.nonce, self.results.get(command.nonce, "lost"), command.cause)
            case c.Score() if not cut_off or self.policy.scoring == "sealed":
                self._score(command, position, cut_off)
            case c.RunGuard():
                result: Any = "stopped" if cut_off else self.fate.guard(command.experiment, command.attempt)
                data = e.GuardFinished(
                    experiment=command.experiment, attempt=command.attempt, result=result, seconds=1.0, exit_code=3
                )
                self.add(command.tag, data, position)
            case c.MoveBranch():
                self._move(command)

    def _start(self, command: c.StartRun) -> None:
        base = f"base-{command.tag}"
        if self.branches.setdefault(command.tag, base) != base:
            refused = e.RunRefused(request=command.request, code="branch_exists", why="it exists", remedy="another tag")
            self.add(command.tag, refused, command.request)
            return
        limits = self.state.runs[command.tag].request.limits
        started = run_started(command.tag, base, limits, self.policy, self.approval)
        self.add(command.tag, started, command.request)

    def _propose(self, command: c.Propose, position: int, cut_off: bool) -> None:
        n, ask = command.experiment, command.ask
        known_at = command.known_at or position
        known = [x.experiment for x in self.state.runs[command.tag].done if x.decided_at < known_at]
        knows = f"{command.purpose} on {command.base_commit} knowing {known}"
        is_remote = self.policy.remote and command.kind == self.policy.proposer
        failure = self.fate.remote_failure(n, position) if is_remote else self.fate.failure(n, ask, knows)
        failure = "stopped" if cut_off else failure
        if failure:
            failed = e.ProposalFailed(
                experiment=n,
                ask=ask,
                failure=failure,
                why="it said so",
                usd=self.fate.usd,
                retry_at=at(self.minute + 2) if is_remote and failure in OUTSIDE_FAILURES else "",
            )
            self.add(command.tag, failed, position)
            return
        received = e.ProposalReceived(
            experiment=n,
            ask=ask,
            attempt=command.attempt,
            base_commit=command.base_commit,
            description=f"{n}.{command.attempt} {knows}"[:200],
            edits=(),
            usd=self.fate.usd,
        )
        facts = [c.Append(command.tag, received, position)]
        if command.idea is not None:
            facts.append(c.Append(command.tag, e.IdeaUsed(idea=command.idea, experiment=n), Earlier(0)))
        self.append(facts)

    def _prepare(self, command: c.Prepare) -> None:
        n, attempt = command.experiment, command.attempt
        misfit = self.fate.misfit(n, attempt, command.tip) if n > 0 else ""
        request = self.state.runs[command.tag].experiments[n].request if n > 0 else None
        if misfit == "conflict" or (misfit and command.step == "rebase"):
            assert command.on_conflict is not None
            self.add(command.tag, command.on_conflict, command.cause)
        elif misfit:
            assert request is not None
            refused = e.ProposalFailed(experiment=n, ask=request.ask, failure="not_python", why="no", usd=0.0)
            self.add(command.tag, refused, command.cause)
        else:
            lines = self.fate.lines(n) if n > 0 else 0
            prepared = e.ExperimentPrepared(
                experiment=n,
                attempt=attempt,
                step=command.step,
                base_commit=command.tip,
                tree=f"t{n}.{attempt}",
                subject=f"idea {n}",
                diff=DIFF if n > 0 else "",
                lines_added=max(0, lines),
                lines_removed=max(0, -lines),
            )
            self.add(command.tag, prepared, command.cause)

    def _commit(self, command: c.Commit) -> None:
        prepared = self.state.runs[command.tag].experiments[command.experiment].prepared
        assert prepared is not None
        commit = commit_of(command.experiment, command.attempt, prepared.base_commit)
        if command.experiment > 0:
            self.parents[commit] = prepared.base_commit
        data = e.ExperimentCommitted(
            experiment=command.experiment, attempt=command.attempt, commit=commit, tree=prepared.tree, ref="ref"
        )
        self.add(command.tag, data, command.cause)

    def _train(self, command: c.Train, request: e.TrainingRequested, position: int, cut_off: bool) -> None:
        n, attempt, trial = command.experiment, command.attempt, command.trial
        self.add(command.tag, training_started(n, attempt, trial, request.nonce), position)
        outcome = "stopped" if cut_off else self.fate.outcome(n, attempt, trial)
        self._trained(command, request.nonce, outcome, position)

    def _trained(self, command: c.Train | c.CloseTraining, nonce: str, outcome: e.Outcome, cause: int) -> None:
        n, attempt, trial = command.experiment, command.attempt, command.trial
        finished = e.TrainingFinished(
            experiment=n,
            attempt=attempt,
            trial=trial,
            nonce=nonce,
            outcome=outcome,
            seconds=1.0,
            score=self.fate.score(n, attempt, trial) if outcome == "scored" else None,
            why="" if outcome == "scored" else "it broke",
            tail=SLIP if outcome == "crash" else "",
        )
        self.add(command.tag, finished, cause)

    def _score(self, command: c.Score, position: int, cut_off: bool) -> None:
        n, attempt, trial = command.experiment, command.attempt, command.trial
        is_sealed = self.policy.scoring == "sealed"
        outcome = self.fate.scoring(n, position, checks=command.checks) if is_sealed else "scored"
        outcome = "stopped" if cut_off else outcome
        data = e.ScoringFinished(
            experiment=n,
            attempt=attempt,
            trial=trial,
            outcome=outcome,
            score=self.fate.score(n, attempt, trial) if outcome == "scored" else None,
            checks=e.Checks(rows=9) if command.checks and outcome in ("scored", "tampered") else None,
        )
        self.add(command.tag, data, position)

    def _move(self, command: c.MoveBranch) -> None:
        where = self.branches[command.tag]
        if where not in (command.from_commit, command.to_commit):
            self._taken(command, where)
            return
        self.branches[command.tag] = command.to_commit
        why: Any = command.why
        moved = e.BranchMoved(
            experiment=command.experiment, from_commit=command.from_commit, to_commit=command.to_commit, why=why
        )
        self.add(command.tag, moved, command.cause)

    def _taken(self, command: c.MoveBranch, where: str) -> None:
        if self.state.runs[command.tag].is_over:
            self.held.add(command.key)
            self.add(command.tag, e.RequestRefused(who=PERSON, what="veto", why="the branch was moved"), command.cause)
        else:
            self.add(command.tag, e.RunPaused(why=f"the branch is at {where}"), command.cause)

    # ---- what goes wrong

    def _fault(self, command: c.Effect) -> None:
        """The disk is full: the effect ends without an outcome, and the run is paused."""
        noticed = e.TroubleNoticed(kind="disk", what="no space left", since=at(self.minute))
        cause = self.add("", noticed)
        if self.state.runs[command.tag].status == "active":
            self.add(command.tag, e.RunPaused(why="no space left"), cause)

    def _half(self, command: c.Effect, intent: e.Data | None, position: int) -> None:
        """What an effect had done to the world when the loop died before telling the log."""
        match command:
            case c.StartRun():
                self.branches.setdefault(command.tag, f"base-{command.tag}")
            case c.Train() if isinstance(intent, e.TrainingRequested):
                n, attempt, trial = command.experiment, command.attempt, command.trial
                self.add(command.tag, training_started(n, attempt, trial, intent.nonce), position)
                self.results[intent.nonce] = self.fate.outcome(n, attempt, trial)
            case c.MoveBranch() if self.branches[command.tag] == command.from_commit:
                self.branches[command.tag] = command.to_commit


def _cause(command: c.Effect) -> int | None:
    return command.request if isinstance(command, c.StartRun) else command.cause


# ---------------------------------------------------------------- fixtures


@pytest.fixture(scope="session")
def new_story() -> Callable[..., Story]:
    """Begin a `Story`; arguments replace fields of the policy."""

    def make(*, judge: Judge = d.decide, **policy: Any) -> Story:
        return Story(policy=replace(POLICY, **policy), judge=judge)

    return make


@pytest.fixture(scope="session")
def new_world() -> Callable[..., World]:
    """Begin a `World` with a run in the queue; keyword arguments replace fields of the policy."""

    def make(
        fate: Fate | None = None, limits: e.Limits | None = None, *, judge: Judge = d.decide, **policy: Any
    ) -> World:
        world = World(policy=replace(POLICY, **policy), judge=judge, fate=fate or Fate())
        world.requested(limits=limits)
        return world

    return make


@pytest.fixture(scope="session")
def new_fate() -> type[Fate]:
    return Fate


@pytest.fixture(scope="session")
def new_dice() -> type[Dice]:
    return Dice


@pytest.fixture(scope="session")
def short() -> Callable[[c.Command], str]:
    """`brief`, for commands that a world ordered."""
    return brief
