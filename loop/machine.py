"""The loop as one function: state of the log in, next commands out. Pure.

`next_commands` is asked again after every change. It never remembers anything: what is in flight comes in
as `running`, and an open intent that is not in flight is the orphan of a crash, which the same rules
close or take up again. How an experiment goes on follows from its stage (`loop/stages`); the verdict
itself is in `loop/decide`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from eventstore import events as e
from eventstore.projections.run_state import UNCOUNTED_FAILURES, Experiment, Keep, Run, State, Trial
from loop import commands as c
from loop import decide as d
from loop.policy import Policy
from loop.stages import Ending, candidate_of, ending_of, is_trivial, net_lines, outcome_of, stage_of

REPAIRABLE = frozenset({"crash"})
"""Outcomes that a changed edit can cure; the others are answers (too big, too slow, diverged) or attacks."""

NO_REPAIR = frozenset({"no_repair", "exhausted"})
NO_LIMIT = 2**31
"""More experiments than any run has."""

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
        out = [*self._cancelled(ending), *self._warnings(), *self._proposer_news(), *self._work(ending, pausing)]
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

    def _proposer_news(self) -> list[c.Command]:
        """Say that the run's own proposer fails and who stands in for it, or that it answers again."""
        run, policy = self.run, self.policy
        if not policy.remote:
            return []
        if run.switched is not None and not run.failure:
            back = e.ProposerSwitched(from_kind=policy.stand_in, to_kind=policy.proposer, why="it answers again")
            return [self._fact(back, run.last_at)]
        if run.failures_alike < policy.alike_max:
            return []
        why = f"{policy.proposer} failed {run.failures_alike} times in a row: {run.failure}"
        if run.switched is None and self._has_stand_in():
            switched = e.ProposerSwitched(from_kind=policy.proposer, to_kind=policy.stand_in, why=why)
            return [self._fact(switched, run.last_at)]
        if run.waiting is None and not self._has_stand_in():
            return [self._fact(e.ProposerWaiting(kind=policy.proposer, failure=run.failure, why=why), run.last_at)]
        return []

    def _has_stand_in(self) -> bool:
        return bool(self.policy.stand_in) and not self.run.stand_in_exhausted

    def _was_cut_off(self) -> bool:
        """Whether "pause now" cut off what is in hand: it goes on after the pause, also if the run is to end then."""
        return self.run.pause == "now" and any(x.in_hand for x in self._undecided())

    def _proposer_gave_up(self) -> bool:
        return not self.policy.remote and self.run.failures_in_a_row >= self.policy.failures_max

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
            return self._with_ideas(out)  # the rest is decided on the state after these facts
        if self.run.pause != "now":
            out += self._place(ending, pausing)
            out += self._train()
        if ending is None and not pausing and not self._branch_is_about_to_move():
            out += self._propose(out)
            out += self._fill(out)
        return self._with_ideas(out)

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
            return [
                self._abandon(experiment, "no_proposal", why, experiment.last_failure_at),
                *self._idea_was_no_good(experiment),
            ]
        if not may_ask or self._runs("propose", experiment):
            return []
        kind = "again" if is_old else self._next_kind()
        return [self._ask(experiment, kind)] if kind is not None and self._has_money() else []

    def _idea_was_no_good(self, experiment: Experiment) -> list[c.Command]:
        """Close the idea that an abandoned experiment was asked to use, so that the next one is not stuck with it."""
        idea = experiment.request.idea if experiment.request is not None else None
        if idea is None or idea not in self.state.ideas:
            return []
        why = f"no usable proposal came of it in {experiment.failures} asks"
        declined = e.IdeaDeclined(idea=idea, experiment=experiment.number, why=why)
        return [self._fact(declined, experiment.last_failure_at)]

    def _next_kind(self) -> str | None:
        """Who is asked for a new proposal now; None while the run's own proposer is to be left in peace."""
        if not self._must_wait():
            return self.policy.proposer
        return self.policy.stand_in if self.run.switched is not None and self._has_stand_in() else None

    def _must_wait(self) -> bool:
        """Whether the run's own proposer is to be left in peace. Not if the clock was set back behind its failure."""
        return self.run.failed_time <= self.now < self.run.retry_at

    def _has_money(self) -> bool:
        return self.run.usd_left is None or (self.run.usd_left > 0 and not self.run.usd_out)

    def _score(self, experiment: Experiment, trial: Trial) -> list[c.Command]:
        """Score a trial. The baseline would be kept with any score, so it is checked at once."""
        if self._runs("score", experiment):
            return []
        would_be_kept = self.policy.scoring == "sealed" and (experiment.number == 0 or trial.scored is not None)
        request = trial.scoring_at or None
        return [
            c.Score(
                self.run.tag,
                experiment.number,
                experiment.attempt,
                trial.trial,
                trial.scoring_at or trial.scored_at or trial.finished_at,
                request,
                checks=trial.scoring_checks if request is not None else would_be_kept,
            )
        ]

    def _unchecked(self, experiment: Experiment) -> Trial | None:
        """The trial of an experiment to be kept that is scored, but not seen not to look ahead; None if all is well."""
        trial = experiment.last
        is_sealed = self.policy.scoring == "sealed"
        return trial if is_sealed and trial is not None and not trial.checks_at else None

    def _place(self, ending: Ending | None, pausing: bool) -> list[c.Command]:
        """
        Prepare waiting proposals on today's tip: repairs on the slot they hold, new ones on free slots.

        Of a proposer here, a new one overtakes fewer proposals that are still asked for than there are slots. So one
        slot works in the order of the numbers, whatever answer comes first, and a crash of the loop changes no
        verdict. For a remote one no slot waits. What awaits approval is passed over.
        """
        if ending is not None or self._branch_is_about_to_move():
            return []
        if not self.run.keeps:
            return [] if pausing else self._baseline()
        waiting = [x for x in self._undecided() if stage_of(x) == "waiting" and not self._runs("prepare", x)]
        repairs = [x for x in waiting if x.in_hand]
        new = [x for x in waiting if not x.in_hand and not self.run.awaits_approval(x) and self._is_its_turn(x)]
        if self.policy.remote:  # they gave their slots away when they were asked for
            repairs = repairs[: self._empty_slots()]
        placed = len(repairs) if self.policy.remote else 0
        return [self._prepare(x) for x in repairs + new[: 0 if pausing else max(0, self._free_slots() - placed)]]

    def _is_its_turn(self, experiment: Experiment) -> bool:
        if self.policy.remote:
            return True
        asked_for = ("asking", "idle") if self._has_money() else ("asking",)
        asked = [x.number for x in self._undecided() if stage_of(x) in asked_for and not x.in_hand]
        return sum(n < experiment.number for n in asked) < self.policy.slots

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
        """Keep proposals ahead of the trainings, `policy.ahead` for each slot, within the limit of experiments."""
        if not self.run.keeps and 0 not in self.run.experiments:
            return []
        agains = sorted(self.run.agains.items(), key=lambda item: item[1])
        kind = self._next_kind() if self._has_money() and not self.run.exhausted else None
        wanted = min(self._wanted(ordered), self._numbers_left())
        numbers = self._free_numbers(ordered)
        out: list[c.Command] = []
        for _ in range(max(0, wanted if kind is not None else min(wanted, len(agains)))):
            number = next(numbers, None)
            if number is None:
                break
            if agains:
                of, cause = agains.pop(0)
                out.append(self._new_ask(number, "again", cause, again_of=of))
            elif kind is not None:
                out.append(self._new_ask(number, kind, self._newest_step()))
        return out

    def _fill(self, ordered: list[c.Command]) -> list[c.Command]:
        """Ask the stand-in for slots that nothing is ready for, if it is to fill them or the proposer fails."""
        may = (self.policy.fill_idle or self.run.switched is not None) and self._has_stand_in()
        if not may or not self.run.keeps:
            return []
        placed = sum(isinstance(command, c.Prepare) for command in ordered)
        coming = sum(not x.in_hand and self._is_by_stand_in(x) and stage_of(x) != "idle" for x in self._undecided())
        coming += sum(isinstance(x, c.Propose) and x.kind in (self.policy.stand_in, "again") for x in ordered)
        asked = sum(isinstance(command, c.Propose) and command.ask == 0 for command in ordered)
        wanted = min(self._free_slots() - placed - coming, self._numbers_left() - asked)
        numbers = self._free_numbers(ordered)
        fills = [number for number, _ in zip(numbers, range(max(0, wanted)), strict=False)]
        return [self._new_ask(number, self.policy.stand_in, self._newest_step()) for number in fills]

    def _wanted(self, ordered: list[c.Command]) -> int:
        """How many more proposals should be under way."""
        placed = sum(isinstance(command, c.Prepare) and command.step == "first" for command in ordered)
        waiting = [x for x in self._undecided() if not x.in_hand and not self._runs("prepare", x)]
        unapproved = sum(self.run.awaits_approval(x) for x in waiting)
        ahead = len(waiting) - unapproved - placed
        most = self.policy.slots * self.policy.ahead if self.policy.ahead else self._free_slots() - placed
        return min(most - ahead, self.policy.slots * self.policy.unapproved_max - unapproved)

    def _numbers_left(self) -> int:
        """How many more experiments may be begun within the limit."""
        if self.run.limits.experiments is None:
            return NO_LIMIT
        undecided = sum(x.number > 0 for x in self._undecided())
        return self.run.limits.experiments - self.run.verdicts - undecided

    def _free_numbers(self, ordered: list[c.Command]) -> Iterator[int]:
        """Numbers for new experiments; none while one is being asked for that the log does not know yet."""
        taken = [x.experiment for x in ordered if isinstance(x, c.Propose)]
        number = max([0, self.run.next_number - 1, *taken]) + 1
        while ("propose", self.run.tag, number) not in self.running:
            yield number
            number += 1

    def _new_ask(self, number: int, kind: str, cause: int, *, again_of: int | None = None) -> c.Propose:
        purpose: e.Purpose = "again" if again_of is not None else "new"
        return c.Propose(
            tag=self.run.tag,
            experiment=number,
            ask=0,
            purpose=purpose,
            attempt=0,
            base_commit=self.run.tip,
            cause=cause,
            known_at=0,
            kind=kind,
            again_of=again_of,
        )

    def _with_ideas(self, ordered: list[c.Command]) -> list[c.Command]:
        """Give each new ask the oldest open idea that no other ask has, where the proposer can read."""
        if not self.policy.remote:
            return ordered
        taken = {x.request.idea for x in self._undecided() if x.ask_at and x.request is not None}
        facts = [command.data for command in ordered if isinstance(command, c.Append)]
        taken |= {data.idea for data in facts if isinstance(data, e.IdeaDeclined)}  # in this very turn
        out: list[c.Command] = []
        for command in ordered:
            if not isinstance(command, c.Propose) or command.idea is None:
                out.append(command)
            elif command.idea in taken:  # another ask got it meanwhile
                out.append(replace(command, idea=None))
            else:
                taken.add(command.idea)
                out.append(command)
        ideas = iter(sorted(self.state.ideas.keys() - taken))
        return [
            replace(x, idea=next(ideas, None))
            if isinstance(x, c.Propose) and x.purpose == "new" and x.kind == self.policy.proposer and x.idea is None
            else x
            for x in out
        ]

    def _is_by_stand_in(self, experiment: Experiment) -> bool:
        return experiment.request is not None and experiment.request.kind == self.policy.stand_in

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
            later = later or self._must_wait()
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
        return [self._fact(decided, trial.checks_at or trial.scored_at or trial.finished_at)]

    def _may_repair(self, experiment: Experiment, outcome: e.Outcome) -> bool:
        failure = experiment.last_failure
        return (
            experiment.number > 0
            and outcome in REPAIRABLE
            and experiment.rejected is None
            and experiment.repairs < self.policy.repair_attempts
            and experiment.failures < self.policy.asks_max
            and (failure is None or failure.failure not in NO_REPAIR)
            and (experiment.request is None or experiment.request.kind in (self.policy.proposer, "again"))
            and self._has_money()
            and not (self.policy.remote and self.run.failures_alike >= self.policy.alike_max)
            and is_trivial(experiment)
        )

    def _judged(self, experiment: Experiment) -> list[c.Command]:
        """What becomes of a scored experiment; nothing while its guard runs, so the ones behind it wait."""
        best, candidate, trial = self.run.best, candidate_of(experiment), experiment.last
        if trial is not None and trial.scoring_at:  # its checks were begun
            return [] if self.run.pause == "now" else self._score(experiment, trial)
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
        if (unchecked := self._unchecked(experiment)) is not None:
            return [] if self.run.pause == "now" else self._score(experiment, unchecked)
        if self.policy.guard is None:
            return [self._decided(experiment, "keep", decision.gain, decision.reason)]
        if guard is None:
            if self._runs("guard", experiment) or experiment.committed is None or self.run.pause == "now":
                return []
            cause = experiment.guard_at or _scored_at(experiment)
            commit = experiment.committed.commit
            request = experiment.guard_at or None
            return [c.RunGuard(self.run.tag, experiment.number, experiment.attempt, commit, cause, request)]
        if guard.result == "passed":
            return [self._decided(experiment, "keep", decision.gain, decision.reason)]
        why = "guard timed out" if guard.result == "timeout" else f"guard failed with exit code {guard.exit_code}"
        verdict: e.Verdict = "crash" if experiment.number == 0 else "discard"
        return [self._decided(experiment, verdict, decision.gain, why)]

    def _decided(self, experiment: Experiment, verdict: e.Verdict, gain: float, reason: str) -> c.Append:
        cause = experiment.guard_done_at or _scored_at(experiment)
        return self._fact(self._decided_data(experiment, verdict, gain, reason), cause)

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
        if self.run.pending_keep is not None:
            return True
        return bool(self.run.vetoes) and any(keep.experiment in self.run.vetoes for keep in self.run.keeps[1:])

    def _free_slots(self) -> int:
        """
        Slots for new experiments, within the limit of experiments.

        An experiment holds its slot from its preparation until its verdict. Scoring and verdict are short beside a
        training, and until they are known nobody knows the tip that the next edit belongs on: one prepared before
        would be overtaken by every keep. Only while a remote proposer thinks about a repair is the slot free.
        """
        begun = sum(x.in_hand or self._runs("prepare", x) for x in self._undecided())
        limit = self.run.limits.experiments
        left = NO_LIMIT if limit is None else limit - self.run.verdicts - begun
        return max(0, min(self._empty_slots(), left))

    def _empty_slots(self) -> int:
        return max(0, self.policy.slots - sum(self._holds_slot(x) for x in self._undecided()))

    def _holds_slot(self, experiment: Experiment) -> bool:
        if self._runs("prepare", experiment):
            return True
        is_with_proposer = stage_of(experiment) in ("asking", "waiting", "failed")
        return experiment.in_hand and not (self.policy.remote and is_with_proposer)

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

    def _ask(self, experiment: Experiment, kind: str) -> c.Propose:
        """Ask again for an experiment that has a number but no proposal; after a crash, the very same question."""
        request = experiment.request
        same = request is not None and request.kind == kind and self._was_interrupted(experiment)
        idea = request.idea if same and request is not None and request.idea in self.state.ideas else None
        return c.Propose(
            tag=self.run.tag,
            experiment=experiment.number,
            ask=experiment.asks,
            purpose=request.purpose if request is not None else "new",
            attempt=0,
            base_commit=request.base_commit if same and request is not None else self.run.tip,
            cause=experiment.last_failure_at,
            known_at=experiment.known_at if same else 0,
            kind=kind,
            again_of=request.again_of if request is not None else None,
            idea=idea,
        )

    def _repair(self, experiment: Experiment, trial: Trial) -> c.Propose:
        commit = experiment.committed.commit if experiment.committed is not None else self.run.tip
        return c.Propose(
            tag=self.run.tag,
            experiment=experiment.number,
            ask=experiment.asks,
            purpose="repair",
            attempt=experiment.attempt + 1,
            base_commit=commit,
            cause=max(trial.finished_at, experiment.last_failure_at),
            known_at=experiment.known_at if self._was_interrupted(experiment) else 0,
            kind=self.policy.proposer,
        )

    @staticmethod
    def _was_interrupted(experiment: Experiment) -> bool:
        """Whether its last ask came to nothing through no fault of the proposer."""
        return experiment.last_failure is not None and experiment.last_failure.failure in UNCOUNTED_FAILURES


def _scored_at(experiment: Experiment) -> int:
    """Where the newest trial got its score, or came through its checks."""
    trial = experiment.last
    return experiment.committed_at if trial is None else trial.checks_at or trial.scored_at
