"""The modals: their views, and reading what was put into them. Pure.

Guaranteed: each view is within Slack's limits, and its private_metadata holds ids only. Values are read from
`view.state.values` as Slack sends them, that is escaped.

**program.md** is edited section by section, one input each, because an input holds 3,000 characters. `sections` splits
it at its headings, `join` puts it together again; what was not touched stays as it is to the byte. What cannot be
edited here without loss (a section of more than 3,000 characters, one with characters that an input does not hold)
is named, with the command that can. After the first submit the same view becomes the question "is this the change you
mean?", with the diff above the changed sections: the inputs carry the text to the second submit, and private_metadata
the hash of the text that the diff shows. So the bot keeps no draft: none is lost when it is started anew, and none is
recorded that was not shown as a diff, for a text that does not have that hash gets the question again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, count
from typing import Any
from zoneinfo import ZoneInfo

from bot import text
from bot.intents import COMMAND, Mistake, Start, parse
from bot.message import Block, View
from bot.text import Element
from bot.values import Button, Form, to_metadata
from bot.views.answers import when
from bot.views.buttons import button
from bot.views.parts import actions, context, diff, divider, plain_text, said, section
from eventstore import requests
from eventstore.plain import plain
from eventstore.projections.program import ProgramVersion
from eventstore.settings import RunLimits

INPUT_MAX = 3_000
SECTIONS_MAX = 40
"""Sections with an input each in one modal."""
INPUTS_BYTES_MAX = 150_000
"""Bytes of all inputs of a modal: under the 250,000 of a view, with room for the rest."""

START, PROGRAM, CONFIRM, VETO, REJECT = "start", "program", "program_confirm", "veto", "reject"
"""The callback_id of each form that is submitted."""

Values = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""`view.state.values`: by block_id and action_id."""


# ---------------------------------------------------------------- shared


def _modal(title: str, blocks: Sequence[Block], callback: str = "", submit: str = "", form: Form | None = None) -> View:
    view: View = {
        "type": "modal",
        "title": plain_text(title, 24),
        "close": plain_text("Close", 24),
        "blocks": list(blocks),
    }
    if callback:
        view["callback_id"] = callback
        view["submit"] = plain_text(submit, 24)
    return view | {"private_metadata": to_metadata(form)} if form is not None else view


def _input(name: str, label: str, element: Element, hint: str = "", *, optional: bool = False) -> Block:
    found: Block = {
        "type": "input",
        "block_id": name,
        "label": plain_text(label, 150),
        "element": element | {"action_id": "value"},
        "optional": optional,
    }
    return found | {"hint": plain_text(hint, 1_000)} if hint else found


def _line_input(initial: str = "", placeholder: str = "", most: int = 200) -> Element:
    found: Element = {"type": "plain_text_input", "max_length": most}
    if initial:
        found["initial_value"] = text.line(initial, most)
    return found | {"placeholder": plain_text(placeholder, 150)} if placeholder else found


def value(values: Values, name: str) -> str:
    """What was put into the input *name*, as the person typed it; empty for nothing."""
    found = values.get(name, {}).get("value", {}).get("value")
    return text.unescape(found) if isinstance(found, str) else ""


def loading(title: str = "Nightshift") -> View:
    """What is opened at once, while the rest is being read."""
    return _modal(title, [said("One moment…")])


def told(title: str, sentence: str) -> View:
    """A sentence that ends a form: what was done, or why it was refused."""
    return _modal(title, [said(sentence)])


def error(error_id: str) -> View:
    """Something broke on our side."""
    words = (
        f"Something went wrong here, and it is not known whether this was done: `{COMMAND} status` shows. Please quote "
        f"{text.line(error_id, 100)} to whoever runs Nightshift; the bot's log says more under it."
    )
    return _modal("Something went wrong", [said(words)])


# ---------------------------------------------------------------- start


