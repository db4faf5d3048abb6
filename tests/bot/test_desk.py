"""What is answered to whom, and where everyone sees it: the whole bot over real sockets."""

from __future__ import annotations

import functools
from pathlib import Path

import msgspec
import pytest

from bot import values
from bot.sandbox.model import ShownView
from eventstore import events as e
from eventstore import settings as st
from eventstore.home import Home
from eventstore.requests import text_hash
from tests.bot.serving import append, around, held, logged, serving, started, workspace
from tests.bot.test_app import PROGRAM, kept, slack_at_work, texts


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return workspace(tmp_path)


def actions(blocks: object) -> set[str]:
    """The buttons of some blocks, by their action_id."""
    if isinstance(blocks, dict):
        mine = {blocks["action_id"]} if blocks.get("type") == "button" else set()
        return mine.union(*map(actions, blocks.values()))
    return set().union(*map(actions, blocks)) if isinstance(blocks, list | tuple) else set()


def filled_in(view: ShownView) -> dict[str, str]:
    """What the inputs of a modal begin with."""
    inputs = [block for block in view.body["blocks"] if block["type"] == "input"]
    return {block["block_id"]: block["element"].get("initial_value", "") for block in inputs}


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize(("user", "may"), [("U1", True), ("U2", True), ("U3", False)])
async def test_who_may_only_look_sees_no_buttons_of_those_who_may_act(home: Home, user: str, may: bool) -> None:
    append(home, "nov21", *started(), *kept(0, 3.0, "a"), *kept(1, 2.0, "b", "a"))
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        await slack.until(lambda: slack.messages("C1"))
        for text, buttons in (("status", {"pause", "stop"}), ("experiment 1", {"veto"})):
            seen = await slack.command("/nightshift", text, user=user)
            await slack.until(functools.partial(getattr, seen, "ephemerals"))
            assert actions(seen.ephemerals[0].blocks) == (buttons if may else set())


@pytest.mark.parametrize(("user", "says"), [("U4", "guests"), ("U5", "other workspaces")])
async def test_a_mistyped_command_of_someone_who_may_nothing_is_denied_and_an_event(
    home: Home, user: str, says: str
) -> None:
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        seen = await slack.command("/nightshift", "staus", user=user)
        await slack.until(lambda: seen.ephemerals)
        assert says in texts(seen.ephemerals) and "did you mean" not in texts(seen.ephemerals)
        (refused,) = logged(home, e.RequestRefused)
        assert isinstance(refused.data, e.RequestRefused) and refused.data.what == "something that is no command"


async def test_a_mistyped_command_that_comes_twice_is_answered_once(home: Home) -> None:
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        seen = await slack.command("/nightshift", "staus", user="U3")
        await slack.until(lambda: "did you mean" in texts(seen.ephemerals))
        assert seen.delivery is not None
        await slack.redeliver(seen.delivery)
        assert (await slack.command("/nightshift", "whoami", user="U3")).acked
        assert len(seen.ephemerals) == 1 and not logged(home, e.RequestRefused)


async def test_the_form_keeps_what_was_typed_before_it(home: Home) -> None:
    append(home, "nov21", *started())
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        await slack.until(lambda: slack.messages("C1"))
        (view,) = (await slack.command("/nightshift", "start --usd 7.5 --until 8:00 --from a/b", user="U1")).views
        found = filled_in(view)
        assert found.pop("tag") not in ("", "nov21")
        assert found == {"until": "08:00", "usd": "7.50", "experiments": "", "from_ref": "a/b"}


async def test_the_form_offers_the_limits_of_the_settings(home: Home) -> None:
    def limited(settings: st.Settings) -> st.Settings:
        return msgspec.structs.replace(settings, limits=st.RunLimits(experiments=100, until="08:00", usd=20.0))

    async with slack_at_work() as slack, serving(around(home, slack, change=limited), slack):
        (view,) = (await slack.command("/nightshift", "start --experiments 5", user="U1")).views
        found = filled_in(view)
        assert found.pop("tag")
        assert found == {"until": "08:00", "usd": "20.00", "experiments": "5", "from_ref": "HEAD"}


async def test_the_last_digest_can_be_opened_from_where_it_is_spoken_of(home: Home) -> None:
    append(home, "nov21", *started(), *kept(0, 3.0, "a"), *kept(1, 2.0, "b", "a"))
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        await slack.command("/nightshift", "digest at 08:00", user="U1")
        await slack.command("/nightshift", "digest now", user="U2")
        await slack.until(lambda: any(e.PostMade is type(event.data) and "digest/" in event.data.key
                                      for event in logged(home, e.PostMade)))  # fmt: skip
        (digest,) = (post for post in slack.messages("C1") if "Nightshift digest" in post.text)
        link = f"/archives/C1/p{digest.ts.replace('.', '')}|"
        hour = await slack.command("/nightshift", "digest", user="U3")
        await slack.until(lambda: link in texts(hour.ephemerals))
        shown = await slack.open_home("U3")
        await slack.until(lambda: shown.home is not None and link in str(shown.home.body))


