"""All that the bot needs to know to post, folded from the log. Pure.

A run has one message of its own in the channel (the parent) and its experiments as replies below it. What waits to be
posted is made when its event is applied and leaves the board when its `post.requested` is; so no key can become due
twice. A post is `open` from its `post.requested` to its `post.made` or `post.failed`.

What is posted of the past: before a run has its parent, its verdicts are only counted (`Tally`), and so are the oldest
of more than `BACKLOG_MAX` replies that wait; the count is one reply. A run that is over before the bot's first post in
this log is not posted at all. Nor is a change of program.md before it, unless it was made in Slack, where it is
waited for.

Memory: words about an experiment are kept while it is in flight or its replies are not made; of a run that is over a
few words stay, because its parent can still change (a veto).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from bot.schedule import Schedules, on_demand_key
from eventstore import events as e
from eventstore.codec import clean
from eventstore.envelope import Event
from eventstore.projections.besides import Besides
from eventstore.projections.ideas import Ideas
from eventstore.projections.run_state import Experiment, Run, State
from eventstore.views import edit_text

Kind = Literal[
    "parent",
    "plan",
    "approval",
    "verdict",
    "before",
    "best",
    "crashes",
    "budget",
    "paused",
    "finished",
    "program",
    "trouble",
    "digest",
    "digest_reply",
]
"""What a post is; the `kind` of its `post.requested`."""

BACKLOG_MAX = 20
"""Replies of a run that may wait to be posted; of more, the oldest are counted in one reply."""
PROGRAMS_MAX = 5
"""Changes of program.md that may wait to be posted; of more, the newest."""
STREAK = 3
"""Crashes in a row that the channel is told of."""
TEXT_KEPT = 1_000
"""Characters of each text of an experiment that are kept until it is posted."""
EDIT_KEPT = 2_400
"""Characters of an edit that waits for approval."""

_KEY = re.compile(r"run/([^/@]+)@(\d+)(?:/(.+))?", re.ASCII)


# ---------------------------------------------------------------- cards: what posts say


@dataclass(frozen=True, slots=True)
class Plan:
    """
    What an experiment means to do.

    Attributes:
        proposer: The kind of who proposed it, *model* the model that was asked; empty where there is none.
        again_of: The experiment whose edit is taken up again.
        idea, idea_by: The idea it uses and who is credited; empty if it uses none.
        edit: The edit in the manner of a diff; only where it waits for approval.
        position: Where its proposal stands in the log; what is approved is this one.
    """

    experiment: int
    description: str
    hypothesis: str
    expected_effect: str
    proposer: str
    model: str
    again_of: int | None
    idea: str
    idea_by: str
    edit: str
    position: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    How an experiment ended. *verdict* is the log's word, or `abandoned`.

    Attributes:
        seconds: Wall clock of all its trainings.
        is_committed: Whether there is a commit, so that its edit can be taken up again.
        position: Where the verdict stands in the log.
    """

    experiment: int
    verdict: str
    metric: str
    score: float | None
    best_before: float | None
    gain: float | None
    lines: int
    reason: str
    standing: str
    trials: int
    seconds: float
    description: str
    idea_by: str
    repairs: int
    is_committed: bool
    position: int


@dataclass(frozen=True, slots=True)
class Tally:
    """Verdicts that are counted instead of posted one by one: experiments *first* to *last*, by their verdicts."""

    first: int
    last: int
    counts: tuple[tuple[str, int], ...]
    from_position: int
    to_position: int
    at: str

    @classmethod
    def of(cls, verdict: Verdict, at: str) -> Tally:
        """One verdict, counted."""
        number, position = verdict.experiment, verdict.position
        return cls(number, number, ((verdict.verdict, 1),), position, position, at)

    def and_then(self, later: Tally) -> Tally:
        """Both together."""
        counts = dict(self.counts)
        for verdict, count in later.counts:
            counts[verdict] = counts.get(verdict, 0) + count
        first, last = min(self.first, later.first), max(self.last, later.last)
        return Tally(first, last, tuple(sorted(counts.items())), self.from_position, later.to_position, later.at)


