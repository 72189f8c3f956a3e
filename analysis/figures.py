"""The look of every figure, and the drawing of long series: compute first, draw last, leave global style alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["COLOURS", "axes", "behind_cells", "draw_series", "keep_extremes", "style"]

#: Okabe and Ito's palette (https://jfly.uni-koeln.de/color/), told apart by all common kinds of colour blindness;
#: black is left out, since it is the ink, and yellow, since it vanishes on white.
COLOURS = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "vermilion": "#D55E00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
}
_STYLE: dict[str, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.labelsize": 9,
    "figure.constrained_layout.use": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "svg.fonttype": "none",
    "svg.hashsalt": "aftertrain",
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}


@contextmanager
def style() -> Iterator[None]:
    """The house style while the block runs; matplotlib's settings are as before afterwards."""
    import matplotlib as mpl
    from cycler import cycler

    with mpl.rc_context({**_STYLE, "axes.prop_cycle": cycler(color=list(COLOURS.values()))}):
        yield


def axes(ax: Axes | None = None, *, width: float = 8.0, height: float = 3.2) -> Axes:
    """`ax` as given, or the Axes of a new figure in the house style (inches); the figure belongs to no GUI.

    Both show themselves in a notebook (`analysis.shown_figure`).

    >>> axes(width=4, height=2).figure.get_size_inches().tolist()
    [4.0, 2.0]
    """
    if ax is not None:
        return ax
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from analysis.shown_figure import ShownAxes, ShownFigure

    with style():
        figure = ShownFigure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        made: Axes = figure.add_subplot(axes_class=ShownAxes)
    return made


def behind_cells(ax: Axes) -> None:
    """Grey behind a heat map as far as the axes reach, where it has no colour; axes alone are transparent in a page."""
    from matplotlib.patches import Rectangle

    ground = Rectangle((0, 0), 1, 1, transform=ax.transAxes, facecolor="0.85", edgecolor="none", zorder=-1)
    ax.add_patch(ground)


def keep_extremes(
    x: NDArray[np.float64], y: NDArray[np.float64], *, points: int = 2000
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A long series thinned to about `points` rows that looks the same: first, last, least and greatest of each bin.

    A lone spike is the greatest of its bin, so it survives (M4 aggregation, Jugel et al., VLDB 2014). NaN and
    infinities are left where they are the only values; series of up to `points` rows come back as they are.

    >>> x = np.arange(1e6); y = np.zeros_like(x); y[123456] = 9.0
    >>> thin_x, thin_y = keep_extremes(x, y)
    >>> len(thin_x) <= 2000, thin_x[thin_y.argmax()]
    (True, np.float64(123456.0))
    """
    n = len(y)
    if n <= points:
        return x, y
    bins = max(points // 4, 1)
    edges = np.linspace(0, n, bins + 1).astype(np.int64)
    high = np.where(np.isfinite(y), y, -np.inf)
    low = np.where(np.isfinite(y), y, np.inf)
    chosen: list[int] = []
    for start, stop in itertools.pairwise(edges):
        chosen += [start, start + int(low[start:stop].argmin()), start + int(high[start:stop].argmax()), stop - 1]
    kept = np.unique(np.asarray(chosen))
    return x[kept], y[kept]


def draw_series(ax: Axes, x: NDArray[np.float64], y: NDArray[np.float64], *, points: int = 2000, **line: Any) -> None:
    """Draw a series as a line, thinned by `keep_extremes`; `line` goes to `Axes.plot`.

    Finite values beyond 1e150 are drawn there: matplotlib's own arithmetic on the limits would overflow.
    """
    thin_x, thin_y = keep_extremes(np.asarray(x, float), np.asarray(y, float), points=points)
    ax.plot(thin_x, np.where(np.isfinite(thin_y), np.clip(thin_y, -1e150, 1e150), thin_y), **line)
