"""The staircase is a picture for every run there can be, and its labels never sit on each other."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstore.events import Verdict
from eventstore.projections.figure import spread, staircase
from eventstore.projections.results import Row


def row(number: int, score: float | None, status: Verdict, description: str = "", gain: float | None = None) -> Row:
    return Row(
        experiment=number,
        commit=f"{number:07x}",
        score=score,
        memory_gb=1.0,
        status=status,
        description=description,
        reason="",
        gain=gain,
        lines=0,
        trials=1,
        standing="untested",
        vetoed=None,
        position=number + 1,
    )


BASELINE = row(0, 1.0, "keep", "baseline")


def pixels(png: bytes) -> tuple[int, int, bytes]:
    """Width, height and the decompressed scan lines of a PNG, read without any picture library."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    data, at = b"", 8
    while at < len(png):
        size, kind = struct.unpack(">I4s", png[at : at + 8])
        data += png[at + 8 : at + 8 + size] if kind == b"IDAT" else b""
        at += size + 12
    return width, height, zlib.decompress(data)


NIGHTS: dict[str, tuple[list[Row], str]] = {
    "nothing": ([], "minimize"),
    "only a baseline": ([BASELINE], "minimize"),
    "a baseline that crashed": ([row(0, None, "crash")], "minimize"),
    "no gain": ([BASELINE, row(1, 1.1, "discard"), row(2, 1.2, "discard")], "minimize"),
    "only equal scores": ([BASELINE, row(1, 1.0, "discard"), row(2, 1.0, "keep", "simpler", 0.0)], "minimize"),
    "a gain, a crash, a hopeless score": (
        [BASELINE, row(1, 0.9, "keep", "wider", 0.1), row(2, None, "crash"), row(3, 1e9, "discard")],
        "minimize",
    ),
    "maximize": ([row(0, 0.0, "keep"), row(1, 5.0, "keep", "faster", 5.0), row(2, -3.0, "discard")], "maximize"),
    "pass": ([row(0, 0.0, "keep"), row(1, 1.0, "keep", "fixed", 1.0)], "pass"),
    "a baseline of zero": ([row(0, 0.0, "keep"), row(1, -0.5, "keep", "below", 0.5)], "minimize"),
    "decided out of order": ([BASELINE, row(2, 0.9, "keep", "b", 0.1), row(1, 0.8, "keep", "a", 0.1)], "minimize"),
    "a discard without a score": ([BASELINE, row(1, None, "discard", "conflicts with 3")], "minimize"),
    "words no font has": ([BASELINE, row(1, 0.9, "keep", "$x^2 \\frac{ 日本 😀 %d {}", 0.1)], "minimize"),
    "more keeps than lines": (
        [BASELINE, *(row(n, 1 - n / 1000, "keep", f"step {n}", 0.001) for n in range(1, 80))],
        "minimize",
    ),
}


@pytest.mark.parametrize("name", NIGHTS)
def test_every_night_has_its_picture(name: str) -> None:
    rows, direction = NIGHTS[name]
    width, height, lines = pixels(staircase(rows, "val_bpb", direction, "nov21"))
    assert (width, height) == (1200, 700)
    assert len(set(lines)) > 10  # something is drawn


def test_the_same_rows_give_the_same_picture_whatever_the_users_style() -> None:
    import matplotlib as mpl

    rows, direction = NIGHTS["a gain, a crash, a hopeless score"]
    plain = staircase(rows, "val_bpb", direction, "nov21")
    with mpl.rc_context({"axes.facecolor": "black", "font.size": 30, "savefig.dpi": 40}):
        assert staircase(rows, "val_bpb", direction, "nov21") == plain
        assert mpl.rcParams["font.size"] == 30


def test_a_hopeless_score_does_not_flatten_the_stairs() -> None:
    stairs = [BASELINE, row(1, 0.9, "keep", "wider", 0.1), row(2, 0.85, "keep", "deeper", 0.05)]
    without = staircase([*stairs, row(3, 50.0, "discard")], "val_bpb", "minimize", "nov21")
    worse = staircase([*stairs, row(3, 5e6, "discard")], "val_bpb", "minimize", "nov21")
    assert pixels(without) == pixels(worse)


def test_importing_the_module_loads_no_matplotlib() -> None:
    code = "import sys, eventstore.projections.figure as f; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_labels_with_room_stay_where_their_dots_are() -> None:
    assert spread([90.0, 50.0, 20.0], 10, 0, 100) == [90.0, 50.0, 20.0]


def test_labels_on_one_height_are_spread_around_it() -> None:
    assert spread([50.0, 50.0, 50.0], 10, 0, 100) == [60.0, 50.0, 40.0]


def test_labels_at_an_end_are_moved_inside() -> None:
    assert spread([100.0, 100.0], 10, 0, 100) == [95.0, 85.0]
    assert spread([0.0, 0.0], 10, 0, 100) == [15.0, 5.0]


@given(st.lists(st.floats(-50, 650), max_size=30))
@settings(max_examples=200)
def test_labels_never_overlap_nor_leave_the_picture(heights: list[float]) -> None:
    placed = spread(sorted(heights, reverse=True), 17, 0, 542)
    assert len(placed) == len(heights)
    assert all(upper - lower >= 17 - 1e-6 for upper, lower in pairwise(placed))
    assert all(8.5 - 1e-6 <= height <= 542 - 8.5 + 1e-6 for height in placed)
