"""The catalogue: every type of event there is, as frozen structs. Pure.

A type's name and version are class constants, never a Python path, so a rename here breaks no log.
Fields only ever grow: a new one has an empty default (None, "", 0, False, ()), because a field equal
to its default is left out of the JSON. What did not happen has no field: a crash has no score, not a
score of 0. Old versions are upcast on read (`codec`), rows are never rewritten.

`docs/events.md` is generated from this file: the first line of a docstring says what happened, the
lines after it explain the fields.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import msgspec

Scalar = bool | int | float | str
Verdict = Literal["keep", "discard", "crash"]
Outcome = Literal[
    "scored",
    "crash",
    "oom",
    "timeout",
    "diverged",
    "no_metric",
    "tampered",
    "refused_operator",
    "stopped",
    "lost",
]
Standing = Literal["confirmed", "within_noise", "untested"]
StopMode = Literal["after_experiment", "now"]
Purpose = Literal["new", "repair", "again"]
Step = Literal["first", "repair", "rebase"]


class Data(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """Base of all event data. `TYPE` and `VERSION` are stored in the envelope's columns."""

    TYPE: ClassVar[str] = ""
    VERSION: ClassVar[int] = 1


class UnknownEvent(msgspec.Struct, frozen=True, gc=False):
    """A type or version this Nightshift does not know. *raw* is the stored JSON, untouched."""

    raw: str


# ---------------------------------------------------------------- parts shared by several events


class SetConstants(msgspec.Struct, frozen=True, tag_field="edit", tag="set"):
    """Give top-level constants of the Python file *path* new values, each a literal."""

    path: str
    values: dict[str, Scalar]


class Block(msgspec.Struct, frozen=True):
    """One replacement: *search* occurs exactly once and becomes *replace*."""

    search: str
    replace: str


class ReplaceBlocks(msgspec.Struct, frozen=True, tag_field="edit", tag="blocks"):
    """Search and replace in the file *path*, blocks applied in order."""

    path: str
    blocks: tuple[Block, ...]


class WholeFile(msgspec.Struct, frozen=True, tag_field="edit", tag="file"):
    """The file *path* becomes *text*."""

    path: str
    text: str


FileEdit = SetConstants | ReplaceBlocks | WholeFile


