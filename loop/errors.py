"""Everything that can go wrong in the loop, as one small tree.

A message says what happened, where, and what to do. What a program needs to react is a field, never
something to parse out of the message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

EditFailure = Literal["edit_does_not_apply", "edit_touches_protected", "changes_nothing", "not_python"]


class LoopError(Exception):
    """Base of all errors raised by this package."""


class EditRefused(LoopError):
    """An edit that must not or cannot be made. *failure* is its class, *why* the sentence for people."""

    def __init__(self, failure: EditFailure, why: str) -> None:
        self.failure: EditFailure = failure
        self.why = why
        super().__init__(why)


class CannotPropose(LoopError):
    """A proposer cannot be made from the settings and the environment. *remedy* is what to do about it."""

    def __init__(self, why: str, remedy: str) -> None:
        self.remedy = remedy
        super().__init__(why)


class BadScript(CannotPropose):
    """A script of proposals that cannot be read."""

    def __init__(self, why: str) -> None:
        super().__init__(why, "mend the file and ask again")


class WorkspaceError(LoopError):
    """Git cannot do what is asked. *code* is a word for programs."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


class GitFailed(WorkspaceError):
    """A git command that should have worked did not; *said* is its own last words."""

    def __init__(self, what: str, said: str) -> None:
        self.said = said
        super().__init__("git_failed", f"`git {what}` failed: {said}")


class MergeConflict(WorkspaceError):
    """An edit made for an older commit and the newer tip change the same lines of *paths*."""

    def __init__(self, paths: Sequence[str], tip: str) -> None:
        self.paths = tuple(paths)
        self.tip = tip
        super().__init__("conflict", f"the edit and the tip {tip[:7]} change the same lines of {', '.join(self.paths)}")


class BranchTaken(WorkspaceError):
    """The run's branch is not where it should be. *where* is the commit it points at, None if it is gone."""

    def __init__(self, branch: str, where: str | None, message: str) -> None:
        self.branch = branch
        self.where = where
        super().__init__("branch_taken", message)
