"""The harness: corpus, tokenizer, batches and the score. Experiments change train.py, never this file.

    python prepare.py                      # a few seconds, once; the next call checks the cache and does nothing
    python prepare.py --corpus ~/my-texts  # a folder of your own: text files, JSONL or parquet
    python prepare.py --corpus climbmix    # web text by download, about 100 MB for each shard

Three things here are for train.py: the constants; `ready()`, which starts the clock and gives the training
batches; and `hand_over(model, ...)`, which stops it, scores the model and prints the result. Nightshift scores by
itself: there the text comes only when the clock starts, and what is handed over is the model, not a number.

Guaranteed: a cache is whole or absent, and every byte of it is checked before it is used. The same corpus and the
same bytes of this file give the same tokens and the same scored rows, whatever context or batch size train.py
uses and however many workers encode. train, select and report share no document. Memory stays flat: a corpus may
be larger than memory, one record of it may not.

Not guaranteed: without Nightshift the score is computed in train.py's own process, so the printed number is a claim
of that process.
Scores compare within one corpus and one version of this file only. climbmix keeps its last shard for scoring, as the
field does, and nothing looks for texts of that shard in the others.
"""

from __future__ import annotations

import argparse
import base64
import codecs
import contextlib
import fcntl
import functools
import hashlib
import json
import math
import mmap
import os
import resource
import shutil
import socket
import sys
import sysconfig
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import http.client
    import threading
    from collections.abc import Iterable, Iterator
    from multiprocessing.connection import Connection

    import pyarrow.parquet
    import tiktoken
    import torch

CORPUS = "stdlib"  # "stdlib": the Python sources of this interpreter's standard library; "climbmix"; else a folder
SHARDS = 10  # of climbmix to train on, where the corpus does not say it as "climbmix:20"; one more is for scoring
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
# Blanks are counted: the engine keeps a way back for each one of a run, and gives up on a million.
SPLIT_PATTERN = r" ?\p{L}+| ?\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s{0,99}[\r\n]+|\s{1,99}(?!\S)|\s{1,99}"
# Tests, bundled programs and other people's packages are not the library; `encodings` is character maps, too easy.
NOT_LIBRARY = frozenset(
    {"test", "tests", "idle_test", "idlelib", "lib2to3", "tkinter", "turtledemo", "ensurepip", "pydoc_data"}
    | {"site-packages", "encodings"}
)
STDLIB_MIN_CHARACTERS = 200
# Held out for scoring: by name, so that a sandbox can hide them from a training, and none that a training imports. Each
# interpreter has most of them.
STDLIB_HELD_OUT = frozenset(
    {"aifc.py", "cgi.py", "cgitb.py", "chunk.py", "crypt.py", "dbm", "doctest.py", "filecmp.py", "ftplib.py"}
    | {"imaplib.py", "imghdr.py", "mailbox.py", "mailcap.py", "modulefinder.py", "netrc.py", "nntplib.py", "pipes.py"}
    | {"poplib.py", "pyclbr.py", "pydoc.py", "rlcompleter.py", "sched.py", "shelve.py", "smtpd.py", "smtplib.py"}
    | {"sndhdr.py", "sunau.py", "tabnanny.py", "telnetlib.py", "trace.py", "turtle.py", "uu.py", "venv", "wave.py"}
    | {"webbrowser.py", "wsgiref", "xdrlib.py", "xmlrpc", "zipapp.py"}
)

RECORD_ENDINGS = (".jsonl", ".parquet")  # files of many documents, each the text in its field TEXT_FIELD
TEXT_FIELD = "text"
TOKENIZER_BYTES = 250_000_000  # of text that the tokenizer is learned on, spread evenly over a longer corpus
UNIT_BYTES = 8_000_000  # of text or JSONL that a worker takes at once
PIECE_BYTES = 1_000_000  # of a text encoded at once; a longer one is cut between lines, which cuts no token
WORKERS_FROM_BYTES = 32_000_000  # a smaller corpus is encoded before a second process has started

CLIMBMIX_URL = "https://huggingface.co/datasets/karpathy/climbmix-400b-shuffle/resolve/main"
LAST_SHARD = 6542  # kept for scoring
SHARD_BYTES_MAX = 4_000_000_000  # a server that promises more is not the one we know
DOWNLOADS_AT_ONCE = 4
DOWNLOAD_ATTEMPTS = 6  # for each shard, each going on where the last one stopped
DOWNLOAD_STALL_S = 30.0  # without SLOWEST_BYTES in this time, a connection is given up
DOWNLOAD_WAIT_S = 0.5  # before the second attempt, doubled before each further one
SLOWEST_BYTES = 65_536


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

TRUSTED_OPERATORS = ("nightshift::window_attention",)  # our own kernels, which a model that is handed over may use
GATE = os.environ.get(
    "NIGHTSHIFT_GATE", ""
)  # number of a socket: the training text comes through it, when we are ready
HAND_OVER = os.environ.get("NIGHTSHIFT_HAND_OVER", "")  # the folder for the trained model, which others score


# ---------------------------------------------------------------- the corpus: what is read, and in which order


@dataclass(frozen=True, slots=True)
class Document:
    """One text file. *name* is its path below the corpus folder with "/" between; *sha256* and *size* of its bytes."""

    name: str
    sha256: str
    size: int
    held_out: bool | None = None  # as in Unit

    @property
    def part(self) -> str:
        """The part it belongs to, by its name alone."""
        return part_of(name_bytes(self.name), self.held_out)


