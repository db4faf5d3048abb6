"""What to run, with which limits, and what came of it. Pure.

A training and a guard are both a command in a folder with a time limit and a mark. What the child is told
of the world is decided here: its environment is made from a short list of names, so that a secret in the
environment of the loop does not reach code that nobody has read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from trainer.errors import InvalidSpec
from trainer.sandbox.plan import View

Outcome = Literal[
    "scored",
    "crash",
    "oom",
    "timeout",
    "diverged",
    "no_metric",
    "tampered",
    "refused_operator",
    "stopped",
    "lost",
]
Cut = Literal["", "timeout", "stopped", "memory", "processes", "disk"]
"""Why we ended a process tree ourselves: the clock, a request, a limit of its view; empty where it ended by itself."""

MARK_VARIABLE = "NIGHTSHIFT_MARK"

PASSED_ON = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "XDG_CACHE_HOME"),
        *("VIRTUAL_ENV", "LD_LIBRARY_PATH", "CC", "CXX", "NIGHTSHIFT_CACHE"),
    }
)
"""Variables that the child gets from the loop. PYTHONPATH is not among them: a program is to find what is
installed and what lies in its folder, the same on every machine."""

PASSED_ON_PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "OMP_", "MKL_", "OPENBLAS_", "PYTORCH_", "TORCHINDUCTOR_", "TRITON_")

SECRET = re.compile(
    r"(?:ANTHROPIC|OPENAI|SLACK|AWS|AZURE|GITHUB|SSH)_.*"
    r"|(?:.*_)?(?:TOKEN|KEY|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)",
    re.IGNORECASE,
)
"""Names that speak of secrets. They are refused even where a prefix above, or a setting, would pass them: only
`CommandSpec.secrets` lets one through."""

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """
    Where the score of a training is found.

    Attributes:
        kind: `stdout`, a line `name: number` of the output; `json`, a number in a file; `pass`, the exit code;
            `sealed`, nothing of what the program says: it hands a model over, which others score.
        name: The objective's name.
        file: For `json`: path of the file, relative to the work folder.
        key: For `json`: dotted path to the number inside it, such as `test.accuracy`.
    """

    kind: Literal["stdout", "json", "pass", "sealed"]
    name: str
    file: str | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        if not self.name or any(c in self.name for c in "\r\n:"):
            raise InvalidSpec("name", f"not a metric name: {self.name!r}, expected one line without a colon")
        if self.kind != "json":
            return
        if not self.key:
            raise InvalidSpec("score_key", 'missing, expected the path to the number, such as "test.accuracy"')
        path = PurePosixPath(self.file or "")
        if not path.parts or path.is_absolute() or ".." in path.parts:
            raise InvalidSpec("score_file", f"{self.file!r}, expected a path inside the work folder, without `..`")


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSpec:
    """
    A command to run to its end.

    Attributes:
        command: The words of the command. A first word `python` is the interpreter that runs us.
        workdir: The folder it runs in; it must exist.
        mark: `<workspace id>/<tag>/<experiment>/<nonce>`; in the environment of the child and of all its children,
            where a later loop finds what an earlier one left behind.
        timeout_s: Wall clock after which the whole tree is killed.
        env: Further variables for the child. One whose name speaks of a secret is refused.
        stdin: What the child reads, text as UTF-8; None: it finds its input at the end.
        secrets: Names of variables that the child gets from the loop although they are not on the list, or speak of
            secrets. Only a person's setting may name them.
        network: False: the child has no network, not even this machine's own; it is not started where that cannot be.
        view: What the child may see and use; None: all that this user can.
        pass_fds: Descriptors that the child gets besides the first three, under the same numbers.
    """

    command: tuple[str, ...]
    workdir: Path
    mark: str
    timeout_s: float
    env: Mapping[str, str] = field(default_factory=dict)
    stdin: bytes | str | None = field(default=None, repr=False)
    secrets: tuple[str, ...] = ()
    network: bool = True
    view: View | None = None
    pass_fds: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.command or not self.command[0] or any("\0" in word for word in self.command):
            raise InvalidSpec("command", f"{self.command!r}, expected a program and its arguments")
        if not (math.isfinite(self.timeout_s) and self.timeout_s > 0):
            raise InvalidSpec("timeout_s", f"{self.timeout_s}, expected seconds above 0")
        parts = self.mark.split("/")
        if len(parts) != 4 or not all(parts) or "\0" in self.mark or not parts[2].isdecimal():
            raise InvalidSpec("mark", f"{self.mark!r}, expected <workspace id>/<tag>/<experiment number>/<nonce>")
        if wrong := [name for name in self.secrets if not VARIABLE.fullmatch(name)]:
            raise InvalidSpec("secrets", f"{wrong[0]!r}, expected the name of a variable such as MY_API_KEY")
        if secrets := sorted(name for name in self.env if SECRET.fullmatch(name)):
            raise InvalidSpec("env", f"{', '.join(secrets)} would hand a secret to code that nobody has read")

    @property
    def experiment(self) -> int:
        """The number of the experiment, from the mark."""
        return int(self.mark.split("/")[2])

    @property
    def nonce(self) -> str:
        """What tells this start of the command from every other one, from the mark."""
        return self.mark.split("/")[3]

    def variables(self) -> dict[str, str]:
        """The variables we set ourselves; they win over all others."""
        return {
            MARK_VARIABLE: self.mark,
            "PYTHONUNBUFFERED": "1",  # else live progress would come in blocks of 8 kB
            "PYTHONDONTWRITEBYTECODE": "1",  # what is new in the work folder afterwards was written by the program
        }


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file that is handed in when a training is ready; *sha256* in hex is checked, empty: not known."""

    path: Path
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Seal:
    """
    What sealed scoring needs of a training.

    Attributes:
        data: What the child gets when it says READY, which starts its clock, and cannot see before.
        handed: Folder to which is moved what it has handed over, once nothing of it runs; made anew.
        grace_s: Seconds after its budget by which it must have handed over and ended.
    """

    data: tuple[DataFile, ...]
    handed: Path
    grace_s: float


