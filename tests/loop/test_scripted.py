"""The scripted proposer answers as it is told, from a function, from entries or from a file."""

import asyncio
import json

import pytest

from eventstore.events import Block, ReplaceBlocks, SetConstants, WholeFile
from loop.errors import BadScript
from loop.proposers.base import Ask, Proposal, ProposalError, Proposer
from loop.proposers.scripted import Entry, Scripted, to_data

EDITS = (SetConstants("a.py", {"A": 2}), ReplaceBlocks("a.py", (Block("x", "y"),)), WholeFile("b.py", "B = 1\n"))


def ask(experiment=1, number=0, attempt=0):
    return Ask(
        tag="nov21",
        experiment=experiment,
        ask=number,
        attempt=attempt,
        purpose="repair" if attempt else "new",
        base_commit="c" * 40,
        files={},
        program="",
        history=(),
        in_flight=(),
        seed=0,
        metric="val_bpb",
        direction="minimize",
    )


async def test_the_first_entry_that_fits_answers():
    proposer: Proposer = Scripted(
        [
            Entry(1, ask=0, fail="api", why="it was down", usd=0.5),
            Entry(1, attempt=1, description="mend"),
            Entry(1, description="first", edits=EDITS, hypothesis="because"),
            Entry(2, description="second"),
        ]
    )
    assert await proposer.propose(ask(1, 1)) == Proposal("first", EDITS, hypothesis="because")
    assert (await proposer.propose(ask(1, 5))).description == "first"
    assert (await proposer.propose(ask(1, 2, attempt=1))).description == "mend"
    assert (await proposer.propose(ask(2))).description == "second"
    with pytest.raises(ProposalError) as error:
        await proposer.propose(ask(1, 0))
    assert (error.value.failure, error.value.why, error.value.spent.usd) == ("api", "it was down", 0.5)


async def test_a_script_that_has_no_answer_is_exhausted():
    with pytest.raises(ProposalError) as error:
        await Scripted([Entry(1)]).propose(ask(2))
    assert (error.value.failure, error.value.why) == ("exhausted", "the script has no answer for experiment 2, ask 0")


async def test_a_function_may_answer():
    proposer = Scripted(
        lambda ask: Entry(ask.experiment, description=f"n {ask.experiment}") if ask.experiment < 3 else None
    )
    assert (await proposer.propose(ask(2))).description == "n 2"
    with pytest.raises(ProposalError, match="no answer for experiment 3"):
        await proposer.propose(ask(3))


async def test_an_answer_waits_at_the_gate_and_can_be_cancelled_there():
    opened, asked = asyncio.Event(), []

    async def gate(ask):
        asked.append(ask.experiment)
        await opened.wait()

    proposer = Scripted([Entry(1), Entry(2)], gate=gate)
    first, second = (asyncio.create_task(proposer.propose(ask(number))) for number in (1, 2))
    await asyncio.sleep(0)
    assert (asked, first.done()) == ([1, 2], False)
    second.cancel()
    opened.set()
    assert await first == Proposal("", ())
    with pytest.raises(asyncio.CancelledError):
        await second


def test_a_script_survives_a_file():
    entries = [Entry(1, description="first", edits=EDITS), Entry(2, ask=1, attempt=0, fail="api", usd=None)]
    assert Scripted.from_data(json.loads(json.dumps(to_data(entries))))._script == tuple(entries)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({}, "Expected `array`, got `object`"),
        ([{}], "missing required field `experiment`"),
        ([{"experiment": "1"}], r"Expected `int`, got `str` - at `\$\[0\].experiment`"),
        ([{"experiment": 1, "edit": []}], "contains unknown field `edit`"),
        ([{"experiment": 1, "edits": [{"edit": "rm"}]}], "Invalid value 'rm'"),
    ],
)
def test_a_script_that_cannot_be_read_says_where(data, why):
    with pytest.raises(BadScript, match=why):
        Scripted.from_data(data)
