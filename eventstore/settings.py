"""The typed whole of nightshift.toml: every key, its default, its limits and its messages. Pure.

`parse` reads the text of the file; reading the file itself is a shell's job. `to_data` is what
`run.started` records, defaults written out, so that a later default changes no run that has begun;
`from_data` reads it back. Nothing here looks at the disk: whether a file or a command exists is for
those to check who use it.

The classes are the documentation: a table's docstring and the sentence beside each key make
`docs/settings.md`.
"""

from __future__ import annotations

import math
import re
import tomllib
import types
from datetime import UTC, date, datetime, time, timedelta
from difflib import get_close_matches
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta

from eventstore.errors import SettingsError
from eventstore.events import Scalar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# A Meta's title is the phrase after "expected"; msgspec enforces its limits. NaN, infinities and
# whole numbers beyond 64 bits are refused for every key (`_refuse_unstorable`).
Positive = Annotated[float, Meta(gt=0, title="a number greater than 0")]
NotNegative = Annotated[float, Meta(ge=0, title="a number of 0 or more")]
Count = Annotated[int, Meta(ge=1, title="a whole number of 1 or more")]
Text = Annotated[str, Meta(min_length=1, title="text in quotes")]
Path = Annotated[str, Meta(title="a path inside the repository such as 'out/score.json'")]
Globs = Annotated[tuple[str, ...], Meta(title="a list of paths or globs inside the repository such as ['train.py']")]
Command = Annotated[
    tuple[str, ...], Meta(min_length=1, title="a list of words such as ['python', 'train.py'], the first not empty")
]
Until = Annotated[
    str, Meta(title="a time of day such as '08:00', or a time with date and offset such as '2026-11-22T08:00+01:00'")
]
Day = Annotated[str, Meta(title="a date in quotes such as '2026-09-01'")]
Word = Annotated[str, Meta(title="one word without spaces or colons such as 'val_bpb'")]
Folders = Annotated[
    tuple[Annotated[str, Meta(min_length=1)], ...],
    Meta(title="a list of paths such as ['/data', '~/.config/tool']"),
]
Names = Annotated[tuple[str, ...], Meta(title="a list of names of environment variables such as ['MY_API_KEY']")]
Choices = Annotated[
    tuple[Scalar, ...], Meta(min_length=1, title="a list of numbers, texts or true/false such as [2, 4, 8]")
]
Number = Annotated[int | float, Meta(title="a number")]
_CHANNEL = r"\A[CG][A-Z0-9]{1,30}\Z"
Channel = Annotated[
    str, Meta(pattern=_CHANNEL, title="a channel's id such as 'C0123ABCDEF', not its name (channel details show it)")
]
Channels = Annotated[
    tuple[Annotated[str, Meta(pattern=_CHANNEL)], ...],
    Meta(title="a list of channels' ids such as ['C0123ABCDEF'], not of names (channel details show them)"),
]
People = Annotated[
    tuple[Annotated[str, Meta(pattern=r"\A[UWS][A-Z0-9]{1,30}\Z")], ...],
    Meta(
        title="a list of ids of people (U… or W…) and user groups (S…) such as ['U0123ABCDEF', 'S0123ABCDEF'], "
        "not of names (profiles show them under 'Copy member ID')"
    ),
]
Hour = Annotated[
    str, Meta(pattern=r"\A(([01][0-9]|2[0-3]):[0-5][0-9]|off)\Z", title="a time of day such as '08:00', or 'off'")
]
Zone = Annotated[str, Meta(title="an IANA time zone such as 'Europe/Berlin'")]


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all tables."""


class Objective(Table, frozen=True):
    """What is edited, how it is scored and which direction is better."""

    name: Annotated[Word, "the metric's name, as in the line `name: value`; it also names column 2 of results.tsv"]
    direction: Annotated[
        Literal["minimize", "maximize", "pass"],
        "which scores are better; `pass`: a command that must exit 0 and scores 1 then, else 0",
    ]
    editable: Annotated[Globs, "what a proposal may change; every other file is read-only to it"]
    protected: Annotated[Globs, "the harness: any change to these files fails the experiment"] = ()
    score: Annotated[
        Literal["stdout", "json", "sealed"],
        "where the score comes from: one `name: value` line of the output, a key of a JSON file, or the sealed "
        "evaluator, which scores the model that prepare.py hands over",
    ] = "stdout"
    score_file: Annotated[Path | None, "with `json`: the file the command writes; deleted before each run"] = None
    score_key: Annotated[Text | None, "with `json`: the key in that file that holds the score"] = None


class Experiment(Table, frozen=True):
    """How one experiment is run."""

    command: Annotated[Command, "what is run, without a shell; a first word `python` is Nightshift's own interpreter"]
    budget_s: Annotated[Positive, "training time in seconds that the harness grants"] = 300.0
    timeout_s: Annotated[Positive, "wall clock in seconds after which everything is killed; at least budget_s"] = 600.0
    grace_s: Annotated[
        Positive,
        "with a sealed score: seconds after the budget by which the model must be handed over; then it is killed",
    ] = 10.0


class Guard(Table, frozen=True):
    """A command that a candidate must pass before it is kept. Without this table there is none."""

    command: Annotated[Command, "what is run, without a shell; exit code 0 is a pass"]
    timeout_s: Annotated[Positive, "wall clock in seconds after which the guard counts as failed"] = 600.0


class Proposer(Table, frozen=True):
    """Who proposes what to try."""

    kind: Annotated[
        Literal["sweep", "claude", "agent", "scripted"],
        "`sweep` draws the constants of [sweep], `claude` asks the API, `agent` runs a command line, "
        "`scripted` plays proposals from a file",
    ] = "sweep"
    approval: Annotated[
        Literal["none", "first", "all"],
        "which proposals wait for a person: none, all until one is approved (`first`), or all; "
        "never repairs of what was approved, and never what a sweep fills in",
    ] = "none"
    repair_attempts: Annotated[
        Annotated[int, Meta(ge=0, le=10, title="a whole number from 0 to 10")],
        "how often an experiment that crashed in the lines it edited may be repaired",
    ] = 2
    fill_idle: Annotated[Literal["none", "sweep"], "what an idle device tries while the proposer is not ready"] = "none"
    ahead: Annotated[
        Annotated[int, Meta(ge=0, le=4, title="a whole number from 0 to 4")],
        "proposals made for each device while it trains; with 0 the next one is asked for when the device is free",
    ] = 1
    retry_s: Annotated[
        Positive, "first pause after an ask that failed for an outside reason; it doubles up to 300 s"
    ] = 2.0


class Range(Table, frozen=True):
    """A constant drawn between two numbers; it stays a whole number where both are written as whole numbers."""

    low: Annotated[Number, "the least value"]
    high: Annotated[Number, "the greatest value, more than low"]
    log: Annotated[bool, "draw evenly in the logarithm; low must be greater than 0"] = False


class Choice(Table, frozen=True):
    """A constant drawn from a list."""

    choices: Annotated[Choices, "the values"]


Sweep = Range | Choice


class RunLimits(Table, frozen=True):
    """When a run ends by itself. A missing limit means never."""

    experiments: Annotated[Count | None, "verdicts after the baseline"] = None
    until: Annotated[Until | None, "a time of day is the next one in the zone of the person who asks"] = None
    usd: Annotated[Positive | None, "money for proposals; a model without a price is refused then"] = None


class Verdict(Table, frozen=True):
    """What is kept."""

    rule: Annotated[
        Literal["strict", "confirm"], "`strict`: better than the best is kept; `confirm`: measured against seed noise"
    ] = "strict"
    equal_within: Annotated[NotNegative, "scores this close count as equal"] = 0.0
    gain_per_line: Annotated[NotNegative, "a gain smaller than this times the net lines added is discarded"] = 0.0
    memory_factor_max: Annotated[
        Annotated[float, Meta(ge=1, title="a number of 1 or more")],
        "peak memory may grow by this factor over the best, and always by 64 MB",
    ] = 1.5


class Devices(Table, frozen=True):
    """The devices to train on. It has no keys yet: one experiment is trained at a time."""


class Sandbox(Table, frozen=True):
    """How experiments and guards are isolated. `nightshift doctor` says what this machine offers."""

    mode: Annotated[
        Literal["required", "best", "off"],
        "`required`: no run without full isolation, `best`: as much as this machine offers, `off`: none",
    ] = "best"
    read: Annotated[
        Folders,
        "what they may read besides the system, Python and the prepared corpus, such as a folder of data; what is not "
        "absolute lies in the workspace",
    ] = ()
    network: Annotated[bool, "whether they may use the network"] = False
    memory_mb: Annotated[
        Count | None, "memory that one of them may hold, in MiB; absent: nine tenths of the machine's"
    ] = None
    processes: Annotated[Count, "processes and threads that one of them may have at once"] = 4096
    disk_mb: Annotated[Count, "size that its work folder, and one file, may have, in MiB"] = 65_536
    tmp_mb: Annotated[Count, "size of its /tmp and of its /dev/shm, in MiB; both are in memory"] = 1024


class Slack(Table, frozen=True):
    """
    The Slack bot. Its tokens come from the environment of `nightshift bot`: SLACK_BOT_TOKEN and SLACK_APP_TOKEN.

    Everyone of the workspace may look. Whoever is in neither list may do no more, so without both lists nobody can
    start or stop a run from Slack. Guests, bots and people of other workspaces may not even look.
    """

    channel: Annotated[Channel | None, "where runs are posted and commands are taken"] = None
    channels: Annotated[Channels, "where commands are taken besides"] = ()
    admins: Annotated[People, "who may do everything: what outlasts a run too, program.md and the digest's hour"] = ()
    operators: Annotated[People, "who may start, steer and stop runs, judge experiments and suggest ideas"] = ()


class Digest(Table, frozen=True):
    """When `slack.channel` gets its digest, until someone asks there for another hour."""

    at: Annotated[Hour, "when, every day"] = "08:00"
    zone: Annotated[Zone | None, "the clocks that are meant; absent: those of the machine that runs the bot"] = None

    @property
    def hour(self) -> str | None:
        """`at` as HH:MM; None if it is off."""
        return None if self.at == "off" else self.at


class Price(Table, frozen=True):
    """What one model costs, in US dollars per million tokens."""

    date: Annotated[Day, "the day the prices were looked up"]
    input_usd_per_mtok: Annotated[NotNegative, "input tokens that no cache held"]
    cache_write_usd_per_mtok: Annotated[NotNegative, "input tokens written to the cache, to be kept for an hour"]
    cache_read_usd_per_mtok: Annotated[NotNegative, "input tokens read from the cache"]
    output_usd_per_mtok: Annotated[NotNegative, "output tokens"]


PRICES = {
    "claude-opus-5-5": Price(
        date="2026-10-10",
        input_usd_per_mtok=4.0,
        cache_write_usd_per_mtok=8.0,
        cache_read_usd_per_mtok=0.2,
        output_usd_per_mtok=20.0,
    ),
    "claude-sonnet-5-5": Price(
        date="2026-10-10",
        input_usd_per_mtok=2.0,
        cache_write_usd_per_mtok=4.0,
        cache_read_usd_per_mtok=0.1,
        output_usd_per_mtok=10.0,
    ),
}
"""What the vendor's price list said on that day (https://platform.claude.com/docs/en/about-claude/pricing)."""


