"""A loop killed at every boundary between two of its effects ends where an undisturbed one ends."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from eventstore import events as e
from eventstore.home import Home
from eventstore.maintenance import verify
from eventstore.store import Store
from tests.conftest import Count, Tally
from tests.night.story import (
    NIGHT_REQUEST,
    STOPPED_REQUEST,
    Ended,
    Nursery,
    differences,
    ended,
    make_workspace,
)

PARTS = 8
QUICK_PARTS = 4
PROMISE = "a night ends in the same state, wherever it is killed"
DOORS = {
    "store": "an append",
    "git": "a git command",
    "process": "a start or an end of a process",
    "file": "a change of a file",
    "bell": "a bell",
}

TRIES = 3
"""Threads do not run alike twice: a point that was not reached is tried again."""


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The story before it begins; every night is a copy."""
    return make_workspace(tmp_path_factory.mktemp("night") / "workspace", NIGHT_REQUEST, STOPPED_REQUEST)


def undisturbed(nursery: Nursery, workspace: Path, folder: Path) -> tuple[list[str], Ended]:
    """The points of a whole night, and how it ended."""
    whole = shutil.copytree(workspace, folder / "whole", symlinks=True)
    assert nursery.serve(whole, record=folder / "points") == 0
    return (folder / "points").read_text().splitlines(), ended(whole)


def kind_of(point: str) -> str:
    """A point without its numbers: which door, what is done there, about what; folders by what they are for."""
    name = point.rpartition(" #")[0]
    if (place := re.search(r"/\.nightshift/(work|runs|tmp|proposals)/", name)) is not None and "results" not in name:
        name = f"{name[: place.end()]} {Path(name).name if name.endswith('.json') else ''}"
    name = re.sub(r"^(file os\.\w+) [^/].*", r"\1 of a folder that is removed", name)
    name = re.sub(r"^(git (?:cat-file|for-each-ref|ls-tree|rev-parse|version)).*", r"\1", name)  # they only read
    name = re.sub(r"(store) (?:begun|filled)( .*)", r"\1 committed\2", name)
    return re.sub(r"\d+|/(night|stopped)(?=[/^]|$| )", "…", name)


def sample(points: Sequence[str]) -> list[str]:
    """One point of each kind, not always the first."""
    kinds: dict[str, list[str]] = {}
    for point in points:
        kinds.setdefault(kind_of(point), []).append(point)
    return [alike[len(kind) % len(alike)] for kind, alike in kinds.items()]


def kill_at(nursery: Nursery, workspace: Path, folder: Path, point: str, reference: Ended) -> list[str] | None:
    """What is otherwise after a kill at *point*; None if no night came to it."""
    for _ in range(TRIES):
        night = shutil.copytree(workspace, folder / "killed", symlinks=True)
        killed = nursery.serve(night, kill_at=point) == -9
        if killed:
            assert nursery.serve(night) == 0
        problems = differences(reference, ended(night))
        if killed or problems:
            shutil.rmtree(night)
            return problems
        shutil.rmtree(night)
    return None


def kill_everywhere(workspace: Path, folder: Path, part: int, parts: int, tally: Tally, *, quick: bool) -> None:
    with Nursery() as nursery:
        points, reference = undisturbed(nursery, workspace, folder)
        _, other = undisturbed(nursery, workspace, folder / "again")
        assert not differences(reference, other), "two undisturbed nights differ"
        if quick:
            points = sample(points)
        mine = points[part::parts]
        not_reached, broken = list[str](), list[str]()
        counts: dict[str, Count] = {}
        for point in mine:
            problems = kill_at(nursery, workspace, folder, point, reference)
            if problems is None:
                not_reached.append(point)
                continue
            what = DOORS[point.partition(" ")[0]]
            if what not in counts:
                counts[what] = tally(PROMISE, f"killed at {what} of the loop")
            if not counts[what].see(not problems):
                broken.append(f"{point}: {problems}")
    assert not broken, "\n".join(broken)
    assert len(not_reached) <= 1 + len(mine) // 50, f"not reached: {not_reached}"


@pytest.mark.parametrize("part", range(QUICK_PARTS))
def test_killed_at_each_kind_of_point(workspace: Path, tmp_path: Path, tally: Tally, part: int) -> None:
    kill_everywhere(workspace, tmp_path, part, QUICK_PARTS, tally, quick=True)


@pytest.mark.long
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("part", range(PARTS))
def test_killed_at_every_point(workspace: Path, tmp_path: Path, tally: Tally, part: int) -> None:
    kill_everywhere(workspace, tmp_path, part, PARTS, tally, quick=False)


def test_a_request_cut_off_at_any_point_is_there_once_when_it_is_made_again(
    workspace: Path, tmp_path: Path, tally: Tally
) -> None:
    """What a bot or a command does beside a loop: whoever is killed while it appends asks again under the same id."""
    with Nursery() as nursery:
        first = shutil.copytree(workspace, tmp_path / "first", symlinks=True)
        assert nursery.serve(first, person=True, record=tmp_path / "points") == 0
        points = (tmp_path / "points").read_text().splitlines()
        count = tally(PROMISE, "a person's request, killed at any effect and asked again")
        for point in points:
            folder = shutil.copytree(workspace, tmp_path / "killed", symlinks=True)
            assert nursery.serve(folder, person=True, kill_at=point) == -9, point
            assert nursery.serve(folder, person=True) == 0
            verify(Home(folder).log_path)
            with Store.open(Home(folder).log_path) as log:
                assert count.see([event.type for event in log.stream()].count(e.IdeaSuggested.TYPE) == 1), point
            shutil.rmtree(folder)
    assert count.made == len(points) > 5
