"""The arithmetic of the score, and in which order rows are scored."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.evaluator import score
from trainer.evaluator.errors import Rejected
from trainer.evaluator.score import Rows, Share, deal

ROWS = Rows(
    inputs=torch.arange(24).reshape(6, 4) % 5,
    targets=torch.arange(1, 25).reshape(6, 4) % 5,
    lengths=(torch.arange(1, 25).reshape(6, 4) % 5 > 0) * 2,
    vocab=5,
)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 200), st.integers(1, 40), st.integers(0, 2**63))
def test_every_row_is_dealt_once_and_never_beside_its_neighbour(rows: int, batch_rows: int, seed: int) -> None:
    dealt = deal(rows, batch_rows, seed)
    assert sorted(number for batch in dealt for number in batch) == list(range(rows))
    for batch in dealt:
        assert 0 < len(batch) <= batch_rows
        assert not {number + 1 for number in batch} & set(batch)


def test_the_seed_decides_the_order() -> None:
    assert deal(64, 8, 1) == deal(64, 8, 1) != deal(64, 8, 2)


def test_a_uniform_guess_costs_the_logarithm_of_the_vocabulary() -> None:
    found = score.nats_by_batch(lambda tokens: torch.zeros(*tokens.shape, 5), ROWS, batch_rows=2, seed=1)
    scored = int((ROWS.lengths > 0).sum())
    assert score.total(found) == pytest.approx(scored * math.log(5), rel=1e-6)
    assert ROWS.n_bytes() == 2 * scored


def test_shares_are_all_of_it() -> None:
    torch.manual_seed(1)
    table = torch.randn(5, 5)

    def nats(share: Share) -> dict[int, float]:
        return score.nats_by_batch(lambda tokens: table[tokens], ROWS, batch_rows=2, seed=1, share=share)

    assert nats(Share(0, 2)) | nats(Share(1, 2)) == nats(Share())


def test_outputs_that_are_not_normalised_gain_nothing() -> None:
    torch.manual_seed(1)
    table = torch.randn(5, 5)
    plain = score.total(score.nats_by_batch(lambda tokens: table[tokens], ROWS, batch_rows=2, seed=1))
    lifted = score.total(score.nats_by_batch(lambda tokens: table[tokens] + 50.0, ROWS, batch_rows=2, seed=1))
    assert lifted == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_no_score(value: float) -> None:
    def run(tokens: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(*tokens.shape, 5)
        logits[-1, -1, -1] = value
        return logits

    with pytest.raises(Rejected, match="not finite") as rejected:
        score.nats_by_batch(run, ROWS, batch_rows=2, seed=1)
    assert rejected.value.outcome == "diverged"


def test_a_program_sees_inputs_and_nothing_else() -> None:
    seen: list[torch.Tensor] = []

    def run(tokens: torch.Tensor) -> torch.Tensor:
        seen.append(tokens)
        return torch.zeros(*tokens.shape, 5)

    score.nats_by_batch(run, ROWS, batch_rows=4, seed=3)
    assert sorted(map(tuple, torch.cat(seen).tolist())) == sorted(map(tuple, ROWS.inputs.tolist()))


@pytest.mark.parametrize("shape", [(4, 5), (2, 4, 6), (2, 3, 5), (1, 4, 5)])
def test_logits_of_another_shape_are_no_score(shape: tuple[int, ...]) -> None:
    with pytest.raises(Rejected, match="expected logits of"):
        score.log_probs(lambda _: torch.zeros(shape), ROWS.inputs[:2], 5)
