"""Whole nights with Claude: a real loop process, real git, the real SDK, and a Messages API on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from eventstore import events as e
from eventstore.envelope import Event
from eventstore.home import Home
from eventstore.maintenance import verify
from eventstore.projections.results import Results
from eventstore.projections.run_state import State
from eventstore.store import Store
from tests.loop.messages_api import Answer, MessagesApi, blocks, error, propose, read_experiment

ROOT = Path(__file__).parents[2]
KEY = "sk-test-never-to-be-seen"
PROGRAM = """\
import os
print("seen:", sorted(name for name in os.environ if "ANTHROPIC" in name))

COST = 100.0
SCALE = 1.0

# far enough from the lines above for a merge

SPARE = 0
print("cost:", COST * SCALE)
"""
SETTINGS = """\
[objective]
name = "cost"
direction = "minimize"
editable = ["program.py"]
protected = ["guard.py"]
[experiment]
command = ["python", "program.py"]
budget_s = 5
timeout_s = 20
[proposer]
kind = "claude"
retry_s = 0.05
[claude]
timeout_s = 20
"""
SWEEP = "[sweep]\nSCALE = { low = 2.0, high = 3.0 }\n"


def make_workspace(folder: Path, settings: str = SETTINGS) -> Home:
    folder.mkdir()
    for name, text in {
        "program.py": PROGRAM,
        "guard.py": "LIMIT = 1\n",
        "nightshift.toml": settings,
        "program.md": "# Make it cheap\n",
    }.items():
        (folder / name).write_text(text)
    identity = ("-c", "user.name=A Person", "-c", "user.email=person@example.org")
    for args in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-q", "-m", "start")):
        subprocess.run(("git", *identity, *args), cwd=folder, check=True)
    return Home(folder)


def environ(url: str, key: str = KEY) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ANTHROPIC")}
    return {**clean, "PYTHONPATH": str(ROOT), "ANTHROPIC_BASE_URL": url, **({"ANTHROPIC_API_KEY": key} if key else {})}


def command(home: Home, *words: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "nightshift", "-C", str(home.root), *words)


async def nightshift(home: Home, url: str, *words: str, key: str = KEY, code: int = 0) -> str:
    """Run one command to its end and return what it printed."""
    done = await asyncio.to_thread(
        subprocess.run,
        command(home, *words),
        capture_output=True,
        text=True,
        timeout=90,
        env=environ(url, key),
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@contextmanager
def loop_process(home: Home, url: str) -> Iterator[subprocess.Popen[bytes]]:
    loop = subprocess.Popen(
        command(home, "loop", "--until-idle"),
        env=environ(url),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield loop
    finally:
        loop.kill()
        loop.wait()


def events_of(home: Home) -> list[Event]:
    verify(home.log_path)
    with Store.open(home.log_path) as log:
        return list(log.stream())


async def until(home: Home, kind: type[e.Data], count: int = 1) -> list[Event]:
    """Wait until the log holds *count* events of *kind*."""
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        if home.log_path.exists():
            events = await asyncio.to_thread(events_of, home)
            if sum(isinstance(event.data, kind) for event in events) >= count:
                return events
        await asyncio.sleep(0.05)
    raise AssertionError(f"no {count} {kind.TYPE} came")


def data_of(events: list[Event], kind: Any) -> list[Any]:
    return [event.data for event in events if isinstance(event.data, kind)]


def file_at(home: Home, commit: str, path: str) -> str:
    show = ("git", "show", f"{commit}:{path}")
    return subprocess.run(show, cwd=home.root, check=True, capture_output=True, text=True).stdout


def costs(value: float, **fields: Any) -> Answer:
    """An edit that fits whatever was kept: a new line before the others."""
    edit = blocks("program.py", ("SCALE = 1.0\n", f"COST = {value}\nSCALE = 1.0\n"))
    return propose(edit, **{"description": f"cost {value}", **fields})


# ---------------------------------------------------------------- a good night


async def test_a_night_keeps_discards_repairs_and_refuses_and_people_steer_it(tmp_path: Path) -> None:
    home = make_workspace(tmp_path / "work")
    protected = propose(
        blocks("guard.py", ("LIMIT", "NO_LIMIT")),
        experiment=2,
        description="no limit",
        idea={"answer": "declined", "why": "a limit first"},
        times=2,
    )
    script = [
        costs(90.0, experiment=1, idea={"answer": "used", "why": ""}),
        protected,
        costs(120.0, experiment=2, idea={"answer": "declined", "why": "it does not fit"}),
        propose(blocks("program.py", ("SPARE = 0\n", "SPARE = misspelt\n")), experiment=3, description="spare"),
        propose(blocks("program.py", ("SPARE = misspelt\n", "COST = 60.0\n")), experiment=3, description="mend it"),
        read_experiment(2, experiment=4),
        costs(70.0, experiment=4),
    ]
    async with MessagesApi(script) as api:
        await nightshift(home, api.url, "idea", "try less", "--by", "Ada")
        await nightshift(home, api.url, "idea", "try more", "--by", "Grace")
        await nightshift(home, api.url, "start", "night", "--experiments", "4", "--usd", "20")
        await nightshift(home, api.url, "loop", "--until-idle")
        listed = await nightshift(home, api.url, "results", "night", "--refused")
        ideas = await nightshift(home, api.url, "idea", "list", "--all")
    events = events_of(home)
    state, results = State.of(events), Results()
    for event in events:
        results.apply(event)
    verdicts = {row.experiment: (row.status, row.description) for row in results.rows("night")}
    assert verdicts == {
        0: ("keep", "baseline"),
        1: ("keep", "cost 90.0"),
        2: ("discard", "cost 120.0"),
        3: ("keep", "spare"),
        4: (verdicts[4][0], "cost 70.0"),  # a keep if it was measured while 3 was repaired
    }
    assert "edit touches a protected file" in listed and "no limit" in listed and "Repaired after a crash: 3" in listed
    assert "Ada" in ideas and "Grace" in ideas and "it does not fit" in ideas
    assert [x.experiment for x in data_of(events, e.IdeaUsed)] == [1]
    failed = data_of(events, e.ProposalFailed)
    assert [(x.experiment, x.failure, x.description) for x in failed] == [(2, "edit_touches_protected", "no limit")]
    calls = [call for x in data_of(events, (e.ProposalReceived, e.ProposalFailed)) for call in x.calls]
    assert len(calls) == len(api.requests) == 8
    assert state.runs["night"].usd == pytest.approx(sum(call.usd for call in calls))
    steps = [x.step for x in data_of(events, e.ExperimentPrepared) if x.experiment == 3]
    assert steps == ["first", "repair"]
    assert_secret_is_nowhere(home)


def assert_secret_is_nowhere(home: Home) -> None:
    """The key is in no file of the workspace, and no training saw a variable of that name."""
    for path in home.root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert KEY.encode() not in path.read_bytes(), path
    logs = list(home.state.glob("runs/*/*/*/run.log"))
    assert logs and all("seen: []" in path.read_text() for path in logs)


async def test_what_was_tried_before_is_sent_back_and_not_tried_again(tmp_path: Path) -> None:
    home = make_workspace(tmp_path / "work")
    script = [costs(120.0, experiment=1), costs(120.0, experiment=2, delay_s=0.5), costs(130.0, experiment=2)]
    async with MessagesApi(script) as api:
        await nightshift(home, api.url, "start", "night", "--experiments", "2")
        await nightshift(home, api.url, "loop", "--until-idle")
    events = events_of(home)
    told = json.dumps([request.body["messages"][-1] for request in api.requests])
    assert told.count("the same files as experiment 1") == 1
    assert [x.score for x in data_of(events, e.ExperimentDecided)] == [100.0, 120.0, 130.0]
    assert not data_of(events, e.ProposalFailed)


async def test_an_edit_of_the_program_is_told_to_the_next_proposal_and_committed_with_it(tmp_path: Path) -> None:
    home = make_workspace(tmp_path / "work")
    (tmp_path / "new.md").write_text("# Make it dear\n")
    script = [costs(90.0 - n, experiment=n, delay_s=1.0) for n in (1, 2, 3)]
    async with MessagesApi(script) as api:
        await nightshift(home, api.url, "start", "night", "--experiments", "3")
        with loop_process(home, api.url) as loop:
            await until(home, e.ProposalRequested)
            await nightshift(home, api.url, "program", "edit", "--file", str(tmp_path / "new.md"))
            assert await asyncio.to_thread(loop.wait, 60) == 0
        told = [json.dumps(call.body["system"]) for call in api.requests]
        log = json.loads(await nightshift(home, api.url, "program", "log", "--json"))
    events = events_of(home)
    new = data_of(events, e.ProgramEdited)[0].hash
    under = {x.experiment: x.program_hash for x in data_of(events, e.ProposalRequested)}
    assert new in under.values()
    for number, text in zip(under, told, strict=True):
        assert ("Make it dear" in text) == (under[number] == new)
    commits = {x.experiment: x.commit for x in data_of(events, e.ExperimentCommitted)}
    for number, used in under.items():
        text = file_at(home, commits[number], "program.md")
        assert ("Make it dear" in text) == (used == new)
    assert sum(version["experiments"] for version in log) == 3


# ---------------------------------------------------------------- it never stops asking


async def test_killed_during_a_proposal_nothing_is_lost_and_the_money_counts(tmp_path: Path) -> None:
    home = make_workspace(tmp_path / "work")
    async with MessagesApi([costs(90.0, experiment=1, delay_s=30.0), costs(90.0, experiment=1)]) as api:
        await nightshift(home, api.url, "start", "night", "--experiments", "1", "--usd", "20")
        with loop_process(home, api.url) as loop:
            await until(home, e.TrainingFinished)
            loop.send_signal(signal.SIGKILL)
            loop.wait()
        reserved = data_of(events_of(home), e.ProposalRequested)[0].usd_reserved
        await nightshift(home, api.url, "loop", "--until-idle")
    events = events_of(home)
    lost = data_of(events, e.ProposalFailed)
    assert [(x.experiment, x.ask, x.failure, x.usd) for x in lost] == [(1, 0, "lost", reserved)]
    assert [(x.experiment, x.ask) for x in data_of(events, e.ProposalRequested)] == [(1, 0), (1, 0)]
    answered = data_of(events, e.ProposalReceived)[0].usd
    assert 0 < answered < reserved
    assert State.of(events).runs["night"].usd == pytest.approx(reserved + answered)
    assert [x.verdict for x in data_of(events, e.ExperimentDecided)] == ["keep", "keep"]


async def test_offline_and_back_it_goes_on(tmp_path: Path) -> None:
    home = make_workspace(tmp_path / "work")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    await nightshift(home, url, "start", "night", "--experiments", "1")
    with loop_process(home, url) as loop:
        events = await until(home, e.ProposerWaiting)
        assert loop.poll() is None
        status = await nightshift(home, url, "status")
        async with MessagesApi([costs(90.0, experiment=1)], port=port):
            assert await asyncio.to_thread(loop.wait, 60) == 0
    assert "claude" in status and "cannot be reached" in status
    assert {x.failure for x in data_of(events, e.ProposalFailed)} == {"offline"}
    events = events_of(home)
    pauses = [x.retry_at for x in data_of(events, e.ProposalFailed)]
    assert all(pauses) and pauses == sorted(pauses)
    assert [x.verdict for x in data_of(events, e.ExperimentDecided)] == ["keep", "keep"]


async def test_while_claude_is_overloaded_the_sweep_stands_in(tmp_path: Path) -> None:
    home = make_workspace(tmp_path / "work", SETTINGS + SWEEP)
    script = [*[error(529) for _ in range(4)], costs(90.0, times=0)]
    async with MessagesApi(script) as api:
        await nightshift(home, api.url, "start", "night", "--experiments", "30")
        await nightshift(home, api.url, "loop", "--until-idle")
    events = events_of(home)
    switches = [(x.from_kind, x.to_kind) for x in data_of(events, e.ProposerSwitched)]
    assert switches[:2] == [("claude", "sweep"), ("sweep", "claude")]
    kinds = {x.kind for x in data_of(events, e.ProposalRequested)}
    assert kinds == {"claude", "sweep"}
    assert State.of(events).runs["night"].verdicts == 30


async def test_rate_limits_are_honoured(tmp_path: Path) -> None:
    home = make_workspace(tmp_path / "work")
    script = [error(429, headers={"retry-after": "1"}), costs(90.0, experiment=1)]
    async with MessagesApi(script) as api:
        await nightshift(home, api.url, "start", "night", "--experiments", "1")
        await nightshift(home, api.url, "loop", "--until-idle")
    times = [event.at for event in events_of(home) if isinstance(event.data, e.ProposalRequested)]
    failed = data_of(events_of(home), e.ProposalFailed)
    assert [x.failure for x in failed] == ["rate_limited"]
    assert len(times) == 2 and times[1] >= failed[0].retry_at


# ---------------------------------------------------------------- money and approval


async def test_the_money_is_never_overspent_and_the_run_says_that_it_is_spent(tmp_path: Path) -> None:
    home = make_workspace(tmp_path / "work")
    script = [costs(99.0 - n, experiment=n, output_tokens=2_000) for n in range(1, 40)]
    async with MessagesApi(script) as api:
        await nightshift(home, api.url, "start", "night", "--usd", "0.3")
        await nightshift(home, api.url, "loop", "--until-idle")
    events = events_of(home)
    run = State.of(events).runs["night"]
    assert 0.2 < run.usd <= 0.3
    assert [x.limit for x in data_of(events, e.BudgetWarned)] == ["usd"]
    assert [x.reason for x in data_of(events, e.RunFinished)] == ["usd"]


@pytest.mark.parametrize(
    ("settings", "key", "usd", "code", "words"),
    [
        (SETTINGS, "", "5", "proposer", "ANTHROPIC_API_KEY"),
        (SETTINGS + 'model = "claude-next"\n', KEY, "5", "no_price", "claude-next"),
    ],
    ids=["no key", "a model without a price"],
)
async def test_what_cannot_be_paid_for_is_refused_with_the_remedy(
    tmp_path: Path, settings: str, key: str, usd: str, code: str, words: str
) -> None:
    home = make_workspace(tmp_path / "work", settings)
    asked = e.RunRequested(tag="night", from_ref="HEAD", zone="UTC", limits=e.Limits(usd=float(usd)))
    with Store.open(home.log_path) as log:
        from eventstore.envelope import NewEvent

        log.append([NewEvent("ask", "night", "2026-01-01T00:00:00.000000Z", "cli:ada", asked)])
    await nightshift(home, "http://127.0.0.1:9", "loop", "--until-idle", key=key)
    (refused,) = data_of(events_of(home), e.RunRefused)
    assert (refused.code, words in refused.why + refused.remedy) == (code, True)


async def test_with_approval_nothing_is_tried_before_a_person_said_so(tmp_path: Path) -> None:
    settings = SETTINGS.replace('kind = "claude"\n', 'kind = "claude"\napproval = "all"\n')
    home = make_workspace(tmp_path / "work", settings)
    async with MessagesApi([costs(90.0, experiment=1), costs(80.0, experiment=2)]) as api:
        await nightshift(home, api.url, "start", "night", "--experiments", "2")
        with loop_process(home, api.url) as loop:
            await until(home, e.ProposalReceived, 2)
            status = await nightshift(home, api.url, "status")
            shown = await nightshift(home, api.url, "experiment", "show", "2")
            assert not [x for x in data_of(events_of(home), e.ExperimentPrepared) if x.experiment]
            await nightshift(home, api.url, "experiment", "reject", "1", "too bold")
            await nightshift(home, api.url, "experiment", "approve", "2")
            await until(home, e.ExperimentDecided, 2)
            await nightshift(home, api.url, "stop")
            assert await asyncio.to_thread(loop.wait, 60) == 0
    assert "approve" in status and "COST = 80.0" in shown
    events = events_of(home)
    assert next((x.experiment, x.reason) for x in data_of(events, e.ExperimentAbandoned)) == (1, "rejected")
    assert [x.experiment for x in data_of(events, e.ExperimentDecided)] == [0, 2]


# ---------------------------------------------------------------- the demo


@pytest.mark.long
@pytest.mark.timeout(400)
async def test_the_demo_with_claude_trains_for_real(tmp_path: Path) -> None:
    """Keep or discard is for the training to say; a crash is repaired, and a protected file stays as it is."""

    def sets(old: str, new: str, **fields: Any) -> Answer:
        return propose(blocks("train.py", (old, new)), **fields)

    protected = propose(
        blocks("prepare.py", ("EVAL_TOKENS", "FEW_TOKENS")), experiment=2, description="score less", times=2
    )
    script = [
        sets("MATRIX_LR = 0.001\n", "MATRIX_LR = 0.005\n", experiment=1, description="faster matrices"),
        protected,
        sets("HEAD_LR = 0.001\n", "HEAD_LR = 0.00001\n", experiment=2, description="slower head"),
        sets("WARMDOWN = 0.0 ", "WARMDOWN = HALF ", experiment=3, description="warm down"),
        sets("WARMDOWN = HALF ", "WARMDOWN = 0.5 ", experiment=3, description="a number"),
    ]
    async with MessagesApi(script) as api:
        home = Home(tmp_path / "demo")
        demo = (sys.executable, "-m", "nightshift", "demo")
        done = await asyncio.to_thread(
            subprocess.run,
            (*demo, str(home.root), "--proposer", "claude", "--experiments", "3", "--budget", "3"),
            capture_output=True,
            text=True,
            timeout=380,
            env=environ(api.url),
            cwd=ROOT,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    events = events_of(home)
    verdicts = {x.experiment: x.verdict for x in data_of(events, e.ExperimentDecided)}
    assert verdicts.keys() == {0, 1, 2, 3} and "keep" in verdicts.values()
    assert verdicts[2] == "discard"
    assert [x.failure for x in data_of(events, e.ProposalFailed)] == ["edit_touches_protected"]
    steps = [x.step for x in data_of(events, e.ExperimentPrepared) if x.experiment == 3]
    assert steps == ["first", "repair"]
    assert "score less" in await nightshift(home, api.url, "results", "--refused")
