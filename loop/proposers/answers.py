"""The tools that a model answers with, and how its answer is read. Pure.

Guaranteed: `interpret` turns whatever stands in a tool call into a `Draft` or a `Look`, or raises `Unusable` with
one sentence that a model can act on; text is bounded and freed of control characters, and no number is infinite.
Not guaranteed: that an edit applies or may be made; the desk says that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from eventstore.codec import clean, encodable
from eventstore.events import Block, FileEdit, ReplaceBlocks, WholeFile
from eventstore.plain import plain, plain_line
from loop.errors import LoopError
from loop.proposers.base import DESCRIPTION_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loop.proposers.base import Ask

PROPOSE, READ = "propose", "read_experiment"

TEXT_MAX = 4_000
"""Characters of a hypothesis, a rationale or a reason."""

FILES_MAX, BLOCKS_MAX, EDITS_BYTES_MAX = 20, 200, 200_000
"""Files of one proposal, its search blocks together, and the UTF-8 bytes of all their text."""

PATH_MAX = 500
AMOUNT_MAX = 1e9


class Unusable(LoopError):
    """An answer that is not by the schema, in one sentence for the model that gave it."""


@dataclass(frozen=True, slots=True)
class Look:
    """The model wants to read a past experiment."""

    experiment: int


@dataclass(frozen=True, slots=True)
class Draft:
    """A proposal by the schema; nobody has looked yet whether its edits apply. Fields as in `base.Proposal`."""

    description: str
    edits: tuple[FileEdit, ...]
    hypothesis: str
    expected_effect: str
    rationale: str
    idea_used: bool | None
    idea_why: str


# ---------------------------------------------------------------- the tools


def _text(description: str) -> dict[str, Any]:
    return {"type": "string", "description": description}


def _object(description: str, properties: dict[str, Any]) -> dict[str, Any]:
    """A strict object: all properties required and no others, as grammar-constrained sampling wants it."""
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


# Properties are written in this order: the reasons first, so that the edit follows from them.
_PROPOSE_INPUT = _object(
    "One experiment.",
    {
        "rationale": _text("Which results and which code lead you here."),
        "hypothesis": _text("What you think is true, and why this change tests it."),
        "expected_effect": _object(
            "What you expect of the score.",
            {
                "kind": {
                    "type": "string",
                    "enum": ["change", "simplification"],
                    "description": "`change`: the score moves. `simplification`: less code at an equal score.",
                },
                "amount": {
                    "type": "number",
                    "description": "By how much the score gets better, in its own unit; 0 if it stays. Positive is "
                    "better, whether the score is minimized or maximized.",
                },
            },
        ),
        "idea": _object(
            "What you do with the person's idea, if the prompt shows one.",
            {
                "answer": {
                    "type": "string",
                    "enum": ["used", "declined", "no_idea"],
                    "description": "`no_idea` if and only if the prompt shows no idea.",
                },
                "why": _text("Why it is declined; else empty."),
            },
        ),
        "description": _text(
            f"The change in one line of at most {DESCRIPTION_MAX} characters, for the table of results."
        ),
        "edits": {
            "type": "array",
            "description": "The edit, one entry for each file, applied to the files as the prompt shows them.",
            "items": _object(
                "Either `blocks` or `whole_file`, the other empty.",
                {
                    "path": _text("Path of the file as the prompt shows it, or of a new file."),
                    "blocks": {
                        "type": "array",
                        "description": "Replacements, made in order. Empty if `whole_file` is given.",
                        "items": _object(
                            "One replacement.",
                            {
                                "search": _text(
                                    "Text copied from the file character for character, blanks at the beginning of "
                                    "lines included. It occurs in the file exactly once: give enough lines around it."
                                ),
                                "replace": _text("What stands there instead; empty to delete it."),
                            },
                        ),
                    },
                    "whole_file": _text("The whole new text of the file. Empty if `blocks` are given."),
                },
            ),
        },
    },
)

_READ_INPUT = _object("Which one.", {"experiment": {"type": "integer", "description": "The number of the experiment."}})


def tools(reads: int) -> list[dict[str, Any]]:
    """
    The tools of a run, as JSON for the Messages API. They depend on *reads* alone, so that a cache holds them.

    Args:
        reads: Past experiments that may be looked up for one proposal; with 0 there is no tool for it.
    """
    propose = {
        "name": PROPOSE,
        "description": "Propose the experiment you are asked for. Call it once, when you have decided. If the edit "
        "cannot be made you are told why and may call it once more.",
        "strict": True,
        "input_schema": _PROPOSE_INPUT,
    }
    read = {
        "name": READ,
        "description": "Read a past experiment of this run: what was meant, what came of it, its diff and the end of "
        f"its log. At most {reads} times for one proposal; look up only what your decision depends on.",
        "strict": True,
        "input_schema": _READ_INPUT,
    }
    return [propose, read] if reads else [propose]


# ---------------------------------------------------------------- reading an answer


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a model sends has these fields, all of them, and no others."""


class _Effect(_Strict, frozen=True):
    kind: Literal["change", "simplification"]
    amount: float


class _Idea(_Strict, frozen=True):
    answer: Literal["used", "declined", "no_idea"]
    why: str


class _Block(_Strict, frozen=True):
    search: str
    replace: str


class _Edit(_Strict, frozen=True):
    path: str
    blocks: tuple[_Block, ...]
    whole_file: str


