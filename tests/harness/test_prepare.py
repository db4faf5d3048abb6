"""The cache: built once, checked always, split by document; and what prepare.py says when it cannot."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

if TYPE_CHECKING:
    import numpy as np
    import tiktoken
    from conftest import Maker, Workspace

FILES = ["manifest.json", "tokenizer.json", "train/tokens.bin", "select/tokens.bin", "report/tokens.bin"]


@pytest.fixture
def own(make: Maker, corpus: Path, prepared: Workspace, tmp_path: Path) -> Workspace:
    """A prepared workspace that the test may damage: a copy of the session's."""
    workspace = make.workspace(tmp_path / "workspace", corpus)
    shutil.copytree(prepared.cache, workspace.cache)
    return workspace


def key_folder(workspace: Workspace) -> Path:
    folders = [manifest.parent for manifest in workspace.cache.glob("*/manifest.json")]
    assert len(folders) == 1
    return folders[0]


def decoded_documents(workspace: Workspace, part: str) -> list[str]:
    prepare = workspace.module("prepare")
    tokens = prepare.open_tokens(key_folder(workspace), part).tolist()
    tokenizer = prepare.load_tokenizer(key_folder(workspace))
    documents: list[list[int]] = []
    for token in tokens:
        if token == prepare.BOS:
            documents.append([])
        else:
            documents[-1].append(token)
    return [tokenizer.decode_bytes(document).decode() for document in documents]


def part_of(name: str) -> str:
    share = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 100
    return "select" if share < 4 else "report" if share < 8 else "train"


# ---------------------------------------------------------------- built once


def test_a_second_call_writes_nothing_and_takes_under_a_second(prepared: Workspace) -> None:
    before = prepared.digests()
    written = {path: path.stat().st_mtime_ns for path in key_folder(prepared).rglob("*")}
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        ended = prepared.run("prepare.py")
        seconds.append(time.perf_counter() - began)
        assert ended.stdout.startswith("ready: "), ended.stdout + ended.stderr
    print(f"second calls: {seconds}")
    assert min(seconds) < 1.0
    assert prepared.digests() == before
    assert {path: path.stat().st_mtime_ns for path in key_folder(prepared).rglob("*")} == written


def test_a_second_call_imports_neither_torch_nor_a_tokenizer(prepared: Workspace) -> None:
    code = (
        "import sys, prepare; sys.argv = ['prepare.py']; prepare.main();"
        "print(sorted({'torch', 'tiktoken', 'rustbpe'} & set(sys.modules)))"
    )
    assert prepared.run("-c", code).stdout.splitlines()[-1] == "[]"


def test_the_same_corpus_and_harness_give_the_same_bytes(
    make: Maker, corpus: Path, prepared: Workspace, tmp_path: Path
) -> None:
    again = make.workspace(tmp_path / "workspace", corpus)
    assert again.run("prepare.py").returncode == 0
    assert again.digests() == prepared.digests()


def test_another_text_or_another_harness_has_another_cache(make: Maker, tmp_path: Path) -> None:
    workspace = make.workspace(tmp_path / "workspace", make.corpus(tmp_path / "corpus"))
    workspace.run("prepare.py")
    first = key_folder(workspace)
    (workspace.corpus / "more.txt").write_text("one more document")
    workspace.run("prepare.py")
    assert len(list(workspace.cache.glob("*/manifest.json"))) == 2
    harness = workspace.folder / "prepare.py"
    harness.write_text(harness.read_text() + "# changed\n")
    workspace.run("prepare.py")
    assert len(list(workspace.cache.glob("*/manifest.json"))) == 3
    assert first.is_dir()


def test_two_processes_at_once_build_one_whole_cache(
    make: Maker, corpus: Path, prepared: Workspace, tmp_path: Path
) -> None:
    workspace = make.workspace(tmp_path / "workspace", corpus)
    command = [sys.executable, "prepare.py"]
    children = [
        subprocess.Popen(command, cwd=workspace.folder, env=workspace.environment(), stdout=subprocess.DEVNULL)
        for _ in range(2)
    ]
    assert [child.wait(60) for child in children] == [0, 0]
    assert workspace.digests() == prepared.digests()
    assert not list(workspace.cache.glob("building-*"))


# ---------------------------------------------------------------- checked always


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_in_any_file_is_found_and_the_cache_built_again(own: Workspace, name: str) -> None:
    whole = own.digests()
    damaged = key_folder(own) / name
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    ended = own.run("prepare.py")
    assert f"is damaged ({name} is" in ended.stdout
    assert own.digests() == whole


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_found_and_the_cache_built_again(own: Workspace, name: str) -> None:
    whole = own.digests()
    (key_folder(own) / name).unlink()
    assert own.run("prepare.py").returncode == 0
    assert own.digests() == whole


def test_every_byte_of_the_manifest_counts(own: Workspace) -> None:
    """Also those of a number that no check compares, and of the digest itself."""
    prepare = own.module("prepare")
    folder = key_folder(own)
    whole = (folder / "manifest.json").read_bytes()
    for at in range(len(whole)):
        (folder / "manifest.json").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert prepare.read_manifest(folder) is None, f"byte {at}"
    (folder / "manifest.json").write_bytes(whole)
    assert prepare.find_fault(folder) is None


