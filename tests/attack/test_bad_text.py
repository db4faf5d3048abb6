"""Text and numbers that break JSON or UTF-8: refused before anything is written, or back exactly as they were."""

from __future__ import annotations

import io
import json
import math
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eventstore.envelope import NewEvent
from eventstore.errors import InvalidEvent
from eventstore.events import Data, IdeaSuggested, RunRequested, TrainingFinished, UnknownEvent
from eventstore.maintenance import export, verify
from eventstore.store import Store
from tests.attack.nursery import AT
from tests.conftest import Tally

CHARACTERS = (
    "\ud800", "\udfff", "\udc80",
    "\0", "\x01", "\x1b", "\x7f", "\x85", "\ufeff", "\ufffe", "\uffff", "\u2028", "\u2029",
    "\u202e", "\u200b", "\U0001f600", "\U0010ffff", '"', "\\", "\\u0000", "\\ud800", "/", "'", "\n", "\r", "\t",
    "\u0301", "é", "e\u0301", "</script>", "NaN", "null", "{", "]", " ", "a",
)  # fmt: skip
NUMBERS = (
    math.nan, math.inf, -math.inf, 0.0, -0.0, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 1e22, 0.1 + 0.2,
    1e16, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1, 2**64, -(2**80), 10**400, 1.0, 1, True, False, None,
)  # fmt: skip


def text(chance: random.Random) -> str:
    return "".join(chance.choice(CHARACTERS) for _ in range(chance.randint(0, 6)))


def value(chance: random.Random, depth: int = 2) -> Any:
    kind = chance.randrange(4 if depth else 2)
    if kind == 0:
        return text(chance)
    if kind == 1:
        return chance.choice(NUMBERS)
    if kind == 2:
        return [value(chance, depth - 1) for _ in range(chance.randint(0, 3))]
    return {text(chance): value(chance, depth - 1) for _ in range(chance.randint(0, 3))}


def leaves(found: Any) -> Iterator[Any]:
    if isinstance(found, Mapping):
        for key, inner in found.items():
            yield key
            yield from leaves(inner)
    elif isinstance(found, list):
        for inner in found:
            yield from leaves(inner)
    else:
        yield found


def impossible(found: Any) -> bool:
    """Whether JSON in UTF-8 cannot hold it, or the log keeps it out: a null says nothing."""
    for leaf in leaves(found):
        if leaf is None or (isinstance(leaf, float) and not math.isfinite(leaf)):
            return True
        if isinstance(leaf, str) and any("\ud800" <= char <= "\udfff" for char in leaf):
            return True
    return False


def form(data: Data | UnknownEvent) -> str:
    """All of it, types and signs of zero too; only the order of keys is nobody's promise."""

    def sorted_(found: Any) -> Any:
        if isinstance(found, dict):
            return [(key, sorted_(found[key])) for key in sorted(found)]
        return [sorted_(inner) for inner in found] if isinstance(found, list | tuple) else found

    return repr(sorted_(msgspec.structs.asdict(data)))


def possible(found: Any) -> bool:
    """Whether it must be taken. Integers beyond 64 bits may be refused."""
    return not impossible(found) and all(not isinstance(x, int) or -(2**63) <= x < 2**64 for x in leaves(found))


@pytest.mark.parametrize("trials", [300, pytest.param(10_000, marks=[pytest.mark.long, pytest.mark.timeout(600)])])
def test_what_json_cannot_hold_is_refused_and_all_else_comes_back(log: Path, tally: Tally, trials: int) -> None:
    count = tally("values are refused or come back unaltered", "NaN, infinities, lone surrogates, NUL, huge numbers")
    chance, refused, expected = random.Random(trials), 0, []
    with Store.open(log) as store:
        for n in range(trials):
            if n % 3 == 0:
                given: Any = text(chance)
                data: Any = IdeaSuggested(text=given)
            elif n % 3 == 1:
                given = {"v": value(chance)}
                data = RunRequested(tag="t", from_ref="HEAD", zone="UTC", overrides=given)
            else:
                given = {"m": chance.choice([x for x in NUMBERS if x is not None and not isinstance(x, bool)])}
                data = TrainingFinished(
                    experiment=1, attempt=0, trial=0, nonce="n", outcome="scored", seconds=1.0, metrics=given
                )
            event = NewEvent(f"id-{n}", "t", AT, "cli:eve", data)
            before = store.head()
            try:
                store.append([event])
            except InvalidEvent:
                refused += 1
                count.see(not possible(given) and store.head() == before)
                continue
            (back,) = store.read(before.position)
            expected.append(form(data))
            count.see(not impossible(given) and form(back.data) == form(data))
    verify(log)
    out = io.StringIO()
    export(log, out)
    lines = out.getvalue().removesuffix("\n").split("\n")  # not splitlines: U+2028 stands in JSON as it is
    assert [json.loads(line)["position"] for line in lines] == list(range(1, len(expected) + 1))
    with Store.open(log) as store:
        assert [form(event.data) for event in store.stream()] == expected
    count.note = f"{refused} refused, {len(expected)} back as they were"
    assert count.held == count.made == trials
    assert refused and expected
