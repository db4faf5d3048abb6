"""Whether a crash looks like a slip of the edit, read off the end of its log. Pure.

The log was written by the program that crashed, so what is read here decides nothing but whether the proposer
may try again.
"""

from __future__ import annotations

import re

FRAME = re.compile(r'File "(?P<python>[^"\n]+)", line (?P<line>\d{1,7})')
"""A frame of a Python traceback."""

PLACE = re.compile(r"^(?P<other>[\w./+-]+\.\w{1,8}):(?P<at>\d{1,7})[:)]", re.MULTILINE)
"""`path:line:` at the beginning of a line, as compilers say it."""

SLIP = re.compile(
    r"^(?:SyntaxError|IndentationError|TabError|NameError|UnboundLocalError|ImportError|ModuleNotFoundError"
    r"|AttributeError|TypeError)\b",
    re.MULTILINE,
)
"""Errors of somebody who misspelt something: in an edited file they count wherever they are raised."""

HUNK = re.compile(r"^@@ -\d+(?:,\d+)? \+(\d+)(?:,(\d+))? @@", re.MULTILINE)
MARGIN = 2
"""Lines around an edited one that count as edited: a bracket left open is reported further down."""


def looks_trivial(tail: str, diff: str) -> bool:
    """
    Whether a place that the log names lies in lines that *diff* added, or a slip was raised in a file of *diff*.

    Args:
        tail: The end of the log.
        diff: What the attempt changed, as a patch; its lines are those after the change.
    """
    edited = _edited_lines(diff)
    places = [(m["python"], int(m["line"])) for m in FRAME.finditer(tail)]
    places += [(m["other"], int(m["at"])) for m in PLACE.finditer(tail)]
    is_slip = SLIP.search(tail) is not None
    for path, line in places:
        lines = next((found for name, found in edited.items() if _same_file(path, name)), None)
        if lines is not None and (is_slip or any(abs(line - near) <= MARGIN for near in lines)):
            return True
    return False


def _same_file(seen: str, name: str) -> bool:
    """Whether a path from a log, absolute or not, can mean the file *name* of the repository."""
    return seen == name or seen.endswith("/" + name) or seen == "./" + name


def _edited_lines(diff: str) -> dict[str, set[int]]:
    """The numbers of the lines that a patch adds, and of those next to what it takes away, by path."""
    found: dict[str, set[int]] = {}
    lines: set[int] = set()
    at = 0
    for row in diff.split("\n"):
        if row.startswith("+++ "):
            path = row[4:].removeprefix("b/")
            lines = found.setdefault(path, set())
        elif hunk := HUNK.match(row):
            at = int(hunk[1])
        elif row.startswith("+"):
            lines.add(at)
            at += 1
        elif row.startswith("-"):
            lines.add(at)
        elif row.startswith(" "):
            at += 1
    return found
