"""Checkpoints in shards: whole ones are one checkpoint, and of broken ones everything is read that is there."""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from parsers.checkpoints.checkpoint import Checkpoint
from parsers.checkpoints.opening import FORMATS
from parsers.checkpoints.safetensors_file import read, sniff


def sharded(folder: Path, *shards: dict[str, int], index: dict[str, str] | None = None) -> Path:
    """An index of these shards; each tensor is two floats of its number."""
    folder.mkdir(parents=True, exist_ok=True)
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        safetensors.numpy.save_file({k: np.full(2, v, np.float32) for k, v in names.items()}, folder / file)
        weight_map |= dict.fromkeys(names, file)
    place = folder / "model.safetensors.index.json"
    told = {"metadata": {"total_size": 8 * len(weight_map)}, "weight_map": weight_map if index is None else index}
    place.write_text(json.dumps(told))
    return place


def numbers(found: Checkpoint) -> dict[str, float]:
    return {t.name: float(found.array(t)[0]) for t in found.tensors}


def told(found: Checkpoint) -> list[str]:
    return [f"{damage.file.name}: {damage.where}: {damage.reason}" for damage in found.damage]


ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def test_shards_are_one_checkpoint(tmp_path: Path) -> None:
    index = sharded(tmp_path, {"a": 1, "b": 2}, {"c": 3})
    assert sniff(index)
    with read(index) as found:
        assert numbers(found) == {"a": 1, "b": 2, "c": 3}
        assert found.values["metadata.total_size"] == 24
        assert not found.damage
        assert [file.name for file in found.files] == [index.name, ONE, TWO]


def test_a_missing_shard_is_damage_and_the_others_are_read(tmp_path: Path) -> None:
    index = sharded(tmp_path, {"a": 1}, {"b": 2, "c": 3, "d": 4, "e": 5})
    (tmp_path / TWO).unlink()
    with read(index) as found:
        assert numbers(found) == {"a": 1}
        assert told(found) == [
            f"{TWO}: shard {TWO!r}: is missing; 4 tensors of the index lie in it: 'b', 'c', 'd' and 1 more"
        ]


def test_a_tensor_that_no_shard_has_is_damage(tmp_path: Path) -> None:
    index = sharded(tmp_path, {"a": 1}, {"b": 2}, index={"a": ONE, "b": TWO, "ghost": TWO})
    with read(index) as found:
        assert numbers(found) == {"a": 1, "b": 2}
        assert told(found) == [f"{TWO}: tensor 'ghost': the index names it, no shard has it"]


@pytest.mark.parametrize(("rightful", "number"), [(ONE, 1), (TWO, 7)])
def test_of_a_tensor_in_two_shards_that_of_the_index_is_read(tmp_path: Path, rightful: str, number: int) -> None:
    index = sharded(tmp_path, {"a": 1, "x": 5}, {"a": 7, "y": 6}, index={"a": rightful, "x": ONE, "y": TWO})
    with read(index) as found:
        assert numbers(found) == {"a": number, "x": 5, "y": 6}
        assert len(found.damage) == 1
        assert f"that of {rightful!r} is read" in found.damage[0].reason


def test_a_damaged_tensor_of_a_shard_is_told_once(tmp_path: Path) -> None:
    index = sharded(tmp_path, {"a": 1}, {"b": 2})
    cut = tmp_path / TWO
    cut.write_bytes(cut.read_bytes()[:-4])
    with read(index) as found:
        assert numbers(found) == {"a": 1}
        assert [damage.where.split(",")[0] for damage in found.damage] == ["tensor 'b'"]


@pytest.mark.parametrize(
    "shard",
    ["../secret.safetensors", "/etc/passwd", "a/../../b", "C:\\x", "..\\x", "", "a\0b", "model.safetensors.index.json"],
)
def test_a_shard_named_outside_the_folder_is_never_opened(tmp_path: Path, shard: str) -> None:
    safetensors.numpy.save_file({"w": np.ones(2)}, tmp_path / "secret.safetensors")
    index = sharded(tmp_path / "model", {"a": 1}, index={"a": "model-00001-of-00001.safetensors", "w": shard})
    with read(index) as found:
        assert numbers(found) == {"a": 1}
        assert len(found.damage) == 1
        assert "was not opened" in found.damage[0].reason


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"b": np.ones(2)}, tmp_path / "secret.safetensors")
    index = sharded(tmp_path / "model", {"a": 1}, {"b": 2})
    (index.parent / TWO).unlink()
    (index.parent / TWO).symlink_to("../secret.safetensors")
    with read(index) as found:
        assert numbers(found) == {"a": 1}
        assert ("it was not followed" in found.damage[0].reason, found.damage[0].unsupported) == (True, True)
    with read(index, within=tmp_path) as found:
        assert numbers(found) == {"a": 1, "b": 1}


def test_links_of_the_hub_cache_are_followed_and_no_others_of_it(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    index = sharded(snapshot, {"a": 1}, {"b": 2})
    blobs.mkdir()
    (snapshot / ONE).rename(blobs / "4d7a")
    (snapshot / ONE).symlink_to("../../blobs/4d7a")
    (snapshot / TWO).rename(tmp_path / "elsewhere")
    (snapshot / TWO).symlink_to("../../elsewhere")
    with read(index) as found:
        assert numbers(found) == {"a": 1}
        assert [damage.where for damage in found.damage] == [f"shard {TWO!r}"]


def test_a_broken_link_and_a_circle_of_links_are_damage(tmp_path: Path) -> None:
    index = sharded(tmp_path, {"a": 1}, {"b": 2})
    for shard, target in ((ONE, "gone"), (TWO, TWO)):
        (tmp_path / shard).unlink()
        (tmp_path / shard).symlink_to(target)
    found = read(index)
    assert len(found.damage) == 2
    assert "a link to a file that is not there" in found.damage[0].reason


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": [1]}', '{"weight_map": {"a": 3}}'])
def test_an_index_that_says_nothing_is_damage(tmp_path: Path, text: str) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(text)
    found = read(index)
    assert found.tensors == ()
    assert len(found.damage) == 1


def test_of_a_cut_index_what_it_names_before_the_cut_is_read(tmp_path: Path) -> None:
    index = sharded(tmp_path, {"a": 1}, {"b": 2})
    text = index.read_text()
    index.write_text(text[: text.index('"b"')])
    with read(index) as found:
        assert numbers(found) == {"a": 1}
        assert "damaged" in found.damage[0].reason


def test_formats_that_name_other_files_take_the_folder_that_none_may_leave() -> None:
    takes = {e.name: "within" in inspect.signature(importlib.import_module(e.module).read).parameters for e in FORMATS}
    assert takes == {entry.name: entry.names_files for entry in FORMATS}
    assert takes["huggingface"]
    assert takes["safetensors"]
