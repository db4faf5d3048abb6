"""Every door to a log asks which SQLite it runs on; versions are faked, fixed ones and broken ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from eventstore.home import Home
from eventstore.maintenance import backup
from eventstore.store import Store
from tests.attack.conftest import fill
from tests.conftest import Tally

ROOT = Path(__file__).parents[2]
VERSIONS = {
    "3.6.23": False, "3.40.1": False, "3.44.5": False, "3.44.6": True, "3.45.0": False, "3.50.6": False, "3.50.7": True,
    "3.51.2": False, "3.51.3": True, "3.52.0": False, "3.53.0": True, "3.53.4": True,
}  # fmt: skip
"""Whether a log may be written with it."""

DOORS = """
import asyncio, io, sys
from pathlib import Path
from click.testing import CliRunner
from sqlite_utils.utils import sqlite3
from eventstore import maintenance, recovery
from eventstore.errors import EventstoreError, SqliteUnsafe
from eventstore.home import Home
from eventstore.store import Store
from eventstore.worker import Worker
import nightshift

root, version = Path(sys.argv[1]), tuple(map(int, sys.argv[2].split(".")))
home = Home(root)
sqlite3.sqlite_version_info = version

async def work():
    async with Worker.open(home.log_path): pass

def command(*words):
    done = CliRunner().invoke(nightshift.main, ["-C", str(root), *words])
    if "can corrupt a log" in done.output: raise SqliteUnsafe("said")
    if done.exception and not isinstance(done.exception, SystemExit): raise done.exception

doors = {
    "open": lambda: Store.open(root / "new" / "events.db").close(),
    "reopen": lambda: Store.open(home.log_path, check=False).close(),
    "worker": lambda: asyncio.run(work()),
    "verify": lambda: maintenance.verify(home.log_path),
    "backup": lambda: maintenance.backup(home.log_path, root / "saved.db"),
    "export": lambda: maintenance.export(home.log_path, io.StringIO()),
    "check": lambda: recovery.check(home),
    "restore": lambda: recovery.restore(home, root / "before.db", "stamp"),
    "log verify": lambda: command("log", "verify"),
    "log check": lambda: command("log", "check"),
    "log tail": lambda: command("log", "tail"),
    "pause": lambda: command("pause"),
}
for name, door in doors.items():
    try: door(); answer = "taken"
    except SqliteUnsafe as error: answer = "refused"
    print(name, "=", answer)
"""


@pytest.mark.parametrize("version", VERSIONS)
def test_every_door_asks_the_gate(tmp_path: Path, tally: Tally, version: str) -> None:
    count = tally("no log is opened with an SQLite that may corrupt it", "12 doors, versions faked")
    (tmp_path / "nightshift.toml").touch()
    home = Home(tmp_path)
    with Store.open(home.log_path) as store:
        fill(store, 5)
    backup(home.log_path, tmp_path / "before.db")
    files = {path: path.read_bytes() for path in home.state.iterdir() if path.is_file()}
    done = subprocess.run(
        [sys.executable, "-c", DOORS, str(tmp_path), version], cwd=ROOT, check=True, capture_output=True, text=True
    )
    answers = dict(line.split(" = ") for line in done.stdout.splitlines())
    assert len(answers) == 12
    for answer in answers.values():
        count.see(answer == ("taken" if VERSIONS[version] else "refused"))
    print(answers)
    if not VERSIONS[version]:
        assert not (tmp_path / "new" / "events.db").exists()
        assert files == {path: path.read_bytes() for path in files}
    assert count.held == count.made
