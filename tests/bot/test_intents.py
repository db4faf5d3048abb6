"""What people may type, and what they are told when it is nothing."""

from __future__ import annotations

import dataclasses
import typing

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bot import intents as i
from bot.values import ACTIONS
from eventstore import requests

WORDS = [word for verb in i.VERBS for word in (*verb.name.split(), *verb.example.split())]
MORE_WORDS = [
    "--tag",
    "--tag=nov21",
    "--until",
    "—usd",
    "--",
    "-",
    "`",
    "“",
    "now",
    "off",
    "#7",
    "7",
    "0",
    "$5",
    "\u200b",
]


@pytest.mark.parametrize("verb", i.VERBS, ids=lambda verb: verb.name)
def test_every_example_of_the_table_parses_to_its_verb(verb: i.Verb) -> None:
    intent = i.parse(f"{verb.name} {verb.example}")
    assert not isinstance(intent, i.Mistake)
    assert i.verb_of(intent) is verb and i.role_of(intent) == verb.role
    assert i.parse(verb.full_example) == intent
    assert verb.usage.startswith(f"/nightshift {verb.name}")


def test_the_table_has_a_row_for_every_intent() -> None:
    assert {verb.make for verb in i.VERBS} == set(typing.get_args(i.Intent))
    assert len({verb.name for verb in i.VERBS}) == len(i.VERBS)


@pytest.mark.parametrize("verb", i.VERBS, ids=lambda verb: verb.name)
def test_an_argument_is_a_field_of_its_intent(verb: i.Verb) -> None:
    fields = {field.name: field for field in dataclasses.fields(verb.make)}  # type: ignore[arg-type]
    assert {arg.name for arg in verb.args} == set(fields)
    needed = {name for name, field in fields.items() if field.default is dataclasses.MISSING}
    assert {arg.name for arg in verb.args if arg.needed} == needed


def test_help_reads_the_name_of_every_verb() -> None:
    for verb in i.VERBS:
        asked = i.parse(f"help {verb.name}")
        assert isinstance(asked, i.Help) and asked.verb is not None and verb in i.verbs_of(asked.verb)


@settings(max_examples=400)
@given(st.text() | st.lists(st.sampled_from(WORDS + MORE_WORDS) | st.text(max_size=5), max_size=8).map(" ".join))
@example("'' " * 3_000)
@example("/nightshift " * 3_000)
@example("start " + "x" * 100_000)
@example("idea " + "x" * 100_000)
@example("veto 12 —")
@example("\ud800 \x00 \x1b[31m")
def test_any_text_is_an_intent_or_a_mistake(text: str) -> None:
    found = i.parse(text)
    if isinstance(found, i.Mistake):
        assert found.why.endswith((".", "?")) and "\n" not in found.why and len(found.why) < 300
        found.why.encode()
    else:
        assert i.role_of(found) in ("look", "operate", "admin")


@pytest.mark.parametrize(
    ("text", "intent"),
    [
        ("", i.Help()),
        ("  /nightshift  ", i.Help()),
        ("start", i.Start()),
        ("start nov21", i.Start("nov21")),
        (
            "start --experiments 100 nov21 --usd $7.50 --until 8:00 --from autoresearch/nov20",
            i.Start("nov21", "08:00", 7.5, 100, "autoresearch/nov20"),
        ),
        ("start nov21 --until=2026-11-22T08:00+01:00", i.Start("nov21", "2026-11-22T08:00+01:00")),
        ("start nov21 —until 08:00 ––usd 20", i.Start("nov21", "08:00", 20.0)),  # noqa: RUF001 - a phone's dashes
        ("Start `nov21`", i.Start("nov21")),
        ("start --tag nov21", i.Start("nov21")),
        ("stop", i.Stop()),
        ("stop now", i.StopNow()),
        ("STOP NOW nov21", i.StopNow("nov21")),
        ("stop nov21", i.Stop("nov21")),
        ("stop --tag nov21", i.Stop("nov21")),
        ("pause", i.Pause()),
        ("resume nov21", i.Resume("nov21")),
        ("budget usd 50", i.Budget("usd", 50.0)),
        ("budget experiments 200 --tag nov21", i.Budget("experiments", 200, "nov21")),
        ("budget until 07:30", i.Budget("until", "07:30")),
        ("budget until off", i.Budget("until", None)),
        ("status", i.Status()),
        ("experiment #12", i.Experiment(12)),
        ("experiment 0 --tag nov21", i.Experiment(0, "nov21")),
        ("diff --tag nov21 3", i.Diff(3, "nov21")),
        ("log 3", i.Log(3)),
        ("idea   try <b> & `this`\nand that ", i.SuggestIdea("try <b> & `this`\nand that")),
        ('idea "in quotes"', i.SuggestIdea("in quotes")),
        ("idea --no-bias everywhere", i.SuggestIdea("--no-bias everywhere")),
        ("withdraw 57", i.WithdrawIdea(57)),
        ("veto 12 it only wins\nby training longer", i.Veto(12, "it only wins by training longer")),
        ("veto 12 --tag nov21 slow", i.Veto(12, "slow", "nov21")),
        ("reject 13", i.Reject(13)),
        ("reject 13 reads the data", i.Reject(13, "reads the data")),
        ("digest", i.DigestHour()),
        ("digest now", i.DigestNow()),
        ("digest at 8:00", i.DigestAt("08:00")),
        ("digest at 08:00 Europe/Berlin", i.DigestAt("08:00", "Europe/Berlin")),
        ("digest off", i.DigestOff()),
        ("help", i.Help()),
        ("help `veto`", i.Help("veto")),
        ("\u200bstatus\u200b nov21", i.Status("nov21")),
    ],
)
def test_what_is_typed_is_read(text: str, intent: i.Intent) -> None:
    assert i.parse(text) == intent


