"""Figures of checkpoints: which layers moved between saves, norms by depth, the tails of the spectra."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from analysis.figures import COLOURS, behind_cells, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["by_layer", "draw_norms", "draw_spectra", "draw_updates"]

#: Rows of the heat map, and names beside it: more would overlap. Saves drawn as lines: more cannot be told apart.
_ROWS, _NAMES, _LINES = 400, 24, 6
#: The layer of a parameter: its name without the last part.
_LAYER = pl.col("parameter").str.replace(r"\.[^.]*$", "")
#: Between these exponents lie the tails of layers that are trained well, and beyond the second hardly any structure
#: is found (https://weightwatcher.ai, after Martin and Mahoney 2021).
_WELL = (2.0, 6.0)


def by_layer(changes: pl.DataFrame) -> pl.DataFrame:
    """Changes of the model's tensors summed up by layer (the parameter without its last part).

    One row a layer and pair of saves: layer, save, step, update_ratio (the norm of all updates of the layer over that
    of its weights before), moved (share of its tensors that changed at all).
    """
    return (
        changes.filter((pl.col("role") == "weights") & pl.col("status").is_in(["same", "changed"]))
        .with_columns(layer=_LAYER)
        .group_by("layer", "save", "step", maintain_order=True)
        .agg(
            update_ratio=(pl.col("update_norm") ** 2).sum().sqrt() / (pl.col("norm_a") ** 2).sum().sqrt(),
            moved=(pl.col("status") == "changed").mean(),
        )
    )


def draw_updates(ax: Axes, changes: pl.DataFrame, frame: pl.DataFrame, options: dict[str, Any]) -> str:
    """Layers over saves, coloured by the decimal logarithm of ||dW|| / ||W||; grey where nothing moved.

    A column stands for the time since the save before it. Layers stand in the order of the model (that of `frame`); of
    more than 400 every n-th is shown. Returns what there is to see in words.
    """
    table = by_layer(changes)
    place = {name: at for at, name in enumerate(frame.select(_LAYER).to_series().unique(maintain_order=True))}
    names = sorted(table["layer"].unique(maintain_order=True).to_list(), key=lambda name: place.get(name, len(place)))
    saves = table.select("save", "step").unique(maintain_order=True)
    names = names[:: -(-len(names) // _ROWS)] if names else names
    ax.grid(False)
    ax.set_ylabel("layer")
    ax.set_xlabel("save (its step)")
    if not names:
        return "no two saves of one model"
    row, column = {n: i for i, n in enumerate(names)}, {s: i for i, s in enumerate(saves["save"].to_list())}
    ratios = np.full((len(names), len(column)), np.nan)
    for layer, save, ratio in table.select("layer", "save", "update_ratio").iter_rows():
        if layer in row and ratio:
            ratios[row[layer], column[save]] = np.log10(ratio)
    mesh = ax.pcolormesh(
        np.arange(len(column) + 1.0),
        np.arange(len(names) + 1.0),
        np.ma.masked_invalid(ratios),
        **{"cmap": "cividis", "rasterized": True, **options},
    )
    behind_cells(ax)
    every = -(-len(names) // _NAMES)
    ax.set_yticks(np.arange(0, len(names), every) + 0.5, [name[-40:] for name in names[::every]], parse_math=False)
    ax.invert_yaxis()
    some = -(-len(column) // 10)
    marks = [save if step is None else f"{step:,}" for save, step in saves.iter_rows()]
    ax.set_xticks(np.arange(0, len(column), some) + 0.5, [mark[-16:] for mark in marks[::some]], parse_math=False)
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.colorbar(mesh, ax=ax).set_label("log10 of ||dW|| / ||W||; grey: none")
    still = [name for name, ratios_of in zip(names, ratios, strict=True) if np.isnan(ratios_of).all()]
    if still:
        return f"{len(still)} of {len(names)} layers never moved: {', '.join(still[:3])}"
    return f"every one of {len(names)} layers moved, by {10 ** np.nanmin(ratios):.2g} to {10 ** np.nanmax(ratios):.2g}"


def draw_norms(ax: Axes, frame: pl.DataFrame, options: dict[str, Any]) -> str:
    """Root mean square of each weight matrix by its place in the model, a line a save, early ones light.

    Returns what there is to see in words.
    """
    shown = frame.filter((pl.col("role") == "weights") & (pl.col("shape").list.len() >= 2) & (pl.col("elements") > 0))
    shown = shown.with_columns(size=pl.col("norm") / pl.col("elements").cast(pl.Float64).sqrt())
    saves = shown["save"].unique(maintain_order=True).to_list()
    chosen = saves if len(saves) <= _LINES else [saves[i] for i in np.linspace(0, len(saves) - 1, _LINES).astype(int)]
    names = shown["parameter"].unique(maintain_order=True).to_list()
    place = {name: i for i, name in enumerate(names)}
    with style():
        for number, save in enumerate(chosen):
            rows = shown.filter(pl.col("save") == save)
            named = number in (0, len(chosen) - 1)
            label = f"step {rows['step'][0]:,}" if rows["step"][0] is not None else str(save)[-24:]
            look: dict[str, Any] = {"color": COLOURS["blue"], "alpha": (number + 1) / len(chosen), "marker": "."}
            look |= {"label": label.replace("$", "") if named else "_", **options}
            ax.plot(rows["size"].to_numpy(), [place[name] for name in rows["parameter"]], **look)
        if len(chosen) > 1:
            ax.legend()
    values = shown["size"].drop_nulls().drop_nans()
    if len(values) and (values > 0).all():
        ax.set_xscale("log")
    _names_beside(ax, names)
    ax.set_xlabel("root mean square of the weights")
    last = shown.filter(pl.col("save") == saves[-1]).drop_nulls("size").sort("size") if saves else shown
    if last.is_empty():
        return "no weight matrices"
    sizes = last.select("size", "parameter").rows()
    ends = [f"{size:.3g} ({name})" for size, name in (sizes[0], sizes[-1])]
    return f"matrices of the last save from {ends[0]}" + (f" to {ends[1]}" if len(last) > 1 else "")


def _names_beside(ax: Axes, names: list[str]) -> None:
    """Names of matrices on the vertical axis, the first on top; of many every n-th."""
    every = -(-len(names) // _NAMES) if names else 1
    ax.set_yticks(range(0, len(names), every), [name[-40:] for name in names[::every]], parse_math=False)
    ax.invert_yaxis()
    ax.set_ylabel("matrix, in the order of the model")


def draw_spectra(ax: Axes, spectra: pl.DataFrame, options: dict[str, Any]) -> str:
    """The exponent alpha of the tail of each matrix's spectrum by its place in the model; 2 to 6 is shaded.

    Returns what there is to see in words.
    """
    known = spectra.filter(pl.col("alpha").is_not_null())
    last = known.filter(pl.col("save") == known["save"][-1]) if known.height else known
    names = last["parameter"].to_list()
    with style():
        ax.axvspan(*_WELL, color=COLOURS["green"], alpha=0.12, lw=0, label="2 to 6: well trained, says WeightWatcher")
        look = {"color": COLOURS["blue"], "marker": "o", "linestyle": "", **options}
        ax.plot(last["alpha"].to_numpy(), range(len(names)), **look)
        ax.legend()
    _names_beside(ax, names)
    ax.set_xlabel("alpha, the exponent of the tail of the spectrum")
    if last.is_empty():
        return "no spectrum has a tail that could be judged"
    outside = last.filter(~pl.col("alpha").is_between(*_WELL)).height
    alphas = last["alpha"].to_numpy()
    return f"alpha from {alphas.min():.2f} to {alphas.max():.2f}; {outside} of {last.height} not in 2 to 6"
