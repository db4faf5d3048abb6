"""Real runs in whatever holds them: what the log says of it, and what the experiments came to."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from eventstore import events as e
from eventstore.home import Home
from eventstore.store import Store
from tests.loop.story import git
from trainer.process import machine

SETTINGS = """\
[objective]
name = "cost"
direction = "minimize"
editable = ["model.py"]
[experiment]
command = ["python", "model.py"]
budget_s = 5
timeout_s = 20
[guard]
command = ["python", "guard.py"]
[sweep]
X = { low = 0, high = 8 }
"""
LOOK = """\
from pathlib import Path
outside = Path("../../../../..").resolve()
seen = []
for name in ("nightshift.toml", ".nightshift/events.db"):
    try:
        seen += [name] if (outside / name).read_bytes() else []
    except OSError:
        pass
"""
MODEL = f"X = 1\n{LOOK}print('saw', seen)\nprint(f'cost: {{X}}')\n"
GUARD = f"{LOOK}print('saw', seen)\n"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    for name, text in (("nightshift.toml", SETTINGS), ("model.py", MODEL), ("guard.py", GUARD)):
        (folder / name).write_text(text)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "a program")
    return folder


def nightshift(folder: Path, *args: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PATH": path or os.environ["PATH"]}
    command = (sys.executable, "-m", "nightshift", "-C", str(folder), *args)
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)


def events_of(folder: Path) -> list[e.Data | e.UnknownEvent]:
    with Store.open(Home(folder).log_path) as log:
        return [event.data for event in log.stream()]


def without_bubblewrap(tmp_path: Path) -> str:
    """A PATH with git and no more."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "git").symlink_to(str(shutil.which("git")))
    return str(folder)


def run(folder: Path, *sets: str, path: str | None = None, experiments: int = 1) -> list[e.Data | e.UnknownEvent]:
    words = [word for text in sets for word in ("--set", text)]
    asked = nightshift(folder, "start", "night", "--experiments", str(experiments), *words, path=path)
    assert asked.returncode == 0, asked
    served = nightshift(folder, "loop", "--until-idle", path=path)
    assert served.returncode == 0, served
    return events_of(folder)


def one(log: list[e.Data | e.UnknownEvent], kind: type[e.Data]) -> list[e.Data]:
    return [data for data in log if isinstance(data, kind)]


@pytest.mark.skipif(not machine().bwrap, reason="bubblewrap does not work here; tests/trainer/sandbox says so loudly")
@pytest.mark.parametrize(("mode", "held", "saw"), [("required", True, "[]"), ("off", False, "['nightshift.toml', ")])
def test_a_run_says_what_holds_it_and_trainings_and_guards_are_held(
    workspace: Path, mode: str, held: bool, saw: str
) -> None:
    log = run(workspace, f"sandbox.mode={mode}")
    (started,) = one(log, e.RunStarted)
    assert isinstance(started, e.RunStarted) and started.sandbox.startswith("bubblewrap") is held
    finished = [data for data in log if isinstance(data, e.TrainingFinished | e.GuardFinished)]
    assert len(finished) >= 3 and all(f"saw {saw}" in data.tail for data in finished), finished
    assert not one(log, e.TroubleNoticed)
    assert [data.experiment for data in log if isinstance(data, e.ExperimentDecided)] == [0, 1]


@pytest.mark.skipif(not machine().landlock, reason="no landlock here")
def test_less_than_full_isolation_is_loud_until_it_is_better(workspace: Path, tmp_path: Path) -> None:
    log = run(workspace, path=without_bubblewrap(tmp_path))
    (started,) = one(log, e.RunStarted)
    assert isinstance(started, e.RunStarted) and started.sandbox.startswith("landlock")
    (trouble,) = one(log, e.TroubleNoticed)
    assert isinstance(trouble, e.TroubleNoticed) and trouble.kind == "sandbox"
    assert "only landlock holds experiments" in trouble.what and "apt-get install bubblewrap" in trouble.what
    assert all("saw []" in data.tail for data in log if isinstance(data, e.TrainingFinished | e.GuardFinished))
    if machine().bwrap:
        asked = nightshift(workspace, "start", "second", "--experiments", "1")
        assert asked.returncode == 0, asked
        nightshift(workspace, "loop", "--until-idle")
        assert len(one(events_of(workspace), e.TroubleCleared)) == 1


def test_a_run_that_requires_full_isolation_is_refused_where_there_is_none(workspace: Path, tmp_path: Path) -> None:
    path = without_bubblewrap(tmp_path)
    asked = nightshift(workspace, "start", "night", "--set", "sandbox.mode=required", path=path)
    assert asked.returncode == 1
    said = " ".join((asked.stdout + asked.stderr).split())
    assert "bubblewrap does not work here (it is not installed)" in said and "sandbox.mode = 'best'" in said


AGENT = f"""\
import os, sys
from pathlib import Path
{LOOK.replace("../..", "../../..", 1)}prompt = Path(os.environ["NIGHTSHIFT_PROMPT_FILE"]).read_text()
assert prompt and prompt == sys.stdin.read()
Path(sys.argv[1]).joinpath("note").write_text("kept")
Path("model.py").write_text(Path("model.py").read_text().replace("X = 1", f"X = 1 - len({{seen}}) - 0.5"))
"""


@pytest.mark.skipif(not machine().bwrap, reason="bubblewrap does not work here; tests/trainer/sandbox says so loudly")
@pytest.mark.parametrize(("confined", "score"), [(True, 0.5), (False, -1.5)])
def test_an_agent_is_held_where_that_is_set_and_keeps_its_files(
    workspace: Path, tmp_path: Path, confined: bool, score: float
) -> None:
    """It proposes one less for each file of the person that it could read."""
    files = tmp_path / "of-the-agent"
    files.mkdir()
    (workspace / "nightshift.toml").write_text(
        SETTINGS + f'[proposer]\nkind = "agent"\n[agent]\ncommand = ["python", "-c", {json.dumps(AGENT)}, "{files}"]\n'
        f"sandbox = {str(confined).lower()}\nfiles = ['{files}']\nnetwork = true\n"
    )
    log = run(workspace)
    scores = [data.score for data in log if isinstance(data, e.TrainingFinished) and data.experiment == 1]
    assert scores == [score], log[-6:]
    assert (files / "note").read_text() == "kept"


COMPILES = """\
import os
from pathlib import Path
folder = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
folder.mkdir(exist_ok=True)
print("found", sorted(path.name for path in folder.iterdir()))
(folder / f"of-{X}").write_text("code")
"""


def test_an_experiment_begins_with_what_the_baseline_compiled_and_nothing_of_the_others(workspace: Path) -> None:
    (workspace / "model.py").write_text(f"X = 1\n{COMPILES}print(f'cost: {{X}}')\n")
    git(workspace, "commit", "-q", "-a", "-m", "compiles")
    log = run(workspace, experiments=3)
    told = [data.tail for data in log if isinstance(data, e.TrainingFinished)]
    assert "found []" in told[0]
    assert len(told) == 4 and all("found ['of-1']" in tail for tail in told[1:]), told
    assert [path.name for path in Home(workspace).compiled_dir("night").iterdir()] == ["of-1"]
