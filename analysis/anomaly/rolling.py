"""Exact rolling statistics of long and short series: mean, standard deviation, quartiles, median and MAD."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

__all__ = ["Edge", "load_kernels", "rolling_moments", "rolling_order", "sorted_quantile"]

Floats = NDArray[np.float64]
#: Where the window of a row lies: `centred` around it, `causal` behind it (the row included), `symmetric` around it
#: with both arms shortened alike near the ends, so that the window's middle is always the row itself.
Edge = Literal["centred", "causal", "symmetric"]
_EDGES: tuple[Edge, ...] = ("centred", "causal", "symmetric")
_NAMES = ("q25", "median", "q75", "mad")

#: Rows from which compiled kernels pay for loading numba (about 0.6 s); below, NumPy alone does the work.
LARGE = 200_000
#: Rows from which they pay once they are loaded.
LARGE_WHEN_LOADED = 1_000
#: Rows that one thread takes at a time: long enough to hide the start of a window, short enough to share the work.
_CHUNK = 250_000
#: Numbers that the NumPy path holds at once (8 MiB).
_BLOCK = 1 << 20


def rolling_moments(
    values: ArrayLike, window: int, *, edge: Edge = "centred", offsets: Sequence[int] | None = None, least: int = 2
) -> tuple[Floats, Floats]:
    """Rolling mean and sample standard deviation (divisor n - 1), one of each per row of `values`.

    `window` counts rows. Near the ends windows are shorter (see `Edge`); values that are not finite are no part of any
    window; rows whose window holds fewer than `least` values get NaN, and so does the deviation of a single value.
    `offsets` are the boundaries of series that stand one after another in `values` (0, n1, n1 + n2, ..., n): no window
    reaches over one. A deviation whose square exceeds the largest float is infinite. Raises ValueError for a window
    below 2, an unknown edge, or offsets that do not cover `values`.

    >>> mean, std = rolling_moments([1.0, 2.0, 3.0, 10.0], 3)
    >>> mean.tolist(), std.round(3).tolist()
    ([1.5, 2.0, 5.0, 6.5], [0.707, 1.0, 4.359, 4.95])
    """
    data = np.ascontiguousarray(values, dtype=np.float64)
    spans = _spans(data, offsets, window, edge)
    out = np.empty((2, len(data)))
    if _pays_to_compile(len(data)):
        from analysis.anomaly.rolling_kernels import moments

        _run_chunks(moments, data, spans, (window, _EDGES.index(edge), least), out)
    else:
        for start, stop in spans:
            _moments_by_windows(data[start:stop], window, edge, least, out[:, start:stop])
    return out[0], out[1]


def rolling_order(
    values: ArrayLike,
    window: int,
    *,
    edge: Edge = "centred",
    offsets: Sequence[int] | None = None,
    least: int = 1,
    statistics: Sequence[str] = _NAMES,
) -> dict[str, Floats]:
    """Rolling `q25`, `median`, `q75` and `mad` (median absolute deviation from the window's median), exact.

    Quantiles between two values are interpolated linearly, as NumPy does by default; `mad` is not scaled (for a normal
    distribution multiply it by 1.4826). `statistics` names the ones to compute. Windows, edges, offsets, values that
    are not finite, `least` and errors are as in `rolling_moments`. The window is kept sorted while it moves, so a row
    costs a binary search and a short move of memory.

    >>> found = rolling_order([1.0, 2.0, 3.0, 10.0, 5.0], 3, statistics=("median", "mad"))
    >>> found["median"].tolist(), found["mad"].tolist()
    ([1.5, 2.0, 3.0, 5.0, 7.5], [0.5, 1.0, 1.0, 2.0, 2.5])
    """
    unknown = sorted(set(statistics) - set(_NAMES))
    if unknown:
        raise ValueError(f"unknown statistic {unknown[0]!r}; known: {', '.join(_NAMES)}")
    data = np.ascontiguousarray(values, dtype=np.float64)
    spans = _spans(data, offsets, window, edge)
    out = np.empty((4, len(data)))  # rows that nobody asked for are never touched, so they take no memory
    wanted = sum(1 << _NAMES.index(name) for name in set(statistics))
    least = max(1, least)
    if _pays_to_compile(len(data)):
        from analysis.anomaly.rolling_kernels import order_statistics

        _run_chunks(order_statistics, data, spans, (window, _EDGES.index(edge), least, wanted), out)
    else:
        for start, stop in spans:
            _order_by_sorting(data[start:stop], window, edge, least, wanted, out[:, start:stop])
    return {name: out[_NAMES.index(name)] for name in statistics}


def load_kernels(rows: int) -> None:
    """Load the compiled kernels when `rows` numbers are going to be rolled over in all, in however many series."""
    if rows >= LARGE:
        import analysis.anomaly.rolling_kernels  # noqa: F401 - from now on short series use them too


def _pays_to_compile(rows: int) -> bool:
    return rows >= LARGE or (rows >= LARGE_WHEN_LOADED and "analysis.anomaly.rolling_kernels" in sys.modules)


def _spans(data: Floats, offsets: Sequence[int] | None, window: int, edge: str) -> list[tuple[int, int]]:
    if data.ndim != 1:
        raise ValueError(f"values must be one-dimensional, not of shape {data.shape}")
    if window < 2:
        raise ValueError(f"window must be at least 2 rows, not {window}")
    if edge not in _EDGES:
        raise ValueError(f"edge must be one of {', '.join(_EDGES)}, not {edge!r}")
    marks = [0, len(data)] if offsets is None else [int(o) for o in offsets]
    if not marks or marks[0] != 0 or marks[-1] != len(data) or any(a > b for a, b in itertools.pairwise(marks)):
        raise ValueError(f"offsets must rise from 0 to the number of values ({len(data)}), not {marks[:5]}")
    return [(a, b) for a, b in itertools.pairwise(marks) if b > a]


def _run_chunks(
    kernel: Callable[..., None], data: Floats, spans: list[tuple[int, int]], options: tuple[int, ...], out: Floats
) -> None:
    """Run a kernel over all series in chunks; kernels release the interpreter lock, so threads use all cores."""
    tasks: list[tuple[Any, ...]] = [
        (data[start:stop], first, min(first + _CHUNK, stop - start), *options, out[:, start:stop])
        for start, stop in spans
        for first in range(0, stop - start, _CHUNK)
    ]
    with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, max(1, len(tasks)))) as pool:
        for done in [pool.submit(kernel, *task) for task in tasks]:
            done.result()


def _windows(data: Floats, window: int, edge: str) -> Iterator[tuple[slice, Floats]]:
    """Blocks of rows with their windows side by side; NaN stands for what is no part of a window."""
    n = len(data)
    right = 0 if edge == "causal" else window // 2
    left = window - 1 - right
    if edge == "symmetric":
        left = right
    padded = np.full(n + left + right, np.nan)
    padded[left : left + n] = np.where(np.isfinite(data), data, np.nan)
    view = sliding_window_view(padded, left + right + 1)
    rows = max(1, _BLOCK // (left + right + 1))
    for start in range(0, n, rows):
        stop = min(start + rows, n)
        block = view[start:stop].copy()
        if edge == "symmetric" and (start < right or stop > n - right):
            at = np.arange(start, stop)
            arm = np.minimum(np.minimum(at, n - 1 - at), right)
            block[np.abs(np.arange(-left, right + 1))[None, :] > arm[:, None]] = np.nan
        yield slice(start, stop), block


def _moments_by_windows(data: Floats, window: int, edge: str, least: int, out: Floats) -> None:
    for rows, block in _windows(data, window, edge):
        here = ~np.isnan(block)
        count = here.sum(axis=1)
        block[~here] = 0.0
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            mean = block.sum(axis=1) / count
            block -= mean[:, None]
            block[~here] = 0.0
            deviation = np.sqrt(np.einsum("ij,ij->i", block, block) / (count - 1))
        few = count < max(least, 1)
        out[0, rows] = np.where(few, np.nan, mean)
        out[1, rows] = np.where(few | (count < 2), np.nan, deviation)


def _order_by_sorting(data: Floats, window: int, edge: str, least: int, wanted: int, out: Floats) -> None:
    for rows, block in _windows(data, window, edge):
        block.sort(axis=1)
        count = block.shape[1] - np.isnan(block).sum(axis=1)
        few = count < least
        for row, share in enumerate((0.25, 0.5, 0.75)):
            if wanted & (1 << row):
                out[row, rows] = np.where(few, np.nan, sorted_quantile(block, count, share))
        if wanted & 8:
            with np.errstate(over="ignore", invalid="ignore"):
                np.abs(block - sorted_quantile(block, count, 0.5)[:, None], out=block)
            block.sort(axis=1)
            out[3, rows] = np.where(few, np.nan, sorted_quantile(block, count, 0.5))


def sorted_quantile(ordered: Floats, count: NDArray[np.int64], share: float) -> Floats:
    """Quantile of the first `count` values of each sorted row; NaN where there is none."""
    place = share * (np.maximum(count, 1) - 1)
    low = place.astype(np.int64)
    part = place - low
    rows = np.arange(len(ordered))
    below, above = ordered[rows, low], ordered[rows, np.minimum(low + 1, ordered.shape[1] - 1)]
    found: Floats = np.where(part == 0.0, below, below * (1.0 - part) + np.where(part == 0.0, 0.0, above) * part)
    return found
