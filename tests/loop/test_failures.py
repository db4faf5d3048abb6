"""How long a proposer is left in peace after a failure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loop.failures import ANSWER, ANSWERS_AT_ONCE, OUTSIDE, PAUSE_MAX_S, RETRY_AFTER_MAX_S, pause_s

FIRST_S = 2.0


@pytest.mark.parametrize(
    ("failure", "in_a_row", "retry_after_s", "expected"),
    [
        ("offline", 1, None, 2.0),
        ("offline", 2, None, 4.0),
        ("offline", 5, None, 32.0),
        ("offline", 9, None, PAUSE_MAX_S),
        ("offline", 10_000, None, PAUSE_MAX_S),
        ("rate_limited", 1, 30.0, 30.0),
        ("rate_limited", 1, 0.0, 2.0),
        ("rate_limited", 9, 30.0, PAUSE_MAX_S),
        ("rate_limited", 1, 86_400.0, RETRY_AFTER_MAX_S),
        ("unparsable", 1, None, None),
        ("unparsable", ANSWERS_AT_ONCE, None, None),
        ("unparsable", ANSWERS_AT_ONCE + 1, None, 2.0),
        ("unparsable", ANSWERS_AT_ONCE + 2, None, 4.0),
        ("stopped", 1, None, None),
        ("lost", 1, None, None),
        ("exhausted", 1, None, None),
        ("over_budget", 1, None, None),
    ],
)
def test_the_pause_follows_from_the_failures_alike(
    failure: str, in_a_row: int, retry_after_s: float | None, expected: float | None
) -> None:
    assert pause_s(failure, in_a_row, FIRST_S, retry_after_s, jitter=1.0) == expected


@given(
    failure=st.sampled_from(sorted(OUTSIDE)),
    in_a_row=st.integers(1, 10**6),
    first_s=st.floats(0.001, 1000),
    retry_after_s=st.none() | st.floats(0, 1e9),
    jitter=st.floats(0, 1),
)
def test_a_pause_is_bounded_and_honours_what_was_asked_for(
    failure: str, in_a_row: int, first_s: float, retry_after_s: float | None, jitter: float
) -> None:
    pause = pause_s(failure, in_a_row, first_s, retry_after_s, jitter)
    assert pause is not None
    assert min(retry_after_s or 0.0, RETRY_AFTER_MAX_S) <= pause <= max(PAUSE_MAX_S, RETRY_AFTER_MAX_S)


def test_no_failure_is_both_outside_and_an_answer() -> None:
    assert not OUTSIDE & ANSWER
