"""Checks that run beside one another give what they give one after the other, and fail as they do there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import pytest

import aftertrain as at
from analysis import running
from analysis.checks import CHECKS, Check
from analysis.custom_checks import CustomCheck, forget, registered
from analysis.diagnose import diagnose
from analysis.findings import Finding
from analysis.limits import Limits
from analysis.result import Result
from analysis.running import run_checks
from benchmarks.diagnosis import table
from parsers.finish import finish
from parsers.loading import load
from parsers.run import Run


def faulty(steps: int) -> pl.DataFrame:
    """The ten metrics of the benchmark, with a spike, NaN at the end, and a total to which its parts do not add up."""
    rng = np.random.default_rng(3)
    total = pl.DataFrame(
        {
            "tag": ["losses/total"] * steps,
            "step": np.arange(steps),
            "value": 2.0 + 0.1 * rng.normal(size=steps),
        }
    )
    here = (pl.col("tag") == "train/loss") & pl.col("step").is_between(steps // 2, steps // 2 + 5)
    gone = (pl.col("tag") == "train/grad_norm") & (pl.col("step") >= steps - 20)
    value = pl.when(here).then(pl.col("value") * 6).when(gone).then(float("nan")).otherwise(pl.col("value"))
    entered = pl.col("tag").str.replace("^(losses/.*)/raw$", "$1/weighted")
    return pl.concat([table(steps).with_columns(value=value, tag=entered), total])


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    return faulty(2000)


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every run is long enough, and the machine has two cores."""
    monkeypatch.setattr(running, "MANY", 1)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    yield


def told(diagnosis: at.Diagnosis) -> list[Any]:
    return [
        [(repr(f), repr(f.evidence)) for f in diagnosis.findings],
        list(diagnosis.results),
        diagnosis.judged,
        diagnosis.not_applicable,
        repr(diagnosis.measures),
        {name: result.frame.to_dict(as_series=False) for name, result in diagnosis.results.items()}.__repr__(),
    ]


def test_a_diagnosis_in_threads_is_the_plain_one(rows: pl.DataFrame, beside: None, monkeypatch: pytest.MonkeyPatch):
    threaded = [told(diagnose(finish("r", "r", "memory", rows))) for _ in range(2)]
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    plain = told(diagnose(finish("r", "r", "memory", rows)))
    assert "loss-spike" in repr(plain[0]) and "non-finite" in repr(plain[0]) and "loss-sum-mismatch" in repr(plain[0])
    assert all(one == plain for one in threaded)


def test_a_run_that_stays_on_disk_is_read_by_several_checks_at_once(
    beside: None, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("parsers.parquet.EAGER", 1)
    path = tmp_path / "long.parquet"
    faulty(2000).write_parquet(path)
    assert load(path).whole is not None
    threaded = told(diagnose(load(path)))
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    assert threaded == told(diagnose(load(path)))


@dataclass
class Watched:
    """Stands for a check: notes the thread that it runs in, how many run with it, and does as it is told."""

    name: str
    does: Callable[[], None] = lambda: None
    seen: dict[str, Any] = field(default_factory=dict)

    def check(self) -> Check:
        made = Check(self.name, "tests.analysis.test_running", ("plateau",))
        globals()[self.name] = self
        return made

    def __call__(self, run: Run, **_: Any) -> Result:
        self.seen["thread"] = threading.current_thread()
        self.does()
        return CHECKS[0](run)


def checks_of(*watched: Watched) -> dict[str, Check | CustomCheck]:
    return {one.name: one.check() for one in watched}


def short() -> Run:
    return finish("r", "r", "memory", pl.DataFrame({"tag": ["loss"] * 9, "step": range(9), "value": [1.0] * 9}))


def test_two_checks_run_at_a_time_and_no_more(beside: None):
    both = threading.Barrier(2, timeout=20)
    first, second = Watched("first_of_two", both.wait), Watched("second_of_two", both.wait)
    run_checks(checks_of(first, second), short(), Limits())
    assert first.seen["thread"] is not second.seen["thread"]
    running_now, most, lock = [0], [0], threading.Lock()
    gate = threading.Event()

    def counted() -> None:
        with lock:
            running_now[0] += 1
            most[0] = max(most[0], running_now[0])
            if running_now[0] == 2:
                gate.set()
        assert gate.wait(20)
        with lock:
            running_now[0] -= 1

    run_checks(checks_of(*(Watched(f"counted_{i}", counted) for i in range(6))), short(), Limits())
    assert most[0] == 2


def test_results_keep_the_order_whichever_ends_first(beside: None):
    ended = threading.Event()
    slow = Watched("slow", lambda: None if ended.wait(20) else pytest.fail("the other never ran"))
    quick = Watched("quick", ended.set)
    heard: list[str] = []
    assert list(run_checks(checks_of(slow, quick), short(), Limits(), heard.append)) == ["slow", "quick"]
    assert heard == ["slow", "quick"]


def fails(error: Exception) -> Callable[[], None]:
    def raising() -> None:
        raise error

    return raising


@pytest.mark.parametrize("cores", [1, 2])
def test_what_a_check_raises_is_raised_and_none_begins_after_it(
    beside: None, monkeypatch: pytest.MonkeyPatch, cores: int
):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    error = at.InputError("r.parquet: cannot be read to its end")
    last = Watched("after_the_error")
    watched = [Watched("before_the_error"), Watched("the_error", fails(error)), Watched("beside_it"), last]
    with pytest.raises(at.InputError, match=r"r\.parquet: cannot be read to its end") as raised:
        run_checks(checks_of(*watched), short(), Limits())
    assert raised.value is error and not last.seen


def test_of_two_errors_the_first_in_the_order_is_raised(beside: None):
    second_failed = threading.Event()

    def late() -> None:
        assert second_failed.wait(20)
        raise ValueError("the first")

    def early() -> None:
        second_failed.set()
        raise ValueError("the second")

    with pytest.raises(ValueError, match="the first"):
        run_checks(checks_of(Watched("late", late), Watched("early", early)), short(), Limits())


def test_an_error_of_progress_is_raised(beside: None):
    with pytest.raises(KeyError, match="told of stream"):
        diagnose(short(), progress=lambda name: fails(KeyError(f"told of {name}"))())


def test_the_users_own_checks_run_alone_and_in_their_thread(beside: None):
    still = threading.Event()
    seen: dict[str, Any] = {}

    def slowly() -> None:
        sum(range(2_000_000))
        still.set()

    slow = Watched("slow_before_own", slowly)

    @at.check("own-loss-one", family="numbers", meaning="the loss is one")
    def own(run: Run) -> Iterator[Finding]:
        seen.update(thread=threading.current_thread(), alone=still.is_set())
        yield Finding("own-loss-one", "info", run.name, "it is one")

    try:
        checks = {**checks_of(slow), "own-loss-one": registered()["own-loss-one"], **checks_of(Watched("after_own"))}
        found = run_checks(checks, short(), Limits())
    finally:
        forget("own-loss-one")
    assert seen == {"thread": threading.main_thread(), "alone": True}
    assert list(found) == ["slow_before_own", "own-loss-one", "after_own"]
    assert [f.kind for f in found["own-loss-one"].findings] == ["own-loss-one"]


def test_a_short_run_stays_in_its_thread(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    one, other = Watched("short_one"), Watched("short_other")
    run_checks(checks_of(one, other), short(), Limits())
    assert one.seen["thread"] is other.seen["thread"] is threading.main_thread()
