"""The whole story of one experiment: what was meant, what was made of it, how it ended. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from eventstore import events as e
from eventstore.envelope import Event
from eventstore.projections.run_state import UNCOUNTED_FAILURES


@dataclass(slots=True)
class Training:
    """One training of an attempt; the same trial has another one if the first was lost or stopped."""

    trial: int
    seed: int
    nonce: str
    requested_at: str
    finished: e.TrainingFinished | None = None
    scored: e.ScoringFinished | None = None


@dataclass(slots=True)
class Attempt:
    """A commit of the experiment, from its preparation on."""

    prepared: e.ExperimentPrepared
    committed: e.ExperimentCommitted | None = None
    trainings: list[Training] = field(default_factory=list)
    guard: e.GuardFinished | None = None


@dataclass(frozen=True, slots=True)
class Word:
    """What a person said of an experiment, and when."""

    actor: str
    at: str
    why: str


@dataclass(frozen=True, slots=True)
class IdeaAnswer:
    """What the experiment did with an idea that it was asked to use; *idea* is the idea's position."""

    idea: int
    used: bool
    why: str


@dataclass(frozen=True, slots=True)
class Cost:
    """
    What all asks of an experiment cost, those that came to nothing too.

    Attributes:
        usd: The sum of the known prices.
        unknown: Whether an ask was answered at a price that nobody knows.
        seconds: Wall clock that was spent waiting for answers.
        calls: Calls of a model's API, as far as the proposer tells them.
    """

    usd: float
    unknown: bool
    tokens: e.Tokens
    seconds: float
    calls: int


@dataclass(slots=True)
class Story:
    """
    Experiment *experiment* of the run *tag*, folded from the log with `apply`.

    Attributes:
        asks: Every ask for a proposal, in order; the first says whose edit was taken up, if one was.
        proposals: Every answer, repairs too; the last one with edits of its own is what was tried.
        failures: Asks that came to nothing.
        ideas: What it did with people's ideas.
        vetoes: Of all the run's experiments, because a veto takes later keeps off the branch too.
        taken_up_as: The experiments that took this one's edit up again.
    """

    tag: str
    experiment: int
    began_at: str = ""
    asks: list[e.ProposalRequested] = field(default_factory=list)
    proposals: list[e.ProposalReceived] = field(default_factory=list)
    failures: list[e.ProposalFailed] = field(default_factory=list)
    ideas: list[IdeaAnswer] = field(default_factory=list)
    approved: Word | None = None
    rejected: Word | None = None
    attempts: list[Attempt] = field(default_factory=list)
    remeasures: list[e.ExperimentRemeasureRequested] = field(default_factory=list)
    decided: e.ExperimentDecided | None = None
    decided_at: str = ""
    abandoned: e.ExperimentAbandoned | None = None
    vetoes: dict[int, Word] = field(default_factory=dict)
    taken_up_as: list[int] = field(default_factory=list)

    @property
    def proposal(self) -> e.ProposalReceived | None:
        """The newest proposal, or None: the baseline has none."""
        return self.proposals[-1] if self.proposals else None

    @property
    def answers(self) -> list[e.ProposalReceived | e.ProposalFailed]:
        """
        Proposals and failures in the order in which they came.

        An ask that was cut off is asked again under the same number; a proposal that turned out not to fit when it
        was its turn has its failure behind it, under its own number.
        """
        return sorted([*self.proposals, *self.failures], key=_place)

    @property
    def edits(self) -> tuple[e.FileEdit, ...]:
        """The edits of the newest proposal, or, if none stood, of the newest that was refused; empty if none came."""
        if self.proposals:
            return self.proposals[-1].edits
        return next((failed.edits for failed in reversed(self.failures) if failed.edits), ())

    @property
    def cost(self) -> Cost:
        """What the experiment's proposals cost in all."""
        answers = self.answers
        tokens = [answer.tokens for answer in answers if answer.tokens is not None]
        return Cost(
            usd=sum(answer.usd or 0.0 for answer in answers),
            unknown=any(answer.usd is None for answer in answers),
            tokens=e.Tokens(
                input=sum(one.input for one in tokens),
                cache_write=sum(one.cache_write for one in tokens),
                cache_read=sum(one.cache_read for one in tokens),
                output=sum(one.output for one in tokens),
            ),
            seconds=sum(answer.seconds for answer in answers),
            calls=sum(len(answer.calls) for answer in answers),
        )

    def asked(self, ask: int) -> e.ProposalRequested | None:
        """The newest request with that number, or None."""
        return next((one for one in reversed(self.asks) if one.ask == ask), None)

    def apply(self, event: Event) -> None:
        """Take in the next event of the log; those of other runs and experiments change nothing."""
        data = event.data
        if event.run != self.tag or isinstance(data, e.UnknownEvent):
            return
        if isinstance(data, e.KeepVetoed):
            self.vetoes.setdefault(data.experiment, _word(event, data.why))
        if isinstance(data, e.ProposalRequested) and data.again_of == self.experiment:
            self._taken_up(data.experiment)
        handler = _HANDLERS.get(type(data))
        if handler is not None and getattr(data, "experiment", None) == self.experiment:
            self.began_at = self.began_at or event.at
            handler(self, data, event)

    def _taken_up(self, number: int) -> None:
        if number not in self.taken_up_as:
            self.taken_up_as.append(number)


