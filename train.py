"""Train a small GPT on a fixed budget of time, then hand it to the harness to be scored. Change anything here.

    python prepare.py       # once
    python train.py         # prints the score, val_bpb: bits per byte of held-out text, lower is better
    python train.py --dry   # builds, compiles and stops before it trains: does it start, and how fast?

From the top down: constants, model, optimisers, schedule, loop. The harness (prepare.py) sets the tokenizer, the text,
the budget and the score; `ready()` starts its clock and `hand_over(model)` stops it.

Run: float32 on CPU, eagerly. Written but not yet run on a GPU: bfloat16, torch.compile and flex_attention on CUDA.
Not covered: several GPUs, resuming.
"""

from __future__ import annotations

import gc
import math
import os
import sys
import time
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prepare import MAX_SEQ_LEN, MAX_STEPS, SEED, VOCAB_SIZE, cache_root, hand_over, ready, register_operators

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.nn.attention.flex_attention import BlockMask

    Mask = BlockMask | Tensor | int | None  # of window_mask; the length of the window; all that came before

# ---------------------------------------------------------------- constants: plain literals, one to a line

# the model
DEPTH = 4  # blocks
DIM = 128  # width, a multiple of HEAD_DIM
HEAD_DIM = 64  # even, for the rotation
MLP_RATIO = 4  # hidden width of the MLP, in widths
WINDOW_PATTERN = "L"  # block by block, over and over; L sees all that came before, S a window; the last block is L
SHORT_WINDOW = 64  # tokens that S sees, the one at hand included
ROPE_BASE = 10_000.0  # longest wavelength of the rotation, over 2 pi, in tokens
SOFTCAP = 15.0  # logits stay within plus and minus this
VALUE_EMBEDDINGS = True  # on every second block, the last one included
X0_LAMBDA = 0.1  # how much of the embedding each block sees again, at the start
EMBED_INIT = 1.0  # standard deviation
MATRIX_INIT = 1.0  # standard deviation, in units of 1 / sqrt(width of the input)
HEAD_INIT = 0.001  # standard deviation; small, so that training starts from a uniform guess

# the batch
SEQ_LEN = 128  # tokens of context in training; the harness scores at MAX_SEQ_LEN
BATCH_ROWS = 16  # rows of SEQ_LEN per forward pass
ACCUMULATION = 1  # forward passes per step

# the optimisers: learning rates are those of the plateau
MATRIX_OPTIMIZER = "adamw"  # for the blocks' matrices: "adamw" or "muon"
MATRIX_LR = 0.001
EMBED_LR = 0.001
HEAD_LR = 0.001
SCALAR_LR = 0.001
WEIGHT_DECAY = 0.0  # of the blocks' matrices only, per unit of learning rate
ADAM_BETA1 = 0.9
ADAM_BETA2 = 0.95
ADAM_EPS = 1e-10
MUON_MOMENTUM = 0.95

# the schedule, in shares of the budget
WARMUP = 0.0
WARMDOWN = 0.0  # the learning rate falls in a straight line over this last share
FINAL_LR = 0.05  # what is left of it at the end

LOSS_MAX = 100.0  # a loss above this, or NaN, ends the run at once
PROGRESS_EVERY_S = 0.1  # a step may take 10 ms, and nobody reads 100 lines a second
H100_FLOPS = 989.5e12  # per second, bfloat16 dense (NVIDIA's data sheet, SXM): the field's unit for mfu_percent

register_operators()  # the harness's kernels: torch.ops.nightshift.window_attention


# ---------------------------------------------------------------- the model


def norm(x: Tensor) -> Tensor:
    """RMSNorm over the last dimension, without weights (Zhang and Sennrich, 2019)."""
    return F.rms_norm(x, (x.size(-1),))


