"""The loop as tables: events so far, what is in flight, and the commands that come next.

A row tells a log event by event. What is in flight is written as the commands are: "train 1, propose 2";
an open intent that is not named there is the orphan of a crash.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from eventstore import events as e
from eventstore import requests as ask
from eventstore.projections.run_state import State
from loop import commands as c
from loop import decide as d
from loop.policy import Guard, Policy

TAG = "nov21"
GUARD = Guard(("pytest",), 60)
NOON = "2026-11-01T12:00:00.000000Z"

Tell = Callable[[Any], Any]
Then = Callable[..., list[str]]


@pytest.fixture
def then(short: Callable[[c.Command], str]) -> Then:
    """The next commands of a story in short, with what is in flight given in words."""

    def ask_machine(story: Any, running: str = "") -> list[str]:
        keys = [key_of(words) for words in running.split(", ") if words]
        return [short(command) for command in story.commands(*keys)]

    return ask_machine


def key_of(words: str) -> c.Key:
    """ "train 1", "cancel train 1", "move" or "start TAG" as the key of an effect."""
    verb, _, rest = words.partition(" ")
    if verb == "cancel":
        return ("cancel", *key_of(rest))
    if verb == "start":
        return ("start", rest)
    return (verb, TAG, int(rest)) if rest else (verb, TAG)


def table(*rows: tuple[str, Tell, str, list[str]]) -> Any:
    """Rows of: what is told, the events, what is in flight, the next commands."""
    return pytest.mark.parametrize(("tell", "running", "expected"), [x[1:] for x in rows], ids=[x[0] for x in rows])


# ---------------------------------------------------------------- parts of a story


def pause(story: Any, mode: e.StopMode = "after_experiment") -> Any:
    return story.ask(ask.pause(story.state, None, mode))


def stop(story: Any, mode: e.StopMode = "after_experiment") -> Any:
    return story.ask(ask.stop(story.state, None, mode))


def resume(story: Any) -> Any:
    return story.ask(ask.resume(story.state, None))


def resumed(story: Any) -> Any:
    return resume(story).tell(e.RunResumed(why="asked to go on"))


def paused(story: Any, why: str = "asked to pause") -> Any:
    return story.tell(e.RunPaused(why=why))


def finished(story: Any) -> Any:
    return story.tell(e.RunFinished(reason="stopped", why="stopped"))


def veto(story: Any, n: int, tag: str | None = None) -> Any:
    return story.ask(ask.veto(story.state, tag, n))


def moved_back(story: Any, n: int) -> Any:
    index = next(i for i, keep in enumerate(story.run.keeps) if keep.experiment == n)
    target = story.run.keeps[index - 1].commit
    return story.tell(e.BranchMoved(experiment=n, from_commit=story.run.tip, to_commit=target, why="veto"))


def again(story: Any, n: int) -> Any:
    return story.ask(ask.again(story.state, None, n))


def reject(story: Any, n: int) -> Any:
    return story.ask(ask.reject(story.state, None, n, "no"))


def withdraw(story: Any, tag: str) -> Any:
    return story.ask(ask.withdraw(story.state, tag))


def budget(story: Any, limit: Any, value: Any) -> Any:
    return story.ask(ask.budget(story.state, None, limit, value))


def obey(story: Any) -> Any:
    """Append the facts that the machine orders."""
    story.append([command for command in story.commands() if isinstance(command, c.Append)])
    return story


def discarded(story: Any, n: int) -> Any:
    return story.proposed(n).prepared(n).trained(n, 2.0).decided(n, "discard", 2.0)


def in_the_middle(story: Any) -> Any:
    """Experiment 1 is trained and 2 is asked for."""
    return story.measured().proposed(1).prepared(1).training(1).asked(2)


def repair_asked(story: Any, n: int = 1, nth: int = 1) -> Any:
    return story.asked(n, nth, purpose="repair", attempt=nth, base_commit="crashed")


def crashed_1(story: Any) -> Any:
    return story.measured().proposed(1).prepared(1).crashed(1)


def stopped_at_noon(story: Any) -> Any:
    story.measured(limits=e.Limits(until=NOON)).proposed(1).prepared(1).training(1)
    story.minute = 12 * 60
    return story


def noticed(story: Any, *kinds: Any) -> Any:
    for kind in kinds:
        story.add("", e.TroubleNoticed(kind=kind, what="trouble", since=NOON))
    return story


def refused(story: Any) -> Any:
    return story.tell(e.RunRefused(request=story.run.requested_at, code="branch_exists", why="it is there", remedy="x"))


def failed_thrice(story: Any, before: Tell = lambda s: s, then_do: Tell = lambda s: s, first: int = 1) -> Any:
    """Two asks of one experiment and one of the next come to nothing."""
    story = before(story.measured()).asked(first).failed(first, "overloaded").asked(first, 1)
    story = obey(story.failed(first, "overloaded", 1)).asked(first + 1).failed(first + 1, "overloaded")
    return then_do(story)


def repaired(story: Any, nth: int) -> Any:
    """A repair came, was put on the tip and crashed."""
    return repair_asked(story, 1, nth).received(1, nth).prepared(1, nth, "repair").crashed(1)


def repair_failed_twice(story: Any) -> Any:
    repair_asked(crashed_1(story).proposed(2)).failed(1, "overloaded", 1)
    return repair_asked(story, 1, 2).failed(1, "overloaded", 2)


def two_slots(new_story: Any, **policy: Any) -> Any:
    """1 and 2 train on the same tip; 3 and 4 wait."""
    story = new_story(slots=2, **policy).measured().proposed(1).proposed(2).prepared(1).prepared(2)
    return story.proposed(3).proposed(4).training(1, slot=0).training(2, slot=1)


def both_trained(story: Any) -> Any:
    return story.trained_as(2, "scored").trained_as(1, "scored").scoring(1).scoring(2)


def overtaken_once(story: Any) -> Any:
    return both_trained(story).score_came(2, 0.8).score_came(1, 0.7).decided(2, score=0.8).moved(2)


# ---------------------------------------------------------------- the baseline


@table(
    ("nothing is asked for", lambda s: s, "", []),
    ("started", lambda s: s.started(), "", ["prepare 0.0 first"]),
    ("being prepared", lambda s: s.started(), "prepare 0", []),
    ("prepared", lambda s: s.started().only_prepared(0), "", ["commit 0.0", "propose 1 new, ask 0"]),
    ("being committed", lambda s: s.started().only_prepared(0).asked(1), "commit 0, propose 1", []),
    ("committed", lambda s: s.started().prepared(0).asked(1), "propose 1", ["train 0.0.0 on 0"]),
    ("being trained", lambda s: s.started().prepared(0).training(0).asked(1), "train 0, propose 1", []),
    ("1 waits for its verdict", lambda s: s.started().prepared(0).training(0).proposed(1), "train 0", []),
    ("trained", lambda s: s.started().prepared(0).crashed(0, "scored").proposed(1), "", ["score 0.0.0"]),
    ("being scored", lambda s: s.started().prepared(0).crashed(0, "scored").scoring(0).proposed(1), "score 0", []),
    ("scored", lambda s: s.started().prepared(0).trained(0, 1.0).proposed(1), "", ["0 is keep: baseline"]),
    ("decided", lambda s: s.measured().proposed(1), "", ["prepare 1.0 first", "propose 2 new, ask 0"]),
    ("crashed", lambda s: s.started().prepared(0).crashed(0), "", ["0 is crash: crash: it broke"]),
    ("too slow", lambda s: s.started().prepared(0).crashed(0, "timeout"), "", ["0 is crash: timeout: it broke"]),
    (
        "decided crash",
        lambda s: s.started().prepared(0).crashed(0).decided(0, "crash"),
        "",
        ["finished: baseline_failed"],
    ),
    (
        "crashed while 1 is asked for",
        lambda s: s.started().prepared(0).crashed(0).decided(0, "crash").asked(1),
        "propose 1",
        ["cancel propose 1"],
    ),
    (
        "crashed with 1 in the queue",
        lambda s: s.started().prepared(0).crashed(0).proposed(1).decided(0, "crash"),
        "",
        ["1 is abandoned: run_ended", "finished: baseline_failed"],
    ),
    (
        "lost once",
        lambda s: s.started().prepared(0).crashed(0, "lost").asked(1),
        "propose 1",
        ["train 0.0.0 on 0"],
    ),
    (
        "lost twice",
        lambda s: s.started().prepared(0).crashed(0, "lost").crashed(0, "lost"),
        "",
        ["0 is abandoned: lost_twice"],
    ),
    (
        "given up",
        lambda s: obey(s.started().prepared(0).crashed(0, "lost").crashed(0, "lost")),
        "",
        ["finished: baseline_failed"],
    ),
)
def test_the_baseline(tell: Tell, running: str, expected: list[str], new_story: Any, then: Then) -> None:
    assert then(tell(new_story(repair_attempts=2)), running) == expected


@table(
    ("scored", lambda s: s.started().prepared(0).trained(0, 1.0).proposed(1), "", ["guard 0.0"]),
    ("guarded", lambda s: s.started().prepared(0).trained(0, 1.0).proposed(1).guarding(0), "guard 0", []),
    (
        "passed",
        lambda s: s.started().prepared(0).trained(0, 1.0).guarding(0).guarded(0, "passed", 0),
        "",
        ["0 is keep: baseline"],
    ),
    (
        "failed",
        lambda s: s.started().prepared(0).trained(0, 1.0).guarding(0).guarded(0, "failed", 3),
        "",
        ["0 is crash: guard failed with exit code 3"],
    ),
    (
        "too slow",
        lambda s: s.started().prepared(0).trained(0, 1.0).guarding(0).guarded(0, "timeout"),
        "",
        ["0 is crash: guard timed out"],
    ),
    (
        "decided",
        lambda s: obey(s.started().prepared(0).trained(0, 1.0).guarding(0).guarded(0, "failed", 3)),
        "",
        ["finished: baseline_failed"],
    ),
)
def test_a_baseline_needs_its_guard(tell: Tell, running: str, expected: list[str], new_story: Any, then: Then) -> None:
    assert then(tell(new_story(guard=GUARD)), running) == expected


def test_the_baseline_is_the_base_itself_and_moves_nothing(new_world: Any) -> None:
    world = new_world().until("experiment.decided")
    before = dict(world.branches)
    world.until("experiment.prepared", experiment=1)
    assert world.branches == before == {TAG: "base-nov21"}
    assert not [x for x in world.log.stream() if x.type == "branch.moved"]
    assert world.run.tip == world.run.keeps[0].commit == "base-nov21"


@pytest.mark.parametrize("broken", [{"outcomes": {(0, 0): "crash"}}, {"guards": {0: "failed"}}])
def test_a_failed_baseline_ends_the_run_with_one_crash(broken: Any, new_world: Any, new_fate: Any) -> None:
    world = new_world(new_fate(**broken), guard=GUARD).settle()
    assert [(n, verdict, score) for n, verdict, score, _ in world.verdicts()] == [(0, "crash", None)]
    assert world.run.finished.reason == "baseline_failed"
    assert not [x for x in world.log.stream() if x.type == "branch.moved"]


# ---------------------------------------------------------------- what a crash of the loop leaves open


@table(
    ("proposal requested", lambda s: s.measured().asked(1), "", ["proposal 1 failed: lost"]),
    ("its answer was lost", lambda s: s.measured().asked(1).failed(1, "lost"), "", ["propose 1 new, ask 0"]),
    (
        "second ask lost",
        lambda s: s.measured().asked(1).failed(1, "overloaded").asked(1, 1).failed(1, "lost", 1),
        "",
        ["propose 1 new, ask 1"],
    ),
    (
        "repair asked for",
        lambda s: repair_asked(crashed_1(s)).proposed(2),
        "",
        ["proposal 1 failed: lost"],
    ),
    (
        "repair lost",
        lambda s: repair_asked(crashed_1(s)).proposed(2).failed(1, "lost", 1),
        "",
        ["propose 1 repair, ask 1"],
    ),
    (
        "proposal there, not prepared",
        lambda s: s.measured().proposed(1),
        "",
        ["prepare 1.0 first", "propose 2 new, ask 0"],
    ),
    ("being prepared", lambda s: s.measured().proposed(1), "prepare 1", ["propose 2 new, ask 0"]),
    ("prepared, not committed", lambda s: s.measured().proposed(1).only_prepared(1).proposed(2), "", ["commit 1.0"]),
    ("committed, not trained", lambda s: s.measured().proposed(1).prepared(1).proposed(2), "", ["train 1.0.0 on 0"]),
    (
        "training started",
        lambda s: s.measured().proposed(1).prepared(1).training(1).proposed(2),
        "",
        ["close training 1.0.0"],
    ),
    ("being closed", lambda s: s.measured().proposed(1).prepared(1).training(1).proposed(2), "close 1", []),
    (
        "training lost",
        lambda s: s.measured().proposed(1).prepared(1).crashed(1, "lost").proposed(2),
        "",
        ["train 1.0.0 on 0"],
    ),
    (
        "its task is not gathered yet",
        lambda s: s.measured().proposed(1).prepared(1).crashed(1, "lost").proposed(2),
        "train 1",
        [],
    ),
    (
        "training stopped",
        lambda s: s.measured().proposed(1).prepared(1).crashed(1, "stopped").proposed(2),
        "",
        ["train 1.0.0 on 0"],
    ),
    (
        "lost and stopped is lost once",
        lambda s: s.measured().proposed(1).prepared(1).crashed(1, "lost").crashed(1, "stopped").proposed(2),
        "",
        ["train 1.0.0 on 0"],
    ),
    (
        "training lost twice",
        lambda s: s.measured().proposed(1).prepared(1).crashed(1, "lost").crashed(1, "lost").proposed(2),
        "",
        ["1 is abandoned: lost_twice"],
    ),
    (
        "after that",
        lambda s: obey(s.measured().proposed(1).prepared(1).crashed(1, "lost").crashed(1, "lost").proposed(2)),
        "",
        ["prepare 2.0 first", "propose 3 new, ask 0"],
    ),
    (
        "trained, not scored",
        lambda s: s.measured().proposed(1).prepared(1).crashed(1, "scored").proposed(2),
        "",
        ["score 1.0.0"],
    ),
    (
        "scoring requested",
        lambda s: s.measured().proposed(1).prepared(1).crashed(1, "scored").scoring(1).proposed(2),
        "",
        ["score 1.0.0 again"],
    ),
    (
        "scored, no verdict",
        lambda s: s.measured().proposed(1).prepared(1).trained(1, 0.9).proposed(2),
        "",
        ["1 is keep: better by 0.1"],
    ),
    (
        "keep decided, branch not moved",
        lambda s: s.measured().proposed(1).prepared(1).trained(1, 0.9).proposed(2).decided(1, score=0.9),
        "",
        ["move branch, keep 1"],
    ),
    ("moved, its task is not gathered yet", lambda s: s.measured().kept(1, 0.9), "move", ["propose 2 new, ask 0"]),
    ("vetoed, branch not moved", lambda s: veto(s.measured().kept(1, 0.9).proposed(2), 1), "", ["move branch, veto 1"]),
    ("run requested", lambda s: s.requested(), "", [f"start {TAG}"]),
)
def test_an_orphan_is_closed_or_taken_up_again(
    tell: Tell, running: str, expected: list[str], new_story: Any, then: Then
) -> None:
    assert then(tell(new_story(repair_attempts=2)), running) == expected


def test_an_orphaned_guard_runs_again_under_the_same_request(new_story: Any, then: Then) -> None:
    story = new_story(guard=GUARD).started().prepared(0).trained(0, 1.0).decided(0, score=1.0)
    story.proposed(1).prepared(1).trained(1, 0.9).proposed(2).guarding(1)
    assert then(story, "guard 1") == []
    assert then(story) == ["guard 1.0 again"]
    (command,) = story.commands()
    assert command.request == command.cause == story.state.position


def test_an_orphaned_scoring_runs_again_under_the_same_request(new_story: Any) -> None:
    story = new_story().measured().proposed(1).prepared(1).crashed(1, "scored").proposed(2).scoring(1)
    (command,) = story.commands()
    assert command.request == command.cause == story.state.position


def test_a_lost_ask_costs_what_was_reserved_and_asks_the_same_question_again(new_story: Any) -> None:
    """The second ask has the first one's base, and is shown the verdicts that the first was shown."""
    story = new_story().measured().proposed(1).prepared(1).trained(1, 0.9).asked(2, usd_reserved=0.5)
    asked_at, base = story.state.position, story.run.tip
    story.decided(1, score=0.9).moved(1)
    lost = story.commands()[0]
    assert isinstance(lost.data, e.ProposalFailed)
    assert (lost.cause, lost.data.ask, lost.data.usd) == (asked_at, 0, 0.5)
    story = obey(story)
    assert story.run.usd == 0.5
    (again,) = story.commands()
    assert (again.experiment, again.ask, again.base_commit, again.known_at) == (2, 0, base, asked_at)
    assert base != story.run.tip


