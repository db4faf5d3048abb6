"""The promises of the house itself: what imports what, what is empty, what help costs."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import nightshift

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "optuna", "matplotlib", "anthropic", "slack_sdk", "slack_bolt", "git"}
CONTRACT = next(
    contract
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    if contract["name"] == "decisions are pure"
)


def loaded_by(module: str) -> set[str]:
    """Top-level names in sys.modules after importing *module* in a fresh interpreter, less what it starts with."""
    code = (
        "import sys; before = set(sys.modules); "
        f"import {module}; print(*{{name.partition('.')[0] for name in set(sys.modules) - before}})"
    )
    return set(subprocess.run((sys.executable, "-c", code), check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize("module", ["nightshift", "eventstore.cli", "loop.cli"])
def test_a_command_line_loads_nothing_heavy(module: str) -> None:
    assert not loaded_by(module) & HEAVY


def test_the_root_command_loads_no_room() -> None:
    """`nightshift --help` must not pay for SQLite, asyncio or git."""
    assert not loaded_by("nightshift") & {"eventstore", "trainer", "loop", "bot", "sqlite_utils", "msgspec", "rich"}


@pytest.mark.parametrize("module", CONTRACT["source_modules"])
def test_a_pure_module_loads_no_effects(module: str) -> None:
    """The import contract sees our own imports; this sees what they drag in."""
    assert not loaded_by(module) & (HEAVY | {"sqlite3", "pysqlite3", "sqlite_utils", "subprocess", "asyncio"})


def test_package_init_files_are_empty() -> None:
    """A re-export in one would load its package's effects into pure imports, unseen by the contracts."""
    packages = [
        path for room in ("eventstore", "trainer", "loop", "bot") for path in (ROOT / room).rglob("__init__.py")
    ]
    assert packages and all(path.read_text() == "" for path in packages)


def test_every_subcommand_is_where_the_root_says() -> None:
    shown = {name for _, names in nightshift.GROUPS for name in names}
    assert shown == set(nightshift.COMMANDS)
    for name in nightshift.COMMANDS:
        command = nightshift.main.get_command(None, name)  # type: ignore[attr-defined, arg-type]
        assert command is not None and command.name == name and command.help


def test_a_mistyped_command_gets_the_nearest_one() -> None:
    done = subprocess.run(
        (sys.executable, "-m", "nightshift", "staus"), capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 2 and "Did you mean status?" in done.stderr
