"""Logs of released versions stay readable: every type and every old version decodes, and replays to the same bytes."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from eventstore import codec
from eventstore.events import CATALOGUE, UnknownEvent
from eventstore.log import Row, event_of
from eventstore.maintenance import export, verify
from eventstore.projections.results import Results
from eventstore.projections.run_state import State
from eventstore.store import Store
from tests.conftest import Tally
from tests.eventstore.golden import make

ROOT = Path(__file__).parents[2]
LOGS = sorted(make.FOLDER.glob("*.jsonl"))
NEWEST = LOGS[-1]
PROMISE = "old logs replay byte for byte"


def rows_of(file: Path) -> list[Row]:
    found = []
    for line in file.read_text(encoding="utf-8").removesuffix("\n").split("\n"):
        fields = json.loads(line)
        data = line[line.index('"data":') + 7 : line.rindex(',"chain":')]
        found.append(Row(**{**fields, "data": data, "chain": bytes.fromhex(fields["chain"])}))
    return found


@pytest.fixture(params=LOGS, ids=lambda file: file.stem)
def golden(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_there_is_a_golden_log() -> None:
    assert LOGS[0].stem == "0.1.0"


def test_every_type_and_every_older_version_is_in_a_golden_log(tally: Tally) -> None:
    """A new type: `python -m tests.eventstore.golden.make`, while the version is not released; else raise it first."""
    count = tally(PROMISE, "types, and versions with an upcast, that are in a golden log")
    there = {(row.type, row.version) for log in LOGS for row in rows_of(log)}
    for wanted in {(name, cls.VERSION) for name, cls in CATALOGUE.items()} | codec.UPCASTS.keys():
        assert count.see(wanted in there), wanted


def test_the_newest_golden_log_is_what_would_be_made_now(tmp_path: Path) -> None:
    make.main(tmp_path)
    for file in tmp_path.iterdir():
        assert file.read_bytes() == (make.FOLDER / file.name).read_bytes(), file.name


def test_a_golden_log_goes_into_a_file_and_out_again(golden: Path, tmp_path: Path, tally: Tally) -> None:
    count = tally(PROMISE, "rows put into a new log, verified and exported")
    rows, log = rows_of(golden), tmp_path / "events.db"
    Store.open(log).close()
    make.insert(log, rows)
    assert verify(log).position == len(rows)
    out = io.StringIO()
    with Store.open(log) as store:
        export(store, out)
        assert [event.position for event in store.stream()] == list(range(1, len(rows) + 1))
    for given, written in zip(golden.read_text(encoding="utf-8").split("\n"), out.getvalue().split("\n"), strict=True):
        count.see(given == written)
    assert count.held == count.made


def test_a_golden_event_decodes_and_encodes_to_the_same_text(golden: Path, tally: Tally) -> None:
    count = tally(PROMISE, "events decoded and encoded again")
    unknown = []
    for row in rows_of(golden):
        data = event_of(row).data
        if isinstance(data, UnknownEvent):
            assert count.see(data.raw == row.data)
            unknown.append((row.type, row.version))
        else:
            again = codec.encode(data)
            assert count.see(codec.decode(data.TYPE, data.VERSION, again) == data), row.position
            if row.id.startswith("golden-") and row.version == data.VERSION:  # elsewhere a float was written as 300
                assert count.see(again == row.data), row.position
    assert unknown == [("dream.had", 1), ("run.paused", 99)]


def test_a_golden_log_replays_to_the_same_tables(golden: Path, tmp_path: Path, tally: Tally) -> None:
    count = tally(PROMISE, "results.tsv replayed, by us and by a script without our code")
    results, state = Results(), State()
    for row in rows_of(golden):
        event = event_of(row)
        results.apply(event)
        state.apply(event)
    assert state.position == len(rows_of(golden))
    tables = sorted(golden.parent.glob(f"{golden.stem}.*.tsv"))
    assert [table.name.split(".")[-2] for table in tables] == sorted(results.tags)
    for table in tables:
        tag = table.name.split(".")[-2]
        assert count.see(results.tsv(tag).encode() == table.read_bytes()), tag
        if tag == "every":  # no run that could have happened, which is all that the script knows
            continue
        command = (sys.executable, "-I", "-S", str(ROOT / "tests" / "replay_stdlib.py"), str(golden), tag)
        alone = subprocess.run(command, check=True, capture_output=True).stdout
        assert count.see(alone == table.read_bytes()), tag
