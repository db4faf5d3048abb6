"""The digest tells what came of a window of the log: counts, gains with their standing, failures, cost, decisions."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstore import digest_words as words
from eventstore import events as e
from eventstore.projections.digest import (
    FAILURES_MAX,
    KEEPS_MAX,
    OTHERS_MAX,
    STEPS_MAX,
    Digest,
    LastDigest,
    RunDigest,
    Standings,
    Window,
    digest,
    window_of,
)
from tests.eventstore.nights import ADA, GRACE, Night


def told(night: Night, after: int = 0) -> Digest:
    return digest(night.events, Window(after=after, to_at=night.at))


def run_of(night: Night, after: int = 0) -> RunDigest:
    (run,) = told(night, after).runs
    return run


@pytest.fixture
def night() -> Night:
    found = Night()
    found.start("nov21")
    return found


# ---------------------------------------------------------------- counts and gains


def test_experiments_are_counted_by_verdict_without_the_baseline(night: Night) -> None:
    night.keep("nov21", 1, 0.9, 1.0)
    night.discard("nov21", 2, 0.95, 0.9)
    night.crash("nov21", 3)
    night.propose("nov21", 4)
    night.write("nov21", e.ExperimentAbandoned(experiment=4, reason="rejected", why="rejected"))
    found = run_of(night)
    assert (found.counts.kept, found.counts.discarded, found.counts.crashed, found.counts.abandoned) == (1, 1, 1, 1)
    assert found.counts.verdicts == 3
    assert words.counts(found) == "3 experiments: 1 kept, 1 discarded, 1 crashed; 1 abandoned"


def test_the_best_before_is_that_of_the_moment_the_window_begins(night: Night) -> None:
    night.keep("nov21", 1, 0.9, 1.0)
    before = night.position
    night.keep("nov21", 2, 0.6, 0.9)
    found = run_of(night, before)
    assert (found.best_before, found.best_after, found.best_experiment) == (0.9, 0.6, 2)
    assert found.gain == pytest.approx(0.3) and found.gain_percent == pytest.approx(100 / 3)
    assert [keep.experiment for keep in found.keeps] == [2] and not found.began
    whole = run_of(night)
    assert (whole.best_before, whole.began) == (1.0, True)


def test_a_gain_is_positive_where_higher_is_better() -> None:
    night = Night()
    objective = {"objective": {"name": "accuracy", "direction": "maximize", "editable": ["train.py"]}}
    night.start("nov21", 0.5, settings=objective)
    night.propose("nov21", 1)
    night.prepare("nov21", 1)
    night.train("nov21", 1, 0.6)
    night.write("nov21", e.ExperimentDecided(experiment=1, attempt=0, verdict="keep", reason="better", trials=1,
                                             score=0.6, best_before=0.5, gain=0.1))  # fmt: skip
    night.write("nov21", e.BranchMoved(experiment=1, from_commit="b", to_commit="c", why="keep"))
    found = run_of(night)
    assert found.gain == pytest.approx(0.1)
    assert words.progress(found) == (
        "accuracy 0.500000 → 0.600000 (experiment 1): a measured gain of 0.100000, 20.00%, not tested against noise"
    )


def test_keeps_are_told_with_all_that_is_known_of_them(night: Night) -> None:
    idea = night.write("", e.IdeaSuggested(text="try GeGLU"), GRACE)
    night.ask("nov21", 1, kind="claude", idea=idea)
    night.write("nov21", e.ProposalReceived(
        experiment=1, ask=0, base_commit="b", description="use\nGeGLU", edits=(), hypothesis="gates\thelp",
        expected_effect="0.01 lower", model="claude-opus-5-5", usd=0.25,
    ))  # fmt: skip
    night.write("nov21", e.IdeaUsed(idea=idea, experiment=1))
    night.prepare("nov21", 1)
    night.train("nov21", 1, 0.9)
    night.decide("nov21", 1, "keep", 0.9, 1.0, "better by 0.1", standing="confirmed", lines=3)
    night.write("nov21", e.BranchMoved(experiment=1, from_commit="b", to_commit="c", why="keep"))
    (keep,) = run_of(night).keeps
    assert (keep.description, keep.hypothesis, keep.expected_effect) == ("use GeGLU", "gates help", "0.01 lower")
    assert (keep.by, keep.idea_by, keep.lines, keep.standing) == ("claude-opus-5-5", GRACE, 3, "confirmed")
    assert keep.commit == "1-0cccc" and keep.gain_percent == pytest.approx(10.0)
    assert words.gain(keep) == "confirmed gain 0.100000 (10.00%)"


def test_keeps_come_the_largest_gain_first_and_say_what_is_built_on_them(night: Night) -> None:
    night.keep("nov21", 1, 0.9, 1.0)
    night.keep("nov21", 2, 0.5, 0.9)
    night.keep("nov21", 3, 0.45, 0.5)
    assert [(keep.experiment, keep.later) for keep in run_of(night).keeps] == [(2, 1), (1, 2), (3, 0)]


def test_a_keep_that_was_taken_back_counts_as_discarded_and_so_does_what_was_built_on_it(night: Night) -> None:
    night.keep("nov21", 1, 0.9, 1.0)
    before = night.position
    night.keep("nov21", 2, 0.8, 0.9)
    night.keep("nov21", 3, 0.7, 0.8)
    night.veto("nov21", 1, "it overfits")
    found = told(night, before)
    (run,) = found.runs
    assert (run.counts.kept, run.counts.discarded, run.keeps) == (0, 2, ())
    assert (run.best_before, run.best_after) == (0.9, 1.0)
    assert words.progress(run).endswith("0.100000, 11.11% back, because keeps were taken back")
    (veto,) = found.vetoes
    assert (veto.by, veto.why, veto.served) == (GRACE, "it overfits", True)
    assert words.veto(veto) == "took keep 1 of nov21 back (it overfits): try 1"


def test_a_veto_that_nobody_served_says_so(night: Night) -> None:
    night.keep("nov21", 1, 0.9, 1.0)
    night.veto("nov21", 1, served=False)
    (veto,) = told(night).vetoes
    assert not veto.served and words.veto(veto).endswith("still on the branch, the loop has not served it")
    assert not [decision for decision in told(night).decisions if decision.kind == "veto"]


@pytest.mark.parametrize(
    ("standings", "sentence", "progress"),
    [
        (("confirmed",), "1 keep, confirmed", "a confirmed gain of"),
        (("within_noise", "within_noise"), "2 keeps, all within noise", "all of it within noise"),
        (("untested",), "1 keep, untested", "a measured gain of 0.100000, 10.00%, not tested against noise"),
        (
            ("confirmed", "within_noise", "untested"),
            "3 keeps: 1 confirmed, 1 within noise, 1 untested",
            "a difference of 0.300000, 30.00%, of which confirmed keeps gained 0.100000",
        ),
    ],
)
def test_a_gain_is_told_with_its_standing_and_never_called_an_improvement(
    night: Night, standings: tuple[e.Standing, ...], sentence: str, progress: str
) -> None:
    for number, standing in enumerate(standings, 1):
        night.keep("nov21", number, 1.0 - number / 10, 1.0 - (number - 1) / 10, standing)
    found = run_of(night)
    assert words.standings(found.standings) == sentence
    assert progress in words.progress(found)
    every = [words.progress(found), words.headline(told(night)), *(words.gain(keep) for keep in found.keeps)]
    assert not any("improve" in sentence.lower() for sentence in every)


def test_standings_are_said_in_one_line() -> None:
    found = Standings(confirmed=3, within_noise=4, untested=2)
    assert words.standings(found) == "9 keeps: 3 confirmed, 4 within noise, 2 untested"
    assert words.standings(Standings()) == "no keep"


# ---------------------------------------------------------------- what failed


def test_failures_are_told_by_kind_the_most_instructive_first(night: Night) -> None:
    night.discard("nov21", 1, 1.2, 1.0, hypothesis="wider is better")
    night.discard("nov21", 2, 3.0, 1.0)
    night.discard("nov21", 3, 1.0005, 1.0)
    night.discard("nov21", 4, 0.95, 1.0, "a gain of 0.05 is not worth 80 lines")
    night.discard("nov21", 5, 0.8, 1.0, "guard failed with exit code 1", guard=True)
    night.discard("nov21", 6, 0.9, 1.0, "conflicts with 5")
    night.propose("nov21", 7, "an old edit")
    night.write("nov21", e.ExperimentAbandoned(experiment=7, reason="conflict", why="the edit conflicts with a keep"))
    found = {failures.kind: failures for failures in run_of(night).failures}
    assert [failure.experiment for failure in found["loss"].shown] == [2, 1]
    assert [failure.experiment for failure in found["near_miss"].shown] == [4, 3]
    assert [failure.experiment for failure in found["guard"].shown] == [5]
    assert [failure.experiment for failure in found["conflict"].shown] == [6, 7]
    assert found["loss"].shown[1].hypothesis == "wider is better"


def test_of_many_failures_a_few_are_shown_and_all_are_counted(night: Night) -> None:
    for number in range(1, 31):
        night.discard("nov21", number, 1.0 + number, 1.0)
    (losses,) = run_of(night).failures
    assert losses.count == 30
    assert [failure.experiment for failure in losses.shown] == list(range(30, 30 - FAILURES_MAX, -1))


def test_crashes_are_counted_by_outcome_with_the_first_as_example(night: Night) -> None:
    night.crash("nov21", 1, "oom", tail="step 1\nCUDA out of memory\n", why="out of memory")
    night.crash("nov21", 2, "oom")
    night.crash("nov21", 3, "diverged", why="the loss was NaN")
    oom, diverged = run_of(night).crashes
    assert (oom.outcome, oom.count, oom.experiment, oom.error) == ("oom", 2, 1, "CUDA out of memory")
    assert (diverged.outcome, diverged.error) == ("diverged", "diverged: the loss was NaN")
    assert words.crashes(oom) == "oom twice, such as experiment 1"


def test_tampering_is_always_told_also_where_it_was_repaired(night: Night) -> None:
    night.crash("nov21", 1, "tampered", why="prepare.py was changed")
    night.propose("nov21", 2, "print a second block")
    night.prepare("nov21", 2)
    night.train("nov21", 2, None, outcome="tampered", why="two metric blocks")
    night.prepare("nov21", 2, attempt=1)
    found = run_of(night)
    assert [(one.experiment, one.why) for one in found.tampered] == [
        (1, "prepare.py was changed"),
        (2, "two metric blocks"),
    ]
    assert found.tampered_count == 2 and found.counts.repaired == 1
    assert words.tampered(found) == "2 experiments tampered with the harness or the score and did not count"


def test_refused_answers_and_failed_asks_are_counted_apart_by_class(night: Night) -> None:
    night.ask("nov21", 1)
    night.refuse_answer("nov21", 1, "not_python")
    night.refuse_answer("nov21", 1, "not_python", ask=1)
    night.refuse_answer("nov21", 1, "overloaded", ask=2)
    night.refuse_answer("nov21", 1, "stopped", ask=3)
    found = run_of(night)
    assert (found.refusals, found.failed_asks, found.counts.refused) == ({"not_python": 2}, {"overloaded": 1}, 2)
    assert words.refusals(found) == "edit breaks the syntax twice"
    assert words.failed_asks(found) == "overloaded once"


def test_turns_of_the_proposer_are_told(night: Night) -> None:
    night.write("nov21", e.ProposerSwitched(from_kind="claude", to_kind="sweep", why="overloaded"))
    night.write("nov21", e.ProposerWaiting(kind="claude", failure="offline", why="no connection"))
    assert [words.switch(switch) for switch in run_of(night).switches] == [
        "sweep took over from claude (overloaded)",
        "claude could not answer and nothing stood in (no connection)",
    ]


# ---------------------------------------------------------------- what it cost


def test_idle_time_is_counted_in_the_window_alone(night: Night) -> None:
    night.discard("nov21", 1, 1.1, 1.0)
    before = night.position
    night.propose("nov21", 2)
    night.prepare("nov21", 2)
    night.train("nov21", 2, 1.2, idle_s=100.0, seconds=300.0)
    found = run_of(night, before).idle
    assert found is not None
    assert (found.share, found.idle_s, found.training_s) == (0.25, 100.0, 300.0)


def test_nothing_is_said_of_idle_devices_while_it_is_not_known(night: Night) -> None:
    assert run_of(night).idle is None and words.idle(run_of(night)) == ""


def test_money_is_told_per_confirmed_keep_with_what_is_not_known(night: Night) -> None:
    night.keep("nov21", 1, 0.9, 1.0, "confirmed", usd=1.0)
    night.keep("nov21", 2, 0.8, 0.9, "within_noise", usd=2.0, tokens=e.Tokens(input=90, cache_read=10, output=7))
    night.propose("nov21", 3, usd=None)
    found = run_of(night)
    assert (found.money.known, found.money.unknown, found.money.per, found.money.per_keep) == (3.0, 1, "confirmed", 3.0)
    assert words.cost(found) == (
        "3.00 usd, and 1 answer at unknown prices; at least 3.00 usd per confirmed keep; "
        "100 tokens in (10 from the cache), 7 out"
    )


def test_money_per_keep_says_that_none_is_confirmed(night: Night) -> None:
    night.keep("nov21", 1, 0.9, 1.0, usd=1.0)
    assert words.cost(run_of(night)) == "1.00 usd; 1.00 usd per keep (none is confirmed)"


# ---------------------------------------------------------------- the workspace


def test_ideas_are_told_with_whose_they_were_and_what_came_of_them(night: Night) -> None:
    used = night.write("", e.IdeaSuggested(text="try GeGLU", by="slack:T1/U9"), ADA)
    declined = night.write("", e.IdeaSuggested(text="try more layers"), GRACE)
    waiting = night.write("", e.IdeaSuggested(text="try\nless"), ADA)
    night.propose("nov21", 1)
    night.write("nov21", e.IdeaUsed(idea=used, experiment=1))
    night.write("nov21", e.IdeaDeclined(idea=declined, experiment=1, why="too slow"))
    night.prepare("nov21", 1)
    night.train("nov21", 1, 0.9)
    night.decide("nov21", 1, "keep", 0.9, 1.0, "better")
    ideas = told(night).ideas
    assert [(one.position, one.by, words.idea(one)) for one in ideas.used] == [
        (used, "slack T1/U9", "used in 1 of nov21: keep")
    ]
    assert [(one.by, words.idea(one)) for one in ideas.declined] == [(GRACE, "declined in 1 of nov21: too slow")]
    assert [(one.position, one.text) for one in ideas.waiting] == [(waiting, "try less")]


def test_versions_of_the_program_are_told_with_what_came_of_each(night: Night) -> None:
    night.keep("nov21", 1, 0.9, 1.0)
    night.write("", e.ProgramEdited(base_hash="p" * 64, hash="q" * 64, text="# new"), GRACE)
    night.keep("nov21", 2, 0.8, 0.9, program="q" * 64)
    night.discard("nov21", 3, 0.9, 0.8, program="q" * 64)
    first, second = told(night).programs
    assert (first.hash[0], first.experiments, first.keeps, first.in_force) == ("p", 1, 1, False)
    assert (second.hash[0], second.experiments, second.keeps, second.in_force, second.by) == ("q", 2, 1, True, GRACE)


def test_a_version_that_was_only_in_force_is_told_too(night: Night) -> None:
    before = night.position
    night.write("", e.ProgramEdited(base_hash="p" * 64, hash="q" * 64, text="# new"), GRACE)
    assert [version.hash[0] for version in told(night, before).programs] == ["p", "q"]


def test_troubles_are_told_if_they_lasted_into_the_window(night: Night) -> None:
    night.write("", e.TroubleNoticed(kind="slack", what="no connection", since=night.at))
    night.write("", e.TroubleCleared(kind="slack", what="no connection"))
    night.write("", e.TroubleNoticed(kind="disk", what="1 GB left", since=night.at))
    before = night.position
    night.write("", e.TroubleNoticed(kind="api", what="overloaded", since="not a time"))
    night.write("", e.TroubleCleared(kind="api", what="overloaded"))
    found = {trouble.kind: trouble for trouble in told(night, before).troubles}
    assert set(found) == {"disk", "api"}
    assert found["disk"].cleared_at is None and found["api"].cleared_at == night.events[-1].at
    assert found["api"].since == night.events[-2].at


def test_the_queue_and_the_one_who_asked_are_told(night: Night) -> None:
    night.request("nov22", GRACE)
    found = told(night)
    assert [(one.tag, one.asked_by) for one in found.queue] == [("nov22", GRACE)]
    assert [run.tag for run in found.runs] == ["nov21"] and found.runs[0].asked_by == ADA


def test_only_the_runs_that_are_asked_for_are_told(night: Night) -> None:
    night.write("nov21", e.RunFinished(reason="stopped", why="stopped by request"))
    night.start("nov22")
    found = digest(night.events, Window(after=0, to_at=night.at), {"nov21"})
    assert [run.tag for run in found.runs] == ["nov21"]


# ---------------------------------------------------------------- decisions


def test_what_needs_a_person_is_told() -> None:
    night = Night()
    night.start("nov21", settings={"proposer": {"kind": "claude", "approval": "all"}})
    night.ask("nov21", 1, kind="claude")
    night.write("nov21", e.ProposalReceived(experiment=1, ask=0, base_commit="b", description="use GeGLU", edits=(),
                                            hypothesis="gates help", usd=0.0))  # fmt: skip
    night.write("nov21", e.RunPaused(why="the proposer failed 10 times in a row"))
    request = night.request("dec01")
    night.write("dec01", e.RunRefused(request=request, code="dirty", why="the tree is dirty", remedy="commit it"))
    approve, resume, refused = told(night).decisions
    assert (approve.kind, approve.experiment, approve.hypothesis) == ("approve", 1, "gates help")
    assert (resume.kind, resume.why) == ("resume", "the proposer failed 10 times in a row")
    assert (refused.kind, refused.run, refused.why) == ("refused", "dec01", "the tree is dirty; commit it")


def test_keeps_that_are_not_confirmed_could_be_vetoed_those_within_noise_first(night: Night) -> None:
    night.keep("nov21", 1, 0.9, 1.0, "untested")
    night.keep("nov21", 2, 0.8, 0.9, "confirmed")
    night.keep("nov21", 3, 0.5, 0.8, "within_noise")
    night.keep("nov21", 4, 0.49, 0.5, "within_noise")
    found = told(night).decisions
    assert [(one.kind, one.experiment, one.takes) for one in found] == [("veto", 4, 0), ("veto", 3, 1), ("veto", 1, 3)]
    assert words.decision(found[2]) == (
        "keep 1 of nov21 is untested (0.100000); a veto takes 3 later keeps off as well"
    )


# ---------------------------------------------------------------- quiet nights


def quiet_nights() -> list[tuple[str, Night, int]]:
    empty = Night()
    queued = Night()
    queued.request("nov21")
    paused = Night()
    paused.start("nov21")
    paused.write("nov21", e.RunPaused(why="asked to pause"))
    at_work = Night()
    at_work.start("nov21")
    over = Night()
    over.start("nov21")
    over.write("nov21", e.RunFinished(reason="stopped", why="stopped by request"))
    refused = Night()
    request = refused.request("nov21")
    refused.write("nov21", e.RunRefused(request=request, code="x", why="no branch", remedy="make one"))
    return [
        ("Nothing was tried: no run was active.", empty, 0),
        ("Nothing was tried: nov21 waits in the queue and no loop has taken it up.", queued, 0),
        ("Nothing was tried: nov21 is paused (asked to pause).", paused, 0),
        ("Nothing was tried: nov21 is paused (asked to pause).", paused, paused.position),
        ("No experiment came to an end: nov21 is active, but no loop is running.", at_work, 0),
        ("No experiment came to an end: nov21 is over (stopped by request).", over, 0),
        ("Nothing was tried: no run was active.", over, over.position),
        ("Nothing was tried: nov21 could not start (no branch; make one).", refused, 0),
    ]


@pytest.mark.parametrize(("sentence", "night", "after"), quiet_nights())
def test_a_night_without_an_experiment_says_so_in_one_sentence(sentence: str, night: Night, after: int) -> None:
    found = told(night, after)
    assert found.is_quiet and words.quiet(found) == sentence == words.headline(found)


def test_a_loop_that_died_is_told(night: Night) -> None:
    started = e.LoopStarted(host="h", boot_id="b", pid=1, pid_started=1.0, nightshift="0", sandbox="none")
    for _ in range(3):
        night.write("", started)
    assert words.loop(told(night).loop) == "2 loops ended without saying so"
    night.write("", e.LoopStopped(why="SIGTERM"))
    assert words.loop(told(night).loop) == "2 loops ended without saying so, the loop stopped: SIGTERM"


def test_a_night_with_a_verdict_is_not_quiet(night: Night) -> None:
    night.keep("nov21", 1, 0.9, 1.0)
    assert words.quiet(told(night)) == ""
    assert words.headline(told(night)) == (
        "nov21: val_bpb 1.000000 → 0.900000 (experiment 1): a measured gain of 0.100000, 10.00%, not tested against "
        "noise; 1 experiment: 1 kept, 0 discarded, 0 crashed; 1 keep, untested."
    )


# ---------------------------------------------------------------- windows


def test_windows_by_position_that_follow_each_other_hold_each_event_once(night: Night) -> None:
    for number in range(1, 13):
        night.discard("nov21", number, 1.0 + number, 1.0)
    cuts = [0, 20, 21, 60, night.position]
    windows = [Window(after=a, upto=b, to_at=night.at) for a, b in pairwise(cuts)]
    counted = [run.counts.discarded for window in windows for run in digest(night.events, window).runs]
    assert sum(counted) == 12


def test_a_window_of_times_leaves_out_what_was_before_and_after(night: Night) -> None:
    night.discard("nov21", 1, 1.1, 1.0)
    begin = night.at
    night.discard("nov21", 2, 1.1, 1.0)
    end = night.at
    night.discard("nov21", 3, 1.1, 1.0)
    (run,) = digest(night.events, Window(from_at=begin, to_at=end)).runs
    assert [failure.experiment for failures in run.failures for failure in failures.shown] == [2]


def test_what_is_behind_the_windows_last_position_changes_nothing(night: Night) -> None:
    night.keep("nov21", 1, 0.9, 1.0)
    window = Window(after=0, upto=night.position, to_at=night.at)
    before = digest(night.events, window)
    night.keep("nov21", 2, 0.5, 0.9)
    night.veto("nov21", 1)
    assert digest(night.events, window) == before


def test_a_window_by_positions_learns_when_it_began(night: Night) -> None:
    assert told(night).window.from_at == night.events[0].at
    assert told(night, 5).window.from_at == night.events[4].at
    assert told(Night()).window.from_at == ""


def test_the_window_of_a_post_stays_what_it_was() -> None:
    at = "2026-11-21T08:00:00.000000Z"
    later = e.PostRequested(key="digest/C1/2026-11-21", channel="C1", kind="digest", from_position=7, to_position=9)
    first = e.PostRequested(key="digest/C1/2026-11-20", channel="C1", kind="digest", to_position=9)
    assert window_of(later, at) == Window(after=7, upto=9, to_at=at)
    assert window_of(first, at) == Window(from_at="2026-11-20T08:00:00.000000Z", upto=9, to_at=at)


def test_the_last_digest_is_the_newest_that_was_posted(night: Night) -> None:
    def post(key: str, kind: str, upto: int) -> None:
        night.write("", e.PostRequested(key=key, channel="C1", kind=kind, from_position=1, to_position=upto))

    last = LastDigest()
    post("digest/C1/2026-11-20", "digest", 5)
    night.write("", e.PostMade(key="digest/C1/2026-11-20", channel="C1", ts="1"))
    post("digest/C1/2026-11-21", "digest", 8)
    post("run/nov21@1", "run", 0)
    night.write("", e.PostFailed(key="digest/C1/2026-11-21", why="gone"))
    night.write("", e.PostMade(key="run/nov21@1", channel="C1", ts="2"))
    for event in night.events:
        last.apply(event)
    assert last.window is not None and last.window.upto == 5


# ---------------------------------------------------------------- any log


def test_the_same_events_give_the_same_digest_however_often(night: Night) -> None:
    night.keep("nov21", 1, 0.9, 1.0)
    assert msgspec.json.encode(told(night)) == msgspec.json.encode(told(night))


def test_a_long_night_is_bounded_and_counts_what_it_leaves_out(night: Night) -> None:
    best = 1.0
    for number in range(1, 601):
        night.keep("nov21", number, best - 0.001, best)
        best -= 0.001
    found = told(night)
    (run,) = found.runs
    assert (len(run.keeps), run.keeps_left_out, run.counts.kept) == (KEEPS_MAX, 400, 600)
    assert (len(found.decisions), found.decisions_left_out) == (OTHERS_MAX, 600 - OTHERS_MAX)
    assert len(run.steps) == STEPS_MAX
    assert (run.steps[0].experiment, run.steps[-1].experiment) == (0, 600)
    assert len(msgspec.json.encode(found)) < 500_000


TEXTS = st.text(max_size=40) | st.sampled_from(["a" * 5_000, "\x1b[31mred", "<!channel>", "```", "\u202eabc", "\n\t"])
NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=64)


@settings(max_examples=60, deadline=None)
@given(text=TEXTS, score=NUMBERS, before=NUMBERS, verdict=st.sampled_from(["keep", "discard", "crash"]), data=st.data())
def test_any_texts_and_numbers_give_a_digest_that_can_be_written(
    text: str, score: float, before: float, verdict: e.Verdict, data: st.DataObject
) -> None:
    night = Night()
    night.start("nov21", before)
    night.write("", e.IdeaSuggested(text=text, by=text), text or ADA)
    night.propose("nov21", 1, text, hypothesis=text, expected_effect=text, model=text)
    night.prepare("nov21", 1)
    crashed = verdict == "crash"
    night.train("nov21", 1, None if crashed else score, tail=text, why=text, outcome="tampered")
    gain, ended = data.draw(st.none() | NUMBERS), None if crashed else score
    night.write("nov21", e.ExperimentDecided(experiment=1, attempt=0, verdict=verdict, reason=text, trials=1,
                                             score=ended, best_before=before, gain=gain))  # fmt: skip
    night.write("nov21", e.BranchMoved(experiment=1, from_commit="b", to_commit="c", why="keep"))
    night.write("nov21", e.KeepVetoed(experiment=1, why=text), text or ADA)
    night.write("", e.TroubleNoticed(kind="disk", what=text, since=text))
    night.refuse_answer("nov21", 2, text, why=text)
    found = told(night)
    assert b"null" not in msgspec.json.encode([keep.gain for run in found.runs for keep in run.keeps if keep.gain])
    assert all(char.isprintable() or char == " " for char in words.headline(found))
    assert len(words.headline(found)) < 2_000
