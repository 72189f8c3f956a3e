"""Faults of a training loss: it leaps, climbs, stands, swings, is not finite, or becomes noisier."""

from __future__ import annotations

import numpy as np

from analysis.injection.draft import Draft, Part
from analysis.injection.fault import Fault
from analysis.injection.follow import follow, losses_become, norms_become
from analysis.injection.shapes import Floats, parted, ramp

__all__ = ["FAULTS", "RECORD_LOSS"]

RECORD_LOSS = "record it: rec.log(step, {'loss': loss}, split='train')"


def _leap(draft: Draft) -> None:
    """The loss at `size` times its own value, going back over `length` rows."""
    loss = draft.wanted("train_loss", RECORD_LOSS)
    draft.begin(loss)
    length = draft.length(3)

    def factor(rows: Floats) -> Floats:
        back = np.exp(-3.0 * np.maximum(rows, 0.0) / length)
        return np.where((rows >= 0) & (rows < length), 1 + (draft.size - 1) * back, 1.0)

    draft.scale(loss, factor)
    follow(draft, loss, factor, norms=1.0)


def _climb(draft: Draft) -> None:
    loss = draft.wanted("train_loss", RECORD_LOSS)
    length = draft.length(draft.begin(loss).rest)

    def factor(rows: Floats) -> Floats:
        return np.asarray(draft.size ** ramp(rows, length))

    draft.scale(loss, factor)
    follow(draft, loss, factor, norms=1.0)


def _shift(draft: Draft) -> None:
    loss = draft.wanted("train_loss", RECORD_LOSS)
    draft.begin(loss)

    def factor(rows: Floats) -> Floats:
        return np.where(rows >= 0, draft.size, 1.0)

    draft.scale(loss, factor)
    follow(draft, loss, factor)


def _swing(draft: Draft) -> None:
    loss = draft.wanted("train_loss", RECORD_LOSS)
    period = max(draft.length(draft.begin(loss).rest // 20), 4.0)

    def factor(rows: Floats) -> Floats:
        return np.asarray(1 + draft.size / 2 * np.sin(2 * np.pi * rows / period) * (rows >= 0))

    draft.scale(loss, factor)
    follow(draft, loss, factor)


def _stand(draft: Draft) -> None:
    """From the onset on the trend keeps its level; the noise is that of the run."""
    loss = draft.wanted("train_loss", RECORD_LOSS)
    draft.begin(loss)

    def stood(part: Part) -> Floats:
        own = parted(part.value)
        if not part.inside.any():
            return part.value
        level = own.trend[np.flatnonzero(part.inside)[0]]
        trend = np.where(part.inside, own.trend + draft.size * (level - own.trend), own.trend)
        return np.where(part.inside, own.joined(trend, own.noise), part.value)

    losses_become(draft, loss, stood)


def _noisier(draft: Draft) -> None:
    loss = draft.wanted("train_loss", RECORD_LOSS)
    draft.begin(loss)

    def spread(part: Part) -> Floats:
        own = parted(part.value)
        return np.where(part.inside, own.joined(own.trend, draft.size * own.noise), part.value)

    losses_become(draft, loss, spread)


def _not_finite(draft: Draft) -> None:
    loss = draft.wanted("train_loss", RECORD_LOSS)
    draft.begin(loss)

    def factor(rows: Floats) -> Floats:
        return np.where((rows >= 0) & (rows < draft.size), np.nan, 1.0)

    draft.scale(loss, factor)
    follow(draft, loss, factor, norms=1.0)


def _hidden(draft: Draft) -> None:
    """What transformers' filter makes of NaN: the loss reads 0, the gradient norm does not lie."""
    loss = draft.wanted("train_loss", RECORD_LOSS)
    if not draft.of_role("grad_norm"):
        raise draft.refused("no gradient norm stands beside the loss; record it: rec.log(step, {'grad_norm': norm})")
    draft.begin(loss)
    draft.scale(loss, lambda rows: np.where((rows >= 0) & (rows < draft.size), 0.0, 1.0))
    norms_become(draft, lambda rows: np.where((rows >= 0) & (rows < draft.size), np.nan, 1.0))


_LONE = ("accuracy", "error_rate", "reward", "throughput", "memory", "grad_norm", "perplexity")


def _outlier(draft: Draft) -> None:
    """One value off by `size` spreads of the series' own noise."""
    name = next((role for role in _LONE if draft.run.roles[role]), "accuracy")
    series = draft.wanted(name, "record a number beside the loss")
    draft.begin(series)
    side = float(draft.chance.choice([-1.0, 1.0]))

    def off(part: Part) -> Floats:
        own = parted(part.value)
        finite = part.value[np.isfinite(part.value)]
        spread = 1.4826 * float(np.median(np.abs(own.noise - np.median(own.noise))))
        spread = spread * float(np.median(np.abs(finite))) if own.times and len(finite) else spread
        return np.where((part.rows >= 0) & (part.rows < 1), part.value + side * draft.size * spread, part.value)

    draft.change(series, off)


FAULTS = (
    Fault(
        "loss-spike",
        "the training loss leaps to `size` times its own value and comes back within `length` rows (3); its parts and "
        "the gradient norm leap with it. A `length` of hundreds comes back slowly, one beyond the end never",
        _leap, "times the loss", 3.0, 1.0, 1.0, 1e6,
    ),
    Fault(
        "divergence",
        "the training loss climbs, by the end (or over `length` rows) to `size` times what it was there; its parts and "
        "the gradient norm climb with it",
        _climb, "times the loss", 10.0, 1.0, 1.0, 1e6, tolerance=0.2,
    ),
    Fault(
        "level-shift",
        "the training loss and its parts stand at `size` times their values from there on",
        _shift, "times the loss", 2.0, 1.0, 1.0, 1e6,
    ),
    Fault(
        "plateau",
        "the trend of the training loss stands still from there on: `size` of what it would still have changed is "
        "taken away, the noise is kept. Visible where the loss would still have fallen",
        _stand, "share of the later change", 1.0, 0.0, 0.0, 1.0, tolerance=0.15,
    ),
    Fault(
        "oscillation",
        "the training loss and its parts swing by `size` of their level from trough to crest, once every `length` rows "
        "(a twentieth of the rows that are left)",
        _swing, "of the level, trough to crest", 0.5, 0.0, 0.0, 1.9, tolerance=0.3,
    ),
    Fault(
        "variance-shift",
        "the noise of the training loss around its trend becomes `size` times as large",
        _noisier, "times the noise", 4.0, 1.0, 1.0, 100.0,
    ),
    Fault(
        "non-finite",
        "the training loss, its parts and the gradient norm are NaN for `size` rows",
        _not_finite, "rows", 10.0, 0.0, 1.0, 1e9, counted=True,
    ),
    Fault(
        "hidden-non-finite",
        "the training loss reads 0 for `size` rows while the gradient norm is NaN, as a filter of NaN leaves them",
        _hidden, "rows", 10.0, 0.0, 1.0, 1e9, counted=True,
    ),
    Fault(
        "outlier",
        "one value of a score (else of speed, memory, gradient norm) lies `size` spreads of its own noise "
        "higher or lower",
        _outlier, "spreads of the noise", 30.0, 0.0, 0.0, 1e6, info=True,
    ),
)  # fmt: skip
