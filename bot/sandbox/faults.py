"""What can go wrong with a call, on demand: `slack.fail("chat.postMessage", Html503())`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Html503:
    """The edge answers 503 with a page of HTML."""


@dataclass(frozen=True, slots=True)
class Error:
    """Slack answers 200 with `ok: false` and this error."""

    error: str


@dataclass(frozen=True, slots=True)
class Limited:
    """429, and every earlier retry again, until *retry_after_s* have passed on the clock."""

    retry_after_s: int = 30


@dataclass(frozen=True, slots=True)
class Slow:
    """The answer takes so many real seconds longer."""

    seconds: float


@dataclass(frozen=True, slots=True)
class DropBefore:
    """The connection breaks before Slack has looked at the request."""


@dataclass(frozen=True, slots=True)
class DropAfter:
    """Slack does what was asked, and the connection breaks before the answer."""


Fault = Html503 | Error | Limited | Slow | DropBefore | DropAfter
