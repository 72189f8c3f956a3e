"""The loss on a plane through a save, against planted surfaces and a network that was trained."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
import torch

import aftertrain as at
from analysis.weights.landscape import RANDOM, SCHEMA, LandscapeResult, landscape
from eventstream.errors import InputError
from tests.analysis.weights.checkpoint_files import opened
from tests.analysis.weights.small_network import loss_of, trained


def around(folder, state, loss, **options) -> LandscapeResult:
    with opened(folder, state) as checkpoint:
        return landscape(checkpoint, loss, **options)


def weights(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seen_states(folder, state, **options) -> list[dict[str, torch.Tensor]]:
    seen: list[dict[str, torch.Tensor]] = []
    around(folder, state, lambda given: seen.append(given) or 0.0, **options)
    return seen


def test_a_bowl_around_the_save_has_the_height_that_the_filters_lengths_give(tmp_path):
    w = weights(6, 10).double()
    result = around(tmp_path, {"w": w}, lambda s: ((s["w"] - w) ** 2).sum(), points=5)
    on_axis = result.frame.filter(pl.col("y") == 0)
    # along one direction each filter moves by x times its own length
    expected = on_axis["x"].to_numpy() ** 2 * float((w**2).sum())
    np.testing.assert_allclose(on_axis["loss"], expected, rtol=1e-5, atol=1e-12)
    assert result.centre == 0 and result.frame.schema == pl.Schema(SCHEMA) and result.frame.height == 25


@pytest.mark.parametrize("shape", [(8, 5), (8, 4, 3, 3), (8, 4, 3)])
def test_every_filter_moves_by_its_own_length_and_what_has_one_axis_stays(tmp_path, shape):
    state = {"w": weights(*shape), "norm.weight": torch.ones(8), "norm.running_mean": torch.ones(8)}
    state["w"][2] = 0  # a dead filter has no length to move by
    moved = seen_states(tmp_path, state, points=3)[5]  # (1, 0)
    change = (moved["w"] - state["w"]).reshape(8, -1).norm(dim=1)
    torch.testing.assert_close(change, state["w"].reshape(8, -1).norm(dim=1))
    assert torch.equal(moved["norm.weight"], torch.ones(8)) and torch.equal(moved["norm.running_mean"], torch.ones(8))


def test_the_save_itself_lies_in_the_middle_bit_for_bit(tmp_path):
    w = weights(4, 4).to(torch.bfloat16)
    states = seen_states(tmp_path, {"w": w, "ids": torch.arange(3)}, points=3)
    assert torch.equal(states[4]["w"], w) and all(s["w"].dtype == torch.bfloat16 for s in states)
    assert all(torch.equal(s["ids"], torch.arange(3)) for s in states)


def test_tied_weights_move_as_one_and_stay_tied(tmp_path):
    tied = weights(6, 4)
    torch.save({"embed.weight": tied, "head.weight": tied, "apart.weight": tied.clone()}, tmp_path / "model.pt")
    seen: list[dict[str, torch.Tensor]] = []
    found = at.checkpoints(tmp_path / "model.pt")
    found.landscape(lambda state: seen.append(state) or 0.0, points=3)
    assert all(torch.equal(state["embed.weight"], state["head.weight"]) for state in seen)
    assert not torch.equal(seen[0]["embed.weight"], seen[0]["apart.weight"])


def test_a_save_that_no_random_direction_moves_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"two axes or more.*pass directions"):
        around(tmp_path, {"norm.weight": torch.ones(3), "ids": torch.zeros(2, 2, dtype=torch.long)}, lambda s: 1.0)


def test_the_two_directions_are_independent_and_a_seed_gives_the_same_ones(tmp_path):
    state = {"w": weights(40, 50)}

    def directions(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        states = seen_states(tmp_path, state, points=3, seed=seed)
        return states[5]["w"] - state["w"], states[7]["w"] - state["w"]

    x, y = directions(0)
    assert abs(torch.nn.functional.cosine_similarity(x.ravel(), y.ravel(), dim=0)) < 0.1
    assert torch.equal(directions(0)[0], x) and not torch.equal(directions(1)[0], x)


def test_two_other_saves_lie_at_one_of_each_axis(tmp_path):
    states = [{"w": weights(5, 3, seed=i), "b": weights(5, seed=9 + i)} for i in range(3)]
    seen = []
    with (
        opened(tmp_path, states[0], name="a") as a,
        opened(tmp_path, states[1], name="b") as b,
        opened(tmp_path, states[2], name="c") as c,
    ):
        result = landscape(a, lambda s: seen.append(s) or float(len(seen)), points=3, directions=(b, c))
    for place, expected in ((4, states[0]), (5, states[1]), (7, states[2])):
        for name, value in expected.items():
            torch.testing.assert_close(seen[place][name], value)
    assert result.axis_names == ("towards b.safetensors", "towards c.safetensors")


def test_a_trained_network_lies_near_the_bottom_of_its_surroundings(tmp_path):
    _, late = trained(seed=0)
    result = around(tmp_path, late, loss_of, points=5)
    assert result.centre == pytest.approx(loss_of(late))
    assert result.centre <= result.frame["loss"].min() + 1e-3
    edge = result.frame.filter((pl.col("x").abs() == 1) | (pl.col("y").abs() == 1))
    assert edge["loss"].median() > 5 * result.centre


def test_an_even_number_of_points_leaves_the_save_out_and_span_sets_the_corners(tmp_path):
    result = around(tmp_path, {"w": weights(3, 3)}, lambda s: 1.0, points=2, span=0.5)
    assert result.frame.rows() == [(-0.5, -0.5, 1.0), (0.5, -0.5, 1.0), (-0.5, 0.5, 1.0), (0.5, 0.5, 1.0)]
    assert result.centre is None and _title_of(result.plot()) == "loss at model.safetensors: around it 1 to 1"


def test_the_figure_shows_the_surface_and_leaves_what_is_not_finite_white(tmp_path):
    w = weights(4, 4)
    bowl = around(tmp_path, {"w": w}, lambda s: ((s["w"] - w) ** 2).sum() + 1, points=5, name="step $9$")
    ax = bowl.plot(levels=8)
    assert _title_of(ax).startswith(r"loss at step \$9\$: 1, around it 1 to ")
    assert ax.get_xlabel() == "random direction 1 (norms of the filters)" and ax.collections
    torn = around(tmp_path, {"w": w}, lambda s: math.nan if s["w"][0, 0] > w[0, 0] else 2.0, points=3)
    assert torn.frame["loss"].is_nan().any() and _title_of(torn.plot())
    nowhere = around(tmp_path, {"w": w}, lambda s: math.inf, points=3)
    assert _title_of(nowhere.plot()) == "the loss around model.safetensors is nowhere finite"
    with pytest.raises(TypeError, match="not colour"):
        bowl.plot(colour="red")


def test_what_the_loss_raises_passes_through_with_the_place(tmp_path):
    def failing(state):
        raise KeyError("head.weight")

    with pytest.raises(KeyError) as caught:
        around(tmp_path, {"w": weights(3, 3)}, failing, points=3)
    assert caught.value.__notes__ == ["raised by loss(state_dict) at x -1, y -1 (place 1 of 9 in the plane)"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"points": 1}, "points is 1; it must be a whole number of at least 2"),
        ({"points": 5.0}, "points is 5.0; it must be a whole number"),
        ({"span": 0.0}, "span is 0.0; it must be positive"),
        ({"span": math.inf}, "span is inf"),
        ({"directions": "random"}, f"directions is 'random'; it must be {RANDOM!r} or two other saves"),
        ({"directions": ()}, r"directions is \(\)"),
    ],
)
def test_options_that_make_no_plane_are_refused(tmp_path, options, said):
    with pytest.raises(ValueError, match=said):
        around(tmp_path, {"w": weights(3, 3)}, lambda s: 0.0, **options)


def test_saves_of_another_model_make_no_direction(tmp_path):
    a, b = opened(tmp_path, {"w": weights(3, 3)}, name="a"), opened(tmp_path, {"v": weights(3, 3)}, name="b")
    with a, b, pytest.raises(InputError, match="has no 'w'"):
        landscape(a, lambda s: 0.0, directions=(b, b))


def test_progress_is_told_for_each_place(tmp_path):
    told: list[tuple[int, int, str]] = []
    around(tmp_path, {"w": weights(3, 3)}, lambda s: 0.0, points=2, progress=lambda *args: told.append(args))
    assert told[0] == (1, 4, "x -1, y -1") and told[-1][:2] == (4, 4)


def _title_of(ax) -> str:
    return ax.get_title(loc="left")
