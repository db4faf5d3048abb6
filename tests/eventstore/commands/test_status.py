"""`nightshift status` says what is going on, and changes nothing by looking."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import IO, Any

import pytest
from click.testing import Result

from eventstore import events as e
from eventstore.home import Home

Nightshift = Callable[..., Result]


def value(output: str, name: str) -> str:
    """What stands behind *name* at the start of a line."""
    return next(line[len(name) :].strip() for line in output.splitlines() if line.startswith(name))


def test_a_workspace_without_a_log_says_how_to_begin_and_gets_no_log(nightshift: Nightshift, home: Home) -> None:
    result = nightshift("status")
    assert result.exit_code == 0
    assert value(result.output, "loop") == "no loop is running: `nightshift loop` starts one"
    assert value(result.output, "Next:") == "`nightshift start TAG` asks for a run."
    assert not home.state.exists()


def test_an_active_run_is_shown_with_its_best_its_counts_and_its_limits(
    nightshift: Nightshift, active: object, home: Home
) -> None:
    with home.hold():
        output = nightshift("status").output
    assert value(output, "loop").startswith("pid ")
    assert value(output, "run") == "dec01, active"
    assert value(output, "asked by").startswith("cli:ada at 2")
    assert value(output, "branch") == "autoresearch/dec01"
    best = "val_bpb 1.250000, experiment 1 (gain 0.250000 over the baseline 1.500000, 16.67% better)"
    assert value(output, "best") == best
    assert value(output, "so far") == "1 experiment: 1 kept, 0 discarded, 0 crashed"
    assert value(output, "left").startswith("19 of 20 experiments · 2 h 4 min until 2")
    assert value(output, "left").endswith("5.00 of 5.00 usd")
    assert value(output, "at work").startswith("experiment 2 in training for 4")
    assert "experiment 3 proposed, waits for a device: another width" in output
    assert value(output, "queue").startswith("jan01, asked by cli:ada")
    assert value(output, "Next:").startswith("`nightshift status --watch` follows it")


def test_without_a_loop_a_training_is_cut_off_and_not_said_to_go_on(nightshift: Nightshift, active: object) -> None:
    output = nightshift("status").output
    at_work = "experiment 2 cut off (in training), the next loop does it again: double the depth"
    assert value(output, "at work") == at_work
    assert value(output, "Next:") == "no loop is running: `nightshift loop` starts one."


def test_a_finished_run_says_why_it_ended_and_lists_its_verdicts_newest_first(
    nightshift: Nightshift, finished: object
) -> None:
    output = nightshift("status").output
    assert value(output, "run") == "nov21, finished (stopped by cli:ada)"
    assert value(output, "so far") == "4 experiments: 2 kept, 1 discarded, 1 crashed"
    verdicts = [line.split()[:2] for line in output.splitlines() if line[:1].isdigit()]
    expected = ["5 abandoned", "4 keep", "3 crash", "2 discard", "1 keep", "0 keep"]
    assert verdicts == [words.split() for words in expected]
    assert value(output, "Next:").startswith("`nightshift results nov21 --figure nov21.png` draws it")


def test_a_keep_that_a_veto_took_back_counts_as_discarded(nightshift: Nightshift, finished: Any) -> None:
    finished.ask("nov21", e.KeepVetoed(experiment=1, why="it cheats"))
    assert "to take keep 1 back" in nightshift("status").output
    finished.write(("nov21", e.BranchMoved(experiment=1, from_commit="c" * 40, to_commit="b" * 40, why="veto")))
    output = nightshift("status").output
    assert value(output, "so far") == "4 experiments: 0 kept, 3 discarded, 1 crashed"
    assert value(output, "best") == "val_bpb 1.500000, the baseline"
    assert "to take keep" not in output


def test_requests_and_troubles_that_are_open_are_shown(nightshift: Nightshift, active: Any) -> None:
    active.ask("dec01", e.RunStopRequested())
    active.write(("", e.TroubleNoticed(kind="disk", what="1 GB left", since="2026-11-21T08:00:00.000000Z")))
    output = nightshift("status").output
    assert value(output, "asked  ") == "to end after the experiment in hand"
    assert value(output, "trouble") == "disk: 1 GB left (since 2026-11-21 08:00:00)"


def test_a_refused_run_shows_the_reason_and_the_remedy(nightshift: Nightshift, scribe: Any) -> None:
    scribe.ask("bad", e.RunRequested(tag="bad", from_ref="HEAD", zone="UTC"))
    scribe.write(("bad", e.RunRefused(request=1, code="disk", why="the disk is full", remedy="free some space")))
    assert value(nightshift("status", "bad").output, "run") == "bad, refused (the disk is full; free some space)"


def test_an_unknown_tag_is_refused_with_the_nearest_one(nightshift: Nightshift, finished: object) -> None:
    result = nightshift("status", "nov22")
    assert (result.exit_code, result.output) == (1, "Error: there is no run 'nov22': did you mean nov21?\n")


def test_json_has_what_the_screen_has_and_no_nulls(nightshift: Nightshift, active: object) -> None:
    output = nightshift("status", "--json").output
    view = json.loads(output)
    assert "null" not in output and "loop" not in view
    assert view["run"]["best"] == {"experiment": 1, "score": 1.25, "baseline": 1.5, "gain": 0.25}
    assert view["run"]["limits"][0] == {"name": "experiments", "limit": 20, "left": 19.0}
    assert [queued["tag"] for queued in view["queue"]] == ["jan01"]


def test_what_a_model_wrote_reaches_the_terminal_as_letters_only(nightshift: Nightshift, scribe: Any) -> None:
    scribe.start("nov21")
    hostile = "[red]not red[/red] :boom: \x1b[2J\x1b]0;title\x07wiped\x08 \u202egnp"
    scribe.propose("nov21", 1, hostile, e.SetConstants(path="train.py", values={"LR": 1}))
    scribe.prepare("nov21", 1, base="b")
    scribe.train("nov21", 1, None)
    scribe.decide("nov21", 1, "crash", None, f"crash: {hostile}")
    for command in (("status",), ("experiment", "list"), ("experiment", "show", 1), ("log", "tail")):
        output = nightshift(*command).output
        assert "[red]not red[/red] :boom: " in output
        assert not set("\x1b\x07\x08\u202e") & set(output), command


def test_watch_shows_each_change_and_ends_well_with_ctrl_c(active: Any, home: Home) -> None:
    command = [sys.executable, "-m", "nightshift", "-C", str(home.root), "status", "--watch", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watch:
        try:
            assert watch.stdout is not None
            assert read_run(watch.stdout)["status"] == "active"
            active.write(("dec01", e.RunPaused(why="lunch")))
            seen = read_run(watch.stdout)
            assert (seen["status"], seen["why"]) == ("paused", "lunch")
            watch.send_signal(signal.SIGINT)
            assert watch.wait(60) == 0
            assert watch.stderr is not None and watch.stderr.read() == ""
        finally:
            watch.kill()
    assert not list(home.bells.iterdir())


def read_run(stream: IO[str]) -> dict[str, object]:
    run: dict[str, object] = json.loads(stream.readline())["run"]
    return run


def test_watch_without_a_log_is_refused(nightshift: Nightshift, home: Home) -> None:
    result = nightshift("status", "--watch")
    assert result.exit_code == 1
    assert "there is no log yet" in result.output


@pytest.mark.parametrize("command", ["status", "results", "budget"])
def test_outside_a_workspace_every_command_says_how_to_make_one(nightshift: Nightshift, command: str) -> None:
    result = nightshift("-C", "/", command)
    assert result.exit_code == 1
    assert result.output.startswith("Error: / is no workspace") and "`nightshift init /`" in result.output


def test_a_workspace_that_is_named_is_not_looked_for_above_it(nightshift: Nightshift, home: Home) -> None:
    result = nightshift("-C", home.root / "typo", "status")
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"{home.root}/typo is no workspace" in result.stderr


# ---------------------------------------------------------------- the research agent


def test_a_proposer_that_fails_is_told_with_the_time_at_which_it_is_asked_again(
    nightshift: Nightshift, agent: Any
) -> None:
    output = nightshift("status").output
    assert value(output, "proposer").startswith("claude: overloaded, 2 times in a row; asked again at 2")
    assert value(output, "proposer").endswith("02:14")
    local = value(nightshift("status", TZ="Asia/Kolkata").output, "proposer")
    assert local.endswith("07:44")
    agent.write(("feb01", e.ProposerWaiting(kind="claude", failure="overloaded", why="claude failed 3 times")))
    assert value(nightshift("status").output, "proposer").endswith("; nothing stands in, so the run waits for it")


def test_a_stand_in_is_told_with_the_time_since_when(nightshift: Nightshift, agent: Any) -> None:
    agent.write(("feb01", e.ProposerSwitched(from_kind="claude", to_kind="sweep", why="claude failed 3 times")))
    words = value(nightshift("status").output, "proposer")
    assert re.search(r"; the sweep stands in since (\d{4}-\d\d-\d\d )?\d\d:\d\d$", words)
    view = json.loads(nightshift("status", "--json").output)["run"]["proposer"]
    assert (view["stand_in"], view["stand_in_why"]) == ("sweep", "claude failed 3 times")
    assert view["stand_in_since"].endswith("Z")
    agent.ask_for("feb01", 5, "sweep")
    agent.fail_ask("feb01", 5, "exhausted", "all 9 points are tried")
    assert "but has nothing more (all 9 points are tried)" in nightshift("status").output
    agent.write(("feb01", e.ProposerSwitched(from_kind="sweep", to_kind="claude", why="it answers again")))
    assert "stands in" not in nightshift("status").output


def test_what_waits_for_a_person_is_shown_with_what_it_means_and_how_to_approve_it(
    nightshift: Nightshift, agent: Any, home: Home
) -> None:
    with home.hold():
        output = nightshift("status").output
    lines = output.splitlines()
    at = lines.index(next(line for line in lines if line.startswith("approval")))
    assert lines[at].endswith("experiment 3 waits: clip at 1.0")
    assert lines[at + 1].strip() == "spikes hurt"
    assert "`nightshift experiment approve 3`" in lines[at + 2]
    assert "experiment 3 " not in value(output, "at work")
    assert value(output, "Next:").startswith("`nightshift experiment show 3` shows what waits for approval")
    assert value(output, "ideas") == "1 open: `nightshift idea list` shows it"


def test_money_is_told_spent_left_and_at_stake(nightshift: Nightshift, agent: Any) -> None:
    assert value(nightshift("status").output, "money") == "0.88 of 5.00 usd spent; open asks may still cost 0.50"
    agent.fail_ask("feb01", 4, "over_budget", "it may cost 9", ask=2, usd=None)
    output = nightshift("status").output
    assert value(output, "money") == (
        "0.88 of 5.00 usd spent, and more at unknown prices; the next ask does not fit into what is left"
    )
    view = json.loads(nightshift("status", "--json").output)["run"]["money"]
    assert view == {"spent": 0.875, "unknown": True, "limit": 5.0, "left": 4.125, "open": 0.0, "is_out": True}


def test_idle_devices_are_a_share_of_the_time(nightshift: Nightshift, finished: Any) -> None:
    assert "idle" not in nightshift("status").output
    finished.start("dec01")
    for idle_s in (60.0, 15.0):
        finished.write(
            ("dec01", e.TrainingStarted(experiment=1, attempt=0, trial=0, nonce="n", pid=1, pid_started=1.0,
                                        device="cpu", idle_s=idle_s)),
        )  # fmt: skip
    finished.write(("dec01", e.TrainingFinished(experiment=1, attempt=0, trial=0, nonce="n", outcome="scored",
                                                seconds=1123.5)))  # fmt: skip
    words = value(nightshift("status").output, "idle")
    assert words == "5.0% of the time between trainings (1 min, beside 23 min of training)"
    view = json.loads(nightshift("status", "--json").output)["run"]["idle"]
    assert view == {"share": 0.05, "idle_s": 75.0, "training_s": 1425.0}


def test_what_a_refused_proposal_wrote_reaches_the_terminal_as_letters_only(nightshift: Nightshift, agent: Any) -> None:
    hostile = "[red]not red[/red] \x1b[2J\x1b]0;title\x07wiped\x08 \u202egnp"
    edit = e.ReplaceBlocks(path=hostile, blocks=(e.Block(search=hostile, replace=hostile),))
    agent.ask_for("feb01", 5, "claude")
    agent.fail_ask("feb01", 5, "not_python", hostile, description=hostile, edits=(edit,))
    agent.ask_for("feb01", 6, "claude")
    agent.answer("feb01", 6, hostile, edit, hypothesis=hostile, ignored=(hostile,), model=hostile)
    agent.write(("feb01", e.IdeaDeclined(idea=2, experiment=6, why=hostile)))
    commands = [("status",), ("experiment", "list"), ("experiment", "show", 5), ("experiment", "show", 6),
                ("results", "--refused"), ("idea", "list", "--all")]  # fmt: skip
    for command in commands:
        output = nightshift(*command).output
        assert "[red]not red[/red] " in output, command
        assert not set("\x1b\x07\x08\u202e") & set(output), command
