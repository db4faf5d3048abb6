"""Shards by download, from a server on loopback that stalls, cuts, lies about length and serves a damaged shard."""

from __future__ import annotations

import io
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.harness import shards as s

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Maker, Workspace

FIRST, SECOND, LAST = "shard_00000.parquet", "shard_00001.parquet", "shard_06542.parquet"
QUICK = {"SHARDS": 2, "DOWNLOAD_STALL_S": 0.4, "DOWNLOAD_WAIT_S": 0.01, "DOWNLOAD_ATTEMPTS": 4}


def shard(seed: int) -> bytes:
    """About 30 kB of text in 60 documents, as a parquet file."""
    rng = random.Random(seed)
    words = [f"{seed}{word}" for word in ("train", "keep", "discard", "loss", "rate", "night", "shift")]
    texts = [f"{seed}.{n} " + " ".join(rng.choices(words, k=80)) for n in range(60)]
    file = io.BytesIO()
    pq.write_table(pa.table({"text": texts}), file, row_group_size=20)
    return file.getvalue()


SHARDS = {FIRST: shard(1), SECOND: shard(2), LAST: shard(3)}


@pytest.fixture
def shelf() -> Iterator[s.Shelf]:
    """Serves three shards well; a test adds misdeeds."""
    shelf = s.Shelf(dict(SHARDS))
    server, thread = s.serve(shelf)
    try:
        yield shelf
    finally:
        shelf.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def workspace(make: Maker, tmp_path: Path) -> Workspace:
    return make.workspace(tmp_path / "w", tmp_path, prepare={"CORPUS": "climbmix", **QUICK})


def ready(workspace: Workspace, shelf: s.Shelf, *words: str) -> str:
    """Prepare, which must come to its end with the shards that the server has; what it said."""
    ended = workspace.run("prepare.py", *words, NIGHTSHIFT_CLIMBMIX_URL=shelf.url)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    files = {path.name: path.read_bytes() for path in (workspace.cache / "climbmix").glob("*.parquet*")}
    assert files == {name: whole for name, whole in shelf.files.items() if name in files}
    assert LAST in files
    return ended.stdout


def refusal(workspace: Workspace, shelf: s.Shelf, **variables: str) -> str:
    ended = workspace.run("prepare.py", **{"NIGHTSHIFT_CLIMBMIX_URL": shelf.url, **variables})
    assert ended.returncode == 1, ended.stdout
    assert "Traceback" not in ended.stderr
    assert not list(workspace.cache.glob("*/manifest.json"))
    return ended.stderr.strip()


def ranges(shelf: s.Shelf, name: str) -> list[str]:
    return [asked for wanted, asked in shelf.asked if wanted == name]


# ---------------------------------------------------------------- all is well


def test_the_last_shard_is_scored_and_the_others_are_trained_on(workspace: Workspace, shelf: s.Shelf) -> None:
    said = ready(workspace, shelf)
    assert "climbmix: 3 of 3 shards to download" in said
    assert sorted(shelf.asked) == [(name, "") for name in sorted(SHARDS)]
    prepare = workspace.module("prepare")
    folder = next(workspace.cache.glob("*/manifest.json")).parent
    tokenizer = prepare.load_tokenizer(folder)
    texts = {}
    for part in ("train", "select", "report"):
        tokens = prepare.open_tokens(folder, part)
        texts[part] = tokenizer.decode_bytes(tokens[tokens != prepare.BOS].tolist()).decode()
    assert {digit for digit in "123" if f"{digit}keep" in texts["train"]} == {"1", "2"}
    assert {digit for digit in "123" if f"{digit}keep" in texts["select"] + texts["report"]} == {"3"}
    counts = prepare.read_manifest(folder)["parts"]
    assert counts["select"]["documents"] + counts["report"]["documents"] == 60
    assert min(counts["select"]["documents"], counts["report"]["documents"]) > 15


def test_what_is_there_is_not_asked_for_again_and_needs_no_network(workspace: Workspace, shelf: s.Shelf) -> None:
    ready(workspace, shelf, "--shards", "1")
    assert {name for name, _ in shelf.asked} == {FIRST, LAST}
    shelf.asked.clear()
    said = ready(workspace, shelf)  # two shards
    assert "1 of 3 shards to download" in said
    assert shelf.asked == [(SECOND, "")]
    offline = workspace.run("prepare.py", NIGHTSHIFT_CLIMBMIX_URL="http://127.0.0.1:1/resolve")
    assert offline.returncode == 0
    assert offline.stdout.startswith("ready: ")


