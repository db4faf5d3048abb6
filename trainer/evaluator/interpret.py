"""Read a handed-over folder and run its graph: a loop over nodes. No pickle, no eval, no code of the agent's.

Guaranteed: only regular files in the folder itself are read, through no link, and none before its size is known to be
within bounds; weights are those that the graph names, in type and shape. Before a graph is run on data, it is run
without any (`rehearse`): every shape is known, and a graph that would take more memory than allowed is refused
before it takes any.

Not guaranteed: an operator of torch may still crash the process on input that no honest model has, and a graph may
take long. The process around this one sees to both.
"""

from __future__ import annotations

import json
import math
import os
import stat
import struct
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from trainer.evaluator import graph as graphs
from trainer.evaluator import operators
from trainer.evaluator.errors import GraphRefused, OperatorRefused, Rejected
from trainer.evaluator.graph import Argument, DType, Graph, MemoryFormat, Ref, Weight
from trainer.summary import clean

GRAPH_NAME = "graph.json"
WEIGHTS_NAME = "weights.safetensors"
REFUSED_NAME = "refused.json"
FACTS_NAME = "facts.json"

WEIGHTS_BYTES_MAX = 8 * 2**30
HEADER_BYTES_MAX = 4 * 2**20
REFUSED_BYTES_MAX = 4096
WHY_MAX = 240
MEMORY_BYTES_MAX = 4 * 2**30
"""What the values of one batch may take at once, unless it is said otherwise."""

