"""What stands in Slack after a night: each message once and in order, whatever died, broke or came between."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bot.board import Board
from bot.message import PICTURE, Message, Picture
from bot.outbox import EDIT_EVERY_S, Rules
from bot.poster import Poster
from bot.sandbox.clock import ManualClock
from bot.sandbox.faults import DropAfter, DropBefore, Error, Html503, Limited
from bot.sandbox.methods import SCOPES
from bot.sandbox.model import Channel, Posted
from bot.sandbox.server import Sandbox
from eventstore import events as e
from eventstore.envelope import NewEvent
from eventstore.errors import LogUnavailable
from eventstore.memory import MemoryLog
from tests.bot.nights import ADA, BEGIN, Night
from tests.bot.outgoing import ALL, FILES, Door, clock_of, shown
from tests.bot.sandboxed import PNG, client, section


@contextlib.asynccontextmanager
async def a_slack(scopes: frozenset[str] = ALL) -> AsyncIterator[Sandbox]:
    members = {"U1", "U0BOT"}
    channels = (Channel("C1", "research", set(members)), Channel("C2", "digests", set(members)))
    async with Sandbox(clock=ManualClock(BEGIN.timestamp()), scopes=scopes, channels=channels) as slack:
        yield slack


@pytest.fixture
async def slack() -> AsyncIterator[Sandbox]:
    async with a_slack() as running:
        yield running


class Died(BaseException):
    """The bot was killed here; nothing in it may handle that."""


class Log:
    """The log for asyncio. *before* and *after* are called with each batch and may raise."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        self.before: Callable[[Sequence[NewEvent]], None] = lambda _batch: None
        self.after: Callable[[Sequence[NewEvent]], None] = lambda _batch: None

    async def append(self, events: Sequence[NewEvent], *, expected: int | None = None) -> list[int]:
        self.before(events)
        await asyncio.sleep(0)  # others may come between
        positions = self.log.append(events, expected=expected)
        self.after(events)
        return positions


class Bot:
    """A bot on the log of *night*; another one with the same log is its next life, or its double."""

    def __init__(self, slack: Sandbox, night: Night, name: str = "box", rules: Rules | None = None) -> None:
        self.slack, self.night = slack, night
        self.log, self.board, self.door = Log(night.log), Board(), Door(slack)
        self.ids = 0
        self.picture: Picture | None = None
        self.is_broken = False
        self.name = name
        self.poster = Poster(
            self.log,
            self.board,
            self.door.open(),
            rules or Rules("C1", None, "UTC", BEGIN),
            catch_up=self.catch_up,
            draw=self.draw,
            holder=lambda: "pid 1 on box",
            now=lambda: datetime.fromtimestamp(clock_of(slack).now(), UTC),
            new_id=self.new_id,
            actor=f"bot@{name}",
            sleep=self.door.sleep,
        )

    async def catch_up(self) -> None:
        for event in self.night.log.read(self.board.position, limit=100_000):
            self.board.apply(event)

    def new_id(self) -> str:
        self.ids += 1
        return f"bot-{self.name}-{id(self)}-{self.ids}"

    async def draw(self, request: e.PostRequested, at: str, late_s: float) -> tuple[Message, Sequence[Message]]:
        if self.is_broken:
            raise ZeroDivisionError
        words = f"digest {request.from_position} to {request.to_position}"
        replies = [Message(f"{words}, reply {number}", (section(f"reply {number}"),)) for number in (1, 2)]
        image = [{"type": "image", "slack_file": PICTURE, "alt_text": "stairs"}] if self.picture is not None else []
        return Message(words, (section(words), *image), self.picture), replies

    async def live(self) -> None:
        """Start, make what is due, and come back."""
        await self.catch_up()
        self.poster.adopt()
        await self.poster.settle()


def everything(slack: Sandbox) -> list[Posted]:
    """All messages of the bot, threads too, in the order in which they were posted."""
    return [posted for channel in ("C1", "C2") for posted in slack.space.messages.get(channel, ()) if posted.metadata]


def keys(slack: Sandbox) -> list[str]:
    """The keys of all messages that stand."""
    return [posted.metadata["event_payload"]["key"] for posted in everything(slack) if posted.metadata]


