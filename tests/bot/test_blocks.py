"""What Slack does not take is found before it leaves; compared with slack_sdk's models and with blockkit."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from typing import Any

import blockkit
import pytest
from blockkit.core import ComponentValidationError, FieldValidationError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from slack_sdk.errors import SlackObjectFormationError
from slack_sdk.models.blocks import Block
from slack_sdk.models.views import View

from bot.blocks import Problem, Surface, problems, text_size
from tests.bot.sandboxed import button, buttons, field, home, modal, section

Payload = dict[str, Any]


def plain(text: str = "text") -> Payload:
    return {"type": "plain_text", "text": text}


def message(*blocks: Payload, text: str = "text") -> Payload:
    return {"text": text, "blocks": list(blocks)}


def header(text: str) -> Payload:
    return {"type": "header", "text": plain(text)}


def image(**more: Any) -> Payload:
    return {"type": "image", "alt_text": "a picture", **more}


def option(value: str = "a", text: str = "A", **more: Any) -> Payload:
    return {"text": plain(text), "value": value, **more}


def select(**more: Any) -> Payload:
    return {"type": "static_select", "action_id": "pick", "options": [option()], **more}


def table(rows: int = 2, columns: int = 2, text: str = "x", **more: Any) -> Payload:
    cell = {"type": "raw_text", "text": text}
    return {"type": "table", "rows": [[cell] * columns] * rows, **more}


def chart(series: int = 1, categories: int = 2, value: Any = 1.5, **more: Any) -> Payload:
    names = [f"c{n}" for n in range(categories)]
    data = [{"label": name, "value": value} for name in names]
    lines = [{"name": f"s{n}", "data": data} for n in range(series)]
    inside = {"type": "line", "series": lines, "axis_config": {"categories": names}}
    return {"type": "data_visualization", "title": "val_bpb", "chart": inside, **more}


def rich(*elements: Payload) -> Payload:
    return {"type": "rich_text", "elements": list(elements)}


def preformatted(text: str = "diff") -> Payload:
    return {"type": "rich_text_preformatted", "elements": [{"type": "text", "text": text}]}


def confirm(**more: Any) -> Payload:
    return {"title": plain(), "text": plain(), "confirm": plain("Yes"), "deny": plain("No"), **more}


GOOD: list[tuple[str, Payload, Surface]] = [
    ("text alone", {"text": "hello"}, "message"),
    ("every block of a message", message(
        section(fields=[plain()] * 10, accessory=button(), block_id="a"), {"type": "divider"}, header("x" * 150),
        image(image_url="https://example.org/a.png", title=plain()), image(slack_file={"id": "F1"}),
        {"type": "context", "elements": [plain(), image(slack_file={"id": "F1"})]},
        buttons(button("a", value="v", style="danger", confirm=confirm()), select(), button("b", url="https://a.b")),
        {"type": "markdown", "text": "# hi"}, table(), chart(), rich(preformatted()),
    ), "message"),
    ("metadata", {"text": "t", "metadata": {"event_type": "post", "event_payload": {"key": "k"}}}, "message"),
    ("an edit at its limit", {"text": "x" * 4_000}, "update"),
    ("markdown text", {"markdown_text": "# hello"}, "message"),
    ("50 blocks", message(*[{"type": "divider"}] * 50), "message"),
    ("12,000 characters", message(*[section("x" * 3_000)] * 4), "message"),
    ("a modal with every input", modal(
        field("text", initial_value="x" * 3_000, multiline=True), field("pick", **select()),
        field("n", type="number_input", is_decimal_allowed=True, min_value="0", initial_value="0.5", max_value="1"),
        field("at", type="timepicker", initial_time="08:00"),
        field("day", type="datepicker", initial_date="2026-02-28"),
        field("who", type="users_select"), field("file", type="file_input", filetypes=["md"], max_files=1),
        field("radio", type="radio_buttons", options=[option()], initial_option=option()),
        field("check", type="checkboxes", options=[option(description=plain())]),
        private_metadata="x" * 3_000, callback_id="start", notify_on_close=True,
    ), "modal"),
    ("a home", home(section(), buttons(button(), block_id="x"), *[{"type": "divider"}] * 98), "home"),
]  # fmt: skip

BAD: list[tuple[str, Payload, Surface, str, str]] = [
    ("section over 3,000", message(section("x" * 3_001)), "message", "/blocks/0/text/text", "invalid_blocks"),
    ("header over 150", message(header("x" * 151)), "message", "/blocks/0/text/text", "invalid_blocks"),
    ("header in mrkdwn", message({"type": "header", "text": {"type": "mrkdwn", "text": "t"}}), "message",
     "/blocks/0/text/type", "invalid_blocks"),
    ("field over 2,000", message(section(fields=[plain("x" * 2_001)])), "message", "/blocks/0/fields/0/text",
     "invalid_blocks"),
    ("11 fields", message(section(fields=[plain()] * 11)), "message", "/blocks/0/fields", "invalid_blocks"),
    ("empty section", message({"type": "section"}), "message", "/blocks/0", "invalid_blocks"),
    ("empty text of a section", message(section("")), "message", "/blocks/0/text/text", "invalid_blocks"),
    ("51 blocks", message(*[{"type": "divider"}] * 51), "message", "/blocks", "invalid_blocks"),
    ("101 blocks of a view", home(*[{"type": "divider"}] * 101), "home", "/blocks", "invalid_blocks"),
    ("no blocks in a view", {"type": "home", "blocks": []}, "home", "/blocks", "invalid_blocks"),
    ("more than 12,000 characters", message(*[section("x" * 2_999)] * 4, section("12345")), "message", "/blocks",
     "msg_blocks_too_long"),
    ("no text beside blocks", {"blocks": [section()]}, "message", "/text", "no_text"),
    ("empty text", {"text": "  \n"}, "message", "/text", "no_text"),
    ("no text in an edit", {"blocks": [section()]}, "update", "/text", "no_text"),
    ("text over 40,000", {"text": "x" * 40_001}, "message", "/text", "msg_too_long"),
    ("text over 4,000 in an edit", {"text": "x" * 4_001}, "update", "/text", "msg_too_long"),
    ("markdown_text beside text", {"text": "t", "markdown_text": "m"}, "message", "/markdown_text",
     "invalid_arguments"),
    ("markdown over 12,000", message({"type": "markdown", "text": "x" * 12_001}), "message", "/blocks/0/text",
     "invalid_blocks"),
    ("unknown block type", message({"type": "carousel"}), "message", "/blocks/0/type", "invalid_blocks"),
    ("no block type", message({}), "message", "/blocks/0/type", "invalid_blocks"),
    ("a block that is text", {"text": "t", "blocks": ["text"]}, "message", "/blocks/0", "invalid_blocks"),
    ("blocks that are no array", {"text": "t", "blocks": {"type": "divider"}}, "message", "/blocks", "invalid_blocks"),
    ("unknown field", message({"type": "divider", "colour": "red"}), "message", "/blocks/0", "invalid_blocks"),
    ("input in a message", message(field()), "message", "/blocks/0/type", "invalid_blocks"),
    ("table in a modal", modal(table()), "modal", "/blocks/0/type", "invalid_blocks"),
    ("markdown in a home", home({"type": "markdown", "text": "t"}), "home", "/blocks/0/type", "invalid_blocks"),
    ("block_id twice", message(section(block_id="a"), section(block_id="a")), "message", "/blocks/1/block_id",
     "invalid_blocks"),
    ("block_id over 255", message(section(block_id="x" * 256)), "message", "/blocks/0/block_id", "invalid_blocks"),
    ("action_id twice in a block", message(buttons(button("a"), button("a"))), "message",
     "/blocks/0/elements/1/action_id", "invalid_blocks"),
    ("action_id over 255", message(buttons(button("x" * 256))), "message", "/blocks/0/elements/0/action_id",
     "invalid_blocks"),
    ("26 buttons", message(buttons(*(button(f"a{n}") for n in range(26)))), "message", "/blocks/0/elements",
     "invalid_blocks"),
    ("no buttons", message(buttons()), "message", "/blocks/0/elements", "invalid_blocks"),
    ("button text over 75", message(buttons(button(text="x" * 76))), "message", "/blocks/0/elements/0/text/text",
     "invalid_blocks"),
    ("button value over 2,000", message(buttons(button(value="x" * 2_001))), "message", "/blocks/0/elements/0/value",
     "invalid_blocks"),
    ("button url over 3,000", message(buttons(button(url="https://" + "x" * 3_000))), "message",
     "/blocks/0/elements/0/url", "invalid_blocks"),
    ("button style", message(buttons(button(style="red"))), "message", "/blocks/0/elements/0/style", "invalid_blocks"),
    ("unknown element", message(buttons({"type": "lever"})), "message", "/blocks/0/elements/0/type", "invalid_blocks"),
    ("11 context elements", message({"type": "context", "elements": [plain()] * 11}), "message", "/blocks/0/elements",
     "invalid_blocks"),
    ("button in a context", message({"type": "context", "elements": [button()]}), "message",
     "/blocks/0/elements/0/type", "invalid_blocks"),
    ("101 options", message(buttons(select(options=[option(str(n)) for n in range(101)]))), "message",
     "/blocks/0/elements/0/options", "invalid_blocks"),
    ("option label over 75", message(buttons(select(options=[option(text="x" * 76)]))), "message",
     "/blocks/0/elements/0/options/0/text/text", "invalid_blocks"),
    ("option value over 150", message(buttons(select(options=[option("x" * 151)]))), "message",
     "/blocks/0/elements/0/options/0/value", "invalid_blocks"),
    ("initial option that is not offered", message(buttons(select(initial_option=option("b")))), "message",
     "/blocks/0/elements/0", "invalid_blocks"),
    ("options and groups", message(buttons(select(option_groups=[{"label": plain(), "options": [option()]}]))),
     "message", "/blocks/0/elements/0", "invalid_blocks"),
    ("6 overflow options", message(section(accessory={"type": "overflow", "options": [option()] * 6})), "message",
     "/blocks/0/accessory/options", "invalid_blocks"),
    ("confirm title over 100", message(buttons(button(confirm=confirm(title=plain("x" * 101))))), "message",
     "/blocks/0/elements/0/confirm/title/text", "invalid_blocks"),
    ("confirm text over 300", message(buttons(button(confirm=confirm(text=plain("x" * 301))))), "message",
     "/blocks/0/elements/0/confirm/text/text", "invalid_blocks"),
    ("confirm button over 30", message(buttons(button(confirm=confirm(deny=plain("x" * 31))))), "message",
     "/blocks/0/elements/0/confirm/deny/text", "invalid_blocks"),
    ("image without url and file", message(image()), "message", "/blocks/0", "invalid_blocks"),
    ("image with url and file", message(image(image_url="https://a.b/c.png", slack_file={"id": "F1"})), "message",
     "/blocks/0", "invalid_blocks"),
    ("image without alt text", message({"type": "image", "image_url": "https://a.b/c.png"}), "message", "/blocks/0",
     "invalid_blocks"),
    ("image with empty alt text", message(image(image_url="https://a.b/c.png", alt_text="")), "message",
     "/blocks/0/alt_text", "invalid_blocks"),
    ("image alt text over 2,000", message(image(image_url="https://a.b/c.png", alt_text="x" * 2_001)), "message",
     "/blocks/0/alt_text", "invalid_blocks"),
    ("image that is no address", message(image(image_url="figure.png")), "message", "/blocks/0/image_url",
     "invalid_blocks"),
    ("101 rows", message(table(rows=101, columns=1)), "message", "/blocks/0/rows", "invalid_blocks"),
    ("21 columns", message(table(columns=21)), "message", "/blocks/0/rows/0", "invalid_blocks"),
    ("rows of different lengths", message({"type": "table", "rows": [table()["rows"][0], []]}), "message",
     "/blocks/0/rows/1", "invalid_blocks"),
    ("more than 10,000 characters in a table", message(table(text="x" * 2_501)), "message", "/blocks/0/rows",
     "invalid_blocks"),
    ("two tables", message(table(), table()), "message", "/blocks", "invalid_blocks"),
    ("empty cell", message(table(text="")), "message", "/blocks/0/rows/0/0/text", "invalid_blocks"),
    ("chart title over 50", message(chart(title="x" * 51)), "message", "/blocks/0/title", "invalid_blocks"),
    ("7 series", message(chart(series=7)), "message", "/blocks/0/chart/series", "invalid_blocks"),
    ("no series", message(chart(series=0)), "message", "/blocks/0/chart/series", "invalid_blocks"),
    ("21 categories", message(chart(categories=21)), "message", "/blocks/0/chart/axis_config/categories",
     "invalid_blocks"),
    ("a value that is not finite", message(chart(value=float("nan"))), "message",
     "/blocks/0/chart/series/0/data/0/value", "invalid_arguments"),
    ("a value that is text", message(chart(value="1.5")), "message", "/blocks/0/chart/series/0/data/0/value",
     "invalid_blocks"),
    ("three charts", message(chart(), chart(), chart()), "message", "/blocks", "invalid_blocks"),
    ("unknown rich text", message(rich({"type": "rich_text_poem", "elements": []})), "message",
     "/blocks/0/elements/0/type", "invalid_blocks"),
    ("empty rich text", message(rich(preformatted(""))), "message", "/blocks/0/elements/0/elements/0/text",
     "invalid_blocks"),
    ("code in a mention", message(rich({"type": "rich_text_section", "elements": [
        {"type": "user", "user_id": "U1", "style": {"code": True}}]})), "message",
     "/blocks/0/elements/0/elements/0/style", "invalid_blocks"),
    ("modal title over 24", modal(title=plain("x" * 25)), "modal", "/title/text", "invalid_blocks"),
    ("submit over 24", modal(submit=plain("x" * 25)), "modal", "/submit/text", "invalid_blocks"),
    ("modal without a title", {"type": "modal", "blocks": [section()]}, "modal", "", "invalid_blocks"),
    ("input without submit", {"type": "modal", "title": plain(), "blocks": [field()]}, "modal", "/submit",
     "invalid_blocks"),
    ("private_metadata over 3,000", modal(private_metadata="x" * 3_001), "modal", "/private_metadata",
     "invalid_blocks"),
    ("callback_id over 255", modal(callback_id="x" * 256), "modal", "/callback_id", "invalid_blocks"),
    ("a home with a title", home(title=plain()), "home", "", "invalid_blocks"),
    ("a modal as a home", modal(), "home", "/type", "invalid_blocks"),
    ("initial value over 3,000", modal(field(initial_value="x" * 3_001)), "modal",
     "/blocks/0/element/initial_value", "invalid_blocks"),
    ("max_length over 3,000", modal(field(max_length=3_001)), "modal", "/blocks/0/element/max_length",
     "invalid_blocks"),
    ("initial value over max_length", modal(field(max_length=3, initial_value="four")), "modal",
     "/blocks/0/element/initial_value", "invalid_blocks"),
    ("min_length above max_length", modal(field(min_length=3, max_length=2)), "modal", "/blocks/0/element",
     "invalid_blocks"),
    ("placeholder over 150", modal(field(placeholder=plain("x" * 151))), "modal",
     "/blocks/0/element/placeholder/text", "invalid_blocks"),
    ("label over 2,000", modal({**field(), "label": plain("x" * 2_001)}), "modal", "/blocks/0/label/text",
     "invalid_blocks"),
    ("hint over 2,000", modal({**field(), "hint": plain("x" * 2_001)}), "modal", "/blocks/0/hint/text",
     "invalid_blocks"),
    ("focus twice", modal(field("a", focus_on_load=True), field("b", focus_on_load=True)), "modal",
     "/blocks/1/element/focus_on_load", "invalid_blocks"),
    ("file input in a home", home(field(type="file_input")), "home", "/blocks/0", "invalid_blocks"),
    ("a time that is none", modal(field(type="timepicker", initial_time="24:00")), "modal",
     "/blocks/0/element/initial_time", "invalid_blocks"),
    ("number out of its bounds", modal(field(type="number_input", is_decimal_allowed=False, min_value="2",
     initial_value="1")), "modal", "/blocks/0/element", "invalid_blocks"),
    ("101 attachments", {"text": "t", "attachments": [{"text": "a"}] * 101}, "message", "/attachments",
     "invalid_blocks"),
    ("bad block in an attachment", {"text": "t", "attachments": [{"blocks": [section("")]}]}, "message",
     "/attachments/0/blocks/0/text/text", "invalid_blocks"),
    ("metadata without a type", {"text": "t", "metadata": {"event_payload": {}}}, "message", "/metadata/event_type",
     "invalid_arguments"),
    ("metadata that is text", {"text": "t", "metadata": "key"}, "message", "/metadata", "invalid_arguments"),
    ("half a character", message(section("\ud83d")), "message", "/blocks/0/text/text", "invalid_arguments"),
    ("a date", message({"type": "divider", "block_id": b"x"}), "message", "/blocks/0/block_id", "invalid_arguments"),
    ("a flag that is a number", message(section(expand=1)), "message", "/blocks/0/expand", "invalid_blocks"),
    ("an emoji flag in mrkdwn", message({"type": "section", "text": {"type": "mrkdwn", "text": "t", "emoji": True}}),
     "message", "/blocks/0/text", "invalid_blocks"),
]  # fmt: skip


@pytest.mark.parametrize(("payload", "surface"), [row[1:] for row in GOOD], ids=[row[0] for row in GOOD])
def test_what_slack_takes_has_no_problem(payload: Payload, surface: Surface) -> None:
    assert problems(payload, surface) == ()


@pytest.mark.parametrize(("payload", "surface", "at", "code"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_what_slack_refuses_is_pointed_at(payload: Payload, surface: Surface, at: str, code: str) -> None:
    found = problems(payload, surface)
    assert (at, code) in [(each.pointer, each.code) for each in found], found
    assert all(each.why and len(each.why) < 120 for each in found)


def test_a_view_is_measured_in_bytes() -> None:
    block = buttons(*(button(f"a{n}", value="ü" * 2_000) for n in range(25)))
    found = problems(home(*[block] * 3), "home")
    assert [(each.pointer, each.code) for each in found] == [("", "view_too_large")]


def test_all_problems_are_found_at_once() -> None:
    found = problems({"text": "", "blocks": [section(""), header("x" * 151), {"type": "nonsense"}]}, "message")
    assert [each.pointer for each in found] == ["/text", "/blocks/0/text/text", "/blocks/1/text/text", "/blocks/2/type"]


def test_a_payload_that_is_no_object_is_a_problem_itself() -> None:
    assert problems(["text"], "message") == (  # type: ignore[arg-type]
        Problem("", "must be an object, not an array", "invalid_arguments"),
    )


def test_a_payload_nested_without_end_is_refused() -> None:
    deep: Any = "text"
    for _ in range(500):
        deep = [deep]
    assert [each.code for each in problems({"text": "t", "blocks": deep}, "message")] == ["invalid_arguments"]


def test_the_text_of_blocks_is_what_a_reader_sees() -> None:
    assert text_size([section("four"), header("12"), table(2, 2, "x"), rich(preformatted("diff"))]) == 4 + 2 + 4 + 4


# Compared with the libraries: what either refuses, we refuse too.

TEXTS = some.sampled_from(["", "x", "x" * 24, "x" * 25, "x" * 75, "x" * 76, "x" * 150, "x" * 151, "x" * 300, "x" * 301,
                           "x" * 2_000, "x" * 2_001, "x" * 3_000, "x" * 3_001])  # fmt: skip
COUNTS = some.sampled_from([0, 1, 2, 5, 6, 10, 11, 25, 26])
IDS = some.sampled_from(["a", "b", "x" * 255, "x" * 256])
FILES = some.sampled_from([{}, {"image_url": "https://a.b/c"}, {"slack_file": {"id": "F1"}},
                           {"image_url": "https://a.b/c", "slack_file": {"id": "F1"}}])  # fmt: skip


def built(shape: Callable[..., Payload], **parts: some.SearchStrategy[Any]) -> some.SearchStrategy[Payload]:
    return some.fixed_dictionaries({}, optional=parts).map(lambda given: shape(**given))


def a_section(text: str = "x", fields: int = 0, field_text: str = "x", **more: Any) -> Payload:
    body: Payload = {"type": "section", "text": plain(text), **more}
    return body | ({"fields": [plain(field_text)] * fields} if fields else {})


def some_buttons(
    count: int = 1, text: str = "x", value: str | None = None, style: str | None = None, same: bool = False,
    title: str | None = None, block_id: str | None = None,
) -> Payload:  # fmt: skip
    more: Payload = {"value": value} if value is not None else {}
    more |= {"style": style} if style else {}
    more |= {"confirm": confirm(title=plain(title))} if title is not None else {}
    ids = ["same" if same else f"a{n}" for n in range(count)]
    return buttons(*(button(name, text, **more) for name in ids), **({"block_id": block_id} if block_id else {}))


def a_select(count: int = 1, text: str = "x", value: str = "v", placeholder: str | None = None) -> Payload:
    more = {"placeholder": plain(placeholder)} if placeholder is not None else {}
    return buttons(select(options=[option(value, text)] * count, **more))


def an_input(label: str = "x", hint: str | None = None, initial: str | None = None, least: int | None = None,
             most: int | None = None) -> Payload:  # fmt: skip
    given = {"initial_value": initial, "min_length": least, "max_length": most}
    body = field(**{name: value for name, value in given.items() if value is not None})
    return body | {"label": plain(label)} | ({"hint": plain(hint)} if hint is not None else {})


BLOCKS = some.one_of(
    built(a_section, text=TEXTS, fields=COUNTS, field_text=TEXTS, block_id=IDS),
    TEXTS.map(header),
    built(some_buttons, count=COUNTS, text=TEXTS, value=TEXTS, style=some.sampled_from(["danger", "red"]), title=TEXTS,
          same=some.booleans(), block_id=IDS),
    built(a_select, count=COUNTS, text=TEXTS, value=TEXTS, placeholder=TEXTS),
    some.builds(lambda source, alt: image(**source) | {"alt_text": alt}, FILES, TEXTS),
    some.builds(lambda count, text: {"type": "context", "elements": [plain(text)] * count}, COUNTS, TEXTS),
    some.builds(lambda text: rich(preformatted(text)), TEXTS),
    some.just({"type": "divider"}),
)  # fmt: skip
MESSAGE_BLOCKS = some.one_of(
    BLOCKS,
    some.builds(lambda text: {"type": "markdown", "text": text}, some.sampled_from(["", "x" * 12_000, "x" * 12_001])),
    some.builds(table, rows=some.sampled_from([0, 1, 100, 101]), columns=some.sampled_from([1, 20, 21])),
    some.just({"type": "nonsense"}),
)
VIEW_BLOCKS = some.one_of(
    BLOCKS,
    built(an_input, label=TEXTS, hint=TEXTS, initial=TEXTS, least=some.sampled_from([0, 2, 3_001]),
          most=some.sampled_from([1, 2, 3_000, 3_001])),
)  # fmt: skip

EASY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def sdk_refuses(block: Payload) -> bool:
    """Whether slack_sdk's model of a block complains, about it or anything inside."""
    model = Block.parse(copy.deepcopy(block))
    if model is None:
        return True
    try:
        model.to_dict()
        for inside in _models(model):
            inside.validate_json()
    except SlackObjectFormationError:
        return True
    return False


