"""What is shown, as values: stages, hints and differences."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from eventstore import events as e
from eventstore import requests, views
from eventstore.projections.program import ProgramVersion
from eventstore.projections.run_state import UNCOUNTED_FAILURES, Experiment, Run, State, Trial
from loop import failures
from loop.machine import NO_REPAIR

NOW = datetime(2026, 11, 21, 8, tzinfo=UTC)
ASK = e.RunRequested(tag="nov21", from_ref="HEAD", zone="UTC")
TRAINED = e.TrainingFinished(experiment=1, attempt=0, trial=0, nonce="n", outcome="scored", seconds=1)
SCORED = e.ScoringFinished(experiment=1, attempt=0, trial=0, outcome="scored", score=1.0)
STARTED = e.TrainingStarted(experiment=1, attempt=0, trial=0, nonce="n", pid=1, pid_started=1, device="cpu")
PREPARED = e.ExperimentPrepared(experiment=1, attempt=0, step="first", base_commit="b", tree="t", subject="s")


@pytest.mark.parametrize(
    ("experiment", "words", "is_cut_off"),
    [
        (Experiment(1, ask_at=5), "waits for its proposal", True),
        (Experiment(1, ask_at=5, prepared=PREPARED), "waits for its repair", True),
        (Experiment(1, proposal_waits=True, prepared=PREPARED), "repaired, waits for a device", False),
        (Experiment(1, proposal_waits=True, rejected=""), "rejected, about to be abandoned", False),
        (Experiment(1), "waits for its proposal", False),
        (Experiment(1, proposal_waits=True), "proposed, waits for a device", False),
        (Experiment(1, prepared=PREPARED), "waits for its training", False),
        (Experiment(1, trials=[Trial(0, 7, open_at=9)]), "its training begins", True),
        (Experiment(1, trials=[Trial(0, 7, open_at=9, started=STARTED)]), "in training", True),
        (Experiment(1, trials=[Trial(0, 7, finished=TRAINED)]), "trained, waits for what is next", False),
        (Experiment(1, trials=[Trial(0, 7, finished=TRAINED, scoring_at=9)]), "being scored", True),
        (Experiment(1, trials=[Trial(0, 7, finished=TRAINED, scored=SCORED)]), "scored, waits for its verdict", False),
        (Experiment(1, trials=[Trial(0, 7, finished=TRAINED, scored=SCORED)], guard_at=9), "in the guard", True),
    ],
)
def test_a_stage_is_said_in_words_and_cut_off_where_no_loop_is_at_work(
    experiment: Experiment, words: str, is_cut_off: bool
) -> None:
    assert views.stage(experiment, "pid 1 on box") == words
    alone = f"cut off ({words}), the next loop does it again" if is_cut_off else words
    assert views.stage(experiment, None) == alone


def run(status: str, **fields: object) -> Run:
    return Run("nov21", ASK, 1, "2026-11-21T08:00:00.000000Z", "cli:ada", status=status, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("known", "loop", "hint"),
    [
        (None, None, "`nightshift start TAG` asks for a run."),
        (run("queued"), "pid 1", "it waits its turn; `nightshift stop nov21` takes it back."),
        (run("paused"), "pid 1", "`nightshift resume` lets nov21 go on, `nightshift stop` ends it."),
        (run("active"), "pid 1", "`nightshift status --watch` follows it, `nightshift stop` ends it after"),
        (run("withdrawn"), "pid 1", "`nightshift start TAG` asks for a run."),
        (
            run("finished", vetoes={3: 9}),
            None,
            "no loop is running: `nightshift loop` starts one, which takes the vetoed",
        ),
    ],
)
def test_the_hint_names_the_command_that_fits(known: Run | None, loop: str | None, hint: str) -> None:
    assert views.next_step(State(), known, loop).startswith(hint)


def test_the_run_meant_without_a_tag_is_the_active_else_the_newest_else_the_queued() -> None:
    state = State()
    assert isinstance(views.pick(state, None), requests.Refused)
    state.runs, state.queue = {"b": run("queued")}, ["b"]
    assert views.pick(state, None) is state.runs["b"]
    assert isinstance(views.pick_started(state, None), requests.Refused)
    state.runs["a"] = run("finished", started=object(), started_at=3)
    assert views.pick(state, None) is state.runs["a"]
    state.runs["c"], state.current = run("active", started=object(), started_at=2), "c"
    assert views.pick(state, None) is state.runs["c"]


def test_a_limit_that_is_overspent_has_nothing_left() -> None:
    limits = e.Limits(experiments=0, until="2026-11-21T07:00:00.000000Z", usd=1.0)
    shown = views.run_view(run("queued", limits=limits, usd=3.0), None, NOW)
    assert [(spent.name, spent.left) for spent in shown.limits] == [("experiments", 0), ("until", 0), ("usd", 0)]


def test_every_request_that_the_command_line_makes_has_its_sentence() -> None:
    made: list[e.Data] = [
        e.RunPauseRequested(), e.RunResumeRequested(), e.RunStopRequested(), e.RunWithdrawn(),
        e.KeepVetoed(experiment=1), e.ExperimentRequested(of=1), e.ProposalApproved(experiment=1),
        e.ProposalRejected(experiment=1), e.IdeaWithdrawn(idea=3),
        e.ProgramEdited(base_hash="", hash="h" * 64, text="t"),
    ]  # fmt: skip
    assert all(views.asked("nov21", data).endswith(".") for data in made)
    with pytest.raises(TypeError, match=r"loop\.stopped"):
        views.asked("", e.LoopStopped(why=""))


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (e.SetConstants(path="train.py", values={"LR": 0.5, "NAME": "x"}), "train.py: LR = 0.5, NAME = 'x'"),
        (e.ReplaceBlocks(path="a.py", blocks=(e.Block(search="a", replace="b"),) * 2), "a.py: 2 blocks replaced"),
        (e.WholeFile(path="a.py", text="a\nb\n"), "a.py: written anew, 2 lines"),
        (e.WholeFile(path="a.py", text="a"), "a.py: written anew, 1 line"),
    ],
)
def test_an_edit_is_one_line(edit: e.FileEdit, words: str) -> None:
    assert views.edit_words(edit) == words


def test_a_version_is_named_by_its_position_or_four_characters_of_its_hash() -> None:
    known = [
        ProgramVersion(position=at, at="", actor="", hash=text_hash, base_hash="", text="")
        for at, text_hash in ((1, "abcd" * 16), (5, "ffff" * 16), (1234, "abcd" * 16))
    ]
    for name, position in (("1", 1), ("abcd", 1234), ("FFFFF", 5), ("1234", 1234)):
        found = views.version_named(known, name)
        assert isinstance(found, ProgramVersion) and found.position == position
    for name in ("abc", "", "2", "abce"):
        assert isinstance(views.version_named(known, name), requests.Refused)


def test_long_texts_inside_an_event_are_cut_and_numbers_are_not() -> None:
    words = views.data_words('{"a":"' + "x" * 99 + '","b":[1.5,"l1\\nl2"],"c":{"d":"\\u001b[31m"}}')
    assert words == '{"a": "' + "x" * 59 + '…", "b": [1.5, "l1 l2"], "c": {"d": ""}}'


def test_every_class_of_failure_is_said_in_words() -> None:
    known = failures.OUTSIDE | failures.ANSWER | NO_REPAIR | UNCOUNTED_FAILURES | {"over_budget"}
    assert set(views.FAILURE_WORDS) == known
    assert views.failure_words("out_of_\x1b[1mluck") == "out of luck"


def test_a_replaced_block_shows_what_both_texts_have_as_context() -> None:
    blocks = (e.Block(search="a\nb\nc", replace="a\nB\nc\nd"), e.Block(search="x", replace=""))
    assert views.edit_text([e.ReplaceBlocks(path="a.py", blocks=blocks)]) == (
        "+++ a.py: block 1 of 2\n a\n-b\n+B\n c\n+d\n+++ a.py: block 2 of 2\n-x\n"
    )


def test_a_time_of_day_has_its_date_where_it_is_not_today() -> None:
    assert views.clock("2026-11-21T22:30:00.000000Z", "UTC", NOW) == "22:30"
    assert views.clock("2026-11-21T22:30:00.000000Z", "Asia/Kolkata", NOW) == "2026-11-22 04:00"


def test_what_a_run_does_not_pay_for_has_no_money() -> None:
    assert views.run_view(run("queued"), None, NOW).money is None