@dataclass(frozen=True, slots=True)
class Unit:
    """A stretch of the corpus that is encoded at once: some text files, or some lines or rows of one file."""

    path: Path  # the folder of the documents, or the one file
    size: int  # bytes, about
    documents: tuple[Document, ...] = ()
    lines: tuple[int, int] | None = None  # those that begin in these bytes of a JSONL file
    row_group: int | None = None  # of a parquet file
    stamp: tuple[int, int] | None = None  # bytes and time of change of that one file, from before it was read
    held_out: bool | None = None  # True: all for select and report; False: all for train


@dataclass(frozen=True, slots=True)
class Corpus:
    """
    What there is to read, in order. *contents* names each file with its sha256: which text this is.

    It lies in *folder*, all of which a sealed training must not see; or of it only the files *hidden*.
    """

    units: list[Unit]
    contents: str
    folder: Path
    hidden: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes, about."""
        return sum(unit.size for unit in self.units)


def part_of(identity: bytes, held_out: bool | None = None) -> str:
    """By the hash of *identity*: 4 % select, 4 % report, 92 % train; of a held-out file one half and the other."""
    if held_out is False:
        return "train"
    share = int(hashlib.sha256(identity).hexdigest(), 16) % 100
    if held_out:
        return "select" if share < 50 else "report"
    return "select" if share < 4 else "report" if share < 8 else "train"


def name_bytes(text: str) -> bytes:
    """UTF-8, and the very bytes of a file name that is not."""
    return text.encode(errors="surrogateescape")


def shards_of(corpus: str) -> int:
    """How many shards "climbmix" (SHARDS) or "climbmix:N" asks for; 0: it is another corpus. Exits on a wrong N."""
    name, _, number = corpus.partition(":")
    if name != "climbmix":
        return 0
    shards = int(number) if number.isdecimal() else -1 if number else SHARDS
    if not 1 <= shards <= LAST_SHARD:
        raise SystemExit(f"prepare.py: the corpus {corpus!r}: climbmix has 1 to {LAST_SHARD} shards to train on")
    return shards


def corpus_folder(corpus: str, root: Path) -> Path:
    """The folder of *corpus*, for climbmix below the cache *root*. Exits with a sentence if it is not absolute."""
    if corpus == "stdlib":
        return Path(sysconfig.get_paths()["stdlib"])
    if shards_of(corpus):
        return root / "climbmix"
    folder = Path(corpus).expanduser()
    if not folder.is_absolute():
        raise SystemExit(
            f"prepare.py: the corpus {corpus!r} is a relative path, and train.py runs in another folder: "
            "set CORPUS to an absolute path, to one that begins with ~, to 'stdlib' or to 'climbmix'"
        )
    return folder


def survey(corpus: str, root: Path) -> Corpus:
    """
    Read all of the corpus once, after downloading what is missing of climbmix.

    A folder with JSONL or parquet files is one of records, and nothing else in it is read; any other is one of text
    files. Hidden files and folders are left out. Exits with a sentence if the folder is missing or has no text.
    """
    folder = corpus_folder(corpus, root)
    if shards := shards_of(corpus):
        return survey_records(folder, fetch(shards, folder), held_out=shard_name(LAST_SHARD))
    if not folder.is_dir():
        raise SystemExit(
            f"prepare.py: the corpus folder {folder} does not exist: put UTF-8 text files there, one document each, "
            "or JSONL or parquet, or set CORPUS in prepare.py to a folder that has them, to 'stdlib' or to 'climbmix'"
        )
    left_out = NOT_LIBRARY if corpus == "stdlib" else frozenset()
    paths = []
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in left_out and not name.startswith((".", "__pycache__"))]
        paths += [Path(here, name) for name in files if not name.startswith(".")]
    names = sorted(path.relative_to(folder).as_posix() for path in paths)
    if corpus == "stdlib":
        names = [name for name in names if name.endswith(".py")]
        return survey_texts(folder, names, STDLIB_MIN_CHARACTERS, held_out=STDLIB_HELD_OUT)
    records = [name for name in names if name.endswith(RECORD_ENDINGS) and (folder / name).is_file()]
    if not records:
        return survey_texts(folder, names, min_characters=1)
    if others := len(names) - len(records):
        say(f"{others} files beside {len(records)} of JSONL or parquet are left out")
    return survey_records(folder, dict.fromkeys(records))


def survey_texts(folder: Path, names: list[str], min_characters: int, held_out: frozenset[str] | None = None) -> Corpus:
    """
    The text files of a folder, in units of about UNIT_BYTES.

    A text that occurs again under another name is left out, so that none is both trained on and scored.

    Args:
        held_out: The files and folders that alone go to select and report, all others to train. None: by their hash.
    """
    found: dict[str, Document] = {}
    skipped = 0
    for name in names:
        document = look_at(folder, name, min_characters)
        if document is None:
            skipped += 1
            continue
        if held_out is not None:
            document = replace(document, held_out=name.partition("/")[0] in held_out)
        found.setdefault(document.sha256, document)
    if skipped and min_characters == 1:
        say(f"{skipped} of {len(names)} files are empty or no UTF-8 text and are left out")
    for part in PARTS:
        if not any(document.part == part for document in found.values()):
            raise SystemExit(
                f"prepare.py: none of the {len(found)} documents in {folder} falls into the part {part!r} (4 in "
                "100 are scored, 4 reported): split the text into more files, one document each, 100 or more"
            )
    units: list[Unit] = []
    batch: list[Document] = []
    size = 0
    for number, document in enumerate(found.values(), start=1):
        batch.append(document)
        size += document.size
        if size >= UNIT_BYTES or number == len(found):
            units.append(Unit(folder, size, documents=tuple(batch)))
            batch, size = [], 0
    contents = "".join(f"{document.sha256} {document.name}\n" for document in found.values())
    return Corpus(units, contents, folder, tuple(document.name for document in found.values() if document.held_out))


def survey_records(folder: Path, files: dict[str, str | None], held_out: str | None = None) -> Corpus:
    """
    JSONL and parquet files of a folder: stretches of lines, and row groups.

    Each record is a document. Its text decides its part, so that equal texts are in one part.

    Args:
        files: By name the sha256, or None where it is not known yet.
        held_out: The file that alone goes to select and report, all others to train. None: no such file.
    """
    units: list[Unit] = []
    contents = ""
    for name, known in sorted(files.items()):
        path = folder / name
        stamp = stamp_of(path)
        contents += f"{known or file_sha256(path)} {name}\n"
        unit = functools.partial(Unit, path, stamp=stamp, held_out=None if held_out is None else name == held_out)
        if name.endswith(".jsonl"):
            starts = range(0, stamp[0], UNIT_BYTES)
            units += [unit(min(UNIT_BYTES, stamp[0] - at), lines=(at, at + UNIT_BYTES)) for at in starts]
        else:
            facts = open_parquet(path).metadata
            units += [unit(facts.row_group(at).total_byte_size, row_group=at) for at in range(facts.num_row_groups)]
    return Corpus(units, contents, folder)


def stamp_of(path: Path) -> tuple[int, int]:
    """What moves when a file is changed: its size in bytes and its time of change in nanoseconds."""
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns


def look_at(folder: Path, name: str, min_characters: int) -> Document | None:
    """Read a text file once. None for what is no document: no file, not UTF-8, or fewer than *min_characters*."""
    if not (folder / name).is_file():  # a link to nowhere, or a pipe, which would make us wait for ever
        return None
    digest = hashlib.sha256()
    size = characters = 0
    try:
        for raw, text in blocks_of(folder / name):
            digest.update(raw)
            size += len(raw)
            characters += len(text)
    except UnicodeDecodeError:
        return None
    return Document(name, digest.hexdigest(), size) if characters >= min_characters else None


def blocks_of(path: Path) -> Iterator[tuple[bytes, str]]:
    """A UTF-8 file in blocks of PIECE_BYTES: the bytes, and the text that they complete."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        while raw := file.read(PIECE_BYTES):
            yield raw, decoder.decode(raw)
    decoder.decode(b"", final=True)  # half a character at the end is an error as well