@pytest.mark.parametrize(
    ("text", "why", "near"),
    [
        ("stauts", "There is no command “stauts”: did you mean `status`?", "status"),
        ("xyzzy", "There is no command “xyzzy”: `/nightshift help` lists them.", None),
        ("help stauts", "There is no command “stauts”: did you mean `status`?", "status"),
        ("veto", "Missing: N.", "veto"),
        ("veto 12", "Missing: WHY.", "veto"),
        ("veto twelve why", "“twelve” is not a number such as 7.", "veto"),
        ("veto 12 slow --tag nov20", "--tag must stand before the WHY, which is all that follows.", "veto"),
        ("veto 12 --tga nov20 slow", "`veto` has no option “--tga”: did you mean --tag?", "veto"),
        ("experiment -1", "“-1” is not a number such as 7.", "experiment"),
        ("experiment 99999999999", "“99999999999” is not a number such as 7.", "experiment"),
        ("diff 3 4", "“4” is one word too many.", "diff"),
        ("diff 3 --tag", "--tag needs a value, such as --tag TAG.", "diff"),
        ("diff 3 --tag a --tag b", "--tag is there twice.", "diff"),
        ("status --tag a b", "“b” is one word too many.", "status"),
        ("start ../x", "The tag '../x' is not a name: use letters", "start"),
        ("start nov21 --until 25:00", "“25:00” is not a time: write 08:00, or 2026-11-22T08:00+01:00.", "start"),
        ("start nov21 --until 2026-11-22T08:00", "“2026-11-22T08:00” is not a time", "start"),
        ("start nov21 --usd 0", "“0” is not an amount in US dollars such as 20 or 7.50.", "start"),
        ("start nov21 --usd inf", "“inf” is not an amount", "start"),
        ("start nov21 --experiments 0", "“0” is not a number of 1 or more.", "start"),
        ("start nov21 --from --exec=sh", "“--exec=sh” is not a commit or a branch.", "start"),
        ("budget", "Missing: experiments|until|usd.", "budget"),
        ("budget usd", "Missing: VALUE|off.", "budget"),
        ("budget money 20", "“money” is not a limit: those are experiments, until and usd.", "budget"),
        ("budget usd many", "“many” is not an amount", "budget"),
        ("idea", "Missing: TEXT.", "idea"),
        ("idea " + "x" * 2_001, "The idea is 2001 characters long, at most 2000 are allowed.", "idea"),
        ("veto 1 " + "x" * 501, "The reason is 501 characters long, at most 500 are allowed.", "veto"),
        ("digest at 08:00 Mars/Olympus", "“Mars/Olympus” is not a time zone such as Europe/Berlin.", "digest at"),
        ("digest sometimes", "“sometimes” is one word too many.", "digest"),
    ],
)
def test_a_mistake_is_one_sentence_with_the_command_that_comes_nearest(text: str, why: str, near: str | None) -> None:
    found = i.parse(text)
    assert isinstance(found, i.Mistake) and found.why.startswith(why)
    assert (found.near.name if found.near is not None else None) == near


def test_a_tag_that_is_taken_is_one_that_a_run_may_have() -> None:
    for tag in ("nov21", "nov21-gpu0", "a.b_c"):
        assert i.parse(f"start {tag}") == i.Start(tag) and requests.tag_problem(tag) is None


def test_every_button_has_a_role_and_an_unknown_one_is_for_admins() -> None:
    assert set(i.ACTION_ROLES) == set(ACTIONS)
    assert (
        i.role_of("stop") == "operate" and i.role_of("edit_program") == "admin" and i.role_of("format_disk") == "admin"
    )


def test_looking_is_for_everyone_and_what_outlasts_a_run_for_admins() -> None:
    by_role = {role: {verb.name for verb in i.VERBS if verb.role == role} for role in ("look", "operate", "admin")}
    assert by_role["admin"] == {"digest at", "digest off"}
    assert by_role["look"] == {
        *("status", "results", "experiment", "diff", "log", "ideas", "program", "digest", "help", "whoami")
    }
