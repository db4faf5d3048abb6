"""Whether this machine can run experiments, and the one table that says so of loop and bot together.

`loop_checks` looks at what is the loop's: settings, git, disk, log, interpreter, device, data, network cut, key.
`examine` runs `loop --check` and `bot --check` as child processes, so that neither sees the other's secrets, and joins
what they say. Nothing is changed, and no secret is printed.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import platform
import shutil
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from eventstore import settings as st
from eventstore.checks import Check, Report, not_ok, note, ok, read_report, report
from eventstore.errors import EventstoreError
from eventstore.home import Home
from eventstore.store import Store
from loop import preflight
from loop.effects import views
from loop.errors import WorkspaceError
from loop.supervise import Program, environment_of
from loop.workspace import PROGRAM_FILE, Workspace
from trainer.errors import TrainerError
from trainer.process import machine, network_cut_problem, run_command
from trainer.sandbox import plan, selftest
from trainer.service import Service
from trainer.spec import CommandSpec

CHILD_TIMEOUT_S = 90.0
"""A check may wait for Slack to answer several times."""
PROBE_TIMEOUT_S = 60.0
"""Importing torch takes some seconds on a cold disk."""

GIT_FIX = "a run begins at a commit of a repository whose top folder is the workspace"
GIT_FIXES = {"no_git": "install git", "git_failed": "mend what git names"}

PROBE = """\
import json, sys
found = {}
try:
    import torch
    found["torch"] = torch.__version__
    found["cuda"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
except ImportError:
    pass
if sys.argv[1]:
    sys.path.insert(0, sys.argv[1])
    try:
        import prepare
        if hasattr(prepare, "current_cache"):
            found["data"] = str(prepare.current_cache())
    except SystemExit as said:
        found["no_data"] = str(said)
    except Exception as error:
        found["no_data"] = f"prepare.py cannot be imported ({type(error).__name__}: {error})"
print(json.dumps(found))
"""


# ---------------------------------------------------------------- the loop's part


async def loop_checks(home: Home, environ: Mapping[str, str], *, try_sandbox: bool = False) -> Report:
    """
    Look at everything that the loop needs.

    Args:
        environ: Its environment.
        try_sandbox: Try to get out of the sandbox in every known way: some seconds more.
    """
    return report([check async for check in _loop_checks(home, environ, try_sandbox)])


async def _loop_checks(home: Home, environ: Mapping[str, str], try_sandbox: bool) -> AsyncIterator[Check]:
    yield _python()
    settings, said = _settings(home)
    yield said
    workspace, said = _workspace(home)
    yield said
    if workspace is not None and settings is not None:
        for check in _files(workspace, settings):
            yield check
    yield _disk(home)
    yield _log(home)
    yield _running(home)
    yield _network(settings)
    async for check in _sandbox(home, settings, environ, try_sandbox):
        yield check
    async for check in _machine(home, settings):
        yield check
    if settings is not None and settings.proposer.kind in ("claude", "agent"):
        yield _proposer(settings, environ)


def _python() -> Check:
    return ok("python", f"{platform.python_version()} at {sys.executable}")


def _settings(home: Home) -> tuple[st.Settings | None, Check]:
    try:
        settings = preflight.read_settings(home.root)
    except preflight.Refusal as refusal:
        return None, not_ok("settings", refusal.why, refusal.remedy)
    objective, experiment = settings.objective, settings.experiment
    words = f"{objective.direction} {objective.name}, {experiment.budget_s:g} s each, proposer {settings.proposer.kind}"
    return settings, ok("settings", words)


def _workspace(home: Home) -> tuple[Workspace | None, Check]:
    try:
        workspace = Workspace.open(home.root)
        head = workspace.resolve("HEAD")
    except WorkspaceError as error:
        return None, not_ok("git", str(error), GIT_FIXES.get(error.code, GIT_FIX))
    return workspace, ok("git", f"{home.root} at {head[:7]}")


def _files(workspace: Workspace, settings: st.Settings) -> list[Check]:
    head = workspace.resolve("HEAD")
    objective = settings.objective
    editable = workspace.matching(head, objective.editable)
    missing = workspace.protected_missing(head, objective.protected)
    found = []
    if not editable:
        patterns = ", ".join(objective.editable)
        found.append(not_ok("files", f"no committed file matches objective.editable ({patterns})", "commit the file"))
    if missing:
        found.append(not_ok("files", f"the protected file {missing[0]} is not committed", "commit it"))
    if not found:
        found.append(ok("files", f"{len(editable)} editable, {len(objective.protected)} protected patterns, committed"))
    if workspace.read_file(head, PROGRAM_FILE) is None:
        found.append(note("program.md", "there is none in the commit", "write what to research, and commit it"))
    program = settings.experiment.command[0]
    if program != "python" and "/" not in program and shutil.which(program) is None:
        found.append(not_ok("command", f"the program {program!r} was not found", "install it, or mend the command"))
    return found


def _disk(home: Home) -> Check:
    try:
        preflight.check_disk(home.root)
    except preflight.Refusal as refusal:
        return not_ok("disk", refusal.why, refusal.remedy)
    return ok("disk", f"{shutil.disk_usage(home.root).free / 2**30:.1f} GB free")


def _log(home: Home) -> Check:
    if not home.log_path.exists():
        return ok("log", "there is none yet: the first request makes it")
    try:
        with Store.open(home.log_path, create=False) as log:
            return ok("log", f"{log.head().position} events, the newest verified")
    except EventstoreError as error:
        return not_ok("log", str(error), "see `nightshift log verify`")


def _running(home: Home) -> Check:
    holder = home.holder()
    if holder is None:
        return note("loop", "none is running", "`nightshift up` runs loop and bot, `nightshift loop` the loop alone")
    return ok("loop", f"running ({holder})")


def _network(settings: st.Settings | None) -> Check:
    problem = network_cut_problem()
    if problem is None:
        return ok("network cut", "this machine can run a command without network")
    if settings is not None and settings.proposer.kind == "agent" and not settings.agent.network:
        return not_ok("network cut", problem, "or set agent.network = true, if the agent may use the network")
    return note("network cut", problem)


async def _sandbox(
    home: Home, settings: st.Settings | None, environ: Mapping[str, str], try_it: bool
) -> AsyncIterator[Check]:
    """What holds an experiment here, and what each attempt to get out of it got."""
    mode = settings.sandbox.mode if settings is not None else "best"
    here = machine()
    held = plan.words(mode, here)
    if why := plan.refusal(mode, here):
        yield not_ok("sandbox", why, plan.REMEDY)
        return
    weak = plan.weakness(mode, here)
    yield note("sandbox", f"{held}: {weak}") if weak else ok("sandbox", held)
    if not try_it or settings is None or mode == "off":
        return
    view = views.of_experiment(settings, home, home.state / "selftest", environ)
    secrets = {
        "the log": [home.log_path],
        "the checkout": [home.settings_path],
        "other runs": [home.state / "runs"],
        "the scored rows": views.held_out(settings, environ),
        "the texts that are scored": views.held_out_texts(settings, environ),
    }
    there = {what: [path for path in paths if path.exists()] for what, paths in secrets.items()}
    try:
        rows = await selftest.table(view, {what: paths for what, paths in there.items() if paths}, home.mark_id)
    except TrainerError as error:
        yield not_ok("sandbox", f"nothing can be started in it ({error})", plan.REMEDY)
        return
    for row in rows:
        what = f"sandbox: {row.what}"
        if row.held:
            yield ok(what, row.got)
        else:
            yield note(what, f"NOT HELD: {row.got}") if weak else not_ok(what, f"NOT HELD: {row.got}", plan.REMEDY)


async def _machine(home: Home, settings: st.Settings | None) -> AsyncIterator[Check]:
    """Torch, devices and data, looked at by a child: they take seconds and gigabytes."""
    own = (home.root / "prepare.py").is_file()
    if not own and importlib.util.find_spec("torch") is None:
        yield note("torch", "not installed; only needed where an experiment uses it")
        return
    spec = CommandSpec(
        command=("python", "-c", PROBE, str(home.root) if own else ""),
        workdir=home.root,
        mark=f"{home.mark_id}/doctor/0/probe",
        timeout_s=PROBE_TIMEOUT_S,
    )
    try:
        ended = await run_command(spec)
        found = json.loads(ended.tail.strip().splitlines()[-1])
    except (TrainerError, ValueError, IndexError) as error:
        yield not_ok("torch", f"Python could not say ({error})", "try `python -c 'import torch'`")
        return
    yield _torch(found, own)
    yield _device(found, settings)
    if "data" in found:
        yield ok("data", f"prepared in {found['data']}")
    elif "no_data" in found:
        yield not_ok("data", found["no_data"], "run `python prepare.py` in the workspace")


def _torch(found: dict[str, object], needed: bool) -> Check:
    if "torch" in found:
        return ok("torch", str(found["torch"]))
    if needed:
        return not_ok("torch", "not installed, and train.py needs it", "install Nightshift with its extra `train`")
    return note("torch", "not installed; only needed where an experiment uses it")


def _device(found: dict[str, object], settings: st.Settings | None) -> Check:
    cuda = found.get("cuda")
    if isinstance(cuda, list) and cuda:
        return ok("device", ", ".join(map(str, cuda)))
    what = "trainings" if settings is None else f"trainings of {settings.experiment.budget_s:g} s"
    return note("device", f"no CUDA device: {what} run on the CPU")


def _proposer(settings: st.Settings, environ: Mapping[str, str]) -> Check:
    if settings.proposer.kind == "agent":
        command = settings.agent.command or ("",)
        if command[0] != "python" and shutil.which(command[0]) is None:
            return not_ok("agent", f"the program {command[0]!r} was not found", "install it, or mend agent.command")
        missing = [name for name in settings.agent.secrets if not environ.get(name)]
        if missing:
            return not_ok("agent", f"{missing[0]} is not set", "set it in the environment of the loop")
        return ok("agent", f"{command[0]} is there")
    if not environ.get("ANTHROPIC_API_KEY", "").strip():
        return not_ok("claude: key", "ANTHROPIC_API_KEY is not set", "set it in the environment of the loop")
    if settings.claude.model not in settings.claude.prices:
        fix = f"add it as [claude.prices.{settings.claude.model!r}], or set no limit of money"
        return note("claude: price", f"the model {settings.claude.model!r} has no price", fix)
    return ok("claude: key", "set; whether it is good shows with the first proposal")


# ---------------------------------------------------------------- both parts


async def examine(home: Home, environ: Mapping[str, str], argv: Sequence[str]) -> Report:
    """
    Ask loop and bot, as child processes, and join their answers; what both looked at (the settings) is said once.

    Args:
        argv: The words that start `nightshift` in this workspace; `loop` or `bot` and the options come behind.
    """
    programs = [
        Program(name, (*argv, name, "--check", "--json"), environment_of(name, environ)) for name in ("loop", "bot")
    ]
    of_loop, of_bot = await asyncio.gather(*(_ask(program, home.root) for program in programs))
    said = {check.what for check in of_loop.checks}
    return report([*of_loop.checks, *(check for check in of_bot.checks if check.what not in said)])


async def _ask(program: Program, cwd: Path) -> Report:
    lines: list[str] = []
    service = Service(program.argv, cwd=cwd, env=program.env, on_line=lines.append)
    try:
        async with asyncio.timeout(CHILD_TIMEOUT_S):
            code = await service.wait()
    except TimeoutError:
        await service.end(grace_s=1.0)
        what = f"`nightshift {program.name} --check` gave no answer in {CHILD_TIMEOUT_S:g} s"
        return report([not_ok(program.name, what, "call it by itself and see where it stays")])
    except BaseException:
        await service.end(grace_s=1.0)
        raise
    found = read_report("\n".join(lines))
    if found is None:
        said = " ".join(line for line in lines[-5:] if line.strip()) or "nothing"
        fix = f"call `nightshift {program.name} --check` by itself"
        return report([not_ok(program.name, f"its check ended with exit code {code} and said: {said}", fix)])
    return found
