"""How much of the loss each component makes up over the run, as shares that add up to one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from analysis.figures import COLOURS, axes
from parsers.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["component_shares", "draw_shares"]

_PART = re.compile(r"^losses/(.+)/(contribution|weighted)$")
#: Bands that can still be told apart; smaller components are drawn together.
BANDS = 6
_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {"component": pl.String, "step": pl.Float64, "share": pl.Float64}


def component_shares(run: Run, *, bins: int = 120) -> pl.DataFrame:
    """Share of each loss component in the sum of their magnitudes: columns component, step, share (0 to 1).

    Taken from what stands in the total (`contribution`) where it was logged, else from `weighted`; steps are averaged
    in `bins` equal windows so that a long run does not flicker. Components are in the order of their mean share; empty
    when the run logged fewer than two, or none with steps.
    """
    names = {m: match for m in run.metrics if (match := _PART.match(m))}
    chosen: dict[str, str] = {}
    for metric, match in names.items():
        if match[2] == "contribution" or match[1] not in chosen:
            chosen[match[1]] = metric
    if len(chosen) < 2:
        return pl.DataFrame(schema=_SCHEMA)
    rows = run.lazy().filter(pl.col("metric").is_in(list(chosen.values()))).collect()
    rows = run.live(rows.filter(pl.col("step").is_not_null() & pl.col("value").is_finite()))
    if rows.is_empty():
        return pl.DataFrame(schema=_SCHEMA)
    first, last = float(rows["step"].min() or 0), float(rows["step"].max() or 0)  # type: ignore[arg-type]
    width = max((last - first) / bins, 1.0)
    binned = (
        rows.with_columns(
            component=pl.col("metric").replace_strict({m: names[m][1] for m in chosen.values()}),
            step=first + ((pl.col("step") - first) / width).floor() * width,
        )
        .group_by("component", "step")
        .agg(size=pl.col("value").abs().mean())
    )
    shares = binned.with_columns(share=pl.col("size") / pl.col("size").sum().over("step")).fill_nan(0.0)
    order = pl.col("share").mean().over("component")
    return shares.sort(order, "component", "step", descending=[True, False, False]).select(*_SCHEMA)


def draw_shares(shares: pl.DataFrame, ax: Axes | None = None) -> Axes:
    """Stacked bands of `component_shares` over steps, the largest at the bottom; the title names it."""
    drawn = axes(ax, width=5.0, height=2.6)
    wide = shares.pivot("component", index="step", values="share").sort("step").fill_null(0.0)
    names = wide.columns[1:]
    bands = [wide[name].to_numpy() for name in names[:BANDS]]
    labels = [name[:28] for name in names[:BANDS]]
    if len(names) > BANDS:
        bands.append(np.sum([wide[name].to_numpy() for name in names[BANDS:]], axis=0))
        labels.append(f"{len(names) - BANDS} others")
    colours = [*COLOURS.values(), "#b0b0b0"][: len(bands)]
    hatches = ["", "//", "..", "\\\\", "xx", "--", ""][: len(bands)]
    layers = drawn.stackplot(wide["step"].to_numpy(), np.vstack(bands) * 100, labels=labels, colors=colours, alpha=0.75)
    for layer, hatch in zip(layers, hatches, strict=True):
        layer.set(hatch=hatch, edgecolor="#ffffff", linewidth=0.4)
    drawn.set_ylim(0, 100)
    drawn.set_xlabel("step")
    drawn.set_ylabel("share of the loss (%)")
    drawn.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=4)
    title = f"{names[0][:28]} makes up {100 * float(bands[0].mean()):.0f} % of the loss on average"
    drawn.set_title(title, loc="left", parse_math=False)
    return drawn
