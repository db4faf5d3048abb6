"""What the sandbox adds: to a start, to importing torch, to a training; and what watching its limits takes.

    python benchmarks/bench_sandbox.py [--starts 40] [--imports 3]

Each figure is the median of turns in which no sandbox, bubblewrap and landlock alone take their place one after the
other, so that the load of others falls on all alike. Starts are of the trainer's own `run_command`: from the call to
the result, with the burial of what may be left. Nothing of it needs a GPU.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import psutil

from trainer import marks
from trainer.process import machine, run_command
from trainer.sandbox.plan import Limits, Machine, View, words
from trainer.sandbox.watch import Watch
from trainer.spec import CommandSpec

TORCH = """\
import json, time
began = time.perf_counter()
import torch
imported = time.perf_counter() - began
torch.set_num_threads(1)
a = torch.randn(384, 384)
steps, began = 0, time.perf_counter()
while time.perf_counter() - began < 1.0:
    for _ in range(20):
        a = torch.nn.functional.layer_norm(a @ a, (384,))
    steps += 20
print(json.dumps([imported, steps / (time.perf_counter() - began)]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--starts", type=int, default=40)
    parser.add_argument("--imports", type=int, default=3)
    options = parser.parse_args()
    began = time.perf_counter()
    here = machine()
    found_s = time.perf_counter() - began
    print(f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, load {os.getloadavg()[0]:.1f}")
    print(f"found in {1e3 * found_s:.0f} ms, once for each loop: {words('best', here)}\n")
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(Path(folder), here, options.starts, options.imports))
        print(f"\none look at the limits: {1e6 * look_s(Path(folder), here):.0f} us, ten in a second")


async def measure(folder: Path, here: Machine, starts: int, imports: int) -> None:
    ways: dict[str, tuple[View | None, Machine]] = {"no sandbox": (None, here)}
    if here.bwrap:
        ways["bubblewrap"] = (View(), here)
    if here.landlock:
        ways["landlock alone"] = (View(), replace(here, bwrap=""))

    async def run(way: str, *command: str) -> tuple[float, str]:
        view, machine_ = ways[way]
        spec = CommandSpec(command=command, workdir=folder, mark="bench/sandbox/0/x", timeout_s=120, view=view)
        began = time.perf_counter()
        ended = await run_command(spec, here=machine_)
        assert ended.exit_code == 0, ended
        return time.perf_counter() - began, ended.tail

    async def turns(count: int, *command: str) -> dict[str, list[tuple[float, str]]]:
        found: dict[str, list[tuple[float, str]]] = {way: [] for way in ways}
        for turn in range(count):
            for step in range(len(ways)):
                way = list(ways)[(turn + step) % len(ways)]
                found[way].append(await run(way, *command))
        return found

    for what, command in (
        ("start and end `true`", ("true",)),
        ("the same, `python -c pass`", ("python", "-c", "pass")),
    ):
        show(what, {way: median(s for s, _ in got) for way, got in (await turns(starts, *command)).items()}, ms)
    if imports and importlib.util.find_spec("torch"):
        got = {
            way: [json.loads(tail) for _, tail in each]
            for way, each in (await turns(imports, "python", "-c", TORCH)).items()
        }
        show("import torch", {way: median(imported for imported, _ in each) for way, each in got.items()}, ms)
        show("steps in a second, 1 thread", {way: median(rate for _, rate in each) for way, each in got.items()}, rate_)


def show(what: str, found: dict[str, float], unit: Callable[[float, float], str]) -> None:
    base = found["no sandbox"]
    print(f"{what:30}" + "".join(f"  {way} {unit(value, base):26}" for way, value in found.items()), flush=True)


def ms(value: float, base: float) -> str:
    return f"{1e3 * value:.1f} ms" + (f" ({1e3 * (value - base):+.1f})" if value != base else "")


def rate_(value: float, base: float) -> str:
    return f"{value:.0f}" + (f" ({100 * (value / base - 1):+.1f} %)" if value != base else "")


def look_s(folder: Path, here: Machine) -> float:
    watch = Watch(marks.Tree(psutil.Process(), "bench/sandbox/0/x"), folder, Limits(), here)
    began = time.perf_counter()
    for _ in range(200):
        watch.look()
    return (time.perf_counter() - began) / 200


if __name__ == "__main__":
    main()
