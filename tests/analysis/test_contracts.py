"""Input contracts: breaches are found with their step and stage, kept contracts are silent, odd payloads do no harm."""

from __future__ import annotations

import json
import random
from typing import Any

import polars as pl
import pytest

from analysis.contracts import contracts
from parsers.finish import finish
from parsers.run import Run

PLAN = {"inputs": {"forward": {"require": ["input_ids"], "forbid": ["labels", "*_target"]}}}


def run_of(events: list[tuple[str, int | None, Any]], plan: dict[str, Any] | None = None) -> Run:
    rows = [(kind, step, body if isinstance(body, str) else json.dumps(body)) for kind, step, body in events]
    frame = pl.DataFrame(rows, schema={"kind": pl.String, "step": pl.Int64, "payload": pl.String}, orient="row")
    return finish("r", "r", "aftertrain", events=frame, plan=PLAN if plan is None else plan)


def batch(stage: str, *names: str, device: str = "cpu", **more: Any) -> dict[str, Any]:
    return {"stage": stage, "tensors": {n: {"shape": [8], "dtype": "int64", "device": device} for n in names}, **more}


@pytest.mark.parametrize("seed", range(50))
def test_a_forbidden_key_is_found_with_its_first_step_and_the_stage_that_let_it_in(seed: int):
    rng = random.Random(seed)
    entered, reached = sorted(rng.sample(range(100), 2))
    events = []
    for step in range(100):
        events.append(("inputs", step, batch("collate", "input_ids", *(["labels"] if step >= entered else []))))
        events.append(("inputs", step, batch("forward", "input_ids", *(["labels"] if step >= reached else []))))
    (finding,) = contracts(run_of(events)).findings
    assert (finding.kind, finding.severity, finding.first_step) == ("forbidden-input", "critical", reached)
    assert finding.evidence["entered_stage"] == "collate" and finding.evidence["entered_step"] == entered
    assert finding.evidence["seen"] == 100 - reached and finding.last_step == 99


def test_a_kept_contract_is_silent_and_all_of_it_was_judged():
    events = [("inputs", s, batch("forward", "input_ids", "mask")) for s in range(50)]
    events += [("outputs", s, batch("forward", "logits", status={"logits": "OK"})) for s in range(50)]
    result = contracts(run_of(events))
    assert result.status == "healthy" and not result.not_applicable
    rows = {r["name"]: r for r in result.frame.iter_rows(named=True)}
    assert rows["input_ids"]["planned"] == "require" and rows["input_ids"]["seen"] == 50
    assert (rows["mask"]["first_step"], rows["mask"]["last_step"], rows["mask"]["devices"]) == (0, 49, "cpu")


def test_a_required_key_that_never_comes_is_missing():
    result = contracts(run_of([("inputs", 3, batch("forward", "mask"))]))
    assert [(f.kind, f.severity, f.metric) for f in result.findings] == [("missing-input", "critical", "input_ids")]
    assert "never seen" in result.findings[0].message


def test_a_required_output_is_judged_like_an_input():
    events = [("outputs", 3, batch("forward", "hidden"))]
    found = contracts(run_of(events, {"outputs": {"forward": {"require": ["logits"]}}})).findings
    assert [f.kind for f in found] == ["missing-output"]


def test_a_stage_that_was_not_recorded_is_not_called_missing():
    result = contracts(run_of([("inputs", 3, batch("encoder", "audio"))]))
    assert not result.findings
    assert "no event shows that stage" in {n.kind: n.reason for n in result.not_applicable}["missing-input"]


def test_patterns_forbid_every_name_they_fit():
    found = contracts(run_of([("inputs", 1, batch("forward", "input_ids", "mel_target", "dur_target"))])).findings
    assert sorted(f.metric or "" for f in found) == ["dur_target", "mel_target"]


def test_devices_mixed_in_one_batch_are_found_and_different_devices_of_batches_are_not():
    apart = [("inputs", s, batch("forward", "input_ids", device=f"cuda:{s % 2}")) for s in range(10)]
    assert contracts(run_of(apart)).status == "healthy"
    mixed = batch("forward", "input_ids", device="cuda:0")
    mixed["tensors"]["mask"] = {"device": "cpu"}
    (finding,) = contracts(run_of([*apart, ("inputs", 7, mixed), ("inputs", 9, mixed)])).findings
    assert (finding.kind, finding.first_step, finding.last_step) == ("device-mismatch", 7, 9)
    assert finding.evidence["devices"] == "cpu, cuda:0" and finding.evidence["events"] == 2