class Linear(nn.Linear):
    """No bias; the weight stays float32 and is used in the type of its input. x: (..., in) -> (..., out)."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(n_in, n_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


class Rotary(nn.Module):
    """Rotary position embedding (Su et al., 2021): turns each pair of channels by an angle linear in the position."""

    def __init__(self, head_dim: int, length: int) -> None:
        super().__init__()
        frequencies = ROPE_BASE ** -(torch.arange(0, head_dim, 2).float() / head_dim)
        angles = torch.outer(torch.arange(length).float(), frequencies)  # (length, head_dim / 2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, H, T, D), T at most *length*. Same shape and type; lengths of vectors are kept."""
        cos = self.cos[: x.size(-2)].to(x.dtype)
        sin = self.sin[: x.size(-2)].to(x.dtype)
        a, b = x.chunk(2, dim=-1)
        return torch.cat((a * cos + b * sin, b * cos - a * sin), dim=-1)


def in_window(_batch: int, _head: int, query: Tensor, key: Tensor) -> Tensor:
    """Whether the position *query* sees the position *key* through a short window. The form is flex_attention's."""
    return (query >= key) & (query - key < SHORT_WINDOW)


def window_mask(length: int, device: torch.device) -> BlockMask | Tensor:
    """Short windows over *length* positions: on CUDA by blocks, of which empty ones cost nothing; else bool (T, T)."""
    if device.type == "cuda":
        from torch.nn.attention.flex_attention import create_block_mask  # noqa: PLC0415 - a CPU does without

        return create_block_mask(in_window, None, None, length, length, device=device)
    at = torch.arange(length, device=device)
    return in_window(0, 0, at[:, None], at)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor:
    """Attention of (B, H, T, D), causal, through *mask* if there is one. The kernel of blocks is fast only compiled."""
    if mask is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    if isinstance(mask, int):
        return torch.ops.nightshift.window_attention(q, k, v, mask)
    if isinstance(mask, Tensor):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    from torch.nn.attention.flex_attention import flex_attention  # noqa: PLC0415 - see window_mask

    return flex_attention(q, k, v, block_mask=mask)


class Attention(nn.Module):
    """Causal self-attention with normed queries and keys; with *value_gate*, values may take in a token embedding."""

    GATE_CHANNELS = 32  # of the input decide how much of the value embedding each head takes

    def __init__(self, value_gate: bool) -> None:
        super().__init__()
        self.query = Linear(DIM, DIM)
        self.key = Linear(DIM, DIM)
        self.value = Linear(DIM, DIM)
        self.out = Linear(DIM, DIM)
        self.gate = Linear(min(DIM, self.GATE_CHANNELS), DIM // HEAD_DIM) if value_gate else None

    def forward(self, x: Tensor, value_embedding: Tensor | None, rotary: Rotary, mask: Mask) -> Tensor:
        """x: (B, T, DIM), value_embedding: (B, T, DIM) or None."""
        B, T, _ = x.shape
        q, k, v = (layer(x).view(B, T, -1, HEAD_DIM).transpose(1, 2) for layer in (self.query, self.key, self.value))
        if self.gate is not None:
            gate = 2 * torch.sigmoid(self.gate(x[..., : self.GATE_CHANNELS]))  # (B, T, H); 1 at the start
            extra = value_embedding.view(B, T, -1, HEAD_DIM) * gate.unsqueeze(-1)
            v = v + extra.transpose(1, 2)
        q, k = norm(rotary(q)), norm(rotary(k))  # (B, H, T, HEAD_DIM)
        y = attend(q, k, v, mask)
        return self.out(y.transpose(1, 2).reshape(B, T, DIM))


class MLP(nn.Module):
    """Two matrices with a squared ReLU between (So et al., 2021). (B, T, DIM) -> (B, T, DIM)."""

    def __init__(self) -> None:
        super().__init__()
        self.up = Linear(DIM, MLP_RATIO * DIM)
        self.down = Linear(MLP_RATIO * DIM, DIM)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.relu(self.up(x)).square())


class Block(nn.Module):
    """Attention, then MLP, each added to the stream."""

    def __init__(self, value_gate: bool) -> None:
        super().__init__()
        self.attention = Attention(value_gate)
        self.mlp = MLP()

    def forward(self, x: Tensor, value_embedding: Tensor | None, rotary: Rotary, mask: Mask) -> Tensor:
        x = x + self.attention(norm(x), value_embedding, rotary, mask)
        return x + self.mlp(norm(x))


