"""Whole nights in random order, with crashes and people, against what must hold after every event.

A night is fixed by its seed; a failure names it. Nothing here waits: a night of some hundred events takes
milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from eventstore import events as e
from eventstore import requests as ask
from eventstore.envelope import Event
from eventstore.projections.results import Results
from eventstore.projections.run_state import Run, State
from loop import commands as c
from loop.policy import Guard

NIGHTS = 400
BLOCKS = 8
TURNS_MAX = 1_500
"""Turns within which every run has ended once people stop interfering. The longest of the nights takes a third."""

WHAT_PEOPLE_ASK = {
    "pause": 4,
    "resume": 8,
    "stop": 1,
    "veto": 5,
    "again": 4,
    "reject": 2,
    "approve": 1,
    "experiments": 2,
    "usd": 1,
    "program": 1,
    "start": 2,
    "withdraw": 1,
    "meddle": 1,
    "idea": 2,
}
"""How often, against each other."""

OF_AN_EXPERIMENT = tuple(
    kind
    for name, kind in e.CATALOGUE.items()
    if name.split(".")[0] in ("proposal", "experiment", "training", "scoring", "guard")
    and "experiment" in kind.__struct_fields__
)
AFTER_THE_END = (e.KeepVetoed, e.BranchMoved, e.RequestRefused)


class Watch:
    """Looks at every event as it is written, and remembers on its own what it needs to judge the next one."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.open: dict[tuple[str, str, int], Any] = {}
        self.attempts: dict[tuple[str, int], int] = {}
        self.over: set[tuple[str, int]] = set()
        self.pending: dict[str, int] = {}
        self.scored_at: dict[tuple[str, int], int] = {}
        self.ended: set[str] = set()
        self.results = Results()
        self.parents: dict[str, str] = {}
        self.answered: set[int] = set()
        self.checked: set[tuple[str, int]] = set()
        self.is_sealed = False

    def __call__(self, event: Event, state: State) -> None:
        data = event.data
        self.results.apply(event)
        if event.run in self.ended:
            assert isinstance(data, AFTER_THE_END), f"{event.type} in a run that is over"
        if isinstance(data, OF_AN_EXPERIMENT):
            self._of_an_experiment(event.run, data, event.position)
        if isinstance(data, e.IdeaUsed | e.IdeaDeclined):
            assert data.idea not in self.answered, "an idea is answered twice"
            self.answered.add(data.idea)
        if isinstance(data, e.BranchMoved) and data.why == "keep":
            assert self.pending.pop(event.run) == data.experiment
        if isinstance(data, e.RunFinished):
            assert not [key for key in self.open if key[1] == event.run], "an intent is open at the end of its run"
            self.ended.add(event.run)
        if event.run in state.runs:
            self._branch(state.runs[event.run])

    def _of_an_experiment(self, run: str, data: Any, position: int) -> None:
        at = (run, data.experiment)
        assert at not in self.over, f"{data.TYPE} of experiment {data.experiment}, which is over"
        match data:
            case e.ProposalRequested():
                self._is_known_or_next(at)
                self._open("proposal", at, data)
            case e.ProposalReceived():
                self._close("proposal", at)
            case e.ProposalFailed(failure=failure):
                if failure not in ("edit_does_not_apply", "not_python", "misfit"):  # those come from its preparation
                    self._close("proposal", at)
            case e.ExperimentPrepared(attempt=attempt):
                self._is_known_or_next(at)
                assert attempt == self.attempts[at] + 1
                self.attempts[at] = attempt
                self.scored_at.pop(at, None)
                self.checked.discard(at)
            case e.ExperimentCommitted(attempt=attempt):
                assert attempt == self.attempts[at]
            case e.TrainingRequested():
                self._open("training", at, data)
                slots = [x.slot for (kind, *_), x in self.open.items() if kind == "training"]
                assert len(slots) == len(set(slots)) <= self.slots, f"slots {slots} of {self.slots}"
                assert data.slot in range(self.slots)
            case e.TrainingFinished(nonce=nonce):
                assert self._close("training", at).nonce == nonce
            case e.ScoringRequested():
                self._open("scoring", at, data)
            case e.ScoringFinished(outcome=outcome):
                self._close("scoring", at)
                if outcome == "scored":
                    self.scored_at.setdefault(at, position)
                elif outcome != "stopped":
                    self.scored_at.pop(at, None)
                if data.checks is not None:
                    self.checked.add(at)
            case e.GuardRequested():
                self._open("guard", at, data)
            case e.GuardFinished():
                self._close("guard", at)
            case e.ExperimentDecided() | e.ExperimentAbandoned():
                self._ends(at, data)

    def _ends(self, at: tuple[str, int], data: e.ExperimentDecided | e.ExperimentAbandoned) -> None:
        self.over.add(at)
        left = [kind for kind, *rest in self.open if tuple(rest) == at]
        assert not left, f"experiment {at[1]} ends with an open {left}"
        scored_at = self.scored_at.pop(at, None)
        if isinstance(data, e.ExperimentAbandoned):
            return
        assert at[0] not in self.pending, "a verdict between a keep and the move of its branch"
        if scored_at is not None:
            waiting = [position for (run, _), position in self.scored_at.items() if run == at[0]]
            assert scored_at < min(waiting, default=position_after(scored_at)), "a verdict out of turn"
        assert data.verdict != "keep" or not self.is_sealed or at in self.checked, "kept without having been checked"
        if data.verdict == "keep" and data.experiment > 0:
            self.pending[at[0]] = data.experiment

    def _is_known_or_next(self, at: tuple[str, int]) -> None:
        if at not in self.attempts:
            numbers = [n for run, n in self.attempts if run == at[0]]
            assert at[1] == max(numbers, default=-1) + 1, f"number {at[1]} after {sorted(numbers)}"
            self.attempts[at] = -1

    def _open(self, kind: str, at: tuple[str, int], data: Any) -> None:
        assert (kind, *at) not in self.open, f"a second {kind} of experiment {at[1]} while one is open"
        self.open[kind, *at] = data

    def _close(self, kind: str, at: tuple[str, int]) -> Any:
        assert (kind, *at) in self.open, f"an outcome of a {kind} that is not open, experiment {at[1]}"
        return self.open.pop((kind, *at))

    def _branch(self, run: Run) -> None:
        """The branch is the chain of its keeps, in the state and in results.tsv."""
        if not run.keeps:
            return
        assert run.tip == run.keeps[-1].commit
        for child, parent in zip(run.keeps[1:], run.keeps, strict=False):
            assert self.parents[child.commit] == parent.commit
        if run.pending_keep is not None:
            assert self.parents[run.pending_keep.commit] == run.tip
        on_branch = [*run.keeps, *([run.pending_keep] if run.pending_keep is not None else [])]
        rows = [row.experiment for row in self.results.rows(run.tag) if row.status == "keep"]
        assert rows == [keep.experiment for keep in on_branch]