# ---------------------------------------------------------------- the corpus: reading a unit


def documents_of(unit: Unit) -> Iterator[tuple[str, Iterable[str]]]:
    """
    The documents of a unit: part, and text in one piece or several. Part "" is a record without text, to be left out.

    Exits with a sentence if a file is not what it was in `survey`, or not what its name says.
    """
    if unit.documents:
        for document in unit.documents:
            yield document.part, document_text(unit.path, document)
        return
    for text in lines_of(unit.path, *unit.lines) if unit.lines else rows_of(unit.path, unit.row_group or 0):
        try:
            raw = text.encode()
        except UnicodeEncodeError:  # half of a pair of surrogates, which JSON can spell and UTF-8 cannot
            raw = b""
        slices = (text[at : at + PIECE_BYTES] for at in range(0, len(text), PIECE_BYTES))
        yield part_of(raw, unit.held_out) if raw else "", slices
    if stamp_of(unit.path) != unit.stamp:
        raise SystemExit(changed(unit.path))


def document_text(folder: Path, document: Document) -> Iterator[str]:
    """The text of one file, block by block. Exits with a sentence if it is not the one that was surveyed."""
    digest = hashlib.sha256()
    path = folder / document.name
    try:
        for raw, text in blocks_of(path):
            digest.update(raw)
            yield text
    except UnicodeDecodeError:
        raise SystemExit(changed(path)) from None
    if digest.hexdigest() != document.sha256:
        raise SystemExit(changed(path))


def changed(path: Path) -> str:
    """What is said of a file that does not hold still."""
    return f"prepare.py: {path} changed while it was being read: run prepare.py again"


def lines_of(path: Path, start: int, end: int) -> Iterator[str]:
    """The texts of the lines that begin in the bytes *start* to *end* of a JSONL file. Blank lines are skipped."""
    with path.open("rb") as file:
        at = max(0, start - 1)
        file.seek(at)
        if start:  # the line that is under way belongs to the stretch before; one that begins just here is ours
            at += len(file.readline())
        while at < end and (line := file.readline()):
            try:
                record = json.loads(line) if line.strip() else None
                if record is not None:
                    yield text_in(record)
            except (ValueError, TypeError, KeyError) as error:
                raise SystemExit(
                    f"prepare.py: {path}, the line that begins at byte {at}: expected a JSON object with a string "
                    f"{TEXT_FIELD!r} ({type(error).__name__}: {str(error)[:100]}): correct the line or take it out"
                ) from None
            at += len(line)


def text_in(record: dict[str, object]) -> str:
    """The text of one record; null is none. Raises TypeError or KeyError for anything else."""
    text = record[TEXT_FIELD]
    if not isinstance(text, str | None):
        raise TypeError(f"{TEXT_FIELD!r} is a {type(text).__name__}")
    return text or ""


def rows_of(path: Path, row_group: int) -> Iterator[str]:
    """The texts of a row group of a parquet file; null is an empty one."""
    try:
        batches = last_parquet(path).iter_batches(64, [row_group], columns=[TEXT_FIELD], use_threads=False)
        for batch in batches:
            for text in batch.column(0).to_pylist():
                yield text or ""
    except (ValueError, OSError) as error:  # pyarrow's own are among them
        raise SystemExit(f"prepare.py: {path}, row group {row_group}, cannot be read: {error}") from None


