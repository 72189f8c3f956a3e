"""Saves below a folder: each is found once, in the order of training, and what is no save is none."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import safetensors.numpy

from eventstream.errors import InputError
from parsers.checkpoints.opening import open_checkpoint
from parsers.checkpoints.series import Save, find_saves


def made(file: Path, value: float | None = None) -> Path:
    """A small checkpoint whose content is that of no other, unless `value` says which."""
    file.parent.mkdir(parents=True, exist_ok=True)
    made.count += 1  # type: ignore[attr-defined]
    number = made.count if value is None else value  # type: ignore[attr-defined]
    safetensors.numpy.save_file({"a": np.full(3, number, np.float32), "b": np.zeros(2)}, file)
    return file


made.count = 0  # type: ignore[attr-defined]


def saves(folder: Path, *names: str) -> tuple[Save, ...]:
    for name in names:
        made(folder / name)
    return find_saves(folder)


def names(found: tuple[Save, ...]) -> list[str]:
    return [save.name for save in found]


def test_steps_are_in_the_order_of_numbers_and_not_of_letters(tmp_path: Path) -> None:
    found = saves(tmp_path, "step_1000.pt", "step_900.pt", "step_20000.pt")
    assert [(save.name, save.step) for save in found] == [
        ("step_900.pt", 900),
        ("step_1000.pt", 1000),
        ("step_20000.pt", 20000),
    ]


def test_checkpoints_of_the_trainer_are_folders_and_their_files_no_saves(tmp_path: Path) -> None:
    for step in (1000, 500):
        folder = tmp_path / f"checkpoint-{step}"
        made(folder / "model.safetensors")
        made(folder / "optimizer.pt")
        made(folder / "rng_state.pth")
        made(folder / "value_head.bin")
    assert [(save.name, save.step, save.series) for save in find_saves(tmp_path)] == [
        ("checkpoint-500", 500, ""),
        ("checkpoint-1000", 1000, ""),
    ]


def test_the_final_model_beside_its_checkpoints_is_the_last_of_them(tmp_path: Path) -> None:
    found = saves(tmp_path, "model.safetensors", "checkpoint-5/model.safetensors")
    assert [(save.path, save.step, save.label) for save in found] == [
        (tmp_path / "checkpoint-5", 5, ""),
        (tmp_path, None, "final"),
    ]


def test_a_step_that_no_name_tells_is_that_of_the_trainers_state(tmp_path: Path) -> None:
    made(tmp_path / "best" / "model.safetensors")
    (tmp_path / "best" / "trainer_state.json").write_text(json.dumps({"global_step": 700, "log_history": []}))
    assert [(save.step, save.label) for save in find_saves(tmp_path)] == [(700, "best")]


@pytest.mark.parametrize("state", ["{", "[]", '{"global_step": "x"}', '{"global_step": -3}'])
def test_a_trainers_state_that_tells_no_step_gives_none(tmp_path: Path, state: str) -> None:
    made(tmp_path / "best" / "model.safetensors")
    (tmp_path / "best" / "trainer_state.json").write_text(state)
    assert [save.step for save in find_saves(tmp_path)] == [None]


def test_lightnings_last_is_told_to_be_a_copy_and_has_its_step(tmp_path: Path) -> None:
    made(tmp_path / "epoch=0-step=100.ckpt", 1)
    made(tmp_path / "epoch=1-step=200.ckpt", 2)
    made(tmp_path / "last.ckpt", 2)
    assert [(save.name, save.step, save.epoch, save.same_as) for save in find_saves(tmp_path)] == [
        ("epoch=0-step=100.ckpt", 100, 0, ""),
        ("epoch=1-step=200.ckpt", 200, 1, ""),
        ("last.ckpt", 200, 1, "epoch=1-step=200.ckpt"),
    ]


@pytest.mark.parametrize("hard", [True, False])
def test_a_link_is_told_to_be_one(tmp_path: Path, hard: bool) -> None:
    saves(tmp_path, "step_1.pt", "step_2.pt")
    (os.link if hard else os.symlink)(tmp_path / "step_1.pt", tmp_path / "best.pt")
    found = {save.name: (save.step, save.same_as, save.label) for save in find_saves(tmp_path)}
    assert found["best.pt"] == (1, "step_1.pt", "best")
    assert found["step_1.pt"] == (1, "", "")


def test_saves_that_differ_in_one_byte_are_no_copies(tmp_path: Path) -> None:
    file, other = made(tmp_path / "step_1.pt", 1), tmp_path / "last.pt"
    content = bytearray(file.read_bytes() + bytes(2_000_000))
    file.write_bytes(content)
    content[-777_777] ^= 1
    other.write_bytes(content)
    assert [save.same_as for save in find_saves(tmp_path)] == ["", ""]


def test_best_and_last_of_which_nothing_is_known_stand_behind(tmp_path: Path) -> None:
    found = saves(tmp_path, "last.pth", "best.pth", "epoch_2.pth", "epoch_10.pth", "model_final.pth")
    assert names(found) == ["epoch_2.pth", "epoch_10.pth", "best.pth", "last.pth", "model_final.pth"]


def test_the_players_of_a_gan_are_two_series(tmp_path: Path) -> None:
    found = saves(tmp_path, "G_1000.pth", "D_1000.pth", "G_200.pth", "D_200.pth")
    assert [(save.series, save.step) for save in found] == [("d", 200), ("d", 1000), ("g", 200), ("g", 1000)]


def test_small_numbers_of_which_nothing_says_what_they_count_are_no_steps(tmp_path: Path) -> None:
    found = saves(tmp_path, "model_1.pth", "model_20.pth", "model_3.pth")
    assert [(save.number, save.step, save.epoch) for save in found] == [(n, None, None) for n in (1, 3, 20)]


def test_an_average_is_a_series_beside_the_weights(tmp_path: Path) -> None:
    found = saves(tmp_path, "model_1000.pt", "ema_0.999_1000.pt", "ema_0.999_2000.pt", "model_2000.pt")
    assert [(save.series, save.step, save.label) for save in found] == [
        ("", 1000, ""),
        ("", 2000, ""),
        ("ema", 1000, "ema"),
        ("ema", 2000, "ema"),
    ]


def test_copies_of_ranks_stand_beside_one_another(tmp_path: Path) -> None:
    found = saves(tmp_path, "step_2_rank1.pt", "step_1_rank1.pt", "step_1_rank0.pt", "step_2_rank0.pt")
    assert [(save.step, save.rank, save.series) for save in found] == [(1, 0, ""), (1, 1, ""), (2, 0, ""), (2, 1, "")]


def test_folders_of_steps_and_ranks_are_counters(tmp_path: Path) -> None:
    found = saves(
        tmp_path, "iter_0000200/rank_1/model.pt", "iter_0000200/rank_0/model.pt", "iter_0000100/rank_0/model.pt"
    )
    assert [(save.step, save.rank, save.series) for save in found] == [(100, 0, ""), (200, 0, ""), (200, 1, "")]


def test_parts_of_a_model_that_was_cut_over_ranks_are_series_of_their_own(tmp_path: Path) -> None:
    names_of = [f"iter_000{n}00/mp_rank_0{part}/model_optim_rng.pt" for n in (2, 1) for part in (1, 0)]
    found = saves(tmp_path, *names_of)
    assert [(save.series, save.step, save.rank) for save in found] == [
        ("mp_rank_00", 100, None),
        ("mp_rank_00", 200, None),
        ("mp_rank_01", 100, None),
        ("mp_rank_01", 200, None),
    ]


def test_runs_below_one_folder_are_series_of_their_own(tmp_path: Path) -> None:
    found = saves(
        tmp_path, "checkpoints_full/step_10.pt", "checkpoints_no_gan/step_10.pt", "checkpoints_no_gan/step_5.pt"
    )
    assert [(save.series, save.step) for save in found] == [
        ("checkpoints_full", 10),
        ("checkpoints_no_gan", 5),
        ("checkpoints_no_gan", 10),
    ]


def test_numbered_folders_are_runs_unless_they_stand_among_checkpoints(tmp_path: Path) -> None:
    found = saves(tmp_path, "7/model.pt", "8/model.pt", "a/checkpoints/10/model.pt", "a/checkpoints/9/model.pt")
    assert [(save.series, save.number) for save in found] == [
        ("7", None),
        ("8", None),
        ("a/checkpoints", 9),
        ("a/checkpoints", 10),
    ]


def test_models_of_other_names_are_no_series(tmp_path: Path) -> None:
    assert [save.series for save in saves(tmp_path, "small.pt", "large.pt")] == ["large", "small"]


def test_parts_of_saves_logs_caches_and_hidden_files_are_no_saves(tmp_path: Path) -> None:
    (tmp_path / "train.log").write_text("step 1 loss 2.0")
    (tmp_path / "notes.pt").write_text("no checkpoint")
    found = saves(
        tmp_path,
        "model_step1.pt",
        "optimizer_step1.pt",
        "optimizer.pt",
        "G_optimizer.pth",
        "scheduler.bin",
        "rng_state_0.pth",
        "training_args.bin",
        ".hidden/model.pt",
        "cache/model.pt",
        "__pycache__/model.pt",
        "zero_pp_rank_0_optim_states.pt",
    )
    assert names(found) == ["model_step1.pt"]


def test_one_tensor_in_a_file_that_is_not_named_for_weights_is_no_model(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"v": np.ones(4)}, tmp_path / "speaker7.pth")
    safetensors.numpy.save_file({"v": np.ones(4)}, tmp_path / "model.pth")
    np.savez(tmp_path / "features.npz", v=np.ones(4))
    np.savez(tmp_path / "params_3.npz", v=np.ones(4))
    assert sorted(names(find_saves(tmp_path))) == ["model.pth", "params_3.npz"]


def test_an_index_is_one_save_and_its_shards_are_none(tmp_path: Path) -> None:
    shards = [f"unet-{n:05}-of-00002.safetensors" for n in (1, 2)]
    for shard in shards:
        made(tmp_path / shard)
    index = tmp_path / "unet.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": shards[0], "b": shards[1]}}))
    assert names(find_saves(tmp_path)) == ["unet.safetensors.index.json"]


def test_a_checkpoint_itself_is_the_only_save(tmp_path: Path) -> None:
    file = made(tmp_path / "run" / "step_5.pt")
    assert find_saves(file) == (Save(file, "step_5.pt", step=5),)
    made(tmp_path / "checkpoint-5" / "model.safetensors")
    assert [(save.name, save.step) for save in find_saves(tmp_path / "checkpoint-5")] == [("checkpoint-5", 5)]


def test_what_holds_no_checkpoint_gives_no_save_and_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    assert find_saves(tmp_path) == ()
    assert find_saves(tmp_path / "a.txt") == ()
    with pytest.raises(InputError, match="there is no such file or folder"):
        find_saves(tmp_path / "missing")


def test_a_link_out_of_the_folder_is_a_save_that_is_not_followed(tmp_path: Path) -> None:
    secret = made(tmp_path / "secret.pt")
    run = tmp_path / "run"
    made(run / "step_1.pt")
    (run / "step_2.pt").symlink_to(secret)
    (run / "folder").symlink_to(tmp_path)
    found = find_saves(run)
    assert names(found) == ["step_1.pt", "step_2.pt"]
    opened = open_checkpoint(found[1].path, within=found[1].within)
    assert opened.tensors == ()
    assert ("it was not followed" in opened.damage[0].reason, opened.damage[0].unsupported) == (True, True)
    with open_checkpoint(found[1].path) as opened:
        assert len(opened.tensors) == 2


def test_a_link_of_the_hub_cache_is_one_save(tmp_path: Path) -> None:
    blob = made(tmp_path / "blobs" / "4d7a")
    snapshot = tmp_path / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to(f"../../blobs/{blob.name}")
    found = find_saves(tmp_path)
    assert names(found) == ["snapshots/abc"]
    with open_checkpoint(found[0].path, within=found[0].within) as opened:
        assert (len(opened.tensors), opened.damage) == (2, ())


def test_folders_are_followed_to_a_depth(tmp_path: Path) -> None:
    made(tmp_path / "1/2/3/4/5/6/model.pt")
    made(tmp_path / "a/b/c/d/e/f/g/model.pt")
    assert names(find_saves(tmp_path)) == ["1/2/3/4/5/6/model.pt"]


def test_damaged_files_are_saves_too(tmp_path: Path) -> None:
    (tmp_path / "step_3.safetensors").write_bytes(b"\xff" * 20)
    found = saves(tmp_path, "step_2.safetensors")
    assert names(found) == ["step_2.safetensors", "step_3.safetensors"]
    assert open_checkpoint(found[1].path).damage


def test_a_file_that_may_not_be_read_is_a_save_and_its_opening_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = saves(tmp_path, "step_1.pt", "step_2.pt")
    real = Path.open

    def refused(path: Path, *arguments: str) -> IO[Any]:
        if path.name == "step_2.pt":
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments)

    monkeypatch.setattr(Path, "open", refused)
    assert names(find_saves(tmp_path)) == names(found)
    opened = open_checkpoint(found[1].path, within=found[1].within)
    assert ["cannot be read (Permission denied)" in damage.reason for damage in opened.damage] == [True]
    with pytest.raises(InputError, match=r"step_2\.pt: cannot be read \(Permission denied\)"):
        open_checkpoint(found[1].path)


def test_saves_of_which_nothing_was_written_are_listed_and_told_as_damage(tmp_path: Path) -> None:
    saves(tmp_path, "step_1.pt")
    (tmp_path / "step_2.pt").touch()
    (tmp_path / "step_3.pth").write_bytes(bytes(800))
    (tmp_path / "step_4.ckpt").write_bytes(bytes(80_000))
    found = find_saves(tmp_path)
    assert names(found) == ["step_1.pt", "step_2.pt", "step_3.pth", "step_4.ckpt"]
    reasons = [[one.reason for one in open_checkpoint(save.path, within=tmp_path).damage] for save in found]
    assert reasons == [
        [],
        ["the file is empty: nothing of it was written"],
        ["its first 800 bytes are 0: it was made and not filled"],
        ["its first 4,096 bytes are 0: it was made and not filled"],
    ]
    assert names(find_saves(tmp_path / "step_2.pt")) == ["step_2.pt"]


def test_empty_files_that_no_save_would_be_called_are_no_damaged_saves(tmp_path: Path) -> None:
    saves(tmp_path, "step_1.pt")
    for name in ("notes.bin", "optimizer.pt", "step_2.txt", "tokenizer.model", ".step_3.pt"):
        (tmp_path / name).touch()
    (tmp_path / "step_4.bin").write_bytes(b"some other content")
    assert names(find_saves(tmp_path)) == ["step_1.pt"]
