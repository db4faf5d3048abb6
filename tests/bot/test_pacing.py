"""How often a call may be made."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bot.pacing import POSTS, TIER_2, TIER_3, TIER_4, Pace, Rate

RATES = st.sampled_from([POSTS, TIER_2, TIER_3, TIER_4, Rate(0.5, 3)])


@given(rate=RATES, gaps_s=st.lists(st.floats(0, 5), min_size=1, max_size=60))
def test_no_stretch_of_time_holds_more_calls_than_its_length_and_a_burst(rate: Rate, gaps_s: list[float]) -> None:
    pace, now_s, calls_s = Pace(), 0.0, []
    for gap_s in gaps_s:
        now_s += gap_s
        calls_s.append(now_s + pace.reserve("x", rate, now_s))
    for first, start_s in enumerate(calls_s):
        for last in range(first, len(calls_s)):
            allowed = rate.burst + (calls_s[last] - start_s) / rate.every_s
            assert last - first + 1 <= allowed + 1e-6


def test_after_a_pause_calls_do_not_wait() -> None:
    pace = Pace()
    assert [pace.reserve("x", POSTS, at_s) for at_s in (0, 0, 10)] == [0, 1, 0]


def test_one_key_does_not_wait_for_another() -> None:
    pace = Pace()
    assert pace.reserve("x", POSTS, 0) == pace.reserve("y", POSTS, 0) == 0


def test_what_slack_asks_to_wait_comes_on_top_and_the_longest_counts() -> None:
    pace = Pace()
    pace.bar("x", 30)
    pace.bar("x", 20)
    assert [pace.barred("x", at_s) for at_s in (0, 29, 30)] == [30, 1, 0]
    assert pace.barred("y", 0) == 0
