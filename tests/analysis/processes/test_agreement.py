"""Numbers of several processes: shared ones that come apart are found, own ones that differ by noise are left alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from analysis.processes.agreement import agreement_of, level_apart

Floats = NDArray[np.float64]
LENGTHS = (30, 100, 400, 2000, 5000)


def course(n: int) -> Floats:
    return np.asarray(0.5 + 2 * np.exp(-3 * np.arange(n) / n))


def own(seed: int, n: int, count: int, noise: float) -> Floats:
    """Losses of each process's own batches around a common course."""
    return np.asarray(course(n)[:, None] * np.exp(np.random.default_rng(seed).normal(0, noise, (n, count))))


def shared(seed: int, n: int, count: int, noise: float = 0.05) -> Floats:
    return np.repeat(own(seed, n, 1, noise), count, axis=1)


@pytest.mark.parametrize("count", [2, 3, 8])
@pytest.mark.parametrize("n", LENGTHS)
def test_healthy_processes_of_both_natures_are_silent(n: int, count: int):
    runs = 0
    for seed in range(12):
        for noise in (0.02, 0.2, 0.5):
            found = agreement_of(own(seed, n, count, noise))
            assert (found.nature, found.partings) == ("own", ()), (seed, noise)
            runs += 1
        rounded = shared(seed, n, count) * (1 + 1e-7 * np.random.default_rng(seed).normal(size=(n, count)))
        assert agreement_of(rounded).nature == "shared" and agreement_of(rounded).partings == ()
    assert runs == 36, "540 runs of own numbers over all lengths and counts"


@pytest.mark.parametrize("decimals", [1, 2, 3])
def test_own_numbers_that_agree_by_their_print_are_silent(decimals: int):
    for seed in range(100):
        for values in (own(seed, 300, 4, 0.02), own(seed, 300, 2, 0.02)[::-1], own(seed, 300, 2, 0.3)):
            assert agreement_of(np.round(values, decimals)).partings == ()


@pytest.mark.parametrize("size", [1e-4, 1e-3, 0.01, 0.1, 1.0, 100.0])
@pytest.mark.parametrize("n", LENGTHS)
def test_one_process_that_leaves_a_shared_number_is_named_at_its_row(n: int, size: float):
    for seed in range(5):
        values = shared(seed, n, 4)
        at = n // 3 + seed
        values[at:, 2] *= 1 + size
        (parting,) = agreement_of(values).partings
        assert (parting.how, parting.columns, parting.first, parting.rows) == ("apart", (2,), at, n - at)
        assert parting.difference == pytest.approx(size, rel=0.01)


def test_of_two_processes_nobody_can_say_who_left():
    values = shared(0, 100, 2)
    values[60:, 1] *= 1.01
    (parting,) = agreement_of(values).partings
    assert (parting.how, parting.columns, parting.first) == ("apart", (0, 1), 60)


def test_processes_that_all_part_are_all_named():
    values = shared(0, 100, 4)
    values[60:] *= np.array([1.0, 1.01, 1.02, 1.03])
    (parting,) = agreement_of(values).partings
    assert parting.columns == (0, 1, 2, 3)


def test_one_that_never_agreed_with_a_majority_is_named_from_the_first_row():
    values = shared(0, 100, 4)
    values[:, 3] *= 1.001
    (parting,) = agreement_of(values).partings
    assert (parting.columns, parting.first) == ((3,), 0)


def test_shards_of_equal_groups_and_of_one_each_are_no_parting():
    for seed in range(20):
        groups = np.repeat(own(seed, 100, 2, 0.2), 2, axis=1)[:, [0, 2, 1, 3]]
        for values in (groups, np.repeat(own(seed, 100, 4, 0.3), 2, axis=1), own(seed, 100, 4, 0.3) * [1, 2, 3, 4]):
            assert agreement_of(values, judge_own=False).partings == ()


def test_a_lone_row_that_differs_is_silent():
    for row in (50, 99):
        values = shared(0, 100, 4)
        values[row, 1] *= 2
        assert agreement_of(values).partings == ()


@pytest.mark.parametrize("size", [0.3, 0.5, 0.7, 1.0, 2.0, 10.0])
@pytest.mark.parametrize("count", [2, 3, 8])
def test_an_own_loss_that_leaves_the_others_is_found_near_its_row(size: float, count: int):
    for seed in range(5):
        values = own(seed, 400, count, 0.1)
        at = 150 + 10 * seed
        values[at:, 1] *= 1 + size
        (parting,) = agreement_of(values).partings
        assert parting.how == "level" and parting.columns == ((0, 1) if count == 2 else (1,))
        assert abs(parting.first - at) <= 5 and parting.difference == pytest.approx(size, rel=0.15)


def test_a_small_shift_and_processes_of_different_data_are_silent_and_an_early_one_is_told_from_the_beginning():
    for seed in range(20):
        small, mixed, early = own(seed, 400, 4, 0.1), own(seed, 400, 4, 0.1), own(seed, 400, 4, 0.1)
        small[200:, 1] *= 1.1
        mixed *= [0.7, 0.9, 1.1, 1.4]
        early[:, 1] *= 1.5
        assert agreement_of(small).partings == agreement_of(mixed).partings == ()
        (parting,) = agreement_of(early).partings
        assert (parting.how, parting.columns, parting.first) == ("level", (1,), 0)


def test_a_process_that_scatters_three_times_as_far_is_told():
    for seed in range(10):
        values = own(seed, 400, 4, 0.1)
        values[:, 2] = own(seed + 100, 400, 1, 0.5)[:, 0]
        (parting,) = agreement_of(values).partings
        assert (parting.how, parting.columns) == ("noise", (2,)) and 3.5 < parting.difference < 7


def test_numbers_that_only_some_processes_lack_are_told():
    values = own(0, 100, 4, 0.1)
    values[40:43, 3] = np.nan
    values[70] = np.nan
    (parting,) = agreement_of(values).partings
    assert (parting.how, parting.columns, parting.first, parting.rows) == ("non-finite", (3,), 40, 3)
    pair = own(0, 100, 2, 0.1)
    pair[10, 0] = np.inf
    assert agreement_of(pair).partings[0].columns == (0,)
    assert agreement_of(pair, infinite_is_fine=True).partings == ()


def test_too_few_rows_or_one_process_are_unknown():
    assert agreement_of(shared(0, 9, 4)).nature == "unknown"
    assert agreement_of(shared(0, 100, 1)).nature == "unknown"
    assert agreement_of(np.full((50, 3), np.nan)).nature == "unknown"


def test_signed_numbers_have_levels_too():
    values = np.random.default_rng(0).normal(-5.0, 0.1, (200, 4))
    values[100:, 0] += 3
    (parting,) = agreement_of(values).partings
    assert (parting.how, parting.columns) == ("level", (0,)) and abs(parting.first - 100) <= 2


def test_levels_are_those_of_an_obvious_median():
    values = np.random.default_rng(1).normal(0, 0.1, (300, 5))
    values[180:, 4] -= 0.6
    found = level_apart(values)
    assert found is not None
    columns, first, away = found
    plain = np.median(values[first:, 4] - np.median(values[first:, :4], axis=1))
    assert columns == (4,) and away == pytest.approx(plain)


@given(hnp.arrays(float, st.tuples(st.integers(0, 60), st.integers(1, 5))))
def test_any_table_has_an_answer(values: Floats):
    found = agreement_of(values)
    assert all(0 <= p.first < len(values) and p.columns for p in found.partings)
