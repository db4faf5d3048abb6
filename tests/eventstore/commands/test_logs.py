"""`nightshift log`: the rows as they are, and whether they hold."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import Result

from eventstore import events as e
from eventstore.home import Home
from eventstore.maintenance import verify

Nightshift = Callable[..., Result]


def test_path_prints_the_path_also_before_there_is_a_log(nightshift: Nightshift, home: Home) -> None:
    assert nightshift("log", "path").output == f"{home.log_path}\n"


def test_tail_prints_the_last_events_one_a_line(nightshift: Nightshift, finished: Any) -> None:
    lines = nightshift("log", "tail", "-n", 2).output.splitlines()
    assert [line.split()[4] for line in lines] == ["experiment.abandoned", "run.finished"]
    assert lines[1].endswith('loop@gpu-box  {"reason": "stopped", "why": "stopped by cli:ada"}')
    assert nightshift("log", "tail", "-n", 0).output == ""


def test_tail_filters_by_the_beginning_of_the_type(nightshift: Nightshift, finished: Any) -> None:
    lines = nightshift("log", "tail", "-n", 3, "--type", "experiment.de", "--json").output.splitlines()
    assert [json.loads(line)["data"]["experiment"] for line in lines] == [2, 3, 4]


def test_tail_as_json_is_the_end_of_the_export(nightshift: Nightshift, finished: Any) -> None:
    export = nightshift("log", "export", "-").output.splitlines()
    assert nightshift("log", "tail", "--json", "-n", 1000).output.splitlines() == export
    assert nightshift("log", "tail", "--json", "-n", 5).output.splitlines() == export[-5:]


def test_tail_follow_prints_what_comes_and_ends_well_with_ctrl_c(finished: Any, home: Home) -> None:
    command = [sys.executable, "-m", "nightshift", "-C", str(home.root), "log", "tail"]
    command += ["--follow", "--json", "-n", "1", "--type", "trouble"]
    finished.write(("", e.TroubleNoticed(kind="disk", what="full", since="2026-11-21T08:00:00.000000Z")))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tail:
        try:
            assert tail.stdout is not None
            assert json.loads(tail.stdout.readline())["type"] == "trouble.noticed"
            finished.write(("", e.LoopStopped(why="asked")), ("", e.TroubleCleared(kind="disk", what="free again")))
            assert json.loads(tail.stdout.readline())["type"] == "trouble.cleared"
            tail.send_signal(signal.SIGINT)
            assert tail.wait(60) == 0
            assert tail.stderr is not None and tail.stderr.read() == ""
        finally:
            tail.kill()


def test_verify_says_how_much_holds(nightshift: Nightshift, finished: Any, home: Home) -> None:
    head = verify(home.log_path)
    expected = f"The log holds: {head.position} events, the last one has the chain {head.chain.hex()}.\n"
    assert nightshift("log", "verify").output == expected


def test_verify_names_the_position_that_was_altered(nightshift: Nightshift, finished: Any, home: Home) -> None:
    conn = sqlite3.connect(home.log_path)
    conn.execute("DROP TRIGGER events_no_update")
    conn.execute("UPDATE events SET actor = 'someone' WHERE position = 7")
    conn.commit()
    conn.close()
    result = nightshift("log", "verify")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "does not hold at position 7" in result.stderr


def test_export_writes_whole_files_and_replaces_none_unasked(
    nightshift: Nightshift, finished: Any, tmp_path: Path
) -> None:
    file = tmp_path / "nov21.jsonl"
    count = len(nightshift("log", "export", "-").output.splitlines())
    assert nightshift("log", "export", file).output == f"Exported {count} events to {file}.\n"
    assert file.read_bytes() == nightshift("log", "export", "-").stdout_bytes
    file.write_text("something else")
    result = nightshift("log", "export", file)
    assert result.exit_code == 1 and "name a new file, or replace it with --force" in result.stderr
    assert file.read_text() == "something else"
    assert nightshift("log", "export", file, "--force").exit_code == 0
    assert [json.loads(line)["position"] for line in file.read_text().splitlines()] == list(range(1, count + 1))


def test_backup_makes_a_log_that_holds_and_never_overwrites(
    nightshift: Nightshift, finished: Any, home: Home, tmp_path: Path
) -> None:
    file = tmp_path / "copy.db"
    assert nightshift("log", "backup", file).exit_code == 0
    assert verify(file) == verify(home.log_path)
    result = nightshift("log", "backup", file)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "exists" in result.stderr


def test_check_answers_one_question_after_the_other(nightshift: Nightshift, finished: Any, home: Home) -> None:
    result = nightshift("log", "check")
    assert result.exit_code == 0
    lines = [line.split(maxsplit=2) for line in result.stdout.splitlines()]
    asked = ["pages", "schema", "chain", "witness", "events", "tables"]  # no commits: the folder is no repository
    assert [(holds, what) for holds, what, _ in lines] == [("ok", what) for what in asked]
    head = verify(home.log_path)
    assert lines[2][2].endswith(f"the last {head.chain.hex()}")
    assert lines[3][2] == f"it saw position {head.position}, and the log has it"


def test_check_names_each_fault_by_itself(nightshift: Nightshift, finished: Any, home: Home) -> None:
    conn = sqlite3.connect(home.log_path)
    conn.execute("DROP TRIGGER events_no_update")
    conn.execute("UPDATE events SET actor = 'someone' WHERE position = 7")
    conn.commit()
    conn.close()
    home.results_path("nov21").parent.mkdir(parents=True)
    home.results_path("nov21").write_text("made up\n")
    result = nightshift("log", "check")
    bad = [line for line in result.stdout.splitlines() if line.startswith("BAD")]
    assert result.exit_code == 1 and result.stderr == ""
    assert [line.split()[1] for line in bad] == ["schema", "chain", "tables"]
    assert "trigger events_no_update is missing" in bad[0]
    assert "does not hold at position 7: the row is not what was written" in bad[1]
    assert "the results.tsv of nov21 is not what the log gives" in bad[2]
    answers = json.loads(nightshift("log", "check", "--json").stdout)
    assert [answer["what"] for answer in answers if not answer["holds"]] == ["schema", "chain", "tables"]


def test_check_tells_of_a_cut_log_and_of_one_that_is_gone(nightshift: Nightshift, finished: Any, home: Home) -> None:
    home.log_path.unlink()
    result = nightshift("log", "check")
    assert result.exit_code == 1 and "the log was cut, it ends at 0" in result.stderr


def test_restore_puts_a_backup_back_and_keeps_what_was_there(
    nightshift: Nightshift, finished: Any, home: Home, tmp_path: Path
) -> None:
    saved = tmp_path / "saved.db"
    nightshift("log", "backup", saved)
    before = verify(home.log_path)
    finished.write(("", e.LoopStopped(why="asked")))
    later = verify(home.log_path)
    result = nightshift("log", "restore", saved)
    assert result.exit_code == 0, result.output
    first, second = result.stdout.splitlines()
    assert first == f"Restored {before.position} events from {saved}; 1 results.tsv were written anew."
    aside = Path(second.removeprefix("What was there before is in ").removesuffix("."))
    assert aside.parent == home.state / "set-aside"
    assert verify(aside / "events.db") == later
    assert verify(home.log_path) == before
    assert nightshift("log", "check").exit_code == 0
    assert home.results_path("nov21").read_bytes() == nightshift("results", "nov21").stdout_bytes


def test_restore_beside_a_loop_is_refused(nightshift: Nightshift, finished: Any, home: Home, tmp_path: Path) -> None:
    saved = tmp_path / "saved.db"
    nightshift("log", "backup", saved)
    with home.hold():
        result = nightshift("log", "restore", saved)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "another loop already serves this workspace" in result.stderr
    missing = nightshift("log", "restore", tmp_path / "missing.db")
    assert missing.exit_code == 1 and "there is no file" in missing.stderr


def test_without_a_log_each_command_says_so(nightshift: Nightshift, home: Home) -> None:
    for command in (("tail",), ("verify",), ("check",), ("export", "-"), ("backup", home.root / "b.db")):
        result = nightshift("log", *command)
        assert result.exit_code == 1, command
        assert result.stderr.startswith("Error: there is no log at ")
    assert not home.state.exists()
