"""A night as the log has it, with any texts in it, for the tests of what people are shown when they ask."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from bot import blocks
from bot.message import Message, View
from eventstore import events as e
from eventstore.envelope import Event, format_at
from eventstore.projections.ideas import Ideas
from eventstore.projections.program import Program
from eventstore.projections.results import Results
from eventstore.projections.run_state import Run, State
from eventstore.projections.story import Story
from eventstore.requests import text_hash

BEGAN = datetime(2026, 11, 20, 20, tzinfo=UTC)
NOW = datetime(2026, 11, 21, 8, tzinfo=UTC)
TAG = "nov21"
LOOP = "pid 7 on box"

HOSTILE = [
    "<!channel> <@U999> <https://evil.example|click>",
    "```\n*bold* _it_ ~no~ `code` ```",
    "&lt;!here&gt; & < >",
    "\x1b[31mred\x07\x00\u202e\u2066 turned",
    ":tada: #general @here",
    "line one\nline two\r\nline three\tcolumn",
    "😀" * 3_000,
    "&" * 5_000,
    "`" * 4_000,
    "x" * 100_000,
    "\n" * 500,
    "",
    " ",
]
"""Texts that mention, format, end a block of code, are too long, or are nothing."""

texts = st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
"""Any text that a log can hold."""


class Night:
    """
    Events in memory, and everything folded from them.

    Every text of a proposal, a reason, an idea and a name in it is *words*.
    """

    def __init__(self, words: str = "a longer warmdown", *, empty: bool = False) -> None:
        self.words = words
        self.events: list[Event] = []
        self.state, self.results, self.ideas, self.program = State(), Results(), Ideas(), Program()
        if empty:
            return
        settings = {
            "objective": {"name": "val_bpb", "direction": "minimize"},
            "proposer": {"kind": "claude", "approval": "all"},
            "claude": {"model": "m", "prices": {"m": {}}},
        }
        text = f"# Program\n\n{words}\n"
        self.add(e.ProgramRecorded(hash=text_hash(text), text=text), run="")
        self.add(e.RunRequested(tag=TAG, from_ref="HEAD", zone="Europe/Berlin"), actor="slack:T1/U1")
        self.add(
            e.RunStarted(
                branch=f"autoresearch/{TAG}",
                base_commit="b" * 40,
                settings=settings,
                limits=e.Limits(experiments=100, until="2026-11-21T09:00:00.000000Z", usd=20.0),
                program_hash=text_hash(text),
                harness_hash="h",
                settings_hash="s",
                seed=1,
                host="box",
                device="cpu",
                sandbox="none",
                versions={},
            )
        )

    def add(self, data: e.Data, run: str = TAG, actor: str = "loop@box") -> int:
        """Append one event; its position."""
        position = len(self.events) + 1
        at = format_at(BEGAN + timedelta(minutes=position))
        event = Event(position, f"id-{position}", run, data.TYPE, data.VERSION, at, actor, None, data, b"")
        self.events.append(event)
        for fold in (self.state, self.results, self.ideas, self.program):
            fold.apply(event)
        return position

    @property
    def run(self) -> Run:
        return self.state.runs[TAG]

    def story(self, number: int) -> Story:
        told = Story(TAG, number)
        for event in self.events:
            told.apply(event)
        return told

    def propose(self, number: int, *, idea: int | None = None) -> None:
        """A proposal that arrives."""
        asked = e.ProposalRequested(
            experiment=number, ask=0, kind="claude", purpose="new", base_commit="b", program_hash="p", idea=idea
        )
        self.add(asked)
        edits = (e.SetConstants("train.py", {"LR": self.words}), e.WholeFile("other.py", self.words))
        received = e.ProposalReceived(
            experiment=number,
            ask=0,
            base_commit="b",
            description=self.words,
            edits=edits,
            hypothesis=self.words,
            expected_effect=self.words,
            rationale=self.words,
            model=self.words,
            usd=0.01,
            seconds=2.0,
        )
        self.add(received)

    def decide(self, number: int, verdict: e.Verdict, score: float | None, gain: float | None = None) -> None:
        """An experiment from its commit to its verdict, and to the branch if it is kept."""
        commit = f"{number:040x}"
        best = self.run.best.score if self.run.best is not None else None
        trial = {"experiment": number, "attempt": 0, "trial": 0}
        done: list[e.Data] = [
            e.ExperimentPrepared(
                experiment=number, attempt=0, step="first", base_commit="b", tree="t", subject="s", diff=self.words
            ),
            e.ExperimentCommitted(experiment=number, attempt=0, commit=commit, tree="t", ref="r"),
            e.TrainingRequested(
                **trial, slot=0, commit=commit, command=("python",), seed=1, budget_s=1, timeout_s=2, nonce="n"
            ),
            e.TrainingFinished(
                **trial,
                nonce="n",
                outcome="scored" if score is not None else "crash",
                seconds=300,
                score=score,
                peak_memory_mb=512,
                why=self.words,
                tail=self.words,
            ),
        ]
        if score is not None:
            done.append(e.ScoringRequested(**trial, evaluator="e"))
            done.append(e.ScoringFinished(**trial, outcome="scored", score=score))
        done.append(
            e.ExperimentDecided(
                experiment=number,
                attempt=0,
                verdict=verdict,
                reason=self.words,
                trials=1,
                score=score,
                best_before=best,
                gain=gain,
            )
        )
        if verdict == "keep" and number:
            done.append(e.BranchMoved(experiment=number, from_commit="b", to_commit=commit, why="keep"))
        for data in done:
            self.add(data)


def whole_night(words: str = "a longer warmdown") -> Night:
    """A baseline, a keep of someone's idea, a discard, a crash, a keep taken back, a proposal that waits, a queue."""
    night = Night(words)
    night.decide(0, "keep", 1.2)
    idea = night.add(e.IdeaSuggested(text=words, by=words), run="", actor="slack:T1/U2")
    night.add(e.IdeaSuggested(text=words), run="", actor="slack:T1/U3")
    night.propose(1, idea=idea)
    night.add(e.ProposalApproved(experiment=1), actor="slack:T1/U2")
    night.add(e.IdeaUsed(idea=idea, experiment=1))
    night.decide(1, "keep", 1.1, 0.1)
    night.propose(2)
    night.decide(2, "discard", 1.3, -0.2)
    night.propose(3)
    night.decide(3, "crash", None)
    night.propose(4)
    night.decide(4, "keep", 1.0, 0.1)
    night.add(e.KeepVetoed(experiment=4, why=words), actor="slack:T1/U2")
    night.add(e.BranchMoved(experiment=4, from_commit="b", to_commit="c", why="veto"))
    night.propose(5)
    night.add(e.RunRequested(tag="nov22", from_ref="HEAD", zone="UTC"), run="nov22", actor="cli:ada")
    night.add(e.TroubleNoticed(kind="disk", what=words, since="2026-11-21T01:00:00.000000Z"), run="")
    return night


