"""Finding out what works: by trying, with what the attempts say told on."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from trainer.process import machine
from trainer.sandbox.find import Attempt, graphics_devices, graphics_name, interpreter_of, look

ENVIRON = {"PATH": "/usr/bin:/bin", "HOME": "/nowhere"}


def answers(bwrap: Attempt, older: Attempt | None = None) -> tuple[list[Sequence[str]], object]:
    """A stand-in for starting programs; and the words it was called with."""
    seen: list[Sequence[str]] = []

    def attempt(argv: Sequence[str], env: Mapping[str, str]) -> Attempt:
        seen.append(argv)
        if not argv[0].endswith("bwrap"):
            return Attempt(0, "[]")
        return older if older is not None and "--disable-userns" not in argv else bwrap

    return seen, attempt


def look_with(tmp_path: Path, bwrap: Attempt, older: Attempt | None = None):  # type: ignore[no-untyped-def]
    program = tmp_path / "bwrap"
    program.write_text("")
    program.chmod(0o755)
    _, attempt = answers(bwrap, older)
    return look(attempt, sys.executable, {"PATH": str(tmp_path)}, "")  # type: ignore[arg-type]


def test_bubblewrap_that_works_is_taken(tmp_path: Path) -> None:
    found = look_with(tmp_path, Attempt(0, ""))
    assert (found.bwrap, found.closes_namespaces) == (str(tmp_path / "bwrap"), True)


def test_one_that_cannot_forbid_namespaces_is_taken_without_that(tmp_path: Path) -> None:
    found = look_with(tmp_path, Attempt(1, "bwrap: Unknown option --disable-userns"), Attempt(0, ""))
    assert (found.bwrap, found.closes_namespaces) == (str(tmp_path / "bwrap"), False)


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        (
            Attempt(1, "x\nbwrap: setting up uid map: Permission denied\n"),
            "bwrap: setting up uid map: Permission denied",
        ),
        (Attempt(127, ""), "it ended with exit code 127"),
    ],
)
def test_one_that_does_not_work_is_not_taken_and_its_reason_kept(tmp_path: Path, ended: Attempt, said: str) -> None:
    found = look_with(tmp_path, ended)
    assert (found.bwrap, found.bwrap_problem) == ("", said)


def test_where_there_is_none_that_is_said(tmp_path: Path) -> None:
    _, attempt = answers(Attempt(0, ""))
    assert look(attempt, sys.executable, {"PATH": str(tmp_path)}, "").bwrap_problem == "it is not installed"  # type: ignore[arg-type]


def test_the_interpreter_and_what_it_imports_are_named_once_and_never_the_whole_disk(tmp_path: Path) -> None:
    package, inner = tmp_path / "project" / "package", tmp_path / "project" / "package" / "inner"
    inner.mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(package)

    def attempt(argv: Sequence[str], env: Mapping[str, str]) -> Attempt:
        return Attempt(0, json.dumps(["/", "relative", str(tmp_path / "gone"), str(link), str(inner)]))

    found = interpreter_of(attempt, sys.executable, ENVIRON)
    assert {link, package} <= set(found) and inner not in found and Path("/") not in found
    assert any(Path(sys.executable).is_relative_to(path) for path in found)


def test_on_this_machine_what_python_needs_is_found() -> None:
    found = machine().interpreter
    for needed in (sys.prefix, sys.base_prefix, Path(json.__file__), Path(pytest.__file__)):
        assert any(Path(needed).is_relative_to(path) for path in found)


def test_a_machine_without_graphics_gives_no_device() -> None:
    if Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists():
        pytest.skip("this machine has some")
    assert graphics_devices(None) == graphics_devices(0) == ()
    assert graphics_name(3) == "3"
