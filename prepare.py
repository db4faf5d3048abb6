"""The harness: corpus, tokenizer, batches and the score. Experiments change train.py, never this file.

    python prepare.py                      # a few seconds, once; the next call checks the cache and does nothing
    python prepare.py --corpus ~/my-texts  # the same for a folder of text files of your own

Three things here are for train.py: the constants; `ready()`, which starts the clock and gives the training
batches; and `hand_over(model, ...)`, which stops it, scores the model and prints the result.

Guaranteed: a cache is whole or absent, and every byte of it is checked before it is used. The same corpus and the
same bytes of this file give the same tokens and the same scored rows, whatever context or batch size train.py
uses. train, select and report share no document.

Not guaranteed: the score is computed in train.py's own process, so the printed number is a claim of that process.
Scores compare within one corpus and one version of this file only.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import fcntl
import hashlib
import json
import math
import os
import resource
import shutil
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import tiktoken
    import torch

CORPUS = "stdlib"  # "stdlib": the Python sources of this interpreter's standard library; else a folder of text files
VOCAB_SIZE = 512  # tokens, 257 to 65,536: 256 bytes, the learned merges, and BOS as the last
MAX_SEQ_LEN = 128  # tokens of context at evaluation; train.py may train at another length
TIME_BUDGET_S = 10.0  # seconds of training where NIGHTSHIFT_BUDGET_S does not say otherwise
EVAL_TOKENS = 65_536  # tokens scored, in whole rows of MAX_SEQ_LEN; all there are where the text is shorter
EVAL_BATCH_TOKENS = 4_096  # tokens scored at once; moves no score: memory, and on a CPU the cache, set it
OVERRUN_MAX = 0.05  # share of the budget that the last step may run over, and never less than OVERRUN_MIN_S
OVERRUN_MIN_S = 2.0  # seconds; a step takes well under one, so more than this means a deadline that was ignored

BOS = VOCAB_SIZE - 1  # stands before each document; 0 bytes long and never scored
PARTS = ("train", "select", "report")  # select decides what is kept, report is what people are shown
# A word, a short number or a run of signs, each with the one space before it; line ends with the blanks around them.
SPLIT_PATTERN = r" ?\p{L}+| ?\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+"
# Tests, bundled programs and other people's packages are not the library; `encodings` is character maps, too easy.
NOT_LIBRARY = frozenset(
    {"test", "tests", "idle_test", "idlelib", "lib2to3", "tkinter", "turtledemo", "ensurepip", "pydoc_data"}
    | {"site-packages", "encodings"}
)
STDLIB_MIN_CHARACTERS = 200


def setting(name: str, default: float, low: float) -> float:
    """
    Read *name* from the environment as a number of the type of *default*.

    Exits with a sentence if it is no finite number of at least *low*.
    """
    text = os.environ.get(name, "")
    if not text:
        return default
    with contextlib.suppress(ValueError):
        number = type(default)(text)
        if low <= number < math.inf:
            return number
    kind = "a whole number" if isinstance(default, int) else "a number"
    raise SystemExit(f"prepare.py: {name} is {text!r}: expected {kind} of at least {low:g}; set it so or unset it")


SEED = setting("NIGHTSHIFT_SEED", 42, low=0)  # of the weights and of the order of the batches
BUDGET_S = setting("NIGHTSHIFT_BUDGET_S", TIME_BUDGET_S, low=0.001)
MAX_STEPS = setting("NIGHTSHIFT_MAX_STEPS", 0, low=0)  # > 0: train.py ends after this many steps, clock or no clock
IMPORTED_AT = time.monotonic()  # total_seconds counts from here, as import time belongs to the machine


# ---------------------------------------------------------------- the corpus


@dataclass(frozen=True)
class Document:
    """One text file. *name* is its path below the corpus folder with "/" between, *sha256* that of its bytes."""

    name: str
    sha256: str

    @property
    def part(self) -> str:
        """The part it belongs to, by its name alone: 4 % select, 4 % report, 92 % train."""
        share = int(hashlib.sha256(name_bytes(self.name)).hexdigest(), 16) % 100
        return "select" if share < 4 else "report" if share < 8 else "train"


def name_bytes(text: str) -> bytes:
    """UTF-8, and the very bytes of a file name that is not."""
    return text.encode(errors="surrogateescape")


def corpus_folder(corpus: str) -> Path:
    """The folder that *corpus* ("stdlib" or a path) stands for. Exits with a sentence if it is not absolute."""
    if corpus == "stdlib":
        return Path(sysconfig.get_paths()["stdlib"])
    folder = Path(corpus).expanduser()
    if not folder.is_absolute():
        raise SystemExit(
            f"prepare.py: the corpus {corpus!r} is a relative path, and train.py runs in another folder: "
            "set CORPUS to an absolute path, to one that begins with ~, or to 'stdlib'"
        )
    return folder


def read_document(path: Path, corpus: str) -> bytes | None:
    """The bytes of a document, or None for what is none: no file, not UTF-8, empty, or too short for the library."""
    if not path.is_file():  # a link to nowhere, or a pipe, which would make us wait for ever
        return None
    raw = path.read_bytes()
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return None
    return raw if len(text) >= (STDLIB_MIN_CHARACTERS if corpus == "stdlib" else 1) else None


def survey(folder: Path, corpus: str) -> list[Document]:
    """
    Read all of the corpus once: its documents by name, each text once.

    A text that occurs again under another name is left out, so that none is both trained on and scored. Hidden
    files and folders are left out. Exits with a sentence if the folder is missing or a part would be empty.
    """
    if not folder.is_dir():
        raise SystemExit(
            f"prepare.py: the corpus folder {folder} does not exist: put UTF-8 text files there, one document each, "
            "or set CORPUS in prepare.py to a folder that has them, or to 'stdlib'"
        )
    ending = ".py" if corpus == "stdlib" else ""
    left_out = NOT_LIBRARY if corpus == "stdlib" else frozenset()
    paths = []
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in left_out and not name.startswith((".", "__pycache__"))]
        paths += [Path(here, name) for name in files if name.endswith(ending) and not name.startswith(".")]
    documents: dict[str, Document] = {}
    skipped = 0
    for name, path in sorted((path.relative_to(folder).as_posix(), path) for path in paths):
        raw = read_document(path, corpus)
        if raw is None:
            skipped += 1
            continue
        digest = hashlib.sha256(raw).hexdigest()
        documents.setdefault(digest, Document(name, digest))
    if skipped and corpus != "stdlib":
        say(f"{skipped} of {len(paths)} files are empty or no UTF-8 text and are left out")
    found = list(documents.values())
    for part in PARTS:
        if not any(document.part == part for document in found):
            raise SystemExit(
                f"prepare.py: none of the {len(found)} documents in {folder} falls into the part {part!r} (4 in 100 "
                "are scored, 4 reported): split the text into more files, one document each, 100 or more"
            )
    return found


# ---------------------------------------------------------------- the cache


def chosen_corpus() -> str:
    """NIGHTSHIFT_CORPUS, or the constant. Nightshift does not pass the variable on: a run's harness says it all."""
    return os.environ.get("NIGHTSHIFT_CORPUS") or CORPUS