def open_parquet(path: Path) -> pyarrow.parquet.ParquetFile:
    """A parquet file that has a column of text. Exits with a sentence if it has none, or is no parquet file."""
    try:
        import pyarrow  # noqa: PLC0415 - an extra: text and JSONL do without
        import pyarrow.parquet  # noqa: PLC0415
    except ModuleNotFoundError:
        raise SystemExit(
            "prepare.py: reading parquet takes pyarrow, which is not installed: run `pip install 'nightshift[data]'`, "
            "or give the text as JSONL"
        ) from None
    try:
        file = pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=PIECE_BYTES)
    except (ValueError, OSError) as error:
        raise SystemExit(f"prepare.py: {path} is no whole parquet file: {error}") from None
    columns = {column.name: column.type for column in file.schema_arrow}
    kind = columns.get(TEXT_FIELD)
    if kind is None or not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
        raise SystemExit(
            f"prepare.py: {path} has no column {TEXT_FIELD!r} of strings, only {', '.join(map(str, columns))[:200]}: "
            "rename the column that has the text, or set TEXT_FIELD in prepare.py"
        )
    return file


last_parquet = functools.lru_cache(maxsize=1)(open_parquet)  # a file has many row groups, one after the other


def cut_after_lines(blocks: Iterable[str]) -> Iterator[str]:
    """
    The same text in pieces, one for each block, cut where a line begins with a sign: no token spans that.

    A block that has no such line is cut at its end.
    """
    pending = ""
    for block in blocks:
        if pending:
            cut = pending.rfind("\n") + 1
            while cut and (cut == len(pending) or pending[cut].isspace()):
                cut = pending.rfind("\n", 0, cut - 1) + 1
            yield pending[: cut or len(pending)]
            pending = pending[cut or len(pending) :]
        pending += block
    yield pending


# ---------------------------------------------------------------- climbmix: shards by download


def shard_name(number: int) -> str:
    """As upstream names them."""
    return f"shard_{number:05d}.parquet"


def fetch(shards: int, folder: Path) -> dict[str, str | None]:
    """
    Make sure that the first *shards* shards of climbmix and the last one are in *folder*, and whole.

    Returns:
        By file name the sha256.
    """
    from concurrent.futures import ThreadPoolExecutor, as_completed  # noqa: PLC0415 - only this corpus needs it
    from threading import Event  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        names = [shard_name(number) for number in (*range(shards), LAST_SHARD)]
        digests: dict[str, str | None] = {name: digest for name in names if (digest := checked(folder / name))}
        missing = [name for name in names if name not in digests]
        if not missing:
            return digests
        say(f"climbmix: {len(missing)} of {len(names)} shards to download, to {folder}")
        stop = Event()
        with Bar("downloading") as bar, ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
            under_way = {pool.submit(download, name, folder, bar, stop): name for name in missing}
            try:
                for done in as_completed(under_way):
                    digests[under_way[done]] = done.result()
                    bar.say(f"{under_way[done]} is whole: {len(digests)} of {len(names)}")
            finally:  # also after one that failed, and Ctrl-C: what has come so far is kept
                stop.set()
                pool.shutdown(cancel_futures=True)
    return digests


def checked(path: Path) -> str | None:
    """
    The sha256 of a shard that is there and whole, else None; a damaged one is removed.

    It is compared with the sha256 written beside it when it came. A file that a person put there has none, and counts
    as whole if it is a parquet file.
    """
    if not path.is_file():
        return None
    digest = file_sha256(path)
    beside = path.with_suffix(".sha256")
    if not beside.is_file():
        open_parquet(path)
        beside.write_text(digest)
    if beside.read_text() == digest:
        return digest
    say(f"{path} is damaged: downloading it again")
    path.unlink()
    return None


class Damaged(ConnectionError):
    """What came is not what was promised."""


def download(name: str, folder: Path, bar: Bar, stop: threading.Event) -> str:
    """Download one shard, in several attempts if need be; its sha256. Exits with a sentence if it cannot be had."""
    import http.client  # noqa: PLC0415
    import urllib.error  # noqa: PLC0415

    url = f"{os.environ.get('NIGHTSHIFT_CLIMBMIX_URL') or CLIMBMIX_URL}/{name}"
    wait_s = DOWNLOAD_WAIT_S
    for attempt in range(1, DOWNLOAD_ATTEMPTS + 1):
        try:
            return attempt_download(url, folder / name, bar, stop)
        except urllib.error.HTTPError as error:
            why = f"the server answered {error.code} {error.reason}"
            if error.code < 500 and error.code not in {408, 416, 425, 429}:
                break  # asking again will not help
            asked = error.headers.get("Retry-After", "")
            wait_s = max(wait_s, min(60.0, float(asked))) if asked.isdecimal() else wait_s
        except urllib.error.URLError as error:
            why = f"no connection: {error.reason}"
        except (ConnectionError, TimeoutError, http.client.HTTPException) as error:
            why = str(error) or type(error).__name__
        if stop.is_set() or attempt == DOWNLOAD_ATTEMPTS:
            break
        bar.say(f"{name}: {why}; trying again in {wait_s:g} s")
        stop.wait(wait_s)
        wait_s *= 2
    raise SystemExit(
        f"prepare.py: {url} could not be downloaded, attempt {attempt} of {DOWNLOAD_ATTEMPTS}: {why}. Run prepare.py "
        f"again when that is mended, it goes on where it stopped; or put the file into {folder}; or train on a folder "
        "of your own with --corpus PATH"
    )


