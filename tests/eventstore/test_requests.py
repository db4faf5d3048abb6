"""What people may ask: each acceptance with its event, each refusal with its sentence."""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstore import events as e
from eventstore import requests as r
from eventstore.envelope import NewEvent
from eventstore.memory import MemoryLog
from eventstore.projections.run_state import State

TAG = "nov21"
AT = "2026-11-21T08:00:00.000000Z"
UNTIL = "2026-11-22T06:30:00.000000Z"
PROGRAM = "# Research\nTry things.\n"

Log = Sequence[tuple[str, e.Data]]
Ask = Callable[[State], r.Answer]


def logged(log: Log) -> tuple[MemoryLog, State]:
    """The log and its state; what goes in has gone through the codec."""
    memory = MemoryLog()
    memory.append([NewEvent(f"id-{i}", run, AT, "cli:ada", data) for i, (run, data) in enumerate(log)])
    return memory, State.of(memory.stream())


# ---------------------------------------------------------------- situations


def of_run(*data: e.Data) -> Log:
    return [(TAG, one) for one in data]


def requested(tag: str = TAG, **fields: Any) -> Log:
    return [(tag, e.RunRequested(tag=tag, from_ref="HEAD", zone="UTC", **fields))]


def started(tag: str = TAG, limits: e.Limits | None = None, **settings: Any) -> Log:
    data = e.RunStarted(
        branch=f"autoresearch/{tag}",
        base_commit="c0",
        settings=settings or {"proposer": {"kind": "scripted", "approval": "all"}},
        limits=limits or e.Limits(),
        program_hash="",
        harness_hash="",
        settings_hash="",
        seed=7,
        host="box",
        device="cpu",
        sandbox="none",
        versions={},
    )
    return [*requested(tag), (tag, data)]


def proposed(n: int) -> Log:
    return of_run(
        e.ProposalRequested(experiment=n, ask=0, kind="scripted", purpose="new", base_commit="c0", program_hash=""),
        e.ProposalReceived(experiment=n, ask=0, base_commit="c0", description=f"idea {n}", edits=()),
    )


def committed(n: int) -> Log:
    before = proposed(n) if n > 0 else []
    return [
        *before,
        *of_run(
            e.ExperimentPrepared(experiment=n, attempt=0, step="first", base_commit="c0", tree="t", subject="s"),
            e.ExperimentCommitted(experiment=n, attempt=0, commit=f"c{n}", tree="t", ref="ref"),
        ),
    ]


def decided(n: int, verdict: e.Verdict, score: float | None = None) -> Log:
    data = e.ExperimentDecided(experiment=n, attempt=0, verdict=verdict, reason="it is so", trials=1, score=score)
    return [*committed(n), (TAG, data)]


def moved(n: int, why: Any = "keep") -> Log:
    return of_run(e.BranchMoved(experiment=n, from_commit="a", to_commit="b", why=why))


def kept(n: int) -> Log:
    return [*decided(n, "keep", 1.0 - n / 100), *moved(n)]


QUEUED = requested()
WITHDRAWN = [*QUEUED, *of_run(e.RunWithdrawn())]
REFUSED = [*QUEUED, *of_run(e.RunRefused(request=1, code="no_base", why="no", remedy="yes"))]
ACTIVE = [*started(), *decided(0, "keep", 1.0)]
STOPPING = [*ACTIVE, *of_run(e.RunStopRequested())]
STOPPING_NOW = [*ACTIVE, *of_run(e.RunStopRequested(mode="now"))]
PAUSING = [*ACTIVE, *of_run(e.RunPauseRequested())]
PAUSING_NOW = [*ACTIVE, *of_run(e.RunPauseRequested(mode="now"))]
PAUSED = [*PAUSING, *of_run(e.RunPaused(why="asked to pause"))]
RESUMING = [*PAUSED, *of_run(e.RunResumeRequested())]
FINISHED = [*ACTIVE, *kept(1), *of_run(e.RunFinished(reason="stopped", why="asked to"))]
LIMITED = started(limits=e.Limits(experiments=9, until=UNTIL, usd=2.5))
NIGHT = [*ACTIVE, *kept(1), *decided(2, "discard", 2.0), *decided(3, "crash"), *kept(4), *committed(5), *proposed(6)]
UNCOMMITTED = [*ACTIVE, *proposed(1), *of_run(e.ExperimentAbandoned(experiment=1, reason="rejected", why="no"))]
PENDING = [*ACTIVE, *decided(1, "keep", 0.5)]
VETOED = [*NIGHT, *of_run(e.KeepVetoed(experiment=4))]
PUT_BACK = [*VETOED, *moved(4, "veto")]
AGAIN = [*NIGHT, *of_run(e.ExperimentRequested(of=2))]
APPROVED = [*NIGHT, *of_run(e.ProposalApproved(experiment=6))]
REJECTED = [*NIGHT, *of_run(e.ProposalRejected(experiment=6, why="no"))]
FREE_TO_GO = [*started(proposer={"kind": "scripted", "approval": "none"}), *decided(0, "keep", 1.0), *proposed(1)]
FIRST_APPROVED = [
    *started(proposer={"kind": "scripted", "approval": "first"}),
    *decided(0, "keep", 1.0),
    *proposed(1),
    *proposed(2),
    *of_run(e.ProposalApproved(experiment=1)),
]
FILLED_IN = [*started(proposer={"kind": "claude", "approval": "all"}), *decided(0, "keep", 1.0), *proposed(1)]
BY_AGENT = started(proposer={"kind": "agent"})
UNPRICED = started(proposer={"kind": "claude"}, claude={"model": "claude-x", "prices": {"claude-y": {}}})
PRICED = started(proposer={"kind": "claude"}, claude={"model": "claude-y", "prices": {"claude-y": {}}})
PROGRAMMED = [("", e.ProgramRecorded(hash=r.text_hash(PROGRAM), text=PROGRAM))]
IDEAS = [("", e.IdeaSuggested(text="try GeGLU"))]