def test_what_a_killed_build_left_behind_is_removed(
    make: Maker, corpus: Path, prepared: Workspace, tmp_path: Path
) -> None:
    workspace = make.workspace(tmp_path / "workspace", corpus)
    (workspace.cache / "building-0123" / "train").mkdir(parents=True)
    assert workspace.run("prepare.py").returncode == 0
    assert workspace.digests() == prepared.digests()
    assert not list(workspace.cache.glob("building-*"))


def test_the_tokenizer_is_json(prepared: Workspace) -> None:
    stored = json.loads((key_folder(prepared) / "tokenizer.json").read_text())
    assert stored["bos"] == 299
    assert len(stored["ranks"]) == 299


# ---------------------------------------------------------------- split by document


def test_each_document_is_in_the_part_that_its_name_says_and_in_no_other(prepared: Workspace) -> None:
    texts = {path.relative_to(prepared.corpus).as_posix(): path.read_text() for path in prepared.corpus.rglob("*.txt")}
    for part in ("train", "select", "report"):
        expected = sorted(text for name, text in texts.items() if part_of(name) == part)
        assert expected
        assert sorted(decoded_documents(prepared, part)) == expected


def test_a_text_under_two_names_is_used_once(make: Maker, tmp_path: Path) -> None:
    """Else a copy of a training text could be scored."""
    workspace = make.workspace(tmp_path / "workspace", make.corpus(tmp_path / "corpus"))
    for number in range(100):
        (workspace.corpus / f"copy{number}.txt").write_text("the same words everywhere")
    workspace.run("prepare.py")
    everything = [text for part in ("train", "select", "report") for text in decoded_documents(workspace, part)]
    assert everything.count("the same words everywhere") == 1


def test_what_is_no_text_is_left_out_and_counted(make: Maker, tmp_path: Path) -> None:
    workspace = make.workspace(tmp_path / "workspace", make.corpus(tmp_path / "corpus"))
    (workspace.corpus / "picture.png").write_bytes(b"\x89PNG\xff\xfe")
    (workspace.corpus / "empty.txt").write_text("")
    (workspace.corpus / "nowhere.txt").symlink_to("gone")
    (workspace.corpus / ".hidden.txt").write_text("hidden")
    (workspace.corpus / ".git").mkdir()
    (workspace.corpus / ".git" / "config").write_text("hidden too")
    ended = workspace.run("prepare.py")
    assert "3 of 153 files are empty or no UTF-8 text" in ended.stdout
    everything = [text for part in ("train", "select", "report") for text in decoded_documents(workspace, part)]
    assert len(everything) == 150


def test_the_standard_library_is_a_corpus(make: Maker, tmp_path: Path) -> None:
    """Its rules are those of the shipped file, whatever Python runs this."""
    workspace = make.workspace(tmp_path / "workspace", tmp_path)
    prepare = workspace.module("prepare")
    units = prepare.survey("stdlib", tmp_path).units
    documents = [document for unit in units for document in unit.documents]
    names = {document.name for document in documents}
    assert {"dataclasses.py", "json/decoder.py", "asyncio/tasks.py"} <= names
    assert not [name for name in names if {"test", "site-packages", "encodings"} & set(Path(name).parts)]
    counts = {part: sum(document.part == part for document in documents) for part in ("train", "select", "report")}
    print(f"standard library: {counts}")
    assert counts["train"] > 300
    assert min(counts.values()) >= 5
    for part in ("select", "report"):
        assert sum(document.size for document in documents if document.part == part) > 3 * prepare.EVAL_TOKENS
    held_out = {document.name for document in documents if document.part != "train"}
    assert {name.partition("/")[0] for name in held_out} <= prepare.STDLIB_HELD_OUT


def test_no_training_imports_what_is_held_out_of_the_standard_library(make: Maker, tmp_path: Path) -> None:
    """A sandbox covers those files up."""
    workspace = make.workspace(tmp_path / "workspace", tmp_path)
    code = (
        "import sys, train, prepare, torch.export, torch._dynamo, torch._inductor.compile_fx\n"
        "import trainer.evaluator.export\n"
        "print({name for name in sys.modules if {name, name + '.py'} & prepare.STDLIB_HELD_OUT} or 'none')"
    )
    ended = workspace.run("-c", code)
    assert ended.stdout == "none\n", ended.stderr


# ---------------------------------------------------------------- tokens


def test_the_bytes_of_all_tokens_sum_to_the_bytes_of_the_text(prepared: Workspace) -> None:
    prepare = prepared.module("prepare")
    folder = key_folder(prepared)
    lengths = prepare.token_lengths(folder)
    total = sum(int(lengths[prepare.open_tokens(folder, part)].sum()) for part in ("train", "select", "report"))
    assert total == sum(path.stat().st_size for path in prepared.corpus.rglob("*.txt"))
    assert lengths[prepare.BOS] == 0


