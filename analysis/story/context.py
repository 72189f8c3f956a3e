"""Facts of a log that are no fault but belong into a story: a resume, a phase, a leap of the learning rate, data."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.kinds import KINDS
from analysis.story.joining import window
from analysis.story.onset import Onset, Rhythm
from parsers.naming.roles import words_of
from parsers.run import Run
from parsers.tables.events import payload_object

__all__ = ["Fact", "Facts"]

#: Records before an onset in which a fact may still have to do with it (fewer where facts of its sort are many).
_BEFORE = 30
#: A learning rate that moves by this factor or more from one record to the next was set, not decayed.
_JUMP = 1.2
#: More such moves in a row than this are a ramp.
_RAMP = 3
#: What happens more often than this in a run is its habit, and explains nothing.
_OFTEN = 200
_OPTIMISATION = {"optimisation", "numbers", "generalisation"}
_BATCH = re.compile(r"\bbatch ?size\b")
#: Families whose findings have nothing to do with the state of training at a step.
_ASIDE = {"contracts", "embeddings", "samples", "comparison"}


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that happened at `step`, in words without the step; `causal` where it can bring a failure about.

    `word` is what a cause that tells of the same fact calls it.
    """

    sort: str
    step: float
    text: str
    word: str
    causal: bool = True


class Facts:
    """The facts of a run, read when first asked for."""

    def __init__(self, run: Run, rhythm: Rhythm) -> None:
        self._run, self._rhythm = run, rhythm

    def before(self, onset: Onset) -> list[Fact]:
        """What happened right before a finding set in, one fact a sort, in the order of steps."""
        family = KINDS[onset.finding.kind].family
        first = onset.first
        if first is None or family in _ASIDE or first <= self._rhythm.first_step:
            return []
        chosen: dict[str, Fact] = {}
        for fact in self._all:
            if fact.sort.startswith("lr") and (family not in _OPTIMISATION or onset.finding.kind == "lr-schedule"):
                continue
            if fact.sort == "checkpoint" and "save" in onset.finding.evidence:
                continue  # it was found in that very save
            reach = window(_BEFORE, self._rhythm, self._counts[fact.sort]) * self._rhythm.steps
            late = min(onset.slack, reach)
            old = chosen.get(fact.sort)
            if first - reach <= fact.step <= first + late and (old is None or _nearer(fact, old, first)):
                chosen[fact.sort] = fact
        if "lr-jump" in chosen:  # told once: where it was set is where it peaks
            chosen.pop("lr-peak", None)
        return sorted(chosen.values(), key=lambda f: (f.step, f.sort))

    @cached_property
    def _all(self) -> list[Fact]:
        run = self._run
        return [*_resumes(run), *_phases(run), *_rates(run), *_batches(run), *_data(run), *_checkpoints(run)]

    @cached_property
    def _counts(self) -> Counter[str]:
        return Counter(fact.sort for fact in self._all)


def _nearer(fact: Fact, old: Fact, first: float) -> bool:
    return abs(first - fact.step) < abs(first - old.step)


def _resumes(run: Run) -> Iterator[Fact]:
    if not run.last_attempt:
        return
    mine = run.attempts.filter(pl.col("rank") == pl.col("rank").min(), pl.col("attempt") > 0).drop_nulls("begin")
    for attempt, begin in mine.select("attempt", "begin").iter_rows():
        yield Fact("resume", begin, f"the run was resumed (attempt {attempt})", "resume")


