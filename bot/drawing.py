"""The digest as messages with its picture, drawn from the log. Reads the whole log: call it in a thread."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from bot.message import Picture
from bot.views.digest import DigestMessages, digest_messages, featured, picture
from eventstore.envelope import format_at, parse_at
from eventstore.projections.digest import FIRST_WINDOW_S, Digest, DigestFold, LastDigest, Window
from eventstore.projections.results import Results
from eventstore.store import Store


def draw_digest(log_path: Path, window: Window, late_s: float = 0.0) -> DigestMessages:
    """
    Draw the digest of a window; *late_s* is how long after its hour it is made.

    Raises:
        EventstoreError: If the log cannot be read.
    """
    fold = DigestFold(window)
    with Store.open(log_path, create=False, check=False) as log:
        for event in log.stream():
            if window.upto is not None and event.position > window.upto:
                break
            fold.apply(event)
    digest = fold.digest()
    due_at = parse_at(window.to_at) - timedelta(seconds=late_s) if late_s else None
    return digest_messages(digest, picture=_picture(digest, fold.results), due_at=due_at, late_s=late_s)


def window_since_last(log_path: Path, to_at: str) -> Window:
    """What happened since the last digest that was posted, or in the last 24 hours where there was none."""
    posted = LastDigest()
    with Store.open(log_path, create=False, check=False) as log:
        for event in log.stream():
            posted.apply(event)
    if posted.window is not None:
        return Window(after=posted.window.upto, to_at=to_at)
    return Window(from_at=format_at(parse_at(to_at) - timedelta(seconds=FIRST_WINDOW_S)), to_at=to_at)


def _picture(digest: Digest, results: Results) -> Picture | None:
    run = featured(digest)
    if run is None or run.tag not in results.tags:
        return None
    return picture(run, staircase_of(results, run.tag))


def staircase_of(results: Results, tag: str) -> bytes:
    """The staircase of a run as a PNG."""
    from eventstore.projections.figure import staircase  # noqa: PLC0415 - matplotlib takes a second

    return staircase(results.rows(tag), results.metric(tag), results.direction(tag), tag)
