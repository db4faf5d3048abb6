"""The loop as one function: state of the log in, next commands out. Pure.

`next_commands` is asked again after every change. It never remembers anything: what is in flight comes in
as `running`, and an open intent that is not in flight is the orphan of a crash, which the same rules
close or take up again. How an experiment goes on follows from its stage (`loop/stages`); the verdict
itself is in `loop/decide`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from eventstore import events as e
from eventstore.projections.run_state import UNCOUNTED_FAILURES, Experiment, Keep, Run, State, Trial
from loop import commands as c
from loop import decide as d
from loop.policy import Policy
from loop.stages import Ending, candidate_of, ending_of, net_lines, outcome_of, stage_of

REPAIRABLE = frozenset({"crash"})
"""Outcomes that a changed edit can cure; the others are answers (too big, too slow, diverged) or attacks."""

NO_REPAIR = frozenset({"no_repair", "exhausted"})
Judge = Callable[[d.Best, d.Candidate, Policy], d.Decision]


def next_commands(
    state: State, running: frozenset[c.Key], now: str, policy: Policy | None, judge: Judge = d.decide
) -> list[c.Command]:
    """
    Say what is to be done next.

    Args:
        state: The log, folded to its head.
        running: Keys of the effects this process has in flight; empty when it has just started.
        now: The time in the log's form, compared with `limits.until`.
        policy: The policy of the active run, None if there is none.
        judge: The verdict's rule.

    Returns:
        Facts to append and effects to start. Empty means: wait for the log or for an effect.
    """
    out: list[c.Command] = list(_vetoes(state, running))
    run = state.active
    if run is None:
        out += _start_next(state, running)
    elif policy is not None:
        out += _Turn(state, run, running, now, policy, judge).commands()
    return out


def _start_next(state: State, running: frozenset[c.Key]) -> Iterator[c.Command]:
    if state.queue and not any(key[0] == "start" for key in running):  # one at a time, though it may be withdrawn
        run = state.runs[state.queue[0]]
        yield c.StartRun(run.tag, run.requested_at)


def _vetoes(state: State, running: frozenset[c.Key]) -> Iterator[c.Command]:
    """Move each run's branch to before its first vetoed keep; also of runs that are over."""
    for run in state.runs.values():
        if not run.vetoes or run.status == "paused" or ("move", run.tag) in running or run.pending_keep is not None:
            continue
        index = next((i for i, keep in enumerate(run.keeps) if i > 0 and keep.experiment in run.vetoes), None)
        if index is not None:
            keep, target = run.keeps[index], run.keeps[index - 1].commit
            yield c.MoveBranch(run.tag, keep.experiment, run.tip, target, "veto", run.vetoes[keep.experiment])


