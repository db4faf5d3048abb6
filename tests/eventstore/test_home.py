"""Where a workspace keeps things, and that one loop at a time serves it."""

from __future__ import annotations

import fcntl
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eventstore.errors import Held, NoWorkspace
from eventstore.home import Home

HOLDER = """
import sys
from pathlib import Path
from eventstore.home import Home
with Home(Path(sys.argv[1])).hold():
    print("held", flush=True)
    sys.stdin.readline()
print("released", flush=True)
"""


def test_every_path_is_below_the_workspace(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert home.state == tmp_path / ".nightshift"
    assert home.settings_path == tmp_path / "nightshift.toml"
    assert home.log_path == tmp_path / ".nightshift/events.db"
    assert home.bells == tmp_path / ".nightshift/bells"
    assert home.lock_path() == tmp_path / ".nightshift/loop.lock"
    assert home.lock_path("bot") == tmp_path / ".nightshift/bot.lock"
    assert home.results_path("nov21") == tmp_path / ".nightshift/runs/nov21/results.tsv"
    assert home.run_dir("nov21", 3, 1, 0) == tmp_path / ".nightshift/runs/nov21/3/1.0"
    assert home.work_dir("nov21", 3, 1, 2) == tmp_path / ".nightshift/work/nov21/3/1.2"
    assert home.proposal_dir("nov21", 3, 1) == tmp_path / ".nightshift/proposals/nov21/3/1"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mark", ["nightshift.toml", ".nightshift"])
def test_a_workspace_is_found_from_any_folder_in_it(tmp_path: Path, mark: str) -> None:
    root = tmp_path / "work"
    deep = root / "src" / "deep"
    deep.mkdir(parents=True)
    (root / mark).mkdir() if mark == ".nightshift" else (root / mark).touch()
    assert Home.find(deep) == Home.find(root) == Home(root.resolve())


def test_the_nearest_workspace_is_the_one(tmp_path: Path) -> None:
    (tmp_path / "nightshift.toml").touch()
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "nightshift.toml").touch()
    assert Home.find(inner).root == inner.resolve()


def test_outside_a_workspace_the_error_says_how_to_make_one() -> None:
    with pytest.raises(NoWorkspace, match="`nightshift init`"):
        Home.find(Path("/"))  # a temporary folder may lie in somebody's workspace


def test_the_mark_names_the_folder_whatever_the_way_to_it(tmp_path: Path) -> None:
    root = tmp_path / "work"
    root.mkdir()
    (tmp_path / "link").symlink_to(root)
    assert Home(root).mark_id == Home(tmp_path / "link").mark_id == Home(root / ".." / "work").mark_id
    assert Home(root).mark_id != Home(tmp_path).mark_id
    assert len(Home(root).mark_id) == 16
    assert int(Home(root).mark_id, 16) >= 0


def test_nobody_serves_a_new_workspace(tmp_path: Path) -> None:
    assert Home(tmp_path).holder() is None
    assert list(tmp_path.iterdir()) == []


def test_whoever_holds_the_workspace_is_named(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with home.hold():
        assert home.holder() == f"pid {os.getpid()} on {socket.gethostname()}"
    assert home.holder() is None


def test_a_second_loop_is_turned_away_by_name(child: Callable[..., Any], tmp_path: Path) -> None:
    home = Home(tmp_path)
    process = child(HOLDER, tmp_path)
    assert process.stdout.readline() == "held\n"
    assert home.holder() == f"pid {process.pid} on {socket.gethostname()}"
    with pytest.raises(Held, match=f"pid {process.pid} on") as caught, home.hold(retry_s=0.05):
        pass
    assert caught.value.holder == home.holder()  # the refused one did not write itself in
    process.stdin.write("end\n")
    process.stdin.flush()
    assert process.stdout.readline() == "released\n"
    with home.hold():
        assert home.holder() == f"pid {os.getpid()} on {socket.gethostname()}"


def test_a_loop_and_a_bot_serve_it_side_by_side_and_a_second_bot_is_turned_away(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with home.hold("bot"):
        assert home.holder() is None
        with home.hold("loop"):
            assert home.holder("bot") == home.holder("loop") == f"pid {os.getpid()} on {socket.gethostname()}"
        with pytest.raises(Held, match=r"another bot already serves this workspace \(pid"), home.hold("bot", retry_s=0):
            pass
    assert home.holder("bot") is None


def test_a_killed_loop_holds_nothing(child: Callable[..., Any], tmp_path: Path) -> None:
    process = child(HOLDER, tmp_path)
    assert process.stdout.readline() == "held\n"
    process.kill()
    process.wait()
    assert Home(tmp_path).holder() is None
    with Home(tmp_path).hold(retry_s=0):
        pass


def test_the_lock_is_given_back_after_an_error(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with pytest.raises(ZeroDivisionError), home.hold():
        _ = 1 / 0
    assert home.holder() is None


def test_a_loop_waits_a_moment_for_one_that_is_ending(tmp_path: Path) -> None:
    home = Home(tmp_path)
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with home.hold():
            held.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    threading.Timer(0.1, release.set).start()
    with home.hold(retry_s=5):
        pass
    thread.join()


def test_asking_who_holds_it_all_the_time_does_not_keep_a_loop_out(tmp_path: Path) -> None:
    home, stop = Home(tmp_path), threading.Event()

    def ask() -> None:
        while not stop.is_set():
            home.holder()
            time.sleep(0.0005)

    home.state.mkdir()
    home.lock_path().touch()
    askers = [threading.Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    try:
        for _ in range(20):
            with home.hold():
                pass
    finally:
        stop.set()
        for asker in askers:
            asker.join()


def test_two_who_ask_at_once_do_not_take_each_other_for_a_loop(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.state.mkdir()
    with home.lock_path().open("w") as asked:
        fcntl.flock(asked, fcntl.LOCK_SH)  # as the other one has it at this moment
        assert home.holder() is None


def test_a_started_program_does_not_inherit_the_lock(child: Callable[..., Any], tmp_path: Path) -> None:
    home = Home(tmp_path)
    with home.hold():
        process = child("import sys; print('up', flush=True); sys.stdin.readline()")
        assert process.stdout.readline() == "up\n"
    assert home.holder() is None
