"""What a person is answered, most of it for their eyes only. Pure.

Guaranteed of every message here: it is within Slack's limits whatever the texts, says where the rest is when something
is left out, and mentions nobody but the person who asked and, in a refusal, those who may.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from bot import text
from bot.access import Person
from bot.intents import COMMAND, VERBS, Mistake, Role, Verb, verbs_of
from bot.message import Block, Message
from bot.views import buttons
from bot.views.parts import SECTION_MAX, actions, context, fitted, pairs, said, section
from eventstore import events as e
from eventstore import views
from eventstore.envelope import parse_at
from eventstore.plain import duration, shortened
from eventstore.projections import results as tsv
from eventstore.projections.run_state import State
from eventstore.requests import Accepted
from eventstore.settings import Slack

ROWS_SHOWN = 15
IDEAS_SHOWN = 25
LINE_MAX = 300
"""Characters of a description or a reason."""
FILE_MAX_BYTES = 5_000_000

MARKS = {"keep": "✅ keep", "discard": "▫️ discard", "crash": "❌ crash"}


@dataclass(frozen=True, slots=True)
class File:
    """A text file that goes with an answer, in UTF-8."""

    name: str
    title: str
    data: bytes


# ---------------------------------------------------------------- words


_CLI = re.compile(r"`nightshift ([^`]*)`")
_HERE = (
    (re.compile(r"(status|start|pause|resume|stop)(( (?!--now|--watch)\S+)*)"), r"\1\2"),
    (re.compile(r"stop( \S+)? --now"), r"stop now\1"),
    (re.compile(r"idea list"), "ideas"),
    (re.compile(r"experiment show(( \S+)*)"), r"experiment\1"),
    (re.compile(r"experiment list"), "results"),
    (re.compile(r"experiment (diff|log|approve|reject|veto|again)(( \S+)*)"), r"\1\2"),
)


def here(sentence: str) -> str:
    """A sentence of the command line with the commands as they are typed in Slack, where Slack has them."""
    return _CLI.sub(_typed_here, sentence)


def _typed_here(match: re.Match[str]) -> str:
    for pattern, typed in _HERE:
        if found := pattern.fullmatch(match[1]):
            return f"`{COMMAND} {found.expand(typed)}`"
    return match[0]


def number(value: float | None) -> str:
    """A score as results.tsv writes it, or a dash."""
    return "-" if value is None else f"{value:.6f}"


def when(at: str) -> str:
    """A time of the log on the reader's clocks, in mrkdwn; nothing for none."""
    return text.date(parse_at(at)) if at else ""


def fitting(short: str, blocks: Sequence[Block], left_out: str = "") -> Message:
    """A message of as many of the blocks as fit, and where the rest is; *short* is untrusted text in a line."""
    note = left_out or f"`{COMMAND} help` shows how to see it"
    shown = fitted(blocks, lambda count: context(f"{count} more {'parts' if count > 1 else 'part'} left out: {note}."))
    return Message(text=text.mrkdwn(short, LINE_MAX) or "-", blocks=tuple(shown))


def mark(verdict: str | None) -> str:
    """A verdict with its sign; a dash for none."""
    return MARKS.get(verdict or "", verdict or "-")


# ---------------------------------------------------------------- yes, no, not yet


def sentence(words: str) -> Message:
    """One sentence, untrusted parts in it or not; backticks make code."""
    words = here(words)
    return fitting(words, [said(words)])


def refused(why: str) -> Message:
    """A request that cannot be served, with the reason of `eventstore.requests`."""
    words = here(why).strip()
    words = words[:1].upper() + words[1:]
    return sentence(words if words.endswith((".", "?", "!")) else f"{words}.")


def denied(why: str) -> Message:
    """What a person may not, with the sentence of `bot.access.refusal`, which is mrkdwn and safe."""
    return Message(text=why, blocks=(section(why),))


def mistake(found: Mistake) -> Message:
    """Words that were no command, with the usage of the one that was meant."""
    blocks = [said(found.why)]
    if found.near is not None:
        blocks.append(said(f"`{found.near.usage}` - {found.near.help}. For example `{found.near.full_example}`."))
    return fitting(found.why, blocks)


