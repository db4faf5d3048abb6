"""When a channel's digest is due. Pure.

Guaranteed: for each channel at most one digest for each local date, at the first moment at which its clocks show the
hour (where a change of clocks skips the hour, as long after it as it was before). A bot that was down makes the newest
digest it missed, once, late; older ones are not made up for. None is due for a moment before the schedule was set, and
none for a moment until which nothing had happened since the last one: what happens after it waits for the next.

A digest is told apart by its key (channel, local date). Whoever posts it appends `post.requested` with that key and
the positions of `Due`; after that it is not due any more, whatever becomes of the post, and
`eventstore.projections.digest.window_of` says what it speaks of.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from eventstore import events as e
from eventstore.envelope import format_at, parse_at
from eventstore.projections.digest import FIRST_WINDOW_S
from eventstore.requests import CLOCK_PATTERN, zone_problem

if TYPE_CHECKING:
    from eventstore.envelope import Event

KIND = "digest"
"""The kind of every digest's post."""

DAYS_BACK = 3
"""Local dates that are looked at for the newest moment that has passed; a zone may have skipped one."""

HOURS_KEPT = 72
"""Hours with news that are remembered for a channel's first digest: more than there are in its window."""

NO_NEWS = frozenset(
    {"post.requested", "post.made", "post.failed", "digest.scheduled", "digest.requested", "request.refused"}
)
"""Events that alone make no digest: they are about digests and posts, or changed nothing."""

