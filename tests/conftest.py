"""The table at the end of a test run: each promise of the log, how it was attacked, how often it held.

A test takes `tally`, names the promise and the attack, and counts. Counts travel in the test's report, so the
table is the same with any number of worker processes. A test that fails leaves its row marked, also if it
failed before it counted anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

KEY = "promise"
BROKEN = "  BROKEN"


@dataclass
class Count:
    """How often one attack was made and how often the promise held. *note* is shown behind the numbers."""

    promise: str
    attack: str
    made: int = 0
    held: int = 0
    note: str = ""

    def see(self, held: bool) -> bool:
        """Count one attack, and return whether the promise held."""
        self.made += 1
        self.held += held
        return held


Tally = Callable[[str, str], Count]


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Iterator[Tally]:
    """Make a row of the table: `count = tally(promise, attack)`, then `assert count.see(...)`."""
    counts: list[Count] = []

    def begin(promise: str, attack: str) -> Count:
        counts.append(Count(promise, attack))
        return counts[-1]

    yield begin
    for count in counts:
        request.node.user_properties.append((KEY, (count.promise, count.attack, count.made, count.held, count.note)))


@dataclass(eq=False)  # pytest wants a plugin that can be hashed
class Table:
    """All rows of a run, in the order of their first appearance."""

    rows: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    notes: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid)
        if report.when != "teardown":
            return
        for key, value in report.user_properties:
            if key == KEY:
                promise, attack, made, held, note = value
                total = self.rows.setdefault((promise, attack), [0, 0, 0])
                total[0] += made
                total[1] += held
                total[2] += report.nodeid in self.failed
                if note:
                    self.notes.setdefault((promise, attack), []).append(note)

    @pytest.hookimpl
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.rows:
            return
        terminalreporter.section("what was attacked")
        shown: dict[str, list[tuple[str, str]]] = {}
        for promise, attack in sorted(self.rows):
            shown.setdefault(promise, []).append((promise, attack))
        width = max(len(attack) for _, attack in self.rows)
        for promise, keys in shown.items():
            terminalreporter.write_line(promise, bold=True)
            for key in keys:
                made, held, failures = self.rows[key]
                broken = failures or held != made
                note = "; ".join(dict.fromkeys(self.notes.get(key, [])))
                line = f"  {key[1]:<{width}}  {f'{held:,} of {made:,}':>20}{BROKEN if broken else ''}"
                terminalreporter.write_line(f"{line}  {note}".rstrip(), red=bool(broken))


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # with xdist the main process shows what the workers count
        config.pluginmanager.register(Table(), "promises")
