"""The operators that a safe graph may use, by full name, and what their arguments may be.

On the list stands what computes new values from old ones and nothing else. Not on it: what writes in place or into
an `out` argument, what draws random numbers, what reads files or memory it was not given (`from_file`, `as_strided`,
`empty`), and what makes shapes depend on values. No state survives a call of a graph made of these.

Trusted kernels pass by name as custom operators: the harness registers them with `torch.library` and lists them in
`TRUSTED_OPERATORS`, the training child and the evaluator load the same harness.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from trainer.evaluator.errors import OperatorRefused
from trainer.evaluator.graph import Argument, DType, Graph, MemoryFormat, Node, Ref

_ATEN = """
embedding.default linear.default matmul.default mm.default bmm.default addmm.default baddbmm.default einsum.default
dot.default mv.default outer.default convolution.default conv1d.default conv1d.padding
scaled_dot_product_attention.default

add.Tensor add.Scalar sub.Tensor sub.Scalar rsub.Tensor rsub.Scalar mul.Tensor mul.Scalar div.Tensor div.Scalar
div.Tensor_mode div.Scalar_mode floor_divide.default floor_divide.Scalar remainder.Tensor remainder.Scalar fmod.Tensor
fmod.Scalar neg.default reciprocal.default pow.Tensor_Scalar pow.Tensor_Tensor pow.Scalar square.default sqrt.default
rsqrt.default exp.default exp2.default expm1.default log.default log2.default log10.default log1p.default sin.default
cos.default tan.default atan.default atan2.default sinh.default cosh.default tanh.default erf.default abs.default
sign.default floor.default ceil.default round.default trunc.default frac.default clamp.default clamp.Tensor
clamp_min.default clamp_min.Tensor clamp_max.default clamp_max.Tensor maximum.default minimum.default max.other
min.other lerp.Scalar lerp.Tensor addcmul.default addcdiv.default logaddexp.default hypot.default nan_to_num.default

relu.default relu6.default leaky_relu.default elu.default celu.default selu.default gelu.default silu.default
mish.default softplus.default sigmoid.default log_sigmoid.default hardtanh.default hardswish.default
hardsigmoid.default glu.default threshold.default prelu.default _prelu_kernel.default

eq.Tensor eq.Scalar ne.Tensor ne.Scalar lt.Tensor lt.Scalar le.Tensor le.Scalar gt.Tensor gt.Scalar ge.Tensor ge.Scalar
logical_and.default logical_or.default logical_not.default logical_xor.default bitwise_and.Tensor bitwise_and.Scalar
bitwise_or.Tensor bitwise_or.Scalar bitwise_xor.Tensor bitwise_xor.Scalar bitwise_not.default __and__.Tensor
__or__.Tensor __xor__.Tensor where.self where.ScalarOther where.ScalarSelf where.Scalar masked_fill.Scalar
masked_fill.Tensor isnan.default isinf.default isfinite.default

softmax.int _softmax.default log_softmax.int _log_softmax.default logsumexp.default
sum.default sum.dim_IntList mean.default mean.dim prod.dim_int amax.default amin.default max.dim min.dim max.default
min.default argmax.default argmin.default var.correction var.dim std.correction std.dim var_mean.correction any.dim
all.dim any.default all.default cumsum.default cumprod.default cummax.default logcumsumexp.default topk.default
sort.default sort.stable argsort.default linalg_vector_norm.default norm.ScalarOpt_dim norm.Scalar
cosine_similarity.default rms_norm.default _fused_rms_norm.default layer_norm.default native_layer_norm.default
group_norm.default native_group_norm.default batch_norm.default _native_batch_norm_legit_no_training.default