@dataclass(frozen=True, slots=True)
class _Turn:
    """One look at the active run."""

    state: State
    run: Run
    running: frozenset[c.Key]
    now: str
    policy: Policy
    judge: Judge

    # ------------------------------------------------------------ the run as a whole

    def commands(self) -> list[c.Command]:
        if self.run.status == "paused":
            return self._while_paused()
        if self.run.stop == "now" or (self.run.stop is not None and self.run.pause == "now"):
            return self._stop_now()
        ending = ending_of(self.run, self.now, self.policy.direction)
        pausing = self.run.pause is not None or self._proposer_gave_up()
        out = [*self._cancelled(ending), *self._warnings(), *self._work(ending, pausing)]
        if out or self._at_work() or self._branch_is_about_to_move():
            return out
        if ending is not None and not self._was_cut_off():
            return self._finish(ending)
        if pausing:
            return [self._fact(e.RunPaused(why=self._pause_reason()), self.run.pause_at or None)]
        return []

    def _while_paused(self) -> list[c.Command]:
        if self.run.stop is not None:
            return self._stop_now()
        if not self.run.resume_at:
            return []
        cleared = [
            c.Append("", e.TroubleCleared(kind=trouble.kind, what=trouble.what), self.run.resume_at)
            for trouble in self.state.troubles.values()
            if trouble.kind in ("disk", "device")
        ]
        return [*cleared, self._fact(e.RunResumed(why="asked to go on"), self.run.resume_at)]

    def _stop_now(self) -> list[c.Command]:
        if self._at_work():
            return self._cancel({"propose", "train", "score", "guard"})
        out = self._close_orphans()
        if out:
            return out
        if self.run.pending_keep is not None and self.run.status != "paused":
            return [self._keep_move(self.run.pending_keep)]
        return self._finish(Ending("stopped", "stopped at once by request", self.run.stop_at))

    def _close_orphans(self) -> list[c.Command]:
        """What a crash left open in a run that is to end now."""
        out: list[c.Command] = []
        for experiment in self._undecided():
            trial = experiment.last
            if experiment.ask_at:
                out.append(self._lost_ask(experiment))
            elif trial is not None and trial.open_at:
                out.append(self._close_training(experiment, trial))
            elif trial is not None and trial.scoring_at:
                scored = e.ScoringFinished(
                    experiment=experiment.number, attempt=experiment.attempt, trial=trial.trial, outcome="stopped"
                )
                out.append(self._fact(scored, trial.scoring_at))
            elif experiment.guard_at:
                guard = e.GuardFinished(
                    experiment=experiment.number, attempt=experiment.attempt, result="stopped", seconds=0.0
                )
                out.append(self._fact(guard, experiment.guard_at))
        return out

    def _finish(self, ending: Ending) -> list[c.Command]:
        abandoned = [
            self._fact(
                e.ExperimentAbandoned(experiment=experiment.number, reason="run_ended", why=ending.why), ending.cause
            )
            for experiment in self._undecided()
        ]
        return [*abandoned, self._fact(e.RunFinished(reason=ending.reason, why=ending.why), ending.cause)]

    def _cancelled(self, ending: Ending | None) -> list[c.Command]:
        if self.run.pause == "now":
            return self._cancel({"propose", "train", "score", "guard"})
        return self._cancel({"propose"}) if ending is not None else []

    def _cancel(self, kinds: set[str]) -> list[c.Command]:
        cancels = [c.Cancel(key) for key in sorted(self._at_work(), key=str) if key[0] in kinds]
        return [cancel for cancel in cancels if cancel.key not in self.running]

    def _warnings(self) -> list[c.Command]:
        limit = self.run.limits.usd
        if limit is None or "usd" in self.run.warned or self.run.usd < self.policy.warn_share * limit:
            return []
        return [self._fact(e.BudgetWarned(limit="usd", share=round(self.run.usd / limit, 4)), self.run.last_at)]

    def _was_cut_off(self) -> bool:
        """Whether "pause now" cut off what is in hand: it goes on after the pause, also if the run is to end then."""
        return self.run.pause == "now" and any(x.in_hand for x in self._undecided())

    def _proposer_gave_up(self) -> bool:
        return self.run.failures_in_a_row >= self.policy.failures_max

    def _pause_reason(self) -> str:
        if self.run.pause is not None:
            return "asked to pause"
        return f"the proposer failed {self.run.failures_in_a_row} times in a row: see `nightshift log tail`"

    # ------------------------------------------------------------ the work of one turn

    def _work(self, ending: Ending | None, pausing: bool) -> list[c.Command]:
        out: list[c.Command] = []
        if self.run.pending_keep is not None and ("move", self.run.tag) not in self.running:
            out.append(self._keep_move(self.run.pending_keep))
        for experiment in self._undecided():
            out += self._advance(experiment, ending, pausing)
        if not any(isinstance(command, c.Append) for command in out):
            out += self._verdict(ending)
        if any(isinstance(command, c.Append) for command in out):
            return out  # the rest is decided on the state after these facts
        if self.run.pause != "now":
            out += self._place(ending, pausing)
            out += self._train()
        if ending is None and not pausing and not self._branch_is_about_to_move():
            out += self._propose(out)
        return out

    def _advance(self, experiment: Experiment, ending: Ending | None, pausing: bool) -> list[c.Command]:
        """Close what a crash left open and do the steps that need neither a slot nor a verdict."""
        stage = stage_of(experiment)
        trial = experiment.last
        if stage == "asking" and not self._runs("propose", experiment):
            return [self._lost_ask(experiment)]
        if experiment.rejected is not None and not experiment.trials and not self._is_busy(experiment):
            why = experiment.rejected or "rejected by a person"
            return [self._abandon(experiment, "rejected", why, experiment.rejected_at)]
        if stage == "idle":
            return self._ask_again(experiment, may_ask=ending is None and not pausing)
        if stage == "committing" and not self._runs("commit", experiment):
            return [c.Commit(self.run.tag, experiment.number, experiment.attempt, experiment.prepared_at)]
        if stage == "training" and trial is not None and not self._trains(experiment):
            return [self._close_training(experiment, trial)]
        if stage == "to_train" and trial is not None and trial.lost >= self.policy.lost_max:
            why = f"its training was lost {trial.lost} times to crashes of the loop or the machine"
            return [self._abandon(experiment, "lost_twice", why, trial.finished_at)]
        if stage == "to_score" and trial is not None and self.run.pause != "now":
            return self._score(experiment, trial)
        return []

    def _ask_again(self, experiment: Experiment, *, may_ask: bool) -> list[c.Command]:
        failure, request = experiment.last_failure, experiment.request
        if failure is not None and failure.failure == "exhausted":
            return [self._abandon(experiment, "exhausted", failure.why, experiment.last_failure_at)]
        is_old = request is not None and request.purpose == "again"  # its answer would be the same
        if failure is not None and experiment.failures >= (1 if is_old else self.policy.asks_max):
            why = f"no usable proposal in {experiment.failures} asks; the last: {failure.why}"
            return [self._abandon(experiment, "no_proposal", why, experiment.last_failure_at)]
        return [self._ask(experiment)] if may_ask and not self._runs("propose", experiment) else []

    def _score(self, experiment: Experiment, trial: Trial) -> list[c.Command]:
        if self._runs("score", experiment):
            return []
        request = trial.scoring_at or None
        return [
            c.Score(
                self.run.tag,
                experiment.number,
                experiment.attempt,
                trial.trial,
                trial.scoring_at or trial.finished_at,
                request,
            )
        ]

    def _place(self, ending: Ending | None, pausing: bool) -> list[c.Command]:
        """
        Prepare waiting proposals on today's tip: repairs on the slot they hold, new ones on free slots.

        A new one overtakes fewer proposals that are still asked for than there are slots. So one slot works in the
        order of the numbers, whatever answer comes first, and a crash of the loop changes no verdict.
        """
        if ending is not None or self._branch_is_about_to_move():
            return []
        if not self.run.keeps:
            return [] if pausing else self._baseline()
        waiting = [x for x in self._undecided() if stage_of(x) == "waiting" and not self._runs("prepare", x)]
        repairs = [x for x in waiting if x.in_hand]
        asked = [x.number for x in self._undecided() if stage_of(x) in ("asking", "idle") and not x.in_hand]
        new = [x for x in waiting if not x.in_hand and sum(n < x.number for n in asked) < self.policy.slots]
        return [self._prepare(x) for x in repairs + new[: 0 if pausing else self._free_slots()]]

    def _baseline(self) -> list[c.Command]:
        started = self.run.started
        if self.run.next_number > 0 or started is None or ("prepare", self.run.tag, 0) in self.running:
            return []
        return [c.Prepare(self.run.tag, 0, 0, "first", started.base_commit, self.run.started_at)]

    def _prepare(self, experiment: Experiment) -> c.Prepare:
        conflict = self._not_applicable(experiment)
        step: e.Step = "repair" if experiment.in_hand else "first"
        attempt = experiment.attempt + 1
        cause = experiment.proposal_at
        return c.Prepare(self.run.tag, experiment.number, attempt, step, self.run.tip, cause, conflict)

    def _not_applicable(self, experiment: Experiment) -> e.Data:
        """What is written if the edit does not fit the tip: it is asked again, but for an old edit taken up."""
        request = experiment.request
        why = "the edit conflicts with what was kept since it was proposed"
        if request is not None and request.purpose == "again":
            return e.ExperimentAbandoned(experiment=experiment.number, reason="conflict", why=why)
        ask = request.ask if request is not None else 0
        return e.ProposalFailed(experiment=experiment.number, ask=ask, failure="edit_does_not_apply", why=why, usd=0.0)

    def _train(self) -> list[c.Command]:
        """Start the trainings that are due, on free slots, lowest number first."""
        taken = {
            trial.slot
            for experiment in self._undecided()
            if (trial := experiment.last) is not None and stage_of(experiment) == "training"
        }
        free = [slot for slot in range(self.policy.slots) if slot not in taken]
        out: list[c.Command] = []
        for experiment in self._undecided():
            if stage_of(experiment) != "to_train" or self._trains(experiment) or experiment.committed is None:
                continue
            trial = experiment.last
            if trial is not None and trial.lost >= self.policy.lost_max:
                continue
            if not free:
                break
            due = trial.finished_at if trial is not None else 0
            cause = due or experiment.remeasured_at or experiment.committed_at
            number = trial.trial if trial is not None else 0
            commit = experiment.committed.commit
            slot = free.pop(0)
            out.append(c.Train(self.run.tag, experiment.number, experiment.attempt, number, slot, commit, cause))
        return out

    def _propose(self, ordered: list[c.Command]) -> list[c.Command]:
        """Keep one proposal for each slot ahead of the trainings, within the limit of experiments."""
        if not self.run.keeps and 0 not in self.run.experiments:
            return []
        placed = sum(isinstance(command, c.Prepare) and command.step == "first" for command in ordered)
        ahead = sum(not x.in_hand and not self._runs("prepare", x) for x in self._undecided()) - placed
        wanted = self.policy.slots - ahead
        if self.run.limits.experiments is not None:
            undecided = sum(x.number > 0 for x in self._undecided())
            wanted = min(wanted, self.run.limits.experiments - self.run.verdicts - undecided)
        agains = sorted(self.run.agains.items(), key=lambda item: item[1])
        if self.run.exhausted:
            wanted = min(wanted, len(agains))
        out: list[c.Command] = []
        for offset in range(max(0, wanted)):
            number = max(1, self.run.next_number) + offset
            if any(key[:1] == ("propose",) and key[2] == number for key in self.running):
                break
            again = agains.pop(0) if agains else None
            cause = again[1] if again is not None else self._newest_step()
            out.append(
                c.Propose(
                    self.run.tag,
                    number,
                    0,
                    "again" if again else "new",
                    0,
                    self.run.tip,
                    cause,
                    0,
                    again[0] if again else None,
                )
            )
        return out

    # ------------------------------------------------------------ verdicts, one at a time

    def _verdict(self, ending: Ending | None) -> list[c.Command]:
        """The next verdict: crashes first, then scores in the order in which they came. At most one."""
        if self._branch_is_about_to_move():
            return []
        for experiment in self._undecided():
            if stage_of(experiment) == "failed" or self._repair_is_moot(experiment, ending):
                out = self._failed(experiment, ending)
                if out:
                    return out
        scored = [x for x in self._undecided() if stage_of(x) == "scored"]
        first = min(scored, key=lambda x: x.last.scored_at if x.last is not None else 0, default=None)
        if first is None or self._runs("prepare", first):  # put on a newer tip, it may end in a verdict of its own
            return []
        return self._judged(first)

    def _repair_is_moot(self, experiment: Experiment, ending: Ending | None) -> bool:
        """Whether a repair has come that will not be tried."""
        if stage_of(experiment) != "waiting" or not experiment.in_hand or self._runs("prepare", experiment):
            return False
        return ending is not None or experiment.rejected is not None

    def _failed(self, experiment: Experiment, ending: Ending | None) -> list[c.Command]:
        trial = experiment.last
        if trial is None:
            return []
        outcome, why = outcome_of(trial)
        if ending is None and self._may_repair(experiment, outcome):
            later = self.run.pause == "now" or self._proposer_gave_up() or self._runs("propose", experiment)
            return [] if later else [self._repair(experiment, trial)]
        best = self.run.best
        decided = e.ExperimentDecided(
            experiment=experiment.number,
            attempt=experiment.attempt,
            verdict="crash",
            reason=f"{outcome}: {why}" if why else outcome,
            trials=len(experiment.trials),
            best_before=best.score if best is not None else None,
            lines=net_lines(experiment),
        )
        return [self._fact(decided, trial.scored_at or trial.finished_at)]

    def _may_repair(self, experiment: Experiment, outcome: e.Outcome) -> bool:
        failure = experiment.last_failure
        return (
            experiment.number > 0
            and outcome in REPAIRABLE
            and experiment.rejected is None
            and experiment.repairs < self.policy.repair_attempts
            and experiment.failures < self.policy.asks_max
            and (failure is None or failure.failure not in NO_REPAIR)
        )

    def _judged(self, experiment: Experiment) -> list[c.Command]:
        """What becomes of a scored experiment; nothing while its guard runs, so the ones behind it wait."""
        best, candidate = self.run.best, candidate_of(experiment)
        if best is None:
            return self._guarded_keep(experiment, d.Keep(0.0, "baseline"))
        if candidate is None:
            return []
        decision = self.judge(d.Best(best.experiment, best.score, best.peak_memory_mb), candidate, self.policy)
        if isinstance(decision, d.Remeasure):
            return [self._remeasure(experiment, decision)]
        if isinstance(decision, d.Discard):
            return [self._decided(experiment, "discard", decision.gain, decision.reason)]
        if experiment.prepared is not None and experiment.prepared.base_commit != self.run.tip:
            return self._rebased(experiment, decision)
        return self._guarded_keep(experiment, decision)

    def _rebased(self, experiment: Experiment, decision: d.Keep) -> list[c.Command]:
        """A better score on an old tip is put on the new one and trained again, a few times at most."""
        if experiment.rebases >= self.policy.rebases_max:
            return [self._decided(experiment, "discard", decision.gain, "overtaken")]
        if self.run.pause == "now":
            return []
        newest = self.run.keeps[-1].experiment
        conflict = self._decided_data(experiment, "discard", decision.gain, f"conflicts with {newest}")
        trial = experiment.last
        cause = trial.scored_at if trial is not None else experiment.committed_at
        attempt = experiment.attempt + 1
        return [c.Prepare(self.run.tag, experiment.number, attempt, "rebase", self.run.tip, cause, conflict)]

    def _guarded_keep(self, experiment: Experiment, decision: d.Keep) -> list[c.Command]:
        guard = experiment.guard
        if self.policy.guard is None:
            return [self._decided(experiment, "keep", decision.gain, decision.reason)]
        if guard is None:
            if self._runs("guard", experiment) or experiment.committed is None or self.run.pause == "now":
                return []
            trial = experiment.last
            cause = experiment.guard_at or (trial.scored_at if trial is not None else experiment.committed_at)
            commit = experiment.committed.commit
            request = experiment.guard_at or None
            return [c.RunGuard(self.run.tag, experiment.number, experiment.attempt, commit, cause, request)]
        if guard.result == "passed":
            return [self._decided(experiment, "keep", decision.gain, decision.reason)]
        why = "guard timed out" if guard.result == "timeout" else f"guard failed with exit code {guard.exit_code}"
        verdict: e.Verdict = "crash" if experiment.number == 0 else "discard"
        return [self._decided(experiment, verdict, decision.gain, why)]

    def _decided(self, experiment: Experiment, verdict: e.Verdict, gain: float, reason: str) -> c.Append:
        trial = experiment.last
        scored_at = trial.scored_at if trial is not None else experiment.committed_at
        return self._fact(self._decided_data(experiment, verdict, gain, reason), experiment.guard_done_at or scored_at)

    def _decided_data(
        self, experiment: Experiment, verdict: e.Verdict, gain: float, reason: str
    ) -> e.ExperimentDecided:
        best = self.run.best
        candidate = candidate_of(experiment)
        return e.ExperimentDecided(
            experiment=experiment.number,
            attempt=experiment.attempt,
            verdict=verdict,
            reason=reason,
            trials=len(experiment.trials),
            score=candidate.score if candidate is not None and verdict != "crash" else None,
            best_before=best.score if best is not None else None,
            gain=gain if best is not None else None,
            lines=net_lines(experiment),
        )

    def _remeasure(self, experiment: Experiment, decision: d.Remeasure) -> c.Append:
        trial = len(experiment.trials)
        data = e.ExperimentRemeasureRequested(
            experiment=experiment.number, trial=trial, seed=self._seed(trial), why=decision.reason
        )
        last = experiment.last
        return self._fact(data, last.scored_at if last is not None else experiment.committed_at)

    # ------------------------------------------------------------ small parts

    def _undecided(self) -> list[Experiment]:
        return sorted(self.run.experiments.values(), key=lambda x: x.number)

    def _at_work(self) -> set[c.Key]:
        """Keys of this run's effects in flight."""
        return {key for key in self.running if key[1] == self.run.tag}

    def _runs(self, what: str, experiment: Experiment) -> bool:
        return (what, self.run.tag, experiment.number) in self.running

    def _trains(self, experiment: Experiment) -> bool:
        return self._runs("train", experiment) or self._runs("close", experiment)

    def _is_busy(self, experiment: Experiment) -> bool:
        """Whether an effect of it is in flight, which will still write an event about it."""
        return any(key[2:] == (experiment.number,) for key in self._at_work())

    def _branch_is_about_to_move(self) -> bool:
        vetoed = any(keep.experiment in self.run.vetoes for keep in self.run.keeps[1:])
        return self.run.pending_keep is not None or vetoed

    def _free_slots(self) -> int:
        """
        Slots for new experiments, within the limit of experiments.

        An experiment holds its slot from its preparation until its verdict. Scoring and verdict are short beside a
        training, and until they are known nobody knows the tip that the next edit belongs on: one prepared before
        would be overtaken by every keep.
        """
        in_hand = sum(x.in_hand or self._runs("prepare", x) for x in self._undecided())
        limit = self.run.limits.experiments
        most = self.policy.slots if limit is None else min(self.policy.slots, limit - self.run.verdicts)
        return max(0, most - in_hand)

    def _newest_step(self) -> int:
        steps = [x.prepared_at for x in self._undecided() if x.in_hand]
        steps += [self.run.done[-1].decided_at] if self.run.done else []
        return max(steps, default=self.run.started_at)

    def _seed(self, trial: int) -> int:
        return (self.run.started.seed if self.run.started is not None else 0) + trial

    def _fact(self, data: e.Data, cause: int | None) -> c.Append:
        return c.Append(self.run.tag, data, cause)

    def _abandon(self, experiment: Experiment, reason: str, why: str, cause: int) -> c.Append:
        return self._fact(e.ExperimentAbandoned(experiment=experiment.number, reason=reason, why=why), cause)

    def _keep_move(self, keep: Keep) -> c.MoveBranch:
        return c.MoveBranch(self.run.tag, keep.experiment, self.run.tip, keep.commit, "keep", keep.decided_at)

    def _close_training(self, experiment: Experiment, trial: Trial) -> c.CloseTraining:
        return c.CloseTraining(
            self.run.tag, experiment.number, experiment.attempt, trial.trial, trial.nonce, trial.open_at
        )

    def _lost_ask(self, experiment: Experiment) -> c.Append:
        request = experiment.request
        lost = e.ProposalFailed(
            experiment=experiment.number,
            ask=request.ask if request is not None else 0,
            failure="lost",
            why="the loop ended while it waited for the answer",
            usd=request.usd_reserved if request is not None else 0.0,
        )
        return self._fact(lost, experiment.ask_at)

    def _ask(self, experiment: Experiment) -> c.Propose:
        """Ask again for an experiment that has a number but no proposal; after a crash, the very same question."""
        request, failure = experiment.request, experiment.last_failure
        same = request is not None and failure is not None and failure.failure in UNCOUNTED_FAILURES
        return c.Propose(
            tag=self.run.tag,
            experiment=experiment.number,
            ask=experiment.asks,
            purpose=request.purpose if request is not None else "new",
            attempt=0,
            base_commit=request.base_commit if same and request is not None else self.run.tip,
            cause=experiment.last_failure_at,
            known_at=experiment.known_at if same else 0,
            again_of=request.again_of if request is not None else None,
        )

    def _repair(self, experiment: Experiment, trial: Trial) -> c.Propose:
        commit = experiment.committed.commit if experiment.committed is not None else self.run.tip
        same = experiment.last_failure is not None and experiment.last_failure.failure in UNCOUNTED_FAILURES
        return c.Propose(
            tag=self.run.tag,
            experiment=experiment.number,
            ask=experiment.asks,
            purpose="repair",
            attempt=experiment.attempt + 1,
            base_commit=commit,
            cause=max(trial.finished_at, experiment.last_failure_at),
            known_at=experiment.known_at if same else 0,
        )
