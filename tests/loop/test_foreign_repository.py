"""A repository that knows nothing of Nightshift is optimised with nothing but a nightshift.toml."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

GIT = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
IDENTITY = ("-c", "user.name=A Person", "-c", "user.email=person@example.org")


def git(folder: Path, *args: str) -> str:
    command = ("git", *IDENTITY, *args)
    done = subprocess.run(command, cwd=folder, env={**os.environ, **GIT}, check=True, capture_output=True, text=True)
    return done.stdout


def nightshift(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "nightshift", "-C", str(folder), *args)
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def repository(folder: Path, settings: str, **files: str) -> Path:
    """A git repository with *files* (`__` stands for a dot in their names) and a nightshift.toml."""
    folder.mkdir()
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    (folder / "nightshift.toml").write_text(settings)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "a program of someone's own")
    return folder


def optimise(folder: Path, experiments: int = 5) -> list[list[str]]:
    """Run it and return the rows of results.tsv, header included."""
    asked = nightshift(folder, "start", "night", "--experiments", str(experiments), "--seed", "1")
    assert asked.returncode == 0, asked.stderr
    served = nightshift(folder, "loop", "--until-idle")
    assert served.returncode == 0, served.stderr
    printed = nightshift(folder, "results")
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout == (folder / "results.tsv").read_text()
    return [line.split("\t") for line in printed.stdout.splitlines()]


SWEEP_X = '[proposer]\nkind = "sweep"\n[sweep]\nX = { low = -4.0, high = 8.0 }\n'
PARABOLA = "X = 8.0\nprint('some noise')\nprint(f'cost: {(X - 2) ** 2 + 1:.6f}')\n"


def check_branch(folder: Path, rows: list[list[str]]) -> None:
    """The kept rows after the baseline are the commits of the branch, oldest first."""
    kept = [row[0] for row in rows[2:] if row[3] == "keep"]
    commits = git(folder, "rev-list", "--reverse", "main..autoresearch/night").split()
    assert [commit[:7] for commit in commits] == kept


def test_a_printed_number_is_minimised(tmp_path: Path) -> None:
    settings = (
        '[objective]\nname = "cost"\ndirection = "minimize"\neditable = ["model.py"]\n'
        '[experiment]\ncommand = ["python", "model.py"]\nbudget_s = 5\ntimeout_s = 10\n' + SWEEP_X
    )
    folder = repository(tmp_path / "cost", settings, model__py=PARABOLA)
    head = git(folder, "rev-parse", "HEAD")
    rows = optimise(folder)
    assert rows[0] == ["commit", "cost", "memory_gb", "status", "description"]
    assert rows[1][1:] == ["37.000000", "0.0", "keep", "baseline"]
    assert len(rows) == 7
    best = min(float(row[1]) for row in rows[1:] if row[3] == "keep")
    assert best < 37
    check_branch(folder, rows)
    assert git(folder, "status", "--porcelain") == "" and git(folder, "rev-parse", "HEAD") == head


def test_a_number_in_a_json_file_is_maximised(tmp_path: Path) -> None:
    settings = (
        '[objective]\nname = "accuracy"\ndirection = "maximize"\nscore = "json"\nscore_file = "out/score.json"\n'
        'score_key = "accuracy"\neditable = ["model.py"]\nprotected = ["judge.py"]\n'
        '[experiment]\ncommand = ["python", "judge.py"]\nbudget_s = 5\ntimeout_s = 10\n' + SWEEP_X
    )
    judge = (
        "import json, pathlib, runpy\n"
        "x = runpy.run_path('model.py')['X']\n"
        "pathlib.Path('out').mkdir(exist_ok=True)\n"
        "pathlib.Path('out/score.json').write_text(json.dumps({'accuracy': 1 - abs(x - 2) / 10}))\n"
    )
    folder = repository(tmp_path / "accuracy", settings, model__py="X = 8.0\n", judge__py=judge)
    rows = optimise(folder)
    kept = [float(row[1]) for row in rows[1:] if row[3] == "keep"]
    assert kept[0] == 0.4 and kept == sorted(set(kept)) and kept[-1] > 0.4
    check_branch(folder, rows)


def test_a_command_that_must_pass_ends_the_run_when_it_does(tmp_path: Path) -> None:
    settings = (
        '[objective]\nname = "passes"\ndirection = "pass"\neditable = ["program.py"]\nprotected = ["test_it.py"]\n'
        '[experiment]\ncommand = ["python", "test_it.py"]\nbudget_s = 5\ntimeout_s = 10\n'
        '[proposer]\nkind = "sweep"\n[sweep]\nANSWER = { choices = [40, 41, 42] }\n'
    )
    check = "import runpy, sys\nsys.exit(runpy.run_path('program.py')['ANSWER'] != 42)\n"
    folder = repository(tmp_path / "passes", settings, program__py="ANSWER = 0\n", test_it__py=check)
    rows = optimise(folder, experiments=30)
    assert rows[1][1:] == ["0.000000", "0.0", "keep", "baseline"]
    assert rows[-1][1] == "1.000000" and rows[-1][3] == "keep"
    assert all(row[1] == "0.000000" and row[3] == "discard" for row in rows[2:-1])
    assert "ANSWER = 42" in git(folder, "show", "autoresearch/night:program.py")


def test_a_guard_refuses_a_gain(tmp_path: Path) -> None:
    settings = (
        '[objective]\nname = "cost"\ndirection = "minimize"\neditable = ["model.py"]\nprotected = ["guard.py"]\n'
        '[experiment]\ncommand = ["python", "model.py"]\nbudget_s = 5\ntimeout_s = 10\n'
        '[guard]\ncommand = ["python", "guard.py"]\ntimeout_s = 10\n' + SWEEP_X
    )
    guard = "import runpy, sys\nsys.exit(3 if runpy.run_path('model.py')['X'] < 8 else 0)\n"
    folder = repository(tmp_path / "guarded", settings, model__py=PARABOLA, guard__py=guard)
    rows = optimise(folder)
    assert [row[3] for row in rows[1:]] == ["keep"] + ["discard"] * 5
    assert git(folder, "rev-parse", "autoresearch/night") == git(folder, "rev-parse", "main")
    listed = nightshift(folder, "experiment", "list", "--json")
    reasons = [row["reason"] for row in json.loads(listed.stdout)]
    assert "guard failed with exit code 3" in reasons


@pytest.mark.parametrize("score", ["stdout", "json"])
def test_what_is_not_scored_is_a_crash_and_the_run_goes_on(tmp_path: Path, score: str) -> None:
    """An experiment that divides by zero has no score, whichever way the score is read."""
    where = 'score = "json"\nscore_file = "s.json"\nscore_key = "cost"\n' if score == "json" else ""
    settings = (
        f'[objective]\nname = "cost"\ndirection = "minimize"\n{where}editable = ["model.py"]\n'
        '[experiment]\ncommand = ["python", "model.py"]\nbudget_s = 5\ntimeout_s = 10\n'
        '[proposer]\nkind = "sweep"\n[sweep]\nX = { choices = [0, 1, 2] }\n'
    )
    model = "import json\nX = 3\ny = 1 / X\nprint(f'cost: {X}')\njson.dump({'cost': X}, open('s.json', 'w'))\n"
    folder = repository(tmp_path / "crashes", settings, model__py=model)
    rows = optimise(folder, experiments=6)
    crashed = [row for row in rows[1:] if row[3] == "crash"]
    assert crashed and all(row[1:3] == ["0.000000", "0.0"] for row in crashed)
    assert "1.000000" in {row[1] for row in rows if row[3] == "keep"}
