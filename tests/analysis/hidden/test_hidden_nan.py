"""A NaN that a log hides is found from what stands beside the loss; a loss scaler and a converged loss are no NaN."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.hidden.hidden_nan import hidden_rows
from analysis.hidden_facts import hidden_facts
from parsers.loading import load
from tests.analysis.hidden.build import decay, found, run_of
from tests.once import once

KIND = "hidden-non-finite"
#: Folder, what befalls the loss, whether the Trainer filters, steps of a row, batches of a step.
TRAININGS = (
    ("every-step", "breaks", True, 1, 1), ("every-4", "breaks", True, 4, 1), ("accumulated", "breaks", True, 2, 2),
    ("unfiltered", "breaks", False, 1, 1), ("empty", "empty", True, 1, 1), ("empty-every-4", "empty", True, 4, 1),
    ("sound", "", True, 1, 1), ("tensorboard", "breaks", True, 1, 1),
)  # fmt: skip


def train(folder: Path) -> None:
    """A tiny model whose loss is NaN at the 11th step of 24: with a NaN gradient (which breaks the weights for good),
    or with a gradient of 0 for one step, as a batch without labels has it."""
    import torch
    from transformers import Trainer, TrainingArguments

    class Net(torch.nn.Module):
        def __init__(self, case: str) -> None:
            super().__init__()
            self.layer, self.case, self.step = torch.nn.Linear(4, 1), case, 0

        def forward(self, x: Any = None, labels: Any = None) -> dict[str, Any]:
            y = self.layer(x)
            loss = ((y - labels) ** 2).mean()
            if self.training:
                self.step += 1
                if self.case == "breaks" and self.step == 11:
                    loss = loss * float("nan")
                if self.case == "empty" and self.step == 11:
                    loss = loss.detach() * float("nan") + (y * 0).sum()
            return {"loss": loss, "logits": y}

    torch.manual_seed(0)
    x = torch.randn(200, 4)
    data = [{"x": one, "labels": one.sum(0, keepdim=True) + torch.randn(1)} for one in x]
    for name, case, filtered, every, accumulate in TRAININGS:
        torch.manual_seed(0)
        args = TrainingArguments(
            str(folder / name), max_steps=24, logging_steps=every, gradient_accumulation_steps=accumulate,
            use_cpu=True, logging_nan_inf_filter=filtered, per_device_train_batch_size=8, save_strategy="no",
            disable_tqdm=True, seed=0, report_to=["tensorboard"] if name == "tensorboard" else [],
        )  # fmt: skip
        trainer = Trainer(Net(case), args, train_dataset=data)
        with contextlib.redirect_stdout(io.StringIO()):
            trainer.train()
        if name != "tensorboard":
            trainer.save_state()


@pytest.fixture(scope="module")
def trained() -> Path:
    """A folder for each of `TRAININGS`, trained in this process: transformers takes seconds to start anew."""

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch and transformers themselves
            patch.setenv("TENSORBOARD_LOGGING_DIR", str(folder / "tensorboard" / "events"))
            train(folder)

    return once("trainer-hides-nan", make)


def test_the_real_trainer_hides_a_nan_and_it_is_found_at_its_step(trained: Path):
    run = load(trained / "every-step" / "trainer_state.json")
    losses = run.series("loss")
    assert losses["value"].is_finite().all(), "the filter lets no NaN into the log"
    finding = found(run, KIND)
    assert finding is not None and finding.severity == "warning" and finding.metric == "loss"
    assert (finding.first_step, finding.last_step) == (11, 24)
    assert finding.evidence["zero_rows"] == 14 and finding.evidence["last_sound_step"] == 10
    assert "logging_nan_inf_filter" in finding.causes[0]


def test_rows_of_four_steps_show_it_from_the_row_in_which_it_began(trained: Path):
    finding = found(load(trained / "every-4" / "trainer_state.json"), KIND)
    assert finding is not None
    assert finding.evidence["steps_per_row"] == 4 and finding.evidence["last_sound_step"] == 8
    assert finding.first_step == 12, "steps 9 and 10 were sound, so the row of step 12 is filtered in part"
    assert finding.evidence["partly_filtered_rows"] == 1 and finding.evidence["zero_rows"] == 3


def test_gradient_accumulation_does_not_hide_it(trained: Path):
    finding = found(load(trained / "accumulated" / "trainer_state.json"), KIND)
    assert finding is not None and finding.first_step == 6 and finding.evidence["zero_rows"] == 9


def test_the_same_through_tensorboard_is_found_there(trained: Path):
    finding = found(load(trained / "tensorboard"), KIND)
    assert finding is not None and finding.first_step == 11 and "logging_nan_inf_filter" in finding.causes[0]


def test_without_the_filter_the_loss_says_it_itself_and_nothing_is_hidden(trained: Path):
    run = load(trained / "unfiltered" / "trainer_state.json")
    assert run.series("loss")["value"].is_nan().any() and found(run, KIND) is None


def test_a_batch_without_labels_is_told_as_that_or_a_nan(trained: Path):
    finding = found(load(trained / "empty" / "trainer_state.json"), KIND)
    assert finding is not None and finding.severity == "info" and finding.first_step == finding.last_step == 11
    assert "an empty batch or a hidden NaN" in finding.message


def test_what_rows_of_four_steps_cannot_show_is_said_in_the_frame(trained: Path):
    result = hidden_facts(load(trained / "empty-every-4" / "trainer_state.json"))
    row = result.frame.filter(result.frame["kind"] == KIND).row(0, named=True)
    assert row["verdict"] == "clear" and "what did not last to a row's end is not visible" in row["detail"]


def test_a_sound_training_is_silent(trained: Path):
    assert found(load(trained / "sound" / "trainer_state.json"), KIND) is None


def as_the_trainer_logs(losses: list[float], every: int) -> list[float]:
    """The Trainer's arithmetic, step by step and slowly."""
    rows, total, since = [], 0.0, 0
    for loss in losses:
        total += loss if math.isfinite(loss) else total / (1 + since)
        since += 1
        if since == every:
            rows.append(total / every)
            total, since = 0.0, 0
    return rows


