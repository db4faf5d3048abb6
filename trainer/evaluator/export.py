"""Hand a trained model over: its forward pass as a safe graph, its weights as safetensors. Runs in the training child.

The model is exported by `torch.export` with as many rows as one likes, and rewritten to our own format. What cannot
be written down is refused here with a sentence, where the reason is known; the evaluator trusts none of it.

Guaranteed: a folder with a graph.json is complete, as that file is renamed into place last, after what it names.
"""

from __future__ import annotations

import contextlib
import json
import operator
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from trainer.evaluator import graph as graphs
from trainer.evaluator import operators
from trainer.evaluator.errors import ExportRefused, GraphRefused
from trainer.evaluator.graph import Argument, DType, Graph, MemoryFormat, Node, Ref, Weight
from trainer.evaluator.interpret import FACTS_NAME, GRAPH_NAME, REFUSED_NAME, WEIGHTS_NAME
from trainer.summary import clean

ROWS_MAX = 4096
WHY_MAX = 400

_DROPPED = ("device", "layout", "pin_memory", "non_blocking")
"""Where a tensor lies is for the evaluator to say."""

_NAMES = {f"torch.{name}": name for name in (*graphs.DTYPES, *graphs.MEMORY_FORMATS)}


def hand_over(
    model: nn.Module,
    folder: Path,
    example_shape: tuple[int, int],
    facts: Mapping[str, object] | None = None,
    *,
    trusted: tuple[str, ...] = (),
) -> None:
    """
    Write *model* to *folder*, which must exist: `weights.safetensors`, `facts.json`, then `graph.json`.

    If it is refused, `refused.json` is written instead, so that the evaluator can tell why there is no score.

    Args:
        model: Takes int64 (rows, length), gives logits (rows, length, vocab). It is switched to evaluation.
        example_shape: (rows, length): rows is 2 or more and stands for any number, length is fixed.
        facts: What `facts.json` says, such as the number of steps; JSON.
        trusted: Custom operators that the harness registered, such as `nightshift::window_attention`.

    Raises:
        ExportRefused: With a sentence, if the model cannot be written down as a safe graph.
        OSError: If the folder cannot be written.
    """
    try:
        graph, weights = export(model, example_shape, trusted=trusted)
    except ExportRefused as refused:
        _write(folder / REFUSED_NAME, json.dumps({"why": refused.why}).encode())
        raise
    _write(folder / WEIGHTS_NAME, safetensors.torch.save(weights))
    _write(folder / FACTS_NAME, json.dumps(dict(facts or {})).encode())
    _write(folder / GRAPH_NAME, graphs.dump(graph))


def warm_up() -> None:
    """Import what `torch.export` loads at its first use, 1 to 2 s. For the time before the clock starts."""
    with torch.no_grad():
        torch.export.export(nn.Linear(1, 1), (torch.zeros(2, 1),), dynamic_shapes=({0: torch.export.Dim("rows")},))


