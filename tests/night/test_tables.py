"""results.tsv while it grows: a row is appended, all else is written whole, and it is always what the log gives."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as some

from eventstore import events as e
from eventstore.home import Home
from eventstore.projections.results import Results
from loop.tables import Tables
from tests.loop.conftest import TAG, Story

STEPS = some.lists(
    some.sampled_from(["keep", "discard", "crash", "veto", "edited", "deleted", "cut", "none"]), max_size=12
)


class Night:
    """A run of which a table is written after each step."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root)
        self.tables = Tables(self.home)
        self.story = Story().measured()
        self.results = Results()
        self.read = 0
        self.number = 0

    def step(self, what: str) -> None:
        path = self.home.results_path(TAG)
        keeps = self.story.run.keeps[1:]
        if what in ("keep", "discard", "crash"):
            self.number += 1
            self.story.proposed(self.number).prepared(self.number)
            data = e.ExperimentDecided(
                experiment=self.number, attempt=0, verdict=what, score=1.0 - self.number / 100, reason="", trials=1
            )
            self.story.tell(data)
            if what == "keep":
                tip = self.story.run.tip
                self.story.tell(e.BranchMoved(experiment=self.number, from_commit=tip, to_commit="c", why="keep"))
        elif what == "veto" and keeps:
            data_ = e.BranchMoved(experiment=keeps[0].experiment, from_commit="c", to_commit="base", why="veto")
            self.story.tell(data_)
        elif path.exists() and what == "edited":
            path.write_text(path.read_text() + "by hand\n")
        elif path.exists() and what == "deleted":
            path.unlink()
        elif path.exists() and what == "cut":
            path.write_bytes(path.read_bytes()[:-3])

    def write(self) -> None:
        for event in self.story.log.read(self.read):
            self.results.apply(event)
            self.read = event.position
        self.tables.write(self.results, TAG, True)


@given(STEPS)
def test_the_table_is_what_the_log_gives_after_each_step(steps: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        night = Night(Path(folder))
        for step in steps:
            night.step(step)
            night.write()
            expected = night.results.tsv(TAG)
            assert night.home.results_path(TAG).read_text() == expected
            assert (night.home.root / "results.tsv").read_text() == expected


def test_a_new_row_is_appended_and_the_file_stays_the_same_one(tmp_path: Path) -> None:
    night = Night(tmp_path)
    night.write()
    path = tmp_path / "results.tsv"
    first = path.stat().st_ino
    for _ in range(3):
        night.step("discard")
        night.write()
    assert path.stat().st_ino == first and len(path.read_text().splitlines()) == 5
    night.step("keep")
    night.step("veto")
    night.write()
    assert path.stat().st_ino != first


def test_another_run_started_last_takes_the_copy_in_the_root(tmp_path: Path) -> None:
    night = Night(tmp_path)
    night.step("keep")
    night.write()
    other = Story(tag="other").measured()
    for event in other.log.read():
        night.results.apply(event)
    night.tables.write(night.results, "other", True)
    assert (tmp_path / "results.tsv").read_text() == night.results.tsv("other") != night.results.tsv(TAG)
    assert night.home.results_path(TAG).read_text() == night.results.tsv(TAG)
