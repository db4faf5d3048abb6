"""What came of each delivery from Slack, as the log tells it. Pure.

Slack may deliver the same command or click twice, minutes apart and over a restart of the bot. What it led to is an
event whose id is made of the delivery's, so that the second time the first answer is given again and nothing is
asked twice.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import msgspec

from eventstore.envelope import Event
from eventstore.events import Data, ProgramEdited, UnknownEvent

PREFIX = "slack:"
KEPT = 1_000
"""How many of the newest are remembered; Slack gives up after some minutes, in which nobody clicks so often."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a delivery led to: the event at *position*. The text of program.md is left out of *data*."""

    position: int
    run: str
    data: Data


def event_id(delivery: str, number: int = 0) -> str:
    """The id of the event that a delivery leads to, or of its *number*th where it leads to several."""
    safe = "".join(char if char.isprintable() and not char.isspace() else "_" for char in delivery[:200])
    return f"{PREFIX}{safe}:{number}"


class Deliveries:
    """The newest deliveries by the id of their event, folded event by event with `apply`."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Known] = OrderedDict()

    def apply(self, event: Event) -> None:
        """Take in the next event of the log."""
        data = event.data
        if not event.id.startswith(PREFIX) or isinstance(data, UnknownEvent):
            return
        if isinstance(data, ProgramEdited):
            data = msgspec.structs.replace(data, text="")
        self._known[event.id] = Known(event.position, event.run, data)
        if len(self._known) > KEPT:
            self._known.popitem(last=False)

    def get(self, id_: str) -> Known | None:
        """What the event with that id was, or None if there is none among the newest."""
        return self._known.get(id_)
