"""Levels, rises and the loss beside them: against slow versions, and on series whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import median_filter

from analysis.gradient.levels import (
    ROWS,
    LossLevels,
    decades,
    first_lasting,
    highest_rise,
    levels_of,
    printed_unit,
)

LOGS = st.lists(st.floats(-300, 300) | st.sampled_from([np.inf, -np.inf]), min_size=0, max_size=60)


@given(LOGS)
def test_a_level_is_the_median_of_seven_neighbours(logs: list[float]) -> None:
    values = np.array(logs)
    slow = [sorted(values[i : i + ROWS])[ROWS // 2] for i in range(len(values) - ROWS + 1)]
    np.testing.assert_array_equal(levels_of(values), slow)


def test_levels_are_those_of_scipys_median_filter() -> None:
    values = np.random.default_rng(0).normal(size=1000)
    np.testing.assert_array_equal(levels_of(values), median_filter(values, size=ROWS)[ROWS // 2 : -(ROWS // 2)])


@given(LOGS)
def test_any_series_has_a_rise_that_keeps_its_order_or_none(logs: list[float]) -> None:
    rise = highest_rise(np.array(logs), least=1.5, above_start=1.0)
    if rise is not None:
        assert 0 <= rise.valley <= rise.left <= rise.up < len(logs) and rise.valley <= rise.peak < len(logs)
        assert rise.high - rise.low >= 1.5 and rise.top >= rise.low + 1.5


@pytest.mark.parametrize("size", [1.6, 2.0, 3.0, 8.0])
@pytest.mark.parametrize("at", [10, 100, 190])
def test_a_step_of_the_level_is_found_at_its_row(size: float, at: int) -> None:
    logs = 0.1 * np.random.default_rng(1).normal(size=200)
    logs[at:] += size
    rise = highest_rise(logs, least=1.3, above_start=1.0)
    assert rise is not None and rise.up == at and rise.left == at - 1 and rise.lasts


@pytest.mark.parametrize("length", [50, 500, 5000, 50_000])
def test_noise_alone_never_rises_however_long_it_is(length: int) -> None:
    for seed in range(5):
        logs = 0.3 * np.random.default_rng(seed).standard_t(5, size=length)
        assert highest_rise(logs, least=1.5, above_start=1.0) is None


def test_up_to_three_wild_rows_in_a_row_are_no_level() -> None:
    logs = np.zeros(100)
    logs[50:53] = 5.0
    assert highest_rise(logs, least=1.5, above_start=1.0) is None
    logs[50:54] = 5.0
    assert highest_rise(logs, least=1.5, above_start=1.0) is not None


def test_a_norm_that_grew_before_it_was_infinite_ends_its_rise_there() -> None:
    rise = highest_rise(np.array([0.0, 0.1, 3.0, 20.0, np.inf, np.inf, np.inf]), least=1.5, above_start=1.0)
    assert rise is not None and rise.ends and rise.up == 2 and rise.top == 20.0
    assert highest_rise(np.array([0.0, 0.1, 0.2, 0.1, np.inf, np.inf, np.inf]), least=1.5, above_start=1.0) is None


def test_the_way_back_from_a_valley_is_no_rise() -> None:
    logs = np.concatenate([np.zeros(50), np.full(50, -4.0), np.zeros(50)])
    assert highest_rise(logs, least=1.5, above_start=1.0) is None


def test_the_logarithm_of_nothing_and_of_nan() -> None:
    np.testing.assert_array_equal(decades(np.array([0.0, 10.0, np.nan, np.inf])), [-np.inf, 1.0, np.inf, np.inf])


@given(st.lists(st.booleans(), max_size=30))
def test_what_lasts_begins_after_the_last_break(holds: list[bool]) -> None:
    first = first_lasting(np.array(holds, dtype=bool))
    slow = next((i for i in range(len(holds)) if all(holds[i:])), None)
    assert first == slow


@pytest.mark.parametrize("digits", range(7))
def test_the_last_decimal_that_is_printed_is_known(digits: int) -> None:
    values = np.round(np.random.default_rng(digits).random(200) * 10, digits)
    assert printed_unit(values) == pytest.approx(10.0**-digits)


def test_the_loss_rises_falls_or_holds_beyond_its_noise() -> None:
    rng = np.random.default_rng(0)
    steps = np.arange(300.0)
    flat = LossLevels(steps, 2 + 0.3 * rng.normal(size=300))
    assert flat.trend(flat.first, flat.last) == "held"
    rising = LossLevels(steps, 2 + 0.01 * steps + 0.3 * rng.normal(size=300))
    assert rising.trend(rising.first, rising.last) == "rose" and rising.trend(rising.last, rising.first) == "fell"
    broken = LossLevels(steps, np.where(steps > 200, np.nan, 2.0))
    assert broken.trend(*broken.before(100.0)[:1], broken.last) == "rose"
    nothing = LossLevels(np.empty(0), np.empty(0))
    assert nothing.trend(nothing.first, nothing.last) == "unknown" and nothing.before(3.0)[1] == 0


def test_losses_out_of_order_are_read_by_their_steps() -> None:
    steps = np.arange(100.0)[::-1]
    assert LossLevels(steps, steps).before(9.0) == (6.0, 7)
