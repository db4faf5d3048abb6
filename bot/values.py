"""What a button and a modal carry to their answer: `value` and `private_metadata`, as strict JSON. Pure.

Guaranteed: what `to_value` and `to_metadata` write is within Slack's limits and read back equal; what is not of that
form (too long, no JSON, an unknown or missing key, a wrong type, a number out of range) is read as None. Buttons live
for ever, so a key is only ever added, with a default.

Ids only: no text of people or models, and nothing secret.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar, get_args

import msgspec
from msgspec import Meta

VALUE_MAX = 2_000
"""Characters of a button's value."""
METADATA_MAX = 3_000
"""Characters of a modal's private_metadata."""
OLD_BUTTON = "This button cannot be read: it is of another version of Nightshift. Use the command instead."
"""What to tell a person whose button is read as None."""

Action = Literal["pause", "resume", "stop", "stop_now", "edit_program", "veto", "again", "approve", "reject"]
"""The `action_id` of a button."""
ACTIONS: tuple[Action, ...] = get_args(Action)

_Id = Annotated[str, Meta(max_length=200)]
_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Button(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """
    What a button is about.

    Attributes:
        run: The run's tag; empty for what belongs to the workspace.
        experiment: Its number, or None where the button is about the run.
        position: The position in the log that the message with the button shows.
    """

    run: _Id
    experiment: _Count | None
    position: _Count


class Form(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """
    What a modal is about.

    Attributes:
        channel: Where the modal was asked for and the outcome is told; empty for the Home tab.
        run, experiment, position: As in `Button`.
        base: Hash of the program.md that the form shows.
        draft: Hash of the program.md that a person is asked to confirm.
        zone: The asker's IANA zone, in which a time of day is meant.
    """

    channel: _Id = ""
    run: _Id = ""
    experiment: _Count | None = None
    position: _Count = 0
    base: _Id = ""
    draft: _Id = ""
    zone: _Id = ""


_Kind = TypeVar("_Kind", Button, Form)


def to_value(button: Button) -> str:
    """Write a button's value. Raises ValueError if a part of it is out of range."""
    return _write(button, VALUE_MAX)


def from_value(value: str) -> Button | None:
    """Read a button's value; None if it is not one, see `OLD_BUTTON`."""
    return _read(value, Button, VALUE_MAX)


def to_metadata(form: Form) -> str:
    """Write a modal's private_metadata. Raises ValueError if a part of it is out of range."""
    return _write(form, METADATA_MAX)


def from_metadata(text: str) -> Form | None:
    """Read a modal's private_metadata; None if it is not of ours."""
    return _read(text, Form, METADATA_MAX)


def _write(what: Button | Form, limit: int) -> str:
    text = msgspec.json.encode(what, order="sorted").decode()
    back = _read(text, Button, limit) if isinstance(what, Button) else _read(text, Form, limit)
    if back != what:
        raise ValueError(f"{what!r} is out of range: at most 200 characters for an id, {limit} in all")
    return text


def _read(text: str, kind: type[_Kind], limit: int) -> _Kind | None:
    if len(text) > limit:
        return None
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return None
