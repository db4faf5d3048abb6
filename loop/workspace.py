"""The one door of git: what a run reads from, and writes to, the person's repository.

Guaranteed: the person's checkout, index and HEAD are never touched; a tree is built in an index of our
own, a branch moves by compare-and-set only, and equal inputs give equal commits on every machine.
Neither the caller's GIT_* variables nor hooks, templates, commit signing or sparse checkouts have a say.
Objects and refs are on disk when a method returns.

Not covered: a submodule becomes an empty folder in a checkout, as in a plain `git clone`. A file kept by
git LFS comes out with its content where git LFS is installed for the user and holds it, and as its
pointer where it is not. Nothing is ever fetched for a run, deleted or packed (`git gc` does that).

Methods block for a few milliseconds to the length of a checkout. One instance serves one thread at a time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from eventstore.envelope import parse_at
from eventstore.events import WholeFile
from eventstore.requests import tag_problem
from eventstore.settings import matches
from eventstore.witness import TRAILER, parse_head
from loop.edits import apply, check_path, check_place, check_text, count_lines, essence, unified_diff
from loop.errors import BranchTaken, EditRefused, GitFailed, MergeConflict, WorkspaceError
from trainer.spec import MARK_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from eventstore.envelope import Head
    from eventstore.events import FileEdit

Value = TypeVar("Value")

PROGRAM_FILE = "program.md"
NAME, EMAIL = "Nightshift", "nightshift@localhost"

CONFIG = (
    "core.hooksPath=/dev/null",
    "core.fsync=loose-object,reference",  # git's default leaves both to the disk's cache: a power cut empties them
    "core.autocrlf=false",  # the bytes of the commit, whatever the user's habit
    "core.sparseCheckout=false",
    "core.splitIndex=false",
    "core.fsmonitor=false",
    "commit.gpgSign=false",
    "i18n.commitEncoding=UTF-8",
)

HARMLESS = (
    "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", "GIT_EXEC_PATH",
    "GIT_ASKPASS", "GIT_EDITOR", "GIT_PAGER", "GIT_PS1_", "GIT_PYTHON_", "GIT_SSH", "GIT_SSL_",
)  # fmt: skip
"""Beginnings of GIT_* variables that say where the user's git is or how it talks, not what it should work on."""

REGULAR = frozenset({"100644", "100755"})
SUBMODULE = "160000"

LOCK_PATIENCE_S = 1.0
LISTINGS_MAX = 8  # commits whose list of files is kept in memory
CONTENTS_MAX, CONTENT_MAX = 64, 256 * 1024  # how many contents are kept in memory, and up to how many bytes each


@dataclass(frozen=True, slots=True)
class Prepared:
    """
    A tree that is ready to be committed on the tip.

    *diff* and the line counts are against the tip and look at editable files only; lines are neither
    blank nor comments. *paths* are the editable files that change; *content_hash* is as `Workspace.content_hash`,
    empty if no origin was given.
    """

    tree: str
    diff: str
    lines_added: int
    lines_removed: int
    paths: tuple[str, ...]
    content_hash: str = ""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file of a commit: git's mode in octal digits and the hash of its blob."""

    mode: str
    blob: str


