"""What is due: which posts, in which order, and none twice."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot import blocks
from bot.board import BACKLOG_MAX, PROGRAMS_MAX, Board
from bot.message import Message
from bot.outbox import EDIT_EVERY_S, LATE_S, Due, Edited, Memory, Rules, fingerprint
from eventstore import events as e
from eventstore.envelope import format_at
from eventstore.requests import text_hash
from tests.bot.nights import ADA, BEGIN, Night

BASE = "run/nov21@1"


@pytest.fixture
def night() -> Night:
    """A run that was asked for, with its parent posted, and its baseline."""
    night = Night()
    night.ask()
    night.post()
    night.start()
    night.baseline()
    night.post()
    return night


def words(message: Message | None) -> str:
    """All that a message says."""
    assert message is not None
    found: list[str] = [message.text]

    def collect(part: Any) -> None:
        if isinstance(part, dict):
            found.extend(value for name, value in part.items() if name == "text" and isinstance(value, str))
            for value in part.values():
                collect(value)
        elif isinstance(part, list | tuple):
            for value in part:
                collect(value)

    collect(message.blocks)
    return "\n".join(found)


def program_edit(text: str) -> e.ProgramEdited:
    return e.ProgramEdited(base_hash="", hash=text_hash(text), text=text)


def starts_again(night: Night) -> None:
    """The bot died; another one begins."""
    night.memory = Memory(orphans=set(night.board.open))
    night.rules = Rules("C1", None, "UTC", BEGIN).begun(night.board)


def parsed(message: Message) -> str:
    """What Slack looks for mentions in: mrkdwn, not plain text and not rich text."""
    found = [message.text]
    for block in message.blocks:
        parts = [block.get("text"), *block.get("elements", ())]
        found += [str(part["text"]) for part in parts if isinstance(part, dict) and part.get("type") == "mrkdwn"]
    return "\n".join(found)


def actions(message: Message | None) -> list[str]:
    """The action ids of a message's buttons."""
    assert message is not None
    rows = [block["elements"] for block in message.blocks if block["type"] == "actions"]
    return [element["action_id"] for row in rows for element in row]


