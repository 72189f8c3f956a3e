"""One NaN is told once, however many copies of it a save holds, and with all the places where it stands."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import aftertrain as at
from analysis.findings import Finding
from tests.analysis.weights.trained import Training, story


def broken(found: list[Finding]) -> Finding:
    (one,) = [f for f in found if f.kind == "checkpoint-non-finite"]
    assert one.causes and one.suggestions
    return one


def averaged(folder: Path) -> Training:
    """A training whose saves hold an average and the optimizer's states."""
    made = Training.of(folder, "mlp", "adamw")
    made.extra = lambda t: {"ema": {key: 0.5 * value for key, value in t.model.state_dict().items()}}
    return made.run(1)


def test_a_nan_that_one_step_brought_into_weights_average_and_moments_is_one_finding(tmp_path: Path) -> None:
    made = averaged(tmp_path)
    for parameter in made.model.parameters():
        parameter.grad = torch.full_like(parameter, math.nan)
    made.optimizer.step()
    made.save("checkpoint-20.pt")
    one = broken(story(tmp_path))
    assert (one.severity, one.evidence["role"], one.evidence["tensors"]) == ("critical", "weights", 10)
    assert one.evidence["roles"] == "weights, averaged weights, optimizer states"
    assert one.evidence["tensors_elsewhere"] == 30 and "of the same parameters" in one.message
    assert "also in 10 of 10 tensors of the averaged weights and 20 of 30 tensors of the optimizer" in one.message


def test_moments_of_other_parameters_are_not_called_the_same(tmp_path: Path) -> None:
    made = averaged(tmp_path)
    with torch.no_grad():
        made.model[0].weight[0, 0] = math.nan
    made.optimizer.state[made.model[4].weight]["exp_avg"][0, 0] = math.inf
    made.save("checkpoint-20.pt", ema=None)
    one = broken(story(tmp_path))
    assert (one.severity, one.metric, one.evidence["roles"]) == ("critical", "0.weight", "weights, optimizer states")
    assert "also in 1 of 30 tensors of the optimizer states" in one.message and "same" not in one.message


@pytest.mark.parametrize(("value", "severity"), [(math.inf, "warning"), (math.nan, "critical")])
def test_states_alone_are_told_by_themselves(value: float, severity: str, tmp_path: Path) -> None:
    made = averaged(tmp_path)
    made.optimizer.state[made.model[4].weight]["exp_avg_sq"][0, 0] = value
    made.save("checkpoint-20.pt")
    one = broken(story(tmp_path))
    assert (one.severity, one.evidence["role"], one.evidence["tensors_elsewhere"]) == (severity, "optimizer", 0)
    assert "also" not in one.message


def test_a_sound_save_with_average_and_states_has_no_finding(tmp_path: Path) -> None:
    averaged(tmp_path)
    assert [f for f in story(tmp_path) if f.kind == "checkpoint-non-finite"] == []


def test_a_nan_that_spreads_from_save_to_save_is_told_once_from_its_first_save(tmp_path: Path) -> None:
    made = averaged(tmp_path)
    with torch.no_grad():
        made.model[2].bias[0] = math.nan
    made.run(2)
    one = broken(story(tmp_path))
    assert (one.severity, one.first_step, one.last_step, one.evidence["saves"]) == ("critical", 40, 60, 2)


@pytest.mark.parametrize(("value", "said"), [(math.nan, "1 NaN"), (math.inf, "1 infinite value")])
def test_a_difference_tells_all_tensors_that_are_finite_no_more_in_one_finding(
    value: float, said: str, tmp_path: Path
) -> None:
    state: dict[str, Any] = {f"{n}.weight": torch.ones(4, 4) for n in range(3)} | {"mask": torch.full((4,), -math.inf)}
    save_file(state, tmp_path / "a.safetensors")
    state["0.weight"][0, 0] = state["2.weight"][1, 1] = value
    save_file(state, tmp_path / "b.safetensors")
    found = at.diff(tmp_path / "a.safetensors", tmp_path / "b.safetensors", max_drift=10.0)
    one = broken(list(found.findings))
    assert (one.severity, one.evidence["tensors"]) == ("critical", 2)
    assert f"holds {said} that it did not hold before; so do 1 more of 4 tensors" in one.message
