"""What the team reads in the morning: what came of the runs between two moments, folded from the log. Pure.

Guaranteed: the same events and window give the same digest; every list in it is bounded and says beside it how many
it leaves out; every text is one line, bounded and free of control characters. What was kept and then taken back counts
as discarded. A gain is told with its standing, so that nobody takes one within noise for an improvement.

The fold needs every event from position 1, because what counts in a window rests on what was before it. What it holds
beyond `State` and `Results` grows with the keeps and the ideas, not with the experiments.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, get_args

import msgspec

from eventstore import events as e
from eventstore.envelope import AT_PATTERN, Event, format_at, parse_at
from eventstore.plain import plain_line, shortened
from eventstore.projections.besides import NOT_OF_AN_ANSWER
from eventstore.projections.ideas import Idea, Ideas
from eventstore.projections.results import Results, Row, one_line
from eventstore.projections.run_state import UNCOUNTED_FAILURES, Experiment, Run, State

FIRST_WINDOW_S = 24 * 3600
"""Seconds that a digest looks back where there was none before."""

KEEPS_MAX = 200
FAILURES_MAX = 5
"""Failures of each kind."""
CLASSES_MAX = 20
TAMPERED_MAX = 20
OTHERS_MAX = 20
"""Ideas of each state, versions, vetoes, troubles, switches, decisions of each kind, runs that wait."""
RUNS_MAX = 20
STEPS_MAX = 20
"""Points of the staircase, as many as a chart in Slack may have."""

TEXT_MAX = 300
"""Characters of a sentence; a description has at most 200."""

NEAR_SHARE = 0.001
"""A loss of at most this part of the best is a near miss, as is a gain that was not kept."""

DIRECTION_BETTER = {"minimize": -1.0, "maximize": 1.0, "pass": 1.0}

NO_TOKENS = e.Tokens()

FailureKind = Literal["loss", "near_miss", "guard", "conflict"]
FAILURE_KINDS: tuple[FailureKind, ...] = get_args(FailureKind)


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what a digest is made of."""


class Window(View, frozen=True, kw_only=True):
    """
    The part of the log that is told of, either by positions or by times in the log's form.

    By positions each event is in exactly one of two windows that follow each other; by times an event may be in none
    or two when a clock was set back.

    Attributes:
        from_at: The moment it begins; by positions empty, and filled in by the digest.
        to_at: The moment it ends.
        after: The last position before it, or None to go by *from_at*.
        upto: The last position that is read at all, or None for the whole log.
    """

    from_at: str = ""
    to_at: str
    after: int | None = None
    upto: int | None = None

    def includes(self, event: Event) -> bool:
        """Whether an event counts."""
        if self.upto is not None and event.position > self.upto:
            return False
        if self.after is not None:
            return event.position > self.after
        return self.from_at <= event.at and (self.upto is not None or event.at <= self.to_at)


class Counts(View, frozen=True, kw_only=True):
    """
    Experiments of the window, the baseline apart.

    *refused* are answers of a proposer that were refused before any of their code ran, *repaired* experiments that
    were repaired after a crash.
    """

    kept: int = 0
    discarded: int = 0
    crashed: int = 0
    abandoned: int = 0
    refused: int = 0
    repaired: int = 0

    @property
    def verdicts(self) -> int:
        return self.kept + self.discarded + self.crashed


class Standings(View, frozen=True, kw_only=True):
    """What is known of the keeps' gains."""

    confirmed: int = 0
    within_noise: int = 0
    untested: int = 0


class Kept(View, frozen=True, kw_only=True):
    """
    A keep of the window that is on the branch.

    Attributes:
        gain, gain_percent: Against the best before it, above 0 is better; None where there is no number.
        report_score: On rows that decided nothing, where the evaluator has such.
        by: The model, or the kind of the proposer.
        idea_by: Whose idea it was, an actor or the name that was credited; empty for the proposer's own.
        commit: Its first 7 characters.
        later: How many keeps are built on it.
    """

    experiment: int
    description: str
    hypothesis: str
    expected_effect: str
    score: float | None
    report_score: float | None
    gain: float | None
    gain_percent: float | None
    lines: int
    standing: e.Standing
    reason: str
    commit: str
    by: str
    idea_by: str
    at: str
    position: int
    later: int


class Failure(View, frozen=True, kw_only=True):
    """
    A discard that teaches something.

    *kind* is `loss` (clearly worse), `near_miss` (a gain that was not kept, or hardly worse), `guard` (the guard
    failed) or `conflict` (it no longer fitted the best).
    """

    kind: FailureKind
    experiment: int
    description: str
    hypothesis: str
    reason: str
    score: float | None = None
    gain: float | None = None


class Failures(View, frozen=True, kw_only=True):
    """The most instructive of one kind; *count* is how many there were."""

    kind: FailureKind
    count: int
    shown: tuple[Failure, ...]


class Crashes(View, frozen=True, kw_only=True):
    """Crashes of one outcome, with the first one as an example and its last line of output."""

    outcome: str
    count: int
    experiment: int
    description: str
    error: str