class Claude(Table, frozen=True):
    """The proposer `claude`. Its key comes from the environment of `nightshift loop`: ANTHROPIC_API_KEY."""

    model: Annotated[Text, "the model that is asked"] = "claude-opus-5-5"
    effort: Annotated[
        Literal["low", "medium", "high", "xhigh", "max"] | None,
        "how long the model may think; absent: the model's own default",
    ] = None
    prompt_tokens: Annotated[
        Annotated[int, Meta(ge=4_000, le=500_000, title="a whole number from 4000 to 500000")],
        "the most that one proposal's prompt may take, by a cautious estimate of tokens",
    ] = 60_000
    output_tokens: Annotated[
        Annotated[int, Meta(ge=1_000, le=128_000, title="a whole number from 1000 to 128000")],
        "the most that the model may write for one proposal, its thinking included",
    ] = 32_000
    reads: Annotated[
        Annotated[int, Meta(ge=0, le=10, title="a whole number from 0 to 10")],
        "past experiments it may look up for one proposal",
    ] = 3
    timeout_s: Annotated[Positive, "wall clock in seconds for one call"] = 600.0
    prices: Annotated[
        dict[str, Price],
        "prices by the model's name, instead of the ones built in; a model that is not here has no known price",
    ] = msgspec.field(default_factory=lambda: dict(PRICES))


