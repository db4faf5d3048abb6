"""People in the loopback Slack: what they do reaches a real Bolt app, and what they see is told back."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from slack_bolt.async_app import AsyncApp

from bot.sandbox.clock import ManualClock
from bot.sandbox.forms import NothingToTouch
from bot.sandbox.methods import SCOPES
from bot.sandbox.model import Person, Refusal
from bot.sandbox.server import Sandbox
from bot.sandbox.terminal import Terminal, lines_of
from tests.bot.sandboxed import PNG, bolt, button, buttons, client, field, home, modal, plain, running, section

PEOPLE = (Person("U1", "ada"), Person("U2", "guest", guest="single"), Person("U3", "far", team_id="T9", tz=None))


@pytest.fixture
async def slack() -> AsyncIterator[Sandbox]:
    scopes = SCOPES | {"app_mentions:read", "usergroups:read", "files:read"}
    async with Sandbox(clock=ManualClock(), people=PEOPLE, scopes=scopes, groups={"S1": ["U1"]}) as running:
        yield running


def keeping(slack: Sandbox, kept: list[Any]) -> AsyncApp:
    """An app that acknowledges everything and keeps the payloads."""
    app = bolt(slack)

    @app.middleware
    async def keep(body, next) -> None:
        kept.append(body)
        await next()

    @app.command("/nightshift")
    async def command(ack) -> None:
        await ack()

    @app.action(re.compile(".*"))
    async def action(ack) -> None:
        await ack()

    @app.view("start")
    async def submitted(ack) -> None:
        await ack()

    @app.view_closed("start")
    async def closed(ack) -> None:
        await ack()

    @app.event("app_mention")
    @app.event("app_home_opened")
    async def event() -> None:
        return None

    return app


class TestCommands:
    async def test_what_is_typed_arrives_escaped_and_names_become_ids_where_that_is_asked_for(
        self, slack: Sandbox
    ) -> None:
        kept: list[Any] = []
        async with running(slack, keeping(slack, kept)):
            await slack.command("/nightshift", "idea a<b & @ada in #research not@ada", wait_s=0)
            slack.should_escape = True
            await slack.command("/nightshift", "idea a<b & @ada in #research not@ada", wait_s=0)
        assert kept[0]["text"] == "idea a&lt;b &amp; @ada in #research not@ada"
        assert kept[1]["text"] == "idea a&lt;b &amp; <@U1|ada> in <#C1|research> not@ada"
        assert (kept[0]["command"], kept[0]["team_id"], kept[0]["user_id"]) == ("/nightshift", "T1", "U1")

    async def test_without_the_scope_a_command_never_reaches_the_app(self) -> None:
        async with Sandbox(scopes={"chat:write"}) as slack:
            with pytest.raises(Refusal, match="the app has no commands"):
                await slack.command("/nightshift", "status")

    async def test_what_only_one_person_sees_is_theirs(self, slack: Sandbox) -> None:
        app = bolt(slack)

        @app.command("/nightshift")
        async def command(ack, respond, command) -> None:
            await ack()
            await respond(f"for {command['user_id']}")

        async with running(slack, app):
            one, two = await asyncio.gather(
                slack.command("/nightshift", user="U1"), slack.command("/nightshift", user="U2")
            )
        assert (one.texts, two.texts) == (("for U1",), ("for U2",))

    async def test_a_message_about_something_else_is_not_taken_for_the_answer(self, slack: Sandbox) -> None:
        app = bolt(slack)

        @app.command("/nightshift")
        async def command(ack, client, command) -> None:
            await ack()
            await client.chat_postMessage(channel="C1", text="the verdict of an experiment")
            await asyncio.sleep(0.1)
            await client.views_open(trigger_id=command["trigger_id"], view=modal(field()))

        @app.event("app_home_opened")
        async def opened(event, client) -> None:
            await client.chat_postMessage(channel="C1", text="the verdict of another one")
            await asyncio.sleep(0.1)
            await client.views_publish(user_id=event["user"], view=home(section("welcome")))

        async with running(slack, app):
            assert (await slack.command("/nightshift", "start")).views
            assert (await slack.open_home("U1")).home is not None

    async def test_an_answer_that_comes_later_is_seen_too(self, slack: Sandbox) -> None:
        app = bolt(slack)

        @app.command("/nightshift")
        async def command(ack, respond) -> None:
            await ack()
            await asyncio.sleep(0.1)
            await respond("late")

        async with running(slack, app):
            seen = await slack.command("/nightshift", wait_s=0)
            assert not seen.texts
            await slack.until(lambda: seen.texts == ("late",))


class TestClicks:
    def post(self, slack: Sandbox) -> str:
        asked = {"title": plain("Stop?"), "text": plain("It stops."), "confirm": plain("Yes"), "deny": plain("No")}
        menu = {"type": "overflow", "action_id": "more", "options": [{"text": plain("Log"), "value": "log"}]}
        row = buttons(button("veto", value="1"), button("veto2", value="2"), button("stop", confirm=asked), menu)
        return slack.post_by_hand("a run", blocks=[section(), row]).ts

    async def test_a_click_carries_the_button_and_its_message(self, slack: Sandbox) -> None:
        kept: list[Any] = []
        ts = self.post(slack)
        async with running(slack, keeping(slack, kept)):
            seen = await slack.click(ts, "veto2", wait_s=0)
        assert seen.acked
        (action,) = kept[0]["actions"]
        assert (action["action_id"], action["value"], action["type"]) == ("veto2", "2", "button")
        assert kept[0]["container"] == {
            "type": "message",
            "message_ts": ts,
            "channel_id": "C1",
            "is_ephemeral": False,
        }
        assert kept[0]["message"]["text"] == "a run" and kept[0]["trigger_id"]

    async def test_no_to_the_dialog_sends_nothing(self, slack: Sandbox) -> None:
        seen = await slack.click(self.post(slack), "stop", confirm=False)
        assert seen.delivery is None and not slack.deliveries

    async def test_a_choice_from_a_menu_is_carried(self, slack: Sandbox) -> None:
        kept: list[Any] = []
        async with running(slack, keeping(slack, kept)):
            await slack.click(self.post(slack), "more", value="log", wait_s=0)
        assert kept[0]["actions"][0]["selected_option"]["value"] == "log"

    async def test_a_button_that_is_not_there_is_named_with_those_that_are(self, slack: Sandbox) -> None:
        with pytest.raises(NothingToTouch, match="there is no pause to touch here; there is: veto \\(Stop\\)"):
            await slack.click(self.post(slack), "pause")

    async def test_the_original_of_a_click_can_be_replaced_and_deleted(self, slack: Sandbox) -> None:
        app = bolt(slack)

        @app.action("stop")
        async def stop(ack, respond) -> None:
            await ack()
            await respond("stopped", replace_original=True)
            await respond(delete_original=True)

        ts = self.post(slack)
        async with running(slack, app):
            await slack.click(ts, "stop", wait_s=0)
            await slack.until(lambda: not slack.messages("C1"))
        replies = [call.args for call in slack.calls if call.method == "response_url"]
        assert [bool(reply.get("delete_original")) for reply in replies] == [False, True]

    async def test_people_from_elsewhere_come_with_their_own_team(self, slack: Sandbox) -> None:
        kept: list[Any] = []
        async with running(slack, keeping(slack, kept)):
            await slack.click(self.post(slack), "veto", user="U3", wait_s=0)
        assert kept[0]["user"]["team_id"] == "T9"
        far = (await client(slack).users_info(user="U3"))["user"]
        assert far["team_id"] == "T9" and "tz" not in far
        assert (await client(slack).users_info(user="U2"))["user"]["is_ultra_restricted"]
        assert (await client(slack).usergroups_users_list(usergroup="S1"))["users"] == ["U1"]


class TestForms:
    async def opened(self, slack: Sandbox, *blocks: dict[str, Any], **more: Any) -> str:
        view = modal(*(blocks or (field(),)), callback_id="start", **more)
        answer = await client(slack).views_open(trigger_id=slack.space.trigger("U1"), view=view)
        name: str = answer["view"]["id"]
        return name

    async def submit(self, slack: Sandbox, answer: dict[str, Any], view: str | None = None) -> Any:
        app = bolt(slack)

        @app.view("start")
        async def submitted(ack) -> None:
            await ack(**answer)

        async with running(slack, app):
            return await slack.submit(view or await self.opened(slack), {"tag": "nov21"})

    async def test_what_is_entered_arrives_with_what_was_there_already(self, slack: Sandbox) -> None:
        option = {"text": plain("Strict"), "value": "strict"}
        view = await self.opened(
            slack,
            field("tag"),
            field("hours", type="number_input", is_decimal_allowed=False, initial_value="8"),
            field("rule", type="radio_buttons", options=[option]),
            field("file", type="file_input"),
        )
        kept: list[Any] = []
        async with running(slack, keeping(slack, kept)):
            seen = await slack.submit(view, {"tag": "nov21", "rule": "strict", "file": [("program.md", b"text")]})
        values = kept[0]["view"]["state"]["values"]
        assert values["tag"]["value"] == {"type": "plain_text_input", "value": "nov21"}
        assert values["hours"]["value"]["value"] == "8"
        assert values["rule"]["value"]["selected_option"]["value"] == "strict"
        assert values["file"]["value"]["files"][0]["name"] == "program.md"
        assert seen.acked and not slack.views("U1")

    @pytest.mark.parametrize(
        ("element", "value", "complaint"),
        [
            ({"max_length": 3}, "four", "Must be from 0 to 3 characters."),
            ({"type": "number_input", "is_decimal_allowed": False}, "1.5", "Must be a whole number."),
            ({"type": "number_input", "is_decimal_allowed": True, "max_value": "1"}, "1.5", "Is out of range."),
            ({"type": "number_input", "is_decimal_allowed": True}, "many", "Must be a number."),
        ],
    )
    async def test_what_slack_itself_complains_about_is_not_sent(
        self, slack: Sandbox, element: dict[str, Any], value: str, complaint: str
    ) -> None:
        seen = await slack.submit(await self.opened(slack, field(**element)), {"tag": value})
        assert seen.complaints == {"tag": complaint} and not slack.deliveries

    async def test_errors_are_shown_under_their_fields_and_the_form_stays(self, slack: Sandbox) -> None:
        seen = await self.submit(slack, {"response_action": "errors", "errors": {"tag": "nov21 is taken."}})
        assert seen.complaints == {"tag": "nov21 is taken."} and len(slack.views("U1")) == 1

    async def test_errors_for_a_field_that_is_not_there_are_trouble(self, slack: Sandbox) -> None:
        seen = await self.submit(slack, {"response_action": "errors", "errors": {"budget": "too much"}})
        assert "We had some trouble connecting" in seen.trouble and len(slack.hub.refused) == 1

    async def test_an_update_replaces_the_form(self, slack: Sandbox) -> None:
        view = await self.opened(slack)
        before = slack.views("U1")[0].hash
        await self.submit(slack, {"response_action": "update", "view": modal(section("sure?"))}, view)
        (shown,) = slack.views("U1")
        assert shown.id == view and shown.hash != before
        assert shown.body["blocks"][0]["text"]["text"] == "sure?"

    async def test_an_update_that_is_not_valid_is_trouble(self, slack: Sandbox) -> None:
        seen = await self.submit(slack, {"response_action": "update", "view": modal(section(""))})
        assert "invalid_arguments" in seen.trouble

    async def test_a_push_stacks_a_form_and_clear_closes_all(self, slack: Sandbox) -> None:
        view = await self.opened(slack)
        pushed = modal(field("more"), callback_id="clear")
        await self.submit(slack, {"response_action": "push", "view": pushed}, view)
        assert [shown.previous for shown in slack.views("U1")] == [None, view]
        app = bolt(slack)

        @app.view("clear")
        async def submitted(ack) -> None:
            await ack(response_action="clear")

        async with running(slack, app):
            await slack.submit(slack.views("U1")[-1].id, {"more": "x"})
        assert not slack.views("U1")

    async def test_closing_is_told_only_if_the_form_asks_for_it(self, slack: Sandbox) -> None:
        kept: list[Any] = []
        async with running(slack, keeping(slack, kept)):
            assert await slack.close_view(await self.opened(slack)) is None
            await slack.close_view(await self.opened(slack, notify_on_close=True))
        assert [body["type"] for body in kept] == ["view_closed"]

    async def test_a_field_that_is_not_there_is_named_with_those_that_are(self, slack: Sandbox) -> None:
        with pytest.raises(NothingToTouch, match="there is no field 'budget' in this view; there are: tag"):
            await slack.submit(await self.opened(slack), {"budget": "1"})


class TestHome:
    async def test_opening_the_home_brings_what_the_app_publishes(self, slack: Sandbox) -> None:
        app = bolt(slack)
        kept: list[Any] = []

        @app.event("app_home_opened")
        async def opened(event, client) -> None:
            kept.append(event)
            await client.views_publish(user_id=event["user"], view=home(section("welcome")))

        async with running(slack, app):
            seen = await slack.open_home("U1")
            assert seen.home is not None and seen.home.body["blocks"][0]["text"]["text"] == "welcome"
            await slack.open_home("U1")
        assert ["view" in event for event in kept] == [False, True]

    async def test_a_click_in_the_home_names_its_view(self, slack: Sandbox) -> None:
        kept: list[Any] = []
        await client(slack).views_publish(user_id="U1", view=home(buttons(button("pause", value="nov21"))))
        shown = slack.home("U1")
        assert shown is not None
        async with running(slack, keeping(slack, kept)):
            await slack.click_view(shown.id, "pause", wait_s=0)
        assert kept[0]["container"] == {"type": "view", "view_id": shown.id}
        assert kept[0]["view"]["hash"] == shown.hash

    async def test_a_mention_reaches_the_app(self, slack: Sandbox) -> None:
        kept: list[Any] = []
        async with running(slack, keeping(slack, kept)):
            await slack.mention("status", wait_s=0)
            await slack.until(lambda: kept)
        assert kept[0]["event"]["text"] == "<@U0BOT> status"


class TestTerminal:
    async def typed(self, slack: Sandbox, app: AsyncApp, *lines: str) -> str:
        said: list[str] = []
        waiting = iter(lines)

        async def read() -> str | None:
            return next(waiting, None)

        async with running(slack, app):
            await Terminal(slack, read, said.append).run()
        return "\n".join(said)

    def nightshift(self, slack: Sandbox) -> AsyncApp:
        app = bolt(slack)

        @app.command("/nightshift")
        async def command(ack, respond, command) -> None:
            await ack()
            await respond(f"\x1b[31mnov21 &amp; <@U1> since <!date^1^{{time}}|22:00> {command['text']}")

        @app.action("edit")
        async def edit(ack, body, client) -> None:
            await ack()
            await client.views_open(trigger_id=body["trigger_id"], view=modal(field("tag"), callback_id="start"))

        @app.view("start")
        async def submitted(ack, view, client) -> None:
            await ack()
            tag = view["state"]["values"]["tag"]["value"]["value"]
            await client.chat_postMessage(channel="C1", text=f"starting {tag}")

        @app.event("app_home_opened")
        async def opened(event, client) -> None:
            table = {"type": "header", "text": plain("Runs")}
            await client.views_publish(user_id=event["user"], view=home(table, {"type": "divider"}))

        return app

    async def test_a_newcomer_gets_through_a_command_a_button_and_a_form(self, slack: Sandbox) -> None:
        slack.post_by_hand("nov21", blocks=[section("*nov21*"), buttons(button("edit", "Edit program"))])
        said = await self.typed(
            slack,
            self.nightshift(slack),
            *("messages", "/nightshift status", "click 1 edit", "submit tag='nov 22'", "home", "thread 1", "quit"),
        )
        assert "1. nightshift (#research)\n   *nov21*\n   [Edit program · edit]" in said
        assert "(only you see this)\n   nov21 & @ada since 22:00 status" in said
        assert "┌ Start\n│ tag\n│ [tag · tag]\n└ submit: Start" in said
        assert "starting nov 22" in said
        assert "┌ App Home\n│ ══ Runs ══" in said
        assert "\x1b" not in said

    async def test_what_goes_wrong_is_one_sentence(self, slack: Sandbox) -> None:
        said = await self.typed(
            slack,
            self.nightshift(slack),
            *("dance", "click 9 stop", "submit a=b", "as nobody", "in random", "as guest", "help", "submit a", "'"),
        )
        assert "! dance: not understood; type help" in said
        assert "! there is no message 9; type messages" in said
        assert "! no form is open" in said
        assert "! nobody is not here; there are: ada, guest, far" in said
        assert "You are guest in #random." in said

    async def test_a_bot_that_does_not_answer_is_told_as_slack_tells_it(self, slack: Sandbox) -> None:
        app = bolt(slack)

        @app.command("/nightshift")
        async def command() -> None:
            return None

        slack.hub.ack_deadline_s = 0.1
        assert '! /nightshift failed with the error "operation_timeout"' in await self.typed(
            slack, app, "/nightshift x"
        )

    async def test_lines_come_from_a_stream_until_it_ends(self, tmp_path: Path) -> None:
        (tmp_path / "typed").write_text("help\nquit\n")
        with (tmp_path / "typed").open() as stream:
            read = lines_of(stream)
            assert [await read(), await read(), await read()] == ["help\n", "quit\n", None]

    def test_as_a_program_it_says_how_to_reach_it_and_ends_with_its_input(self) -> None:
        program = [sys.executable, "-m", "bot.sandbox.cli"]
        env = {**os.environ, "PYTHONPATH": str(Path.cwd())}
        ran = subprocess.run(program, input="help\n", text=True, capture_output=True, timeout=60, check=True, env=env)
        assert ran.stdout.startswith("base_url  http://127.0.0.1:") and "SLACK_BOT_TOKEN=xoxb-" in ran.stdout
        assert "slash command, as in Slack" in ran.stdout and not ran.stderr


async def test_a_message_keeps_its_edits_its_pictures_and_its_alt_texts(slack: Sandbox) -> None:
    web = client(slack)
    file = (await web.files_upload_v2(filename="loss.png", content=PNG, alt_txt="loss falls"))["file"]["id"]
    picture = {"type": "image", "slack_file": {"id": file}, "alt_text": "the loss falls from 1.2 to 0.9"}
    ts = (await web.chat_postMessage(channel="C1", text="one", blocks=[picture]))["ts"]
    slack_message = slack.messages("C1")[0]
    assert slack.pictures(slack_message)[0].data == PNG
    await web.chat_update(channel="C1", ts=ts, text="two", blocks=[section("two")])
    assert [version.text for version in slack_message.edits] == ["one"]
    assert slack_message.edits[0].blocks[0]["alt_text"] == "the loss falls from 1.2 to 0.9"
