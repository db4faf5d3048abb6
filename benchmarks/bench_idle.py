"""What preparing ahead is worth: how long the device stands idle between trainings when a proposal takes time.

    python benchmarks/bench_idle.py [--quick]

A real loop process, real git, real child processes, and Claude's real SDK talking to a Messages API on loopback that
thinks for half a second before each answer. Two runs of the same night: with one proposal prepared ahead, and with
none, where
the next one is asked for when the device is free. The gap is the whole time from the end of one training to the start
of the next by the monotonic clock, as the log has it (`training.started`, idle_s). Half of the experiments are kept.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from table import AT, ROOT, Row, make_repository, nightshift, run, show_time, times

from eventstore import events as e
from eventstore.envelope import NewEvent
from eventstore.home import Home
from eventstore.store import Store

API = ROOT / "tests" / "loop" / "messages_api.py"
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


def measure(quick: bool) -> list[Row]:
    experiments, train_s, answer_s = (6, 0.4, 0.4) if quick else (20, 0.7, 0.5)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        script = make_workspace(root, experiments, train_s)
        for tag, ahead in (("ahead", 1), ("one-by-one", 0)):
            with messages_api(script, answer_s) as url:
                serve(root, url, tag, ahead, experiments)
            found[tag] = Idle.of(root, tag)
    ahead, none = found["ahead"], found["one-by-one"]
    what = f"answers of {answer_s:g} s, trainings of {train_s:g} s, one proposal ahead"
    return [
        Row(
            f"{what}: gap, p50 of {len(ahead.gaps_s)}",
            show_time(median(ahead.gaps_s)),
            "none ahead",
            show_time(median(none.gaps_s)),
            times(median(ahead.gaps_s), median(none.gaps_s)),
            "100 ms",
            median(ahead.gaps_s) <= 0.1,
        ),
        Row(
            f"{what}: time the device is idle",
            f"{ahead.share:.1%}",
            "none ahead",
            f"{none.share:.1%}",
            times(ahead.share, none.share),
        ),
    ]


def make_workspace(root: Path, experiments: int, train_s: float) -> Path:
    (root / "program.py").write_text(f"import time\nCOST = 1000.0\ntime.sleep({train_s})\nprint('cost:', COST)\n")
    (root / "nightshift.toml").write_text(SETTINGS)
    make_repository(root)
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
    key = {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "sk-test-bench"}
    nightshift("-C", str(root), "loop", "--until-idle", cwd=root, **key)


@dataclass(frozen=True, slots=True)
class Idle:
    """The gaps of one run, and the share of its time that they are."""

    gaps_s: list[float]
    share: float

    @classmethod
    def of(cls, root: Path, tag: str) -> Idle:
        with Store.open(Home(root).log_path) as log:
            events = [event.data for event in log.stream() if event.run == tag]
        failed = sum(isinstance(x, e.ProposalFailed) for x in events)
        if failed:
            raise RuntimeError(f"{failed} asks of {tag} failed, so its gaps are not what this measures")
        gaps_s = [x.idle_s for x in events if isinstance(x, e.TrainingStarted) and x.idle_s is not None]
        trained_s = sum(x.seconds for x in events if isinstance(x, e.TrainingFinished))
        return cls(gaps_s, sum(gaps_s) / (sum(gaps_s) + trained_s))


if __name__ == "__main__":
    run(__doc__, measure)
