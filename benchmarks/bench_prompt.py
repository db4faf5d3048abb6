"""What a prompt costs as a run grows: its size, the time to write it, and what survives in it.

    python benchmarks/bench_prompt.py [--quick]

A history of 10,000 experiments (quick: 2,000) is made from a seed: 18 % keeps at first and fewer later, 5 % crashes,
many topics in many wordings, half of them in words that were never used before. Experiment 17 crashed with an error
that no other one has. "In common" are the bytes from its start that the prompt shares with that of the ask before:
what a cache by prefix can serve. After a keep the files change, and with them all that follows. Tokens are a cautious
estimate.
"""

from __future__ import annotations

import random
import re
from functools import partial

from table import ROOT, Row, interleaved, medians, run, show_time, times

from eventstore.events import SetConstants
from loop.fences import estimate_tokens
from loop.prompts import build
from loop.proposers.base import Ask, InFlight, Tried

TOKENS_MAX, SEED = 60_000, 1
LESSON = "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff in position 0"

THINGS = (
    "matrix lr,embedding lr,head lr,weight decay,warmup,warmdown,muon momentum,adam beta2,depth,width,head dim,"
    "mlp ratio,rope base,softcap,value embeddings,x0 lambda,z-loss,qk norm,swiglu,relu squared,gelu,batch rows,"
    "sequence length,gradient clipping,ema of weights,tied embeddings,parallel blocks,sliding window,grouped queries,"
    "label smoothing,residual scale,init std,bias terms,layer norm,dropout,multi-token prediction,logit scale,"
    "bfloat16 moments"
)
WAYS = ("raise {}", "lower {}", "{} x2", "halve {}", "{} on every second block", "no {}", "schedule {}", "{} per layer")
ERRORS = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate {}.00 GiB",
    "RuntimeError: mat1 and mat2 shapes cannot be multiplied ({}x128 and 64x{})",
    "NameError: name 'scale_{}' is not defined",
    "AssertionError: DIM {} is not a multiple of HEAD_DIM",
    "FAIL: the loss is nan at step {}",
    "TypeError: forward() takes {} positional arguments but 3 were given",
)


def history(size: int, seed: int) -> tuple[Tried, ...]:
    """A made-up run of *size* verdicts, the same for the same seed; a longer one begins with the shorter."""
    rng = random.Random(seed)
    best, out = 0.9979, []
    for n in range(1, size + 1):
        description, edits = change(rng, n)
        hypothesis = f"{description} should help because {words(rng, 12)}"
        draw = rng.random()
        if n == 17:
            out.append(Tried(n, (), "crash", None, "read the text as bytes", None, "crash", hypothesis, 2, LESSON))
        elif draw < 0.05:
            error = rng.choice(ERRORS).format(rng.randrange(1, 99), rng.randrange(100, 999))
            out.append(Tried(n, edits, "crash", None, description, None, "crash", hypothesis, 4, error))
        elif draw < 0.05 + max(0.18 * 0.9 ** (n / 60), 0.04):
            gain = rng.expovariate(1 / (0.05 / (n + 20)))
            best -= gain
            out.append(
                Tried(n, edits, "keep", best, description, gain, f"better by {gain:.6g}", hypothesis, rng.randrange(9))
            )
        else:
            loss = rng.expovariate(1 / 0.004) + (rng.random() < 0.01) * 0.5
            why = f"worse by {loss:.6g}"
            if rng.random() < 0.03:
                why = f"peak memory grew {1.5 + rng.random():.2f}-fold, allowed is 1.5-fold"
            out.append(Tried(n, edits, "discard", best + loss, description, -loss, why, hypothesis, rng.randrange(20)))
    return tuple(out)


def change(rng: random.Random, number: int) -> tuple[str, tuple[SetConstants, ...]]:
    draw = rng.random()
    if draw < 0.1:
        value = round(10 ** rng.uniform(-4, -1), 5)
        return f"MATRIX_LR {value}", (SetConstants("train.py", {"MATRIX_LR": value}),)
    thing = rng.choice(THINGS.split(","))
    if draw < 0.5:
        return rng.choice(WAYS).format(thing) + f" ({rng.randrange(100)})", ()
    return f"{words(rng, 2)}{number} for {thing}", ()


def words(rng: random.Random, count: int) -> str:
    """Words that mean nothing, from some hundred thousand."""
    return " ".join("".join(rng.choice("bdfgklmnprstv") + rng.choice("aeiou") for _ in range(3)) for _ in range(count))


def ask(past: tuple[Tried, ...]) -> Ask:
    keeps = [tried for tried in past if tried.verdict == "keep"]
    best = keeps[-1] if keeps else None
    train = (ROOT / "train.py").read_text()
    return Ask(
        tag="bench",
        experiment=len(past) + 2,
        ask=0,
        attempt=0,
        purpose="new",
        base_commit=f"{best.experiment if best else 0:040x}",
        files={"train.py": train + f"# as of {best.experiment if best else 0}\n"},
        program=(ROOT / "program.md").read_text(),
        history=past,
        in_flight=(InFlight(len(past) + 1, (), "one at work", "because"),),
        seed=1,
        metric="val_bpb",
        direction="minimize",
        editable=("train.py",),
        budget_s=300.0,
        best=best.score if best else 0.9979,
        best_experiment=best.experiment if best else 0,
        baseline=0.9979,
    )


def told_keeps(record: str) -> set[int]:
    """The numbers of the keeps in a record, in whichever form they are told."""
    listed = record.partition("<data")[2]
    return {int(number) for number in re.findall(r"^(\d+) [+-]", listed, re.MULTILINE)} | {
        int(number) for number in re.findall(r"(?:^|(?<= ))(\d+):[+-]", listed, re.MULTILINE)
    }


def common_bytes(before: str, after: str) -> int:
    """How many bytes both have in common from their start."""
    old, new = before.encode(), after.encode()
    return next((at for at, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))


def measure(quick: bool) -> list[Row]:
    size = 2_000 if quick else 10_000
    long, short = history(size, SEED), history(size // 10, SEED)
    prompt = build(ask(long), tokens_max=TOKENS_MAX, answer="tool")
    works = [partial(build, ask(past), tokens_max=TOKENS_MAX, answer="tool") for past in (long, short)]
    long_s, short_s = medians(interleaved(7, works))
    keeps = {tried.experiment for tried in long if tried.verdict == "keep"}
    told = keeps & told_keeps(prompt.user[1].text)
    before = build(ask(long[:-1]), tokens_max=TOKENS_MAX, answer="tool").text
    whole, common = len(prompt.text.encode()), common_bytes(before, prompt.text)
    lesson = "UnicodeDecodeError" in prompt.user[2].text
    tokens = estimate_tokens(prompt.text)
    what = f"prompt after {size:,} experiments"
    return [
        Row(
            f"{what}, tokens",
            f"{tokens:,}",
            "its limit",
            f"{TOKENS_MAX:,}",
            times(tokens, TOKENS_MAX),
            "1 x",
            tokens <= TOKENS_MAX,
        ),
        Row(
            f"{what}, keeps and the lesson of experiment 17 in it",
            f"{len(told) + lesson}",
            "there are",
            f"{len(keeps) + 1}",
            times(len(told) + lesson, len(keeps) + 1),
            "1 x",
            told == keeps and lesson,
        ),
        Row(f"{what}, bytes in common with the one before", f"{common:,}", "all", f"{whole:,}", times(common, whole)),
        Row(f"{what}, built in", show_time(long_s), "a tenth of them", show_time(short_s), times(long_s, short_s)),
    ]


if __name__ == "__main__":
    run(__doc__, measure)
