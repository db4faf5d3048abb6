"""digest: what came of the night, as the team reads it in the morning."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import click

from eventstore import views
from eventstore.console import fail, guarded, now, open_home, open_log, say, show
from eventstore.envelope import format_at
from eventstore.home import Home
from eventstore.projections.digest import FIRST_WINDOW_S, DigestFold, LastDigest, Window
from eventstore.requests import CLOCK_PATTERN
from eventstore.zone import local_zone

AGO = re.compile(r"(\d{1,6})(min|h|d)", re.ASCII)
UNITS = {"min": "minutes", "h": "hours", "d": "days"}


@click.command("digest")
@click.argument("tag", required=False)
@click.option("--since", metavar="WHEN",
              help="`8h`, `2d`, a time of day here such as 22:00, a full time, or `start` for the whole log. "
                   "By default the last digest that was posted in Slack, else 24h.")  # fmt: skip
@click.option("--last", is_flag=True, help="The last digest that was posted in Slack, whole.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
@guarded
def digest_command(ctx: click.Context, tag: str | None, since: str | None, last: bool, as_json: bool) -> None:
    """Tell what came of the night: all runs or TAG, what was kept, what failed, what it cost, what needs you.

    A gain is told with what is known of it: confirmed, within noise, or untested.

    \b
      nightshift digest
      nightshift digest --last
      nightshift digest --since 22:00
      nightshift digest nov21 --since start --json | jq .runs[0].keeps
    """
    if last and since is not None:
        raise click.UsageError("--last and --since each name a time to begin: give one of them")
    home = open_home(ctx)
    moment = None if since in (None, "start") else _moment(since or "")
    if not home.log_path.exists():
        if tag is not None:
            fail(views.unknown_tag(tag, ()))
        say("There is no log yet, so nothing to tell: `nightshift start TAG` asks for a run.")
        return
    fold = _fold(home, tag, _window(home, since, moment, last))
    if tag is not None and tag not in fold.state.runs:
        fail(views.unknown_tag(tag, fold.state.runs))
    found = fold.digest()
    if as_json:
        click.echo(views.as_json(found))
        return
    from eventstore import digest_screen  # noqa: PLC0415 - not for JSON

    show(digest_screen.digest(found, local_zone()))


def _fold(home: Home, tag: str | None, window: Window) -> DigestFold:
    fold = DigestFold(window, None if tag is None else {tag})
    with open_log(home) as log:
        for event in log.stream():
            fold.apply(event)
    return fold


def _window(home: Home, since: str | None, moment: datetime | None, last: bool) -> Window:
    to_at = format_at(now())
    if since == "start":
        return Window(after=0, to_at=to_at)
    if moment is not None:
        return Window(from_at=format_at(moment), to_at=to_at)
    posted = LastDigest()
    with open_log(home) as log:
        for event in log.stream():
            posted.apply(event)
    if posted.window is None and last:
        fail("no digest was posted yet: `nightshift digest --since start` tells of everything")
    if posted.window is None:
        return Window(from_at=format_at(now() - timedelta(seconds=FIRST_WINDOW_S)), to_at=to_at)
    return posted.window if last else Window(after=posted.window.upto, to_at=to_at)


def _moment(since: str) -> datetime:
    """The moment that `--since` means. Wrong usage if it is none."""
    if ago := AGO.fullmatch(since):
        return now() - timedelta(**{UNITS[ago[2]]: int(ago[1])})
    if CLOCK_PATTERN.fullmatch(since):
        return _last(since)
    try:
        moment = datetime.fromisoformat(since)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise click.BadParameter(
        f"{since!r} is not a time: write 8h, 2d, the last time of day here as 22:00, a full one as "
        "2026-11-20T22:00+01:00, or start",
        param_hint="--since",
    )


def _last(clock: str) -> datetime:
    """The newest moment at which the clocks here showed *clock*."""
    hours, minutes = map(int, clock.split(":"))
    there = now().astimezone(ZoneInfo(local_zone())).replace(hour=hours, minute=minutes, second=0, microsecond=0)
    candidates = ((there - timedelta(days=back)).astimezone(UTC) for back in range(3))
    return next(moment for moment in candidates if moment <= now())
