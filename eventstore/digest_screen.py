"""A digest drawn for a terminal with rich. Nothing here reads or decides anything.

Texts from logs, models and people go in as `Text`, which has no markup, and through `plain_line`.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.text import Text

from eventstore import digest_words as words
from eventstore.plain import plain_line
from eventstore.projections.digest import Digest, Failures, RunDigest
from eventstore.screens import pairs, table
from eventstore.views import local

COMMANDS = {
    "approve": "`nightshift experiment approve {n} --tag {run}`, or `reject {n} WHY --tag {run}`",
    "resume": "`nightshift resume {run}`",
    "refused": "`nightshift start {run}` asks for it again",
    "veto": "`nightshift experiment veto {n} --tag {run}`",
}


def digest(view: Digest, zone: str) -> RenderableType:
    """The whole digest; times are shown in *zone*."""
    since = f" since {local(view.window.from_at, zone)}" if view.window.from_at else ""
    parts: list[RenderableType] = [Text(f"Digest{since}, up to {local(view.window.to_at, zone)} {zone}", "bold")]
    if sentence := words.quiet(view):
        parts.append(Text(plain_line(sentence)))
    for run in view.runs:
        parts += [Text(), *_run(run, zone)]
    if view.runs_left_out:
        parts.append(Text(f"{words.plural(view.runs_left_out, 'older run')} not shown: name one to see it."))
    parts += [Text(), pairs(_workspace(view, zone))] if _workspace(view, zone) else []
    parts += _decisions(view)
    return Group(*parts)


def _run(run: RunDigest, zone: str) -> list[RenderableType]:
    began = f"{'started' if run.began else 'running since'} {local(run.started_at, zone)}" if run.started_at else ""
    found: list[tuple[str, str | Text]] = [
        ("run", Text(plain_line(f"{run.tag}, {words.state(run)}"), "bold")),
        ("asked by", words.listed((run.asked_by, began))),
        ("best", words.progress(run)),
        ("experiments", words.counts(run)),
        ("keeps", words.standings(run.standings) if run.counts.kept else ""),
        ("tampered", _tampered(run)),
        ("crashes", _lines(f"{words.crashes(one)} ({one.description}): {one.error}" for one in run.crashes)),
        ("refused", words.refusals(run)),
        ("abandoned", words.abandonments(run)),
        ("asks failed", words.failed_asks(run)),
        ("proposer", _lines(f"{local(one.at, zone)}: {words.switch(one)}" for one in run.switches)),
        ("idle", words.idle(run)),
        ("cost", words.cost(run)),
    ]
    parts: list[RenderableType] = [pairs(found)]
    if run.keeps:
        has_report = any(k.report_score is not None for k in run.keeps)
        rows = [
            (str(k.experiment), words.number(k.score), *[words.number(k.report_score)] * has_report, words.gain(k),
             f"{k.lines:+d}", k.commit, k.description,
             words.listed((k.hypothesis, f"idea of {k.idea_by}" if k.idea_by else "")) or "-")
            for k in run.keeps
        ]  # fmt: skip
        columns = ("#", "score", *["report"] * has_report, "kept for", "lines", "commit", "description", "why")
        parts += [Text(), table(columns, rows)]
    if run.keeps_left_out:
        parts.append(Text(f"{run.keeps_left_out} more keeps: `nightshift experiment list {run.tag}`"))
    for failures in run.failures:
        parts += _failures(failures)
    return parts


def _failures(found: Failures) -> list[RenderableType]:
    rows = [(str(f.experiment), words.number(f.score), f.description, f.reason, f.hypothesis or "-")
            for f in found.shown]  # fmt: skip
    title = f"{words.FAILURE_TITLES[found.kind]} ({len(rows)} of {found.count}):"
    return [Text(), Text(title), table(("#", "score", "description", "reason", "why"), rows)]


def _tampered(run: RunDigest) -> Text | str:
    if not run.tampered_count:
        return ""
    return Text("\n").join(
        [Text(words.tampered(run), "red"), *(Text(plain_line(words.tampering(one))) for one in run.tampered)]
    )


def _workspace(view: Digest, zone: str) -> list[tuple[str, str | Text]]:
    ideas = [*view.ideas.used, *view.ideas.declined, *view.ideas.waiting]
    rows: list[tuple[str, str | Text]] = [
        ("loop", words.loop(view.loop)),
        ("queue", words.listed(f"{run.tag} (asked by {run.asked_by})" for run in view.queue)),
        ("ideas", _lines(f"{one.position} of {one.by}: {one.text} ({words.idea(one)})" for one in ideas)),
        ("program", _lines(f"{words.version(one)} (by {one.by})" for one in view.programs)),
        ("vetoes", _lines(f"{one.by} {words.veto(one)}" for one in view.vetoes)),
        ("trouble", _lines(
            f"{one.kind}: {one.what}, since {local(one.since, zone)}"
            + (f", over at {local(one.cleared_at, zone)}" if one.cleared_at else ", still")
            for one in view.troubles
        )),
    ]  # fmt: skip
    return [row for row in rows if row[1]]


def _decisions(view: Digest) -> list[RenderableType]:
    if not view.decisions:
        return []
    found = []
    for one in view.decisions:
        command = COMMANDS[one.kind].format(n=one.experiment, run=one.run)
        what = f": {one.description}" if one.description else ""
        found.append(Text(plain_line(f"{words.decision(one)}{what}")).append(f"  {command}", "dim"))
    more = [Text(f"{view.decisions_left_out} more keeps are not confirmed.")] if view.decisions_left_out else []
    return [Text(), Text("For you to decide:", "bold"), *found, *more]


def _lines(parts: Iterable[str]) -> Text | str:
    found = [plain_line(part) for part in parts]
    return Text("\n".join(found)) if found else ""
