"""From where on each kind is reported, for each metric; and how near a run came to it, reported or not."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from analysis.kinds import KINDS

__all__ = ["DEFAULT_LIMITS", "Gauge", "Learned", "Limits", "Measure"]


@dataclass(frozen=True, slots=True)
class Learned:
    """A limit that healthy runs taught (`analysis.norms`): for one metric, or for all of them (None), and in words."""

    kind: str
    metric: str | None
    value: float
    told: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits in force: `given` holds kind, glob of metrics and value; what nothing fits keeps the built-in default.

    `learned` are those of an archive of healthy runs: they go before the defaults, and behind what was given.

    >>> Limits((("stall", "*", 60.0),)).of("stall")
    60.0
    >>> Limits().of("non-finite")
    Traceback (most recent call last):
    ...
    ValueError: findings of kind 'non-finite' are a matter of fact: no number decides, and none can be set
    """

    given: tuple[tuple[str, str, float], ...] = ()
    learned: tuple[Learned, ...] = ()

    def of(self, kind: str, metric: str | None = None, *also: str | None) -> float:
        """The limit of a kind for a metric: the last given one that fits, else the learned one, else the default.

        A finding about the whole run (`metric` None) takes those given for all metrics (`*`). `also` are other names
        under which the metric is known, as its layer. Raises ValueError for a kind that has no limit.
        """
        limit = KINDS[kind].limit
        if limit is None:
            raise ValueError(f"findings of kind {kind!r} are a matter of fact: no number decides, and none can be set")
        taught = self.taught(kind, metric)
        chosen = limit.default if taught is None else taught.value
        names = [name for name in (metric, *also) if name]
        for what, glob, value in self.given:
            if what == kind and (glob == "*" or any(fnmatchcase(name, glob) for name in names)):
                chosen = value
        return chosen

    def taught(self, kind: str, metric: str | None = None) -> Learned | None:
        """The learned limit of a kind: that of the metric before that of all metrics; None where none was learned."""
        found = [one for one in self.learned if one.kind == kind and one.metric in (None, metric)]
        return max(found, key=lambda one: one.metric is not None, default=None)

    def scale(self, kind: str, metric: str | None = None, *also: str | None) -> float:
        """The limit in force as a multiple of the default: by which the further limits of a kind move with it."""
        limit = KINDS[kind].limit
        return 1.0 if limit is None else self.of(kind, metric, *also) / limit.default


#: The built-in limits.
DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Measure:
    """How near a metric came to the limit of a kind, whether or not it was reported: the number that is judged.

    Limits for an archive are learned from these (`analysis.norms`), and a self-test says what would have been caught.
    """

    kind: str
    value: float
    metric: str | None = None


@dataclass(slots=True, eq=False)
class Gauge:
    """The limits as one analysis asks for them, which keeps what it measured on the way (`measures`).

    >>> gauge = Gauge(Limits((("stall", "*", 60.0),)))
    >>> gauge.reaches("stall", 45.0), gauge.reaches("stall", 75.0)
    (False, True)
    >>> gauge.measures
    (Measure(kind='stall', value=75.0, metric=None),)
    """

    limits: Limits = DEFAULT_LIMITS
    _taken: dict[tuple[str, str | None], float] = field(default_factory=dict)

    def reaches(self, kind: str, value: float, metric: str | None = None, *also: str | None) -> bool:
        """Whether a number is at the limit or beyond it, on the side that the kind's limit declares; it is kept."""
        self.keep(kind, value, metric)
        limit, above = self.limits.of(kind, metric, *also), _above(kind)
        return value >= limit if above else value <= limit

    def keep(self, kind: str, value: float, metric: str | None = None) -> None:
        """Note what was measured; of several numbers of one kind and metric the worst stays. NaN says nothing."""
        if math.isnan(value):
            return
        worst = max if _above(kind) else min
        place = (kind, metric)
        self._taken[place] = worst(self._taken.get(place, value), value)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What was measured so far, in the order of the first measurement."""
        return tuple(Measure(kind, value, metric) for (kind, metric), value in self._taken.items())


def _above(kind: str) -> bool:
    limit = KINDS[kind].limit
    return limit is None or limit.above
