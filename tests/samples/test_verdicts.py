"""The diagnosis names the planted fault of every sample and is silent on every healthy twin."""

from __future__ import annotations

from pathlib import Path

import pytest

import aftertrain as at
from data.training.make import SAMPLES, Sample


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.name)
def test_the_verdict_of_a_sample_is_what_its_readme_says(sample: Sample, samples: Path):
    diagnosis = at.diagnose(at.load(samples / sample.name))
    found = {f.kind for f in diagnosis.findings}
    alarms = {f.kind for f in diagnosis.findings if f.severity != "info"}
    assert set(sample.kinds) <= found and alarms <= set(sample.kinds), diagnosis
    assert (diagnosis.status == "healthy") == (not sample.kinds)


def test_the_bypass_is_named_with_its_effective_weights(samples: Path):
    diagnosis = at.diagnose(at.load(samples / "distillation-bypass"), checks=["curriculum"])
    found = {f.metric: f.message for f in diagnosis.findings if f.kind == "curriculum-bypass"}
    told = " ".join(found.values())
    assert "routing_feature_matching" in told and "effective weight 0.0160" in told
    assert "routing_expert_importance" in told and "effective weight 0.500" in told


def test_the_spike_is_placed_at_its_step_and_the_overfitting_after_the_best(samples: Path):
    spike = at.diagnose(at.load(samples / "charlm-spike")).findings[0]
    assert (spike.kind, spike.first_step) == ("loss-spike", 520)
    overfit = at.diagnose(at.load(samples / "charlm-overfit")).findings[0]
    assert overfit.kind == "overfitting" and overfit.evidence["best_step"] == 200
