"""What the loop asks a proposer, and what it gets back. Pure.

A proposer looks at a commit and at what was tried, and answers with an edit. It never touches git, the
log or the clock of the run; the same ask may come again after a crash, with the next number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from loop.errors import LoopError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from eventstore.events import FileEdit, Purpose, Tokens, Verdict

DESCRIPTION_MAX = 200
"""Characters of a description, one line; results.tsv cuts what is longer."""


@dataclass(frozen=True, slots=True)
class Tried:
    """A decided experiment as a proposer sees it. *score* is None for a crash; *edits* is empty for the baseline."""

    experiment: int
    edits: tuple[FileEdit, ...]
    verdict: Verdict
    score: float | None
    description: str


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
        program: The research instructions.
        history: Every verdict so far, oldest first.
        in_flight: Edits of experiments without a verdict yet, in the order of their numbers.
        seed: The run's seed; with *experiment* and *ask* it fixes whatever is drawn at random.
        metric: What the score is called.
        crash_tail: The end of the crashed training's log; empty unless the purpose is "repair".
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
    in_flight: tuple[tuple[FileEdit, ...], ...]
    seed: int
    metric: str
    direction: Literal["minimize", "maximize", "pass"]
    crash_tail: str = ""


@dataclass(frozen=True, slots=True)
class Proposal:
    """
    An answer. Nothing of it has run or been checked.

    *usd* is None where the price is unknown and 0.0 where it was free; *seconds* is how long it took.
    """

    description: str
    edits: tuple[FileEdit, ...]
    hypothesis: str = ""
    expected_effect: str = ""
    rationale: str = ""
    model: str = ""
    stop_reason: str = ""
    tokens: Tokens | None = None
    usd: float | None = 0.0
    seconds: float = 0.0


class ProposalError(LoopError):
    """
    An ask for a proposal came to nothing.

    Attributes:
        failure: Its class: "exhausted" (nothing is left to propose), "no_repair" (this proposer cannot
            mend a crash), or another word of the proposer's own.
        why: One sentence.
        usd: What it cost all the same; None if the price is unknown.
        tokens: What the vendor counted, None if it was no model.
    """

    def __init__(self, failure: str, why: str, usd: float | None = 0.0, tokens: Tokens | None = None) -> None:
        self.failure = failure
        self.why = why
        self.usd = usd
        self.tokens = tokens
        super().__init__(why)


@dataclass(frozen=True, slots=True)
class Broken:
    """Stands for a proposer that cannot be made: it answers every ask with *why*."""

    kind: str
    why: str
    can_repair: bool = False

    async def propose(self, _ask: Ask) -> Proposal:
        raise ProposalError("broken", self.why)


class Proposer(Protocol):
    """Whoever answers asks. Cancelling `propose` must leave nothing at work."""

    @property
    def kind(self) -> str:
        """The word of `proposer.kind`."""

    @property
    def can_repair(self) -> bool:
        """Whether an ask with the purpose "repair" makes sense."""

    async def propose(self, ask: Ask) -> Proposal:
        """Answer one ask. Raises `ProposalError` if it comes to nothing."""
