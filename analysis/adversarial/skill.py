"""How well the discriminator tells real from fake, and whether it ever did: what parts balance from learned nothing."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from analysis.adversarial.gan_signals import Equilibrium, Floats, Signal
from analysis.findings import Finding, Severity
from analysis.limits import Gauge

__all__ = ["FEWEST", "Skill", "begins", "blocks", "discriminator_idle", "skill_of"]

#: With fewer points nothing can be said to last.
FEWEST = 20
#: Rows of the first block; each further one holds as many as all before it.
_FIRST = 5
#: D(real) - D(fake) that counts as 1: the distance of the targets of LSGAN and the margins of hinge. BCE has none: two
#: logits as of hinge, and about half as probabilities, whose slope in the middle is a fourth.
_SPANS = {"probabilities": 0.5, "lsgan": 1.0, "hinge": 2.0, "logits": 2.0}


@dataclass(frozen=True, slots=True)
class Skill:
    """How well D tells real from fake in each block of the run: 0 for a guess, about 1 for outputs at their targets.

    `by` says from what: `separation` (D(real) - D(fake), over the distance of their targets) or `loss` (1 - D's loss
    over its equilibrium). `levels` are the medians of blocks of 5, 5, 10, 20, 40, ... rows: what D could only in the
    beginning counts however long the run goes on.
    """

    by: str
    metric: str
    levels: tuple[float, ...]
    signal: Signal

    @property
    def best(self) -> float:
        """The level that is farthest from a guess, whichever side of it."""
        return max(self.levels, key=abs)

    @property
    def late(self) -> float:
        """The level of the last block, about half of the run."""
        return self.levels[-1]


def blocks(n: int) -> list[tuple[int, int]]:
    """First and past-the-last row of blocks that double: 5, 5, 10, 20, ... rows, the last to the end.

    >>> blocks(50)
    [(0, 5), (5, 10), (10, 20), (20, 50)]
    """
    edges = [0, _FIRST]
    while edges[-1] * 2 < n:
        edges.append(edges[-1] * 2)
    if len(edges) > 2 and n - edges[-1] < edges[-1]:
        edges.pop()
    return list(itertools.pairwise([*edges[:-1], n] if edges[-1] >= n else [*edges, n]))


def skill_of(signals: Mapping[str, Signal], balance: Equilibrium | None) -> Skill | None:
    """The skill by D's outputs where both are logged, else by its loss; None with neither or fewer than 20 points.

    Outputs between 0 and 1 are probabilities where the family is not known; a Wasserstein critic's have no scale.
    """
    real, fake = signals.get("d_real"), signals.get("d_fake")
    if real is not None and fake is not None:
        x, at_real, at_fake = np.intersect1d(real.x, fake.x, return_indices=True)
        span = _span(real.value, fake.value, balance)
        if len(x) >= FEWEST and span is not None:
            apart = (real.value[at_real] - fake.value[at_fake]) / span
            return _skill("separation", Signal("skill", f"{real.metric} - {fake.metric}", x, apart, real.has_steps))
    d = signals.get("discriminator_loss")
    if d is None or balance is None or len(d.value) < FEWEST:
        return None
    return _skill("loss", Signal("skill", d.metric, d.x, 1 - d.value / balance.discriminator, d.has_steps))


def _span(real: Floats, fake: Floats, balance: Equilibrium | None) -> float | None:
    """The distance of D's targets; None for a critic, whose outputs have no scale."""
    family = balance.family.removesuffix("-mean") if balance is not None else ""
    if family in ("lsgan", "hinge"):
        return _SPANS[family]
    low, high = min(real.min(), fake.min()), max(real.max(), fake.max())
    if low >= 0 and high <= 1:
        return _SPANS["probabilities"]
    return _SPANS["logits"] if family == "bce" else None


def _skill(by: str, signal: Signal) -> Skill:
    levels = tuple(float(np.median(signal.value[a:b])) for a, b in blocks(len(signal.value)))
    return Skill(by, signal.metric, levels, signal)


def begins(signal: Signal) -> bool:
    """Whether the log holds the beginning: its first step is within 5 rows, or 2 % of the last step, of the start."""
    if not signal.has_steps or len(signal.x) < 2:
        return True
    every = float(np.median(np.diff(signal.x)))
    return bool(signal.x[0] <= max(_FIRST * every, 0.02 * signal.x[-1]))


def discriminator_idle(run: str, skill: Skill, gauge: Gauge, norms: Mapping[str, Signal]) -> Finding | None:
    """A discriminator that did no better, and no worse, than guessing from the first block to the last.

    A warning where its outputs say so; by the loss alone an info, since a loss at its equilibrium may hide D's two
    halves. `norms` are the players' gradient norms, which tell why.
    """
    kind, best = "discriminator-idle", abs(skill.best)
    gauge.keep(kind, best, skill.metric)
    limit = gauge.limits.of(kind, skill.metric)
    if best > limit:
        return None
    signal = skill.signal
    severity: Severity = "warning" if skill.by == "separation" else "info"
    norm = norms.get("d_grad_norm")
    late = norm.level(0.8, 1.0) if norm is not None else None
    steps = (int(signal.x[0]), int(signal.x[-1])) if signal.has_steps else (None, None)
    seen = "D(real) - D(fake)" if skill.by == "separation" else f"{skill.metric} beside its equilibrium"
    return Finding(
        kind,
        severity,
        run,
        f"the discriminator never told real from fake: {seen} stayed within {best:.1%} of a guess from the first "
        "record to the last",
        metric=skill.metric,
        first_step=steps[0],
        last_step=steps[1],
        evidence={
            "best_skill": best,
            "limit": limit,
            "late_skill": skill.late,
            "seen_by": skill.by,
            "records": len(signal.value),
            "gradient_norm": late,
        },
        causes=_causes(late),
        suggestions=(
            "look at one batch as the discriminator gets it: are real and fake the tensors that they should be?",
            "check that the discriminator's parameters are in its optimiser, and that nothing detaches its loss",
            "lower its gradient or drift penalty",
            *(() if skill.by == "separation" else ("record d_real and d_fake (`rec.gan`) to be sure",)),
        ),
    )


def _causes(norm: float | None) -> tuple[str, ...]:
    dead = "no gradient reaches the discriminator: its loss is detached, its units are dead, or it sees nothing"
    alike = "real and fake that it is shown are alike: one of them is passed as both, or both are noise or zeros"
    held = "a gradient or drift penalty holds its outputs at one value"
    if norm is None:
        return (f"{alike} (skill); its gradient norm is not logged and would tell", dead, held)
    if norm < 1e-6:
        return (f"{dead} (gradient norm {norm:.2g})", held)
    return (f"{alike} (its gradient norm is {norm:.2g}: it has something to follow, and finds nothing)", held)