_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the start form is filled in with; empty for nothing."""

    tag: str = ""
    until: str = ""
    usd: str = ""
    experiments: str = ""
    from_ref: str = "HEAD"


def defaults(
    taken: Collection[str], limits: RunLimits, now: datetime, zone: str, asked: Start | None = None
) -> Defaults:
    """
    What the start form offers: a tag of today that no run has, and the limits of nightshift.toml.

    Args:
        taken: The tags of all runs.
        zone: IANA; whose today is meant.
        asked: What the person typed already, which wins.
    """
    asked = asked or Start()
    today = now.astimezone(ZoneInfo(zone))
    first = f"{_MONTHS[today.month - 1]}{today.day:02}"
    tags = chain([first], (f"{first}-{number}" for number in count(2)))
    return Defaults(
        tag=asked.tag or next(tag for tag in tags if tag not in taken),
        until=asked.until or limits.until or "",
        usd=_amount(limits.usd if asked.usd is None else asked.usd),
        experiments=str(asked.experiments or limits.experiments or ""),
        from_ref=asked.from_ref,
    )


def _amount(usd: float | None) -> str:
    """US dollars as the form reads them back: cents, or as many digits as there are."""
    if usd is None:
        return ""
    return f"{usd:.2f}" if round(usd, 2) == usd else f"{usd:.6f}".rstrip("0")


def start(defaults: Defaults, form: Form) -> View:
    """
    The form for a run.

    Args:
        form: With the channel, and the zone in which a time of day is read.
    """
    zone = text.line(form.zone, 60) or "UTC"
    tag_hint = "Its branch will be autoresearch/ and this name: letters, digits, dots, dashes"
    blocks = [
        _input("tag", "Name of the run", _line_input(defaults.tag, "nov21", requests.TAG_MAX), tag_hint),
        _input(
            "until",
            "Until",
            _line_input(defaults.until, "08:00"),
            f"A time of day in {zone}, or a full time such as 2026-11-22T08:00+01:00. Empty: what nightshift.toml says",
            optional=True,
        ),
        _input(
            "usd",
            "US dollars for proposals, at most",
            _line_input(defaults.usd, "20"),
            "Only where a model proposes that has a price. Empty: what nightshift.toml says",
            optional=True,
        ),
        _input(
            "experiments",
            "Experiments, at most",
            _line_input(defaults.experiments, "100"),
            "The baseline not counted. Empty: what nightshift.toml says",
            optional=True,
        ),
        _input(
            "from_ref",
            "Start from",
            _line_input(defaults.from_ref, "HEAD"),
            "A branch or a commit, such as autoresearch/nov20",
            optional=True,
        ),
    ]
    return _modal("Start a run", blocks, START, "Start", form)


def read_start(values: Values) -> Start | dict[str, str]:
    """What the start form asks for, or what is wrong by the input's block_id, as Slack shows it beside each."""
    errors: dict[str, str] = {}
    found: dict[str, Any] = {}
    for name, option in (
        ("tag", ""),
        ("until", "--until"),
        ("usd", "--usd"),
        ("experiments", "--experiments"),
        ("from_ref", "--from"),
    ):
        words = value(values, name).split()
        if not words:
            if name == "tag":
                errors[name] = "A run needs a name, such as nov21"
            continue
        intent = parse(f"start {words[0]}") if not option else parse(f"start {option}={words[0]}")
        if len(words) > 1:
            errors[name] = "One word, please"
        elif not isinstance(intent, Start):
            errors[name] = intent.why if isinstance(intent, Mistake) else "This is not understood"
        else:
            found[name] = getattr(intent, name)
    return errors or Start(**found)


# ---------------------------------------------------------------- a reason


def veto(form: Form, description: str, built_on: Sequence[int] = ()) -> View:
    """
    Why a keep is taken off the branch.

    Args:
        form: With run, experiment, position and channel.
        built_on: Later keeps that go with it.
    """
    what = f"Experiment {form.experiment} of {form.run} goes off the branch: {text.line(description, 300)}"
    later = ", ".join(map(str, built_on[:20])) + (" and more" if len(built_on) > 20 else "")
    too = [said(f"So do the keeps built on it: {later}.")] if built_on else []
    return _modal("Veto a keep", [said(what), *too, _why(needed=True)], VETO, "Veto", form)


def reject(form: Form, description: str) -> View:
    """Why a proposal is turned down."""
    what = f"The proposal of experiment {form.experiment} of {form.run} is not tried: {text.line(description, 300)}"
    return _modal("Reject a proposal", [said(what), _why(needed=False)], REJECT, "Reject", form)


def _why(*, needed: bool) -> Block:
    element: Element = {"type": "plain_text_input", "multiline": True, "max_length": requests.WHY_MAX}
    return _input("why", "Why", element, "For the record, and for what is proposed next", optional=not needed)


def read_why(values: Values, *, needed: bool) -> str | dict[str, str]:
    """The reason, on one line, or what is wrong with it by block_id."""
    words = value(values, "why").strip()
    if not words:
        return {"why": "Please say why: it is for the record"} if needed else ""
    return text.line(words, requests.WHY_MAX)


# ---------------------------------------------------------------- program.md in sections


@dataclass(frozen=True, slots=True)
class Section:
    """
    A part of program.md, from a heading to the next.

    Attributes:
        lead, body, tail: The text; *lead* and *tail* are the white space around it, which no input keeps.
        title: Its first line, for people.
        trouble: Why it cannot be edited in a modal; empty if it can.
    """

    lead: str
    body: str
    tail: str
    title: str
    trouble: str = ""

    @property
    def text(self) -> str:
        return self.lead + self.body + self.tail

    @property
    def shown(self) -> str:
        """What its input begins with: line ends as Slack has them."""
        return self.body.replace("\r\n", "\n")


