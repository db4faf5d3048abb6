"""Text from outside, made safe for a prompt and measured. Pure.

Guaranteed: what is fenced cannot close its fence, is bounded, and holds no control or invisible characters.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import TYPE_CHECKING, Literal

from eventstore.codec import clean
from eventstore.plain import plain, plain_line, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# ---------------------------------------------------------------- size

SIXTHS = 6
_CHEAP = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ \n\t"


def estimate_tokens(text: str) -> int:
    """
    Estimate the tokens of *text* from its UTF-8 bytes, rather too high than too low.

    A token is taken to be 3 bytes of ASCII letters and blanks, or 2 bytes of anything else. Published rules of
    thumb are 3.5 to 4 characters of English and about 3 of code, up to a third fewer with newer tokenizers, and
    1 to 1.5 tokens for a Chinese, Japanese or Korean character (3 bytes); numbers are cut every few digits.
    Noise such as base64 may still have more tokens than this says: it is an estimate, no bound.
    """
    return -(-weight(text) // SIXTHS)


def weight(text: str) -> int:
    """The estimate in sixths of a token, unrounded, so that the weight of a whole is the sum of its parts'."""
    data = text.encode("utf-8", "surrogatepass")
    return 2 * len(data) + len(data.translate(None, _CHEAP))


def fitting(text: str, room: int, keep: Literal["head", "tail"] = "head") -> str:
    """The longest head (or tail) of *text* whose weight is within *room*."""
    if weight(text) <= room:
        return text
    if keep == "tail":
        return text[len(text) - _longest(len(text), room, lambda size: weight(text[len(text) - size :])) :]
    return text[: _longest(len(text), room, lambda size: weight(text[:size]))]


def _longest(most: int, room: int, weight_of: Callable[[int], int]) -> int:
    most = min(most, max(room, 0) // 2)  # a character weighs 2 at least
    return max(bisect_right(range(most + 1), max(room, 0), key=weight_of) - 1, 0)


# ---------------------------------------------------------------- text from outside

_TAG = re.compile(r"[<\u2039\uff1c](?=\s{0,8}/?\s{0,8}(?:data|file|program)\b)", re.IGNORECASE)
_QUOTES = str.maketrans('"<>', "'()")
# Zero-width, variation selectors and the tag characters: a model reads them, people do not see them.
_UNSEEN = re.compile("[\u00ad\u200b-\u200d\u2060-\u2064\ufe00-\ufe0f\ufeff\U000e0000-\U000e0fff]")


def fenced(label: str, text: str, limit: int, *, keep: Literal["head", "tail"] = "head") -> str:
    """
    Put text from outside into a fence that it cannot close: `<data of="label">`, the text, `</data>`.

    At most *limit* characters are kept, of the head or the tail; the opening line then says so. Escape sequences,
    control and invisible characters are taken out, and what looks like a tag of ours is altered.
    """
    kept, cut = _bounded(text, limit, keep)
    return wrapped("data", label, kept, cut)


def fenced_within(tag: str, label: str, text: str, room: int, keep: Literal["head", "tail"] = "head") -> str:
    """`fenced` within a weight instead of a number of characters; empty if not even the fence has room."""
    limit = max(room, 0) // 2
    kept, cut = _bounded(text, limit, keep)
    kept_part = fitting(kept, room - 2 - weight(wrapped(tag, label, "", _cut_note(limit, len(text), keep))), keep)
    if len(kept_part) < len(kept):
        cut = _cut_note(len(kept_part), len(text), keep)
    out = wrapped(tag, label, kept_part, cut)
    return out if weight(out) <= room else ""


def _bounded(text: str, limit: int, keep: Literal["head", "tail"]) -> tuple[str, str]:
    """*text* made harmless and cut to *limit* characters, and what to say if something is missing, else ""."""
    near = text[: 2 * limit] if keep == "head" else text[max(len(text) - 2 * limit, 0) :]
    safe = harmless(plain(clean(near, 2 * limit)))
    kept = safe[:limit] if keep == "head" else safe[max(len(safe) - limit, 0) :]
    whole = len(near) == len(text) and len(kept) == len(safe)
    return kept, "" if whole else _cut_note(len(kept), len(text), keep)


def _cut_note(shown: int, total: int, keep: Literal["head", "tail"]) -> str:
    return f"cut, the {'first' if keep == 'head' else 'last'} {shown} of {total} characters"


def wrapped(tag: str, label: str, text: str, cut: str = "") -> str:
    note = f' shown="{cut}"' if cut else ""
    end = "" if text.endswith("\n") or not text else "\n"
    named = "of" if tag == "data" else "path"
    return f'<{tag} {named}="{line_of(label, 200).translate(_QUOTES)}"{note}>\n{text}{end}</{tag}>\n'


def harmless(text: str) -> str:
    return _TAG.sub("(", _UNSEEN.sub("", text))


def line_of(text: str, limit: int) -> str:
    """Text from outside as one harmless line of at most *limit* characters."""
    if text.isascii() and text.isprintable() and "<" not in text and len(text) <= limit:
        return text.strip()  # as nearly all of it is
    near = clean(text[: 4 * limit], 4 * limit)
    return shortened(harmless(" ".join(_UNSEEN.sub("", plain_line(near)).split())), limit)


def figure(value: float) -> str:
    return f"{value:.7g}"


def gain_words(gain: float | None) -> str:
    return "no score" if gain is None else f"{gain:+.3g}"


def lines_within(lines: Iterable[str], room: int) -> list[str]:
    """The first of *lines* that fit into *room* together, a newline after each."""
    kept: list[str] = []
    for line in lines:
        room -= weight(line) + 2
        if room < 0:
            break
        kept.append(line)
    return kept
