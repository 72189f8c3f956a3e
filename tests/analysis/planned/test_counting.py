"""A counter that goes one by one: the steps of a plan, or epochs, or calls of a logger."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import aftertrain as at
from analysis.planned.counting import other_unit
from parsers.run import Run
from tests.analysis.planned.runs import LONG_AFTER, a_run


@given(st.integers(20, 100_000), st.integers(2, 500))
def test_a_finished_run_that_counts_something_longer_than_steps_is_never_taken_for_one_that_ended_early(
    planned: int, each: int
) -> None:
    for reached in (planned // each, math.ceil(planned / each)):
        if reached >= 1:
            assert other_unit(planned, reached) is not None


@given(st.integers(100, 100_000), st.floats(0.52, 0.98))
def test_beyond_half_of_the_plan_a_count_is_a_step(planned: int, share: float) -> None:
    assert other_unit(planned, math.floor(share * planned)) is None


def told(run: Run) -> list[tuple[str, str]]:
    return [(f.kind, f.severity) for f in at.plan(run, now=LONG_AFTER).findings]


@pytest.mark.parametrize(("share", "severity"), [(0.8, "warning"), (0.6, "warning"), (0.4, "warning"), (0.2, "info")])
def test_a_log_of_tensorboard_that_breaks_off_between_the_ends_that_other_units_would_have_is_a_warning(
    share: float, severity: str
) -> None:
    steps = range(1, round(share * 1000) + 1)
    assert told(a_run(steps, config={"max_steps": 1000}, format="tensorboard")) == [("unfinished-run", severity)]


def rates(counts: range, *, each: int, total: int) -> Run:
    """A learning rate that falls in a line over `total` steps, logged at counts of `each` steps."""
    fall = [1e-3 * max(0.0, 1 - each * count / total) for count in counts]
    config = {"max_steps": total, "learning_rate": 1e-3, "lr_scheduler_type": "linear"}
    return a_run(counts, config=config, format="tensorboard", metrics={"lr": fall})


def test_a_learning_rate_that_is_as_planned_step_by_step_says_that_steps_are_counted() -> None:
    assert told(rates(range(1, 201), each=1, total=1000)) == [("unfinished-run", "warning")]
    counted_in_epochs = told(rates(range(1, 201), each=5, total=1000))
    assert ("unfinished-run", "warning") not in counted_in_epochs


def test_a_rate_that_does_not_move_says_nothing_of_the_count() -> None:
    config = {"max_steps": 1000, "learning_rate": 1e-3, "lr_scheduler_type": "constant"}
    still = a_run(range(1, 201), config=config, format="tensorboard", metrics={"lr": np.full(200, 1e-3).tolist()})
    assert told(still) == [("unfinished-run", "info")]


def test_the_trainer_of_hugging_face_stops_at_its_steps_whatever_its_epochs_say() -> None:
    config = {"max_steps": 800, "num_train_epochs": 1, "save_steps": 100}
    early = a_run(range(1, 331), epochs=np.arange(330) / 64, config=config, format="huggingface")
    assert told(early) == [("unfinished-run", "warning")]
    done = a_run(range(1, 801), epochs=np.arange(800) / 64, config=config, format="huggingface")
    assert told(done) == []
