"""A schedule of learning rates that stands several times as far as its optimizer: why that is, and how bad."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from analysis.findings import Severity
from analysis.weights.saved import Saved

__all__ = ["Haste", "Schedule", "haste_of", "schedule_of"]

_LAST = re.compile(r"(?P<own>(?:^|.*\.)\w*schedulers?(?:_states?|_state_dict)?(?:\.\d+)?\.(?:\w+\.)?)last_epoch$")
#: How many processes a training has, and how many batches an update, where settings lie in the save.
_PROCESSES = re.compile(r"(^|[._])(world_size|num_processes|nproc_per_node|n_gpus?|num_gpus|num_devices|dp_size)$")
_BATCHES = re.compile(r"(^|[._])(gradient_accumulation_steps|accumulate_grad_batches|grad_accum(ulation)?(_steps)?)$")
#: Random states, of which every process saves its own.
_OF_A_PROCESS = re.compile(r"(rng_state|random_states)_(\d+)\.(pth|pt|pkl)$")
_WRAPPED = re.compile(r"(^|\.)module\.")


@dataclass(frozen=True, slots=True)
class Schedule:
    """Where a schedule stands, and where it ends (`T_max` of a cosine; None where it does not say)."""

    stands: float
    ends: float | None


@dataclass(frozen=True, slots=True)
class Haste:
    """What a schedule that is stepped several times a step deserves: severity, words, causes, and what to do."""

    severity: Severity
    said: str
    causes: tuple[str, ...]
    suggestions: tuple[str, ...]


def schedule_of(values: Mapping[str, object]) -> Schedule | None:
    """The schedule that stands furthest among those of a save; None where it holds none."""
    found = []
    for key, value in values.items():
        match = _LAST.match(key)
        if match is not None and _is_number(value):
            ends = values.get(f"{match['own']}T_max")
            found.append(Schedule(float(value), float(ends) if _is_number(ends) else None))  # type: ignore[arg-type]
    return max(found, key=lambda one: one.stands, default=None)


def haste_of(saved: Saved, schedule: Schedule, steps: float, factor: int, *, counted: bool) -> Haste:
    """Why a schedule stands at `factor` times the `steps` that the optimizer took, as far as the save tells.

    A warning where it has ended since, though the training has not come so far, and where nothing explains the factor;
    information where the processes (accelerate lets each of them step the schedule) or the batches of an update do, or
    may do: where names bear the mark of a training on several, and where the optimizer has not `counted` its steps, so
    that these are those of the save, whatever it counts.
    """
    ended = schedule.ends is not None and steps <= schedule.ends < schedule.stands
    reason = _reason(saved, factor)
    wrapped = any(_WRAPPED.search(tensor.name) for tensor in saved.checkpoint.of_role("weights"))
    severity: Severity = "warning" if ended or (reason is None and counted and not wrapped) else "info"
    over = f"; it was made for {schedule.ends:,.0f} and has ended: a cosine rises again from there" if ended else ""
    twice = (
        f"the schedule is stepped {factor} times a step: in the loop, and by the trainer, the optimizer or a callback"
    )
    processes = f"each of {factor} processes steps it, as accelerate's does unless split_batches is set"
    batches = f"it is stepped at each of {factor} batches of an update"
    told = {"processes": (processes,), "batches": (batches,), None: (twice, processes, batches)}[reason]
    return Haste(severity, f"it is stepped {factor} times a step{over}", told, _advice(reason, factor))


def _advice(reason: str | None, factor: int) -> tuple[str, ...]:
    longer = f"where {factor} steps at a time are meant, make the schedule {factor} times as long as the training"
    look = "compare the learning rates that were logged with those that were planned"
    if reason is not None:
        return (longer, look)
    return ("call scheduler.step() once for each optimizer.step(), in one place only", longer, look)


def _reason(saved: Saved, factor: int) -> str | None:
    """What in the save explains the factor: `processes`, `batches`, or nothing."""
    values = saved.checkpoint.values.items()
    if factor in [value for key, value in values if _PROCESSES.search(key)]:
        return "processes"
    seen = {int(match[2]) for file in saved.checkpoint.files if (match := _OF_A_PROCESS.search(file.name))}
    # The states of other machines may lie elsewhere.
    if len(seen) > 1 and factor % len(seen) == 0:
        return "processes"
    return "batches" if factor in [value for key, value in values if _BATCHES.search(key)] else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
