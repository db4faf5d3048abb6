"""Whether Slack takes a payload: the rules of Block Kit that hold for messages, modals and the App Home. Pure.

`problems` finds every fault at once. The outbound door asks it before a call and the loopback Slack asks it on
arrival, so nothing leaves that would come back as `invalid_blocks` in the night. It is stricter than Slack where
Slack is silent: block types, elements and keys that are not listed here are faults, a message always has `text`, and
a text is counted before it is cut.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Surface = Literal["message", "modal", "home", "update"]
"""Where a payload goes: a new message, an edit of one (`chat.update`), a modal or an App Home."""

Code = Literal[
    "invalid_blocks", "msg_too_long", "msg_blocks_too_long", "no_text", "view_too_large", "invalid_arguments"
]
"""What Slack answers."""

MESSAGE_BLOCKS = 50
VIEW_BLOCKS = 100
POST_TEXT = 40_000
UPDATE_TEXT = 4_000
BLOCKS_TEXT = 12_000
"""Characters of all blocks of one message together. Slack does not say; it refused near 13,200."""
VIEW_BYTES = 250_000
SECTION_TEXT = 3_000
FIELD_TEXT = 2_000
FIELDS = 10
HEADER_TEXT = 150
MARKDOWN_TEXT = 12_000
ACTIONS = 25
CONTEXT_ELEMENTS = 10
BUTTON_TEXT = 75
BUTTON_VALUE = 2_000
URL = 3_000
ID = 255
OPTIONS = 100
OPTION_TEXT = 75
OPTION_VALUE = 150
OVERFLOW_OPTIONS = 5
CHOICES = 10
"""Options of checkboxes and radio buttons."""
ALT_TEXT = 2_000
INPUT_LABEL = 2_000
PLACEHOLDER = 150
INPUT_TEXT = 3_000
MODAL_TITLE = 24
PRIVATE_METADATA = 3_000
TABLE_ROWS = 100
TABLE_COLUMNS = 20
TABLE_TEXT = 10_000
ATTACHMENTS = 100
CHARTS = 2
CHART_TITLE = 50
CHART_SERIES = 6
"""Slack's page says 6 in one place and 12 in another: the smaller."""
CHART_CATEGORIES = 20
CHART_LABEL = 20


@dataclass(frozen=True, slots=True)
class Problem:
    """
    One fault of a payload.

    Attributes:
        pointer: Where, as a JSON pointer into the payload; empty for the payload itself.
        why: What is wrong, without the text that is wrong.
        code: What Slack answers to it.
    """

    pointer: str
    why: str
    code: Code = "invalid_blocks"


def problems(payload: Mapping[str, Any], surface: Surface) -> tuple[Problem, ...]:
    """
    Find all faults of *payload*: the arguments of a message (`text`, `blocks`, `attachments`, `metadata`,
    `markdown_text`; other keys are not looked at), or the view itself for a modal or a home. Empty: Slack takes it.
    """
    found = _Found(surface)
    if not isinstance(payload, Mapping):
        found.add("", f"must be an object, not {_kind(payload)}", "invalid_arguments")
    elif _whole_json(found, payload):
        if surface in ("message", "update"):
            _message(found, payload)
        else:
            _view(found, payload)
    return tuple(found.problems)