class _Git:
    """Runs git commands in one folder, shielded from the caller's environment and from Ctrl-C."""

    def __init__(self, folder: Path) -> None:
        try:
            from git import Git  # noqa: PLC0415 - importing it fails where no git is installed
        except ImportError as error:
            raise WorkspaceError("no_git", "git was not found on this machine: install it") from error
        self._git = Git(folder)
        self.variables: dict[str, str] = {"GIT_NO_REPLACE_OBJECTS": "1"}

    def run(self, *args: str, stdin: bytes = b"", extra: Mapping[str, str] | None = None) -> tuple[int, bytes, str]:
        """Run one command and return its exit status, stdout and stderr."""
        variables = {**self.variables, **(extra or {})}
        leaks = [name for name in os.environ if name.startswith("GIT_") and not name.startswith(HARMLESS)]
        leaks = [name for name in leaks if name not in variables]  # those are overridden, and `env -u` comes after
        shield = ["env", *(word for name in leaks for word in ("-u", name))] if leaks else []
        config = [word for setting in CONFIG for word in ("-c", setting)]
        command = [*shield, str(self._git.GIT_PYTHON_GIT_EXECUTABLE), *config, *args]
        with tempfile.TemporaryFile() as source:
            source.write(stdin)
            source.seek(0)
            status, out, said = self._git.execute(
                command,
                istream=source,
                env=variables,
                with_extended_output=True,
                with_exceptions=False,
                stdout_as_string=False,
                strip_newline_in_stdout=False,
                start_new_session=True,  # Ctrl-C is for the loop: half a git command helps nobody
            )
        return status, out, said if isinstance(said, str) else said.decode("utf-8", "replace")

    def out(self, *args: str, stdin: bytes = b"", extra: Mapping[str, str] | None = None) -> bytes:
        """Run one command that must work and return its stdout. Raises `GitFailed`."""
        status, out, said = self.run(*args, stdin=stdin, extra=extra)
        if status:
            raise GitFailed(args[0], _one_line(said) or f"exit status {status}")
        return out

    def word(self, *args: str, stdin: bytes = b"", extra: Mapping[str, str] | None = None) -> str:
        return self.out(*args, stdin=stdin, extra=extra).decode("utf-8", "surrogateescape").removesuffix("\n")