class Tampered(View, frozen=True, kw_only=True):
    """An experiment that changed the harness, printed a second metric block or gave an impossible score."""

    experiment: int
    description: str
    why: str


class Idle(View, frozen=True, kw_only=True):
    """How long devices stood idle between trainings; *share* of the whole time, 0 to 1."""

    share: float
    idle_s: float
    training_s: float


class Money(View, frozen=True, kw_only=True):
    """
    What proposals cost, in US dollars.

    Attributes:
        known: The sum of the known prices.
        unknown: Answers whose price nobody knows.
        per: What *per_keep* is per: `confirmed` keep if there is one, else `keep` of any standing.
        per_keep: None without a keep.
    """

    known: float
    unknown: int
    per: Literal["confirmed", "keep"]
    per_keep: float | None


class Veto(View, frozen=True, kw_only=True):
    """A keep that someone took back. *served* is whether it is off the branch."""

    run: str
    experiment: int
    description: str
    by: str
    why: str
    at: str
    served: bool


class Switch(View, frozen=True, kw_only=True):
    """Another proposer took over at *at*; *to_kind* is empty where nothing stands in and the run waits."""

    at: str
    from_kind: str
    to_kind: str
    why: str


class Step(View, frozen=True, kw_only=True):
    """The best after an experiment."""

    experiment: int
    best: float


class RunDigest(View, frozen=True, kw_only=True):
    """
    One run in the window.

    Attributes:
        why: Why it is paused, over or refused.
        best_before: When the window began; the baseline's score for a run that began in it.
        best_experiment: The experiment at the tip of the branch at the end of the window.
        gain: From *best_before* to *best_after*, above 0 is better; below 0 where a veto took more back than was won.
        gain_confirmed: What the confirmed keeps gained, each against the best before it.
        began: Whether it started in the window.
        failed_asks: Asks for proposals that failed for reasons outside, by class.
        refusals: Refused answers by class.
        abandonments: Abandoned experiments by reason.
        steps: The best over the whole run, at most 20 points of it.
    """

    tag: str
    status: str
    why: str
    asked_by: str
    started_at: str | None
    finished_at: str | None
    metric: str
    direction: str
    branch: str
    device: str
    proposer: str
    began: bool
    counts: Counts
    standings: Standings
    baseline: float | None
    best_before: float | None
    best_after: float | None
    best_experiment: int | None
    gain: float | None
    gain_percent: float | None
    gain_confirmed: float | None
    keeps: tuple[Kept, ...]
    keeps_left_out: int
    failures: tuple[Failures, ...]
    crashes: tuple[Crashes, ...]
    tampered: tuple[Tampered, ...]
    tampered_count: int
    refusals: dict[str, int]
    failed_asks: dict[str, int]
    abandonments: dict[str, int]
    idle: Idle | None
    tokens: e.Tokens
    money: Money
    switches: tuple[Switch, ...]
    switches_left_out: int
    steps: tuple[Step, ...]


class IdeaTold(View, frozen=True, kw_only=True):
    """
    An idea.

    Attributes:
        by: An actor such as `cli:ada`, or the name that was credited, which has no colon.
        state: `used`, `declined`, `withdrawn` or `open`.
        verdict: What came of its use, if known yet.
    """

    position: int
    by: str
    text: str
    state: str
    run: str
    experiment: int | None
    verdict: str | None
    why: str


class IdeasTold(View, frozen=True, kw_only=True):
    """Ideas by what became of them in the window, and those that wait at its end; each list bounded."""

    used: tuple[IdeaTold, ...] = ()
    used_count: int = 0
    declined: tuple[IdeaTold, ...] = ()
    declined_count: int = 0
    waiting: tuple[IdeaTold, ...] = ()
    waiting_count: int = 0


class VersionUsed(View, frozen=True, kw_only=True):
    """
    A version of program.md that was in force in the window.

    *experiments* are those with a verdict in the window that were proposed under it, *keeps* those of them that are on
    their branch; *position* is 0 for a version that the log does not know.
    """

    position: int
    hash: str
    at: str
    by: str
    experiments: int
    keeps: int
    in_force: bool


class TroubleTold(View, frozen=True, kw_only=True):
    """Something outside the runs that was wrong in the window; *cleared_at* is None while it still is."""

    kind: str
    what: str
    since: str
    cleared_at: str | None


class Decision(View, frozen=True, kw_only=True):
    """
    What a person could decide.

    *kind* is `approve` (a proposal waits), `resume` (a run is paused), `refused` (a run could not start) or `veto` (a
    keep whose gain is not confirmed could be taken back). *takes* is how many later keeps a veto takes off as well.
    """

    kind: Literal["approve", "resume", "refused", "veto"]
    run: str
    experiment: int | None = None
    description: str = ""
    hypothesis: str = ""
    why: str = ""
    standing: e.Standing | None = None
    gain: float | None = None
    takes: int = 0