class Agent(Table, frozen=True):
    """The proposer `agent`: any coding agent with a command line."""

    command: Annotated[Command | None, "what is run in a folder of the proposal's own"] = None
    timeout_s: Annotated[Positive, "wall clock in seconds for one proposal"] = 600.0
    network: Annotated[bool, "whether it may use the network"] = False
    secrets: Annotated[Names, "environment variables it may see"] = ()
    sandbox: Annotated[bool, "whether it is isolated as experiments are, by `sandbox.mode`"] = False
    files: Annotated[
        Folders, "with `sandbox`: what it may read and write besides its folder, such as its settings and its login"
    ] = ()


class ScriptedProposals(Table, frozen=True):
    """The proposer `scripted`: rehearsals and tests with proposals that are known beforehand."""

    file: Annotated[Path, "JSON file in the workspace: a list of answers, each with experiment, description, edits"] = (
        "proposals.json"
    )


class Settings(Table, frozen=True):
    """The whole file. Only [objective] and [experiment] have keys that must be there."""

    objective: Objective
    experiment: Experiment
    guard: Guard | None = None
    proposer: Proposer = Proposer()
    sweep: Annotated[dict[str, Sweep], "constants of the editable Python files by name"] = {}
    limits: RunLimits = RunLimits()
    verdict: Verdict = Verdict()
    devices: Devices = Devices()
    sandbox: Sandbox = Sandbox()
    slack: Slack = Slack()
    digest: Digest = Digest()
    claude: Claude = Claude()
    agent: Agent = Agent()
    scripted: ScriptedProposals = ScriptedProposals()


