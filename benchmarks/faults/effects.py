"""How large an effect really is in a series, in plain numbers: what every planted fault is measured with.

None of this is shared with the package: a fault is judged by the training's own numbers, never by the detectors that
it is to test.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Floats", "jump", "level", "log_noise", "peak", "swing"]

Floats = NDArray[np.float64]


def log_noise(values: Floats) -> float:
    """Standard deviation of the noise on the logarithm, from second differences (a straight trend leaves none).

    Robust (median), and of the values beyond 0; 0 for fewer than 5 of them.
    """
    logs = np.log(values[np.isfinite(values) & (values > 0)])
    if len(logs) < 5:
        return 0.0
    return float(np.median(np.abs(np.diff(logs, 2))) / 0.6745 / np.sqrt(6.0))


def level(values: Floats) -> float:
    """Median of the finite values; NaN where there is none."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else float("nan")


def jump(values: Floats, at: int, span: int) -> float:
    """Level of the `span` rows from `at` on, over that of the `span` rows before."""
    return level(values[at : at + span]) / level(values[max(0, at - span) : at])


def peak(values: Floats, at: int, rows: int, before: int = 15) -> float:
    """Highest of `rows` values from `at` on, over the level of the `before` rows ahead of it."""
    return float(np.nanmax(values[at : at + rows])) / level(values[max(0, at - before) : at])


def swing(values: Floats, period: float) -> tuple[float, float]:
    """Amplitude of the sine of `period` rows in the logarithm, and the standard deviation of the rest.

    A quadratic trend is fitted with it.
    """
    logs = np.log(np.clip(values, 1e-12, None))
    t = np.arange(len(logs))
    turn = 2 * np.pi * t / period
    scaled = t / max(1, len(t) - 1)
    columns = np.stack([np.ones_like(scaled), scaled, scaled**2, scaled**3, np.sin(turn), np.cos(turn)], axis=1)
    fitted, *_ = np.linalg.lstsq(columns, logs, rcond=None)
    return float(np.hypot(fitted[4], fitted[5])), float(np.std(logs - columns @ fitted))
