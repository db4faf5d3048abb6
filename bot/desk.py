"""Where people's requests are taken: who asks, may they, what comes of it. Sends nothing itself.

Guaranteed: everyone is looked up and judged at the moment of the request, a click and a form like a command; what is
denied is an event; what stands is in the log before anyone is told that it does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from bot import access, asking, values
from bot import intents as i
from bot import text as slack_text
from bot.asking import Asker, Request
from bot.board import Board
from bot.ledger import Asked, Ledger
from bot.looks import Looks
from bot.message import Message, View
from bot.people import Known, People
from bot.views import answers, modals
from bot.views.answers import File
from bot.views.home import LastDigest, Picture, home
from eventstore import events as e
from eventstore import requests
from eventstore import views as screens
from eventstore.envelope import Event, parse_at
from eventstore.home import Home
from eventstore.projections.program import ProgramVersion
from eventstore.projections.run_state import State
from eventstore.requests import Answer, Refused
from eventstore.settings import RunLimits, Slack

DigestHour = Callable[[str], tuple[str | None, str, datetime | None]]
"""The hour of a channel's digest (None if it has none), its zone, and when the next one comes."""
LATER_MAX = 200
"""People who wait to hear whether their run could start."""


@dataclass(frozen=True, slots=True)
class Sender:
    """
    Who asks, where, and by which delivery.

    Attributes:
        team: The workspace that Slack says the person belongs to.
        channel: None for the Home tab.
        delivery: What tells this delivery from every other one, also when it comes again.
    """

    user: str
    team: str
    channel: str | None
    delivery: str

    @property
    def actor(self) -> str:
        """As in the log."""
        return f"slack:{self.team}/{self.user}"


@dataclass(frozen=True, slots=True)
class Reply:
    """
    What the person is answered.

    Attributes:
        is_public: The channel is to see it; else only the person.
        file: Goes with it; *run* is the tag that it belongs to.
        words: The same in a sentence, for a modal.
        run_asked: The position of a `run.requested` that was made; 0 for none.
    """

    message: Message
    is_public: bool = False
    file: File | None = None
    run: str = ""
    words: str = ""
    run_asked: int = 0


@dataclass(frozen=True, slots=True)
class Form:
    """A modal that is to be shown."""

    view: View


@dataclass(frozen=True, slots=True)
class Wrong:
    """What is wrong in a form, by the input's block_id."""

    errors: dict[str, str]


