"""Curves of recall against magnitude: over all faults, and one small panel a fault."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.figures import COLOURS, style
from benchmarks.faults.score import Score
from benchmarks.faults.score_truth import MAGNITUDES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_all", "draw_kinds", "save"]

_COLUMNS = 3
_OTHERS = ("orange", "green", "vermilion", "purple", "sky")
_DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)))
_AXIS = "magnitude: 1, 2 obvious; 3, 4 middle; 5, 6 faint"


def _curve(ax: Axes, score: Score, kind: str | None, index: int) -> None:
    """Recall at each magnitude; the first judge strong and with its interval, the others thin."""
    figures = [score.macro_recall([m]) if kind is None else score.recall(kind, [m]) for m in MAGNITUDES]
    kept = [(m, f.value, f.interval) for m, f in zip(MAGNITUDES, figures, strict=True) if f.value is not None]
    places, values = [m for m, _, _ in kept], [value for _, value, _ in kept]
    if index:
        colour, dash = COLOURS[_OTHERS[(index - 1) % len(_OTHERS)]], _DASHES[(index - 1) % len(_DASHES)]
        ax.plot(places, values, color=colour, linewidth=0.9, linestyle=dash, label=score.judge)
        return
    ax.plot(places, values, color=COLOURS["blue"], linewidth=2.2, marker="o", markersize=3, zorder=5, label=score.judge)
    bounds = [interval or (0.0, 1.0) for _, _, interval in kept]
    ax.fill_between(places, [b[0] for b in bounds], [b[1] for b in bounds], color=COLOURS["blue"], alpha=0.15, lw=0)


def _dress(ax: Axes) -> None:
    ax.set_xlim(0.8, 6.2)
    ax.set_ylim(-0.04, 1.04)
    ax.set_xticks(MAGNITUDES)
    ax.set_yticks([0, 0.5, 1])


def draw_all(scores: Sequence[Score]) -> Figure:
    """Macro recall over all faults, one curve a judge."""
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(5.2, 3.4))
        ax = figure.subplots()
        for index, score in enumerate(scores):
            _curve(ax, score, None, index)
        _dress(ax)
        ours = scores[0].macro_recall().value
        ax.set_title(f"{100 * (ours or 0):.0f} % of obvious and middle faults are found", fontsize=10)
        ax.set_xlabel(_AXIS)
        ax.set_ylabel("share found, mean over faults")
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def draw_kinds(scores: Sequence[Score]) -> Figure:
    """One panel a fault, three beside one another, so that a telephone can show them."""
    from matplotlib.figure import Figure

    kinds = scores[0].kinds
    rows = max(1, math.ceil(len(kinds) / _COLUMNS))
    with style():
        figure = Figure(figsize=(5.2, 0.9 + 1.15 * rows))
        panels = figure.subplots(rows, _COLUMNS, sharex=True, sharey=True, squeeze=False)
        for place, ax in enumerate(panels.flat):
            if place >= len(kinds):
                ax.set_visible(False)
                continue
            for index, score in enumerate(scores):
                _curve(ax, score, kinds[place], index)
            _dress(ax)
            ax.tick_params(labelbottom=place + _COLUMNS >= len(kinds))
            ax.set_title(kinds[place], fontsize=7.5)
        figure.supxlabel(_AXIS, fontsize=8)
        figure.supylabel("share of runs in which the fault is found", fontsize=8)
        handles, labels = panels.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=7)
    return figure


def save(figure: Figure, path: Path) -> None:
    """As SVG without a date, so that the same figures make the same file."""
    with style():
        figure.savefig(path, metadata={"Date": None})