def test_a_run_of_the_loop_finds_the_cache_of_the_constant(workspace: Workspace, shelf: s.Shelf) -> None:
    ready(workspace, shelf, "--corpus", "climbmix", "--shards", "1")
    asked_for_two = workspace.run("-c", "import prepare; print(prepare.current_cache())")
    assert "no prepared corpus 'climbmix:2'" in asked_for_two.stderr
    one = workspace.run("-c", "import prepare; print(prepare.current_cache())", NIGHTSHIFT_CORPUS="climbmix:1")
    assert one.returncode == 0


def test_a_server_that_says_no_sha256_is_believed_if_the_file_is_parquet(workspace: Workspace, shelf: s.Shelf) -> None:
    shelf.hashed = False
    ready(workspace, shelf)
    assert (workspace.cache / "climbmix" / f"{FIRST.removesuffix('.parquet')}.sha256").is_file()


# ---------------------------------------------------------------- a server that misbehaves, and then does not


@pytest.mark.parametrize("hashed", [True, False])
@pytest.mark.parametrize("misdeed", [s.cut, s.stall])
def test_a_download_that_breaks_off_goes_on_where_it_stopped(
    workspace: Workspace, shelf: s.Shelf, misdeed: type[s.Misdeed], hashed: bool
) -> None:
    shelf.hashed = hashed
    shelf.misdeeds[FIRST] = [misdeed(1000), misdeed(500)]
    said = ready(workspace, shelf)
    assert ranges(shelf, FIRST) == ["", "bytes=1000-", "bytes=1500-"]
    assert f"{FIRST}: after 1,000 of {len(SHARDS[FIRST]):,} bytes: " in said or "the connection ended after" in said


def test_a_trickle_counts_as_a_stall(workspace: Workspace, shelf: s.Shelf) -> None:
    shelf.misdeeds[FIRST] = [s.trickle]
    assert "is no progress; trying again" in ready(workspace, shelf)
    assert len(ranges(shelf, FIRST)) == 2


def test_a_damaged_shard_is_thrown_away_and_fetched_whole(workspace: Workspace, shelf: s.Shelf) -> None:
    shelf.misdeeds[FIRST] = [s.corrupt]
    assert "it arrived damaged: its sha256 begins with" in ready(workspace, shelf)
    assert ranges(shelf, FIRST) == ["", ""]


def test_a_damaged_part_before_a_break_is_found_at_the_end(workspace: Workspace, shelf: s.Shelf) -> None:
    def cut_and_corrupt(handler: s.Handler, whole: bytes, start: int) -> None:
        s.cut(len(whole) - 10)(handler, whole[:100] + b"?" + whole[101:], start)

    shelf.misdeeds[FIRST] = [cut_and_corrupt]
    assert "it arrived damaged" in ready(workspace, shelf)
    assert ranges(shelf, FIRST)[2:] == [""]


@pytest.mark.parametrize("hashed", [True, False])
@pytest.mark.parametrize("more", [-100, 100])
def test_a_wrong_length_is_seen_through(workspace: Workspace, shelf: s.Shelf, more: int, hashed: bool) -> None:
    """Too long: the connection ends early. Too short: not what was said before, or no whole parquet file."""
    shelf.hashed = hashed
    shelf.misdeeds[FIRST] = [s.promise(more)]
    ready(workspace, shelf)


def test_without_a_length_nothing_is_believed(workspace: Workspace, shelf: s.Shelf) -> None:
    shelf.misdeeds[FIRST] = [s.promise_nothing]
    assert "the server promises no bytes" in ready(workspace, shelf)


@pytest.mark.parametrize("hashed", [True, False])
def test_a_server_that_knows_no_ranges_sends_it_all_again(workspace: Workspace, shelf: s.Shelf, hashed: bool) -> None:
    shelf.hashed = hashed
    shelf.misdeeds[FIRST] = [s.cut(1000), s.from_the_start]
    ready(workspace, shelf)
    assert ranges(shelf, FIRST) == ["", "bytes=1000-"]


def test_another_range_than_asked_for_is_not_taken(workspace: Workspace, shelf: s.Shelf) -> None:
    shelf.misdeeds[FIRST] = [s.cut(1000), s.elsewhere]
    assert "the server sent bytes 1005-" in ready(workspace, shelf)


