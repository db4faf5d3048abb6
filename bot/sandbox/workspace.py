"""The workspace behind the loopback Slack: who is there, what was said, which views are open, what may be done.

Nothing here waits or talks: every function does one thing to the state or raises `Refusal` with the error that Slack
gives. Payloads are checked by `bot.blocks` before anything is stored.
"""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from bot.blocks import Surface, problems
from bot.sandbox.model import (
    Channel,
    File,
    Payload,
    Person,
    Ping,
    Posted,
    Refusal,
    ResponseUrl,
    ShownView,
    Trigger,
    Version,
)

TEAM = "T1"
BOT_USER = "U0BOT"
BOT_ID = "B0BOT"
APP_ID = "A0BOT"
DOMAIN = "sandbox"

PEOPLE = (Person("U1", "ada"), Person("U2", "ben"), Person("U3", "cleo"))


def usual_channels() -> tuple[Channel, ...]:
    """A channel with the bot in it, one without, and an archived one."""
    members = {person.id for person in PEOPLE}
    return (
        Channel("C1", "research", {*members, BOT_USER}),
        Channel("C2", "random", set(members)),
        Channel("C3", "old", {*members, BOT_USER}, is_archived=True),
    )


TRIGGER_S = 3.0
RESPONSE_URL_S = 30 * 60.0
RESPONSE_URL_POSTS = 5
DEEPEST_STACK = 3
ALT_TXT = 1_000
_PINGS = re.compile(r"<!(channel|here|everyone)(?:\|[^>]*)?>|<!subteam\^(\w+)(?:\|[^>]*)?>|<@([UW]\w+)(?:\|[^>]*)?>")

_MENTIONS = {"broadcast": "range", "user": "user_id", "usergroup": "usergroup_id"}
"""Elements of rich text that notify somebody, and where they say whom."""


