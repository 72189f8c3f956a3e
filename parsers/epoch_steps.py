"""Iterations that begin again with every epoch, as steps that grow over the whole run."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

__all__ = ["steps_over_epochs"]


def steps_over_epochs(places: Sequence[tuple[int, int]], *, base: int) -> tuple[list[int], int | None]:
    """Steps of (epoch, iteration) in the order logged, and how many iterations an epoch was taken to have.

    The number is None, and the steps are the iterations, where these do not begin again when the epoch grows.
    Otherwise the step is (epoch - `base`) times the number, plus the iteration. The number is the largest iteration
    seen, plus one where they count from 0: the true one is larger by less than a logging interval where the last
    iterations of an epoch were not logged. An epoch and iteration that come again give the same step again.

    >>> steps_over_epochs([(1, 50), (1, 100), (2, 50), (2, 100)], base=1)
    ([50, 100, 150, 200], 100)
    >>> steps_over_epochs([(1, 50), (1, 100), (2, 150)], base=1)
    ([50, 100, 150], None)
    >>> steps_over_epochs([], base=1)
    ([], None)
    """
    again = any(later[0] > earlier[0] and later[1] <= earlier[1] for earlier, later in pairwise(places))
    iterations = [iteration for _, iteration in places]
    if not again:
        return iterations, None
    many = max(iterations) + (min(iterations) <= 0)
    return [(epoch - base) * many + iteration for epoch, iteration in places], many
