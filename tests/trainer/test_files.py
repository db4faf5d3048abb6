"""The log, the result and the score file of a training."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from trainer.errors import CannotStart, OutputUnwritable
from trainer.files import (
    KEPT_BYTES,
    RESULT_NAME,
    SCORE_FILE_MAX,
    KeptLog,
    claim_of_file,
    fresh_outdir,
    read_result,
    remove_score_file,
    write_result,
)
from trainer.spec import Result, Scoring, TrainingSpec

JSON = Scoring(kind="json", name="acc", file="out/score.json", key="acc")
Make = Callable[..., TrainingSpec]


def kept(tmp_path: Path, output: bytes, chunk: int) -> bytes:
    log = KeptLog(tmp_path / "run.log")
    for at in range(0, len(output), chunk):
        log.write(output[at : at + chunk])
    log.close()
    return (tmp_path / "run.log").read_bytes()


@pytest.mark.parametrize("size", [0, 1, KEPT_BYTES - 1, KEPT_BYTES, KEPT_BYTES + 1, 2 * KEPT_BYTES])
def test_a_log_of_up_to_two_mib_is_kept_whole(tmp_path: Path, size: int) -> None:
    output = os.urandom(size)
    assert kept(tmp_path, output, 65536) == output


@pytest.mark.parametrize("missing", [1, 12345, 5 * KEPT_BYTES])
@pytest.mark.parametrize("chunk", [65536, 1_000_003, 20 * KEPT_BYTES])
def test_of_a_longer_log_both_ends_are_kept_and_the_number_of_missing_bytes_is_exact(
    tmp_path: Path, missing: int, chunk: int
) -> None:
    output = os.urandom(2 * KEPT_BYTES + missing)
    note = b"\n[nightshift: %d bytes are missing here]\n" % missing
    assert kept(tmp_path, output, chunk) == output[:KEPT_BYTES] + note + output[-KEPT_BYTES:]


def test_the_end_of_a_log_is_at_hand_before_it_is_closed() -> None:
    log = KeptLog(None)
    assert log.end(10) == b""
    log.write(b"abc" * KEPT_BYTES)
    log.write(b"xyz")
    assert log.end(4) == b"cxyz"
    log.close()


def test_a_full_disk_does_not_disturb_the_program_and_is_told_at_the_end() -> None:
    log = KeptLog(Path("/dev/full"))
    log.write(b"x" * 10)
    log.write(b"val_bpb: 1\n")
    assert log.end(11) == b"val_bpb: 1\n"
    with pytest.raises(OutputUnwritable, match="/dev/full"):
        log.close()


def test_a_log_that_cannot_be_made_says_where(tmp_path: Path) -> None:
    with pytest.raises(OutputUnwritable, match="missing"):
        KeptLog(tmp_path / "missing" / "run.log")


RESULT = Result(
    outcome="scored",
    seconds=12.5,
    nonce="abc",
    score=0.1 + 0.2,
    metrics={"val_bpb": 0.1 + 0.2, "depth": 8, "note": "ü\n"},
    peak_memory_mb=45060.2,
    exit_code=0,
    tail="last\nlines",
)


@pytest.mark.parametrize("result", [RESULT, Result(outcome="crash", seconds=0.0, nonce="x", exit_code=-11, why="no")])
def test_a_result_is_read_back_as_it_was(tmp_path: Path, result: Result) -> None:
    write_result(tmp_path, result)
    assert read_result(tmp_path) == result
    assert [path.name for path in tmp_path.iterdir()] == [RESULT_NAME]


@pytest.mark.parametrize("content", [None, b"", b'{"outcome": "scored"', b'{"outcome": "won"}', b"\xff"])
def test_no_result_or_a_broken_one_is_none(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / RESULT_NAME).write_bytes(content)
    assert read_result(tmp_path) is None


def test_a_result_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    with pytest.raises(OutputUnwritable, match=RESULT_NAME):
        write_result(tmp_path / "missing", RESULT)


def test_an_outdir_begins_without_an_earlier_result(tmp_path: Path, training: Make) -> None:
    write_result(tmp_path, RESULT)
    fresh_outdir(training(), tmp_path)
    assert read_result(tmp_path) is None
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotStart, match="cannot be used"):
        fresh_outdir(training(), tmp_path / "file")


def write_score(workdir: Path, text: str) -> None:
    (workdir / "out").mkdir(exist_ok=True)
    (workdir / "out" / "score.json").write_text(text)


def test_a_score_file_gives_its_number(workdir: Path) -> None:
    write_score(workdir, '{"acc": 0.75}')
    assert claim_of_file(workdir, JSON).score == 0.75


def test_a_score_file_that_is_not_there_is_no_metric(workdir: Path) -> None:
    assert claim_of_file(workdir, JSON).problem == "no_metric"


def a_link_to_a_file_outside(workdir: Path) -> None:
    (workdir.parent / "stolen.json").write_text('{"acc": 1}')
    (workdir / "out").mkdir()
    (workdir / "out" / "score.json").symlink_to(workdir.parent / "stolen.json")


def a_link_to_a_folder_outside(workdir: Path) -> None:
    (workdir.parent / "score.json").write_text('{"acc": 1}')
    (workdir / "out").symlink_to(workdir.parent)


def a_pipe_that_nobody_writes(workdir: Path) -> None:
    (workdir / "out").mkdir()
    os.mkfifo(workdir / "out" / "score.json")


def a_folder(workdir: Path) -> None:
    (workdir / "out" / "score.json").mkdir(parents=True)


def too_big(workdir: Path) -> None:
    write_score(workdir, '{"acc": 1}' + " " * SCORE_FILE_MAX)


@pytest.mark.parametrize(
    "trick",
    [a_link_to_a_file_outside, a_link_to_a_folder_outside, a_pipe_that_nobody_writes, a_folder, too_big],
)
def test_a_score_file_that_is_no_plain_small_file_inside_is_tampered(
    workdir: Path, trick: Callable[[Path], None]
) -> None:
    trick(workdir)
    assert claim_of_file(workdir, JSON).problem == "tampered"


def test_an_old_score_file_is_removed_and_a_link_is_not_followed(workdir: Path, training: Make) -> None:
    outside = workdir.parent / "precious.json"
    outside.write_text("1")
    (workdir / "score.json").symlink_to(outside)
    remove_score_file(training(), "score.json")
    assert not (workdir / "score.json").is_symlink()
    assert outside.exists()
    remove_score_file(training(), "score.json")


def test_a_score_file_that_cannot_be_removed_stops_the_start(workdir: Path, training: Make) -> None:
    a_link_to_a_folder_outside(workdir)
    with pytest.raises(CannotStart, match="leads out"):
        remove_score_file(training(), "out/score.json")
    assert (workdir.parent / "score.json").exists()
    (workdir / "folder.json").mkdir()
    with pytest.raises(CannotStart, match="cannot be removed"):
        remove_score_file(training(), "folder.json")
