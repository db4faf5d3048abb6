"""No text of a model, a log or a person leaves the place that a view gives it, in any view.

Slack obeys text in two places: a `mrkdwn` text and the `text` of a message. There only what the bot itself means may
stand between `<` and `>`: a person of the log, a configured group or channel, a time, a link of its own. Everything
else (`plain_text`, `rich_text`) is shown as it is, if no element of it is one that mentions.
"""

from __future__ import annotations

import inspect
import itertools
import re
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from bot import access, blocks, html, intents, values
from bot.message import Message
from bot.views import answers, digest, home, modals, thread
from bot.views import story as story_view
from eventstore import events as e
from eventstore import requests, views
from eventstore.projections.digest import Window
from eventstore.projections.digest import digest as fold
from eventstore.projections.program import ProgramVersion
from eventstore.settings import Slack
from tests.bot.looked_at import LOOP, NOW, TAG, whole_night
from tests.bot.nights import Night

SLACK = Slack(channel="C1", channels=("C2",), admins=("U1",), operators=("S2", "U2"))
URL = "https://example.slack.com/archives/C1/p1700000000000100"

OURS = re.compile(
    r"<(@U[123]|#C[12]|!subteam\^S2"
    r"|!date\^\d+\^\{date_short\} \{time\}\|[0-9: UTC-]+"
    rf"|{re.escape(URL)}\|(here|open it|The thread of [^<>]*))>"
)
"""What the bot means: people of the log and of the settings, its channels, times, links to its own messages."""
ENTITY = re.compile("&(amp|lt|gt);")
CODE = re.compile("`[^`\n\u200b]+`")
TAKEN = re.compile("[*_~`]\u200b|:[a-z_]+:")
"""Marks without their meaning, and emoji by name."""
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
MENTIONING = {"user", "usergroup", "channel", "broadcast", "link", "team", "date", "emoji"}

PIECES = (
    "<!channel>",
    "<!here|here>",
    "<!everyone>",
    "<!subteam^S9>",
    "<@U999>",
    "<@W999|ada>",
    "<#C999|general>",
    "<https://evil.example|click here>",
    "<mailto:a@b.example|mail>",
    "https://evil.example/preview",
    "@channel",
    "#general",
    "&lt;!channel&gt;",
    "&amp;lt;!channel&amp;gt;",
    "&",
    "<",
    ">",
    "|",
    "```",
    "`",
    "*",
    "_",
    "~",
    ":tada:",
    "\n",
    "\r\n",
    "\t",
    "\n> quoted",
    "\n```\n<!channel>\n```\n",
    "\x1b[31m",
    "\x1b]8;;https://evil.example\x07",
    "\x00",
    "\x07",
    "\u202e",
    "\u2066",
    "\u200b",
    "\ufeff",
    "{date_short}",
    "`nightshift start x`",
    "`nightshift stop <!channel>`",
    "# Heading",
    "---",
    "</pre><script>alert(1)</script>",
    "😀",
    "word",
)
hostile = st.lists(st.sampled_from(PIECES) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=12)
texts = hostile.map("".join) | st.sampled_from(PIECES).map(lambda piece: piece * 2_000)


# ---------------------------------------------------------------- what Slack would obey


def obeyed(part: Any) -> Iterator[str]:
    """Every mrkdwn text. Checks on the way that no address in one becomes a link by itself."""
    if isinstance(part, dict):
        if part.get("type") == "mrkdwn":
            assert part.get("verbatim") is True, "Slack would look for links and names in it"
            yield part["text"]
        for inside in part.values():
            yield from obeyed(inside)
    elif isinstance(part, list | tuple):
        for inside in part:
            yield from obeyed(inside)


def kinds(part: Any) -> Iterator[str]:
    """The type of every element in rich text."""
    if isinstance(part, dict):
        yield str(part.get("type"))
        for name in ("elements", "blocks"):
            yield from kinds(part.get(name, ()))
    elif isinstance(part, list | tuple):
        for inside in part:
            yield from kinds(inside)


def check_obeyed(text: str) -> None:
    """Nothing in *text* is obeyed that the bot does not mean."""
    left = OURS.sub("", text)
    assert "<" not in left and ">" not in left, text
    assert "&" not in ENTITY.sub("", left), text
    for line in CODE.sub("", TAKEN.sub("", left)).split("\n"):
        assert "`" not in line and "~" not in line, text
        assert line.count("*") % 2 == 0 and line.count("_") % 2 == 0, text
    assert not CONTROLS.search(text), text


def check(payload: Message | dict[str, Any]) -> None:
    """One message or view: Slack takes it, and obeys nothing in it that the bot does not mean."""
    if isinstance(payload, Message):
        shown: list[Any] = [*payload.blocks, *payload.extra]
        assert blocks.problems({"text": payload.text, "blocks": shown}, "message") == ()
        check_obeyed(payload.text)
        html.page([html.shown(payload)], "a message")
    else:
        shown = payload["blocks"]
        assert blocks.problems(payload, payload["type"]) == ()
    for text in obeyed(shown):
        check_obeyed(text)
    for block in shown:
        if block["type"] == "rich_text":
            assert not MENTIONING.intersection(kinds(block))


