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
