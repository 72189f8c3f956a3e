"""Compiled counting of the scores in a block of a similarity matrix."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from parsers.tables.compiled import compiled

__all__ = ["count_block", "count_by_speaker"]

_Scores = NDArray[np.float32]
_Places = NDArray[np.uint32]

# Unsigned throughout: a signed index costs a test for a negative one, twice the time of the whole step.
_ONE, _FINE, _SHIFT, _TICK = np.float32(1), np.float32(2**23), np.uint32(10), np.uint32(1)


@compiled
def count_block(  # pragma: no cover - compiled
    scores: _Scores,
    first_row: int,
    first_column: int,
    ends: NDArray[np.int64],
    rows: tuple[int, int],
    place: _Places,
    mask: _Places,
    same: _Places,
    different: _Places,
) -> None:
    """Count each pair (row < column) of the block once: up to `ends[row]` the columns are of the row's speaker."""
    width = scores.shape[1]
    for i in range(rows[0], rows[1]):
        row = first_row + i
        start = min(max(row + 1 - first_column, 0), width)
        end = min(max(ends[row] - first_column, start), width)
        for j in range(start, end):
            q = np.uint32(max(scores[i, j] + _ONE, np.float32(0)) * _FINE)
            cell = q >> _SHIFT
            same[place[cell] + (q & mask[cell])] += _TICK
        for j in range(end, width):
            q = np.uint32(max(scores[i, j] + _ONE, np.float32(0)) * _FINE)
            cell = q >> _SHIFT
            different[place[cell] + (q & mask[cell])] += _TICK


@compiled
def count_by_speaker(  # pragma: no cover - compiled
    scores: _Scores,
    first_row: int,
    speaker: NDArray[np.int64],
    starts: NDArray[np.int64],
    low: np.float32,
    per_unit: np.float32,
    same: NDArray[np.int64],
    different: NDArray[np.int64],
) -> None:
    """Histogram, for the speaker of each row, of its scores to all other rows, of the same and of other speakers."""
    last = np.float32(same.shape[1] - 1)
    for i in range(scores.shape[0]):
        row = first_row + i
        s = speaker[row]
        start, end = starts[s], starts[s + 1]
        for j in range(scores.shape[1]):
            cell = np.uint32(min(max((scores[i, j] - low) * per_unit, np.float32(0)), last))
            if start <= j < end:
                if j != row:
                    same[s, cell] += 1
            else:
                different[s, cell] += 1
