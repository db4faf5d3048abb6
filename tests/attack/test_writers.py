"""Writers at once: no lock error, no gap, nothing lost or doubled, each one's events in its order, retries known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from eventstore.maintenance import verify
from eventstore.store import Store
from tests.conftest import Tally

Attack = Callable[..., str]


@pytest.mark.parametrize(
    ("writers", "appends"),
    [(2, 150), pytest.param(2, 5000, marks=pytest.mark.long), pytest.param(6, 1500, marks=pytest.mark.long)],
)
@pytest.mark.timeout(600)
def test_writers_at_once(attack: Attack, tally: Tally, log: Path, writers: int, appends: int) -> None:
    count = tally("writers at once lose and double nothing", f"{writers} writers, one in two expecting a position")
    Store.open(log).close()
    conflicts = int(attack("busy_writers", log, writers, appends, 5))
    with Store.open(log) as store:
        found = [read.id for read in store.stream()]
    assert verify(log).position == len(found)
    for k in range(writers):
        mine = [name for name in found if name.startswith(f"w{k}-")]
        expected = [f"w{k}-{n}-{m}" for n in range(appends) for m in range(n % 3 + 1)]
        for name, wanted in zip(mine, expected, strict=True):
            count.see(name == wanted)
    count.note = f"{conflicts} conflicts tried again"
    assert count.held == count.made == len(found)
