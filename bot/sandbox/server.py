"""A strict Slack on loopback, and the people who use it.

    async with Sandbox(clock=ManualClock()) as slack:
        client = AsyncWebClient(slack.bot_token, base_url=slack.base_url)
        ...                                                    # a real Bolt app with a real Socket Mode handler
        await slack.connected()
        seen = await slack.command("/nightshift", "start nov21", user="U1", channel="C1")
        assert seen.acked and seen.texts == ("Asked for nov21.",)

It refuses what Slack refuses, by the same error, and keeps a record of everything in order. What each act of a person
led to is a `Seen`: the ack, what only they see, what came to the channel, which modals are open.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bot.sandbox.forms import action, fill_in, touchable, unanswered
from bot.sandbox.loopback import Loopback
from bot.sandbox.methods import file_of, message_of, view_of
from bot.sandbox.model import Channel, Delivery, File, Payload, Person, Posted, Refusal, ShownView
from bot.sandbox.workspace import APP_ID, BOT_USER, DOMAIN, TEAM

_TOKEN = "verification-is-deprecated"


@dataclass(slots=True)
class Seen:
    """
    What a person sees of what they did. Everything but *complaints* is looked up when it is asked for.

    Attributes:
        delivery: The envelope; None when Slack's own client held it back.
        complaints: Errors under the fields of a modal, by block id: Slack's own, or those of `response_action`.
        trouble: What Slack says in the modal when the answer of the app to it was not valid.
        n: Place in the record at which it began.
    """

    slack: Sandbox
    delivery: Delivery | None
    user: str
    channel: str
    what: str
    trigger: str = ""
    url: str = ""
    complaints: Mapping[str, str] | None = None
    trouble: str = ""
    n: int = 0

    @property
    def acked(self) -> bool:
        """Whether the app answered within 3 s."""
        return self.delivery is not None and self.delivery.acked

    @property
    def ack_s(self) -> float | None:
        """Real seconds until the ack."""
        return self.delivery.ack_s if self.delivery else None

    @property
    def timed_out(self) -> bool:
        """Whether the person saw `operation_timeout`."""
        return self.delivery is not None and self.delivery.timed_out

    @property
    def dispatch_failed(self) -> bool:
        """Whether no socket was up."""
        return self.delivery is not None and self.delivery.socket is None

    @property
    def ephemerals(self) -> tuple[Posted, ...]:
        """What only this person was shown since."""
        return tuple(each for each in self.slack.ephemerals(self.user) if each.n > self.n and self._mine(each))

    @property
    def posts(self) -> tuple[Posted, ...]:
        """What came to the channel (from a form: to any) or was edited there since, threads included."""
        rooms = self.slack.space.messages
        there = [each for room, posts in rooms.items() if self.channel in ("", room) for each in posts]
        return tuple(each for each in there if each.n > self.n and self._mine(each))

    @property
    def views(self) -> tuple[ShownView, ...]:
        """The modals that are open and were opened or changed since, the lowest first."""
        shown = self.slack.views(self.user)
        return tuple(each for each in shown if each.n > self.n and (each.trigger == self.trigger or each.history))

    @property
    def home(self) -> ShownView | None:
        """The App Home, if it was published since."""
        shown = self.slack.home(self.user)
        return shown if shown and shown.n > self.n else None

    @property
    def texts(self) -> tuple[str, ...]:
        """All that Slack or the app told this person, as text."""
        said = [each.text for each in self.ephemerals]
        if self.dispatch_failed:
            said.insert(0, f'{self.what} failed with the error "dispatch_failed"')
        if self.timed_out:
            said.insert(0, f'{self.what} failed with the error "operation_timeout"')
        return (*said, *(self.complaints or {}).values(), *([self.trouble] if self.trouble else []))

    def anything(self) -> bool:
        """Whether there is anything to see."""
        return bool(self.texts or self.posts or self.views or self.home)

    def answered(self, touched: Posted | None = None) -> bool:
        """Whether there is an answer to this very act: for this person, by its address, or in the *touched* message."""
        mine = any(each.answer_to == self.url or each is touched for each in self.posts)
        return bool(mine or self.texts or self.views or self.home)

    def _mine(self, posted: Posted) -> bool:
        return posted.answer_to in (None, self.url)


class Sandbox(Loopback):
    """The loopback Slack, with people: each of their acts reaches the app as Slack sends it."""

    should_escape = False
    """As in the manifest; True: `@ada` and `#research` in a command arrive as `<@U1|ada>` and `<#C1|research>`."""

    # What people do

    async def command(
        self, command: str, text: str = "", *, user: str = "U1", channel: str = "C1", wait_s: float = 5.0
    ) -> Seen:
        """Type a slash command. Waits for the ack and then, at most *wait_s* real seconds, for the answer."""
        self._granted("commands")
        who, where = self.space.person(user), self.space.channel(channel)
        url = self.space.answer_url(user, channel)
        trigger = self.space.trigger(user)
        payload = {
            "token": _TOKEN,
            "api_app_id": APP_ID,
            "context_team_id": TEAM,
            "command": command,
            "text": self._typed(text),
            "user_id": user,
            "user_name": who.name,
            "channel_id": channel,
            "channel_name": where.name,
            "team_id": who.team_id or TEAM,
            "team_domain": DOMAIN,
            "is_enterprise_install": "false",
            "response_url": f"{self.address}/respond/{url.id}",
            "trigger_id": trigger,
        }
        seen = Seen(self, None, user, channel, command, trigger, url.id, n=self.number())
        seen.delivery = await self.hub.send("slash_commands", payload, accepts=True)
        self._show_ack(seen.delivery, url.id)
        return await self._watch(seen, wait_s, seen.answered)

    async def click(
        self,
        message_ts: str,
        action_id: str,
        *,
        user: str = "U1",
        channel: str = "C1",
        value: str | None = None,
        confirm: bool = True,
        wait_s: float = 5.0,
    ) -> Seen:
        """
        Click an element of a message, also of one that only *user* sees. *value* is the option of a menu, or tells
        buttons with the same action id apart; *confirm* False answers no to its dialog.

        Raises:
            NothingToTouch: There is no such element, or no such option.
            Refusal: There is no such message.
        """
        posted = self._message(channel, message_ts, user)
        url = self.space.answer_url(user, posted.channel, posted)
        touched = touchable(posted.blocks, action_id, value)
        seen = Seen(self, None, user, posted.channel, action_id, self.space.trigger(user), url.id, n=self.number())
        if touched.element.get("confirm") and not confirm:
            return seen
        payload = self._block_actions(self.space.person(user), seen.trigger) | {
            "container": {
                "type": "message",
                "message_ts": posted.ts,
                "channel_id": posted.channel,
                "is_ephemeral": posted.seen_by is not None,
            },
            "channel": {"id": posted.channel, "name": self.space.channel(posted.channel).name},
            "message": message_of(self.space, posted, metadata=True),
            "state": {"values": fill_in(posted.blocks, {})},
            "response_url": f"{self.address}/respond/{url.id}",
            "actions": [action(touched, value, self.clock.now())],
        }
        seen.delivery = await self.hub.send("interactive", payload)
        return await self._watch(seen, wait_s, lambda: seen.answered(posted))

    async def click_view(
        self,
        view_id: str,
        action_id: str,
        *,
        user: str = "U1",
        value: str | None = None,
        confirm: bool = True,
        wait_s: float = 5.0,
    ) -> Seen:
        """Click an element of a modal or of the App Home. Raises as `click` does."""
        shown = self._view(view_id)
        touched = touchable(shown.body["blocks"], action_id, value)
        modal = shown.body["type"] == "modal"
        trigger = self.space.trigger(user, shown.id if modal else None)
        seen = Seen(self, None, user, "", action_id, trigger, n=self.number())
        if touched.element.get("confirm") and not confirm:
            return seen
        state = fill_in(shown.body["blocks"], {})
        payload = self._block_actions(self.space.person(user), trigger) | {
            "container": {"type": "view", "view_id": shown.id},
            "view": view_of(shown, state),
            "actions": [action(touched, value, self.clock.now())],
        }
        seen.delivery = await self.hub.send("interactive", payload)
        return await self._watch(seen, wait_s)

    async def submit(
        self, view_id: str, values: Mapping[str, Any] | None = None, *, user: str = "U1", wait_s: float = 0.0
    ) -> Seen:
        """
        Fill a modal in, by block id or action id, and submit it. What Slack's own client complains about is not sent.
        A file is given as `(name, bytes)` in a list.

        Raises:
            NothingToTouch: A value is for a field that is not there.
            Refusal: There is no such view open.
        """
        shown = self._view(view_id)
        given = {name: self._uploads(value, user) for name, value in (values or {}).items()}
        state = fill_in(shown.body["blocks"], given)
        trigger = self.space.trigger(user, shown.id)
        seen = Seen(self, None, user, "", str(shown.body.get("callback_id", "")), trigger, n=self.number())
        if complaints := unanswered(shown.body["blocks"], state):
            seen.complaints = complaints
            return seen
        payload = self._interaction(self.space.person(user), "view_submission") | {
            "trigger_id": trigger,
            "view": view_of(shown, state),
            "response_urls": [],
        }
        seen.delivery = await self.hub.send("interactive", payload, accepts=True)
        if seen.delivery.acked:
            self._follow_up(seen, shown, seen.delivery.ack or {})
        return await self._watch(seen, wait_s)

    async def close_view(self, view_id: str, *, user: str = "U1") -> Delivery | None:
        """Close a modal by hand; the app hears of it if the view asked for that."""
        shown = self._view(view_id)
        everything = bool(shown.body.get("clear_on_close"))
        self.space.close_view(shown, all_of_them=everything)
        self.changed()
        if not shown.body.get("notify_on_close"):
            return None
        payload = self._interaction(self.space.person(user), "view_closed")
        return await self.hub.send("interactive", payload | {"view": view_of(shown), "is_cleared": everything})

    async def open_home(self, user: str = "U1", *, wait_s: float = 5.0) -> Seen:
        """Open the App Home. Waits for the ack and then, at most *wait_s* real seconds, for it to be published anew."""
        home = self.space.homes.get(user)
        event: Payload = {
            "type": "app_home_opened",
            "user": user,
            "channel": self.space.direct(user).id,
            "tab": "home",
            "event_ts": self.space.new_ts(),
        }
        if home is not None:
            event["view"] = view_of(home)
        seen = Seen(self, None, user, "", "app_home_opened", n=self.number())
        seen.delivery = await self.event(event)
        return await self._watch(seen, wait_s, lambda: seen.home)

    async def mention(self, text: str, *, user: str = "U1", channel: str = "C1", wait_s: float = 5.0) -> Seen:
        """Say something to the bot in a channel."""
        self._granted("app_mentions:read")
        posted = self.post_as(f"<@{BOT_USER}> {text}", user=user, channel=channel, typed=False)
        seen = Seen(self, None, user, channel, "app_mention", n=self.number())
        event = {"type": "app_mention", "user": user, "text": posted.text, "ts": posted.ts, "channel": channel}
        seen.delivery = await self.event(event | {"event_ts": posted.ts})
        return await self._watch(seen, wait_s)

    def post_as(
        self, text: str, *, user: str = "U1", channel: str = "C1", thread_ts: str | None = None, typed: bool = True
    ) -> Posted:
        """Say something in a channel as a person; the app hears nothing of it."""
        message = {"text": self._typed(text) if typed else text, "thread_ts": thread_ts}
        posted = self.space.post(self.space.channel(channel).id, message, user)
        self.changed()
        return posted

    def post_by_hand(self, text: str, **more: Any) -> Posted:
        """Put a message of the bot into C1 without a call, as one that an earlier process left there."""
        posted = self.space.post(more.pop("channel", "C1"), {"text": text, **more})
        self.changed()
        return posted

    # Deliveries

    async def event(self, event: Payload, event_id: str | None = None) -> Delivery:
        """Send an event; unless it is acknowledged it comes again by itself."""
        self._event_scope(str(event.get("type")))
        body = {
            "token": _TOKEN,
            "team_id": TEAM,
            "api_app_id": APP_ID,
            "event": event,
            "type": "event_callback",
            "event_id": event_id or self.space.new_id("Ev"),
            "event_time": int(self.clock.now()),
            "authorizations": [{"team_id": TEAM, "user_id": BOT_USER, "is_bot": True, "is_enterprise_install": False}],
        }
        return await self.hub.send_event(body)

    async def redeliver(self, delivery: Delivery) -> Delivery:
        """Send the same envelope once more, as Slack sometimes does, with `retry_attempt` 0."""
        attempt = 0 if delivery.kind == "events_api" else None
        return await self.hub.send(
            delivery.kind, delivery.payload, envelope_id=delivery.envelope_id, attempt=attempt, reason=""
        )

    # Parts

    async def _watch(self, seen: Seen, wait_s: float, awaited: Callable[[], object] | None = None) -> Seen:
        """Wait for anything to see, or only for what is *awaited*: other messages may come just then."""
        if wait_s and seen.acked:
            try:
                await self.until(awaited or seen.anything, wait_s)
            except TimeoutError:
                return seen  # there is nothing to see
        return seen

    def _granted(self, scope: str) -> None:
        if scope not in self.scopes:
            raise Refusal("missing_scope", f"the app has no {scope}, so this never reaches it", needed=scope)

    def _event_scope(self, kind: str) -> None:
        needed = {"app_mention": "app_mentions:read"}.get(kind)
        if needed:
            self._granted(needed)

    def _typed(self, text: str) -> str:
        """Escape what a person typed, as Slack does before it sends it on."""
        text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        if not self.should_escape:
            return text
        people = {person.name: person for person in self.space.people.values()}
        rooms = {channel.name: channel for channel in self.space.channels.values() if not channel.im_with}

        def mention(match: re.Match[str]) -> str:
            kind, name = match.groups()
            found: Person | Channel | None = people.get(name) if kind == "@" else rooms.get(name)
            return f"<{kind}{found.id}|{name}>" if found else match.group()

        return re.sub(r"(?<!\S)([@#])([\w.-]+)", mention, text)

    def _show_ack(self, delivery: Delivery, url: str) -> None:
        """The text of a command's ack is shown like any other answer to it."""
        if not delivery.acked or not delivery.ack:
            return
        given = self.space.answers[url]
        try:
            if delivery.ack.get("response_type") == "in_channel":
                self.space.post(given.channel, delivery.ack).answer_to = url
            else:
                self.space.whisper(given.channel, delivery.ack, given.user, url)
        except Refusal as refusal:
            self.hub.refused.append((delivery, refusal))
        self.changed()

    def _follow_up(self, seen: Seen, shown: ShownView, ack: Payload) -> None:
        """Do what the answer to a submission says. An answer that is not valid shows up as trouble in the modal."""
        try:
            self._respond_to(seen, shown, ack)
        except Refusal as refusal:
            seen.trouble = f"We had some trouble connecting. Try again? ({refusal})"
            assert seen.delivery is not None
            self.hub.refused.append((seen.delivery, refusal))
        self.changed()

    def _respond_to(self, seen: Seen, shown: ShownView, ack: Payload) -> None:
        what = ack.get("response_action")
        if what is None and not ack:
            self.space.close_view(shown)
        elif what == "clear":
            self.space.close_view(shown, all_of_them=True)
        elif what == "errors":
            seen.complaints = self._complaints(shown, ack.get("errors"))
        elif what == "update" and isinstance(ack.get("view"), dict):
            self.space.check(ack["view"], "modal")
            self.space.change_view(shown, ack["view"])
        elif what == "push" and isinstance(ack.get("view"), dict):
            self.space.push_view(seen.user, ack["view"], seen.trigger)
        else:
            raise Refusal("invalid_response_action")

    def _complaints(self, shown: ShownView, errors: Any) -> Mapping[str, str]:
        fields = {block["block_id"] for block in shown.body["blocks"] if block["type"] == "input"}
        if not isinstance(errors, dict) or not errors or not set(errors) <= fields:
            raise Refusal("invalid_response_action", "errors must name input blocks of the view")
        return errors

    def _uploads(self, value: Any, user: str) -> Any:
        """Turn `(name, bytes)` into uploaded files."""
        if not isinstance(value, list) or not all(isinstance(each, tuple) for each in value):
            return value
        return [file_of(self.space, self._uploaded(name, data, user)) for name, data in value]

    def _uploaded(self, name: str, data: bytes, user: str) -> File:
        file = self.space.start_upload(name, len(data), "")
        file.data = data
        self.space.complete_upload(file, name, user)
        return file

    def _message(self, channel: str, ts: str, user: str) -> Posted:
        hidden = next((each for each in self.ephemerals(user) if each.ts == ts), None)
        posted = hidden or self.space.find(channel, ts)
        if posted is None:
            raise Refusal("message_not_found")
        return posted

    def _view(self, view_id: str) -> ShownView:
        shown = self.space.views.get(view_id)
        if shown is None or not shown.open:
            raise Refusal("not_found")
        return shown

    def _interaction(self, who: Person, kind: str) -> Payload:
        team = who.team_id or TEAM
        return {
            "type": kind,
            "token": _TOKEN,
            "api_app_id": APP_ID,
            "team": {"id": team, "domain": DOMAIN},
            "user": {"id": who.id, "username": who.name, "name": who.name, "team_id": team},
            "enterprise": None,
            "is_enterprise_install": False,
        }

    def _block_actions(self, who: Person, trigger: str) -> Payload:
        return self._interaction(who, "block_actions") | {"trigger_id": trigger}
