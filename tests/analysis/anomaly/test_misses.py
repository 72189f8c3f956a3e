"""What was once missed, or wrongly flagged: leaps in short logs, explosions in the first rows, rows of fewer steps."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from analysis.anomalies import anomalies
from analysis.anomaly import levels
from analysis.anomaly.residuals import Scale
from analysis.limits import Limits
from benchmarks.training_curves import curve, noise, run_of
from parsers.finish import finish


def alarms(result) -> list[tuple[str, str]]:
    return [(f.kind, f.severity) for f in result.findings if f.severity != "info"]


@pytest.mark.parametrize("n", [40, 120])
@pytest.mark.parametrize("rows", [1, 2])
def test_a_leap_to_four_times_the_level_is_found_in_a_short_log_of_many_series(n, rows):
    found = 0
    for seed in range(20):
        rng = np.random.default_rng([n, seed])
        loss = curve("exponential", n) * noise("heavy", 0.03, n, rng)
        loss[(place := n // 2) : place + rows] *= 4
        others = {f"part{k}_loss": curve("power", n) * noise("lognormal", 0.05, n, rng) for k in range(5)}
        result = anomalies(run_of({"loss": loss, **others}))
        found += [(f.kind, f.first_step) for f in result.findings if f.severity != "info"] == [("loss-spike", place)]
    assert found >= 19


def test_a_loss_that_explodes_in_its_first_rows_and_never_comes_back_has_diverged():
    rng = np.random.default_rng(0)
    loss = np.concatenate([[1.4, 3.3, 24, 26, 20, 16, 37, 25, 12, 10], np.full(50, 8.0)]) * noise(
        "lognormal", 0.02, 60, rng
    )
    assert alarms(anomalies(run_of({"loss": loss}))) == [("divergence", "critical")]


def test_a_mean_that_began_at_zero_creeps_up_and_has_not_diverged_from_its_first_row():
    mean, loss = 0.0, []
    for value in 2.0 * noise("lognormal", 0.05, 400, np.random.default_rng(0)):
        mean = 0.7 * mean + 0.3 * value
        loss.append(mean)
    assert alarms(anomalies(run_of({"loss": np.array(loss)}))) == []


@pytest.mark.parametrize("n", [60, 200, 1000])
@pytest.mark.parametrize("sigma", [0.0, 0.01, 0.05])
def test_a_loss_that_falls_and_climbs_smoothly_to_above_its_beginning_has_diverged(n, sigma):
    share = np.arange(n) / n
    for leap in (0.0, 1.2):  # with a leap in its first rows, whose long way back hides the climb, and without
        shape = np.where(share < 0.5, np.maximum(leap - 2.4 * (share - 0.03), -1.6 * share), 0.0)
        shape[share >= 0.5] = shape[share < 0.5][-1] + 2.4 * (share[share >= 0.5] - 0.5)
        shape[:2] = 0.0
        loss = 12 * np.exp(shape) * noise("lognormal", sigma, n, np.random.default_rng([n, 1]))
        (found,) = [f for f in anomalies(run_of({"loss": loss})).findings if f.kind == "divergence"]
        assert found.severity == "critical"
        assert 0.4 * n <= found.first_step <= 0.7 * n


@pytest.mark.parametrize("ends", [0.95, 1.2])
def test_a_loss_that_climbs_back_to_where_it_began_or_a_little_beyond_is_no_divergence_by_that(ends):
    share = np.arange(200) / 200
    loss = 2.0 * np.where(share < 0.5, 1 - 0.1 * share, 0.95 + (ends - 0.95) * (2 * share - 1))
    assert alarms(anomalies(run_of({"loss": loss * noise("lognormal", 0.05, 200, np.random.default_rng(0))}))) == []


@pytest.mark.parametrize("shape", ["flat", "power"])
def test_the_rule_for_a_last_climb_adds_no_alarm_to_losses_that_only_wander(shape, monkeypatch):
    logs = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        drift = np.zeros(60)
        for k in range(1, 60):
            drift[k] = 0.9 * drift[k - 1] + 0.2 * 0.19**0.5 * rng.normal()
        logs.append(curve(shape, 60) * np.exp(drift))
    scale = Scale("log")
    all_rules = [[r.shape for r in levels.level_changes(log, scale).changes] for log in logs]
    monkeypatch.setattr(levels, "_worse_than_begun", lambda *_: None)
    others = [[r.shape for r in levels.level_changes(log, scale).changes] for log in logs]
    assert all_rules == others


def test_first_rows_of_one_step_each_scatter_more_than_means_of_a_thousand():
    rng = np.random.default_rng(0)
    steps = np.r_[np.arange(1, 11), np.arange(1, 300) * 1000]
    spread = np.where(np.arange(len(steps)) < 10, 0.7, 0.02)
    loss = (40 + 4000 / (1 + steps / 50)) * np.exp(spread * rng.normal(size=len(steps)))
    rows = pl.DataFrame({"tag": ["Cost"] * len(steps), "step": steps, "value": loss})
    assert [f for f in anomalies(finish("r", "r", "text", rows)).findings if f.kind == "loss-spike"] == []


def test_a_spike_of_a_component_that_the_total_does_not_show_is_information():
    n = 600
    rng = np.random.default_rng(0)
    part = curve("power", n) * noise("lognormal", 0.03, n, rng)
    part[300] *= 3
    found = anomalies(run_of({"loss": curve("exponential", n) * noise("lognormal", 0.03, n, rng), "kd_loss": part}))
    assert found.status == "healthy" and ("loss-spike", "kd_loss") in {(f.kind, f.metric) for f in found.findings}


@pytest.mark.parametrize(("rows", "recovery"), [(1, "fast"), (4, "fast"), (12, "slow"), (40, "slow"), (None, "never")])
def test_the_recovery_of_a_spike_is_what_was_planted(rows, recovery):
    right = 0
    for seed in range(12):
        n = 1000
        rng = np.random.default_rng(seed)
        loss = curve(("exponential", "cosine", "power")[seed % 3], n) * noise("lognormal", 0.03, n, rng)
        first = 600 if rows is not None else n - 6
        loss[first : None if rows is None else first + rows] *= 3
        found = [f for f in anomalies(run_of({"loss": loss})).findings if f.kind == "loss-spike"]
        right += [f.evidence["recovery"] for f in found] == [recovery]
    assert right >= 11


def test_limits_that_a_project_sets_decide_over_spikes_and_shifts():
    n = 600
    loss = curve("flat", n) * noise("lognormal", 0.01, n, np.random.default_rng(0))
    loss[300] *= 1.6
    shifted = (
        np.where(np.arange(n) > 400, 1.7, 1.0)
        * curve("flat", n)
        * noise("lognormal", 0.01, n, np.random.default_rng(1))
    )
    assert alarms(anomalies(run_of({"loss": loss}))) == [("loss-spike", "warning")]
    assert alarms(anomalies(run_of({"loss": loss}), limits=Limits((("loss-spike", "loss", 2.0),)))) == []
    assert alarms(anomalies(run_of({"loss": shifted}))) == [("level-shift", "warning")]
    assert alarms(anomalies(run_of({"loss": shifted}), limits=Limits((("level-shift", "*", 2.0),)))) == []


def test_what_was_measured_is_told_of_every_loss_also_of_a_healthy_one():
    found = anomalies(run_of({"loss": curve("power", 500) * noise("lognormal", 0.02, 500, np.random.default_rng(0))}))
    measured = {m.kind: m.value for m in found.measures}
    assert set(measured) == {"loss-spike", "divergence", "level-shift"}
    assert all(1.0 <= value < 1.1 for value in measured.values())


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_few_rows_far_beyond_all_others_are_a_spike_in_a_short_log_however_low(rows: int) -> None:
    found = 0
    for seed in range(10):
        loss = np.linspace(2.1, 1.3, 90) * noise("lognormal", 0.02, 90, np.random.default_rng(seed))
        loss[32 : 32 + rows] *= 1.45
        told = [f for f in anomalies(run_of({"loss": loss})).findings if f.severity == "warning"]
        found += [(f.kind, f.first_step) for f in told] == [("loss-spike", 32)]
    assert found >= 9


@pytest.mark.parametrize("sort", ["heavy", "lognormal", "autocorrelated"])
def test_no_leap_stands_alone_in_the_noise_of_healthy_logs(sort: str) -> None:
    found = 0
    for seed in range(60):
        rng = np.random.default_rng([seed, 8])
        loss = np.linspace(2.1, 1.3, 90) * noise(sort, 0.05, 90, rng)
        found += any(f.severity != "info" for f in anomalies(run_of({"loss": loss})).findings)
    assert found <= 1


def test_a_leap_that_comes_down_little_by_little_is_a_spike_in_a_short_log() -> None:
    found = 0
    for seed in range(10):
        loss = np.linspace(0.14, 0.09, 150) * noise("lognormal", 0.025, 150, np.random.default_rng(seed))
        loss[85:] *= 1 + 1.5 * np.exp(-np.arange(65) / 2.0) + 0.3 * np.exp(-np.arange(65) / 6.0)
        told = [f for f in anomalies(run_of({"loss": loss})).findings if f.severity != "info"]
        found += [(f.kind, f.first_step) for f in told] == [("loss-spike", 85)]
    assert found >= 9
