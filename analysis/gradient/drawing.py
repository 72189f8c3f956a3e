"""Figures of gradients: a heat map of layers over steps, and norms over steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analysis.figures import COLOURS, behind_cells, draw_series, style
from analysis.gradient.levels import decades
from analysis.gradient.tracks import Model, Track, together

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_layers", "draw_norm"]

#: Columns of the heat map: more cannot be told apart in print. Names beside it: more would overlap.
_COLUMNS, _NAMES = 400, 24


def draw_layers(ax: Axes, model: Model, options: dict[str, Any]) -> None:
    """Layers over steps, coloured by the decimal logarithm of their gradient norm; grey where it is 0 or not finite.

    Of several steps in one column the largest norm is shown, so that no leap is lost.
    """
    layers = model.layers("grad_norm")
    steps, values = together(list(layers.values())) if layers else (np.empty(0), np.empty((0, 0)))
    ax.grid(False)
    ax.set_ylabel("layer")
    if len(steps) == 0:
        return
    steps, logs = _columns(steps, np.stack([decades(row) for row in values]))
    shown = np.ma.masked_invalid(logs)
    mesh = ax.pcolormesh(
        _edges(steps), np.arange(len(layers) + 1.0), shown, **{"cmap": "cividis", "rasterized": True, **options}
    )
    behind_cells(ax)
    every = -(-len(layers) // _NAMES)
    names = [model.title(layer)[:40] for layer in layers][::every]
    ax.set_yticks(np.arange(0, len(layers), every) + 0.5, names, parse_math=False)
    ax.invert_yaxis()
    figure = ax.get_figure(root=True)
    assert figure is not None
    bar = figure.colorbar(mesh, ax=ax)
    bar.set_label("log10 of the gradient norm (L2)")


def _columns(steps: NDArray[np.float64], logs: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if len(steps) <= _COLUMNS:
        return steps, logs
    starts = np.linspace(0, len(steps), _COLUMNS, endpoint=False).astype(np.int64)
    return steps[starts], np.maximum.reduceat(logs, starts, axis=1)


def _edges(steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Edges between the columns of a mesh: half-way from step to step."""
    if len(steps) == 1:
        return np.array([steps[0] - 0.5, steps[0] + 0.5])
    between = (steps[:-1] + steps[1:]) / 2
    return np.concatenate([[2 * steps[0] - between[0]], between, [2 * steps[-1] - between[-1]]])


def draw_norm(ax: Axes, model: Model, options: dict[str, Any]) -> None:
    """The gradient norm over steps on a logarithmic axis, and what was left of it after clipping."""
    drawn = [(model.get("grad_norm"), "blue"), (model.get("grad_norm_after_clip"), "orange")]
    shown = [(track, colour) for track, colour in drawn if track is not None]
    with style():
        for track, colour in shown:
            label = track.metric.replace("$", "")[:40].lstrip("_") or "norm"
            draw_series(ax, track.steps, track.values, **{"color": COLOURS[colour], "label": label, **options})
        if len(shown) > 1:
            ax.legend()
    if any(_is_positive(track) for track, _ in shown):
        ax.set_yscale("log", nonpositive="mask")
    ax.set_ylabel("gradient norm (L2)")


def _is_positive(track: Track) -> bool:
    return bool((track.values[np.isfinite(track.values)] > 0).any())
