"""Hugging Face folders, as transformers and accelerate write them and as strangers might: one save with its parts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from accelerate import Accelerator
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from eventstream.errors import InputError
from parsers.checkpoints.checkpoint import Checkpoint
from parsers.checkpoints.huggingface_folder import read, sniff
from parsers.checkpoints.opening import open_checkpoint
from parsers.checkpoints.series import find_saves
from tests.once import once


class Tokens(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, place: int) -> dict[str, torch.Tensor]:
        return {"input_ids": torch.arange(4) + place, "labels": torch.arange(4) + place}


def tiny_llama() -> LlamaForCausalLM:
    torch.manual_seed(3)
    size = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    return LlamaForCausalLM(LlamaConfig(**size, num_attention_heads=2, num_key_value_heads=1))


def trained(folder: Path) -> None:
    arguments = TrainingArguments(
        str(folder),
        max_steps=4,
        save_steps=2,
        per_device_train_batch_size=2,
        report_to=[],
        use_cpu=True,
        weight_decay=0.1,
        logging_steps=1,
        disable_tqdm=True,
    )
    trainer = Trainer(tiny_llama(), arguments, train_dataset=Tokens())
    trainer.train()
    trainer.save_model(str(folder))


def small(folder: Path, name: str = "model.safetensors", value: float = 1.0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file({"w": np.full(3, value, np.float32)}, folder / name)
    return folder


def told(found: Checkpoint) -> list[str]:
    return [f"{damage.file.name}: {damage.reason}" for damage in found.damage]


def numbers(found: Checkpoint) -> dict[str, Any]:
    return {t.name: found.array(t).ravel()[0] for t in found.tensors}


@pytest.fixture(scope="module")
def trainer() -> Path:
    """The folder that a training of four steps left, with a checkpoint at 2 and one at 4."""
    return once("checkpoints-of-the-trainer", trained)


def test_the_trainers_checkpoint_is_one_save_with_all_its_parts(trainer: Path) -> None:
    folder = trainer / "checkpoint-2"
    with open_checkpoint(folder) as found:
        assert (found.format, found.step, found.epoch, found.damage, found.unsafe) == ("huggingface", 2, 0.5, (), ())
        own = {t.name: found.array(t) for t in found.of_role("weights")}
        real = safetensors.numpy.load_file(folder / "model.safetensors")
        assert own.keys() == real.keys()
        for name, array in own.items():
            np.testing.assert_array_equal(array, real[name])
        moments = torch.load(folder / "optimizer.pt", weights_only=True)["state"]
        for tensor in found.of_role("optimizer"):
            _, _, number, state = tensor.name.split(".")
            np.testing.assert_array_equal(found.array(tensor), moments[int(number)][state].numpy())
        assert {t.name.split(".")[0] for t in found.of_role("other")} == {"rng_state"}
        assert found.values["trainer_state.global_step"] == 2
        assert found.values["training_args.max_steps"] == 4
        assert found.values["config.hidden_size"] == 16
        assert found.values["optimizer.param_groups.0.weight_decay"] == 0.1
        assert "trainer_state.log_history.0.loss" not in found.values
        assert found.files[0] == folder / "model.safetensors"


def test_moments_of_the_trainer_belong_to_the_parameters_that_really_have_them(trainer: Path) -> None:
    model = tiny_llama()
    decayed = {id(p) for module in model.modules() if isinstance(module, nn.Linear) for p in module.parameters()}
    decayed |= {id(p) for p in model.get_input_embeddings().parameters()}
    named = list(model.named_parameters())
    order = [name for name, p in named if id(p) in decayed] + [name for name, p in named if id(p) not in decayed]
    with open_checkpoint(trainer / "checkpoint-2") as found:
        got = {int(t.name.split(".")[2]): t.parameter for t in found.of_role("optimizer")}
        assert got == dict(enumerate(order))
        assert {t.state for t in found.of_role("optimizer")} == {"step", "exp_avg", "exp_avg_sq"}


def test_a_training_is_a_series_of_saves_and_its_end(trainer: Path) -> None:
    assert [(save.name, save.step, save.label) for save in find_saves(trainer)] == [
        ("checkpoint-2", 2, ""),
        ("checkpoint-4", 4, ""),
        (trainer.name, None, "final"),
    ]


def test_what_accelerate_saves_is_one_save(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    accelerator = Accelerator(cpu=True)
    prepared, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters()))
    schedule = torch.optim.lr_scheduler.StepLR(torch.optim.SGD(model.parameters()), 1)
    accelerator.register_for_checkpointing(schedule)
    prepared(torch.ones(3, 4)).sum().backward()
    optimizer.step()
    accelerator.save_state(str(tmp_path / "checkpoint_0"))
    with open_checkpoint(tmp_path / "checkpoint_0") as found:
        assert (found.format, found.damage, found.unsafe) == ("huggingface", (), ())
        assert {t.name for t in found.of_role("weights")} == set(model.state_dict())
        assert {t.parameter for t in found.of_role("optimizer")} == set(model.state_dict())
        assert {t.name.split(".")[0] for t in found.of_role("other")} == {"random_states_0"}
        assert found.values["custom_checkpoint_0.gamma"] == 0.1


def test_two_models_of_accelerate_are_told_apart(tmp_path: Path) -> None:
    small(tmp_path)
    small(tmp_path, "model_1.safetensors", 2.0)
    torch.save({"w": torch.ones(3)}, tmp_path / "pytorch_model_1.bin")
    with read(tmp_path) as found:
        assert numbers(found) == {"w": 1, "model_1.w": 2}


def test_of_two_forms_of_the_same_weights_the_first_is_read(tmp_path: Path) -> None:
    torch.save({"w": torch.full((3,), 7.0)}, small(tmp_path) / "pytorch_model.bin")
    with read(tmp_path) as found:
        assert numbers(found) == {"w": 1}
    (tmp_path / "model.safetensors").unlink()
    with read(tmp_path) as found:
        assert numbers(found) == {"w": 7}


def test_shards_of_torch_are_read_by_their_index(tmp_path: Path) -> None:
    shards = [f"pytorch_model-{n:05}-of-00002.bin" for n in (1, 2)]
    for number, shard in enumerate(shards):
        torch.save({f"w{number}": torch.full((2,), float(number))}, tmp_path / shard)
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"w0": shards[0], "w1": shards[1]}}))
    for path in (tmp_path, index):
        with open_checkpoint(path) as found:
            assert numbers(found) == {"w0": 0, "w1": 1}
            assert (found.format, found.damage) == ("huggingface", ())
    (tmp_path / shards[1]).unlink()
    assert told(read(tmp_path)) == [f"{shards[1]}: is missing; 1 tensor of the index lies in it: 'w1'"]


def test_shards_without_an_index_are_read_and_the_missing_one_is_told(tmp_path: Path) -> None:
    for number in (1, 3):
        shard = tmp_path / f"model-{number:05}-of-00003.safetensors"
        safetensors.numpy.save_file({f"w{number}": np.full(2, number, np.float32)}, shard)
    assert sniff(tmp_path)
    with read(tmp_path) as found:
        assert numbers(found) == {"w1": 1, "w3": 3}
        assert told(found) == ["model-00002-of-00003.safetensors: is missing; the names of the others announce it"]


def test_an_adapter_is_a_checkpoint_with_its_settings(tmp_path: Path) -> None:
    (small(tmp_path, "adapter_model.safetensors") / "adapter_config.json").write_text('{"r": 8, "lora_alpha": 16}')
    with open_checkpoint(tmp_path) as found:
        assert (numbers(found), found.values["adapter_config.r"]) == ({"w": 1}, 8)


def test_components_of_a_pipeline_are_told_apart_and_the_average_is_one(tmp_path: Path) -> None:
    small(tmp_path / "unet", "diffusion_pytorch_model.safetensors", 1.0)
    small(tmp_path / "unet_ema", "diffusion_pytorch_model.safetensors", 2.0)
    (tmp_path / "model_index.json").write_text("{}")
    with open_checkpoint(tmp_path) as found:
        assert numbers(found) == {"unet.w": 1, "unet_ema.w": 2}
        assert [(t.role, t.parameter) for t in found.tensors] == [("weights", "unet.w"), ("ema", "unet.w")]
    assert [save.path for save in find_saves(tmp_path)] == [tmp_path]


def test_the_step_is_that_of_the_folder_where_no_state_tells_it(tmp_path: Path) -> None:
    assert read(small(tmp_path / "checkpoint-700")).step == 700
    assert read(small(tmp_path / "best")).step is None


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
@pytest.mark.parametrize(("content", "reason"), [(b"", "is empty"), (b"text", "are neither safetensors nor")])
def test_a_damaged_part_is_told_and_the_others_are_read(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (small(tmp_path) / name).write_bytes(content)
    with open_checkpoint(tmp_path) as found:
        assert numbers(found) == {"w": 1}
        assert [(damage.file.name, reason in damage.reason) for damage in found.damage] == [(name, True)]


def test_a_cut_state_of_the_trainer_is_damage_that_keeps_what_stands_before(tmp_path: Path) -> None:
    (small(tmp_path) / "trainer_state.json").write_text('{"global_step": 12, "epoch": 0.5, "log_hist')
    found = read(tmp_path)
    assert (found.step, found.epoch) == (12, 0.5)
    assert [damage.file.name for damage in found.damage] == ["trainer_state.json"]


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("name", ["training_args.bin", "optimizer.pt", "scheduler.pt"])
def test_what_any_part_would_call_is_listed_and_never_called(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "was-run"
    torch.save({"a": [Bomb(marker)]}, small(tmp_path / "model") / name)
    with open_checkpoint(tmp_path / "model") as found:
        assert [(call.file.name, call.name.rpartition(".")[2]) for call in found.unsafe] == [(name, "system")]
    assert not marker.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt"])
def test_a_link_out_of_the_folder_is_damage_unless_it_stays_in_the_tree_that_was_named(
    tmp_path: Path, name: str
) -> None:
    other = small(tmp_path / "run" / "other", value=5.0)
    secret = small(tmp_path / "secret", value=6.0)
    folder = small(tmp_path / "run" / "checkpoint-1", "adapter_model.safetensors")
    for target, inside in ((other, True), (secret, False)):
        link = folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(target / "model.safetensors")
        with open_checkpoint(folder, within=tmp_path / "run") as found:
            assert len(found.tensors) == 1 + inside
            assert ["it was not followed" in reason for reason in told(found)] == [True] * (not inside)
        with open_checkpoint(folder) as found:
            assert len(found.tensors) == 1


def test_folders_without_weights_are_none(tmp_path: Path) -> None:
    for name in ("config.json", "optimizer.pt", "trainer_state.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "model.safetensors.index").write_text("{}")
    assert not sniff(tmp_path)
    with pytest.raises(InputError, match="no checkpoint at"):
        read(tmp_path / "missing")
