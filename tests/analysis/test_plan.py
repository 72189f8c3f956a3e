from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import aftertrain as at
from analysis.findings import Finding
from analysis.limits import DEFAULT_LIMITS, Limits
from analysis.plan import FRAME, PlanResult
from parsers.run import Run
from tests.analysis.planned.runs import LONG_AFTER, START, a_run


def judged(run: Run, **options: Any) -> PlanResult:
    return at.plan(run, now=LONG_AFTER, **options)


def told(run: Run, **options: Any) -> list[tuple[str, str]]:
    return [(f.kind, f.severity) for f in judged(run, **options).findings]


def only(run: Run, **options: Any) -> Finding:
    (finding,) = judged(run, **options).findings
    return finding


@pytest.mark.parametrize(
    "run",
    [
        a_run(range(1000), plan={"max_steps": 1000}),
        a_run(range(1, 1001), plan={"max_steps": 1000}),
        a_run(range(0, 1000, 10), plan={"max_steps": 1000}),
        a_run(range(50, 1001, 50), plan={"max_steps": 1000}),
        a_run(range(0, 1000, 300), plan={"max_steps": 1000}),
        a_run(range(0, 1001, 10), plan={"max_steps": 999}),
        a_run(range(30), config={"epochs": 30}, format="sacred"),
        a_run(range(1, 31), config={"epochs": 30}, format="sacred"),
        a_run([None] * 30, epochs=range(30), config={"epochs": 30}, format="csv"),
        a_run([None] * 30, epochs=range(1, 31), config={"epochs": 30}, format="csv"),
        a_run(range(10, 301, 10), epochs=np.linspace(0.1, 2.98, 30), config={"num_train_epochs": 3}),
        a_run(range(300), config={"max_steps": 300, "num_train_epochs": 99}, format="huggingface"),
        a_run(range(300), epochs=[s / 20 for s in range(300)], config={"max_steps": 300, "epochs": 3}),
        a_run(range(300), epochs=[s // 100 for s in range(300)], config={"max_steps": 9000, "epochs": 3}),
    ],
)
def test_a_run_that_came_to_its_planned_end_is_silent(run: Run) -> None:
    result = judged(run)
    assert result.findings == () and {n.kind for n in result.not_applicable} == {"checkpoint-mismatch"}
    assert result.lengths and any(one.done for one in result.lengths)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.94])
@pytest.mark.parametrize("planned", [40, 1000, 200_000])
@pytest.mark.parametrize("every", [1, 10])
def test_a_run_that_ends_early_is_found_whatever_its_length(share: float, planned: int, every: int) -> None:
    finding = only(a_run(range(0, round(share * planned), every * planned // 1000 + 1), plan={"max_steps": planned}))
    assert (finding.kind, finding.severity) == ("unfinished-run", "warning")
    assert finding.evidence["share_done"] <= share and finding.evidence["limit"] == 0.95
    assert finding.evidence["source"] == "manifest.json: max_steps"
    assert "killed" in finding.causes[0] and "--plan" in finding.suggestions[-1]


def test_epochs_of_a_known_length_are_steps() -> None:
    finding = only(a_run(range(40), plan={"epochs": 9, "steps_per_epoch": 10}))
    assert "step 39 of 90 planned (43% done, manifest.json: epochs, manifest.json: steps_per_epoch)" in finding.message
    guess = only(a_run(range(40), plan={"epochs": 90}, format="sacred"))
    assert guess.severity == "info" and "taken for epochs" in guess.message


def test_a_few_per_cent_are_information() -> None:
    finding = only(a_run(range(970), plan={"max_steps": 1000}))
    assert (finding.kind, finding.severity) == ("unfinished-run", "info")


def test_the_limit_is_the_project_s() -> None:
    run = a_run(range(800), plan={"max_steps": 1000})
    assert told(run) == [("unfinished-run", "warning")]
    assert told(run, limits=Limits((("unfinished-run", "*", 0.5),))) == [("unfinished-run", "info")]
    measured = {m.kind: m.value for m in judged(run).measures}
    assert measured == {"unfinished-run": 0.799}
    done = judged(a_run(range(1000), plan={"max_steps": 1000}))
    assert {m.kind: m.value for m in done.measures} == {"unfinished-run": 1.0, "overlong-run": 1.0}
    assert judged(run, limits=DEFAULT_LIMITS).status == "warning"


EARLY: dict[str, Any] = {"steps": range(300), "plan": {"max_steps": 1000}}


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"config": {"early_stopping_patience": 5}}, "early_stopping_patience lets it stop early"),
        ({"config": {"callbacks": [{"class_path": "x.EarlyStopping"}]}}, "lets it stop early"),
        ({"config": {"load_best_model_at_end": True}}, "load_best_model_at_end"),
        ({"events": [("end", 299, {"status": "finished"})]}, "the run says that it finished"),
        ({"events": [("note", 299, {"text": "Early stopping: no gain for 5 evaluations"})]}, "the run notes"),
        ({"format": "tensorboard", "steps": range(250)}, "may be epochs or calls of the logger"),
        (
            {"format": "huggingface", "config": {"save_steps": 400}, "steps": range(0, 801, 10)},
            "saved at 1,200",
        ),
        ({"format": "huggingface"}, "what came after it does not show"),
        (
            {"format": "huggingface", "config": {"save_steps": 100, "best_metric": 0.4}, "steps": range(0, 331, 10)},
            "may have stopped early",
        ),
    ],
)
def test_what_the_log_says_for_ending_early_makes_it_information(more: dict[str, Any], reason: str) -> None:
    finding = only(a_run(**{**EARLY, **more}))
    assert (finding.kind, finding.severity) == ("unfinished-run", "info") and reason in finding.message
    assert finding.causes and finding.suggestions


