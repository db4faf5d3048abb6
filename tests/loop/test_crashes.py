"""Which crashes look like a slip of the edit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loop.crashes import looks_trivial
from loop.edits import unified_diff

BEFORE = "".join(f"line{n} = {n}\n" for n in range(1, 41))
AFTER = BEFORE.replace("line20 = 20\n", "line20 = twenty\nline20b = 1\n").replace("line35 = 35\n", "")
DIFF = unified_diff({"train.py": BEFORE}, {"train.py": AFTER})


def traceback(path: str, line: int, error: str = "ValueError: bad") -> str:
    return f'Traceback (most recent call last):\n  File "{path}", line {line}, in <module>\n    x\n{error}\n'


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        (traceback("/work/folder/train.py", 20), True),
        (traceback("train.py", 21), True),
        (traceback("./train.py", 23), True),  # a line further down
        (traceback("train.py", 36), True),  # where a line was taken away
        (traceback("train.py", 5), False),
        (traceback("train.py", 5, "NameError: name 'x' is not defined"), True),
        (traceback("train.py", 5, "TypeError: 3 arguments"), True),
        (traceback("prepare.py", 20), False),
        (traceback("prepare.py", 20, "NameError: name 'x' is not defined"), False),
        (traceback("nottrain.py", 20), False),
        (traceback("prepare.py", 3) + traceback("train.py", 20), True),
        ("NameError: no place\n", False),
        ("", False),
        ("train.py:20:5: error: expected ';'\n", True),
        ("warning in train.py:20: strange\n", False),
        ("train.py:5:1: error\n", False),
    ],
)
def test_a_crash_is_a_slip_if_it_lies_in_the_edited_lines(tail: str, expected: bool) -> None:
    assert looks_trivial(tail, DIFF) == expected


def test_without_a_change_there_is_nothing_to_blame() -> None:
    assert not looks_trivial(traceback("train.py", 20, "NameError: x"), "")


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_log_and_any_patch_have_an_answer(tail: str, diff: str) -> None:
    assert looks_trivial(tail, diff) in (True, False)
