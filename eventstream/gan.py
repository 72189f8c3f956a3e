"""The numbers of a GAN by the names under which an analysis looks for them, sub-discriminators apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eventstream.values import plain_text

__all__ = ["gan_metrics"]


def gan_metrics(**given: Any) -> dict[str, Any]:
    """Metric names with what was given for each: a number under the name itself, a mapping under `name/key`.

    None is left out, at either level. Nothing is added up or averaged: a sum that the training does not make would
    hide a sub-discriminator that has won.

    >>> gan_metrics(d_loss=1.2, d_real={"mpd.0": 0.9, "msd.0": 0.5}, diversity=None)
    {'d_loss': 1.2, 'd_real/mpd.0': 0.9, 'd_real/msd.0': 0.5}
    """
    metrics: dict[str, Any] = {}
    for name, value in given.items():
        if isinstance(value, Mapping):
            metrics |= {f"{name}/{plain_text(key)}": inner for key, inner in value.items() if inner is not None}
        elif value is not None:
            metrics[name] = value
    return metrics
