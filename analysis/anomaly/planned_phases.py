"""Phases of a declared curriculum that begin where something happens to a loss: the run was told to change."""

from __future__ import annotations

from parsers.run import Run

__all__ = ["phase_about"]

#: Steps on either side in which a phase explains a change: so many, and this share of the run.
_NEAR, _SHARE = 5.0, 0.02


def phase_about(run: Run, first: int, last: int | None = None) -> str:
    """The planned phase that begins or is being ramped up about some steps, in words; empty where there is none.

    >>> from parsers.finish import finish
    >>> plan = {"curriculum": {"phases": [{"name": "warm", "start": 0}, {"name": "route", "start": 80}]}}
    >>> phase_about(finish("r", "r", "jsonl", plan=plan), 78), phase_about(finish("r", "r", "jsonl", plan=plan), 40)
    ('the planned phase route begins at step 80', '')
    """
    plan, end = run.planned, float(run.last_step or 0)
    near = max(_NEAR, _SHARE * end)
    unit = float(plan.total_steps or end) if plan.axis == "progress" else 1.0
    for phase in plan.phases:
        start, ramp = phase.start * unit, phase.ramp_length * unit
        if start > 0 and first - near - ramp <= start <= (first if last is None else last) + near:
            return f"the planned phase {phase.name} begins at step {start:.0f}"
    return ""
