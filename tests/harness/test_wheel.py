"""What a wheel carries."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Maker

SOURCES = (
    "pyproject.toml",
    "setup.py",
    "MANIFEST.in",
    "LICENSE",
    "nightshift.py",
    "train.py",
    "prepare.py",
    "program.md",
)


def test_a_wheel_carries_the_workspace_files_in_the_template_and_not_in_its_root(make: Maker, tmp_path: Path) -> None:
    """In its root they would be modules `train` and `prepare` of every program in that environment."""
    source = tmp_path / "source"
    for package in ("eventstore", "trainer", "loop", "bot"):
        shutil.copytree(make.shipped / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in SOURCES:
        shutil.copy(make.shipped / name, source / name)
    (source / "README.md").write_text("What pyproject.toml names as the description.\n")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    wheel = zipfile.ZipFile(next(tmp_path.glob("*.whl")))
    carried = set(wheel.namelist())
    for name in ("train.py", "prepare.py", "program.md"):
        assert wheel.read(f"loop/template/{name}") == (make.shipped / name).read_bytes()
    assert not {"train.py", "prepare.py", "program.md", "setup.py"} & carried
    assert not [name for name in carried if name.startswith("tests/")]
    wheel.close()
