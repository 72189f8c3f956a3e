"""What the gap between train and eval says, in findings: overfitting, scale, size, and results too good to be true."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analysis.findings import SEVERITIES, Finding, Severity
from analysis.generalisation.overfitting import Turn
from analysis.generalisation.pairing import Pair
from analysis.generalisation.scale_mismatch import LARGE, Mismatch
from analysis.generalisation.settled import both_settled
from analysis.generalisation.trend import Slope
from analysis.limits import Gauge, Limits

__all__ = ["Bounds", "GapSummary", "gap_of", "judge_gap", "measure_gap", "strongest"]

Floats = NDArray[np.float64]
#: A difference of accuracies by so much counts like eval twice as large as train.
_ONE = 0.2


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where the verdicts begin; checked when made.

    `warn_rise` and `critical_rise`: eval ended so much worse than its best (shares; below `warn_rise` a rise is told as
    info). `gap_ratio`: eval / train from which a gap is worth a word. `good_ratio`, `absurd_ratio`: eval / train below
    which eval is better than dropout (some 10 to 30 %) or strong augmentation explain.
    """

    warn_rise: float = 0.05
    critical_rise: float = 0.25
    gap_ratio: float = 1.5
    good_ratio: float = 0.4
    absurd_ratio: float = 0.1
    #: Rise that is told at all, and constant factor between the two.
    least_rise: float = 0.02
    factor: float = LARGE

    @property
    def least_difference(self) -> float:
        """What `gap_ratio` is of accuracies: a difference, 0.1 where it is 1.5."""
        return (self.gap_ratio - 1.0) * _ONE

    @property
    def least_excess(self) -> float:
        """What `gap_ratio` is of the first train loss for a warning: a quarter of it where the ratio is 1.5.

        A model that is sure of what it knows has a large ratio of two small losses, and all but learned its task.
        """
        return (self.gap_ratio - 1.0) / 2

    @property
    def least_settled(self) -> float:
        """The same where train and eval have both settled: a fifth of it, 0.05 where the ratio is 1.5.

        What is not being memorised needs not be that large to be no matter of two small losses.
        """
        return self.least_excess / 5

    def moved(self, limits: Limits, metric: str) -> Bounds:
        """The same with the limits that are set for a metric, which move the milder and the severer alike."""
        rise, gap = limits.scale("overfitting", metric), limits.scale("train-eval-gap", metric)
        good = limits.scale("suspiciously-good", metric)
        return Bounds(
            self.warn_rise * rise,
            self.critical_rise * rise,
            max(self.gap_ratio * gap, 1.0 + 1e-6),
            min(self.good_ratio * good, 1.0 - 1e-6),
            min(self.absurd_ratio * good, 1.0 - 1e-6),
            self.least_rise * rise,
            self.factor * limits.scale("train-eval-scale-mismatch", metric),
        )

    def __post_init__(self) -> None:
        if not 0 < self.warn_rise <= self.critical_rise:
            raise ValueError(
                f"warn_rise is {self.warn_rise} and critical_rise {self.critical_rise}; "
                "give shares above 0, the first not above the second (defaults 0.05 and 0.25)"
            )
        if not 0 < self.absurd_ratio <= self.good_ratio < 1 < self.gap_ratio:
            raise ValueError(
                f"absurd_ratio {self.absurd_ratio}, good_ratio {self.good_ratio} and gap_ratio {self.gap_ratio} must "
                "stand in this order, with 1 between the last two (defaults 0.1, 0.4, 1.5)"
            )


@dataclass(frozen=True, slots=True)
class GapSummary:
    """One metric's train and eval in numbers.

    `best_x`, `onset_x` are places on `axis` (step, epoch or record), `best_value` the best eval. `share_after_best` is
    the share of the evaluated training that came after the best eval. `trend` is the slope of the gap (eval worse than
    train by ...) per unit of the axis with its 95 % interval. `late_gap`, `late_ratio`: medians of the last third.
    """

    metric: str
    axis: str
    evals: int
    best_x: float
    best_value: float
    onset_x: float | None
    share_after_best: float
    trend: Slope
    late_gap: float
    late_ratio: float
    rise: float
    mismatch: Mismatch | None


