"""Every fault that can be planted is found by the diagnosis, where it was planted, in a run that is healthy without."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

import aftertrain as at
from analysis.inject import FAULTS
from parsers.run import Run
from tests.analysis.injection.runs import falling, ranks, rich, sample, sources

CHARLM, DISTILLED, GAN = "charlm-healthy", "distillation-healthy-seed0", "gan-healthy"


def of(name: str) -> Callable[[], Run]:
    return lambda: sample(name)


#: Kind, a run that can show it, and the place. What the detectors miss at default size in some runs, and why, is in
#: docs/selftest.md: each kind stands here with runs in which it can be seen at all.
FOUND: list[tuple[str, str, Callable[[], Run], float]] = [
    ("truncated-stream", CHARLM, of(CHARLM), 0.6),
    ("missing-steps", CHARLM, of(CHARLM), 0.6),
    ("step-regression", CHARLM, of(CHARLM), 0.6),
    ("clock-skew", CHARLM, of(CHARLM), 0.6),
    ("stall", CHARLM, of(CHARLM), 0.3),
    ("unfinished-run", CHARLM, of(CHARLM), 0.6),
    ("repeated-data", CHARLM, of(CHARLM), 0.6),
    ("source-disagreement", "two logs", sources, 0.6),
    ("loss-spike", CHARLM, of(CHARLM), 0.3),
    ("loss-spike", CHARLM, of(CHARLM), 0.6),
    ("divergence", CHARLM, of(CHARLM), 0.3),
    ("divergence", "rich", rich, 0.6),
    ("level-shift", CHARLM, of(CHARLM), 0.6),
    ("plateau", "falling", falling, 0.5),
    ("oscillation", CHARLM, of(CHARLM), 0.6),
    ("variance-shift", "falling", falling, 0.6),
    ("non-finite", CHARLM, of(CHARLM), 0.9),
    ("hidden-non-finite", CHARLM, of(CHARLM), 0.6),
    ("outlier", CHARLM, of(CHARLM), 0.6),
    ("exploding-gradient", CHARLM, of(CHARLM), 0.6),
    ("vanishing-gradient", CHARLM, of(CHARLM), 0.6),
    ("dead-units", "rich", rich, 0.3),
    ("frozen-layer", "rich", rich, 0.6),
    ("clipping", "rich", rich, 0.6),
    ("amp-collapse", "rich", rich, 0.3),
    ("lr-schedule", CHARLM, of(CHARLM), 0.6),
    ("overfitting", CHARLM, of(CHARLM), 0.6),
    ("train-eval-gap", CHARLM, of(CHARLM), 0.3),
    ("train-eval-scale-mismatch", CHARLM, of(CHARLM), 0.6),
    ("suspiciously-good", CHARLM, of(CHARLM), 0.3),
    ("stale-values", CHARLM, of(CHARLM), 0.6),
    ("loss-sum-mismatch", DISTILLED, of(DISTILLED), 0.3),
    ("loss-display-mismatch", DISTILLED, of(DISTILLED), 0.3),
    ("weight-not-applied", DISTILLED, of(DISTILLED), 0.6),
    ("inactive-component", DISTILLED, of(DISTILLED), 0.6),
    ("curriculum-off-schedule", DISTILLED, of(DISTILLED), 0.6),
    ("curriculum-bypass", DISTILLED, of(DISTILLED), 0.3),
    ("missing-input", "rich", rich, 0.6),
    ("missing-output", "rich", rich, 0.6),
    ("forbidden-input", DISTILLED, of(DISTILLED), 0.6),
    ("device-mismatch", "rich", rich, 0.6),
    ("disabled-conditioning", "rich", rich, 0.6),
    ("rank-divergence", "ranks", ranks, 0.6),
    ("rank-missing", "ranks", ranks, 0.6),
    ("memory-growth", CHARLM, of(CHARLM), 0.6),
    ("memory-overflow", CHARLM, of(CHARLM), 0.6),
    ("throughput-drop", CHARLM, of(CHARLM), 0.6),
    ("mode-collapse", GAN, of(GAN), 0.6),
    ("discriminator-dominance", GAN, of(GAN), 0.6),
    ("generator-dominance", GAN, of(GAN), 0.6),
]


def test_every_fault_has_a_run_in_which_it_is_found():
    assert {kind for kind, *_ in FOUND} == set(FAULTS)


@pytest.mark.parametrize("run", [of(CHARLM), of(DISTILLED), of(GAN), rich, ranks, sources, falling])
def test_without_a_fault_these_runs_are_healthy(run: Callable[[], Run]):
    assert at.diagnose(run()).status == "healthy", at.diagnose(run())


@pytest.mark.parametrize(("kind", "name", "run", "place"), FOUND, ids=[f"{k} in {n} at {a}" for k, n, _, a in FOUND])
def test_a_planted_fault_of_default_size_is_found_at_its_onset(
    kind: str, name: str, run: Callable[[], Run], place: float
):
    fault, healthy = FAULTS[kind], run()
    planted = at.inject(healthy, kind, at=place)
    onset = json.loads(planted.events_of("injected")["payload"][0])["step"]
    diagnosis = at.diagnose(planted)
    named = [f for f in diagnosis.findings if f.kind == kind and (fault.info or f.severity != "info")]
    assert named, diagnosis
    steps = [f.first_step for f in named if f.first_step is not None]
    if onset is not None and steps:
        span = (healthy.last_step or 0) - 1
        assert min(abs(step - onset) for step in steps) <= fault.tolerance * span, (onset, steps)


def test_the_record_of_the_fault_alone_changes_no_judgement():
    run = sample(CHARLM)
    noted = at.inject(run, "level-shift", size=1.0)
    assert noted.scalars.equals(run.scalars) and noted.events.height == run.events.height + 1
    assert [f.to_dict() for f in at.diagnose(noted).findings] == [f.to_dict() for f in at.diagnose(run).findings]
