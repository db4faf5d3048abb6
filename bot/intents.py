"""What people may type behind `/nightshift`: one table, from which parser, help and roles come. Pure.

Guaranteed: any text is an `Intent` or a `Mistake`, never an exception; the examples of the table parse. The text comes
unescaped, as the person typed it. Free text (an idea, a reason) is kept as it is, line breaks too; everything else is
words. Options may stand anywhere before the free text, as `--tag nov21` or `--tag=nov21`; a long dash that a phone made
of two hyphens counts as two hyphens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import ClassVar, Literal

from eventstore import requests
from eventstore.plain import plain, plain_line, shortened

COMMAND = "/nightshift"
FROM_MAX = 200
NUMBER_MAX = 10**9
SHOWN_MAX = 60
"""Characters of a person's words that a mistake repeats."""

Role = Literal["look", "operate", "admin"]
Limit = Literal["experiments", "until", "usd"]


# ---------------------------------------------------------------- what was asked


@dataclass(frozen=True, slots=True)
class Start:
    """
    Ask for a run; without a tag the form is opened.

    *until* is a time of day in the asker's zone or a full time with an offset; None where nothing was said.
    """

    tag: str | None = None
    until: str | None = None
    usd: float | None = None
    experiments: int | None = None
    from_ref: str = "HEAD"


@dataclass(frozen=True, slots=True)
class Stop:
    """End a run, or withdraw one that waits; without a tag the active one, as in all that follow."""

    tag: str | None = None
    now: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class StopNow:
    """End a run and cut off what is in hand."""

    tag: str | None = None
    now: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Pause:
    """Hold a run after the experiment in hand."""

    tag: str | None = None


@dataclass(frozen=True, slots=True)
class Resume:
    """Let a paused run go on."""

    tag: str | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """Change one limit; a *value* of None takes it away. *until* as in `Start`."""

    limit: Limit
    value: int | float | str | None
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """How a run stands."""

    tag: str | None = None


@dataclass(frozen=True, slots=True)
class Results:
    """results.tsv of a run."""

    tag: str | None = None


@dataclass(frozen=True, slots=True)
class Experiment:
    """The story of an experiment."""

    experiment: int
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class Diff:
    """What an experiment changes."""

    experiment: int
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class Log:
    """The end of what an experiment's training printed."""

    experiment: int
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class SuggestIdea:
    """Put an idea into the queue."""

    text: str


@dataclass(frozen=True, slots=True)
class Ideas:
    """The ideas and what became of them."""


@dataclass(frozen=True, slots=True)
class WithdrawIdea:
    """Take an idea back."""

    idea: int


@dataclass(frozen=True, slots=True)
class Program:
    """Show program.md; whoever may, edits it there."""


@dataclass(frozen=True, slots=True)
class Veto:
    """Take a keep off the branch."""

    experiment: int
    why: str
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class Again:
    """Take the edit of an experiment up again."""

    experiment: int
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class Approve:
    """Let a proposal be tried."""

    experiment: int
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class Reject:
    """Turn a proposal down."""

    experiment: int
    why: str = ""
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class DigestHour:
    """When this channel gets its digest."""


@dataclass(frozen=True, slots=True)
class DigestNow:
    """Post a digest of what happened since the last one."""


@dataclass(frozen=True, slots=True)
class DigestAt:
    """Set this channel's hour; without a zone, the asker's."""

    at: str
    zone: str | None = None


@dataclass(frozen=True, slots=True)
class DigestOff:
    """No digest for this channel."""


@dataclass(frozen=True, slots=True)
class Help:
    """What can be typed; all of it, or one verb."""

    verb: str | None = None


@dataclass(frozen=True, slots=True)
class Whoami:
    """Who the asker is to the bot, and what they may do."""


Intent = (
    Start
    | Stop
    | StopNow
    | Pause
    | Resume
    | Budget
    | Status
    | Results
    | Experiment
    | Diff
    | Log
    | SuggestIdea
    | Ideas
    | WithdrawIdea
    | Program
    | Veto
    | Again
    | Approve
    | Reject
    | DigestHour
    | DigestNow
    | DigestAt
    | DigestOff
    | Help
    | Whoami
)


