"""Real command lines as proposers: what is taken over from them, and that nothing else of them stays."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from textwrap import dedent
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.events import FileEdit, WholeFile
from eventstore.settings import Agent as AgentSettings
from loop import edits as editing
from loop import prompts
from loop.errors import CannotPropose, EditRefused, WorkspaceError
from loop.proposers.agent import FILE_MAX, IGNORED_MAX, Agent, Secrets, note_of
from loop.proposers.base import Ask, Idea, Objection, Past, Proposal, ProposalError, Proposer
from loop.proposers.folder import DELETED, FOLDER, LINK, SPECIAL, Seen, Unfit, differences, read_plain, remove, survey
from trainer.marks import find_marked, kill_marked
from trainer.process import network_cut_problem

REPOSITORY = Path(__file__).parents[2]
TRAIN = "LR = 0.1\nDEPTH = 4\n"
FILES = {
    "train.py": TRAIN,
    "src/model.py": "WIDTH = 8\n",
    "prepare.py": "SEED = 1\n",
    "program.md": "the program of the commit",
    "README.md": "read me",
}
ASK = Ask(
    tag="nov21",
    experiment=7,
    ask=0,
    attempt=0,
    purpose="new",
    base_commit="c" * 40,
    files={"train.py": TRAIN, "src/model.py": FILES["src/model.py"]},
    program="the program in force",
    history=(),
    in_flight=(),
    seed=1,
    metric="val_bpb",
    direction="minimize",
    editable=("train.py", "src/**"),
)
SECRET = "sk-test-0123456789abcdef"
EDIT = "open('train.py', 'w').write('LR = 0.2\\nDEPTH = 4\\n')\n"
EDITED = WholeFile("train.py", "LR = 0.2\nDEPTH = 4\n")

needs_cut = pytest.mark.skipif(network_cut_problem() is not None, reason=f"no network cut: {network_cut_problem()}")


class Desk:
    """Judges edits as the loop does, on the files of the commit."""

    async def check(self, edits: Sequence[FileEdit]) -> Objection | None:
        try:
            editing.apply(edits, FILES, editable=ASK.editable, protected=("prepare.py",))
        except EditRefused as refused:
            return Objection(refused.failure, refused.why)
        return None

    async def look_up(self, experiment: int) -> Past | None:
        return None


Checkout = Callable[[str, Path], Awaitable[None]]


async def check_out(commit: str, folder: Path) -> None:
    assert commit == ASK.base_commit
    if folder.exists():  # noqa: ASYNC240 - a few small files
        raise WorkspaceError("folder_in_use", "it was not removed")
    for path, text in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


@pytest.fixture
def workspace_id() -> Iterator[str]:
    """A workspace of its own; after the test no process with its mark may be left."""
    ours = uuid.uuid4().hex
    yield ours
    left = find_marked(ours)
    kill_marked(ours)
    assert left == []


@pytest.fixture
def agent(tmp_path: Path, workspace_id: str) -> Callable[..., Agent]:
    """An agent that runs *code* in Python, with the settings that are given."""

    def make(
        code: str = "", *, environ: dict[str, str] | None = None, checkout: Checkout = check_out, **wanted: Any
    ) -> Agent:
        script = tmp_path / "agent.py"
        script.write_text(dedent(code))
        settings = {"command": ("python", str(script)), "network": True, "timeout_s": 30.0, **wanted}
        return Agent(
            AgentSettings(**settings),
            editable=ASK.editable,
            protected=("prepare.py",),
            prompt_tokens=20_000,
            folder_of=lambda ask: tmp_path / "proposals" / ask.tag / str(ask.experiment) / str(ask.ask),
            checkout=checkout,
            mark_of=lambda ask: f"{workspace_id}/{ask.tag}/{ask.experiment}/n{ask.ask}",
            environ={**os.environ} if environ is None else environ,
        )

    return make


@pytest.fixture(autouse=True)
def no_folder_is_left(tmp_path: Path) -> Iterator[None]:
    """Whatever an agent did, the folder of its ask is gone afterwards."""
    yield
    assert not (tmp_path / "proposals" / "nov21" / "7" / "0").exists()


Make = Callable[..., Agent]


async def propose(agent: Agent, **changes: Any) -> Proposal:
    proposer: Proposer = agent
    return await proposer.propose(dataclasses.replace(ASK, **changes), Desk())


async def refusal(agent: Agent, **changes: Any) -> ProposalError:
    with pytest.raises(ProposalError) as refused:
        await propose(agent, **changes)
    return refused.value


def note(**said: Any) -> str:
    return f"import json; json.dump({said!r}, open('proposal.json', 'w'))\n"


# ---------------------------------------------------------------- what comes back


async def test_an_edit_and_what_is_said_of_it_make_a_proposal(agent: Make) -> None:
    said = note(
        hypothesis="The rate is\ntoo low.",
        description="double\tLR",
        expected_effect="-0.003",
        rationale="3 did well",
        usd=5,
        idea={"answer": "used"},
    )
    proposal = await propose(agent(EDIT + said + "print('done')"))
    assert proposal.edits == (EDITED,)
    assert (proposal.description, proposal.hypothesis) == ("double LR", "The rate is\ntoo low.")
    assert (proposal.expected_effect, proposal.rationale) == ("-0.003", "3 did well")
    assert (proposal.idea_used, proposal.idea_why, proposal.ignored) == (None, "", ())
    assert proposal.spent.usd is None, "what an agent costs is not known, whatever it claims"
    assert proposal.prompt_hash == prompts.build(ASK, tokens_max=20_000, answer="files").hash


async def test_without_a_note_the_last_message_is_the_hypothesis(agent: Make) -> None:
    proposal = await propose(agent(EDIT + "print('step 1\\n\\nDoubled LR.\\nIt was low.\\n')"))
    assert (proposal.description, proposal.hypothesis) == ("Doubled LR.", "Doubled LR.\nIt was low.")


async def test_an_agent_that_says_nothing_at_all_is_described_by_the_files_it_changed(agent: Make) -> None:
    proposal = await propose(agent(EDIT + "open('src/new.py', 'w').write('A = 1\\n')"))
    assert proposal.edits == (EDITED, WholeFile("src/new.py", "A = 1\n"))
    assert (proposal.description, proposal.hypothesis) == ("change to train.py, src/new.py", "")


async def test_it_reads_the_prompt_the_program_in_force_and_the_files_of_the_commit(
    agent: Make, tmp_path: Path
) -> None:
    out = tmp_path / "seen.json"
    code = f"""
        import json, os, sys
        prompt = sys.stdin.read()
        assert open(os.environ["NIGHTSHIFT_PROMPT_FILE"]).read() == prompt
        names = sorted(os.path.join(at, name)[2:] for at, _, files in os.walk(".") for name in files)
        json.dump([prompt, open("program.md").read(), names], open({str(out)!r}, "w"))
    """
    proposal = await propose(agent(dedent(code) + EDIT))
    prompt, program, names = json.loads(out.read_text())
    assert prompt == prompts.build(ASK, tokens_max=20_000, answer="files").text
    assert "You propose experiment 7." in prompt
    assert program == "the program in force"
    assert names == sorted(FILES)
    assert proposal.ignored == (), "the program that was put there is no change of the agent's"


@pytest.mark.parametrize(
    ("idea", "used", "why"),
    [
        ({"answer": "used", "why": "x"}, True, ""),
        ({"answer": "declined", "why": "too big"}, False, "too big"),
        ({"answer": "declined"}, False, "the agent did not say"),
        ("used", False, "the agent did not say"),
    ],
)
async def test_an_idea_is_used_only_if_the_agent_says_so(agent: Make, idea: object, used: bool, why: str) -> None:
    proposal = await propose(agent(EDIT + note(idea=idea)), idea=Idea(12, "warm up", "Ada"))
    assert (proposal.idea_used, proposal.idea_why) == (used, why)


async def test_a_repair_is_asked_on_the_commit_that_crashed(agent: Make, tmp_path: Path) -> None:
    out = tmp_path / "prompt"
    code = f"import sys; open({str(out)!r}, 'w').write(sys.stdin.read())\n"
    await propose(agent(code + EDIT), purpose="repair", attempt=1, crash_tail="ValueError: shape")
    assert "You repair experiment 7." in out.read_text() and "ValueError: shape" in out.read_text()


# ---------------------------------------------------------------- what is not taken over


async def test_other_files_are_named_and_not_taken_over(agent: Make) -> None:
    code = """
        import os
        open("prepare.py", "w").write("cheat")
        open("program.md", "a").write("!")
        open("new.txt", "w").write("x")
        os.remove("README.md")
        os.makedirs("__pycache__/x"); open("__pycache__/x/a.pyc", "w").close()
        os.mkdir(".git"); open(".git/config", "w").close()
        os.symlink("/etc", "src/etc")
        os.mkfifo("src/pipe")
        os.chmod("src/model.py", 0o755)
        open("src/bytes.py", "wb").write(b"\\xff")
        open("nasty\\nname\\x1b[31m", "w").close()
    """
    proposal = await propose(agent(dedent(code) + EDIT))
    assert proposal.edits == (EDITED,)
    assert proposal.ignored == (
        "src/bytes.py (not UTF-8 text)",
        f"src/etc ({LINK})",
        f"src/pipe ({SPECIAL})",
        "README.md (deleted)",
        "prepare.py",
        "program.md",
        "nasty name",
        "new.txt",
    )


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("os.remove('train.py'); os.symlink('/etc/passwd', 'train.py')", LINK),
        ("os.remove('train.py'); os.mkfifo('train.py')", SPECIAL),
        ("os.remove('train.py'); os.makedirs('train.py/src')", FOLDER),
        ("os.remove('train.py')", DELETED),
        ("open('train.py', 'wb').write(b'LR = \\xff')", "not UTF-8 text"),
        (f"open('train.py', 'w').write('#' * {FILE_MAX + 1})", "larger than 1 MiB"),
        ("f = open('train.py', 'w'); f.truncate(10**8)", "larger than 1 MiB"),
    ],
)
async def test_an_editable_file_that_is_no_text_file_any_more_is_no_proposal(agent: Make, code: str, why: str) -> None:
    error = await refusal(agent(f"import os\n{code}\n"))
    assert error.failure == "changes_nothing"
    assert error.why == f"the agent changed no editable file; not taken over: train.py ({why})"
    assert error.spent.usd is None


async def test_a_folder_that_became_a_link_is_not_entered(agent: Make, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "model.py").write_text("STOLEN = 1\n")
    code = f"import os, shutil; shutil.rmtree('src'); os.symlink({str(outside)!r}, 'src')\n"
    proposal = await propose(agent(code + EDIT))
    assert proposal.edits == (EDITED,)
    assert proposal.ignored == (f"src/model.py ({DELETED})", f"src ({LINK})")
    assert (outside / "model.py").exists(), "and nothing behind a link is removed"


async def test_ten_thousand_files_are_counted_and_a_hundred_megabytes_not_read(agent: Make) -> None:
    code = """
        import os
        os.mkdir("many")
        for number in range(10_000):
            open(f"many/{number:05}", "w").close()
        with open("large.bin", "wb") as file:
            for _ in range(100):
                file.write(bytes(2**20))
    """
    proposal = await propose(agent(dedent(code) + EDIT))
    assert proposal.edits == (EDITED,)
    assert proposal.ignored[0] == "large.bin"
    assert len(proposal.ignored) == IGNORED_MAX + 1
    assert proposal.ignored[-1] == f"and {10_001 - IGNORED_MAX} more"


async def test_too_many_files_are_not_looked_through(agent: Make) -> None:
    error = await refusal(agent(EDIT + "for n in range(20_050): open(str(n), 'w').close()"))
    assert (error.failure, error.why) == (
        "unparsable",
        "what the agent left cannot be looked through: the folder holds too many files",
    )


async def test_an_agent_that_removes_its_folder_has_proposed_nothing(agent: Make) -> None:
    code = "import os, shutil; here = os.getcwd(); shutil.rmtree(here)\n"
    assert (await refusal(agent(code))).why.endswith("the folder itself was removed")
    code += "os.symlink('/etc', here)\n"
    assert (await refusal(agent(code))).why.endswith("the folder itself was replaced")
    assert os.access("/etc/passwd", os.R_OK)


async def test_a_program_that_is_a_link_in_the_commit_is_replaced_and_not_written_through(
    agent: Make, tmp_path: Path
) -> None:
    outside = tmp_path / "outside.md"
    outside.write_text("theirs")

    async def with_a_link(commit: str, folder: Path) -> None:
        await check_out(commit, folder)
        (folder / "program.md").unlink()
        (folder / "program.md").symlink_to(outside)

    proposal = await propose(agent(EDIT + "print(open('program.md').read())", checkout=with_a_link))
    assert proposal.hypothesis == ASK.program
    assert outside.read_text() == "theirs"


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import os; os.symlink('/etc/passwd', 'proposal.json')", LINK),
        ("import os; os.mkfifo('proposal.json')", SPECIAL),
        ("open('proposal.json', 'w').write('{')", "not a JSON object"),
        ("open('proposal.json', 'w').write('[' * 100_000)", "not a JSON object"),
        ("open('proposal.json', 'w').write('\"' + 'x' * 300_000 + '\"')", "larger than 256 KiB"),
    ],
)
async def test_a_note_that_is_no_plain_small_json_is_as_if_it_were_not_there(agent: Make, code: str, why: str) -> None:
    proposal = await propose(agent(f"{EDIT}{code}\nprint('Doubled LR.')"))
    assert proposal.description == "Doubled LR."
    assert proposal.ignored == (f"proposal.json ({why})",)


# ---------------------------------------------------------------- failures


async def test_an_agent_that_changes_nothing_is_told_so(agent: Make) -> None:
    same = "text = open('train.py').read(); open('train.py', 'w').write(text)\n"
    error = await refusal(agent(same + note(hypothesis="x")))
    assert (error.failure, error.why) == ("changes_nothing", "the agent changed no editable file")
    assert error.prompt_hash


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("print('a'); raise SystemExit('not logged in')", "ended with exit code 1; its last line: not logged in"),
        ("raise SystemExit(3)", "ended with exit code 3; it said nothing"),
        ("import os; os.kill(os.getpid(), 9)", "was killed by signal 9; it said nothing"),
        (f"print({'x' * 1000!r}); raise SystemExit(2)", f"ended with exit code 2; its last line: {'x' * 119}…"),
    ],
)
async def test_an_agent_that_fails_has_proposed_nothing_even_if_it_changed_something(
    agent: Make, code: str, why: str
) -> None:
    error = await refusal(agent(EDIT + code))
    assert (error.failure, error.why, error.edits) == ("agent_failed", f"the agent {why}", ())
    assert error.spent.usd is None


async def test_a_command_that_cannot_be_started_costs_nothing(agent: Make) -> None:
    error = await refusal(agent(command=("no-such-agent",)))
    assert error.failure == "agent_failed"
    assert error.why.startswith("cannot start 'no-such-agent': no such program")
    assert error.spent.usd == 0.0


async def test_half_work_at_the_time_limit_is_no_proposal(agent: Make) -> None:
    error = await refusal(agent(f"{EDIT}import time; time.sleep(60)", timeout_s=0.5))
    assert (error.failure, error.why) == ("timeout", "the agent did not end within 0.5 s")


async def test_what_the_desk_objects_to_fails_with_the_edit_and_its_description(agent: Make) -> None:
    error = await refusal(agent("open('train.py', 'w').write('def')\n" + note(description="break it")))
    assert error.failure == "not_python"
    assert "train.py would not be Python any more" in error.why
    assert (error.description, error.edits) == ("break it", (WholeFile("train.py", "def"),))
    assert error.spent.usd is None and error.prompt_hash


def test_settings_without_a_command_or_with_a_secret_that_is_not_there_make_no_agent(agent: Make) -> None:
    with pytest.raises(CannotPropose, match=r"\[agent\] has none"):
        agent(command=None)
    with pytest.raises(CannotPropose, match=r"agent\.secrets names NOT_THERE") as refused:
        agent(secrets=("NOT_THERE",))
    assert "set NOT_THERE in the environment" in refused.value.remedy


async def test_a_commit_that_cannot_be_checked_out_is_the_loops_affair(agent: Make, tmp_path: Path) -> None:
    async def no_checkout(commit: str, folder: Path) -> None:
        folder.mkdir(parents=True)  # noqa: ASYNC240 - as above
        raise WorkspaceError("git_failed", "a full disk")

    with pytest.raises(WorkspaceError):
        await propose(agent(checkout=no_checkout))


# ---------------------------------------------------------------- what is left


GRANDCHILD = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
open(os.environ["PID_FILE"], "w").write(f"{child.pid}\\n")
"""


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def pid_in(path: Path) -> int:
    ends = time.monotonic() + 20
    while not (path.exists() and path.read_text().endswith("\n")):  # noqa: ASYNC240 - a test may wait for a disk
        assert time.monotonic() < ends, "no pid came"
        await asyncio.sleep(0.01)
    return int(path.read_text())  # noqa: ASYNC240


