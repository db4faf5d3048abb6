"""The warm evaluator process, and what is said to it: one line there, one line back.

It is a process of ours that never runs a line of the agent's code, in a sandbox of its own all the same: it reads the
harness, the scored rows and what was handed over, has no network and an environment of a few harmless names.

Guaranteed: every request gets an answer, within its time. An evaluator that dies or hangs is killed and started anew;
a model of which it dies twice gets that as its answer. It ends with `close`, and with the loop (in bubblewrap, and on
Linux elsewhere); what a killed loop leaves is found by its mark.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

from trainer.errors import CannotScore, CannotStart
from trainer.evaluator.protocol import Answer, Ready, Request, decode, encode
from trainer.marks import LOOK_AGAIN_S, is_alive, kill
from trainer.sandbox.plan import View
from trainer.service import Service
from trainer.spec import MARK_VARIABLE

READY_TIMEOUT_S = 120.0
"""Importing torch takes 1 to 2 s; from a cold disk, on a busy machine, many times that."""

LATE_S = 20.0
"""An evaluator keeps its time by itself. One that is so much later than that does not."""

END_GRACE_S = 2.0
DEATHS_MAX = 2
WORDS_KEPT = 20
PASSED_ON = ("PATH", "LANG", "LD_LIBRARY_PATH", "TZ")
PASSED_ON_PREFIXES = ("CUDA_", "NVIDIA_", "LC_")

M = TypeVar("M", Ready, Answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """
    What an evaluator works on.

    Attributes:
        harness: Folder of prepare.py, which nobody changes.
        cache: The prepared corpus: the folder of its manifest.
        workdir: An empty folder to stand in; made if missing.
        mark: As in `CommandSpec`.
        view: What it may see; None: all that this user can.
        timeout_s: For one model.
        device: Where models run: `cpu`, `cuda`, or `auto`.
        workers: Processes that score; 0: one for each core.
    """

    harness: Path
    cache: Path
    workdir: Path
    mark: str
    view: View | None
    timeout_s: float
    device: str = "auto"
    workers: int = 0


class _Died(Exception):
    """It ended, or was killed for saying nothing, before it had answered."""


class EvaluatorScorer:
    """
    A `Scorer` with a process.

    Args:
        environ: The environment of which the few names are passed on.
        late_s: How much later than its own limit an answer may come.
    """

    def __init__(self, place: Place, *, environ: Mapping[str, str] | None = None, late_s: float = LATE_S) -> None:
        self.place = place
        self._environ = os.environ if environ is None else environ
        self._late_s = late_s
        self._turn = asyncio.Lock()
        self._process: _Process | None = None
        self._about: Ready | None = None

    @property
    def pid(self) -> int | None:
        """Of the process, where one runs."""
        return self._process.service.pid if self._process is not None else None

    async def ready(self) -> Ready:
        async with self._turn:
            return await self._ready()

    async def score(self, request: Request) -> Answer:
        async with self._turn:
            for _ in range(DEATHS_MAX):
                await self._ready()
                assert self._process is not None
                try:
                    return await self._process.ask(request, self.place.timeout_s + self._late_s)
                except TimeoutError:
                    await self._end()
                    return Answer("timeout", why=f"scoring it took longer than {self.place.timeout_s:g} s")
                except _Died:
                    await self._end()
                except BaseException:  # cut off: its answer would be taken for that to the next request
                    await asyncio.shield(self._end())
                    raise
        return Answer("crash", why=f"the evaluator died of it {DEATHS_MAX} times")

    async def close(self) -> None:
        async with self._turn:
            await self._end()

    async def _ready(self) -> Ready:
        if self._process is not None and self._process.is_alive and self._about is not None:
            return self._about
        await self._end()
        process = self._process = self._start()
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                self._about = await process.next(Ready)
        except (_Died, TimeoutError) as error:
            said = process.last_words or "it said nothing"
            await self._end()
            raise CannotScore(f"the evaluator does not start: {said}") from error
        except BaseException:
            await asyncio.shield(self._end())
            raise
        return self._about

    def _start(self) -> _Process:
        place = self.place
        words = (sys.executable, "-P", "-m", "trainer.evaluator")
        options = {
            "--harness": place.harness,
            "--cache": place.cache,
            "--device": place.device,
            "--workers": place.workers,
            "--timeout-s": place.timeout_s,
        }
        passed = {
            name: value
            for name, value in self._environ.items()
            if name in PASSED_ON or name.startswith(PASSED_ON_PREFIXES)
        }
        env = {**passed, MARK_VARIABLE: place.mark, "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(place.workdir)}
        try:
            place.workdir.mkdir(parents=True, exist_ok=True)
            return _Process((*words, *(str(part) for pair in options.items() for part in pair)), place, env)
        except (CannotStart, OSError) as error:
            raise CannotScore(f"the evaluator cannot be started ({error})") from error

    async def _end(self) -> None:
        process, self._process, self._about = self._process, None, None
        if process is not None:
            await process.end()


class _Process:
    """One evaluator process."""

    def __init__(self, argv: tuple[str, ...], place: Place, env: Mapping[str, str]) -> None:
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self._words: deque[str] = deque(maxlen=WORDS_KEPT)
        read_end, self._requests = os.pipe()
        try:
            self.service = Service(
                argv, cwd=place.workdir, env=env, on_line=self._lines.put_nowait, view=place.view, stdin=read_end
            )
        except BaseException:
            os.close(self._requests)
            raise
        finally:
            os.close(read_end)
        self._ended = asyncio.ensure_future(self.service.wait())
        self._ended.add_done_callback(lambda _: self._lines.put_nowait(None))

    @property
    def is_alive(self) -> bool:
        return not self._ended.done()

    @property
    def last_words(self) -> str:
        """What it said last that was no answer."""
        return next((line for line in reversed(self._words) if line.strip()), "").removeprefix("evaluator: ")

    async def ask(self, request: Request, timeout_s: float) -> Answer:
        """Raises `TimeoutError`, or `_Died` if it ends first."""
        try:
            os.write(self._requests, encode(request))  # a pipe takes a line of that size at once, or breaks
        except OSError as error:
            raise _Died from error
        async with asyncio.timeout(timeout_s):
            return await self.next(Answer)

    async def next(self, kind: type[M]) -> M:
        """The next line that is a message of that kind; anything else is kept as words."""
        while (line := await self._lines.get()) is not None:
            with contextlib.suppress(ValueError):
                return decode(line.encode(), kind)
            self._words.append(line)
        raise _Died

    async def end(self) -> None:
        """Kill it, and return when nothing of it is left that can be seen."""
        os.close(self._requests)
        left: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            left = psutil.Process(self.service.pid).children(recursive=True)
        await self.service.end(signal.SIGKILL, grace_s=END_GRACE_S)
        await asyncio.wait([self._ended])
        ends_at = asyncio.get_running_loop().time() + END_GRACE_S
        while left := [process for process in left if is_alive(process)]:
            if asyncio.get_running_loop().time() > ends_at:
                break  # stuck in the kernel; the mark names it
            kill(left)
            await asyncio.sleep(LOOK_AGAIN_S)
