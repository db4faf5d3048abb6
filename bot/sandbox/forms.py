"""What people touch in blocks: which elements there are, what is entered, what goes back to the app. Pure."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bot.sandbox.model import Payload
from bot.sandbox.workspace import elements

_SELECTED = {
    "users_select": "selected_user",
    "multi_users_select": "selected_users",
    "channels_select": "selected_channel",
    "conversations_select": "selected_conversation",
    "datepicker": "selected_date",
    "timepicker": "selected_time",
}
_INITIAL = {
    "users_select": "initial_user",
    "multi_users_select": "initial_users",
    "channels_select": "initial_channel",
    "conversations_select": "initial_conversation",
    "datepicker": "initial_date",
    "timepicker": "initial_time",
}
_ONE = ("static_select", "radio_buttons", "overflow")
_SEVERAL = ("multi_static_select", "checkboxes")
_TYPED = ("plain_text_input", "number_input")
_NO_STATE = ("button", "overflow", "image")


class NothingToTouch(LookupError):
    """A person cannot do this: the element, the option or the field is not there."""


@dataclass(frozen=True, slots=True)
class Touchable:
    """One element of some blocks."""

    block: Payload
    element: Payload

    @property
    def action_id(self) -> str:
        return str(self.element["action_id"])

    @property
    def label(self) -> str:
        """What a person reads on it."""
        said = self.element.get("text") or self.element.get("placeholder") or self.block.get("label") or {}
        return str(said.get("text", ""))


def touchables(blocks: Sequence[Payload]) -> list[Touchable]:
    """List what a person can touch, in order."""
    return [
        Touchable(block, element) for block in blocks for element in elements(block) if element.get("type") != "image"
    ]


def touchable(blocks: Sequence[Payload], action_id: str, value: str | None = None) -> Touchable:
    """
    Find an element by its action id; *value* tells buttons with the same one apart.

    Raises:
        NothingToTouch: There is none; the message lists what there is.
    """
    all_of_them = touchables(blocks)
    for each in all_of_them:
        other = each.element["type"] == "button" and value is not None and each.element.get("value") != value
        if each.action_id == action_id and not other:
            return each
    there = ", ".join(f"{each.action_id} ({each.label})" for each in all_of_them) or "nothing"
    raise NothingToTouch(f"there is no {action_id} to touch here; there is: {there}")


def action(touched: Touchable, value: str | None, at: float) -> Payload:
    """Write the action of a click, with what was chosen."""
    element, kind = touched.element, touched.element["type"]
    body: Payload = {
        "type": kind,
        "action_id": touched.action_id,
        "block_id": touched.block["block_id"],
        "action_ts": f"{at:.6f}",
    }
    if kind == "button":
        body |= {name: copy.deepcopy(element[name]) for name in ("text", "value", "style") if name in element}
        return body
    chosen = entered(element, value)
    return body | {name: item for name, item in chosen.items() if name != "type"}


def entered(element: Mapping[str, Any], value: Any) -> Payload:
    """Write what an element holds after a person entered *value*; None: what it holds at first."""
    kind = str(element["type"])
    if kind in _TYPED:
        text = element.get("initial_value") if value is None else str(value)
        return {"type": kind, "value": text or None}
    if kind in _ONE:
        return {
            "type": kind,
            "selected_option": element.get("initial_option") if value is None else _option(element, value),
        }
    if kind in _SEVERAL:
        names = value.split(",") if isinstance(value, str) else value
        several = element.get("initial_options", []) if value is None else [_option(element, each) for each in names]
        return {"type": kind, "selected_options": copy.deepcopy(list(several))}
    if kind == "file_input":
        return {"type": kind, "files": list(value or ())}
    return {"type": kind, _SELECTED[kind]: element.get(_INITIAL[kind]) if value is None else value}


def _option(element: Mapping[str, Any], value: str) -> Payload:
    """Find an option by its value or by its text."""
    groups = [group["options"] for group in element.get("option_groups", ())]
    options = [*element.get("options", ()), *(option for group in groups for option in group)]
    for option in options:
        if value in (option["value"], option["text"]["text"]):
            return copy.deepcopy(dict(option))
    raise NothingToTouch(f"there is no option {value!r}; there are: {', '.join(each['value'] for each in options)}")


def fill_in(blocks: Sequence[Payload], values: Mapping[str, Any]) -> Payload:
    """
    Write the state of a view after a person entered *values*, by block id or action id.

    Raises:
        NothingToTouch: A value is for a field that is not there, or for an option that is not there.
    """
    state: Payload = {}
    left = set(values)
    for each in touchables(blocks):
        if each.element["type"] in _NO_STATE:
            continue
        names = [name for name in (str(each.block["block_id"]), each.action_id) if name in values]
        left -= set(names)
        held = entered(each.element, values[names[0]] if names else None)
        state.setdefault(str(each.block["block_id"]), {})[each.action_id] = held
    if left:
        there = ", ".join(str(each.block["block_id"]) for each in touchables(blocks))
        raise NothingToTouch(f"there is no field {sorted(left)[0]!r} in this view; there are: {there}")
    return state


def unanswered(blocks: Sequence[Payload], state: Mapping[str, Any]) -> dict[str, str]:
    """Say what Slack itself says before it sends a form: fields that are empty, too long or out of range."""
    return dict(_complaints(blocks, state))


def _complaints(blocks: Sequence[Payload], state: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for each in touchables(blocks):
        if each.block["type"] != "input":
            continue
        name = str(each.block["block_id"])
        held = next(value for key, value in state[name][each.action_id].items() if key != "type")
        if not held:
            if not each.block.get("optional"):
                yield name, "Please complete this required field."
        elif complaint := _complaint(each.element, held):
            yield name, complaint


def _complaint(element: Mapping[str, Any], held: Any) -> str:
    if element["type"] == "plain_text_input":
        least, most = element.get("min_length", 0), element.get("max_length", 3_000)
        if not least <= len(held) <= most:
            return f"Must be from {least} to {most} characters."
    if element["type"] == "number_input":
        return _number_complaint(element, held)
    return ""


def _number_complaint(element: Mapping[str, Any], held: str) -> str:
    try:
        number = float(held)
    except ValueError:
        return "Must be a number."
    if not element["is_decimal_allowed"] and not number.is_integer():
        return "Must be a whole number."
    least, most = float(element.get("min_value", "-inf")), float(element.get("max_value", "inf"))
    return "" if least <= number <= most else "Is out of range."