GATE_VARIABLE = "NIGHTSHIFT_GATE"
HAND_OVER_VARIABLE = "NIGHTSHIFT_HAND_OVER"
HAND_OVER_NAME = ".handed-over"
"""The folder in the work folder that a child writes to; its number of the gate and its path are told to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSpec(CommandSpec):
    """
    One training of one commit.

    Attributes:
        outdir: Folder for the log and the result, made if missing; nothing of an earlier start is left in it.
        budget_s: Training time that the harness grants, told to the child.
        seed: Told to the child.
        attempt, trial: Which training of the experiment this is.
        seal: There if and only if the scoring is `sealed`.
    """

    outdir: Path
    budget_s: float
    seed: int
    scoring: Scoring
    attempt: int = 0
    trial: int = 0
    seal: Seal | None = None

    def __post_init__(self) -> None:
        CommandSpec.__post_init__(self)  # super() does not work in a dataclass with slots
        if not (math.isfinite(self.budget_s) and self.budget_s > 0):
            raise InvalidSpec("budget_s", f"{self.budget_s}, expected seconds above 0")
        if self.seed < 0:
            raise InvalidSpec("seed", f"{self.seed}, expected 0 or more")
        if (self.scoring.kind == "sealed") != (self.seal is not None):
            raise InvalidSpec("seal", "expected with sealed scoring, and with no other")

    def variables(self) -> dict[str, str]:
        own = {"NIGHTSHIFT_BUDGET_S": str(float(self.budget_s)), "NIGHTSHIFT_SEED": str(self.seed)}
        if self.seal is not None:
            own[HAND_OVER_VARIABLE] = str(self.workdir / HAND_OVER_NAME)
        return CommandSpec.variables(self) | own


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """
    How a training ended.

    Attributes:
        seconds: Wall clock from the start of the command to its end.
        score: Present if and only if *outcome* is `scored`; finite. It is what the program claims. With sealed scoring
            there is none yet: `scored` says that a model was handed over in time.
        metrics: Lines of the metric block, at most 64; never NaN or infinite.
        peak_memory_mb: MiB; `peak_vram_mb` of the block where it is above 0, else the most resident memory that
            the tree was seen to hold, or None where it ended before it could be seen.
        exit_code: Negative for a death by signal; None where no process was seen to end.
        why: One sentence where *outcome* is not `scored`.
        tail: The last 4,000 characters of the output, without control characters.
        nonce: Of the start that ended so.
        trained_s: Wall clock from GO to its end, where there was a gate and it was ready; else None.
    """

    outcome: Outcome
    seconds: float
    nonce: str
    score: float | None = None
    metrics: Mapping[str, int | float | str] = field(default_factory=dict)
    peak_memory_mb: float | None = None
    exit_code: int | None = None
    why: str = ""
    tail: str = ""
    trained_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """How a guard, or any other command that is not scored, ended. The fields are as in `Result`; *why* says what it
    used too much of, if it was killed for that."""

    cut: Cut
    exit_code: int | None
    seconds: float
    tail: str
    why: str = ""

    @property
    def timed_out(self) -> bool:
        return self.cut == "timeout"


@dataclass(frozen=True, slots=True)
class Launch:
    """A command as the operating system is to start it: all words, the whole environment, the folder, its input."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)  # it may hold secrets
    cwd: Path
    stdin: bytes | None = field(default=None, repr=False)
    network: bool = True
    pass_fds: tuple[int, ...] = ()


def launch_of(spec: CommandSpec, *, environ: Mapping[str, str], python: str) -> Launch:
    """
    Work out what is started for *spec*. What confines the child (`sandbox.plan`) is put around the answer.

    Args:
        environ: The environment of the loop, of which the child gets the names in `PASSED_ON`.
        python: Path of the interpreter that stands in for a first word `python`.
    """
    first, *rest = spec.command
    return Launch(
        argv=(python if first == "python" else first, *rest),
        env=child_environment(spec, environ),
        cwd=spec.workdir,
        stdin=spec.stdin.encode("utf-8", "replace") if isinstance(spec.stdin, str) else spec.stdin,
        network=spec.network,
        pass_fds=spec.pass_fds,
    )


def child_environment(spec: CommandSpec, environ: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of the child: what is passed on, what the spec adds, what we set."""
    passed = {name: value for name, value in environ.items() if is_passed_on(name) or name in spec.secrets}
    return passed | dict(spec.env) | spec.variables()


def is_passed_on(name: str) -> bool:
    """Whether a child gets the variable *name* of the loop's environment."""
    return (name in PASSED_ON or name.startswith(PASSED_ON_PREFIXES)) and not SECRET.fullmatch(name)
