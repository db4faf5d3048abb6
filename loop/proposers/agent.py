"""The proposer that runs a command line: any coding agent, or a script.

The agent gets a folder of its own with the files of the commit, the prompt on its standard input, and the time it is
allowed. What it changed in editable files, once it has ended, is the proposal.

Guaranteed: only text of editable files is taken over, and only what differs from the commit; what else it touched is
named. No link is followed and no pipe opened. When `propose` returns, raises or is cancelled, nothing of the agent
runs and its folder is gone. The values of the secrets it was given are in no proposal and no message, as far as they
stand there as they are.
Not guaranteed without a view: that it cannot read what this user can read, nor write elsewhere.

There is no second try inside an ask: an answer that is no good fails it, and the next prompt says why.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from eventstore.events import WholeFile
from eventstore.plain import plain, plain_line, shortened
from loop import prompts
from loop.edits import check_path
from loop.errors import CannotPropose, EditRefused
from loop.proposers.base import DESCRIPTION_MAX, FREE, Ask, Desk, Proposal, ProposalError, Spent
from loop.proposers.folder import DELETED, Seen, Unfit, differences, read_plain, remove, survey
from trainer.errors import CannotStart
from trainer.process import run_command
from trainer.spec import CommandResult, CommandSpec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from eventstore.settings import Agent as AgentSettings
    from loop.prompts import Prompt
    from trainer.sandbox.plan import View

T = TypeVar("T")

PROMPT_VARIABLE = "NIGHTSHIFT_PROMPT_FILE"
NOTE_FILE = "proposal.json"
PROGRAM_FILE = "program.md"

NEW_ENTRIES_MAX = 20_000
"""Files and folders that the agent may add before its folder is not looked through any more."""

FILE_MAX, FILES_MAX, EDITS_MAX = 2**20, 50, 2**21
"""The most that is taken over: bytes of one file, files, bytes of all."""

NOTE_MAX = 2**18
TEXT_MAX = 4_000
LINE_MAX = 120
IGNORED_MAX = 50
SECRET_MIN = 8
"""Characters of a value that is looked for; a shorter one is a word that stands anywhere."""

UNPRICED = Spent(usd=None)


@dataclass(frozen=True, slots=True)
class Note:
    """What the agent says of its change; empty where it says nothing."""

    description: str = ""
    hypothesis: str = ""
    expected_effect: str = ""
    rationale: str = ""
    idea_used: bool = False
    idea_why: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found in the folder afterwards."""

    edits: tuple[WholeFile, ...]
    note: Note
    ignored: tuple[str, ...]