def _models(model: Any) -> list[Any]:
    found, todo = [], [model]
    while todo:
        each = todo.pop()
        if hasattr(each, "validate_json"):
            found.append(each)
            todo.extend(vars(each).values())
        elif isinstance(each, list | tuple):
            todo.extend(each)
    return found


def kit_refuses(build: Callable[[], Any]) -> bool:
    try:
        build()
    except (FieldValidationError, ComponentValidationError):
        return True
    return False


def kit_text(body: Mapping[str, Any]) -> blockkit.Text:
    return blockkit.Text(body["text"], type=body["type"])


def kit_element(body: Payload) -> Any:
    if body["type"] == "button":
        more = {name: body[name] for name in ("action_id", "value", "style") if name in body}
        if "confirm" in body:
            more["confirm"] = blockkit.Confirm(**{name: kit_text(part) for name, part in body["confirm"].items()})
        return blockkit.Button(kit_text(body["text"]), **more)
    if body["type"] == "static_select":
        options = [blockkit.Option(kit_text(each["text"]), each["value"]) for each in body["options"]]
        more = {"placeholder": kit_text(body["placeholder"])} if "placeholder" in body else {}
        return blockkit.StaticSelect(options=options, action_id=body["action_id"], **more)
    return blockkit.PlainTextInput(**{name: value for name, value in body.items() if name != "type"})