@pytest.mark.parametrize(
    ("direction", "status", "kind"),
    [
        ("outputs", "❌ NOT FOUND", "missing-output"),
        ("inputs", "❌ NOT FOUND", "missing-input"),
        ("inputs", "❌ DISABLED or NOT FOUND", "disabled-conditioning"),
        ("inputs", "DISABLED", "disabled-conditioning"),
        ("inputs", "✅ ENABLED", None),
        ("outputs", "found", None),
    ],
)
def test_statuses_speak_for_themselves(direction: str, status: str, kind: str | None):
    event = batch("forward", "input_ids", status={"whisper": status})
    found = contracts(run_of([(direction, 4, event)])).findings
    assert [f.kind for f in found] == ([kind] if kind else [])


def test_a_status_that_is_bad_for_a_while_only_is_told_as_info():
    states = ["DISABLED"] * 3 + ["OK"] * 7
    events = [("inputs", s, batch("forward", "input_ids", status={"cond": state})) for s, state in enumerate(states)]
    (finding,) = contracts(run_of(events)).findings
    assert finding.severity == "info" and finding.evidence["affected"] == 3


@pytest.mark.parametrize(
    "payload", ["", "null", "[1]", "{", '{"stage": 3, "tensors": 5, "status": []}', '{"tensors": {"a": 1}}']
)
def test_odd_payloads_do_no_harm(payload: str):
    assert contracts(run_of([("inputs", None, payload)])).run == "r"


@pytest.mark.parametrize(
    "plan", [{"inputs": 5}, {"inputs": {"forward": 3}}, {"inputs": {"forward": {"forbid": "labels"}}}]
)
def test_odd_plans_do_no_harm(plan: dict[str, Any]):
    found = contracts(run_of([("inputs", 1, batch("forward", "labels"))], plan)).findings
    assert [f.kind for f in found] == (
        ["forbidden-input"] if isinstance(plan["inputs"], dict) and plan["inputs"]["forward"] != 3 else []
    )


def test_no_events_are_not_a_kept_contract():
    result = contracts(run_of([]))
    assert {n.kind for n in result.not_applicable} >= {"missing-input", "forbidden-input", "device-mismatch"}
    assert result.frame.is_empty() and result.plot().get_xlabel() == "step"


def test_the_plot_names_the_breach():
    result = contracts(
        run_of([("inputs", 1, batch("forward", "labels", "input_ids")), ("inputs", 9, batch("forward", "labels"))])
    )
    ax = result.plot()
    assert "forbidden input" in ax.get_title(loc="left") + ax.get_title()
    assert [t.get_text() for t in ax.get_yticklabels()] == ["forward: labels", "forward: input_ids"]


def way(*stages: tuple[str, bool]) -> list[tuple[str, int | None, Any]]:
    """Events of one batch on its way: the stages in order, with labels or without."""
    return [("inputs", 5, batch(stage, "input_ids", *(["labels"] if held else []))) for stage, held in stages]


def test_a_forbidden_key_that_comes_back_is_laid_to_the_last_stage_without_it():
    events = way(("training_step", True), ("compute_loss", False), ("wrapper", True), ("forward", True))
    (finding,) = contracts(run_of(events)).findings
    assert finding.evidence["entered_stage"] == "wrapper" and finding.evidence["last_clean_stage"] == "compute_loss"
    assert finding.evidence["removed_stage"] == "compute_loss"
    assert finding.causes[0] == "stage 'compute_loss' puts 'labels' in again on its way to 'wrapper'"


def test_a_forbidden_key_that_was_never_in_before_is_laid_to_the_stage_that_adds_it():
    (finding,) = contracts(run_of(way(("training_step", False), ("compute_loss", False), ("forward", True)))).findings
    assert finding.evidence["last_clean_stage"] == "compute_loss" and finding.evidence["removed_stage"] is None
    assert finding.causes[0] == "stage 'compute_loss' puts 'labels' in on its way to 'forward'"


def test_a_forbidden_key_that_is_kept_out_is_told_as_info_with_where():
    events = way(("training_step", True), ("compute_loss", False), ("wrapper", True), ("forward", False))
    result = contracts(run_of(events))
    (finding,) = result.findings
    assert (result.status, finding.severity) == ("healthy", "info")
    assert (finding.evidence["held"], finding.evidence["removed"]) == ("training_step, wrapper", "forward")
    assert "(clean in 1 event)" in finding.message


