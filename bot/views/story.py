"""One experiment, for those who ask: its story, what it changes, what its training printed. Pure.

Guaranteed of every message here what `bot.views.answers` guarantees.
"""

from __future__ import annotations

from collections.abc import Mapping

from bot import text
from bot.intents import COMMAND
from bot.message import Message
from bot.views import buttons
from bot.views.answers import LINE_MAX, as_code, because, credited, fitting, mark, number, sentence, when
from bot.views.parts import actions, context, fitted, pairs, said, section
from eventstore import events as e
from eventstore import views
from eventstore.plain import as_on_terminal, duration, plain, shortened
from eventstore.projections import results as tsv
from eventstore.projections.run_state import Run, State
from eventstore.projections.story import Attempt, Story, Training

LOG_LINES = 50
LOG_LINE_MAX = 300
PROSE_MAX = 700
"""Characters of a hypothesis or a rationale."""
CODE_MAX = 8_000
"""Characters of a diff or a log."""
EDIT_MAX = 3_000
"""Characters of the code beside the story of an experiment."""


def experiment(
    state: State,
    run: Run,
    story: Story,
    row: tsv.Row | None,
    loop: str | None,
    ideas: Mapping[int, e.IdeaSuggested],
    *,
    may: bool = True,
) -> Message:
    """
    The story of one experiment, with the buttons of what can be asked of it.

    Args:
        row: Its row of results.tsv; None while it has no verdict.
        loop: Who serves the workspace.
        ideas: Those that it was asked to use, by position, each with whom to credit in `by`.
        may: Whether the asker may use the buttons.
    """
    tag, n = text.mrkdwn(run.tag, 100), story.experiment
    title = "The baseline" if n == 0 else f"Experiment {n}"
    description = f"\n{text.mrkdwn(row.description if row else _described(story), LINE_MAX)}" if n else ""
    blocks = [section(f"*{title}* of {tag}: {_now_is(run, story, row, loop)}{description}")]
    blocks += pairs(_meant(story, ideas))
    blocks += pairs(_made(story))
    blocks += pairs(_ended(story, row))
    if story.edits and not story.attempts:
        blocks.append(text.preformatted(views.edit_text(story.edits), EDIT_MAX))
    asked = actions(buttons.of_experiment(state, run.tag, n) if may else [])
    of_tag = f"{n} --tag {as_code(run.tag)}"
    note = context(f"The code: `{COMMAND} diff {of_tag}` · its log: `{COMMAND} log {of_tag}`")
    left_out = f"`nightshift experiment show {of_tag}` on the machine tells all"
    told = fitted(
        blocks,
        lambda count: context(f"{count} more {'parts' if count > 1 else 'part'} left out: {left_out}."),
        most=50 - len(asked) - 1,
        size=10_000,
    )
    short = f"{title} of {run.tag}: {row.status if row else 'no verdict yet'}"
    return Message(text=text.mrkdwn(short, LINE_MAX), blocks=(*told, *asked, note))


def _described(story: Story) -> str:
    return story.proposals[0].description if story.proposals else ""


def _now_is(run: Run, story: Story, row: tsv.Row | None, loop: str | None) -> str:
    if row is not None:
        return mark(row.status)
    if story.abandoned is not None:
        return "abandoned"
    known = run.experiments.get(story.experiment)
    if known is None:
        return "the run ended before its verdict"
    return text.mrkdwn(views.stage(known, loop, awaits_approval=run.awaits_approval(known)), LINE_MAX)


def _meant(story: Story, ideas: Mapping[int, e.IdeaSuggested]) -> list[tuple[str, str]]:
    """Who proposed it and why."""
    found: list[tuple[str, str]] = []
    if story.asks and story.asks[0].again_of is not None:
        found.append(("again", f"the edit of experiment {story.asks[0].again_of}, taken up again"))
    proposal = story.proposal
    if proposal is not None:
        asked = story.asked(proposal.ask)
        by = " · ".join(part for part in (asked.kind if asked else "", proposal.model) if part)
        found += [
            ("hypothesis", text.mrkdwn(proposal.hypothesis, PROSE_MAX)),
            ("expected", text.mrkdwn(proposal.expected_effect, PROSE_MAX)),
            ("rationale", text.mrkdwn(proposal.rationale, PROSE_MAX)),
            ("by", text.mrkdwn(by, 150)),
        ]
    answered = {answer.idea: answer for answer in story.ideas}
    for position in list(dict.fromkeys(asked.idea for asked in story.asks if asked.idea is not None))[:5]:
        idea, answer = ideas.get(position), answered.get(position)
        whose = f" of {credited(idea.by)}: {text.mrkdwn(idea.text, LINE_MAX)}" if idea is not None else ""
        used = "asked for" if answer is None else "used" if answer.used else "not used"
        found.append(("idea", f"{position}{whose} ({used})"))
    found += [
        ("ask failed", text.mrkdwn(f"{views.failure_words(failed.failure)}: {failed.why}", LINE_MAX))
        for failed in story.failures[-3:]
    ]
    cost = story.cost
    if cost.usd or cost.calls:
        unknown = " and more at unknown prices" if cost.unknown else ""
        found.append(("cost", f"{cost.usd:.4f} usd{unknown}, {duration(cost.seconds)}"))
    for name, word in (("approved", story.approved), ("rejected", story.rejected)):
        if word is not None:
            found.append((name, f"by {text.person(word.actor)} at {when(word.at)}{because(word.why)}"))
    return found


