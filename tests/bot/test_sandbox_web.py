"""The loopback Slack refuses over HTTP what Slack refuses: for each rule a bad call by the real SDK."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import pytest
from slack_sdk import WebClient
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.webhook.async_client import AsyncWebhookClient

from bot.sandbox.clock import ManualClock
from bot.sandbox.faults import DropAfter, DropBefore, Error, Html503, Limited, Slow
from bot.sandbox.loopback import Moment
from bot.sandbox.methods import HISTORY, METHODS, SCOPES
from bot.sandbox.model import Channel
from bot.sandbox.server import Sandbox
from tests.bot.sandboxed import PNG, button, buttons, client, error_of, field, home, modal, refused, section


@pytest.fixture
async def slack() -> AsyncIterator[Sandbox]:
    async with Sandbox(clock=ManualClock(), scopes=SCOPES | {"files:read", "channels:read"} | HISTORY) as running:
        yield running


@pytest.fixture
def web(slack: Sandbox) -> AsyncWebClient:
    return client(slack)


async def post(web: AsyncWebClient, text: str = "hello", channel: str = "C1", **more: Any) -> str:
    return (await web.chat_postMessage(channel=channel, text=text, **more))["ts"]


def clock_of(slack: Sandbox) -> ManualClock:
    assert isinstance(slack.clock, ManualClock)
    return slack.clock


class TestTokens:
    async def test_a_call_without_a_token_is_not_authed(self, slack: Sandbox) -> None:
        assert await error_of(client(slack, "").auth_test()) == "not_authed"

    @pytest.mark.parametrize("token", ["xoxb-of-somebody-else", "hello"])
    async def test_an_unknown_token_is_invalid(self, slack: Sandbox, token: str) -> None:
        assert await error_of(client(slack, token).auth_test()) == "invalid_auth"

    async def test_an_app_token_does_not_post(self, slack: Sandbox) -> None:
        call = client(slack, slack.app_token).chat_postMessage(channel="C1", text="hello")
        assert await error_of(call) == "not_allowed_token_type"

    async def test_a_bot_token_does_not_open_a_connection(self, slack: Sandbox, web: AsyncWebClient) -> None:
        assert await error_of(web.apps_connections_open(app_token=slack.bot_token)) == "not_allowed_token_type"

    async def test_a_missing_scope_is_named_with_those_that_are_there(self) -> None:
        async with Sandbox(clock=ManualClock()) as slack:
            error = await refused(client(slack).conversations_history(channel="C1"))
            assert error.response["error"] == "missing_scope"
            assert error.response["needed"] == "channels:history"
            assert error.response["provided"] == "chat:write,commands,files:write,users:read"

    async def test_a_private_channel_needs_the_scope_of_groups(self) -> None:
        private = Channel("G1", "lab", {"U1", "U0BOT"}, is_private=True)
        async with Sandbox(clock=ManualClock(), channels=[private], scopes={"channels:read"}) as slack:
            assert (await refused(client(slack).conversations_info(channel="G1"))).response["needed"] == "groups:read"

    async def test_polling_for_a_picture_needs_files_read(self) -> None:
        async with Sandbox(clock=ManualClock()) as slack:
            assert (await refused(client(slack).files_info(file="F1"))).response["needed"] == "files:read"

    async def test_a_deactivated_account_is_told_so(self, slack: Sandbox, web: AsyncWebClient) -> None:
        slack.inactive = True
        assert await error_of(web.auth_test()) == "account_inactive"

    async def test_tokens_are_not_in_the_record(self, slack: Sandbox, web: AsyncWebClient) -> None:
        await web.apps_connections_open(app_token=slack.app_token)
        await post(web)
        assert "xoxb-" not in repr(slack.calls) and "xapp-" not in repr(slack.calls)

    async def test_an_unknown_method_is_refused(self, web: AsyncWebClient) -> None:
        assert await error_of(web.api_call("chat.postMassage")) == "unknown_method"

    async def test_a_missing_argument_is_named(self, web: AsyncWebClient) -> None:
        error = await refused(web.api_call("chat.update", json={"channel": "C1", "text": "x"}))
        assert error.response["response_metadata"]["messages"] == ["[ERROR] missing required field: ts"]

    @pytest.mark.parametrize(("body", "error"), [("{", "invalid_json"), ("[]", "json_not_object")])
    async def test_a_body_that_is_no_json_object_is_refused(self, slack: Sandbox, body: str, error: str) -> None:
        headers = {"Authorization": f"Bearer {slack.bot_token}", "Content-Type": "application/json"}
        url = f"{slack.base_url}chat.postMessage"
        async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as answer:
            assert (await answer.json())["error"] == error

    def test_every_method_that_needs_a_scope_says_which(self) -> None:
        free = {name for name, method in METHODS.items() if not method.scope}
        views = {"views.open", "views.push", "views.update", "views.publish"}
        assert free == {"auth.test", "blocks.validate", "chat.getPermalink"} | views


class TestLimits:
    async def test_bad_blocks_are_pointed_at(self, web: AsyncWebClient) -> None:
        blocks = [section(), section("x" * 3_001)]
        error = await refused(web.chat_postMessage(channel="C1", text="t", blocks=blocks))
        assert error.response["error"] == "invalid_blocks"
        assert error.response["response_metadata"]["messages"] == [
            "[ERROR] must be at most 3000 characters, is 3001 [json-pointer:/blocks/1/text/text]"
        ]

    @pytest.mark.parametrize(
        ("message", "error"),
        [
            ({"text": "t", "blocks": [{"type": "carousel"}]}, "invalid_blocks"),
            ({"text": "t", "blocks": [section()] * 51}, "invalid_blocks"),
            ({"text": "t", "blocks": [section("x" * 2_999)] * 5}, "msg_blocks_too_long"),
            ({"text": "x" * 40_001}, "msg_too_long"),
            ({"text": " "}, "no_text"),
            ({"text": "t", "attachments": [{"text": "a"}] * 101}, "invalid_blocks"),
        ],
    )
    async def test_a_message_beyond_the_limits_is_refused(
        self, slack: Sandbox, web: AsyncWebClient, message: dict[str, Any], error: str
    ) -> None:
        assert await error_of(web.api_call("chat.postMessage", json={"channel": "C1", **message})) == error
        assert not slack.messages("C1")

    async def test_an_edit_has_a_shorter_limit_than_a_post(self, web: AsyncWebClient) -> None:
        ts = await post(web, "x" * 4_001)
        assert await error_of(web.chat_update(channel="C1", ts=ts, text="x" * 4_001)) == "msg_too_long"

    async def test_an_ephemeral_message_has_the_limits_of_any_other(self, web: AsyncWebClient) -> None:
        call = web.chat_postEphemeral(channel="C1", user="U1", text="t", blocks=[section("")])
        assert await error_of(call) == "invalid_blocks"

    async def test_a_view_beyond_the_limits_is_refused(self, slack: Sandbox, web: AsyncWebClient) -> None:
        trigger = slack.space.trigger("U1")
        view = modal(title={"type": "plain_text", "text": "x" * 25})
        error = await refused(web.views_open(trigger_id=trigger, view=view))
        assert error.response["error"] == "invalid_arguments"
        assert "[json-pointer:/view/title/text]" in error.response["response_metadata"]["messages"][0]

    async def test_a_view_of_more_than_250_kb_is_too_large(self, web: AsyncWebClient) -> None:
        element = buttons(*(button(f"a{n}", value="x" * 2_000) for n in range(25)))
        call = web.views_publish(user_id="U1", view=home(*[element] * 6))
        assert await error_of(call) == "view_too_large"

    async def test_slack_itself_can_be_asked_about_blocks(self, web: AsyncWebClient) -> None:
        assert (await web.blocks_validate(blocks=[section()]))["ok"]
        assert await error_of(web.blocks_validate(view=home({"type": "carousel"}))) == "invalid_arguments"


class TestRates:
    async def test_posts_to_one_channel_come_one_per_second(self, slack: Sandbox, web: AsyncWebClient) -> None:
        await post(web)
        await post(web)
        error = await refused(web.chat_postMessage(channel="C1", text="third"))
        assert error.response.status_code == 429 and error.response["error"] == "ratelimited"
        assert error.response.headers["Retry-After"] == "1"
        clock_of(slack).advance(1)
        await post(web)
        assert not slack.early_retries

    async def test_another_channel_has_its_own_second(self, slack: Sandbox, web: AsyncWebClient) -> None:
        for _ in range(2):
            await post(web)
        await web.chat_postMessage(channel="U1", text="to Ada")
        assert len(slack.messages("DU1")) == 1

    async def test_a_retry_before_its_time_is_refused_and_counted(self, slack: Sandbox, web: AsyncWebClient) -> None:
        slack.fail("chat.postMessage", Limited(30))
        assert (await refused(web.chat_postMessage(channel="C1", text="a"))).response.headers["Retry-After"] == "30"
        clock_of(slack).advance(10)
        assert (await refused(web.chat_postMessage(channel="C1", text="a"))).response.headers["Retry-After"] == "20"
        assert slack.early_retries == 1
        clock_of(slack).advance(20)
        await post(web)

    async def test_edits_come_fifty_per_minute(self, slack: Sandbox, web: AsyncWebClient) -> None:
        ts = await post(web)
        for n in range(50):
            await web.chat_update(channel="C1", ts=ts, text=str(n))
        error = await refused(web.chat_update(channel="C1", ts=ts, text="one too many"))
        assert error.response.headers["Retry-After"] == "2"

    @pytest.mark.parametrize(("tier", "method"), [(2, "usergroups.users.list"), (4, "users.info")])
    def test_other_methods_have_their_tier(self, tier: int, method: str) -> None:
        assert METHODS[method].tier == tier


class TestTriggers:
    async def test_a_trigger_opens_one_modal(self, slack: Sandbox, web: AsyncWebClient) -> None:
        trigger = slack.space.trigger("U1")
        await web.views_open(trigger_id=trigger, view=modal())
        assert await error_of(web.views_open(trigger_id=trigger, view=modal())) == "exchanged_trigger_id"

    async def test_a_trigger_lasts_three_seconds(self, slack: Sandbox, web: AsyncWebClient) -> None:
        trigger = slack.space.trigger("U1")
        clock_of(slack).advance(3.1)
        assert await error_of(web.views_open(trigger_id=trigger, view=modal())) == "expired_trigger_id"

    async def test_a_made_up_trigger_is_invalid(self, web: AsyncWebClient) -> None:
        assert await error_of(web.views_open(trigger_id="12.34", view=modal())) == "invalid_trigger_id"

    async def test_a_refused_view_leaves_the_trigger_unused(self, slack: Sandbox, web: AsyncWebClient) -> None:
        trigger = slack.space.trigger("U1")
        assert await error_of(web.views_open(trigger_id=trigger, view=modal(section("")))) == "invalid_arguments"
        await web.views_open(trigger_id=trigger, view=modal())


class TestViews:
    async def opened(self, slack: Sandbox, web: AsyncWebClient, view: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = await web.views_open(trigger_id=slack.space.trigger("U1"), view=view or modal())
        body: dict[str, Any] = answer["view"]
        return body

    async def test_an_update_with_an_old_hash_conflicts(self, slack: Sandbox, web: AsyncWebClient) -> None:
        view = await self.opened(slack, web)
        changed = await web.views_update(view_id=view["id"], view=modal(section("two")), hash=view["hash"])
        assert changed["view"]["hash"] != view["hash"]
        call = web.views_update(view_id=view["id"], view=modal(section("three")), hash=view["hash"])
        assert await error_of(call) == "hash_conflict"

    async def test_a_home_with_an_old_hash_conflicts(self, web: AsyncWebClient) -> None:
        first = await web.views_publish(user_id="U1", view=home())
        await web.views_publish(user_id="U1", view=home(), hash=first["view"]["hash"])
        call = web.views_publish(user_id="U1", view=home(), hash=first["view"]["hash"])
        assert await error_of(call) == "hash_conflict"

    async def test_a_fourth_modal_is_one_too_many(self, slack: Sandbox, web: AsyncWebClient) -> None:
        view = await self.opened(slack, web)
        for _ in range(2):
            pushed = await web.views_push(trigger_id=slack.space.trigger("U1", view["id"]), view=modal())
            view = pushed["view"]
        assert len(slack.views("U1")) == 3
        call = web.views_push(trigger_id=slack.space.trigger("U1", view["id"]), view=modal())
        assert await error_of(call) == "push_limit_reached"

    async def test_only_what_was_done_in_a_modal_can_push_another(self, slack: Sandbox, web: AsyncWebClient) -> None:
        await self.opened(slack, web)
        call = web.views_push(trigger_id=slack.space.trigger("U1"), view=modal())
        assert await error_of(call) == "invalid_trigger_id"

    async def test_a_closed_view_is_not_found(self, slack: Sandbox, web: AsyncWebClient) -> None:
        view = await self.opened(slack, web)
        await slack.close_view(view["id"])
        assert await error_of(web.views_update(view_id=view["id"], view=modal())) == "not_found"

    async def test_an_external_id_is_unique(self, slack: Sandbox, web: AsyncWebClient) -> None:
        await self.opened(slack, web, modal(external_id="start"))
        await web.views_update(external_id="start", view=modal(section("again"), external_id="start"))
        call = web.views_publish(user_id="U2", view=home(external_id="start"))
        await call
        opened = web.views_open(trigger_id=slack.space.trigger("U2"), view=modal(external_id="start"))
        assert await error_of(opened) == "duplicate_external_id"


class TestEscapingAndPings:
    async def test_mentions_that_leave_are_recorded(self, slack: Sandbox, web: AsyncWebClient) -> None:
        rich = {"type": "rich_text_section", "elements": [{"type": "broadcast", "range": "here"}]}
        blocks = [section("hi <@U2> and <!subteam^S1>"), {"type": "rich_text", "elements": [rich]}]
        ts = await post(web, "<!channel> look", blocks=blocks)
        assert [ping.who for ping in slack.pings] == ["channel", "U2", "S1", "here"]
        assert slack.pings[0].ts == ts

    async def test_escaped_and_plain_text_notifies_nobody(self, slack: Sandbox, web: AsyncWebClient) -> None:
        header = {"type": "header", "text": {"type": "plain_text", "text": "<!channel>"}}
        await post(web, "&lt;!channel&gt;", blocks=[header])
        assert not slack.pings


class TestFiles:
    async def upload(self, web: AsyncWebClient, **more: Any) -> str:
        answer = await web.files_upload_v2(filename="loss.png", content=PNG, alt_txt="loss falls", **more)
        name: str = answer["file"]["id"]
        return name

    def picture(self, file: str) -> dict[str, Any]:
        return {"type": "image", "slack_file": {"id": file}, "alt_text": "loss falls"}

    async def test_a_picture_cannot_be_shown_right_after_its_upload(self, slack: Sandbox, web: AsyncWebClient) -> None:
        slack.space.file_delay_s = 2
        file = await self.upload(web)
        call = web.chat_postMessage(channel="C1", text="t", blocks=[self.picture(file)])
        assert await error_of(call) == "invalid_blocks"
        assert (await web.files_info(file=file))["file"]["mimetype"] == ""
        clock_of(slack).advance(2)
        assert (await web.files_info(file=file))["file"]["mimetype"] == "image/png"
        await post(web, blocks=[self.picture(file)])

    async def test_the_bytes_and_the_alt_text_are_kept(self, slack: Sandbox, web: AsyncWebClient) -> None:
        await post(web, blocks=[self.picture(await self.upload(web))])
        (shown,) = slack.pictures(slack.messages("C1")[0])
        assert (shown.data, shown.alt_text, shown.name) == (PNG, "loss falls", "loss.png")

    async def test_a_file_that_is_no_picture_cannot_be_shown(self, web: AsyncWebClient) -> None:
        file = (await web.files_upload_v2(filename="a.txt", content="text"))["file"]["id"]
        call = web.chat_postMessage(channel="C1", text="t", blocks=[self.picture(file)])
        assert await error_of(call) == "invalid_blocks"

    async def test_an_alt_text_over_1000_characters_is_refused(self, web: AsyncWebClient) -> None:
        call = web.files_getUploadURLExternal(filename="a.png", length=3, alt_txt="x" * 1_001)
        assert await error_of(call) == "alt_txt_too_large"

    async def test_an_upload_that_did_not_arrive_whole_is_refused(self, slack: Sandbox, web: AsyncWebClient) -> None:
        announced = await web.files_getUploadURLExternal(filename="a.png", length=100)
        async with aiohttp.ClientSession() as session, session.post(announced["upload_url"], data=PNG) as answer:
            assert await answer.text() == f"OK - {len(PNG)}"
        call = web.files_completeUploadExternal(files=[{"id": announced["file_id"], "title": "a"}])
        assert await error_of(call) == "file_not_found"

    async def test_a_shared_file_becomes_a_message_and_tells_no_ts(self, slack: Sandbox, web: AsyncWebClient) -> None:
        parent = await post(web)
        answer = await web.files_upload_v2(
            filename="a.png", content=PNG, alt_txt="a", channel="C1", thread_ts=parent, initial_comment="the picture"
        )
        assert "ts" not in answer.data
        (reply,) = slack.thread("C1", parent)
        assert (reply.text, slack.pictures(reply)[0].data) == ("the picture", PNG)


class TestChannels:
    @pytest.mark.parametrize(
        ("channel", "error"), [("C2", "not_in_channel"), ("C3", "is_archived"), ("C9", "channel_not_found")]
    )
    async def test_a_channel_that_cannot_be_written_to_is_refused(
        self, web: AsyncWebClient, channel: str, error: str
    ) -> None:
        assert await error_of(web.chat_postMessage(channel=channel, text="t")) == error

    async def test_a_message_that_is_not_there_is_not_found(self, slack: Sandbox, web: AsyncWebClient) -> None:
        assert await error_of(web.chat_update(channel="C1", ts="1.000001", text="t")) == "message_not_found"
        ts = await post(web)
        await web.chat_delete(channel="C1", ts=ts)
        assert await error_of(web.chat_update(channel="C1", ts=ts, text="t")) == "message_not_found"

    async def test_the_message_of_a_person_cannot_be_updated(self, slack: Sandbox, web: AsyncWebClient) -> None:
        theirs = slack.post_as("good morning")
        assert await error_of(web.chat_update(channel="C1", ts=theirs.ts, text="t")) == "cant_update_message"

    async def test_an_ephemeral_message_cannot_be_updated(self, web: AsyncWebClient) -> None:
        ts = (await web.chat_postEphemeral(channel="C1", user="U1", text="t"))["message_ts"]
        assert await error_of(web.chat_update(channel="C1", ts=ts, text="t")) == "message_not_found"

    async def test_a_reply_needs_its_parent(self, web: AsyncWebClient) -> None:
        call = web.chat_postMessage(channel="C1", text="t", thread_ts="1.000001")
        assert await error_of(call) == "cannot_reply_to_message"

    async def test_an_edit_with_text_alone_takes_the_blocks_away(self, slack: Sandbox, web: AsyncWebClient) -> None:
        ts = await post(web, "one", blocks=[section("one")])
        await web.chat_update(channel="C1", ts=ts, text="two")
        (posted,) = slack.messages("C1")
        assert (posted.text, posted.blocks) == ("two", ())
        assert posted.edits[0].text == "one" and len(posted.edits[0].blocks) == 1

    async def test_history_returns_metadata_when_it_is_asked_for(self, slack: Sandbox, web: AsyncWebClient) -> None:
        metadata = {"event_type": "nightshift_post", "event_payload": {"key": "run/nov21@1"}}
        parent = await post(web, "parent", metadata=metadata)
        await post(web, "reply", thread_ts=parent, metadata=metadata)
        (with_it,) = (await web.conversations_history(channel="C1", include_all_metadata=True))["messages"]
        (without,) = (await web.conversations_history(channel="C1"))["messages"]
        assert with_it["metadata"] == metadata and "metadata" not in without
        replies = await web.conversations_replies(channel="C1", ts=parent, include_all_metadata=True)
        assert [each["metadata"] for each in replies["messages"]] == [metadata, metadata]

    async def test_history_comes_in_pages_newest_first(self, slack: Sandbox, web: AsyncWebClient) -> None:
        for n in range(5):
            slack.post_by_hand(str(n))
        first = await web.conversations_history(channel="C1", limit=3)
        cursor = first["response_metadata"]["next_cursor"]
        second = await web.conversations_history(channel="C1", limit=3, cursor=cursor)
        assert [each["text"] for each in (*first["messages"], *second["messages"])] == ["4", "3", "2", "1", "0"]
        assert not second["response_metadata"]["next_cursor"]


class TestFailures:
    async def test_503_with_a_page_of_html_has_no_error(self, slack: Sandbox, web: AsyncWebClient) -> None:
        slack.fail("chat.postMessage", Html503())
        error = await refused(web.chat_postMessage(channel="C1", text="t"))
        assert (error.response.status_code, error.response.get("error")) == (503, None)
        assert not slack.messages("C1")

    async def test_an_error_can_come_with_200(self, slack: Sandbox, web: AsyncWebClient) -> None:
        slack.fail("chat.postMessage", Error("internal_error"), times=2)
        assert await error_of(web.chat_postMessage(channel="C1", text="t")) == "internal_error"
        assert await error_of(web.chat_postMessage(channel="C1", text="t")) == "internal_error"
        await post(web)

    async def test_a_drop_after_processing_leaves_the_message(self, slack: Sandbox, web: AsyncWebClient) -> None:
        slack.fail("chat.postMessage", DropAfter())
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await web.chat_postMessage(channel="C1", text="t")
        assert len(slack.messages("C1")) == 1
        assert [(call.error, call.processed) for call in slack.calls] == [("dropped", True)]

    async def test_the_default_client_posts_twice_over_a_drop(self, slack: Sandbox) -> None:
        slack.fail("chat.postMessage", DropAfter())
        await AsyncWebClient(slack.bot_token, base_url=slack.base_url).chat_postMessage(channel="C1", text="t")
        assert len(slack.messages("C1")) == 2

    async def test_a_drop_before_processing_leaves_nothing(self, slack: Sandbox, web: AsyncWebClient) -> None:
        slack.fail("*", DropBefore())
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await web.chat_postMessage(channel="C1", text="t")
        assert not slack.messages("C1") and not slack.calls[0].processed

    async def test_who_watches_sees_each_call_before_it_is_done_after_it_and_once_it_is_answered(
        self, slack: Sandbox, web: AsyncWebClient
    ) -> None:
        seen: list[tuple[str, str, int]] = []

        def watch(moment: Moment, method: str, args: Mapping[str, Any]) -> bool:
            seen.append((moment, str(args["text"]), len(slack.messages("C1"))))
            return (moment, args["text"]) in (("arrived", "b"), ("done", "c"))

        slack.watch = watch
        await web.chat_postMessage(channel="C1", text="a")
        for text in ("b", "c"):
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await web.chat_postMessage(channel="C1", text=text)
        assert seen[:3] == [("arrived", "a", 0), ("done", "a", 1), ("answered", "a", 1)]
        assert seen[3:] == [("arrived", "b", 1), ("arrived", "c", 1), ("done", "c", 2)]

    async def test_latency_outlasts_an_impatient_client(self, slack: Sandbox) -> None:
        slack.fail("auth.test", Slow(5))
        hasty = AsyncWebClient(slack.bot_token, base_url=slack.base_url, timeout=0.1, retry_handlers=[])
        with pytest.raises(asyncio.TimeoutError):
            await hasty.auth_test()

    async def test_a_slack_that_is_down_refuses_connections_until_it_is_up(self, slack: Sandbox) -> None:
        web = client(slack)
        await slack.go_down()
        with pytest.raises(aiohttp.ClientConnectionError):
            await web.auth_test()
        await slack.come_up()
        assert (await web.auth_test())["ok"]


class TestResponseUrls:
    def answers(self, slack: Sandbox) -> AsyncWebhookClient:
        url = slack.space.answer_url("U1", "C1")
        return AsyncWebhookClient(f"{slack.address}/respond/{url.id}", retry_handlers=[])

    async def test_the_sixth_answer_is_refused(self, slack: Sandbox) -> None:
        answers = self.answers(slack)
        for n in range(5):
            assert (await answers.send(text=str(n))).status_code == 200
        sixth = await answers.send(text="5")
        assert sixth.status_code == 404 and "used_url" in sixth.body
        assert [each.text for each in slack.ephemerals("U1")] == ["0", "1", "2", "3", "4"]

    async def test_after_thirty_minutes_it_has_expired(self, slack: Sandbox) -> None:
        answers = self.answers(slack)
        clock_of(slack).advance(30 * 60 + 1)
        assert "expired_url" in (await answers.send(text="late")).body

    async def test_an_answer_that_is_not_valid_is_refused_and_recorded(self, slack: Sandbox) -> None:
        assert (await self.answers(slack).send(text="t", blocks=[{"type": "nonsense"}])).status_code == 404
        assert (slack.calls[-1].method, slack.calls[-1].error) == ("response_url", "invalid_blocks")

    async def test_an_answer_may_go_to_the_channel(self, slack: Sandbox) -> None:
        await self.answers(slack).send(text="Ada asked", response_type="in_channel")
        assert [each.text for each in slack.messages("C1")] == ["Ada asked"]


async def test_the_record_is_in_order(slack: Sandbox, web: AsyncWebClient) -> None:
    ts = await post(web)
    await error_of(web.chat_postMessage(channel="C9", text="t"))
    await web.chat_update(channel="C1", ts=ts, text="edited")
    assert [(call.method, call.error) for call in slack.calls] == [
        ("chat.postMessage", None),
        ("chat.postMessage", "channel_not_found"),
        ("chat.update", None),
    ]
    assert [call.n for call in slack.calls] == sorted(call.n for call in slack.calls)


async def test_a_form_that_is_not_filled_in_is_not_sent(slack: Sandbox, web: AsyncWebClient) -> None:
    view = (await web.views_open(trigger_id=slack.space.trigger("U1"), view=modal(field())))["view"]
    seen = await slack.submit(view["id"], {})
    assert seen.complaints == {"tag": "Please complete this required field."} and not slack.deliveries


async def test_the_synchronous_client_works_too(slack: Sandbox) -> None:
    web = WebClient(slack.bot_token, base_url=slack.base_url)
    await asyncio.to_thread(web.chat_postMessage, channel="C1", text="hello", blocks=[section()])
    await asyncio.to_thread(web.files_upload_v2, filename="a.png", content=PNG, channel="C1")
    assert len(slack.messages("C1")) == 2
