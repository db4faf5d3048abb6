"""A program of ours beside us: its lines, its end, and what becomes of it when we are gone."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from trainer.errors import CannotStart
from trainer.service import LINE_MAX, Service

ENV = {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1"}


def start(code: str, lines: list[str], folder: Path, env: dict[str, str] = ENV) -> Service:
    return Service((sys.executable, "-c", code), cwd=folder, env=env, on_line=lines.append)


async def said(lines: list[str], text: str) -> None:
    async with asyncio.timeout(60):
        while text not in lines:  # noqa: ASYNC110 - the lines come from another process
            await asyncio.sleep(0.01)


async def test_both_outputs_come_line_by_line_and_the_last_line_needs_no_end(tmp_path: Path) -> None:
    lines: list[str] = []
    code = (
        "import sys; print('one'); print('two', file=sys.stderr); sys.stdout.buffer.write(b'\\xff three'); sys.exit(3)"
    )
    assert await start(code, lines, tmp_path).wait() == 3
    assert lines == ["one", "two", "\ufffd three"]


@pytest.mark.parametrize("pause_s", [0, 0.2])
async def test_a_long_line_comes_in_pieces_whether_its_end_has_come_or_not(tmp_path: Path, pause_s: float) -> None:
    lines: list[str] = []
    code = f"import time; print('x' * {3 * LINE_MAX + 5}, end='', flush=True); time.sleep({pause_s}); print('y\\nz')"
    assert await start(code, lines, tmp_path).wait() == 0
    assert [len(line) for line in lines] == [LINE_MAX, LINE_MAX, LINE_MAX, 6, 1]
    assert "".join(lines) == "x" * (3 * LINE_MAX + 5) + "yz"


async def test_it_sees_the_environment_it_is_given_and_no_other(tmp_path: Path) -> None:
    lines: list[str] = []
    code = "import os; print(sorted(name for name in os.environ if name.startswith('SEEN')), os.getcwd())"
    await start(code, lines, tmp_path, {**ENV, "SEEN_TOKEN": "x"}).wait()
    assert lines == [f"['SEEN_TOKEN'] {tmp_path}"]


async def test_it_is_asked_to_end_and_puts_its_things_in_order(tmp_path: Path) -> None:
    lines: list[str] = []
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('in order'), sys.exit(0)))\n"
        "print('ready'); time.sleep(60)"
    )
    service = start(code, lines, tmp_path)
    await said(lines, "ready")
    assert await service.end(grace_s=10) == 0
    assert lines == ["ready", "in order"]


async def test_one_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    lines: list[str] = []
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready'); time.sleep(60)"
    service = start(code, lines, tmp_path)
    await said(lines, "ready")
    assert await service.end(grace_s=0.1) == -signal.SIGKILL


async def test_a_program_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="cannot start '/no/such/program'"):
        Service(("/no/such/program",), cwd=tmp_path, env=ENV, on_line=print)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the signal at our death is Linux's")
def test_it_is_asked_to_end_when_we_are_killed(tmp_path: Path) -> None:
    mark = tmp_path / "ended"
    child = (
        "import pathlib, signal, sys, time\n"
        f"signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path({str(mark)!r}).touch(), sys.exit(0)))\n"
        "print('ready'); time.sleep(60)"
    )
    parent = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom trainer.service import Service\n"
        "async def main():\n"
        f"    argv = (sys.executable, '-c', {child!r})\n"
        f"    s = Service(argv, cwd=Path('.'), env={ENV!r}, on_line=lambda t: print(s.pid))\n"
        "    await s.wait()\n"
        "asyncio.run(main())"
    )
    process = subprocess.Popen((sys.executable, "-c", parent), stdout=subprocess.PIPE, env={**os.environ, **ENV})
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    service = psutil.Process(pid)
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 10
    while not mark.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert mark.exists()
    psutil.wait_procs([service], timeout=5)
