"""Schedules of the learning rate as formulas: what a declared schedule gives at every step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eventstream.errors import unknown_name
from parsers.plans.schedule_names import schedule_named

__all__ = ["SCHEDULES", "Schedule", "schedule_of"]

_Array = NDArray[np.float64]
Beyond = Literal["hold", "continue"]

#: OneCycleLR begins at a 25th of the peak, and ends at a 10,000th of that (`div_factor`, `final_div_factor`).
_DIVISOR, _FINAL_DIVISOR = 25.0, 1e4
#: Timescale of the inverse square root without a warm-up, as Transformers and big_vision have it.
_TIMESCALE = 10_000.0
#: Canonical key of a plan -> field of `Schedule`.
_KEYS = {
    "peak": "peak",
    "warmup_steps": "warmup",
    "total_steps": "total",
    "min": "minimum",
    "gamma": "gamma",
    "step_size": "step_size",
    "cycles": "cycles",
    "period": "first_cycle",
    "first_cycle": "first_cycle",
    "cycle_mult": "cycle_mult",
    "pct_start": "pct_start",
    "start": "start",
    "power": "power",
    "decay_steps": "decay",
}


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule with its numbers: lengths in ticks (a tick is `tick` steps), rates as they are.

    `name` is one of `SCHEDULES`. `peak` is the rate after the warm-up (`warmup` ticks, linear from `start`), `total`
    the tick at which the decay ends at `minimum`. `milestones`, `gamma` and `step_size` are of step decays; `cycles` of
    cosines over `total` (0.5 is one half wave), `first_cycle` and `cycle_mult` of warm restarts; `pct_start` and
    `anneal` of one cycle; `power` of polynomials; `decay` is the length of the last phase of `wsd`, and the timescale
    of `inverse_sqrt`. What is None was not said. `stated` names the keys that were.
    """

    name: str
    peak: float = 1.0
    warmup: float = 0.0
    total: float | None = None
    minimum: float = 0.0
    start: float | None = None
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1
    step_size: float | None = None
    cycles: float | None = None
    first_cycle: float | None = None
    cycle_mult: float = 1.0
    pct_start: float | None = None
    power: float = 1.0
    decay: float | None = None
    anneal: str = "cosine"
    after_warmup: bool = False
    tick: float = 1.0
    stated: frozenset[str] = frozenset()

    def at(self, ticks: ArrayLike, beyond: Beyond = "hold") -> _Array:
        """The rate at each tick (counted from 0); before the first it is that of the first.

        `beyond` says what is after `total`: `hold` stays at the end, `continue` follows the formula on, as
        torch's CosineAnnealingLR does when it is stepped beyond `T_max`. `after_warmup` counts the milestones of step
        decays from the end of the warm-up, as torch's SequentialLR does, instead of from the beginning.

        >>> Schedule("linear", peak=0.1, warmup=10, total=110).at([0, 5, 10, 60, 200]).round(3).tolist()
        [0.0, 0.05, 0.1, 0.05, 0.0]
        """
        p = np.maximum(np.asarray(ticks, dtype=np.float64), 0.0)
        if self.name == "onecycle":
            return _onecycle(self, p)
        with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
            rate = _DECAYS[self.name](self, np.maximum(p - self.warmup, 0.0), beyond)
            if self.warmup > 0:
                start = 0.0 if self.start is None else self.start
                rate = np.where(p < self.warmup, start + (self.peak - start) * p / self.warmup, rate)
        return np.asarray(rate, dtype=np.float64)

    def at_steps(self, steps: ArrayLike, beyond: Beyond = "hold", *, stairs: bool = False) -> _Array:
        """The rate at each step; with `stairs` it changes at whole ticks only."""
        ticks = np.asarray(steps, dtype=np.float64) / self.tick
        return self.at(np.floor(ticks) if stairs else ticks, beyond)

    @property
    def end(self) -> float | None:
        """The step at which the decay ends; None where it has no end."""
        return None if self.total is None else self.total * self.tick

    def stretched(self, factor: float) -> Schedule:
        """The same schedule, every length of it `factor` times as long in steps."""
        return replace(self, tick=self.tick * factor)

    def lacks(self) -> str | None:
        """The key without which the formula cannot be computed; None where nothing lacks."""
        if self.name == "cosine_with_restarts" and self.total is None and self.first_cycle is None:
            return "first_cycle or total_steps"
        if self.name in _ENDING and self.total is None:
            return "total_steps"
        if self.name == "multistep" and not self.milestones:
            return "milestones"
        if self.name == "step" and self.step_size is None:
            return "step_size"
        if self.name == "exponential" and "gamma" not in self.stated:
            return "gamma"
        if self.name == "wsd" and self.decay is None:
            return "decay_steps"
        return None


