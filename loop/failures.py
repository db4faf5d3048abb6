"""Why asks for proposals fail, and how long to wait before the next one. Pure.

A failure is one of three sorts. An *outside* one says nothing of the proposal: the vendor is busy, the line is
down, the key is refused (`run_state.OUTSIDE_FAILURES`); asking goes on with growing pauses, for as long as it
takes. An *answer* that is no good is asked for again at once, a few times for one experiment. The rest ends
something: `exhausted` the search, `no_repair` a repair, `over_budget` the run; `lost` and `stopped` are the
loop's own doing.
"""

from __future__ import annotations

from eventstore.projections.run_state import OUTSIDE_FAILURES as OUTSIDE

ANSWER = frozenset(
    {
        "refused",  # the model declines
        "truncated",  # it ran out of tokens
        "unparsable",  # no tool call, or not by the schema
        "edit_does_not_apply",
        "edit_touches_protected",
        "not_python",
        "changes_nothing",
        "same_as_tried",
        "timeout",  # an agent that did not come to an end
    }
)
"""Classes of answers that were no good."""

PAUSE_MAX_S = 300.0
"""The longest pause of our own making: after a night offline the loop is back within five minutes."""

RETRY_AFTER_MAX_S = 3600.0
"""The longest pause that a vendor's Retry-After may ask for; a longer one is tried again after this."""


def pause_s(failure: str, in_a_row: int, first_s: float, retry_after_s: float | None, jitter: float) -> float | None:
    """
    Seconds to wait before the proposer is asked again after a failure; None means at once.

    Args:
        in_a_row: Failures of this class in a row, this one included.
        first_s: The first pause; it doubles up to `PAUSE_MAX_S`.
        retry_after_s: What the vendor asked for, never undercut below `RETRY_AFTER_MAX_S`.
        jitter: 0 to 1; a fifth of the pause depends on it, so that many loops do not ask in step.
    """
    if failure in OUTSIDE:
        doublings = in_a_row - 1
    elif failure in ANSWER and in_a_row > ANSWERS_AT_ONCE:
        doublings = in_a_row - ANSWERS_AT_ONCE - 1
    else:
        return None
    own = min(PAUSE_MAX_S, first_s * 2.0 ** min(doublings, 40)) * (0.8 + 0.2 * jitter)
    return max(own, min(retry_after_s or 0.0, RETRY_AFTER_MAX_S))


ANSWERS_AT_ONCE = 3
"""Answers of one class that may fail in a row before the asks come with pauses."""