def cache_root() -> Path:
    """NIGHTSHIFT_CACHE, or ~/.cache/nightshift."""
    return Path(os.environ.get("NIGHTSHIFT_CACHE") or "~/.cache/nightshift").expanduser().absolute()


def harness_hash() -> str:
    """The sha256 of this very file: with any change to it, scores no longer compare."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def pointer(root: Path, corpus: str) -> Path:
    """The small file that tells train.py which cache belongs to this harness and corpus, without reading the corpus."""
    name = name_bytes(f"{harness_hash()}\n{corpus}\n{corpus_folder(corpus)}")
    return root / "current" / hashlib.sha256(name).hexdigest()[:32]


def prepare(corpus: str, root: Path) -> Path:
    """
    Make sure that the cache of *corpus* is there and whole; build it if it is missing or damaged.

    Built in a folder of its own and renamed, under a lock that a second process waits for.

    Returns:
        The folder `<root>/<key>`, its key made of the corpus and of this file.
    """
    documents = survey(corpus_folder(corpus), corpus)
    contents = "".join(f"{document.sha256} {document.name}\n" for document in documents)
    key = hashlib.sha256(name_bytes(f"{harness_hash()}\n{contents}")).hexdigest()[:16]
    target = root / key
    (root / "current").mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists() and (fault := find_fault(target)):
            say(f"{target} is damaged ({fault}): building it again")
            shutil.rmtree(target)
        if not target.exists():
            for left_behind in root.glob("building-*"):  # by a process that was killed: we hold the lock
                shutil.rmtree(left_behind)
            building = root / f"building-{key}"
            build(documents, corpus, building)
            building.rename(target)
        staging = root / "current" / "staging"
        staging.write_text(key)
        staging.replace(pointer(root, corpus))
    return target


def build(documents: list[Document], corpus: str, target: Path) -> None:
    """Learn the tokenizer on the train part, then write tokenizer, tokens of each part and manifest to *target*."""
    import rustbpe  # noqa: PLC0415 - only a build needs it, train.py's machine may do without

    folder = corpus_folder(corpus)

    def text(document: Document) -> str:
        raw = read_document(folder / document.name, corpus)
        if raw is None or hashlib.sha256(raw).hexdigest() != document.sha256:
            raise SystemExit(
                f"prepare.py: {folder / document.name} changed while it was being read: run prepare.py again"
            )
        return raw.decode()

    for part in PARTS:
        (target / part).mkdir(parents=True)
    say(f"learning {VOCAB_SIZE} tokens from the train part of {len(documents)} documents in {folder}")
    learner = rustbpe.Tokenizer()
    training_texts = (text(document) for document in documents if document.part == "train")
    learner.train_from_iterator(training_texts, VOCAB_SIZE - 1, pattern=SPLIT_PATTERN)
    ranks = [base64.b64encode(bytes(token)).decode() for token, _ in learner.get_mergeable_ranks()]
    (target / "tokenizer.json").write_text(json.dumps({"pattern": SPLIT_PATTERN, "bos": BOS, "ranks": ranks}) + "\n")
    counts = write_tokens(documents, text, load_tokenizer(target), target)
    write_manifest(target, {"harness": harness_hash(), "parts": counts})


def write_tokens(
    documents: list[Document], text: Callable[[Document], str], tokenizer: tiktoken.Encoding, target: Path
) -> dict[str, dict[str, int]]:
    """Encode each document once, BOS first, as uint16 into its part's file. Returns the counts of each part."""
    counts = {part: {"documents": 0, "bytes": 0, "tokens": 0} for part in PARTS}
    with contextlib.ExitStack() as stack:
        files = {part: stack.enter_context((target / part / "tokens.bin").open("wb")) for part in PARTS}
        for done, document in enumerate(documents, start=1):
            content = text(document)
            tokens = np.array([BOS, *tokenizer.encode_ordinary(content)], dtype=np.uint16)
            files[document.part].write(tokens.tobytes())
            count = counts[document.part]
            count["documents"] += 1
            count["bytes"] += len(content.encode())
            count["tokens"] += len(tokens)
            if sys.stdout.isatty():
                print(f"\rencoding: {100 * done // len(documents)} %", end="", flush=True)
        if sys.stdout.isatty():
            print()
    for part, count in counts.items():
        if count["tokens"] <= MAX_SEQ_LEN:
            raise SystemExit(
                f"prepare.py: the part {part!r} has {count['tokens']} tokens, fewer than one row of {MAX_SEQ_LEN}: "
                "give it more text, or lower MAX_SEQ_LEN in prepare.py"
            )
    return counts


