"""The HTTP side of the loopback Slack: tokens, scopes, rates, faults on demand, and the record of every call."""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self

from aiohttp import web

from bot.sandbox.clock import Clock, LoopClock
from bot.sandbox.faults import DropAfter, DropBefore, Error, Fault, Html503, Limited, Slow
from bot.sandbox.methods import METHODS, SCOPES, Method
from bot.sandbox.model import Call, Channel, Delivery, File, Payload, Person, Ping, Posted, Refusal, ShownView
from bot.sandbox.rates import Rates
from bot.sandbox.sockets import Hub, Reason
from bot.sandbox.workspace import PEOPLE, TEAM, Workspace, usual_channels

MOST_BYTES = 64 << 20
_JSON_FIELDS = ("blocks", "attachments", "metadata", "view", "files", "message")
Moment = Literal["arrived", "done", "answered"]
Watch = Callable[[Moment, str, Mapping[str, Any]], bool]
"""Is told of each call (method, arguments) at each moment of it; True: its caller is gone, and nothing more is done."""

_HTML = "<!DOCTYPE html><html><head><title>Slack</title></head><body>Service unavailable</body></html>"


class Loopback:
    """
    A Slack on 127.0.0.1 for one app. Use it as an async context; give `base_url` and the tokens to the real clients.

    Args:
        clock: Rates, triggers, redeliveries, response URLs and files run on it.
        people, channels, groups: Who and what is there; groups by id, with the ids of their members.
        scopes: What the bot token was granted.
        ack_deadline_s: Real seconds until a person sees `operation_timeout`.
        post_burst: Posts to one channel that may come at once.
        file_delay_s: How long after an upload blocks cannot show the file, on the clock.
        ping_every_s: Real seconds between the pings to a socket.
        salt: Makes ids differ from those of another instance; random unless given.

    Attributes:
        calls: Every request, in the order in which they were answered.
        latency_s: Real seconds that every answer takes longer.
        watch: Is told of each call, if set: before Slack looks at it, once it is done, once the answer has left.
        inactive: The account was deactivated: every call with a token is refused with `account_inactive`.
    """

    bot_token = "xoxb-sandbox-bot"
    app_token = "xapp-sandbox-app"
    team_id = TEAM

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        people: Iterable[Person] = PEOPLE,
        channels: Iterable[Channel] | None = None,
        groups: Mapping[str, Sequence[str]] | None = None,
        scopes: Iterable[str] = SCOPES,
        ack_deadline_s: float = 3.0,
        post_burst: int = 2,
        file_delay_s: float = 0.0,
        ping_every_s: float = 5.0,
        salt: str | None = None,
        port: int = 0,
    ) -> None:
        self.clock = clock or LoopClock()
        self.scopes = frozenset(scopes)
        self._numbers = itertools.count(1)
        self.space = Workspace(
            self.clock.now,
            self.number,
            secrets.token_hex(3).upper() if salt is None else salt,
            people,
            usual_channels() if channels is None else channels,
            groups or {},
            file_delay_s,
        )
        self.hub = Hub(self.space, self.clock, self.number, self.changed, ack_deadline_s, ping_every_s)
        self.rates = Rates(post_burst)
        self.calls: list[Call] = []
        self.latency_s = 0.0
        self.inactive = False
        self.watch: Watch | None = None
        self._faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self._news = asyncio.Event()
        self._down = False
        self._port = port
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None

    # Life

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=MOST_BYTES)
        app.router.add_route("*", "/api/{method}", self._api)
        app.router.add_post("/upload/v1/{file}", self._upload)
        app.router.add_post("/respond/{url}", self._respond)
        app.router.add_get("/files-pri/{file}/{name}", self._download)
        app.router.add_get("/link/", self.hub.serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.hub.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _listen(self) -> None:
        assert self._runner is not None
        self._site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await self._site.start()
        self._port = self._runner.addresses[0][1]

    @property
    def address(self) -> str:
        """Where it listens, without a path."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def base_url(self) -> str:
        """What the Web API clients take as `base_url`; every other address comes in replies."""
        return f"{self.address}/api/"

    async def go_down(self) -> None:
        """Stop listening and break every connection, until `come_up`."""
        self._down = True
        if self._site is not None:
            await self._site.stop()
        self.hub.drop()

    async def come_up(self) -> None:
        """Listen again on the same port."""
        self._down = False
        await self._listen()

    # The record

    def number(self) -> int:
        """Give the next place in the record of everything."""
        return next(self._numbers)

    def changed(self) -> None:
        """Wake whoever waits in `until`."""
        self._news.set()
        self._news = asyncio.Event()

    async def change(self) -> None:
        """Wait for the next thing to happen."""
        await self._news.wait()

    async def until(self, holds: Callable[[], object], timeout_s: float = 20.0) -> None:
        """Wait until *holds()* is true. Raises TimeoutError after *timeout_s* real seconds."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        while not holds():
            if (left := end - loop.time()) <= 0:
                raise TimeoutError(f"what was waited for did not happen within {timeout_s:g} s")
            news = self._news
            try:  # what the test looks at may also change without Slack being told
                await asyncio.wait_for(news.wait(), min(left, 0.02))
            except TimeoutError:
                continue

    async def connected(self, sockets: int = 1, timeout_s: float = 20.0) -> None:
        """Wait until so many sockets are up."""
        await self.until(lambda: len(self.hub.sockets) >= sockets, timeout_s)

    @property
    def deliveries(self) -> list[Delivery]:
        """Every envelope, in order."""
        return self.hub.deliveries

    @property
    def timeouts(self) -> list[Delivery]:
        """Envelopes that were not acknowledged in time: the user saw `operation_timeout`."""
        return self.hub.timeouts

    @property
    def pings(self) -> list[Ping]:
        """Who was notified by messages of the app."""
        return self.space.pings

    @property
    def early_retries(self) -> int:
        """Calls that came before the `Retry-After` of their method had passed."""
        return self.rates.early

    def messages(self, channel: str) -> tuple[Posted, ...]:
        """What stands in a channel now, oldest first; threads aside."""
        return tuple(posted for posted in self.space.messages.get(channel, ()) if posted.shown_in_channel())

    def thread(self, channel: str, ts: str) -> tuple[Posted, ...]:
        """The replies to a message, oldest first."""
        return tuple(posted for posted in self.space.messages.get(channel, ()) if posted.thread_ts == ts != posted.ts)

    def ephemerals(self, user: str, channel: str | None = None) -> tuple[Posted, ...]:
        """What only *user* sees, oldest first."""
        shown = (each for each in self.space.ephemerals if each.seen_by == user)
        return tuple(each for each in shown if channel in (None, each.channel))

    def views(self, user: str) -> tuple[ShownView, ...]:
        """The modals that *user* has open, the lowest first."""
        return tuple(shown for shown in self.space.stacks.get(user, ()) if shown.open)

    def home(self, user: str) -> ShownView | None:
        """The App Home of *user*, if one was published."""
        return self.space.homes.get(user)

    def pictures(self, posted: Posted) -> tuple[File, ...]:
        """The files that a message shows, with their bytes and their alt text."""
        return self.space.pictures(posted)

    # Faults

    def fail(self, method: str, fault: Fault, times: int = 1) -> None:
        """
        Let the next calls of *method* go wrong, in the order in which `fail` was called. *method* is also "upload",
        "download", "response_url", or "*" for whichever call comes.
        """
        self._faults[method].extend([fault] * times)

    async def disconnect(self, reason: Reason = "refresh_requested", close_after_s: float | None = 0.0) -> None:
        """Send `disconnect` to every socket and close it after so many real seconds; None: never."""
        await self.hub.say_goodbye(reason, close_after_s)

    def drop(self) -> None:
        """Break every socket without a word."""
        self.hub.drop()

    def half_open(self) -> None:
        """Let every socket look up and be deaf."""
        self.hub.deafen()

    def _fault(self, method: str) -> Fault | None:
        queue = self._faults[method] or self._faults["*"]
        return queue.popleft() if queue else None

    # Requests

    async def _api(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"]
        args, complaint = await _arguments(request)
        token = _token(request, args)
        return await self._answer(request, method, args, lambda: self._ok(method, token, args, complaint))

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        data = await request.read()
        name = request.match_info["file"]
        return await self._answer(request, "upload", {"file": name}, lambda: self._store(name, data))

    async def _respond(self, request: web.Request) -> web.StreamResponse:
        args, complaint = await _arguments(request)
        name = request.match_info["url"]
        return await self._answer(request, "response_url", args, lambda: self._take_answer(name, args, complaint))

    async def _download(self, request: web.Request) -> web.StreamResponse:
        name, token = request.match_info["file"], _token(request, {})
        return await self._answer(request, "download", {"file": name}, lambda: self._fetch(name, token))

    async def _answer(
        self, request: web.Request, method: str, args: Payload, do: Callable[[], web.Response]
    ) -> web.StreamResponse:
        """Answer one request with whatever is to go wrong with it, and write it down."""
        fault = self._fault(method)
        slow = fault.seconds if isinstance(fault, Slow) else 0.0
        if self.latency_s + slow:
            await asyncio.sleep(self.latency_s + slow)
        if self._down or isinstance(fault, DropBefore) or self._is_gone("arrived", method, args):
            return self._break(request, method, args, processed=False)
        try:
            if fault is not None and not isinstance(fault, Slow | DropAfter):
                return self._wrong(fault, method, args)
            reply = do()
        except Refusal as refusal:
            reply = _refused(refusal, method)
            self._note(method, args, refusal.error, refusal.messages)
        else:
            if isinstance(fault, DropAfter) or self._is_gone("done", method, args):
                return self._break(request, method, args, processed=True)
            self._note(method, args)
        if self.watch is not None:
            await reply.prepare(request)
            await reply.write_eof()
            self._is_gone("answered", method, args)
        return reply

    def _is_gone(self, moment: Moment, method: str, args: Payload) -> bool:
        return self.watch is not None and self.watch(moment, method, args)

    def _note(
        self,
        method: str,
        args: Payload,
        error: str | None = None,
        messages: tuple[str, ...] = (),
        *,
        processed: bool = True,
    ) -> None:
        kept = {name: value for name, value in args.items() if name != "token"}
        now = self.clock.now()
        self.calls.append(
            Call(self.number(), now, method, kept, error, messages, processed and error in (None, "dropped"))
        )
        self.changed()

    def _break(self, request: web.Request, method: str, args: Payload, *, processed: bool) -> web.Response:
        self._note(method, args, "dropped", processed=processed)
        if isinstance(request.transport, asyncio.Transport):
            request.transport.abort()
        return web.Response()

    def _wrong(self, fault: Fault, method: str, args: Payload) -> web.Response:
        if isinstance(fault, Error):
            raise Refusal(fault.error)
        if isinstance(fault, Limited):
            self.rates.bar(method, str(args.get("channel", "")), fault.retry_after_s, self.clock.now())
            raise Refusal("ratelimited", retry_after=fault.retry_after_s)
        assert isinstance(fault, Html503)
        self._note(method, args, "http_503")
        return web.Response(status=503, text=_HTML, content_type="text/html")

    def _ok(self, name: str, token: str, args: Payload, complaint: str) -> web.Response:
        method = METHODS.get(name)
        if method is None:
            raise Refusal("unknown_method")
        self._permit(name, method, token, args)
        if complaint:
            raise Refusal(complaint)
        for each in method.required:
            if args.get(each) in (None, ""):
                raise Refusal("invalid_arguments", f"[ERROR] missing required field: {each}")
        body = self._addressed(name, {"ok": True} | method.do(self.space, args))
        return web.json_response(body, headers={"x-oauth-scopes": ",".join(sorted(self.scopes))})

    def _permit(self, name: str, method: Method, token: str, args: Payload) -> None:
        if not token:
            raise Refusal("not_authed")
        if not token.startswith(("xoxb-", "xapp-")) or token not in (self.bot_token, self.app_token):
            raise Refusal("invalid_auth")
        if not token.startswith(method.token):
            raise Refusal("not_allowed_token_type")
        if self.inactive:
            raise Refusal("account_inactive")
        tier_wait = (
            self.rates.ask(name, str(args.get("channel", "")), method.tier, self.clock.now()) if method.tier else 0
        )
        if tier_wait:
            raise Refusal("ratelimited", retry_after=tier_wait)
        needed = method.scope_for(self.space, args)
        if needed and method.token == "xoxb-" and needed not in self.scopes:
            raise Refusal("missing_scope", needed=needed, provided=",".join(sorted(self.scopes)))

    def _addressed(self, name: str, body: Payload) -> Payload:
        """Put our own address before the paths of a reply."""
        if name == "apps.connections.open":
            self.hub.tickets.add(body["url"].split("ticket=")[1].split("&")[0])
            body["url"] = f"ws://127.0.0.1:{self._port}{body['url']}"
        if "upload_url" in body:
            body["upload_url"] = self.address + body["upload_url"]
        for file in (body.get("file"), *(body.get("files") or ())):
            if isinstance(file, dict) and "url_private" in file:
                file["url_private"] = file["url_private_download"] = self.address + file["url_private"]
        return body

    def _store(self, name: str, data: bytes) -> web.Response:
        file = self.space.files.get(name)
        if file is None or file.ready_at is not None:
            raise Refusal("file_not_found")
        file.data = data
        return web.Response(text=f"OK - {len(data)}")

    def _fetch(self, name: str, token: str) -> web.Response:
        file = self.space.files.get(name)
        if token != self.bot_token:
            raise Refusal("invalid_auth")
        if "files:read" not in self.scopes:
            raise Refusal("missing_scope", needed="files:read", provided=",".join(sorted(self.scopes)))
        if file is None or file.ready_at is None:
            raise Refusal("file_not_found")
        return web.Response(body=file.data)

    def _take_answer(self, name: str, args: Payload, complaint: str) -> web.Response:
        if complaint:
            raise Refusal(complaint)
        self.space.answer(name, args)
        return web.Response(text="ok")


def _refused(refusal: Refusal, method: str) -> web.Response:
    body: Payload = {"ok": False, "error": refusal.error}
    extra = dict(refusal.extra)
    if refusal.error == "ratelimited":
        return web.json_response(body, status=429, headers={"Retry-After": str(extra["retry_after"])})
    if refusal.messages:
        body |= {"errors": list(refusal.messages), "response_metadata": {"messages": list(refusal.messages)}}
    status = 404 if method in ("upload", "download", "response_url") else 200
    return web.json_response(body | extra, status=status)


def _token(request: web.Request, args: Mapping[str, Any]) -> str:
    header = request.headers.get("Authorization", "")
    return header.removeprefix("Bearer ") if header.startswith("Bearer ") else str(args.get("token", ""))


async def _arguments(request: web.Request) -> tuple[Payload, str]:
    """Read arguments from the query and the body, as a form or as JSON. The second is what Slack says to bad JSON."""
    args: Payload = dict(request.query)
    if request.content_type == "application/json":
        try:
            body = await request.json()
        except ValueError:
            return args, "invalid_json"
        if not isinstance(body, dict):
            return args, "json_not_object"
        args |= {name: value for name, value in body.items() if value is not None}
    elif request.can_read_body:
        args |= {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
    for name in _JSON_FIELDS:
        if isinstance(args.get(name), str):
            try:
                args[name] = json.loads(args[name])
            except ValueError:
                continue  # the validator says what it must be
    return args, ""