def _length(s: Schedule) -> float:
    """Ticks of the decay."""
    return max((s.total or 0.0) - s.warmup, 1e-12)


def _progress(s: Schedule, q: _Array, beyond: Beyond) -> _Array:
    share = q / _length(s)
    return share if beyond == "continue" else np.minimum(share, 1.0)


def _constant(s: Schedule, q: _Array, beyond: Beyond) -> _Array:
    return np.full_like(q, s.peak)


def _between(s: Schedule, share: _Array) -> _Array:
    return s.minimum + (s.peak - s.minimum) * share


def _linear(s: Schedule, q: _Array, beyond: Beyond) -> _Array:
    return _between(s, 1.0 - _progress(s, q, "hold"))


def _cosine(s: Schedule, q: _Array, beyond: Beyond) -> _Array:
    cycles = 0.5 if s.cycles is None else s.cycles
    return _between(s, 0.5 * (1.0 + np.cos(2.0 * math.pi * cycles * _progress(s, q, beyond))))


def _restarts(s: Schedule, q: _Array, beyond: Beyond) -> _Array:
    if s.first_cycle is None:
        share = _progress(s, q, beyond)
        inside = (share * (1.0 if s.cycles is None else s.cycles)) % 1.0
        wave = 0.5 * (1.0 + np.cos(math.pi * inside))
        return _between(s, np.where((share >= 1.0) & (beyond == "hold"), 0.0, wave))
    length, mult = max(s.first_cycle, 1e-12), s.cycle_mult
    if mult == 1.0:
        inside = (q % length) / length
    else:  # the geometric sum of the lengths, solved for the number of cycles that have ended
        done = np.floor(np.log1p(q * (mult - 1.0) / length) / math.log(mult) + 1e-9)
        inside = (q - length * (mult**done - 1.0) / (mult - 1.0)) / (length * mult**done)
    return _between(s, 0.5 * (1.0 + np.cos(math.pi * np.clip(inside, 0.0, 1.0))))


def _polynomial(s: Schedule, q: _Array, beyond: Beyond) -> _Array:
    return _between(s, np.asarray((1.0 - _progress(s, q, "hold")) ** s.power, dtype=np.float64))


def _step(s: Schedule, q: _Array, beyond: Beyond) -> _Array:
    since = q if s.after_warmup else q + s.warmup
    drops = np.floor(since / max(s.step_size or 1.0, 1e-12) + 1e-9)
    return np.maximum(s.peak * s.gamma**drops, s.minimum)


def _multistep(s: Schedule, q: _Array, beyond: Beyond) -> _Array:
    since = q if s.after_warmup else q + s.warmup
    passed = np.searchsorted(np.sort(s.milestones), since, side="right").astype(np.float64)
    return np.maximum(s.peak * s.gamma**passed, s.minimum)


def _exponential(s: Schedule, q: _Array, beyond: Beyond) -> _Array:
    since = q if s.after_warmup else q + s.warmup
    return np.maximum(s.peak * s.gamma**since, s.minimum)


def _inverse_sqrt(s: Schedule, q: _Array, beyond: Beyond) -> _Array:
    timescale = s.decay or s.warmup or _TIMESCALE
    return np.asarray(s.peak / np.sqrt((q + timescale) / timescale), dtype=np.float64)


def _wsd(s: Schedule, q: _Array, beyond: Beyond) -> _Array:
    decay = max(s.decay or 0.0, 1e-12)
    share = np.clip((q + s.warmup - ((s.total or 0.0) - decay)) / decay, 0.0, 1.0)
    fall = {
        "cosine": 0.5 * (1.0 + np.cos(math.pi * share)),
        "linear": 1.0 - share,
        "1-sqrt": 1.0 - np.sqrt(share),
    }[s.anneal]
    return _between(s, fall)


def _onecycle(s: Schedule, p: _Array) -> _Array:
    start = s.peak / _DIVISOR if s.start is None else s.start
    least = s.minimum if "min" in s.stated else start / _FINAL_DIVISOR
    total = max(s.total or 0.0, 2.0)
    rise = (s.warmup / total if s.warmup else 0.3) if s.pct_start is None else s.pct_start
    top, last = max(rise * total - 1.0, 1e-12), total - 1.0
    up, down = np.clip(p / top, 0.0, 1.0), np.clip((p - top) / max(last - top, 1e-12), 0.0, 1.0)
    if s.anneal == "cosine":
        up, down = 0.5 * (1.0 - np.cos(math.pi * up)), 0.5 * (1.0 - np.cos(math.pi * down))
    rate = np.where(p <= top, start + (s.peak - start) * up, s.peak + (least - s.peak) * down)
    return np.asarray(rate, dtype=np.float64)


