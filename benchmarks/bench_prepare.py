"""How fast a corpus is made ready, and what that spares the training loop, beside tokenising and packing inside it.

    python benchmarks/bench_prepare.py [--quick]

The text is generated: documents of the length of web pages, words by Zipf's law, in parquet files. Both sides read the
same files with the same tokenizer of 8,192 tokens.

- ours: `python prepare.py` as a person runs it, from the first import to the end: it reads all, learns the tokenizer,
  encodes on every core and writes. Training then gathers rows from the memory map.
- upstream's way: a loader inside the training loop reads row groups, tokenises 128 documents at once on 8 threads, and
  packs them: each row takes the longest of 1,000 waiting documents that still fits, and the shortest, cropped, at its
  end. It pays that at each experiment again, while the clock of the budget runs.

Memory is the most that prepare.py and its workers held together (resident, shared pages counted in each), looked at
every 50 ms.
"""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import tiktoken
from table import ROOT, Row, faster, run, show_time, times

from eventstore.events import SetConstants
from loop import edits

CONSTANTS = {"VOCAB_SIZE": 8192, "MAX_SEQ_LEN": 2048, "EVAL_TOKENS": 65_536}
ROWS, LENGTH = 128, 2048  # of a batch: 262,144 tokens
FILES = 4
MEMORY_FACTOR_MAX = 1.25  # of a tenth of the text; a whole cache held in memory would be 10


@dataclass(frozen=True, slots=True)
class Prepared:
    """What one call of prepare.py took."""

    seconds: float
    memory_mb: float
    folder: Path


def measure(quick: bool) -> list[Row]:
    megabytes, batches = (60, 6) if quick else (1000, 40)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        harness = make_harness(home)
        tenth = prepare(home, make_corpus(home / "tenth", megabytes / 10), home / "cache-of-a-tenth")
        corpus = make_corpus(home / "all", megabytes)
        all_of_it = prepare(home, corpus, home / "cache")
        tokenizer = harness.load_tokenizer(all_of_it.folder)
        packing = packed_batches(corpus, tokenizer, harness.BOS)
        gathering = harness.Batches(harness.open_tokens(all_of_it.folder, "train"), 1).stream(ROWS, LENGTH)
        theirs, ours, packed_mb = in_turn(packing, gathering, tokenizer, harness.BOS, batches)
    speed, their_speed = megabytes / all_of_it.seconds, packed_mb / sum(theirs)
    their_s, our_s = np.median(theirs).item(), np.median(ours).item()
    growth = all_of_it.memory_mb / tenth.memory_mb
    return [
        Row(
            f"prepare.py, {megabytes:,} MB of text made ready, tokenizer learned",
            f"{speed:.1f} MB/s, {all_of_it.seconds:.1f} s",
            "tokenising and packing in the loop",
            f"{their_speed:.1f} MB/s",
            faster(1 / speed, 1 / their_speed),
        ),
        Row(
            f"the next batch of {ROWS * LENGTH:,} tokens, in the loop",
            show_time(our_s),
            "tokenising and packing in the loop",
            show_time(their_s),
            faster(our_s, their_s),
        ),
        Row(
            f"most memory of prepare.py, {megabytes:,} MB of text",
            f"{all_of_it.memory_mb:,.0f} MiB",
            "a tenth of the text",
            f"{tenth.memory_mb:,.0f} MiB",
            times(all_of_it.memory_mb, tenth.memory_mb),
            f"<= {MEMORY_FACTOR_MAX} x",
            growth <= MEMORY_FACTOR_MAX,
        ),
    ]


def make_harness(home: Path) -> ModuleType:
    """A copy of prepare.py with the constants of a GPU; imported from there."""
    text = (ROOT / "prepare.py").read_text()
    changed = edits.apply([SetConstants("prepare.py", CONSTANTS)], {"prepare.py": text}, editable=["prepare.py"])
    (home / "prepare.py").write_text(changed["prepare.py"])
    sys.path.insert(0, str(home))
    import prepare

    return prepare


