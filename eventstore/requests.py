"""What people may ask: state and request in, event or refusal out. Pure.

The command line and the bot ask through the same functions, so both refuse the same things in the same
words. A request that is accepted is only an event: the loop reads it and acts. The caller appends it with
the position of the state it was judged on, and asks again if someone came between.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal
from zoneinfo import ZoneInfo

from eventstore import events as e
from eventstore.envelope import parse_at
from eventstore.errors import InvalidEvent
from eventstore.projections.run_state import Run, State

TAG_MAX = 60
TAG_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
IDEA_MAX = 2_000
WHY_MAX = 500
PROGRAM_MAX_BYTES = 200_000
CLOCK_PATTERN = re.compile(r"([01]\d|2[0-3]):[0-5]\d", re.ASCII)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The request stands: append *data* under the run's tag *run*, which is empty for the workspace."""

    run: str
    data: e.Data


@dataclass(frozen=True, slots=True)
class Refused:
    """The request cannot be served; *why* is one sentence that says what to do instead."""

    why: str


Answer = Accepted | Refused


def tag_problem(tag: str) -> str | None:
    """What is wrong with a run's tag, or None. A tag is part of a branch's and a folder's name."""
    if not tag:
        return "a run needs a tag, such as nov21"
    if len(tag) > TAG_MAX:
        return f"the tag is {len(tag)} characters long, at most {TAG_MAX} are allowed"
    legal = TAG_PATTERN.fullmatch(tag) and ".." not in tag and not tag.endswith((".", ".lock"))
    if not legal:
        return f"the tag {tag!r} is not a name: use letters, digits, '.', '_' and '-', such as nov21-gpu0"
    return None


def text_hash(text: str) -> str:
    """SHA-256 of a program's text, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


# ---------------------------------------------------------------- runs


def start(
    state: State,
    tag: str,
    zone: str,
    *,
    from_ref: str = "HEAD",
    limits: e.Limits | None = None,
    overrides: dict[str, Any] | None = None,
    seed: int | None = None,
) -> Answer:
    """Ask for a run. Refused: a bad or used tag, an impossible limit, an unknown zone."""
    problem = tag_problem(tag) or limits_problem(limits or e.Limits()) or zone_problem(zone)
    if problem:
        return Refused(problem)
    known = state.runs.get(tag)
    if known is not None and known.status not in ("refused", "withdrawn"):
        return Refused(f"the run {tag} exists ({known.status}): choose another tag")
    limits = limits or e.Limits()
    data = e.RunRequested(
        tag=tag, from_ref=from_ref or "HEAD", zone=zone, limits=limits, overrides=overrides or {}, seed=seed
    )
    return Accepted(tag, data)


def withdraw(state: State, tag: str, why: str = "") -> Answer:
    """Take back a run that has not started."""
    run = _find(state, tag)
    if isinstance(run, Refused):
        return run
    if run.status != "queued":
        return Refused(f"the run {tag} is {run.status}: only a queued run can be withdrawn")
    return Accepted(tag, e.RunWithdrawn(why=why[:WHY_MAX]))


def stop(state: State, tag: str | None, mode: e.StopMode = "after_experiment") -> Answer:
    """End a run; a queued one is withdrawn. `now` may follow `after_experiment`, not the reverse."""
    run = _find(state, tag)
    if isinstance(run, Refused):
        return run
    if run.status == "queued":
        return withdraw(state, run.tag, "stopped before it started")
    if run.is_over:
        return Refused(f"the run {run.tag} is {run.status} already")
    if run.stop in ("now", mode):
        return Refused(f"the run {run.tag} is stopping already")
    return Accepted(run.tag, e.RunStopRequested(mode=mode))


def pause(state: State, tag: str | None, mode: e.StopMode = "after_experiment") -> Answer:
    """Hold a run after the experiments in hand, or now."""
    run = _find_started(state, tag)
    if isinstance(run, Refused):
        return run
    if run.status == "paused":
        return Refused(f"the run {run.tag} is paused already")
    if run.pause in ("now", mode):
        return Refused(f"the run {run.tag} is pausing already")
    return Accepted(run.tag, e.RunPauseRequested(mode=mode))


def resume(state: State, tag: str | None) -> Answer:
    """Let a paused or pausing run go on, unless it is to end."""
    run = _find_started(state, tag)
    if isinstance(run, Refused):
        return run
    if run.stop is not None:
        return Refused(f"the run {run.tag} is stopping already")
    if run.status != "paused" and run.pause is None:
        return Refused(f"the run {run.tag} is not paused")
    if run.resume_at:
        return Refused(f"the run {run.tag} is resuming already")
    return Accepted(run.tag, e.RunResumeRequested())


def budget(
    state: State, tag: str | None, limit: Literal["experiments", "until", "usd"], value: int | float | str | None
) -> Answer:
    """Change one limit of a run that is not over; None takes it away. *until* is UTC in the log's form."""
    run = _find(state, tag)
    if isinstance(run, Refused):
        return run
    if run.is_over:
        return Refused(f"the run {run.tag} is {run.status}: its limits no longer matter")
    problem = _limit_problem(limit, value)
    if problem:
        return Refused(problem)
    if limit == "usd" and value is not None and (unpriced := _unpriced(run)):
        return Refused(f"a limit of money for {run.tag} could not be kept: {unpriced}")
    old = getattr(run.limits, limit)
    if old == value:
        return Refused(f"the limit {limit} of {run.tag} is {'off' if value is None else value} already")
    return Accepted(run.tag, e.BudgetChanged(limit=limit, old=old, new=value))


