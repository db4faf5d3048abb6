"""The asker's zone: from TZ, else from the machine, else UTC."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventstore.zone import local_zone


@pytest.mark.parametrize(
    ("tz", "expected"),
    [
        ("Europe/Berlin", "Europe/Berlin"),
        (":Europe/Berlin", "Europe/Berlin"),
        ("/usr/share/zoneinfo/Asia/Tokyo", "Asia/Tokyo"),
        (":/usr/share/zoneinfo/posix/Asia/Tokyo", "Asia/Tokyo"),
        ("", "UTC"),
        ("CET-1CEST", "UTC"),
        ("Europe", "UTC"),
        ("../etc/passwd", "UTC"),
        ("Mars/Olympus", "UTC"),
    ],
)
def test_tz_wins_over_the_machine(tmp_path: Path, tz: str, expected: str) -> None:
    (tmp_path / "timezone").write_text("America/New_York\n")
    assert local_zone({"TZ": tz}, tmp_path) == expected


@pytest.mark.parametrize(
    ("link", "timezone", "expected"),
    [
        ("/usr/share/zoneinfo/Europe/Paris", "America/New_York\n", "Europe/Paris"),
        ("/var/db/timezone/zoneinfo/Europe/Paris", None, "Europe/Paris"),
        ("../usr/share/zoneinfo/Etc/UTC", None, "Etc/UTC"),
        (None, "America/New_York\n", "America/New_York"),
        ("/somewhere/else", "America/New_York\n", "America/New_York"),
        (None, "nonsense\n", "UTC"),
        (None, None, "UTC"),
    ],
)
def test_the_machines_zone_is_read_without_tz(
    tmp_path: Path, link: str | None, timezone: str | None, expected: str
) -> None:
    if link is not None:
        (tmp_path / "localtime").symlink_to(link)
    else:
        (tmp_path / "localtime").write_bytes(b"TZif2")  # a copy of the zone's file says no name
    if timezone is not None:
        (tmp_path / "timezone").write_text(timezone)
    assert local_zone({}, tmp_path) == expected