class TestARun:
    def test_its_parent_is_due_as_soon_as_it_is_asked_for(self) -> None:
        night = Night()
        night.ask()
        (one,) = night.due()
        assert (one.key, one.kind, one.channel, one.what) == (BASE, "parent", "C1", "post")
        assert "waits its turn" in words(one.message)

    def test_nothing_is_due_without_a_channel(self) -> None:
        night = Night(channel=None)
        night.ask()
        night.start()
        night.baseline()
        night.finish()
        assert night.due() == ()

    def test_each_experiment_has_a_plan_and_a_verdict_in_the_thread(self, night: Night) -> None:
        night.propose(1)
        assert night.due_keys() == []  # what is only proposed may yet come to nothing
        night.train(1)
        (plan,) = night.post()
        night.decide(1, "discard", score=1.5)
        (verdict,) = night.post()
        assert (plan.key, verdict.key) == (f"{BASE}/1/plan", f"{BASE}/1/verdict")
        assert plan.thread_ts == verdict.thread_ts == night.board.threads["nov21"].ts != ""
        assert "because of 1" in words(plan.message)
        assert "0.500000 worse" in words(verdict.message)

    def test_a_reply_waits_for_its_parent(self) -> None:
        night = Night()
        night.ask()
        (parent,) = night.due()
        night.request(parent)
        night.start()
        night.baseline()
        night.experiment(1)
        assert night.due_keys() == []
        night.made(parent)
        assert night.due_keys() == [f"{BASE}/0/verdict", f"{BASE}/1/plan", f"{BASE}/1/verdict"]

    def test_a_run_whose_parent_was_given_up_has_no_replies_but_the_channel_is_told(self) -> None:
        night = Night()
        night.ask()
        (parent,) = night.due()
        night.request(parent)
        night.say(e.PostFailed(key=parent.key, why="x"), "nov21", "bot@box")
        night.start()
        night.baseline()
        night.experiment(1, "keep", score=0.9)
        assert night.due_keys() == [f"{BASE}/best/1"]

    def test_a_proposal_without_code_that_ran_is_not_spoken_of(self, night: Night) -> None:
        night.propose(1)
        night.say(e.ExperimentAbandoned(experiment=1, reason="run_ended", why="stopped"))
        assert night.due_keys() == []

    def test_an_abandoned_experiment_whose_plan_stands_is_told(self, night: Night) -> None:
        night.propose(1)
        night.train(1)
        night.post()
        night.say(e.ExperimentAbandoned(experiment=1, reason="stopped", why="stopped at once by request"))
        (one,) = night.post()
        assert one.key == f"{BASE}/1/verdict"
        assert "without a verdict" in words(one.message)

    def test_whose_idea_it_was_is_said(self, night: Night) -> None:
        idea = night.say(e.IdeaSuggested(text="try <b>"), "", "slack:T1/U7")
        night.propose(1)
        night.say(e.IdeaUsed(idea=idea, experiment=1))
        night.train(1)
        night.decide(1, "keep", score=0.9)
        plan, verdict, best = night.post()
        assert all("<@U7>" in words(one.message) for one in (plan, verdict, best))
        assert "try &lt;b&gt;" in words(plan.message)

    def test_a_keep_has_a_veto_and_a_discard_can_be_taken_up_again(self, night: Night) -> None:
        night.experiment(1, "keep", score=0.9)
        night.experiment(2)
        made = {one.key: one for one in night.post()}
        assert actions(made[f"{BASE}/1/verdict"].message) == ["veto"]
        assert actions(made[f"{BASE}/2/verdict"].message) == ["again"]

    def test_the_same_tag_asked_for_again_is_another_thread(self) -> None:
        night = Night()
        night.ask()
        night.post()
        night.say(e.RunWithdrawn(), actor=ADA)
        position = night.ask()
        (one,) = night.post()
        assert one.key == f"run/nov21@{position}"

    def test_a_run_withdrawn_before_its_parent_stood_is_not_posted(self) -> None:
        night = Night()
        night.ask()
        night.say(e.RunWithdrawn(), actor=ADA)
        assert night.due() == ()


