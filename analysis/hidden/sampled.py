"""Series of which only a random sample is left: TensorBoard's downloads, its accumulator, W&B's sampled history.

TensorBoard keeps at most 1,000 points of a tag for its pages and downloads (`--samples_per_plugin`), its
EventAccumulator 10,000 scalars, both by reservoir sampling (Vitter, ACM TOMS 11, 1985; Algorithm R, the last point
always kept); `run.history()` of W&B gives 500 rows.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.findings import Finding
from analysis.hidden.facts import Drawn, Fact, Floats, catalogue, read_series, whole
from parsers.naming.roles import LOSSES
from parsers.run import Run

__all__ = ["SIZES", "Sample", "reservoir_keeps", "sample_of", "sampled_series"]

KIND = "sampled-series"
#: How many points the tools keep, and which tool does.
SIZES: dict[int, str] = {
    500: "W&B's run.history() returns 500 sampled rows by default",
    1_000: "TensorBoard's pages and downloads hold at most 1,000 points of a tag (--samples_per_plugin)",
    10_000: "TensorBoard's EventAccumulator keeps 10,000 scalars of a tag (size_guidance)",
}
#: Fewest gaps that show how they are spread.
_GAPS = 20
#: Kolmogorov's distance, times the root of the number, that a true sample exceeds once in a thousand.
_KOLMOGOROV = 1.95
#: A gap agrees with one of the next so many by less than this, over the root of their number, if they are draws.
_LAGS, _CORRELATION = 200, 6.0
#: Where nearly all points are left, too few holes are there to show how they came about, unless TensorBoard left them.
_MOST_LEFT = 0.9
#: Longest series whose reservoir is filled again, point by point (a tenth of a second).
_REPLAYED = 100_000
#: Series of one length that are read: they were sampled together, or not at all.
_READ = 12


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample of `total` points (estimated), one every `grid` steps, of which `kept` are left.

    `replayed` says that the very points are kept which TensorBoard's own reservoir keeps of so many.
    """

    kept: int
    total: int
    grid: int
    replayed: bool


def sample_of(steps: NDArray[np.int64]) -> Sample | None:
    """The sample that these steps are, if they lie in a regular grid like points drawn from it at random; else None.

    The gaps must be spread as draws without memory leave them (geometric), the points evenly over the run, and the
    holes without rhythm. Where over nine in ten points are left, only the very ones that TensorBoard keeps are a sign.
    Irregular logs of other making (by time, by episode, at epoch ends) have gaps of other shapes; a regular log has
    none.

    >>> rng = np.random.default_rng(0)
    >>> sample_of(np.sort(rng.choice(10_000, 1000, replace=False)) * 10)
    Sample(kept=1000, total=9969, grid=10, replayed=False)
    >>> sample_of(np.arange(0, 10_000, 10)) is None
    True
    """
    gaps = np.diff(steps)
    if len(gaps) < _GAPS or (gaps <= 0).any():
        return None
    grid = int(np.gcd.reduce(gaps))
    sizes = gaps // grid
    holes = np.flatnonzero(sizes > 1)
    if len(holes) < _GAPS:
        return None
    share = len(sizes) / float(sizes.sum())
    even = (steps[1:] - steps[0]) / float(steps[-1] - steps[0])
    alike = (
        _is_geometric(sizes, share)
        and _distance(even, lambda x: x) <= _KOLMOGOROV / np.sqrt(len(even))
        and _is_geometric(np.diff(holes), len(holes) / len(sizes))
        and _without_memory(sizes)
    )
    filled = _filled(steps, grid) if alike else None
    if not alike or (filled is None and share > _MOST_LEFT):
        return None
    return Sample(len(steps), int(sizes.sum()) + 1 if filled is None else filled, grid, filled is not None)


def _is_geometric(sizes: NDArray[np.int64], share: float) -> bool:
    """Whether whole numbers from 1 on are spread as waiting times for an event of this chance."""
    values, counts = np.unique(sizes, return_counts=True)
    seen = np.cumsum(counts) / len(sizes)
    above = np.abs(seen - (1 - (1 - share) ** values)).max()
    below = np.abs(np.append(0.0, seen[:-1]) - (1 - (1 - share) ** (values - 1))).max()
    return bool(max(above, below) <= _KOLMOGOROV / np.sqrt(len(sizes)))


