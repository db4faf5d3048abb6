"""kill -9 at any moment: what was acknowledged is there, whole batches or nothing, no gap, the chain good."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from eventstore.errors import EventstoreError
from eventstore.maintenance import verify
from eventstore.store import Store
from tests.attack.killed_writers import size_of
from tests.conftest import Tally

Attack = Callable[..., str]

A_LOG = 250
"""Kills per log, so that opening does not come to read for longer than writers live."""


@pytest.mark.parametrize("kills", [60, pytest.param(3000, marks=[pytest.mark.long, pytest.mark.timeout(1800)])])
def test_no_acknowledged_event_is_lost_by_kill_9(attack: Attack, tally: Tally, tmp_path: Path, kills: int) -> None:
    killed = tally("what was acknowledged is kept", "kill -9 of a writer at a random moment")
    found_again = tally("what was acknowledged is kept", "acknowledged events, counted in a side file")
    whole = tally("a batch is there whole or not at all", "kill -9 of a writer at a random moment")
    for start in range(0, kills, A_LOG):
        log, side = tmp_path / f"{start}" / "events.db", tmp_path / f"{start}.acknowledged"
        log.parent.mkdir()
        side.touch()
        count = min(A_LOG, kills - start)
        attack("killed_writers", log, side, count, 2611 + start)
        try:
            head = verify(log)
            with Store.open(log) as store:
                there = {read.position: read.id for read in store.stream()}
            sound = sorted(there) == list(range(1, head.position + 1))
        except EventstoreError as error:
            there, sound = {}, False
            print(error)
        acknowledged = [line.split() for line in side.read_text().splitlines()]
        lost = Counter[str]()
        for position, id_ in acknowledged:
            if not found_again.see(there.get(int(position)) == id_):
                lost[id_.split("-")[0]] += 1
        batches = Counter(id_.rpartition("-")[0] for id_ in there.values())
        torn = {name for name, size in batches.items() if size != size_of(int(name.split("-")[1]))}
        for name in batches:
            whole.see(name not in torn)
        for n in range(count):
            killed.see(sound and not lost[f"w{n}"])
    print(killed, found_again, whole)
    assert killed.held == killed.made == kills
    assert found_again.held == found_again.made > kills
    assert whole.held == whole.made > kills / 2
