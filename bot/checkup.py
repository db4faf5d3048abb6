"""Whether the bot can work: tokens, scopes, channels, clock and connection, each with what to do about it.

Nothing is posted and nothing is changed. The connection is opened for a moment to see a message and a ping come back;
a command or click that Slack sends to it in this moment is not answered, and the person sees Slack's own error.
No token is printed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp

from bot.access import watched_groups
from eventstore import settings as st
from eventstore.checks import Check, Report, not_ok, note, ok, report

SLACK_API_URL = "https://slack.com/api/"
TIMEOUT_S = 15.0
CLOSE_S = 1.0
SKEW_NOTED_S = 5.0
SKEW_MAX_S = 60.0
"""A clock that is further off makes wrong hours, and Slack's date stamps would show it."""

NEEDED = ("commands", "chat:write", "files:write", "users:read")
MEMBERSHIP = ("channels:read", "groups:read")
HISTORY = ("channels:history", "groups:history")
GROUPS = "usergroups:read"
PICTURES = "files:read"
MANIFEST = "slack/manifest.yaml"
CONNECTION = "slack: connection"

REINSTALL = f"add them to the app (OAuth & Permissions, or {MANIFEST}) and install it again"
REMEDIES = {
    "invalid_auth": "copy the token again from the app's settings; it may have been revoked",
    "not_authed": "copy the token again from the app's settings",
    "token_revoked": "install the app again and copy the new token",
    "token_expired": "switch token rotation off in the app's settings and install it again",
    "account_inactive": "the app was removed from the workspace: install it again",
    "not_allowed_token_type": "the two tokens are in each other's place",
    "missing_scope": REINSTALL,
}
GOODBYES = {
    "link_disabled": "switch Socket Mode on in the app's settings",
    "too_many_websockets": "the app has ten connections already: end bots that are left over",
}


@dataclass(frozen=True, slots=True)
class Tokens:
    """The two tokens, each empty where it is not set. Never printed."""

    bot: str
    app: str

    def __repr__(self) -> str:
        return "Tokens(…)"


@dataclass(frozen=True, slots=True)
class Reply:
    """What Slack said: HTTP status, the JSON (empty if it was none) and the headers, names in lower case."""

    status: int
    data: Mapping[str, Any]
    headers: Mapping[str, str]

    @property
    def error(self) -> str:
        """Slack's word for what is wrong; empty if all is well."""
        if self.data.get("ok") is True:
            return ""
        return str(self.data.get("error") or f"HTTP status {self.status}")


def token_checks(tokens: Tokens) -> list[Check]:
    """Whether each variable holds a token of its kind; a token that is not is never sent anywhere."""
    return [
        _token(
            "slack: bot token", "SLACK_BOT_TOKEN", tokens.bot, "xoxb-", "Bot User OAuth Token (OAuth & Permissions)"
        ),
        _token("slack: app token", "SLACK_APP_TOKEN", tokens.app, "xapp-", "App-Level Token (Basic Information)"),
    ]


def _token(what: str, name: str, token: str, prefix: str, where: str) -> Check:
    if not token:
        return not_ok(what, f"{name} is not set", f"set it to the {where}")
    if not token.startswith(prefix):
        kind = next((p for p in ("xoxb-", "xapp-", "xoxp-", "xoxe") if token.startswith(p)), "")
        found = f"{name} holds a token that begins with {kind}" if kind else f"{name} holds no token of Slack"
        return not_ok(what, found, f"it takes the {where}, which begins with {prefix}")
    return ok(what, f"{name} is set, {prefix}…")


def auth_check(reply: Reply) -> Check:
    """What `auth.test` said."""
    if reply.error:
        return not_ok("slack: sign-in", f"Slack says {reply.error}", REMEDIES.get(reply.error, "see docs/slack.md"))
    return ok("slack: sign-in", f"{reply.data.get('user')} in the workspace {reply.data.get('team')}")


