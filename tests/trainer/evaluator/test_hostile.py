"""Whatever is handed over, the evaluator answers with a sentence and is there for the next one."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from tests.trainer.evaluator.conftest import Server

HandedOver = Callable[[str], tuple[nn.Module, Path]]
GRAPH, WEIGHTS = "graph.json", "weights.safetensors"


@pytest.fixture
def folder(handed_over: HandedOver, tmp_path: Path) -> Path:
    """A copy of an honest hand-over, to be spoilt."""
    return Path(shutil.copytree(handed_over("softcap")[1], tmp_path / "handed"))


def nodes_of(folder: Path, *nodes: tuple[str, list[Any], dict[str, Any]], output: int = -1) -> None:
    """Replace the graph's nodes by *nodes*, named m0, m1 and so on; weights that none needs stay."""
    tree = json.loads((folder / GRAPH).read_text())
    tree["nodes"] = [
        {"name": f"m{i}", "op": op, "args": args, "kwargs": more} for i, (op, args, more) in enumerate(nodes)
    ]
    tree["output"] = f"m{range(len(nodes))[output]}"
    (folder / GRAPH).write_text(json.dumps(tree))


def ref(name: str) -> dict[str, str]:
    return {"ref": name}


TABLE = ref("embedding.weight")
LOGITS = ("aten.linear.default", [ref("m0"), ref("head.weight")], {})
EMBED = ("aten.embedding.default", [TABLE, ref("tokens")], {})


def change_graph(folder: Path, **changes: Any) -> None:
    (folder / GRAPH).write_text(json.dumps(json.loads((folder / GRAPH).read_text()) | changes))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = safetensors.torch.load((folder / WEIGHTS).read_bytes())
    change(weights)
    (folder / WEIGHTS).write_bytes(safetensors.torch.save(weights))


def header(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = (folder / WEIGHTS).read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    tree = json.loads(data[8 : 8 + size])
    change(tree)
    written = json.dumps(tree).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(written)) + written + data[8 + size :])


def link_to(folder: Path, name: str, target: Path) -> None:
    (folder / name).unlink()
    (folder / name).symlink_to(target)


def hard_link(folder: Path) -> None:
    os.link(folder / WEIGHTS, folder.parent / "other-name")


def pipe(folder: Path) -> None:
    (folder / GRAPH).unlink()
    os.mkfifo(folder / GRAPH)


def truncated(folder: Path, keep: int) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:keep])


def huge(folder: Path, name: str) -> None:
    with (folder / name).open("r+b") as file:
        file.truncate(2**40)  # holes: it takes no room on the disk


def numbers_that_grow(folder: Path) -> None:
    doubled = [("operator.mul", [ref(f"m{i}"), ref(f"m{i}")], {}) for i in range(200)]
    nodes_of(
        folder, ("aten.sym_size.int", [ref("tokens"), 1], {}), *doubled, ("aten.full.default", [[ref("m200")], 1], {})
    )


def memory_that_grows(folder: Path) -> None:
    many = [("aten.full.default", [[2**26], 1.0], {}) for _ in range(64)]  # 256 MiB each
    nodes_of(folder, *many, ("aten.cat.default", [[ref(f"m{i}") for i in range(64)]], {}))


def memory_behind_views(folder: Path) -> None:
    """Each value that stays is 4 bytes of 256 MiB that its name no longer tells of."""
    many: list[tuple[str, list[Any], dict[str, Any]]] = []
    for i in range(64):
        many += [("aten.full.default", [[2**26], 1.0], {}), ("aten.slice.Tensor", [ref(f"m{2 * i}"), 0, 0, 1], {})]
    nodes_of(folder, *many, ("aten.cat.default", [[ref(f"m{2 * i + 1}") for i in range(64)]], {}))


def behind_the_logits(folder: Path, *nodes: dict[str, Any]) -> None:
    """Add *nodes* to the graph, and the sum of the last of them to the logits."""
    tree = json.loads((folder / GRAPH).read_text())
    added = [*nodes, node("sum", "aten.sum.default", ref(nodes[-1]["name"]))]
    added += [node("out", "aten.add.Tensor", ref(tree["output"]), ref("sum"))]
    change_graph(folder, nodes=tree["nodes"] + added, output="out")


def node(name: str, op: str, *args: Any) -> dict[str, Any]:
    return {"name": name, "op": op, "args": list(args), "kwargs": {}}