class Desk:
    """Takes requests for one workspace. Every method looks up, judges and appends; none of them talks to Slack."""

    def __init__(
        self,
        ledger: Ledger,
        people: People,
        looks: Looks,
        *,
        digest_hour: DigestHour,
        slack: Slack,
        home: Home,
        home_team: str,
        zone: str,
        now: Callable[[], datetime],
        limits: RunLimits,
        workspace_url: str,
    ) -> None:
        """
        Put it together.

        Args:
            zone: What those mean of whom Slack does not know one.
            limits: What nightshift.toml says, for the form that starts a run.
            workspace_url: As `auth.test` says it; if it is empty, nothing is linked to.
        """
        self.ledger = ledger
        self._people = people
        self._looks = looks
        self._digest_hour = digest_hour
        self._slack = slack
        self._home = home
        self._home_team = home_team
        self._zone = zone
        self._now = now
        self._limits = limits
        self._workspace_url = workspace_url
        self._later: dict[int, Callable[[e.RunRefused], None]] = {}
        ledger.watch(self._tell_later)

    @property
    def channel(self) -> str | None:
        """Where runs are posted, and where everyone sees what was asked for in the Home tab."""
        return self._slack.channel

    # ------------------------------------------------------------ what was typed

    async def typed(self, intent: i.Intent | i.Mistake, sender: Sender) -> Reply | Form:
        """Serve a command. Words that are none are explained to whoever may be told anything."""
        known = await self._people.find(sender.user, sender.team)
        if isinstance(intent, i.Mistake):
            why = access.refusal(known.person, i.Help(), self._slack, self._home_team, sender.channel)
            what = "something that is no command"
            return await self._denied(why, what, sender) if why else Reply(answers.mistake(intent))
        if why := access.refusal(known.person, intent, self._slack, self._home_team, sender.channel):
            return await self._denied(why, asking.what(intent), sender)
        if isinstance(intent, Request) and not (isinstance(intent, i.Start) and intent.tag is None):
            return await self._ask(intent, sender, known)
        await self.ledger.catch_up()
        match intent:
            case i.Start():
                return Form(self._start_form(intent, sender, known))
            case i.Program():
                return Form(self._program_form(sender, known))
            case i.Help(verb=verb):
                role = access.role(known.person, self._slack, self._home_team)
                return Reply(answers.help_verb(verb) if verb else answers.help_all(role))
            case i.Whoami():
                role = access.role(known.person, self._slack, self._home_team)
                return Reply(answers.whoami(known.person, role, self._slack, sender.channel, known.zone or self._zone))
            case i.DigestHour():
                return self._digest_hour_of(sender.channel or "")
            case _:
                may = access.allows(access.role(known.person, self._slack, self._home_team), "operate")
                message, file = await self._looks.answer(intent, self._now(), may=may)
                return Reply(message, file=file, run=self._run_meant(intent) if file is not None else "")

    def _run_meant(self, intent: i.Intent) -> str:
        found = screens.pick_started(self.ledger.state, getattr(intent, "tag", None))
        return "" if isinstance(found, Refused) else found.tag

    def _digest_hour_of(self, channel: str) -> Reply:
        at, zone, next_at = self._digest_hour(channel)
        last = last_digest(self.ledger.board, channel, self._workspace_url)
        return Reply(answers.digest_hour(at, zone, next_at, last.link if last is not None else ""))

    # ------------------------------------------------------------ what was clicked

    async def clicked(self, action: str, value: str, sender: Sender) -> Reply | Form:
        """Serve a button: who clicks, and what it is about, are judged now."""
        about = values.from_value(value)
        if about is None:
            return _reply(values.OLD_BUTTON)
        known = await self._people.find(sender.user, sender.team)
        if why := access.refusal(known.person, action, self._slack, self._home_team, sender.channel):
            return await self._denied(why, f"{action} {about.run}", sender)
        if action in ("edit_program", "veto", "reject"):
            await self.ledger.catch_up()
            return self._click_form(action, about, sender, known)
        request = _request_of(action, about)
        if request is None:
            return _reply(values.OLD_BUTTON)
        return await self._ask(request, sender, known, seen=about.position)

    def _click_form(self, action: str, about: values.Button, sender: Sender, known: Known) -> Reply | Form:
        if action == "edit_program":
            return Form(self._program_form(sender, known))
        state, number = self.ledger.state, about.experiment
        if number is None:
            return _reply(values.OLD_BUTTON)
        request = i.Veto(number, "?", about.run) if action == "veto" else i.Reject(number, "", about.run)
        asker = self._asker(sender, known)
        answer = asking.judge(state, request, asker, about.position)
        if isinstance(answer, Refused):
            return Reply(answers.refused(answer.why), words=answers.here(answer.why))
        form = values.Form(
            channel=sender.channel or "", run=about.run, experiment=number, position=about.position, zone=asker.zone
        )
        run = state.runs[about.run]
        if action == "reject":
            return Form(modals.reject(form, run.experiments[number].description))
        done = run.finished_experiment(number)
        later = [keep.experiment for keep in run.keeps]
        built_on = later[later.index(number) + 1 :] if number in later else []
        return Form(modals.veto(form, done.description if done is not None else "", built_on))

    # ------------------------------------------------------------ what was put into a form

    async def submitted(
        self, callback: str, metadata: str, given: modals.Values, sender: Sender
    ) -> Reply | Form | Wrong:
        """Serve a form. The channel is the one that the form was asked for in."""
        form = values.from_metadata(metadata)
        if form is None:
            return _reply("This form cannot be read: it is of another version of Nightshift. Open it anew.")
        where = Sender(sender.user, sender.team, form.channel or None, sender.delivery)
        if callback in (modals.PROGRAM, modals.CONFIRM):
            return await self._program_submitted(form, given, where)
        request = _form_request(callback, form, given)
        if isinstance(request, Wrong):
            return request
        known = await self._people.find(sender.user, sender.team)
        if why := access.refusal(known.person, request, self._slack, self._home_team, where.channel):
            return await self._denied(why, asking.what(request), where)
        seen = form.position if isinstance(request, i.Veto | i.Reject) else None
        reply = await self._ask(request, where, known, seen=seen)
        if isinstance(request, i.Start) and not reply.is_public:
            return Wrong({"tag": reply.words}) if "tag" in given else reply
        return reply

    async def _program_submitted(self, form: values.Form, given: modals.Values, sender: Sender) -> Reply | Form | Wrong:
        known = await self._people.find(sender.user, sender.team)
        if why := access.refusal(known.person, "edit_program", self._slack, self._home_team, sender.channel):
            return await self._denied(why, "program edit", sender)
        await self.ledger.catch_up()
        base = self._version(form.base)
        if base is None:
            return _reply("The version of program.md that this form shows is not in the log. Open it anew.")
        found = modals.submitted(form, base, given)
        if isinstance(found, modals.Unchanged):
            return Form(modals.unchanged())
        if isinstance(found, modals.Unconfirmed):
            return Form(found.view)
        if isinstance(found, dict):
            return Wrong(found)
        asked = await self.ledger.ask(
            lambda state: requests.edit_program(state, found.base, found.text),
            lambda state, accepted, position: answers.outcome(state, accepted, position, known.zone or self._zone),
            delivery=sender.delivery,
            actor=sender.actor,
            what="program edit",
        )
        newest = self.ledger.program.in_force
        if asked.is_refused and newest is not None and newest.hash not in (base.hash, requests.text_hash(found.text)):
            return Form(modals.stale(base, newest, found.text, form, self.ledger.state.position))
        return replace(self._told(asked, sender), is_public=False)  # the outbox tells the channel, with the diff

    def _version(self, text_hash: str) -> ProgramVersion | None:
        versions = self.ledger.program.versions
        return next((version for version in reversed(versions) if version.hash == text_hash), None)

    # ------------------------------------------------------------ forms

    def _start_form(self, typed: i.Start, sender: Sender, known: Known) -> View:
        zone = known.zone or self._zone
        offered = modals.defaults(self.ledger.state.runs, self._limits, self._now(), zone, typed)
        return modals.start(offered, values.Form(channel=sender.channel or "", zone=zone))

    def _program_form(self, sender: Sender, known: Known) -> View:
        version = self.ledger.program.in_force
        if version is None:
            return modals.no_program()
        role = access.role(known.person, self._slack, self._home_team)
        if not access.allows(role, "admin"):
            return modals.program_text(version)
        return modals.program(version, values.Form(channel=sender.channel or "", zone=known.zone or self._zone))

    # ------------------------------------------------------------ the Home tab

    async def home_view(self, user: str, team: str, picture: Picture | None, digest: LastDigest | None) -> View:
        """The Home tab of one person, as things are now."""
        known = await self._people.find(user, team)
        role = access.role(known.person, self._slack, self._home_team)
        await self.ledger.catch_up()
        state, now = self.ledger.state, self._now()
        found = screens.pick(state, None)
        run = None if isinstance(found, Refused) else found
        loop = self._home.holder()
        runs = [screens.run_view(each, loop, now) for each in state.runs.values()]
        ideas = screens.ideas(self.ledger.board.ideas.all(), state)
        return home(self._looks.status_view(run, now), state, runs, ideas, role, now, picture=picture, digest=digest)

    # ------------------------------------------------------------ asking

    async def _ask(self, request: Request, sender: Sender, known: Known, seen: int | None = None) -> Reply:
        asker = self._asker(sender, known)

        def judge(state: State) -> Answer:
            return asking.judge(state, request, asker, seen)

        asked = await self.ledger.ask(
            judge,
            lambda state, accepted, position: answers.outcome(state, accepted, position, asker.zone),
            delivery=sender.delivery,
            actor=sender.actor,
            what=asking.what(request),
            tag=asking.run_of_refusal(request),
        )
        return self._told(asked, sender)

    def _told(self, asked: Asked, sender: Sender) -> Reply:
        if asked.is_refused:
            return Reply(answers.refused(asked.words), words=answers.here(asked.words))
        takes_a_loop = not isinstance(asked.data, e.DigestRequested | e.DigestScheduled)
        waits = takes_a_loop and self._home.holder() is None
        message = answers.recorded(sender.actor, asked.words, waits=waits)
        run_asked = asked.position if isinstance(asked.data, e.RunRequested) else 0
        is_public = asked.is_new and not isinstance(asked.data, e.DigestRequested)  # everyone will see the digest
        return Reply(message, is_public=is_public, words=answers.here(asked.words), run_asked=run_asked)

    async def _denied(self, why: str, what: str, sender: Sender) -> Reply:
        """Record and say that someone may not."""
        asked = await self.ledger.ask(
            lambda _state: Refused(why),
            lambda _state, _accepted, _position: "",
            delivery=sender.delivery,
            actor=sender.actor,
            what=what,
        )
        return Reply(answers.denied(why), words=asked.words)

    def _asker(self, sender: Sender, known: Known) -> Asker:
        return Asker(sender.actor, known.zone or self._zone, self._now(), sender.channel or "")

    # ------------------------------------------------------------ what comes of a start later

    def when_refused(self, position: int, call: Callable[[e.RunRefused], None]) -> None:
        """Have *call* called if the loop refuses the run that was asked for at *position*; lost with the process."""
        run = next((run for run in self.ledger.state.runs.values() if run.requested_at == position), None)
        if run is not None and run.refused is not None:
            call(run.refused)
        elif run is None or run.status == "queued":
            self._later[position] = call
            if len(self._later) > LATER_MAX:
                del self._later[next(iter(self._later))]

    def _tell_later(self, page: Sequence[Event]) -> None:
        for event in page:
            if isinstance(event.data, e.RunRefused):
                call = self._later.pop(event.data.request, None)
                if call is not None:
                    call(event.data)


