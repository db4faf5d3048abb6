"""The Socket Mode side: sockets, envelopes, acknowledgements, and what Slack does when they stay away."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal

from aiohttp import WSMsgType, web

from bot.sandbox.clock import Clock
from bot.sandbox.model import Delivery, Payload, Refusal
from bot.sandbox.workspace import APP_ID, Workspace

MOST_SOCKETS = 10
LIFE_S = 18_060
RETRIES_S = (0.0, 60.0, 300.0)
"""After which waits an event that nobody acknowledged is sent again."""

CLOSE_S = 1.0
"""Real seconds that a socket gets to close in good order."""

Reason = Literal["warning", "refresh_requested", "link_disabled", "too_many_websockets"]


@dataclass(slots=True, eq=False)
class Socket:
    """One connection. *leaving*: told to go; *deaf*: half open, nothing passes in either direction."""

    number: int
    web: web.WebSocketResponse
    transport: asyncio.Transport
    leaving: bool = False
    deaf: bool = False


class Hub:
    """
    All sockets of the app.

    Attributes:
        ack_deadline_s: Real seconds until an envelope counts as not acknowledged.
        deliveries: Every envelope, in order, also those that found no socket.
        timeouts: Those that nobody acknowledged in time.
        strays: Acknowledgements of envelopes that were never sent.
        refused: Acknowledgements whose content Slack does not take, with the reason.
        heard: Pings of clients that were answered.
    """

    def __init__(
        self,
        space: Workspace,
        clock: Clock,
        number: Callable[[], int],
        changed: Callable[[], None],
        ack_deadline_s: float,
        ping_every_s: float,
    ) -> None:
        self._space, self._clock, self._number, self._changed = space, clock, number, changed
        self.ack_deadline_s, self._ping_every_s = ack_deadline_s, ping_every_s
        self._count = 0
        self._turn = 0
        self._acks: dict[str, tuple[Delivery, float, asyncio.Event]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.sockets: list[Socket] = []
        self.tickets: set[str] = set()
        self.deliveries: list[Delivery] = []
        self.timeouts: list[Delivery] = []
        self.strays: list[Payload] = []
        self.refused: list[tuple[Delivery, Refusal]] = []
        self.heard = 0

    # Connections

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Serve one socket until it closes."""
        ticket = request.query.get("ticket", "")
        if ticket not in self.tickets:
            return web.Response(status=401, text="invalid ticket")
        self.tickets.discard(ticket)
        socket = web.WebSocketResponse(autoping=False, timeout=CLOSE_S, max_msg_size=1 << 24)
        await socket.prepare(request)
        assert isinstance(request.transport, asyncio.Transport)
        self._count += 1
        me = Socket(self._count, socket, request.transport)
        if len(self.sockets) >= MOST_SOCKETS:
            await self._say_goodbye(me, "too_many_websockets")
            await socket.close()
            return socket
        await socket.send_json(self._hello(len(self.sockets) + 1))
        self.sockets.append(me)
        self._changed()
        pinger = asyncio.create_task(self._ping(me))
        try:
            async for message in socket:
                await self._take(me, message.type, message.data)
        finally:
            pinger.cancel()
            self.sockets.remove(me)
            self._changed()
        return socket

    def _hello(self, connections: int) -> Payload:
        return {
            "type": "hello",
            "num_connections": connections,
            "debug_info": {"host": "applink-sandbox", "build_number": 1, "approximate_connection_time": LIFE_S},
            "connection_info": {"app_id": APP_ID},
        }

    async def _ping(self, socket: Socket) -> None:
        while True:
            await asyncio.sleep(self._ping_every_s)
            if not socket.deaf:
                with contextlib.suppress(ConnectionError):  # it is closing; the reader says so too
                    await socket.web.ping(b"Ping from applink-sandbox")

    async def _take(self, socket: Socket, kind: WSMsgType, data: Any) -> None:
        if socket.deaf:
            return
        if kind == WSMsgType.PING:
            self.heard += 1
            await socket.web.pong(data)
        elif kind == WSMsgType.TEXT:
            self._acknowledge(json.loads(data))

    def _acknowledge(self, ack: Payload) -> None:
        """An ack counts on whichever socket it comes."""
        sent = self._acks.get(str(ack.get("envelope_id")))
        if sent is None:
            self.strays.append(ack)
        else:
            delivery, since, event = sent
            delivery.acks += 1
            if delivery.ack_s is None:
                delivery.ack_s = asyncio.get_running_loop().time() - since
                delivery.ack = ack.get("payload")
            event.set()
        self._changed()

    async def say_goodbye(self, reason: Reason, close_after_s: float | None) -> None:
        """Tell every socket to go, and close it after so many real seconds, or never."""
        for socket in list(self.sockets):
            await self._say_goodbye(socket, reason)
            if close_after_s is not None:
                self._start(self._close_later(socket, close_after_s))

    async def _say_goodbye(self, socket: Socket, reason: Reason) -> None:
        socket.leaving = True
        await socket.web.send_json({"type": "disconnect", "reason": reason, "debug_info": {"host": "applink-sandbox"}})

    async def _close_later(self, socket: Socket, after_s: float) -> None:
        await asyncio.sleep(after_s)
        await socket.web.close()

    def drop(self) -> None:
        """Break every connection without a word."""
        for socket in self.sockets:
            socket.transport.abort()

    def deafen(self) -> None:
        """Leave every connection half open: nothing is read, answered or sent any more, and nobody is told."""
        for socket in self.sockets:
            socket.deaf = True

    async def close(self) -> None:
        """Close every socket and end every task."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for socket in list(self.sockets):
            socket.transport.abort() if socket.deaf else await socket.web.close()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Envelopes

    async def send(
        self,
        kind: Literal["slash_commands", "interactive", "events_api"],
        payload: Payload,
        *,
        envelope_id: str = "",
        attempt: int | None = None,
        reason: str | None = None,
        accepts: bool = False,
    ) -> Delivery:
        """Send an envelope to one of the sockets and wait for its ack, at most until the deadline."""
        delivery = Delivery(
            self._number(), self._clock.now(), kind, envelope_id or self._space.new_id("E"), payload, attempt, reason
        )
        self.deliveries.append(delivery)
        socket = self._next()
        if socket is None:
            self._changed()
            return delivery
        delivery.socket = socket.number
        arrived = asyncio.Event()
        self._acks[delivery.envelope_id] = (delivery, asyncio.get_running_loop().time(), arrived)
        if not socket.deaf:
            with contextlib.suppress(ConnectionError):  # it broke just now: nobody acknowledges
                await socket.web.send_json(_envelope(delivery, accepts))
        try:
            await asyncio.wait_for(arrived.wait(), self.ack_deadline_s)
        except TimeoutError:
            delivery.timed_out = True
            self.timeouts.append(delivery)
        self._changed()
        return delivery

    def _next(self) -> Socket | None:
        """Take turns; sockets that were told to go come last."""
        open_ones = [socket for socket in self.sockets if not socket.web.closed]
        staying = [socket for socket in open_ones if not socket.leaving] or open_ones
        self._turn += 1
        return staying[self._turn % len(staying)] if staying else None

    async def send_event(self, payload: Payload) -> Delivery:
        """Send an event; while nobody acknowledges it, it comes again at once, after one minute and after five."""
        first = await self.send("events_api", payload, attempt=0, reason="")
        if not first.acked:
            self._start(self._retry(first))
        return first

    async def _retry(self, first: Delivery) -> None:
        for attempt, wait_s in enumerate(RETRIES_S, 1):
            await self._clock.until(self._clock.now() + wait_s)
            reason = "timeout" if first.socket is not None else "connection_failed"
            again = await self.send("events_api", first.payload, attempt=attempt, reason=reason)
            first.retries.append(again)
            self._changed()
            if again.acked:
                return


def _envelope(delivery: Delivery, accepts: bool) -> Payload:
    body: Payload = {
        "envelope_id": delivery.envelope_id,
        "payload": delivery.payload,
        "type": delivery.kind,
        "accepts_response_payload": accepts,
    }
    if delivery.attempt is not None:
        body |= {"retry_attempt": delivery.attempt, "retry_reason": delivery.reason or ""}
    return body
