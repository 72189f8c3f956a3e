"""`anomalies`: rows that their neighbours do not allow, by z-score, IQR or MAD, and the episodes that they make."""

from __future__ import annotations

import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from analysis.anomaly.detection import FEWEST, LEAST_FACTOR, Detection, Settings, detect
from analysis.anomaly.episode_findings import finding_of, kind_of, summary_of, times_of
from analysis.anomaly.episodes import Episode, episodes_of, merged
from analysis.anomaly.levels import Rise, level_changes
from analysis.anomaly.log_series import Series, series_of
from analysis.anomaly.non_finite import non_finite_findings
from analysis.anomaly.open_end import open_end
from analysis.anomaly.planned_phases import phase_about
from analysis.anomaly.residuals import Method, Scale
from analysis.anomaly.rolling import LARGE, load_kernels
from analysis.anomaly.score_collapse import collapse_findings
from analysis.figures import COLOURS, axes, draw_series, style
from analysis.findings import SEVERITIES, Finding, NotApplicable
from analysis.limits import DEFAULT_LIMITS, Gauge, Limits
from analysis.result import Result
from parsers.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Anomalies", "anomalies"]

_SCHEMA = pl.Schema(
    [
        ("run", pl.String),
        ("rank", pl.Int32),
        ("attempt", pl.Int32),
        ("step", pl.Int64),
        ("split", pl.String),
        ("metric", pl.String),
        ("value", pl.Float64),
        ("expected", pl.Float64),
        ("lower", pl.Float64),
        ("upper", pl.Float64),
        ("score", pl.Float64),
        ("method", pl.String),
    ]
)
#: Episodes of one kind and metric that are told one by one; the rest is summed up in one finding.
_HANDFUL = 4
#: Kinds that are judged on losses only.
_DETERMINED = ("loss-spike", "level-shift", "divergence")


@dataclass(frozen=True, eq=False, repr=False)
class Anomalies(Result):
    """Rows outside their bounds, and what they add up to.

    `frame`: one row per flagged value: run, rank, attempt, step, split, metric, value, expected, lower, upper (bounds
    in the metric's own unit), score (in spreads of the method, signed), method. Values that are not finite are no
    rows of it; they are findings. `settings` are the options used.
    """

    settings: Settings = field(kw_only=True, default_factory=Settings)
    source: Run | None = field(kw_only=True, default=None)

    def plot(self, ax: Axes | None = None, *, metric: str | None = None, split: str | None = None, **_: Any) -> Axes:
        """A metric over its steps with the flagged rows and their bounds; the metric of the worst finding when None."""
        name, part = self._chosen(metric, split)
        drawn = axes(ax)
        shown = self.frame.filter(pl.col("metric") == name) if name else self.frame.head(0)
        shown = shown.filter(pl.col("split") == part) if part is not None else shown
        if self.source is not None and name is not None:
            rows = self.source.series(name, split=part)
            x = rows["step"].to_numpy() if rows["step"].null_count() == 0 else np.arange(rows.height)
            draw_series(drawn, x.astype(float), rows["value"].to_numpy(), color=COLOURS["blue"], label=name)
        with style():
            steps, middle = shown["step"].to_numpy(), shown["expected"].to_numpy()
            reach = np.abs(np.stack([middle - shown["lower"].to_numpy(), shown["upper"].to_numpy() - middle]))
            if shown.height:
                drawn.errorbar(steps, middle, yerr=reach, fmt="none", ecolor=COLOURS["sky"], label="bounds")
                drawn.plot(steps, shown["value"], "o", ms=4, color=COLOURS["vermilion"], label="outside the bounds")
            drawn.set_xlabel("step")
            drawn.set_ylabel(name or "value")
            told = [f.message for f in self.findings if f.metric == name]
            drawn.set_title(told[0] if told else f"{shown.height} values of {name or 'no metric'} outside their bounds")
            if drawn.get_legend_handles_labels()[0]:
                drawn.legend()
        return drawn

    def _chosen(self, metric: str | None, split: str | None) -> tuple[str | None, str | None]:
        if metric is not None:
            return metric, split
        worst = next((f for f in self.findings if f.metric is not None), None)
        if worst is not None:
            part = worst.evidence.get("split")
            return worst.metric, str(part) if split is None and part is not None else split
        if self.frame.height:
            return str(self.frame["metric"][0]), str(self.frame["split"][0])
        if self.source is None or not self.source.metrics:
            return None, split
        return self.source.roles["train_loss"].metric or self.source.metrics[0], split


