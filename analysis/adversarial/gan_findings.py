"""The three ways in which a GAN fails, read from its losses, the discriminator's outputs and the samples' diversity."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np

from analysis.adversarial.gan_signals import EQUILIBRIA, Equilibrium, Floats, Signal, held_since, running_median
from analysis.adversarial.skill import skill_of
from analysis.findings import Finding, Severity
from analysis.generalisation.trend import block_edges
from analysis.limits import Gauge

__all__ = ["MIN_POINTS", "discriminator_dominance", "generator_dominance", "mode_collapse"]

#: With fewer points nothing can be said to last.
MIN_POINTS = 20
#: A state must hold to the end over so much of the run to be more than an episode of the game.
_LONG = 0.2
#: Samples have lost their diversity for as long as it stands below half of what it held.
_HALF = 0.5
#: D(fake) above D(real) by this share of a perfect D's distance, for long, is no play of a game: one step down its own
#: gradient would set that right.
_WRONG = 0.08
#: Outputs so many times as far apart as the loss rewards, with a generator that climbs, are a game that is lost.
_BEYOND = 2.0
#: Shares of what was held, and of the equilibrium, from which it is critical where the limits are at their defaults.
_NO_VARIETY, _NOTHING = 0.1, 0.02


def mode_collapse(run: str, signal: Signal, gauge: Gauge) -> Finding | None:
    """Diversity that fell to under 30 % of the level it once held (critical: 10 %) and stayed under half of it.

    The level is the best median of a tenth of the run, without the first tenth, where an untrained generator may be
    diverse by accident.
    """
    values = signal.value
    n = len(values)
    edges = block_edges(n, 10)
    levels = [float(np.median(values[a:b])) for a, b in itertools.pairwise(edges)]
    held = max(levels[1:])
    late = signal.level(0.85, 1.0)
    if held <= 0:
        return None
    limit = gauge.limits.of("mode-collapse", signal.metric)
    gauge.keep("mode-collapse", late / held, signal.metric)
    since = held_since(values < max(_HALF, limit) * held)
    if late >= limit * held or since is None or n - since < max(n // 10, 3):
        since = _lost_for_good(values, held, late, min(2 * limit, 1.0))
    if since is None:
        return None
    since = _fall_begins(values, since, held, late)
    scale = gauge.limits.scale("mode-collapse", signal.metric)
    severity: Severity = "critical" if late < _NO_VARIETY * scale * held else "warning"
    return Finding(
        "mode-collapse",
        severity,
        run,
        f"{signal.metric} fell from {held:.3g} to {late:.3g} ({late / held:.0%}){_from(signal, since)} and stayed low",
        metric=signal.metric,
        first_step=_step(signal, since),
        last_step=_step(signal, n - 1),
        evidence={
            "held_level": held,
            "late_level": late,
            "share": late / held,
            "limit": limit,
            "share_of_run": 1 - since / n,
        },
        causes=(
            "the generator runs ahead of the discriminator: too many updates or too high a learning rate (late level)",
            "nothing in the loss rewards variety (held against late level)",
        ),
        suggestions=(
            f"go back to a checkpoint before the fall{_from(signal, since)}",
            "lower the generator's learning rate or its updates per discriminator update",
            "gradient penalty, minibatch discrimination, or a diversity term; check with samples of one batch",
        ),
    )


def _lost_for_good(values: Floats, held: float, late: float, limit: float) -> int | None:
    """Where diversity fell to under `limit` of a level that it had kept, for a fifth of the run or more; else None.

    A game whose diversity swings comes back: the fall must be four times the range of the tenths before it.
    """
    n, middle = len(values), (held + late) / 2
    since = held_since(values < middle)
    if late >= limit * held or since is None or n - since < max(_LONG * n, 5) or since < 0.3 * n:
        return None
    edges = [edge for edge in block_edges(n, 10) if edge <= since]
    before = [float(np.median(values[a:b])) for a, b in itertools.pairwise(edges)][1:]
    return since if len(before) >= 2 and held - late >= 4 * (max(before) - min(before)) else None


def _fall_begins(values: Floats, since: int, held: float, late: float) -> int:
    """The first row of the fall that ends below: after the last one that is within a tenth of what was held."""
    above = np.flatnonzero(values[: since + 1] >= held - 0.1 * (held - late))
    return min(int(above[-1]) + 1, since) if len(above) else since


def discriminator_dominance(
    run: str, signals: Mapping[str, Signal], balance: Equilibrium, gauge: Gauge
) -> Finding | None:
    """A discriminator loss near 0 for long; a warning where G's loss climbed or D's outputs are at their extremes."""
    d = signals["discriminator_loss"]
    kind, late = "discriminator-dominance", d.level(1 - _LONG, 1.0)
    gauge.keep(kind, max(late, 0.0) / balance.discriminator, d.metric)
    limit, scale = gauge.limits.of(kind, d.metric), gauge.limits.scale(kind, d.metric)
    since = held_since(d.value < limit * balance.discriminator)
    n = len(d.value)
    beyond = _beyond_margins(signals, balance)
    if since is None or n - since < _LONG * n:
        since = beyond
    if since is None or n - since < _LONG * n:
        return None
    climb = _climb(signals.get("generator_loss"), d.x[since], balance)
    apart = _separation(signals)
    extreme = (apart is not None and apart > 0.9) or beyond is not None
    severity: Severity = "info"
    if climb >= 1.5 or extreme:
        severity = "critical" if climb >= 3 and late < _NOTHING * scale * balance.discriminator else "warning"
    said = f", while the generator loss grew {climb:.2g} times" if climb >= 1.5 else ""
    said += f", D(real) - D(fake) is {apart:.2f}" if apart is not None else ""
    return Finding(
        "discriminator-dominance",
        severity,
        run,
        f"{d.metric} is {late:.3g} since {_place(d, since)}, {'near 0 ' if beyond is None else ''}where balance "
        f"({balance.family}) is {balance.discriminator:.3g}{said}"
        + (", and D's outputs stand far beyond what its loss rewards" if beyond is not None else ""),
        metric=d.metric,
        first_step=_step(d, since),
        last_step=_step(d, n - 1),
        evidence={
            "late_level": late,
            "share_of_balance": late / balance.discriminator,
            "limit": limit,
            "nearest_equilibrium": balance.discriminator,
            "family": balance.family,
            "share_of_run": 1 - since / n,
            "generator_climb": climb,
            "separation": apart,
        },
        causes=(
            "the discriminator learns faster than the generator (D near 0, G climbing)",
            "the discriminator memorises a small data set, or tells fake by a trivial cue (range, silence, padding)",
        ),
        suggestions=(
            "lower the discriminator's learning rate or update it less often",
            "instance noise, one-sided label smoothing, spectral norm or a gradient penalty",
            "check that real and fake samples pass the same preprocessing",
        ),
    )


def _beyond_margins(signals: Mapping[str, Signal], balance: Equilibrium) -> int | None:
    """The row of D's loss from which its outputs stand twice as far apart as a perfect D's, while G climbs; else None.

    Hinge and least squares reward a distance, and none beyond: outputs drift on only where the generator does not
    answer. Probabilities cannot.
    """
    skill = skill_of(signals, balance)
    if skill is None or skill.by != "separation" or balance.family.removesuffix("-mean") not in ("hinge", "lsgan"):
        return None
    d, g = signals["discriminator_loss"], signals.get("generator_loss")
    since = held_since(running_median(skill.signal.value) > _BEYOND)
    if since is None or g is None or g.level(1 - _LONG, 1.0) < 1.5 * max(g.level(0.0, 0.1), 1e-12):
        return None
    return min(int(np.searchsorted(d.x, skill.signal.x[since])), len(d.x) - 1)


def generator_dominance(run: str, signals: Mapping[str, Signal], balance: Equilibrium, gauge: Gauge) -> Finding | None:
    """A generator loss near 0 for long while the discriminator does worse than guessing; or one that is wrong for long.

    Hinge's generator has no floor: -D(fake) of 0 at balance and of -1, where D takes fake for real, are set on the
    scale of LSGAN (`_share_of_balance`).
    """
    g, d = signals["generator_loss"], signals["discriminator_loss"]
    late_d, apart = d.level(1 - _LONG, 1.0), _separation(signals)
    if (turned := _inverted(run, signals, balance)) is not None:
        return turned
    if late_d < 1.2 * balance.discriminator:
        return None
    shares, late_g = _share_of_balance(g.value, balance), g.level(1 - _LONG, 1.0)
    late = float(np.median(shares[int((1 - _LONG) * len(shares)) :]))
    gauge.keep("generator-dominance", late, g.metric)
    limit = gauge.limits.of("generator-dominance", g.metric)
    since = held_since(shares < limit)
    n = len(g.value)
    if since is None or n - since < _LONG * n:
        return None
    return Finding(
        "generator-dominance",
        "critical" if late_d > 3 * balance.discriminator else "warning",
        run,
        f"{g.metric} is {late_g:.3g} since {_place(g, since)} and {d.metric} {late_d:.3g}, above its balance "
        f"({balance.family}) of {balance.discriminator:.3g}: the discriminator takes fake for real",
        metric=g.metric,
        first_step=_step(g, since),
        last_step=_step(g, n - 1),
        evidence={
            "late_generator": late_g,
            "share_of_balance": late,
            "limit": limit,
            "late_discriminator": late_d,
            "generator_equilibrium": balance.generator,
            "discriminator_equilibrium": balance.discriminator,
            "family": balance.family,
            "separation": apart,
            "share_of_run": 1 - since / n,
        },
        causes=(
            "the discriminator is too weak or hardly updated (its loss above balance)",
            "labels of real and fake are swapped somewhere, or the discriminator's gradients do not reach it",
        ),
        suggestions=(
            "raise the discriminator's learning rate, capacity or updates",
            "check that the discriminator's parameters are in its optimiser and change",
        ),
    )


def _inverted(run: str, signals: Mapping[str, Signal], balance: Equilibrium) -> Finding | None:
    """A discriminator whose outputs are higher on fake than on real, to the end: whatever the losses are."""
    skill = skill_of(signals, balance)
    if skill is None or skill.by != "separation":
        return None
    apart, n = skill.signal, len(skill.signal.value)
    late = apart.level(1 - _LONG, 1.0)
    since = held_since(running_median(apart.value) < late / 2)
    if late > -_WRONG or since is None or n - since < _LONG * n:
        return None
    if since >= 5:
        since = _fall_begins(running_median(apart.value), since, float(np.median(apart.value[:since])), late)
    return Finding(
        "generator-dominance",
        "warning",
        run,
        f"{apart.metric} is {late:.0%} of a perfect discriminator's since {_place(apart, since)}: the discriminator "
        "takes fake for real, and real for fake",
        metric=signals["generator_loss"].metric,
        first_step=_step(apart, since),
        last_step=_step(apart, n - 1),
        evidence={
            "skill": late,
            "least_skill": -_WRONG,
            "family": balance.family,
            "late_discriminator": signals["discriminator_loss"].level(1 - _LONG, 1.0),
            "late_generator": signals["generator_loss"].level(1 - _LONG, 1.0),
            "share_of_run": 1 - since / n,
        },
        causes=(
            "labels of real and fake are swapped somewhere, or the sign of D's loss is wrong (skill below 0)",
            "the discriminator is too slow for the generator: its learning rate, or its updates (share_of_run)",
        ),
        suggestions=(
            "check the labels of real and fake where D's loss is made, at the step named",
            "raise the discriminator's learning rate, capacity or updates",
        ),
    )


def _share_of_balance(generator: Floats, balance: Equilibrium) -> Floats:
    """G's loss as a share of its equilibrium; of hinge's, (1 - D(fake))^2, which is LSGAN's with targets -1 and 1."""
    if balance.generator is not None:
        return np.maximum(generator, 0.0) / balance.generator
    of_one = next(one for one in EQUILIBRIA if one.family == balance.family).discriminator
    mean = generator / (balance.discriminator / of_one)
    return np.asarray(np.maximum(1 + mean, 0.0) ** 2)


