"""results.tsv, computed from the log. Pure.

Guaranteed: the same events give the same bytes. One row for each experiment with a verdict, in the order
of the first verdict of each. A row after the baseline is `keep` if and only if its commit is on the run's
branch: a keep counts from its verdict, and a veto of n, once the branch has moved, turns n and every later
keep into `discard`, because each was built on the one before. So does the end of a run whose branch never
moved to its last keep, because someone else held it.

Not guaranteed: anything about a run whose `run.started` has not been applied; its events are passed over,
as are events of types or versions that are not known here.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from eventstore.events import (
    BranchMoved,
    ExperimentAbandoned,
    ExperimentCommitted,
    ExperimentDecided,
    ProposalReceived,
    RunFinished,
    RunStarted,
    Standing,
    TrainingFinished,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from eventstore.envelope import Event

DESCRIPTION_MAX = 200
"""Characters of a description in results.tsv."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class Row(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """
    One experiment with a verdict.

    Attributes:
        commit: The first 7 characters of the commit that was decided.
        score, gain: None where there is no score; a gain above 0 is better, whatever the direction.
        memory_gb: Peak memory in GiB, the most of the decided attempt's trials; None if it was not measured.
        status: What results.tsv says: the verdict, or `discard` for a keep that is off the branch.
        description: As `one_line` makes it; `baseline` for experiment 0.
        reason: Why, in words.
        lines: Net number of lines added.
        trials: How many trainings the score rests on.
        vetoed: The experiment whose veto took this keep off the branch, itself or an earlier one; else None.
        position: Where in the log the verdict stands.
    """

    experiment: int
    commit: str
    score: float | None
    memory_gb: float | None
    status: Verdict
    description: str
    reason: str
    gain: float | None
    lines: int
    trials: int
    standing: Standing
    vetoed: int | None
    position: int


class _Experiment:
    """What is known of an experiment until its verdict, by attempt where a repair may change it."""

    __slots__ = ("commits", "description", "peak_memory_mb")

    def __init__(self) -> None:
        self.description = ""
        self.commits: dict[int, str] = {}
        self.peak_memory_mb: dict[int, float] = {}


class Extent(NamedTuple):
    """How much of a table there was: how often rows that were there have been altered, and how many there are."""

    altered: int
    rows: int


class _Run:
    __slots__ = ("altered", "direction", "experiments", "metric", "moved_to", "on_branch", "rows")

    def __init__(self, metric: str, direction: str) -> None:
        self.metric = metric
        self.direction = direction
        self.experiments: dict[int, _Experiment] = {}
        self.rows: dict[int, Row] = {}  # by experiment; a dict keeps the order of the first verdicts
        self.on_branch: list[int] = []  # kept experiments, the baseline first, each built on the one before
        self.moved_to: set[int] = {0}  # keeps that the branch has moved to
        self.altered = 0  # how often a row was altered after it was there

    def experiment(self, number: int) -> _Experiment:
        found = self.experiments.get(number)
        if found is None:
            found = self.experiments[number] = _Experiment()
        return found


class Results:
    """The rows of every run, folded event by event with `apply`."""

    def __init__(self) -> None:
        self._runs: dict[str, _Run] = {}
        # By the class of the data, so that an unknown version of a known type finds no handler.
        self._handlers: dict[type, Callable[[_Run, Any, int], None]] = {
            ProposalReceived: _received,
            ExperimentCommitted: _committed,
            RunFinished: _finished,
            TrainingFinished: _trained,
            ExperimentDecided: _decided,
            ExperimentAbandoned: _abandoned,
            BranchMoved: _moved,
        }

    def apply(self, event: Event) -> None:
        """Take in the next event of the log."""
        data = event.data
        handler = self._handlers.get(type(data))
        if handler is not None:
            run = self._runs.get(event.run)
            if run is not None:
                handler(run, data, event.position)
        elif type(data) is RunStarted:
            objective = data.settings["objective"]
            self._runs[event.run] = _Run(objective["name"], objective["direction"])

    @property
    def tags(self) -> tuple[str, ...]:
        """The runs that have started, oldest first."""
        return tuple(self._runs)

    def metric(self, tag: str) -> str:
        """The objective's name. Raises KeyError for a run that has not started, as do the others here."""
        return self._runs[tag].metric

    def direction(self, tag: str) -> str:
        """`minimize`, `maximize` or `pass`."""
        return self._runs[tag].direction

    def rows(self, tag: str) -> tuple[Row, ...]:
        """The rows in the order of results.tsv."""
        return tuple(self._runs[tag].rows.values())

    def tsv(self, tag: str) -> str:
        """results.tsv whole: the header and a line for each row, each ended by a newline."""
        run = self._runs[tag]
        header = f"commit\t{run.metric}\tmemory_gb\tstatus\tdescription\n"
        return header + "".join(map(_line, run.rows.values()))

    def extent(self, tag: str) -> Extent:
        """How much of the table there is now; see `added`."""
        run = self._runs[tag]
        return Extent(run.altered, len(run.rows))

    def added(self, tag: str, since: Extent) -> str | None:
        """The lines that came behind those of *since*; None if one of those was altered."""
        run = self._runs[tag]
        if run.altered != since.altered:
            return None
        newest = list(islice(reversed(run.rows.values()), len(run.rows) - since.rows))
        return "".join(map(_line, reversed(newest)))