class Workspace:
    """
    One workspace with one app in it.

    *now* tells Unix seconds, *number* gives places in the record, *salt* makes ids differ between instances.
    """

    def __init__(
        self,
        now: Callable[[], float],
        number: Callable[[], int],
        salt: str,
        people: Iterable[Person],
        channels: Iterable[Channel],
        groups: Mapping[str, Sequence[str]],
        file_delay_s: float,
    ) -> None:
        self._now, self._number, self._salt = now, number, salt
        self._ids = itertools.count(1)
        self._last_ts = 0
        self.people = {person.id: person for person in people}
        self.channels = {channel.id: channel for channel in channels}
        self.groups = {group: tuple(users) for group, users in groups.items()}
        self.file_delay_s = file_delay_s
        self.messages: dict[str, list[Posted]] = {}
        self.ephemerals: list[Posted] = []
        self.files: dict[str, File] = {}
        self.views: dict[str, ShownView] = {}
        self.homes: dict[str, ShownView] = {}
        self.stacks: dict[str, list[ShownView]] = {}
        self.triggers: dict[str, Trigger] = {}
        self.answers: dict[str, ResponseUrl] = {}
        self.pings: list[Ping] = []

    # Ids and checks

    def new_id(self, prefix: str) -> str:
        """Make an id that no other instance makes."""
        return f"{prefix}{self._salt}{next(self._ids):04X}"

    def new_ts(self) -> str:
        """Make the timestamp of a message: unique, and growing in order."""
        self._last_ts = max(self._last_ts + 1, round(self._now() * 1_000_000))
        return f"{self._last_ts // 1_000_000}.{self._last_ts % 1_000_000:06d}"

    def check(self, payload: Mapping[str, Any], surface: Surface) -> None:
        """Refuse a payload that breaks a rule of Block Kit, or names a file that blocks cannot show yet."""
        found = problems(payload, surface)
        view = surface in ("modal", "home")
        if found:
            # Slack says invalid_arguments for a view, with pointers that begin with /view.
            error = "invalid_arguments" if view and found[0].code == "invalid_blocks" else found[0].code
            where = "/view" if view else ""
            raise Refusal(error, *(f"[ERROR] {each.why} [json-pointer:{where}{each.pointer}]" for each in found))
        for pointer, file in _slack_files(payload.get("blocks") or (), "/view/blocks" if view else "/blocks"):
            if not self._shows(file):
                raise Refusal("invalid_blocks", f"[ERROR] invalid slack file [json-pointer:{pointer}]")

    def _shows(self, named: Mapping[str, Any]) -> bool:
        file = self.files.get(named.get("id", "")) or next(
            (file for file in self.files.values() if named.get("url") == private_url(file)), None
        )
        return file is not None and self.ready(file) and is_picture(file)

    def ready(self, file: File) -> bool:
        """Whether a file is complete and has been looked at."""
        return file.ready_at is not None and file.ready_at <= self._now()

    def person(self, user: str) -> Person:
        """Look a member up. Raises `Refusal` (user_not_found)."""
        if user not in self.people:
            raise Refusal("user_not_found")
        return self.people[user]

    def channel(self, channel: str) -> Channel:
        """Look a channel up. Raises `Refusal` (channel_not_found)."""
        if channel not in self.channels:
            raise Refusal("channel_not_found")
        return self.channels[channel]

    def direct(self, user: str) -> Channel:
        """Open the direct message between the bot and *user*."""
        self.person(user)
        return self.channels.setdefault(f"D{user}", Channel(f"D{user}", user, {user, BOT_USER}, True, im_with=user))

    def writable(self, channel: str) -> Channel:
        """Look up a channel that the bot may write to."""
        where = self.direct(channel) if channel in self.people else self.channel(channel)
        if where.is_archived:
            raise Refusal("is_archived")
        if BOT_USER not in where.members:
            raise Refusal("not_in_channel")
        return where

    # Messages

    def post(self, channel: str, payload: Mapping[str, Any], user: str = BOT_USER) -> Posted:
        """Put a message into a channel."""
        self.check(payload, "message")
        thread = payload.get("thread_ts")
        if thread is not None and self.find(channel, str(thread)) is None:
            raise Refusal("cannot_reply_to_message")
        posted = self._make(channel, payload, user)
        posted.thread_ts = None if thread is None else str(thread)
        posted.broadcast = truth(payload.get("reply_broadcast"))
        self.messages.setdefault(channel, []).append(posted)
        self._notify(posted)
        return posted

    def whisper(self, channel: str, payload: Mapping[str, Any], user: str, answer_to: str | None = None) -> Posted:
        """Show *user* a message that nobody else sees."""
        self.check(payload, "message")
        posted = self._make(channel, payload, BOT_USER)
        posted.seen_by, posted.answer_to = user, answer_to
        posted.thread_ts = payload.get("thread_ts")
        self.ephemerals.append(posted)
        return posted

    def edit(self, posted: Posted, payload: Mapping[str, Any], surface: Surface = "update") -> None:
        """Replace what a message says; text without blocks takes the blocks away."""
        self.check(payload, surface)
        posted.edits.append(Version(self._now(), posted.text, posted.blocks))
        posted.text = str(payload.get("text") or payload.get("markdown_text") or "")
        posted.blocks = self._with_ids(payload.get("blocks") or ())
        posted.attachments = tuple(copy.deepcopy(payload.get("attachments") or ()))
        if payload.get("metadata") is not None:
            posted.metadata = copy.deepcopy(dict(payload["metadata"]))
        posted.n = self._number()

    def own(self, channel: str, ts: str) -> Posted:
        """Find a message that the bot may change."""
        self.channel(channel)
        posted = self.find(channel, ts)
        if posted is None:
            raise Refusal("message_not_found")
        if posted.user != BOT_USER:
            raise Refusal("cant_update_message")
        return posted

    def find(self, channel: str, ts: str) -> Posted | None:
        """Find a message of a channel, or of its threads."""
        return next((posted for posted in self.messages.get(channel, ()) if posted.ts == ts), None)

    def delete(self, posted: Posted) -> None:
        """Take a message away."""
        self.messages[posted.channel].remove(posted)

    def _make(self, channel: str, payload: Mapping[str, Any], user: str) -> Posted:
        metadata = payload.get("metadata")
        return Posted(
            n=self._number(),
            at=self._now(),
            channel=channel,
            ts=self.new_ts(),
            user=user,
            text=str(payload.get("text") or payload.get("markdown_text") or ""),
            blocks=self._with_ids(payload.get("blocks") or ()),
            attachments=tuple(copy.deepcopy(payload.get("attachments") or ())),
            metadata=None if metadata is None else copy.deepcopy(dict(metadata)),
        )

    def _with_ids(self, blocks: Sequence[Payload]) -> tuple[Payload, ...]:
        """Copy blocks, with the ids that Slack makes up where there are none."""
        copies = copy.deepcopy(list(blocks))
        for block in copies:
            block.setdefault("block_id", self.new_id("b"))
            for element in elements(block):
                if element.get("type") != "image":
                    element.setdefault("action_id", self.new_id("a"))
        return tuple(copies)

    def _notify(self, posted: Posted) -> None:
        blocks = posted.blocks
        for match in itertools.chain.from_iterable(map(_PINGS.finditer, (posted.text, *_mrkdwn(blocks)))):
            who = next(group for group in match.groups() if group)
            self.pings.append(Ping(who, posted.channel, posted.ts))
        for element in _walk(blocks):
            target = _MENTIONS.get(str(element.get("type")), "")
            if target in element:
                self.pings.append(Ping(str(element[target]), posted.channel, posted.ts))

    # Answers

    def answer_url(self, user: str, channel: str, original: Posted | None = None) -> ResponseUrl:
        """Make an address for answers to something that *user* did."""
        url = ResponseUrl(self.new_id("r"), self._now(), user, channel, original)
        self.answers[url.id] = url
        return url

    def answer(self, name: str, payload: Mapping[str, Any]) -> Posted | None:
        """Take an answer that came to a response URL. Raises `Refusal` (used_url, expired_url and those of a post)."""
        url = self.answers.get(name)
        if url is None:
            raise Refusal("invalid_url")
        if self._now() - url.at > RESPONSE_URL_S:
            raise Refusal("expired_url")
        if url.posts >= RESPONSE_URL_POSTS:
            raise Refusal("used_url")
        url.posts += 1
        original = url.original
        if original and truth(payload.get("delete_original")):
            (self.ephemerals if original.seen_by else self.messages[original.channel]).remove(original)
            return None
        if original and truth(payload.get("replace_original")):
            self.edit(original, payload, "message")
            return original
        if payload.get("response_type") != "in_channel":
            return self.whisper(url.channel, payload, url.user, name)
        posted = self.post(url.channel, payload)
        posted.answer_to = name
        return posted

    # Views

    def trigger(self, user: str, view: str | None = None) -> str:
        """Make a trigger id for something that *user* did, in *view* if it was a modal."""
        name = self.new_id("t")
        self.triggers[name] = Trigger(self._now(), user, view)
        return name

    def open_view(self, trigger: str, view: Mapping[str, Any], *, push: bool = False) -> ShownView:
        """Open a modal, over another one if *push*."""
        given = self._exchange(trigger)
        stack = [shown for shown in self.stacks.get(given.user, []) if shown.open]
        if push and (given.view is None or not stack):
            raise Refusal("invalid_trigger_id")
        shown = self._stack(given.user, stack if push else [], view, trigger)
        given.used = True
        for below in () if push else stack:
            below.open = False
        return shown

    def push_view(self, user: str, view: Mapping[str, Any], trigger: str) -> ShownView:
        """Push by `response_action`."""
        return self._stack(user, [shown for shown in self.stacks.get(user, []) if shown.open], view, trigger)

    def _stack(self, user: str, stack: list[ShownView], view: Mapping[str, Any], trigger: str) -> ShownView:
        if len(stack) >= DEEPEST_STACK:
            raise Refusal("push_limit_reached")
        self.check(view, "modal")
        self._unique_external_id(view, None)
        shown = self._view(user, view)
        shown.trigger = trigger
        shown.root = stack[0].id if stack else shown.id
        shown.previous = stack[-1].id if stack else None
        self.stacks[user] = [*stack, shown]
        return shown

    def _exchange(self, trigger: str) -> Trigger:
        given = self.triggers.get(trigger)
        if given is None:
            raise Refusal("invalid_trigger_id")
        if given.used:
            raise Refusal("exchanged_trigger_id")
        if self._now() - given.at > TRIGGER_S:
            raise Refusal("expired_trigger_id")
        return given

    def update_view(self, args: Mapping[str, Any]) -> ShownView:
        """Change an open view; `hash`, if given, must be that of now."""
        wanted, external = args.get("view_id"), args.get("external_id")
        if not wanted and not external:
            raise Refusal("invalid_arguments", "[ERROR] missing required field: view_id or external_id")
        shown = next(
            (each for each in self.views.values() if each.id == wanted or (external and _external(each) == external)),
            None,
        )
        if shown is None or not shown.open:
            raise Refusal("not_found")
        self.check(args["view"], "modal" if shown.body["type"] == "modal" else "home")
        self._same_hash(shown, args.get("hash"))
        self._unique_external_id(args["view"], shown)
        self.change_view(shown, args["view"])
        return shown

    def publish(self, user: str, view: Mapping[str, Any], given_hash: str | None) -> ShownView:
        """Set somebody's App Home."""
        self.person(user)
        self.check(view, "home")
        shown = self.homes.get(user)
        if shown is None:
            if given_hash:
                raise Refusal("hash_conflict")
            self.homes[user] = self._view(user, view)
            return self.homes[user]
        self._same_hash(shown, given_hash)
        self.change_view(shown, view)
        return shown

    def change_view(self, shown: ShownView, view: Mapping[str, Any]) -> None:
        """Give a view another body, and so another hash. The body is checked by the caller."""
        shown.history.append(shown.body)
        shown.hash = self.new_id("h")
        shown.body = self._body(view)
        shown.n = self._number()

    def close_view(self, shown: ShownView, *, all_of_them: bool = False) -> None:
        """Take a modal off its stack, or close the whole stack."""
        for each in self.stacks.get(shown.user, []):
            if all_of_them or each is shown:
                each.open = False
        self.stacks[shown.user] = [each for each in self.stacks.get(shown.user, []) if each.open]

    def _same_hash(self, shown: ShownView, given: str | None) -> None:
        if given and given != shown.hash:
            raise Refusal("hash_conflict")

    def _unique_external_id(self, view: Mapping[str, Any], but: ShownView | None) -> None:
        name = view.get("external_id")
        if name and any(each.open and each is not but and _external(each) == name for each in self.views.values()):
            raise Refusal("duplicate_external_id")

    def _view(self, user: str, view: Mapping[str, Any]) -> ShownView:
        shown = ShownView(self._number(), self.new_id("V"), user, self.new_id("h"), self._body(view))
        self.views[shown.id] = shown
        return shown

    def _body(self, view: Mapping[str, Any]) -> Payload:
        body = copy.deepcopy(dict(view))
        body["blocks"] = list(self._with_ids(body["blocks"]))
        return body

    # Files

    def start_upload(self, name: str, length: int, alt_text: str) -> File:
        """Announce a file."""
        if len(alt_text) > ALT_TXT:
            raise Refusal("alt_txt_too_large")
        if length < 1:
            raise Refusal("invalid_arguments", "[ERROR] length must be at least 1")
        file = File(self.new_id("F"), name, length, alt_text)
        self.files[file.id] = file
        return file

    def complete_upload(self, file: File, title: str, user: str) -> None:
        """Finish a file whose bytes have come; blocks may name it a while later."""
        if len(file.data) != file.length:
            raise Refusal("file_not_found")
        file.title, file.user, file.ready_at = title, user, self._now() + self.file_delay_s

    def share(self, files: Sequence[File], args: Mapping[str, Any]) -> Posted:
        """Put files into a channel as a message of its own."""
        channel = self.writable(str(args["channel_id"]))
        text = str(args.get("initial_comment") or ", ".join(file.title or file.name for file in files))
        posted = self.post(channel.id, {"text": text, "thread_ts": args.get("thread_ts")})
        posted.files = tuple(files)
        return posted

    def pictures(self, posted: Posted) -> tuple[File, ...]:
        """The files that a message shows, in its blocks or shared with it."""
        named = [self.files.get(file.get("id", "")) for _, file in _slack_files(posted.blocks, "")]
        return (*(file for file in named if file), *posted.files)


