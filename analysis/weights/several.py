"""Statistics and differences of many small saves at once: what one save costs apart from its bytes is paid once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import polars as pl

from analysis.weights.differences import COMPARED, matched, tables_of
from analysis.weights.statistics import LARGE, statistics
from parsers.checkpoints.checkpoint import Checkpoint
from parsers.checkpoints.mapped import MappedFiles
from parsers.checkpoints.tensors import Role, Tensor

__all__ = ["groups", "several_differences", "several_statistics"]

#: Numbers of a group: twice those from which compiled sweeps pay; and its saves, of which the user sees progress.
_NUMBERS, _SAVES = 2 * LARGE, 250


def groups(sizes: Sequence[int]) -> Iterator[range]:
    """Places of saves that are judged together: about as many numbers each, at least 32 million where there are.

    >>> list(groups([5, 5, 5])), list(groups([40_000_000, 40_000_000]))
    ([range(0, 3)], [range(0, 1), range(1, 2)])
    """
    each = max(_NUMBERS, sum(sizes) // max(sum(sizes) // _NUMBERS, 1))
    first, held = 0, 0
    for place, size in enumerate(sizes):
        if place > first and (held + size > each or place - first >= _SAVES):
            yield range(first, place)
            first, held = place, 0
        held += size
    if first < len(sizes):
        yield range(first, len(sizes))


def several_statistics(checkpoints: Sequence[Checkpoint], roles: Sequence[Role]) -> list[pl.DataFrame]:
    """`statistics` of each of some checkpoints, from one pass over all of them."""
    if len(checkpoints) == 1:
        return [statistics(checkpoints[0], roles=roles)]
    with _joined(checkpoints, (tensor for one in checkpoints for tensor in one.tensors)) as joined:
        table = statistics(joined, roles=roles)
    return _cut(table, [sum(tensor.role in roles for tensor in one.tensors) for one in checkpoints])


def several_differences(pairs: Sequence[tuple[Checkpoint, Checkpoint]]) -> list[pl.DataFrame]:
    """`differences` of each of some pairs of checkpoints, from one pass over all of them."""
    if not pairs:
        return []
    befores, afters = zip(*pairs, strict=True)
    with _joined(befores) as one, _joined(afters) as two:
        return tables_of([matched(before, after, COMPARED) for before, after in pairs], one, two)


def _joined(checkpoints: Sequence[Checkpoint], tensors: Iterable[Tensor] = ()) -> Checkpoint:
    """A checkpoint of these tensors of several; it gives the bytes of all of theirs."""
    mapped = MappedFiles(one.mapped for one in checkpoints)
    return Checkpoint(checkpoints[0].path, "several", tuple(tensors), mapped=mapped)


def _cut(table: pl.DataFrame, counts: Sequence[int]) -> list[pl.DataFrame]:
    starts = np.cumsum([0, *counts])[:-1].tolist()
    return [table.slice(start, count) for start, count in zip(starts, counts, strict=True)]
