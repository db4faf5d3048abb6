"""The files of one training: its log, its result, and the score file that some programs write.

The result is on the disk, whole, before anyone is told of it, so a loop that died can read what it missed. The
log of a program that prints for hours stays small: its beginning and its end are kept.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from typing import IO, TYPE_CHECKING

import msgspec

from trainer.errors import CannotStart, OutputUnwritable
from trainer.outcome import HandedOver
from trainer.sandbox.plan import DISK_SMALL_MB, MIB
from trainer.spec import HAND_OVER_NAME, Result
from trainer.summary import Claim, claim_of_json, clean, facts_of_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trainer.spec import CommandSpec, Scoring, TrainingSpec

LOG_NAME = "run.log"
RESULT_NAME = "result.json"
KEPT_BYTES = 2**20
"""So much of the beginning, and so much of the end, of a log is kept."""

SCORE_FILE_MAX = 2**20
FULL_BYTES = int(DISK_SMALL_MB * MIB)
"""With less than this left a disk counts as full."""

HANDED_OVER = {
    "weights.safetensors": 8 * 2**30,
    "facts.json": 2**16,
    "refused.json": 4096,
    "graph.json": 32 * 2**20,
}
"""What the exporter writes, in that order, and how many bytes of each are taken at most."""

CHUNK = 2**20
WHY_MAX = 400
BLOCK_BEGINS = b"\n[nightshift: scored by the sealed evaluator]\n---\n"
BLOCK_BYTES_MAX = 2**16


class KeptLog:
    """
    An output as it is kept: the first and the last MiB, with a line between that says how much is missing.

    The end is in memory until `close`, so a loop that is killed leaves the beginning only. A disk that is full
    does not disturb the program: what went wrong is told by `close`.

    Args:
        path: The file, or None to keep nothing but the end in memory.

    Raises:
        OutputUnwritable: If the file cannot be made.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._error: OSError | None = None
        self._total = 0
        self._recent = bytearray()
        if path is not None:
            try:
                self._file = path.open("wb", buffering=0)
            except OSError as error:
                raise OutputUnwritable(str(path), _reason(error)) from error

    def write(self, chunk: bytes) -> None:
        """Take the next bytes of the output."""
        room = KEPT_BYTES - self._total
        if room > 0:
            self._put(chunk[:room])
        self._total += len(chunk)
        self._recent += chunk[-KEPT_BYTES:]
        if len(self._recent) > 2 * KEPT_BYTES:
            del self._recent[:-KEPT_BYTES]

    def end(self, n_bytes: int) -> bytes:
        """The last *n_bytes* of the output, of which there are at most a MiB."""
        return bytes(self._recent[-min(n_bytes, KEPT_BYTES) :])

    def close(self) -> None:
        """Write the end and close the file. Raises `OutputUnwritable` if a part of the log could not be written."""
        behind = self._total - KEPT_BYTES
        if behind > KEPT_BYTES:
            self._put(b"\n[nightshift: %d bytes are missing here]\n" % (behind - KEPT_BYTES))
        if behind > 0:
            self._put(self.end(behind))
        if self._file is not None:
            self._file.close()
        self._file = None
        if self._error is not None:
            raise OutputUnwritable(str(self._path), _reason(self._error)) from self._error

    def _put(self, data: bytes) -> None:
        if self._file is None or self._error is not None:
            return
        try:
            self._file.write(data)
        except OSError as error:
            self._error = error


def fresh_outdir(spec: CommandSpec, outdir: Path) -> None:
    """Make the folder, without a log or result of an earlier start. Raises `CannotStart` where that fails."""
    try:
        outdir.mkdir(parents=True, exist_ok=True)
        for name in (LOG_NAME, RESULT_NAME):
            (outdir / name).unlink(missing_ok=True)
    except OSError as error:
        raise CannotStart(spec.command, f"its output folder {outdir} cannot be used ({_reason(error)})") from error


def write_result(outdir: Path, result: Result) -> None:
    """Write the result whole or not at all, durable on return. Raises `OutputUnwritable`."""
    target = outdir / RESULT_NAME
    temporary = outdir / f"{RESULT_NAME}.new"
    try:
        with temporary.open("wb") as file:
            file.write(msgspec.json.encode(result))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
        _sync_folder(outdir)
    except OSError as error:
        raise OutputUnwritable(str(target), _reason(error)) from error


def read_result(outdir: Path) -> Result | None:
    """
    The result of the training that ended last in *outdir*, or None where there is none that can be read: the loop
    died before it was written. Compare its nonce, another start may have left it.
    """
    try:
        return msgspec.json.decode((outdir / RESULT_NAME).read_bytes(), type=Result)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def check_room(folder: Path) -> None:
    """
    Raise `OutputUnwritable` if the disk of a work folder is full, and would be without that folder too.

    A program that failed there did not fail by itself; one that filled the disk did.
    """
    try:
        free = shutil.disk_usage(folder).free
    except FileNotFoundError:
        return
    if free < FULL_BYTES and free + sum(map(_size, folder.rglob("*"))) < FULL_BYTES:
        raise OutputUnwritable(str(folder), os.strerror(errno.ENOSPC))


def _size(path: Path) -> int:
    try:
        return path.lstat().st_blocks * 512
    except OSError:
        return 0


def remove_score_file(spec: CommandSpec, file: str) -> None:
    """Remove what an earlier run left, which would read as this run's success. Raises `CannotStart`."""
    path = spec.workdir / file
    try:
        if not _is_inside(path.parent, spec.workdir):
            raise CannotStart(spec.command, f"score_file {file} leads out of the work folder; name a file inside it")
        path.unlink(missing_ok=True)
    except OSError as error:
        raise CannotStart(spec.command, f"an old score_file {file} cannot be removed ({_reason(error)})") from error


