"""The digest as messages: the head in the channel, the rest as replies in its thread. Pure.

Guaranteed: each message is within Slack's limits whatever the log holds; what matters most comes first; what does not
fit is counted, with the place where it can be read. What was tampered with is always in the head. A gain is told with
its standing and never called an improvement.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from bot import blocks as rules
from bot import text
from bot.message import PICTURE, Block, Message, Picture
from bot.text import Element
from bot.values import Action, Button
from bot.views import parts
from bot.views.buttons import button
from eventstore import digest_words as words
from eventstore.envelope import parse_at
from eventstore.plain import duration, shortened
from eventstore.projections.digest import (
    Decision,
    Digest,
    IdeaTold,
    Kept,
    RunDigest,
    TroubleTold,
    VersionUsed,
)
from eventstore.requests import tag_problem

BLOCKS_MAX = 47
"""Blocks of one message: under Slack's 50, with room for a chart and a note."""
TEXT_MAX = 11_000
"""Characters of all blocks of one message, with room for a chart and a note."""
RUNS_IN_HEAD = 4
DECISIONS_IN_HEAD = 6
TAMPERED_IN_HEAD = 3
KEEPS_IN_HEAD = 8
KEEPS_IN_REPLY = 40
ALT_TEXT_MAX = 950
"""Characters of a picture's alt text: a file may have 1,000, a block 2,000."""
LATE_S = 120.0
"""A digest that is made later than this says so."""

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class DigestMessages:
    """The head goes to the channel, the replies into its thread in this order."""

    head: Message
    replies: tuple[Message, ...]


def featured(digest: Digest) -> RunDigest | None:
    """The run whose picture the digest shows: the one with the most verdicts in the window that has a score."""
    scored = [run for run in digest.runs if run.best_after is not None]
    return max(scored, key=lambda run: (run.counts.verdicts, run.started_at or "", run.tag), default=None)


def picture(run: RunDigest, png: bytes) -> Picture:
    """The staircase of a run with its alt text."""
    return Picture(png, f"{_NOT_IN_NAMES.sub('-', run.tag)[:60]}.png", alt_text(run))


def alt_text(run: RunDigest) -> str:
    """What the staircase shows, in words."""
    names = "; ".join(f"{keep.experiment} {keep.description} ({words.gain(keep)})" for keep in run.keeps[:8])
    more = len(run.keeps) + run.keeps_left_out - len(run.keeps[:8])
    kept = f" Kept: {names}{f'; and {more} more' if more else ''}." if names else ""
    said = f"Staircase of the best {run.metric} of {run.tag}: {words.progress(run)}. {words.counts(run)}.{kept}"
    return text.line(said, ALT_TEXT_MAX)


def digest_messages(
    digest: Digest, *, picture: Picture | None = None, due_at: datetime | None = None, late_s: float = 0.0
) -> DigestMessages:
    """
    Write the digest.

    Args:
        picture: Of the `featured` run; without one the digest goes without, it never waits for it.
        due_at: When it was due, where it was due at an hour; *late_s* is how many seconds ago that was.
    """
    top = [*_top(digest, due_at, late_s), *_runs(digest)]
    if picture is not None:
        top.append({"type": "image", "slack_file": dict(PICTURE), "alt_text": picture.alt_text[: rules.ALT_TEXT]})
    top += [*_tampered(digest), *_decisions(digest)]
    facts = _facts(digest)
    keeps = [(run, keep) for run in _by_weight(digest) for keep in run.keeps]
    room = TEXT_MAX - rules.text_size([*top, *facts])
    shown = _that_fit(_keep_blocks(digest, keeps[:KEEPS_IN_HEAD]), BLOCKS_MAX - len(top) - len(facts) - 1, room)
    rest = keeps[len(shown) :]
    replies = [
        reply
        for reply in (_keeps_reply(digest, rest), _failures_reply(digest), _workspace_reply(digest))
        if reply is not None
    ]
    note = _note(digest, shown=len(shown), rest=len(rest), replies=len(replies))
    head = Message(
        text=text.mrkdwn(f"Nightshift digest: {words.headline(digest)}", 1_500),
        blocks=tuple(_fitted([*top, *_titled("Kept, the largest measured gain first", shown), *facts, *note])),
        picture=picture,
        extra=tuple(_chart(featured(digest))),
    )
    return DigestMessages(head, tuple(replies))


# ---------------------------------------------------------------- the head