def make_corpus(folder: Path, megabytes: float) -> Path:
    """Text of this size in FILES parquet files, always the same."""
    rng = random.Random(11)
    letters = "etaoinshrdlucmfwypvbgk"
    words = ["".join(rng.choices(letters, range(len(letters), 0, -1), k=rng.randint(2, 9))) for _ in range(50_000)]
    weights = list(itertools.accumulate(1 / rank for rank in range(1, len(words) + 1)))
    sentences = []
    for _ in range(20_000):
        sentence = " ".join(rng.choices(words, cum_weights=weights, k=rng.randint(4, 24))).capitalize()
        sentences.append(f"{sentence}{rng.choice('.,.,?;:')} {rng.choice(['', '', '', str(rng.randint(1, 2100))])}")
    folder.mkdir()
    for number in range(FILES):
        schema = pa.schema([("text", pa.string())])
        with pq.ParquetWriter(folder / f"{number}.parquet", schema, compression="zstd") as file:
            written = 0.0
            while written < megabytes * 1e6 / FILES:
                lengths = (min(400, int(rng.lognormvariate(3.3, 1.0)) + 1) for _ in range(1024))
                texts = ["".join(rng.choices(sentences, k=length)) for length in lengths]
                file.write_table(pa.table({"text": texts}), row_group_size=1024)
                written += sum(map(len, texts))
    return folder


def prepare(home: Path, corpus: Path, cache: Path) -> Prepared:
    """Run prepare.py to its end, and look at its memory meanwhile."""
    workers = str(len(os.sched_getaffinity(0)))  # said, as a tenth of the text might be too little to start them
    command = (sys.executable, "prepare.py", "--corpus", str(corpus), "--cache", str(cache), "--workers", workers)
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=home, stdout=subprocess.DEVNULL, env=dict(os.environ)) as child:
        tree = psutil.Process(child.pid)
        most = 0
        while child.poll() is None:
            held = 0
            try:
                for process in (tree, *tree.children(recursive=True)):
                    held += process.memory_info().rss
            except psutil.NoSuchProcess:  # a worker that has just ended
                held = 0
            most = max(most, held)
            time.sleep(0.05)
    if child.returncode:
        sys.exit(f"prepare.py ended with {child.returncode}")
    folder = next(cache.glob("*/manifest.json")).parent
    return Prepared(time.perf_counter() - began, most / 2**20, folder)


def document_batches(corpus: Path) -> Iterator[list[str]]:
    """128 documents at once, row group by row group."""
    for path in sorted(corpus.glob("*.parquet")):
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            texts = file.read_row_group(group).column("text").to_pylist()
            for at in range(0, len(texts), 128):
                yield texts[at : at + 128]


def packed_batches(corpus: Path, tokenizer: tiktoken.Encoding, bos: int) -> Iterator[np.ndarray]:
    """Batches of int64 (ROWS, LENGTH + 1), packed by best fit from documents tokenised on the way."""
    source = document_batches(corpus)
    waiting: list[list[int]] = []
    while True:
        batch = np.empty((ROWS, LENGTH + 1), dtype=np.int64)
        for row in batch:
            at = 0
            while at < len(row):
                while len(waiting) < 1000:
                    for tokens in tokenizer.encode_ordinary_batch(next(source), num_threads=8):
                        tokens.insert(0, bos)
                        waiting.append(tokens)
                room = len(row) - at
                chosen, longest = -1, 0
                for index, tokens in enumerate(waiting):
                    if longest < len(tokens) <= room:
                        chosen, longest = index, len(tokens)
                if chosen < 0:
                    chosen = min(range(len(waiting)), key=lambda index: len(waiting[index]))
                tokens = waiting.pop(chosen)[:room]
                row[at : at + len(tokens)] = tokens
                at += len(tokens)
        yield batch


def in_turn(
    packing: Iterator[np.ndarray], gathering: Iterator[object], tokenizer: tiktoken.Encoding, bos: int, batches: int
) -> tuple[list[float], list[float], float]:
    """Seconds of each batch, packed and gathered in turn, and the megabytes of text that the packed ones hold."""
    next(packing), next(gathering)  # fill the buffer of waiting documents; map the file
    theirs, ours, size = [], [], 0
    for _ in range(batches):
        began = time.perf_counter()
        batch = next(packing)
        theirs.append(time.perf_counter() - began)
        began = time.perf_counter()
        next(gathering)
        ours.append(time.perf_counter() - began)
        size += len(tokenizer.decode_bytes(batch[batch != bos].tolist()))
    return theirs, ours, size / 1e6


if __name__ == "__main__":
    run(__doc__, measure)
