"""Views drawn for a terminal with rich. Nothing here reads or decides anything.

Texts from logs, models and people go in as `Text`, which has no markup, and through `plain_line`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from eventstore import events as e
from eventstore.envelope import parse_at
from eventstore.log import Row
from eventstore.plain import duration, plain, plain_line
from eventstore.projections import results
from eventstore.projections.story import Attempt, Story, Training
from eventstore.views import AtWork, Best, Line, RunView, Spent, Status, Version, data_words, edit_words, local

COLOURS = {"keep": "green", "discard": "bright_black", "crash": "red"}
DIFF_COLOURS = {"+": "green", "-": "red", "@": "cyan"}
RIGHT = frozenset({"#", "score", "gain", "memory_gb", "lines", "position"})
"""Columns of numbers."""
SENTENCES = frozenset({"description", "reason", "who"})


def number(value: float | None) -> str:
    """A score as results.tsv writes it, or a dash."""
    return "-" if value is None else f"{value:.6f}"


def pairs(rows: Iterable[tuple[str, str | Text]]) -> Table:
    """Names and values, one pair a row; a value that is empty is left out with its name."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        if value:
            grid.add_row(name, Text(plain_line(value)) if isinstance(value, str) else value)
    return grid


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    """A table without frames, numbers on the right."""
    found = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in RIGHT else "left"
        # Where a terminal is too narrow, sentences are wrapped and everything else stays whole.
        found.add_column(column, justify=justify, no_wrap=column not in SENTENCES, overflow="fold")
    for row in rows:
        found.add_row(*(Text(plain_line(cell)) if isinstance(cell, str) else cell for cell in row))
    return found


def verdict(word: str | None) -> Text:
    return Text(word or "-", COLOURS.get(word or "", "yellow"))


# ---------------------------------------------------------------- status


def status(view: Status, zone: str, now: datetime) -> RenderableType:
    """The whole status; times are shown in *zone*."""
    parts: list[RenderableType] = [pairs(_status_pairs(view, zone, now))]
    if view.run is not None and view.run.last:
        rows = [
            (str(v.experiment), verdict(v.verdict), number(v.score), v.description, v.reason) for v in view.run.last
        ]
        parts += [Text(), table(("#", "verdict", "score", "description", "reason"), rows)]
    parts += [Text(), Text(f"Next: {view.next}")]
    return Group(*parts)


def _status_pairs(view: Status, zone: str, now: datetime) -> list[tuple[str, str | Text]]:
    run = view.run
    loop = (
        Text(view.loop) if view.loop is not None else Text("no loop is running: `nightshift loop` starts one", "yellow")
    )
    found: list[tuple[str, str | Text]] = [("loop", loop)]
    found += _run_pairs(run, zone, now) if run is not None else [("run", "none yet")]
    for queued in view.queue:
        if run is None or queued.tag != run.tag:
            found.append(("queue", f"{queued.tag}, asked by {queued.asked_by} at {local(queued.asked_at, zone)}"))
    found += [("trouble", _trouble(trouble, zone)) for trouble in view.troubles]
    return found


def _trouble(trouble: e.TroubleNoticed, zone: str) -> Text:
    return Text(plain_line(f"{trouble.kind}: {trouble.what} (since {local(trouble.since, zone)})"), "red")


def _run_pairs(run: RunView, zone: str, now: datetime) -> list[tuple[str, str | Text]]:
    why = f" ({run.why})" if run.why else ""
    found: list[tuple[str, str | Text]] = [("run", Text(plain_line(f"{run.tag}, {run.status}{why}"), "bold"))]
    found.append(("asked by", f"{run.asked_by} at {local(run.asked_at, zone)}"))
    if run.started_at is not None:
        end = parse_at(run.finished_at) if run.finished_at is not None else now
        length = duration((end - parse_at(run.started_at)).total_seconds())
        found.append(("since", f"{local(run.started_at, zone)} {zone}, {length}"))
        found.append(("branch", run.branch or ""))
        found.append(("best", _best(run.best, run.metric)))
        found.append(("so far", _counts(run)))
    found.append(("left", " · ".join(_limit(spent, zone) for spent in run.limits)))
    found += [("at work", _at_work(at_work)) for at_work in run.at_work]
    found += [("asked", Text(words, "yellow")) for words in run.asked]
    return found


