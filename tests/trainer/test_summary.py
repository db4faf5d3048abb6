"""What is read from an output, whatever it holds and however it comes."""

from __future__ import annotations

import itertools
import math
import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trainer.summary import (
    LINE_MAX,
    METRICS_MAX,
    MetricStream,
    Summary,
    claim_of_json,
    clean,
    clean_tail,
    parse_progress,
)

BLOCK = b"---\nval_bpb:          0.997900\npeak_vram_mb:     45060.2\nnum_steps:        953\ndepth:            8\n"


def read(output: bytes, name: str | None = "val_bpb") -> Summary:
    stream = MetricStream(name)
    stream.feed(output)
    return stream.finish()


def claim(output: bytes) -> tuple[float | None, str]:
    found = read(output).claim
    assert found is not None
    assert (found.score is None) == bool(found.problem) == bool(found.why)
    return found.score, found.problem


def test_a_block_gives_score_and_metrics_by_type() -> None:
    summary = read(b"noise\n" + BLOCK)
    assert summary.claim is not None
    assert summary.claim.score == 0.9979
    assert summary.metrics == {"val_bpb": 0.9979, "peak_vram_mb": 45060.2, "num_steps": 953, "depth": 8}
    assert isinstance(summary.metrics["depth"], int)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (b"", (None, "no_metric")),
        (b"val_bpb: 1.5\n", (1.5, "")),
        (b"val_bpb: 1.5", (1.5, "")),
        (b"val_bpb:1.5\r\n", (1.5, "")),
        (b"val_bpb: -1.5e-3  \n", (-0.0015, "")),
        (b"val_bpb: 1.5\nval_bpb: 1.5\n", (None, "tampered")),
        (b"val_bpb: 1.5\nval_bpb: soon\n", (1.5, "")),
        (b"val_bpb: soon\n", (None, "no_metric")),
        (b"val_bpb: nan\n", (None, "tampered")),
        (b"val_bpb: 1e999\n", (None, "tampered")),
        (b"val_bpb: 1_000\n", (None, "no_metric")),
        (b"val_bpb: \xd9\xa1\n", (None, "no_metric")),
        (b" val_bpb: 1.5\n", (None, "no_metric")),
        (b"my_val_bpb: 1.5\nval_bpb2: 3\n", (None, "no_metric")),
        (BLOCK + BLOCK, (None, "tampered")),
        (BLOCK[:-1], (0.9979, "")),
        (BLOCK + b"bye\nval_bpb: 0.1\n", (0.9979, "")),
        (b"val_bpb: 0.1\n" + BLOCK, (0.9979, "")),
        (b"---\nval_bpb: 1\nval_bpb: 2\n", (None, "tampered")),
        (b"---\nval_bpb: inf\n", (None, "tampered")),
        (b"---\nval_bpb: good\n", (None, "no_metric")),
        (b"---\nval_bpb:\n", (None, "no_metric")),
        (b"---\ndepth: 8\n", (None, "no_metric")),
        (b"---\n---\nval_bpb: 1\n", (1.0, "")),
        (b"---\nconfig: a\n---\nval_bpb: 1\n", (1.0, "")),
        (b"---\n\nval_bpb: 1\n", (1.0, "")),
        (b"----\nval_bpb: 1\n", (1.0, "")),
        (b"\rval_bpb: 3\rval_bpb: 2\rval_bpb: 1\n", (1.0, "")),
        (b"val_bpb: 3\r\r\n", (3.0, "")),
        (b"val_bpb: 3\rdone\n", (None, "no_metric")),
        (b"val_bpb: 1" + b"0" * LINE_MAX + b"\n", (None, "no_metric")),
        (b"x" * 3 * LINE_MAX + b"\nval_bpb: 1\n", (1.0, "")),
    ],
)
def test_what_counts_as_the_score(output: bytes, expected: tuple[float | None, str]) -> None:
    assert claim(output) == expected


