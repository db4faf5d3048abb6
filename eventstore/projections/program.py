"""program.md through time: which text is in force, and every text there ever was. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from eventstore.events import ProgramEdited, ProgramRecorded, ProposalRequested
from eventstore.projections.results import Results

if TYPE_CHECKING:
    from collections.abc import Iterable

    from eventstore.envelope import Event


class ProgramVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version. *base_hash* is the version its author had seen, empty for one that the loop found in git."""

    position: int
    at: str
    actor: str
    hash: str
    base_hash: str
    text: str


class Program:
    """The versions of program.md, folded event by event with `apply`. The newest is in force."""

    def __init__(self) -> None:
        self._versions: list[ProgramVersion] = []
        self._texts: dict[str, str] = {}

    def apply(self, event: Event) -> None:
        """Take in the next event of the log."""
        data = event.data
        if not isinstance(data, ProgramRecorded | ProgramEdited):
            return
        version = ProgramVersion(
            position=event.position,
            at=event.at,
            actor=event.actor,
            hash=data.hash,
            base_hash=data.base_hash if isinstance(data, ProgramEdited) else "",
            text=data.text,
        )
        self._versions.append(version)
        self._texts[data.hash] = data.text

    @property
    def in_force(self) -> ProgramVersion | None:
        """The newest version, or None while there is none."""
        return self._versions[-1] if self._versions else None

    @property
    def versions(self) -> tuple[ProgramVersion, ...]:
        """All versions, oldest first; a text that came back has two."""
        return tuple(self._versions)

    def text(self, text_hash: str) -> str | None:
        """The text with that hash, or None if the log has never seen it."""
        return self._texts.get(text_hash)


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a version: *experiments* that ran under it and have a verdict, *kept* those on their branch."""

    experiments: int = 0
    kept: int = 0


class Uses:
    """
    What came of each version, folded event by event with `apply`.

    An experiment ran under the version that its last `proposal.requested` names; of a text that came back, under
    the newer one. Baselines have no proposal and count nowhere.
    """

    def __init__(self) -> None:
        self._newest: dict[str, int] = {}  # position of the newest version, by its hash
        self._under: dict[tuple[str, int], int] = {}  # position of the version, by run and experiment
        self._results = Results()

    def apply(self, event: Event) -> None:
        """Take in the next event of the log."""
        data = event.data
        if isinstance(data, ProgramRecorded | ProgramEdited):
            self._newest[data.hash] = event.position
        elif isinstance(data, ProposalRequested):
            self._under[event.run, data.experiment] = self._newest.get(data.program_hash, 0)
        else:
            self._results.apply(event)

    def of_versions(self) -> dict[int, Use]:
        """By the position of the version; one that nothing ran under is not in it."""
        found: dict[int, Use] = {}
        for tag in self._results.tags:
            for row in self._results.rows(tag):
                position = self._under.get((tag, row.experiment), 0)
                if position:
                    use = found.get(position, Use())
                    kept = use.kept + (row.status == "keep")
                    found[position] = Use(experiments=use.experiments + 1, kept=kept)
        return found


def program_in_force(events: Iterable[Event]) -> ProgramVersion | None:
    """The newest version among *events*, or None."""
    program = Program()
    for event in events:
        program.apply(event)
    return program.in_force
