"""How long a call must wait so that Slack is never asked too often. Pure: the caller's clock comes in.

Each key has an even rate with a small burst; what Slack itself asked to wait (429) comes on top.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Rate:
    """One call each *every_s* seconds; after a pause up to *burst* at once."""

    every_s: float
    burst: int


POSTS = Rate(1.0, 1)
"""For one channel."""
TIER_2, TIER_3, TIER_4 = Rate(60 / 20, 4), Rate(60 / 50, 8), Rate(60 / 100, 16)

RATES = {
    "chat.update": TIER_3,
    "conversations.history": TIER_3,
    "conversations.replies": TIER_3,
    "response_url": Rate(0.1, 50),  # Slack names no rate, only five uses of one address
}
"""By method; posts have `POSTS`, all others `TIER_4`."""


@dataclass(slots=True)
class Pace:
    """When each key may be used again, in seconds of the caller's clock."""

    _next_s: dict[str, float] = field(default_factory=dict)
    _barred_s: dict[str, float] = field(default_factory=dict)

    def reserve(self, key: str, rate: Rate, now_s: float) -> float:
        """Take the next free moment of *key* and return how many seconds it is away; 0 for now."""
        full_s = max(self._next_s.get(key, now_s), now_s)  # when the burst will be whole again
        self._next_s[key] = full_s + rate.every_s
        return max(0.0, full_s - (rate.burst - 1) * rate.every_s - now_s)

    def bar(self, key: str, until_s: float) -> None:
        """Let nobody use *key* until then."""
        self._barred_s[key] = max(until_s, self._barred_s.get(key, until_s))

    def barred(self, key: str, now_s: float) -> float:
        """How many seconds *key* is barred for; 0 if it is not."""
        left_s = self._barred_s.get(key, now_s) - now_s
        if left_s <= 0:
            self._barred_s.pop(key, None)
        return max(0.0, left_s)