def _best(best: Best | None, metric: str) -> str:
    if best is None:
        return "no score yet"
    if best.gain is None:
        return f"{metric} {number(best.score)}, the baseline"
    share = f", {best.gain / abs(best.baseline):.2%} better" if best.baseline else ""
    return (
        f"{metric} {number(best.score)}, experiment {best.experiment} "
        f"(gain {number(best.gain)} over the baseline {number(best.baseline)}{share})"
    )


def _counts(run: RunView) -> str:
    total = f"{run.verdicts} experiment{'s' * (run.verdicts != 1)}"
    words = f"{total}: {run.kept} kept, {run.discarded} discarded, {run.crashed} crashed"
    if run.usd or run.usd_unknown:
        words += f"; {run.usd:.2f} usd" + (" and more at unknown prices" if run.usd_unknown else "")
    return words


def _limit(spent: Spent, zone: str) -> str:
    if isinstance(spent.limit, str):
        return f"{duration(spent.left)} until {local(spent.limit, zone)}"
    if spent.name == "usd":
        return f"{spent.left:.2f} of {spent.limit:.2f} usd"
    return f"{spent.left:g} of {spent.limit} experiments"


def _at_work(at_work: AtWork) -> str:
    seconds = f" for {duration(at_work.seconds)}" if at_work.seconds is not None else ""
    what = f": {at_work.description}" if at_work.description else ""
    return f"experiment {at_work.experiment} {at_work.stage}{seconds}{what}"


# ---------------------------------------------------------------- experiments


def experiments(lines: Iterable[Line], metric: str) -> RenderableType:
    """The list of a run's experiments; the column of scores has the metric's name."""
    rows = [
        (
            str(line.experiment),
            line.commit,
            verdict(line.verdict),
            number(line.score),
            "-" if line.gain is None else f"{line.gain:+.6f}",
            "-" if line.memory_gb is None else f"{line.memory_gb:.1f}",
            line.description,
            line.reason,
        )
        for line in lines
    ]
    found = table(("#", "commit", "verdict", "score", "gain", "memory_gb", "description", "reason"), rows)
    found.columns[3].header = Text(plain_line(metric))
    return found


def story(story: Story, row: results.Row | None, now_is: str, zone: str) -> RenderableType:
    """
    One experiment, told whole.

    Args:
        row: Its row of results.tsv, or None while it has no verdict.
        now_is: Where it stands in words, where it has no verdict yet.
    """
    found: list[tuple[str, str | Text]] = [("experiment", Text(f"{story.experiment} of {story.tag}", "bold"))]
    found.append(("began", local(story.began_at, zone) if story.began_at else ""))
    found += _idea_pairs(story, zone)
    for attempt in story.attempts:
        found += _attempt_pairs(attempt)
    for asked in story.remeasures:
        found.append(("remeasured", f"trial {asked.trial}: {asked.why}"))
    found += _end_pairs(story, row, now_is, zone)
    return pairs(found)


def _idea_pairs(story: Story, zone: str) -> list[tuple[str, str | Text]]:
    found: list[tuple[str, str | Text]] = []
    again_of = story.asks[0].again_of if story.asks else None
    if again_of is not None:
        found.append(("again", f"the edit of experiment {again_of}, taken up again"))
    proposal = story.proposal
    if proposal is None and story.experiment == 0:
        found.append(("what", "the baseline: the files as the run found them"))
    for proposal in story.proposals:
        by = f"{proposal.model}, " if proposal.model else ""
        usd = f", {proposal.usd:.4f} usd" if proposal.usd else ""
        found += [
            ("proposal" if proposal.attempt == 0 else "repair", proposal.description),
            ("by", f"{by}{proposal.seconds:.1f} s{usd}" if by or usd else ""),
            ("hypothesis", proposal.hypothesis),
            ("expected", proposal.expected_effect),
            ("rationale", proposal.rationale),
        ]
        found += [("edit", edit_words(edit)) for edit in proposal.edits]
    found += [("ask failed", f"{failed.failure}: {failed.why}") for failed in story.failures]
    for name, word in (("approved", story.approved), ("rejected", story.rejected)):
        if word is not None:
            found.append((name, f"by {word.actor} at {local(word.at, zone)}{_because(word.why)}"))
    return found