def pointer(*parts: str | int) -> str:
    """Write a JSON pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def text_size(blocks: Sequence[Any]) -> int:
    """Count the characters that *blocks* show, as `msg_blocks_too_long` does."""
    return sum(len(text) for text in _shown(list(blocks)))


# What is found


@dataclass(slots=True)
class _Found:
    """The faults so far, and what must be counted over a whole payload."""

    surface: Surface
    problems: list[Problem] = field(default_factory=list)
    block_ids: set[str] = field(default_factory=set)
    focused: int = 0

    def add(self, at: str, why: str, code: Code = "invalid_blocks") -> None:
        self.problems.append(Problem(at, why, code))


Check = Callable[[_Found, str, Any], None]
"""Looks at one value and adds what is wrong with it at a pointer."""

_DEEPEST = 40


def _kind(value: object) -> str:
    names = {dict: "an object", list: "an array", tuple: "an array", str: "a string", bool: "a boolean"}
    return "null" if value is None else names.get(type(value), "a number" if _number(value) else "no JSON value")


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole_json(found: _Found, value: object, at: str = "", depth: int = 0) -> bool:
    """Refuse what JSON cannot carry, and what is too deep to look at. Returns whether the rest can be checked."""
    before = len(found.problems)
    if depth > _DEEPEST:
        found.add(at, f"is nested more than {_DEEPEST} deep", "invalid_arguments")
    elif isinstance(value, str):
        if any("\ud800" <= char <= "\udfff" for char in value):
            found.add(at, "holds half a character (a lone surrogate)", "invalid_arguments")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(key, str):
                _whole_json(found, item, at + pointer(key), depth + 1)
            else:
                found.add(at, "has a key that is not a string", "invalid_arguments")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _whole_json(found, item, at + pointer(index), depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        found.add(at, "must be a finite number", "invalid_arguments")
    elif not (value is None or isinstance(value, int | float)):
        found.add(at, f"is {type(value).__name__}, which JSON does not have", "invalid_arguments")
    return len(found.problems) == before


_SHOWN = ("text", "title", "label", "name", "x_label", "y_label")


def _shown(value: object) -> Iterator[str]:
    """Yield every text that a reader sees of some blocks."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(item, str):
                if key in _SHOWN:
                    yield item
            elif key == "categories" and isinstance(item, list | tuple):
                yield from (name for name in item if isinstance(name, str))
            else:
                yield from _shown(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _shown(item)


# Checks of single values


def _string(most: int, least: int = 1, pattern: str | None = None, what: str = "") -> Check:
    matches = re.compile(pattern).fullmatch if pattern else None

    def check(found: _Found, at: str, value: Any) -> None:
        if not isinstance(value, str):
            found.add(at, f"must be a string, not {_kind(value)}")
        elif len(value) < least:
            found.add(at, f"must be at least {least} character{'s' * (least > 1)}")
        elif len(value) > most:
            found.add(at, f"must be at most {most} characters, is {len(value)}")
        elif matches and not matches(value):
            found.add(at, f"must be {what}")

    return check


def _flag(found: _Found, at: str, value: Any) -> None:
    if not isinstance(value, bool):
        found.add(at, f"must be true or false, not {_kind(value)}")


def _focus(found: _Found, at: str, value: Any) -> None:
    _flag(found, at, value)
    found.focused += value is True
    if value is True and found.focused > 1:
        found.add(at, "focus_on_load may be true once only")


def _choice(*values: str) -> Check:
    def check(found: _Found, at: str, value: Any) -> None:
        if value not in values or not isinstance(value, str):
            found.add(at, f"must be one of {', '.join(values)}")

    return check


def _whole(least: int, most: int) -> Check:
    def check(found: _Found, at: str, value: Any) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            found.add(at, f"must be a whole number from {least} to {most}")

    return check


def _figure(found: _Found, at: str, value: Any) -> None:
    if not _number(value):
        found.add(at, f"must be a number, not {_kind(value)}")


def _many(each: Check, most: int, least: int = 1) -> Check:
    def check(found: _Found, at: str, value: Any) -> None:
        if not isinstance(value, list | tuple):
            found.add(at, f"must be an array, not {_kind(value)}")
            return
        if not least <= len(value) <= most:
            found.add(at, f"must have from {least} to {most} items, has {len(value)}")
        for index, item in enumerate(value):
            each(found, at + pointer(index), item)

    return check


def _null_or(each: Check) -> Check:
    def check(found: _Found, at: str, value: Any) -> None:
        if value is not None:
            each(found, at, value)

    return check


Rule = Callable[[_Found, str, Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class _Shape:
    """An object: its fields, which of them must be there, and a rule between fields that are each right."""

    fields: Mapping[str, Check]
    required: tuple[str, ...] = ()
    rule: Rule | None = None

    def __call__(self, found: _Found, at: str, value: Any) -> None:
        if not isinstance(value, Mapping):
            found.add(at, f"must be an object, not {_kind(value)}")
            return
        before = len(found.problems)
        for name in self.required:
            if name not in value:
                found.add(at, f"missing required field: {name}")
        for name, item in value.items():
            check = self.fields.get(name)
            if check is not None:
                check(found, at + pointer(name), item)
            elif name != "type":
                found.add(at, f"unknown field: {name[:50]}")
        if self.rule and len(found.problems) == before:
            self.rule(found, at, value)


def _typed(what: str, shapes: Mapping[str, Check], *allowed: str) -> Check:
    """An object whose `type` says which shape it has; *allowed* narrows the types."""
    names = allowed or tuple(shapes)

    def check(found: _Found, at: str, value: Any) -> None:
        kind = value.get("type") if isinstance(value, Mapping) else None
        if not isinstance(value, Mapping):
            found.add(at, f"must be an object, not {_kind(value)}")
        elif not isinstance(kind, str) or kind not in shapes:
            found.add(at + "/type", f"unsupported type of {what}")
        elif kind not in names:
            found.add(at + "/type", f"{kind} is not allowed here")
        else:
            shapes[kind](found, at, value)

    return check


def _all(*rules: Rule) -> Rule:
    def rule(found: _Found, at: str, value: Mapping[str, Any]) -> None:
        for each in rules:
            each(found, at, value)

    return rule


def _one_of(*names: str) -> Rule:
    def rule(found: _Found, at: str, value: Mapping[str, Any]) -> None:
        if sum(name in value for name in names) != 1:
            found.add(at, f"must have exactly one of {', '.join(names)}")

    return rule


def _some_of(*names: str) -> Rule:
    def rule(found: _Found, at: str, value: Mapping[str, Any]) -> None:
        if not any(value.get(name) for name in names):
            found.add(at, f"must have {' or '.join(names)}")

    return rule


# Composition objects


def _plain(most: int) -> Check:
    shape = _Shape({"text": _string(most), "emoji": _flag}, ("text",))
    return _typed("text", {"plain_text": shape, "mrkdwn": shape}, "plain_text")


def _text(most: int) -> Check:
    plain = _Shape({"text": _string(most), "emoji": _flag}, ("text",))
    mrkdwn = _Shape({"text": _string(most), "verbatim": _flag}, ("text",))
    return _typed("text", {"plain_text": plain, "mrkdwn": mrkdwn})


_ID = _string(ID)
_URL = _string(URL, pattern=r"https?://\S+", what="a http or https address")

_STYLE = _choice("primary", "danger")

_CONFIRM = _Shape(
    {"title": _plain(100), "text": _text(300), "confirm": _plain(30), "deny": _plain(30), "style": _STYLE},
    ("title", "text", "confirm", "deny"),
)

_OPTION_FIELDS: dict[str, Check] = {"value": _string(OPTION_VALUE), "description": _plain(OPTION_TEXT)}
_OPTION = _Shape(_OPTION_FIELDS | {"text": _plain(OPTION_TEXT)}, ("text", "value"))
_LINK_OPTION = _Shape(_OPTION_FIELDS | {"text": _plain(OPTION_TEXT), "url": _URL}, ("text", "value"))
_RICH_OPTION = _Shape(
    _OPTION_FIELDS | {"text": _text(OPTION_TEXT), "description": _text(OPTION_TEXT)}, ("text", "value")
)
_GROUP = _Shape({"label": _plain(OPTION_TEXT), "options": _many(_OPTION, OPTIONS)}, ("label", "options"))


def _options_of(value: Mapping[str, Any]) -> list[Any]:
    groups = value.get("option_groups", ())
    return [*value.get("options", ()), *(option for group in groups for option in group["options"])]


def _initial_is_offered(found: _Found, at: str, value: Mapping[str, Any]) -> None:
    offered = _options_of(value)
    chosen = [value["initial_option"]] if "initial_option" in value else list(value.get("initial_options", ()))
    if any(option not in offered for option in chosen):
        found.add(at, "the initial choice is not one of the options")


_SLACK_FILE = _Shape({"id": _string(30), "url": _URL}, (), _one_of("id", "url"))
_PICTURE_FIELDS: dict[str, Check] = {"image_url": _URL, "slack_file": _SLACK_FILE, "alt_text": _string(ALT_TEXT)}
_PICTURE_RULE = _one_of("image_url", "slack_file")

# Elements

_ACTION: dict[str, Check] = {"action_id": _ID, "confirm": _CONFIRM}
_INPUT: dict[str, Check] = {"action_id": _ID, "placeholder": _plain(PLACEHOLDER), "focus_on_load": _focus}
_SELECT = _INPUT | {"confirm": _CONFIRM}
_SEVERAL = _SELECT | {"max_selected_items": _whole(1, 1_000)}
_STATIC: dict[str, Check] = {"options": _many(_OPTION, OPTIONS), "option_groups": _many(_GROUP, OPTIONS)}
_CHOICES: dict[str, Check] = {
    "options": _many(_RICH_OPTION, CHOICES),
    "action_id": _ID,
    "confirm": _CONFIRM,
    "focus_on_load": _focus,
}
_FILTER = _Shape(
    {
        "include": _many(_choice("im", "mpim", "private", "public"), 4),
        "exclude_external_shared_channels": _flag,
        "exclude_bot_users": _flag,
    },
    (),
    _some_of("include", "exclude_external_shared_channels", "exclude_bot_users"),
)
_DISPATCH = _Shape({"trigger_actions_on": _many(_choice("on_enter_pressed", "on_character_entered"), 2)})
_DECIMAL = _string(100, pattern=r"-?\d+(\.\d+)?", what="a number written as a string")


def _lengths(found: _Found, at: str, value: Mapping[str, Any]) -> None:
    least, most = value.get("min_length", 0), value.get("max_length", INPUT_TEXT)
    if least > most:
        found.add(at, "min_length is above max_length")
    if "initial_value" in value and not least <= len(value["initial_value"]) <= most:
        found.add(at + "/initial_value", f"must be from {least} to {most} characters")


def _bounds(found: _Found, at: str, value: Mapping[str, Any]) -> None:
    given = {name: value[name] for name in ("min_value", "initial_value", "max_value") if name in value}
    if not value["is_decimal_allowed"] and any("." in text for text in given.values()):
        found.add(at, "decimals are given and not allowed")
    if (numbers := [float(text) for text in given.values()]) != sorted(numbers):
        found.add(at, "min_value, initial_value and max_value are not in this order")


_ELEMENTS: dict[str, Check] = {
    "button": _Shape(
        _ACTION
        | {
            "text": _plain(BUTTON_TEXT),
            "value": _string(BUTTON_VALUE),
            "url": _URL,
            "style": _STYLE,
            "accessibility_label": _string(BUTTON_TEXT),
        },
        ("text",),
    ),
    "overflow": _Shape(_ACTION | {"options": _many(_LINK_OPTION, OVERFLOW_OPTIONS)}, ("options",)),
    "image": _Shape(_PICTURE_FIELDS, ("alt_text",), _PICTURE_RULE),
    "static_select": _Shape(
        _SELECT | _STATIC | {"initial_option": _OPTION},
        (),
        _all(_one_of("options", "option_groups"), _initial_is_offered),
    ),
    "multi_static_select": _Shape(
        _SEVERAL | _STATIC | {"initial_options": _many(_OPTION, OPTIONS)},
        (),
        _all(_one_of("options", "option_groups"), _initial_is_offered),
    ),
    "users_select": _Shape(_SELECT | {"initial_user": _ID}),
    "multi_users_select": _Shape(_SEVERAL | {"initial_users": _many(_ID, 1_000)}),
    "channels_select": _Shape(_SELECT | {"initial_channel": _ID, "response_url_enabled": _flag}),
    "conversations_select": _Shape(
        _SELECT
        | {
            "initial_conversation": _ID,
            "default_to_current_conversation": _flag,
            "response_url_enabled": _flag,
            "filter": _FILTER,
        }
    ),
    "checkboxes": _Shape(
        _CHOICES | {"initial_options": _many(_RICH_OPTION, CHOICES)}, ("options",), _initial_is_offered
    ),
    "radio_buttons": _Shape(_CHOICES | {"initial_option": _RICH_OPTION}, ("options",), _initial_is_offered),
    "datepicker": _Shape(
        _SELECT
        | {"initial_date": _string(10, pattern=r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])", what="YYYY-MM-DD")}
    ),
    "timepicker": _Shape(
        _SELECT
        | {"initial_time": _string(5, pattern=r"([01]\d|2[0-3]):[0-5]\d", what="HH:mm"), "timezone": _string(ID)}
    ),
    "plain_text_input": _Shape(
        _INPUT
        | {
            "initial_value": _string(INPUT_TEXT, least=0),
            "multiline": _flag,
            "min_length": _whole(0, INPUT_TEXT),
            "max_length": _whole(1, INPUT_TEXT),
            "dispatch_action_config": _DISPATCH,
        },
        (),
        _lengths,
    ),
    "number_input": _Shape(
        _INPUT
        | {
            "is_decimal_allowed": _flag,
            "initial_value": _DECIMAL,
            "min_value": _DECIMAL,
            "max_value": _DECIMAL,
            "dispatch_action_config": _DISPATCH,
        },
        ("is_decimal_allowed",),
        _bounds,
    ),
    "file_input": _Shape(
        {"action_id": _ID, "filetypes": _many(_string(20), 100), "max_files": _whole(1, 10)},
    ),
}

_CONTROLS = (
    *("button", "overflow", "static_select", "multi_static_select", "users_select", "multi_users_select"),
    *("channels_select", "conversations_select", "checkboxes", "radio_buttons", "datepicker", "timepicker"),
)
_INPUTS = (
    *(name for name in _CONTROLS if name not in ("button", "overflow")),
    *("plain_text_input", "number_input", "file_input"),
)

# Rich text

_SPAN = _Shape(dict.fromkeys(("bold", "italic", "strike", "code", "underline"), _flag))
_MARK = _Shape(dict.fromkeys(("bold", "italic", "strike", "highlight", "client_highlight", "unlink"), _flag))
_INLINE: dict[str, Check] = {
    "text": _Shape({"text": _string(BLOCKS_TEXT), "style": _SPAN}, ("text",)),
    "link": _Shape(
        {"url": _URL, "text": _string(SECTION_TEXT), "unsafe": _flag, "style": _SPAN},
        ("url",),
    ),
    "user": _Shape({"user_id": _ID, "style": _MARK}, ("user_id",)),
    "usergroup": _Shape({"usergroup_id": _ID, "style": _MARK}, ("usergroup_id",)),
    "channel": _Shape({"channel_id": _ID, "style": _MARK}, ("channel_id",)),
    "emoji": _Shape({"name": _ID, "unicode": _ID}, ("name",)),
    "date": _Shape(
        {"timestamp": _whole(0, 1 << 40), "format": _string(ID), "url": _URL, "fallback": _string(ID)},
        ("timestamp", "format"),
    ),
    "broadcast": _Shape({"range": _choice("here", "channel", "everyone")}, ("range",)),
    "color": _Shape({"value": _string(7, pattern=r"#([0-9A-Fa-f]{3}|[0-9A-Fa-f]{6})", what="#RRGGBB")}, ("value",)),
}
_PARTS = _many(_typed("rich text element", _INLINE), 1_000)
_RICH_SECTION = _Shape({"elements": _PARTS}, ("elements",))
_RICH_QUOTED = _Shape({"elements": _PARTS, "border": _whole(0, 1)}, ("elements",))
_RICH: dict[str, Check] = {
    "rich_text_section": _RICH_SECTION,
    "rich_text_preformatted": _RICH_QUOTED,
    "rich_text_quote": _RICH_QUOTED,
    "rich_text_list": _Shape(
        {
            "style": _choice("bullet", "ordered"),
            "elements": _many(_typed("list item", {"rich_text_section": _RICH_SECTION}), 1_000),
            "indent": _whole(0, 8),
            "offset": _whole(0, 1_000_000),
            "border": _whole(0, 1),
        },
        ("style", "elements"),
    ),
}
_RICH_TEXT = _Shape({"elements": _many(_typed("rich text element", _RICH), 1_000), "block_id": _ID}, ("elements",))

# Blocks


def _unique_actions(name: str) -> Rule:
    def rule(found: _Found, at: str, value: Mapping[str, Any]) -> None:
        seen: set[str] = set()
        for index, element in enumerate(value[name]):
            action = element.get("action_id")
            if action in seen:
                found.add(at + pointer(name, index, "action_id"), "action_id already exists in this block")
            seen |= {action} if action else set()

    return rule


def _file_input_alone(found: _Found, at: str, value: Mapping[str, Any]) -> None:
    if value["element"]["type"] == "file_input" and (value.get("dispatch_action") or found.surface != "modal"):
        found.add(at, "file_input is for modals only, without dispatch_action")


def _square(found: _Found, at: str, value: Mapping[str, Any]) -> None:
    if len({len(row) for row in value["rows"]}) > 1:
        found.add(at + "/rows", "rows have different numbers of cells")
    if sum(len(text) for text in _shown(value["rows"])) > TABLE_TEXT:
        found.add(at + "/rows", f"the cells hold more than {TABLE_TEXT} characters together")


_CELL = _typed(
    "table cell",
    {
        "raw_text": _Shape({"text": _string(TABLE_TEXT)}, ("text",)),
        "raw_number": _Shape({"value": _figure, "text": _string(TABLE_TEXT)}, ("value",)),
        "rich_text": _RICH_TEXT,
    },
)
_COLUMN = _Shape({"align": _choice("left", "center", "right"), "is_wrapped": _flag})

_POINT = _Shape({"label": _string(CHART_LABEL), "value": _figure}, ("label", "value"))
_SERIES = _Shape({"name": _string(CHART_LABEL), "data": _many(_POINT, CHART_CATEGORIES)}, ("name", "data"))
_AXES = _Shape(
    {
        "categories": _many(_string(CHART_LABEL), CHART_CATEGORIES),
        "x_label": _string(CHART_TITLE),
        "y_label": _string(CHART_TITLE),
    },
    ("categories",),
)


def _series_fit(found: _Found, at: str, value: Mapping[str, Any]) -> None:
    categories = list(value["axis_config"]["categories"])
    names = [series["name"] for series in value["series"]]
    if len(set(categories)) < len(categories) or len(set(names)) < len(names):
        found.add(at, "names of series and of categories must be unique")
    for index, series in enumerate(value["series"]):
        if sorted(point["label"] for point in series["data"]) != sorted(categories):
            found.add(at + pointer("series", index), "the labels must be the categories, each once")


def _slices_positive(found: _Found, at: str, value: Mapping[str, Any]) -> None:
    if any(part["value"] <= 0 for part in value["segments"]):
        found.add(at + "/segments", "each value must be above 0")


_XY = _Shape({"series": _many(_SERIES, CHART_SERIES), "axis_config": _AXES}, ("series", "axis_config"), _series_fit)
_PIE = _Shape({"segments": _many(_POINT, CHART_SERIES)}, ("segments",), _slices_positive)
_CHART = _typed("chart", {"pie": _PIE, "bar": _XY, "area": _XY, "line": _XY})


def _context_part(found: _Found, at: str, value: Any) -> None:
    image = isinstance(value, Mapping) and value.get("type") == "image"
    (_ELEMENTS["image"] if image else _text(SECTION_TEXT))(found, at, value)


_ELEMENT_OF_SECTION = _typed("element", _ELEMENTS, *_CONTROLS, "image")
_ELEMENT_OF_ACTIONS = _typed("element", _ELEMENTS, *_CONTROLS)
_ELEMENT_OF_INPUT = _typed("element", _ELEMENTS, *_INPUTS)

_BLOCKS: dict[str, Check] = {
    "section": _Shape(
        {
            "text": _text(SECTION_TEXT),
            "fields": _many(_text(FIELD_TEXT), FIELDS),
            "accessory": _ELEMENT_OF_SECTION,
            "expand": _flag,
            "block_id": _ID,
        },
        (),
        _some_of("text", "fields"),
    ),
    "divider": _Shape({"block_id": _ID}),
    "header": _Shape({"text": _plain(HEADER_TEXT), "block_id": _ID}, ("text",)),
    "image": _Shape(_PICTURE_FIELDS | {"title": _plain(ALT_TEXT), "block_id": _ID}, ("alt_text",), _PICTURE_RULE),
    "context": _Shape({"elements": _many(_context_part, CONTEXT_ELEMENTS), "block_id": _ID}, ("elements",)),
    "actions": _Shape(
        {"elements": _many(_ELEMENT_OF_ACTIONS, ACTIONS), "block_id": _ID}, ("elements",), _unique_actions("elements")
    ),
    "input": _Shape(
        {
            "label": _plain(INPUT_LABEL),
            "hint": _plain(INPUT_LABEL),
            "element": _ELEMENT_OF_INPUT,
            "optional": _flag,
            "dispatch_action": _flag,
            "block_id": _ID,
        },
        ("label", "element"),
        _file_input_alone,
    ),
    "markdown": _Shape({"text": _string(MARKDOWN_TEXT), "block_id": _ID}, ("text",)),
    "rich_text": _RICH_TEXT,
    "table": _Shape(
        {
            "rows": _many(_many(_CELL, TABLE_COLUMNS), TABLE_ROWS),
            "column_settings": _many(_null_or(_COLUMN), TABLE_COLUMNS),
            "block_id": _ID,
        },
        ("rows",),
        _square,
    ),
    "data_visualization": _Shape({"title": _string(CHART_TITLE), "chart": _CHART, "block_id": _ID}, ("title", "chart")),
}
_EVERYWHERE = ("section", "divider", "header", "image", "context", "actions", "rich_text")
_MESSAGE_ONLY = ("markdown", "table", "data_visualization")
_BLOCK_ON: dict[Surface, Check] = {
    "message": _typed("block", _BLOCKS, *_EVERYWHERE, *_MESSAGE_ONLY),
    "update": _typed("block", _BLOCKS, *_EVERYWHERE, *_MESSAGE_ONLY),
    "modal": _typed("block", _BLOCKS, *_EVERYWHERE, "input"),
    "home": _typed("block", _BLOCKS, *_EVERYWHERE, "input"),
}


def _blocks(found: _Found, at: str, value: Any, most: int) -> None:
    """Check an array of blocks, and that no block_id comes twice in the payload."""
    if not isinstance(value, list | tuple):
        found.add(at, f"must be an array, not {_kind(value)}")
        return
    if len(value) > most:
        found.add(at, f"no more than {most} items allowed, there are {len(value)}")
    for index, block in enumerate(value):
        _BLOCK_ON[found.surface](found, at + pointer(index), block)
        name = block.get("block_id") if isinstance(block, Mapping) else None
        if isinstance(name, str):
            if name in found.block_ids:
                found.add(at + pointer(index, "block_id"), "block_id already exists")
            found.block_ids.add(name)


# Surfaces


def _message(found: _Found, payload: Mapping[str, Any]) -> None:
    if payload.get("markdown_text") is None:
        _message_text(found, payload.get("text"))
    else:
        _markdown_text(found, payload)
    blocks = [] if payload.get("blocks") is None else payload["blocks"]
    _blocks(found, "/blocks", blocks, MESSAGE_BLOCKS)
    parts = _attachments(found, payload.get("attachments"))
    if isinstance(blocks, list | tuple):
        _whole_message(found, [*blocks, *parts])
    if payload.get("metadata") is not None:
        _metadata(found, payload["metadata"])


def _message_text(found: _Found, text: Any) -> None:
    most = UPDATE_TEXT if found.surface == "update" else POST_TEXT
    if text is not None and not isinstance(text, str):
        found.add("/text", f"must be a string, not {_kind(text)}", "invalid_arguments")
    elif not text or not text.strip():
        found.add(
            "/text", "a message needs text, also beside blocks: notifications and screen readers say it", "no_text"
        )
    elif len(text) > most:
        found.add("/text", f"must be at most {most} characters, is {len(text)}", "msg_too_long")


def _markdown_text(found: _Found, payload: Mapping[str, Any]) -> None:
    if payload.get("text") or payload.get("blocks"):
        found.add("/markdown_text", "cannot stand beside text or blocks", "invalid_arguments")
    elif not isinstance(payload["markdown_text"], str) or not payload["markdown_text"].strip():
        found.add("/markdown_text", "must be text that is not empty", "no_text")
    elif len(payload["markdown_text"]) > MARKDOWN_TEXT:
        found.add("/markdown_text", f"must be at most {MARKDOWN_TEXT} characters", "msg_too_long")


def _whole_message(found: _Found, blocks: Sequence[Any]) -> None:
    """What is counted over all blocks of a message."""
    if (size := text_size(blocks)) > BLOCKS_TEXT:
        found.add("/blocks", f"hold {size} characters together, at most {BLOCKS_TEXT}", "msg_blocks_too_long")
    kinds = [block.get("type") for block in blocks if isinstance(block, Mapping)]
    if kinds.count("table") > 1:
        found.add("/blocks", "no more than 1 table allowed")
    if kinds.count("data_visualization") > CHARTS:
        found.add("/blocks", f"no more than {CHARTS} charts allowed")


def _attachments(found: _Found, value: Any) -> list[Any]:
    """Check attachments and return the blocks inside them."""
    if value is None:
        return []
    before = len(found.problems)
    each = _Shape(
        {
            "color": _string(20),
            "fallback": _string(SECTION_TEXT),
            "text": _string(SECTION_TEXT),
            "blocks": lambda found, at, blocks: _blocks(found, at, blocks, MESSAGE_BLOCKS),
        },
        (),
        _some_of("text", "blocks", "fallback"),
    )
    _many(each, ATTACHMENTS, least=0)(found, "/attachments", value)
    inside = [] if len(found.problems) > before else [block for item in value for block in item.get("blocks", ())]
    return inside


def _metadata(found: _Found, value: Any) -> None:
    kind = value.get("event_type") if isinstance(value, Mapping) else None
    if not isinstance(value, Mapping) or set(value) - {"event_type", "event_payload"}:
        found.add("/metadata", "must be an object of event_type and event_payload", "invalid_arguments")
    elif not isinstance(kind, str) or not 1 <= len(kind) <= ID:
        found.add("/metadata/event_type", f"must be a string of 1 to {ID} characters", "invalid_arguments")
    elif not isinstance(value.get("event_payload"), Mapping):
        found.add("/metadata/event_payload", "must be an object", "invalid_arguments")


def _view_blocks(found: _Found, at: str, value: Any) -> None:
    _blocks(found, at, value, VIEW_BLOCKS)
    if isinstance(value, list | tuple) and not value:
        found.add(at, f"must have from 1 to {VIEW_BLOCKS} items, has 0")


def _submit_with_input(found: _Found, at: str, value: Mapping[str, Any]) -> None:
    if "submit" not in value and any(block["type"] == "input" for block in value["blocks"]):
        found.add(at + "/submit", "missing required field: submit is needed beside an input block")


_HOME: dict[str, Check] = {
    "blocks": _view_blocks,
    "private_metadata": _string(PRIVATE_METADATA, least=0),
    "callback_id": _ID,
    "external_id": _ID,
}
_MODAL = _HOME | {
    "title": _plain(MODAL_TITLE),
    "submit": _plain(MODAL_TITLE),
    "close": _plain(MODAL_TITLE),
    "clear_on_close": _flag,
    "notify_on_close": _flag,
    "submit_disabled": _flag,
}
_VIEWS: dict[str, Check] = {
    "modal": _Shape(_MODAL, ("title", "blocks"), _submit_with_input),
    "home": _Shape(_HOME, ("blocks",)),
}


def _view(found: _Found, view: Mapping[str, Any]) -> None:
    _typed("view", _VIEWS, found.surface)(found, "", view)
    size = len(json.dumps(view, ensure_ascii=False, separators=(",", ":")).encode())
    if size > VIEW_BYTES:
        found.add("", f"is {size} bytes as JSON, at most {VIEW_BYTES}", "view_too_large")
