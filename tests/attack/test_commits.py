"""Experiment commits carry the log's position and chain: a witness in another place."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from eventstore import events as e
from eventstore.home import Home
from eventstore.store import Store
from eventstore.witness import TRAILER, parse_head, write_witness
from tests.attack.test_damage import rewrite, told
from tests.conftest import Tally
from tests.loop.story import ROOT, git, make_workspace, serve


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A night whose loop was killed three times on the way."""
    folder = make_workspace(tmp_path_factory.mktemp("night") / "workspace")
    for kill_after in (9, 14, 20):
        assert serve(folder, kill_after) == -9
    assert serve(folder) == 0
    return folder


def check(folder: Path) -> tuple[int, dict[str, tuple[bool, str]]]:
    """`nightshift log check --json` as a person would call it."""
    command = (sys.executable, "-m", "nightshift", "-C", str(folder), "log", "check", "--json")
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stderr == ""
    return done.returncode, {found["what"]: (found["holds"], found["says"]) for found in json.loads(done.stdout)}


def test_each_commit_names_the_event_it_was_made_from(night: Path, tally: Tally) -> None:
    count = tally("lost events are told", "trailers of experiment commits that name their event's position and chain")
    with Store.open(Home(night).log_path) as log:
        events = list(log.stream())
    prepared = {
        f"refs/nightshift/{event.run}/{data.experiment}/{data.attempt}": event
        for event in events
        if isinstance(data := event.data, e.ExperimentPrepared) and data.experiment
    }
    refs = [data.ref for event in events if isinstance(data := event.data, e.ExperimentCommitted) and data.experiment]
    assert len(refs) > 5
    for ref in refs:
        *_, last = git(night, "log", "-1", "--format=%B", ref).strip().splitlines()
        head = parse_head(last.removeprefix(f"{TRAILER}: "))
        count.see(head is not None and (head.position, head.chain) == (prepared[ref].position, prepared[ref].chain))
    assert count.held == count.made


def test_a_whole_night_is_checked_and_git_tells_of_a_rewritten_log(night: Path, tmp_path: Path) -> None:
    code, found = check(night)
    assert (code, [what for what, (holds, _) in found.items() if not holds]) == (0, [])
    assert list(found) == ["pages", "schema", "chain", "witness", "commits", "events", "tables"]
    other = tmp_path / "copy"
    subprocess.run(("cp", "-a", night, other), check=True)
    log = Home(other).log_path
    with Store.open(log) as store:
        last = store.head().position
    rewrite(log, last, random.Random(1))
    log.with_name("events.db.witness").unlink()
    with Store.open(log) as store:
        write_witness(log, store.head())
    assert not told(log)
    code, found = check(other)
    assert (code, [what for what, (holds, _) in found.items() if not holds]) == (1, ["commits"])
    assert "commits name events that are not in it: refs/nightshift/" in found["commits"][1]
