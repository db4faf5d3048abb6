"""Everything the loop does to the world: one method for each command of `loop/commands`.

An effect that has an intent event is started when that event is durable, and ends by recording its outcome,
also when it is cut off: a cancelled effect writes "stopped" and returns. Nothing here decides anything; what
is done when something does not work comes in with the command or goes back as a fact.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from eventstore import events as e
from eventstore import settings as st
from eventstore.codec import clean
from eventstore.envelope import Earlier, Event, format_at
from eventstore.home import Home
from eventstore.projections.run_state import Done, Experiment, Run, State
from loop import commands as c
from loop import preflight
from loop.errors import BranchTaken, EditRefused, GitFailed, MergeConflict, WorkspaceError
from loop.policy import Policy
from loop.proposers.base import Ask, Proposal, ProposalError, Proposer, Tried
from loop.workspace import Prepared, Workspace
from trainer.errors import CannotStart, OutputUnwritable, WouldNotDie
from trainer.executors.base import Executor, Training
from trainer.files import read_result
from trainer.process import run_command
from trainer.spec import CommandSpec, Result, Scoring, TrainingSpec

T = TypeVar("T")
IN_PLACE = "in-place/1"
"""The evaluator of scores that the command itself prints or writes; the score is its claim."""

TEXT_MAX = 4_000
LINE_MAX = 200


class Recorder(Protocol):
    """Appends facts as one batch and returns their positions."""

    async def __call__(self, facts: Sequence[c.Append]) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class Around:
    """
    What the loop is given by its composition root.

    Attributes:
        now: The clock, aware.
        new_id: A new unique text.
        proposer_of: The proposer that a run's settings name.
        read_at: Reads the event at a position of the log.
        about: What `run.started` says of this machine: host, sandbox, versions.
    """

    home: Home
    workspace: Workspace
    executor: Executor
    proposer_of: Callable[[st.Settings, Path], Proposer]
    now: Callable[[], datetime]
    new_id: Callable[[], str]
    read_at: Callable[[int], Awaitable[Event]]
    about: Mapping[str, Any]


@dataclass(slots=True)
class Active:
    """The active run's settings, made from its `run.started` once."""

    tag: str
    settings: st.Settings
    policy: Policy
    proposer: Proposer


