"""Why observed weights differ from the plan: started too early or late, counted in another unit, divided wrongly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from parsers.plan import Plan

__all__ = ["Shift", "explain_shift"]

Floats = NDArray[np.float64]

#: An explanation must bring this share of the rows within tolerance.
_HOLDS = 0.98
#: Before its first phase the plan says nothing: a reading that moves most records there explains nothing.
_STATED = 0.5
#: Of the logged range of steps: shifts up to this are tried before anything else.
_SMALL_SHIFT = 0.1
#: Observed changes that are tried against the starts of the plan's phases.
_MOST_CHANGES = 40


@dataclass(frozen=True, slots=True)
class Shift:
    """The plan read at other steps: `name` shift, scale, denominator or epoch; `number` as the sentence has it."""

    name: str
    number: float
    sentence: str


def explain_shift(plan: Plan, observed: pl.DataFrame, max_steps: int | None) -> Shift | None:
    """The reading of the plan that the observed weights follow, when it is not the step itself.

    `observed` has step, component (the plan's name), weight, tolerance and epoch (null where unknown). Tried are a
    shift by the distance between an observed change and a phase's start, a scale by their ratio (on the progress
    axis a wrong number of steps), and the epoch in place of the step. The likeliest that brings 98 % of the rows
    within tolerance is taken (see `_readings`); None when the plan itself does, or nothing.
    """
    known = observed.drop_nulls(["step", "weight"])
    if known.is_empty() or not plan.phases or (plan.axis == "progress" and not max_steps):
        return None
    steps = known["step"].to_numpy().astype(np.float64)
    if _share(plan, known, steps, max_steps) >= 1:
        return None
    starts = [phase.start * (max_steps or 1 if plan.axis == "progress" else 1) for phase in plan.phases]
    changes = list(_changes(known))
    for name, number, at in _readings(plan, known, steps, changes, starts):
        if _share(plan, known, at, max_steps) >= _HOLDS:
            if name == "shift":
                return Shift(name, number, _shift_sentence(number))
            if name == "epoch":
                return Shift(name, number, "the schedule is counted in epochs instead of steps")
            return _scaled(plan, number, max_steps)
    return None


def _readings(
    plan: Plan, known: pl.DataFrame, steps: Floats, changes: list[tuple[float, float]], starts: list[float]
) -> Iterator[tuple[str, float, Floats]]:
    """Name, number and steps of the readings that are tried, the likelier first.

    One change alone fits a shift and a scale: a small shift is likelier than a scale, a plain scale (a whole number,
    or any where progress is divided by a number of steps) likelier than a large shift.
    """
    shifts, scales = _shifts(changes, starts), _scales(changes, starts)
    small = _SMALL_SHIFT * float(np.ptp(steps))
    plain = [s for s in scales if plan.axis == "progress" or _simple(s)]
    yield from (("shift", s, steps - s) for s in shifts if abs(s) <= small)
    if "epoch" in known.columns and known["epoch"].null_count() == 0:
        yield "epoch", 1.0, np.floor(known["epoch"].to_numpy())
    yield from (("scale", s, steps * s) for s in plain)
    yield from (("shift", s, steps - s) for s in shifts if abs(s) > small)
    yield from (("scale", s, steps * s) for s in scales if s not in plain)


def _share(plan: Plan, known: pl.DataFrame, at: Floats, max_steps: int | None) -> float:
    """Share of rows whose weight is the plan's at the steps `at`, of those where the plan states one then."""
    places = np.floor(at + 1e-9).astype(np.int64)
    planned = plan.planned_weights(np.unique(places), max_steps).select("step", "component", planned="weight")
    rows = known.select("component", "weight", "tolerance", step=pl.Series(places))
    joined = rows.join(planned, on=["step", "component"], how="left")
    near = ((joined["weight"] - joined["planned"]).abs() <= joined["tolerance"]).drop_nulls()
    if len(near) < _STATED * joined.height:
        return 0.0
    return float(near.sum()) / len(near)


def _changes(known: pl.DataFrame) -> Iterator[tuple[float, float]]:
    """Step before and step at which a component's weight first differs from the one before, per stretch of change."""
    for _, part in known.group_by("component", maintain_order=True):
        part = part.sort("step")
        steps, weights = part["step"].to_numpy().astype(float), part["weight"].to_numpy()
        moved = np.flatnonzero(np.abs(np.diff(weights)) > part["tolerance"].to_numpy()[1:])
        begins = moved[np.diff(moved, prepend=-2) > 1]
        for i in begins[:_MOST_CHANGES]:
            yield float(steps[i]), float(steps[i + 1])


def _shifts(changes: list[tuple[float, float]], starts: list[float]) -> list[float]:
    """Whole numbers of steps that would bring a start between the records around an observed change, nearest first."""
    found = {1.0, -1.0}
    for before, after in changes:
        for start in starts:
            # a ramp first differs one step after its start, so the record before counts as well
            low, high = before - start, after - start
            found |= {low, low + 1, high, high - 1}
            found |= {0.0} if low <= 0 <= high else set()
    return sorted((float(round(s)) for s in found if round(s) != 0), key=lambda s: (abs(s), s))


def _scales(changes: list[tuple[float, float]], starts: list[float]) -> list[float]:
    """Factors on the step that would bring an observed change to a start; whole numbers and their inverses first."""
    found: set[float] = set()
    for before, after in changes:
        for start in starts:
            if start <= 0:
                continue
            high = start / before if before > 0 else np.inf
            low = start / after
            found |= {low} | ({high, (low + high) / 2} if np.isfinite(high) else set())
            whole = round(low) or round(1 / low)
            for simple in (float(np.ceil(low)), 1 / np.floor(1 / low) if low < 1 else float(np.floor(high))):
                if low <= simple <= high and np.isfinite(simple):
                    found.add(float(simple))
            if whole and low <= whole <= high:
                found.add(float(whole))
    return sorted((s for s in found if abs(s - 1) > 1e-9), key=lambda s: (not _simple(s), abs(np.log(s))))


def _simple(scale: float) -> bool:
    return abs(scale - round(scale)) < 1e-9 or abs(1 / scale - round(1 / scale)) < 1e-9


def _shift_sentence(shift: float) -> str:
    size = f"{abs(shift):g} step{'s' if abs(shift) != 1 else ''} {'late' if shift > 0 else 'early'}"
    return f"the schedule runs {size}" + (": steps are counted from 0 and from 1" if abs(shift) == 1 else "")


def _scaled(plan: Plan, scale: float, max_steps: int | None) -> Shift:
    if plan.axis == "progress" and max_steps:
        used = max_steps / scale
        sentence = f"progress is the step divided by about {used:.6g} instead of {max_steps}"
        return Shift("denominator", used, sentence)
    if scale < 1:
        word = f"{1 / scale:.4g} times too slowly, as when it advances once in {1 / scale:.4g} steps"
    else:
        word = f"{scale:.4g} times too fast, as when it counts micro-batches instead of optimiser steps"
    return Shift("scale", scale, f"the schedule advances {word}")
