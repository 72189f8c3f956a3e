"""Runs in one JSON document: every form as its writer lays it out, and each of them cut, flipped and misshapen."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parsers.content.json_damage import read_document
from parsers.json_documents import read, sniff
from parsers.loading import load
from tests.parsers.wild import WILD, disagreement, wild

STEPS = [{"step": s, "loss": 3.0 - s / 10, "memory": {"gb": 1.5}, "batch": {"mode": "rep"}} for s in range(1, 21)]
NANOCHAT = {"config": {"depth": 2}, "session": {"steps": 20, "mean": 0.5}, "per_step": STEPS, "logging": {"dir": "a"}}
SACRED = {
    "training.loss": {
        "steps": list(range(5)),
        "timestamps": [f"2024-02-08T23:02:1{s}.5" for s in range(5)],
        "values": [1.0 / (s + 1) for s in range(5)],
    }
}
NVLOG = {
    "run": {"gpu_info": {"num": 8}, "args": {"lr": 0.1}, "run_start": None},
    "epoch": {"x": [0, 1], "val_loss": [0.5, 0.25]},
    "iter": {"x": [[0, 1, 2], [0, 1]], "train_loss": [[5, 4, 3], [2, 1]]},
    "event": {},
}
KERAS = {"loss": [2.5, 1.5, 1.0], "accuracy": [0.1, 0.2, 0.3], "val_loss": [2.75, 2.0, 1.75]}


def save(folder: Path, value: Any, name: str = "demo.json", **options: Any) -> Path:
    path = folder / name
    path.write_text(value if isinstance(value, str) else json.dumps(value, **options), encoding="utf-8")
    return path


@pytest.mark.parametrize(("path", "facts"), wild("nanochat_json"), ids=lambda v: v.name if isinstance(v, Path) else "")
def test_a_strangers_list_of_steps_is_read_as_it_was_counted(path: Path, facts: dict[str, Any]) -> None:
    run = load(path)
    assert run.format == "json-document" and run.rejects.is_empty() and run.config["depth"] == 32
    told = {key.replace(".", "/"): counted for key, counted in facts.items() if key != "step"}
    assert [said for tag, counted in told.items() if (said := disagreement(run, tag, counted))] == []
    assert run.series("loss")["step"].to_list() == list(range(1, facts["loss"]["n"] + 1))


@pytest.mark.parametrize("path", sorted(WILD.glob("dllogger_json/*/nvlog.json")), ids=lambda p: p.parent.name)
def test_a_strangers_nvlog_is_read_iteration_by_iteration(path: Path) -> None:
    run = load(path)
    rows = run.series("iteration_loss", split="train")
    assert rows["step"].to_list() == list(range(187)) and rows["value"][0] == pytest.approx(1.50247979)
    assert run.series("iter_loss", split="eval").select("step", "epoch").rows() == [(186, 0.0)]
    assert run.config["model_name"] == "Tacotron2" and run.name == path.parent.name


@pytest.mark.parametrize("indent", [None, 2])
def test_a_list_of_steps_gives_numbers_and_the_rest_is_configuration(tmp_path: Path, indent: int | None) -> None:
    run = load(save(tmp_path, NANOCHAT, indent=indent))
    assert run.format == "json-document"
    assert run.series("loss").select("step", "value").rows() == [(s["step"], s["loss"]) for s in STEPS]
    assert run.series("memory/gb").height == 20
    assert run.config == {"depth": 2, "session": {"steps": 20, "mean": 0.5}, "logging": {"dir": "a"}}


@pytest.mark.parametrize("wrapped", [False, True])
def test_keras_history_counts_epochs_from_zero(tmp_path: Path, wrapped: bool) -> None:
    run = load(save(tmp_path, {"history": KERAS, "params": {"epochs": 3}} if wrapped else KERAS))
    assert run.series("loss", split="eval").select("epoch", "value").rows() == [(0.0, 2.75), (1.0, 2.0), (2.0, 1.75)]
    assert run.metrics == ["accuracy", "loss"] and run.config == ({"params": {"epochs": 3}} if wrapped else {})


def test_a_history_written_by_pandas_has_its_places_as_keys(tmp_path: Path) -> None:
    path = tmp_path / "mnist.json"
    pd.DataFrame(KERAS).to_json(path)
    assert load(path).series("loss", split="").select("epoch", "value").rows() == [(0.0, 2.5), (1.0, 1.5), (2.0, 1.0)]


def test_a_column_named_as_steps_tells_the_place(tmp_path: Path) -> None:
    run = load(save(tmp_path, {"step": [10, 20], "loss": [1.0, 0.5]}))
    assert run.series("loss").select("step", "epoch", "value").rows() == [(10, None, 1.0), (20, None, 0.5)]


def test_lists_of_unequal_length_are_read_from_their_start_and_said(tmp_path: Path) -> None:
    run = load(save(tmp_path, {"loss": [1.0, 0.5, 0.25], "val_loss": [2.0]}))
    assert run.catalogue.select("split", "count").rows() == [("", 3), ("eval", 1)]
    assert run.rejects["reason"][0].startswith("the lists have 1 to 3 numbers")


def test_series_with_their_steps_keep_their_times(tmp_path: Path) -> None:
    rows = load(save(tmp_path, SACRED)).series("loss", split="train")
    assert rows["step"].to_list() == list(range(5)) and rows["value"][-1] == 0.2
    assert rows["time"][0].isoformat() == "2024-02-08T23:02:10.500000+00:00"


def test_iterations_of_the_first_dllogger_count_on_over_epochs(tmp_path: Path) -> None:
    run = load(save(tmp_path, NVLOG, "nvlog.json"))
    rows = run.series("loss", split="train").select("step", "epoch", "value").rows()
    assert rows == [(0, 0.0, 5.0), (1, 0.0, 4.0), (2, 0.0, 3.0), (3, 1.0, 2.0), (4, 1.0, 1.0)]
    assert run.series("loss", split="eval").select("step", "value").rows() == [(2, 0.5), (4, 0.25)]
    assert run.config == {"lr": 0.1, "gpu_info": {"num": 8}} and run.scalars["attempt"].max() == 0


@pytest.mark.parametrize(
    "value",
    [
        {"lr": 0.1, "betas": [0.9, 0.999], "epochs": 3},
        {"betas": [0.9, 0.999], "loss_weights": [1.0, 2.0]},
        {"steps": [{"name": "build"}, {"name": "test"}]},
        {"name": "package", "scripts": {"a": "b"}, "dependencies": {"x": "1.0"}},
        {"cells": [{"source": []}], "metadata": {}},
        {},
        [{"step": 1, "loss": 0.5}],
    ],
)
def test_configurations_and_other_documents_are_not_taken(tmp_path: Path, value: Any) -> None:
    for indent in (None, 2):
        assert not sniff(tmp_path / "a.json", json.dumps(value, indent=indent).encode())


def test_json_lines_are_left_to_their_reader(tmp_path: Path) -> None:
    rows = "".join(json.dumps({"step": s, "log": [{"step": s}], "loss": 1.0}) + "\n" for s in range(3))
    assert load(save(tmp_path, rows)).format == "jsonl"


def test_a_cut_document_gives_what_stands_before_the_cut(tmp_path: Path) -> None:
    text = json.dumps(NANOCHAT, indent=1)
    run = load(save(tmp_path, text[: text.index('"step": 15')]))
    assert run.series("loss")["step"].to_list() == list(range(1, 15)) and run.config["depth"] == 2
    assert run.rejects.height == 1 and run.rejects["line"][0] == text[: text.index('"step": 15')].count("\n") + 1


def test_steps_after_the_damage_are_read_too(tmp_path: Path) -> None:
    text = json.dumps(NANOCHAT).replace('"step": 8,', '"step" 8,')
    run = load(save(tmp_path, text))
    assert run.series("loss")["step"].to_list() == [s for s in range(1, 21) if s != 8] and run.rejects.height == 1


def test_odd_names_numbers_as_text_and_disorder_are_read(tmp_path: Path) -> None:
    odd = 'a/"b"\n<script>'
    rows = [{"step": float(s), odd: str(s / 2), "x": "0,5"} for s in (1, 3, 2)]
    run = load(save(tmp_path, {"history": rows}))
    assert run.series(odd).select("step", "value").rows() == [(1, 0.5), (3, 1.5), (2, 1.0)]
    assert "x" not in run.metrics


def test_deep_nesting_is_refused_quickly_and_without_a_traceback(tmp_path: Path) -> None:
    path = save(tmp_path, '{"steps": [' + '{"step": 1, "loss": 2}, ' + '{"a":' * 200_000)
    run = load(path)
    assert run.rejects.height >= 1 and run.series("loss").height == 1


DOCUMENTS = [json.dumps(v, indent=i).encode() for v in (NANOCHAT, SACRED, NVLOG, KERAS) for i in (None, 1)]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(DOCUMENTS), st.floats(0, 1), st.floats(0, 1), st.integers(0, 255))
def test_documents_cut_and_flipped_anywhere_are_read_or_rejected(
    content: bytes, cut: float, place: float, flip: int
) -> None:
    data = bytearray(content)
    data[int(place * (len(data) - 1))] ^= flip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.json")
        path.write_bytes(data[: int(cut * len(data))])
        sniff(path, path.read_bytes())
        run = read(path)
        document = read_document(path)
        assert run.scalars.height <= 70
        try:
            json.loads(path.read_text("utf-8"))
        except ValueError:
            assert document.rejects


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=20,
    ),
    st.floats(0, 1),
)
def test_what_is_closed_before_a_cut_is_a_part_of_the_document(value: Any, cut: float) -> None:
    text = json.dumps({"first": value, "last": 0})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.json")
        path.write_text(text[: int(cut * (len(text) - 1))], encoding="utf-8")
        assert is_part(read_document(path).value, json.loads(text))


def is_part(part: Any, whole: Any) -> bool:
    if part is None:
        return True
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(k in whole and is_part(v, whole[k]) for k, v in part.items())
    if isinstance(part, list):
        return isinstance(whole, list) and all(is_part(a, b) for a, b in zip(part, whole, strict=False))
    return bool(part == whole or (part != part and whole != whole))
