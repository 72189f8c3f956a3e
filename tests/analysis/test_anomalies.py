"""What `anomalies` says about runs whose truth is known, and about every odd input."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.anomalies import anomalies
from benchmarks.training_curves import curve, noise, run_of
from eventstream.errors import InputError
from parsers.finish import finish

ROOT = Path(__file__).parents[2]
JUDGED = {"non-finite", "outlier", "level-shift", "loss-spike", "divergence"}


def healthy(n: int, seed: int, *, kind: str = "exponential", sigma: float = 0.05) -> np.ndarray:
    return curve(kind, n) * noise("lognormal", sigma, n, np.random.default_rng(seed))


def told(result):
    return [f for f in result.findings if f.severity != "info"]


def only(result):
    found = told(result)
    assert len(found) == 1, result
    return found[0]


def test_a_one_step_spike_is_one_finding_with_its_numbers():
    loss = healthy(500, 1)
    loss[300] *= 4
    result = anomalies(run_of({"loss": loss}))
    finding = only(result)
    assert (finding.kind, finding.severity, finding.first_step, finding.last_step) == (
        "loss-spike",
        "warning",
        300,
        300,
    )
    assert finding.evidence["recovery"] == "fast"
    assert finding.evidence["recovery_steps"] == 1
    assert finding.evidence["factor"] == pytest.approx(4, rel=0.2)
    assert finding.evidence["score"] > finding.evidence["threshold"] > 3
    assert finding.evidence["scale"] == "log"
    row = result.frame.filter(pl.col("step") == 300).row(0, named=True)
    assert row["value"] == loss[300] > row["upper"] > row["expected"] > row["lower"] > 0


def test_a_long_spike_is_one_finding_that_says_when_the_loss_was_back():
    loss = healthy(2000, 2, sigma=0.1)
    loss[1200:1220] *= 2.5
    finding = only(anomalies(run_of({"loss": loss})))
    assert finding.kind == "loss-spike"
    assert 1195 <= finding.first_step <= 1205
    assert 1215 <= finding.last_step <= 1225
    assert finding.evidence["recovery"] == "slow"
    assert 15 <= finding.evidence["recovery_steps"] <= 25


def test_a_spike_seen_in_several_metrics_is_told_once_under_the_main_loss():
    rng = np.random.default_rng(3)
    loss, parts = healthy(400, 3), {}
    for name in ("kd_loss", "feature_loss"):
        parts[name] = curve("power", 400) * noise("lognormal", 0.05, 400, rng)
        parts[name][200] *= 5
    loss[200] *= 5
    finding = only(anomalies(run_of({"loss": loss, **parts})))
    assert finding.metric == "loss"
    assert finding.evidence["also_in"] == "feature_loss, kd_loss"


def test_many_spikes_are_a_handful_of_findings_and_a_count():
    loss = healthy(3000, 4)
    loss[100::100] *= 4
    found = told(anomalies(run_of({"loss": loss})))
    assert len(found) == 5
    assert any("25 more spikes" in f.message for f in found)


def test_a_spike_in_a_constant_series_is_a_spike():
    loss = np.full(200, 0.5)
    assert anomalies(run_of({"loss": loss})).findings == ()
    loss[77] = 50.0
    finding = only(anomalies(run_of({"loss": loss})))
    assert (finding.kind, finding.first_step) == ("loss-spike", 77)


def test_a_loss_that_jumps_and_stays_is_a_critical_level_shift():
    loss = healthy(1000, 5)
    loss[600:] *= 3
    finding = only(anomalies(run_of({"loss": loss})))
    assert (finding.kind, finding.severity) == ("level-shift", "critical")
    assert abs(finding.first_step - 600) <= 5
    assert finding.evidence["recovery"] == "never"


@pytest.mark.parametrize("n", [120, 1000, 20_000])
def test_a_loss_that_climbs_away_diverges(n):
    loss = healthy(n, 6, sigma=0.08)
    start = int(0.6 * n)
    loss[start:] *= np.exp(np.linspace(0, 2.5, n - start))
    found = told(anomalies(run_of({"loss": loss})))
    assert [f.kind for f in found] == ["divergence"]
    assert found[0].severity == "critical"
    assert abs(found[0].first_step - start) < 0.15 * n


def test_a_drop_at_a_learning_rate_decay_is_information():
    loss = healthy(1000, 7, kind="flat", sigma=0.03)
    loss[500:] *= 0.6
    result = anomalies(run_of({"loss": loss}))
    assert result.status == "healthy"
    (shift,) = [f for f in result.findings if f.kind == "level-shift"]
    assert abs(shift.first_step - 500) <= 3


def test_a_rise_that_a_weight_explains_is_information_with_that_cause():
    loss, weight = healthy(1000, 8, kind="flat", sigma=0.03), np.zeros(1000)
    loss[500:] *= 1.8
    weight[500:] = 0.5
    result = anomalies(run_of({"loss": loss, "curriculum/weight/kd": weight}))
    assert result.status == "healthy"
    assert any("curriculum/weight/kd went from 0 to 0.5" in cause for f in result.findings for cause in f.causes)


def test_a_phase_that_begins_near_a_rise_explains_it_although_weights_are_logged_rarely():
    for seed in range(20):
        loss = healthy(1200, seed, sigma=0.08)
        loss[600:] += 0.6
        run = run_of({"loss": loss})
        weights = pl.DataFrame(
            {"tag": "curriculum/weight/kd", "step": range(0, 1200, 50), "value": [0.2] * 12 + [0.9] * 12}
        )
        rows = pl.concat([run.scalars.select("tag", "step", "value"), weights], how="vertical_relaxed")
        result = anomalies(finish("r", "r", "jsonl", rows))
        assert not told(result), (seed, result)
        shift = next(f for f in result.findings if f.metric == "loss")
        assert any("curriculum/weight/kd went from 0.2 to 0.9" in cause for cause in shift.causes)


def test_the_players_of_a_gan_may_rise_and_stay():
    rise = 0.8 + 0.6 / (1 + np.exp(-(np.arange(3000) - 500) / 100))
    noisy = rise * noise("lognormal", 0.05, 3000, np.random.default_rng(5))
    assert not told(anomalies(run_of({"d_loss": noisy, "g_loss": 2.2 - rise})))
    assert [f.kind for f in told(anomalies(run_of({"loss": noisy})))], "the same curve as a plain loss is a fault"


def test_a_rising_eval_loss_is_left_to_the_judge_of_overfitting():
    loss = healthy(300, 9) * np.linspace(1, 4, 300)
    assert told(anomalies(run_of({"eval_loss": loss}))) == []


def test_causes_name_the_gradient_norm_that_peaked():
    loss, norm = healthy(500, 10), 2 * noise("lognormal", 0.2, 500, np.random.default_rng(10))
    loss[250:253] *= 3
    norm[249] = 40
    finding = next(f for f in anomalies(run_of({"loss": loss, "grad_norm": norm})).findings if f.kind == "loss-spike")
    assert "grad_norm peaked at 40" in finding.causes[0]


def test_causes_name_the_restart_that_came_before():
    loss = healthy(500, 11)
    loss[251:256] *= 3
    attempt = (np.arange(500) >= 250).astype(int)
    finding = only(anomalies(run_of({"loss": loss}, attempt=attempt)))
    assert "resumed at step 250" in finding.causes[0]


def test_without_evidence_the_cause_says_what_to_record():
    loss = healthy(500, 12)
    loss[250:253] *= 3
    assert only(anomalies(run_of({"loss": loss}))).causes == (
        "cannot tell from this log; record grad_norm and lr to know",
    )


def test_nan_that_spreads_is_one_critical_finding_that_names_what_was_first():
    loss, norm = healthy(300, 13), noise("lognormal", 0.2, 300, np.random.default_rng(13))
    norm[199:] = np.nan
    loss[200:] = np.nan
    finding = only(anomalies(run_of({"loss": loss, "kd_loss": loss.copy(), "grad_norm": norm})))
    assert (finding.kind, finding.severity, finding.metric, finding.first_step) == (
        "non-finite",
        "critical",
        "loss",
        199,
    )
    assert finding.evidence["stays"] is True
    assert finding.evidence["first_metric"] == "grad_norm"
    assert finding.causes == ("grad_norm was not finite first, at step 199",)


def test_a_lone_infinity_is_critical_and_does_not_hide_a_spike():
    loss = healthy(300, 14)
    loss[50], loss[200] = np.inf, loss[200] * 5
    found = {f.kind: f for f in told(anomalies(run_of({"loss": loss})))}
    assert set(found) == {"non-finite", "loss-spike"}
    assert found["non-finite"].evidence["stays"] is False
    assert found["loss-spike"].first_step == 200


def test_a_score_that_has_no_value_until_its_window_is_filled_is_information():
    scores = np.random.default_rng(3).normal(size=500)
    scores[:128] = np.nan
    result = anomalies(run_of({"loss": healthy(500, 3), "loss_z": scores, "step_time_ms": np.abs(scores)}))
    assert not told(result)
    (finding,) = [f for f in result.findings if f.kind == "non-finite"]
    assert "not defined before" in finding.causes[0]
    late = healthy(500, 3)
    late[:128] = np.nan
    assert only(anomalies(run_of({"loss": late}))).kind == "non-finite", "the loss itself has no such excuse"


def test_a_negative_loss_that_gives_back_a_hundredth_of_its_progress_has_not_diverged():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        loss = -0.69 + 0.7 * np.exp(-np.arange(2000) / 40) + 0.002 * rng.normal(size=2000)
        loss[1100:] += 0.006 * np.arange(900) / 900
        assert not told(anomalies(run_of({"loss": loss}))), seed
    assert told(anomalies(run_of({"loss": loss + np.where(np.arange(2000) > 1100, 0.5, 0.0)})))


def test_infinite_gradient_norms_of_a_loss_scaler_are_information():
    norm = noise("lognormal", 0.2, 300, np.random.default_rng(15))
    norm[:2] = np.inf
    result = anomalies(run_of({"loss": healthy(300, 15), "grad_norm": norm}))
    assert result.status == "healthy"
    assert "loss scaler" in next(f for f in result.findings if f.kind == "non-finite").causes[0]


@pytest.mark.parametrize(("first", "count", "status"), [(150, 2, "healthy"), (150, 5, "warning"), (0, 5, "healthy")])
def test_gradient_norms_that_stay_broken_are_more_than_a_loss_scaler_skips_but_for_its_search(first, count, status):
    norm = noise("lognormal", 0.2, 300, np.random.default_rng(15))
    norm[first : first + count] = np.nan
    result = anomalies(run_of({"loss": healthy(300, 15), "grad_norm": norm}))
    assert result.status == status
    assert [(f.kind, f.first_step) for f in result.findings] == [("non-finite", first)]


def test_a_gradient_norm_that_leaps_alone_is_information():
    norm = noise("lognormal", 0.2, 600, np.random.default_rng(16))
    norm[300] = 80
    result = anomalies(run_of({"loss": healthy(600, 16), "grad_norm": norm}))
    assert result.status == "healthy"
    assert [f.kind for f in result.findings] == ["outlier"]
    assert result.findings[0].evidence["count"] == 1


@pytest.mark.parametrize("n", [60, 400, 5000])
def test_schedules_and_counters_are_silent(n):
    t = np.arange(n)
    series = {
        "lr": np.where(t < n // 10, t / (n // 10), 0.5 * (1 + np.cos(np.pi * t / n))),
        "cosine": 0.5 * (1 + np.cos(np.pi * (t % (n // 3)) / (n // 3))),
        "temperature": np.where(t < n // 2, 1.0, 0.1),
        "anything": np.minimum(t / 10, 5.0),
        "epoch": (t // 20).astype(float),
        "curriculum/weight/kd": (t > n // 3) * 0.5,
        "momentum": np.full(n, 0.9),
        "batch_index": (t % 25).astype(float),
    }
    assert anomalies(run_of(series)).findings == ()


@pytest.mark.parametrize("digits", [2, 4])
def test_printed_digits_near_zero_are_no_spikes(digits):
    for seed in range(10):
        loss = curve("to_zero", 800) * noise("lognormal", 0.1, 800, np.random.default_rng(seed))
        assert told(anomalies(run_of({"loss": loss.round(digits)}))) == []


def test_accuracies_are_never_worse_than_information():
    rng = np.random.default_rng(17)
    accuracy = rng.binomial(32, 0.95 - 0.85 * np.exp(-np.arange(500) / 60)) / 32
    assert anomalies(run_of({"accuracy": accuracy, "loss": healthy(500, 17)})).status == "healthy"


@pytest.mark.parametrize("method", ["mad", "zscore", "iqr"])
@pytest.mark.parametrize("scope", ["rolling", "global"])
@pytest.mark.parametrize("causal", [False, True])
def test_every_method_finds_a_plain_spike_and_only_that(method, scope, causal):
    loss = healthy(600, 18, kind="flat")
    loss[400] *= 3
    result = anomalies(run_of({"loss": loss}), method=method, scope=scope, causal=causal)
    assert result.frame["step"].to_list() == [400]
    assert set(result.frame["method"]) == {method}


def test_the_textbook_rule_on_raw_values_is_the_textbook_rule():
    loss = healthy(400, 19)
    result = anomalies(run_of({"loss": loss}), method="zscore", scope="global", on="raw", threshold=3.0)
    scores = (loss - loss.mean()) / loss.std(ddof=1)
    assert result.frame["step"].to_list() == np.flatnonzero(np.abs(scores) > 3).tolist()
    np.testing.assert_allclose(result.frame["score"], scores[np.abs(scores) > 3])
    assert {n.kind for n in result.not_applicable} == {"loss-spike", "level-shift", "divergence"}


def test_rolling_z_scores_of_raw_values_are_those_of_pandas():
    import pandas as pd

    loss = healthy(800, 20)
    result = anomalies(run_of({"loss": loss}), method="zscore", on="raw", threshold=2.5, window=51)
    windows = pd.Series(loss).rolling(51, center=True, min_periods=2)
    scores = ((loss - windows.mean()) / windows.std()).to_numpy()
    assert result.frame["step"].to_list() == np.flatnonzero(np.abs(scores) > 2.5).tolist()


def test_fences_of_raw_values_are_those_of_tukey():
    loss = healthy(400, 21)
    result = anomalies(run_of({"loss": loss}), method="iqr", scope="global", on="raw", threshold=1.5)
    low, high = np.quantile(loss, [0.25, 0.75])
    outside = (loss < low - 1.5 * (high - low)) | (loss > high + 1.5 * (high - low))
    assert result.frame["step"].to_list() == np.flatnonzero(outside).tolist()
    np.testing.assert_allclose(result.frame["upper"], high + 1.5 * (high - low))


def test_the_dead_branch_of_a_resumed_run_is_not_judged():
    first, second = healthy(300, 22), healthy(300, 23)
    first[250] *= 9
    frame = pl.DataFrame(
        {
            "tag": ["loss"] * 500,
            "attempt": [0] * 300 + [1] * 200,
            "step": [*range(300), *range(100, 300)],
            "value": np.r_[first, second[100:]],
        }
    )
    assert told(anomalies(finish("resumed", "", "memory", frame))) == []


def test_splits_that_alternate_under_one_tag_are_judged_apart():
    train, evaluated = healthy(400, 30), 3 * healthy(400, 31)
    train[200] *= 5
    frame = pl.DataFrame(
        {
            "tag": ["loss"] * 800,
            "metric": ["loss"] * 800,
            "split": ["train", "eval"] * 400,
            "step": np.repeat(np.arange(400), 2),
            "value": np.stack([train, evaluated], axis=1).ravel(),
        }
    )
    finding = only(anomalies(finish("both", "", "memory", frame)))
    assert (finding.first_step, finding.evidence["split"], finding.evidence["n"]) == (200, "train", 400)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "sigma"}, "method must be one of mad, zscore, iqr, not 'sigma'"),
        ({"scope": "local"}, "scope must be one of rolling, global, not 'local'"),
        ({"on": "log"}, "on must be one of residual, raw, not 'log'"),
        ({"window": 3}, "window must be a whole number of at least 5 rows, not 3"),
        ({"threshold": 0}, "threshold must be a positive number, not 0"),
        ({"false_alarms": 1.5}, "false_alarms must lie between 0 and 1 (expected per run), not 1.5"),
    ],
)
def test_wrong_options_are_named_with_what_is_allowed(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        anomalies(run_of({"loss": np.ones(20)}), **options)


def test_an_unknown_metric_or_split_is_named_with_the_known_ones():
    run = run_of({"eval_loss": np.ones(20)})
    with pytest.raises(InputError, match="unknown metric 'los'; did you mean 'loss'"):
        anomalies(run, metrics=["los"])
    with pytest.raises(InputError, match="unknown split 'train'"):
        anomalies(run, split="train")


def test_what_could_not_be_judged_is_said():
    assert {n.kind for n in anomalies(run_of({})).not_applicable} == JUDGED
    short = anomalies(run_of({"loss": np.ones(5)}))
    assert "5 finite values" in short.not_applicable[0].reason
    assert {n.kind for n in anomalies(run_of({"accuracy": np.ones(50)})).not_applicable} == JUDGED - {
        "non-finite",
        "outlier",
    }


def test_the_frame_has_the_same_columns_whatever_was_found():
    loss = healthy(200, 24)
    empty = anomalies(run_of({})).frame
    loss[100] *= 6
    assert empty.schema == anomalies(run_of({"loss": loss})).frame.schema


def test_the_plot_shows_the_flagged_rows_and_says_the_finding():
    loss = healthy(300, 25)
    loss[150] *= 6
    result = anomalies(run_of({"loss": loss}))
    drawn = result.plot()
    assert drawn.get_title(loc="left") == result.findings[0].message
    points = next(line for line in drawn.lines if line.get_marker() == "o")
    assert points.get_xdata().tolist() == result.frame["step"].to_list()
    assert anomalies(run_of({})).plot().get_xlabel() == "step"


def test_a_small_log_loads_no_heavy_library():
    code = (
        "import sys, polars as pl; from parsers.finish import finish; from analysis.anomalies import anomalies;"
        "v = [2 - i / 500 + (i * 37 % 11) / 50 for i in range(500)]; v[100] = 9.0;"
        "anomalies(finish('a', '', 'm', pl.DataFrame({'tag': ['loss'] * 500, 'step': range(500), 'value': v})));"
        "print([m for m in ('numba', 'pandas', 'sklearn', 'matplotlib', 'scipy.stats', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


NUMBERS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True, width=64),
    st.sampled_from([0.0, -0.0, 5e-324, 1e-300, 1e300, 1.7e308, -1.7e308, 1.0, 1e-4, float("nan"), float("inf")]),
)


@settings(max_examples=80, deadline=None)
@given(
    values=st.lists(NUMBERS | st.just(2.5), max_size=70),
    steps=st.lists(st.none() | st.integers(-(2**40), 2**40) | st.just(7), min_size=70, max_size=70),
    tag=st.sampled_from(["loss", "grad_norm", "accuracy", "lr", "eval_loss", "x"]),
    method=st.sampled_from(["mad", "zscore", "iqr"]),
    scope=st.sampled_from(["rolling", "global"]),
    on=st.sampled_from(["residual", "raw"]),
    causal=st.booleans(),
)
def test_any_numbers_and_steps_give_a_result(values, steps, tag, method, scope, on, causal):
    frame = pl.DataFrame(
        {"tag": [tag] * len(values), "step": steps[: len(values)], "value": values},
        schema={"tag": pl.String, "step": pl.Int64, "value": pl.Float64},
    )
    result = anomalies(finish("any", "", "m", frame), method=method, scope=scope, on=on, causal=causal)
    outside = result.frame.filter(pl.col("value").is_between(pl.col("lower"), pl.col("upper")))
    assert outside.is_empty()
    if not np.isfinite(values).all() and values:
        assert "non-finite" in {f.kind for f in result.findings}