@dataclass(frozen=True, slots=True)
class Mistake:
    """
    Words that are no command.

    Attributes:
        why: One sentence: what is wrong, and what was expected; not escaped.
        near: The command that was meant or comes nearest, of which the usage is shown; None if none does.
    """

    why: str
    near: Verb | None = None


# ---------------------------------------------------------------- the kinds of arguments


@dataclass(frozen=True, slots=True)
class Wrong:
    """Why a word is not what was expected."""

    why: str


Value = str | int | float | None
Reader = Callable[[str], "Value | Wrong"]


@dataclass(frozen=True, slots=True)
class Arg:
    """
    One argument of a verb.

    Attributes:
        name: The intent's field.
        read: Its word's value, or what is wrong with it.
        shown: How the usage writes it.
        option: The name behind `--`; empty for one that goes by its place.
        needed: Whether it must be there.
        rest: It is free text: all that is left.
    """

    name: str
    read: Reader
    shown: str
    option: str = ""
    needed: bool = False
    rest: bool = False


def _tag(word: str) -> Value | Wrong:
    problem = requests.tag_problem(word)
    return Wrong(problem) if problem else word


def _number(word: str) -> Value | Wrong:
    digits = word.removeprefix("#")
    if not re.fullmatch(r"[0-9]{1,10}", digits) or int(digits) > NUMBER_MAX:
        return Wrong(f"{_quoted(word)} is not a number such as 7")
    return int(digits)


def _count(word: str) -> Value | Wrong:
    number = _number(word)
    return number if isinstance(number, int) and number >= 1 else Wrong(f"{_quoted(word)} is not a number of 1 or more")


def _usd(word: str) -> Value | Wrong:
    digits = word.removeprefix("$")
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", digits) or float(digits) <= 0:
        return Wrong(f"{_quoted(word)} is not an amount in US dollars such as 20 or 7.50")
    return float(digits)


def _until(word: str) -> Value | Wrong:
    clock = _clock(word)
    if isinstance(clock, str):
        return clock
    if _is_full_time(word):
        return word
    return Wrong(f"{_quoted(word)} is not a time: write 08:00, or 2026-11-22T08:00+01:00")


def _is_full_time(word: str) -> bool:
    try:
        return datetime.fromisoformat(word).utcoffset() is not None
    except ValueError:
        return False


def _clock(word: str) -> Value | Wrong:
    padded = f"0{word}" if re.fullmatch(r"[0-9]:[0-9]{2}", word) else word
    return padded if requests.CLOCK_PATTERN.fullmatch(padded) else Wrong(f"{_quoted(word)} is not a time such as 08:00")


def _zone(word: str) -> Value | Wrong:
    problem = requests.zone_problem(word)
    return Wrong(f"{_quoted(word)} is not a time zone such as Europe/Berlin") if problem else word


def _ref(word: str) -> Value | Wrong:
    if word.startswith("-") or len(word) > FROM_MAX or not word.isprintable():
        return Wrong(f"{_quoted(word)} is not a commit or a branch")
    return word


def _limit(word: str) -> Value | Wrong:
    return word if word in _LIMITS else Wrong(f"{_quoted(word)} is not a limit: those are experiments, until and usd")


def _text(word: str) -> Value | Wrong:
    return word


def _idea(text: str) -> Value | Wrong:
    if len(text) > requests.IDEA_MAX:
        return Wrong(f"the idea is {len(text)} characters long, at most {requests.IDEA_MAX} are allowed")
    return text


def _why(text: str) -> Value | Wrong:
    line = plain_line(text)
    if len(line) > requests.WHY_MAX:
        return Wrong(f"the reason is {len(line)} characters long, at most {requests.WHY_MAX} are allowed")
    return line


_LIMITS: dict[str, Reader] = {"experiments": _count, "until": _until, "usd": _usd}