# ---------------------------------------------------------------- every view, with the words everywhere


def posts(words: str) -> Iterator[Message]:
    """What the bot posts of a night in which everyone says *words*."""
    night = Night()
    night.ask()
    night.post()
    night.start(approval="all", usd=20.0)
    night.baseline()
    night.say(e.ProgramRecorded(hash="p", text=f"# Goal\n{words}\n"), "")
    night.say(e.ProgramEdited(base_hash="p", hash=words, text=f"# {words}\n{words}"), "", "slack:T1/U1")
    night.say(e.IdeaSuggested(text=words, by=words), "", "slack:T1/U2")
    idea = night.board.position
    more: dict[str, Any] = {"words": words, "hypothesis": words, "expected_effect": words, "model": words}
    for number in range(1, 8):
        if number == 2:
            night.say(e.IdeaUsed(idea=idea, experiment=2))
        night.propose(number, **more)
        yield from _due(night)
        if number == 6:
            night.say(e.ProposalRejected(experiment=6, why=words), actor="slack:T1/U2")
            night.say(e.ExperimentAbandoned(experiment=6, reason="rejected", why=words))
            yield from _due(night)
            continue
        night.say(e.ProposalApproved(experiment=number), actor="slack:T1/U2")
        night.train(number)
        verdict: e.Verdict = "keep" if number in (2, 7) else "crash" if number in (3, 4, 5) else "discard"
        night.decide(number, verdict, score=0.9, reason=words, standing="within_noise" if number == 7 else "confirmed")
        yield from _due(night)
    night.say(e.BudgetWarned(limit="usd", share=0.8))
    night.say(e.TroubleNoticed(kind="disk", what=words, since="2026-11-21T01:00:00.000000Z"))
    night.say(e.ProposerSwitched(from_kind="claude", to_kind="sweep", why=words))
    yield from _due(night)
    night.say(e.RunPaused(why=words))
    night.later(hours=3)
    yield from _due(night)
    night.say(e.RunFinished(reason="stopped", why=words))
    refused = night.ask("nov22")
    night.post()
    night.say(e.RunRefused(request=refused, code="git", why=words, remedy=words), "nov22")
    yield from _due(night)
    yield from _tallied(words)


def _tallied(words: str) -> Iterator[Message]:
    """A run that went on for a while before its thread stood, and that asks nobody before it trains."""
    night = Night()
    night.ask()
    night.start()
    night.baseline()
    night.propose(1, words=words)
    night.train(1)
    night.decide(1, "discard", reason=words)
    yield from _due(night)
    night.propose(2, words=words)
    night.train(2)
    yield from _due(night)


def _due(night: Night) -> Iterator[Message]:
    """What is due, each as it is, marked, and linked; then it is posted."""
    for _ in range(40):
        found = [one for one in night.due() if one.message is not None]
        for one in found:
            assert one.message is not None
            yield one.message
            yield thread.may_repeat(one.message)
            yield thread.linked(one.message, TAG, URL)
        if not any(one.what == "post" for one in found):
            return
        night.post(1)


def told(words: str) -> Iterator[Message]:
    """What people are answered."""
    night = whole_night(words)
    for may in (True, False):
        for run in (night.run, None):
            yield answers.status(views.status(night.state, run, None, NOW), night.state, NOW, may=may)
    yield answers.results(words[:60] or "x", words[:60] or "x", night.results.rows(TAG), words)[0]
    ideas = {
        event.position: e.IdeaSuggested(text=event.data.text, by=event.data.by or event.actor)
        for event in night.events
        if isinstance(event.data, e.IdeaSuggested)
    }
    for number in range(6):
        story = night.story(number)
        row = next((row for row in night.results.rows(TAG) if row.experiment == number), None)
        yield story_view.experiment(night.state, night.run, story, row, LOOP, ideas)
        yield story_view.diff(story)
        yield story_view.log_tail(story)
        yield story_view.log_tail(story, words)
    yield answers.ideas(views.ideas(night.ideas.all(), night.state))
    yield from _sentences(words, night.state)


