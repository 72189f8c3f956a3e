"""Faults planted into trainings are found in their saves, named, and with the numbers that say so."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from analysis.findings import Finding
from tests.analysis.weights.test_healthy_series import averaged
from tests.analysis.weights.trained import Training, loud, story


def of_kind(found: list[Finding], kind: str, what: str | None = None) -> Finding:
    """The one finding of a kind (about `what`) among others."""
    (one,) = [f for f in found if f.kind == kind and (what is None or f.evidence["what"] == what)]
    assert one.causes and one.suggestions and one.evidence
    return one


def frozen(folder: Path, layer: int = 4, optimizer: str = "adamw") -> Training:
    training = Training.of(folder, "mlp", optimizer)
    for parameter in training.model[layer].parameters():  # type: ignore[index]
        parameter.requires_grad_(False)
    return training


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_layer_amid_others_that_never_moves_is_a_warning(optimizer: str, tmp_path: Path) -> None:
    frozen(tmp_path, optimizer=optimizer).run(4)
    one = of_kind(story(tmp_path), "frozen-layer")
    assert (one.severity, one.evidence["layer"], one.evidence["count"]) == ("warning", "4", 2)
    assert one.evidence["rows_still"] == 60 and one.first_step == 20 and one.last_step == 80


def test_the_plan_makes_a_frozen_layer_critical_wherever_it_stands(tmp_path: Path) -> None:
    frozen(tmp_path, layer=0).run(3)
    assert of_kind(story(tmp_path), "frozen-layer").severity == "info"
    assert of_kind(story(tmp_path, plan={"trainable": ["*"]}), "frozen-layer").severity == "critical"


def test_a_layer_that_should_be_unfrozen_by_now_is_critical(tmp_path: Path) -> None:
    frozen(tmp_path).run(4)
    late = story(tmp_path, plan={"freeze": ["4"], "unfreeze_step": 10})
    assert of_kind(late, "frozen-layer").severity == "critical"
    for step in (70, 500):  # just unfrozen, and not yet
        early = story(tmp_path, plan={"freeze": ["4"], "unfreeze_step": step})
        assert [f for f in early if f.kind == "frozen-layer"] == []


def test_a_layer_that_trains_although_the_plan_freezes_it_is_critical(tmp_path: Path) -> None:
    Training.of(tmp_path, "mlp").run(3)
    one = of_kind(story(tmp_path, plan={"freeze": ["4"]}), "frozen-layer")
    assert (one.severity, one.evidence["what"], one.evidence["count"]) == ("critical", "moved though frozen", 2)


def test_a_group_whose_learning_rate_is_0_is_told_from_layers_without_a_gradient(tmp_path: Path) -> None:
    training = Training.of(tmp_path, "mlp", "adam")
    named = list(training.model.named_parameters())
    groups = ([one for one in named if one[0][0] != "4"], [one for one in named if one[0][0] == "4"])
    training.optimizer = torch.optim.Adam(
        [{"params": group, "lr": rate} for group, rate in zip(groups, (2e-3, 0.0), strict=True)]
    )
    training.run(3)
    one = of_kind(story(tmp_path), "frozen-layer")
    assert (one.severity, one.evidence["gradient"], one.evidence["layer"]) == ("warning", "no move", "4")
    assert one.causes[0].startswith("the learning rate of their group is 0 (as that of 1 of 2")


def test_updates_that_are_lost_in_bfloat16_are_told_as_such(tmp_path: Path) -> None:
    training = Training.of(tmp_path, "mlp", "adam")
    training.run(1)
    kept = training.model.state_dict()["4.weight"].clone()
    training.extra = lambda t: {"model": {**t.model.state_dict(), "4.weight": kept}}
    training.run(2)
    one = of_kind(story(tmp_path), "frozen-layer")
    assert (one.severity, one.metric, one.evidence["gradient"]) == ("warning", "4.weight", "no move")
    assert "resolution" in one.causes[0]


@pytest.mark.parametrize(("pure", "severity"), [(True, "warning"), (False, "info")])
def test_steps_too_small_for_bfloat16_are_lost_in_training_and_only_hidden_in_an_export(
    pure: bool, severity: str, tmp_path: Path
) -> None:
    training = Training.of(tmp_path, "conv", "adam", every=40)
    if pure:
        training.model.bfloat16()
        training.batches = torch.bfloat16
    half = {key: value.bfloat16() for key, value in training.model.state_dict().items() if value.is_floating_point()}
    training.optimizer = torch.optim.Adam(training.model.parameters(), lr=1e-7)
    training.extra = lambda t: {
        "model": {**t.model.state_dict(), **{k: t.model.state_dict()[k].bfloat16() for k in half}}
    }
    training.run(3)
    found = [f for f in story(tmp_path) if f.kind == "frozen-layer" and f.evidence["gradient"] == "no move"]
    assert {f.severity for f in found} == {severity}


@pytest.mark.parametrize(("left_out", "said"), [("2", "no gradient"), (None, "")])
def test_a_layer_that_the_optimizer_was_not_given_is_counted_out_where_states_have_no_names(
    left_out: str | None, said: str, tmp_path: Path
) -> None:
    """Layers of one shape: which of the moments are whose nothing tells, but they are as many as what moves."""
    training = Training.of(tmp_path, "mlp", "adam")
    given = [value for name, value in training.model.named_parameters() if name[0] != left_out]
    training.optimizer = torch.optim.Adam(given, 2e-3)
    training.run(3)
    found = [one for one in story(tmp_path) if one.kind == "frozen-layer"]
    assert [one.evidence["gradient"] for one in found] == ([said] if left_out else [])
    assert all("the optimizer holds no state of them" in one.causes[0] for one in found)


def test_moments_in_another_form_than_the_weights_count_nothing_out(tmp_path: Path) -> None:
    training = Training.of(tmp_path, "mlp", "adam")
    for value in (training.model[2].weight, training.model[2].bias):  # type: ignore[index]
        value.requires_grad_(False)
    flat = {"state": {0: {"step": torch.tensor(9.0), "exp_avg": torch.rand(4000), "exp_avg_sq": torch.rand(4000)}}}
    training.extra = lambda t: {"optimizer": {**flat, "param_groups": [{"lr": 1e-3, "params": [0]}]}}
    training.run(3)
    assert of_kind(story(tmp_path), "frozen-layer").evidence["gradient"] == "unknown"


class Branched(nn.Module):
    """A network with a branch that is multiplied by 0."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch, self.head = nn.Linear(8, 32), nn.Linear(8, 32), nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head((self.stem(x) + 0.0 * self.branch(x)).relu())  # type: ignore[no-any-return]


