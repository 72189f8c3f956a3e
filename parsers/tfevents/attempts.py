"""Where a TensorBoard log was resumed: steps that go back, a SessionLog START, another file of the same tags."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl

from parsers.tables.attempts import restarts

__all__ = ["Follower", "boundaries"]

_Ints = npt.NDArray[np.int64]


def boundaries(series: Mapping[int, tuple[_Ints, _Ints]], starts: Iterable[int], rows: int) -> list[int]:
    """Places among the `rows` of a file at which another attempt begins.

    `series` holds, per tag whose step goes back anywhere, places and steps; `starts` the places of SessionLog START.
    Each tag goes back where it is next logged after a resume: these belong to one attempt, which begins at the first.

    >>> loss = np.array([0, 2, 4, 6]), np.array([1, 2, 1, 2])
    >>> lr = np.array([1, 3, 5, 7]), np.array([1, 2, 1, 2])
    >>> boundaries({0: loss, 1: lr}, [], 8)
    [4]
    """
    found = sorted((place, tag) for tag, (places, steps) in series.items() for place in _backward(places, steps))
    opened = sorted({place for place in starts if 0 < place < rows})
    for place, tag in found:
        at = bisect_right(opened, place)
        places = series[tag][0]
        if at and np.searchsorted(places, opened[at - 1]) == np.searchsorted(places, place):
            continue  # the first row of this tag since that attempt began
        opened.insert(at, place)
    return opened


def _backward(places: _Ints, steps: _Ints) -> list[int]:
    table = pl.DataFrame({"order": places, "step": steps}).with_columns(
        rank=pl.lit(0), epoch=pl.lit(None, pl.Float64), series=pl.lit("")
    )
    found: list[int] = restarts(table).get(0, np.empty(0, np.int64)).tolist()
    return found


@dataclass(slots=True)
class Follower:
    """Numbers the attempts of the files of one folder, given in the order in which they were begun."""

    last: int = 0
    #: When each tag was last written.
    _ended: dict[int, float] = field(default_factory=dict)
    #: The largest step so far.
    _reached: int | None = None

    def first_attempt(
        self, tags: Iterable[int], began: float, ended: float, steps: tuple[int, int] | None = None
    ) -> int:
        """The attempt with which a file begins: another one where it goes on with a tag of a file that had ended.

        Files with tags of their own (a test after training, hyper-parameters) belong to the attempt that runs; so does
        one whose `steps` (the smallest and the largest) are all the last of the files before: the model was evaluated
        once more after training, for which the Hugging Face Trainer opens another file.
        """
        tags = list(tags)
        shared = [self._ended[tag] for tag in tags if tag in self._ended]
        again = steps is not None and steps == (self._reached, self._reached)
        if shared and began >= max(shared) and not again:
            self.last += 1
        if steps is not None:
            self._reached = max(steps[1], steps[1] if self._reached is None else self._reached)
        self._ended |= {tag: max(ended, self._ended.get(tag, ended)) for tag in tags}
        return self.last

    def overlaps(self, tags: Iterable[int], began: float) -> bool:
        """Whether another file still wrote one of these tags when this one was begun."""
        return any(began < self._ended[tag] for tag in tags if tag in self._ended)