def told(night: Night, kind: type) -> list[Any]:
    return [event.data for event in night.log.stream() if isinstance(event.data, kind)]


def a_night() -> Night:
    """A run with a keep, a discard and three crashes, that is over."""
    night = Night()
    night.ask()
    return night


def goes_on(night: Night) -> None:
    night.start()
    night.baseline()
    night.experiment(1, "keep", score=0.9)
    night.experiment(2)
    for n in (3, 4, 5):
        night.experiment(n, "crash")
    night.finish()


EXPECTED = [
    "run/nov21@1",
    "run/nov21@1/0/verdict",
    *(f"run/nov21@1/{n}/{what}" for n in range(1, 6) for what in ("plan", "verdict")),
    "run/nov21@1/finished",
]


class TestANight:
    async def test_everything_stands_once_and_in_order(self, slack: Sandbox) -> None:
        night = a_night()
        bot = Bot(slack, night)
        await bot.live()
        goes_on(night)
        await bot.poster.settle()
        assert keys(slack) == EXPECTED
        assert slack.early_retries == 0
        parent = slack.messages("C1")[0]
        assert len(slack.thread("C1", parent.ts)) == 11

    async def test_the_log_says_what_stands(self, slack: Sandbox) -> None:
        night = a_night()
        bot = Bot(slack, night)
        await bot.live()
        goes_on(night)
        await bot.poster.settle()
        made = {data.key: data.ts for data in told(night, e.PostMade)}
        assert made == dict(zip(keys(slack), (posted.ts for posted in everything(slack)), strict=True))
        assert [data.key for data in told(night, e.PostRequested)] == EXPECTED

    async def test_the_parent_is_edited_to_its_last_state_once(self, slack: Sandbox) -> None:
        night = a_night()
        bot = Bot(slack, night)
        await bot.live()
        goes_on(night)
        clock_of(slack).advance(EDIT_EVERY_S)
        await bot.poster.settle()
        parent = slack.messages("C1")[0]
        assert "finished" in shown(parent.blocks)
        assert len(parent.edits) == 1
        clock_of(slack).advance(3_600)
        await bot.poster.settle()
        assert len(parent.edits) == 1

    async def test_it_serves_what_comes_while_it_runs(self, slack: Sandbox) -> None:
        night = a_night()
        bot = Bot(slack, night)
        running = asyncio.create_task(bot.poster.run())
        await slack.until(lambda: len(keys(slack)) == 1)
        goes_on(night)
        bot.poster.wake()
        await slack.until(lambda: len(keys(slack)) == len(EXPECTED))
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        assert keys(slack) == EXPECTED

    async def test_a_post_that_slack_refuses_is_given_up_and_the_next_follows(self, slack: Sandbox) -> None:
        night = a_night()
        bot = Bot(slack, night)
        await bot.live()
        goes_on(night)
        slack.fail("chat.postMessage", Error("something_new"))
        await bot.poster.settle()
        (failed,) = told(night, e.PostFailed)
        assert failed == e.PostFailed(key=EXPECTED[1], why="Slack refuses it: something_new")
        assert keys(slack) == [EXPECTED[0], *EXPECTED[2:]]


