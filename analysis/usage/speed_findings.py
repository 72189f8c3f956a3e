"""What a fallen speed means, in words: since when, by how much, and what else the log shows there."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator

import numpy as np
import polars as pl

from analysis.findings import Finding, Severity
from analysis.usage.slowdown import SHARE, Slowdown
from analysis.usage.speed import Speed
from parsers.naming.roles import words_of
from parsers.run import Run
from parsers.tables.events import payload_object

__all__ = ["slowdown_finding"]

#: The speed may fall to the limit and a little: what is printed as three quarters counts.
_A_LITTLE = 1e-9
#: A fall is told where it is worth this many units of the last digit written.
_DIGITS = 2.0
#: Rows around the fall in which another series may show why, and by how much that must move.
_NEAR, _MOVED = 10, 1.2
_SIZE = re.compile(
    r"\b(?:batch ?size|bsz|seq(?:uence)? ?len(?:gth)?|context length|accumulation|grad accum|resolution)\b"
)
_LOADING = re.compile(r"\b(?:data|load|loader|loading|dataloader|fetch)\b")


def slowdown_finding(run: Run, speed: Speed, fell: Slowdown, limit: float = SHARE) -> Finding | None:
    """The finding of a fall; None where it is no real one: less than `limit` (a quarter) asks, or within the print.

    Information where a batch or a sequence grew there: then the run was told to.
    """
    before, after = _logged(speed, fell)
    if fell.left > limit + _A_LITTLE or abs(before - after) < _DIGITS * speed.last_digit:
        return None
    planned = [*_grown(run, speed, fell), *_phase(run, speed, fell)]
    severity: Severity = "info" if planned else "warning"
    rows = len(speed.speed) - fell.first
    step = speed.step[fell.first]
    known = bool(np.isfinite(step))
    numbers = _numbers(speed, fell)
    name = f"{speed.split} {speed.metric}".strip()
    where = f"from step {int(step):,}" if known else f"from record {fell.first:,}"
    when = _clock(speed.time[fell.first])
    further = ""
    if fell.lowest < 0.8 * fell.after:
        further = f", and by the end to {fell.lowest / fell.before:.0%}"
    return Finding(
        "throughput-drop",
        severity,
        run.name,
        f"training became slower {where}{when} and stayed so: {_called(speed, name)} {numbers}, "
        f"{fell.left:.0%} of its speed{further}",
        metric=speed.metric,
        first_step=int(step) if known else None,
        last_step=int(speed.step[-1]) if np.isfinite(speed.step[-1]) else None,
        evidence={
            "read_from": speed.what,
            "speed_before": fell.before,
            "speed_after": fell.after,
            "left": fell.left,
            "limit": limit,
            "left_at_the_end": fell.lowest / fell.before,
            "standard_errors": fell.errors,
            "records_slow": rows,
            "records": len(speed.speed),
        },
        causes=tuple(planned) or tuple(_causes(run, speed, fell)),
        suggestions=(
            "compare the time of loading data with that of the step: which of the two grew?",
            "look at clock, temperature and neighbours of the GPUs from that time on (nvidia-smi -q -d PERFORMANCE)",
            "look for work that grows with the run: metrics over all past steps, logging, a disk that fills",
        ),
    )


def _numbers(speed: Speed, fell: Slowdown) -> str:
    before, after = _logged(speed, fell)
    if speed.what == "step time":
        return f"rose from {before:,.4g} to {after:,.4g}"
    return f"fell from {before:,.4g} to {after:,.4g}" + (f" {speed.unit}" if speed.what == "interval" else "")


def _logged(speed: Speed, fell: Slowdown) -> tuple[float, float]:
    """The levels before and after as they are logged."""
    return (1 / fell.before, 1 / fell.after) if speed.what == "step time" else (fell.before, fell.after)


def _called(speed: Speed, name: str) -> str:
    return f"by the times of {name}, speed" if speed.what == "interval" else name


def _clock(micros: np.int64) -> str:
    if micros < 0:
        return ""
    return f" ({dt.datetime.fromtimestamp(int(micros) / 1e6, dt.UTC):%Y-%m-%d %H:%M:%S} UTC)"


def _grown(run: Run, speed: Speed, fell: Slowdown) -> Iterator[str]:
    """Sizes that grew where the speed fell."""
    for metric in dict.fromkeys(run.catalogue["metric"].to_list()):
        if _SIZE.search(words_of(metric)):
            moved = _levels_around(run, metric, speed, fell)
            if moved is not None and moved[1] >= _MOVED * moved[0] > 0:
                yield f"{metric} grew there from {moved[0]:,.4g} to {moved[1]:,.4g}: more work a step, as told"


def _phase(run: Run, speed: Speed, fell: Slowdown) -> Iterator[str]:
    """A phase of the curriculum that began where the speed fell."""
    before, after = speed.step[max(0, fell.first - 2)], speed.step[min(len(speed.step) - 1, fell.first + 2)]
    told = run.events_of("curriculum").filter(pl.col("step").is_not_null()).select("step", "payload").sort("step")
    last: object = None
    for step, payload in told.iter_rows():
        phase = payload_object(payload).get("phase")
        if last is not None and phase != last and before <= step <= after:
            yield f"phase {phase} of the curriculum began at step {step:,}: another kind of step, as told"
        last = phase


def _levels_around(run: Run, metric: str, speed: Speed, fell: Slowdown) -> tuple[float, float] | None:
    """Medians of a series before and after the fall, by step, of as many records on either side."""
    begin, end = max(0, fell.first - _NEAR), min(len(speed.step) - 1, fell.first + _NEAR)
    at = speed.step[[begin, fell.first, end]]
    if not np.isfinite(at).all():
        return None
    rows = run.series(metric).filter(pl.col("value").is_finite() & pl.col("step").is_not_null())
    step, value = rows["step"].to_numpy(), rows["value"].to_numpy()
    before, after = value[step < at[1]], value[step >= at[1]]
    if len(before) == 0 or len(after) == 0:
        return None
    return float(np.median(before[-_NEAR:])), float(np.median(after[:_NEAR]))


def _causes(run: Run, speed: Speed, fell: Slowdown) -> Iterator[str]:
    found = [*_resumed(run, speed, fell), *_slower_loading(run, speed, fell), *_machine(run, speed, fell)]
    if found:
        yield from found
        return
    loads = any(one.role == "step_time" and _LOADING.search(words_of(one.metric)) for one in run.roles)
    missing = ("" if loads else "the time of loading data, ") + "GPU clock and temperature"
    yield f"cannot tell from this log; record {missing} to know"


def _resumed(run: Run, speed: Speed, fell: Slowdown) -> Iterator[str]:
    """A restart where the speed fell: another machine, other settings, cold caches."""
    if run.last_attempt == 0 or not np.isfinite(speed.step[fell.first]):
        return
    before, after = speed.step[max(0, fell.first - _NEAR)], speed.step[min(len(speed.step) - 1, fell.first + _NEAR)]
    for attempt, begin in run.attempts.filter(pl.col("attempt") > 0).select("attempt", "begin").iter_rows():
        if begin is not None and before <= begin <= after:
            yield f"attempt {attempt} began at step {begin:,}: another machine, other settings or neighbours"
            return


def _slower_loading(run: Run, speed: Speed, fell: Slowdown) -> Iterator[str]:
    for one in run.roles:
        if one.role == "step_time" and one.side == "train" and _LOADING.search(words_of(one.metric)):
            moved = _levels_around(run, one.metric, speed, fell)
            if moved is not None and moved[1] >= 1.5 * moved[0] and moved[1] > 0:
                yield f"{one.metric} rose there from {moved[0]:,.3g} to {moved[1]:,.3g}: the data come more slowly"


def _machine(run: Run, speed: Speed, fell: Slowdown) -> Iterator[str]:
    """Readings of the machine that moved by a fifth where the speed fell, the first three."""
    told = 0
    for one in run.roles:
        if one.role not in ("system", "memory") or told == 3:
            continue
        moved = _levels_around(run, one.metric, speed, fell)
        if moved is not None and min(moved) > 0 and max(moved) >= _MOVED * min(moved):
            told += 1
            yield f"{one.metric} went there from {moved[0]:,.3g} to {moved[1]:,.3g}"