def load_tokenizer(folder: Path) -> tiktoken.Encoding:
    """The tokenizer of a cache. Its ranks are JSON, as loading a pickle would run whatever code was put in it."""
    import tiktoken  # noqa: PLC0415 - only building and looking at text need it

    ranks = {base64.b64decode(token): rank for rank, token in enumerate(_tokenizer_json(folder)["ranks"])}
    return tiktoken.Encoding("nightshift", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens={})


def token_lengths(folder: Path) -> np.ndarray:
    """
    The number of bytes that each token stands for, int64 (VOCAB_SIZE,). BOS and unused ids have 0.

    Of raw bytes: a token that is half a character, decoded to text, would count as a 3-byte replacement sign.
    """
    lengths = np.zeros(VOCAB_SIZE, dtype=np.int64)
    for rank, token in enumerate(_tokenizer_json(folder)["ranks"]):
        lengths[rank] = len(base64.b64decode(token))
    return lengths


def _tokenizer_json(folder: Path) -> dict:
    return json.loads((folder / "tokenizer.json").read_text())


def write_manifest(folder: Path, facts: dict) -> None:
    """Write manifest.json: *facts*, size and sha256 of every file in *folder*, and a sha256 over all that."""
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
    manifest = facts | {"files": files}
    digest = hashlib.sha256(canonical(manifest)).hexdigest()
    (folder / "manifest.json").write_bytes(canonical(manifest | {"sha256": digest}))


