"""A small workspace for the harness: the shipped prepare.py and train.py with tiny constants, on text made here."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from eventstore.events import Scalar, SetConstants
from loop import edits

ROOT = Path(__file__).parents[2]
WORDS = "the loop trains a small model on text and keeps what is better ; naïve café 漢字 🙂 = ( ) x_1 42"

TINY: dict[str, dict[str, Scalar]] = {
    "prepare.py": {"VOCAB_SIZE": 300, "MAX_SEQ_LEN": 32, "EVAL_TOKENS": 2048, "TIME_BUDGET_S": 2.0},
    "train.py": {"DEPTH": 2, "DIM": 32, "HEAD_DIM": 16, "SEQ_LEN": 32, "BATCH_ROWS": 4},
}


@dataclass(frozen=True)
class Workspace:
    """A folder with prepare.py and train.py, and a cache of its own."""

    folder: Path
    cache: Path
    corpus: Path

    def run(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run Python with *words* in the folder; *variables* come on top of a bare environment."""
        command = [sys.executable, *words]
        ended = subprocess.run(
            command, cwd=self.folder, env=self.environment(**variables), capture_output=True, check=False, timeout=60
        )  # not as text: that would turn the carriage returns of the progress line into newlines
        return subprocess.CompletedProcess(command, ended.returncode, ended.stdout.decode(), ended.stderr.decode())

    def environment(self, **variables: str) -> dict[str, str]:
        """What a child process sees."""
        own = {"NIGHTSHIFT_CACHE": str(self.cache), "OMP_NUM_THREADS": "1", "HOME": str(self.folder)}
        return {"PATH": os.environ["PATH"], **own, **variables}

    def module(self, name: str) -> ModuleType:
        """Import the workspace's prepare.py or train.py under its own name, and leave sys.modules as it was."""
        before = {known: sys.modules.pop(known, None) for known in ("prepare", "train")}
        sys.path.insert(0, str(self.folder))
        try:
            spec = importlib.util.spec_from_file_location(name, self.folder / f"{name}.py")
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module  # a dataclass looks itself up there
            spec.loader.exec_module(module)
        finally:
            sys.path.remove(str(self.folder))
            for known, old in before.items():
                sys.modules.pop(known, None)
                if old is not None:
                    sys.modules[known] = old
        return module

    def digests(self) -> dict[str, str]:
        """The sha256 of every file of the cache but the lock, by path."""
        paths = sorted(path for path in self.cache.rglob("*") if path.is_file() and path.name != "lock")
        return {str(path.relative_to(self.cache)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


class Maker:
    """Makes workspaces from the files in *shipped*."""

    shipped = ROOT

    def corpus(self, folder: Path, documents: int = 150) -> Path:
        """About 300 kB of text in *documents* files, always the same."""
        rng = random.Random(7)
        words = WORDS.split()
        for number in range(documents):
            path = folder / f"part{number % 3}" / f"text{number:03d}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(" ".join(rng.choices(words, k=12)) + "\n" for _ in range(32)))
        return folder

    def workspace(self, folder: Path, corpus: Path, **changes: dict[str, Scalar]) -> Workspace:
        """Copy the shipped files and set constants: `TINY`, then *changes*, keyed `prepare` and `train`."""
        texts = {name: (ROOT / name).read_text() for name in TINY}
        sets = [SetConstants(name, values) for name, values in TINY.items()]
        sets += [SetConstants("prepare.py", {"CORPUS": str(corpus)})]
        sets += [SetConstants(f"{name}.py", values) for name, values in changes.items()]
        folder.mkdir(parents=True)
        for name, text in edits.apply(sets, texts, editable=list(TINY)).items():
            (folder / name).write_text(text)
        return Workspace(folder, folder / "cache", corpus)


@pytest.fixture(scope="session")
def make() -> Maker:
    return Maker()


@pytest.fixture(scope="session")
def corpus(make: Maker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text that no test changes."""
    return make.corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def prepared(make: Maker, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with its cache built, that no test changes."""
    workspace = make.workspace(tmp_path_factory.mktemp("prepared") / "workspace", corpus)
    ended = workspace.run("prepare.py")
    assert ended.returncode == 0, ended.stderr
    return workspace