def test_a_lost_ask_is_closed_under_its_own_number(new_story: Any) -> None:
    (lost,) = new_story().measured().asked(1).failed(1, "overloaded").asked(1, 1).commands()
    assert (lost.data.failure, lost.data.ask) == ("lost", 1)


def test_a_failed_ask_is_a_new_question_on_todays_tip(new_story: Any) -> None:
    story = new_story().measured().proposed(1).prepared(1).trained(1, 0.9).asked(2)
    story.decided(1, score=0.9).moved(1).failed(2, "overloaded")
    (command,) = story.commands()
    assert (command.experiment, command.ask, command.base_commit, command.known_at) == (2, 1, story.run.tip, 0)


def test_a_training_is_closed_under_its_nonce_and_trained_again_as_the_same_trial(new_story: Any) -> None:
    story = new_story().measured().proposed(1).prepared(1).proposed(2).training(1)
    trial = story.run.experiments[1].last
    (close,) = story.commands()
    assert (close.nonce, close.cause) == (trial.nonce, trial.open_at)
    story.trained_as(1, "lost")
    (train,) = story.commands()
    assert (train.attempt, train.trial, train.cause) == (0, 0, story.state.position)


def test_a_branch_is_moved_from_the_tip_to_the_keep(new_story: Any) -> None:
    story = new_story().measured().proposed(1).prepared(1).trained(1, 0.9).decided(1, score=0.9)
    keep = story.run.pending_keep
    assert story.commands() == [c.MoveBranch(TAG, 1, "base", keep.commit, "keep", keep.decided_at)]


