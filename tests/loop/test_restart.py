"""A loop that is killed after any append ends in the same place as one that is not."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest

from eventstore import events as e
from tests.loop.story import ROOT, Ended, ended, make_workspace, serve

RESTART_TABLE = frozenset(
    {
        "loop.started",
        "loop.stopped",  # killed after it has said so: the next loop says it again
        "proposal.failed",
        "proposal.requested",
        "training.requested",
        "training.started",
        "training.finished",
    }
)
"""Types of which a restart may add events."""

NOT_REACHED = {
    "experiment.remeasure_requested": "no rule asks for a second measurement yet",
    "idea.used": "only a remote proposer reads ideas: see test_night_with_claude",
    "idea.declined": "as idea.used",
    "proposer.switched": "only a remote proposer is waited for: see test_night_with_claude",
    "proposer.waiting": "as proposer.switched",
}
"""Types that code of the loop makes and this story does not reach, each with the reason."""


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The story before it begins; every test copies it."""
    return make_workspace(tmp_path_factory.mktemp("night") / "workspace")


def test_the_story_reaches_every_type_that_the_loop_can_append(workspace: Path, tmp_path: Path) -> None:
    """A new kind of event in the loop's code must be added to the story, or named as not reached."""
    folder = shutil.copytree(workspace, tmp_path / "workspace", symlinks=True)
    assert serve(folder) == 0
    reference = ended(folder)
    made = {
        cls.TYPE
        for path in (ROOT / "loop").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if (cls := getattr(e, node.func.attr, None)) is not None and cls in e.CATALOGUE.values()
    }
    missing = made - set(reference.types) - {"run.requested"}
    assert missing == set(NOT_REACHED), f"not reached by the story: {sorted(missing)}"
    assert [row.split("\t")[3] for row in reference.tables["night"].splitlines()[1:]] == [
        "keep", "keep", "discard", "keep", "discard", "discard", "discard", "discard", "keep", "crash", "keep",
    ]  # fmt: skip


def kill_everywhere(workspace: Path, tmp_path: Path, step: int, offset: int) -> None:
    whole = shutil.copytree(workspace, tmp_path / "whole", symlinks=True)
    assert serve(whole) == 0
    reference = ended(whole)
    equal, tried, k = 0, 0, 1 + offset
    while True:
        folder = shutil.copytree(workspace, tmp_path / f"killed-{k}", symlinks=True)
        if serve(folder, kill_after=k) == 0:
            break  # it ended before its k-th append
        assert serve(folder) == 0
        tried += 1
        found = ended(folder)
        problems = differences(reference, found)
        equal += not problems
        assert not problems, f"killed after append {k}: {problems}"
        shutil.rmtree(folder)
        k += step
    print(f"killed after {tried} appends: {equal} of {tried} ended in the same state")
    assert tried > 0


def differences(reference: Ended, found: Ended) -> list[str]:
    out = []
    for name in ("verdicts", "tables", "tips", "refs"):
        there, here = getattr(reference, name), getattr(found, name)
        if there != here:
            out.append(f"{name}: {str(here)[:400]} instead of {str(there)[:400]}")
    extra = found.types - reference.types
    out += [f"extra {name}" for name in extra if name not in RESTART_TABLE]
    out += [f"missing {name}" for name in reference.types - found.types if name != "loop.stopped"]
    return out


@pytest.mark.timeout(400)  # nine nights of real processes, on a machine that may be busy
@pytest.mark.parametrize("offset", [0, 8])  # tests/night kills at each kind of append, and of everything else
def test_a_loop_killed_after_some_appends_ends_in_the_same_state(workspace: Path, tmp_path: Path, offset: int) -> None:
    kill_everywhere(workspace, tmp_path, step=64, offset=offset)


@pytest.mark.long
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("offset", range(8))
def test_a_loop_killed_after_any_append_ends_in_the_same_state(workspace: Path, tmp_path: Path, offset: int) -> None:
    kill_everywhere(workspace, tmp_path, step=8, offset=offset)