def _attempt_pairs(attempt: Attempt) -> list[tuple[str, str | Text]]:
    prepared = attempt.prepared
    kind = {"first": "", "repair": ", a repair", "rebase": ", put on a newer tip"}[prepared.step]
    lines = f"+{prepared.lines_added} -{prepared.lines_removed} lines"
    found: list[tuple[str, str | Text]] = [
        ("attempt", f"{prepared.attempt}{kind}, on {prepared.base_commit[:7]}, {lines}")
    ]
    if attempt.committed is not None:
        found.append(("commit", f"{attempt.committed.commit} ({attempt.committed.ref})"))
    found += [("trial", _training(training)) for training in attempt.trainings]
    if attempt.guard is not None:
        code = "" if attempt.guard.exit_code is None else f", exit code {attempt.guard.exit_code}"
        found.append(("guard", f"{attempt.guard.result} in {attempt.guard.seconds:.1f} s{code}"))
    return found


def _training(training: Training) -> str:
    words = f"{training.trial}, seed {training.seed}: "
    finished, scored = training.finished, training.scored
    if finished is None:
        return words + "not finished"
    memory = f", {finished.peak_memory_mb:.0f} MB" if finished.peak_memory_mb is not None else ""
    words += f"{finished.outcome} in {finished.seconds:.1f} s{memory}{_because(finished.why)}"
    if scored is None:
        return words
    if scored.score is None:
        return f"{words}; score: {scored.outcome}{_because(scored.why)}"
    report = f", report {number(scored.report_score)}" if scored.report_score is not None else ""
    return f"{words}; score {number(scored.score)}{report}"


def _end_pairs(story: Story, row: results.Row | None, now_is: str, zone: str) -> list[tuple[str, str | Text]]:
    found: list[tuple[str, str | Text]] = []
    decided = story.decided
    if decided is not None:
        if decided.score is not None:
            found.append(("score", f"{number(decided.score)}, {decided.trials} trial{'s' * (decided.trials > 1)}"))
        if decided.best_before is not None:
            gain = f", gain {decided.gain:+.6f}" if decided.gain is not None else ""
            found.append(("best before", f"{number(decided.best_before)}{gain}"))
        standing = "" if decided.standing == "untested" else f" ({decided.standing.replace('_', ' ')})"
        colour = COLOURS[decided.verdict]
        found.append(("verdict", Text(f"{decided.verdict}{standing}, {local(story.decided_at, zone)}", colour)))
        found.append(("reason", decided.reason))
    elif story.abandoned is not None:
        found.append(("abandoned", f"{story.abandoned.why}, {local(story.decided_at, zone)}"))
    else:
        found.append(("now", now_is))
    found += _veto_pairs(story, row, zone)
    if story.taken_up_as:
        found.append(("taken up", "as experiment " + ", ".join(map(str, story.taken_up_as))))
    return found


def _veto_pairs(story: Story, row: results.Row | None, zone: str) -> list[tuple[str, str | Text]]:
    if row is not None and row.vetoed is not None:
        word = story.vetoes.get(row.vetoed)
        by = f", asked by {word.actor} at {local(word.at, zone)}{_because(word.why)}" if word is not None else ""
        whose = "its veto" if row.vetoed == story.experiment else f"the veto of {row.vetoed}, on which it was built"
        return [("taken back", f"off the branch by {whose}{by}")]
    word = story.vetoes.get(story.experiment)
    if word is None:
        return []
    return [
        ("veto", f"asked by {word.actor} at {local(word.at, zone)}{_because(word.why)}; the loop has not served it")
    ]


def _because(why: str) -> str:
    return f" ({why})" if why else ""


def diff(text: str) -> Text:
    """A diff in colours."""
    found = Text()
    for line in plain(text).splitlines():
        style = "bold" if line.startswith(("+++", "---", "diff ")) else DIFF_COLOURS.get(line[:1], "")
        found.append(line + "\n", style)
    found.rstrip()
    return found


# ---------------------------------------------------------------- program, log


def versions(found: Iterable[Version], zone: str) -> RenderableType:
    """The versions of program.md."""
    rows = [
        (str(v.position), v.hash[:8], local(v.at, zone), v.actor, str(v.lines), "in force" if v.in_force else "")
        for v in found
    ]
    return table(("position", "hash", "when", "who", "lines", ""), rows)


def row_line(row: Row, zone: str) -> Text:
    """One event of the log in one line."""
    parts = (
        (f"{row.position:>7}  {local(row.at, zone)}", "dim"),
        (plain_line(f"{row.run or '-'}  {row.type}"), "bold"),
        (plain_line(row.actor), "dim"),
        (data_words(row.data), ""),
    )
    return Text("  ").join(Text(words, style) for words, style in parts)
