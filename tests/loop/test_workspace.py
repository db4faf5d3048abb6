"""The door of git, on real repositories: trees, commits, refs and checkouts, and nothing of the person's touched."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eventstore.events import Block, ReplaceBlocks, SetConstants, WholeFile
from loop.errors import BranchTaken, EditRefused, GitFailed, MergeConflict, WorkspaceError
from loop.workspace import Workspace

AT = "2026-11-21T08:00:00.999999Z"
TRAIN = "import prepare\n\nDEPTH = 4\n\n\n\nWIDTH = 128\n\n\n\nLR = 0.1\n"
PERSON = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
EDITABLE = ("train.py", "lib/**")
PROTECTED = ("prepare.py",)


def git(folder, *args, stdin=None):
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | PERSON
    done = subprocess.run(["git", *identity, *args], cwd=folder, env=env, input=stdin, capture_output=True, check=True)
    return done.stdout.decode()


def make_repository(folder, **more):
    """A repository whose one commit is the same wherever it is made."""
    folder.mkdir()
    git(folder, "-c", "init.defaultBranch=main", "init", "-q")
    files = {
        "train.py": TRAIN,
        "prepare.py": "ROWS = 8\n",
        "program.md": "Try things.\n",
        "lib/deep/a.py": "A = 1\n",
    } | more
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content if isinstance(content, bytes) else content.encode())
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "link.py").symlink_to("train.py")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "start", "--date", "2026-01-01T00:00:00Z")
    return folder


@pytest.fixture
def root(tmp_path):
    return make_repository(tmp_path / "repo")


@pytest.fixture
def workspace(root):
    return Workspace.open(root)


@pytest.fixture
def base(workspace):
    return workspace.resolve("HEAD")


def prepare(workspace, edits, tip, **more):
    more = {"edits_base": tip, "editable": EDITABLE, "protected": PROTECTED} | more
    return workspace.prepare(edits, tip=tip, **more)


def commit(workspace, edits, tip, **more):
    """An attempt on *tip* with *edits*; returns its commit."""
    prepared = prepare(workspace, edits, tip, **more)
    return workspace.commit(prepared.tree, tip, "try", "", AT)


def constants(**values):
    return [SetConstants("train.py", values)]


# ---------------------------------------------------------------- opening


@pytest.mark.parametrize(
    ("make", "code", "why"),
    [
        (lambda folder: None, "no_folder", "there is no folder"),
        (lambda folder: folder.mkdir(), "no_repository", "is not a git repository: `git init`"),
        (lambda folder: git(folder.parent, "init", "-q", folder.name), "no_commit", "has no commit yet"),
        (lambda folder: git(folder.parent, "init", "-q", "--bare", folder.name), "no_checkout", "without a checkout"),
        (lambda folder: (git(folder.parent, "init", "-q"), folder.mkdir()), "not_top", "is inside the git repository"),
    ],
)
def test_what_is_no_workspace_is_refused_in_one_sentence(tmp_path, make, code, why):
    make(tmp_path / "here")
    with pytest.raises(WorkspaceError) as error:
        Workspace.open(tmp_path / "here")
    assert error.value.code == code
    assert why in str(error.value)


def test_a_machine_without_git_is_told_so(root):
    script = (
        "import pathlib, sys\nfrom loop.workspace import Workspace\nfrom loop.errors import WorkspaceError\n"
        "try: Workspace.open(pathlib.Path(sys.argv[1]))\nexcept WorkspaceError as error: print(error.code, error)"
    )
    env = {"PATH": "/nonexistent", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", script, root], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "no_git git was not found on this machine: install it\n"


def test_opening_changes_nothing_on_disk(root):
    before = sorted(root.rglob("*"))
    Workspace.open(root)
    assert sorted(root.rglob("*")) == before


def test_a_linked_worktree_is_a_workspace_too(root, tmp_path):
    git(root, "worktree", "add", "-q", tmp_path / "linked")
    linked = Workspace.open(tmp_path / "linked")
    linked.create_branch("nov21", linked.resolve("HEAD"))
    linked.exclude(".nightshift/")
    assert Workspace.open(root).branch_tip("nov21") == linked.resolve("HEAD")
    assert (root / ".git/info/exclude").read_text().endswith(".nightshift/\n")


def test_a_new_repository_holds_the_given_files(tmp_path):
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "other.txt").write_text("not in git")
    workspace = Workspace.create(tmp_path, ["train.py"], "start")
    assert workspace.list_files(workspace.resolve("main")) == ["train.py"]
    assert git(tmp_path, "status", "--porcelain") == "?? other.txt\n"
    with pytest.raises(WorkspaceError, match="is a git repository already"):
        Workspace.create(tmp_path, ["other.txt"], "again")


# ---------------------------------------------------------------- reading


def test_a_commit_is_found_by_every_name_it_has(root, workspace, base):
    git(root, "tag", "-a", "v1", "-m", "annotated")
    assert {workspace.resolve(name) for name in ("HEAD", "main", "v1", base[:9], "HEAD^{/start}")} == {base}


@pytest.mark.parametrize("ref", ["", "nope", "HEAD:train.py", "--all", "-h", "HEAD~9", "a b", "main\n", "0" * 40])
def test_a_name_of_no_commit_is_refused(workspace, ref):
    with pytest.raises(WorkspaceError) as error:
        workspace.resolve(ref)
    assert (error.value.code, str(error.value)) == ("unknown_ref", f"no commit of this repository is named {ref!r}")


def test_files_are_read_from_the_commit_not_from_the_checkout(root, workspace, base):
    (root / "train.py").write_text("changed\n")
    assert workspace.read_file(base, "train.py") == TRAIN
    assert workspace.read_files(base, ["*.py", "lib/**"]) == {
        "lib/deep/a.py": "A = 1\n",
        "prepare.py": "ROWS = 8\n",
        "train.py": TRAIN,
    }
    assert workspace.list_files(base) == ["lib/deep/a.py", "link.py", "prepare.py", "program.md", "run.sh", "train.py"]
    assert workspace.matching(base, ["p*", "*.sh"]) == ["prepare.py", "program.md", "run.sh"]
    assert workspace.tree_of(base) == git(root, "rev-parse", "HEAD^{tree}").strip()


@pytest.mark.parametrize("path", ["gone.py", "lib", "link.py", "../repo/train.py"])
def test_what_is_no_regular_file_reads_as_none(workspace, base, path):
    assert workspace.read_file(base, path) is None


def test_bytes_come_back_as_they_are(tmp_path):
    odd = {"ü\n\t.txt": "a\r\nb\rc", "empty": "", "big.txt": "x" * 300_000, "raw.bin": b"\xff\x00"}
    workspace = Workspace.open(make_repository(tmp_path / "repo", **odd))
    head = workspace.resolve("HEAD")
    texts = {path: text for path, text in odd.items() if path != "raw.bin"}
    for _ in range(2):  # from git, and from memory
        assert workspace.read_files(head, ["ü*", "empty", "big.txt", "raw.bin"]) == texts
    with pytest.raises(WorkspaceError, match=r"raw.bin of the commit .* is not UTF-8 text"):
        workspace.read_file(head, "raw.bin")


def test_the_hash_of_files_can_be_computed_by_anyone(workspace, base):
    content = {"lib/deep/a.py": (b"100644", b"A = 1\n"), "run.sh": (b"100755", b"#!/bin/sh\n")}
    blob = b"".join(
        b"%b\0%b\0%d\0%b" % (path.encode(), mode, len(text), text) for path, (mode, text) in content.items()
    )
    assert workspace.hash_files(base, ["run.sh", "lib/**"]) == hashlib.sha256(blob).hexdigest()


@pytest.mark.parametrize("path", ["lib/deep/a.py", "lib/new.py"])
def test_the_hash_follows_content_and_names(workspace, base, path):
    other = commit(workspace, [WholeFile(path, "A = 2\n")], base)
    assert workspace.hash_files(other, ["lib/**"]) != workspace.hash_files(base, ["lib/**"])
    assert workspace.hash_files(other, ["*.py"]) == workspace.hash_files(base, ["*.py"])


def test_protected_patterns_without_a_file_are_named(workspace, base):
    assert workspace.protected_missing(base, ["prepare.py", "eval.py", "lib/**", "data/*"]) == ["eval.py", "data/*"]


def test_changes_of_a_commit_come_back_as_edits(workspace, base):
    edits = [*constants(DEPTH=5), WholeFile("lib/new.py", "B = 1\n")]
    changed = commit(workspace, edits, base, program="Other.\n")
    again = workspace.changes(base, changed, ["program.md"])
    assert {edit.path for edit in again} == {"train.py", "lib/new.py"}
    assert prepare(workspace, again, base, program="Other.\n").tree == workspace.tree_of(changed)


def test_submodules_are_named_and_empty_in_a_checkout(root, workspace, base, tmp_path):
    git(root, "update-index", "--add", "--cacheinfo", f"160000,{base},vendor/sub")
    git(root, "commit", "-q", "-m", "submodule")
    head = workspace.resolve("HEAD")
    assert workspace.submodules(head) == ["vendor/sub"]
    assert "vendor/sub" not in workspace.list_files(head)
    workspace.checkout(head, tmp_path / "out")
    assert list((tmp_path / "out/vendor/sub").iterdir()) == []
    with pytest.raises(EditRefused, match="vendor/sub is a submodule"):
        prepare(workspace, [WholeFile("vendor/sub", "x")], head, editable=["**"])


# ---------------------------------------------------------------- the run's branch and refs


def test_the_branch_is_made_once(root, workspace, base):
    assert workspace.branch_tip("nov21") is None
    workspace.create_branch("nov21", base)
    workspace.create_branch("nov21", base)
    assert workspace.branch_tip("nov21") == base
    assert git(root, "rev-parse", "autoresearch/nov21").strip() == base


def test_a_branch_that_exists_elsewhere_is_refused_and_stays(workspace, base):
    other = commit(workspace, constants(DEPTH=5), base)
    workspace.create_branch("nov21", other)
    with pytest.raises(BranchTaken) as error:
        workspace.create_branch("nov21", base)
    assert str(error.value) == (f"the branch autoresearch/nov21 exists and points at {other[:7]}, not at {base[:7]}")
    assert workspace.branch_tip("nov21") == other == error.value.where


def test_a_tag_whose_attempts_are_still_kept_is_refused(workspace, base):
    workspace.keep_ref("nov21", 0, 0, base)
    with pytest.raises(WorkspaceError, match=r"kept under refs/nightshift/nov21/ .* choose another tag"):
        workspace.create_branch("nov21", base)
    workspace.create_branch("nov2", base)
    assert workspace.branch_tip("nov21") is None


def test_a_branch_named_as_our_folder_of_branches_is_told(root, workspace, base):
    git(root, "branch", "autoresearch")
    with pytest.raises(GitFailed, match="'refs/heads/autoresearch' exists"):
        workspace.create_branch("nov21", base)


def test_the_branch_moves_if_nobody_moved_it(workspace, base):
    workspace.create_branch("nov21", base)
    better = commit(workspace, constants(DEPTH=5), base)
    workspace.move_branch("nov21", base, better)
    assert workspace.branch_tip("nov21") == better
    workspace.move_branch("nov21", base, better)  # it is there already
    workspace.move_branch("nov21", better, base)  # a veto
    assert workspace.branch_tip("nov21") == base


def test_a_branch_that_someone_moved_stays_where_they_put_it(root, workspace, base):
    workspace.create_branch("nov21", base)
    theirs, ours = (commit(workspace, constants(DEPTH=depth), base) for depth in (5, 6))
    git(root, "update-ref", "refs/heads/autoresearch/nov21", theirs)
    with pytest.raises(BranchTaken) as error:
        workspace.move_branch("nov21", base, ours)
    assert error.value.where == theirs
    assert f"it should be at {base[:7]} and points at {theirs[:7]}" in str(error.value)
    git(root, *str(error.value).split("`")[1].split()[1:])  # the remedy, as printed
    workspace.move_branch("nov21", base, ours)


def test_a_branch_that_someone_deleted_is_not_made_anew(root, workspace, base):
    workspace.create_branch("nov21", base)
    git(root, "branch", "-D", "autoresearch/nov21")
    with pytest.raises(BranchTaken, match="is gone") as error:
        workspace.move_branch("nov21", base, commit(workspace, constants(DEPTH=5), base))
    assert (error.value.where, workspace.branch_tip("nov21")) == (None, None)


def test_a_lock_left_behind_is_not_taken_for_a_moved_branch(root, workspace, base):
    workspace.create_branch("nov21", base)
    (root / ".git/refs/heads/autoresearch/nov21.lock").touch()
    with pytest.raises(GitFailed, match=r"nov21\.lock"):
        workspace.move_branch("nov21", base, commit(workspace, constants(DEPTH=5), base))


def test_a_checked_out_branch_is_noticed(root, workspace, base, tmp_path):
    workspace.create_branch("nov21", base)
    assert not workspace.is_checked_out("nov21")
    git(root, "worktree", "add", "-q", tmp_path / "linked", "autoresearch/nov21")
    assert workspace.is_checked_out("nov21")
    assert not workspace.is_checked_out("nov2")


def test_every_attempt_is_kept_under_its_own_ref(root, workspace, base):
    tried = commit(workspace, constants(DEPTH=5), base)
    assert workspace.keep_ref("nov21", 12, 1, tried) == "refs/nightshift/nov21/12/1"
    assert workspace.keep_ref("nov21", 12, 1, tried) == "refs/nightshift/nov21/12/1"
    git(root, "gc", "-q", "--prune=now")
    assert workspace.resolve("refs/nightshift/nov21/12/1") == tried
    with pytest.raises(WorkspaceError, match=f"keeps {tried[:7]} already, not {base[:7]}"):
        workspace.keep_ref("nov21", 12, 1, base)


@pytest.mark.parametrize("tag", ["", "a b", "../x", "-x", "a/b", "x.lock", "x" * 61])
def test_a_tag_that_is_no_name_reaches_no_ref(root, workspace, base, tag):
    for act in (
        lambda: workspace.create_branch(tag, base),
        lambda: workspace.branch_tip(tag),
        lambda: workspace.move_branch(tag, base, base),
        lambda: workspace.keep_ref(tag, 0, 0, base),
        lambda: workspace.is_checked_out(tag),
    ):
        with pytest.raises(WorkspaceError):
            act()
    assert git(root, "for-each-ref", "--format=%(refname)") == "refs/heads/main\n"


# ---------------------------------------------------------------- preparing


def test_a_prepared_tree_has_the_edit_and_everything_else_of_the_tip(root, workspace, base):
    prepared = prepare(workspace, constants(DEPTH=5), base)
    assert git(root, "diff", "--name-only", base, prepared.tree) == "train.py\n"
    assert git(root, "show", f"{prepared.tree}:train.py") == TRAIN.replace("DEPTH = 4", "DEPTH = 5")
    assert prepared.paths == ("train.py",)
    assert (prepared.lines_added, prepared.lines_removed) == (1, 1)
    assert "-DEPTH = 4\n+DEPTH = 5\n" in prepared.diff


def test_the_diff_makes_the_tree_from_the_tip(root, workspace, base, tmp_path):
    edits = [WholeFile("train.py", "x = 1"), WholeFile("lib/new.py", "# note\n\nB = 1\n")]
    prepared = prepare(workspace, edits, base)
    workspace.checkout(base, tmp_path / "out")
    git(tmp_path / "out", "apply", "-", stdin=prepared.diff.encode())
    assert (tmp_path / "out/train.py").read_text() == "x = 1"
    assert (tmp_path / "out/lib/new.py").read_text() == "# note\n\nB = 1\n"
    assert (prepared.lines_added, prepared.lines_removed) == (2, 4)


def test_a_file_keeps_its_mode(root, workspace, base):
    tree = prepare(workspace, [WholeFile("run.sh", "#!/bin/sh\nls\n"), WholeFile("new", "")], base, editable=["*"]).tree
    assert (
        git(root, "ls-tree", "--format=%(objectmode) %(path)", tree, "run.sh", "new") == "100644 new\n100755 run.sh\n"
    )


@pytest.mark.parametrize(
    ("edit", "failure", "why"),
    [
        (WholeFile("prepare.py", "ROWS = 0\n"), "edit_touches_protected", "prepare.py is protected"),
        (WholeFile("prepare.py/x.py", ""), "edit_does_not_apply", "prepare.py is no folder"),
        (WholeFile("link.py/x.py", ""), "edit_does_not_apply", "link.py is no folder"),
        (WholeFile("lib", ""), "edit_does_not_apply", "it is a folder"),
        (WholeFile("link.py", "x = 1\n"), "edit_touches_protected", "link.py is a symbolic link"),
        (WholeFile("program.md", "Keep everything.\n"), "edit_touches_protected", "program.md is protected"),
        (WholeFile("../out.py", ""), "edit_touches_protected", "not a plain relative path"),
        (WholeFile("raw.bin", "text"), "edit_does_not_apply", "raw.bin is not UTF-8 text"),
        (WholeFile("train.py", "def"), "not_python", "would not be Python any more"),
        (WholeFile("train.py", TRAIN), "changes_nothing", "leaves every file as it is"),
        (ReplaceBlocks("train.py", (Block("nope", ""),)), "edit_does_not_apply", "does not occur"),
    ],
)
def test_an_edit_that_must_not_be_made_is_refused(tmp_path, edit, failure, why):
    workspace = Workspace.open(make_repository(tmp_path / "repo", **{"raw.bin": b"\xff\x00"}))
    with pytest.raises(EditRefused) as error:
        prepare(workspace, [edit], workspace.resolve("HEAD"), editable=["**"])
    assert (error.value.failure, why in error.value.why) == (failure, True)


def test_the_program_travels_with_the_commit_but_is_no_part_of_the_edit(workspace, base):
    prepared = prepare(workspace, constants(DEPTH=5), base, program="Be bold.\n")
    changed = workspace.commit(prepared.tree, base, "try", "", AT)
    assert workspace.read_file(changed, "program.md") == "Be bold.\n"
    assert "bold" not in prepared.diff
    assert (prepared.paths, prepared.lines_added) == (("train.py",), 1)


@pytest.mark.parametrize("program", [None, "Try things.\n"])
def test_a_program_that_is_there_already_is_left(root, workspace, base, program):
    assert git(root, "diff", "--name-only", base, prepare(workspace, constants(LR=1), base, program=program).tree) == (
        "train.py\n"
    )


def test_a_new_program_alone_is_no_experiment(workspace, base):
    with pytest.raises(EditRefused) as error:
        prepare(workspace, [WholeFile("train.py", TRAIN)], base, program="Be bold.\n")
    assert error.value.failure == "changes_nothing"


def test_a_repository_without_a_program_gets_none_from_an_empty_one(root, workspace):
    git(root, "rm", "-q", "program.md")
    git(root, "commit", "-q", "-m", "no program")
    head = workspace.resolve("HEAD")
    assert "program.md" not in workspace.list_files(commit(workspace, constants(DEPTH=5), head, program=""))
    assert "program.md" in workspace.list_files(commit(workspace, constants(DEPTH=5), head, program="New.\n"))


# ---------------------------------------------------------------- merging


def test_an_edit_for_an_older_commit_is_merged_into_the_tip(workspace, base):
    tip = commit(workspace, [*constants(DEPTH=8), WholeFile("lib/new.py", "B = 1\n")], base)
    prepared = prepare(workspace, constants(LR=0.5), tip, edits_base=base)
    merged = workspace.commit(prepared.tree, tip, "try", "", AT)
    assert workspace.read_file(merged, "train.py") == TRAIN.replace("DEPTH = 4", "DEPTH = 8").replace("0.1", "0.5")
    assert workspace.read_file(merged, "lib/new.py") == "B = 1\n"
    assert (prepared.paths, prepared.lines_added, prepared.lines_removed) == (("train.py",), 1, 1)
    assert "+DEPTH" not in prepared.diff


def test_a_whole_file_for_an_older_commit_is_merged_too(workspace, base):
    tip = commit(workspace, constants(DEPTH=8), base)
    old_edit = [WholeFile("train.py", TRAIN.replace("LR = 0.1", "LR = 0.5"))]
    merged = commit(workspace, old_edit, tip, edits_base=base)
    assert workspace.read_file(merged, "train.py") == TRAIN.replace("DEPTH = 4", "DEPTH = 8").replace("0.1", "0.5")


@pytest.mark.parametrize(
    ("theirs", "mine"),
    [
        (constants(DEPTH=8), constants(DEPTH=2)),
        ([WholeFile("lib/new.py", "B = 1\n")], [WholeFile("lib/new.py", "B = 2\n")]),
    ],
)
def test_an_edit_that_meets_the_tip_in_the_same_lines_is_a_conflict(workspace, base, theirs, mine):
    tip = commit(workspace, theirs, base)
    with pytest.raises(MergeConflict) as error:
        prepare(workspace, mine, tip, edits_base=base)
    assert (error.value.paths, error.value.tip) == ((mine[0].path,), tip)


@pytest.mark.parametrize("mine", [constants(DEPTH=8), [WholeFile("train.py", TRAIN.replace("= 4", "= 8"))]])
def test_an_edit_that_the_tip_has_already_changes_nothing(workspace, base, mine):
    tip = commit(workspace, constants(DEPTH=8), base)
    with pytest.raises(EditRefused) as error:
        prepare(workspace, mine, tip, edits_base=base)
    assert error.value.failure == "changes_nothing"


def test_a_merge_that_is_no_python_is_refused(workspace, base):
    """Each side removes one line of a function; without both it has no body."""
    text = "def f():\n    a = 1\n\n\n\n    b = 2\n"
    older = commit(workspace, [WholeFile("lib/f.py", text)], base)
    tip = commit(workspace, [WholeFile("lib/f.py", text.replace("    a = 1\n", ""))], older)
    with pytest.raises(EditRefused) as error:
        prepare(workspace, [WholeFile("lib/f.py", text.replace("    b = 2\n", ""))], tip, edits_base=older)
    assert error.value.failure == "not_python"


def test_a_repair_brings_the_crashed_attempt_along(workspace, base):
    """The proposer is shown the crash; its answer and what crashed go onto the tip together."""
    crashed = commit(workspace, [*constants(DEPTH=8), WholeFile("lib/new.py", "B = 1/0\n")], base)
    tip = commit(workspace, constants(LR=0.5), base)
    for onto in (base, tip):
        repair = [WholeFile("lib/new.py", "B = 1\n")]
        prepared = prepare(workspace, repair, onto, edits_base=crashed, merge_base=base)
        repaired = workspace.commit(prepared.tree, onto, "repair", "", AT)
        before = workspace.read_file(onto, "train.py")
        assert workspace.read_file(repaired, "train.py") == before.replace("DEPTH = 4", "DEPTH = 8")
        assert workspace.read_file(repaired, "lib/new.py") == "B = 1\n"
        assert (prepared.paths, prepared.lines_added) == (("lib/new.py", "train.py"), 2)


def test_an_attempt_without_new_edits_is_put_on_a_newer_tip(workspace, base):
    attempt = commit(workspace, constants(DEPTH=8), base, program="Old program.\n")
    tip = commit(workspace, constants(LR=0.5), base)
    prepared = prepare(workspace, [], tip, edits_base=attempt, merge_base=base)
    rebased = workspace.commit(prepared.tree, tip, "rebase", "", AT)
    assert workspace.read_file(rebased, "train.py") == TRAIN.replace("DEPTH = 4", "DEPTH = 8").replace("0.1", "0.5")
    assert workspace.read_file(rebased, "program.md") == "Try things.\n"


def test_a_repair_that_takes_everything_back_changes_nothing(workspace, base):
    crashed = commit(workspace, constants(DEPTH=8), base)
    with pytest.raises(EditRefused) as error:
        prepare(workspace, constants(DEPTH=4), base, edits_base=crashed, merge_base=base)
    assert error.value.failure == "changes_nothing"


# ---------------------------------------------------------------- committing


def test_equal_inputs_give_equal_commits_whatever_the_config(tmp_path):
    """Signing, encodings, hooks, identities and the environment of the person have no say."""
    hashes = set()
    for name in ("plain", "odd"):
        root = make_repository(tmp_path / name)
        if name == "odd":
            for setting in ("commit.gpgSign=true", "i18n.commitEncoding=latin1", "user.name=Eve", "core.autocrlf=true"):
                git(root, "config", *setting.split("=", 1))
            (root / ".git/hooks").mkdir(exist_ok=True)
            for hook in ("reference-transaction", "commit-msg", "post-index-change", "post-checkout"):
                (root / ".git/hooks" / hook).write_text("#!/bin/sh\nexit 1\n")
                (root / ".git/hooks" / hook).chmod(0o755)
        workspace = Workspace.open(root)
        tree = workspace.tree_of(workspace.resolve("HEAD"))
        parent = workspace.commit(tree, workspace.resolve("HEAD"), "first", "", AT)
        workspace.create_branch("t", parent)
        prepared = prepare(workspace, [WholeFile("train.py", "x = 'ü'\r\n")], parent)
        hashes.add(prepared.tree)
    assert len(hashes) == 1


def test_a_commit_follows_from_its_arguments_alone(root, workspace, base):
    tree = workspace.tree_of(base)
    made = workspace.commit(tree, base, "raise\tDEPTH \n to 5 ü", "Why not.\n\nExperiment: 3\n", AT)
    assert made == workspace.commit(tree, base, "raise\tDEPTH \n to 5 ü", "Why not.\n\nExperiment: 3\n", AT)
    assert git(root, "cat-file", "commit", made) == (
        f"tree {tree}\nparent {base}\n"
        "author Nightshift <nightshift@localhost> 1795248000 +0000\n"
        "committer Nightshift <nightshift@localhost> 1795248000 +0000\n\n"
        "raise DEPTH to 5 ü\n\nWhy not.\n\nExperiment: 3\n"
    )
    assert git(root, "log", "-1", "--format=%(trailers:key=Experiment,valueonly)", made).strip() == "3"


def test_another_second_is_another_commit(workspace, base):
    tree = workspace.tree_of(base)
    at = [f"2026-11-21T08:00:0{second}.000000Z" for second in (0, 1)]
    assert len({workspace.commit(tree, base, "s", "b", moment) for moment in at}) == 2


def test_the_callers_git_variables_have_no_say(root, workspace, base, monkeypatch, tmp_path):
    """A hook, a rebase or an editor may have set them for another repository."""
    plain = commit(workspace, constants(DEPTH=5), base)
    other = make_repository(tmp_path / "other", extra="x")
    before = git(other, "for-each-ref")
    for name, value in {
        "GIT_DIR": other / ".git",
        "GIT_WORK_TREE": other,
        "GIT_INDEX_FILE": other / ".git/index",
        "GIT_OBJECT_DIRECTORY": other / ".git/objects",
        "GIT_NAMESPACE": "n",
        "GIT_AUTHOR_NAME": "Eve",
        "GIT_COMMITTER_DATE": "1 +0000",
        "GIT_CONFIG_COUNT": "nonsense",
        "GIT_CEILING_DIRECTORIES": "/",
    }.items():
        monkeypatch.setenv(name, str(value))
    workspace = Workspace.open(root)
    workspace.create_branch("nov21", base)
    assert commit(workspace, constants(DEPTH=5), base) == plain
    workspace.checkout(plain, tmp_path / "out")
    assert "DEPTH = 5" in (tmp_path / "out/train.py").read_text()
    assert git(other, "for-each-ref") == before
    assert git(root, "rev-parse", "autoresearch/nov21").strip() == base


# ---------------------------------------------------------------- folders


def test_a_checkout_has_the_bytes_and_modes_of_the_commit_and_no_repository(tmp_path):
    root = make_repository(tmp_path / "repo", **{"crlf.txt": "a\r\nb\n", "raw.bin": b"\xff\x00"})
    for setting in ("core.autocrlf=true", "core.sparseCheckout=true"):
        git(root, "config", *setting.split("="))
    (root / ".git/info").mkdir(exist_ok=True)
    (root / ".git/info/sparse-checkout").write_text("/train.py\n")
    workspace = Workspace.open(root)
    out = root / ".nightshift/work/nov21/0/0.0"
    workspace.checkout(workspace.resolve("HEAD"), out)
    assert {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()} == {
        "crlf.txt": b"a\r\nb\n",
        "lib/deep/a.py": b"A = 1\n",
        "link.py": TRAIN.encode(),
        "prepare.py": b"ROWS = 8\n",
        "program.md": b"Try things.\n",
        "raw.bin": b"\xff\x00",
        "run.sh": b"#!/bin/sh\n",
        "train.py": TRAIN.encode(),
    }
    assert (out / "link.py").is_symlink()
    assert os.access(out / "run.sh", os.X_OK)
    assert git(root, "worktree", "list", "--porcelain").count("worktree ") == 1
    assert list((root / ".nightshift/tmp").iterdir()) == []


def test_filters_that_the_user_has_set_up_run_in_a_checkout(root, workspace, tmp_path):
    """This is how git LFS puts contents in place of pointers."""
    git(root, "config", "filter.shout.smudge", "tr a-z A-Z")
    (root / ".gitattributes").write_text("*.sh filter=shout\n")
    git(root, "add", ".gitattributes")
    git(root, "commit", "-q", "-m", "filter")
    workspace.checkout(workspace.resolve("HEAD"), tmp_path / "out")
    assert (tmp_path / "out/run.sh").read_text() == "#!/BIN/SH\n"


def test_a_checkout_goes_into_an_empty_folder_only(workspace, base, tmp_path):
    (tmp_path / "empty").mkdir()
    workspace.checkout(base, tmp_path / "empty")
    for path in (tmp_path / "empty", tmp_path / "empty/train.py"):
        with pytest.raises(WorkspaceError, match="exists and is not empty"):
            workspace.checkout(base, path)


def test_a_checkout_that_fails_leaves_no_folder(workspace, tmp_path):
    with pytest.raises(GitFailed):
        workspace.checkout("0" * 40, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("before", [None, "", "*.log\n", "*.log"])
def test_a_pattern_is_excluded_once(root, workspace, before):
    path = root / ".git/info/exclude"
    path.unlink(missing_ok=True)
    if before is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(before)
    for _ in range(2):
        workspace.exclude("/results.tsv")
    (root / "results.tsv").touch()
    assert path.read_text().split() == [*(before or "").split(), "/results.tsv"]
    assert git(root, "status", "--porcelain") == ""


def test_scratch_left_by_a_killed_loop_can_be_cleared(root, workspace):
    left = root / ".nightshift/tmp/git-abc/index"
    left.parent.mkdir(parents=True)
    left.touch()
    workspace.clear_scratch()
    workspace.clear_scratch()
    assert not left.exists()


def test_the_persons_checkout_index_and_head_are_never_touched(root, workspace, base):
    """With work staged, unstaged and untracked, everything a run does leaves no trace but refs and objects."""
    workspace.exclude("/.nightshift/")
    (root / "train.py").write_text("half done\n")
    (root / "prepare.py").write_text("staged\n")
    (root / "mine.txt").write_text("untracked\n")
    git(root, "add", "prepare.py")

    def seen():
        private = {root / ".git" / name for name in ("HEAD", "index", "config", "ORIG_HEAD", "logs/HEAD")}
        mine = {path for path in root.rglob("*") if path.is_file() and not {".git", ".nightshift"} & set(path.parts)}
        contents = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in private | mine if path.exists()}
        worktrees = sorted((root / ".git").glob("worktrees/*"))
        status = git(root, "--no-optional-locks", "status", "--porcelain=v2", "--branch")
        return contents, worktrees, status, git(root, "--no-optional-locks", "diff", "--cached")

    before = seen()
    workspace.create_branch("nov21", base)
    first = commit(workspace, constants(DEPTH=5), base, program="Be bold.\n")
    workspace.keep_ref("nov21", 1, 0, first)
    workspace.move_branch("nov21", base, first)
    second = commit(workspace, constants(LR=0.5), first, edits_base=base)
    workspace.checkout(second, root / ".nightshift/work/nov21/2/0.0")
    workspace.move_branch("nov21", first, base)
    workspace.read_files(base, ["**"])
    workspace.hash_files(base, ["**"])
    workspace.is_checked_out("nov21")
    assert seen() == before
