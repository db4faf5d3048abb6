"""Which program.md is in force, and which ones there were."""

from __future__ import annotations

from eventstore import events as e
from eventstore.envelope import Event
from eventstore.projections.program import Program, Use, Uses, program_in_force


def event(position: int, data: e.Data, actor: str = "cli:ada") -> Event:
    at = f"2026-11-21T08:00:{position:02}.000000Z"
    return Event(position, f"id-{position}", "", data.TYPE, data.VERSION, at, actor, None, data, b"")


LOG = [
    event(1, e.ProgramRecorded(hash="A", text="try widths"), actor="loop@box"),
    event(2, e.RunResumed(why="someone asked")),
    event(3, e.ProgramEdited(base_hash="A", hash="B", text="try depths")),
    event(4, e.ProgramEdited(base_hash="B", hash="A", text="try widths")),
]


def folded(events: list[Event]) -> Program:
    program = Program()
    for one in events:
        program.apply(one)
    return program


def test_without_a_program_none_is_in_force() -> None:
    assert program_in_force([]) is None
    assert folded([LOG[1]]).in_force is None


def test_the_newest_version_is_in_force_whoever_brought_it() -> None:
    found = folded(LOG[:3]).in_force
    assert found is not None
    assert (found.position, found.hash, found.base_hash, found.text) == (3, "B", "A", "try depths")
    assert (found.actor, found.at) == ("cli:ada", "2026-11-21T08:00:03.000000Z")


def test_a_program_that_the_loop_found_has_no_base() -> None:
    found = program_in_force(LOG[:2])
    assert found is not None
    assert (found.actor, found.base_hash) == ("loop@box", "")


def test_a_text_that_came_back_is_a_version_of_its_own() -> None:
    program = folded(LOG)
    assert [(version.position, version.hash) for version in program.versions] == [(1, "A"), (3, "B"), (4, "A")]
    assert program.in_force == program.versions[-1]


def test_the_text_of_every_hash_is_known_for_ever() -> None:
    program = folded(LOG)
    assert (program.text("A"), program.text("B"), program.text("C")) == ("try widths", "try depths", None)


def ran(position: int, n: int, verdict: e.Verdict, *hashes: str) -> list[Event]:
    """Experiment n of nov21, asked for under each of *hashes*, up to its verdict."""
    asked = [
        e.ProposalRequested(experiment=n, ask=ask, kind="claude", purpose="new", base_commit="b", program_hash=text)
        for ask, text in enumerate(hashes)
    ]
    decided = e.ExperimentDecided(experiment=n, attempt=0, verdict=verdict, reason="", trials=1, score=1.0)
    return [of_run(position + at, data) for at, data in enumerate([*asked, decided])]


def of_run(position: int, data: e.Data) -> Event:
    return Event(position, f"id-{position}", "nov21", data.TYPE, 1, "", "loop@box", None, data, b"")


STARTED = e.RunStarted(
    branch="b", base_commit="c", settings={"objective": {"name": "x", "direction": "minimize"}}, limits=e.Limits(),
    program_hash="A", harness_hash="", settings_hash="", seed=1, host="", device="", sandbox="", versions={},
)  # fmt: skip


def test_an_experiment_counts_for_the_version_that_its_last_ask_names() -> None:
    uses = Uses()
    baseline = of_run(11, e.ExperimentDecided(experiment=0, attempt=0, verdict="keep", reason="", trials=1, score=1.0))
    undecided = of_run(
        40, e.ProposalRequested(experiment=9, ask=0, kind="claude", purpose="new", base_commit="b", program_hash="A")
    )
    log = [
        *LOG[:3],
        of_run(10, STARTED),
        baseline,
        *ran(12, 1, "keep", "A"),
        *ran(15, 2, "discard", "A", "B"),
        *ran(20, 3, "keep", "B"),
        of_run(25, e.BranchMoved(experiment=3, from_commit="x", to_commit="y", why="veto")),
        *ran(26, 4, "crash", "unknown"),
        event(30, e.ProgramEdited(base_hash="B", hash="A", text="try widths")),
        *ran(31, 5, "crash", "A"),
        undecided,
    ]
    for one in log:
        uses.apply(one)
    assert uses.of_versions() == {
        1: Use(experiments=1, kept=1),
        3: Use(experiments=2, kept=0),
        30: Use(experiments=1, kept=0),
    }
