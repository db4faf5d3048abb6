"""The page that approximates Slack: everything is escaped, nothing is loaded, nothing known is lost."""

from __future__ import annotations

from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot import html
from bot.message import PICTURE, Message, Picture
from bot.text import date, escape, preformatted

VOID = {"meta", "hr", "br", "img"}


class Page(HTMLParser):
    """The tags, attributes and text of a page; complains where a tag is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "br":
            self.words += "\n"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words += data


def drawn(*blocks: dict[str, Any], what: html.What = "message", **payload: Any) -> Page:
    return Page(html.page([html.Shown(what, {"blocks": list(blocks), **payload})], "A page"))


def mrkdwn(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def test_the_page_says_that_it_is_an_approximation_and_loads_and_runs_nothing() -> None:
    page = drawn(mrkdwn("hello"))
    assert "An approximation" in page.words
    policy = next(attrs["content"] for tag, attrs in page.tags if tag == "meta" and "content" in attrs)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "form"}


@pytest.mark.parametrize(
    ("text", "tag", "words"),
    [
        ("*bold* words", "b", "bold words"),
        ("_slanted_", "i", "slanted"),
        ("~gone~", "s", "gone"),
        ("run `nightshift digest`", "code", "run nightshift digest"),
        ("```a\nb```", "pre", "a\nb"),
        ("<https://example.org|a link>", "a", "a link"),
        ("hi <@U1>", "span", "hi @U1"),
        ("two\nlines", "br", "two\nlines"),
        (escape("<b> & <script>"), "div", "<b> & <script>"),
    ],
)
def test_mrkdwn_looks_like_itself(text: str, tag: str, words: str) -> None:
    page = drawn(mrkdwn(text))
    assert tag in [found for found, _ in page.tags] and words in page.words


def test_a_date_shows_its_fallback() -> None:
    assert "2026-11-21 08:00 UTC" in drawn(mrkdwn(date(datetime(2026, 11, 21, 8, tzinfo=UTC)))).words


def test_snake_case_and_lone_marks_stay_as_they_are() -> None:
    assert "val_bpb * 2 _ 3 and a_b_c" in drawn(mrkdwn("val_bpb * 2 _ 3 and a_b_c")).words


def test_a_link_to_a_script_is_only_text() -> None:
    page = drawn(mrkdwn("<javascript:alert(1)|click>"))
    assert "a" not in [tag for tag, _ in page.tags] and "javascript:alert(1)" in page.words


def test_a_picture_is_inside_the_page_with_its_alt_text() -> None:
    block = {"type": "image", "slack_file": dict(PICTURE), "alt_text": "a staircase"}
    found = Message("text", (block,), Picture(b"\x89PNG", "x.png", "a staircase"))
    page = Page(html.page([html.shown(found)], "A page"))
    (attrs,) = [attrs for tag, attrs in page.tags if tag == "img"]
    assert attrs["src"] == "data:image/png;base64,iVBORw==" and attrs["alt"] == "a staircase"
    assert "[picture] a staircase" in drawn(block).words
    assert "img" not in [tag for tag, _ in drawn({**block, "image_url": "https://x/y.png"}).tags]


def test_replies_follow_their_message_and_a_label_says_who_sees_what() -> None:
    page = Page(html.page([html.shown(Message("head")), html.shown(Message("below"), "reply", "Ada")], ""))
    assert page.words.index("head") < page.words.index("reply · Ada") < page.words.index("below")
    assert "card reply" in [attrs.get("class") for _, attrs in page.tags]


def test_buttons_show_their_words_and_carry_the_rest_in_a_hint() -> None:
    confirm = {"title": {"type": "plain_text", "text": "Stop nov21?"}, "text": {"type": "plain_text", "text": "Sure?"}}
    button = {"type": "button", "action_id": "stop", "value": '{"run":"nov21"}', "style": "danger", "confirm": confirm,
              "text": {"type": "plain_text", "text": "Stop"}}  # fmt: skip
    page = drawn({"type": "actions", "elements": [button]})
    (attrs,) = [attrs for tag, attrs in page.tags if tag == "button"]
    assert attrs["title"] == 'stop: {"run":"nov21"} | asks first: Stop nov21? Sure?' and attrs["class"] == "danger"


def test_a_modal_shows_title_inputs_and_buttons() -> None:
    view = {"title": {"type": "plain_text", "text": "Start a run"}, "submit": {"type": "plain_text", "text": "Start"},
            "close": {"type": "plain_text", "text": "Cancel"}}  # fmt: skip
    field = {"type": "input", "label": {"type": "plain_text", "text": "Tag"}, "optional": True,
             "hint": {"type": "plain_text", "text": "a name"},
             "element": {"type": "plain_text_input", "initial_value": "nov21\nnov22"}}  # fmt: skip
    page = drawn(field, what="modal", **view)
    for words in ("Start a run", "Tag (optional)", "nov21\nnov22", "a name", "Cancel", "Start"):
        assert words in page.words


def test_other_blocks_look_like_themselves() -> None:
    words = drawn(
        {"type": "header", "text": {"type": "plain_text", "text": "A head"}},
        {"type": "divider"},
        {"type": "context", "elements": [{"type": "mrkdwn", "text": "small"}]},
        {"type": "section", "fields": [{"type": "mrkdwn", "text": "one"}, {"type": "plain_text", "text": "two"}]},
        {"type": "rich_text", "elements": [
            {"type": "rich_text_section", "elements": [{"type": "text", "text": "code", "style": {"code": True}},
                                                       {"type": "user", "user_id": "U7"}]},
            {"type": "rich_text_list", "style": "bullet", "elements": [
                {"type": "rich_text_section", "elements": [{"type": "text", "text": "item"}]}]}]},
        preformatted("a diff\n+ line", 100),
        {"type": "table", "rows": [[{"type": "raw_text", "text": "cell"}]]},
        {"type": "data_visualization", "title": "Best", "chart": {
            "type": "line", "series": [{"name": "val_bpb", "data": [{"label": "0", "value": 1.5}]}],
            "axis_config": {"categories": ["0"]}}},
        {"type": "actions", "elements": [{
            "type": "static_select", "placeholder": {"type": "plain_text", "text": "pick"},
            "options": [{"text": {"type": "plain_text", "text": "option one"}, "value": "1"}]}]},
    ).words  # fmt: skip
    expected = ("A head", "small", "one", "two", "code", "@U7", "item", "a diff\n+ line", "cell", "[chart] Best", "1.5",
                "pick", "option one")  # fmt: skip
    assert [part for part in expected if part not in words] == []


def test_a_block_that_is_not_known_is_shown_as_its_json() -> None:
    assert '"type": "hologram"' in drawn({"type": "hologram", "depth": 3}).words


def test_a_message_without_blocks_shows_its_text() -> None:
    assert "only *text*".replace("*", "") in drawn(text="only *text*").words


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=30) | st.sampled_from(["</div><script>", "<@U1|\"'>"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "text", "elements", "element", "blocks", "title", "style", "value", "fields", "rows"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


KINDS = ["section", "header", "context", "actions", "image", "input", "rich_text", "table", "data_visualization", "x"]


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(KINDS), rest=st.dictionaries(st.sampled_from(["text", "elements", "element", "fields",
       "accessory", "label", "alt_text", "rows", "chart", "title"]), JSON), text=st.text(max_size=50))  # fmt: skip
def test_whatever_the_payload_the_page_is_whole_and_no_text_becomes_a_tag(
    kind: str, rest: dict[str, Any], text: str
) -> None:
    page = drawn({"type": kind, **rest}, mrkdwn(escape(text)), what="modal", title=rest.get("title"))
    assert "script" not in [tag for tag, _ in page.tags]
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