# ---------------------------------------------------------------- reading and writing


def parse(text: str) -> Settings:
    """Read the text of nightshift.toml. Raises `SettingsError` for anything that is not valid, naming the key."""
    try:
        data = tomllib.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:  # ValueError: bad TOML, or an integer of thousands of digits
        raise SettingsError("", f"not valid TOML: {error}") from error
    return from_data(data)


def from_data(data: Mapping[str, Any]) -> Settings:
    """Build settings from tables as TOML or JSON give them. Raises `SettingsError` naming the first bad key."""
    _refuse_unstorable(data, "")
    settings = _read_table(Settings, data, "")
    for key, problem in _contradictions(settings):
        raise SettingsError(key, problem)
    return settings


def to_data(settings: Settings) -> dict[str, Any]:
    """Write settings as plain dicts, lists and scalars, defaults included; what is not set is left out, never null."""
    return cast("dict[str, Any]", _without_none(msgspec.to_builtins(settings)))


def resolve(settings: Settings, overrides: Mapping[str, Any]) -> Settings:
    """
    Lay dotted overrides such as `{"limits.experiments": 5}` over the settings.

    Raises:
        SettingsError: If a key is unknown or the result is not valid.
    """
    data = to_data(settings)
    for dotted, value in overrides.items():
        *tables, last = dotted.split(".")
        table = data
        for name in tables:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise SettingsError(dotted, f"unknown key: {name} is no table")
        table[last] = value
    return from_data(data)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_none(part) for name, part in value.items() if part is not None}
    if isinstance(value, list | tuple):
        return [_without_none(part) for part in value]
    return value


# ---------------------------------------------------------------- one key of a table


class Key(msgspec.Struct, frozen=True):
    """
    One key of a table, as its annotation declares it.

    Attributes:
        type: What msgspec converts to, limits included, without the None of an optional key.
        expected: The phrase after "expected" in an error.
        meaning: One sentence for people; empty for a key that is a table of its own.
        default: Undefined (`msgspec.NODEFAULT`) for a key that must be there.
    """

    name: str
    type: Any
    expected: str
    meaning: str
    default: Any

    @property
    def required(self) -> bool:
        return self.default is msgspec.NODEFAULT


@cache
def keys(table: type[Table]) -> dict[str, Key]:
    """Every key of *table* by its name, in the order of the class."""
    return {field.name: _key(field) for field in msgspec.structs.fields(table)}


def _key(field: msgspec.structs.FieldInfo) -> Key:
    meaning = next((note for note in getattr(field.type, "__metadata__", ()) if isinstance(note, str)), "")
    kind = _without_optional(field.type)
    default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
    return Key(field.name, kind, _expected(kind), meaning, default)


def _without_optional(kind: Any) -> Any:
    """`Annotated[X | None, …]` and `X | None` become X; anything else stays."""
    core = _core(kind)
    if get_origin(core) not in (Union, types.UnionType) or types.NoneType not in get_args(core):
        return kind
    return next(arm for arm in get_args(core) if arm is not types.NoneType)