def check_message(message: Message) -> Message:
    """Refuse a message that Slack would not take, or that mentions anyone by a text in it."""
    assert not blocks.problems({"text": message.text, "blocks": list(message.blocks)}, "message")
    assert not pings(message.text, message.blocks)
    return message


def check_modal(view: View) -> View:
    """As `check_message`, for a modal."""
    assert not blocks.problems(view, "modal")
    assert not pings("", view["blocks"])
    return view


def check_home(view: View) -> View:
    """As `check_message`, for the Home tab."""
    assert not blocks.problems(view, "home")
    assert not pings("", view["blocks"])
    return view


def pings(text: str, found: Iterable[object]) -> list[str]:
    """Every mrkdwn text with a mention or a link that only a hostile text can have made."""
    bad = ("<!channel", "<!here", "<@U999", "<https://evil")
    return [part for part in (text, *_mrkdwn(found)) if any(mark in part for mark in bad)]


def _mrkdwn(value: object) -> Iterable[str]:
    if isinstance(value, dict):
        if value.get("type") == "mrkdwn":
            yield value["text"]
        for part in value.values():
            yield from _mrkdwn(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _mrkdwn(part)


def said(found: object) -> str:
    """Every text that a reader sees, one a line."""
    return "\n".join(_texts(found))


def _texts(value: object) -> Iterable[str]:
    if isinstance(value, dict):
        if isinstance(value.get("text"), str):
            yield value["text"]
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)
