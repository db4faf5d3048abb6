"""Who may ask for what. Pure.

Guaranteed: what is not allowed is refused. People are known by their ids alone, groups by the ids of their members at
this moment. Bots, guests, people of other workspaces and people who could not be looked up may nothing; everyone else
of the workspace may look; operators may act on runs; admins may also change what outlasts a run. Commands are taken in
the configured channels and, without a channel, from the Home tab; buttons and forms are judged like commands, at the
moment they are used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bot.intents import COMMAND, Help, Intent, Role, Whoami, role_of
from eventstore.settings import Slack

NAMED_MAX = 10
"""People and groups that a refusal names."""

_RANK: dict[Role, int] = {"look": 1, "operate": 2, "admin": 3}
_ANYWHERE = (Help, Whoami)
_MEANS: dict[Role, str] = {
    "look": "look",
    "operate": "act on runs",
    "admin": "change what outlasts a run",
}


@dataclass(frozen=True, slots=True)
class Person:
    """
    Who asks.

    Attributes:
        user: The id, U… or W….
        team: The workspace that Slack says the person belongs to.
        is_bot, is_guest, is_foreign: As users.info says; foreign is who comes from another workspace.
        groups: Ids of the user groups with this member.
        is_known: False if the person could not be looked up.
    """

    user: str
    team: str
    is_bot: bool = False
    is_guest: bool = False
    is_foreign: bool = False
    groups: frozenset[str] = frozenset()
    is_known: bool = True


def role(person: Person, slack: Slack, home_team: str) -> Role | None:
    """The most that *person* may, wherever it is asked; None for nothing at all."""
    if _stranger(person, home_team):
        return None
    mine = {person.user, *person.groups}
    if mine.intersection(slack.admins):
        return "admin"
    return "operate" if mine.intersection(slack.operators) else "look"


def allows(have: Role | None, need: Role) -> bool:
    """Whether the role *have* includes *need*."""
    return have is not None and _RANK[have] >= _RANK[need]


def refusal(
    person: Person, asked: Intent | str, slack: Slack, home_team: str, channel: str | None = None
) -> str | None:
    """
    Why *person* may not, as one or two polite sentences of mrkdwn, or None if they may.

    Args:
        asked: What was typed, or the `action_id` of a button; a form counts as the button or the verb that opened it.
        home_team: The workspace that the bot was installed in.
        channel: Where it was asked; None for the Home tab, which is nowhere.
    """
    stranger = _stranger(person, home_team)
    if stranger:
        return stranger
    if channel is not None and not isinstance(asked, _ANYWHERE):
        elsewhere = _elsewhere(channel, slack)
        if elsewhere:
            return elsewhere
    need = role_of(asked)
    if allows(role(person, slack, home_team), need):
        return None
    return f"Sorry, to {_MEANS[need]} takes the role {need}, which you do not have. {_who_may(need, slack)}"


def watched_groups(slack: Slack) -> frozenset[str]:
    """The user groups whose members matter."""
    return frozenset(one for one in (*slack.admins, *slack.operators) if one.startswith("S"))


def _stranger(person: Person, home_team: str) -> str:
    """Why someone may nothing at all; empty for a member of the workspace."""
    if not person.is_known:
        return "Sorry, Slack did not say who you are just now, so nothing was done. Please try again in a minute."
    if person.is_foreign or person.team != home_team:
        return "Sorry, Nightshift takes nothing from people of other workspaces."
    if person.is_bot:
        return "Nightshift takes nothing from other bots and apps."
    if person.is_guest:
        return "Sorry, Nightshift takes nothing from guests of this workspace. Please ask a member."
    return ""


def _elsewhere(channel: str, slack: Slack) -> str:
    """Why a command is not taken in *channel*; empty if it is."""
    taken = list(dict.fromkeys((*([slack.channel] if slack.channel else []), *slack.channels)))
    if channel in taken:
        return ""
    if not taken:
        return (
            "Sorry, Nightshift does not know its channel yet: `slack.channel` in nightshift.toml names it. "
            f"`{COMMAND} whoami` shows the id of this one."
        )
    return f"Sorry, Nightshift takes this in {_or(f'<#{one}>' for one in taken)} only."


def _who_may(need: Role, slack: Slack) -> str:
    """Whom to ask: the smallest circle that may, named."""
    may = slack.admins if need == "admin" else (*slack.operators, *slack.admins)
    if may:
        return f"{_or(_mentions(dict.fromkeys(may)))} may."
    empty = "`slack.admins` in nightshift.toml is" if need == "admin" else "`slack.admins` and `slack.operators` are"
    return f"Nobody may yet: {empty} empty."


def _mentions(ids: Iterable[str]) -> Iterator[str]:
    return (f"<!subteam^{one}>" if one.startswith("S") else f"<@{one}>" for one in ids)


def _or(parts: Iterable[str]) -> str:
    known = list(parts)
    shown = known[:NAMED_MAX]
    if len(known) > len(shown):
        return f"{', '.join(shown)} or {len(known) - len(shown)} more"
    return f"{', '.join(shown[:-1])} or {shown[-1]}" if len(shown) > 1 else shown[0]
