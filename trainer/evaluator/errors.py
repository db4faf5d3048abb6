"""Why a model was not taken: one sentence each, of checked names and numbers, for the proposer to read. Pure.

Three things can be wrong: the program of the model cannot be written down as a safe graph (`ExportRefused`), the
graph asks for an operator that is not allowed (`OperatorRefused`), or the files are not what the exporter writes
(`GraphRefused`). What a model does when it runs, such as NaN, is told by `Rejected`.
"""

from __future__ import annotations

from trainer.errors import TrainerError


class GraphRefused(TrainerError):
    """A safe graph, or its weights, is not one. *why* is one sentence without its full stop."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(why)


class OperatorRefused(GraphRefused):
    """The graph asks for an operator, or for a use of one, that is not allowed. *why* says what to use instead."""


class Rejected(TrainerError):
    """
    There is no score, as nothing was handed over or what the graph does when it is run is none.

    Attributes:
        outcome: `no_metric`, `crash`, `diverged`, `oom` or `tampered`, in the words of `trainer.outcome`.
        why: One sentence without its full stop.
    """

    def __init__(self, outcome: str, why: str) -> None:
        self.outcome = outcome
        self.why = why
        super().__init__(why)


class ExportRefused(TrainerError):
    """A model cannot be handed over as a safe graph. *why* is one sentence without its full stop."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"the model cannot be handed over: {why}")
