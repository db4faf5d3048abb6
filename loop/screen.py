"""What the person at the loop's terminal sees: live on a terminal, one line for each event elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from eventstore import events as e
from eventstore.envelope import Event, parse_at
from eventstore.plain import duration, plain_line, shortened
from eventstore.projections.run_state import Run, State
from eventstore.views import awaiting, failure_words
from loop.shell import Shell
from loop.stages import stage_of

REFRESH_S = 0.25
ROWS = 10
TEXT_SHOWN = 240
"""Characters of a text from outside in a line."""
COLOURS = {"keep": "green", "discard": "bright_black", "crash": "red"}
Seconds = Callable[[], float]


@dataclass(slots=True)
class Screen:
    """
    Shows one loop at work.

    Attributes:
        console: Where to; live only if it is a terminal.
        clock: A monotonic clock in seconds.
        live_from: Events up to this position are history and print no line.
        state: What the loop has folded, once `show` was called; it tells what waits for approval.
    """

    console: Console
    clock: Seconds
    live_from: int = 0
    began: dict[tuple[str, int], float] = field(default_factory=dict)
    state: State | None = None

    def on_event(self, event: Event) -> None:
        """Note when trainings begin; print a line for what matters."""
        data = event.data
        if isinstance(data, e.TrainingStarted):
            self.began[event.run, data.experiment] = self.clock()
        if event.position <= self.live_from:
            return
        line = line_of(event)
        if line:
            self.console.print(line, highlight=False)
        if isinstance(data, e.ProposalReceived) and self._waits(event.run, data.experiment):
            self.console.print(approval_line(data.experiment), highlight=False)

    def _waits(self, tag: str, number: int) -> bool:
        run = self.state.runs.get(tag) if self.state is not None else None
        experiment = run.experiments.get(number) if run is not None else None
        return run is not None and experiment is not None and run.awaits_approval(experiment)

    async def show(self, shell: Shell) -> None:
        """Redraw until cancelled. On anything but a terminal this only waits: the lines say it all."""
        self.state = shell.state
        if not self.console.is_terminal:
            await asyncio.Event().wait()
        with Live(console=self.console, auto_refresh=False, transient=True) as live:
            while True:
                live.update(self._picture(shell), refresh=True)
                await asyncio.sleep(REFRESH_S)

    def _picture(self, shell: Shell) -> RenderableType:
        run = shell.state.active
        if run is None:
            return Text("waiting for a run: `nightshift start TAG` in another terminal (Ctrl-C ends the loop)", "dim")
        return Group(headline(run), recent(run, self.console.width), *self._trainings(shell, run))

    def _trainings(self, shell: Shell, run: Run) -> list[RenderableType]:
        bars: list[RenderableType] = []
        for (tag, number), training in shell.hands.trainings.items():
            if tag != run.tag or run.started is None:
                continue
            progress = training.progress()
            elapsed = self.clock() - self.began.get((tag, number), self.clock())
            share = 100 * progress.fraction if progress is not None and progress.fraction is not None else 0.0
            loss = f"loss {progress.loss:.3f}" if progress is not None and progress.loss is not None else "starting"
            grid = Table.grid(padding=(0, 1))
            grid.add_row(
                Text(f"experiment {number}", "bold"),
                ProgressBar(total=100, completed=share, width=30),
                Text(f"{share:3.0f} %  {loss}  {elapsed:.0f} s"),
            )
            bars.append(grid)
        asking = [str(x.number) for x in run.experiments.values() if stage_of(x) == "asking"]
        if asking:
            bars.append(Text(f"proposing experiment {', '.join(asking)}", "dim"))
        bars += proposer_news(run)
        return bars


def proposer_news(run: Run) -> list[Text]:
    """What is wrong with the proposer, and what waits for a person; empty where nothing is."""
    found = []
    if run.failure and run.failures_alike > 1:
        stand_in = f", the {run.switched.to_kind} stands in" if run.switched is not None else ""
        words = f"{run.proposer}: {failure_words(run.failure)}, {run.failures_alike} times in a row{stand_in}"
        found.append(Text(words, "yellow"))
    numbers = ", ".join(str(experiment.number) for experiment in awaiting(run))
    if numbers:
        found.append(Text(f"waiting for approval: experiment {numbers} (nightshift experiment show)", "yellow"))
    return found


def headline(run: Run) -> Text:
    """One line: the run, how far it is, its best."""
    counts, best = run.counts, run.best
    limit = run.limits.experiments
    total = f"{run.verdicts} of {limit}" if limit is not None else str(run.verdicts)
    kept = len(run.keeps) - 1 if run.keeps else 0  # on the branch: a keep that was vetoed is none
    discarded = run.verdicts - kept - counts["crash"] if run.keeps else 0
    text = f"{run.tag}  {total} experiments, {kept} kept, {discarded} discarded, {counts['crash']} crashed"
    if best is not None:
        text += f"  best {best.score:.6f}"
        first = run.keeps[0]
        if best is not first:
            text += f" (from {first.score:.6f}, experiment {best.experiment})"
    if run.status == "paused":
        text += f"  PAUSED: {plain_line(run.paused_why)}"
    return Text(text, "bold")


def recent(run: Run, width: int) -> Table:
    """The last verdicts, one line each, in at most *width* columns."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=True, header_style="dim")
    for column in ("#", "verdict", "score", "description", "reason"):
        table.add_column(column, no_wrap=True)
    room = max(width - 36, 20)  # beside number, verdict and score
    for done in run.done[-ROWS:]:
        verdict = done.verdict or "abandoned"
        score = f"{done.score:.6f}" if done.score is not None else "-"
        reason = shortened(plain_line(done.reason), room // 3)
        what = Text(shortened(plain_line(done.description), room - room // 3))
        table.add_row(str(done.experiment), Text(verdict, COLOURS.get(verdict, "yellow")), score, what, Text(reason))
    return table


def line_of(event: Event) -> str:
    """What one event is worth saying in a scrolling log; empty for most of them. Rich markup, escaped."""
    return _run_line(event) or _experiment_line(event)


def _run_line(event: Event) -> str:
    tag, data = _safe(event.run), event.data
    match data:
        case e.RunStarted():
            return f"[bold]{tag}[/] started on {_safe(data.branch)} from {data.base_commit[:7]}"
        case e.RunRefused():
            return f"[red]{tag} refused:[/] {_safe(data.why)}; {_safe(data.remedy)}"
        case e.RunPaused():
            return f"[yellow]{tag} paused:[/] {_safe(data.why)}"
        case e.RunResumed():
            return f"{tag} goes on"
        case e.RunFinished():
            return f"[bold]{tag}[/] finished: {_safe(data.why)}"
        case e.BudgetWarned():
            return f"[yellow]{tag}: {data.share:.0%} of the {data.limit} limit is spent[/]"
        case e.ProposerSwitched():
            who = f"{_safe(data.to_kind)} proposes instead of {_safe(data.from_kind)}"
            return f"[yellow]{tag}: {who}[/] ({_safe(data.why)})"
        case e.ProposerWaiting():
            return f"[yellow]{tag} waits for {_safe(data.kind)}:[/] {_safe(data.why)}"
        case e.TroubleNoticed():
            return f"[red]trouble ({data.kind}):[/] {_safe(data.what)}"
    return ""


def _experiment_line(event: Event) -> str:
    data = event.data
    number = f"{getattr(data, 'experiment', 0):4d}"
    match data:
        case e.ExperimentDecided():
            score = f"{data.score:.6f}" if data.score is not None else "no score"
            colour = COLOURS[data.verdict]
            return f"{number}  [{colour}]{data.verdict:<8}[/] {score}  {_safe(data.reason)}"
        case e.ProposalReceived():
            return f"[dim]{number}  proposed {_safe(data.description)}[/]"
        case e.ProposalFailed() if data.failure not in ("stopped", "exhausted"):
            again = _again(event.at, data.retry_at)
            return f"[yellow]{number}  {_safe(failure_words(data.failure))}:[/] {_safe(data.why)}{again}"
        case e.ProposalApproved():
            return f"{number}  approved by {_safe(event.actor)}"
        case e.ProposalRejected():
            return f"{number}  rejected by {_safe(event.actor)}" + (f": {_safe(data.why)}" if data.why else "")
        case e.IdeaUsed():
            return f"[dim]{number}  uses idea {data.idea}[/]"
        case e.IdeaDeclined():
            return f"[dim]{number}  does not use idea {data.idea}: {_safe(data.why)}[/]"
        case e.ExperimentAbandoned():
            return f"[dim]{number}  abandoned: {_safe(data.why)}[/]"
        case e.BranchMoved(why="veto"):
            return f"{number}  veto: the branch is back at {data.to_commit[:7]}"
    return ""


def _safe(text: str) -> str:
    """Text from outside in one bounded line that neither a terminal nor rich obeys."""
    return escape(shortened(plain_line(text), TEXT_SHOWN))


def approval_line(number: int) -> str:
    """What is said when the proposal of experiment *number* needs a person."""
    return (
        f"[yellow]{number:4d}  waits for approval:[/] `nightshift experiment show {number}`, then "
        f"`nightshift experiment approve {number}` or `reject {number}`"
    )


def _again(at: str, retry_at: str) -> str:
    if not retry_at:
        return ""
    return f"; asked again in {duration((parse_at(retry_at) - parse_at(at)).total_seconds())}"
