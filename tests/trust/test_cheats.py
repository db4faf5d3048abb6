"""Every known way to cheat is tried for real, and again with the one defence off, where it must succeed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.conftest import Tally
from tests.trust.rows import ROWS, Row
from tests.trust.world import World

TABLE = "NIGHTSHIFT_TRUST_TABLE"
"""A folder to which each row writes what it got, for docs/generate_trust.py."""


@pytest.mark.parametrize("row", ROWS.values(), ids=list(ROWS))
def test_a_cheat_gains_nothing_and_would_without_the_defence(
    row: Row, world: World, tally: Tally, request: pytest.FixtureRequest
) -> None:
    count = tally(f"trust: {row.group.lower()}", row.name)
    if row.sandboxed:
        count.note = "left out: it takes bubblewrap"
        request.getfixturevalue("bubblewrap")
    got, control = row.run(world)
    assert count.see(bool(got and control))
    count.note = f"{got}; control: {control}"
    if folder := os.environ.get(TABLE):
        told = json.dumps({"name": row.name, "got": got, "control": control})
        Path(folder, row.name.replace("/", " ") + ".json").write_text(told)
