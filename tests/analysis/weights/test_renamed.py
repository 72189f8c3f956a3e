"""Keys that changed their names are told as such, with the rule and with what they hold, and not as lost and new."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

import aftertrain as at
from analysis.findings import Finding
from analysis.weights.renamed import Rule
from tests.analysis.weights.trained import Training, loud, story

State = dict[str, torch.Tensor]


class Encoder(nn.Module):
    """An encoder of three layers and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 4)


def encoder(seed: int = 0) -> State:
    torch.manual_seed(seed)
    return {key: value.clone() for key, value in Encoder().state_dict().items()}


def replaced(state: Mapping[str, torch.Tensor], old: str, new: str) -> State:
    return {name.replace(old, new, 1): value for name, value in state.items()}


def compared(folder: Path, a: State, b: State, **options: float) -> list[Finding]:
    """The findings of a difference about the list of tensors."""
    for name, state in (("a", a), ("b", b)):
        save_file({key: value.contiguous() for key, value in state.items()}, folder / f"{name}.safetensors")
    found = at.diff(folder / "a.safetensors", folder / "b.safetensors", **options)
    return [f for f in found.findings if f.evidence["what"] != "nothing in common"]


RULES = [
    ("encoder.", "enc.", "encoder -> enc"),
    ("", "model2.", "model2 put before"),
    ("encoder.", "", "encoder taken out"),
    ("encoder.", "backbone.layers.", "encoder -> backbone.layers"),
    ("encoder.", "encoder.layers.", "encoder -> encoder.layers"),
]


@pytest.mark.parametrize(("old", "new", "rule"), RULES)
def test_one_rule_explains_all_names_and_the_advice_makes_one_state_of_the_other(
    old: str, new: str, rule: str, tmp_path: Path
) -> None:
    state = encoder()
    (one,) = compared(tmp_path, state, replaced(state, old, new))
    assert (one.severity, one.evidence["what"], one.evidence["rules"]) == ("warning", "keys renamed", rule)
    assert one.evidence["same_bits"] is True and "the same weights, bit by bit" in one.message
    advice = re.search(r"state = (\{.*\})", one.suggestions[0])
    assert advice is not None
    assert list(eval(advice[1], {"state": state})) == list(replaced(state, old, new))
    assert "strict=True" in one.suggestions[1] and one.causes


def test_the_table_of_a_difference_still_says_added_and_removed(tmp_path: Path) -> None:
    state = encoder()
    compared(tmp_path, state, replaced(state, "encoder.", "enc."))
    frame = at.diff(tmp_path / "a.safetensors", tmp_path / "b.safetensors").frame
    assert frame["status"].value_counts().sort("status").rows() == [("added", 6), ("removed", 6), ("same", 4)]


def test_a_check_fails_on_names_that_changed(tmp_path: Path) -> None:
    state = encoder()
    (one,) = compared(tmp_path, state, replaced(state, "encoder.", "enc."), max_drift=0.1)
    assert one.severity == "critical"


def test_the_last_part_of_a_name_may_be_renamed_and_gains_alone_say_nothing_of_the_weights(tmp_path: Path) -> None:
    state = encoder() | {f"norm{n}.{part}": torch.ones(16) for n in range(3) for part in ("weight", "bias")}
    b = {(re.sub(r"(norm\d)\.weight", r"\1.gamma", name)): value + 0.01 for name, value in state.items()}
    (one,) = compared(tmp_path, state, b)
    assert (one.evidence["rules"], one.evidence["tensors"]) == ("weight -> gamma", 3)
    assert one.evidence["cosine"] is None and "with values that tell nothing" in one.message
    assert "by the rules weight -> gamma" in one.suggestions[0]  # `weight` stands in other names too


def test_several_rules_at_once_are_all_told(tmp_path: Path) -> None:
    state = encoder()
    b = replaced(replaced(state, "encoder.", "enc."), "head.", "classifier.")
    (one,) = compared(tmp_path, state, b)
    assert one.evidence["rules"] == "encoder -> enc, head -> classifier" and one.evidence["tensors"] == 8
    assert one.suggestions[0].endswith("by the rules encoder -> enc, head -> classifier")


#: Parts of a layer as one library calls them and as another does, all of one shape.
PARTS = {
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.up_proj": "feed_forward.w3",
}


