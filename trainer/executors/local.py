"""Trainings as processes of this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from trainer.errors import NoFreeSlot
from trainer.gate import Data
from trainer.process import Running, start_training
from trainer.sandbox.find import graphics_devices, graphics_files, graphics_name
from trainer.spec import Result, TrainingSpec

CUDA = "cuda:"


class LocalExecutor:
    """
    One slot for each device, one training at a time on each.

    A training on `cuda:N` sees that device alone. Any other name is a label: the program itself chooses. A view gets
    the files of those devices besides.

    Args:
        devices: Names such as `cpu`, `cuda:0`; at least one.
        environ: The environment of which the allowed part is passed on, that of this process by default.
    """

    def __init__(self, devices: Sequence[str] = ("cpu",), *, environ: Mapping[str, str] | None = None) -> None:
        self._devices = tuple(devices)
        self._environ = environ
        self._taken: set[int] = set()
        self._data = Data()

    def capacity(self) -> int:
        return len(self._devices)

    def device(self, slot: int) -> str:
        if not 0 <= slot < len(self._devices):
            raise NoFreeSlot(slot, f"does not exist, there are {len(self._devices)}, numbered from 0")
        return self._devices[slot]

    async def start(self, spec: TrainingSpec, slot: int) -> Running[Result]:
        device = self.device(slot)
        if slot in self._taken:
            raise NoFreeSlot(slot, f"({device}) has a training already; wait for its end")
        number = int(device.removeprefix(CUDA)) if device.startswith(CUDA) else None
        if number is not None:
            # in a sandbox the device may be the only one there is, so its number would be another
            name = str(number) if spec.view is None else graphics_name(number)
            spec = replace(spec, env={**spec.env, "CUDA_VISIBLE_DEVICES": name})
        if spec.view is not None and (devices := graphics_devices(number)):
            read = (*spec.view.read, *graphics_files())
            spec = replace(spec, view=replace(spec.view, devices=devices, read=read))
        self._taken.add(slot)
        try:
            data = await asyncio.to_thread(self._data.hold, spec.seal.data) if spec.seal is not None else []
            training = start_training(spec, device=device, environ=self._environ, data=data)
        except BaseException:
            self._taken.discard(slot)
            raise
        training.when_done(lambda: self._taken.discard(slot))
        return training
