"""The loss between two saves, of functions whose truth is known and of networks that were trained."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
import torch

from analysis.weights.line import SCHEMA, LineResult, line
from eventstream.errors import InputError, MissingDependencyError
from tests.analysis.weights.checkpoint_files import opened
from tests.analysis.weights.small_network import loss_of, trained


def made(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def between(folder, a, b, loss, **options) -> LineResult:
    with opened(folder, a, name="a") as one, opened(folder, b, name="b") as other:
        return line(one, other, loss, **options)


def test_the_loss_of_a_linear_model_along_a_line_is_the_parabola_that_algebra_gives(tmp_path):
    X, y = torch.randn(50, 8, generator=made()).double(), torch.randn(50, generator=made(1)).double()
    a, b = ({"w": torch.randn(8, generator=made(seed)).double()} for seed in (2, 3))

    def squares(state):
        return ((X @ state["w"] - y) ** 2).mean()

    result = between(tmp_path, a, b, squares, points=7)
    along = X @ (b["w"] - a["w"])
    rest = X @ a["w"] - y
    t = result.frame["alpha"].to_numpy()
    expected = float((along**2).mean()) * t**2 + 2 * float((along * rest).mean()) * t + float((rest**2).mean())
    np.testing.assert_allclose(result.frame["loss"], expected, rtol=1e-12)
    assert result.barrier == 0 and result.frame.schema == pl.Schema(SCHEMA)  # a convex loss has none


def test_two_networks_of_other_seeds_have_a_barrier_and_two_saves_of_one_run_have_none(tmp_path):
    early, late = trained(seed=0)
    _, other = trained(seed=1)
    within = between(tmp_path, early, late, loss_of)
    across = between(tmp_path, late, other, loss_of)
    assert within.barrier is not None and across.barrier is not None and across.barrier_at is not None
    assert within.barrier <= 0.02 * (within.frame["loss"][0] - within.frame["loss"][-1])
    assert across.barrier > 0.1 and 0 < across.barrier_at < 1
    assert across.frame["loss"][0] == pytest.approx(loss_of(late)) == within.frame["loss"][-1]


def test_the_barrier_is_measured_from_the_line_between_the_losses_of_the_ends(tmp_path):
    result = between(tmp_path, {"w": torch.zeros(1)}, {"w": torch.ones(1)}, lambda s: 10 * s["w"].item(), points=3)
    assert result.barrier == 0
    bump = {0.0: 0.0, 0.5: 4.0, 1.0: 2.0}
    result = between(tmp_path, {"w": torch.zeros(1)}, {"w": torch.ones(1)}, lambda s: bump[s["w"].item()], points=3)
    assert (result.barrier, result.barrier_at) == (3.0, 0.5)
    assert "barrier of 3 at 0.50" in result.plot().get_title(loc="left")


def test_the_state_has_the_models_names_and_the_stored_types(tmp_path):
    a = {
        "module.net.weight": torch.zeros(2, 2, dtype=torch.bfloat16),
        "module.net.count": torch.tensor(3),
        "module.net.mask": torch.tensor([True, False]),
        "optimizer.state.0.exp_avg": torch.zeros(2),
    }
    b = a | {"module.net.weight": torch.ones(2, 2, dtype=torch.bfloat16), "module.net.count": torch.tensor(9)}
    seen = []
    between(tmp_path, a, b, lambda state: seen.append(state) or 0.0, points=5)
    assert all(set(state) == {"net.weight", "net.count", "net.mask"} for state in seen)
    assert [state["net.weight"].dtype for state in seen] == [torch.bfloat16] * 5
    assert [state["net.weight"][0, 0].item() for state in seen] == [0, 0.25, 0.5, 0.75, 1]
    assert [state["net.count"].item() for state in seen] == [3, 3, 9, 9, 9]
    assert all(state["net.mask"].tolist() == [True, False] for state in seen)


def test_both_ends_are_what_is_stored_bit_for_bit(tmp_path):
    a = {"w": torch.tensor([math.inf, 1e-45, 1.0, -0.0])}
    b = {"w": torch.tensor([1.0, math.nan, 3.4e38, 0.1])}
    seen = []
    between(tmp_path, a, b, lambda state: seen.append(state["w"]) or 0.0, points=2)
    for found, stored in zip(seen, (a["w"], b["w"]), strict=True):
        assert found.view(torch.int32).tolist() == stored.view(torch.int32).tolist()


def test_a_loss_that_writes_to_its_state_changes_no_other_place(tmp_path):
    def spoiling(state):
        value = state["w"].sum().item()
        state["w"].fill_(100)
        return value

    result = between(tmp_path, {"w": torch.zeros(3)}, {"w": torch.ones(3)}, spoiling, points=3)
    assert result.frame["loss"].to_list() == [0, 1.5, 3]


def test_what_the_loss_raises_passes_through_with_the_place(tmp_path):
    def failing(state):
        if state["w"].item() > 0.4:
            raise ZeroDivisionError("no batch")
        return 0.0

    with pytest.raises(ZeroDivisionError, match="no batch") as caught:
        between(tmp_path, {"w": torch.zeros(1)}, {"w": torch.ones(1)}, failing, points=3)
    assert caught.value.__notes__ == ["raised by loss(state_dict) at alpha 0.5 (point 2 of 3 on the line)"]


@pytest.mark.parametrize("said", [None, "low"])
def test_a_loss_that_says_no_number_is_told_so(tmp_path, said):
    with pytest.raises(TypeError, match=r"returned .* at alpha 0 .* must return a number"):
        between(tmp_path, {"w": torch.zeros(1)}, {"w": torch.ones(1)}, lambda state: said)


def test_a_loss_of_nan_on_the_way_is_a_barrier_and_at_an_end_leaves_none_to_measure(tmp_path):
    ends = {"w": torch.zeros(1)}, {"w": torch.ones(1)}
    way = between(tmp_path, *ends, lambda s: math.nan if s["w"].item() == 0.5 else 1.0, points=3)
    assert way.barrier == math.inf and way.barrier_at == 0.5 and way.plot().get_title(loc="left")
    end = between(tmp_path, *ends, lambda s: math.nan if s["w"].item() == 1 else 1.0, points=3)
    assert end.barrier is None and "not finite" in end.plot().get_title(loc="left")


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"v": torch.ones(2)}, "has no 'w'"),
        ({"w": torch.ones(2), "v": torch.ones(2)}, "has no 'v'"),
        ({"w": torch.ones(3)}, r"'w' is \[2\] in .* and \[3\] in"),
        ({"optimizer.state.0.exp_avg": torch.ones(2)}, "holds no weights of a model"),
    ],
)
def test_saves_of_other_models_are_refused_and_what_differs_is_named(tmp_path, other, said):
    with pytest.raises(InputError, match=said):
        between(tmp_path, {"w": torch.ones(2)}, other, lambda state: 0.0)


def test_quantised_weights_are_refused(tmp_path):
    with opened(tmp_path, {"w": torch.ones(4, dtype=torch.uint8)}) as found:
        quantised = found.but(tensors=tuple(type(t)(**_fields(t), scale=0.1) for t in found.tensors))
        with pytest.raises(InputError, match=r"'w' of .* is quantised"):
            line(quantised, quantised, lambda state: 0.0)


def _fields(tensor):
    return {name: getattr(tensor, name) for name in ("name", "dtype", "shape", "storage", "role", "parameter")}


def test_saves_in_other_types_go_by_their_numbers_in_the_type_of_the_first(tmp_path):
    a, b = {"w": torch.zeros(2, dtype=torch.float16)}, {"w": torch.full((2,), 0.5)}
    seen = []
    between(tmp_path, a, b, lambda state: seen.append(state["w"]) or 0.0, points=3)
    assert [w.dtype for w in seen] == [torch.float16] * 3 and [w[0].item() for w in seen] == [0, 0.25, 0.5]


def test_fewer_points_than_ends_are_refused(tmp_path):
    with pytest.raises(ValueError, match="points is 1; it must be a whole number of at least 2"):
        between(tmp_path, {"w": torch.ones(1)}, {"w": torch.ones(1)}, lambda state: 0.0, points=1)


def test_a_loss_that_falls_all_the_way_has_no_hill_whatever_the_definition_of_a_barrier_says(tmp_path):
    falls = between(tmp_path, {"w": torch.zeros(1)}, {"w": torch.ones(1)}, lambda s: 1 - s["w"].item() ** 2, points=5)
    assert falls.barrier == 0.25
    assert falls.plot().get_title(loc="left") == "no hill between the saves: at most 0.25 above an even change, at 0.50"
    hill = between(tmp_path, {"w": -torch.ones(1)}, {"w": torch.ones(1)}, lambda s: 1 - s["w"].item() ** 2, points=5)
    assert hill.plot().get_title(loc="left") == "a barrier of 1 at 0.50 of the way, 1 above the higher end"


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (torch.ones(2, 2), r"returned a tensor of shape \[2, 2\] at alpha 0 "),
        (1j, r"returned 1j at alpha 0 "),
        ([1.0], r"returned \[1.0\] at"),
        ("0.5", "returned '0.5' at"),
        (None, "returned None at"),
    ],
)
def test_what_is_no_number_is_refused_with_its_place(tmp_path, returned, said):
    with pytest.raises(TypeError, match=said):
        between(tmp_path, {"w": torch.ones(1)}, {"w": torch.ones(1)}, lambda state: returned)


def test_a_loss_that_still_hangs_on_its_gradient_is_a_number_without_a_warning(tmp_path):
    given = {"w": torch.ones(1)}
    result = between(tmp_path, given, given, lambda s: (s["w"].requires_grad_() ** 2).sum(), points=2)
    assert result.frame["loss"].to_list() == [1.0, 1.0]


def test_without_torch_the_line_says_what_to_install(tmp_path, monkeypatch):
    with opened(tmp_path, {"w": torch.ones(1)}) as save:
        monkeypatch.setattr("importlib.import_module", _no_torch)
        with pytest.raises(MissingDependencyError, match=r"a loss of the weights needs torch: pip install"):
            line(save, save, lambda state: 0.0)


def _no_torch(name: str):
    raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_progress_is_told_and_the_figure_draws_the_frame(tmp_path):
    told: list[tuple[int, int, str]] = []
    result = between(
        tmp_path,
        {"w": torch.zeros(1)},
        {"w": torch.ones(1)},
        lambda s: s["w"].item() ** 2,
        points=3,
        names=("step 1", "step $2$"),
        progress=lambda *args: told.append(args),
    )
    assert told == [(1, 3, "alpha 0"), (2, 3, "alpha 0.5"), (3, 3, "alpha 1")]
    ax = result.plot()
    np.testing.assert_allclose(ax.lines[1].get_ydata(), result.frame["loss"])
    assert ax.get_xlabel() == r"share of the way from step 1 to step \$2\$"
    assert ax.get_title(loc="left").startswith("no barrier between the saves") and result.status == "healthy"
    with pytest.raises(TypeError, match="given colour"):
        result.plot(colour="red")