class LoopTold(View, frozen=True, kw_only=True):
    """
    The loop in the window, as far as the log knows.

    *died* counts loops that ended without saying so before another one started; *serving* is whether one had started
    and not said that it stopped.
    """

    started: int
    died: int
    serving: bool
    stopped_why: str


class Queued(View, frozen=True, kw_only=True):
    """A run that waits its turn."""

    tag: str
    asked_by: str


class Digest(View, frozen=True, kw_only=True):
    """
    What the team reads in the morning.

    Attributes:
        position: The last position that was read.
        runs: Those with an event in the window and the one that is active, in the order of their requests.
        decisions: What needs a person, in the order approve, resume, refused, veto; of each kind a bounded number.
    """

    window: Window
    position: int
    runs: tuple[RunDigest, ...]
    runs_left_out: int
    queue: tuple[Queued, ...]
    queue_left_out: int
    ideas: IdeasTold
    programs: tuple[VersionUsed, ...]
    programs_left_out: int
    vetoes: tuple[Veto, ...]
    vetoes_left_out: int
    troubles: tuple[TroubleTold, ...]
    troubles_left_out: int
    decisions: tuple[Decision, ...]
    decisions_left_out: int
    loop: LoopTold

    @property
    def is_quiet(self) -> bool:
        """Whether no experiment came to an end and no proposal was refused in the window."""
        ended = (run.counts.verdicts + run.counts.abandoned + run.counts.refused for run in self.runs)
        return not any(ended)


def window_of(request: e.PostRequested, at: str) -> Window:
    """The window of a digest's post from its `post.requested`, which was appended *at*; so it stays the same."""
    if request.from_position:
        return Window(after=request.from_position, upto=request.to_position, to_at=at)
    began = format_at(parse_at(at) - timedelta(seconds=FIRST_WINDOW_S))
    return Window(from_at=began, upto=request.to_position, to_at=at)


class LastDigest:
    """The newest digest that was posted, folded event by event with `apply`."""

    def __init__(self) -> None:
        self.window: Window | None = None
        """What it speaks of; None while there is none."""
        self._requested: dict[str, Window] = {}

    def apply(self, event: Event) -> None:
        """Take in the next event of the log."""
        match event.data:
            case e.PostRequested(kind="digest", key=key):
                self._requested[key] = window_of(event.data, event.at)
            case e.PostMade(key=key) if key in self._requested:
                self.window = self._requested.pop(key)
            case e.PostFailed(key=key):
                self._requested.pop(key, None)


def digest(events: Iterable[Event], window: Window, tags: Collection[str] | None = None) -> Digest:
    """Fold *events*, which begin at position 1. See `DigestFold`."""
    fold = DigestFold(window, tags)
    for event in events:
        fold.apply(event)
    return fold.digest()


# ---------------------------------------------------------------- the fold


@dataclass(slots=True)
class _Worst:
    """The most instructive failures of one kind; *count* of them were offered."""

    count: int = 0
    shown: list[tuple[float, Failure]] = field(default_factory=list)

    def offer(self, rank: float, failure: Failure) -> None:
        """Keep *failure* if it is among the few with the lowest rank; of two alike, the earlier one."""
        self.count += 1
        self.shown.append((rank, failure))
        self.shown.sort(key=lambda ranked: (ranked[0], ranked[1].experiment))
        del self.shown[FAILURES_MAX:]


@dataclass(slots=True)
class _Night:
    """What one run did in the window."""

    began: bool = False
    keeps: dict[int, Kept] = field(default_factory=dict)
    discarded: int = 0
    crashed: int = 0
    repaired: set[int] = field(default_factory=set)
    failures: dict[str, _Worst] = field(default_factory=dict)
    crashes: dict[str, Crashes] = field(default_factory=dict)
    tampered: dict[int, Tampered] = field(default_factory=dict)
    refusals: Counter[str] = field(default_factory=Counter)
    failed_asks: Counter[str] = field(default_factory=Counter)
    abandonments: Counter[str] = field(default_factory=Counter)
    idle_s: float = 0.0
    gaps: int = 0
    training_s: float = 0.0
    tokens: e.Tokens = NO_TOKENS
    usd: float = 0.0
    unknown: int = 0
    switches: list[Switch] = field(default_factory=list)
    switch_count: int = 0
    under: Counter[str] = field(default_factory=Counter)
    kept_under: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Version:
    position: int
    at: str
    by: str


