from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstream.errors import PlanError
from parsers.plan import PLANNED, Plan

EXAMPLE: dict[str, Any] = {
    "max_steps": 3000,
    "curriculum": {
        "axis": "step",
        "phases": [
            {"name": "warm", "start": 0, "weights": {"kd": 0.7, "feature": 0.0}},
            {
                "name": "align",
                "start": 1000,
                "weights": {"kd": 0.5, "feature": 0.3},
                "ramp": "linear",
                "ramp_length": 200,
            },
        ],
    },
    "loss_weights": {"contrastive": 0.1},
    "aggregation": "sum",
    "lr": {"schedule": "cosine", "peak": 0.001},
    "inputs": {"forward": {"require": ["input_ids"], "forbid": ["labels"]}},
}


def weight_at(plan: Plan, component: str, step: int) -> float | None:
    frame = plan.planned_weights([step])
    found = frame.filter(frame["component"] == component)["weight"]
    return None if not len(found) else found[0]


def one_phase(**change: Any) -> dict[str, Any]:
    return {"curriculum": {"phases": [{"name": "a", "start": 0, "weights": {"kd": 1.0}, **change}]}}


def test_the_contract_s_example_is_understood_whole() -> None:
    plan = Plan.from_mapping(EXAMPLE)
    assert [p.name for p in plan.phases] == ["warm", "align"]
    assert plan.components == ("kd", "feature", "contrastive")
    assert (plan.max_steps, plan.aggregation, plan.not_understood) == (3000, "sum", ())
    assert plan.lr["peak"] == 0.001 and plan.inputs["forward"]["forbid"] == ["labels"]


@pytest.mark.parametrize(
    ("step", "kd", "feature", "phase"),
    [(0, 0.7, 0.0, "warm"), (999, 0.7, 0.0, "warm"), (1000, 0.7, 0.0, "align"), (1100, 0.6, 0.15, "align"),
     (1200, 0.5, 0.3, "align"), (9999, 0.5, 0.3, "align")],
)  # fmt: skip
def test_weights_hold_in_phases_and_move_along_the_ramp(step: int, kd: float, feature: float, phase: str) -> None:
    frame = Plan.from_mapping(EXAMPLE).planned_weights([step])
    assert frame.schema == PLANNED
    assert frame["weight"].to_list() == pytest.approx([kd, feature, 0.1])
    assert frame["phase"].unique().to_list() == [phase]


def test_a_cosine_ramp_is_slow_at_both_ends() -> None:
    mapping = {
        "curriculum": {
            "phases": [
                {"name": "a", "start": 0, "weights": {"kd": 0.0}},
                {"name": "b", "start": 10, "weights": {"kd": 1.0}, "ramp": "cosine", "ramp_length": 100},
            ]
        }
    }
    plan = Plan.from_mapping(mapping)
    got = [weight_at(plan, "kd", s) for s in (10, 20, 60, 100, 110)]
    assert got == pytest.approx([0, (1 - math.cos(math.pi / 10)) / 2, 0.5, (1 + math.cos(math.pi / 10)) / 2, 1])


def test_on_the_progress_axis_steps_are_divided_by_max_steps() -> None:
    mapping = {
        "curriculum": {
            "axis": "progress",
            "phases": [
                {"name": "a", "start": 0, "weights": {"kd": 1}},
                {"name": "b", "start": 0.5, "weights": {"kd": 2}},
            ],
        }
    }
    plan = Plan.from_mapping(mapping)
    assert plan.planned_weights([499, 500], max_steps=1000)["weight"].to_list() == [1.0, 2.0]
    assert plan.planned_weights([499, 500])["weight"].to_list() == [None, None]


def test_progress_may_be_of_epochs_of_a_known_length() -> None:
    phases = [{"name": "a", "start": 0, "weights": {"kd": 1}}, {"name": "b", "start": 0.5, "weights": {"kd": 2}}]
    mapping = {"epochs": 4, "steps_per_epoch": 25, "curriculum": {"axis": "progress", "phases": phases}}
    plan = Plan.from_mapping(mapping)
    assert plan.total_steps == 100 and plan.planned_weights([49, 50])["weight"].to_list() == [1.0, 2.0]


def test_what_a_phase_does_not_name_is_not_stated() -> None:
    plan = Plan.from_mapping({"curriculum": {"phases": [
        {"start": 10, "weights": {"kd": 1.0}},
        {"start": 20, "weights": {"feature": 0.5}, "ramp": "linear", "ramp_length": 5}]}})  # fmt: skip
    assert [weight_at(plan, "kd", s) for s in (5, 15, 25)] == [None, 1.0, None]
    assert [weight_at(plan, "feature", s) for s in (15, 22, 25)] == [None, None, 0.5]