def test_counts_of_calls_are_said_and_odd_ones_left_out():
    counts = {
        "forward": {"calls": 80, "held": {"labels": 3, "x": "many"}},
        "a": 5,
        "b": {"calls": "x"},
        "c": {"calls": 1},
    }
    events = way(("forward", True))
    events += [("watched", None, {"stages": counts}), ("watched", None, {"stages": 7}), ("watched", None, "[")]
    events += [("watched", None, {"stages": {"forward": {"calls": 20, "held": {"labels": 1}}}})]
    (finding,) = contracts(run_of(events)).findings
    assert "was seen in 4 of 100 calls" in finding.message
    assert (finding.evidence["calls"], finding.evidence["calls_with_it"]) == (100, 4)


def test_contract_events_add_to_the_plan():
    said = {"inputs": {"forward": {"forbid": ["reward"], "require": ["audio"]}, "wrapper": {"forbid": "x"}}}
    events = [("contract", None, said), ("contract", None, "[1]"), ("inputs", 1, batch("forward", "reward", "labels"))]
    found = {(f.kind, f.metric) for f in contracts(run_of(events)).findings}
    assert found == {
        ("forbidden-input", "reward"),
        ("forbidden-input", "labels"),
        ("missing-input", "audio"),
        ("missing-input", "input_ids"),
    }


def test_a_reporter_that_is_not_handed_what_another_stage_holds_is_called_blind():
    blind = {"stage": "on_log", "tensors": {}, "status": {"Input IDs": "NOT FOUND", "Whisper": "NOT FOUND"}}
    events = [("inputs", 2, blind), ("inputs", 1, batch("forward", "input_ids"))]
    found = {f.metric: f for f in contracts(run_of(events)).findings}
    assert "stage 'on_log' is blind" in found["Input IDs"].causes[0] and found["Input IDs"].evidence["held"] == 1
    assert "blind" not in found["Whisper"].causes[0] and "held_by" not in found["Whisper"].evidence


def test_stages_that_were_handed_nothing_are_no_kept_contract_and_the_reason_says_so():
    result = contracts(run_of([("inputs", 3, {"stage": "on_log", "tensors": {}})]))
    assert not result.findings and len(result.not_applicable) == 5
    assert all("the only stage recorded (on_log) was handed no inputs" in n.reason for n in result.not_applicable)


@pytest.mark.parametrize("seed", range(20))
def test_a_required_input_that_batches_lack_from_a_step_on_is_told_with_that_step(seed: int):
    since = random.Random(seed).randrange(1, 100)
    events = [("inputs", s, batch("forward", "mask", *(["input_ids"] if s < since else []))) for s in range(100)]
    (finding,) = contracts(run_of(events)).findings
    assert (finding.kind, finding.metric, finding.first_step) == ("missing-input", "input_ids", since)
    assert finding.severity == ("critical" if since < 50 else "warning")
    assert (finding.evidence["lacking"], finding.evidence["seen"]) == (100 - since, since)


def test_what_evaluation_is_never_given_and_what_a_blind_callback_sees_is_no_missing_input():
    trained = [("inputs", s, batch("forward", "input_ids")) for s in range(20)]
    blind = [("inputs", s, {"stage": "forward", "tensors": {}}) for s in range(20)]
    frame = run_of(trained + blind).events
    evaluated = run_of([("inputs", s, batch("forward", "mask")) for s in range(20)]).events
    events = pl.concat([frame, evaluated.with_columns(split=pl.lit("eval"))])
    assert contracts(finish("r", "r", "aftertrain", events=events, plan=PLAN)).status == "healthy"


@pytest.mark.parametrize("off", [2, 5, 40])
def test_conditioning_that_is_switched_off_at_a_step_and_stays_off_counts_however_late(off: int):
    told = [
        ("inputs", s, batch("forward", status={"spk": "active" if s < 100 - off else "DISABLED"})) for s in range(100)
    ]
    (finding,) = contracts(run_of(told, {})).findings
    assert (finding.kind, finding.severity, finding.first_step) == ("disabled-conditioning", "warning", 100 - off)
    assert finding.last_step == 99 and finding.evidence["to_the_end_from"] == 100 - off


def test_conditioning_that_is_dropped_at_random_is_no_warning():
    for seed in range(200):
        rng = random.Random(seed)
        told = [
            ("inputs", s, batch("forward", status={"spk": "DISABLED" if rng.random() < 0.2 else "active"}))
            for s in range(60)
        ]
        assert contracts(run_of(told, {})).status == "healthy"
