"""The plan of a run, understood: how long, at which rates, with which weights when, and what may go in and train."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from eventstream.errors import PlanError

__all__ = ["PLANNED", "PLAN_KEYS", "Axis", "Phase", "Plan", "Ramp", "is_other", "nearest_key"]

Axis = Literal["step", "progress"]
Ramp = Literal["constant", "linear", "cosine"]

#: Columns of `Plan.planned_weights`.
PLANNED = pl.Schema({"step": pl.Int64, "component": pl.String, "weight": pl.Float64, "phase": pl.String})

_AXES: tuple[Axis, ...] = ("step", "progress")
_RAMPS: tuple[Ramp, ...] = ("constant", "linear", "cosine")
_AGGREGATIONS = ("sum", "mean")
#: What a declared plan may hold under its own names.
PLAN_KEYS = (
    "max_steps", "epochs", "steps_per_epoch", "accumulation", "clip_norm", "curriculum", "loss_weights", "aggregation",
    "lr", "inputs", "outputs", "trainable", "freeze", "unfreeze_step",
)  # fmt: skip
_CURRICULUM_KEYS = ("axis", "phases")
_PHASE_KEYS = ("name", "start", "weights", "ramp", "ramp_length")


@dataclass(frozen=True, slots=True)
class Phase:
    """A phase of the curriculum: from `start` (on the plan's axis) on, `weights` hold until the next phase.

    With a `ramp` that is not constant the weights move there from the former phase's over `ramp_length` of the axis.
    """

    name: str
    start: float
    weights: Mapping[str, float]
    ramp: Ramp = "constant"
    ramp_length: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What was meant to happen: see "Plan" in the event-stream contract; of a run, `run.planned` is the whole of it.

    `lr` holds the schedule of the learning rate: `schedule`, `peak`, `warmup_steps`, `total_steps`, `min`,
    `milestones`, `gamma`, `step_size`, `cycles`, `first_cycle`, `cycle_mult`, `pct_start`, `start`, `power`,
    `decay_steps`, and `unit` (`step` where it is not there, or `epoch` with `steps_per_epoch`). `epochs` is the planned
    number of them, `accumulation` the batches of one update, `clip_norm` the limit of the gradient's norm; `trainable`
    and `freeze` name layers, their beginnings, or globs. `early_stop` is the setting that lets the run end before its
    plan on purpose. `hints` are the components whose weight is only told by a setting of its own (`lambda_adv`).

    `sources` tells where each was read, by its key: `lr.peak` for a key of `lr`, `loss_weights.kd`, else the name of
    the field. `not_understood` lists what was read and could not be used, in plain words.

    >>> plan = Plan.from_mapping({"curriculum": {"phases": [
    ...     {"name": "warm", "start": 0, "weights": {"kd": 0.7}},
    ...     {"name": "mix", "start": 100, "weights": {"kd": 0.5}, "ramp": "linear", "ramp_length": 10}]}})
    >>> plan.planned_weights([0, 105, 200])["weight"].to_list()
    [0.7, 0.6, 0.5]
    """

    phases: tuple[Phase, ...] = ()
    axis: Axis = "step"
    max_steps: int | None = None
    loss_weights: Mapping[str, float] = field(default_factory=dict)
    aggregation: Literal["sum", "mean"] | None = None
    lr: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)
    not_understood: tuple[str, ...] = ()
    epochs: float | None = None
    steps_per_epoch: int | None = None
    accumulation: int | None = None
    clip_norm: float | None = None
    trainable: tuple[str, ...] = ()
    freeze: tuple[str, ...] = ()
    unfreeze_step: float | None = None
    early_stop: str = ""
    hints: frozenset[str] = frozenset()
    sources: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_mapping(cls, plan: Mapping[str, Any]) -> Plan:
        """The plan of a run's `plan` mapping; an empty mapping is the empty plan.

        Keys that nobody knows are listed in `not_understood`; a value of the wrong kind raises `PlanError` with its
        place (`plan.curriculum.phases[1].start: expected a number, found 'x'`). `aggregation` stays None when the
        plan does not say it. The first phase has no former weights: its ramp is listed and not judged.
        """
        _mapping(plan, "plan")
        odd = _unknown(plan, PLAN_KEYS, "plan")
        curriculum = _mapping(plan.get("curriculum") or {}, "plan.curriculum")
        odd += _unknown(curriculum, _CURRICULUM_KEYS, "plan.curriculum")
        axis = _one_of(curriculum.get("axis", "step"), _AXES, "plan.curriculum.axis")
        phases, more = _phases(curriculum.get("phases") or [])
        made = cls(
            phases=phases,
            axis=cast(Axis, axis),
            max_steps=_count(plan.get("max_steps"), "plan.max_steps"),
            loss_weights=_weights(plan.get("loss_weights") or {}, "plan.loss_weights"),
            aggregation=_aggregation(plan.get("aggregation")),
            lr=_mapping(plan.get("lr") or {}, "plan.lr"),
            inputs=_mapping(plan.get("inputs") or {}, "plan.inputs"),
            outputs=_mapping(plan.get("outputs") or {}, "plan.outputs"),
            epochs=_above_zero(plan.get("epochs"), "plan.epochs"),
            steps_per_epoch=_count(plan.get("steps_per_epoch"), "plan.steps_per_epoch"),
            accumulation=_count(plan.get("accumulation"), "plan.accumulation"),
            clip_norm=_above_zero(plan.get("clip_norm"), "plan.clip_norm"),
            trainable=_names(plan.get("trainable"), "plan.trainable"),
            freeze=_names(plan.get("freeze"), "plan.freeze"),
            unfreeze_step=_optional(plan.get("unfreeze_step"), "plan.unfreeze_step"),
            not_understood=tuple(odd + more),
        )
        _check_axis(made)
        return made

    @property
    def components(self) -> tuple[str, ...]:
        """Names of all components that the plan gives a weight, in its order."""
        listed = [name for phase in self.phases for name in phase.weights]
        return tuple(dict.fromkeys([*listed, *self.loss_weights]))

    @property
    def total_steps(self) -> int | None:
        """Steps of the whole training: `max_steps`, else `epochs` times `steps_per_epoch`."""
        if self.max_steps is not None or self.epochs is None or self.steps_per_epoch is None:
            return self.max_steps
        return round(self.epochs * self.steps_per_epoch)

    @property
    def summary(self) -> str:
        """The understanding in one line: how many entries, of which files, and how many could not be used.

        >>> Plan(max_steps=5, sources={"max_steps": "args.json: max_steps"}).summary
        '1 entry understood (args.json), 0 not'
        """
        told = [*self.sources.values(), *([self.early_stop] if self.early_stop else [])]
        if not told and not self.not_understood:
            return "no plan"
        files = list(dict.fromkeys(source.partition(": ")[0] for source in told if ": " in source))
        shown = ", ".join(files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
        entries = f"{len(told)} entr{'y' if len(told) == 1 else 'ies'} understood"
        return f"{entries}{f' ({shown})' if files else ''}, {len(self.not_understood)} not"

    def without(self, components: Collection[str]) -> Plan:
        """The plan without the constant weights of some components."""
        kept = {name: weight for name, weight in self.loss_weights.items() if name not in components}
        return replace(self, loss_weights=kept, hints=self.hints - set(components))

    def planned_weights(self, steps: ArrayLike, max_steps: int | None = None) -> pl.DataFrame:
        """One row per step and component (`PLANNED`): the weight that it should have then, and the phase.

        A component that a phase does not name has no stated weight there (null), nor during a ramp that would begin
        from an unstated weight, nor before the first phase. `loss_weights` are constant. On the `progress` axis a
        step is divided by `max_steps` (as given, else `total_steps`), without which every weight is null.
        """
        at = np.asarray(steps, dtype=np.int64).reshape(-1)
        position, known = self.position(at, max_steps), max_steps or self.total_steps
        starts = np.array([phase.start for phase in self.phases])
        index = np.searchsorted(starts, position, side="right") - 1 if len(starts) else np.full(len(at), -1)
        if self.axis == "progress" and not known:
            index = np.full(len(at), -1)
        phases = pl.Series([*(phase.name for phase in self.phases), ""], dtype=pl.String)
        phase_at = phases.gather(np.where(index < 0, len(self.phases), index))
        parts = []
        for component in self.components:
            if any(component in phase.weights for phase in self.phases):
                weight = self._curriculum_weight(component, position, index)
            else:
                weight = np.full(len(at), self.loss_weights[component])
            part = pl.DataFrame({"step": at, "weight": weight, "phase": phase_at})
            part = part.with_columns(component=pl.lit(component), weight=pl.col("weight").fill_nan(None))
            parts.append(part.select(PLANNED.names()))
        return pl.concat(parts) if parts else PLANNED.to_frame()

    def position(self, steps: NDArray[np.int64], max_steps: int | None = None) -> NDArray[np.float64]:
        """Place of each step on the plan's axis."""
        known = max_steps or self.total_steps
        if self.axis == "step" or not known:
            return steps.astype(np.float64)
        return np.asarray(steps / known, dtype=np.float64)

    def _curriculum_weight(
        self, component: str, position: NDArray[np.float64], index: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        weight = np.full(len(position), np.nan)
        for i, phase in enumerate(self.phases):
            here = index == i
            target = phase.weights.get(component, math.nan)
            weight[here] = target
            if phase.ramp == "constant" or phase.ramp_length == 0 or not here.any():
                continue
            former = self.phases[i - 1].weights.get(component, math.nan) if i else math.nan
            share = (position[here] - phase.start) / phase.ramp_length
            moving = share < 1
            if phase.ramp == "cosine":
                share = (1 - np.cos(np.pi * share)) / 2
            weight[here] = np.where(moving, former + (target - former) * share, target)
        return weight


def _phases(given: Any) -> tuple[tuple[Phase, ...], list[str]]:
    place = "plan.curriculum.phases"
    if not isinstance(given, Sequence) or isinstance(given, str | bytes):
        raise PlanError(f"{place}: expected a list of phases, found {given!r}")
    phases, odd = [], []
    for i, entry in enumerate(given):
        here = f"{place}[{i}]"
        _mapping(entry, here)
        odd += _unknown(entry, _PHASE_KEYS, here)
        phases.append(_phase(entry, here, str(entry.get("name", f"phase {i}"))))
        if i == 0 and phases[0].ramp != "constant":
            odd.append(f"{here}.ramp: the first phase has no former weights to move from; its ramp is not judged")
        if i and phases[i].start <= phases[i - 1].start:
            raise PlanError(
                f"{here}.start: expected more than {phases[i - 1].start:g} (phases in order), found {phases[i].start:g}"
            )
    return tuple(phases), odd


def _phase(entry: Mapping[str, Any], here: str, name: str) -> Phase:
    if "start" not in entry:
        raise PlanError(f"{here}.start: missing; say where the phase begins")
    ramp = cast(Ramp, _one_of(entry.get("ramp", "constant"), _RAMPS, f"{here}.ramp"))
    length = _number(entry.get("ramp_length", 0), f"{here}.ramp_length")
    if length < 0 or (ramp != "constant" and length == 0):
        raise PlanError(f"{here}.ramp_length: expected a number above 0 for ramp {ramp!r}, found {length:g}")
    weights = _weights(entry.get("weights") or {}, f"{here}.weights")
    return Phase(name, _number(entry["start"], f"{here}.start"), weights, ramp, length)


def _check_axis(plan: Plan) -> None:
    if plan.axis != "progress":
        return
    for i, phase in enumerate(plan.phases):
        if not 0 <= phase.start <= 1:
            raise PlanError(
                f"plan.curriculum.phases[{i}].start: expected 0 to 1 on the axis 'progress', found {phase.start:g}"
            )


def _mapping(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise PlanError(f"{place}: expected an object, found {value!r}")
    return value


def _number(value: Any, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise PlanError(f"{place}: expected a number, found {value!r}")
    return float(value)


def _count(value: Any, place: str) -> int | None:
    if value is None:
        return None
    number = _number(value, place)
    if number < 1 or number != int(number):
        raise PlanError(f"{place}: expected a whole number above 0, found {value!r}")
    return int(number)


def _optional(value: Any, place: str) -> float | None:
    return None if value is None else _number(value, place)


def _above_zero(value: Any, place: str) -> float | None:
    number = _optional(value, place)
    if number is not None and number <= 0:
        raise PlanError(f"{place}: expected a number above 0, found {value!r}")
    return number


def _names(value: Any, place: str) -> tuple[str, ...]:
    """Names under a key; a flag (`freeze: true`) names nothing."""
    if value is None or isinstance(value, bool):
        return ()
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list | tuple) or not all(isinstance(name, str) for name in listed):
        raise PlanError(f"{place}: expected a list of names, found {value!r}")
    return tuple(filter(None, listed))


def _weights(value: Any, place: str) -> Mapping[str, float]:
    return {str(name): _number(weight, f"{place}.{name}") for name, weight in _mapping(value, place).items()}


def _one_of(value: Any, allowed: Sequence[str], place: str) -> str:
    if value not in allowed:
        raise PlanError(f"{place}: expected {' or '.join(map(repr, allowed))}, found {value!r}")
    return str(value)


def _aggregation(value: Any) -> Literal["sum", "mean"] | None:
    if value is None:
        return None
    return cast(Literal["sum", "mean"], _one_of(value, _AGGREGATIONS, "plan.aggregation"))


def _unknown(given: Mapping[str, Any], known: Sequence[str], place: str) -> list[str]:
    return [f"{place}.{key}: {nearest_key(key, known)}" for key in given if key not in known]


def nearest_key(key: object, known: Sequence[str] = PLAN_KEYS) -> str:
    """That a key is unknown, and the known one that it may be meant for.

    >>> nearest_key("curiculum")
    "unknown key; did you mean 'curriculum'?"
    """
    near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.6)
    return "unknown key" + (f"; did you mean {near[0]!r}?" if near else "")


def is_other(key: object, value: object) -> bool:
    """Whether a key of a plan is meant as a setting of that name: `lr = 3e-4` is a rate, and no schedule.

    >>> is_other("lr", 3e-4), is_other("lr", {"peak": 3e-4})
    (True, False)
    """
    return key == "lr" and isinstance(value, int | float | str) and not isinstance(value, bool)
