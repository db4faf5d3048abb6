"""What buttons and modals carry comes back equal, and nothing else is taken for it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.values import (
    METADATA_MAX,
    VALUE_MAX,
    Button,
    Form,
    from_metadata,
    from_value,
    to_metadata,
    to_value,
)

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
counts = st.integers(0, 2**63 - 1)


@given(names, st.none() | counts, counts)
def test_a_button_comes_back_as_it_was(run: str, experiment: int | None, position: int) -> None:
    button = Button(run, experiment, position)
    value = to_value(button)
    assert from_value(value) == button and len(value) <= VALUE_MAX


@given(st.builds(Form, channel=names, run=names, experiment=st.none() | counts, position=counts, draft=names))
def test_a_form_comes_back_as_it_was(form: Form) -> None:
    try:
        text = to_metadata(form)
    except ValueError:  # 200 control characters are 1,200 of JSON
        assert len(json.dumps([form.channel, form.run, form.draft])) > VALUE_MAX
        return
    assert from_metadata(text) == form and len(text) <= METADATA_MAX


@given(st.text())
def test_any_text_is_a_button_or_none(text: str) -> None:
    assert from_value(text) is None or to_value(from_value(text) or Button("", None, 0))


@pytest.mark.parametrize(
    "value",
    [
        "",
        "{}",
        "nov21",
        "[]",
        "null",
        '{"run":"nov21","experiment":3}',
        '{"run":"nov21","position":3}',
        '{"run":"nov21","experiment":3,"position":12,"channel":"C1"}',
        '{"run":"nov21","experiment":"3","position":12}',
        '{"run":"nov21","experiment":true,"position":12}',
        '{"run":"nov21","experiment":3.5,"position":12}',
        '{"run":"nov21","experiment":-1,"position":12}',
        '{"run":"nov21","experiment":3,"position":9223372036854775808}',
        '{"run":7,"experiment":3,"position":12}',
        '{"run":"nov21","experiment":3,"position":12} ',
        '{"run":"' + "x" * 201 + '","experiment":3,"position":12}',
        '{"run":"nov21","experiment":3,"position":12}' + " " * VALUE_MAX,
        "[" * 1_999,
    ],
)
def test_what_is_no_button_of_ours_is_none(value: str) -> None:
    if value.endswith("} ") and len(value) < VALUE_MAX:  # JSON allows white space
        assert from_value(value) == Button("nov21", 3, 12)
    else:
        assert from_value(value) is None


@pytest.mark.parametrize(
    "button", [Button("x" * 201, 1, 1), Button("x", -1, 1), Button("x", 1, 2**63), Button("\ud800", 1, 1)]
)
def test_a_button_that_could_not_be_read_again_is_not_written(button: Button) -> None:
    with pytest.raises(ValueError, match=r"out of range|surrogates"):
        to_value(button)


def test_metadata_is_strict_too() -> None:
    assert from_metadata('{"base":"abc"}') == Form(base="abc")
    assert from_metadata('{"text":"the draft"}') is None
    assert from_metadata("{" + '"base":"' + "x" * METADATA_MAX + '"}') is None
