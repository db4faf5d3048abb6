"""Messages and views as lines of text for a terminal. Pure.

Guaranteed: no control character of a message reaches the terminal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bot.sandbox.forms import Touchable, touchables
from bot.sandbox.model import Payload
from bot.text import unescape
from eventstore.plain import plain, plain_line

Name = Callable[[str], str]
"""The name of a person or a channel by id."""

_MARKUP = re.compile(r"<(!date\^[^|>]*|!?[@#]?[^|>]*)(?:\|([^>]*))?>")


def text_lines(text: str, name: Name) -> list[str]:
    """Text of Slack as people read it: names for ids, labels for links, in lines."""

    def read(match: re.Match[str]) -> str:
        target, label = match.groups()
        if target.startswith(("@", "#")):
            return target[0] + name(target[1:])
        if target.startswith("!date"):
            return label or "a moment"
        if target.startswith("!"):
            return "@" + target[1:].partition("^")[0]
        return f"{label} ({target})" if label else target

    return plain(unescape(_MARKUP.sub(read, text))).split("\n")


def block_lines(blocks: Sequence[Payload], name: Name) -> list[str]:
    """Blocks as people read them, in lines; what they can touch is in brackets with its action id."""
    return [line for block in blocks for line in _block(block, name)]


def _block(block: Payload, name: Name) -> Iterator[str]:
    kind = block["type"]
    if kind == "divider":
        yield "─" * 24
    elif kind == "header":
        yield from (f"══ {line} ══" for line in text_lines(block["text"]["text"], name))
    elif kind == "image":
        yield f"[picture: {plain_line(block['alt_text'])}]"
    elif kind == "context":
        yield "  ".join(_context(part, name) for part in block["elements"])
    elif kind == "markdown":
        yield from plain(block["text"]).split("\n")
    elif kind == "rich_text":
        yield from _rich(block, name)
    elif kind == "table":
        yield from _table(block, name)
    elif kind == "data_visualization":
        yield f"[chart: {plain_line(block['title'])}]"
    else:
        yield from _with_text(block, name)
    if touched := touchables([block]):
        yield "  ".join(f"[{plain_line(each.label)} · {_id(each)}]" for each in touched)


def _id(each: Touchable) -> str:
    """What a person types for it: the field of a form, the action of anything else."""
    return str(each.block["block_id"]) if each.block["type"] == "input" else each.action_id


def _with_text(block: Payload, name: Name) -> Iterator[str]:
    for part in ("label", "text", "hint"):
        if part in block:
            yield from text_lines(block[part]["text"], name)
    for cell in block.get("fields", ()):
        yield from ("  " + line for line in text_lines(cell["text"], name))
    if initial := block.get("element", {}).get("initial_value"):
        yield from ("  │ " + line for line in plain(initial).split("\n"))


def _context(part: Payload, name: Name) -> str:
    if part["type"] == "image":
        return f"[picture: {plain_line(part['alt_text'])}]"
    return " ".join(text_lines(part["text"], name))


def _table(block: Payload, name: Name) -> Iterator[str]:
    cells = [["; ".join(_cell(cell, name)) for cell in row] for row in block["rows"]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    for row in cells:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def _cell(cell: Payload, name: Name) -> list[str]:
    return (
        list(_rich(cell, name))
        if cell["type"] == "rich_text"
        else [plain_line(str(cell.get("text", cell.get("value"))))]
    )


def _rich(block: Payload, name: Name) -> Iterator[str]:
    for part in block["elements"]:
        if part["type"] == "rich_text_list":
            for item in part["elements"]:
                yield from ("• " + line for line in _spans(item, name))
        else:
            before = "  │ " if part["type"] != "rich_text_section" else ""
            yield from (before + line for line in _spans(part, name))


def _spans(part: Mapping[str, Any], name: Name) -> list[str]:
    return plain("".join(_span(each, name) for each in part["elements"])).removesuffix("\n").split("\n")


def _span(each: Mapping[str, Any], name: Name) -> str:
    said = {
        "user": lambda: "@" + name(each["user_id"]),
        "channel": lambda: "#" + name(each["channel_id"]),
        "usergroup": lambda: "@" + str(each["usergroup_id"]),
        "broadcast": lambda: "@" + str(each["range"]),
        "emoji": lambda: f":{each['name']}:",
        "date": lambda: str(each.get("fallback", "a moment")),
        "link": lambda: str(each.get("text") or each["url"]),
    }.get(each["type"])
    return said() if said else str(each.get("text", each.get("value", "")))
