"""What a model is told of the experiments that did not work: by group, so that none pushes the others out. Pure."""

from __future__ import annotations

import math
import re
from collections import Counter
from itertools import zip_longest
from typing import TYPE_CHECKING

from eventstore.events import SetConstants
from loop.fences import gain_words, line_of, lines_within, weight, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from eventstore.events import Scalar
    from loop.proposers.base import Tried

PLAIN_REASONS = ("worse by", "no better than", "does not pass")
"""How the reasons begin that say no more than the score does; with any other, the reason is the lesson."""

_NAMED_MAX = 8
"""Constants of one group whose values are told."""

_SAYS_LITTLE = """
a about add added adding all allow an and apply as at back base based be better bigger both bump but by change changed
combine cut decrease decreased disable double drop each enable experiment fewer fix for from full further give half
halve have higher in increase increased init instead into is it its keep large larger less let longer lower make minus
more most move much new no not now of off on one only or other out over per plus put raise reduce reduced remove replace
revert run same second set shorter simplify slightly small smaller so some switch test than that the their then this
tiny to too train training try tune tweak two up use using value version via was when while with without
"""
_STOP_WORDS = frozenset(_SAYS_LITTLE.split())
_WORD = re.compile(r"[^\W\d_]{2,}")
_VARYING = re.compile(r"(?<!\S)[^\s\d]*+\d\S*")  # words with a digit: shapes, sizes, addresses, numbered paths


class _Group:
    """Failures that teach the same. *members* are oldest first."""

    __slots__ = ("best", "key", "members", "newest", "worst")

    def __init__(self, key: tuple[str, ...]) -> None:
        self.key = key
        self.members: list[Tried] = []
        self.newest = self.best = self.worst = -math.inf

    def finish(self) -> None:
        gains = [tried.gain for tried in self.members if tried.gain is not None]
        self.newest = self.members[-1].experiment
        self.best = max(gains, default=-math.inf)
        self.worst = min(gains, default=math.inf)


