"""A counter that is set back while the clock goes on is told from a resume, in logs whose steps alone part attempts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from analysis.stream import stream
from parsers.loading import load


def written(folder: Path, steps: list[int], times: np.ndarray) -> Path:
    path = folder / "metrics.jsonl"
    rows = [{"step": s, "time": 1.7e9 + float(t), "loss": 2 / (1 + i)} for i, (s, t) in enumerate(zip(steps, times))]  # noqa: B905
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def told(path: Path) -> list[tuple[str, int | None]]:
    return [(f.severity, f.first_step) for f in stream(load(path)).findings if f.kind == "step-regression"]


@pytest.mark.parametrize("usual", [0.3, 2.0, 60.0])
def test_a_counter_that_is_set_back_without_a_pause_is_told_with_its_first_step(tmp_path: Path, usual: float):
    steps = [*range(0, 1000, 10), *range(400, 900, 10)]
    for seed in range(10):
        beat = usual * (1 + 0.03 * np.random.default_rng(seed).uniform(-1, 1, len(steps)))
        beat[100] = usual
        assert told(written(tmp_path, steps, np.cumsum(beat))) == [("warning", 400)]


@pytest.mark.parametrize("usual", [0.3, 2.0, 60.0])
def test_a_resume_takes_time_and_is_no_step_regression(tmp_path: Path, usual: float):
    steps = [*range(0, 1000, 10), *range(400, 900, 10)]
    for seed in range(20):
        rng = np.random.default_rng(seed)
        beat = usual * (1 + 0.03 * rng.uniform(-1, 1, len(steps)))
        beat[100] = usual * 2 + rng.uniform(8, 300)
        assert told(written(tmp_path, steps, np.cumsum(beat))) == []


def test_uneven_intervals_that_leave_room_for_a_restart_prove_nothing(tmp_path: Path):
    steps = [*range(0, 1000, 10), *range(400, 900, 10)]
    for seed in range(20):
        beat = np.random.default_rng(seed).uniform(10, 90, len(steps))
        assert told(written(tmp_path, steps, np.cumsum(beat))) == []