def test_a_run_is_taken_up_where_a_crash_left_it_whatever_that_was(new_story: Any) -> None:
    """The state of a log and what is next depend on the events alone, not on the process that wrote them."""
    story = in_the_middle(new_story())
    fresh = new_story()
    fresh.state = State.of(story.log.stream())
    assert fresh.commands() == story.commands()


# ---------------------------------------------------------------- limits


@table(
    (
        "one of one in the queue",
        lambda s: s.measured(limits=e.Limits(experiments=1)).proposed(1),
        "",
        ["prepare 1.0 first"],
    ),
    (
        "one of one in hand",
        lambda s: s.measured(limits=e.Limits(experiments=1)).proposed(1).prepared(1),
        "",
        ["train 1.0.0 on 0"],
    ),
    (
        "one of one decided",
        lambda s: discarded(s.measured(limits=e.Limits(experiments=1)), 1),
        "",
        ["finished: experiments"],
    ),
    (
        "kept, the branch comes first",
        lambda s: obey(s.measured(limits=e.Limits(experiments=1)).proposed(1).prepared(1).trained(1, 0.9)),
        "",
        ["move branch, keep 1"],
    ),
    (
        "an abandoned one does not count",
        lambda s: obey(reject(s.measured(limits=e.Limits(experiments=1)).proposed(1), 1)),
        "",
        ["propose 2 new, ask 0"],
    ),
    (
        "lowered while 2 is in hand and 3 waits",
        lambda s: (
            budget(discarded(s.measured(limits=e.Limits(experiments=9)), 1).proposed(2).prepared(2), "experiments", 1)
            .proposed(3)
            .trained(2, 2.0)
            .decided(2, "discard", 2.0)
        ),
        "",
        ["3 is abandoned: run_ended", "finished: experiments"],
    ),
    (
        "raised at the last moment",
        lambda s: budget(discarded(s.measured(limits=e.Limits(experiments=1)), 1), "experiments", 2),
        "",
        ["propose 2 new, ask 0"],
    ),
)
def test_the_limit_of_experiments(tell: Tell, running: str, expected: list[str], new_story: Any, then: Then) -> None:
    assert then(tell(new_story()), running) == expected


def test_no_new_experiment_begins_once_its_time_is_up(new_story: Any, then: Then) -> None:
    story = new_story().measured(limits=e.Limits(until=NOON)).proposed(1).prepared(1).training(1).asked(2)
    story.minute = 12 * 60 - 1
    assert then(story, "train 1, propose 2") == []
    story.minute += 1
    assert then(story, "train 1, propose 2") == ["cancel propose 2"]
    assert then(story, "train 1, propose 2, cancel propose 2") == []
    story.failed(2, "stopped")
    assert then(story, "train 1") == []
    story.trained_as(1, "scored").scored(1, 2.0)
    assert then(story) == ["1 is discard: worse by 1"]
    assert then(obey(story)) == ["2 is abandoned: run_ended", "finished: until"]


def test_money_is_warned_of_once_at_four_fifths_and_ends_the_run_when_spent(new_story: Any, then: Then) -> None:
    story = new_story().measured(limits=e.Limits(usd=10.0)).asked(1).received(1, usd=7.5).prepared(1).training(1)
    story.asked(2).received(2, usd=0.4)
    assert then(story, "train 1") == []
    story.failed(2, "edit_does_not_apply", usd=0.1)
    assert then(story, "train 1") == ["budget.warned", "propose 2 new, ask 1"]
    warned = story.commands(("train", TAG, 1))[0]
    assert warned.data == e.BudgetWarned(limit="usd", share=0.8)
    assert warned.cause == story.state.position
    story.tell(warned.data)
    assert then(story, "train 1") == ["propose 2 new, ask 1"]
    story.asked(2, 1).received(2, 1, usd=2.0)
    assert then(story, "train 1") == []
    story.trained_as(1, "scored").scored(1, 2.0)
    assert then(obey(story)) == ["2 is abandoned: run_ended", "finished: usd"]


def test_a_new_budget_is_warned_of_anew(new_story: Any, then: Then) -> None:
    story = new_story().measured(limits=e.Limits(usd=10.0)).asked(1).received(1, usd=9.0).prepared(1).training(1)
    story.proposed(2).tell(e.BudgetWarned(limit="usd", share=0.9))
    assert then(story, "train 1") == []
    assert then(budget(story, "usd", 20.0), "train 1") == []
    assert then(budget(story, "usd", 11.0), "train 1") == ["budget.warned"]


@table(
    ("the baseline passes", lambda s: s.measured(1.0), "", ["finished: passed"]),
    ("the baseline does not", lambda s: s.measured(0.0), "", ["propose 1 new, ask 0"]),
    (
        "1 passes",
        lambda s: s.measured(0.0).proposed(1).prepared(1).trained(1, 1.0).proposed(2),
        "",
        ["1 is keep: passes"],
    ),
    ("1 has passed", lambda s: s.measured(0.0).kept(1, 1.0), "", ["finished: passed"]),
    (
        "1 has passed and 2 is asked for",
        lambda s: s.measured(0.0).kept(1, 1.0).asked(2),
        "propose 2",
        ["cancel propose 2"],
    ),
    (
        "1 does not pass",
        lambda s: s.measured(0.0).proposed(1).prepared(1).trained(1, 0.0).proposed(2),
        "",
        ["1 is discard: does not pass"],
    ),
)
def test_direction_pass_ends_at_the_first_score_of_one(
    tell: Tell, running: str, expected: list[str], new_story: Any, then: Then
) -> None:
    assert then(tell(new_story(direction="pass")), running) == expected


@table(
    ("it says so", lambda s: s.measured().asked(1).failed(1, "exhausted"), "", ["1 is abandoned: exhausted"]),
    ("nothing is left", lambda s: obey(s.measured().asked(1).failed(1, "exhausted")), "", ["finished: exhausted"]),
    (
        "1 is in hand",
        lambda s: obey(s.measured().proposed(1).prepared(1).training(1).asked(2).failed(2, "exhausted")),
        "train 1",
        [],
    ),
    (
        "an old edit is taken up all the same",
        lambda s: again(obey(discarded(s.measured(), 1).asked(2).failed(2, "exhausted")), 1),
        "",
        ["propose 3 again of 1, ask 0"],
    ),
)
def test_an_exhausted_proposer_ends_the_run_after_what_is_left(
    tell: Tell, running: str, expected: list[str], new_story: Any, then: Then
) -> None:
    assert then(tell(new_story()), running) == expected


# ---------------------------------------------------------------- pause and resume


@table(
    ("one trains, one is asked for", lambda s: pause(in_the_middle(s)), "train 1, propose 2", []),
    ("the answer waits", lambda s: pause(in_the_middle(s).received(2)), "train 1", []),
    ("no ask is made again", lambda s: pause(in_the_middle(s).failed(2, "overloaded")), "train 1", []),
    ("a score is fetched", lambda s: pause(in_the_middle(s).received(2).trained_as(1, "scored")), "", ["score 1.0.0"]),
    (
        "a verdict is given",
        lambda s: pause(in_the_middle(s).received(2).trained_as(1, "scored").scored(1, 0.9)),
        "",
        ["1 is keep: better by 0.1"],
    ),
    (
        "the branch is moved",
        lambda s: obey(pause(in_the_middle(s).received(2).trained_as(1, "scored").scored(1, 0.9))),
        "",
        ["move branch, keep 1"],
    ),
    (
        "nothing is in hand",
        lambda s: obey(pause(in_the_middle(s).received(2).trained_as(1, "scored").scored(1, 0.9))).moved(1),
        "",
        ["paused: asked to pause"],
    ),
    (
        "what is committed is trained",
        lambda s: pause(s.measured().proposed(1).only_prepared(1).committed(1).proposed(2)),
        "",
        ["train 1.0.0 on 0"],
    ),
    ("before the baseline", lambda s: pause(s.started()), "", ["paused: asked to pause"]),
    (
        "taken back",
        lambda s: resume(pause(in_the_middle(s).failed(2, "overloaded"))),
        "train 1",
        ["propose 2 new, ask 1"],
    ),
    ("a repair is asked for", lambda s: pause(crashed_1(s)), "", ["propose 1 repair, ask 1"]),
    (
        "the last experiment was decided: the run ends",
        lambda s: pause(discarded(s.measured(limits=e.Limits(experiments=1)), 1)),
        "",
        ["finished: experiments"],
    ),
)
def test_pause_after_experiment_finishes_what_is_in_hand(
    tell: Tell, running: str, expected: list[str], new_story: Any, then: Then
) -> None:
    assert then(tell(new_story(repair_attempts=1)), running) == expected


