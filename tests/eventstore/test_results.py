"""What results.tsv says, for logs made by hand."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore import events as e
from eventstore.codec import Codec
from eventstore.envelope import Event, NewEvent
from eventstore.projections.results import DESCRIPTION_MAX, Results, one_line
from eventstore.store import Store

AT = "2026-11-21T08:00:00.000000Z"
REPLAY = Path(__file__).parent.parent / "replay_stdlib.py"


class Night:
    """A log under construction, of one run unless told otherwise."""

    def __init__(self, metric: str = "val_bpb", tag: str = "nov21") -> None:
        self.tag = tag
        self.events: list[Event] = []
        self.add(started(metric))

    def add(self, data: e.Data | e.UnknownEvent, run: str | None = None, type_: str = "") -> None:
        position = len(self.events) + 1
        kind = type_ or data.TYPE
        run = self.tag if run is None else run
        self.events.append(Event(position, f"id-{position}", run, kind, 1, AT, "loop@box", None, data, b""))

    def propose(self, number: int, description: str, attempt: int = 0) -> None:
        received = e.ProposalReceived(
            experiment=number, ask=attempt, attempt=attempt, base_commit="0" * 40, description=description, edits=()
        )
        self.add(received)

    def train(self, number: int, attempt: int = 0, trial: int = 0, **finished: Any) -> None:
        commit = commit_of(number, attempt)
        if trial == 0:
            ref = f"refs/nightshift/{self.tag}/{number}/{attempt}"
            tree = "1" * 40
            self.add(e.ExperimentCommitted(experiment=number, attempt=attempt, commit=commit, tree=tree, ref=ref))
        outcome = finished.pop("outcome", "scored")
        self.add(
            e.TrainingFinished(
                experiment=number, attempt=attempt, trial=trial, nonce="n", outcome=outcome, seconds=300.0, **finished
            )
        )

    def decide(self, number: int, verdict: e.Verdict, score: float | None = None, attempt: int = 0) -> None:
        reason = f"because {verdict}"
        decided = e.ExperimentDecided(
            experiment=number, attempt=attempt, verdict=verdict, reason=reason, trials=1, score=score
        )
        self.add(decided)

    def experiment(self, number: int, verdict: e.Verdict, score: float | None = None) -> None:
        if number:
            self.propose(number, f"idea {number}")
        self.train(number, peak_memory_mb=2048.0)
        self.decide(number, verdict, score)

    def veto(self, number: int) -> None:
        self.add(e.KeepVetoed(experiment=number))
        moved = e.BranchMoved(experiment=number, from_commit="a" * 40, to_commit="b" * 40, why="veto")
        self.add(moved)

    def results(self) -> Results:
        results = Results()
        for event in self.events:
            results.apply(event)
        return results

    def lines(self) -> list[str]:
        return self.results().tsv(self.tag).splitlines()

    def statuses(self) -> dict[int, str]:
        return {row.experiment: row.status for row in self.results().rows(self.tag)}


def started(metric: str) -> e.RunStarted:
    return e.RunStarted(
        branch="autoresearch/nov21",
        base_commit="0" * 40,
        settings={"objective": {"name": metric, "direction": "minimize"}},
        limits=e.Limits(),
        program_hash="p",
        harness_hash="h",
        settings_hash="s",
        seed=42,
        host="box",
        device="cpu",
        sandbox="none",
        versions={},
    )


def commit_of(number: int, attempt: int = 0) -> str:
    return f"{number:06x}{attempt:x}" + "f" * 33


# ---------------------------------------------------------------- rows


def test_a_run_without_a_verdict_is_a_header_that_names_the_objective() -> None:
    assert Night("latency_ms").results().tsv("nov21") == "commit\tlatency_ms\tmemory_gb\tstatus\tdescription\n"


def test_rows_have_upstreams_formats() -> None:
    night = Night()
    night.train(0, peak_memory_mb=45060.2)
    night.decide(0, "keep", 0.9979)
    night.propose(1, "halve the batch")
    night.train(1, peak_memory_mb=512.0)
    night.decide(1, "discard", 1.23456789)
    assert night.lines()[1:] == [
        "0000000\t0.997900\t44.0\tkeep\tbaseline",
        "0000010\t1.234568\t0.5\tdiscard\thalve the batch",
    ]


def test_a_crash_is_spelt_with_zeros_but_has_no_score() -> None:
    night = Night()
    night.experiment(0, "keep", 1.0)
    night.propose(1, "depth 14")
    night.train(1, outcome="oom", peak_memory_mb=81920.0)
    night.decide(1, "crash")
    assert night.lines()[2] == "0000010\t0.000000\t0.0\tcrash\tdepth 14"
    row = night.results().rows("nov21")[1]
    assert (row.score, row.memory_gb, row.reason) == (None, 80.0, "because crash")


def test_rows_stand_in_the_order_of_the_first_verdicts() -> None:
    night = Night()
    for number in (0, 2, 1):
        night.experiment(number, "keep", 1.0)
    night.decide(2, "discard", 1.5)
    assert [row.experiment for row in night.results().rows("nov21")] == [0, 2, 1]


def test_an_abandoned_experiment_has_no_row() -> None:
    night = Night()
    night.experiment(0, "keep", 1.0)
    night.propose(1, "never finished")
    night.train(1, outcome="stopped")
    night.add(e.ExperimentAbandoned(experiment=1, reason="stopped", why="stopped now"))
    assert list(night.statuses()) == [0]


def test_commit_and_memory_are_those_of_the_attempt_that_was_decided() -> None:
    night = Night()
    night.experiment(0, "keep", 1.0)
    night.propose(1, "wider")
    night.train(1, attempt=0, outcome="oom", peak_memory_mb=9216.0)
    night.propose(1, "wider, smaller batch", attempt=1)
    night.train(1, attempt=1, peak_memory_mb=3072.0)
    night.decide(1, "keep", 0.9, attempt=1)
    assert night.lines()[2] == "0000011\t0.900000\t3.0\tkeep\twider"


def test_memory_is_the_most_of_all_trials_and_counts_none_that_was_cut_short() -> None:
    night = Night()
    night.experiment(0, "keep", 1.0)
    night.propose(1, "x")
    night.train(1, trial=0, peak_memory_mb=1024.0)
    night.train(1, trial=1, outcome="stopped", peak_memory_mb=9216.0)
    night.train(1, trial=1, outcome="lost", peak_memory_mb=9216.0)
    night.train(1, trial=1, peak_memory_mb=2048.0)
    night.decide(1, "keep", 0.9)
    assert night.results().rows("nov21")[1].memory_gb == 2.0


def test_an_unmeasured_memory_is_unknown_and_spelt_as_zero() -> None:
    night = Night()
    night.train(0)
    night.decide(0, "keep", 1.0)
    assert night.results().rows("nov21")[0].memory_gb is None
    assert night.lines()[1].split("\t")[2] == "0.0"


# ---------------------------------------------------------------- keep if and only if on the branch


def kept_night() -> Night:
    """Baseline, then keeps 1, 3 and 4 with a discard between."""
    night = Night()
    for number, verdict in enumerate(("keep", "keep", "discard", "keep", "keep")):
        night.experiment(number, verdict, 1.0 - number / 100)  # type: ignore[arg-type]
    return night


@pytest.mark.parametrize(
    ("vetoed", "statuses"),
    [
        (4, ["keep", "keep", "discard", "keep", "discard"]),
        (3, ["keep", "keep", "discard", "discard", "discard"]),
        (1, ["keep", "discard", "discard", "discard", "discard"]),
        (2, ["keep", "keep", "discard", "keep", "keep"]),  # not on the branch
        (0, ["keep", "keep", "discard", "keep", "keep"]),  # the baseline stays
    ],
)
def test_a_veto_turns_the_keep_and_all_later_ones_into_discards(vetoed: int, statuses: list[str]) -> None:
    night = kept_night()
    night.veto(vetoed)
    assert list(night.statuses().values()) == statuses


def test_a_keep_counts_before_the_branch_has_moved() -> None:
    night = Night()
    night.experiment(0, "keep", 1.0)
    night.experiment(1, "keep", 0.9)
    assert night.statuses()[1] == "keep"


def test_a_veto_counts_only_once_the_branch_has_moved() -> None:
    night = kept_night()
    night.add(e.KeepVetoed(experiment=3))
    assert night.statuses()[3] == "keep"


def test_a_keep_after_a_veto_stands_and_a_second_veto_reaches_below_the_first() -> None:
    night = kept_night()
    night.veto(4)
    night.experiment(5, "keep", 0.5)
    assert night.statuses() == {0: "keep", 1: "keep", 2: "discard", 3: "keep", 4: "discard", 5: "keep"}
    night.veto(3)
    assert night.statuses() == {0: "keep", 1: "keep", 2: "discard", 3: "discard", 4: "discard", 5: "discard"}


def test_a_vetoed_row_says_whose_veto_it_was() -> None:
    night = kept_night()
    night.veto(3)
    assert [row.vetoed for row in night.results().rows("nov21")] == [None, None, None, 3, 3]


# ---------------------------------------------------------------- several runs, unknown events


def test_runs_do_not_mix() -> None:
    night = Night()
    night.experiment(0, "keep", 1.0)
    night.add(started("latency_ms"), run="other")
    night.tag = "other"
    night.experiment(0, "keep", 7.0)
    results = night.results()
    assert results.tags == ("nov21", "other")
    assert [row.score for row in results.rows("nov21")] == [1.0]
    assert results.tsv("other").splitlines()[1] == "0000000\t7.000000\t2.0\tkeep\tbaseline"
    assert (results.metric("other"), results.direction("other")) == ("latency_ms", "minimize")


def test_a_run_that_has_not_started_has_no_results() -> None:
    night = Night()
    night.add(e.RunRequested(tag="queued", from_ref="HEAD", zone="UTC"), run="queued")
    with pytest.raises(KeyError):
        night.results().tsv("queued")


def test_a_version_not_known_here_changes_nothing() -> None:
    night = kept_night()
    before = night.lines()
    night.add(e.UnknownEvent(raw='{"new":"shape"}'), type_="experiment.decided")
    night.add(e.UnknownEvent(raw="{}"), type_="run.started")
    night.add(e.UnknownEvent(raw="{}"), type_="weather.changed")
    assert night.lines() == before


# ---------------------------------------------------------------- descriptions


@pytest.mark.parametrize(
    ("given", "cleaned"),
    [
        ("depth 8 to 9", "depth 8 to 9"),
        ("two\nlines\tand a tab", "two lines and a tab"),
        ('"quoted" words', 'quoted" words'),
        ('\t "\'"deep', "deep"),
        ("bell\x07 escape\x1b[31m nul\x00", "bell  escape [31m nul"),
        ("line\u2028separator\x85next", "line separator next"),
        ("x" * 300, "x" * 200),
        ("y" * 199 + " z", "y" * 199),
        ("größer → besser 😀", "größer → besser 😀"),
        ('""', ""),
    ],
)
def test_a_description_is_one_line_that_no_reader_trips_over(given: str, cleaned: str) -> None:
    assert one_line(given) == cleaned


@given(st.text(max_size=400))
def test_a_cleaned_description_always_fits_its_column(text: str) -> None:
    line = one_line(text)
    assert len(line) <= DESCRIPTION_MAX
    assert len(line.splitlines()) <= 1
    assert "\t" not in line
    assert not line.startswith(('"', "'", " "))
    assert one_line(line) == line


# ---------------------------------------------------------------- against a second implementation

replay = runpy.run_path(str(REPLAY))
VERDICT = st.sampled_from(["keep", "discard", "crash"])
STEP = st.tuples(VERDICT, st.floats(-1e6, 1e6), st.none() | st.integers(0, 12), st.text(max_size=250))


@given(st.lists(STEP, max_size=12))
def test_a_replay_written_from_scratch_agrees_on_any_night(steps: list[tuple[Any, float, int | None, str]]) -> None:
    night = Night()
    night.experiment(0, "keep", 1.0)
    for number, (verdict, score, vetoed, description) in enumerate(steps, start=1):
        night.propose(number, description)
        night.train(number, peak_memory_mb=abs(score))
        night.decide(number, verdict, None if verdict == "crash" else score)
        if vetoed is not None:
            night.veto(vetoed)
    plain = [(event.run, event.type, json.loads(text(event))) for event in night.events]
    assert replay["results"](plain, "nov21") == night.results().tsv("nov21")


def text(event: Event) -> str:
    assert isinstance(event.data, e.Data)
    return Codec(e.CATALOGUE, {}).encode(event.data)


def test_the_log_file_and_its_export_give_the_same_bytes_without_any_of_our_code(tmp_path: Path) -> None:
    night = kept_night()
    night.veto(3)
    night.propose(5, "größer\tund „schöner“")
    night.train(5, outcome="crash")
    night.decide(5, "crash")
    with Store.open(tmp_path / "events.db") as store:
        store.append([NewEvent(ev.id, ev.run, ev.at, ev.actor, ev.data) for ev in night.events])  # type: ignore[arg-type]
    rows = [{"run": ev.run, "type": ev.type, "data": json.loads(text(ev))} for ev in night.events]
    export = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "export.jsonl").write_text(export, encoding="utf-8")
    for name in ("events.db", "export.jsonl"):
        command = [sys.executable, str(REPLAY), str(tmp_path / name), "nov21"]
        printed = subprocess.run(command, capture_output=True, check=True).stdout
        assert printed == night.results().tsv("nov21").encode()


def test_the_replay_script_is_short_and_imports_nothing_of_ours() -> None:
    lines = REPLAY.read_text().splitlines()
    imported = {line.split()[1] for line in lines if line.startswith(("import ", "from "))}
    assert len(lines) <= 80
    assert imported <= {"json", "re", "sqlite3", "sys", "pathlib"}
