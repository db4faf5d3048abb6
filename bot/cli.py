"""`nightshift bot`: serve Slack. The composition root: clock, ids, tokens and settings of the bot are read here."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
import platform
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import click

from bot.checkup import SLACK_API_URL, Tokens, examine, token_checks
from bot.errors import BotError, NotConfigured
from eventstore import settings as st
from eventstore.checks import Report, not_ok, report, text
from eventstore.codec import clean
from eventstore.console import fail, new_id, now, open_home
from eventstore.console import guarded as guarded_by_eventstore
from eventstore.envelope import format_at
from eventstore.errors import EventstoreError, SettingsError
from eventstore.files import replace_file
from eventstore.hidden import hide
from eventstore.home import Home
from eventstore.plain import plain
from eventstore.views import as_json as as_json_text
from eventstore.zone import local_zone

if TYPE_CHECKING:
    from bot.app import Around

P = ParamSpec("P")
R = TypeVar("R")

BOT_TOKEN, APP_TOKEN, API_URL = "SLACK_BOT_TOKEN", "SLACK_APP_TOKEN", "SLACK_API_URL"
LINE_MAX = 4_000


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """Let *command* end with one sentence and exit code 1 where Slack, a token or the log is not as needed."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except BotError as error:
            fail(str(error))
        except BaseExceptionGroup as group:  # what a task of the bot's raised
            found = _first(group)
            if isinstance(found, BotError | EventstoreError):
                fail(str(found))
            raise

    return guarded_by_eventstore(run)


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