@table(
    (
        "all is cut off",
        lambda s: pause(in_the_middle(s), "now"),
        "train 1, propose 2",
        ["cancel propose 2", "cancel train 1"],
    ),
    (
        "once",
        lambda s: pause(in_the_middle(s), "now"),
        "train 1, propose 2, cancel train 1, cancel propose 2",
        [],
    ),
    (
        "one has ended",
        lambda s: pause(in_the_middle(s), "now").failed(2, "stopped"),
        "train 1, cancel train 1",
        [],
    ),
    (
        "all have ended",
        lambda s: pause(in_the_middle(s), "now").failed(2, "stopped").trained_as(1, "stopped"),
        "",
        ["paused: asked to pause"],
    ),
    (
        "scoring",
        lambda s: pause(in_the_middle(s).received(2).trained_as(1, "scored").scoring(1), "now"),
        "score 1",
        ["cancel score 1"],
    ),
    (
        "not scored yet",
        lambda s: pause(in_the_middle(s).received(2).trained_as(1, "scored"), "now"),
        "",
        ["paused: asked to pause"],
    ),
    (
        "a score has come: its verdict needs no work",
        lambda s: pause(in_the_middle(s).received(2).trained_as(1, "scored").scored(1, 0.9), "now"),
        "",
        ["1 is keep: better by 0.1"],
    ),
    (
        "nor does the branch",
        lambda s: obey(pause(in_the_middle(s).received(2).trained_as(1, "scored").scored(1, 0.9), "now")),
        "",
        ["move branch, keep 1"],
    ),
    (
        "an attempt is committed, not trained",
        lambda s: pause(s.measured().proposed(1).only_prepared(1).proposed(2), "now"),
        "",
        ["commit 1.0"],
    ),
    (
        "and paused then",
        lambda s: pause(s.measured().proposed(1).prepared(1).proposed(2), "now"),
        "",
        ["paused: asked to pause"],
    ),
    ("a crash is repaired later", lambda s: pause(crashed_1(s), "now"), "", ["paused: asked to pause"]),
    (
        "nothing is in hand at its end",
        lambda s: pause(discarded(s.measured(limits=e.Limits(experiments=1)), 1), "now"),
        "",
        ["finished: experiments"],
    ),
    (
        "cut off by its end too: paused first",
        lambda s: pause(stopped_at_noon(s), "now").trained_as(1, "stopped"),
        "",
        ["paused: asked to pause"],
    ),
)
def test_pause_now_cuts_off_what_is_in_flight(
    tell: Tell, running: str, expected: list[str], new_story: Any, then: Then
) -> None:
    assert then(tell(new_story(repair_attempts=1)), running) == expected


def test_the_cause_of_a_pause_is_its_request_if_there_was_one(new_story: Any) -> None:
    story = pause(new_story().measured())
    assert story.commands()[0].cause == story.state.position
    assert failed_thrice(new_story(asks_max=2, failures_max=3)).commands()[0].cause is None


@table(
    ("nothing moves", lambda s: paused(in_the_middle(s).trained_as(1, "stopped").failed(2, "stopped")), "", []),
    (
        "asked to go on",
        lambda s: resume(paused(in_the_middle(s).trained_as(1, "stopped").failed(2, "stopped"))),
        "",
        ["run.resumed"],
    ),
    (
        "resumed",
        lambda s: resumed(paused(in_the_middle(s).trained_as(1, "stopped").failed(2, "stopped"))),
        "",
        ["propose 2 new, ask 0", "train 1.0.0 on 0"],
    ),
    (
        "a veto waits",
        lambda s: veto(paused(s.measured().kept(1, 0.9)), 1),
        "",
        [],
    ),
    (
        "and is served then",
        lambda s: resumed(veto(paused(s.measured().kept(1, 0.9)), 1)),
        "",
        ["move branch, veto 1"],
    ),
    (
        "so is a keep whose branch stood elsewhere",
        lambda s: resumed(paused(s.measured().proposed(1).prepared(1).trained(1, 0.9).decided(1, score=0.9))),
        "",
        ["move branch, keep 1"],
    ),
    (
        "a full disk is cleared by the one who goes on",
        lambda s: resume(paused(noticed(s.measured(), "disk", "api"))),
        "",
        ["trouble.cleared", "run.resumed"],
    ),
    (
        "its time is up meanwhile",
        lambda s: resumed(paused(stopped_at_noon(s).trained_as(1, "stopped"))),
        "",
        ["train 1.0.0 on 0"],
    ),
)
def test_a_paused_run_waits_until_someone_resumes_it(
    tell: Tell, running: str, expected: list[str], new_story: Any, then: Then
) -> None:
    assert then(tell(new_story()), running) == expected


# ---------------------------------------------------------------- stop


@table(
    ("asks are cut off", lambda s: stop(in_the_middle(s)), "train 1, propose 2", ["cancel propose 2"]),
    ("once", lambda s: stop(in_the_middle(s)), "train 1, propose 2, cancel propose 2", []),
    ("the training goes on", lambda s: stop(in_the_middle(s).received(2)), "train 1", []),
    (
        "so does its score",
        lambda s: stop(in_the_middle(s).received(2).trained_as(1, "scored")),
        "",
        ["score 1.0.0"],
    ),
    (
        "its verdict and its branch",
        lambda s: obey(stop(in_the_middle(s).received(2).trained_as(1, "scored").scored(1, 0.9))),
        "",
        ["move branch, keep 1"],
    ),
    (
        "then the run ends",
        lambda s: obey(stop(in_the_middle(s).received(2).trained_as(1, "scored").scored(1, 0.9))).moved(1),
        "",
        ["2 is abandoned: run_ended", "finished: stopped"],
    ),
    ("a crash is not repaired", lambda s: stop(crashed_1(s)), "", ["1 is crash: crash: it broke"]),
    (
        "nor is a repair tried that has come",
        lambda s: stop(repair_asked(crashed_1(s)).received(1, 1)),
        "",
        ["1 is crash: crash: it broke"],
    ),
    (
        "one that is being prepared comes first",
        lambda s: stop(repair_asked(crashed_1(s)).received(1, 1)),
        "prepare 1",
        [],
    ),
    ("before the baseline", lambda s: stop(s.started()), "", ["finished: stopped"]),
    (
        "while it is paused",
        lambda s: stop(paused(s.measured().proposed(1))),
        "",
        ["1 is abandoned: run_ended", "finished: stopped"],
    ),
    (
        "paused at once: the training is cut off too",
        lambda s: pause(stop(in_the_middle(s)), "now"),
        "train 1, propose 2",
        ["cancel propose 2", "cancel train 1"],
    ),
    (
        "and has no verdict",
        lambda s: pause(stop(in_the_middle(s)), "now").failed(2, "stopped").trained_as(1, "stopped"),
        "",
        ["1 is abandoned: run_ended", "2 is abandoned: run_ended", "finished: stopped"],
    ),
)
def test_stop_after_experiment_finishes_what_is_in_hand(
    tell: Tell, running: str, expected: list[str], new_story: Any, then: Then
) -> None:
    assert then(tell(new_story(repair_attempts=1)), running) == expected


@table(
    (
        "all is cut off",
        lambda s: stop(in_the_middle(s), "now"),
        "train 1, propose 2",
        ["cancel propose 2", "cancel train 1"],
    ),
    (
        "once",
        lambda s: stop(in_the_middle(s), "now"),
        "train 1, propose 2, cancel propose 2",
        ["cancel train 1"],
    ),
    (
        "a commit in flight is waited for",
        lambda s: stop(s.measured().proposed(1).only_prepared(1), "now"),
        "commit 1",
        [],
    ),
    (
        "all have ended",
        lambda s: stop(in_the_middle(s), "now").failed(2, "stopped").trained_as(1, "stopped"),
        "",
        ["1 is abandoned: run_ended", "2 is abandoned: run_ended", "finished: stopped"],
    ),
    (
        "a training that ended well has no verdict either",
        lambda s: stop(in_the_middle(s), "now").failed(2, "stopped").trained_as(1, "scored"),
        "",
        ["1 is abandoned: run_ended", "2 is abandoned: run_ended", "finished: stopped"],
    ),
    (
        "orphans are closed",
        lambda s: stop(in_the_middle(s), "now"),
        "",
        ["close training 1.0.0", "proposal 2 failed: lost"],
    ),
    (
        "an orphaned scoring",
        lambda s: stop(in_the_middle(s).received(2).trained_as(1, "scored").scoring(1), "now"),
        "",
        ["scoring 1 stopped"],
    ),
    (
        "once closed",
        lambda s: obey(stop(in_the_middle(s).received(2).trained_as(1, "scored").scoring(1), "now")),
        "",
        ["1 is abandoned: run_ended", "2 is abandoned: run_ended", "finished: stopped"],
    ),
    (
        "a guard in flight",
        lambda s: stop(in_the_middle(s).received(2).trained_as(1, "scored").scored(1, 0.9).guarding(1), "now"),
        "guard 1",
        ["cancel guard 1"],
    ),
    (
        "an orphaned guard",
        lambda s: stop(in_the_middle(s).received(2).trained_as(1, "scored").scored(1, 0.9).guarding(1), "now"),
        "",
        ["guard 1 stopped"],
    ),
    (
        "a keep that was decided comes onto the branch",
        lambda s: stop(
            in_the_middle(s).received(2).trained_as(1, "scored").scored(1, 0.9).decided(1, score=0.9), "now"
        ),
        "",
        ["move branch, keep 1"],
    ),
    (
        "it is being moved",
        lambda s: stop(
            in_the_middle(s).received(2).trained_as(1, "scored").scored(1, 0.9).decided(1, score=0.9), "now"
        ),
        "move",
        [],
    ),
    (
        "someone else holds the branch",
        lambda s: stop(paused(s.measured().proposed(1).prepared(1).trained(1, 0.9).decided(1, score=0.9)), "now"),
        "",
        ["finished: stopped"],
    ),
    ("after a softer stop", lambda s: stop(stop(in_the_middle(s)), "now"), "train 1", ["cancel train 1"]),
)
def test_stop_now_cuts_off_all_abandons_and_ends(
    tell: Tell, running: str, expected: list[str], new_story: Any, then: Then
) -> None:
    assert then(tell(new_story()), running) == expected


