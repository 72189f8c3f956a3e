"""Roles, parameters and steps in the layouts of frameworks: written by them where they are installed, else by hand."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.optim.swa_utils import AveragedModel

from parsers.checkpoints.checkpoint import Checkpoint
from parsers.checkpoints.moments import Parameter, in_any_order, in_order
from parsers.checkpoints.opening import open_checkpoint
from parsers.checkpoints.roles import with_roles
from parsers.checkpoints.tensors import Tensor


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def stepped(model: nn.Module, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    model(torch.randn(3, 4)).sum().backward()
    optimizer.step()
    return optimizer


def opened(tmp_path: Path, content: dict[str, Any]) -> Checkpoint:
    torch.save(content, tmp_path / "a.pt")
    with open_checkpoint(tmp_path / "a.pt") as found:
        return found


def of_role(found: Checkpoint, role: str) -> dict[str, str]:
    return {t.name: t.parameter for t in found.tensors if t.role == role}


def flat(names: list[str], format: str = "torch", **values: float | str) -> dict[str, tuple[str, str]]:
    """Role and parameter of tensors of these names."""
    tensors = tuple(Tensor(name, "float32", (2,), None) for name in names)
    found = with_roles(Checkpoint(Path("a.pt"), format, tensors, values))
    return {t.name: (t.role, t.parameter) for t in found.tensors}


def test_a_model_with_its_optimizer_is_told_to_the_parameter(tmp_path: Path) -> None:
    model = net()
    optimizer = stepped(model, torch.optim.AdamW(model.parameters()))
    nanogpt = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "model_args": {"n": 1},
        "iter_num": 500,
    }
    found = opened(tmp_path, {**nanogpt, "best_val_loss": torch.tensor(1.0), "config": {"lr": 0.1}})
    assert of_role(found, "weights") == {f"model.{name}": name for name in model.state_dict()}
    names = [name for name, _ in model.named_parameters()]
    expected = {f"optimizer.state.{i}.{s}": n for i, n in enumerate(names) for s in ("step", "exp_avg", "exp_avg_sq")}
    assert of_role(found, "optimizer") == expected
    assert {t.state for t in found.of_role("optimizer")} == {"step", "exp_avg", "exp_avg_sq"}
    assert of_role(found, "other") == {"best_val_loss": ""}
    assert found.step == 500


def test_names_that_the_optimizer_was_given_are_taken_before_shapes(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    optimizer = stepped(model, torch.optim.SGD(list(model.named_parameters())[::-1], lr=0.1, momentum=0.9))
    found = opened(tmp_path, {"state_dict": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3})
    expected = [name for name, _ in model.named_parameters()][::-1]
    assert of_role(found, "optimizer") == {f"optimizer.state.{i}.momentum_buffer": n for i, n in enumerate(expected)}
    assert found.epoch == 3


def test_groups_of_decay_and_no_decay_are_told_apart(tmp_path: Path) -> None:
    model = net()
    named = dict(model.named_parameters())
    decayed = [name for name, p in named.items() if p.ndim > 1]
    others = [name for name, p in named.items() if p.ndim == 1]
    groups = [{"params": [named[name] for name in names]} for names in (decayed, others)]
    optimizer = stepped(model, torch.optim.AdamW(groups))
    found = opened(tmp_path, {"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    got = {t.name.split(".")[2]: t.parameter for t in found.of_role("optimizer")}
    assert got == {str(number): name for number, name in enumerate(decayed + others)}


def test_layers_of_one_shape_of_which_some_are_frozen_are_left_open(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    trained = [*model[1].parameters(), *model[2].parameters()]
    optimizer = stepped(model, torch.optim.Adam(trained))
    found = opened(tmp_path, {"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    got = {t.name.split(".")[2]: t.parameter for t in found.of_role("optimizer")}
    assert got == {"0": "", "1": "", "2": "2.weight", "3": "2.bias"}


def test_a_parameter_without_a_gradient_does_not_shift_the_others(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    optimizer = torch.optim.Adam(model.parameters())
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    stepped(model, optimizer)
    found = opened(tmp_path, {"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    got = {t.name.split(".")[2]: t.parameter for t in found.of_role("optimizer")}
    assert got == {"2": "1.weight", "3": "1.bias", "4": "2.weight", "5": "2.bias"}


def test_a_tied_weight_is_one_parameter(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(5, 4)
            self.mix = nn.Linear(4, 4)
            self.head = nn.Linear(4, 5, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mixed: torch.Tensor = self.head(self.mix(x))
            return mixed

    model = Tied()
    optimizer = stepped(model, torch.optim.Adam(model.parameters()))
    found = opened(tmp_path, {"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    got = {t.name.split(".")[2]: t.parameter for t in found.of_role("optimizer")}
    assert got == {"0": "embed.weight", "1": "mix.weight", "2": "mix.bias"}


class Distiller(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = net()
        self.ema_model = AveragedModel(self.model)
        self.scale = nn.Parameter(torch.ones(1))

    def training_step(self, batch: list[torch.Tensor], number: int) -> torch.Tensor:
        return self.model(batch[0]).sum() * self.scale.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam([*self.model.parameters(), self.scale])


@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_of_lightning_with_an_average_is_told_to_the_parameter(tmp_path: Path) -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(8, 4)), 2)
    module = Distiller()
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ModelCheckpoint(tmp_path)],
    )
    trainer.fit(module, data)
    with open_checkpoint(tmp_path / "epoch=0-step=4.ckpt") as found:
        assert (found.step, found.epoch, found.unsafe, found.damage) == (4, 0, (), ())
        own = [name for name in module.state_dict() if not name.startswith("ema_model.")]
        assert of_role(found, "weights") == {f"state_dict.{name}": name for name in own}
        averages = of_role(found, "ema")
        assert averages.pop("state_dict.ema_model.n_averaged") == ""
        assert averages == {f"state_dict.ema_model.module.{n}": f"model.{n}" for n in module.model.state_dict()}
        told = [f"model.{name}" for name, _ in module.model.named_parameters()] + ["scale"]
        got = {t.name.split(".")[3]: t.parameter for t in found.of_role("optimizer")}
        assert got == {str(number): name for number, name in enumerate(told)}
        assert all(name.startswith("callbacks.") for name in of_role(found, "other"))


def test_torchs_average_beside_its_model_copies_it(tmp_path: Path) -> None:
    model = net()
    found = opened(tmp_path, {"module": model.state_dict(), "ema": AveragedModel(model).state_dict(), "step": 7})
    assert of_role(found, "weights") == {f"module.{name}": name for name in model.state_dict()}
    assert of_role(found, "ema") == {"ema.n_averaged": ""} | {f"ema.module.{n}": n for n in model.state_dict()}


@pytest.mark.parametrize(
    ("weights", "averages"),
    [
        ("state_dict.{}", "state_dict_ema.{}"),  # timm
        ("model.{}", "model_ema.{}"),  # DeiT
        ("model.{}", "ema.{}"),  # YOLO
        ("params.{}", "params_ema.{}"),  # BasicSR
        ("model.{}", "ema.ema_model.{}"),  # ema-pytorch
        ("net.module.{}", "ema_state_dict.module.{}"),
        ("model._orig_mod.{}", "ema._orig_mod.{}"),
    ],
)
def test_an_average_beside_the_weights_is_one_in_every_layout(weights: str, averages: str) -> None:
    names = ["conv.weight", "conv.bias", "head.0.weight"]
    got = flat([form.format(name) for form in (weights, averages) for name in names], epoch=3)
    assert got == {weights.format(n): ("weights", n) for n in names} | {averages.format(n): ("ema", n) for n in names}


def test_latent_diffusions_average_has_no_dots_in_its_names() -> None:
    names = ["state_dict.model.input_blocks.0.weight", "state_dict.model.out.bias", "state_dict.loss.scale"]
    averages = [
        "state_dict.model_ema.input_blocks0weight",
        "state_dict.model_ema.outbias",
        "state_dict.model_ema.decay",
    ]
    got = flat([*names, *averages], global_step=5)
    assert [got[name] for name in averages] == [
        ("ema", "model.input_blocks.0.weight"),
        ("ema", "model.out.bias"),
        ("ema", ""),
    ]


def test_the_online_copy_that_an_average_keeps_is_neither_weights_nor_average() -> None:
    got = flat(["model.w", "ema.online_model.w", "ema.ema_model.w", "ema.initted"], step=1)
    assert got["ema.online_model.w"] == ("other", "")
    assert got["ema.ema_model.w"] == ("ema", "w")


def test_a_module_that_is_called_ema_is_no_average() -> None:
    names = ["backbone.conv.weight", "ema.conv1x1.weight", "ema.gn.weight", "head.weight"]
    assert flat(names, "safetensors") == {name: ("weights", name) for name in names}
    held = [f"state_dict.{name}" for name in names]
    assert flat(held, epoch=1) == {f"state_dict.{name}": ("weights", name) for name in names}


def test_a_file_of_an_average_alone_keeps_its_own_names() -> None:
    assert flat(["ema.conv.weight", "ema.conv.bias"], step=3) == {
        "ema.conv.weight": ("ema", "conv.weight"),
        "ema.conv.bias": ("ema", "conv.bias"),
    }


def test_two_models_of_one_checkpoint_keep_what_tells_them_apart() -> None:
    names = ["generator.conv.weight", "discriminator.conv.weight", "generator.head.weight"]
    optimizers = ["optim_g.state.0.exp_avg", "optimizer_D.state.0.exp_avg", "d_optim.state.1.exp_avg"]
    got = flat([*names, *optimizers], steps=10)
    assert [got[name] for name in names] == [("weights", name) for name in names]
    assert {got[name][0] for name in optimizers} == {"optimizer"}


@pytest.mark.parametrize(
    "wrapper", ["module.", "_orig_mod.", "_orig_mod.module.", "_fsdp_wrapped_module.", "module.module."]
)
def test_marks_of_wrappers_are_no_part_of_a_name(wrapper: str) -> None:
    names = ["enc.weight", "dec.weight"]
    assert [got[1] for got in flat([wrapper + name for name in names], "safetensors").values()] == names
    assert [got[1] for got in flat([f"model.{wrapper}{name}" for name in names], epoch=1).values()] == names


def test_a_wrapper_in_the_middle_of_a_name_is_taken_out() -> None:
    assert flat(["enc._orig_mod.weight", "dec.weight"], "safetensors")["enc._orig_mod.weight"] == (
        "weights",
        "enc.weight",
    )


def test_names_that_only_look_like_wrappers_stay_where_others_have_none() -> None:
    names = ["module.weight", "head.weight"]
    assert [got[1] for got in flat(names, "safetensors").values()] == names


def test_a_models_own_parts_keep_their_names() -> None:
    llama = ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]
    assert [got[1] for got in flat(llama, "huggingface").values()] == llama
    assert [got[1] for got in flat([f"state_dict.{name}" for name in llama], epoch=1).values()] == llama
    gan = ["generator.weight", "scheduler.weight", "loops.weight"]  # modules of a model with odd names
    assert [got[0] for got in flat(gan, "safetensors").values()] == ["weights"] * 3


@pytest.mark.parametrize(
    "owner", ["optimizer", "optimizers.0", "optim_g", "optimizerG", "g_optim", "OptimizerD", "opt_1"]
)
def test_optimizers_are_told_by_their_names(owner: str) -> None:
    assert flat(["model.w", f"{owner}.state.0.exp_avg"], epoch=1)[f"{owner}.state.0.exp_avg"][0] == "optimizer"


def test_modules_whose_names_only_begin_as_an_optimizers_are_weights() -> None:
    names = ["optimus.encoder.weight", "optical.conv.weight", "opt.decoder.weight"]
    assert [got[0] for got in flat(names, "safetensors").values()] == ["weights"] * 3


def test_gpt_sovits_holds_its_weights_in_weight() -> None:
    assert flat(["weight.enc_p.w", "weight.dec.w"], info="s2")["weight.enc_p.w"] == ("weights", "enc_p.w")


def test_fairseq_and_openmmlab_are_read() -> None:
    got = flat(["model.w", "criterion.scale", "last_optimizer_state.state.0.exp_avg"], **{"args.lr": 0.1})
    assert {name: role for name, (role, _) in got.items()} == {
        "model.w": "weights",
        "criterion.scale": "weights",
        "last_optimizer_state.state.0.exp_avg": "optimizer",
    }
    values = {"optimizer_history.0.num_updates": 100, "optimizer_history.1.num_updates": 300}
    assert with_roles(Checkpoint(Path("a.pt"), "torch", (), values)).step == 300
    mm = with_roles(Checkpoint(Path("a.pt"), "torch", (), {"meta.iter": 40, "meta.epoch": 2}))
    assert (mm.step, mm.epoch) == (40, 2)


def test_states_by_the_names_of_parameters_are_told() -> None:
    names = ["model.enc.weight", "model.enc.bias", "optim.state.enc.weight.exp_avg", "optim.state.module.enc.bias.step"]
    tensors = tuple(Tensor(name, "float32", (2,), None) for name in names)
    found = with_roles(Checkpoint(Path("a"), "dcp", tensors))
    assert [(t.parameter, t.state) for t in found.tensors[2:]] == [("enc.weight", "exp_avg"), ("enc.bias", "step")]


def test_the_file_of_an_optimizer_alone_is_one(tmp_path: Path) -> None:
    model = net()
    torch.save(stepped(model, torch.optim.Adam(model.parameters())).state_dict(), tmp_path / "optimizer.pt")
    with open_checkpoint(tmp_path / "optimizer.pt") as found:
        assert {(t.role, t.parameter) for t in found.tensors} == {("optimizer", "")}
        assert {t.state for t in found.tensors} == {"step", "exp_avg", "exp_avg_sq"}


def test_the_step_may_stand_in_the_metadata_of_safetensors(tmp_path: Path) -> None:
    safetensors.torch.save_file({"w": torch.ones(2)}, tmp_path / "a.safetensors", {"step": "700", "format": "pt"})
    np.savez(tmp_path / "b.npz", w=np.ones(2), step=300)
    assert open_checkpoint(tmp_path / "a.safetensors").step == 700
    assert open_checkpoint(tmp_path / "b.npz").step == 300


Shapes = st.lists(st.sampled_from([(2,), (3,), (2, 3)]), max_size=8)


def every_way(group: list[tuple[int, ...] | None], model: list[Parameter]) -> list[list[str]]:
    """Slow and obvious: every order-preserving way to lay a group's shapes on the model's."""
    if not group:
        return [[]]
    ways = []
    for place, one in enumerate(model):
        if group[0] is None or one.shape == group[0]:
            ways += [[one.name, *rest] for rest in every_way(group[1:], model[place + 1 :])]
    return ways


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(Shapes, st.lists(st.booleans(), min_size=8, max_size=8), st.lists(st.booleans(), min_size=8, max_size=8))
def test_a_place_is_told_where_all_ways_agree_and_only_there(
    shapes: list[tuple[int, ...]], trained: list[bool], stateless: list[bool]
) -> None:
    model = [Parameter(f"p{n}", shape) for n, shape in enumerate(shapes)]
    truth = [one for one, is_trained in zip(model, trained, strict=False) if is_trained]
    group = [None if none else one.shape for one, none in zip(truth, stateless, strict=False)]
    ways = every_way(group, model)
    agreed = [places.pop() if len(places := set(column)) == 1 else "" for column in zip(*ways, strict=True)]
    (told,) = in_order([group], model)
    assert told == agreed
    assert all(name in ("", one.name) for name, one in zip(told, truth, strict=True))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from([(2,), (3,)]), max_size=6), st.randoms(use_true_random=False))
def test_in_any_order_nothing_is_told_that_a_sorted_file_could_have_hidden(
    shapes: list[tuple[int, ...]], chance: Any
) -> None:
    truth = [Parameter(f"layers.{n}.{'ab'[shape[0] % 2]}", shape) for n, shape in enumerate(shapes)]
    shuffled = truth[:]
    chance.shuffle(shuffled)
    (told,) = in_any_order([[one.shape for one in truth]], shuffled)
    assert told == [one.name for one in truth]


def test_names_that_differ_in_more_than_one_number_are_left_open() -> None:
    model = [Parameter(f"stages.{i}.blocks.{j}.w", (2,)) for i in range(2) for j in range(2)]
    assert in_any_order([[(2,)] * 4], model) == [[""] * 4]
    assert in_any_order([[(2,), (2,)], [(2,), (2,)]], model) == [["", ""], ["", ""]]


def test_parameters_of_the_model_itself_are_weights_beside_those_of_its_modules(tmp_path: Path) -> None:
    flat_state = {"pos_embed": torch.ones(3), "cls_token": torch.ones(2), "blocks.0.weight": torch.ones(2, 2)}
    assert of_role(opened(tmp_path, flat_state), "weights") == {name: name for name in flat_state}
    assert of_role(opened(tmp_path, {"w": torch.ones(2), "b": torch.ones(1)}), "weights") == {"w": "w", "b": "b"}
    held = opened(tmp_path, {"model": flat_state, "loss": torch.tensor(0.5), "step": 3})
    assert of_role(held, "weights") == {f"model.{name}": name for name in flat_state}
    assert list(of_role(held, "other")) == ["loss"]
