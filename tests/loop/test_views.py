"""What experiments, guards and agents may see, by the settings; and a real training that looks around."""

from __future__ import annotations

import asyncio
import json
import sysconfig
from pathlib import Path

import pytest

from eventstore import settings as st
from eventstore.home import Home
from loop.effects.views import cache_of, environment_of, of_agent, of_experiment
from trainer.process import machine, run_command
from trainer.sandbox.plan import View
from trainer.spec import CommandSpec

SMALL = {
    "objective": {"name": "val_bpb", "direction": "minimize", "editable": ["train.py"]},
    "experiment": {"command": ["python", "train.py"]},
}


def settings(**tables: object) -> st.Settings:
    return st.from_data({**SMALL, **tables})


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A workspace with a log, another run and a prepared corpus."""
    for name in (
        *("workspace/private.txt", "workspace/.nightshift/events.db", "workspace/.nightshift/runs/nov20/1/0.0/run.log"),
        *("cache/key/train/tokens.bin", "cache/key/select/tokens.bin", "cache/key/report/tokens.bin"),
        *("cache/climbmix/shard.parquet", "cache/current/x", "data/rows.csv"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return Home(tmp_path / "workspace")


LOOK = """\
import json, os, sys
from pathlib import Path
print(json.dumps([name for name in json.loads(sys.argv[1]) if os.path.isfile(name)]))
"""


def test_a_link_to_the_workspace_does_not_show_it_under_another_name(home: Home, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(home.root)
    (tmp_path / "other").symlink_to(tmp_path / "data")
    view = of_experiment(settings(sandbox={"read": ["../link", "../other"]}), home, home.root, {"HOME": "/nowhere"})
    assert view.read[1:] == (home.root, tmp_path / "other", tmp_path / "data")


async def seen(home: Home, view: View, folder: Path, names: list[str]) -> list[str]:
    """Which of *names*, below the parent of the workspace, a command sees."""
    await asyncio.to_thread(folder.mkdir, parents=True)
    (folder / "train.py").write_text("x")
    top = home.root.parent
    spec = CommandSpec(
        command=("python", "-c", LOOK, json.dumps([str(top / name) for name in names])),
        workdir=folder,
        mark=f"{home.mark_id}/nov21/1/x",
        timeout_s=20,
        view=view,
    )
    return [str(Path(name).relative_to(top)) for name in json.loads((await run_command(spec)).tail)]


ALL = [
    *("workspace/private.txt", "workspace/.nightshift/events.db", "workspace/.nightshift/runs/nov20/1/0.0/run.log"),
    *("cache/key/train/tokens.bin", "cache/key/select/tokens.bin", "cache/climbmix/shard.parquet", "data/rows.csv"),
    "workspace/.nightshift/work/nov21/1/0.0/train.py",
]
OWN = ALL[-1]


@pytest.mark.skipif(not machine().bwrap, reason="bubblewrap does not work here; tests/trainer/sandbox says so loudly")
@pytest.mark.parametrize(
    ("tables", "names"),
    [
        ({}, ["cache/key/train/tokens.bin", "cache/key/select/tokens.bin", "cache/climbmix/shard.parquet", OWN]),
        ({"objective": {**SMALL["objective"], "score": "sealed"}}, [OWN]),
        ({"sandbox": {"read": ["../data"]}}, [*ALL[3:6], "data/rows.csv", OWN]),
        ({"sandbox": {"read": [".."]}}, [*ALL[3:6], "data/rows.csv", OWN]),  # never the checkout and the state
        ({"sandbox": {"mode": "off"}}, ALL),  # the control
    ],
)
async def test_an_experiment_sees_its_folder_and_the_corpus_and_nothing_of_the_person(
    home: Home, tables: dict[str, object], names: list[str]
) -> None:
    folder = home.work_dir("nov21", 1, 0, 0)
    environ = {"NIGHTSHIFT_CACHE": str(home.root.parent / "cache"), "HOME": "/nowhere"}
    view = of_experiment(settings(**tables), home, folder, environ)
    assert await seen(home, view, folder, ALL) == names


def test_limits_and_network_are_as_set(home: Home) -> None:
    tables = {"memory_mb": 5, "processes": 6, "disk_mb": 7, "tmp_mb": 8, "network": True, "mode": "required"}
    view = of_experiment(settings(sandbox=tables), home, home.root, {})
    limits = view.limits
    assert (limits.memory_mb, limits.processes, limits.disk_mb, limits.tmp_mb) == (5, 6, 7, 8)
    assert (view.network, view.mode) == (True, "required")
    usual = of_experiment(settings(), home, home.root, {})
    assert (usual.network, usual.mode, usual.limits.memory_mb) == (False, "best", None)


def test_the_corpus_is_looked_for_where_prepare_py_does_and_the_child_is_told() -> None:
    assert cache_of({"NIGHTSHIFT_CACHE": "/big/cache", "HOME": "/home/ann"}) == Path("/big/cache")
    assert cache_of({"HOME": "/home/ann"}) == Path("/home/ann/.cache/nightshift")
    assert environment_of({"HOME": "/home/ann"}) == {"NIGHTSHIFT_CACHE": "/home/ann/.cache/nightshift"}


def test_an_agent_is_confined_where_that_is_set_and_keeps_its_files(home: Home) -> None:
    assert of_agent(settings(), home) is None
    view = of_agent(settings(agent={"sandbox": True, "files": ["~/.tool", "/opt/tool"], "network": True}), home)
    assert view is not None and view.network
    assert {Path.home() / ".tool", Path("/opt/tool")} <= set(view.write) and view.home == Path.home()
    assert {home.root, home.state} <= set(view.hidden)


def test_scored_texts_of_the_standard_library_are_covered_up_with_what_they_were_compiled_to(home: Home) -> None:
    library = Path(sysconfig.get_paths()["stdlib"])
    corpora = {"a": {"folder": str(library), "hidden": ["wave.py", "xmlrpc/client.py", "gone.py"]}, "b": 5}
    corpora["c"] = {"folder": "/texts", "hidden": []}
    for name, texts in corpora.items():
        manifest = home.root.parent / "cache" / name / "manifest.json"
        manifest.parent.mkdir()
        manifest.write_text(json.dumps({"texts": texts}))
    sealed = settings(objective={**SMALL["objective"], "score": "sealed"})
    environ = {"NIGHTSHIFT_CACHE": str(home.root.parent / "cache")}
    view = of_experiment(sealed, home, home.root, environ)
    covered = {place for _, place in view.veils}
    assert {library / "wave.py", library / "xmlrpc/client.py"} <= covered
    assert {path.stem.partition(".")[0] for path in covered} == {"wave", "client"}
    assert Path("/texts") in view.hidden
    assert of_experiment(settings(), home, home.root, environ).veils == ()
