"""Run the demo with several seeds and count how many had both a keep and a discard.

    python benchmarks/demos.py [--seeds 10] [--experiments 6]

Each demo trains for real, so this takes minutes. Not part of `make bench`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--experiments", type=int, default=6)
    options = parser.parse_args()
    both = 0
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            rows, seconds = demo(Path(folder) / str(seed), seed, options.experiments)
            verdicts = [row[3] for row in rows]
            kept, discarded = verdicts.count("keep") - 1, verdicts.count("discard")
            both += kept > 0 and discarded > 0
            best = min(float(row[1]) for row in rows if row[3] == "keep")
            print(
                f"seed {seed}: {kept} kept, {discarded} discarded, {verdicts.count('crash')} crashed, "
                f"val_bpb {rows[0][1]} -> {best:.6f}, {seconds:.0f} s",
                flush=True,
            )
    print(f"{both} of {options.seeds} demos had both a keep and a discard")
    sys.exit(both != options.seeds)


def demo(folder: Path, seed: int, experiments: int) -> tuple[list[list[str]], float]:
    began = time.monotonic()
    command = (sys.executable, "-m", "nightshift", "demo", str(folder), "--seed", str(seed))
    subprocess.run((*command, "--experiments", str(experiments)), check=True, capture_output=True)
    lines = (folder / "results.tsv").read_text().splitlines()[1:]
    return [line.split("\t") for line in lines], time.monotonic() - began


if __name__ == "__main__":
    main()
