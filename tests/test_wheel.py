"""The wheel is tested, not the checkout: it must carry every package and the workspace files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("eventstore", "trainer", "loop", "bot", "nightshift.py", "train.py", "prepare.py", "program.md")
META = ("pyproject.toml", "setup.py", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that no build folder of the checkout can help."""
    source = tmp_path_factory.mktemp("source")
    for name in (*PARTS, *META):
        here = ROOT / name
        copy = shutil.copytree if here.is_dir() else shutil.copy
        copy(here, source / name)
    out = tmp_path_factory.mktemp("wheel")
    command = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source))
    subprocess.run(command, check=True, capture_output=True)
    return next(out.glob("*.whl"))


def test_the_wheel_has_every_module_and_the_workspace_files(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {
        str(path.relative_to(ROOT))
        for room in ("eventstore", "trainer", "loop", "bot")
        for path in (ROOT / room).rglob("*.py")
    }
    assert modules <= names
    assert {f"loop/template/{name}" for name in ("train.py", "prepare.py", "program.md")} <= names
    assert "nightshift.py" in names and not {"train.py", "prepare.py"} & names


def test_init_works_from_the_unpacked_wheel(wheel: Path, tmp_path: Path) -> None:
    """With the dependencies of this environment, but none of the checkout's files."""
    installed = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(installed)
    made = init(Path(sys.executable), tmp_path / "workspace", {**os.environ, "PYTHONPATH": str(installed)})
    assert made == str(installed / "loop" / "template.py")


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_wheel_installs_into_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    """With pip and the pinned dependencies, as a user would."""
    subprocess.run((sys.executable, "-m", "venv", str(tmp_path / "venv")), check=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip = (python, "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt"), str(wheel))
    subprocess.run(pip, check=True)
    made = init(python, tmp_path / "workspace", {**os.environ})
    assert made.startswith(str(tmp_path / "venv"))
    shown = subprocess.run((python.with_name("nightshift"), "--version"), check=True, capture_output=True, text=True)
    assert shown.stdout.startswith("nightshift, version 0.1.0")


def init(python: Path, folder: Path, environ: dict[str, str]) -> str:
    """Make a workspace; return the file of the module that made it."""
    command = (str(python), "-m", "nightshift", "init", str(folder))
    subprocess.run(command, check=True, capture_output=True, cwd=folder.parent, env=environ)
    assert (folder / "train.py").read_bytes() == (ROOT / "train.py").read_bytes()
    assert (folder / "nightshift.toml").exists() and (folder / ".git").is_dir()
    where = (str(python), "-c", "import loop.template; print(loop.template.__file__)")
    done = subprocess.run(where, check=True, capture_output=True, text=True, cwd=folder.parent, env=environ)
    return done.stdout.strip()
