"""Read what a program says of itself: its metrics, its score, its live progress. Pure.

The output is parsed as it passes, in memory that does not grow with it, and any split into chunks gives the
same answer. All of it is a claim by code that nobody has read, so names, values, lines and their number are
bounded, and what could be read in two ways is refused.

The form is upstream's: a line `---`, then lines `key: value`. A carriage return takes back what stood on its
line before, as it does on a terminal, so a progress line is never mistaken for a result.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

LINE_MAX = 4096
"""Bytes; a longer line is no metric line, and only so much of it is held."""

METRICS_MAX = 64
VALUE_MAX = 200
PROGRESS_MAX = 200
WHY_VALUE_MAX = 60

KEY_LINE = re.compile(rb"([A-Za-z_][A-Za-z0-9_./%-]{0,63}):[ \t]+(\S.*)", re.DOTALL)
INTEGER = re.compile(r"[+-]?[0-9]{1,15}")
NUMBER = re.compile(
    r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|nan|inf|infinity)", re.ASCII | re.IGNORECASE
)
ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
BLANK = b" \t\r\n"

PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*%")
STEP = re.compile(r"\b(?:step|iter|iteration)[\s:=#]*([0-9]{1,15})", re.ASCII | re.IGNORECASE)
LOSS = re.compile(
    r"\b(?:[a-z]+_)?loss[\s:=]*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?)", re.ASCII | re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Claim:
    """
    The score that a program claims, or why there is none that could count.

    Attributes:
        score: Finite, or None.
        problem: `no_metric` where none was given, `tampered` where it is doubtful which one counts or none can be.
        why: One sentence where *score* is None.
    """

    score: float | None = None
    problem: Literal["", "no_metric", "tampered"] = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Summary:
    """
    What the whole output said.

    Attributes:
        claim: None where no objective was looked for.
        claims: How many metric blocks, and lines `name: number` outside them, there were.
    """

    metrics: Mapping[str, int | float | str]
    claim: Claim | None
    claims: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """The line that a terminal would show last. *fraction* is 0 to 1; what cannot be read from the line is None."""

    text: str
    fraction: float | None = None
    step: int | None = None
    loss: float | None = None


@dataclass(slots=True)
class _Block:
    """A metric block while it is read. *scores* are the raw values under the objective's name."""

    metrics: dict[str, int | float | str] = field(default_factory=dict)
    scores: list[bytes] = field(default_factory=list)


