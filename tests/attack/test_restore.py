"""Backups made while others write, and restores: with projections ahead of the log, killed half way, beside others."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eventstore import events as e
from eventstore.envelope import NewEvent
from eventstore.errors import Held, LogCorrupt, LogUnavailable, NotALog
from eventstore.home import Home
from eventstore.maintenance import backup, verify
from eventstore.projections.results import Results
from eventstore.recovery import Restored, check, restore
from eventstore.store import Store
from tests.attack.conftest import fill
from tests.attack.nursery import AT
from tests.conftest import Tally

Attack = Callable[..., str]

SETTINGS = {
    "objective": {"name": "val_bpb", "direction": "minimize", "editable": ["train.py"]},
    "experiment": {"command": ["python", "train.py"]},
}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    root = tmp_path / "workspace"
    root.mkdir()
    (root / "nightshift.toml").touch()
    return Home(root)


def write(home: Home, *facts: tuple[str, e.Data]) -> None:
    with Store.open(home.log_path) as log:
        n = log.head().position
        log.append([NewEvent(f"f-{n + k}", run, AT, "loop@box", data) for k, (run, data) in enumerate(facts, 1)])


def start(home: Home, tag: str) -> None:
    started = e.RunStarted(
        branch=f"autoresearch/{tag}", base_commit="b" * 40, settings=SETTINGS, limits=e.Limits(), program_hash="p",
        harness_hash="h", settings_hash="s", seed=7, host="box", device="cpu", sandbox="none", versions={},
    )  # fmt: skip
    write(home, (tag, e.RunRequested(tag=tag, from_ref="HEAD", zone="UTC")), (tag, started))
    decide(home, tag, 0)


def decide(home: Home, tag: str, n: int) -> None:
    """One experiment more, and the tables as the loop writes them."""
    asked = e.ProposalRequested(
        experiment=n, kind="sweep", base_commit="b" * 40, program_hash="p", ask=0, purpose="new"
    )
    verdict = e.ExperimentDecided(
        experiment=n, attempt=0, verdict="discard" if n else "keep", reason="r", trials=1, score=1.0
    )
    write(home, *([(tag, asked)] if n else []), (tag, verdict), *([] if n else [("", e.LoopStopped(why="x"))]))
    tables(home, tag)


def tables(home: Home, tag: str) -> None:
    results = Results()
    with Store.open(home.log_path) as log:
        for event in log.stream():
            results.apply(event)
    home.results_path(tag).parent.mkdir(parents=True, exist_ok=True)
    home.results_path(tag).write_text(results.tsv(tag))
    (home.root / "results.tsv").write_text(results.tsv(tag))


@pytest.fixture
def ahead(home: Home, tmp_path: Path) -> Path:
    """A backup, and a workspace that went on after it: experiments, and a whole run that the backup does not know."""
    start(home, "nov21")
    decide(home, "nov21", 1)
    backup(home.log_path, tmp_path / "saved.db")
    decide(home, "nov21", 2)
    write(home, ("nov21", e.RunFinished(reason="stopped", why="x")))
    start(home, "nov22")
    return tmp_path / "saved.db"


def bad(home: Home) -> list[str]:
    return [finding.what for finding in check(home) if not finding.holds]


# ---------------------------------------------------------------- backup


@pytest.mark.parametrize("copies", [8, pytest.param(150, marks=[pytest.mark.long, pytest.mark.timeout(600)])])
def test_a_backup_made_while_two_write_holds_and_is_a_prefix(
    attack: Attack, tally: Tally, log: Path, tmp_path: Path, copies: int
) -> None:
    counted = tally("a backup holds and is a prefix of the log", "backup while two processes write")
    control = tally(
        "a backup holds and is a prefix of the log", "`cp` of events.db while two write: short or refused (control)"
    )
    Store.open(log).close()
    writers = [_start_writer(log, name) for name in ("loop", "bot")]
    try:
        heads, torn = [], 0
        for n in range(copies):
            _grown(log, heads[-1].position if heads else 0)
            heads.append(backup(log, tmp_path / f"{n}.db"))
            torn += _copied_by_hand_is_torn(log, tmp_path / f"cp{n}" / "events.db")
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    verify(log)
    with Store.open(log) as store:
        rows = list(store.rows())
    for n, head in enumerate(heads):
        with Store.open(tmp_path / f"{n}.db") as saved:
            counted.see(list(saved.rows()) == rows[: head.position] and verify(tmp_path / f"{n}.db") == head)
    positions = [head.position for head in heads]
    assert counted.held == counted.made == copies
    assert positions == sorted(positions) and positions[-1] > positions[0]
    control.made = control.held = torn
    control.note = f"of {copies} copies"
    assert torn > copies / 2


def _start_writer(log: Path, name: str) -> subprocess.Popen[bytes]:
    source = (
        "import sys, time; from pathlib import Path; from eventstore.store import Store; "
        "from tests.attack.nursery import event\n"
        "with Store.open(Path(sys.argv[1])) as store:\n"
        "    for n in range(10**9): store.append([event(f'{sys.argv[2]}-{n}', 'x' * 300)]); time.sleep(0.001)\n"
    )
    return subprocess.Popen([sys.executable, "-c", source, str(log), name], cwd=Path(__file__).parents[2])


def _grown(log: Path, since: int) -> None:
    deadline = time.monotonic() + 30
    while verify(log).position <= since:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _copied_by_hand_is_torn(log: Path, copy: Path) -> bool:
    """Whether a copy of the main file alone, as many make it, lacks events or is refused."""
    with Store.open(log, check=False) as store:
        head = store.head()
    copy.parent.mkdir()
    shutil.copy(log, copy)
    try:
        return verify(copy).position < head.position
    except (NotALog, LogCorrupt):
        return True


# ---------------------------------------------------------------- restore


def test_projections_ahead_of_a_restored_log_are_put_right(home: Home, ahead: Path, tally: Tally) -> None:
    count = tally("a restore leaves log, witness and tables at one", "restore with tables ahead of the backup")
    assert bad(home) == []
    before = {path: path.read_bytes() for path in (home.results_path("nov21"), home.results_path("nov22"))}
    old = verify(home.log_path)
    done = restore(home, ahead, "stamp")
    assert done == Restored(verify(ahead), home.state / "set-aside" / "stamp", ("nov21",), ("nov22",))
    assert count.see(bad(home) == [])
    assert count.see(len(home.results_path("nov21").read_text().splitlines()) == 3)
    assert count.see(not home.results_path("nov22").exists())
    assert count.see((home.root / "results.tsv").read_bytes() == home.results_path("nov21").read_bytes())
    assert done.aside is not None
    assert count.see(verify(done.aside / "events.db") == old)
    assert count.see((done.aside / "runs" / "nov22" / "results.tsv").read_bytes() == before[home.results_path("nov22")])
    with Store.open(home.log_path) as log:
        assert log.head() == done.head


def test_a_log_put_back_by_hand_leaves_projections_ahead_and_check_names_them(
    home: Home, ahead: Path, tally: Tally
) -> None:
    count = tally(
        "a restore leaves log, witness and tables at one", "`cp` of a backup over the log: told by check (control)"
    )
    shutil.copy(ahead, home.log_path)
    assert count.see(bad(home) == ["witness", "tables"])
    home.log_path.with_name("events.db.witness").unlink()
    found = {finding.what: finding.says for finding in check(home)}
    assert count.see(bad(home) == ["tables"])
    assert "the results.tsv of nov21 is not what the log gives" in found["tables"]
    assert "a results.tsv of nov22, a run that the log does not know" in found["tables"]
    restore(home, ahead, "stamp")
    assert count.see(bad(home) == [])


def crash(home: Home) -> None:
    """Leave the log as a loss of power would: 50 events that are only in the WAL."""
    kept = home.root / "kept"
    with Store.open(home.log_path) as store:
        fill(store, 50)
        shutil.copytree(home.state, kept)
    shutil.rmtree(home.state)
    kept.rename(home.state)
    (home.state / "events.db-shm").unlink()


@pytest.mark.parametrize("state", ["damaged", "gone", "empty", "crashed", "cut in the WAL", "no state"])
def test_a_restore_works_whatever_the_log_is_in(home: Home, ahead: Path, tally: Tally, state: str) -> None:
    count = tally("a restore leaves log, witness and tables at one", "restore over a damaged, empty or missing log")
    log = home.log_path
    if state == "damaged":
        log.write_bytes(b"\xff" * 5000)
    elif state == "gone":
        log.unlink()
    elif state == "empty":
        log.write_bytes(b"")
    elif state == "crashed":
        crash(home)
    elif state == "cut in the WAL":
        log.with_name("events.db-wal").write_bytes(b"\x37\x7f\x06\x82" + bytes(200))
    else:
        shutil.rmtree(home.state)
    done = restore(home, ahead, "stamp")
    count.see(bad(home) == [] and verify(log) == done.head)
    assert count.held == count.made


def test_a_second_restore_of_the_same_second_keeps_what_the_first_set_aside(home: Home, ahead: Path) -> None:
    old = verify(home.log_path)
    first, second = restore(home, ahead, "stamp"), restore(home, ahead, "stamp")
    assert first.aside is not None and second.aside == home.state / "set-aside" / "stamp-2"
    assert verify(first.aside / "events.db") == old
    assert verify(second.aside / "events.db") == first.head


@pytest.fixture
def untouched(home: Home, ahead: Path) -> Iterator[None]:
    def files() -> dict[Path, bytes]:
        there = (path for path in sorted(home.root.rglob("*")) if path.is_file() and path != home.lock_path())
        return {path: path.read_bytes() for path in there if not path.name.endswith(("-shm", "-wal"))}

    before = files()
    yield
    assert files() == before


@pytest.mark.usefixtures("untouched")
def test_a_bad_backup_is_refused_before_anything_is_touched(
    home: Home, ahead: Path, tmp_path: Path, tally: Tally
) -> None:
    count = tally(
        "a restore leaves log, witness and tables at one", "restore of a damaged, foreign or missing backup: refused"
    )
    content = bytearray(ahead.read_bytes())
    content[content.index(b"discard")] ^= 1
    (tmp_path / "flipped.db").write_bytes(content)
    (tmp_path / "text.db").write_text("no database\n" * 500)
    (tmp_path / "empty.db").touch()
    for name in ("flipped.db", "text.db", "empty.db", "missing.db", "."):
        with pytest.raises((NotALog, LogCorrupt)):
            restore(home, tmp_path / name, "stamp")
        count.see(True)
    with pytest.raises(NotALog, match="is the log itself"):
        restore(home, home.log_path, "stamp")
    count.see(True)


@pytest.mark.usefixtures("untouched")
def test_a_restore_beside_a_loop_or_another_process_is_refused(home: Home, ahead: Path, tally: Tally) -> None:
    count = tally(
        "a restore leaves log, witness and tables at one", "restore while a loop or a reader has the log: refused"
    )
    source = (
        "import sys; from pathlib import Path; from eventstore.home import Home; from eventstore.store import Store\n"
        "home = Home(Path(sys.argv[1]))\n"
        "with (home.hold() if sys.argv[2] == 'loop' else Store.open(home.log_path)):\n"
        "    print('ready', flush=True); sys.stdin.readline()\n"
    )
    for who, error in (("loop", Held), ("reader", LogUnavailable)):
        command = (sys.executable, "-c", source, str(home.root), who)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None and other.stdout.readline() == "ready\n"
            with pytest.raises(error):
                restore(home, ahead, "stamp")
            count.see(True)
            other.communicate("\n")


@pytest.mark.parametrize("kills", [25, pytest.param(600, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
def test_a_restore_killed_at_any_moment_leaves_old_new_or_refused(
    attack: Attack, home: Home, ahead: Path, tally: Tally, tmp_path: Path, kills: int
) -> None:
    count = tally("a restore leaves log, witness and tables at one", "kill -9 of a restore, then asked again")
    live = tmp_path / "live"
    crash(home)
    shutil.copytree(home.state, live)
    found = json.loads(attack("killed_restores", home.root, ahead, live, kills, 7))
    for word in found:
        count.see(word != "WRONG")
    seen = Counter(found)
    count.note = ", ".join(f"{number} {word}" for word, number in sorted(seen.items()))
    assert count.held == count.made == kills
    assert kills < 100 or (seen["old"] and seen["new"])  # few kills on a busy machine may all come too early
