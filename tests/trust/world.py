"""The stage: a workspace with a real git repository, a tiny harness and its cache, one warm evaluator, one person's
secrets. A cheat is a train.py that runs here as an experiment runs in a night."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from eventstore import settings as st
from eventstore.events import SetConstants
from eventstore.home import Home
from loop import edits
from loop.effects import sealing, views
from trainer.evaluator.protocol import Answer, Ready, Request, decode, encode
from trainer.executors.local import LocalExecutor
from trainer.process import machine
from trainer.sandbox.plan import View
from trainer.scorer import EvaluatorScorer
from trainer.spec import Result, Scoring, TrainingSpec

ROOT = Path(__file__).parents[2]
CHEATS = Path(__file__).parent / "cheats"
NAME = "val_bpb"
VOCAB, LENGTH = 300, 32
CONSTANTS = {
    "VOCAB_SIZE": VOCAB,
    "MAX_SEQ_LEN": LENGTH,
    "EVAL_TOKENS": 64 * LENGTH,
    "EVAL_BATCH_TOKENS": 16 * LENGTH,
}
WORDS = "the loop trains a small model on text and keeps what is better ; naïve café = ( ) x_1 42"
SECRET = "sk-not-for-the-agent"
MODE = "required" if machine().bwrap else "best"
SETTINGS = f"""\
[objective]
name = "{NAME}"
direction = "minimize"
score = "sealed"
editable = ["train.py", "model.py"]
protected = ["prepare.py"]

[experiment]
command = ["python", "train.py"]

[sandbox]
mode = "{MODE}"
memory_mb = 3000
processes = 256
disk_mb = 64
tmp_mb = 64

