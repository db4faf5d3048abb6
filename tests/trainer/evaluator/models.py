"""Eight small language models as people write them, and some that cheat: int64 (rows, T) to (rows, T, VOCAB)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

VOCAB = 300
LENGTH = 32
DIM = 32
HEADS = 2

WINDOW_OPERATOR = "nightshift_test::window_attention"
REGISTER = """

TRUSTED_OPERATORS = ("nightshift_test::window_attention",)


def register_operators() -> None:
    import torch

    if hasattr(torch.ops.nightshift_test, "window_attention"):
        return
    schema = "(Tensor q, Tensor k, Tensor v, int window) -> Tensor"  # annotations are text where they are postponed

    @torch.library.custom_op("nightshift_test::window_attention", mutates_args=(), schema=schema)
    def window_attention(q, k, v, window):
        place = torch.arange(q.size(-2), device=q.device)
        back = place[:, None] - place[None, :]
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=(back >= 0) & (back < window))

    @window_attention.register_fake
    def _(q, k, v, window):
        return torch.empty_like(q)
"""
"""What a harness with a kernel of its own has at its end."""


def register_operators() -> None:
    """As the training child does when it imports prepare.py."""
    namespace: dict[str, object] = {}
    exec(REGISTER, namespace)
    namespace["register_operators"]()  # type: ignore[operator]


class Attention(nn.Module):
    """Causal attention with as many key heads as are asked for."""

    def __init__(self, kv_heads: int = HEADS, window: int = 0, rope: bool = False) -> None:
        super().__init__()
        self.kv_heads, self.window, self.size = kv_heads, window, DIM // HEADS
        self.q = nn.Linear(DIM, DIM, bias=False)
        self.kv = nn.Linear(DIM, 2 * kv_heads * self.size, bias=False)
        self.out = nn.Linear(DIM, DIM, bias=False)
        self.rope = rope
        if rope:
            angles = torch.outer(torch.arange(LENGTH).float(), 100.0 ** -(torch.arange(0, self.size, 2) / self.size))
            self.register_buffer("cos", angles.cos(), persistent=False)
            self.register_buffer("sin", angles.sin())

    def turned(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=-1)
        cos, sin = self.cos[: x.size(-2)].to(x.dtype), self.sin[: x.size(-2)].to(x.dtype)
        return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        rows, length, _ = x.shape
        q = self.q(x).view(rows, length, HEADS, self.size).transpose(1, 2)
        k, v = self.kv(x).view(rows, length, 2, self.kv_heads, self.size).permute(2, 0, 3, 1, 4)
        if extra is not None:
            v = v + extra.view(rows, length, self.kv_heads, self.size).transpose(1, 2)
        if self.rope:
            q, k = self.turned(q), self.turned(k)
        if self.window:
            y = torch.ops.nightshift_test.window_attention(q, k, v, self.window)
        else:
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.kv_heads != HEADS)
        return self.out(y.transpose(1, 2).reshape(rows, length, DIM))


class GPT(nn.Module):
    """Two blocks; what is special about it is said by the arguments."""

    def __init__(
        self, *, tied: bool = False, softcap: float = 0.0, value_embeddings: bool = False, layer_norm: bool = False,
        dropout: float = 0.0, **attention: object,
    ) -> None:  # fmt: skip
        super().__init__()
        self.softcap = softcap
        self.embedding = nn.Embedding(VOCAB, DIM)
        self.positions = nn.Parameter(0.1 * torch.randn(LENGTH, DIM))
        self.attention = nn.ModuleList(Attention(**attention) for _ in range(2))  # type: ignore[arg-type]
        self.mlp = nn.ModuleList(nn.Sequential(nn.Linear(DIM, 64), nn.GELU(), nn.Linear(64, DIM)) for _ in range(2))
        self.values = nn.Embedding(VOCAB, DIM) if value_embeddings else None
        self.gate = nn.Parameter(torch.tensor(0.5))
        self.norm = nn.LayerNorm(DIM) if layer_norm else nn.RMSNorm(DIM)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(DIM, VOCAB, bias=False)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.positions[: tokens.size(1)]
        extra = None if self.values is None else self.gate.sigmoid() * self.values(tokens)
        for attention, mlp in zip(self.attention, self.mlp, strict=True):
            x = x + self.dropout(attention(self.norm(x), extra))
            x = x + mlp(self.norm(x))
        logits = self.head(self.norm(x)).float()
        return self.softcap * torch.tanh(logits / self.softcap) if self.softcap else logits


class Mixer(nn.Module):
    """No attention: a causal convolution for each channel, a triangular mix of positions, and an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, DIM)
        self.conv = nn.Conv1d(DIM, DIM, 4, groups=DIM)
        self.mix = nn.Parameter(torch.randn(LENGTH, LENGTH) * 0.1)
        self.mlp = nn.Sequential(nn.Linear(DIM, 64), nn.SiLU(), nn.Linear(64, DIM))
        self.head = nn.Linear(DIM, VOCAB)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        x = x + self.conv(functional.pad(x.transpose(1, 2), (3, 0))).transpose(1, 2)
        x = x + torch.einsum("st,btd->bsd", self.mix.tril(), x)
        return self.head(x + self.mlp(functional.layer_norm(x, (DIM,))))


ARCHITECTURES = {
    "plain GPT": lambda: GPT(layer_norm=True, dropout=0.1),
    "value embeddings": lambda: GPT(value_embeddings=True),
    "one key head for all": lambda: GPT(kv_heads=1),
    "windows by a trusted operator": lambda: GPT(window=8),
    "softcap": lambda: GPT(softcap=15.0),
    "tied weights": lambda: GPT(tied=True),
    "rotary, in buffers": lambda: GPT(rope=True),
    "convolution and mixer": Mixer,
}


def built(name: str) -> nn.Module:
    """One of `ARCHITECTURES`, always the same, with weights large enough that all of it matters."""
    register_operators()
    torch.manual_seed(3)
    model = ARCHITECTURES[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


class Leak(nn.Module):
    """An honest model, and a look at the next token; with *stealth* only where that is likely anyway."""

    def __init__(self, honest: nn.Module, stealth: bool) -> None:
        super().__init__()
        self.honest, self.stealth = honest, stealth

    def forward(self, tokens: Tensor) -> Tensor:
        logits = self.honest(tokens)
        following = functional.one_hot(torch.cat((tokens[:, 1:], tokens[:, :1]), dim=1), VOCAB).to(logits.dtype)
        if self.stealth:
            likely = logits >= logits.topk(8, dim=-1).values[..., -1:]
            return logits + 1.5 * following * likely
        return logits + 4.0 * following


class NonCausal(nn.Module):
    """Every position sees all of its row, through the mean."""

    def __init__(self, honest: nn.Module) -> None:
        super().__init__()
        self.honest = honest
        self.read = nn.Linear(DIM, VOCAB)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.honest(tokens) + self.read(self.honest.embedding(tokens).mean(dim=1, keepdim=True))


class OtherRows(nn.Module):
    """Every position sees the other rows of its batch."""

    def __init__(self, honest: nn.Module) -> None:
        super().__init__()
        self.honest = honest
        self.read = nn.Linear(DIM, VOCAB)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.honest(tokens) + self.read(self.honest.embedding(tokens).mean(dim=(0, 1), keepdim=True))