def attempt_download(url: str, target: Path, bar: Bar, stop: threading.Event) -> str:
    """
    One attempt; the sha256 of the file. What has come is kept in `<file>.<tag>.part`, where the next attempt goes on.

    Whole is what has the promised length and the promised sha256 or, where a server promises none, is a parquet file.
    Raises OSError or HTTPException if it did not come whole.
    """
    import urllib.error  # noqa: PLC0415
    import urllib.request  # noqa: PLC0415

    begun = min(target.parent.glob(f"{target.name}.*.part"), default=None)
    request = urllib.request.Request(url, headers={"User-Agent": "nightshift", "Accept-Encoding": "identity"})
    if begun:
        request.add_header("Range", f"bytes={begun.stat().st_size}-")
    first_answer: dict[str, str] = {}

    class Redirects(urllib.request.HTTPRedirectHandler):
        """Keeps what Hugging Face says of a file when it sends us to where the file lies."""

        def redirect_request(self, *words):  # urllib's
            first_answer.update({key.lower(): value for key, value in words[4].items()})
            return super().redirect_request(*words)

    try:
        answer = urllib.request.build_opener(Redirects).open(request, timeout=DOWNLOAD_STALL_S)
    except urllib.error.HTTPError as error:
        if error.code == 416 and begun:  # it is no longer than what we have
            begun.unlink()
        raise
    with answer:
        headers = {key.lower(): value for key, value in answer.headers.items()}
        sha256 = (headers | first_answer).get("x-linked-etag", "").strip('"').lower()
        tag = sha256 or headers.get("etag", "")
        part = target.with_name(f"{target.name}.{hashlib.sha256(tag.encode()).hexdigest()[:16]}.part")
        if begun and not (tag and answer.status == 206 and begun == part):  # not what we asked for: from the start
            begun.unlink()
            if answer.status == 206:
                raise Damaged("the file on the server is another one now")
        total = promised_bytes(headers, first_answer, already=part.stat().st_size if part.exists() else 0)
        receive(answer, part, total, bar, stop)
    digest = file_sha256(part)
    try:
        if sha256 and digest != sha256:
            raise Damaged(f"it arrived damaged: its sha256 begins with {digest[:12]}, that promised with {sha256[:12]}")
        open_parquet(part)
    except (Damaged, SystemExit) as error:
        part.unlink()
        raise Damaged(str(error)) from None
    target.with_suffix(".sha256").write_text(digest)
    part.replace(target)
    return digest


def promised_bytes(headers: dict[str, str], first_answer: dict[str, str], already: int) -> int:
    """The length of the whole file, bytes. Raises Damaged if the answers do not say it, or contradict each other."""
    promised = headers.get("content-length", "")
    if "content-range" in headers:  # bytes 100-299/300
        span, _, promised = headers["content-range"].partition("/")
        if not span.startswith(f"bytes {already}-"):
            raise Damaged(f"the server sent {span} and was asked for those from {already}")
    linked = first_answer.get("x-linked-size", promised)
    if promised != linked or not promised.isdecimal() or int(promised) > SHARD_BYTES_MAX:
        raise Damaged(f"the server promises {promised or 'no'} bytes and {linked or 'no'} bytes, which cannot be")
    return int(promised)


def receive(answer: http.client.HTTPResponse, part: Path, total: int, bar: Bar, stop: threading.Event) -> None:
    """Append what comes to *part* until it has *total* bytes. Raises ConnectionError if it ends or stalls before."""
    import http.client  # noqa: PLC0415

    with part.open("ab") as file:
        size = file.tell()
        since, had = time.monotonic(), size
        while size < total:
            try:
                block = answer.read1(1 << 18)
            except (OSError, http.client.HTTPException) as error:
                raise ConnectionError(f"after {size:,} of {total:,} bytes: {error}") from None
            if not block:
                raise ConnectionError(f"the connection ended after {size:,} of {total:,} bytes")
            size += file.write(block)
            file.flush()  # what has come is kept, even if we are killed
            bar.at(part.name, size, total)
            if time.monotonic() - since > DOWNLOAD_STALL_S:
                if size - had < SLOWEST_BYTES:
                    raise ConnectionError(f"{size - had:,} bytes in {DOWNLOAD_STALL_S:g} s is no progress")
                since, had = time.monotonic(), size
            if stop.is_set():
                raise ConnectionError("stopped")
        os.fsync(file.fileno())


# ---------------------------------------------------------------- encoding, on several cores


@dataclass(slots=True)
class Encoded:
    """Tokens of a unit, or of a part of it. What a worker sends."""

    tokens: dict[str, bytearray] = field(default_factory=lambda: {part: bytearray() for part in PARTS})  # uint16
    documents: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)  # of text
    left_out: int = 0  # records without text
    last: bool = False  # of its unit


def encode(unit: Unit, tokenizer: tiktoken.Encoding) -> Iterator[Encoded]:
    """Encode each document of a unit once, BOS first."""
    encoded = Encoded()
    for part, blocks in documents_of(unit):
        if not part:
            encoded.left_out += 1
            continue
        encoded.documents[part] += 1
        encoded.tokens[part] += np.uint16(BOS).tobytes()
        for piece in cut_after_lines(blocks):
            encoded.tokens[part] += np.array(tokenizer.encode_ordinary(piece), dtype=np.uint16).tobytes()
            encoded.bytes[part] += len(piece.encode())
            if sum(encoded.bytes.values()) >= UNIT_BYTES:  # a unit may be one huge file
                yield encoded
                encoded = Encoded()
    encoded.last = True
    yield encoded


