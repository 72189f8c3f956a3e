"""What the figure of several runs says on its axes."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.report.curves import Curve, draw_runs


def curve(metric: str, axis: str = "step") -> Curve:
    return Curve(metric, "train", np.arange(5.0), np.linspace(3.0, 2.0, 5), axis, 1)


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        (["loss", "loss"], "train loss"),
        (["nll", "loss", "loss"], "train loss or train nll"),
        (["loss", "nll", "mse", "loss"], "train loss, or 2 others by run"),
    ],
)
def test_the_axis_of_several_runs_names_all_that_it_shows(metrics: list[str], said: str):
    drawn = draw_runs([(place, f"run {place}", curve(metric)) for place, metric in enumerate(metrics)])
    assert drawn.get_ylabel() == said and drawn.get_xlabel() == "step"


def test_runs_over_steps_and_over_records_share_an_axis_that_says_so():
    drawn = draw_runs([(0, "a", curve("loss")), (1, "b", curve("loss", axis="record"))])
    assert drawn.get_xlabel() == "step or record"