_OF_RUN = Arg("tag", _tag, "TAG", option="tag")
_TAG = Arg("tag", _tag, "TAG")
_EXPERIMENT = Arg("experiment", _number, "N", needed=True)


# ---------------------------------------------------------------- the table


@dataclass(frozen=True, slots=True)
class Verb:
    """
    One row of the table.

    Attributes:
        name: The words it begins with.
        help: What it does, one line without a full stop.
        role: Who may.
        make: The intent, made from the arguments by name.
        example: The arguments of an example that parses; empty for the bare verb.
    """

    name: str
    help: str
    role: Role
    make: Callable[..., Intent]
    args: tuple[Arg, ...] = ()
    example: str = ""

    @property
    def usage(self) -> str:
        """How it is typed: `/nightshift veto N WHY [--tag TAG]`."""
        return " ".join([COMMAND, self.name, *(_shown(arg) for arg in self.args)])

    @property
    def full_example(self) -> str:
        """The example whole."""
        return f"{COMMAND} {self.name} {self.example}".rstrip()


def _shown(arg: Arg) -> str:
    words = f"--{arg.option} {arg.shown}" if arg.option else arg.shown
    return words if arg.needed else f"[{words}]"


VERBS: tuple[Verb, ...] = (
    Verb(
        "start",
        "ask for a run; without a tag a form opens",
        "operate",
        Start,
        (
            _TAG,
            Arg("until", _until, "08:00", option="until"),
            Arg("usd", _usd, "20", option="usd"),
            Arg("experiments", _count, "100", option="experiments"),
            Arg("from_ref", _ref, "BRANCH", option="from"),
        ),
        "nov21 --until 08:00 --usd 20 --experiments 100",
    ),
    Verb("stop", "end the run after the experiment in hand; takes back a run that waits", "operate", Stop, (_TAG,)),
    Verb("stop now", "end the run and cut off what is in hand", "operate", StopNow, (_TAG,)),
    Verb("pause", "hold the run after the experiment in hand", "operate", Pause, (_TAG,)),
    Verb("resume", "let the paused run go on", "operate", Resume, (_TAG,)),
    Verb(
        "budget",
        "change a limit of the run; `off` takes it away",
        "operate",
        Budget,
        (
            Arg("limit", _limit, "experiments|until|usd", needed=True),
            Arg("value", _text, "VALUE|off", needed=True),
            _OF_RUN,
        ),
        "usd 50",
    ),
    Verb("status", "how the run stands", "look", Status, (_TAG,), "nov21"),
    Verb("results", "the last results, and results.tsv as a file", "look", Results, (_TAG,), "nov21"),
    Verb("experiment", "the story of an experiment", "look", Experiment, (_EXPERIMENT, _OF_RUN), "12"),
    Verb("diff", "what an experiment changes", "look", Diff, (_EXPERIMENT, _OF_RUN), "12 --tag nov21"),
    Verb("log", "the end of what its training printed", "look", Log, (_EXPERIMENT, _OF_RUN), "12"),
    Verb(
        "idea",
        "suggest something to try",
        "operate",
        SuggestIdea,
        (Arg("text", _idea, "TEXT", needed=True, rest=True),),
        "try a longer warmdown",
    ),
    Verb("ideas", "the ideas and what became of them", "look", Ideas),
    Verb(
        "withdraw",
        "take an idea back; `ideas` shows the numbers",
        "operate",
        WithdrawIdea,
        (Arg("idea", _number, "N", needed=True),),
        "57",
    ),
    Verb("program", "show program.md; admins edit it there, section by section", "look", Program),
    Verb(
        "veto",
        "take a keep off the branch, with every keep built on it",
        "operate",
        Veto,
        (_EXPERIMENT, _OF_RUN, Arg("why", _why, "WHY", needed=True, rest=True)),
        "12 it only wins by training longer",
    ),
    Verb(
        "again",
        "take the edit of an experiment up again, on today's best",
        "operate",
        Again,
        (_EXPERIMENT, _OF_RUN),
        "9",
    ),
    Verb("approve", "let a proposal that waits be tried", "operate", Approve, (_EXPERIMENT, _OF_RUN), "13"),
    Verb(
        "reject",
        "turn a proposal down before its code runs",
        "operate",
        Reject,
        (_EXPERIMENT, _OF_RUN, Arg("why", _why, "WHY", rest=True)),
        "13 it reads the evaluation data",
    ),
    Verb("digest", "when this channel gets its digest", "look", DigestHour),
    Verb("digest now", "post a digest of what happened since the last one", "operate", DigestNow),
    Verb(
        "digest at",
        "set this channel's hour; without a zone, your own",
        "admin",
        DigestAt,
        (Arg("at", _clock, "08:00", needed=True), Arg("zone", _zone, "ZONE")),
        "08:00 Europe/Berlin",
    ),
    Verb("digest off", "no more digests for this channel", "admin", DigestOff),
    Verb("help", "what can be typed", "look", Help, (Arg("verb", _text, "COMMAND", rest=True),), "start"),
    Verb("whoami", "who you are to Nightshift, and what you may do", "look", Whoami),
)