def _unpriced(run: Run) -> str:
    """Why nobody knows what the proposals of a run that has started cost; empty where the price is known."""
    settings = run.started.settings if run.started is not None else {}
    claude = settings.get("claude", {})
    if run.proposer == "agent":
        return "nobody knows what an agent's command costs"
    if run.proposer == "claude" and claude.get("model") not in claude.get("prices", {}):
        return f"the model {claude.get('model')!r} has no price in nightshift.toml"
    return ""


# ---------------------------------------------------------------- program, ideas


def edit_program(state: State, base_hash: str, text: str) -> Answer:
    """Put a new text of program.md in force, by someone who has seen the version *base_hash*."""
    if not text.strip():
        return Refused("program.md would be empty: write what to research")
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > PROGRAM_MAX_BYTES:
        return Refused(f"program.md would be {size} bytes, at most {PROGRAM_MAX_BYTES} are allowed")
    if base_hash != state.program_hash:
        now, seen = state.program_hash[:8] or "none", base_hash[:8] or "none"
        return Refused(
            f"program.md has changed since you read it (it was {seen}, it is {now}): read it again and edit that"
        )
    new = text_hash(text)
    if new == state.program_hash:
        return Refused("program.md has this text already")
    return Accepted("", e.ProgramEdited(base_hash=base_hash, hash=new, text=text))


def suggest_idea(state: State, text: str, by: str = "") -> Answer:
    """Put an idea into the queue of the workspace."""
    text = text.strip()
    if not text:
        return Refused("the idea is empty: say what to try")
    if len(text) > IDEA_MAX:
        return Refused(f"the idea is {len(text)} characters long, at most {IDEA_MAX} are allowed")
    if any(idea.text == text for idea in state.ideas.values()):
        return Refused("this idea is in the queue already")
    return Accepted("", e.IdeaSuggested(text=text, by=by))


def withdraw_idea(state: State, idea: int) -> Answer:
    """Take an open idea back."""
    if idea not in state.ideas:
        return Refused(f"there is no open idea {idea}: `nightshift idea list` shows them")
    return Accepted("", e.IdeaWithdrawn(idea=idea))


# ---------------------------------------------------------------- experiments


def approve(state: State, tag: str | None, experiment: int) -> Answer:
    """Let a proposal that waits for approval go ahead."""
    waiting = _waiting_proposal(state, tag, experiment)
    if isinstance(waiting, Refused):
        return waiting
    if not waiting.awaits_approval(waiting.experiments[experiment]):
        return Refused(f"the proposal of experiment {experiment} needs no approval: it starts when a device is free")
    return Accepted(waiting.tag, e.ProposalApproved(experiment=experiment))


def reject(state: State, tag: str | None, experiment: int, why: str = "") -> Answer:
    """Turn a proposal down before any of its code runs."""
    waiting = _waiting_proposal(state, tag, experiment)
    if isinstance(waiting, Refused):
        return waiting
    return Accepted(waiting.tag, e.ProposalRejected(experiment=experiment, why=why[:WHY_MAX]))


def veto(state: State, tag: str | None, experiment: int, why: str = "") -> Answer:
    """Take a keep back, also in a run that is over. Refused for the baseline and for what is not on the branch."""
    run = _find_started(state, tag, over=True)
    if isinstance(run, Refused):
        return run
    if experiment == 0:
        return Refused("experiment 0 is the baseline: there is nothing before it to go back to")
    if not _is_kept(run, experiment):
        done = run.finished_experiment(experiment)
        what = "has no verdict yet" if done is None else f"is a {done.verdict or 'withdrawn experiment'}"
        if done is not None and done.verdict == "keep":
            what = "is off the branch already"
        return Refused(f"experiment {experiment} of {run.tag} {what}: only a keep on the branch can be vetoed")
    if experiment in run.vetoes:
        return Refused(f"experiment {experiment} of {run.tag} is vetoed already")
    return Accepted(run.tag, e.KeepVetoed(experiment=experiment, why=why[:WHY_MAX]))