@click.command("bot")
@click.option("--check", is_flag=True, help="Only say whether the bot can work: tokens, scopes, channels, connection.")
@click.option("--json", "as_json", is_flag=True, help="With --check: for programs.")
@click.option("--once", type=click.Choice(["digest"]), help="Make one digest of what happened since the last, and end.")
@click.option("--dry-run", is_flag=True, help="With --once: print what would be posted as Block Kit, post nothing.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="With --dry-run: also a page to look at, roughly as Slack would show it.")  # fmt: skip
@click.option("--sandbox-workspace", is_flag=True, help="Try the bot in this terminal, with a Slack of its own.")
@click.option("--verbose", is_flag=True, help="Log what the Slack libraries do too.")
@click.pass_context
@guarded
def bot_command(
    ctx: click.Context,
    check: bool,
    as_json: bool,
    once: str | None,
    dry_run: bool,
    html: Path | None,
    sandbox_workspace: bool,
    verbose: bool,
) -> None:
    """Serve Slack: take commands, post what happens, send the digest. Until Ctrl-C or SIGTERM.

    The bot needs two tokens in its environment, SLACK_BOT_TOKEN (xoxb-) and SLACK_APP_TOKEN (xapp-), and a channel in
    nightshift.toml; docs/slack.md takes ten minutes. Nothing listens on this machine: the bot calls Slack.

    \b
      nightshift bot
      nightshift bot --check
      nightshift bot --sandbox-workspace                             no account needed
      nightshift bot --once digest --dry-run --html digest.html
    """
    home = open_home(ctx)
    if (dry_run or html is not None) and once is None:
        raise click.UsageError("--dry-run and --html go with --once digest")
    if html is not None and not dry_run:
        raise click.UsageError("--html goes with --dry-run: what is posted can be seen in Slack")
    if check:
        found = _check(home)
        click.echo(as_json_text(found) if as_json else text(found))
        sys.exit(0 if found.is_ok else 1)
    settings = read_settings(home)
    if once and dry_run:
        _dry_run(home, html)
        return
    if not sandbox_workspace:
        hide()
        _log_to_stderr(tokens(), verbose)
    with home.hold("bot"):
        asyncio.run(_try_out(home, settings) if sandbox_workspace else _serve(home, settings, once=once is not None))


# ---------------------------------------------------------------- what it is made of


def read_settings(home: Home) -> st.Settings:
    """Read nightshift.toml. Raises `SettingsError`; `NotConfigured` where there is no file."""
    try:
        return st.parse(home.settings_path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotConfigured(
            f"there is no {home.settings_path.name} in {home.root}: `nightshift init` makes one"
        ) from None
    except UnicodeDecodeError as error:
        raise NotConfigured(f"{home.settings_path.name} is not text in UTF-8: save it as such") from error


def tokens() -> Tokens:
    """The two tokens from the environment, where nothing else reads them."""
    return Tokens(os.environ.get(BOT_TOKEN, "").strip(), os.environ.get(APP_TOKEN, "").strip())


def base_url() -> str:
    """Where the Web API is."""
    return os.environ.get(API_URL) or SLACK_API_URL


def _checked_tokens() -> Tokens:
    found = tokens()
    for check in token_checks(found):
        if check.outcome == "not_ok":
            raise NotConfigured(f"{check.found}: {check.fix} (docs/slack.md)")
    return found


def _check(home: Home) -> Report:
    """Look at everything; settings that cannot be read are the one finding."""
    try:
        settings = read_settings(home)
    except (NotConfigured, SettingsError) as error:
        return report([not_ok("settings", str(error), "mend nightshift.toml")])
    bots = 0 if home.holder("bot") is None else 1
    return asyncio.run(examine(settings, tokens(), base_url(), now(), bots=bots))


# ---------------------------------------------------------------- serving


async def _serve(home: Home, settings: st.Settings, *, once: bool = False) -> None:
    from bot.app import post_digest, serve  # noqa: PLC0415 - the Slack libraries take a second

    if settings.slack.channel is None:
        raise NotConfigured("slack.channel is not set in nightshift.toml: name the id of the channel (docs/slack.md)")
    around = _around(home, settings, _checked_tokens())
    _stop_with(around.stop)
    await (post_digest(around) if once else serve(around))


async def _try_out(home: Home, settings: st.Settings) -> None:
    from bot.trial import try_out  # noqa: PLC0415 - the Slack libraries take a second

    await try_out(_around(home, settings, Tokens("", "")))


def _around(home: Home, settings: st.Settings, found: Tokens) -> Around:
    from bot.app import Around  # noqa: PLC0415 - the Slack libraries take a second

    return Around(
        home=home,
        settings=settings,
        tokens=found,
        base_url=base_url(),
        zone=local_zone(),
        host=platform.node(),
        now=now,
        monotonic=time.monotonic,
        new_id=new_id,
        stop=asyncio.Event(),
    )


def _stop_with(stop: asyncio.Event) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)


def _dry_run(home: Home, html: Path | None) -> None:
    """Print the digest that would be posted now, and write the page."""
    from bot.drawing import draw_digest, window_since_last  # noqa: PLC0415 - only here

    if not home.log_path.exists():
        fail("there is no log yet, so nothing to tell: `nightshift start TAG` asks for a run")
    drawn = draw_digest(home.log_path, window_since_last(home.log_path, format_at(now())))
    messages = [drawn.head, *drawn.replies]
    payloads = [{"text": one.text, "blocks": [*one.blocks, *one.extra]} for one in messages]
    click.echo(json.dumps(payloads, indent=2, ensure_ascii=False))
    if html is not None:
        from bot.html import page, shown  # noqa: PLC0415 - only here

        cards = [shown(drawn.head), *(shown(one, "reply") for one in drawn.replies)]
        replace_file(html, page(cards, "Nightshift digest").encode())
        click.echo(f"Wrote {html}.", err=True)


# ---------------------------------------------------------------- the bot's own log


class _Redacted(logging.Formatter):
    """One line for each record, without a token and without what a terminal would obey."""

    def __init__(self, secrets: Tokens) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s")
        self._secrets = [token for token in (secrets.bot, secrets.app) if token]

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        for secret in self._secrets:
            line = line.replace(secret, "(token)")
        return plain(clean(line, LINE_MAX))


def _log_to_stderr(secrets: Tokens, verbose: bool) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_Redacted(secrets))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for name in ("slack_bolt", "slack_sdk", "apscheduler", "aiohttp", "asyncio"):
        logging.getLogger(name).setLevel(logging.INFO if verbose else logging.WARNING)
