"""`amp-collapse`: the loss scale of mixed precision halves down to nothing, or steps are skipped again and again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.findings import Finding, Severity
from analysis.gradient.scene import Scene
from analysis.gradient.tracks import Model, Track

__all__ = ["amp_collapse"]

_KIND = "amp-collapse"
#: A scaler begins high (2^16 in PyTorch, 2^32 in DeepSpeed) and finds its level in some halvings. Ten and more that end
#: at 1 or below are no search: the smallest gradients are then lost, and each further halving loses more.
_HALVINGS, _LEVEL = 10, 1.0
#: Rows for which a scale has rested: as many halvings after that are no search either, wherever they end.
_RESTED = 20
#: Of the steps, what a scaler skips in health is one in 2,000: it doubles that often, and the next step overflows.
#: (The limit of the kind is a hundred times that.) Fewer skipped steps than these are the search for a scale.
_FEWEST_SKIPPED = 10
_TRY = (
    "train in bfloat16, which needs no loss scale",
    "find the first layer whose gradient is not finite (at.watch records nonfinite_grads by layer)",
    "lower the learning rate, and clip gradients after unscale_",
    "compute softmax, norms and losses in float32",
)


def amp_collapse(scene: Scene, model: Model) -> list[Finding] | str:
    """Whether the loss scale collapsed or steps are skipped for it; or the reason why that is not known."""
    scale, skipped = model.get("loss_scale"), model.get("skipped")
    if scale is None and skipped is None:
        return "no loss scale and no count of skipped steps is logged"
    share, count = _skipped(skipped) if skipped is not None else (None, None)
    fallen = _fallen(scale) if scale is not None else None
    often = skipped is not None and share is not None and count is not None and count >= _FEWEST_SKIPPED
    often = often and scene.gauge.reaches(_KIND, float(share or 0.0), skipped.metric if skipped else None)
    if fallen is None and not often:
        return []
    told = scale if scale is not None and fallen is not None else skipped
    assert told is not None
    limit = scene.gauge.limits.of(_KIND, skipped.metric if skipped else None)
    return [_finding(scene, told, fallen, share, count, limit)]


def _fallen(scale: Track) -> tuple[float, float, int] | None:
    """The highest scale, the last, and the row at which its fall begins; None where it did not collapse."""
    rows = np.flatnonzero(np.isfinite(scale.values) & (scale.values >= 0))
    known = scale.values[rows]
    if len(known) < 3:
        return None
    high, last = float(known.max()), float(known[-3:].max())
    if high < max(last, _LEVEL) * 2**_HALVINGS:
        return None
    begins = _begins(known, high)
    # above the last bit a fall must come out of a rest: a scaler that begins high halves its way down at once
    if last > _LEVEL and (np.count_nonzero(known[:begins] >= high / 2) < _RESTED or last > 2 * known.min()):
        return None
    return high, last, int(rows[begins])


def _begins(known: NDArray[np.float64], high: float) -> int:
    """The first row below the highest scale, or below half of it where it rested there for long."""
    whole, half = (int(np.flatnonzero(known >= level)[-1]) + 1 for level in (high, high / 2))
    return min(whole if half - whole <= max(_RESTED, len(known) // 20) else half, len(known) - 1)


def _skipped(track: Track) -> tuple[float | None, float | None]:
    """Share of the later half's steps that were skipped, and their number."""
    if len(track.values) < 3 or not track.stepped:
        return None, None
    half = len(track.values) // 2
    values, steps = track.values, track.steps
    passed = float(steps[-1] - steps[half - 1])
    count = float(values[-1] - values[half - 1]) if _counts_up(values) else float(np.nansum(values[half:]))
    return (count / passed, count) if passed > 0 else (None, None)


def _counts_up(values: NDArray[np.float64]) -> bool:
    """Whether a count runs from the start (DeepSpeed, watch) or is that of each record (Megatron)."""
    return bool(np.all(np.diff(values) >= 0))


def _finding(
    scene: Scene,
    track: Track,
    fallen: tuple[float, float, int] | None,
    share: float | None,
    count: float | None,
    limit: float,
) -> Finding:
    parts, causes = [], []
    row, severity = len(track.values) // 2, "warning"
    if fallen is not None:
        high, last, row = fallen
        parts.append(f"the loss scale fell from {high:,.4g} to {last:.3g}, and stays there")
        causes.append(f"gradients overflow at any scale: {np.log2(high / last) if last > 0 else np.inf:.0f} halvings")
    if share is not None and count is not None and share >= limit:
        parts.append(
            f"{share:.0%} of the later half's steps ({count:,.0f}) were skipped because a gradient was not finite"
        )
    lost = fallen is not None and fallen[1] <= _LEVEL * 2.0**-_HALVINGS
    if lost or (share is not None and share >= 0.5) or np.isinf(scene.loss.last):
        severity = "critical"
    causes.append("an operation overflows float16 in forward or backward; nonfinite_grads by layer would tell where")
    level: Severity = "critical" if severity == "critical" else "warning"
    return Finding(
        _KIND,
        level,
        scene.run,
        "; ".join(parts),
        metric=track.metric,
        first_step=track.step_at(row),
        last_step=track.step_at(len(track.values) - 1),
        evidence={
            "highest_scale": fallen[0] if fallen else None,
            "last_scale": fallen[1] if fallen else None,
            "skipped_share": share,
            "limit": limit,
            "skipped": count,
            "split": track.split,
        },
        causes=tuple(causes),
        suggestions=_TRY,
    )
