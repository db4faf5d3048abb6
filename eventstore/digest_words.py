"""What a digest says, in words that the terminal and Slack share. Pure.

Guaranteed: a gain is never called an improvement here. It is confirmed, a difference within noise, or measured and
not tested. Texts of models and people are returned as the digest holds them: whoever shows them escapes them.
"""

from __future__ import annotations

from collections.abc import Iterable

from eventstore.plain import duration
from eventstore.projections.digest import (
    Crashes,
    Decision,
    Digest,
    Failure,
    FailureKind,
    IdeaTold,
    Kept,
    LoopTold,
    RunDigest,
    Standings,
    Switch,
    Tampered,
    VersionUsed,
    Veto,
)
from eventstore.views import failure_words, times

STANDING_WORDS = {"confirmed": "confirmed", "within_noise": "within noise", "untested": "untested"}
FAILURE_TITLES: dict[FailureKind, str] = {
    "loss": "Largest losses",
    "near_miss": "Near misses",
    "guard": "Stopped by the guard",
    "conflict": "Did not fit the best any more",
}
ABANDONED_WORDS = {
    "rejected": "rejected by a person",
    "lost_twice": "lost twice in training",
    "exhausted": "nothing left to propose",
    "no_proposal": "no usable proposal",
    "conflict": "no longer fitted the best",
    "run_ended": "cut off by the end of the run",
}


def number(value: float | None) -> str:
    """A score with six digits as in results.tsv, one that is huge in short; a dash for none."""
    if value is None:
        return "-"
    return f"{value:.6f}" if abs(value) < 1e9 else f"{value:.6g}"


def plural(count: int, what: str) -> str:
    """A count with its noun: `1 keep`, `2 keeps`."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def listed(words: Iterable[str]) -> str:
    """Parts that are there, with commas."""
    return ", ".join(word for word in words if word)


# ---------------------------------------------------------------- a run


def standings(found: Standings) -> str:
    """How sure the keeps are: `9 keeps: 3 confirmed, 4 within noise, 2 untested`."""
    total = found.confirmed + found.within_noise + found.untested
    parts = [
        f"{count} {STANDING_WORDS[word]}"
        for word, count in (
            ("confirmed", found.confirmed),
            ("within_noise", found.within_noise),
            ("untested", found.untested),
        )
        if count
    ]
    if not parts:
        return "no keep"
    return (
        f"{plural(total, 'keep')}: {', '.join(parts)}" if len(parts) > 1 else f"{plural(total, 'keep')}, {_only(parts)}"
    )


def _only(parts: list[str]) -> str:
    count, _, word = parts[0].partition(" ")
    return word if count == "1" else f"all {word}"


def progress(run: RunDigest) -> str:
    """From which best to which, and how far that can be trusted."""
    if run.best_after is None:
        return f"{run.metric}: no score yet" if run.metric else "no score yet"
    if not run.gain:
        still = "the baseline" if run.best_experiment == 0 else f"experiment {run.best_experiment}, as before"
        return f"{run.metric} {number(run.best_after)}, {still}"
    way = f"{run.metric} {number(run.best_before)} → {number(run.best_after)} (experiment {run.best_experiment})"
    size = number(abs(run.gain)) + (f", {abs(run.gain_percent):.2f}%" if run.gain_percent is not None else "")
    if run.gain < 0:
        return f"{way}: {size} back, because keeps were taken back"
    found = run.standings
    if found.confirmed and not (found.within_noise or found.untested):
        return f"{way}: a confirmed gain of {size}"
    if found.confirmed:
        return f"{way}: a difference of {size}, of which confirmed keeps gained {number(run.gain_confirmed)}"
    if found.within_noise and not found.untested:
        return f"{way}: a difference of {size}, all of it within noise"
    return f"{way}: a measured gain of {size}, not tested against noise"


def counts(run: RunDigest) -> str:
    """What became of the experiments."""
    found = run.counts
    verdicts = f"{plural(found.verdicts, 'experiment')}: " + listed(
        (f"{found.kept} kept", f"{found.discarded} discarded", f"{found.crashed} crashed")
    )
    besides = listed(
        (
            f"{found.abandoned} abandoned" if found.abandoned else "",
            f"{plural(found.refused, 'proposal')} refused" if found.refused else "",
            f"{found.repaired} repaired" if found.repaired else "",
        )
    )
    return f"{verdicts}; {besides}" if besides else verdicts


def state(run: RunDigest) -> str:
    """How the run stands."""
    return f"{run.status} ({run.why})" if run.why else run.status


def gain(keep: Kept) -> str:
    """A keep's gain with its standing."""
    if keep.gain is None:
        return STANDING_WORDS[keep.standing]
    if keep.gain <= 0:
        return f"{keep.reason}, {STANDING_WORDS[keep.standing]}"
    percent = f" ({keep.gain_percent:.2f}%)" if keep.gain_percent is not None else ""
    size = f"{number(keep.gain)}{percent}"
    return {
        "confirmed": f"confirmed gain {size}",
        "within_noise": f"difference {size}, within noise",
        "untested": f"measured gain {size}, untested",
    }[keep.standing]


