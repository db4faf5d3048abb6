"""How often each method may be called: Slack's tiers, per channel for posts, on a given clock."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

TIERS = {2: 20, 3: 50, 4: 100, 5: 600}
"""Calls per minute; 5 stands for methods that Slack sets apart."""


@dataclass(slots=True)
class _Bucket:
    """Refills evenly up to *size*."""

    size: float
    per_second: float
    full: float
    at: float

    def take(self, now: float) -> float:
        """Take one; 0 if there was one, else the seconds until there is."""
        self.full = min(self.size, self.full + (now - self.at) * self.per_second)
        self.at = now
        if self.full >= 1 - 1e-6:  # a microsecond early is in time
            self.full -= 1
            return 0.0
        return (1 - self.full) / self.per_second


@dataclass(slots=True)
class Rates:
    """
    Counts calls.

    Attributes:
        post_burst: Posts to one channel that may come at once; afterwards one per second.
        early: Calls that came before the `Retry-After` of their method had passed.
    """

    post_burst: int
    early: int = 0
    _buckets: dict[str, _Bucket] = field(default_factory=dict)
    _barred: dict[str, float] = field(default_factory=dict)

    def bar(self, method: str, channel: str, seconds: float, now: float) -> None:
        """Refuse *method* until *seconds* have passed."""
        self._barred[_key(method, channel)] = now + seconds

    def ask(self, method: str, channel: str, tier: int, now: float) -> int:
        """Count a call. Returns 0, or the seconds of a `Retry-After`."""
        key = _key(method, channel)
        if (barred := self._barred.get(key, now)) > now:
            self.early += 1
            return math.ceil(barred - now)
        size, per_second = (self.post_burst, 1.0) if method == "chat.postMessage" else (TIERS[tier], TIERS[tier] / 60)
        bucket = self._buckets.setdefault(key, _Bucket(size, per_second, size, now))
        wait = math.ceil(bucket.take(now))
        if wait:
            self._barred[key] = now + wait
        return wait


def _key(method: str, channel: str) -> str:
    return f"{method} {channel}" if method == "chat.postMessage" else method
