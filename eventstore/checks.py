"""What `loop --check`, `bot --check` and `doctor` say of a machine: one check, one answer. Pure.

The loop and the bot each check what is theirs and print the answers as JSON; `doctor` runs both and joins them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from eventstore.codec import clean
from eventstore.plain import plain_line

Outcome = Literal["ok", "not_ok", "note"]
TEXT_MAX = 600


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """
    One thing that was looked at.

    Attributes:
        what: Its name, such as `slack: bot token`.
        outcome: `ok`; `not_ok`, something will not work; `note`, all works and something could be better.
        found: What was found, one sentence.
        fix: What to do; empty where nothing is to be done.
    """

    what: str
    outcome: Outcome
    found: str
    fix: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All checks of one process. *is_ok* is false if one of them is `not_ok`."""

    is_ok: bool
    checks: tuple[Check, ...]


def ok(what: str, found: str) -> Check:
    """It is as it should be."""
    return _check(what, "ok", found, "")


def not_ok(what: str, found: str, fix: str) -> Check:
    """Something will not work until *fix* is done."""
    return _check(what, "not_ok", found, fix)


def note(what: str, found: str, fix: str = "") -> Check:
    """Everything works; *fix* would make it better."""
    return _check(what, "note", found, fix)


def _check(what: str, outcome: Outcome, found: str, fix: str) -> Check:
    return Check(what=what, outcome=outcome, found=_line(found), fix=_line(fix))


def _line(text: str) -> str:
    return clean(plain_line(text), TEXT_MAX)


def report(checks: Iterable[Check]) -> Report:
    """Put checks together."""
    found = tuple(checks)
    return Report(is_ok=all(check.outcome != "not_ok" for check in found), checks=found)


def read_report(output: str) -> Report | None:
    """Find the report in what a process printed, whatever it printed before; None if there is none."""
    lines = output.splitlines()
    for first in (index for index, line in enumerate(lines) if line.startswith("{")):
        try:
            return msgspec.json.decode("\n".join(lines[first:]), type=Report)
        except (msgspec.DecodeError, UnicodeEncodeError):
            continue
    return None


WORDS: dict[Outcome, str] = {"ok": "ok", "not_ok": "NOT OK", "note": "note"}


def text(found: Report) -> str:
    """The report for people: a line for each check, below it what to do."""
    width = max((len(check.what) for check in found.checks), default=0)
    lines = []
    for check in found.checks:
        lines.append(f"{WORDS[check.outcome]:<6}  {check.what:<{width}}  {check.found}")
        if check.fix:
            lines.append(f"{'':<6}  {'':<{width}}  -> {check.fix}")
    bad = sum(check.outcome == "not_ok" for check in found.checks)
    lines.append(
        "" if not found.checks else f"{bad} of {len(found.checks)} need something done." if bad else "All good."
    )
    return "\n".join(lines)
