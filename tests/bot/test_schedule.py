"""A digest is due once for each channel and local date, at its hour, whatever the clocks and the bot do."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.schedule import KIND, Default, Due, Schedules, instant, key_of, on_demand_key
from eventstore import events as e
from eventstore.envelope import Event, format_at

MORNING = datetime(2026, 11, 21, 7, tzinfo=UTC)  # 08:00 in Berlin
NEVER = datetime(2026, 1, 1, tzinfo=UTC)
BERLIN = Default("C1", "08:00", "Europe/Berlin", NEVER)


class Desk:
    """A log and what it says of digests; posting appends what the bot would append."""

    def __init__(self) -> None:
        self.schedules = Schedules()
        self.posted: list[Due] = []

    def write(self, data: e.Data, at: datetime, run: str = "") -> int:
        position = self.schedules.position + 1
        self.schedules.apply(
            Event(position, f"id-{position}", run, data.TYPE, data.VERSION, format_at(at), "a", None, data, b"")
        )
        return position

    def news(self, at: datetime) -> int:
        return self.write(e.RunPaused(why="asked"), at, "nov21")

    def schedule(self, at: datetime, hour: str, zone: str = "Europe/Berlin", channel: str = "C1") -> None:
        self.write(e.DigestScheduled(channel=channel, at=hour, zone=zone if hour else ""), at)

    def tick(self, now: datetime, default: Default | None = BERLIN) -> list[Due]:
        """What the alarm clock does: post what is due."""
        found = list(self.schedules.due(now, default))
        for due in found:
            request = e.PostRequested(
                key=due.key, channel=due.channel, kind=KIND, from_position=due.after, to_position=due.upto
            )
            self.write(request, now)
            self.write(e.PostMade(key=due.key, channel=due.channel, ts="1"), now)
        self.posted += found
        return found


# ---------------------------------------------------------------- once a day


def test_a_digest_is_due_at_its_hour_and_then_not_again() -> None:
    desk = Desk()
    desk.news(MORNING - timedelta(hours=5))
    assert desk.tick(MORNING - timedelta(seconds=1)) == []
    (due,) = desk.tick(MORNING)
    assert (due.key, due.channel, due.day) == ("digest/C1/2026-11-21", "C1", date(2026, 11, 21))
    assert (due.due_at, due.late_s, due.zone, due.after, due.upto) == (MORNING, 0.0, "Europe/Berlin", 0, 1)
    desk.news(MORNING + timedelta(minutes=1))
    assert desk.tick(MORNING + timedelta(minutes=2)) == []
    assert desk.tick(MORNING + timedelta(hours=23)) == []


def test_the_next_digest_speaks_of_what_came_behind_the_last() -> None:
    desk = Desk()
    first = desk.news(MORNING - timedelta(hours=1))
    desk.tick(MORNING)
    news = desk.news(MORNING + timedelta(hours=3))
    (due,) = desk.tick(MORNING + timedelta(days=1))
    assert (due.after, due.upto) == (first, news)


def test_a_bot_that_was_down_makes_the_digest_once_and_says_how_late() -> None:
    desk = Desk()
    desk.news(MORNING - timedelta(hours=1))
    (due,) = desk.tick(MORNING + timedelta(minutes=70))
    assert (due.late_s, due.due_at) == (4_200.0, MORNING)
    assert desk.tick(MORNING + timedelta(minutes=71)) == []


def test_of_many_missed_digests_only_the_newest_is_made() -> None:
    desk = Desk()
    desk.news(MORNING - timedelta(hours=1))
    desk.tick(MORNING)
    for day in range(1, 5):
        desk.news(MORNING + timedelta(days=day, hours=-1))
    back = MORNING + timedelta(days=4, hours=2)
    assert [due.day for due in desk.tick(back)] == [date(2026, 11, 25)]
    assert desk.tick(back + timedelta(minutes=1)) == []


def test_one_missed_yesterday_is_made_before_todays_hour_and_todays_at_its_hour() -> None:
    desk = Desk()
    desk.news(MORNING - timedelta(hours=1))
    early = MORNING + timedelta(days=1, minutes=-10)
    assert [due.day for due in desk.tick(early)] == [date(2026, 11, 21)]
    desk.news(early)
    assert [due.day for due in desk.tick(MORNING + timedelta(days=1))] == [date(2026, 11, 22)]


def test_a_failed_post_is_not_asked_for_again() -> None:
    desk = Desk()
    desk.news(MORNING - timedelta(hours=1))
    (due,) = desk.schedules.due(MORNING, BERLIN)
    desk.write(e.PostRequested(key=due.key, channel="C1", kind=KIND, to_position=due.upto), MORNING)
    desk.write(e.PostFailed(key=due.key, why="channel_not_found"), MORNING)
    desk.news(MORNING)
    assert desk.tick(MORNING + timedelta(minutes=5)) == []


# ---------------------------------------------------------------- nothing to tell


def test_without_anything_new_no_digest_is_made() -> None:
    desk = Desk()
    assert desk.tick(MORNING) == []
    desk.news(MORNING - timedelta(hours=1))
    assert len(desk.tick(MORNING)) == 1
    desk.write(e.RequestRefused(who="U1", what="stop", why="no run"), MORNING + timedelta(hours=1))
    assert desk.tick(MORNING + timedelta(days=1)) == []


def test_what_happens_after_a_quiet_hour_waits_for_the_next_one() -> None:
    desk = Desk()
    desk.news(MORNING - timedelta(hours=1))
    desk.tick(MORNING)
    news = desk.news(MORNING + timedelta(days=1, hours=1))
    assert desk.tick(MORNING + timedelta(days=1, hours=2)) == []
    (due,) = desk.tick(MORNING + timedelta(days=2))
    assert (due.day, due.late_s, due.upto) == (date(2026, 11, 23), 0.0, news)


def test_the_first_thing_that_ever_happens_makes_no_digest_of_yesterday() -> None:
    desk = Desk()
    desk.news(MORNING - timedelta(days=9))
    desk.news(MORNING - timedelta(hours=6))
    assert desk.tick(MORNING - timedelta(hours=5)) == []
    assert len(desk.tick(MORNING)) == 1


def test_the_first_digest_of_a_channel_needs_news_of_the_day_before_it() -> None:
    desk = Desk()
    desk.news(MORNING - timedelta(days=3))
    assert desk.tick(MORNING) == []


def test_nothing_is_due_for_a_moment_before_the_schedule_was_set() -> None:
    desk = Desk()
    desk.news(MORNING - timedelta(hours=3))
    desk.schedule(MORNING + timedelta(minutes=1), "08:00", channel="C2")
    assert desk.tick(MORNING + timedelta(minutes=2), None) == []
    desk.news(MORNING + timedelta(hours=3))
    assert len(desk.tick(MORNING + timedelta(days=1), None)) == 1


def test_the_digest_of_the_settings_counts_from_when_the_bot_first_served() -> None:
    desk = Desk()
    desk.news(MORNING - timedelta(hours=3))
    late = Default("C1", "08:00", "Europe/Berlin", MORNING + timedelta(hours=1))
    assert desk.tick(MORNING + timedelta(hours=2), late) == []
    desk.news(MORNING + timedelta(hours=3))
    assert len(desk.tick(MORNING + timedelta(days=1), late)) == 1


# ---------------------------------------------------------------- schedules


def test_a_schedule_replaces_that_of_the_settings_and_off_turns_it_off() -> None:
    desk = Desk()
    desk.news(MORNING - timedelta(hours=3))
    desk.schedule(MORNING - timedelta(hours=2), "09:30", "UTC")
    assert desk.tick(MORNING) == []
    assert [due.zone for due in desk.tick(datetime(2026, 11, 21, 9, 30, tzinfo=UTC))] == ["UTC"]
    desk.schedule(MORNING + timedelta(hours=5), "")
    desk.news(MORNING + timedelta(hours=6))
    assert desk.tick(MORNING + timedelta(days=2)) == []
    assert desk.schedules.hour("C1", BERLIN) is None and desk.schedules.next_at("C1", MORNING, BERLIN) is None


def test_asking_for_the_same_hour_again_does_not_lose_the_digest_that_is_due() -> None:
    desk = Desk()
    desk.schedule(MORNING - timedelta(days=1), "08:00")
    desk.news(MORNING - timedelta(hours=1))
    desk.schedule(MORNING + timedelta(minutes=5), "08:00")
    assert len(desk.tick(MORNING + timedelta(minutes=6), None)) == 1


def test_another_hour_on_the_same_date_makes_no_second_digest() -> None:
    desk = Desk()
    desk.news(MORNING - timedelta(hours=1))
    desk.tick(MORNING)
    desk.schedule(MORNING + timedelta(minutes=5), "10:00")
    desk.news(MORNING + timedelta(minutes=6))
    assert desk.tick(MORNING + timedelta(hours=3)) == []
    assert desk.schedules.next_at("C1", MORNING + timedelta(hours=1), None) == datetime(2026, 11, 22, 9, tzinfo=UTC)
    assert len(desk.tick(MORNING + timedelta(days=1, hours=2))) == 1


def test_channels_have_their_own_hours_and_digests() -> None:
    desk = Desk()
    desk.news(MORNING - timedelta(hours=1))
    desk.schedule(MORNING - timedelta(hours=1), "08:00", "America/Chicago", "C2")
    assert [due.channel for due in desk.tick(MORNING)] == ["C1"]
    (due,) = desk.tick(datetime(2026, 11, 21, 14, tzinfo=UTC))
    assert (due.channel, due.key) == ("C2", "digest/C2/2026-11-21")


def test_the_next_hour_is_told() -> None:
    schedules = Schedules()
    assert schedules.next_at("C1", MORNING - timedelta(minutes=1), BERLIN) == MORNING
    assert schedules.next_at("C1", MORNING, BERLIN) == MORNING + timedelta(days=1)
    assert schedules.next_at("C9", MORNING, BERLIN) is None
    assert schedules.hour("C1", BERLIN) == ("08:00", "Europe/Berlin")


def test_a_zone_that_this_machine_does_not_know_counts_as_utc_and_a_strange_hour_changes_nothing() -> None:
    desk = Desk()
    desk.schedule(NEVER, "08:00", "Mars/Olympus")
    desk.write(e.DigestScheduled(channel="C1", at="eight", zone="UTC"), NEVER)
    assert desk.schedules.hour("C1", None) == ("08:00", "UTC")


def test_digests_on_demand_do_not_move_the_window_of_the_daily_one() -> None:
    desk = Desk()
    desk.news(MORNING - timedelta(hours=1))
    desk.write(e.PostRequested(key=on_demand_key("C1", 1), channel="C1", kind=KIND, to_position=1), MORNING)
    (due,) = desk.tick(MORNING)
    assert due.after == 0 and desk.schedules.last_window("C1") == due.upto


def test_keys_of_other_forms_are_nobodys_digest() -> None:
    desk = Desk()
    for key in ("digest/C1/2026-13-45", "digest/C1", "digest/C1/2026-11-21/1"):
        desk.write(e.PostRequested(key=key, channel="C1", kind=KIND, to_position=9), MORNING)
    assert desk.schedules.last_window("C1") == 0


# ---------------------------------------------------------------- daylight saving, minute by minute


def live(hour: str, zone: str, first: datetime, days: int) -> list[Due]:
    """Move the clock minute by minute over some days, with news each minute."""
    desk = Desk()
    default = Default("C1", hour, zone, first)
    now = first
    while now < first + timedelta(days=days):
        desk.news(now)
        desk.tick(now, default)
        now += timedelta(minutes=1)
    return desk.posted


CHANGES = [
    ("Europe/Berlin", datetime(2026, 3, 27, 22, tzinfo=UTC), date(2026, 3, 29)),
    ("Europe/Berlin", datetime(2026, 10, 23, 22, tzinfo=UTC), date(2026, 10, 25)),
    ("America/Chicago", datetime(2026, 3, 6, 22, tzinfo=UTC), date(2026, 3, 8)),
    ("America/Chicago", datetime(2026, 10, 30, 22, tzinfo=UTC), date(2026, 11, 1)),
]


@pytest.mark.parametrize(("zone", "first", "change"), CHANGES)
@pytest.mark.parametrize("hour", ["08:00", "02:30", "01:30", "00:00"])
def test_over_a_change_of_clocks_each_local_date_has_one_digest_on_the_minute(
    zone: str, first: datetime, change: date, hour: str
) -> None:
    posted = live(hour, zone, first, 4)
    days = [due.day for due in posted]
    assert days == [days[0] + timedelta(days=n) for n in range(len(days))] and change in days
    assert len(posted) in (3, 4) and all(due.late_s == 0 for due in posted)
    asked = time.fromisoformat(hour)
    for due in posted:
        there = due.due_at.astimezone(ZoneInfo(zone))
        skipped = datetime.combine(due.day, asked, ZoneInfo(zone)).astimezone(UTC).astimezone(ZoneInfo(zone))
        assert there == skipped and there.date() == due.day
        assert there.time() == asked or (due.day == change and hour == "02:30")


@pytest.mark.parametrize(
    ("day", "hour", "zone", "expected"),
    [
        (date(2026, 3, 29), "02:30", "Europe/Berlin", datetime(2026, 3, 29, 1, 30, tzinfo=UTC)),  # shown as 03:30
        (date(2026, 10, 25), "02:30", "Europe/Berlin", datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),  # the first of two
        (date(2026, 3, 8), "02:30", "America/Chicago", datetime(2026, 3, 8, 8, 30, tzinfo=UTC)),
        (date(2026, 11, 1), "01:30", "America/Chicago", datetime(2026, 11, 1, 6, 30, tzinfo=UTC)),
        (date(2026, 9, 6), "00:00", "America/Santiago", datetime(2026, 9, 6, 4, tzinfo=UTC)),  # midnight is skipped
        (date(2026, 7, 1), "08:00", "Asia/Kathmandu", datetime(2026, 7, 1, 2, 15, tzinfo=UTC)),
    ],
)
def test_the_moment_of_an_hour(day: date, hour: str, zone: str, expected: datetime) -> None:
    assert instant(day, hour, zone) == expected


def test_a_date_that_a_zone_skipped_has_no_digest_of_its_own() -> None:
    """Samoa went from 2011-12-29 to 2011-12-31 at midnight."""
    posted = live("08:00", "Pacific/Apia", datetime(2011, 12, 28, 12, tzinfo=UTC), 4)
    assert [due.day.day for due in posted] == [28, 29, 31, 1]


ZONES = ["Europe/Berlin", "America/Chicago", "UTC", "Pacific/Chatham", "America/Santiago", "Asia/Kolkata"]


@settings(max_examples=80, deadline=None)
@given(
    zone=st.sampled_from(ZONES),
    hour=st.times().map(lambda at: f"{at:%H:%M}"),
    first=st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31), timezones=st.just(UTC)),
    pauses=st.lists(st.integers(1, 60 * 40), min_size=1, max_size=40),
)
def test_however_irregular_the_alarm_clock_no_date_has_two_digests_and_dates_only_grow(
    zone: str, hour: str, first: datetime, pauses: list[int]
) -> None:
    desk = Desk()
    default = Default("C1", hour, zone, first)
    now = first
    for pause in pauses:
        now += timedelta(minutes=pause)
        desk.news(now)
        before = len(desk.posted)
        assert len(desk.tick(now, default)) <= 1
        assert all(0 <= due.late_s < 25 * 3600 + 60 for due in desk.posted[before:])
    days = [due.day for due in desk.posted]
    assert days == sorted(set(days))
    assert all(due.key == key_of("C1", due.day) and due.due_at >= first for due in desk.posted)
    assert all(earlier.upto == later.after for earlier, later in zip(desk.posted, desk.posted[1:], strict=False))
