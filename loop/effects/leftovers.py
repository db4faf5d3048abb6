"""What a training leaves in its work folder, put where it is kept; also what a loop that died left there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from eventstore.home import Home

_TRIAL = re.compile(r"\d+\.\d+")
COMPILED = ".compiled"
"""The folder in a work folder in which torch keeps what it has compiled."""

COMPILED_MAX_BYTES = 2 * 2**30


def keep_compiled(folder: Path, target: Path) -> None:
    """
    Keep what the baseline has compiled, in the place of what there was, of other runs too.

    Of the baseline alone: its code is part of every experiment anyway. What any other one leaves would be run by those
    after it, and could carry what it has learned. Not kept is what holds more than plain files and folders, or more
    than `COMPILED_MAX_BYTES`: each experiment then compiles for itself.
    """
    compiled = folder / COMPILED
    if compiled.is_symlink() or not compiled.is_dir():
        return
    shutil.rmtree(target.parent, ignore_errors=True)
    found = list(compiled.rglob("*"))
    is_plain = all(path.is_file() or path.is_dir() for path in found if not path.is_symlink())
    if not is_plain or sum(path.lstat().st_size for path in found) > COMPILED_MAX_BYTES:
        return
    target.parent.mkdir(parents=True)
    shutil.move(compiled, target)


def begin_compiled(folder: Path, kept: Path) -> None:
    """Give a fresh work folder a copy of what was kept."""
    if kept.is_dir():
        shutil.copytree(kept, folder / COMPILED, symlinks=True)


def keep_of_training(home: Home, tag: str, number: str | int, folder: Path, outdir: Path) -> None:
    """Keep of a work folder what is worth it, `artifacts/` beside the log of the training, and remove it."""
    if str(number) == "0":
        keep_compiled(folder, home.compiled_dir(tag))
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
                keep_of_training(home, tag.name, experiment.name, folder, outdir)
            else:  # a guard's, or what a sandbox wrote to
                shutil.rmtree(folder)
        except (OSError, shutil.Error) as error:
            problems.append(f"the folder {folder} of an earlier loop cannot be put away ({error})")
    return problems
