"""What `nightshift init` and `demo` start from: constants for prepare.py and train.py, and nightshift.toml. Pure data.

train.py and prepare.py ship with the constants of the profile `cpu`, so that the files can be read and run as they
stand; every other profile says what differs.
"""

from __future__ import annotations

from dataclasses import dataclass

from eventstore.events import Scalar


@dataclass(frozen=True, slots=True)
class Profile:
    """
    A kind of machine to start on.

    Attributes:
        constants: By file, the top-level constants that differ from the shipped file. Empty: ships as it is.
        settings: The text of nightshift.toml.
    """

    constants: dict[str, dict[str, Scalar]]
    settings: str


DEMO_BUDGET_S = 6.0
"""Seconds of training for each experiment of the demo: seven of them end in one and a half minutes on two cores."""

_OBJECTIVE = """\
# The settings of this workspace. An unknown key or an impossible value is refused before anything starts.

[objective]
name = "val_bpb"            # the line of the result block that is the score: bits per byte of unseen text
direction = "minimize"      # lower is better
score = "sealed"            # measured by Nightshift on the model that train.py hands over, on text it never sees
editable = ["train.py"]     # what an experiment may change
protected = ["prepare.py"]  # the harness: an experiment that changes it fails
"""

_LIMITS = """\
# [guard]                   # a command that must exit 0 before a better score is kept
# command = ["python", "-m", "pytest", "-q"]
# timeout_s = 600

# [limits]                  # when a run ends by itself; without this table it goes on until it is stopped
# experiments = 100         # verdicts after the baseline
# until = "08:00"

# [slack]                   # `nightshift bot`; its tokens come from the environment, never from here
# channel = "C0123ABCDEF"   # where runs are posted and commands are taken: ids, not names
# admins = ["U0123ABCDEF"]  # people (U…, W…) and user groups (S…) who may do everything
# operators = []            # who may start, steer and stop runs; everyone else may only look

# [digest]
# at = "08:00"              # or "off"
# zone = "Europe/Berlin"    # absent: the clocks of this machine
"""

CPU = Profile(
    constants={},
    settings=f"""\
{_OBJECTIVE}
[experiment]
command = ["python", "train.py"]
budget_s = 10               # seconds of training: every experiment gets the same
timeout_s = 90              # seconds of wall clock, start-up included; then everything is killed
grace_s = 10                # seconds after the budget by which the model must be handed over

[verdict]
rule = "strict"             # a better score is kept
equal_within = 0.005        # the same code scores this far apart from run to run on a CPU: no difference
memory_factor_max = 2.5     # peak memory may grow to this many times that of the best; the least is PyTorch itself

[proposer]
kind = "sweep"              # no model and no key: draws the constants below, at random first, then near the best

# Constants at the top of train.py. Each experiment sets all of them. train.py starts mediocre on purpose:
# better and worse values than it has lie in these ranges.
[sweep]
DEPTH = {{ low = 1, high = 6 }}                      # written as whole numbers: drawn as whole numbers
MATRIX_OPTIMIZER = {{ choices = ["adamw", "muon"] }}
MATRIX_LR = {{ low = 0.0003, high = 0.1, log = true }}  # log: as many draws below 0.005 as above
EMBED_LR = {{ low = 0.0008, high = 0.5, log = true }}
HEAD_LR = {{ low = 0.0008, high = 0.03, log = true }}
WARMDOWN = {{ low = 0.0, high = 0.8 }}
BATCH_ROWS = {{ choices = [8, 16, 32] }}

{_LIMITS}""",
)

GPU = Profile(
    constants={
        "prepare.py": {
            "CORPUS": "climbmix",
            "VOCAB_SIZE": 8192,
            "MAX_SEQ_LEN": 2048,
            "TIME_BUDGET_S": 300.0,
            "EVAL_TOKENS": 20_971_520,
            "EVAL_BATCH_TOKENS": 32_768,
        },
        "train.py": {
            "DEPTH": 8,
            "DIM": 512,
            "HEAD_DIM": 128,
            "WINDOW_PATTERN": "SSSL",
            "SHORT_WINDOW": 256,
            "ROPE_BASE": 200_000.0,
            "SEQ_LEN": 2048,
            "BATCH_ROWS": 64,
            "ACCUMULATION": 2,
            "MATRIX_OPTIMIZER": "muon",
            "MATRIX_LR": 0.04,
            "EMBED_LR": 0.8,
            "HEAD_LR": 0.005,
            "SCALAR_LR": 0.01,
            "WEIGHT_DECAY": 0.2,
            "ADAM_BETA1": 0.8,
            "WARMDOWN": 0.7,
        },
    },
    settings=f"""\
{_OBJECTIVE}
[experiment]
command = ["python", "train.py"]
budget_s = 300              # seconds of training: every experiment gets the same
timeout_s = 600             # seconds of wall clock, compiling included; then everything is killed
grace_s = 20                # seconds after the budget by which the model must be handed over

[verdict]
rule = "strict"             # a better score is kept
equal_within = 0.0005       # about what another seed alone moves a run of five minutes on an H100
memory_factor_max = 1.5     # peak memory may grow to this many times that of the best

[proposer]
kind = "sweep"              # no model and no key: draws the constants below, at random first, then near the best

# Constants at the top of train.py. Each experiment sets all of them.
[sweep]
MATRIX_LR = {{ low = 0.01, high = 0.1, log = true }}
EMBED_LR = {{ low = 0.1, high = 2.0, log = true }}
HEAD_LR = {{ low = 0.001, high = 0.02, log = true }}
WEIGHT_DECAY = {{ low = 0.0, high = 0.4 }}
WARMDOWN = {{ low = 0.3, high = 0.9 }}
FINAL_LR = {{ low = 0.0, high = 0.1 }}
X0_LAMBDA = {{ low = 0.0, high = 0.3 }}
MATRIX_INIT = {{ low = 0.5, high = 1.5 }}

{_LIMITS}""",
)

PROFILES = {"cpu": CPU, "gpu": GPU}
"""By the name that `init --profile` takes."""