def at(minute: int) -> str:
    return f"2026-11-{1 + minute // 1440:02d}T{minute // 60 % 24:02d}:{minute % 60:02d}:00.000000Z"


def position_after(position: int) -> int:
    return position + 1


class Night:
    """One random night in a world of its own."""

    def __init__(self, seed: int, new_world: Callable[..., Any], new_dice: Callable[..., Any]) -> None:
        self.rng = rng = Random(seed)
        self.guarded = rng.random() < 0.5
        self.world = new_world(
            new_dice(seed=seed, usd=rng.choice((0.0, 0.0, 0.5)), baseline_works=rng.random() < 0.9),
            limits=e.Limits(
                experiments=rng.choice((None, 3, 6, 12)),
                until=rng.choice((None, None, "2026-11-01T03:00:00.000000Z")),
                usd=rng.choice((None, None, 6.0)),
            ),
            slots=rng.randint(1, 4),
            repair_attempts=rng.randint(0, 2),
            asks_max=rng.randint(1, 3),
            failures_max=rng.randint(2, 9),
            rebases_max=rng.randint(0, 3),
            guard=Guard(("pytest",), 60) if self.guarded else None,
            scoring=rng.choice(("stdout", "sealed")),
            **(_remote(rng) if rng.random() < 0.5 else {}),
        )
        self.world.approval = rng.choice(("none", "none", "first", "all"))
        self.watch = Watch(self.world.policy.slots)
        self.watch.parents = self.world.parents
        self.watch.is_sealed = self.world.policy.scoring == "sealed"
        self.world.on_event = self.watch
        self.meddled: set[str] = set()

    def play(self) -> None:
        for _ in range(self.rng.randint(20, 250)):
            self._something()
        self._morning()
        self._check_end()

    def _something(self) -> None:
        world, roll = self.world, self.rng.random()
        if roll < 0.45 or (not world.running and roll < 0.9):
            self._turn()
        elif roll < 0.85:
            key = self.rng.choice(sorted(world.running, key=str))
            world.finish(key, linger=self.rng.random() < 0.2, fault=self.rng.random() < 0.01)
        elif roll < 0.90:
            world.reap()
        elif roll < 0.97:
            self._person()
        else:
            world.crash(leave=self.rng.random() < 0.5)
        world.minute += self.rng.randint(0, 1)

    def _turn(self) -> list[c.Command]:
        """Turn, and look at what was ordered: nothing for a paused run, no proposal or attempt beyond the limit."""
        world = self.world
        run = world.state.active
        is_held = run is not None and run.status == "paused" and not run.resume_at and run.stop is None
        used = _used(run, world) if run is not None else 0
        limit = run.limits.experiments if run is not None else None
        commands: list[c.Command] = world.turn()
        if is_held:
            assert not [x for x in commands if not isinstance(x, c.MoveBranch)], f"a paused run works: {commands}"
        if limit is not None:
            new = sum(isinstance(x, c.Prepare) and x.step == "first" and x.experiment > 0 for x in commands)
            assert not new or used + new <= limit, f"{used} + {new} experiments, the limit is {limit}"
        run = world.state.active
        if not commands and not world.running and not world.lingering and run is not None:
            waits = run.retry_at > at(world.minute) or any(run.awaits_approval(x) for x in run.experiments.values())
            assert waits or run.status == "paused", "nothing is at work and nothing is ordered"
        return commands

    def _person(self) -> None:
        """Someone asks for something, sensible or not; only what is accepted reaches the log."""
        world, rng = self.world, self.rng
        state, run = world.state, world.state.newest
        tag = run.tag if run is not None else None
        kept = [keep.experiment for keep in run.keeps] if run is not None else []
        done = [x.experiment for x in run.done] if run is not None else []
        waiting = [x.number for x in run.experiments.values() if x.proposal_waits] if run is not None else []

        def one_of(numbers: list[int]) -> int:
            return rng.choice(numbers or [0])

        mode: e.StopMode = rng.choice(("after_experiment", "now"))
        kind = rng.choices(list(WHAT_PEOPLE_ASK), list(WHAT_PEOPLE_ASK.values()))[0]
        asked: ask.Answer | None = None
        match kind:
            case "pause":
                asked = ask.pause(state, None, mode)
            case "resume":
                asked = ask.resume(state, None)
            case "stop":
                asked = ask.stop(state, tag, mode)
            case "veto":
                asked = ask.veto(state, tag, one_of(kept))
            case "again":
                asked = ask.again(state, None, one_of(done))
            case "reject":
                asked = ask.reject(state, None, one_of(waiting))
            case "approve":
                asked = ask.approve(state, None, one_of(waiting))
            case "experiments":
                asked = ask.budget(state, None, "experiments", rng.choice((None, 2, 5, 9, 15)))
            case "usd":
                asked = ask.budget(state, None, "usd", rng.choice((None, 3.0, 20.0)))
            case "program":
                asked = ask.edit_program(state, state.program_hash, f"# look at {rng.random()}")
            case "start":
                asked = ask.start(state, f"night{len(state.runs)}", "UTC", limits=e.Limits(experiments=2))
            case "withdraw":
                asked = ask.withdraw(state, rng.choice(sorted(state.runs)))
            case "meddle":
                self._meddle()
            case "idea":
                asked = ask.suggest_idea(state, f"try {rng.random()}")
        if isinstance(asked, ask.Accepted):
            world.ask(asked)

    def _meddle(self) -> None:
        """Someone moves the branch of the active run by hand."""
        run = self.world.state.active
        if run is not None:
            self.world.branches[run.tag] = "someone else's"
            self.meddled.add(run.tag)

    def _morning(self) -> None:
        """Everyone lets it be: faults are mended, what is paused is resumed, and every run ends by itself."""
        world = self.world
        for tag, run in world.state.runs.items():
            if world.branches.get(tag) == "someone else's":
                world.branches[tag] = run.tip
        for _ in range(TURNS_MAX):
            run = world.state.active
            if run is not None and run.status == "paused" and not run.resume_at and run.stop is None:
                world.ask(ask.resume(world.state, None))
            if run is not None and run.limits.experiments is None:
                world.ask(ask.budget(world.state, None, "experiments", run.verdicts + 2))
            self._approve_all(run)
            if any(not isinstance(command, c.Cancel) for command in self._turn()):
                continue
            world.reap()
            if world.running:
                world.finish(self.rng.choice(sorted(world.running, key=str)))
            elif world.state.active is not None:
                world.minute += 1  # the proposer is left in peace
            elif not self._turn():
                return
        raise AssertionError(f"runs are still going on after {TURNS_MAX} turns: {_statuses(world.state)}")

    def _approve_all(self, run: Run | None) -> None:
        for experiment in list(run.experiments.values()) if run is not None and run.status == "active" else []:
            if run is not None and run.awaits_approval(experiment):
                self.world.ask(ask.approve(self.world.state, None, experiment.number))

    def _check_end(self) -> None:
        world = self.world
        assert world.state.active is None
        assert not world.state.queue
        for tag, run in world.state.runs.items():
            assert run.is_over, _statuses(world.state)
            assert not run.experiments
            if run.keeps and tag not in self.meddled:
                assert world.branches[tag] == run.tip
                assert not [n for n in run.vetoes if run.keep_of(n) is not None], "a veto was not served"
        assert vars(State.of(world.log.stream())) == vars(world.state)