def test_moments_of_exactly_zero_tell_of_a_branch_that_is_off(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Branched()
    Training(tmp_path, model, torch.optim.Adam(model.parameters(), 1e-3)).run(1)
    one = of_kind(story(tmp_path), "frozen-layer")
    assert (one.severity, one.evidence["layer"], one.evidence["rows_still"]) == ("warning", "branch", 20)


@pytest.mark.parametrize(("optimizer", "sign"), [("sgd", "unchanged"), ("adam", "no gradient")])
def test_units_that_died_before_the_training_began_are_counted(optimizer: str, sign: str, tmp_path: Path) -> None:
    training = Training.of(tmp_path, "mlp", optimizer)
    with torch.no_grad():
        training.model[2].bias[:20] = -100  # type: ignore[index]
    training.run(3)
    one = of_kind(story(tmp_path), "dead-units")
    assert (one.severity, one.evidence["layer"], one.evidence["units"]) == ("warning", "2", 32)
    assert int(one.evidence["dead"] or 0) >= 20 and one.evidence["sign"] == sign


def test_rows_that_weight_decay_took_to_zero_are_dead_and_pruned_ones_are_information(tmp_path: Path) -> None:
    training = Training.of(tmp_path, "mlp", "sgd").run(1)
    with torch.no_grad():
        training.model[2].weight[:16] = 0  # type: ignore[index]
        training.model[2].bias[:16] = 0  # type: ignore[index]
    training.save("checkpoint-20.pt")
    one = of_kind(story(tmp_path), "dead-units")
    assert (one.severity, one.evidence["share"], one.evidence["sign"]) == ("warning", 0.5, "zero")
    with torch.no_grad():
        training.model[2].weight[torch.rand(32, 32) < 0.5] = 0  # type: ignore[index]
    training.save("checkpoint-20.pt")
    assert of_kind(story(tmp_path), "dead-units").severity == "info"


def test_a_bias_that_still_speaks_keeps_a_row_of_zeros_alive(tmp_path: Path) -> None:
    training = Training.of(tmp_path, "mlp", "sgd").run(1)
    with torch.no_grad():
        training.model[2].weight[:16] = 0  # type: ignore[index]
    training.save("checkpoint-20.pt")
    assert [f for f in story(tmp_path) if f.kind == "dead-units"] == []


@pytest.mark.parametrize(("value", "severity"), [(float("nan"), "critical"), (float("inf"), "critical")])
def test_one_weight_that_is_not_finite_is_found(value: float, severity: str, tmp_path: Path) -> None:
    training = Training.of(tmp_path, "transformer").run(1)
    with torch.no_grad():
        training.model.blocks[1].up.weight[3, 4] = value  # type: ignore[index, union-attr]
    training.save("checkpoint-20.pt")
    one = of_kind(story(tmp_path), "checkpoint-non-finite")
    assert (one.severity, one.metric, one.evidence["tensors"]) == (severity, "blocks.1.up.weight", 1)


def test_moments_that_are_nan_are_critical_though_the_weights_are_sound(tmp_path: Path) -> None:
    training = Training.of(tmp_path, "mlp").run(1)
    next(iter(training.optimizer.state.values()))["exp_avg"][0, 0] = float("nan")
    training.save("checkpoint-20.pt")
    one = of_kind(story(tmp_path), "checkpoint-non-finite")
    assert (one.severity, one.evidence["role"]) == ("critical", "optimizer")


def test_float16_weights_at_the_edge_of_their_type_are_a_warning(tmp_path: Path) -> None:
    state = {"fc.weight": torch.randn(8, 8).half(), "attn.mask": torch.zeros(8, 8).half()}
    state["attn.mask"][0, 1:] = -65504
    torch.save({"model": state}, tmp_path / "checkpoint-1.pt")
    assert loud(story(tmp_path)) == []
    state["fc.weight"][0, 0] = 50_000
    torch.save({"model": state}, tmp_path / "checkpoint-1.pt")
    one = of_kind(story(tmp_path), "checkpoint-non-finite")
    assert one.severity == "warning" and one.evidence["largest"] == pytest.approx(50_000, rel=1e-3)


def test_tied_weights_that_come_apart_are_found_and_twins_of_the_beginning_are_not(tmp_path: Path) -> None:
    training = Training.of(tmp_path, "transformer")
    training.model.blocks[1].load_state_dict(training.model.blocks[0].state_dict())  # type: ignore[index, union-attr]
    training.run(2, at_start=True)
    training.model.lm_head.weight = nn.Parameter(training.model.wte.weight.detach().clone())  # type: ignore[union-attr]
    training.optimizer.add_param_group({"params": [training.model.lm_head.weight]})  # type: ignore[union-attr]
    training.run(1)
    found = story(tmp_path)
    one = of_kind(found, "checkpoint-mismatch", "untied wte.weight")
    assert (one.severity, one.evidence["tied_with"], one.first_step) == ("warning", "lm_head.weight", 40)
    assert len([f for f in found if "tied" in f.message]) == 1


def test_an_average_that_is_never_updated_is_found(tmp_path: Path) -> None:
    one = of_kind(averaged(tmp_path, 1.0, stated=0.99), "checkpoint-mismatch")
    assert (one.severity, one.evidence["what"], one.evidence["saves"]) == ("warning", "average stands still", 4)


def test_an_average_that_is_a_copy_of_the_weights_is_found(tmp_path: Path) -> None:
    found = averaged(tmp_path, 0.0, stated=0.99)
    assert of_kind(found, "checkpoint-mismatch", "average follows").severity == "warning"


@pytest.mark.parametrize(("decay", "stated", "every"), [(0.995, 0.9, 1), (0.9, 0.9, 10)])
def test_an_average_that_remembers_longer_than_its_decay_says_is_found(
    decay: float, stated: float, every: int, tmp_path: Path
) -> None:
    found = averaged(tmp_path, decay, stated=stated, every=every)
    assert [f.evidence["what"] for f in found if f.severity != "info"] == ["average lags"]
    assert found[-1].evidence["times_longer"] > 3


def test_an_average_of_another_model_is_found(tmp_path: Path) -> None:
    training = Training.of(tmp_path, "mlp").run(1)
    training.extra = lambda t: {"ema": {k: v.clone() for k, v in t.model.state_dict().items()}}
    training.run(1)
    other = Training.of(tmp_path, "mlp", seed=9)
    training.extra = lambda _: {"ema": {k: 3 * v for k, v in other.model.state_dict().items()}}
    training.run(1)
    (tmp_path / "checkpoint-20.pt").unlink()
    assert [f.evidence["what"] for f in story(tmp_path) if f.severity != "info"] == ["average aside"]


def test_an_optimizer_that_was_not_restored_is_found_in_the_save_and_between_saves(tmp_path: Path) -> None:
    training = Training.of(tmp_path, "mlp").run(2)
    training.optimizer, training.every = torch.optim.AdamW(training.model.parameters(), lr=2e-3), 13
    training.run(1)
    found = story(tmp_path)
    inside = of_kind(found, "checkpoint-mismatch", "optimizer at another step")
    assert (inside.severity, inside.evidence["counted"], inside.evidence["saved_step"]) == ("warning", 12, 52)
    between = of_kind(found, "checkpoint-mismatch", "optimizer goes back")
    assert (between.severity, between.first_step, between.last_step) == ("warning", 40, 52)


def test_a_schedule_that_begins_anew_is_found(tmp_path: Path) -> None:
    training = Training.of(tmp_path, "mlp", "adamw", "cosine").run(2)
    training.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(training.optimizer, 100)
    training.run(1)
    one = of_kind(story(tmp_path), "checkpoint-mismatch", "learning-rate schedule goes back")
    assert one.severity == "warning" and one.evidence["counted"] == 20


def test_a_save_that_is_older_than_its_name_is_found(tmp_path: Path) -> None:
    Training.of(tmp_path, "mlp").run(3)
    shutil.copy(tmp_path / "checkpoint-40.pt", tmp_path / "checkpoint-67.pt")
    one = of_kind(story(tmp_path), "checkpoint-mismatch", "name at another step")
    assert (one.severity, one.evidence["counted"], one.evidence["saved_step"]) == ("warning", 67, 40)
    assert "older than its name" in one.message


def test_one_state_saved_under_two_steps_is_found(tmp_path: Path) -> None:
    training = Training.of(tmp_path, "conv", "sgd").run(2)
    copy = {key: value.clone() for key, value in training.model.state_dict().items()}
    training.extra = lambda _: {"model": copy}
    training.run(2)
    one = of_kind(story(tmp_path), "checkpoint-mismatch", "same weights")
    assert (one.severity, one.first_step, one.last_step, one.evidence["saves"]) == ("warning", 40, 80, 2)


def test_lost_keys_and_changed_shapes_are_warnings(tmp_path: Path) -> None:
    training = Training.of(tmp_path, "mlp", "sgd").run(1)
    state: dict[str, Any] = dict(training.model.state_dict())
    del state["4.weight"]
    state["8.weight"], state["8.bias"] = torch.randn(6, 32), torch.randn(6)
    torch.save({"model": state, "global_step": 40}, tmp_path / "checkpoint-40.pt")
    found = {f.evidence["what"]: f.severity for f in story(tmp_path) if f.kind == "checkpoint-mismatch"}
    assert found == {"shapes": "warning", "keys lost": "warning"}


def test_a_tied_weight_that_is_stored_once_is_no_lost_key(tmp_path: Path) -> None:
    training = Training.of(tmp_path, "transformer", "sgd").run(1)
    state = {key: value for key, value in training.model.state_dict().items() if key != "lm_head.weight"}
    training.run(1)
    torch.save({"model": state, "global_step": 60}, tmp_path / "checkpoint-60.pt")
    one = of_kind(story(tmp_path), "checkpoint-mismatch", "keys lost")
    assert one.severity == "info"


def test_another_model_under_the_same_names_of_files_is_said_once(tmp_path: Path) -> None:
    Training.of(tmp_path, "mlp", "sgd").run(1)
    other = Training.of(tmp_path, "conv", "sgd")
    other.step = 20
    other.run(1)
    assert [f.evidence["what"] for f in story(tmp_path) if f.severity != "info"] == ["another model"]


def test_a_layer_made_anew_in_the_middle_is_a_leap_of_that_layer(tmp_path: Path) -> None:
    training = Training.of(tmp_path, "transformer", "adamw", "warm-up").run(3)
    training.model.blocks[2].up.reset_parameters()  # type: ignore[index, union-attr]
    training.run(3)
    one = of_kind(story(tmp_path), "weight-drift")
    assert (one.severity, one.evidence["layer"], one.first_step) == ("warning", "blocks.2.up", 60)
    assert float(one.evidence["times"]) > 10 and float(one.evidence["update_ratio"]) > 1  # type: ignore[arg-type]


def test_other_weights_loaded_on_the_way_are_a_leap_of_the_whole_model(tmp_path: Path) -> None:
    training = Training.of(tmp_path, "mlp", "sgd", every=5).run(4)
    training.model.load_state_dict(Training.of(tmp_path, "mlp", seed=5).model.state_dict())
    training.run(3)
    one = of_kind(story(tmp_path), "weight-drift")
    assert (one.severity, one.evidence["what"], one.first_step) == ("warning", "all weights", 20)


def test_weights_that_went_farther_than_adam_can_step_are_found_between_two_saves(tmp_path: Path) -> None:
    training = Training.of(tmp_path, "mlp", "adam").run(1)
    with torch.no_grad():
        training.model[4].weight.mul_(8)  # type: ignore[index]
    training.run(1)
    one = of_kind(story(tmp_path), "weight-drift")
    assert (one.severity, one.evidence["layer"], one.evidence["steps_between"]) == ("warning", "4", 20)
    assert float(one.evidence["times"]) > 10  # type: ignore[arg-type]


def test_a_model_that_trains_in_eval_mode_keeps_the_statistics_of_the_beginning(tmp_path: Path) -> None:
    training = Training.of(tmp_path, "conv", "sgd")
    training.model.eval()
    training.run(2)
    one = of_kind(story(tmp_path), "frozen-layer")
    assert (one.severity, one.evidence["what"], one.evidence["count"]) == ("warning", "running statistics", 2)


def test_counts_of_batches_that_go_back_are_of_an_earlier_state(tmp_path: Path) -> None:
    training = Training.of(tmp_path, "conv", "sgd").run(2)
    training.model.bn1.reset_running_stats()  # type: ignore[union-attr]
    training.run(1)
    one = of_kind(story(tmp_path), "checkpoint-mismatch", "count goes back")
    assert (one.severity, one.evidence["layer"]) == ("warning", "bn1")


def test_a_norm_out_of_line_and_a_matrix_of_zeros_are_information(tmp_path: Path) -> None:
    training = Training.of(tmp_path, "transformer", "sgd").run(1)
    with torch.no_grad():
        training.model.blocks[2].proj.weight.mul_(30)  # type: ignore[index, union-attr]
        training.model.blocks[1].down.weight.zero_()  # type: ignore[index, union-attr]
    training.save("checkpoint-20.pt")
    found = story(tmp_path)
    assert loud(found) == []
    assert {(f.kind, f.metric) for f in found} == {
        ("weight-drift", "blocks.2.proj.weight"),
        ("dead-units", "blocks.1.down.weight"),
    }