class TestTheChannel:
    def test_a_better_score_is_announced(self, night: Night) -> None:
        night.experiment(1, "keep", score=0.9, standing="confirmed")
        made = night.post()
        assert [one.key for one in made] == [f"{BASE}/1/plan", f"{BASE}/1/verdict", f"{BASE}/best/1"]
        assert made[2].thread_ts == ""
        assert "new best, val" in words(made[2].message)

    def test_a_gain_within_the_noise_is_not_called_a_new_best(self, night: Night) -> None:
        night.experiment(1, "keep", score=0.9, standing="within_noise")
        best = night.post()[-1]
        assert "within the noise" in words(best.message)
        assert "new best" not in words(best.message)

    def test_it_leads_to_the_thread_of_its_run(self, night: Night) -> None:
        night.rules = replace(night.rules, workspace_url="https://example.slack.com/")
        night.experiment(1, "keep", score=0.9)
        for number in (2, 3, 4):
            night.experiment(number, "crash")
        night.say(e.RunPaused(why="three crashes"))
        night.say(e.TroubleNoticed(kind="disk", what="full", since=format_at(night.now)))
        found = {one.kind: words(one.message) for one in night.post()}
        night.finish()
        found |= {one.kind: words(one.message) for one in night.post()}
        ts = night.board.threads["nov21"].ts.replace(".", "")
        link = f"<https://example.slack.com/archives/C1/p{ts}|The thread of nov21>"
        assert {kind for kind, said in found.items() if link in said} == {"best", "crashes", "paused", "finished"}
        assert "archives" not in found["trouble"] + found["verdict"]

    def test_a_simplification_is_not_announced(self, night: Night) -> None:
        night.experiment(1, "keep", score=1.0, lines=-20)
        assert f"{BASE}/best/1" not in [one.key for one in night.post()]

    def test_of_two_announcements_that_wait_only_the_newer_is_made(self, night: Night) -> None:
        night.experiment(1, "keep", score=0.9)
        night.experiment(2, "keep", score=0.8)
        assert [key for key in night.due_keys() if "best" in key] == [f"{BASE}/best/2"]

    def test_three_crashes_in_a_row_are_told_once(self, night: Night) -> None:
        positions = [night.experiment(n, "crash") for n in (1, 2, 3, 4)]
        told = [one for one in night.post() if one.kind == "crashes"]
        assert [one.key for one in told] == [f"{BASE}/crashes/{positions[2]}"]
        assert "1, 2, 3" in words(told[0].message)

    def test_two_crashes_a_discard_and_two_crashes_are_not_told(self, night: Night) -> None:
        for n, verdict in enumerate(("crash", "crash", "discard", "crash", "crash"), 1):
            night.experiment(n, verdict)  # type: ignore[arg-type]
        assert not [one for one in night.post() if one.kind == "crashes"]

    def test_a_budget_is_told_at_its_warning(self, night: Night) -> None:
        night.say(e.BudgetWarned(limit="usd", share=0.8))
        (one,) = night.post()
        assert one.kind == "budget"
        assert "80%" in words(one.message)

    def test_the_end_is_told_with_why_and_the_best(self, night: Night) -> None:
        night.experiment(1, "keep", score=0.9)
        night.post()
        night.finish()
        (one,) = night.post()
        assert one.key == f"{BASE}/finished"
        assert "stopped by request" in words(one.message)
        assert "0.900000" in words(one.message)

    def test_a_run_that_cannot_start_is_told_to_the_one_who_asked(self) -> None:
        night = Night()
        request = night.ask()
        night.post()
        night.say(e.RunRefused(request=request, code="x", why="no such commit", remedy="name another"))
        (one,) = night.post()
        assert one.key == f"{BASE}/finished"
        assert "<@U1>" in words(one.message)
        assert "name another" in words(one.message)

    @pytest.mark.parametrize("kind", ["disk", "device", "sandbox", "api"])
    def test_trouble_is_told(self, night: Night, kind: Any) -> None:
        position = night.say(e.TroubleNoticed(kind=kind, what="it is full", since=format_at(BEGIN)))
        (one,) = night.post()
        assert one.key == f"trouble/{position}"

    def test_trouble_with_slack_and_trouble_that_is_over_are_not_told(self, night: Night) -> None:
        night.say(e.TroubleNoticed(kind="slack", what="away", since=format_at(BEGIN)))
        night.say(e.TroubleNoticed(kind="disk", what="full", since=format_at(BEGIN)))
        night.say(e.TroubleCleared(kind="disk", what="full"))
        assert night.due_keys() == []

    def test_a_change_of_program_md_is_told_with_the_diff_and_who(self, night: Night) -> None:
        night.say(e.ProgramRecorded(hash="a" * 64, text="# Goal\n\nBe brief.\n"), "")
        assert night.due_keys() == [], "what the loop found in git is nobody's news"
        for number in range(7):
            night.say(program_edit(f"# Goal\n\nBe brief {number}. <!channel>\n"), "", ADA)
        found = night.post()
        assert [one.kind for one in found] == ["program"] * PROGRAMS_MAX
        assert "-Be brief 5. <!channel>\n+Be brief 6. <!channel>" in words(found[-1].message)
        assert "<@U1>" in words(found[-1].message) and "<!channel>" not in parsed(found[-1].message or Message(""))

    @pytest.mark.parametrize(("actor", "is_told"), [(ADA, True), ("cli:grace", False)])
    def test_before_the_first_post_a_change_is_told_only_if_it_was_made_here(self, actor: str, is_told: bool) -> None:
        night = Night()
        night.say(program_edit("# Goal\n"), "", actor)
        assert bool(night.due_keys()) == is_told

    def test_a_pause_that_nobody_asked_for_is_told_with_a_button(self, night: Night) -> None:
        night.say(e.RunPaused(why="someone else moved the branch"))
        (one,) = night.post()
        assert "someone else moved the branch" in words(one.message)
        assert "resume" in actions(one.message)

    def test_a_pause_that_somebody_asked_for_is_not(self, night: Night) -> None:
        night.say(e.RunPauseRequested(), actor=ADA)
        night.say(e.RunPaused(why="asked to pause"))
        assert night.due_keys() == []

    def test_trouble_that_pauses_the_run_is_one_message(self, night: Night) -> None:
        position = night.say(e.TroubleNoticed(kind="disk", what="it is full", since=format_at(BEGIN)))
        night.say(e.RunPaused(why="it is full"), cause=position)
        (one,) = night.post()
        assert one.key == f"trouble/{position}"
        assert "resume" in actions(one.message)

    def test_a_proposer_that_fails_is_told_until_it_answers_again(self, night: Night) -> None:
        night.say(e.ProposerSwitched(from_kind="claude", to_kind="sweep", why="claude failed 3 times"))
        (one,) = night.post()
        assert "the sweep stands in" in words(one.message)
        night.say(e.ProposerSwitched(from_kind="sweep", to_kind="claude", why="it answers again"))
        assert night.due_keys() == []