_KEY = re.compile(r"digest/([^/]+)/(\d{4}-\d{2}-\d{2})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Default:
    """
    The digest that nobody had to ask for; a `digest.scheduled` for its channel replaces it.

    Attributes:
        at: The hour, HH:MM.
        zone: IANA; the zone of the machine where the settings name none.
        since: No moment before this counts: when the bot first served this workspace.
    """

    channel: str
    at: str
    zone: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Due:
    """
    A digest that is to be posted now.

    Attributes:
        day: The local date that it is for.
        zone: The zone it is meant in; UTC where the one asked for is not known on this machine.
        due_at: When it was due, in UTC; *late_s* is how many seconds ago that was.
        after, upto: The positions it speaks of: behind *after*, up to *upto*. *after* is 0 for the first digest of a
            channel, which speaks of the 24 hours before it.
    """

    key: str
    channel: str
    day: date
    zone: str
    due_at: datetime
    late_s: float
    after: int
    upto: int


def instant(day: date, at: str, zone: str) -> datetime:
    """The first moment of *day*, in UTC, at which the clocks of *zone* show *at*: HH:MM, or what it is moved to."""
    hours, minutes = at.split(":")
    there = datetime.combine(day, time(int(hours), int(minutes)), tzinfo=ZoneInfo(zone))
    return there.astimezone(UTC)


def key_of(channel: str, day: date) -> str:
    """The key of a channel's digest for a local date."""
    return f"digest/{channel}/{day.isoformat()}"


def on_demand_key(channel: str, position: int) -> str:
    """The key of a digest that someone asked for at *position*."""
    return f"digest/{channel}/at/{position}"


@dataclass(frozen=True, slots=True)
class _Schedule:
    """An hour that is in force since *since*; an empty *at* means none."""

    at: str
    zone: str
    since: datetime


@dataclass(slots=True)
class _Posted:
    """The newest scheduled digest of a channel: its date, the last position it spoke of, when news came since."""

    day: date
    upto: int
    news_at: str = ""


@dataclass(slots=True)
class _Hour:
    """An hour with news: when the first and the last of it came."""

    name: str
    first_at: str
    last_at: str


class Schedules:
    """What the log says of digests, folded event by event with `apply`. Holds a few small records for each channel."""

    def __init__(self) -> None:
        self.position = 0
        self._asked: dict[str, _Schedule] = {}
        self._posted: dict[str, _Posted] = {}
        self._news = 0
        self._hours: deque[_Hour] = deque(maxlen=HOURS_KEPT)

    def apply(self, event: Event) -> None:
        """Take in the next event of the log."""
        self.position = event.position
        match event.data:
            case e.DigestScheduled():
                self._schedule(event.data, event.at)
            case e.PostRequested(kind=kind) if kind == KIND:
                self._request(event.data)
        if event.type not in NO_NEWS:
            self._take_news(event)

    def due(self, now: datetime, default: Default | None) -> tuple[Due, ...]:
        """
        The digests that are due at *now*, by their channels.

        Args:
            now: Aware.
            default: From the settings; None for none.
        """
        found = (self._due_in(channel, schedule, now) for channel, schedule in self._in_force(default))
        return tuple(due for due in found if due is not None)

    def next_at(self, channel: str, now: datetime, default: Default | None) -> datetime | None:
        """When the channel's next digest will be due if anything happens until then, in UTC; None if it has none."""
        schedule = dict(self._in_force(default)).get(channel)
        if schedule is None:
            return None
        zone = _known(schedule.zone)
        posted = self._posted.get(channel)
        today = now.astimezone(ZoneInfo(zone)).date()
        for ahead in range(DAYS_BACK):
            day = today + timedelta(days=ahead)
            moment = instant(day, schedule.at, zone)
            if moment > now and (posted is None or day > posted.day):
                return moment
        return None

    def hour(self, channel: str, default: Default | None) -> tuple[str, str] | None:
        """The hour of a channel's digest and its zone; None if it has none."""
        schedule = dict(self._in_force(default)).get(channel)
        return (schedule.at, _known(schedule.zone)) if schedule is not None else None

    def last_window(self, channel: str) -> int:
        """The last position of which a scheduled digest of *channel* spoke; 0 if there was none."""
        posted = self._posted.get(channel)
        return posted.upto if posted is not None else 0

    def _in_force(self, default: Default | None) -> list[tuple[str, _Schedule]]:
        found = dict(self._asked)
        if default is not None and default.channel not in found and CLOCK_PATTERN.fullmatch(default.at):
            found[default.channel] = _Schedule(default.at, default.zone, default.since)
        return [(channel, schedule) for channel, schedule in sorted(found.items()) if schedule.at]

    def _schedule(self, data: e.DigestScheduled, at: str) -> None:
        if data.at and not CLOCK_PATTERN.fullmatch(data.at):
            return  # of a later version, perhaps: what was in force stays
        known = self._asked.get(data.channel)
        if known is None or (known.at, known.zone) != (data.at, data.zone):
            self._asked[data.channel] = _Schedule(data.at, data.zone, parse_at(at))

    def _take_news(self, event: Event) -> None:
        self._news = event.position
        name = event.at[:13]
        if not self._hours or self._hours[-1].name != name:
            self._hours.append(_Hour(name, event.at, event.at))
        self._hours[-1].last_at = event.at
        for posted in self._posted.values():
            posted.news_at = posted.news_at or event.at

    def _request(self, data: e.PostRequested) -> None:
        named = _KEY.fullmatch(data.key)
        if named is None:
            return
        channel, day = named[1], _day(named[2])
        known = self._posted.get(channel)
        if day is not None and (known is None or day > known.day):
            between = self._hours[-1].last_at if self._news > data.to_position else ""
            self._posted[channel] = _Posted(day, data.to_position, between)

    def _due_in(self, channel: str, schedule: _Schedule, now: datetime) -> Due | None:
        zone = _known(schedule.zone)
        today = now.astimezone(ZoneInfo(zone)).date()
        days = [today - timedelta(days=back) for back in range(DAYS_BACK)]
        passed = ((day, instant(day, schedule.at, zone)) for day in days)
        newest = next(((day, moment) for day, moment in passed if moment <= now), None)
        if newest is None or newest[1] < schedule.since:
            return None
        day, moment = newest
        posted = self._posted.get(channel)
        if (posted is not None and day <= posted.day) or not self._is_news(posted, moment):
            return None
        return Due(
            key=key_of(channel, day),
            channel=channel,
            day=day,
            zone=zone,
            due_at=moment,
            late_s=(now - moment).total_seconds(),
            after=posted.upto if posted is not None else 0,
            upto=self.position,
        )

    def _is_news(self, posted: _Posted | None, moment: datetime) -> bool:
        """Whether anything happened before *moment* that the digest would speak of."""
        end = format_at(moment)
        if posted is not None:
            return bool(posted.news_at) and posted.news_at < end
        begin = format_at(moment - timedelta(seconds=FIRST_WINDOW_S))
        return any(hour.first_at < end and hour.last_at >= begin for hour in self._hours)


def _known(zone: str) -> str:
    return zone if zone and zone_problem(zone) is None else "UTC"


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