_BY_NAME = {verb.name: verb for verb in VERBS}
_BY_INTENT: dict[object, Verb] = {verb.make: verb for verb in VERBS}
FIRST_WORDS = tuple(dict.fromkeys(verb.name.partition(" ")[0] for verb in VERBS))

ACTION_ROLES: dict[str, Role] = {
    "pause": "operate",
    "resume": "operate",
    "stop": "operate",
    "stop_now": "operate",
    "edit_program": "admin",
    "veto": "operate",
    "again": "operate",
    "approve": "operate",
    "reject": "operate",
}
"""Who may click, by `action_id`."""


def verb_of(intent: Intent) -> Verb:
    """The row of the table that *intent* came from."""
    return _BY_INTENT[type(intent)]


def verbs_of(word: str) -> tuple[Verb, ...]:
    """The rows that begin with *word*; none for one that is no command."""
    return tuple(verb for verb in VERBS if verb.name.partition(" ")[0] == word)


def role_of(asked: Intent | str) -> Role:
    """Who may: for an intent, or for a button by its `action_id`. An unknown button is for admins."""
    return ACTION_ROLES.get(asked, "admin") if isinstance(asked, str) else verb_of(asked).role


# ---------------------------------------------------------------- reading what was typed


_INVISIBLE = re.compile("[\u200b-\u200f\u2060\ufeff]")
_DASHES = re.compile("^-?[\u2010-\u2015\u2212]{1,2}-?(?=\\w)")
_WRAPPING = "`'\"\u2018\u2019\u201c\u201d"
_QUOTED_WHOLE = re.compile('["\u201c]([^"\u201c\u201d]+)["\u201d]')


def parse(text: str) -> Intent | Mistake:
    """Read what stands behind the command; nothing is a call for help."""
    word, left = "", plain(text)
    while left and word in ("", COMMAND):
        first, left = _first_word(left)
        word = first.lower()
    if word in ("", COMMAND):
        return Help()
    if word not in FIRST_WORDS:
        return _unknown(word)
    second, after = _first_word(left)
    verb = _BY_NAME.get(f"{word} {second.lower()}") if second else None
    return _read(verb, after) if verb is not None else _read(_BY_NAME[word], left)


def _first_word(text: str) -> tuple[str, str]:
    """The first word without what it is wrapped in, and the rest as it is."""
    parts = text.split(maxsplit=1)
    return (_INVISIBLE.sub("", parts[0]).strip(_WRAPPING) if parts else ""), (parts[1] if len(parts) > 1 else "")


def _unknown(word: str) -> Mistake:
    near = get_close_matches(word[:SHOWN_MAX], FIRST_WORDS, 1)
    if not near:
        return Mistake(f"There is no command {_quoted(word)}: `{COMMAND} help` lists them.")
    return Mistake(f"There is no command {_quoted(word)}: did you mean `{near[0]}`?", _BY_NAME[near[0]])