def _remote(rng: Random) -> dict[str, Any]:
    """A policy for a proposer far away."""
    return {
        "remote": True,
        "proposer": "claude",
        "stand_in": rng.choice(("", "sweep")),
        "fill_idle": rng.random() < 0.5,
        "ahead": rng.randint(0, 2),
        "unapproved_max": rng.randint(1, 3),
    }


def _used(run: Run, world: Any) -> int:
    """Verdicts and experiments that may still become one, counted when a turn begins."""
    being_prepared = {key[2] for key in world.running if key[0] == "prepare"}
    in_hand = [x for x in run.experiments.values() if x.number > 0 and (x.in_hand or x.number in being_prepared)]
    return run.verdicts + len(in_hand)


def _statuses(state: State) -> dict[str, str]:
    return {tag: run.status for tag, run in state.runs.items()}


@pytest.mark.parametrize("block", range(BLOCKS))
def test_every_night_ends_and_nothing_is_done_twice(block: int, new_world: Any, new_dice: Any) -> None:
    for seed in range(block, NIGHTS, BLOCKS):
        night = Night(seed, new_world, new_dice)
        try:
            night.play()
        except BaseException as error:
            error.add_note(f"night {seed}, at position {night.world.state.position}")
            raise


# ---------------------------------------------------------------- crashes change nothing