def failed(error_id: str) -> Message:
    """Something broke on our side."""
    return sentence(
        f"Something went wrong here, and it is not known whether this was done: `{COMMAND} status` shows. "
        f"Please quote {text.line(error_id, 100)} to whoever runs Nightshift; the bot's log says more under it."
    )


def not_recorded_yet() -> Message:
    """The log did not take the request in time; how it ended is told later."""
    return sentence(
        "Not recorded yet: the log is slow just now. You are told here how it ends; please do not repeat it."
    )


def recorded(actor: str, words: str, *, waits: bool = False) -> Message:
    """
    Tell the channel what someone asked for.

    Args:
        actor: As in the event.
        words: The sentence of `outcome`.
        waits: It takes a loop, and none is running.
    """
    blocks = [section(f"{text.person(actor)}: {text.mrkdwn(here(words), SECTION_MAX - 300)}")]
    if waits:
        blocks.append(context("No loop is running: it is read when one starts."))
    return fitting(words, blocks)


def outcome(state: State, asked: Accepted, position: int, zone: str) -> str:
    """
    What was asked for, in one sentence or two, not escaped.

    Args:
        state: The workspace as it was judged, before the request.
        position: Where the request stands in the log.
        zone: Whose clocks are meant, for a person's own answer and for the channel's.
    """
    match asked.data:
        case e.RunRequested() as data:
            return _start_outcome(state, data, zone)
        case e.BudgetChanged() as data:
            return views.budget_change(asked.run, data, zone)
        case e.IdeaSuggested(text=words):
            return f"{views.idea_asked(state, position)} “{text.line(words, LINE_MAX)}”"
        case e.IdeaWithdrawn(idea=idea) as data:
            return f"{views.asked(asked.run, data)} {views.idea_still_asked(state, idea)}".strip()
        case e.DigestRequested():
            return "A digest of what happened since the last one is on its way."
        case e.DigestScheduled(at=at, zone=of):
            return f"The digest of this channel comes at {at} {of}, every day." if at else "No more digests here."
        case e.KeepVetoed(why=why) | e.ProposalRejected(why=why) as data:
            said_why = f" Because: {text.line(why, LINE_MAX)}" if why else ""
            return views.asked(asked.run, data) + said_why
        case data:
            return views.asked(asked.run, data)


def _start_outcome(state: State, data: e.RunRequested, zone: str) -> str:
    limits = data.limits
    found = [
        f"{limits.experiments} experiments" if limits.experiments is not None else "",
        f"until {views.limit_words(limits.until, zone)}" if limits.until is not None else "",
        f"{limits.usd:.2f} usd" if limits.usd is not None else "",
    ]
    named = ", ".join(part for part in found if part)
    from_ref = f" from {text.line(data.from_ref, 100)}" if data.from_ref != "HEAD" else ""
    limited = f" ({named})" if named else ""
    before = [run.tag for run in (state.active,) if run is not None] + state.queue
    turn = f" It waits its turn behind {', '.join(before[:5])}." if before else ""
    return f"Asked for the run {data.tag}{from_ref}{limited}.{turn}"


# ---------------------------------------------------------------- status


def status(view: views.Status, state: State, now: datetime, *, may: bool = True) -> Message:
    """How things stand, with the buttons of the run that is told of if the asker *may* use them."""
    run = view.run
    if run is None:
        return sentence("There is no run yet: `nightshift start TAG` asks for one.")
    rows = status_rows(view, now)
    blocks = [section(f"*{text.mrkdwn(run.tag, 100)}* is {run.status}{because(run.why)}"), *pairs(rows)]
    if run.last:
        blocks.append(text.preformatted(verdict_lines(run.last), SECTION_MAX))
    known = state.runs.get(run.tag)
    if known is not None and may:
        blocks += actions(buttons.of_run(state, known))
    return fitting(
        f"{run.tag} is {run.status}", blocks, f"`nightshift status {as_code(run.tag)}` on the machine tells all"
    )


