"""What a machine does to a night: each fault ends in the state of an undisturbed night, or is told in one sentence."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from rich.console import Console

from eventstore import events as e
from eventstore.driver import sqlite3
from eventstore.home import Home
from eventstore.maintenance import backup as make_backup
from eventstore.store import Store
from eventstore.witness import read_witness, write_witness
from loop.compose import serve as serve_here
from tests.loop.story import git
from tests.night.loops import ask, facts, loop, nightshift, paused_why, serve, slow_git, wait_for, wait_for_fact
from tests.night.story import NIGHT_REQUEST, Ended, differences, ended, left_processes, make_workspace

BRANCH = "refs/heads/autoresearch/night"
ADDED = ("run.paused", "run.resumed", "run.resume_requested", "trouble.noticed", "trouble.cleared")
"""What a fault may add besides what a restart adds."""


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose trainings take a little while."""
    return make_workspace(tmp_path_factory.mktemp("fresh") / "workspace", NIGHT_REQUEST, nap_s=0.3)


@pytest.fixture(scope="session")
def whole(fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after a night without a fault."""
    folder = shutil.copytree(fresh, tmp_path_factory.mktemp("whole") / "workspace", symlinks=True)
    code, said = serve(folder)
    assert code == 0, said
    return folder


@pytest.fixture(scope="session")
def reference(whole: Path) -> Ended:
    found = ended(whole)
    assert [row[:3] for row in found.verdicts] == [
        ("night", 0, "keep"), ("night", 1, "keep"), ("night", 2, "discard"), ("night", 3, "discard"),
        ("night", 4, "keep"),
    ]  # fmt: skip
    return found


@pytest.fixture
def workspace(fresh: Path, tmp_path: Path) -> Path:
    return shutil.copytree(fresh, tmp_path / "workspace", symlinks=True)


def same(reference: Ended, folder: Path) -> list[str]:
    return [problem for problem in differences(reference, ended(folder)) if not problem.endswith(ADDED)]


def ends_well(reference: Ended, folder: Path) -> None:
    code, said = serve(folder)
    assert code == 0, said
    assert same(reference, folder) == []


def is_one_sentence(said: str) -> bool:
    """An error as people should see it: one line, and no traceback."""
    lines = [line for line in said.splitlines() if line.startswith("Error:")]
    return len(lines) == 1 and "Traceback" not in said


# ---------------------------------------------------------------- git


def test_locks_that_a_dead_git_left_are_removed_at_the_start(workspace: Path, reference: Ended) -> None:
    """Those of the run's own refs; what belongs to the person's checkout stays and is in nobody's way."""
    with loop(workspace) as process:
        wait_for_fact(workspace, e.ExperimentPrepared, 1)
        process.send_signal(signal.SIGKILL)
        process.wait()
    lock = workspace / ".git" / f"{BRANCH}.lock"
    kept = workspace / ".git" / "refs" / "nightshift" / "night" / "1" / "0.lock"
    kept.parent.mkdir(parents=True, exist_ok=True)
    persons = [workspace / ".git" / "index.lock", workspace / ".git" / "HEAD.lock"]
    for path in (lock, kept, *persons):
        path.touch()
    code, said = serve(workspace)
    assert code == 0
    assert not lock.exists() and not kept.exists()
    assert said.count("a lock that a dead git command left behind") == 2
    for path in persons:
        path.unlink()  # it was left alone
    assert same(reference, workspace) == []


def test_a_lock_that_someone_holds_pauses_the_run_with_its_name(workspace: Path, reference: Ended) -> None:
    with loop(workspace) as process:
        wait_for_fact(workspace, e.TrainingStarted, 1)
        lock = workspace / ".git" / f"{BRANCH}.lock"
        lock.touch()
        assert f"{BRANCH}.lock" in paused_why(workspace)
        lock.unlink()
        ask(workspace, "resume")
        assert process.wait(60) == 0
    assert same(reference, workspace) == []


def test_a_loop_that_nobody_looks_after_ends_at_a_pause_and_the_next_one_goes_on(
    workspace: Path, reference: Ended
) -> None:
    """As the demo's: nobody is there to resume it."""
    lock = workspace / ".git" / f"{BRANCH}.lock"
    home = Home(workspace)
    with home.hold(), ThreadPoolExecutor(1) as pool:

        def hold_the_branch() -> None:
            wait_for_fact(workspace, e.TrainingStarted, 1)
            lock.touch()

        locked = pool.submit(hold_the_branch)
        served = serve_here(home, until_idle=True, until_held=True, out=Console(quiet=True))
        assert asyncio.run(asyncio.wait_for(served, 60)) == 0
        locked.result()
    lock.unlink()
    assert isinstance(facts(workspace)[-1], e.LoopStopped)
    ask(workspace, "resume")
    ends_well(reference, workspace)


@pytest.mark.parametrize("word", ["update-ref", "read-tree", "commit-tree"])
def test_a_git_command_does_not_outlive_its_loop_into_the_next_one(
    workspace: Path, tmp_path: Path, reference: Ended, word: str
) -> None:
    slow = tmp_path / "slow"
    with loop(workspace, slow_git(slow, word, 30)) as process:
        wait_for(f"git {word}", (slow / "began").exists)
        process.kill()
    assert left_processes(workspace) or left_processes(slow), "the command goes on by itself"
    (slow / "slow").unlink()
    code, said = serve(workspace)
    assert code == 0 and "processes that an earlier loop left behind" in said
    assert not left_processes(slow)
    assert same(reference, workspace) == []


def test_a_loop_told_to_end_during_a_commit_ends_within_five_seconds(
    workspace: Path, tmp_path: Path, reference: Ended
) -> None:
    slow = tmp_path / "slow"
    with loop(workspace, slow_git(slow, "commit-tree", 1)) as process:
        wait_for("git commit-tree", (slow / "began").exists)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        took_s = time.monotonic() - began
    assert took_s < 5
    assert isinstance(facts(workspace)[-1], e.LoopStopped)
    ends_well(reference, workspace)


def test_a_branch_moved_by_hand_pauses_the_run_and_is_put_back_as_told(workspace: Path, reference: Ended) -> None:
    with loop(workspace) as process:
        wait_for_fact(workspace, e.TrainingStarted, 1)
        other = git(workspace, "commit-tree", "HEAD^{tree}", "-m", "mine").strip()
        git(workspace, "update-ref", BRANCH, other)
        why = paused_why(workspace)
        assert "someone moved the branch autoresearch/night" in why
        words = why.partition("`git ")[2].partition("`")[0].split()
        assert words[0] == "update-ref"
        git(workspace, *words)
        ask(workspace, "resume")
        assert process.wait(60) == 0
    assert same(reference, workspace) == []


# ---------------------------------------------------------------- time and folders


def test_a_loop_that_was_suspended_believes_a_training_that_ended_in_time(tmp_path: Path) -> None:
    """Its time limit passed while nobody looked, but it had ended before."""
    workspace = make_workspace(tmp_path / "workspace", NIGHT_REQUEST, nap_s=0.5)
    settings = workspace / "nightshift.toml"
    settings.write_text(settings.read_text().replace("timeout_s = 20", "timeout_s = 2", 1))
    git(workspace, "commit", "-qam", "a short limit")
    with loop(workspace) as process:
        for experiment in (0, 1):
            wait_for_fact(workspace, e.TrainingStarted, experiment)
            process.send_signal(signal.SIGSTOP)
            time.sleep(2.5)
            process.send_signal(signal.SIGCONT)
        assert process.wait(60) == 0
    outcomes = [x.outcome for x in facts(workspace) if isinstance(x, e.TrainingFinished)]
    assert "timeout" not in outcomes and outcomes.count("scored") == 5


def test_an_experiment_whose_work_folder_is_deleted_by_hand_is_run_again(workspace: Path, reference: Ended) -> None:
    """It did not fail by itself. Where it got to its end all the same, its artifacts are missing."""
    with loop(workspace) as process:
        for experiment in (0, 2):
            wait_for_fact(workspace, e.TrainingStarted, experiment)
            shutil.rmtree(workspace / ".nightshift" / "work", ignore_errors=True)
        assert process.wait(60) == 0
    assert [problem for problem in same(reference, workspace) if not problem.startswith("files: []")] == []


def test_run_folders_deleted_by_hand_pause_the_run_at_most(workspace: Path, reference: Ended) -> None:
    with loop(workspace) as process:
        wait_for_fact(workspace, e.TrainingStarted, 1)
        shutil.rmtree(workspace / ".nightshift" / "runs")
        assert "result.json" in paused_why(workspace)
        ask(workspace, "resume")
        assert process.wait(60) == 0
    found = ended(workspace)
    assert (found.verdicts, found.tables, found.trees) == (reference.verdicts, reference.tables, reference.trees)


def test_a_training_killed_by_the_system_is_a_crash_and_the_night_goes_on(workspace: Path, reference: Ended) -> None:
    """As the kernel does it where memory runs out; nothing of it is left."""
    with loop(workspace) as process:
        wait_for_fact(workspace, e.TrainingStarted, 2)
        child = next(x.pid for x in facts(workspace) if isinstance(x, e.TrainingStarted) and x.experiment == 2)
        os.kill(child, signal.SIGKILL)
        assert process.wait(60) == 0
    found = ended(workspace)
    assert [row[1:3] for row in found.verdicts] == [(0, "keep"), (1, "keep"), (2, "crash"), (3, "discard"), (4, "keep")]
    assert (found.moves, found.processes) == (reference.moves, [])


# ---------------------------------------------------------------- the log


def older_copy(workspace: Path, folder: Path) -> Path:
    """A backup made early in the night; the night goes on behind it, and is cut off. Returns the backup."""
    backup = folder / "older.db"
    with loop(workspace) as process:
        wait_for_fact(workspace, e.ExperimentDecided, 1)
        make_backup(Home(workspace).log_path, backup)
        wait_for_fact(workspace, e.ExperimentDecided, 3)
        process.kill()
    wait_for("the end of its git command", lambda: not left_processes(workspace))
    return backup


def put_in_place(copy: Path, log: Path) -> None:
    """Put a log with what belongs to it, as far as it is there, in the place of another."""
    for end in ("", "-wal", "-shm", ".witness"):
        log.with_name(log.name + end).unlink(missing_ok=True)
        if (part := copy.with_name(copy.name + end)).exists():
            shutil.copy(part, log.with_name(log.name + end))


@pytest.mark.parametrize("who", ["witness", "commits"])
def test_an_older_log_put_in_place_is_noticed_at_the_start(
    workspace: Path, tmp_path: Path, reference: Ended, who: str
) -> None:
    """By the witness; and where an older one of that was put there too, by the trailers of commits."""
    backup = older_copy(workspace, tmp_path)
    log = Home(workspace).log_path
    newer = shutil.copytree(log.parent, tmp_path / "newer", ignore=shutil.ignore_patterns("bells")) / log.name
    witness = read_witness(log)
    put_in_place(backup, log)
    with Store.open(log) as store:
        older = store.head()
    if who == "witness" and witness is not None:
        write_witness(log, witness)
    refs = git(workspace, "for-each-ref")
    code, said = serve(workspace)
    assert code == 1 and is_one_sentence(said), said
    assert ("the log was cut" if who == "witness" else "commits name events that are not in it") in said
    assert git(workspace, "for-each-ref") == refs
    with closing(sqlite3.connect(log)) as db:
        assert db.execute("SELECT max(position) FROM events").fetchone() == (older.position,), "nothing was added"
    put_in_place(newer, log)
    ends_well(reference, workspace)


@pytest.mark.parametrize("how", ["moved away", "replaced", "written over"])
def test_a_log_taken_from_under_a_loop_ends_it(workspace: Path, tmp_path: Path, reference: Ended, how: str) -> None:
    backup = tmp_path / "older.db"
    log = Home(workspace).log_path
    aside = log.with_name("mine.db")
    with loop(workspace) as process:
        wait_for_fact(workspace, e.ExperimentDecided, 0)
        make_backup(log, backup)
        wait_for_fact(workspace, e.TrainingStarted, 1)
        shutil.copy(log, tmp_path / "before.db")
        if how == "written over":
            log.write_bytes(backup.read_bytes())
        else:
            log.rename(aside)
            if how == "replaced":
                shutil.copy(backup, log)
        said, _ = process.communicate(timeout=60)
    if how == "written over":  # the WAL still has what is newer, or what was lost is told
        code, said = serve(workspace)
        assert (code == 0 and same(reference, workspace) == []) or is_one_sentence(said), said
        return
    assert process.returncode == 1 and is_one_sentence(said), said
    assert "was moved, removed or replaced while it was open" in said
    assert not left_processes(workspace)
    log.unlink(missing_ok=True)
    aside.rename(log)
    ends_well(reference, workspace)


def test_a_bit_flipped_in_the_log_stops_the_next_loop_at_its_row(whole: Path, tmp_path: Path) -> None:
    workspace = shutil.copytree(whole, tmp_path / "workspace", symlinks=True)
    log = Home(workspace).log_path
    data = bytearray(log.read_bytes())
    at = data.index(b"better by 1")
    data[at] ^= 1
    log.write_bytes(data)
    code, said = serve(workspace)
    assert code == 1 and is_one_sentence(said), said
    assert "the log does not hold at position" in said and "restore a backup" in said
    assert log.read_bytes()[at] == data[at] and len(log.read_bytes()) == len(data)


def test_a_bit_flipped_in_the_wal_is_told_by_the_witness(workspace: Path) -> None:
    with loop(workspace) as process:
        wait_for_fact(workspace, e.ExperimentDecided, 1)
        process.kill()
    log = Home(workspace).log_path
    wal = log.with_name("events.db-wal")
    data = bytearray(wal.read_bytes())
    data[len(data) // 3] ^= 1
    wal.write_bytes(data)
    log.with_name("events.db-shm").unlink(missing_ok=True)
    assert read_witness(log) is not None
    code, said = serve(workspace)
    assert code == 1 and is_one_sentence(said), said
    assert "the log was cut" in said


def test_status_says_so_too(whole: Path, tmp_path: Path) -> None:
    """A person who looks instead of starting a loop."""
    workspace = shutil.copytree(whole, tmp_path / "workspace", symlinks=True)
    log = Home(workspace).log_path
    data = bytearray(log.read_bytes())
    data[data.index(b"better by 1")] ^= 1
    log.write_bytes(data)
    done = subprocess.run(nightshift(workspace, "log", "verify"), capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "does not hold at position" in done.stdout + done.stderr