class GPT(nn.Module):
    """Token ids, int64 (B, T), to logits, float32 (B, T, VOCAB_SIZE): position t predicts token t + 1."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dtype = dtype  # of the activations; weights are float32
        valued = [VALUE_EMBEDDINGS and (DEPTH - 1 - i) % 2 == 0 for i in range(DEPTH)]
        self.embedding = nn.Embedding(VOCAB_SIZE, DIM)
        self.value_embeddings = nn.ModuleDict(
            {str(i): nn.Embedding(VOCAB_SIZE, DIM) for i in range(DEPTH) if valued[i]}
        )
        self.blocks = nn.ModuleList(Block(value_gate) for value_gate in valued)
        self.head = Linear(DIM, VOCAB_SIZE)
        self.residual_lambdas = nn.Parameter(torch.ones(DEPTH))  # of the stream, before each block
        self.x0_lambdas = nn.Parameter(torch.full((DEPTH,), X0_LAMBDA))  # of the embedding, added before each block
        self.rotary = Rotary(HEAD_DIM, max(SEQ_LEN, MAX_SEQ_LEN))
        letters = [WINDOW_PATTERN[i % len(WINDOW_PATTERN)] for i in range(DEPTH - 1)] + ["L"]
        self.is_short = [{"S": True, "L": False}[letter] for letter in letters]
        self.masks = {SEQ_LEN: window_mask(SEQ_LEN, self.head.weight.device)} if any(self.is_short) else {}
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Blocks start as the identity (their last matrices are 0) and gates at 1."""
        for embedding in (self.embedding, *self.value_embeddings.values()):
            embedding.weight.normal_(std=EMBED_INIT)
        for block in self.blocks:
            for layer in (block.attention.query, block.attention.key, block.attention.value, block.mlp.up):
                layer.weight.normal_(std=MATRIX_INIT * DIM**-0.5)
            for layer in (block.attention.out, block.mlp.down, block.attention.gate):
                if layer is not None:
                    layer.weight.zero_()
        self.head.weight.normal_(std=HEAD_INIT)

    def mask_of(self, length: int, device: torch.device) -> Mask:
        """What short windows are told. Scored, they use the harness's kernel, which can be handed over."""
        if not self.training:
            return SHORT_WINDOW
        return self.masks[length] if length in self.masks else window_mask(length, device)

    def forward(self, tokens: Tensor) -> Tensor:
        mask = None
        if any(self.is_short):
            mask = self.mask_of(tokens.size(1), tokens.device)
        x = x0 = norm(self.embedding(tokens).to(self.dtype))
        for i, block in enumerate(self.blocks):
            x = self.residual_lambdas[i].to(x.dtype) * x + self.x0_lambdas[i].to(x.dtype) * x0
            embedded = (
                self.value_embeddings[str(i)](tokens).to(self.dtype) if block.attention.gate is not None else None
            )
            x = block(x, embedded, self.rotary, mask if self.is_short[i] else None)
        logits = self.head(norm(x)).float()
        return SOFTCAP * torch.tanh(logits / SOFTCAP)

    def flops_per_token(self) -> float:
        """Forward and backward: 6 per weight that multiplies, plus attention (Chowdhery et al., 2022, appendix B)."""
        multiplied = sum(p.numel() for p in (*self.blocks.parameters(), *self.head.parameters()))
        seen = sum(min(SHORT_WINDOW, SEQ_LEN) if short else SEQ_LEN for short in self.is_short)
        return 6 * multiplied + 12 * DIM * seen


# ---------------------------------------------------------------- optimisers
# Plain classes: building any torch.optim optimiser imports torch._dynamo, over a second of every start-up.


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    def __init__(self, params: list[nn.Parameter], lr: float, weight_decay: float = 0.0) -> None:
        self.params = params
        self.lr = lr
        self.weight_decay = weight_decay
        self.steps = 0
        self.means = [torch.zeros_like(p) for p in params]
        self.squares = [torch.zeros_like(p) for p in params]

    @torch.no_grad()
    def step(self, lr_scale: float) -> None:
        """Update and clear the gradients. *lr_scale* is the schedule, 0 to 1."""
        self.steps += 1
        lr = self.lr * lr_scale
        correction1 = 1 - ADAM_BETA1**self.steps
        correction2 = math.sqrt(1 - ADAM_BETA2**self.steps)
        for p, mean, square in zip(self.params, self.means, self.squares, strict=True):
            mean.lerp_(p.grad, 1 - ADAM_BETA1)
            square.mul_(ADAM_BETA2).addcmul_(p.grad, p.grad, value=1 - ADAM_BETA2)
            if self.weight_decay:
                p.mul_(1 - lr * self.weight_decay)
            p.addcdiv_(mean, square.sqrt().div_(correction2).add_(ADAM_EPS), value=-lr / correction1)
            p.grad = None