def verdict_lines(last: Iterable[views.Verdict]) -> str:
    """Verdicts as a table of fixed width, a line each."""
    rows = [f"{v.experiment:>4}  {v.verdict:<9}  {number(v.score):>10}  {shortened(v.description, 100)}" for v in last]
    return "\n".join(rows)


def status_rows(view: views.Status, now: datetime) -> list[tuple[str, str]]:
    """The status as names and values in mrkdwn."""
    run = view.run
    found = [
        ("loop", "" if view.loop is not None else "no loop is running: `nightshift loop` on the machine starts one")
    ]
    if run is not None:
        found += run_rows(run, now)
        found += [
            ("queue", f"{text.mrkdwn(q.tag, 100)}, asked by {text.person(q.asked_by)}")
            for q in view.queue[:5]
            if q.tag != run.tag
        ]
        if len(view.queue) > 5:
            found.append(("queue", f"and {len(view.queue) - 5} more"))
    if view.ideas:
        found.append(("ideas", f"{view.ideas} open: `{COMMAND} ideas`"))
    found += [
        ("trouble", f"⚠️ {trouble.kind}: {text.mrkdwn(trouble.what, LINE_MAX)} (since {when(trouble.since)})")
        for trouble in view.troubles
    ]
    return found


def run_rows(run: views.RunView, now: datetime) -> list[tuple[str, str]]:
    """One run as names and values in mrkdwn."""
    found = [("asked by", f"{text.person(run.asked_by)} at {when(run.asked_at)}")]
    if run.started_at is not None:
        end = parse_at(run.finished_at) if run.finished_at is not None else now
        found += [
            ("since", f"{when(run.started_at)}, {duration((end - parse_at(run.started_at)).total_seconds())}"),
            ("best", text.mrkdwn(best_words(run), LINE_MAX)),
            ("so far", counts_words(run)),
        ]
    found.append(("left", " · ".join(_left(spent) for spent in run.limits)))
    if run.money is not None:
        found.append(("money", _money(run.money)))
    if run.proposer is not None:
        found.append(("proposer", text.mrkdwn(_proposing(run.proposer), LINE_MAX)))
    if run.idle is not None:
        found.append(("idle", f"{run.idle.share:.1%} of the time between trainings"))
    unapproved = {one.experiment for one in run.waiting}
    at_work = [one for one in run.at_work if one.experiment not in unapproved]
    found += [("at work", text.mrkdwn(_at_work(one), LINE_MAX)) for one in at_work[:8]]
    found += [
        ("approval", f"⏸️ experiment {one.experiment} waits: {text.mrkdwn(one.description, LINE_MAX)}")
        for one in run.waiting[:8]
    ]
    found += [("asked", text.mrkdwn(words, LINE_MAX)) for words in run.asked[:8]]
    return found


def best_words(run: views.RunView) -> str:
    """The best of a run and its gain in one line, not escaped."""
    best = run.best
    if best is None:
        return "no score yet"
    if best.gain is None:
        return f"{run.metric} {number(best.score)}, the baseline"
    share = f", {best.gain / abs(best.baseline):.2%} better" if best.baseline else ""
    return (
        f"{run.metric} {number(best.score)}, experiment {best.experiment} "
        f"(gain {number(best.gain)} over the baseline {number(best.baseline)}{share})"
    )


def counts_words(run: views.RunView) -> str:
    """The verdicts of a run in one line."""
    total = f"{run.verdicts} experiment{'s' * (run.verdicts != 1)}"
    return f"{total}: {run.kept} kept, {run.discarded} discarded, {run.crashed} crashed"


def _left(spent: views.Spent) -> str:
    if isinstance(spent.limit, str):
        return f"{duration(spent.left)} until {when(spent.limit)}"
    if spent.name == "usd":
        return f"{spent.left:.2f} of {spent.limit:.2f} usd"
    return f"{spent.left:g} of {spent.limit} experiments"


def _money(money: views.Money) -> str:
    limit = f" of {money.limit:.2f}" if money.limit is not None else ""
    words = f"{money.spent:.2f}{limit} usd spent"
    if money.unknown:
        words += ", and more at unknown prices"
    if money.open:
        words += f"; open asks may still cost {money.open:.2f}"
    return words + ("; the next ask does not fit into what is left" if money.is_out else "")


