"""Ids: the form of a UUID of version 7, and the order of time."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.ids import time_ordered_id

NOW = datetime(2026, 11, 21, 8, 0, 0, 123_456, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TIMES = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
RANDOMNESS = st.binary(min_size=10, max_size=10)


@given(TIMES, RANDOMNESS)
def test_an_id_is_a_uuid_of_version_7_that_begins_with_its_milliseconds(now: datetime, randomness: bytes) -> None:
    text = time_ordered_id(now, randomness)
    made = uuid.UUID(text)
    assert str(made) == text
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert abs((made.int >> 80) - (now - EPOCH) / timedelta(milliseconds=1)) < 1.001


@given(TIMES, TIMES, RANDOMNESS, RANDOMNESS)
def test_ids_sort_by_their_time_whatever_the_randomness(a: datetime, b: datetime, one: bytes, other: bytes) -> None:
    earlier, later = sorted((a, b))
    if later - earlier >= timedelta(milliseconds=1):
        assert time_ordered_id(earlier, one) < time_ordered_id(later, other)


@given(st.integers(0, 2**74 - 1), st.integers(0, 2**74 - 1))
def test_each_of_74_random_bits_counts(one: int, other: int) -> None:
    made = {time_ordered_id(NOW, number.to_bytes(10, "big")) for number in (one, other)}
    assert len(made) == len({one, other})


def test_an_id_is_fixed_by_its_time_and_bytes() -> None:
    """The example of RFC 9562, appendix A.6."""
    moment = datetime(2022, 2, 22, 14, 22, 22, tzinfo=timezone(timedelta(hours=-5)))
    randomness = ((0xCC3 << 62) | 0x18C4DC0C0C07398F).to_bytes(10, "big")
    assert time_ordered_id(moment, randomness) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


@pytest.mark.parametrize("size", [0, 9, 11, 16])
def test_randomness_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"^an id needs 10 random bytes, got {size}$"):
        time_ordered_id(NOW, bytes(size))
