"""What calls of a model cost: tokens, prices, and the most that a call can come to. Pure.

A price that is not known is None all the way, never 0. Amounts are US dollars.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from eventstore.events import Tokens
from loop.proposers.base import Spent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventstore.events import ModelCall
    from eventstore.settings import Price

_MILLION = 1_000_000


def usd_of(tokens: Tokens, price: Price | None) -> float | None:
    """What *tokens* cost; None if the price is unknown."""
    if price is None:
        return None
    return (
        tokens.input * price.input_usd_per_mtok
        + tokens.cache_write * price.cache_write_usd_per_mtok
        + tokens.cache_read * price.cache_read_usd_per_mtok
        + tokens.output * price.output_usd_per_mtok
    ) / _MILLION


def dearest_input_usd(tokens: int, price: Price) -> float:
    """The most that *tokens* of input can cost: none of them in the cache, and all of them written to it."""
    return tokens * max(price.input_usd_per_mtok, price.cache_write_usd_per_mtok) / _MILLION


def worst_call_usd(input_tokens: int, output_tokens: int, price: Price | None) -> float | None:
    """The most that one call can cost, whatever the cache holds; None if the price is unknown."""
    if price is None:
        return None
    return dearest_input_usd(input_tokens, price) + output_tokens * price.output_usd_per_mtok / _MILLION


def worst_ask_usd(
    price: Price | None, *, prompt_tokens: int, output_tokens: int, calls: int, read_tokens: int
) -> float | None:
    """
    The most that one ask should cost; None if the price is unknown.

    The prompt is counted in full twice, which allows for one loss of the cache, and as read from the cache in all
    later calls; each later call also sends again what was written and read so far.

    Args:
        output_tokens: Of all calls together.
        read_tokens: Of all that is looked up, together.
    """
    if price is None:
        return None
    later = max(calls - 1, 0)
    tokens = Tokens(
        input=later * (output_tokens + read_tokens),
        cache_read=max(calls - 2, 0) * prompt_tokens,
        output=output_tokens,
    )
    full = dearest_input_usd(prompt_tokens, price) * min(calls, 2)
    return full + (usd_of(tokens, price) or 0.0)


def affordable_output(usd: float, input_tokens: int, price: Price) -> int | None:
    """
    Output tokens that *usd* pays for in a call with *input_tokens*, whatever the cache holds; None: any number.

    Negative if it does not even pay for the input.
    """
    left = usd - dearest_input_usd(input_tokens, price)
    if left < 0:
        return -1
    if price.output_usd_per_mtok == 0:
        return None
    return math.floor(min(left * _MILLION / price.output_usd_per_mtok, 1e15))


def sum_of(calls: Sequence[ModelCall]) -> Spent:
    """What *calls* cost together: usd is None if one's is; tokens are of the calls where they are known."""
    known = [call.tokens for call in calls if call.tokens is not None]
    amounts = [call.usd for call in calls if call.usd is not None]
    tokens = Tokens(
        input=sum(each.input for each in known),
        cache_write=sum(each.cache_write for each in known),
        cache_read=sum(each.cache_read for each in known),
        output=sum(each.output for each in known),
    )
    return Spent(
        usd=math.fsum(amounts) if len(amounts) == len(calls) else None,
        tokens=tokens if known else None,
        calls=tuple(calls),
    )