def keep_facts(keep: Kept) -> str:
    """What else is known of a keep, in a line: score, lines, commit. Whose idea it was is not in it."""
    report = f"report {number(keep.report_score)}" if keep.report_score is not None else ""
    lines = f"{keep.lines:+d} line{'' if abs(keep.lines) == 1 else 's'}" if keep.lines else "as many lines"
    return listed((f"score {number(keep.score)}", report, lines, f"commit {keep.commit}" if keep.commit else ""))


def failure(found: Failure) -> str:
    """A failure in a line, without its hypothesis."""
    return f"{found.experiment} {found.description}: {found.reason}"


def crashes(found: Crashes) -> str:
    """Crashes of one outcome in a line, without the example's description."""
    return f"{found.outcome} {times(found.count)}, such as experiment {found.experiment}"


def tampered(run: RunDigest) -> str:
    """How often the harness was touched; empty for never."""
    if not run.tampered_count:
        return ""
    return f"{plural(run.tampered_count, 'experiment')} tampered with the harness or the score and did not count"


def tampering(found: Tampered) -> str:
    """One case of it in a line."""
    return f"{found.experiment} {found.description}: {found.why}"


def refusals(run: RunDigest) -> str:
    """Refused answers by class; empty for none."""
    return listed(f"{failure_words(failure)} {times(count)}" for failure, count in run.refusals.items())


def failed_asks(run: RunDigest) -> str:
    """Asks that failed for reasons outside, by class; empty for none."""
    return listed(f"{failure_words(failure)} {times(count)}" for failure, count in run.failed_asks.items())


def abandonments(run: RunDigest) -> str:
    """Abandoned experiments by reason; empty for none."""
    return listed(
        f"{ABANDONED_WORDS.get(reason, reason.replace('_', ' '))} {times(count)}"
        for reason, count in run.abandonments.items()
    )


def idle(run: RunDigest) -> str:
    """How long devices stood idle; empty where it is not known."""
    if run.idle is None:
        return ""
    return (
        f"device idle {run.idle.share:.1%} of the time ({duration(run.idle.idle_s)}, beside "
        f"{duration(run.idle.training_s)} of training)"
    )


def cost(run: RunDigest) -> str:
    """Money and tokens; empty where nothing cost anything."""
    money, tokens = run.money, run.tokens
    read = tokens.input + tokens.cache_write + tokens.cache_read
    parts = []
    if money.known or money.unknown:
        unknown = f", and {plural(money.unknown, 'answer')} at unknown prices" if money.unknown else ""
        parts.append(f"{money.known:.2f} usd{unknown}")
        if money.per_keep is not None:
            least = "at least " if money.unknown else ""
            per = "confirmed keep" if money.per == "confirmed" else "keep (none is confirmed)"
            parts.append(f"{least}{money.per_keep:.2f} usd per {per}")
    if read or tokens.output:
        parts.append(f"{read:,} tokens in ({tokens.cache_read:,} from the cache), {tokens.output:,} out")
    return "; ".join(parts)


