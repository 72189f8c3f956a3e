"""How unevenly the two players learn: gradient norms, learning rates, updates, and what the generator is told by."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from analysis.adversarial.gan_signals import Signal, held_since, signal_of
from analysis.findings import Finding
from analysis.limits import Gauge
from parsers.naming.roles import words_of
from parsers.plans.entries import entries_of
from parsers.run import Run

__all__ = ["extras_of", "gradient_ratio", "player_imbalance", "ratios_of"]

_G, _D = r"\b(?:g|gen|generator|net ?g)\b", r"\b(?:d|disc|discr|discriminator|net ?d|mpd|msd|mrd|mbd)\b"
#: What is looked at beside the losses: role of the signal, role of the series in the run, words of its name.
_EXTRAS = (
    ("g_grad_norm", "grad_norm", _G),
    ("d_grad_norm", "grad_norm", _D),
    ("g_learning_rate", "learning_rate", _G),
    ("d_learning_rate", "learning_rate", _D),
    ("feature_matching", "component_loss", r"\b(?:fm|fmap|feat(?:ure)?s? ?match(?:ing)?)\b"),
    ("adversarial", "component_loss", r"\b(?:adv|adversarial|gan)\b(?!.*\b(?:d|disc|discriminator|real)\b)"),
    ("ada_r_t", "", r"\bloss signs real$|(?:^|\bada )r ?t$"),
)
#: Numbers of a configuration: updates of the discriminator for one of the generator, and the players' rates.
_UPDATES = {
    "n_critic",
    "critic_iters",
    "n_disc",
    "d_steps",
    "disc_steps",
    "d_iters",
    "discriminator_steps",
    "d_updates",
}
_RATES = {
    "g_learning_rate": {"generator_lr", "lr_g", "g_lr", "gen_lr", "lr_gen", "lr_generator", "generator_learning_rate"},
    "d_learning_rate": {
        "discriminator_lr", "lr_d", "d_lr", "disc_lr", "lr_disc", "lr_discriminator", "disc_learning_rate",
        "discriminator_learning_rate",
    },
}  # fmt: skip
#: The share of the run at its end over which a ratio must have left what it was.
_LONG = 0.2
#: A warning from so many times the limit on: the pace of two players drifts apart in many a healthy game.
_FAR = 10.0


def extras_of(run: Run) -> dict[str, Signal]:
    """The series beside the losses by role: g_grad_norm, d_grad_norm, g_learning_rate, ... as far as they are logged.

    Of several (layers, sub-discriminators) the one with the shortest name.
    """
    found = {}
    for role, of_run, pattern in _EXTRAS:
        fitting = [
            one
            for one in run.roles
            if one.side == "train" and (not of_run or one.role == of_run) and re.search(pattern, words_of(one.tag))
        ]
        if fitting:
            signal = signal_of(run, role, min(fitting, key=lambda one: (len(one.tag), one.tag)))
            if len(signal.value):
                found[role] = signal
    return found


def gradient_ratio(extras: Mapping[str, Signal]) -> Signal | None:
    """Gradient norm of the generator over that of the discriminator, where both are above 0 at the same step."""
    g, d = extras.get("g_grad_norm"), extras.get("d_grad_norm")
    if g is None or d is None:
        return None
    x, at_g, at_d = np.intersect1d(g.x, d.x, return_indices=True)
    above, below = g.value[at_g], d.value[at_d]
    known = (above > 0) & (below > 0)
    ratio = above[known] / below[known]
    return Signal("gradient_ratio", f"{g.metric} / {d.metric}", x[known], ratio, g.has_steps)


def player_imbalance(run: str, ratio: Signal, gauge: Gauge) -> Finding | None:
    """The ratio of gradient norms that has left what it was in the first fifth by 30 times, to the end of the run.

    What it was is no matter: networks of unlike size have unlike norms all their life. A warning from ten times the
    limit on, else an info.
    """
    kind, n = "player-imbalance", len(ratio.value)
    logs = np.log(ratio.value)
    usual = float(np.median(logs[: max(n // 5, 4)]))
    apart = float(np.median(logs[int((1 - _LONG) * n) :])) - usual
    change = float(np.exp(min(abs(apart), 700.0)))
    gauge.keep(kind, change, ratio.metric)
    limit = gauge.limits.of(kind, ratio.metric)
    since = held_since(np.sign(apart) * (logs - usual) >= np.log(limit) / 2)
    if change < limit or since is None or n - since < _LONG * n:
        return None
    winner, loser = ("generator", "discriminator") if apart > 0 else ("discriminator", "generator")
    early, late = float(np.exp(usual)), float(np.exp(usual + apart))
    steps = (int(ratio.x[since]), int(ratio.x[-1])) if ratio.has_steps else (None, None)
    return Finding(
        kind,
        "warning" if change >= _FAR * limit else "info",
        run,
        f"the gradient norm of generator over discriminator went from {early:.3g} to {late:.3g} and stayed there: "
        f"the {loser}'s gradient is {change:.0f} times smaller beside the {winner}'s than it was",
        metric=ratio.metric,
        first_step=steps[0],
        last_step=steps[1],
        evidence={"ratio_change": change, "limit": limit, "early_ratio": early, "late_ratio": late},
        causes=(
            f"one player has won: nothing is left for the {loser} to follow, or the {winner} chases what it cannot "
            "reach (ratio early and late)",
            "learning rates or updates of the two do not fit together",
        ),
        suggestions=(
            f"raise the pace of the {winner if apart > 0 else loser}, or lower that of the other, by learning rate or "
            "updates",
            "clip the larger norm, or put a gradient penalty on the discriminator",
            "look at D(real) - D(fake) at the same steps",
        ),
    )


def ratios_of(run: Run, extras: Mapping[str, Signal], ratio: Signal | None) -> dict[str, float]:
    """Late ratios of the two players, as far as the log tells them.

    `gradient_norm_ratio` and `learning_rate_ratio` (generator over discriminator), `discriminator_updates` (for one of
    the generator, as configured), `feature_matching_share` (of feature matching and adversarial term together, as
    logged), `ada_r_t`.
    """
    found: dict[str, float] = {}
    if ratio is not None and len(ratio.value):
        found["gradient_norm_ratio"] = ratio.level(1 - _LONG, 1.0)
    settings = _settings(run)
    rates = [_late(extras.get(name)) or settings.get(name) for name in ("g_learning_rate", "d_learning_rate")]
    if rates[0] and rates[1]:
        found["learning_rate_ratio"] = rates[0] / rates[1]
    if "updates" in settings:
        found["discriminator_updates"] = settings["updates"]
    matching, adversarial = _late(extras.get("feature_matching")), _late(extras.get("adversarial"))
    if matching is not None and adversarial is not None and matching + adversarial > 0 <= min(matching, adversarial):
        found["feature_matching_share"] = matching / (matching + adversarial)
    if (r_t := _late(extras.get("ada_r_t"))) is not None:
        found["ada_r_t"] = r_t
    return found


def _late(signal: Signal | None) -> float | None:
    return None if signal is None else signal.level(1 - _LONG, 1.0)


def _settings(run: Run) -> dict[str, float]:
    found: dict[str, float] = {}
    for entry in entries_of(run.config_source, run.config):
        if isinstance(entry.value, int | float) and not isinstance(entry.value, bool) and entry.value > 0:
            for role, names in (("updates", _UPDATES), *_RATES.items()):
                if entry.name in names:
                    found.setdefault(role, float(entry.value))
    return found
