"""Planned phases about a step, on the axis on which the plan tells where they begin."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from analysis.anomaly.planned_phases import phase_about
from parsers.finish import finish
from parsers.run import Run


def a_run(steps: int, **plan: Any) -> Run:
    rows = pl.DataFrame({"tag": ["loss"] * steps, "step": range(steps), "value": [1.0] * steps})
    return finish("r", "r", "jsonl", rows, plan=plan)


@pytest.mark.parametrize(("max_steps", "begins"), [(400, 200), (None, 150)])
def test_shares_are_of_the_planned_steps_or_else_of_the_log(max_steps: int | None, begins: int) -> None:
    phases = [{"name": "a", "start": 0.0}, {"name": "b", "start": 0.5}, {"name": "end", "start": 1.0}]
    more = {} if max_steps is None else {"max_steps": max_steps}
    run = a_run(301, curriculum={"axis": "progress", "phases": phases}, **more)
    assert phase_about(run, begins) == f"the planned phase b begins at step {begins}"
    assert phase_about(run, begins - 50) == "" and phase_about(run, 1) == "", "nor is the end of the run its first step"


def test_steps_are_steps_however_small() -> None:
    phases = [{"name": "a", "start": 0}, {"name": "b", "start": 1}, {"name": "c", "start": 250}]
    run = a_run(400, curriculum={"phases": phases})
    assert "phase b" in phase_about(run, 4) and "phase c" in phase_about(run, 252)
    assert phase_about(run, 399) == ""