def read_manifest(folder: Path) -> dict | None:
    """The manifest of a cache, or None if one byte of it is not what `write_manifest` wrote."""
    try:
        written = (folder / "manifest.json").read_bytes()
        manifest = json.loads(written)
        digest = manifest.pop("sha256")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    whole = digest == hashlib.sha256(canonical(manifest)).hexdigest()
    return manifest if whole and written == canonical(manifest | {"sha256": digest}) else None


def find_fault(folder: Path, only: tuple[str, ...] = ()) -> str | None:
    """What is wrong with a cache, or None. *only* names the files to check; by default all (about 1 s per GB)."""
    manifest = read_manifest(folder)
    if manifest is None:
        return "manifest.json is missing or altered"
    for name, expected in manifest["files"].items():
        path = folder / name
        if only and name not in only:
            continue
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["bytes"] or file_sha256(path) != expected["sha256"]:
            return f"{name} is altered"
    return None


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical(value: dict) -> bytes:
    """One spelling for one value, so that bytes can be compared."""
    return (json.dumps(value, sort_keys=True, indent=1) + "\n").encode()


def open_tokens(folder: Path, part: str) -> np.ndarray:
    """All tokens of a part as a read-only memory map, uint16 (tokens,)."""
    return np.memmap(folder / part / "tokens.bin", dtype=np.uint16, mode="r")


# ---------------------------------------------------------------- training: ready() and hand_over()


@dataclass
class Session:
    """Where this process stands between `ready()` and `hand_over()`."""

    folder: Path | None = None  # None: not ready yet
    started_at: float = 0.0
    handed_over: bool = False


_session = Session()


@dataclass(frozen=True)
class Batches:
    """The training text. *tokens* is uint16 (tokens,)."""

    tokens: np.ndarray
    seed: int

    def stream(self, rows: int, length: int, device: str = "cpu") -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """
        Yield (inputs, targets) without end, both int64 (rows, length); targets are the inputs one token on.

        Rows begin anywhere and run on over BOS from one document into the next. One gather from the memory map
        takes 1 ms for 262,144 tokens; packing whole documents into rows takes 60 ms, while the clock runs.
        """
        import torch  # noqa: PLC0415 - costs a second, which a second call of prepare.py must not pay

        if length >= len(self.tokens):
            raise ValueError(f"rows of {length} tokens do not fit into {len(self.tokens)} training tokens")
        generator = np.random.default_rng(self.seed)
        offsets = np.arange(length + 1)
        while True:
            starts = generator.integers(0, len(self.tokens) - length, size=rows)
            window = torch.from_numpy(self.tokens[starts[:, None] + offsets].astype(np.int64))
            if device != "cpu":
                window = window.pin_memory().to(device, non_blocking=True)
            yield window[:, :-1].contiguous(), window[:, 1:].contiguous()


def ready() -> tuple[Batches, float]:
    """
    Start the clock: call it once, when the model is built, compiled and warm. No text can be had before.

    Returns:
        The training batches, and the deadline on the clock of `time.monotonic()`, in seconds.

    Raises:
        RuntimeError: If it is called a second time.
        SystemExit: With a sentence, if the cache is missing or damaged.
    """
    if _session.folder is not None:
        raise RuntimeError("ready() was called twice: the clock starts once")
    folder = current_cache()
    if fault := find_fault(folder, only=("tokenizer.json", "train/tokens.bin")):
        raise SystemExit(
            f"prepare.py: the cache {folder} is damaged ({fault}): run `python prepare.py` to build it again"
        )
    batches = Batches(open_tokens(folder, "train"), SEED)
    _session.folder = folder
    _session.started_at = time.monotonic()
    return batches, _session.started_at + BUDGET_S


