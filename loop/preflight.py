"""What must hold before a run may start, checked in one place.

The command line checks before it asks, the loop checks again before it starts: both call `check`, so
nobody waits in a queue for a refusal that could have been told at once. Nothing here changes anything.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from eventstore import events as e
from eventstore import settings as st
from eventstore.codec import canonical_json
from eventstore.envelope import format_at
from eventstore.errors import SettingsError
from eventstore.projections.run_state import REMOTE
from eventstore.requests import tag_problem
from loop.errors import EditRefused, WorkspaceError
from loop.policy import Guard, Policy
from loop.proposers.sweep import missing_constants
from loop.workspace import Workspace
from trainer.errors import CannotStart
from trainer.process import machine, network_cut_problem, python_says
from trainer.sandbox import plan

SETTINGS_FILE = "nightshift.toml"
PROGRAM_FILE = "program.md"
HARNESS_FILE = "prepare.py"
SEALED_NEEDS = ("torch", "safetensors")
SCORED_FILES = ("tokenizer.json", "select/tokens.bin", "report/tokens.bin")
MIN_FREE_MB = 512
"""Free disk space below which no run starts: a night of logs and work folders needs more than the run itself."""


class Refusal(Exception):
    """A run cannot start. *code* is a word for programs; *why* and *remedy* are sentences."""

    def __init__(self, code: str, why: str, remedy: str) -> None:
        self.code, self.why, self.remedy = code, why, remedy
        super().__init__(f"{why}: {remedy}")


@dataclass(frozen=True, slots=True)
class Ready:
    """A run that may start, everything resolved. *corpus* and *rows_hash* are as in `run.started`."""

    settings: st.Settings
    limits: e.Limits
    base_commit: str
    program: str
    program_hash: str
    harness_hash: str
    settings_hash: str
    corpus: str = ""
    rows_hash: str = ""


def check(root: Path, workspace: Workspace, request: e.RunRequested, now: datetime) -> Ready:
    """
    Resolve a request against the workspace as it is now.

    Raises:
        Refusal: With the first thing that stands in the way.
    """
    problem = tag_problem(request.tag)
    if problem:
        raise Refusal("tag", problem, "choose another tag")
    settings = read_settings(root, request.overrides)
    base = _resolve(workspace, request.from_ref)
    _check_branch(workspace, request.tag, base)
    _check_files(workspace, settings, base)
    _check_command("experiment.command", settings.experiment.command, workspace, base)
    if settings.guard is not None:
        _check_command("guard.command", settings.guard.command, workspace, base)
    _check_sweep(workspace, settings, base)
    _check_agent(workspace, settings, base)
    _check_sandbox(settings)
    corpus = _check_sealed(workspace, settings, base)
    limits = _limits(settings, request, now)
    check_money(settings, limits.usd)
    check_disk(root)
    program = workspace.read_file(base, PROGRAM_FILE) or ""
    data = st.to_data(settings)
    return Ready(
        settings=settings,
        limits=limits,
        base_commit=base,
        program=program,
        program_hash=hashlib.sha256(program.encode()).hexdigest(),
        harness_hash=workspace.hash_files(base, settings.objective.protected),
        settings_hash=hashlib.sha256(canonical_json(data).encode()).hexdigest(),
        corpus=corpus.name if corpus is not None else "",
        rows_hash=rows_hash(read_manifest(corpus)) if corpus is not None else "",
    )


def read_settings(root: Path, overrides: dict[str, Any] | None = None) -> st.Settings:
    """Read nightshift.toml with *overrides* on top. Raises `Refusal` with the key, the value and what was expected."""
    path = root / SETTINGS_FILE
    try:
        settings = st.resolve(st.parse(path.read_text(encoding="utf-8")), overrides or {})
    except FileNotFoundError:
        raise Refusal("settings", f"there is no {SETTINGS_FILE} in {root}", "`nightshift init` makes one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal("settings", f"{SETTINGS_FILE} cannot be read ({error})", "mend the file") from error
    except SettingsError as error:
        raise Refusal("settings", str(error), "mend the setting and ask again") from error
    missing = st.not_built_yet(settings)
    if missing:
        raise Refusal("not_built", missing, "choose another value")
    return settings


def policy_of(settings: st.Settings, slots: int, *, can_repair: bool) -> Policy:
    """What the settings mean to the machine. *slots* is what the executor offers."""
    guard = settings.guard
    return Policy(
        metric=settings.objective.name,
        direction=settings.objective.direction,
        scoring=settings.objective.score,
        rule=settings.verdict.rule,
        proposer=settings.proposer.kind,
        command=tuple(settings.experiment.command),
        budget_s=settings.experiment.budget_s,
        timeout_s=settings.experiment.timeout_s,
        equal_within=settings.verdict.equal_within,
        gain_per_line=settings.verdict.gain_per_line,
        memory_factor_max=settings.verdict.memory_factor_max,
        guard=Guard(tuple(guard.command), guard.timeout_s) if guard is not None else None,
        slots=slots,
        remote=settings.proposer.kind in REMOTE,
        stand_in=stand_in_of(settings),
        fill_idle=settings.proposer.fill_idle == "sweep",
        ahead=settings.proposer.ahead,
        repair_attempts=settings.proposer.repair_attempts if can_repair else 0,
    )


def stand_in_of(settings: st.Settings) -> str:
    """Who takes over while a remote proposer fails: the sweep, where one is configured; else nobody."""
    return "sweep" if settings.sweep and settings.proposer.kind != "sweep" and _may_stand_in(settings) else ""


def _may_stand_in(settings: st.Settings) -> bool:
    return settings.proposer.kind in REMOTE or settings.proposer.fill_idle == "sweep"


def check_money(settings: st.Settings, usd: float | None) -> None:
    """Raise `Refusal` if a limit of money is set that nobody could keep, because the price is not known."""
    kind = settings.proposer.kind
    if usd is None or kind not in REMOTE:
        return
    if kind == "agent":
        raise Refusal(
            "no_price",
            f"limits.usd = {usd:g} cannot be kept: nobody knows what an agent's command costs",
            "leave the limit of money out and set limits.experiments or limits.until",
        )
    if settings.claude.model not in settings.claude.prices:
        raise Refusal(
            "no_price",
            f"limits.usd = {usd:g} cannot be kept: the model {settings.claude.model!r} has no price",
            f"add its price as [claude.prices.{settings.claude.model!r}], or leave the limit of money out",
        )


def check_disk(root: Path, free_mb: float | None = None) -> None:
    """Raise `Refusal` if the disk of the workspace is nearly full. *free_mb* stands in for what the disk says."""
    free_mb = shutil.disk_usage(root).free / 2**20 if free_mb is None else free_mb
    if free_mb < MIN_FREE_MB:
        raise Refusal(
            "no_disk",
            f"only {free_mb:.0f} MB are free on the disk of {root}, {MIN_FREE_MB} MB are needed",
            "free some space, old folders in .nightshift/runs for example",
        )


def _resolve(workspace: Workspace, ref: str) -> str:
    try:
        return workspace.resolve(ref)
    except WorkspaceError as error:
        raise Refusal("from", str(error), "name a commit, branch or tag that exists") from error


def _check_branch(workspace: Workspace, tag: str, base: str) -> None:
    tip = workspace.branch_tip(tag)
    if tip is not None and tip != base:
        raise Refusal(
            "branch_exists",
            f"the branch autoresearch/{tag} exists and points at {tip[:7]}, not at the start {base[:7]}",
            "choose another tag, or start from that branch",
        )
    kept = workspace.kept_ref(tag)
    if kept is not None:
        raise Refusal("tag_used", f"an earlier run {tag} left commits ({kept} for one)", "choose another tag")


def _check_files(workspace: Workspace, settings: st.Settings, base: str) -> None:
    objective = settings.objective
    missing = workspace.protected_missing(base, objective.protected)
    if missing:
        raise Refusal(
            "protected_missing",
            f"the protected file {missing[0]} is not in the commit {base[:7]}",
            "add it to git and commit, or take it out of objective.protected",
        )
    editable = workspace.matching(base, objective.editable)
    if not editable:
        patterns = ", ".join(objective.editable)
        raise Refusal(
            "editable_missing",
            f"no file of the commit {base[:7]} matches objective.editable ({patterns})",
            "add the file to git and commit, or mend the pattern",
        )
    both = sorted(set(editable) & set(workspace.matching(base, objective.protected)))
    if both:
        raise Refusal(
            "overlap",
            f"{both[0]} is both editable and protected",
            "take it out of objective.editable or objective.protected",
        )


def _check_command(key: str, command: tuple[str, ...] | list[str], workspace: Workspace, base: str) -> None:
    program = command[0]
    if program == "python" or shutil.which(program):
        return
    if "/" in program and not program.startswith("/") and workspace.matching(base, [program.removeprefix("./")]):
        return
    raise Refusal(
        "command_not_found",
        f"{SETTINGS_FILE}: {key}: the program {program!r} was not found on this machine nor in the commit {base[:7]}",
        f"install it or mend the command; `python` stands for {sys.executable}",
    )


def _check_agent(workspace: Workspace, settings: st.Settings, base: str) -> None:
    if settings.proposer.kind != "agent":
        return
    if settings.agent.command is None:
        raise Refusal(
            "agent",
            f"{SETTINGS_FILE}: agent.command: missing, expected the words of a command with proposer.kind = 'agent'",
            "name the agent's command, such as command = ['claude', '--print']",
        )
    _check_command("agent.command", settings.agent.command, workspace, base)
    problem = None if settings.agent.network else network_cut_problem()
    if problem is not None:
        raise Refusal(
            "agent_network",
            f"the agent is to run without network, and this machine cannot cut it off ({problem})",
            "set agent.network = true, if it may use the network",
        )


def _check_sandbox(settings: st.Settings) -> None:
    """Raise `Refusal` if full isolation is required and not to be had here."""
    if settings.sandbox.mode == "required" and (why := plan.refusal("required", machine())):
        raise Refusal("sandbox", why, "`nightshift doctor` tries it out")


def _check_sealed(workspace: Workspace, settings: st.Settings, base: str) -> Path | None:
    """The prepared corpus that sealed scoring needs; None without. Raises `Refusal` if anything of it is missing."""
    if settings.objective.score != "sealed":
        return None
    if missing := [name for name in SEALED_NEEDS if importlib.util.find_spec(name) is None]:
        raise Refusal(
            "sealed",
            f"objective.score = 'sealed' needs {' and '.join(missing)}, which {sys.executable} does not have",
            "install Nightshift with its extra `train`: pip install 'nightshift[train]'",
        )
    text = workspace.read_file(base, HARNESS_FILE)
    if text is None or HARNESS_FILE not in workspace.matching(base, settings.objective.protected):
        raise Refusal(
            "sealed",
            f"objective.score = 'sealed' needs {HARNESS_FILE} in the commit {base[:7]}, as a protected file",
            "name it in objective.protected, or set objective.score to 'stdout' or 'json'",
        )
    if not re.search(r"^TRUSTED_OPERATORS\b", text, re.MULTILINE):
        raise Refusal(
            "sealed",
            f"{HARNESS_FILE} of the commit {base[:7]} hands no model over: it has no TRUSTED_OPERATORS",
            f"take today's {HARNESS_FILE} (`nightshift init` in an empty folder makes one), or set objective.score to "
            "'stdout'",
        )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / HARNESS_FILE).write_text(text, encoding="utf-8", newline="")
        return find_corpus(Path(folder))


def find_corpus(folder: Path) -> Path:
    """The prepared corpus of the harness in *folder*. Raises `Refusal` if there is none."""
    try:
        return Path(python_says("import prepare; print(prepare.current_cache())", folder))
    except CannotStart as error:
        why = error.why.removeprefix("prepare.py: ").removesuffix(": run `python prepare.py` first")
        raise Refusal("not_prepared", why, "run `python prepare.py` in the workspace") from error


def read_manifest(corpus: Path) -> Any:
    """What a prepared corpus says of its files; None if that cannot be read."""
    try:
        return json.loads((corpus / "manifest.json").read_bytes())
    except (OSError, ValueError):
        return None


def rows_hash(manifest: Any) -> str:
    """The name of the rows that are scored, from the checksums of their files; empty if there are none."""
    try:
        digests = [str(manifest["files"][name]["sha256"]) for name in SCORED_FILES]
    except (KeyError, TypeError):
        return ""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _check_sweep(workspace: Workspace, settings: st.Settings, base: str) -> None:
    if settings.proposer.kind != "sweep" and settings.proposer.fill_idle != "sweep" and not stand_in_of(settings):
        return
    if not settings.sweep:
        raise Refusal("sweep", f"{SETTINGS_FILE}: sweep: the table is empty or absent", "name the constants to search")
    files = workspace.read_files(base, settings.objective.editable)
    try:
        missing = missing_constants(files, list(settings.sweep))
    except EditRefused as error:
        raise Refusal("sweep", str(error), "mend the file") from error
    if missing:
        names = ", ".join(sorted(files))
        raise Refusal(
            "sweep",
            f"{SETTINGS_FILE}: sweep.{missing[0]}: no editable file ({names}) sets this constant at its top level",
            "name a constant that is there, as NAME = value",
        )


def _limits(settings: st.Settings, request: e.RunRequested, now: datetime) -> e.Limits:
    """What the person set wins over the file; an hour in the file is read in the asker's zone."""
    asked, file = request.limits, settings.limits
    until = asked.until
    if until is None and file.until is not None:
        until = format_at(st.resolve_until(file.until, request.zone, now))
    return e.Limits(
        experiments=asked.experiments if asked.experiments is not None else file.experiments,
        until=until,
        usd=asked.usd if asked.usd is not None else file.usd,
    )
