"""The Home tab: published when it is opened, and again, not too often, while things change for those who look."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from slack_bolt.async_app import AsyncApp

from bot.desk import Desk
from bot.notifier import Done, Notifier, NotNow
from bot.views.home import LastDigest, Picture

LOG = logging.getLogger(__name__)
LOOKS_S = 1_800.0
"""How long someone who opened the tab counts as looking; Slack does not say when it is left."""
AGAIN_S = 15.0
"""Between two publications for changes."""
LOOKERS_MAX = 30


def register(app: AsyncApp, homes: Homes) -> None:
    """Have *app* serve the Home tab."""

    @app.event("app_home_opened")
    async def opened(event: dict[str, Any], body: dict[str, Any]) -> None:
        if event.get("tab") == "home":
            await homes.opened(str(event["user"]), str(body.get("team_id", "")), _hash(event))


def _hash(event: dict[str, Any]) -> str:
    return str((event.get("view") or {}).get("hash", ""))


@dataclass(slots=True)
class _Looker:
    team: str
    since_s: float
    hash: str = ""


@dataclass(slots=True)
class Homes:
    """
    Everyone's Home tab.

    Attributes:
        picture, digest: What to show beside the desk's view, as it is now.
    """

    desk: Desk
    door: Notifier
    monotonic: Callable[[], float]
    digest: Callable[[], LastDigest | None]
    picture: Callable[[], Awaitable[Picture | None]]
    again_s: float = AGAIN_S
    _lookers: dict[str, _Looker] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def opened(self, user: str, team: str, hash_: str) -> None:
        """Show the tab to someone who has just opened it."""
        self._lookers.pop(user, None)
        self._lookers[user] = _Looker(team, self.monotonic(), hash_)
        while len(self._lookers) > LOOKERS_MAX:
            del self._lookers[next(iter(self._lookers))]
        await self._publish(user)

    def changed(self) -> None:
        """Something happened that the tab may show."""
        self._changed.set()

    async def run(self) -> None:
        """Publish again for those who look while things change, for ever."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            for user, looker in list(self._lookers.items()):
                if self.monotonic() - looker.since_s > LOOKS_S:
                    del self._lookers[user]
                else:
                    await self._publish(user)
            await asyncio.sleep(self.again_s)

    async def _publish(self, user: str) -> None:
        looker = self._lookers[user]
        view = await self.desk.home_view(user, looker.team, await self.picture(), self.digest())
        came = await self.door.publish_home(user, view, looker.hash or None)
        if isinstance(came, NotNow) and looker.hash:  # changed by another window, or by an earlier life of the bot
            came = await self.door.publish_home(user, view)
        if isinstance(came, Done):
            looker.hash = str((came.data.get("view") or {}).get("hash", ""))
        else:
            LOG.warning("the Home tab of %s could not be shown: %s", user, came.why)
