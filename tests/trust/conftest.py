"""One stage for each process of the test run."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.trust.world import World
from trainer.process import machine
from trainer.sandbox.plan import REMEDY

NO_BWRAP = "NIGHTSHIFT_NO_BWRAP"


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("trust"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def bubblewrap() -> None:
    """Where it does not work, what takes it fails, unless one says that it is left out; -ra counts that."""
    found = machine()
    if not found.bwrap and os.environ.get(NO_BWRAP) == "1":
        pytest.skip(f"left out: bubblewrap does not work here and {NO_BWRAP} = 1")
    if not found.bwrap:
        pytest.fail(f"bubblewrap does not work here ({found.bwrap_problem}): {REMEDY}; {NO_BWRAP}=1 leaves this out")
