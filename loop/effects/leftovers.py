"""What a training leaves in its work folder, put where it is kept; also what a loop that died left there."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path

from eventstore.home import Home

FULL_BYTES = 2**24
_TRIAL = re.compile(r"\d+\.\d+")


def keep_artifacts(folder: Path, outdir: Path) -> None:
    """Move what the training left under `artifacts/` beside its log and remove the work folder."""
    artifacts = folder / "artifacts"
    if artifacts.is_dir() and not artifacts.is_symlink() and outdir.is_dir():
        shutil.move(artifacts, outdir / "artifacts")
    shutil.rmtree(folder, ignore_errors=True)


def check_room(folder: Path) -> None:
    """
    Raise `OSError` if the disk of a work folder is full, and would be without that folder too.

    A program that failed there did not fail by itself; one that filled the disk did.
    """
    free = shutil.disk_usage(folder).free
    if free < FULL_BYTES and free + sum(_size(path) for path in folder.rglob("*")) < FULL_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def _size(path: Path) -> int:
    try:
        return path.lstat().st_blocks * 512
    except OSError:
        return 0


def put_away(home: Home) -> list[str]:
    """
    Empty the work folders that a dead loop left: artifacts beside their log, all else removed.

    Only for who holds the workspace's lock, before anything of it runs. A training that is taken up again begins in a
    fresh folder, so nothing here is needed.

    Returns:
        A sentence for each folder that cannot be put away.
    """
    problems = []
    for folder in sorted((home.state / "work").glob("*/*/*")):
        if folder.is_symlink() or not folder.is_dir():
            continue
        experiment, tag = folder.parent, folder.parent.parent
        outdir = home.state / "runs" / tag.name / experiment.name / folder.name
        try:
            if _TRIAL.fullmatch(folder.name):
                keep_artifacts(folder, outdir)
            else:  # a guard's, or what a sandbox wrote to
                shutil.rmtree(folder)
        except (OSError, shutil.Error) as error:
            problems.append(f"the folder {folder} of an earlier loop cannot be put away ({error})")
    return problems
