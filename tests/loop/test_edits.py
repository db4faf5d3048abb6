"""Edits apply exactly, or are refused with one sentence."""

import ast
import gc
import subprocess
import sys
import threading

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eventstore.events import Block, ReplaceBlocks, SetConstants, WholeFile
from loop.edits import apply, constants, count_lines, normalised, unified_diff
from loop.errors import EditRefused

TRAIN = """\
\"\"\"Train.\"\"\"
import math

DEPTH = 4  # blocks
LR: float = 1e-3
NAME = "plain"
BATCH = 2**19
PAIR = (0.8, 0.95)
TOTAL = DEPTH * 2
SEED = 1; EPS = -1e-10  # one line, two constants
if DEPTH > 2:
    TWICE = 1
TWICE = 2
WIDTH = (
    128  # in floats
)


def main():
    DEPTH = 7
    return DEPTH, [LR for LR in (1, 2)]
"""
FILES = {"train.py": TRAIN, "notes.txt": "one\ntwo\n"}


def set_in_train(**values):
    return apply([SetConstants("train.py", values)], FILES, editable=["train.py"])["train.py"]


def refused(edit, files=FILES, editable=("train.py", "notes.txt"), protected=()):
    with pytest.raises(EditRefused) as error:
        apply([edit], files, editable=editable, protected=protected)
    return error.value


# ---------------------------------------------------------------- constants


@pytest.mark.parametrize(
    ("name", "value", "old", "new"),
    [
        ("DEPTH", 8, "DEPTH = 4  # blocks", "DEPTH = 8  # blocks"),
        ("LR", 0.0234, "LR: float = 1e-3", "LR: float = 0.0234"),
        ("NAME", "it's", 'NAME = "plain"', 'NAME = "it\'s"'),
        ("BATCH", 1024, "BATCH = 2**19", "BATCH = 1024"),
        ("SEED", -5, "SEED = 1; EPS", "SEED = -5; EPS"),
        ("EPS", 0.5, "EPS = -1e-10  # one", "EPS = 0.5  # one"),
        ("WIDTH", True, "    128  # in floats", "    True  # in floats"),
    ],
)
def test_a_constant_is_set_and_nothing_else_changes(name, value, old, new):
    assert TRAIN.count(old) == 1
    assert set_in_train(**{name: value}) == TRAIN.replace(old, new)


def test_several_constants_are_set_at_once():
    assert set_in_train(EPS=2, DEPTH=16, SEED=3) == TRAIN.replace("DEPTH = 4", "DEPTH = 16").replace(
        "SEED = 1; EPS = -1e-10", "SEED = 3; EPS = 2"
    )


def test_a_constant_that_has_the_value_already_keeps_its_spelling():
    assert set_in_train(LR=0.001, DEPTH=5) == TRAIN.replace("DEPTH = 4", "DEPTH = 5")


def test_a_value_of_another_type_is_a_change():
    assert "DEPTH = 4.0 " in set_in_train(DEPTH=4.0)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("MISSING", 1, "has no top-level constant MISSING"),
        ("main", 1, "not a plain NAME = literal"),
        ("math", 1, "not a plain NAME = literal"),
        ("TWICE", 1, "assigns TWICE 2 times"),
        ("PAIR", 1, "not a plain NAME = literal"),
        ("TOTAL", 1, "not a plain NAME = literal"),
        ("LR", float("nan"), "no literal"),
        ("LR", float("inf"), "no literal"),
        pytest.param("DEPTH", 10**5000, "too many digits", id="digits"),
    ],
)
def test_a_constant_that_cannot_be_set_is_refused(name, value, why):
    error = refused(SetConstants("train.py", {name: value}))
    assert error.failure == "edit_does_not_apply"
    assert why in error.why


@pytest.mark.parametrize("later", ["for DEPTH in []: pass", "import DEPTH", "DEPTH += 1", "(DEPTH := 2)", "del DEPTH"])
def test_a_name_bound_twice_is_refused(later):
    assert "2 times" in refused(SetConstants("a.py", {"DEPTH": 2}), {"a.py": f"DEPTH = 1\n{later}\n"}, ["a.py"]).why