def kit_block(body: Payload) -> Any:
    """The same block as a blockkit component."""
    more = {"block_id": body["block_id"]} if "block_id" in body else {}
    match body["type"]:
        case "section":
            return blockkit.Section(kit_text(body["text"]), [kit_text(each) for each in body.get("fields", ())], **more)
        case "header":
            return blockkit.Header(kit_text(body["text"]))
        case "actions":
            return blockkit.Actions([kit_element(each) for each in body["elements"]], **more)
        case "context":
            return blockkit.Context([kit_text(each) for each in body["elements"]])
        case "image":
            file = blockkit.SlackFile(id=body["slack_file"]["id"]) if "slack_file" in body else None
            return blockkit.Image(image_url=body.get("image_url"), alt_text=body["alt_text"], slack_file=file)
        case "markdown":
            return blockkit.Markdown(body["text"])
        case "table":
            return blockkit.core.Table([[blockkit.core.RawText(cell["text"]) for cell in row] for row in body["rows"]])
        case "rich_text":
            texts = [blockkit.RichTextEl(each["text"]) for each in body["elements"][0]["elements"]]
            return blockkit.RichText([blockkit.RichTextPreformatted(texts)])
        case "input":
            hint = {"hint": kit_text(body["hint"])} if "hint" in body else {}
            return blockkit.Input(kit_text(body["label"]), kit_element(body["element"]), **hint, **more)
        case "divider":
            return blockkit.Divider()
    raise FieldValidationError("type", "unknown")


