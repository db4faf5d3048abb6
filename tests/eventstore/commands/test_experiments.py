"""`nightshift experiment` tells what was tried, and asks for vetoes and second tries."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from eventstore import events as e
from eventstore.envelope import Event
from eventstore.home import Home

GEGLU = e.ReplaceBlocks(path="train.py", blocks=(e.Block(search="a", replace="b"),))
Nightshift = Callable[..., Result]
Logged = Callable[[], list[Event]]


def told(output: str) -> list[tuple[str, str]]:
    """The pairs of a story, without the code that may follow them."""
    lines = output.partition("\n\n")[0].splitlines()
    pairs = [re.fullmatch(r"(.+?)(?:  +(.*))?", line) for line in lines]
    return [(pair[1].strip(), pair[2] or "") for pair in pairs if pair is not None]


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
    assert names == ["experiment", "began", "program", "proposal", "by", "hypothesis", "expected", "edit", "attempt",
                     "commit", "trial", "score", "best before", "verdict", "reason"]  # fmt: skip
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
        (("diff", 5, "--attempt", 0), "experiment 5 of nov21 was never applied and has no proposal", 1),
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


# ---------------------------------------------------------------- the research agent


def test_a_story_says_who_proposed_what_it_cost_and_whose_idea_it_was(nightshift: Nightshift, agent: Any) -> None:
    facts = told(nightshift("experiment", "show", 1).output)
    names = [name for name, _ in facts]
    assert names.index("ask failed") < names.index("proposal") < names.index("attempt") < names.index("repair")
    assert [words for name, words in facts if name == "by"] == ["claude (claude-opus-5-5)"] * 2
    first = dict(reversed(facts))
    assert first["idea"] == "1 of Grace: try GeGLU (used)"
    assert first["ask failed"].startswith(
        "edit touches a protected file: prepare.py is protected (it wanted: read the held-out rows); 0.2500 usd, "
    )
    assert first["its edit"] == "prepare.py: written anew, 1 line"
    assert first["cost"] == "0.5000 usd, 1000 tokens in (900 from the cache), 50 out, 2 calls, 41.2 s"
    assert first["cost in all"] == "0.8750 usd, 3000 tokens in (2700 from the cache), 150 out, 4 calls, 56.2 s"
    assert first["ignored"] == "notes.txt: touched besides and not taken over"
    assert first["repair"] == "import geglu"


def test_a_price_that_nobody_knows_is_not_a_price_of_nothing(nightshift: Nightshift, scribe: Any) -> None:
    scribe.start("nov21", kind="agent")
    scribe.propose("nov21", 1, "rewrite it", GEGLU, kind="agent", usd=None, seconds=61.0)
    facts = dict(told(nightshift("experiment", "show", 1).output))
    assert (facts["by"], facts["cost"]) == ("agent", "unknown price, 61.0 s")
    assert "0.00 usd spent, and more at unknown prices" in nightshift("status").output


def test_a_proposal_that_waits_for_approval_shows_its_code_and_the_commands(
    nightshift: Nightshift, agent: Any, home: Home
) -> None:
    output = nightshift("experiment", "show", 3).output
    facts = dict(told(output))
    assert facts["now"] == "proposed, waits for approval"
    assert facts["approve"].startswith("`nightshift experiment approve 3` lets it be tried")
    assert "\n-    return relu(x)\n+    return geglu(x)\n" in output
    listed = json.loads(nightshift("experiment", "list", "--json").output)[3]
    assert listed["description"] == "clip at 1.0"
    assert listed["reason"] == ("proposed, waits for approval (`nightshift experiment approve 3`); spikes hurt")


def test_the_diff_of_what_was_never_applied_is_its_edit_and_says_so(nightshift: Nightshift, agent: Any) -> None:
    result = nightshift("experiment", "diff", 3)
    assert result.exit_code == 0
    assert result.stderr == "Experiment 3 of feb01 was never applied: this is the edit of its proposal, no patch.\n"
    assert result.stdout == (
        "+++ train.py: block 1 of 2\n def mlp(x):\n-    return relu(x)\n+    return geglu(x)\n"
        "+++ train.py: block 2 of 2\n import torch\n+import geglu\n"
    )


def test_the_diff_of_a_refused_proposal_is_shown_where_no_other_one_came(nightshift: Nightshift, agent: Any) -> None:
    edits = (e.WholeFile(path="train.py", text="a = 1\nb = 2"), e.SetConstants(path="train.py", values={"LR": 0.5}))
    agent.ask_for("feb01", 5, "claude")
    agent.fail_ask("feb01", 5, "not_python", "line 1: invalid syntax", edits=edits)
    result = nightshift("experiment", "diff", 5)
    assert "this is the edit of a proposal that was refused, no patch" in result.stderr
    assert result.stdout == "+++ train.py: the whole file\n+a = 1\n+b = 2\n+++ train.py: constants\n+LR = 0.5\n"


def test_the_list_says_how_often_a_crash_was_repaired(nightshift: Nightshift, finished: Any) -> None:
    lines = json.loads(nightshift("experiment", "list", "--json").output)
    assert lines[3]["reason"] == "crash: exit code 1 (repaired once)"


def test_an_approval_is_one_event_and_is_not_given_twice(
    nightshift: Nightshift, agent: Any, home: Home, logged: Logged
) -> None:
    with home.hold():
        result = nightshift("experiment", "approve", 3)
    assert result.output == "Approved: the proposal of experiment 3 of feb01 is tried when a device is free.\n"
    last = logged()[-1]
    assert (last.run, last.actor, last.data) == ("feb01", "cli:ada", e.ProposalApproved(experiment=3))
    again = nightshift("experiment", "approve", 3, "--tag", "feb01")
    assert (again.exit_code, again.stderr) == (1, "Error: the proposal of experiment 3 is approved already\n")
    assert "waits for approval" not in nightshift("status").output


def test_a_rejection_keeps_its_reason_on_one_line(nightshift: Nightshift, agent: Any, logged: Logged) -> None:
    result = nightshift("experiment", "reject", 3, "it", "reads\nthe \x1b[1mrows")
    assert result.output.startswith("Rejected: the proposal of experiment 3 of feb01 will not be tried.\n")
    assert logged()[-1].data == e.ProposalRejected(experiment=3, why="it reads the rows")
    facts = dict(told(nightshift("experiment", "show", 3).output))
    assert facts["rejected"].startswith("by cli:ada at") and facts["rejected"].endswith("(it reads the rows)")
    assert facts["now"] == "rejected, about to be abandoned"


@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_what_does_not_wait_is_neither_approved_nor_rejected(
    nightshift: Nightshift, agent: Any, logged: Logged, verb: str
) -> None:
    result = nightshift("experiment", verb, 1)
    why = "experiment 1 of feb01 has no proposal that waits"
    assert (result.exit_code, result.stderr) == (1, f"Error: {why}\n")
    assert logged()[-1].data == e.RequestRefused(who="cli:ada", what=f"experiment {verb} 1", why=why)
    assert nightshift("experiment", verb, "x").exit_code == 2


def test_a_proposal_that_nobody_needs_to_approve_says_so(nightshift: Nightshift, active: Any) -> None:
    result = nightshift("experiment", "approve", 3)
    assert result.exit_code == 1
    assert "needs no approval: it starts when a device is free" in result.stderr