class Effects:
    """The hands of the loop. One instance serves one loop process."""

    def __init__(self, around: Around, append: Recorder) -> None:
        self.around = around
        self.append = append
        self.held: set[c.Key] = set()
        self.trainings: dict[tuple[str, int], Training] = {}
        self._git = ThreadPoolExecutor(max_workers=1, thread_name_prefix="git")
        self._active: Active | None = None

    def close(self) -> None:
        self._git.shutdown()

    def active(self, run: Run | None) -> Active | None:
        """Settings, policy and proposer of the active run, from the copy in the log that governs it."""
        if run is None or run.started is None:
            return None
        if self._active is None or self._active.tag != run.tag:
            settings = st.from_data(run.started.settings)
            proposer = self.around.proposer_of(settings, self.around.home.root)
            slots = self.around.executor.capacity()
            policy = preflight.policy_of(settings, slots, can_repair=proposer.can_repair)
            self._active = Active(run.tag, settings, policy, proposer)
        return self._active

    def intent(self, command: c.Effect, state: State) -> e.Data | None:
        """The event that must be durable before *command* is begun, or None where an earlier one is its intent."""
        active = self.active(state.active)
        if active is None:
            return None
        policy = active.policy
        match command:
            case c.Propose():
                return e.ProposalRequested(
                    experiment=command.experiment,
                    ask=command.ask,
                    kind=policy.proposer if command.again_of is None else "again",
                    purpose=command.purpose,
                    base_commit=command.base_commit,
                    program_hash=state.program_hash,
                    attempt=command.attempt,
                    again_of=command.again_of,
                )
            case c.Train():
                return e.TrainingRequested(
                    experiment=command.experiment,
                    attempt=command.attempt,
                    trial=command.trial,
                    slot=command.slot,
                    commit=command.commit,
                    command=policy.command,
                    seed=_seed(state, command),
                    budget_s=policy.budget_s,
                    timeout_s=policy.timeout_s,
                    nonce=self.around.new_id(),
                )
            case c.Score(request=None):
                return e.ScoringRequested(
                    experiment=command.experiment, attempt=command.attempt, trial=command.trial, evaluator=IN_PLACE
                )
            case c.RunGuard(request=None) if policy.guard is not None:
                return e.GuardRequested(
                    experiment=command.experiment,
                    attempt=command.attempt,
                    command=policy.guard.command,
                    timeout_s=policy.guard.timeout_s,
                    nonce=self.around.new_id(),
                )
        return None

    async def do(self, command: c.Effect, state: State, intent: e.Data | None, position: int) -> None:
        """
        Carry out *command*. *position* is its intent's; *state* is only read before the first await.

        A fault of the disk or of git pauses the run and says so; anything else unexpected is a fault of this
        program and is raised.
        """
        run = state.runs[command.tag]
        try:
            await self._do(command, state, run, intent, position)
        except (OSError, OutputUnwritable) as error:
            what = clean(f"{command.key[0]} failed: {error}", TEXT_MAX)
            noticed = e.TroubleNoticed(kind="disk", what=what, since=format_at(self.around.now()))
            await self._pause(command, run, what, [c.Append("", noticed, None)])
        except WouldNotDie as error:
            what = clean(str(error), TEXT_MAX)
            noticed = e.TroubleNoticed(kind="device", what=what, since=format_at(self.around.now()))
            await self._pause(command, run, what, [c.Append("", noticed, None)])
        except GitFailed as error:
            await self._pause(command, run, clean(str(error), TEXT_MAX), [])

    async def _do(self, command: c.Effect, state: State, run: Run, intent: e.Data | None, position: int) -> None:
        match command:
            case c.StartRun():
                await self._start(command, state, run)
            case c.Propose():
                await self._propose(command, state, run, position)
            case c.Prepare():
                await self._prepare(command, state, run)
            case c.Commit():
                await self._commit(command, run)
            case c.Train() if isinstance(intent, e.TrainingRequested):
                await self._train(command, intent, position)
            case c.CloseTraining():
                await self._close_training(command)
            case c.Score():
                await self._score(command, run, position)
            case c.RunGuard():
                await self._guard(command, position)
            case c.MoveBranch():
                await self._move(command, run)

    async def record(self, run: str, data: e.Data, cause: int | None) -> int:
        """Append one fact and return its position."""
        return (await self.append([c.Append(run, data, cause)]))[0]

    # ------------------------------------------------------------ runs

    async def _start(self, command: c.StartRun, state: State, run: Run) -> None:
        around = self.around
        try:
            ready = await self._in_git(preflight.check, around.home.root, around.workspace, run.request, around.now())
            await self._in_git(around.workspace.create_branch, command.tag, ready.base_commit)
        except preflight.Refusal as refusal:
            await self._refuse(command, refusal)
            return
        except WorkspaceError as error:  # someone took the branch since it was checked
            await self._refuse(command, preflight.Refusal(error.code, str(error), "choose another tag"))
            return
        facts = []
        known = ready.program_hash in state.program_positions
        if not known:
            recorded = e.ProgramRecorded(hash=ready.program_hash, text=ready.program)
            facts.append(c.Append("", recorded, command.request))
        program_hash = state.program_hash if known else ready.program_hash
        started = self._started(command.tag, run, ready, program_hash)
        await self.append([*facts, c.Append(command.tag, started, command.request)])

    def _started(self, tag: str, run: Run, ready: preflight.Ready, program_hash: str) -> e.RunStarted:
        seed = run.request.seed
        return e.RunStarted(
            branch=f"autoresearch/{tag}",
            base_commit=ready.base_commit,
            settings=st.to_data(ready.settings),
            limits=ready.limits,
            program_hash=program_hash,
            harness_hash=ready.harness_hash,
            settings_hash=ready.settings_hash,
            seed=seed if seed is not None else _seed_of(tag),
            host=self.around.about["host"],
            device=self.around.executor.device(0),
            sandbox=self.around.about["sandbox"],
            versions=self.around.about["versions"],
        )

    async def _refuse(self, command: c.StartRun, refusal: preflight.Refusal) -> None:
        data = e.RunRefused(request=command.request, code=refusal.code, why=refusal.why, remedy=refusal.remedy)
        await self.record(command.tag, data, command.request)

    # ------------------------------------------------------------ proposals

    async def _propose(self, command: c.Propose, state: State, run: Run, position: int) -> None:
        active = self.active(run)
        if active is None:
            return
        began = self.around.now()
        program_at = state.program_at
        history = _history(run, command.known_at or position)
        in_flight = _in_flight(run, command.experiment, command.known_at or position)
        crashed = _crash_tail(run.experiments.get(command.experiment)) if command.purpose == "repair" else ""
        seed = run.started.seed if run.started is not None else 0
        done = run.finished_experiment(command.again_of) if command.again_of is not None else None
        try:
            if done is not None:
                base, proposal = await self._take_up_again(done)
            else:
                base = command.base_commit
                editable = active.settings.objective.editable
                ask = Ask(
                    tag=command.tag,
                    experiment=command.experiment,
                    ask=command.ask,
                    attempt=command.attempt,
                    purpose=command.purpose,
                    base_commit=base,
                    files=await self._in_git(self.around.workspace.read_files, base, editable),
                    program=await self._program_text(program_at),
                    history=history,
                    in_flight=in_flight,
                    seed=seed,
                    metric=active.policy.metric,
                    direction=active.policy.direction,
                    crash_tail=crashed,
                )
                proposal = await active.proposer.propose(ask)
        except ProposalError as error:
            await self._proposal_failed(command, position, error, began)
        except asyncio.CancelledError:
            stopped = ProposalError("stopped", "it was cut off")
            await self._proposal_failed(command, position, stopped, began)
        else:
            await self.record(command.tag, self._received(command, base, proposal, began), position)

    def _received(self, command: c.Propose, base: str, proposal: Proposal, began: datetime) -> e.ProposalReceived:
        return e.ProposalReceived(
            experiment=command.experiment,
            ask=command.ask,
            base_commit=base,
            attempt=command.attempt,
            description=one_line(proposal.description),
            edits=tuple(proposal.edits),
            hypothesis=clean(proposal.hypothesis, TEXT_MAX),
            expected_effect=clean(proposal.expected_effect, TEXT_MAX),
            rationale=clean(proposal.rationale, TEXT_MAX),
            model=proposal.model,
            stop_reason=proposal.stop_reason,
            tokens=proposal.tokens,
            usd=proposal.usd,
            seconds=self._seconds_since(began),
        )

    async def _proposal_failed(self, command: c.Propose, cause: int, error: ProposalError, began: datetime) -> None:
        data = e.ProposalFailed(
            experiment=command.experiment,
            ask=command.ask,
            failure=error.failure,
            why=one_line(error.why),
            tokens=error.tokens,
            usd=error.usd,
            seconds=self._seconds_since(began),
        )
        await self.record(command.tag, data, cause)

    async def _take_up_again(self, done: Done) -> tuple[str, Proposal]:
        """The change of an old experiment as a proposal of its own, meant for the commit it was made on."""
        edits: tuple[e.FileEdit, ...] = done.edits if done.attempt == 0 else ()
        if not edits:
            edits = await self._in_git(self.around.workspace.changes, done.base_commit, done.commit, PROGRAM_ONLY)
        what = f"again {done.experiment}: {done.description}"
        return done.base_commit, Proposal(description=what, edits=edits, usd=0.0)

    async def _program_text(self, position: int) -> str:
        if not position:
            return ""
        data = (await self.around.read_at(position)).data
        return data.text if isinstance(data, e.ProgramRecorded | e.ProgramEdited) else ""

    # ------------------------------------------------------------ attempts

    async def _prepare(self, command: c.Prepare, state: State, run: Run) -> None:
        active = self.active(run)
        experiment = run.experiments.get(command.experiment)
        if active is None:
            return
        if experiment is None:
            await self._prepare_baseline(command)
            return
        request = experiment.request
        program_at = state.program_positions.get(request.program_hash, 0) if request is not None else 0
        program = await self._program_text(program_at) if program_at else None
        try:
            prepared = await self._in_git(self._applied, command.step, command.tip, experiment, active, program)
        except MergeConflict:
            await self._conflict(command)
        except EditRefused as refused:
            if command.step == "rebase" or request is None or request.purpose == "again":
                await self._conflict(command)
                return
            why = one_line(refused.why)
            data = e.ProposalFailed(
                experiment=command.experiment, ask=request.ask, failure=refused.failure, why=why, usd=0.0
            )
            await self.record(command.tag, data, command.cause)
        else:
            subject, body = _message(command, experiment)
            data_prepared = e.ExperimentPrepared(
                experiment=command.experiment,
                attempt=command.attempt,
                step=command.step,
                base_commit=command.tip,
                tree=prepared.tree,
                subject=subject,
                body=body,
                diff=prepared.diff,
                lines_added=prepared.lines_added,
                lines_removed=prepared.lines_removed,
            )
            await self.record(command.tag, data_prepared, command.cause)

    def _applied(self, step: e.Step, tip: str, experiment: Experiment, active: Active, program: str | None) -> Prepared:
        """
        The experiment's change on top of *tip*.

        Constants and search blocks say what they mean by themselves: where they still fit they are applied to the
        tip as it is now. All else is brought over by a three-way merge from the commit it was meant for.
        """
        objective = active.settings.objective
        prepare = partial(
            self.around.workspace.prepare,
            tip=tip,
            editable=objective.editable,
            protected=objective.protected,
            program=program,
        )
        proposal, before = experiment.proposal, experiment.committed
        assert proposal is not None  # only the baseline has none, and it is not prepared here
        if step == "repair" and before is not None and experiment.prepared is not None:
            return prepare(proposal.edits, edits_base=before.commit, merge_base=experiment.prepared.base_commit)
        portable = not any(isinstance(edit, e.WholeFile) for edit in proposal.edits) and not experiment.repairs
        if portable and tip != proposal.base_commit:
            try:
                return prepare(proposal.edits, edits_base=tip)
            except EditRefused as refused:
                if refused.failure == "changes_nothing":
                    raise
        if step == "rebase" and before is not None and experiment.prepared is not None:
            return prepare((), edits_base=before.commit, merge_base=experiment.prepared.base_commit)
        return prepare(proposal.edits, edits_base=proposal.base_commit)

    async def _conflict(self, command: c.Prepare) -> None:
        if command.on_conflict is not None:
            await self.record(command.tag, command.on_conflict, command.cause)

    async def _prepare_baseline(self, command: c.Prepare) -> None:
        tree = await self._in_git(self.around.workspace.tree_of, command.tip)
        data = e.ExperimentPrepared(
            experiment=0, attempt=0, step="first", base_commit=command.tip, tree=tree, subject="baseline"
        )
        await self.record(command.tag, data, command.cause)

    async def _commit(self, command: c.Commit, run: Run) -> None:
        experiment = run.experiments[command.experiment]
        prepared, at = experiment.prepared, experiment.prepared_time
        if prepared is None:
            return
        commit = prepared.base_commit
        if command.experiment > 0:
            commit = await self._in_git(
                self.around.workspace.commit, prepared.tree, prepared.base_commit, prepared.subject, prepared.body, at
            )
        ref = await self._in_git(
            self.around.workspace.keep_ref, command.tag, command.experiment, command.attempt, commit
        )
        data = e.ExperimentCommitted(
            experiment=command.experiment, attempt=command.attempt, commit=commit, tree=prepared.tree, ref=ref
        )
        await self.record(command.tag, data, command.cause)

    async def _move(self, command: c.MoveBranch, run: Run) -> None:
        try:
            await self._in_git(self.around.workspace.move_branch, command.tag, command.from_commit, command.to_commit)
        except BranchTaken as taken:
            await self._branch_taken(command, run, taken)
            return
        data = e.BranchMoved(
            experiment=command.experiment,
            from_commit=command.from_commit,
            to_commit=command.to_commit,
            why="veto" if command.why == "veto" else "keep",
        )
        await self.record(command.tag, data, command.cause)

    async def _branch_taken(self, command: c.MoveBranch, run: Run, taken: BranchTaken) -> None:
        """Someone else moved the branch: an open run pauses; in one that is over, the veto is refused."""
        if not run.is_over:
            await self.record(command.tag, e.RunPaused(why=str(taken)), command.cause)
            return
        who = (await self.around.read_at(command.cause)).actor
        refused = e.RequestRefused(who=who, what=f"veto {command.experiment}", why=str(taken))
        await self.record(command.tag, refused, command.cause)

    # ------------------------------------------------------------ trainings

    async def _train(self, command: c.Train, request: e.TrainingRequested, position: int) -> None:
        home = self.around.home
        place = (command.tag, command.experiment, command.attempt, command.trial)
        folder, outdir = home.work_dir(*place), home.run_dir(*place)
        try:
            result = await self._trained(command, request, position, folder, outdir)
        except asyncio.CancelledError:
            result = Result(outcome="stopped", seconds=0.0, why="it was cut off before it began", nonce=request.nonce)
        await self.record(command.tag, _finished(command, request.nonce, result), position)
        await asyncio.to_thread(_keep_artifacts, folder, outdir)

    async def _trained(
        self, command: c.Train, request: e.TrainingRequested, position: int, folder: Path, outdir: Path
    ) -> Result:
        active = self._active
        assert active is not None  # its intent was written for the active run
        await self._fresh_checkout(command.commit, folder, outdir)
        spec = TrainingSpec(
            command=request.command,
            workdir=folder,
            outdir=outdir,
            mark=self._mark(command.tag, command.experiment, request.nonce),
            attempt=command.attempt,
            trial=command.trial,
            budget_s=request.budget_s,
            timeout_s=request.timeout_s,
            seed=request.seed,
            scoring=scoring_of(active.settings),
        )
        try:
            training = await self.around.executor.start(spec, command.slot)
        except CannotStart as error:
            return Result(outcome="crash", seconds=0.0, why=str(error), nonce=request.nonce)
        key = (command.tag, command.experiment)
        self.trainings[key] = training
        started = e.TrainingStarted(
            experiment=command.experiment,
            attempt=command.attempt,
            trial=command.trial,
            nonce=request.nonce,
            pid=training.pid,
            pid_started=training.pid_started,
            device=training.device,
        )
        try:
            await self.record(command.tag, started, position)
            return await training.wait()
        except asyncio.CancelledError:
            await training.stop()
            return await training.wait()
        finally:
            del self.trainings[key]

    async def _close_training(self, command: c.CloseTraining) -> None:
        place = (command.tag, command.experiment, command.attempt, command.trial)
        folder, outdir = self.around.home.work_dir(*place), self.around.home.run_dir(*place)
        result = await asyncio.to_thread(read_result, outdir)
        if result is None or result.nonce != command.nonce:
            why = "the loop or the machine ended while it trained"
            result = Result(outcome="lost", seconds=0.0, why=why, nonce=command.nonce)
        await self.record(command.tag, _finished(command, command.nonce, result), command.cause)
        await asyncio.to_thread(_keep_artifacts, folder, outdir)

    async def _score(self, command: c.Score, run: Run, position: int) -> None:
        trial = run.experiments[command.experiment].trials[command.trial]
        finished = trial.finished
        score = finished.score if finished is not None else None
        data = e.ScoringFinished(
            experiment=command.experiment,
            attempt=command.attempt,
            trial=command.trial,
            outcome="scored" if score is not None else "no_metric",
            score=score,
            claim=score,
            why="" if score is not None else "the training ended well but gave no score",
        )
        await self.record(command.tag, data, position)

    async def _guard(self, command: c.RunGuard, position: int) -> None:
        request = (await self.around.read_at(command.request or position)).data
        assert isinstance(request, e.GuardRequested)  # the position comes from the log's own record of it
        home = self.around.home
        folder = home.guard_dir(command.tag, command.experiment, command.attempt)
        try:
            await self._fresh_checkout(command.commit, folder, None)
            spec = CommandSpec(
                command=request.command,
                workdir=folder,
                mark=self._mark(command.tag, command.experiment, request.nonce),
                timeout_s=request.timeout_s,
            )
            ended = await run_command(spec)
            data = e.GuardFinished(
                experiment=command.experiment,
                attempt=command.attempt,
                result="timeout" if ended.timed_out else "passed" if ended.exit_code == 0 else "failed",
                seconds=round(ended.seconds, 3),
                exit_code=ended.exit_code,
                tail=ended.tail,
            )
        except CannotStart as error:
            data = e.GuardFinished(
                experiment=command.experiment, attempt=command.attempt, result="failed", seconds=0.0, tail=str(error)
            )
        except asyncio.CancelledError:
            data = e.GuardFinished(
                experiment=command.experiment, attempt=command.attempt, result="stopped", seconds=0.0
            )
        await self.record(command.tag, data, position)
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _fresh_checkout(self, commit: str, folder: Path, outdir: Path | None) -> None:
        def make() -> None:
            shutil.rmtree(folder, ignore_errors=True)
            if outdir is not None:
                shutil.rmtree(outdir, ignore_errors=True)
                outdir.mkdir(parents=True)
            self.around.workspace.checkout(commit, folder)

        await self._in_git(make)

    # ------------------------------------------------------------ parts

    async def _in_git(self, work: Callable[..., T], *args: Any, **named: Any) -> T:
        """Run blocking work in the one thread that may touch the repository."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._git, lambda: work(*args, **named))

    async def _pause(self, command: c.Effect, run: Run, why: str, noticed: list[c.Append]) -> None:
        """Hold the run until a person has looked; a queued one is refused, and one that is over left alone."""
        cause = Earlier(0) if noticed else None
        if run.status == "active":
            await self.append([*noticed, c.Append(run.tag, e.RunPaused(why=why), cause)])
        elif isinstance(command, c.StartRun):
            refused = e.RunRefused(request=command.request, code="trouble", why=why, remedy="mend it and ask again")
            await self.append([*noticed, c.Append(run.tag, refused, command.request)])
        else:
            self.held.add(command.key)
            await self.append(noticed)

    def _mark(self, tag: str, experiment: int, nonce: str) -> str:
        return f"{self.around.home.mark_id}/{tag}/{experiment}/{nonce}"

    def _seconds_since(self, began: datetime) -> float:
        return round(max(0.0, (self.around.now() - began).total_seconds()), 3)


PROGRAM_ONLY = (preflight.PROGRAM_FILE,)


def scoring_of(settings: st.Settings) -> Scoring:
    """How the trainer is to find the score, from the objective."""
    objective = settings.objective
    if objective.direction == "pass":
        return Scoring(kind="pass", name=objective.name)
    if objective.score == "sealed":
        raise ValueError("sealed scoring has no place in the output: a run with it is refused at its start")
    return Scoring(kind=objective.score, name=objective.name, file=objective.score_file, key=objective.score_key)


def one_line(text: str) -> str:
    """A description as one bounded line without control characters."""
    return " ".join(clean(text, LINE_MAX * 4).split())[:LINE_MAX]


def _seed(state: State, command: c.Train) -> int:
    run = state.runs[command.tag]
    return (run.started.seed if run.started is not None else 0) + command.trial


def _seed_of(tag: str) -> int:
    """A seed for a run whose asker set none: the same tag gives the same seed."""
    return int.from_bytes(hashlib.sha256(tag.encode()).digest()[:4], "big") % 1_000_000


def _history(run: Run, known_at: int) -> tuple[Tried, ...]:
    """What a proposer is told of the past: the verdicts that stood before *known_at*."""
    return tuple(
        Tried(done.experiment, done.edits, done.verdict, done.score, done.description)
        for done in run.done
        if done.verdict is not None and done.experiment > 0 and done.decided_at < known_at
    )


def _in_flight(run: Run, number: int, known_at: int) -> tuple[tuple[e.FileEdit, ...], ...]:
    """Edits of earlier experiments that had no verdict at *known_at*, also of those that have one by now."""
    edits = {x.number: x.proposal.edits for x in run.experiments.values() if x.proposal is not None}
    for done in reversed(run.done):
        if done.decided_at < known_at:
            break
        edits[done.experiment] = done.edits
    return tuple(edits[n] for n in sorted(edits) if 0 < n < number)


def _crash_tail(experiment: Experiment | None) -> str:
    trial = experiment.last if experiment is not None else None
    return trial.finished.tail if trial is not None and trial.finished is not None else ""


def _message(command: c.Prepare, experiment: Experiment) -> tuple[str, str]:
    proposal = experiment.proposal
    hypothesis = proposal.hypothesis.strip() if proposal is not None else ""
    trailers = (
        f"Nightshift-Run: {command.tag}\n"
        f"Nightshift-Experiment: {command.experiment}\n"
        f"Nightshift-Attempt: {command.attempt}"
    )
    return experiment.description or f"experiment {command.experiment}", f"{hypothesis}\n\n{trailers}".strip()


def _finished(command: c.Train | c.CloseTraining, nonce: str, result: Result) -> e.TrainingFinished:
    return e.TrainingFinished(
        experiment=command.experiment,
        attempt=command.attempt,
        trial=command.trial,
        nonce=nonce,
        outcome=result.outcome,
        seconds=round(result.seconds, 3),
        score=result.score,
        metrics=dict(result.metrics),
        peak_memory_mb=result.peak_memory_mb,
        exit_code=result.exit_code,
        why=result.why,
        tail=result.tail,
    )


def _keep_artifacts(folder: Path, outdir: Path) -> None:
    """Move what the training left under `artifacts/` beside its log and remove the work folder."""
    artifacts = folder / "artifacts"
    if artifacts.is_dir() and not artifacts.is_symlink() and outdir.is_dir():
        shutil.move(artifacts, outdir / "artifacts")
    shutil.rmtree(folder, ignore_errors=True)
