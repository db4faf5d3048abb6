"""Who may ask for what: every branch, and that whatever is not allowed is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot import intents as i
from bot.access import NAMED_MAX, Person, allows, refusal, role, watched_groups
from eventstore.settings import Slack

HOME = "T1"
SLACK = Slack(channel="C1", channels=("C2",), admins=("U1", "S1"), operators=("U2", "S2"))
OPEN = Slack(channel="C1")

ADMIN = Person("U1", HOME)
OF_ADMINS = Person("U8", HOME, groups=frozenset({"S1", "S9"}))
OPERATOR = Person("U2", HOME)
OF_OPERATORS = Person("U9", HOME, groups=frozenset({"S2"}))
MEMBER = Person("U3", HOME, groups=frozenset({"S9"}))
BOT = Person("U1", HOME, is_bot=True)
GUEST = Person("U1", HOME, is_guest=True)
FOREIGN = Person("U1", HOME, is_foreign=True)
OTHER_TEAM = Person("U1", "T2")
UNKNOWN = Person("U1", HOME, is_known=False)
NAMESAKE = Person("u1", HOME)

STOP, STATUS, HOUR = i.Stop(), i.Status(), i.DigestAt("08:00")


@pytest.mark.parametrize(
    ("person", "slack", "expected"),
    [
        (ADMIN, SLACK, "admin"),
        (OF_ADMINS, SLACK, "admin"),
        (OPERATOR, SLACK, "operate"),
        (OF_OPERATORS, SLACK, "operate"),
        (MEMBER, SLACK, "look"),
        (NAMESAKE, SLACK, "look"),
        (ADMIN, OPEN, "look"),
        (BOT, SLACK, None),
        (GUEST, SLACK, None),
        (FOREIGN, SLACK, None),
        (OTHER_TEAM, SLACK, None),
        (UNKNOWN, SLACK, None),
        (Person("U1", ""), SLACK, None),
    ],
)
def test_the_role_of_a_person(person: Person, slack: Slack, expected: i.Role | None) -> None:
    assert role(person, slack, HOME) == expected


def test_a_role_includes_the_smaller_ones() -> None:
    roles: tuple[i.Role, ...] = ("look", "operate", "admin")
    for index, have in enumerate(roles):
        assert [need for need in roles if allows(have, need)] == list(roles[: index + 1])
        assert not allows(None, have)


@pytest.mark.parametrize(
    ("person", "asked", "channel", "slack", "expected"),
    [
        (ADMIN, STOP, "C1", SLACK, None),
        (ADMIN, HOUR, "C2", SLACK, None),
        (ADMIN, "edit_program", "C1", SLACK, None),
        (OPERATOR, STOP, "C1", SLACK, None),
        (OPERATOR, "veto", "C2", SLACK, None),
        (OPERATOR, "veto", None, SLACK, None),
        (MEMBER, STATUS, "C1", SLACK, None),
        (MEMBER, i.Help(), "C9", SLACK, None),
        (MEMBER, i.Whoami(), "D1", Slack(), None),
        (MEMBER, STOP, "C1", SLACK, "to act on runs takes the role operate"),
        (MEMBER, STOP, "C1", SLACK, "<@U2>, <!subteam^S2>, <@U1> or <!subteam^S1> may."),
        (MEMBER, "stop_now", "C1", SLACK, "takes the role operate"),
        (OPERATOR, HOUR, "C1", SLACK, "<@U1> or <!subteam^S1> may."),
        (OPERATOR, "edit_program", "C1", SLACK, "to change what outlasts a run takes the role admin"),
        (ADMIN, "no such button", "C1", SLACK, None),
        (OPERATOR, "no such button", "C1", SLACK, "takes the role admin"),
        (MEMBER, STOP, "C1", OPEN, "Nobody may yet: `slack.admins` and `slack.operators` are empty."),
        (MEMBER, HOUR, "C1", OPEN, "Nobody may yet: `slack.admins` in nightshift.toml is empty."),
        (ADMIN, STATUS, "C9", SLACK, "takes this in <#C1> or <#C2> only."),
        (ADMIN, STOP, "D1", OPEN, "takes this in <#C1> only."),
        (ADMIN, STOP, "C1", Slack(admins=("U1",)), "`slack.channel` in nightshift.toml names it."),
        (ADMIN, STOP, "C2", Slack(admins=("U1",), channels=("C2",)), None),
        (BOT, STATUS, "C1", SLACK, "other bots"),
        (GUEST, i.Help(), "C1", SLACK, "guests"),
        (FOREIGN, STATUS, "C1", SLACK, "other workspaces"),
        (OTHER_TEAM, i.Whoami(), None, SLACK, "other workspaces"),
        (UNKNOWN, STATUS, "C1", SLACK, "did not say who you are"),
    ],
)
def test_a_refusal_says_why_and_who_may(
    person: Person, asked: i.Intent | str, channel: str | None, slack: Slack, expected: str | None
) -> None:
    why = refusal(person, asked, slack, HOME, channel)
    if expected is None:
        assert why is None
    else:
        assert why is not None and expected in why


def test_a_long_list_of_those_who_may_is_counted() -> None:
    many = Slack(channel="C1", operators=tuple(f"U{n}" for n in range(100, 140)))
    why = refusal(MEMBER, STOP, many, HOME, "C1")
    assert why is not None and why.count("<@") == NAMED_MAX and why.endswith("or 30 more may.")


def test_someone_in_both_lists_is_named_once() -> None:
    both = Slack(channel="C1", operators=("U1",), admins=("U1",))
    assert (refusal(MEMBER, STOP, both, HOME, "C1") or "").endswith(" <@U1> may.")


def test_only_configured_groups_are_looked_up() -> None:
    assert watched_groups(SLACK) == {"S1", "S2"} and watched_groups(OPEN) == frozenset()


@given(
    st.builds(
        Person,
        user=st.sampled_from(["U1", "U2", "U3"]),
        team=st.sampled_from(["T1", "T2"]),
        is_bot=st.booleans(),
        is_guest=st.booleans(),
        is_foreign=st.booleans(),
        groups=st.frozensets(st.sampled_from(["S1", "S2", "S3"])),
        is_known=st.booleans(),
    ),
    st.sampled_from([STOP, STATUS, HOUR, i.Help(), "stop", "veto", "edit_program", "other"]),
    st.sampled_from(["C1", "C2", "C3", "D1", None]),
)
def test_whoever_is_let_through_has_the_role_in_a_channel_that_counts(
    person: Person, asked: i.Intent | str, channel: str | None
) -> None:
    if refusal(person, asked, SLACK, HOME, channel) is not None:
        return
    assert person.team == HOME and person.is_known
    assert not (person.is_bot or person.is_guest or person.is_foreign)
    assert channel in ("C1", "C2", None) or isinstance(asked, i.Help)
    mine = {person.user, *person.groups}
    if i.role_of(asked) == "admin":
        assert mine & {"U1", "S1"}
    if i.role_of(asked) == "operate":
        assert mine & {"U1", "S1", "U2", "S2"}
