"""No honest model is called tampered: those that the demo's own sweep comes up with, trained for a few steps."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from eventstore import settings as st
from loop import edits, profiles
from loop.proposers.base import Ask
from loop.proposers.sweep import Sweep
from tests.conftest import Tally
from tests.trust.world import World

COUNT = 50
IN_CI = 4
STEPS = 5
TRAIN = (Path(__file__).parents[2] / "train.py").read_text()


def proposed(number: int) -> tuple[str, str]:
    """What the sweep proposes for an experiment of a run that has no history: its description, and the train.py."""
    ask = Ask(
        tag="night",
        experiment=number,
        ask=0,
        attempt=0,
        purpose="new",
        base_commit="c" * 40,
        files={"train.py": TRAIN},
        program="",
        history=(),
        in_flight=(),
        seed=0,
        metric="val_bpb",
        direction="minimize",
        editable=("train.py",),
    )
    proposal = asyncio.run(Sweep(st.parse(profiles.CPU.settings).sweep).propose(ask))
    return proposal.description, edits.apply(proposal.edits, {"train.py": TRAIN}, editable=["train.py"])["train.py"]


@pytest.mark.parametrize(
    "number", [*range(1, IN_CI + 1), *(pytest.param(n, marks=pytest.mark.long) for n in range(IN_CI + 1, COUNT + 1))]
)
def test_an_honest_model_of_the_sweep_is_scored(number: int, world: World, tally: Tally) -> None:
    count = tally("trust: honest models", "of the demo's sweep, scored with all probes")
    description, program = proposed(number)
    tried = world.train(description, program=program, env={"NIGHTSHIFT_MAX_STEPS": str(STEPS)})
    assert count.see(tried.outcome == "scored"), f"{description}: {tried}"
    answer = tried.answer
    assert answer is not None and answer.probe is not None and answer.probe.moved == 0, f"{description}: {answer}"
    assert answer.second_opinion is not None and answer.second_opinion.given == pytest.approx(
        answer.second_opinion.hidden, abs=1e-5
    )
