"""What people are answered: within the limits whatever the texts, and saying what they need to know."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bot.access import Person, refusal
from bot.intents import VERBS, Mistake, Stop, parse
from bot.message import Message
from bot.values import from_value
from bot.views import answers
from bot.views import story as story_view
from eventstore import events as e
from eventstore import requests, views
from eventstore.requests import Accepted
from eventstore.settings import Slack
from tests.bot.looked_at import HOSTILE, LOOP, NOW, TAG, Night, check_message, said, texts, whole_night

quick = settings(max_examples=25, deadline=None)
SLACK = Slack(channel="C1", admins=("U1",), operators=("S2",))


def status_of(night: Night, tag: str | None = None, loop: str | None = LOOP) -> Message:
    run = views.pick(night.state, tag)
    known = None if isinstance(run, requests.Refused) else run
    return answers.status(views.status(night.state, known, loop, NOW), night.state, NOW)


def experiment_of(night: Night, number: int) -> Message:
    row = next((row for row in night.results.rows(TAG) if row.experiment == number), None)
    ideas = {
        event.position: e.IdeaSuggested(text=event.data.text, by=event.data.by or event.actor)
        for event in night.events
        if isinstance(event.data, e.IdeaSuggested)
    }
    return story_view.experiment(night.state, night.run, night.story(number), row, LOOP, ideas)


def clicks(message: Message) -> dict[str, tuple[str, int | None]]:
    """The buttons of a message: what each is about."""
    found = {}
    for block in message.blocks:
        for element in block.get("elements", ()) if block["type"] == "actions" else ():
            button = from_value(element["value"])
            assert button is not None
            found[element["action_id"]] = (button.run, button.experiment)
    return found


# ---------------------------------------------------------------- whatever the texts


@quick
@given(texts)
@example(HOSTILE[0])
@example(HOSTILE[6])
@example(HOSTILE[7])
@example(HOSTILE[8])
@example(HOSTILE[9])
def test_every_answer_about_a_night_fits_slack_whatever_its_texts(words: str) -> None:
    night = whole_night(words)
    check_message(status_of(night))
    check_message(status_of(night, "nov22", None))
    message, file = answers.results(TAG, "val_bpb", night.results.rows(TAG), night.results.tsv(TAG))
    check_message(message)
    assert file is not None and file.data.decode() == night.results.tsv(TAG)
    for number in range(6):
        check_message(experiment_of(night, number))
        check_message(story_view.diff(night.story(number)))
        check_message(story_view.log_tail(night.story(number)))
        check_message(story_view.log_tail(night.story(number), words))
    check_message(answers.ideas(views.ideas(night.ideas.all(), night.state)))


@quick
@given(texts)
@example(HOSTILE[0])
@example(HOSTILE[8])
@example(HOSTILE[9])
def test_every_short_answer_fits_slack_whatever_its_texts(words: str) -> None:
    for message in (
        answers.sentence(words),
        answers.refused(words),
        answers.failed(words),
        answers.recorded("slack:T1/U1", words, waits=True),
        answers.recorded(words, words),
        answers.digest_hour("08:00", words, NOW, words),
        answers.digest_hour(None, words, None),
        answers.whoami(Person("U1", "T1", groups=frozenset({"S2"})), "operate", SLACK, "C1", words),
    ):
        check_message(message)
    found = parse(words)
    if isinstance(found, Mistake):
        check_message(answers.mistake(found))
    state = whole_night().state
    for data in (
        e.RunRequested(tag="x", from_ref=words, zone="UTC", limits=e.Limits(experiments=3, usd=2.5)),
        e.IdeaSuggested(text=words),
        e.IdeaWithdrawn(idea=7),
        e.KeepVetoed(experiment=1, why=words),
        e.ProposalRejected(experiment=5, why=words),
        e.DigestScheduled(channel="C1", at="08:00", zone="Europe/Berlin"),
        e.DigestScheduled(channel="C1"),
        e.BudgetChanged(limit="usd", old=None, new=20.0),
        e.RunStopRequested(mode="now"),
        e.ProgramEdited(base_hash="a", hash="b", text=words),
    ):
        check_message(answers.recorded("slack:T1/U1", answers.outcome(state, Accepted(TAG, data), 99, "UTC")))


def test_help_and_refusals_fit_slack() -> None:
    for role in (None, "look", "operate", "admin"):
        check_message(answers.help_all(role))  # type: ignore[arg-type]
    for verb in VERBS:
        check_message(answers.help_verb(verb.name.partition(" ")[0]))
    why = refusal(Person("U3", "T1"), Stop(), SLACK, "T1", "C1")
    assert why is not None and why in said(check_message(answers.denied(why)).blocks)
    check_message(answers.not_recorded_yet())


# ---------------------------------------------------------------- what they say


def test_the_status_says_what_a_person_must_know_and_offers_what_can_be_done() -> None:
    night = whole_night()
    message = status_of(night)
    words = said(message.blocks)
    for part in (
        "val_",
        "1.100000, experiment 1",
        "4 experiments: 1 kept, 2 discarded, 1 crashed",
        "experiment 5 waits",
    ):
        assert part in words.replace("\u200b", "") or part in words
    assert clicks(message) == {"pause": (TAG, None), "stop": (TAG, None)}
    assert "no loop is running" in said(status_of(night, loop=None).blocks)


def test_the_buttons_of_a_run_follow_its_state() -> None:
    night = whole_night()
    night.add(e.RunPauseRequested(), actor="cli:ada")
    assert set(clicks(status_of(night))) == {"resume", "stop"}
    night.add(e.RunPaused(why="asked"))
    assert set(clicks(status_of(night))) == {"resume", "stop"}
    night.add(e.RunStopRequested())
    assert set(clicks(status_of(night))) == {"stop_now"}
    night.add(e.RunFinished(reason="stopped", why="stopped by request"))
    assert not clicks(status_of(night))
    assert set(clicks(status_of(night, "nov22"))) == {"stop"}


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0, set()),
        (1, {"veto"}),
        (2, {"again"}),
        (3, {"again"}),
        (4, {"again"}),
        (5, {"approve", "reject"}),
    ],
)
def test_an_experiment_offers_what_can_be_asked_of_it(number: int, expected: set[str]) -> None:
    found = clicks(experiment_of(whole_night(), number))
    assert set(found) == expected
    assert all(about == (TAG, number) for about in found.values())


def test_who_may_only_look_gets_no_buttons() -> None:
    night = whole_night()
    view = views.status(night.state, night.run, LOOP, NOW)
    assert not clicks(answers.status(view, night.state, NOW, may=False))
    story = night.story(5)
    assert not clicks(story_view.experiment(night.state, night.run, story, None, LOOP, {}, may=False))


def test_the_story_of_a_keep_says_what_was_meant_and_what_came_of_it() -> None:
    words = said(experiment_of(whole_night(), 1).blocks)
    for part in ("✅ keep", "*hypothesis*", "*expected*", "*cost*  0.0100 usd", "approved", "<@U2>", "gain +0.100000"):
        assert part in words
    assert "*idea*  " in words and "(used)" in words


def test_a_proposal_that_waits_shows_its_code() -> None:
    words = said(experiment_of(whole_night(), 5).blocks)
    assert "+LR = 'a longer warmdown'" in words and "proposed, waits for approval" in words


def test_a_keep_taken_back_names_who_asked() -> None:
    words = said(experiment_of(whole_night(), 4).blocks)
    assert "off the branch by the veto of 4, asked by <@U2> (a longer warmdown)" in words


def test_long_results_show_the_last_rows_and_say_so() -> None:
    night = whole_night()
    for number in range(6, 46):
        night.propose(number)
        night.decide(number, "discard", 1.5, -0.4)
    message, file = answers.results(TAG, "val_bpb", night.results.rows(TAG), night.results.tsv(TAG))
    words = said(check_message(message).blocks)
    assert "the last 15 of 45 results" in words and "The file results-nov21.tsv follows." in words
    assert file is not None and file.name == "results-nov21.tsv"
    assert "  45  discard" in words and "  20  discard" not in words


def test_a_run_without_a_verdict_has_no_file() -> None:
    message, file = answers.results(TAG, "val_bpb", (), "commit\tval_bpb\n")
    assert file is None and "has no verdict yet" in said(message.blocks)


def test_a_long_diff_says_where_the_rest_is() -> None:
    night = whole_night("+ x = 1\n" * 2_000)
    words = said(check_message(story_view.diff(night.story(1))).blocks)
    assert "`" not in words and "nightshift experiment diff 1 --tag nov21 on the machine" in words.replace("\n", "")


def test_a_log_is_shown_from_its_end() -> None:
    night = whole_night()
    log = "".join(f"step {n}\r" for n in range(5)) + "\n" + "".join(f"line {n}\n" for n in range(200)) + "the end\n"
    words = said(check_message(story_view.log_tail(night.story(1), log)).blocks)
    assert "the end" in words and "line 152" in words and "line 150\n" not in words and "step" not in words
    words = said(check_message(story_view.log_tail(night.story(1), "y" * 99_999 + "\n" + "z" * 250)).blocks)
    assert "z" * 250 in words and "y" * 301 not in words
    assert "has no finished training yet" in said(story_view.log_tail(night.story(5)).blocks)


def test_many_ideas_are_counted() -> None:
    night = whole_night()
    for number in range(60):
        night.add(e.IdeaSuggested(text=f"idea {number}"), run="", actor="slack:T1/U2")
    words = said(check_message(answers.ideas(views.ideas(night.ideas.all(), night.state))).blocks)
    assert "61 open, 1 answered" in words and "idea 59" in words and "37 more" in words


def test_whoami_gives_the_ids_that_the_settings_take() -> None:
    person = Person("U7", "T1", groups=frozenset({"S2", "S9"}))
    words = said(answers.whoami(person, "operate", SLACK, "C5", "Europe/Berlin").blocks)
    for part in ("`U7`", "`T1`", "`S2`", "`C5`", "operate: you may look, and start", "Europe/Berlin"):
        assert part in words
    assert "S9" not in words


def test_a_mistake_shows_the_usage_of_what_was_meant() -> None:
    found = parse("veto 12")
    assert isinstance(found, Mistake)
    words = said(check_message(answers.mistake(found)).blocks)
    assert "Missing: WHY." in words and "/nightshift veto N [--tag TAG] WHY" in words


def test_an_error_can_be_quoted() -> None:
    assert "e-1234" in said(check_message(answers.failed("e-1234")).blocks)


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("use `nightshift status`", "use `/nightshift status`"),
        ("`nightshift start TAG` starts one", "`/nightshift start TAG` starts one"),
        ("`nightshift start TAG --from autoresearch/a`", "`/nightshift start TAG --from autoresearch/a`"),
        ("`nightshift stop` ends it", "`/nightshift stop` ends it"),
        ("`nightshift stop --now`", "`/nightshift stop now`"),
        ("`nightshift stop nov21 --now`", "`/nightshift stop now nov21`"),
        ("`nightshift pause --now`", "`nightshift pause --now`"),
        ("`nightshift status --watch`", "`nightshift status --watch`"),
        ("`nightshift idea list` shows them", "`/nightshift ideas` shows them"),
        ("`nightshift idea list --all`", "`nightshift idea list --all`"),
        ("`nightshift experiment show 9`", "`/nightshift experiment 9`"),
        ("`nightshift experiment approve 9`", "`/nightshift approve 9`"),
        ("`nightshift loop` serves it", "`nightshift loop` serves it"),
        ("`nightshift results a --figure a.png`", "`nightshift results a --figure a.png`"),
    ],
)
def test_the_commands_in_a_sentence_are_those_of_slack(sentence: str, expected: str) -> None:
    assert answers.here(sentence) == expected


def test_every_refusal_of_the_requests_reads_as_one_sentence() -> None:
    state = whole_night().state
    for answer in (
        requests.stop(state, "nov2"),
        requests.veto(state, None, 0),
        requests.withdraw_idea(state, 3),
        requests.resume(state, None),
        requests.start(state, TAG, "UTC"),
    ):
        assert isinstance(answer, requests.Refused)
        words = said(check_message(answers.refused(answer.why)).blocks)
        assert words[0].isupper() and words.rstrip().endswith((".", "?"))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            e.RunRequested(
                tag="nov23",
                from_ref="autoresearch/nov21",
                zone="Europe/Berlin",
                limits=e.Limits(experiments=10, until="2026-11-22T07:00:00.000000Z", usd=5.0),
            ),
            "Asked for the run nov23 from autoresearch/nov21 (10 experiments, until 2026-11-22 08:00:00 Europe/Berlin, "
            "5.00 usd). It waits its turn behind nov21, nov22.",
        ),
        (e.RunPauseRequested(), "Asked: nov21 is to pause after the experiment in hand."),
        (e.KeepVetoed(experiment=1, why="slow"), "every keep built on it. Because: slow"),
        (e.BudgetChanged(limit="usd", old=20.0, new=50.0), "Changed: usd of nov21 is 50 (was 20)."),
        (e.DigestScheduled(channel="C1", at="07:00", zone="UTC"), "The digest of this channel comes at 07:00 UTC"),
        (e.DigestScheduled(channel="C1"), "No more digests here."),
        (e.IdeaSuggested(text="more heads"), "after the one that waits before it is asked to use it"),
    ],
)
def test_what_was_asked_is_told_in_a_sentence(data: e.Data, expected: str) -> None:
    assert expected in answers.outcome(whole_night().state, Accepted(TAG, data), 99, "Europe/Berlin")


def test_the_channel_is_told_who_asked_and_that_nobody_serves_it() -> None:
    words = said(answers.recorded("slack:T1/U2", "Asked: nov21 is to go on.", waits=True).blocks)
    assert words.startswith("<@U2>: Asked: nov21 is to go on.") and "No loop is running" in words
    assert "No loop" not in said(answers.recorded("cli:ada", "Asked.").blocks)


@quick
@given(st.lists(texts, min_size=1, max_size=4))
def test_a_code_span_never_lets_text_out(words: list[str]) -> None:
    """Text in backticks becomes a styled span; whatever it holds stays one text."""
    shown = answers.sentence("a `" + "` b `".join(words) + "` c")
    check_message(shown)
    assert all(span["type"] == "text" for span in shown.blocks[0]["elements"][0]["elements"])