@pytest.fixture(scope="module")
def tokenizer(prepared: Workspace) -> tuple[tiktoken.Encoding, np.ndarray]:
    """The tokenizer, and the bytes of each token."""
    prepare = prepared.module("prepare")
    return prepare.load_tokenizer(key_folder(prepared)), prepare.token_lengths(key_folder(prepared))


@settings(max_examples=200, deadline=None)
@given(text=some.text())
def test_any_text_survives_the_tokenizer_and_keeps_its_bytes(
    tokenizer: tuple[tiktoken.Encoding, np.ndarray], text: str
) -> None:
    encoding, lengths = tokenizer
    tokens = encoding.encode_ordinary(text)
    assert encoding.decode_bytes(tokens) == text.encode()
    assert sum(lengths[token] for token in tokens) == len(text.encode())


# ---------------------------------------------------------------- one clear sentence


def refusal(ended: subprocess.CompletedProcess[str]) -> str:
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    return ended.stderr.strip()


def test_a_missing_folder_is_named_with_what_to_do(prepared: Workspace, tmp_path: Path) -> None:
    said = refusal(prepared.run("prepare.py", "--corpus", str(tmp_path / "nothing")))
    assert said.startswith(f"prepare.py: the corpus folder {tmp_path / 'nothing'} does not exist: put ")


def test_a_cache_that_cannot_be_written_is_named(prepared: Workspace, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    said = refusal(prepared.run("prepare.py", "--cache", str(tmp_path / "file")))
    assert str(tmp_path / "file") in said


def test_a_file_name_that_is_not_utf8_is_a_name_like_any_other(make: Maker, tmp_path: Path) -> None:
    workspace = make.workspace(tmp_path / "workspace", make.corpus(tmp_path / "corpus"))
    (workspace.corpus / os.fsdecode(b"caf\xe9.txt")).write_text("an old file name")
    assert workspace.run("prepare.py").returncode == 0
    everything = [text for part in ("train", "select", "report") for text in decoded_documents(workspace, part)]
    assert "an old file name" in everything


def test_a_relative_folder_in_the_constant_is_refused(make: Maker, tmp_path: Path) -> None:
    workspace = make.workspace(tmp_path / "workspace", Path("texts"))
    assert "'texts' is a relative path" in refusal(workspace.run("prepare.py"))


def test_a_relative_folder_on_the_command_line_is_taken_from_here(make: Maker, tmp_path: Path) -> None:
    workspace = make.workspace(tmp_path / "workspace", Path("/nowhere"))
    make.corpus(workspace.folder / "texts")
    ended = workspace.run("prepare.py", "--corpus", "texts", "--cache", "here")
    assert ended.returncode == 0
    assert f"NIGHTSHIFT_CORPUS={workspace.folder / 'texts'}" in ended.stdout
    assert f"NIGHTSHIFT_CACHE={workspace.folder / 'here'}" in ended.stdout
    assert ended.stdout.splitlines()[-1].startswith("ready: ")
    assert list((workspace.folder / "here").glob("*/manifest.json"))


def test_too_few_documents_to_split_are_refused_and_nothing_is_left(make: Maker, tmp_path: Path) -> None:
    workspace = make.workspace(tmp_path / "workspace", make.corpus(tmp_path / "corpus", documents=1))
    assert "none of the 1 documents" in refusal(workspace.run("prepare.py"))
    assert not workspace.cache.exists()


def test_a_part_shorter_than_one_row_is_refused(make: Maker, corpus: Path, tmp_path: Path) -> None:
    workspace = make.workspace(
        tmp_path / "workspace", corpus, prepare={"MAX_SEQ_LEN": 1_000_000, "EVAL_TOKENS": 1_000_000}
    )
    assert "fewer than one row of 1000000" in refusal(workspace.run("prepare.py"))
    assert not list(workspace.cache.glob("*/manifest.json"))


@pytest.mark.parametrize(
    "constants", [{"VOCAB_SIZE": 256}, {"VOCAB_SIZE": 65_537}, {"MAX_SEQ_LEN": 0}, {"EVAL_TOKENS": 31}]
)
def test_impossible_constants_are_refused(make: Maker, corpus: Path, tmp_path: Path, constants: dict[str, int]) -> None:
    workspace = make.workspace(tmp_path / "workspace", corpus, prepare=constants)
    assert "correct the constants at the top" in refusal(workspace.run("prepare.py"))


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("NIGHTSHIFT_BUDGET_S", "soon", "a number of at least 0.001"),
        ("NIGHTSHIFT_BUDGET_S", "0", "a number of at least 0.001"),
        ("NIGHTSHIFT_BUDGET_S", "nan", "a number of at least 0.001"),
        ("NIGHTSHIFT_BUDGET_S", "inf", "a number of at least 0.001"),
        ("NIGHTSHIFT_SEED", "-1", "a whole number of at least 0"),
        ("NIGHTSHIFT_SEED", "1.5", "a whole number of at least 0"),
    ],
)
def test_a_bad_variable_is_named_with_its_value(prepared: Workspace, variable: str, value: str, expected: str) -> None:
    said = refusal(prepared.run("prepare.py", **{variable: value}))
    assert said == f"prepare.py: {variable} is {value!r}: expected {expected}; set it so or unset it"
