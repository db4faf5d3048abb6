"""The pieces that messages, modals and the Home tab are made of. Pure.

What takes *mrkdwn* is given text that `bot.text` has made safe; what takes *text* makes it safe itself.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bot import blocks as rules
from bot import text
from bot.message import Block
from bot.text import Element
from eventstore.codec import clean
from eventstore.plain import plain

SECTION_MAX = 2_900
"""Characters of one section: under Slack's 3,000."""
MESSAGE_MAX = 11_500
"""Characters of all blocks of one message: under the 12,000 that `bot.blocks` allows."""
DIFF_MAX = 6_000
"""Characters of a diff of program.md."""

_CODE = re.compile("`([^`\n]+)`")


def section(mrkdwn: str) -> Block:
    """A paragraph."""
    return {"type": "section", "text": {"type": "mrkdwn", "text": mrkdwn, "verbatim": True}}


def context(mrkdwn: str) -> Block:
    """A small grey line."""
    return {"type": "context", "elements": [{"type": "mrkdwn", "text": mrkdwn, "verbatim": True}]}


def header(words: str) -> Block:
    """A heading, of at most 150 characters."""
    return {"type": "header", "text": plain_text(words, rules.HEADER_TEXT)}


def divider() -> Block:
    return {"type": "divider"}


def actions(elements: Sequence[Element]) -> list[Block]:
    """A row of buttons; nothing without one."""
    return [{"type": "actions", "elements": list(elements)}] if elements else []


def plain_text(words: str, limit: int) -> Element:
    """Text that Slack shows as it is, on one line; never empty."""
    return {"type": "plain_text", "text": text.line(words, limit) or "-", "emoji": False}


def said(sentence: str, limit: int = SECTION_MAX) -> Block:
    """A sentence, untrusted parts in it or not, with what stands in backticks as code."""
    words = clean(plain(sentence), limit).strip() or "-"
    return {"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": _spans(words)}]}


def _spans(words: str) -> list[Element]:
    spans: list[Element] = []
    for index, part in enumerate(_CODE.split(words)):
        if part:
            span: dict[str, Any] = {"type": "text", "text": part}
            spans.append(span | {"style": {"code": True}} if index % 2 else span)
    return spans


def pairs(rows: Iterable[tuple[str, str]]) -> list[Block]:
    """Names and values in mrkdwn, one pair a line, in as few sections as they fit; an empty value is left out."""
    found: list[str] = []
    size = SECTION_MAX + 1
    for name, value in rows:
        if not value:
            continue
        line = f"*{name}*  {value}"
        size += len(line) + 1
        if size > SECTION_MAX:
            found.append(line)
            size = len(line)
        else:
            found[-1] += f"\n{line}"
    return [section(part) for part in found]


def diff(before: str, after: str) -> list[Block]:
    """What was changed in program.md, and a word if that is cut."""
    lines = [
        *difflib.unified_diff(before.splitlines(), after.splitlines(), "program.md", "program.md", n=2, lineterm="")
    ][2:]
    code = "\n".join(lines)
    if not code:
        return [said("Only white space at the ends of lines differs.")]
    note = [said(f"The diff is cut here: it has {len(lines)} lines.")] if len(code) > DIFF_MAX else []
    return [text.preformatted(code, DIFF_MAX), *note]


def fitted(
    found: Sequence[Block], left_out: Callable[[int], Block], *, most: int = 50, size: int | None = MESSAGE_MAX
) -> list[Block]:
    """
    The first of the blocks, as many as fit, and, if some do not, *left_out* of how many did not.

    Args:
        most: How many blocks there may be.
        size: How many characters in all; None for a view, where only blocks are counted.
    """
    if len(found) <= most and (size is None or rules.text_size(found) <= size):
        return list(found)
    left = None if size is None else size - 300  # the note
    kept: list[Block] = []
    for block in found[: most - 1]:
        if left is not None:
            left -= rules.text_size([block])
            if left < 0:
                break
        kept.append(block)
    while kept and kept[-1]["type"] in ("divider", "header"):
        kept.pop()
    return [*kept, left_out(len(found) - len(kept))]
