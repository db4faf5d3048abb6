"""The IANA time zone of the person at this machine, in which a time of day such as 08:00 is meant."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from zoneinfo import ZoneInfo


def local_zone(environ: Mapping[str, str] = os.environ, etc: Path = Path("/etc")) -> str:
    """
    The zone's name: from TZ, else from where /etc/localtime points, else from /etc/timezone, else UTC.

    A TZ that names no zone of the IANA list, such as `CET-1CEST`, counts as UTC, not as the machine's zone.
    """
    asked = environ.get("TZ")
    if asked is not None:
        return _known(asked.removeprefix(":")) or "UTC"
    return _known(_target(etc / "localtime")) or _known(_first_line(etc / "timezone")) or "UTC"


def _known(name: str) -> str | None:
    """*name*, or the part of a path behind the folder `zoneinfo`, if it is a zone."""
    name = name.rpartition("zoneinfo/")[2].removeprefix("posix/").removeprefix("right/")
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, malformed or empty, a folder's name
        return None
    return name


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:  # not there, or a copy of the zone's file
        return ""


def _first_line(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""