def test_a_finished_run_orders_nothing(new_story: Any, then: Then) -> None:
    assert then(finished(in_the_middle(new_story()))) == []


# ---------------------------------------------------------------- the queue of runs


@table(
    ("one waits", lambda s: s.requested(), "", [f"start {TAG}"]),
    ("it is being started", lambda s: s.requested(), f"start {TAG}", []),
    ("two wait: the first asked for", lambda s: s.requested("b").requested(), "", ["start b"]),
    ("one at a time", lambda s: s.requested("b").requested(), "start b", []),
    ("one is active", lambda s: s.started().requested("b"), "prepare 0", []),
    ("a paused run is active too", lambda s: paused(s.started().requested("b")), "", []),
    ("the first is over", lambda s: finished(s.started().requested("b")), "", ["start b"]),
    ("the second was withdrawn", lambda s: finished(withdraw(s.started().requested("b"), "b")), "", []),
    (
        "the third is next",
        lambda s: finished(withdraw(s.started().requested("b").requested("c"), "b")),
        "",
        ["start c"],
    ),
    ("refused", lambda s: refused(s.requested()), "", []),
    ("the next one after a refused one", lambda s: refused(s.requested()).requested("b"), "", ["start b"]),
    ("refused, asked for again", lambda s: refused(s.requested()).requested(), "", [f"start {TAG}"]),
    ("withdrawn while it was being started", lambda s: withdraw(s.requested(), TAG), f"start {TAG}", []),
    (
        "the next one waits for that",
        lambda s: withdraw(s.requested().requested("b"), TAG),
        f"start {TAG}",
        [],
    ),
)
def test_one_run_is_active_and_the_others_wait(
    tell: Tell, running: str, expected: list[str], new_story: Any, then: Then
) -> None:
    assert then(tell(new_story()), running) == expected


def test_a_run_withdrawn_too_late_ends_at_once(new_world: Any) -> None:
    """Its branch was being taken when the person took it back, so its start and its end are both on record."""
    world = new_world()
    world.turn()
    withdraw(world, TAG)
    world.settle()
    assert [x.type for x in world.log.stream()] == ["run.requested", "run.withdrawn", "run.started", "run.finished"]


def test_runs_are_carried_out_in_the_order_in_which_they_were_asked_for(new_world: Any) -> None:
    world = new_world(limits=e.Limits(experiments=1))
    world.requested("b", e.Limits(experiments=1)).requested("c", e.Limits(experiments=1))
    withdraw(world, "b")
    world.settle()
    marks = [(x.run, x.type) for x in world.log.stream() if x.type in ("run.started", "run.finished")]
    assert marks == [(tag, what) for tag in (TAG, "c") for what in ("run.started", "run.finished")]


# ---------------------------------------------------------------- proposals that fail, and repairs


@table(
    ("one ask failed", lambda s: s.measured().asked(1).failed(1, "overloaded"), "", ["propose 1 new, ask 1"]),
    ("its task is not gathered yet", lambda s: s.measured().asked(1).failed(1, "overloaded"), "propose 1", []),
    ("it is being asked again", lambda s: s.measured().asked(1).failed(1, "overloaded").asked(1, 1), "propose 1", []),
    (
        "the edit does not apply",
        lambda s: s.measured().proposed(1).failed(1, "edit_does_not_apply"),
        "",
        ["propose 1 new, ask 1"],
    ),
    (
        "asks_max failed",
        lambda s: s.measured().asked(1).failed(1, "overloaded").asked(1, 1).failed(1, "no_answer", 1),
        "",
        ["1 is abandoned: no_proposal"],
    ),
    (
        "then another number",
        lambda s: obey(s.measured().asked(1).failed(1, "overloaded").asked(1, 1).failed(1, "no_answer", 1)),
        "",
        ["propose 2 new, ask 0"],
    ),
    (
        "lost asks do not count",
        lambda s: s.measured().asked(1).failed(1, "lost").asked(1).failed(1, "lost").asked(1).failed(1, "stopped"),
        "",
        ["propose 1 new, ask 0"],
    ),
    (
        "failures_max in a row",
        failed_thrice,
        "",
        ["paused: the proposer failed 3 times in a row: see `nightshift log tail`"],
    ),
    (
        "what is in hand is finished first",
        lambda s: failed_thrice(s, lambda s: s.proposed(1).prepared(1).training(1), first=2),
        "train 1",
        [],
    ),
    ("resumed, it is asked again", lambda s: resumed(paused(failed_thrice(s))), "", ["propose 2 new, ask 1"]),
    (
        "a prepared one in between breaks the row",
        lambda s: failed_thrice(s, then_do=lambda s: s.asked(2, 1).received(2, 1).prepared(2).training(2)),
        "train 2",
        ["propose 3 new, ask 0"],
    ),
)
def test_a_failed_proposal_is_asked_again_a_few_times(
    tell: Tell, running: str, expected: list[str], new_story: Any, then: Then
) -> None:
    assert then(tell(new_story(asks_max=2, failures_max=3)), running) == expected


@table(
    ("crashed", lambda s: crashed_1(s).proposed(2), "", ["propose 1 repair, ask 1"]),
    ("being repaired", lambda s: repair_asked(crashed_1(s)).proposed(2), "propose 1", []),
    (
        "2 does not take its slot",
        lambda s: repair_asked(crashed_1(s)).proposed(2).received(1, 1),
        "",
        ["prepare 1.1 repair"],
    ),
    (
        "prepared",
        lambda s: repair_asked(crashed_1(s)).proposed(2).received(1, 1).prepared(1, 1, "repair"),
        "",
        ["train 1.1.0 on 0"],
    ),
    (
        "crashed again",
        lambda s: repair_asked(crashed_1(s)).proposed(2).received(1, 1).prepared(1, 1, "repair").crashed(1),
        "",
        ["propose 1 repair, ask 2"],
    ),
    (
        "crashed a third time",
        lambda s: repaired(repaired(crashed_1(s).proposed(2), 1), 2),
        "",
        ["1 is crash: crash: it broke"],
    ),
    (
        "the repair does not apply",
        lambda s: repair_asked(crashed_1(s)).proposed(2).received(1, 1).failed(1, "edit_does_not_apply", 1),
        "",
        ["propose 1 repair, ask 2"],
    ),
    (
        "the proposer fails",
        lambda s: repair_asked(crashed_1(s)).proposed(2).failed(1, "overloaded", 1),
        "",
        ["propose 1 repair, ask 2"],
    ),
    (
        "its task is not gathered yet",
        lambda s: repair_asked(crashed_1(s)).proposed(2).failed(1, "overloaded", 1),
        "propose 1",
        [],
    ),
    (
        "the proposer gave up: paused with the repair to come",
        repair_failed_twice,
        "",
        ["paused: the proposer failed 2 times in a row: see `nightshift log tail`"],
    ),
    ("resumed", lambda s: resumed(paused(repair_failed_twice(s))), "", ["propose 1 repair, ask 3"]),
    (
        "asks_max failed",
        lambda s: repair_asked(resumed(paused(repair_failed_twice(s))), 1, 3).failed(1, "overloaded", 3),
        "",
        ["1 is crash: crash: it broke"],
    ),
    (
        "the proposer cannot repair",
        lambda s: repair_asked(crashed_1(s)).proposed(2).failed(1, "no_repair", 1),
        "",
        ["1 is crash: crash: it broke"],
    ),
    (
        "a person rejects the repair",
        lambda s: reject(repair_asked(crashed_1(s)).proposed(2).received(1, 1), 1),
        "",
        ["1 is crash: crash: it broke"],
    ),
    *(
        (
            f"{outcome} is an answer",
            lambda s, outcome=outcome: s.measured().proposed(1).prepared(1).crashed(1, outcome).proposed(2),
            "",
            [f"1 is crash: {outcome}: it broke"],
        )
        for outcome in ("oom", "timeout", "diverged", "no_metric", "tampered", "refused_operator")
    ),
)
def test_a_crash_goes_back_to_the_proposer_a_few_times(
    tell: Tell, running: str, expected: list[str], new_story: Any, then: Then
) -> None:
    assert then(tell(new_story(repair_attempts=2, asks_max=3, failures_max=2)), running) == expected


