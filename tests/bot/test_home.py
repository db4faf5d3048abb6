"""The Home tab: within its limits whatever the log holds, and with what waits for a person on top."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import example, given, settings

from bot.intents import Role
from bot.message import View
from bot.views.home import LastDigest, Picture, home
from eventstore import events as e
from eventstore import views
from eventstore.projections.run_state import Run
from tests.bot.looked_at import HOSTILE, LOOP, NOW, TAG, Night, check_home, said, texts, whole_night

quick = settings(max_examples=25, deadline=None)


def shown(night: Night, role: Role | None = "admin", **more: Any) -> View:
    run = views.pick(night.state, None)
    known = run if isinstance(run, Run) else None
    status = views.status(night.state, known, LOOP, NOW)
    runs = [views.run_view(one, LOOP, NOW) for one in night.state.runs.values()]
    ideas = views.ideas(night.ideas.all(), night.state)
    return check_home(home(status, night.state, runs, ideas, role, NOW, **more))


def clicks(view: View) -> list[str]:
    return [one["action_id"] for block in view["blocks"] if block["type"] == "actions" for one in block["elements"]]


@quick
@given(texts)
@example(HOSTILE[0])
@example(HOSTILE[8])
@example(HOSTILE[9])
def test_the_home_tab_fits_slack_whatever_its_texts(words: str) -> None:
    for role in (None, "look", "operate", "admin"):
        shown(
            whole_night(words),
            role,  # type: ignore[arg-type]
            picture=Picture("F1", words),
            digest=LastDigest(NOW - timedelta(days=1), words),
        )


def test_it_tells_of_the_run_its_best_the_ideas_and_the_last_digest() -> None:
    link = "https://team.slack.com/archives/C1/p1"
    view = shown(whole_night(), picture=Picture("F1", "scores fall"), digest=LastDigest(NOW, link))
    words = said(view["blocks"])
    for part in (
        "nov21 is active",
        "1.100000",
        "1 open, 1 answered",
        f"<{link}|open it>",
        "*nov22* queued, asked by ada",
    ):
        assert part in words
    picture = next(block for block in view["blocks"] if block["type"] == "image")
    assert (picture["slack_file"], picture["alt_text"]) == ({"id": "F1"}, "scores fall")


def test_what_waits_for_approval_stands_first_with_its_code_and_buttons() -> None:
    view = shown(whole_night())
    assert view["blocks"][0]["text"]["text"] == "1 proposal waits for approval"
    assert clicks(view)[:2] == ["approve", "reject"] and "edit_program" in clicks(view)
    assert "+LR = 'a longer warmdown'" in said(view["blocks"])


def test_each_sees_the_buttons_they_may_use() -> None:
    night = whole_night()
    assert clicks(shown(night, "look")) == []
    assert set(clicks(shown(night, "operate"))) == {"approve", "reject", "pause", "stop"}
    assert set(clicks(shown(night, "admin"))) == {"approve", "reject", "pause", "stop", "edit_program"}


def test_strangers_see_nothing() -> None:
    words = said(shown(whole_night(), None)["blocks"])
    assert "members of this workspace only" in words and "nov21" not in words


def test_an_empty_workspace_says_how_to_begin() -> None:
    assert "/nightshift start" in said(shown(Night(empty=True))["blocks"])


def test_a_long_night_is_counted_not_cut_in_silence() -> None:
    night = whole_night()
    for number in range(6, 40):
        night.propose(number)
    for number in range(50):
        night.add(e.RunRequested(tag=f"q{number}", from_ref="HEAD", zone="UTC"), run=f"q{number}")
        night.add(e.IdeaSuggested(text=f"idea {number}"), run="", actor="slack:T1/U2")
    view = shown(night)
    words = said(view["blocks"])
    assert "35 proposals wait for approval" in words and "25 more wait" in words
    assert "and 43 more" in words and "42 more: `/nightshift ideas`" in words
    assert len(view["blocks"]) <= 100
    assert TAG in words
