"""The digest as Slack shows it: within its limits, the best first, honest about gains, and about what it leaves out."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot import blocks, html
from bot.message import PICTURE, Message
from bot.values import Button, from_value
from bot.views import digest as view
from eventstore import events as e
from eventstore.projections.digest import Digest, Window, digest
from tests.eventstore.nights import GRACE, Night


def told(night: Night) -> Digest:
    return digest(night.events, Window(after=0, to_at=night.at))


def messages(night: Night, **more: Any) -> view.DigestMessages:
    return view.digest_messages(told(night), **more)


def checked(found: view.DigestMessages) -> view.DigestMessages:
    """Each message is within the limits, with its extra blocks and without."""
    for message in (found.head, *found.replies):
        for shown in (message.blocks, (*message.blocks, *message.extra)):
            assert blocks.problems({"text": message.text, "blocks": list(shown)}, "message") == ()
    return found


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, part in value.items():
            if key == "text" and isinstance(part, str):
                yield part
            else:
                yield from texts(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from texts(part)


def obeyed_texts(value: Any) -> Iterator[str]:
    """The texts in which Slack would see a mention or a link."""
    if isinstance(value, dict):
        if value.get("type") == "mrkdwn":
            yield value["text"]
        for part in value.values():
            yield from obeyed_texts(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from obeyed_texts(part)


def said(message: Message) -> str:
    return "\n".join(texts(message.blocks)).replace("\u200b", "")


def buttons(message: Message) -> list[tuple[str, Button | None]]:
    def inside(value: Any) -> Iterator[dict[str, Any]]:
        if isinstance(value, dict):
            if value.get("type") == "button":
                yield value
            for part in value.values():
                yield from inside(part)
        elif isinstance(value, list | tuple):
            for part in value:
                yield from inside(part)

    return [(found["action_id"], from_value(found["value"])) for found in inside(message.blocks)]


@pytest.fixture
def night() -> Night:
    found = Night()
    found.start("nov21", settings={"proposer": {"kind": "claude", "approval": "all"}})
    return found


# ---------------------------------------------------------------- what is said


def test_the_head_says_from_which_best_to_which_and_how_sure_that_is(night: Night) -> None:
    best = 1.0
    standings: list[e.Standing] = ["confirmed"] * 3 + ["within_noise"] * 4 + ["untested"] * 2
    for number, standing in enumerate(standings, 1):
        night.keep("nov21", number, best - 0.01, best, standing)
        best -= 0.01
    head = checked(messages(night)).head
    assert "*9 keeps: 3 confirmed, 4 within noise, 2 untested*" in said(head)
    assert "val_bpb 1.000000 → 0.910000 (experiment 9)" in said(head)
    assert "of which confirmed keeps gained 0.030000" in said(head)
    assert "val_bpb 1.000000" in head.text.replace("\u200b", "")


@pytest.mark.parametrize("standing", ["within_noise", "untested"])
def test_no_gain_that_is_not_confirmed_is_called_an_improvement(night: Night, standing: e.Standing) -> None:
    night.keep("nov21", 1, 0.9, 1.0, standing)
    for message in (checked(messages(night)).head, *messages(night).replies):
        assert "improve" not in said(message).lower() and "confirmed gain" not in said(message)


def test_keeps_come_with_hypothesis_expected_effect_and_whose_idea_it_was(night: Night) -> None:
    idea = night.write("", e.IdeaSuggested(text="try GeGLU"), GRACE)
    night.ask("nov21", 1, idea=idea)
    why = {"hypothesis": "gates help", "expected_effect": "0.01 lower"}
    night.write("nov21", e.ProposalReceived(experiment=1, ask=0, base_commit="b", description="use GeGLU", edits=(),
                                            usd=0.0, **why))  # fmt: skip
    night.write("nov21", e.IdeaUsed(idea=idea, experiment=1))
    night.prepare("nov21", 1)
    night.train("nov21", 1, 0.9)
    night.decide("nov21", 1, "keep", 0.9, 1.0, "better by 0.1", standing="confirmed")
    found = said(checked(messages(night)).head)
    for part in ("*1  use GeGLU*", "confirmed gain 0.100000 (10.00%)", "_Why:_ gates help", "_Expected:_ 0.01 lower"):
        assert part in found
    assert "_Idea of_ <@U2>" in found


def test_a_late_digest_says_when_it_was_due(night: Night) -> None:
    due = datetime(2026, 11, 21, 7, tzinfo=UTC)
    assert "made 1 h 10 min late" in said(checked(messages(night, due_at=due, late_s=4_200.0)).head)
    assert "late" not in said(messages(night, due_at=due, late_s=1.0).head)


def test_a_night_without_an_experiment_is_one_sentence() -> None:
    head, replies = (found := checked(messages(Night()))).head, found.replies
    assert "Nothing was tried: no run was active." in said(head) and "Nothing was tried" in head.text
    assert replies == ()


def test_tampering_is_in_the_head_always(night: Night) -> None:
    for number in range(1, 10):
        night.crash("nov21", number, "tampered", why="prepare.py was changed")
    found = said(checked(messages(night)).head)
    assert "9 experiments tampered with the harness or the score and did not count" in found
    assert "and 6 more: `nightshift digest --last nov21`" in found


def test_a_command_in_the_digest_can_be_copied() -> None:
    found = Night()
    found.start("nov_21")
    for number in range(1, 5):
        found.crash("nov_21", number, "tampered", why="prepare.py was changed")
    assert "`nightshift digest --last nov_21`" in "\n".join(texts(checked(messages(found)).head.blocks))


def test_the_rest_is_told_in_the_thread(night: Night) -> None:
    night.discard("nov21", 1, 2.0, 1.0, hypothesis="wider is better")
    night.crash("nov21", 2, "oom", tail="CUDA out of memory")
    night.ask("nov21", 3)
    night.refuse_answer("nov21", 3, "not_python")
    night.write("", e.IdeaSuggested(text="try less", by="Grace"))
    night.write("nov21", e.ProposerSwitched(from_kind="claude", to_kind="sweep", why="overloaded"))
    night.write("", e.TroubleNoticed(kind="disk", what="1 GB left", since=night.at))
    failures, workspace = checked(messages(night)).replies
    for part in ("Largest losses* (1 of 1)", "wider is better", "oom once", "edit breaks the syntax once"):
        assert part in said(failures)
    for part in ("of Grace: try less (waits)", "sweep took over from claude", "disk: 1 GB left", "pppppppp: 2 exper"):
        assert part in said(workspace)


# ---------------------------------------------------------------- buttons


def test_what_needs_a_person_has_buttons_that_know_run_experiment_and_position(night: Night) -> None:
    night.keep("nov21", 1, 0.9, 1.0, "confirmed")
    night.keep("nov21", 2, 0.8, 0.9, "within_noise")
    night.ask("nov21", 3, kind="claude")
    night.write("nov21", e.ProposalReceived(experiment=3, ask=0, base_commit="b", description="x", edits=(), usd=0.0))
    night.write("nov21", e.RunPaused(why="asked to pause"))
    about = night.position
    assert buttons(checked(messages(night)).head) == [
        ("approve", Button("nov21", 3, about)),
        ("reject", Button("nov21", 3, about)),
        ("resume", Button("nov21", None, about)),
        ("stop", Button("nov21", None, about)),
        ("veto", Button("nov21", 2, about)),
    ]


def test_a_keep_that_is_vetoed_already_has_no_button(night: Night) -> None:
    night.keep("nov21", 1, 0.9, 1.0)
    night.veto("nov21", 1, served=False)
    assert buttons(checked(messages(night)).head) == []


# ---------------------------------------------------------------- picture and chart


def test_the_picture_stands_below_the_runs_and_says_in_words_what_it_shows(night: Night) -> None:
    night.keep("nov21", 1, 0.9, 1.0, description="use GeGLU")
    run = view.featured(told(night))
    assert run is not None
    picture = view.picture(run, b"png")
    head = checked(messages(night, picture=picture)).head
    (image,) = [block for block in head.blocks if block["type"] == "image"]
    assert image["slack_file"] == PICTURE and head.picture is picture and picture.name == "nov21.png"
    assert image["alt_text"].startswith("Staircase of the best val_bpb of nov21: val_bpb 1.000000 → 0.900000")
    assert "Kept: 1 use GeGLU (measured gain 0.100000 (10.00%), untested)." in image["alt_text"]


def test_the_run_with_the_most_verdicts_is_drawn_and_none_without_a_score() -> None:
    night = Night()
    night.start("small")
    night.write("small", e.RunFinished(reason="stopped", why="stopped"))
    night.start("large")
    night.keep("large", 1, 0.9, 1.0)
    night.write("large", e.RunFinished(reason="stopped", why="stopped"))
    night.start("failed", None)
    run = view.featured(told(night))
    assert run is not None and run.tag == "large"
    assert view.featured(told(Night())) is None


def test_the_chart_is_an_extra_that_may_be_left_out(night: Night) -> None:
    assert checked(messages(night)).head.extra == ()
    night.keep("nov21", 1, 0.9, 1.0)
    night.keep("nov21", 4, 0.8, 0.9)
    (chart,) = checked(messages(night)).head.extra
    assert chart["chart"]["axis_config"]["categories"] == ["0", "1", "4"]
    assert [point["value"] for point in chart["chart"]["series"][0]["data"]] == [1.0, 0.9, 0.8]


# ---------------------------------------------------------------- limits


def test_ten_thousand_experiments_in_a_night_fit_and_the_rest_is_counted() -> None:
    night = Night(minutes=0.01)
    night.start("nov21")
    best = 1.0
    long = "a description that goes on and on " * 9
    for number in range(1, 10_001):
        kind = number % 4
        if kind == 0:
            night.keep("nov21", number, best - 1e-5, best, "within_noise", description=long, hypothesis=long)
            best -= 1e-5
        elif kind == 1:
            night.discard("nov21", number, best + number, best, hypothesis=long)
        elif kind == 2:
            night.discard("nov21", number, best + 1e-6, best)
        else:
            night.crash("nov21", number, "tampered" if number % 8 == 3 else "oom", tail=long, why=long)
    for number in range(300):
        night.write("", e.IdeaSuggested(text=f"{number} {long}"))
    found = checked(messages(night))
    head = said(found.head)
    assert "10000 experiments: 2500 kept, 5000 discarded, 2500 crashed" in head
    assert "2500 keeps, all within noise" in head and "2500 keeps are not confirmed" in head
    shown = head.count("_Why:_")
    assert 1 <= shown <= view.KEEPS_IN_HEAD
    assert f"{2500 - shown} more keeps beside these · more in the thread" in head
    keeps, failures, workspace = found.replies
    assert f"{2500 - shown - said(keeps).count('_Why:_')} more: `nightshift digest --last`" in said(keeps)
    assert "(5 of 2500)" in said(failures) and "of 300, all: `nightshift digest --last`)" in said(workspace)


def test_many_runs_fit(night: Night) -> None:
    for number in range(40):
        night.write(f"nov{20 + number}", e.RunFinished(reason="stopped", why="stopped"))
        night.start(f"nov{21 + number}" if number else "nov2x")
        night.keep(f"nov{21 + number}" if number else "nov2x", 1, 0.9, 1.0)
    assert "other runs: `nightshift digest --last`" in said(checked(messages(night)).head)


HOSTILE = (
    st.text(max_size=60)
    | st.sampled_from(
        ["<!channel> <@U1> <http://x|y>", "```", "*_~`" * 200, "&" * 3_000, "\x1b[31m\x07\x00", "\u202e", "a" * 100_000,
         "|", "\n" * 50]
    )
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_logs_digest_is_within_the_limits_and_mentions_nobody_whatever_its_texts(data: st.DataObject) -> None:
    night = Night()
    text = data.draw(HOSTILE)
    night.start("nov21", settings={"proposer": {"kind": "claude", "approval": "all"}})
    for number in range(1, data.draw(st.integers(1, 30))):
        kind = data.draw(st.sampled_from(["keep", "discard", "guard", "crash", "tampered", "refused", "veto", "wait"]))
        if kind == "keep":
            standing = data.draw(st.sampled_from(["confirmed", "within_noise", "untested"]))
            night.keep("nov21", number, 0.9, 1.0, standing, description=text, hypothesis=text, expected_effect=text,
                       model=text)  # fmt: skip
        elif kind in ("discard", "guard"):
            night.discard("nov21", number, 1.5, 1.0, text, guard=kind == "guard", hypothesis=text)
        elif kind in ("crash", "tampered"):
            night.crash("nov21", number, "tampered" if kind == "tampered" else "oom", tail=text, why=text)
        elif kind == "refused":
            night.refuse_answer("nov21", number, text or "x", why=text)
        elif kind == "veto":
            night.veto("nov21", number - 1, text, served=data.draw(st.booleans()))
        else:
            night.propose("nov21", number, text, kind="claude", hypothesis=text)
    for by in (text, "slack:T1/U2"):
        night.write("", e.IdeaSuggested(text=text, by=by))
    night.write("", e.TroubleNoticed(kind="disk", what=text, since=text))
    night.write("nov21", e.ProposerSwitched(from_kind=text, to_kind=text, why=text))
    night.write("nov21", e.RunPaused(why=text))
    found = checked(messages(night, picture=view.picture(told(night).runs[0], b"png")))
    for message in (found.head, *found.replies):
        obeyed = "\n".join([message.text, *obeyed_texts(message.blocks)])
        assert not any(mark in obeyed for mark in ("<!channel", "<!here", "<http", "<@U1>"))
    assert html.page([html.shown(found.head)], "digest")
