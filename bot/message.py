"""What leaves for Slack, as data: messages and pictures. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Block = dict[str, Any]
"""One block of Block Kit, plain data."""

View = dict[str, Any]
"""A modal or an App Home, plain data."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG that goes with a message. *alt_text* says in words what it shows."""

    data: bytes
    name: str
    alt_text: str


@dataclass(frozen=True, slots=True)
class Message:
    """
    One message.

    Attributes:
        text: What notifications and screen readers say; never empty.
        blocks: What is shown; without any, *text* is.
        picture: Uploaded first and put where the block `{"type": "image", "slack_file": PICTURE}` stands.
        extra: Blocks that Slack may not accept everywhere (a native chart); left out if it does not.
    """

    text: str
    blocks: tuple[Block, ...] = ()
    picture: Picture | None = None
    extra: tuple[Block, ...] = ()


PICTURE = {"id": "the picture"}
"""Stands for the id of the uploaded picture until it has one."""
