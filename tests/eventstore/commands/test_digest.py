"""`nightshift digest` tells what came of the night, of the window that is asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from eventstore import events as e

Nightshift = Callable[..., Result]


def test_the_digest_tells_runs_keeps_failures_and_what_needs_a_person(nightshift: Nightshift, agent: Any) -> None:
    output = nightshift("digest").output
    for part in (
        "feb01, active",
        "val_bpb 1.500000 → 1.250000 (experiment 1): a measured gain of 0.250000, 16.67%, not tested against noise",
        "1 experiment: 1 kept, 0 discarded, 0 crashed; 1 abandoned, 2 proposals refused, 1 repaired",
        "0.88 usd; 0.88 usd per keep (none is confirmed)",
        "1 of Grace: try GeGLU (used in 1 of feb01: keep)",
        "experiment 3 of feb01 waits for approval: clip at 1.0  `nightshift experiment approve 3 --tag feb01`",
        "`nightshift experiment veto 1 --tag feb01`",
    ):
        assert part in output


def test_the_digest_as_json_has_what_the_table_has(nightshift: Nightshift, finished: Any) -> None:
    found = json.loads(nightshift("digest", "--json").output)
    (run,) = found["runs"]
    assert (run["tag"], run["counts"]["kept"], run["standings"]["untested"]) == ("nov21", 2, 2)
    assert [keep["experiment"] for keep in run["keeps"]] == [1, 4]
    assert [crash["error"] for crash in run["crashes"]] == ["ValueError: red"]


def post(scribe: Any, key: str, upto: int, after: int = 0) -> None:
    scribe.write(("", e.PostRequested(key=key, channel="C1", kind="digest", from_position=after, to_position=upto)))
    scribe.write(("", e.PostMade(key=key, channel="C1", ts="1.2")))


def test_by_default_it_tells_what_came_since_the_digest_that_was_posted_last(
    nightshift: Nightshift, finished: Any, logged: Callable[[], list[Any]]
) -> None:
    four = next(x.position for x in logged() if isinstance(x.data, e.ExperimentDecided) and x.data.experiment == 3)
    post(finished, "digest/C1/2026-11-21", four)
    (run,) = json.loads(nightshift("digest", "--json").output)["runs"]
    assert (run["counts"]["kept"], run["counts"]["crashed"]) == (1, 0)
    (run,) = json.loads(nightshift("digest", "--last", "--json").output)["runs"]
    assert (run["counts"]["kept"], run["counts"]["crashed"]) == (1, 1)
    (run,) = json.loads(nightshift("digest", "--since", "start", "--json").output)["runs"]
    assert (run["counts"]["kept"], run["counts"]["crashed"]) == (2, 1)


@pytest.mark.parametrize(
    ("since", "verdicts"),
    [("1d", 4), ("1min", 0), ("2020-01-01T00:00+01:00", 4), ("2100-01-01T00:00:00Z", 0), ("start", 4)],
)
def test_since_takes_durations_times_and_the_start(
    nightshift: Nightshift, finished: Any, since: str, verdicts: int
) -> None:
    runs = json.loads(nightshift("digest", "nov21", "--since", since, "--json").output)["runs"]
    assert sum(run["counts"][word] for run in runs for word in ("kept", "discarded", "crashed")) == verdicts


def test_a_time_of_day_is_the_last_one_here(nightshift: Nightshift, finished: Any) -> None:
    """The run is of the last two hours, so of two times of day twelve hours apart one tells of it whole."""
    told = [json.loads(nightshift("digest", "--since", at, "--json").output)["window"] for at in ("00:00", "12:00")]
    for window, at in zip(told, ("00:00", "12:00"), strict=True):
        assert window["from_at"][11:16] == at and window["from_at"] < window["to_at"]


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("--since", "yesterday"), 2, "'yesterday' is not a time: write 8h, 2d"),
        (("--since", "2026-11-20T22:00"), 2, "is not a time"),
        (("--since", "8h", "--last"), 2, "--last and --since each name a time to begin"),
        (("--last",), 1, "no digest was posted yet"),
        (("nov20",), 1, "there is no run 'nov20': did you mean nov21?"),
    ],
)
def test_what_cannot_be_told_is_one_sentence(
    nightshift: Nightshift, finished: Any, arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    result = nightshift("digest", *arguments)
    assert result.exit_code == code and sentence in result.output


def test_without_a_log_or_an_experiment_it_says_so(nightshift: Nightshift, scribe: Any) -> None:
    assert nightshift("digest").output == (
        "There is no log yet, so nothing to tell: `nightshift start TAG` asks for a run.\n"
    )
    assert nightshift("digest", "nov21").exit_code == 1
    scribe.ask("nov21", e.RunRequested(tag="nov21", from_ref="HEAD", zone="UTC"))
    assert "nov21 waits in the queue and no loop has taken it up." in nightshift("digest").output