class Workspace:
    """One person's repository, seen by the loop. Make it by `Workspace.open` or `Workspace.create`."""

    def __init__(self, root: Path, git: _Git, common_dir: Path) -> None:
        self.root = root
        self._git = git
        self._common_dir = common_dir
        self._scratch_root = root / ".nightshift" / "tmp"
        self._listings: dict[str, dict[str, _Entry]] = {}
        self._contents: dict[str, bytes] = {}

    @classmethod
    def open(cls, root: Path, mark: str = "") -> Workspace:
        """
        Open the repository whose top folder is *root*. Changes nothing.

        Args:
            mark: What its git commands carry in their environment, so that those of a loop that died can be found.

        Raises:
            WorkspaceError: If there is no git, no folder, no repository with a checkout there, or no commit in it.
        """
        root = root.resolve()
        if not root.is_dir():
            raise WorkspaceError("no_folder", f"there is no folder {root}")
        git = _Git(root)
        status, out, said = git.run("rev-parse", "--show-toplevel", "--absolute-git-dir", "--git-common-dir")
        if status and "not a git repository" in said:
            raise WorkspaceError(
                "no_repository",
                f"{root} is not a git repository: `git init`, add your files and commit them, "
                "or let `nightshift init` make a workspace",
            )
        if status and "work tree" in said:
            raise WorkspaceError("no_checkout", f"{root} is a git repository without a checkout: clone it and go there")
        if status:
            raise GitFailed("rev-parse", _one_line(said))
        top, git_dir, common_dir = (Path(os.fsdecode(line)) for line in out.splitlines())
        if top.resolve() != root:
            raise WorkspaceError("not_top", f"{root} is inside the git repository {top}: use {top} as the workspace")
        git.variables |= {
            "GIT_DIR": str(git_dir),
            "GIT_INDEX_FILE": str(root / ".nightshift" / "no-index"),  # never there: no command sees the person's index
            "GIT_AUTHOR_NAME": NAME,
            "GIT_AUTHOR_EMAIL": EMAIL,
            "GIT_COMMITTER_NAME": NAME,
            "GIT_COMMITTER_EMAIL": EMAIL,
        }
        if mark:
            git.variables[MARK_VARIABLE] = mark
        workspace = cls(root, git, root / common_dir)
        if workspace._commit_of("HEAD") is None:
            raise WorkspaceError(
                "no_commit", f"the repository {root} has no commit yet: `git add` your files and `git commit` them"
            )
        return workspace

    @classmethod
    def create(cls, root: Path, paths: Sequence[str], subject: str) -> Workspace:
        """
        Make a new repository in the folder *root* whose first commit, on `main`, holds the files *paths*.

        The author is the user as git knows them, else Nightshift. Raises `WorkspaceError` if there is a
        repository already.
        """
        if (root / ".git").exists():
            raise WorkspaceError("repository_exists", f"{root} is a git repository already")
        git = _Git(root)
        git.out("-c", "init.defaultBranch=main", "init", "--quiet", "--template=")
        if git.run("var", "GIT_COMMITTER_IDENT")[0]:
            git.variables |= {"GIT_AUTHOR_NAME": NAME, "GIT_AUTHOR_EMAIL": EMAIL}
            git.variables |= {"GIT_COMMITTER_NAME": NAME, "GIT_COMMITTER_EMAIL": EMAIL}
        git.out("add", "--", *paths)
        git.out("commit", "--quiet", "-m", subject)
        return cls.open(root)

    # ------------------------------------------------------------ reading

    def resolve(self, ref: str) -> str:
        """The full hash of the commit that *ref* names. Raises `WorkspaceError` if it names none."""
        found = None if ref.startswith("-") or not ref.isprintable() else self._commit_of(ref)
        if not ref or found is None:
            raise WorkspaceError("unknown_ref", f"no commit of this repository is named {ref!r}")
        return found

    def tree_of(self, commit: str) -> str:
        """The hash of a commit's tree."""
        return self._git.word("rev-parse", "--verify", f"{commit}^{{tree}}")

    def list_files(self, commit: str) -> list[str]:
        """Paths of all files of a commit, sorted; symbolic links too, submodules not."""
        return sorted(path for path, entry in self._entries(commit).items() if entry.mode != SUBMODULE)

    def submodules(self, commit: str) -> list[str]:
        """Paths of a commit's submodules, sorted; they are empty folders in a checkout."""
        return sorted(path for path, entry in self._entries(commit).items() if entry.mode == SUBMODULE)

    def matching(self, commit: str, patterns: Sequence[str]) -> list[str]:
        """Paths of the files of a commit that any of *patterns* matches, sorted."""
        return [path for path in self.list_files(commit) if any(matches(pattern, path) for pattern in patterns)]

    def protected_missing(self, commit: str, patterns: Sequence[str]) -> list[str]:
        """Those *patterns* that match no file of the commit."""
        files = self.list_files(commit)
        return [pattern for pattern in patterns if not any(matches(pattern, path) for path in files)]

    def read_file(self, commit: str, path: str) -> str | None:
        """
        The text of a file, its line ends as they are; None if the commit has no regular file there.

        Raises:
            WorkspaceError: If it is not UTF-8 text.
        """
        entry = self._entries(commit).get(path)
        if entry is None or entry.mode not in REGULAR:
            return None
        try:
            return self._blobs([entry.blob])[0].decode("utf-8")
        except UnicodeDecodeError as error:
            raise WorkspaceError("not_text", f"{path} of the commit {commit[:7]} is not UTF-8 text") from error

    def read_files(self, commit: str, patterns: Sequence[str]) -> dict[str, str]:
        """Text by path of the regular files that *patterns* match; what is not UTF-8 text is left out."""
        return self._texts(commit, self.matching(commit, patterns))

    def hash_files(self, commit: str, patterns: Sequence[str]) -> str:
        """
        SHA-256 in hexadecimal over the files that *patterns* match: paths, modes and contents.

        For each file, sorted by path: path, mode and length of the content in bytes, each followed by a
        zero byte, then the content.
        """
        entries = self._entries(commit)
        paths = self.matching(commit, patterns)
        digest = hashlib.sha256()
        for path, content in zip(paths, self._blobs([entries[path].blob for path in paths]), strict=True):
            digest.update(b"%b\0%b\0%d\0" % (os.fsencode(path), entries[path].mode.encode(), len(content)))
            digest.update(content)
        return digest.hexdigest()

    def changes(self, base: str, commit: str, ignored: Sequence[str] = ()) -> tuple[WholeFile, ...]:
        """What a commit changes against *base*, as whole files, but for files that *ignored* matches."""
        paths = [path for path in self._changed(base, commit) if not any(matches(pattern, path) for pattern in ignored)]
        return tuple(WholeFile(path, text) for path, text in self._texts(commit, paths).items())

    # ------------------------------------------------------------ the run's branch and refs

    def create_branch(self, tag: str, commit: str) -> None:
        """
        Make the run's branch at *commit*; if it is there already, nothing is done.

        Raises:
            BranchTaken: If it exists elsewhere.
            WorkspaceError: If the tag cannot be part of a ref, or attempts of an earlier run of this tag are kept.
        """
        _check_tag(tag)
        kept = self.kept_ref(tag)
        if kept is not None:
            raise WorkspaceError(
                "tag_used",
                f"attempts of an earlier run {tag} are kept under refs/nightshift/{tag}/ ({kept} for one): "
                "choose another tag, or delete those refs with `git update-ref -d`",
            )
        status, _, said = self._git.run("update-ref", "-m", "nightshift: start", _branch_ref(tag), commit, "")
        where = self.branch_tip(tag) if status else commit
        if where is None:
            raise GitFailed("update-ref", _one_line(said))
        if where != commit:
            name = f"autoresearch/{tag}"
            raise BranchTaken(name, where, f"the branch {name} exists and points at {where[:7]}, not at {commit[:7]}")

    def kept_ref(self, tag: str) -> str | None:
        """A ref under which an attempt of an earlier run of this tag is kept, or None if there is none."""
        _check_tag(tag)
        return self._git.word("for-each-ref", "--count=1", "--format=%(refname)", f"refs/nightshift/{tag}/") or None

    def branch_tip(self, tag: str) -> str | None:
        """The commit that the run's branch points at, or None if there is no such branch."""
        _check_tag(tag)
        return self._commit_of(_branch_ref(tag))

    def move_branch(self, tag: str, from_commit: str, to_commit: str) -> None:
        """
        Move the run's branch, if it is still at *from_commit* (or already at *to_commit*).

        Raises:
            BranchTaken: If it is anywhere else; it stays there.
        """
        _check_tag(tag)
        ref = _branch_ref(tag)
        status, _, said = self._git.run(
            "update-ref", "--no-deref", "-m", "nightshift: move", ref, to_commit, from_commit
        )
        where = self.branch_tip(tag) if status else to_commit
        if where == from_commit:  # it is not the branch: a lock that was left behind, a full disk
            raise GitFailed("update-ref", _one_line(said))
        if where != to_commit:
            now = f"points at {where[:7]}" if where else "is gone"
            raise BranchTaken(
                f"autoresearch/{tag}",
                where,
                f"someone moved the branch autoresearch/{tag}: it should be at {from_commit[:7]} and {now}; put it "
                f"back with `git update-ref {ref} {from_commit}` and resume, or stop the run",
            )

    def is_checked_out(self, tag: str) -> bool:
        """Whether any worktree of the repository has the run's branch checked out."""
        _check_tag(tag)
        return f"branch {_branch_ref(tag)}" in self._git.word("worktree", "list", "--porcelain").splitlines()

    def keep_ref(self, tag: str, experiment: int, attempt: int, commit: str) -> str:
        """
        Keep a commit for ever under a ref of its own, and return the ref's name. Keeping it twice is no harm.

        Raises:
            WorkspaceError: If the ref keeps another commit.
        """
        _check_tag(tag)
        ref = f"refs/nightshift/{tag}/{experiment}/{attempt}"
        status, _, said = self._git.run("update-ref", ref, commit, "")
        if status:
            there = self._commit_of(ref)
            if there is None:
                raise GitFailed("update-ref", _one_line(said))
            if there != commit:
                raise WorkspaceError("ref_taken", f"{ref} keeps {there[:7]} already, not {commit[:7]}")
        return ref

    def log_heads(self) -> list[tuple[str, Head]]:
        """
        The position and chain that the commit of each kept attempt names, by ref; those without are left out.

        Branches are not asked: a fetched one may be of another workspace, with a log of its own.
        """
        form = f"--format=%(refname) %(contents:trailers:key={TRAILER},valueonly,separator=%00)"
        found = []
        for line in self._git.word("for-each-ref", form, "refs/nightshift/").splitlines():
            ref, _, values = line.partition(" ")
            head = parse_head(values.rpartition("\0")[2])
            if head is not None:
                found.append((ref, head))
        return found

    # ------------------------------------------------------------ making commits

    def prepare(
        self,
        edits: Sequence[FileEdit],
        *,
        edits_base: str,
        tip: str,
        editable: Sequence[str],
        protected: Sequence[str] = (),
        merge_base: str | None = None,
        program: str | None = None,
        origin: str | None = None,
    ) -> Prepared:
        """
        Make the tree that *edits* give on top of *tip*, without a commit.

        The edits are applied to *edits_base*, the commit that the proposer was shown. Where the tip's file
        is another one, the change is brought over by a three-way merge.

        Args:
            merge_base: The commit that *edits_base* was made on, if *edits_base* is itself an attempt whose
                own change is to come along: a repair, or with no *edits* the attempt put on a newer tip.
            program: Text for program.md, which the tree gets besides; never part of diff and line counts.
            origin: The run's base commit, to which `content_hash` compares.

        Raises:
            EditRefused: As `loop.edits.apply`, and "changes_nothing" if no editable file of the tip changes.
            MergeConflict: If the change and the tip meet in the same lines.
        """
        base = merge_base or edits_base
        carried = [path for path in self._changed(base, edits_base) if _may_change(path, editable, protected)]
        shown = self._shown(edits, (edits_base, tip), editable, protected)
        mine = self._texts(edits_base, carried)
        if edits or not carried:
            mine |= apply(edits, shown, editable=editable, protected=protected)
        theirs = self._texts(tip, mine)
        if base != tip:
            mine = self._merge(self._texts(base, mine), mine, theirs, tip)
        changed = {path: text for path, text in mine.items() if theirs.get(path) != text}
        if not changed:
            raise EditRefused("changes_nothing", f"the edit leaves the tip {tip[:7]} as it is")
        counts = [count_lines(theirs.get(path, ""), text) for path, text in changed.items()]
        return Prepared(
            tree=self._write_tree(tip, edits_base, changed, program),
            diff=unified_diff({path: theirs[path] for path in changed if path in theirs}, changed),
            lines_added=sum(added for added, _ in counts),
            lines_removed=sum(removed for _, removed in counts),
            paths=tuple(sorted(changed)),
            content_hash=self.content_hash(origin, tip, changed, editable) if origin is not None else "",
        )

    def try_edits(
        self, edits: Sequence[FileEdit], base: str, *, editable: Sequence[str], protected: Sequence[str] = ()
    ) -> dict[str, str]:
        """
        The new text of each file that *edits* change on the commit *base*. Nothing is written.

        Raises:
            EditRefused: As `loop.edits.apply`, and for paths that are links or submodules there.
        """
        shown = self._shown(edits, (base,), editable, protected)
        return apply(edits, shown, editable=editable, protected=protected)

    def content_hash(self, origin: str, commit: str, changed: Mapping[str, str], editable: Sequence[str]) -> str:
        """
        A name for what is tried: how the editable files of *commit*, with *changed* texts in it, differ from *origin*.

        Two trees have the same name if and only if their differences from *origin* are the same, comments, blank
        lines and layout aside (`loop.edits.essence`). SHA-256 in hexadecimal over the paths that differ, sorted,
        each followed by a zero byte, its essence and a zero byte.
        """
        now = self._texts(commit, [path for path in self._changed(origin, commit) if _is_meant(path, editable)])
        now |= changed
        before = self._texts(origin, now)
        digest = hashlib.sha256()
        for path in sorted(now):
            mine = essence(path, now[path])
            if path not in before or essence(path, before[path]) != mine:
                digest.update(b"%b\0%b\0" % (os.fsencode(path), mine.encode("utf-8", "surrogatepass")))
        return digest.hexdigest()

    def _shown(
        self, edits: Sequence[FileEdit], commits: Sequence[str], editable: Sequence[str], protected: Sequence[str]
    ) -> dict[str, str]:
        """The texts that *edits* are meant for, of the first of *commits*; their paths may be edited in all of them."""
        paths = list(dict.fromkeys(edit.path for edit in edits))
        for path in paths:
            check_path(path, editable, protected)
            for commit in commits:
                _check_entry(path, self._entries(commit))
        shown = self._texts(commits[0], paths)
        unreadable = [path for path in paths if path in self._entries(commits[0]) and path not in shown]
        if unreadable:
            raise EditRefused("edit_does_not_apply", f"{unreadable[0]} is not UTF-8 text")
        return shown

    def commit(self, tree: str, parent: str, subject: str, body: str, at: str) -> str:
        """
        Commit *tree* on *parent* and return the hash, which follows from the arguments alone.

        No ref points at it yet. *at* has the log's form and is cut to whole seconds, UTC; control
        characters of *subject* become spaces.
        """
        stamp = f"@{int(parse_at(at).timestamp())} +0000"
        line = " ".join("".join(char if char.isprintable() else " " for char in subject).split())
        text = body.replace("\0", "").strip("\n")
        message = f"{line}\n\n{text}\n" if text else f"{line}\n"
        dates = {"GIT_AUTHOR_DATE": stamp, "GIT_COMMITTER_DATE": stamp}
        commit = self._git.word(
            "commit-tree", tree, "-p", parent, stdin=message.encode("utf-8", "replace"), extra=dates
        )
        if tree in self._listings:
            _remember(self._listings, commit, self._listings[tree], LISTINGS_MAX)
        return commit

    # ------------------------------------------------------------ folders

    def checkout(self, commit: str, folder: Path) -> None:
        """
        Write the files of a commit into a fresh *folder*, which is no repository and no worktree of one.

        Raises:
            WorkspaceError: If the folder exists and is not empty. If git fails (a full disk, a missing LFS
                object), what was written is removed again.
        """
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise WorkspaceError("folder_in_use", f"{folder} exists and is not empty")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with self._scratch() as scratch:
                places = {"GIT_WORK_TREE": str(folder.resolve()), "GIT_INDEX_FILE": str(scratch / "index")}
                self._git.out("read-tree", "--reset", "-u", commit, extra=places)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def exclude(self, pattern: str) -> None:
        """Let git ignore *pattern* in this repository only, by a line in its `info/exclude`; once."""
        path = self._common_dir / "info" / "exclude"
        text = path.read_text(encoding="utf-8", errors="surrogateescape") if path.exists() else ""
        if pattern in text.splitlines():
            return
        path.parent.mkdir(exist_ok=True)
        gap = "" if not text or text.endswith("\n") else "\n"
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{gap}{pattern}\n")

    def clear_locks(self) -> list[str]:
        """
        Remove the locks of our own refs that a git command left which was killed, and return their names.

        Only for who holds the workspace's lock, when no git command of an earlier loop lives any more. A lock that is
        there a second later is held by nobody: setting a ref takes milliseconds, a person's by hand too.
        """
        before = self._locks()
        if not before:
            return []
        time.sleep(LOCK_PATIENCE_S)
        left = [path for path, known in self._locks().items() if before.get(path) == known]
        for path in left:
            path.unlink(missing_ok=True)
        return [str(path.relative_to(self._common_dir)) for path in left]

    def _locks(self) -> dict[Path, tuple[int, int]]:
        """The locks of our refs: which file each is, and when it was written."""
        found = {}
        for folder in ("refs/heads/autoresearch", "refs/nightshift"):
            for path in sorted((self._common_dir / folder).rglob("*.lock")):
                with suppress(FileNotFoundError):
                    facts = path.stat()
                    found[path] = (facts.st_ino, facts.st_mtime_ns)
        return found

    def clear_scratch(self) -> None:
        """Remove what a killed loop left in the scratch folder; only for who holds the workspace's lock."""
        shutil.rmtree(self._scratch_root, ignore_errors=True)

    # ------------------------------------------------------------ parts

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        self._scratch_root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="git-", dir=self._scratch_root) as folder:
            yield Path(folder)

    def _commit_of(self, ref: str) -> str | None:
        status, out, _ = self._git.run("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
        return None if status else out.decode("ascii").strip()

    def _entries(self, commit: str) -> dict[str, _Entry]:
        """Every file of a commit (or tree) by path. It never changes, so the last few listings are kept."""
        known = self._listings.get(commit)
        if known is None:
            known = {}
            for row in self._git.out("ls-tree", "-r", "-z", "--full-tree", commit).split(b"\0")[:-1]:
                facts, path = row.split(b"\t", 1)
                mode, _, blob = facts.decode("ascii").split(" ")
                known[os.fsdecode(path)] = _Entry(mode, blob)
        _remember(self._listings, commit, known, LISTINGS_MAX)
        return known

    def _changed(self, old: str, new: str) -> list[str]:
        """Paths of regular files of *new* that *old* has otherwise or not at all, sorted."""
        if old == new:
            return []
        before = self._entries(old)
        after = self._entries(new)
        return sorted(path for path, entry in after.items() if entry.mode in REGULAR and before.get(path) != entry)

    def _blobs(self, blobs: Sequence[str]) -> list[bytes]:
        """Contents by hash, in at most one git process; the last few small ones are kept."""
        known = {blob: self._contents[blob] for blob in blobs if blob in self._contents}
        unknown = [blob for blob in dict.fromkeys(blobs) if blob not in known]
        if unknown:
            known |= zip(unknown, self._read_blobs(unknown), strict=True)
        for blob in known:
            if len(known[blob]) <= CONTENT_MAX:
                _remember(self._contents, blob, known[blob], CONTENTS_MAX)
        return [known[blob] for blob in blobs]

    def _read_blobs(self, blobs: Sequence[str]) -> list[bytes]:
        stream = self._git.out("cat-file", "--batch", stdin="".join(f"{blob}\n" for blob in blobs).encode())
        contents = []
        at = 0
        for blob in blobs:
            end = stream.index(b"\n", at)
            header = stream[at:end].split(b" ")
            if len(header) != 3:
                raise GitFailed("cat-file", f"the object {blob} is missing from the repository: try `git fsck`")
            start = end + 1
            at = start + int(header[2])
            contents.append(stream[start:at])
            at += 1  # a newline ends each content
        return contents

    def _texts(self, commit: str, paths: Collection[str]) -> dict[str, str]:
        """Text of those *paths* that are regular files and UTF-8 in the commit."""
        entries = self._entries(commit)
        there = [path for path in paths if path in entries and entries[path].mode in REGULAR]
        texts = {}
        for path, content in zip(there, self._blobs([entries[path].blob for path in there]), strict=True):
            try:
                texts[path] = content.decode("utf-8")
            except UnicodeDecodeError:
                continue
        return texts

    def _merge(
        self, base: Mapping[str, str], mine: Mapping[str, str], theirs: Mapping[str, str], tip: str
    ) -> dict[str, str]:
        merged: dict[str, str] = {}
        conflicts = []
        for path, text in mine.items():
            old, new = base.get(path), theirs.get(path)
            if new in (old, text):
                merged[path] = text
            elif old is None or new is None:
                conflicts.append(path)
            else:
                result = self._merge_file(old, text, new)
                if result is None:
                    conflicts.append(path)
                    continue
                check_text(path, new, result)
                merged[path] = result
        if conflicts:
            raise MergeConflict(sorted(conflicts), tip)
        return merged

    def _merge_file(self, base: str, mine: str, theirs: str) -> str | None:
        """The three-way merge of a file, None if both sides change the same lines (or git calls it binary)."""
        with self._scratch() as scratch:
            for name, text in (("theirs", theirs), ("base", base), ("mine", mine)):
                (scratch / name).write_bytes(text.encode("utf-8"))
            sides = [str(scratch / name) for name in ("theirs", "base", "mine")]
            status, out, said = self._git.run("merge-file", "-p", "-q", *sides)
        if status == 0:
            return out.decode("utf-8")
        if status < 128 or "binary" in said:
            return None  # the status is the number of conflicts
        raise GitFailed("merge-file", _one_line(said))

    def _write_tree(self, tip: str, edits_base: str, changed: Mapping[str, str], program: str | None) -> str:
        """The tree of *tip* with *changed* files and program.md in it. Modes stay; a new file has edits_base's."""
        contents = {path: text.encode("utf-8") for path, text in changed.items()}
        entries = self._entries(tip)
        if program is not None and program != (self.read_file(tip, PROGRAM_FILE) or ""):
            contents[PROGRAM_FILE] = program.encode("utf-8")
        with self._scratch() as scratch:
            index = {"GIT_INDEX_FILE": str(scratch / "index")}
            files = [scratch / str(number) for number in range(len(contents))]
            for file, content in zip(files, contents.values(), strict=True):
                file.write_bytes(content)
            blobs = self._git.word("hash-object", "-w", "--no-filters", "--", *map(str, files)).splitlines()
            rows = []
            for path, blob in zip(contents, blobs, strict=True):
                known = entries.get(path) or self._entries(edits_base).get(path)
                mode = known.mode if known is not None and known.mode in REGULAR else "100644"
                rows.append(b"%b %b\t%b\0" % (mode.encode(), blob.encode(), os.fsencode(path)))
            for blob, content in zip(blobs, contents.values(), strict=True):
                _remember(self._contents, blob, content, CONTENTS_MAX)
            self._git.out("read-tree", tip, extra=index)
            self._git.out("update-index", "-z", "--index-info", stdin=b"".join(rows), extra=index)
            tree = self._git.word("write-tree", extra=index)
        self._check_tree(tip, tree, contents)
        return tree

    def _check_tree(self, tip: str, tree: str, expected: Collection[str]) -> None:
        """The last word on protected files: the tree differs from the tip's in the expected paths only."""
        before, after = self._entries(tip), self._entries(tree)
        others = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)} - set(expected)
        if others:
            raise EditRefused("edit_touches_protected", f"the edit would change {min(others)} too")


def _remember(cache: dict[str, Value], key: str, value: Value, most: int) -> None:
    """Put *value* last in a cache of at most *most* entries, the longest unused of which goes."""
    cache.pop(key, None)
    cache[key] = value
    if len(cache) > most:
        del cache[next(iter(cache))]


def _check_tag(tag: str) -> None:
    problem = tag_problem(tag)
    if problem:
        raise WorkspaceError("tag", problem)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _branch_ref(tag: str) -> str:
    return f"refs/heads/autoresearch/{tag}"


def _is_meant(path: str, patterns: Sequence[str]) -> bool:
    return any(matches(pattern, path) for pattern in patterns)


def _may_change(path: str, editable: Sequence[str], protected: Sequence[str]) -> bool:
    try:
        check_path(path, editable, protected)
    except EditRefused:
        return False
    return True


def _check_entry(path: str, entries: Mapping[str, _Entry]) -> None:
    entry = entries.get(path)
    if entry is None:
        check_place(path, entries)
    elif entry.mode not in REGULAR:
        what = "a submodule" if entry.mode == SUBMODULE else "a symbolic link"
        raise EditRefused("edit_touches_protected", f"{path} is {what}, not a file")
