"""An honest model gets the score from the evaluator that it would get in place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.trainer.evaluator import models
from tests.trainer.evaluator.conftest import Server
from trainer.evaluator import export, interpret, probes, score
from trainer.evaluator.harness import Harness

HandedOver = Callable[[str], tuple[nn.Module, Path]]


def in_place(loaded: Harness, model: nn.Module, cache: Path) -> float:
    """The score as prepare.py computes it in the training's own process."""
    module = loaded.module
    return module.bits_per_byte(
        *module.sum_of_nats(model, module.open_tokens(cache, "select"), module.token_lengths(cache))
    )


@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_every_architecture_scores_the_same(
    name: str, handed_over: HandedOver, server: Server, loaded: Harness, workspace: tuple[Path, Path]
) -> None:
    model, folder = handed_over(name)
    answer = server.ask(folder, seed=11, probe=True, report=True, second_opinion=True)
    assert answer.outcome == "scored", answer.why
    assert answer.score == pytest.approx(in_place(loaded, model, workspace[1]), abs=1e-5)
    assert answer.report_score is not None and answer.report_score != answer.score
    assert answer.probe is not None and (answer.probe.rows, answer.probe.moved) == (64, 0)
    assert answer.second_opinion is not None
    assert answer.second_opinion.given == pytest.approx(answer.second_opinion.hidden, abs=1e-6)


def test_a_compiled_model_is_handed_over_as_the_module_inside(tmp_path: Path, loaded: Harness) -> None:
    model = models.built("softcap")
    export.hand_over(torch.compile(model, backend="eager"), tmp_path, (2, models.LENGTH))  # type: ignore[arg-type]
    tokens = loaded.select.inputs[:16]
    assert torch.equal(interpret.load(tmp_path)(tokens), model(tokens).detach())


def test_bfloat16_scores_the_same(tmp_path: Path, loaded: Harness, workspace: tuple[Path, Path]) -> None:
    """bfloat16 has 8 bits, and the same operators in the same order round the same way on one machine."""
    model = models.built("rotary, in buffers").bfloat16()
    export.hand_over(model, tmp_path, (2, models.LENGTH))
    program = interpret.load(tmp_path)
    probe = probes.Causality(program, loaded.select, 1)
    nats = score.nats_by_batch(program, loaded.select, batch_rows=16, seed=1, watches=[probe])
    found = loaded.bits_per_byte(nats, loaded.select)
    difference = abs(found - in_place(loaded, model, workspace[1]))
    print(f"bfloat16: {difference:.2e} bits per byte apart, largest move {probe.finding.largest:.2e} nats")
    assert difference < 1e-3 and probe.finding.moved == 0


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # of torch about itself
def test_a_compiled_model_scores_nearly_the_same(
    handed_over: HandedOver, server: Server, loaded: Harness, workspace: tuple[Path, Path]
) -> None:
    """Compiled code adds in another order than the operators that the evaluator runs."""
    model, folder = handed_over("rotary, in buffers")
    compiled = torch.compile(model, fullgraph=True)
    answer = server.ask(folder)
    assert answer.score is not None
    difference = abs(answer.score - in_place(loaded, compiled, workspace[1]))  # type: ignore[arg-type]
    print(f"compiled: {difference:.2e} bits per byte apart")
    assert difference < 1e-5


def test_autocast_in_the_model_becomes_plain_operators(tmp_path: Path, loaded: Harness) -> None:
    class Autocast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = models.built("plain GPT")

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return self.inner(tokens)

    model = Autocast()
    export.hand_over(model, tmp_path, (2, models.LENGTH))
    tokens = loaded.select.inputs[:16]
    with torch.no_grad():
        assert torch.allclose(interpret.load(tmp_path)(tokens), model.eval()(tokens), atol=0.05)


def test_writing_in_place_into_a_new_tensor_is_fine(tmp_path: Path, loaded: Harness) -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = models.built("plain GPT")

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            logits = self.inner(tokens)
            logits += 1.0
            logits[..., 0] = -5.0
            return logits.mul_(0.5)

    model = InPlace()
    export.hand_over(model, tmp_path, (2, models.LENGTH))
    tokens = loaded.select.inputs[:16]
    with torch.no_grad():
        assert torch.equal(interpret.load(tmp_path)(tokens), model.eval()(tokens))


def test_tied_weights_are_stored_once(handed_over: HandedOver) -> None:
    tied, plain = (interpret.load(handed_over(name)[1]) for name in ("tied weights", "softcap"))
    assert len(tied.weights) == len(plain.weights) - 1


def test_the_order_of_rows_moves_no_score(handed_over: HandedOver, server: Server) -> None:
    _, folder = handed_over("softcap")
    first, again, other = (server.ask(folder, seed=seed).score for seed in (1, 1, 2))
    assert first is not None and first == again and other == pytest.approx(first, abs=1e-6)


def test_training_goes_on_as_before_after_the_model_was_handed_over(tmp_path: Path) -> None:
    model = models.built("plain GPT").train()
    export.hand_over(model, tmp_path, (2, models.LENGTH))
    assert all(module.training for module in model.modules())