def encode_all(units: list[Unit], folder: Path, workers: int) -> Iterator[Encoded]:
    """
    Encode units with the tokenizer in *folder*, in their order, however many *workers* (processes) share them.

    Worker k has the units k, k + workers, ... and waits while we have not taken what it has, so memory stays flat. A
    worker ends when we do: its pipe breaks. Exits with a sentence if a worker says one, or dies.
    """
    if workers < 2:
        tokenizer = load_tokenizer(folder)
        for unit in units:
            yield from encode(unit, tokenizer)
        return
    import multiprocessing  # noqa: PLC0415 - only a corpus of some size needs it

    context = multiprocessing.get_context("spawn")  # a fork would copy the threads of the tokenizer's learner half
    pipes, children = [], []
    try:
        for number in range(workers):
            ours, theirs = context.Pipe(duplex=False)
            child = context.Process(target=work, args=(theirs, units[number::workers], folder), daemon=True)
            child.start()
            theirs.close()  # else we would not see it end
            pipes.append(ours)
            children.append(child)
        for number in range(len(units)):
            last = False
            while not last:
                encoded = pipes[number % workers].recv()
                if isinstance(encoded, str):
                    raise SystemExit(encoded)
                last = encoded.last
                yield encoded
    except EOFError:
        raise SystemExit(
            "prepare.py: a worker ended before its work was done, perhaps for want of memory: what it said stands "
            "above; run prepare.py again, with a smaller --workers if memory was short"
        ) from None
    finally:
        for pipe in pipes:
            pipe.close()
        for child in children:
            child.terminate()
            child.join()


def work(pipe: Connection, units: list[Unit], folder: Path) -> None:
    """The life of a worker: encode, send, end. A second thread sends, so that the next unit is begun meanwhile."""
    import queue  # noqa: PLC0415
    import signal  # noqa: PLC0415
    import threading  # noqa: PLC0415

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of us, and one answers
    ready_to_go: queue.Queue[Encoded | str | None] = queue.Queue(maxsize=2)

    def send() -> None:
        with contextlib.suppress(BrokenPipeError):
            while (encoded := ready_to_go.get()) is not None:
                pipe.send(encoded)
            return
        os._exit(1)  # nobody is listening any more

    sender = threading.Thread(target=send)
    sender.start()
    try:
        tokenizer = load_tokenizer(folder)
        for unit in units:
            for encoded in encode(unit, tokenizer):
                ready_to_go.put(encoded)
    except SystemExit as said:
        ready_to_go.put(str(said))
    except OSError as error:
        ready_to_go.put(f"prepare.py: {error}")
    finally:
        ready_to_go.put(None)
        sender.join()


# ---------------------------------------------------------------- the cache


def chosen_corpus() -> str:
    """NIGHTSHIFT_CORPUS, or the constant. Nightshift does not pass the variable on: a run's harness says it all."""
    return spelled_out(os.environ.get("NIGHTSHIFT_CORPUS") or CORPUS)


def spelled_out(corpus: str) -> str:
    """One spelling for one corpus: "climbmix" with its number of shards."""
    shards = shards_of(corpus)
    return f"climbmix:{shards}" if shards else corpus


def cache_root() -> Path:
    """NIGHTSHIFT_CACHE, or ~/.cache/nightshift."""
    return Path(os.environ.get("NIGHTSHIFT_CACHE") or "~/.cache/nightshift").expanduser().absolute()


