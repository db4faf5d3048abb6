"""Views drawn for a terminal with rich. Nothing here reads or decides anything.

Texts from logs, models and people go in as `Text`, which has no markup, and through `plain_line`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from eventstore import events as e
from eventstore.envelope import parse_at
from eventstore.log import Row
from eventstore.plain import duration, plain, plain_line, shortened
from eventstore.projections import results
from eventstore.projections.story import Attempt, IdeaAnswer, Story, Training
from eventstore.views import (
    AtWork,
    Best,
    Beyond,
    IdeaLine,
    Line,
    Money,
    Proposing,
    RunView,
    Spent,
    Status,
    Version,
    Waiting,
    clock,
    data_words,
    edit_text,
    edit_words,
    failure_words,
    local,
    times,
)

COLOURS = {"keep": "green", "discard": "bright_black", "crash": "red"}
DIFF_COLOURS = {"+": "green", "-": "red", "@": "cyan"}
RIGHT = frozenset({"#", "score", "gain", "memory_gb", "lines", "position", "idea", "experiments", "kept"})
"""Columns of numbers."""
SENTENCES = frozenset({"description", "reason", "who", "text", "by", "what came of it", "wanted", "why"})
HYPOTHESIS_SHOWN = 300
"""Characters of a hypothesis in the status."""
ABANDONED_SHOWN = 10
"""Abandoned experiments that the line below the results names."""


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
    if view.ideas:
        found.append(("ideas", f"{view.ideas} open: `nightshift idea list` shows {'them' if view.ideas > 1 else 'it'}"))
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
    if run.money is not None:
        found.append(("money", _money(run.money)))
    if run.proposer is not None:
        style = "yellow" if run.proposer.failure is not None else ""
        found.append(("proposer", Text(plain_line(_proposing(run.proposer, zone, now)), style)))
    if run.idle is not None:
        idle, training = duration(run.idle.idle_s), duration(run.idle.training_s)
        found.append(
            ("idle", f"{run.idle.share:.1%} of the time between trainings ({idle}, beside {training} of training)")
        )
    unapproved = {one.experiment for one in run.waiting}
    found += [("at work", _at_work(at_work)) for at_work in run.at_work if at_work.experiment not in unapproved]
    found += [("approval", _waiting(one)) for one in run.waiting]
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
    return f"{total}: {run.kept} kept, {run.discarded} discarded, {run.crashed} crashed"


def _money(money: Money) -> str:
    limit = f" of {money.limit:.2f}" if money.limit is not None else ""
    words = f"{money.spent:.2f}{limit} usd spent"
    if money.unknown:
        words += ", and more at unknown prices"
    if money.open:
        words += f"; open asks may still cost {money.open:.2f}"
    return words + ("; the next ask does not fit into what is left" if money.is_out else "")


def _proposing(proposer: Proposing, zone: str, now: datetime) -> str:
    words = proposer.kind
    if proposer.failure is not None:
        often = f"{proposer.failures} times in a row" if proposer.failures > 1 else "once"
        due = proposer.retry_at is not None and parse_at(proposer.retry_at) > now
        again = f"at {clock(proposer.retry_at, zone, now)}" if due and proposer.retry_at is not None else "now"
        words += f": {proposer.failure_words}, {often}; asked again {again}"
    if proposer.stand_in is not None and proposer.stand_in_since:
        words += f"; the {proposer.stand_in} stands in since {clock(proposer.stand_in_since, zone, now)}"
        words += f", but has nothing more ({proposer.stand_in_exhausted})" if proposer.stand_in_exhausted else ""
    return words + ("; nothing stands in, so the run waits for it" if proposer.is_waiting else "")


def _waiting(one: Waiting) -> Text:
    found = Text(plain_line(f"experiment {one.experiment} waits: {one.description}"), "yellow")
    if one.hypothesis:
        found.append("\n" + shortened(one.hypothesis, HYPOTHESIS_SHOWN), "default")
    found.append(f"\n`{one.show}` shows the code, then `{one.approve}` or `{one.reject} WHY`", "dim")
    return found


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


def story(
    story: Story,
    row: results.Row | None,
    now_is: str,
    zone: str,
    *,
    ideas: Mapping[int, e.IdeaSuggested],
    waiting: Waiting | None = None,
) -> RenderableType:
    """
    One experiment, told whole; of one that was never applied, the code it proposes too.

    Args:
        row: Its row of results.tsv, or None while it has no verdict.
        now_is: Where it stands in words, where it has no verdict yet.
        ideas: The ideas that it was asked to use, by position, each with whom to credit in `by`.
        waiting: Set if its proposal waits for approval.
    """
    found: list[tuple[str, str | Text]] = [("experiment", Text(f"{story.experiment} of {story.tag}", "bold"))]
    found.append(("began", local(story.began_at, zone) if story.began_at else ""))
    found += _origin_pairs(story, ideas)
    answers = story.answers
    for attempt in story.attempts:
        mine = [answer for answer in answers if _attempt_of(story, answer) <= attempt.prepared.attempt]
        answers = [answer for answer in answers if _attempt_of(story, answer) > attempt.prepared.attempt]
        found += [pair for answer in mine for pair in _answer_pairs(story, answer)]
        if attempt is story.attempts[0]:
            found += _word_pairs(story, zone)
        found += _attempt_pairs(attempt)
    found += [pair for answer in answers for pair in _answer_pairs(story, answer)]
    if not story.attempts:
        found += _word_pairs(story, zone)
    for asked in story.remeasures:
        found.append(("remeasured", f"trial {asked.trial}: {asked.why}"))
    found.append(("cost in all", _cost_in_all(story)))
    found += _end_pairs(story, row, now_is, zone)
    if waiting is not None:
        found.append(("approve", f"`{waiting.approve}` lets it be tried, `{waiting.reject} WHY` turns it down"))
    if story.attempts or not story.edits:
        return pairs(found)
    return Group(pairs(found), Text(), diff(edit_text(story.edits)))


def _origin_pairs(story: Story, ideas: Mapping[int, e.IdeaSuggested]) -> list[tuple[str, str | Text]]:
    """Where the experiment comes from: an old edit, a version of the program, people's ideas."""
    if not story.asks:
        return [("what", "the baseline: the files as the run found them")] if story.experiment == 0 else []
    found: list[tuple[str, str | Text]] = []
    if story.asks[0].again_of is not None:
        found.append(("again", f"the edit of experiment {story.asks[0].again_of}, taken up again"))
    found.append(("program", story.asks[-1].program_hash[:8]))
    answered = {answer.idea: answer for answer in story.ideas}
    for position in dict.fromkeys(asked.idea for asked in story.asks if asked.idea is not None):
        found.append(("idea", _idea(position, ideas.get(position), answered.get(position))))
    return found