[proposer]
kind = "scripted"
"""
TIMEOUT_S = 60.0
LONGER_S = 30.0

T = TypeVar("T")


@dataclass(frozen=True)
class Tried:
    """What came of one train.py. *answer* is there if a model was handed over and scored by the evaluator."""

    result: Result
    answer: Answer | None
    folder: Path
    outdir: Path
    handed: Path

    @property
    def outcome(self) -> str:
        return self.answer.outcome if self.answer is not None else self.result.outcome

    @property
    def score(self) -> float | None:
        return self.answer.score if self.answer is not None else self.result.score

    @property
    def why(self) -> str:
        return (self.answer and self.answer.why) or self.result.why

    @property
    def log(self) -> bytes:
        return (self.outdir / "run.log").read_bytes()

    def said(self, name: str) -> str:
        """The rest of the line of its output that begins with *name* and a blank; empty: there is none."""
        for line in self.log.decode("utf-8", "replace").splitlines():
            if line.startswith(f"{name} "):
                return line.removeprefix(f"{name} ").strip()
        return ""

    def __str__(self) -> str:
        return f"{self.outcome} {self.score} ({self.why}): {self.result.tail[-1500:]}"


class World:
    """
    One for each process of the test run.

    Args:
        root: An empty folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._runner = asyncio.Runner()
        self._number = 0
        self._honest: dict[str, Tried] = {}
        self._scorer: EvaluatorScorer | None = None
        self._servers: list[Server] = []
        self.person = root / "person"
        (self.person / ".ssh").mkdir(parents=True)
        (self.person / ".ssh" / "id_ed25519").write_text(SECRET)
        self.home = Home(root / "workspace")
        self.settings = st.parse(SETTINGS)
        self.environ = {
            **_passed(),
            "HOME": str(self.person),
            "NIGHTSHIFT_CACHE": str(root / "cache"),
            "OMP_NUM_THREADS": "1",
            "ANTHROPIC_API_KEY": SECRET,
        }
        self._executor = LocalExecutor(("cpu",), environ=self.environ)
        self._make_workspace()
        self.cache = next((root / "cache").glob("*/manifest.json")).parent
        self.harness = root / "harness"
        self.harness.mkdir()
        shutil.copy(self.home.root / "prepare.py", self.harness)

    def close(self) -> None:
        if self._scorer is not None:
            self.run(self._scorer.close())
        for server in self._servers:
            server.close()
        self._runner.close()
        shutil.rmtree(self.root, ignore_errors=True)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    # ------------------------------------------------------------ what is there

    def _make_workspace(self) -> None:
        """As `nightshift init` leaves one, with a log, another run's results and tiny constants."""
        corpus, root = self.root / "corpus", self.home.root
        corpus.mkdir()
        chance = random.Random(7)
        for number in range(150):
            lines = (" ".join(chance.choices(WORDS.split(), k=12)) + "\n" for _ in range(32))
            (corpus / f"text{number:03d}.txt").write_text("".join(lines))
        root.mkdir()
        constants: dict[str, Any] = {**CONSTANTS, "CORPUS": str(corpus)}
        texts = {"prepare.py": (ROOT / "prepare.py").read_text()}
        made = edits.apply([SetConstants("prepare.py", constants)], texts, editable=["prepare.py"])
        (root / "prepare.py").write_text(made["prepare.py"])
        (root / "train.py").write_text((CHEATS / "honest.py").read_text())
        (root / "model.py").write_text((CHEATS / "model.py").read_text())
        (root / "nightshift.toml").write_text(SETTINGS)
        for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "begin"]):
            identity = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
            subprocess.run(["git", *identity, *words], cwd=root, check=True)
        other = self.home.run_dir("other", 3, 0, 0)
        other.mkdir(parents=True)
        (other / "result.json").write_text('{"score": 1.0}')
        self.home.log_path.write_bytes(b"the log")
        self.prepare()

    def prepare(self, *corpus: str) -> None:
        """As a person does it, in the workspace."""
        named = [word for name in corpus for word in ("--corpus", name)]
        command = (sys.executable, "prepare.py", "--cache", str(self.root / "cache"), *named)
        subprocess.run(command, cwd=self.home.root, check=True, capture_output=True, timeout=60)

    def folder(self) -> Path:
        """A fresh work folder with the harness and the honest model, as a checkout of a commit is."""
        self._number += 1
        folder = self.home.work_dir("night", self._number, 0, 0)
        folder.mkdir(parents=True)
        shutil.copy(self.home.root / "prepare.py", folder)
        shutil.copy(CHEATS / "model.py", folder)
        return folder

    def view(self, settings: st.Settings, folder: Path, **changes: Any) -> View:
        """What an experiment may see, as a run of this workspace shows it."""
        return replace(views.of_experiment(settings, self.home, folder, self.environ), **changes)

    # ------------------------------------------------------------ trying

    def train(self, cheat: str, **how: Any) -> Tried:
        """`attempt`, to its end."""
        return self.run(self.attempt(cheat, **how))

    async def attempt(
        self,
        cheat: str,
        *,
        sealed: bool = True,
        view: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        secrets: tuple[str, ...] = (),
        budget_s: float = LONGER_S,
        grace_s: float = LONGER_S,
        probes: bool = True,
        scored: bool = True,
        limits: Mapping[str, Any] | None = None,
        program: str = "",
    ) -> Tried:
        """
        Run `cheats/<cheat>.py` as the train.py of an experiment and, if it handed a model over, have that scored.

        Args:
            sealed: False: as `score = "stdout"` does, which is the seal, the gate and the evaluator off.
            view: Changes to what it may see.
            probes: Whether the evaluator looks for a look ahead, as it does with every candidate for a keep.
            scored: False: what was handed over is left alone.
            limits: Changes to the limits of the sandbox.
            program: The text of train.py instead of a cheat's.
        """
        folder = self.folder()
        n = self._number
        (folder / "train.py").write_text(program or (CHEATS / f"{cheat}.py").read_text())
        settings = self.settings if sealed else st.resolve(self.settings, {"objective.score": "stdout"})
        seen = self.view(settings, folder, **(view or {}))
        if limits:
            seen = replace(seen, limits=replace(seen.limits, **limits))
        handed = self.home.handed_dir("night", n, 0, 0)
        handed.parent.mkdir(parents=True, exist_ok=True)
        spec = TrainingSpec(
            command=("python", "train.py"),
            workdir=folder,
            outdir=self.home.run_dir("night", n, 0, 0),
            mark=f"{self.home.mark_id}/night/{n}/x",
            budget_s=budget_s,
            timeout_s=TIMEOUT_S,
            seed=1,
            scoring=Scoring(kind="sealed" if sealed else "stdout", name=NAME),
            env={**views.environment_of(self.environ, folder), **(env or {})},
            secrets=secrets,
            view=seen,
            seal=replace(sealing.seal_of(self.cache, handed, settings), grace_s=grace_s) if sealed else None,
        )
        result = await (await self._executor.start(spec, 0)).wait()
        answer = None
        if sealed and scored and result.outcome == "scored":
            answer = await self._scored(handed, probes)
        return Tried(result, answer, folder, spec.outdir, handed)

    def honest(self, *, sealed: bool = True) -> Tried:
        """What an honest train.py gets, once."""
        key = "sealed" if sealed else "stdout"
        if key not in self._honest:
            self._honest[key] = self.train("honest", sealed=sealed)
            assert self._honest[key].outcome == "scored", str(self._honest[key])
        return self._honest[key]

    # ------------------------------------------------------------ scoring

    def score(self, handed: Path, *, probes: bool = True) -> Answer:
        """By the warm evaluator."""
        return self.run(self._scored(handed, probes))

    async def _scored(self, handed: Path, probes: bool) -> Answer:
        if self._scorer is None:
            self._scorer = self.evaluator(self.harness)
        return await self._scorer.score(_request(handed, probes))

    def score_by(self, harness: Path, handed: Path) -> Answer:
        """By an evaluator of its own, which takes rows and metric from *harness*."""

        async def scored() -> Answer:
            scorer = self.evaluator(harness)
            try:
                return await scorer.score(_request(handed, False))
            finally:
                await scorer.close()

        return self.run(scored())

    def evaluator(self, harness: Path) -> EvaluatorScorer:
        """As a run of this workspace starts one."""
        all_handed = self.home.state / "handed"
        all_handed.mkdir(parents=True, exist_ok=True)
        place = sealing.place_of(self.settings, self.home, "night", self.cache, harness, all_handed)
        place = replace(place, device="cpu", workers=1, timeout_s=20.0)
        return EvaluatorScorer(place, environ=self.environ)

    def score_without(self, handed: Path, *guards: tuple[str, str, str], timeout_s: float = 20.0) -> Answer:
        """
        By an evaluator whose code lacks guards.

        Args:
            guards: For each the file, a text in it, and what stands there instead.
        """
        server = Server(self.root / f"without{len(self._servers)}", self.harness, self.cache, guards, timeout_s)
        self._servers.append(server)
        return server.score(handed)