def _core(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _table_of(kind: Any) -> type[Table] | None:
    core = _core(kind)
    return core if isinstance(core, type) and issubclass(core, Table) else None


def _expected(kind: Any) -> str:
    titles = [note.title for note in getattr(kind, "__metadata__", ()) if isinstance(note, Meta) and note.title]
    if titles:
        return titles[-1]
    core = _core(kind)
    if get_origin(core) is Literal:
        return "one of " + ", ".join(repr(word) for word in get_args(core))
    if core is bool:
        return "true or false"
    return "a table"


# ---------------------------------------------------------------- values to typed tables


T = TypeVar("T", bound=Table)


def _read_table(table: type[T], data: object, at: str) -> T:
    if not isinstance(data, dict):
        raise SettingsError(at, f"got {_show(data)}, expected a table")
    known = keys(table)
    for name, value in data.items():
        if name not in known:
            problem = f"unknown key with the value {_show(value)}; {_hint(name, at, known)}"
            raise SettingsError(_dotted(at, name), problem)
    found: dict[str, Any] = {}
    for key in known.values():
        if key.name in data:
            found[key.name] = _read(key, data[key.name], _dotted(at, key.name))
        elif key.required:
            if part := _table_of(key.type):
                _read_table(part, {}, key.name)  # names the first key that is missing inside
            raise SettingsError(_dotted(at, key.name), f"missing, expected {key.expected}")
    return table(**found)


def _read(key: Key, value: object, at: str) -> Any:
    if table := _table_of(key.type):
        return _read_table(table, value, at)
    if get_origin(_core(key.type)) is dict:
        return _read_named(get_args(_core(key.type))[1], value, at)
    try:
        return msgspec.convert(value, key.type)
    except msgspec.ValidationError as error:
        raise SettingsError(at, f"got {_show(value)}, expected {key.expected}") from error


def _read_named(kind: Any, value: object, at: str) -> dict[str, Any]:
    """A table whose names are free, such as [sweep]."""
    if not isinstance(value, dict):
        raise SettingsError(at, f"got {_show(value)}, expected a table")
    return {name: _read_one_of(kind, part, _dotted(at, name)) for name, part in value.items()}


def _read_one_of(kind: Any, value: object, at: str) -> Table:
    table = _table_of(kind)
    if table is not None:
        return _read_table(table, value, at)
    if not isinstance(value, dict):
        problem = f"got {_show(value)}, expected {{ low = 0.01, high = 0.1 }} or {{ choices = [2, 4] }}"
        raise SettingsError(at, problem)
    return _read_table(Choice if "choices" in value else Range, value, at)


def _hint(name: str, at: str, known: Mapping[str, Key]) -> str:
    if near := get_close_matches(name, known, n=1):
        return f"did you mean {_dotted(at, near[0])}?"
    for table in keys(Settings).values():
        if (part := _table_of(table.type)) and name in keys(part):
            return f"did you mean {table.name}.{name}?"
    return f"known here: {', '.join(known) or 'nothing yet'}"


def _refuse_unstorable(value: object, at: str) -> None:
    """The log holds JSON: finite numbers, whole numbers of 64 bits, text that is UTF-8. NUL ends a command's word."""
    if isinstance(value, dict):
        for name, part in value.items():
            _refuse_unstorable(part, _dotted(at, name))
    elif isinstance(value, list | tuple):
        for part in value:
            _refuse_unstorable(part, at)
    elif isinstance(value, float) and not math.isfinite(value):
        raise SettingsError(at, f"got {value}, expected a finite number")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise SettingsError(at, "got a whole number of more than 64 bits, expected a smaller one")
    elif isinstance(value, str) and any(char == "\0" or "\ud800" <= char <= "\udfff" for char in value):
        raise SettingsError(at, f"got {_show(value)}, expected text without NUL and lone surrogates")


def _dotted(at: str, name: str) -> str:
    shown = name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else repr(name)
    return f"{at}.{shown}" if at else shown


_SECRET = re.compile(r"\b(xox[a-z]-|xapp-|sk-)[A-Za-z0-9_-]{4,}")
"""A token or key that someone wrote into the file by mistake; it must not come back in a message."""


def _show(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "nothing"
    shown = str(value) if isinstance(value, date | time) else repr(value)
    shown = _SECRET.sub(r"\1…", shown)
    return shown if len(shown) <= 80 else shown[:77] + "..."


# ---------------------------------------------------------------- what no single type can say


def _contradictions(settings: Settings) -> Iterator[tuple[str, str]]:
    """Every key that is impossible by its form or beside another key, with what was expected."""
    yield from _objective_faults(settings.objective)
    yield from _path_faults(settings.objective)
    yield from _command_faults(settings)
    yield from _sweep_faults(settings.sweep)
    if settings.limits.until is not None and _moment(settings.limits.until) is None:
        yield "limits.until", _unexpected(RunLimits, "until", settings.limits.until)
    for model, price in settings.claude.prices.items():
        if not _is_day(price.date):
            yield _dotted("claude.prices", model) + ".date", _unexpected(Price, "date", price.date)
    if settings.digest.zone is not None and not _is_zone(settings.digest.zone):
        yield "digest.zone", _unexpected(Digest, "zone", settings.digest.zone)
    if not _is_inside(settings.scripted.file):
        yield "scripted.file", _unexpected(ScriptedProposals, "file", settings.scripted.file)
    for secret in settings.agent.secrets:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", secret):
            yield "agent.secrets", _unexpected(Agent, "secrets", secret)


def _unexpected(table: type[Table], name: str, value: object) -> str:
    return f"got {_show(value)}, expected {keys(table)[name].expected}"


COLUMNS = frozenset({"commit", "memory_gb", "status", "description"})
"""The other columns of results.tsv, which an objective's name must not repeat."""


def _objective_faults(objective: Objective) -> Iterator[tuple[str, str]]:
    name, score = objective.name, objective.score
    if not re.fullmatch(r"[^\s:]+", name) or not name.isprintable():
        yield "objective.name", _unexpected(Objective, "name", name)
    if name in COLUMNS:
        yield "objective.name", f"got {name!r}, expected a word that is not another column of results.tsv"
    if objective.direction == "pass" and score != "stdout":
        yield "objective.score", f"got {score!r}, expected no such key: with direction = 'pass' the exit code scores"
    for key, value in (("score_file", objective.score_file), ("score_key", objective.score_key)):
        if score == "json" and value is None:
            yield f"objective.{key}", f"missing, expected {keys(Objective)[key].expected} with score = 'json'"
        if score != "json" and value is not None:
            yield f"objective.{key}", f"got {value!r}, expected no such key with score = {score!r}"


def _path_faults(objective: Objective) -> Iterator[tuple[str, str]]:
    if not objective.editable:
        yield "objective.editable", _unexpected(Objective, "editable", [])
    for key, patterns in (("editable", objective.editable), ("protected", objective.protected)):
        for pattern in patterns:
            if not _is_inside(pattern):
                yield f"objective.{key}", _unexpected(Objective, key, pattern)
    for pattern in objective.editable:
        for theirs in ("program.md", "nightshift.toml"):
            if matches(pattern, theirs):
                yield "objective.editable", f"got {pattern!r}, expected nothing that matches {theirs}: people write it"
        for guarded in objective.protected:
            if pattern == guarded or matches(pattern, guarded) or matches(guarded, pattern):
                yield "objective.editable", f"got {pattern!r}, expected no overlap with protected = [{guarded!r}]"
    yield from _score_file_faults(objective)


def _score_file_faults(objective: Objective) -> Iterator[tuple[str, str]]:
    score_file = objective.score_file
    if score_file is None:
        return
    if not _is_inside(score_file):
        yield "objective.score_file", _unexpected(Objective, "score_file", score_file)
    for pattern in objective.editable + objective.protected:
        if matches(pattern, score_file):
            yield "objective.score_file", f"got {score_file!r}, expected a file that {pattern!r} does not match"


def _command_faults(settings: Settings) -> Iterator[tuple[str, str]]:
    commands = (
        ("experiment", settings.experiment.command),
        ("guard", settings.guard.command if settings.guard else None),
        ("agent", settings.agent.command),
    )
    for table, command in commands:
        if command is not None and not command[0].strip():
            yield f"{table}.command", _unexpected(Experiment, "command", list(command))
    budget_s, timeout_s = settings.experiment.budget_s, settings.experiment.timeout_s
    if timeout_s < budget_s:
        yield "experiment.timeout_s", f"got {timeout_s:g}, expected at least budget_s = {budget_s:g}"


def _sweep_faults(sweep: Mapping[str, Sweep]) -> Iterator[tuple[str, str]]:
    for name, values in sweep.items():
        at = _dotted("sweep", name)
        if not name.isidentifier():
            yield at, f"got the name {name!r}, expected the name of a constant such as MATRIX_LR"
        if isinstance(values, Range):
            if not values.low < values.high:
                yield f"{at}.high", f"got {values.high}, expected a number greater than low = {values.low}"
            if values.log and values.low <= 0:
                yield f"{at}.low", f"got {values.low}, expected a number greater than 0 with log = true"


def _is_inside(path: str) -> bool:
    """Relative, in plain parts, and not in git's folder or ours."""
    parts = path.split("/")
    plain = all(part not in ("", ".", "..") for part in parts) and path.isprintable() and "\\" not in path
    return plain and parts[0] not in (".git", ".nightshift")


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # unknown, malformed, a folder of zones such as "Europe"
        return False
    return True


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


# ---------------------------------------------------------------- questions others ask


def matches(pattern: str, path: str) -> bool:
    """
    Whether *path*, relative with forward slashes, is meant by *pattern* of `editable` or `protected`.

    `*` and `?` stand for characters of one name, `**` for any number of folders; everything else is
    literal, square brackets too, because file names may hold them. A folder means itself, not what is
    in it: write `data/**`.
    """
    return _glob(pattern).fullmatch(path) is not None


@lru_cache(maxsize=1024)
def _glob(pattern: str) -> re.Pattern[str]:
    wild = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    return re.compile("".join(wild.get(part, re.escape(part)) for part in parts), re.DOTALL)


NOT_BUILT: dict[str, tuple[tuple[str, ...], str]] = {
    "verdict.rule": (("confirm",), "'strict'"),
}
"""Values that are valid but that no run can start with yet, and what to set instead."""


def not_built_yet(settings: Settings) -> str | None:
    """One sentence, remedy included, if the settings ask for what this version cannot do; None if it can."""
    for dotted, (values, instead) in NOT_BUILT.items():
        table, name = dotted.split(".")
        value = getattr(getattr(settings, table), name)
        if value in values:
            return f"nightshift.toml: {dotted} = {value!r} is not built yet: set it to {instead}"
    return None


def nothing_to_sweep(settings: Settings) -> str | None:
    """One sentence if the proposer is `sweep` and [sweep] names no constant; else None."""
    if settings.proposer.kind == "sweep" and not settings.sweep:
        return "nightshift.toml: [sweep] is empty: name at least one constant, such as LR = { low = 0.01, high = 0.1 }"
    return None


def resolve_until(text: str, zone: str, now: datetime) -> datetime:
    """
    Turn `limits.until` into a moment, in UTC.

    A time of day is the next one after *now* on the clocks of *zone* (IANA). If a clock change skips it,
    it is moved by the length of the change (02:30 becomes 03:30); if a change repeats it, it is the first
    of both that is still to come. A time with an offset is itself, even in the past.

    Raises:
        SettingsError: If *text* has neither form, or *zone* is not known.
    """
    moment = _moment(text)
    if moment is None:
        raise SettingsError("limits.until", _unexpected(RunLimits, "until", text))
    if isinstance(moment, datetime):
        return moment
    try:
        clocks = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:  # OSError: a folder of zones such as "Europe"
        problem = f"got {text!r} in the zone {zone!r}, expected an IANA zone such as 'Europe/Berlin'"
        raise SettingsError("limits.until", problem) from error
    today = now.astimezone(clocks).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None, fold=0)
    for day in range(3):
        local = (today + timedelta(days=day) + moment).replace(tzinfo=clocks)
        first, second = local.astimezone(UTC), local.replace(fold=1).astimezone(UTC)
        for candidate in (first, max(first, second)):
            if candidate > now:
                return candidate
    raise SettingsError("limits.until", f"got {text!r}, which does not come in the zone {zone!r}")


def _moment(text: str) -> timedelta | datetime | None:
    """A time of day as the time since midnight, a full time as UTC, anything else as None."""
    if re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", text):
        hours, minutes = text.split(":")
        return timedelta(hours=int(hours), minutes=int(minutes))
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None