def scope_checks(reply: Reply, settings: st.Slack) -> list[Check]:
    """What the bot token may do, from the header of any answer."""
    have = {scope.strip() for scope in reply.headers.get("x-oauth-scopes", "").split(",") if scope.strip()}
    if not have:
        return [note("slack: scopes", "Slack did not say which it gave", "look at OAuth & Permissions")]
    found = []
    needed = [*NEEDED, *([GROUPS] if watched_groups(settings) else [])]
    missing = [scope for scope in needed if scope not in have]
    if missing:
        found.append(not_ok("slack: scopes", f"missing: {', '.join(missing)}", REINSTALL))
    else:
        found.append(ok("slack: scopes", ", ".join(sorted(have))))
    if PICTURES not in have:
        what = f"{PICTURES} not given: messages and the Home tab come without pictures"
        found.append(note("slack: picture scope", what, REINSTALL))
    if not have.intersection(MEMBERSHIP):
        fix = "add channels:read and groups:read, if `doctor` is to see whether the bot is in its channels"
        found.append(note("slack: membership scopes", "not given", fix))
    if have.issuperset(HISTORY):
        found.append(ok("slack: history scopes", "given: after a crash the bot finds its own message again"))
    else:
        what = "not given: a message cut off by a crash may come twice, marked “may repeat”"
        found.append(note("slack: history scopes", what, f"add {' and '.join(HISTORY)} to have each exactly once"))
    return found


def clock_check(reply: Reply, now: datetime) -> Check:
    """How far this machine's clock is from Slack's."""
    try:
        skew_s = (now - parsedate_to_datetime(reply.headers["date"])).total_seconds()
    except (KeyError, ValueError, TypeError):  # none, none that can be read, one without a zone
        return note("clock", "Slack did not say the time")
    words = f"{abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} Slack's"
    if abs(skew_s) > SKEW_MAX_S:
        return not_ok("clock", words, "set this machine's clock (NTP): hours and limits would be wrong")
    if abs(skew_s) > SKEW_NOTED_S:
        return note("clock", words, "set this machine's clock (NTP)")
    return ok("clock", "as Slack's")


def channel_check(channel: str, reply: Reply) -> Check:
    """What `conversations.info` said of a channel."""
    what = f"slack: channel {channel}"
    if reply.error == "missing_scope":
        return note(what, "cannot be looked up without channels:read (private ones: groups:read)", REINSTALL)
    if reply.error == "channel_not_found":
        found = "not found, or private and the bot is not in it"
        return not_ok(what, found, "mend slack.channel or slack.channels; in the channel: /invite @Nightshift")
    if reply.error:
        return not_ok(what, f"Slack says {reply.error}", "see docs/slack.md")
    about = reply.data.get("channel", {})
    name = f"#{about.get('name', channel)}"
    if about.get("is_archived"):
        return not_ok(what, f"{name} is archived", "name another channel in slack.channel")
    if not about.get("is_member"):
        return not_ok(what, f"the bot is not in {name}", "in the channel: /invite @Nightshift")
    return ok(what, f"the bot is in {name}")


async def examine(
    settings: st.Settings, tokens: Tokens, base_url: str, now: datetime, timeout_s: float = TIMEOUT_S, bots: int = 0
) -> Report:
    """
    Look at everything, each call for at most *timeout_s*. Where nothing of Slack is set up, that is one note.

    Args:
        bots: How many serve this workspace now, with a connection of their own.
    """
    if not tokens.bot and not tokens.app and settings.slack.channel is None:
        return report([note("slack", "not set up; the loop works without it", "docs/slack.md takes ten minutes")])
    return report([check async for check in _checks(settings, tokens, base_url, now, timeout_s, bots)])


async def _checks(
    settings: st.Settings, tokens: Tokens, base_url: str, now: datetime, timeout_s: float, bots: int
) -> AsyncIterator[Check]:
    if settings.slack.channel is None:
        yield not_ok("slack: settings", "slack.channel is not set", "name the channel's id in nightshift.toml")
    elif not settings.slack.admins and not settings.slack.operators:
        yield note("slack: settings", "nobody may start or stop a run from Slack", "name people in slack.admins")
    else:
        yield ok("slack: settings", f"posts to {settings.slack.channel}")
    kinds = token_checks(tokens)
    for check in kinds:
        yield check
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    async with aiohttp.ClientSession(timeout=timeout, trust_env=True) as session:
        api = _Api(session, base_url)
        if kinds[0].outcome == "ok":
            async for check in _bot_checks(api, settings.slack, tokens.bot, now):
                yield check
        if kinds[1].outcome == "ok":
            yield await _connection(api, tokens.app, timeout_s, bots)


