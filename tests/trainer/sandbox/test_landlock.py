"""Landlock as a process meets it, in processes of their own: what is given up is not given back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trainer.sandbox import landlock
from trainer.sandbox.plan import Machine, Rules

RUN = """\
import json, os, subprocess, sys
from pathlib import Path
from trainer.sandbox import landlock
from trainer.sandbox.plan import Rules
given = json.loads(sys.argv[1])
read, write = (tuple(map(Path, given[name])) for name in ("read", "write"))
ruleset = landlock.make(Rules(files=given["files"], tcp=given["tcp"], read=read, write=write), landlock.version()[0])
program = (sys.executable, "-I", "-S", "-c", given["code"])
enter = landlock.enter(ruleset, alone=given["alone"])
ended = subprocess.run(program, preexec_fn=enter, text=True, capture_output=True)
print(ended.stdout + ended.stderr.strip().rpartition("\\n")[2])
"""
PYTHON = (
    "/usr",
    "/lib",
    "/lib64",
    "/bin",
    "/etc",
    "/dev",
    sys.base_prefix,
    str(Path(sys.base_prefix).resolve()),
    sys.prefix,
)


def run(code: str, **wanted: Any) -> str:
    """Run *code* under rules and return what it printed, or its last line of trouble."""
    given = {"code": code, "files": True, "tcp": False, "alone": True, "read": [], "write": [], **wanted}
    given["read"] = [*PYTHON, *map(str, given["read"])]
    given["write"] = [*map(str, given["write"])]
    environ = {**os.environ, "PYTHONPATH": str(Path(landlock.__file__).parents[2])}
    words = (sys.executable, "-c", RUN, json.dumps(given))
    return subprocess.run(words, env=environ, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


@pytest.fixture
def secret(only_landlock: Machine, tmp_path: Path) -> Path:
    (tmp_path / "open").mkdir()
    (tmp_path / "closed").mkdir()
    for name in ("open", "closed"):
        (tmp_path / name / "file").write_text(name)
    return tmp_path


def test_only_what_is_allowed_can_be_read_or_written(secret: Path) -> None:
    for name, said in (("open", "open"), ("closed", "PermissionError: [Errno 13] Permission denied")):
        assert run(f"print(open('{secret}/{name}/file').read())", read=[secret / "open"]).startswith(said)
        write = f"open('{secret}/{name}/new', 'w').write('x'); print('{name}')"
        assert run(write, read=[secret], write=[secret / "open"]).startswith(said)
    assert (secret / "open" / "new").exists() and not (secret / "closed" / "new").exists()


def test_a_child_of_it_gets_nothing_back(secret: Path) -> None:
    code = f"import subprocess; print(subprocess.run(['/bin/cat', '{secret}/closed/file'], capture_output=True).stderr)"
    assert "Permission denied" in run(code)


def test_a_file_may_be_allowed_and_one_that_is_not_there_is_passed_over(secret: Path) -> None:
    file = secret / "closed" / "file"
    assert run(f"print(open('{file}').read())", read=[file, secret / "missing"]) == "closed"


@pytest.fixture
def neighbour() -> Iterator[int]:
    """A process with a secret in its environment."""
    words = (sys.executable, "-I", "-S", "-c", "print(flush=True); input()")
    with subprocess.Popen(
        words, env={"WORD": "the secret"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "\n"
        yield process.pid
        process.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="without privileges landlock holds alone")
@pytest.mark.parametrize(("alone", "read"), [(True, False), (False, True)])
def test_root_gives_up_its_privileges_too(only_landlock: Machine, neighbour: int, alone: bool, read: bool) -> None:
    """The control is the second row: one of them reads the environment of any process, whatever landlock says."""
    said = run(f"print('WORD' in open('/proc/{neighbour}/environ').read())", alone=alone, read=["/proc"])
    assert (said == "True") is read, said


@pytest.mark.parametrize(
    ("rules", "interface", "nothing"),
    [
        (Rules(files=True, tcp=True), 1, False),
        (Rules(files=False, tcp=True), 5, True),
        (Rules(files=False, tcp=True), 6, False),
        (Rules(files=False, tcp=False), 3, True),
        (Rules(files=False, tcp=False), 4, False),
    ],
)
def test_rules_that_a_version_cannot_express_are_known(rules: Rules, interface: int, nothing: bool) -> None:
    assert landlock.says_nothing(rules, interface) is nothing


@pytest.mark.parametrize("interface", range(1, 8))
def test_rules_can_be_made_for_every_version_up_to_this_one(only_landlock: Machine, interface: int) -> None:
    if interface > only_landlock.landlock:
        pytest.skip("this kernel is older")
    os.close(landlock.make(Rules(files=True, tcp=False, read=(Path("/usr"),), write=(Path("/dev/null"),)), interface))