class TestAnOldLog:
    def test_runs_that_are_over_before_the_first_post_are_not_posted(self) -> None:
        night = Night()
        for tag in ("oct1", "oct2"):
            night.ask(tag)
            night.start(tag)
            night.baseline(tag)
            night.experiment(1, "keep", tag, score=0.9)
            night.finish(tag)
        assert night.due() == ()
        assert night.board.threads == {}

    def test_of_a_run_in_progress_the_past_is_one_reply(self) -> None:
        night = Night()
        night.ask()
        night.start()
        night.baseline()
        for n in range(1, 40):
            night.experiment(n, "keep" if n % 10 == 0 else "discard", score=1 - n / 1_000)
        night.propose(40)
        night.train(40)
        made = night.post()
        assert [one.kind for one in made] == ["parent", "before", "plan"]
        assert "Experiments 0 to 39" in words(made[1].message)
        assert "4 kept" in words(made[1].message)  # the baseline is one
        night.decide(40, "discard", score=2.0)
        assert [one.key for one in night.post()] == [f"{BASE}/40/verdict"]

    def test_a_run_that_ended_while_the_bot_was_down_is_its_parent_and_one_reply(self, night: Night) -> None:
        night.finish()
        night.post()
        night.ask("nov22")
        night.start("nov22")
        night.baseline("nov22")
        night.experiment(1, tag="nov22")
        night.finish("nov22")
        made = night.post()
        assert [one.kind for one in made] == ["parent", "before"]
        assert "finished" in words(made[0].message)

    def test_of_many_replies_that_wait_the_oldest_are_counted(self, night: Night) -> None:
        for n in range(1, 51):
            night.experiment(n)
        made = night.post()
        assert made[0].kind == "before"
        assert made[0].to_position > made[0].from_position > 0
        assert len(made) == 1 + BACKLOG_MAX
        numbers = [int(one.key.split("/")[2]) for one in made[1:]]
        assert numbers == sorted(numbers)
        counted = int(words(made[0].message).split(":")[1].split()[0])
        assert counted + sum(one.kind == "verdict" for one in made) == 50

    def test_what_the_bot_missed_says_when_it_happened(self, night: Night) -> None:
        night.experiment(1, "keep", score=0.9)
        assert all("posted late" not in words(one.message) for one in night.due() if one.what == "post")
        night.later(seconds=LATE_S + 60)
        made = night.post()
        assert all("posted late" in words(one.message) for one in made)
        assert len(made) == 3

    def test_memory_stays_flat(self, night: Night) -> None:
        for n in range(1, 300):
            night.experiment(n, "keep" if n % 7 == 0 else "crash", score=1 - n / 1_000)
            night.post()
        thread = night.board.threads["nov21"]
        assert not night.board.open
        assert not night.board.notices
        assert not thread.waiting
        assert not thread.approvals
        assert not thread.planned
        assert not night.board._credits