def _reply(words: str) -> Reply:
    return Reply(answers.sentence(words), words=words)


def _request_of(action: str, about: values.Button) -> Request | None:
    """What a button asks for; None for one that is not known."""
    tag, number = about.run, about.experiment
    of_run: dict[str, Request] = {
        "pause": i.Pause(tag),
        "resume": i.Resume(tag),
        "stop": i.Stop(tag),
        "stop_now": i.StopNow(tag),
    }
    if number is None:
        return of_run.get(action)
    of_experiment: dict[str, Request] = {"again": i.Again(number, tag), "approve": i.Approve(number, tag)}
    return of_experiment.get(action) or of_run.get(action)


def _form_request(callback: str, form: values.Form, given: modals.Values) -> i.Start | i.Veto | i.Reject | Wrong:
    if callback == modals.START:
        start = modals.read_start(given)
        return start if isinstance(start, i.Start) else Wrong(start)
    why = modals.read_why(given, needed=callback == modals.VETO)
    if not isinstance(why, str):
        return Wrong(why)
    number = form.experiment or 0
    return i.Veto(number, why, form.run) if callback == modals.VETO else i.Reject(number, why, form.run)


def last_digest(board: Board, channel: str | None, workspace_url: str = "") -> LastDigest | None:
    """The newest digest of *channel*; None if there is none."""
    posted = board.digests.get(channel or "")
    if posted is None:
        return None
    return LastDigest(parse_at(posted.at), slack_text.permalink(workspace_url, posted.channel, posted.ts))
