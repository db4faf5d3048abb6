"""Files written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """
    Write a file that takes the place of *path* when the `with` ends well; otherwise *path* stays as it was.

    A link is followed, and an existing file keeps its permissions. Raises `OSError` naming what cannot be written.
    """
    target = path.resolve()
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            partial.chmod(target.stat().st_mode & 0o777)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def replace_file(path: Path, data: bytes) -> None:
    """Put *data* in the place of what *path* holds. As `replacing`."""
    with replacing(path) as file:
        file.write(data)
