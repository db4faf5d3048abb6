"""`bot --check`: each thing that can be wrong with Slack has its own sentence, with what to do, and no token in it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import msgspec
import pytest
from aiohttp import WSMsgType, web

from bot.checkup import (
    GOODBYES,
    REMEDIES,
    Reply,
    Tokens,
    auth_check,
    channel_check,
    clock_check,
    examine,
    scope_checks,
    token_checks,
    unreachable,
)
from bot.sandbox.faults import DropBefore, Error, Html503
from bot.sandbox.methods import HISTORY, SCOPES
from bot.sandbox.server import Sandbox
from eventstore import settings as st
from eventstore.checks import Check
from eventstore.views import as_json
from tests.bot.serving import SETTINGS

NOW = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
ALL = SCOPES | HISTORY | {"files:read", "channels:read", "groups:read", "usergroups:read"}
SLACK = st.parse(SETTINGS)


def reply(status: int = 200, headers: dict[str, str] | None = None, **data: Any) -> Reply:
    return Reply(status, data, headers or {})


def with_scopes(*scopes: str) -> Reply:
    return reply(headers={"x-oauth-scopes": ",".join(scopes)}, ok=True)


def named(checks: list[Check] | tuple[Check, ...]) -> dict[str, Check]:
    return {check.what: check for check in checks}


# ---------------------------------------------------------------- tokens


@pytest.mark.parametrize(
    ("token", "says"),
    [
        ("", "SLACK_BOT_TOKEN is not set"),
        ("xapp-1-secret", "begins with xapp-"),
        ("xoxp-1-secret", "begins with xoxp-"),
        ("xoxe.xoxb-1-secret", "begins with xoxe"),
        ("sk-secret", "holds no token of Slack"),
    ],
)
def test_a_token_of_another_kind_is_told_by_its_beginning_alone(token: str, says: str) -> None:
    check = token_checks(Tokens(token, "xapp-1"))[0]
    assert check.outcome == "not_ok" and says in check.found and check.fix
    assert "secret" not in check.found + check.fix


def test_tokens_show_themselves_to_nobody() -> None:
    assert "xoxb" not in f"{Tokens('xoxb-1', 'xapp-1')!r} {Tokens('xoxb-1', 'xapp-1')}"


@pytest.mark.parametrize("error", [*REMEDIES, "something_new"])
def test_each_refusal_of_a_token_has_a_remedy(error: str) -> None:
    check = auth_check(reply(ok=False, error=error))
    assert check.outcome == "not_ok" and error in check.found and check.fix


# ---------------------------------------------------------------- scopes


def test_every_scope_of_the_manifest_is_all_good() -> None:
    assert {check.outcome for check in scope_checks(with_scopes(*ALL), SLACK.slack)} == {"ok"}


def test_the_least_scopes_will_do_and_what_more_would_bring_is_noted() -> None:
    found = named(scope_checks(with_scopes(*SCOPES), SLACK.slack))
    assert found["slack: scopes"].outcome == "ok"
    notes = {what: check for what, check in found.items() if check.outcome == "note"}
    assert set(notes) == {"slack: picture scope", "slack: membership scopes", "slack: history scopes"}
    assert all(check.fix for check in notes.values())


def test_a_missing_scope_is_named_and_one_for_groups_only_where_groups_are_named() -> None:
    found = named(scope_checks(with_scopes(*SCOPES - {"files:write"}), SLACK.slack))
    assert (found["slack: scopes"].outcome, found["slack: scopes"].found) == ("not_ok", "missing: files:write")
    group = msgspec.structs.replace(SLACK.slack, operators=("S0123ABCDEF",))
    assert "usergroups:read" in named(scope_checks(with_scopes(*SCOPES), group))["slack: scopes"].found


def test_half_of_the_history_scopes_is_not_enough() -> None:
    check = named(scope_checks(with_scopes(*SCOPES, "channels:history"), SLACK.slack))["slack: history scopes"]
    assert check.outcome == "note" and "may repeat" in check.found


# ---------------------------------------------------------------- clock


@pytest.mark.parametrize(
    ("ahead_s", "outcome", "says"),
    [
        (0, "ok", "as Slack's"),
        (-4, "ok", "as Slack's"),
        (30, "note", "30 s ahead of"),
        (-30, "note", "30 s behind"),
        (3_600, "not_ok", "3600 s ahead of"),
        (-61, "not_ok", "61 s behind"),
    ],
)
def test_a_clock_that_is_off_is_told(ahead_s: int, outcome: str, says: str) -> None:
    date = format_datetime(NOW - timedelta(seconds=ahead_s), usegmt=True)
    check = clock_check(reply(headers={"date": date}), NOW)
    assert check.outcome == outcome and says in check.found
    assert outcome == "ok" or "NTP" in check.fix


@pytest.mark.parametrize("headers", [{}, {"date": "noon"}, {"date": "Sat, 21 Nov 2026 08:00:00 -0000"}])
def test_a_time_that_cannot_be_read_is_a_note(headers: dict[str, str]) -> None:
    assert clock_check(reply(headers=headers), NOW).outcome == "note"


# ---------------------------------------------------------------- channels


def test_a_channel_that_cannot_be_looked_up_is_a_note_and_any_other_trouble_is_not_ok() -> None:
    assert channel_check("C1", reply(ok=False, error="missing_scope")).outcome == "note"
    for said in (
        reply(ok=False, error="channel_not_found"),
        reply(ok=False, error="fatal_error"),
        reply(503),
        reply(ok=True, channel={"name": "old", "is_archived": True, "is_member": True}),
        reply(ok=True, channel={"name": "random", "is_member": False}),
    ):
        check = channel_check("C1", said)
        assert check.outcome == "not_ok" and check.fix


async def test_every_channel_of_the_settings_is_looked_at_once() -> None:
    slack_settings = msgspec.structs.replace(SLACK.slack, channels=("C1", "C2"))
    settings = msgspec.structs.replace(SLACK, slack=slack_settings)
    async with Sandbox(scopes=ALL) as slack:
        found = await checked(slack, settings)
        assert len([call for call in slack.calls if call.method == "conversations.info"]) == 2
    assert found["slack: channel C1"].outcome == "ok" and found["slack: channel C2"].outcome == "not_ok"


# ---------------------------------------------------------------- reaching Slack


async def checked(slack: Sandbox, settings: st.Settings = SLACK, timeout_s: float = 5.0) -> dict[str, Check]:
    found = await examine(settings, Tokens(slack.bot_token, slack.app_token), slack.base_url, NOW, timeout_s)
    assert slack.bot_token not in as_json(found) and slack.app_token not in as_json(found)
    return named(found.checks)


@pytest.mark.parametrize(("fault", "says"), [(Html503(), "HTTP status 503"), (DropBefore(), "cannot be reached")])
async def test_slack_in_trouble_is_told_and_the_rest_is_looked_at(fault: Any, says: str) -> None:
    async with Sandbox(scopes=ALL) as slack:
        slack.fail("auth.test", fault)
        found = await checked(slack)
    assert found["slack: sign-in"].outcome == "not_ok" and says in found["slack: sign-in"].found
    assert found["slack: connection"].outcome == "ok"


async def test_socket_mode_that_is_off_or_an_app_token_without_its_scope_is_told() -> None:
    async with Sandbox(scopes=ALL) as slack:
        slack.fail("apps.connections.open", Error("missing_scope"))
        assert "connections:write" in (await checked(slack))["slack: connection"].fix
        slack.fail("apps.connections.open", Error("internal_error"))
        assert "Socket Mode" in (await checked(slack))["slack: connection"].fix


async def test_the_check_leaves_no_connection_and_posts_nothing() -> None:
    async with Sandbox(scopes=ALL) as slack:
        found = await checked(slack)
        assert "hello and a ping came back" in found["slack: connection"].found
        async with asyncio.timeout(60):
            while slack.hub.sockets:  # noqa: ASYNC110 - its end is nobody's event
                await asyncio.sleep(0.01)
        assert {call.method for call in slack.calls} == {"auth.test", "conversations.info", "apps.connections.open"}


@contextlib.asynccontextmanager
async def odd_slack(says: list[str], answers_pings: bool, stays: bool) -> AsyncIterator[str]:
    """A Slack whose connection says *says* and then stays or ends; its address."""

    async def call(request: web.Request) -> web.Response:
        url = f"ws://{request.host}/link"
        return web.json_response({"ok": True, "url": url, "user": "bot", "team": "sandbox"})

    async def link(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(autoping=False, timeout=0.1)
        await socket.prepare(request)
        for text in says:
            await socket.send_str(text)
        while stays:
            message = await socket.receive()
            if message.type == WSMsgType.PING and answers_pings:
                await socket.pong(message.data)
            elif message.type != WSMsgType.PING:
                break
        await socket.close()
        return socket

    app = web.Application()
    app.router.add_post("/api/{method}", call)
    app.router.add_get("/link", link)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/api"
    finally:
        await runner.cleanup()


HELLO = '{"type": "hello"}'


@pytest.mark.parametrize(
    ("says", "answers_pings", "stays", "found", "fix"),
    [
        ([HELLO], False, True, "no answer to a ping", "firewall"),
        ([], True, True, "no hello", "firewall"),
        (["no JSON", "[]"], True, True, "no hello", "firewall"),
        ([], True, False, "closes it at once", "Socket Mode"),
        (['{"type": "disconnect", "reason": "link_disabled"}'], True, True, "link_disabled", "Socket Mode"),
        (['{"type": "disconnect", "reason": "too_many_websockets"}'], True, True, "too_many", "ten connections"),
        (['{"type": "disconnect", "reason": "warning"}'], True, True, "warning", "try again"),
    ],
)
async def test_a_connection_that_looks_up_and_is_of_no_use_is_told(
    says: list[str], answers_pings: bool, stays: bool, found: str, fix: str
) -> None:
    async with odd_slack(says, answers_pings, stays) as url:
        checks = named((await examine(SLACK, Tokens("xoxb-1", "xapp-1"), url, NOW, timeout_s=0.4)).checks)
    check = checks["slack: connection"]
    assert check.outcome == "not_ok" and found in check.found and fix in check.fix
    assert set(GOODBYES) == {"link_disabled", "too_many_websockets"}


def test_no_answer_and_no_way_are_told_apart() -> None:
    assert "no answer in time" in unreachable("x", TimeoutError()).found
    assert "ConnectionRefusedError" in unreachable("x", ConnectionRefusedError()).found


# ---------------------------------------------------------------- settings


async def test_a_slack_that_nobody_may_use_is_noted() -> None:
    nobody = msgspec.structs.replace(SLACK, slack=msgspec.structs.replace(SLACK.slack, admins=(), operators=()))
    found = named((await examine(nobody, Tokens("", ""), "http://127.0.0.1:1", NOW)).checks)
    assert found["slack: settings"].outcome == "note" and "slack.admins" in found["slack: settings"].fix
    assert found["slack: bot token"].outcome == found["slack: app token"].outcome == "not_ok"


async def test_tokens_without_a_channel_are_not_ok_and_nothing_at_all_is_one_note() -> None:
    bare = msgspec.structs.replace(SLACK, slack=st.Slack())
    found = (await examine(bare, Tokens("xapp-1", ""), "http://127.0.0.1:1", NOW)).checks
    assert named(found)["slack: settings"].outcome == "not_ok"
    (only,) = (await examine(bare, Tokens("", ""), "http://127.0.0.1:1", NOW)).checks
    assert only.outcome == "note" and "not set up" in only.found