def test_a_repair_is_shown_the_commit_that_crashed(new_story: Any) -> None:
    story = crashed_1(new_story(repair_attempts=1)).proposed(2)
    (command,) = story.commands()
    crashed = story.run.experiments[1].committed.commit
    assert (command.attempt, command.base_commit, command.cause) == (
        1,
        crashed,
        story.run.experiments[1].last.finished_at,
    )


def test_a_lost_repair_is_asked_for_with_the_same_knowledge_and_a_failed_one_with_todays(new_story: Any) -> None:
    story = repair_asked(crashed_1(new_story(repair_attempts=1)).proposed(2))
    asked_at = story.state.position
    (same,) = story.failed(1, "lost", 1).commands()
    assert (same.ask, same.known_at, same.cause) == (1, asked_at, story.state.position)
    (other,) = repair_asked(story).failed(1, "overloaded", 1).commands()
    assert (other.ask, other.known_at, other.cause) == (2, 0, story.state.position)


def test_without_repairs_a_crash_is_the_verdict(new_story: Any, then: Then) -> None:
    assert then(crashed_1(new_story()).proposed(2)) == ["1 is crash: crash: it broke"]


# ---------------------------------------------------------------- rejected, again, vetoed


@table(
    ("rejected", lambda s: reject(s.measured().proposed(1), 1), "", ["1 is abandoned: rejected"]),
    ("its number is not used again", lambda s: obey(reject(s.measured().proposed(1), 1)), "", ["propose 2 new, ask 0"]),
    ("while it is being prepared", lambda s: reject(s.measured().proposed(1).proposed(2), 1), "prepare 1", []),
    (
        "it was prepared meanwhile",
        lambda s: reject(s.measured().proposed(1).proposed(2), 1).only_prepared(1),
        "",
        ["1 is abandoned: rejected"],
    ),
    (
        "and committed",
        lambda s: reject(s.measured().proposed(1).proposed(2), 1).prepared(1),
        "",
        ["1 is abandoned: rejected"],
    ),
)
def test_a_rejected_proposal_is_abandoned(
    tell: Tell, running: str, expected: list[str], new_story: Any, then: Then
) -> None:
    assert then(tell(new_story()), running) == expected


@pytest.mark.parametrize(("given", "why"), [("no", "no"), ("", "rejected by a person")])
def test_why_a_proposal_was_rejected_is_kept(given: str, why: str, new_story: Any) -> None:
    story = new_story().measured().proposed(1)
    (abandoned,) = story.ask(ask.reject(story.state, None, 1, given)).commands()
    assert (abandoned.data.why, abandoned.cause) == (why, story.state.position)


@table(
    ("asked for", lambda s: again(discarded(s.measured(), 1), 1), "", ["propose 2 again of 1, ask 0"]),
    (
        "2 waits, it comes after that",
        lambda s: again(discarded(s.measured(), 1).proposed(2), 1),
        "",
        ["prepare 2.0 first", "propose 3 again of 1, ask 0"],
    ),
    (
        "two, in the order in which they were asked for",
        lambda s: again(again(discarded(discarded(s.measured(), 1), 2), 2), 1),
        "",
        ["propose 3 again of 2, ask 0"],
    ),
    (
        "taken up",
        lambda s: again(discarded(s.measured(), 1), 1).asked(2, purpose="again", again_of=1).received(2),
        "",
        ["prepare 2.0 first", "propose 3 new, ask 0"],
    ),
    (
        "its edit cannot be had",
        lambda s: again(discarded(s.measured(), 1), 1).asked(2, purpose="again", again_of=1).failed(2, "no_edit"),
        "",
        ["2 is abandoned: no_proposal"],
    ),
    (
        "lost in a crash",
        lambda s: again(discarded(s.measured(), 1), 1).asked(2, purpose="again", again_of=1).failed(2, "lost"),
        "",
        ["propose 2 again of 1, ask 0"],
    ),
)
def test_an_old_edit_is_taken_up_again(
    tell: Tell, running: str, expected: list[str], new_story: Any, then: Then
) -> None:
    assert then(tell(new_story()), running) == expected


def test_an_old_edit_that_no_longer_fits_is_abandoned_and_a_new_one_is_asked_again(new_story: Any) -> None:
    story = again(discarded(new_story().measured(), 1), 1)
    old = story.asked(2, purpose="again", again_of=1).received(2).commands()[0]
    assert isinstance(old.on_conflict, e.ExperimentAbandoned)
    assert old.on_conflict.reason == "conflict"
    new = new_story().measured().asked(1).failed(1, "overloaded").asked(1, 1).received(1, 1).commands()[0]
    assert isinstance(new.on_conflict, e.ProposalFailed)
    assert (new.on_conflict.failure, new.on_conflict.ask, new.on_conflict.usd) == ("edit_does_not_apply", 1, 0.0)


def test_an_old_edit_is_not_the_proposers_failure(new_story: Any) -> None:
    story = again(discarded(new_story().measured(), 1), 1).asked(2, purpose="again", again_of=1).failed(2, "no_edit")
    assert story.run.failures_in_a_row == 0


@table(
    ("the newest keep", lambda s: veto(s.measured().kept(1, 0.9).kept(2, 0.8), 2), "", ["move branch, veto 2"]),
    (
        "a keep with others on it",
        lambda s: veto(s.measured().kept(1, 0.9).kept(2, 0.8), 1),
        "",
        ["move branch, veto 1"],
    ),
    (
        "both: the lower one",
        lambda s: veto(veto(s.measured().kept(1, 0.9).kept(2, 0.8), 2), 1),
        "",
        ["move branch, veto 1"],
    ),
    ("being moved", lambda s: veto(s.measured().kept(1, 0.9), 1), "move", []),
    (
        "moved",
        lambda s: moved_back(veto(s.measured().kept(1, 0.9), 1), 1),
        "",
        ["propose 2 new, ask 0"],
    ),
    (
        "no verdict and no preparation before it is moved",
        lambda s: veto(s.measured().kept(1, 0.9).proposed(2).prepared(2).trained(2, 0.8).proposed(3), 1),
        "move",
        [],
    ),
    (
        "what was built on it is put on the older tip",
        lambda s: moved_back(
            veto(s.measured().kept(1, 0.9).proposed(2).prepared(2).trained(2, 0.95).proposed(3), 1), 1
        ),
        "",
        ["prepare 2.1 rebase"],
    ),
    (
        "a keep that waits for its branch comes onto it first",
        lambda s: veto(s.measured().proposed(1).prepared(1).trained(1, 0.9).proposed(2).decided(1, score=0.9), 1),
        "",
        ["move branch, keep 1"],
    ),
    (
        "and off it then",
        lambda s: veto(s.measured().proposed(1).prepared(1).trained(1, 0.9).proposed(2).decided(1, score=0.9), 1).moved(
            1
        ),
        "",
        ["move branch, veto 1"],
    ),
    (
        "of a keep below one that waits for its branch",
        lambda s: veto(s.measured().kept(1, 0.9).proposed(2).prepared(2).trained(2, 0.8).decided(2, score=0.8), 1),
        "",
        ["move branch, keep 2"],
    ),
    (
        "of a run that is over",
        lambda s: veto(finished(s.measured().kept(1, 0.9)), 1, TAG),
        "",
        ["move branch, veto 1"],
    ),
    (
        "beside the start of another",
        lambda s: veto(finished(s.measured().kept(1, 0.9)), 1, TAG).requested("b"),
        "",
        ["move branch, veto 1", "start b"],
    ),
    (
        "asked for at the end: the run waits for the branch",
        lambda s: veto(stop(s.measured().kept(1, 0.9)), 1),
        "",
        ["move branch, veto 1"],
    ),
    ("while it moves", lambda s: veto(stop(s.measured().kept(1, 0.9)), 1), "move", []),
    (
        "and ends then",
        lambda s: moved_back(veto(stop(s.measured().kept(1, 0.9)), 1), 1),
        "",
        ["finished: stopped"],
    ),
)
def test_a_veto_moves_the_branch_to_before_the_keep(
    tell: Tell, running: str, expected: list[str], new_story: Any, then: Then
) -> None:
    assert then(tell(new_story()), running) == expected


def test_a_veto_takes_every_later_keep_off_the_branch(new_story: Any) -> None:
    story = veto(new_story().measured().kept(1, 0.9).kept(2, 0.8).kept(3, 0.7), 2)
    (command, *_) = story.commands()
    assert (command.from_commit, command.to_commit) == (story.run.keeps[3].commit, story.run.keeps[1].commit)
    moved_back(story, 2)
    assert [keep.experiment for keep in story.run.keeps] == [0, 1]
    assert (story.run.best.score, story.run.vetoes) == (0.9, {})


# ---------------------------------------------------------------- measured again


def measure_twice(best: d.Best, candidate: d.Candidate, policy: Policy) -> d.Decision:
    return d.decide(best, candidate, policy) if len(candidate.scores) > 1 else d.Remeasure("one is not enough")


