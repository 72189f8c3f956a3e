"""Gradients of real trainings: planted faults are found, healthy runs silent; strangers' logs, figures, odd input."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

import aftertrain as at
from analysis.gradients import gradients
from parsers.loading import load_all
from tests.analysis.gradient.build import MODELS, healthy, mlp, run_of, told, train
from tests.parsers.wild import WILD


@pytest.mark.parametrize("part", range(4))
def test_simulated_healthy_runs_raise_no_alarm(part: int) -> None:
    alarms = {seed: found for seed in range(part, 400, 4) if (found := told(gradients(healthy(seed))))}
    assert alarms == {}, "0 false alarms in 100 runs"


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "how",
    [
        {"optimizer": "adam", "schedule": "warmup"},
        {"optimizer": "sgd", "lr": 0.1, "schedule": "cosine", "clip": 1.0},
        {"optimizer": "adam", "batch": 4, "clip": 1.0, "steps": 150},
    ],
    ids=["adam with warmup", "sgd with cosine, clipped", "small batches"],
)
def test_healthy_trainings_raise_no_alarm(tmp_path: Path, name: str, how: dict[str, object]) -> None:
    result = gradients(train(tmp_path / "run", MODELS[name], **how))  # type: ignore[arg-type]
    assert told(result) == [] and result.frame.height > 10


@pytest.mark.parametrize(("share", "severity"), [(1.0, "critical"), (0.75, "warning"), (0.55, "warning")])
def test_units_that_are_killed_in_training_are_found(tmp_path: Path, share: float, severity: str) -> None:
    def kill(step: int, model: nn.Module, _: object) -> None:
        if step == 100:
            with torch.no_grad():
                layer = model[2]  # type: ignore[index]
                layer.bias[: math.ceil(share * len(layer.bias))] = -50.0

    result = gradients(train(tmp_path / "run", mlp, steps=360, before=kill))
    found = [f for f in result.findings if f.kind == "dead-units"]
    assert [(f.severity, f.evidence["layer"]) for f in found] == [(severity, "2")]
    assert 100 < (found[0].first_step or 0) <= 200


class Branch(nn.Module):
    """A branch that is multiplied by a factor, or detached."""

    def __init__(self, factor: float, detach: bool = False) -> None:
        super().__init__()
        self.first, self.branch, self.head = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 4)
        self.factor, self.detach = factor, detach

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.first(x))
        extra = self.factor * torch.tanh(self.branch(hidden))
        return self.head(hidden + (extra.detach() if self.detach else extra))


def test_a_branch_that_is_multiplied_by_zero_and_one_that_is_detached_are_told_apart(tmp_path: Path) -> None:
    def frozen(factor: float, detach: bool) -> list[object]:
        run = train(tmp_path / f"{factor}{detach}", lambda: Branch(factor, detach))
        return [(f.severity, f.evidence["layer"], f.evidence["gradient"]) for f in gradients(run).findings
                if f.kind == "frozen-layer"]  # fmt: skip

    assert frozen(1.0, False) == []
    assert frozen(0.0, False) == [("warning", "branch", "zero gradient")]
    assert frozen(1.0, True) == [("info", "branch", "no gradient")]


def test_a_group_whose_learning_rate_is_zero_is_found_with_its_cause(tmp_path: Path) -> None:
    def groups(model: nn.Module) -> list[dict[str, object]]:
        parts = list(model.children())
        return [{"params": parts[0].parameters(), "lr": 0.0}, {"params": parts[2:][0].parameters()},
                {"params": parts[-1].parameters()}]  # fmt: skip

    frozen = gradients(train(tmp_path / "a", mlp, groups=groups))
    assert told(frozen) == [("frozen-layer", "warning")]
    assert "learning rate of a group" in frozen.findings[0].causes[0]
    assert told(gradients(train(tmp_path / "b", mlp, groups=groups, plan={"freeze": ["0"]}))) == []


@pytest.mark.parametrize("lr", [3.0, 10.0, 100.0])
def test_an_explosion_by_a_learning_rate_that_leaps_is_found_at_its_step(tmp_path: Path, lr: float) -> None:
    def leap(step: int, _: object, optimizer: torch.optim.Optimizer) -> None:
        if step == 150:
            # Of a scheduler, what counts is the rate that it multiplies.
            for group in optimizer.param_groups:
                group["momentum"], group["lr"] = 0.9, lr

    class Regression(nn.Module):
        """Its loss is a cross entropy of products, so that nothing saturates."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = self.b(torch.relu(self.a(x)) ** 2)
            return self.c(hidden * hidden)

    def every(step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        if step >= 150:
            leap(150, model, optimizer)

    run = train(tmp_path / "run", Regression, optimizer="sgd", lr=1e-3, before=every)
    found = [f for f in gradients(run).findings if f.kind == "exploding-gradient"]
    assert [f.severity for f in found] and found[0].severity in ("warning", "critical")
    assert 150 <= (found[0].first_step or 0) <= 156


@pytest.mark.parametrize("hidden", [6, 10, 16])
def test_gradients_that_vanish_in_a_deep_network_of_sigmoids_are_found(tmp_path: Path, hidden: int) -> None:
    run = train(tmp_path / "run", lambda: mlp(nn.Sigmoid, hidden), optimizer="sgd", lr=0.1)
    (finding,) = [f for f in gradients(run).findings if f.kind == "vanishing-gradient"]
    assert finding.severity == "warning" and finding.evidence["early_layer"] == "0"
    assert finding.evidence["decades"] > hidden / 2


def test_the_samples_and_strangers_logs_raise_no_alarm_but_for_the_one_with_too_high_a_rate(samples: Path) -> None:
    alarms = [(run.name, found) for run in load_all(samples) if (found := told(gradients(run)))]
    assert alarms == []
    if WILD.is_dir():
        wild = [run.path for run in load_all(WILD / "hf_trainer_state") if told(gradients(run))]
        assert [Path(path).parent.name for path in wild] == ["trainproof-lr_hot"]


#: A fine-tuning whose learning rate was far too high from the first step: norms and losses as they came.
HOT = [0.73, 672.2, 54.1, 24.5, 761.2, 47.3, 147.8, 2.6, 2.6, 0.6, 11.4, 2.8, 0.7, 0.5, 0.6, 0.8, 0.3, 0.6, 0.4, 0.5]
HOT_LOSS = [1.4, 3.3, 24.2, 26.4, 20.1, 16.3, 36.8, 24.7, 12.4, 9.9, 9, 8.9, 8.6, 8.5, 8.3, 8.2, 8.4, 8.4, 8.2, 8.6]


def test_an_explosion_in_the_first_rows_is_found() -> None:
    (finding,) = gradients(run_of({"grad_norm": HOT, "loss": HOT_LOSS}, every=10)).findings
    assert (finding.kind, finding.severity, finding.first_step) == ("exploding-gradient", "warning", 10)


def test_the_frame_has_a_row_a_series_and_the_same_columns_when_empty() -> None:
    norm = np.array([1.0] * 10 + [0.0] * 5 + [np.nan] * 2 + [100.0] * 8)
    result = gradients(run_of({"grad_norm": norm, "generator/update_ratio/fc": norm, "loss": norm}))
    empty = gradients(run_of({"loss": norm}))
    assert empty.frame.schema == result.frame.schema and empty.frame.is_empty() and len(empty.not_applicable) == 7
    row = result.frame.row(0, named=True)
    assert (row["quantity"], row["points"], row["non_finite"], row["zeros"]) == ("grad_norm", 25, 2, 0.2)
    assert (row["early"], row["late"], row["lowest"], row["highest"], row["decades"]) == (1, 100, 0, 100, 2)
    assert result.frame.row(1, named=True)["layer"] == "fc" and result.frame["model"].to_list() == ["", "generator"]


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            ["grad_norm", "grad_norm/0", "grad_norm/1", "grad_norm/2", "update_ratio", "update_ratio/0", "loss", "lr",
             "update_ratio/1", "dead_units/0", "clip_rate", "grad_norm_after_clip", "amp_scale", "amp_skipped_count"]
        ),
        st.lists(st.floats(width=64) | st.just(0.0), max_size=30),
    ),
    st.booleans(),
)  # fmt: skip
@example({"grad_norm": [0.0] * 3, "loss": [9e307, 0.0, 9e307]}, True)
@example({"amp_scale": [0.0, 0.0, 1024.0]}, True)
def test_any_numbers_give_a_result_that_can_be_drawn(columns: dict[str, list[float]], steps: bool) -> None:
    result = gradients(run_of(columns, steps=steps))
    assert {f.kind for f in result.findings}.isdisjoint({n.kind for n in result.not_applicable})
    assert repr(result)