async def _bot_checks(api: _Api, settings: st.Slack, token: str, now: datetime) -> AsyncIterator[Check]:
    try:
        reply = await api.call("auth.test", token)
        yield auth_check(reply)
        if reply.error:
            return
        for check in scope_checks(reply, settings):
            yield check
        yield clock_check(reply, now)
        for channel in dict.fromkeys([*([settings.channel] if settings.channel else []), *settings.channels]):
            yield channel_check(channel, await api.call("conversations.info", token, channel=channel))
    except (aiohttp.ClientError, TimeoutError) as error:
        yield unreachable("slack: sign-in", error)


async def _connection(api: _Api, token: str, timeout_s: float, bots: int) -> Check:
    what = CONNECTION
    try:
        reply = await api.call("apps.connections.open", token)
        if reply.error:
            fix = "give it the scope connections:write" if reply.error == "missing_scope" else ""
            return not_ok(what, f"Slack says {reply.error}", fix or REMEDIES.get(reply.error, "is Socket Mode on?"))
        return await _round_trip(api.session, str(reply.data.get("url", "")), timeout_s, bots)
    except (aiohttp.ClientError, TimeoutError) as error:
        return unreachable(what, error)


async def _round_trip(session: aiohttp.ClientSession, url: str, timeout_s: float, bots: int) -> Check:
    """Open the connection, wait for Slack's hello, and for the answer to a ping."""
    began = asyncio.get_running_loop().time()
    patience = aiohttp.ClientWSTimeout(ws_close=CLOSE_S)
    async with session.ws_connect(url, autoping=False, timeout=patience) as socket:
        await socket.ping(b"nightshift")
        greeted = answered = False
        others = 0
        while not (greeted and answered):
            try:
                async with asyncio.timeout_at(began + timeout_s):
                    message = await socket.receive()
            except TimeoutError:
                missing = "hello" if not greeted else "answer to a ping"
                fix = "try again; if it stays so, look for a proxy or a firewall that holds WebSockets up"
                return not_ok(CONNECTION, f"it opens, and then comes no {missing} in {timeout_s:g} s", fix)
            if message.type == aiohttp.WSMsgType.TEXT:
                said = _said(message.data)
                if said.get("type") == "disconnect":
                    reason = str(said.get("reason"))
                    return not_ok(CONNECTION, f"Slack ends it ({reason})", GOODBYES.get(reason, "try again"))
                if said.get("type") == "hello":
                    greeted, others = True, connections(said) - 1 - bots
            elif message.type == aiohttp.WSMsgType.PONG:
                answered = True
            elif message.type == aiohttp.WSMsgType.PING:
                await socket.pong(message.data)
            elif message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR):
                return not_ok(CONNECTION, "Slack closes it at once", GOODBYES["link_disabled"])
    took_ms = (asyncio.get_running_loop().time() - began) * 1_000
    if others > 0:
        more = "1 more connection" if others == 1 else f"{others} more connections"
        what = f"it works, but Slack counts {more} with these tokens"
        return note(CONNECTION, what, "end the other bot, or give it an app of its own: each command reaches only one")
    return ok(CONNECTION, f"hello and a ping came back, {took_ms:.0f} ms in all")


def connections(hello: Mapping[str, Any]) -> int:
    """How many connections of the app Slack counts in its greeting, ours too, and perhaps one that has just died."""
    found = hello.get("num_connections")
    return found if isinstance(found, int) else 1


def _said(data: str) -> Mapping[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def unreachable(what: str, error: BaseException) -> Check:
    """What to say where Slack could not be reached."""
    kind = "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
    return not_ok(what, f"Slack cannot be reached ({kind})", "look at the network, a proxy (HTTPS_PROXY), the firewall")


class _Api:
    """The Web API, for looking only."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str) -> None:
        self.session = session
        self._base_url = base_url if base_url.endswith("/") else f"{base_url}/"

    async def call(self, method: str, token: str, **params: str) -> Reply:
        """Call a method. Raises aiohttp's errors and `TimeoutError`; a page that is no JSON is a reply without data."""
        headers = {"Authorization": f"Bearer {token}"}
        async with self.session.post(self._base_url + method, data=params, headers=headers) as answer:
            try:
                data = await answer.json()
            except (aiohttp.ContentTypeError, ValueError):
                data = {}
            lower = {name.lower(): value for name, value in answer.headers.items()}
            return Reply(answer.status, data if isinstance(data, dict) else {}, lower)
