"""The safe graph: a model's forward pass as plain data. Pure, and torch is not needed to read it.

    {"format": "nightshift-graph-1", "length": 128, "vocab": 512,
     "weights": [{"name": "head.weight", "dtype": "float32", "shape": [512, 128]}, ...],
     "nodes": [{"name": "n0", "op": "aten.embedding.default",
                "args": [{"ref": "embedding.weight"}, {"ref": "tokens"}], "kwargs": {}}, ...],
     "output": "n57"}

`tokens` is the one input, int64 (rows, length); the output is logits, (rows, length, vocab). Arguments are null, true
and false, numbers, text, lists of these, and objects with one key: `ref`, `dtype`, `memory_format`, and `float` for
the numbers that JSON lacks.

Guaranteed: `parse` answers any bytes whatever with a `Graph` that keeps every limit below, in which each node refers
only to the input, to weights and to nodes before it, so that there is no cycle; or it raises `GraphRefused` with one
sentence that can be shown to people, as it holds no text of the file beyond names of a fixed alphabet.

Not checked here: whether an operator exists and is allowed (`operators`), whether the weights are those of the file
beside it and the shapes are true (`interpret`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

from trainer.evaluator.errors import GraphRefused

__all__ = [
    "Argument",
    "DType",
    "Graph",
    "GraphRefused",
    "MemoryFormat",
    "Node",
    "Ref",
    "Weight",
    "dump",
    "parse",
    "refs",
]

FORMAT = "nightshift-graph-1"
INPUT = "tokens"

GRAPH_BYTES_MAX = 8 * 2**20
NODES_MAX = 20_000
WEIGHTS_MAX = 10_000
ARGUMENTS_MAX = 32
"""Positional and named arguments of one node."""
LIST_MAX = 1_024
NESTING_MAX = 2
"""Lists within lists, in one argument."""
NAME_MAX = 128
TEXT_MAX = 64
DIMENSIONS_MAX = 8
LENGTH_MAX = 2**20
VOCAB_MAX = 2**20
INT_MAX = 2**63 - 1
ELEMENTS_MAX = 2**40

NAME = re.compile(rf"[A-Za-z_][A-Za-z0-9_.]{{0,{NAME_MAX - 1}}}", re.ASCII)
TEXT = re.compile(rf"[A-Za-z0-9_ ,.>-]{{0,{TEXT_MAX}}}", re.ASCII)
DTYPES = ("float32", "bfloat16", "float16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool")
MEMORY_FORMATS = ("contiguous_format", "preserve_format", "channels_last")
NON_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


@dataclass(frozen=True, slots=True)
class Ref:
    """The value of the input, of a weight or of an earlier node."""

    name: str


@dataclass(frozen=True, slots=True)
class DType:
    """One of `DTYPES`."""

    name: str


@dataclass(frozen=True, slots=True)
class MemoryFormat:
    """One of `MEMORY_FORMATS`."""

    name: str


Argument: TypeAlias = "bool | int | float | str | Ref | DType | MemoryFormat | tuple[Argument, ...] | None"


@dataclass(frozen=True, slots=True)
class Weight:
    """A parameter, buffer or constant. *shape* is in elements, *dtype* one of `DTYPES`."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """One call. *op* is an operator's full name with its overload, such as `aten.add.Tensor`."""

    name: str
    op: str
    args: tuple[Argument, ...] = ()
    kwargs: tuple[tuple[str, Argument], ...] = ()


@dataclass(frozen=True, slots=True)
class Graph:
    """A forward pass. *length* and *vocab* are what it says its input and its output to be."""

    length: int
    vocab: int
    weights: tuple[Weight, ...]
    nodes: tuple[Node, ...]
    output: str


def refs(argument: Argument) -> Iterator[str]:
    """The names that an argument refers to, in order."""
    if isinstance(argument, Ref):
        yield argument.name
    elif isinstance(argument, tuple):
        for item in argument:
            yield from refs(item)


# ---------------------------------------------------------------- writing


def dump(graph: Graph) -> bytes:
    """The one spelling of a graph. `parse` gives an equal graph back, if it keeps the limits."""
    tree = {
        "format": FORMAT,
        "length": graph.length,
        "vocab": graph.vocab,
        "weights": [{"name": w.name, "dtype": w.dtype, "shape": list(w.shape)} for w in graph.weights],
        "nodes": [
            {
                "name": node.name,
                "op": node.op,
                "args": [_plain(argument) for argument in node.args],
                "kwargs": {name: _plain(argument) for name, argument in node.kwargs},
            }
            for node in graph.nodes
        ],
        "output": graph.output,
    }
    return json.dumps(tree, separators=(",", ":"), allow_nan=False).encode()


def _plain(argument: Argument) -> object:
    match argument:
        case Ref(name):
            return {"ref": name}
        case DType(name):
            return {"dtype": name}
        case MemoryFormat(name):
            return {"memory_format": name}
        case tuple():
            return [_plain(item) for item in argument]
        case float() if not math.isfinite(argument):
            return {"float": "nan" if math.isnan(argument) else "inf" if argument > 0 else "-inf"}
        case _:
            return argument


# ---------------------------------------------------------------- reading


def parse(data: bytes) -> Graph:
    """Read a graph strictly. Raises `GraphRefused` for everything that `dump` does not write."""
    if len(data) > GRAPH_BYTES_MAX:
        raise GraphRefused(f"the graph has {len(data):,} bytes, more than {GRAPH_BYTES_MAX:,}")
    top = _object(_tree(data), "the graph", ("format", "length", "vocab", "weights", "nodes", "output"))
    if top["format"] != FORMAT:
        raise GraphRefused(f"the graph is not of the format {FORMAT}")
    length = _whole(top["length"], "length", 1, LENGTH_MAX)
    vocab = _whole(top["vocab"], "vocab", 1, VOCAB_MAX)
    known = {INPUT}
    weights = tuple(_weight(item, known) for item in _list(top["weights"], "weights", WEIGHTS_MAX))
    made: set[str] = set()
    nodes = tuple(_node(item, known, made) for item in _list(top["nodes"], "nodes", NODES_MAX))
    output = _name(top["output"], "output")
    if output not in made:
        raise GraphRefused(f"the output {output} is no node of the graph")
    return Graph(length, vocab, weights, nodes, output)