def harness_hash() -> str:
    """The sha256 of this very file: with any change to it, scores no longer compare."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def pointer(root: Path, corpus: str) -> Path:
    """The small file that tells train.py which cache belongs to this harness and corpus, without reading the corpus."""
    name = name_bytes(f"{harness_hash()}\n{corpus}\n{corpus_folder(corpus, root)}")
    return root / "current" / hashlib.sha256(name).hexdigest()[:32]


def prepare(corpus: str, root: Path, workers: int = 0) -> Path:
    """
    Make sure that the cache of *corpus* is there and whole; build it if it is missing or damaged.

    Built in a folder of its own and renamed, under a lock that a second process waits for.

    Args:
        workers: Processes that encode. 0: one for each core, and none but this one for a small corpus.

    Returns:
        The folder `<root>/<key>`, its key made of the corpus, where it lies, and of this file.
    """
    found = survey(corpus, root)
    key = hashlib.sha256(name_bytes(f"{harness_hash()}\n{found.folder}\n{found.contents}")).hexdigest()[:16]
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
            build(found, building, workers)
            building.rename(target)
        staging = root / "current" / "staging"
        staging.write_text(key)
        staging.replace(pointer(root, corpus))
    return target


def build(corpus: Corpus, target: Path, workers: int) -> None:
    """Learn the tokenizer on the train part, then write tokenizer, tokens of each part and manifest to *target*."""
    for part in PARTS:
        (target / part).mkdir(parents=True)
    learn(corpus, target)
    if not workers:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = cores if corpus.size >= WORKERS_FROM_BYTES else 1
    counts = write_tokens(corpus, target, min(workers, len(corpus.units)))
    texts = {"folder": str(corpus.folder), "hidden": corpus.hidden}
    write_manifest(target, {"harness": harness_hash(), "parts": counts, "texts": texts})


def learn(corpus: Corpus, target: Path) -> None:
    """Learn the tokenizer on text of the train part, at most about TOKENIZER_BYTES: every unit, or every n-th."""
    import rustbpe  # noqa: PLC0415 - only a build needs it, train.py's machine may do without

    units = [unit for unit in corpus.units if not unit.held_out]
    chosen = units[:: math.ceil(corpus.size / TOKENIZER_BYTES)]
    size = sum(unit.size for unit in chosen)
    say(f"learning {VOCAB_SIZE:,} tokens on the train part of {size / 1e6:,.1f} MB of {corpus.size / 1e6:,.1f} MB")

    def texts() -> Iterator[str]:
        done = 0
        with Bar("learning tokens") as bar:
            for unit in chosen:
                for part, blocks in documents_of(unit):
                    for piece in cut_after_lines(blocks):  # also of other parts: it is read to the end and checked
                        if part == "train":
                            yield piece
                done += unit.size
                bar.at("", done, size)

    learner = rustbpe.Tokenizer()
    learner.train_from_iterator(texts(), VOCAB_SIZE - 1, buffer_size=256, pattern=SPLIT_PATTERN)
    ranks = [base64.b64encode(bytes(token)).decode() for token, _ in learner.get_mergeable_ranks()]
    (target / "tokenizer.json").write_text(json.dumps({"pattern": SPLIT_PATTERN, "bos": BOS, "ranks": ranks}) + "\n")


def write_tokens(corpus: Corpus, target: Path, workers: int) -> dict[str, dict[str, int]]:
    """Encode the corpus, as uint16, into one file for each part. Returns the counts of each part."""
    total = Encoded()
    lengths = Counter[str]()
    done = number = 0
    with contextlib.ExitStack() as stack:
        files = {part: stack.enter_context((target / part / "tokens.bin").open("wb")) for part in PARTS}
        bar = stack.enter_context(Bar("encoding"))
        stream = stack.enter_context(contextlib.closing(encode_all(corpus.units, target, workers)))
        for encoded in stream:
            for part, file in files.items():
                lengths[part] += file.write(encoded.tokens[part]) // 2
            total.documents += encoded.documents
            total.bytes += encoded.bytes
            total.left_out += encoded.left_out
            if encoded.last:
                done, number = done + corpus.units[number].size, number + 1
                bar.at("", done, corpus.size)
    if total.left_out:
        say(f"{total.left_out:,} records without text are left out")
    for part in PARTS:
        if lengths[part] <= MAX_SEQ_LEN:
            raise SystemExit(
                f"prepare.py: the part {part!r} has {lengths[part]} tokens, fewer than one row of {MAX_SEQ_LEN}: "
                "give it more text, or lower MAX_SEQ_LEN in prepare.py"
            )
    counts = {"documents": total.documents, "bytes": total.bytes, "tokens": lengths}
    return {part: {what: count[part] for what, count in counts.items()} for part in PARTS}


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

    is_ready: bool = False
    folder: Path | None = None  # of the cache, where the score is computed here
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
    if _session.is_ready:
        raise RuntimeError("ready() was called twice: the clock starts once")
    _session.is_ready = True
    tokens = tokens_through(int(GATE)) if GATE else tokens_of_cache()
    _session.started_at = time.monotonic()
    return Batches(tokens, SEED), _session.started_at + BUDGET_S


def tokens_of_cache() -> np.ndarray:
    """The training tokens, checked. Exits with a sentence if the cache is missing or damaged."""
    folder = _session.folder = current_cache()
    if fault := find_fault(folder, only=("tokenizer.json", "train/tokens.bin")):
        raise SystemExit(
            f"prepare.py: the cache {folder} is damaged ({fault}): run `python prepare.py` to build it again"
        )
    return open_tokens(folder, "train")


def tokens_through(gate: int) -> np.ndarray:
    """
    Say READY to Nightshift through the socket *gate* and wait for the training tokens: its clock starts with them.

    Whatever takes long comes before: nobody counts that time. Exits with a sentence if nobody answers.
    """
    if HAND_OVER:
        from trainer.evaluator import export  # noqa: PLC0415 - Nightshift itself, which is there where a gate is

        export.warm_up()
    with socket.socket(fileno=gate) as harness:
        harness.sendall(b"READY\n")
        answer, files, *_ = socket.recv_fds(harness, 64, 1)
    if answer != b"GO\n" or len(files) != 1:
        raise SystemExit("prepare.py: Nightshift went away before it handed the training text in")
    with os.fdopen(files[0]) as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint16)


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

    Under Nightshift's sealed scoring nothing is scored or printed here: the model is exported as a graph of plain
    tensor operations (see `trainer/evaluator/operators.py` for which), the rest of the block goes beside it.

    Args:
        model: Called as model(inputs) with int64 (rows, MAX_SEQ_LEN), must return logits (rows, MAX_SEQ_LEN,
            VOCAB_SIZE), each position from the tokens up to it. Targets are never shown to it.
        total_tokens: Tokens trained on, repeats counted.
        mfu_percent: Share of an H100's 989.5 TFLOP/s (bfloat16, dense) that the training used.

    Raises:
        RuntimeError: If `ready()` was not called, this is the second call, or the logits have a wrong shape.
        SystemExit: With a sentence, if the deadline was ignored, the rows are damaged, the score is not finite, or
            the model cannot be exported.
    """
    if not _session.is_ready:
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
    facts = {
        "training_seconds": f"{training_seconds:.1f}",
        "total_seconds": f"{time.monotonic() - IMPORTED_AT:.1f}",
        "peak_vram_mb": f"{peak_memory_mb():.1f}",
        "mfu_percent": f"{mfu_percent:.2f}",
        "total_tokens_M": f"{total_tokens / 1e6:.1f}",
        "num_steps": f"{num_steps:d}",
        "num_params_M": f"{num_params / 1e6:.1f}",
        "depth": f"{depth:d}",
    }
    if HAND_OVER:
        export_model(model, facts)
        return
    score = score_in_place(model)
    facts["total_seconds"] = f"{time.monotonic() - IMPORTED_AT:.1f}"
    facts["peak_vram_mb"] = f"{peak_memory_mb():.1f}"
    print("\n---")  # the line of progress before it has no end of its own
    for key, value in {"val_bpb": f"{score:.6f}", **facts}.items():
        print(f"{key + ':':<18}{value}", flush=True)