def test_what_one_training_does_not_tell_is_trained_again_with_the_next_seed(new_story: Any, then: Then) -> None:
    story = new_story(judge=measure_twice).measured().proposed(1).prepared(1).trained(1, 0.875).proposed(2)
    (command,) = story.commands()
    expected = e.ExperimentRemeasureRequested(experiment=1, trial=1, seed=7 + 1, why="one is not enough")
    assert (command.data, command.cause) == (expected, story.run.experiments[1].last.scored_at)
    obey(story)
    (train,) = story.commands()
    assert (train.attempt, train.trial, train.commit) == (0, 1, story.run.experiments[1].committed.commit)
    assert train.cause == story.state.position
    story.training(1, trial=1)
    assert then(story, "train 1") == []
    assert then(story) == ["close training 1.0.1"]
    story.trained_as(1, "lost")
    assert then(story) == ["train 1.0.1 on 0"]
    story.training(1, trial=1).trained_as(1, "scored")
    assert then(story) == ["score 1.0.1"]
    story.scored(1, 0.625)
    assert then(story) == ["1 is keep: better by 0.25"]
    decided = story.commands()[0].data
    assert (decided.score, decided.gain, decided.trials) == (0.75, 0.25, 2)
    obey(story)
    assert story.run.pending_keep.score == 0.75


@table(
    ("the mean is worse", lambda s: s.trained(1, 1.75, trial=1), "", ["1 is discard: worse by 0.25"]),
    (
        "the second training crashes",
        lambda s: s.training(1, trial=1).trained_as(1, "crash"),
        "",
        ["1 is crash: crash: it broke"],
    ),
    (
        "the second training is lost twice",
        lambda s: s.training(1, trial=1).trained_as(1, "lost").training(1, trial=1).trained_as(1, "lost"),
        "",
        ["1 is abandoned: lost_twice"],
    ),
)
def test_all_trials_decide(tell: Tell, running: str, expected: list[str], new_story: Any, then: Then) -> None:
    story = obey(new_story(judge=measure_twice).measured().proposed(1).prepared(1).trained(1, 0.75).proposed(2))
    assert then(tell(story), running) == expected


# ---------------------------------------------------------------- sealed scoring


def handed_over(story: Any, n: int) -> Any:
    return story.training(n).trained_as(n, "scored")


@table(
    ("handed over", lambda s: handed_over(s, 1), "", ["score 1.0.0"]),
    ("no gain", lambda s: handed_over(s, 1).scored(1, 1.1), "", ["1 is discard: worse by 0.1"]),
    ("a gain", lambda s: handed_over(s, 1).scored(1, 0.9), "", ["score 1.0.0 with checks"]),
    ("being checked", lambda s: handed_over(s, 1).scored(1, 0.9).scoring(1, checks=True), "score 1", []),
    (
        "orphaned checks",
        lambda s: handed_over(s, 1).scored(1, 0.9).scoring(1, checks=True),
        "",
        ["score 1.0.0 with checks again"],
    ),
    (
        "cut off, they are done again",
        lambda s: handed_over(s, 1).scored(1, 0.9).scoring(1, checks=True).score_came(1, None, "stopped"),
        "",
        ["score 1.0.0 with checks"],
    ),
    ("an orphaned scoring", lambda s: handed_over(s, 1).scoring(1), "", ["score 1.0.0 again"]),
    ("passed", lambda s: handed_over(s, 1).scored(1, 0.9).checked(1, 0.9), "", ["guard 1.0"]),
    (
        "looks ahead",
        lambda s: handed_over(s, 1).scored(1, 0.9).checked(1, None, "tampered"),
        "",
        ["1 is crash: tampered: it is so"],
    ),
    (
        "refused",
        lambda s: handed_over(s, 1).scoring(1).score_came(1, None, "refused_operator"),
        "",
        ["1 is crash: refused_operator: it is so"],
    ),
    (
        "what was handed over is gone",
        lambda s: handed_over(s, 1).scoring(1).score_came(1, None, "lost"),
        "",
        ["train 1.0.0 on 0"],
    ),
    (
        "gone twice",
        lambda s: (
            handed_over(handed_over(s, 1).scoring(1).score_came(1, None, "lost"), 1)
            .scoring(1)
            .score_came(1, None, "lost")
        ),
        "",
        ["1 is abandoned: lost_twice"],
    ),
    (
        "paused now, it is not checked",
        lambda s: pause(handed_over(s, 1).scored(1, 0.9), "now"),
        "",
        ["paused: asked to pause"],
    ),
    (
        "stopped now while it is checked",
        lambda s: stop(handed_over(s, 1).scored(1, 0.9).scoring(1, checks=True), "now"),
        "score 1",
        ["cancel score 1"],
    ),
    (
        "stopped now, its checks an orphan",
        lambda s: stop(handed_over(s, 1).scored(1, 0.9).scoring(1, checks=True), "now"),
        "",
        ["scoring 1 stopped"],
    ),
)
def test_a_sealed_score_is_checked_before_it_counts_as_a_gain(
    tell: Tell, running: str, expected: list[str], new_story: Any, then: Then
) -> None:
    story = new_story(guard=GUARD, scoring="sealed").measured().proposed(1).prepared(1).proposed(2)
    assert then(tell(story), running) == expected


def test_a_sealed_baseline_is_checked_at_once(new_story: Any, then: Then) -> None:
    story = handed_over(new_story(scoring="sealed").started().prepared(0).proposed(1), 0)
    assert then(story) == ["score 0.0.0 with checks"]
    assert then(story.checked(0, 1.0)) == ["0 is keep: baseline"]


def test_one_that_waits_behind_a_check_keeps_its_turn(new_story: Any, then: Then) -> None:
    story = new_story(scoring="sealed", slots=2).measured().proposed(1).proposed(2).prepared(1).prepared(2)
    story.proposed(3).proposed(4)
    handed_over(story, 1)
    story.training(2, slot=1).trained_as(2, "scored").scored(1, 0.9).scored(2, 0.8).scoring(1, checks=True)
    assert then(story, "score 1") == []
    story.score_came(1, 0.9, checks=True)
    assert then(story) == ["1 is keep: better by 0.1"]


# ---------------------------------------------------------------- the guard


@table(
    ("a gain", lambda s: s.trained(1, 0.9), "", ["guard 1.0"]),
    ("no gain", lambda s: s.trained(1, 1.1), "", ["1 is discard: worse by 0.1"]),
    ("being guarded", lambda s: s.trained(1, 0.9).guarding(1), "guard 1", []),
    ("passed", lambda s: s.trained(1, 0.9).guarding(1).guarded(1, "passed", 0), "", ["1 is keep: better by 0.1"]),
    (
        "failed",
        lambda s: s.trained(1, 0.9).guarding(1).guarded(1, "failed", 2),
        "",
        ["1 is discard: guard failed with exit code 2"],
    ),
    ("too slow", lambda s: s.trained(1, 0.9).guarding(1).guarded(1, "timeout"), "", ["1 is discard: guard timed out"]),
    ("paused now, it does not begin", lambda s: pause(s.trained(1, 0.9), "now"), "", ["paused: asked to pause"]),
    ("cut off, it runs again", lambda s: s.trained(1, 0.9).guarding(1).guarded(1, "stopped"), "", ["guard 1.0"]),
)
def test_the_guard_runs_only_for_what_would_be_a_keep(
    tell: Tell, running: str, expected: list[str], new_story: Any, then: Then
) -> None:
    story = new_story(guard=GUARD).measured().proposed(1).prepared(1).proposed(2)
    assert then(tell(story), running) == expected


def test_the_cause_of_a_verdict_is_its_last_evidence(new_story: Any) -> None:
    """The score, after a guard the guard, for a crash the end of its training or the scoring that refused it."""
    tampered = e.ScoringFinished(experiment=1, attempt=0, trial=0, outcome="tampered", why="two blocks")
    unscored = new_story().measured().proposed(1).prepared(1).crashed(1, "scored").scoring(1).tell(tampered)
    scored = new_story().measured().proposed(1).prepared(1).trained(1, 0.9)
    guarded = new_story(guard=GUARD).measured().proposed(1).prepared(1).trained(1, 0.9).guarding(1)
    for story in (scored, guarded.guarded(1, "passed", 0), crashed_1(new_story()), unscored):
        (decided,) = story.commands()
        assert isinstance(decided.data, e.ExperimentDecided)
        assert decided.cause == story.state.position


def test_the_cause_of_a_guard_is_the_score_it_follows(new_story: Any) -> None:
    story = new_story(guard=GUARD).measured().proposed(1).prepared(1).trained(1, 0.9).proposed(2)
    (guard,) = story.commands()
    assert (guard.cause, guard.request) == (story.run.experiments[1].last.scored_at, None)
    assert guard.commit == story.run.experiments[1].committed.commit