def _tree(data: bytes) -> Any:
    """JSON without what Python adds to it: NaN, and keys that come twice."""
    try:
        return json.loads(data.decode(), object_pairs_hook=_once, parse_constant=_no_constant)
    except RecursionError:
        raise GraphRefused("the graph is nested too deeply") from None
    except GraphRefused:
        raise
    except ValueError:  # of JSON, of UTF-8, and of whole numbers with thousands of digits
        raise GraphRefused("the graph is not JSON in UTF-8") from None


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise GraphRefused("the graph names a key twice in one object")
    return found


def _no_constant(_: str) -> NoReturn:
    raise GraphRefused("the graph has NaN or Infinity where JSON has numbers")


def _weight(item: object, known: set[str]) -> Weight:
    fields = _object(item, "a weight", ("name", "dtype", "shape"))
    name = _fresh(fields["name"], known)
    dtype = fields["dtype"]
    if dtype not in DTYPES:
        raise GraphRefused(f"the weight {name} has a type that is none of {', '.join(DTYPES)}")
    shape = tuple(
        _whole(size, f"a size of the weight {name}", 0, INT_MAX)
        for size in _list(fields["shape"], f"the shape of the weight {name}", DIMENSIONS_MAX)
    )
    if math.prod(shape) > ELEMENTS_MAX:
        raise GraphRefused(f"the weight {name} has more than {ELEMENTS_MAX:,} elements")
    known.add(name)
    return Weight(name, dtype, shape)


def _node(item: object, known: set[str], made: set[str]) -> Node:
    fields = _object(item, "a node", ("name", "op", "args", "kwargs"))
    name = _fresh(fields["name"], known)
    op = _name(fields["op"], f"the operator of {name}")
    args = _list(fields["args"], f"the arguments of {name}", ARGUMENTS_MAX)
    kwargs = fields["kwargs"]
    if not isinstance(kwargs, dict) or len(kwargs) + len(args) > ARGUMENTS_MAX:
        raise GraphRefused(f"the named arguments of {name} are no object, or more than {ARGUMENTS_MAX}")
    node = Node(
        name,
        op,
        tuple(_argument(value, name, known) for value in args),
        tuple((_name(key, f"an argument of {name}"), _argument(value, name, known)) for key, value in kwargs.items()),
    )
    known.add(name)
    made.add(name)
    return node


def _argument(value: object, node: str, known: set[str], depth: int = 0) -> Argument:
    match value:
        case None | bool():
            return value
        case int():
            return _whole(value, f"a number of {node}", -INT_MAX, INT_MAX)
        case float():
            if not math.isfinite(value):  # 1e999 is how JSON can spell infinity; we spell it otherwise
                raise GraphRefused(f"a number of {node} is too large")
            return value
        case str():
            if not TEXT.fullmatch(value):
                raise GraphRefused(f"a text of {node} is longer than {TEXT_MAX} characters or has signs that none has")
            return value
        case list():
            if depth >= NESTING_MAX:
                raise GraphRefused(f"the lists of {node} are nested more than {NESTING_MAX} deep")
            items = _list(value, f"a list of {node}", LIST_MAX)
            return tuple(_argument(item, node, known, depth + 1) for item in items)
        case dict() if len(value) == 1:
            (key, named), *_ = value.items()
            return _tagged(key, named, node, known)
        case _:
            raise GraphRefused(f"an argument of {node} is an object that is none of ref, dtype, memory_format, float")


def _tagged(key: str, named: object, node: str, known: set[str]) -> Argument:
    if key == "ref":
        name = _name(named, f"a reference of {node}")
        if name not in known:
            raise GraphRefused(f"{node} refers to {name}, which is nothing before it")
        return Ref(name)
    if key == "dtype" and isinstance(named, str) and named in DTYPES:
        return DType(named)
    if key == "memory_format" and isinstance(named, str) and named in MEMORY_FORMATS:
        return MemoryFormat(named)
    if key == "float" and isinstance(named, str) and named in NON_FINITE:
        return NON_FINITE[named]
    raise GraphRefused(f"an argument of {node} is an object that is none of ref, dtype, memory_format, float")


def _object(item: object, what: str, keys: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(item, dict) or set(item) != set(keys):
        raise GraphRefused(f"{what} is not an object with exactly the keys {', '.join(keys)}")
    return item


def _list(item: object, what: str, longest: int) -> list[Any]:
    if not isinstance(item, list):
        raise GraphRefused(f"{what} is not a list")
    if len(item) > longest:
        raise GraphRefused(f"{what} has {len(item):,} items, more than {longest:,}")
    return item


def _whole(item: object, what: str, low: int, high: int) -> int:
    if not isinstance(item, int) or isinstance(item, bool) or not low <= item <= high:
        raise GraphRefused(f"{what} is not a whole number from {low} to {high}")
    return item


def _name(item: object, what: str) -> str:
    if not isinstance(item, str) or not NAME.fullmatch(item):
        raise GraphRefused(f"{what} is not a name of letters, digits, _ and . with at most {NAME_MAX} characters")
    return item


def _fresh(item: object, known: set[str]) -> str:
    name = _name(item, "a name")
    if name in known:
        raise GraphRefused(f"the name {name} is used twice")
    return name