def test_a_name_may_hold_characters_that_mean_something_to_a_pattern() -> None:
    assert read(b"p95 (ms): 12.5\n", "p95 (ms)").claim == read(b"---\np95 (ms): 12.5\n", "p95 (ms)").claim
    assert read(b"pX5 (ms): 12.5\n", "p.5 (ms)").claim.problem == "no_metric"  # type: ignore[union-attr]


def test_without_a_name_the_last_block_gives_the_metrics_and_nothing_is_claimed() -> None:
    summary = read(b"---\ndepth: 8\n\n---\ndepth: 9\npeak_vram_mb: 12.5\n", None)
    assert summary.claim is None
    assert summary.metrics == {"depth": 9, "peak_vram_mb": 12.5}


def test_metrics_are_bounded_in_number_and_length_and_hold_nothing_json_cannot() -> None:
    many = b"".join(b"key%d: %d\n" % (i, i) for i in range(1000))
    long = b"name: " + b"v\x1b[31m\x00" * 500 + b"\n"
    summary = read(b"---\n" + long + b"mfu: nan\nbig: " + b"9" * 400 + b"\n" + many + b"val_bpb: 1\n")
    assert len(summary.metrics) == METRICS_MAX + 1
    assert summary.metrics["val_bpb"] == 1
    assert summary.metrics["mfu"] == "nan"
    assert summary.metrics["big"] == "9" * 200
    assert len(str(summary.metrics["name"])) == 200
    assert str(summary.metrics["name"]).isprintable()


def test_the_first_of_two_lines_with_the_same_key_stands() -> None:
    assert read(b"---\nval_bpb: 1\npeak_vram_mb: 10\npeak_vram_mb: 5\n").metrics["peak_vram_mb"] == 10


PIECES = st.sampled_from(
    [
        *(b"---", b"val_bpb: 1.5", b"val_bpb: x", b"val_bpb:", b"depth: 8", b"\n", b"\n", b"\n", b"\r", b"\r\n", b" "),
        *(b"---\n", b"---\nval_bpb: 0.5\ndepth: 8\n", b"\rstep 1 | loss: 2", b"y" * LINE_MAX, b"\x00\xff", b"z"),
    ]
)
OUTPUT = st.one_of(st.binary(max_size=60), st.lists(PIECES, max_size=25).map(b"".join))


@given(output=OUTPUT, cuts=st.lists(st.integers(0, 400), max_size=12))
@example(output=b"val_bpb: 1\r\n", cuts=[11])
@example(output=b"abc\r   \nx", cuts=[2, 5])
@example(output=b"abc\rde", cuts=[4])
def test_any_split_into_chunks_gives_the_same_answer(output: bytes, cuts: list[int]) -> None:
    whole, split = MetricStream("val_bpb"), MetricStream("val_bpb")
    whole.feed(output)
    edges = [0, *sorted(cut % (len(output) + 1) for cut in cuts), len(output)]
    for start, end in itertools.pairwise(edges):
        split.feed(output[start:end])
    assert whole.progress() == split.progress()
    assert whole.finish() == split.finish()


@given(output=OUTPUT)
@example(output=b"---\n\nval_bpb:")
def test_byte_by_byte_gives_the_same_answer_as_all_at_once(output: bytes) -> None:
    split = MetricStream("val_bpb")
    for at in range(len(output)):
        split.feed(output[at : at + 1])
    whole = MetricStream("val_bpb")
    whole.feed(output)
    assert whole.progress() == split.progress()
    assert whole.finish() == split.finish()


@given(st.binary(max_size=300))
def test_any_bytes_give_clean_bounded_text(raw: bytes) -> None:
    stream = MetricStream("val_bpb")
    stream.feed(raw)
    progress = stream.progress()
    if progress is not None:
        assert progress.text.isprintable()
        assert len(progress.text) <= 200
    tail = clean_tail(raw, 50)
    assert len(tail) <= 50
    assert tail.replace("\n", "").isprintable()
    assert clean(raw.decode("latin-1"), 20).isprintable()


