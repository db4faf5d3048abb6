"""`nightshift results` prints, compares and draws what the log says."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from eventstore import events as e
from eventstore.home import Home

Nightshift = Callable[..., Result]

TSV = (
    "commit\tval_bpb\tmemory_gb\tstatus\tdescription\n"
    "bbbbbbb\t1.500000\t2.0\tkeep\tbaseline\n"
    "10ccccc\t1.400000\t2.0\tkeep\thalve the learning rate\n"
    "20ccccc\t1.450000\t2.0\tdiscard\tdouble the depth\n"
    "31ccccc\t0.000000\t0.0\tcrash\tuse a new optimizer\n"
    "40ccccc\t1.300000\t2.0\tkeep\twarm up longer\n"
)


def test_the_bytes_of_results_tsv_are_printed(nightshift: Nightshift, finished: Any) -> None:
    assert nightshift("results").stdout_bytes == TSV.encode()


def test_a_tag_names_an_older_run_and_the_newest_one_is_the_default(nightshift: Nightshift, finished: Any) -> None:
    finished.start("nov22")
    assert len(nightshift("results").output.splitlines()) == 2
    assert nightshift("results", "nov21").output == TSV


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda text: text, ""),
        (lambda text: text.replace("1.450000", "1.460000"), "line 4 differs: the log says '20ccccc\\t1.450000"),
        (lambda text: text.replace("\n", "\r\n", 1), "line 1 differs: the log says 'commit\\tval_bpb"),
        (lambda text: text[: text.rindex("40ccccc")], "line 6 is missing: the log says '40ccccc"),
        (lambda text: text + "more\n", "line 7 is too much: the file says 'more\\n'"),
        (lambda text: text.removesuffix("\n"), "line 6 differs"),
        (lambda _: "", "line 1 is missing"),
    ],
)
def test_check_names_the_first_line_that_differs(
    nightshift: Nightshift, finished: Any, tmp_path: Path, change: Callable[[str], str], expected: str
) -> None:
    file = tmp_path / "theirs.tsv"
    file.write_bytes(change(TSV).encode())
    result = nightshift("results", "nov21", "--check", file)
    assert result.exit_code == (1 if expected else 0)
    assert (expected or "is exactly what the log says of nov21") in result.output


def test_a_figure_is_written_as_png_and_replaces_the_old_one(
    nightshift: Nightshift, finished: Any, tmp_path: Path
) -> None:
    file = tmp_path / "nov21.png"
    file.write_text("old")
    assert nightshift("results", "--figure", file).output == f"Drew nov21 into {file}.\n"
    assert file.read_bytes().startswith(b"\x89PNG\r\n")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == ["", ".png", ".toml"]


def test_a_figure_that_is_no_png_is_wrong_usage(nightshift: Nightshift, finished: Any, tmp_path: Path) -> None:
    result = nightshift("results", "--figure", tmp_path / "results.tsv")
    assert result.exit_code == 2
    assert "end it in .png" in result.output


def test_a_figure_in_a_folder_that_is_not_there_is_one_sentence(
    nightshift: Nightshift, finished: Any, tmp_path: Path
) -> None:
    result = nightshift("results", "--figure", tmp_path / "no" / "a.png")
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: {tmp_path}/no/a.png") and "No such file" in result.output


def test_json_has_the_rows_and_a_crash_has_no_score(nightshift: Nightshift, finished: Any) -> None:
    view = json.loads(nightshift("results", "--json").output)
    assert (view["run"], view["metric"], view["direction"]) == ("nov21", "val_bpb", "minimize")
    assert [row.get("score") for row in view["rows"]] == [1.5, 1.4, 1.45, None, 1.3]
    assert "score" not in view["rows"][3]


def test_without_a_run_or_before_its_start_there_is_one_sentence(nightshift: Nightshift, scribe: Any) -> None:
    assert nightshift("results").output == "Error: there is no run yet: `nightshift start TAG` asks for one\n"
    scribe.ask("nov21", e.RunRequested(tag="nov21", from_ref="HEAD", zone="UTC"))
    result = nightshift("results", "nov21")
    assert result.exit_code == 1
    assert "the run nov21 is queued: it has not started" in result.output


# ---------------------------------------------------------------- what has no row

REFUSED = (
    "2 proposals refused before any of their code ran:\n"
    "#  refused as                     wanted                  why\n"
    "1  edit touches a protected file  read the held-out rows  prepare.py is protected\n"
    "2  same as one tried before       GeGLU again             it comes to the same files as experiment 1\n"
    "Repaired after a crash: 1 (once: keep).\n"
    "Abandoned without a verdict: 2 (no usable proposal in 3 asks).\n"
)


def test_what_has_no_row_is_shown_where_it_is_asked_for_and_never_among_the_rows(
    nightshift: Nightshift, agent: Any
) -> None:
    assert nightshift("results", "--refused").output == REFUSED
    assert nightshift("results").output.startswith("commit\tval_bpb")
    assert "refused" not in nightshift("results").output


def test_a_run_of_which_all_has_a_row_says_so(nightshift: Nightshift, scribe: Any) -> None:
    scribe.start("nov21")
    assert nightshift("results", "--refused").output.startswith(
        "No proposal of nov21 was refused, nothing was repaired"
    )


def test_json_has_what_has_no_row_too(nightshift: Nightshift, agent: Any) -> None:
    view = json.loads(nightshift("results", "--json").output)
    assert [(one["experiment"], one["failure"]) for one in view["refused"]] == [
        (1, "edit_touches_protected"),
        (2, "same_as_tried"),
    ]
    assert view["repaired"] == [{"experiment": 1, "repairs": 1, "verdict": "keep"}]
    assert view["abandoned"] == [{"experiment": 2, "why": "no usable proposal in 3 asks"}]


def test_on_a_terminal_the_refused_follow_below_the_rows(agent: Any, home: Home) -> None:
    ours, theirs = pty.openpty()
    try:
        command = [sys.executable, "-m", "nightshift", "-C", str(home.root), "results"]
        subprocess.run(command, stdout=theirs, check=True, env={**os.environ, "TERM": "dumb"})
        output = os.read(ours, 100_000).decode().replace("\r\n", "\n")
    finally:
        os.close(ours)
        os.close(theirs)
    rows, _, below = output.partition("\n\n")
    assert rows.startswith("commit\t") and len(rows.splitlines()) == 3
    assert below.startswith("2 proposals refused before any of their code ran:\n")  # on 80 columns, as TERM says
    assert "edit touches a protected file" in below
    assert below.endswith("Abandoned without a verdict: 2 (no usable proposal in 3 asks).\n")