class DigestFold:
    """
    Folds the log, event by event with `apply`, into the digest of *window*.

    Args:
        tags: The runs that are told of; None for all.

    Attributes:
        state, results: As far as the log was read, so that a caller needs no second pass for a picture.
    """

    def __init__(self, window: Window, tags: Collection[str] | None = None) -> None:
        self.state = State()
        self.results = Results()
        self._window = window
        self._tags = tags
        self._ideas = Ideas()
        self._names: dict[int, str] = {}
        self._idea_events: dict[str, list[int]] = {"used": [], "declined": []}
        self._from_at = window.from_at
        self._best_before: dict[str, float] | None = None
        self._nights: dict[str, _Night] = {}
        self._touched: set[str] = set()
        self._versions: dict[str, _Version] = {}
        self._in_force: list[str] = []
        self._vetoes: list[tuple[str, int, Event]] = []
        self._troubles: dict[str, TroubleTold] = {}
        self._troubles_over: list[TroubleTold] = []
        self._troubles_over_count = 0
        self._loop = LoopTold(started=0, died=0, serving=False, stopped_why="")

    def apply(self, event: Event) -> None:
        """Take in the next event of the log; one beyond the window's last position changes nothing."""
        window = self._window
        if window.upto is not None and event.position > window.upto:
            return
        inside = window.includes(event)
        if not self._from_at and (inside or event.position == window.after):
            self._from_at = event.at
        if inside and self._best_before is None:
            self._open()
        self._of_workspace(event, inside)
        if inside and (self._tags is None or event.run in self._tags):
            self._of_run(event)
        self.state.apply(event)
        self.results.apply(event)
        self._ideas.apply(event)

    def digest(self) -> Digest:
        """The digest as far as the log was read."""
        runs = self._told_runs()
        told = [self._run(run) for run in runs[-RUNS_MAX:]]
        queue = [Queued(tag=tag, asked_by=_text(self.state.runs[tag].requested_by)) for tag in self.state.queue]
        programs = self._programs()
        vetoes = [self._veto(tag, number, event) for tag, number, event in self._vetoes]
        troubles = [*self._troubles_over, *self._troubles.values()]
        decisions, left_out = self._decisions(runs, told)
        return Digest(
            window=msgspec.structs.replace(self._window, from_at=self._from_at),
            position=self.state.position,
            runs=tuple(told),
            runs_left_out=len(runs) - len(told),
            queue=tuple(queue[:OTHERS_MAX]),
            queue_left_out=max(0, len(queue) - OTHERS_MAX),
            ideas=self._told_ideas(),
            programs=tuple(programs[-OTHERS_MAX:]),
            programs_left_out=max(0, len(programs) - OTHERS_MAX),
            vetoes=tuple(vetoes[-OTHERS_MAX:]),
            vetoes_left_out=max(0, len(vetoes) - OTHERS_MAX),
            troubles=tuple(troubles[-OTHERS_MAX:]),
            troubles_left_out=self._troubles_over_count + len(self._troubles) - min(len(troubles), OTHERS_MAX),
            decisions=decisions,
            decisions_left_out=left_out,
            loop=msgspec.structs.replace(self._loop, serving=self.state.loop is not None),
        )

    # ------------------------------------------------------------ taking events in

    def _open(self) -> None:
        """The window begins: what was the best of each run until now."""
        self._best_before = {tag: run.best.score for tag, run in self.state.runs.items() if run.best is not None}
        self._in_force = [self.state.program_hash] if self.state.program_hash else []

    def _of_workspace(self, event: Event, inside: bool) -> None:
        match event.data:
            case e.ProgramRecorded(hash=text_hash) | e.ProgramEdited(hash=text_hash):
                self._versions[text_hash] = _Version(event.position, event.at, event.actor)
                if inside and text_hash not in self._in_force:
                    self._in_force.append(text_hash)
            case e.TroubleNoticed():
                self._trouble(event.data, event.at)
            case e.TroubleCleared():
                self._trouble_over(event.data, event.at, inside)
            case e.IdeaSuggested(by=by):
                # A credited name is only a name: it must not pass for an actor whom Slack would mention.
                self._names[event.position] = _text(by.replace(":", " ") or event.actor, 80)
            case e.LoopStarted() if inside:
                died = self._loop.died + (self.state.loop is not None)
                self._loop = msgspec.structs.replace(
                    self._loop, started=self._loop.started + 1, died=died, stopped_why=""
                )
            case e.LoopStopped(why=why) if inside:
                self._loop = msgspec.structs.replace(self._loop, stopped_why=_text(why))

    def _trouble(self, data: e.TroubleNoticed, at: str) -> None:
        since = data.since if AT_PATTERN.fullmatch(data.since) else at
        told = TroubleTold(kind=data.kind, what=_text(data.what), since=since, cleared_at=None)
        self._troubles[data.kind] = told

    def _trouble_over(self, data: e.TroubleCleared, at: str, inside: bool) -> None:
        told = self._troubles.pop(data.kind, None)
        if inside and told is not None:
            self._troubles_over_count += 1
            self._troubles_over.append(msgspec.structs.replace(told, cleared_at=at))
            del self._troubles_over[:-OTHERS_MAX]

    def _of_run(self, event: Event) -> None:
        data = event.data
        if isinstance(data, e.IdeaUsed | e.IdeaDeclined):
            self._idea_events["used" if isinstance(data, e.IdeaUsed) else "declined"].append(data.idea)
        handler = _HANDLERS.get(type(data))
        run = self.state.runs.get(event.run)
        if event.type.startswith(_OF_A_RUN):
            self._touched.add(event.run)
        if isinstance(data, e.KeepVetoed):
            self._vetoes.append((event.run, data.experiment, event))
        if handler is not None and run is not None:
            night = self._nights.get(event.run)
            if night is None:
                night = self._nights[event.run] = _Night()
            handler(night, run, data, event)

    # ------------------------------------------------------------ the end

    def _told_runs(self) -> list[Run]:
        """The runs of the window and the active one, by their requests; those that wait in the queue are apart."""
        active = self.state.current
        told = [
            run
            for run in self.state.runs.values()
            if (run.tag in self._touched or run.tag == active)
            and run.status != "queued"
            and (self._tags is None or run.tag in self._tags)
        ]
        return sorted(told, key=lambda run: run.requested_at)

    def _rows(self, tag: str) -> dict[int, Row]:
        return {row.experiment: row for row in self.results.rows(tag)} if tag in self.results.tags else {}

    def _run(self, run: Run) -> RunDigest:
        night = self._nights.get(run.tag) or _Night()
        rows = self._rows(run.tag)
        keeps = self._standing_keeps(run, night, rows)
        best = sorted(keeps, key=lambda keep: (-(keep.gain if keep.gain is not None else 0.0), keep.experiment))
        before, after = self._bests(run)
        objective = run.started.settings.get("objective", {}) if run.started is not None else {}
        direction = str(objective.get("direction", ""))
        gain = _gain(before, after, direction)
        confirmed = [keep.gain for keep in keeps if keep.standing == "confirmed" and keep.gain is not None]
        return RunDigest(
            tag=run.tag,
            status=run.status,
            why=_why(run),
            asked_by=_text(run.requested_by),
            started_at=run.started_time or None,
            finished_at=run.finished_time or None,
            metric=_text(str(objective.get("name", ""))),
            direction=direction,
            branch=_text(run.started.branch) if run.started is not None else "",
            device=_text(run.started.device) if run.started is not None else "",
            proposer=run.proposer,
            began=night.began,
            counts=_counts(night, len(keeps)),
            standings=_standings(keeps),
            baseline=run.keeps[0].score if run.keeps else None,
            best_before=before,
            best_after=after,
            best_experiment=run.best.experiment if run.best is not None else None,
            gain=gain,
            gain_percent=_percent(gain, before),
            gain_confirmed=sum(confirmed) if confirmed else None,
            keeps=tuple(best[:KEEPS_MAX]),
            keeps_left_out=max(0, len(best) - KEEPS_MAX),
            failures=_failures(night),
            crashes=_crashes(night),
            tampered=tuple(night.tampered[number] for number in sorted(night.tampered)[:TAMPERED_MAX]),
            tampered_count=len(night.tampered),
            refusals=_by_count(night.refusals),
            failed_asks=_by_count(night.failed_asks),
            abandonments=_by_count(night.abandonments),
            idle=_idle(night),
            tokens=night.tokens,
            money=_money(night, keeps),
            switches=tuple(night.switches),
            switches_left_out=night.switch_count - len(night.switches),
            steps=_steps([row for row in rows.values() if row.status == "keep"], direction),
        )

    def _standing_keeps(self, run: Run, night: _Night, rows: dict[int, Row]) -> list[Kept]:
        """The window's keeps that are on the branch, in its order, with whose idea each was."""
        on_branch = [number for number, row in rows.items() if row.status == "keep"]
        credits = {
            idea.experiment: self._names[idea.position]
            for idea in self._ideas.all()
            if idea.state == "used" and idea.experiment_run == run.tag
        }
        return [
            msgspec.structs.replace(
                night.keeps[number], idea_by=credits.get(number, ""), later=len(on_branch) - place - 1
            )
            for place, number in enumerate(on_branch)
            if number in night.keeps
        ]

    def _bests(self, run: Run) -> tuple[float | None, float | None]:
        if run.best is None:
            return None, None
        before = (self._best_before or {}).get(run.tag, run.keeps[0].score)
        return before, run.best.score

    def _told_ideas(self) -> IdeasTold:
        used = self._idea_lines("used")
        declined = self._idea_lines("declined")
        waiting = [self._idea(idea, None) for idea in self._ideas.all() if idea.state == "open"]
        return IdeasTold(
            used=tuple(used[:OTHERS_MAX]),
            used_count=len(used),
            declined=tuple(declined[:OTHERS_MAX]),
            declined_count=len(declined),
            waiting=tuple(waiting[:OTHERS_MAX]),
            waiting_count=len(waiting),
        )

    def _idea_lines(self, state: str) -> list[IdeaTold]:
        found = [self._ideas.get(position) for position in dict.fromkeys(self._idea_events[state])]
        return [self._idea(idea, self._verdict_of(idea)) for idea in found if idea is not None and idea.state == state]

    def _idea(self, idea: Idea, verdict: str | None) -> IdeaTold:
        return IdeaTold(
            position=idea.position,
            by=self._names[idea.position],
            text=_text(idea.text),
            state=idea.state,
            run=idea.experiment_run,
            experiment=idea.experiment,
            verdict=verdict,
            why=_text(idea.why),
        )

    def _verdict_of(self, idea: Idea) -> str | None:
        run = self.state.runs.get(idea.experiment_run)
        if run is None or idea.experiment is None:
            return None
        done = run.finished_experiment(idea.experiment)
        if done is None:
            return None
        row = self._rows(run.tag).get(idea.experiment)
        return row.status if row is not None else "abandoned"

    def _programs(self) -> list[VersionUsed]:
        under: Counter[str] = Counter()
        keeps: Counter[str] = Counter()
        for tag, night in self._nights.items():
            under.update(night.under)
            rows = self._rows(tag)
            kept = [text_hash for number, text_hash in night.kept_under.items() if _is_kept(rows.get(number))]
            keeps.update(kept)
        told = [
            VersionUsed(
                position=version.position,
                hash=_text(text_hash),
                at=version.at,
                by=_text(version.by),
                experiments=under[text_hash],
                keeps=keeps[text_hash],
                in_force=text_hash == self.state.program_hash,
            )
            for text_hash in dict.fromkeys([*self._in_force, *under])
            for version in (self._versions.get(text_hash, _Version(0, "", "")),)
        ]
        return sorted(told, key=lambda version: (version.position, version.hash))

    def _veto(self, tag: str, number: int, event: Event) -> Veto:
        run = self.state.runs.get(tag)
        done = run.finished_experiment(number) if run is not None else None
        why = event.data.why if isinstance(event.data, e.KeepVetoed) else ""
        return Veto(
            run=tag,
            experiment=number,
            description=one_line(done.description) if done is not None else "",
            by=_text(event.actor),
            why=_text(why),
            at=event.at,
            served=not _is_kept(self._rows(tag).get(number)),
        )

    def _decisions(self, runs: list[Run], told: list[RunDigest]) -> tuple[tuple[Decision, ...], int]:
        approve = [decision for run in runs for decision in _approvals(run)]
        resume = [Decision(kind="resume", run=run.tag, why=_text(run.paused_why)) for run in runs if _is_held(run)]
        refused = [Decision(kind="refused", run=run.tag, why=_why(run)) for run in runs if run.status == "refused"]
        vetoes = [
            (keep.standing != "within_noise", keep.gain if keep.gain is not None else 0.0, run.tag, keep)
            for run in told
            for keep in run.keeps
            if keep.standing != "confirmed" and keep.experiment not in self.state.runs[run.tag].vetoes
        ]
        vetoes.sort(key=lambda veto: (veto[0], veto[1], veto[2], veto[3].experiment))
        doubtful = [_doubt(tag, keep) for _, _, tag, keep in vetoes]
        lists = (approve, resume, refused, doubtful)
        found = [decision for decisions in lists for decision in decisions[:OTHERS_MAX]]
        beyond = sum(_unconfirmed(run) - sum(keep.standing != "confirmed" for keep in run.keeps) for run in told)
        return tuple(found), sum(len(decisions) for decisions in lists) - len(found) + beyond


