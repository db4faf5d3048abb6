"""What sealed scoring adds to an experiment of the demo: handing the model over, scoring it in the evaluator, probing.

    python benchmarks/bench_seal.py [--rounds 5] [--depth 4]

The shipped train.py's model on the shipped prepare.py and its corpus, with real processes. What it replaces is measured
in the same run: scoring in the training's own process. Each figure is the median of wall clocks; beside it stands the
processor time of the same work, which neighbours on the machine disturb less.

Last comes the whole way of an experiment: train.py with its budget, through the sandbox, the gate and the scorer as the
loop goes, beside the same training that scores itself; in turns.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from table import ROOT, Row, as_table, machine, show_time

from trainer.evaluator import protocol
from trainer.evaluator.protocol import Request
from trainer.executors.local import LocalExecutor
from trainer.sandbox.plan import View
from trainer.scorer import EvaluatorScorer, Place
from trainer.spec import DataFile, Scoring, Seal, TrainingSpec

TARGET_S = 3.0
BUDGET_S = 2.0
THREADS = max(1, len(os.sched_getaffinity(0)) - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--depth", type=int, default=4, help="blocks of train.py's model; the demo begins with 4")
    parser.add_argument("--child", nargs=2, metavar=("FOLDER", "CACHE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        hand_over_and_say(Path(options.child[0]), Path(options.child[1]), options.depth)
        return
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), options)


def run(root: Path, options: argparse.Namespace) -> None:
    cache = prepared(root)
    children = [child(root / f"handed{n}", cache, options.depth) for n in range(options.rounds)]
    starts, answers = evaluations(root, cache, options.rounds)

    def of(name: str) -> tuple[float, float]:
        return median(c[name][0] for c in children), median(c[name][1] for c in children)

    print(machine())
    print(
        f"{THREADS} thread(s) in training, one scoring process a core; {options.rounds} rounds, depth {options.depth}\n"
    )
    before = of("in_place")
    cold, warm, first = of("hand_over"), of("again"), of("warm_up")
    plain, full, opinion = (medians(answers[kind]) for kind in ("plain", "full", "opinion"))
    ready = medians(starts)
    print_rows(
        [
            line("scoring in the training's own process, before", before),
            line("handing over: all of it, in a fresh process", cold),
            line("  of which torch.export's first use; can be spent before the clock starts", first),
            line("  handing over once that is spent", warm),
            line("scoring in a warm evaluator, select rows", plain),
            line("the same with report rows and causality probe", full),
            line("the same with the second opinion", opinion),
            line("starting an evaluator, once for a night", ready),
        ]
    )
    print()
    print_rows(whole_way(root, cache, options.rounds))
    print()
    print_rows(
        [
            total("added to each experiment", plain, cold, before),
            total("added to a candidate for a keep", full, cold, before),
            total("added to a new best", opinion, cold, before),
            total("added to a candidate, evaluator not warm", (full[0] + ready[0], full[1] + ready[1]), cold, before),
        ]
    )


def whole_way(root: Path, cache: Path, rounds: int) -> list[Row]:
    """Wall clock of whole experiments less their budget: in place, sealed and scored, sealed and checked as well."""
    found: dict[str, list[float]] = {"in place": [], "sealed": [], "checks": [], "cold": []}
    asyncio.run(_whole_way(root, cache, rounds, found))
    middle = {name: median(values) for name, values in found.items()}
    rows = []
    for what, spent in (
        ("whole way, sealed, evaluator warm", middle["sealed"]),
        ("whole way on average, one in three being kept", middle["sealed"] + middle["checks"] / 3),
        ("whole way of what is kept: checked besides", middle["sealed"] + middle["checks"]),
        ("whole way of the first, with the evaluator's start", middle["sealed"] + middle["cold"]),
    ):
        added = spent - middle["in place"]
        rows.append(
            Row(
                what,
                f"{added:.2f} s more",
                "scored in place, less its budget",
                f"{middle['in place']:.2f} s",
                f"{added / TARGET_S:.2f} x",
                f"{TARGET_S:g} s",
                added <= TARGET_S,
            )
        )
    return rows


async def _whole_way(root: Path, cache: Path, rounds: int, found: dict[str, list[float]]) -> None:
    manifest = json.loads((cache / "manifest.json").read_bytes())
    data = (DataFile(cache / "train/tokens.bin", manifest["files"]["train/tokens.bin"]["sha256"]),)
    executor, began = LocalExecutor(), time.perf_counter()
    (root / "handed").mkdir()
    rows = (cache / name for name in ("manifest.json", "tokenizer.json", "select", "report"))
    view = View(read=(ROOT / "prepare.py", root / "handed", *rows))
    mark = f"bench{os.getpid()}/seal/0/evaluator"
    scorer = EvaluatorScorer(
        Place(harness=ROOT, cache=cache, workdir=root / "stand", mark=mark, view=view, timeout_s=60.0, device="cpu")
    )
    await scorer.ready()
    found["cold"].append(time.perf_counter() - began)
    for turn in range(rounds):
        for kind in ("in place", "sealed"):
            work = root / f"work-{kind}-{turn}".replace(" ", "-")
            work.mkdir()
            for name in ("train.py", "prepare.py"):
                shutil.copy(ROOT / name, work)
            is_sealed = kind == "sealed"
            handed = root / "handed" / str(turn)
            spec = TrainingSpec(
                command=("python", "train.py"),
                workdir=work,
                outdir=work.with_name(f"{work.name}.out"),
                mark=f"bench{os.getpid()}/seal/{turn}/{kind.replace(' ', '')}",
                timeout_s=120.0,
                budget_s=BUDGET_S,
                seed=1,
                scoring=Scoring(kind="sealed" if is_sealed else "stdout", name="val_bpb"),
                seal=Seal(data, handed, 30.0) if is_sealed else None,
                view=View(read=(cache.parent,), hidden=tuple(cache / part for part in ("train", "select")) * is_sealed),
                env={"NIGHTSHIFT_CACHE": str(cache.parent), "TORCHINDUCTOR_CACHE_DIR": str(work / ".compiled")},
            )
            began = time.perf_counter()
            result = await (await executor.start(spec, 0)).wait()
            assert result.outcome == "scored", result
            if is_sealed:
                answer = await scorer.score(Request(str(handed), seed=1))
                assert answer.outcome == "scored", answer
            found[kind].append(time.perf_counter() - began - BUDGET_S)
        began = time.perf_counter()
        await scorer.score(Request(str(handed), seed=1, score=False, probe=True, report=True, second_opinion=True))
        found["checks"].append(time.perf_counter() - began)
    await scorer.close()


def print_rows(rows: list[Row]) -> None:
    print(as_table(rows))


def line(what: str, figure: tuple[float, float]) -> Row:
    return Row(what, show_time(figure[0]), "of processor time", show_time(figure[1]), "")


def total(what: str, scored: tuple[float, float], exported: tuple[float, float], before: tuple[float, float]) -> Row:
    added, busy = (scored[n] + exported[n] - before[n] for n in (0, 1))
    ratio = f"{added / TARGET_S:.2f} x"
    return Row(
        what, f"{added:.2f} s", "of processor time", f"{busy:.2f} s", ratio, f"{TARGET_S:g} s", added <= TARGET_S
    )


def medians(figures: list[tuple[float, float]]) -> tuple[float, float]:
    return median(wall for wall, _ in figures), median(busy for _, busy in figures)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(THREADS)}


def prepared(root: Path) -> Path:
    """The demo's cache, built once."""
    command = (sys.executable, "prepare.py", "--cache", str(root / "cache"))
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return next((root / "cache").glob("*/manifest.json")).parent


