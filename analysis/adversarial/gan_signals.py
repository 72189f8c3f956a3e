"""Which series of a run describe a GAN, which equilibrium its losses belong to, and levels that they hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.adversarial.phases import LEADING
from analysis.generalisation.pairing import OVERFLOWN
from parsers.naming.role_layout import SeriesRole
from parsers.run import Run

__all__ = [
    "EQUILIBRIA",
    "Equilibrium",
    "Floats",
    "Signal",
    "equilibrium_of",
    "family_by_outputs",
    "find_signals",
    "held_since",
    "running_median",
    "signal_of",
]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Equilibrium:
    """Losses of a GAN family when the discriminator cannot tell real from fake (derived from the loss definitions).

    BCE: Goodfellow et al. 2014 (D 2 ln 2, non-saturating G ln 2); LSGAN: Mao et al. 2017 with targets 0 and 1; hinge:
    Lim and Ye 2017 (G is -D(fake), 0). `mean` families average the two halves of D instead of adding them.
    """

    family: str
    discriminator: float
    generator: float | None


EQUILIBRIA = (
    Equilibrium("bce", 2 * math.log(2), math.log(2)),
    Equilibrium("bce-mean", math.log(2), math.log(2)),
    Equilibrium("lsgan", 0.5, 0.25),
    Equilibrium("lsgan-mean", 0.25, 0.25),
    Equilibrium("hinge", 2.0, None),
    Equilibrium("hinge-mean", 1.0, None),
)

#: The roles that describe a GAN (`run.roles`). In the names of pix2pix and CycleGAN, D_real and D_fake are losses: they
#: are taken as such where G_GAN stands beside them.
_ROLES = ("generator_loss", "discriminator_loss", "d_real", "d_fake", "g_adversarial", "diversity")

#: Rows that must tell of a family, and how near D's loss must be to what its outputs foretell (on the logarithm).
_MATCHED, _NEAR = 10, 0.2


@dataclass(frozen=True, eq=False)
class Signal:
    """One series of a GAN: its role, name, steps (record numbers where unknown) and finite values, in order."""

    role: str
    metric: str
    x: Floats
    value: Floats
    has_steps: bool

    def level(self, start: float, stop: float) -> float:
        """Median of the part between two shares of the series."""
        n = len(self.value)
        first = min(int(start * n), n - 1)
        return float(np.median(self.value[first : max(round(stop * n), first + 1)]))


def find_signals(run: Run) -> dict[str, Signal]:
    """The series that stands for the run in each GAN role (`run.roles`), of the first rank and of training.

    Roles: generator_loss, discriminator_loss, d_real, d_fake (outputs of the discriminator), diversity. D_real and
    D_fake beside G_GAN are losses (pix2pix's names): their sum becomes the discriminator loss.

    >>> from parsers.finish import finish
    >>> rows = pl.DataFrame({"tag": ["g_loss", "d_loss", "d_real"], "step": [1] * 3, "value": [0.7, 1.4, 0.5]})
    >>> sorted(find_signals(finish("r", "r", "jsonl", rows)))
    ['d_real', 'discriminator_loss', 'generator_loss']
    """
    signals = {}
    for role in _ROLES:
        chosen = run.roles[role].series
        if chosen is not None and chosen.side == "train":
            signals[role] = signal_of(run, role, chosen)
    found = {role: signal for role, signal in signals.items() if len(signal.value)}
    return _as_losses(found) if "g_adversarial" in found else found


def signal_of(run: Run, role: str, chosen: SeriesRole) -> Signal:
    """The finite values of one series, of the first rank, from where they are not exactly 0 on (`phases`)."""
    rows = run.series(chosen.metric, split=chosen.split)
    rows = rows.filter((pl.col("tag") == chosen.tag) & (pl.col("rank") == pl.col("rank").min()))
    rows = rows.filter(pl.col("value").abs() <= OVERFLOWN)
    has_steps = rows["step"].null_count() == 0
    if has_steps:
        rows = rows.sort("step", maintain_order=True)
    x = rows["step"].cast(pl.Float64).to_numpy() if has_steps else np.arange(float(rows.height))
    value = rows["value"].to_numpy()
    begun = _begun(value)
    return Signal(role, chosen.metric, x[begun:], value[begun:], has_steps)


def _begun(value: Floats) -> int:
    """The first row of the game: three zeros or more at the beginning are rows before it."""
    first = int(np.argmax(value != 0)) if value.any() else len(value)
    return first if first >= LEADING else 0


def _as_losses(signals: dict[str, Signal]) -> dict[str, Signal]:
    """pix2pix's names: G_GAN is the generator loss, D_real + D_fake the discriminator loss."""
    generator = signals.pop("g_adversarial")
    real, fake = signals.get("d_real"), signals.get("d_fake")
    signals["generator_loss"] = Signal(
        "generator_loss", generator.metric, generator.x, generator.value, generator.has_steps
    )
    if real is not None and fake is not None and len(real.value) == len(fake.value):
        del signals["d_real"], signals["d_fake"]
        name = f"{real.metric} + {fake.metric}"
        signals.setdefault(
            "discriminator_loss",
            Signal("discriminator_loss", name, real.x, real.value + fake.value, real.has_steps),
        )
    return signals


def equilibrium_of(highest: float, family: str | None, discriminators: int = 1, *, exact: bool = False) -> Equilibrium:
    """The equilibrium of a family, or of the likeliest one where none is given.

    `highest` is about the highest discriminator loss of the early run. A discriminator that learns does no worse than
    guessing, so the smallest equilibrium that is not clearly below it is taken (the greatest where all are). A family
    without `-mean` is its sum or its mean, which logs seldom tell apart. `discriminators` is the number of
    sub-discriminators whose losses are added (8 in HiFi-GAN). `exact` takes a family without `-mean` for the sum.

    >>> equilibrium_of(1.30, None).family, equilibrium_of(4.1, "lsgan", 8).discriminator
    ('bce', 4.0)
    """
    known = [e for e in EQUILIBRIA if family in (None, e.family, *([] if exact else [e.family.removesuffix("-mean")]))]
    fitting = [e for e in known if e.discriminator * discriminators >= 0.85 * highest]
    chosen = min(fitting, key=lambda e: e.discriminator) if fitting else max(known, key=lambda e: e.discriminator)
    generator = None if chosen.generator is None else chosen.generator * discriminators
    return Equilibrium(chosen.family, chosen.discriminator * discriminators, generator)


def running_median(values: Floats) -> Floats:
    """The median of each row with two before and two after it, fewer at the ends.

    >>> running_median(np.array([0.0, 0.0, 9.0, 0.0, 0.0])).tolist()
    [0.0, 0.0, 0.0, 0.0, 0.0]
    """
    padded = np.pad(np.asarray(values, np.float64), 2, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 5)
    return np.asarray(np.median(windows, axis=1))


def family_by_outputs(signals: Mapping[str, Signal], family: str | None = None) -> tuple[str | None, bool]:
    """The family whose losses follow from D's first outputs, else `family`; and whether sum or mean is sure.

    A discriminator that wins from the first rows on never shows the loss of a guess, by which a family is known
    otherwise. Probabilities: D's loss is about -ln D(real) - ln(1 - D(fake)) of BCE, (1 - D(real))^2 + D(fake)^2 of
    LSGAN, or half of these. Others: G's loss is -D(fake) of hinge, and of a Wasserstein critic (`wgan`), whose loss is
    the distance of its outputs.
    """
    names = ("discriminator_loss", "d_real", "d_fake", "generator_loss")
    if any(name not in signals for name in names) or len({len(signals[name].value) for name in names}) > 1:
        return family, False
    d, real, fake, g = (signals[name].value for name in names)
    if len(d) < _MATCHED:
        return family, False
    if min(real.min(), fake.min()) >= 0 and max(real.max(), fake.max()) <= 1:
        return _of_probabilities(d[:_MATCHED], real[:_MATCHED], fake[:_MATCHED], family)
    if family is not None or float(fake.min()) > -0.5 or not _about(g, -fake):
        return family, False
    return ("wgan" if _about(np.abs(d), np.abs(real - fake)) else "hinge"), False


def _about(one: Floats, other: Floats) -> bool:
    return float(np.median(np.abs(one - other))) < 0.1 * float(np.median(np.abs(one)))


def _of_probabilities(d: Floats, real: Floats, fake: Floats, family: str | None) -> tuple[str | None, bool]:
    bce = -np.log(np.maximum(real, 1e-6)) - np.log(np.maximum(1 - fake, 1e-6))
    sums = {"bce": bce, "lsgan": (1 - real) ** 2 + fake**2}
    guesses = {name + "-mean" * half: total / (1 + half) for name, total in sums.items() for half in (0, 1)}
    size = np.maximum(np.abs(d), 1e-9)
    away = {
        name: float(np.median(np.abs(np.log(size / np.maximum(guess, 1e-9)))))
        for name, guess in guesses.items()
        if family in (None, name, name.removesuffix("-mean"))
    }
    best, *others = sorted(away, key=lambda name: away[name]) or [""]
    sure = best and away[best] < _NEAR and all(away[best] + _NEAR / 2 < away[one] for one in others)
    return (best, True) if sure else (family, False)


def held_since(inside: NDArray[np.bool_], *, share: float = 0.9) -> int | None:
    """First index from which on at least `share` of the values are inside to the end, the last few included.

    None where the last tenth itself is not inside by that share.

    >>> held_since(np.array([False] * 50 + [True] * 50))
    50
    """
    n = len(inside)
    if n == 0 or inside[-max(n // 10, 1) :].mean() < share:
        return None
    from_here = np.cumsum(inside[::-1])[::-1] / np.arange(n, 0, -1)
    good = np.flatnonzero((from_here >= share) & inside)
    return int(good[0]) if len(good) else None