# ---------------------------------------------------------------- parts of a run


def _text(text: str, limit: int = TEXT_MAX) -> str:
    return shortened(plain_line(text), limit)


def _why(run: Run) -> str:
    if run.refused is not None and run.status == "refused":
        return f"{_text(run.refused.why)}; {_text(run.refused.remedy)}"
    if run.finished is not None:
        return _text(run.finished.why)
    return _text(run.paused_why) if run.status == "paused" else ""


def _is_held(run: Run) -> bool:
    return run.status == "paused" and not run.resume_at and run.stop is None


def _is_kept(row: Row | None) -> bool:
    return row is not None and row.status == "keep"


def _gain(before: float | None, after: float | None, direction: str) -> float | None:
    if before is None or after is None:
        return None
    gain = (after - before) * DIRECTION_BETTER.get(direction, 1.0)
    return gain if abs(gain) < float("inf") else None


def _percent(gain: float | None, before: float | None) -> float | None:
    if gain is None or not before:
        return None
    percent = 100 * gain / abs(before)
    return percent if abs(percent) < float("inf") else None


def _counts(night: _Night, kept: int) -> Counts:
    return Counts(
        kept=kept,
        discarded=night.discarded + len(night.keeps) - kept,
        crashed=night.crashed,
        abandoned=night.abandonments.total(),
        refused=night.refusals.total(),
        repaired=len(night.repaired),
    )