def child(folder: Path, cache: Path, depth: int) -> dict[str, tuple[float, float]]:
    folder.mkdir()
    command = (sys.executable, __file__, "--depth", str(depth), "--child", str(folder), str(cache))
    ended = subprocess.run(command, check=True, cwd=ROOT, env=environment(), capture_output=True, text=True)
    found = json.loads(ended.stdout.splitlines()[-1])
    return {name: (wall, busy) for name, (wall, busy) in found.items()}


def hand_over_and_say(folder: Path, cache: Path, depth: int) -> None:
    """In a process of its own, as a training ends: score in place, hand over, print what each took."""
    import torch

    import prepare
    import train

    torch.set_num_threads(THREADS)
    train.DEPTH = depth
    torch.manual_seed(1)
    model = train.GPT()
    found: dict[str, tuple[float, float]] = {}

    def timed(name: str, began: tuple[float, float]) -> None:
        found[name] = time.perf_counter() - began[0], time.process_time() - began[1]

    def now() -> tuple[float, float]:
        return time.perf_counter(), time.process_time()

    tokens, lengths = prepare.open_tokens(cache, "select"), prepare.token_lengths(cache)
    prepare.sum_of_nats(model, tokens[:4096], lengths)
    began = now()
    prepare.sum_of_nats(model, tokens, lengths)
    timed("in_place", began)
    began = now()
    from trainer.evaluator import export

    export.hand_over(model, folder, (2, prepare.MAX_SEQ_LEN), {"depth": depth})
    timed("hand_over", began)
    began = now()
    export.hand_over(model, folder, (2, prepare.MAX_SEQ_LEN), {"depth": depth})
    timed("again", began)
    found["warm_up"] = tuple(found["hand_over"][n] - found["again"][n] for n in (0, 1))  # type: ignore[assignment]
    print(json.dumps(found))


def evaluations(
    root: Path, cache: Path, rounds: int
) -> tuple[list[tuple[float, float]], dict[str, list[tuple[float, float]]]]:
    """What evaluators took to start, and to answer each kind of request, wall clock and processor time."""
    kinds = {
        "plain": {},
        "full": {"probe": True, "report": True},
        "opinion": {"probe": True, "report": True, "second_opinion": True},
    }
    starts, answers = [], {kind: [] for kind in kinds}
    for turn in range(rounds):
        began = time.perf_counter()
        options = ("--harness", str(ROOT), "--cache", str(cache))
        process = subprocess.Popen(
            (sys.executable, "-m", "trainer.evaluator", *options),
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin and process.stdout
        protocol.decode(process.stdout.readline(), protocol.Ready)
        starts.append((time.perf_counter() - began, busy_s(process.pid)))
        for kind, wanted in kinds.items():
            began, spent = time.perf_counter(), busy_s(process.pid)
            process.stdin.write(protocol.encode(protocol.Request(str(root / f"handed{turn}"), seed=turn, **wanted)))
            process.stdin.flush()
            answer = protocol.decode(process.stdout.readline(), protocol.Answer)
            assert answer.outcome == "scored", answer.why
            answers[kind].append((time.perf_counter() - began, busy_s(process.pid) - spent))
        process.stdin.close()
        process.wait()
    return starts, answers


def busy_s(pid: int) -> float:
    """Processor time of a process and of its children that have ended, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
