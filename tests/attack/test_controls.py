"""Each guard is taken out of a copy of the code, and the test that speaks for it must then fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import Tally

ROOT = Path(__file__).parents[2]
COPIED = ("eventstore", "loop", "trainer", "tests/attack", "tests/eventstore", "tests/loop")
FILES = ("pyproject.toml", "nightshift.py", "tests/conftest.py", "tests/replay_stdlib.py")

A, E = "tests/attack", "tests/eventstore"


@dataclass(frozen=True)
class Guard:
    """A guard, the edits (file, text, new text) that take it away, and the test that must fail then."""

    what: str
    test: str
    edits: tuple[tuple[str, str, str], ...]


def guard(what: str, test: str, *edits: tuple[str, str, str]) -> Guard:
    return Guard(what, test, edits)


TRIGGERS = "((EVENTS, NO_UPDATE, NO_DELETE, NEXT_POSITION, NEW_ID),)"
SCHEMA, STORE, CODEC = "eventstore/schema.py", "eventstore/store.py", "eventstore/codec.py"
INTEGRITY, RECOVERY = "eventstore/integrity.py", "eventstore/recovery.py"
BEGIN, COMMIT = 'self.db.conn.execute("BEGIN IMMEDIATE")', '            self.db.conn.execute("COMMIT")'
TRIED = f"{A}/test_other_programs.py::test_what_another_program_tries_is_refused"
FORMS = f"{A}/test_other_programs.py::test_rows_of_another_form_are_refused"
NAMED = f"{A}/test_damage.py::test_verify_names_the_first_row_that_does_not_hold"
WAL = f"{A}/test_damage.py::test_a_damaged_wal_leaves_a_prefix_and_the_witness_tells"
KILL = f"{A}/test_kill.py::test_no_acknowledged_event_is_lost_by_kill_9[60]"

GUARDS = [
    guard("trigger: no update", f"{TRIED}[UPDATE-ON]", (SCHEMA, TRIGGERS, TRIGGERS.replace("NO_UPDATE, ", ""))),
    guard("trigger: no delete", f"{TRIED}[DELETE-OFF]", (SCHEMA, TRIGGERS, TRIGGERS.replace("NO_DELETE, ", ""))),
    guard("trigger: next position", f"{TRIED}[a gap-ON]", (SCHEMA, TRIGGERS, TRIGGERS.replace("NEXT_POSITION, ", ""))),
    guard(
        "trigger: new id",
        f"{TRIED}[REPLACE of an id at head + 1-OFF]",
        (SCHEMA, TRIGGERS, TRIGGERS.replace(", NEW_ID", "")),
    ),
    guard("check: JSON", f"{FORMS}[NaN]", (SCHEMA, "CHECK (json_valid(data))", "")),
    guard("check: cause", f"{FORMS}[a cause ahead]", (SCHEMA, " AND cause < position", "")),
    guard("check: chain", f"{FORMS}[a short chain]", (SCHEMA, "CHECK (length(chain) = 32)", "")),
    guard(
        "authorizer",
        f"{A}/test_mutators.py::test_a_mutator_does_nothing_on_a_store_and_its_work_without_the_guards[transform-0]",
        (STORE, "        authorize(conn)\n", ""),
    ),
    guard(
        "schema compared at the opening",
        f"{E}/test_store_open.py::test_an_altered_schema_is_refused_by_name",
        (STORE, "        check_schema(conn, self.path)\n", ""),
    ),
    guard(
        "gate of versions",
        f"{A}/test_version_gate.py::test_every_door_asks_the_gate[3.45.0]",
        ("eventstore/connection.py", "    check_version(sqlite3.sqlite_version_info)\n", ""),
    ),
    guard("commit before the answer", KILL, (STORE, COMMIT, "            pass")),
    guard("one transaction for a batch", KILL, (STORE, BEGIN, "pass"), (STORE, COMMIT, "            pass")),
    guard(
        "BEGIN IMMEDIATE",
        f"{A}/test_writers.py::test_writers_at_once[2-150]",
        (STORE, BEGIN, BEGIN.replace(" IMMEDIATE", "")),
    ),
    guard(
        "rollback of what was refused",
        f"{E}/test_store_contract.py::test_an_expectation_that_does_not_hold_appends_nothing[store]",
        (STORE, "if self.db.conn.in_transaction:", "if False:"),
    ),
    guard(
        "known ids are looked up",
        f"{E}/test_store_contract.py::test_the_same_batch_again_returns_the_first_positions[store]",
        ("eventstore/log.py", "    if not known:", "    if True:"),
    ),
    guard(
        "chain recomputed",
        f"{NAMED}[a column altered-25]",
        (INTEGRITY, "if row_hash(head.chain, *columns) != chain:", "if False:"),
    ),
    guard(
        "missing rows noticed",
        f"{E}/test_store_open.py::test_a_missing_row_stops_reading",
        (STORE, "if rows and rows[-1][0] != after + len(rows):", "if False:"),
    ),
    guard(
        "witness compared: a cut",
        f"{WAL}[cut at a random offset-cut-60]",
        (INTEGRITY, "        raise cut(end, witness)", "        return"),
    ),
    guard(
        "witness compared: a rewrite",
        f"{NAMED}[a row rewritten with all the chain behind it-25]",
        (INTEGRITY, "if row[0] != witness.chain:", "if False:"),
    ),
    guard(
        "witness written after each batch",
        f"{WAL}[one bit flipped-flip-60]",
        (STORE, "            self._witness.see(head)\n\n\ndef _identity", "            pass\n\n\ndef _identity"),
    ),
    guard(
        "witness never goes back",
        f"{E}/test_store_open.py::test_a_witness_never_goes_back",
        ("eventstore/witness.py", "seen.position < head.position", "True"),
    ),
    guard(
        "commits name their event",
        f"{A}/test_commits.py::test_each_commit_names_the_event_it_was_made_from",
        (
            "loop/effects/attempts.py",
            'body = f"{prepared.body}\\n{trailer(Head(event.position, event.chain))}"',
            "body = prepared.body",
        ),
    ),
    guard(
        "commits compared",
        f"{A}/test_damage.py::test_commits_in_git_tell_of_a_log_rewritten_with_its_witness",
        (RECOVERY, "    if not bad:\n", "    if True:\n"),
    ),
    guard(
        "errors of the driver are ours",
        f"{A}/test_damage.py::test_a_damaged_file_is_told_or_gives_the_rows_as_they_were[one bit flipped-flip-60]",
        ("eventstore/connection.py", "except UnicodeDecodeError as error:", "except ZeroDivisionError as error:"),
    ),
    guard(
        "what JSON cannot hold is refused",
        f"{A}/test_bad_text.py::test_what_json_cannot_hold_is_refused_and_all_else_comes_back[300]",
        (CODEC, 'if (b"null" in raw or back != data) and', "if False and"),
    ),
    guard(
        "a full disk becomes one sentence",
        f"{A}/test_full_disk.py::test_a_limit_on_file_size[12]",
        ("eventstore/connection.py", '("SQLITE_IOERR", "SQLITE_NOLFS")', '("SQLITE_NOLFS",)'),
    ),
    guard(
        "backup by SQLite",
        f"{A}/test_restore.py::test_a_backup_made_while_two_write_holds_and_is_a_prefix[8]",
        (
            "eventstore/maintenance.py",
            'conn.execute("VACUUM INTO ?", (str(partial),))',
            '__import__("shutil").copy(path, partial)',
        ),
    ),
    guard(
        "backup verified",
        f"{E}/test_maintenance.py::test_a_damaged_log_is_not_backed_up",
        ("eventstore/maintenance.py", "    head = _verify(copy, witness)\n", "    head = Head(0, bytes(32))\n"),
    ),
    guard(
        "restore: the old WAL goes",
        f"{A}/test_restore.py::test_a_restore_works_whatever_the_log_is_in[crashed]",
        (RECOVERY, 'for tail in ("-wal", "-shm"):', "for tail in ():"),
    ),
    guard(
        "restore: alone",
        f"{A}/test_restore.py::test_a_restore_beside_a_loop_or_another_process_is_refused",
        (RECOVERY, "        _check_alone(path)\n", ""),
    ),
    guard(
        "restore: witness",
        f"{A}/test_restore.py::test_projections_ahead_of_a_restored_log_are_put_right",
        (RECOVERY, "    write_witness(path, head)\n", ""),
    ),
    guard(
        "restore: tables anew",
        f"{A}/test_restore.py::test_projections_ahead_of_a_restored_log_are_put_right",
        (RECOVERY, "tables = _write_tables(home, folded)", "tables = ('nov21',)"),
    ),
    guard(
        "restore: strangers aside",
        f"{A}/test_restore.py::test_projections_ahead_of_a_restored_log_are_put_right",
        (RECOVERY, "orphans = _move_strangers(home, folded, stamp)", "orphans = ('nov22',)"),
    ),
    guard(
        "followers poll",
        f"{E}/test_follow.py::test_without_its_socket_a_follower_polls",
        ("eventstore/follow.py", "await bell.wait(poll_s)", "await bell.wait(3600)"),
    ),
    guard(
        "writers ring",
        f"{E}/test_follow.py::test_a_ring_wakes_a_follower_at_once",
        (STORE, "        ring(self._bells)", "        pass"),
    ),
    guard(
        "followers go on behind what they saw",
        f"{A}/test_followers.py::test_followers_see_each_event_once_and_in_order[200-6]",
        ("eventstore/follow.py", "after = events[-1].position", "after = events[-1].position - 1"),
    ),
    guard(
        "types unknown here pass through",
        f"{E}/test_golden.py::test_a_golden_event_decodes_and_encodes_to_the_same_text",
        (CODEC, "if kind is None or not 1 <= version < kind.VERSION:", "if False:"),
    ),
]


def copy_to(folder: Path) -> None:
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "logs"))
    for name in FILES:
        shutil.copy(ROOT / name, folder / name)


def run(folder: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    command = (
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--basetemp",
        str(folder / "tmp"),
        *tests,
    )
    environ = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    environ.pop("PYTEST_ADDOPTS", None)
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_with_all_guards_the_copy_passes(tmp_path: Path) -> None:
    copy_to(tmp_path)
    done = run(tmp_path, *sorted({guard.test for guard in GUARDS}))
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("guard", GUARDS, ids=[guard.what for guard in GUARDS])
def test_without_its_guard_a_test_fails(tmp_path: Path, tally: Tally, guard: Guard) -> None:
    count = tally("each test fails when its guard is removed", "guards removed one at a time from a copy of the code")
    copy_to(tmp_path)
    for name, old, new in guard.edits:
        text = (tmp_path / name).read_text()
        assert text.count(old) == 1, f"{name} has not exactly one {old!r}"
        (tmp_path / name).write_text(text.replace(old, new))
    done = run(tmp_path, guard.test)
    assert done.returncode in (0, 1), done.stdout[-3000:] + done.stderr[-1000:]
    assert count.see(done.returncode == 1), f"{guard.test} does not notice"
