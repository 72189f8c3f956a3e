"""Units that died under weight decay are found by rows that only shrink, and by moments that faded; others are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from analysis.findings import Finding
from analysis.weights.only_decayed import fades
from tests.analysis.weights.trained import Training, loud, story

DECAYING = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=2e-3, weight_decay=0.1),
    "adamw weakly": lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.01),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, weight_decay=1e-3),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, weight_decay=5e-4),
}


def training(folder: Path, model: str, optimizer: str, *, half: bool = False, seed: int = 0) -> Training:
    """A training with weight decay whose saves hold the weights alone, in float32 or bfloat16."""
    # What bfloat16 rounds away of the others' learning takes twice as long to stand out.
    made = Training.of(folder, model, seed=seed, every=120 if half else 60)
    made.optimizer = DECAYING[optimizer](made.model.parameters())
    return alone(made, half=half)


def alone(made: Training, *, half: bool = False) -> Training:
    kept = {torch.float32: torch.bfloat16} if half else {}
    made.extra = lambda t: {
        "model": {key: value.to(kept.get(value.dtype, value.dtype)) for key, value in t.model.state_dict().items()},
        "optimizer": None,
    }
    return made


def killed(made: Training, share: float = 0.5, at: int = 10) -> Training:
    """The same, with such a share of the units of one layer pushed below zero for good."""

    def kill(now: Training) -> None:
        bias = dict(now.model.named_parameters()).get("bn1.bias", dict(now.model.named_parameters()).get("2.bias"))
        assert bias is not None
        if now.step == at:
            with torch.no_grad():
                bias[: int(share * len(bias))] = -100

    made.after_step = kill
    return made


def told(found: list[Finding]) -> list[Finding]:
    return [f for f in found if f.kind == "dead-units"]


PLANTED = [
    (model, optimizer, half)
    for model in ("mlp", "conv")
    for optimizer in DECAYING
    for half in (False, True)
    if not (half and optimizer == "adamw weakly")  # bfloat16 does not show a decay of 1e-5 a step over 120 steps
]


@pytest.mark.parametrize(("model", "optimizer", "half"), PLANTED)
def test_units_that_died_are_found_by_rows_that_only_decay(
    model: str, optimizer: str, half: bool, tmp_path: Path
) -> None:
    killed(training(tmp_path, model, optimizer, half=half, seed=len(optimizer))).run(4)
    layer = {"mlp": "2", "conv": "conv1"}[model]
    # Where half of its inputs are gone, a unit of the layer behind may die too: that is worth a word of its own.
    (one,) = [f for f in told(story(tmp_path)) if f.evidence["layer"] == layer]
    assert one.severity == "warning"
    assert one.evidence["sign"] == "decayed" and 0.9 < float(one.evidence["factor"] or 0) < 1
    assert float(one.evidence["share"] or 0) == pytest.approx(0.5, abs=0.13)
    assert "only weight decay moved them" in one.message and "ReLU" in one.causes[0]


def test_the_factor_of_dead_rows_is_what_the_optimizer_multiplies_by(tmp_path: Path) -> None:
    killed(training(tmp_path, "mlp", "adamw")).run(4)
    (one,) = told(story(tmp_path))
    assert one.evidence["factor"] == pytest.approx((1 - 2e-3 * 0.1) ** 60, rel=1e-5)


def test_one_save_with_its_optimizer_tells_of_units_without_a_gradient_for_hundreds_of_steps(tmp_path: Path) -> None:
    made = killed(Training.of(tmp_path, "mlp", "adamw", every=300), at=20)
    made.run(1)
    (one,) = told(story(tmp_path))
    assert (one.severity, one.evidence["sign"], one.evidence["layer"]) == ("warning", "faded", "2")
    assert 200 <= float(one.evidence["steps_without_gradient"] or 0) <= 290
    assert float(one.evidence["dead"] or 0) == pytest.approx(16, abs=2)


def test_units_are_told_once_where_moments_and_weights_both_show_them(tmp_path: Path) -> None:
    killed(Training.of(tmp_path, "mlp", "adamw", every=100)).run(4)
    assert len(told(story(tmp_path))) == 1


@pytest.mark.parametrize(("model", "trainings"), [("mlp", 12), ("conv", 8), ("transformer", 3)])
def test_sound_trainings_with_weight_decay_are_left_in_peace(model: str, trainings: int, tmp_path: Path) -> None:
    cried = []
    for seed in range(trainings):
        folder = tmp_path / str(seed)
        folder.mkdir()
        training(folder, model, list(DECAYING)[seed % 2], half=seed % 4 > 1, seed=seed).run(2)
        # A ReLU network of this size loses a fifth of some layer's units now and then: that is worth a word.
        cried += loud(story(folder)) if model == "mlp" else [f.message for f in told(story(folder))]
    assert cried == []


class Items(nn.Module):
    """A table of items, 40 of 64 of which occur, under a name that says nothing of it; two layers behind."""

    def __init__(self) -> None:
        super().__init__()
        self.items, self.up, self.down = nn.Embedding(64, 6), nn.Linear(6, 32), nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        chosen = (x.abs().sum(1) * 1000).long() % 40
        return self.down(functional.gelu(self.up(self.items(chosen))))


class Uneven(nn.Module):
    """Half of the units of a layer hardly count: their gradients are a thousandth of the others'."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(8, 32), nn.Linear(32, 32), nn.Linear(32, 4)
        self.register_buffer("scale", torch.cat([torch.full((16,), 1e-3), torch.ones(16)]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(functional.gelu(self.second(functional.gelu(self.first(x) * self.scale))))


def normed() -> nn.Module:
    return nn.Sequential(weight_norm(nn.Linear(8, 32)), nn.GELU(), weight_norm(nn.Linear(32, 32)), nn.Linear(32, 4))


@pytest.mark.parametrize("optimizer", DECAYING)
@pytest.mark.parametrize("model", [Items, Uneven, normed])
def test_rows_that_do_not_occur_hardly_learn_or_are_normed_are_no_dead_units(
    model: type[nn.Module], optimizer: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module = model()
    alone(Training(tmp_path, module, DECAYING[optimizer](module.parameters()), every=60)).run(4)
    assert told(story(tmp_path)) == []


def test_a_frozen_layer_that_decays_as_a_whole_has_no_dead_units(tmp_path: Path) -> None:
    made = training(tmp_path, "mlp", "adamw")
    made.model[2].weight.register_hook(torch.zeros_like)
    made.run(4)
    assert [f for f in told(story(tmp_path)) if f.evidence["layer"] == "2"] == []


@given(dead=st.integers(1, 12), factor=st.floats(0.5, 0.9999), steps=st.integers(1, 2000), seed=st.integers(0, 2**16))
def test_rows_on_their_own_line_are_told_from_those_that_turned(
    dead: int, factor: float, steps: int, seed: int
) -> None:
    made = np.random.default_rng(seed)
    factors = np.where(np.arange(16) < dead, factor, made.uniform(0.8, 1.2, 16))
    off = np.where(np.arange(16) < dead, 1e-8, made.uniform(0.05, 0.3, 16))
    found = fades(factors, off, off < 1e-6, width=32, dtype="float32", steps=steps)
    assert found is not None and found.rows.tolist() == (np.arange(16) < dead).tolist()
    assert found.factor == factor


@pytest.mark.parametrize(
    ("factors", "off"),
    [
        ([0.97] * 8, [1e-7] * 8),  # all of them: a frozen layer
        ([1.0] * 4 + [0.9] * 4, [1e-7] * 4 + [0.1] * 4),  # nothing shrank
        ([0.97] * 4 + [0.9] * 4, [1e-7] * 4 + [1e-5] * 4),  # the others hardly turned either
        ([0.97] * 4 + [np.nan] * 4, [1e-7] * 4 + [np.nan] * 4),  # the others are zero or NaN
    ],
)
def test_rows_that_may_only_seem_to_decay_are_not_judged(factors: list[float], off: list[float]) -> None:
    place = np.array(off)
    assert fades(np.array(factors), place, place < 1e-6, width=32, dtype="float32", steps=100) is None


def test_rows_that_shrank_by_other_factors_are_not_of_the_group() -> None:
    factors, off = np.array([0.97] * 5 + [0.5, 1.1, 0.9]), np.array([1e-7] * 6 + [0.1, 0.2])
    found = fades(factors, off, off < 1e-6, width=32, dtype="float32", steps=100)
    assert found is not None and found.rows.tolist() == [True] * 5 + [False] * 3


def test_wide_rows_are_read_to_their_end_before_they_are_called_dead(tmp_path: Path) -> None:
    made = torch.Generator().manual_seed(0)
    one = torch.randn(32, 400, generator=made)
    two = torch.randn(32, 400, generator=made)
    two[:16] = 0.97 * one[:16]
    two[8:16, 300:] = torch.randn(8, 100, generator=made)  # these learned, in columns far behind
    for step, weight in ((100, one), (200, two)):
        torch.save(
            {"model": {"a.weight": weight, "b.weight": weight.T}, "global_step": step}, tmp_path / f"c-{step}.pt"
        )
    (found,) = told(story(tmp_path))
    assert (found.metric, found.evidence["dead"], found.severity) == ("a.weight", 8, "info")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(40, 64), (40, 16, 3, 3)])
def test_every_type_and_shape_shows_rows_that_shrank_to_its_own_rounding(
    dtype: torch.dtype, shape: tuple[int, ...], tmp_path: Path
) -> None:
    made = torch.Generator().manual_seed(0)
    one, two = (torch.randn(shape, generator=made, dtype=torch.float64) for _ in range(2))
    two[:16] = 0.97 * one[:16]
    two[16:20] = one[16:20] * (0.97 + 0.05 * torch.randn(shape[1:], generator=made, dtype=torch.float64))  # turned
    for step, weight in ((100, one), (200, two)):
        layers = {"a.weight": weight.to(dtype), "b.weight": weight.flatten(1).T.to(dtype), "c.weight": weight.to(dtype)}
        torch.save({"model": layers, "global_step": step}, tmp_path / f"c-{step}.pt")
    found = [f for f in told(story(tmp_path)) if f.evidence["sign"] == "decayed"]
    (finding,) = found
    assert (finding.metric, finding.evidence["dead"], finding.severity) == ("a.weight", 16, "warning")
    assert finding.evidence["factor"] == pytest.approx(0.97, rel=1e-3)


def test_an_optimizer_that_says_it_does_not_decay_leaves_rows_that_shrank_alone(tmp_path: Path) -> None:
    killed(training(tmp_path, "mlp", "adamw")).run(3)
    for path in tmp_path.iterdir():
        state = torch.load(path)
        torch.save(state | {"optimizer": {"state": {}, "param_groups": [{"weight_decay": 0.0}]}}, path)
    assert told(story(tmp_path)) == []
