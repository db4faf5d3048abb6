"""The loop's terminal: one short line for what matters, in letters only."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from eventstore import events as e
from eventstore.envelope import Event
from eventstore.projections.run_state import State
from loop.screen import Screen, line_of, proposer_news

AT = "2026-11-21T08:00:00.000000Z"
HOSTILE = "[red]not red[/red] \x1b[2J\x1b]0;title\x07two\nlines \u202e" + "x" * 500


def event(position: int, data: e.Data, actor: str = "loop@box") -> Event:
    return Event(position, f"id-{position}", "nov21", data.TYPE, 1, AT, actor, None, data, b"")


def drawn(data: e.Data, actor: str = "loop@box") -> str:
    out = io.StringIO()
    console = Console(file=out, width=10_000, color_system=None, emoji=False)
    console.print(line_of(event(1, data, actor)), highlight=False)
    return out.getvalue().rstrip("\n")


def failed(failure: str, retry_at: str = "", why: str = "because") -> e.ProposalFailed:
    return e.ProposalFailed(experiment=7, ask=0, failure=failure, why=why, retry_at=retry_at)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (failed("not_python"), "   7  edit breaks the syntax: because"),
        (failed("overloaded", "2026-11-21T08:00:32.500000Z"), "   7  overloaded: because; asked again in 32 s"),
        (failed("stopped"), ""),
        (
            e.ProposerSwitched(from_kind="claude", to_kind="sweep", why="claude failed 3 times"),
            "nov21: sweep proposes instead of claude (claude failed 3 times)",
        ),
        (
            e.ProposerWaiting(kind="claude", failure="offline", why="claude failed 3 times"),
            "nov21 waits for claude: claude failed 3 times",
        ),
        (e.IdeaUsed(idea=12, experiment=7), "   7  uses idea 12"),
        (e.IdeaDeclined(idea=12, experiment=7, why="3 did"), "   7  does not use idea 12: 3 did"),
        (e.ProposalApproved(experiment=7), "   7  approved by loop@box"),
        (e.ProposalRejected(experiment=7, why="too long"), "   7  rejected by loop@box: too long"),
        (e.ProposalRejected(experiment=7), "   7  rejected by loop@box"),
        (e.RunResumed(why="asked"), "nov21 goes on"),
        (e.TrainingRequested(experiment=7, attempt=0, trial=0, slot=0, commit="c", command=("x",), seed=1, budget_s=1,
                             timeout_s=1, nonce="n"), ""),
    ],
)  # fmt: skip
def test_an_event_is_one_line_or_none(data: e.Data, line: str) -> None:
    assert drawn(data) == line


@pytest.mark.parametrize(
    "data",
    [
        failed("not_python", why=HOSTILE),
        failed(HOSTILE),
        e.IdeaDeclined(idea=1, experiment=7, why=HOSTILE),
        e.ProposalRejected(experiment=7, why=HOSTILE),
        e.ProposerSwitched(from_kind=HOSTILE, to_kind="sweep", why=HOSTILE),
        e.ProposerWaiting(kind="claude", failure="offline", why=HOSTILE),
        e.ProposalReceived(experiment=7, ask=0, base_commit="b", description=HOSTILE, edits=()),
        e.ExperimentAbandoned(experiment=7, reason="rejected", why=HOSTILE),
        e.RunFinished(reason="stopped", why=HOSTILE),
    ],
)
def test_what_a_model_wrote_is_one_bounded_line_of_letters(data: e.Data) -> None:
    line = drawn(data)
    assert "[red]not red" in line
    assert not set("\x1b\x07\n\u202e") & set(line)
    assert len(line) < 800


# ---------------------------------------------------------------- approval, trouble


def asking_run(**proposer: Any) -> list[Event]:
    started = e.RunStarted(
        branch="autoresearch/nov21", base_commit="b", settings={"proposer": {"kind": "claude", **proposer}},
        limits=e.Limits(), program_hash="", harness_hash="", settings_hash="", seed=1, host="box", device="cpu",
        sandbox="none", versions={},
    )  # fmt: skip
    asked = e.ProposalRequested(experiment=3, ask=0, kind="claude", purpose="new", base_commit="b", program_hash="")
    came = e.ProposalReceived(experiment=3, ask=0, base_commit="b", description="clip", edits=())
    facts = [e.RunRequested(tag="nov21", from_ref="HEAD", zone="UTC"), started, asked, came]
    return [event(at, data) for at, data in enumerate(facts, 1)]


@pytest.mark.parametrize(("approval", "is_said"), [("all", True), ("none", False)])
def test_a_proposal_that_waits_for_a_person_says_how_to_approve_it(approval: str, is_said: bool) -> None:
    out = io.StringIO()
    state = State()
    screen = Screen(Console(file=out, width=10_000, color_system=None, emoji=False), lambda: 0.0, state=state)
    for one in asking_run(approval=approval):
        state.apply(one)
        screen.on_event(one)
    assert "   3  proposed clip\n" in out.getvalue()
    said = "   3  waits for approval: `nightshift experiment show 3`, then `nightshift experiment approve 3`"
    assert (said in out.getvalue()) is is_said


def test_a_proposer_that_keeps_failing_and_what_waits_are_on_the_live_screen() -> None:
    log = asking_run(approval="all")
    state = State.of(log)
    run = state.runs["nov21"]
    assert [text.plain for text in proposer_news(run)] == [
        "waiting for approval: experiment 3 (nightshift experiment show)"
    ]
    asked = e.ProposalRequested(experiment=4, ask=0, kind="claude", purpose="new", base_commit="b", program_hash="")
    failures = [e.ProposalFailed(experiment=4, ask=ask, failure="offline", why="x") for ask in (0, 1)]
    switched = e.ProposerSwitched(from_kind="claude", to_kind="sweep", why="x")
    for at, data in enumerate([asked, *failures, switched], 5):
        state.apply(event(at, data))
    assert proposer_news(run)[0].plain == "claude: cannot be reached, 2 times in a row, the sweep stands in"
