"""A series of which a sample is left is told by its length and by how its steps are spread."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator
from tensorboard.backend.event_processing.reservoir import Reservoir

from analysis.hidden.sampled import reservoir_keeps, sample_of
from analysis.hidden_facts import hidden_facts
from parsers.loading import load
from parsers.tfevents.write import record, scalar_event
from tests.analysis.hidden.build import decay, found, run_of

KIND = "sampled-series"


@pytest.fixture(scope="module")
def download(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What TensorBoard itself keeps of 4,000 points at the size of its pages, in the columns of its CSV download."""
    folder = tmp_path_factory.mktemp("events")
    values = decay(4000, np.random.default_rng(0))
    events = b"".join(record(scalar_event("loss", float(v), 10 * i, 1.7e9 + i)) for i, v in enumerate(values))
    (folder / "events.out.tfevents.1700000000.host").write_bytes(events)
    accumulator = EventAccumulator(str(folder), size_guidance={SCALARS: 1000})
    accumulator.Reload()
    path = tmp_path_factory.mktemp("download") / "run-tag-loss.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["Wall time", "Step", "Value"])
        rows.writerows((e.wall_time, e.step, e.value) for e in accumulator.Scalars("loss"))
    return path


def test_a_download_of_tensorboard_is_known_by_the_very_points_that_it_keeps(download: Path):
    finding = found(load(download), KIND)
    assert finding is not None and finding.severity == "info"
    assert finding.evidence["reservoir_replayed"] is True
    assert (finding.evidence["points"], finding.evidence["logged_about"]) == (1000, 4000)
    assert (
        finding.evidence["steps_per_record"] == 10 and round(float(str(finding.evidence["share_missing"])), 3) == 0.75
    )
    assert "75% of what was logged is not here" in finding.message and "--samples_per_plugin" in finding.causes[0]


@given(st.integers(1, 300), st.integers(1, 60))
@settings(max_examples=100, deadline=None)
def test_the_reservoir_is_that_of_tensorboard(total: int, size: int):
    theirs = Reservoir(size)
    for item in range(total):
        theirs.AddItem("tag", item)
    assert reservoir_keeps(total, size).tolist() == theirs.Items("tag")


def test_every_random_sample_is_known_and_its_length_estimated():
    hits = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        size = int(rng.choice([500, 1000, 5000]))
        total = int(size * rng.choice([1.2, 1.5, 3, 10, 30]))
        kept = np.sort(rng.choice(total, size, replace=False))
        sample = sample_of(7 + kept * int(rng.integers(1, 500)))
        hits += sample is not None and abs(sample.total - total) <= 0.05 * total
    assert hits >= 98, hits  # the tests are set to err once in a thousand each


def irregular(kind: str, n: int, rng: np.random.Generator) -> np.ndarray:
    """Steps of logs that are irregular without being a sample."""
    if kind == "by the clock":  # a row a minute, with batches of varying time
        return np.cumsum(np.maximum(rng.normal(40, 8, n), 1).astype(int))
    if kind == "episodes":
        return np.cumsum(np.maximum(rng.gamma(4, 50, n), 1).astype(int))
    if kind == "episodes that lengthen":
        return np.cumsum(np.ceil(rng.exponential(np.linspace(10, 200, n))).astype(int))
    if kind == "every twentieth left out":
        at = np.arange(2 * n)
        return at[at % 20 != 19][:n]
    if kind == "two habits of leaving out":
        at = np.arange(3 * n)
        return at[(at % int(rng.integers(2, 40)) != 1) & (at % int(rng.integers(2, 40)) != 0)][:n]
    if kind == "dense, then sparse":
        return np.concatenate([np.arange(n // 2), n // 2 + 10 * np.arange(n - n // 2)])
    if kind == "powers":
        return np.cumsum(1 + np.arange(n) ** 2 // n)
    if kind == "one gap":
        return np.concatenate([np.arange(n // 2), n + np.arange(n - n // 2)])
    assert kind == "regular"
    return np.arange(n) * 25


@pytest.mark.parametrize(
    "kind",
    [
        "by the clock", "episodes", "episodes that lengthen", "every twentieth left out", "two habits of leaving out",
        "dense, then sparse", "powers", "one gap", "regular",
    ],
)  # fmt: skip
def test_logs_that_are_irregular_for_other_reasons_are_no_samples(kind: str):
    alarms = 0
    for seed in range(20):
        for size in (500, 1000, *([10_000] if seed < 2 else [])):
            rng = np.random.default_rng(seed)
            steps = irregular(kind, size, rng)
            alarms += len(steps) == size and found(run_of({"loss": (steps, decay(size, rng))}), KIND) is not None
    assert alarms == 0


def test_another_length_is_no_sign_unless_it_is_named():
    rng = np.random.default_rng(1)
    steps = np.sort(rng.choice(20_000, 1200, replace=False))
    run = run_of({"loss": (steps, decay(1200, rng))})
    assert found(run, KIND) is None
    named = hidden_facts(run, sample_sizes=(1200,)).findings
    assert [f.kind for f in named] == [KIND] and "a tool that keeps 1,200 points" in named[0].causes[0]


def test_series_that_were_sampled_together_are_one_finding():
    rng = np.random.default_rng(2)
    columns = {f"m{i}": (np.sort(rng.choice(9000, 500, replace=False)), decay(500, rng)) for i in range(20)}
    finding = found(run_of(columns), KIND)
    assert finding is not None and finding.evidence["series"] == 20
    assert finding.message.startswith("20 series hold exactly 500 points each")


@pytest.mark.parametrize("sizes", [(), (99,), (1000, 0)])
def test_sizes_that_short_logs_have_are_refused(sizes: tuple[int, ...]):
    with pytest.raises(ValueError, match="give one or more numbers of 100 points or more"):
        hidden_facts(run_of({}), sample_sizes=sizes)


def test_repeated_and_falling_steps_are_no_sample():
    steps = np.sort(np.random.default_rng(3).integers(0, 3000, 1000))
    assert sample_of(steps) is None and sample_of(steps[::-1]) is None


def test_short_logs_are_not_judged():
    reasons = {n.kind: n.reason for n in hidden_facts(run_of({"loss": [1.0] * 50})).not_applicable}
    assert reasons[KIND] == "no series has 500 points, the fewest that a sampling tool keeps"
