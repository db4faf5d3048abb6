"""What the loop asks a proposer, and what it gets back. Pure.

A proposer looks at a commit and at what was tried, and answers with an edit. It never touches git, the
log or the clock of the run; the same ask may come again after a crash, with the next number.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from loop.errors import LoopError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from eventstore.events import FileEdit, ModelCall, Purpose, Tokens, Verdict

DESCRIPTION_MAX = 200
"""Characters of a description, one line; results.tsv cuts what is longer."""


# ---------------------------------------------------------------- the question


@dataclass(frozen=True, slots=True)
class Tried:
    """
    A decided experiment as a proposer sees it; the baseline is not among them.

    Attributes:
        edits: Only where they are constants, which is all that a sweep needs.
        score: None for a crash.
        gain: Positive is better, whatever the direction; None without a score.
        reason: Why the verdict is what it is, one sentence.
        hypothesis: What was meant, cut to a few hundred characters.
        lines: Net lines added.
        error: For a crash, the last line of its log.
    """

    experiment: int
    edits: tuple[FileEdit, ...]
    verdict: Verdict
    score: float | None
    description: str
    gain: float | None = None
    reason: str = ""
    hypothesis: str = ""
    lines: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class InFlight:
    """An experiment without a verdict yet: what it changes and why."""

    experiment: int
    edits: tuple[FileEdit, ...]
    description: str = ""
    hypothesis: str = ""


@dataclass(frozen=True, slots=True)
class Idea:
    """What a person suggested: known by its position in the log."""

    position: int
    text: str
    by: str


@dataclass(frozen=True, slots=True)
class Ask:
    """
    One question to a proposer.

    Attributes:
        ask: Counts the asks of this experiment from 0.
        attempt: The attempt the answer is for.
        purpose: "new", "repair" (mend the crash in *crash_tail*) or "again" (an old edit, on today's best).
        base_commit: The commit that is shown, and that the edits of the answer are meant for.
        files: Text of the editable files at *base_commit*, by path.
        editable: The patterns that say which files may be changed or made.
        program: The research instructions.
        history: Every verdict so far, oldest first.
        in_flight: Experiments without a verdict yet, in the order of their numbers.
        seed: The run's seed; with *experiment* and *ask* it fixes whatever is drawn at random.
        metric: What the score is called.
        budget_s: Seconds of training that each experiment gets.
        best: Score of the best so far, at the tip of the branch; None before the baseline has one.
        best_experiment: Its number.
        baseline: Score of experiment 0.
        noise_floor: Spread of the score from the seed alone, where it was measured.
        idea: What a person wants tried; the answer says whether it is used.
        crash_tail: The end of the crashed training's log; empty unless the purpose is "repair".
        last_failure: Why the ask before this one, for the same experiment, came to nothing; else empty.
        usd_max: The most that answering may cost; None if no limit of money is set.
    """

    tag: str
    experiment: int
    ask: int
    attempt: int
    purpose: Purpose
    base_commit: str
    files: Mapping[str, str]
    program: str
    history: tuple[Tried, ...]
    in_flight: tuple[InFlight, ...]
    seed: int
    metric: str
    direction: Literal["minimize", "maximize", "pass"]
    editable: tuple[str, ...] = ()
    budget_s: float = 0.0
    best: float | None = None
    best_experiment: int | None = None
    baseline: float | None = None
    noise_floor: float | None = None
    idea: Idea | None = None
    crash_tail: str = ""
    last_failure: str = ""
    usd_max: float | None = None


@dataclass(frozen=True, slots=True)
class Objection:
    """Why an edit would be refused: the class of `proposal.failed`, and one precise sentence."""

    failure: str
    why: str


@dataclass(frozen=True, slots=True)
class Past:
    """
    All there is to know of an experiment that is over.

    *tail* is the end of its training's log, without control characters; the child wrote it.
    """

    experiment: int
    description: str
    hypothesis: str
    outcome: str
    diff: str
    tail: str


class Desk(Protocol):
    """What a proposer may do while it thinks; both only look."""

    async def check(self, edits: Sequence[FileEdit]) -> Objection | None:
        """Say what stands against *edits* on the commit of the ask, or None: nothing is written."""

    async def look_up(self, experiment: int) -> Past | None:
        """Read a past experiment of this run from the log, or None if there is none of that number."""


# ---------------------------------------------------------------- the answer


@dataclass(frozen=True, slots=True)
class Spent:
    """What an ask cost. *usd* is None where the price is unknown and 0.0 where it was free."""

    usd: float | None = 0.0
    tokens: Tokens | None = None
    calls: tuple[ModelCall, ...] = ()


FREE = Spent()


@dataclass(frozen=True, slots=True)
class Proposal:
    """
    An answer. Nothing of it has run or been checked.

    Attributes:
        idea_used: Whether it takes up the idea of the ask; None if there was none.
        idea_why: Why it does not.
        prompt_hash: SHA-256 of what a model was told at first, in hexadecimal.
        ignored: Files that an agent touched besides, which are not part of the edit.
    """

    description: str
    edits: tuple[FileEdit, ...]
    hypothesis: str = ""
    expected_effect: str = ""
    rationale: str = ""
    idea_used: bool | None = None
    idea_why: str = ""
    model: str = ""
    stop_reason: str = ""
    spent: Spent = FREE
    prompt_hash: str = ""
    ignored: tuple[str, ...] = ()


class ProposalError(LoopError):
    """
    An ask for a proposal came to nothing.

    Attributes:
        failure: Its class, one of `loop/failures`.
        why: One sentence.
        spent: What it cost all the same.
        retry_after_s: How long the vendor asks to wait, None if it does not say.
        prompt_hash: As in `Proposal`.
        description, edits: Of the proposal that was refused, where one came.
    """

    def __init__(
        self,
        failure: str,
        why: str,
        spent: Spent = FREE,
        *,
        retry_after_s: float | None = None,
        prompt_hash: str = "",
        description: str = "",
        edits: tuple[FileEdit, ...] = (),
    ) -> None:
        self.failure = failure
        self.why = why
        self.spent = spent
        self.retry_after_s = retry_after_s
        self.prompt_hash = prompt_hash
        self.description = description
        self.edits = edits
        super().__init__(why)


@dataclass(frozen=True, slots=True)
class Broken:
    """Stands for a proposer that cannot be made: it answers every ask with *why*."""

    kind: str
    why: str
    can_repair: bool = False
    worst_usd: float | None = field(default=0.0)

    async def propose(self, _ask: Ask, _desk: Desk) -> Proposal:
        raise ProposalError("broken", self.why)


class Proposer(Protocol):
    """Whoever answers asks. Cancelling `propose` must leave nothing at work."""

    @property
    def kind(self) -> str:
        """The word of `proposer.kind`."""

    @property
    def can_repair(self) -> bool:
        """Whether an ask with the purpose "repair" makes sense."""

    @property
    def worst_usd(self) -> float | None:
        """The most that one ask can cost; 0.0 if it is free, None if the price is unknown."""

    async def propose(self, ask: Ask, desk: Desk) -> Proposal:
        """Answer one ask. Raises `ProposalError` if it comes to nothing."""