def _made(story: Story) -> list[tuple[str, str]]:
    """What was made of it: attempts and trainings."""
    found: list[tuple[str, str]] = []
    for attempt in story.attempts[-4:]:
        found.append(("attempt", _attempt(attempt)))
        found += [("training", text.mrkdwn(_training(one), LINE_MAX)) for one in attempt.trainings[-3:]]
        if attempt.guard is not None:
            found.append(("guard", f"{attempt.guard.result} in {attempt.guard.seconds:.1f} s"))
    return found


def _attempt(attempt: Attempt) -> str:
    prepared = attempt.prepared
    kind = {"first": "", "repair": ", a repair", "rebase": ", put on a newer tip"}[prepared.step]
    commit = f", commit {attempt.committed.commit[:7]}" if attempt.committed is not None else ""
    return f"{prepared.attempt}{kind}, +{prepared.lines_added} -{prepared.lines_removed} lines{commit}"


def _training(training: Training) -> str:
    finished, scored = training.finished, training.scored
    words = f"seed {training.seed}: "
    if finished is None:
        return words + "not finished"
    memory = f", {finished.peak_memory_mb:.0f} MB" if finished.peak_memory_mb is not None else ""
    words += f"{finished.outcome} in {finished.seconds:.1f} s{memory}" + (f" ({finished.why})" if finished.why else "")
    if scored is None or scored.score is None:
        return words
    report = f" (report {number(scored.report_score)})" if scored.report_score is not None else ""
    return f"{words}; score {number(scored.score)}{report}"


def _ended(story: Story, row: tsv.Row | None) -> list[tuple[str, str]]:
    """How it was judged."""
    found: list[tuple[str, str]] = []
    decided = story.decided
    if decided is not None:
        standing = "" if decided.verdict != "keep" else f", {decided.standing.replace('_', ' ')}"
        gain = f", gain {decided.gain:+.6f}" if decided.gain is not None else ""
        if decided.score is not None:
            found.append(("score", f"{number(decided.score)} (best before: {number(decided.best_before)}{gain})"))
        found.append(("verdict", f"{decided.verdict}{standing}, {when(story.decided_at)}"))
        found.append(("reason", text.mrkdwn(decided.reason, LINE_MAX)))
    elif story.abandoned is not None:
        found.append(("abandoned", f"{text.mrkdwn(story.abandoned.why, LINE_MAX)}, {when(story.decided_at)}"))
    if row is not None and row.vetoed is not None:
        word = story.vetoes.get(row.vetoed)
        by = f", asked by {text.person(word.actor)}{because(word.why)}" if word is not None else ""
        found.append(("taken back", f"off the branch by the veto of {row.vetoed}{by}"))
    elif (word := story.vetoes.get(story.experiment)) is not None:
        found.append(("veto", f"asked by {text.person(word.actor)}{because(word.why)}; the loop has not served it"))
    if story.taken_up_as:
        found.append(("taken up", "as experiment " + ", ".join(map(str, story.taken_up_as[:10]))))
    return found


def diff(story: Story) -> Message:
    """What an experiment changes, against the commit it was built on; of one never applied, its edit."""
    tag, n = story.tag, story.experiment
    what = f"What experiment {n} of {tag} changes"
    if story.attempts:
        code = story.attempts[-1].prepared.diff
    elif story.edits:
        code = views.edit_text(story.edits)
        what = f"What experiment {n} of {tag} proposes to change; it was never applied"
    else:
        return sentence(f"Experiment {n} of {tag} was never applied and has no proposal, so there is no diff.")
    if not code:
        return sentence(f"Experiment {n} of {tag} changes nothing.")
    blocks = [said(f"{what}:"), text.preformatted(code, CODE_MAX)]
    if len(plain(code)) > CODE_MAX:
        blocks.append(said(f"Cut here: `nightshift experiment diff {n} --tag {tag}` on the machine prints all of it."))
    return fitting(what, blocks)


def log_tail(story: Story, log: str | None = None) -> Message:
    """
    The end of what the newest training printed.

    Args:
        log: The log file's text, or its end; None where only the tail that the event log keeps is known.
    """
    tag, n = story.tag, story.experiment
    found = log if log is not None else _tail(story)
    if found is None:
        return sentence(f"Experiment {n} of {tag} has no finished training yet.")
    lines = as_on_terminal(found)[-LOG_LINES:]
    if not any(line.strip() for line in lines):
        return sentence(f"The training of experiment {n} of {tag} printed nothing.")
    kept = [shortened(line, LOG_LINE_MAX) for line in lines]
    while sum(len(line) + 1 for line in kept) > CODE_MAX:
        kept.pop(0)
    what = f"The last {len(kept)} line{'s' * (len(kept) != 1)} of the training of experiment {n} of {tag}"
    rest = f"`nightshift experiment log {n} --tag {tag} --all` on the machine prints all of it."
    return fitting(what, [said(f"{what}:"), text.preformatted("\n".join(kept), CODE_MAX + 1), said(rest)])


def _tail(story: Story) -> str | None:
    trainings = [training for attempt in story.attempts for training in attempt.trainings]
    return next((one.finished.tail for one in reversed(trainings) if one.finished is not None), None)
