"""Edits: what a proposal does to files, as functions from text to text. Pure.

Guaranteed: an edit applies exactly or `EditRefused` says why not; no path outside `editable`, none that
is protected and none of ours is ever in a result; `SetConstants` changes nothing but the literals it
names. Not guaranteed: that the result is a good idea, or that it runs.
"""

from __future__ import annotations

import ast
import difflib
import math
import re
import threading
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eventstore.events import Block, FileEdit, ReplaceBlocks, Scalar, SetConstants
from eventstore.settings import matches
from loop.errors import EditRefused

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

OURS = ("program.md", "nightshift.toml", ".nightshift", ".nightshift/**")
"""Never editable, whatever the settings say: people write the first two, the loop the rest."""

LINE_END = re.compile(r"\r\n|\r|\n")
"""What ends a line for Python's parser; `str.splitlines` knows more and would count other columns."""

_ONE_PARSES = threading.Lock()
"""Some versions of Python 3.11 count the depth of all parsers of a process in one place: two at once may fail with
`SystemError: AST constructor recursion depth mismatch` (python/cpython#106905)."""


# ---------------------------------------------------------------- applying edits


def apply(
    edits: Sequence[FileEdit], files: Mapping[str, str], *, editable: Sequence[str], protected: Sequence[str] = ()
) -> dict[str, str]:
    """
    Apply *edits* in order and return the new text of each file that changes.

    Args:
        files: Text of files by path. A path that is not in it does not exist, and only `WholeFile` makes it.
        editable: Patterns as in `objective.editable` (see `eventstore.settings.matches`).
        protected: Patterns that win over *editable*; they are matched without regard to case, because
            some file systems are.

    Raises:
        EditRefused: "edit_touches_protected" for a path that is not editable or not a plain relative path,
            "edit_does_not_apply", "not_python" if a .py file that was Python (or is new) no longer parses,
            "changes_nothing" if every file stays as it is.
    """
    changed: dict[str, str] = {}
    for edit in edits:
        check_path(edit.path, editable, protected)
        check_place(edit.path, {*files, *changed})
        changed[edit.path] = _edited(edit, changed.get(edit.path, files.get(edit.path)))
    for path, text in changed.items():
        check_text(path, files.get(path), text)
    changed = {path: text for path, text in changed.items() if files.get(path) != text}
    if not changed:
        raise EditRefused("changes_nothing", "the edit leaves every file as it is")
    return changed


def check_path(path: str, editable: Sequence[str], protected: Sequence[str] = ()) -> None:
    """Raise `EditRefused` unless *path* is plain, relative, editable and not protected."""
    parts = path.split("/")
    plain = path.isprintable() and "\\" not in path and not {"", ".", ".."} & set(parts)
    if not plain or ".git" in path.casefold().split("/"):
        raise EditRefused("edit_touches_protected", f"{path!r} is not a plain relative path of the repository")
    folded = path.casefold()
    guarded = [*OURS, *(pattern.casefold() for pattern in protected)]
    if any(matches(pattern, folded) for pattern in guarded):
        raise EditRefused("edit_touches_protected", f"{path} is protected")
    if not any(matches(pattern, path) for pattern in editable):
        raise EditRefused("edit_touches_protected", f"{path} is not editable; editable is {', '.join(editable)}")


def check_text(path: str, before: str | None, after: str) -> None:
    """
    Raise `EditRefused` if *after* cannot stand as the text of *path*.

    A .py file must parse, unless it did not before either: then it is for a newer Python than this one,
    and its own interpreter will judge it.
    """
    try:
        after.encode("utf-8")
    except UnicodeEncodeError as error:
        raise EditRefused("edit_does_not_apply", f"{path} would hold a lone surrogate, which is no text") from error
    if not path.endswith(".py") or before == after:
        return
    try:
        _parse(after)
    except ValueError as error:
        if before is None or is_python(before):
            raise EditRefused("not_python", f"{path} would not be Python any more: {error}") from error


def check_place(path: str, taken: Collection[str]) -> None:
    """Raise `EditRefused` if *path* cannot be a file beside the files *taken*: one is its folder, or it is one's."""
    if path in taken:
        return
    parts = path.split("/")
    for depth in range(1, len(parts)):
        if "/".join(parts[:depth]) in taken:
            raise EditRefused("edit_does_not_apply", f"{path} cannot be made: {'/'.join(parts[:depth])} is no folder")
    if any(other.startswith(path + "/") for other in taken):
        raise EditRefused("edit_does_not_apply", f"{path} cannot be made: it is a folder")