_HEADING = re.compile(r" {0,3}#{1,6}(\s|$)")
_FENCE = re.compile(r" {0,3}(```+|~~~+)")


def sections(program: str) -> tuple[Section, ...]:
    """
    Split *program* at its headings, those in blocks of code aside.

    Together the sections are the program again. Where there are more than a modal holds, neighbours are joined as
    long as they fit into one input; what is still too much comes last and is marked.
    """
    parts = _split(program)
    if len(parts) > SECTIONS_MAX:
        parts = _joined(parts)
    found: list[Section] = []
    left = INPUTS_BYTES_MAX
    for index, part in enumerate(parts):
        made = _section(part)
        left -= 0 if made.trouble else _bytes(made.shown)
        if not made.trouble and (index >= SECTIONS_MAX or left < 0):
            made = Section(made.lead, made.body, made.tail, made.title, "it comes behind all that one form can hold")
        found.append(made)
    return tuple(found)


def _split(program: str) -> list[str]:
    parts: list[list[str]] = [[]]
    fence = ""
    for line in re.split(r"(?<=\n)", program):
        mark = _FENCE.match(line)
        if mark is not None and not fence:
            fence = mark[1]
        elif mark is not None and mark[1].startswith(fence):
            fence = ""
        elif not fence and _HEADING.match(line) and "".join(parts[-1]).strip():
            parts.append([])
        parts[-1].append(line)
    return [part for part in map("".join, parts) if part] or [""]


def _joined(parts: Iterable[str]) -> list[str]:
    found: list[str] = []
    for part in parts:
        if found and _units(found[-1] + part) <= INPUT_MAX:
            found[-1] += part
        else:
            found.append(part)
    return found


def _bytes(words: str) -> int:
    """What *words* add to a view."""
    return len(json.dumps(words, ensure_ascii=False).encode("utf-8", "replace"))


def _units(words: str) -> int:
    """Characters as JavaScript counts them, which is the more careful way."""
    return len(words.encode("utf-16-le", "replace")) // 2


def _section(part: str) -> Section:
    body = part.strip()
    at = part.find(body)
    title = text.line(body.partition("\n")[0].lstrip("# "), 100) or "(empty)"
    found = Section(part[:at], body, part[at + len(body) :], title)
    size = _units(found.shown)
    if size > INPUT_MAX:
        trouble = f"it has {size} characters, and an input holds {INPUT_MAX}"
    elif plain(found.shown) != found.shown or "\r" in found.shown:
        trouble = "it holds control characters, which an input would lose"
    else:
        return found
    return Section(found.lead, found.body, found.tail, title, trouble)


def join(found: Sequence[Section], changed: Mapping[int, str]) -> str:
    """
    The program with the bodies of some sections replaced; equal to the old one where nothing was changed.

    A body that is empty takes the section away. Line ends are those the section had.
    """
    return "".join(
        part.text if index not in changed else _edited(part, changed[index]) for index, part in enumerate(found)
    )


def _edited(part: Section, words: str) -> str:
    body = words.replace("\r\n", "\n").strip()
    if body == part.shown:
        return part.text
    if not body:
        return ""
    return part.lead + (body.replace("\n", "\r\n") if "\r\n" in part.text else body) + (part.tail or "\n")


def read_sections(values: Values, found: Sequence[Section]) -> dict[int, str]:
    """The bodies that were changed in the form, by the number of their section; those that were not are left out."""
    changed: dict[int, str] = {}
    for index, part in enumerate(found):
        given = values.get(f"section-{index}", {}).get("value", {})
        if part.trouble or "value" not in given:
            continue
        sent = given["value"] or ""  # null is an empty input
        body = plain(text.unescape(sent).replace("\r\n", "\n")).strip()
        if body != part.shown and sent.replace("\r\n", "\n").strip() != part.shown:
            changed[index] = body
    return changed


# ---------------------------------------------------------------- program.md: form, question, answers


def program(version: ProgramVersion, form: Form) -> View:
    """The form with an input for each section that can be edited here."""
    found = sections(version.text)
    blocks: list[Block] = [section(f"In force: `{version.hash[:8]}`, by {_who_when(version)}.")]
    blocks += [_section_input(index, part, part.shown) for index, part in enumerate(found) if not part.trouble]
    blocks += _not_here(found)
    shown = Form(channel=form.channel, base=version.hash, zone=form.zone)
    if all(part.trouble for part in found):
        return _modal("Edit program.md", [*blocks[:1], *_not_here(found)])
    return _modal("Edit program.md", blocks, PROGRAM, "Show the change", shown)


