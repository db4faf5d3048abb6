"""The files of one training: its log, its result, and the score file that some programs write.

The result is on the disk, whole, before anyone is told of it, so a loop that died can read what it missed. The
log of a program that prints for hours stays small: its beginning and its end are kept.
"""

from __future__ import annotations

import os
import stat
from typing import IO, TYPE_CHECKING

import msgspec

from trainer.errors import CannotStart, OutputUnwritable
from trainer.spec import Result
from trainer.summary import Claim, claim_of_json

if TYPE_CHECKING:
    from pathlib import Path

    from trainer.spec import CommandSpec, Scoring

LOG_NAME = "run.log"
RESULT_NAME = "result.json"
KEPT_BYTES = 2**20
"""So much of the beginning, and so much of the end, of a log is kept."""

SCORE_FILE_MAX = 2**20


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
        folder = os.open(outdir, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise OutputUnwritable(str(target), _reason(error)) from error


def read_result(outdir: Path) -> Result | None:
    """
    The result of the training that ended last in *outdir*, or None where there is none that can be read: the loop
    died before it was written. Compare its nonce, another start may have left it.
    """
    try:
        return msgspec.json.decode((outdir / RESULT_NAME).read_bytes(), type=Result)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


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


def _is_inside(folder: Path, workdir: Path) -> bool:
    return folder.resolve().is_relative_to(workdir.resolve())


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