def claim_of_file(workdir: Path, scoring: Scoring) -> Claim:
    """
    The claim in a score file that an untrusted program wrote, and which no process of its writes any more.

    Only a regular file of at most a MiB inside the work folder is read, no link is followed out of it.
    """
    file, key = scoring.file or "", scoring.key or ""
    path = workdir / file
    try:
        if not _is_inside(path.parent, workdir):
            return Claim(None, "tampered", f"{file} leads out of the work folder")
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return Claim(None, "no_metric", f"{file} was not written")
    except OSError as error:
        return Claim(None, "tampered", f"{file} is no plain file that can be read ({_reason(error)})")
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return Claim(None, "tampered", f"{file} is no plain file")
        raw = os.read(descriptor, SCORE_FILE_MAX + 1)  # of a plain file one read gives all
    finally:
        os.close(descriptor)
    if len(raw) > SCORE_FILE_MAX:
        return Claim(None, "tampered", f"{file} has more than {SCORE_FILE_MAX} bytes, which no score needs")
    return claim_of_json(raw, file, key)


def fresh_hand_over(spec: TrainingSpec) -> None:
    """Make the folder for the model, empty whatever the checkout holds there. Raises `CannotStart` if that fails."""
    assert spec.seal is not None
    folder = spec.workdir / HAND_OVER_NAME
    try:
        for path in (folder, spec.seal.handed):
            if path.is_symlink() or not path.is_dir():
                path.unlink(missing_ok=True)
            else:
                shutil.rmtree(path)
        folder.mkdir()
    except OSError as error:
        raise CannotStart(spec.command, f"the folder {folder} cannot be made ({_reason(error)})") from error


def take_hand_over(source: Path, target: Path) -> HandedOver:
    """
    Copy what an untrusted program has handed over, of which nothing runs any more, to the new folder *target*.

    Only regular files of the names that the exporter writes, through no link; durable on return. What is copied is
    out of reach for a process that got away and still has the old files open.

    Raises:
        OutputUnwritable: If the copy cannot be written.
    """
    try:
        folder = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        return HandedOver(problem=f"its folder for the model is gone or a link ({_reason(error)})")
    try:
        target.mkdir(parents=True)
        there = {}
        for name, most in HANDED_OVER.items():
            there[name] = _copy(folder, name, most, target)
        refused = b"" if not there["refused.json"] else (target / "refused.json").read_bytes()
        _sync_folder(target)
    except _Odd as odd:
        return HandedOver(problem=str(odd))
    except OSError as error:
        raise OutputUnwritable(str(target), _reason(error)) from error
    finally:
        os.close(folder)
    if refused:
        return HandedOver(refused=_refusal(refused))
    return HandedOver(is_whole=there["graph.json"] and there["weights.safetensors"])


class _Odd(Exception):
    """Something handed over is not as the exporter leaves it."""


def _copy(folder: int, name: str, most: int, target: Path) -> bool:
    """Copy one file of the open *folder*, at most *most* bytes. False if it is not there."""
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _Odd(f"{name}, which it handed over, is a link or cannot be read ({_reason(error)})") from error
    with os.fdopen(file, "rb", buffering=0) as source:
        facts = os.fstat(file)
        if not stat.S_ISREG(facts.st_mode):
            raise _Odd(f"{name}, which it handed over, is no plain file")
        if facts.st_size > most:
            raise _Odd(f"{name}, which it handed over, has {facts.st_size:,} bytes, more than {most:,}")
        left = facts.st_size
        with (target / name).open("xb", buffering=0) as copy:
            while left and (chunk := source.read(min(left, CHUNK))):
                copy.write(chunk)
                left -= len(chunk)
            os.fsync(copy.fileno())
    return True


def _refusal(raw: bytes) -> str:
    try:
        return clean(str(json.loads(raw)["why"]), WHY_MAX) or "the exporter refused the model"
    except (ValueError, KeyError, TypeError, RecursionError):
        return "the exporter refused the model"


def read_facts(folder: Path) -> dict[str, int | float | str]:
    """What a training said of itself beside the model that was taken over to *folder*; empty where it said nothing."""
    try:
        return facts_of_json((folder / "facts.json").read_bytes())
    except OSError:
        return {}


def write_block(log: Path, name: str, score: float, facts: Mapping[str, object]) -> None:
    """
    End a log with the block that people and programs look for: our score, then *facts*. Once, however often called.

    Raises:
        OutputUnwritable: If the log cannot be written.
    """
    block = {name: f"{score:.6f}", **{key: value for key, value in facts.items() if key != name}}
    text = BLOCK_BEGINS + b"".join(f"{key + ':':<18}{value}\n".encode() for key, value in block.items())
    try:
        file = os.open(log, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with os.fdopen(file, "r+b") as stream:
            start = max(0, stream.seek(0, os.SEEK_END) - BLOCK_BYTES_MAX)
            stream.seek(start)
            end, begins, _ = stream.read().rpartition(BLOCK_BEGINS)
            stream.seek(start + len(end) if begins else 0, os.SEEK_SET if begins else os.SEEK_END)
            stream.truncate()
            stream.write(text)
    except OSError as error:
        raise OutputUnwritable(str(log), _reason(error)) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_inside(folder: Path, workdir: Path) -> bool:
    return folder.resolve().is_relative_to(workdir.resolve())


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
