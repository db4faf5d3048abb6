"""What was typed or clicked, as a request that can be judged. Pure.

`judge` says yes or no on a state by the same functions as the command line. What a button adds is `stale`: buttons
live for ever, so what a person saw beside one is compared with what is now.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from bot import intents as i
from eventstore import requests
from eventstore.envelope import format_at
from eventstore.errors import SettingsError
from eventstore.events import Limits
from eventstore.plain import plain_line, shortened
from eventstore.projections.run_state import State
from eventstore.requests import Answer, Refused
from eventstore.settings import resolve_until

Request = (
    i.Start
    | i.Stop
    | i.StopNow
    | i.Pause
    | i.Resume
    | i.Budget
    | i.SuggestIdea
    | i.WithdrawIdea
    | i.Veto
    | i.Again
    | i.Approve
    | i.Reject
    | i.DigestNow
    | i.DigestAt
    | i.DigestOff
)
"""Intents that ask for something; all others only look."""

WHAT_MAX = 200


@dataclass(frozen=True, slots=True)
class Asker:
    """
    Who asks, where and when.

    Attributes:
        zone: The IANA zone in which the person means a time of day.
        channel: The channel the request is about; of importance for digests only.
    """

    actor: str
    zone: str
    now: datetime
    channel: str = ""


def judge(state: State, request: Request, asker: Asker, seen: int | None = None) -> Answer:
    """
    Say yes or no.

    Args:
        seen: The position that the message with the button shows, for a click; None for what was typed.
    """
    problem = stale(state, request, seen) if seen is not None else None
    if problem is not None:
        return Refused(problem)
    match request:
        case i.Start():
            return _start(state, request, asker)
        case i.Stop(tag=tag):
            return requests.stop(state, tag)
        case i.StopNow(tag=tag):
            return requests.stop(state, tag, "now")
        case i.Pause(tag=tag):
            return requests.pause(state, tag)
        case i.Resume(tag=tag):
            return requests.resume(state, tag)
        case i.Budget():
            return _budget(state, request, asker)
        case i.Veto() | i.Again() | i.Approve() | i.Reject():
            return _of_experiment(state, request)
        case i.SuggestIdea(text=text):
            return requests.suggest_idea(state, text)
        case i.WithdrawIdea(idea=idea):
            return requests.withdraw_idea(state, idea)
        case i.DigestNow() | i.DigestAt() | i.DigestOff():
            return _of_digest(request, asker)


def _of_experiment(state: State, request: i.Veto | i.Again | i.Approve | i.Reject) -> Answer:
    match request:
        case i.Veto(experiment=number, why=why, tag=tag):
            return requests.veto(state, tag, number, why)
        case i.Again(experiment=number, tag=tag):
            return requests.again(state, tag, number)
        case i.Approve(experiment=number, tag=tag):
            return requests.approve(state, tag, number)
        case i.Reject(experiment=number, why=why, tag=tag):
            return requests.reject(state, tag, number, why)


def _of_digest(request: i.DigestNow | i.DigestAt | i.DigestOff, asker: Asker) -> Answer:
    match request:
        case i.DigestNow():
            return requests.request_digest(asker.channel)
        case i.DigestAt(at=at, zone=zone):
            return requests.schedule_digest(asker.channel, at, zone or asker.zone)
        case i.DigestOff():
            return requests.schedule_digest(asker.channel, "", "")


def stale(state: State, request: Request, seen: int) -> str | None:
    """Why what the button's message shows at position *seen* is no longer what the click would be about, or None."""
    if seen > state.position:
        return "this button is of another workspace, or of a log that is gone: use the command instead"
    tag = tag_of(request)
    run = state.runs.get(tag) if tag is not None else None
    if run is None:
        return None
    if run.requested_at > seen:
        return f"this button is of an earlier run {run.tag}: use the buttons of the newest one"
    if isinstance(request, i.Approve | i.Reject):
        experiment = run.experiments.get(request.experiment)
        if experiment is not None and experiment.proposal_at > seen:
            return (
                f"experiment {request.experiment} of {run.tag} has another proposal than the one beside this button: "
                "look at that one first"
            )
    return None


def tag_of(request: Request) -> str | None:
    """The run that a request names, or None."""
    return getattr(request, "tag", None)


def run_of_refusal(request: Request) -> str | None:
    """The run that a refusal belongs to, as `Ledger.ask` takes it: None for the active one, empty for none."""
    if isinstance(request, i.SuggestIdea | i.WithdrawIdea | i.DigestNow | i.DigestAt | i.DigestOff):
        return ""
    return tag_of(request)


def what(request: i.Intent) -> str:
    """The request in words, for the record."""
    words = [i.verb_of(request).name]
    values = {name: getattr(request, name) for name in getattr(request, "__slots__", ())}
    for name, value in values.items():
        if value is not None and value != "" and not (name == "from_ref" and value == "HEAD"):
            words.append(str(value) if name in ("experiment", "limit", "value", "idea") else f"{name}={value}")
    return shortened(plain_line(" ".join(words)), WHAT_MAX)


def _start(state: State, request: i.Start, asker: Asker) -> Answer:
    if request.tag is None:
        return Refused("a run needs a tag, such as nov21")
    try:
        until = _until(request.until, asker)
    except SettingsError:
        return Refused(f"{request.until!r} is not a time: write 08:00, or 2026-11-22T08:00+01:00")
    limits = Limits(experiments=request.experiments, until=until, usd=request.usd)
    return requests.start(state, request.tag, asker.zone, from_ref=request.from_ref, limits=limits)


def _budget(state: State, request: i.Budget, asker: Asker) -> Answer:
    value = request.value
    if request.limit == "until" and isinstance(value, str):
        try:
            value = _until(value, asker)
        except SettingsError:
            return Refused(f"{request.value!r} is not a time: write 08:00, or 2026-11-22T08:00+01:00")
    return requests.budget(state, request.tag, request.limit, value)


def _until(text: str | None, asker: Asker) -> str | None:
    return None if text is None else format_at(resolve_until(text, asker.zone, asker.now))