SAFE_DTYPES = {
    "F32": "float32",
    "BF16": "bfloat16",
    "F16": "float16",
    "F64": "float64",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
"""The types of a safetensors file, as torch names them."""

TORCH_DTYPES = {name: getattr(torch, name) for name in graphs.DTYPES}

TROUBLE = (
    ArithmeticError,
    AssertionError,
    IndexError,
    KeyError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What an operator may raise on arguments that it does not like."""


@dataclass(frozen=True, slots=True)
class Step:
    """A call with what may be forgotten after it."""

    call: operators.Call
    frees: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Program:
    """A graph that passed all checks, with its weights on *device*."""

    graph: Graph
    steps: tuple[Step, ...]
    weights: Mapping[str, Tensor]
    device: str = "cpu"

    def __call__(self, tokens: Tensor) -> Tensor:
        """
        Logits of *tokens*, int64 (rows, length).

        Raises:
            Rejected: `crash` or `oom` if an operator fails. The sentence names the node.
        """
        with torch.no_grad():
            return self._run(tokens, self.weights, self.device, lambda _name, _value: None)

    def _run(
        self, tokens: Tensor, weights: Mapping[str, Tensor], device: str, watch: Callable[[str, Any], None]
    ) -> Tensor:
        values: dict[str, Any] = {graphs.INPUT: tokens, **weights}
        for step in self.steps:
            node = step.call.node
            try:
                args = [_fill(argument, values) for argument in node.args]
                kwargs = {name: _fill(argument, values) for name, argument in node.kwargs}
                if step.call.makes:
                    kwargs["device"] = device
                value = _answer(node, device, args) if device == "meta" else None
                if value is None:
                    value = step.call.function(*args, **kwargs)
            except TROUBLE as error:
                raise _failed(node, error) from error
            if isinstance(value, int) and abs(value) > graphs.INT_MAX:
                raise Rejected("crash", f"{node.name} ({node.op}) is a number beyond 64 bits")
            values[node.name] = value
            watch(node.name, value)
            for name in step.frees:
                del values[name]
        result: Tensor = values[self.graph.output]
        return result


# ---------------------------------------------------------------- loading


def load(folder: Path, *, trusted: tuple[str, ...] = (), device: str = "cpu") -> Program:
    """
    The program that was handed over in *folder*.

    Raises:
        Rejected: `no_metric` if a file is missing.
        GraphRefused: If a file is too large, no regular file or not what the exporter writes.
        OperatorRefused: If the graph uses what is not allowed, or the exporter said so.
    """
    holder = _open_folder(folder)
    try:
        if refused := _read(holder, REFUSED_NAME, REFUSED_BYTES_MAX, missing_ok=True):
            raise _told(refused)
        graph = graphs.parse(_read(holder, GRAPH_NAME, graphs.GRAPH_BYTES_MAX))
        calls = operators.check(graph, trusted)
        weights = _weights(_read(holder, WEIGHTS_NAME, WEIGHTS_BYTES_MAX), graph)
    finally:
        os.close(holder)
    return Program(graph, steps_of(graph, calls), {name: value.to(device) for name, value in weights.items()}, device)


def _open_folder(folder: Path) -> int:
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise Rejected("no_metric", f"no model was handed over: {os.strerror(error.errno or 0)}") from None


def _read(holder: int, name: str, largest: int, *, missing_ok: bool = False) -> bytes:
    """A regular file of the open folder, whole. Never waits, as for a pipe, and follows no link."""
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=holder)
    except FileNotFoundError:
        if missing_ok:
            return b""
        raise Rejected("no_metric", f"no model was handed over: there is no {name}") from None
    except OSError as error:
        raise GraphRefused(f"{name} cannot be read, or is a link: {os.strerror(error.errno or 0)}") from None
    try:
        facts = os.fstat(file)
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
            raise GraphRefused(f"{name} is no file of its own, but a link, a folder, a pipe or a device")
        if facts.st_size > largest:
            raise GraphRefused(f"{name} has {facts.st_size:,} bytes, more than {largest:,}")
        with os.fdopen(file, "rb", closefd=False) as stream:
            return stream.read(facts.st_size)
    finally:
        os.close(file)


def _told(refused: bytes) -> OperatorRefused:
    """What the exporter wrote instead of a graph. It is text of the agent's process: bounded and cleaned."""
    try:
        return OperatorRefused(clean(str(json.loads(refused)["why"]), WHY_MAX))
    except (ValueError, KeyError, TypeError, RecursionError):
        return OperatorRefused(f"{REFUSED_NAME} is not what the exporter writes")


def _weights(data: bytes, graph: Graph) -> dict[str, Tensor]:
    """The tensors of a safetensors file, which must be exactly those that *graph* names."""
    _check_header(data, graph.weights)
    try:
        return safetensors.torch.load(data)
    except (safetensors.SafetensorError, *TROUBLE):
        raise GraphRefused(f"{WEIGHTS_NAME} is damaged: its header and its data do not fit together") from None


def _check_header(data: bytes, weights: tuple[Weight, ...]) -> None:
    """Compare the header with the graph before a tensor is made."""
    if len(data) < 8 or not 2 <= (size := struct.unpack("<Q", data[:8])[0]) <= min(HEADER_BYTES_MAX, len(data) - 8):
        raise GraphRefused(f"{WEIGHTS_NAME} is cut short, or its header is longer than {HEADER_BYTES_MAX:,} bytes")
    try:
        header = json.loads(data[8 : 8 + size])
        found = {
            name: (SAFE_DTYPES.get(entry["dtype"]), tuple(entry["shape"]), tuple(entry["data_offsets"]))
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise GraphRefused(f"the header of {WEIGHTS_NAME} is not what safetensors writes") from None
    if found.keys() != {weight.name for weight in weights}:
        raise GraphRefused(f"{WEIGHTS_NAME} has other weights than the graph names")
    for weight in weights:
        dtype, shape, offsets = found[weight.name]
        if (dtype, shape) != (weight.dtype, weight.shape):
            raise GraphRefused(f"the weight {weight.name} is not of the type and shape that the graph says")
        n_bytes = math.prod(weight.shape) * TORCH_DTYPES[weight.dtype].itemsize
        if offsets[1:] != (offsets[0] + n_bytes,) or not 0 <= offsets[0] <= len(data) - 8 - size - n_bytes:
            raise GraphRefused(f"the weight {weight.name} lies outside of {WEIGHTS_NAME}")


def steps_of(graph: Graph, calls: list[operators.Call]) -> tuple[Step, ...]:
    """With each call what nobody needs after it. Nodes that the output does not need are left out."""
    needed = {graph.output}
    steps: list[Step] = []
    for call in reversed(calls):
        node = call.node
        if node.name not in needed:
            continue
        used = {
            name for argument in (*node.args, *(value for _, value in node.kwargs)) for name in graphs.refs(argument)
        }
        kept = {weight.name for weight in graph.weights}
        steps.append(Step(call, tuple(sorted(used - needed - kept))))
        needed |= used
    return tuple(reversed(steps))


# ---------------------------------------------------------------- running


def rehearse(program: Program, rows: int, memory_bytes_max: int = MEMORY_BYTES_MAX) -> None:
    """
    Run *program* on shapes alone, for *rows* rows.

    Raises:
        Rejected: `oom` if the values would take more than *memory_bytes_max* at once; `crash` if an operator refuses
            its shapes, or the output is not floating-point logits of (rows, length, vocab).
    """
    frees = {step.call.node.name: step.frees for step in program.steps}
    ops = {step.call.node.name: step.call.node.op for step in program.steps}
    held: dict[str, list[int]] = {}  # by value the storages that it keeps alive, as views share one
    sizes: dict[int, int] = {}
    users = Counter[int]()

    def watch(name: str, value: Any) -> None:
        tensors = [
            item for item in (value if isinstance(value, list | tuple) else (value,)) if isinstance(item, Tensor)
        ]
        for tensor in tensors:
            spread = tensor.numel() * tensor.element_size()  # of a view too: an operator after it may write it out
            if spread > memory_bytes_max:
                raise _too_large(name, ops[name], spread, memory_bytes_max)
            sizes[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        held[name] = [tensor.untyped_storage()._cdata for tensor in tensors]
        users.update(held[name])
        if (total := sum(sizes.values())) > memory_bytes_max:
            raise _too_large(name, ops[name], total, memory_bytes_max)
        for freed in frees[name]:
            for storage in held.pop(freed, ()):
                users[storage] -= 1
                if not users[storage]:
                    sizes.pop(storage, None)

    graph = program.graph
    weights = {w.name: torch.empty(w.shape, dtype=TORCH_DTYPES[w.dtype], device="meta") for w in graph.weights}
    tokens = torch.empty((rows, graph.length), dtype=torch.int64, device="meta")
    with torch.no_grad():
        logits = program._run(tokens, weights, "meta", watch)
    check_logits(logits, (rows, graph.length, graph.vocab))


def check_claims(graph: Graph, length: int, vocab: int) -> None:
    """Raises `Rejected` (`crash`) if the graph is for rows of another length, or for another vocabulary."""
    if (graph.length, graph.vocab) != (length, vocab):
        raise Rejected(
            "crash",
            f"the model takes rows of {graph.length} tokens and tells {graph.vocab} apart; "
            f"the harness has rows of {length} and {vocab} tokens (MAX_SEQ_LEN and VOCAB_SIZE of prepare.py)",
        )


def check_logits(logits: object, shape: tuple[int, int, int]) -> Tensor:
    """The logits, if they are floating-point numbers of *shape*. Raises `Rejected` (`crash`) if not."""
    if not isinstance(logits, Tensor) or tuple(logits.shape) != shape:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else "no tensor"
        raise Rejected("crash", f"the model's output is {found}, expected logits of {shape}")
    if logits.dtype not in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        raise Rejected("crash", f"the model's output has the type {logits.dtype}, expected floating-point logits")
    return logits


def _too_large(name: str, op: str, n_bytes: int, largest: int) -> Rejected:
    return Rejected(
        "oom",
        f"{name} ({op}) would take {n_bytes / 2**20:,.0f} MiB for one batch, more than {largest / 2**20:,.0f} MiB",
    )


def _fill(argument: Argument, values: Mapping[str, Any]) -> Any:
    """The argument as torch takes it."""
    match argument:
        case Ref(name):
            return values[name]
        case tuple():
            return [_fill(item, values) for item in argument]
        case DType(name):
            return TORCH_DTYPES[name]
        case MemoryFormat(name):
            return getattr(torch, name)
        case _:
            return argument


def _answer(node: graphs.Node, device: str, args: list[Any]) -> Tensor | None:
    """On shapes alone: those whose own rule is slow. Attention takes 4 ms for each call otherwise."""
    if node.op != "aten.scaled_dot_product_attention.default" or len(args) < 3:
        return None
    query, key, value = args[:3]
    if not (query.dim() == key.dim() == value.dim() >= 2 and query.size(-1) == key.size(-1)):
        raise ValueError("query, key and value do not fit together")
    shape = (*query.shape[:-1], value.size(-1))
    weights = query.shape[:-1].numel() * key.size(-2)  # the kernel may write them out, as it does with a mask
    if weights > graphs.ELEMENTS_MAX:
        raise ValueError("the attention weights are too many")
    return torch.empty(shape, dtype=query.dtype, device=device)


def _failed(node: graphs.Node, error: Exception) -> Rejected:
    first = clean(str(error).strip().split("\n")[0], WHY_MAX) or type(error).__name__
    is_memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in first
    return Rejected("oom" if is_memory else "crash", f"{node.name} ({node.op}) fails: {first}")