class TestWhenSlackIsUnwell:
    @pytest.mark.parametrize("fault", [DropAfter(), DropBefore(), Html503(), Limited(20), Error("internal_error")])
    async def test_order_holds_whatever_breaks(self, slack: Sandbox, fault: Any) -> None:
        night = a_night()
        bot = Bot(slack, night)
        await bot.live()
        goes_on(night)
        for _ in range(5):
            slack.fail("chat.postMessage", fault)
            slack.fail("conversations.replies", fault)
        await bot.poster.settle()
        assert keys(slack) == EXPECTED
        assert slack.early_retries == 0

    async def test_that_it_is_away_is_said_once_and_then_that_it_is_back(self, slack: Sandbox) -> None:
        night = a_night()
        bot = Bot(slack, night)
        await bot.live()
        goes_on(night)
        slack.fail("chat.postMessage", Html503(), times=20)
        await bot.poster.settle()
        (noticed,), (cleared,) = told(night, e.TroubleNoticed), told(night, e.TroubleCleared)
        assert (noticed.kind, cleared.kind) == ("slack", "slack")
        assert "503" in noticed.what
        assert keys(slack) == EXPECTED

    async def test_one_channel_does_not_wait_for_another(self, slack: Sandbox) -> None:
        night = a_night()
        night.say(e.DigestScheduled(channel="C2", at="08:00", zone="UTC"), "", ADA)
        slack.space.channels["C1"].members.discard("U0BOT")
        bot = Bot(slack, night)
        clock_of(slack).advance(10 * 3_600)
        running = asyncio.create_task(bot.poster.run())
        await slack.until(
            lambda: len(slack.thread("C2", slack.messages("C2")[0].ts)) == 2 if slack.messages("C2") else 0
        )
        assert slack.messages("C1") == ()
        slack.space.channels["C1"].members.add("U0BOT")
        await slack.until(lambda: slack.messages("C1"))
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    async def test_a_parent_that_was_deleted_is_made_anew(self, slack: Sandbox) -> None:
        night = a_night()
        bot = Bot(slack, night)
        await bot.live()
        first = slack.messages("C1")[0]
        await client(slack).chat_delete(channel="C1", ts=first.ts)
        night.start()
        night.baseline()
        clock_of(slack).advance(EDIT_EVERY_S)
        await bot.poster.settle()
        (parent,) = slack.messages("C1")
        assert [reply.text for reply in slack.thread("C1", parent.ts)]
        assert told(night, e.PostMade)[-1].key == EXPECTED[1]


class TestWhenTheLogIsUnwell:
    async def test_a_message_that_stands_is_written_down_when_the_log_can(self, slack: Sandbox) -> None:
        night = a_night()
        bot = Bot(slack, night)
        left = 3

        def unwell(batch: Sequence[NewEvent]) -> None:
            nonlocal left
            if left and isinstance(batch[0].data, e.PostMade | e.PostRequested):
                left -= 1
                raise LogUnavailable("locked")

        bot.log.before = unwell
        await bot.live()
        assert keys(slack) == EXPECTED[:1]
        assert told(night, e.PostMade)[0].key == EXPECTED[0]

    async def test_a_fault_after_the_commit_makes_no_second_message(self, slack: Sandbox) -> None:
        night = a_night()
        bot = Bot(slack, night)
        faults = [LogUnavailable("in the very last step")]

        def unwell(_batch: Sequence[NewEvent]) -> None:
            if faults:
                raise faults.pop()

        bot.log.after = unwell
        await bot.live()
        assert keys(slack) == EXPECTED[:1]
        assert len(told(night, e.PostRequested)) == len(told(night, e.PostMade)) == 1

    async def test_others_who_append_meanwhile_hold_nothing_up(self, slack: Sandbox) -> None:
        night = a_night()
        bot = Bot(slack, night)
        await bot.live()
        goes_on(night)
        ideas = iter(range(60))

        def someone(_batch: Sequence[NewEvent]) -> None:
            number = next(ideas, None)
            if number is not None and number % 3:
                night.say(e.IdeaSuggested(text=f"idea {number}"), "", ADA)

        bot.log.before = someone
        await bot.poster.settle()
        assert keys(slack) == EXPECTED

    async def test_of_two_bots_one_posts(self, slack: Sandbox) -> None:
        night = a_night()
        bots = [Bot(slack, night, name) for name in ("one", "two")]
        await asyncio.gather(*(bot.live() for bot in bots))
        goes_on(night)
        await asyncio.gather(*(bot.poster.settle() for bot in bots))
        await asyncio.gather(*(bot.poster.settle() for bot in bots))
        assert sorted(keys(slack)) == sorted(EXPECTED)
        assert sorted(data.key for data in told(night, e.PostRequested)) == sorted(EXPECTED)

    async def test_of_two_bots_of_the_same_name_one_posts(self, slack: Sandbox) -> None:
        night = a_night()
        bots = [Bot(slack, night) for _ in range(2)]
        await asyncio.gather(*(bot.live() for bot in bots))
        assert keys(slack) == EXPECTED[:1]


# ---------------------------------------------------------------- killed

MOMENTS = ["requested", "read", "replied", "appended"]


