"""Ids for events: unique, and sorted by the time they were made. Pure."""

from __future__ import annotations

from datetime import datetime


def time_ordered_id(now: datetime, randomness: bytes) -> str:
    """
    Make an id in the form of a UUID of version 7: milliseconds first, so that new ids are near each other on disk.

    Args:
        now: Aware time; only its milliseconds since the epoch are used.
        randomness: 10 random bytes, of which 74 bits are used.

    Raises:
        ValueError: If *randomness* is not 10 bytes long.

    Source: RFC 9562, section 5.7.
    """
    if len(randomness) != 10:
        raise ValueError(f"an id needs 10 random bytes, got {len(randomness)}")
    milliseconds = int(now.timestamp() * 1000) & ((1 << 48) - 1)
    tail = int.from_bytes(randomness, "big")
    high, low = (tail >> 62) & 0xFFF, tail & ((1 << 62) - 1)
    value = (milliseconds << 80) | (0x7 << 76) | (high << 64) | (0b10 << 62) | low
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
