"""The processes of a job: those that are missing, stop early or disagree are told, and the habits of jobs are not."""

from __future__ import annotations

import datetime as dt
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from analysis.findings import Finding
from analysis.processes.presence import absence_of
from analysis.ranks import ranks
from analysis.resources import resources
from eventstream.recorder import Recorder
from parsers.finish import finish
from parsers.loading import load
from parsers.run import Run

Floats = NDArray[np.float64]
START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


def part(
    rank: int, tag: str, values: Any, *, every: int = 10, first: int = 0, attempt: int = 0, pace: float | None = 2.0
) -> pl.DataFrame:
    """A series of one rank; with `pace` its records come every so many seconds."""
    values = np.asarray(values, float)
    step = first + np.arange(len(values)) * every
    frame = pl.DataFrame({"tag": tag, "value": values, "step": step})
    frame = frame.with_columns(rank=pl.lit(rank, pl.Int32), attempt=pl.lit(attempt, pl.Int32))
    micros = None if pace is None else pl.Series((step / every * pace * 1e6).astype(np.int64)).cast(pl.Duration("us"))
    when = pl.lit(None) if micros is None else pl.lit(START) + micros
    return frame.with_columns(time=when.cast(pl.Datetime("us", "UTC")))


def run_of(*parts: pl.DataFrame, ends: dict[int, str] | None = None, **more: Any) -> Run:
    told = None
    if ends:
        payloads = [json.dumps({"status": "failed", "error": error}) for error in ends.values()]
        told = pl.DataFrame({"kind": ["end"] * len(ends), "rank": [*ends], "payload": payloads})
    return finish("r", "r", "jsonl", pl.concat(parts), events=told, **more)


def job(count: int, n: int = 200, *, noise: float = 0.1, seed: int = 0) -> dict[tuple[int, str], Floats]:
    """What the ranks of a healthy job with data parallelism log: losses of their own, all else the same."""
    rng = np.random.default_rng(seed)
    course = 0.5 + 2 * np.exp(-3 * np.arange(n) / n)
    norm, weights = np.exp(rng.normal(0, 0.3, n)), np.linspace(100, 120, n)
    rounding = 1 + 1e-7 * rng.normal(size=(count, n))
    return {
        key: values
        for rank in range(count)
        for key, values in {
            (rank, "loss"): course * np.exp(rng.normal(0, noise, n)),
            (rank, "lr"): np.linspace(1e-3, 0, n),
            (rank, "grad_norm"): norm * rounding[rank],
            (rank, "param_norm"): weights * rounding[rank],
            (rank, "step_time_ms"): 200 * np.exp(rng.normal(0, 0.05, n)),
        }.items()
    }


def run_of_job(job: dict[tuple[int, str], Floats], **more: Any) -> Run:
    return run_of(*(part(rank, tag, values) for (rank, tag), values in job.items()), **more)


def kinds(run: Run, **options: Any) -> list[tuple[str, str, str | None]]:
    return [(f.kind, f.severity, f.metric) for f in ranks(run, **options).findings]


def only(run: Run) -> Finding:
    (finding,) = ranks(run).findings
    return finding


# ---- who is there -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 4, 8])
def test_healthy_jobs_are_silent(count: int):
    jobs = 0
    for n in (30, 100, 600):
        for seed in range(12):
            healthy = run_of_job(
                job(count, n, seed=seed, noise=(0.05, 0.2, 0.5)[seed % 3]), config={"world_size": count}
            )
            assert ranks(healthy).findings == ranks(healthy).not_applicable == ()
            jobs += 1
    assert jobs == 36


def test_a_single_rank_is_not_judged_whatever_the_size_of_the_job():
    result = ranks(run_of(part(0, "loss", np.ones(50)), config={"world_size": 64}))
    assert not result.findings and {n.kind for n in result.not_applicable} == {"rank-missing", "rank-divergence"}


