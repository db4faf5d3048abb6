"""Who scores what a training has handed over: the port, and a scorer that plays a script. Pure.

The real one is `trainer.scorer`. Requests and answers are those of `evaluator.protocol`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from trainer.evaluator.protocol import Answer, Probe, Ready, Request, SecondOpinion


class Scorer(Protocol):
    """Scores one model at a time; others wait their turn."""

    async def ready(self) -> Ready:
        """
        Say what it scores on, once it can score. Started where it is not running.

        Raises:
            CannotScore: If it cannot be used at all: the harness, the cache or the interpreter lacks something.
        """

    async def score(self, request: Request) -> Answer:
        """
        Score what is in the request's folder. Whatever the model does, there is an answer; cancelling cuts it off.

        Raises:
            CannotScore: As `ready`.
        """

    async def close(self) -> None:
        """End it. It is started anew when it is asked again."""


Script = Mapping[str, float] | Callable[[Request], Answer]
"""Scores of honest models by the request's folder, or answers worked out from the request."""


class ScriptedScorer:
    """
    Plays *script*; `asked` holds every request in order.

    A folder that the script does not know was never handed over: `no_metric`.
    """

    def __init__(self, script: Script) -> None:
        self.asked: list[Request] = []
        self._script = script

    async def ready(self) -> Ready:
        return Ready("scripted", 1, 1, "0" * 64, "cpu", 1, 0.0)

    async def score(self, request: Request) -> Answer:
        self.asked.append(request)
        if not isinstance(self._script, Mapping):
            return self._script(request)
        if request.folder not in self._script:
            return Answer("no_metric", why="no model was handed over: it is not in the script")
        return scored(self._script[request.folder], request)

    async def close(self) -> None:
        pass


def scored(score: float, request: Request) -> Answer:
    """What an honest model gets."""
    return Answer(
        "scored",
        score=score if request.score else None,
        report_score=score if request.report else None,
        probe=Probe(1, 0, 0.0) if request.probe else None,
        second_opinion=SecondOpinion(1, 1.0, 1.0) if request.second_opinion else None,
    )