def blockkit_alone(block: Payload) -> bool:
    """
    Where blockkit is stricter than Slack's own pages.

    An alt text may have 2,000 characters; blockkit stops at 255. An `initial_value` may be empty; blockkit wants one
    character.
    """
    alt = block["type"] == "image" and 255 < len(block["alt_text"]) <= 2_000
    return alt or block.get("element", {}).get("initial_value") == ""


@EASY
@given(MESSAGE_BLOCKS)
def test_what_slack_sdk_refuses_in_a_message_we_refuse(block: Payload) -> None:
    if sdk_refuses(block):
        assert problems(message(block), "message")


@EASY
@given(MESSAGE_BLOCKS)
def test_what_blockkit_refuses_in_a_message_we_refuse(block: Payload) -> None:
    if kit_refuses(lambda: kit_block(block).build()) and not blockkit_alone(block):
        assert problems(message(block), "message")


@EASY
@given(some.lists(VIEW_BLOCKS, max_size=3), TEXTS, TEXTS, TEXTS)
def test_what_either_library_refuses_as_a_modal_we_refuse(
    blocks: list[Payload], title: str, submit: str, private: str
) -> None:
    view = modal(title=plain(title), submit=plain(submit), private_metadata=private) | {"blocks": blocks}

    def sdk() -> bool:
        try:
            View(**copy.deepcopy(view)).to_dict()
        except SlackObjectFormationError:
            return True
        return any(sdk_refuses(block) for block in blocks)

    def kit() -> Any:
        return blockkit.Modal(
            kit_text(view["title"]), [kit_block(block) for block in blocks], kit_text(view["submit"]),
            private_metadata=private or "x",
        ).build()  # fmt: skip

    stricter = any(blockkit_alone(block) for block in blocks)
    if sdk() or (kit_refuses(kit) and not stricter):
        assert problems(view, "modal")


KEYS = some.sampled_from(["type", "text", "blocks", "elements", "element", "rows"])
LEAVES = some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=5)
ANYTHING = some.recursive(
    LEAVES,
    lambda inside: some.lists(inside, max_size=3) | some.dictionaries(KEYS, inside, max_size=3),
    max_leaves=12,
)


@EASY
@given(ANYTHING, some.sampled_from(["message", "update", "modal", "home"]))
def test_any_json_is_judged_without_an_exception(payload: Any, surface: Surface) -> None:
    found = problems(payload if isinstance(payload, dict) else {"blocks": [payload]}, surface)
    assert all(isinstance(each, Problem) for each in found)


@EASY
@given(MESSAGE_BLOCKS, some.data())
def test_a_wrong_type_anywhere_in_a_good_block_is_found(block: Payload, data: some.DataObject) -> None:
    if problems(message(block), "message"):
        return
    broken = json.loads(json.dumps(block))
    holder = broken
    while True:
        key = data.draw(some.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder))))
        inside = holder[key]
        if isinstance(inside, dict | list) and inside and data.draw(some.booleans()):
            holder = inside
            continue
        holder[key] = {"wrong": "type"} if not isinstance(inside, dict) else "wrong"
        break
    assert problems(message(broken), "message")