class Agent:
    """
    Asks the command of `[agent]`.

    Args:
        editable, protected: Patterns, as in the objective.
        prompt_tokens: The most that a prompt may take, by a cautious estimate.
        folder_of: The folder that belongs to one ask alone.
        checkout: Writes the files of a commit into a fresh folder.
        mark_of: What the processes of one ask carry in their environment.
        environ: The environment of the loop, from which the secrets come too.
        view: What it may see besides its folder; None: all that the loop can see.

    Raises:
        CannotPropose: If no command is set, or a secret that it names is not in *environ*.
    """

    kind = "agent"
    can_repair = True
    worst_usd = None

    def __init__(
        self,
        settings: AgentSettings,
        *,
        editable: tuple[str, ...],
        protected: tuple[str, ...],
        prompt_tokens: int,
        folder_of: Callable[[Ask], Path],
        checkout: Callable[[str, Path], Awaitable[None]],
        mark_of: Callable[[Ask], str],
        environ: Mapping[str, str],
        view: View | None = None,
    ) -> None:
        if settings.command is None:
            raise CannotPropose(
                "proposer.kind = 'agent' needs a command and [agent] has none",
                "set agent.command to the words of the agent's command line",
            )
        if missing := [name for name in settings.secrets if not environ.get(name)]:
            raise CannotPropose(
                f"agent.secrets names {missing[0]}, which the environment of the loop does not have",
                f"set {missing[0]} in the environment of `nightshift loop`, or take it out of agent.secrets",
            )
        self._command = tuple(settings.command)
        self._settings = settings
        self._editable = editable
        self._protected = protected
        self._prompt_tokens = prompt_tokens
        self._folder_of = folder_of
        self._checkout = checkout
        self._mark_of = mark_of
        self._environ = environ
        self._view = view
        self._secrets = Secrets({name: environ[name] for name in settings.secrets})

    async def propose(self, ask: Ask, desk: Desk) -> Proposal:
        """
        Run the agent once and answer with what it changed.

        Raises:
            ProposalError: "agent_failed" if it cannot be started or does not end with exit code 0, whatever it
                changed by then; "timeout"; "changes_nothing"; "unparsable" if its folder cannot be looked through;
                what the desk objects to.
        """
        prompt = prompts.build(ask, tokens_max=self._prompt_tokens, answer="files")
        folder = self._folder_of(ask).absolute()
        try:
            if problem := await _removed(folder):
                raise ProposalError("agent_failed", problem, FREE, prompt_hash=prompt.hash)
            answer, said = await self._answer(ask, folder, prompt)
        except BaseException as error:
            if problem := await _removed(folder):
                error.add_note(problem)
            raise
        if problem := await _removed(folder):
            raise ProposalError("agent_failed", problem, UNPRICED, prompt_hash=prompt.hash)
        proposal = self._proposal(ask, prompt, answer, said)
        objection = await desk.check(proposal.edits)
        if objection is not None:
            raise ProposalError(
                objection.failure,
                objection.why,
                UNPRICED,
                prompt_hash=prompt.hash,
                description=proposal.description,
                edits=proposal.edits,
            )
        return proposal

    async def _answer(self, ask: Ask, folder: Path, prompt: Prompt) -> tuple[Answer, str]:
        """Run the agent in *folder*; return what it left and the last it said."""
        work = folder / "repository"
        prompt_file = folder / "prompt.md"
        await _to_its_end(self._checkout(ask.base_commit, work))
        before = await _in_thread(_made_ready, work, ask.program, prompt_file, prompt.text)
        view = self._view
        spec = CommandSpec(
            command=self._command,
            workdir=work,
            mark=self._mark_of(ask),
            timeout_s=self._settings.timeout_s,
            # git looks for a repository in the folders above, and would find the person's
            env={PROMPT_VARIABLE: str(prompt_file), "GIT_CEILING_DIRECTORIES": str(folder)},
            stdin=prompt.text,
            secrets=tuple(self._settings.secrets),
            network=self._settings.network,
            view=None if view is None else replace(view, read=(*view.read, prompt_file), scratch=folder / "scratch"),
        )
        try:
            ended = await run_command(spec, environ=self._environ)
        except CannotStart as error:
            raise ProposalError("agent_failed", str(error), FREE, prompt_hash=prompt.hash) from error
        said = self._secrets.scrubbed_end(ended.tail)
        if failure := _failure(ended, said, self._settings.timeout_s):
            raise ProposalError(*failure, UNPRICED, prompt_hash=prompt.hash)
        try:
            found = await _in_thread(_found, work, before, self._editable, self._protected, self._secrets)
        except Unfit as unfit:
            why = f"what the agent left cannot be looked through: {unfit.why}"
            raise ProposalError("unparsable", why, UNPRICED, prompt_hash=prompt.hash) from unfit
        return found, said

    def _proposal(self, ask: Ask, prompt: Prompt, answer: Answer, said: str) -> Proposal:
        if not answer.edits:
            besides = f"; not taken over: {', '.join(answer.ignored[:2])}" if answer.ignored else ""
            why = f"the agent changed no editable file{besides}"
            raise ProposalError("changes_nothing", why, UNPRICED, prompt_hash=prompt.hash)
        for edit in answer.edits:
            if name := self._secrets.new_in(f"{edit.path}\n{edit.text}", ask.files.get(edit.path, "")):
                why = f"the agent wrote the value of {name} into an editable file, where everyone could read it"
                raise ProposalError("edit_touches_protected", why, UNPRICED, prompt_hash=prompt.hash)
        note = answer.note
        hypothesis = note.hypothesis or _last_message(said)
        described = note.description or hypothesis.split("\n", 1)[0]
        used = note.idea_used if ask.idea is not None else None
        return Proposal(
            description=shortened(described or f"change to {_listed(answer.edits)}", DESCRIPTION_MAX),
            edits=answer.edits,
            hypothesis=hypothesis,
            expected_effect=note.expected_effect,
            rationale=note.rationale,
            idea_used=used,
            idea_why=(note.idea_why or "the agent did not say") if used is False else "",
            spent=UNPRICED,
            prompt_hash=prompt.hash,
            ignored=answer.ignored,
        )


