"""The door out, with the real slack-sdk against the loopback Slack: each way in which sending can go wrong."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bot.message import PICTURE, Message, Picture
from bot.notifier import Done, Lost, Made, Notifier, NotNow, Refused
from bot.sandbox.clock import ManualClock
from bot.sandbox.faults import DropAfter, DropBefore, Error, Html503, Limited, Slow
from bot.sandbox.methods import SCOPES
from bot.sandbox.server import Sandbox
from tests.bot.outgoing import ALL, FILES, Door, clock_of, shown, texts
from tests.bot.sandboxed import PNG, modal, section

HELLO = Message("hello", (section("hello"),))
STAIRS = Message(
    "a digest",
    (section("a digest"), {"type": "image", "slack_file": PICTURE, "alt_text": "0.99 went down to 0.91"}),
    Picture(PNG, "stairs.png", "0.99 went down to 0.91"),
)
CHART = {"type": "section", "text": {"type": "mrkdwn", "text": "the chart"}}


@pytest.fixture
async def slack() -> AsyncIterator[Sandbox]:
    async with Sandbox(clock=ManualClock(), scopes=ALL) as running:
        yield running


@pytest.fixture
def door(slack: Sandbox) -> Door:
    return Door(slack)


@contextlib.asynccontextmanager
async def without_history() -> AsyncIterator[Sandbox]:
    async with Sandbox(clock=ManualClock(), scopes=SCOPES | FILES) as slack:
        yield slack


async def post(door: Door | Notifier, message: Message = HELLO, channel: str = "C1", **more: Any) -> Any:
    notifier = door if isinstance(door, Notifier) else door.open()
    since_s = notifier._clock()
    return await notifier.post(channel, message, **{"key": "k", "since_s": since_s} | more)


def methods(slack: Sandbox) -> list[str]:
    return [call.method for call in slack.calls]


class TestAPost:
    async def test_it_carries_its_key_and_unfurls_nothing(self, slack: Sandbox, door: Door) -> None:
        made = await post(door)
        (posted,) = slack.messages("C1")
        assert made == Made(posted.ts)
        assert posted.metadata == {"event_type": "nightshift_post", "event_payload": {"key": "k"}}
        assert slack.calls[0].args["unfurl_links"] in ("0", "false", False, 0)
        assert door.wells == ["C1"]

    async def test_a_reply_goes_below_its_parent(self, slack: Sandbox, door: Door) -> None:
        parent = await post(door)
        await post(door, thread_ts=parent.ts)
        assert [reply.text for reply in slack.thread("C1", parent.ts)] == ["hello"]

    async def test_a_payload_that_slack_does_not_take_never_leaves(self, slack: Sandbox, door: Door) -> None:
        came = await post(door, Message("x", (section("y" * 3_001),)))
        assert isinstance(came, Refused)
        assert "/blocks/0/text" in came.why
        assert slack.calls == []

    async def test_posts_to_one_channel_keep_to_one_a_second(self, slack: Sandbox, door: Door) -> None:
        notifier, began = door.open(), clock_of(slack).now()
        for number in range(5):
            await post(notifier, key=str(number))
        assert clock_of(slack).now() - began >= 4
        assert slack.early_retries == 0
        assert [call.error for call in slack.calls] == [None] * 5

    async def test_an_error_that_nobody_knows_is_given_up(self, door: Door) -> None:
        door.slack.fail("chat.postMessage", Error("metadata_too_large"))
        came = await post(door)
        assert came == Refused("Slack refuses it: metadata_too_large")

    async def test_a_fault_of_our_own_is_no_exception(self, door: Door) -> None:
        came = await post(door, Message("x", (section("y"),)), channel=None)  # type: ignore[arg-type]
        assert isinstance(came, Refused)


class TestTooOften:
    async def test_the_wait_that_slack_asks_for_is_kept(self, slack: Sandbox, door: Door) -> None:
        slack.fail("chat.postMessage", Limited(30))
        began = clock_of(slack).now()
        assert isinstance(await post(door), Made)
        assert clock_of(slack).now() - began >= 30
        assert slack.early_retries == 0
        assert door.troubles == []

    async def test_it_holds_up_that_channel_alone(self, slack: Sandbox, door: Door) -> None:
        slack.space.channels["C2"].members.add("U0BOT")
        notifier = door.open()
        slack.fail("chat.postMessage", Limited(30))
        with contextlib.suppress(TimeoutError):  # a clock that stands still
            notifier._sleep = lambda _seconds: asyncio.Event().wait()  # type: ignore[assignment]
            await asyncio.wait_for(post(notifier), 0.2)
        await asyncio.wait_for(post(notifier, channel="C2"), 1)
        assert texts(slack, "C2") == ["hello"]

    async def test_edits_that_come_too_often_wait(self, slack: Sandbox, door: Door) -> None:
        notifier = door.open()
        made = await post(notifier)
        for number in range(60):
            assert isinstance(await notifier.edit("C1", made.ts, Message(f"state {number}"), key="k"), Made)
        assert slack.early_retries == 0
        assert texts(slack) == ["state 59"]


class TestUnclear:
    @pytest.mark.parametrize("fault", [DropAfter(), DropBefore(), Html503(), Error("internal_error"), Slow(1.5)])
    async def test_a_post_that_may_have_arrived_is_looked_for(self, slack: Sandbox, door: Door, fault: Any) -> None:
        slack.fail("chat.postMessage", fault)
        made = await post(door.open(timeout_s=1))
        assert texts(slack) == ["hello"]
        assert made == Made(slack.messages("C1")[0].ts)
        assert "conversations.history" in methods(slack)

    async def test_a_reply_is_looked_for_in_its_thread(self, slack: Sandbox, door: Door) -> None:
        notifier = door.open()
        parent = await post(notifier)
        slack.fail("chat.postMessage", DropAfter())
        await post(notifier, key="reply", thread_ts=parent.ts)
        assert len(slack.thread("C1", parent.ts)) == 1
        assert methods(slack)[-1] == "conversations.replies"

    async def test_without_the_scope_it_is_posted_again_and_says_so(self) -> None:
        async with without_history() as slack:
            slack.fail("chat.postMessage", DropAfter())
            await post(Door(slack))
            first, second = slack.messages("C1")
            assert "may repeat" not in shown(first.blocks)
            assert "may repeat" in shown(second.blocks)

    async def test_a_mark_that_does_not_fit_takes_the_place_of_the_last_block(self) -> None:
        async with without_history() as slack:
            full = Message("full", tuple(section(str(number)) for number in range(50)))
            slack.fail("chat.postMessage", DropBefore())
            await post(Door(slack), full)
            (posted,) = slack.messages("C1")
            assert len(posted.blocks) == 50
            assert "may repeat" in shown(posted.blocks)

    async def test_looking_goes_on_over_pages_and_faults(self, slack: Sandbox, door: Door) -> None:
        notifier = door.open()
        since_s = clock_of(slack).now()
        slack.fail("chat.postMessage", DropAfter())
        slack.fail("conversations.history", Html503(), times=2)
        slack.fail("conversations.history", Limited(30))
        made = await post(notifier, since_s=since_s)
        assert len(texts(slack)) == 1
        assert isinstance(made, Made)
        for number in range(250):
            slack.post_as(f"chatter {number}", user="U1")
        assert await post(notifier, since_s=since_s, is_again=True) == made
        assert texts(slack).count("hello") == 1

    async def test_what_an_earlier_life_left_is_not_posted_twice(self, slack: Sandbox, door: Door) -> None:
        made = await post(door)
        clock_of(slack).advance(3_600)
        assert await post(door, since_s=clock_of(slack).now() - 3_600, is_again=True) == made
        assert texts(slack) == ["hello"]

    async def test_what_an_earlier_life_did_not_post_is_posted_without_a_mark(self, slack: Sandbox, door: Door) -> None:
        await post(door, is_again=True)
        (posted,) = slack.messages("C1")
        assert "may repeat" not in shown(posted.blocks)


class TestAway:
    async def test_while_slack_is_down_a_post_waits_and_says_so(self, slack: Sandbox, door: Door) -> None:
        await slack.go_down()
        sending = asyncio.create_task(post(door))
        await asyncio.wait_for(door.told.wait(), 5)
        await slack.come_up()
        assert isinstance(await asyncio.wait_for(sending, 5), Made)
        assert texts(slack) == ["hello"]
        assert "cannot be reached" in door.troubles[0][1]
        assert door.wells == ["C1"]

    async def test_a_connection_that_was_never_made_needs_no_look(self, slack: Sandbox, door: Door) -> None:
        await slack.go_down()
        sending = asyncio.create_task(post(door))
        await asyncio.sleep(0.1)
        await slack.come_up()
        await asyncio.wait_for(sending, 5)
        assert set(methods(slack)) == {"chat.postMessage"}

    async def test_pauses_grow_to_a_minute(self, slack: Sandbox, door: Door) -> None:
        slack.fail("chat.postMessage", DropBefore(), times=9)
        await post(door)
        pauses = [seconds for seconds in door.slept_s if seconds >= 1]
        assert pauses[:4] == [1, 2, 4, 8]
        assert max(pauses) == 60

    @pytest.mark.parametrize(
        ("channel", "words"), [("C2", "invite it there"), ("C3", "is archived"), ("C999", "cannot see")]
    )
    async def test_a_channel_that_is_closed_is_told_at_once(self, door: Door, channel: str, words: str) -> None:
        sending = asyncio.create_task(post(door, channel=channel))
        await asyncio.wait_for(door.told.wait(), 5)
        sending.cancel()
        assert words in door.troubles[0][1]
        assert channel in door.troubles[0][1]

    async def test_an_invitation_is_enough(self, slack: Sandbox, door: Door) -> None:
        sending = asyncio.create_task(post(door, channel="C2"))
        await asyncio.wait_for(door.told.wait(), 5)
        slack.space.channels["C2"].members.add("U0BOT")
        assert isinstance(await asyncio.wait_for(sending, 5), Made)

    async def test_a_token_that_is_not_taken_is_named_but_not_shown(self, slack: Sandbox, door: Door) -> None:
        slack.inactive = True
        sending = asyncio.create_task(post(door))
        await asyncio.wait_for(door.told.wait(), 5)
        sending.cancel()
        assert "SLACK_BOT_TOKEN" in door.troubles[0][1]
        assert slack.bot_token not in str(door.troubles)


class TestPictures:
    async def test_it_stands_in_the_message_with_its_words(self, slack: Sandbox, door: Door) -> None:
        made = await post(door, STAIRS)
        (posted,) = slack.messages("C1")
        (file,) = slack.pictures(posted)
        assert (file.data, file.alt_text) == (PNG, "0.99 went down to 0.91")
        assert made.left_out is None

    async def test_it_is_waited_for_a_little(self) -> None:
        async with Sandbox(clock=ManualClock(), scopes=ALL, file_delay_s=2) as slack:
            assert (await post(Door(slack), STAIRS)).left_out is None

    async def test_a_text_does_not_wait_for_a_slow_picture(self) -> None:
        async with Sandbox(clock=ManualClock(), scopes=ALL, file_delay_s=600) as slack:
            began = clock_of(slack).now()
            made = await post(Door(slack), STAIRS)
            assert clock_of(slack).now() - began < 20
            assert made.left_out == STAIRS.picture
            (posted,) = slack.messages("C1")
            assert [block["type"] for block in posted.blocks] == ["section"]

    @pytest.mark.parametrize("fault", [Html503(), DropAfter(), Error("internal_error"), Limited(30)])
    @pytest.mark.parametrize("step", ["files.getUploadURLExternal", "upload", "files.completeUploadExternal"])
    async def test_a_text_does_not_wait_for_an_upload_that_fails(
        self, slack: Sandbox, door: Door, step: str, fault: Any
    ) -> None:
        slack.fail(step, fault)
        made = await post(door, STAIRS)
        assert made.left_out == STAIRS.picture
        assert texts(slack) == ["a digest"]

    async def test_a_picture_that_was_left_out_goes_into_the_thread(self, slack: Sandbox, door: Door) -> None:
        notifier = door.open()
        slack.fail("upload", Html503())
        made = await post(notifier, STAIRS)
        came = await notifier.share("C1", "stairs.png", PNG, thread_ts=made.ts, alt_text="down")
        assert isinstance(came, Done)
        (reply,) = slack.thread("C1", made.ts)
        assert [file.name for file in reply.files] == ["stairs.png"]

    async def test_one_that_slack_refuses_in_the_message_is_left_out(self, slack: Sandbox, door: Door) -> None:
        slack.fail("chat.postMessage", Error("invalid_blocks"))
        made = await post(door, STAIRS)
        assert made.left_out == STAIRS.picture
        assert texts(slack) == ["a digest"]

    async def test_without_the_scope_to_look_the_text_goes_out_alone(self) -> None:
        async with Sandbox(clock=ManualClock(), scopes=SCOPES) as slack:
            assert (await post(Door(slack), STAIRS)).left_out == STAIRS.picture

    async def test_a_picture_that_stands_is_not_shared_again(self, slack: Sandbox, door: Door) -> None:
        slack.fail("chat.postMessage", DropAfter())
        assert (await post(door, STAIRS)).left_out is None


class TestExtras:
    async def test_they_are_part_of_the_message(self, slack: Sandbox, door: Door) -> None:
        await post(door, Message("x", (section("x"),), extra=(CHART,)))
        assert "the chart" in shown(slack.messages("C1")[0].blocks)

    async def test_where_slack_does_not_take_them_they_are_left_out(self, slack: Sandbox, door: Door) -> None:
        slack.fail("chat.postMessage", Error("invalid_blocks"))
        await post(door, Message("x", (section("x"),), extra=(CHART,)))
        assert "the chart" not in shown(slack.messages("C1")[0].blocks)

    async def test_bad_ones_never_leave(self, slack: Sandbox, door: Door) -> None:
        await post(door, Message("x", (section("x"),), extra=({"type": "hologram"},)))
        assert [call.error for call in slack.calls] == [None]

    async def test_blocks_that_slack_does_not_take_at_all_are_given_up(self, slack: Sandbox, door: Door) -> None:
        slack.fail("chat.postMessage", Error("invalid_blocks"), times=2)
        came = await post(door, Message("x", (section("x"),), extra=(CHART,)))
        assert came == Refused("Slack refuses it: invalid_blocks")


class TestEdits:
    async def test_a_message_says_something_else_and_keeps_its_key(self, slack: Sandbox, door: Door) -> None:
        notifier = door.open()
        made = await post(notifier)
        assert await notifier.edit("C1", made.ts, Message("new", (section("new"),)), key="k") == made
        (posted,) = slack.messages("C1")
        assert posted.text == shown(posted.blocks).strip() == "new"
        assert posted.metadata is not None

    async def test_a_message_that_was_deleted_is_lost(self, slack: Sandbox, door: Door) -> None:
        assert isinstance(await door.open().edit("C1", "1.000001", HELLO, key="k"), Lost)

    async def test_a_text_that_is_too_long_for_an_edit_never_leaves(self, slack: Sandbox, door: Door) -> None:
        came = await door.open().edit("C1", "1.000001", Message("x" * 4_001), key="k")
        assert isinstance(came, Refused)
        assert slack.calls == []

    async def test_an_edit_that_fails_is_not_tried_again(self, slack: Sandbox, door: Door) -> None:
        notifier = door.open()
        made = await post(notifier)
        slack.fail("chat.update", Html503())
        assert isinstance(await notifier.edit("C1", made.ts, HELLO, key="k"), NotNow)
        assert methods(slack).count("chat.update") == 1


class TestAnswers:
    async def test_only_one_person_sees_an_ephemeral(self, slack: Sandbox, door: Door) -> None:
        assert isinstance(await door.open().ephemeral("C1", "U1", HELLO), Done)
        assert [each.text for each in slack.ephemerals("U1")] == ["hello"]
        assert texts(slack) == []

    @pytest.mark.parametrize("fault", [Html503(), DropBefore(), Error("user_not_in_channel")])
    async def test_one_that_fails_is_told_to_the_caller(self, slack: Sandbox, door: Door, fault: Any) -> None:
        slack.fail("chat.postEphemeral", fault)
        assert isinstance(await door.open().ephemeral("C1", "U1", HELLO), NotNow)

    async def test_views_that_slack_does_not_take_never_leave(self, slack: Sandbox, door: Door) -> None:
        came = await door.open().open_view("1.2", modal(title={"type": "plain_text", "text": "x" * 25}))
        assert isinstance(came, NotNow)
        assert "/title" in came.why
        assert slack.calls == []

    async def test_a_home_is_published_and_a_stale_hash_is_told(self, slack: Sandbox, door: Door) -> None:
        notifier = door.open()
        view = {"type": "home", "blocks": [section("hi")]}
        assert isinstance(await notifier.publish_home("U1", view), Done)
        assert slack.home("U1") is not None
        came = await notifier.publish_home("U1", view, "1.of-long-ago")
        assert isinstance(came, NotNow)
        assert "hash_conflict" in came.why

    async def test_an_expired_trigger_is_told(self, door: Door) -> None:
        came = await door.open().open_view("1.2", modal())
        assert isinstance(came, NotNow)
        assert "trigger" in came.why

    async def test_a_response_url_answers_the_person_alone_or_the_channel(self, slack: Sandbox, door: Door) -> None:
        url = f"{slack.address}/respond/{slack.space.answer_url('U1', 'C1').id}"
        notifier = door.open()
        assert isinstance(await notifier.respond(url, HELLO), Done)
        assert isinstance(await notifier.respond(url, Message("all", (section("all"),)), in_channel=True), Done)
        assert [each.text for each in slack.ephemerals("U1")] == ["hello"]
        assert texts(slack) == ["all"]

    async def test_a_response_url_that_is_used_up_is_told(self, slack: Sandbox, door: Door) -> None:
        came = await door.open().respond(f"{slack.address}/respond/nothing", HELLO)
        assert isinstance(came, NotNow)