def test_constants_lists_what_can_be_set_in_the_order_of_the_file():
    found = constants("train.py", TRAIN)
    assert {name: constant.source for name, constant in found.items()} == {
        "DEPTH": "4",
        "LR": "1e-3",
        "NAME": '"plain"',
        "BATCH": "2**19",
        "SEED": "1",
        "EPS": "-1e-10",
        "WIDTH": "128",
    }


LITERALS = st.one_of(
    st.integers(-(10**20), 10**20),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
COMMENTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0\f"), max_size=8)


@settings(deadline=None)
@given(
    LITERALS, LITERALS, COMMENTS, st.sampled_from(["\n", "\r\n", "\r"]), st.booleans(), st.sampled_from(["", ": int"])
)
@example(1, 2, "é\u2028\x0b\x1c", "\r\n", True, ": int")
def test_setting_a_constant_changes_nothing_but_its_literal(old, new, comment, end, mark, annotation):
    before = ("\ufeff" if mark else "") + end.join([f"s = '''{end}ü'''; X{annotation} = "])
    after = end.join([f"  # {comment}", "Y = 'ä'", ""])
    text = before + repr(old) + after
    edit = SetConstants("a.py", {"X": new})
    if repr(old) == repr(new):
        assert refused(edit, {"a.py": text}, ["a.py"]).failure == "changes_nothing"
    else:
        assert apply([edit], {"a.py": text}, editable=["a.py"]) == {"a.py": before + repr(new) + after}


# ---------------------------------------------------------------- blocks and whole files


def test_blocks_apply_in_order_each_on_the_result_of_the_one_before():
    edit = ReplaceBlocks("notes.txt", (Block("one", "two!"), Block("two\n", "three\n")))
    assert apply([edit], FILES, editable=["*"]) == {"notes.txt": "two!\nthree\n"}


def test_edits_of_one_file_build_on_each_other():
    edits = [SetConstants("train.py", {"DEPTH": 5}), ReplaceBlocks("train.py", (Block("DEPTH = 5", "DEPTH = 6"),))]
    assert "DEPTH = 6  # blocks" in apply(edits, FILES, editable=["train.py"])["train.py"]


@pytest.mark.parametrize(
    ("blocks", "why"),
    [
        ([Block("three", "")], "block 1 of notes.txt does not occur"),
        ([Block("one", "1"), Block("o", "0"), Block("o", "0")], "block 3 of notes.txt does not occur"),
        ([Block("o", "0")], "occurs more than once"),
        ([Block("", "0")], "empty search text"),
    ],
)
def test_a_block_that_does_not_occur_exactly_once_is_refused(blocks, why):
    error = refused(ReplaceBlocks("notes.txt", tuple(blocks)))
    assert (error.failure, why in error.why) == ("edit_does_not_apply", True)


def test_occurrences_that_overlap_count_as_two():
    assert "more than once" in refused(ReplaceBlocks("a", (Block("aa", "b"),)), {"a": "aaa"}, ["a"]).why


def test_a_whole_file_may_be_new():
    assert apply([WholeFile("src/new.py", "x = 1\n")], FILES, editable=["src/**"]) == {"src/new.py": "x = 1\n"}


@pytest.mark.parametrize("edit", [SetConstants("gone.py", {"A": 1}), ReplaceBlocks("gone.py", (Block("a", "b"),))])
def test_only_a_whole_file_can_make_a_file(edit):
    assert refused(edit, editable=["*"]).why == "there is no file gone.py to change"


@pytest.mark.parametrize(
    "edits",
    [
        [],
        [WholeFile("train.py", TRAIN)],
        [SetConstants("train.py", {})],
        [SetConstants("train.py", {"DEPTH": 5}), SetConstants("train.py", {"DEPTH": 4})],
    ],
)
def test_edits_that_change_nothing_are_refused(edits):
    with pytest.raises(EditRefused) as error:
        apply(edits, FILES, editable=["*"])
    assert error.value.failure == "changes_nothing"


# ---------------------------------------------------------------- what a file must be


@pytest.mark.parametrize("text", ["def", "x = (", "\0", "(" * 300, "-" * 100_000 + "1", "x = 1\n  y = 2"])
def test_a_python_file_that_would_not_parse_is_refused(text):
    assert refused(WholeFile("train.py", text)).failure == "not_python"


def test_a_file_for_a_newer_python_than_ours_may_be_edited():
    """What did not parse before is left to the interpreter that will run it."""
    files = {"a.py": "type X = int  # not yet in 3.11\ndef f[T](): pass\nprint 1\n"}
    edit = ReplaceBlocks("a.py", (Block("= int", "= str"),))
    assert "type X = str" in apply([edit], files, editable=["a.py"])["a.py"]
    assert refused(SetConstants("a.py", {"X": 1}), files, ["a.py"]).why.startswith("a.py is not Python: line ")


def test_a_text_that_is_no_unicode_is_refused():
    assert "lone surrogate" in refused(WholeFile("notes.txt", "\ud800")).why


def test_a_questionable_escape_is_no_ground_for_refusal():
    assert apply([WholeFile("train.py", "x = '\\d'\n")], FILES, editable=["train.py"])


# ---------------------------------------------------------------- paths


@pytest.mark.parametrize(
    "path",
    [
        "", ".", "..", "/etc/passwd", "../train.py", "a/../train.py", "./train.py", "a//b", "a/", "a\\b", "a\nb",
        "a\0b", "a\tb", ".git/config", "sub/.GIT/hooks/x", "\ud800", "a\u202eb",
    ],
)  # fmt: skip
def test_a_path_that_is_not_plain_is_refused(path):
    error = refused(WholeFile(path, "x"), editable=["**", "*"])
    assert (error.failure, "not a plain relative path" in error.why) == ("edit_touches_protected", True)


@pytest.mark.parametrize("path", ["prepare.py", "Prepare.py", "data/a/b.txt", "DATA/x"])
def test_protected_wins_over_editable_in_any_case(path):
    assert (
        refused(WholeFile(path, "x"), editable=["**"], protected=["prepare.py", "data/**"]).why
        == f"{path} is protected"
    )


@pytest.mark.parametrize(
    "path", ["program.md", "Program.md", "nightshift.toml", ".nightshift", ".nightshift/events.db"]
)
def test_what_belongs_to_people_or_to_the_loop_is_never_editable(path):
    assert refused(WholeFile(path, "x"), editable=["**"]).failure == "edit_touches_protected"


def test_a_path_that_is_not_editable_is_refused_with_what_is():
    assert refused(WholeFile("setup.py", ""), editable=["train.py", "src/**"]).why == (
        "setup.py is not editable; editable is train.py, src/**"
    )


@pytest.mark.parametrize(("path", "why"), [("a.txt/b", "a.txt is no folder"), ("src", "it is a folder")])
def test_a_file_cannot_take_the_place_of_a_folder_nor_a_folder_that_of_a_file(path, why):
    assert why in refused(WholeFile(path, ""), {"a.txt": "", "src/x": ""}, ["**"]).why


PATHS = st.sampled_from(
    [
        "a.py",
        "b.py",
        "A.PY",
        "secret.py",
        "dir/a.py",
        "dir/secret.py",
        "a.py/x",
        "../a.py",
        "/a.py",
        "program.md",
        ".git/x",
    ]
)
TEXTS = st.sampled_from(["", "A = 1\n", "A = 1\nB = 'x'\n", "A = 2\nA = 3\n", "def", "\ud800", "A = 1 # é\r\nB = 2"])
EDITS = st.one_of(
    st.builds(WholeFile, PATHS, TEXTS),
    st.builds(SetConstants, PATHS, st.dictionaries(st.sampled_from(["A", "B"]), LITERALS, max_size=2)),
    st.builds(ReplaceBlocks, PATHS, st.tuples(st.builds(Block, st.sampled_from(["A", "1", "", "= "]), TEXTS))),
)


@settings(deadline=None)
@given(st.lists(EDITS, max_size=3), st.dictionaries(PATHS, TEXTS, max_size=4))
def test_any_edit_is_refused_or_leaves_only_sound_editable_files(edits, files):
    try:
        changed = apply(edits, files, editable=["*.py", "dir/**", "**/x"], protected=["secret.py", "dir/secret.py"])
    except EditRefused:
        return
    assert changed
    for path, text in changed.items():
        assert path in {"a.py", "b.py", "A.PY", "dir/a.py", "a.py/x"}
        assert files.get(path) != text
        text.encode()
        if path.endswith(".py") and files.get(path) != "def":
            ast.parse(text)


# ---------------------------------------------------------------- comparing


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        ("", "", (0, 0)),
        ("a\nb\n", "a\nc\n", (1, 1)),
        ("a\n", "a\n\n# note\n   # another\n\t\n", (0, 0)),
        ("# x\na\nb\n", "a", (0, 1)),
        ("a  \n", "a\n", (0, 0)),
        ("", "a\r\nb\r\n", (2, 0)),
    ],
)
def test_lines_count_without_blanks_and_comments(before, after, lines):
    assert count_lines(before, after) == lines