def lessons(history: Sequence[Tried], room: int) -> str:
    """
    The crashes and discards by group, each distinct one at least by a line as long as there is room.

    Crashes come first, then discards with a reason of their own, then the rest by topic; room that one kind does
    not need goes to the next.
    """
    crashes, reasons, topics = _grouped(history)
    if not (crashes or reasons or topics):
        return ""
    head = (
        "What did not work. Failures of one kind stand together: how many, the closest to a gain and the worst (gains, "
        "positive is better), then single ones, newest first.\n"
    )
    kinds = (
        ("Crashes", _by_rarity(crashes), 35),
        ("Discards with a reason of their own", _by_rarity(reasons), 30),
        ("Discards by topic", _by_outcome(topics), 100),
    )
    room -= weight(head) + weight(wrapped("data", "failures", "")) + 2
    room -= sum(weight(title) + 4 for title, _, _ in kinds)
    lines: list[str] = []
    for title, groups, share in kinds:
        if groups:
            told = _told(groups, room * share // 100)
            room -= sum(weight(line) + 2 for line in told)
            lines += [f"{title}:", *told]
    return head + wrapped("data", "failures", "\n".join(lines)) + "\n"


def _grouped(history: Sequence[Tried]) -> tuple[list[_Group], list[_Group], list[_Group]]:
    """Crashes by error, discards with a reason of their own by it, the others by topic."""
    crashes: dict[tuple[str, ...], _Group] = {}
    reasons: dict[tuple[str, ...], _Group] = {}
    plain_ones: list[Tried] = []
    for tried in history:
        if tried.verdict == "crash":
            _join(crashes, _signature(tried.error or tried.reason), tried)
        elif tried.verdict == "discard" and _tells(tried):
            _join(reasons, _signature(tried.reason), tried)
        elif tried.verdict == "discard":
            plain_ones.append(tried)
    topics: dict[tuple[str, ...], _Group] = {}
    for tried, key in zip(plain_ones, _topics(plain_ones), strict=True):
        _join(topics, key, tried)
    for groups in (crashes, reasons, topics):
        for group in groups.values():
            group.finish()
    return list(crashes.values()), list(reasons.values()), list(topics.values())


def _join(groups: dict[tuple[str, ...], _Group], key: tuple[str, ...], tried: Tried) -> None:
    group = groups.get(key)
    if group is None:
        group = groups[key] = _Group(key)
    group.members.append(tried)


def _signature(text: str) -> tuple[str, ...]:
    """What an error or a reason says, without the words that hold numbers; its first word before that."""
    same = " ".join(_VARYING.sub("#", text[:300]).casefold().split())
    return (re.split(r"[:\s]", same, maxsplit=1)[0], same)


def _topics(discards: Sequence[Tried]) -> list[tuple[str, ...]]:
    """
    What each one changed: the constants by name, else the first two words of the description that say something.

    Words that hardly any description uses count only where there are no others: in a long history they would put
    every experiment into a group of its own. The more common word of the two comes first.
    """
    words = [[] if tried.edits else _words(tried.description) for tried in discards]
    uses = Counter(word for some in words for word in some)
    least = max(2, len(discards) // 1_000)
    known: dict[tuple[str, ...], tuple[str, ...]] = {}
    keys = []
    for tried, some in zip(discards, words, strict=True):
        names = tuple(name for edit in tried.edits if isinstance(edit, SetConstants) for name in edit.values)
        key = known.get(names) or known.setdefault(
            names, tuple(sorted(set(names)))
        )  # a sweep sets the same ones always
        keys.append(key or _two_of(some, uses, least))
    return keys


def _words(description: str) -> list[str]:
    return [word for word in _WORD.findall(description[:200].lower()) if word not in _STOP_WORDS]


def _two_of(words: Sequence[str], uses: Mapping[str, int], least: int) -> tuple[str, ...]:
    common = [word for word in words if uses[word] >= least] or words
    stems = [word[:-1] if word[-1] == "s" and word[:-1] in uses else word for word in common]
    two = list(dict.fromkeys(stems))[:2]
    if len(two) == 2 and (uses[two[1]], two[1]) > (uses[two[0]], two[0]):
        two.reverse()
    return tuple(two) or ("other",)


def _by_rarity(groups: Sequence[_Group]) -> list[_Group]:
    """The most frequent, the newest and the oldest rare ones in turn."""
    frequent = sorted(groups, key=lambda group: (-len(group.members), -group.newest))
    newest = sorted(groups, key=lambda group: -group.newest)
    rare = sorted(groups, key=lambda group: (len(group.members), group.newest))
    return _in_turn(frequent, newest, rare)


def _by_outcome(groups: Sequence[_Group]) -> list[_Group]:
    """The closest to a gain, the worst and the newest ones in turn."""
    close = sorted(groups, key=lambda group: (-group.best, -group.newest))
    bad = sorted(groups, key=lambda group: (group.worst, -group.newest))
    newest = sorted(groups, key=lambda group: -group.newest)
    return _in_turn(close, bad, newest)


def _in_turn(*orders: Sequence[_Group]) -> list[_Group]:
    turns = (group for turn in zip_longest(*orders) for group in turn if group is not None)
    return list({id(group): group for group in turns}.values())


def _told(groups: Sequence[_Group], room: int) -> list[str]:
    """
    A line for as many groups as fit, then single experiments of the first ones; the rest by their first word.

    If all groups have their line, what is left of the room goes to single experiments; else those get a tenth.
    """
    room -= weight("and 1000000 more in 1000000 groups") + 2
    heads = lines_within(map(_head, groups), room)
    left: list[str] = []
    if len(heads) < len(groups):
        heads = lines_within(heads, room * 7 // 10)
        left = _left_out(groups[len(heads) :], room * 2 // 10)
    room -= sum(weight(line) + 2 for line in (*heads, *left))
    details: list[list[str]] = []
    for group in groups[: len(heads)]:
        details.append(lines_within(_details(group), room))
        room -= sum(weight(line) + 2 for line in details[-1])
    told = [line for head, more in zip(heads, details, strict=True) for line in (head, *more)]
    return told + left


def _left_out(groups: Sequence[_Group], room: int) -> list[str]:
    """Groups that have no line of their own, by the first word of their key; those without room are counted."""
    coarse: dict[str, list[_Group]] = {}
    for group in groups:
        coarse.setdefault(group.key[0], []).append(group)
    order = sorted(coarse.items(), key=lambda item: (len(item[1]), item[1][0].newest))
    lines = (_coarse(word, members) for word, members in order)
    kept = lines_within(lines, room - weight("and 1000000 more in 1000000 groups") - 2)
    rest = [group for _, members in order[len(kept) :] for group in members]
    if rest:
        kept.append(f"and {sum(len(group.members) for group in rest)} more in {len(rest)} groups")
    return kept


def _coarse(word: str, groups: Sequence[_Group]) -> str:
    newest = max((group.members[-1] for group in groups), key=lambda tried: tried.experiment)
    count = sum(len(group.members) for group in groups)
    if len(groups) == 1:
        return _head(groups[0])
    return f"- {line_of(word, 40)}: {count} more of {len(groups)} kinds, newest {_single(newest, 50)}"


def _head(group: _Group) -> str:
    """A group in one line."""
    members = group.members
    newest = members[-1]
    if len(members) == 1:
        return f"- {_single(newest, 120)}"
    if newest.verdict == "crash":
        why = line_of(newest.error or newest.reason, 120)
        return f"- {len(members)} crashes: {why}, newest {newest.experiment}: {line_of(newest.description, 60)}"
    what = line_of(newest.reason, 120) if _tells(newest) else line_of(", ".join(group.key), 60)
    return f"- {what}: {len(members)} discards{_spread(group)}{_ranges(members)}"


def _spread(group: _Group) -> str:
    """The closest and the worst of a group, where they have scores."""
    scored = [tried for tried in group.members if tried.gain is not None]
    if not scored:
        return f", newest {_single(group.members[-1], 50)}"
    best = max(scored, key=lambda tried: (_key(tried.gain), tried.experiment))
    worst = min(scored, key=lambda tried: (_key(tried.gain), -tried.experiment))
    return (
        f", closest {gain_words(best.gain)} ({best.experiment}: {line_of(best.description, 60)}),"
        f" worst {gain_words(worst.gain)} ({worst.experiment}: {line_of(worst.description, 60)})"
    )


def _key(gain: float | None) -> float:
    return -math.inf if gain is None else gain


def _details(group: _Group) -> Iterator[str]:
    """The newest few of a group, then its closest, each with what was meant and why it was dropped."""
    newest = group.members[:-4:-1]
    scored = [tried for tried in group.members if tried.gain is not None]
    if scored and (closest := max(scored, key=lambda tried: _key(tried.gain))) not in newest:
        newest.append(closest)
    for tried in newest:
        meant = f" | meant: {line_of(tried.hypothesis, 160)}" if tried.hypothesis else ""
        if len(group.members) > 1:
            yield f"    {_single(tried, 100, 60)}{meant}"
        elif meant:
            yield f"   {meant[2:]}"


def _single(tried: Tried, limit: int, why_limit: int = 120) -> str:
    """One experiment: number, outcome, what it did, why it failed."""
    what = line_of(tried.description, limit) or values_of(tried.edits) or "no description"
    why = (tried.error or tried.reason) if tried.verdict == "crash" else tried.reason if _tells(tried) else ""
    outcome = "crash" if tried.verdict == "crash" else gain_words(tried.gain)
    return f"{tried.experiment} {outcome}: {what}" + (f" | {line_of(why, why_limit)}" if why else "")


def _tells(tried: Tried) -> bool:
    """Whether the reason says more than the score."""
    return bool(tried.reason) and not tried.reason.startswith(PLAIN_REASONS)


def _ranges(members: Sequence[Tried]) -> str:
    """The values that were tried for constants: `MATRIX_LR 0.01 to 0.2 (12 values)`."""
    edits = [edit for member in members for edit in member.edits if isinstance(edit, SetConstants)]
    names = list(dict.fromkeys(name for edit in edits for name in edit.values))
    spans = [
        f"{line_of(name, 40)} {_span({edit.values[name] for edit in edits if name in edit.values})}"
        for name in names[:_NAMED_MAX]
    ]
    more = f" and {len(names) - _NAMED_MAX} more constants" if len(names) > _NAMED_MAX else ""
    return f"; tried {', '.join(spans)}{more}" if spans else ""


def _span(values: set[Scalar]) -> str:
    numbers = sorted(value for value in values if isinstance(value, int | float) and not isinstance(value, bool))
    if len(numbers) == len(values) > 3:
        return f"{numbers[0]:.6g} to {numbers[-1]:.6g} ({len(numbers)} values)"
    some = sorted(values, key=lambda value: (str(type(value)), str(value)))
    return " or ".join(line_of(str(value), 24) for value in some[:4]) + (f" and {len(some) - 4} more" * (len(some) > 4))


def values_of(edits: Sequence[object]) -> str:
    values = [
        f"{name} {value}" for edit in edits if isinstance(edit, SetConstants) for name, value in edit.values.items()
    ]
    return line_of(", ".join(values[:_NAMED_MAX]), 120)
