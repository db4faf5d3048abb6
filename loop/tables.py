"""Write the tables that people read, whole and atomically."""

from __future__ import annotations

import os
from pathlib import Path

from eventstore.home import Home


def write_results(home: Home, tag: str, text: str, is_newest: bool) -> None:
    """Write a run's results.tsv; for the run started last, also its copy in the root. Nothing is written if equal."""
    _write(home.results_path(tag), text)
    if is_newest:
        _write(home.root / "results.tsv", text)


def _write(path: Path, text: str) -> None:
    data = text.encode()
    try:
        if path.read_bytes() == data:
            return
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