class _Propose(_Strict, frozen=True):
    rationale: str
    hypothesis: str
    expected_effect: _Effect
    idea: _Idea
    description: str
    edits: tuple[_Edit, ...]


class _Read(_Strict, frozen=True):
    experiment: int


def interpret(uses: Sequence[tuple[str, object]], ask: Ask, reads: int) -> Draft | Look:
    """
    Read the tool calls of one answer.

    Args:
        uses: Name and input of each call, in order.
        reads: As in `tools`.

    Raises:
        Unusable: If there is not exactly one call, of a tool there is, with an input by its schema.
    """
    known = [tool["name"] for tool in tools(reads)]
    if not uses:
        raise Unusable(f"no tool was called: answer by calling `{PROPOSE}`")
    if len(uses) > 1:
        raise Unusable(f"{len(uses)} tools were called at once: call one, `{PROPOSE}` when you have decided")
    name, data = uses[0]
    if name not in known:
        raise Unusable(f"there is no tool {_shown(name)}: call `{PROPOSE}`")
    try:
        if name == READ:
            return Look(msgspec.convert(data, _Read).experiment)
        return _draft(msgspec.convert(data, _Propose), ask)
    except (msgspec.ValidationError, RecursionError) as error:
        raise Unusable(f"the input of `{name}` is not by its schema: {_line(str(error), 300)}") from None


def _draft(said: _Propose, ask: Ask) -> Draft:
    description, hypothesis = _line(said.description, DESCRIPTION_MAX), _paragraphs(said.hypothesis)
    for name, text in (("description", description), ("hypothesis", hypothesis)):
        if not text:
            raise Unusable(f"the {name} is empty, expected some words")
    used, why = _about_the_idea(said.idea, ask)
    return Draft(
        description=description,
        edits=_edits(said.edits),
        hypothesis=hypothesis,
        expected_effect=effect_text(said.expected_effect.kind, said.expected_effect.amount, ask.metric, ask.direction),
        rationale=_paragraphs(said.rationale),
        idea_used=used,
        idea_why=why,
    )


def effect_text(kind: str, amount: float, metric: str, direction: str) -> str:
    """
    An expected effect in words, such as "-0.003 val_bpb": the sign is the score's own, a minus where less is better.

    Raises:
        Unusable: If *amount* is not a number that a score can have.
    """
    if not abs(amount) <= AMOUNT_MAX:  # NaN too
        raise Unusable(f"expected_effect.amount is {amount}, expected a number of at most {AMOUNT_MAX:g} either way")
    signed = -amount if direction == "minimize" else amount
    moved = f"{signed:+.4g} {metric}" if amount else f"no change in {metric}"
    if kind == "change":
        return moved
    return f"simplification, {moved}" if amount else "simplification"


def _about_the_idea(idea: _Idea, ask: Ask) -> tuple[bool | None, str]:
    if ask.idea is None:
        return None, ""
    if idea.answer == "no_idea":
        raise Unusable('idea.answer is "no_idea", but the prompt shows one: expected "used", or "declined" and why')
    why = _paragraphs(idea.why)
    if idea.answer == "declined" and not why:
        raise Unusable("idea.why is empty: say why the person's idea is declined")
    return idea.answer == "used", "" if idea.answer == "used" else why


def _edits(edits: tuple[_Edit, ...]) -> tuple[FileEdit, ...]:
    blocks = sum(len(edit.blocks) for edit in edits)
    if not 1 <= len(edits) <= FILES_MAX:
        raise Unusable(f"edits has {len(edits)} entries, expected 1 to {FILES_MAX}")
    if blocks > BLOCKS_MAX:
        raise Unusable(f"edits has {blocks} blocks, expected at most {BLOCKS_MAX}")
    size = 0
    for number, edit in enumerate(edits):
        size += sum(_size(text, number) for text in _texts(edit))
    if size > EDITS_BYTES_MAX:
        raise Unusable(f"edits has {size} bytes of text, expected at most {EDITS_BYTES_MAX}")
    return tuple(_edit(edit, number) for number, edit in enumerate(edits))


def _texts(edit: _Edit) -> list[str]:
    return [edit.path, edit.whole_file, *(text for block in edit.blocks for text in (block.search, block.replace))]


def _size(text: str, number: int) -> int:
    if not encodable(text):
        raise Unusable(f"edits[{number}] holds a lone surrogate, which is no text")
    return len(text.encode())


def _edit(edit: _Edit, number: int) -> FileEdit:
    at = f"edits[{number}]"
    if not 1 <= len(edit.path) <= PATH_MAX:
        raise Unusable(f"{at}.path has {len(edit.path)} characters, expected 1 to {PATH_MAX}")
    if edit.blocks and edit.whole_file:
        raise Unusable(f"{at} gives both blocks and whole_file, expected one of them, the other empty")
    if edit.blocks:
        return ReplaceBlocks(edit.path, tuple(Block(block.search, block.replace) for block in edit.blocks))
    if not edit.whole_file:
        raise Unusable(f"{at} gives neither blocks nor whole_file, expected one of them")
    return WholeFile(edit.path, edit.whole_file)


def _shown(name: str) -> str:
    return repr(_line(name, 60))


def _line(text: str, limit: int) -> str:
    return clean(plain_line(text), limit)


def _paragraphs(text: str) -> str:
    return clean(plain(text).strip(), TEXT_MAX)