@pytest.mark.parametrize(
    ("there", "world", "missing"),
    [
        ([0, 1, 2, 3], None, None),
        ([0, 1, 2, 3], 4, None),
        ([0, 1, 3], None, (2,)),
        ([0, 1, 2], 4, (3,)),
        ([0, 1, 2], 8, (3, 4, 5, 6, 7)),
        ([1, 2, 3], 4, (0,)),
        ([1, 2, 3, 4], 4, None),
        ([0, 8, 16, 24], 32, None),
        ([0, 8, 24], 32, (1, 2, 3, 4, 5, 6, 7, *range(9, 24), *range(25, 32))),
        ([0, 8, 16], 32, (24,)),
        ([0, 8], 16, None),
        ([0, 1, 2, 3], 2, None),
        ([0], 8, None),
        ([], 8, None),
    ],
)
def test_missing_ranks_follow_from_the_size_and_the_numbering(there: list[int], world: int | None, missing: Any):
    absence = absence_of(there, None if world is None else (world, "world_size"))
    assert (None if absence is None else absence.missing) == missing


@pytest.mark.parametrize(
    ("config", "severity"),
    [({"world_size": 4}, "warning"), ({"trainer": {"world_size": 4}}, "warning"), ({"num_processes": 4}, "info")],
)
def test_a_rank_without_a_log_is_told_by_the_size_in_the_settings(config: dict[str, Any], severity: str):
    finding = only(run_of(*(part(rank, "loss", np.ones(50)) for rank in range(3)), config=config))
    assert (finding.kind, finding.severity) == ("rank-missing", severity)
    assert "rank 3 left no log" in finding.message and finding.evidence["world_size"] == 4


def test_the_size_may_be_given_and_must_be_one():
    run = run_of(*(part(rank, "foo", np.ones(50)) for rank in range(3)))
    assert kinds(run) == [] and kinds(run, world_size_is=5) == [("rank-missing", "warning", None)]
    for wrong in (0, -1, True):
        with pytest.raises(ValueError, match=r"world_size_is is .*; it must be 1 or more"):
            ranks(run, world_size_is=wrong)


def test_two_ranks_apart_are_doubtful():
    assert kinds(run_of(part(0, "foo", np.ones(50)), part(2, "foo", np.ones(50)))) == [("rank-missing", "info", None)]


@pytest.mark.parametrize(
    ("kept", "severity"), [(199, None), (197, None), (195, "info"), (180, "warning"), (5, "warning")]
)
def test_a_rank_that_stops_early_is_told_with_steps_and_clock(kept: int, severity: str | None):
    run = run_of(*(part(rank, "foo", np.ones(kept if rank == 2 else 200)) for rank in range(4)))
    found = ranks(run).findings
    assert [f.severity for f in found] == ([] if severity is None else [severity])
    if severity == "warning":
        (finding,) = found
        assert finding.evidence["rank"] == 2 and finding.first_step == (kept - 1) * 10
        assert finding.evidence["steps_behind"] == (200 - kept) * 10
        assert finding.evidence["seconds_behind"] == pytest.approx((200 - kept) * 2.0)
        assert f"{(200 - kept) * 10:,} steps before" in finding.message and "2026-03-01" in finding.message
        assert ranks(run).frame["steps_behind"].to_list() == [None, None, (200 - kept) * 10, None]


def test_the_error_of_a_rank_that_stopped_is_its_first_cause():
    run = run_of(part(0, "foo", np.ones(200)), part(1, "foo", np.ones(90)), ends={1: "RuntimeError: NCCL error"})
    assert only(run).causes[0] == "rank 1 ended with an error: RuntimeError: NCCL error"


def test_a_rank_that_counts_more_slowly_and_runs_to_the_end_did_not_stop():
    slower = part(1, "foo", np.ones(100), pace=4.0)
    assert kinds(run_of(part(0, "foo", np.ones(200)), slower)) == []


def test_a_rank_that_logs_seldom_is_not_behind():
    assert kinds(run_of(part(0, "foo", np.ones(200)), part(1, "foo", np.ones(20), every=100))) == []


def test_ranks_that_miss_a_resume_are_told_and_a_smaller_job_is_information():
    def resumed(without: tuple[int, ...]) -> Run:
        first = [part(rank, "foo", np.ones(100)) for rank in range(4)]
        again = [part(r, "foo", np.ones(100), first=1000, attempt=1) for r in range(4) if r not in without]
        return run_of(*first, *again)

    assert kinds(resumed(())) == []
    assert kinds(resumed((2, 3))) == [("rank-missing", "info", None)]
    assert kinds(resumed((1,))) == [("rank-missing", "warning", None)]
    assert "took no part in attempt 1" in only(resumed((1,))).message


