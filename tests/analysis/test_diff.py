"""What changed between two checkpoints, and what of it fails a check."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import aftertrain as at

STATE = {"fc.weight": torch.arange(12.0).reshape(3, 4) + 1, "fc.bias": torch.ones(3), "out.weight": torch.ones(2, 3)}


def saved(path: Path, **changes: torch.Tensor | None) -> Path:
    named = {name.replace("_", "."): value for name, value in changes.items()}
    state = {name: value for name, value in {**STATE, **named}.items() if value is not None}
    save_file({name: value.contiguous().clone() for name, value in state.items()}, path)
    return path


def told(a: Path, b: Path, **options: float) -> list[tuple[str, str, str | None]]:
    return [(f.kind, f.severity, f.metric) for f in at.diff(a, b, **options).findings]


def test_a_checkpoint_and_itself_are_the_same(tmp_path: Path) -> None:
    a, b = saved(tmp_path / "a.safetensors"), saved(tmp_path / "b.safetensors")
    found = at.diff(a, b, max_drift=0.0)
    assert found.drift == 0.0 and found.findings == () and found.summary == "3 the same; ||b-a|| / ||a|| = 0"


def test_tensors_stand_in_the_order_of_their_change(tmp_path: Path) -> None:
    a = saved(tmp_path / "a.safetensors")
    b = saved(tmp_path / "b.safetensors", fc_bias=torch.full((3,), 1.5), out_weight=torch.full((2, 3), 1.1))
    frame = at.diff(a, b).frame
    assert frame["name"].to_list() == ["fc.bias", "out.weight", "fc.weight"]
    assert frame["update_ratio"].to_list() == pytest.approx([0.5, 0.1, 0.0], abs=1e-6)


def test_only_what_drifts_beyond_the_bar_fails(tmp_path: Path) -> None:
    a = saved(tmp_path / "a.safetensors")
    b = saved(tmp_path / "b.safetensors", fc_bias=torch.full((3,), 1.5), out_weight=torch.full((2, 3), 1.1))
    assert told(a, b) == []
    assert told(a, b, max_drift=0.6) == []
    assert told(a, b, max_drift=0.2) == [("weight-drift", "critical", "fc.bias")]
    (finding,) = at.diff(a, b, max_drift=0.05).findings
    assert finding.evidence["tensors"] == 2 and finding.evidence["max_drift"] == 0.05


def test_lost_and_reshaped_tensors_are_a_warning_and_fail_a_check(tmp_path: Path) -> None:
    a = saved(tmp_path / "a.safetensors")
    for change in ({"fc_bias": None}, {"out_weight": torch.ones(3, 3)}):
        b = saved(tmp_path / "b.safetensors", **change)
        assert [(kind, severity) for kind, severity, _ in told(a, b)] == [("checkpoint-mismatch", "warning")]
        assert [(k, s) for k, s, _ in told(a, b, max_drift=1.0)] == [("checkpoint-mismatch", "critical")]


def test_a_tensor_that_is_finite_no_more_fails_a_check(tmp_path: Path) -> None:
    a = saved(tmp_path / "a.safetensors")
    b = saved(tmp_path / "b.safetensors", fc_bias=torch.tensor([1.0, torch.nan, 1.0]))
    assert ("checkpoint-non-finite", "critical", "fc.bias") in told(a, b, max_drift=1.0)


def test_an_export_in_half_precision_is_compared_by_value(tmp_path: Path) -> None:
    a = saved(tmp_path / "a.safetensors")
    b = saved(tmp_path / "b.safetensors", **{n.replace(".", "_"): v.bfloat16() for n, v in STATE.items()})
    found = at.diff(a, b, max_drift=0.01)
    assert found.frame["status"].unique().to_list() == ["dtype"]
    assert {f.severity for f in found.findings} <= {"info"} and (found.frame["update_ratio"] < 0.004).all()


def test_what_wraps_the_names_of_a_model_makes_no_difference(tmp_path: Path) -> None:
    a = saved(tmp_path / "a.safetensors")
    torch.save({"state_dict": {f"module.{name}": value for name, value in STATE.items()}, "step": 7}, tmp_path / "b.pt")
    assert at.diff(a, tmp_path / "b.pt").frame["status"].unique().to_list() == ["same"]


@pytest.mark.parametrize("bar", [-0.1, float("nan")])
def test_a_bar_that_is_none_is_refused(bar: float, tmp_path: Path) -> None:
    a = saved(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="max_drift: expected a ratio of 0 or more"):
        at.diff(a, a, max_drift=bar)


def test_the_figure_shows_the_bar(tmp_path: Path) -> None:
    a, b = saved(tmp_path / "a.safetensors"), saved(tmp_path / "b.safetensors", fc_bias=torch.full((3,), 1.5))
    drawn = at.diff(a, b, max_drift=0.1).plot()
    drawn.figure.canvas.draw()
    assert "1 changed" in drawn.get_title(loc="left") and drawn.get_legend() is not None
    at.diff(a, a).plot().figure.canvas.draw()


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        saved(tmp_path / folder / "m.safetensors")
    assert at.diff(tmp_path / "x" / "m.safetensors", tmp_path / "y" / "m.safetensors").run == (
        "x/m.safetensors -> y/m.safetensors"
    )


def test_weights_that_have_nothing_in_common_are_told_and_those_of_one_training_are_not(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    one, two = (torch.randn(40, 60, generator=generator) for _ in range(2))
    for name, weight in (("a", one), ("b", two), ("c", one + 0.5 * two)):
        save_file({"fc.weight": weight, "norm.weight": torch.ones(60)}, tmp_path / f"{name}.safetensors")
    (finding,) = at.diff(tmp_path / "a.safetensors", tmp_path / "b.safetensors").findings
    assert (finding.kind, finding.severity) == ("checkpoint-mismatch", "info")
    assert abs(finding.evidence["cosine"]) < 0.1 and "nothing in common" in finding.message
    assert at.diff(tmp_path / "a.safetensors", tmp_path / "c.safetensors").findings == ()


def test_averages_that_only_one_of_the_two_has_are_not_compared_unless_asked_for(tmp_path: Path) -> None:
    ema = {name: value * 0.9 for name, value in STATE.items()}
    torch.save({"model": STATE, "ema": ema, "step": 7}, tmp_path / "train.pt")
    export = saved(tmp_path / "export.safetensors")
    assert at.diff(tmp_path / "train.pt", export).summary == "3 the same; ||b-a|| / ||a|| = 0"
    asked = at.diff(tmp_path / "train.pt", export, roles=("weights", "ema")).frame
    assert asked["status"].to_list().count("removed") == 3


def test_a_tensor_that_was_all_zero_has_no_ratio_and_stands_where_its_change_belongs(tmp_path: Path) -> None:
    a = saved(tmp_path / "a.safetensors", fc_bias=torch.zeros(3))
    b = saved(tmp_path / "b.safetensors", fc_bias=torch.full((3,), 1e-4), out_weight=torch.full((2, 3), 1.1))
    found = at.diff(a, b, max_drift=0.2)
    assert found.frame["name"].to_list() == ["out.weight", "fc.bias", "fc.weight"]
    assert found.frame["update_ratio"].to_list() == [pytest.approx(0.1, abs=1e-6), None, 0.0]
    assert found.findings == ()  # a bias that takes its first step is no regression


def test_a_layer_of_zeros_that_is_as_large_as_the_others_now_fails_a_check(tmp_path: Path) -> None:
    a = saved(tmp_path / "a.safetensors", out_weight=torch.zeros(2, 3))
    b = saved(tmp_path / "b.safetensors", out_weight=torch.full((2, 3), 10.0))
    assert told(a, b) == []
    (finding,) = at.diff(a, b, max_drift=0.2).findings
    assert (finding.kind, finding.severity, finding.metric) == ("weight-drift", "critical", "out.weight")
    share = 10 * 6**0.5 / float(torch.cat([STATE["fc.weight"].ravel(), STATE["fc.bias"]]).norm())
    assert finding.evidence["update_ratio"] == pytest.approx(share)
    assert finding.message.startswith("out.weight was all 0 and has a norm of 24.5 now: 0.959 of the norm of all")


def test_of_a_model_of_zeros_everything_that_is_not_any_more_fails_a_check(tmp_path: Path) -> None:
    for name, value in (("a", 0.0), ("b", 1e-9)):
        save_file({"w": torch.full((3,), value), "v": torch.zeros(2)}, tmp_path / f"{name}.safetensors")
    found = at.diff(tmp_path / "a.safetensors", tmp_path / "b.safetensors", max_drift=1e6)
    assert [(f.kind, f.metric) for f in found.findings] == [("weight-drift", "w")]
    assert "all tensors were 0" in found.findings[0].message
    assert found.frame.select("name", "update_ratio").rows() == [("w", None), ("v", 0.0)]


def test_the_figure_draws_what_was_zero_apart_and_names_that_no_font_has(tmp_path: Path) -> None:
    hostile = "la\x1b[31myer\u202e.\nweight"
    for name, value in (("a", 0.0), ("b", 1.0)):
        state = {hostile: torch.full((3,), value + 1), "left": torch.full((2,), value), "$x$": torch.ones(2)}
        save_file(state, tmp_path / f"{name}.safetensors")
    found = at.diff(tmp_path / "a.safetensors", tmp_path / "b.safetensors", max_drift=0.5)
    drawn = found.plot()
    drawn.get_figure(root=True).savefig(tmp_path / "a.png")  # type: ignore[union-attr]  # a warning would be an error
    values = [value for line in drawn.lines[:2] for value in line.get_xdata()]  # type: ignore[union-attr]
    assert values == pytest.approx([1.0, 2**0.5 / 5**0.5])
    assert all(label.get_text().isprintable() for label in drawn.get_yticklabels())
    for text in (repr(found), found._repr_html_()):
        assert not {"\x1b", "\u202e"} & set(text)