def elements(block: Mapping[str, Any]) -> list[Payload]:
    """List the interactive elements of a block."""
    several = block["elements"] if block.get("type") == "actions" else ()
    return [*several, *(block[name] for name in ("accessory", "element") if name in block)]


def truth(value: object) -> bool:
    """Read a boolean as forms send it."""
    return value is True or str(value).lower() in ("1", "true")


def is_picture(file: File) -> bool:
    """Whether the bytes are those of a PNG, JPEG or GIF."""
    return file.data.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8"))


def private_url(file: File) -> str:
    """Where the file is said to be; the server puts its own address before it."""
    return f"/files-pri/{file.id}/{file.name}"


def _external(shown: ShownView) -> str | None:
    name: str | None = shown.body.get("external_id")
    return name


def _walk(value: object) -> Iterator[Mapping[str, Any]]:
    """Yield every object inside a value."""
    if isinstance(value, Mapping):
        yield value
        for item in value.values():
            yield from _walk(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _walk(item)


def _mrkdwn(blocks: Sequence[Payload]) -> Iterator[str]:
    """Yield the texts in which mentions count; plain text and rich text only show them."""
    for item in _walk(blocks):
        if item.get("type") in ("mrkdwn", "markdown"):
            yield str(item["text"])


def _slack_files(blocks: Sequence[Payload], at: str) -> list[tuple[str, Mapping[str, Any]]]:
    return [
        (f"{at}/{index}", item["slack_file"])
        for index, block in enumerate(blocks)
        for item in _walk(block)
        if isinstance(item.get("slack_file"), Mapping)
    ]