def _edited(edit: FileEdit, text: str | None) -> str:
    if not isinstance(edit, SetConstants | ReplaceBlocks):
        return edit.text
    if text is None:
        raise EditRefused("edit_does_not_apply", f"there is no file {edit.path} to change")
    if isinstance(edit, SetConstants):
        return _set_constants(edit.path, edit.values, text)
    for number, block in enumerate(edit.blocks, start=1):
        text = _replace_block(f"block {number} of {edit.path}", block, text)
    return text


def _replace_block(what: str, block: Block, text: str) -> str:
    if not block.search:
        raise EditRefused("edit_does_not_apply", f"{what} has an empty search text")
    at = text.find(block.search)
    if at < 0:
        raise EditRefused("edit_does_not_apply", f"the search text of {what} does not occur in the file")
    if text.find(block.search, at + 1) >= 0:
        raise EditRefused("edit_does_not_apply", f"the search text of {what} occurs more than once")
    return text[:at] + block.replace + text[at + len(block.search) :]


# ---------------------------------------------------------------- constants


@dataclass(frozen=True, slots=True)
class Constant:
    """The right-hand side of a top-level `NAME = literal`: its *source* text and where it stands, in characters."""

    source: str
    start: int
    end: int

    def is_spelling_of(self, value: Scalar) -> bool:
        """Whether the source already means exactly *value*, type included."""
        try:
            return repr(ast.literal_eval(self.source)) == repr(value)
        except ValueError:  # arithmetic such as 2**19
            return False


def constants(path: str, text: str) -> dict[str, Constant]:
    """
    The constants of a Python file that `SetConstants` can set, by name, in the order of the file.

    That is each name which the module assigns exactly once, at its top level and outside any block, to
    a number, string, True, False, None or arithmetic of those (`2**19`), with or without an annotation.

    Raises:
        EditRefused: If the text is not Python.
    """
    tree = _tree(path, text)
    counts = Counter(_bound_names(tree))
    found: dict[str, Constant] = {}
    starts = _line_starts(text)
    for statement in tree.body:
        name, value = _assignment(statement)
        if name and value is not None and counts[name] == 1 and _is_literal(value):
            start, end = _span(value, text, starts)
            found[name] = Constant(text[start:end], start, end)
    return found


def _set_constants(path: str, values: Mapping[str, Scalar], text: str) -> str:
    known = constants(path, text)
    for name in values:
        if name not in known:
            raise EditRefused("edit_does_not_apply", _why_not_settable(path, text, name))
    for name in sorted(values, key=lambda name: known[name].start, reverse=True):  # from the end: spans stay true
        constant, value = known[name], values[name]
        if not constant.is_spelling_of(value):
            text = text[: constant.start] + _literal(name, value) + text[constant.end :]
    return text


def _why_not_settable(path: str, text: str, name: str) -> str:
    count = Counter(_bound_names(_tree(path, text)))[name]
    if count == 0:
        return f"{path} has no top-level constant {name}"
    if count > 1:
        return f"{path} assigns {name} {count} times, so which one to set is open"
    return f"{name} in {path} is not a plain NAME = literal at the top level, which is all that can be set"


def _literal(name: str, value: Scalar) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        raise EditRefused("edit_does_not_apply", f"{name} = {value} has no literal in Python")
    try:
        return repr(value)
    except ValueError as error:  # an integer of more digits than Python prints
        raise EditRefused("edit_does_not_apply", f"the value for {name} has too many digits") from error


def _assignment(statement: ast.stmt) -> tuple[str, ast.expr | None]:
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            return name, value
        case ast.AnnAssign(target=ast.Name(id=name), value=value):
            return name, value
    return "", None


def _is_literal(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=value):
            return value is not Ellipsis and not isinstance(value, bytes | complex)
        case ast.UnaryOp(operand=operand):
            return _is_literal(operand)
        case ast.BinOp(left=left, right=right):
            return _is_literal(left) and _is_literal(right)
    return False


