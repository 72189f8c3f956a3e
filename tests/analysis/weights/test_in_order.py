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


def test_jobs_of_a_few_kilobytes_start_no_thread() -> None:
    own: set[int] = set()
    list(in_order(_jobs([1_000] * 50, own), most_held([1_000])))
    assert own == {threading.get_ident()}


@pytest.mark.parametrize("cores", [2, 3])
def test_calls_of_a_large_job_run_side_by_side_on_all_cores(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)), raising=False)
    together = threading.Barrier(cores, timeout=30)
    jobs = [Job("w", 1 << 20, lambda: [together.wait] * cores) for _ in range(5)]
    for _, found in in_order(jobs, most_held([1 << 20])):
        assert sorted(found) == list(range(cores))
    assert not any("_work" in one.name for one in threading.enumerate())


def test_one_core_does_all_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0}, raising=False)
    own: set[int] = set()
    found = list(in_order(_jobs([1 << 20] * 5, own), most_held([1 << 20])))
    assert own == {threading.get_ident()} and [n for n, _ in found] == list(range(5))


@pytest.mark.parametrize("size", [10, 1 << 20])
def test_an_error_of_a_call_comes_out(size: int) -> None:
    def broken() -> int:
        raise ArithmeticError("no sum")

    with pytest.raises(ArithmeticError, match="no sum"):
        list(in_order([Job("w", size, lambda: [broken])] * 9, most_held([size])))
    assert not any("_work" in one.name for one in threading.enumerate())
