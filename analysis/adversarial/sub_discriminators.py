"""Sub-discriminators (HiFi-GAN's periods and scales): their mean, which is judged, and those that have won."""

from __future__ import annotations

import numpy as np
import polars as pl

from analysis.adversarial.gan_findings import MIN_POINTS
from analysis.adversarial.gan_signals import Signal, equilibrium_of, held_since
from analysis.findings import Finding
from parsers.run import Run

__all__ = ["mean_signals", "won"]

#: D(real) - D(fake) of outputs between 0 and 1 above which a discriminator has nothing left to learn, and the share of
#: the run for which that must hold to its end.
_APART = 0.9
#: The share of its equilibrium below which the loss of a discriminator says the same.
_NEAR = 0.1
_LONG = 0.2


def mean_signals(run: Run) -> dict[str, Signal]:
    """The mean over the sub-discriminators of what is recorded for each, by role; empty where there are no two.

    Sub-discriminators are the names that have both `d_real/{name}` and `d_fake/{name}`, as `Recorder.gan` writes them.
    Roles: d_real, d_fake, and discriminator_loss where `d_loss/{name}` is there for each. The mean of their losses has
    the equilibrium of one discriminator, however many there are.
    """
    names = _names(run)
    if len(names) < 2:
        return {}
    found = {}
    for role, base in (("d_real", "d_real"), ("d_fake", "d_fake"), ("discriminator_loss", "d_loss")):
        if all(f"{base}/{name}" in run.metrics for name in names):
            table = _table(run, base, names)
            if table.height:
                value = table.drop("step").mean_horizontal().to_numpy()
                x = table["step"].cast(pl.Float64).to_numpy()
                found[role] = Signal(role, f"{base} (mean of {len(names)})", x, value, True)
    return found


def won(run: Run, family: str | None = None) -> list[Finding]:
    """A finding where sub-discriminators tell real from fake without fail to the end, and which they are.

    An info for some of them, which the others make up for (a period that finds a trivial cue), a warning for more than
    half. Judged are outputs between 0 and 1 at 20 steps or more (logits have no such extreme), else the losses
    `d_loss/{name}`, beside the equilibrium of `family` (None takes the likeliest).
    """
    names = _names(run)
    if len(names) < 2:
        return _won_by_loss(run, family)
    real, fake = _table(run, "d_real", names), _table(run, "d_fake", names)
    both = real.join(fake, on="step", suffix=" fake")
    if both.height < MIN_POINTS:
        return []
    apart: dict[str, float] = {}
    since: dict[str, int] = {}
    for name in names:
        first, second = both[name].to_numpy(), both[f"{name} fake"].to_numpy()
        if min(first.min(), second.min()) < 0 or max(first.max(), second.max()) > 1:
            continue
        start = held_since(first - second > _APART)
        if start is not None and both.height - start >= _LONG * both.height:
            since[name] = int(both["step"][start])
            apart[name] = float(np.median((first - second)[start:]))
    return [_finding(run.name, names, apart, since, int(both["step"][-1]))] if apart else []


def _won_by_loss(run: Run, family: str | None) -> list[Finding]:
    names = sorted(metric.removeprefix("d_loss/") for metric in run.metrics if metric.startswith("d_loss/"))
    table = _table(run, "d_loss", names) if len(names) >= 2 and family != "wgan" else None
    if table is None or table.height < MIN_POINTS:
        return []
    losses = table.drop("step").to_numpy()
    early = np.quantile(losses[: max(table.height // 5, 1)].mean(axis=1), 0.9)
    balance = equilibrium_of(float(early), family).discriminator
    near: dict[str, float] = {}
    since: dict[str, int] = {}
    for name, values in zip(names, losses.T, strict=True):
        start = held_since(values < _NEAR * balance)
        if values.min() >= 0 and start is not None and table.height - start >= _LONG * table.height:
            since[name] = int(table["step"][start])
            near[name] = float(np.median(values[start:]) / balance)
    return [_finding(run.name, names, near, since, int(table["step"][-1]), by_loss=True)] if near else []


def _names(run: Run) -> list[str]:
    metrics = set(run.metrics)
    real = (metric.removeprefix("d_real/") for metric in run.metrics if metric.startswith("d_real/"))
    return sorted(name for name in real if f"d_fake/{name}" in metrics)


def _table(run: Run, base: str, names: list[str]) -> pl.DataFrame:
    """Steps of training at which every sub-discriminator has a finite value, in order, with one column each."""
    whole: pl.DataFrame | None = None
    for name in names:
        rows = run.series(f"{base}/{name}").filter(pl.col("split").is_in(["", "train"]))
        rows = rows.filter(
            (pl.col("rank") == pl.col("rank").min()) & pl.col("value").is_finite() & pl.col("step").is_not_null()
        )
        own = rows.group_by("step").agg(pl.col("value").last().alias(name))
        whole = own if whole is None else whole.join(own, on="step")
    assert whole is not None
    return whole.sort("step")


def _finding(
    run: str, names: list[str], apart: dict[str, float], since: dict[str, int], last: int, *, by_loss: bool = False
) -> Finding:
    first = min(since.values())
    shown = ", ".join(f"{name} ({apart[name]:.2f} since step {since[name]})" for name in list(apart)[:5])
    more = f" and {len(apart) - 5} more" if len(apart) > 5 else ""
    return Finding(
        "discriminator-dominance",
        "warning" if 2 * len(apart) > len(names) else "info",
        run,
        f"{len(apart)} of {len(names)} sub-discriminators tell real from fake without fail "
        f"({'loss over its equilibrium' if by_loss else 'D(real) - D(fake)'}): {shown}{more}",
        metric=f"{'d_loss' if by_loss else 'd_real'}/{next(iter(apart))}",
        first_step=first,
        last_step=last,
        evidence={
            "won": ", ".join(apart),
            "of": len(names),
            "share_of_balance" if by_loss else "separation": (max if by_loss else min)(apart.values()),
        },
        causes=(
            "a cue that these periods or scales see at once (silence, a constant offset, padding)",
            "sub-discriminators that learn faster than the generator",
        ),
        suggestions=(
            "listen to and look at samples in the view of these sub-discriminators",
            "lower their learning rate, or give their adversarial term less weight",
        ),
    )