def current_cache() -> Path:
    """The cache of this harness and its corpus. Exits with a sentence if there is none."""
    corpus = chosen_corpus()
    root = cache_root()
    with contextlib.suppress(OSError, UnicodeDecodeError):
        folder = root / pointer(root, corpus).read_text()
        if folder.is_dir():
            return folder
    raise SystemExit(
        f"prepare.py: no prepared corpus {corpus!r} in {root} for this prepare.py: run `python prepare.py` first"
    )


def hand_over(
    model: torch.nn.Module, *, total_tokens: int, num_steps: int, num_params: int, depth: int, mfu_percent: float
) -> None:
    """
    Stop the clock, score *model* on the select rows and print the one result block.

    Args:
        model: Called as model(inputs) with int64 (rows, MAX_SEQ_LEN), must return logits (rows, MAX_SEQ_LEN,
            VOCAB_SIZE), each position from the tokens up to it. Targets are never shown to it.
        total_tokens: Tokens trained on, repeats counted.
        mfu_percent: Share of an H100's 989.5 TFLOP/s (bfloat16, dense) that the training used.

    Raises:
        RuntimeError: If `ready()` was not called, this is the second call, or the logits have a wrong shape.
        SystemExit: With a sentence, if the deadline was ignored, the rows are damaged, or the score is not finite.
    """
    folder = _session.folder
    if folder is None:
        raise RuntimeError("hand_over() was called before ready(): there is nothing trained to score")
    if _session.handed_over:
        raise RuntimeError("hand_over() was called twice: a run has one score")
    _session.handed_over = True
    import torch  # noqa: PLC0415 - see Batches.stream

    if torch.cuda.is_available():
        torch.cuda.synchronize()  # queued work is training time too
    training_seconds = time.monotonic() - _session.started_at
    if not MAX_STEPS and training_seconds > BUDGET_S + max(OVERRUN_MIN_S, OVERRUN_MAX * BUDGET_S):
        raise SystemExit(
            f"\nprepare.py: no score: train.py trained for {training_seconds:.1f} s of {BUDGET_S:g} s; "
            "it must look at the deadline that ready() returned before each step"
        )
    if fault := find_fault(folder, only=("tokenizer.json", "select/tokens.bin")):
        raise SystemExit(f"\nprepare.py: no score: the cache {folder} is damaged ({fault}): run `python prepare.py`")
    score = bits_per_byte(*sum_of_nats(model, open_tokens(folder, "select"), token_lengths(folder)))
    if not math.isfinite(score):
        print("\nprepare.py: no score: the model's output is not finite\nFAIL", flush=True)
        raise SystemExit(1)
    block = {
        "val_bpb": f"{score:.6f}",
        "training_seconds": f"{training_seconds:.1f}",
        "total_seconds": f"{time.monotonic() - IMPORTED_AT:.1f}",
        "peak_vram_mb": f"{peak_memory_mb():.1f}",
        "mfu_percent": f"{mfu_percent:.2f}",
        "total_tokens_M": f"{total_tokens / 1e6:.1f}",
        "num_steps": f"{num_steps:d}",
        "num_params_M": f"{num_params / 1e6:.1f}",
        "depth": f"{depth:d}",
    }
    print("\n---")  # the line of progress before it has no end of its own
    for key, value in block.items():
        print(f"{key + ':':<18}{value}", flush=True)