class TestEdits:
    def edits(self, night: Night) -> list[Due]:
        found = [one for one in night.due() if one.what == "edit"]
        for one in found:
            assert one.message is not None
            night.memory.edited[one.key] = Edited(fingerprint(one.message), night.now)
        return found

    def test_the_parent_is_edited_to_its_newest_state_and_not_too_often(self, night: Night) -> None:
        (first,) = self.edits(night)
        assert (first.key, first.ts) == (BASE, night.board.threads["nov21"].ts)
        night.experiment(1, "keep", score=0.9)
        assert self.edits(night) == []
        night.later(seconds=EDIT_EVERY_S)
        (second,) = self.edits(night)
        assert "0.900000" in words(second.message)

    def test_nothing_is_edited_that_says_the_same(self, night: Night) -> None:
        self.edits(night)
        night.later(hours=1)
        assert self.edits(night) == []

    def test_after_a_restart_what_may_have_changed_is_edited_once_more(self, night: Night) -> None:
        night.memory.edited.clear()
        assert len(self.edits(night)) == 1
        night.finish()
        night.post()
        night.later(hours=1)
        night.ask("nov22")
        night.post()
        night.start("nov22")
        starts_again(night)
        assert [one.run for one in self.edits(night)] == ["nov22"]

    def test_so_is_that_of_a_run_whose_end_a_bot_that_died_may_not_have_shown(self, night: Night) -> None:
        night.post()
        edit = next(one for one in night.due() if one.what == "edit")
        night.memory.edited[edit.key] = Edited(fingerprint(edit.message or Message("")), night.now)
        night.finish()
        assert [one.kind for one in night.post()] == ["finished"], "its edit waits, for there was one just now"
        night.ask("next")
        night.start("next")
        night.later(hours=8)
        starts_again(night)
        assert "run/nov21@1" in [one.key for one in night.due() if one.what == "edit"]
        night.post()
        night.later(hours=8)
        night.say(e.IdeaSuggested(text="an idea"), "", ADA)
        starts_again(night)
        assert "run/nov21@1" not in [one.key for one in night.due() if one.what == "edit"]

    def test_the_parent_of_a_run_that_is_over_loses_its_buttons(self, night: Night) -> None:
        night.finish()
        (one,) = self.edits(night)
        assert actions(one.message) == []

    def test_a_parent_that_was_deleted_is_posted_anew_and_replies_go_there(self, night: Night) -> None:
        night.memory.lost.add(BASE)
        night.experiment(1)
        (one,) = [one for one in night.due() if one.what == "post"]
        assert one.kind == "parent"
        assert one.key.startswith(f"{BASE}/parent/")
        night.request(one)
        night.memory.lost.discard(BASE)
        night.made(one)
        ts = night.board.threads["nov21"].ts
        assert {due.thread_ts for due in night.due() if due.what == "post"} == {ts}


class TestApproval:
    @pytest.fixture
    def night(self) -> Night:
        night = Night()
        night.ask()
        night.post()
        night.start(approval="all")
        night.baseline()
        night.post()
        return night

    def test_it_is_asked_for_in_the_thread_with_the_edit(self, night: Night) -> None:
        night.propose(1)
        (one,) = night.post()
        assert (one.key, one.kind) == (f"{BASE}/1/plan", "approval")
        assert actions(one.message) == ["approve", "reject"]
        assert "LR = 0.1" in words(one.message)

    def test_once_answered_it_says_by_whom_and_has_no_buttons(self, night: Night) -> None:
        night.propose(1)
        night.post()
        night.say(e.ProposalRejected(experiment=1, why="no"), actor="slack:T1/U2")
        (one,) = [one for one in night.due() if one.kind == "approval"]
        assert one.what == "edit"
        assert "rejected by <@U2>" in words(one.message)
        assert actions(one.message) == []

    def test_what_was_approved_has_no_second_plan(self, night: Night) -> None:
        night.propose(1)
        night.post()
        night.say(e.ProposalApproved(experiment=1), actor=ADA)
        night.train(1)
        assert night.due_keys() == []

    def test_another_proposal_under_the_same_number_is_asked_for_anew(self, night: Night) -> None:
        night.propose(1)
        night.post()
        night.say(e.ProposalApproved(experiment=1), actor=ADA)
        night.say(e.ProposalFailed(experiment=1, ask=0, failure="edit_does_not_apply", why="moved on"))
        position = night.propose(1, ask=1)
        (one,) = night.post()
        assert one.key == f"{BASE}/1/plan/{position}"

    def test_a_fresh_bot_asks_for_what_waits(self) -> None:
        night = Night()
        night.ask()
        night.start(approval="all")
        night.baseline()
        night.propose(1)
        assert [one.kind for one in night.post()] == ["parent", "before", "approval"]