view.default _unsafe_view.default reshape.default view_as.default reshape_as.default flatten.using_ints unflatten.int
permute.default transpose.int t.default numpy_T.default mT.default swapaxes.default swapdims.default movedim.int
movedim.intlist expand.default expand_as.default broadcast_to.default squeeze.default squeeze.dim squeeze.dims
unsqueeze.default slice.Tensor select.int narrow.default split.Tensor split_with_sizes.default split.sizes chunk.default
tensor_split.sections unbind.int cat.default concat.default stack.default hstack.default repeat.default
repeat_interleave.self_int tile.default flip.default roll.default unfold.default diagonal.default tril.default
triu.default constant_pad_nd.default pad.default contiguous.default clone.default alias.default detach.default
lift_fresh_copy.default index.Tensor index_select.default gather.default take_along_dim.default scatter.src
scatter.value scatter_add.default index_add.default index_put.default one_hot.default dropout.default
fill.Scalar fill.Tensor zero.default copy.default select_scatter.default slice_scatter.default index_fill.int_Scalar
index_copy.default scatter_reduce.two max_pool1d.default avg_pool1d.default avg_pool2d.default

_to_copy.default to.dtype to.dtype_layout type_as.default arange.default arange.start arange.start_step full.default
full_like.default zeros.default zeros_like.default ones.default ones_like.default scalar_tensor.default
new_zeros.default new_ones.default new_full.default linspace.default eye.default sym_size.int
"""

ALLOWED: frozenset[str] = frozenset(f"aten.{name}" for name in _ATEN.split())
"""ATen operators by full name with overload."""

_ARITHMETIC: dict[str, tuple[Callable[..., Any], int]] = {
    "operator.add": (operator.add, 2),
    "operator.sub": (operator.sub, 2),
    "operator.mul": (operator.mul, 2),
    "operator.floordiv": (operator.floordiv, 2),
    "operator.mod": (operator.mod, 2),
    "operator.neg": (operator.neg, 1),
}
"""Of whole numbers only, such as the number of rows; with how many arguments."""

GETITEM = "operator.getitem"

VIEWS = {"aten.view.default": "aten.reshape.default", "aten._unsafe_view.default": "aten.reshape.default"}
"""Run as another with equal values: weights are stored contiguous, so a view of one that was not may need a copy."""

FIXED: dict[str, dict[str, Argument]] = {
    "aten.scaled_dot_product_attention.default": {"dropout_p": 0.0},
    "aten.dropout.default": {"train": False},
    "aten.batch_norm.default": {"training": False},
}
"""Arguments that must have this value: anything else draws random numbers or learns while it is scored."""

_NEVER = ("device", "pin_memory", "layout", "generator", "out", "non_blocking")
"""Arguments that a graph may not set. The evaluator says on which device it runs."""

_RANDOM = "nothing random at evaluation: put it behind `if self.training`"
_VALUES = "tensor operations: no value may leave the graph, as by .item() or a Python `if` on a tensor"
_INSTEAD = {
    "rand": _RANDOM,
    "bernoulli": _RANDOM,
    "native_dropout": _RANDOM,
    "dropout": _RANDOM,
    "normal": _RANDOM,
    "uniform": _RANDOM,
    "multinomial": _RANDOM,
    "exponential": _RANDOM,
    "empty": "torch.zeros or torch.full",
    "new_empty": "torch.zeros or torch.full",
    "as_strided": "view, slice, select or unfold",
    "set": "an expression that makes a new tensor",
    "copy": "an expression that makes a new tensor, such as torch.where or torch.cat",
    "resize": "reshape, or torch.nn.functional.pad",
    "nonzero": "torch.where with three arguments, or masked_fill: shapes may not depend on values",
    "masked_select": "torch.where with three arguments, or masked_fill: shapes may not depend on values",
    "unique": "sort: shapes may not depend on values",
    "_local_scalar_dense": _VALUES,
    "item": _VALUES,
    "from_file": "a parameter or a buffer: a model reads no files",
    "_fft": "a convolution (torch.nn.functional.conv1d): there are no complex numbers here",
    "fft": "a convolution (torch.nn.functional.conv1d): there are no complex numbers here",
    "complex": "two real tensors: there are no complex numbers here",
    "view_as_complex": "two real tensors, as in sin and cos: there are no complex numbers here",
    "lstm": "operations that are written out, or attention",
    "gru": "operations that are written out, or attention",
    "_scaled_mm": "linear in bfloat16",
    "_scaled_dot_product": "torch.nn.functional.scaled_dot_product_attention",
    "_flash_attention": "torch.nn.functional.scaled_dot_product_attention",
    "_efficient_attention": "torch.nn.functional.scaled_dot_product_attention",
}
"""What to use instead, by the beginning of the operator's own name; the longest that fits counts."""

