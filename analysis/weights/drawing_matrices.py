"""The matrices of a model by depth: how large their weights are, and the exponents of their spectra's tails."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.figures import COLOURS, style
from analysis.weights.names_beside import names_beside, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_norms", "draw_spectra"]

#: More matrices than that are drawn by their kind over the depth, not by name.
_NAMED = 24
#: Saves drawn as dots and kinds of matrices as lines: more cannot be told apart.
_SAVES, _KINDS = 6, 6
#: Between these exponents lie the tails of layers that are trained well, and beyond the second hardly any structure
#: is found (https://weightwatcher.ai, after Martin and Mahoney 2021).
_WELL = (2.0, 6.0)
#: A tail is no power law where its distance after Kolmogorov and Smirnov is larger than both: what one tail of n values
#: in twenty reaches by chance is 1.06 / sqrt(n) (Lilliefors 1969, table 1: the logarithms are exponential); of many
#: values that is less than what matters.
_BY_CHANCE, _MATTERS = 1.06, 0.1


def draw_norms(ax: Axes, frame: pl.DataFrame, options: dict[str, Any]) -> str:
    """Root mean square of the weight matrices: up to 24 by name, a dot a save; more over the depth, a line a kind.

    Returns what there is to see in words.
    """
    shown = frame.filter((pl.col("role") == "weights") & (pl.col("shape").list.len() >= 2) & (pl.col("elements") > 0))
    shown = shown.with_columns(size=pl.col("norm") / pl.col("elements").cast(pl.Float64).sqrt())
    saves = shown["save"].unique(maintain_order=True).to_list()
    names = shown["parameter"].unique(maintain_order=True).to_list()
    with style():
        if len(names) <= _NAMED:
            _by_name(ax, shown, names, saves, options)
        else:
            _by_depth(ax, shown, names, [saves[0], saves[-1]] if len(saves) > 1 else saves, options)
    return _said(shown, saves)


def _by_name(ax: Axes, shown: pl.DataFrame, names: list[str], saves: list[str], options: dict[str, Any]) -> None:
    """A row a matrix: dots from the first save (light) to the last (dark)."""
    place = {name: i for i, name in enumerate(names)}
    chosen = saves if len(saves) <= _SAVES else [saves[i] for i in np.linspace(0, len(saves) - 1, _SAVES).astype(int)]
    for number, save in enumerate(chosen):
        rows = shown.filter(pl.col("save") == save)
        label = _called(rows) if number in (0, len(chosen) - 1) else "_"
        look: dict[str, Any] = {"color": COLOURS["blue"], "alpha": (number + 1) / len(chosen), "marker": "o"}
        look |= {"linestyle": "", "markersize": 5, "label": label, **options}
        ax.plot(rows["size"].to_numpy(), [place[name] for name in rows["parameter"]], **look)
    if len(chosen) > 1:
        _legend(ax)
    _scale(ax, shown, "x")
    names_beside(ax, names)
    ax.set_ylabel("matrix, in the order of the model")
    ax.set_xlabel("root mean square of the weights")


def _by_depth(ax: Axes, shown: pl.DataFrame, names: list[str], saves: list[str], options: dict[str, Any]) -> None:
    """A line a kind (names that differ in numbers alone): the last save, and the first one light."""
    place = {name: i for i, name in enumerate(names)}
    for number, (kind, members) in enumerate(_kinds(names)):
        colour = list(COLOURS.values())[number] if kind else "0.5"
        for save in saves:
            rows = shown.filter((pl.col("save") == save) & pl.col("parameter").is_in(members))
            last = save == saves[-1]
            look: dict[str, Any] = {"color": colour, "alpha": 1.0 if last else 0.35, "marker": ".", "markersize": 3}
            look |= {"linestyle": "-" if kind else "", "label": (kind or "others") if last else "_", **options}
            ax.plot([place[name] for name in rows["parameter"]], rows["size"].to_numpy(), **look)
    if any(kind for kind, _ in _kinds(names)):
        _legend(ax)
    _scale(ax, shown, "y")
    light = f"; light: {_called(shown.filter(pl.col('save') == saves[0]))}" if len(saves) > 1 else ""
    ax.set_xlabel(f"place of the matrix in the model{light}", parse_math=False)
    ax.set_ylabel("root mean square of the weights")


def _kinds(names: list[str]) -> list[tuple[str, list[str]]]:
    """The names in groups that differ in numbers alone: the largest ones with their name, the rest under no name."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(re.sub(r"\d+", "*", name), []).append(name)
    largest = sorted((kind for kind in groups if len(groups[kind]) > 1), key=lambda kind: -len(groups[kind]))[:_KINDS]
    named = [(_last_parts(kind, largest), groups[kind]) for kind in largest]
    others = [name for kind, members in groups.items() if kind not in largest for name in members]
    return [*named, ("", others)] if others else named


