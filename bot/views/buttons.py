"""The buttons, each made in one place: its words, its colour, its question. Pure.

Which buttons are shown is decided by the same functions that judge the click (`eventstore.requests`), so none is
offered that would be refused at this position; the click is judged again when it comes.
"""

from __future__ import annotations

from bot.text import Element
from bot.values import Action, Button, to_value
from bot.views.parts import plain_text
from eventstore import requests
from eventstore.projections.run_state import Run, State

LABELS: dict[Action, str] = {
    "pause": "Pause",
    "resume": "Resume",
    "stop": "Stop",
    "stop_now": "Stop now",
    "edit_program": "Edit program",
    "veto": "Veto…",
    "again": "Take up again",
    "approve": "Approve",
    "reject": "Reject…",
}

_STYLES: dict[Action, str] = {
    "stop": "danger",
    "stop_now": "danger",
    "veto": "danger",
    "approve": "primary",
    "resume": "primary",
}


def button(action: Action, about: Button, label: str = "") -> Element:
    """One button."""
    found: Element = {
        "type": "button",
        "action_id": action,
        "text": plain_text(label or LABELS[action], 75),
        "value": to_value(about),
    }
    if action in _STYLES:
        found["style"] = _STYLES[action]
    question = _question(action, about.run)
    if question is not None:
        found["confirm"] = question
    return found


def _question(action: Action, tag: str) -> Element | None:
    """What is asked before the click counts; None for what is about one experiment or asks in a form of its own."""
    if action == "stop":
        words = "It ends after the experiment in hand, or at once if it still waits its turn. It cannot be resumed."
        return _confirm(f"Stop {tag}?", words, "Stop it", "Let it run") | {"style": "danger"}
    if action == "stop_now":
        words = "What is in hand is cut off and gets no verdict. It cannot be resumed."
        return _confirm(f"Stop {tag} now?", words, "Stop it now", "Let it run") | {"style": "danger"}
    if action == "pause":
        words = "It holds after the experiment in hand, and its devices idle until someone resumes it."
        return _confirm(f"Pause {tag}?", words, "Pause it", "Let it run")
    if action == "resume":
        return _confirm(f"Resume {tag}?", "It goes on with the next experiment.", "Resume it", "Leave it")
    return None


def _confirm(title: str, words: str, yes: str, no: str) -> Element:
    return {
        "title": plain_text(title, 100),
        "text": plain_text(words, 300),
        "confirm": plain_text(yes, 30),
        "deny": plain_text(no, 30),
    }


def of_run(state: State, run: Run) -> list[Element]:
    """What can be asked of a run now: pause or resume, stop; nothing of one that is over."""
    about = Button(run.tag, None, state.position)
    found = []
    if isinstance(requests.pause(state, run.tag), requests.Accepted):
        found.append(button("pause", about))
    if isinstance(requests.resume(state, run.tag), requests.Accepted):
        found.append(button("resume", about))
    if isinstance(requests.stop(state, run.tag), requests.Accepted):
        found.append(button("stop", about, "Take back" if run.status == "queued" else ""))
    elif isinstance(requests.stop(state, run.tag, "now"), requests.Accepted):
        found.append(button("stop_now", about))
    return found


def of_experiment(state: State, tag: str, experiment: int) -> list[Element]:
    """What can be asked of an experiment now: approve and reject, veto, take up again."""
    about = Button(tag, experiment, state.position)
    found = []
    if isinstance(requests.approve(state, tag, experiment), requests.Accepted):
        found += [button("approve", about), button("reject", about)]
    if isinstance(requests.veto(state, tag, experiment), requests.Accepted):
        found.append(button("veto", about))
    if isinstance(requests.again(state, tag, experiment), requests.Accepted):
        found.append(button("again", about))
    return found