_OTHERWISE = "plain tensor operations of torch and torch.nn.functional, which trainer/evaluator/operators.py lists"


@dataclass(frozen=True, slots=True)
class Call:
    """
    A node that may be run.

    Attributes:
        node: The node, its arguments checked against the operator's schema.
        function: What is called: an operator of torch, or arithmetic of whole numbers.
        kind: What comes out: "tensor", "tensors" (a list, of which `operator.getitem` takes one) or "int".
        makes: Whether it makes a tensor from numbers alone, and so must be told on which device.
    """

    node: Node
    function: Callable[..., Any]
    kind: str
    makes: bool = False


def instead(name: str) -> str:
    """What to use instead of the operator called *name*."""
    space, _, rest = name.partition(".")
    base = rest.partition(".")[0]
    if name.startswith("higher_order.flex_attention"):
        return "torch.nn.functional.scaled_dot_product_attention, or an operator of prepare.py's TRUSTED_OPERATORS"
    if space != "aten":
        return _OTHERWISE
    fitting = [start for start in _INSTEAD if base.startswith(start)]
    if fitting:
        return _INSTEAD[max(fitting, key=len)]
    if base.endswith("_") and not base.endswith("__"):
        return f"{base.rstrip('_')}, which writes nothing in place"
    if "out" in rest.partition(".")[2].split("_"):
        return f"{base} without `out`"
    return _OTHERWISE


def is_allowed(name: str, trusted: Collection[str] = ()) -> bool:
    """Whether an operator is on the list. *trusted* are custom ones, such as `nightshift::window_attention`."""
    return name in ALLOWED or name in _ARITHMETIC or name == GETITEM or _trusted_name(name) in trusted


def check(graph: Graph, trusted: Collection[str] = ()) -> list[Call]:
    """
    Every node of *graph* as a call, in order.

    Raises:
        OperatorRefused: If an operator is not allowed, or an argument is not of the kind its schema says.
    """
    kinds = {"tokens": "tensor", **{weight.name: "tensor" for weight in graph.weights}}
    calls = []
    for node in graph.nodes:
        call = _check(node, kinds, trusted)
        kinds[node.name] = call.kind
        calls.append(call)
    if kinds[graph.output] != "tensor":
        raise OperatorRefused(f"the output {graph.output} is not one tensor")
    return calls


def _trusted_name(name: str) -> str:
    """`nightshift.window_attention.default` -> `nightshift::window_attention`."""
    space, _, rest = name.partition(".")
    return f"{space}::{rest.removesuffix('.default')}"


def _check(node: Node, kinds: Mapping[str, str], trusted: Collection[str]) -> Call:
    if not is_allowed(node.op, trusted):
        raise OperatorRefused(f"operator {node.op} is not allowed; use {instead(node.op)}")
    if node.op in _ARITHMETIC:
        function, count = _ARITHMETIC[node.op]
        if node.kwargs or len(node.args) != count or not all(_is_int(value, kinds) for value in node.args):
            raise OperatorRefused(f"{node.name}: {node.op} takes {count} whole numbers")
        return Call(node, function, "int")
    if node.op == GETITEM:
        return _check_getitem(node, kinds)
    found = resolve(VIEWS.get(node.op, node.op))
    schema = found._schema
    bound = _bind(node, schema)
    for argument in schema.arguments:
        if argument.name in bound and not _fits(argument.real_type, bound[argument.name], kinds):
            raise OperatorRefused(
                f"{node.name}: the argument {argument.name} of {node.op} is not what it must be, {argument.real_type}"
            )
    for name, value in FIXED.get(node.op, {}).items():
        default = next(argument.default_value for argument in schema.arguments if argument.name == name)
        if bound.get(name, default) != value:
            raise OperatorRefused(f"{node.name}: {node.op} is allowed only with {name} = {value}: {_RANDOM}")
    from_tensors = any(str(argument.type) in ("Tensor", "List[Tensor]") for argument in schema.arguments)
    has_device = any(argument.name == "device" for argument in schema.arguments)
    return Call(node, found, _kind(node, schema), makes=has_device and not from_tensors)


