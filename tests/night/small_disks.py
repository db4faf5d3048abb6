"""Nights on a file system of their own that runs full, or becomes read-only.

    python -m tests.night.small_disks full FOLDER KB...     that many kB are left once the run has started
    python -m tests.night.small_disks "read-only all" FOLDER
    python -m tests.night.small_disks "read-only runs" FOLDER

In a mount namespace of its own. Prints one list of faults per night, empty where everything held.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from eventstore import events as e
from tests.night.loops import ask, facts, loop, serve, wait_for_fact
from tests.night.story import NIGHT_REQUEST, Ended, differences, ended, make_workspace

ROOM_KB = 700_000
"""A loop starts no run on a disk with less than half a GB left. A tmpfs takes only what is written to it."""
ADDED = ("run.paused", "run.resumed", "run.resume_requested", "trouble.noticed", "trouble.cleared")


def mount(*options: str) -> None:
    subprocess.run(("mount", *options), check=True)


def shrink(disk: Path, left_kb: int) -> None:
    """Leave so much room on the disk. What is written meanwhile is in the way of it, so it is tried again."""
    for last in (False,) * 50 + (True,):
        used = shutil.disk_usage(disk).used // 1024
        done = subprocess.run(
            ("mount", "-o", f"remount,size={used + left_kb}k", str(disk)), capture_output=True, check=False
        )
        if done.returncode == 0:
            return
        assert not last, done.stderr


def full(disk: Path, fresh: Path, reference: Ended, left_kb: int) -> list[str]:
    folder = shutil.copytree(fresh, disk / "workspace", symlinks=True)
    faults: list[str] = []
    try:
        with loop(folder) as process:
            wait_for_fact(folder, e.TrainingStarted, 0)
            shrink(disk, left_kb)
            said = until_it_stands(process, folder)
            if said is not None and (process.returncode != 1 or said.count("Error:") != 1 or "Traceback" in said):
                faults.append(f"ended with {process.returncode}: {said[-6000:]}")
            mount("-o", f"remount,size={ROOM_KB}k", str(disk))
            if said is None:
                return faults + go_on(folder, reference, process)
        return faults + go_on(folder, reference, None)
    finally:
        mount("-o", f"remount,size={ROOM_KB}k", str(disk))
        shutil.rmtree(folder)


def until_it_stands(process: subprocess.Popen[str], folder: Path) -> str | None:
    """Wait until the loop has ended, and return what it said, or until the run is paused or over."""
    while True:
        try:
            return process.communicate(timeout=0.1)[0]
        except subprocess.TimeoutExpired:
            if any(isinstance(x, e.RunPaused | e.RunFinished) for x in facts(folder)):
                return None


def go_on(folder: Path, reference: Ended, process: subprocess.Popen[str] | None) -> list[str]:
    """With room again: a person resumes what is paused, and the night ends as it would have."""
    if process is None:
        with loop(folder) as another:
            return go_on(folder, reference, another)
    while process.poll() is None:
        log = facts(folder)
        paused = sum(isinstance(x, e.RunPaused) for x in log)
        if paused > sum(isinstance(x, e.RunResumeRequested) for x in log):
            ask(folder, "resume")
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
    if process.returncode == 1:  # the log met the full disk, just before there was room again
        said = process.communicate()[0]
        return go_on(folder, reference, None) if said.count("Error:") == 1 and "Traceback" not in said else [said]
    if process.returncode:
        return [f"with room again it ended with {process.returncode}"]
    return [problem for problem in differences(reference, ended(folder)) if not problem.endswith(ADDED)]


def read_only_all(disk: Path, fresh: Path, reference: Ended) -> list[str]:
    folder = shutil.copytree(fresh, disk / "workspace", symlinks=True)
    mount("-o", "remount,ro", str(disk))
    code, said = serve(folder)
    mount("-o", "remount,rw", str(disk))
    faults = [] if code == 1 and said.count("Error:") == 1 and "Traceback" not in said else [f"{code}: {said}"]
    return faults + go_on(folder, reference, None)


def read_only_runs(disk: Path, fresh: Path, reference: Ended) -> list[str]:
    folder = shutil.copytree(fresh, disk / "workspace", symlinks=True)
    runs = folder / ".nightshift" / "runs"
    with loop(folder) as process:
        wait_for_fact(folder, e.TrainingFinished, 0)
        mount("--bind", str(runs), str(runs))
        mount("-o", "remount,bind,ro", str(runs))
        said = until_it_stands(process, folder)
        mount("-o", "remount,bind,rw", str(runs))
        if said is not None:
            return [f"it ended with {process.returncode}: {said[-6000:]}"]
        faults = [] if any(isinstance(x, e.TroubleNoticed) for x in facts(folder)) else ["no trouble was noticed"]
        faults += go_on(folder, reference, process)
    subprocess.run(("umount", str(runs)), check=True)
    return faults


def main(how: str, folder: Path, words: list[str]) -> list[list[str]]:
    disk = folder / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", f"size={ROOM_KB}k", "tmpfs", str(disk))
    fresh = make_workspace(folder / "fresh", NIGHT_REQUEST)
    whole = shutil.copytree(fresh, disk / "workspace", symlinks=True)
    code, said = serve(whole)
    assert code == 0, said
    reference = ended(whole)
    shutil.rmtree(whole)
    if how == "full":
        return [full(disk, fresh, reference, int(left_kb)) for left_kb in words]
    night = read_only_all if how == "read-only all" else read_only_runs
    return [night(disk, fresh, reference)]


if __name__ == "__main__":
    if os.environ.get("IN_NAMESPACE") != "1":
        os.environ["IN_NAMESPACE"] = "1"
        os.execvp(
            "unshare", ("unshare", "--map-root-user", "--mount", sys.executable, "-m", __spec__.name, *sys.argv[1:])
        )
    _, how_, folder_, *words_ = sys.argv
    print(json.dumps(main(how_, Path(folder_), words_)))