@given(
    st.lists(st.one_of(st.floats(0.1, 10), st.sampled_from([math.nan, math.inf])), min_size=4, max_size=80),
    st.integers(1, 5),
)
@settings(max_examples=150, deadline=None)
def test_a_row_hides_a_nan_exactly_where_all_its_steps_were_not_finite(losses: list[float], every: int):
    rows = np.array(as_the_trainer_logs(losses, every))
    cut = [losses[i * every : (i + 1) * every] for i in range(len(rows))]
    norms = np.array([1.0 if math.isfinite(part[-1]) else math.nan for part in cut])
    hidden = hidden_rows(rows, norms, np.ones(len(rows), bool))
    assert hidden.zero.tolist() == [not any(map(math.isfinite, part)) for part in cut]
    beside = hidden.partly & np.isfinite(norms)
    assert not beside.any(), "a row with a sound last step is never accused"


def test_every_lasting_nan_is_found_whatever_the_rows_and_no_sound_run_is_accused():
    hits = alarms = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        every, n = int(rng.integers(1, 20)), int(rng.integers(400, 2000))
        losses, norms = decay(n, rng), np.exp(0.3 * rng.standard_normal(n))
        scaled = rng.random(n) < 0.01  # steps that a loss scaler skips
        norms[scaled] = math.inf
        at = np.arange(every - 1, n, every)
        sound = run_of(
            {"loss": (at + 1, as_the_trainer_logs(losses.tolist(), every)), "grad_norm": (at + 1, norms[at])},
            format="huggingface",
        )
        alarms += found(sound, KIND) is not None
        onset = int(rng.integers(0, n - 3 * every))
        losses[onset:], norms[onset:] = math.nan, math.nan
        broken = run_of(
            {"loss": (at + 1, as_the_trainer_logs(losses.tolist(), every)), "grad_norm": (at + 1, norms[at])},
            format="huggingface",
        )
        finding = found(broken, KIND)
        hits += finding is not None and finding.first_step is not None and abs(finding.first_step - onset) <= every
    assert (hits, alarms) == (150, 0)