def export(
    model: nn.Module, example_shape: tuple[int, int], *, trusted: tuple[str, ...] = ()
) -> tuple[Graph, dict[str, Tensor]]:
    """
    The safe graph of *model*, and its weights on the CPU, by name. See `hand_over`.

    Raises:
        ExportRefused: With a sentence, if the model cannot be written down as a safe graph.
    """
    if not isinstance(model, nn.Module):
        raise ExportRefused(f"it is a {type(model).__name__}, expected a torch.nn.Module")
    model = getattr(model, "_orig_mod", model)  # a compiled module fails with a number of rows that is not fixed
    with _evaluating(model), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about itself, in the middle of a training's output
        program = _trace(model, example_shape)
        if any(not _is_plain(node, trusted) for node in program.graph.nodes):
            program = _decompose(program)  # writes in place, dropout and autocast become plain operators; 0.5 to 1 s
        graph, weights = _Writer(program, example_shape[1]).written()
    try:
        checked = graphs.parse(graphs.dump(graph))
        operators.check(checked, trusted)
    except GraphRefused as refused:
        raise ExportRefused(refused.why) from None
    return checked, weights


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _trace(model: nn.Module, example_shape: tuple[int, int]) -> Any:
    device = next((value.device for value in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    tokens = torch.zeros(example_shape, dtype=torch.int64, device=device)
    rows = torch.export.Dim("rows", min=1, max=ROWS_MAX)
    try:
        return torch.export.export(model, (tokens,), dynamic_shapes=({0: rows},), strict=False)
    except Exception as error:  # whatever the model's code and the tracer may raise
        raise ExportRefused(_why_not_traced(error)) from error


def _why_not_traced(error: Exception) -> str:
    """One sentence of what torch.export says in many lines."""
    text = str(error)
    lines = [line for line in (clean(line, WHY_MAX).strip(" -*") for line in text.split("\n")) if line]
    first = lines[0] if lines else ""
    if "rows" in text and ("specialized" in text or "Constraints violated" in text):
        return (
            "its number of rows became a constant; take it from x.shape[0] or x.size(0), use it in view or reshape, "
            "and neither compare it nor turn it into a float"
        )
    if "data-dependent" in text or "GuardOnDataDependent" in type(error).__name__:
        return (
            "what it does depends on the values of a tensor; use torch.where instead of a Python `if` or .item() "
            f"({first})"
        )
    if "fake tensor" in text:
        return (
            "forward does more than compute from its input and the model's parameters and buffers, which cannot be "
            "followed; learn nothing there, and make no tensor of what is computed"
        )
    return clean(f"torch.export fails with {type(error).__name__}: {first}", WHY_MAX)


def _decompose(program: Any) -> Any:
    try:
        return program.run_decompositions({})
    except Exception as error:  # as above
        raise ExportRefused(_why_not_traced(error)) from error


def _is_plain(node: Any, trusted: tuple[str, ...]) -> bool:
    return node.op != "call_function" or _is_check(node) or operators.is_allowed(_name_of(node.target), trusted)


def _is_check(node: Any) -> bool:
    """Nodes without a value of their own: what was assumed while tracing, which the evaluator checks by itself."""
    return not node.users and _name_of(node.target).startswith(
        ("aten._assert", "aten.sym_constrain", "operator.", "torch")
    )


def _name_of(target: Any) -> str:
    """The full name of what a node calls."""
    if isinstance(target, torch._ops.OpOverload):
        return str(target)
    if isinstance(target, torch._ops.HigherOrderOperator):
        return f"higher_order.{target.__name__}"
    name = getattr(target, "__name__", "unknown")
    if getattr(operator, name, None) is target:
        return f"operator.{name}"
    return f"{getattr(target, '__module__', 'python')}.{name}"


class _Writer:
    """Rewrites an exported program: names of its own, weights by storage, only what the output needs."""

    def __init__(self, program: Any, length: int) -> None:
        self.program = program
        self.length = length
        self.names: dict[str, str] = {}
        self.weights: dict[str, Tensor] = {}
        self.by_storage: dict[tuple[object, ...], str] = {}

    def written(self) -> tuple[Graph, dict[str, Tensor]]:
        output = self._output()
        if output.op != "call_function":
            raise ExportRefused("its output is an input or a weight, and nothing is computed")
        vocab = self._vocab(output)
        inputs = {spec.arg.name: spec for spec in self.program.graph_signature.input_specs}
        needed = _needed(output)
        nodes: list[Node] = []
        for node in self.program.graph.nodes:
            if node not in needed:
                continue
            if node.op == "placeholder":
                self._take_input(inputs[node.name])
            elif node.op == "call_function":
                nodes.append(self._node(node, f"n{len(nodes)}"))
            else:
                raise ExportRefused(
                    "it runs a part of itself as a function (a higher-order operator); write that part out"
                )
        listed = tuple(
            Weight(name, str(value.dtype).removeprefix("torch."), tuple(value.shape))
            for name, value in self.weights.items()
        )
        return Graph(self.length, vocab, listed, tuple(nodes), self.names[output.name]), _stored(self.weights)

    def _output(self) -> Any:
        """The node of the logits, by the signature: a mutated buffer is an output too, and comes first."""
        specs = self.program.graph_signature.output_specs
        changed = [spec.target or "its input" for spec in specs if spec.kind.name not in ("USER_OUTPUT", "TOKEN")]
        if changed:
            raise ExportRefused(
                f"it changes {', '.join(map(str, changed[:3]))} while it is run; a model that is scored keeps no "
                "state: compute a new tensor, or change the buffer behind `if self.training`"
            )
        outputs = [spec.arg.name for spec in specs if spec.kind.name == "USER_OUTPUT" and hasattr(spec.arg, "name")]
        if len(specs) != 1 or len(outputs) != 1:
            raise ExportRefused(f"it returns {len(specs)} values; it must return the logits alone, one tensor")
        return next(node for node in self.program.graph.nodes if node.name == outputs[0])

    def _vocab(self, output: Any) -> int:
        value = output.meta.get("val")
        if not isinstance(value, Tensor) or value.dim() != 3:
            raise ExportRefused("its output is not logits of three dimensions, (rows, length, vocab)")
        rows, _, vocab = value.shape
        if isinstance(rows, int) or not isinstance(vocab, int):
            raise ExportRefused(
                "its number of rows became a constant; take it from x.shape[0] and use it in view or reshape"
            )
        return vocab

    def _take_input(self, spec: Any) -> None:
        kind, name = spec.kind.name, spec.arg.name
        if kind == "USER_INPUT":
            self.names[name] = graphs.INPUT
            return
        if kind not in ("PARAMETER", "BUFFER", "CONSTANT_TENSOR"):
            raise ExportRefused(f"it holds {spec.target}, which is neither parameter, buffer nor tensor")
        stored = self.program.state_dict.get(spec.target)
        value = self.program.constants[spec.target] if stored is None else stored
        if str(value.dtype).removeprefix("torch.") not in graphs.DTYPES or value.layout != torch.strided:
            raise ExportRefused(f"{spec.target} is of the type {value.dtype}; allowed are {', '.join(graphs.DTYPES)}")
        self.names[name] = self._weight_name(str(spec.target), value.detach())

    def _weight_name(self, wanted: str, value: Tensor) -> str:
        """Tied weights are one: what lies at the same place is stored once."""
        place = (value.data_ptr(), tuple(value.shape), value.stride(), value.dtype) if value.numel() else (wanted,)
        if place not in self.by_storage:
            usable = graphs.NAME.fullmatch(wanted) and wanted not in self.weights and not _looks_made(wanted)
            name = wanted if usable else f"weight{len(self.weights)}"
            self.by_storage[place] = name
            self.weights[name] = value
        return self.by_storage[place]

    def _node(self, node: Any, name: str) -> Node:
        self.names[node.name] = name
        args = tuple(self._argument(value, node) for value in node.args)
        kwargs = tuple((key, self._argument(value, node)) for key, value in node.kwargs.items() if key not in _DROPPED)
        return Node(name, _name_of(node.target), args, kwargs)

    def _argument(self, value: Any, node: Any) -> Argument:
        if isinstance(value, torch.fx.Node):
            if value.name not in self.names:
                raise ExportRefused(f"operator {_name_of(node.target)} uses what is no tensor of the model")
            return Ref(self.names[value.name])
        if isinstance(value, list | tuple):
            return tuple(self._argument(item, node) for item in value)
        if value is None or isinstance(value, bool | int | float | str):
            return value
        shown = _NAMES.get(str(value))
        if isinstance(value, torch.dtype) and shown:
            return DType(shown)
        if isinstance(value, torch.memory_format) and shown:
            return MemoryFormat(shown)
        raise ExportRefused(
            f"operator {_name_of(node.target)} is given {clean(str(value), 40)} of the type {type(value).__name__}, "
            "which a safe graph cannot hold"
        )


def _looks_made(name: str) -> bool:
    """Whether a parameter has a name that nodes and the input have here."""
    return name == graphs.INPUT or (name[:1] == "n" and name[1:].isdecimal()) or name.startswith("weight")


def _needed(output: Any) -> set[Any]:
    """All nodes that the output is computed from, and itself."""
    found = {output}
    waiting = [output]
    while waiting:
        for node in waiting.pop().all_input_nodes:
            if node not in found:
                found.add(node)
                waiting.append(node)
    return found


def _stored(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, contiguous, none sharing memory with another; copies only where they must be."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in weights.items():
        stored = value.to("cpu").contiguous()
        place = stored.untyped_storage().data_ptr()
        found[name] = stored.clone() if place in seen else stored
        seen.add(place)
    return found


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all."""
    beside = path.with_name(f".{path.name}.part")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
