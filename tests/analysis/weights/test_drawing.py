"""Figures of checkpoints: what is drawn is what was measured, and every label can be read, however many there are."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from safetensors.torch import save_file

import aftertrain as at
from analysis.checkpoints import Checkpoints
from analysis.report.svg import to_svg
from analysis.weights.drawing import by_layer, draw_updates
from analysis.weights.drawing_matrices import draw_norms, draw_spectra
from analysis.weights.names_beside import short
from analysis.weights.power_law import fit_power_law

HOSTILE = [
    "<script>x</script>.weight",
    "$x^2_{$.weight",
    "\x1b[31m.weight",
    "a" * 5000 + ".weight",
    "\u202eb.weight",
    "",
]


def changed(layers: Sequence[str], saves: Sequence[int], ratio: Any) -> pl.DataFrame:
    """Changes of one weight a layer, by `ratio(row, column)` of a norm of 1."""
    rows = [
        {
            "save": f"step_{step}.pt", "step": step, "parameter": f"{layer}.weight", "role": "weights",
            "status": "changed" if ratio(i, j) else "same", "update_norm": float(ratio(i, j)), "norm_a": 1.0,
        }
        for j, step in enumerate(saves) for i, layer in enumerate(layers)
    ]  # fmt: skip
    return pl.DataFrame(rows)


def measured(names: Sequence[str], saves: Sequence[int], size: Any) -> pl.DataFrame:
    """Statistics of a matrix of 4 x 4 a name, its root mean square by `size(row, column)`."""
    rows = [
        {
            "save": f"step_{step}.pt", "step": step, "parameter": name, "role": "weights", "shape": [4, 4],
            "elements": 16, "norm": 4.0 * size(i, j),
        }
        for j, step in enumerate(saves) for i, name in enumerate(names)
    ]  # fmt: skip
    return pl.DataFrame(rows)


def spectrum(alphas: Sequence[float], distance: float = 0.05, tail: int = 400) -> pl.DataFrame:
    rows = [
        {"save": "a", "parameter": f"layers.{i}.weight", "alpha": alpha, "alpha_error": 0.1, "ks_distance": distance,
         "tail": tail}
        for i, alpha in enumerate(alphas)
    ]  # fmt: skip
    return pl.DataFrame(rows)


def drawn_axes(width: float, height: float) -> Axes:
    axes: Axes = Figure(figsize=(width, height), layout="constrained").subplots()
    return axes


def overlaps(ax: Axes) -> int:
    """Pairs of neighbouring tick labels that touch each other."""
    ax.figure.canvas.draw()
    count = 0
    for axis, low, high in ((ax.xaxis, "x0", "x1"), (ax.yaxis, "y0", "y1")):
        boxes = [one.get_window_extent() for one in axis.get_ticklabels() if one.get_text() and one.get_visible()]
        boxes.sort(key=lambda box: getattr(box, low))
        count += sum(getattr(a, high) > getattr(b, low) for a, b in itertools.pairwise(boxes))
    return count


def deep(count: int) -> list[str]:
    parts = ("self_attn.q_proj", "self_attn.o_proj", "mlp.down_proj", "post_attention_layernorm")
    return [f"model.layers.{i // 4}.{parts[i % 4]}" for i in range(count)]


@pytest.mark.parametrize(("width", "height"), [(5.0, 2.8), (8.0, 4.2)])
@pytest.mark.parametrize(("layers", "saves"), [(3, 1), (30, 2), (210, 6), (8, 500)])
def test_no_label_overlaps_another_whatever_the_number_of_layers_and_saves(
    width: float, height: float, layers: int, saves: int
) -> None:
    names, steps = deep(layers), [1000 * (j + 1) for j in range(saves)]
    ax = drawn_axes(width, height)
    draw_updates(ax, changed(names, steps, lambda i, j: 0.001 * (1 + i + j)), pl.DataFrame({"parameter": names}), {})
    assert overlaps(ax) == 0
    ax = drawn_axes(width, height)
    draw_norms(ax, measured([f"{name}.weight" for name in names], steps, lambda i, j: 1.0 + i + j), {})
    assert overlaps(ax) == 0
    ax = drawn_axes(width, height)
    draw_spectra(ax, spectrum(np.linspace(1.5, 8, layers).tolist()), {})
    assert overlaps(ax) == 0


def test_the_overlap_of_labels_would_be_seen() -> None:
    ax = drawn_axes(5.0, 2.8)
    ax.set_yticks(range(200), deep(200))
    assert overlaps(ax) > 100


def test_colours_are_the_ratios_by_layer_and_grey_is_what_did_not_move() -> None:
    changes = changed(["a", "b", "c"], [10, 20], lambda i, j: 0.0 if i == 1 else 0.1 * (i + j + 1))
    ax = drawn_axes(8, 4)
    said = draw_updates(ax, changes, pl.DataFrame({"parameter": ["a.weight", "b.weight", "c.weight"]}), {})
    cells = np.ma.masked_invalid(ax.collections[0].get_array()).reshape(3, 2)
    expected = by_layer(changes).sort("layer", "step")["update_ratio"].to_numpy().reshape(3, 2)
    assert cells.mask.tolist() == (expected == 0).tolist()
    assert cells[~cells.mask].tolist() == pytest.approx(expected[expected > 0].tolist())
    assert said == "1 of 3 layers never moved: b"


def test_running_statistics_and_counts_do_not_move_a_layer() -> None:
    """A count of batches goes on by thousands, and a frozen normalisation still keeps its statistics."""
    rows = changed(["bn", "fc"], [10], lambda i, _: 0.001 if i else 0.0)
    buffers = pl.concat(
        rows.filter(parameter="bn.weight").with_columns(
            parameter=pl.lit(f"bn.{name}"), update_norm=pl.lit(1e3), norm_a=pl.lit(1e3), status=pl.lit("changed")
        )
        for name in ("running_mean", "running_var", "num_batches_tracked")
    )
    table = by_layer(pl.concat([rows, buffers]))
    assert dict(table.select("layer", "update_ratio").iter_rows()) == {"bn": 0.0, "fc": 0.001}
    assert dict(table.select("layer", "moved").iter_rows()) == {"bn": 0.0, "fc": 1.0}


def test_layers_that_stand_still_are_counted_among_all_not_among_those_shown() -> None:
    names = [f"layers.{i}" for i in range(1000)]
    ax = drawn_axes(8, 4)
    changes = changed(names, [1], lambda i, _: 0.0 if i in (1, 500) else 0.1)
    said = draw_updates(ax, changes, pl.DataFrame({"parameter": [f"{name}.weight" for name in names]}), {})
    assert said == "2 of 1000 layers never moved: layers.1, layers.500"
    assert "every 3th" not in ax.get_ylabel() and "one of 3" in ax.get_ylabel()


@pytest.mark.parametrize("ratio", [0.0, 0.1, 1e-300, math.nan])
def test_updates_that_are_all_the_same_have_a_scale_too(ratio: float) -> None:
    ax = drawn_axes(8, 4)
    names = pl.DataFrame({"parameter": ["a.weight", "b.weight"]})
    assert draw_updates(ax, changed(["a", "b"], [1, 2], lambda i, j: ratio), names, {})
    ax.figure.canvas.draw()


@pytest.mark.parametrize(("low", "high"), [(0.004, 0.065), (0.0065, 0.0125), (0.3, 0.31), (1e-12, 3.0), (0.1, 0.1)])
def test_numbers_beside_the_colours_are_plain_few_and_survive_the_page(low: float, high: float) -> None:
    """Small ticks of a logarithmic scale came out as mathematics in the page, and pushed the map out of it."""
    ax = drawn_axes(5.0, 2.8)
    draw_updates(ax, changed(["a", "b"], [1], lambda i, _: high if i else low), pl.DataFrame({"parameter": ["a"]}), {})
    bar = ax.figure.axes[1]
    text = [label.get_text() for label in bar.get_yticklabels(which="both")]
    assert 2 <= len([one for one in text if one]) <= 8 and all(float(one) for one in text if one)
    page = to_svg(ax.figure, label="map", key="f1")
    assert "mathdefault" not in page and overlaps(ax) == 0


def test_dots_are_root_mean_squares_and_the_sentence_names_the_ends_and_the_growth() -> None:
    frame = measured(["a.weight", "b.weight"], [10, 20], lambda i, j: (1 + i) * (1 + 0.5 * j * i))
    ax = drawn_axes(8, 4)
    said = draw_norms(ax, frame, {})
    assert [line.get_xdata().tolist() for line in ax.lines] == [[1.0, 2.0], [1.0, 3.0]]
    assert said == "root mean square of the weights from 1 (a) to 3 (b); changed by +0.0% to +50.0% since step 10"


def test_many_matrices_are_drawn_by_their_kind_over_the_depth() -> None:
    names = [*(f"layers.{i}.{part}.weight" for i in range(20) for part in ("q_proj", "mlp.up")), "head.weight"]
    frame = measured(names, [10, 20, 30], lambda i, j: 1.0 + i + 100 * j)
    ax = drawn_axes(8, 4)
    draw_norms(ax, frame, {})
    lines = {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}
    assert list(lines) == ["q_proj", "up", "others"]
    assert lines["up"].get_xdata().tolist() == list(range(1, 40, 2))
    assert lines["up"].get_ydata().tolist() == [201.0 + i for i in range(1, 40, 2)]
    assert lines["others"].get_xdata().tolist() == [40]
    assert "light: step 10" in ax.get_xlabel()


def test_sizes_over_decades_stand_on_a_logarithmic_axis_with_plain_numbers() -> None:
    ax = drawn_axes(5, 2.8)
    draw_norms(ax, measured(["a", "b", "c"], [1], lambda i, _: 10.0 ** (i - 3)), {})
    ax.figure.canvas.draw()
    assert ax.get_xscale() == "log" and "0.01" in [one.get_text() for one in ax.get_xticklabels()]
    ax = drawn_axes(5, 2.8)
    draw_norms(ax, measured(["a", "b"], [1], lambda i, _: 1.0 + i), {})
    assert ax.get_xscale() == "linear"


def test_a_tail_of_a_power_law_is_hardly_ever_drawn_as_none_however_short() -> None:
    rng = np.random.default_rng(0)
    hollow = 0
    for count in (12, 30, 100, 400) * 5:
        law = fit_power_law(rng.pareto(2.0, count) + 1)
        assert law is not None
        ax = drawn_axes(5, 2.8)
        draw_spectra(ax, spectrum([law.alpha], law.distance, law.tail), {})
        hollow += "no power law" in ax.get_xlabel()
    assert hollow <= 1


def test_a_tail_whose_distance_is_beyond_chance_is_hollow_and_said_to_be_no_power_law() -> None:
    ax = drawn_axes(5, 2.8)
    far, chance = spectrum([3.0], 0.2, 400), spectrum([3.0, 4.0], 0.2, 16)
    said = draw_spectra(ax, pl.concat([far, chance]), {})
    assert said.startswith("exponents of the spectra's tails from 3.00 to 4.00; 0 of 3 not in WeightWatcher's 2 to 6")
    assert said.endswith("; no power law: 1")
    full, hollow = ax.lines
    assert (full.get_ydata().tolist(), hollow.get_ydata().tolist()) == ([1, 2], [0])
    assert hollow.get_markerfacecolor() == "none" and "hollow: no power law" in ax.get_xlabel()


def test_hostile_names_are_drawn_as_they_are_cut_and_never_read_as_mathematics() -> None:
    ax = drawn_axes(5, 2.8)
    draw_norms(ax, measured(HOSTILE, [1, 2], lambda i, j: 1.0 + i + j), {})
    ax.figure.savefig("/dev/null", format="svg")
    assert max(len(one.get_text()) for one in ax.get_yticklabels()) <= 30
    assert short("a" * 5000) == "…" + "a" * 29


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    place = tmp_path_factory.mktemp("saves")
    made = torch.Generator().manual_seed(0)
    for step in (10, 20):
        weights = {f"l.{i}.weight": torch.randn(16, 16, generator=made) for i in range(30)}
        save_file(weights, place / f"step_{step}.safetensors")
    return at.checkpoints(place, spectra=True)


@pytest.mark.parametrize("view", ["updates", "norms", "spectra"])
def test_a_title_is_a_whole_sentence_of_two_lines_at_most(view: str, saved: Checkpoints) -> None:
    title = saved.plot(view=view).get_title(loc="left")
    assert title.count("\n") <= 1 and "..." not in title


def test_style_of_others_stays_as_it_was(saved: Checkpoints, tmp_path: Path) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    saved.plot(view="norms").figure.savefig(tmp_path / "a.png")
    assert dict(mpl.rcParams) == before
