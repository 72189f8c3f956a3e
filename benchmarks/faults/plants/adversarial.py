"""Faults of a GAN, really trained: a generator that draws less and less, and players of unequal strength."""

from __future__ import annotations

import math

from benchmarks.faults.effects import level
from benchmarks.faults.gan import Bend, train_gan
from benchmarks.faults.planting import NAMED, Draw, NotPlantedError, Planted, close_to, plants
from benchmarks.faults.trace import Trace

__all__ = ["discriminator_dominance", "generator_dominance", "mode_collapse"]

#: D's loss when it cannot tell real from fake.
BALANCE = {"bce": 2 * math.log(2), "lsgan": 0.5, "hinge": 2.0}


def _fifth(trace: Trace, metric: str) -> float:
    values = trace.series(metric)[1]
    return level(values[-max(5, len(values) // 5) :])


@plants("mode-collapse", families=("gan",), formats=NAMED, points=(100, 160))
def mode_collapse(draw: Draw) -> Planted:
    """The noise that the generator is fed loses its spread, and training makes the most of what is left of it."""
    row = draw.place(0.4, 0.6)
    onset = row * draw.recipe.every
    best: tuple[float, Trace] | None = None
    low, high = 0.0, 1.0
    for _ in range(5):
        middle = (low + high) / 2 if draw.magnitude > 1 or best else 0.999
        trace = train_gan(draw.recipe, Bend(onset=onset, narrow=middle))
        values = trace.series("diversity")[1]
        found = _fifth(trace, "diversity") / level(values[max(0, row - 10) : row])
        if best is None or abs(math.log(found / draw.size)) < abs(math.log(best[0] / draw.size)):
            best = found, trace
        if abs(math.log(best[0] / draw.size)) < 0.15:
            break
        low, high = (middle, high) if found > draw.size else (low, middle)
    assert best is not None
    size = close_to(best[0], draw.size, 1.15 if draw.size > 0.6 else 1.6, "diversity that is left")
    return Planted(best[1], size, onset, metric="diversity")


@plants("discriminator-dominance", families=("gan",), formats=NAMED, points=(100, 160))
def discriminator_dominance(draw: Draw) -> Planted:
    """From one row on the generator's rate is cut and the discriminator sees no instance noise: it wins by as much."""
    row = draw.place(0.3, 0.5)
    onset, wanted = row * draw.recipe.every, draw.size
    tries = [(1 / 3, 0.5), (0.1, 0.25), (0.01, 0.0), (0.5, 0.7), (0.0, 0.0), (0.03, 0.1)]
    best: tuple[float, Trace] | None = None
    for rate, noise in tries:
        bend = Bend(onset=onset, generator_rate=rate, quiet=1 - noise)
        trace = train_gan(draw.recipe, bend)
        found = _fifth(trace, "d_loss") / BALANCE[draw.recipe.get("gan", "bce")]
        if best is None or abs(math.log(max(found, 1e-6) / wanted)) < abs(math.log(max(best[0], 1e-6) / wanted)):
            best = found, trace
        if abs(math.log(max(found, 1e-6) / wanted)) < 0.3:
            break
    assert best is not None
    size = close_to(best[0], wanted, 1.5 if wanted > 0.1 else 3.0, "D's loss over its equilibrium")
    return Planted(best[1], size, onset, metric="d_loss")


@plants("generator-dominance", families=("gan",), formats=NAMED, points=(100, 160))
def generator_dominance(draw: Draw) -> Planted:
    """From one row on the generator takes many steps for one of a discriminator that hardly learns: fakes pass better
    than what is real.
    """
    row = draw.place(0.3, 0.5)
    onset = row * draw.recipe.every
    span = 2.0 if draw.recipe.get("gan", "bce") == "hinge" else 1.0
    best: tuple[float, Trace] | None = None
    for steps, rate in ((3, 0.1), (2, 0.3), (4, 0.03), (2, 0.6), (4, 0.01), (1, 0.3)):
        trace = train_gan(draw.recipe, Bend(onset=onset, generator_steps=steps, discriminator_rate=rate))
        found = (_fifth(trace, "d_fake") - _fifth(trace, "d_real")) / span
        if found > 0 and (best is None or abs(math.log(found / draw.size)) < abs(math.log(best[0] / draw.size))):
            best = found, trace
        if best is not None and abs(math.log(best[0] / draw.size)) < 0.25:
            break
    if best is None:
        raise NotPlantedError("the discriminator was never fooled")
    size = close_to(best[0], draw.size, 1.6, "D(fake) - D(real)")
    return Planted(best[1], size, onset, metric="d_fake")