def orthogonalise(g: Tensor) -> Tensor:
    """
    Move the singular values of each matrix of *g*, (N, rows, columns), towards 1, into about 0.7 to 1.2.

    Five Newton-Schulz steps with the coefficients of Keller Jordan's Muon (2024); its aim is speed, not exact ones.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = g.size(-2) > g.size(-1)
    x = g.to(torch.bfloat16) if g.is_cuda else g
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        s = x @ x.mT
        x = a * x + (b * s + c * (s @ s)) @ x
    return (x.mT if tall else x).to(g.dtype)


class Muon:
    """Momentum, orthogonalised (Keller Jordan, 2024): for matrices. Those of one shape are updated as one batch."""

    def __init__(self, params: list[nn.Parameter], lr: float, weight_decay: float = 0.0) -> None:
        self.lr = lr
        self.weight_decay = weight_decay
        shapes = sorted({tuple(p.shape) for p in params})
        self.groups = [[p for p in params if tuple(p.shape) == shape] for shape in shapes]
        self.momenta = [torch.zeros(len(group), *group[0].shape, device=group[0].device) for group in self.groups]

    @torch.no_grad()
    def step(self, lr_scale: float) -> None:
        """Update and clear the gradients. *lr_scale* is the schedule, 0 to 1."""
        lr = self.lr * lr_scale
        for group, momentum in zip(self.groups, self.momenta, strict=True):
            grads = torch.stack([p.grad for p in group])  # (N, rows, columns)
            momentum.lerp_(grads, 1 - MUON_MOMENTUM)
            update = orthogonalise(grads.lerp_(momentum, MUON_MOMENTUM))  # Nesterov: look one step ahead
            rows, columns = group[0].shape
            update *= max(1.0, rows / columns) ** 0.5
            for p, change in zip(group, update, strict=True):
                if self.weight_decay:  # cautious: only where it agrees with the update (Liang et al., 2024)
                    p.sub_(p * (change * p > 0), alpha=lr * self.weight_decay)
                p.sub_(change, alpha=lr)
                p.grad = None


def make_optimizers(model: GPT) -> list[AdamW | Muon]:
    """Every parameter goes to exactly one."""
    matrix = {"adamw": AdamW, "muon": Muon}[MATRIX_OPTIMIZER]
    embeddings = [*model.embedding.parameters(), *model.value_embeddings.parameters()]
    return [
        matrix(list(model.blocks.parameters()), MATRIX_LR, WEIGHT_DECAY),
        AdamW(embeddings, EMBED_LR),
        AdamW(list(model.head.parameters()), HEAD_LR),
        AdamW([model.residual_lambdas, model.x0_lambdas], SCALAR_LR),
    ]


def lr_scale(progress: float) -> float:
    """The share of the learning rate at *progress*, the share of the budget that is spent: up, flat, down."""
    if progress < WARMUP:
        return progress / WARMUP
    if progress > 1 - WARMDOWN:
        left = (1 - progress) / WARMDOWN
        return FINAL_LR + (1 - FINAL_LR) * max(0.0, left)
    return 1.0


# ---------------------------------------------------------------- the loop


def set_threads() -> None:
    """
    One core fewer than there are, unless OMP_NUM_THREADS says otherwise.

    OpenMP's threads spin at barriers: with as many as cores, one busy neighbour slowed training by 6.4x on two cores.
    """
    if not os.environ.get("OMP_NUM_THREADS"):
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores - 1))


def keep_compiled() -> None:
    """
    Keep what is compiled for the experiments after this one: in TORCHINDUCTOR_CACHE_DIR, else below the corpus' cache.

    Comes first: importing the compiler sets the variable to a folder of its own, which may not outlive this process.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_root() / "compiled"))