def _standings(keeps: list[Kept]) -> Standings:
    found = Counter(keep.standing for keep in keeps)
    return Standings(confirmed=found["confirmed"], within_noise=found["within_noise"], untested=found["untested"])


def _failures(night: _Night) -> tuple[Failures, ...]:
    return tuple(
        Failures(kind=kind, count=worst.count, shown=tuple(failure for _, failure in worst.shown))
        for kind in FAILURE_KINDS
        if (worst := night.failures.get(kind)) is not None
    )


def _crashes(night: _Night) -> tuple[Crashes, ...]:
    found = sorted(night.crashes.values(), key=lambda crashes: (-crashes.count, crashes.outcome))
    return tuple(found[:CLASSES_MAX])


def _by_count(counter: Counter[str]) -> dict[str, int]:
    """The most frequent first; what is beyond the bound is summed up as `other`."""
    ordered = sorted(counter.items(), key=lambda item: (-item[1], item[0]))
    found = dict(ordered[:CLASSES_MAX])
    rest = sum(count for _, count in ordered[CLASSES_MAX:])
    return {**found, "other": rest + found.get("other", 0)} if rest else found


def _idle(night: _Night) -> Idle | None:
    whole = night.idle_s + night.training_s
    if not night.gaps or whole <= 0:
        return None
    return Idle(share=night.idle_s / whole, idle_s=round(night.idle_s, 3), training_s=round(night.training_s, 3))