def _top(digest: Digest, due_at: datetime | None, late_s: float) -> list[Block]:
    tags = [run.tag for run in digest.runs]
    named = f": {words.listed(tags[:3])}{f' and {len(tags) - 3} more' if len(tags) > 3 else ''}" if tags else ""
    since = f"from {text.date(parse_at(digest.window.from_at))} " if digest.window.from_at else ""
    when = f"{since}to {text.date(parse_at(digest.window.to_at))}"
    if due_at is not None and late_s > LATE_S:
        when += f" · was due at {text.date(due_at)}, made {duration(late_s)} late"
    found = [parts.header(f"Nightshift digest{named}"), parts.context(when)]
    quiet = words.quiet(digest)
    return [*found, parts.said(quiet, 600)] if quiet else found


def _runs(digest: Digest) -> list[Block]:
    told = _by_weight(digest)
    found = [_run(run) for run in told[:RUNS_IN_HEAD]]
    more = len(told) - len(found) + digest.runs_left_out
    return (
        [*found, parts.context(f"{words.plural(more, 'other run')}: `nightshift digest --last`")] if more > 0 else found
    )


def _by_weight(digest: Digest) -> list[RunDigest]:
    """The runs with the most verdicts first; of those alike, the newest."""
    return sorted(digest.runs, key=lambda run: (-run.counts.verdicts, -digest.runs.index(run)))


def _run(run: RunDigest) -> Block:
    asked = f" · asked for by {text.person(run.asked_by)}"
    lines = [
        f"*{text.mrkdwn(run.tag, 80)}* is {text.mrkdwn(words.state(run), 350)}{asked}",
        f"*{text.mrkdwn(words.progress(run), 400)}*",
        text.mrkdwn(words.counts(run), 300),
    ]
    if run.counts.kept:
        lines.append(f"*{words.standings(run.standings)}*")
    return parts.section("\n".join(lines))


def _tampered(digest: Digest) -> list[Block]:
    found: list[Block] = []
    for run in digest.runs:
        if run.tampered_count:
            lines = [f":warning: *Tampered, {text.mrkdwn(run.tag, 80)}:* {words.tampered(run)}"]
            lines += [f"• {text.mrkdwn(words.tampering(one), 300)}" for one in run.tampered[:TAMPERED_IN_HEAD]]
            more = run.tampered_count - len(run.tampered[:TAMPERED_IN_HEAD])
            named = f" {run.tag}" if tag_problem(run.tag) is None else ""  # such a tag has nothing to escape
            lines += [f"and {more} more: `nightshift digest --last{named}`"] if more else []
            found.append(parts.section("\n".join(lines)))
    if len(found) > RUNS_IN_HEAD:
        more = len(found) - RUNS_IN_HEAD
        found = [*found[:RUNS_IN_HEAD], parts.context(f":warning: and in {words.plural(more, 'other run')}")]
    return found


def _decisions(digest: Digest) -> list[Block]:
    asked = [decision for decision in digest.decisions if decision.kind != "veto"]
    doubtful = len(digest.decisions) - len(asked) + digest.decisions_left_out
    found = [block for decision in asked[:DECISIONS_IN_HEAD] for block in _decision(digest, decision)]
    more = len(asked) - len(asked[:DECISIONS_IN_HEAD])
    lines = [f"{more} more wait: `/nightshift status`"] if more else []
    if doubtful:
        are = "keep is" if doubtful == 1 else "keeps are"
        lines.append(f"{doubtful} {are} not confirmed: Veto takes one off the branch, with every keep built on it")
    if lines:
        found.append(parts.context(" · ".join(lines)))
    return [parts.section("*For you to decide*"), *found] if found else []


def _decision(digest: Digest, decision: Decision) -> list[Block]:
    lines = [text.mrkdwn(words.decision(decision), 400)]
    if decision.description:
        lines.append(f"*{text.mrkdwn(decision.description, 250)}*")
    if decision.hypothesis:
        lines.append(text.mrkdwn(decision.hypothesis, 200))
    wanted: dict[str, tuple[Action, ...]] = {"approve": ("approve", "reject"), "resume": ("resume", "stop")}
    buttons = _buttons(digest, decision.run, decision.experiment, wanted.get(decision.kind, ()))
    return [parts.section("\n".join(lines)), *parts.actions(buttons)]


def _buttons(digest: Digest, tag: str, experiment: int | None, wanted: Iterable[Action]) -> list[Element]:
    if tag_problem(tag) is not None:  # a tag that no request would take
        return []
    return [button(action, Button(tag, experiment, digest.position)) for action in wanted]


def _keep_blocks(digest: Digest, keeps: Iterable[tuple[RunDigest, Kept]]) -> list[Block]:
    several = len(digest.runs) > 1
    return [_keep(digest, run, keep, several) for run, keep in keeps]


