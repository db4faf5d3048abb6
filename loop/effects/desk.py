"""What a proposer may look at while it thinks: whether an edit would do, and what came of past experiments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eventstore import events as e
from eventstore.codec import clean
from eventstore.projections.run_state import Done, Run
from loop.effects.attempts import twin
from loop.effects.hands import Active, Hands
from loop.errors import EditRefused
from loop.proposers.base import Objection, Past

DIFF_MAX, TAIL_MAX = 20_000, 4_000
"""Characters of a past diff and of the end of a past log."""


@dataclass(frozen=True, slots=True)
class LogDesk:
    """The desk of one ask, over the repository and the log."""

    hands: Hands
    active: Active
    run: Run
    experiment: int
    base_commit: str

    async def check(self, edits: Sequence[e.FileEdit]) -> Objection | None:
        return await self.hands.in_git(self._check, tuple(edits))

    def _check(self, edits: tuple[e.FileEdit, ...]) -> Objection | None:
        objective, workspace = self.active.settings.objective, self.hands.around.workspace
        try:
            changed = workspace.try_edits(
                edits, self.base_commit, editable=objective.editable, protected=objective.protected
            )
        except EditRefused as refused:
            return Objection(refused.failure, refused.why)
        origin = self.run.started.base_commit if self.run.started is not None else self.base_commit
        content = workspace.content_hash(origin, self.base_commit, changed, objective.editable)
        if content == workspace.content_hash(origin, self.base_commit, {}, objective.editable):
            return Objection("changes_nothing", "it changes comments, blank lines or layout only")
        double = twin(self.run, self.experiment, content)
        if double is None:
            return None
        return Objection("same_as_tried", f"it comes to the same files as experiment {double}")

    async def look_up(self, experiment: int) -> Past | None:
        done = self.run.finished_experiment(experiment)
        if done is None:
            return None
        prepared = await self._data(done.prepared_at)
        finished = await self._data(done.finished_at)
        proposal = await self._data(done.proposal_at)
        return Past(
            experiment=experiment,
            description=done.description,
            hypothesis=proposal.hypothesis if isinstance(proposal, e.ProposalReceived) else "",
            outcome=_outcome(done),
            diff=clean(prepared.diff, DIFF_MAX) if isinstance(prepared, e.ExperimentPrepared) else "",
            tail=clean(finished.tail, TAIL_MAX) if isinstance(finished, e.TrainingFinished) else "",
        )

    async def _data(self, position: int) -> e.Data | e.UnknownEvent | None:
        return (await self.hands.around.read_at(position)).data if position else None


def _outcome(done: Done) -> str:
    score = f", score {done.score:.6f}" if done.score is not None else ""
    return f"{done.verdict or 'abandoned'}{score}: {done.reason}"