@pytest.mark.parametrize(
    "more",
    [
        {"format": "tensorboard", "steps": range(0, 300, 5)},
        {"format": "wandb", "metrics": {"trainer/global_step": [float(3 * s) for s in range(200)]}},
        {"format": "huggingface", "config": {"save_steps": 100}},
        {"format": "huggingface", "config": {"save_steps": 500, "best_metric": None}, "steps": range(0, 331, 10)},
        {"format": "huggingface", "config": {"save_steps": 100, "num_train_epochs": 1}, "epochs": np.arange(300) / 90},
        {"format": "tensorboard"},
        {"format": "csv"},
        {"config": {"scheduler": {"type": "ReduceLROnPlateau", "patience": 4}}},
    ],
)
def test_without_such_a_word_it_is_a_warning(more: dict[str, Any]) -> None:
    assert told(a_run(**{**EARLY, **more})) == [("unfinished-run", "warning")]


def test_a_failure_is_named_with_its_error_and_excused_by_nothing() -> None:
    end = ("end", 299, {"status": "failed", "error": "CUDA out of memory"})
    finding = only(a_run(**EARLY, events=[end], config={"patience": 5}))
    assert finding.severity == "warning" and finding.causes == ("the run says that it failed: CUDA out of memory",)
    assert finding.evidence["end_status"] == "failed" and finding.evidence["error"] == "CUDA out of memory"


@pytest.mark.parametrize(("silent_s", "severity"), [(30, "info"), (59, "info"), (61, "warning"), (-60, "warning")])
def test_a_run_whose_last_record_is_recent_by_its_rhythm_still_runs(silent_s: float, severity: str) -> None:
    last = START + timedelta(seconds=2.0 * 299)
    (finding,) = at.plan(a_run(**EARLY), now=last + timedelta(seconds=silent_s)).findings
    assert finding.severity == severity and ("still running" in finding.message) == (severity == "info")


def test_a_slow_rhythm_is_waited_for_up_to_an_hour_and_no_time_for_nothing() -> None:
    slow = a_run(**EARLY, every_s=400.0)
    last = START + timedelta(seconds=400.0 * 299)
    assert at.plan(slow, now=last + timedelta(minutes=59)).findings[0].severity == "info"
    assert at.plan(slow, now=last + timedelta(minutes=61)).findings[0].severity == "warning"
    assert at.plan(a_run(**EARLY, every_s=None), now=START).findings[0].severity == "warning"
    with pytest.raises(ValueError, match="expected a time with a time zone"):
        at.plan(slow, now=datetime(2026, 1, 1))


@pytest.mark.parametrize(
    ("run", "severity"),
    [
        (a_run(range(2000), plan={"max_steps": 1000}), "warning"),
        (a_run(range(1030), plan={"max_steps": 1000}), "info"),
        (a_run(range(2000), config={"max_steps": 1000}), "info"),
        (a_run(range(2000), epochs=[s / 1000 for s in range(2000)], plan={"max_steps": 1000, "epochs": 9}), "info"),
        (a_run(range(3500), plan={"max_steps": 1000}, config={"accumulate_grad_batches": 2}), "warning"),
    ],
)
def test_a_run_that_goes_on_beyond_its_plan_is_found(run: Run, severity: str) -> None:
    finding = only(run)
    assert (finding.kind, finding.severity) == ("overlong-run", severity)
    assert finding.evidence["share_done"] > 1


def test_batches_that_make_one_update_are_no_more_steps_than_planned() -> None:
    result = judged(a_run(range(4000), plan={"max_steps": 1000}, config={"gradient_accumulation_steps": 4}))
    assert result.findings == ()
    reason = next(n.reason for n in result.not_applicable if n.kind == "overlong-run")
    assert "its steps count batches" in reason


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (a_run(range(10)), "no plan or configuration says how many steps or epochs"),
        (a_run([]), "no plan or configuration says how many"),
        (a_run([], plan={"max_steps": 50}), "50 steps are planned, and the log does not tell"),
        (a_run([None] * 9, plan={"max_steps": 50}), "50 steps are planned, and the log does not tell"),
        (a_run(range(30), plan={"epochs": 90}), "90 epochs are planned, and the log does not tell"),
        (a_run(range(0, 900, 7), plan={"epochs": 3}), "3 epochs are planned, and the log does not tell"),
    ],
)
def test_what_cannot_be_judged_is_said(run: Run, reason: str) -> None:
    result = judged(run)
    assert result.findings == () and result.frame.schema == FRAME
    reasons = {n.kind: n.reason for n in result.not_applicable}
    assert set(reasons) == {"unfinished-run", "overlong-run", "checkpoint-mismatch"}
    assert reason in reasons["unfinished-run"]