@pytest.mark.parametrize("hashed", [True, False])
def test_a_file_that_is_another_one_after_a_break_is_fetched_from_its_start(
    workspace: Workspace, shelf: s.Shelf, hashed: bool
) -> None:
    def cut_and_change(handler: s.Handler, whole: bytes, start: int) -> None:
        handler.part(whole, start, whole[start : start + 1000], etag='"v0"')
        shelf.files[FIRST] = shard(9)

    shelf.hashed = hashed
    shelf.misdeeds[FIRST] = [cut_and_change]
    said = ready(workspace, shelf)
    assert "the file on the server is another one now" in said
    assert ranges(shelf, FIRST) == ["", "bytes=1000-", ""]


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_an_error_that_may_pass_is_waited_for(workspace: Workspace, shelf: s.Shelf, status: int) -> None:
    shelf.misdeeds[FIRST] = [s.refuse(status), s.refuse(status, retry_after="1")]
    began = time.monotonic()
    said = ready(workspace, shelf)
    assert f"the server answered {status} " in said
    assert "trying again in 1 s" in said
    assert time.monotonic() - began > 1.0


def test_a_shard_that_is_damaged_later_is_fetched_again(workspace: Workspace, shelf: s.Shelf) -> None:
    ready(workspace, shelf)
    shelf.asked.clear()
    path = workspace.cache / "climbmix" / SECOND
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert f"{path} is damaged: downloading it again" in ready(workspace, shelf)
    assert shelf.asked == [(SECOND, "")]


def test_a_shard_that_a_person_put_there_is_taken(workspace: Workspace, shelf: s.Shelf) -> None:
    (workspace.cache / "climbmix").mkdir(parents=True)
    (workspace.cache / "climbmix" / FIRST).write_bytes(SHARDS[FIRST])
    ready(workspace, shelf)
    assert not ranges(shelf, FIRST)


# ---------------------------------------------------------------- a clear end


def test_offline_it_says_so_and_what_can_be_done(workspace: Workspace, shelf: s.Shelf) -> None:
    said = refusal(workspace, shelf, NIGHTSHIFT_CLIMBMIX_URL="http://127.0.0.1:1/resolve")
    assert "could not be downloaded, attempt" in said
    assert "no connection: [Errno 111] Connection refused" in said
    assert "Run prepare.py again when that is mended" in said
    assert f"put the file into {workspace.cache / 'climbmix'}" in said
    assert "--corpus PATH" in said


@pytest.mark.parametrize("misdeed", [s.corrupt, s.promise(100), s.refuse(503), s.promise(-100)])
def test_a_server_that_never_mends_its_ways_is_given_up(
    workspace: Workspace, shelf: s.Shelf, misdeed: s.Misdeed
) -> None:
    shelf.misdeeds[FIRST] = [misdeed] * 9
    said = refusal(workspace, shelf)
    assert f"{shelf.url}/{FIRST} could not be downloaded, attempt 4 of 4: " in said
    assert not (workspace.cache / "climbmix" / FIRST).exists()


def test_a_missing_file_is_asked_for_once(workspace: Workspace, shelf: s.Shelf) -> None:
    del shelf.files[FIRST]
    assert "attempt 1 of 4: the server answered 404" in refusal(workspace, shelf)
    assert len(ranges(shelf, FIRST)) == 1


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_after_ctrl_c_or_a_kill_the_next_call_goes_on_where_it_stopped(
    make: Maker, tmp_path: Path, shelf: s.Shelf, sent: signal.Signals
) -> None:
    patient = {
        "CORPUS": "climbmix",
        **QUICK,
        "DOWNLOAD_STALL_S": 3.0,
    }  # so that the signal comes before its patience ends
    workspace = make.workspace(tmp_path / "w", tmp_path, prepare=patient)
    shelf.misdeeds[FIRST] = [s.stall(3000)]
    environment = workspace.environment(NIGHTSHIFT_CLIMBMIX_URL=shelf.url)
    command = [sys.executable, "prepare.py", "--shards", "1"]
    with subprocess.Popen(command, cwd=workspace.folder, env=environment, stderr=subprocess.PIPE, text=True) as child:
        for _ in range(500):
            found = list((workspace.cache / "climbmix").glob(f"{FIRST}.*.part"))
            if found and found[0].stat().st_size == 3000:
                break
            assert psutil.pid_exists(child.pid)
            time.sleep(0.01)
        child.send_signal(sent)
        _, said = child.communicate(timeout=30)
    if sent == signal.SIGINT:
        assert (child.returncode, said) == (
            1,
            "prepare.py: stopped; the next call goes on with what has been downloaded\n",
        )
    ready(workspace, shelf, "--shards", "1")
    assert ranges(shelf, FIRST)[-1] == "bytes=3000-"
