from __future__ import annotations

from typing import Any

import pytest

from analysis.planned.saves import judge_saves, saves_of
from parsers.run import Run
from tests.analysis.planned.runs import a_run


def saved(*saves: tuple[int | None, str], steps: range = range(0, 2001, 20), **more: Any) -> Run:
    return a_run(steps, events=[("checkpoint", step, {"path": path}) for step, path in saves], **more)


def told(run: Run) -> list[tuple[str, str]]:
    return [(f.severity, f.message) for f in judge_saves(run)[0]]


@pytest.mark.parametrize(
    "saves",
    [
        [(500, "checkpoint-500"), (1000, "checkpoint-1000")],
        [(500, "ckpt/step000500.pt"), (1000, "ckpt/step001000.pt")],
        [(499, "global_step500"), (999, "global_step1000")],
        [(1200, "epoch=3-step=1200.ckpt")],
        [(500, "checkpoint-1"), (1000, "checkpoint-2"), (1500, "checkpoint-3")],
        [(500, "model-v2.pt"), (1000, "best.ckpt"), (1500, "stepwise-3.pt"), (2000, "iter_2000/optim-step5.1.pt")],
        [(510, "last.ckpt")],
        [(0, "step0.pt"), (2000, "step=2000.ckpt"), (2010, "final.pt")],
    ],
)
def test_saves_at_the_steps_that_they_name_are_silent(saves: list[tuple[int, str]]) -> None:
    assert told(saved(*saves)) == [] and judge_saves(saved(*saves))[1] == []


@pytest.mark.parametrize(
    ("saves", "named"),
    [
        ([(1180, "checkpoint-1200")], 1200),
        ([(500, "checkpoint-500"), (600, "checkpoint-1000")], 1000),
        ([(1200, "step=1100.ckpt")], 1100),
        ([(1200, "out\\global_step800\\mp_rank_00.pt")], 800),
        ([(60, "iter_0000600")], 600),
    ],
)
def test_a_save_whose_name_tells_another_step_is_a_warning(saves: list[tuple[int, str]], named: int) -> None:
    findings, skipped = judge_saves(saved(*saves))
    assert skipped == [] and [f.severity for f in findings] == ["warning"]
    (finding,) = findings
    assert finding.kind == "checkpoint-mismatch" and finding.evidence["named_step"] == named
    assert finding.evidence["saved_step"] == saves[-1][0] and f"its name says {named:,}" in finding.message


def test_names_that_all_count_another_unit_are_information() -> None:
    saves = [(250 * k, f"iter_{1000 * k}") for k in range(1, 7)]
    ((severity, message),) = told(saved(*saves))
    assert severity == "info" and "always by the factor 4" in message and "6 of 6" in message


def test_a_save_beyond_the_end_of_the_log_is_a_warning_where_both_count_steps() -> None:
    ((severity, message),) = told(saved((2500, "checkpoint-2500"), (1000, "checkpoint-1000")))
    assert severity == "warning" and "saved at step 1,000" not in message and "the log ends at step 2,000" in message
    other = saved((2500, "checkpoint-2500"), format="ablation")
    assert [s for s, _ in told(other)] == ["info"]


def test_odd_saves_between_logged_steps_are_information_where_most_are_at_one() -> None:
    usual = [(200 * k, f"step{200 * k}.pt") for k in range(1, 9)]
    ((severity, message),) = told(saved(*usual, (1511, "step1511.pt")))
    assert severity == "info" and "1 of 9 checkpoints" in message and "1,511" in message
    assert told(saved(*[(150 * k + 7, f"step{150 * k + 7}.pt") for k in range(1, 9)])) == [], (
        "another rhythm is a habit"
    )


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (saved(), "no checkpoints are recorded"),
        (saved((None, "best.pt")), "checkpoints have no steps"),
        (a_run(range(3), events=[("checkpoint", 1, {"file": "x"}), ("checkpoint", 2, {"path": 5})]), "have no steps"),
    ],
)
def test_without_steps_of_saves_nothing_is_judged(run: Run, reason: str) -> None:
    findings, (skipped,) = judge_saves(run)
    assert findings == [] and reason in skipped.reason


def test_a_log_without_steps_is_compared_with_names_alone() -> None:
    run = a_run([None] * 5, events=[("checkpoint", 100, {"path": "step900"})])
    assert [s for s, _ in told(run)] == ["warning"]
    assert [save.named for save in saves_of(run)] == [900]


def test_a_save_of_the_untrained_weights_is_in_no_log_and_no_matter() -> None:
    saves = [(0, "step_0.pt"), *((step, f"step_{step}.pt") for step in (100, 300, 500, 700, 900))]
    assert told(saved(*saves, steps=range(20, 2001, 20))) == []