def _bound_names(tree: ast.Module) -> Iterator[str]:
    """Each binding of a name in the module's own scope, blocks included, functions and comprehensions not."""
    nodes: list[ast.AST] = [*tree.body]
    while nodes:
        match node := nodes.pop():
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
                continue
            case ast.Lambda() | ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                continue
            case ast.AnnAssign(value=None):
                continue
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                yield name
            case ast.alias(name=name, asname=asname):
                yield asname or name.split(".")[0]
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield name
            case ast.MatchMapping(rest=str(name)):
                yield name
        nodes.extend(ast.iter_child_nodes(node))


def _span(node: ast.expr, text: str, starts: Sequence[int]) -> tuple[int, int]:
    assert node.end_lineno is not None and node.end_col_offset is not None  # every parsed expression has an end
    return (
        _offset(text, starts, node.lineno, node.col_offset),
        _offset(text, starts, node.end_lineno, node.end_col_offset),
    )


def _offset(text: str, starts: Sequence[int], line: int, column: int) -> int:
    """Characters before a place that the parser names by line (from 1) and UTF-8 byte in the line (from 0)."""
    start = starts[line - 1]
    prefix = text[start : start + column].encode("utf-8")[:column]  # at most *column* characters hold *column* bytes
    return start + len(prefix.decode("utf-8"))


def _line_starts(text: str) -> list[int]:
    first = 1 if text.startswith("\ufeff") else 0
    return [first, *(end.end() for end in LINE_END.finditer(text))]


def _tree(path: str, text: str) -> ast.Module:
    try:
        return _parse(text)
    except ValueError as error:
        raise EditRefused("edit_does_not_apply", f"{path} is not Python: {error}") from error


def _parse(text: str) -> ast.Module:
    """Parse Python source. Raises ValueError with one sentence, whatever the parser stumbles over."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "invalid escape sequence" is the file's affair, not the loop's
            with _ONE_PARSES:
                return ast.parse(text.removeprefix("\ufeff"))
    except SyntaxError as error:
        raise ValueError(f"line {error.lineno}: {error.msg}") from error
    except (RecursionError, MemoryError) as error:
        raise ValueError("it is nested too deeply to parse") from error


def is_python(text: str) -> bool:
    """Whether *text* parses as the Python that runs this."""
    try:
        _parse(text)
    except ValueError:
        return False
    return True


# ---------------------------------------------------------------- comparing


def count_lines(before: str, after: str) -> tuple[int, int]:
    """
    Lines added and removed from *before* to *after*, blank lines and whole-line comments (`#`) left out.

    A changed line is one added and one removed. A line of a string that looks like a comment counts as one.
    """
    old, new = _code_lines(before), _code_lines(after)
    added = removed = 0
    for tag, old_from, old_to, new_from, new_to in difflib.SequenceMatcher(None, old, new).get_opcodes():
        if tag != "equal":
            added += new_to - new_from
            removed += old_to - old_from
    return added, removed


def unified_diff(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """A patch in the form of `git diff` that turns files *before* into *after*; what only one has is new or gone."""
    return "".join(_file_diff(path, before.get(path), after.get(path)) for path in sorted(before.keys() | after.keys()))


def _file_diff(path: str, before: str | None, after: str | None) -> str:
    if before == after:
        return ""
    old = "/dev/null" if before is None else f"a/{path}"
    new = "/dev/null" if after is None else f"b/{path}"
    kind = "new file mode 100644\n" if before is None else "deleted file mode 100644\n" if after is None else ""
    lines = difflib.unified_diff(_lines(before or ""), _lines(after or ""), old, new)
    body = "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
    return f"diff --git a/{path} b/{path}\n{kind}{body}"


def normalised(text: str) -> str:
    """Source without comments, blank lines and layout, to tell whether two edits come to the same."""
    try:
        return ast.unparse(_parse(text))
    except (ValueError, RecursionError):
        return "\n".join(_code_lines(text))


def essence(path: str, text: str) -> str:
    """
    What of a file counts when two edits are compared: Python without comments, blank lines and layout.

    Of other files only blank lines and spaces at line ends are left out, because `#` begins code in many languages.
    """
    if path.endswith(".py"):
        return normalised(text)
    return "\n".join(line for line in (line.rstrip() for line in _lines(text)) if line)


def _code_lines(text: str) -> list[str]:
    lines = (line.rstrip() for line in _lines(text))
    return [line for line in lines if line and not line.lstrip().startswith("#")]


def _lines(text: str) -> list[str]:
    r"""Lines with their ends, cut at \n only: a patch knows no other."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)