def _keep(digest: Digest, run: RunDigest, keep: Kept, several: bool) -> Block:
    where = f"{text.mrkdwn(run.tag, 80)} " if several else ""
    lines = [
        f"*{where}{keep.experiment}  {text.mrkdwn(keep.description, 250)}*",
        text.mrkdwn(words.gain(keep), 350),
        text.mrkdwn(words.keep_facts(keep), 300),
    ]
    if keep.idea_by:
        lines.append(f"_Idea of_ {text.person(keep.idea_by)}")
    if keep.hypothesis:
        lines.append(f"_Why:_ {text.mrkdwn(keep.hypothesis, 300)}")
    if keep.expected_effect:
        lines.append(f"_Expected:_ {text.mrkdwn(keep.expected_effect, 200)}")
    block = parts.section("\n".join(lines))
    vetoable = any(
        (decision.kind, decision.run, decision.experiment) == ("veto", run.tag, keep.experiment)
        for decision in digest.decisions
    )
    for veto in _buttons(digest, run.tag, keep.experiment, ("veto",) if vetoable else ()):
        block["accessory"] = veto
    return block


def _titled(title: str, found: list[Block]) -> list[Block]:
    return [parts.section(f"*{title}*"), *found] if found else []


def _facts(digest: Digest) -> list[Block]:
    """Money and devices of each run, in one small line each."""
    told = [(run, words.listed((words.cost(run), words.idle(run)))) for run in _by_weight(digest)]
    return [
        parts.context(f"{text.mrkdwn(run.tag, 80)}: {text.mrkdwn(said, 400)}")
        for run, said in told[:RUNS_IN_HEAD]
        if said
    ]


def _note(digest: Digest, *, shown: int, rest: int, replies: int) -> list[Block]:
    lines = []
    left_out = rest + sum(run.keeps_left_out for run in digest.runs)
    if left_out:
        lines.append(f"{left_out} more {'keep' if left_out == 1 else 'keeps'}{' beside these' if shown else ''}")
    if replies:
        lines.append("more in the thread")
    lines.append("all of it: `nightshift digest --last`")
    return [parts.context(" · ".join(lines))]


# ---------------------------------------------------------------- the replies


def _keeps_reply(digest: Digest, rest: list[tuple[RunDigest, Kept]]) -> Message | None:
    if not rest:
        return None
    room = TEXT_MAX - 200
    shown = _that_fit(_keep_blocks(digest, rest[:KEEPS_IN_REPLY]), BLOCKS_MAX - 2, room)
    left_out = len(rest) - len(shown) + sum(run.keeps_left_out for run in digest.runs)
    more = (
        [parts.context(f"{left_out} more: `nightshift digest --last`, `nightshift experiment list`")]
        if left_out
        else []
    )
    found = [parts.section(f"*{words.plural(len(shown), 'more keep')}*"), *shown, *more]
    return Message(f"Digest: {words.plural(len(shown), 'more keep')}", tuple(_fitted(found)))


def _failures_reply(digest: Digest) -> Message | None:
    found: list[Block] = []
    for run in _by_weight(digest):
        found += _failures(run, len(digest.runs) > 1)
    return Message("Digest: what failed, and what it teaches", tuple(_fitted(found))) if found else None


def _failures(run: RunDigest, several: bool) -> list[Block]:
    where = f"{text.mrkdwn(run.tag, 80)}: " if several else ""
    found: list[Block] = []
    for failures in run.failures:
        lines = [f"*{where}{words.FAILURE_TITLES[failures.kind]}* ({len(failures.shown)} of {failures.count})"]
        for one in failures.shown:
            why = f"\n    _{text.mrkdwn(one.hypothesis, 150)}_" if one.hypothesis else ""
            lines.append(f"• {text.mrkdwn(words.failure(one), 350)}{why}")
        found.append(parts.section("\n".join(lines)))
    if run.crashes:
        lines = [f"*{where}Crashes*"]
        for crash in run.crashes[:5]:
            example = text.mrkdwn(f"{crash.description}: {crash.error}", 350)
            lines.append(f"• {text.mrkdwn(words.crashes(crash), 100)} ({example})")
        found.append(parts.section("\n".join(lines)))
    said = (
        ("Refused before any of their code ran", words.refusals(run)),
        ("Abandoned", words.abandonments(run)),
        ("Asks that failed", words.failed_asks(run)),
    )
    lines = [f"*{where}{title}:* {text.mrkdwn(line, 800)}" for title, line in said if line]
    return [*found, parts.section("\n".join(lines))] if lines else found


