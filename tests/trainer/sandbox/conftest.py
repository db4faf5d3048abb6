"""What this machine offers. Where bubblewrap does not work its tests fail, unless one says that they are left out."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from trainer.process import machine
from trainer.sandbox.plan import REMEDY, Machine

NO_BWRAP = "NIGHTSHIFT_NO_BWRAP"


@pytest.fixture(scope="session")
def here() -> Machine:
    """This machine, on which bubblewrap works."""
    found = machine()
    if not found.bwrap and os.environ.get(NO_BWRAP) == "1":
        pytest.skip(f"left out: bubblewrap does not work here and {NO_BWRAP} = 1")  # -ra counts them
    if not found.bwrap:
        pytest.fail(f"bubblewrap does not work here ({found.bwrap_problem}): {REMEDY}; {NO_BWRAP}=1 leaves this out")
    return found


@pytest.fixture(scope="session")
def only_landlock() -> Machine:
    """This machine as it would be without bubblewrap."""
    found = replace(machine(), bwrap="", bwrap_problem="it is not installed")
    if not found.landlock:
        pytest.skip(f"no landlock here: {found.landlock_problem}")
    return found