def again(state: State, tag: str | None, experiment: int) -> Answer:
    """Take the edit of an experiment that is over up again, on today's best."""
    run = _find_started(state, tag, over=True)
    if isinstance(run, Refused):
        return run
    if run.is_over:
        return Refused(f"the run {run.tag} is over: start a run from its branch")
    if experiment == 0:
        return Refused("experiment 0 is the baseline: it has no edit to take up")
    done = run.finished_experiment(experiment)
    if done is None:
        return Refused(f"experiment {experiment} of {run.tag} is not over: wait for its verdict")
    if not done.commit:
        return Refused(f"experiment {experiment} of {run.tag} was never committed: there is no edit to take up")
    if _is_kept(run, experiment):
        return Refused(f"experiment {experiment} of {run.tag} is on the branch already")
    if experiment in run.agains:
        return Refused(f"experiment {experiment} of {run.tag} is waiting to be taken up already")
    return Accepted(run.tag, e.ExperimentRequested(of=experiment))


def schedule_digest(channel: str, at: str, zone: str) -> Answer:
    """Set the hour of a channel's digest; an empty *at* turns it off."""
    if not channel:
        return Refused("a digest needs a channel")
    if not at:
        return Accepted("", e.DigestScheduled(channel=channel))
    if not CLOCK_PATTERN.fullmatch(at):
        return Refused(f"{at!r} is not a time of day: write it as 08:00")
    problem = zone_problem(zone)
    return Refused(problem) if problem else Accepted("", e.DigestScheduled(channel=channel, at=at, zone=zone))


def request_digest(channel: str) -> Answer:
    """Have a digest posted to a channel now."""
    return Accepted("", e.DigestRequested(channel=channel)) if channel else Refused("a digest needs a channel")


# ---------------------------------------------------------------- parts


def limits_problem(limits: e.Limits) -> str | None:
    """What is impossible about *limits*, or None."""
    named: tuple[Literal["experiments", "until", "usd"], ...] = ("experiments", "until", "usd")
    return next((problem for name in named if (problem := _limit_problem(name, getattr(limits, name)))), None)


def _limit_problem(limit: Literal["experiments", "until", "usd"], value: int | float | str | None) -> str | None:
    if value is None:
        return None
    if limit == "experiments" and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        return f"experiments: got {value!r}, expected a whole number of at least 1"
    if limit == "until" and not (isinstance(value, str) and _is_time(value)):
        return f"until: got {value!r}, expected a time in UTC"
    is_amount = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")
    if limit == "usd" and not is_amount:
        return f"usd: got {value!r}, expected an amount above 0"
    return None


def _is_time(text: str) -> bool:
    try:
        parse_at(text)
    except InvalidEvent:
        return False
    return True


def zone_problem(zone: str) -> str | None:
    """Why *zone* is not an IANA time zone, or None."""
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError):  # unknown, malformed, a folder's name
        return f"{zone!r} is not a time zone: use a name such as Europe/Berlin or UTC"
    return None


def _is_kept(run: Run, experiment: int) -> bool:
    """Whether the experiment is on the branch, or about to be: a keep counts from its decision."""
    pending = run.pending_keep is not None and run.pending_keep.experiment == experiment
    return pending or run.keep_of(experiment) is not None


def _find(state: State, tag: str | None) -> Run | Refused:
    if tag is None:
        if state.active is None:
            return Refused("no run is active: name one, `nightshift status` lists them")
        return state.active
    run = state.runs.get(tag)
    if run is not None:
        return run
    near = get_close_matches(tag, state.runs, 1)
    return Refused(f"there is no run {tag!r}" + (f": did you mean {near[0]}?" if near else ": `nightshift status`"))


def _find_started(state: State, tag: str | None, *, over: bool = False) -> Run | Refused:
    run = state.newest if over and tag is None and state.active is None else _find(state, tag)
    if run is None:
        return Refused("no run has started yet: `nightshift start TAG` starts one")
    if isinstance(run, Refused):
        return run
    if run.started is None:
        return Refused(f"the run {run.tag} is {run.status}: it has not started")
    if run.is_over and not over:
        return Refused(f"the run {run.tag} is {run.status} already")
    return run


def _waiting_proposal(state: State, tag: str | None, number: int) -> Run | Refused:
    run = _find_started(state, tag)
    if isinstance(run, Refused):
        return run
    experiment = run.experiments.get(number)
    if experiment is None or not experiment.proposal_waits:
        return Refused(f"experiment {number} of {run.tag} has no proposal that waits")
    if experiment.rejected is not None or experiment.approved:
        verdict = "approved" if experiment.approved else "rejected"
        return Refused(f"the proposal of experiment {number} is {verdict} already")
    return run