def test_a_ramp_of_the_first_phase_is_said_and_not_judged() -> None:
    plan = Plan.from_mapping(one_phase(ramp="linear", ramp_length=10))
    assert "first phase has no former weights" in plan.not_understood[0]
    assert [weight_at(plan, "kd", s) for s in (5, 10)] == [None, 1.0]


def test_required_outputs_by_stage_are_understood() -> None:
    planned = {"forward": {"require": ["logits"]}}
    plan = Plan.from_mapping({"outputs": planned})
    assert (plan.outputs, plan.not_understood) == (planned, ())
    with pytest.raises(PlanError, match=r"plan\.outputs: expected an object, found \['logits'\]"):
        Plan.from_mapping({"outputs": ["logits"]})


def test_unknown_keys_are_listed_with_the_nearest_known() -> None:
    plan = Plan.from_mapping({"curiculum": {}, "max_steps": 5})
    assert plan.not_understood == ("plan.curiculum: unknown key; did you mean 'curriculum'?",)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (one_phase(start="x"), "plan.curriculum.phases[0].start: expected a number, found 'x'"),
        (one_phase(start=True), "plan.curriculum.phases[0].start: expected a number, found True"),
        (one_phase(start=math.nan), "plan.curriculum.phases[0].start: expected a number, found nan"),
        (one_phase(weights={"kd": "a"}), "plan.curriculum.phases[0].weights.kd: expected a number, found 'a'"),
        (one_phase(weights=[1]), "plan.curriculum.phases[0].weights: expected an object, found [1]"),
        (one_phase(ramp="steep"), "plan.curriculum.phases[0].ramp: expected 'constant' or 'linear' or 'cosine'"),
        (one_phase(ramp="linear"), "plan.curriculum.phases[0].ramp_length: expected a number above 0"),
        ({"curriculum": {"phases": [{"weights": {}}]}}, "plan.curriculum.phases[0].start: missing"),
        ({"curriculum": {"phases": "none"}}, "plan.curriculum.phases: expected a list of phases"),
        ({"curriculum": {"axis": "epoch"}}, "plan.curriculum.axis: expected 'step' or 'progress', found 'epoch'"),
        ({"curriculum": 3}, "plan.curriculum: expected an object, found 3"),
        ({"aggregation": "max"}, "plan.aggregation: expected 'sum' or 'mean', found 'max'"),
        ({"max_steps": 0.5}, "plan.max_steps: expected a whole number above 0, found 0.5"),
        ({"loss_weights": {"kd": None}}, "plan.loss_weights.kd: expected a number, found None"),
        ({"curriculum": {"phases": [{"start": 5}, {"start": 5}]}}, "phases[1].start: expected more than 5"),
        ({"curriculum": {"axis": "progress", "phases": [{"start": 5}]}}, "phases[0].start: expected 0 to 1"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError) as caught:
        Plan.from_mapping(mapping)
    assert message in str(caught.value)


def test_an_empty_plan_plans_nothing() -> None:
    plan = Plan.from_mapping({})
    assert plan == Plan()
    assert plan.planned_weights([1, 2]).schema == PLANNED and plan.planned_weights([1, 2]).is_empty()
    assert Plan.from_mapping(EXAMPLE).planned_weights([]).is_empty()


def slow_weight(phases: list[tuple[int, float, str, int]], step: int) -> float | None:
    """Weight at one step, phase by phase, as the contract words it."""
    value = None
    for i, (start, weight, ramp, length) in enumerate(phases):
        if step < start:
            break
        former = phases[i - 1][1] if i else None
        share = (step - start) / length
        if ramp == "constant" or share >= 1:
            value = weight
        elif former is None:
            value = None
        elif ramp == "linear":
            value = former * (1 - share) + weight * share
        else:
            value = former + (weight - former) * (0.5 - 0.5 * math.cos(math.pi * share))
    return value


@given(
    st.lists(
        st.tuples(
            st.integers(0, 50), st.floats(-2, 2), st.sampled_from(["constant", "linear", "cosine"]), st.integers(1, 30)
        ),
        min_size=1,
        max_size=5,
        unique_by=lambda phase: phase[0],
    )
)
def test_planned_weights_agree_with_the_slow_version(phases: list[tuple[int, float, str, int]]) -> None:
    phases = sorted(phases)
    listed = [{"start": s, "weights": {"kd": w}, "ramp": r, "ramp_length": n} for s, w, r, n in phases]
    steps = np.arange(0, 90)
    got = Plan.from_mapping({"curriculum": {"phases": listed}}).planned_weights(steps)["weight"].to_list()
    for step, weight in zip(steps.tolist(), got, strict=True):
        expected = slow_weight(phases, step)
        assert weight == (None if expected is None else pytest.approx(expected, abs=1e-12))
