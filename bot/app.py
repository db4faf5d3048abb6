"""Put the bot together and run it: the log, the desk, the door, the outbox, the listeners, the connection.

Guaranteed: a token that Slack does not take ends the bot at once, with the remedy; while Slack cannot be reached the
bot goes on trying and says so; a connection that looks up but gives no sign of life is made anew; told to end, it ends
within seconds, and what it had not sent yet is in the log for the next one.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.access import watched_groups
from bot.checkup import REMEDIES, Tokens, connections
from bot.desk import Desk, last_digest
from bot.drawing import draw_digest, staircase_of
from bot.errors import SignInRefused
from bot.ledger import Ledger
from bot.listeners import actions, commands, home, views
from bot.listeners.front import Front, NotTold, Once
from bot.listeners.home import Homes
from bot.looks import Looks
from bot.message import Message
from bot.message import Picture as Drawn
from bot.notifier import Notifier
from bot.outbox import Rules
from bot.people import People
from bot.poster import Poster
from bot.scheduler import alarm
from bot.views import answers, modals
from bot.views.home import LastDigest, Picture
from bot.watchdog import Signs, look
from eventstore import events as e
from eventstore import settings as st
from eventstore.bells import POLL_S, Bell
from eventstore.envelope import Event, NewEvent, format_at
from eventstore.errors import LogUnavailable
from eventstore.home import Home
from eventstore.projections.digest import window_of
from eventstore.requests import Refused
from eventstore.views import pick_started
from eventstore.worker import Worker

LOG = logging.getLogger(__name__)
CALL_TIMEOUT_S = 30
PING_EVERY_S = 10.0
SETTLE_S = 3.0
"""How long requests that are being served may take once the bot is told to end."""
RETRY_PAUSES_S = (1.0, 2.0, 5.0, 10.0, 30.0)
AUTH_ERRORS = frozenset(REMEDIES) | {
    "user_is_bot",
    "ekm_access_denied",
    "org_login_required",
    "team_access_not_granted",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """
    What the bot is made of and cannot make itself.

    Attributes:
        base_url: Of the Web API.
        zone: IANA; of the machine.
        host: Names the bot in the log.
        stop: Set to end the bot.
        ready: Called once it serves.
        sleep: Waits so many seconds of `monotonic`.
        open_log: `Worker.open`, unless a test puts itself in between.
    """

    home: Home
    settings: st.Settings
    tokens: Tokens
    base_url: str
    zone: str
    host: str
    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    new_id: Callable[[], str]
    stop: asyncio.Event
    ready: Callable[[], None] = lambda: None
    ping_every_s: float = PING_EVERY_S
    ring_every_s: float = 20.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    open_log: Callable[[Path], AbstractAsyncContextManager[Worker]] = Worker.open

    @property
    def actor(self) -> str:
        return f"bot@{self.host}"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the bot is in Slack, and the address of the workspace."""

    team: str
    team_name: str
    user: str
    bot: str
    url: str


async def serve(around: Around) -> None:
    """
    Run the bot until `around.stop` is set.

    Raises:
        SignInRefused: If Slack does not take a token.
        EventstoreError: If the log cannot be used.
    """
    async with AsyncExitStack() as stack:
        log = await stack.enter_async_context(around.open_log(around.home.log_path))
        bell = await stack.enter_async_context(Bell(around.home.bells))
        client = await stack.enter_async_context(web_client(around))
        me = await _unless_stopped(around.stop, sign_in(client, around.tokens.app))
        if me is None:
            return
        bot = Bot(around, log, bell, client, me)
        await bot.run()


async def post_digest(around: Around) -> None:
    """
    Post a digest of what happened since the last one, and end.

    Raises:
        SignInRefused: If Slack does not take a token.
        EventstoreError: If the log cannot be used.
    """
    async with AsyncExitStack() as stack:
        log = await stack.enter_async_context(around.open_log(around.home.log_path))
        bell = await stack.enter_async_context(Bell(around.home.bells))
        client = await stack.enter_async_context(web_client(around))
        me = await _unless_stopped(around.stop, sign_in(client, around.tokens.app))
        if me is not None:
            await Bot(around, log, bell, client, me).post_digest()