def _money(night: _Night, keeps: list[Kept]) -> Money:
    confirmed = sum(keep.standing == "confirmed" for keep in keeps)
    count = confirmed or len(keeps)
    return Money(
        known=night.usd,
        unknown=night.unknown,
        per="confirmed" if confirmed else "keep",
        per_keep=night.usd / count if count else None,
    )


def _steps(keeps: list[Row], direction: str) -> tuple[Step, ...]:
    better = min if direction == "minimize" else max
    steps: list[Step] = []
    for row in keeps:
        if row.score is not None:
            best = better(steps[-1].best, row.score) if steps else row.score
            steps.append(Step(experiment=row.experiment, best=best))
    if len(steps) <= STEPS_MAX:
        return tuple(steps)
    last = len(steps) - 1
    return tuple(steps[round(place * last / (STEPS_MAX - 1))] for place in range(STEPS_MAX))


def _approvals(run: Run) -> list[Decision]:
    if run.is_over:
        return []
    return [
        Decision(
            kind="approve",
            run=run.tag,
            experiment=number,
            description=one_line(x.description),
            hypothesis=_text(x.proposal.hypothesis) if x.proposal is not None else "",
        )
        for number, x in sorted(run.experiments.items())
        if run.awaits_approval(x)
    ]


def _unconfirmed(run: RunDigest) -> int:
    return run.standings.within_noise + run.standings.untested


def _doubt(tag: str, keep: Kept) -> Decision:
    return Decision(
        kind="veto",
        run=tag,
        experiment=keep.experiment,
        description=keep.description,
        standing=keep.standing,
        gain=keep.gain,
        takes=keep.later,
    )


# ---------------------------------------------------------------- events of a run, before the state has taken them in


def _started(night: _Night, _run: Run, _data: e.RunStarted, _event: Event) -> None:
    night.began = True


def _received(night: _Night, _run: Run, data: e.ProposalReceived, _event: Event) -> None:
    _spend(night, data.usd, data.tokens)


def _failed(night: _Night, _run: Run, data: e.ProposalFailed, _event: Event) -> None:
    _spend(night, data.usd, data.tokens)
    if data.failure not in NOT_OF_AN_ANSWER:
        night.refusals[_text(data.failure, 40)] += 1
    elif data.failure not in UNCOUNTED_FAILURES:
        night.failed_asks[_text(data.failure, 40)] += 1


def _spend(night: _Night, usd: float | None, tokens: e.Tokens | None) -> None:
    if usd is None:
        night.unknown += 1
    else:
        night.usd += usd
    if tokens is not None:
        was = night.tokens
        night.tokens = e.Tokens(
            input=was.input + tokens.input,
            cache_write=was.cache_write + tokens.cache_write,
            cache_read=was.cache_read + tokens.cache_read,
            output=was.output + tokens.output,
        )


def _switched(night: _Night, _run: Run, data: e.ProposerSwitched, event: Event) -> None:
    _turn(night, Switch(at=event.at, from_kind=data.from_kind, to_kind=data.to_kind, why=_text(data.why)))


def _waits(night: _Night, _run: Run, data: e.ProposerWaiting, event: Event) -> None:
    _turn(night, Switch(at=event.at, from_kind=data.kind, to_kind="", why=_text(data.why)))


def _turn(night: _Night, switch: Switch) -> None:
    night.switch_count += 1
    night.switches.append(switch)
    del night.switches[:-OTHERS_MAX]


def _prepared(night: _Night, _run: Run, data: e.ExperimentPrepared, _event: Event) -> None:
    if data.step == "repair":
        night.repaired.add(data.experiment)


def _training(night: _Night, _run: Run, data: e.TrainingStarted, _event: Event) -> None:
    if data.idle_s is not None:
        night.idle_s += data.idle_s
        night.gaps += 1


def _trained(night: _Night, run: Run, data: e.TrainingFinished, _event: Event) -> None:
    night.training_s += data.seconds
    if data.outcome == "tampered":
        _tampered(night, run, data.experiment, data.why)


def _scored(night: _Night, run: Run, data: e.ScoringFinished, _event: Event) -> None:
    if data.outcome == "tampered":
        _tampered(night, run, data.experiment, data.why)