@pytest.mark.parametrize("same", [True, False])
def test_a_model_in_the_names_of_another_library_is_known_by_its_values(same: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    a = {f"model.layers.{n}.{part}.weight": torch.randn(8, 8) for n in range(12) for part in PARTS}
    b = {f"layers.{n}.{part}.weight": torch.randn(8, 8) for n in range(12) for part in PARTS.values()}
    if same:
        b |= {
            f"layers.{n}.{new}.weight": a[f"model.layers.{n}.{old}.weight"]
            for n in range(12)
            for old, new in PARTS.items()
        }
    (one,) = compared(tmp_path, a, b)
    if same:
        assert (one.evidence["what"], one.evidence["tensors"]) == ("keys renamed", 60) and one.evidence["same_bits"]
        assert "model taken out and self_attn." in str(one.evidence["rules"])
    else:  # any part may be any other: what no value tells is not guessed
        assert one.evidence["what"] == "another model"


def test_layers_of_one_shape_are_paired_by_their_values(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = {f"layers.{n}.{part}": torch.randn(8, 8) for n in (0, 1, 2) for part in ("up", "down")}
    a = {name: value for name, value in layers.items() if not name.startswith("layers.2")}
    a |= {f"layers.3.{part}": layers[f"layers.2.{part}"] for part in ("up", "down")}
    b = layers | {f"layers.2.{part}": torch.randn(8, 8) for part in ("up", "down")}
    b |= {f"layers.7.{part}": layers[f"layers.2.{part}"] for part in ("up", "down")}
    found = compared(tmp_path, a, b)
    told = {f.evidence["what"]: f for f in found}
    assert set(told) == {"keys renamed", "keys new"}
    assert told["keys renamed"].evidence["rules"] == "3 -> 7" and told["keys renamed"].evidence["same_bits"]


def test_names_without_anything_common_are_paired_by_their_order_where_the_values_agree(tmp_path: Path) -> None:
    torch.manual_seed(0)
    a = {"common": torch.randn(4, 4), "a.x": torch.randn(8, 8), "b.y": torch.randn(8, 8), "c.z": torch.randn(8, 4)}
    names = {"a.x": "p.q", "b.y": "r.s", "c.z": "t.u"}
    b = {names.get(name, name): value for name, value in a.items()}
    (one,) = compared(tmp_path, a, b)
    assert (one.evidence["what"], one.evidence["tensors"], one.evidence["rules"]) == (
        "keys renamed",
        3,
        "by their order",
    )
    other = {name: torch.randn_like(value) if "." in name else value for name, value in b.items()}
    assert [f.evidence["what"] for f in compared(tmp_path, a, other)] == ["keys lost", "keys new"]


@pytest.mark.parametrize("carried", [True, False])
def test_a_rename_is_information_in_a_series_and_a_warning_where_a_lenient_load_left_the_layers_new(
    carried: bool, tmp_path: Path
) -> None:
    made = Training.of(tmp_path, "transformer", "adamw").run(2)
    state = dict(made.model.state_dict())
    if not carried:
        fresh = Training.of(tmp_path, "transformer", "adamw", seed=9).model.state_dict()
        state |= {key: value for key, value in fresh.items() if key.startswith("blocks.")}
    torch.save({"model": replaced(state, "blocks.", "layers."), "global_step": 60}, tmp_path / "checkpoint-60.pt")
    found = [f for f in story(tmp_path) if f.kind == "checkpoint-mismatch"]
    told = {f.evidence["what"]: f for f in found}
    if carried:
        assert list(told) == ["keys renamed"] and loud(found) == []
        assert told["keys renamed"].evidence["rules"] == "blocks -> layers"
    else:
        one = told["keys renamed, other weights"]
        assert one.severity == "warning" and "nothing was carried over" in one.message
        assert abs(float(one.evidence["cosine"] or 0)) < 0.3 and "strict=False" in one.causes[0]


def test_a_model_all_of_whose_names_changed_is_no_other_model(tmp_path: Path) -> None:
    made = Training.of(tmp_path, "mlp", "sgd").run(2)
    state = {f"net.{key}": value for key, value in made.model.state_dict().items()}
    torch.save({"model": {f"a{k}": v for k, v in state.items()}, "global_step": 60}, tmp_path / "checkpoint-60.pt")
    found = [f for f in story(tmp_path) if f.kind == "checkpoint-mismatch"]
    assert [f.evidence["what"] for f in found] == ["keys renamed"] and loud(found) == []


def test_a_head_of_another_shape_is_lost_and_new_and_not_renamed(tmp_path: Path) -> None:
    a = encoder()
    b = {name: value for name, value in a.items() if not name.startswith("head")}
    b |= {"classifier.weight": torch.randn(7, 16), "classifier.bias": torch.randn(7)}
    assert [f.evidence["what"] for f in compared(tmp_path, a, b)] == ["keys lost", "keys new"]


NAME = st.sampled_from(["conv", "fc", "norm", "block", "up", "down", "attn"])


@settings(max_examples=25, deadline=None)
@given(
    names=st.lists(st.lists(NAME, min_size=2, max_size=4).map(".".join), min_size=2, max_size=8, unique=True),
    part=st.integers(0, 1),
    seed=st.integers(0, 2**16),
)
def test_a_part_that_is_replaced_in_all_names_is_found_whatever_the_names(
    names: list[str], part: int, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    torch.manual_seed(seed)
    state = {f"old.{name}": torch.randn(6, 6) for name in names}
    rule = Rule(((("old",), ("new",) if part else ()),))
    renamed = {str(rule.of(name)): value for name, value in state.items()}
    (one,) = compared(tmp_path_factory.mktemp("names"), state, renamed)
    assert (one.evidence["rules"], one.evidence["tensors"]) == (str(rule), len(names))
    assert one.evidence["same_bits"] is True
