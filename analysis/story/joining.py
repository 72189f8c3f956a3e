"""Findings joined by the links that hold between them: each gets at most one cause, and none is its own."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from analysis.story.links import LINKS, Agree, Link
from analysis.story.onset import Onset, Rhythm

__all__ = ["CHANCE", "Joined", "join", "window"]

#: Share of the log that all windows of a link may cover together: so seldom does chance alone join two strangers. Where
#: a log is short, or has many findings of a kind, the windows are narrowed to that.
CHANCE = 0.05
#: Records that a window holds however short the log: two things in neighbouring records belong to one moment.
_LEAST = 2.0
#: Kinds of which the information says "as planned" or "not to be judged": no cause of anything worse then.
_PLANNED = {
    "level-shift", "loss-spike", "variance-shift", "plateau", "oscillation", "outlier", "non-finite", "lr-schedule",
    "curriculum-off-schedule", "clipping", "update-ratio",
}  # fmt: skip
_STRICT: frozenset[Agree] = frozenset({"same-layer", "same-component"})


@dataclass(frozen=True, slots=True)
class Joined:
    """A finding's place in the order given, the place of what explains it (None for a root), and by which link."""

    place: int
    cause: int | None
    link: Link | None


@dataclass(frozen=True, slots=True)
class _Edge:
    cause: int
    effect: int
    link: Link
    distance: float


def join(onsets: Sequence[Onset], rhythm: Rhythm) -> list[Joined]:
    """For each of `onsets` what explains it; the same for any order of them.

    First, signs of one kind gather around the one that leads them: each must be near that one, so that a long row of
    them never becomes one thing. Then, of several explanations, each takes the nearest in time; one that would make a
    finding its own cause is not taken, nor one by which a story would come to the same kind twice.
    """
    order = sorted(range(len(onsets)), key=lambda i: onsets[i].key)
    rank = {place: n for n, place in enumerate(order)}
    tree = _Tree([o.finding.kind for o in onsets])
    edges = list(_edges(onsets, rhythm))
    alike = [e for e in edges if e.link.cause == e.link.effect]
    alike.sort(key=lambda e: (onsets[e.cause].finding.severity == "info", rank[e.cause], rank[e.effect]))
    for edge in alike:
        if edge.effect not in tree.taken and edge.cause not in tree.taken and edge.effect not in tree.below:
            tree.add(edge)
    between = [e for e in edges if e.link.cause != e.link.effect]
    for edge in sorted(between, key=lambda e: (e.distance, rank[e.effect], rank[e.cause])):
        if edge.effect not in tree.taken and not tree.repeats(edge):
            tree.add(edge)
    return [
        Joined(place, e.cause, e.link) if (e := tree.taken.get(place)) else Joined(place, None, None)
        for place in range(len(onsets))
    ]


class _Tree:
    """The explanations taken so far, and what hangs below each finding."""

    def __init__(self, kinds: Sequence[str]) -> None:
        self._kinds = kinds
        self.taken: dict[int, _Edge] = {}
        self.below: dict[int, list[int]] = {}

    def add(self, edge: _Edge) -> None:
        self.taken[edge.effect] = edge
        self.below.setdefault(edge.cause, []).append(edge.effect)

    def repeats(self, edge: _Edge) -> bool:
        """Whether a kind would stand both above and below: so it is, too, where a finding would explain itself."""
        above, place = {self._kinds[edge.cause]}, edge.cause
        while place in self.taken:
            place = self.taken[place].cause
            above.add(self._kinds[place])
        return not above.isdisjoint(self._kinds[place] for place in self._under(edge.effect))

    def _under(self, place: int) -> Iterator[int]:
        waiting = [place]
        while waiting:
            place = waiting.pop()
            yield place
            waiting += self.below.get(place, [])


def _edges(onsets: Sequence[Onset], rhythm: Rhythm) -> Iterator[_Edge]:
    by_kind: dict[str, list[int]] = {}
    for place, onset in enumerate(onsets):
        by_kind.setdefault(onset.finding.kind, []).append(place)
    counts = Counter(o.finding.kind for o in onsets if o.first is not None)
    for link in LINKS:
        count = max(counts[link.cause], counts[link.effect])
        for cause, effect in _pairs(link, by_kind, onsets, rhythm, count):
            edge = _edge(link, cause, effect, onsets, rhythm, count)
            if edge is not None:
                yield edge