class TestAfterACrash:
    def test_what_was_requested_and_not_made_is_looked_for(self, night: Night) -> None:
        night.experiment(1)
        plan = night.due()[1]
        night.request(plan)
        assert [one.what for one in night.due() if one.key == plan.key] == []
        night.memory.orphans = set(night.board.open)
        (again,) = [one for one in night.due() if one.key == plan.key]
        assert (again.what, again.thread_ts) == ("again", plan.thread_ts)
        assert words(again.message) == words(plan.message)

    def test_a_board_folded_anew_says_the_same(self, night: Night) -> None:
        night.experiment(1, "keep", score=0.9)
        one = next(one for one in night.due() if one.what == "post")
        night.request(one)
        night.board = Board.of(night.log.stream())
        night.memory.orphans = set(night.board.open)
        (again,) = [due for due in night.due() if due.what == "again"]
        assert again.message == one.message

    def test_a_reply_of_a_run_whose_tag_was_given_away_has_nothing_to_say(self) -> None:
        night = Night()
        request = night.ask()
        night.post()
        night.say(e.RunRefused(request=request, code="x", why="y", remedy="z"))
        (one,) = [one for one in night.due() if one.what == "post"]
        night.request(one)
        night.ask()
        night.memory.orphans = set(night.board.open)
        assert [due.what for due in night.due() if due.key == one.key] == ["again"]


class TestDigests:
    def test_it_is_due_at_its_hour_and_once(self) -> None:
        night = Night()
        night.rules = type(night.rules)("C1", "08:00", "UTC", BEGIN)
        night.ask()
        night.post()
        night.now = BEGIN + timedelta(hours=10)
        (one,) = [one for one in night.due() if one.kind == "digest"]
        assert (one.key, one.message, one.to_position) == ("digest/C1/2026-11-22", None, night.board.position)
        night.request(one)
        night.made(one)
        assert not [one for one in night.due() if one.kind == "digest"]
        assert night.board.digests["C1"].key == one.key


# ---------------------------------------------------------------- whatever happens

ALL_STEPS = (
    ["ask", "start", "abandon", "pause", "resume", "finish", "trouble", "fail", "die", "revive", "lose", "wait"]
    + ["propose", "train", "keep", "discard", "crash"] * 4
    + ["post"] * 12
)
STEPS = st.sampled_from(ALL_STEPS)
HOSTILE = st.sampled_from(["", "plain", "<!channel> <@U1>", "``` *x* _y_ ~z~ &", "a\x00b\u202e\ud800", "x" * 5_000])


