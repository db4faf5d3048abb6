"""Whatever stands in a file, an answer or a row: never anything but a clear error, and never a guess."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from eventstore import events as e
from eventstore.codec import decode, encode, row_hash
from eventstore.driver import sqlite3
from eventstore.envelope import Event, NewEvent
from eventstore.errors import InvalidEvent
from eventstore.home import Home
from eventstore.memory import MemoryLog
from eventstore.projections.digest import DigestFold, Window
from eventstore.projections.results import Results
from eventstore.projections.run_state import State
from eventstore.store import Store
from loop import preflight
from loop.errors import BadScript
from loop.proposers.scripted import Scripted
from tests.loop.conftest import Story
from tests.night.loops import serve
from tests.night.story import NIGHT, NIGHT_REQUEST, SETTINGS, make_workspace

JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=8),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def night() -> list[Event]:
    """A log with a bit of everything, told by hand."""
    story = Story().measured()
    story.proposed(1).prepared(1).trained(1, score=0.9).decided(1, score=0.9)
    story.proposed(2).prepared(2).crashed(2)
    return story.log.read()


LOG = night()


def is_a_sentence(text: str) -> bool:
    return 10 < len(text) < 2000 and "Traceback" not in text


# ---------------------------------------------------------------- events


@some.composite
def rows(draw: some.DrawFn) -> tuple[str, int, str]:
    """Type, version and data of a row that somebody damaged, or that another version wrote."""
    event = draw(some.sampled_from(LOG))
    fields = json.loads(encode(event.data))  # type: ignore[arg-type]
    for _ in range(draw(some.integers(0, 3))):
        key = draw(some.sampled_from([*fields, "more"]))
        if draw(some.booleans()):
            fields.pop(key, None)
        else:
            fields[key] = draw(JSON)
    text = json.dumps(fields) if draw(some.booleans()) else json.dumps(fields)[: draw(some.integers(0, 200))]
    return event.type, draw(some.sampled_from([1, 1, 1, 0, 2, -1, 2**40])), text


@given(rows())
def test_any_row_is_an_event_an_unknown_one_or_a_clear_error(row: tuple[str, int, str]) -> None:
    try:
        found = decode(*row)
    except InvalidEvent as error:
        assert is_a_sentence(str(error)) and row[0] in str(error)
        return
    assert isinstance(found, e.Data | e.UnknownEvent)
    assert row[1] == 1 or isinstance(found, e.UnknownEvent)


@given(some.lists(some.tuples(some.integers(0, len(LOG)), some.sampled_from(LOG), some.booleans()), max_size=6))
def test_events_of_newer_versions_are_passed_over_by_every_view(
    strange: list[tuple[int, Event, bool]],
) -> None:
    """Of a type or a version that is not known here, wherever they stand."""
    log = list(LOG)
    for at, model, is_known in strange:
        name = model.type if is_known else f"{model.type}_of_tomorrow"
        data = e.UnknownEvent(raw=encode(model.data))  # type: ignore[arg-type]
        log.insert(at, msgspec.structs.replace(model, type=name, version=99, data=data))
    for one, other in ((State(), State()), (Results(), Results()), (digest(), digest())):
        for event in LOG:
            one.apply(event)
        for event in log:
            other.apply(event)
        assert shape(one) == shape(other)


def digest() -> DigestFold:
    return DigestFold(Window(from_at="2026-11-01T00:00:00.000000Z", to_at="2026-12-01T00:00:00.000000Z"))


def shape(view: State | Results | DigestFold) -> Any:
    """What there is to see in a view, without positions."""
    if isinstance(view, Results):
        return [(tag, view.tsv(tag)) for tag in view.tags]
    if isinstance(view, DigestFold):
        return None  # that it takes them is enough
    return [
        (run.tag, run.status, run.tip, [(x.experiment, x.verdict, x.score) for x in run.done], sorted(run.experiments))
        for run in view.runs.values()
    ]


def test_a_loop_refuses_a_log_with_facts_of_a_newer_version(tmp_path: Path) -> None:
    """It would decide again what is decided there. Events of types that it does not know are another one's affair."""
    workspace = make_workspace(tmp_path / "workspace", NIGHT_REQUEST)
    log = Home(workspace).log_path
    assert serve(workspace)[0] == 0
    newer = shutil.copytree(workspace, tmp_path / "newer", symlinks=True)
    for folder, name in ((workspace, "bot.of_tomorrow"), (newer, e.ExperimentDecided.TYPE)):
        append_unknown(Home(folder).log_path, name)
    assert serve(workspace)[0] == 0
    code, said = serve(newer)
    assert code == 1 and said.count("Error:") == 1 and "Traceback" not in said, said
    assert "experiment.decided version 99" in said and "newer Nightshift" in said
    assert log.exists()


