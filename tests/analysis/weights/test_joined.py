"""What the log says at each save."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.weights.joined import JOINED, join_log, series_of
from parsers.finish import finish
from parsers.run import Run


def run_of(**series: dict[int, float]) -> Run:
    rows = [(tag, step, value) for tag, points in series.items() for step, value in points.items()]
    return finish("r", "r.jsonl", "jsonl", pl.DataFrame(rows, schema=["tag", "step", "value"], orient="row"))


def test_each_save_gets_the_loss_the_last_evaluation_and_the_rate_of_its_step():
    run = run_of(
        loss={step: 5.0 - step / 100 for step in range(0, 401, 10)},
        eval_loss={100: 3.0, 200: 2.0, 300: 2.5},
        lr={step: 1e-3 if step < 250 else 1e-4 for step in range(0, 401, 10)},
    )
    joined = join_log(run, [100, 200, 310])
    assert joined["eval"].to_list() == [3.0, 2.0, 2.5]
    assert joined["eval_step"].to_list() == [100, 200, 300]
    assert joined["eval_metric"].to_list() == ["eval loss"] * 3
    assert joined["lr"].to_list() == [1e-3, 1e-3, 1e-4]
    assert joined["best"].to_list() == [False, True, False]
    assert joined["loss"][1] == pytest.approx(5.0 - (200 + 10) / 2 / 100)  # the median of the 20 rows 10 to 200


def test_a_noisy_loss_is_taken_by_its_level_and_not_by_the_batch_of_the_save():
    run = run_of(loss={step: 100.0 if step == 50 else 1.0 for step in range(1, 51)})
    assert join_log(run, [50])["loss"].item() == 1.0


def test_without_evaluations_the_lowest_loss_is_the_best_save():
    run = run_of(loss={step: abs(step - 60) + 1.0 for step in range(0, 101, 20)})
    assert join_log(run, [20, 60, 100])["best"].to_list().count(True) == 1


def test_a_score_is_better_the_higher_it_is_and_an_error_rate_the_lower():
    scores = run_of(loss={1: 1.0, 2: 1.0}, eval_accuracy={1: 0.7, 2: 0.8, 3: 0.6})
    errors = run_of(loss={1: 1.0, 2: 1.0}, eval_wer={1: 0.3, 3: 0.2, 5: 0.4})
    assert join_log(scores, [1, 2, 3])["best"].to_list() == [False, True, False]
    assert join_log(errors, [1, 3, 5])["best"].to_list() == [False, True, False]


def test_an_evaluation_that_is_carried_on_makes_no_later_save_the_best():
    run = run_of(loss=dict.fromkeys(range(10), 1.0), eval_loss={2: 0.5})
    assert join_log(run, [2, 5, 9])["best"].to_list() == [True, False, False]


def test_a_save_beyond_the_end_of_the_log_is_not_in_it_and_one_off_by_the_counter_is():
    run = run_of(loss=dict.fromkeys(range(101), 1.0))
    assert join_log(run, [100, 101, 150])["in_log"].to_list() == [True, True, False]


def test_without_a_run_or_a_step_everything_is_unknown_and_the_columns_are_the_same():
    run = run_of(loss={1: 1.0})
    for joined in (join_log(None, [1, None]), join_log(run, [None]), join_log(run, []), join_log(run_of(lr={}), [3])):
        assert joined.schema == JOINED
    assert join_log(None, [7])["step"].item() == 7
    assert join_log(run, [None]).row(0) == (None,) * len(JOINED)


def test_a_save_at_which_the_loss_is_nan_has_no_loss_of_the_steps_before_and_is_not_the_best() -> None:
    losses = {step: math.nan if step > 80 else 1 / step for step in range(1, 121)}
    joined = join_log(run_of(loss=losses), [40, 80, 85, 100])
    assert joined["loss"].is_null().to_list() == [False, False, False, True]
    joined = join_log(run_of(loss=losses), [40, 80, 100])
    assert joined["best"].to_list() == [False, True, False]


def test_values_that_are_not_finite_are_left_out():
    run = run_of(loss={0: 1.0, 1: 1.0, 2: math.nan, 3: 1.0}, eval_loss={1: 1.0, 2: math.nan})
    joined = join_log(run, [3])
    assert (joined["loss"].item(), joined["eval"].item()) == (1.0, 1.0)


def test_values_of_a_series_stand_in_the_order_of_steps_and_those_of_one_step_as_logged():
    rows = [("lr", 30, 0.3), ("lr", 10, 0.1), ("lr", None, 0.9), ("lr", 20, math.nan), ("lr", 10, 0.2)]
    schema = {"tag": pl.String, "step": pl.Int64, "value": pl.Float64}
    run = finish("r", "r.jsonl", "jsonl", pl.DataFrame(rows, schema=schema, orient="row"))
    found = series_of(run, run.roles["learning_rate"].series)
    assert found is not None
    assert (found.steps.tolist(), found.values.tolist()) == ([10, 10, 30], [0.1, 0.2, 0.3])


@given(
    losses=st.dictionaries(st.integers(0, 200), st.floats(-1e6, 1e6), max_size=30),
    saves=st.lists(st.one_of(st.none(), st.integers(0, 300)), max_size=8),
)
def test_any_log_and_any_saves_give_a_row_a_save_with_the_median_of_what_came_before(losses, saves):
    run = run_of(loss=losses)
    joined = join_log(run, saves)
    assert joined.height == len(saves)
    assert joined["step"].to_list() == saves
    for step, found in zip(saves, joined["loss"].to_list(), strict=True):
        last = -1 if step is None else step if step in losses else step + 1
        before = [losses[at] for at in sorted(losses) if at <= last][-20:]
        assert found == (None if not before else pytest.approx(np.median(before)))