def _pairs(
    link: Link, by_kind: dict[str, list[int]], onsets: Sequence[Onset], rhythm: Rhythm, count: int
) -> Iterator[tuple[int, int]]:
    """Pairs near enough to be looked at: a run with thousands of findings must not be compared each with each."""
    causes, effects = by_kind.get(link.cause, []), by_kind.get(link.effect, [])
    if link.when == "ever":
        yield from ((c, e) for c in causes for e in effects if c != e)
        return
    timed = sorted((first, place) for place in effects if (first := onsets[place].first) is not None)
    unsure = 2 * max((onsets[place].slack for place in (*causes, *effects)), default=0.0) / rhythm.steps
    lasts = max((_lasted(onsets[place], rhythm) for place in effects), default=0.0) if link.either else 0.0
    reach = window(link.records + unsure, rhythm, count) * rhythm.steps
    for cause in causes:
        one = onsets[cause]
        if one.first is None or one.last is None:
            continue
        end = one.last if link.when in ("during", "around") else one.first
        earliest = one.first - reach - (lasts * rhythm.steps if link.when == "during" else 0.0)
        for first, effect in timed[bisect_left(timed, (earliest, -1)) :]:
            if first > end + reach:
                break
            if effect != cause:
                yield cause, effect


def _edge(link: Link, cause: int, effect: int, onsets: Sequence[Onset], rhythm: Rhythm, count: int) -> _Edge | None:
    one, other = onsets[cause], onsets[effect]
    if not all(_agrees(one, other, what) for what in link.agree):
        return None
    distance = _apart(link, one, other, rhythm, count)
    if distance is None or (_meant(one) and not _meant(other) and other.finding.severity != "info"):
        return None
    if link.either and not _leads(one, other, cause < effect):
        # Of two kinds that are one thing, whichever leads explains the other; a pair of one kind comes twice anyway.
        return None if link.cause == link.effect else _turned(link, cause, effect, onsets, distance)
    return _Edge(cause, effect, link, distance)


def _turned(link: Link, cause: int, effect: int, onsets: Sequence[Onset], distance: float) -> _Edge | None:
    if _meant(onsets[effect]) and onsets[cause].finding.severity != "info":
        return None
    return _Edge(effect, cause, link, distance)


def _meant(onset: Onset) -> bool:
    """Whether a finding only tells of a change that was planned: context, and no root of blame."""
    return onset.finding.severity == "info" and onset.finding.kind in _PLANNED


def _leads(one: Onset, other: Onset, before: bool) -> bool:
    """Which of two signs of one thing comes first: what is no mere information, then the earlier beyond doubt, then
    gradients before losses before the rest; `before` decides between two that are the same to the letter.
    """
    if (one.finding.severity == "info") != (other.finding.severity == "info"):
        return other.finding.severity == "info"
    if one.first is not None and other.first is not None and abs(one.first - other.first) > one.slack + other.slack:
        return one.first < other.first
    mine, theirs = (one.order, one.key), (other.order, other.key)
    return mine < theirs or (mine == theirs and before)


def _apart(link: Link, one: Onset, other: Onset, rhythm: Rhythm, count: int) -> float | None:
    """Records between cause and effect where the link holds between them, else None."""
    if one.first is None or other.first is None:
        return math.inf if link.when == "ever" else None
    gap = (other.first - one.first) / rhythm.steps
    if link.when == "ever":
        return abs(gap)
    slack = (one.slack + other.slack) / rhythm.steps
    late = window(link.records + slack, rhythm, count)
    early = late if link.either else window(slack, rhythm, count)
    if link.when == "around" and not -early <= gap <= late and one.last is not None:
        gap = (other.first - one.last) / rhythm.steps
    lasts, other_lasts = (_lasted(o, rhythm) if link.when == "during" else 0.0 for o in (one, other))
    return abs(gap) if -early - (other_lasts if link.either else 0.0) <= gap <= lasts + late else None


def _lasted(onset: Onset, rhythm: Rhythm) -> float:
    """Records that a finding lasts."""
    return 0.0 if onset.first is None or onset.last is None else (onset.last - onset.first) / rhythm.steps


def window(records: float, rhythm: Rhythm, count: int) -> float:
    """A window in records, on either side of an onset, narrowed so that chance alone seldom joins: see `CHANCE`."""
    return min(records, max(_LEAST, CHANCE * rhythm.records / (2 * max(count, 1))))


def _agrees(one: Onset, other: Onset, what: Agree) -> bool:
    mine, theirs = one.says(what), other.says(what)
    if mine is None or theirs is None:
        return what not in _STRICT
    if what in ("layer", "same-layer"):
        return any(_within(a, b) or _within(b, a) for a in mine for b in theirs)
    return bool(mine & theirs)


def _within(inner: str, outer: str) -> bool:
    return inner == outer or inner.startswith((outer + ".", outer + "/"))