@asynccontextmanager
async def web_client(around: Around) -> AsyncIterator[AsyncWebClient]:
    """The client of the Web API, which repeats nothing by itself."""
    timeout = aiohttp.ClientTimeout(total=CALL_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout, trust_env=True) as session:
        yield AsyncWebClient(
            around.tokens.bot,
            base_url=around.base_url,
            timeout=CALL_TIMEOUT_S,
            session=session,
            trust_env_in_session=True,
            retry_handlers=[],
        )


async def sign_in(
    client: AsyncWebClient, app_token: str, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> Identity:
    """
    Ask Slack who we are, with both tokens, as often as it takes to reach it.

    Raises:
        SignInRefused: If Slack does not take one of them.
    """
    who = await _reached("SLACK_BOT_TOKEN", client.auth_test, sleep)
    await _reached("SLACK_APP_TOKEN", lambda: client.apps_connections_open(app_token=app_token), sleep)
    return Identity(
        str(who.get("team_id")),
        str(who.get("team")),
        str(who.get("user_id")),
        str(who.get("bot_id") or ""),
        str(who.get("url") or ""),
    )


async def _reached(
    variable: str, call: Callable[[], Awaitable[Any]], sleep: Callable[[float], Awaitable[None]]
) -> Mapping[str, Any]:
    tries = 0
    while True:
        try:
            answer: Mapping[str, Any] = (await call()).data
            return answer
        except SlackApiError as error:
            data = error.response.data if isinstance(getattr(error.response, "data", None), dict) else {}
            said = str(data.get("error") or f"HTTP status {getattr(error.response, 'status_code', '?')}")
            if said in AUTH_ERRORS:
                raise SignInRefused(variable, said, REMEDIES.get(said, "see docs/slack.md")) from None
        except (aiohttp.ClientError, OSError, TimeoutError, AttributeError, ValueError) as error:
            said = type(error).__name__
        pause_s = RETRY_PAUSES_S[min(tries, len(RETRY_PAUSES_S) - 1)]
        LOG.warning("Slack cannot be reached (%s); trying again in %g s. The loop does not need it.", said, pause_s)
        tries += 1
        await sleep(pause_s)


async def _unless_stopped(stop: asyncio.Event, work: Awaitable[Identity]) -> Identity | None:
    doing, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not doing.done():
        doing.cancel()
        await asyncio.gather(doing, return_exceptions=True)
        return None
    return doing.result()


class Bot:
    """The bot, put together. One life."""

    def __init__(self, around: Around, log: Worker, bell: Bell, client: AsyncWebClient, me: Identity) -> None:
        self.around = around
        self.me = me
        self.ledger = Ledger(log, around.now)
        self.door = Notifier(client, clock=around.monotonic, sleep=around.sleep)
        self.rules = _rules(around, me.url)
        self.poster = Poster(
            self.ledger,
            self.ledger.board,
            self.door,
            self.rules,
            catch_up=self.ledger.catch_up,
            draw=self._draw,
            holder=around.home.holder,
            now=around.now,
            new_id=around.new_id,
            actor=around.actor,
            sleep=around.sleep,
        )
        slack = around.settings.slack
        self.people = People(
            lambda method, params: _look_up(client, method, params), me.team, watched_groups(slack), around.monotonic
        )
        self.desk = Desk(
            self.ledger,
            self.people,
            Looks(self.ledger, around.home),
            digest_hour=self._digest_hour,
            slack=slack,
            home=around.home,
            home_team=me.team,
            zone=around.zone,
            now=around.now,
            limits=around.settings.limits,
            workspace_url=me.url,
        )
        self.homes = Homes(self.desk, self.door, around.monotonic, self._last_digest, self._home_picture)
        self.front = Front(self.desk, self.door, Once(around.monotonic), self._post, self._thread_of)
        self.signs = Signs(around.monotonic())
        self._is_greeted = False
        self._client = client
        self._bell = bell
        self._picture: tuple[tuple[str, int], Picture | None] = (("", 0), None)
        self.ledger.watch(self._on_events)

    async def run(self) -> None:
        """Serve until told to stop. Raises what makes going on impossible."""
        await self.ledger.catch_up()
        handler = self._connection(self._app())
        work = [
            self._follow(),
            self.poster.run(),
            self.homes.run(),
            self._connect(handler),
            self._watch(handler),
        ]
        try:
            async with alarm(self.poster.wake, self.around.ring_every_s):
                await _until_stopped(self.around.stop, work)
        finally:
            await self.front.settle(SETTLE_S)
            await handler.close_async()  # type: ignore[no-untyped-call]

    async def post_digest(self) -> None:
        """Post one digest, and whatever else waits to be posted before it."""
        await self.ledger.catch_up()
        self.poster.adopt()
        asked = e.DigestRequested(channel=self.around.settings.slack.channel or "")
        at = format_at(self.around.now())
        await self.ledger.append([NewEvent(self.around.new_id(), "", at, self.around.actor, asked)])
        await self.poster.settle()

    # ------------------------------------------------------------ parts

    def _app(self) -> AsyncApp:
        me, token = self.me, self.around.tokens.bot

        async def authorize() -> AuthorizeResult:  # ready, or Bolt would ask Slack before it serves anything
            return AuthorizeResult(
                enterprise_id=None, team_id=me.team, bot_user_id=me.user, bot_id=me.bot, bot_token=token
            )

        logger = logging.getLogger("slack_bolt")
        logger.addFilter(_worth_saying)
        app = AsyncApp(client=self._client, authorize=authorize, logger=logger)
        commands.register(app, self.front)
        actions.register(app, self.front)
        views.register(app, self.front)
        home.register(app, self.homes)
        app.error(self._on_error)
        return app

    def _connection(self, app: AsyncApp) -> AsyncSocketModeHandler:
        handler = AsyncSocketModeHandler(
            app,
            self.around.tokens.app,
            logger=logging.getLogger("slack_sdk.socket_mode"),
            ping_interval=self.around.ping_every_s,
        )
        handler.client.on_message_listeners.append(self._on_socket_message)
        return handler

    # ------------------------------------------------------------ at work

    async def _follow(self) -> None:
        """Take in what others append, as it comes."""
        while True:
            try:
                await self.ledger.catch_up()
            except LogUnavailable as error:
                LOG.warning("the log cannot be read now: %s", error)
                await asyncio.sleep(1.0)
            await self._bell.wait(POLL_S)

    def _on_events(self, page: Sequence[Event]) -> None:
        self.poster.wake()
        if any(not event.type.startswith(("post.", "training.")) for event in page):
            self.homes.changed()

    async def _connect(self, handler: AsyncSocketModeHandler) -> None:
        await handler.connect_async()  # type: ignore[no-untyped-call]
        LOG.info(
            "serving %s in the workspace %s", self.around.settings.slack.channel or "no channel", self.me.team_name
        )
        self.around.ready()

    async def _watch(self, handler: AsyncSocketModeHandler) -> None:
        """Make the connection anew where it gives no sign of life, whatever the library thinks of it."""
        while True:
            await asyncio.sleep(self.around.ping_every_s)
            client = handler.client
            self.signs.pong(client.last_ping_pong_time, self.around.monotonic())
            is_busy = client.connect_operation_lock.locked() or client.current_session is None
            if is_busy:  # the library is at it
                self.signs.renewed(self.around.monotonic())
            elif look(self.signs, self.around.monotonic(), self.around.ping_every_s) == "reconnect":
                LOG.warning("no sign of life from Slack for %.0f s: connecting anew", self.signs.silence_s)
                self.signs.renewed(self.around.monotonic())
                try:
                    async with asyncio.timeout(CALL_TIMEOUT_S):
                        await client.connect_to_new_endpoint(force=True)
                except (SlackApiError, aiohttp.ClientError, OSError, TimeoutError) as error:
                    LOG.warning("Slack cannot be reached (%s)", type(error).__name__)

    async def _on_socket_message(self, message: aiohttp.WSMessage) -> None:
        try:
            said = json.loads(message.data)
        except (TypeError, ValueError):
            return
        if said.get("type") == "hello":
            self.signs.hello(self.around.monotonic())
            self._note_others(connections(said))
        elif said.get("type") == "disconnect" and said.get("reason") == "link_disabled":
            LOG.error("Socket Mode was switched off in the app's settings: switch it on again, or nothing is heard")

    def _note_others(self, found: int) -> None:
        """Say at the start if Slack counts more connections than ours; later it may count one that ours replaces."""
        if found > 1 and not self._is_greeted:
            LOG.warning(
                "Slack counts %d connections with these tokens: another bot may serve another workspace with them, and "
                "then each command reaches only one of the two",
                found,
            )
        self._is_greeted = True

    async def _on_error(self, error: Exception, body: dict[str, Any]) -> None:
        """Every fault of a listener: an id for the person, the rest for the bot's log."""
        if isinstance(error, NotTold):
            LOG.warning("an answer could not be given: %s", error)
            return
        error_id = self.around.new_id()[-12:]
        LOG.error("error %s", error_id, exc_info=error)
        url, view = body.get("response_url"), body.get("view") or {}
        if url:
            await self.door.respond(str(url), answers.failed(error_id))
        elif view.get("type") == "modal":
            await self.door.update_view(str(view.get("id")), modals.error(error_id))
        elif body.get("trigger_id"):
            await self.door.open_view(str(body["trigger_id"]), modals.error(error_id))

    # ------------------------------------------------------------ what others ask for

    def _digest_hour(self, channel: str) -> tuple[str | None, str, datetime | None]:
        """The hour of a channel's digest (None if it has none), its zone, and when the next one comes."""
        board = self.ledger.board
        default = self.rules.default(board)
        found = board.schedules.hour(channel, default)
        if found is None:
            return None, self.around.zone, None
        return found[0], found[1], board.schedules.next_at(channel, self.around.now(), default)

    async def _draw(self, request: e.PostRequested, at: str, late_s: float) -> tuple[Message, Sequence[Message]]:
        drawn = await asyncio.to_thread(draw_digest, self.around.home.log_path, window_of(request, at), late_s)
        return drawn.head, drawn.replies

    async def _post(self, channel: str, message: Message, key: str) -> None:
        await self.door.post(channel, message, key=key, since_s=self.around.now().timestamp())

    def _thread_of(self, channel: str, tag: str) -> str:
        thread = self.ledger.board.threads.get(tag)
        return thread.ts if thread is not None and thread.channel == channel else ""

    def _last_digest(self) -> LastDigest | None:
        return last_digest(self.ledger.board, self.around.settings.slack.channel, self.me.url)

    async def _home_picture(self) -> Picture | None:
        """The staircase of the run that the Home tab tells of first, uploaded anew when it has another verdict."""
        found = pick_started(self.ledger.state, None)
        if isinstance(found, Refused) or found.best is None:
            return None
        shows = (found.tag, found.verdicts)
        if self._picture[0] != shows:
            png = await asyncio.to_thread(staircase_of, self.ledger.results, found.tag)
            words = (
                f"The scores of {found.tag}; the best is {found.best.score:.6f} of experiment {found.best.experiment}"
            )
            file = await self.door.upload(Drawn(png, f"{found.tag}.png", words))
            self._picture = (shows, Picture(file, words) if file is not None else None)
        return self._picture[1]


def _rules(around: Around, workspace_url: str) -> Rules:
    """What the outbox needs that is not in the log."""
    settings = around.settings
    return Rules(
        channel=settings.slack.channel,
        digest_at=settings.digest.hour,
        digest_zone=settings.digest.zone or around.zone,
        booted_at=around.now(),
        workspace_url=workspace_url,
    )


async def _look_up(client: AsyncWebClient, method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
    answer = (await client.api_call(method, params=dict(params))).data
    return answer if isinstance(answer, dict) else {}


def _worth_saying(record: logging.LogRecord) -> bool:
    """Not Bolt's warnings that the client and `authorize` win over SLACK_BOT_TOKEN: that is why they are there."""
    return not record.getMessage().endswith(("`token` will be unused.", "env variable) will be ignored."))


async def _until_stopped(stop: asyncio.Event, work: Sequence[Awaitable[None]]) -> None:
    """Run *work* beside each other until told to stop; what one of them raises ends all."""
    stopping = asyncio.ensure_future(stop.wait())
    tasks = [asyncio.ensure_future(one) for one in work]
    waited: set[asyncio.Future[Any]] = {stopping, *tasks}
    try:
        while not stopping.done():
            done, waited = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        for task in (stopping, *tasks):
            task.cancel()
        await asyncio.gather(stopping, *tasks, return_exceptions=True)