def memory_within_an_operator(folder: Path) -> None:
    """Attention weights of 14 GB, which are no value of the graph: heads of two widths have no better kernel."""
    wide, narrow = (node(name, "aten.full.default", [1, 1, 60_000, n], 0.5) for name, n in (("wide", 8), ("narrow", 4)))
    attention = node(
        "attention",
        "aten.scaled_dot_product_attention.default",
        ref("wide"),
        ref("wide"),
        ref("narrow"),
        None,
        0.0,
        False,
    )
    behind_the_logits(folder, wide, narrow, attention)


def time_without_end(folder: Path) -> None:
    """34,000 GFLOP for each batch."""
    many = [node(f"s{i + 1}", "aten.matmul.default", ref(f"s{i}"), ref(f"s{i}")) for i in range(2000)]
    behind_the_logits(folder, node("s0", "aten.full.default", [2048, 2048], 0.0), *many)


def nan_weights(weights: dict[str, torch.Tensor]) -> None:
    weights["head.weight"][3, 3] = float("nan")


CASES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "nothing": (lambda f: (f / GRAPH).unlink(), "no_metric", "no model was handed over"),
    "no folder": (shutil.rmtree, "no_metric", "no model was handed over"),
    "weights missing": (lambda f: (f / WEIGHTS).unlink(), "no_metric", "no model was handed over"),
    "a graph that is no JSON": (lambda f: (f / GRAPH).write_bytes(b"\x80\x04"), "tampered", "not JSON"),
    "a graph nested for ever": (lambda f: (f / GRAPH).write_bytes(b"[" * 10**6), "tampered", "nested too deeply"),
    "a graph of a terabyte": (lambda f: huge(f, GRAPH), "tampered", "bytes, more than"),
    "weights of a terabyte": (lambda f: huge(f, WEIGHTS), "tampered", "bytes, more than"),
    "a graph that is a link": (lambda f: link_to(f, GRAPH, f / "facts.json"), "tampered", "is a link"),
    "weights that are a link": (lambda f: link_to(f, WEIGHTS, Path("/etc/passwd")), "tampered", "is a link"),
    "weights with a second name": (hard_link, "tampered", "no file of its own"),
    "a graph that is a pipe": (pipe, "tampered", "no file of its own"),
    "a graph that is a folder": (lambda f: ((f / GRAPH).unlink(), (f / GRAPH).mkdir()), "tampered", "graph.json"),
    "a cycle": (lambda f: nodes_of(f, ("aten.neg.default", [ref("m0")], {})), "tampered", "nothing before it"),
    "weights cut short": (lambda f: truncated(f, 5000), "tampered", "lies outside"),
    "weights without their header": (lambda f: truncated(f, 4), "tampered", "cut short"),
    "weights with a byte too few": (lambda f: truncated(f, (f / WEIGHTS).stat().st_size - 1), "tampered", "weights"),
    "a weight that is not there": (
        lambda f: change_weights(f, lambda w: w.pop("positions")),
        "tampered",
        "other weights",
    ),
    "a weight of another shape": (
        lambda f: change_weights(f, lambda w: w.update({"head.weight": torch.zeros(3, 3)})),
        "tampered",
        "type and shape",
    ),
    "a header that lies about a type": (
        lambda f: header(f, lambda t: t["head.weight"].update(dtype="F64")),
        "tampered",
        "type and shape",
    ),
    "a header that points outside": (
        lambda f: header(f, lambda t: t["head.weight"].update(data_offsets=[2**60, 2**60 + 38400])),
        "tampered",
        "outside",
    ),
    "a header with overlapping weights": (
        lambda f: header(f, lambda t: t["head.weight"].update(data_offsets=[0, 38400])),
        "tampered",
        "damaged",
    ),
    "a header that is no object": (
        lambda f: (f / WEIGHTS).write_bytes(struct.pack("<Q", 4) + b"null"),
        "tampered",
        "header",
    ),
    "an operator that reads files": (
        lambda f: nodes_of(f, ("aten.from_file.default", ["passwd", False, 8], {})),
        "refused_operator",
        "from_file",
    ),
    "an operator in place": (
        lambda f: nodes_of(f, ("aten.add_.Tensor", [TABLE, TABLE], {})),
        "refused_operator",
        "add, which writes nothing",
    ),
    "an out variant": (
        lambda f: nodes_of(f, ("aten.exp.out", [TABLE], {"out": TABLE})),
        "refused_operator",
        "exp without `out`",
    ),
    "Python": (lambda f: nodes_of(f, ("builtins.eval", ["1"], {})), "refused_operator", "builtins.eval is not allowed"),
    "rows of another length": (lambda f: change_graph(f, length=16), "crash", "MAX_SEQ_LEN"),
    "another vocabulary": (lambda f: change_graph(f, vocab=3), "crash", "VOCAB_SIZE"),
    "an output of another shape": (lambda f: nodes_of(f, EMBED), "crash", "expected logits of"),
    "an output of whole numbers": (
        lambda f: nodes_of(f, EMBED, LOGITS, ("aten._to_copy.default", [ref("m1")], {"dtype": {"dtype": "int64"}})),
        "crash",
        "floating-point",
    ),
    "shapes that do not fit": (
        lambda f: nodes_of(
            f,
            EMBED,
            ("aten.mul.Tensor", [ref("m0"), ref("mlp.0.0.weight")], {}),
            ("aten.linear.default", [ref("m1"), ref("head.weight")], {}),
        ),
        "crash",
        "m1 (aten.mul.Tensor) fails",
    ),
    "tokens beyond the table": (
        lambda f: nodes_of(
            f,
            ("aten.add.Tensor", [ref("tokens"), 10**6], {}),
            ("aten.embedding.default", [TABLE, ref("m0")], {}),
            ("aten.linear.default", [ref("m1"), ref("head.weight")], {}),
        ),
        "crash",
        "m1 (aten.embedding.default) fails",
    ),
    "a division by nothing": (
        lambda f: nodes_of(
            f,
            ("aten.sym_size.int", [ref("tokens"), 0], {}),
            ("operator.floordiv", [ref("m0"), 0], {}),
            ("aten.full.default", [[ref("m1")], 1], {}),
        ),
        "crash",
        "operator.floordiv",
    ),
    "numbers that grow": (numbers_that_grow, "crash", "beyond 64 bits"),
    "one enormous value": (
        lambda f: nodes_of(f, ("aten.full.default", [[2**40], 1.0], {})),
        "oom",
        "MiB for one batch",
    ),
    "many large values": (memory_that_grows, "oom", "MiB for one batch"),
    "many large values behind views": (memory_behind_views, "oom", "MiB for one batch"),
    "memory within an operator": (memory_within_an_operator, "oom", "aten.scaled_dot_product_attention.default) fails"),
    "NaN": (lambda f: change_weights(f, nan_weights), "diverged", "not finite"),
    "words of its own": (
        lambda f: (f / "refused.json").write_text(json.dumps({"why": "\x1b[31mignore all\n" + "x" * 3000})),
        "refused_operator",
        "ignore all",
    ),
    "words that are none": (lambda f: (f / "refused.json").write_text("[" * 4000), "refused_operator", "refused.json"),
}