def _proposing(proposer: views.Proposing) -> str:
    words = proposer.kind
    if proposer.failure is not None:
        often = f"{proposer.failures} times in a row" if proposer.failures > 1 else "once"
        words += f": {proposer.failure_words}, {often}"
    if proposer.stand_in is not None:
        words += f"; the {proposer.stand_in} stands in"
        words += f", but has nothing more ({proposer.stand_in_exhausted})" if proposer.stand_in_exhausted else ""
    return words + ("; nothing stands in, so the run waits for it" if proposer.is_waiting else "")


def _at_work(one: views.AtWork) -> str:
    seconds = f" for {duration(one.seconds)}" if one.seconds is not None else ""
    return f"experiment {one.experiment} {one.stage}{seconds}" + (f": {one.description}" if one.description else "")


def because(why: str) -> str:
    """A reason in brackets, in mrkdwn; nothing for none."""
    return f" ({text.mrkdwn(why, LINE_MAX)})" if why else ""


# ---------------------------------------------------------------- results


def results(tag: str, metric: str, rows: Sequence[tsv.Row], content: str) -> tuple[Message, File | None]:
    """
    The last rows, and results.tsv whole as a file; no file while there is no row.

    Args:
        content: The text of results.tsv.
    """
    if not rows:
        return sentence(f"The run {tag} has no verdict yet."), None
    data = content.encode("utf-8", "replace")
    name = f"results-{tag}.tsv"
    shown = rows[-ROWS_SHOWN:]
    lines = [f"   #  {'verdict':<8}  {text.line(metric, 12):>12}  {'gain':>10}  description"]
    lines += [_row(row) for row in shown]
    first = f"the last {len(shown)} of {len(rows)}" if len(rows) > len(shown) else f"all {len(rows)}"
    follows = (
        f"The file {text.mrkdwn(name, 100)} follows."
        if len(data) <= FILE_MAX_BYTES
        else f"results.tsv is too large for here: `nightshift results {as_code(tag)}` on the machine prints it."
    )
    blocks = [
        section(f"*{text.mrkdwn(tag, 100)}*: {first} results"),
        text.preformatted("\n".join(lines), 9_000),
        context(follows),
    ]
    file = File(name, f"results.tsv of {tag}", data) if len(data) <= FILE_MAX_BYTES else None
    return fitting(f"{tag}: {first} results", blocks), file


def _row(row: tsv.Row) -> str:
    gain = "-" if row.gain is None else f"{row.gain:+.6f}"
    return (
        f"{row.experiment:>4}  {row.status:<8}  {number(row.score):>12}  {gain:>10}  {shortened(row.description, 100)}"
    )


# ---------------------------------------------------------------- ideas, digest


def ideas(found: Sequence[views.IdeaLine]) -> Message:
    """The ideas, open ones first, the newest of each kind first."""
    if not found:
        return sentence(f"There is no idea yet: `{COMMAND} idea TEXT` puts one into the queue.")
    waiting = [one for one in found if one.state == "open"]
    over = [one for one in found if one.state != "open"]
    shown = (waiting[::-1] + over[::-1])[:IDEAS_SHOWN]
    blocks = [section(f"*Ideas*: {len(waiting)} open, {len(over)} answered"), *map(_idea, shown)]
    if len(found) > len(shown):
        blocks.append(context(f"{len(found) - len(shown)} more: `nightshift idea list --all` on the machine."))
    return fitting(f"Ideas: {len(waiting)} open", blocks, "`nightshift idea list --all` on the machine lists all")


def _idea(one: views.IdeaLine) -> Block:
    return section(f"*{one.position}* {text.mrkdwn(one.text, LINE_MAX)}\n{idea_words(one)}")


def credited(by: str) -> str:
    """Whose idea it is: an actor, or a name that someone typed."""
    return text.person(by) if by.startswith(("slack:", "cli:")) else text.mrkdwn(by, 80)