def _payloads(run: Run, kind: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Steps and payloads of the events of one kind that the lowest rank wrote, in the order logged."""
    rows = run.live(run.events_of(kind)).drop_nulls("step")
    rows = rows.filter(pl.col("rank") == pl.col("rank").min())
    for step, payload in rows.select("step", "payload").iter_rows():
        yield step, payload_object(payload)


def _phases(run: Run) -> Iterator[Fact]:
    former = None
    for step, told in _payloads(run, "curriculum"):
        phase = told.get("phase")
        if isinstance(phase, str) and phase != former:
            if former is not None:
                yield Fact("phase", step, f"phase {former[:40]} became {phase[:40]}", "phase")
            former = phase


def _rates(run: Run) -> Iterator[Fact]:
    series = run.roles["learning_rate"].series
    if series is None:
        return
    rows = run.series(series.metric, split=series.split).drop_nulls(["step", "value"])
    rows = rows.filter(pl.col("rank") == pl.col("rank").min(), pl.col("tag") == series.tag)
    steps, values = rows["step"].to_numpy().astype(float), rows["value"].to_numpy()
    kept = np.isfinite(values) & (values > 0)
    steps, values = steps[kept], values[kept]
    if len(values) > 2:
        yield from _jumps(series.metric, steps, values)
        yield from _peaks(series.metric, steps, values)


def _jumps(metric: str, steps: NDArray[np.float64], values: NDArray[np.float64]) -> Iterator[Fact]:
    moved = np.diff(np.log(values))
    at = np.flatnonzero(np.abs(moved) >= np.log(_JUMP))
    turns = np.flatnonzero((np.diff(at) > 1) | (np.diff(np.sign(moved[at])) != 0)) + 1
    begins, ends = np.r_[0, turns], np.r_[turns, len(at)]
    short = np.flatnonzero((ends - begins > 0) & (ends - begins <= _RAMP))
    for part in short if len(short) <= _OFTEN else ():
        first, last = at[begins[part]], at[ends[part] - 1]
        told = f"{metric} went from {values[first]:.3g} to {values[last + 1]:.3g}"
        yield Fact("lr-jump", steps[first + 1], told, "learning rate")


def _peaks(metric: str, steps: NDArray[np.float64], values: NDArray[np.float64]) -> Iterator[Fact]:
    top = float(values.max())
    high = values >= 0.999 * top
    if values[0] > top / _JUMP:
        return
    begins, falls = np.flatnonzero(high[1:] & ~high[:-1]) + 1, np.flatnonzero(high[:-1] & ~high[1:]) + 1
    for row in begins if len(begins) <= _OFTEN else ():
        end = falls[falls > row]
        at = row + int(np.argmax(values[row : end[0] if len(end) else None]))
        yield Fact("lr-peak", steps[at], f"{metric} peaked at {values[at]:.3g}", "learning rate")


def _batches(run: Run) -> Iterator[Fact]:
    for one in run.roles:
        if _BATCH.search(words_of(one.metric)):
            rows = run.series(one.metric, split=one.split).drop_nulls(["step", "value"])
            rows = rows.filter(pl.col("rank") == pl.col("rank").min())
            yield from _changes("batch", f"{one.metric}", "batch", rows.select("step", "value").rows())
            return
    told = [(step, p.get("batch_size")) for step, p in _payloads(run, "config") if "batch_size" in p]
    yield from _changes("batch", "batch_size", "batch", told)


def _changes(sort: str, name: str, word: str, rows: list[tuple[int, Any]]) -> Iterator[Fact]:
    for (_, old), (step, new) in itertools.pairwise(rows):
        if old != new:
            yield Fact(sort, step, f"{name} went from {_short(old)} to {_short(new)}", word)


def _short(value: object) -> str:
    return f"{value:,.6g}" if isinstance(value, int | float) else str(value)[:40]


def _data(run: Run) -> Iterator[Fact]:
    """Changes of what data events name: files, shards, data sets. Counts of them grow anyway and tell nothing."""
    former: dict[str, str] = {}
    for step, told in _payloads(run, "data"):
        for name, value in told.items():
            named = ", ".join(map(str, value)) if isinstance(value, list) else value
            if isinstance(named, str) and former.get(name, named) != named:
                yield Fact("data", step, f"{name[:40]} of the data became {named[:60]}", "data")
            if isinstance(named, str):
                former[name] = named


def _checkpoints(run: Run) -> Iterator[Fact]:
    steps = run.live(run.events_of("checkpoint"))["step"].drop_nulls().unique().sort()
    for step in steps:
        yield Fact("checkpoint", step, "a checkpoint was saved", "checkpoint", causal=False)
