"""`gradients`: whether they explode or vanish, units die, layers stand still, clipping or mixed precision fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from analysis.figures import axes
from analysis.findings import SEVERITIES, Finding, NotApplicable
from analysis.gradient.clipped import clipping
from analysis.gradient.exploding import exploding
from analysis.gradient.levels import ROWS
from analysis.gradient.loss_scale import amp_collapse
from analysis.gradient.ratios import update_ratios
from analysis.gradient.scene import Scene, scene_of
from analysis.gradient.standing_still import dead_units, frozen_layers
from analysis.gradient.tracks import Model, Track
from analysis.gradient.vanishing import vanishing
from analysis.limits import DEFAULT_LIMITS, Gauge, Limits
from analysis.result import Result
from eventstream.errors import unknown_name
from parsers.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Gradients", "gradients"]

_FRAME = pl.Schema(
    {
        "model": pl.String,
        "layer": pl.String,
        "quantity": pl.String,
        "split": pl.String,
        "metric": pl.String,
        "points": pl.Int64,
        "non_finite": pl.Int64,
        "zeros": pl.Float64,
        "early": pl.Float64,
        "late": pl.Float64,
        "lowest": pl.Float64,
        "highest": pl.Float64,
        "decades": pl.Float64,
    }
)
_Judge = Callable[[Scene, Model], "list[Finding] | str"]
_JUDGES: tuple[tuple[str, _Judge], ...] = (
    ("exploding-gradient", exploding),
    ("vanishing-gradient", vanishing),
    ("dead-units", dead_units),
    ("frozen-layer", frozen_layers),
    ("clipping", clipping),
    ("amp-collapse", amp_collapse),
    ("update-ratio", update_ratios),
)


@dataclass(frozen=True, eq=False, repr=False)
class Gradients(Result):
    """Gradients and what the optimizer made of them. `frame` has one row a series: model (the prefix it is logged
    under), layer (empty for the whole model), quantity (grad_norm, grad_norm_after_clip, param_norm, update_ratio,
    zero_grads, dead_units, clip_rate, loss_scale, skipped), split, metric, points, non_finite (rows), zeros (share of
    rows that are exactly 0), early and late (medians of the first and the last 7 finite rows), lowest and highest
    (finite values), decades (decimal logarithm of late / early; null where one of them is not above 0).

    `models` are the same with the numbers behind, by model, quantity and layer.
    """

    models: tuple[Model, ...]

    def plot(
        self, ax: Axes | None = None, *, view: str | None = None, model: str | None = None, **options: Any
    ) -> Axes:
        """`view="layers"`: the logarithm of the gradient norm as a heat map of layers over steps; `view="norm"`: the
        norm of all gradients over steps, and what was left of it after clipping.

        None takes the layers where two or more are logged. `model` is the prefix it is logged under (default that of
        the worst finding, else the first). `options` go to the mesh or the line. Raises `ValueError` for others.
        """
        from analysis.gradient.drawing import draw_layers, draw_norm

        views = {"layers": draw_layers, "norm": draw_norm}
        if view is not None and view not in views:
            raise ValueError(unknown_name("view", view, views))
        drawn = axes(ax)
        chosen = self._chosen(model)
        drawn.set_xlabel("step")
        if chosen is not None:
            layered = len(chosen.layers("grad_norm")) >= 2
            views[view or ("layers" if layered else "norm")](drawn, chosen, options)
        told = self.findings[0].message if self.findings else "gradients are healthy" if self.models else "no gradients"
        drawn.set_title(f"{self.run}: {told}"[:100], parse_math=False, loc="left", fontsize=11)
        return drawn

    def _chosen(self, name: str | None) -> Model | None:
        known = {model.name: model for model in self.models}
        if name is not None and name not in known:
            raise ValueError(unknown_name("model", name, known))
        told = [finding.evidence.get("model") for finding in self.findings]
        with_norm = [model.name for model in self.models if model.get("grad_norm") is not None]
        wanted = [name] if name is not None else [*(str(t) for t in told if t in with_norm), *with_norm, *known]
        return known[wanted[0]] if wanted else None


def gradients(run: Run, *, limits: Limits = DEFAULT_LIMITS) -> Gradients:
    """Whether the gradients of a run are sound, from what `at.watch` records and the gradient norms of any other log.

    - `exploding-gradient`: the level of the norm (median of 7 rows) leaves its own past by a factor of 30 where the
      loss rises with it, of 100 where the loss stands, of 1,000 where it is not known; above its first rows by 10. A
      leap within 21 rows, for good, above all that was before, counts from 30 on also where the loss stands or falls no
      faster for it. The layer that set out first is named. One spike is none, nor is growth while the loss falls
      (information).
    - `vanishing-gradient`: the norm falls a thousandfold while the loss has not fallen by 5 %, is exactly 0 from some
      step on, or below 1e-7 throughout; early layers of a stack (names that differ in numbers) a thousandfold below
      the late ones all along: a warning where these layers stand still, the loss does not fall, or the ends lie ten
      thousandfold apart, nothing shows that the layers move, and the loss has not halved; else information. A stack
      that wakes later is a warning where the loss did not fall for the third of the run, or more, up to there.
    - `dead-units`: many of a layer's units without any gradient in the last third of the observations.
    - `frozen-layer`: an update of exactly 0 while other layers move. What the plan (`freeze`, `trainable`,
      `unfreeze_step`) holds is expected. Layers that no gradient ever reaches are information.
    - `clipping`: nearly all steps clipped (a warning from norms of 100 times the limit on); norms logged after it.
    - `amp-collapse`: a loss scale that ends at 1 or below after ten halvings, or falls as far after a rest; a twentieth
      of all steps skipped.
    - `update-ratio` (information): weights that move by less than 1e-5 or more than 1e-1 a step, layers 100 times apart
      from the others; the rule of thumb of 1e-3 is A. Karpathy's (CS231n notes, "Neural Networks Part 3").

    The lowest rank is judged, splits of evaluation are not; dead branches of resumed runs are left out. Values that
    are not finite belong to `anomalies`; here they end a rise. A kind whose series are missing, too short (below 5
    rows) or all 0 is `not_applicable`. `limits` may set other numbers than these (`analysis.kinds.optimisation`), for
    metrics or for layers. No threshold depends on the length of the log. Of several models (a GAN's
    players) the loss of the run is no measure, and is not used.

    >>> from parsers.finish import finish
    >>> norms = [1.0 + 0.1 * (i % 5) for i in range(80)] + [4.0**i for i in range(1, 21)]
    >>> losses = [2.0 - 0.01 * i for i in range(80)] + [1.2 + 0.3 * i for i in range(20)]
    >>> rows = {"tag": ["grad_norm"] * 100 + ["loss"] * 100, "step": [*range(100)] * 2, "value": norms + losses}
    >>> found = gradients(finish("r", "r", "jsonl", pl.DataFrame(rows)))
    >>> [(f.kind, f.severity, f.first_step) for f in found.findings]
    [('exploding-gradient', 'critical', 80)]
    """
    with np.errstate(over="ignore", invalid="ignore"):  # values near the largest float add up to infinity
        return _judged(scene_of(run, Gauge(limits)))


def _judged(scene: Scene) -> Gradients:
    findings: list[Finding] = []
    reasons: list[NotApplicable] = []
    for kind, judge in _JUDGES:
        outcomes = [judge(scene, model) for model in scene.models]
        told = [finding for outcome in outcomes if not isinstance(outcome, str) for finding in outcome]
        findings += told
        if not told and all(isinstance(outcome, str) for outcome in outcomes):
            why = next((o for m, o in zip(scene.models, outcomes, strict=True) if m.get("grad_norm") is not None), None)
            why = why or next(iter(outcomes), "no gradient norm, update ratio or loss scale is logged")
            reasons.append(NotApplicable(kind, str(why)))
    findings.sort(key=lambda f: -SEVERITIES.index(f.severity))
    return Gradients(
        run=scene.run,
        frame=_frame(scene.models),
        findings=tuple(findings),
        not_applicable=tuple(reasons),
        measures=scene.gauge.measures,
        models=scene.models,
    )


def _frame(models: tuple[Model, ...]) -> pl.DataFrame:
    rows = [_row(model, track) for model in models for track in model.tracks.values()]
    return pl.DataFrame(rows, schema=_FRAME, orient="row")


def _row(model: Model, track: Track) -> tuple[Any, ...]:
    values = track.values
    finite = values[np.isfinite(values)]
    early = late = lowest = highest = decades = None
    if len(finite):
        early, late = float(np.median(finite[:ROWS])), float(np.median(finite[-ROWS:]))
        lowest, highest = float(finite.min()), float(finite.max())
        decades = float(np.log10(late) - np.log10(early)) if early > 0 and late > 0 else None
    zeros = float(np.mean(values == 0)) if len(values) else None
    place = (model.name, track.layer, track.quantity, track.split, track.metric)
    return (*place, len(values), len(values) - len(finite), zeros, early, late, lowest, highest, decades)
