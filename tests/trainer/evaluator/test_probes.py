"""Who looks ahead is found out; who does not never is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.trainer.evaluator import models
from tests.trainer.evaluator.conftest import Server
from trainer.evaluator import export, probes, score
from trainer.evaluator.harness import Harness
from trainer.evaluator.score import Rows

HandedOver = Callable[[str], tuple[nn.Module, Path]]


@pytest.fixture(scope="module")
def cheats(loaded: Harness) -> dict[str, nn.Module]:
    """Four that look ahead, around an honest model that has learned a little: its likely tokens are likely ones."""
    honest = models.built("softcap")
    rows = loaded.select
    optimizer = torch.optim.SGD(honest.parameters(), lr=0.5, momentum=0.9)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(honest(rows.inputs).flatten(0, 1), rows.targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(honest.parameters(), 1.0)
        optimizer.step()
    assert loss.item() < 4.0
    torch.manual_seed(4)
    return {
        "the next token": models.Leak(honest, stealth=False),
        "the next token, where it is likely": models.Leak(honest, stealth=True),
        "attention to all": models.NonCausal(honest),
        "other rows": models.OtherRows(honest),
    }


@pytest.fixture(scope="module")
def many(loaded: Harness) -> Rows:
    """256 rows."""
    rows = loaded.select
    return Rows(rows.inputs.repeat(4, 1), rows.targets.repeat(4, 1), rows.lengths.repeat(4, 1), rows.vocab)


@pytest.mark.parametrize("seed", [1, 2])
def test_an_honest_model_passes_in_all_rows(seed: int, handed_over: HandedOver, many: Rows) -> None:
    model = handed_over("rotary, in buffers")[0].eval()
    with torch.no_grad():
        probe = probes.Causality(model, many, seed)
        second = probes.HiddenFuture(model, many, seed)
        score.nats_by_batch(model, many, batch_rows=16, seed=seed, watches=[probe, second])
        opinion = second.opinion
    assert (probe.finding.rows, probe.finding.moved) == (256, 0)
    assert probe.finding.largest < 1e-5
    assert opinion.positions >= 200 and opinion.given == opinion.hidden


@pytest.mark.parametrize(
    "what", ["the next token", "the next token, where it is likely", "attention to all", "other rows"]
)
def test_a_look_ahead_is_tampering(
    what: str, cheats: dict[str, nn.Module], tmp_path: Path, server: Server, many: Rows
) -> None:
    model = cheats[what].eval()
    export.hand_over(model, tmp_path, (2, models.LENGTH))
    probed = server.ask(tmp_path, probe=True, seed=5)
    assert (probed.outcome, probed.score) == ("tampered", None)
    assert "it looks at later tokens or at other rows" in probed.why
    with torch.no_grad():
        probe = probes.Causality(model, many, 5)
        claimed = score.nats_by_batch(model, many, batch_rows=16, seed=5, watches=[probe])
    found = probe.finding
    print(
        f"{what}: {found.moved} of {found.rows} rows moved, "
        f"{score.total(claimed) / many.n_bytes():.3f} nats a byte claimed"
    )
    assert found.moved > 128


@pytest.mark.parametrize("what", ["the next token", "the next token, where it is likely"])
def test_what_the_look_ahead_gained_is_gone_with_the_future_hidden(
    what: str, cheats: dict[str, nn.Module], tmp_path: Path, server: Server
) -> None:
    export.hand_over(cheats[what], tmp_path, (2, models.LENGTH))
    answer = server.ask(tmp_path, second_opinion=True, seed=5)
    assert (answer.outcome, answer.score) == ("tampered", None)
    assert answer.second_opinion is not None
    assert answer.second_opinion.hidden > answer.second_opinion.given + 0.05
    assert "where what follows is hidden" in answer.why


def test_a_model_that_is_sure_of_everything_can_be_probed(many: Rows) -> None:
    """It gives the true token all probability that float32 has, so no other one can be drawn from it."""

    def sure(tokens: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(tokens, many.vocab) * 1e6

    rows = Rows(many.inputs, many.inputs, many.lengths, many.vocab)
    probe = probes.Causality(sure, rows, 1)
    score.nats_by_batch(sure, rows, batch_rows=16, seed=1, watches=[probe])
    assert probe.finding.moved == 0
