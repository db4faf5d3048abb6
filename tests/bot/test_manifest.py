"""slack/manifest.yaml asks for what the code uses, and for nothing else; docs/slack.md tells what there is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from slack_sdk.web.async_client import AsyncWebClient

import nightshift
from bot import checkup, intents
from bot.sandbox.methods import HISTORY, METHODS, SCOPES
from bot.sandbox.server import Sandbox
from bot.trial import MORE_SCOPES

ROOT = Path(__file__).parents[2]
MANIFEST = yaml.safe_load((ROOT / checkup.MANIFEST).read_text())
GIVEN = MANIFEST["oauth_config"]["scopes"]
FAMILIES = {name.partition(".")[0] for name in METHODS}
UPLOAD = {"files.getUploadURLExternal", "files.completeUploadExternal"}
"""What `files_upload_v2` of the client calls."""
KINDS = {"*:history": {"channels:history", "groups:history"}, "*:read": {"channels:read", "groups:read"}}
"""The bot posts to public and private channels, and writes to nobody directly."""


def calls() -> Iterator[ast.Call]:
    """Every call in the bot's code."""
    for path in (ROOT / "bot").rglob("*.py"):
        if "sandbox" not in path.parts:
            yield from (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))


def first_text(call: ast.Call) -> str:
    first = call.args[0] if call.args else None
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""


def methods() -> set[str]:
    """The methods that the bot calls: by name of the client's method, and as text (`api_call("users.info")`)."""
    found = set()
    for call in calls():
        name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        if name == "files_upload_v2":
            found |= UPLOAD
        elif name.partition("_")[0] in FAMILIES and hasattr(AsyncWebClient, name):
            found.add(name.replace("_", "."))
        text = first_text(call)
        if re.fullmatch(r"\w+(\.\w+)+", text) and text.partition(".")[0] in FAMILIES:
            found.add(text)
    return found


def listeners(kind: str) -> set[str]:
    """What is registered as `app.<kind>("…")`."""
    return {
        first_text(call)
        for call in calls()
        if isinstance(call.func, ast.Attribute)
        and call.func.attr == kind
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id == "app"
    }


def test_the_methods_are_found_and_all_known_to_the_loopback_slack() -> None:
    found = methods()
    assert found >= {"chat.postMessage", "users.info", "usergroups.users.list", "views.publish", "conversations.info"}
    assert found <= set(METHODS), "teach bot/sandbox/methods.py the new one, with its scope"


def test_each_method_has_its_scope_and_no_scope_is_without_a_use() -> None:
    needed = {"commands"}
    for name in methods():
        method = METHODS[name]
        if method.token == "xoxb-" and method.scope:
            needed |= KINDS.get(method.scope, {method.scope})
    assert len(GIVEN["bot"]) == len(set(GIVEN["bot"]))
    assert set(GIVEN["bot"]) == needed


def test_what_the_bot_can_do_without_is_optional_and_nothing_else() -> None:
    optional = set(GIVEN["bot_optional"])
    assert optional <= set(GIVEN["bot"]), "Slack wants an optional scope in both lists"
    assert set(GIVEN["bot"]) - optional == set(checkup.NEEDED) == SCOPES
    assert optional == {*checkup.MEMBERSHIP, *checkup.HISTORY, checkup.GROUPS, checkup.PICTURES}


def test_the_slack_in_the_terminal_grants_what_the_manifest_asks_for() -> None:
    assert set(GIVEN["bot"]) == SCOPES | HISTORY | MORE_SCOPES
    assert MANIFEST["features"]["slash_commands"][0]["should_escape"] is Sandbox.should_escape


def test_every_event_that_is_subscribed_is_listened_to_and_the_other_way_round() -> None:
    assert listeners("event") == set(MANIFEST["settings"]["event_subscriptions"]["bot_events"])


def test_the_command_is_the_one_that_is_served_and_its_hint_can_be_typed() -> None:
    (command,) = MANIFEST["features"]["slash_commands"]
    assert command["command"] == intents.COMMAND and "url" not in command
    for words in command["usage_hint"].split("|"):
        assert not isinstance(intents.parse(words), intents.Mistake), words


def test_nothing_must_be_reachable_from_outside() -> None:
    settings = MANIFEST["settings"]
    assert settings["socket_mode_enabled"] and settings["interactivity"] == {"is_enabled": True}
    assert settings["token_rotation_enabled"] is False, "the tokens are read once, when the bot starts"
    assert "http" not in str(MANIFEST)


def test_there_is_a_home_tab_and_nobody_is_led_to_write_to_the_bot() -> None:
    assert MANIFEST["features"]["app_home"]["home_tab_enabled"]
    assert not MANIFEST["features"]["app_home"]["messages_tab_enabled"]


def test_it_is_within_slacks_limits() -> None:
    about = MANIFEST["display_information"]
    assert len(about["name"]) <= 35 and len(about["description"]) <= 140
    assert re.fullmatch("#[0-9a-f]{6}", about["background_color"])
    assert len(MANIFEST["features"]["slash_commands"][0]["description"]) <= 2_000


# ---------------------------------------------------------------- docs/slack.md


GUIDE = (ROOT / "docs" / "slack.md").read_text()


def command_lines() -> set[str]:
    """What the guide has people type into a terminal, each `nightshift …`."""
    blocks = [line for block in re.findall(r"```\n(.*?)```", GUIDE, re.DOTALL) for line in block.splitlines()]
    inline = re.findall(r"`(nightshift\s[^`]*)`", GUIDE)
    split = [part.partition("#")[0].strip() for line in [*blocks, *inline] for part in line.split("&&")]
    return {" ".join(line.split()) for line in split if line.startswith("nightshift ")}


def test_each_command_of_the_guide_exists_with_its_options() -> None:
    lines = command_lines()
    assert {"nightshift up", "nightshift doctor", "nightshift bot --sandbox-workspace"} <= lines
    for line in lines:
        _, name, *words = line.split()
        command = nightshift.main.get_command(None, name)  # type: ignore[attr-defined, arg-type]
        assert command is not None, line
        known = {option for param in command.params for option in param.opts}
        assert {word for word in words if word.startswith("--")} <= known, line


def test_each_thing_to_type_into_slack_is_understood() -> None:
    typed = set(re.findall(r"`/nightshift ([^`]*)`", GUIDE)) - {"is not a valid command"}
    assert len(typed) >= 8
    for words in typed:
        assert not isinstance(intents.parse(words), intents.Mistake), words


def test_the_roles_of_the_guide_are_those_of_the_table() -> None:
    for role in ("look", "operate", "admin"):
        (row,) = re.findall(rf"^\| {role} \|.*$", GUIDE, re.MULTILINE)
        named = {word for word in re.findall(r"`([a-z ]+)`", row) if word in {verb.name for verb in intents.VERBS}}
        assert {verb.role for verb in intents.VERBS if verb.name in named} <= {role}, row
    looking = {verb.name for verb in intents.VERBS if verb.role == "look"} - {"help"}
    assert all(f"`{name}`" in GUIDE for name in looking)


def test_the_guide_names_every_scope() -> None:
    assert all(f"`{scope}`" in GUIDE for scope in GIVEN["bot"])
