"""The proposer that answers from a script: the twin of the real ones, for tests and rehearsals. Pure.

A script is data, so a loop in another process can be given one from a file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from eventstore.events import FileEdit
from loop.errors import BadScript
from loop.proposers.base import Ask, Desk, Proposal, ProposalError, Spent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    Gate = Callable[[Ask], Awaitable[object]]


class Entry(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """
    One answer of a script.

    It answers *experiment*, where *ask* and *attempt* are given only that ask and that attempt. With
    *fail*, a class of `proposal.failed`, it fails with *why* instead.
    """

    experiment: int
    ask: int | None = None
    attempt: int | None = None
    description: str = ""
    hypothesis: str = ""
    edits: tuple[FileEdit, ...] = ()
    usd: float | None = 0.0
    fail: str = ""
    why: str = ""

    def answers(self, ask: Ask) -> bool:
        return self.experiment == ask.experiment and self.ask in (None, ask.ask) and self.attempt in (None, ask.attempt)


class Scripted:
    """
    Answers each ask by the first entry that fits it, and fails as "exhausted" when there is none.

    Args:
        script: Entries in order, or a function from the ask to one (None: nothing fits).
        gate: Awaited before each answer, so that a test decides when it comes.
        can_repair: Whether it says that it can mend crashes.
    """

    kind = "scripted"
    worst_usd = 0.0

    def __init__(
        self,
        script: Sequence[Entry] | Callable[[Ask], Entry | None],
        *,
        gate: Gate | None = None,
        can_repair: bool = True,
    ) -> None:
        self._script = script
        self._gate = gate
        self.can_repair = can_repair

    @classmethod
    def from_data(cls, data: object, *, gate: Gate | None = None, can_repair: bool = True) -> Scripted:
        """
        Read a script from plain data as JSON or TOML give it: a list of tables with the fields of `Entry`.

        An edit is a table with `edit = "set"` (path, values), `"blocks"` (path, blocks) or `"file"` (path, text).

        Raises:
            BadScript: Naming the entry and the field that cannot be read.
        """
        try:
            entries = msgspec.convert(data, tuple[Entry, ...])
        except msgspec.ValidationError as error:
            raise BadScript(f"the script of proposals cannot be read: {error}") from error
        return cls(entries, gate=gate, can_repair=can_repair)

    async def propose(self, ask: Ask, _desk: Desk | None = None) -> Proposal:
        if self._gate is not None:
            await self._gate(ask)
        entry = self._find(ask)
        if entry is None:
            raise ProposalError("exhausted", f"the script has no answer for experiment {ask.experiment}, ask {ask.ask}")
        if entry.fail:
            raise ProposalError(entry.fail, entry.why or f"the script fails here with {entry.fail}", Spent(entry.usd))
        return Proposal(entry.description, entry.edits, hypothesis=entry.hypothesis, spent=Spent(entry.usd))

    def _find(self, ask: Ask) -> Entry | None:
        if callable(self._script):
            return self._script(ask)
        return next((entry for entry in self._script if entry.answers(ask)), None)


def to_data(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """The plain data that `Scripted.from_data` reads, to write a script into a JSON file."""
    data: list[dict[str, Any]] = msgspec.to_builtins(list(entries))
    return data
