"""Small charts of one metric each, drawn without matplotlib: hundreds of them cost milliseconds and a few bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from analysis.figures import keep_extremes

__all__ = ["sparkline", "wants_log"]

_Array = NDArray[np.float64]
WIDTH, HEIGHT = 240, 64


def wants_log(values: _Array) -> bool:
    """Whether a positive series covers so many orders of magnitude that a linear axis would hide most of it.

    >>> wants_log(np.array([1.0, 2.0, 3.0])), wants_log(np.array([1e-4, 1.0, 50.0])), wants_log(np.array([0.0, 1e9]))
    (False, True, False)
    """
    finite = values[np.isfinite(values)]
    if not len(finite) or float(finite.min()) <= 0:
        return False
    return float(finite.max()) > 100 * float(np.quantile(finite, 0.1))


def sparkline(
    lines: Sequence[tuple[_Array, _Array]], *, label: str, spans: Sequence[tuple[float, float]] = (), log: bool = False
) -> Markup:
    """An `<svg>` of up to four lines over common axes, with `spans` on the x axis shaded and NaN marked at the foot.

    Each line is (x, y), thinned so that every extreme stays. Colours come from the page (`.s0` to `.s3`); `label` is
    what a screen reader says. Without any finite value only the marks are drawn.

    >>> sparkline([(np.array([0.0, 1.0]), np.array([2.0, 1.0]))], label="loss")
    Markup('<svg class="spark" viewBox="0 0 240 64" role="img" aria-label="loss" preserveAspectRatio="none"><path
    class="s0" d="M0 4L240 60"/></svg>')
    """
    shown = [(np.asarray(x, float), _scaled(np.asarray(y, float), log)) for x, y in lines[:4]]
    finite = [y[np.isfinite(y)] for _, y in shown]
    values = np.concatenate(finite) if finite else np.empty(0)
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    left, right = _limits([x for x, _ in shown])
    parts = [
        f'<svg class="spark" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}" '
        f'preserveAspectRatio="none">'
    ]
    for first, last in spans[:50]:
        a, b = (float(v) for v in _across(np.array([first, last]), left, right))
        parts.append(f'<rect class="hit" x="{a:.0f}" y="0" width="{max(b - a, 2):.0f}" height="{HEIGHT}"/>')
    for index, (x, y) in enumerate(shown):
        parts.append(f'<path class="s{index}" d="{_path(x, y, left, right, low, high)}"/>')
        parts += [f'<path class="nf" d="M{p:.0f} {HEIGHT - 5}l4 4m0 -4l-4 4"/>' for p in _non_finite(x, y, left, right)]
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704 (numbers, and the one text is escaped)


def _scaled(y: _Array, log: bool) -> _Array:
    if not log:
        return y
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log10(y)


def _limits(xs: Sequence[_Array]) -> tuple[float, float]:
    known = [x for x in xs if len(x)]
    return (min(float(x.min()) for x in known), max(float(x.max()) for x in known)) if known else (0.0, 1.0)


def _across(x: _Array, left: float, right: float) -> _Array:
    placed: _Array = np.clip((x - left) / ((right - left) or 1.0), 0, 1) * WIDTH
    return placed


def _path(x: _Array, y: _Array, left: float, right: float, low: float, high: float) -> str:
    x, y = keep_extremes(x, y, points=2 * WIDTH)
    across = np.rint(_across(x, left, right)).astype(int).tolist()
    # halves first: the range of a series that holds 1e308 and -1e308 is more than a float can say
    share = (y / 2 - low / 2) / ((high / 2 - low / 2) or 1.0) if high > low else np.where(np.isfinite(y), 0.5, np.nan)
    down = (HEIGHT - 4 - share * (HEIGHT - 8)).tolist()
    pieces, pen = [], "M"
    for a, d in zip(across, down, strict=True):
        if -1 <= d <= HEIGHT + 1:
            pieces.append(f"{pen}{a} {d:.1f}".removesuffix(".0"))
            pen = "L"
        else:
            pen = "M"  # a gap where the value is not finite
    if len(pieces) == 1:
        pieces.append("h1")
    return "".join(pieces)


def _non_finite(x: _Array, y: _Array, left: float, right: float) -> list[float]:
    bad = x[~np.isfinite(y)]
    return np.unique(np.rint(_across(bad, left, right) / 4) * 4).tolist()[:60] if len(bad) else []
