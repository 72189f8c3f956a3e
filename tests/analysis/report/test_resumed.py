"""A resumed run in the report: the live branch in front, what the resumes left behind it, the attempts told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from analysis.diagnose import diagnose
from analysis.report import report
from analysis.report.curves import DEAD, draw_metric, read_curves
from analysis.timeline import draw_timeline
from eventstream.recorder import Recorder
from parsers.loading import load
from parsers.run import Run


@pytest.fixture
def resumed(tmp_path: Path) -> Run:
    """Steps 1 to 70, resumed after 40 up to 90, resumed after 60 up to 140; an evaluation on a branch that died."""
    for attempt, (first, last) in enumerate([(1, 71), (41, 91), (61, 141)]):
        with Recorder(tmp_path / "exp") as recorder:
            for step in range(first, last):
                recorder.log(step, {"loss": attempt + 1 / step}, split="train")
            if attempt == 0:
                recorder.log(50, {"loss": 9.0}, split="eval")
                recorder.log(30, {"loss": 8.0}, split="eval")
    return load(tmp_path / "exp")


def test_the_curve_is_the_live_branch_and_the_dead_ones_stand_apart(resumed: Run) -> None:
    train, evaluated = read_curves(resumed)["loss"]
    assert train.x.tolist() == list(range(1, 141))
    assert np.isnan(train.dead_x).sum() == 1  # a gap between the two branches, so that no line joins them
    assert train.dead_x[np.isfinite(train.dead_x)].tolist() == [*range(41, 71), *range(61, 91)]
    assert (evaluated.x.tolist(), evaluated.dead_x.tolist(), evaluated.dead_y.tolist()) == ([30.0], [50.0], [9.0])


def test_dead_branches_are_drawn_faintly_behind_the_live_one_and_named_once(resumed: Run) -> None:
    drawn = draw_metric(read_curves(resumed)["loss"])
    legend = drawn.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["train", "eval", DEAD]
    live = next(line for line in drawn.get_lines() if line.get_label() == "train")
    faint = [line for line in drawn.get_lines() if line.get_alpha() == 0.4]
    assert [len(line.get_xdata()) for line in faint] == [30, 30, 1]
    assert all(line.get_zorder() < live.get_zorder() for line in faint)
    assert to_rgba(faint[0].get_color()) == to_rgba(live.get_color())


def test_from_near_only_the_branches_in_the_window_are_drawn(resumed: Run) -> None:
    drawn = draw_metric(read_curves(resumed)["loss"], window=(75.0, 100.0))
    assert [line.get_xdata().tolist() for line in drawn.get_lines() if line.get_alpha() == 0.4] == [  # type: ignore[union-attr]
        list(range(75, 91))
    ]


def test_the_picture_of_a_diagnosis_has_the_dead_branches_too(resumed: Run) -> None:
    lines = draw_timeline(resumed, ()).get_lines()
    assert [len(line.get_xdata()) for line in lines] == [30, 30, 140]


def test_the_page_tells_the_attempts(resumed: Run) -> None:
    html = report(diagnose(resumed)).text
    assert "3; resumed from step 41, left at 70; from step 61, left at 90" in html


def test_a_run_that_was_never_resumed_has_no_dead_branch_and_no_word_about_it(tmp_path: Path) -> None:
    with Recorder(tmp_path / "exp") as recorder:
        for step in range(100):
            recorder.log(step, {"loss": 1 / (step + 1)})
    run = load(tmp_path / "exp")
    (curve,) = read_curves(run)["loss"]
    assert len(curve.dead_x) == 0 and draw_metric([curve]).get_legend() is None
    assert "resumed from step" not in report(diagnose(run)).text
