"""The queue of people's ideas. Pure.

An idea is open until a proposal uses it, a proposal declines it, or someone withdraws it. The first of
these stands, except that an experiment which did use the idea outweighs the other two: a proposal may
have been under way when the idea was withdrawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from eventstore.events import IdeaDeclined, IdeaSuggested, IdeaUsed, IdeaWithdrawn

if TYPE_CHECKING:
    from eventstore.envelope import Event

IdeaState = Literal["open", "used", "declined", "withdrawn"]


class Idea(msgspec.Struct, frozen=True, kw_only=True):
    """
    One idea, known by the position at which it was suggested.

    Attributes:
        run: The run it is meant for, or empty for any.
        by: Who is credited: the named person, else the one who suggested it.
        experiment: The experiment that used or declined it; None while neither happened.
        experiment_run: The run of that experiment.
        why: Why it was declined.
    """

    position: int
    run: str
    at: str
    by: str
    text: str
    state: IdeaState = "open"
    experiment: int | None = None
    experiment_run: str = ""
    why: str = ""


class Ideas:
    """Every idea by its position, folded event by event with `apply`."""

    def __init__(self) -> None:
        self._ideas: dict[int, Idea] = {}

    def apply(self, event: Event) -> None:
        """Take in the next event of the log. An event about an idea that was never suggested changes nothing."""
        match event.data:
            case IdeaSuggested(text=text, by=by):
                idea = Idea(position=event.position, run=event.run, at=event.at, by=by or event.actor, text=text)
                self._ideas[event.position] = idea
            case IdeaUsed(idea=position, experiment=experiment):
                self._close(position, "used", experiment, event.run)
            case IdeaDeclined(idea=position, experiment=experiment, why=why):
                self._close(position, "declined", experiment, event.run, why)
            case IdeaWithdrawn(idea=position):
                self._close(position, "withdrawn")

    def _close(
        self, position: int, state: IdeaState, experiment: int | None = None, run: str = "", why: str = ""
    ) -> None:
        idea = self._ideas.get(position)
        if idea is None:
            return
        is_late_use = state == "used" and idea.state in ("declined", "withdrawn")
        if idea.state == "open" or is_late_use:
            self._ideas[position] = msgspec.structs.replace(
                idea, state=state, experiment=experiment, experiment_run=run, why=why
            )

    def get(self, position: int) -> Idea | None:
        """The idea suggested at *position*, or None."""
        return self._ideas.get(position)

    def all(self) -> tuple[Idea, ...]:
        """Every idea, oldest first."""
        return tuple(self._ideas.values())

    def open(self, run: str) -> tuple[Idea, ...]:
        """Open ideas for *run*, those for any run among them, oldest first."""
        return tuple(idea for idea in self._ideas.values() if idea.state == "open" and idea.run in ("", run))