def test_the_frame_has_every_entry_with_its_source_and_what_was_not_understood() -> None:
    config = {"lr": 0.1, "scheduler": {"type": "foo"}, "patience": 3, "lambda_kd": 0.5}
    run = a_run(range(300), plan={"max_steps": 1000, "inputs": {"forward": {"require": ["x"]}}, "oops": 1},
                config=config, metrics={"kd_loss": [1.0]})  # fmt: skip
    result = judged(run)
    rows = {row["key"]: row for row in result.frame.iter_rows(named=True)}
    assert rows["max_steps"] | {"note": ""} == {
        "key": "max_steps", "value": "1000", "source": "manifest.json: max_steps", "understood": True,
        "observed": "299", "kept": False, "note": "",
    }  # fmt: skip
    assert rows["lr.peak"]["value"] == "0.1" and rows["lr.peak"]["kept"] is None
    assert rows["loss_weights.kd"]["source"] == "configuration of the log: lambda_kd"
    assert rows["inputs"]["value"] == '{"forward": {"require": ["x"]}}'
    assert rows["early_stop"]["source"] == "configuration of the log: patience"
    assert not rows["scheduler.type"]["understood"] and "no schedule" in rows["scheduler.type"]["note"]
    assert not rows["plan.oops"]["understood"]
    assert len(result.not_understood) == 2 and "5 entries understood" in repr(result) and ", 2 not" in repr(result)


def test_the_figure_shows_what_was_reached_of_what_was_planned() -> None:
    run = a_run(range(300), epochs=[s / 100 for s in range(300)], plan={"max_steps": 1000, "epochs": 10},
                events=[("checkpoint", s, {"path": f"step{s}"}) for s in (100, 200)])  # fmt: skip
    ax = judged(run).plot(color="black")
    widths = [bar.get_width() for bar in ax.patches]
    assert widths == pytest.approx([100, 29.9, 100, 29.9])
    assert [list(line.get_xdata()) for line in ax.lines] == [[10.0, 20.0]]
    assert "% of the plan" in ax.get_xlabel() and "step 299 of 1,000 planned" in ax.get_title()
    assert [label.get_text() for label in ax.get_yticklabels()] == ["299 of 1,000 steps", "2.99 of 10 epochs"]
    empty = judged(a_run([])).plot()
    assert "no plan" in empty.get_title() and not empty.patches


@given(
    st.lists(st.none() | st.integers(-(2**62), 2**62), max_size=30),
    st.none() | st.integers(1, 2**60),
    st.none() | st.floats(1e-3, 1e12),
    st.booleans(),
)
def test_any_run_and_any_length_give_a_result(
    steps: list[int | None], max_steps: int | None, epochs: float | None, counted: bool
) -> None:
    plan = {key: value for key, value in (("max_steps", max_steps), ("epochs", epochs)) if value is not None}
    run = a_run(steps, plan=plan, every_s=None, epochs=[float(i) for i in range(len(steps))] if counted else None)
    result = judged(run)
    assert result.frame.schema == FRAME and len(result.findings) <= 1
    assert all(f.evidence["share_done"] >= 0 or f.evidence["reached"] < 0 for f in result.findings)  # type: ignore[operator]


def test_plans_of_configurations_reach_the_other_analyses() -> None:
    import json

    payload = json.dumps({"stage": "forward", "tensors": {"labels": {"device": "cpu"}}})
    run = a_run(range(5), config={"forbidden_inputs": ["labels"]}, events=[("inputs", 3, json.loads(payload))])
    from analysis.contracts import contracts

    assert [f.kind for f in contracts(run).findings] == ["forbidden-input"]


def weights(values: list[float], config: dict[str, Any]) -> Run:
    names = {
        "losses/adv/raw": [2.0] * len(values),
        "losses/adv/weight": values,
        "losses/kd/weight": [1.0] * len(values),
    }
    return a_run(range(len(values)), config=config, metrics=names)


def test_a_weight_of_a_setting_of_its_own_is_held_against_a_constant_one_and_not_against_a_ramp() -> None:
    ramp = [min(i / 50, 1.0) for i in range(100)]
    assert at.curriculum(weights(ramp, {"lambda_adv": 1.0})).findings == ()
    assert at.curriculum(weights([1.0] * 100, {"lambda_adv": 1.0})).findings == ()
    (finding,) = at.curriculum(weights([0.5] * 100, {"lambda_adv": 1.0})).findings
    assert (finding.kind, finding.metric) == ("curriculum-off-schedule", "adv")
    (finding,) = at.curriculum(weights(ramp, {"loss_weights": {"adv": 1.0}})).findings
    assert finding.kind == "curriculum-off-schedule", "declared as weights, it is meant from the first step on"
