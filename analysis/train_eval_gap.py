"""Train against eval: the gap over the run, its trend, where overfitting begins, and whether the scales agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.figures import COLOURS, axes, draw_series, style
from analysis.findings import Finding, NotApplicable
from analysis.generalisation.gap_findings import Bounds, GapSummary, judge_gap, measure_gap, strongest
from analysis.generalisation.overfitting import MIN_EVALS, Turn, find_turn
from analysis.generalisation.pairing import Pair, find_pairs, shared_name
from analysis.generalisation.scale_mismatch import Mismatch, find_mismatch
from analysis.generalisation.smoothing import smooth_at
from analysis.generalisation.trend import theil_sen
from analysis.limits import DEFAULT_LIMITS, Gauge, Limits
from analysis.result import Result
from eventstream.errors import unknown_name
from parsers.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["GapSummary", "TrainEvalGap", "train_eval_gap"]

_KINDS = ("overfitting", "train-eval-gap", "train-eval-scale-mismatch", "suspiciously-good")
_FRAME = pl.Schema(
    {
        "metric": pl.String,
        "split": pl.String,
        "step": pl.Int64,
        "epoch": pl.Float64,
        "train": pl.Float64,
        "eval": pl.Float64,
        "gap": pl.Float64,
        "ratio": pl.Float64,
    }
)
#: Places at which the smoothed training curve is drawn: as many as a figure has columns worth seeing.
_DRAWN = 400


@dataclass(frozen=True, eq=False, repr=False)
class TrainEvalGap(Result):
    """Train and eval side by side. `frame` has one row an eval point and metric: metric, split (of eval), step, epoch,
    train (smoothed at that point), eval, gap (how much worse eval is: eval - train, or train - eval where larger is
    better), ratio (eval / train; NaN where train is 0).

    `summaries` maps each metric that has enough evals to its numbers; `pairs` are the series behind, the most telling
    first.
    """

    pairs: tuple[Pair, ...]
    summaries: dict[str, GapSummary]

    def plot(self, ax: Axes | None = None, *, metric: str | None = None, **options: Any) -> Axes:
        """Train as logged (thin) and smoothed, eval points, the best marked, the part after the onset shaded.

        `metric` chooses the pair (default the first); `options` go to the eval line. An unknown metric raises
        `ValueError` with the known ones.
        """
        drawn = axes(ax)
        if not self.pairs:
            drawn.set_title(f"{self.run}: train and eval cannot be compared", parse_math=False, loc="left", fontsize=11)
            drawn.set_xlabel("step")
            return drawn
        known = {pair.metric: pair for pair in self.pairs}
        if metric is not None and metric not in known:
            raise ValueError(unknown_name("metric", metric, known))
        pair = self.pairs[0] if metric is None else known[metric]
        with style():
            _draw(drawn, pair, self.summaries.get(pair.metric), options)
        drawn.set_title(f"{self.run}: {self._headline(pair)}"[:100], parse_math=False, loc="left", fontsize=11)
        return drawn

    def _headline(self, pair: Pair) -> str:
        summary = self.summaries.get(pair.metric)
        if summary is None:
            return f"{len(pair.x)} evals of {pair.metric}, too few to judge"
        if summary.onset_x is not None:
            return (
                f"overfitting from {pair.axis} {summary.onset_x:g}, best {summary.best_value:.4g} at {summary.best_x:g}"
            )
        if summary.mismatch is not None:
            return f"{pair.split} and train {pair.metric} are not on one scale ({summary.mismatch.kind})"
        return f"{pair.split} {pair.metric} ends at {summary.late_ratio:.3g} times train, no overfitting"


def train_eval_gap(
    run: Run,
    *,
    metric: str | None = None,
    warn_rise: float = 0.05,
    critical_rise: float = 0.25,
    gap_ratio: float = 1.5,
    good_ratio: float = 0.4,
    absurd_ratio: float = 0.1,
    limits: Limits = DEFAULT_LIMITS,
) -> TrainEvalGap:
    """Eval against the smoothed train value at the same step, for every metric that both have, and what that says.

    `metric` limits the work to one (names as in the log without their split; `loss_epoch` meets `loss`); by default
    losses, accuracies and error rates are paired, adversarial losses are not. The thresholds are those of
    `analysis.generalisation.gap_findings.Bounds`: eval ended `warn_rise` (5 %) or `critical_rise` (25 %) worse than its
    best; eval / train above `gap_ratio`; below `good_ratio` or `absurd_ratio`. `limits` move them in proportion, for
    all metrics or some. One finding a kind is given, for the metric that shows it most, with the others named in its
    evidence.

    Values that are not finite, or beyond 1e100, are left out, values of one step averaged, dead branches of resumed
    runs dropped; an eval value that a dense log carries forward counts once, where it was evaluated. Without steps the
    epochs serve, without either the record numbers where train and eval have equally many. Fewer than 5 evals are
    shown in `frame` but not judged; a run without a pair gives an empty frame and `not_applicable`. An unknown
    `metric` raises `ValueError`. With a curriculum, jumps at its phase changes are taken out, and the size of the gap
    alone is no warning, since the plan changes the training loss; nor is it where train logs components that eval does
    not (`sum_on_train`). Method: see `find_turn` and `find_mismatch`;
    intervals of slopes are Sen's (JASA 63, 1968).

    >>> from parsers.finish import finish
    >>> steps = list(range(0, 1000, 10))
    >>> train = [2.0 * 0.99 ** (s / 4) for s in steps]
    >>> evaluated = [1 + (s / 500 - 1) ** 2 for s in steps]
    >>> rows = {"tag": ["loss"] * 100 + ["eval_loss"] * 100, "step": steps * 2, "value": train + evaluated}
    >>> gap = train_eval_gap(finish("r", "r", "jsonl", pl.DataFrame(rows)))
    >>> gap.findings[0].kind, gap.findings[0].severity, gap.summaries["loss"].best_x
    ('overfitting', 'critical', 500.0)
    """
    bounds = Bounds(warn_rise, critical_rise, gap_ratio, good_ratio, absurd_ratio)
    known = {shared_name(m) for m in run.metrics}
    if metric is not None and shared_name(metric) not in known:
        raise ValueError(unknown_name("metric", metric, sorted(known)))
    pairs, problems = find_pairs(run, metric)
    changes = phase_changes(run)
    by_plan = len(changes) > 0 or bool(run.plan.get("curriculum"))
    summaries: dict[str, GapSummary] = {}
    findings: list[Finding] = []
    gauge = Gauge(limits)
    for pair in pairs:
        if len(pair.x) < MIN_EVALS:
            problems.append(f"{pair.metric}: {len(pair.x)} {pair.split} points; {MIN_EVALS} are needed to judge")
            continue
        mine = bounds.moved(limits, pair.metric)
        phases = changes if pair.axis == "step" else None
        turn = find_turn(pair.x, pair.eval, pair.train, lower=pair.lower, changes=phases, floor=mine.least_rise)
        factor = find_mismatch(pair.x, pair.eval, pair.train, lower=pair.lower, large=1.0)
        counted = factor if factor is not None and factor.counts(mine.factor) else None
        summaries[pair.metric] = _summary(pair, turn, counted)
        findings += judge_gap(run.name, pair, summaries[pair.metric], turn, mine, by_plan or sum_on_train(run, pair))
        measure_gap(gauge, pair, summaries[pair.metric], turn, factor)
    reason = "; ".join(problems[:3]) or "no loss or accuracy was logged on both train and eval"
    return TrainEvalGap(
        run=run.name,
        frame=_frame(pairs),
        findings=tuple(strongest(findings)),
        not_applicable=() if summaries else tuple(NotApplicable(kind, reason) for kind in _KINDS),
        measures=gauge.measures,
        pairs=tuple(pairs),
        summaries=summaries,
    )


def phase_changes(run: Run) -> NDArray[np.float64]:
    """Steps at which the recorded curriculum entered another phase, after the first; empty without such events."""
    events = run.events_of("curriculum")
    if events.is_empty():  # nearly every log: nothing to sort
        return np.empty(0)
    events = events.filter(pl.col("step").is_not_null()).sort("step", maintain_order=True)
    phases = events.select("step", phase=pl.col("payload").str.json_path_match("$.phase"))
    changed = phases.filter(pl.col("phase").ne_missing(pl.col("phase").shift()))
    return changed["step"].cast(pl.Float64).to_numpy()[1:]


def sum_on_train(run: Run, pair: Pair) -> bool:
    """Whether train logs two or more components of its loss that eval does not: eval may be another sum, or one part.

    Distillation is evaluated by the loss of its task alone, and that is no fault.
    """
    sides: dict[str, set[str]] = {}
    for one in run.roles:
        if one.role == "component_loss":
            sides.setdefault(one.side, set()).add(shared_name(one.metric))
    of_total = any(one.role == "loss" and shared_name(one.metric) == pair.metric for one in run.roles)
    return pair.lower and of_total and len(sides.get("train", set()) - sides.get(pair.split, set())) >= 2


def _summary(pair: Pair, turn: Turn, mismatch: Mismatch | None) -> GapSummary:
    gap, ratio = _gap(pair)
    late = slice(-max(len(pair.x) // 3, 2), None)
    span = float(pair.x[-1] - pair.x[0])
    best = float(pair.x[turn.best])
    return GapSummary(
        metric=pair.metric,
        axis=pair.axis,
        evals=len(pair.x),
        best_x=best,
        best_value=float(pair.eval[turn.best]),
        onset_x=None if turn.onset is None else float(pair.x[turn.onset]),
        share_after_best=(float(pair.x[-1]) - best) / span if span > 0 else 0.0,
        trend=theil_sen(pair.x, gap),
        late_gap=float(np.median(gap[late])),
        late_ratio=float(np.median(ratio[late])),
        rise=turn.rise,
        mismatch=mismatch,
    )


def _gap(pair: Pair) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    gap = pair.eval - pair.train if pair.lower else pair.train - pair.eval
    ratio = np.full(len(pair.x), np.nan)
    np.divide(pair.eval, pair.train, out=ratio, where=pair.train != 0)
    return gap, ratio


def _frame(pairs: list[Pair]) -> pl.DataFrame:
    parts = [_FRAME.to_frame()]
    for pair in pairs:
        gap, ratio = _gap(pair)
        part = pl.DataFrame(
            {"step": pair.step, "epoch": pair.epoch, "train": pair.train, "eval": pair.eval, "gap": gap, "ratio": ratio}
        )
        known = {"metric": pl.lit(pair.metric), "split": pl.lit(pair.split)}
        known |= {c: pl.col(c).fill_nan(None) for c in ("step", "epoch")}
        parts.append(part.select(known.get(c, pl.col(c)).cast(t).alias(c) for c, t in _FRAME.items()))
    return pl.concat(parts)


def _draw(ax: Axes, pair: Pair, summary: GapSummary | None, options: dict[str, Any]) -> None:
    grid = np.linspace(pair.train_x[0], pair.train_x[-1], _DRAWN)
    draw_series(ax, pair.train_x, pair.train_raw, color=COLOURS["blue"], alpha=0.3, lw=0.6)
    ax.plot(grid, smooth_at(pair.train_x, pair.train_raw, grid), color=COLOURS["blue"], label="train, smoothed")
    line = {"color": COLOURS["orange"], "marker": "o", "ms": 3 if len(pair.x) <= 100 else 0, "label": pair.split}
    draw_series(ax, pair.x, pair.eval, **{**line, **options})
    if summary is not None:
        ax.plot([summary.best_x], [summary.best_value], "*", ms=11, color=COLOURS["green"], label="best")
        if summary.onset_x is not None:
            colour = COLOURS["vermilion"]
            ax.axvspan(summary.onset_x, pair.x[-1], color=colour, alpha=0.12, hatch="//", lw=0, label="overfitting")
    ax.set_xlabel(pair.axis)
    ax.set_ylabel(pair.metric[:60], parse_math=False)
    ax.legend()
