"""Iterations that begin again with every epoch, as steps that grow over the whole run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["counted_over_epochs", "steps_over_epochs"]

_Ints = npt.NDArray[np.int64]

#: Steps beyond this are left as they are: no training counts so far, and products of them would overflow.
_LARGEST = 1 << 62
#: Share of the epochs that must agree on how long one is, where the rhythm of the log tells.
_AGREE = 0.8
#: A bar that was drawn up to this share of the largest step, and begins again in what is left, went through.
_WHOLE = 0.9


def steps_over_epochs(places: Sequence[tuple[int, int]], *, base: int) -> tuple[list[int], int | None]:
    """Steps of (epoch, iteration) in the order logged, and how many iterations an epoch was taken to have.

    The number is None, and the steps are the iterations, where these do not begin again when the epoch grows.
    Otherwise the step is (epoch - `base`) times the number, plus the iteration. Where the rhythm of the log goes on
    over the end of an epoch (every 400 iterations: 17200 in one epoch, then 272 in the next) the number is exact. Else
    it is the largest iteration seen, plus one where they count from 0: the true one is larger by less than a logging
    interval where the last iterations of an epoch were not logged. An epoch and iteration that come again give the same
    step again.

    >>> steps_over_epochs([(1, 50), (1, 100), (2, 50), (2, 100)], base=1)
    ([50, 100, 150, 200], 100)
    >>> steps_over_epochs([(1, 400), (1, 800), (2, 72), (2, 472), (2, 872)], base=1)
    ([400, 800, 1200, 1600, 2000], 1128)
    >>> steps_over_epochs([(1, 50), (1, 100), (2, 150)], base=1)
    ([50, 100, 150], None)
    >>> steps_over_epochs([], base=1)
    ([], None)
    """
    iterations = [iteration for _, iteration in places]
    if not places or max(iterations) >= _LARGEST or min(iterations) < -_LARGEST:
        return iterations, None
    many = _length(np.array([epoch for epoch, _ in places]), np.array(iterations))
    if many is None:
        return iterations, None
    return [(epoch - base) * many + iteration for epoch, iteration in places], many


def counted_over_epochs(epoch: npt.NDArray[np.float64], step: _Ints, *, sure: bool) -> tuple[_Ints, int] | None:
    """Steps over the whole run of records in their order, and the iterations of an epoch; None where they count so.

    `epoch` is NaN where a record says none. Where all records say whole epochs, the steps begin again with each of
    them, and go back nowhere else than a resume may. Where none does, steps that begin again each time that the
    largest one was nearly reached (a progress bar for each epoch) count epochs themselves; only where the writer is
    known to count so (`sure`), since a run that was begun anew looks alike.

    >>> counted_over_epochs(np.array([1.0, 1, 2, 2]), np.array([50, 100, 50, 100]), sure=False)
    (array([ 50, 100, 150, 200]), 100)
    >>> counted_over_epochs(np.full(6, np.nan), np.array([5, 10, 5, 10, 5, 10]), sure=True)
    (array([ 5, 10, 15, 20, 25, 30]), 10)
    """
    if len(step) < 2 or int(np.abs(step).max()) >= 1 << 31:
        return None
    if np.isnan(epoch).all():
        counted = _bars(step) if sure else None
    elif np.isfinite(epoch).all() and (epoch == np.floor(epoch)).all() and float(np.abs(epoch).max()) < 1 << 30:
        counted = epoch.astype(np.int64)
    else:
        return None
    if counted is None:
        return None
    grows = counted[1:] > counted[:-1]
    many = _length(counted, step)
    if many is None or (not sure and (step[1:][grows] > step[:-1][grows]).any()):
        return None
    return (counted - min(int(counted.min()), 1)) * many + step, many


def _bars(step: _Ints) -> _Ints | None:
    """The epoch of each record, from 1, where each but the last goes from the beginning to the largest step."""
    falls = np.flatnonzero(np.diff(step) < 0)
    top = float(step.max())
    whole = len(falls) and (step[falls] >= _WHOLE * top).all()
    whole = whole and (step[falls + 1] <= max(float(step[0]), (1 - _WHOLE) * top)).all()
    return 1 + np.searchsorted(falls, np.arange(len(step)), side="left") if whole else None


def _length(epoch: _Ints, iteration: _Ints) -> int | None:
    """Iterations of an epoch; None where they do not begin again when the epoch grows."""
    ahead = np.diff(epoch)
    again = (ahead > 0) & (iteration[1:] <= iteration[:-1])
    if not again.any():
        return None
    largest = int(iteration.max()) + int(iteration.min() <= 0)
    inside = np.diff(iteration)[(ahead == 0) & (np.diff(iteration) > 0)]
    next_one = again & (ahead == 1)
    firsts = iteration[1:][next_one]
    if not len(inside) or not len(firsts) or (firsts == iteration[0]).all():
        return largest
    every = int(np.median(inside))
    guess, count = Counter((iteration[:-1][next_one] + every - firsts).tolist()).most_common(1)[0]
    goes_on = count >= _AGREE * len(firsts) and largest <= guess < largest + every
    return int(guess) if goes_on else largest
