"""Whose processes are found and killed, and whose are not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import psutil
import pytest

from trainer.marks import Tree, find_marked, is_alive, kill_marked


@pytest.fixture
def sleeper() -> Iterator[Callable[[str], int]]:
    """Starts a process with a mark and gives its pid; all are gone after the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(mark: str) -> int:
        started.append(subprocess.Popen(["sleep", "60"], env={**os.environ, "NIGHTSHIFT_MARK": mark}))
        return started[-1].pid

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_prefix_names_whole_parts_of_a_mark(workspace_id: str, sleeper: Callable[[str], int]) -> None:
    first = sleeper(f"{workspace_id}/nov21/1/a")
    second = sleeper(f"{workspace_id}/nov21/1/ab")
    tenth = sleeper(f"{workspace_id}/nov21/10/c")
    other = sleeper(f"{workspace_id}x/nov21/1/a")
    assert find_marked(f"{workspace_id}/nov21/1/a") == [first]
    assert find_marked(f"{workspace_id}/nov21/1") == sorted([first, second])
    assert find_marked(workspace_id) == sorted([first, second, tenth])
    assert kill_marked(workspace_id) == sorted([first, second, tenth])
    assert find_marked(workspace_id) == []
    assert find_marked(f"{workspace_id}x") == [other]


def test_nothing_to_kill_is_fine(workspace_id: str) -> None:
    assert kill_marked(workspace_id) == []


def test_it_never_kills_itself(workspace_id: str) -> None:
    """A loop started inside a marked process, an agent's say, survives its own first act."""
    code = "import sys; from trainer.marks import kill_marked; print(kill_marked(sys.argv[1]), 'alive')"
    environ = {**os.environ, "NIGHTSHIFT_MARK": f"{workspace_id}/nov21/1/a", "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, "-c", code, workspace_id], env=environ, capture_output=True, text=True, check=True
    )
    assert ended.stdout == "[] alive\n"


def test_a_process_that_ended_and_waits_to_be_collected_is_not_alive() -> None:
    child = subprocess.Popen(["true"])
    process = psutil.Process(child.pid)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(process)
    child.wait()
    assert not is_alive(process)


def test_a_tree_holds_the_memory_of_all_its_processes(workspace_id: str) -> None:
    hog = "x = bytearray(2**25); print('ready', flush=True); input()"
    code = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {hog!r}])\n{hog}\np.wait()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert [child.stdout.readline(), child.stdout.readline()] == [b"ready\n"] * 2
        tree = Tree(psutil.Process(child.pid), f"{workspace_id}/nov21/1/a")
        assert 2**26 < tree.resident_bytes() < 2**28
        assert len(tree.living()) == 1
        child.kill()
    for orphan in tree.living():
        orphan.kill()