def anomalies(
    run: Run,
    *,
    metrics: Collection[str] | None = None,
    split: str | None = None,
    method: Method = "mad",
    scope: Literal["rolling", "global"] = "rolling",
    on: Literal["residual", "raw"] = "residual",
    window: int = 101,
    causal: bool = False,
    threshold: float | None = None,
    false_alarms: float = 0.01,
    limits: Limits = DEFAULT_LIMITS,
) -> Anomalies:
    """Values outside what their neighbours allow, and the episodes behind them, per rank, split and metric.

    `method`: `mad` (distance from the median in 1.4826 MAD; default, since a spike does not widen its own bounds),
    `zscore` (from the mean, in standard deviations) or `iqr` (beyond the quartiles, in interquartile ranges).
    `scope`: the spread of the neighbourhood, or of the whole series. `on`: the residual from a running median, on the
    log scale for positive losses, norms, times and wide positive metrics (finding evidence `scale` says which), or the
    raw numbers, where the textbook rules flag the start of every healthy run. `window` rows make a neighbourhood (of
    the trend: at most a quarter of the series; spreads of residuals use four windows); `causal=True` looks back only.
    `threshold` is in the method's unit; None sets it so that a healthy run has `false_alarms` leaps of its losses to be
    expected, and 2.5 times as many other values, which are information only, over all its series, by a heavy-tailed
    fit to the bulk of each series' own scores (`analysis.anomaly.calibration`), asks for at least a tenth of the
    expected value on the log scale, and takes a second look at steps and bends (`analysis.anomaly.confirmation`). In
    losses, means of 5 and 20 neighbours are tested as well. `limits` are those in force for the kinds that have one
    (`analysis.limits`).

    Findings: `non-finite`; for losses `loss-spike` (with recovery), `level-shift`, `divergence`; for all other noisy
    metrics, and for values of a loss that lie too low, one `outlier` each, as information. Learning rates, weights,
    weighted components and counters follow a rule and are judged for non-finite values only. Accuracies, error rates
    and rewards that lose half of their gain for good are a `level-shift` (at once) or a `divergence`. Levels of losses
    are judged outside eval and test splits, whose rise is overfitting, and not in the losses of a GAN's players, which
    need not fall. Rows are taken in the order logged, on the live branch of resumed runs; repeated steps are rows like
    others. A constant series has no outlier; one lone leap out of a constant is one. Series with fewer than 12 finite
    values are not judged.

    Raises ValueError for an option out of range, `InputError` for a metric or split that the run does not have.

    >>> import polars as pl
    >>> from parsers.finish import finish
    >>> loss = [2.0 + 0.01 * (i * 37 % 11) - 0.002 * i for i in range(200)]
    >>> loss[120] = 9.0
    >>> run = finish("demo", "", "jsonl", pl.DataFrame({"tag": ["loss"] * 200, "step": range(200), "value": loss}))
    >>> found = anomalies(run)
    >>> found.frame.select("step", "value").rows()
    [(120, 9.0)]
    >>> print(found.findings[0].kind, found.findings[0].severity, found.findings[0].evidence["recovery"])
    loss-spike warning fast
    """
    gauge = Gauge(limits)
    settings = Settings(method, scope, on, window, causal, threshold, false_alarms)
    if isinstance(metrics, str):
        metrics = (metrics,)
    series = list(series_of(run, metrics=metrics, split=split))
    noisy = [s for s in series if not s.is_ruled]
    load_kernels(sum(s.frame.height for s in noisy))
    chance = settings.false_alarms / max(1, len(noisy))
    judged = list(zip(noisy, _all_detected(noisy, settings, chance, limits), strict=True))
    findings = [*non_finite_findings(run.name, series), *_loss_findings(run, judged, series, settings, gauge)]
    findings += _outlier_findings(judged, settings)
    if settings.on == "residual":
        findings += collapse_findings([one for one, _ in judged], gauge)
    findings.sort(key=lambda f: (-SEVERITIES.index(f.severity), f.first_step if f.first_step is not None else -1))
    return Anomalies(
        run.name,
        _frame(run.name, judged, settings.method),
        findings=tuple(replace(f, run=run.name) for f in findings),
        not_applicable=_not_applicable(series, judged, settings),
        measures=gauge.measures,
        settings=settings,
        source=run,
    )


def _all_detected(noisy: list[Series], settings: Settings, chance: float, limits: Limits) -> list[Detection]:
    """What every series holds; of a large run several at a time, since NumPy and the kernels release the lock."""
    if sum(s.frame.height for s in noisy) < LARGE:
        return [_detected(s, settings, chance, limits) for s in noisy]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return list(pool.map(lambda s: _detected(s, settings, chance, limits), noisy))


def _detected(series: Series, settings: Settings, chance: float, limits: Limits) -> Detection:
    least = limits.of("loss-spike", series.metric) if series.is_loss else LEAST_FACTOR
    return detect(
        series.values,
        settings,
        chance=chance,
        multiplicative=series.is_multiplicative,
        loss=series.is_loss,
        least_factor=least,
    )


