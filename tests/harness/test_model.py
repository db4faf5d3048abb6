"""The pieces of train.py and the arithmetic of the score, on tensors small enough to check by hand."""

from __future__ import annotations

import ast
import math
import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

    from conftest import Maker, Workspace


@pytest.fixture(scope="module")
def train(prepared: Workspace) -> ModuleType:
    """train.py with 2 blocks, width 32, 300 tokens."""
    torch.set_num_threads(1)
    return prepared.module("train")


@pytest.fixture(scope="module")
def prepare(prepared: Workspace) -> ModuleType:
    return prepared.module("prepare")


@pytest.fixture
def model(train: ModuleType) -> torch.nn.Module:
    """A model whose every weight matters: trained ones are not zero either."""
    torch.manual_seed(1)
    model = train.GPT()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


# ---------------------------------------------------------------- the model


def test_tokens_become_logits_of_every_position(train: ModuleType, model: torch.nn.Module) -> None:
    logits = model(torch.randint(300, (3, 17)))
    assert logits.shape == (3, 17, 300)
    assert logits.dtype == torch.float32
    assert logits.abs().max() <= train.SOFTCAP


def test_a_fresh_model_guesses_evenly(train: ModuleType) -> None:
    torch.manual_seed(1)
    tokens = torch.randint(300, (4, 32))
    assert train.loss_of(train.GPT(), tokens, tokens).item() == pytest.approx(math.log(300), abs=1e-3)


def test_a_later_token_moves_no_earlier_output(model: torch.nn.Module) -> None:
    torch.manual_seed(2)
    tokens = torch.randint(300, (2, 32))
    with torch.no_grad():
        before = model(tokens)
        for at in (1, 16, 31):
            changed = tokens.clone()
            changed[:, at:] = (changed[:, at:] + 1) % 300
            after = model(changed)
            assert torch.allclose(before[:, :at], after[:, :at], atol=1e-5)
            assert not torch.allclose(before[:, at:], after[:, at:], atol=1e-2)


def test_earlier_tokens_do_move_later_outputs(model: torch.nn.Module) -> None:
    tokens = torch.arange(32)[None] % 300
    changed = tokens.clone()
    changed[:, 0] += 1
    with torch.no_grad():
        assert not torch.allclose(model(tokens)[:, -1], model(changed)[:, -1], atol=1e-4)


def test_the_rotation_keeps_lengths_and_sees_only_distances(train: ModuleType) -> None:
    torch.manual_seed(3)
    rotary = train.Rotary(16, 32)
    x = torch.randn(2, 4, 32, 16)
    assert torch.allclose(rotary(x).norm(dim=-1), x.norm(dim=-1), atol=1e-5)
    q, k = (torch.randn(1, 1, 1, 16).expand(1, 1, 32, 16) for _ in range(2))
    products = rotary(q)[0, 0] @ rotary(k)[0, 0].T  # (T, T)
    for distance in range(-31, 32):
        diagonal = products.diagonal(distance)
        assert torch.allclose(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-4)
    assert not torch.allclose(products[0, 0], products[0, 5], atol=1e-2)


def test_the_norm_has_unit_mean_square(train: ModuleType) -> None:
    x = 7 * torch.randn(5, 32)
    assert torch.allclose(train.norm(x).square().mean(dim=-1), torch.ones(5), atol=1e-3)


def test_value_embeddings_are_on_alternate_blocks_the_last_included(make: Maker, corpus: Path, tmp_path: Path) -> None:
    for depth, expected in ((1, ["0"]), (2, ["1"]), (3, ["0", "2"]), (4, ["1", "3"])):
        workspace = make.workspace(tmp_path / str(depth), corpus, train={"DEPTH": depth})
        assert list(workspace.module("train").GPT().value_embeddings) == expected


def test_activations_may_be_bfloat16_with_float32_weights(train: ModuleType, model: torch.nn.Module) -> None:
    tokens = torch.arange(32)[None]
    half = train.GPT(torch.bfloat16)
    half.load_state_dict(model.state_dict())
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float32}
    logits = half(tokens)
    assert logits.dtype == torch.float32
    assert torch.allclose(logits, model(tokens), atol=0.5)
    logits.sum().backward()


# ---------------------------------------------------------------- windows


