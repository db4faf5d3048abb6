"""What the evaluator is asked and what it answers, each one line of JSON. Pure, and without torch.

    {"folder": "/w/1.0/hand-over", "seed": 7, "probe": true, "report": true, "second_opinion": false}
    {"outcome": "scored", "score": 1.9731, "report_score": 1.9802, ...}

The first line that the evaluator writes is a `Ready`; then one `Answer` for each `Request`, in order.
"""

from __future__ import annotations

from typing import Literal, TypeVar

import msgspec

REQUEST_BYTES_MAX = 65_536
VERSION = "1"
"""Of what a score means: rows, log-softmax, order. It goes into `scoring.requested`."""

Outcome = Literal["scored", "no_metric", "crash", "diverged", "oom", "timeout", "tampered", "refused_operator"]
"""As in `trainer.outcome`."""


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    Score what was handed over in a folder.

    Attributes:
        folder: An absolute path.
        seed: Of the order of the rows, of the probes. The score does not depend on it beyond float32's rounding.
        score: False: the score is known. The answer has none, and only those select rows are run that the checks need.
        probe: Whether to try for a look ahead; for every candidate for a keep.
        report: Whether to score the report rows too.
        second_opinion: Whether to score with the future hidden; for every new best.
    """

    folder: str
    seed: int = 0
    score: bool = True
    probe: bool = False
    report: bool = False
    second_opinion: bool = False


class Probe(msgspec.Struct, frozen=True):
    """Of *rows* rows, *moved* had an earlier prediction that moved when what follows it was changed."""

    rows: int
    moved: int
    largest: float


class SecondOpinion(msgspec.Struct, frozen=True):
    """Mean nats of *positions* tokens, as given and with all hidden that follows each."""

    positions: int
    given: float
    hidden: float


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    What came of a request.

    Attributes:
        outcome: `scored` if and only if *score* is there, or would be if it had been asked for.
        why: One sentence without its full stop if it is not `scored`.
        score, report_score: Bits per byte on the select and the report rows.
        probe, second_opinion: What was found, also where it made the outcome `tampered`.
        seconds: Wall clock of each part: load, select (with the checks), report, whole.
        peak_mb: The most memory that the scoring process held, in MiB.
    """

    outcome: Outcome
    why: str = ""
    score: float | None = None
    report_score: float | None = None
    probe: Probe | None = None
    second_opinion: SecondOpinion | None = None
    seconds: dict[str, float] = {}
    peak_mb: float = 0.0


class Ready(msgspec.Struct, frozen=True):
    """
    The evaluator has torch, the harness and its rows in memory and waits for requests.

    Attributes:
        rows, report_rows: How many there are.
        rows_sha256: Of all tokens that are scored and of the bytes that each stands for.
        seconds: What it took since the process began, wall clock.
    """

    version: str
    rows: int
    report_rows: int
    rows_sha256: str
    device: str
    workers: int
    seconds: float


T = TypeVar("T", Request, Answer, Ready)


def encode(message: Request | Answer | Ready) -> bytes:
    """One line, with its newline."""
    return msgspec.json.encode(message) + b"\n"


def decode(line: bytes, kind: type[T]) -> T:
    """Raises ValueError with a sentence if *line* is no message of that *kind*."""
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"no {kind.__name__}: {error}") from error
