"""What nightshift.toml may say, what it means, and what each mistake is answered with."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eventstore.errors import SettingsError
from eventstore.settings import (
    Choice,
    Experiment,
    Guard,
    Objective,
    Range,
    Settings,
    Verdict,
    from_data,
    keys,
    matches,
    not_built_yet,
    nothing_to_sweep,
    parse,
    resolve,
    resolve_until,
    to_data,
)

SMALLEST = """
[objective]
name = "val_bpb"
direction = "minimize"
editable = ["train.py"]
[experiment]
command = ["python", "train.py"]
"""

FULL = """
[objective]
name = "accuracy"
direction = "maximize"
score = "json"
score_file = "out/score.json"
score_key = "accuracy"
editable = ["train.py", "src/**/*.py"]
protected = ["prepare.py"]
[experiment]
command = ["python", "train.py"]
budget_s = 2
timeout_s = 30.5
[guard]
command = ["pytest", "-q"]
[proposer]
kind = "sweep"
approval = "none"
repair_attempts = 0
fill_idle = "none"
[sweep]
MATRIX_LR = { low = 0.005, high = 0.2, log = true }
DEPTH = { low = 2, high = 8 }
ACTIVATION = { choices = ["relu2", 1, 0.5, false] }
[limits]
experiments = 100
until = "08:00"
usd = 20
[verdict]
rule = "strict"
equal_within = 0.0005
gain_per_line = 0.0001
memory_factor_max = 2
[devices]
[sandbox]
mode = "off"
read = ["/data", "~/texts"]
network = true
memory_mb = 8000
processes = 500
disk_mb = 10000
tmp_mb = 512
[slack]
channel = "C0123ABCDEF"
channels = ["G0123ABCDEF"]
admins = ["U0123ABCDEF", "S0123ABCDEF"]
operators = ["W0123ABCDEF"]
[digest]
at = "07:30"
zone = "Europe/Berlin"
[claude]
model = "some-model"
[claude.prices."some-model"]
date = "2026-09-01"
input_usd_per_mtok = 3
cache_write_usd_per_mtok = 3.75
cache_read_usd_per_mtok = 0.3
output_usd_per_mtok = 15
[agent]
command = ["some-agent", "--print"]
timeout_s = 900
network = true
secrets = ["AGENT_API_KEY"]
sandbox = true
files = ["~/.some-agent"]
[scripted]
file = "answers.json"
"""


def smallest(**tables: dict[str, Any]) -> dict[str, Any]:
    """The smallest settings as data, with *tables* laid over them key by key."""
    data: dict[str, Any] = {
        "objective": {"name": "val_bpb", "direction": "minimize", "editable": ["train.py"]},
        "experiment": {"command": ["python", "train.py"]},
    }
    for name, table in tables.items():
        data.setdefault(name, {}).update(table)
    return data


# ---------------------------------------------------------------- what is valid


def test_a_foreign_repository_needs_four_keys() -> None:
    assert parse(SMALLEST) == Settings(
        objective=Objective(name="val_bpb", direction="minimize", editable=("train.py",)),
        experiment=Experiment(command=("python", "train.py")),
    )


def test_defaults_are_upstreams_times_and_a_strict_verdict() -> None:
    settings = parse(SMALLEST)
    assert (settings.experiment.budget_s, settings.experiment.timeout_s) == (300.0, 600.0)
    assert settings.verdict == Verdict(rule="strict", equal_within=0.0, gain_per_line=0.0, memory_factor_max=1.5)
    assert (settings.guard, settings.proposer.kind, settings.proposer.repair_attempts) == (None, "sweep", 2)
    assert settings.objective.protected == ()
    assert (settings.limits.experiments, settings.limits.until, settings.limits.usd) == (None, None, None)


def test_every_key_of_every_table_can_be_set() -> None:
    settings = parse(FULL)
    assert settings.objective.editable == ("train.py", "src/**/*.py")
    assert settings.guard == Guard(command=("pytest", "-q"), timeout_s=600.0)
    assert settings.sweep == {
        "MATRIX_LR": Range(low=0.005, high=0.2, log=True),
        "DEPTH": Range(low=2, high=8),
        "ACTIVATION": Choice(choices=("relu2", 1, 0.5, False)),
    }
    assert settings.claude.prices["some-model"].cache_write_usd_per_mtok == 3.75
    assert settings.agent.secrets == ("AGENT_API_KEY",)


def test_whole_numbers_of_a_sweep_stay_whole_through_the_log() -> None:
    settings = from_data(json.loads(json.dumps(to_data(parse(FULL)))))
    depth, rate = settings.sweep["DEPTH"], settings.sweep["MATRIX_LR"]
    assert isinstance(depth, Range)
    assert isinstance(rate, Range)
    assert [type(number) for number in (depth.low, depth.high, rate.low)] == [int, int, float]


def test_a_byte_order_mark_of_an_editor_is_no_fault() -> None:
    assert parse("\ufeff" + SMALLEST) == parse(SMALLEST)


@pytest.mark.parametrize("text", [SMALLEST, FULL])
def test_what_is_recorded_reads_back_as_the_same_settings(text: str) -> None:
    settings = parse(text)
    recorded = json.dumps(to_data(settings))
    assert from_data(json.loads(recorded)) == settings
    assert "null" not in recorded


def test_what_is_recorded_names_every_default() -> None:
    assert to_data(parse(SMALLEST))["verdict"] == {
        "rule": "strict",
        "equal_within": 0.0,
        "gain_per_line": 0.0,
        "memory_factor_max": 1.5,
    }


def test_every_key_has_a_meaning_and_an_expectation() -> None:
    for table in keys(Settings).values():
        for key in keys(table.type).values() if isinstance(table.type, type) else ():
            assert key.meaning, (table.name, key.name)
            assert key.expected, (table.name, key.name)


# ---------------------------------------------------------------- what is refused, and in which words

A_PATH = "expected a list of paths or globs inside the repository such as ['train.py']"
A_COMMAND = "expected a list of words such as ['python', 'train.py'], the first not empty"
A_MOMENT = "expected a time of day such as '08:00', or a time with date and offset such as '2026-11-22T08:00+01:00'"
A_CHANNEL = "expected a channel's id such as 'C0123ABCDEF', not its name"
JSON = {"score": "json", "score_file": "score.json", "score_key": "loss"}

REFUSED: list[tuple[dict[str, Any], str]] = [
    # wrong names
    (
        {"experiment": {"budget": 3}},
        "experiment.budget: unknown key with the value 3; did you mean experiment.budget_s?",
    ),
    ({"verdict": {"budget_s": 3}}, "verdict.budget_s: unknown key with the value 3; did you mean experiment.budget_s?"),
    ({"slak": {"x": 1}}, "slak: unknown key with the value {'x': 1}; did you mean slack?"),
    ({"devices": {"zzz": 1}}, "devices.zzz: unknown key with the value 1; known here: nothing yet"),
    ({"sandbox": {"zzz": "on"}}, "sandbox.zzz: unknown key with the value 'on'; known here: mode"),
    ({"sandbox": {"a b\n": 1}}, "sandbox.'a b\\n': unknown key with the value 1; known here: mode"),
    # wrong types
    ({"experiment": {"budget_s": "300"}}, "experiment.budget_s: got '300', expected a number greater than 0"),
    ({"experiment": {"budget_s": True}}, "experiment.budget_s: got true, expected a number greater than 0"),
    ({"experiment": {"command": "python train.py"}}, f"experiment.command: got 'python train.py', {A_COMMAND}"),
    ({"experiment": {"command": ["python", 3]}}, f"experiment.command: got ['python', 3], {A_COMMAND}"),
    ({"proposer": {"repair_attempts": 2.0}}, "proposer.repair_attempts: got 2.0, expected a whole number from 0 to 10"),
    ({"agent": {"network": 1}}, "agent.network: got 1, expected true or false"),
    ({"limits": {"experiments": None}}, "limits.experiments: got nothing, expected a whole number of 1 or more"),
    ({"sweep": {"LR": [1, 2]}}, "sweep.LR: got [1, 2], expected { low = 0.01, high = 0.1 } or { choices = [2, 4] }"),
    # impossible values
    ({"experiment": {"budget_s": -3}}, "experiment.budget_s: got -3, expected a number greater than 0"),
    ({"experiment": {"budget_s": 0}}, "experiment.budget_s: got 0, expected a number greater than 0"),
    ({"experiment": {"budget_s": math.nan}}, "experiment.budget_s: got nan, expected a finite number"),
    ({"experiment": {"timeout_s": math.inf}}, "experiment.timeout_s: got inf, expected a finite number"),
    ({"experiment": {"timeout_s": 299}}, "experiment.timeout_s: got 299, expected at least budget_s = 300"),
    ({"experiment": {"command": []}}, f"experiment.command: got [], {A_COMMAND}"),
    ({"experiment": {"command": [" ", "x"]}}, f"experiment.command: got [' ', 'x'], {A_COMMAND}"),
    (
        {"experiment": {"command": ["a\0b"]}},
        "experiment.command: got 'a\\x00b', expected text without NUL and lone surrogates",
    ),
    (
        {"experiment": {"command": ["\ud800"]}},
        "experiment.command: got '\\ud800', expected text without NUL and lone surrogates",
    ),
    ({"guard": {"command": []}}, f"guard.command: got [], {A_COMMAND}"),
    ({"guard": {"timeout_s": 3}}, f"guard.command: missing, {A_COMMAND}"),
    ({"verdict": {"equal_within": -0.1}}, "verdict.equal_within: got -0.1, expected a number of 0 or more"),
    ({"verdict": {"gain_per_line": -1}}, "verdict.gain_per_line: got -1, expected a number of 0 or more"),
    ({"verdict": {"memory_factor_max": 0.9}}, "verdict.memory_factor_max: got 0.9, expected a number of 1 or more"),
    ({"verdict": {"rule": "lenient"}}, "verdict.rule: got 'lenient', expected one of 'strict', 'confirm'"),
    ({"proposer": {"repair_attempts": 11}}, "proposer.repair_attempts: got 11, expected a whole number from 0 to 10"),
    (
        {"proposer": {"kind": "swep"}},
        "proposer.kind: got 'swep', expected one of 'sweep', 'claude', 'agent', 'scripted'",
    ),
    ({"limits": {"experiments": 0}}, "limits.experiments: got 0, expected a whole number of 1 or more"),
    (
        {"limits": {"experiments": 2**63}},
        "limits.experiments: got a whole number of more than 64 bits, expected a smaller one",
    ),
    ({"limits": {"usd": 0}}, "limits.usd: got 0, expected a number greater than 0"),
    ({"limits": {"until": "8:00"}}, f"limits.until: got '8:00', {A_MOMENT}"),
    ({"limits": {"until": "24:00"}}, f"limits.until: got '24:00', {A_MOMENT}"),
    ({"limits": {"until": "2026-11-22T08:00"}}, f"limits.until: got '2026-11-22T08:00', {A_MOMENT}"),
    ({"limits": {"until": "0001-01-01T00:00+01:00"}}, f"limits.until: got '0001-01-01T00:00+01:00', {A_MOMENT}"),
    # the objective
    (
        {"objective": {"direction": "down"}},
        "objective.direction: got 'down', expected one of 'minimize', 'maximize', 'pass'",
    ),
    ({"objective": {"score": "file"}}, "objective.score: got 'file', expected one of 'stdout', 'json', 'sealed'"),
    (
        {"objective": {"name": "val bpb"}},
        "objective.name: got 'val bpb', expected one word without spaces or colons such as 'val_bpb'",
    ),
    (
        {"objective": {"name": "val:bpb"}},
        "objective.name: got 'val:bpb', expected one word without spaces or colons such as 'val_bpb'",
    ),
    (
        {"objective": {"name": ""}},
        "objective.name: got '', expected one word without spaces or colons such as 'val_bpb'",
    ),
    (
        {"objective": {"name": "status"}},
        "objective.name: got 'status', expected a word that is not another column of results.tsv",
    ),
    (
        {"objective": {"score": "json", "score_key": "loss"}},
        "objective.score_file: missing, expected a path inside the repository such as 'out/score.json' "
        "with score = 'json'",
    ),
    (
        {"objective": {"score": "json", "score_file": "score.json"}},
        "objective.score_key: missing, expected text in quotes with score = 'json'",
    ),
    (
        {"objective": {"score_file": "score.json"}},
        "objective.score_file: got 'score.json', expected no such key with score = 'stdout'",
    ),
    (
        {"objective": {**JSON, "score_file": "/tmp/score.json"}},
        "objective.score_file: got '/tmp/score.json', expected a path inside the repository such as 'out/score.json'",
    ),
    (
        {"objective": {**JSON, "score_file": "train.py"}},
        "objective.score_file: got 'train.py', expected a file that 'train.py' does not match",
    ),
    (
        {"objective": {**JSON, "direction": "pass"}},
        "objective.score: got 'json', expected no such key: with direction = 'pass' the exit code scores",
    ),
    ({"objective": {"editable": []}}, f"objective.editable: got [], {A_PATH}"),
    ({"objective": {"editable": ["../x.py"]}}, f"objective.editable: got '../x.py', {A_PATH}"),
    ({"objective": {"editable": ["./x.py"]}}, f"objective.editable: got './x.py', {A_PATH}"),
    ({"objective": {"editable": ["a//x.py"]}}, f"objective.editable: got 'a//x.py', {A_PATH}"),
    ({"objective": {"editable": ["src\\x.py"]}}, f"objective.editable: got 'src\\\\x.py', {A_PATH}"),
    ({"objective": {"protected": [".git/config"]}}, f"objective.protected: got '.git/config', {A_PATH}"),
    (
        {"objective": {"protected": ["train.py"]}},
        "objective.editable: got 'train.py', expected no overlap with protected = ['train.py']",
    ),
    (
        {"objective": {"protected": ["*.py"]}},
        "objective.editable: got 'train.py', expected no overlap with protected = ['*.py']",
    ),
    (
        {"objective": {"editable": ["src/**"], "protected": ["src/eval/score.py"]}},
        "objective.editable: got 'src/**', expected no overlap with protected = ['src/eval/score.py']",
    ),
    (
        {"objective": {"editable": ["*.md"]}},
        "objective.editable: got '*.md', expected nothing that matches program.md: people write it",
    ),
    # sweeps
    ({"sweep": {"LR": {"low": 2, "high": 1}}}, "sweep.LR.high: got 1, expected a number greater than low = 2"),
    ({"sweep": {"LR": {"low": 1, "high": 1}}}, "sweep.LR.high: got 1, expected a number greater than low = 1"),
    ({"sweep": {"LR": {"low": 1}}}, "sweep.LR.high: missing, expected a number"),
    ({"sweep": {"LR": {"low": True, "high": 2}}}, "sweep.LR.low: got true, expected a number"),
    (
        {"sweep": {"LR": {"low": 0, "high": 1, "log": True}}},
        "sweep.LR.low: got 0, expected a number greater than 0 with log = true",
    ),
    (
        {"sweep": {"LR": {"choices": []}}},
        "sweep.LR.choices: got [], expected a list of numbers, texts or true/false such as [2, 4, 8]",
    ),
    (
        {"sweep": {"LR": {"choices": [[1]]}}},
        "sweep.LR.choices: got [[1]], expected a list of numbers, texts or true/false such as [2, 4, 8]",
    ),
    (
        {"sweep": {"a-b": {"low": 1, "high": 2}}},
        "sweep.a-b: got the name 'a-b', expected the name of a constant such as MATRIX_LR",
    ),
    # Slack
    ({"slack": {"channel": "#research"}}, f"slack.channel: got '#research', {A_CHANNEL}"),
    ({"slack": {"channel": "U0123ABCDEF"}}, f"slack.channel: got 'U0123ABCDEF', {A_CHANNEL}"),
    ({"slack": {"channel": "C0123ABCDEF\n"}}, f"slack.channel: got 'C0123ABCDEF\\n', {A_CHANNEL}"),
    ({"slack": {"channel": ["C1"]}}, f"slack.channel: got ['C1'], {A_CHANNEL}"),
    ({"slack": {"channels": "C1"}}, "slack.channels: got 'C1', expected a list of channels' ids such as"),
    ({"slack": {"channels": ["research"]}}, "slack.channels: got ['research'], expected a list of channels' ids"),
    ({"slack": {"admins": ["@ada"]}}, "slack.admins: got ['@ada'], expected a list of ids of people (U… or W…)"),
    ({"slack": {"operators": ["C1"]}}, "slack.operators: got ['C1'], expected a list of ids of people"),
    ({"slack": {"admin": ["U1"]}}, "slack.admin: unknown key with the value ['U1']; did you mean slack.admins?"),
    ({"slack": {"token": "xoxb-1234-abcd"}}, "slack.token: unknown key with the value 'xoxb-…'; known here: channel"),
    ({"digest": {"at": "8:00"}}, "digest.at: got '8:00', expected a time of day such as '08:00', or 'off'"),
    ({"digest": {"at": "24:00"}}, "digest.at: got '24:00', expected a time of day such as '08:00', or 'off'"),
    ({"digest": {"zone": "Mars"}}, "digest.zone: got 'Mars', expected an IANA time zone such as 'Europe/Berlin'"),
    ({"digest": {"zone": "Europe"}}, "digest.zone: got 'Europe', expected an IANA time zone such as 'Europe/Berlin'"),
    # the others
    ({"agent": {"secrets": ["A=B"]}}, "agent.secrets: got 'A=B', expected a list of names of environment variables"),
    (
        {"scripted": {"file": "/etc/passwd"}},
        "scripted.file: got '/etc/passwd', expected a path inside the repository such as 'out/score.json'",
    ),
    ({"claude": {"prices": {"m": {}}}}, "claude.prices.m.date: missing, expected a date in quotes"),
]


@pytest.mark.parametrize(("tables", "sentence"), REFUSED, ids=[sentence[:60] for _, sentence in REFUSED])
def test_a_mistake_is_named_with_its_key_its_value_and_what_was_expected(tables: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        from_data(smallest(**tables))
    assert str(caught.value).startswith(f"nightshift.toml: {sentence}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "name"),
    [("objective", "name"), ("objective", "direction"), ("objective", "editable"), ("experiment", "command")],
)
def test_a_missing_key_is_named(table: str, name: str) -> None:
    data = smallest()
    del data[table][name]
    with pytest.raises(SettingsError, match=rf"{table}\.{name}: missing, expected") as caught:
        from_data(data)
    assert caught.value.key == f"{table}.{name}"


def test_an_empty_file_lacks_the_objectives_name() -> None:
    with pytest.raises(SettingsError, match=r"^nightshift\.toml: objective\.name: missing"):
        parse("")


@pytest.mark.parametrize("text", ["x =", "[a\n", "a = 1\na = 2", "[" * 5000, "x = " + "9" * 5000])
def test_what_is_not_toml_is_refused_as_such(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^nightshift\.toml: not valid TOML: "):
        parse(text)


def test_a_time_without_quotes_is_shown_as_it_was_written() -> None:
    with pytest.raises(SettingsError, match=r"limits\.until: got 08:00:00, expected a time of day such as '08:00'"):
        parse(SMALLEST + "[limits]\nuntil = 08:00:00\n")


@pytest.mark.parametrize(
    ("tables", "secret"),
    [
        ({"slack": {"bot_token": "xoxb-17653672481-QGHSoAd"}}, "17653672481"),
        ({"slack": {"channels": ["C1", "xapp-1-A0123-secret"]}}, "A0123"),
        ({"slack": {"tokens": {"app": "xapp-1-A0123-secret"}}}, "A0123"),
        ({"claude": {"key": "sk-ant-api03-secret"}}, "ant-api03"),
    ],
)
def test_a_token_in_the_file_does_not_come_back_in_the_message(tables: dict[str, Any], secret: str) -> None:
    with pytest.raises(SettingsError) as caught:
        from_data(smallest(**tables))
    assert secret not in str(caught.value) and "-…" in str(caught.value)


def test_the_digest_is_at_eight_unless_it_is_turned_off() -> None:
    assert (parse(SMALLEST).digest.hour, parse(SMALLEST).digest.zone) == ("08:00", None)
    off = parse(SMALLEST + '[digest]\nat = "off"\n')
    assert off.digest.hour is None and from_data(to_data(off)) == off


def test_without_a_slack_table_nobody_may_steer_and_nothing_is_posted() -> None:
    slack = parse(SMALLEST).slack
    assert (slack.channel, slack.channels, slack.admins, slack.operators) == (None, (), (), ())


def test_a_very_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(SettingsError) as caught:
        from_data(smallest(proposer={"kind": "x" * 10_000}))
    assert len(str(caught.value)) < 250


# ---------------------------------------------------------------- any input


TOML_WORDS = st.sampled_from(
    [
        "[objective]",
        "[sweep]",
        "[limits]",
        "name",
        "until",
        " = ",
        '"',
        "'",
        "\n",
        "[",
        "]",
        "{",
        "}",
        "nan",
        "-1",
        "0x",
    ]
)


@given(st.lists(TOML_WORDS | st.text(max_size=5), max_size=30).map("".join))
@example("[limits]\nuntil = 2026-11-22T08:00:00+01:00")
@example("x = 0x" + "f" * 9000)
def test_any_text_gives_settings_or_a_settings_error(text: str) -> None:
    for given_text in (text, SMALLEST + text):
        try:
            settings = parse(given_text)
        except SettingsError:
            continue
        assert from_data(to_data(settings)) == settings


SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUE = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)
TABLES = sorted(keys(Settings))
NAMES = sorted({name for table in keys(Settings).values() if isinstance(table.type, type) for name in keys(table.type)})


@given(
    st.dictionaries(
        st.sampled_from(TABLES), st.dictionaries(st.sampled_from(NAMES), VALUE, max_size=3) | VALUE, max_size=4
    )
)
def test_any_data_gives_settings_that_the_log_can_hold_or_a_settings_error(tables: dict[str, Any]) -> None:
    try:
        settings = from_data({**smallest(), **tables})
    except SettingsError as error:
        str(error).encode()
        return
    recorded = json.dumps(to_data(settings), allow_nan=False).encode()
    assert from_data(json.loads(recorded)) == settings


NUMBER = st.integers(-(10**6), 10**6) | st.floats(-1e6, 1e6)


@given(
    budget_s=st.floats(0, 1e6, exclude_min=True),
    spare_s=st.floats(0, 1e6),
    attempts=st.integers(0, 10),
    bounds=st.tuples(NUMBER, NUMBER).filter(lambda pair: pair[0] < pair[1]),
    choices=st.lists(st.booleans() | NUMBER | st.text(alphabet="ab", max_size=3), min_size=1, max_size=4),
)
def test_every_valid_setting_survives_the_log(
    budget_s: float, spare_s: float, attempts: int, bounds: tuple[float, float], choices: list[Any]
) -> None:
    data = smallest(
        experiment={"budget_s": budget_s, "timeout_s": budget_s + spare_s},
        proposer={"repair_attempts": attempts},
        sweep={"A": {"low": bounds[0], "high": bounds[1]}, "B": {"choices": choices}},
    )
    settings = from_data(data)
    back = from_data(json.loads(json.dumps(to_data(settings))))
    assert back == settings
    assert repr(back) == repr(settings)  # 1 == 1.0 == True, but they are not the same value for a constant


# ---------------------------------------------------------------- overrides


def test_overrides_are_laid_over_the_file() -> None:
    settings = resolve(parse(FULL), {"limits.experiments": 5, "experiment.budget_s": 1, "sweep.DEPTH.high": 4})
    assert (settings.limits.experiments, settings.limits.until) == (5, "08:00")
    assert settings.experiment.budget_s == 1.0
    assert settings.sweep["DEPTH"] == Range(low=2, high=4)


def test_an_override_can_bring_a_table_that_the_file_does_not_have() -> None:
    assert resolve(parse(SMALLEST), {"guard.command": ["pytest"]}).guard == Guard(command=("pytest",))


def test_no_overrides_change_nothing() -> None:
    assert resolve(parse(FULL), {}) == parse(FULL)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"limits.experiments": 0}, "limits.experiments: got 0, expected a whole number of 1 or more"),
        ({"limits.experiment": 5}, "limits.experiment: unknown key with the value 5; did you mean limits.experiments?"),
        ({"experiment.command.x": 5}, "experiment.command.x: unknown key: command is no table"),
        ({"experiment.budget_s": 900}, "experiment.timeout_s: got 600, expected at least budget_s = 900"),
        ({"": 5}, "'': unknown key with the value 5"),
    ],
)
def test_an_override_is_held_to_the_same_rules(overrides: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        resolve(parse(SMALLEST), overrides)
    assert str(caught.value).startswith(f"nightshift.toml: {sentence}")


# ---------------------------------------------------------------- globs


@pytest.mark.parametrize(
    ("pattern", "path", "is_meant"),
    [
        ("train.py", "train.py", True),
        ("train.py", "src/train.py", False),
        ("train.py", "trainXpy", False),
        ("*.py", "train.py", True),
        ("*.py", "src/train.py", False),
        ("**/*.py", "train.py", True),
        ("**/*.py", "a/b/train.py", True),
        ("src/**", "src/a/b.py", True),
        ("src/**", "src", False),
        ("src/**/x.py", "src/x.py", True),
        ("src/**/x.py", "src/a/b/x.py", True),
        ("src/**/x.py", "src/ax.py", False),
        ("data", "data/rows.csv", False),
        ("v?.py", "v1.py", True),
        ("v?.py", "v/.py", False),
        ("pages/[id].tsx", "pages/[id].tsx", True),
        ("pages/[id].tsx", "pages/i.tsx", False),
        ("a.py", "a.py\n", False),
    ],
)
def test_a_glob_means_what_it_says(pattern: str, path: str, is_meant: bool) -> None:
    assert matches(pattern, path) is is_meant


# ---------------------------------------------------------------- what cannot start yet


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        ({}, None),
        ({"objective": {"score": "sealed"}}, None),
        (
            {"verdict": {"rule": "confirm"}},
            "nightshift.toml: verdict.rule = 'confirm' is not built yet: set it to 'strict'",
        ),
        ({"sandbox": {"mode": "required"}}, None),
    ],
)
def test_what_is_not_built_yet_is_valid_but_named(tables: dict[str, Any], sentence: str | None) -> None:
    assert not_built_yet(from_data(smallest(**tables))) == sentence


def test_a_sweep_over_nothing_is_named() -> None:
    said = nothing_to_sweep(parse(SMALLEST))
    assert said is not None
    assert said.startswith("nightshift.toml: [sweep] is empty")
    assert nothing_to_sweep(parse(FULL)) is None


# ---------------------------------------------------------------- until


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@pytest.mark.parametrize(
    ("text", "zone", "now", "expected"),
    [
        ("08:00", "UTC", "2026-11-21T01:00Z", "2026-11-21T08:00Z"),
        ("08:00", "UTC", "2026-11-21T08:00Z", "2026-11-22T08:00Z"),  # not now but the next time
        ("08:00", "UTC", "2026-11-21T09:00Z", "2026-11-22T08:00Z"),
        ("08:00", "Europe/Berlin", "2026-11-21T22:00Z", "2026-11-22T07:00Z"),
        ("08:00", "America/Chicago", "2026-11-21T22:00Z", "2026-11-22T14:00Z"),
        ("08:00", "Asia/Kolkata", "2026-11-21T02:29Z", "2026-11-21T02:30Z"),
        # Berlin, 2026-03-29: 02:00 becomes 03:00
        ("08:00", "Europe/Berlin", "2026-03-28T22:00Z", "2026-03-29T06:00Z"),
        ("02:30", "Europe/Berlin", "2026-03-28T22:00Z", "2026-03-29T01:30Z"),  # 03:30 on the clock
        ("02:30", "Europe/Berlin", "2026-03-29T01:40Z", "2026-03-30T00:30Z"),
        # Berlin, 2026-10-25: 03:00 becomes 02:00
        ("08:00", "Europe/Berlin", "2026-10-24T21:00Z", "2026-10-25T07:00Z"),
        ("02:30", "Europe/Berlin", "2026-10-24T21:00Z", "2026-10-25T00:30Z"),  # the first of two
        ("02:30", "Europe/Berlin", "2026-10-25T00:40Z", "2026-10-25T01:30Z"),  # the second is still to come
        ("02:30", "Europe/Berlin", "2026-10-25T01:40Z", "2026-10-26T01:30Z"),
        # Chicago, 2026-03-08 and 2026-11-01
        ("02:30", "America/Chicago", "2026-03-08T05:00Z", "2026-03-08T08:30Z"),
        ("01:30", "America/Chicago", "2026-11-01T05:00Z", "2026-11-01T06:30Z"),
        # Samoa had no 2011-12-30
        ("08:00", "Pacific/Apia", "2011-12-30T09:00Z", "2011-12-30T18:00Z"),
        # a full time is itself, even in the past
        ("2026-11-22T08:00+01:00", "Asia/Tokyo", "2026-11-21T00:00Z", "2026-11-22T07:00Z"),
        ("2020-01-01T00:00:00.000000Z", "UTC", "2026-11-21T00:00Z", "2020-01-01T00:00Z"),
    ],
)
def test_until_is_the_next_such_time_on_the_askers_clock(text: str, zone: str, now: str, expected: str) -> None:
    assert resolve_until(text, zone, utc(now)) == utc(expected)


@given(
    st.datetimes(datetime(2000, 1, 1), datetime(2040, 1, 1)),
    st.integers(0, 23),
    st.integers(0, 59),
    st.sampled_from(["Europe/Berlin", "America/Chicago", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia"]),
)
def test_until_comes_within_about_a_day(moment: datetime, hour: int, minute: int, zone: str) -> None:
    now = moment.replace(tzinfo=UTC)
    until = resolve_until(f"{hour:02}:{minute:02}", zone, now)
    assert now < until <= now + timedelta(hours=26)


@pytest.mark.parametrize("zone", ["Europe", "Mars/Olympus", "", "../etc/passwd", "a\0b"])
def test_a_zone_that_does_not_exist_is_named(zone: str) -> None:
    with pytest.raises(SettingsError, match=r"expected an IANA zone such as 'Europe/Berlin'"):
        resolve_until("08:00", zone, datetime(2026, 11, 21, tzinfo=UTC))


@pytest.mark.parametrize("text", ["", "8", "tomorrow", "08:60", "2026-11-22", "\u0660\u0668:\u0660\u0660"])
def test_a_time_of_no_form_is_named(text: str) -> None:
    with pytest.raises(SettingsError, match=r"limits\.until: got '.*', expected a time of day"):
        resolve_until(text, "UTC", datetime(2026, 11, 21, tzinfo=UTC))
