"""A discriminator that knows its training images by heart, by the statistic that adaptive augmentation steers."""

from __future__ import annotations

from analysis.adversarial.gan_signals import Signal, held_since
from analysis.findings import Finding
from analysis.limits import Gauge

__all__ = ["discriminator_overfitting"]

#: What adaptive augmentation holds r_t at (Karras et al. 2020).
TARGET = 0.6
_LONG = 0.2


def discriminator_overfitting(run: str, signal: Signal, gauge: Gauge) -> Finding | None:
    """r_t, the mean sign of D's outputs on training images, at 0.9 or above for the last fifth of the run."""
    kind, n = "discriminator-overfitting", len(signal.value)
    late = signal.level(1 - _LONG, 1.0)
    gauge.keep(kind, late, signal.metric)
    limit = gauge.limits.of(kind, signal.metric)
    since = held_since(signal.value >= limit)
    if late < limit or since is None or n - since < _LONG * n:
        return None
    first, last = (int(signal.x[since]), int(signal.x[-1])) if signal.has_steps else (None, None)
    return Finding(
        kind,
        "warning",
        run,
        f"{signal.metric} (r_t) is {late:.2f}: the discriminator calls {(1 + late) / 2:.0%} of the training data real, "
        f"where adaptive augmentation aims at {(1 + TARGET) / 2:.0%}",
        metric=signal.metric,
        first_step=first,
        last_step=last,
        evidence={"r_t": late, "limit": limit, "target": TARGET, "share_of_run": 1 - since / n},
        causes=("the data are too few for this discriminator, which learns them by heart (r_t near 1)",),
        suggestions=(
            "adaptive augmentation of what the discriminator sees, or a higher bound for its strength",
            "more data, a smaller discriminator, or a stronger gradient penalty",
        ),
    )
