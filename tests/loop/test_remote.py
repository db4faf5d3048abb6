"""The loop with a proposer far away, as tables: no device waits for it, and its failures stop nothing.

Rows are as in `test_machine`: what is told, what is in flight, and the commands that come next.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from eventstore import events as e
from eventstore import requests as ask
from loop import commands as c

TAG = "nov21"
LATER = "2026-11-01T01:00:00.000000Z"

Tell = Callable[[Any], Any]


@pytest.fixture
def far(new_story: Any) -> Callable[..., Any]:
    """A story whose proposer is Claude; arguments replace fields of the policy."""

    def begin(approval: str = "none", **policy: Any) -> Any:
        story = new_story(**{"proposer": "claude", "remote": True, "repair_attempts": 2, **policy})
        story.approval = approval
        return story

    return begin


@pytest.fixture
def then(short: Callable[[c.Command], str]) -> Callable[..., list[str]]:
    def ask_machine(story: Any, running: str = "") -> list[str]:
        keys = [(verb, TAG, int(number)) for verb, number in (x.split() for x in running.split(", ") if x)]
        return [_named(command, short) for command in story.commands(*keys)]

    return ask_machine


def _named(command: c.Command, short: Callable[[c.Command], str]) -> str:
    """Who is asked belongs to an ask here, and the idea it is given."""
    if not isinstance(command, c.Propose):
        return short(command)
    idea = f" with idea {command.idea}" if command.idea is not None else ""
    return f"{short(command)} by {command.kind}{idea}"


def table(*rows: tuple[str, Tell, str, list[str]]) -> Any:
    return pytest.mark.parametrize(("tell", "running", "expected"), [x[1:] for x in rows], ids=[x[0] for x in rows])


def training_1(story: Any) -> Any:
    return story.measured().proposed(1).prepared(1).training(1)


def crashed_1(story: Any) -> Any:
    return story.measured().proposed(1).prepared(1).crashed(1)


def offline(story: Any, n: int, times: int) -> Any:
    for ask_number in range(times):
        story.asked(n, ask_number).failed(n, "offline", ask_number, retry_at=LATER)
    return story


def switched(story: Any) -> Any:
    return story.tell(e.ProposerSwitched(from_kind="claude", to_kind="sweep", why="offline"))


# ---------------------------------------------------------------- failures from outside


@table(
    ("told to wait", lambda s: offline(training_1(s), 2, 1), "train 1", []),
    ("after the wait", lambda s: at(offline(training_1(s), 2, 1), 60), "train 1", ["propose 2 new, ask 1 by claude"]),
    (
        "nine times in a row do not pause the run",
        lambda s: offline(training_1(s), 2, 9),
        "train 1",
        ["proposer.waiting"],
    ),
    ("the wait is said once", lambda s: waiting(offline(training_1(s), 2, 3)), "train 1", []),
    (
        "its number is kept however often it fails",
        lambda s: at(waiting(offline(training_1(s), 2, 40)), 60),
        "train 1",
        ["propose 2 new, ask 40 by claude"],
    ),
    (
        "an answer that is no good three times gives the number up",
        lambda s: no_good(training_1(s), 2, 3),
        "train 1",
        ["proposer.waiting", "2 is abandoned: no_proposal"],
    ),
)
def test_what_is_asked_after_failures(far: Any, then: Any, tell: Tell, running: str, expected: list[str]) -> None:
    assert then(tell(far()), running) == expected


@table(
    (
        "the third failure brings the sweep in",
        lambda s: offline(training_1(s), 2, 3),
        "train 1",
        ["proposer.switched"],
    ),
    (
        "the sweep takes the number over",
        lambda s: switched(offline(training_1(s), 2, 3)),
        "train 1",
        ["propose 2 new, ask 3 by sweep"],
    ),
    (
        "when the wait is over Claude is tried again",
        lambda s: at(switched(offline(training_1(s), 2, 3)).asked(2, 3, kind="sweep").received(2, 3).prepared(2), 60),
        "train 1, train 2",
        ["propose 3 new, ask 0 by claude"],
    ),
    (
        "while Claude is tried the sweep keeps the device at work",
        lambda s: at(switched(offline(s.measured(), 1, 3)).asked(1, 3), 60),
        "propose 1",
        ["propose 2 new, ask 0 by sweep"],
    ),
    (
        "an answer brings Claude back",
        lambda s: switched(offline(training_1(s), 2, 3)).asked(2, 3).received(2, 3),
        "train 1",
        ["proposer.switched"],
    ),
    (
        "a sweep that is used up leaves only the wait",
        lambda s: switched(offline(training_1(s), 2, 3)).asked(2, 3, kind="sweep").failed(2, "exhausted", 3),
        "train 1",
        ["proposer.waiting", "2 is abandoned: exhausted"],
    ),
)
def test_a_stand_in_takes_over_and_gives_back(
    far: Any, then: Any, tell: Tell, running: str, expected: list[str]
) -> None:
    assert then(tell(far(stand_in="sweep")), running) == expected


def at(story: Any, minute: int) -> Any:
    story.minute = minute
    return story


def waiting(story: Any) -> Any:
    return story.tell(e.ProposerWaiting(kind="claude", failure="offline", why="no line"))


def no_good(story: Any, n: int, times: int) -> Any:
    for ask_number in range(times):
        story.asked(n, ask_number).failed(n, "unparsable", ask_number)
    return story


# ---------------------------------------------------------------- no device waits


@table(
    (
        "the next one is asked for while this one trains",
        training_1,
        "train 1",
        ["propose 2 new, ask 0 by claude"],
    ),
    (
        "a later answer is tried before an earlier one that is not there",
        lambda s: s.measured().asked(1).asked(2).received(2),
        "propose 1",
        ["prepare 2.0 first"],
    ),
    (
        "a crash goes back and the slot goes to the next one",
        lambda s: crashed_1(s).proposed(2),
        "",
        ["propose 1 repair, ask 1 by claude"],
    ),
    (
        "while the repair is made the next one is prepared",
        lambda s: repairing(s).proposed(2),
        "propose 1",
        ["prepare 2.0 first"],
    ),
    (
        "the repair waits for a slot",
        lambda s: repairing(s).proposed(2).prepared(2).training(2).received(1, 1),
        "train 2",
        ["propose 3 new, ask 0 by claude"],
    ),
    (
        "and comes before new ones when there is one",
        lambda s: repairing(s).received(1, 1).proposed(2),
        "",
        ["prepare 1.1 repair"],
    ),
    (
        "a repair is not waited for while the proposer is away",
        lambda s: offline_repair(s, 3),
        "",
        ["1 is crash: crash: it broke"],
    ),
    (
        "a crash that is no slip of the edit is not repaired",
        lambda s: s.measured().proposed(1).prepared(1).training(1).trained_as(1, "timeout"),
        "",
        ["1 is crash: timeout: it broke"],
    ),
)
def test_no_slot_waits_for_an_answer(far: Any, then: Any, tell: Tell, running: str, expected: list[str]) -> None:
    out = then(tell(far()), running)
    assert [command for command in out if not command.startswith("proposer.")][: len(expected)] == expected


def repairing(story: Any) -> Any:
    return crashed_1(story).asked(1, 1, purpose="repair", attempt=1)


def offline_repair(story: Any, times: int) -> Any:
    crashed_1(story)
    for ask_number in range(1, times + 1):
        story.asked(1, ask_number, purpose="repair", attempt=1).failed(1, "offline", ask_number, retry_at=LATER)
    return story


@table(
    ("asked only when the slot is free", training_1, "train 1", []),
    ("the slot is free", lambda s: s.measured(), "", ["propose 1 new, ask 0 by claude"]),
)
def test_with_nothing_ahead(far: Any, then: Any, tell: Tell, running: str, expected: list[str]) -> None:
    assert then(tell(far(ahead=0)), running) == expected


@table(
    ("the device is at work", lambda s: training_1(s).asked(2), "train 1, propose 2", []),
    (
        "nothing is ready",
        lambda s: s.measured().asked(1),
        "propose 1",
        ["propose 2 new, ask 0 by sweep"],
    ),
    (
        "one is coming",
        lambda s: s.measured().asked(1).asked(2, kind="sweep"),
        "propose 1, propose 2",
        [],
    ),
    (
        "it came",
        lambda s: s.measured().asked(1).asked(2, kind="sweep").received(2),
        "propose 1",
        ["prepare 2.0 first"],
    ),
    (
        "no more than the limit of experiments",
        lambda s: s.measured(limits=e.Limits(experiments=1)).asked(1),
        "propose 1",
        [],
    ),
    (
        "the sweep is used up",
        lambda s: s.measured().asked(1).asked(2, kind="sweep").failed(2, "exhausted"),
        "propose 1",
        ["2 is abandoned: exhausted"],
    ),
    (
        "once it is used up it is left alone, and the run goes on",
        lambda s: obey(s.measured().asked(1).asked(2, kind="sweep").failed(2, "exhausted"), ("propose", TAG, 1)),
        "propose 1",
        [],
    ),
)
def test_an_idle_device_is_filled_by_the_sweep(
    far: Any, then: Any, tell: Tell, running: str, expected: list[str]
) -> None:
    assert then(tell(far(stand_in="sweep", fill_idle=True)), running) == expected


def obey(story: Any, *running: c.Key) -> Any:
    story.append([command for command in story.commands(*running) if isinstance(command, c.Append)])
    return story


# ---------------------------------------------------------------- approval


def approve(story: Any, n: int) -> Any:
    return story.ask(ask.approve(story.state, None, n))


@table(
    ("all: it waits, and the next is asked for", lambda s: s.measured().proposed(1), "all", ["propose 2 new, ask 0"]),
    ("all: approved, it is prepared", lambda s: approve(s.measured().proposed(1), 1), "all", ["prepare 1.0 first"]),
    (
        "all: the next approved one goes ahead of the first",
        lambda s: approve(s.measured().proposed(1).proposed(2), 2),
        "all",
        ["prepare 2.0 first"],
    ),
    (
        "all: no more than three wait",
        lambda s: s.measured().proposed(1).proposed(2).proposed(3),
        "all",
        [],
    ),
    (
        "all: rejected, it is abandoned",
        lambda s: s.measured().proposed(1).ask(ask.reject(s.state, None, 1, "no")),
        "all",
        ["1 is abandoned: rejected"],
    ),
    ("first: the first one waits", lambda s: s.measured().proposed(1), "first", ["propose 2 new, ask 0"]),
    (
        "first: once one was approved all go ahead",
        lambda s: approve(s.measured().proposed(1).proposed(2), 2).prepared(2).trained(2, 2.0).decided(2, "discard"),
        "first",
        ["prepare 1.0 first"],
    ),
    (
        "an old edit that a person asked for needs none",
        lambda s: s.measured().asked(1, kind="again", purpose="again", again_of=7).received(1),
        "all",
        ["prepare 1.0 first"],
    ),
    (
        "what the sweep fills in needs none",
        lambda s: s.measured().asked(1, kind="sweep").received(1),
        "all",
        ["prepare 1.0 first"],
    ),
    (
        "a repair of what was approved needs none",
        lambda s: repaired(approve(s.measured().proposed(1), 1)),
        "all",
        ["prepare 1.1 repair"],
    ),
)
def test_what_waits_for_a_person(far: Any, then: Any, tell: Tell, running: str, expected: list[str]) -> None:
    out = then(tell(far(approval=running, stand_in="sweep")))
    assert [command.removesuffix(" by claude") for command in out][: len(expected) or 1] == expected


def repaired(story: Any) -> Any:
    return story.prepared(1).crashed(1).asked(1, 1, purpose="repair", attempt=1).received(1, 1)


# ---------------------------------------------------------------- ideas


def idea(story: Any, text: str) -> Any:
    return story.ask(ask.suggest_idea(story.state, text, "Ada"))


def test_the_oldest_open_idea_goes_with_the_next_ask_and_only_with_one(far: Any, then: Any) -> None:
    story = idea(idea(far(slots=2).measured(), "GeGLU"), "no bias")
    first, second = sorted(story.state.ideas)
    assert then(story) == [
        f"propose 1 new, ask 0 by claude with idea {first}",
        f"propose 2 new, ask 0 by claude with idea {second}",
    ]
    story.asked(1, idea=first)
    assert then(story, "propose 1") == [f"propose 2 new, ask 0 by claude with idea {second}"]
    story.received(1).tell(e.IdeaUsed(idea=first, experiment=1)).asked(2, idea=second)
    story.failed(2, "unparsable")
    assert then(story)[0] == f"propose 2 new, ask 1 by claude with idea {second}"


def test_an_idea_of_which_nothing_came_is_declined_with_its_experiment(far: Any, then: Any) -> None:
    story = idea(far().measured(), "GeGLU")
    (position,) = story.state.ideas
    for number in range(3):
        story.asked(1, number, idea=position).failed(1, "not_python", number)
    assert [command for command in then(story) if not command.startswith("proposer")] == [
        "1 is abandoned: no_proposal",
        "idea.declined",
    ]


def test_a_sweep_is_given_no_ideas(new_story: Any) -> None:
    story = idea(new_story().measured(), "GeGLU")
    assert [command.idea for command in story.commands()] == [None]


# ---------------------------------------------------------------- money


@table(
    ("enough", lambda s: s.measured(limits=e.Limits(usd=5.0)), "", ["propose 1 new, ask 0 by claude"]),
    (
        "what open asks may cost counts as spent",
        lambda s: s.measured(limits=e.Limits(usd=5.0)).asked(1, usd_reserved=5.0),
        "propose 1",
        [],
    ),
    (
        "an ask that cost less gives the rest back",
        lambda s: s.measured(limits=e.Limits(usd=5.0)).asked(1, usd_reserved=5.0).received(1, usd=0.5).prepared(1),
        "train 1",
        ["propose 2 new, ask 0 by claude"],
    ),
    (
        "a crash of the loop spends what was reserved",
        lambda s: s.measured(limits=e.Limits(usd=5.0)).asked(1, usd_reserved=5.0).failed(1, "lost", usd=5.0),
        "",
        ["budget.warned"],
    ),
    (
        "an ask that does not fit into the rest ends the run",
        lambda s: s.measured(limits=e.Limits(usd=5.0)).asked(1).failed(1, "over_budget", usd=0.0),
        "",
        ["1 is abandoned: run_ended", "finished: usd"],
    ),
    (
        "more money, and it goes on",
        lambda s: more(s.measured(limits=e.Limits(usd=5.0)).asked(1).failed(1, "over_budget", usd=0.0)),
        "",
        ["propose 1 new, ask 1 by claude"],
    ),
)
def test_money(far: Any, then: Any, tell: Tell, running: str, expected: list[str]) -> None:
    out = then(tell(far(slots=2, ahead=1) if running == "train 1" else far()), running)
    assert out[: len(expected) or 1] == expected


def more(story: Any) -> Any:
    return story.ask(ask.budget(story.state, None, "usd", 9.0))
