"""Say what the end of a training was. Pure.

Only the exit code, what we did ourselves, the claim and whole lines of the output count. A word inside a line
proves nothing: "inf" is inside "inference", and a program may print the text of an error it survived.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.summary import Claim, clean

if TYPE_CHECKING:
    from trainer.spec import Cut, Outcome, Scoring

WHY_MAX = 300
TRACEBACK = "Traceback (most recent call last):"

OUT_OF_MEMORY = (
    "MemoryError",
    "numpy.exceptions._ArrayMemoryError:",
    "numpy.core._exceptions._ArrayMemoryError:",
    "numpy._core._exceptions._ArrayMemoryError:",
    "torch.OutOfMemoryError:",
    "torch.cuda.OutOfMemoryError:",
    "RuntimeError: CUDA out of memory",
    "RuntimeError: CUDA error: out of memory",
    "torch.AcceleratorError: CUDA error: out of memory",
)
"""How the last line of a traceback begins when memory ran out."""

CPU_OUT_OF_MEMORY = re.compile(
    r"RuntimeError: (?:\[enforce fail at [^\]]*\][^A-Z]*)?DefaultCPUAllocator: (?:not enough|can't allocate) memory"
)
"""The same for PyTorch's allocator on the CPU, whose line names a source file first."""

DIVERGED = re.compile(r"(?:step \d.*\s)?FAIL")
"""The last line of a program that stops on a NaN or exploding loss, as upstream's train.py prints it: alone, or
right behind its progress line, which has no newline."""

SHELL_SIGNAL = 128
"""A shell that saw its child die of signal n exits with 128 + n."""


@dataclass(frozen=True, slots=True)
class Ending:
    """
    What a training came to. *why* is there if *outcome* is not `scored`; *score* if it is, and others do not score it.
    """

    outcome: Outcome
    why: str = ""
    score: float | None = None


def classify(
    scoring: Scoring,
    *,
    cut: Cut,
    timeout_s: float,
    exit_code: int | None,
    claim: Claim | None,
    tail: str,
    excess: str = "",
) -> Ending:
    """
    Classify the end of a training.

    A program that failed has no score, whatever it printed before. With `pass` scoring an exit code is a score,
    1 for zero and 0 for any other; a timeout, a lack of memory and a death by signal are none.

    Args:
        cut: Why we killed it, empty if we did not.
        exit_code: Negative for a death by signal, None if no end was seen.
        claim: What the output or the score file claims; None with `pass` scoring.
        tail: The end of the output, clean, with the last traceback in it.
        excess: The sentence on what it used too much of, where it was killed for that.
    """
    if cut == "stopped":
        return Ending("stopped", "it was stopped on request")
    if cut == "timeout":
        return Ending("timeout", f"killed after {timeout_s:g} s of wall clock, the limit `timeout_s`")
    if cut:
        return Ending("oom" if cut == "memory" else "crash", excess or f"killed: too much {cut}")
    if exit_code is None:
        return Ending("crash", "its process was not seen to end")
    if number := signal_of(exit_code):
        return _killed_by(number)
    if exit_code:
        return _failed(scoring, exit_code, tail)
    if scoring.kind == "pass":
        return Ending("scored", score=1.0)
    if claim is None or claim.score is None:
        claim = claim or Claim(None, "no_metric", "it gave no score")
        return Ending("tampered" if claim.problem == "tampered" else "no_metric", _sentence(claim.why))
    return Ending("scored", score=claim.score)


@dataclass(frozen=True, slots=True)
class HandedOver:
    """
    What lay in the folder for the model once nothing of the training ran.

    Attributes:
        is_whole: A graph was there, with all that belongs to it.
        refused: The exporter's sentence on why the model cannot be written down; empty: it did not say so.
        problem: What is not as the exporter leaves it, in one sentence; empty: nothing.
    """

    is_whole: bool = False
    refused: str = ""
    problem: str = ""


def classify_sealed(
    scoring: Scoring,
    *,
    cut: Cut,
    timeout_s: float,
    was_ready: bool,
    late: str,
    exit_code: int | None,
    claims: int,
    handed: HandedOver,
    tail: str,
    excess: str = "",
) -> Ending:
    """
    Classify the end of a training that is scored by others. `scored` says that it handed a model over, in time.

    A score that it prints is a claim, of which there is none in honest output: whatever else it did, it is `tampered`.

    Args:
        was_ready: It said READY and was given its text.
        late: The sentence on its deadline, where it was killed for not having ended by then; else empty.
        claims: Metric blocks and lines with the score in its output, and a score among what it says beside the model.
    """
    if cut == "stopped":
        return Ending("stopped", "it was stopped on request")
    if claims:
        return Ending(
            "tampered", f"it printed a score or a `---` block of its own: {scoring.name} is measured, not told, here"
        )
    if cut == "timeout" and late:
        return Ending("timeout", late)
    if cut == "timeout" and not was_ready:
        return Ending("timeout", f"it did not call ready() of prepare.py within {timeout_s:g} s, the limit `timeout_s`")
    if not cut and handed.refused:
        return Ending("refused_operator", _sentence(handed.refused))
    done = Claim(0.0)
    ending = classify(scoring, cut=cut, timeout_s=timeout_s, exit_code=exit_code, claim=done, tail=tail, excess=excess)
    if ending.outcome != "scored":
        return ending
    if not was_ready:
        return Ending(
            "crash", "it ended without having called ready() of prepare.py, so it was given nothing to train on"
        )
    if handed.problem:
        return Ending("tampered", _sentence(handed.problem))
    if not handed.is_whole:
        return Ending("no_metric", "it ended without a model: hand_over() of prepare.py was not called")
    return Ending("scored")


def signal_of(exit_code: int) -> int | None:
    """The signal a program died of, also where a shell or a sandbox around it says so by 128 + signal."""
    if exit_code < 0:
        return -exit_code
    return exit_code - SHELL_SIGNAL if SHELL_SIGNAL < exit_code < SHELL_SIGNAL + 32 else None


def last_exception(tail: str) -> str | None:
    """The line that names the exception of the last traceback in *tail*: the first one after it not indented."""
    _, found, after = tail.rpartition(TRACEBACK)
    lines = after.split("\n")[1:] if found else []
    return next((line for line in lines if line.strip() and not line.startswith((" ", "\t"))), None)


def _killed_by(number: int) -> Ending:
    if number == signal.SIGKILL:
        # nobody else kills a process of ours with SIGKILL in the night: it is the kernel, short of memory
        return Ending("oom", "killed by a SIGKILL that was not ours: most often the system ran out of memory")
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return Ending("crash", f"died of {name}")


def _failed(scoring: Scoring, exit_code: int, tail: str) -> Ending:
    exception = last_exception(tail)
    if exception is not None and (exception.startswith(OUT_OF_MEMORY) or CPU_OUT_OF_MEMORY.match(exception)):
        return Ending("oom", _sentence(exception))
    if scoring.kind == "pass":
        return Ending("scored", score=0.0)
    last = next((line for line in reversed(tail.split("\n")) if line.strip()), "")
    if exit_code == 1 and exception is None and DIVERGED.fullmatch(last.strip()):
        return Ending("diverged", "the loss was NaN or exploded: the program printed FAIL and ended")
    told = exception or last
    return Ending("crash", _sentence(f"exit code {exit_code}: {told}" if told else f"exit code {exit_code}, no output"))


def _sentence(text: str) -> str:
    return clean(text, WHY_MAX).strip()
