"""Make a workspace from the files that ship with Nightshift: train.py, prepare.py, program.md, nightshift.toml."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eventstore.events import SetConstants
from loop import edits, profiles
from loop.errors import WorkspaceError
from loop.workspace import Workspace

FILES = ("train.py", "prepare.py", "program.md")
SETTINGS = "nightshift.toml"
IGNORED = ".nightshift/\n__pycache__/\nresults.tsv\nprogress.png\n"


@dataclass(frozen=True, slots=True)
class Made:
    """What was written, and the commit it went into, or None in a repository that was there before."""

    written: tuple[str, ...]
    committed: str | None


def make_workspace(folder: Path, profile: str) -> Made:
    """
    Make *folder* a workspace. All files are written or none.

    Raises:
        WorkspaceError: If a file to be written is there already, or git cannot make a repository.
    """
    texts = workspace_files(profile)
    fresh = not (folder / ".git").exists()
    taken = sorted(name for name in texts if (folder / name).exists())
    if taken:
        raise WorkspaceError(
            "file_exists",
            f"{folder.resolve() / taken[0]} exists and would be overwritten: choose an empty folder, "
            "or move the file away",
        )
    if fresh:
        texts = {**texts, **({} if (folder / ".gitignore").exists() else {".gitignore": IGNORED})}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    if not fresh:
        return Made(tuple(texts), None)
    workspace = Workspace.create(folder, sorted(texts), "A Nightshift workspace")
    return Made(tuple(texts), workspace.resolve("HEAD"))


def workspace_files(profile: str) -> dict[str, str]:
    """The text of each file of a workspace, with the profile's constants set."""
    chosen = profiles.PROFILES[profile]
    source = Path(__file__).parent / "template"
    if not source.is_dir():  # a checkout: the files stand at its root, the wheel has a copy
        source = Path(__file__).parents[1]
    texts = {name: (source / name).read_text(encoding="utf-8") for name in FILES}
    sets = [SetConstants(path, values) for path, values in chosen.constants.items() if values]
    changed = edits.apply(sets, texts, editable=FILES) if sets else {}
    return {**texts, **changed, SETTINGS: chosen.settings}
