"""From where on each kind is reported, for each metric; and how near a run came to it, reported or not."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from analysis.kinds import KINDS

__all__ = ["DEFAULT_LIMITS", "Limits", "Measure"]


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits in force: `given` holds kind, glob of metrics and value; what nothing fits keeps the built-in default.

    >>> Limits().of("non-finite")
    Traceback (most recent call last):
    ...
    ValueError: findings of kind 'non-finite' are a matter of fact: no number decides, and none can be set
    """

    given: tuple[tuple[str, str, float], ...] = ()

    def of(self, kind: str, metric: str | None = None) -> float:
        """The limit of a kind for a metric: the last given one that fits, else the default of the kind.

        A finding about the whole run (`metric` None) takes those given for all metrics (`*`). Raises ValueError for a
        kind that has no limit.
        """
        limit = KINDS[kind].limit
        if limit is None:
            raise ValueError(f"findings of kind {kind!r} are a matter of fact: no number decides, and none can be set")
        chosen = limit.default
        for name, glob, value in self.given:
            if name == kind and (glob == "*" or (metric is not None and fnmatchcase(metric, glob))):
                chosen = value
        return chosen


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