class Killer:
    """Kills a bot at its *nth* post, at one moment of it."""

    def __init__(self, bot: Bot, moment: str, nth: int) -> None:
        self.bot, self.moment, self.left = bot, moment, nth
        bot.log.before, bot.log.after = self.before, self.after

    def before(self, batch: Sequence[NewEvent]) -> None:
        if self.moment == "replied" and isinstance(batch[0].data, e.PostMade) and self.counted():
            raise Died

    def after(self, batch: Sequence[NewEvent]) -> None:
        kind = {"requested": e.PostRequested, "read": e.PostRequested, "appended": e.PostMade}.get(self.moment)
        if kind is None or not isinstance(batch[0].data, kind) or not self.counted():
            return
        if self.moment == "read":  # Slack does it, but no answer comes, and then no more is heard of the bot
            self.bot.slack.fail("chat.postMessage", DropAfter())
            self.bot.poster._notifier._sleep = self.die
            return
        raise Died

    async def die(self, seconds: float) -> None:
        if self.bot.slack.calls and self.bot.slack.calls[-1].error == "dropped":
            raise Died
        await self.bot.door.sleep(seconds)

    def counted(self) -> bool:
        self.left -= 1
        return self.left == 0


async def killed_night(slack: Sandbox, moment: str, nth: int) -> Night:
    """A night in which the bot is killed once; another one takes over."""
    night = a_night()
    bot = Bot(slack, night)
    Killer(bot, moment, nth)
    with contextlib.suppress(Died):
        await bot.live()
        goes_on(night)
        await bot.poster.settle()
    if night.board.state.runs["nov21"].finished is None:
        goes_on(night)
    clock_of(slack).advance(60)
    await Bot(slack, night).live()
    return night


class TestKilled:
    @pytest.mark.parametrize("nth", [2, 5, 13])
    @pytest.mark.parametrize("moment", MOMENTS)
    async def test_each_message_stands_once(self, slack: Sandbox, moment: str, nth: int) -> None:
        await killed_night(slack, moment, nth)
        assert Counter(keys(slack)) == Counter(EXPECTED)
        assert "may repeat" not in "".join(shown(posted.blocks) for posted in everything(slack))

    @pytest.mark.parametrize("moment", MOMENTS)
    async def test_so_does_the_parent(self, slack: Sandbox, moment: str) -> None:
        await killed_night(slack, moment, 1)
        found = Counter(keys(slack))
        assert found["run/nov21@1"] == 1
        assert max(found.values()) == 1

    @pytest.mark.parametrize("moment", MOMENTS)
    async def test_without_the_scope_to_look_one_says_that_it_may_repeat(self, moment: str) -> None:
        async with a_slack(SCOPES | FILES) as slack:
            await killed_night(slack, moment, 4)
            doubled = [key for key, count in Counter(keys(slack)).items() if count > 1]
            marked = [posted for posted in everything(slack) if "may repeat" in shown(posted.blocks)]
            assert set(keys(slack)) == set(EXPECTED)
            assert len(marked) == (0 if moment == "appended" else 1)
            assert len(doubled) == (1 if moment in ("read", "replied") else 0)

    async def test_a_parent_that_may_repeat_says_so_after_each_edit(self) -> None:
        async with a_slack(SCOPES | FILES) as slack:
            night = await killed_night(slack, "replied", 1)
            clock_of(slack).advance(60)
            await Bot(slack, night).live()
            first, second = (one for one in slack.messages("C1") if keys_of(one) == "run/nov21@1")
            assert "may repeat" not in shown(first.blocks)
            assert second.edits and "may repeat" in shown(second.blocks)

    async def test_a_reply_is_not_made_below_another_parent(self, slack: Sandbox) -> None:
        await killed_night(slack, "read", 6)
        (parent,) = [one for one in slack.messages("C1") if one.metadata and "/" not in keys_of(one)[4:]]
        assert len(slack.thread("C1", parent.ts)) == 11


def keys_of(posted: Posted) -> str:
    assert posted.metadata is not None
    return str(posted.metadata["event_payload"]["key"])


# ---------------------------------------------------------------- digests