def layered() -> at.Run:
    steps = np.arange(1000)
    grown = np.where(steps == 500, 1e6, 1.0)
    columns = {f"grad_norm/blocks.{i}": grown if i == 2 else np.ones(1000) for i in range(12)}
    return run_of({**columns, "grad_norm/blocks.3": np.zeros(1000), "loss": 2.0 - 1e-3 * steps}, every=10)


def test_the_heat_map_shows_every_layer_in_order_and_loses_no_leap() -> None:
    drawn = gradients(layered()).plot()
    drawn.figure.canvas.draw()
    (mesh,) = drawn.collections
    shown = np.ma.asarray(mesh.get_array())
    assert shown.shape == (12, 400) and shown.max() == pytest.approx(6.0)
    assert int(np.argmax(shown.max(axis=1))) == 2 and np.ma.getmaskarray(shown)[3].all()
    assert [t.get_text() for t in drawn.get_yticklabels()][:3] == ["blocks.0", "blocks.1", "blocks.2"]
    (bar,) = [axes for axes in drawn.figure.axes if axes is not drawn]
    assert "gradient norm" in bar.get_ylabel() and drawn.get_xlabel() == "step"


def test_the_norm_is_drawn_over_steps_beside_what_clipping_left() -> None:
    before = dict(mpl.rcParams)
    columns = {"grad_norm": np.linspace(1, 9, 50), "grad_norm_after_clip": np.ones(50)}
    drawn = gradients(run_of(columns)).plot(view="norm", lw=3)
    first, second = drawn.get_lines()
    np.testing.assert_array_equal(first.get_ydata(), columns["grad_norm"])
    np.testing.assert_array_equal(second.get_ydata(), 1.0)
    assert drawn.get_ylabel() == "gradient norm (L2)" and drawn.get_yscale() == "log" and first.get_linewidth() == 3
    assert dict(mpl.rcParams) == before


def test_an_unknown_view_or_model_is_refused_with_the_known_ones() -> None:
    result = gradients(run_of({"generator/grad_norm": np.ones(20)}))
    with pytest.raises(ValueError, match="unknown view 'layer'; did you mean 'layers'"):
        result.plot(view="layer")
    with pytest.raises(ValueError, match="unknown model 'generater'; did you mean 'generator'"):
        result.plot(model="generater")
    assert result.plot(model="generator").get_lines()


def test_a_log_of_norms_alone_says_what_it_does_not_show() -> None:
    result = gradients(run_of({"loss": np.linspace(2, 1, 50), "grad_norm": np.linspace(1, 2, 50)}))
    reasons = {n.kind: n.reason for n in result.not_applicable}
    assert set(reasons) == {"dead-units", "frozen-layer", "clipping", "amp-collapse", "update-ratio"}
    assert "at.watch" in reasons["dead-units"]


def test_it_stands_at_the_front_door_and_in_the_diagnosis() -> None:
    assert at.gradients is gradients
    diagnosis = at.diagnose(run_of({"grad_norm": HOT, "loss": HOT_LOSS}), checks=["gradients"])
    assert diagnosis.status == "warning" and "exploding-gradient" in diagnosis.judged
