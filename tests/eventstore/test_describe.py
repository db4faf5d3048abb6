"""The pages about events and settings say what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventstore.describe import EXAMPLE, SMALLEST, events_page, main, settings_page
from eventstore.events import CATALOGUE, FileEdit
from eventstore.settings import NOT_BUILT, Settings, keys, not_built_yet, nothing_to_sweep, parse

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["events", "settings"])
def test_the_page_in_docs_is_not_stale(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([page]) == 0
    written = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    command = f"python -m eventstore.describe {page} > docs/{page}.md"
    assert capsys.readouterr().out == written, f"docs/{page}.md is stale: {command}"


def test_every_event_type_is_described_once_with_all_its_fields() -> None:
    page = events_page()
    for name, kind in CATALOGUE.items():
        heading = f"### `{name}`\n"
        assert page.count(heading) == 1
        section = page.split(heading)[1].split("\n#")[0]
        assert all(f"| `{field}` |" in section for field in kind.__struct_fields__), name
        assert len(section.split("\n\n")[0].split(". ", 1)[1]) > 10, f"{name} has no docstring"


def test_every_kind_of_edit_is_described_with_the_word_that_tells_it_apart() -> None:
    page = events_page()
    for kind in FileEdit.__args__:
        assert f"| `edit` | always `{kind.__struct_config__.tag}` | required |" in page


def test_every_table_and_key_of_the_settings_is_described() -> None:
    page = settings_page()
    for table in keys(Settings).values():
        assert f"## `[{table.name}]`\n" in page
        for key in keys(table.type) if isinstance(table.type, type) else ():
            assert f"| `{key}` |" in page


def test_the_examples_on_the_page_are_valid_and_can_start() -> None:
    assert parse(SMALLEST).objective.name == "latency_ms"
    assert not_built_yet(parse(EXAMPLE)) is None
    assert nothing_to_sweep(parse(EXAMPLE)) is None


def test_the_page_says_what_is_not_built_yet() -> None:
    assert all(f"| `{name}` | " in settings_page().split("## Not built yet")[1] for name in NOT_BUILT)


def test_a_cell_never_breaks_its_table() -> None:
    for line in (events_page() + settings_page()).splitlines():
        if line.startswith("|"):
            assert line.replace("\\|", "").count("|") in (3, 4, 5), line


@pytest.mark.parametrize("arguments", [[], ["verbs"], ["events", "settings"]])
def test_another_page_is_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err == "usage: python -m eventstore.describe events|settings\n"