def _last_parts(kind: str, others: list[str]) -> str:
    """As many of the last parts of a name as tell it from the others."""
    parts = kind.removesuffix(".weight").split(".")
    for count in range(1, len(parts)):
        end = ".".join(parts[-count:])
        if sum(f".{one.removesuffix('.weight')}".endswith(f".{end}") for one in others) == 1 and end.strip("*."):
            return short(end)
    return short(".".join(parts))


def _legend(ax: Axes) -> None:
    legend = ax.legend(ncols=2 if len(ax.lines) > _SAVES else 1)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _scale(ax: Axes, shown: pl.DataFrame, axis: str) -> None:
    """A logarithmic axis where sizes differ by more than a decade; its ticks are plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    sizes = shown["size"].drop_nulls()
    sizes = sizes.filter(sizes.is_finite())
    low, high = (sizes.min(), sizes.max()) if len(sizes) else (None, None)
    if not (isinstance(low, float) and isinstance(high, float) and 0 < 10 * low < high):
        return
    ax.set(**{f"{axis}scale": "log"})
    drawn = ax.xaxis if axis == "x" else ax.yaxis
    drawn.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 100 * low else (1.0,), numticks=12))
    drawn.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    drawn.set_minor_locator(NullLocator())


def _called(rows: pl.DataFrame) -> str:
    step = rows["step"][0]
    return f"step {step:,}" if step is not None else short(str(rows["save"][0]), 24)


def _said(shown: pl.DataFrame, saves: list[str]) -> str:
    """The smallest and the largest matrix of the last save in words, and how sizes changed since the first."""
    finite = shown.filter(pl.col("size").is_finite())
    last = finite.filter(pl.col("save") == saves[-1]).sort("size") if saves else finite
    if last.is_empty():
        return "no weight matrices that are numbers" if saves else "no weight matrices"
    size, name = (last[column] for column in ("size", "parameter"))
    sizes = f"weights of {short(name[0])} have a root mean square of {size[0]:.3g}"
    if last.height > 1:
        sizes = f"root mean square of the weights from {size[0]:.3g} ({short(name[0])}) to {size[-1]:.3g} "
        sizes += f"({short(name[-1])})"
    first = finite.filter((pl.col("save") == saves[0]) & (pl.col("size") > 0))
    both = last.join(first.select("parameter", begun="size"), on="parameter")
    if len(saves) < 2 or both.is_empty():
        return sizes
    grown = (both["size"] / both["begun"] - 1).to_numpy()
    return f"{sizes}; changed by {grown.min():+.1%} to {grown.max():+.1%} since {_called(first)}"


def draw_spectra(ax: Axes, spectra: pl.DataFrame, options: dict[str, Any]) -> str:
    """The exponent alpha of the tail of each matrix's spectrum, with its standard error; 2 to 6 is shaded.

    Hollow where the distance of Kolmogorov and Smirnov says that the tail is no power law: its exponent says little.
    Returns what there is to see in words.
    """
    known = spectra.filter(pl.col("alpha").is_not_null())
    last = known.filter(pl.col("save") == known["save"][-1]) if known.height else known
    names = last["parameter"].to_list()
    by_chance = _BY_CHANCE / last["tail"].cast(pl.Float64).to_numpy() ** 0.5
    law = last["ks_distance"].to_numpy() <= np.maximum(by_chance, _MATTERS)
    with style():
        _exponents(ax, last, law, {"markersize": 5 if len(names) <= _NAMED else 3, **options})
    names_beside(ax, names)
    ax.set_ylabel("matrix, in the order of the model")
    ax.set_xlabel(f"alpha ± its error (shaded: 2 to 6{'' if law.all() else '; hollow: no power law'})")
    if last.is_empty():
        return "no spectrum has a tail that could be judged"
    alphas = last["alpha"].to_numpy()
    outside = last.filter(~pl.col("alpha").is_between(*_WELL)).height
    if len(names) == 1:
        return f"the tail of the spectrum of {short(names[0])} has the exponent {alphas[0]:.2f}"
    told = f"exponents of the spectra's tails from {alphas.min():.2f} to {alphas.max():.2f}; {outside} of {last.height}"
    return f"{told} not in WeightWatcher's 2 to 6" + ("" if law.all() else f"; no power law: {int((~law).sum())}")


def _exponents(ax: Axes, last: pl.DataFrame, law: NDArray[np.bool_], options: dict[str, Any]) -> None:
    """Dots with bars of one standard error; hollow ones where `law` is false."""
    alphas, errors = (last[column].to_numpy() for column in ("alpha", "alpha_error"))
    places = np.arange(len(alphas))
    look: dict[str, Any] = {"color": COLOURS["blue"], "marker": "o", "linestyle": "", **options}
    ax.axvspan(*_WELL, color=COLOURS["green"], alpha=0.12, lw=0)
    ax.hlines(places, alphas - errors, alphas + errors, color=look["color"], alpha=0.35, lw=1)
    ax.plot(alphas[law], places[law], **look)
    ax.plot(alphas[~law], places[~law], **{"markerfacecolor": "none", **look})
