"""What explains an episode: a learning rate that rises where it begins, and none that rose long before."""

from __future__ import annotations

import numpy as np

from analysis.anomalies import anomalies
from benchmarks.training_curves import curve, noise, run_of


def test_a_rate_that_rises_in_cycles_explains_a_jump_where_it_rises_and_nowhere_else() -> None:
    rate = 1e-3 * (1 + np.cos(np.pi * (np.arange(600) % 60) / 60)) / 2
    for seed in range(10):
        for at, severity in ((360, "info"), (390, "warning")):
            loss = curve("exponential", 600) * noise("lognormal", 0.05, 600, np.random.default_rng(seed))
            loss[at:] *= 1.6
            shift = next(f for f in anomalies(run_of({"loss": loss, "lr": rate})).findings if f.metric == "loss")
            assert (shift.kind, shift.severity) == ("level-shift", severity), (seed, at)


def test_a_rise_that_begins_with_a_leap_begins_at_its_row_and_one_that_was_up_before_does_not() -> None:
    row = np.arange(600)
    for seed in range(12):
        calm = curve("exponential", 600) * noise("lognormal", 0.08, 600, np.random.default_rng(seed))
        leaps = calm * np.where(row < 430, 1.0, 2.5 + 4.0 * np.exp(-(row - 430) / 15))
        found = anomalies(run_of({"loss": leaps})).findings
        assert [f.first_step for f in found if f.metric == "loss" and f.severity != "info"][:1] == [430], seed
        up_before = calm * np.where(row < 430, 1.0, 2.5) * np.where(row == 470, 4.0, 1.0)
        shift = next(f for f in anomalies(run_of({"loss": up_before})).findings if f.kind == "level-shift")
        assert abs((shift.first_step or 0) - 430) <= 12, seed