def loss_of(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats per token."""
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())


def build(device: str) -> tuple[GPT, list[AdamW | Muon], Callable[..., Tensor]]:
    """Model, optimisers and loss; for CUDA, the loss will be compiled at its first call."""
    with torch.device(device):
        model = GPT(torch.bfloat16 if device == "cuda" else torch.float32)
    if device == "cpu":  # compiling takes 10 s for a third more speed, again after each change of the model
        return model, make_optimizers(model), loss_of
    torch.set_float32_matmul_precision("high")
    return model, make_optimizers(model), torch.compile(loss_of, fullgraph=True, dynamic=False)


def warm_up(loss_fn: Callable[..., Tensor], model: nn.Module, device: str) -> None:
    """Compile, and fill caches and pools, on random tokens: the budget is for training."""
    tokens = torch.randint(VOCAB_SIZE, (BATCH_ROWS, SEQ_LEN), device=device)
    loss_fn(model, tokens, tokens.clone()).backward()  # a clone: one tensor given twice would be compiled for that
    model.zero_grad(set_to_none=True)
    if device == "cuda":
        torch.cuda.synchronize()


def fail(step: int, loss: float) -> None:
    """End a run that has diverged: the rest of its budget would be wasted."""
    print(f"\nloss is {loss} at step {step}\nFAIL", flush=True)
    raise SystemExit(1)


def train() -> None:
    """Build, warm up, train until the deadline, hand over."""
    began = time.monotonic()
    keep_compiled()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(SEED)
    set_threads()
    model, optimizers, loss_fn = build(device)
    built = time.monotonic()
    warm_up(loss_fn, model, device)
    if "--dry" in sys.argv[1:]:
        seconds = f"built in {built - began:.1f} s, compiled and warm in {time.monotonic() - built:.1f} s"
        print(f"ready to train on {device}: {sum(p.numel() for p in model.parameters()):,} parameters, {seconds}")
        return
    gc.collect()
    gc.freeze()
    gc.disable()  # nothing here makes cycles, and a collection stops the GPU for up to half a second

    batches, deadline = ready()
    started = last_print = time.monotonic()
    budget_s = deadline - started
    stream = batches.stream(BATCH_ROWS, SEQ_LEN, device)
    batch = next(stream)
    step, progress, smooth = 0, 0.0, 0.0
    while progress < 1:
        step_started = time.monotonic()
        loss = torch.zeros((), device=device)
        for _ in range(ACCUMULATION):
            part = loss_fn(model, *batch) / ACCUMULATION
            part.backward()
            batch = next(stream)  # now, while a GPU is busy with this one
            loss += part.detach()
        for optimizer in optimizers:
            optimizer.step(lr_scale(progress))
        step += 1
        now_loss = loss.item()  # waits for the GPU, so the clock below is honest
        if not now_loss <= LOSS_MAX:
            fail(step, now_loss)
        smooth = 0.9 * smooth + 0.1 * now_loss
        now = time.monotonic()
        progress = step / MAX_STEPS if MAX_STEPS else (now - started) / budget_s
        if now - last_print >= PROGRESS_EVERY_S or progress >= 1:
            last_print = now
            step_s = now - step_started
            print(
                f"\rstep {step:05d} ({min(progress, 1):6.1%}) | loss: {smooth / (1 - 0.9**step):.3f} | "
                f"dt: {1000 * step_s:.0f}ms | tok/s: {ACCUMULATION * BATCH_ROWS * SEQ_LEN / step_s:,.0f} | "
                f"left: {max(0.0, deadline - now):.0f}s  ",
                end="",
                flush=True,
            )

    tokens = step * ACCUMULATION * BATCH_ROWS * SEQ_LEN
    trained_s = time.monotonic() - started
    hand_over(
        model,
        total_tokens=tokens,
        num_steps=step,
        num_params=sum(p.numel() for p in model.parameters()),
        depth=DEPTH,
        mfu_percent=100 * model.flops_per_token() * tokens / trained_s / H100_FLOPS,
    )


if __name__ == "__main__":
    train()