def test_memory_stays_flat_over_an_output_without_a_newline() -> None:
    stream, chunk = MetricStream("val_bpb"), b"x" * 65536
    tracemalloc.start()
    for _ in range(200):
        stream.feed(chunk)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500_000


@pytest.mark.parametrize(
    ("line", "step", "fraction", "loss"),
    [
        (b"step 00123 ( 45.0%) | loss: 3.210 | 12ms | 53,210 tok/s | left 5s", 123, 0.45, 3.21),
        (b"\rstep 1 (1%)\rstep 00002 (2.5%) | loss: 1e-3", 2, 0.025, 0.001),
        (b" 45%|####      | 9/20 [00:01<00:02,  8.1it/s, train_loss=2.5]", None, 0.45, 2.5),
        (b"\x1b[1miter 7\x1b[0m lossy 12 compression 140%", 7, None, None),
        (b"step 3 | loss: nan", 3, None, None),
        (b"\xff\x00inference", None, None, None),
    ],
)
def test_progress_is_read_leniently(line: bytes, step: int | None, fraction: float | None, loss: float | None) -> None:
    progress = parse_progress(line)
    assert (progress.step, progress.loss) == (step, loss)
    assert (progress.fraction is None and fraction is None) or math.isclose(progress.fraction or 0, fraction or 0)
    assert progress.text.isprintable()


def test_progress_is_the_line_that_a_terminal_would_show_last() -> None:
    stream = MetricStream("val_bpb")
    assert stream.progress() is None
    seen = []
    for chunk in (b"loading\n", b"\n\n", b"\rstep 1", b"\rstep 2", b"\n---\nval_bpb: 1\n"):
        stream.feed(chunk)
        progress = stream.progress()
        seen.append(progress.text if progress else "")
    assert seen == ["loading", "loading", "step 1", "step 2", "val_bpb: 1"]


def test_a_tail_begins_at_a_line_and_shows_what_a_terminal_would() -> None:
    raw = b"first line\nsecond\tline\n\rstep 1\rstep 2 \x1b[32mgreen\x1b[0m\r\nlast\n\n"
    assert clean_tail(raw, 1000) == "first line\nsecond    line\nstep 2 green\nlast"
    assert clean_tail(raw, 20) == "step 2 green\nlast"
    assert clean_tail(b"x" * 100, 20) == "x" * 20
    assert clean_tail(b"", 20) == ""


@pytest.mark.parametrize(
    ("raw", "key", "score", "problem"),
    [
        (b'{"acc": 0.5}', "acc", 0.5, ""),
        (b'{"test": {"acc": 3}}', "test.acc", 3.0, ""),
        (b'{"acc": "0.5"}', "acc", None, "no_metric"),
        (b'{"acc": true}', "acc", None, "no_metric"),
        (b'{"acc": null}', "acc", None, "no_metric"),
        (b'{"test": 1}', "test.acc", None, "no_metric"),
        (b"[1]", "acc", None, "no_metric"),
        (b"", "acc", None, "no_metric"),
        (b"\xff\xfe\x00", "acc", None, "no_metric"),
        (b"[" * 100_000, "acc", None, "no_metric"),
        (b'{"acc": NaN}', "acc", None, "tampered"),
        (b'{"acc": -Infinity}', "acc", None, "tampered"),
        (b'{"acc": 1' + b"0" * 400 + b"}", "acc", None, "tampered"),
        (b'{"acc": 1' + b"0" * 5000 + b"}", "acc", None, "no_metric"),
    ],
)
def test_what_counts_as_the_score_in_a_file(raw: bytes, key: str, score: float | None, problem: str) -> None:
    found = claim_of_json(raw, "score.json", key)
    assert (found.score, found.problem) == (score, problem)
    assert bool(found.why) == (score is None)


@given(st.binary(max_size=200))
def test_any_score_file_gives_a_claim(raw: bytes) -> None:
    found = claim_of_json(raw, "score.json", "acc")
    assert (found.score is None) == bool(found.problem)
