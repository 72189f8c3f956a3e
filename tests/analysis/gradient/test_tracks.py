"""Whose gradients, of which layer: names as `watch` and others write them."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.gradient.scene import Meant, meant_of, some
from analysis.gradient.tracks import models_of, stacks_of
from tests.analysis.gradient.build import run_of

ONES = [1.0] * 10


@pytest.mark.parametrize(
    ("tag", "model", "quantity", "layer"),
    [
        ("grad_norm", "", "grad_norm", ""),
        ("grad_norm/conv1", "", "grad_norm", "conv1"),
        ("generator/grad_norm/blocks.0.attn", "generator", "grad_norm", "blocks.0.attn"),
        ("shard_grad_norm/fc", "", "grad_norm", "fc"),
        ("generator/shard_update_ratio/fc", "generator", "update_ratio", "fc"),
        ("dead_units/loss", "", "dead_units", "loss"),
        ("zero_grads/lr_head", "", "zero_grads", "lr_head"),
        ("clip_rate", "", "clip_rate", ""),
        ("grad_norm_after_clip", "", "grad_norm_after_clip", ""),
        ("amp_scale", "", "loss_scale", ""),
        ("loss scale", "", "loss_scale", ""),
        ("generator/amp_skipped_count", "", "skipped", ""),
        ("number of skipped iterations", "", "skipped", ""),
        ("grad_2.0_norm/encoder.weight", "", "grad_norm", "encoder.weight"),
        ("grad_2.0_norm_total", "grad_2.0_norm_total", "grad_norm", ""),
        ("optim/total_grad_norm", "optim/total_grad_norm", "grad_norm", ""),
    ],
)
def test_a_name_tells_model_quantity_and_layer(tag: str, model: str, quantity: str, layer: str) -> None:
    (found,) = models_of(run_of({tag: ONES}))
    assert found.name == model and list(found.tracks) == [(quantity, layer)]


def test_evaluation_other_series_and_other_ranks_are_left_out() -> None:
    assert models_of(run_of({"eval/grad_norm": ONES, "loss": ONES, "consumed_samples": ONES})) == ()


def test_a_user_who_says_what_a_series_is_is_believed() -> None:
    run = run_of({"size": ONES, "grad_norm": ONES}).with_roles({"size": "grad_norm", "grad_norm": "other"})
    (found,) = models_of(run)
    assert found.get("grad_norm") is not None and found.name == "size"


def test_the_norm_of_all_layers_is_their_root_sum_of_squares_where_it_is_not_logged() -> None:
    (model,) = models_of(run_of({"grad_norm/a": [3.0] * 5, "grad_norm/b": [4.0] * 6}))
    whole = model.get("grad_norm")
    assert whole is not None and whole.values.tolist() == [5.0] * 5


def test_a_norm_of_all_under_another_name_belongs_to_the_layers_that_it_is_the_norm_of() -> None:
    a, b = np.arange(3.0, 43.0), np.arange(43.0, 3.0, -1.0)
    layers = {"grad_norm/a": a, "grad_norm/b": b}
    (model,) = models_of(run_of({**layers, "grad_2.0_norm_total": np.round(np.hypot(a, b), 1)}))
    whole = model.get("grad_norm")
    assert model.name == "" and whole is not None and whole.metric == "grad_2.0_norm_total"
    assert list(model.layers("grad_norm")) == ["a", "b"]
    two = models_of(run_of({**layers, "critic_grad_norm": np.full(40, 9.0)}))
    assert [(one.name, len(one.tracks)) for one in two] == [("", 3), ("critic_grad_norm", 1)]


def test_the_dead_branch_of_a_resumed_run_is_left_out() -> None:
    import polars as pl

    from parsers.finish import finish

    rows = {"tag": ["grad_norm"] * 6, "step": [0, 1, 2, 1, 2, 3], "attempt": [0, 0, 0, 1, 1, 1]}
    (model,) = models_of(finish("r", "r", "jsonl", pl.DataFrame({**rows, "value": [1.0, 9.0, 9.0, 2.0, 3.0, 4.0]})))
    track = model.get("grad_norm")
    assert track is not None and track.values.tolist() == [1.0, 2.0, 3.0, 4.0]


def test_splits_that_alternate_are_read_apart() -> None:
    (model,) = models_of(run_of({"train/grad_norm": np.arange(5.0), "grad_norm": np.arange(5.0)}))
    track = model.get("grad_norm")
    assert track is not None and len(track.values) == 5


def test_depth_is_known_where_names_differ_in_numbers_only() -> None:
    assert stacks_of(["0", "4", "2", "10"]) == [["0", "2", "4", "10"]]
    assert stacks_of(["encoder", "decoder", "head"]) == [] == stacks_of(["fc1", "fc2"])


def test_what_is_meant_to_train_comes_from_the_plan_and_then_from_the_configuration() -> None:
    run = run_of({"loss": ONES}, config={"freeze": ["backbone"], "unfreeze_step": 50})
    meant = meant_of(run)
    assert meant.of("backbone.conv1") == "freeze" and meant.of("head") == "unsaid" and meant.begins("backbone") == 50
    assert meant_of(run_of({"loss": ONES}, config={"freeze": True, "trainable": None})) == Meant()
    only = Meant(trainable=("lora_*",))
    assert only.of("lora_A") == "train" and only.of("base") == "freeze" and only.begins("base") == np.inf


def test_names_in_a_sentence_end_after_a_few() -> None:
    assert some("abc") == "a, b, c" and some("abcdef") == "a, b, c, d and 2 more"
