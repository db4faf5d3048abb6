"""`nightshift experiment` tells what was tried, and asks for vetoes and second tries."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from eventstore import events as e
from eventstore.envelope import Event
from eventstore.home import Home

Nightshift = Callable[..., Result]
Logged = Callable[[], list[Event]]


def told(output: str) -> list[tuple[str, str]]:
    """The pairs of a story."""
    return [(line[:12].strip(), line[12:].strip()) for line in output.splitlines()]


def test_the_list_has_every_experiment_also_the_abandoned(nightshift: Nightshift, finished: Any) -> None:
    lines = [line.split() for line in nightshift("experiment", "list").output.splitlines()]
    assert lines[0] == ["#", "commit", "verdict", "val_bpb", "gain", "memory_gb", "description", "reason"]
    verdicts = ["keep", "keep", "discard", "crash", "keep"]
    assert [line[2] for line in lines[1:6]] == verdicts
    assert lines[6][:2] == ["5", "abandoned"]


def test_the_list_says_where_an_experiment_in_hand_stands(nightshift: Nightshift, active: Any, home: Home) -> None:
    with home.hold():
        view = json.loads(nightshift("experiment", "list", "--json").output)
    assert [line.get("verdict") for line in view] == ["keep", "keep", None, None]
    assert [line["reason"] for line in view[2:]] == ["in training", "proposed, waits for a device"]


def test_a_story_goes_from_the_hypothesis_to_the_verdict(nightshift: Nightshift, finished: Any) -> None:
    story = told(nightshift("experiment", "show", 1).output)
    names = [name for name, _ in story]
    assert names == ["experiment", "began", "proposal", "hypothesis", "expected", "edit", "attempt", "commit", "trial",
                     "score", "best before", "verdict", "reason"]  # fmt: skip
    facts = dict(story)
    assert facts["hypothesis"] == "the rate is too high"
    assert facts["edit"] == "train.py: LR = 0.02"
    assert facts["trial"] == "0, seed 7: scored in 301.5 s, 2048 MB; score 1.400000"
    assert facts["best before"] == "1.500000, gain +0.100000"
    assert facts["reason"] == "better by 0.100000"


def test_a_story_has_every_attempt_of_a_crash(nightshift: Nightshift, finished: Any) -> None:
    story = told(nightshift("experiment", "show", 3).output)
    attempts = [words for name, words in story if name == "attempt"]
    assert attempts == ["0, on 1111111, +1 -1 lines", "1, a repair, on 1111111, +1 -1 lines"]
    assert [words for name, words in story if name == "trial"] == [
        "0, seed 7: crash in 3.0 s (exit code 1: ValueError)"
    ] * 2
    assert "score" not in dict(story)


def test_a_story_of_the_baseline_and_of_one_in_training(nightshift: Nightshift, active: Any) -> None:
    assert dict(told(nightshift("experiment", "show", 0).output))["what"].startswith("the baseline")
    facts = dict(told(nightshift("experiment", "show", 2).output))
    assert facts["trial"] == "0, seed 7: not finished"
    assert facts["now"] == "cut off (in training), the next loop does it again"


def test_a_veto_is_told_before_and_after_the_loop_served_it(nightshift: Nightshift, finished: Any) -> None:
    finished.ask("nov21", e.KeepVetoed(experiment=1, why="it cheats"))
    assert "(it cheats); the loop has not served it" in dict(told(nightshift("experiment", "show", 1).output))["veto"]
    finished.write(("nov21", e.BranchMoved(experiment=1, from_commit="c" * 40, to_commit="b" * 40, why="veto")))
    own = dict(told(nightshift("experiment", "show", 1).output))["taken back"]
    assert own.startswith("off the branch by its veto, asked by cli:ada at") and own.endswith("(it cheats)")
    later = dict(told(nightshift("experiment", "show", 4).output))["taken back"]
    assert later.startswith("off the branch by the veto of 1, on which it was built, asked by cli:ada")


def test_json_of_a_story_has_the_typed_edits_and_the_row(nightshift: Nightshift, finished: Any) -> None:
    told = json.loads(nightshift("experiment", "show", 3, "--json").output)
    assert told["story"]["proposals"][0]["edits"][0]["edit"] == "blocks"
    assert told["story"]["attempts"][1]["trainings"][0]["finished"]["outcome"] == "crash"
    assert told["row"]["status"] == "crash" and "score" not in told["row"]


def test_a_diff_is_printed_byte_for_byte(nightshift: Nightshift, finished: Any) -> None:
    finished.propose("nov21", 6, "odd bytes", e.SetConstants(path="train.py", values={"LR": 1}))
    odd = "--- a/train.py\n+++ b/train.py\n@@ -1 +1 @@\n-a\r\n+\x1b[31mb\tü\n"
    finished.prepare("nov21", 6, base="1", diff=odd)
    assert nightshift("experiment", "diff", 6).stdout_bytes == odd.encode()


@pytest.mark.parametrize(
    ("arguments", "sentence", "code"),
    [
        (("diff", 0), "Experiment 0 of nov21 changes nothing.", 0),
        (("diff", 5), "experiment 5 of nov21 was never applied, so there is no diff", 1),
        (("diff", 3, "--attempt", 7), "experiment 3 of nov21 has no attempt 7: there is 0, 1", 1),
        (("show", 6), "the run nov21 has no experiment 6: its experiments are 0 to 5", 1),
        (("log", 5), "experiment 5 of nov21 has no finished training of that attempt and trial yet", 1),
        (("show", "-1"), "No such option", 2),
        (("show", "x"), "'x' is not a valid integer", 2),
        (("show", 1, "--tag", "nov2"), "there is no run 'nov2': did you mean nov21?", 1),
    ],
)
def test_what_is_not_there_is_said_in_one_sentence(
    nightshift: Nightshift, finished: Any, arguments: tuple[object, ...], sentence: str, code: int
) -> None:
    result = nightshift("experiment", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert sentence in result.stderr


def test_a_log_shows_the_last_lines_of_the_newest_training_without_controls(
    nightshift: Nightshift, finished: Any, home: Home
) -> None:
    for attempt, text in ((0, b"first attempt\n"), (1, b"start\r\nstep 1\rstep 2\r\n\x1b[1mbold\x07\xff\nend")):
        folder = home.run_dir("nov21", 3, attempt, 0)
        folder.mkdir(parents=True)
        (folder / "run.log").write_bytes(text)
    assert nightshift("experiment", "log", 3).output == "start\nstep 2\nbold\ufffd\nend\n"
    assert nightshift("experiment", "log", 3, "-n", 2).output == "bold\ufffd\nend\n"
    assert nightshift("experiment", "log", 3, "-n", 2, "--all").output.startswith("start\n")
    assert nightshift("experiment", "log", 3, "--attempt", 0).output == "first attempt\n"


def test_a_log_whose_file_is_gone_shows_the_tail_that_the_event_log_keeps(
    nightshift: Nightshift, finished: Any
) -> None:
    result = nightshift("experiment", "log", 3)
    assert result.stdout == "Traceback\nValueError: red\n"
    assert result.stderr.startswith("The log file is not there")


def test_a_veto_is_asked_with_its_reason_on_one_line(nightshift: Nightshift, finished: Any, logged: Logged) -> None:
    result = nightshift("experiment", "veto", 4, "it only", "trains\nlonger")
    assert result.output == (
        "Asked: keep 4 of nov21 is to be taken off the branch, with every keep built on it.\n"
        "No loop is running: `nightshift loop` starts one, which then reads this.\n"
    )
    last = logged()[-1]
    assert (last.run, last.actor, last.cause) == ("nov21", "cli:ada", None)
    assert last.data == e.KeepVetoed(experiment=4, why="it only trains longer")


def test_again_is_asked_of_an_active_run(nightshift: Nightshift, active: Any, home: Home, logged: Logged) -> None:
    active.prepare("dec01", 3, base="1")
    active.train("dec01", 3, 1.6)
    active.decide("dec01", 3, "discard", 1.6, "worse")
    with home.hold():
        result = nightshift("experiment", "again", 3)
    assert result.output == "Asked: the edit of experiment 3 of dec01 is to be taken up again on today's best.\n"
    assert logged()[-1].data == e.ExperimentRequested(of=3)


def test_a_refused_veto_is_recorded_and_exits_with_1(nightshift: Nightshift, finished: Any, logged: Logged) -> None:
    result = nightshift("experiment", "veto", 2)
    why = "experiment 2 of nov21 is a discard: only a keep on the branch can be vetoed"
    assert (result.exit_code, result.stderr) == (1, f"Error: {why}\n")
    last = logged()[-1]
    assert (last.run, last.data) == ("nov21", e.RequestRefused(who="cli:ada", what="experiment veto 2", why=why))