def _loss_findings(
    run: Run, judged: list[tuple[Series, Detection]], series: list[Series], settings: Settings, gauge: Gauge
) -> list[Finding]:
    """Spikes and level changes of losses; the raw numbers and thresholds of the user's own make outliers only."""
    if settings.on == "raw":
        return []
    found: list[Episode] = []
    facts: dict[int, Detection] = {}
    for one, detection in judged:
        if not one.is_loss or detection.scale is None:
            continue
        facts[id(one)] = detection
        with np.errstate(over="ignore", invalid="ignore"):  # values near the largest float differ by infinity
            rises = _rises(one, detection.scale, gauge)
        gauge.keep("loss-spike", detection.reached, one.metric)
        told_of = [e for e in episodes_of(one, detection, rises) if _is_told(e, detection, gauge)]
        found += [*told_of, *_ending(one, detection, told_of)]
    names = {s.metric for s, _ in judged if s.is_loss and not s.is_adversarial}
    main = {s.metric for s, _ in judged if s.is_main} or names
    told: list[Finding] = []
    for group in _by_metric(merged(found, main)):
        spikes = [i for i in group if i.shape == "spike"]
        worst = sorted(spikes, key=lambda i: -i.score)[:_HANDFUL]
        rest = [i for i in spikes if i not in worst]
        for episode in [i for i in group if i.shape != "spike"] + worst:
            detection = facts[id(episode.series)]
            told.append(
                finding_of(
                    episode,
                    series,
                    main=episode.series.metric in main,
                    count=detection.count,
                    threshold=detection.threshold,
                    window=settings.window,
                    scale=detection.scale.name if detection.scale else "",
                    limit=gauge.limits.of(kind_of(episode), episode.series.metric),
                    phase=phase_about(run, episode.steps[0]),
                )
            )
        if rest:
            metric = rest[0].series.metric
            limit = gauge.limits.of("loss-spike", metric)
            told.append(summary_of(rest, main=metric in main, limit=limit))
    return told


def _rises(series: Series, scale: Scale, gauge: Gauge) -> list[Rise]:
    """The changes of level of a loss that should keep its own, each from the limit of its kind on."""
    if not _keeps_level(series):
        return []
    climbing, staying = (gauge.limits.of(kind, series.metric) for kind in ("divergence", "level-shift"))
    levels = level_changes(series.values, scale, staying=staying, climbing=climbing)
    for kind in ("divergence", "level-shift"):
        gauge.keep(kind, levels.risen, series.metric)
    return levels.changes


def _ending(series: Series, detection: Detection, episodes: list[Episode]) -> list[Episode]:
    """The leap at which the log of a loss ends, unless a change of level or a spike says so already."""
    if not _keeps_level(series) or any(e.shape in ("jump", "climb") or e.recovery is None for e in episodes):
        return []
    ending = open_end(series, detection)
    return [ending] if ending is not None and all(e.last < ending.first for e in episodes) else []


def _is_told(episode: Episode, detection: Detection, gauge: Gauge) -> bool:
    """Whether an episode reaches the limit of its kind, and is more than what rows of fewer steps scatter."""
    times, kind = times_of(episode), kind_of(episode)
    if episode.shape in ("jump", "climb") and times < gauge.limits.of(kind, episode.series.metric):
        return False
    finer = _finer(episode) if episode.shape == "spike" else 1.0
    return finer == 1.0 or episode.score > detection.threshold * finer


def _finer(episode: Episode) -> float:
    """How many times more a row scatters that stands for fewer steps than usual: by the root of the steps, not below 1.

    Some logs begin with a row a step and go on with the mean of a thousand; those first rows are so much noisier.
    """
    step = episode.series.frame["step"]
    if episode.peak == 0 or step.null_count():
        return 1.0
    apart = step.diff().drop_nulls().to_numpy()
    usual, here = float(np.median(apart)), float(apart[episode.peak - 1])
    return (usual / here) ** 0.5 if 0 < here < usual else 1.0


def _keeps_level(series: Series) -> bool:
    """Whether a rise that stays is a fault: not in eval (that is overfitting), nor between the players of a GAN."""
    return series.is_loss and series.side not in ("eval", "test") and not series.is_adversarial


def _by_metric(episodes: list[Episode]) -> list[list[Episode]]:
    groups: dict[tuple[str, str], list[Episode]] = {}
    for episode in episodes:
        groups.setdefault((episode.series.split, episode.series.metric), []).append(episode)
    return list(groups.values())


