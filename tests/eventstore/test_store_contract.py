"""What every log promises: each test runs against the file and against its twin in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from eventstore.codec import row_hash
from eventstore.envelope import GENESIS, Earlier, Event, Head, NewEvent
from eventstore.errors import IdReused, InvalidEvent, PositionConflict
from eventstore.events import (
    DigestScheduled,
    IdeaSuggested,
    LoopStopped,
    PostMade,
    ProgramRecorded,
    RequestRefused,
    RunPaused,
    TrainingFinished,
    UnknownEvent,
)
from eventstore.log import Log
from eventstore.memory import MemoryLog

MakeEvent = Callable[..., NewEvent]

OTHER = TrainingFinished(experiment=2, attempt=0, trial=0, nonce="another", outcome="scored", seconds=1.5)


def test_an_empty_log_ends_at_position_0(log: Log) -> None:
    assert log.head() == Head(0, GENESIS)
    assert log.read() == []
    assert list(log.stream()) == []


def test_events_come_back_as_they_were_appended(log: Log, event: MakeEvent) -> None:
    new = event(1)
    assert log.append([new]) == [1]
    (read,) = log.read()
    assert isinstance(read, Event)
    assert (read.position, read.id, read.run, read.at, read.actor, read.cause, read.data) == (
        1,
        new.id,
        new.run,
        new.at,
        new.actor,
        None,
        new.data,
    )
    assert (read.type, read.version) == ("training.finished", 1)
    assert log.head() == Head(1, read.chain)


def test_positions_have_no_gaps_across_batches(log: Log, event: MakeEvent) -> None:
    assert log.append([event(1), event(2)]) == [1, 2]
    assert log.append([event(3)]) == [3]
    assert log.append([]) == []
    assert [(read.position, read.id) for read in log.stream()] == [(1, "id-1"), (2, "id-2"), (3, "id-3")]


def test_each_chain_is_the_hash_of_the_one_before_and_the_row(log: Log, event: MakeEvent) -> None:
    log.append([event(1), event(2, cause=1)])
    first, second = log.read()
    text = (
        '{"attempt":0,"experiment":2,"metrics":{"num_steps":10,"val_bpb":1.25},"nonce":"nonce-2","outcome":"scored",'
        '"score":1.25,"seconds":1.5,"tail":"step 10 / 10 …","trial":0}'
    )
    columns = (2, "id-2", "nov21", "training.finished", 1, "2026-11-21T08:00:00.000000Z", "loop@box", 1, text)
    assert second.chain == row_hash(first.chain, *columns)


def test_reading_starts_behind_a_position_and_stops_at_the_limit(log: Log, event: MakeEvent) -> None:
    log.append([event(n) for n in range(1, 8)])
    assert [read.position for read in log.read(3, limit=2)] == [4, 5]
    assert [read.position for read in log.read(6)] == [7]
    assert log.read(7) == []
    assert log.read(99) == []
    assert [read.position for read in log.stream(5)] == [6, 7]


def test_a_stream_goes_beyond_one_page(log: Log, event: MakeEvent) -> None:
    log.append([event(n) for n in range(1, 2206)])
    assert [read.position for read in log.stream(4)] == list(range(5, 2206))


def test_appending_goes_on_while_a_stream_is_half_read(log: Log, event: MakeEvent) -> None:
    log.append([event(n) for n in range(1, 1002)])
    stream = log.stream()
    assert next(stream).position == 1
    log.append([event(2000)])
    assert [read.position for read in stream] == list(range(2, 1003))


def test_time_may_go_backwards(log: Log, event: MakeEvent) -> None:
    log.append([event(1), event(2, at="1999-12-31T23:59:59.999999Z")])
    assert [read.position for read in log.read()] == [1, 2]


def test_the_same_batch_again_returns_the_first_positions(log: Log, event: MakeEvent) -> None:
    batch = [event(1), event(2, cause=Earlier(0)), event(3, cause=Earlier(1))]
    assert log.append(batch) == [1, 2, 3]
    before = log.head()
    assert log.append(batch) == [1, 2, 3]
    assert log.append([replace(new, at="2027-01-01T00:00:00.000000Z") for new in batch]) == [1, 2, 3]
    assert log.head() == before
    assert log.read(0, limit=1)[0].at == "2026-11-21T08:00:00.000000Z"


def test_a_retry_succeeds_also_with_an_expectation_that_is_old_by_now(log: Log, event: MakeEvent) -> None:
    assert log.append([event(1)], expected=0) == [1]
    log.append([event(2)])
    assert log.append([event(1)], expected=0) == [1]


def test_events_appended_one_by_one_are_known_together(log: Log, event: MakeEvent) -> None:
    log.append([event(1)])
    log.append([event(2)])
    assert log.append([event(2), event(1)]) == [2, 1]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"run": "other"}, "run"),
        ({"data": RunPaused(why="x")}, "type"),
        ({"actor": "cli:ada"}, "actor"),
        ({"cause": 1}, "cause"),
        ({"data": OTHER}, "data"),
    ],
)
def test_a_known_id_with_other_content_is_refused(
    log: Log, event: MakeEvent, changes: dict[str, object], what: str
) -> None:
    log.append([event(1), event(2)])
    with pytest.raises(IdReused, match=f"position 2.* with another {what}") as caught:
        log.append([event(2, **changes)])
    assert caught.value.event_id == "id-2"
    assert log.head().position == 2


def test_another_cause_inside_the_batch_is_other_content(log: Log, event: MakeEvent) -> None:
    log.append([event(1), event(2), event(3, cause=Earlier(0))])
    with pytest.raises(IdReused, match="with another cause"):
        log.append([event(1), event(2), event(3, cause=Earlier(1))])
    assert log.append([event(1), event(3, cause=Earlier(0))]) == [1, 3]


def test_a_batch_of_which_only_a_part_is_known_is_refused(log: Log, event: MakeEvent) -> None:
    log.append([event(1)])
    with pytest.raises(IdReused, match=r"'id-1' is in the log \(position 1\) without 'id-2'"):
        log.append([event(1), event(2)])
    assert log.head().position == 1


def test_an_id_twice_in_a_batch_is_refused(log: Log, event: MakeEvent) -> None:
    with pytest.raises(IdReused, match="'id-1' is twice in one batch"):
        log.append([event(1), event(1)])
    assert log.head().position == 0


def test_an_expectation_that_does_not_hold_appends_nothing(log: Log, event: MakeEvent) -> None:
    log.append([event(1)], expected=0)
    with pytest.raises(PositionConflict) as caught:
        log.append([event(2)], expected=0)
    assert (caught.value.expected, caught.value.head) == (0, 1)
    with pytest.raises(PositionConflict):
        log.append([event(2)], expected=2)
    assert log.append([event(2)], expected=1) == [2]


def test_a_cause_inside_the_batch_becomes_a_position(log: Log, event: MakeEvent) -> None:
    log.append([event(1)])
    log.append([event(2, cause=1), event(3, cause=Earlier(0)), event(4, cause=Earlier(1))])
    assert [read.cause for read in log.read()] == [None, 1, 2, 3]


@pytest.mark.parametrize("cause", [0, -1, 2, 99, Earlier(0), Earlier(1), Earlier(-1)])
def test_a_cause_lies_before_its_effect(log: Log, event: MakeEvent, cause: int | Earlier) -> None:
    log.append([event(1)])
    with pytest.raises(InvalidEvent, match="cause"):
        log.append([event(2, cause=cause)])
    assert log.head().position == 1


@pytest.mark.parametrize(
    "at",
    [
        "",
        "2026-11-21T08:00:00Z",
        "2026-11-21T08:00:00.000000",
        "2026-11-21 08:00:00.000000Z",
        "2026-11-21T08:00:00.000000+00:00",
        "2026-02-30T08:00:00.000000Z",
        "2026-11-21T08:00:00.000000Z\n",
        "\uff12\uff10\uff12\uff16-11-21T08:00:00.000000Z",
    ],
)
def test_a_time_in_any_other_form_is_refused(log: Log, event: MakeEvent, at: str) -> None:
    with pytest.raises(InvalidEvent, match=r"event 0 of the batch: not a time"):
        log.append([event(1, at=at)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": ""}, "id is empty"),
        ({"actor": ""}, "actor is empty"),
        ({"id": "a\0b"}, "id .* cannot be printed"),
        ({"actor": "cli:\ud800"}, "actor .* cannot be printed"),
        ({"run": "nov\n21"}, "run .* cannot be printed"),
        ({"run": ""}, "training.finished: belongs to a run, yet its run is empty"),
        ({"data": UnknownEvent(raw="{}")}, "not an event type"),
        ({"data": RunPaused(why="\ud800")}, "run.paused: field `why`"),
        ({"data": LoopStopped(why="done")}, "loop.stopped: belongs to the workspace, yet its run is 'nov21'"),
    ],
)
def test_an_event_that_must_not_be_in_the_log_is_refused(
    log: Log, event: MakeEvent, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidEvent, match=f"event 1 of the batch: .*{message}"):
        log.append([event(1), event(2, **changes)])
    assert log.head().position == 0


@pytest.mark.parametrize(
    ("run", "data"),
    [
        ("", LoopStopped(why="done")),
        ("", ProgramRecorded(hash="h", text="t")),
        ("", DigestScheduled(channel="C1")),
        ("", IdeaSuggested(text="wider")),
        ("nov21", IdeaSuggested(text="wider")),
        ("", RequestRefused(who="ada", what="stop", why="no such run")),
        ("nov21", RequestRefused(who="ada", what="stop", why="finished")),
        ("", PostMade(key="k", channel="C1", ts="1")),
        ("nov21", PostMade(key="k", channel="C1", ts="1")),
    ],
)
def test_some_events_belong_to_the_workspace_and_some_may(log: Log, event: MakeEvent, run: str, data: object) -> None:
    assert log.append([event(1, run=run, data=data)]) == [1]
    assert log.read()[0].run == run


def test_text_of_any_kind_comes_back_as_it_was(log: Log, event: MakeEvent) -> None:
    text = 'tab\t nul\0 line\n \u2028 \U0001f600 é "quoted" \\ </script>'
    log.append([event(1, id="slack:T1:Ev é/1", data=RunPaused(why=text))])
    (read,) = log.read()
    assert (read.id, read.data) == ("slack:T1:Ev é/1", RunPaused(why=text))


def test_both_logs_give_the_same_chain(store: Log, event: MakeEvent) -> None:
    memory = MemoryLog()
    for log in (store, memory):
        log.append([event(1), event(2, cause=Earlier(0))])
        log.append([event(3)])
    assert store.head() == memory.head()
    assert store.read() == memory.read()