class _Reading:
    """The arguments of one verb, taken word by word."""

    def __init__(self, verb: Verb) -> None:
        self.verb = verb
        self.found: dict[str, Value] = {}
        self.places = [arg for arg in verb.args if not arg.option]
        self.options = {arg.option or arg.name: arg for arg in verb.args if arg.option or arg.name == "tag"}

    def take(self, left: str) -> str | Mistake:
        """Take the next argument from *left*; what is left after it."""
        word, after = _first_word(left)
        option = _option(word) if self.options else None
        if option is not None:
            name, value = option
            if name not in self.options:
                return _no_option(self.verb, name, self.options)
            if not value:
                value, after = _first_word(after)
            arg = self.options[name]
            if not value:
                return _mistake(self.verb, f"--{name} needs a value, such as --{name} {arg.shown}")
            return self._put(arg, value, f"--{name} is there twice") or after
        if not self.places:
            return _mistake(self.verb, f"{_quoted(word)} is one word too many") if word else after
        arg = self.places.pop(0)
        if not arg.rest:
            return self._put(arg, word, f"{_quoted(word)} is one word too many") or after
        late = next((name for name, _ in filter(None, map(_option, left.split())) if name in self.options), None)
        if late is not None:
            return _mistake(self.verb, f"--{late} must stand before the {arg.shown}, which is all that follows")
        return self._put(arg, _unquoted(left), "") or ""

    def _put(self, arg: Arg, word: str, twice: str) -> Mistake | None:
        if arg.name in self.found:
            return _mistake(self.verb, twice)
        read = arg.read(word)
        if isinstance(read, Wrong):
            return _mistake(self.verb, read.why)
        self.found[arg.name] = read
        return None

    def missing(self) -> Arg | None:
        """The first argument that must be there and is not."""
        return next((arg for arg in self.verb.args if arg.needed and self.found.get(arg.name, "") == ""), None)


def _read(verb: Verb, left: str) -> Intent | Mistake:
    reading = _Reading(verb)
    while left.strip():
        taken = reading.take(left)
        if isinstance(taken, Mistake):
            return taken
        left = taken
    missing = reading.missing()
    if missing is not None:
        return _mistake(verb, f"missing: {missing.shown}")
    return _made(verb, reading.found)


def _unquoted(text: str) -> str:
    text = text.strip()
    whole = _QUOTED_WHOLE.fullmatch(text)
    return whole[1] if whole is not None else text


def _option(word: str) -> tuple[str, str] | None:
    """Name and value of `--name`, `--name=value`; None for any other word."""
    word = _DASHES.sub("--", word)
    if not word.startswith("--"):
        return None
    name, _, value = word[2:].partition("=")
    return name.lower(), value.strip(_WRAPPING)


def _no_option(verb: Verb, name: str, options: Iterable[str]) -> Mistake:
    near = get_close_matches(name[:SHOWN_MAX], list(options), 1)
    hint = f": did you mean --{near[0]}?" if near else ""
    return _mistake(verb, f"`{verb.name}` has no option {_quoted('--' + name)}{hint}")


def _made(verb: Verb, found: dict[str, Value]) -> Intent | Mistake:
    if verb.make is Budget:
        limit, word = str(found["limit"]), str(found["value"])
        value = None if word.lower() in ("off", "none") else _LIMITS[limit](word)
        if isinstance(value, Wrong):
            return _mistake(verb, value.why)
        found["value"] = value
    if verb.make is Help and "verb" in found:
        word = _first_word(str(found["verb"]))[0].lower()
        if word not in FIRST_WORDS:
            return _unknown(word)
        found["verb"] = word
    return verb.make(**found)


def _mistake(verb: Verb, why: str) -> Mistake:
    sentence = why if why.endswith(("?", ".")) else f"{why}."
    return Mistake(sentence[:1].upper() + sentence[1:], verb)


def _quoted(word: str) -> str:
    return f"“{shortened(plain_line(word), SHOWN_MAX)}”"
