"""Forms: what they show, what is read from them, and that program.md is changed by what was shown as a diff alone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bot import text as slack_text
from bot.intents import Start
from bot.message import View
from bot.values import Form, from_metadata, from_value
from bot.views import modals
from eventstore.projections.program import ProgramVersion
from eventstore.requests import text_hash
from eventstore.settings import RunLimits
from tests.bot.looked_at import HOSTILE, check_modal, said, texts

quick = settings(max_examples=60, deadline=None)

PROGRAM = """\
Research notes before any heading.

# Goal

Lower `val_bpb` & keep the code < 700 lines.

## Rules

```python
# not a heading
x = 1
```

- one
\t- two

### Last
The end without a newline"""


def version(text: str) -> ProgramVersion:
    return ProgramVersion(
        position=7,
        at="2026-11-21T07:00:00.000000Z",
        actor="slack:T1/U2",
        hash=text_hash(text),
        base_hash="",
        text=text,
    )


def sent(view: View, changes: dict[str, str | None] | None = None) -> dict[str, Any]:
    """`state.values` as Slack sends them when a person has put in *changes*: escaped, null for an empty input."""
    values: dict[str, Any] = {}
    for block in view["blocks"]:
        if block["type"] == "input":
            words = (changes or {}).get(block["block_id"], block["element"].get("initial_value"))
            action = {"type": "plain_text_input", "value": slack_text.escape(words) if words else None}
            values[block["block_id"]] = {block["element"]["action_id"]: action}
    return values


def form_of(view: View) -> Form:
    form = from_metadata(view["private_metadata"])
    assert form is not None
    return form


def inputs(view: View) -> dict[str, str]:
    return {
        block["block_id"]: block["element"].get("initial_value", "")
        for block in view["blocks"]
        if block["type"] == "input"
    }


programs = st.lists(
    st.sampled_from(
        [
            "# A\n",
            "## B\r\n",
            "### C",
            "\n",
            "\r\n",
            "```\n",
            "~~~\n",
            "text & <more>\n",
            "  \n",
            "\t",
            "#no\n",
            "é😀\n",
        ]
    )
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    max_size=60,
).map("".join)


# ---------------------------------------------------------------- sections


@quick
@given(programs)
@example(PROGRAM)
@example("")
@example("# A\n" * 200)
@example("x" * 10_000)
@example("\n" * 5_000)
@example("# long\n" + "y\n" * 2_000 + "# short\nz\n")
def test_the_sections_together_are_the_program_to_the_byte(text: str) -> None:
    found = modals.sections(text)
    assert "".join(part.text for part in found) == text
    assert modals.join(found, {}) == text
    assert modals.join(found, {index: part.shown for index, part in enumerate(found)}) == text
    assert sum(not part.trouble for part in found) <= modals.SECTIONS_MAX
    for part in found:
        assert part.trouble or len(part.shown.encode("utf-16-le")) // 2 <= 3_000


@quick
@given(programs)
@example(PROGRAM)
@example("# A\r\n\r\nwindows\r\n\r\n# B\r\nx")
@example("# A\nliteral &lt; and &amp; stay\n")
@example("# A\n" * 200)
def test_a_form_that_was_not_touched_changes_nothing(text: str) -> None:
    view = check_modal(modals.program(version(text), Form(channel="C1")))
    if "submit" in view:
        assert modals.submitted(form_of(view), version(text), sent(view)) == modals.Unchanged()


def test_a_client_that_does_not_escape_changes_nothing_either() -> None:
    base = version("# A\na < b & c > d\n\n# B\nx\n")
    view = modals.program(base, Form())
    values = {name: {"value": {"value": words}} for name, words in inputs(view).items()}
    assert modals.submitted(form_of(view), base, values) == modals.Unchanged()


def test_sections_begin_at_headings_but_not_inside_code() -> None:
    assert [part.title for part in modals.sections(PROGRAM)] == [
        "Research notes before any heading.",
        "Goal",
        "Rules",
        "Last",
    ]


def test_many_small_sections_are_joined_until_they_fit_one_form() -> None:
    text = "".join(f"## {n}\n\nline {n}\n\n" for n in range(500))
    found = modals.sections(text)
    assert len(found) <= modals.SECTIONS_MAX and not any(part.trouble for part in found)
    check_modal(modals.program(version(text), Form()))


def test_a_section_over_3000_characters_is_named_with_the_command_that_edits_it() -> None:
    text = "# Small\nx\n\n# Huge\n" + "y" * 3_000 + "\n# Also small\nz\n"
    view = check_modal(modals.program(version(text), Form()))
    words = said(view["blocks"])
    assert list(inputs(view)) == ["section-0", "section-2"]
    assert "Huge: it has 3007 characters, and an input holds 3000" in words
    assert "nightshift program edit" in words


def test_a_section_of_exactly_3000_characters_can_be_edited() -> None:
    text = "# A\n" + "y" * 2_996
    assert [part.trouble for part in modals.sections(text)] == [""]
    assert len(inputs(modals.program(version(text), Form()))["section-0"]) == 3_000


def test_characters_outside_the_basic_plane_count_twice() -> None:
    assert modals.sections("😀" * 1_501)[0].trouble and not modals.sections("😀" * 1_500)[0].trouble


def test_a_section_with_control_characters_is_left_alone() -> None:
    text = "# A\nbell \x07\n# B\nx\n"
    view = check_modal(modals.program(version(text), Form()))
    assert list(inputs(view)) == ["section-1"] and "control characters" in said(view["blocks"])


def test_an_empty_program_can_be_written() -> None:
    base = version("")
    _, asked = changed(base, {"section-0": "# Goal\nfast"})
    assert isinstance(asked, modals.Unconfirmed)
    done = modals.submitted(form_of(asked.view), base, sent(asked.view))
    assert done == modals.Confirmed(base.hash, "# Goal\nfast\n")


def test_a_program_of_one_huge_section_can_only_be_read() -> None:
    view = check_modal(modals.program(version("x" * 5_000), Form()))
    assert "submit" not in view and not inputs(view)


@quick
@given(texts)
def test_every_view_fits_slack_whatever_the_program_says(words: str) -> None:
    base, now = version(f"# {words}\n\n{words}\n"), version(words)
    for known in (base, now):
        check_modal(modals.program(known, Form(channel="C1")))
        check_modal(modals.program_text(known))
    check_modal(modals.stale(base, now, words * 2, Form(channel="C1"), 99))
    check_modal(modals.veto(Form(run="nov21", experiment=3, position=9), words, range(50)))
    check_modal(modals.reject(Form(run="nov21", experiment=3, position=9), words))
    check_modal(modals.told("A title that is longer than twenty-four", words))
    check_modal(modals.error(words))
    defaults = modals.Defaults(tag=words, until=words, usd=words, experiments=words, from_ref=words)
    check_modal(modals.start(defaults, Form(zone="Europe/Berlin")))


def test_a_large_program_of_wide_characters_stays_within_a_view() -> None:
    text = "".join(f"# {n}\n" + "漢" * 2_900 + "\n" for n in range(66))
    view = check_modal(modals.program(version(text), Form()))
    assert 10 < len(inputs(view)) <= modals.SECTIONS_MAX
    assert "it comes behind all that one form can hold" in said(view["blocks"])
    check_modal(modals.program_text(version(text)))


# ---------------------------------------------------------------- change, question, record


def changed(
    base: ProgramVersion, changes: dict[str, str | None]
) -> tuple[View, modals.Unchanged | modals.Unconfirmed | modals.Confirmed | dict[str, str]]:
    view = modals.program(base, Form(channel="C1", zone="UTC"))
    return view, modals.submitted(form_of(view), base, sent(view, changes))


def test_a_change_is_shown_as_a_diff_and_recorded_only_by_the_second_submit() -> None:
    base = version(PROGRAM)
    new = PROGRAM.replace("700 lines", "500 lines & <fast>")
    _, asked = changed(base, {"section-1": "# Goal\n\nLower `val_bpb` & keep the code < 500 lines & <fast>."})
    assert isinstance(asked, modals.Unconfirmed)
    question = check_modal(asked.view)
    words = said(question["blocks"])
    assert (
        "-Lower `val_bpb` & keep the code < 700 lines." in words and "+Lower `val_bpb` & keep the code < 500" in words
    )
    assert list(inputs(question)) == ["section-1"]
    form = form_of(question)
    assert (form.base, form.draft, form.channel) == (base.hash, text_hash(new), "C1")
    assert modals.submitted(form, base, sent(question)) == modals.Confirmed(base.hash, new)


def test_private_metadata_holds_no_text_of_the_program() -> None:
    base = version(PROGRAM)
    view, asked = changed(base, {"section-3": "### Last\nsecret words"})
    assert isinstance(asked, modals.Unconfirmed)
    for shown in (view, asked.view):
        assert "Goal" not in shown["private_metadata"] and "secret" not in shown["private_metadata"]


def test_a_correction_in_the_question_is_asked_again() -> None:
    base = version(PROGRAM)
    _, asked = changed(base, {"section-3": "### Last\none"})
    assert isinstance(asked, modals.Unconfirmed)
    again = modals.submitted(form_of(asked.view), base, sent(asked.view, {"section-3": "### Last\ntwo"}))
    assert isinstance(again, modals.Unconfirmed) and "+two" in said(again.view["blocks"])
    done = modals.submitted(form_of(again.view), base, sent(again.view))
    assert isinstance(done, modals.Confirmed) and done.text.endswith("### Last\ntwo\n")


def test_a_change_taken_back_in_the_question_is_no_change() -> None:
    base = version(PROGRAM)
    _, asked = changed(base, {"section-3": "### Last\none"})
    assert isinstance(asked, modals.Unconfirmed)
    back = sent(asked.view, {"section-3": "### Last\nThe end without a newline"})
    assert modals.submitted(form_of(asked.view), base, back) == modals.Unchanged()


def test_an_emptied_section_goes_and_the_others_stay_as_they_are() -> None:
    base = version("# A\n\none\n\n# B\n\ntwo\n\n# C\n\nthree\n")
    _, asked = changed(base, {"section-1": None})
    assert isinstance(asked, modals.Unconfirmed)
    done = modals.submitted(form_of(asked.view), base, sent(asked.view))
    assert done == modals.Confirmed(base.hash, "# A\n\none\n\n# C\n\nthree\n")


def test_line_ends_and_white_space_around_a_section_stay_as_they_were() -> None:
    base = version("\r\n# A\r\n\r\none\r\n\r\n\r\n# B\r\ntwo\r\n")
    _, asked = changed(base, {"section-0": "# A\n\nuno\ndos\n\n"})
    assert isinstance(asked, modals.Unconfirmed)
    done = modals.submitted(form_of(asked.view), base, sent(asked.view))
    assert done == modals.Confirmed(base.hash, "\r\n# A\r\n\r\nuno\r\ndos\r\n\r\n\r\n# B\r\ntwo\r\n")


def test_an_input_that_slack_left_out_is_not_touched() -> None:
    base = version(PROGRAM)
    view = modals.program(base, Form())
    values = sent(view)
    del values["section-0"]
    values["section-1"] = {"value": {"type": "plain_text_input"}}
    assert modals.submitted(form_of(view), base, values) == modals.Unchanged()


def test_a_made_up_hash_does_not_record_what_was_not_shown() -> None:
    base = version(PROGRAM)
    view = modals.program(base, Form())
    values = sent(view, {"section-3": "### Last\nnew"})
    assert isinstance(modals.submitted(Form(base=base.hash, draft="0" * 64), base, values), modals.Unconfirmed)


def test_too_much_for_one_question_keeps_the_form_open() -> None:
    base = version("".join(f"# {n}\nx\n" for n in range(40)))
    _, asked = changed(base, {f"section-{n}": "漢" * 3_000 for n in range(40)})
    assert asked == {"section-0": "This is too much for one form: change fewer sections at once"}


@quick
@given(programs, st.dictionaries(st.integers(0, 5), texts.map(lambda words: words[:3_000]), max_size=3))
def test_whatever_is_put_in_is_recorded_as_it_was_shown(text: str, edits: dict[int, str]) -> None:
    base = version(text)
    view = check_modal(modals.program(base, Form()))
    if "submit" not in view:
        return
    given = sent(view, {f"section-{index}": words for index, words in edits.items()})
    asked = modals.submitted(form_of(view), base, given)
    if isinstance(asked, modals.Unconfirmed):
        check_modal(asked.view)
        done = modals.submitted(form_of(asked.view), base, sent(asked.view))
        assert isinstance(done, modals.Confirmed) and text_hash(done.text) == form_of(asked.view).draft


def test_a_stale_form_says_who_changed_what_and_offers_a_fresh_one() -> None:
    base, now = version("# A\none\n"), version("# A\nuno\n")
    view = check_modal(modals.stale(base, now, "# A\none and a half\n", Form(channel="C1"), 42))
    words = said(view["blocks"])
    assert "<@U2>" in words and "+uno" in words and "+one and a half" in words
    button = next(block["elements"][0] for block in view["blocks"] if block["type"] == "actions")
    about = from_value(button["value"])
    assert button["action_id"] == "edit_program" and about is not None and about.position == 42
    assert "submit" not in view


def test_a_reader_sees_the_whole_program_without_inputs() -> None:
    view = check_modal(modals.program_text(version(PROGRAM)))
    assert not inputs(view) and "The end without a newline" in said(view["blocks"])
    assert "Cut here" in said(check_modal(modals.program_text(version("x\n" * 90_000)))["blocks"])


def test_the_small_views_stand() -> None:
    for view in (modals.loading(), modals.loading("Start a run"), modals.no_program(), modals.unchanged()):
        check_modal(view)
    assert "e-77" in said(check_modal(modals.error("e-77"))["blocks"])


# ---------------------------------------------------------------- start, reasons


def test_the_start_form_is_filled_in_and_its_answer_is_a_start() -> None:
    view = check_modal(
        modals.start(modals.Defaults(tag="nov21", until="08:00"), Form(channel="C1", zone="Europe/Berlin"))
    )
    assert inputs(view) == {"tag": "nov21", "until": "08:00", "usd": "", "experiments": "", "from_ref": "HEAD"}
    assert "Europe/Berlin" in str(view["blocks"])
    assert modals.read_start(sent(view)) == Start("nov21", "08:00")
    changes: dict[str, str | None] = {"usd": "$7.50", "experiments": "100", "until": "8:00", "from_ref": "a/b"}
    assert modals.read_start(sent(view, changes)) == Start("nov21", "08:00", 7.5, 100, "a/b")
    assert modals.read_start(sent(view, {"until": None, "from_ref": None})) == Start("nov21")


def test_the_form_offers_a_tag_of_today_that_is_free_and_the_limits_of_the_settings() -> None:
    late = datetime(2026, 11, 20, 23, 30, tzinfo=UTC)
    limits = RunLimits(experiments=100, until="08:00", usd=7.5)
    assert modals.defaults((), limits, late, "Europe/Berlin") == modals.Defaults("nov21", "08:00", "7.50", "100")
    assert modals.defaults(("nov20", "nov20-2"), RunLimits(), late, "UTC") == modals.Defaults("nov20-3")
    view = check_modal(modals.start(modals.defaults((), limits, late, "UTC"), Form(zone="UTC")))
    assert modals.read_start(sent(view)) == Start("nov20", "08:00", 7.5, 100)


@pytest.mark.parametrize(
    ("name", "words", "error"),
    [
        ("tag", None, "A run needs a name"),
        ("tag", "no good", "One word, please"),
        ("tag", "../x", "is not a name"),
        ("tag", "--until", "--until needs a value"),
        ("until", "noon", "“noon” is not a time"),
        ("usd", "lots", "is not an amount"),
        ("experiments", "0", "is not a number of 1 or more"),
        ("from_ref", "--exec", "is not a commit"),
    ],
)
def test_what_is_wrong_in_the_start_form_is_said_beside_the_field(name: str, words: str | None, error: str) -> None:
    view = modals.start(modals.Defaults(tag="nov21"), Form())
    found = modals.read_start(sent(view, {name: words}))
    assert isinstance(found, dict) and list(found) == [name] and error in found[name]


@quick
@given(st.fixed_dictionaries(dict.fromkeys(("tag", "until", "usd", "experiments", "from_ref"), texts)))
def test_any_input_of_the_start_form_is_a_start_or_errors(words: dict[str, str]) -> None:
    view = modals.start(modals.Defaults(), Form())
    found = modals.read_start(sent(view, dict(words)))
    assert isinstance(found, Start) or (found and all(found.values()))


def test_a_veto_needs_a_reason_and_a_rejection_does_not() -> None:
    form = Form(run="nov21", experiment=3, position=9, channel="C1")
    view = check_modal(modals.veto(form, "a longer warmdown", (5, 7)))
    assert form_of(view) == form and "the keeps built on it: 5, 7" in said(view["blocks"])
    assert modals.read_why(sent(view, {"why": "too\nslow & <big>"}), needed=True) == "too slow & <big>"
    assert modals.read_why(sent(view), needed=True) == {"why": "Please say why: it is for the record"}
    assert modals.read_why(sent(modals.reject(form, "x")), needed=False) == ""


@pytest.mark.parametrize("words", HOSTILE)
def test_a_reason_is_one_line_that_a_request_takes(words: str) -> None:
    found = modals.read_why(sent(modals.veto(Form(), "x"), {"why": words}), needed=False)
    assert isinstance(found, str) and "\n" not in found and len(found) <= 500


def test_values_of_an_unknown_shape_are_nothing() -> None:
    assert modals.value({}, "tag") == "" and modals.value({"tag": {"value": {"value": None}}}, "tag") == ""