def one_line(description: str) -> str:
    """
    Make *description* fit a column: one line, no tabs or other controls, no quote at its start, 200 characters.

    A quote at the start makes readers with default quoting swallow the rows that follow.
    """
    line = description if description.isprintable() else _CONTROL.sub(" ", description)
    line = line.lstrip(" \"'")
    return line[:DESCRIPTION_MAX].rstrip(" ")


def _line(row: Row) -> str:
    crashed = row.status == "crash"
    score = 0.0 if crashed else row.score or 0.0
    memory_gb = 0.0 if crashed else row.memory_gb or 0.0
    return f"{row.commit}\t{score:.6f}\t{memory_gb:.1f}\t{row.status}\t{row.description}\n"


def _received(run: _Run, data: ProposalReceived, _position: int) -> None:
    if data.attempt == 0:  # a repair keeps the name of what it repairs
        run.experiment(data.experiment).description = data.description


def _committed(run: _Run, data: ExperimentCommitted, _position: int) -> None:
    run.experiment(data.experiment).commits[data.attempt] = data.commit


def _trained(run: _Run, data: TrainingFinished, _position: int) -> None:
    # A training that was cut short is done again; its memory depends on when it was cut.
    if data.peak_memory_mb is None or data.outcome in ("stopped", "lost"):
        return
    peaks = run.experiment(data.experiment).peak_memory_mb
    peaks[data.attempt] = max(data.peak_memory_mb, peaks.get(data.attempt, 0.0))


def _decided(run: _Run, data: ExperimentDecided, position: int) -> None:
    number = data.experiment
    known = run.experiments.pop(number, None) or _Experiment()  # what a long night keeps of it is its row
    before = run.rows.get(number)
    run.altered += before is not None
    commit = known.commits.get(data.attempt, "")[:7]
    peak_memory_mb = known.peak_memory_mb.get(data.attempt)
    memory_gb = None if peak_memory_mb is None else peak_memory_mb / 1024
    description = one_line(known.description) if number else "baseline"
    if before is not None:  # decided once more: what was not said anew still holds
        commit, description = commit or before.commit, description or before.description
        memory_gb = before.memory_gb if memory_gb is None else memory_gb
    run.rows[number] = Row(
        experiment=number,
        commit=commit,
        score=data.score,
        memory_gb=memory_gb,
        status=data.verdict,
        description=description,
        reason=data.reason,
        gain=data.gain,
        lines=data.lines,
        trials=data.trials,
        standing=data.standing,
        vetoed=None,
        position=position,
    )
    if data.verdict == "keep" and number not in run.on_branch:
        run.on_branch.append(number)


def _abandoned(run: _Run, data: ExperimentAbandoned, _position: int) -> None:
    run.experiments.pop(data.experiment, None)


def _moved(run: _Run, data: BranchMoved, _position: int) -> None:
    if data.why == "keep":
        run.moved_to.add(data.experiment)
    if data.why != "veto" or data.experiment == 0 or data.experiment not in run.on_branch:
        return
    run.altered += 1
    first = run.on_branch.index(data.experiment)
    for number in run.on_branch[first:]:
        run.rows[number] = msgspec.structs.replace(run.rows[number], status="discard", vetoed=data.experiment)
    del run.on_branch[first:]


def _finished(run: _Run, _data: RunFinished, _position: int) -> None:
    for number in [number for number in run.on_branch if number not in run.moved_to]:
        run.altered += 1
        run.rows[number] = msgspec.structs.replace(run.rows[number], status="discard")
        run.on_branch.remove(number)