@pytest.mark.parametrize("what", CASES)
def test_a_spoilt_hand_over_gets_a_sentence(what: str, folder: Path, server: Server) -> None:
    spoil, outcome, why = CASES[what]
    spoil(folder)
    answer = server.ask(folder)
    assert (answer.outcome, answer.score) == (outcome, None), answer
    assert why in answer.why
    assert answer.why.isprintable() and len(answer.why) < 500


def test_the_server_lives_on_after_all_that(handed_over: HandedOver, server: Server) -> None:
    assert server.ask(handed_over("softcap")[1]).outcome == "scored"


def test_lines_that_are_no_requests_get_a_sentence(server: Server, handed_over: HandedOver) -> None:
    for line in (b"\n", b"{}\n", b"[" * 1000 + b"\n", b'{"folder": 3}\n', b'{"folder": "/", "run": "rm"}\n', b"\xff\n"):
        answer = server.say(line)
        assert answer.outcome == "crash" and answer.why.startswith("no Request")
    assert server.ask(handed_over("softcap")[1]).outcome == "scored"


def test_a_graph_that_takes_too_long_is_ended(
    folder: Path, workspace: tuple[Path, Path], handed_over: HandedOver
) -> None:
    time_without_end(folder)
    started = Server(*workspace, "--timeout-s", "2", "--workers", "2")
    try:
        answer = started.ask(folder)
        assert (answer.outcome, answer.why) == ("timeout", "scoring it took longer than 2 s")
        assert started.ask(handed_over("softcap")[1]).outcome == "scored"
    finally:
        assert started.close() == 0
