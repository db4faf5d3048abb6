"""The bot as people meet it: commands, clicks, forms and the Home tab, over real sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from bot.errors import SignInRefused
from bot.sandbox.clock import LoopClock
from bot.sandbox.faults import Error, Html503, Slow
from bot.sandbox.methods import SCOPES
from bot.sandbox.model import Person, Posted
from bot.sandbox.server import Sandbox
from eventstore import events as e
from eventstore.home import Home
from eventstore.requests import text_hash
from tests.bot.serving import append, around, held, logged, serving, started, with_slack, workspace

ALL = SCOPES | {"channels:history", "groups:history", "files:read", "usergroups:read"}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return workspace(tmp_path)


def slack_at_work(**settings: object) -> Sandbox:
    """A Slack whose clock is that of this machine and that does not make posts wait."""
    people = (
        Person("U1", "Ada"),
        Person("U2", "Ben"),
        Person("U3", "Cleo"),
        Person("U4", "Gus", guest="multi"),
        Person("U5", "Fay", team_id="T9"),
    )
    return Sandbox(**{"clock": LoopClock(time.time()), "people": people, "scopes": ALL} | settings)  # type: ignore[arg-type]


def texts(posts: Iterable[Posted]) -> str:
    return "\n".join(post.text for post in posts)


# ---------------------------------------------------------------- commands


async def test_a_command_is_in_the_log_before_its_ack_and_the_channel_is_told(home: Home) -> None:
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        seen = await slack.command("/nightshift", "start nov21 --experiments 5", user="U1", channel="C1")
        assert seen.acked and not seen.timed_out
        (requested,) = logged(home, e.RunRequested)
        assert requested.actor == "slack:T1/U1" and requested.id.startswith("slack:") and requested.run == "nov21"
        await slack.until(lambda: "Asked for the run nov21" in texts(seen.posts))
        assert not slack.pings or {ping.who for ping in slack.pings} == {"U1"}


async def test_the_same_delivery_twice_asks_once_and_is_answered_once(home: Home) -> None:
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        seen = await slack.command("/nightshift", "idea try a longer warmdown", user="U2")
        assert seen.delivery is not None
        again = await slack.redeliver(seen.delivery)
        assert again.acked
        await asyncio.sleep(0.1)
        assert len(logged(home, e.IdeaSuggested)) == 1
        assert len([post for post in seen.posts if "warmdown" in post.text]) == 1


async def test_the_same_delivery_after_a_restart_is_answered_and_asks_nothing(home: Home) -> None:
    async with slack_at_work() as slack:
        async with serving(around(home, slack), slack):
            seen = await slack.command("/nightshift", "start nov21", user="U1")
        assert seen.delivery is not None
        async with serving(around(home, slack), slack):
            again = await slack.redeliver(seen.delivery)
            assert again.acked
            await slack.until(lambda: "Asked for the run nov21" in texts(seen.ephemerals))
        assert len(logged(home, e.RunRequested)) == 1 and not logged(home, e.RequestRefused)


@pytest.mark.parametrize(
    ("user", "channel", "says"),
    [
        ("U3", "C1", "takes the role operate"),
        ("U4", "C1", "guests"),
        ("U5", "C1", "other workspaces"),
        ("U1", "C2", "in <#C1> only"),
    ],
)
async def test_who_may_not_is_told_politely_and_it_is_an_event(home: Home, user: str, channel: str, says: str) -> None:
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        seen = await slack.command("/nightshift", "start nov21", user=user, channel=channel)
        assert seen.acked and says in texts(seen.ephemerals)
        (refused,) = logged(home, e.RequestRefused)
        assert isinstance(refused.data, e.RequestRefused) and refused.data.who.endswith(user)
        assert not logged(home, e.RunRequested)


async def test_members_of_a_user_group_may(home: Home) -> None:
    change = with_slack(admins=(), operators=("S1",))
    async with slack_at_work(groups={"S1": ("U3",)}) as slack, serving(around(home, slack, change=change), slack):
        assert "takes the role" in texts((await slack.command("/nightshift", "start a", user="U1")).ephemerals)
        await slack.command("/nightshift", "start b", user="U3")
        assert [event.run for event in logged(home, e.RunRequested)] == ["b"]


async def test_someone_whom_slack_does_not_name_may_nothing_until_it_does(home: Home) -> None:
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        slack.fail("users.info", Html503())
        seen = await slack.command("/nightshift", "start nov21", user="U1")
        assert "did not say who you are" in texts(seen.ephemerals)
        await slack.command("/nightshift", "start nov21", user="U1")
        assert len(logged(home, e.RunRequested)) == 1


async def test_people_are_asked_for_once_in_a_while(home: Home) -> None:
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        await asyncio.gather(*(slack.command("/nightshift", "status", user="U1") for _ in range(5)))
        assert [call.method for call in slack.calls].count("users.info") == 1


async def test_a_mistake_gets_the_nearest_command(home: Home) -> None:
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        seen = await slack.command("/nightshift", "staus", user="U3")
        assert "did you mean" in texts(seen.ephemerals)


async def test_everyone_may_look(home: Home) -> None:
    append(home, "nov21", *started())
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        for text, says in (
            ("status", "nov21 is active"),
            ("results", "no verdict yet"),
            ("experiment 3", "no experiment yet"),
            ("ideas", "no idea yet"),
            ("help", "understands"),
            ("help veto", "veto"),
            ("whoami", "You are U3"),
            ("digest", "no digest"),
        ):
            seen = await slack.command("/nightshift", text, user="U3")
            assert seen.acked
            await slack.until(lambda seen=seen, says=says: says in texts(seen.ephemerals))
        assert not logged(home, e.RequestRefused)


async def test_who_asked_for_a_run_is_told_that_it_could_not_start(home: Home) -> None:
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        seen = await slack.command("/nightshift", "start nov21", user="U1")
        (asked,) = logged(home, e.RunRequested)
        refused = e.RunRefused(request=asked.position, code="git", why="the tree is dirty", remedy="commit it")
        append(home, "nov21", refused)
        await slack.until(lambda: "dirty: commit it" in texts(seen.ephemerals))


async def test_a_slow_log_is_told_after_a_second_and_the_outcome_follows(home: Home) -> None:
    append(home, "nov21", *started())
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        await slack.command("/nightshift", "whoami", user="U1")
        async with held(home):
            seen = await slack.command("/nightshift", "pause", user="U1", wait_s=0)
            assert seen.acked and (seen.ack_s or 0) > 0.9
            assert "Not recorded yet" in texts(seen.ephemerals)
            assert not logged(home, e.RunPauseRequested)
        await slack.until(lambda: "nov21 is to pause" in texts(seen.posts))
        assert len(logged(home, e.RunPauseRequested)) == 1


async def test_results_come_with_the_file(home: Home) -> None:
    append(home, "nov21", *started(), e.ExperimentDecided(
        experiment=0, attempt=0, verdict="keep", reason="baseline", trials=1, score=3.0))  # fmt: skip
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        await slack.until(lambda: slack.messages("C1"))
        await slack.command("/nightshift", "results", user="U3")
        await slack.until(
            lambda: any(file.name == "results-nov21.tsv" and file.data for file in slack.space.files.values())
        )
        (file,) = (file for file in slack.space.files.values() if file.name == "results-nov21.tsv")
        assert file.data.startswith(b"commit\tcost\tmemory_gb\tstatus\tdescription\n")


# ---------------------------------------------------------------- buttons


async def test_of_two_who_click_at_once_one_is_followed_and_both_are_told(home: Home) -> None:
    append(home, "nov21", *started())
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        await slack.until(lambda: slack.messages("C1"))
        (parent,) = slack.messages("C1")
        first, second = await asyncio.gather(
            slack.click(parent.ts, "pause", user="U1"), slack.click(parent.ts, "pause", user="U2")
        )
        assert len(logged(home, e.RunPauseRequested)) == 1 and len(logged(home, e.RequestRefused)) == 1
        winner = logged(home, e.RunPauseRequested)[0].actor
        loser = second if winner.endswith("U1") else first
        await slack.until(lambda: "pausing already" in texts(loser.ephemerals))


async def test_a_button_of_an_earlier_run_of_that_name_does_nothing(home: Home) -> None:
    position = append(home, "nov21", e.RunRequested(tag="nov21", from_ref="HEAD", zone="UTC"))[0]
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        await slack.until(lambda: slack.messages("C1"))
        (parent,) = slack.messages("C1")
        refused = e.RunRefused(request=position, code="git", why="dirty", remedy="commit")
        append(home, "nov21", refused, *started())
        seen = await slack.click(parent.ts, "stop", user="U1")
        await slack.until(lambda: "earlier run nov21" in texts(seen.ephemerals))
        assert not logged(home, e.RunStopRequested)


async def test_a_click_is_judged_by_who_clicks_now(home: Home) -> None:
    append(home, "nov21", *started())
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        await slack.until(lambda: slack.messages("C1"))
        (parent,) = slack.messages("C1")
        denied = await slack.click(parent.ts, "stop", user="U3")
        await slack.until(lambda: "takes the role operate" in texts(denied.ephemerals))
        assert not logged(home, e.RunStopRequested)
        seen = await slack.click(parent.ts, "stop", user="U2")
        await slack.until(lambda: "nov21 is to end" in texts(seen.posts))
        assert logged(home, e.RunStopRequested)[0].actor == "slack:T1/U2"


async def test_a_veto_asks_why_and_is_recorded_with_it(home: Home) -> None:
    append(home, "nov21", *started(), *kept(0, 3.0, "a"), *kept(1, 2.0, "b", "a"))
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        shown = await slack.command("/nightshift", "experiment 1", user="U2")
        await slack.until(lambda: shown.ephemerals)
        seen = await slack.click(shown.ephemerals[0].ts, "veto", user="U2")
        (view,) = seen.views
        silent = await slack.submit(view.id, {"why": ""}, user="U2")
        assert silent.complaints and not logged(home, e.KeepVetoed)
        sent = await slack.submit(view.id, {"why": "it overfits <b>"}, user="U2", wait_s=2)
        (vetoed,) = logged(home, e.KeepVetoed)
        assert isinstance(vetoed.data, e.KeepVetoed) and vetoed.data.why == "it overfits <b>"
        await slack.until(lambda: "it overfits" in texts(slack.messages("C1")))
        assert not slack.views("U2") and not sent.trouble


def kept(number: int, score: float, commit: str, base: str = "") -> list[e.Data]:
    """A keep, from its proposal to the branch."""
    made: list[e.Data] = []
    if number:
        made = [
            e.ProposalRequested(experiment=number, ask=0, kind="sweep", purpose="new", base_commit=base * 40,
                                program_hash=""),
            e.ProposalReceived(experiment=number, ask=0, base_commit=base * 40, description="a change", edits=()),
        ]  # fmt: skip
    made += [
        e.ExperimentPrepared(experiment=number, attempt=0, step="first", base_commit=(base or commit) * 40,
                             tree="t" * 40, subject="s"),
        e.ExperimentCommitted(experiment=number, attempt=0, commit=commit * 40, tree="t" * 40, ref="r"),
        e.ExperimentDecided(experiment=number, attempt=0, verdict="keep", reason="better", trials=1, score=score,
                            best_before=3.0 if number else None, gain=3.0 - score if number else None),
    ]  # fmt: skip
    if number:
        made.append(e.BranchMoved(experiment=number, from_commit=base * 40, to_commit=commit * 40, why="keep"))
    return made


# ---------------------------------------------------------------- forms


async def test_a_run_is_started_from_the_form(home: Home) -> None:
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        seen = await slack.command("/nightshift", "start", user="U1")
        (view,) = seen.views
        wrong = await slack.submit(view.id, {"tag": "no good", "until": "25:99"}, user="U1")
        assert set(wrong.complaints or {}) == {"tag", "until"}
        sent = await slack.submit(view.id, {"tag": "nov21", "experiments": "7"}, user="U1")
        assert not sent.complaints and not sent.trouble and not slack.views("U1")
        (requested,) = logged(home, e.RunRequested)
        assert isinstance(requested.data, e.RunRequested)
        assert requested.data.limits.experiments == 7 and requested.data.zone == "Europe/Berlin"
        await slack.until(lambda: "Asked for the run nov21" in texts(slack.messages("C1")))


async def test_what_the_log_refuses_is_said_beside_the_field(home: Home) -> None:
    append(home, "nov21", *started())
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        (view,) = (await slack.command("/nightshift", "start", user="U1")).views
        sent = await slack.submit(view.id, {"tag": "nov21"}, user="U1")
        assert "exists" in (sent.complaints or {})["tag"]
        sent = await slack.submit(view.id, {"tag": "nov22"}, user="U1")
        assert not sent.complaints and [event.run for event in logged(home, e.RunRequested)] == ["nov21", "nov22"]


async def test_a_form_that_takes_long_says_so_at_once_and_then_changes(home: Home) -> None:
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        slack.fail("users.info", Slow(0.8))
        seen = await slack.command("/nightshift", "start", user="U1", wait_s=0)
        await slack.until(lambda: slack.views("U1"))
        (view,) = slack.views("U1")
        assert "One moment" in str(view.body["blocks"])
        await slack.until(lambda: "Name of the run" in str(view.body["blocks"]))
        assert seen.acked


async def test_who_may_not_gets_no_form(home: Home) -> None:
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        seen = await slack.command("/nightshift", "start", user="U3")
        assert "takes the role" in texts(seen.ephemerals) and not seen.views
        slack.fail("users.info", Slow(0.8))
        slow = await slack.command("/nightshift", "start", user="U4", wait_s=0)
        await slack.until(lambda: slow.views and "guests" in str(slow.views[0].body["blocks"]))


PROGRAM = "# Goal\n\nMake cost smaller.\n\n# Rules\n\nBe brief.\n"


async def test_the_program_is_edited_by_section_and_the_change_is_confirmed(home: Home) -> None:
    append(home, "", e.ProgramRecorded(hash=text_hash(PROGRAM), text=PROGRAM))
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        (view,) = (await slack.command("/nightshift", "program", user="U1")).views
        await slack.submit(view.id, {"section-0": "# Goal\n\nMake cost *much* smaller."}, user="U1")
        assert not logged(home, e.ProgramEdited) and "much" in str(view.body["blocks"])
        sent = await slack.submit(view.id, user="U1")
        assert not sent.trouble
        (edited,) = logged(home, e.ProgramEdited)
        assert isinstance(edited.data, e.ProgramEdited) and edited.actor == "slack:T1/U1"
        assert edited.data.text == PROGRAM.replace("smaller", "*much* smaller")
        await slack.until(lambda: "program.md is now" in texts(slack.messages("C1")))


async def test_of_two_who_edit_the_program_the_second_is_shown_what_the_first_did(home: Home) -> None:
    append(home, "", e.ProgramRecorded(hash=text_hash(PROGRAM), text=PROGRAM))
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        (view,) = (await slack.command("/nightshift", "program", user="U1")).views
        other = PROGRAM.replace("Be brief", "Be careful")
        edited = e.ProgramEdited(base_hash=text_hash(PROGRAM), hash=text_hash(other), text=other)
        append(home, "", edited, actor="cli:grace")
        await slack.submit(view.id, {"section-0": "# Goal\n\nMake cost zero."}, user="U1")
        await slack.submit(view.id, user="U1")
        shown = str(view.body["blocks"])
        assert "Be careful" in shown and "grace" in shown and len(logged(home, e.ProgramEdited)) == 1
        await slack.click_view(view.id, "edit_program", user="U1")
        await slack.until(lambda: "Open a fresh form" not in str(view.body["blocks"]))
        assert "Be careful" in str(view.body["blocks"])
        await slack.submit(view.id, {"section-0": "# Goal\n\nMake cost zero."}, user="U1")
        await slack.submit(view.id, user="U1")
        assert len(logged(home, e.ProgramEdited)) == 2


async def test_who_may_only_look_reads_the_program(home: Home) -> None:
    append(home, "", e.ProgramRecorded(hash=text_hash(PROGRAM), text=PROGRAM))
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        (view,) = (await slack.command("/nightshift", "program", user="U3")).views
        assert "Make cost smaller" in str(view.body["blocks"]) and "submit" not in view.body


# ---------------------------------------------------------------- Home, digest


async def test_the_home_tab_shows_what_is_and_changes_with_it(home: Home) -> None:
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        seen = await slack.open_home("U1")
        assert seen.home is not None and "no run yet" in str(seen.home.body)
        await slack.command("/nightshift", "start nov21", user="U1")
        await slack.until(lambda: "nov21" in str(slack.home("U1")))


async def test_a_button_of_the_home_tab_answers_in_a_form(home: Home) -> None:
    append(home, "nov21", *started())
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        seen = await slack.open_home("U2")
        assert seen.home is not None
        clicked = await slack.click_view(seen.home.id, "pause", user="U2")
        await slack.until(lambda: clicked.views)
        assert "nov21 is to pause" in str(clicked.views[0].body)
        assert len(logged(home, e.RunPauseRequested)) == 1


async def test_a_digest_can_be_asked_for_and_its_hour_set(home: Home) -> None:
    append(home, "nov21", *started(), *kept(0, 3.0, "a"), *kept(1, 2.0, "b", "a"))
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        seen = await slack.command("/nightshift", "digest at 07:30", user="U1")
        await slack.until(lambda: "07:30 Europe/Berlin" in texts(seen.posts))
        hour = await slack.command("/nightshift", "digest", user="U3")
        assert "07:30" in texts(hour.ephemerals)
        await slack.command("/nightshift", "digest now", user="U2")
        await slack.until(lambda: "Nightshift digest" in texts(slack.messages("C1")))
        (digest,) = (post for post in slack.messages("C1") if "Nightshift digest" in post.text)
        (picture,) = slack.pictures(digest)
        assert picture.data.startswith(b"\x89PNG") and "Staircase" in picture.alt_text


# ---------------------------------------------------------------- the connection


async def test_slack_may_be_away_when_the_bot_starts(home: Home) -> None:
    async with slack_at_work() as slack:
        await slack.go_down()
        made = around(home, slack)
        from bot.app import serve

        bot = asyncio.create_task(serve(made))
        await asyncio.sleep(0.2)
        assert not bot.done()
        await slack.come_up()
        await slack.connected()
        seen = await slack.command("/nightshift", "status", user="U1")
        assert seen.acked
        made.stop.set()
        await bot


async def test_an_answer_on_its_way_arrives_before_the_bot_ends(home: Home) -> None:
    async with slack_at_work() as slack:
        async with serving(around(home, slack), slack):
            await slack.command("/nightshift", "whoami", user="U3")
            slack.fail("response_url", Slow(0.5))
            seen = await slack.command("/nightshift", "help", user="U3", wait_s=0)
            slack.fail("views.open", Slow(0.5))
            form = await slack.command("/nightshift", "start", user="U1", wait_s=0)
        assert "understands" in texts(seen.ephemerals) and form.views


@pytest.mark.parametrize("method", ["auth.test", "apps.connections.open"])
async def test_a_token_that_slack_does_not_take_ends_the_bot_with_the_remedy(home: Home, method: str) -> None:
    from bot.app import serve

    async with slack_at_work() as slack:
        slack.fail(method, Error("invalid_auth"))
        with pytest.raises(SignInRefused, match=r"invalid_auth.*copy the token again") as caught:
            await serve(around(home, slack))
        assert slack.bot_token not in str(caught.value) and slack.app_token not in str(caught.value)


async def test_a_connection_that_is_deaf_is_made_anew(home: Home) -> None:
    async with slack_at_work(ping_every_s=0.2) as slack, serving(around(home, slack, ping_every_s=0.2), slack):
        slack.half_open()
        await slack.until(lambda: any(not socket.deaf for socket in slack.hub.sockets))
        assert (await slack.command("/nightshift", "status", user="U1")).acked


async def test_commands_over_a_refresh_are_acked(home: Home) -> None:
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        await slack.disconnect("refresh_requested", close_after_s=0.5)
        await slack.until(lambda: any(not socket.leaving for socket in slack.hub.sockets))
        seen = await asyncio.gather(*(slack.command("/nightshift", "status", user="U1") for _ in range(5)))
        assert all(one.acked for one in seen)


async def test_no_token_is_in_the_log(home: Home) -> None:
    append(home, "nov21", *started())
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        slack.fail("chat.postMessage", Error("not_in_channel"))
        await slack.command("/nightshift", f"idea {slack.bot_token[:8]}", user="U1")
        await slack.until(lambda: len(logged(home)) > 3)
        raw = b"".join(path.read_bytes() for path in home.state.glob("events.db*"))
        assert slack.bot_token.encode() not in raw and slack.app_token.encode() not in raw