class TestDigests:
    RULES = Rules("C1", "08:00", "UTC", BEGIN)

    def at_eight(self, slack: Sandbox) -> Night:
        night = a_night()
        clock_of(slack).advance(10 * 3_600 + 60)
        return night

    async def test_it_is_posted_at_its_hour_with_its_replies_in_its_thread(self, slack: Sandbox) -> None:
        night = self.at_eight(slack)
        bot = Bot(slack, night, rules=self.RULES)
        await bot.live()
        head = slack.messages("C1")[-1]
        assert re.fullmatch(r"digest 0 to \d+", head.text)
        assert [reply.text[-7:] for reply in slack.thread("C1", head.ts)] == ["reply 1", "reply 2"]
        assert bot.board.digests["C1"].ts == head.ts
        await bot.poster.settle()
        assert len([key for key in keys(slack) if key.startswith("digest/")]) == 3

    async def test_one_that_was_asked_for_comes_at_once(self, slack: Sandbox) -> None:
        night = a_night()
        bot = Bot(slack, night)
        await bot.live()
        key = f"digest/C2/at/{night.say(e.DigestRequested(channel='C2'), actor=ADA)}"
        await bot.poster.settle()
        assert [posted.metadata["event_payload"]["key"] for posted in slack.messages("C2") if posted.metadata] == [key]

    async def test_a_picture_that_cannot_be_shown_comes_below_it(self, slack: Sandbox) -> None:
        night = self.at_eight(slack)
        bot = Bot(slack, night, rules=self.RULES)
        bot.picture = Picture(PNG, "stairs.png", "0.99 went down to 0.91")
        slack.fail("upload", Html503())
        await bot.live()
        head = slack.messages("C1")[-1]
        assert slack.pictures(head) == ()
        assert [file.name for reply in slack.thread("C1", head.ts) for file in reply.files] == ["stairs.png"]

    @pytest.mark.parametrize("nth", [2, 3, 4])
    @pytest.mark.parametrize("moment", ["requested", "replied", "appended"])
    async def test_killed_in_the_middle_each_part_stands_once(self, slack: Sandbox, moment: str, nth: int) -> None:
        night = self.at_eight(slack)
        bot = Bot(slack, night, rules=self.RULES)
        Killer(bot, moment, nth)
        with contextlib.suppress(Died):
            await bot.live()
        await Bot(slack, night, rules=self.RULES).live()
        found = Counter(keys(slack))
        assert sorted(found) == [
            "digest/C1/2026-11-22",
            "digest/C1/2026-11-22/1",
            "digest/C1/2026-11-22/2",
            EXPECTED[0],
        ]
        assert set(found.values()) == {1}
        head = next(one for one in slack.messages("C1") if keys_of(one) == "digest/C1/2026-11-22")
        assert len(slack.thread("C1", head.ts)) == 2

    @pytest.mark.parametrize(("nth", "part"), [(2, ""), (3, "/1"), (4, "/2")])
    async def test_without_the_scope_to_look_only_the_part_in_hand_may_repeat(self, nth: int, part: str) -> None:
        async with a_slack(SCOPES | FILES) as slack:
            night = self.at_eight(slack)
            bot = Bot(slack, night, rules=self.RULES)
            Killer(bot, "replied", nth)
            with contextlib.suppress(Died):
                await bot.live()
            await Bot(slack, night, rules=self.RULES).live()
            marked = [keys_of(one) for one in everything(slack) if "may repeat" in shown(one.blocks)]
            assert marked == [f"digest/C1/2026-11-22{part}"]

    async def test_one_that_cannot_be_drawn_silences_nothing_else(self, slack: Sandbox) -> None:
        night = self.at_eight(slack)
        bot = Bot(slack, night, rules=self.RULES)
        bot.is_broken = True
        await bot.live()
        goes_on(night)
        await bot.poster.settle()
        assert keys(slack) == EXPECTED
        bot = Bot(slack, night, rules=self.RULES)
        await bot.live()
        assert "digest/C1/2026-11-22" in keys(slack)

    async def test_a_digest_a_day_and_no_more(self, slack: Sandbox) -> None:
        night = self.at_eight(slack)
        bot = Bot(slack, night, rules=self.RULES)
        await bot.live()
        for _ in range(3):
            clock_of(slack).advance(timedelta(days=1).total_seconds())
            night.say(e.IdeaSuggested(text=f"at {clock_of(slack).now()}"), "", ADA)
            await bot.poster.settle()
        heads = [key for key in keys(slack) if key.startswith("digest/") and key.count("/") == 2]
        assert len(heads) == len(set(heads)) == 4