def evaluation_rows(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows that are scored: (inputs, targets), int64 (rows, MAX_SEQ_LEN), spread evenly over all of *tokens*."""
    rows = min(EVAL_TOKENS // MAX_SEQ_LEN, (len(tokens) - 1) // MAX_SEQ_LEN)
    starts = np.linspace(0, len(tokens) - 1 - MAX_SEQ_LEN, rows).astype(np.int64)  # at least MAX_SEQ_LEN apart
    windows = tokens[starts[:, None] + np.arange(MAX_SEQ_LEN + 1)].astype(np.int64)
    return windows[:, :-1], windows[:, 1:]


def sum_of_nats(model: torch.nn.Module, tokens: np.ndarray, lengths: np.ndarray) -> tuple[float, int]:
    """
    Score *model* on the rows of *tokens*, uint16 (tokens,), whose lengths in bytes are int64 (VOCAB_SIZE,).

    Returns:
        The sum of -ln p(target) over all scored targets, and the sum of their bytes. Targets of 0 bytes are in
        neither. The log-softmax is ours, in float32; sums are in float64.
    """
    import torch  # noqa: PLC0415 - see Batches.stream

    device = next(model.parameters()).device
    inputs, targets = (torch.from_numpy(array) for array in evaluation_rows(tokens))
    scored = torch.from_numpy(lengths)[targets]
    rows_at_once = max(1, EVAL_BATCH_TOKENS // MAX_SEQ_LEN)
    nats = 0.0
    model.eval()
    with torch.no_grad():
        for at in range(0, len(inputs), rows_at_once):
            rows = slice(at, at + rows_at_once)
            logits = model(inputs[rows].to(device))
            if logits.shape != (*inputs[rows].shape, VOCAB_SIZE):
                raise RuntimeError(
                    f"model(inputs) returned {tuple(logits.shape)}, expected {(*inputs[rows].shape, VOCAB_SIZE)}"
                )
            losses = torch.nn.functional.cross_entropy(
                logits.float().flatten(0, 1), targets[rows].to(device).flatten(), reduction="none"
            )
            nats += losses[scored[rows].flatten().to(device) > 0].double().sum().item()
    return nats, int(scored.sum())


def bits_per_byte(nats: float, n_bytes: int) -> float:
    """
    Turn a summed cross-entropy into bits per byte, nats / (ln 2 * n_bytes). Lower is better.

    Comparable whatever the tokenizer, as the bytes of a text do not depend on how it is cut.
    """
    return nats / (math.log(2) * n_bytes)


def peak_memory_mb() -> float:
    """The most memory this process has held, in MiB: of the GPU if there is one, else resident memory."""
    import torch  # noqa: PLC0415 - see Batches.stream

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    with contextlib.suppress(OSError):  # Linux; unlike getrusage, it does not count what our parent held before exec
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


# ---------------------------------------------------------------- the command line


def say(line: str) -> None:
    """One line to the person who waits."""
    print(line, flush=True)


def main() -> None:
    """Prepare the corpus that the command line, the environment or CORPUS names, in this order."""
    parser = argparse.ArgumentParser(description="Prepare corpus and tokenizer for train.py, once.")
    parser.add_argument("--corpus", metavar="stdlib|PATH", help=f"the text to train on (default: CORPUS, now {CORPUS})")
    parser.add_argument(
        "--cache", metavar="DIR", help="where it is kept (default: NIGHTSHIFT_CACHE or ~/.cache/nightshift)"
    )
    asked = parser.parse_args()
    if not 257 <= VOCAB_SIZE <= 65_536 or MAX_SEQ_LEN < 1 or EVAL_TOKENS < MAX_SEQ_LEN:
        raise SystemExit(
            f"prepare.py: VOCAB_SIZE = {VOCAB_SIZE} must lie between 257 and 65536, MAX_SEQ_LEN = {MAX_SEQ_LEN} be at "
            f"least 1, EVAL_TOKENS = {EVAL_TOKENS} at least MAX_SEQ_LEN: correct the constants at the top of prepare.py"
        )
    default, corpus = chosen_corpus(), chosen_corpus()
    if asked.corpus:
        corpus = "stdlib" if asked.corpus == "stdlib" else str(Path(asked.corpus).expanduser().absolute())
    root = Path(asked.cache).expanduser().absolute() if asked.cache else cache_root()
    try:
        folder = prepare(corpus, root)
    except OSError as error:
        raise SystemExit(
            f"prepare.py: {error}: mend that, or choose other folders with --corpus and --cache"
        ) from error
    counts = read_manifest(folder)["parts"]
    per_token = counts["train"]["bytes"] / counts["train"]["tokens"]
    sizes = ", ".join(f"{count['tokens']:,} {part}" for part, count in counts.items())
    if corpus != default:
        say(f"a run trains on CORPUS of prepare.py, {CORPUS!r}; a bare `python train.py` on NIGHTSHIFT_CORPUS={corpus}")
    if root != cache_root():
        say(f"train.py finds this cache with NIGHTSHIFT_CACHE={root}")
    say(f"ready: {sizes} tokens of {per_token:.2f} bytes, in {folder}")


if __name__ == "__main__":
    main()
