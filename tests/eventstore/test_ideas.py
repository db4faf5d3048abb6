"""The life of an idea."""

from __future__ import annotations

import pytest

from eventstore import events as e
from eventstore.envelope import Event
from eventstore.projections.ideas import Idea, Ideas

AT = "2026-11-21T08:00:00.000000Z"


def folded(*log: tuple[str, e.Data]) -> Ideas:
    ideas = Ideas()
    for position, (run, data) in enumerate(log, start=1):
        ideas.apply(Event(position, f"id-{position}", run, data.TYPE, 1, AT, "cli:ada", None, data, b""))
    return ideas


SUGGESTED = ("nov21", e.IdeaSuggested(text="try GeGLU"))
USED = ("nov21", e.IdeaUsed(idea=1, experiment=7))
DECLINED = ("nov21", e.IdeaDeclined(idea=1, experiment=5, why="tried in 3"))
WITHDRAWN = ("nov21", e.IdeaWithdrawn(idea=1))


def test_an_idea_is_known_by_its_position_and_credits_who_suggested_it() -> None:
    assert folded(SUGGESTED).all() == (Idea(position=1, run="nov21", at=AT, by="cli:ada", text="try GeGLU"),)


def test_an_idea_can_credit_someone_else() -> None:
    assert folded(("nov21", e.IdeaSuggested(text="x", by="Grace"))).all()[0].by == "Grace"


@pytest.mark.parametrize(
    ("after", "state", "experiment", "why"),
    [
        ([], "open", None, ""),
        ([USED], "used", 7, ""),
        ([DECLINED], "declined", 5, "tried in 3"),
        ([WITHDRAWN], "withdrawn", None, ""),
        ([WITHDRAWN, DECLINED], "withdrawn", None, ""),
        ([DECLINED, WITHDRAWN], "declined", 5, "tried in 3"),
        ([USED, WITHDRAWN], "used", 7, ""),
        ([WITHDRAWN, USED], "used", 7, ""),  # the proposal was under way
        ([DECLINED, USED], "used", 7, ""),  # asked for twice at once: one answer may decline what the other uses
        ([USED, DECLINED], "used", 7, ""),
        ([WITHDRAWN, DECLINED, USED], "used", 7, ""),
        ([USED, ("nov21", e.IdeaUsed(idea=1, experiment=9))], "used", 7, ""),
    ],
)
def test_what_becomes_of_an_idea(after: list[tuple[str, e.Data]], state: str, experiment: int | None, why: str) -> None:
    idea = folded(SUGGESTED, *after).get(1)
    assert idea is not None
    assert (idea.state, idea.experiment, idea.why) == (state, experiment, why)


def test_an_idea_of_any_run_knows_the_run_that_answered_it() -> None:
    ideas = folded(("", e.IdeaSuggested(text="x")), ("dec1", e.IdeaDeclined(idea=1, experiment=5, why="no")), USED)
    idea = ideas.get(1)
    assert idea is not None
    assert (idea.run, idea.experiment_run, idea.experiment, idea.why) == ("", "nov21", 7, "")


def test_open_ideas_wait_in_order_for_their_run_or_for_any() -> None:
    ideas = folded(SUGGESTED, ("", e.IdeaSuggested(text="b")), ("dec1", e.IdeaSuggested(text="c")), SUGGESTED, USED)
    assert [idea.position for idea in ideas.open("nov21")] == [2, 4]
    assert [idea.position for idea in ideas.open("dec1")] == [2, 3]


def test_an_event_about_an_idea_that_never_was_changes_nothing() -> None:
    ideas = folded(USED, ("nov21", e.RunResumed(why="x")))
    assert (ideas.all(), ideas.get(1)) == ((), None)
