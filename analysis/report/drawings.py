"""The figures of a page: each drawn once, numbered, with its title as caption, within a budget for the whole page."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from analysis.report.curves import Curve, draw_metric
from analysis.report.groups import Group
from analysis.report.svg import to_svg
from analysis.report.text import clean
from analysis.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Drawing", "Drawings"]

#: Figures are drawn this wide (inches; 360 units of the SVG), so that 8-point text is 8 pixels high on a phone.
WIDTH = 5.0
#: Entries of a legend that may stand inside the axes.
MANY = 4


@dataclass(frozen=True)
class Drawing:
    """One figure: its number in the page, its title and its SVG."""

    number: int
    title: str
    svg: Markup


class Drawings:
    """Draws the figures of one page: numbers them, and stops at `budget` so that a page of many runs stays small."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.count = 0

    @property
    def exhausted(self) -> bool:
        """Whether no further figure fits into the page."""
        return self.count >= self.budget

    def result(
        self, result: Result, title: str, *, label: str = "", height: float = 2.8, **options: Any
    ) -> Drawing | None:
        """A result's own figure; its title becomes the caption, unless it only repeats `label`."""
        return self._draw(lambda ax: result.plot(ax, **options), title, height, label=label, run=result.run)

    def axes(self, draw: Callable[[Axes], object], title: str, *, height: float = 2.5) -> Drawing | None:
        """Whatever `draw` puts on the axes that it is given."""
        return self._draw(draw, title, height)

    def finding(self, group: Group, curves: Sequence[Curve]) -> Drawing | None:
        """The metric of some findings with their spans shaded, and below it the worst one from near."""
        window = _window(group.spans, curves)
        said = f"{curves[0].metric} over {curves[0].axis}s{'; shaded where it was found' if group.spans else ''}"
        title = group.findings[0].message
        if window is None:
            return self._draw(lambda ax: draw_metric(curves, group.spans, ax), said, 2.5, label=title)
        if self.exhausted:
            return None
        figure = _figure(3.7)
        with _style():
            whole, near = figure.subplots(2, 1, height_ratios=[3, 2])
            draw_metric(curves, group.spans, whole)
            whole.set_xlabel("")
            draw_metric(curves, group.spans, near, window=window)
            if near.get_legend() is not None:
                near.get_legend().remove()
            near.set_xlabel(f"{curves[0].axis}, from near")
        return self._finish(figure, f"{said}; below, the first from near", label=title)

    def _draw(
        self, draw: Callable[[Axes], object], title: str, height: float, *, label: str = "", run: str = ""
    ) -> Drawing | None:
        if self.exhausted:
            return None
        figure = _figure(height)
        with _style():
            ax: Axes = figure.subplots()
            draw(ax)
            _legend_below(ax)
        said = " ".join((ax.get_title(loc="left") or ax.get_title()).split("\n")).removeprefix(f"{run}: ")
        for place in ("left", "center", "right"):
            ax.set_title("", loc=place)
        if not said or label.startswith(said[:60]):
            said = title
        return self._finish(figure, said, label=label)

    def _finish(self, figure: Figure, title: str, *, label: str = "") -> Drawing:
        self.count += 1
        title = clean(title, 220)
        with _style():
            return Drawing(self.count, title, to_svg(figure, label=label or title, key=f"f{self.count}"))


def _legend_below(ax: Axes) -> None:
    """A legend of many entries goes below the axes, and the figure grows by its rows: inside it would hide the data."""
    legend = ax.get_legend()
    handles, labels = ax.get_legend_handles_labels()
    if legend is None or len(labels) <= MANY:
        return
    columns = 3 if max(map(len, labels)) <= 18 else 2 if max(map(len, labels)) <= 30 else 1
    legend.remove()
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncols": columns, "fontsize": 8}
    ax.legend(handles, [clean(label, 60 // columns + 10) for label in labels], **below)
    figure = ax.get_figure(root=True)
    assert figure is not None  # axes that draw stand in a figure
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + 0.17 * -(-len(labels) // columns))


def _window(spans: Sequence[tuple[float, float]], curves: Sequence[Curve]) -> tuple[float, float] | None:
    """Where to look closer: around the first span, when it is narrow and the curve is long enough to hide it."""
    if not spans or not curves or len(curves[0].x) < 200:
        return None
    x = curves[0].x
    first, last = spans[0]
    whole = float(x.max() - x.min())
    if last - first > 0.08 * whole or not float(x.min()) <= first <= float(x.max()):
        return None
    rhythm = whole / len(x)
    margin = max(3 * (last - first), 25 * rhythm)
    return max(first - margin, float(x.min())), min(last + margin, float(x.max()))


def _figure(height: float) -> Figure:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with _style():
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
    return figure


@contextmanager
def _style() -> Iterator[None]:
    """The house style; names out of a log are no mathematics, whatever dollars they hold."""
    import matplotlib as mpl

    from analysis.figures import style

    sizes = {"axes.labelsize": 9.5, "xtick.labelsize": 9, "ytick.labelsize": 9, "legend.fontsize": 9}
    with style(), mpl.rc_context({"text.parse_math": False, **sizes}), warnings.catch_warnings():
        # matplotlib only measures the text; the reader's browser draws it, with fonts for every script
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from", UserWarning)
        yield
