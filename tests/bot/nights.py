"""Nights told event by event, for tests of what the bot posts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from bot.board import Board
from bot.outbox import Due, Memory, Rules, due
from eventstore import events as e
from eventstore.envelope import NewEvent, format_at
from eventstore.memory import MemoryLog
from eventstore.settings import parse, to_data

BEGIN = datetime(2026, 11, 21, 22, 0, tzinfo=UTC)
SETTINGS = to_data(
    parse(
        '[objective]\nname = "val_bpb"\ndirection = "minimize"\neditable = ["train.py"]\n'
        '[experiment]\ncommand = ["python", "train.py"]\n'
    )
)
LOOP, ADA = "loop@box", "slack:T1/U1"


class Night:
    """A log and a clock that moves a second with each event. What is told goes into the log and the board."""

    def __init__(self, channel: str | None = "C1") -> None:
        self.log = MemoryLog()
        self.board = Board()
        self.now = BEGIN
        self.memory = Memory()
        self.rules = Rules(channel, None, "UTC", BEGIN)

    def say(self, data: e.Data, run: str = "nov21", actor: str = LOOP, cause: int | None = None) -> int:
        """Append one event; returns its position."""
        self.now += timedelta(seconds=1)
        position = self.log.head().position + 1
        run = (
            ""
            if data.TYPE
            in ("trouble.noticed", "trouble.cleared", "loop.started", "digest.scheduled", "digest.requested")
            else run
        )
        self.log.append([NewEvent(f"id-{position}", run, format_at(self.now), actor, data, cause)])
        self.board.apply(self.log.read(position - 1)[0])
        return position

    def later(self, **length: float) -> None:
        self.now += timedelta(**length)

    # ------------------------------------------------------------ what the loop and people do

    def ask(self, tag: str = "nov21", **limits: Any) -> int:
        return self.say(e.RunRequested(tag=tag, from_ref="HEAD", zone="UTC", limits=e.Limits(**limits)), tag, ADA)

    def start(self, tag: str = "nov21", approval: str = "none", kind: str = "claude", **limits: Any) -> None:
        settings = SETTINGS | {"proposer": {**SETTINGS["proposer"], "approval": approval, "kind": kind}}
        self.say(
            e.RunStarted(
                branch=f"autoresearch/{tag}",
                base_commit="b" * 40,
                settings=settings,
                limits=e.Limits(**limits),
                program_hash="p",
                harness_hash="h",
                settings_hash="s",
                seed=1,
                host="box",
                device="cuda:0",
                sandbox="full",
                versions={},
            ),
            tag,
        )

    def propose(self, n: int, tag: str = "nov21", ask: int = 0, words: str = "", **more: Any) -> int:
        self.say(
            e.ProposalRequested(
                experiment=n, ask=ask, kind="claude", purpose="new", base_commit="b" * 40, program_hash="p"
            ),
            tag,
        )
        edit = e.SetConstants(path="train.py", values={"LR": 0.1 * n})
        fields = {
            "description": words or f"try {n}",
            "hypothesis": words or f"because of {n}",
            "expected_effect": words or "0.01 lower",
            "model": "claude-opus-5-5",
            "usd": 0.25,
        }
        return self.say(
            e.ProposalReceived(
                experiment=n,
                ask=ask,
                base_commit="b" * 40,
                edits=(edit,),
                **fields | more,  # type: ignore[arg-type]
            ),
            tag,
        )

    def train(self, n: int, tag: str = "nov21", seconds: float = 300.0) -> None:
        self.say(
            e.ExperimentPrepared(
                experiment=n, attempt=0, step="first", base_commit="b" * 40, tree="t", subject="s", content_hash=f"c{n}"
            ),
            tag,
        )
        commit = f"{n:040d}"
        self.say(e.ExperimentCommitted(experiment=n, attempt=0, commit=commit, tree="t", ref="r"), tag)
        self.say(
            e.TrainingRequested(
                experiment=n,
                attempt=0,
                trial=0,
                slot=0,
                commit=commit,
                command=("python", "train.py"),
                seed=1,
                budget_s=300,
                timeout_s=600,
                nonce=f"{tag}-{n}",
            ),
            tag,
        )
        self.say(
            e.TrainingFinished(experiment=n, attempt=0, trial=0, nonce=f"{tag}-{n}", outcome="scored", seconds=seconds),
            tag,
        )

    def decide(self, n: int, verdict: e.Verdict, tag: str = "nov21", score: float = 1.0, **more: Any) -> int:
        is_keep = verdict == "keep"
        scored = {} if verdict == "crash" else {"score": score, "best_before": 1.0, "gain": 1.0 - score}
        position = self.say(
            e.ExperimentDecided(
                experiment=n, attempt=0, verdict=verdict, trials=1, **{"reason": f"it is a {verdict}"} | scored | more
            ),
            tag,
        )
        if is_keep and n:
            self.say(e.BranchMoved(experiment=n, from_commit="a", to_commit=f"{n:040d}", why="keep"), tag)
        return position

    def experiment(self, n: int, verdict: e.Verdict = "discard", tag: str = "nov21", **more: Any) -> int:
        if n:
            self.propose(n, tag)
        self.train(n, tag)
        return self.decide(n, verdict, tag, **more)

    def baseline(self, tag: str = "nov21") -> None:
        self.experiment(0, "keep", tag)

    def finish(self, tag: str = "nov21") -> int:
        return self.say(e.RunFinished(reason="stopped", why="stopped by request"), tag)

    # ------------------------------------------------------------ what the bot does

    def due(self, loop: str | None = "pid 1 on box") -> tuple[Due, ...]:
        return due(self.board, self.now, self.rules, self.memory, loop)

    def due_keys(self) -> list[str]:
        """The keys of the posts that are due, without edits."""
        return [one.key for one in self.due() if one.what != "edit"]

    def request(self, one: Due) -> int:
        data = e.PostRequested(
            key=one.key,
            channel=one.channel,
            kind=one.kind,
            from_position=one.from_position,
            to_position=one.to_position,
        )
        return self.say(data, one.run, "bot@box")

    def made(self, one: Due) -> None:
        position = self.log.head().position
        self.say(e.PostMade(key=one.key, channel=one.channel, ts=f"1.{position:06d}"), one.run, "bot@box")

    def post(self, most: int = 1_000) -> list[Due]:
        """Make what is due, one after the other, as the poster does; returns what was posted."""
        found: list[Due] = []
        while len(found) < most:
            one = next((one for one in self.due() if one.what == "post"), None)
            if one is None:
                break
            self.request(one)
            self.made(one)
            found.append(one)
        return found
