"""What a model may be made of, and what its author is told when it is made of something else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.trainer.evaluator import models
from trainer.evaluator import export, operators
from trainer.evaluator.errors import ExportRefused, OperatorRefused
from trainer.evaluator.graph import Argument, DType, Graph, MemoryFormat, Node, Ref, Weight

W = Ref("w")


def checked(*nodes: Node, trusted: tuple[str, ...] = ()) -> list[operators.Call]:
    weights = (Weight("w", "float32", (8, 8)),)
    return operators.check(Graph(4, 8, weights, nodes, nodes[-1].name), trusted)


def test_every_operator_on_the_list_exists_and_writes_nothing() -> None:
    for name in operators.ALLOWED:
        schema = operators.resolve(name)._schema
        assert not schema.is_mutable, name
        assert not any(argument.name in ("out", "generator") for argument in schema.arguments), name


def test_nothing_random_or_stateful_is_on_the_list() -> None:
    bases = {name.split(".")[1] for name in operators.ALLOWED}
    wrong = (
        "rand",
        "bernoulli",
        "multinomial",
        "normal_",
        "uniform",
        "from_file",
        "set_",
        "empty",
        "as_strided",
        "save",
    )
    assert not [base for base in bases if base.startswith(wrong) or (base.endswith("_") and base[:2] != "__")]


REFUSED: dict[str, tuple[str, str]] = {
    "in place": ("aten.add_.Tensor", "add, which writes nothing in place"),
    "into an argument": ("aten.exp.out", "exp without `out`"),
    "a file": ("aten.from_file.default", "reads no files"),
    "random": ("aten.rand_like.default", "if self.training"),
    "memory that is not its own": ("aten.as_strided.default", "view, slice"),
    "values made shapes": ("aten.nonzero.default", "masked_fill"),
    "a value made a number": ("aten._local_scalar_dense.default", ".item()"),
    "uninitialised memory": ("aten.empty.memory_format", "torch.zeros"),
    "a kernel of flex_attention": ("higher_order.flex_attention", "TRUSTED_OPERATORS"),
    "one nobody knows": ("evil.run.default", "plain tensor operations"),
    "Python": ("builtins.eval", "plain tensor operations"),
    "arithmetic that grows": ("operator.pow", "plain tensor operations"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_refused_operator_is_named_with_what_to_use(what: str) -> None:
    name, use = REFUSED[what]
    with pytest.raises(OperatorRefused) as refused:
        checked(Node("n0", name, (W,)))
    assert refused.value.why.startswith(f"operator {name} is not allowed; use ") and use in refused.value.why


def test_a_custom_operator_passes_only_if_the_harness_names_it() -> None:
    models.register_operators()
    node = Node("n0", "nightshift_test.window_attention.default", (W, W, W, 4))
    assert checked(node, trusted=(models.WINDOW_OPERATOR,))[0].kind == "tensor"
    with pytest.raises(OperatorRefused, match=r"nightshift_test\.window_attention\.default is not"):
        checked(node)


MISUSED: dict[str, tuple[str, tuple[Argument, ...], tuple[tuple[str, Argument], ...]]] = {
    "a text for a tensor": ("aten.neg.default", ("w",), ()),
    "a list for a tensor": ("aten.neg.default", ((W,),), ()),
    "a tensor for a number": ("aten.transpose.int", (W, W, 1), ()),
    "a fraction for a whole number": ("aten.transpose.int", (W, 0.5, 1), ()),
    "a number for a type": ("aten._to_copy.default", (W,), (("dtype", 6),)),
    "a type for a memory format": ("aten.clone.default", (W,), (("memory_format", DType("bool")),)),
    "a memory format for a type": ("aten._to_copy.default", (W,), (("dtype", MemoryFormat("channels_last")),)),
    "an argument that there is not": ("aten.neg.default", (W,), (("file", "x"),)),
    "one given twice": ("aten.neg.default", (W,), (("self", W),)),
    "one missing": ("aten.mul.Tensor", (W,), ()),
    "too many": ("aten.neg.default", (W, W), ()),
    "a device": ("aten.arange.default", (4,), (("device", "cuda"),)),
    "dropout in attention": ("aten.scaled_dot_product_attention.default", (W, W, W, None, 0.1), ()),
    "dropout in attention by name": ("aten.scaled_dot_product_attention.default", (W, W, W), (("dropout_p", 0.1),)),
    "dropout that is on": ("aten.dropout.default", (W, 0.5, True), ()),
    "one of a tensor as of a list": ("operator.getitem", (W, 0), ()),
    "arithmetic on tensors": ("operator.mul", (W, 2), ()),
    "arithmetic on lists": ("operator.mul", ((1, 2), 2), ()),
}


@pytest.mark.parametrize("what", MISUSED)
def test_arguments_must_be_of_the_kind_that_the_schema_says(what: str) -> None:
    name, args, kwargs = MISUSED[what]
    with pytest.raises(OperatorRefused, match="n0"):
        checked(Node("n0", name, args, kwargs))


class Small(nn.Module):
    """Embedding and head with *between*, a function of the hidden state and the tokens."""

    def __init__(self, between: object) -> None:
        super().__init__()
        self.embedding = nn.Embedding(models.VOCAB, 8)
        self.head = nn.Linear(8, models.VOCAB)
        self.register_buffer("seen", torch.zeros(8))
        self.between = between

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.between(self, self.embedding(tokens)))  # type: ignore[operator]


def counting(model: Small, x: Tensor) -> Tensor:
    model.seen.add_(x.detach().mean(dim=(0, 1)))
    return x + model.seen


def fixed_rows(_: Small, x: Tensor) -> Tensor:
    return x.reshape(2, models.LENGTH, 8) if x.size(0) == 2 else x


NOT_EXPORTED: dict[str, tuple[object, str]] = {
    "random at evaluation": (
        lambda _, x: x + torch.randn_like(x),
        r"operator aten\.randn_like\.default is not allowed; use",
    ),
    "attention with dropout": (
        lambda _, x: functional.scaled_dot_product_attention(x, x, x, dropout_p=0.1, is_causal=True),
        "dropout_p = 0.0: nothing random",
    ),
    "a Python if on a tensor": (lambda _, x: x if x.sum() > 0 else -x, "values of a tensor"),
    "a value as a number": (lambda _, x: x * x.max().item(), "operator|values of a tensor"),
    "a mutated buffer": (counting, "changes seen while it is run"),
    "a fixed number of rows": (fixed_rows, "number of rows became a constant"),
    "complex numbers": (lambda _, x: torch.fft.rfft(x, n=14).real, "there are no complex numbers here"),
    "an error of its own": (lambda _, x: x @ x, "torch.export fails with"),
    "two outputs": (None, "returns 2 values"),
    "logits of two dimensions": (lambda _, x: x[:, 0], "three dimensions"),
}


class Two(Small):
    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        x = self.head(self.embedding(tokens))
        return x, x + 1


@pytest.mark.parametrize("what", NOT_EXPORTED)
def test_what_cannot_be_handed_over_says_why(what: str, tmp_path: Path) -> None:
    between, why = NOT_EXPORTED[what]
    model = Small(between) if between else Two(None)
    with pytest.raises(ExportRefused, match=why):
        export.hand_over(model, tmp_path, (2, models.LENGTH))
    assert [path.name for path in tmp_path.iterdir()] == ["refused.json"]


def test_what_is_no_module_cannot_be_handed_over(tmp_path: Path) -> None:
    with pytest.raises(ExportRefused, match=r"it is a function, expected a torch\.nn\.Module"):
        export.hand_over(lambda x: x, tmp_path, (2, models.LENGTH))  # type: ignore[arg-type]
