"""Where a log ends, and that saves in it and saves beside it are held against one and the same end."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.planned.log_end import LogEnd, log_end
from analysis.planned.saves import judge_saves
from analysis.weights.joined import join_log
from analysis.weights.logged import unlike_the_log
from parsers.run import Run
from tests.analysis.planned.runs import a_run


def told_of_files(run: Run, *steps: int) -> list[str]:
    """What is said of saves at these steps that lie in a folder beside the log."""
    names = [f"step_{step}.npz" for step in steps]
    saves = join_log(run, steps).with_columns(save=pl.Series(names), path=pl.Series(names))
    return [finding.message for finding in unlike_the_log(run, saves, verify=False)]


def test_the_interval_is_that_of_the_longest_series_and_the_end_the_last_step_of_any() -> None:
    run = a_run(range(0, 1001, 10), metrics={"eval_loss": [1.0, 0.5]})
    assert log_end(run) == LogEnd(1000, 10.0)
    tail = a_run([*range(0, 501, 5), 900])
    assert log_end(tail) == LogEnd(900, pytest.approx(900 / 101))


@pytest.mark.parametrize(
    ("steps", "end"), [([], None), ([None] * 4, None), ([7], LogEnd(7, 0.0)), ([3, 3], LogEnd(3, 0.0))]
)
def test_a_log_without_steps_has_no_end_and_one_record_no_interval(steps: list[int | None], end: LogEnd | None) -> None:
    assert log_end(a_run(steps)) == end


def test_recorded_saves_are_no_part_of_the_log_that_they_are_held_against() -> None:
    run = a_run(range(101), events=[("checkpoint", 500, {"path": "step_500.npz"})])
    assert run.last_step == 500 and log_end(run) == LogEnd(100, 1.0)


@given(every=st.integers(1, 500), records=st.integers(2, 30), beyond=st.integers(-5, 1100))
def test_a_save_in_the_log_and_the_same_save_beside_it_are_judged_alike(every: int, records: int, beyond: int) -> None:
    steps = range(0, every * records, every)
    step = max(steps[-1] + beyond, 0)
    recorded = a_run(steps, events=[("checkpoint", step, {"path": "last.npz"})])
    late = [finding for finding in judge_saves(recorded)[0] if "the log ends" in finding.message]
    beside = told_of_files(a_run(steps), step)
    assert bool(late) == bool(beside) == (beyond > every + 1)


def test_a_save_one_step_after_the_record_that_was_not_made_any_more_is_in_the_log() -> None:
    """Counted from 1 where the log counts from 0: it was saved where the record would have been made."""
    run = a_run(range(0, 1001, 10))
    assert join_log(run, [1010, 1011, 1012])["in_log"].to_list() == [True, True, False]


def test_a_save_beyond_the_log_is_told_with_the_end_of_its_numbers_and_not_with_the_last_recorded_save() -> None:
    run = a_run(range(0, 2001, 20), events=[("checkpoint", 2500, {"path": "checkpoint-2500"})])
    (message,) = told_of_files(run, 1000, 2400)
    assert "beyond the end of the log at step 2,000: step_2400.npz" in message
    ((_, recorded),) = [(f.severity, f.message) for f in judge_saves(run)[0]]
    assert "the log ends at step 2,000" in recorded
