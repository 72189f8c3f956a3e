"""The learning rate against its plan and on its face: severities, sentences, groups, and input of every kind."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler as of_torch

import aftertrain as at
from analysis.learning_rate import LearningRate, learning_rate
from analysis.limits import Limits
from analysis.schedule.words import EXPLANATIONS, WORDS
from parsers.finish import finish
from parsers.run import Run
from tests.analysis.planted_rates import FAMILIES, PEAK, rates, run_of

LINEAR, COSINE = FAMILIES[0], FAMILIES[1]
PLAN = {"schedule": "linear", "peak": PEAK, "total_steps": 200, "warmup_steps": 20}


def told(result: LearningRate, *, severity: str | None = None) -> list[str]:
    return [str(f.evidence["explanation"]) for f in result.findings if severity in (None, f.severity)]


def groups(series: dict[str, np.ndarray], plan: dict | None = None, **more: object) -> Run:
    rows = [(tag, step, float(value)) for tag, values in series.items() for step, value in enumerate(values)]
    frame = pl.DataFrame(rows, schema={"tag": pl.String, "step": pl.Int64, "value": pl.Float64}, orient="row")
    return finish("r", "r", "jsonl", frame, plan={} if plan is None else {"lr": plan}, **more)


# ---- on its face ----


def test_a_rate_of_zero_while_the_loss_stands_is_critical_with_and_without_a_plan():
    for plan in (None, PLAN):
        result = learning_rate(run_of(np.zeros(200), plan, learns=False))
        assert told(result, severity="critical") == ["zero"]
        assert "the loss does not fall, and no weight can change" in result.findings[0].message


def test_a_rate_that_underflows_is_as_good_as_zero():
    result = learning_rate(run_of(np.full(200, 7e-111), None, learns=False))
    assert told(result, severity="critical") == ["zero"] and "at most 7e-111" in result.findings[0].message


def test_a_rate_printed_as_zero_while_the_loss_falls_is_information():
    assert told(learning_rate(run_of(np.zeros(200), None)), severity="info") == ["zero"]


def test_the_trainer_state_of_a_training_whose_rate_was_zero_is_critical(tmp_path: Path):
    rng = np.random.default_rng(0)
    history = [
        {"epoch": s / 150, "grad_norm": 0.7, "learning_rate": 0.0, "loss": 1.5 + 0.1 * rng.normal(), "step": s}
        for s in range(5, 301, 5)
    ]
    state = {"epoch": 2.0, "global_step": 300, "max_steps": 300, "log_history": history, "is_world_process_zero": True}
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    diagnosis = at.diagnose(at.load(tmp_path / "trainer_state.json"))
    assert diagnosis.status == "critical" and "lr-schedule" in {f.kind for f in diagnosis.findings}


def test_the_last_tenth_at_zero_is_a_warning_and_the_very_last_record_is_none():
    values = rates(LINEAR.make, 200)
    longer = np.concatenate([values, np.zeros(60)])
    result = learning_rate(run_of(longer, None))
    assert told(result, severity="warning") == ["zero-tail"] and result.findings[0].first_step == 200
    assert told(learning_rate(run_of(np.append(values, 0.0), None))) == []


def test_zeros_of_a_rate_printed_to_few_places_are_small_rates():
    values = np.round(rates(LINEAR.make, 200), 4)
    assert (values == 0).mean() > 0.1
    assert told(learning_rate(run_of(values, PLAN, form="text"))) == []


def test_a_negative_rate_is_critical_and_a_logarithm_of_it_is_none():
    values = rates(LINEAR.make, 100) - 0.3 * PEAK
    assert told(learning_rate(run_of(values, None)), severity="critical") == ["negative"]
    assert told(learning_rate(run_of(np.log10(values + PEAK), None))) == []
    assert learning_rate(run_of(np.log10(values + PEAK), None, name="log_lr")).frame.is_empty()


def test_rates_that_are_no_numbers_are_told():
    values = np.where(np.arange(100) < 30, PEAK, math.nan)
    assert told(learning_rate(run_of(values, None)), severity="warning") == ["no-number"]


@pytest.mark.parametrize("family", [LINEAR, COSINE, FAMILIES[6]], ids=lambda f: f.name)
def test_a_schedule_that_begins_again_at_a_resume_is_found_without_a_plan(family):
    values = np.concatenate([rates(family.make, 170, length=400), rates(family.make, 230, length=400)])
    attempt = (np.arange(400) >= 170).astype(int)
    result = learning_rate(run_of(values, None, attempt=attempt))
    assert told(result, severity="warning") == ["not-restored"] and result.findings[0].first_step == 170


def test_a_resume_with_its_state_a_constant_rate_and_restarts_of_its_own_are_no_fault():
    attempt = (np.arange(400) >= 160).astype(int)
    restarts = rates(lambda o, n: of_torch.CosineAnnealingWarmRestarts(o, 80), 400)
    for values in (rates(LINEAR.make, 400), np.full(400, PEAK), restarts):
        assert told(learning_rate(run_of(values, None, attempt=attempt))) == []


def test_a_cosine_that_climbs_again_is_a_warning_only_where_the_loss_climbs_too():
    values = rates(lambda o, n: of_torch.CosineAnnealingLR(o, 200), 380)
    assert told(learning_rate(run_of(values, None)), severity="info") == ["rises-again"]
    steps = np.arange(380)
    loss = 1 + np.abs(steps - 200) / 200 + 0.01 * np.random.default_rng(1).normal(size=380)
    result = learning_rate(groups({"lr": values, "loss": loss}))
    assert (
        told(result, severity="warning") == ["rises-again"] and "the loss rises with it" in result.findings[0].message
    )


def test_cyclic_rates_are_no_fault():
    cyclic = rates(lambda o, n: of_torch.CyclicLR(o, PEAK / 10, PEAK, step_size_up=40), 400)
    assert told(learning_rate(run_of(cyclic, None))) == []


# ---- against the plan ----


def test_what_differs_is_told_with_its_step_its_size_and_what_to_do():
    result = learning_rate(run_of(rates(LINEAR.make, 200, calls=lambda _: 2), PLAN))
    (finding,) = result.findings
    assert finding.severity == "warning" and finding.first_step == 2
    assert "the scheduler is stepped twice a step" in finding.message
    evidence = finding.evidence
    assert evidence["deviation"] >= evidence["limit"] == 0.1 and evidence["number"] == 0.5
    assert "scheduler.step()" in finding.causes[0] and "scheduler.step()" in finding.suggestions[0]
    row = result.frame.row(0, named=True)
    assert (row["planned"], row["planned_warmup_steps"], row["planned_total_steps"]) == ("linear", 20, 200)
    assert row["explanation"] == "stepped-too-often" and row["first_difference_step"] == 2
    assert result.measures[0].value == evidence["deviation"]


def test_the_number_of_processes_or_micro_batches_names_the_cause():
    values = rates(LINEAR.make, 200, calls=lambda _: 4)
    processes = learning_rate(run_of(values, PLAN, config={"num_processes": 4})).findings[0]
    assert "once for each of the 4 processes" in processes.causes[0]
    micro = learning_rate(run_of(values, PLAN, config={"trainer": {"accumulate_grad_batches": 4}})).findings[0]
    assert "each of the 4 micro-batches" in micro.causes[0]
    scaled = learning_rate(run_of(8 * rates(LINEAR.make, 200), PLAN, config={"world_size": 8})).findings[0]
    assert scaled.evidence["number"] == pytest.approx(8) and "8 processes" in scaled.causes[0]


@pytest.mark.parametrize("part", [slice(0, 60), slice(90, 100), slice(400, 700)])
def test_a_part_of_a_schedule_whose_peak_nobody_said_is_no_fault_but_a_fast_one_is(part: slice):
    plan = {"schedule": "cosine", "warmup_steps": 100, "total_steps": 1000}
    steps = np.arange(1000)

    def log(ticks: np.ndarray) -> Run:
        shape = np.where(ticks < 100, (ticks + 1) / 100, 0.5 * (1 + np.cos(np.pi * (ticks - 100) / 900)))
        frame = pl.DataFrame({"tag": "lr", "step": steps[part], "value": 6e-4 * shape[part]})
        return finish("r", "r", "jsonl", frame, plan={"lr": plan})

    assert told(learning_rate(log(steps))) == []
    if part.start > 100:
        assert told(learning_rate(log(np.minimum(1.4 * steps, 1000.0)))) != []


def test_ten_times_the_planned_peak_is_critical_and_three_times_a_warning():
    values = rates(LINEAR.make, 200)
    assert told(learning_rate(run_of(12 * values, PLAN)), severity="critical") == ["wrong-peak"]
    assert told(learning_rate(run_of(3 * values, PLAN)), severity="warning") == ["wrong-peak"]
    assert told(learning_rate(run_of(1.05 * values, PLAN))) == []


def test_an_observation_that_nothing_explains_is_not_explained():
    noise = np.random.default_rng(3).uniform(0, PEAK, 200)
    (finding,) = learning_rate(run_of(noise, PLAN)).findings
    assert finding.evidence["explanation"] == "cannot-tell" and finding.severity == "warning"
    read = groups({"lr": noise}, config={"lr_scheduler_type": "linear", "learning_rate": PEAK, "max_steps": 200})
    assert told(learning_rate(read), severity="info") == ["cannot-tell"], "a plan that nobody declared may be misread"


def test_lengths_of_a_configuration_that_can_only_be_epochs_are_no_alarm():
    epochs = rates(lambda o, n: of_torch.CosineAnnealingLR(o, 12), 600, calls=lambda i: int((i + 1) % 50 == 0))
    config = {"lr_scheduler": "CosineAnnealingLR", "learning_rate": PEAK, "total_steps": 12}
    read = run_of(epochs, None, config=config, per_epoch=50)
    assert read.planned.lr["total_steps"] == 12
    assert told(learning_rate(read), severity="info") == ["stepped-per-epoch"]
    declared = read.with_plan({"lr": {"schedule": "cosine", "peak": PEAK, "total_steps": 12}})
    assert told(learning_rate(declared), severity="warning") == ["stepped-per-epoch"]


def test_one_record_that_departs_is_information_and_a_warning_at_ten_times_the_peak():
    values = rates(LINEAR.make, 200)
    values[100] *= 2
    assert told(learning_rate(run_of(values, PLAN)), severity="info") == ["single-record"]
    values[100] = 20 * PEAK
    result = learning_rate(run_of(values, PLAN))
    assert told(result, severity="warning") == ["single-record"] and result.findings[0].first_step == 100


def test_a_schedule_that_waits_for_skipped_steps_is_information():
    values = np.concatenate([np.zeros(18), rates(COSINE.make, 982, length=1000)])
    plan = {"schedule": "cosine", "peak": PEAK, "total_steps": 1000, "warmup_steps": 100}
    result = learning_rate(run_of(values, plan, every=10))
    assert told(result, severity="warning") == []


def test_a_limit_of_the_project_is_heeded():
    run = run_of(1.05 * rates(LINEAR.make, 200), PLAN)
    assert told(learning_rate(run, limits=Limits((("lr-schedule", "*", 0.03),)))) == ["wrong-peak"]
    worse = run_of(1.5 * rates(LINEAR.make, 200), PLAN)
    assert told(learning_rate(worse, limits=Limits((("lr-schedule", "lr", 0.8),)))) == []


def test_what_a_plan_says_and_cannot_be_used_is_noted():
    result = learning_rate(run_of(rates(LINEAR.make, 50), {"schedule": "cosinus"}))
    assert result.findings == () and "did you mean 'cosine'" in result.frame["note"][0]
    rows = pl.DataFrame({"tag": ["lr"] * 30, "value": np.linspace(PEAK, 0, 30)})
    unstepped = learning_rate(finish("r", "r", "csv", rows, plan={"lr": PLAN}))
    assert unstepped.findings == () and "the plan counts steps" in unstepped.frame["note"][0]


def test_a_plan_in_epochs_holds_for_a_log_of_steps_and_for_one_of_epochs():
    plan = {"schedule": "cosine", "peak": PEAK, "total_steps": 12, "unit": "epoch", "steps_per_epoch": 50}
    epochs = rates(lambda o, n: of_torch.CosineAnnealingLR(o, 12), 12)
    steps = np.repeat(epochs, 50)
    assert told(learning_rate(run_of(steps, plan, per_epoch=50))) == []
    rows = pl.DataFrame({"tag": ["lr"] * 12, "epoch": np.arange(12.0), "value": epochs})
    assert told(learning_rate(finish("r", "r", "csv", rows, plan={"lr": plan}))) == []
    each_step = rates(lambda o, n: of_torch.CosineAnnealingLR(o, 12), 600)
    assert told(learning_rate(run_of(each_step, plan, per_epoch=50)), severity="warning") != []


# ---- groups of parameters ----


def test_layer_wise_rates_are_no_fault_where_one_group_follows_the_plan():
    values = rates(LINEAR.make, 200)
    layered = {f"lr/pg{i}": values * 0.8**i for i in range(5)}
    result = learning_rate(groups(layered, PLAN))
    assert result.findings == () and result.frame["group"].to_list() == ["0", "1", "2", "3", "4"]


def test_groups_with_the_same_fault_are_one_finding():
    values = rates(LINEAR.make, 200, calls=lambda _: 2)
    result = learning_rate(groups({"lr/pg0": values, "lr/pg1": values, "lr/pg2": values}, PLAN))
    assert told(result, severity="warning") == ["stepped-too-often"]
    assert "so do lr/pg1, lr/pg2" in result.findings[0].message and result.findings[0].evidence["series"] == 3


def test_a_frozen_group_is_information():
    series = {"lr/pg0": rates(LINEAR.make, 200), "lr/pg1": np.zeros(200)}
    for plan in (None, PLAN):
        result = learning_rate(groups(series, plan))
        assert told(result, severity="info") == ["zero"] and len(result.findings) == 1


def test_a_multiplier_is_held_against_the_shape_alone():
    shape = rates(LINEAR.make, 200) / PEAK
    assert told(learning_rate(run_of(shape, PLAN, name="lrm"))) == []


# ---- every kind of input ----


def test_every_explanation_has_its_words():
    spoken_elsewhere = {"zero", "single-record", "cannot-tell"}
    assert set(EXPLANATIONS) == set(WORDS) | spoken_elsewhere


def test_without_a_rate_or_with_one_value_nothing_is_judged():
    for run in (groups({"loss": np.ones(9)}), groups({"lr": np.array([PEAK])}, PLAN)):
        result = learning_rate(run)
        assert result.findings == () and [n.kind for n in result.not_applicable] == ["lr-schedule"]
        assert result.frame.schema == learning_rate(groups({"lr": np.ones(9)})).frame.schema


def test_steps_in_any_order_and_written_again_give_the_same_verdict():
    values = rates(LINEAR.make, 200, calls=lambda _: 2)
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(200), 2))
    rows = pl.DataFrame({"tag": ["lr"] * 400, "step": order, "value": values[order]})
    result = learning_rate(finish("r", "r", "aftertrain", rows, plan={"lr": PLAN}))
    assert told(result) in (["stepped-too-often"], []) and result.frame["records"][0] > 0
    tidy = learning_rate(finish("r", "r", "jsonl", rows.sort("step"), plan={"lr": PLAN}))
    assert told(tidy) == ["stepped-too-often"]


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(
        st.one_of(
            st.floats(allow_nan=True, allow_infinity=True),
            st.sampled_from([0.0, 1e-3, 7e-111, -1e-4, 1e300, 5e-324]),
            st.floats(0, 1e-2),
        ),
        max_size=60,
    ),
    steps=st.lists(st.one_of(st.none(), st.integers(-5, 2**53)), min_size=60, max_size=60),
    plan=st.sampled_from(
        [
            None,
            PLAN,
            {"schedule": "cosine_with_restarts", "peak": 0.0, "first_cycle": 3, "cycle_mult": 2},
            {"schedule": "onecycle", "total_steps": 1},
            {"schedule": "multistep", "milestones": [2, 5], "peak": 1e-300},
            {"schedule": "inverse_sqrt", "peak": 1e300},
            {"schedule": "wsd", "total_steps": 10, "decay_steps": 20},
        ]
    ),
)
def test_any_series_gives_a_result_that_can_be_drawn_and_written(values, steps, plan):
    frame = {"tag": ["lr"] * len(values), "step": steps[: len(values)], "value": values}
    schema = {"tag": pl.String, "step": pl.Int64, "value": pl.Float64}
    result = learning_rate(
        finish("r", "r", "jsonl", pl.DataFrame(frame, schema=schema), plan={} if plan is None else {"lr": plan})
    )
    json.dumps([f.to_dict() for f in result.findings], allow_nan=False)
    assert all(f.evidence["deviation"] is not None for f in result.findings)
    assert (result.frame.height == 0) == (not values) and repr(result)
    if len(values) > 55:
        result.plot().figure.canvas.draw()


def test_the_figure_shows_both_rates_and_says_the_finding():
    result = learning_rate(run_of(rates(LINEAR.make, 200, calls=lambda _: 2), PLAN))
    drawn = result.plot()
    assert "r: the scheduler is stepped twice a step" in drawn.get_title(loc="left")
    assert result.findings[0].message.startswith(
        "lr leaves its planned linear schedule: the scheduler is stepped twice"
    )
    labels = drawn.get_legend_handles_labels()[1]
    assert labels[:2] == ["lr, observed", "planned"] and "deviation" in labels
    np.testing.assert_allclose(drawn.lines[0].get_ydata(), result.judged[0].rate.values)
    with pytest.raises(ValueError, match="metric is 'x'; it must be one of lr"):
        result.plot(metric="x")


def test_a_long_series_is_judged_by_its_values_and_not_by_its_length():
    short = learning_rate(run_of(rates(COSINE.make, 300), {**PLAN, "schedule": "cosine", "total_steps": 300}))
    n = 200_000
    values = 0.5 * PEAK * (1 + np.cos(math.pi * np.arange(n) / n))
    plan = {"schedule": "cosine", "peak": PEAK, "total_steps": n}
    assert learning_rate(run_of(values, plan)).findings == ()
    assert told(learning_rate(run_of(values**2 / PEAK, plan)), severity="warning") != []
    assert told(short) == ["other-warmup"]


def test_a_decay_that_never_starts_is_dated_where_the_rate_leaves_its_plan_and_not_where_that_is_plain():
    step = np.arange(600)
    planned = 0.5 * (1 + np.cos(np.pi * np.maximum(step - 31, 0) / 569))
    kept = np.minimum(step / 31, 1.0) * PEAK
    plan = {"schedule": "cosine", "peak": PEAK, "total_steps": 600, "warmup_steps": 31}
    (finding,) = [f for f in learning_rate(run_of(kept, plan)).findings if f.severity == "warning"]
    parted = int(np.argmax(1 - planned > 0.005))
    assert abs((finding.first_step or 0) - parted) <= 3
