"""A harness with tiny constants and a cache of its own, and one warm evaluator for all tests of a file."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from eventstore.events import SetConstants
from loop import edits
from tests.trainer.evaluator import models
from trainer.evaluator import export, harness, protocol

ROOT = Path(__file__).parents[3]
TINY = {"VOCAB_SIZE": models.VOCAB, "MAX_SEQ_LEN": models.LENGTH, "EVAL_TOKENS": 64 * models.LENGTH}
WORDS = "the loop trains a small model on text and keeps what is better ; naïve café = ( ) x_1 42"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The shipped prepare.py with tiny constants and a kernel of its own, and its prepared cache."""
    folder = tmp_path_factory.mktemp("harness")
    rng = random.Random(7)
    for number in range(150):
        path = folder / "corpus" / f"text{number:03d}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(" ".join(rng.choices(WORDS.split(), k=12)) + "\n" for _ in range(32)))
    constants: dict[str, Any] = {**TINY, "CORPUS": str(folder / "corpus"), "EVAL_BATCH_TOKENS": 16 * models.LENGTH}
    texts = {"prepare.py": (ROOT / "prepare.py").read_text()}
    text = edits.apply([SetConstants("prepare.py", constants)], texts, editable=["prepare.py"])["prepare.py"]
    (folder / "prepare.py").write_text(text + models.REGISTER)
    command = (sys.executable, "prepare.py", "--cache", str(folder / "cache"))
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return folder, next((folder / "cache").glob("*/manifest.json")).parent


@pytest.fixture(scope="session")
def loaded(workspace: tuple[Path, Path]) -> harness.Harness:
    """The same harness in this process."""
    return harness.load(*workspace)


class Server:
    """A warm evaluator process."""

    def __init__(self, folder: Path, cache: Path, *options: str) -> None:
        command = (sys.executable, "-m", "trainer.evaluator", "--harness", str(folder), "--cache", str(cache))
        self.process = subprocess.Popen(
            (*command, "--workers", "1", *options), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        self.ready = protocol.decode(self.process.stdout.readline(), protocol.Ready)

    def say(self, line: bytes) -> protocol.Answer:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line)
        self.process.stdin.flush()
        return protocol.decode(self.process.stdout.readline(), protocol.Answer)

    def ask(self, folder: Path, **wanted: Any) -> protocol.Answer:
        return self.say(protocol.encode(protocol.Request(str(folder), **wanted)))

    def close(self) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        code = self.process.wait(timeout=30)
        self.process.stdout.close()
        return code


@pytest.fixture(scope="module")
def server(workspace: tuple[Path, Path]) -> Iterator[Server]:
    """One evaluator for a whole file; at the end it must still be there and leave in peace."""
    started = Server(*workspace)
    yield started
    assert started.close() == 0


@pytest.fixture(scope="session")
def handed_over(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[nn.Module, Path]]:
    """An architecture and the folder that it was handed over in; each exported once."""
    made: dict[str, tuple[nn.Module, Path]] = {}

    def get(name: str) -> tuple[nn.Module, Path]:
        if name not in made:
            model = models.built(name)
            folder = tmp_path_factory.mktemp("handed")
            export.hand_over(model, folder, (2, models.LENGTH), {"num_steps": 3}, trusted=(models.WINDOW_OPERATOR,))
            made[name] = model, folder
        return made[name]

    return get