def _check_getitem(node: Node, kinds: Mapping[str, str]) -> Call:
    match node.args:
        case (Ref(name), int(index)) if kinds[name] == "tensors" and not isinstance(index, bool) and not node.kwargs:
            return Call(node, operator.getitem, "tensor")
    raise OperatorRefused(f"{node.name}: operator.getitem takes a list of tensors and a whole number")


@functools.lru_cache(maxsize=1024)
def resolve(name: str) -> Any:
    """
    The operator of torch with this full name.

    Raises:
        OperatorRefused: If this torch has none of that name, or it writes in place.
    """
    space, _, rest = name.partition(".")
    base, _, overload = rest.partition(".")
    try:
        found = getattr(getattr(getattr(torch.ops, space), base), overload or "default")
    except (AttributeError, RuntimeError):
        raise OperatorRefused(f"operator {name} is not known to torch {torch.__version__} here") from None
    if found._schema.is_mutable:
        raise OperatorRefused(f"operator {name} is not allowed; use {instead(name)}")
    return found


def _bind(node: Node, schema: Any) -> dict[str, Argument]:
    """Arguments by the schema's names."""
    positional = [argument.name for argument in schema.arguments if not argument.kwarg_only]
    if len(node.args) > len(positional):
        raise OperatorRefused(f"{node.name}: {node.op} takes at most {len(positional)} arguments, it is given more")
    bound = dict(zip(positional, node.args, strict=False))
    names = {argument.name for argument in schema.arguments}
    for name, value in node.kwargs:
        if name not in names or name in bound:
            raise OperatorRefused(f"{node.name}: {node.op} has no argument {name}, or is given it twice")
        bound[name] = value
    for argument in schema.arguments:
        if argument.name in _NEVER and argument.name in bound:
            raise OperatorRefused(f"{node.name}: the argument {argument.name} of {node.op} may not be set")
        if argument.name not in bound and not argument.has_default_value():
            raise OperatorRefused(f"{node.name}: {node.op} lacks its argument {argument.name}")
    return bound


def _fits(kind: Any, value: Argument, kinds: Mapping[str, str]) -> bool:
    """Whether *value* is of the schema's type *kind*."""
    name = kind.kind()
    if name == "OptionalType":
        return value is None or _fits(kind.getElementType(), value, kinds)
    if name == "ListType":
        return isinstance(value, tuple) and all(_fits(kind.getElementType(), item, kinds) for item in value)
    if name == "TensorType":  # a number stands for a tensor of one element, as in `x * 2`
        is_number = isinstance(value, bool | int | float) or _is_int(value, kinds)
        return is_number or (isinstance(value, Ref) and kinds[value.name] == "tensor")
    shown = str(kind)
    if shown == "ScalarType":
        return isinstance(value, DType)
    if shown == "MemoryFormat":
        return isinstance(value, MemoryFormat)
    if name in ("NumberType", "FloatType"):
        return isinstance(value, bool | int | float) or _is_int(value, kinds)
    if name in ("IntType", "SymIntType"):
        return _is_int(value, kinds)
    if name == "BoolType":
        return isinstance(value, bool)
    return name == "StringType" and isinstance(value, str)


def _is_int(value: Argument, kinds: Mapping[str, str]) -> bool:
    if isinstance(value, Ref):
        return kinds[value.name] == "int"
    return isinstance(value, int) and not isinstance(value, bool)


def _kind(node: Node, schema: Any) -> str:
    """What an operator answers with."""
    shown = [str(answer.type) for answer in schema.returns]
    if shown == ["Tensor"]:
        return "tensor"
    if shown in (["int"], ["SymInt"]):
        return "int"
    if shown == ["List[Tensor]"] or (len(shown) > 1 and set(shown) == {"Tensor"}):
        return "tensors"
    raise OperatorRefused(f"operator {node.op} is not allowed; it answers with something that is no tensor")
