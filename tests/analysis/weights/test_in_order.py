"""Work on many tensors comes back in their order, whichever thread did it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.weights.in_order import Job, in_order, most_held


def _jobs(sizes: Sequence[int], threads: set[int]) -> list[Job[int, int]]:
    def work(number: int) -> int:
        threads.add(threading.get_ident())
        return number * number

    def opened(number: int) -> list[Callable[[], int]]:
        return [partial(work, number), partial(work, number + 1)]

    return [Job(number, size, partial(opened, number)) for number, size in enumerate(sizes)]


@given(st.lists(st.sampled_from([0, 10, 1_000, 200_000, 90_000_000]), max_size=40))
def test_small_and_large_jobs_come_back_in_their_order(sizes: list[int]) -> None:
    found = list(in_order(_jobs(sizes, set()), most_held(sizes)))
    assert found == [(n, [n * n, (n + 1) ** 2]) for n in range(len(sizes))]


def test_jobs_of_a_few_kilobytes_start_no_thread_and_large_ones_do() -> None:
    own: set[int] = set()
    list(in_order(_jobs([1_000] * 50, own), most_held([1_000])))
    assert own == {threading.get_ident()}
    other: set[int] = set()
    list(in_order(_jobs([1 << 20] * 50, other), most_held([1 << 20])))
    assert threading.get_ident() not in other


@pytest.mark.parametrize("size", [10, 1 << 20])
def test_an_error_of_a_call_comes_out(size: int) -> None:
    def broken() -> int:
        raise ArithmeticError("no sum")

    with pytest.raises(ArithmeticError, match="no sum"):
        list(in_order([Job("w", size, lambda: [broken])], most_held([size])))