# ---------------------------------------------------------------- acceptances


def row(log: Log, ask: Ask, run: str, data: e.Data) -> tuple[Log, Ask, r.Accepted]:
    return log, ask, r.Accepted(run, data)


ASKED = e.RunRequested(tag=TAG, from_ref="HEAD", zone="UTC")
FULL = e.RunRequested(
    tag=TAG,
    from_ref="main~2",
    zone="Europe/Berlin",
    limits=e.Limits(experiments=80, until=UNTIL, usd=0.5),
    overrides={"objective.rule": "strict"},
    seed=0,
)

ACCEPTED = {
    "start, by default": row([], lambda s: r.start(s, TAG, "UTC"), TAG, ASKED),
    "start, all that can be said": row(
        [],
        lambda s: r.start(
            s,
            TAG,
            "Europe/Berlin",
            from_ref="main~2",
            limits=FULL.limits,
            overrides={"objective.rule": "strict"},
            seed=0,
        ),
        TAG,
        FULL,
    ),
    "start, from nothing": row([], lambda s: r.start(s, TAG, "UTC", from_ref=""), TAG, ASKED),
    "start, longest tag": row(
        [],
        lambda s: r.start(s, "a" * 60, "UTC"),
        "a" * 60,
        e.RunRequested(tag="a" * 60, from_ref="HEAD", zone="UTC"),
    ),
    "start, behind another": row(started("dec1"), lambda s: r.start(s, TAG, "UTC"), TAG, ASKED),
    "start, the tag of a refused run": row(REFUSED, lambda s: r.start(s, TAG, "UTC"), TAG, ASKED),
    "start, the tag of a withdrawn run": row(WITHDRAWN, lambda s: r.start(s, TAG, "UTC"), TAG, ASKED),
    "withdraw": row(QUEUED, lambda s: r.withdraw(s, TAG), TAG, e.RunWithdrawn()),
    "withdraw, a reason is cut": row(
        QUEUED, lambda s: r.withdraw(s, TAG, "x" * 900), TAG, e.RunWithdrawn(why="x" * 500)
    ),
    "stop": row(ACTIVE, lambda s: r.stop(s, TAG), TAG, e.RunStopRequested()),
    "stop, the active one, now": row(ACTIVE, lambda s: r.stop(s, None, "now"), TAG, e.RunStopRequested(mode="now")),
    "stop now, after stop": row(STOPPING, lambda s: r.stop(s, TAG, "now"), TAG, e.RunStopRequested(mode="now")),
    "stop, queued": row(QUEUED, lambda s: r.stop(s, TAG), TAG, e.RunWithdrawn(why="stopped before it started")),
    "stop now, queued": row(
        QUEUED, lambda s: r.stop(s, TAG, "now"), TAG, e.RunWithdrawn(why="stopped before it started")
    ),
    "stop, paused": row(PAUSED, lambda s: r.stop(s, None), TAG, e.RunStopRequested()),
    "pause": row(ACTIVE, lambda s: r.pause(s, None), TAG, e.RunPauseRequested()),
    "pause now": row(ACTIVE, lambda s: r.pause(s, TAG, "now"), TAG, e.RunPauseRequested(mode="now")),
    "pause now, after pause": row(PAUSING, lambda s: r.pause(s, TAG, "now"), TAG, e.RunPauseRequested(mode="now")),
    "resume, paused": row(PAUSED, lambda s: r.resume(s, None), TAG, e.RunResumeRequested()),
    "resume, pausing": row(PAUSING_NOW, lambda s: r.resume(s, TAG), TAG, e.RunResumeRequested()),
    "budget, experiments": row(
        ACTIVE, lambda s: r.budget(s, None, "experiments", 1), TAG, e.BudgetChanged(limit="experiments", new=1)
    ),
    "budget, experiments off": row(
        LIMITED, lambda s: r.budget(s, TAG, "experiments", None), TAG, e.BudgetChanged(limit="experiments", old=9)
    ),
    "budget, until": row(
        ACTIVE, lambda s: r.budget(s, TAG, "until", UNTIL), TAG, e.BudgetChanged(limit="until", new=UNTIL)
    ),
    "budget, until off": row(
        LIMITED, lambda s: r.budget(s, TAG, "until", None), TAG, e.BudgetChanged(limit="until", old=UNTIL)
    ),
    "budget, usd": row(
        LIMITED, lambda s: r.budget(s, TAG, "usd", 10), TAG, e.BudgetChanged(limit="usd", old=2.5, new=10)
    ),
    "budget, usd off": row(
        LIMITED, lambda s: r.budget(s, TAG, "usd", None), TAG, e.BudgetChanged(limit="usd", old=2.5)
    ),
    "budget, queued": row(QUEUED, lambda s: r.budget(s, TAG, "usd", 0.01), TAG, e.BudgetChanged(limit="usd", new=0.01)),
    "budget, usd of a model with a price": row(
        PRICED, lambda s: r.budget(s, None, "usd", 3), TAG, e.BudgetChanged(limit="usd", new=3)
    ),
    "budget, experiments of an agent": row(
        BY_AGENT, lambda s: r.budget(s, None, "experiments", 3), TAG, e.BudgetChanged(limit="experiments", new=3)
    ),
    "reject, what needs no approval": row(
        FREE_TO_GO, lambda s: r.reject(s, None, 1), TAG, e.ProposalRejected(experiment=1)
    ),
    "edit program": row(
        PROGRAMMED,
        lambda s: r.edit_program(s, r.text_hash(PROGRAM), "# New\n"),
        "",
        e.ProgramEdited(base_hash=r.text_hash(PROGRAM), hash=r.text_hash("# New\n"), text="# New\n"),
    ),
    "edit program, the first": row(
        [],
        lambda s: r.edit_program(s, "", PROGRAM),
        "",
        e.ProgramEdited(base_hash="", hash=r.text_hash(PROGRAM), text=PROGRAM),
    ),
    "edit program, the longest": row(
        [],
        lambda s: r.edit_program(s, "", "é" * 100_000),
        "",
        e.ProgramEdited(base_hash="", hash=r.text_hash("é" * 100_000), text="é" * 100_000),
    ),
    "suggest": row(IDEAS, lambda s: r.suggest_idea(s, "  try RoPE\n"), "", e.IdeaSuggested(text="try RoPE")),
    "suggest, for someone": row(
        [], lambda s: r.suggest_idea(s, "x", "Grace"), "", e.IdeaSuggested(text="x", by="Grace")
    ),
    "suggest, the longest": row(
        [], lambda s: r.suggest_idea(s, " " + "x" * 2_000), "", e.IdeaSuggested(text="x" * 2_000)
    ),
    "suggest, once more after it was used": row(
        [*IDEAS, ("", e.IdeaUsed(idea=1, experiment=3))],
        lambda s: r.suggest_idea(s, "try GeGLU"),
        "",
        e.IdeaSuggested(text="try GeGLU"),
    ),
    "withdraw idea": row(IDEAS, lambda s: r.withdraw_idea(s, 1), "", e.IdeaWithdrawn(idea=1)),
    "approve": row(NIGHT, lambda s: r.approve(s, None, 6), TAG, e.ProposalApproved(experiment=6)),
    "reject": row(NIGHT, lambda s: r.reject(s, TAG, 6), TAG, e.ProposalRejected(experiment=6)),
    "reject, a reason is cut": row(
        NIGHT, lambda s: r.reject(s, TAG, 6, "x" * 501), TAG, e.ProposalRejected(experiment=6, why="x" * 500)
    ),
    "veto": row(NIGHT, lambda s: r.veto(s, None, 4, "too big"), TAG, e.KeepVetoed(experiment=4, why="too big")),
    "veto, an earlier keep": row(NIGHT, lambda s: r.veto(s, TAG, 1), TAG, e.KeepVetoed(experiment=1)),
    "veto, before the branch moved": row(PENDING, lambda s: r.veto(s, TAG, 1), TAG, e.KeepVetoed(experiment=1)),
    "veto, a run that is over": row(FINISHED, lambda s: r.veto(s, None, 1), TAG, e.KeepVetoed(experiment=1)),
    "veto, a reason is cut": row(
        NIGHT, lambda s: r.veto(s, TAG, 4, "x" * 501), TAG, e.KeepVetoed(experiment=4, why="x" * 500)
    ),
    "again, a discard": row(NIGHT, lambda s: r.again(s, None, 2), TAG, e.ExperimentRequested(of=2)),
    "again, a crash": row(NIGHT, lambda s: r.again(s, TAG, 3), TAG, e.ExperimentRequested(of=3)),
    "again, a vetoed keep": row(PUT_BACK, lambda s: r.again(s, TAG, 4), TAG, e.ExperimentRequested(of=4)),
    "digest": row(
        [],
        lambda _: r.schedule_digest("#ml", "08:00", "Europe/Berlin"),
        "",
        e.DigestScheduled(channel="#ml", at="08:00", zone="Europe/Berlin"),
    ),
    "digest, now": row([], lambda _: r.request_digest("#ml"), "", e.DigestRequested(channel="#ml")),
    "digest, off": row([], lambda _: r.schedule_digest("#ml", "", "nowhere"), "", e.DigestScheduled(channel="#ml")),
}