def _without_memory(sizes: NDArray[np.int64]) -> bool:
    """Whether no gap tells anything of a later one, as several habits of leaving rows out at once would."""
    apart = sizes - sizes.mean()
    lags = range(1, min(len(sizes) // 4, _LAGS))
    most = max(abs(float(apart[lag:] @ apart[:-lag])) for lag in lags)
    return bool(most <= _CORRELATION * float(apart @ apart) / np.sqrt(len(sizes)))


def _distance(sorted_values: Floats, expected: Any) -> float:
    n = len(sorted_values)
    places = np.arange(n + 1) / n
    at = expected(sorted_values)
    return float(max(np.abs(places[1:] - at).max(), np.abs(at - places[:-1]).max()))


def reservoir_keeps(total: int, size: int) -> NDArray[np.int64]:
    """Which of `total` points TensorBoard's reservoir of `size` keeps: it draws from Python's generator at seed 0.

    >>> reservoir_keeps(6, 3).tolist(), reservoir_keeps(3, 5).tolist()
    ([1, 4, 5], [0, 1, 2])
    """
    draw = random.Random(0).randint  # noqa: S311 - the very generator of TensorBoard is wanted
    kept = list(range(min(size, total)))
    for seen in range(size, total):
        place = draw(0, seen)
        if place < size:
            del kept[place]
            kept.append(seen)
        else:
            kept[-1] = seen
    return np.asarray(kept, np.int64)


def _filled(steps: NDArray[np.int64], grid: int) -> int | None:
    """The number of points of which TensorBoard's reservoir keeps these very ones; None where it keeps others.

    Tried for a series from step 0 on, from one record in, and from the first step that is left.
    """
    left = (steps[-1] - steps) // grid
    last = int(steps[-1])
    for total in {last // grid + 1, last // grid, int(left[0]) + 1}:
        if len(steps) < total <= _REPLAYED:
            kept = reservoir_keeps(total, len(steps))
            if np.array_equal(kept[-1] - kept, left):
                return total
    return None


def sampled_series(run: Run, sizes: Sequence[int]) -> list[Fact] | str:
    """One fact for each size that some series have exactly; `sizes` are the lengths that tools sample down to."""
    rows = catalogue(run)
    if not any(int(row["count"]) >= min(sizes) for row in rows):
        return f"no series has {min(sizes):,} points, the fewest that a sampling tool keeps"
    facts = []
    for size in sizes:
        alike = [row for row in rows if int(row["count"]) == size]
        alike.sort(key=lambda row: row["role"] not in LOSSES)  # the reader knows the loss best
        fact = _judge(run, size, alike) if alike else None
        if fact is not None:
            facts.append(fact)
    looked = max(rows, key=lambda row: int(row["count"]))
    none = "no series has exactly as many points as a tool keeps, at steps like a random sample"
    return facts or [Fact(KIND, "clear", looked["split"], looked["metric"], int(looked["count"]), 0, None, none)]


def _judge(run: Run, size: int, rows: list[dict[str, Any]]) -> Fact | None:
    found = []
    for row in rows[:_READ]:
        series = read_series(run, row)
        sample = sample_of(series.step.astype(np.int64)) if series.axis == "step" and len(series.step) == size else None
        if sample is not None:
            found.append((series, sample))
    if not found:
        return None
    series, sample = found[0]
    count = len(rows) if len(found) == min(len(rows), _READ) else len(found)
    lost = 1 - sample.kept / sample.total
    several = (
        f"{count} series hold exactly {size:,} points each"
        if count > 1
        else f"{series.name} holds exactly {size:,} points"
    )
    grid = "every step" if sample.grid == 1 else f"every {sample.grid:,} steps"
    proof = "the very ones that TensorBoard's reservoir keeps" if sample.replayed else "spread like a random sample"
    finding = Finding(
        KIND,
        "info",
        run.name,
        f"{several}, {proof} of {'' if sample.replayed else 'about '}{sample.total:,} (one {grid}): "
        f"{lost:.0%} of what was logged is not here, and a spike between the points would not be seen",
        metric=series.metric,
        first_step=whole(series.step[0]),
        last_step=whole(series.step[-1]),
        evidence={
            "points": size,
            "logged_about": sample.total,
            "share_missing": lost,
            "steps_per_record": sample.grid,
            "largest_gap_steps": int(np.diff(series.step).max()),
            "series": count,
            "reservoir_replayed": sample.replayed,
        },
        causes=(SIZES.get(size, f"a tool that keeps {size:,} points of a series"),),
        suggestions=(
            "judge the original: the event files themselves, or W&B's scan_history() or its run folder",
            "download again with a larger sample (--samples_per_plugin=scalars=0 keeps everything)",
        ),
    )
    marked = np.zeros(size, bool)
    gaps = np.concatenate([[0.0], np.diff(series.step)])
    marked[np.argsort(gaps)[-10:]] = True
    drawn = Drawn(series.x, gaps, marked, series.axis, f"steps since the point before, {series.name}", "widest gaps")
    return Fact(
        KIND, "found", series.split, series.metric, size, sample.total, float(sample.grid), finding.message,
        finding, drawn,
    )  # fmt: skip