def switch(found: Switch) -> str:
    """A change of who proposes, without its time."""
    if not found.to_kind:
        return f"{found.from_kind} could not answer and nothing stood in ({found.why})"
    return f"{found.to_kind} took over from {found.from_kind} ({found.why})"


# ---------------------------------------------------------------- the workspace


def idea(found: IdeaTold) -> str:
    """What became of an idea, without its text."""
    if found.state == "used":
        return f"used in {found.experiment} of {found.run}: {found.verdict or 'no verdict yet'}"
    if found.state == "declined":
        return f"declined in {found.experiment} of {found.run}: {found.why or 'it did not say why'}"
    return "waits" if found.state == "open" else found.state


def version(found: VersionUsed) -> str:
    """A version of program.md, without its time and author."""
    now = ", in force" if found.in_force else ""
    return f"{found.hash[:8]}: {plural(found.experiments, 'experiment')}, {plural(found.keeps, 'keep')}{now}"


def veto(found: Veto) -> str:
    """A veto, without who asked for it."""
    because = f" ({found.why})" if found.why else ""
    served = "" if found.served else "; it is still on the branch, the loop has not served it"
    return f"took keep {found.experiment} of {found.run} back{because}: {found.description}{served}"


def decision(found: Decision) -> str:
    """What there is to decide, in a line, without a description."""
    if found.kind == "approve":
        return f"experiment {found.experiment} of {found.run} waits for approval"
    if found.kind == "resume":
        return f"{found.run} is paused: {found.why}"
    if found.kind == "refused":
        return f"{found.run} could not start: {found.why}"
    standing = STANDING_WORDS[found.standing or "untested"]
    size = f" ({number(found.gain)})" if found.gain is not None else ""
    takes = f"; a veto takes {plural(found.takes, 'later keep')} off as well" if found.takes else ""
    return f"keep {found.experiment} of {found.run} is {standing}{size}{takes}"


def loop(found: LoopTold) -> str:
    """What the log knows of the loop, if there is something to say; empty if all was well."""
    died = f"{plural(found.died, 'loop')} ended without saying so" if found.died else ""
    if not found.serving and found.stopped_why:
        return listed((died, f"the loop stopped: {found.stopped_why}"))
    return listed((died, "" if found.serving or not found.started else "no loop is running"))


def quiet(digest: Digest) -> str:
    """Why nothing came of the night, in one sentence; empty if something did."""
    if not digest.is_quiet:
        return ""
    paused = next((run for run in digest.runs if run.status == "paused"), None)
    active = next((run for run in digest.runs if run.status == "active"), None)
    refused = next((run for run in digest.runs if run.status == "refused"), None)
    over = next((run for run in reversed(digest.runs) if run.status == "finished"), None)
    if paused is not None:
        return f"Nothing was tried: {paused.tag} is paused ({paused.why})."
    if active is not None:
        at_work = "it has no verdict yet" if digest.loop.serving else "no loop is running"
        return f"No experiment came to an end: {active.tag} is active, but {at_work}."
    if over is not None:
        return f"No experiment came to an end: {over.tag} is over ({over.why})."
    if refused is not None:
        return f"Nothing was tried: {refused.tag} could not start ({refused.why})."
    if digest.queue:
        waits = listed(run.tag for run in digest.queue[:3])
        return f"Nothing was tried: {waits} waits in the queue and no loop has taken it up."
    return "Nothing was tried: no run was active."


def headline(digest: Digest) -> str:
    """The whole digest in one sentence."""
    if sentence := quiet(digest):
        return sentence
    first = max(digest.runs, key=lambda run: (run.counts.verdicts, run.tag))
    others = len(digest.runs) + digest.runs_left_out - 1
    sentences = [f"{first.tag}: {progress(first)}", counts(first)]
    sentences += [standings(first.standings)] if first.counts.kept else []
    sentences += [f"and {plural(others, 'other run')}"] if others else []
    return "; ".join(sentences) + "."
