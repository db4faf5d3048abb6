"""What a training leaves in its work folder, put where it is kept; also what a loop that died left there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from eventstore.home import Home

_TRIAL = re.compile(r"\d+\.\d+")


def keep_artifacts(folder: Path, outdir: Path) -> None:
    """Move what the training left under `artifacts/` beside its log and remove the work folder."""
    artifacts = folder / "artifacts"
    if artifacts.is_dir() and not artifacts.is_symlink() and outdir.is_dir():
        shutil.move(artifacts, outdir / "artifacts")
    shutil.rmtree(folder, ignore_errors=True)


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
