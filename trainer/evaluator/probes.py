"""Does a program look ahead? Two ways to find out, both by changing what it must not know.

`Causality` rides on the scoring: for each row of the first batches it picks a position t by chance, replaces what
follows (token t + 1 drawn from the program's own prediction at t, so that a look ahead which acts only on likely
tokens acts; then the tokens of another row) and runs the same batch again. What the program says up to t must not
move. Rows of one batch are cut at different positions, so a program that looks at other rows moves as well.

`HiddenFuture` is the second opinion: it scores only position t and hides all that follows it. A look ahead, however
rare or well disguised, gains nothing there: the difference to the score as given is what it gained.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.evaluator.score import Batch, Rows, Run, log_probs

ROWS_MAX = 256
TOLERANCE = 1e-3
"""By so much may a log-probability move, in nats: in the same batch, on the same machine, honest models move by 0."""

TOLERANCE_HIDDEN = 1e-3
"""The same for the mean over all positions of the second opinion, in nats a token."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Of *rows* rows, *moved* had an earlier prediction that moved; *largest* is the largest move, in nats."""

    rows: int = 0
    moved: int = 0
    largest: float = 0.0

    def __add__(self, other: Finding) -> Finding:
        return Finding(self.rows + other.rows, self.moved + other.moved, max(self.largest, other.largest))


@dataclass(frozen=True, slots=True)
class Opinion:
    """Nats of *positions* scored tokens, summed: with the row as it is, and with all hidden that follows each."""

    positions: int = 0
    given: float = 0.0
    hidden: float = 0.0

    def __add__(self, other: Opinion) -> Opinion:
        return Opinion(self.positions + other.positions, self.given + other.given, self.hidden + other.hidden)

    @property
    def is_honest(self) -> bool:
        """Whether nothing was gained by what follows."""
        return abs(self.hidden - self.given) <= TOLERANCE_HIDDEN * self.positions


class Causality:
    """
    The probe, to be given to `score.nats_by_batch` as a watch.

    Args:
        run: The program.
        rows: All rows that are scored.
        seed: Of positions and drawn tokens.
        rows_max: How many rows to try: batches from the first on, until there are so many.
        tolerance: By how many nats a log-probability may move.
    """

    def __init__(
        self, run: Run, rows: Rows, seed: int, *, rows_max: int = ROWS_MAX, tolerance: float = TOLERANCE
    ) -> None:
        self._run = run
        self._rows = rows
        self._seed = seed
        self._rows_max = rows_max
        self._tolerance = tolerance
        self.finding = Finding()

    def __call__(self, batch: Batch) -> None:
        length = batch.inputs.size(1)
        if batch.index * len(batch.numbers) >= self._rows_max or length < 2:
            return
        chance = _chance(self._seed, batch.index)
        cuts = torch.randint(0, length - 1, (len(batch.numbers),), generator=chance).to(batch.inputs.device)
        again = log_probs(self._run, self._changed(batch, cuts, chance), self._rows.vocab)
        moves = (again - batch.log_probs).abs_().amax(dim=-1)  # (rows, length)
        kept = torch.arange(length, device=moves.device) <= cuts.unsqueeze(1)
        largest = torch.where(kept, moves, 0.0).amax(dim=1)
        moved = int((largest > self._tolerance).sum())
        self.finding += Finding(len(largest), moved, float(largest.max()))

    def _changed(self, batch: Batch, cuts: Tensor, chance: torch.Generator) -> Tensor:
        """The inputs with other tokens behind each row's cut."""
        inputs = batch.inputs
        at = cuts.unsqueeze(1)
        predicted = batch.log_probs.gather(1, cuts.view(-1, 1, 1).expand(-1, 1, self._rows.vocab)).squeeze(1).exp()
        truth = inputs.gather(1, at + 1)
        predicted = predicted.cpu().scatter_(1, truth.cpu(), 0.0)  # another token than the true one
        predicted += (predicted.sum(dim=1, keepdim=True) <= 0) * 1.0  # it was sure: then any
        drawn = torch.multinomial(predicted, 1, generator=chance).to(inputs.device)
        others = self._rows.inputs[_others(batch.numbers, len(self._rows), chance)].to(inputs.device)
        place = torch.arange(inputs.size(1), device=inputs.device)
        changed = torch.where(place <= at, inputs, others)
        return changed.scatter_(1, at + 1, drawn)


class HiddenFuture:
    """
    The second opinion: scores one position in each of so many rows, with and without what follows it.

    To be given to `score.nats_by_batch` as a watch, as `Causality` is; it takes the scores as given from there.
    """

    def __init__(self, run: Run, rows: Rows, seed: int, *, rows_max: int = ROWS_MAX) -> None:
        self._run = run
        self._rows = rows
        self._seed = seed
        self._rows_max = rows_max
        self.opinion = Opinion()

    def __call__(self, batch: Batch) -> None:
        inputs, numbers, vocab = batch.inputs, batch.numbers, self._rows.vocab
        length, device = inputs.size(1), inputs.device
        if batch.index * len(numbers) >= self._rows_max or length < 2:
            return
        chance = _chance(self._seed + 1, batch.index)
        cuts = torch.randint(0, length - 1, (len(numbers), 1), generator=chance).to(device)
        others = self._rows.inputs[_others(numbers, len(self._rows), chance)].to(device)
        targets = self._rows.targets[numbers].to(device).gather(1, cuts)
        scored = self._rows.lengths[numbers].to(device).gather(1, cuts) > 0
        hidden = torch.where(torch.arange(length, device=device) <= cuts, inputs, others)
        nats = []
        for found in (batch.log_probs, log_probs(self._run, hidden, vocab)):
            at_cut = found.gather(1, cuts.unsqueeze(-1).expand(-1, 1, vocab)).squeeze(1)
            nats.append(-at_cut.gather(1, targets)[scored].double().sum().item())
        self.opinion += Opinion(int(scored.sum()), *nats)


def _chance(seed: int, index: int) -> torch.Generator:
    """For one batch, the same in whatever process and after whatever other batches it is run."""
    return torch.Generator().manual_seed((seed * 1_000_003 + index) % 2**63)


def _others(numbers: list[int], count: int, chance: torch.Generator) -> list[int]:
    """For each row the number of another one, by chance."""
    steps = torch.randint(1, max(2, count), (len(numbers),), generator=chance).tolist()
    return [(number + step) % count for number, step in zip(numbers, steps, strict=True)]