@settings(deadline=None)
@given(st.lists(st.sampled_from("abc"), max_size=30), st.lists(st.sampled_from("abc"), max_size=30))
def test_lines_added_less_lines_removed_is_the_growth(old, new):
    added, removed = count_lines("\n".join(old), "\n".join(new))
    assert added - removed == len(new) - len(old)


LINES = st.lists(st.sampled_from(["a", "b", "", "+x", "-y", "@@", "\\ No", "é\r", "f\x0cg\u2028h"]), max_size=12)


@settings(deadline=None, max_examples=25)
@given(LINES, LINES, st.booleans(), st.booleans(), st.sampled_from(["change", "new", "gone"]))
def test_git_makes_the_files_after_from_the_files_before_and_the_diff(
    tmp_path_factory, old, new, old_ends, new_ends, what
):
    folder = tmp_path_factory.mktemp("diff")
    before = {} if what == "new" else {"a.txt": "\n".join(old) + "\n" * old_ends}
    after = {} if what == "gone" else {"a.txt": "\n".join(new) + "\n" * new_ends}
    for path, text in before.items():
        (folder / path).write_bytes(text.encode())
    patch = unified_diff(before, after)
    if patch:
        subprocess.run(["git", "apply", "--whitespace=nowarn", "-"], input=patch.encode(), cwd=folder, check=True)
    assert {path.name: path.read_bytes().decode() for path in folder.iterdir()} == after


