"""Figures of embeddings: similarity histograms with the EER threshold, a map, and the course over the steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from analysis.figures import COLOURS, axes, draw_series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_map", "draw_nothing", "draw_similarities", "draw_steps"]

#: Speakers told apart by colour; of more, the largest are coloured and the rest is grey.
_COLOURED = 6


def draw_nothing(ax: Axes | None, title: str) -> Axes:
    """Axes that say why there is nothing to see."""
    ax = axes(ax)
    ax.set_title(title)
    ax.set_xlabel("cosine similarity")
    ax.set_ylabel("density")
    return ax


def draw_similarities(ax: Axes | None, table: pl.DataFrame, row: dict[str, Any]) -> Axes:
    """Densities of the cosine of same and of different speakers, with the threshold of equal error."""
    ax = axes(ax)
    edges = np.append(table["low"].to_numpy(), table["high"][-1])
    for column, colour, name in (
        ("same", COLOURS["blue"], "same speaker"),
        ("different", COLOURS["vermilion"], "different speakers"),
    ):
        pairs = int(table[column].sum())
        label = f"{name} ({pairs:,} pairs)"
        ax.stairs(table[f"{column}_density"].to_numpy(), edges, fill=True, alpha=0.45, color=colour, label=label)
    ax.axvline(row["threshold"], color="0.2", linestyle="--", label=f"equal error at {row['threshold']:.3f}")
    interval = "" if row["eer_low"] is None else f" (95 % {row['eer_low']:.1%} to {row['eer_high']:.1%})"
    ax.set_title(f"EER {row['eer']:.1%}{interval}, separation {row['separation']:.2f}{_at(row)}")
    ax.set_xlabel("cosine similarity of two utterances")
    ax.set_ylabel("density")
    ax.legend(loc="best")
    return ax


def draw_map(ax: Axes | None, points: pl.DataFrame, kind: str, row: dict[str, Any]) -> Axes:
    """The points of a map, the largest speakers in colour."""
    ax = axes(ax, width=6, height=5)
    sizes = points["label"].drop_nulls().value_counts(sort=True)
    shown = sizes.sort("count", "label", descending=[True, False])["label"].to_list()[:_COLOURED]
    rest = points.filter(~pl.col("label").is_in(shown) | pl.col("label").is_null())
    ax.scatter(
        rest["x"], rest["y"], s=6, color="0.7", label=f"{sizes.height - len(shown)} others" if len(rest) else None
    )
    for colour, name in zip(COLOURS.values(), shown, strict=False):
        own = points.filter(pl.col("label") == name)
        ax.scatter(own["x"], own["y"], s=12, color=colour, label=_plain(name))
    quality = "" if row["silhouette"] is None else f", silhouette {row['silhouette']:.2f}"
    name = {"pca": "PCA", "umap": "UMAP", "tsne": "t-SNE"}[kind]
    ax.set_title(f"{name} of {points.height:,} of {row['n']:,} utterances{quality}{_at(row)}")
    ax.set_xlabel(f"{name} 1 (no unit)")
    ax.set_ylabel(f"{name} 2 (no unit)")
    if shown:
        # beside the map: inside it would hide points
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax


def draw_steps(ax: Axes | None, frame: pl.DataFrame) -> Axes:
    """Similarities, separation and EER over the training steps, as `frame` has them."""
    ax = axes(ax)
    step = frame["step"].fill_null(0).cast(pl.Float64).to_numpy()
    for colour, column, name in (
        ("blue", "same_mean", "same speaker"),
        ("vermilion", "different_mean", "different speakers"),
        ("green", "separation", "separation"),
        ("purple", "eer", "EER (share)"),
    ):
        draw_series(ax, step, frame[column].cast(pl.Float64).fill_null(float("nan")).to_numpy(), points=2000,
                    color=COLOURS[colour], marker="o", markersize=3, label=name)  # fmt: skip
    known = frame.filter(pl.col("separation").is_not_null())
    if known.height:
        first, last = known.row(0, named=True), known.row(-1, named=True)
        ax.set_title(f"separation from {first['separation']:.2f} to {last['separation']:.2f} over {known.height} steps")
    else:
        ax.set_title("no step with labelled pairs")
    ax.set_xlabel("step")
    ax.set_ylabel("cosine similarity, or share")
    ax.legend(loc="best")
    return ax


def _at(row: dict[str, Any]) -> str:
    return "" if row["step"] is None else f" (step {row['step']:,})"


def _plain(name: str) -> str:
    """A label as text: no TeX mathematics, no leading underscore (which matplotlib hides), no endless names."""
    shown = name.replace("$", r"\$").replace("\n", " ")[:40]
    return f" {shown}" if shown.startswith("_") else shown