@pytest.mark.parametrize(("log", "ask", "answer"), ACCEPTED.values(), ids=ACCEPTED)
def test_a_request_that_stands_is_one_event(log: Log, ask: Ask, answer: r.Accepted) -> None:
    assert ask(logged(log)[1]) == answer


# ---------------------------------------------------------------- refusals

NAMES = "use letters, digits, '.', '_' and '-', such as nov21-gpu0"
ZONES = "use a name such as Europe/Berlin or UTC"
COUNTS = "expected a whole number of at least 1"
KEEPS = "only a keep on the branch can be vetoed"
NO_RUN = "no run is active: name one, `nightshift status` lists them"
CHANGED = "program.md has changed since you read it"
PROGRAM_SHORT = r.text_hash(PROGRAM)[:8]

REFUSALS: dict[str, tuple[Log, Ask, str]] = {
    "start, no tag": ([], lambda s: r.start(s, "", "UTC"), "a run needs a tag, such as nov21"),
    "start, long tag": (
        [],
        lambda s: r.start(s, "a" * 61, "UTC"),
        "the tag is 61 characters long, at most 60 are allowed",
    ),
    "start, no name": ([], lambda s: r.start(s, "a b", "UTC"), f"the tag 'a b' is not a name: {NAMES}"),
    "start, zone": ([], lambda s: r.start(s, TAG, "Mars/Olympus"), f"'Mars/Olympus' is not a time zone: {ZONES}"),
    "start, limit": (
        [],
        lambda s: r.start(s, TAG, "UTC", limits=e.Limits(experiments=0)),
        f"experiments: got 0, {COUNTS}",
    ),
    "start, second limit": (
        [],
        lambda s: r.start(s, TAG, "UTC", limits=e.Limits(experiments=1, until="8pm")),
        "until: got '8pm', expected a time in UTC",
    ),
    "start, third limit": (
        [],
        lambda s: r.start(s, TAG, "UTC", limits=e.Limits(usd=0.0)),
        "usd: got 0.0, expected an amount above 0",
    ),
    "start, queued": (QUEUED, lambda s: r.start(s, TAG, "UTC"), "the run nov21 exists (queued): choose another tag"),
    "start, active": (ACTIVE, lambda s: r.start(s, TAG, "UTC"), "the run nov21 exists (active): choose another tag"),
    "start, over": (FINISHED, lambda s: r.start(s, TAG, "UTC"), "the run nov21 exists (finished): choose another tag"),
    "withdraw, none": ([], lambda s: r.withdraw(s, TAG), "there is no run 'nov21': `nightshift status`"),
    "withdraw, near": (QUEUED, lambda s: r.withdraw(s, "nov2"), "there is no run 'nov2': did you mean nov21?"),
    "withdraw, active": (
        ACTIVE,
        lambda s: r.withdraw(s, TAG),
        "the run nov21 is active: only a queued run can be withdrawn",
    ),
    "stop, none": ([], lambda s: r.stop(s, None), NO_RUN),
    "stop, none is active": (QUEUED, lambda s: r.stop(s, None), NO_RUN),
    "stop, over": (FINISHED, lambda s: r.stop(s, TAG), "the run nov21 is finished already"),
    "stop, withdrawn": (WITHDRAWN, lambda s: r.stop(s, TAG), "the run nov21 is withdrawn already"),
    "stop, stopping": (STOPPING, lambda s: r.stop(s, None), "the run nov21 is stopping already"),
    "stop now, stopping now": (STOPPING_NOW, lambda s: r.stop(s, None, "now"), "the run nov21 is stopping already"),
    "stop, stopping now": (STOPPING_NOW, lambda s: r.stop(s, None), "the run nov21 is stopping already"),
    "pause, none": ([], lambda s: r.pause(s, None), NO_RUN),
    "pause, queued": (QUEUED, lambda s: r.pause(s, TAG), "the run nov21 is queued: it has not started"),
    "pause, refused": (REFUSED, lambda s: r.pause(s, TAG), "the run nov21 is refused: it has not started"),
    "pause, over": (FINISHED, lambda s: r.pause(s, TAG), "the run nov21 is finished already"),
    "pause, paused": (PAUSED, lambda s: r.pause(s, None, "now"), "the run nov21 is paused already"),
    "pause, pausing": (PAUSING, lambda s: r.pause(s, None), "the run nov21 is pausing already"),
    "pause, pausing now": (PAUSING_NOW, lambda s: r.pause(s, None), "the run nov21 is pausing already"),
    "resume, unknown": (ACTIVE, lambda s: r.resume(s, "zzz"), "there is no run 'zzz': `nightshift status`"),
    "resume, active": (ACTIVE, lambda s: r.resume(s, None), "the run nov21 is not paused"),
    "resume, stopping": (
        [*PAUSED, *of_run(e.RunStopRequested())],
        lambda s: r.resume(s, None),
        "the run nov21 is stopping already",
    ),
    "resume, resuming": (RESUMING, lambda s: r.resume(s, None), "the run nov21 is resuming already"),
    "budget, none": ([], lambda s: r.budget(s, None, "usd", 1), NO_RUN),
    "budget, over": (
        FINISHED,
        lambda s: r.budget(s, TAG, "usd", 1),
        "the run nov21 is finished: its limits no longer matter",
    ),
    "budget, experiments 0": (ACTIVE, lambda s: r.budget(s, None, "experiments", 0), f"experiments: got 0, {COUNTS}"),
    "budget, experiments 1.5": (
        ACTIVE,
        lambda s: r.budget(s, None, "experiments", 1.5),
        f"experiments: got 1.5, {COUNTS}",
    ),
    "budget, experiments True": (
        ACTIVE,
        lambda s: r.budget(s, None, "experiments", True),
        f"experiments: got True, {COUNTS}",
    ),
    "budget, until 7": (ACTIVE, lambda s: r.budget(s, None, "until", 7), "until: got 7, expected a time in UTC"),
    "budget, until never was": (
        ACTIVE,
        lambda s: r.budget(s, None, "until", "2026-02-30T08:00:00.000000Z"),
        "until: got '2026-02-30T08:00:00.000000Z', expected a time in UTC",
    ),
    "budget, usd '5'": (ACTIVE, lambda s: r.budget(s, None, "usd", "5"), "usd: got '5', expected an amount above 0"),
    "budget, usd -1": (ACTIVE, lambda s: r.budget(s, None, "usd", -1), "usd: got -1, expected an amount above 0"),
    "budget, usd True": (ACTIVE, lambda s: r.budget(s, None, "usd", True), "usd: got True, expected an amount above 0"),
    "budget, usd infinite": (
        ACTIVE,
        lambda s: r.budget(s, None, "usd", float("inf")),
        "usd: got inf, expected an amount above 0",
    ),
    "budget, usd not a number": (
        ACTIVE,
        lambda s: r.budget(s, None, "usd", float("nan")),
        "usd: got nan, expected an amount above 0",
    ),
    "budget, the same": (
        LIMITED,
        lambda s: r.budget(s, None, "experiments", 9),
        "the limit experiments of nov21 is 9 already",
    ),
    "budget, off already": (ACTIVE, lambda s: r.budget(s, None, "usd", None), "the limit usd of nov21 is off already"),
    "edit program, empty": (
        PROGRAMMED,
        lambda s: r.edit_program(s, r.text_hash(PROGRAM), " \n"),
        "program.md would be empty: write what to research",
    ),
    "edit program, too long": (
        PROGRAMMED,
        lambda s: r.edit_program(s, r.text_hash(PROGRAM), "é" * 100_000 + "\n"),
        "program.md would be 200001 bytes, at most 200000 are allowed",
    ),
    "edit program, someone was first": (
        PROGRAMMED,
        lambda s: r.edit_program(s, "f" * 64, "new"),
        f"{CHANGED} (it was ffffffff, it is {PROGRAM_SHORT}): read it again and edit that",
    ),
    "edit program, seen none": (
        PROGRAMMED,
        lambda s: r.edit_program(s, "", "new"),
        f"{CHANGED} (it was none, it is {PROGRAM_SHORT}): read it again and edit that",
    ),
    "edit program, there is none": (
        [],
        lambda s: r.edit_program(s, "f" * 64, "new"),
        f"{CHANGED} (it was ffffffff, it is none): read it again and edit that",
    ),
    "edit program, no change": (
        PROGRAMMED,
        lambda s: r.edit_program(s, r.text_hash(PROGRAM), PROGRAM),
        "program.md has this text already",
    ),
    "suggest, empty": ([], lambda s: r.suggest_idea(s, "\n "), "the idea is empty: say what to try"),
    "suggest, too long": (
        [],
        lambda s: r.suggest_idea(s, "x" * 2_001),
        "the idea is 2001 characters long, at most 2000 are allowed",
    ),
    "suggest, the same": (IDEAS, lambda s: r.suggest_idea(s, "try GeGLU "), "this idea is in the queue already"),
    "withdraw idea, none": (
        IDEAS,
        lambda s: r.withdraw_idea(s, 2),
        "there is no open idea 2: `nightshift idea list` shows them",
    ),
    "budget, usd of an agent": (
        BY_AGENT,
        lambda s: r.budget(s, None, "usd", 3),
        "a limit of money for nov21 could not be kept: nobody knows what an agent's command costs",
    ),
    "budget, usd of a model without a price": (
        UNPRICED,
        lambda s: r.budget(s, None, "usd", 3),
        "a limit of money for nov21 could not be kept: the model 'claude-x' has no price in nightshift.toml",
    ),
    "approve, no approval in this run": (
        FREE_TO_GO,
        lambda s: r.approve(s, None, 1),
        "the proposal of experiment 1 needs no approval: it starts when a device is free",
    ),
    "approve, one was approved": (
        FIRST_APPROVED,
        lambda s: r.approve(s, None, 2),
        "the proposal of experiment 2 needs no approval: it starts when a device is free",
    ),
    "approve, filled in by another proposer": (
        FILLED_IN,
        lambda s: r.approve(s, None, 1),
        "the proposal of experiment 1 needs no approval: it starts when a device is free",
    ),
    "approve, no run": ([], lambda s: r.approve(s, None, 1), NO_RUN),
    "approve, none": (NIGHT, lambda s: r.approve(s, None, 9), "experiment 9 of nov21 has no proposal that waits"),
    "approve, in hand": (NIGHT, lambda s: r.approve(s, None, 5), "experiment 5 of nov21 has no proposal that waits"),
    "approve, approved": (
        APPROVED,
        lambda s: r.approve(s, None, 6),
        "the proposal of experiment 6 is approved already",
    ),
    "reject, no run": ([], lambda s: r.reject(s, None, 1), NO_RUN),
    "reject, approved": (APPROVED, lambda s: r.reject(s, None, 6), "the proposal of experiment 6 is approved already"),
    "reject, rejected": (REJECTED, lambda s: r.reject(s, None, 6), "the proposal of experiment 6 is rejected already"),
    "reject, over": (FINISHED, lambda s: r.reject(s, TAG, 6), "the run nov21 is finished already"),
    "veto, no run": (QUEUED, lambda s: r.veto(s, None, 1), "no run has started yet: `nightshift start TAG` starts one"),
    "veto, unknown run": (QUEUED, lambda s: r.veto(s, "zzz", 1), "there is no run 'zzz': `nightshift status`"),
    "veto, queued": (QUEUED, lambda s: r.veto(s, TAG, 1), "the run nov21 is queued: it has not started"),
    "veto, baseline": (
        NIGHT,
        lambda s: r.veto(s, None, 0),
        "experiment 0 is the baseline: there is nothing before it to go back to",
    ),
    "veto, discard": (NIGHT, lambda s: r.veto(s, None, 2), f"experiment 2 of nov21 is a discard: {KEEPS}"),
    "veto, crash": (NIGHT, lambda s: r.veto(s, None, 3), f"experiment 3 of nov21 is a crash: {KEEPS}"),
    "veto, undecided": (NIGHT, lambda s: r.veto(s, None, 5), f"experiment 5 of nov21 has no verdict yet: {KEEPS}"),
    "veto, abandoned": (
        UNCOMMITTED,
        lambda s: r.veto(s, None, 1),
        f"experiment 1 of nov21 is a withdrawn experiment: {KEEPS}",
    ),
    "veto, put back": (
        PUT_BACK,
        lambda s: r.veto(s, None, 4),
        f"experiment 4 of nov21 is off the branch already: {KEEPS}",
    ),
    "veto, vetoed": (VETOED, lambda s: r.veto(s, None, 4), "experiment 4 of nov21 is vetoed already"),
    "again, no run": ([], lambda s: r.again(s, None, 1), "no run has started yet: `nightshift start TAG` starts one"),
    "again, over": (FINISHED, lambda s: r.again(s, None, 1), "the run nov21 is over: start a run from its branch"),
    "again, baseline": (
        NIGHT,
        lambda s: r.again(s, None, 0),
        "experiment 0 is the baseline: it has no edit to take up",
    ),
    "again, undecided": (
        NIGHT,
        lambda s: r.again(s, None, 5),
        "experiment 5 of nov21 is not over: wait for its verdict",
    ),
    "again, never committed": (
        UNCOMMITTED,
        lambda s: r.again(s, None, 1),
        "experiment 1 of nov21 was never committed: there is no edit to take up",
    ),
    "again, kept": (NIGHT, lambda s: r.again(s, None, 4), "experiment 4 of nov21 is on the branch already"),
    "again, kept before the branch moved": (
        PENDING,
        lambda s: r.again(s, None, 1),
        "experiment 1 of nov21 is on the branch already",
    ),
    "again, asked": (AGAIN, lambda s: r.again(s, None, 2), "experiment 2 of nov21 is waiting to be taken up already"),
    "digest, no channel": ([], lambda _: r.schedule_digest("", "08:00", "UTC"), "a digest needs a channel"),
    "digest, 24:00": (
        [],
        lambda _: r.schedule_digest("#ml", "24:00", "UTC"),
        "'24:00' is not a time of day: write it as 08:00",
    ),
    "digest, 8:00": (
        [],
        lambda _: r.schedule_digest("#ml", "8:00", "UTC"),
        "'8:00' is not a time of day: write it as 08:00",
    ),
    "digest, other digits": (
        [],
        lambda _: r.schedule_digest("#ml", "0٨:00", "UTC"),
        "'0٨:00' is not a time of day: write it as 08:00",
    ),
    "digest, zone": ([], lambda _: r.schedule_digest("#ml", "08:00", ""), f"'' is not a time zone: {ZONES}"),
}


