"""What the user says of a series counts in every analysis: each asks the run, and none the name."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from analysis.anomalies import anomalies
from analysis.diagnose import diagnose
from analysis.gan import gan
from analysis.losses import losses
from analysis.report import report
from analysis.timeline import main_series
from analysis.train_eval_gap import train_eval_gap
from parsers.finish import finish
from parsers.run import Run


def run_of(values: dict[str, list[float]], every: dict[str, int] | None = None) -> Run:
    steps = every or {}
    rows = [(tag, i * steps.get(tag, 1), v) for tag, series in values.items() for i, v in enumerate(series)]
    table = pl.DataFrame(rows, schema={"tag": pl.String, "step": pl.Int64, "value": pl.Float64}, orient="row")
    return finish("r", "r.jsonl", "jsonl", table)


def falling(n: int, seed: int = 0, to: float = 0.5) -> list[float]:
    noise = random.Random(seed)
    return [(2.0 * np.exp(-4 * i / n) + to) * np.exp(0.02 * noise.gauss(0, 1)) for i in range(n)]


def turning(n: int) -> list[float]:
    """Falls to a third of the run, then rises: overfitting, where it is an eval loss."""
    return [1.0 + 1.5 * (i / n - 0.33) ** 2 for i in range(n)]


def kinds(result: object) -> set[str]:
    return {finding.kind for finding in result.findings}  # type: ignore[attr-defined]


def test_a_series_said_to_be_the_eval_loss_is_judged_for_overfitting() -> None:
    run = run_of({"loss": falling(400), "held_out": turning(40)}, {"held_out": 10})
    assert {n.kind for n in train_eval_gap(run).not_applicable} >= {"overfitting"}
    marked = train_eval_gap(run.with_roles({"held_out": "eval_loss"}))
    assert "overfitting" in kinds(marked) and marked.pairs[0].metric == "held_out" and marked.pairs[0].split == "eval"


def test_train_and_eval_of_different_names_meet_where_the_user_says_so() -> None:
    run = run_of({"train/energy": falling(400), "val/objective_b": turning(40)}, {"val/objective_b": 10})
    assert not train_eval_gap(run).pairs
    marked = run.with_roles({"energy": "train_loss", "val/objective_b": "eval_loss"})
    assert [(p.metric, p.split) for p in train_eval_gap(marked).pairs] == [("objective_b", "eval")]


def test_a_pair_said_to_be_scores_is_judged_the_other_way_round() -> None:
    run = run_of({"train/quality": falling(400), "val/quality": falling(40, 1)}, {"val/quality": 10})
    assert not train_eval_gap(run).pairs
    assert not train_eval_gap(run.with_roles({"quality": "accuracy"})).pairs[0].lower
    assert train_eval_gap(run.with_roles({"quality": "loss"})).pairs[0].lower


def test_a_series_said_to_be_no_loss_is_paired_no_longer() -> None:
    run = run_of({"train/loss": falling(200), "val/loss": falling(20, 1)}, {"val/loss": 10})
    assert train_eval_gap(run).pairs and not train_eval_gap(run.with_roles({"loss": "other"})).pairs


def test_a_spike_is_a_finding_where_the_series_is_said_to_be_a_loss() -> None:
    values = falling(400)
    values[250] *= 8
    run = run_of({"energy": values})
    assert kinds(anomalies(run)) == {"outlier"}
    found = anomalies(run.with_roles({"energy": "loss"})).findings
    assert [(f.kind, f.severity) for f in found] == [("loss-spike", "warning")]


def test_a_spike_of_what_is_said_to_follow_a_rule_is_silent() -> None:
    values = falling(400)
    values[250] *= 8
    run = run_of({"schedule_loss": values})
    assert kinds(anomalies(run)) == {"loss-spike"} and not anomalies(run.with_roles({"schedule_*": "weight"})).findings


def test_a_rise_of_what_is_said_to_be_the_eval_loss_is_no_divergence() -> None:
    values = [*falling(200), *(0.6 * 1.02**i for i in range(200))]
    run = run_of({"loss": falling(400), "held_loss": values})
    bad = {"divergence", "level-shift"}
    assert kinds(anomalies(run)) & bad and not kinds(anomalies(run.with_roles({"held_loss": "eval_loss"}))) & bad


def test_lightnings_loss_of_each_step_is_judged() -> None:
    values = falling(400)
    values[250] *= 8
    assert kinds(anomalies(run_of({"train/loss_step": values}))) == {"loss-spike"}


def test_infinite_values_of_what_is_said_to_be_a_gradient_norm_are_those_of_a_loss_scaler() -> None:
    norms = [1.0 + 0.01 * (i % 7) for i in range(400)]
    norms[100] = float("inf")
    run = run_of({"loss": falling(400), "size": norms})
    before, after = anomalies(run), anomalies(run.with_roles({"size": "grad_norm"}))
    assert [f.severity for f in before.findings if f.kind == "non-finite"] == ["warning"]
    assert [f.severity for f in after.findings if f.kind == "non-finite"] == ["info"]


def test_the_players_of_a_gan_are_whom_the_user_says() -> None:
    run = run_of({"alpha": [1.2 * 0.98**i for i in range(200)], "beta": [0.7 * 1.02**i for i in range(200)]})
    assert gan(run).frame.is_empty()
    health = gan(run.with_roles({"alpha": "discriminator_loss", "beta": "generator_loss"}))
    assert set(health.signals) == {"discriminator_loss", "generator_loss"}
    assert "discriminator-dominance" in kinds(health)


def test_the_collapse_of_what_is_said_to_be_diversity_is_found() -> None:
    run = run_of({"spread_of_samples": [0.9] * 60 + [0.05] * 40})
    assert kinds(gan(run.with_roles({"spread_of_samples": "diversity"}))) == {"mode-collapse"}


def test_the_sum_of_the_losses_is_that_of_the_parts_that_the_user_names() -> None:
    n = 60
    one, two = falling(n, 1), falling(n, 2)
    whole = [a + b + (0.5 if i == 30 else 0.0) for i, (a, b) in enumerate(zip(one, two, strict=True))]
    run = run_of({"energy": whole, "near": one, "far": two})
    assert losses(run).frame.is_empty()
    marked = losses(run.with_roles({"energy": "train_loss", "near": "component_loss", "far": "component_loss"}))
    assert kinds(marked) == {"loss-sum-mismatch"} and set(marked.frame["component"]) == {"near", "far"}


def test_a_part_said_to_be_none_is_left_out_of_the_sum() -> None:
    n = 60
    one, two, apart = falling(n, 1), falling(n, 2), falling(n, 3)
    run = run_of({
        "loss": [a + b for a, b in zip(one, two, strict=True)],
        "kd_loss": one, "mel_loss": two, "monitor_loss": apart,
    })  # fmt: skip
    assert set(losses(run.with_roles({"monitor_loss": "other"})).frame["component"]) == {"kd", "mel"}


def test_the_picture_and_the_report_show_what_stands_for_the_run() -> None:
    run = run_of({"loss": falling(100), "energy": falling(100, 1)})
    marked = run.with_roles({"energy": "train_loss"})
    assert main_series(run) == ("loss", "") and main_series(marked) == ("energy", "")
    assert diagnose(marked).plot().get_ylabel() == "energy"
    before, after = report(run, format="html").text, report(marked, format="html").text
    assert 'aria-label="loss from' in before and 'aria-label="energy from' in after, "its curve is drawn large"
    assert 'aria-label="energy from' not in before
    assert 'Losses <span class="quiet">(1)' in before and 'Losses <span class="quiet">(2)' in after


def test_the_main_series_of_a_run_is_no_part_of_a_loss_where_there_is_the_whole() -> None:
    assert main_series(run_of({"kd_loss": falling(100), "loss": falling(100)})) == ("loss", "")
    assert main_series(run_of({"b_loss": falling(100), "a_loss": falling(50)})) == ("b_loss", "")
    assert main_series(run_of({"foo": falling(10), "bar": falling(50)})) == ("bar", "")
    assert main_series(run_of({})) is None


@pytest.mark.parametrize("name", ["charlm-healthy", "gan-healthy", "distillation-healthy-seed0", "charlm-spike"])
def test_saying_what_is_so_anyway_changes_no_verdict(samples: Path, name: str) -> None:
    from parsers.loading import load

    run = load(samples / name)
    said = {one.tag: one.role or "other" for one in run.roles}
    before, after = diagnose(run), diagnose(run.with_roles(said))
    assert [(f.kind, f.severity, f.metric, f.message) for f in before.findings] == [
        (f.kind, f.severity, f.metric, f.message) for f in after.findings
    ]
