from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import nnls

from analysis.accounting.plain_losses import explain_total
from analysis.curriculum import curriculum
from analysis.losses import losses

PARTS = ["kd", "feature", "attention"]


def plain(logs: SimpleNamespace, seed: int, weights: dict[str, float], rows: int = 80) -> dict[str, np.ndarray]:
    raw = logs.raws(seed, rows, PARTS, noise=0.2)
    return {f"{n}_loss": raw[n] for n in PARTS} | {"loss": sum(weights[n] * raw[n] for n in PARTS)}


@pytest.mark.parametrize("name", ["{}_loss", "loss/{}", "train/{}_loss", "losses/{}"])
def test_components_are_found_under_any_usual_name(logs: SimpleNamespace, name: str) -> None:
    columns = plain(logs, 0, {"kd": 0.7, "feature": 0.1, "attention": 0.2})
    prefix = "train/" if name.startswith("train/") else ""
    named = {name.format(n): columns[f"{n}_loss"] for n in PARTS} | {f"{prefix}loss": columns["loss"]}
    result = losses(logs.run_of(named, np.arange(80)))
    assert result.findings == ()
    assert result.explanation.startswith("the total is explained by ")
    for term in ("0.7 x kd", "0.1 x feature", "0.2 x attention"):
        assert term in result.explanation


def test_a_plain_sum_that_breaks_off_is_found_from_there_on(logs: SimpleNamespace) -> None:
    for seed in range(20):
        columns = plain(logs, seed, dict.fromkeys(PARTS, 1.0))
        assert losses(logs.run_of(columns, np.arange(80))).findings == ()
        columns["loss"] = columns["loss"] * np.where(np.arange(80) >= 75, 1.5, 1.0)
        (finding,) = losses(logs.run_of(columns, np.arange(80))).findings
        assert (finding.kind, finding.first_step, finding.last_step) == ("loss-sum-mismatch", 75, 79)
        assert finding.severity == "warning"


def test_what_does_not_make_up_the_total_is_not_judged(logs: SimpleNamespace) -> None:
    loud = 0
    for seed in range(30):
        columns = plain(logs, seed, dict.fromkeys(PARTS, 1.0))
        columns["loss"] = logs.raws(seed + 1000, 80, ["other"], noise=0.2)["other"]
        result = losses(logs.run_of(columns, np.arange(80)))
        loud += len(result.findings) + bool(result.explanation)
        assert "no constant weights explain the total" in result.not_applicable[0].reason
    assert loud == 0


def test_planned_weights_turn_a_plain_log_into_an_account(logs: SimpleNamespace) -> None:
    plan = {"loss_weights": {"kd": 0.7, "feature": 0.1, "attention": 0.0}}
    healthy = logs.run_of(plain(logs, 0, plan["loss_weights"]), np.arange(80), plan=plan)
    assert losses(healthy).status == curriculum(healthy).status == "healthy"
    assert logs.kinds(curriculum(healthy)) == []
    columns = plain(logs, 0, {"kd": 0.7, "feature": 0.1, "attention": 0.05})
    (bypass,) = curriculum(logs.run_of(columns, np.arange(80), plan=plan)).bypasses
    assert bypass.component == "attention" and bypass.weight == pytest.approx(0.05, rel=1e-4)


def test_a_generator_and_a_discriminator_without_a_total_are_not_judged(logs: SimpleNamespace) -> None:
    raw = logs.raws(0, 50, ["g_loss", "d_loss"])
    result = losses(logs.run_of(raw, np.arange(50)))
    assert result.findings == () and len(result.not_applicable) == 4


def test_total_and_components_at_different_steps_are_not_judged(logs: SimpleNamespace) -> None:
    columns = plain(logs, 0, dict.fromkeys(PARTS, 1.0))
    parts = logs.run_of({k: v for k, v in columns.items() if k != "loss"}, np.arange(80) * 2)
    total = logs.run_of({"loss": columns["loss"]}, np.arange(80) * 2 + 1)
    import polars as pl

    from parsers.finish import finish

    both = finish("demo", "demo", "jsonl", pl.concat([parts.scalars, total.scalars]).drop("metric", "split"))
    result = losses(both)
    assert result.findings == () and "never logged at the same step" in result.not_applicable[0].reason


@pytest.mark.parametrize("seed", range(10))
def test_inferred_weights_agree_with_scipy_s_nonnegative_least_squares(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = np.exp(rng.standard_normal((100, 4)))
    total = parts @ [0.7, 0.0, 0.2, -0.05] + 0.01 * rng.standard_normal(100)
    weights, r2 = explain_total(total, parts)
    expected, _ = nnls(parts, total)
    assert weights == pytest.approx(expected, abs=1e-3)
    left = total - parts @ np.array(weights)
    assert r2 == pytest.approx(1 - left @ left / np.sum((total - total.mean()) ** 2))
