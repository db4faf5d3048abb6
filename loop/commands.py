"""What the machine can tell the shell to do, as data. Pure.

`Append` is done at once and needs nothing of the world. Every other command is an effect: the shell
writes its intent where the catalogue has one, does it, and writes its outcome. `key` names an effect
while it is at work; the machine never orders one whose key is in flight.
"""

from __future__ import annotations

from dataclasses import dataclass

from eventstore.envelope import Earlier
from eventstore.events import Data, Purpose, Step

Key = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Append:
    """Write one fact that follows from the log alone. *cause* is what made it due, as in `NewEvent`."""

    run: str
    data: Data
    cause: int | Earlier | None


@dataclass(frozen=True, slots=True)
class StartRun:
    """Check a queued run, take its branch and start it, or refuse it."""

    tag: str
    request: int

    @property
    def key(self) -> Key:
        return ("start", self.tag)


@dataclass(frozen=True, slots=True)
class Propose:
    """
    Ask for a proposal and log the answer.

    *base_commit* is what the proposer is shown: the tip, or for a repair the commit that crashed.
    *known_at* is the position up to which verdicts are shown, the first ask's, so that asking again
    after a crash asks the same question. *kind* is who is asked, *idea* the idea it is asked to use.
    """

    tag: str
    experiment: int
    ask: int
    purpose: Purpose
    attempt: int
    base_commit: str
    cause: int | None
    known_at: int
    kind: str = ""
    again_of: int | None = None
    idea: int | None = None

    @property
    def key(self) -> Key:
        return ("propose", self.tag, self.experiment)


@dataclass(frozen=True, slots=True)
class Prepare:
    """
    Make the tree of an attempt: the edit (or the last attempt's change) on top of *tip*.

    If it does not apply there, *on_conflict* is written instead; the baseline has neither edit nor conflict.
    """

    tag: str
    experiment: int
    attempt: int
    step: Step
    tip: str
    cause: int
    on_conflict: Data | None = None

    @property
    def key(self) -> Key:
        return ("prepare", self.tag, self.experiment)


@dataclass(frozen=True, slots=True)
class Commit:
    """Commit a prepared attempt and keep it under its ref."""

    tag: str
    experiment: int
    attempt: int
    cause: int

    @property
    def key(self) -> Key:
        return ("commit", self.tag, self.experiment)


@dataclass(frozen=True, slots=True)
class Train:
    """Train a commit on a slot."""

    tag: str
    experiment: int
    attempt: int
    trial: int
    slot: int
    commit: str
    cause: int

    @property
    def key(self) -> Key:
        return ("train", self.tag, self.experiment)


@dataclass(frozen=True, slots=True)
class CloseTraining:
    """A training was open when the loop died: close it by the result it left, or as lost."""

    tag: str
    experiment: int
    attempt: int
    trial: int
    nonce: str
    cause: int

    @property
    def key(self) -> Key:
        return ("close", self.tag, self.experiment)  # not "train": what is cut off must end, not begin anew


@dataclass(frozen=True, slots=True)
class Score:
    """
    Score a trained commit; *request* is the open scoring request, or None to write one.

    *checks*: it would be kept, so see besides whether it looks ahead, and score the report rows.
    """

    tag: str
    experiment: int
    attempt: int
    trial: int
    cause: int
    request: int | None = None
    checks: bool = False

    @property
    def key(self) -> Key:
        return ("score", self.tag, self.experiment)


@dataclass(frozen=True, slots=True)
class RunGuard:
    """Run the guard on a candidate for a keep; *request* is the open guard request, or None to write one."""

    tag: str
    experiment: int
    attempt: int
    commit: str
    cause: int
    request: int | None = None

    @property
    def key(self) -> Key:
        return ("guard", self.tag, self.experiment)


@dataclass(frozen=True, slots=True)
class MoveBranch:
    """Move the run's branch by compare-and-set and log it; if it stands elsewhere, pause the run and say so."""

    tag: str
    experiment: int
    from_commit: str
    to_commit: str
    why: str
    cause: int

    @property
    def key(self) -> Key:
        return ("move", self.tag)


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cut off an effect in flight; it closes itself with its outcome event."""

    target: Key

    @property
    def key(self) -> Key:
        return ("cancel", *self.target)


Effect = StartRun | Propose | Prepare | Commit | Train | CloseTraining | Score | RunGuard | MoveBranch
Command = Append | Cancel | Effect
