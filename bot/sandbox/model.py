"""What the loopback Slack holds and records: people, channels, messages, files, views, calls and deliveries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Payload = dict[str, Any]
"""JSON as it crosses the wire."""


class Refusal(Exception):
    """Slack says no. *messages* become `response_metadata.messages`; *extra* goes into the answer beside them."""

    def __init__(self, error: str, *messages: str, **extra: Any) -> None:
        super().__init__(error if not messages else f"{error}: {'; '.join(messages)}")
        self.error = error
        self.messages = messages
        self.extra = extra


@dataclass(frozen=True, slots=True)
class Person:
    """A member of the workspace. *team_id* None: of this workspace; another: of a foreign one (a shared channel)."""

    id: str
    name: str
    tz: str | None = "Europe/Berlin"
    team_id: str | None = None
    guest: Literal["", "single", "multi"] = ""
    is_bot: bool = False
    deleted: bool = False


@dataclass(slots=True)
class Channel:
    """A channel, or a direct message when *im_with* is set."""

    id: str
    name: str
    members: set[str] = field(default_factory=set)
    is_private: bool = False
    is_archived: bool = False
    im_with: str | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """What a message said before an edit; *at* is when it was replaced, in Unix seconds."""

    at: float
    text: str
    blocks: tuple[Payload, ...]


@dataclass(slots=True)
class Posted:
    """
    One message as the people of the channel see it.

    Attributes:
        n: Place in the record of everything.
        at: When it was posted, Unix seconds.
        edits: What it said before, oldest first.
        seen_by: Who alone sees it, if it is ephemeral.
        answer_to: The response URL that it came through, if it did.
    """

    n: int
    at: float
    channel: str
    ts: str
    user: str
    text: str
    blocks: tuple[Payload, ...] = ()
    attachments: tuple[Payload, ...] = ()
    thread_ts: str | None = None
    broadcast: bool = False
    metadata: Payload | None = None
    edits: list[Version] = field(default_factory=list)
    files: tuple[File, ...] = ()
    seen_by: str | None = None
    answer_to: str | None = None

    def shown_in_channel(self) -> bool:
        """Whether it stands in the channel itself, not only in a thread."""
        return self.thread_ts in (None, self.ts) or self.broadcast


@dataclass(slots=True)
class File:
    """An uploaded file. *ready_at*: from when blocks may name it, Unix seconds; None before its upload is complete."""

    id: str
    name: str
    length: int
    alt_text: str = ""
    title: str = ""
    data: bytes = b""
    user: str = ""
    ready_at: float | None = None


@dataclass(slots=True)
class ShownView:
    """
    A modal or an App Home that somebody has before them.

    Attributes:
        n: Place of its last change in the record of everything.
        trigger: The trigger id that opened it, for a modal.
        body: The view as Slack gives it back, ids filled in.
        history: The bodies before, oldest first.
    """

    n: int
    id: str
    user: str
    hash: str
    body: Payload
    trigger: str = ""
    root: str = ""
    previous: str | None = None
    open: bool = True
    history: list[Payload] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Call:
    """
    One request that reached Slack.

    Attributes:
        method: A method of the Web API, or "upload", "download", "response_url".
        args: What was asked; tokens are left out.
        error: What was answered; None for ok. Also `ratelimited`, `http_503`, `dropped` (the caller got no answer).
    """

    n: int
    at: float
    method: str
    args: Mapping[str, Any]
    error: str | None = None
    messages: tuple[str, ...] = ()
    processed: bool = True


@dataclass(slots=True)
class Delivery:
    """
    One envelope that Slack sent, or could not send.

    Attributes:
        socket: Number of the socket that got it; None when none was up (`dispatch_failed`).
        ack_s: Real seconds until its ack; None while there is none.
        timed_out: Whether no ack came in time; a late one still fills *ack_s* in.
    """

    n: int
    at: float
    kind: Literal["slash_commands", "interactive", "events_api"]
    envelope_id: str
    payload: Payload
    attempt: int | None = None
    reason: str | None = None
    socket: int | None = None
    ack_s: float | None = None
    ack: Payload | None = None
    acks: int = 0
    timed_out: bool = False
    retries: list[Delivery] = field(default_factory=list)

    @property
    def acked(self) -> bool:
        """Whether it was acknowledged in time."""
        return self.ack_s is not None and not self.timed_out


@dataclass(frozen=True, slots=True)
class Ping:
    """Somebody was notified by a message: *who* is `channel`, `here`, `everyone`, a user id or a group id."""

    who: str
    channel: str
    ts: str


@dataclass(slots=True)
class Trigger:
    """What lets one modal be opened, once, within 3 s."""

    at: float
    user: str
    view: str | None = None
    used: bool = False


@dataclass(slots=True)
class ResponseUrl:
    """An address for 5 answers within 30 minutes. *original*: the message that was clicked."""

    id: str
    at: float
    user: str
    channel: str
    original: Posted | None = None
    posts: int = 0
