"""`convergence` of whole runs: what is found, how severe it is in its company, and that every run gives a result."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.convergence import Convergence, convergence
from analysis.kinds import KINDS
from analysis.limits import Limits
from benchmarks.training_curves import curve, noise
from parsers.finish import finish
from parsers.run import Run


def run_of(columns: dict[str, Any], *, every: int = 1, config: dict[str, Any] | None = None, **more: Any) -> Run:
    frames = []
    for tag, values in columns.items():
        numbers = np.asarray(values, dtype=float)
        beside = {name: np.asarray(value)[: len(numbers)] for name, value in more.items()}
        step = np.arange(len(numbers)) * every
        frames.append(pl.DataFrame({"tag": [tag] * len(numbers), "step": step, "value": numbers, **beside}))
    return finish("r", "r.jsonl", "jsonl", pl.concat(frames), config=config or {})


def steady(n: int, level: float = 2.3, sigma: float = 0.02, seed: int = 0) -> np.ndarray:
    return level * noise("lognormal", sigma, n, np.random.default_rng(seed))


def falling(n: int, sigma: float = 0.03, seed: int = 0) -> np.ndarray:
    return curve("exponential", n) * noise("lognormal", sigma, n, np.random.default_rng(seed))


def told(result: Convergence) -> list[tuple[str, str]]:
    return [(f.kind, f.severity) for f in result.findings]


def swinging(n: int, period: float, size: float = 0.2) -> np.ndarray:
    return falling(n) * np.exp(size * np.sin(2 * np.pi * np.arange(n) / period))


def test_a_learning_rate_of_zero_throughout_is_critical_however_noisy_the_loss():
    found = convergence(run_of({"loss": steady(60, 1.5, 0.1), "lr": [0.0] * 60}))
    assert told(found) == [("plateau", "critical")]
    assert "learning rate is 0" in found.findings[0].causes[0]


def test_a_loss_that_never_improves_is_a_warning_with_what_its_noise_leaves_open():
    found = convergence(run_of({"loss": steady(500), "lr": [1e-3] * 500}))
    assert told(found) == [("plateau", "warning")]
    evidence = found.findings[0].evidence
    assert 0 < evidence["improvement_at_most"] <= evidence["limit"] == 0.03
    assert [(m.kind, m.metric) for m in found.measures][:1] == [("plateau", "loss")]


def test_the_loss_of_a_guess_is_named_by_the_classes_of_the_configuration():
    found = convergence(run_of({"loss": steady(500, math.log(37))}, config={"model": {"num_classes": 37}}))
    assert "ln(37)" in found.findings[0].causes[0] and "num_classes" in found.findings[0].causes[0]


def test_a_fine_tune_that_starts_converged_is_information():
    config = {"model_name_or_path": "base-7b", "lora_r": 8}
    assert told(convergence(run_of({"loss": steady(500)}, config=config))) == [("plateau", "info")]


def test_a_log_that_begins_in_the_middle_of_a_training_is_information():
    rows = pl.DataFrame({"tag": ["loss"] * 500, "step": np.arange(90_000, 90_500), "value": steady(500)})
    assert told(convergence(finish("r", "r", "jsonl", rows))) == [("plateau", "info")]


def test_a_loss_that_is_exactly_constant_is_found_also_at_zero():
    for level in (0.0, 1.0):
        assert told(convergence(run_of({"loss": [level] * 200}))) == [("plateau", "warning")]


@pytest.mark.parametrize("rest", [0.0, 1e-9])
def test_a_rate_that_ends_long_before_the_run_is_a_warning_at_its_step(rest):
    n = 400
    loss = np.where(np.arange(n) < 150, falling(n), falling(n)[150])
    found = convergence(run_of({"loss": loss * steady(n, 1.0), "lr": np.where(np.arange(n) < 150, 1e-3, rest)}))
    assert told(found) == [("plateau", "warning")] and found.findings[0].first_step == 150
    assert "62 % of the run" in found.findings[0].message


def test_weights_that_stand_still_to_the_last_digit_are_a_warning_at_their_step():
    n = 400
    loss = np.where(np.arange(n) < 200, falling(n), falling(n)[200]) * steady(n, 1.0, 0.1)
    norm = 30 + np.cumsum(np.where(np.arange(n) < 200, 0.01, 0.0) * np.random.default_rng(0).normal(size=n))
    found = convergence(run_of({"loss": loss, "param_norm": norm}))
    assert told(found) == [("plateau", "warning")] and abs(found.findings[0].first_step - 200) <= 1
    rounded = convergence(run_of({"loss": falling(n), "param_norm": (30 + 0.0001 * np.arange(n)).round(2)}))
    assert told(rounded) == []


def test_a_rate_of_zero_at_first_is_a_warning_until_it_begins():
    n = 400
    begins = np.maximum(np.arange(n) - 150, 0)
    loss = (0.5 + 2.5 * np.exp(-begins / 60)) * steady(n, 1.0)
    found = convergence(run_of({"loss": loss, "lr": np.where(np.arange(n) < 150, 0.0, 1e-3)}))
    assert told(found) == [("plateau", "warning")]
    assert (found.findings[0].first_step, found.findings[0].last_step) == (0, 149)


def test_the_last_steps_of_a_schedule_are_no_rest():
    n = 1000
    rate = 1e-3 * (1 + np.cos(np.pi * np.arange(n) / (n - 1))) / 2
    assert told(convergence(run_of({"loss": falling(n), "lr": rate}))) == []


def test_a_rate_that_was_rounded_to_zero_while_the_loss_falls_is_none():
    assert "critical" not in dict(told(convergence(run_of({"loss": falling(400), "lr": [0.0] * 400})))).values()


def test_a_stop_is_a_warning_and_information_where_the_rate_decays():
    n = 1000
    loss = np.where(np.arange(n) < 500, 3 - 0.003 * np.arange(n), 1.5) * steady(n, 1.0, 0.01)
    held = convergence(run_of({"loss": loss, "lr": [1e-3] * n}))
    assert told(held) == [("plateau", "warning")] and abs(held.findings[0].first_step - 500) <= 20
    decayed = convergence(run_of({"loss": loss, "lr": np.where(np.arange(n) < 490, 1e-3, 1e-4)}))
    assert told(decayed) == [("plateau", "info")]


def test_swings_are_a_warning_with_their_period_in_steps():
    found = convergence(run_of({"loss": swinging(1000, 16.0)}, every=10))
    assert told(found) == [("oscillation", "warning")]
    evidence = found.findings[0].evidence
    assert evidence["period_steps"] == pytest.approx(160, rel=0.02) and 0.3 < evidence["swing"] < 0.7


@pytest.mark.parametrize("why", ["rate", "epoch", "eval"])
def test_swings_that_recur_with_something_known_are_information(why):
    n, period = 1500, 25
    columns = {"train/loss": swinging(n, period)}
    more = {}
    if why == "rate":
        columns["lr"] = 1e-3 * (1.1 + np.cos(2 * np.pi * np.arange(n) / period))
    if why == "epoch":
        more["epoch"] = np.arange(n) / period
    run = run_of(columns, **more)
    if why == "eval":
        evals = pl.DataFrame({"tag": ["eval/loss"] * 60, "step": np.arange(60) * period, "value": falling(60)})
        train = pl.DataFrame({"tag": ["train/loss"] * n, "step": np.arange(n), "value": columns["train/loss"]})
        run = finish("r", "r", "jsonl", pl.concat([train, evals]))
    found = convergence(run)
    assert told(found) == [("oscillation", "info")]
    assert {"rate": "learning rate", "epoch": "epoch", "eval": "evaluations"}[why] in found.findings[0].causes[0]


@pytest.mark.parametrize("evals", [12, 24, 36])
def test_a_few_swings_that_happen_to_be_as_long_as_evaluations_lie_apart_are_a_warning(evals):
    n, period = 150, 12
    loss = swinging(n, period)
    steps = np.arange(0, n, evals)
    held_out = pl.DataFrame({"tag": ["eval/loss"] * len(steps), "step": steps, "value": falling(len(steps))})
    train = pl.DataFrame({"tag": ["train/loss"] * n, "step": np.arange(n), "value": loss})
    assert ("oscillation", "warning") in told(convergence(finish("r", "r", "jsonl", pl.concat([train, held_out]))))


def test_a_third_of_an_epoch_is_no_reason_for_a_few_swings_and_an_epoch_is():
    for share, severity in ((3, "warning"), (1, "info")):
        found = convergence(run_of({"loss": swinging(200, 20)}, epoch=np.arange(200) / (20 * share)))
        assert [s for k, s in told(found) if k == "oscillation"] == [severity]


def test_the_sawtooth_of_epochs_is_information_also_where_no_epoch_is_logged():
    tooth = falling(2000) * np.exp(0.3 * (np.arange(2000) % 50) / 50)
    assert told(convergence(run_of({"loss": tooth}))) == [("oscillation", "info")]


def test_beside_the_players_of_a_gan_swings_are_information():
    run = run_of({"loss": swinging(1000, 16.0), "g_loss": steady(1000), "d_loss": steady(1000)})
    assert {severity for _, severity in told(convergence(run))} <= {"info"}


def test_the_losses_of_reinforcement_learning_are_not_judged():
    run = run_of({"train/loss": steady(500), "rollout/ep_rew_mean": steady(500)})
    found = convergence(run)
    assert not found.findings and {n.kind for n in found.not_applicable} == {"plateau", "oscillation", "variance-shift"}


def test_noise_that_grows_is_a_warning_and_information_beside_a_batch_size_that_changed():
    n = 1000
    spread = np.where(np.arange(n) < 500, 0.02, 0.1)
    loss = curve("cosine", n) * np.exp(spread * np.random.default_rng(0).normal(size=n))
    found = convergence(run_of({"loss": loss}))
    assert told(found) == [("variance-shift", "warning")] and abs(found.findings[0].first_step - 500) <= 10
    batch = np.where(np.arange(n) < 500, 256, 16)
    assert told(convergence(run_of({"loss": loss, "batch_size": batch}))) == [("variance-shift", "info")]


def test_limits_that_a_project_sets_decide():
    strict, loose = Limits((("oscillation", "*", 0.9),)), Limits((("plateau", "*", 1e-6), ("variance-shift", "*", 9.0)))
    assert told(convergence(run_of({"loss": swinging(1000, 16.0)}), limits=strict)) == []
    assert told(convergence(run_of({"loss": steady(500)}), limits=loose)) == []


def test_healthy_runs_are_silent_at_every_length():
    wrong = 0
    for n in (30, 60, 200, 1000, 5000):
        for seed in range(12):
            kind, sort = (
                ("exponential", "power", "cosine", "warmup")[seed % 4],
                ("lognormal", "heavy", "gamma")[seed % 3],
            )
            loss = curve(kind, n) * noise(sort, (0.01, 0.1)[seed % 2], n, np.random.default_rng([n, seed]))
            wrong += convergence(run_of({"loss": loss, "lr": [1e-3] * n})).status != "healthy"
    assert wrong == 0


def test_the_frame_tells_the_numbers_of_the_loss_judged():
    row = convergence(run_of({"loss": falling(500), "other_loss": steady(500)})).frame.row(0, named=True)
    assert row["metric"] == "loss" and row["rows"] == 500 and row["improved"] is True
    assert row["first"] > 2 * row["last"] > 0 and row["spread_factor"] is None


def test_what_every_finding_judged_is_in_its_evidence_under_the_name_of_the_limit():
    runs = [{"loss": steady(500)}, {"loss": swinging(1000, 16.0)}]
    for found in (convergence(run_of(columns)) for columns in runs):
        for finding in found.findings:
            limit = KINDS[finding.kind].limit
            assert limit is not None and limit.measure in finding.evidence and "limit" in finding.evidence


def test_the_figure_says_the_finding_and_names_its_axes():
    drawn = convergence(run_of({"loss": steady(500)})).plot()
    assert "never improved" in drawn.get_title(loc="left") + drawn.get_title()
    assert (drawn.get_xlabel(), drawn.get_ylabel()) == ("step", "loss")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(width=64), max_size=150),
    st.lists(st.floats(width=64), max_size=150),
    st.sampled_from(["loss", "train/loss", "eval_loss", "foo"]),
)
def test_any_numbers_give_a_result(values, rates, tag):
    columns = {tag: values, "lr": rates}
    result = convergence(run_of({name: column for name, column in columns.items() if column} or {"x": [1.0]}))
    assert isinstance(result, Convergence) and result.frame.schema == convergence(run_of({"x": [1.0]})).frame.schema


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([130, 400]), st.sampled_from([1e-300, 1e-9, 1.0, 1e9, 1e300]))
def test_a_loss_in_another_unit_is_judged_alike(seed, n, unit):
    loss = curve("exponential", n) * noise("heavy", 0.05, n, np.random.default_rng(seed))
    assert told(convergence(run_of({"loss": loss}))) == told(convergence(run_of({"loss": loss * unit})))
