"""The look of figures: nothing lost when thinned, colours told apart on both papers, global style untouched."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import analysis.report
from analysis.figures import COLOURS, axes, draw_series, keep_extremes, style
from analysis.report.curves import Curve, draw_metric
from analysis.report.shares import component_shares, draw_shares
from analysis.report.sparkline import sparkline
from analysis.report.svg import to_svg

VALUES = st.floats(allow_nan=True, allow_infinity=True, width=64)


@settings(max_examples=60, deadline=None)
@given(arrays(np.float64, st.integers(1, 600), elements=VALUES), st.sampled_from([8, 40, 100]))
def test_thinning_keeps_first_last_least_and_greatest_in_order(y: np.ndarray, points: int) -> None:
    x = np.arange(len(y), dtype=float)
    thin_x, thin_y = keep_extremes(x, y, points=points)
    assert len(thin_x) <= max(points, len(y) if len(y) <= points else points)
    assert (np.diff(thin_x) > 0).all()
    assert (thin_x[0], thin_x[-1]) == (x[0], x[-1])
    np.testing.assert_array_equal(thin_y, y[thin_x.astype(int)])
    finite = y[np.isfinite(y)]
    if len(finite):
        kept = thin_y[np.isfinite(thin_y)]
        assert (kept.min(), kept.max()) == (finite.min(), finite.max())


def test_drawing_in_the_house_style_leaves_every_global_setting_as_it_was() -> None:
    before = dict(mpl.rcParams)
    with style():
        drawn = axes()
        draw_series(drawn, np.arange(5.0), np.arange(5.0))
    to_svg(drawn.figure, label="a line", key="f1")
    assert dict(mpl.rcParams) == before


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, contrast ratio."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def themes() -> list[dict[str, str]]:
    css = (Path(analysis.report.__file__).parent / "page.css").read_text(encoding="utf-8")
    light, dark = css.split("@media screen and (prefers-color-scheme: dark)")
    read = [dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", part)) for part in (light, dark.split("\n}\n")[0])]
    assert all(len(theme) > 15 for theme in read)
    return read


@pytest.mark.parametrize("theme", themes(), ids=["light", "dark"])
def test_lines_stand_out_from_the_paper_and_words_can_be_read(theme: dict[str, str]) -> None:
    assert all(contrast(theme[name], theme["paper"]) >= 3 for name in COLOURS)
    assert all(contrast(theme[name], theme["paper"]) >= 4.5 for name in ("ink", "muted", "link"))
    for status in ("healthy", "warning", "critical", "info"):
        assert contrast(theme[status], theme[f"{status}-back"]) >= 4.5


def curve(y: np.ndarray, metric: str = "loss", split: str = "train") -> Curve:
    return Curve(metric, split, np.arange(len(y), dtype=float), y, "step", 1)


def test_drawn_data_equal_the_series_and_the_span_is_shaded_where_it_was_found() -> None:
    y = np.linspace(3, 1, 100)
    drawn = draw_metric([curve(y)], [(40.0, 50.0)])
    np.testing.assert_array_equal(drawn.lines[0].get_ydata(), y)
    spans = [(p.get_x(), p.get_x() + p.get_width()) for p in drawn.patches]
    assert spans == [(40.0, 50.0)] * 2
    assert [p.get_hatch() for p in drawn.patches] == [None, "////"]


def test_values_that_are_not_finite_are_marked_at_their_steps() -> None:
    y = np.ones(50)
    y[[7, 9]] = np.nan, np.inf
    drawn = draw_metric([curve(y)])
    assert drawn.lines[1].get_xdata().tolist() == [7, 9]


def test_an_axis_is_logarithmic_only_where_a_linear_one_would_hide_the_series() -> None:
    assert draw_metric([curve(np.geomspace(1e-3, 1e3, 200))]).get_yscale() == "log"
    assert draw_metric([curve(np.linspace(1, 3, 200))]).get_yscale() == "linear"
    assert draw_metric([curve(np.array([-1.0, 1e6]))]).get_yscale() == "linear"


def test_a_figure_becomes_svg_with_variables_for_colours_and_nothing_but_shapes_and_words() -> None:
    drawn = axes()
    drawn.plot([0, 1], [0, 1], color=COLOURS["green"])
    drawn.set_title("$x^{2}$ </text><script>alert(1)</script>\x01", parse_math=False)
    svg = to_svg(drawn.figure, label='a "line"', key="k7")
    assert "var(--green)" in svg
    assert COLOURS["green"].lower() not in svg.lower()
    assert "&lt;script&gt;" in svg
    assert set(re.findall(r"<([a-zA-Z]+)", svg)) <= {
        "svg",
        "g",
        "path",
        "text",
        "tspan",
        "defs",
        "use",
        "clipPath",
        "rect",
    }
    assert all(name.startswith("k7-") for name in re.findall(r'\bid="([^"]*)"', svg))


def test_two_drawings_of_the_same_figure_are_the_same_bytes() -> None:
    made = [to_svg(draw_metric([curve(np.arange(500.0))], [(3, 9)]).figure, label="a", key="k") for _ in range(2)]
    assert made[0] == made[1]


def test_a_small_chart_keeps_gaps_marks_and_the_highest_point() -> None:
    y = np.zeros(100_000)
    y[777] = 5.0
    y[50_000] = np.nan
    svg = sparkline([(np.arange(100_000.0), y)], label="x")
    points = re.findall(r"([ML])(\d+) (\d+(?:\.\d)?)", re.findall(r'class="s0" d="([^"]*)"', svg)[0])
    assert ("L", "2", "4") in points
    assert svg.count('class="nf"') == 1
    assert len(svg) < 12_000


def test_shares_of_components_add_up_and_follow_a_planted_change() -> None:
    import polars as pl

    from parsers.finish import finish

    steps = np.arange(1000)
    parts = {"kd": np.where(steps < 500, 3.0, 1.0), "feature": np.ones(1000), "noise": -np.ones(1000)}
    frames = [
        pl.DataFrame({"tag": [f"losses/{name}/weighted"] * 1000, "step": steps, "value": values.astype(float)})
        for name, values in parts.items()
    ]
    shares = component_shares(finish("a", "a", "jsonl", pl.concat(frames)), bins=100)
    wide = shares.pivot("component", index="step", values="share").sort("step")
    np.testing.assert_allclose(wide.drop("step").sum_horizontal().to_numpy(), 1)
    np.testing.assert_allclose(wide["kd"].to_numpy()[[0, 49, 50, 99]], [0.6, 0.6, 1 / 3, 1 / 3])
    assert draw_shares(shares).get_title(loc="left") == "kd makes up 47 % of the loss on average"


def test_a_run_with_fewer_than_two_components_has_no_shares_and_the_same_columns() -> None:
    import polars as pl

    from parsers.finish import finish

    rows = pl.DataFrame({"tag": ["losses/kd/weighted"], "step": [1], "value": [1.0]})
    shares = component_shares(finish("a", "a", "jsonl", rows))
    assert shares.schema == {"component": pl.String, "step": pl.Float64, "share": pl.Float64}
    assert shares.is_empty()
