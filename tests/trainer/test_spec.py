"""What a child is told, and what it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from trainer.errors import InvalidSpec
from trainer.spec import CommandSpec, Outcome, Scoring, TrainingSpec, child_environment, launch_of

SECRETS = [
    *("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "SLACK_BOT_TOKEN", "SLACK_APP_TOKEN", "SLACK_SIGNING_SECRET"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "GITHUB_TOKEN", "HF_TOKEN", "DATABASE_PASSWORD"),
    *("CUDA_LICENSE_KEY", "NVIDIA_API_KEY", "OMP_TOKEN", "LC_SECRET", "SSH_AUTH_SOCK", "TOKEN", "my_secret"),
]


def spec(**wanted: Any) -> TrainingSpec:
    usual: dict[str, Any] = {
        "command": ("python", "train.py"),
        "workdir": Path("/w"),
        "outdir": Path("/o"),
        "mark": "ws/nov21/12/n0nce",
        "timeout_s": 600.0,
        "budget_s": 300,
        "seed": 7,
        "scoring": Scoring(kind="stdout", name="val_bpb"),
    }
    return TrainingSpec(**{**usual, **wanted})


def test_no_secret_reaches_the_child_whatever_prefix_it_has() -> None:
    environ = dict.fromkeys(SECRETS, "hunter2") | {"PATH": "/bin"}
    assert "hunter2" not in child_environment(spec(), environ).values()


@pytest.mark.parametrize("name", SECRETS)
def test_a_setting_cannot_hand_a_secret_to_the_child(name: str) -> None:
    with pytest.raises(InvalidSpec, match=name):
        spec(env={name: "hunter2"})


def test_a_secret_that_is_named_is_passed_on_and_no_other_one() -> None:
    environ = dict.fromkeys([*SECRETS, "MY_SERVER"], "hunter2")
    passed = child_environment(spec(secrets=("HF_TOKEN", "MY_SERVER", "NOT_SET")), environ)
    assert sorted(name for name, value in passed.items() if value == "hunter2") == ["HF_TOKEN", "MY_SERVER"]


def test_a_named_secret_does_not_win_over_what_we_set() -> None:
    named = spec(secrets=("NIGHTSHIFT_MARK", "DEPTH"), env={"DEPTH": "4"})
    passed = child_environment(named, {"NIGHTSHIFT_MARK": "x", "DEPTH": "5"})
    assert (passed["NIGHTSHIFT_MARK"], passed["DEPTH"]) == (named.mark, "4")


def test_neither_input_nor_environment_is_in_what_is_printed_of_a_start() -> None:
    asked = spec(secrets=("HF_TOKEN",), stdin="a long prompt")
    launch = launch_of(asked, environ={"HF_TOKEN": "hunter2"}, python="p")
    assert launch.env["HF_TOKEN"] == "hunter2"
    assert "hunter2" not in repr(launch) and "prompt" not in repr((asked, launch))


def test_input_is_utf8_and_none_where_none_is_given() -> None:
    def given(stdin: bytes | str | None) -> bytes | None:
        return launch_of(spec(stdin=stdin), environ={}, python="p").stdin

    assert [given(None), given(""), given("ü\ud800"), given(b"\xff")] == [None, b"", b"\xc3\xbc?", b"\xff"]


def test_the_child_gets_the_short_list_the_budget_the_seed_and_the_mark() -> None:
    environ = {
        **{"PATH": "/bin", "HOME": "/h", "LANG": "C.UTF-8", "LC_ALL": "C", "TMPDIR": "/t", "VIRTUAL_ENV": "/v"},
        **{"CUDA_VISIBLE_DEVICES": "1", "OMP_NUM_THREADS": "3", "NIGHTSHIFT_CACHE": "/c", "EDITOR": "vi"},
        **{"PYTHONPATH": "/p", "PYTHONSTARTUP": "/s", "LD_PRELOAD": "/evil.so", "NIGHTSHIFT_SEED": "1"},
    }
    assert child_environment(spec(env={"CUDA_VISIBLE_DEVICES": "0", "DEPTH": "4"}), environ) == {
        **{"PATH": "/bin", "HOME": "/h", "LANG": "C.UTF-8", "LC_ALL": "C", "TMPDIR": "/t", "VIRTUAL_ENV": "/v"},
        **{"CUDA_VISIBLE_DEVICES": "0", "OMP_NUM_THREADS": "3", "NIGHTSHIFT_CACHE": "/c", "DEPTH": "4"},
        **{"NIGHTSHIFT_BUDGET_S": "300.0", "NIGHTSHIFT_SEED": "7", "NIGHTSHIFT_MARK": "ws/nov21/12/n0nce"},
        **{"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"},
    }


def test_a_guard_is_told_neither_budget_nor_seed() -> None:
    guard = CommandSpec(command=("pytest",), workdir=Path("/w"), mark="ws/nov21/12/n0nce", timeout_s=5)
    assert {name for name in child_environment(guard, {}) if name.startswith("NIGHTSHIFT")} == {"NIGHTSHIFT_MARK"}


def test_only_a_first_word_python_becomes_the_interpreter() -> None:
    def argv(*command: str) -> tuple[str, ...]:
        return launch_of(spec(command=command), environ={}, python="/venv/bin/python").argv

    assert argv("python", "-c", "python") == ("/venv/bin/python", "-c", "python")
    assert argv("./python", "x") == ("./python", "x")
    assert argv("bash", "python") == ("bash", "python")


def test_the_mark_gives_experiment_and_nonce() -> None:
    assert (spec().experiment, spec().nonce) == (12, "n0nce")


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"command": ()}, "command"),
        ({"command": ("",)}, "command"),
        ({"command": ("a", "b\0")}, "command"),
        ({"timeout_s": 0.0}, "timeout_s"),
        ({"timeout_s": float("nan")}, "timeout_s"),
        ({"budget_s": -1.0}, "budget_s"),
        ({"budget_s": float("inf")}, "budget_s"),
        ({"seed": -1}, "seed"),
        ({"secrets": ("A=B",)}, "secrets"),
        ({"secrets": ("",)}, "secrets"),
        ({"mark": "ws/nov21/12"}, "mark"),
        ({"mark": "ws//12/x"}, "mark"),
        ({"mark": "ws/nov21/twelve/x"}, "mark"),
    ],
)
def test_an_impossible_value_is_refused_by_name(wanted: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        spec(**wanted)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("file", "key", "field"),
    [
        ("score.json", None, "score_key"),
        (None, "acc", "score_file"),
        ("/etc/passwd", "acc", "score_file"),
        ("../score.json", "acc", "score_file"),
        ("a/../../score.json", "acc", "score_file"),
    ],
)
def test_a_score_file_lies_inside_the_work_folder(file: str | None, key: str | None, field: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        Scoring(kind="json", name="acc", file=file, key=key)
    assert refused.value.field == field


def test_a_metric_name_is_one_line_without_a_colon() -> None:
    for name in ("", "a:b", "a\nb"):
        with pytest.raises(InvalidSpec):
            Scoring(kind="stdout", name=name)


def test_the_outcomes_are_the_ten_that_events_know() -> None:
    assert set(get_args(Outcome)) == {
        *("scored", "crash", "oom", "timeout", "diverged", "no_metric", "tampered", "refused_operator"),
        *("stopped", "lost"),
    }
