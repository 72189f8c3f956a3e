"""The path of a run through weight space: its saves as points of a plane, how far each lies, and which way it went."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.figures import COLOURS, axes, style
from analysis.result import Result
from analysis.weights.common import Common, common_parameters, parts
from parsers.checkpoints.checkpoint import Checkpoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["SCHEMA", "PathResult", "weight_path"]

Progress = Callable[[int, int, str], None]
Floats = NDArray[np.float64]

SCHEMA: dict[str, type[pl.DataType]] = {
    "save": pl.String,
    "step": pl.Int64,
    "norm": pl.Float64,
    "pc1": pl.Float64,
    "pc2": pl.Float64,
    "pc1_share": pl.Float64,
    "pc2_share": pl.Float64,
    "from_first": pl.Float64,
    "update": pl.Float64,
    "length": pl.Float64,
    "cosine": pl.Float64,
}


@dataclass(frozen=True, eq=False, repr=False)
class PathResult(Result):
    """Where the saves of a run lie in weight space; one row a save, in the order given.

    Columns of `frame`: `save`, `step`; `norm` of the weights; `pc1` and `pc2`, the coordinates along the two directions
    in which the saves differ most, in units of the weights, and the share of all variance that each direction holds
    (the same in every row); `from_first`, the distance from the first save; `update`, the distance from the save
    before; `length`, the sum of updates so far; `cosine` between this update and the one before (near 1: the run goes
    on in its direction; near 0: each update is new; below 0: it goes back and forth). Null where there is no such save
    before, and throughout for a save whose weights are NaN or infinite.

    `parameters` and `elements` say how much was compared, `left_out` names what was not, with the reason.
    """

    parameters: int = 0
    elements: int = 0
    left_out: tuple[tuple[str, str], ...] = field(default=())

    def plot(self, ax: Axes | None = None, **options: Any) -> Axes:
        """The path in the plane of the first two principal components, from the first save to the last.

        `labels=False` leaves the steps of the first and the last save out.
        """
        labels = options.pop("labels", True)
        if options:
            raise TypeError(f"plot takes labels, not {', '.join(options)}")
        ax = axes(ax, width=6.5, height=4.5)
        with style():
            self._draw(ax, self.frame.drop_nulls("pc1"), labels)
        return ax

    def _draw(self, ax: Axes, shown: pl.DataFrame, labels: bool) -> None:
        ax.set_xlabel(f"first principal component (weights){_share(shown, 'pc1_share')}")
        ax.set_ylabel(f"second component (weights){_share(shown, 'pc2_share')}")
        if not shown.height:
            ax.set_title("no save whose weights can be placed")
            return
        ax.plot(shown["pc1"], shown["pc2"], marker="o", markersize=4, color=COLOURS["blue"])
        ax.plot(shown["pc1"][-1:], shown["pc2"][-1:], marker="o", markersize=8, color=COLOURS["vermilion"])
        first, last = shown.row(0, named=True), shown.row(-1, named=True)
        for row, side, shift in ((first, "left", 6), (last, "right", -8)) if labels else ():
            name = row["save"][-32:] if row["step"] is None else f"step {row['step']:,}"
            at = (row["pc1"], row["pc2"])
            ax.annotate(name, at, xytext=(shift, 6), textcoords="offset points", ha=side, fontsize=8, parse_math=False)
        ax.margins(0.08, 0.12)
        straight = f" ({last['from_first'] / last['length']:.0%})" if last["length"] else ""
        ax.set_title(
            f"{shown.height} saves: a path of {last['length']:.4g}, {last['from_first']:.4g} from its start{straight}"
        )


def weight_path(
    checkpoints: Sequence[Checkpoint],
    *,
    names: Sequence[str] | None = None,
    steps: Sequence[int | None] | None = None,
    run: str = "",
    progress: Progress | None = None,
) -> PathResult:
    """Where each of `checkpoints` lies in weight space, in their order: see `PathResult` for the columns.

    The coordinates are those of a principal component analysis of the saves as points, one dimension a weight: exact,
    from the matrix of all scalar products of the saves' differences from the first one (T x T for T saves), which is
    summed up over blocks of one tensor after another, so that no save is ever held in memory; the distances and angles
    are summed up from the differences of neighbours themselves. A tensor that is packed or lies in pieces is read whole
    from every save at once. Signs are chosen so that the last save stands to the right
    and above.

    Compared are the parameters of the model that all saves have with one shape; means and variances of normalisation,
    counts, other roles and what is no real number are left out, and `PathResult.left_out` says what and why. `names`
    and `steps` stand for what the checkpoints say of themselves (the name of the file, `Checkpoint.step`), where they
    are known better. `progress` is called as `progress(done, total, parameter)`.

    A smooth curve alone is no sign of anything: the principal components of a random walk are cosines, and the first
    holds 61 % of its variance (Antognini and Sohl-Dickstein 2018, arXiv:1806.08805). `cosine` and the distances do not
    depend on the projection. Of a single save, or saves all equal, the coordinates are 0 and the shares null. Raises
    ValueError for lists of other lengths, and `InputError` where a file changed since it was opened.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from parsers.checkpoints.tensors import Storage, Tensor
    >>> def save(i):
    ...     place = Path(tempfile.mkdtemp()) / f"step{i}.raw"
    ...     _ = place.write_bytes(np.array([3.0 * i, 4.0 * i, 1.0]).tobytes())
    ...     tensor = Tensor("w", "float64", (3,), Storage(place, 0, 24), parameter="w")
    ...     return Checkpoint(place, "raw", (tensor,), step=i)
    >>> weight_path([save(i) for i in range(4)]).frame.select("save", "from_first", "length", "cosine").rows()[2]
    ('step2.raw', 10.0, 10.0, 1.0)
    """
    for what, given in (("names", names), ("steps", steps)):
        if given is not None and len(given) != len(checkpoints):
            raise ValueError(f"{what} has {len(given)} entries for {len(checkpoints)} checkpoints")
    common, left_out = common_parameters(checkpoints)
    usable, sums = _of_finite(checkpoints, common, progress)
    rows = pl.DataFrame(
        {
            "save": list(names) if names is not None else [one.path.name for one in checkpoints],
            "step": list(steps) if steps is not None else [one.step for one in checkpoints],
        },
        schema={"save": pl.String, "step": pl.Int64},
    )
    measured = _measured(sums)
    columns = {name: _spread(values, usable, len(checkpoints)) for name, values in measured.items()}
    frame = rows.with_columns(pl.Series(name, values, pl.Float64) for name, values in columns.items())
    return PathResult(
        run,
        frame.select(*SCHEMA),
        parameters=len(common),
        elements=sum(one.elements for one in common),
        left_out=left_out,
    )


@dataclass(frozen=True, slots=True)
class _Sums:
    """Sums over all weights: scalar products of the differences from the first save; the squared norm of each save.

    `updates` are the squared norms of the differences of neighbours, `turns` the products of one with the next: taken
    from the differences themselves, since those of a run that comes to rest are lost in the products of large ones.
    """

    products: Floats
    squares: Floats
    updates: Floats
    turns: Floats


def _of_finite(
    checkpoints: Sequence[Checkpoint], common: Sequence[Common], progress: Progress | None
) -> tuple[NDArray[np.int64], _Sums]:
    """Which saves are finite, and the sums over these alone."""
    if not common:
        return np.array([], np.int64), _sums((), (), progress)
    sums = _sums(checkpoints, common, progress)
    usable = np.flatnonzero(np.isfinite(sums.squares))
    if usable.size < len(checkpoints):  # once more: differences from a save of NaN say nothing
        chosen = [Common(one.parameter, tuple(one.tensors[i] for i in usable.tolist())) for one in common]
        sums = _sums([checkpoints[i] for i in usable.tolist()], chosen, progress)
    return usable, sums


def _sums(checkpoints: Sequence[Checkpoint], common: Sequence[Common], progress: Progress | None) -> _Sums:
    count = len(checkpoints)
    products, squares = np.zeros((count, count)), np.zeros(count)
    updates, turns = np.zeros(max(count - 1, 0)), np.zeros(max(count - 2, 0))
    for done, one in enumerate(common if count else (), start=1):
        for block in parts(checkpoints, one):
            with np.errstate(invalid="ignore", over="ignore"):  # a save that is not finite is told by its norm
                squares += np.einsum("ij,ij->i", block, block)
                moved = np.diff(block, axis=0)
                updates += np.einsum("ij,ij->i", moved, moved)
                turns += np.einsum("ij,ij->i", moved[1:], moved[:-1])
                block -= block[0].copy()
                products += block @ block.T
        if progress is not None:
            progress(done, len(common), one.parameter)
    return _Sums(products, squares, updates, turns)


def _measured(sums: _Sums) -> dict[str, list[float | None]]:
    """The columns of the saves whose weights are finite."""
    count = len(sums.squares)
    updates = np.sqrt(sums.updates)
    points, shares = _principal(sums.products)
    return {
        "norm": np.sqrt(sums.squares).tolist(),
        "pc1": points[:, 0].tolist(),
        "pc2": points[:, 1].tolist(),
        "pc1_share": [shares[0]] * count,
        "pc2_share": [shares[1]] * count,
        "from_first": np.sqrt(sums.products.diagonal()).tolist(),
        "update": [None, *updates.tolist()][:count],
        "length": [0.0, *np.cumsum(updates).tolist()][:count],
        "cosine": [None, None, *map(_cosine, sums.turns, updates[1:], updates[:-1])][:count],
    }


def _principal(products: Floats) -> tuple[Floats, tuple[float | None, float | None]]:
    """Coordinates on the first two principal components, and their shares of the variance."""
    count = len(products)
    points = np.zeros((count, 2))
    if not count:
        return points, (None, None)
    centred = products - products.mean(axis=0) - products.mean(axis=1)[:, None] + products.mean()
    values, vectors = np.linalg.eigh(centred)
    values = np.maximum(values[::-1], 0)
    total = values.sum()
    # all saves equal, but for the rounding of the sums
    if total <= 1e-14 * abs(products).max() or not total:
        return points, (None, None)
    held = min(2, count)
    points[:, :held] = vectors[:, ::-1][:, :held] * np.sqrt(values[:held])
    points *= np.where(points[-1] < 0, -1, 1)
    shares = [float(value / total) for value in values[:2]] + [0.0]
    return points, (shares[0], shares[1])


def _cosine(product: float, one: float, other: float) -> float | None:
    """Of the angle between two updates, from their scalar product and their norms; None where one of them is 0."""
    return float(np.clip(product / one / other, -1, 1)) if one > 0 and other > 0 else None


def _spread(values: list[float | None], places: NDArray[np.int64], count: int) -> list[float | None]:
    spread: list[float | None] = [None] * count
    for place, value in zip(places.tolist(), values, strict=True):
        spread[place] = value
    return spread


def _share(shown: pl.DataFrame, column: str) -> str:
    share = shown[column][0] if shown.height else None
    return "" if share is None else f", {share:.0%} of the variance"