def _sentences(words: str, state: Any) -> Iterator[Message]:
    yield answers.sentence(words)
    yield answers.refused(words)
    yield answers.failed(words)
    yield answers.not_recorded_yet()
    yield answers.digest_hour("08:00", words, NOW, URL)
    yield answers.digest_hour("08:00", words, None, words)
    yield answers.digest_hour(None, words, None)
    yield answers.whoami(access.Person("U1", "T1", groups=frozenset({"S2"})), "operate", SLACK, "C1", words)
    yield answers.help_all("look")
    yield answers.help_verb("veto")
    for typed in (words, f"start {words}", f"veto 3 {words}", f"--{words}", f"digest at {words}"):
        found = intents.parse(typed)
        if isinstance(found, intents.Mistake):
            yield answers.mistake(found)
    people = (access.Person("U3", "T1"), access.Person("U3", "T9"), access.Person("U3", "T1", is_guest=True))
    for person, asked, channel in itertools.product(people, ("stop", "edit_program"), ("C1", "C9", None)):
        for slack in (SLACK, Slack()):
            why = access.refusal(person, asked, slack, "T1", channel)
            if why is not None:
                yield answers.denied(why)
    limits = e.Limits(experiments=3, usd=2.5)
    for data in (
        e.RunRequested(tag="x", from_ref=words, zone="UTC", limits=limits),
        e.IdeaSuggested(text=words),
        e.KeepVetoed(experiment=1, why=words),
        e.ProposalRejected(experiment=5, why=words),
        e.ProgramEdited(base_hash=words, hash=words, text=words),
    ):
        said = answers.outcome(state, requests.Accepted(TAG, data), 99, "UTC")
        yield answers.recorded("slack:T1/U1", said)
        yield answers.recorded(words, words, waits=True)


def forms(words: str) -> Iterator[dict[str, Any]]:
    """Every modal."""
    base, now = (
        ProgramVersion(
            position=7,
            at="2026-11-21T07:00:00.000000Z",
            actor=actor,
            hash=requests.text_hash(text),
            base_hash="",
            text=text,
        )
        for text, actor in ((f"# Goal\n{words}\n# {words}\nmore\n", "slack:T1/U2"), (f"{words}\nother\n", words))
    )
    form = values.Form(channel="C1", run=TAG, experiment=3, position=9, zone="Europe/Berlin")
    yield modals.start(modals.Defaults(words, words, words, words, words), form)
    yield modals.veto(form, words, [4, 5])
    yield modals.reject(form, words)
    yield modals.program(base, form)
    yield modals.program_text(base)
    yield modals.stale(base, now, f"mine {words}", form, 9)
    changed = modals.submitted(form, base, {"section-0": {"value": {"value": f"# Goal {words}"}}})
    if isinstance(changed, modals.Unconfirmed):
        yield changed.view
    yield modals.error(words)
    yield modals.told(words or "-", words)
    yield modals.loading()
    yield modals.no_program()
    yield modals.unchanged()


def homes(words: str) -> Iterator[dict[str, Any]]:
    """Every Home tab."""
    night = whole_night(words)
    runs = [views.run_view(one, LOOP, NOW) for one in night.state.runs.values()]
    ideas = views.ideas(night.ideas.all(), night.state)
    status = views.status(night.state, night.run, LOOP, NOW)
    for link in (URL, words):
        last = home.LastDigest(NOW - timedelta(days=1), link)
        picture = home.Picture("F1", words)
        yield home.home(status, night.state, runs, ideas, "admin", NOW, picture=picture, digest=last)
    yield home.home(status, night.state, runs, ideas, None, NOW)


def digests(words: str) -> Iterator[Message]:
    """The digest and its replies."""
    night = whole_night(words)
    found = fold(night.events, Window(after=0, to_at="2026-11-21T08:00:00.000000Z"))
    drawn = [digest.picture(run, b"png") for run in found.runs[:1]]
    due_at = datetime(2026, 11, 21, 7, tzinfo=UTC)
    made = digest.digest_messages(found, picture=drawn[0] if drawn else None, due_at=due_at, late_s=3_600)
    yield from (made.head, *made.replies)


def everything(words: str) -> Iterable[Message | dict[str, Any]]:
    yield from posts(words)
    yield from told(words)
    yield from forms(words)
    yield from homes(words)
    yield from digests(words)


@settings(max_examples=15, deadline=None)
@given(texts)
@example("".join(PIECES))
@example("".join(PIECES) * 40)
@example("")
@example(" ")
@example("\u200b" * 2_000)
def test_no_view_lets_a_text_out(words: str) -> None:
    for payload in everything(words):
        check(payload)


def test_that_test_makes_every_view() -> None:
    modules = (answers, digest, home, modals, story_view, thread)
    made = re.compile("Message|View")
    wanted = {
        (module.__file__, name)
        for module in modules
        for name, function in vars(module).items()
        if inspect.isfunction(function)
        and function.__module__ == module.__name__
        and not name.startswith("_")
        and made.search(str(inspect.signature(function).return_annotation))
    }
    called: set[tuple[str, str]] = set()

    def note(frame: FrameType, event: str, _arg: object) -> None:
        if event == "call":
            called.add((frame.f_code.co_filename, frame.f_code.co_name))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        list(everything("a word"))
    finally:
        sys.setprofile(before)
    assert len(wanted) > 30
    assert not {name for file, name in wanted - called}
