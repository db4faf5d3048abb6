"""The command line as a whole: light to load, and every command teaches by an example."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

import nightshift
from eventstore import cli

ROOT = Path(nightshift.__file__).parent
OURS = [name for name, (module, _) in nightshift.COMMANDS.items() if module == "eventstore.cli"]


def commands(command: click.Command, path: str) -> list[tuple[str, click.Command]]:
    """A command and all below it, with the words that call them."""
    below = command.commands.items() if isinstance(command, click.Group) else ()
    return [(path, command), *(found for name, part in below for found in commands(part, f"{path} {name}"))]


def ours() -> list[tuple[str, click.Command]]:
    return [found for name in OURS for found in commands(getattr(cli, f"{name}_command"), f"nightshift {name}")]


def test_every_command_that_is_named_is_there_and_no_other() -> None:
    assert {f"{name}_command" for name in OURS} == set(cli.__all__)


@pytest.mark.parametrize(("path", "command"), ours())
def test_every_help_text_has_an_example(path: str, command: click.Command) -> None:
    assert f"{path}" in (command.help or "").partition("\b\n")[2]
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    assert all(option.help for option in options if option.name != "help")


def test_loading_the_commands_loads_nothing_heavy() -> None:
    source = "import json, sys, eventstore.cli, eventstore.screens; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", source], check=True, capture_output=True, text=True, cwd=ROOT)
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert not loaded & {"anthropic", "git", "loop", "matplotlib", "optuna", "slack_bolt", "torch", "trainer"}


def test_a_pure_view_loads_no_database() -> None:
    source = "import json, sys, eventstore.views, eventstore.projections.story; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", source], check=True, capture_output=True, text=True, cwd=ROOT)
    assert not set(json.loads(done.stdout)) & {"sqlite3", "sqlite_utils", "subprocess", "asyncio", "rich"}


def test_the_page_in_docs_has_every_command_and_is_not_stale() -> None:
    command = [sys.executable, "docs/generate_cli.py"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    assert all(f"\n### nightshift {name}\n" in done.stdout for name in nightshift.COMMANDS)
    written = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert done.stdout == written, "docs/cli.md is stale: python docs/generate_cli.py > docs/cli.md"
