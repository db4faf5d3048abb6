"""The safe graph's format: whatever the bytes are, `parse` gives a graph within its limits, or one sentence."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.evaluator import graph as graphs
from trainer.evaluator.graph import Argument, DType, Graph, GraphRefused, MemoryFormat, Node, Ref, Weight

SENTENCE = re.compile(r"[ -~]{1,400}")


def tree(**changes: Any) -> dict[str, Any]:
    """A small valid graph as JSON has it, with *changes*."""
    usual: dict[str, Any] = {
        "format": graphs.FORMAT,
        "length": 4,
        "vocab": 8,
        "weights": [{"name": "w", "dtype": "float32", "shape": [8, 8]}],
        "nodes": [
            {"name": "n0", "op": "aten.embedding.default", "args": [{"ref": "w"}, {"ref": "tokens"}], "kwargs": {}}
        ],
        "output": "n0",
    }
    return usual | changes


def node(name: str = "n0", op: str = "aten.add.Tensor", *args: object, **kwargs: object) -> dict[str, Any]:
    return {"name": name, "op": op, "args": list(args), "kwargs": kwargs}


def deep(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


def test_a_graph_is_read_as_it_was_written() -> None:
    args: tuple[Argument, ...] = (Ref("w"), None, True, -3, 0.5, "tanh", (1, (Ref("n0"), float("-inf"))))
    kwargs: tuple[tuple[str, Argument], ...] = (("dtype", DType("bfloat16")), ("f", MemoryFormat("preserve_format")))
    nodes = (Node("n0", "aten.neg.default", (Ref("w"),)), Node("n1", "aten.odd.default", args, kwargs))
    graph = Graph(4, 8, (Weight("w", "float32", (8, 2)),), nodes, "n1")
    assert graphs.parse(graphs.dump(graph)) == graph


REFUSED = {
    "no JSON": b"\x80\x04\x95",
    "no UTF-8": b'{"format": "\xff"}',
    "nested without end": b"[" * 100_000,
    "nested objects without end": b'{"a":' * 100_000,
    "a number of a million digits": b"[" + b"9" * 1_000_000 + b"]",
    "too many bytes": b" " * (graphs.GRAPH_BYTES_MAX + 1),
    "not an object": b"[]",
    "NaN": b'{"format": NaN}',
    "a key twice": json.dumps(tree()).replace('"length": 4', '"length": 4, "length": 5').encode(),
    "another format": tree(format="torch-export-2"),
    "a key too many": tree(code="import os"),
    "no output": {key: value for key, value in tree().items() if key != "output"},
    "two outputs": tree(output=["n0", "n0"]),
    "an output that is a weight": tree(output="w"),
    "a cycle": tree(
        nodes=[node("n0", "aten.neg.default", {"ref": "n1"}), node("n1", "aten.neg.default", {"ref": "n0"})]
    ),
    "a node that needs itself": tree(nodes=[node("n0", "aten.neg.default", {"ref": "n0"})]),
    "a name twice": tree(nodes=[*tree()["nodes"], *tree()["nodes"]]),
    "a node named as the input": tree(nodes=[node("tokens")], output="tokens"),
    "too many nodes": tree(nodes=[node(f"n{i}") for i in range(graphs.NODES_MAX + 1)]),
    "too many weights": tree(weights=[{"name": f"w{i}", "dtype": "bool", "shape": []} for i in range(10_001)]),
    "too many arguments": tree(nodes=[node("n0", "aten.cat.default", *range(graphs.ARGUMENTS_MAX + 1))]),
    "a list that is too long": tree(nodes=[node("n0", "aten.cat.default", list(range(graphs.LIST_MAX + 1)))]),
    "lists nested too deeply": tree(nodes=[node("n0", "aten.cat.default", deep(graphs.NESTING_MAX + 1))]),
    "lists nested very deeply": tree(nodes=[node("n0", "aten.cat.default", deep(400))]),
    "a name that is too long": tree(output="n" * (graphs.NAME_MAX + 1)),
    "a name with escape sequences": tree(nodes=[node("\x1b[2Jn0")]),
    "a text that is a path": tree(nodes=[node("n0", "aten.from_file.default", "/etc/passwd")]),
    "an infinite number": json.dumps(tree(nodes=[node("n0", "aten.add.Tensor", 5)])).replace("5", "1e999").encode(),
    "a number beyond 64 bits": tree(nodes=[node("n0", "aten.add.Tensor", 2**64)]),
    "an argument of another kind": tree(nodes=[node("n0", "aten.add.Tensor", {"device": "cuda"})]),
    "an argument of two kinds": tree(nodes=[node("n0", "aten.add.Tensor", {"ref": "w", "dtype": "bool"})]),
    "a type that there is not": tree(weights=[{"name": "w", "dtype": "complex64", "shape": [1]}]),
    "a negative size": tree(weights=[{"name": "w", "dtype": "float32", "shape": [-1]}]),
    "an enormous weight": tree(weights=[{"name": "w", "dtype": "float32", "shape": [2**31, 2**31]}]),
    "nine dimensions": tree(weights=[{"name": "w", "dtype": "float32", "shape": [1] * 9}]),
    "a length that is true": tree(length=True),
    "a vocabulary of none": tree(vocab=0),
    "lists where objects are": tree(nodes=[["n0", "aten.add.Tensor"]]),
    "named arguments in a list": tree(nodes=[{"name": "n0", "op": "a.b", "args": [], "kwargs": []}]),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_graph_gets_one_sentence(what: str) -> None:
    data = REFUSED[what]
    with pytest.raises(GraphRefused) as refused:
        graphs.parse(data if isinstance(data, bytes) else json.dumps(data).encode())
    assert SENTENCE.fullmatch(refused.value.why) and not refused.value.why.endswith(".")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["n0", "w", "tokens", "float32", "aten.add.Tensor", "nightshift-graph-1", "inf"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from([*tree(), "name", "op", "args", "kwargs", "ref", "dtype", "float", "x"]), inner
        )
    ),
    max_leaves=12,
)


def read(data: bytes) -> None:
    """Parse, and if it is a graph, it must keep its own promises."""
    try:
        graph = graphs.parse(data)
    except GraphRefused as refused:
        assert SENTENCE.fullmatch(refused.why)
        return
    assert graphs.parse(graphs.dump(graph)) == graph
    known = {graphs.INPUT, *(weight.name for weight in graph.weights)}
    for one in graph.nodes:
        assert all(name in known for value in (*one.args, *dict(one.kwargs).values()) for name in graphs.refs(value))
        known.add(one.name)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_graph_or_refused(data: bytes) -> None:
    read(data)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(list(tree())), JSON))
def test_any_json_is_a_graph_or_refused(changes: dict[str, Any]) -> None:
    read(json.dumps(tree(**changes)).encode())


@settings(max_examples=200, deadline=None)
@given(st.lists(JSON, max_size=4), st.dictionaries(st.text(max_size=6), JSON, max_size=3), st.integers(-4, 2**70))
def test_any_arguments_are_a_graph_or_refused(args: list[object], kwargs: dict[str, object], size: int) -> None:
    weight = {"name": "w", "dtype": "float32", "shape": [size]}
    read(
        json.dumps(tree(weights=[weight], nodes=[{"name": "n0", "op": "a.b", "args": args, "kwargs": kwargs}])).encode()
    )


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_graph_with_bytes_changed_is_a_graph_or_refused(data: st.DataObject) -> None:
    whole = bytearray(json.dumps(tree()).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    read(bytes(whole))
