"""The commands that read the log or ask for something: the half of `nightshift` that trains nothing.

`nightshift.py` finds each subcommand here by its name and imports this module only when one is called.
"""

from __future__ import annotations

from eventstore.commands.digests import digest_command
from eventstore.commands.experiments import experiment_command
from eventstore.commands.ideas import idea_command
from eventstore.commands.logs import log_command
from eventstore.commands.programs import program_command
from eventstore.commands.steer import budget_command, pause_command, resume_command, stop_command
from eventstore.commands.watch import results_command, status_command

__all__ = [
    "budget_command",
    "digest_command",
    "experiment_command",
    "idea_command",
    "log_command",
    "pause_command",
    "program_command",
    "results_command",
    "resume_command",
    "status_command",
    "stop_command",
]
