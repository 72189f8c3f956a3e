"""The log as a log: planted holes, regressions, skews, stalls and cuts are found, the habits of logs are not."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from analysis.stream import stream
from parsers.finish import Reject, finish
from parsers.loading import load
from parsers.run import Run

SEEDS = 50
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
Floats = NDArray[np.float64]


def series(
    steps: NDArray[np.int64], seconds: Floats | None = None, *, tag: str = "loss", attempt: int = 0, rank: int = 0
) -> pl.DataFrame:
    """Rows of one series; `seconds` since the start of the run."""
    columns = {"tag": [tag] * len(steps), "step": steps, "attempt": attempt, "rank": rank, "value": 1.0}
    frame = pl.DataFrame(columns, schema_overrides={"attempt": pl.Int32, "rank": pl.Int32})
    micro = None if seconds is None else (seconds * 1e6).round().astype(np.int64)
    when = (
        pl.lit(None, pl.Datetime("us", "UTC"))
        if micro is None
        else pl.lit(START) + pl.Series(micro).cast(pl.Duration("us"))
    )
    return frame.with_columns(time=when.cast(pl.Datetime("us", "UTC")))


def run_of(*parts: pl.DataFrame, format: str = "jsonl", **more: object) -> Run:
    return finish("r", "r", format, pl.concat(parts), **more)  # type: ignore[arg-type]


def ticking(
    seed: int, n: int = 400, *, every: int = 10, spread: float = 0.3, usual: float = 2.0
) -> tuple[NDArray[np.int64], Floats]:
    """Steps in a rhythm and times with lognormal intervals, as a loader and a GPU make them."""
    rng = np.random.default_rng(seed)
    intervals = usual * np.exp(spread * rng.normal(size=n))
    return np.arange(1, n + 1) * every, np.cumsum(intervals)


def found(run: Run) -> dict[str, str]:
    return {f.kind: f.severity for f in stream(run).findings}


# ---- healthy logs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("n", [12, 100, 5000])
def test_a_steady_log_is_silent(spread: float, n: int):
    for seed in range(SEEDS):
        assert found(run_of(series(*ticking(seed, n, spread=spread, usual=5.0)))) == {}


def test_sparse_evaluation_has_its_own_rhythm_and_its_pauses_are_explained():
    for seed in range(SEEDS):
        steps, seconds = ticking(seed)
        pause = np.where(steps % 500 == 10, 300.0, 0.0)
        seconds = seconds + np.cumsum(pause)
        evals = steps[steps % 500 == 0]
        run = run_of(series(steps, seconds), series(evals, seconds[steps % 500 == 0] + 290, tag="eval_loss"))
        assert found(run) == {}
        frame = stream(run).frame
        assert frame.sort("split")["every"].to_list() == [10, 500] or frame["every"].to_list().count(10) == 1


def test_regular_pauses_without_any_event_are_a_habit():
    for seed in range(SEEDS):
        steps, seconds = ticking(seed)
        seconds = seconds + np.cumsum(np.where(np.arange(400) % 50 == 20, 200.0 + seed, 0.0))
        assert found(run_of(series(steps, seconds))) == {}


def test_compilation_before_the_second_record_is_no_stall():
    steps, seconds = ticking(0)
    seconds[1:] += 900
    assert found(run_of(series(steps, seconds))) == {}


def test_a_new_rhythm_and_regular_omissions_are_no_holes():
    slower = np.concatenate([np.arange(0, 5000, 10), np.arange(5000, 8000, 100)])
    omitted = np.array([s for s in range(0, 4000, 10) if s % 200])
    assert found(run_of(series(slower))) == found(run_of(series(omitted))) == {}


def test_a_first_step_out_of_rhythm_is_no_hole():
    assert found(run_of(series(np.array([1, *range(10, 3001, 10)])))) == {}


def test_irregular_logging_is_not_judged_for_missing_steps():
    rng = np.random.default_rng(0)
    result = stream(run_of(series(np.cumsum(rng.integers(1, 20, 300)))))
    assert result.status == "healthy" and "missing-steps" in {n.kind for n in result.not_applicable}


def test_a_resumed_run_goes_back_between_attempts_and_pauses_there_without_alarm():
    steps, seconds = ticking(0)
    again = series(steps[300:], seconds[300:] + 50_000, attempt=1)
    assert found(run_of(series(steps[:350], seconds[:350]), again)) == {}


def test_a_clock_that_never_moves_is_no_stall():
    assert found(run_of(series(np.arange(0, 1000, 10), np.zeros(100)))) == {}


def test_a_clock_of_whole_seconds_hides_no_stall():
    steps, seconds = ticking(0, 2000, usual=0.05)
    seconds[1000:] += 900
    assert found(run_of(series(steps, np.floor(seconds)))) == {"stall": "warning"}


def test_repeated_steps_are_no_fault():
    steps, seconds = ticking(1)
    assert "step-regression" not in found(run_of(series(np.repeat(steps, 2), np.repeat(seconds, 2))))


def test_a_metric_that_is_left_out_where_the_log_goes_on_leaves_no_hole():
    steps = np.arange(0, 4000, 10)
    lr = steps[(steps < 1000) | (steps > 1300)]
    loss = steps[(steps < 2000) | (steps > 2200)]
    assert found(run_of(series(loss), series(lr, tag="lr"))) == {}


# ---- planted faults -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [3, 20, 100])
def test_a_planted_hole_is_found_to_the_step(width: int):
    for seed in range(SEEDS):
        steps, seconds = ticking(seed)
        at = int(np.random.default_rng(seed).integers(50, 250))
        kept = np.r_[0:at, at + width : 400]
        result = stream(run_of(series(steps[kept], seconds[kept])))
        (finding,) = result.findings
        assert (finding.kind, finding.evidence["missing"]) == ("missing-steps", width)
        assert finding.severity == ("info" if width == 3 else "warning")
        assert (finding.first_step, finding.last_step) == (steps[at - 1], steps[at + width])
        assert result.frame["missing"].to_list() == [width]


@pytest.mark.parametrize(("lost", "severity"), [(3, "info"), (20, "warning")])
def test_steps_lost_between_two_attempts_are_found_with_their_cause(lost: int, severity: str):
    for seed in range(SEEDS):
        steps, seconds = ticking(seed)
        at = int(np.random.default_rng(seed).integers(50, 250))
        after = at + lost
        result = stream(run_of(series(steps[:at], seconds[:at]), series(steps[after:], seconds[after:], attempt=1)))
        (finding,) = result.findings
        assert (finding.kind, finding.severity, finding.evidence["missing"]) == ("missing-steps", severity, lost)
        assert (finding.first_step, finding.last_step) == (steps[at - 1], steps[after])
        assert "between the last save or flush of attempt 0 and the restart is lost" in finding.causes[0]
        assert result.frame["missing_before"].to_list() == [0, lost]


def test_a_hole_between_attempts_is_measured_from_the_furthest_of_all_earlier_ones():
    steps = np.arange(10, 1001, 10)
    first, short = series(steps[:60]), series(steps[20:30], attempt=1)
    assert found(run_of(first, short, series(steps[55:], attempt=2))) == {}
    (finding,) = stream(run_of(first, short, series(steps[80:], attempt=2))).findings
    assert (finding.first_step, finding.last_step, finding.evidence["attempt_before"]) == (600, 810, 0)


def test_a_resume_with_another_rhythm_is_no_hole_and_what_other_series_have_is_not_missing():
    steps = np.arange(10, 1001, 10)
    sparser = series(np.arange(500, 3000, 100), attempt=1)
    denser = series(np.arange(505, 900, 5), attempt=1)
    assert found(run_of(series(steps[:42]), sparser)) == found(run_of(series(steps[:50]), denser)) == {}
    apart = [series(steps[:50]), series(steps[70:], attempt=1)]
    assert found(run_of(*apart, series(steps[50:70], tag="lr"))) == {}
    (finding,) = stream(run_of(*apart, series(steps[50:58], tag="lr"))).findings
    assert (finding.evidence["missing"], finding.first_step) == (12, 580)


def test_a_random_sample_of_a_series_is_not_said_to_miss_steps():
    for seed in range(20):
        kept = np.sort(np.random.default_rng(seed).choice(1180, 1000, replace=False)) * 10
        result = stream(run_of(series(kept)))
        assert result.findings == () and result.frame["every"].to_list() == [None]
        (reason,) = [n.reason for n in result.not_applicable if n.kind == "missing-steps"]
        assert "only a random sample" in reason
        # one point less is no size that a tool leaves: then the steps are missing
        assert "missing-steps" in found(run_of(series(kept[:-1])))


def test_records_lost_at_random_are_counted():
    for seed in range(SEEDS):
        steps, _ = ticking(seed)
        kept = np.random.default_rng(seed).random(400) > 0.05
        kept[[0, -1]] = True
        missing = {f.kind: f.evidence for f in stream(run_of(series(steps[kept]))).findings}["missing-steps"]["missing"]
        assert missing == 400 - kept.sum()


def test_a_step_that_goes_back_within_an_attempt_is_found():
    for seed in range(SEEDS):
        steps, seconds = ticking(seed)
        steps[200:] -= 500
        (finding,) = stream(run_of(series(steps, seconds))).findings
        assert (finding.kind, finding.severity) == ("step-regression", "warning")
        assert (finding.evidence["from_step"], finding.evidence["to_step"]) == (2000, 1510)


def test_a_counter_within_epochs_is_told_as_what_it_is():
    steps = np.tile(np.arange(0, 1000, 10), 5)
    (finding,) = stream(run_of(series(steps))).findings
    assert (finding.kind, finding.severity) == ("step-regression", "info")
    assert "begins again" in finding.message


@pytest.mark.parametrize(("jump", "word"), [(-30.0, "goes back"), (-3600.0, "goes back"), (400 * 86400.0, "leaps")])
def test_a_clock_that_was_set_is_found(jump: float, word: str):
    for seed in range(SEEDS):
        steps, seconds = ticking(seed, spread=0.1)
        seconds[200:] += jump
        (finding,) = stream(run_of(series(steps, seconds))).findings
        assert finding.kind == "clock-skew" and word in finding.message
        assert finding.evidence["largest_s"] == pytest.approx(jump, abs=4) and finding.first_step == 2000


def test_milliseconds_back_are_the_order_of_writers():
    steps, seconds = ticking(0)
    seconds[100] = seconds[101] + 0.2
    assert found(run_of(series(steps, seconds))) == {}


@pytest.mark.parametrize("pause", [600.0, 7200.0])
@pytest.mark.parametrize("spread", [0.1, 0.5])
def test_a_planted_stall_is_found_where_it_was(pause: float, spread: float):
    for seed in range(SEEDS):
        steps, seconds = ticking(seed, spread=spread)
        at = int(np.random.default_rng(seed).integers(50, 350))
        seconds[at:] += pause
        (finding,) = stream(run_of(series(steps, seconds))).findings
        assert (finding.kind, finding.first_step) == ("stall", steps[at - 1])
        assert finding.severity == ("critical" if pause > 3600 else "warning")
        assert finding.evidence["longest_s"] == pytest.approx(pause, rel=0.05)


def test_an_evaluation_that_hangs_for_hours_is_a_stall_all_the_same():
    steps, seconds = ticking(0)
    evals = np.flatnonzero(steps % 500 == 0)
    for at in evals:
        seconds[at + 1 :] += 100
    seconds[evals[4] + 1 :] += 20_000
    run = run_of(series(steps, seconds), series(steps[evals], seconds[evals] + 90, tag="eval_loss"))
    assert found(run)["stall"] == "critical"


@pytest.mark.parametrize("eval_s", [0.5, 15.0])
def test_a_pause_is_not_excused_by_an_evaluation_that_is_over_in_seconds_elsewhere(eval_s: float):
    for seed in range(SEEDS):
        steps, seconds = ticking(seed, spread=0.05)
        evals = np.flatnonzero(steps % 200 == 0)
        for at in evals:
            seconds[at + 1 :] += eval_s
        place = evals[2 + seed % 5]
        seconds[place + 1 :] += 1500
        run = run_of(series(steps, seconds), series(steps[evals], seconds[evals] + eval_s, tag="eval_loss"))
        (finding,) = stream(run).findings
        assert (finding.kind, finding.severity, finding.first_step) == ("stall", "warning", steps[place])


def test_pauses_that_evaluations_explain_are_silent_where_some_are_long_or_the_first_compiles():
    for seed in range(SEEDS):
        steps, seconds = ticking(seed, spread=0.05)
        evals = np.flatnonzero(steps % 200 == 0)
        for count, at in enumerate(evals):
            seconds[at + 1 :] += 900.0 if count in (3, 9) else 15.0  # two of them also saved to a slow disk
        twice = run_of(series(steps, seconds), series(steps[evals], seconds[evals] + 15, tag="eval_loss"))
        assert found(twice) == {}
        steps, seconds = ticking(seed, spread=0.05)
        for count, at in enumerate(evals):
            seconds[at + 1 :] += 600.0 if count == 0 else 15.0
        first = run_of(series(steps, seconds), series(steps[evals], seconds[evals] + 15, tag="eval_loss"))
        assert found(first) == {}


# ---- what could not be read ---------------------------------------------------------------------------------------


def rejects(n: int, reason: str = "not JSON") -> list[Reject]:
    return [Reject("a.jsonl", reason, line=i + 1) for i in range(n)]


@pytest.mark.parametrize(("n", "severity"), [(0, None), (1, "info"), (20, "warning"), (200, "critical")])
def test_unreadable_lines_weigh_by_their_share(n: int, severity: str | None):
    run = run_of(series(*ticking(0)), rejects=rejects(n))
    assert found(run).get("truncated-stream") == severity


def test_a_cut_last_line_is_a_warning_that_names_its_place():
    run = run_of(series(*ticking(0)), rejects=[Reject("a.jsonl", "the last line is cut: eof", line=401)])
    (finding,) = stream(run).findings
    assert finding.severity == "warning" and "a.jsonl:401" in finding.message and finding.evidence["cut"] == 1


def test_a_doubt_about_a_record_that_was_read_is_no_loss():
    run = run_of(series(*ticking(0)), rejects=rejects(50, "'step' is 'x', not a whole number; read without its step"))
    assert found(run) == {}


@pytest.mark.parametrize(
    ("payload", "severity"), [(None, "warning"), ('{"status": "finished"}', None), ('{"status": "failed"}', "info")]
)
def test_an_event_stream_needs_its_end(payload: str | None, severity: str | None):
    events = None if payload is None else pl.DataFrame({"kind": ["end"], "payload": [payload], "step": [4000]})
    run = run_of(series(*ticking(0)), format="aftertrain", events=events)
    assert found(run).get("truncated-stream") == severity


def test_the_end_of_a_former_attempt_is_not_the_end():
    steps, seconds = ticking(0)
    events = pl.DataFrame({"kind": ["end"], "payload": ["{}"], "attempt": [0]})
    run = run_of(
        series(steps[:200], seconds[:200]),
        series(steps[200:], seconds[200:], attempt=1),
        format="aftertrain",
        events=events,
    )
    assert found(run) == {"truncated-stream": "warning"}


# ---- form -----------------------------------------------------------------------------------------------


def test_what_is_missing_in_the_log_is_not_judged():
    no_steps = pl.DataFrame({"tag": ["loss"] * 50, "value": [1.0] * 50})
    kinds = {n.kind for n in stream(run_of(no_steps)).not_applicable}
    assert kinds == {"missing-steps", "step-regression", "clock-skew", "stall"}


def test_ranks_and_attempts_have_their_own_rows():
    steps, seconds = ticking(0)
    parts = [series(steps + a, seconds, rank=r, attempt=a) for r, a in itertools.product((0, 1), (0, 1))]
    frame = stream(run_of(*parts)).frame
    assert frame.select("rank", "attempt").rows() == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert frame["usual_interval_s"].to_list() == pytest.approx([float(np.median(np.diff(seconds)))] * 4, rel=1e-3)


def test_the_plot_marks_the_stall():
    steps, seconds = ticking(0)
    seconds[200:] += 3000
    ax = stream(run_of(series(steps, seconds))).plot()
    marks = [line for line in ax.get_lines() if line.get_marker() == "v"]
    assert len(marks) == 1 and marks[0].get_xdata()[0] == 2000
    assert "stood still" in ax.get_title(loc="left") + ax.get_title()


def test_what_is_cut_off_is_placed_where_the_log_ends(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    rows = [json.dumps({"step": step, "loss": 1.0}) for step in range(0, 500, 10)]
    path.write_text("\n".join(rows) + '\n{"step": 500, "lo', encoding="utf-8")
    (finding,) = stream(load(path)).findings
    assert (finding.kind, finding.first_step) == ("truncated-stream", 490)
    rows.insert(20, "no json")
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    assert [f.first_step for f in stream(load(path)).findings if f.kind == "truncated-stream"] == [None]