def interrupted(world: Any, steps: int, leave: bool) -> Any:
    """Play *world* to its end, with a crash of the loop after some steps."""
    for _ in range(steps):
        world.step()
    world.crash(leave=leave)
    return world.settle()


def outcome(world: Any) -> tuple[Any, ...]:
    """What must not depend on crashes."""
    run = world.run
    results = Results()
    for event in world.log.stream():
        results.apply(event)
    abandoned = [(x.experiment, x.reason) for x in run.done if x.verdict is None]
    return world.verdicts(), abandoned, run.tip, world.branches, results.tsv(run.tag), run.finished


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 5, 6])  # with 4 the proposer says at once that it has nothing
def test_with_one_slot_a_crash_after_any_step_changes_no_verdict(seed: int, new_world: Any, new_dice: Any) -> None:
    """Every answer in this world depends on what was asked, so asking anything else would show."""

    def begin() -> Any:
        guard = Guard(("pytest",), 60) if seed % 2 else None
        return new_world(new_dice(seed=seed), e.Limits(experiments=6), guard=guard, repair_attempts=2)

    undisturbed = begin()
    steps = 0
    while undisturbed.step():
        steps += 1
    expected = outcome(undisturbed)
    assert len(expected[0]) == 7
    for after in range(1, steps):
        for leave in (False, True):
            assert outcome(interrupted(begin(), after, leave)) == expected, f"crash after step {after}, leave={leave}"