async def test_what_an_agent_leaves_running_is_killed(agent: Make, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = GRANDCHILD.replace('os.environ["PID_FILE"]', repr(str(pid_file)))
    assert (await propose(agent(code + EDIT))).edits == (EDITED,)
    assert gone(await pid_in(pid_file))


async def test_cancelling_kills_the_agent_and_removes_its_folder(agent: Make, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = GRANDCHILD.replace('os.environ["PID_FILE"]', repr(str(pid_file)))
    task = asyncio.create_task(propose(agent(f"{code}{EDIT}import time; time.sleep(60)")))
    grandchild = await pid_in(pid_file)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gone(grandchild)


async def test_cancelling_while_files_are_checked_out_waits_for_them_and_removes_them(
    agent: Make, tmp_path: Path
) -> None:
    begun, written = asyncio.Event(), []

    async def slow(commit: str, folder: Path) -> None:
        begun.set()
        await asyncio.to_thread(time.sleep, 0.3)
        await check_out(commit, folder)
        written.append(folder)

    task = asyncio.create_task(propose(agent(EDIT, checkout=slow)))
    await begun.wait()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(written) == 1


async def test_what_a_killed_loop_left_in_the_folder_is_not_taken_for_this_ask(agent: Make, tmp_path: Path) -> None:
    left = tmp_path / "proposals" / "nov21" / "7" / "0" / "repository"
    left.mkdir(parents=True)
    (left / "train.py").write_text("LR = 9\n")
    (left / "src").mkdir(mode=0o500)
    proposal = await propose(agent(EDIT))
    assert (proposal.edits, proposal.ignored) == ((EDITED,), ())


@pytest.mark.parametrize("network", [True, pytest.param(False, marks=needs_cut)])
def test_the_agent_dies_with_its_loop(tmp_path: Path, workspace_id: str, network: bool) -> None:
    """Also in a user namespace of its own, where the kernel might forget that it should."""
    pid_file = tmp_path / "pid"
    script = tmp_path / "sleeper.py"
    script.write_text(f"import os, time\nopen({str(pid_file)!r}, 'w').write(f'{{os.getpid()}}\\n')\ntime.sleep(60)\n")
    code = f"""
        import asyncio, os
        from pathlib import Path
        from tests.loop.test_agent import ASK, Desk, check_out
        from eventstore.settings import Agent as Settings
        from loop.proposers.agent import Agent
        agent = Agent(Settings(command=("python", {str(script)!r}), network={network}), editable=("train.py",),
                      protected=(), prompt_tokens=20_000, folder_of=lambda ask: Path({str(tmp_path / "folder")!r}),
                      checkout=check_out, mark_of=lambda ask: "{workspace_id}/nov21/7/n", environ=os.environ)
        asyncio.run(agent.propose(ASK, Desk()))
    """
    loop = subprocess.Popen([sys.executable, "-c", dedent(code)], env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    ends = time.monotonic() + 30
    while not (pid_file.exists() and pid_file.read_text().endswith("\n")):
        assert time.monotonic() < ends and loop.poll() is None
        time.sleep(0.01)
    loop.send_signal(signal.SIGKILL)
    loop.wait()
    while not gone(int(pid_file.read_text())):
        assert time.monotonic() < ends
        time.sleep(0.01)


# ---------------------------------------------------------------- network, secrets, git

CONNECT = """
import socket, sys
try:
    socket.create_connection(("127.0.0.1", {port}), timeout=5).close()
    print("connected")
except OSError as error:
    print("unreachable" if error.errno == 101 else error)
"""


@needs_cut
@pytest.mark.parametrize(("network", "said"), [(True, "connected"), (False, "unreachable")])
async def test_the_network_is_there_only_where_the_settings_allow_it(agent: Make, network: bool, said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = CONNECT.format(port=server.getsockname()[1])
        proposal = await propose(agent(code + EDIT, network=network))
    assert (proposal.hypothesis, proposal.edits) == (said, (EDITED,))


async def test_only_the_secrets_that_are_named_are_in_its_environment(agent: Make, tmp_path: Path) -> None:
    out = tmp_path / "env.json"
    environ = {
        **os.environ,
        "MY_API_KEY": SECRET,
        "ANTHROPIC_API_KEY": "sk-ant-of-the-loop",
        "SLACK_BOT_TOKEN": "xoxb-of-the-bot",
    }
    code = f"import json, os; json.dump(dict(os.environ), open({str(out)!r}, 'w'))\n"
    await propose(agent(code + EDIT, secrets=("MY_API_KEY",), environ=environ))
    seen = json.loads(out.read_text())
    assert seen["MY_API_KEY"] == SECRET
    assert not {"sk-ant-of-the-loop", "xoxb-of-the-bot"} & set(seen.values())


async def test_a_secret_that_it_tells_comes_back_as_its_name(agent: Make) -> None:
    code = f"""
        import os
        key = os.environ["MY_API_KEY"]
        open(key, "w").close()
        open("src/" + "x" * 90 + key, "wb").write(b"\\xff")
        {note(description="x" * 180 + " KEY", hypothesis="KEY", rationale="KEY", idea={"why": "KEY"})}
        text = open("proposal.json").read().replace("KEY", key)
        open("proposal.json", "w").write(text)
    """
    environ = {**os.environ, "MY_API_KEY": SECRET}
    proposal = await propose(
        agent(dedent(code) + EDIT, secrets=("MY_API_KEY",), environ=environ), idea=Idea(1, "x", "Ada")
    )
    assert SECRET[:10] not in repr(proposal)
    assert (proposal.hypothesis, proposal.rationale, proposal.idea_why) == ("[MY_API_KEY]",) * 3
    shown = agent(
        f"import os; print('x' * 3990 + os.environ['MY_API_KEY']); {EDIT}",
        **{"secrets": ("MY_API_KEY",)},
        environ=environ,
    )
    assert SECRET[:10] not in repr(await propose(shown))
    failing = agent("import os; raise SystemExit(os.environ['MY_API_KEY'])", secrets=("MY_API_KEY",), environ=environ)
    assert (await refusal(failing)).why.endswith("its last line: [MY_API_KEY]")


@pytest.mark.parametrize("where", ["open('train.py', 'a').write('KEY = ' + repr(key))", "open('src/' + key, 'w')"])
async def test_a_secret_in_an_edit_is_no_proposal(agent: Make, where: str) -> None:
    environ = {**os.environ, "MY_API_KEY": SECRET}
    code = f"import os; key = os.environ['MY_API_KEY']; {where}\n"
    error = await refusal(agent(code, secrets=("MY_API_KEY",), environ=environ))
    assert error.failure == "edit_touches_protected"
    assert error.why == "the agent wrote the value of MY_API_KEY into an editable file, where everyone could read it"
    assert (error.edits, error.description) == ((), "")


def test_the_end_of_an_output_that_begins_within_a_secret_is_scrubbed_too() -> None:
    secrets = Secrets({"PEM": f"-----BEGIN-----\n{'a' * 20}\n", "SHORT": "1"})
    assert secrets.scrubbed(f"x {'a' * 20} 1") == "x [PEM] 1"
    assert secrets.scrubbed_end(f"{'a' * 12} and more") == "[PEM] and more"
    assert secrets.scrubbed_end("aaaa and more") == "aaaa and more"


async def test_git_does_not_find_the_repository_that_the_folder_lies_in(agent: Make, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)  # noqa: ASYNC221 - a moment
    code = "import subprocess; print(subprocess.run(['git', 'rev-parse', '--show-toplevel']).returncode)\n"
    assert (await propose(agent(code + EDIT))).hypothesis.endswith("128")


# ---------------------------------------------------------------- the parts


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["hypothesis", "description", "idea", "answer", "why", "x"]), inner, max_size=5
        )
    ),
    max_leaves=10,
)


