"""Writes the golden log of the version at hand: every type of event there is, and the tables that come of it.

    python -m tests.eventstore.golden.make

makes `<version>.jsonl`, an export, and `<version>.<tag>.tsv` for each of its runs. The files of a released version
are never written again: every later version must read them and give the same bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

from msgspec import inspect as kinds

from eventstore.codec import row_hash
from eventstore.connection import connect
from eventstore.envelope import NewEvent, format_at
from eventstore.events import CATALOGUE, WORKSPACE_EVENTS, BranchMoved, Data, KeepVetoed, RunRequested
from eventstore.home import Home
from eventstore.log import Row, drafts, event_of, seal
from eventstore.maintenance import export
from eventstore.memory import MemoryLog
from eventstore.projections.results import Results
from eventstore.store import Store
from tests.eventstore.commands.conftest import ADA, LOOP, SETTINGS, Scribe, constants, write_finished

FOLDER = Path(__file__).parent
BEGAN = datetime(2026, 11, 20, 21, tzinfo=UTC)
TEXT = 'é "quoted" \\ tab\t nul\0 line\n \u2028 \U0001f600 </script>'
"""In every field of free text, so that what is hard to write down is kept as well."""


def some(kind: kinds.Type, name: str) -> Any:
    """A value of that type which is no default. Literals give their last choice, unions of structs one of each."""
    match kind:
        case kinds.LiteralType(values):
            return values[-1]
        case kinds.StrType():
            return format_at(BEGAN) if name in ("at", "since", "until", "retry_at") else f"{name} {TEXT}"
        case kinds.BoolType():
            return True
        case kinds.IntType():
            return 2**53 + 1 if name == "seed" else 3
        case kinds.FloatType():
            return 0.1 + 0.2
        case kinds.UnionType(types):
            return some(next(inner for inner in types if not isinstance(inner, kinds.NoneType)), name)
        case kinds.VarTupleType(item) if isinstance(item, kinds.UnionType):
            return tuple(some(inner, name) for inner in item.types)
        case kinds.VarTupleType(item):
            return (some(item, name),)
        case kinds.TupleType(types):
            return tuple(some(inner, name) for inner in types)
        case kinds.DictType() if name == "settings":
            return SETTINGS
        case kinds.DictType(_, kinds.AnyType() | kinds.UnionType() as item):
            return {"a": 1, "b": 1e22, "c": "", "é": 0.5, "z": some(item, name)}
        case kinds.DictType(_, item):
            return {"é": some(item, name)}
        case kinds.StructType():
            return full(kind.cls)
        case kinds.AnyType():
            return {"nested": [1, 0.1, "x", {"deep": False}]}
    raise TypeError(f"{name}: no value for {kind}")


def full(cls: type) -> Any:
    """An instance with no field left at its default."""
    found = kinds.type_info(cls)
    assert isinstance(found, kinds.StructType)
    return cls(**{field.name: some(field.type, field.name) for field in found.fields})


def every_type() -> Iterator[tuple[str, Data]]:
    """One full event of each type, those of runs in a run of their own."""
    yield "every", RunRequested(tag="every", from_ref="HEAD", zone="Europe/Berlin")
    for name, cls in CATALOGUE.items():
        yield "" if name in WORKSPACE_EVENTS else "every", full(cls)


def write_vetoed(scribe: Scribe, tag: str) -> None:
    """Three keeps, of which the second is taken back later, and with it the third."""
    scribe.start(tag)
    for n, score in enumerate((1.4, 1.3, 1.2), 1):
        scribe.propose(tag, n, f'"step" {n}\tof\u2028three', constants(LR=score / 10))
        scribe.prepare(tag, n, base="b")
        scribe.train(tag, n, score)
        scribe.decide(tag, n, "keep", score, "better by 0.100000", best_before=score + 0.1, gain=0.1)
    scribe.ask(tag, KeepVetoed(experiment=2, why="it leaks"))
    scribe.write((tag, BranchMoved(experiment=2, from_commit="c" * 40, to_commit="1" * 40, why="veto")))


def rows() -> list[Row]:
    scribe = Scribe(Home(Path("/golden")), began=BEGAN)
    scribe.held = held = []  # never handed to a log
    write_finished(scribe, "nov20")
    write_vetoed(scribe, "feb01")
    for n, (run, data) in enumerate(every_type()):
        at = format_at(BEGAN + timedelta(hours=9, minutes=n))
        held.append(NewEvent(f"golden-{n}", run, at, (LOOP, ADA, "slack:T1/U2")[n % 3], data, n % 4 or None))
    found = seal(drafts(held), MemoryLog().head())
    for type_, version_, data in (("dream.had", 1, '{"of":"a newer version"}'), ("run.paused", 99, '{"why":7}')):
        last = found[-1]
        columns = (last.position + 1, f"unknown-{type_}", "every", type_, version_, last.at, "loop@box", 1, data)
        found.append(Row(*columns, row_hash(last.chain, *columns)))
    return found


def main(folder: Path) -> None:
    name, results = version("nightshift"), Results()
    log = folder / "golden.db"
    Store.open(log).close()
    insert(log, rows())
    with Store.open(log) as store, (folder / f"{name}.jsonl").open("w", encoding="utf-8", newline="") as out:
        export(store, out)
    for row in rows():
        results.apply(event_of(row))
    for tag in results.tags:
        (folder / f"{name}.{tag}.tsv").write_bytes(results.tsv(tag).encode())
    for file in folder.glob("golden.db*"):
        file.unlink()


def insert(log: Path, found: list[Row]) -> None:
    """Put rows in as they are, through the triggers but around `append`, which would refuse types it does not know."""
    conn = connect(log).conn
    try:
        conn.execute("BEGIN IMMEDIATE")
        conn.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", found)
        conn.execute("COMMIT")
    finally:
        conn.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
