"""Whether the connection to Slack lives. Pure: the caller's clock comes in.

A socket may look up and be deaf, so what counts are signs from the other end: the answer to a ping, or a hello. The
last delivery says nothing, on a quiet night there is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SILENT_PINGS = 6
"""Pings without an answer after which a connection counts as dead; the library itself gives up after four."""


@dataclass(slots=True)
class Signs:
    """The newest sign of life, in seconds of the caller's clock; at first, the moment the watch began."""

    at_s: float
    silence_s: float = 0.0
    _pong: float | None = None

    def pong(self, answered: float | None, now_s: float) -> None:
        """Note what the library says of the last ping that was answered: a time of its own clock, which only moves."""
        if answered is not None and answered != self._pong:
            self._pong, self.at_s = answered, now_s

    def hello(self, now_s: float) -> None:
        """A connection was greeted."""
        self.at_s = now_s

    def renewed(self, now_s: float) -> None:
        """A new connection is being made: it gets its time."""
        self.at_s = now_s


def look(signs: Signs, now_s: float, ping_every_s: float) -> Literal["well", "reconnect"]:
    """What to do about the connection."""
    signs.silence_s = now_s - signs.at_s
    return "reconnect" if signs.silence_s >= SILENT_PINGS * ping_every_s else "well"