def judge_gap(run: str, pair: Pair, summary: GapSummary, turn: Turn, bounds: Bounds, by_plan: bool) -> list[Finding]:
    """Findings of one pair. `by_plan`: a curriculum changed the training loss, or it is a sum of parts that eval does
    not log: its size proves less.
    """
    found: list[Finding | None] = [_overfitting(run, pair, summary, turn, bounds)]
    if summary.mismatch is not None and not (by_plan and _by_parts(summary.mismatch, bounds)):
        found.append(_mismatch(run, pair, summary, summary.mismatch, bounds))
        if summary.mismatch.kind == "offset":  # a part that train lacks, or harder eval data: the gap is told as well
            found.append(_large_gap(run, pair, summary, bounds, by_plan=True))
    else:
        found.append(_too_good(run, pair, summary, bounds, by_plan))
        # overfitting says it already: the gap beside it is only told
        found.append(_large_gap(run, pair, summary, bounds, by_plan or turn.overfits))
    return [finding for finding in found if finding is not None]


def _by_parts(mismatch: Mismatch, bounds: Bounds) -> bool:
    """Whether a difference is one that parts of a loss make: an offset, or a factor that is whole by chance."""
    return mismatch.kind == "offset" or (mismatch.kind == "factor" and mismatch.times < bounds.factor)


def strongest(findings: list[Finding]) -> list[Finding]:
    """One finding a kind, the worst (the first among equals), which names the other metrics that show the same."""
    chosen: dict[str, Finding] = {}
    others: dict[str, list[str]] = {}
    for finding in sorted(findings, key=lambda f: -SEVERITIES.index(f.severity)):
        if finding.kind in chosen:
            others.setdefault(finding.kind, []).append(str(finding.metric))
        else:
            chosen[finding.kind] = finding
    return [
        replace(f, evidence={**f.evidence, "also": ", ".join(others[kind])}) if kind in others else f
        for kind, f in chosen.items()
    ]


def _step(value: float) -> int | None:
    return int(value) if np.isfinite(value) else None


def _overfitting(run: str, pair: Pair, summary: GapSummary, turn: Turn, bounds: Bounds) -> Finding | None:
    if turn.onset is None:
        return None
    severity: Severity = "info"
    if turn.rise >= bounds.warn_rise:
        severity = "warning"
    if turn.rise >= bounds.critical_rise:
        severity = "critical"
    best, onset = turn.best, turn.onset
    return Finding(
        "overfitting",
        severity,
        run,
        f"{pair.split} {pair.metric} was best at {pair.axis} {pair.x[best]:g} ({pair.eval[best]:.4g}) and ended "
        f"{turn.rise:.0%} worse, while train {_moved(pair, turn)}; {summary.share_after_best:.0%} of the training came "
        "after the best",
        metric=pair.metric,
        first_step=_step(pair.step[onset]),
        last_step=_step(pair.step[-1]),
        evidence={
            "best_step": _step(pair.step[best]),
            "best_value": float(pair.eval[best]),
            "clearly_worse_from": None if turn.worse is None else _step(pair.step[turn.worse]),
            "end_value": float(np.median(pair.eval[-3:])),
            "rise": turn.rise,
            "limit": bounds.least_rise,
            "noise_bar": turn.bar,
            "critical_from": bounds.critical_rise,
            "train_change": turn.train_change,
            "slope_after_best": turn.slope.value,
            "slope_low": turn.slope.low,
            "slope_high": turn.slope.high,
            "share_after_best": summary.share_after_best,
            "evals": summary.evals,
        },
        causes=(
            f"the model memorises the training data (train and {pair.split} part: rise, train_change)",
            f"training goes on too long ({summary.share_after_best:.0%} of it after the best)",
            "the learning rate is still high after the best point, or there is too little regularisation",
        ),
        suggestions=(
            f"use the checkpoint nearest {pair.axis} {pair.x[best]:g}",
            f"stop early on {pair.split} {pair.metric}",
            "more data or augmentation, more dropout or weight decay, a smaller model, or a lower learning rate",
        ),
    )


def _moved(pair: Pair, turn: Turn) -> str:
    if turn.train_change < -0.01:
        return f"went on {'falling' if pair.lower else 'rising'} ({abs(turn.train_change):.0%})"
    return f"stood at its limit ({np.median(pair.train[-3:]):.4g})"