def _idea(position: int, idea: e.IdeaSuggested | None, answer: IdeaAnswer | None) -> str:
    text = f" of {idea.by}: {idea.text}" if idea is not None else ""
    if answer is None:
        return f"{position}{text} (asked for)"
    return f"{position}{text} ({'used' if answer.used else f'not used: {answer.why}'})"


def _attempt_of(story: Story, answer: e.ProposalReceived | e.ProposalFailed) -> int:
    if isinstance(answer, e.ProposalReceived):
        return answer.attempt
    asked = story.asked(answer.ask)
    return asked.attempt if asked is not None else 0


def _answer_pairs(story: Story, answer: e.ProposalReceived | e.ProposalFailed) -> list[tuple[str, str | Text]]:
    asked = story.asked(answer.ask)
    kind = asked.kind if asked is not None else ""
    if isinstance(answer, e.ProposalFailed):
        wanted = f" (it wanted: {answer.description})" if answer.description else ""
        cost = _cost(answer)
        words = f"{failure_words(answer.failure)}: {answer.why}{wanted}" + (f"; {cost}" if cost else "")
        return [("ask failed", words), *(("its edit", edit_words(edit)) for edit in answer.edits)]
    by = f"{kind} ({answer.model})" if answer.model and answer.model != kind else kind or answer.model
    found: list[tuple[str, str | Text]] = [
        ("proposal" if answer.attempt == 0 else "repair", answer.description),
        ("by", by),
        ("cost", _cost(answer)),
        ("hypothesis", answer.hypothesis),
        ("expected", answer.expected_effect),
        ("rationale", answer.rationale),
    ]
    found += [("edit", edit_words(edit)) for edit in answer.edits]
    if answer.ignored:
        found.append(("ignored", f"{', '.join(answer.ignored)}: touched besides and not taken over"))
    return found


def _cost(answer: e.ProposalReceived | e.ProposalFailed) -> str:
    """What an ask cost; empty where it was free and took no time to speak of."""
    if answer.usd == 0 and answer.tokens is None and not answer.calls:
        return f"{answer.seconds:.1f} s" if answer.seconds >= 1 else ""
    return _cost_words(answer.usd, answer.tokens, answer.seconds, len(answer.calls))


