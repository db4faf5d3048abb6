"""An honest little model and its training, which lie beside every cheat's train.py."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn
from torch.nn import functional

import prepare

DIM, ROWS, STEPS, RATE = 32, 16, 80, 0.01


class Model(nn.Module):
    """One block of causal attention. Token ids, int64 (rows, length), to logits."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(prepare.VOCAB_SIZE, DIM)
        self.positions = nn.Parameter(0.1 * torch.randn(prepare.MAX_SEQ_LEN, DIM))
        self.qkv = nn.Linear(DIM, 3 * DIM, bias=False)
        self.up, self.down = nn.Linear(DIM, 2 * DIM), nn.Linear(2 * DIM, DIM)
        self.head = nn.Linear(DIM, prepare.VOCAB_SIZE)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.positions[: tokens.size(1)]
        x = x + self.attend(*self.qkv(x).unsqueeze(1).chunk(3, dim=-1)).squeeze(1)
        x = x + self.down(self.up(x).relu())
        return self.head(functional.rms_norm(x, (DIM,)))


def train(model: nn.Module, batches: prepare.Batches, deadline: float, steps: int = STEPS) -> nn.Module:
    """Adam for *steps* steps, or until the deadline."""
    stream = batches.stream(ROWS, prepare.MAX_SEQ_LEN, "cpu")
    weights = list(model.parameters())
    means, squares = ([torch.zeros_like(w) for w in weights] for _ in range(2))
    for step in range(1, steps + 1):
        if time.monotonic() > deadline:
            break
        inputs, targets = next(stream)
        loss = functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        for weight, mean, square, slope in zip(
            weights, means, squares, torch.autograd.grad(loss, weights), strict=True
        ):
            mean.lerp_(slope, 0.1)
            square.lerp_(slope * slope, 0.01)
            weight.data -= RATE * (mean / (1 - 0.9**step)) / ((square / (1 - 0.99**step)).sqrt() + 1e-8)
    return model


def finish(model: nn.Module) -> None:
    """What an honest train.py ends with."""
    prepare.hand_over(model, total_tokens=1, num_steps=STEPS, num_params=1, depth=1, mfu_percent=0.0)


def begin() -> None:
    """What it begins with."""
    torch.set_num_threads(1)
    torch.manual_seed(prepare.SEED)


def honest() -> nn.Module:
    """A model trained honestly."""
    begin()
    model = Model()
    return train(model, *prepare.ready())
