"""pause, resume, stop and budget ask in one sentence, and are refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import Result

from eventstore import events as e
from eventstore.envelope import Event, parse_at
from eventstore.home import Home

Nightshift = Callable[..., Result]
Logged = Callable[[], list[Event]]

NO_LOOP = "No loop is running: `nightshift loop` starts one, which then reads this.\n"


@pytest.mark.parametrize(
    ("arguments", "run", "data", "sentence"),
    [
        (("pause",), "dec01", e.RunPauseRequested(), "Asked: dec01 is to pause after the experiment in hand."),
        (("pause", "--now"), "dec01", e.RunPauseRequested(mode="now"), "Asked: dec01 is to pause now."),
        (("stop", "dec01"), "dec01", e.RunStopRequested(), "Asked: dec01 is to end after the experiment in hand."),
        (("stop", "--now"), "dec01", e.RunStopRequested(mode="now"), "Asked: dec01 is to end now."),
        (
            ("budget", "--experiments", 30),
            "dec01",
            e.BudgetChanged(limit="experiments", old=20, new=30),
            "Changed: experiments of dec01 is 30 (was 20).",
        ),
        (
            ("budget", "jan01", "--usd", 2.5),
            "jan01",
            e.BudgetChanged(limit="usd", new=2.5),
            "Changed: usd of jan01 is 2.5 (was without limit).",
        ),
        (
            ("budget", "--no-experiments"),
            "dec01",
            e.BudgetChanged(limit="experiments", old=20),
            "Changed: experiments of dec01 is without limit (was 20).",
        ),
    ],
)
def test_a_request_is_one_event_of_the_asker_and_says_that_no_loop_reads_it(
    nightshift: Nightshift, active: Any, logged: Logged,
    arguments: tuple[object, ...], run: str, data: e.Data, sentence: str,
) -> None:  # fmt: skip
    before = len(logged())
    result = nightshift(*arguments)
    assert (result.exit_code, result.output) == (0, f"{sentence}\n{NO_LOOP}")
    assert len(logged()) == before + 1
    last = logged()[-1]
    assert (last.run, last.actor, last.cause, last.data) == (run, "cli:ada", None, data)


def test_nothing_is_said_of_a_loop_while_one_serves(nightshift: Nightshift, active: Any, home: Home) -> None:
    with home.hold():
        assert nightshift("pause").output == "Asked: dec01 is to pause after the experiment in hand.\n"


def test_a_paused_run_is_resumed(nightshift: Nightshift, active: Any, logged: Logged) -> None:
    active.write(("dec01", e.RunPaused(why="asked")))
    assert nightshift("resume").output.startswith("Asked: dec01 is to go on.\n")
    assert logged()[-1].data == e.RunResumeRequested()


def test_stop_takes_a_queued_run_back_which_needs_no_loop(nightshift: Nightshift, active: Any, logged: Logged) -> None:
    assert nightshift("stop", "jan01").output == "Withdrawn: jan01 had not started and will not.\n"
    assert isinstance(logged()[-1].data, e.RunWithdrawn)


@pytest.mark.parametrize(
    ("arguments", "run", "why"),
    [
        (("resume",), "dec01", "the run dec01 is not paused"),
        (("pause", "jan01"), "jan01", "the run jan01 is queued: it has not started"),
        (("stop", "dec02"), "", "there is no run 'dec02': did you mean dec01?"),
        (("budget", "--experiments", "0"), "dec01", "experiments: got 0, expected a whole number of at least 1"),
        (("budget", "--usd", "nan"), "dec01", "usd: got nan, expected an amount above 0"),
        (("budget", "--no-until", "--experiments", "20"), "dec01", "the limit experiments of dec01 is 20 already"),
    ],
)
def test_a_refusal_is_recorded_and_told_and_nothing_is_asked(
    nightshift: Nightshift, active: Any, logged: Logged, arguments: tuple[str, ...], run: str, why: str
) -> None:
    before = len(logged())
    result = nightshift(*arguments)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"Error: {why}\n")
    assert len(logged()) == before + 1
    last = logged()[-1]
    assert last.run == run
    assert isinstance(last.data, e.RequestRefused)
    assert (last.data.who, last.data.why) == ("cli:ada", why)
    assert last.data.what.startswith(arguments[0])


def test_several_limits_are_changed_in_one_step(nightshift: Nightshift, active: Any, logged: Logged) -> None:
    before = len(logged())
    result = nightshift("budget", "--experiments", 50, "--no-usd")
    assert result.exit_code == 0
    assert [event.data for event in logged()[before:]] == [
        e.BudgetChanged(limit="experiments", old=20, new=50),
        e.BudgetChanged(limit="usd", old=5.0),
    ]


def test_until_is_the_next_such_time_in_the_zone_of_the_asker(
    nightshift: Nightshift, active: Any, logged: Logged
) -> None:
    result = nightshift("budget", "--until", "08:00", TZ="Asia/Kolkata")
    data = logged()[-1].data
    assert isinstance(data, e.BudgetChanged) and isinstance(data.new, str)
    until = parse_at(data.new)
    assert (until.hour, until.minute) == (2, 30)
    assert timedelta() < until - datetime.now(UTC) <= timedelta(days=1)
    assert "08:00:00 Asia/Kolkata" in result.output


@pytest.mark.parametrize("arguments", [("--until", "25:00"), ("--usd", "2", "--no-usd"), ("--experiments", "many")])
def test_a_limit_that_cannot_be_read_is_wrong_usage(
    nightshift: Nightshift, active: Any, logged: Logged, arguments: tuple[str, ...]
) -> None:
    before = len(logged())
    assert nightshift("budget", *arguments).exit_code == 2
    assert len(logged()) == before


def test_budget_without_an_option_shows_the_limits(nightshift: Nightshift, active: Any) -> None:
    lines = nightshift("budget").output.splitlines()
    assert lines[0] == "dec01: experiments 20, 19 left"
    assert lines[1].startswith("dec01: until 2") and lines[1].endswith("2 h 4 min left")
    assert lines[2] == "dec01: usd 5, 0.00 spent"


def test_words_that_are_not_utf8_are_refused_like_any_other_unknown_tag(nightshift: Nightshift, active: Any) -> None:
    result = nightshift("stop", "nov\udcff")
    assert result.exit_code == 1
    assert "there is no run" in result.stderr
