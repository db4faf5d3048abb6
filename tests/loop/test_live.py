"""One real proposal by the default model. It costs some cents; run with `-m live` and ANTHROPIC_API_KEY."""

from __future__ import annotations

import os

import pytest

from eventstore.settings import Claude as Settings
from loop import edits
from loop.proposers.claude import Claude
from tests.loop.test_claude import TRAIN, Desk, an_ask

KEY = os.environ.get("ANTHROPIC_API_KEY", "")


@pytest.mark.live
@pytest.mark.skipif(not KEY, reason="ANTHROPIC_API_KEY is not set")
async def test_the_real_api_gives_a_proposal_that_applies_and_its_cache_holds():
    claude = Claude(Settings(effort="low", output_tokens=8_000, reads=0), api_key=KEY)
    try:
        first = await claude.propose(an_ask(usd_max=0.5), Desk())
        second = await claude.propose(an_ask(experiment=8, usd_max=0.5), Desk())
    finally:
        await claude.close()
    for got in (first, second):
        assert edits.apply(got.edits, {"train.py": TRAIN}, editable=("train.py",))
        assert got.description and got.hypothesis and got.expected_effect
        assert got.spent.usd is not None and 0 < got.spent.usd < 0.5
        assert all(call.request for call in got.spent.calls)
