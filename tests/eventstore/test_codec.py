"""Event data survives the way to JSON and back, or is refused with the field named."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore import codec
from eventstore.codec import Codec, clean, decode, encode, row_hash
from eventstore.errors import InvalidEvent
from eventstore.events import (
    CATALOGUE,
    BudgetChanged,
    Data,
    ExperimentDecided,
    IdeaSuggested,
    LoopStarted,
    ProposalReceived,
    RunPaused,
    RunRequested,
    SetConstants,
    TrainingFinished,
    UnknownEvent,
    WholeFile,
)

JSON = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def requested(**overrides: Any) -> RunRequested:
    return RunRequested(tag="nov21", from_ref="HEAD", zone="UTC", overrides=overrides)


@given(text=st.text(), overrides=st.dictionaries(st.text(), JSON, max_size=4))
def test_what_is_read_is_what_was_written(text: str, overrides: dict[str, Any]) -> None:
    for data in (IdeaSuggested(text=text), requested(**{"x": 1}), requested(**overrides)):
        assert decode(data.TYPE, data.VERSION, encode(data)) == data


def test_nested_edits_keep_their_kind_and_order() -> None:
    data = ProposalReceived(
        experiment=1,
        ask=0,
        base_commit="c0",
        description="wider",
        edits=(SetConstants(path="train.py", values={"WIDTH": 64, "TIE": True, "LR": 1e22}), WholeFile("a.py", "\0\n")),
    )
    assert decode(data.TYPE, data.VERSION, encode(data)) == data


def test_json_is_canonical() -> None:
    """Sorted keys, no spaces, UTF-8, defaults left out, and so the same bytes for the same facts."""
    one = TrainingFinished(
        experiment=1,
        attempt=0,
        trial=0,
        nonce="é\0",
        outcome="crash",
        seconds=2.0,
        metrics={"b": 1, "a": 2.5},
    )
    assert encode(one) == (
        '{"attempt":0,"experiment":1,"metrics":{"a":2.5,"b":1},"nonce":"é\\u0000","outcome":"crash",'
        '"seconds":2.0,"trial":0}'
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (RunPaused(why="\ud800"), r"run\.paused: field `why`: a lone surrogate"),
        (requested(a={"b\udfff": 1}), r"run\.requested: field `overrides\.a\.b\\udfff`: a lone surrogate"),
        (requested(a=[1, float("nan")]), r"run\.requested: field `overrides\.a\[1\]`: nan is not a number"),
        (requested(a=float("-inf")), r"field `overrides\.a`: -inf is not a number"),
        (requested(a=None), r"field `overrides\.a`: a null says nothing"),
        (requested(a=datetime(2026, 11, 21, tzinfo=UTC)), r"field `overrides\.a`: datetime is not a JSON value"),
        (requested(a=b"bytes"), r"field `overrides\.a`: bytes is not a JSON value"),
        (requested(a={1: 2}), r"run\.requested: .*`overrides\.a\.1`|str keys"),
        (requested(a={1, 2}), r"field `overrides\.a`: set is not a JSON value"),
        (RunPaused(why=5), r"run\.paused: Expected `str`, got `int` - at `\$\.why`"),
        (
            ExperimentDecided(
                experiment=1, attempt=0, verdict="keep", reason="better", trials=1, score=float("inf"), gain=0.1
            ),
            r"experiment\.decided: field `score`: inf is not a number",
        ),
        (
            ExperimentDecided(experiment=1, attempt=0, verdict="maybe", reason="", trials=1),
            r"experiment\.decided: Invalid enum value 'maybe' - at `\$\.verdict`",
        ),
        (
            TrainingFinished(
                experiment=1,
                attempt=0,
                trial=0,
                nonce="n",
                outcome="scored",
                seconds=float("nan"),
                metrics={"loss": 1.0},
            ),
            r"training\.finished: field `seconds`: nan is not a number",
        ),
        (
            TrainingFinished(
                experiment=1,
                attempt=0,
                trial=0,
                nonce="n",
                outcome="scored",
                seconds=1.0,
                metrics={"loss": float("nan")},
            ),
            r"training\.finished: field `metrics\.loss`: nan is not a number",
        ),
        (
            ProposalReceived(
                experiment=1, ask=0, base_commit="c", description="d", edits=(WholeFile("a.py", "x\udc00"),)
            ),
            r"proposal\.received: field `edits\[0\]\.text`: a lone surrogate",
        ),
        (UnknownEvent(raw="{}"), "UnknownEvent is not an event type of the catalogue"),
        (Data(), "Data is not an event type of the catalogue"),
    ],
)
def test_what_json_would_alter_is_refused_by_type_and_field(data: Any, message: str) -> None:
    with pytest.raises(InvalidEvent, match=message):
        encode(data)


def test_a_class_that_borrows_a_type_name_is_refused() -> None:
    class Imposter(RunPaused, frozen=True):
        pass

    with pytest.raises(InvalidEvent, match="Imposter is not"):
        encode(Imposter(why="x"))


def test_the_word_null_in_a_text_is_only_a_word() -> None:
    assert decode("run.paused", 1, encode(RunPaused(why="null"))) == RunPaused(why="null")


def test_a_list_where_a_tuple_belongs_is_taken_and_read_as_a_tuple() -> None:
    data = ProposalReceived(experiment=1, ask=0, base_commit="c", description="d", edits=[WholeFile("a", "b")])  # type: ignore[arg-type]
    read = decode(data.TYPE, data.VERSION, encode(data))
    assert isinstance(read, ProposalReceived)
    assert read.edits == (WholeFile("a", "b"),)


@pytest.mark.parametrize(
    ("type_", "version"), [("experiment.dreamt", 1), ("run.paused", 2), ("run.paused", 0), ("run.paused", -1)]
)
def test_an_unknown_type_or_version_passes_through_untouched(type_: str, version: int) -> None:
    assert decode(type_, version, '{"why": 1.50}') == UnknownEvent(raw='{"why": 1.50}')


def test_a_field_of_a_later_release_is_ignored() -> None:
    assert decode("run.paused", 1, '{"mood":"calm","why":"asked"}') == RunPaused(why="asked")


@pytest.mark.parametrize("text", ["{}", '{"why":1}', "[]", '{"why":', ""])
def test_a_known_row_with_other_data_is_an_error_that_names_it(text: str) -> None:
    with pytest.raises(InvalidEvent, match=r"run\.paused version 1 does not decode"):
        decode("run.paused", 1, text)


class Third(Data, frozen=True):
    """A type in its third version."""

    TYPE: ClassVar[str] = "thing.done"
    VERSION: ClassVar[int] = 3
    seconds: float
    why: str


def _minutes_to_seconds(fields: dict[str, Any]) -> dict[str, Any]:
    return {"seconds": fields["minutes"] * 60}


def _add_why(fields: dict[str, Any]) -> dict[str, Any]:
    return {**fields, "why": "unknown"}


STEPS = {("thing.done", 1): _minutes_to_seconds, ("thing.done", 2): _add_why}


def test_old_versions_are_upcast_step_by_step() -> None:
    codec_ = Codec({"thing.done": Third}, STEPS)
    assert codec_.decode("thing.done", 1, '{"minutes":2}') == Third(seconds=120.0, why="unknown")
    assert codec_.decode("thing.done", 2, '{"seconds":5}') == Third(seconds=5.0, why="unknown")
    assert codec_.decode("thing.done", 3, '{"seconds":5,"why":"x"}') == Third(seconds=5.0, why="x")
    assert codec_.decode("thing.done", 4, "{}") == UnknownEvent(raw="{}")


def test_an_old_row_that_does_not_fit_after_its_upcasts_is_an_error() -> None:
    with pytest.raises(InvalidEvent, match=r"thing\.done version 2 does not decode"):
        Codec({"thing.done": Third}, STEPS).decode("thing.done", 2, '{"seconds":"five"}')


@pytest.mark.parametrize(
    ("upcasts", "message"),
    [
        ({("thing.done", 1): _add_why}, "no upcast for thing.done from version 2 to 3"),
        ({("thing.done", 2): _add_why}, "no upcast for thing.done from version 1 to 2"),
        ({**STEPS, ("thing.done", 3): _add_why}, "thing.done from version 3 leads nowhere"),
        ({**STEPS, ("thing.undone", 1): _add_why}, "thing.undone from version 1 leads nowhere"),
    ],
)
def test_a_gap_in_the_upcasts_is_found_when_the_codec_is_made(upcasts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Codec({"thing.done": Third}, upcasts)


def test_every_type_is_stored_under_its_own_name() -> None:
    assert all(name == kind.TYPE and kind.VERSION >= 1 for name, kind in CATALOGUE.items())


def test_fields_that_may_be_missing_are_missing_and_never_null() -> None:
    assert encode(BudgetChanged(limit="usd", old=None, new=5.0)) == '{"limit":"usd","new":5.0}'


def test_a_loop_started_row_reads_back_its_floats() -> None:
    data = LoopStarted(host="h", boot_id="b", pid=1, pid_started=1763712000.123457, nightshift="0.1.0", sandbox="none")
    assert decode(data.TYPE, 1, encode(data)) == data


@pytest.mark.parametrize(
    ("text", "limit", "cleaned"),
    [
        ("plain", 10, "plain"),
        ("a\ud800b", 10, "a\ufffdb"),
        ("\ud83d\ude00!", 10, "\U0001f600!"),
        ("0123456789", 10, "0123456789"),
        ("0123456789x", 10, "012345678…"),
        ("\udc00" * 9, 3, "\ufffd\ufffd…"),
        ("ab", 1, "…"),
        ("ab", 0, ""),
    ],
)
def test_clean_makes_any_text_fit(text: str, limit: int, cleaned: str) -> None:
    assert clean(text, limit) == cleaned


@given(st.text(st.characters(exclude_categories=())), st.integers(0, 20))
def test_clean_text_can_always_be_appended(text: str, limit: int) -> None:
    cleaned = clean(text, limit)
    assert len(cleaned) <= limit
    assert decode("idea.suggested", 1, encode(IdeaSuggested(text=cleaned))) == IdeaSuggested(text=cleaned)


def test_the_hash_of_a_row_can_be_computed_by_anyone() -> None:
    """Tag, previous chain, then length and text of each column; NULL is one byte."""
    previous = bytes(range(32))
    by_hand = b"nightshift-row-1" + previous + b"\0\0\0\x01" + b"7" + b"\0\0\0\x02" + "é".encode() + b"\xff"
    assert row_hash(previous, 7, "é", None) == sha256(by_hand).digest()
    assert row_hash(previous, b"7", "é".encode(), None) == sha256(by_hand).digest()


def test_text_moved_from_one_column_to_the_next_changes_the_hash() -> None:
    hashes = [row_hash(bytes(32), *columns) for columns in (("ab", "c"), ("a", "bc"), ("abc", ""), ("abc", None))]
    assert len(set(hashes)) == 4


def test_canonical_json_of_settings_does_not_depend_on_the_order_of_keys() -> None:
    one, other = {"b": {"y": 1, "x": 2}, "a": [True]}, {"a": [True], "b": {"x": 2, "y": 1}}
    assert codec.canonical_json(one) == codec.canonical_json(other) == '{"a":[true],"b":{"x":2,"y":1}}'
    assert json.loads(codec.canonical_json(one)) == one
