"""Who someone is in Slack: looked up, remembered for a while, and never guessed.

Guaranteed: someone who could not be looked up now or lately is `is_known = False`, which may nothing. What is known is
good for some minutes; while Slack cannot be asked, what was known before is good for an hour. Calls for the same
person at the same time are one call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

from bot.access import Person

FRESH_S = 300.0
STALE_S = 3_600.0
KEPT = 2_000
"""People who are remembered."""

Call = Callable[[str, Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
"""Calls a method of the Web API and returns its answer; raises `SlackSaidNo` or an error of the connection."""


@dataclass(frozen=True, slots=True)
class Known:
    """Someone who was looked up; *zone* is None where Slack does not say one of the IANA list."""

    person: Person
    zone: str | None


@dataclass(slots=True)
class _Entry:
    value: Mapping[str, Any]
    at_s: float


class People:
    """People and user groups, by their ids."""

    def __init__(self, call: Call, home_team: str, groups: Iterable[str], monotonic: Callable[[], float]) -> None:
        """*groups* are the user groups whose members matter; only where there are some, their scope is needed."""
        self._call = call
        self._home = home_team
        self._groups = tuple(sorted(groups))
        self._monotonic = monotonic
        self._kept: dict[tuple[str, str], _Entry] = {}
        self._asking: dict[tuple[str, str], asyncio.Task[Mapping[str, Any] | None]] = {}

    async def find(self, user: str, team: str) -> Known:
        """Look someone up. *team* is the workspace that the delivery says the person belongs to."""
        members = asyncio.gather(*(self._look("usergroups.users.list", {"usergroup": g}) for g in self._groups))
        said, *groups = await asyncio.gather(self._look("users.info", {"user": user}), members)
        info = said.get("user") if said is not None else None
        if not isinstance(info, Mapping) or info.get("deleted"):
            return Known(Person(user, team, is_known=False), None)
        mine = frozenset(
            group
            for group, listed in zip(self._groups, groups[0], strict=True)
            if listed is not None and user in listed.get("users", ())
        )
        person = Person(
            user,
            team,
            is_bot=bool(info.get("is_bot")),
            is_guest=bool(info.get("is_restricted") or info.get("is_ultra_restricted")),
            is_foreign=self._is_foreign(info),
            groups=mine,
        )
        return Known(person, _zone(info.get("tz")))

    def _is_foreign(self, info: Mapping[str, Any]) -> bool:
        if info.get("is_stranger"):
            return True
        team = info.get("team_id")
        enterprise = info.get("enterprise_user")
        teams = enterprise.get("teams", ()) if isinstance(enterprise, Mapping) else ()
        return team is not None and team != self._home and self._home not in teams

    async def _look(self, method: str, params: Mapping[str, str]) -> Mapping[str, Any] | None:
        """The answer, remembered if it is fresh, or if it is stale and Slack gives no other; None if there is none."""
        key = (method, next(iter(params.values())))
        entry = self._kept.get(key)
        if entry is not None and self._monotonic() - entry.at_s < FRESH_S:
            return entry.value
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._ask(key, method, params))
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        answer = await asyncio.shield(task)
        if answer is None and entry is not None and self._monotonic() - entry.at_s < STALE_S:
            return entry.value
        return answer

    async def _ask(self, key: tuple[str, str], method: str, params: Mapping[str, str]) -> Mapping[str, Any] | None:
        try:
            answer = await self._call(method, params)
        except Exception:  # whatever it is, this person is not known
            return None
        self._kept.pop(key, None)
        self._kept[key] = _Entry(answer, self._monotonic())
        if len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]
        return answer


def _zone(name: object) -> str | None:
    if not isinstance(name, str):
        return None
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return None
    return name