@given(JSON)
def test_any_json_is_a_note_or_none(value: object) -> None:
    found = note_of(json.dumps(value).encode(), Secrets({}))
    assert (found is not None) == isinstance(value, dict)
    if found is not None:
        repr(found).encode()
        assert "\n" not in found.description and len(found.description) <= 200


@given(st.binary(max_size=100))
def test_any_bytes_are_a_note_or_none(raw: bytes) -> None:
    note_of(raw, Secrets({}))


def test_wrong_types_and_unknown_keys_of_a_note_are_as_if_they_were_not_there() -> None:
    found = note_of(b'\xef\xbb\xbf{"hypothesis": 3, "description": ["x"], "rationale": "why", "more": 1}', Secrets({}))
    assert found is not None
    assert (found.hypothesis, found.description, found.rationale) == ("", "", "why")


def test_differences_are_by_content_where_that_was_read_and_by_stamp_where_not() -> None:
    a, b = Seen("", b"a", (1,)), Seen("", b"b", (1,))
    large, moved = Seen("", b"", (1,)), Seen("", b"", (2,))
    before = {"same": a, "touched": a, "changed": a, "large": large, "grown": large, "was": a, "dir": Seen(FOLDER)}
    after = {"same": a, "touched": Seen("", b"a", (9,)), "changed": b, "large": large, "grown": moved}
    after |= {"was": Seen(FOLDER), "new": a, "newdir": Seen(FOLDER)}
    assert differences(before, after) == {"changed": "", "grown": "", "was": FOLDER, "new": ""}
    assert differences({"a": a}, {}) == {"a": DELETED}


def test_a_plain_file_is_read_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("plain")
    os.mkfifo(tmp_path / "pipe")
    assert read_plain(tmp_path / "plain", 5) == b"12345"
    for name, most, why in (("plain", 4, "larger"), ("link", 9, LINK), ("pipe", 9, SPECIAL), ("gone", 9, "cannot")):
        with pytest.raises(Unfit, match=why):
            read_plain(tmp_path / name, most)


def test_folders_of_any_depth_and_any_permissions_are_removed_and_links_not_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("x")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(kept)
    (folder / ".0").mkdir()
    here = os.open(folder, os.O_RDONLY)
    for _ in range(1500):  # a path of 15,000 characters, which no single call can name
        os.mkdir("123456789", dir_fd=here)
        inner = os.open("123456789", os.O_RDONLY, dir_fd=here)
        os.fchmod(here, 0o500)
        os.close(here)
        here = inner
    os.fchmod(here, 0)
    os.close(here)
    assert len(survey(folder, 10_000)) < 100
    remove(folder)
    assert not folder.exists()
    assert (kept / "file").exists()
    (tmp_path / "to").symlink_to(kept)
    remove(tmp_path / "to")
    remove(tmp_path / "to")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept"]