def test_files_that_are_equal_have_no_diff():
    assert unified_diff(FILES, FILES) == ""


def test_two_spellings_of_one_program_normalise_to_the_same():
    assert normalised("x=1e-3 # a\n\n# b\ny = ( 2 )\n") == normalised("x = 0.001\ny = 2\n")
    assert normalised("x = 1") != normalised("x = 2")


def test_what_is_not_python_normalises_without_comments_and_blank_lines():
    assert normalised("not python\n\n# c\n  at all  \n") == "not python\n  at all"


class Garbage:
    """Something whose end is Python code, in the middle of whatever collects it."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        sum(range(50))


def test_threads_may_parse_at_once() -> None:
    """The loop and its pool do, and Python 3.11 may mix their parsers up whenever it collects garbage."""
    text = "\n".join(f"A{n} = {{'b': [({n}, -{n}) for _ in range(3)]}}" for n in range(200))
    failed: list[BaseException] = []

    def parse() -> None:
        try:
            for _ in range(12):
                garbage = [Garbage() for _ in range(3)]
                constants("train.py", text)
                del garbage
        except BaseException as error:
            failed.append(error)

    before, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.set_threshold(1)
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=parse) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        gc.set_threshold(*before)
        sys.setswitchinterval(interval)
    assert not failed
