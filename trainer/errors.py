"""Everything that can go wrong around a training, as one small tree.

A training that crashes, hangs or cheats is no error: it is a `Result`. Errors are what the caller must
act on: a spec that makes no sense, a command that is not there, a full disk, a process that will not die.
"""

from __future__ import annotations

from collections.abc import Sequence


class TrainerError(Exception):
    """Base of all errors raised by this package."""


class InvalidSpec(TrainerError):
    """A value of a spec is impossible. *field* is its name."""

    def __init__(self, field: str, problem: str) -> None:
        self.field = field
        self.problem = problem
        super().__init__(f"{field}: {problem}")


class CannotStart(TrainerError):
    """The command did not become a process; nothing of it has run. *why* is one sentence with the remedy."""

    def __init__(self, command: Sequence[str], why: str) -> None:
        self.command = tuple(command)
        self.why = why
        super().__init__(f"cannot start {command[0]!r}: {why}")


class NoFreeSlot(TrainerError):
    """The slot does not exist, or a training has it."""

    def __init__(self, slot: int, why: str) -> None:
        self.slot = slot
        super().__init__(f"slot {slot} {why}")


class OutputUnwritable(TrainerError):
    """The log or the result could not be written, most often because the disk is full. Nothing of it runs."""

    def __init__(self, path: str, why: str) -> None:
        self.path = path
        super().__init__(f"cannot write {path}: {why}; make room or mend the permissions, then train again")


class DataUnusable(TrainerError):
    """A file that is to be handed in cannot be read, or is not what it was. The message is one sentence."""


class CannotScore(TrainerError):
    """The evaluator cannot be used at all, whatever the model. The message is a sentence with the remedy."""


class WouldNotDie(TrainerError):
    """Processes outlived SIGKILL, which only a call stuck inside the kernel or a driver can."""

    def __init__(self, pids: Sequence[int]) -> None:
        self.pids = tuple(pids)
        super().__init__(
            f"processes {', '.join(map(str, pids))} did not die of SIGKILL: they are stuck in the kernel or a driver "
            "and may hold the device; restart the machine, or wait until `ps` no longer shows them"
        )


class NotScripted(TrainerError):
    """The scripted executor has no answer for this training."""

    def __init__(self, experiment: int, attempt: int, trial: int) -> None:
        super().__init__(f"the script has no answer for experiment {experiment}, attempt {attempt}, trial {trial}")