class Story:
    """Takes random steps that are possible, and checks what must always hold."""

    def __init__(self, words: str) -> None:
        self.night = Night()
        self.words = words
        self.runs = 0
        self.requested: list[str] = []
        self.order: dict[str, list[int]] = {}

    def step(self, name: str) -> None:
        night, state = self.night, self.night.board.state
        run = state.active
        open_ = [x for _, x in sorted(run.experiments.items())] if run is not None else []
        if name == "ask":
            self.runs += 1
            night.ask(f"run{self.runs}")
        elif name == "start" and run is None and state.queue:
            night.start(state.queue[0])
            night.baseline(state.queue[0] if state.queue and state.active is None else state.active.tag)  # type: ignore[union-attr]
        elif name in ("post", "fail", "die", "revive", "lose", "wait"):
            self.bot(name)
        elif name == "trouble":
            night.say(e.TroubleNoticed(kind="disk", what=self.words_fit() or "full", since=format_at(BEGIN)))
        elif run is None:
            return
        elif name == "propose":
            night.propose(run.next_number, run.tag, words=self.words_fit())
        elif name == "train" and open_ and not open_[0].in_hand:
            night.train(open_[0].number, run.tag)
        elif name in ("keep", "discard", "crash") and open_ and open_[0].in_hand:
            night.decide(open_[0].number, name, run.tag, score=0.9, reason=self.words_fit() or "so")  # type: ignore[arg-type]
        elif name == "abandon" and open_:
            night.say(e.ExperimentAbandoned(experiment=open_[0].number, reason="x", why=self.words_fit()), run.tag)
        elif name == "pause":
            night.say(e.RunPaused(why=self.words_fit()), run.tag)
        elif name == "resume":
            night.say(e.RunResumed(why="x"), run.tag)
        elif name == "finish":
            for experiment in open_:
                night.say(e.ExperimentAbandoned(experiment=experiment.number, reason="x", why="y"), run.tag)
            night.finish(run.tag)

    def words_fit(self) -> str:
        return self.words.replace("\ud800", "")  # the log takes none

    def bot(self, name: str) -> None:
        night = self.night
        if name == "wait":
            night.later(minutes=20)
            return
        if name == "revive":
            night.board = Board.of(night.log.stream())
            night.memory = type(night.memory)(orphans=set(night.board.open))
            return
        if name == "lose":
            parents = [thread.key for thread in night.board.threads.values() if thread.ts]
            night.memory.lost.update(parents[:1])
            return
        one = next((one for one in night.due() if one.what != "edit"), None)
        if one is None:
            return
        if one.what == "post":
            self.claim(one)
        if name == "post":
            night.memory.orphans.discard(one.key)
            night.made(one)
        elif name == "fail":
            night.memory.orphans.discard(one.key)
            night.say(e.PostFailed(key=one.key, why="x"), one.run, "bot@box")
        # "die": it stays open

    def claim(self, one: Due) -> None:
        night = self.night
        assert one.key not in self.requested, f"{one.key} is due twice"
        self.requested.append(one.key)
        if one.thread_ts:
            found = night.board.thread_of(one.key)
            assert found is not None
            assert found[0].ts == one.thread_ts
        if one.kind in ("plan", "verdict"):
            number = int(one.key.split("/")[2]) * 2 + (one.kind == "verdict")
            order = self.order.setdefault(one.run, [])
            assert not order or number > order[-1], "a reply overtook another"
            order.append(number)
        night.request(one)
        if one.kind == "parent":
            night.memory.lost.discard(one.key.partition("/parent")[0])

    def check(self) -> None:
        for one in self.night.due():
            if one.message is not None:
                surface: blocks.Surface = "update" if one.what == "edit" else "message"
                payload = {"text": one.message.text, "blocks": list(one.message.blocks)}
                assert not blocks.problems(payload, surface), one
                assert "<!channel>" not in parsed(one.message)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example])
@given(steps=st.lists(STEPS, min_size=30, max_size=80), hostile=HOSTILE)
def test_whatever_happens_no_key_is_due_twice_and_replies_keep_their_order(steps: list[str], hostile: str) -> None:
    story = Story(hostile)
    for name in ["ask", "start", *steps]:
        story.step(name)
        story.check()


@pytest.mark.parametrize("seed", range(12))
def test_so_it_is_in_long_nights(seed: int) -> None:
    chance = random.Random(seed)
    story = Story("<!channel> ``` & *x* " + "y" * 1_500)
    for name in ["ask", "start", *chance.choices(ALL_STEPS, k=250)]:
        story.step(name)
        story.check()
    assert len(story.requested) > 20
