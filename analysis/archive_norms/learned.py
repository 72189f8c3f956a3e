"""What healthy runs teach of each kind: for a metric, for all metrics of a role, and for all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.archive_norms.healthy import FACTOR, Teacher, towards_fault
from analysis.archive_norms.tolerance import FEWEST, upper_bound
from analysis.kinds import KINDS, Limit

__all__ = ["Norm", "level_norms", "norms_of"]

#: What is nearer to nothing than this share of the default is nothing.
_NOTHING = 0.01
#: Kinds whose limit is a ceiling of nature: to stay far below it is no reason to be warned nearer.
_ONLY_MILDER = frozenset({"memory-overflow"})


@dataclass(frozen=True, slots=True)
class Norm:
    """What `n` healthy runs reach of a kind: for one `metric`, for all metrics of a `role`, or for all (both empty).

    `median` and `high` are what they measured (the worst of each run); `norm` is the limit that follows, equal to
    `default` where nothing was learned, and `why` says how.
    """

    kind: str
    metric: str
    role: str
    n: int
    median: float
    high: float
    default: float | None
    norm: float | None
    why: str
    low: float | None = None

    @property
    def learned(self) -> bool:
        """Whether it differs from the default."""
        return self.norm is not None and self.norm != self.default


def norms_of(teachers: Sequence[Teacher], margin: float, coverage: float, confidence: float) -> Iterator[Norm]:
    """A norm for every kind with a limit that was measured, by metric, by role, and for all, in this order."""
    groups: dict[tuple[str, str, str], dict[int, float]] = {}
    reported: set[tuple[str, str, str]] = set()
    for place, teacher in enumerate(teachers):
        for finding in teacher.findings:
            reported |= {(finding.kind, *key) for key in _keys(teacher, finding.metric or "")}
        for one in teacher.measures:
            limit = KINDS[one.kind].limit
            if limit is None or not math.isfinite(one.value):
                continue
            for key in _keys(teacher, one.metric or ""):
                worst = groups.setdefault((one.kind, *key), {})
                worst[place] = _worse(limit, worst.get(place, one.value), one.value)
    order = {kind: place for place, kind in enumerate(KINDS)}
    for (kind, metric, role), values in sorted(groups.items(), key=lambda g: (order[g[0][0]], *g[0][1:])):
        found = _norm(kind, metric, role, np.array(list(values.values())), margin, coverage, confidence)
        yield found if (kind, metric, role) in reported else _no_milder(found)


def _keys(teacher: Teacher, metric: str) -> set[tuple[str, str]]:
    """The groups (metric, role) in which a metric is counted."""
    return {(metric, ""), ("", teacher.roles.get(metric, "")), ("", "")}


def _no_milder(norm: Norm) -> Norm:
    """The norm of a kind of which no sound run was told: there is no false alarm that a milder limit would save, and
    what was measured may lie beyond the limit where other conditions of the kind do not hold.
    """
    limit = KINDS[norm.kind].limit
    if limit is None or norm.norm is None or towards_fault(limit, norm.norm) <= 1.0:
        return norm
    return replace(norm, norm=limit.default, why="default: no sound run was reported at it")


def _worse(limit: Limit, one: float, other: float) -> float:
    return max(one, other) if limit.above else min(one, other)


def _norm(
    kind: str,
    metric: str,
    role: str,
    values: np.ndarray[tuple[int], np.dtype[np.float64]],
    margin: float,
    coverage: float,
    confidence: float,
) -> Norm:
    limit = KINDS[kind].limit
    assert limit is not None
    high = float(values.max() if limit.above else values.min())
    norm, why = _limit(limit, values, margin, coverage, confidence)
    if kind in _ONLY_MILDER and towards_fault(limit, norm) < 1.0:
        norm, why = limit.default, "default: a ceiling, which nothing moves nearer"
    return Norm(kind, metric, role, len(values), float(np.median(values)), high, limit.default, norm, why)


def _limit(
    limit: Limit,
    values: np.ndarray[tuple[int], np.dtype[np.float64]],
    margin: float,
    coverage: float,
    confidence: float,
) -> tuple[float, str]:
    """The limit that follows from measures, and how."""
    reached = np.array([towards_fault(limit, value) for value in values])
    bound = upper_bound(reached, coverage, confidence, _NOTHING)
    if bound is None:
        return limit.default, f"default: {len(values)} runs, {FEWEST} are needed"
    if bound.how == "highest" and bound.value * margin <= 1.0:
        return limit.default, "default: many runs show nothing of it, and none comes near the limit"
    share = min(max(bound.value * margin, 1.0 / FACTOR), FACTOR)
    norm = _allowed(limit, limit.default * share if limit.above else limit.default / share)
    said = {
        "lognormal": f"lognormal tolerance bound ({coverage:.0%} of runs, confidence {confidence:.0%})",
        "order": f"order statistic ({coverage:.0%} of runs, confidence {confidence:.0%})",
        "highest": "the highest of the runs",
    }[bound.how]
    edge = f", kept within {FACTOR:g} times the default" if share in (FACTOR, 1.0 / FACTOR) else ""
    return norm, f"{said}, margin {margin:g}{edge}"


def _allowed(limit: Limit, norm: float) -> float:
    """A limit in three digits, rounded to the side of fewer alarms, that can be one of this kind."""
    unit = 10.0 ** (math.floor(math.log10(norm)) - 2)
    rounded = (math.ceil(norm / unit - 1e-9) if limit.above else math.floor(norm / unit + 1e-9)) * unit
    rounded = float(f"{rounded:.3g}")
    if rounded <= limit.lowest:
        return limit.default
    return min(rounded, limit.highest)


def level_norms(teachers: Sequence[Teacher]) -> Iterator[Norm]:
    """Bands of levels (final loss, time of a step, gradient norm) in which nine of ten runs lie: information only."""
    for name in dict.fromkeys(name for teacher in teachers for name in teacher.levels):
        values = np.array([teacher.levels[name] for teacher in teachers if name in teacher.levels])
        low, middle, high = (float(q) for q in np.quantile(values, [0.05, 0.5, 0.95]))
        yield Norm(
            "level", name, "", len(values), middle, high, None, None, "5 % to 95 % of the runs; judges nothing", low
        )
