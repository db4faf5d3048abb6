"""The score of a program on the harness's rows: inputs in, logits out, everything else is computed here.

The log-softmax is ours, in float32 over the whole vocabulary, so outputs that are not normalised gain nothing. Rows
are shuffled by a seed, and two rows that stand beside each other in the text are never in one batch: the last target
of one may be the first input of the next. The sums are of the same float32 losses as in the harness itself, so an
honest model gets the score that it would get in place.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.evaluator.errors import Rejected
from trainer.evaluator.interpret import check_logits

Run = Callable[[Tensor], Tensor]
"""A program: int64 (rows, length) to logits (rows, length, vocab)."""

Watch = Callable[["Batch"], None]


@dataclass(frozen=True, slots=True)
class Rows:
    """
    What is scored.

    Attributes:
        inputs, targets: int64 (rows, length); the targets are never given to a program.
        lengths: Bytes of each target, int64 (rows, length); 0: it is not scored.
        vocab: How many tokens there are.
    """

    inputs: Tensor
    targets: Tensor
    lengths: Tensor
    vocab: int

    def __len__(self) -> int:
        return len(self.inputs)

    def n_bytes(self) -> int:
        """Of all targets."""
        return int(self.lengths.sum())


@dataclass(frozen=True, slots=True)
class Share:
    """Every *of*-th batch beginning with the *number*-th: the part of the work that one process does."""

    number: int = 0
    of: int = 1


ALL = Share()


@dataclass(frozen=True, slots=True)
class Batch:
    """
    Rows that were run together.

    Attributes:
        index: Which batch of the deal it is.
        numbers: Of the rows.
        inputs: int64 (rows, length).
        log_probs: float32 (rows, length, vocab).
    """

    index: int
    numbers: list[int]
    inputs: Tensor
    log_probs: Tensor


def deal(rows: int, batch_rows: int, seed: int) -> list[list[int]]:
    """
    Deal *rows* rows into batches of at most *batch_rows*, by chance, row n and n + 1 never into the same one.

    Each round deals one row to each batch, in an order of its own, which does not begin where the last one ended.
    """
    if rows < 2:
        return [[number] for number in range(rows)]
    chance = random.Random(seed)
    count = max(2, -(-rows // batch_rows))
    batches: list[list[int]] = [[] for _ in range(count)]
    order = list(range(count))
    last = -1
    for start in range(0, rows, count):
        chance.shuffle(order)
        if order[0] == last:
            order[0], order[-1] = order[-1], order[0]
        for number, batch in zip(range(start, min(start + count, rows)), order, strict=False):
            batches[batch].append(number)
        last = order[-1]
    for dealt in batches:
        chance.shuffle(dealt)
    chance.shuffle(batches)
    return [dealt for dealt in batches if dealt]


def log_probs(run: Run, inputs: Tensor, vocab: int) -> Tensor:
    """
    Log-probabilities of *run* on *inputs*, float32 (rows, length, vocab).

    Raises:
        Rejected: `crash` if the output has another shape or type, `diverged` if it has a value that is not finite.
    """
    logits = check_logits(run(inputs), (*inputs.shape, vocab)).float()
    found = torch.log_softmax(logits, dim=-1)
    if not bool(torch.isfinite(logits).all()):
        raise Rejected("diverged", "the model's output is not finite: it has NaN or infinity in it")
    return found


def nats_by_batch(
    run: Run,
    rows: Rows,
    *,
    batch_rows: int,
    seed: int,
    device: str = "cpu",
    share: Share = ALL,
    watches: Sequence[Watch] = (),
    rows_max: int | None = None,
) -> dict[int, float]:
    """
    The sum of -ln p over the scored targets of each batch of *share*, in nats, summed in float64.

    Args:
        watches: They see every batch while its log-probabilities are there.
        rows_max: Stop with the batch that has the last of so many rows; None: all.

    Raises:
        Rejected: See `log_probs`.
    """
    found = {}
    for index, numbers in list(enumerate(deal(len(rows), batch_rows, seed)))[share.number :: share.of]:
        if rows_max is not None and index * len(numbers) >= rows_max:
            break
        inputs = rows.inputs[numbers].to(device)
        batch = Batch(index, numbers, inputs, log_probs(run, inputs, rows.vocab))
        targets = rows.targets[numbers].to(device)
        scored = rows.lengths[numbers].to(device) > 0
        losses = -batch.log_probs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        found[index] = losses[scored].double().sum().item()
        for watch in watches:
            watch(batch)
    return found


def total(by_batch: Mapping[int, float]) -> float:
    """The sum over batches in their order, which no number of shares changes."""
    return sum(by_batch[index] for index in sorted(by_batch))
