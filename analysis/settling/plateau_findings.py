"""Plateaus put into words: never improved, stopped in the middle of a fall, did not move at first, levelled off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.anomaly.planned_phases import phase_about
from analysis.findings import Finding, Severity
from analysis.limits import Gauge
from analysis.settling.blocks import Blocks, blocks_of
from analysis.settling.plateau import FEWEST, Stop, late_start, levelled_off, never_improved, sudden_stop
from analysis.settling.signal import Signal
from parsers.run import Run

__all__ = ["plateau_findings"]

Floats = NDArray[np.float64]
_KIND = "plateau"
#: A learning rate of nothing (of its highest), and rows and share of the run beyond which it is no schedule's end.
_NOTHING, _REST_ROWS, _REST = 1e-3, 10, 0.1
#: A learning rate that fell to less than half meanwhile explains that a loss moves less.
_DECAYED = 0.5
#: One that was below so much of its value when the fall began was still being warmed up.
_RISEN = 0.7
#: Words of a configuration that say that training began with weights that had been trained.
_TRAINED = (
    *("pretrain", "resume", "restore", "finetun", "fine_tun", "init_from", "load_from", "init_checkpoint"),
    *("model_name_or_path", "base_model", "lora", "adapter", "warm_start", "warmstart"),
)
_CLASSES = ("num_classes", "num_labels", "n_classes", "nb_classes", "classes", "vocab_size")
_TRY_NEVER = (
    "overfit a single batch: if the loss does not fall there either, the fault is in the code and not in the data",
    "check that the optimiser holds the parameters, that they require gradients, and that it steps",
    "log the gradient norm and the learning rate; try a ten times larger rate",
)
_TRY_STOP = (
    "compare weights of two checkpoints after that step: do they still change?",
    "look at the learning rate and at skipped steps (loss scale, clipping) from that step on",
    "resume from a checkpoint before it with a constant learning rate",
)


def plateau_findings(run: Run, signal: Signal, gauge: Gauge) -> list[Finding]:
    """What is to be said of where a loss stops to improve; at most one finding. The signal has 30 rows or more."""
    if signal.scaled is None:
        return list(_constant(signal, gauge))
    levels = blocks_of(signal.scaled)
    flat = never_improved(signal.scaled, levels)
    if flat is None:
        return []
    told = gauge.reaches(_KIND, 1.0 if flat.improved else flat.at_most, signal.metric)
    resting = _resting(signal)
    throughout = resting == (0, len(signal.value))
    if not flat.improved and (told or throughout):
        return [_never(signal, flat.improvement, flat.at_most, gauge, throughout)]
    if resting is not None and not throughout:
        return [_at_rest(signal, *resting, gauge)]
    frozen = _frozen(signal)
    if frozen is not None:
        return [_unmoved(signal, *frozen, gauge)]
    stop = sudden_stop(signal.scaled, levels)
    if stop is not None and not _warming(signal, stop) and not phase_about(run, signal.step_at(stop.row)):
        return [_stopped(signal, stop, gauge)]
    return [*_late(signal, gauge, levels), *_levelled(signal, gauge, levels)][:1]


def _evidence(signal: Signal, gauge: Gauge, at_most: float, **more: float | int | str | bool | None) -> dict[str, Any]:
    return {
        "split": signal.series.split,
        "rank": signal.series.rank,
        "improvement_at_most": at_most,
        "limit": gauge.limits.of(_KIND, signal.metric),
        "n": len(signal.value),
        **more,
    }


def _finding(
    signal: Signal,
    severity: Severity,
    message: str,
    first: int,
    evidence: Mapping[str, Any],
    causes: tuple[str, ...],
    suggestions: tuple[str, ...],
    last: int | None = None,
) -> Finding:
    end = signal.step_at(len(signal.value) - 1) if last is None else signal.step_at(last)
    return Finding(
        _KIND,
        severity,
        "",
        message,
        metric=signal.metric,
        first_step=signal.step_at(first),
        last_step=end,
        evidence=evidence,
        causes=causes,
        suggestions=suggestions,
    )


def _constant(signal: Signal, gauge: Gauge) -> Iterator[Finding]:
    """A loss without logarithms is judged only where it never changes: zero throughout is no number of a training."""
    if signal.is_constant:
        yield _never(signal, 0.0, 0.0, gauge, _resting(signal) == (0, len(signal.value)))


def _never(signal: Signal, improvement: float, at_most: float, gauge: Gauge, resting: bool) -> Finding:
    level = float(np.median(signal.value))
    trained = _trained_before(signal.config)
    causes = [*_zero_rate(signal, resting), *_guessing(signal, level)]
    if not signal.begins:
        causes.append(f"the log begins at step {signal.step_at(0):,}: what was learned before it is not seen here")
    if trained:
        causes.append(f"the training began with trained weights ({trained}), which may have nothing left to learn")
    if not causes:
        causes = ["cannot tell from this log; record the gradient norm, the learning rate and an accuracy to know"]
    if resting:
        severity: Severity = "critical"
    elif signal.company or trained or not signal.begins:
        severity = "info"
    else:
        severity = "warning"
    if signal.is_constant:
        said = f"{signal.name} is {level:.4g} at each of {len(signal.value):,} rows"
    else:
        said = (
            f"{signal.name} never improved: it stays about {level:.4g} over {len(signal.value):,} rows, and its noise "
            f"leaves room for {100 * at_most:.2g} % at most"
        )
    return _finding(
        signal,
        severity,
        said,
        0,
        _evidence(signal, gauge, at_most, shape="never", improvement=improvement, level=level, lr_zero=resting),
        tuple(causes),
        ("set a learning rate above 0, or look at why the schedule gives 0", *_TRY_NEVER) if resting else _TRY_NEVER,
    )


def _at_rest(signal: Signal, first: int, last: int, gauge: Gauge) -> Finding:
    share = (last - first) / len(signal.value)
    rate = 0.0 if signal.rate is None else float(np.median(signal.rate[first:last]))
    stays = f"{signal.name} stays about {np.median(signal.value[first:last]):.4g}"
    until = "on" if last == len(signal.value) else f"to {signal.step_at(last - 1):,}"
    return _finding(
        signal,
        "warning",
        f"the learning rate is {rate:.3g} from step {signal.step_at(first):,} {until}: {100 * share:.0f} % of the run "
        f"train nothing, and {stays}",
        first,
        _evidence(
            signal, gauge, 0.0, shape="learning rate of nothing", share=share, learning_rate=rate, lr_zero=rate == 0
        ),
        (f"the learning rate is {rate:.3g} there, a thousandth of its highest or less: its schedule ends too early",),
        ("give the schedule as many steps as the training has", "end the training where the learning rate ends"),
        last - 1,
    )


def _unmoved(signal: Signal, first: int, last: int, gauge: Gauge) -> Finding:
    share = (last - first) / len(signal.value)
    until = "on" if last == len(signal.value) else f"to {signal.step_at(last - 1):,}"
    rate = "" if signal.rate is None else f", while the learning rate is {np.median(signal.rate[first:last]):.3g}"
    return _finding(
        signal,
        "warning",
        f"the weights do not move from step {signal.step_at(first):,} {until}: their norm is the same to the last "
        f"digit for {100 * share:.0f} % of the run, and {signal.name} "
        f"stays about {np.median(signal.value[first:last]):.4g}",
        first,
        _evidence(signal, gauge, 0.0, shape="weights stand still", share=share, rows=last - first),
        (f"steps of the optimiser do nothing{rate}: skipped, given no gradients, or given other parameters",),
        _TRY_STOP,
        last - 1,
    )


def _stopped(signal: Signal, stop: Stop, gauge: Gauge) -> Finding:
    after = min(stop.row + stop.rows, len(signal.value) - 1)
    rate = signal.rate
    causes: list[str] = []
    decayed = False
    if rate is not None:
        before, now = float(rate[max(0, stop.row - stop.rows)]), float(np.median(rate[stop.row : after + 1]))
        decayed = now < _DECAYED * before
        causes = [f"the learning rate fell from {before:.3g} to {now:.3g} meanwhile"] if decayed else []
    if not causes:
        held = "" if rate is None else f"the learning rate stays about {np.median(rate[stop.row :]):.3g}: "
        causes = [f"{held}weights may no longer be updated (frozen, detached, steps skipped), or units have died"]
    share = 1.0 - stop.row / len(signal.value)
    small = stop.due < gauge.limits.of(_KIND, signal.metric)
    return _finding(
        signal,
        "info" if decayed or small or signal.company else "warning",
        f"{signal.name} stops improving at step {signal.step_at(stop.row):,}, in the middle of its fall: in the next "
        f"{_steps(signal, stop.rows)} at least {100 * stop.due:.2g} % were due by its own pace and "
        f"{100 * stop.came:.2g} % came; it stands for the last {100 * share:.0f} % of the run",
        stop.row,
        _evidence(
            signal, gauge, stop.came, shape="stopped", due=stop.due, score=stop.score, share=share, lr_decayed=decayed
        ),
        tuple(causes),
        _TRY_STOP,
    )


def _warming(signal: Signal, stop: Stop) -> bool:
    """Whether the learning rate rose all through the fall: its pace is then that of the rate, and bounds nothing."""
    if signal.rate is None:
        return False
    return bool(
        signal.rate[max(0, stop.row - 2 * stop.rows)] < _RISEN * signal.rate[min(stop.row, len(signal.rate) - 1)]
    )


def _late(signal: Signal, gauge: Gauge, levels: Blocks) -> Iterator[Finding]:
    row = late_start(signal.scaled, levels) if signal.scaled is not None else None
    if row is None:
        return
    idle = signal.rate is not None and float(np.max(signal.rate[: max(1, round(0.9 * row))])) == 0.0
    yield _finding(
        signal,
        "warning" if idle else "info",
        f"{signal.name} did not move before step {signal.step_at(row):,} ({100 * row / len(signal.value):.0f} % of the "
        "run), and fell from there on",
        0,
        _evidence(signal, gauge, 0.0, shape="late start", share=row / len(signal.value), lr_zero=idle),
        (("the learning rate was 0 until then",) if idle else ("a long warmup, or a slow start of this model",)),
        ("look at the learning rate and its warmup", "try another initialisation, or normalised inputs"),
        row,
    )


def _levelled(signal: Signal, gauge: Gauge, levels: Blocks) -> Iterator[Finding]:
    found = levelled_off(signal.scaled, levels=levels) if signal.scaled is not None else None
    if found is None:
        return
    row, rest, doubt = found
    share = 1.0 - row / len(signal.value)
    yield _finding(
        signal,
        "info",
        f"{signal.name} levelled off at step {signal.step_at(row):,}: the last {100 * share:.0f} % of the run brought "
        f"{100 * max(rest, 0.0):.2g} %",
        row,
        _evidence(signal, gauge, max(rest, 0.0) + doubt, shape="levelled off", share=share, improvement=rest),
        ("this model has learned what it can from these data at this learning rate, or the run is longer than needed",),
        ("end such runs earlier, or decay the learning rate here", "a larger model or more data, if more is needed"),
    )


def _resting(signal: Signal) -> tuple[int, int] | None:
    """First and past-the-last row of the longest stretch at a learning rate of nothing, in which the loss stands."""
    rate = signal.rate
    if rate is None or len(rate) < FEWEST:
        return None
    highest = float(np.max(rate))
    idle = np.concatenate([[0], (rate <= _NOTHING * highest).astype(np.int8), [0]])
    turns = np.flatnonzero(np.diff(idle)).tolist()
    if not turns:
        return None
    first, last = max(zip(turns[::2], turns[1::2], strict=True), key=lambda part: part[1] - part[0])
    if last - first < max(_REST_ROWS, _REST * len(rate)):
        return None
    # a schedule that glides so low and is not at its end ends there by choice
    glides = first > 0 and rate[first - 1] < 20 * _NOTHING * highest and float(np.max(rate[first:last])) > 0
    return (first, last) if not glides and _stands(signal, first, last) else None


def _frozen(signal: Signal) -> tuple[int, int] | None:
    """First and past-the-last row of the longest stretch in which a norm of the weights that moved stands still.

    A norm of few digits stands still by rounding: nearly every other row must differ from the one before it.
    """
    if signal.weights is None or len(signal.weights) < FEWEST or not np.isfinite(signal.weights).all():
        return None
    still = np.concatenate([[0], (np.diff(signal.weights) == 0).astype(np.int8), [0]])
    turns = np.flatnonzero(np.diff(still)).tolist()
    if not turns:
        return None
    first, last = max(zip(turns[::2], turns[1::2], strict=True), key=lambda part: part[1] - part[0])
    others = len(signal.weights) - 1 - (last - first)
    moved = others - (int(still.sum()) - (last - first))
    if last - first < max(2 * _REST_ROWS, _REST * len(signal.weights)) or others < _REST_ROWS or moved < 0.9 * others:
        return None
    return (first + 1, last + 1) if _stands(signal, first + 1, last + 1) else None


def _stands(signal: Signal, first: int, last: int) -> bool:
    """Whether the loss stands in some rows: a rate printed as 0.000 may be a rounded one, and it would fall."""
    part = None if signal.scaled is None else never_improved(signal.scaled[first:last])
    return part is None or not part.improved


def _zero_rate(signal: Signal, resting: bool) -> list[str]:
    if not resting:
        return []
    return [f"the learning rate is 0 at all {len(signal.value):,} rows: no weight was changed"]


def _guessing(signal: Signal, level: float) -> list[str]:
    """Whether the loss is that of a guess among as many classes as the configuration names (or few, without it)."""
    told = [(key, value) for key, value in _entries(signal.config) if key.rsplit(".", 1)[-1].lower() in _CLASSES]
    for key, value in told:
        if isinstance(value, int | float) and value >= 2 and abs(level / float(np.log(value)) - 1) < 0.05:
            return [f"{level:.4g} is ln({value:.0f}), the loss of a guess among the {value:.0f} classes of {key}"]
    if not told:
        count = round(float(np.exp(min(level, 4.0))))
        if 2 <= count <= 20 and abs(level / float(np.log(count)) - 1) < 0.005:
            return [f"{level:.4g} is near ln({count}), the loss of a guess among {count} classes, if there are so many"]
    return []


def _trained_before(config: Mapping[str, Any]) -> str:
    """The entry of a configuration that says that trained weights were loaded; empty where none does."""
    for key, value in _entries(config):
        if value not in (None, False, "", 0, "none", "None", "scratch") and any(w in key.lower() for w in _TRAINED):
            return f"{key} = {str(value)[:60]}"
    return ""


def _entries(config: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and depth < 4:
            yield from _entries(value, f"{name}.", depth + 1)
        elif isinstance(value, str | int | float | bool | None):
            yield name, value


def _steps(signal: Signal, rows: int) -> str:
    return f"{rows * signal.every:,.0f} steps" if np.isfinite(signal.step).all() else f"{rows:,} rows"