class Server:
    """An evaluator process of altered code, in a copy."""

    def __init__(
        self, folder: Path, harness: Path, cache: Path, guards: tuple[tuple[str, str, str], ...], timeout_s: float
    ) -> None:
        shutil.copytree(ROOT / "trainer", folder / "trainer", ignore=shutil.ignore_patterns("__pycache__"))
        for name, text, instead in guards:
            path = folder / name
            before = path.read_text()
            assert before.count(text) == 1, f"{name} has {before.count(text)} times: {text}"
            path.write_text(before.replace(text, instead))
        words = (sys.executable, "-P", "-m", "trainer.evaluator", "--harness", str(harness), "--cache", str(cache))
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._process = subprocess.Popen(
            (*words, "--workers", "1", "--timeout-s", str(timeout_s)),
            cwd=folder,
            env={**_passed(), "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
        )
        assert self._process.stdout is not None
        decode(self._process.stdout.readline(), Ready)

    def score(self, handed: Path) -> Answer:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(encode(_request(handed, False)))
        self._process.stdin.flush()
        answer = decode(self._process.stdout.readline(), Answer)
        self.close()
        return answer

    def close(self) -> None:
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
            self._process.wait(timeout=30)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._said.close()


def _request(handed: Path, probes: bool) -> Request:
    return Request(str(handed), seed=5, probe=probes, report=True, second_opinion=probes)


def _passed() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name in {"PATH", "LANG", "LD_LIBRARY_PATH", "TMPDIR"}}
