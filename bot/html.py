"""What Slack would show, as one HTML page to look at: messages, modals and the Home tab. Pure.

An approximation, and the page says so: Slack's own fonts, widths and folding are not imitated. Guaranteed: the page is
self-contained (pictures are inside it, it loads nothing and runs nothing), every text is escaped, and a block of a type
that is not known here is shown as its JSON.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bot.message import PICTURE, Message, Picture

What = Literal["message", "reply", "ephemeral", "modal", "home"]

NOTE = (
    "An approximation: Slack's fonts, widths and folding are not imitated, its limits are. Buttons do nothing here; "
    "hover over one to see what it carries."
)

_STYLE = """
:root{color-scheme:light dark}
body{font:15px/1.46 system-ui,sans-serif;margin:2em auto;max-width:46em;padding:0 1em}
.note{color:#777;font-size:13px;border-left:3px solid #bbb;padding-left:.7em}
.what{color:#777;font-size:12px;margin:1.6em 0 .3em;text-transform:uppercase;letter-spacing:.05em}
.card{border:1px solid #8884;border-radius:8px;padding:.8em 1em}.reply{margin-left:2.5em}
.ephemeral{border-style:dashed}.modal,.home{border-width:2px}
h2{font-size:18px;margin:.2em 0 .5em}.bar{display:flex;justify-content:space-between;font-weight:700}
.block{margin:.45em 0}.section{display:flex;gap:1em;justify-content:space-between}
.fields{display:grid;grid-template-columns:1fr 1fr;gap:.4em 1em}
.context{color:#777;font-size:13px}.notification{color:#777;font-size:12px;margin-top:.8em}
button{font:inherit;font-size:13px;font-weight:600;padding:.25em .8em;border:1px solid #8886;border-radius:4px;
margin:.1em .3em .1em 0}
button.primary{background:#007a5a;color:#fff}button.danger{background:#e01e5a;color:#fff}
pre,code{font:13px ui-monospace,monospace;background:#8882;border-radius:3px}
pre{padding:.6em;white-space:pre-wrap;overflow-wrap:anywhere}
code{padding:.1em .25em}blockquote{border-left:3px solid #8886;margin:.3em 0;padding-left:.7em}
img{max-width:100%;border:1px solid #8884;border-radius:6px}.alt{border:1px dashed #8886;padding:1em;color:#777}
.mention{background:#1264a322;color:#1264a3;border-radius:3px;padding:0 .2em}
table{border-collapse:collapse;font-size:13px}td,th{border:1px solid #8884;padding:.15em .5em;text-align:left}
.input{border:1px solid #8886;border-radius:4px;padding:.4em .6em;white-space:pre-wrap;min-height:1.2em}
.hint{color:#777;font-size:12px}
"""


@dataclass(frozen=True, slots=True)
class Shown:
    """
    One thing on the page.

    Attributes:
        payload: The arguments of a message (`text`, `blocks`), or a view.
        picture: What stands where the picture of a message stands; None: its alt text is shown.
        label: What is written above it, such as who sees it.
    """

    what: What
    payload: Mapping[str, Any]
    picture: Picture | None = None
    label: str = ""


def shown(message: Message, what: What = "message", label: str = "") -> Shown:
    """A message as it would leave, its extra blocks included."""
    return Shown(what, {"text": message.text, "blocks": [*message.blocks, *message.extra]}, message.picture, label)


def page(items: Iterable[Shown], title: str) -> str:
    """Write the whole page."""
    cards = "".join(_card(item) for item in items)
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{_safe(title)}</title><style>{_STYLE}</style></head>\n"
        f'<body><h1>{_safe(title)}</h1><p class="note">{_safe(NOTE)}</p>\n{cards}</body></html>\n'
    )


def _card(item: Shown) -> str:
    payload = item.payload
    blocks = "".join(_block(block, item.picture) for block in _items(payload.get("blocks")))
    view = item.what in ("modal", "home")
    bar = f'<div class="bar"><span>{_text(payload.get("title"))}</span></div>' if item.what == "modal" else ""
    buttons = _view_buttons(payload) if item.what == "modal" else ""
    if not blocks and not view:
        blocks = f'<div class="block">{_mrkdwn(str(payload.get("text") or ""))}</div>'
    spoken = str(payload.get("text") or "")
    said = f'<div class="notification">Notification: {_mrkdwn(spoken)}</div>' if spoken and not view else ""
    label = f" · {_safe(item.label)}" if item.label else ""
    return (
        f'<div class="what">{_safe(item.what)}{label}</div>\n'
        f'<div class="card {_safe(item.what)}">{bar}{blocks}{buttons}{said}</div>\n'
    )


def _view_buttons(view: Mapping[str, Any]) -> str:
    close, submit = (_text(view.get(name)) for name in ("close", "submit"))
    found = f"<button>{close}</button>" if close else ""
    return found + (f'<button class="primary">{submit}</button>' if submit else "")


# ---------------------------------------------------------------- blocks


def _block(block: Any, picture: Picture | None) -> str:
    kind = block.get("type") if isinstance(block, Mapping) else None
    draw = _BLOCKS.get(str(kind))
    if draw is None:
        return f"<pre>{_safe(json.dumps(block, ensure_ascii=False, indent=1, default=str))}</pre>"
    return f'<div class="block {_safe(str(kind))}">{draw(block, picture)}</div>'


def _section(block: Mapping[str, Any], picture: Picture | None) -> str:
    fields = "".join(f"<div>{_text(field)}</div>" for field in _items(block.get("fields")))
    said = f"<div>{_text(block.get('text'))}{f'<div class=fields>{fields}</div>' if fields else ''}</div>"
    accessory = block.get("accessory")
    return said + (f"<div>{_element(accessory, picture)}</div>" if accessory is not None else "")


def _header(block: Mapping[str, Any], _picture: Picture | None) -> str:
    return f"<h2>{_text(block.get('text'))}</h2>"


def _divider(_of: Mapping[str, Any], _picture: Picture | None) -> str:
    return "<hr>"


def _context(block: Mapping[str, Any], picture: Picture | None) -> str:
    return " ".join(_element(element, picture) for element in _items(block.get("elements")))


def _image(block: Mapping[str, Any], picture: Picture | None) -> str:
    alt = _safe(str(block.get("alt_text") or ""))
    title = f"<div>{_text(block.get('title'))}</div>" if block.get("title") else ""
    if picture is not None and block.get("slack_file") == PICTURE:
        data = base64.b64encode(picture.data).decode()
        return f'{title}<img alt="{alt}" title="{alt}" src="data:image/png;base64,{data}">'
    return f'{title}<div class="alt">[picture] {alt}</div>'


def _input(block: Mapping[str, Any], picture: Picture | None) -> str:
    optional = " (optional)" if block.get("optional") else ""
    hint = f'<div class="hint">{_text(block.get("hint"))}</div>' if block.get("hint") else ""
    return f"<b>{_text(block.get('label'))}</b>{optional}{_element(block.get('element'), picture)}{hint}"


def _rich_text(block: Mapping[str, Any], _picture: Picture | None) -> str:
    return "".join(_rich(element) for element in _items(block.get("elements")))


def _table(block: Mapping[str, Any], _picture: Picture | None) -> str:
    rows = "".join(
        f"<tr>{''.join(f'<td>{_cell(cell)}</td>' for cell in _items(row))}</tr>" for row in _items(block.get("rows"))
    )
    return f"<table>{rows}</table>"


def _cell(cell: Any) -> str:
    if isinstance(cell, Mapping) and cell.get("type") == "rich_text":
        return _rich_text(cell, None)
    return _safe(str(cell.get("text", ""))) if isinstance(cell, Mapping) else ""


def _chart(block: Mapping[str, Any], _picture: Picture | None) -> str:
    """A chart as a table of its points: the numbers are what matters here."""
    chart = block.get("chart")
    found = chart if isinstance(chart, Mapping) else {}
    series = [one for one in _items(found.get("series")) if isinstance(one, Mapping)]
    series = series or [{"name": "share", "data": found.get("segments")}]
    rows = ""
    for one in series:
        points = [point for point in _items(one.get("data")) if isinstance(point, Mapping)]
        heads = "".join(f"<th>{_safe(str(point.get('label', '')))}</th>" for point in points)
        values = "".join(f"<td>{_safe(str(point.get('value', '')))}</td>" for point in points)
        rows += f"<tr><th></th>{heads}</tr><tr><th>{_safe(str(one.get('name', '')))}</th>{values}</tr>"
    title = _safe(f"[chart] {block.get('title', '')}")
    return f"<div>{title}</div><table>{rows}</table>"


def _markdown(block: Mapping[str, Any], _picture: Picture | None) -> str:
    return f"<pre>{_safe(str(block.get('text') or ''))}</pre>"


_BLOCKS: dict[str, Callable[[Mapping[str, Any], Picture | None], str]] = {
    "section": _section,
    "header": _header,
    "divider": _divider,
    "context": _context,
    "actions": _context,
    "image": _image,
    "input": _input,
    "rich_text": _rich_text,
    "table": _table,
    "data_visualization": _chart,
    "markdown": _markdown,
}


# ---------------------------------------------------------------- elements


def _element(element: Any, picture: Picture | None) -> str:
    if not isinstance(element, Mapping):
        return ""
    kind = element.get("type")
    if kind in ("mrkdwn", "plain_text"):
        return _text(element)
    if kind == "button":
        return _button(element)
    if kind == "image":
        return _image(element, picture)
    if kind == "rich_text_input":
        return '<div class="input"></div>'
    options = element.get("options") or element.get("initial_options")
    if options:
        chosen = element.get("initial_option") or {}
        words = (_text(option.get("text")) for option in _items(options) if isinstance(option, Mapping))
        initial = _text(chosen.get("text")) if isinstance(chosen, Mapping) else ""
        return f'<div class="input">{initial or _text(element.get("placeholder"))}</div>' + _hint(" · ".join(words))
    value = element.get("initial_value")
    if value is not None:
        return f'<div class="input">{_safe(str(value))}</div>'
    return f'<div class="input"><span class="hint">{_text(element.get("placeholder"))}</span></div>'


def _hint(words: str) -> str:
    return f'<div class="hint">{words}</div>' if words else ""


def _button(element: Mapping[str, Any]) -> str:
    style = str(element.get("style") or "")
    carries = [f"{element.get('action_id', '')}: {element.get('value', '')}"]
    confirm = element.get("confirm")
    if isinstance(confirm, Mapping):
        asked = (confirm.get(name) for name in ("title", "text"))
        carries.append("asks first: " + " ".join(str(one.get("text", "")) for one in asked if isinstance(one, Mapping)))
    return f'<button class="{_safe(style)}" title="{_safe(" | ".join(carries))}">{_text(element.get("text"))}</button>'


def _rich(element: Any) -> str:
    if not isinstance(element, Mapping):
        return ""
    inside = "".join(_rich_part(part) for part in _items(element.get("elements")))
    match element.get("type"):
        case "rich_text_preformatted":
            return f"<pre>{inside}</pre>"
        case "rich_text_quote":
            return f"<blockquote>{inside}</blockquote>"
        case "rich_text_list":
            items = "".join(f"<li>{_rich(part)}</li>" for part in _items(element.get("elements")))
            tag = "ol" if element.get("style") == "ordered" else "ul"
            return f"<{tag}>{items}</{tag}>"
    return f"<div>{inside}</div>"


def _rich_part(part: Any) -> str:
    if not isinstance(part, Mapping):
        return ""
    match part.get("type"):
        case "text" | "link":
            words = _lines(_safe(str(part.get("text") or part.get("url") or "")))
        case "user" | "channel" | "usergroup" | "broadcast":
            name = next(
                (str(part[key]) for key in ("user_id", "channel_id", "usergroup_id", "range") if key in part), ""
            )
            words = _mention(f"@{name}")
        case "emoji":
            words = _safe(f":{part.get('name', '')}:")
        case _:
            words = _safe(str(part.get("fallback") or part.get("text") or ""))
    style = part.get("style")
    for name, tag in (("bold", "b"), ("italic", "i"), ("strike", "s"), ("code", "code")):
        if isinstance(style, Mapping) and style.get(name):
            words = f"<{tag}>{words}</{tag}>"
    return words


# ---------------------------------------------------------------- text

_SEQUENCE = re.compile("<([^<>\n]{1,3000})>")
_FENCE = re.compile("```(.+?)```", re.DOTALL)
_MARKS = (
    (re.compile(r"`([^`\n]+)`"), r"<code>\1</code>"),
    (re.compile(r"(?<![\w*])\*(?=\S)([^*\n]+?)\*(?!\w)"), r"<b>\1</b>"),
    (re.compile(r"(?<![\w_])_(?=\S)([^_\n]+?)_(?!\w)"), r"<i>\1</i>"),
    (re.compile(r"(?<![\w~])~(?=\S)([^~\n]+?)~(?!\w)"), r"<s>\1</s>"),
)


def _text(found: Any) -> str:
    """A text object."""
    if not isinstance(found, Mapping):
        return ""
    words = str(found.get("text") or "")
    return _mrkdwn(words) if found.get("type") == "mrkdwn" else _lines(_safe(words))


def _mrkdwn(words: str) -> str:
    """Slack's mrkdwn: what stands in angle brackets is Slack's, everything else is text that was escaped once."""
    at, found = 0, ""
    for sequence in _SEQUENCE.finditer(words):
        found += _marked(words[at : sequence.start()]) + _sequence(sequence[1])
        at = sequence.end()
    return found + _marked(words[at:])


def _marked(words: str) -> str:
    at, found = 0, ""
    for fence in _FENCE.finditer(words):
        found += _emphasised(words[at : fence.start()]) + f"<pre>{_safe(_unescaped(fence[1]))}</pre>"
        at = fence.end()
    return found + _emphasised(words[at:])


def _emphasised(words: str) -> str:
    safe = _safe(_unescaped(words))
    for pattern, tags in _MARKS:
        safe = pattern.sub(tags, safe)
    return _lines(safe)


def _sequence(inside: str) -> str:
    target, _, label = inside.partition("|")
    if target.startswith("!date^"):
        return f"<time>{_safe(_unescaped(label))}</time>"
    if target.startswith(("@", "#", "!")):
        return _mention(_unescaped(label) or target)
    if target.startswith(("https://", "http://", "mailto:")):
        return f'<a rel="noreferrer" href="{_safe(_unescaped(target))}">{_safe(_unescaped(label or target))}</a>'
    return _safe(f"<{inside}>")


def _mention(name: str) -> str:
    return f'<span class="mention">{_safe(name)}</span>'


def _lines(safe: str) -> str:
    return safe.replace("\n", "<br>")


def _safe(words: str) -> str:
    """Escape for HTML; half characters become a question mark, so that the page can be written as UTF-8."""
    return html.escape(words.encode("utf-8", "replace").decode(), quote=True)


def _unescaped(words: str) -> str:
    return words.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []
