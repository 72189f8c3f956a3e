"""A log that counts epochs alone says so; one that counts anything finer does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis.hidden_facts import hidden_facts
from parsers.loading import load
from tests.analysis.hidden.build import decay, found, run_of

KIND = "epoch-only"
LOSS = decay(30, np.random.default_rng(0))


def test_a_table_of_keras_has_epochs_alone(tmp_path: Path):
    rows = "\n".join(f"{e},{v},{v * 1.1}" for e, v in enumerate(LOSS))
    (tmp_path / "training.csv").write_text(f"epoch,loss,val_loss\n{rows}\n")
    finding = found(load(tmp_path), KIND)
    assert finding is not None and finding.severity == "info" and finding.evidence["epochs"] == 30
    assert "one value an epoch (30 in all) and nothing finer: there are no steps" in finding.message


def test_steps_that_are_the_epochs_count_nothing_finer():
    for offset in (0, 1):
        finding = found(run_of({"loss": LOSS}, epochs=np.arange(30) + offset), KIND)
        assert finding is not None and finding.evidence["steps_are_epochs"] is True


def test_a_metric_called_epoch_tells_it_too():
    assert found(run_of({"train/loss": LOSS, "epoch": np.arange(30.0)}), KIND) is not None
    assert found(run_of({"train/loss": LOSS, "epoch": np.arange(30) // 10}), KIND) is None


def test_rows_at_every_fifth_epoch_are_counted_as_such():
    finding = found(run_of({"eval_accuracy": LOSS}, epochs=np.arange(0, 150, 5), steps=False), KIND)
    assert finding is not None and "one value every 5 epochs (30 in all)" in finding.message


@pytest.mark.parametrize(
    ("epochs", "steps"),
    [
        (np.arange(30) / 10, True),
        (np.arange(30) / 10, False),
        (np.arange(30) // 5, False),
        (np.arange(30) * 100_000, False),
        (None, True),
        (None, False),
    ],
    ids=["steps within epochs", "fractions", "rows of batches", "samples called epochs", "steps alone", "nothing"],
)
def test_anything_finer_or_unknown_is_not_called_epochs_alone(epochs: np.ndarray | None, steps: bool):
    assert found(run_of({"loss": LOSS}, epochs=epochs, steps=steps), KIND) is None


def test_too_few_rows_and_unknown_axes_are_not_judged():
    few = hidden_facts(run_of({"loss": LOSS[:2]}, epochs=np.arange(2), steps=False))
    assert {n.kind: n.reason for n in few.not_applicable}[KIND] == "2 rows: too few to see how the log counts"
    blind = hidden_facts(run_of({"loss": LOSS}, steps=False))
    assert {n.kind: n.reason for n in blind.not_applicable}[KIND] == "the log counts neither steps nor epochs"
