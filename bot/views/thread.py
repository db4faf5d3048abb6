"""The posts about a run: its parent message, the replies below it and what the channel is told. Pure.

Guaranteed: each message fits Slack whatever the texts in it; a word stands beside each colour; a gain within the noise
is not called an improvement. Which buttons a message has is read from the state at the moment at which it is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from bot import text
from bot.board import Approval, Budget, Crashes, Plan, ProgramChange, RefusedRun, Tally, Trouble
from bot.board import Verdict as VerdictCard
from bot.message import Block, Message
from bot.values import Button
from bot.views import buttons
from bot.views.parts import actions, context, diff, header, pairs, said, section
from eventstore.envelope import parse_at
from eventstore.plain import duration
from eventstore.projections.besides import Beside
from eventstore.projections.run_state import Run, State
from eventstore.views import Best, Money, Proposing, RunView, Spent, failure_words, run_view

TEXT_SHOWN = 600
"""Characters of each text from outside, after escaping."""
EDIT_SHOWN = 2_400
IN_HAND_SHOWN = 4
CRASHES_SHOWN = 10
LEFT_STEP_S = 900.0

STATUS = {
    "queued": "waits its turn",
    "active": "running",
    "paused": "paused",
    "finished": "finished",
    "refused": "could not start",
    "withdrawn": "withdrawn",
}
VERDICTS = {"keep": "kept", "discard": "discarded", "crash": "crashed", "abandoned": "ended without a verdict"}
MARKS = {"keep": ":large_green_circle:", "discard": ":white_circle:", "crash": ":red_circle:"}
STANDINGS = {
    "confirmed": "confirmed by another seed",
    "within_noise": "within the noise between seeds",
    "untested": "not tested against the noise between seeds",
}
TROUBLES = {
    "disk": "the disk",
    "device": "the device",
    "sandbox": "the sandbox",
    "api": "the proposer",
    "run": "the run is paused",
}


# ---------------------------------------------------------------- the parent


def parent(state: State, run: Run, loop: str | None, now: datetime, beside: Beside | None = None) -> Message:
    """
    The message that stands for a run and is edited as it goes.

    Args:
        loop: Who serves the workspace, from `Home.holder`; None if nobody does.
        beside: Of the run; without it nothing is said of idle devices.
    """
    view = run_view(run, loop, now, beside)
    word = STATUS.get(view.status, view.status)
    if loop is None and view.status in ("queued", "active"):
        word += ", but no loop is running"
    blocks = [header(f"{view.tag}: {word}")]
    if view.why:
        blocks.append(said(view.why, TEXT_SHOWN))
    blocks += pairs(_parent_pairs(state, run, view))
    blocks.append(context(_origin(view)))
    row = buttons.of_run(state, run)
    if not run.is_over:
        row.append(buttons.button("edit_program", Button(run.tag, None, state.position)))
    return Message(text=f"{text.mrkdwn(view.tag, 80)}: {word}{_best_in_short(view)}", blocks=(*blocks, *actions(row)))


def _parent_pairs(state: State, run: Run, view: RunView) -> list[tuple[str, str]]:
    started = run.started
    device = f"{started.device} on {started.host}" if started is not None else ""
    troubles = "; ".join(f"{trouble.kind}: {trouble.what}" for trouble in state.troubles.values())
    open_trouble = "" if run.is_over else text.mrkdwn(troubles, TEXT_SHOWN)
    return [
        ("Best", _best(view.best, view.metric)),
        ("Experiments", _counts(view) if started is not None else ""),
        ("In hand", _in_hand(view)),
        ("Waits for approval", ", ".join(f"experiment {one.experiment}" for one in view.waiting)),
        ("Asked", text.mrkdwn(", ".join(view.asked), TEXT_SHOWN)),
        ("Proposer", _proposer(view.proposer) if view.proposer is not None else ""),
        ("Device", text.mrkdwn(device, TEXT_SHOWN)),
        ("Idle", f"{view.idle.share:.1%} of the time between trainings" if view.idle is not None else ""),
        ("Money", _money(view.money) if view.money is not None else ""),
        ("Ends", _ends(view.limits, run) if not run.is_over else ""),
        ("Trouble", open_trouble),
    ]


def _origin(view: RunView) -> str:
    words = [f"Asked for by {text.person(view.asked_by)}, {text.date(parse_at(view.asked_at))}"]
    if view.started_at is not None:
        words.append(f"started {text.date(parse_at(view.started_at))}")
    if view.finished_at is not None:
        length = (parse_at(view.finished_at) - parse_at(view.started_at or view.finished_at)).total_seconds()
        words.append(f"finished {text.date(parse_at(view.finished_at))} after {duration(length)}")
    if view.branch is not None:
        words.append(f"branch {text.mrkdwn(view.branch, 120)}")
    return " · ".join(words)


def _best_in_short(view: RunView) -> str:
    if view.best is None:
        return ""
    return f", best {text.mrkdwn(view.metric, 60)} {_score(view.best.score)} (experiment {view.best.experiment})"


def _best(best: Best | None, metric: str) -> str:
    if best is None:
        return ""
    words = f"{text.mrkdwn(metric, 60)} {_score(best.score)}"
    if best.gain is None:
        return f"{words}, the baseline"
    share = f", {best.gain / abs(best.baseline):.2%}" if best.baseline else ""
    return f"{words}, experiment {best.experiment} (gain {_score(best.gain)} over the baseline{share})"


def _counts(view: RunView) -> str:
    return f"{view.verdicts}: {view.kept} kept, {view.discarded} discarded, {view.crashed} crashed"


def _in_hand(view: RunView) -> str:
    waiting = {one.experiment for one in view.waiting}
    found = [f"{one.experiment} {one.stage}" for one in view.at_work if one.experiment not in waiting]
    more = f", and {len(found) - IN_HAND_SHOWN} more" if len(found) > IN_HAND_SHOWN else ""
    return text.mrkdwn(", ".join(found[:IN_HAND_SHOWN]) + more, TEXT_SHOWN)


def _proposer(proposer: Proposing) -> str:
    words = proposer.kind
    if proposer.failure is not None:
        words += f": {failure_words(proposer.failure)}, {proposer.failures} times in a row"
    if proposer.stand_in is not None:
        words += f"; the {proposer.stand_in} stands in"
    return text.mrkdwn(words + ("; nothing stands in, so the run waits" if proposer.is_waiting else ""), TEXT_SHOWN)


def _money(money: Money) -> str:
    limit = f" of {money.limit:.2f}" if money.limit is not None else ""
    more = ", and more at unknown prices" if money.unknown else ""
    return f"{money.spent:.2f}{limit} usd spent{more}"


def _ends(limits: Sequence[Spent], run: Run) -> str:
    words = []
    for spent in limits:
        if spent.name == "until":
            words.append(f"{text.date(parse_at(str(spent.limit)))} ({_left(spent.left)})")
        elif spent.name == "experiments":
            words.append(f"after {spent.left:g} more of {spent.limit} experiments")
        else:
            words.append(f"when {spent.left:.2f} more usd are spent")
    return " or ".join(words) or ("when it is stopped" if run.started is not None else "")


def _left(seconds: float) -> str:
    """The time left, in steps that do not make the message change each time that someone looks."""
    steps = int(seconds // LEFT_STEP_S)
    return f"{duration(steps * LEFT_STEP_S)} left" if steps > 0 else f"less than {duration(LEFT_STEP_S)} left"


# ---------------------------------------------------------------- replies


def plan(card: Plan) -> Message:
    """What an experiment is about to try."""
    title = f"Experiment {card.experiment}: {text.mrkdwn(card.description, 300) or 'no description'}"
    return Message(text=title, blocks=(section(f"*{title}*"), *_plan_parts(card)))


def _plan_parts(card: Plan) -> list[Block]:
    found = pairs(
        [
            ("Hypothesis", text.mrkdwn(card.hypothesis, TEXT_SHOWN)),
            ("Expected", text.mrkdwn(card.expected_effect, TEXT_SHOWN)),
            ("Idea", _idea(card)),
        ]
    )
    return [*found, context(_proposed_by(card))]


def _idea(card: Plan) -> str:
    return f"{text.mrkdwn(card.idea, TEXT_SHOWN)} (by {text.person(card.idea_by)})" if card.idea else ""


def _proposed_by(card: Plan) -> str:
    if card.again_of is not None:
        return f"The edit of experiment {card.again_of}, taken up again on today's best"
    model = f" ({text.mrkdwn(card.model, 80)})" if card.model else ""
    return f"Proposed by {text.mrkdwn(card.proposer, 40) or 'nobody'}{model}"


def approval(state: State, tag: str, asked: Approval) -> Message:
    """A proposal that waits for a person, with its edit and the buttons; afterwards, what came of it."""
    card = asked.item.card
    assert isinstance(card, Plan)
    run = state.runs.get(tag)
    experiment = run.experiments.get(card.experiment) if run is not None else None
    waits = run is not None and experiment is not None and run.awaits_approval(experiment)
    is_this = experiment is not None and experiment.proposal_at == card.position
    title = f"Experiment {card.experiment} {_approval_words(asked, waits=waits and is_this)}"
    description = text.mrkdwn(card.description, 300)
    blocks = [section(f"*{title}*\n{description}"), *_plan_parts(card)]
    if card.edit:
        blocks.append(text.preformatted(card.edit, EDIT_SHOWN))
    if waits and is_this:
        blocks += actions(buttons.of_experiment(state, tag, card.experiment))
    return Message(text=f"{title}: {description}", blocks=tuple(blocks))


def _approval_words(asked: Approval, *, waits: bool) -> str:
    if asked.answer:
        why = f" ({text.mrkdwn(asked.why, 200)})" if asked.why else ""
        return f"was {asked.answer} by {text.person(asked.by)}{why}"
    return "waits for approval" if waits else "no longer waits for approval"


def verdict(state: State, tag: str, card: VerdictCard) -> Message:
    """How an experiment ended, with the buttons that it has now."""
    title = f"Experiment {card.experiment}: {_verdict_words(card)}"
    mark = MARKS.get(card.verdict, ":white_circle:")
    blocks = [section(f"{mark} *{title}*\n{text.mrkdwn(card.description, 300)}")]
    blocks += pairs(
        [
            ("Against the best", _scored(card)),
            ("Why", text.mrkdwn(card.reason, TEXT_SHOWN)),
            ("Idea of", text.person(card.idea_by) if card.idea_by else ""),
        ]
    )
    blocks.append(context(_facts(card)))
    return Message(text=title, blocks=(*blocks, *actions(buttons.of_experiment(state, tag, card.experiment))))


def _verdict_words(card: VerdictCard) -> str:
    words = "the baseline" if card.experiment == 0 and card.verdict == "keep" else VERDICTS.get(card.verdict, "?")
    return words if card.score is None else f"{words}, {text.mrkdwn(card.metric, 60)} {_score(card.score)}"


def _scored(card: VerdictCard) -> str:
    if not card.experiment or card.score is None or card.best_before is None or card.gain is None:
        return ""
    against = f"the best before was {_score(card.best_before)}"
    if card.gain <= 0:
        return f"{_score(-card.gain)} worse: {against}" if card.gain else f"equal: {against}"
    standing = f", {STANDINGS[card.standing]}" if card.verdict == "keep" and card.standing in STANDINGS else ""
    return f"gain {_score(card.gain)}{standing}: {against}"


def _facts(card: VerdictCard) -> str:
    words = [f"{card.lines:+d} lines"] if card.experiment and card.verdict != "abandoned" else []
    if card.seconds:
        words.append(f"took {duration(card.seconds)}")
    if card.trials > 1:
        words.append(f"{card.trials} trainings")
    if card.repairs:
        words.append(f"repaired {card.repairs} times" if card.repairs > 1 else "repaired once")
    return " · ".join(words) or "nothing was trained"


def before(card: Tally) -> Message:
    """Experiments that are counted instead of posted one by one."""
    counts = [f"{count} {VERDICTS.get(verdict, verdict)}" for verdict, count in card.counts]
    which = f"Experiments {card.first} to {card.last}" if card.last > card.first else f"Experiment {card.first}"
    words = f"{which} ended before this thread had their messages: {', '.join(counts)}."
    return Message(text=words, blocks=(said(f"{words} `/nightshift results` lists them."),))


# ---------------------------------------------------------------- the channel


def best(state: State, tag: str, card: VerdictCard) -> Message:
    """A keep with a better score."""
    name, metric = text.mrkdwn(tag, 80), text.mrkdwn(card.metric, 60)
    score, gain = _score(card.score or 0.0), _score(card.gain or 0.0)
    if card.standing == "within_noise":
        title = f"{name}: experiment {card.experiment} was kept, its gain of {gain} is within the noise"
    else:
        title = f"{name}: new best, {metric} {score}"
    idea = f"\nAn idea of {text.person(card.idea_by)}" if card.idea_by else ""
    said_so = f"*{title}*\nExperiment {card.experiment}: {text.mrkdwn(card.description, 300)}{idea}"
    known = STANDINGS.get(card.standing, "")
    facts = context(f"{metric} {score} · gain {gain} · {known} · {_facts(card)}")
    row = buttons.of_experiment(state, tag, card.experiment)
    return Message(text=title, blocks=(section(said_so), facts, *actions(row)))


def crashes(state: State, tag: str, card: Crashes) -> Message:
    """Several crashes in a row."""
    numbers = ", ".join(str(number) for number in card.experiments[-CRASHES_SHOWN:])
    title = f"{text.mrkdwn(tag, 80)}: {len(card.experiments)} crashes in a row (experiments {numbers})"
    words = f":red_circle: *{title}*\nThe last: {text.mrkdwn(card.why, TEXT_SHOWN)}"
    return Message(text=title, blocks=(section(words), *_run_row(state, tag)))


def budget(state: State, tag: str, card: Budget) -> Message:
    """A limit is nearly spent."""
    title = f"{text.mrkdwn(tag, 80)}: {card.share:.0%} of the limit {card.limit} is spent"
    money = f"\n{card.spent:.2f} of {card.of:.2f} usd" if card.spent is not None and card.of is not None else ""
    return Message(text=title, blocks=(section(f"*{title}*{money}"), *_run_row(state, tag)))


def finished(run: Run, now: datetime, beside: Beside | None = None) -> Message:
    """A run is over: why, and what came of it."""
    view = run_view(run, None, now, beside)
    title = f"{text.mrkdwn(view.tag, 80)} is finished"
    rows = [
        ("Why", text.mrkdwn(view.why, TEXT_SHOWN)),
        ("Best", _best(view.best, view.metric)),
        ("Experiments", _counts(view)),
        ("Money", _money(view.money) if view.money is not None else ""),
        ("Branch", text.mrkdwn(view.branch or "", 120)),
    ]
    blocks = (section(f"*{title}*"), *pairs(rows), context(_origin(view)))
    return Message(text=f"{title}: {text.mrkdwn(view.why, 300)}", blocks=blocks)


def refused(tag: str, card: RefusedRun) -> Message:
    """A run could not start; it names the one who asked."""
    title = f"{text.mrkdwn(tag, 80)} could not start"
    words = f"*{title}*, {text.person(card.by)}\n{text.mrkdwn(card.why, TEXT_SHOWN)}"
    remedy = said(f"What to do: {card.remedy}", TEXT_SHOWN)
    return Message(text=f"{title}: {text.mrkdwn(card.why, 300)}", blocks=(section(words), remedy))


def program(card: ProgramChange) -> Message:
    """Someone changed program.md: who, and what."""
    title = f"program.md is now {text.mrkdwn(card.hash[:8], 8)}"
    words = f"*{title}*, by {text.person(card.by)}. The next proposal follows it."
    return Message(text=title, blocks=(section(words), *diff(card.before, card.after)))


def trouble(state: State, tag: str, card: Trouble) -> Message:
    """Something is wrong that people should know of; *tag* is empty where no run is concerned."""
    about = f"{text.mrkdwn(tag, 80)}: " if tag else ""
    word = TROUBLES.get(card.kind, text.mrkdwn(card.kind, 40))
    title = f"{about}trouble with {word}" if card.kind != "run" else f"{about}{word}"
    words = f":warning: *{title}*\n{text.mrkdwn(card.what, TEXT_SHOWN)}"
    return Message(text=title, blocks=(section(words), *_run_row(state, tag)))


def _run_row(state: State, tag: str) -> list[Block]:
    run = state.runs.get(tag)
    return actions(buttons.of_run(state, run)) if run is not None else []


# ---------------------------------------------------------------- what is added to any of them


def late(message: Message, at: datetime) -> Message:
    """The same message, saying when it happened."""
    return _with(message, f"Happened {text.date(at)}; posted late.")


def linked(message: Message, tag: str, url: str) -> Message:
    """The same message of the channel, with the way to the thread of its run; *url* may be empty."""
    link = text.link(url, f"The thread of {text.mrkdwn(tag, 80)}")
    return _with(message, link) if link else message


def may_repeat(message: Message) -> Message:
    """The same message, saying that it may stand above already."""
    words = "This may repeat an earlier message: nobody can say whether that one arrived."
    return _with(message, words)


def _with(message: Message, words: str) -> Message:
    blocks = message.blocks or (section(message.text),)
    return replace(message, blocks=(*blocks, context(words)))


def _score(value: float) -> str:
    return f"{value:.6f}"
