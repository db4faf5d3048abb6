"""What comes from outside reaches a terminal as text and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.plain import as_on_terminal, duration, plain, plain_line, shortened


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ünïcode 🙂\n\tindented\n", "plain ünïcode 🙂\n\tindented\n"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2J\x1b[1;1Hover", "over"),
        ("\x9b31mred", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPq#0;2;0\x1b\\picture", "picture"),
        ("a\x08b\x00c\x7fd\x85e", "abcde"),
        ("\u202egnp.exe\u2066", "gnp.exe"),
        ("half \ud83d", "half ?"),
        ("at the end \x1b", "at the end "),
        ("at the end \x1b[", "at the end "),
    ],
)
def test_escapes_and_controls_go_and_words_stay(text: str, expected: str) -> None:
    assert plain(text) == expected


@given(st.text(st.characters()))
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    shown = plain(text)
    assert all(char in "\n\t" or char.isprintable() or ord(char) > 0x9F for char in shown)
    assert "\u202e" not in shown
    shown.encode()
    assert plain(shown) == shown


@given(st.text(st.characters()))
def test_a_line_is_one_line(text: str) -> None:
    assert len(plain_line(text).splitlines()) <= 1


def test_noise_made_to_be_slow_is_not() -> None:
    for piece in ("\x1b]", "\x1b[", "\x1b[0;", "\x1bP", "\x1b "):
        assert len(plain(piece * 200_000)) <= 400_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("\n", [""]),
        ("a\nb", ["a", "b"]),
        ("a\r\nb\r\n", ["a", "b"]),
        ("step 1\rstep 2\rstep 3", ["step 3"]),
        ("step 1\r\nend\n", ["step 1", "end"]),
    ],
)
def test_a_line_that_rewrites_itself_shows_its_last_state(text: str, expected: list[str]) -> None:
    assert as_on_terminal(text) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-5, "0 s"),
        (0.9, "0 s"),
        (42, "42 s"),
        (60, "1 min"),
        (7_500, "2 h 5 min"),
        (7_200, "2 h"),
        (180_000, "2 d 2 h"),
    ],
)
def test_durations_have_at_most_two_units(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def test_what_is_shortened_ends_in_an_ellipsis_and_keeps_its_limit() -> None:
    assert shortened("12345", 5) == "12345"
    assert shortened("123 56", 5) == "123…"
