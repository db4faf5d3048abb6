"""A file is replaced whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventstore.files import replace_file, replacing


def test_a_new_file_is_there_whole_and_nothing_else(tmp_path: Path) -> None:
    replace_file(tmp_path / "a.md", b"text")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.md": b"text"}


def test_a_failure_in_between_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    file = tmp_path / "a.md"
    file.write_text("old")
    with pytest.raises(RuntimeError), replacing(file) as out:
        out.write(b"half")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["a.md"]
    assert file.read_text() == "old"


def test_a_link_is_followed_and_permissions_stay(tmp_path: Path) -> None:
    file, link = tmp_path / "a.md", tmp_path / "link.md"
    file.write_text("old")
    file.chmod(0o640)
    link.symlink_to(file)
    replace_file(link, b"new")
    assert link.is_symlink()
    assert file.read_text() == "new"
    assert file.stat().st_mode & 0o777 == 0o640


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no/a\.md"):
        replace_file(tmp_path / "no" / "a.md", b"x")