def _listed(edits: Sequence[WholeFile]) -> str:
    return ", ".join(edit.path for edit in edits)


# ---------------------------------------------------------------- the folder


def _made_ready(work: Path, program: str, prompt_file: Path, prompt: str) -> dict[str, Seen]:
    """Put the program in force and the prompt beside the files of the commit, and remember how all of it looks."""
    file = work / PROGRAM_FILE
    if program and not file.is_dir() and _bytes_or_none(file) != program.encode():
        file.unlink(missing_ok=True)  # it may be a link that leads anywhere
        file.write_bytes(program.encode())
    prompt_file.write_bytes(prompt.encode())
    return survey(work, entries_max=2**63)


def _bytes_or_none(file: Path) -> bytes | None:
    try:
        return read_plain(file, FILE_MAX)
    except Unfit:
        return None


def _found(
    work: Path, before: Mapping[str, Seen], editable: Sequence[str], protected: Sequence[str], secrets: Secrets
) -> Answer:
    """What of the folder is taken over, and what is not. Raises `Unfit` if it cannot be looked through."""
    changed = differences(before, survey(work, len(before) + NEW_ENTRIES_MAX))
    edits: list[WholeFile] = []
    unfit: list[str] = []
    others: list[str] = []
    note = Note()
    room = EDITS_MAX
    for path in sorted(changed, key=lambda path: (path not in before, path)):  # if it is too much, new files wait
        try:
            if path == NOTE_FILE:
                note = _note(work, changed[path], secrets)
            elif not _is_editable(path, editable, protected):
                others.append(_named(secrets.scrubbed(plain_line(path)), changed[path]))
            else:
                text = _text(work / path, changed[path], room, len(edits))
                room -= len(text.encode())
                edits.append(WholeFile(path, text))
        except Unfit as error:
            unfit.append(_named(secrets.scrubbed(plain_line(path)), error.why))
    return Answer(tuple(edits), note, _bounded([*unfit, *others]))


def _is_editable(path: str, editable: Sequence[str], protected: Sequence[str]) -> bool:
    try:
        check_path(path, editable, protected)
    except EditRefused:
        return False
    return True


def _text(file: Path, kind: str, room: int, so_far: int) -> str:
    if kind:
        raise Unfit(kind)
    data = read_plain(file, FILE_MAX)
    if so_far >= FILES_MAX or len(data) > room:
        raise Unfit("too much for one proposal")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unfit("not UTF-8 text") from error


def _note(work: Path, kind: str, secrets: Secrets) -> Note:
    if kind == DELETED:
        return Note()
    if kind:
        raise Unfit(kind)
    note = note_of(read_plain(work / NOTE_FILE, NOTE_MAX), secrets)
    if note is None:
        raise Unfit("not a JSON object")
    return note


def _named(path: str, why: str) -> str:
    name = shortened(path, LINE_MAX)
    return f"{name} ({why})" if why else name