def export_model(model: torch.nn.Module, facts: dict[str, str]) -> None:
    """Write *model* and *facts* to the folder HAND_OVER. Exits with a sentence if the model cannot be exported."""
    from trainer.evaluator import export  # noqa: PLC0415 - Nightshift itself
    from trainer.evaluator.errors import ExportRefused  # noqa: PLC0415 - as above

    try:
        export.hand_over(model, Path(HAND_OVER), (2, MAX_SEQ_LEN), facts, trusted=TRUSTED_OPERATORS)
    except ExportRefused as refused:
        raise SystemExit(f"\nprepare.py: no score: {refused}") from refused
    print("\nhanded over")


def score_in_place(model: torch.nn.Module) -> float:
    """The score on the select rows. Exits with a sentence if they are damaged or the score is not finite."""
    folder = _session.folder or current_cache()
    if fault := find_fault(folder, only=("tokenizer.json", "select/tokens.bin")):
        raise SystemExit(f"\nprepare.py: no score: the cache {folder} is damaged ({fault}): run `python prepare.py`")
    score = bits_per_byte(*sum_of_nats(model, open_tokens(folder, "select"), token_lengths(folder)))
    if not math.isfinite(score):
        print("\nprepare.py: no score: the model's output is not finite\nFAIL", flush=True)
        raise SystemExit(1)
    return score


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


# ---------------------------------------------------------------- kernels


def register_operators() -> None:
    """
    Make `torch.ops.nightshift.window_attention(q, k, v, window)` known to torch; nothing happens the second time.

    Who trains calls this, and who scores: a graph names the operator and cannot bring one of its own.
    """
    import torch  # noqa: PLC0415 - see Batches.stream

    if hasattr(torch.ops.nightshift, "window_attention"):
        return
    schema = "(Tensor q, Tensor k, Tensor v, int window) -> Tensor"
    operator = torch.library.custom_op(TRUSTED_OPERATORS[0], window_attention, mutates_args=(), schema=schema)
    operator.register_fake(lambda q, _k, v, _window: q.new_empty((*q.shape[:-1], v.size(-1))))
    operator.register_autograd(_window_gradients, setup_context=_keep_for_gradients)


def window_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int) -> torch.Tensor:
    """Causal attention of (B, H, T, D) in which each position sees the last *window* ones, itself included."""
    import torch  # noqa: PLC0415 - see Batches.stream

    at = torch.arange(q.size(-2), device=q.device)
    back = at[:, None] - at  # (T, T)
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=(back >= 0) & (back < window))


def _keep_for_gradients(ctx: object, inputs: tuple, output: torch.Tensor) -> None:  # noqa: ARG001 - torch calls it so
    *ctx.values, ctx.window = inputs


def _window_gradients(ctx: object, gradient: torch.Tensor) -> tuple:
    """The backward pass: forward once more, with gradients."""
    import torch  # noqa: PLC0415 - see Batches.stream

    with torch.enable_grad():
        values = [value.detach().requires_grad_() for value in ctx.values]
        return *torch.autograd.grad(window_attention(*values, ctx.window), values, gradient), None


# ---------------------------------------------------------------- the command line


def say(line: str) -> None:
    """One line to the person who waits."""
    print(line, flush=True)


class Bar:
    """A bar of progress in bytes, where a person looks on; elsewhere only its lines."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.state: dict[str, tuple[int, int]] = {}
        self.shown = None

    def __enter__(self) -> Bar:
        if sys.stdout.isatty():
            from rich import progress  # noqa: PLC0415 - takes 0.1 s

            columns = ("{task.description}", progress.BarColumn(), progress.DownloadColumn())
            more = (progress.TransferSpeedColumn(), progress.TimeRemainingColumn())
            self.shown = progress.Progress(*columns, *more)
            self.task = self.shown.add_task(self.what, total=None)
            self.shown.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.shown:
            self.shown.stop()

    def at(self, name: str, done: int, total: int) -> None:
        """The thing called *name* has come to *done* of *total* bytes; the bar is over all things."""
        self.state[name] = (done, total)
        if self.shown:
            sums = [sum(column) for column in zip(*self.state.copy().values(), strict=True)]
            self.shown.update(self.task, completed=sums[0], total=sums[1])

    def say(self, line: str) -> None:
        """One line, above the bar."""
        if self.shown:
            self.shown.print(line, markup=False, highlight=False)
        else:
            say(line)


def main() -> None:
    """Prepare the corpus that the command line, the environment or CORPUS names, in this order."""
    parser = argparse.ArgumentParser(description="Prepare corpus and tokenizer for train.py, once.")
    parser.add_argument(
        "--corpus",
        metavar="stdlib|climbmix|PATH",
        help=f"the text to train on; PATH: a folder of text files, JSONL or parquet (default: CORPUS, now {CORPUS})",
    )
    parser.add_argument("--shards", type=int, metavar="N", help=f"of climbmix to train on (default: {SHARDS})")
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes that encode (default: one a core)"
    )
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
        known = asked.corpus == "stdlib" or shards_of(asked.corpus)
        corpus = asked.corpus if known else str(Path(asked.corpus).expanduser().absolute())
    if asked.shards is not None:
        if not shards_of(corpus):
            raise SystemExit(f"prepare.py: --shards counts shards of climbmix, and the corpus is {corpus!r}")
        corpus = f"climbmix:{asked.shards}"
    corpus = spelled_out(corpus)
    root = Path(asked.cache).expanduser().absolute() if asked.cache else cache_root()
    try:
        folder = prepare(corpus, root, max(0, asked.workers))
    except OSError as error:
        raise SystemExit(
            f"prepare.py: {error}: mend that, or choose other folders with --corpus and --cache"
        ) from error
    except KeyboardInterrupt:
        raise SystemExit("prepare.py: stopped; the next call goes on with what has been downloaded") from None
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
