"""The warm evaluator behind its port, and the scripted one beside it: one contract. Then what only a process can do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from torch import nn

from trainer.errors import CannotScore
from trainer.evaluator.protocol import Request
from trainer.marks import find_marked, kill_marked
from trainer.process import machine
from trainer.sandbox.plan import View
from trainer.scorer import EvaluatorScorer, Place
from trainer.scoring import Scorer, ScriptedScorer

pytestmark = pytest.mark.asyncio(loop_scope="module")

HandedOver = Callable[[str], tuple[nn.Module, Path]]


@pytest.fixture(scope="module")
def workspace_id() -> Iterator[str]:
    """After the tests no process with this mark may be left."""
    ours = uuid.uuid4().hex
    yield ours
    left = find_marked(ours)
    kill_marked(ours)
    assert left == []


@pytest.fixture(scope="module")
def handed(handed_over: HandedOver, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that models are handed over to; one of them is there, as `1`."""
    folder = tmp_path_factory.mktemp("handed")
    shutil.copytree(handed_over("softcap")[1], folder / "1")
    return folder


@pytest.fixture(scope="module")
def place(
    workspace: tuple[Path, Path], handed: Path, workspace_id: str, tmp_path_factory: pytest.TempPathFactory
) -> Place:
    harness, cache = workspace
    rows = (cache / name for name in ("manifest.json", "tokenizer.json", "select", "report"))
    return Place(
        harness=harness,
        cache=cache,
        workdir=tmp_path_factory.mktemp("evaluator") / "stand",
        mark=f"{workspace_id}/nov21/0/evaluator",
        view=View(read=(harness / "prepare.py", handed, *rows)),
        timeout_s=30.0,
        device="cpu",
        workers=1,
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def real(place: Place) -> AsyncIterator[EvaluatorScorer]:
    """One for all tests: what any of them does to it must not be felt by the next."""
    made = EvaluatorScorer(place)
    yield made
    await made.close()


@pytest.fixture(params=["scripted", "process"])
def scorer(request: pytest.FixtureRequest, real: EvaluatorScorer, handed: Path) -> Scorer:
    return ScriptedScorer({str(handed / "1"): 3.5}) if request.param == "scripted" else real


# ---------------------------------------------------------------- the contract


async def test_it_says_what_it_scores_on(scorer: Scorer) -> None:
    about = await scorer.ready()
    assert about.version and about.rows > 0 and about.report_rows > 0 and len(about.rows_sha256) == 64
    assert await scorer.ready() == about


async def test_a_model_gets_a_score_and_what_else_was_asked_for(scorer: Scorer, handed: Path) -> None:
    plain = await scorer.score(Request(str(handed / "1"), seed=1))
    assert plain.outcome == "scored" and plain.score is not None
    assert (plain.report_score, plain.probe, plain.second_opinion) == (None, None, None)
    full = await scorer.score(Request(str(handed / "1"), seed=1, probe=True, report=True, second_opinion=True))
    assert (full.outcome, full.score) == ("scored", plain.score)
    assert full.report_score is not None and full.probe is not None and full.second_opinion is not None
    checks = Request(str(handed / "1"), seed=1, score=False, probe=True, report=True, second_opinion=True)
    besides = await scorer.score(checks)
    assert (besides.outcome, besides.score) == ("scored", None)
    assert (besides.report_score, besides.probe) == (full.report_score, full.probe)
    assert besides.second_opinion == full.second_opinion


async def test_nothing_handed_over_is_an_answer(scorer: Scorer, handed: Path) -> None:
    answer = await scorer.score(Request(str(handed / "nobody"), seed=1))
    assert (answer.outcome, answer.score) == ("no_metric", None) and "no model was handed over" in answer.why


async def test_requests_that_come_together_are_answered_each(scorer: Scorer, handed: Path) -> None:
    asked = [Request(str(handed / name), seed=1) for name in ("1", "nobody", "1")]
    answers = await asyncio.gather(*map(scorer.score, asked))
    assert [answer.outcome for answer in answers] == ["scored", "no_metric", "scored"]


async def test_one_that_was_closed_can_be_asked_again(scorer: Scorer, handed: Path) -> None:
    await scorer.close()
    await scorer.close()
    assert (await scorer.score(Request(str(handed / "1")))).outcome == "scored"


# ---------------------------------------------------------------- the process


async def test_a_request_that_is_cut_off_disturbs_no_later_one(real: EvaluatorScorer, handed: Path) -> None:
    await real.ready()
    first = asyncio.create_task(real.score(Request(str(handed / "1"), probe=True, report=True, second_opinion=True)))
    await asyncio.sleep(0.05)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert (await real.score(Request(str(handed / "nobody")))).outcome == "no_metric"


async def test_one_that_was_killed_is_started_anew(real: EvaluatorScorer, handed: Path) -> None:
    before = (await real.score(Request(str(handed / "1")))).score
    pid = real.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert (await real.score(Request(str(handed / "1")))).score == before
    assert real.pid != pid


async def test_a_model_of_which_it_dies_twice_gets_that_as_its_answer(real: EvaluatorScorer, handed: Path) -> None:
    await real.ready()
    assert real.pid is not None
    at_rest = len(psutil.Process(real.pid).children(recursive=True))
    asking = asyncio.create_task(real.score(Request(str(handed / "1"), probe=True, report=True, second_opinion=True)))
    killed: set[int] = set()
    while not asking.done():
        with contextlib.suppress(psutil.NoSuchProcess):
            pid = real.pid or os.getpid()
            if pid == real.pid and pid not in killed and len(psutil.Process(pid).children(recursive=True)) > at_rest:
                killed.add(pid)  # it is at work: there is a fork beside what stands around it
                os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.005)
    answer = await asking
    assert answer.outcome == "crash" and "died of it 2 times" in answer.why
    assert len(killed) == 2
    assert (await real.score(Request(str(handed / "1")))).outcome == "scored"