def _place(answer: e.ProposalReceived | e.ProposalFailed) -> tuple[int, int]:
    if isinstance(answer, e.ProposalReceived):
        return answer.ask, 1
    return answer.ask, 0 if answer.failure in UNCOUNTED_FAILURES else 2


def _word(event: Event, why: str) -> Word:
    return Word(event.actor, event.at, why)


def _asked(story: Story, data: e.ProposalRequested, _event: Event) -> None:
    story.asks.append(data)


def _received(story: Story, data: e.ProposalReceived, _event: Event) -> None:
    story.proposals.append(data)


def _failed(story: Story, data: e.ProposalFailed, _event: Event) -> None:
    story.failures.append(data)


def _idea_used(story: Story, data: e.IdeaUsed, _event: Event) -> None:
    story.ideas.append(IdeaAnswer(data.idea, True, ""))


def _idea_declined(story: Story, data: e.IdeaDeclined, _event: Event) -> None:
    story.ideas.append(IdeaAnswer(data.idea, False, data.why))


def _approved(story: Story, _data: e.ProposalApproved, event: Event) -> None:
    story.approved = _word(event, "")


def _rejected(story: Story, data: e.ProposalRejected, event: Event) -> None:
    story.rejected = _word(event, data.why)


def _prepared(story: Story, data: e.ExperimentPrepared, _event: Event) -> None:
    story.attempts.append(Attempt(data))


def _committed(story: Story, data: e.ExperimentCommitted, _event: Event) -> None:
    if story.attempts:
        story.attempts[-1].committed = data


def _training_requested(story: Story, data: e.TrainingRequested, event: Event) -> None:
    if story.attempts:
        story.attempts[-1].trainings.append(Training(data.trial, data.seed, data.nonce, event.at))


def _training_finished(story: Story, data: e.TrainingFinished, _event: Event) -> None:
    for training in _trainings(story):
        if training.nonce == data.nonce:
            training.finished = data
            return


def _scored(story: Story, data: e.ScoringFinished, _event: Event) -> None:
    for training in _trainings(story):
        if training.trial == data.trial:
            training.scored = data
            return


def _trainings(story: Story) -> list[Training]:
    """Those of the newest attempt, the newest first."""
    return story.attempts[-1].trainings[::-1] if story.attempts else []


def _guarded(story: Story, data: e.GuardFinished, _event: Event) -> None:
    if story.attempts:
        story.attempts[-1].guard = data


def _remeasured(story: Story, data: e.ExperimentRemeasureRequested, _event: Event) -> None:
    story.remeasures.append(data)


def _decided(story: Story, data: e.ExperimentDecided, event: Event) -> None:
    story.decided, story.decided_at = data, event.at


def _abandoned(story: Story, data: e.ExperimentAbandoned, event: Event) -> None:
    story.abandoned, story.decided_at = data, event.at


_HANDLERS: dict[type, Callable[[Story, Any, Event], None]] = {
    e.ProposalRequested: _asked,
    e.ProposalReceived: _received,
    e.ProposalFailed: _failed,
    e.IdeaUsed: _idea_used,
    e.IdeaDeclined: _idea_declined,
    e.ProposalApproved: _approved,
    e.ProposalRejected: _rejected,
    e.ExperimentPrepared: _prepared,
    e.ExperimentCommitted: _committed,
    e.TrainingRequested: _training_requested,
    e.TrainingFinished: _training_finished,
    e.ScoringFinished: _scored,
    e.GuardFinished: _guarded,
    e.ExperimentRemeasureRequested: _remeasured,
    e.ExperimentDecided: _decided,
    e.ExperimentAbandoned: _abandoned,
}