# ---------------------------------------------------------------- many slots, one branch


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_each_training_has_a_slot_of_its_own_and_one_proposal_waits_for_each(
    slots: int, new_story: Any, then: Then
) -> None:
    numbers = range(1, slots + 1)
    story = new_story(slots=slots).measured()
    assert then(story) == [f"propose {n} new, ask 0" for n in numbers]
    for n in numbers:
        story.proposed(n)
    ahead = [f"propose {n} new, ask 0" for n in range(slots + 1, 2 * slots + 1)]
    assert then(story) == [f"prepare {n}.0 first" for n in numbers] + ahead
    for n in numbers:
        story.prepared(n)
    for n in range(slots + 1, 2 * slots + 1):
        story.proposed(n)
    assert then(story) == [f"train {n}.0.0 on {n - 1}" for n in numbers]
    for n in numbers:
        story.training(n, slot=n - 1)
    assert then(story, ", ".join(f"train {n}" for n in numbers)) == []


@table(
    (
        "the free slot is the one that 2 left",
        lambda s: s.trained_as(2, "scored").scored(2, 2.0).decided(2, "discard", 2.0).prepared(3),
        "train 1, propose 5",
        ["train 3.0.0 on 1"],
    ),
    (
        "the free slot is the one that 1 left",
        lambda s: s.trained_as(1, "scored").scored(1, 2.0).decided(1, "discard", 2.0).prepared(3),
        "train 2, propose 5",
        ["train 3.0.0 on 0"],
    ),
    ("a slot is held until the verdict", lambda s: s.trained_as(2, "scored").scoring(2), "train 1, score 2", []),
    (
        "2 was scored first",
        lambda s: both_trained(s).score_came(2, 0.8).score_came(1, 0.7),
        "",
        ["2 is keep: better by 0.2"],
    ),
    (
        "1 was scored first",
        lambda s: both_trained(s).score_came(1, 0.7).score_came(2, 0.8),
        "",
        ["1 is keep: better by 0.3"],
    ),
    (
        "nothing between a keep and its branch",
        lambda s: both_trained(s).score_came(2, 0.8).score_came(1, 0.7).decided(2, score=0.8),
        "",
        ["move branch, keep 2"],
    ),
    (
        "nor while it moves",
        lambda s: both_trained(s).score_came(2, 0.8).score_came(1, 2.0).decided(2, score=0.8),
        "move",
        [],
    ),
    (
        "nor the verdict of a crash",
        lambda s: s.trained_as(2, "scored").scored(2, 0.8).decided(2, score=0.8).trained_as(1, "crash"),
        "move",
        [],
    ),
    (
        "overtaken and not better than the best of now",
        lambda s: both_trained(s).score_came(2, 0.8).score_came(1, 0.9).decided(2, score=0.8).moved(2),
        "",
        ["1 is discard: worse by 0.1"],
    ),
    (
        "overtaken and better still: put on the new tip, and the other slot is filled",
        lambda s: both_trained(s).score_came(2, 0.8).score_came(1, 0.7).decided(2, score=0.8).moved(2),
        "propose 5",
        ["prepare 1.1 rebase", "prepare 3.0 first"],
    ),
    (
        "it is trained again before the verdict",
        lambda s: overtaken_once(s).prepared(1, 1, "rebase"),
        "prepare 3, propose 5",
        ["train 1.1.0 on 0"],
    ),
    (
        "and judged against the best of now",
        lambda s: overtaken_once(s).prepared(1, 1, "rebase").trained(1, 0.7),
        "prepare 3, propose 5",
        ["1 is keep: better by 0.1"],
    ),
    (
        "worse on the new tip",
        lambda s: overtaken_once(s).prepared(1, 1, "rebase").trained(1, 0.85),
        "prepare 3, propose 5",
        ["1 is discard: worse by 0.05"],
    ),
    (
        "those behind it wait while it is being prepared",
        overtaken_once,
        "prepare 1, prepare 3, propose 5",
        [],
    ),
)
def test_two_slots_share_one_branch(tell: Tell, running: str, expected: list[str], new_story: Any, then: Then) -> None:
    assert then(tell(two_slots(new_story)), running) == expected


@pytest.mark.parametrize(
    ("slots", "expected"),
    [
        (1, []),
        (2, ["prepare 2.0 first", "propose 3 new, ask 0"]),
        (4, ["prepare 2.0 first", *(f"propose {n} new, ask 0" for n in (3, 4, 5))]),
    ],
)
def test_a_later_proposal_overtakes_fewer_asks_than_there_are_slots(
    slots: int, expected: list[str], new_story: Any, then: Then
) -> None:
    """So one slot works in the order of the numbers, whichever answer comes first."""
    assert then(new_story(slots=slots).measured().asked(1).proposed(2), "propose 1") == expected


def test_a_repair_that_is_asked_for_keeps_its_slot_and_holds_up_no_other(new_story: Any, then: Then) -> None:
    story = repair_asked(crashed_1(new_story(slots=2, repair_attempts=1))).asked(2).proposed(3)
    assert then(story, "propose 1, propose 2") == ["prepare 3.0 first", "propose 4 new, ask 0"]


def test_an_edit_that_conflicts_with_what_overtook_it_is_discarded_with_its_score(new_story: Any) -> None:
    story = both_trained(two_slots(new_story)).score_came(2, 0.75).score_came(1, 0.5).decided(2, score=0.75).moved(2)
    prepare = story.commands()[0]
    assert (prepare.tip, prepare.cause) == (story.run.tip, story.run.experiments[1].last.scored_at)
    assert prepare.on_conflict == e.ExperimentDecided(
        experiment=1,
        attempt=0,
        verdict="discard",
        reason="conflicts with 2",
        trials=1,
        score=0.5,
        best_before=0.75,
        gain=0.25,
    )


@pytest.mark.parametrize("rebases_max", [0, 1, 3])
def test_what_is_overtaken_too_often_is_discarded(rebases_max: int, new_story: Any, then: Then) -> None:
    story = new_story(slots=2, rebases_max=rebases_max).measured().proposed(1).prepared(1)
    for attempt in range(rebases_max + 1):
        if attempt:
            assert then(story)[0] == f"prepare 1.{attempt} rebase"
            story.prepared(1, attempt, "rebase")
        n, score = attempt + 2, 0.9 - 0.1 * attempt
        story.proposed(n).prepared(n).trained(n, score, slot=1).decided(n, score=score)
        story.moved(n).trained(1, 0.1)
    assert then(story) == ["1 is discard: overtaken"]


@table(
    ("none for an old tip", overtaken_once, "prepare 3, propose 5", ["prepare 1.1 rebase"]),
    (
        "after the last attempt",
        lambda s: overtaken_once(s).prepared(1, 1, "rebase").trained(1, 0.7),
        "prepare 3, propose 5",
        ["guard 1.1"],
    ),
    (
        "scores behind the guarded one wait",
        lambda s: both_trained(s).score_came(2, 0.8).guarding(2).score_came(1, 2.0),
        "guard 2",
        [],
    ),
    (
        "those after a failed one are judged against the old best",
        lambda s: obey(both_trained(s).score_came(2, 0.8).score_came(1, 0.9).guarding(2).guarded(2, "failed", 1)),
        "prepare 3, propose 5",
        ["guard 1.0"],
    ),
)
def test_the_guard_runs_after_the_last_attempt(
    tell: Tell, running: str, expected: list[str], new_story: Any, then: Then
) -> None:
    assert then(tell(two_slots(new_story, guard=GUARD)), running) == expected


@pytest.mark.parametrize("slots", [1, 2, 4])
@pytest.mark.parametrize("experiments", [1, 3, 7])
def test_proposals_ahead_are_one_for_each_slot_and_within_the_limit(
    slots: int, experiments: int, new_world: Any, new_dice: Any
) -> None:
    """
    Counted when one is asked for, in a run in which edits and trainings fail at times.

    One whose edit does not fit is asked again under its number beside the next one, which was asked for already.
    """
    dice = new_dice(seed=slots * experiments, asks_fail=False)
    world = new_world(dice, e.Limits(experiments=experiments), slots=slots, repair_attempts=1)
    most = 0
    while (commands := world.turn()) or world.running:
        run = world.run
        waiting = [x.number for x in run.experiments.values() if not x.in_hand]
        ahead = sum(("prepare", TAG, n) not in world.running for n in waiting)
        if any(isinstance(x, c.Propose) and x.purpose == "new" and x.ask == 0 for x in commands):
            assert ahead <= slots
            most = max(most, ahead)
        assert run.verdicts + sum(n > 0 for n in run.experiments) <= experiments
        if world.running:
            world.finish(world.next_to_finish())
    assert most == min(slots, experiments)
    assert world.run.verdicts == experiments
    assert world.run.finished.reason == "experiments"


# ---------------------------------------------------------------- a function


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_asked_twice_it_gives_the_same_answer_and_changes_nothing(slots: int, new_world: Any, new_dice: Any) -> None:
    world = new_world(new_dice(seed=9), e.Limits(experiments=6), slots=slots, repair_attempts=1, guard=GUARD)
    while world.step():
        before = deepcopy(vars(world.state))
        keys = tuple(world.running)
        assert world.commands(*keys) == world.commands(*reversed(keys))
        assert vars(world.state) == before
    assert world.run.is_over


def test_without_a_policy_of_the_active_run_it_waits(new_story: Any, then: Then) -> None:
    story = new_story().started()
    story.policy = None
    assert then(story) == []