def _mismatch(run: str, pair: Pair, summary: GapSummary, mismatch: Mismatch, bounds: Bounds) -> Finding:
    interval = f"95 % interval {mismatch.low:.4g} to {mismatch.high:.4g}"
    causes: tuple[str, ...]
    if mismatch.kind == "offset":
        text = f"differs from train by a constant {mismatch.size:+.4g} ({interval}) from the first eval on"
        missing = "train" if mismatch.size > 0 else pair.split
        causes = (f"a loss component is missing on {missing} (offset)", "eval data of another kind (offset)")
    elif mismatch.kind == "percent":
        text = f"and train differ about {max(mismatch.size, 1 / mismatch.size):.0f}-fold: one is in percent"
        causes = ("one side logs percent, the other fractions (factor)",)
    else:
        factor = mismatch.size if mismatch.size >= 1 else 1 / mismatch.size
        way = "larger" if mismatch.size >= 1 else "smaller"
        text = f"is {factor:.4g} times {way} than train all along, from the first eval on ({interval})"
        summed = pair.split if mismatch.size >= 1 else "train"
        divided = "train" if mismatch.size >= 1 else pair.split
        causes = (
            f"{summed} is summed over batches, tokens or devices instead of averaged (constant factor)",
            f"{divided} is logged after it was divided, by the accumulation steps for one (constant factor)",
        )
        if mismatch.whole is not None:
            text += f"; that is the whole number {mismatch.whole}"
            causes = (
                f"gradient accumulation or devices: {summed} adds {mismatch.whole} losses up (whole factor)",
                *causes,
            )
    # twice the loss on train is what mixing and strong augmentation can do as well
    mild = mismatch.kind == "factor" and mismatch.inverse and mismatch.whole == 2
    return Finding(
        "train-eval-scale-mismatch",
        "info" if mild else "warning",
        run,
        f"{pair.split} {pair.metric} {text}",
        metric=pair.metric,
        # how a loss is computed does not begin with the first eval, which only shows it
        first_step=_step(min(pair.train_x[0], pair.step[0]) if pair.axis == "step" else pair.step[0]),
        last_step=_step(pair.step[-1]),
        evidence={
            "form": mismatch.kind,
            "size": mismatch.size,
            "times": mismatch.times if mismatch.kind == "factor" else None,
            "limit": bounds.factor if mismatch.kind == "factor" else None,
            "low": mismatch.low,
            "high": mismatch.high,
            "whole_factor": mismatch.whole,
            "evals": summary.evals,
        },
        causes=causes,
        suggestions=(
            "evaluate on a training batch with the evaluation code: both losses must agree in eval mode",
            "compare how the two losses are reduced (mean or sum) and which components they hold",
        ),
    )


