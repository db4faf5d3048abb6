"""The proposer without a model: draw the constants named in [sweep] with Optuna's TPE sampler.

Guaranteed: an answer follows from the ask alone. Nothing is kept between asks: each one rebuilds the
study in memory from the verdicts so far, so a restart changes nothing. No point is proposed twice, nor
the one the files stand at; when a finite space is used up, the ask fails as "exhausted".

Optuna takes a fifth of a second to import, so it is imported at the first ask.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import math
import random
from typing import TYPE_CHECKING

from eventstore.events import Scalar, SetConstants
from eventstore.settings import Choice
from loop.edits import Constant, constants
from loop.errors import EditRefused
from loop.proposers.base import DESCRIPTION_MAX, Ask, Desk, Proposal, ProposalError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from optuna import Study
    from optuna.distributions import BaseDistribution

    from eventstore.events import FileEdit
    from eventstore.settings import Range

Point = tuple[Scalar, ...]
"""A value for every swept constant, in the order of [sweep]."""

DIGITS = 4
"""Significant digits of a drawn float: more would make descriptions longer and no score better."""

DRAWS_MAX = 10
"""Draws from the sampler before it is taken to be stuck at a point that was tried."""

GRID_MAX = 20_000
"""Finite spaces of at most this many points are searched for the points that are left."""

BLIND_DRAWS_MAX = 1_000


class Sweep:
    """
    Draws every constant of [sweep] anew for each experiment.

    Args:
        ranges: Where each constant is drawn from, by its name, as in the settings.
    """

    kind = "sweep"
    can_repair = False
    worst_usd = 0.0

    def __init__(self, ranges: Mapping[str, Range | Choice]) -> None:
        self._ranges = dict(ranges)

    async def propose(self, ask: Ask, _desk: Desk | None = None) -> Proposal:
        """
        Answer with one `SetConstants` for each file that has swept constants.

        Raises:
            ProposalError: "no_repair"; "exhausted"; "bad_sweep" if a constant cannot be set in the files.
        """
        if ask.purpose == "repair":
            raise ProposalError("no_repair", "a sweep draws numbers, it cannot mend a crash")
        places = self._places(ask.files)
        now = [constant for _, constant in places.values()]
        point = await asyncio.to_thread(self._draw, ask, now)
        values = dict(zip(self._ranges, point, strict=True))
        edits = tuple(
            SetConstants(path, {name: values[name] for name, place in places.items() if place[0] == path})
            for path in dict.fromkeys(path for path, _ in places.values())
        )
        # Every value, not only what changes: the edit may land on another tip than the one that was shown.
        description = _describe(f"{name} {value}" for name, value in values.items())
        return Proposal(description, edits)

    def _places(self, files: Mapping[str, str]) -> dict[str, tuple[str, Constant]]:
        """Each swept constant's file and place, in the order of [sweep]."""
        try:
            missing = missing_constants(files, list(self._ranges))
            found = _find(files, list(self._ranges))[0]
        except EditRefused as error:
            raise ProposalError("bad_sweep", error.why) from error
        if missing:
            why = f"[sweep] names {missing[0]}, but no editable file ({', '.join(sorted(files))}) has that constant"
            raise ProposalError("bad_sweep", why)
        return found

    def _draw(self, ask: Ask, now: Sequence[Constant]) -> Point:
        """A point that was not tried, is not in flight and is not where the files stand."""
        seed = int.from_bytes(hashlib.sha256(f"{ask.seed}/{ask.experiment}/{ask.ask}".encode()).digest()[:4], "big")
        past = [(point, tried.score) for tried in ask.history if (point := self._point(tried.edits))]
        open_now = [point for flying in ask.in_flight if (point := self._point(flying.edits))]
        taken = {point for point, _ in past} | set(open_now)
        draws = itertools.chain(self._sampled(ask, past, open_now, seed), self._blind(random.Random(seed), taken))
        for point in draws:
            stands = all(constant.is_spelling_of(value) for constant, value in zip(now, point, strict=True))
            if point not in taken and not stands:
                return point
        raise ProposalError("exhausted", f"the values in [sweep] are used up, {len(taken)} combinations were tried")

    def _sampled(
        self, ask: Ask, past: Sequence[tuple[Point, float | None]], open_now: Sequence[Point], seed: int
    ) -> Iterator[Point]:
        space = {name: _distribution(values) for name, values in self._ranges.items()}
        study = _study(ask.direction == "minimize", space, past, open_now, seed)
        for _ in range(DRAWS_MAX):
            drawn = study.ask(space).params
            yield tuple(_rounded(values, drawn[name]) for name, values in self._ranges.items())

    def _blind(self, rng: random.Random, taken: set[Point]) -> Iterator[Point]:
        """Points without regard to the past: all of a small space in random order, some of a large one."""
        axes = [_axis(values) for values in self._ranges.values()]
        size = math.prod(len(axis) for axis in axes if axis is not None)
        if None not in axes and size <= GRID_MAX:
            left = [point for point in itertools.product(*(axis for axis in axes if axis)) if point not in taken]
            rng.shuffle(left)
            yield from left
            return
        for _ in range(BLIND_DRAWS_MAX):
            yield tuple(_any_of(values, rng) for values in self._ranges.values())

    def _point(self, edits: Sequence[FileEdit]) -> Point | None:
        """The values that edits give to the swept constants; None if they leave one out, as another proposer's may."""
        values = {
            name: value for edit in edits if isinstance(edit, SetConstants) for name, value in edit.values.items()
        }
        if not self._ranges.keys() <= values.keys():
            return None
        return tuple(values[name] for name in self._ranges)


