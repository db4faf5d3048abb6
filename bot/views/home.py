"""The App Home: what is going on, what waits for a person, the best so far, ideas. Pure.

Guaranteed: within Slack's 100 blocks whatever the log holds, and what is left out is counted. What waits for a person
comes first. Buttons are shown to those only who may use them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from bot import access, text
from bot.intents import COMMAND, Role
from bot.message import Block, View
from bot.text import Element
from bot.values import Button
from bot.views import answers, buttons
from bot.views.parts import actions, context, divider, fitted, header, pairs, said, section
from eventstore import views
from eventstore.plain import plain
from eventstore.projections.run_state import Run, State

BLOCKS_MAX = 100
WAITING_SHOWN = 10
RUNS_SHOWN = 8
IDEAS_SHOWN = 10
LAST_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Picture:
    """An uploaded picture, by its file id at Slack. *alt_text* says in words what it shows."""

    file_id: str
    alt_text: str


@dataclass(frozen=True, slots=True)
class LastDigest:
    """The newest digest: when it was posted, and Slack's link to it, if that is known."""

    at: datetime
    link: str = ""


def home(
    view: views.Status,
    state: State,
    runs: Sequence[views.RunView],
    ideas: Sequence[views.IdeaLine],
    role: Role | None,
    now: datetime,
    *,
    picture: Picture | None = None,
    digest: LastDigest | None = None,
) -> View:
    """
    The Home tab of one person.

    Args:
        view: The status, of the run that is told of first.
        runs: Every run, oldest first.
        ideas: Every idea, oldest first.
        role: What the person may; None for nothing, not even look.
        picture: The staircase of the run that is told of first.
    """
    if role is None:
        return _view([said("Nightshift shows its runs to members of this workspace only.")])
    may = access.allows(role, "operate")
    blocks = [
        *_waiting(view, state, may),
        *_run(view, state, now, role, picture),
        *_digest(digest),
        *_others(view, runs),
        *_ideas(ideas),
        context(f"As of {text.date(now)}. `{COMMAND} help` lists what can be typed."),
    ]
    return _view(blocks)


def _view(blocks: Sequence[Block]) -> View:
    left_out = f"`{COMMAND} status`, `{COMMAND} results` and `{COMMAND} ideas` show more"
    fitting = fitted(blocks, lambda count: context(f"{count} parts left out: {left_out}."), most=BLOCKS_MAX, size=None)
    return {"type": "home", "blocks": fitting}


def _waiting(view: views.Status, state: State, may: bool) -> list[Block]:
    """Proposals that wait for approval, with the code and the buttons."""
    run = view.run
    if run is None or not run.waiting:
        return []
    count = len(run.waiting)
    blocks = [header(f"{count} proposal{'s' * (count > 1)} wait{'s' * (count == 1)} for approval")]
    for one in run.waiting[:WAITING_SHOWN]:
        words = f"*Experiment {one.experiment}* of {text.mrkdwn(run.tag, 100)}: {text.mrkdwn(one.description, 300)}"
        if one.hypothesis:
            words += f"\n{text.mrkdwn(one.hypothesis, 500)}"
        blocks.append(section(words))
        code = _code(state, run.tag, one.experiment)
        if code:
            blocks.append(text.preformatted(code, 1_500))
        if may:
            blocks += actions(buttons.of_experiment(state, run.tag, one.experiment))
        if len(plain(code)) > 1_500:
            blocks.append(context(f"Cut here: `{COMMAND} diff {one.experiment}` shows more."))
    if count > WAITING_SHOWN:
        blocks.append(context(f"{count - WAITING_SHOWN} more wait: `{COMMAND} status` names them."))
    return [*blocks, divider()]


def _code(state: State, tag: str, experiment: int) -> str:
    known = state.runs.get(tag)
    open_one = known.experiments.get(experiment) if known is not None else None
    proposal = open_one.proposal if open_one is not None else None
    return views.edit_text(proposal.edits) if proposal is not None else ""


def _run(view: views.Status, state: State, now: datetime, role: Role, picture: Picture | None) -> list[Block]:
    """The run that is told of first: its state, its best as a picture, its last verdicts, its buttons."""
    run = view.run
    if run is None:
        return [said(f"There is no run yet: `{COMMAND} start` asks for one."), *pairs(answers.status_rows(view, now))]
    why = f": {run.why}" if run.why else ""
    blocks = [header(f"{run.tag} is {run.status}{why}"), *pairs(answers.status_rows(view, now))]
    if picture is not None:
        blocks.append(
            {
                "type": "image",
                "slack_file": {"id": picture.file_id},
                "alt_text": text.line(picture.alt_text, 1_900) or "the scores of the run",
            }
        )
    if run.last:
        blocks.append(text.preformatted(answers.verdict_lines(run.last[:LAST_SHOWN]), 2_900))
    return [*blocks, *actions(_buttons(state, state.runs.get(run.tag), role))]


def _buttons(state: State, run: Run | None, role: Role) -> list[Element]:
    found = buttons.of_run(state, run) if run is not None and access.allows(role, "operate") else []
    if state.program_hash and access.allows(role, "admin"):
        found.append(buttons.button("edit_program", Button("", None, state.position)))
    return found


def _digest(digest: LastDigest | None) -> list[Block]:
    if digest is None:
        return []
    link = text.link(digest.link, "open it")
    return [section(f"*Last digest*  {text.date(digest.at)}{', ' + link if link else ''}")]


def _others(view: views.Status, runs: Sequence[views.RunView]) -> list[Block]:
    """The other runs, newest first, a line each."""
    others = [run for run in reversed(runs) if view.run is None or run.tag != view.run.tag]
    if not others:
        return []
    lines = [_other(run) for run in others[:RUNS_SHOWN]]
    more = [context(f"and {len(others) - RUNS_SHOWN} more")] if len(others) > RUNS_SHOWN else []
    return [divider(), section("*Other runs*"), *map(section, lines), *more]


def _other(run: views.RunView) -> str:
    words = f"*{text.mrkdwn(run.tag, 100)}* {run.status}"
    if run.started_at is None:
        return f"{words}, asked by {text.person(run.asked_by)}" + (f": {text.mrkdwn(run.why, 300)}" if run.why else "")
    return f"{words} · {text.mrkdwn(answers.best_words(run), 300)} · {answers.counts_words(run)}"


def _ideas(ideas: Sequence[views.IdeaLine]) -> list[Block]:
    """Open ideas, then the newest that were answered."""
    if not ideas:
        return []
    waiting = [one for one in ideas if one.state == "open"]
    over = [one for one in reversed(ideas) if one.state != "open"]
    shown = [*waiting, *over][:IDEAS_SHOWN]
    blocks = [divider(), section(f"*Ideas*: {len(waiting)} open, {len(over)} answered")]
    blocks += [section(f"*{one.position}* {text.mrkdwn(one.text, 300)}\n{answers.idea_words(one)}") for one in shown]
    if len(ideas) > len(shown):
        blocks.append(context(f"{len(ideas) - len(shown)} more: `{COMMAND} ideas`"))
    return blocks