def append_unknown(path: Path, name: str) -> None:
    """What a newer Nightshift would have appended."""
    with Store.open(path) as log:
        head = log.head()
    row = (head.position + 1, f"new-{name}", "night", name, 99, "2026-11-21T08:00:00.000000Z", "loop@box", None, "{}")
    chain = row_hash(head.chain, *(x.encode() if isinstance(x, str) else x for x in row))
    db = sqlite3.connect(path)
    db.execute("INSERT INTO events (position, id, run, type, version, at, actor, cause, data, chain) "
               "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, chain))  # fmt: skip
    db.commit()
    db.close()


@given(some.sampled_from(sorted(e.CATALOGUE)), JSON)
def test_data_that_is_no_data_is_never_appended(name: str, value: Any) -> None:
    """Whoever calls: a fact of the wrong types is refused before it is in the log."""
    kind = e.CATALOGUE[name]
    try:
        data = msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return
    log = MemoryLog()
    try:
        log.append([NewEvent("x", "night", "2026-11-21T08:00:00.000000Z", "cli:person", data)])
    except InvalidEvent as error:
        assert is_a_sentence(str(error))
        return
    assert log.read()[0].data == data


# ---------------------------------------------------------------- files


@some.composite
def damaged(draw: some.DrawFn, text: str) -> bytes:
    """A file in which bytes were changed, added or lost."""
    data = bytearray(text.encode())
    for _ in range(draw(some.integers(1, 6))):
        at = draw(some.integers(0, len(data)))
        match draw(some.sampled_from(["change", "add", "lose"])):
            case "change" if at < len(data):
                data[at] = draw(some.integers(0, 255))
            case "add":
                data[at:at] = draw(some.binary(max_size=8))
            case "lose":
                del data[at : at + draw(some.integers(1, 40))]
    return bytes(data)


@given(damaged(SETTINGS))
def test_a_damaged_nightshift_toml_gives_settings_or_one_sentence(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "nightshift.toml").write_bytes(data)
        try:
            preflight.read_settings(Path(folder))
        except preflight.Refusal as refusal:
            assert is_a_sentence(refusal.why) and refusal.remedy


@given(damaged(json.dumps(NIGHT)))
def test_a_damaged_script_of_proposals_is_read_or_refused(data: bytes) -> None:
    try:
        value = json.loads(data)
    except ValueError:
        return
    try:
        Scripted.from_data(value)
    except BadScript as error:
        assert is_a_sentence(str(error))


@pytest.mark.parametrize("data", [b"", b"[", b"\xff\xfe", b"{}", b'[{"experiment": "one"}]', b"[" * 100_000])
def test_a_script_that_cannot_be_read_refuses_the_run_and_the_loop_goes_on(tmp_path: Path, data: bytes) -> None:
    workspace = make_workspace(tmp_path / "workspace", NIGHT_REQUEST)
    (workspace / "night.json").write_bytes(data)
    code, said = serve(workspace)
    assert code == 0 and "Traceback" not in said, said
    with Store.open(Home(workspace).log_path) as log:
        refused = [x.data for x in log.stream() if isinstance(x.data, e.RunRefused)]
    assert len(refused) == 1 and is_a_sentence(refused[0].why), refused
