"""`nightshift up`: keep the loop and the bot running beside each other, and start again whichever dies.

Guaranteed: a program that dies is started again, after a pause that grows while it dies young; asked to end, both are
told with the same signal and waited for, and no third one is started; neither sees the other's secrets.

What to do after a death is a pure function; the rest starts, waits and passes on.
"""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from trainer.errors import CannotStart
from trainer.service import Service
from trainer.spec import SECRET

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
WELL_S = 60.0
"""One that lived this long was well: the next pause is the first one again."""
GRACE_S = 75.0
"""How long a program may take to put its things in order; systemd's own patience is 90 s."""
SLACK = re.compile(r"SLACK_.*", re.IGNORECASE)


# ---------------------------------------------------------------- what to do


@dataclass(frozen=True, slots=True)
class Again:
    """Start it again after *pause_s*; *deaths* is how often in a row it has died young."""

    deaths: int
    pause_s: float


def after_death(deaths: int, lived_s: float) -> Again:
    """
    What to do about a program that ended without being asked to.

    Args:
        deaths: How often in a row it had died young before.
        lived_s: How long it ran this time.
    """
    if lived_s >= WELL_S:
        return Again(0, FIRST_PAUSE_S)
    return Again(deaths + 1, min(FIRST_PAUSE_S * 2.0 ** min(deaths, 10), LONGEST_PAUSE_S))


def environment_of(name: str, environ: Mapping[str, str]) -> dict[str, str]:
    """
    What the program *name* (`loop` or `bot`) is told of our environment.

    The loop gets everything but what is Slack's, the bot Slack's and otherwise nothing that speaks of a secret.
    """
    if name == "loop":
        return {key: value for key, value in environ.items() if not SLACK.fullmatch(key)}
    return {key: value for key, value in environ.items() if SLACK.fullmatch(key) or not SECRET.fullmatch(key)}


def end_words(name: str, code: int) -> str:
    """How a program ended, for people."""
    if code >= 0:
        return f"{name} ended with exit code {code}"
    try:
        return f"{name} was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"{name} was killed by signal {-code}"


# ---------------------------------------------------------------- doing it


@dataclass(frozen=True, slots=True)
class Program:
    """One of the programs: its name, its words, its whole environment."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)


class Start(Protocol):
    """Starts a program, `trainer.service.Service` unless a test says otherwise."""

    def __call__(
        self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], on_line: Callable[[str], None]
    ) -> Service: ...


@dataclass(slots=True)
class Supervisor:
    """
    Keeps *programs* running in the folder *cwd* until `stop`.

    Attributes:
        say: Gets each line for people: what a program prints, after its name, and what happens to it.
        pause_scale: Makes pauses shorter, for tests.
    """

    programs: Sequence[Program]
    cwd: Path
    say: Callable[[str], None]
    start: Start = Service
    grace_s: float = GRACE_S
    pause_scale: float = 1.0
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _signal: signal.Signals = signal.SIGTERM
    _running: dict[str, Service] = field(default_factory=dict)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Pass *number* on to every program; safe in a signal handler of the event loop. Again: passed on again."""
        if self._stopping.is_set():
            for service in self._running.values():
                service.send(number)
        self._signal = number
        self._stopping.set()  # whoever waits for a program sends it

    async def run(self) -> int:
        """Run until stopped; 0 if every program then ended in good order, or before it had begun anything, else 1."""
        codes = await asyncio.gather(*(self._keep(program) for program in self.programs))
        return 0 if all(code in (0, -self._signal) for code in codes) else 1

    async def _keep(self, program: Program) -> int:
        """Keep one program running; return how it ended once it was to end."""
        deaths = 0
        while not self._stopping.is_set():
            began = asyncio.get_running_loop().time()
            code = await self._run_once(program)
            if self._stopping.is_set():
                self._tell(program, "ended" if code == 0 else end_words("it", code))
                return code
            again = after_death(deaths, asyncio.get_running_loop().time() - began)
            deaths = again.deaths
            self._tell(program, f"{end_words('it', code)}; starting it again in {again.pause_s:g} s")
            await self._pause(again.pause_s * self.pause_scale)
        return 0

    async def _run_once(self, program: Program) -> int:
        try:
            service = self.start(
                program.argv, cwd=self.cwd, env=program.env, on_line=lambda line: self._tell(program, line)
            )
        except CannotStart as error:
            self._tell(program, str(error))
            return 1
        self._running[program.name] = service
        try:
            return await self._until_end(service)
        finally:
            del self._running[program.name]

    async def _until_end(self, service: Service) -> int:
        ended, stopping = asyncio.create_task(service.wait()), asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                return await service.end(self._signal, grace_s=self.grace_s)
            return ended.result()
        finally:
            stopping.cancel()
            ended.cancel()
            await asyncio.gather(ended, stopping, return_exceptions=True)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    def _tell(self, program: Program, line: str) -> None:
        self.say(f"{program.name:<4} | {line}")
