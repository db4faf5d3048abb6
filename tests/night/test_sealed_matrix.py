"""A loop killed at every kind of point that only a sealed night has: evaluator, hand-over, gate, scoring."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from eventstore import events as e
from eventstore.home import Home
from eventstore.maintenance import verify
from eventstore.store import Store
from tests.conftest import Tally
from tests.loop.story import git
from tests.loop.test_sealed_night import nightshift, prepared
from tests.night.story import NIGHT_REQUEST, Nursery, left_files, left_processes, make_workspace
from tests.night.test_matrix import PROMISE, kind_of, sample

PARTS = 2


def state(folder: Path) -> tuple[list[object], list[str], list[str]]:
    """How a sealed night ended. Scores are measured in real time, so they are not compared, but what follows is."""
    verify(Home(folder).log_path)
    with Store.open(Home(folder).log_path) as log:
        facts = [event.data for event in log.stream()]
    found: list[object] = [(x.experiment, x.verdict) for x in facts if isinstance(x, e.ExperimentDecided)]
    found += [(x.experiment, x.why) for x in facts if isinstance(x, e.BranchMoved)]
    found += [x.reason for x in facts if isinstance(x, e.RunFinished)]
    found += git(folder, "for-each-ref", "--format=%(refname)").split()
    return found, left_files(folder), left_processes(folder)


@pytest.mark.long
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("part", range(PARTS))
def test_killed_at_each_kind_of_point_of_a_sealed_night(tmp_path: Path, tally: Tally, part: int) -> None:
    environ = prepared(tmp_path)
    workspace = tmp_path / "workspace"
    asked = nightshift(workspace, environ, "start", "night", "--experiments", "1", "--seed", "3")
    assert asked.returncode == 0, asked.stderr
    plain = make_workspace(tmp_path / "plain", NIGHT_REQUEST)
    not_reached, broken = list[str](), list[str]()
    count = tally(PROMISE, "killed at what only a sealed night does: evaluator, gate, models")
    with Nursery(environ) as nursery:
        assert nursery.serve(plain, record=tmp_path / "plain-points") == 0
        known = set(map(kind_of, (tmp_path / "plain-points").read_text().splitlines()))
        whole = shutil.copytree(workspace, tmp_path / "whole", symlinks=True)
        assert nursery.serve(whole, record=tmp_path / "points") == 0
        reference = state(whole)
        points = [x for x in sample((tmp_path / "points").read_text().splitlines()) if kind_of(x) not in known]
        for point in points[part::PARTS]:
            night = shutil.copytree(workspace, tmp_path / "killed", symlinks=True)
            killed = nursery.serve(night, kill_at=point) == -9
            assert nursery.serve(night) == 0
            found = state(night)
            if not killed:
                not_reached.append(point)
            elif not count.see(found == reference):
                broken.append(f"{point}: {found} instead of {reference}")
            shutil.rmtree(night)
    assert not broken, "\n".join(broken)
    assert len(not_reached) <= 1 + len(points) // 10, not_reached
