"""Eval values carried forward are told from metrics that stand still for reasons of their own."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.hidden.carried import carried_values, evaluations_of
from analysis.hidden_facts import hidden_facts
from analysis.train_eval_gap import train_eval_gap
from parsers.run import Run
from tests.analysis.hidden.build import decay, found, run_of

KIND = "stale-values"


def carried_run(
    evaluations: int, every: int, seed: int, *, rise: float = 0.0, decimals: int | None = None
) -> tuple[Run, Run]:
    """A dense log that carries its eval values, and the same training with each evaluation logged once."""
    rng = np.random.default_rng(seed)
    n = evaluations * every
    train, value = decay(n, rng), decay(evaluations, rng, noise=0.04)
    value *= 1 + rise * np.maximum(0, np.arange(evaluations) / evaluations - 0.5)
    score = 1 / (1 + value) * np.exp(0.01 * rng.standard_normal(evaluations))
    if decimals is not None:
        value, score = np.round(value, decimals), np.round(score, decimals)
    dense = {"loss": train, "val_loss": np.repeat(value, every), "val_acc": np.repeat(score, every)}
    at = np.arange(0, n, every)
    return run_of(dense), run_of({"loss": train, "val_loss": (at, value), "val_acc": (at, score)})


def test_carried_values_are_found_with_the_true_number_of_evaluations():
    finding = found(carried_run(20, 25, 0)[0], KIND)
    assert finding is not None and finding.severity == "info" and finding.metric == "loss"
    assert finding.evidence["evaluations"] == 20 and finding.evidence["repeats"] == 480
    assert finding.evidence["rows_per_evaluation"] == 25 and finding.evidence["metrics_that_change_together"] == 2
    assert "stands on 500 rows but was evaluated 20 times (every 25th row)" in finding.message


def test_carried_values_are_found_and_single_evaluations_never():
    hits = alarms = 0
    for seed in range(200):
        rng = np.random.default_rng(seed + 1000)
        dense, sparse = carried_run(int(rng.integers(5, 80)), int(rng.integers(5, 60)), seed)
        finding = found(dense, KIND)
        hits += finding is not None and finding.evidence["evaluations"] == sparse.series("loss", split="eval").height
        alarms += found(sparse, KIND) is not None
    assert (hits, alarms) == (200, 0)


def test_values_printed_with_two_decimals_are_found_where_blocks_keep_their_rhythm():
    for every in (2, 10, 100):
        findings = [found(carried_run(40, every, seed, decimals=2)[0], KIND) for seed in range(20)]
        assert [f.evidence["rows_per_evaluation"] for f in findings if f is not None] == [every] * 20
    assert found(carried_run(15, 50, 0, decimals=1)[0], KIND) is None, "with one decimal nothing is certain"


def test_evaluations_at_odd_rows_are_found():
    rng = np.random.default_rng(7)
    lengths = rng.integers(5, 40, 30)  # by the clock, say
    value = np.repeat(decay(30, rng), lengths)
    finding = found(run_of({"loss": decay(len(value), rng), "val_loss": value}), KIND)
    assert finding is not None and finding.evidence["evaluations"] == 30 and finding.evidence["regular"] is False


def test_three_evaluations_on_many_rows_are_a_warning():
    value = np.repeat([1.2345678, 1.1234567, 1.0456789], 50)
    finding = found(run_of({"loss": decay(150, np.random.default_rng(1)), "val_loss": value}), KIND)
    assert finding is not None and finding.severity == "warning" and finding.evidence["evaluations"] == 3


def test_metrics_evaluated_at_every_row_are_never_stale():
    alarms = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        n, samples = int(rng.integers(50, 600)), int(rng.integers(10, 500))
        loss = decay(n, rng, noise=float(rng.choice([0.001, 0.02, 0.2])))
        right = rng.binomial(samples, np.clip(0.9 - loss / 4, 0, 1))
        columns = {
            "loss": decay(n, rng),
            "val_loss": np.round(loss, int(rng.integers(1, 5))),
            "val_acc": right / samples,
            "val_error": 1 - right / samples,
            "val_f1": np.round(right / samples, 2),
        }
        alarms += found(run_of(columns), KIND) is not None
    assert alarms == 0


@pytest.mark.parametrize(
    "values",
    [
        np.full(300, 0.5),
        np.full(300, np.nan),
        np.concatenate([decay(100, np.random.default_rng(0)), np.full(200, 0.4123456789)]),
        np.round(np.linspace(2.0, 1.0, 500), 2),
        np.round(np.linspace(2.0, 1.0, 500), 3),
        np.round(1 - np.exp(-np.arange(500) / 100), 2),
        np.repeat([0.1, 0.2], 100),
    ],
    ids=["constant", "all NaN", "converged", "ramp", "fine ramp", "saturating", "two values"],
)
def test_a_metric_that_stands_still_for_its_own_reasons_is_not_stale(values: np.ndarray):
    assert found(run_of({"loss": decay(len(values), np.random.default_rng(2)), "val_acc": values}), KIND) is None


def test_a_best_so_far_is_not_stale():
    rng = np.random.default_rng(3)
    value = decay(400, rng, noise=0.3)
    best = np.minimum.accumulate(value)
    columns = {"loss": decay(400, rng), "val_loss": value, "val_best_loss": best, "eval/min_loss": best}
    assert found(run_of(columns), KIND) is None


def test_rows_that_are_written_several_times_are_not_called_stale_eval_values():
    rng = np.random.default_rng(4)
    columns = {"loss": np.repeat(decay(40, rng), 8), "val_loss": np.repeat(decay(40, rng), 8)}
    assert found(run_of(columns), KIND) is None


def test_rows_before_the_first_evaluation_do_not_matter():
    rng = np.random.default_rng(5)
    value = np.concatenate([np.full(25, np.nan), np.repeat(decay(20, rng), 25)])
    finding = found(run_of({"loss": decay(525, rng), "val_loss": value}), KIND)
    assert finding is not None and finding.evidence["rows_per_evaluation"] == 25


def test_few_rows_are_not_judged():
    reasons = {n.kind for n in hidden_facts(run_of({"loss": [1.0] * 5, "val_loss": [1.0] * 5})).not_applicable}
    assert KIND in reasons


@given(st.lists(st.sampled_from([0.5, 0.25, 1.0, float("nan")]), min_size=2, max_size=60), st.booleans())
@settings(max_examples=200, deadline=None)
def test_the_starts_are_those_of_a_plain_walk_over_the_values(values: list[float], loss: bool):
    stale = carried_values(np.repeat(values, 7), loss=loss)
    if stale is None:
        return
    keys = [str(v) for v in np.repeat(values, 7)]
    starts, place = [], 0
    for _, block in groupby(keys):
        starts.append(place)
        place += len(list(block))
    assert stale.starts.tolist() == starts and stale.repeats == len(keys) - len(starts)


def test_the_plain_walk_is_met_by_found_cases_too():
    values = decay(30, np.random.default_rng(6))
    assert evaluations_of(np.repeat(values, 7), loss=True).tolist() == list(range(0, 210, 7))


def test_train_against_eval_judges_the_true_evaluations():
    for seed in range(12):
        for evaluations in (4, 10, 20):
            for rise in (0.0, 2.0):
                dense, sparse = carried_run(evaluations, 25, seed, rise=rise)
                judged, truth = train_eval_gap(dense, metric="loss"), train_eval_gap(sparse, metric="loss")
                assert judged.frame.drop("epoch").equals(truth.frame.drop("epoch")), (seed, evaluations)
                assert [f.to_dict() for f in judged.findings] == [f.to_dict() for f in truth.findings]
                assert [n.kind for n in judged.not_applicable] == [n.kind for n in truth.not_applicable]


def test_the_frame_says_evaluations_and_rows():
    frame = hidden_facts(carried_run(20, 25, 0)[0]).frame.filter(pl.col("kind") == KIND)
    assert frame.select("verdict", "split", "points", "count", "every").row(0) == ("found", "eval", 500, 20, 25.0)