def _bounded(names: Sequence[str]) -> tuple[str, ...]:
    rest = len(names) - IGNORED_MAX
    return tuple(names) if rest <= 0 else (*names[:IGNORED_MAX], f"and {rest} more")


# ---------------------------------------------------------------- what it said


def note_of(raw: bytes, secrets: Secrets) -> Note | None:
    """
    Read proposal.json; None if it is no JSON object.

    A key that is unknown, or whose value is of another type than expected, is as if it were not there.
    """
    try:
        data = json.loads(raw)  # more forgiving than msgspec: it takes NaN and half of a surrogate pair
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None

    def said(table: Mapping[str, Any], key: str) -> str:
        value = table.get(key)
        return secrets.scrubbed(plain(value).strip()) if isinstance(value, str) else ""

    idea = data.get("idea")
    idea = idea if isinstance(idea, dict) else {}
    return Note(
        description=shortened(plain_line(said(data, "description")), DESCRIPTION_MAX),
        hypothesis=shortened(said(data, "hypothesis"), TEXT_MAX),
        expected_effect=shortened(said(data, "expected_effect"), TEXT_MAX),
        rationale=shortened(said(data, "rationale"), TEXT_MAX),
        idea_used=idea.get("answer") == "used",
        idea_why=shortened(said(idea, "why"), TEXT_MAX),
    )


def _last_message(said: str) -> str:
    """The last paragraph of an output."""
    return re.split(r"\n\s*\n", said.strip())[-1].strip()


def _failure(ended: CommandResult, said: str, timeout_s: float) -> tuple[str, str] | None:
    """The class and the sentence of a failure, if the agent's end was one."""
    if ended.timed_out:
        return "timeout", f"the agent did not end within {timeout_s:g} s"
    code = ended.exit_code
    if code == 0:
        return None
    how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
    lines = said.strip().splitlines()
    last = f"its last line: {shortened(lines[-1].strip(), LINE_MAX)}" if lines else "it said nothing"
    return "agent_failed", f"the agent {how}; {last}"


# ---------------------------------------------------------------- secrets


class Secrets:
    """The values that the agent was given, to be kept out of all that it gives back."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._parts = [
            (name, line.strip())
            for name, value in values.items()
            for line in sorted(value.splitlines(), key=len, reverse=True)
            if len(line.strip()) >= SECRET_MIN
        ]

    def scrubbed(self, text: str) -> str:
        """*text* with the names of secrets in the place of their values."""
        for name, value in self._parts:
            text = text.replace(value, f"[{name}]")
        return text

    def scrubbed_end(self, text: str) -> str:
        """The same for the end of a longer text, which may begin in the midst of a value."""
        for name, value in self._parts:
            for size in range(min(len(value) - 1, len(text)), SECRET_MIN - 1, -1):
                if text.startswith(value[-size:]):
                    text = f"[{name}]{text[size:]}"
                    break
        return self.scrubbed(text)

    def new_in(self, text: str, before: str) -> str:
        """The name of a secret whose value stands in *text* and not in *before*; empty if none does."""
        return next((name for name, value in self._parts if value in text and value not in before), "")


# ---------------------------------------------------------------- waiting


async def _removed(folder: Path) -> str:
    """Remove the folder; return a sentence if that does not work."""
    try:
        await _in_thread(remove, folder)
    except OSError as error:
        return f"the agent's folder cannot be removed ({error}); remove it by hand"
    return ""


async def _in_thread(work: Callable[..., T], *args: Any) -> T:
    return await _to_its_end(asyncio.to_thread(work, *args))


async def _to_its_end(work: Awaitable[T]) -> T:
    """
    Wait for *work* even when cancelled meanwhile, and be cancelled then: a thread cannot be stopped, and what it still
    wrote would come after the folder was removed.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        task.exception()  # seen, so that nobody complains of it: being cancelled is what counts now
        raise cancelled
    return task.result()