# ---- whether they agree -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1e-4, 1e-3, 0.02, 0.1, 1.0, 30.0])
@pytest.mark.parametrize("tag", ["lr", "grad_norm", "param_norm"])
def test_what_is_shared_and_comes_apart_is_told_at_its_step(tag: str, size: float):
    planted = job(4)
    planted[2, tag] = np.where(np.arange(200) < 120, planted[2, tag], planted[2, tag] * (1 + size))
    finding = only(run_of_job(planted))
    slight = tag == "lr" and size < 0.01
    assert (finding.kind, finding.metric, finding.first_step) == ("rank-divergence", tag, 1200)
    assert finding.severity == ("warning" if slight else "critical") and finding.evidence["rank"] == 2
    assert "rank 2 left the other 3 ranks from step 1,200 (2026-03-01" in finding.message
    assert finding.causes[0].startswith("120 common steps agreed to rounding before")


def test_a_reduced_loss_that_comes_apart_is_a_warning():
    planted = {(rank, "loss"): job(1)[0, "loss"].copy() for rank in range(3)}
    planted[1, "loss"][150:] *= 1.05
    assert kinds(run_of_job(planted)) == [("rank-divergence", "warning", "loss")]


def test_a_local_loss_that_leaves_the_others_is_a_warning_and_one_that_was_off_at_first_information():
    late, early = job(4), job(4)
    late[3, "loss"] = np.where(np.arange(200) < 120, late[3, "loss"], late[3, "loss"] * 1.6)
    early[3, "loss"] = early[3, "loss"] * 1.6
    assert kinds(run_of_job(late)) == [("rank-divergence", "warning", "loss")]
    assert kinds(run_of_job(early)) == [("rank-divergence", "info", "loss")]
    assert only(run_of_job(late)).evidence["nature"] == "own"


def test_learning_rates_that_never_agree_are_told_even_of_two_ranks():
    two = {(0, "lr"): np.full(50, 1e-3), (1, "lr"): np.full(50, 2e-3)}
    assert kinds(run_of_job(two)) == [("rank-divergence", "critical", "lr")]


def test_shards_and_numbers_of_one_process_are_silent():
    shards = {(rank, "param_norm"): np.linspace(100, 120, 200) * (1 + rank) for rank in range(2)}
    assert kinds(run_of_job(shards)) == []
    named = {(rank, "shard_grad_norm"): np.linspace(1, 2, 200) * (1 + 4 * (rank == 1)) for rank in range(4)}
    assert kinds(run_of_job(named)) == []


def test_checksums_are_compared_by_their_name():
    sums = {(rank, "param_checksum"): np.random.default_rng(0).normal(0, 1e4, 100) for rank in range(3)}
    assert kinds(run_of_job(sums)) == []
    sums[1, "param_checksum"][70:] += 1.0
    assert kinds(run_of_job(sums)) == [("rank-divergence", "critical", "param_checksum")]


def test_a_loss_that_is_nan_on_one_rank_alone_is_told_and_an_infinite_gradient_of_a_loss_scaler_is_not():
    planted = job(4)
    planted[1, "loss"][50:53] = math.nan
    planted[2, "grad_norm"][10] = math.inf
    finding = only(run_of_job(planted))
    assert (finding.metric, finding.severity, finding.evidence["rank"]) == ("loss", "warning", 1)
    assert "alone at 3 steps, first at 500" in finding.message


def test_a_straggler_is_information():
    planted = job(4)
    planted[3, "step_time_ms"] = planted[3, "step_time_ms"] * 1.5
    finding = only(run_of_job(planted))
    assert finding.severity == "info" and "rank 3 is slower" in finding.message
    assert finding.evidence["difference"] == pytest.approx(0.5, abs=0.05)


def test_steps_that_one_rank_lacks_and_repeats_are_laid_side_by_side():
    planted = job(3)
    table = run_of_job(planted).scalars
    rng = np.random.default_rng(0)
    kept = table.filter(pl.Series(rng.random(table.height) > 0.2))
    assert kinds(finish("r", "r", "jsonl", kept)) == []
    assert kinds(finish("r", "r", "jsonl", pl.concat([kept, kept.filter(pl.col("rank") == 1)]))) == []