async def test_one_that_hangs_is_killed_and_the_answer_says_so(place: Place, handed: Path) -> None:
    scorer = EvaluatorScorer(replace(place, timeout_s=0.3), late_s=0.2)
    try:
        await scorer.ready()
        assert scorer.pid is not None
        inner = psutil.Process(scorer.pid)
        for process in (inner, *inner.children(recursive=True)):
            process.suspend()
        began = time.monotonic()
        answer = await scorer.score(Request(str(handed / "1")))
        assert (answer.outcome, answer.why) == ("timeout", "scoring it took longer than 0.3 s")
        assert time.monotonic() - began < 5
        assert not inner.is_running() or inner.status() == psutil.STATUS_ZOMBIE
    finally:
        await scorer.close()


async def test_a_harness_that_cannot_be_used_is_told_with_the_remedy(place: Place, tmp_path: Path) -> None:
    (tmp_path / "prepare.py").write_text("VOCAB_SIZE = 3\n")
    view = replace(place.view, read=(*place.view.read, tmp_path)) if place.view is not None else None
    scorer = EvaluatorScorer(replace(place, harness=tmp_path, view=view))
    with pytest.raises(CannotScore, match=r"does not start: .*prepare\.py lacks MAX_SEQ_LEN.*add them"):
        await scorer.ready()
    assert scorer.pid is None
    scorer = EvaluatorScorer(replace(place, cache=tmp_path))
    with pytest.raises(CannotScore, match=r"cache .* is damaged .*run `python prepare\.py`"):
        await scorer.score(Request(str(tmp_path)))
    await scorer.close()


@pytest.mark.skipif(not machine().bwrap, reason="bubblewrap does not work here; tests/trainer/sandbox says so loudly")
async def test_it_sees_no_training_text_no_environment_and_no_network(real: EvaluatorScorer, place: Place) -> None:
    """Looked at from outside, through the root of the process inside."""
    await real.close()
    os.environ["NIGHTSHIFT_TEST_WORD"] = "word"
    try:
        await real.ready()
    finally:
        del os.environ["NIGHTSHIFT_TEST_WORD"]
    assert real.pid is not None
    inner = psutil.Process(real.pid).children(recursive=True)[-1]
    root = Path(f"/proc/{inner.pid}/root")
    assert (root / place.cache.relative_to("/") / "select" / "tokens.bin").exists()
    assert not (root / place.cache.relative_to("/") / "train").exists()
    assert not (root / place.harness.relative_to("/") / "corpus").exists()
    assert "NIGHTSHIFT_TEST_WORD" not in inner.environ()
    devices = await asyncio.to_thread(Path(f"/proc/{inner.pid}/net/dev").read_text)
    assert [line.split(":")[0].strip() for line in devices.splitlines()[2:]] == ["lo"]
