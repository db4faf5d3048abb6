"""What preparing ahead is worth: how long the device stands idle between trainings when a proposal takes 0.7 s.

    python benchmarks/bench_idle.py [--experiments 50] [--train 1.0] [--answer 0.7]

A real loop process, real git, real child processes, and Claude's real SDK talking to a Messages API on loopback that
thinks for 0.7 s before each answer. Two runs of the same night: with one proposal prepared ahead, and with none, where
the next one is asked for when the device is free. The gap is the whole time from the end of one training to the start
of the next by the monotonic clock, as the log has it (`training.started`, idle_s). Half of the experiments are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from eventstore import events as e
from eventstore.envelope import NewEvent
from eventstore.home import Home
from eventstore.store import Store

API = Path(__file__).parents[1] / "tests" / "loop" / "messages_api.py"
AT = "2026-01-01T00:00:00.000000Z"
SETTINGS = """\
[objective]
name = "cost"
direction = "minimize"
editable = ["program.py"]
[experiment]
command = ["python", "-S", "program.py"]
budget_s = 5
timeout_s = 30
[proposer]
kind = "claude"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiments", type=int, default=50)
    parser.add_argument("--train", type=float, default=1.0, metavar="SECONDS")
    parser.add_argument("--answer", type=float, default=0.7, metavar="SECONDS")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        script = make_workspace(root, options.experiments, options.train)
        for tag, ahead in (("ahead", 1), ("one-by-one", 0)):
            with messages_api(script, options.answer) as url:
                serve(root, url, tag, ahead, options.experiments)
            report(root, tag, options)


def make_workspace(root: Path, experiments: int, train_s: float) -> Path:
    (root / "program.py").write_text(f"import time\nCOST = 1000.0\ntime.sleep({train_s})\nprint('cost:', COST)\n")
    (root / "nightshift.toml").write_text(SETTINGS)
    identity = ("-c", "user.name=Bench", "-c", "user.email=bench@example.org")
    for args in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "start")):
        subprocess.run(("git", *identity, *args), cwd=root, check=True)
    script = root / ".git" / "script.json"
    answers = [answer(n, 1000.0 - n if n % 2 else 2000.0 + n) for n in range(1, experiments + 1)]
    script.write_text(json.dumps(answers))
    return script


def answer(n: int, cost: float) -> dict[str, object]:
    """A new line instead of another COST: such an edit fits whatever was kept before it."""
    block = {"search": "time.sleep(", "replace": f"COST = {cost}\ntime.sleep("}
    said = {
        "rationale": "so it goes",
        "hypothesis": "another cost",
        "expected_effect": {"kind": "change", "amount": 1.0},
        "idea": {"answer": "no_idea", "why": ""},
        "description": f"number {n}",
        "edits": [{"path": "program.py", "blocks": [block], "whole_file": ""}],
    }
    return {"experiment": n, "tool": "propose", "input": said, "times": 0}


@contextmanager
def messages_api(script: Path, delay_s: float) -> Iterator[str]:
    server = subprocess.Popen(
        (sys.executable, str(API), str(script), "--delay", str(delay_s)), stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
    finally:
        server.terminate()
        server.wait()


def serve(root: Path, url: str, tag: str, ahead: int, experiments: int) -> None:
    asked = e.RunRequested(
        tag=tag,
        from_ref="HEAD",
        zone="UTC",
        limits=e.Limits(experiments=experiments),
        overrides={"proposer.ahead": ahead},
    )
    with Store.open(Home(root).log_path) as log:
        log.append([NewEvent(f"ask {tag}", tag, AT, "bench", asked)])
    environ = {**os.environ, "ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "sk-test-bench"}
    command = (sys.executable, "-m", "nightshift", "-C", str(root), "loop", "--until-idle")
    subprocess.run(command, check=True, env=environ, stdout=subprocess.DEVNULL)


def report(root: Path, tag: str, options: argparse.Namespace) -> None:
    with Store.open(Home(root).log_path) as log:
        events = [event.data for event in log.stream() if event.run == tag]
    gaps_s = sorted(x.idle_s for x in events if isinstance(x, e.TrainingStarted) and x.idle_s is not None)
    trained_s = sum(x.seconds for x in events if isinstance(x, e.TrainingFinished))
    kept = sum(isinstance(x, e.ExperimentDecided) and x.verdict == "keep" for x in events)
    failed = sum(isinstance(x, e.ProposalFailed) for x in events)
    idle = sum(gaps_s) / (sum(gaps_s) + trained_s)
    p50_ms, p90_ms, max_ms = (1000 * gap for gap in (median(gaps_s), gaps_s[int(0.9 * len(gaps_s))], gaps_s[-1]))
    print(
        f"{tag:>10}: {len(gaps_s)} gaps, p50 {p50_ms:.0f} ms, p90 {p90_ms:.0f} ms, max {max_ms:.0f} ms; "
        f"idle {idle:.1%} of the time; {kept} keeps, {failed} failed asks "
        f"(training {options.train:g} s, an answer {options.answer:g} s)"
    )


if __name__ == "__main__":
    main()
