from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from parsers.finish import finish
from parsers.plans.epochs import steps_between_epochs
from parsers.run import Run


def logged(steps: np.ndarray, epochs: np.ndarray, config: dict[str, object] | None = None) -> Run:
    rows = pl.DataFrame({"tag": ["loss"] * len(steps), "step": steps, "value": np.ones(len(steps))})
    epoch = pl.Series("epoch", epochs.astype(float)).fill_nan(None)
    return finish("r", "r", "csv", rows.with_columns(epoch), config=config)


STEPS = np.arange(0, 1000, 5)


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        (STEPS // 100, 100),
        (1 + STEPS // 100, 100),
        (STEPS / 100, 100),
        (STEPS // 400, None),
        (np.sqrt(STEPS), None),
        (np.full(len(STEPS), np.nan), None),
        (np.zeros(len(STEPS)), None),
    ],
)
def test_the_length_of_an_epoch_is_seen_where_it_is_steady(epochs: np.ndarray, expected: int | None) -> None:
    assert steps_between_epochs(logged(STEPS, epochs)) == expected


def test_a_schedule_in_epochs_has_the_length_that_the_log_shows() -> None:
    config: dict[str, object] = {"lr": 0.1, "epochs": 10, "lr_scheduler": "step", "step_size": 3, "gamma": 0.5}
    planned = logged(STEPS, STEPS // 100, config).planned
    assert planned.lr["unit"] == "epoch" and planned.lr["steps_per_epoch"] == 100
    assert planned.sources["lr.steps_per_epoch"].startswith("the log: ")
    said = logged(STEPS, STEPS // 100, {**config, "steps_per_epoch": 90}).planned
    assert said.lr["steps_per_epoch"] == 90, "what the configuration says goes before"
