"""Health of a GAN from its log: variety, which player has won, whether either learns, and when their game began."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from analysis.adversarial.gan_findings import MIN_POINTS, discriminator_dominance, generator_dominance, mode_collapse
from analysis.adversarial.gan_signals import (
    EQUILIBRIA,
    Equilibrium,
    Signal,
    equilibrium_of,
    family_by_outputs,
    find_signals,
)
from analysis.adversarial.imbalance import extras_of, gradient_ratio, player_imbalance, ratios_of
from analysis.adversarial.overfitted import discriminator_overfitting
from analysis.adversarial.phases import Start, phase_findings, planned_starts, starts_of
from analysis.adversarial.skill import FEWEST, Skill, begins, discriminator_idle, skill_of
from analysis.adversarial.sub_discriminators import mean_signals, won
from analysis.figures import COLOURS, axes, draw_series, style
from analysis.findings import Finding, NotApplicable
from analysis.limits import DEFAULT_LIMITS, Gauge, Limits
from analysis.result import Result
from eventstream.errors import unknown_name
from parsers.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["GanHealth", "gan"]

_FRAME = pl.Schema(
    {
        "role": pl.String,
        "metric": pl.String,
        "points": pl.Int64,
        "early": pl.Float64,
        "late": pl.Float64,
        "change": pl.Float64,
        "equilibrium": pl.Float64,
        "family": pl.String,
        "begins": pl.Int64,
    }
)
#: Words of a configuration that name the family of the adversarial loss.
_WORDS = {
    "wgan": r"wgan|wasserstein",
    "lsgan": r"ls-?gan|least.?squares",
    "hinge": r"hinge",
    "bce": r"\bbce\b|vanilla|non-?saturating|minimax",
}


@dataclass(frozen=True, eq=False, repr=False)
class GanHealth(Result):
    """A GAN in numbers. `frame` has one row a series: role, metric, points, early and late (medians of the first tenth
    and the last fifth), change (late / early), equilibrium (of the nearest or given family; null where the role has
    none), family, begins (the first step; of a term that was exactly 0 before, the first at which it is not).

    Roles: generator_loss, discriminator_loss, d_real, d_fake, diversity, then `skill` (how well D tells real from fake:
    0 is a guess, 1 outputs as far apart as their targets), g_grad_norm, d_grad_norm, gradient_ratio, g_learning_rate,
    d_learning_rate, feature_matching, adversarial, ada_r_t, each where it is logged. `signals` are the series of the
    first five, and `skill` is the discriminator's. `ratios` are late numbers of one player beside the other
    (`imbalance.ratios_of`); `starts` tell when each adversarial term began, `family` which losses they are (empty where
    unknown).
    """

    signals: Mapping[str, Signal]
    skill: Skill | None = None
    ratios: Mapping[str, float] = field(default_factory=dict)
    starts: tuple[Start, ...] = ()
    family: str = ""

    def plot(self, ax: Axes | None = None, **options: Any) -> Axes:
        """Both losses over steps with their equilibria dashed, and diversity; `options` go to the lines."""
        drawn = axes(ax)
        balance = {row["role"]: row["equilibrium"] for row in self.frame.iter_rows(named=True)}
        with style():
            shown = [r for r in ("discriminator_loss", "generator_loss", "diversity") if r in self.signals]
            for role, colour in zip(shown, COLOURS.values(), strict=False):
                signal = self.signals[role]
                label = signal.metric.replace("$", "")[:40].lstrip("_") or role
                draw_series(drawn, signal.x, signal.value, **{"color": colour, "lw": 0.9, "label": label, **options})
                if balance.get(role) is not None:
                    drawn.axhline(balance[role], color=colour, ls="--", lw=0.8)
            if shown:
                drawn.legend()
        drawn.set_xlabel("step")
        drawn.set_ylabel("loss, diversity (dashed: balance)")
        judged = "no GAN fault was seen" if self.signals else "no GAN losses in this run"
        drawn.set_title(
            f"{self.run}: {self.findings[0].message if self.findings else judged}"[:100],
            parse_math=False,
            loc="left",
            fontsize=11,
        )
        return drawn


def gan(run: Run, *, family: str | None = None, discriminators: int = 1, limits: Limits = DEFAULT_LIMITS) -> GanHealth:
    """Whether a GAN's game is healthy: diversity of its samples, and its losses beside their equilibria.

    `family` is the adversarial loss: `bce`, `lsgan`, `hinge` (each as sum or mean of D's two halves, whichever fits),
    `bce-mean`, `lsgan-mean`, `hinge-mean` or `wgan`; None takes it from the configuration, else from the early
    discriminator loss (see `equilibrium_of`). `discriminators` is the number of sub-discriminators whose losses are
    added. Others raise `ValueError`. `limits` may set other shares than the defaults.

    An adversarial loss has no reason to fall, so that is never judged; and one at its equilibrium looks alike whether
    the game is balanced or D has learned nothing. These are told apart by what D could in the beginning: an idle one
    never told real from fake (`discriminator-idle`). Terms that are exactly 0 have not begun (`adversarial-phase`): the
    game is judged from there on. Other findings need a state that holds to the end of the run for a fifth of it (a
    tenth for diversity), and a warning for discriminator dominance a second sign (G climbing, D's outputs at their
    extremes). Gradient norms that drift apart are `player-imbalance`, an r_t near 1 (StyleGAN2-ADA) is
    `discriminator-overfitting`. Oscillation is normal and silent. A run without GAN series, with fewer than 20 points,
    or of a Wasserstein GAN (whose losses have no scale) is `not_applicable` for the kinds concerned; the reason says
    what to record.

    >>> from parsers.finish import finish
    >>> values = [0.9] * 60 + [0.05] * 40
    >>> rows = {"tag": ["diversity"] * 100, "step": list(range(100)), "value": values}
    >>> [(f.kind, f.severity, f.first_step) for f in gan(finish("r", "r", "jsonl", pl.DataFrame(rows))).findings]
    [('mode-collapse', 'critical', 60)]
    """
    known = [*(e.family for e in EQUILIBRIA), "wgan"]
    if family is not None and family not in known:
        raise ValueError(unknown_name("GAN family", family, known))
    if discriminators < 1:
        raise ValueError(f"discriminators is {discriminators}; give 1 or more")
    signals = _signals(run)
    d = signals.get("discriminator_loss")
    exact = False
    if family is None:
        family, exact = family_by_outputs(signals, _configured(run.config))
        exact = exact and discriminators == 1
    balance = None
    if d is not None and family != "wgan" and d.level(0.0, 1.0) >= 0:
        highest = float(np.quantile(d.value[: max(len(d.value) // 5, 1)], 0.9))
        balance = equilibrium_of(highest, family, discriminators, exact=exact)
    gauge = Gauge(limits)
    extras, starts = extras_of(run), starts_of(run)
    ratio, skill = gradient_ratio(extras), None if family == "wgan" else skill_of(signals, balance)
    findings: list[Finding] = []
    reasons: list[NotApplicable] = []
    judges = _judges(run.name, signals, balance, gauge)
    asked = [(kind, _why_not(signals, needed, balance, starts), judge) for kind, needed, judge in judges]
    for kind, reason, judge in [*asked, *_further(run.name, signals, extras, skill, ratio, gauge)]:
        if reason:
            reasons.append(NotApplicable(kind, reason))
        elif (finding := judge()) is not None:
            findings.append(finding)
    findings += phase_findings(run.name, starts, planned_starts(run))
    if not starts:
        reasons.append(NotApplicable("adversarial-phase", "no adversarial term in this run"))
    if not any(finding.kind == "discriminator-dominance" for finding in findings) and (apart := won(run, family)):
        findings += apart
        reasons = [reason for reason in reasons if reason.kind != "discriminator-dominance"]
    shown = {**signals, **({"skill": skill.signal} if skill else {}), **extras}
    shown |= {"gradient_ratio": ratio} if ratio is not None and len(ratio.value) else {}
    return GanHealth(
        run=run.name,
        frame=_frame(shown, balance),
        findings=tuple(findings),
        not_applicable=tuple(reasons),
        measures=gauge.measures,
        signals=signals,
        skill=skill,
        ratios=ratios_of(run, extras, ratio),
        starts=tuple(starts),
        family=balance.family if balance is not None else family or "",
    )


_Asked = tuple[str, str, Callable[[], Finding | None]]


def _further(
    run: str,
    signals: Mapping[str, Signal],
    extras: Mapping[str, Signal],
    skill: Skill | None,
    ratio: Signal | None,
    gauge: Gauge,
) -> list[_Asked]:
    """Kind, why it cannot be judged, and the judgement, of what rests on more than the two losses."""

    def idle() -> Finding | None:
        assert skill is not None
        return discriminator_idle(run, skill, gauge, extras)

    def imbalance() -> Finding | None:
        assert ratio is not None
        return player_imbalance(run, ratio, gauge)

    return [
        ("discriminator-idle", _why_no_skill(signals, skill), idle),
        ("player-imbalance", _too_few(ratio, "no gradient norm of each player: record both (`rec.gan`)"), imbalance),
        (
            "discriminator-overfitting",
            _too_few(extras.get("ada_r_t"), "no r_t (mean sign of D's outputs on training data) was logged"),
            lambda: discriminator_overfitting(run, extras["ada_r_t"], gauge),
        ),
    ]


def _why_no_skill(signals: Mapping[str, Signal], skill: Skill | None) -> str:
    if skill is None:
        return "neither D's outputs on real and fake, nor a D loss with an equilibrium: record d_real and d_fake"
    if not begins(skill.signal):
        return f"the log begins at step {skill.signal.x[0]:.0f}: a game that is at balance by then looks alike"
    return ""


def _too_few(signal: Signal | None, missing: str) -> str:
    if signal is None:
        return missing
    n = len(signal.value)
    return f"{signal.metric} has {n} points; {FEWEST} are needed" if n < FEWEST else ""


def _signals(run: Run) -> dict[str, Signal]:
    """The series of each role; of sub-discriminators that are told apart, their mean."""
    found = find_signals(run)
    for role, mean in mean_signals(run).items():
        if role not in found or "/" in found[role].metric:
            found[role] = mean
    return found


def _judges(
    run: str, signals: Mapping[str, Signal], balance: Equilibrium | None, gauge: Gauge
) -> list[tuple[str, tuple[str, ...], Callable[[], Finding | None]]]:
    """Kind, roles that it needs, and the judgement, which is only called where these are there."""

    def dominance(judge: Callable[[str, Mapping[str, Signal], Equilibrium, Gauge], Finding | None]) -> Finding | None:
        assert balance is not None
        return judge(run, signals, balance, gauge)

    both = ("discriminator_loss", "generator_loss")
    return [
        ("mode-collapse", ("diversity",), lambda: mode_collapse(run, signals["diversity"], gauge)),
        ("discriminator-dominance", both, lambda: dominance(discriminator_dominance)),
        ("generator-dominance", both, lambda: dominance(generator_dominance)),
    ]


def _why_not(
    signals: Mapping[str, Signal], needed: tuple[str, ...], balance: Equilibrium | None, starts: Sequence[Start]
) -> str:
    missing = [role for role in needed if role not in signals]
    idle = [start.metric for start in starts if start.never]
    if missing and idle and not set(missing) - {"discriminator_loss", "generator_loss"}:
        return f"{' and '.join(idle[:2])} {'is' if len(idle) == 1 else 'are'} exactly 0 to the end: no game has begun"
    if not signals:
        return "no GAN series in this run (generator and discriminator losses, or diversity of samples)"
    if missing:
        return f"no {' and no '.join(m.replace('_', ' ') for m in missing)} was logged"
    short = next((signals[r] for r in needed if len(signals[r].value) < MIN_POINTS), None)
    if short is not None:
        return f"{short.metric} has {len(short.value)} points; {MIN_POINTS} are needed"
    if "discriminator_loss" in needed and balance is None:
        return "the losses are those of a Wasserstein GAN, or negative: they have no equilibrium to compare with"
    return ""


def _configured(config: Mapping[str, Any]) -> str | None:
    """Family named by a string of the configuration under a key that speaks of the loss, GAN or adversary."""
    for key, value in config.items():
        if isinstance(value, str) and re.search(r"gan|adv|loss", str(key), re.IGNORECASE):
            for family, words in _WORDS.items():
                if re.search(words, value, re.IGNORECASE):
                    return family
    return None


def _frame(signals: Mapping[str, Signal], balance: Equilibrium | None) -> pl.DataFrame:
    rows = []
    for role, signal in signals.items():
        early, late = signal.level(0.0, 0.1), signal.level(0.8, 1.0)
        level, family = _balance_of(role, balance)
        change = late / early if early != 0 else None
        first = int(signal.x[0]) if signal.has_steps else None
        rows.append((role, signal.metric, len(signal.value), early, late, change, level, family, first))
    return pl.DataFrame(rows, schema=_FRAME, orient="row")


def _balance_of(role: str, balance: Equilibrium | None) -> tuple[float | None, str]:
    if balance is None or not role.endswith("_loss"):
        return None, ""
    return balance.discriminator if role == "discriminator_loss" else balance.generator, balance.family
