"""Every benchmark, one after the other, as one table.

    python benchmarks/run_all.py [--quick] [--only append --only replay] [--write docs/performance.md]

Each runs in a process of its own, so that none meets the heap of another; peers and limits are interleaved with what
they stand beside inside each. `--write` puts the table, the machine in words and the date between the two marks in a
file, and touches nothing else there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

from table import ROOT, Row, as_table, machine

ALL = ("commands", "append", "follow", "gap", "idle", "ack", "prompt", "soak", "replay")
ON_REQUEST = ("prepare",)
"""Takes minutes by itself and needs pyarrow: only with `--only prepare`."""
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a look in a minute: fewer and smaller")
    parser.add_argument("--only", action="append", choices=(*ALL, *ON_REQUEST), help="one of them; may be given again")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into this file, between its marks")
    options = parser.parse_args()
    began, about = time.monotonic(), machine()
    rows = [row for name in options.only or ALL for row in rows_of(name, options.quick)]
    kind = "quick look" if options.quick else "whole"
    text = f"{about}. {date.today():%-d %B %Y}; {kind}, {time.monotonic() - began:.0f} s.\n\n{as_table(rows)}"
    print(text)
    if options.write is not None:
        write(options.write, text)
    missed = sum(row.is_met is False for row in rows)
    print(f"\n{sum(row.is_met is True for row in rows)} targets met, {missed} missed")


def rows_of(name: str, quick: bool) -> list[Row]:
    """Run one benchmark to its end. What it says besides its rows passes through."""
    began = time.monotonic()
    command = (sys.executable, str(ROOT / "benchmarks" / f"bench_{name}.py"), "--json", *(["--quick"] if quick else []))
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return [Row(**fields) for fields in json.loads(done.stdout)]


def write(file: Path, text: str) -> None:
    """Put *text* between the marks of *file*. Exits with a sentence if it has none."""
    before, begin, rest = file.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{file} has no lines {BEGIN} and {END}: add them where the table shall stand")
    file.write_text(f"{before}{begin}\n{text}\n{end}{after}")


if __name__ == "__main__":
    main()
