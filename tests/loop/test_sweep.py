"""The sweep draws constants from [sweep], and its answer follows from the ask alone."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from eventstore.events import SetConstants, WholeFile
from eventstore.settings import Choice, Range
from loop.edits import apply
from loop.errors import EditRefused
from loop.proposers.base import Ask, InFlight, ProposalError, Proposer, Tried
from loop.proposers.sweep import Sweep, missing_constants

TRAIN = 'LR = 1e-3\nDEPTH = 4  # blocks\nKIND = "adam"\nBATCH = 2**19\n'
RANGES = {
    "LR": Range(low=0.0001, high=1.0, log=True),
    "DEPTH": Range(low=1, high=8),
    "KIND": Choice(choices=("adam", "muon")),
}
ASK = Ask(
    tag="nov21",
    experiment=1,
    ask=0,
    attempt=0,
    purpose="new",
    base_commit="c" * 40,
    files={"train.py": TRAIN, "notes.txt": "LR = 3"},
    program="",
    history=(),
    in_flight=(),
    seed=7,
    metric="val_bpb",
    direction="minimize",
)


def tried(experiment, score, edits=None, **values):
    edits = (SetConstants("train.py", values),) if edits is None else edits
    return Tried(experiment, edits, "crash" if score is None else "discard", score, "")


async def propose(ranges=RANGES, **changes):
    proposer: Proposer = Sweep(ranges)
    return await proposer.propose(dataclasses.replace(ASK, **changes))


def values(proposal):
    (edit,) = proposal.edits
    return edit.values


async def test_every_constant_is_drawn_from_its_range_and_applies():
    for experiment in range(1, 21):
        proposal = await propose(experiment=experiment)
        drawn = values(proposal)
        assert list(drawn) == ["LR", "DEPTH", "KIND"]
        assert 0.0001 <= drawn["LR"] <= 1 and isinstance(drawn["LR"], float)
        assert drawn["DEPTH"] in range(1, 9) and isinstance(drawn["DEPTH"], int)
        assert drawn["KIND"] in {"adam", "muon"}
        assert apply(proposal.edits, ASK.files, editable=["train.py"])


async def test_the_same_ask_has_the_same_answer_in_any_process():
    history = tuple(tried(n, 1 / n, LR=0.01 * n, DEPTH=n % 8 + 1, KIND="adam") for n in range(1, 15))
    other = Sweep(RANGES)
    await other.propose(dataclasses.replace(ASK, experiment=99))
    asked = dataclasses.replace(ASK, experiment=15, history=history)
    one, two = await propose(experiment=15, history=history), await other.propose(asked)
    assert (one.description, one.edits) == (two.description, two.edits)


@pytest.mark.parametrize("change", [{"seed": 8}, {"experiment": 2}, {"ask": 1}])
async def test_another_run_experiment_or_ask_draws_otherwise(change):
    assert values(await propose(**change)) != values(await propose())


async def test_what_is_in_flight_is_not_drawn_again():
    ranges = {"DEPTH": Range(low=1, high=8)}
    in_flight = []
    for experiment in range(1, 8):
        proposal = await propose(ranges, experiment=experiment, in_flight=tuple(in_flight))
        in_flight.append(InFlight(experiment, proposal.edits))
    drawn = [flying.edits[0].values["DEPTH"] for flying in in_flight]
    assert sorted(drawn) == [1, 2, 3, 5, 6, 7, 8]  # all but 4, where the file stands


async def test_a_finite_space_is_tried_out_and_then_exhausted():
    ranges = {"DEPTH": Range(low=1, high=3), "KIND": Choice(choices=("adam", "muon"))}
    history = []
    for experiment in range(1, 7):
        proposal = await propose(ranges, experiment=experiment, history=tuple(history))
        history.append(tried(experiment, 1.0, proposal.edits))
    assert len({tuple(entry.edits[0].values.items()) for entry in history}) == 6
    with pytest.raises(ProposalError) as error:
        await propose(ranges, experiment=7, history=tuple(history))
    assert (error.value.failure, error.value.why) == (
        "exhausted",
        "the values in [sweep] are used up, 6 combinations were tried",
    )


async def test_a_space_of_one_point_where_the_file_stands_is_exhausted():
    with pytest.raises(ProposalError, match="0 combinations were tried"):
        await propose({"KIND": Choice(choices=("adam",))})


@pytest.mark.parametrize(("direction", "good"), [("minimize", 0.001), ("maximize", 1.0), ("pass", 1.0)])
async def test_what_scored_well_is_drawn_more_often(direction, good):
    """Low LR scored low, high LR high; the sweep follows the direction."""
    ranges = {"LR": Range(low=0.0005, high=2.0, log=True)}
    history = tuple(tried(n, lr, LR=lr + n * 1e-6) for n in range(1, 21) for lr in (0.001, 0.03, 1.0))
    near = 0
    for experiment in range(100, 110):
        lr = values(await propose(ranges, experiment=experiment, history=history, direction=direction))["LR"]
        near += good / 4 < lr < good * 4
    assert near >= 8


async def test_crashes_are_kept_away_from():
    ranges = {"LR": Range(low=0.001, high=1.0, log=True)}
    history = tuple(
        entry
        for n in range(1, 21)
        for entry in (tried(n, None, LR=0.5 + n / 1000), tried(n, 1.0, LR=0.002 + n / 100_000))
    )
    drawn = [values(await propose(ranges, experiment=n, history=history))["LR"] for n in range(100, 110)]
    assert sum(lr < 0.05 for lr in drawn) >= 8


async def test_what_the_sweep_could_not_have_drawn_is_ignored():
    history = (
        tried(0, 1.0, ()),
        tried(1, 0.5, (WholeFile("train.py", ""),)),
        tried(2, 0.5, LR=0.5),
        tried(3, 0.5, LR=50.0, DEPTH=4, KIND="adam"),
        tried(4, 0.5, LR="high", DEPTH=4, KIND="adam"),
        tried(5, 0.5, LR=0.5, DEPTH=4, KIND="sgd"),
    )
    assert values(await propose(history=history)) == values(await propose())


async def test_the_description_is_what_the_edit_does():
    ranges = {"LR": Range(low=0.02342, high=0.023421), "DEPTH": Range(low=2, high=3), "BATCH": Choice(choices=(4,))}
    proposal = await propose(ranges)
    depth = values(proposal)["DEPTH"]
    assert proposal.description == f"LR 0.02342, DEPTH {depth}, BATCH 4"
    assert values(proposal) == {"LR": 0.02342, "DEPTH": depth, "BATCH": 4}


async def test_a_constant_that_stays_is_in_the_description_too():
    """The edit may be put on a tip where it does change."""
    proposal = await propose({"DEPTH": Range(low=1, high=8), "KIND": Choice(choices=("adam",))})
    assert proposal.description.endswith(", KIND adam")
    assert values(proposal)["KIND"] == "adam"


async def test_a_long_description_counts_what_it_leaves_out():
    names = [f"A_RATHER_LONG_NAME_{number}" for number in range(20)]
    files = {"train.py": "".join(f"{name} = 0\n" for name in names)}
    proposal = await propose({name: Range(low=1, high=9) for name in names}, files=files)
    assert len(proposal.description) <= 200
    assert proposal.description.endswith(", and 13 more")
    long = {"KIND": Choice(choices=("x" * 300,))}
    assert len((await propose(long)).description) == 200


@pytest.mark.parametrize(
    ("low", "high"), [(0.99991, 0.99999), (0.123456, 0.123457), (-1.00001, -1.0), (1e-12, 1.00001e-12), (0, 0.5)]
)
async def test_a_rounded_value_stays_in_its_range(low, high):
    ranges = {"LR": Range(low=low, high=high)}
    for experiment in range(1, 6):
        assert low <= values(await propose(ranges, experiment=experiment))["LR"] <= high


async def test_constants_of_several_files_are_set_in_each():
    files = {"b.py": "LR = 1\n", "a.py": "DEPTH = 4\nKIND = 'x'\n"}
    proposal = await propose(files=files)
    assert {edit.path: set(edit.values) for edit in proposal.edits} == {"b.py": {"LR"}, "a.py": {"DEPTH", "KIND"}}
    again = await propose(files=files, history=(tried(1, 1.0, proposal.edits),))
    assert again.edits != proposal.edits


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"train.py": "LR = 1\n"}, "[sweep] names DEPTH, but no editable file (train.py) has that constant"),
        ({"a.py": TRAIN, "b.py": "LR = 1\n"}, "LR is set by both a.py and b.py: rename one of them"),
        ({"a.py": "LR = ", "b.py": "DEPTH = 1"}, "a.py is not Python: line 1: invalid syntax"),
    ],
)
async def test_a_constant_that_cannot_be_set_fails_the_ask(files, why):
    with pytest.raises(ProposalError) as error:
        await propose(files=files)
    assert (error.value.failure, error.value.why) == ("bad_sweep", why)


def test_missing_constants_are_named_in_order():
    files = {"train.py": TRAIN, "other.py": "def"}
    assert missing_constants({"train.py": TRAIN}, ["NO", "LR", "NEITHER"]) == ["NO", "NEITHER"]
    assert missing_constants(files, ["LR"]) == []
    with pytest.raises(EditRefused, match=r"other.py is not Python"):
        missing_constants(files, ["NO"])


async def test_a_sweep_cannot_repair():
    with pytest.raises(ProposalError) as error:
        await propose(purpose="repair")
    assert (error.value.failure, Sweep.can_repair) == ("no_repair", False)


def test_importing_the_sweep_loads_no_optuna():
    script = "import sys, loop.proposers.sweep; print('optuna' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False False\n"


async def test_an_ask_prints_nothing(capfd):
    await propose(history=(tried(1, 1.0, LR=0.01, DEPTH=4, KIND="adam"),))
    assert capfd.readouterr() == ("", "")