def _outlier_findings(judged: list[tuple[Series, Detection]], settings: Settings) -> list[Finding]:
    """One finding a metric and split, ranks together: how many values lie outside, and the farthest of them.

    Of losses these are the values below their bounds.
    """
    groups: dict[tuple[str, str], list[tuple[Series, Detection]]] = {}
    for series, found in judged:
        detection = found if settings.on == "raw" or not series.is_loss else _below(found)
        if len(detection.rows):
            groups.setdefault((series.metric, series.split), []).append((series, detection))
    return [_outlier(metric, split, parts, settings) for (metric, split), parts in groups.items()]


def _below(found: Detection) -> Detection:
    """The rows of a loss that lie too low, which no step of a training explains; those above are spikes."""
    low = found.score < 0
    kept = {name: getattr(found, name)[low] for name in ("rows", "expected", "lower", "upper", "score")}
    return replace(found, **kept)


def _outlier(metric: str, split: str, parts: list[tuple[Series, Detection]], settings: Settings) -> Finding:
    series, detection = max(parts, key=lambda part: float(np.max(np.abs(part[1].score))))
    worst = int(np.argmax(np.abs(detection.score)))
    step = series.step_at(int(detection.rows[worst]))
    at = step if step is not None else int(detection.rows[worst])
    count, total = sum(len(d.rows) for _, d in parts), sum(d.count for _, d in parts)
    value, expected = float(series.values[detection.rows[worst]]), float(detection.expected[worst])
    steps = [s for one, d in parts for row in (d.rows[0], d.rows[-1]) if (s := one.step_at(int(row))) is not None]
    name = f"{split} {metric}".strip()
    return Finding(
        "outlier",
        "info",
        "",
        f"{count} of {total} values of {name} lie outside their bounds; the farthest is {value:.4g} at step {at}, "
        f"where {expected:.4g} was due",
        metric=metric,
        first_step=min(steps, default=None),
        last_step=max(steps, default=None),
        evidence={
            "split": split,
            "count": count,
            "n": total,
            "value": value,
            "expected": expected,
            "lower": float(detection.lower[worst]),
            "upper": float(detection.upper[worst]),
            "score": float(detection.score[worst]),
            "threshold": detection.threshold,
            "window": settings.window,
            "method": settings.method,
            "scale": detection.scale.name if detection.scale else "",
        },
    )


def _frame(run: str, judged: list[tuple[Series, Detection]], method: str) -> pl.DataFrame:
    parts = []
    for series, found in judged:
        if len(found.rows) == 0:
            continue
        rows = series.frame[found.rows]
        bounds = {"expected": found.expected, "lower": found.lower, "upper": found.upper, "score": found.score}
        parts.append(
            rows.with_columns(
                pl.lit(run).alias("run"),
                pl.lit(series.rank, dtype=pl.Int32).alias("rank"),
                pl.lit(series.split).alias("split"),
                pl.lit(series.metric).alias("metric"),
                pl.lit(method).alias("method"),
                *(pl.Series(name, numbers) for name, numbers in bounds.items()),
            ).select(pl.col(name).cast(dtype) for name, dtype in _SCHEMA.items())
        )
    return pl.concat(parts) if parts else _SCHEMA.to_frame()


def _not_applicable(
    series: list[Series], judged: list[tuple[Series, Detection]], settings: Settings
) -> tuple[NotApplicable, ...]:
    if not series:
        every = ("non-finite", "outlier", *_DETERMINED)
        return tuple(NotApplicable(kind, "this log has no numbers") for kind in every)
    said = []
    longest = max((d.count for _, d in judged), default=0)
    if longest < FEWEST:
        short = f"the longest noisy series has {longest} finite values; at least {FEWEST} are needed"
        said.append(NotApplicable("outlier", short))
    if settings.on == "raw":
        reason = "raw values were asked for, whose trend hides levels; use on='residual'"
        return (*said, *(NotApplicable(kind, reason) for kind in _DETERMINED))
    losses = [d.count for s, d in judged if s.is_loss]
    if not losses:
        return (
            *said,
            *(NotApplicable(kind, "no series of this log is known as a loss (see run.roles)") for kind in _DETERMINED),
        )
    if max(losses) < FEWEST:
        short = f"the longest loss has {max(losses)} finite values; at least {FEWEST} are needed"
        return (*said, *(NotApplicable(kind, short) for kind in _DETERMINED))
    trained = [d.count for s, d in judged if _keeps_level(s)]
    if max(trained, default=0) < 30:
        short = f"the longest loss of the training split has {max(trained, default=0)} finite values; 30 are needed"
        if not trained and any(s.is_adversarial for s, _ in judged):
            short = "the losses of a GAN's players have no level to keep; the GAN checks judge their balance"
        said += [NotApplicable(kind, short) for kind in _DETERMINED[1:]]
    return tuple(said)