def _cost_in_all(story: Story) -> str:
    """The sum over an experiment's asks; empty where it says no more than its one ask does."""
    paid = [answer for answer in story.answers if answer.usd != 0 or answer.calls]
    if len(paid) < 2:
        return ""
    cost = story.cost
    words = _cost_words(cost.usd, cost.tokens, cost.seconds, cost.calls)
    return f"{words}; and more at unknown prices" if cost.unknown else words


def _cost_words(usd: float | None, tokens: e.Tokens | None, seconds: float, calls: int) -> str:
    parts = ["unknown price" if usd is None else f"{usd:.4f} usd"]
    if tokens is not None:
        read = tokens.input + tokens.cache_write + tokens.cache_read
        cached = f" ({tokens.cache_read} from the cache)" if tokens.cache_read else ""
        parts.append(f"{read} tokens in{cached}, {tokens.output} out")
    if calls:
        parts.append(f"{calls} call{'s' * (calls > 1)}")
    return ", ".join([*parts, f"{seconds:.1f} s"])


def _word_pairs(story: Story, zone: str) -> list[tuple[str, str | Text]]:
    """What a person said of the proposal."""
    return [
        (name, f"by {word.actor} at {local(word.at, zone)}{_because(word.why)}")
        for name, word in (("approved", story.approved), ("rejected", story.rejected))
        if word is not None
    ]


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
    checks = scored.checks
    seen = f", does not look ahead ({checks.rows} rows tried)" if checks is not None and checks.rows else ""
    return f"{words}; score {number(scored.score)}{report}{seen}"


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


# ---------------------------------------------------------------- results


def beyond(view: Beyond) -> RenderableType:
    """What a run's results.tsv does not say: refused proposals as a table, repairs and abandoned ones in a line."""
    parts: list[RenderableType] = []
    if view.refused:
        rows = [(str(r.experiment), failure_words(r.failure), r.description or "-", r.why) for r in view.refused]
        count = len(view.refused)
        title = f"{count} proposal{'s' * (count > 1)} refused before any of {'their' if count > 1 else 'its'} code ran:"
        parts += [Text(title), table(("#", "refused as", "wanted", "why"), rows)]
    if view.repaired:
        words = [f"{r.experiment} ({times(r.repairs)}: {r.verdict or 'no verdict'})" for r in view.repaired]
        parts.append(Text(f"Repaired after a crash: {', '.join(words)}."))
    if view.abandoned:
        parts.append(Text(plain_line(_abandoned(view))))
    return Group(*parts)


def _abandoned(view: Beyond) -> str:
    shown = [f"{one.experiment} ({one.why})" for one in view.abandoned[:ABANDONED_SHOWN]]
    more = len(view.abandoned) - len(shown)
    rest = f" and {more} more, which `nightshift experiment list` shows" if more else ""
    return f"Abandoned without a verdict: {', '.join(shown)}{rest}."


# ---------------------------------------------------------------- ideas


def ideas(found: Iterable[IdeaLine], zone: str, *, with_state: bool) -> RenderableType:
    """A list of ideas; *with_state* says what came of each."""
    columns = ["idea", "by", "when", "text", *(["what came of it"] if with_state else [])]
    rows = []
    for idea in found:
        row = [str(idea.position), idea.by, local(idea.at, zone), idea.text]
        rows.append([*row, idea_state(idea)] if with_state else row)
    return table(columns, rows)


def idea_state(idea: IdeaLine) -> str:
    """What came of an idea."""
    if idea.state == "used":
        return f"used in {idea.experiment} of {idea.run}: {idea.verdict or 'no verdict yet'}"
    if idea.state == "declined":
        return f"declined in {idea.experiment} of {idea.run}: {idea.why or 'it did not say why'}"
    return idea.state


# ---------------------------------------------------------------- program, log


def versions(found: Iterable[Version], zone: str) -> RenderableType:
    """The versions of program.md."""
    rows = [
        (
            str(v.position),
            v.hash[:8],
            local(v.at, zone),
            v.actor,
            str(v.lines),
            str(v.experiments),
            str(v.kept),
            "in force" if v.in_force else "",
        )
        for v in found
    ]
    return table(("position", "hash", "when", "who", "lines", "experiments", "kept", ""), rows)


def row_line(row: Row, zone: str) -> Text:
    """One event of the log in one line."""
    parts = (
        (f"{row.position:>7}  {local(row.at, zone)}", "dim"),
        (plain_line(f"{row.run or '-'}  {row.type}"), "bold"),
        (plain_line(row.actor), "dim"),
        (data_words(row.data), ""),
    )
    return Text("  ").join(Text(words, style) for words, style in parts)