@dataclass(frozen=True, slots=True)
class Crashes:
    """Experiments that crashed one after the other; *why* is the reason of the last."""

    experiments: tuple[int, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit is nearly spent. *share* is 0 to 1; *spent* and *of* are US dollars, where it is a limit of money."""

    limit: str
    share: float
    spent: float | None
    of: float | None


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something is wrong. *kind* is as in `trouble.noticed`; `api` also for a proposer, `run` for a run on hold."""

    kind: str
    what: str


@dataclass(frozen=True, slots=True)
class RefusedRun:
    """A run could not start."""

    by: str
    why: str
    remedy: str


@dataclass(frozen=True, slots=True)
class ProgramChange:
    """Someone changed program.md. *by* is the event's actor, *hash* that of *after*."""

    by: str
    hash: str
    before: str = field(repr=False)
    after: str = field(repr=False)


Card = Plan | Verdict | Tally | Crashes | Budget | Trouble | RefusedRun | ProgramChange


@dataclass(frozen=True, slots=True)
class Item:
    """
    Something to post.

    Attributes:
        run: The run's tag; empty for the workspace.
        position, at: The event that it speaks of, and when that happened, in the log's form.
        channel: Where; empty for the channel of the settings, or for the thread of its run.
        card: What it says; None where that is read from the state when it is posted.
    """

    key: str
    kind: Kind
    run: str
    position: int
    at: str
    channel: str = ""
    card: Card | None = None


@dataclass(frozen=True, slots=True)
class Open:
    """
    A post that was requested and has no outcome.

    Attributes:
        position, at: Of its `post.requested`.
        item: What it says; None for digests, which are drawn from the log, and for keys of other versions.
    """

    request: e.PostRequested
    run: str
    position: int
    at: str
    item: Item | None


@dataclass(frozen=True, slots=True)
class AskedDigest:
    """A digest that someone asked for and that was not requested yet; *position*, *after* and *upto* are of the log."""

    key: str
    channel: str
    position: int
    after: int
    upto: int


@dataclass(slots=True)
class Approval:
    """
    A reply that asks for approval.

    Attributes:
        answer: `approved` or `rejected`, *by* and *why*; empty while nobody has answered.
        ts: Of the message; empty until it is posted.
        may_repeat: It may stand twice.
    """

    item: Item
    answer: str = ""
    by: str = ""
    why: str = ""
    ts: str = ""
    may_repeat: bool = False


@dataclass(frozen=True, slots=True)
class DigestPost:
    """The newest digest of a channel, as it was posted."""

    key: str
    channel: str
    ts: str
    at: str
    to_position: int


@dataclass(slots=True)
class Thread:
    """
    The posts of one run.

    Attributes:
        position, at, by: Of its `run.requested`.
        channel, ts: Of the parent; empty until it was requested and made.
        may_repeat: The parent may stand twice.
        parent_at: The position of the parent's `post.requested`; 0 until then.
        changed_at, changed_on: The position of the newest event of the run, and when that happened.
        over_at: The position at which the run was over; 0 until then.
        waiting: Replies that were not requested yet, in their order.
        before: Verdicts to be summed up in one reply, before *waiting*.
        approvals: Replies that ask for approval, of experiments without a verdict reply.
        planned: Experiments in flight whose plan or approval was made an item.
        crashed: The newest crashes in a row.
    """

    tag: str
    position: int
    at: str
    by: str
    channel: str = ""
    ts: str = ""
    may_repeat: bool = False
    parent_at: int = 0
    changed_at: int = 0
    changed_on: str = ""
    over_at: int = 0
    waiting: list[Item] = field(default_factory=list)
    before: Tally | None = None
    approvals: dict[int, Approval] = field(default_factory=dict)
    planned: set[int] = field(default_factory=set)
    crashed: list[int] = field(default_factory=list)

    @property
    def key(self) -> str:
        """The key of its parent; keys of its replies begin with it."""
        return f"run/{self.tag}@{self.position}"

    def before_item(self) -> Item | None:
        """The reply that sums up, or None."""
        if self.before is None:
            return None
        key = f"{self.key}/before/{self.before.to_position}"
        return Item(key, "before", self.tag, self.before.to_position, self.before.at, card=self.before)


class Board:
    """
    What is posted and what waits to be, as the log tells it up to `position`.

    Attributes:
        state: The workspace; for views, and for judging what people ask.
        threads: The newest run of each tag that is or may be posted.
        notices: What waits for the channel itself, in its order.
        open: Posts that were requested and have no outcome, by key, in the order of their requests.
        digests: The newest digest of each channel.
        asked: Digests that people asked for and that were not requested yet, by key.
        first_at: When the first post of this log was requested, in the log's form; empty if none was.
        made_at: When the newest post was made; empty if none was.
    """

    def __init__(self) -> None:
        self.state = State()
        self.besides = Besides()
        self.ideas = Ideas()
        self.schedules = Schedules()
        self.threads: dict[str, Thread] = {}
        self.notices: list[Item] = []
        self.open: dict[str, Open] = {}
        self.digests: dict[str, DigestPost] = {}
        self.asked: dict[str, AskedDigest] = {}
        self.first_at = ""
        self.made_at = ""
        self._credits: dict[tuple[str, int], tuple[str, str]] = {}
        self._program = ""

    @classmethod
    def of(cls, events: Iterable[Event]) -> Board:
        """Fold *events*, which begin at position 1."""
        board = cls()
        for event in events:
            board.apply(event)
        return board

    @property
    def position(self) -> int:
        """The position of the newest event applied; 0 for none."""
        return self.state.position

    def apply(self, event: Event) -> None:
        """Take in the next event of the log."""
        before = _before(self.state, event)
        self.state.apply(event)
        self.besides.apply(event)
        self.ideas.apply(event)
        self.schedules.apply(event)
        if isinstance(event.data, e.UnknownEvent):
            return
        thread = self.threads.get(event.run)
        if thread is not None and not event.type.startswith("post."):
            thread.changed_at, thread.changed_on = event.position, event.at
        handler = _HANDLERS.get(type(event.data))
        if handler is not None:
            handler(self, event.data, event)
            return
        of_run, run = _OF_RUN.get(type(event.data)), self.state.runs.get(event.run)
        if of_run is not None and run is not None and thread is not None:
            of_run(self, thread, run, event.data, event, before)

    def run_of(self, thread: Thread) -> Run | None:
        """The run that the thread is about; None if its tag was given to another one since."""
        run = self.state.runs.get(thread.tag)
        return run if run is not None and run.requested_at == thread.position else None

    def thread_of(self, key: str) -> tuple[Thread, str] | None:
        """The thread that *key* belongs to, and the rest of the key; None if there is none any more."""
        named = _KEY.fullmatch(key)
        thread = self.threads.get(named[1]) if named is not None else None
        if named is None or thread is None or thread.position != int(named[2]):
            return None
        return thread, named[3] or ""

    # ------------------------------------------------------------ what waits

    def notice(self, item: Item) -> None:
        """Put *item* into the channel's queue, in the place of an older one of its kind about the same run."""
        self.drop(item.kind, item.run)
        self.notices.append(item)

    def drop(self, kind: str, run: str) -> None:
        """Take what waits of this kind about the run out of the channel's queue."""
        self.notices = [item for item in self.notices if (item.kind, item.run) != (kind, run)]

    def credit(self, tag: str, experiment: int) -> tuple[str, str]:
        """The idea that an experiment uses, and who is credited; empty if it uses none."""
        return self._credits.get((tag, experiment), ("", ""))


@dataclass(frozen=True, slots=True)
class _Before:
    """What an event takes out of the state."""

    experiment: Experiment | None = None
    was_asked: bool = False


def _before(state: State, event: Event) -> _Before:
    run, data = state.runs.get(event.run), event.data
    if run is None:
        return _Before()
    if isinstance(data, e.ExperimentDecided | e.ExperimentAbandoned):
        return _Before(experiment=run.experiments.get(data.experiment))
    return _Before(was_asked=run.pause is not None)


# ---------------------------------------------------------------- runs


def _run_requested(board: Board, data: e.RunRequested, event: Event) -> None:
    board.threads[data.tag] = Thread(data.tag, event.position, event.at, event.actor, changed_at=event.position)
    for item in [item for item in board.notices if item.run == data.tag and item.kind != "finished"]:
        board.drop(item.kind, item.run)


def _withdrawn(board: Board, thread: Thread, _run: Run, _data: Any, event: Event, _before: _Before) -> None:
    _over(board, thread, event)
    if not thread.parent_at:
        board.threads.pop(thread.tag, None)


def _refused(board: Board, thread: Thread, run: Run, data: e.RunRefused, event: Event, _before: _Before) -> None:
    if run.status != "refused" or thread.over_at:  # it speaks of an earlier request of the same tag
        return
    if _over(board, thread, event):
        card = RefusedRun(thread.by, _cut(data.why), _cut(data.remedy))
        _finished_notice(board, thread, event, card)


def _finished(board: Board, thread: Thread, _run: Run, _data: Any, event: Event, _before: _Before) -> None:
    board._credits = {known: credit for known, credit in board._credits.items() if known[0] != thread.tag}
    if _over(board, thread, event):
        _finished_notice(board, thread, event, None)


def _finished_notice(board: Board, thread: Thread, event: Event, card: Card | None) -> None:
    key = f"{thread.key}/finished"
    board.notice(Item(key, "finished", thread.tag, event.position, event.at, thread.channel, card))


def _over(board: Board, thread: Thread, event: Event) -> bool:
    """Note the end of a run. Returns whether its parent was asked for, so that the channel must be told of the end."""
    thread.over_at = event.position
    thread.planned.clear()
    for kind in ("best", "crashes", "budget", "paused", "trouble"):
        board.drop(kind, thread.tag)
    if not thread.parent_at and not board.first_at:
        board.threads.pop(thread.tag, None)
    return bool(thread.parent_at)


def _paused(board: Board, thread: Thread, _run: Run, data: e.RunPaused, event: Event, before: _Before) -> None:
    if before.was_asked or not thread.parent_at:
        return
    trouble = next((item for item in board.notices if item.kind == "trouble" and item.position == event.cause), None)
    if trouble is not None:  # one message for both, with the button that resumes the run
        board.notices[board.notices.index(trouble)] = replace(trouble, run=thread.tag, channel=thread.channel)
        return
    card = Trouble("run", _cut(data.why))
    board.notice(
        Item(f"trouble/{event.position}", "paused", thread.tag, event.position, event.at, thread.channel, card)
    )


def _resumed(board: Board, thread: Thread, _run: Run, _data: Any, _event: Event, _before: _Before) -> None:
    board.drop("paused", thread.tag)
    board.drop("trouble", thread.tag)


def _budget_warned(
    board: Board, thread: Thread, run: Run, data: e.BudgetWarned, event: Event, _before: _Before
) -> None:
    if not thread.parent_at:
        return
    is_money = data.limit == "usd"
    card = Budget(data.limit, data.share, run.usd if is_money else None, run.limits.usd if is_money else None)
    key = f"{thread.key}/budget/{event.position}"
    board.notice(Item(key, "budget", thread.tag, event.position, event.at, thread.channel, card))


# ---------------------------------------------------------------- program.md


def _program_recorded(board: Board, data: e.ProgramRecorded, _event: Event) -> None:
    board._program = data.text


def _program_edited(board: Board, data: e.ProgramEdited, event: Event) -> None:
    before, board._program = board._program, data.text
    if not board.first_at and not event.actor.startswith("slack:"):
        return
    card = ProgramChange(event.actor, data.hash, before, data.text)
    board.notices.append(Item(f"program/{event.position}", "program", "", event.position, event.at, card=card))
    waiting = [item for item in board.notices if item.kind == "program"]
    for item in waiting[:-PROGRAMS_MAX]:
        board.notices.remove(item)


# ---------------------------------------------------------------- digests


def _digest_requested(board: Board, data: e.DigestRequested, event: Event) -> None:
    key, after = on_demand_key(data.channel, event.position), board.schedules.last_window(data.channel)
    board.asked[key] = AskedDigest(key, data.channel, event.position, after, event.position)


# ---------------------------------------------------------------- troubles


def _trouble_noticed(board: Board, data: e.TroubleNoticed, event: Event) -> None:
    if data.kind == "slack":  # by the time it can be said, it is over
        return
    board.notices = [item for item in board.notices if not _is_about(item, data.kind)]
    card = Trouble(data.kind, _cut(data.what))
    board.notices.append(Item(f"trouble/{event.position}", "trouble", "", event.position, event.at, card=card))


def _trouble_cleared(board: Board, data: e.TroubleCleared, _event: Event) -> None:
    board.notices = [item for item in board.notices if not _is_about(item, data.kind)]


def _is_about(item: Item, kind: str) -> bool:
    """Whether the item waits to tell of this kind of trouble of the workspace."""
    return item.kind == "trouble" and isinstance(item.card, Trouble) and item.card.kind == kind


def _proposer_news(
    board: Board, thread: Thread, run: Run, data: e.ProposerSwitched | e.ProposerWaiting, event: Event, _before: _Before
) -> None:
    board.drop("trouble", thread.tag)
    is_back = isinstance(data, e.ProposerSwitched) and data.to_kind == run.proposer
    if is_back or not thread.parent_at:
        return
    if isinstance(data, e.ProposerSwitched):
        what = f"{data.why}; the {data.to_kind} stands in for it"
    else:
        what = f"{data.why}; nothing stands in, so the run waits for it"
    key = f"trouble/{event.position}"
    card = Trouble("api", _cut(what))
    board.notice(Item(key, "trouble", thread.tag, event.position, event.at, thread.channel, card))


# ---------------------------------------------------------------- experiments


def _idea_used(board: Board, thread: Thread, _run: Run, data: e.IdeaUsed, _event: Event, _before: _Before) -> None:
    idea = board.ideas.get(data.idea)
    if idea is not None:
        board._credits[thread.tag, data.experiment] = _cut(idea.text), idea.by


def _received(board: Board, thread: Thread, run: Run, data: e.ProposalReceived, event: Event, _before: _Before) -> None:
    experiment = run.experiments.get(data.experiment)
    if experiment is not None and thread.parent_at and run.awaits_approval(experiment):
        _ask_approval(board, thread, experiment, event.at)


def _ask_approval(board: Board, thread: Thread, experiment: Experiment, at: str) -> None:
    number, position = experiment.number, experiment.proposal_at
    key = f"{thread.key}/{number}/plan" + (f"/{position}" if number in thread.planned else "")
    thread.planned.add(number)
    thread.waiting = [item for item in thread.waiting if item.kind != "approval" or _number(item) != number]
    item = Item(key, "approval", thread.tag, position, at, card=_plan(board, thread, experiment, with_edit=True))
    thread.approvals[number] = Approval(item)
    _wait(thread, item)


def _answered(
    _board: Board,
    thread: Thread,
    _run: Run,
    data: e.ProposalApproved | e.ProposalRejected,
    event: Event,
    _before: _Before,
) -> None:
    approval = thread.approvals.get(data.experiment)
    if approval is not None:
        approval.answer = "rejected" if isinstance(data, e.ProposalRejected) else "approved"
        approval.by = event.actor
        approval.why = _cut(data.why) if isinstance(data, e.ProposalRejected) else ""


def _prepared(
    board: Board, thread: Thread, run: Run, data: e.ExperimentPrepared, event: Event, _before: _Before
) -> None:
    experiment = run.experiments.get(data.experiment)
    if experiment is not None and thread.parent_at:
        _announce(board, thread, experiment, event.position, event.at)


def _announce(board: Board, thread: Thread, experiment: Experiment, position: int, at: str) -> None:
    """Make the plan of an experiment an item, once; the baseline has none."""
    number = experiment.number
    if number == 0 or number in thread.planned:
        return
    thread.planned.add(number)
    card = _plan(board, thread, experiment, with_edit=False)
    _wait(thread, Item(f"{thread.key}/{number}/plan", "plan", thread.tag, position, at, card=card))


def _plan(board: Board, thread: Thread, experiment: Experiment, *, with_edit: bool) -> Plan:
    request, proposal = experiment.request, experiment.proposal
    idea, idea_by = board.credit(thread.tag, experiment.number)
    return Plan(
        experiment=experiment.number,
        description=_cut(experiment.description),
        hypothesis=_cut(proposal.hypothesis) if proposal is not None else "",
        expected_effect=_cut(proposal.expected_effect) if proposal is not None else "",
        proposer=request.kind if request is not None else "",
        model=_cut(proposal.model) if proposal is not None else "",
        again_of=request.again_of if request is not None else None,
        idea=idea,
        idea_by=idea_by,
        edit=clean(edit_text(proposal.edits), EDIT_KEPT) if with_edit and proposal is not None else "",
        position=experiment.proposal_at,
    )


def _decided(board: Board, thread: Thread, run: Run, data: e.ExperimentDecided, event: Event, before: _Before) -> None:
    card = _verdict(board, run, before.experiment, data, event.position)
    _conclude(board, thread, card, event)
    thread.crashed = [*thread.crashed, data.experiment] if data.verdict == "crash" else []
    if not thread.parent_at:
        return
    if len(thread.crashed) == STREAK:
        crashes = Crashes(tuple(thread.crashed), card.reason)
        key = f"{thread.key}/crashes/{event.position}"
        board.notice(Item(key, "crashes", thread.tag, event.position, event.at, thread.channel, crashes))
    if data.verdict == "keep" and data.experiment > 0 and (data.gain or 0) > 0:
        key = f"{thread.key}/best/{data.experiment}"
        board.notice(Item(key, "best", thread.tag, event.position, event.at, thread.channel, card))


def _abandoned(
    board: Board, thread: Thread, run: Run, data: e.ExperimentAbandoned, event: Event, before: _Before
) -> None:
    if data.experiment in thread.planned:  # what was never shown need not be taken back
        _conclude(board, thread, _verdict(board, run, before.experiment, data, event.position), event)
    board._credits.pop((thread.tag, data.experiment), None)


def _conclude(board: Board, thread: Thread, card: Verdict, event: Event) -> None:
    thread.planned.discard(card.experiment)
    board._credits.pop((thread.tag, card.experiment), None)
    if not thread.parent_at:
        _count(thread, card, event.at)
        return
    key = f"{thread.key}/{card.experiment}/verdict"
    _wait(thread, Item(key, "verdict", thread.tag, event.position, event.at, card=card))


def _verdict(
    board: Board,
    run: Run,
    experiment: Experiment | None,
    data: e.ExperimentDecided | e.ExperimentAbandoned,
    position: int,
) -> Verdict:
    decided = data if isinstance(data, e.ExperimentDecided) else None
    trainings = [trial.finished.seconds for trial in experiment.trials if trial.finished] if experiment else []
    return Verdict(
        experiment=data.experiment,
        verdict=decided.verdict if decided is not None else "abandoned",
        metric=str(run.started.settings["objective"]["name"]) if run.started is not None else "",
        score=decided.score if decided is not None else None,
        best_before=decided.best_before if decided is not None else None,
        gain=decided.gain if decided is not None else None,
        lines=decided.lines if decided is not None else 0,
        reason=_cut(decided.reason if decided is not None else cast(e.ExperimentAbandoned, data).why),
        standing=decided.standing if decided is not None else "",
        trials=decided.trials if decided is not None else 0,
        seconds=sum(trainings),
        description=_cut(experiment.description) if experiment is not None else "",
        idea_by=board.credit(run.tag, data.experiment)[1],
        repairs=experiment.repairs if experiment is not None else 0,
        is_committed=experiment is not None and experiment.committed is not None,
        position=position,
    )


def _wait(thread: Thread, item: Item) -> None:
    """Queue a reply. Of too many, the oldest are counted; what asks for approval is never passed over."""
    thread.waiting.append(item)
    if len(thread.waiting) <= BACKLOG_MAX:
        return
    oldest = next((waiting for waiting in thread.waiting if waiting.kind != "approval"), None)
    if oldest is not None:
        thread.waiting.remove(oldest)
        if isinstance(oldest.card, Verdict):
            _count(thread, oldest.card, oldest.at)


def _count(thread: Thread, card: Verdict, at: str) -> None:
    counted = Tally.of(card, at)
    thread.before = counted if thread.before is None else thread.before.and_then(counted)


# ---------------------------------------------------------------- posts


def _post_requested(board: Board, data: e.PostRequested, event: Event) -> None:
    board.first_at = board.first_at or event.at
    board.asked.pop(data.key, None)
    item = _take_notice(board, data.key)
    found = board.thread_of(data.key)
    if found is not None and item is None:
        thread, rest = found
        if data.kind == "parent":
            item = _take_parent(board, thread, rest, data, event)
        else:
            item = _take_reply(thread, data.key)
    board.open[data.key] = Open(data, event.run, event.position, event.at, item)


def _take_notice(board: Board, key: str) -> Item | None:
    found = next((item for item in board.notices if item.key == key), None)
    if found is not None:
        board.notices.remove(found)
    return found


def _take_parent(board: Board, thread: Thread, rest: str, data: e.PostRequested, event: Event) -> Item:
    """The parent is asked for: from now on replies are posted one by one."""
    thread.channel, thread.ts, thread.parent_at = data.channel, "", event.position
    run = board.run_of(thread)
    if not rest and run is not None:
        for _, experiment in sorted(run.experiments.items()):
            if run.awaits_approval(experiment):
                _ask_approval(board, thread, experiment, event.at)
            elif experiment.in_hand:
                _announce(board, thread, experiment, event.position, event.at)
    return Item(data.key, "parent", thread.tag, thread.position, thread.at, data.channel)


def _take_reply(thread: Thread, key: str) -> Item | None:
    before = thread.before_item()
    if before is not None and before.key == key:
        thread.before = None
        return before
    found = next((item for item in thread.waiting if item.key == key), None)
    if found is not None:
        thread.waiting.remove(found)
        if isinstance(found.card, Verdict):
            thread.approvals.pop(found.card.experiment, None)
    return found


def _post_made(board: Board, data: e.PostMade, event: Event) -> None:
    board.made_at = max(board.made_at, event.at)
    known = board.open.pop(data.key, None)
    kind = known.request.kind if known is not None else ""
    if known is not None and kind == "digest":
        board.digests[data.channel] = DigestPost(data.key, data.channel, data.ts, event.at, known.request.to_position)
    found = board.thread_of(data.key)
    if found is None or known is None:
        return
    thread, _ = found
    if kind == "parent":
        thread.ts, thread.channel, thread.may_repeat = data.ts, data.channel, data.may_repeat
    elif kind == "approval":
        for approval in thread.approvals.values():
            if approval.item.key == data.key:
                approval.ts, approval.may_repeat = data.ts, data.may_repeat


def _post_failed(board: Board, data: e.PostFailed, _event: Event) -> None:
    board.open.pop(data.key, None)


def _number(item: Item) -> int | None:
    return item.card.experiment if isinstance(item.card, Plan | Verdict) else None


def _cut(text: str) -> str:
    return clean(text, TEXT_KEPT)


_HANDLERS: dict[type, Callable[[Board, Any, Event], None]] = {
    e.RunRequested: _run_requested,
    e.ProgramRecorded: _program_recorded,
    e.ProgramEdited: _program_edited,
    e.DigestRequested: _digest_requested,
    e.TroubleNoticed: _trouble_noticed,
    e.TroubleCleared: _trouble_cleared,
    e.PostRequested: _post_requested,
    e.PostMade: _post_made,
    e.PostFailed: _post_failed,
}

_OF_RUN: dict[type, Callable[[Board, Thread, Run, Any, Event, _Before], None]] = {
    e.RunWithdrawn: _withdrawn,
    e.RunRefused: _refused,
    e.RunFinished: _finished,
    e.RunPaused: _paused,
    e.RunResumed: _resumed,
    e.BudgetWarned: _budget_warned,
    e.ProposerSwitched: _proposer_news,
    e.ProposerWaiting: _proposer_news,
    e.IdeaUsed: _idea_used,
    e.ProposalReceived: _received,
    e.ProposalApproved: _answered,
    e.ProposalRejected: _answered,
    e.ExperimentPrepared: _prepared,
    e.ExperimentDecided: _decided,
    e.ExperimentAbandoned: _abandoned,
}
