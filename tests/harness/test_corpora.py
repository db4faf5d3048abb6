"""A corpus of one's own: JSONL and parquet, texts of any size, several workers; and what is said of a wrong one."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

if TYPE_CHECKING:
    from types import ModuleType

    import tiktoken
    from conftest import Maker, Workspace

PARTS = ("train", "select", "report")


@pytest.fixture(scope="session")
def texts(corpus: Path) -> list[str]:
    """The texts of the folder of text files, in its order."""
    return [path.read_text() for path in sorted(corpus.rglob("*.txt"))]


@pytest.fixture(scope="module")
def prepare(prepared: Workspace) -> ModuleType:
    return prepared.module("prepare")


@pytest.fixture(scope="module")
def tokenizer(prepare: ModuleType, prepared: Workspace) -> tiktoken.Encoding:
    return prepare.load_tokenizer(next(prepared.cache.glob("*/manifest.json")).parent)


def write_jsonl(path: Path, records: Iterable[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def write_parquet(path: Path, texts: list[str | None], rows_at_once: int = 10) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"id": range(len(texts)), "text": texts}), path, row_group_size=rows_at_once)


def tokens_of(workspace: Workspace) -> dict[str, bytes]:
    folders = [manifest.parent for manifest in workspace.cache.glob("*/manifest.json")]
    assert len(folders) == 1
    return {part: (folders[0] / part / "tokens.bin").read_bytes() for part in PARTS}


def ready(workspace: Workspace, *words: str) -> str:
    ended = workspace.run("prepare.py", *words)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def refusal(workspace: Workspace, *words: str) -> str:
    ended = workspace.run("prepare.py", *words)
    assert ended.returncode == 1, ended.stdout
    assert "Traceback" not in ended.stderr
    assert not list(workspace.cache.glob("*/manifest.json"))
    return ended.stderr.strip()


# ---------------------------------------------------------------- records


def test_jsonl_and_parquet_of_the_same_texts_give_the_same_tokens(
    make: Maker, texts: list[str], tmp_path: Path
) -> None:
    lines = make.workspace(tmp_path / "a", tmp_path / "lines")
    write_jsonl(lines.corpus / "one.jsonl", ({"text": text, "n": n} for n, text in enumerate(texts[:70])))
    write_jsonl(lines.corpus / "two.jsonl", ({"text": text} for text in texts[70:]))
    rows = make.workspace(tmp_path / "b", tmp_path / "rows")
    write_parquet(rows.corpus / "deep" / "0.parquet", [*texts[:100]])
    write_parquet(rows.corpus / "deep" / "1.parquet", [*texts[100:]])
    ready(lines)
    ready(rows)
    assert tokens_of(lines) == tokens_of(rows)
    assert min(map(len, tokens_of(lines).values())) > 2 * 32


def test_a_record_is_in_the_part_that_its_text_says_so_equal_texts_are_never_trained_on_and_scored(
    make: Maker, texts: list[str], tmp_path: Path
) -> None:
    workspace = make.workspace(tmp_path / "w", tmp_path / "corpus")
    write_jsonl(workspace.corpus / "a.jsonl", ({"text": text} for text in texts * 3))
    ready(workspace)
    prepare = workspace.module("prepare")
    tokenizer = prepare.load_tokenizer(next(workspace.cache.glob("*/manifest.json")).parent)
    found = {}
    for part, tokens in tokens_of(workspace).items():
        documents = [[]]
        for token in memoryview(tokens).cast("H").tolist():
            if token == prepare.BOS:
                documents.append([])
            else:
                documents[-1].append(token)
        found[part] = [tokenizer.decode_bytes(document).decode() for document in documents[1:]]
        assert all(prepare.part_of(text.encode()) == part for text in found[part])
    assert sorted(text for texts_of_part in found.values() for text in texts_of_part) == sorted(texts * 3)


def test_records_without_text_and_blank_lines_are_left_out_and_counted(
    make: Maker, texts: list[str], tmp_path: Path
) -> None:
    workspace = make.workspace(tmp_path / "w", tmp_path / "corpus")
    empty = [{"text": ""}, {"text": None}, {"text": "half a pair: \ud800"}]
    workspace.corpus.mkdir()
    lines = [json.dumps({"text": text}) for text in texts] + ["", "  ", *map(json.dumps, empty)]
    (workspace.corpus / "a.jsonl").write_text("\r\n".join(lines))  # and no end of line at the end
    (workspace.corpus / "readme.md").write_text("not of the corpus")
    said = ready(workspace)
    assert "3 records without text are left out" in said
    assert "1 files beside 1 of JSONL or parquet are left out" in said


def test_an_empty_row_of_parquet_is_left_out(make: Maker, texts: list[str], tmp_path: Path) -> None:
    workspace = make.workspace(tmp_path / "w", tmp_path / "corpus")
    write_parquet(workspace.corpus / "a.parquet", [*texts, None, ""])
    assert "2 records without text are left out" in ready(workspace)


# ---------------------------------------------------------------- workers


@pytest.mark.parametrize("kind", ["text", "jsonl", "parquet"])
def test_however_many_workers_encode_the_bytes_are_the_same(
    make: Maker, corpus: Path, texts: list[str], tmp_path: Path, kind: str
) -> None:
    folder = corpus if kind == "text" else tmp_path / "corpus"
    if kind == "jsonl":
        write_jsonl(folder / "a.jsonl", ({"text": text} for text in texts))
    if kind == "parquet":
        write_parquet(folder / "a.parquet", [*texts])
    results = []
    for workers in ("1", "2", "5"):
        workspace = make.workspace(tmp_path / workers, folder, prepare={"UNIT_BYTES": 20_000, "PIECE_BYTES": 1_000})
        ready(workspace, "--workers", workers)
        results.append(workspace.digests())
    assert results[0] == results[1] == results[2]


def big(make: Maker, folder: Path, megabytes: int = 16) -> Workspace:
    """A workspace whose text takes some seconds to encode."""
    workspace = make.workspace(folder / "w", folder / "corpus", prepare={"UNIT_BYTES": 200_000})
    line = " ".join(str(number) for number in range(2000)) + "\n"
    write_jsonl(workspace.corpus / "a.jsonl", ({"text": f"{n} {line * 2}"} for n in range(megabytes * 50)))
    return workspace


def workers_of(child: subprocess.Popen[str]) -> list[psutil.Process]:
    """The two encoding processes of a running prepare.py, once they are there."""
    for _ in range(600):
        found = psutil.Process(child.pid).children(recursive=True)
        encoding = [process for process in found if "spawn_main" in " ".join(process.cmdline())]
        if len(encoding) == 2:
            return encoding
        time.sleep(0.02)
    raise AssertionError("no workers were seen")


def start(workspace: Workspace) -> subprocess.Popen[str]:
    command = [sys.executable, "prepare.py", "--workers", "2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=workspace.folder, env=workspace.environment(), text=True, **pipes)


def test_a_worker_that_is_killed_ends_the_build_with_a_sentence(make: Maker, tmp_path: Path) -> None:
    workspace = big(make, tmp_path)
    with start(workspace) as child:
        workers = workers_of(child)
        workers[1].kill()
        _, said = child.communicate(timeout=60)
    assert child.returncode == 1
    assert "prepare.py: a worker ended before its work was done" in said
    assert not psutil.wait_procs(workers, timeout=10)[1]
    assert not list(workspace.cache.glob("*/manifest.json"))


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_process_that_started_them(make: Maker, tmp_path: Path, sent: signal.Signals) -> None:
    workspace = big(make, tmp_path)
    with start(workspace) as child:
        workers = workers_of(child)
        child.send_signal(sent)
        _, said = child.communicate(timeout=60)
    assert child.returncode == (-9 if sent == signal.SIGKILL else 1)
    assert ("prepare.py: stopped" in said) == (sent == signal.SIGINT)
    assert not psutil.wait_procs(workers, timeout=20)[1]
    assert not list(workspace.cache.glob("*/manifest.json"))


# ---------------------------------------------------------------- no byte is lost where a text is cut


@settings(max_examples=200, deadline=None)
@given(
    records=some.lists(some.text(max_size=12), max_size=12),
    cuts=some.lists(some.integers(1, 60), min_size=1, max_size=6),
    end=some.sampled_from(["\n", ""]),
)
def test_each_line_belongs_to_exactly_one_stretch(
    prepare: ModuleType,
    tmp_path_factory: pytest.TempPathFactory,
    records: list[str],
    cuts: list[int],
    end: str,
) -> None:
    path = tmp_path_factory.getbasetemp() / "lines.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in records) + end)
    edges = [0]
    for number in range(path.stat().st_size):
        if edges[-1] < path.stat().st_size:
            edges.append(edges[-1] + cuts[number % len(cuts)])
    read = [text for at, to in itertools.pairwise(edges) for text in prepare.lines_of(path, at, to)]
    assert read == records


@settings(max_examples=200, deadline=None)
@given(
    text=some.text(some.sampled_from(list("ab 1.\n\r\t漢é'\u00a0\u2028\x1c")), max_size=80),
    size=some.integers(1, 30),
)
def test_a_text_read_in_blocks_has_the_tokens_of_the_whole_where_lines_begin_in_each_block(
    prepare: ModuleType, tokenizer: tiktoken.Encoding, text: str, size: int
) -> None:
    pieces = list(prepare.cut_after_lines(text[at : at + size] for at in range(0, len(text), size)))
    assert "".join(pieces) == text
    starts = [len("".join(pieces[:n])) for n in range(1, len(pieces))]
    if all(at == len(text) or (text[at - 1] == "\n" and not text[at].isspace()) for at in starts if at):
        encoded = [token for piece in pieces for token in tokenizer.encode_ordinary(piece)]
        assert encoded == tokenizer.encode_ordinary(text)


def test_a_file_larger_than_a_unit_and_a_run_of_a_million_blanks_are_text_like_any_other(
    make: Maker, texts: list[str], tmp_path: Path
) -> None:
    workspace = make.workspace(tmp_path / "w", tmp_path / "corpus", prepare={"UNIT_BYTES": 300_000})
    write_jsonl(workspace.corpus / "a.jsonl", ({"text": text} for text in [*texts, " " * 1_200_000, "x" * 900_000]))
    ready(workspace)
    prepare = workspace.module("prepare")
    lengths = prepare.token_lengths(next(workspace.cache.glob("*/manifest.json")).parent)
    total = sum(lengths[memoryview(tokens).cast("H")].sum() for tokens in tokens_of(workspace).values())
    assert total == sum(len(text.encode()) for text in texts) + 2_100_000


# ---------------------------------------------------------------- one clear sentence


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"text": "cut', "JSONDecodeError: Invalid control character"),
        ("[1, 2]", "TypeError: "),
        ('{"words": "x"}', "KeyError: 'text'"),
        ('{"text": 7}', "TypeError: 'text' is a int"),
        (b'{"text": "caf\xe9"}', "UnicodeDecodeError: "),
    ],
)
def test_a_wrong_line_is_named_by_its_place(make: Maker, tmp_path: Path, line: str | bytes, why: str) -> None:
    workspace = make.workspace(tmp_path / "w", tmp_path / "corpus")
    write_jsonl(workspace.corpus / "a.jsonl", [{"text": "good"}] * 3)
    path = workspace.corpus / "a.jsonl"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + (line if isinstance(line, bytes) else line.encode()) + b"\n")
    said = refusal(workspace)
    assert said.startswith(f"prepare.py: {path}, the line that begins at byte {size}: expected a JSON object")
    assert why in said
    assert said.endswith("correct the line or take it out")


def test_a_parquet_file_without_texts_is_named(make: Maker, tmp_path: Path) -> None:
    workspace = make.workspace(tmp_path / "w", tmp_path / "corpus")
    workspace.corpus.mkdir()
    path = workspace.corpus / "a.parquet"
    pq.write_table(pa.table({"text": [1, 2], "content": ["a", "b"]}), path)
    assert refusal(workspace).startswith(f"prepare.py: {path} has no column 'text' of strings, only text, content: ")
    path.write_text("PAR1")
    assert refusal(workspace).startswith(f"prepare.py: {path} is no whole parquet file: ")


def test_a_damaged_page_of_parquet_is_named(make: Maker, texts: list[str], tmp_path: Path) -> None:
    workspace = make.workspace(tmp_path / "w", tmp_path / "corpus")
    path = workspace.corpus / "a.parquet"
    write_parquet(path, [*texts])
    content = bytearray(path.read_bytes())
    content[4:40_000] = os.urandom(39_996)
    path.write_bytes(content)
    assert f"{path}, row group 0, cannot be read: " in refusal(workspace)


def test_parquet_without_pyarrow_says_what_to_install_and_jsonl_does_without(
    make: Maker, texts: list[str], tmp_path: Path
) -> None:
    workspace = make.workspace(tmp_path / "w", tmp_path / "corpus")
    missing = "import sys; sys.modules['pyarrow'] = None; sys.argv = ['prepare.py']; import prepare; prepare.main()"
    write_jsonl(workspace.corpus / "a.jsonl", ({"text": text} for text in texts))
    assert workspace.run("-c", missing).returncode == 0
    write_parquet(workspace.corpus / "a.parquet", [*texts])
    ended = workspace.run("-c", missing)
    assert ended.returncode == 1
    assert ended.stderr.startswith("prepare.py: reading parquet takes pyarrow, which is not installed: run `pip ")


def test_a_file_that_changes_while_it_is_read_is_noticed(make: Maker, texts: list[str], tmp_path: Path) -> None:
    workspace = make.workspace(tmp_path / "w", tmp_path / "corpus")
    path = workspace.corpus / "a.jsonl"
    write_jsonl(path, ({"text": text} for text in texts))
    prepare = workspace.module("prepare")
    (unit,) = prepare.survey(str(workspace.corpus), tmp_path).units
    path.write_text(path.read_text() + '{"text": "more"}\n')
    with pytest.raises(SystemExit, match=r"a\.jsonl changed while it was being read: run prepare\.py again"):
        list(prepare.documents_of(unit))


@pytest.mark.parametrize("asked", ["climbmix:0", "climbmix:x", "climbmix:6543"])
def test_a_number_of_shards_that_cannot_be_is_refused(prepared: Workspace, asked: str) -> None:
    ended = prepared.run("prepare.py", "--corpus", asked)
    assert ended.returncode == 1
    assert ended.stderr == f"prepare.py: the corpus {asked!r}: climbmix has 1 to 6542 shards to train on\n"


def test_shards_of_a_corpus_that_has_none_are_refused(prepared: Workspace) -> None:
    ended = prepared.run("prepare.py", "--shards", "3")
    assert ended.returncode == 1
    assert ended.stderr.startswith("prepare.py: --shards counts shards of climbmix, and the corpus is ")