def idea_words(one: views.IdeaLine) -> str:
    """Whose idea it is and what became of it, in mrkdwn."""
    by = f"by {credited(one.by)} at {when(one.at)}"
    if one.state == "used":
        return f"{by} · used in {one.experiment} of {text.mrkdwn(one.run or '', 100)}: {mark(one.verdict)}"
    if one.state == "declined":
        return f"{by} · declined in {one.experiment}: {text.mrkdwn(one.why or 'it did not say why', LINE_MAX)}"
    return f"{by} · {one.state}"


def digest_hour(at: str | None, zone: str, next_at: datetime | None, last_link: str = "") -> Message:
    """
    When the channel gets its digest.

    Args:
        at: HH:MM; None if it is off.
        next_at: The next one, if that is known.
        last_link: The address of the last one; empty if it is not known.
    """
    if at is None:
        words = f"This channel gets no digest: `{COMMAND} digest at 08:00` sets an hour."
    else:
        next_one = f", next {text.date(next_at)}" if next_at is not None else ""
        words = f"This channel gets its digest at {at} {text.mrkdwn(zone, 60)}{next_one}."
    shown = text.link(last_link, "here")
    last = f" The last one is {shown}." if shown else ""
    return Message(text=words + last, blocks=(section(words + last),))


# ---------------------------------------------------------------- whoami, help


MAY: Mapping[Role | None, str] = {
    None: "nothing",
    "look": "look",
    "operate": "look, and start, steer and stop runs",
    "admin": "everything: also edit program.md and set the digest's hour",
}


def whoami(person: Person, role: Role | None, slack: Slack, channel: str | None, zone: str) -> Message:
    """Who the asker is to the bot, with the ids that nightshift.toml takes."""
    groups = sorted(person.groups & {*slack.admins, *slack.operators})
    rows = [
        ("you", f"<@{person.user}>, `{person.user}`"),
        ("workspace", f"`{person.team}`"),
        ("groups", ", ".join(f"`{group}`" for group in groups)),
        ("channel", f"`{channel}`" if channel else ""),
        ("role", f"{role or 'none'}: you may {MAY[role]}"),
        ("your zone", f"{text.mrkdwn(zone, 60)}, in which a time such as 08:00 is read"),
    ]
    return fitting(f"You are {person.user}; you may {MAY[role]}.", pairs(rows))


def help_all(role: Role | None) -> Message:
    """Every command, in groups by who may, with what the asker may not marked so."""
    blocks: list[Block] = [section(f"What can be typed behind `{COMMAND}`. You may {MAY[role]}.")]
    for needed, title in (("look", "Everyone may"), ("operate", "Operators may"), ("admin", "Admins may")):
        lines = [f"`{as_code(verb.usage)}`  {text.escape(verb.help)}" for verb in VERBS if verb.role == needed]
        blocks += _paragraphs([f"*{title}*", *lines])
    blocks.append(context("N is an experiment's number; without `--tag` the active run is meant, else the newest."))
    return fitting("What Nightshift understands", blocks)


def help_verb(word: str) -> Message:
    """One command: its usage, what it does, who may, an example."""
    return fitting(f"{COMMAND} {word}", [block for verb in verbs_of(word) for block in _verb(verb)])


def _verb(verb: Verb) -> Iterable[Block]:
    who = {"look": "everyone of the workspace", "operate": "operators and admins", "admin": "admins"}[verb.role]
    yield section(
        f"`{as_code(verb.usage)}`\n{text.escape(verb.help[:1].upper() + verb.help[1:])}. For {who}.\n"
        f"Example: `{as_code(verb.full_example)}`"
    )


def as_code(words: str) -> str:
    """Words that stand between backticks in mrkdwn."""
    return text.escape(text.line(words, 150).replace("`", "'"))


def _paragraphs(lines: Sequence[str]) -> list[Block]:
    """Lines of mrkdwn in as few sections as they fit."""
    found: list[str] = []
    for line in lines:
        if found and len(found[-1]) + len(line) + 1 <= SECTION_MAX:
            found[-1] += f"\n{line}"
        else:
            found.append(line)
    return [section(part) for part in found]