def _too_good(run: str, pair: Pair, summary: GapSummary, bounds: Bounds, by_plan: bool) -> Finding | None:
    late = slice(-max(len(pair.x) // 2, 3), None)
    train, evaluated = float(np.median(pair.train[late])), float(np.median(pair.eval[late]))
    severity: Severity = "info"
    limit: float | None = bounds.good_ratio if pair.lower else None
    if pair.lower:
        if train <= 0 or evaluated < 0 or evaluated >= bounds.good_ratio * train:
            return None
        if np.mean(pair.eval[late] < bounds.good_ratio * pair.train[late]) < 0.8:
            return None
        if evaluated < bounds.absurd_ratio * train and not by_plan:
            severity = "warning"
        said = f"is {evaluated / train:.2g} of train's over the last half ({evaluated:.3g} against {train:.3g})"
    else:
        early = pair.eval[: max(len(pair.eval) // 4, 2)]
        if not (
            float(early[1:].min()) >= 0.999 and float(pair.eval[1:].min()) >= 0.999 and evaluated <= 1 and train < 0.98
        ):
            return None
        severity, said = "warning", f"is {evaluated:.4g} from the second eval on, with {train:.3g} on train"
    return Finding(
        "suspiciously-good",
        severity,
        run,
        f"{pair.split} {pair.metric} {said}; dropout and augmentation explain less",
        metric=pair.metric,
        first_step=_step(pair.step[0]),
        last_step=_step(pair.step[-1]),
        evidence={
            "eval": evaluated,
            "train": train,
            "share_of_train": evaluated / train if train else None,
            "limit": limit,
            "late_ratio": summary.late_ratio,
            "evals": summary.evals,
        },
        causes=(
            f"the {pair.split} set is in the training data, or the labels are in the inputs (eval far below train)",
            f"the {pair.split} set is tiny or of one class",
            "train carries penalties, mixing or label smoothing that eval does not",
        ),
        suggestions=(
            "look for duplicates between the two sets and for targets among the inputs",
            f"evaluate an untrained model: its {pair.metric} must be at chance",
            "log train in eval mode once, without dropout and augmentation",
        ),
    )


def measure_gap(gauge: Gauge, pair: Pair, summary: GapSummary, turn: Turn, factor: Mismatch | None) -> None:
    """Keep how near a pair came to each limit; what eval is worse than its best counts where it is beyond noise."""
    gauge.keep("overfitting", max(turn.rise, 0.0) if turn.overfits else 0.0, pair.metric)
    if pair.lower:
        gauge.keep("train-eval-scale-mismatch", 1.0 if factor is None else factor.times, pair.metric)
    if summary.mismatch is None:
        gauge.keep("train-eval-gap", gap_of(pair), pair.metric)
        half = slice(-max(len(pair.x) // 2, 3), None)
        train, evaluated = float(np.median(pair.train[half])), float(np.median(pair.eval[half]))
        if pair.lower and train > 0 and evaluated >= 0:
            gauge.keep("suspiciously-good", evaluated / train, pair.metric)


def gap_of(pair: Pair) -> float:
    """Eval / train over the last third; of accuracies 1 and five times the difference, so that 0.1 is 1.5; else 1."""
    late = slice(-max(len(pair.x) // 3, 2), None)
    train, evaluated = float(np.median(pair.train[late])), float(np.median(pair.eval[late]))
    if pair.lower:
        return evaluated / train if train > 0 else 1.0
    scale = 100.0 if max(train, evaluated) > 1.5 else 1.0
    return 1.0 + (train - evaluated) / (_ONE * scale)


def _apart_since(pair: Pair, size: float) -> int:
    """The first eval from which the gap stays above half of its final size, in the mean of three."""
    gap = np.pad(pair.eval - pair.train if pair.lower else pair.train - pair.eval, 1, mode="edge")
    near = np.flatnonzero((gap[:-2] + gap[1:-1] + gap[2:]) / 3 <= size / 2)
    return min(int(near[-1]) + 1, len(pair.x) - 1) if len(near) else 0


def _large_gap(run: str, pair: Pair, summary: GapSummary, bounds: Bounds, by_plan: bool) -> Finding | None:
    late = slice(-max(len(pair.x) // 3, 2), None)
    train, evaluated = float(np.median(pair.train[late])), float(np.median(pair.eval[late]))
    start = float(np.median(pair.train_raw[: max(len(pair.train_raw) // 50, 1)]))
    severity: Severity = "info"
    settled = False
    if pair.lower:
        if train <= 0 or evaluated < bounds.gap_ratio * train:
            return None
        settled = both_settled(pair.x, pair.eval, pair.train, start)
        least = bounds.least_settled if settled else bounds.least_excess
        # of a train loss that ended above its beginning the gap is no matter of what carries over
        if evaluated - train >= least * start > least * train and not by_plan:
            severity = "warning"
        said = f"{evaluated:.4g} against {train:.4g} ({evaluated / train:.3g} times)"
    else:
        scale = 100.0 if max(train, evaluated) > 1.5 else 1.0
        if train - evaluated < bounds.least_difference * scale or max(train, evaluated) > 100:
            return None
        if train - evaluated > 0.4 * scale and not by_plan:
            severity = "warning"
        said = f"{evaluated:.3g} against {train:.3g}"
    return Finding(
        "train-eval-gap",
        severity,
        run,
        f"{pair.split} {pair.metric} ends far from train: {said}, over the last third; train began at {start:.4g}"
        + (", and both have settled" if settled else ""),
        metric=pair.metric,
        first_step=_step(pair.step[_apart_since(pair, abs(evaluated - train))]),
        last_step=_step(pair.step[-1]),
        evidence={
            "eval": evaluated,
            "train": train,
            "ratio": summary.late_ratio,
            "gap": gap_of(pair),
            "limit": bounds.gap_ratio,
            "train_start": start,
            "settled": settled,
            "gap_trend": summary.trend.value,
            "gap_trend_low": summary.trend.low,
            "gap_trend_high": summary.trend.high,
        },
        causes=_causes_of_gap(pair.split, settled),
        suggestions=(
            "check that train and eval are prepared by the same code",
            "more data, augmentation or regularisation",
            "evaluate on a part of the training distribution that was held out",
        ),
    )


def _causes_of_gap(split: str, settled: bool) -> tuple[str, ...]:
    by_heart = "the model memorises what does not carry over: little data, noisy labels (train low, eval high)"
    other = f"{split} data differs from the training data"
    small = "the training loss is small by construction (teacher forcing, masked positions)"
    if settled:
        return (f"{other}, or its labels are noisier (train no longer falls: settled)", small, by_heart)
    return by_heart, other, small