def _workspace_reply(digest: Digest) -> Message | None:
    ideas = digest.ideas
    found = [
        *_list("Ideas used", [_idea(one) for one in ideas.used], ideas.used_count),
        *_list("Ideas declined", [_idea(one) for one in ideas.declined], ideas.declined_count),
        *_list("Ideas that wait", [_idea(one) for one in ideas.waiting], ideas.waiting_count),
        *_list("program.md", [_version(one) for one in digest.programs],
               len(digest.programs) + digest.programs_left_out),
        *_list("Vetoes", [f"{text.person(one.by)} {text.mrkdwn(words.veto(one), 350)}" for one in digest.vetoes],
               len(digest.vetoes) + digest.vetoes_left_out),
        *_list("Trouble", [_trouble(one) for one in digest.troubles],
               len(digest.troubles) + digest.troubles_left_out),
        *_switches(digest),
        *_list("In the queue", [f"{text.mrkdwn(one.tag, 80)}, asked for by {text.person(one.asked_by)}"
                                for one in digest.queue], len(digest.queue) + digest.queue_left_out),
        *([parts.context(text.mrkdwn(f"Loop: {said}", 400))] if (said := words.loop(digest.loop)) else []),
    ]  # fmt: skip
    return Message("Digest: ideas, program.md, vetoes, troubles", tuple(_fitted(found))) if found else None


def _switches(digest: Digest) -> list[Block]:
    told = [
        f"{text.date(parse_at(one.at))} {text.mrkdwn(f'{run.tag}: {words.switch(one)}', 300)}"
        for run in digest.runs
        for one in run.switches
    ]
    return _list("Proposer", told, len(told) + sum(run.switches_left_out for run in digest.runs))


def _idea(one: IdeaTold) -> str:
    said = text.mrkdwn(f"{one.text} ({words.idea(one)})", 350)
    return f"{one.position} of {text.person(one.by)}: {said}"


def _version(one: VersionUsed) -> str:
    return f"{text.mrkdwn(words.version(one), 200)}{f', by {text.person(one.by)}' if one.by else ''}"


def _trouble(one: TroubleTold) -> str:
    over = f", over at {text.date(parse_at(one.cleared_at))}" if one.cleared_at else ", still"
    return f"{text.mrkdwn(f'{one.kind}: {one.what}', 350)}, since {text.date(parse_at(one.since))}{over}"


def _list(title: str, lines: list[str], count: int) -> list[Block]:
    """A title and a line each, as many as fit into one section, and how many there were."""
    if not count:
        return []
    size, shown = len(title) + 40, []
    for line in lines:
        size += len(line) + 3
        if size > parts.SECTION_MAX // 2:
            break
        shown.append(f"• {line}")
    of = f" ({len(shown)} of {count}, all: `nightshift digest --last`)" if count > len(shown) else ""
    return [parts.section("\n".join([f"*{title}*{of}", *shown]))]


# ---------------------------------------------------------------- fitting


def _that_fit(found: list[Block], most: int, size: int) -> list[Block]:
    """The first of the blocks, at most *most* with at most *size* characters in all."""
    shown: list[Block] = []
    for block in found[: max(0, most)]:
        size -= rules.text_size([block])
        if size < 0:
            break
        shown.append(block)
    return shown


def _fitted(found: list[Block]) -> list[Block]:
    def left_out(count: int) -> Block:
        return parts.context(f"{words.plural(count, 'more part')} did not fit: `nightshift digest --last` shows all")

    return parts.fitted(found, left_out, most=BLOCKS_MAX + 1, size=TEXT_MAX + 300)


def _chart(run: RunDigest | None) -> list[Block]:
    """The staircase as a chart of Slack's own; none for fewer than two points."""
    steps = [step for step in run.steps if math.isfinite(step.best)] if run is not None else []
    if run is None or len(steps) < 2:
        return []
    labels = [str(step.experiment)[: rules.CHART_LABEL] for step in steps]
    if len(set(labels)) < len(labels):
        return []
    metric = text.line(run.metric, rules.CHART_LABEL) or "score"
    chart = {
        "type": "line",
        "series": [
            {
                "name": metric,
                "data": [{"label": label, "value": step.best} for label, step in zip(labels, steps, strict=True)],
            }
        ],
        "axis_config": {"categories": labels, "x_label": "experiment", "y_label": f"best {metric}"},
    }
    title = shortened(f"Best {metric} of {text.line(run.tag, 60)}", rules.CHART_TITLE)
    return [{"type": "data_visualization", "title": title, "chart": chart}]