class Tokens(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Tokens of one proposal as the model's vendor counts them."""

    input: int = 0
    cache_write: int = 0
    cache_read: int = 0
    output: int = 0


class ModelCall(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """
    One call of a model's API.

    error is empty where an answer came. A missing usd means that the price is unknown. request is the vendor's
    id of the call, to ask them about it.
    """

    model: str
    stop_reason: str = ""
    tokens: Tokens | None = None
    usd: float | None = None
    seconds: float = 0.0
    request: str = ""
    error: str = ""


class Limits(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """When a run ends by itself; a missing limit means never. *until* is UTC in the log's form."""

    experiments: int | None = None
    until: str | None = None
    usd: float | None = None


# ---------------------------------------------------------------- the loop process


class LoopStarted(Data, frozen=True):
    """A loop took the lock of this workspace and serves it.

    pid_started is the process's start time in seconds since the epoch; with boot_id and pid it names
    one process for ever. sandbox says what isolation there is at best.
    """

    TYPE: ClassVar[str] = "loop.started"
    host: str
    boot_id: str
    pid: int
    pid_started: float
    nightshift: str
    sandbox: str


class LoopStopped(Data, frozen=True):
    """The loop ended in good order. After a crash there is none."""

    TYPE: ClassVar[str] = "loop.stopped"
    why: str


# ---------------------------------------------------------------- runs


class RunRequested(Data, frozen=True):
    """Someone asked for a run; it waits its turn.

    from_ref is the commit-ish to start from. limits, overrides (dotted setting to value) and seed hold
    only what the person set. zone is the asker's IANA zone, in which an `until` from nightshift.toml is read.
    """

    TYPE: ClassVar[str] = "run.requested"
    tag: str
    from_ref: str
    zone: str
    limits: Limits = Limits()
    overrides: dict[str, Any] = {}
    seed: int | None = None


class RunWithdrawn(Data, frozen=True):
    """A run that had not started was taken back."""

    TYPE: ClassVar[str] = "run.withdrawn"
    why: str = ""


class RunStarted(Data, frozen=True):
    """A run began; the settings here govern it to its end, whatever nightshift.toml says later.

    limits are the run's limits in force at its start. Hashes are SHA-256 in hexadecimal: of program.md,
    of the protected files, of the settings' canonical JSON. With sealed scoring corpus names the prepared corpus in
    the cache, and rows_hash the rows that are scored.
    """

    TYPE: ClassVar[str] = "run.started"
    branch: str
    base_commit: str
    settings: dict[str, Any]
    limits: Limits
    program_hash: str
    harness_hash: str
    settings_hash: str
    seed: int
    host: str
    device: str
    sandbox: str
    versions: dict[str, str]
    corpus: str = ""
    rows_hash: str = ""


class RunRefused(Data, frozen=True):
    """A requested run could not start; why in one sentence, and what to do about it."""

    TYPE: ClassVar[str] = "run.refused"
    request: int
    code: str
    why: str
    remedy: str


class RunPauseRequested(Data, frozen=True):
    """Someone asked to pause: after the experiments in hand, or now (their training is run again later)."""

    TYPE: ClassVar[str] = "run.pause_requested"
    mode: StopMode = "after_experiment"


class RunResumeRequested(Data, frozen=True):
    """Someone asked to go on."""

    TYPE: ClassVar[str] = "run.resume_requested"


class RunStopRequested(Data, frozen=True):
    """Someone asked to end the run: after the experiments in hand, or now."""

    TYPE: ClassVar[str] = "run.stop_requested"
    mode: StopMode = "after_experiment"


class RunPaused(Data, frozen=True):
    """Nothing of the run is at work and nothing will start until it is resumed."""

    TYPE: ClassVar[str] = "run.paused"
    why: str


class RunResumed(Data, frozen=True):
    """The run goes on."""

    TYPE: ClassVar[str] = "run.resumed"
    why: str


class RunFinished(Data, frozen=True):
    """The run is over. reason is a word for programs, why the sentence for people."""

    TYPE: ClassVar[str] = "run.finished"
    reason: str
    why: str


# ---------------------------------------------------------------- budgets


class BudgetChanged(Data, frozen=True):
    """Someone changed one limit of a run; a missing old or new value means "no limit"."""

    TYPE: ClassVar[str] = "budget.changed"
    limit: Literal["experiments", "until", "usd"]
    old: int | float | str | None = None
    new: int | float | str | None = None


class BudgetWarned(Data, frozen=True):
    """A limit is nearly spent. share is 0 to 1."""

    TYPE: ClassVar[str] = "budget.warned"
    limit: Literal["experiments", "until", "usd"]
    share: float


# ---------------------------------------------------------------- program.md


class ProgramRecorded(Data, frozen=True):
    """The loop found a program.md that the log had never seen, at the start of a run."""

    TYPE: ClassVar[str] = "program.recorded"
    hash: str
    text: str


class ProgramEdited(Data, frozen=True):
    """Someone changed program.md, having seen the version base_hash."""

    TYPE: ClassVar[str] = "program.edited"
    base_hash: str
    hash: str
    text: str


# ---------------------------------------------------------------- ideas


class IdeaSuggested(Data, frozen=True):
    """Someone suggested something to try; the idea is known by this event's position. by credits someone else."""

    TYPE: ClassVar[str] = "idea.suggested"
    text: str
    by: str = ""


class IdeaWithdrawn(Data, frozen=True):
    """An idea was taken back before it was used."""

    TYPE: ClassVar[str] = "idea.withdrawn"
    idea: int


class IdeaUsed(Data, frozen=True):
    """A proposal took the idea up."""

    TYPE: ClassVar[str] = "idea.used"
    idea: int
    experiment: int


class IdeaDeclined(Data, frozen=True):
    """A proposal was shown the idea and did not take it up."""

    TYPE: ClassVar[str] = "idea.declined"
    idea: int
    experiment: int
    why: str


# ---------------------------------------------------------------- proposals


class ProposalRequested(Data, frozen=True):
    """The loop asks for a proposal: for a new experiment, a repair, or an old edit taken up again.

    ask counts the asks of this experiment from 0. kind is who is asked. attempt is the attempt the answer is
    for. base_commit is what the proposer is shown. again_of is the experiment whose edit is taken up, idea the
    position of the idea it is asked to use. usd_reserved is the most it may cost: the proposer stays within it,
    and it is counted if a crash leaves this open.
    """

    TYPE: ClassVar[str] = "proposal.requested"
    experiment: int
    ask: int
    kind: str
    purpose: Purpose
    base_commit: str
    program_hash: str
    attempt: int = 0
    again_of: int | None = None
    idea: int | None = None
    usd_reserved: float = 0.0


class ProposalReceived(Data, frozen=True):
    """A proposal arrived. None of its code has run.

    base_commit is the commit that edits is meant for. description is one line. A missing usd means that the
    price is unknown, 0.0 that it was free; tokens and usd are the sums over calls. prompt_hash is the SHA-256 of
    what a model was told at first. ignored names files that an agent touched besides and that were not taken over.
    """

    TYPE: ClassVar[str] = "proposal.received"
    experiment: int
    ask: int
    base_commit: str
    description: str
    edits: tuple[FileEdit, ...]
    attempt: int = 0
    hypothesis: str = ""
    expected_effect: str = ""
    rationale: str = ""
    model: str = ""
    stop_reason: str = ""
    tokens: Tokens | None = None
    usd: float | None = None
    seconds: float = 0.0
    calls: tuple[ModelCall, ...] = ()
    prompt_hash: str = ""
    ignored: tuple[str, ...] = ()


class ProposalFailed(Data, frozen=True):
    """An ask for a proposal came to nothing; failure is its class, usd what it cost all the same.

    retry_at, UTC in the log's form, is when that proposer may be asked again; absent means at once. description
    and edits are of the proposal that was refused, where one came.
    """

    TYPE: ClassVar[str] = "proposal.failed"
    experiment: int
    ask: int
    failure: str
    why: str
    tokens: Tokens | None = None
    usd: float | None = None
    seconds: float = 0.0
    calls: tuple[ModelCall, ...] = ()
    prompt_hash: str = ""
    retry_at: str = ""
    description: str = ""
    edits: tuple[FileEdit, ...] = ()


class ProposalApproved(Data, frozen=True):
    """Someone let a waiting proposal go ahead."""

    TYPE: ClassVar[str] = "proposal.approved"
    experiment: int


class ProposalRejected(Data, frozen=True):
    """Someone turned a waiting proposal down."""

    TYPE: ClassVar[str] = "proposal.rejected"
    experiment: int
    why: str = ""


class ProposerSwitched(Data, frozen=True):
    """The loop asks another proposer from now on: because the first one fails, or because it answers again."""

    TYPE: ClassVar[str] = "proposer.switched"
    from_kind: str
    to_kind: str
    why: str


class ProposerWaiting(Data, frozen=True):
    """The proposer cannot answer and no other is configured; the loop goes on asking, with pauses."""

    TYPE: ClassVar[str] = "proposer.waiting"
    kind: str
    failure: str
    why: str


# ---------------------------------------------------------------- experiments


class ExperimentRequested(Data, frozen=True):
    """Someone asked to take the edit of experiment *of* up again, on today's best."""

    TYPE: ClassVar[str] = "experiment.requested"
    of: int


class ExperimentPrepared(Data, frozen=True):
    """The edit applies to base_commit and gives tree; it is about to be committed.

    The commit is made from this event alone (tree, base, subject, body, this event's time), so making it
    twice gives the same commit. diff and line counts look at editable files only; lines are non-blank and
    non-comment. content_hash names what is tried: equal for two attempts whose editable files differ from the
    run's base in the same way, comments, blank lines and layout aside.
    """

    TYPE: ClassVar[str] = "experiment.prepared"
    experiment: int
    attempt: int
    step: Step
    base_commit: str
    tree: str
    subject: str
    body: str = ""
    diff: str = ""
    lines_added: int = 0
    lines_removed: int = 0
    content_hash: str = ""


class ExperimentCommitted(Data, frozen=True):
    """The attempt is a commit, kept under ref whatever the verdict."""

    TYPE: ClassVar[str] = "experiment.committed"
    experiment: int
    attempt: int
    commit: str
    tree: str
    ref: str


class TrainingRequested(Data, frozen=True):
    """The loop is about to train a commit on one slot. budget_s is training time, timeout_s wall clock."""

    TYPE: ClassVar[str] = "training.requested"
    experiment: int
    attempt: int
    trial: int
    slot: int
    commit: str
    command: tuple[str, ...]
    seed: int
    budget_s: float
    timeout_s: float
    nonce: str


class TrainingStarted(Data, frozen=True):
    """The child process runs. pid and pid_started (seconds since the epoch) name it.

    idle_s is how long the slot stood idle since its last training ended, by the monotonic clock; absent for the
    first training that a loop process starts on it.
    """

    TYPE: ClassVar[str] = "training.started"
    experiment: int
    attempt: int
    trial: int
    nonce: str
    pid: int
    pid_started: float
    device: str
    idle_s: float | None = None


class TrainingFinished(Data, frozen=True):
    """The child and all its children are gone.

    metrics are the lines of the metric block, score the objective's value as the child claims it; both
    absent if there was none. tail is the bounded end of the log, why one sentence where outcome is not
    "scored". seconds is wall clock. With sealed scoring the child claims nothing: outcome "scored" says that it
    handed a model over in time, and trained_s is the wall clock from when it was given its text to its end.
    """

    TYPE: ClassVar[str] = "training.finished"
    experiment: int
    attempt: int
    trial: int
    nonce: str
    outcome: Outcome
    seconds: float
    score: float | None = None
    metrics: dict[str, int | float | str] = {}
    peak_memory_mb: float | None = None
    exit_code: int | None = None
    why: str = ""
    tail: str = ""
    trained_s: float | None = None


class ScoringRequested(Data, frozen=True):
    """The evaluator is about to score a trial. rows_hash names the rows, where the evaluator owns them.

    checks is true where it is to look for a model that looks ahead, and to score the report rows: for what would be
    kept, which by then has a score.
    """

    TYPE: ClassVar[str] = "scoring.requested"
    experiment: int
    attempt: int
    trial: int
    evaluator: str
    rows_hash: str = ""
    checks: bool = False


class Checks(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """
    What came of the search for a model that looks ahead.

    Of rows rows, moved had a prediction that moved when what follows it was changed, by up to largest nats. given and
    hidden are mean nats of positions tokens, as they are and with all hidden that follows each.
    """

    rows: int = 0
    moved: int = 0
    largest: float = 0.0
    positions: int = 0
    given: float = 0.0
    hidden: float = 0.0


class ScoringFinished(Data, frozen=True):
    """A trial has its score, or the reason why it has none.

    score decides, report_score is on rows that decide nothing and is what people are shown, claim is what the
    child said of itself. checks is absent where no search for a model that looks ahead was asked for. Outcome "lost":
    what was handed over is gone, and the trial is trained again.
    """

    TYPE: ClassVar[str] = "scoring.finished"
    experiment: int
    attempt: int
    trial: int
    outcome: Outcome
    score: float | None = None
    report_score: float | None = None
    claim: float | None = None
    seconds: float = 0.0
    why: str = ""
    checks: Checks | None = None


class GuardRequested(Data, frozen=True):
    """The guard is about to run on a candidate for a keep."""

    TYPE: ClassVar[str] = "guard.requested"
    experiment: int
    attempt: int
    command: tuple[str, ...]
    timeout_s: float
    nonce: str


class GuardFinished(Data, frozen=True):
    """The guard ended; exit code 0 is a pass. result "stopped" means it was cut off and runs again."""

    TYPE: ClassVar[str] = "guard.finished"
    experiment: int
    attempt: int
    result: Literal["passed", "failed", "timeout", "stopped"]
    seconds: float
    exit_code: int | None = None
    tail: str = ""


class ExperimentRemeasureRequested(Data, frozen=True):
    """The same commit is to be trained once more, with another seed, before a verdict."""

    TYPE: ClassVar[str] = "experiment.remeasure_requested"
    experiment: int
    trial: int
    seed: int
    why: str


class ExperimentDecided(Data, frozen=True):
    """The verdict.

    score, best_before and gain (positive is better, whatever the direction) are absent where there is no
    score. lines is the net number of lines added. trials is how many trainings the score rests on.
    """

    TYPE: ClassVar[str] = "experiment.decided"
    experiment: int
    attempt: int
    verdict: Verdict
    reason: str
    trials: int
    standing: Standing = "untested"
    score: float | None = None
    best_before: float | None = None
    gain: float | None = None
    lines: int = 0


class ExperimentAbandoned(Data, frozen=True):
    """The experiment ends without a verdict and has no row in results.tsv."""

    TYPE: ClassVar[str] = "experiment.abandoned"
    experiment: int
    reason: str
    why: str


class BranchMoved(Data, frozen=True):
    """The run's branch points at another commit, because experiment was kept or vetoed."""

    TYPE: ClassVar[str] = "branch.moved"
    experiment: int
    from_commit: str
    to_commit: str
    why: Literal["keep", "veto"]


class KeepVetoed(Data, frozen=True):
    """Someone took a keep back; the loop moves the branch to before it."""

    TYPE: ClassVar[str] = "keep.vetoed"
    experiment: int
    why: str = ""


# ---------------------------------------------------------------- trouble, digests, posts, refusals


class TroubleNoticed(Data, frozen=True):
    """Something outside the run is wrong, such as a full disk. since is UTC in the log's form."""

    TYPE: ClassVar[str] = "trouble.noticed"
    kind: Literal["disk", "device", "sandbox", "api", "slack"]
    what: str
    since: str


class TroubleCleared(Data, frozen=True):
    """The trouble is over."""

    TYPE: ClassVar[str] = "trouble.cleared"
    kind: Literal["disk", "device", "sandbox", "api", "slack"]
    what: str


class DigestScheduled(Data, frozen=True):
    """Someone set when a channel gets its digest. at is HH:MM in zone (IANA); both absent mean off."""

    TYPE: ClassVar[str] = "digest.scheduled"
    channel: str
    at: str = ""
    zone: str = ""


class DigestRequested(Data, frozen=True):
    """Someone asked for a digest now, of what happened since the last one."""

    TYPE: ClassVar[str] = "digest.requested"
    channel: str


class PostRequested(Data, frozen=True):
    """The bot is about to post. key is unique for ever; window names the positions it speaks of."""

    TYPE: ClassVar[str] = "post.requested"
    key: str
    channel: str
    kind: str
    from_position: int = 0
    to_position: int = 0


class PostMade(Data, frozen=True):
    """The post stands; ts is the vendor's id of the message. may_repeat: it may stand twice, and says so."""

    TYPE: ClassVar[str] = "post.made"
    key: str
    channel: str
    ts: str
    may_repeat: bool = False


class PostFailed(Data, frozen=True):
    """The post was given up."""

    TYPE: ClassVar[str] = "post.failed"
    key: str
    why: str


class RequestRefused(Data, frozen=True):
    """A person asked for something that was refused."""

    TYPE: ClassVar[str] = "request.refused"
    who: str
    what: str
    why: str


CATALOGUE: dict[str, type[Data]] = {
    cls.TYPE: cls
    for cls in (
        LoopStarted,
        LoopStopped,
        RunRequested,
        RunWithdrawn,
        RunStarted,
        RunRefused,
        RunPauseRequested,
        RunResumeRequested,
        RunStopRequested,
        RunPaused,
        RunResumed,
        RunFinished,
        BudgetChanged,
        BudgetWarned,
        ProgramRecorded,
        ProgramEdited,
        IdeaSuggested,
        IdeaWithdrawn,
        IdeaUsed,
        IdeaDeclined,
        ProposalRequested,
        ProposalReceived,
        ProposalFailed,
        ProposalApproved,
        ProposalRejected,
        ProposerSwitched,
        ProposerWaiting,
        ExperimentRequested,
        ExperimentPrepared,
        ExperimentCommitted,
        TrainingRequested,
        TrainingStarted,
        TrainingFinished,
        ScoringRequested,
        ScoringFinished,
        GuardRequested,
        GuardFinished,
        ExperimentRemeasureRequested,
        ExperimentDecided,
        ExperimentAbandoned,
        BranchMoved,
        KeepVetoed,
        TroubleNoticed,
        TroubleCleared,
        DigestScheduled,
        DigestRequested,
        PostRequested,
        PostMade,
        PostFailed,
        RequestRefused,
    )
}
"""Every type by its stored name. Order as in the documentation."""

WORKSPACE_EVENTS = frozenset(
    {
        "loop.started",
        "loop.stopped",
        "program.recorded",
        "program.edited",
        "trouble.noticed",
        "trouble.cleared",
        "digest.scheduled",
        "digest.requested",
    }
)
"""Types that belong to the workspace: their envelope's `run` is empty."""
