"""`clipping`: steps that are nearly all clipped, and gradient norms that were logged after clipping."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from analysis.findings import Finding
from analysis.gradient.scene import Scene
from analysis.gradient.tracks import Model, Track

__all__ = ["Limit", "clipped_at", "clipping"]

_KIND = "clipping"
#: Norms this many times the limit: every step is then made shorter by two orders of magnitude. Below, clipping at all
#: steps is common in fine-tuning (a limit of 1.0 with norms of 2 to 20), and Adam, which divides by the gradient's
#: own size, hardly feels it.
_FAR_ABOVE = 100.0
_FEWEST = 10
#: `clip_grad_norm_` divides by the norm plus 1e-6, and logs print few digits.
_EQUAL = 2e-3


@dataclass(frozen=True, slots=True)
class Limit:
    """The largest value of a norm, at which it stands again and again: the share of its rows that do."""

    at: float
    share: float


def clipped_at(track: Track) -> Limit | None:
    """The limit that a norm was clipped at before it was logged; None where it shows none.

    A norm that is not clipped comes near its own largest value once: here a fifth of the rows, ten at least, stand
    within 0.2 % of it and none above, and the value is a round one.

    >>> steps = np.arange(100.0)
    >>> norms = np.minimum(np.exp(np.random.default_rng(0).normal(size=100)), 1.0)
    >>> clipped_at(Track("", "grad_norm", "", "grad_norm", "", True, steps, norms))
    Limit(at=1.0, share=0.53)
    """
    finite = track.values[np.isfinite(track.values)]
    if len(finite) < _FEWEST or finite.max() <= 0:
        return None
    top = float(finite.max())
    near = int((finite >= top * (1 - _EQUAL)).sum())
    share = near / len(finite)
    if near < _FEWEST or share < 0.2:
        return None
    limit = next((r for digits in (1, 2) if abs((r := float(f"{top:.{digits}g}")) - top) <= _EQUAL * top), None)
    return None if limit is None else Limit(limit, share)


def clipping(scene: Scene, model: Model) -> list[Finding] | str:
    """Whether nearly every step of a model is clipped, or its norm was logged after that; or why that is not known."""
    rate, norm = model.get("clip_rate"), model.get("grad_norm")
    if rate is not None and len(rate.values) >= _FEWEST:
        return _by_rate(scene, model, rate, norm)
    if norm is None:
        return "no gradient norm and no clip rate is logged"
    derived = _rate_of(scene, model, norm)
    if derived is not None:
        return _by_rate(scene, model, derived, norm)
    limit = clipped_at(norm)
    if limit is None:
        return "no clip rate is logged, no limit is stated that the norm exceeds, and the norm stands at none"
    return [_logged_after(scene, model, norm, limit)]


def _rate_of(scene: Scene, model: Model, norm: Track) -> Track | None:
    """Which rows of a norm were clipped (1) and which were not, where that is not logged as such.

    Told by the norm that was left after clipping, or else by the stated limit. A norm that never exceeds that limit was
    logged after clipping, or had no need of it: None.
    """
    after = model.get("grad_norm_after_clip")
    if after is not None and len(after.values) == len(norm.values):
        limit = after.values
    elif scene.clip_norm is not None:
        limit = np.full(len(norm.values), scene.clip_norm)
    else:
        return None
    known = np.isfinite(norm.values) & np.isfinite(limit)
    clipped = np.where(known, norm.values > limit * (1 + _EQUAL), np.nan)
    if known.sum() < _FEWEST or not (clipped > 0).any():
        return None
    return replace(norm, quantity="clip_rate", values=clipped)


def _by_rate(scene: Scene, model: Model, rate: Track, norm: Track | None) -> list[Finding]:
    half = rate.values[len(rate.values) // 2 :]
    share = float(np.nanmean(half)) if np.isfinite(half).any() else 0.0
    if not scene.gauge.reaches(_KIND, share, rate.metric):
        return []
    after = model.get("grad_norm_after_clip")
    late = _late(norm)
    limit = float(np.median(_late(after))) if after is not None and len(_late(after)) else scene.clip_norm
    usual = float(np.median(late)) if len(late) else None
    times = usual / limit if usual is not None and limit else None
    far = times is not None and times >= _FAR_ABOVE
    said = f"; the norm is {usual:.3g} where {limit:.3g} is left of it" if times is not None else ""
    return [
        Finding(
            _KIND,
            "warning" if far else "info",
            scene.run,
            f"{share:.0%} of the steps{_of(model)} in the later half were clipped{said}",
            metric=rate.metric,
            first_step=rate.step_at(_first(rate)),
            last_step=rate.step_at(len(rate.values) - 1),
            evidence={
                "model": model.name,
                "share": share,
                "share_limit": scene.limit(_KIND, rate),
                "limit": limit,
                "norm": usual,
                "times_limit": times,
                "norm_p10": float(np.quantile(late, 0.1)) if len(late) else None,
                "norm_p90": float(np.quantile(late, 0.9)) if len(late) else None,
                "split": rate.split,
            },
            causes=_why(model, times, limit),
            suggestions=(
                f"set the limit near the 90 % quantile of the norm ({np.quantile(late, 0.9):.3g})"
                if len(late)
                else "record the norm before clipping, and set the limit near its 90 % quantile",
                "find out why the norm is so large: inputs, loss summed instead of averaged, initialisation",
                "with SGD, mind that the limit times the learning rate is the length of every step",
            ),
        )
    ]


def _first(rate: Track) -> int:
    """The row from which on steps are clipped: the one that parts clipped rows from others with the fewest mistakes."""
    clipped = np.where(np.isfinite(rate.values), rate.values, 0.5)
    mistakes = np.concatenate([[0.0], np.cumsum(clipped)[:-1]]) + np.cumsum(1.0 - clipped[::-1])[::-1]
    return int(np.argmin(mistakes))


def _why(model: Model, times: float | None, limit: float | None) -> tuple[str, ...]:
    if times is None or limit is None:
        return ("the limit is below nearly every norm; record grad_norm and grad_norm_after_clip to know by how much",)
    said = f"the limit ({limit:.3g}) is below nearly every norm: the median is {times:,.1f} times as large"
    if model.get("loss_scale") is not None and times >= _FAR_ABOVE:
        return (said, "a loss scale is logged: the norm may have been taken before unscale_, and be smaller in truth")
    return (said,)


def _late(track: Track | None) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    if track is None:
        return np.empty(0)
    half = track.values[len(track.values) // 2 :]
    return half[np.isfinite(half)]


def _of(model: Model) -> str:
    return f" of {model.name}" if model.name and model.get("clip_rate") is not None else ""


def _logged_after(scene: Scene, model: Model, norm: Track, limit: Limit) -> Finding:
    return Finding(
        _KIND,
        "info",
        scene.run,
        f"{norm.metric} was logged after clipping: {limit.share:.0%} of its values are {limit.at:g} and none is larger",
        metric=norm.metric,
        first_step=norm.step_at(0),
        last_step=norm.step_at(len(norm.values) - 1),
        evidence={"model": model.name, "share": limit.share, "limit": limit.at, "split": norm.split},
        causes=(f"the norm was read after gradients were clipped to {limit.at:g}",),
        suggestions=("log what clip_grad_norm_ returns: the norm as it was before",),
    )
