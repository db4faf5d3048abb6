"""The loopback Slack over Socket Mode, with a real Bolt app: who gets an envelope, what happens when none answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from slack_bolt.async_app import AsyncApp
from slack_sdk.errors import SlackApiError

from bot.sandbox.clock import ManualClock
from bot.sandbox.faults import Error
from bot.sandbox.server import Sandbox
from tests.bot.sandboxed import bolt, client, running


@pytest.fixture
async def slack() -> AsyncIterator[Sandbox]:
    async with Sandbox(clock=ManualClock(), ping_every_s=0.05) as running:
        yield running
    for _ in range(100):
        if asyncio.all_tasks() == {asyncio.current_task()}:
            return
        await asyncio.sleep(0.01)  # the client ends its own tasks in its own time
    raise AssertionError(f"left behind: {asyncio.all_tasks()}")


def advance(slack: Sandbox, seconds: float) -> None:
    assert isinstance(slack.clock, ManualClock)
    slack.clock.advance(seconds)


def answering(slack: Sandbox, heard: list[Any]) -> AsyncApp:
    """An app that acknowledges commands and home visits at once and keeps what it heard."""
    app = bolt(slack)

    @app.command("/nightshift")
    async def command(ack, body) -> None:
        heard.append(body["text"])
        await ack()

    @app.event("app_home_opened")
    async def opened(body, request) -> None:
        heard.append((body["event_id"], request.headers["x-slack-retry-num"]))

    return app


def silent(slack: Sandbox, heard: list[Any]) -> AsyncApp:
    """An app whose listeners never acknowledge in time."""
    slack.hub.ack_deadline_s = 0.1
    app = bolt(slack)

    @app.middleware
    async def hold(body, next) -> None:
        heard.append(body.get("event_id") or body.get("text"))
        await asyncio.sleep(0.3)
        await next()

    @app.command("/nightshift")
    async def command(ack) -> None:
        await ack("too late")

    @app.event("app_home_opened")
    async def opened() -> None:
        return None

    return app


class TestSockets:
    async def test_a_socket_begins_with_hello_and_is_pinged(self, slack: Sandbox) -> None:
        url = (await client(slack).apps_connections_open(app_token=slack.app_token))["url"]
        async with aiohttp.ClientSession() as session, session.ws_connect(url, autoping=False) as socket:
            hello = await socket.receive_json()
            assert hello["type"] == "hello" and hello["debug_info"]["approximate_connection_time"] == 18_060
            assert (await socket.receive()).type == aiohttp.WSMsgType.PING

    async def test_a_ping_of_the_client_is_answered(self, slack: Sandbox) -> None:
        async with running(slack, bolt(slack), ping_interval_s=0.05) as handler:
            await slack.until(lambda: slack.hub.heard >= 2)
            await slack.until(lambda: handler.client.last_ping_pong_time is not None)

    @pytest.mark.parametrize("reason", ["warning", "refresh_requested", "link_disabled"])
    async def test_after_a_disconnect_the_client_is_back_on_a_new_socket(self, slack: Sandbox, reason: Any) -> None:
        heard: list[Any] = []
        async with running(slack, answering(slack, heard)):
            await slack.disconnect(reason)
            await slack.until(lambda: [socket.number for socket in slack.hub.sockets] == [2])
            assert (await slack.command("/nightshift", "status", wait_s=0)).acked

    async def test_an_old_socket_that_closes_late_gets_no_new_commands(self, slack: Sandbox) -> None:
        heard: list[Any] = []
        first, second = answering(slack, heard), answering(slack, heard)
        async with running(slack, first):
            slack.hub.sockets[0].leaving = True
            async with running(slack, second):
                for _ in range(3):
                    await slack.command("/nightshift", "status", wait_s=0)
        assert {delivery.socket for delivery in slack.deliveries} == {2}

    async def test_the_client_comes_back_after_an_unclean_drop(self, slack: Sandbox) -> None:
        heard: list[Any] = []
        async with running(slack, answering(slack, heard), ping_interval_s=0.05):
            slack.drop()
            await slack.until(lambda: [socket.number for socket in slack.hub.sockets] == [2])
            assert (await slack.command("/nightshift", "status", wait_s=0)).acked

    async def test_a_half_open_socket_looks_up_and_is_deaf(self, slack: Sandbox) -> None:
        heard: list[Any] = []
        async with running(slack, answering(slack, heard)):
            slack.half_open()
            slack.hub.ack_deadline_s = 0.1
            seen = await slack.command("/nightshift", "status", wait_s=0)
            assert seen.timed_out and not heard and len(slack.hub.sockets) == 1

    async def test_an_eleventh_socket_is_turned_away(self, slack: Sandbox) -> None:
        urls = [(await client(slack).apps_connections_open(app_token=slack.app_token))["url"] for _ in range(11)]
        async with aiohttp.ClientSession() as session:
            sockets = [await session.ws_connect(url) for url in urls]
            last = await sockets[-1].receive_json()
            assert (last["type"], last["reason"]) == ("disconnect", "too_many_websockets")
            assert len(slack.hub.sockets) == 10
            for socket in sockets:
                await socket.close()

    async def test_an_address_of_a_socket_works_once(self, slack: Sandbox) -> None:
        url = (await client(slack).apps_connections_open(app_token=slack.app_token))["url"]
        async with aiohttp.ClientSession() as session:
            await (await session.ws_connect(url)).close()
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await session.ws_connect(url)

    async def test_opening_a_connection_can_fail(self, slack: Sandbox) -> None:
        slack.fail("apps.connections.open", Error("internal_error"))
        with pytest.raises(SlackApiError):
            await client(slack).apps_connections_open(app_token=slack.app_token)


class TestRouting:
    async def test_an_envelope_goes_to_one_of_several_sockets(self, slack: Sandbox) -> None:
        heard: list[Any] = []
        async with running(slack, answering(slack, heard)), running(slack, answering(slack, heard)):
            for n in range(4):
                await slack.command("/nightshift", str(n), wait_s=0)
        assert heard == ["0", "1", "2", "3"]
        assert {delivery.socket for delivery in slack.deliveries} == {1, 2}

    async def test_with_no_socket_up_the_person_sees_dispatch_failed(self, slack: Sandbox) -> None:
        seen = await slack.command("/nightshift", "status")
        assert seen.dispatch_failed and not seen.acked
        assert seen.texts == ('/nightshift failed with the error "dispatch_failed"',)

    async def test_an_ack_counts_on_another_socket_than_the_envelopes(self, slack: Sandbox) -> None:
        web = client(slack)
        async with aiohttp.ClientSession() as session:
            urls = [(await web.apps_connections_open(app_token=slack.app_token))["url"] for _ in range(2)]
            one, two = [await session.ws_connect(url) for url in urls]
            await slack.connected(2)
            asked = asyncio.create_task(slack.command("/nightshift", "status", wait_s=0))
            await slack.until(lambda: slack.deliveries)
            other = {1: two, 2: one}[slack.deliveries[0].socket or 0]
            await other.send_json({"envelope_id": slack.deliveries[0].envelope_id})
            assert (await asked).acked
            await asyncio.gather(one.close(), two.close())

    async def test_an_ack_of_nothing_is_recorded(self, slack: Sandbox) -> None:
        async with running(slack, bolt(slack)) as handler:
            await handler.client.send_socket_mode_response({"envelope_id": "never-sent"})
            await slack.until(lambda: slack.hub.strays == [{"envelope_id": "never-sent"}])


class TestRedelivery:
    async def test_an_event_nobody_acknowledges_comes_again_at_once_after_one_minute_and_after_five(self) -> None:
        clock, heard = ManualClock(), list[Any]()
        async with Sandbox(clock=clock) as slack, running(slack, silent(slack, heard)):
            first = await slack.event({"type": "app_home_opened", "user": "U1"})
            for retries, wait_s in ((1, 0), (2, 60), (3, 300)):
                clock.advance(wait_s)
                await slack.until(lambda count=retries: len(first.retries) == count)
            attempts = [(each.attempt, each.reason) for each in (first, *first.retries)]
            assert attempts == [(0, ""), (1, "timeout"), (2, "timeout"), (3, "timeout")]
            assert len({each.payload["event_id"] for each in slack.deliveries}) == 1
            await asyncio.sleep(0.3)

    async def test_an_event_that_was_acknowledged_does_not_come_again(self, slack: Sandbox) -> None:
        heard: list[Any] = []
        async with running(slack, answering(slack, heard)):
            first = await slack.event({"type": "app_home_opened", "user": "U1"}, event_id="Ev1")
            advance(slack, 400)
            await asyncio.sleep(0.02)
            assert heard == [("Ev1", ["0"])] and not first.retries

    async def test_an_event_with_no_socket_up_comes_when_there_is_one(self, slack: Sandbox) -> None:
        heard: list[Any] = []
        first = await slack.event({"type": "app_home_opened", "user": "U1"}, event_id="Ev1")
        await slack.until(lambda: len(first.retries) == 1)
        async with running(slack, answering(slack, heard)):
            await asyncio.sleep(0)
            advance(slack, 60)
            await slack.until(lambda: heard == [("Ev1", ["2"])])
            assert first.retries[-1].reason == "connection_failed"

    async def test_the_same_envelope_can_come_twice(self, slack: Sandbox) -> None:
        heard: list[Any] = []
        async with running(slack, answering(slack, heard)):
            seen = await slack.command("/nightshift", "status", wait_s=0)
            assert seen.delivery is not None
            again = await slack.redeliver(seen.delivery)
            event = await slack.event({"type": "app_home_opened", "user": "U1"}, event_id="Ev1")
            await slack.redeliver(event)
        assert heard == ["status", "status", ("Ev1", ["0"]), ("Ev1", ["0"])]
        assert again.envelope_id == seen.delivery.envelope_id


class TestAckDeadline:
    async def test_a_late_ack_is_an_operation_timeout(self, slack: Sandbox) -> None:
        async with running(slack, silent(slack, [])):
            seen = await slack.command("/nightshift", "status", wait_s=0)
            assert seen.timed_out and slack.timeouts == [seen.delivery]
            assert seen.texts == ('/nightshift failed with the error "operation_timeout"',)
            await slack.until(lambda: seen.ack_s is not None)
            assert not seen.acked and not seen.ephemerals

    async def test_an_exception_before_the_ack_is_an_operation_timeout(self, slack: Sandbox) -> None:
        app = bolt(slack)

        @app.command("/nightshift")
        async def command(ack) -> None:
            raise RuntimeError("a bug")

        slack.hub.ack_deadline_s = 0.1
        async with running(slack, app):
            assert (await slack.command("/nightshift", "status", wait_s=0)).timed_out

    async def test_the_text_of_an_ack_is_ephemeral(self, slack: Sandbox) -> None:
        app = bolt(slack)

        @app.command("/nightshift")
        async def command(ack) -> None:
            await ack("only for you")

        async with running(slack, app):
            seen = await slack.command("/nightshift", "status", user="U2")
            assert seen.acked and [each.text for each in seen.ephemerals] == ["only for you"]
            assert not slack.ephemerals("U1") and not slack.messages("C1")

    async def test_fifty_commands_at_once_are_all_answered(self, slack: Sandbox) -> None:
        heard: list[Any] = []
        async with running(slack, answering(slack, heard)):
            asked = [slack.command("/nightshift", str(n), wait_s=0) for n in range(50)]
            assert all(seen.acked for seen in await asyncio.gather(*asked))
        assert len(heard) == 50


async def test_an_app_that_asks_who_it_is_is_told(slack: Sandbox) -> None:
    app = AsyncApp(client=client(slack))

    @app.command("/nightshift")
    async def command(ack, context) -> None:
        await ack(f"I am {context.bot_user_id}")

    async with running(slack, app):
        assert (await slack.command("/nightshift")).texts == ("I am U0BOT",)
    assert "auth.test" in [call.method for call in slack.calls]


async def test_a_slack_that_goes_down_and_comes_back_gets_its_socket_back(slack: Sandbox) -> None:
    heard: list[Any] = []
    async with running(slack, answering(slack, heard), ping_interval_s=0.05):
        await slack.go_down()
        await slack.until(lambda: not slack.hub.sockets)
        assert (await slack.command("/nightshift", "lost", wait_s=0)).dispatch_failed
        await slack.come_up()
        await slack.connected()
        assert (await slack.command("/nightshift", "status", wait_s=0)).acked and heard == ["status"]


async def test_ids_differ_between_two_instances() -> None:
    async with Sandbox() as one, Sandbox() as two:
        assert {one.space.new_id("E") for _ in range(9)}.isdisjoint(two.space.new_id("E") for _ in range(9))
        assert one.base_url != two.base_url


async def test_the_port_is_free_again_after_the_end() -> None:
    async with Sandbox() as slack:
        port = int(slack.address.rpartition(":")[2])
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", port)
    server.close()
    await server.wait_closed()