def test_each_rank_of_a_recorded_job_is_read_and_compared(tmp_path: Path):
    for rank in range(3):
        with Recorder(tmp_path / "run", rank=rank, config={"world_size": 4}) as recorder:
            for step in range(60):
                weights = 100.0 + step + (0.5 if rank == 1 and step >= 40 else 0.0)
                recorder.log(step, {"loss": 1.0 + 0.1 * math.sin(7 * step + rank), "param_norm": weights})
    found = {(f.kind, f.metric): f for f in ranks(load(tmp_path / "run")).findings}
    assert set(found) == {("rank-missing", None), ("rank-divergence", "param_norm")}
    assert found["rank-divergence", "param_norm"].first_step == 40
    assert found["rank-missing", None].evidence["first_missing"] == 3


# ---- in the common form -------------------------------------------------------------------------------------------


def test_figures_show_what_came_apart_and_who_stopped():
    planted = job(3)
    planted[1, "param_norm"][100:] += 5
    result = ranks(run_of_job(planted))
    drawn = result.plot()
    assert drawn.get_ylabel() == "param_norm" and "rank 1 left" in drawn.get_title(loc="left")
    assert [line.get_label() for line in drawn.lines] == ["rank 0", "rank 1", "rank 2"]
    assert np.array_equal(drawn.lines[1].get_ydata(), planted[1, "param_norm"])
    assert result.plot(metric="loss").get_ylabel() == "loss"
    with pytest.raises(ValueError, match="'foo' was not compared between ranks; compared were: grad_norm, loss, lr"):
        result.plot(metric="foo")
    stopped = ranks(run_of(part(0, "foo", np.ones(200)), part(1, "foo", np.ones(50)))).plot()
    assert stopped.get_xlabel() == "last step" and "stopped early" in stopped.get_title(loc="left")


def test_the_frame_has_a_row_a_rank_with_what_it_left():
    planted = job(3)
    planted[1, "param_norm"][100:] += 5
    planted[1, "lr"][100:] *= 2
    frame = ranks(run_of_job(planted)).frame
    assert frame["rank"].to_list() == [0, 1, 2] and frame["apart_in"].to_list() == [[], ["param_norm", "lr"], []]


def test_ranks_without_anything_in_common_are_not_judged():
    run = run_of(part(0, "loss", np.ones(50)), part(1, "foo", np.ones(50)))
    assert {n.kind for n in ranks(run).not_applicable} == {"rank-divergence"}
    apart = run_of(part(0, "loss", np.ones(50)), part(1, "loss", np.ones(50), first=5))
    assert "fewer than 10 steps" in ranks(apart).not_applicable[0].reason


EMPTY = {type(found): found.frame for found in (check(finish("r", "r", "jsonl")) for check in (ranks, resources))}
TAGS = (
    "loss",
    "lr",
    "grad_norm",
    "param_norm",
    "step_time",
    "tokens_per_second",
    "gpu_memory_mb",
    "gpu_memory_total_mb",
)
ROWS = st.tuples(
    st.sampled_from(TAGS),
    st.integers(0, 3),
    st.integers(0, 2),
    st.none() | st.integers(0, 40) | st.just(2**62),
    st.none() | st.integers(0, 10**15),
    st.floats(),
)


@given(st.lists(ROWS, max_size=40), st.integers(1, 12))
def test_any_rows_of_any_ranks_give_a_result(rows: list[tuple[Any, ...]], repeats: int):
    schema = {"tag": pl.String, "rank": pl.Int32, "attempt": pl.Int32, "step": pl.Int64, "time": pl.Int64}
    table = pl.DataFrame(rows * repeats, schema={**schema, "value": pl.Float64}, orient="row")
    table = table.with_columns(pl.col("time").cast(pl.Datetime("us", "UTC")))
    run = finish("r", "r", "jsonl", table)
    for result in (ranks(run), resources(run)):
        assert result.frame.schema == EMPTY[type(result)].schema
        assert all(f.evidence and f.message for f in result.findings)


def test_a_rank_of_a_recorded_job_that_left_no_log_is_missed_by_the_size_of_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank in (0, 1):
        with Recorder(tmp_path / "job", rank=rank) as recorder:
            for step in range(40):
                recorder.log(step, {"loss": 3.0 / (1 + step / 10)}, split="train")
    run = load(tmp_path / "job")
    assert run.config["world_size"] == 3
    (finding,) = [f for f in ranks(run).findings if f.kind == "rank-missing"]
    assert finding.evidence["world_size"] == 3