def _tampered(night: _Night, run: Run, number: int, why: str) -> None:
    experiment = run.experiments.get(number)
    told = Tampered(
        experiment=number,
        description=one_line(experiment.description) if experiment is not None else "",
        why=_text(why),
    )
    night.tampered.setdefault(number, told)


def _abandoned(night: _Night, run: Run, data: e.ExperimentAbandoned, _event: Event) -> None:
    night.abandonments[_text(data.reason, 40)] += 1
    experiment = run.experiments.get(data.experiment)
    if data.reason == "conflict" and experiment is not None:
        _offer(night, "conflict", 0.0, experiment, data.why)


def _decided(night: _Night, run: Run, data: e.ExperimentDecided, event: Event) -> None:
    experiment = run.experiments.get(data.experiment)
    if experiment is None or data.experiment == 0:
        return
    text_hash = experiment.request.program_hash if experiment.request is not None else ""
    if text_hash:
        night.under[text_hash] += 1
    if data.verdict == "keep":
        night.keeps[data.experiment] = _kept(experiment, data, event)
        if text_hash:
            night.kept_under[data.experiment] = text_hash
    elif data.verdict == "crash":
        night.crashed += 1
        _crashed(night, experiment, data)
    else:
        night.discarded += 1
        _discarded(night, experiment, data)


def _kept(experiment: Experiment, data: e.ExperimentDecided, event: Event) -> Kept:
    proposal, trial, request = experiment.proposal, experiment.last, experiment.request
    scored = trial.scored if trial is not None else None
    return Kept(
        experiment=data.experiment,
        description=one_line(experiment.description),
        hypothesis=_text(proposal.hypothesis) if proposal is not None else "",
        expected_effect=_text(proposal.expected_effect) if proposal is not None else "",
        score=data.score,
        report_score=scored.report_score if scored is not None else None,
        gain=data.gain,
        gain_percent=_percent(data.gain, data.best_before),
        lines=data.lines,
        standing=data.standing,
        reason=_text(data.reason),
        commit=experiment.committed.commit[:7] if experiment.committed is not None else "",
        by=_text((proposal.model if proposal is not None else "") or (request.kind if request is not None else ""), 80),
        idea_by="",
        at=event.at,
        position=event.position,
        later=0,
    )


def _crashed(night: _Night, experiment: Experiment, data: e.ExperimentDecided) -> None:
    outcome = data.reason.partition(":")[0]
    outcome = outcome if outcome in get_args(e.Outcome) else "crash"
    known = night.crashes.get(outcome)
    if known is not None:
        night.crashes[outcome] = msgspec.structs.replace(known, count=known.count + 1)
        return
    trial = experiment.last
    lines = trial.finished.tail.strip().splitlines() if trial is not None and trial.finished is not None else []
    night.crashes[outcome] = Crashes(
        outcome=outcome,
        count=1,
        experiment=data.experiment,
        description=one_line(experiment.description),
        error=_text(lines[-1] if lines else data.reason, 200),
    )


def _discarded(night: _Night, experiment: Experiment, data: e.ExperimentDecided) -> None:
    guard, gain = experiment.guard, data.gain
    if guard is not None and guard.result in ("failed", "timeout"):
        _offer(night, "guard", -(gain or 0.0), experiment, data.reason, data)
    elif data.reason.startswith(("conflicts", "overtaken")):
        _offer(night, "conflict", -(gain or 0.0), experiment, data.reason, data)
    elif gain is not None and gain >= -NEAR_SHARE * abs(data.best_before or 0.0):
        _offer(night, "near_miss", -gain, experiment, data.reason, data)
    elif gain is not None:
        _offer(night, "loss", gain, experiment, data.reason, data)


def _offer(
    night: _Night,
    kind: FailureKind,
    rank: float,
    experiment: Experiment,
    reason: str,
    data: e.ExperimentDecided | None = None,
) -> None:
    failure = Failure(
        kind=kind,
        experiment=experiment.number,
        description=one_line(experiment.description),
        hypothesis=_text(experiment.proposal.hypothesis) if experiment.proposal is not None else "",
        reason=_text(reason),
        score=data.score if data is not None else None,
        gain=data.gain if data is not None else None,
    )
    night.failures.setdefault(kind, _Worst()).offer(rank, failure)


_OF_A_RUN = ("run.", "proposal.", "proposer.", "experiment.", "training.", "scoring.", "guard.", "branch.", "keep.")

_HANDLERS: dict[type, Callable[[_Night, Run, Any, Event], None]] = {
    e.RunStarted: _started,
    e.ProposalReceived: _received,
    e.ProposalFailed: _failed,
    e.ProposerSwitched: _switched,
    e.ProposerWaiting: _waits,
    e.ExperimentPrepared: _prepared,
    e.TrainingStarted: _training,
    e.TrainingFinished: _trained,
    e.ScoringFinished: _scored,
    e.ExperimentAbandoned: _abandoned,
    e.ExperimentDecided: _decided,
}