_DECAYS: dict[str, Callable[[Schedule, _Array, Beyond], _Array]] = {
    "constant": _constant,
    "constant_with_warmup": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "cosine_with_restarts": _restarts,
    "polynomial": _polynomial,
    "step": _step,
    "multistep": _multistep,
    "exponential": _exponential,
    "inverse_sqrt": _inverse_sqrt,
    "plateau": _constant,
    "wsd": _wsd,
}
#: Every schedule that a plan may name.
SCHEDULES = (*_DECAYS, "onecycle")
_ENDING = frozenset({"linear", "cosine", "polynomial", "wsd", "onecycle"})


def schedule_of(lr: Mapping[str, Any], max_steps: int | None = None) -> tuple[Schedule | None, tuple[str, ...]]:
    """The schedule that `Plan.lr` declares, and in plain words what of it could not be used.

    Keys: `schedule`, `peak`, `warmup_steps`, `total_steps` (`max_steps` where it is not said), `min`, `milestones`,
    `gamma`, `step_size`, `cycles`, `first_cycle` (or `period`), `cycle_mult`, `pct_start`, `start`, `power`,
    `decay_steps`, `unit` (`step`, or `epoch` with `steps_per_epoch`). Values that are no number, and keys that nobody
    knows, are listed and left out. None where no schedule is named, where its name is unknown, or where a number lacks
    without which it cannot be computed.

    The formulas are those of torch.optim.lr_scheduler (OneCycleLR: Smith and Topin, arXiv:1708.07120; warm restarts:
    Loshchilov and Hutter, arXiv:1608.03983) and of `transformers.get_scheduler`.

    >>> schedule_of({"schedule": "cosine", "peak": 1e-3, "warmup_steps": 100}, max_steps=3000)[0].at(1550).item()
    0.0005
    >>> schedule_of({"schedule": "cosin"})[1]
    ("unknown schedule 'cosin'; did you mean 'cosine'? known: cosine, ...",)
    """
    odd = [f"plan.lr.{key}: unknown key" for key in lr if key not in _KNOWN]
    given: dict[str, Any] = {
        field: number for key, field in _KEYS.items() if (number := _number(lr, key, odd)) is not None
    }
    if max_steps is not None and str(lr.get("unit", "step")) == "step":
        given.setdefault("total", float(max_steps))
    marks = _milestones(lr.get("milestones"), odd)
    name = _name(lr.get("schedule"), given, marks, odd)
    if name is None:
        return None, tuple(odd)
    stated = frozenset(key for key, field in _KEYS.items() if field in given) | ({"milestones"} if marks else set())
    tick = _tick(lr, odd)
    if tick is None:
        return None, tuple(odd)
    made = Schedule(name, milestones=marks, tick=tick, stated=stated, **given)
    if (lack := made.lacks()) is not None:
        return None, (*odd, f"plan.lr: a {name} schedule cannot be compared without {lack}")
    return made, tuple(odd)


_KNOWN = {*_KEYS, "schedule", "milestones", "unit", "steps_per_epoch"}


def _number(lr: Mapping[str, Any], key: str, odd: list[str]) -> float | None:
    value = lr.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        odd.append(f"plan.lr.{key}: expected a number of at least 0, found {value!r}")
        return None
    return float(value)


def _name(given: object, numbers: Mapping[str, float], marks: Sequence[float], odd: list[str]) -> str | None:
    if given is None:
        odd.append("plan.lr.schedule: missing; the plan does not name the schedule")
        return None
    if not isinstance(given, str):
        odd.append(f"plan.lr.schedule: expected a name, found {given!r}")
        return None
    name = given if given in SCHEDULES else schedule_named(given)
    if name is None:
        odd.append(unknown_name("schedule", given, SCHEDULES))
        return None
    if name == "step" and marks and "step_size" not in numbers:
        return "multistep"
    return "constant_with_warmup" if name == "constant" and numbers.get("warmup") else name


def _milestones(given: object, odd: list[str]) -> tuple[float, ...]:
    if given is None:
        return ()
    ok = isinstance(given, list | tuple) and all(
        isinstance(m, int | float) and not isinstance(m, bool) and math.isfinite(m) and m >= 0 for m in given
    )
    if not ok:
        odd.append(f"plan.lr.milestones: expected a list of numbers, found {given!r}")
        return ()
    assert isinstance(given, list | tuple)
    return tuple(sorted(float(m) for m in given))


def _tick(lr: Mapping[str, Any], odd: list[str]) -> float | None:
    """Steps of one tick."""
    unit = lr.get("unit", "step")
    if unit == "step":
        return 1.0
    if unit != "epoch":
        odd.append(f"plan.lr.unit: expected 'step' or 'epoch', found {unit!r}")
        return None
    length = _number(lr, "steps_per_epoch", odd)
    if not length:
        odd.append("plan.lr.steps_per_epoch: missing; the schedule counts epochs, and nothing says how long one is")
        return None
    return length