class MetricStream:
    """
    Parse an output as it passes: `feed` it in chunks of any size, then `finish` once.

    With an objective's *name*, the claim is the value of that name in the one block that has it; without such
    a block, the value of the one line `name: number` there is. Two blocks, or two lines and no block, are
    `tampered`, as is a value that is not finite. Without a *name* the last block gives the metrics.
    """

    def __init__(self, name: str | None) -> None:
        self._name = name or ""
        self._prefix = f"{name}:".encode() if name else b"---"
        self._relevant = re.compile(rb"(?:\A|[\r\n])(?:---|%s)" % re.escape(self._prefix))
        self._segment = bytearray()  # the line at hand, since its last carriage return
        self._returned = False  # a carriage return stands right behind it
        self._last = b""  # the last line that was not blank
        self._block: _Block | None = None  # the block at hand
        self._metric: _Block | None = None  # the first one that has the objective
        self._other: _Block | None = None  # the last one that has not
        self._metric_blocks = 0
        self._bare: list[bytes] = []  # values of the first two lines outside blocks
        self._bare_lines = 0

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the output."""
        first, newline, rest = chunk.partition(b"\n")
        self._extend(first)
        if not newline:
            return
        self._end_segment()
        lines, newline, tail = rest.rpartition(b"\n")
        if newline:
            self._take_lines(lines)
        self._extend(tail)

    def progress(self) -> Progress | None:
        """What the screen would show now, or None before the first line."""
        live = bytes(self._segment) if self._segment.strip(BLANK) else self._last
        return parse_progress(live) if live else None

    def finish(self) -> Summary:
        """Take the end of the output, which may come without a last newline, and say what it was."""
        if self._segment:
            self._end_segment()
        self._close_block()
        block = self._metric or self._other
        claims = self._metric_blocks + self._bare_lines + (self._other is not None)
        return Summary(block.metrics if block else {}, self._claim() if self._name else None, claims)

    def _extend(self, piece: bytes) -> None:
        body = piece.rstrip(b"\r")
        if body:
            _, returned, visible = body.rpartition(b"\r")
            if returned or self._returned:
                self._segment.clear()
            self._segment += visible[: LINE_MAX + 1 - len(self._segment)]
            self._returned = False
        if len(body) < len(piece):
            self._returned = True

    def _end_segment(self) -> None:
        line = bytes(self._segment)
        self._segment.clear()
        self._returned = False
        if line.strip(BLANK):
            self._last = line
        self._take_line(line)

    def _take_lines(self, lines: bytes) -> None:
        """Take complete lines. Nearly always none of them matters, and one search tells."""
        self._last = _last_visible(lines) or self._last
        if self._block is not None or self._relevant.search(lines):
            for line in lines.split(b"\n"):
                self._take_line(_visible(line))

    def _take_line(self, line: bytes) -> None:
        if self._block is None and not line.startswith((b"---", self._prefix)):
            return
        line = line.rstrip(BLANK) if len(line) <= LINE_MAX else b""
        if line == b"---":
            self._close_block()
            self._block = _Block()
        elif self._block is None:
            self._take_bare(line)
        elif not self._take_entry(self._block, line):
            self._close_block()

    def _take_bare(self, line: bytes) -> None:
        value = line[len(self._prefix) :].strip(BLANK)
        if self._name and line.startswith(self._prefix) and NUMBER.fullmatch(_text(value)):
            self._bare_lines += 1
            self._bare = [*self._bare, value][:2]

    def _take_entry(self, block: _Block, line: bytes) -> bool:
        key, value = b"", b""
        if self._name and line.startswith(self._prefix):
            key, value = self._prefix[:-1], line[len(self._prefix) :].strip(BLANK)
            block.scores = [*block.scores, value][:2]
        elif match := KEY_LINE.fullmatch(line):
            key, value = match.groups()
        if key and (len(block.metrics) < METRICS_MAX or key == self._prefix[:-1]):
            block.metrics.setdefault(_text(key), _value(value))
        return bool(key)

    def _close_block(self) -> None:
        block, self._block = self._block, None
        if block is None or not block.metrics:
            return
        if not block.scores:
            self._other = block
            return
        self._metric_blocks += 1
        self._metric = self._metric or block

    def _claim(self) -> Claim:
        if self._metric_blocks > 1:
            return Claim(
                None,
                "tampered",
                f"the output holds {self._metric_blocks} metric blocks with {self._name}, expected one",
            )
        if self._metric is not None:
            values, lines = self._metric.scores, len(self._metric.scores)
        else:
            values, lines = self._bare, self._bare_lines
        if not lines:
            return Claim(None, "no_metric", f"the output holds no line `{self._name}: <number>`")
        if lines > 1:
            where = "the metric block" if self._metric is not None else "the output, which has no `---` block,"
            return Claim(None, "tampered", f"{where} gives {self._name} more than once, so none of them counts")
        return claim_of_text(self._name, _text(values[0]))


def claim_of_text(name: str, text: str) -> Claim:
    """The claim that *text* makes for *name*: a finite decimal number, or none."""
    shown = clean(text, WHY_VALUE_MAX)
    if not NUMBER.fullmatch(text):
        return Claim(None, "no_metric", f"{name} is {shown!r}, which is not a number")
    if not math.isfinite(float(text)):
        return Claim(None, "tampered", f"{name} is {shown}, which no measurement can give")
    return Claim(float(text))


def claim_of_json(raw: bytes, file: str, key: str) -> Claim:
    """The claim made by a JSON file: the number under *key*, a dotted path such as `test.accuracy`."""
    try:
        value: Any = json.loads(raw)
    except (ValueError, RecursionError):
        return Claim(None, "no_metric", f"{file} is not JSON")
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return Claim(None, "no_metric", f"{file} has no {key}")
        value = value[part]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Claim(None, "no_metric", f"{key} in {file} is {_kind(value)}, expected a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        return Claim(None, "tampered", f"{key} in {file} is {number}, which no measurement can give")
    return Claim(number)


def facts_of_json(raw: bytes) -> dict[str, int | float | str]:
    """What an untrusted program says of its training beside the model: names and values as in a metric block."""
    try:
        said: Any = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    found: dict[str, int | float | str] = {}
    for key, value in said.items() if isinstance(said, dict) else ():
        line = f"{key}: {value}".encode("utf-8", "replace")
        match = KEY_LINE.fullmatch(line[: LINE_MAX + 1]) if isinstance(value, int | float | str) else None
        if match and len(found) < METRICS_MAX:
            found[_text(match[1])] = _value(match[2].rstrip(BLANK))
    return found


def parse_progress(line: bytes) -> Progress:
    """Read a progress line leniently. The text is clean and at most 200 characters."""
    text = clean(_text(_visible(line)[: LINE_MAX + 1]), PROGRESS_MAX).strip()
    percent, step, loss = PERCENT.search(text), STEP.search(text), LOSS.search(text)
    fraction = float(percent[1]) / 100 if percent else None
    finite = float(loss[1]) if loss and math.isfinite(float(loss[1])) else None
    return Progress(
        text,
        fraction=fraction if fraction is not None and fraction <= 1 else None,
        step=int(step[1]) if step else None,
        loss=finite,
    )


def clean(text: str, limit: int) -> str:
    """One line of text without escape sequences and control characters, cut to *limit* characters."""
    return _printable(text)[:limit]


def clean_tail(raw: bytes, limit: int) -> str:
    """
    The end of an output as people would have seen it: lines after their last carriage return, without escape
    sequences and control characters, at most *limit* characters, from the start of a line where one is near.
    """
    lines = (_text(_visible(line)) for line in raw.rstrip(BLANK).split(b"\n"))
    text = "\n".join(_printable(line.replace("\t", "    ")).rstrip() for line in lines)
    if len(text) <= limit:
        return text
    text = text[-limit:]
    head, newline, rest = text.partition("\n")
    return rest if newline and len(head) < limit // 4 else text


def _visible(line: bytes) -> bytes:
    line = line.rstrip(b"\r")
    return line[line.rfind(b"\r") + 1 :]


def _last_visible(lines: bytes) -> bytes:
    """The last line that is not blank, bounded, or nothing. It looks at no more lines than it must."""
    end = len(lines)
    while end >= 0:
        start = lines.rfind(b"\n", 0, end) + 1
        line = _visible(lines[start:end])
        if line.strip(BLANK):
            return line[: LINE_MAX + 1]
        end = start - 1
    return b""


def _value(raw: bytes) -> int | float | str:
    text = _text(raw)
    if INTEGER.fullmatch(text):
        return int(text)
    if NUMBER.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    return clean(text, VALUE_MAX)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in ESCAPE.sub("", text))


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _kind(value: object) -> str:
    kinds = {bool: "true or false", str: "a text", list: "a list", dict: "an object"}
    return kinds.get(type(value), "null")
