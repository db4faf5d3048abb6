"""What one durable event costs to append, beside the floor, plain SQLite and the `eventsourcing` library.

    python benchmarks/bench_append.py [--quick]

All write the same made-up events to the same disk:

- floor: the event's data appended to a file by one write, then fdatasync;
- plain SQLite: the same driver, WAL, synchronous=FULL, one INSERT of the data, with no guards, ids or chain;
- recorder: the library's `insert_events` with a stored event made before the clock starts;
- application: the library as a person would use it, an aggregate's event triggered and `save` called;
- ours: `Store.append`: validated, encoded, looked up by id, guarded, chained, witnessed.

"One at a time" takes turns event by event, in an order that rotates, with 3 ms of rest after each, in which ours syncs
its witness (a thread does that beside the appends). "Flat out" takes turns in blocks of 50 without rest, so that this
thread competes with the appends of its own block and not with those of others.
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import msgspec
import night
from table import Row, faster, p99, run, show_time, times

from eventstore.codec import encode
from eventstore.driver import sqlite3
from eventstore.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from eventstore.envelope import NewEvent

    Append = Callable[[NewEvent], Callable[[], object]]

REST_S = 0.003
BLOCK = 50


def measure(quick: bool) -> list[Row]:
    import library

    events, blocks = (200, 2) if quick else (1000, 10)
    names = ("ours", "floor", "plain", "recorder", "application")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        prepare = [
            ours(opened, Path(folder)),
            floor(opened, Path(folder)),
            plain(opened, Path(folder)),
            *peers(opened, Path(folder)),
        ]
        source = night.events(10_000_000)
        for event in islice(source, 50):  # first pages, caches, statements
            for make in prepare:
                make(event)()
        one = dict(zip(names, one_at_a_time(source, prepare, events), strict=True))
        flat = dict(zip(names, flat_out(source, prepare, blocks), strict=True))
    p50 = {name: median(seconds) for name, seconds in one.items()}
    rate = {name: median(seconds) / BLOCK for name, seconds in flat.items()}
    recorder, application = f"{library.NAME}, its recorder", f"{library.NAME}, its application"
    what, ours_shown = f"append, durable, one at a time, p50 of {events}", show_time(p50["ours"])
    return [
        Row(
            what,
            ours_shown,
            "one write + fdatasync",
            show_time(p50["floor"]),
            times(p50["ours"], p50["floor"]),
            "1.5 x",
            p50["ours"] <= 1.5 * p50["floor"],
        ),
        Row(what, ours_shown, "plain tuned SQLite", show_time(p50["plain"]), times(p50["ours"], p50["plain"])),
        *(
            Row(what, ours_shown, beside, show_time(peer), faster(p50["ours"], peer), "faster", p50["ours"] < peer)
            for beside, peer in ((recorder, p50["recorder"]), (application, p50["application"]))
        ),
        Row(
            "the same, p99",
            show_time(p99(one["ours"])),
            "one write + fdatasync, p99",
            show_time(p99(one["floor"])),
            times(p99(one["ours"]), p99(one["floor"])),
        ),
        *(
            Row(
                "append, durable, flat out, per event",
                show_time(rate["ours"]),
                beside,
                show_time(peer),
                times(rate["ours"], peer) if peer == rate["floor"] else faster(rate["ours"], peer),
            )
            for beside, peer in (
                ("one write + fdatasync", rate["floor"]),
                ("plain tuned SQLite", rate["plain"]),
                (recorder, rate["recorder"]),
                (application, rate["application"]),
            )
        ),
    ]


def one_at_a_time(source: Iterator[NewEvent], prepare: list[Append], events: int) -> list[list[float]]:
    """Seconds of each append by each variant."""
    found: list[list[float]] = [[] for _ in prepare]
    for turn, event in enumerate(islice(source, events)):
        for step in range(len(prepare)):
            index = (turn + step) % len(prepare)
            work = prepare[index](event)
            began = time.perf_counter()
            work()
            found[index].append(time.perf_counter() - began)
            time.sleep(REST_S)
    return found


def flat_out(source: Iterator[NewEvent], prepare: list[Append], blocks: int) -> list[list[float]]:
    """Seconds of each block by each variant."""
    found: list[list[float]] = [[] for _ in prepare]
    for turn in range(blocks):
        events = list(islice(source, BLOCK))
        for step in range(len(prepare)):
            index = (turn + step) % len(prepare)
            works = [prepare[index](event) for event in events]
            began = time.perf_counter()
            for work in works:
                work()
            found[index].append(time.perf_counter() - began)
            time.sleep(0.05)
    return found


# ---------------------------------------------------------------- the five; each gets an event and returns the work


def ours(opened: ExitStack, folder: Path) -> Append:
    log = opened.enter_context(Store.open(folder / "ours.db"))
    return lambda event: lambda: log.append([event])


def floor(opened: ExitStack, folder: Path) -> Append:
    file = os.open(folder / "floor", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    opened.callback(os.close, file)

    def prepare(event: NewEvent) -> Callable[[], object]:
        data = encode(event.data).encode()

        def work() -> None:
            os.write(file, data)
            os.fdatasync(file)

        return work

    return prepare


def plain(opened: ExitStack, folder: Path) -> Append:
    conn = sqlite3.connect(folder / "plain.db", isolation_level=None)
    opened.callback(conn.close)
    conn.execute("PRAGMA journal_mode = WAL").fetchall()
    conn.execute("PRAGMA synchronous = FULL")
    conn.execute("CREATE TABLE events (position INTEGER PRIMARY KEY, data TEXT NOT NULL)")

    def work(event: NewEvent) -> None:
        conn.execute("INSERT INTO events (data) VALUES (?)", (msgspec.json.encode(event.data).decode(),))

    return lambda event: lambda: work(event)


def peers(opened: ExitStack, folder: Path) -> tuple[Append, Append]:
    """The library's recorder and its application, each with a file of its own."""
    import library

    recording, saving = library.Nights.at(folder / "recorder.db"), library.Nights.at(folder / "application.db")
    opened.callback(recording.close)
    opened.callback(saving.close)
    count = 0

    def prepare(event: NewEvent) -> Callable[[], object]:
        nonlocal count
        count += 1
        domain = library.happened(library.SPACE, count, event, msgspec.to_builtins(event.data))
        stored = recording.mapper.to_stored_event(domain)
        return lambda: recording.recorder.insert_events([stored])

    aggregate = library.Run()
    return prepare, lambda event: lambda: library.save(saving, aggregate, event)


if __name__ == "__main__":
    run(__doc__, measure)
