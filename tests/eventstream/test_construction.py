"""What construction writes into the manifest and what it refuses."""

from __future__ import annotations

import argparse
import dataclasses
import enum
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from eventstream.errors import AftertrainError, InputError, PlanError
from eventstream.recorder import Recorder


@dataclasses.dataclass
class Settings:
    lr: float = 0.1
    path: Path = Path("data/x")
    kind: enum.Enum = enum.Enum("Kind", {"A": "a"}).A
    limits: tuple[float, ...] = (1.0, math.inf)


def test_the_manifest_holds_name_config_and_plan(tmp_path):
    with Recorder(tmp_path, config=Settings(), plan={"max_steps": 3}, run="exp", seal=False) as rec:
        rec.config({"seed": np.int64(3), "tags": {"b", "a"}, "dtype": torch.float32})
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    created, (attempt,) = manifest.pop("created"), manifest.pop("attempts")
    assert manifest == {
        "format": "aftertrain-events",
        "version": 1,
        "run": "exp",
        "config": {
            "lr": 0.1,
            "path": "data/x",
            "kind": "a",
            "limits": [1.0, "Infinity"],
            "seed": 3,
            "tags": ["a", "b"],
            "dtype": "torch.float32",
        },
        "plan": {"max_steps": 3},
    }
    assert attempt == {"attempt": 0, "started": created}
    assert [entry.name for entry in tmp_path.glob("*.tmp")] == []


def test_a_restart_keeps_what_it_is_not_told_and_replaces_what_it_is(tmp_path):
    Recorder(tmp_path / "r", config={"lr": 1.0}, plan={"max_steps": 3}, run="exp", seal=False).close()
    Recorder(tmp_path / "r", config=argparse.Namespace(lr=2.0), seal=False).close()
    manifest = json.loads((tmp_path / "r" / "manifest.json").read_text())
    assert (manifest["run"], manifest["config"], manifest["plan"]) == ("exp", {"lr": 2.0}, {"max_steps": 3})
    assert [entry["attempt"] for entry in manifest["attempts"]] == [0, 1]


def test_a_damaged_manifest_is_set_aside_and_said(tmp_path, caught):
    (tmp_path / "manifest.json").write_text('{"format": "aftertr')
    with caught() as texts:
        Recorder(tmp_path, seal=False).close()
    assert len(texts) == 1
    assert "set aside" in texts[0]
    assert (tmp_path / "manifest.json.damaged").read_text() == '{"format": "aftertr'
    assert json.loads((tmp_path / "manifest.json").read_text())["run"] == tmp_path.name


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"plan": [1]}, PlanError, "plan must be a mapping, got list"),
        ({"config": [1]}, InputError, "config must be a mapping, a dataclass or a namespace, got list"),
        ({"rank": -1}, InputError, "rank must be a whole number from 0, got -1"),
        ({"rank": 1.5}, InputError, "rank must be a whole number from 0, got 1.5"),
        ({"segment_bytes": 0}, InputError, "segment_bytes must be a positive number of bytes, got 0"),
        ({"segment_bytes": "1"}, InputError, "segment_bytes must be a positive number of bytes, got '1'"),
    ],
)
def test_what_cannot_be_right_is_refused_at_construction(tmp_path, options, kind, words):
    with pytest.raises(kind, match=words):
        Recorder(tmp_path / "run", **options)
    assert issubclass(kind, AftertrainError)
    assert not (tmp_path / "run").exists()


def test_a_path_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file; a run is recorded into a folder"):
        Recorder(tmp_path / "file")
    with pytest.raises(InputError, match="no run can be recorded here"):
        Recorder(tmp_path / "file" / "run")
    with pytest.raises(InputError, match="path must be the folder of the run, got int"):
        Recorder(3)


def test_a_rank_of_the_environment_that_is_no_number_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(InputError, match="the environment's RANK must be a whole number from 0, got 'first'"):
        Recorder(tmp_path)


@pytest.mark.parametrize(
    ("manifest", "words"),
    [({"format": "other"}, "is 'other', not"), ({"version": 2}, "version 2 is newer than 1")],
)
def test_a_folder_of_another_kind_or_a_newer_version_is_refused(tmp_path, manifest, words):
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=words):
        Recorder(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["manifest.json"]