def missing_constants(files: Mapping[str, str], names: Sequence[str]) -> list[str]:
    """
    Those of *names* that no Python file of *files* (text by path) sets once, at its top level, to a literal.

    Raises:
        EditRefused: If two files set the same one, or one is missing while a .py file does not parse.
    """
    found, unreadable = _find(files, names)
    missing = [name for name in names if name not in found]
    if missing and unreadable is not None:
        raise unreadable
    return missing


def _find(files: Mapping[str, str], names: Sequence[str]) -> tuple[dict[str, tuple[str, Constant]], EditRefused | None]:
    places: dict[str, tuple[str, Constant]] = {}
    unreadable: EditRefused | None = None
    for path in sorted(path for path in files if path.endswith(".py")):
        try:
            known = constants(path, files[path])
        except EditRefused as error:
            unreadable = unreadable or error
            continue
        for name in names:
            if name in known and name in places:
                why = f"{name} is set by both {places[name][0]} and {path}: rename one of them"
                raise EditRefused("edit_does_not_apply", why)
            if name in known:
                places[name] = (path, known[name])
    return {name: places[name] for name in names if name in places}, unreadable


def _study(
    minimize: bool,
    space: dict[str, BaseDistribution],
    past: Sequence[tuple[Point, float | None]],
    open_now: Sequence[Point],
    seed: int,
) -> Study:
    """An in-memory study that knows the past: a crash as pruned (TPE ranks it last), what is open as running."""
    import optuna  # noqa: PLC0415 - a fifth of a second that only a sweep should pay

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)  # liar: what runs counts as bad, so asks differ
    study = optuna.create_study(direction="minimize" if minimize else "maximize", sampler=sampler)
    states = optuna.trial.TrialState
    rows = [(point, score, states.PRUNED if score is None else states.COMPLETE) for point, score in past]
    rows += [(point, None, states.RUNNING) for point in open_now]
    for point, score, state in rows:
        params = dict(zip(space, point, strict=True))
        try:
            trial = optuna.trial.create_trial(state=state, value=score, params=params, distributions=space)
        except (ValueError, TypeError):  # a value outside [sweep], by another proposer: not a point of this space
            continue
        study.add_trial(trial)
    return study


def _distribution(values: Range | Choice) -> BaseDistribution:
    from optuna import distributions  # noqa: PLC0415 - as above

    if isinstance(values, Choice):
        return distributions.CategoricalDistribution(values.choices)
    if isinstance(values.low, int) and isinstance(values.high, int):
        return distributions.IntDistribution(values.low, values.high, log=values.log)
    return distributions.FloatDistribution(values.low, values.high, log=values.log)


def _axis(values: Range | Choice) -> Sequence[Scalar] | None:
    """Every value of a finite range in order, or None."""
    if isinstance(values, Choice):
        return values.choices
    if isinstance(values.low, int) and isinstance(values.high, int):
        return range(values.low, values.high + 1)
    return None


def _any_of(values: Range | Choice, rng: random.Random) -> Scalar:
    axis = _axis(values)
    if axis is not None:
        return rng.choice(axis)
    assert not isinstance(values, Choice)  # a list of choices is an axis
    if values.log:
        return _rounded(values, math.exp(rng.uniform(math.log(values.low), math.log(values.high))))
    return _rounded(values, rng.uniform(values.low, values.high))


def _rounded(values: Range | Choice, drawn: Scalar) -> Scalar:
    """A drawn float to `DIGITS` significant digits, but never outside its range."""
    if isinstance(values, Choice) or not isinstance(drawn, float):
        return drawn
    return float(min(max(float(f"{drawn:.{DIGITS}g}"), values.low), values.high))


def _describe(changes: Iterator[str]) -> str:
    """All changes in one line of at most `DESCRIPTION_MAX` characters; what does not fit is counted."""
    parts = list(changes)
    for shown in range(len(parts), 0, -1):
        rest = len(parts) - shown
        text = ", ".join([*parts[:shown], f"and {rest} more"] if rest else parts)
        if len(text) <= DESCRIPTION_MAX:
            return text
    return f"{', '.join(parts)[: DESCRIPTION_MAX - 1]}…"
