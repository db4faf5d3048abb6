"""Where trainings run. Pure.

An executor has slots, each one device that one training has to itself. Everything the loop asks of it can be
asked of a process on another host as well: start, look at the progress, wait, stop, how many slots.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from trainer.spec import Result, TrainingSpec
    from trainer.summary import Progress


class Training(Protocol):
    """One training that was started."""

    @property
    def pid(self) -> int: ...

    @property
    def pid_started(self) -> float:
        """When the process started, in seconds since the epoch; names it together with *pid*."""

    @property
    def device(self) -> str: ...

    def progress(self) -> Progress | None:
        """What the training shows now, or None as long as it showed nothing."""

    async def wait(self) -> Result:
        """
        Wait for the end and say how it was, as often as asked. Nothing of the training runs any more then.

        Cancelling this leaves the training alone.

        Raises:
            OutputUnwritable: If the log or the result could not be kept.
            WouldNotDie: If processes of it outlive their kill; the result is kept all the same.
        """

    async def stop(self) -> None:
        """Kill the whole tree at once and return when it is dead; the result is `stopped`. No-op after the end."""


class Executor(Protocol):
    """Starts trainings on its slots."""

    def capacity(self) -> int:
        """How many slots there are; they are numbered from 0."""

    def device(self, slot: int) -> str:
        """Name of the slot's device, such as `cpu` or `cuda:0`. Raises `NoFreeSlot` for a slot there is not."""

    async def start(self, spec: TrainingSpec, slot: int) -> Training:
        """
        Start a training on a slot that is free.

        Raises:
            NoFreeSlot: If there is no such slot, or a training has it.
            CannotStart: If the command, its folder or the score file is not usable; nothing has run.
            OutputUnwritable: If the log cannot be made; nothing has run.
            DataUnusable: If what is to be handed in cannot be read or is not what it was; nothing has run.
        """