def program_text(version: ProgramVersion) -> View:
    """program.md for those who may read it only."""
    bodies = [part.shown for part in sections(version.text) if part.body]
    pieces = [body[at : at + INPUT_MAX] for body in bodies for at in range(0, len(body), INPUT_MAX)]
    shown: list[Block] = []
    left = INPUTS_BYTES_MAX
    for piece in pieces[:SECTIONS_MAX]:
        left -= _bytes(piece)
        if left < 0:
            break
        shown.append(text.preformatted(piece, INPUT_MAX))
    cut = [said("Cut here: on the machine `nightshift program show` prints all of it.")]
    title = section(f"In force: `{version.hash[:8]}`, by {_who_when(version)}.")
    return _modal("program.md", [title, *shown, *(cut if len(shown) < len(pieces) else [])])


def no_program() -> View:
    """There is none yet."""
    return told("program.md", "No program.md is known yet: the first run reads it from the repository.")


def _section_input(index: int, part: Section, initial: str) -> Block:
    element: Element = {"type": "plain_text_input", "multiline": True, "max_length": INPUT_MAX}
    if initial:
        element["initial_value"] = initial
    hint = "Empty: the section is taken away." if part.body else ""
    return _input(f"section-{index}", part.title, element, hint, optional=True)


def _not_here(found: Sequence[Section]) -> list[Block]:
    """Which sections cannot be edited here, why, and how they can."""
    left = [part for part in found if part.trouble]
    if not left:
        return []
    named = "\n".join(f"• {part.title}: {part.trouble}" for part in left[:15])
    more = f"\n• and {len(left) - 15} more" if len(left) > 15 else ""
    words = (
        f"Not to be edited here, and left as {'it is' if len(left) == 1 else 'they are'}:\n{named}{more}\n"
        "On the machine `nightshift program edit` opens the whole text."
    )
    return [divider(), said(words)]


def _who_when(version: ProgramVersion) -> str:

    return f"{text.person(version.actor)} at {when(version.at)}"


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The form was submitted as it was opened."""


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """A text that the person has not seen as a diff yet; *view* shows it and asks."""

    view: View


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The text to record, on top of the version *base*."""

    base: str
    text: str


def submitted(form: Form, base: ProgramVersion, values: Values) -> Unchanged | Unconfirmed | Confirmed | dict[str, str]:
    """
    What a submit of `program` or of its question means; a dict is what is wrong by block_id, the form stays open.

    Args:
        form: The private_metadata of the view that was submitted.
        base: The version that it showed: the one whose hash is `form.base`, in force or not.
        values: `view.state.values`, with the inputs that nobody touched, as Slack sends them.
    """
    found = sections(base.text)
    changed = read_sections(values, found)
    new = join(found, changed)
    if new == base.text:
        return Unchanged()
    if form.draft == requests.text_hash(new):
        return Confirmed(base.hash, new)
    too_long = {
        f"section-{index}": f"This is {len(words)} characters long, and an input holds {INPUT_MAX}"
        for index, words in changed.items()
        if len(words) > INPUT_MAX
    }
    if too_long:
        return too_long
    if sum(map(_bytes, changed.values())) > INPUTS_BYTES_MAX:
        return {f"section-{min(changed)}": "This is too much for one form: change fewer sections at once"}
    return Unconfirmed(_confirm(form, base, found, changed, new))


def unchanged() -> View:
    """Nothing was changed."""
    return told("Edit program.md", "Nothing was changed, so nothing was recorded.")


def _confirm(form: Form, base: ProgramVersion, found: Sequence[Section], changed: Mapping[int, str], new: str) -> View:
    blocks: list[Block] = [
        said(
            "This is the change. Submit records it, and the next proposal follows it; the fields below still take "
            "corrections, which are shown again."
        ),
        *diff(base.text, new),
        *(_section_input(index, found[index], words) for index, words in changed.items()),
    ]
    asked = Form(channel=form.channel, base=base.hash, draft=requests.text_hash(new), zone=form.zone)
    return _modal("Is this the change?", blocks, CONFIRM, "Record it", asked)


def stale(base: ProgramVersion, now: ProgramVersion, mine: str, form: Form, position: int) -> View:
    """
    Someone changed program.md since the form was opened: who, when and what, and a way on.

    Args:
        base: The version that the form showed.
        now: The one in force.
        mine: The whole text that the person wanted; shown as a diff, to be copied into a fresh form.
        position: Of the log, for the button that opens one.
    """
    blocks: list[Block] = [
        section(
            f"program.md was changed by {_who_when(now)}, after you opened the form. Nothing of yours was recorded."
        ),
        section("*What was changed meanwhile*"),
        *diff(base.text, now.text),
        section("*What you wanted to change*"),
        *diff(base.text, mine),
        *actions([button("edit_program", Button("", None, position), "Open a fresh form")]),
        context("The fresh form shows the new text; copy from above what you still want."),
    ]
    return _modal("Changed meanwhile", blocks, form=Form(channel=form.channel, zone=form.zone))
