"""What the evaluator takes from the workspace's prepare.py: which rows are scored, and what a score is.

The file is loaded by its path from a copy that no training can write, under a name of its own. It is people's code,
protected by the run; the agent's code is never loaded here.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from trainer.errors import TrainerError
from trainer.evaluator.score import Rows, total

FILE_NAME = "prepare.py"
SCORED = ("tokenizer.json", "select/tokens.bin", "report/tokens.bin")
NEEDED = ("MAX_SEQ_LEN", "VOCAB_SIZE", "evaluation_rows", "token_lengths", "open_tokens", "bits_per_byte", "find_fault")


class HarnessUnusable(TrainerError):
    """The harness or its cache cannot be scored with. The message is one sentence with the remedy."""


@dataclass(frozen=True, slots=True)
class Harness:
    """
    A prepare.py with the rows of its cache.

    Attributes:
        module: The loaded file.
        select, report: Verdicts use the first, people are shown both.
        trusted: Custom operators that it registered, such as `nightshift::window_attention`.
        batch_rows: How many rows it scores at once.
    """

    module: ModuleType
    select: Rows
    report: Rows
    trusted: tuple[str, ...]
    batch_rows: int

    def bits_per_byte(self, by_batch: Mapping[int, float], rows: Rows) -> float:
        """The score of *rows*, as the harness defines it, from the nats of each batch."""
        return float(self.module.bits_per_byte(total(by_batch), rows.n_bytes()))

    def rows_sha256(self) -> str:
        """Of everything that is scored."""
        digest = hashlib.sha256()
        for rows in (self.select, self.report):
            for tensor in (rows.inputs, rows.targets, rows.lengths):
                digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


def load(folder: Path, cache: Path) -> Harness:
    """
    The harness in *folder*, with the rows in *cache*, one of its prepared corpora (the folder with manifest.json).

    A harness with custom operators lists their names in `TRUSTED_OPERATORS`; it registers them when it is loaded, or
    in a function `register_operators()`, which is called here.

    Raises:
        HarnessUnusable: If the file does not load or lacks something, or a byte of the cache is not what it was.
    """
    module = _module(folder / FILE_NAME)
    if missing := [name for name in NEEDED if not hasattr(module, name)]:
        raise HarnessUnusable(f"{folder / FILE_NAME} lacks {', '.join(missing)}, which sealed scoring needs; add them")
    if fault := module.find_fault(cache, only=SCORED):
        raise HarnessUnusable(f"the cache {cache} is damaged ({fault}): run `python prepare.py` to build it again")
    _register(module, folder)
    select, report = (_rows(module, cache, part) for part in ("select", "report"))
    batch_tokens = int(getattr(module, "EVAL_BATCH_TOKENS", 4096))
    return Harness(
        module,
        select,
        report,
        tuple(getattr(module, "TRUSTED_OPERATORS", ())),
        max(1, batch_tokens // module.MAX_SEQ_LEN),
    )


def _register(module: Any, folder: Path) -> None:
    try:
        getattr(module, "register_operators", lambda: None)()
    except Exception as error:  # whatever people's code raises
        raise HarnessUnusable(
            f"register_operators() of {folder / FILE_NAME} fails ({type(error).__name__}: {error}); mend it"
        ) from error


def _module(path: Path) -> ModuleType:
    name = "nightshift_harness"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise HarnessUnusable(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # a dataclass looks itself up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever people's code raises
        raise HarnessUnusable(f"{path} does not load ({type(error).__name__}: {error}); mend it") from error
    return module


def _rows(module: Any, cache: Path, part: str) -> Rows:
    inputs, targets = (torch.from_numpy(array) for array in module.evaluation_rows(module.open_tokens(cache, part)))
    lengths = torch.from_numpy(module.token_lengths(cache))[targets]
    return Rows(inputs, targets, lengths, int(module.VOCAB_SIZE))
