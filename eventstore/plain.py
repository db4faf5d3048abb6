"""Text from outside made safe to show: logs, models and people may write what a terminal would obey. Pure.

Guaranteed: what comes back has no escape sequence, no control character but newline and tab, nothing that
turns the direction of writing around, and can be encoded as UTF-8.
"""

from __future__ import annotations

import re

_ESCAPES = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]{0,64}[ -/]{0,8}[@-~]?"  # colours, cursor movements
    "|(?:\x1b[\\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]{0,4096}(?:\x07|\x1b\\\\|\x9c)?"  # titles, links, strings
    "|\x1b[ -/]{0,8}[0-~]?"
)  # every repeat is bounded: the text may be megabytes of noise made to be slow
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_BREAKS = re.compile("[\t\n\r\x0b\x0c\x1c-\x1f\x85\u2028\u2029]+")


def plain(text: str) -> str:
    """Take escape sequences and control characters out of *text*; newlines and tabs stay."""
    return _encodable(_CONTROLS.sub("", _ESCAPES.sub("", text)))


def plain_line(text: str) -> str:
    """`plain`, on one line: each run of line breaks and tabs becomes a space."""
    return plain(_BREAKS.sub(" ", text)).strip()


def as_on_terminal(text: str) -> list[str]:
    """The lines of a log as a terminal would end up showing them: of a line rewritten with `\\r`, its last state."""
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return [plain(next((part for part in reversed(line.split("\r")) if part), "")) for line in lines]


def shortened(text: str, most: int) -> str:
    """*text* in at most *most* characters, the last of which is an ellipsis if something was cut."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def duration(seconds: float) -> str:
    """A length of time for people, in its two largest units: "42 s", "5 min", "2 h 5 min", "3 d 2 h"."""
    whole = max(int(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 86400:
        return _pair(whole // 3600, "h", whole % 3600 // 60, "min")
    return _pair(whole // 86400, "d", whole % 86400 // 3600, "h")


def _pair(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large} {large_unit}" + (f" {small} {small_unit}" if small else "")


def _encodable(text: str) -> str:
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