def test_a_loop_that_keeps_the_last_finite_loss_is_found():
    rng = np.random.default_rng(1)
    losses, norms = decay(300, rng), np.exp(0.2 * rng.standard_normal(300))
    losses[200:], norms[200:] = losses[199], math.nan
    finding = found(run_of({"train_loss": losses, "train_grad_norm": norms}), KIND)
    assert finding is not None and finding.first_step == 200 and finding.evidence["repeated_rows"] == 100
    assert "unchanged" in finding.message and "last finite loss" in finding.causes[0]


@pytest.mark.parametrize("seed", range(5))
def test_steps_that_a_loss_scaler_skips_are_no_hidden_nan(seed: int):
    rng = np.random.default_rng(seed)
    norms = np.exp(0.3 * rng.standard_normal(500))
    norms[rng.random(500) < 0.04] = math.nan
    norms[:10] = math.inf
    assert found(run_of({"loss": decay(500, rng), "grad_norm": norms}, format="huggingface"), KIND) is None


def test_a_loss_rounded_to_zero_by_its_print_is_no_hidden_nan():
    losses = np.round(2 * np.exp(-np.arange(600) / 40), 4)  # as old releases of transformers wrote it
    norms = 3 * np.exp(-np.arange(600) / 60)
    norms[550] = math.inf
    norms[-20:] = 0.0
    assert found(run_of({"loss": losses, "grad_norm": norms}, format="huggingface"), KIND) is None


def test_a_policy_loss_around_zero_is_no_hidden_nan():
    rng = np.random.default_rng(3)
    losses, norms = rng.normal(0, 0.02, 400), np.exp(0.2 * rng.standard_normal(400))
    same = rng.random(400) < 0.1  # all rewards of a group alike: no advantage, no gradient
    losses[same], norms[same] = 0.0, 0.0
    assert found(run_of({"loss": losses, "grad_norm": norms}, format="huggingface"), KIND) is None


def test_a_component_that_is_off_is_no_hidden_nan():
    rng = np.random.default_rng(4)
    norms = np.exp(0.2 * rng.standard_normal(300))
    norms[77] = math.inf
    columns = {"loss": decay(300, rng), "kd_loss": np.zeros(300), "grad_norm": norms}
    assert found(run_of(columns), KIND) is None


def test_without_a_gradient_norm_a_fall_to_zero_beside_a_broken_eval_is_told_as_certain():
    losses = np.concatenate([decay(50, np.random.default_rng(5)), np.zeros(20)])
    columns = {
        "loss": (range(10, 710, 10), losses),
        "eval_loss": (range(100, 800, 100), [2.0, 1.5, 1.2, 1.1, 1, *[math.nan] * 2]),
    }
    finding = found(run_of(columns, format="huggingface"), KIND)
    assert finding is not None and finding.severity == "warning" and finding.first_step == 510
    assert "the eval loss is not finite either" in finding.message
    without = found(run_of({"loss": columns["loss"]}, format="huggingface"), KIND)
    assert without is not None and "probably" in without.message
    assert found(run_of({"loss": columns["loss"]}), KIND) is None, "another framework's zero may mean anything"


def test_a_run_without_gradient_norm_or_trainer_is_not_judged():
    reasons = {n.kind: n.reason for n in hidden_facts(run_of({"loss": [2.0, 1.5, 1.2]})).not_applicable}
    assert reasons[KIND] == "no gradient norm stands beside the training loss"
    reasons = {n.kind: n.reason for n in hidden_facts(run_of({"grad_norm": [2.0, 1.5, 1.2]})).not_applicable}
    assert reasons[KIND] == "no training loss was logged"
