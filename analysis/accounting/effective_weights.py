"""The weight with which a component really enters the total: least squares over steps, with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["EffectiveWeight", "Fit", "explain_residual", "fit_weights", "newey_west"]

Floats = NDArray[np.float64]

#: From this many rows per unknown on, the spread of the residuals is trusted; below, the printing error bounds it.
_ROWS_FOR_SPREAD = 10
#: A residual counts as explained when this share of the rows is left within tolerance.
_EXPLAINED = 0.95
#: A component is blamed only when a plain constant leaves at least this many times more unexplained.
_BETTER_THAN_CONSTANT = 3.0


@dataclass(frozen=True, slots=True)
class EffectiveWeight:
    """Weight of `component` in the total as the numbers have it: 95 % interval `low` to `high`, from `rows` records.

    `share` is the median share of the total that it makes there (NaN without a total). `first_step` and `last_step`
    are None where the log has no steps.
    """

    component: str
    weight: float
    low: float
    high: float
    rows: int
    share: float
    first_step: int | None = None
    last_step: int | None = None


@dataclass(frozen=True, slots=True)
class Fit:
    """Coefficients with their 95 % intervals, and what they leave unexplained."""

    weights: Floats
    low: Floats
    high: Floats
    left: Floats


def fit_weights(raw: Floats, entered: Floats, half_raw: Floats, half_entered: Floats) -> Fit:
    """Least-squares weights of the columns of `raw` (rows x components) in `entered`, without a constant.

    The interval comes from the residuals' spread when at least ten different rows per unknown are there: the larger of
    the textbook's standard error and of one that is robust against unequal and correlated errors (Newey and West,
    Econometrica 55, 1987), which is too small for few rows. With fewer rows it is the bound that the printing errors
    (`half_...`, the largest error of each number) allow. For one row the weight is contribution / raw.
    Columns that cannot be told apart share the weight (minimum norm). All inputs must be finite.

    >>> fit = fit_weights(np.array([[412.2]]), np.array([0.5234]), np.array([[5e-5]]), np.array([5e-5]))
    >>> [f"{x:.7f}" for x in (fit.weights[0], fit.low[0], fit.high[0])]
    ['0.0012698', '0.0012697', '0.0012699']
    """
    scale = np.sqrt(np.sum(raw**2, axis=0))
    scale[scale == 0] = 1.0
    inverse = np.linalg.pinv(raw / scale, rcond=1e-9) / scale[:, None]
    weights = inverse @ entered
    left = entered - raw @ weights
    distinct = len(np.unique(entered))
    if distinct >= _ROWS_FOR_SPREAD * raw.shape[1]:
        freedom = len(entered) - raw.shape[1]
        plain = np.sqrt(left @ left / freedom * np.sum(inverse**2, axis=1))
        wide = _quantile(freedom) * np.maximum(plain, newey_west(raw, left, inverse))
    else:
        wide = np.abs(inverse) @ (half_entered + half_raw @ np.abs(weights))
    return Fit(weights, weights - wide, weights + wide, left)


def newey_west(raw: Floats, left: Floats, inverse: Floats | None = None) -> Floats:
    """Standard errors of least-squares coefficients, robust against unequal and correlated errors.

    Bartlett kernel over `floor(4 (n / 100) ** (2 / 9))` lags, with the correction n / (n - k) for few rows.
    """
    rows, unknowns = raw.shape
    solve = np.asarray(np.linalg.pinv(raw) if inverse is None else inverse, dtype=np.float64)
    lags = min(int(4 * (rows / 100) ** (2 / 9)), rows - 1)
    moments = raw * left[:, None]
    middle = moments.T @ moments
    for lag in range(1, lags + 1):
        cross = moments[lag:].T @ moments[:-lag]
        middle += (1 - lag / (lags + 1)) * (cross + cross.T)
    bread = solve @ solve.T
    variance = np.diag(bread @ middle @ bread) * rows / max(rows - unknowns, 1)
    return np.asarray(np.sqrt(np.maximum(variance, 0.0)), dtype=np.float64)


def explain_residual(
    residual: Floats, tolerance: Floats, raws: Mapping[str, Floats], halves: Mapping[str, Floats]
) -> dict[str, tuple[float, float, float]] | None:
    """The fewest components whose raw values, times one constant each, leave the residual within tolerance.

    Component to (weight, low, high); None when no such set of up to four explains 95 % of the rows, or when a plain
    constant does as well (a raw value that hardly moves proves nothing), or with fewer than three rows more than
    weights. Components are taken one by one, always the one that leaves least.

    >>> raw = np.linspace(5, 9, 20)
    >>> found = explain_residual(0.016 * raw, np.full(20, 1e-6), {"importance": raw}, {"importance": 0 * raw})
    >>> round(found["importance"][0], 6)
    0.016
    """
    chosen: list[str] = []
    for _ in range(min(4, len(raws), len(residual) - 3)):
        best = min((n for n in raws if n not in chosen), key=lambda n: _left_by([*chosen, n], residual, raws))
        chosen.append(best)
        columns = np.column_stack([raws[n] for n in chosen])
        errors = np.column_stack([halves[n] for n in chosen])
        fit = fit_weights(columns, residual, errors, tolerance)
        allowed = tolerance + errors @ np.abs(fit.weights)
        if np.mean(np.abs(fit.left) <= allowed) >= _EXPLAINED:
            clear = bool(np.all((fit.low > 0) | (fit.high < 0))) and _told_from_constant(columns, residual, allowed)
            numbers = zip(fit.weights.tolist(), fit.low.tolist(), fit.high.tolist(), strict=True)
            return dict(zip(chosen, numbers, strict=True)) if clear else None
    return None


def _left_by(names: list[str], residual: Floats, raws: Mapping[str, Floats]) -> float:
    columns = np.column_stack([raws[n] for n in names])
    scale = np.sqrt(np.sum(columns**2, axis=0))
    scale[scale == 0] = 1.0
    weights = np.linalg.lstsq(columns / scale, residual, rcond=1e-9)[0]
    return float(np.sum((residual - columns / scale @ weights) ** 2))


def _told_from_constant(columns: Floats, residual: Floats, allowed: Floats) -> bool:
    """Whether every component is needed: a constant in its place leaves clearly more than is allowed."""
    for i in range(columns.shape[1]):
        instead = columns.copy()
        instead[:, i] = 1.0
        weights = np.linalg.lstsq(instead, residual, rcond=1e-9)[0]
        left = np.abs(residual - instead @ weights)
        if np.mean(left <= _BETTER_THAN_CONSTANT * allowed) >= _EXPLAINED:
            return False
    return True


def _quantile(freedom: int) -> float:
    """Two-sided 95 % quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(max(freedom, 1), 0.975))