async def test_a_digest_that_was_asked_for_is_an_event_and_comes_once_over_a_restart(home: Home) -> None:
    append(home, "nov21", *started(), *kept(0, 3.0, "a"))
    async with slack_at_work() as slack:

        def digests() -> int:
            return sum("Nightshift digest" in post.text for post in slack.messages("C1"))

        async with serving(around(home, slack), slack):
            seen = await slack.command("/nightshift", "digest now", user="U2")
            await slack.until(lambda: "on its way" in texts(seen.ephemerals) and digests())
        assert "No loop" not in texts(seen.ephemerals), "it takes none"
        (asked,) = logged(home, e.DigestRequested)
        assert asked.actor == "slack:T1/U2" and seen.delivery is not None
        async with serving(around(home, slack), slack):
            await slack.redeliver(seen.delivery)
            again = await slack.command("/nightshift", "digest now", user="U1")
            await slack.until(lambda: again.acked and digests() == 2)
        assert [event.actor for event in logged(home, e.DigestRequested)] == ["slack:T1/U2", "slack:T1/U1"]


async def test_a_digest_that_the_bot_could_not_post_any_more_is_posted_by_the_next(home: Home) -> None:
    append(home, "nov21", *started(), *kept(0, 3.0, "a"))
    append(home, "", e.DigestRequested(channel="C1"), actor="slack:T1/U2")
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        await slack.until(lambda: "Nightshift digest" in texts(slack.messages("C1")))


# ---------------------------------------------------------------- where everyone sees it


async def test_an_edit_of_the_program_is_posted_with_its_diff_and_author(home: Home) -> None:
    append(home, "", e.ProgramRecorded(hash=text_hash(PROGRAM), text=PROGRAM))
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        (view,) = (await slack.command("/nightshift", "program", user="U1")).views
        await slack.submit(view.id, {"section-0": "# Goal\n\nMake cost ``` <!channel> smaller."}, user="U1")
        await slack.submit(view.id, user="U1")
        await slack.until(lambda: "program.md is now" in texts(slack.messages("C1")))
        (post,) = slack.messages("C1")
        assert "<@U1>" in post.blocks[0]["text"]["text"]
        assert "+Make cost ``` <!channel> smaller." in str(post.blocks) and "-Make cost smaller." in str(post.blocks)
        assert {ping.who for ping in slack.pings} <= {"U1"}


async def test_what_is_asked_for_in_the_home_tab_is_told_in_the_channel_of_the_runs(home: Home) -> None:
    append(home, "nov21", *started())
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        await slack.open_home("U2")
        await slack.until(lambda: slack.home("U2") is not None)
        shown = slack.home("U2")
        assert shown is not None
        await slack.click_view(shown.id, "pause", user="U2")
        await slack.until(lambda: "nov21 is to pause" in texts(slack.messages("C1")))
        (post,) = (post for post in slack.messages("C1") if "is to pause" in post.text)
        assert "<@U2>" in post.blocks[0]["text"]["text"]


async def test_a_slow_log_is_told_in_the_home_tab_too(home: Home) -> None:
    append(home, "nov21", *started())
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        await slack.command("/nightshift", "whoami", user="U2")
        await slack.open_home("U2")
        await slack.until(lambda: slack.home("U2") is not None)
        shown = slack.home("U2")
        assert shown is not None
        async with held(home, 1.6):
            clicked = await slack.click_view(shown.id, "pause", user="U2", wait_s=0)
            await slack.until(lambda: clicked.views)
            assert "Not recorded yet" in str(clicked.views[0].body)
        await slack.until(lambda: "nov21 is to pause" in str(clicked.views[0].body))
        await slack.until(lambda: "nov21 is to pause" in texts(slack.messages("C1")))
        assert len(logged(home, e.RunPauseRequested)) == 1


@pytest.mark.parametrize(("tag", "says"), [("nov22", "Asked for the run nov22"), ("nov21", "exists")])
async def test_a_form_that_was_closed_while_the_log_was_slow_is_answered_in_the_channel(
    home: Home, tag: str, says: str
) -> None:
    append(home, "nov21", *started())
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        await slack.until(lambda: slack.messages("C1"))
        (view,) = (await slack.command("/nightshift", "start", user="U1")).views
        async with held(home, 1.6):
            sent = await slack.submit(view.id, {"tag": tag}, user="U1", wait_s=0)
            await slack.until(lambda: "Not recorded yet" in str(view.body))
            await slack.close_view(view.id, user="U1")
        await slack.until(lambda: says in texts((*slack.messages("C1"), *slack.ephemerals("U1", "C1"))))
        assert not sent.trouble


# ---------------------------------------------------------------- buttons live for ever


async def test_a_button_from_a_log_that_is_gone_does_nothing(home: Home) -> None:
    append(home, "nov21", *started(), *kept(0, 3.0, "a"))
    async with slack_at_work() as slack, serving(around(home, slack), slack):
        shown = await slack.command("/nightshift", "status", user="U2")
        await slack.until(lambda: shown.ephemerals)
        for block in shown.ephemerals[0].blocks:
            for element in block.get("elements", ()) if block["type"] == "actions" else ():
                button = values.from_value(element["value"])
                assert button is not None
                element["value"] = values.to_value(values.Button(button.run, None, 10_000))
        seen = await slack.click(shown.ephemerals[0].ts, "stop", user="U2")
        await slack.until(lambda: "of a log that is gone" in texts(seen.ephemerals))
        assert not logged(home, e.RunStopRequested)
