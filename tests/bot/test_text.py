"""Text on its way to Slack: cut, escaped, and linked to only where the address is one of our own making."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot import text

URL = "https://example.slack.com/"


@given(st.text("*_~`&<>a", max_size=40), st.integers(2, 60))
def test_cut_text_keeps_no_mark_whose_meaning_was_to_be_taken_and_no_half_of_an_entity(words: str, limit: int) -> None:
    safe = text.mrkdwn(words, limit)
    assert len(safe) <= limit
    bare = safe.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "")
    assert not set("&<>").intersection(bare)
    assert all(safe[at + 1 : at + 2] == "\u200b" for at, char in enumerate(safe) if char in "*_~`")


@pytest.mark.parametrize(
    ("actor", "expected"),
    [
        ("slack:T1/U1", "<@U1>"),
        ("slack:T1/W0ABC", "<@W0ABC>"),
        ("slack:T1/channel", "T1/channel"),
        ("slack:T1/U1> <!channel", "T1/U1&gt; &lt;!channel"),
        ("cli:ada", "ada"),
        ("ada", "ada"),
    ],
)
def test_only_the_id_of_a_person_is_a_mention(actor: str, expected: str) -> None:
    assert text.person(actor) == expected


def test_a_permalink_is_what_copy_link_gives() -> None:
    assert text.permalink(URL, "C1", "1700000000.000100") == "https://example.slack.com/archives/C1/p1700000000000100"


@pytest.mark.parametrize(
    ("url", "channel", "ts"),
    [
        ("", "C1", "1.000100"),
        (URL, "", "1.000100"),
        (URL, "C1", ""),
        (URL, "C1/../x", "1.000100"),
        ("x|y", "C1", "1.1"),
    ],
)
def test_what_is_not_known_is_not_linked_to(url: str, channel: str, ts: str) -> None:
    assert text.permalink(url, channel, ts) == ""


@pytest.mark.parametrize("url", ["", "javascript:alert(1)", "https://x|<!channel>", "https://x y", "https://x>"])
def test_what_is_no_address_is_no_link(url: str) -> None:
    assert text.link(url, "here") == ""
