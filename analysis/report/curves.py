"""The series of a run, ready to draw: one line per metric and split, on the step axis where the log has steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.figures import COLOURS, axes, draw_series
from analysis.report.sparkline import wants_log
from parsers.run import Run
from parsers.tables.branches import branches

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Curve", "Curves", "dead_lines", "draw_dead", "draw_metric", "draw_runs", "read_curve", "read_curves"]

_Array = NDArray[np.float64]
#: How the splits of one metric are told apart, by colour and by dash.
_SPLITS: dict[str, tuple[str, str]] = {
    "train": (COLOURS["blue"], "-"),
    "": (COLOURS["blue"], "-"),
    "eval": (COLOURS["vermilion"], "--"),
    "test": (COLOURS["green"], "-."),
}
#: What the legend calls dead branches, once for all of them.
DEAD = "left by a resume"
_DASHES = ("-", "--", "-.", ":")


@dataclass(frozen=True, eq=False)
class Curve:
    """One series: `x` is the step (`axis` = "step") or the number of the row where the log has no steps ("row").

    It is the series of the lowest rank that wrote it; `ranks` says how many did. `dead_x` and `dead_y` are what later
    attempts of a resumed run trained again, a NaN between two attempts.
    """

    metric: str
    split: str
    x: _Array
    y: _Array
    axis: str
    ranks: int
    dead_x: _Array = field(default_factory=lambda: np.empty(0))
    dead_y: _Array = field(default_factory=lambda: np.empty(0))

    @property
    def name(self) -> str:
        """Split and metric."""
        return f"{self.split} {self.metric}".strip()


Curves = Mapping[str, tuple[Curve, ...]]


def read_curves(run: Run) -> Curves:
    """Every metric of `run` with its curves by split, metrics in the order in which a reader looks for them.

    Losses come first, then learning rate and gradient norm, then the rest by name. The dead branch of a resumed run
    stands apart.
    """
    found: dict[str, list[Curve]] = {}
    kept = run.scalars.select("rank", "attempt", "step", "split", "metric", "value")
    parts = kept.partition_by("split", "metric", "rank", maintain_order=True, as_dict=True)
    ranks: dict[tuple[str, str], list[int]] = {}
    for split, metric, rank in parts:
        ranks.setdefault((split, metric), []).append(rank)
    for (split, metric), writers in ranks.items():
        rows, dead = branches(parts[split, metric, min(writers)], run.attempts if run.last_attempt else None)
        x, axis = _positions(rows)
        curve = Curve(metric, split, x, rows["value"].to_numpy(), axis, len(writers), *dead_lines(dead))
        found.setdefault(metric, []).append(curve)
    order = sorted(found, key=lambda m: (_importance(run.roles.of(m).role), m))
    return {m: tuple(sorted(found[m], key=lambda c: (c.split not in ("train", ""), c.split))) for m in order}


def read_curve(run: Run, metric: str, split: str) -> Curve | None:
    """The curve of one metric and split, read alone; None where the run has no such series."""
    rows = run.series(metric, split=split) if metric in run.metrics else run.scalars.head(0)
    if rows.is_empty():
        return None
    writers = rows["rank"].unique()
    rows = rows.filter(pl.col("rank") == writers.min())
    x, axis = _positions(rows)
    return Curve(metric, split, x, rows["value"].to_numpy(), axis, len(writers))


def dead_lines(rows: pl.DataFrame) -> tuple[_Array, _Array]:
    """Steps and values of dead rows, one attempt after another with a NaN between them: lines that do not join."""
    gap = np.array([np.nan])
    xs: list[_Array] = []
    ys: list[_Array] = []
    for part in rows.drop_nulls("step").partition_by("attempt", maintain_order=True):
        xs += [part["step"].to_numpy().astype(float), gap]
        ys += [part["value"].to_numpy(), gap]
    return (np.concatenate(xs[:-1]), np.concatenate(ys[:-1])) if xs else (np.empty(0), np.empty(0))


def _positions(rows: pl.DataFrame) -> tuple[_Array, str]:
    if rows["step"].null_count():
        return np.arange(rows.height, dtype=float), "row"
    return rows["step"].to_numpy().astype(float), "step"


_FIRST = ("loss", "generator_loss", "discriminator_loss", "component_loss", "learning_rate", "grad_norm")


def _importance(role: str) -> int:
    return _FIRST.index(role) if role in _FIRST else len(_FIRST)


def draw_metric(
    curves: Sequence[Curve],
    spans: Sequence[tuple[float, float]] = (),
    ax: Axes | None = None,
    *,
    window: tuple[float, float] | None = None,
) -> Axes:
    """One metric over steps, a line a split, `spans` shaded and hatched, values that are not finite marked at the foot.

    `window` limits the x axis. The y axis is logarithmic where the values cover several orders of magnitude.
    """
    drawn = axes(ax, width=5.0, height=2.4)
    low, high = window or (-np.inf, np.inf)
    shown = [(c, (c.x >= low) & (c.x <= high)) for c in curves[:6]]
    for curve, inside in shown:
        colour, dash = _SPLITS.get(curve.split, (COLOURS["purple"], ":"))
        few = int(inside.sum()) < 60
        draw_series(
            drawn,
            curve.x[inside],
            curve.y[inside],
            points=1600,
            color=colour,
            ls=dash,
            marker="." if few else None,
            ms=4,
            label=curve.split or "logged",
        )
        _mark_non_finite(drawn, curve.x[inside], curve.y[inside])
    for curve, _ in shown:
        draw_dead(drawn, curve.dead_x, curve.dead_y, _SPLITS.get(curve.split, (COLOURS["purple"], ""))[0], window)
    _shade(drawn, spans, window)
    if shown and all(wants_log(c.y[inside]) for c, inside in shown if inside.any()):
        drawn.set_yscale("log")
    if len(shown) > 1 or any(len(curve.dead_x) for curve, _ in shown):
        drawn.legend(loc="best")
    drawn.set_xlabel(shown[0][0].axis if shown else "step")
    drawn.set_ylabel(curves[0].metric[:40] if curves else "", parse_math=False)
    return drawn


def draw_dead(ax: Axes, x: _Array, y: _Array, colour: str, window: tuple[float, float] | None = None) -> None:
    """What each resume left behind (`dead_lines`), faintly and behind the live series."""
    low, high = window or (-np.inf, np.inf)
    told = any(line.get_label() == DEAD for line in ax.get_lines())
    label: str | None = None if told else DEAD
    for places in np.split(np.arange(len(x)), np.flatnonzero(np.isnan(x))):
        inside = places[(x[places] >= low) & (x[places] <= high)]
        if len(inside):
            draw_series(ax, x[inside], y[inside], points=800, color=colour, alpha=0.4, lw=0.8, zorder=1.5, label=label)
            label = None


def _mark_non_finite(ax: Axes, x: _Array, y: _Array) -> None:
    bad = x[~np.isfinite(y)]
    if len(bad):
        thinned = bad[np.unique(np.linspace(0, len(bad) - 1, 60).astype(int))]
        foot = np.full(len(thinned), 0.03)
        ax.plot(thinned, foot, "x", ms=5, color=COLOURS["vermilion"], transform=ax.get_xaxis_transform())


def _shade(ax: Axes, spans: Sequence[tuple[float, float]], window: tuple[float, float] | None) -> None:
    left, right = window or ax.get_xlim()
    least = (right - left) * 0.006
    for first, last in spans[:50]:
        if last < left or first > right:
            continue
        half = max(least - (last - first), 0) / 2
        broad = last - first > 0.15 * (right - left)  # hatching a wide span would hide the curve: its edges must do
        ax.axvspan(first - half, last + half, facecolor=COLOURS["orange"], alpha=0.16 if broad else 0.3, lw=0)
        hatch = None if broad else "////"
        ax.axvspan(first - half, last + half, fc="none", ec=COLOURS["vermilion"], hatch=hatch, lw=0.8 if broad else 0.6)
    if window:
        ax.set_xlim(window)


def draw_runs(named: Sequence[tuple[int, str, Curve]], ax: Axes | None = None) -> Axes:
    """A metric of several runs over one another: colours and dashes for the first 12, the others in grey.

    Each comes with the run's number on the page, from 0: a run has the same colour in every figure.
    """
    drawn = axes(ax, width=5.0, height=2.8)
    colours = list(COLOURS.values())
    for index, name, curve in named:
        told = index < 2 * len(colours)
        draw_series(
            drawn,
            curve.x,
            curve.y,
            points=800,
            color=colours[index % len(colours)] if told else "#b0b0b0",
            ls=_DASHES[index // len(colours)] if told else "-",
            lw=1.3 if told else 0.7,
            zorder=3 - index / 100 if told else 1,
            label=name[:32] if told else None,
        )
    if named and all(wants_log(c.y) for _, _, c in named):
        drawn.set_yscale("log")
    if named:
        drawn.legend(loc="upper right")
        drawn.set_xlabel(_all_of([curve.axis for _, _, curve in named]))
        drawn.set_ylabel(_all_of([curve.name for _, _, curve in named])[:40], parse_math=False)
    return drawn


def _all_of(names: Sequence[str]) -> str:
    """What an axis shows: every name once, the commonest first; of more than two how many others there are."""
    counted = [name for name, _ in Counter(names).most_common()]
    return " or ".join(counted) if len(counted) < 3 else f"{counted[0]}, or {len(counted) - 1} others by run"
