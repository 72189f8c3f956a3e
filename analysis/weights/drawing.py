"""Which layers moved between saves, drawn as a heat map of layers over time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.figures import behind_cells
from analysis.weights.names_beside import names_beside, saves_below, short
from analysis.weights.saved import is_buffer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["by_layer", "draw_updates"]

#: Rows of the heat map: of more, every n-th is shown.
_ROWS = 400
#: Numbers beside the colours.
_TICKS = 8
#: The layer of a parameter: its name without the last part.
_LAYER = pl.col("parameter").str.replace(r"\.[^.]*$", "")


def by_layer(changes: pl.DataFrame) -> pl.DataFrame:
    """Changes of the model's parameters summed up by layer (the parameter without its last part).

    Running statistics and counts are left out: beside them what a normalisation learns could not be seen.

    One row a layer and pair of saves: layer, save, step, update_ratio (the norm of all updates of the layer over that
    of its weights before), moved (share of its tensors that changed at all).
    """
    buffers = pl.Series([name for name in changes["parameter"].unique() if is_buffer(name)], dtype=pl.String).implode()
    rows = changes.filter(~pl.col("parameter").is_in(buffers) & (pl.col("role") == "weights"))
    return (
        rows.filter(pl.col("status").is_in(["same", "changed"]))
        .with_columns(layer=_LAYER)
        .group_by("layer", "save", "step", maintain_order=True)
        .agg(
            update_ratio=(pl.col("update_norm") ** 2).sum().sqrt() / (pl.col("norm_a") ** 2).sum().sqrt(),
            moved=(pl.col("status") == "changed").mean(),
        )
    )


def draw_updates(ax: Axes, changes: pl.DataFrame, frame: pl.DataFrame, options: dict[str, Any]) -> str:
    """Layers over saves, coloured by ||dW|| / ||W|| on a logarithmic scale; grey where nothing moved.

    A column stands for the time since the save before it. Layers stand in the order of the model (that of `frame`); of
    more than 400 every n-th is shown. Returns what there is to see in words.
    """
    table = by_layer(changes)
    place = {name: at for at, name in enumerate(frame.select(_LAYER).to_series().unique(maintain_order=True))}
    layers = sorted(table["layer"].unique(maintain_order=True).to_list(), key=lambda name: place.get(name, len(place)))
    saves = table.select("save", "step").unique(maintain_order=True)
    every = max(-(-len(layers) // _ROWS), 1)
    names = layers[::every]
    ax.grid(False)
    ax.set_ylabel("layer" if every == 1 else f"layer (one of {every} shown)")
    ax.set_xlabel("save (its step)")
    if not names:
        return "no two saves of one model"
    ratios = _cells(table, names, saves["save"].to_list())
    _mesh(ax, ratios, options)
    names_beside(ax, names, middle=0.5)
    marks = [save if step is None else f"{step:,}" for save, step in saves.iter_rows()]
    saves_below(ax, marks, names, middle=0.5)
    return _said(table, layers)


def _cells(table: pl.DataFrame, names: list[str], saves: list[str]) -> NDArray[np.float64]:
    """Update ratios, layer x save; NaN where a layer did not move or has none that is a number."""
    row, column = {name: i for i, name in enumerate(names)}, {save: i for i, save in enumerate(saves)}
    ratios = np.full((len(row), len(column)), np.nan)
    for layer, save, ratio in table.select("layer", "save", "update_ratio").iter_rows():
        if layer in row and ratio:
            ratios[row[layer], column[save]] = ratio
    return ratios


def _mesh(ax: Axes, ratios: NDArray[np.float64], options: dict[str, Any]) -> None:
    from matplotlib.colors import LogNorm

    shown = np.ma.masked_invalid(ratios)
    low, high = (float(shown.min()), float(shown.max())) if shown.count() else (0.1, 1.0)
    if high <= 1.01 * low:  # a scale needs two ends: a few saves may all differ by the same ratio
        high = 10 * low
    look: dict[str, Any] = {"cmap": "cividis", "rasterized": True}
    given = {"norm", "vmin", "vmax"} & options.keys()
    if not given:
        look["norm"] = LogNorm(low, high)
    edges = [np.arange(count + 1.0) for count in reversed(ratios.shape)]
    mesh = ax.pcolormesh(*edges, shown, **{**look, **options})
    behind_cells(ax)
    figure = ax.get_figure(root=True)
    assert figure is not None  # axes that draw stand in a figure
    bar = figure.colorbar(mesh, ax=ax)
    bar.set_label("||dW|| / ||W||; grey: none")
    if not given:
        ticks = _ticks(low, high)
        bar.minorticks_off()
        bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])


def _ticks(low: float, high: float) -> list[float]:
    """Plain numbers between two ends on a logarithmic scale, eight at most; the ends where there are fewer than two.

    >>> _ticks(0.004, 0.065), _ticks(0.0065, 0.0125), _ticks(1.3, 1.9), len(_ticks(1e-30, 1))
    ([0.005, 0.01, 0.02, 0.05], [0.0065, 0.0125], [1.3, 1.9], 8)
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1,)):
        found = [tick for decade in decades for step in steps if low <= (tick := float(f"{step}e{decade}")) <= high]
        if len(found) <= _TICKS:
            return found if len(found) > 1 else [low, high]
    return found[:: -(-len(found) // _TICKS)]


def _said(table: pl.DataFrame, layers: list[str]) -> str:
    """What the map shows in words: layers that never moved, or how far they all did."""
    moved = table.filter(pl.col("update_ratio").is_finite() & (pl.col("update_ratio") > 0))
    still = [name for name in layers if name not in set(moved["layer"])]
    if still:
        return f"{len(still)} of {len(layers)} layers never moved: {', '.join(map(short, still[:3]))}"
    ratios = moved["update_ratio"].to_numpy()
    which = "the only layer" if len(layers) == 1 else f"every one of {len(layers)} layers"
    return f"{which} moved, by {ratios.min():.2g} to {ratios.max():.2g} of its norm from save to save"
