"""Faults of a GAN, really trained: a generator that draws less and less, and players of unequal strength."""

from __future__ import annotations

import math

from benchmarks.faults.effects import level
from benchmarks.faults.gan import Bend, train_gan
from benchmarks.faults.planting import NAMED, Draw, Planted, close_to, plants
from benchmarks.faults.trace import Trace

__all__ = ["discriminator_dominance", "generator_dominance", "mode_collapse"]

#: D's loss when it cannot tell real from fake.
BALANCE = {"bce": 2 * math.log(2), "lsgan": 0.5, "hinge": 2.0}


def _fifth(trace: Trace, metric: str) -> float:
    values = trace.series(metric)[1]
    return level(values[-max(5, len(values) // 5) :])


@plants("mode-collapse", families=("gan",), formats=NAMED, points=(100, 160, 240))
def mode_collapse(draw: Draw) -> Planted:
    """The noise that the generator is fed loses its spread, and training makes the most of what is left of it."""
    row = draw.place(0.4, 0.6)
    trace = train_gan(draw.recipe, Bend(onset=row * draw.recipe.every, thin=draw.size))
    before = level(trace.series("diversity")[1][max(0, row - 10) : row])
    left = _fifth(trace, "diversity") / before
    size = close_to(left, draw.size, 1.12 if draw.size > 0.6 else 1.6, "diversity that is left")
    return Planted(trace, size, row * draw.recipe.every, metric="diversity", extra={"before": before})


@plants("discriminator-dominance", families=("gan",), formats=NAMED, points=(100, 160, 240))
def discriminator_dominance(draw: Draw) -> Planted:
    """From early on the generator is trained only while D's loss is down at that share of its balance."""
    row, balance = int(draw.rng.integers(2, 5)), BALANCE[draw.recipe.get("gan", "bce")]
    trace = train_gan(draw.recipe, Bend(onset=row * draw.recipe.every, won=draw.size * balance))
    found = max(_fifth(trace, "d_loss") / balance, 1e-4)
    size = close_to(found, draw.size, 1.5 if draw.size >= 0.15 else 5.0, "D's loss over its equilibrium")
    return Planted(trace, size, row * draw.recipe.every, metric="d_loss")


@plants("generator-dominance", families=("gan",), formats=NAMED, points=(100, 160, 240))
def generator_dominance(draw: Draw) -> Planted:
    """From one row on the discriminator has a bug: slow, and swapped labels until fakes pass for real by so much."""
    row = draw.place(0.3, 0.5)
    span = 2.0 if draw.recipe.get("gan", "bce") == "hinge" else 1.0
    trace = train_gan(draw.recipe, Bend(onset=row * draw.recipe.every, gap=draw.size * span))
    found = (_fifth(trace, "d_fake") - _fifth(trace, "d_real")) / span
    size = close_to(found, draw.size, 1.6, "D(fake) - D(real)")
    return Planted(trace, size, row * draw.recipe.every, metric="d_fake")
