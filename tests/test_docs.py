"""What the pages say exists: every command with its options, every link, every benchmark and make target."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import nightshift

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "program.md"]
GENERATED = {"cli.md"}  # its lines are the commands' own help
ENDS = {"|", "&&", "||", ";", ">", ">>", "<", "2>&1"}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def fences(text: str) -> tuple[str, str]:
    """The lines inside code fences, and everything outside of them."""
    parts = re.split(r"^```.*$", text, flags=re.MULTILINE)
    return "".join(parts[1::2]), "".join(parts[::2])


def commands(text: str) -> Iterator[str]:
    """Each `nightshift …` that a page shows, in a fence or as code in a sentence."""
    code, prose = fences(text)
    shown = [*code.splitlines(), *(" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose))]
    for line in shown:
        for found in re.finditer(r"(?:^|(?<=\s)|(?<=bin/))nightshift .+|(?<=\()nightshift [^)]+", line):
            yield found[0]


def words(command: str) -> list[str]:
    """Its arguments: up to a pipe, a redirection or a comment."""
    taken: list[str] = []
    for word in shlex.split(command, comments=True)[1:]:
        if word in ENDS or word.endswith(";"):
            break
        taken.append(word)
    return taken


def problem(args: list[str]) -> str | None:
    """Parse *args* as the command line does, without doing anything. None if they would be accepted."""
    command: click.Command = nightshift.main
    context = click.Context(command, info_name="nightshift")
    try:
        while isinstance(command, click.Group):
            if not args or args[0] in ("--help", "--version"):
                return None
            command.parse_args(context, list(args))
            rest = [*context._protected_args, *context.args]
            if not rest:  # `nightshift -C FOLDER`, before any command
                return None
            found, below, args = command.resolve_command(context, rest)
            if below is None:
                return f"{context.command_path} has no command {found!r}"
            command, context = below, click.Context(below, info_name=found, parent=context)
        values, rest, _ = command.make_parser(context).parse_args(list(args))
    except click.UsageError as error:
        return error.format_message()
    arguments = [p for p in command.params if isinstance(p, click.Argument) and p.required]
    missing = [p.name for p in arguments if not isinstance(values[p.name], str | tuple) or not values[p.name]]
    if missing and args and not rest:  # without any, a sentence only names the command
        return f"{context.command_path} needs {missing[0]}"
    return f"{context.command_path} takes no {rest[0]!r}" if rest else None


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in GENERATED], ids=name)
def test_every_command_on_a_page_exists_with_its_options(page: Path) -> None:
    for command in commands(page.read_text(encoding="utf-8")):
        wrong = problem(words(command))
        assert wrong is None, f"{name(page)}: `{command}`: {wrong}"


def test_the_check_sees_what_is_wrong() -> None:
    assert problem(["start", "nov21", "--until", "08:00"]) is None
    assert problem(["-C", "there", "log", "tail", "-n", "50", "--follow"]) is None
    assert "frobnicate" in (problem(["frobnicate"]) or "")
    assert "--forever" in (problem(["loop", "--forever"]) or "")
    assert "burn" in (problem(["log", "burn"]) or "")
    assert "needs number" in (problem(["experiment", "show", "--json"]) or "")
    shown = "```\n$ nightshift log export - | gzip\n```\nor `nightshift stop`, see `nightshift.toml`"
    assert list(commands(shown)) == ["nightshift log export - | gzip", "nightshift stop"]
    assert words("nightshift log export - | gzip") == ["log", "export", "-"]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    _, prose = fences(page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+://|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), f"{name(page)} links to {target}, which is not there"
        assert not anchor or anchor in anchors(file), f"{name(page)} links to {target}: no such heading"


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    _, prose = fences(page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_one_click_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert f"(docs/{page.name}" in readme, f"README.md does not link to docs/{page.name}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_file_and_target_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for file in re.findall(r"`((?:benchmarks|tests|docs|loop|eventstore|trainer|bot)/[\w/]+\.\w+)`", text):
        assert (ROOT / file).exists(), f"{name(page)} names {file}"
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code, prose = fences(text)
    for target in re.findall(r"`make ([a-z-]+)", prose) + re.findall(r"^make ([a-z-]+)", code, re.MULTILINE):
        assert target in targets, f"{name(page)} names `make {target}`"


def test_the_page_of_figures_can_take_the_table() -> None:
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert text.index("<!-- table: begin -->") < text.index("<!-- table: end -->")
