"""What it costs to replay a log into results.tsv and the state of the workspace.

    python benchmarks/bench_replay.py [--quick]

"results and run_state" is `Store.stream` folded into both projections, as the loop does at its start. "Fetch and decode
only" reads all columns of the same file by the same driver in the same pages and decodes the data into their structs,
nothing else. The `eventsourcing` library reads the same events by its normal path, select_notifications and
to_domain_event; its data come back as dicts, which are turned into structs for the same two projections, or left alone
where it says "read only". All are interleaved, files warm in the page cache.
"""

from __future__ import annotations

import tempfile
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import night
from table import Row, faster, interleaved, medians, run, show_time, times

from eventstore.connection import connect
from eventstore.events import CATALOGUE
from eventstore.projections.results import Results
from eventstore.projections.run_state import State
from eventstore.store import Store

if TYPE_CHECKING:
    from library import Nights

PAGE = 1_000
FETCH = (
    "SELECT position, id, run, type, version, at, actor, cause, data, chain "
    "FROM events WHERE position > ? ORDER BY position LIMIT ?"
)


def measure(quick: bool) -> list[Row]:
    sizes = ((100_000, 1),) if quick else ((100_000, 5), (1_000_000, 3))
    return [row for events, rounds in sizes for row in replays(events, rounds)]


def replays(events: int, rounds: int) -> list[Row]:
    """The rows for a log of *events*."""
    import library

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.db"
        night.write(path, night.events(events))
        peer = library.Nights.at(Path(folder) / "library.db")
        library.write(peer, night.events(events))
        with Store.open(path, check=False) as log:
            works = (
                lambda: replay(log),
                lambda: deque(log.stream(), 0),
                lambda: fetch_and_decode(path),
                lambda: replay_library(peer),
                lambda: deque(library.read(peer), 0),
            )
            ours, stream, floor, theirs, theirs_read = medians(interleaved(rounds, works))
        peer.close()
    count = f"{events:,} events"
    return [
        Row(
            f"replay of {count} into results and run_state",
            show_time(ours),
            "fetch and decode only",
            show_time(floor),
            times(ours, floor),
            "2 x",
            ours <= 2 * floor,
        ),
        Row(
            f"replay of {count} into results and run_state",
            show_time(ours),
            f"{library.NAME} into the same two",
            show_time(theirs),
            faster(ours, theirs),
            "4 x faster",
            theirs >= 4 * ours,
        ),
        Row(f"reading {count}", show_time(stream), "fetch and decode only", show_time(floor), times(stream, floor)),
        Row(
            f"reading {count}",
            show_time(stream),
            f"{library.NAME}, read only",
            show_time(theirs_read),
            faster(stream, theirs_read),
        ),
    ]


def replay(log: Store) -> None:
    """What a loop does at its start."""
    state, results = State(), Results()
    for event in log.stream():
        state.apply(event)
        results.apply(event)


def replay_library(peer: Nights) -> None:
    """The same fold over the library's events."""
    import library

    state, results = State(), Results()
    for position, domain in library.read(peer):
        event = library.as_ours(position, domain, CATALOGUE)
        state.apply(event)
        results.apply(event)


def fetch_and_decode(path: Path) -> None:
    """Nothing but the rows and their data as structs."""
    decoders = {name: msgspec.json.Decoder(kind).decode for name, kind in CATALOGUE.items()}
    conn = connect(path).conn
    try:
        after = 0
        while rows := conn.execute(FETCH, (after, PAGE)).fetchall():
            for row in rows:
                decoders[row[3]](row[8])
            after = rows[-1][0]
    finally:
        conn.close()


if __name__ == "__main__":
    run(__doc__, measure)