@pytest.fixture(scope="module")
def windowed(make: Maker, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """train.py with 5 blocks that see 9 tokens, 9, all, 9, all; trained and scored on rows of 160."""
    folder = tmp_path_factory.mktemp("windowed") / "workspace"
    changes = {"DEPTH": 5, "WINDOW_PATTERN": "SSL", "SHORT_WINDOW": 9, "SEQ_LEN": 160}
    return make.workspace(folder, corpus, prepare={"MAX_SEQ_LEN": 160}, train=changes).module("train")


def by_hand(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int) -> torch.Tensor:
    """Causal attention through a window, written out position by position."""
    rows = []
    for t in range(q.size(-2)):
        seen = slice(max(0, t - window + 1), t + 1)
        scores = q[..., t : t + 1, :] @ k[..., seen, :].mT / q.size(-1) ** 0.5
        rows.append(scores.softmax(-1) @ v[..., seen, :])
    return torch.cat(rows, dim=-2)


def block_mask(train: ModuleType, length: int, device: str = "cpu") -> object:
    """What `window_mask` makes on CUDA, here for a CPU, where the kernel of blocks has a slow twin."""
    from torch.nn.attention.flex_attention import create_block_mask

    return create_block_mask(train.in_window, None, None, length, length, device=device)


def slow_twin(call: Callable[..., torch.Tensor], *values: object) -> torch.Tensor:
    """Call without gradients, and without the warning that this is the slow form."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", "flex_attention called without torch.compile")
        return call(*values)


@pytest.mark.parametrize("length", [1, 8, 9, 10, 33, 128, 300])
def test_attention_by_blocks_by_a_mask_and_by_hand_agree(windowed: ModuleType, length: int) -> None:
    torch.manual_seed(8)
    q, k, v = (torch.randn(2, 3, length, 16) for _ in range(3))
    expected = by_hand(q, k, v, windowed.SHORT_WINDOW)
    masked = windowed.attend(q, k, v, windowed.window_mask(length, torch.device("cpu")))
    blocks = slow_twin(windowed.attend, q, k, v, block_mask(windowed, length))
    assert masked.shape == blocks.shape == q.shape
    assert torch.allclose(masked, expected, atol=1e-5)
    assert torch.allclose(blocks, expected, atol=1e-5)


def test_gradients_through_the_mask_are_those_by_hand(windowed: ModuleType) -> None:
    torch.manual_seed(9)
    values = [torch.randn(1, 2, 40, 16, requires_grad=True) for _ in range(3)]
    weights = torch.randn(1, 2, 40, 16)
    gradients = []
    for y in (
        windowed.attend(*values, windowed.window_mask(40, torch.device("cpu"))),
        by_hand(*values, windowed.SHORT_WINDOW),
    ):
        gradients.append(torch.autograd.grad((y * weights).sum(), values))
    for ours, expected in zip(*gradients, strict=True):
        assert torch.allclose(ours, expected, atol=1e-5)


def test_a_window_as_long_as_the_text_is_no_window(windowed: ModuleType) -> None:
    torch.manual_seed(10)
    q, k, v = (torch.randn(1, 2, 9, 16) for _ in range(3))
    mask = windowed.window_mask(9, torch.device("cpu"))
    assert torch.allclose(windowed.attend(q, k, v, mask), windowed.attend(q, k, v, None), atol=1e-6)


def test_the_loss_of_the_model_is_the_same_by_blocks_and_by_masks_and_another_without(windowed: ModuleType) -> None:
    torch.manual_seed(11)
    model = windowed.GPT()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    inputs, targets = torch.randint(300, (2, 3, 160))
    by_masks = windowed.loss_of(model, inputs, targets).item()
    model.masks = {160: block_mask(windowed, 160)}
    by_blocks = slow_twin(windowed.loss_of, model, inputs, targets).item()
    model.is_short = [False] * 5
    without = windowed.loss_of(model, inputs, targets).item()
    assert by_blocks == pytest.approx(by_masks, abs=1e-5)
    assert abs(without - by_masks) > 1e-3


def test_the_windowed_model_is_one_graph_to_the_compiler(windowed: ModuleType) -> None:
    """`fullgraph` refuses a model that it would have to cut; what the graph is turned into is another matter."""
    torch.manual_seed(12)
    model = windowed.GPT()
    model.masks = {160: block_mask(windowed, 160)}
    inputs, targets = torch.randint(300, (2, 3, 160))
    expected = slow_twin(windowed.loss_of, model, inputs, targets)
    compiled = torch.compile(windowed.loss_of, fullgraph=True, dynamic=False, backend="aot_eager")
    try:
        assert torch.allclose(slow_twin(compiled, model, inputs, targets), expected, atol=1e-5)
    finally:
        torch.compiler.reset()


def test_the_pattern_goes_on_over_the_blocks_and_the_last_sees_all(windowed: ModuleType) -> None:
    model = windowed.GPT()
    assert model.is_short == [True, True, False, True, False]
    assert sorted(model.masks) == [160]
    seen = 3 * 9 + 2 * 160
    multiplied = sum(p.numel() for p in (*model.blocks.parameters(), *model.head.parameters()))
    assert model.flops_per_token() == 6 * multiplied + 12 * windowed.DIM * seen


def test_without_windows_no_mask_is_made(train: ModuleType, model: torch.nn.Module) -> None:
    assert model.masks == {}
    assert model.is_short == [False, False]


@pytest.mark.gpu
def test_on_a_gpu_compiled_blocks_give_the_loss_and_the_gradients_of_the_mask(windowed: ModuleType) -> None:
    torch.manual_seed(13)
    device = torch.device("cuda")
    with device:
        model = windowed.GPT()
        for parameter in model.parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    inputs, targets = torch.randint(300, (2, 3, 160), device=device)
    found = []
    for masks, loss_fn in (
        ({160: windowed.window_mask(160, torch.device("cpu")).to(device)}, windowed.loss_of),
        ({160: windowed.window_mask(160, device)}, torch.compile(windowed.loss_of, fullgraph=True, dynamic=False)),
    ):
        model.masks = masks
        loss = loss_fn(model, inputs, targets)
        found.append((loss, torch.autograd.grad(loss, list(model.parameters()))))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-4)
    for ours, expected in zip(found[1][1], found[0][1], strict=True):
        assert torch.allclose(ours, expected, atol=1e-3, rtol=1e-2)


# ---------------------------------------------------------------- optimisers and schedule


def test_every_parameter_has_exactly_one_optimiser(make: Maker, corpus: Path, tmp_path: Path) -> None:
    for kind in ("adamw", "muon"):
        train = make.workspace(tmp_path / kind, corpus, train={"MATRIX_OPTIMIZER": kind}).module("train")
        model = train.GPT()
        held = []
        for optimizer in train.make_optimizers(model):
            groups = optimizer.groups if isinstance(optimizer, train.Muon) else [optimizer.params]
            held += [parameter for group in groups for parameter in group]
        assert sorted(map(id, held)) == sorted(map(id, model.parameters()))


def test_adamw_is_pytorchs_adamw(train: ModuleType) -> None:
    torch.manual_seed(4)
    ours, theirs = (torch.nn.Parameter(torch.ones(3, 4)) for _ in range(2))
    own = train.AdamW([ours], lr=0.1, weight_decay=0.2)
    reference = torch.optim.AdamW(
        [theirs], lr=0.1, betas=(train.ADAM_BETA1, train.ADAM_BETA2), eps=train.ADAM_EPS, weight_decay=0.2
    )
    for _ in range(5):
        gradient = torch.randn(3, 4)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        own.step(1.0)
        reference.step()
        assert ours.grad is None
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_muon_steps_along_a_nearly_orthogonal_matrix(train: ModuleType) -> None:
    torch.manual_seed(5)
    for rows, columns in ((8, 8), (32, 8), (8, 32)):
        singular = torch.linalg.svdvals(train.orthogonalise(torch.randn(3, rows, columns)))
        assert singular.min() > 0.3
        assert singular.max() < 1.3


def test_matrices_stacked_into_one_batch_move_as_each_would_alone(train: ModuleType) -> None:
    torch.manual_seed(14)
    shapes = ((8, 8), (32, 8), (8, 8), (8, 32), (32, 8), (2, 8), (8, 8))
    alone = [torch.nn.Parameter(torch.randn(*shape)) for shape in shapes]
    stacked = [torch.nn.Parameter(weight.detach().clone()) for weight in alone]
    one_by_one = [train.Muon([weight], lr=0.1, weight_decay=0.3) for weight in alone]
    together = train.Muon(stacked, lr=0.1, weight_decay=0.3)
    assert len(together.groups) == 4
    for step in range(5):
        for weight, twin in zip(alone, stacked, strict=True):
            weight.grad = torch.randn_like(weight)
            twin.grad = weight.grad.clone()
        for optimizer in one_by_one:
            optimizer.step(1 - step / 5)
        together.step(1 - step / 5)
    for weight, twin in zip(alone, stacked, strict=True):
        assert torch.allclose(weight, twin, atol=1e-5)


def test_muon_makes_matrices_of_every_shape_fit_a_target(train: ModuleType) -> None:
    torch.manual_seed(6)
    weights = [torch.nn.Parameter(torch.zeros(*shape)) for shape in ((8, 8), (16, 8), (8, 8), (8, 16))]
    targets = [torch.randn_like(weight) for weight in weights]
    optimizer = train.Muon(weights, lr=0.2)

    def distance() -> torch.Tensor:
        return sum((w - t).square().sum() for w, t in zip(weights, targets, strict=True))

    first = distance().item()
    for step in range(100):
        distance().backward()
        optimizer.step(1 - step / 100)
    assert distance().item() < 0.01 * first


def test_cautious_decay_shrinks_only_where_it_agrees_with_the_update(train: ModuleType) -> None:
    torch.manual_seed(7)
    plain, decayed = (torch.nn.Parameter(torch.ones(8, 8)) for _ in range(2))
    gradient = torch.randn(8, 8)
    plain.grad, decayed.grad = gradient.clone(), gradient.clone()
    train.Muon([plain], lr=0.1).step(1.0)
    train.Muon([decayed], lr=0.1, weight_decay=0.5).step(1.0)
    downward = plain < 1
    assert torch.allclose(decayed[downward], plain[downward] - 0.05, atol=1e-6)
    assert torch.equal(decayed[~downward], plain[~downward])


def test_the_learning_rate_rises_stays_and_falls(make: Maker, corpus: Path, tmp_path: Path) -> None:
    changes = {"WARMUP": 0.1, "WARMDOWN": 0.5, "FINAL_LR": 0.2}
    train = make.workspace(tmp_path / "workspace", corpus, train=changes).module("train")
    table = {0.0: 0.0, 0.05: 0.5, 0.1: 1.0, 0.5: 1.0, 0.75: 0.6, 1.0: 0.2, 1.1: 0.2}
    assert {at: round(train.lr_scale(at), 9) for at in table} == table


def test_without_warmup_and_warmdown_it_stays(train: ModuleType) -> None:
    assert [train.lr_scale(at) for at in (0.0, 0.5, 1.0)] == [1.0, 1.0, 1.0]


# ---------------------------------------------------------------- the score


class Uniform(torch.nn.Module):
    """Gives every token the same chance; *bonus* raises the logit of BOS."""

    def __init__(self, bonus: float = 0.0, width: int = 300) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(torch.zeros(width))
        self.seen: list[torch.Tensor] = []
        with torch.no_grad():
            self.logits[-1] = bonus

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        self.seen.append(tokens)
        return self.logits.expand(*tokens.shape, -1)


def select_part(prepare: ModuleType, prepared: Workspace) -> tuple[np.ndarray, np.ndarray]:
    folder = next(prepared.cache.glob("*/manifest.json")).parent
    return prepare.open_tokens(folder, "select"), prepare.token_lengths(folder)


def test_an_even_guess_costs_log2_of_the_vocabulary_per_token(prepare: ModuleType, prepared: Workspace) -> None:
    tokens, lengths = select_part(prepare, prepared)
    targets = prepare.evaluation_rows(tokens)[1]
    assert targets.shape == (64, 32)  # 2048 tokens in rows of 32
    scored = targets[targets != prepare.BOS]
    assert 0 < len(scored) < targets.size  # there is a BOS among them, and it is not scored
    nats, n_bytes = prepare.sum_of_nats(Uniform(), tokens, lengths)
    assert n_bytes == lengths[scored].sum()
    assert nats == pytest.approx(len(scored) * math.log(300), rel=1e-6)
    expected = math.log2(300) * len(scored) / n_bytes
    assert prepare.bits_per_byte(nats, n_bytes) == pytest.approx(expected, rel=1e-6)


def test_a_certain_wrong_guess_is_paid_in_full(prepare: ModuleType) -> None:
    """Two rows by hand: tokens 0 to 64, each of 2 bytes, and a model that is sure of BOS."""
    lengths = np.full(300, 2)
    lengths[299] = 0
    nats, n_bytes = prepare.sum_of_nats(Uniform(bonus=20.0), np.arange(65, dtype=np.uint16), lengths)
    assert n_bytes == 2 * 64
    assert nats == pytest.approx(64 * math.log(math.exp(20) + 299), rel=1e-6)
    assert prepare.bits_per_byte(nats, n_bytes) == pytest.approx(20 / 2 / math.log(2), rel=1e-4)


def test_the_score_does_not_depend_on_how_rows_are_batched(
    prepare: ModuleType, prepared: Workspace, make: Maker, corpus: Path, tmp_path: Path, model: torch.nn.Module
) -> None:
    tokens, lengths = select_part(prepare, prepared)
    scores = [prepare.sum_of_nats(model, tokens, lengths)]
    for number, at_once in enumerate((1, 96, 1000)):
        changes = {"EVAL_BATCH_TOKENS": at_once}
        other = make.workspace(tmp_path / str(number), corpus, prepare=changes).module("prepare")
        scores.append(other.sum_of_nats(model, tokens, lengths))
    assert scores == [(pytest.approx(scores[0][0], rel=1e-6), scores[0][1])] * 4


def test_rows_lie_apart_and_reach_over_the_whole_part(prepare: ModuleType) -> None:
    tokens = np.arange(60_000, dtype=np.uint16)
    inputs, targets = prepare.evaluation_rows(tokens)
    assert inputs.shape == (64, 32)
    assert (targets == inputs + 1).all()
    assert inputs[0, 0] == 0
    assert targets[-1, -1] == 59_999
    assert (np.diff(inputs[:, 0]) >= 32).all()


def test_a_short_part_is_scored_whole(prepare: ModuleType) -> None:
    inputs, targets = prepare.evaluation_rows(np.arange(100, dtype=np.uint16))
    assert inputs.shape == (3, 32)
    assert len(np.unique(targets)) == 96


def test_the_model_is_asked_for_rows_of_the_harness_and_shown_no_target(
    prepare: ModuleType, prepared: Workspace
) -> None:
    tokens, lengths = select_part(prepare, prepared)
    model = Uniform()
    prepare.sum_of_nats(model, tokens, lengths)
    assert np.array_equal(torch.cat(model.seen).numpy(), prepare.evaluation_rows(tokens)[0])
    assert not model.training


def test_logits_of_a_wrong_shape_are_refused(prepare: ModuleType, prepared: Workspace) -> None:
    tokens, lengths = select_part(prepare, prepared)
    with pytest.raises(RuntimeError, match=r"returned \(64, 32, 299\), expected \(64, 32, 300\)"):
        prepare.sum_of_nats(Uniform(width=299), tokens, lengths)


# ---------------------------------------------------------------- batches


def test_batches_are_windows_of_the_text_one_token_apart_and_follow_the_seed(prepare: ModuleType) -> None:
    tokens = np.arange(5000, dtype=np.uint16)
    stream = prepare.Batches(tokens, seed=1).stream(rows=8, length=16)
    again = prepare.Batches(tokens, seed=1).stream(rows=8, length=16)
    other = prepare.Batches(tokens, seed=2).stream(rows=8, length=16)
    seen = []
    for _ in range(50):
        inputs, targets = next(stream)
        assert inputs.shape == targets.shape == (8, 16)
        assert inputs.dtype == targets.dtype == torch.int64
        assert torch.equal(targets, inputs + 1)
        assert torch.equal(inputs, next(again)[0])
        assert not torch.equal(inputs, next(other)[0])
        seen.append(inputs[:, 0])
    starts = torch.cat(seen)
    assert starts.min() < 100
    assert starts.max() > 4800


def test_a_batch_may_reach_the_last_token_but_not_beyond(prepare: ModuleType) -> None:
    stream = prepare.Batches(np.arange(17, dtype=np.uint16), seed=1).stream(rows=4, length=16)
    assert next(stream)[1][:, -1].tolist() == [16] * 4
    with pytest.raises(ValueError, match="rows of 17 tokens do not fit into 17 training tokens"):
        next(prepare.Batches(np.arange(17, dtype=np.uint16), seed=1).stream(rows=1, length=17))


# ---------------------------------------------------------------- a file that people enjoy changing


def test_train_py_is_short_and_its_constants_are_literals(make: Maker) -> None:
    """A sweep sets them, so each stands once, at the top level, as a plain value."""
    text = (make.shipped / "train.py").read_text()
    assert len(text.splitlines()) < 500
    names = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper():
            ast.literal_eval(node.value)
            assert node.targets[0].id not in names
            names.add(node.targets[0].id)
    assert len(names) > 25