def _climb(generator: Signal | None, since: float, balance: Equilibrium) -> float:
    """How many times G's loss grew from before `since` (else from its balance) to the last fifth; 0 where unknown."""
    if generator is None or len(generator.value) < MIN_POINTS:
        return 0.0
    before = generator.value[generator.x < since]
    start = float(np.median(before)) if len(before) >= 5 else balance.generator
    if start is None or start <= 0:
        return 0.0
    return generator.level(1 - _LONG, 1.0) / start


def _separation(signals: Mapping[str, Signal]) -> float | None:
    """Late D(real) - D(fake) where both are probabilities, else None."""
    real, fake = signals.get("d_real"), signals.get("d_fake")
    if real is None or fake is None:
        return None
    if min(real.value.min(), fake.value.min()) < 0 or max(real.value.max(), fake.value.max()) > 1:
        return None
    return real.level(1 - _LONG, 1.0) - fake.level(1 - _LONG, 1.0)


def _step(signal: Signal, index: int) -> int | None:
    return int(signal.x[index]) if signal.has_steps else None


def _place(signal: Signal, index: int) -> str:
    return f"{'step' if signal.has_steps else 'record'} {signal.x[index]:.0f}"


def _from(signal: Signal, index: int) -> str:
    return f" from {_place(signal, index)} on"
