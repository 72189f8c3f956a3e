"""Resumes told from late lines, epochs, files sorted by metric and disorder."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from parsers.tables.attempts import attempt_of, restarts


def found(step: list[int], *, epoch: list[float] | None = None, series: list[str] | None = None) -> list[int]:
    count = len(step)
    columns = {"order": range(count), "rank": [0] * count, "step": step}
    records = pl.DataFrame({**columns, "epoch": epoch or [None] * count, "series": series or [""] * count})
    return [int(place) for places in restarts(records).values() for place in places]


@pytest.mark.parametrize(
    ("step", "places"),
    [
        ([], []),
        ([1], []),
        ([1, 2, 3], []),
        ([1, 1, 1], []),
        ([1, 2, 3, 2, 3, 4], [3]),
        ([10, 20, 30, 5, 15, 25, 35], [3]),
        ([90, 100, 95, 105, 115], [2]),  # back by less than the distance of two records
        ([1, 2, 3, 4, 2, 5, 6], []),  # a lone late line
        ([1, 2, 3, 1, 2, 3, 1, 2, 3], [3, 6]),
        ([1, 2, 3, 1], []),  # nothing goes on yet
    ],
)
def test_a_resume_goes_back_and_goes_on_from_there(step: list[int], places: list[int]) -> None:
    assert found(step) == places


def test_steps_that_count_within_whole_epochs_are_no_resume() -> None:
    assert found([1, 2, 3, 1, 2, 3], epoch=[1, 1, 1, 2, 2, 2]) == []
    assert found([1, 2, 3, 1, 2, 3], epoch=[1, 1, 1, 1, 1, 1]) == [3]


def test_a_file_sorted_by_metric_is_no_resume_unless_a_series_repeats() -> None:
    assert found([1, 2, 3, 1, 2, 3], series=["a", "a", "a", "b", "b", "b"]) == []
    assert found([1, 2, 3, 2, 3, 4], series=["a"] * 6) == [3]


def test_constant_going_back_is_disorder() -> None:
    assert found(np.random.default_rng(0).permutation(400).tolist()) == []


def test_attempts_count_the_restarts_of_their_own_rank() -> None:
    attempt = attempt_of(np.array([0, 1, 0, 1], np.int32), np.arange(4), {0: np.array([2])})
    assert attempt.tolist() == [0, 0, 1, 0]


def test_planted_resumes_are_found_and_healthy_logs_are_silent() -> None:
    rng = np.random.default_rng(7)
    hits = alarms = 0
    for _ in range(200):
        gap = int(rng.integers(1, 50))
        end = int(rng.integers(30, 400))
        back = int(rng.integers(10, end - 1))
        planted = [*range(0, end * gap, gap), *range(back * gap, (end + 60) * gap, gap)]
        hits += found(planted) == [end]
        healthy = np.cumsum(rng.integers(1, gap + 1, size=400))
        late = int(rng.integers(50, 390))
        healthy[late] = healthy[late - int(rng.integers(10, 40))]
        alarms += bool(found(healthy.tolist()))
    assert hits == 200
    assert alarms <= 2
