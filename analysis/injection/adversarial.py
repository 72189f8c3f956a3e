"""Faults of GANs: samples that lose their variety, a player that wins outright."""

from __future__ import annotations

import math

import numpy as np

from analysis.injection.draft import Draft, Part
from analysis.injection.fault import Fault
from analysis.injection.shapes import Floats, ramp

__all__ = ["FAULTS"]

_RECORD = "record it: rec.log(step, {'g_loss': g, 'd_loss': d, 'diversity': variety}, split='train')"


def _collapse(draft: Draft) -> None:
    variety = draft.wanted("diversity", _RECORD)
    length = draft.length(draft.begin(variety).rest / 10)
    draft.scale(variety, lambda rows: np.asarray(draft.size ** -ramp(rows, length)))


def _discriminator(draft: Draft) -> None:
    _won(draft, "discriminator_loss", "generator_loss", real=1.0, fake=0.0)


def _generator(draft: Draft) -> None:
    _won(draft, "generator_loss", "discriminator_loss", real=0.5, fake=1.0)


def _won(draft: Draft, winner: str, loser: str, *, real: float, fake: float) -> None:
    """The winner's loss falls to 1 / `size`, the loser's grows with its logarithm, outputs go to what they then are."""
    won = draft.wanted(winner, _RECORD)
    lost = draft.run.roles[loser].series
    if lost is None:
        raise draft.refused(f"the log has no {loser.replace('_', ' ')}; {_RECORD}")
    length = draft.length(draft.begin(won).rest / 10)
    draft.scale(won, lambda rows: np.asarray(draft.size ** -ramp(rows, length)))
    if not draft.consequences:
        return
    draft.scale(lost, lambda rows: np.asarray(1 + math.log(draft.size) * ramp(rows, length)))
    share = 1 - 1 / draft.size
    for role, goal in (("d_real", real), ("d_fake", fake)):
        for series in draft.of_role(role):
            draft.change(series, lambda part, goal=goal: _towards(part, goal, share * ramp(part.rows, length)))  # type: ignore[misc]


def _towards(part: Part, goal: float, share: Floats) -> Floats:
    """Outputs that are probabilities, on their way to another; others stay."""
    if not ((part.value >= 0) & (part.value <= 1)).all():
        return part.value
    return part.value + (goal - part.value) * share


FAULTS = (
    Fault(
        "mode-collapse",
        "the diversity of samples falls to 1 / `size` within `length` rows (a tenth of what is left)",
        _collapse, "times less diverse", 20.0, 1.0, 1.0, 1e9, tolerance=0.15,
    ),
    Fault(
        "discriminator-dominance",
        "the discriminator's loss falls to 1 / `size` within `length` rows (a tenth of what is left), the generator's "
        "grows to 1 + ln(size) times, D(real) and D(fake) go to 1 and 0",
        _discriminator, "times smaller", 1000.0, 1.0, 1.0, 1e9, tolerance=0.15,
    ),
    Fault(
        "generator-dominance",
        "the generator's loss falls to 1 / `size` within `length` rows (a tenth of what is left), the discriminator's "
        "grows to 1 + ln(size) times, D(fake) goes to 1",
        _generator, "times smaller", 1000.0, 1.0, 1.0, 1e9, tolerance=0.15,
    ),
)  # fmt: skip
