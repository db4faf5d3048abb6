"""The page about trust has every row, and says of none that it is missing."""

from __future__ import annotations

import re
from pathlib import Path

from tests.trust.rows import ROWS
from tests.trust.world import CHEATS

PAGE = (Path(__file__).parents[2] / "docs" / "trust.md").read_text(encoding="utf-8")
REMEDY = "run `python docs/generate_trust.py > docs/trust.md`"


def test_the_page_has_the_rows_of_the_suite() -> None:
    shown = [line.split(" | ")[0].removeprefix("| ") for line in PAGE.splitlines() if re.match(r"\| [^|]", line)]
    assert shown == [row.name for group in dict.fromkeys(r.group for r in ROWS.values()) for row in ROWS.values()
                     if row.group == group], REMEDY  # fmt: skip
    assert "**missing**" not in PAGE, REMEDY


def test_every_cheat_has_a_row() -> None:
    text = (Path(__file__).parent / "rows.py").read_text()
    files = {path.stem for path in CHEATS.glob("*.py")} - {"model", "honest"}
    assert not [name for name in files if f'"{name}"' not in text]