@pytest.mark.parametrize(("log", "ask", "why"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_is_one_sentence_that_says_what_is_in_the_way(log: Log, ask: Ask, why: str) -> None:
    assert ask(logged(log)[1]) == r.Refused(why)


def test_the_newest_run_that_is_over_is_meant_only_while_none_is_active() -> None:
    state = logged([*FINISHED, *started("dec1")])[1]
    assert r.veto(state, None, 1) == r.Refused(f"experiment 1 of dec1 has no verdict yet: {KEEPS}")
    assert isinstance(r.veto(state, TAG, 1), r.Accepted)


# ---------------------------------------------------------------- names and zones


def git_takes(tag: str) -> bool:
    command = ["git", "check-ref-format", "--branch", f"autoresearch/{tag}"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@given(
    st.text("aZ09._-/@{~^:?*[\\ \x7f\té", min_size=1, max_size=8)
    | st.from_regex(r"[aZ0._-]{1,9}(\.lock)?", fullmatch=True)
)
@settings(max_examples=150, deadline=None)  # each a process of git, 2 ms
def test_a_tag_that_is_accepted_names_a_branch_for_git(tag: str) -> None:
    assert r.tag_problem(tag) is not None or git_takes(tag)


@pytest.mark.parametrize(
    "tag",
    [
        "a..b",
        "a.",
        "a.lock",
        ".a",
        "a b",
        "a/b",
        "a~1",
        "a^",
        "a:b",
        "a?",
        "a*",
        "a[",
        "a\\b",
        "a@{1}",
        "a\n",
        "-a",
        "é",
    ],
)
def test_a_tag_that_git_or_a_shell_could_read_otherwise_is_refused(tag: str) -> None:
    assert r.tag_problem(tag) == f"the tag {tag!r} is not a name: {NAMES}"


@given(st.text() | st.text("UTCeurop/._\0\udc80", max_size=20))
def test_no_text_is_too_odd_to_be_judged_as_a_zone(zone: str) -> None:
    assert r.zone_problem(zone) in (None, f"{zone!r} is not a time zone: {ZONES}")


# ---------------------------------------------------------------- anything, asked of anything

SITUATIONS: tuple[Log, ...] = (
    [],
    QUEUED,
    WITHDRAWN,
    REFUSED,
    ACTIVE,
    STOPPING,
    STOPPING_NOW,
    PAUSING,
    PAUSING_NOW,
    PAUSED,
    RESUMING,
    FINISHED,
    [*LIMITED, *IDEAS],
    [*PROGRAMMED, *NIGHT],
    PENDING,
    VETOED,
    PUT_BACK,
    AGAIN,
    [*FINISHED, *started("dec1")],
)

tags = st.sampled_from([None, TAG, "dec1", "nov22"])
numbers = st.integers(0, 7)
modes = st.sampled_from(["after_experiment", "now"])
counts = st.sampled_from([None, -3, 0, 1, 9, 2.5, True, "x"])
untils = st.sampled_from([None, UNTIL, AT, "2026-13-01T08:00:00.000000Z", "8pm", 5])
amounts = st.sampled_from([None, -1, 0.0, 3, 2.5, True, float("nan"), float("inf"), "5"])
texts = st.sampled_from(["", " ", "try GeGLU", PROGRAM, "x" * 501, "x" * 2_001])


def of(function: Callable[..., r.Answer], *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Ask]:
    return st.tuples(*arguments).map(lambda values: lambda state: function(state, *values))


def start_with(state: State, tag: str, zone: str, *limits: Any) -> r.Answer:
    return r.start(state, tag, zone, limits=e.Limits(experiments=limits[0], until=limits[1], usd=limits[2]))


def edit_seeing(state: State, seen: bool, text: str) -> r.Answer:
    return r.edit_program(state, state.program_hash if seen else "f" * 64, text)


asks = st.one_of(
    of(start_with, st.sampled_from([TAG, "dec1", "a b", ""]), st.sampled_from(["UTC", "x"]), counts, untils, amounts),
    of(start_with, st.sampled_from([TAG, "dec1"]), st.just("UTC"), st.none(), st.none(), st.none()),
    of(r.withdraw, st.sampled_from([TAG, "dec1"]), texts),
    of(r.stop, tags, modes),
    of(r.pause, tags, modes),
    of(r.resume, tags),
    of(r.budget, tags, st.just("experiments"), counts),
    of(r.budget, tags, st.just("until"), untils),
    of(r.budget, tags, st.just("usd"), amounts),
    of(edit_seeing, st.booleans(), texts),
    of(r.suggest_idea, texts, st.sampled_from(["", "Grace"])),
    of(r.withdraw_idea, st.integers(0, 5)),
    of(r.approve, tags, numbers),
    of(r.reject, tags, numbers, texts),
    of(r.veto, tags, numbers, texts),
    of(r.again, tags, numbers),
    of(lambda _, channel: r.request_digest(channel), st.sampled_from(["", "#ml"])),
    of(lambda _, *rest: r.schedule_digest(*rest), *map(st.sampled_from, (["", "#ml"], ["", "08:00"], ["UTC", ""]))),
)


def took_hold(state: State, tag: str, data: e.Data) -> bool:
    """Whether the event of a request, the last one folded, has changed what was asked for."""
    run, at = state.runs.get(tag), state.position
    match data:
        case e.ProgramEdited(hash=new):
            return (state.program_hash, state.program_at) == (new, at)
        case e.IdeaSuggested():
            return state.ideas[at] == data
        case e.IdeaWithdrawn(idea=idea):
            return idea not in state.ideas
        case e.DigestRequested():
            return True
        case e.DigestScheduled(channel=channel):
            return state.digests.get(channel) == (data if data.at else None)
    assert run is not None
    match data:
        case e.RunRequested():
            return (run.status, run.request, run.requested_at, state.queue[-1]) == ("queued", data, at, tag)
        case e.RunWithdrawn():
            return run.status == "withdrawn" and tag not in state.queue
        case e.RunStopRequested(mode=mode):
            return (run.stop, run.stop_at) == (mode, at)
        case e.RunPauseRequested(mode=mode):
            return (run.pause, run.pause_at) == (mode, at)
        case e.RunResumeRequested():
            return run.pause is None and run.resume_at == (at if run.status == "paused" else 0)
        case e.BudgetChanged(limit=limit, old=old, new=new):
            return getattr(run.limits, limit) == new != old
        case e.ProposalApproved(experiment=n):
            return run.experiments[n].approved
        case e.ProposalRejected(experiment=n, why=why):
            return (run.experiments[n].rejected, run.experiments[n].rejected_at) == (why, at)
        case e.KeepVetoed(experiment=n):
            return run.vetoes[n] == at
        case e.ExperimentRequested(of=n):
            return run.agains[n] == at
    raise AssertionError(f"{data.TYPE} is no request")


@given(st.sampled_from(SITUATIONS), st.lists(asks, min_size=1, max_size=6))
@settings(deadline=None)
def test_whatever_is_asked_is_refused_or_takes_hold_and_then_need_not_be_asked_again(
    log: Log, asked: list[Ask]
) -> None:
    """An accepted event can be stored, changes what it should and no other run, and is not accepted twice in a row."""
    memory, state = logged(log)
    for ask in asked:
        answer = ask(state)
        if isinstance(answer, r.Refused):
            assert answer.why
            assert "\n" not in answer.why
            continue
        others = copy.deepcopy({tag: run for tag, run in state.runs.items() if tag != answer.run})
        event = NewEvent(f"asked-{state.position}", answer.run, AT, "cli:ada", answer.data)
        memory.append([event], expected=state.position)
        for stored in memory.read(state.position):
            state.apply(stored)
        assert took_hold(state, answer.run, answer.data)
        assert {tag: run for tag, run in state.runs.items() if tag != answer.run} == others
        assert isinstance(answer.data, e.DigestScheduled | e.DigestRequested) or isinstance(ask(state), r.Refused)
