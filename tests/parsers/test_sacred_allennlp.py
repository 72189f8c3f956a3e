"""Runs that are folders of JSON documents: Sacred's file observer and AllenNLP's serialisation folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eventstream.errors import InputError
from parsers.loading import load, load_all
from parsers.sacred import read
from tests.parsers.wild import WILD, disagreement, wild


def observed(folder: Path, count: int = 4, **run: Any) -> Path:
    """A run as the FileStorageObserver of Sacred 0.8 lays it out."""
    folder.mkdir(parents=True)
    times = [f"2024-02-08T23:02:{s:02d}" for s in range(count)]
    series = {"steps": list(range(count)), "timestamps": times, "values": [1 / (s + 1) for s in range(count)]}
    (folder / "metrics.json").write_text(json.dumps({"training.loss": series, "lr": series}, indent=2))
    (folder / "config.json").write_text(json.dumps({"lr": 0.1, "seed": 3}))
    about = {"experiment": {"name": "demo"}, "heartbeat": "2024-02-08T23:03:12.6", "status": "COMPLETED", **run}
    (folder / "run.json").write_text(json.dumps(about))
    (folder / "cout.txt").write_text("INFO - demo - Running command 'main'\n")
    return folder


@pytest.mark.parametrize(
    ("path", "facts"), wild("sacred", "metrics.json"), ids=lambda v: v.parent.name if isinstance(v, Path) else ""
)
def test_a_strangers_run_is_read_as_it_was_counted(path: Path, facts: dict[str, Any]) -> None:
    run = load(path.parent)
    assert run.format == "sacred" and run.rejects.is_empty() and "lr" in run.config
    assert [said for tag, counted in facts.items() if (said := disagreement(run, tag, counted))] == []
    rows = run.series("loss", split="train")
    assert (rows["step"][0], rows["step"][-1]) == (
        facts["training.loss"]["first"][0],
        facts["training.loss"]["last"][0],
    )


def test_each_numbered_folder_of_strangers_is_one_run() -> None:
    folders = {p.parent for p in WILD.glob("sacred/*/*/metrics.json")}
    found = load_all(WILD / "sacred") if folders else []
    assert {Path(run.path) for run in found} == folders and len({run.name for run in found}) == len(folders)


def test_each_numbered_folder_is_one_run(tmp_path: Path) -> None:
    for number in (1, 2):
        observed(tmp_path / "sweep" / str(number))
    assert [run.name for run in load_all(tmp_path)] == ["sweep/1", "sweep/2"]


def test_series_configuration_and_status_are_read(tmp_path: Path) -> None:
    run = load(observed(tmp_path / "sweep" / "1", fail_trace=["Traceback", "ValueError: nan\n"], status="FAILED"))
    assert run.config == {"lr": 0.1, "seed": 3}
    assert run.series("loss", split="train")["value"].to_list() == [1.0, 1 / 2, 1 / 3, 1 / 4]
    end = json.loads(run.events_of("end")["payload"][0])
    assert end == {"status": "failed", "said": "FAILED", "error": "ValueError: nan"}
    assert any("cout.txt" in payload for payload in run.events_of("sacred")["payload"])


def test_a_run_that_logged_nothing_is_a_run_without_numbers(tmp_path: Path) -> None:
    folder = observed(tmp_path / "sweep" / "1")
    (folder / "metrics.json").write_text("{}")
    run = load(folder)
    assert run.format == "sacred" and run.scalars.is_empty() and run.config["seed"] == 3


def test_a_long_series_whose_steps_fill_the_head_is_told(tmp_path: Path) -> None:
    assert load(observed(tmp_path / "sweep" / "1", count=20_000)).series("loss").height == 20_000


def test_every_cut_of_the_metrics_is_read_up_to_the_cut(tmp_path: Path) -> None:
    folder = observed(tmp_path / "sweep" / "1", count=12)
    text = (folder / "metrics.json").read_bytes()
    heights = []
    for cut in range(0, len(text), 7):
        (folder / "metrics.json").write_bytes(text[:cut])
        run = read(folder)
        heights.append(run.scalars.height)
        assert run.rejects.height >= 1
    assert heights == sorted(heights) and heights[-1] > 12


def test_a_folder_without_metrics_is_an_error_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no metrics\.json"):
        read(tmp_path)


def test_metrics_of_another_form_beside_a_configuration_are_no_run_of_sacred(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"lr": 1}')
    (tmp_path / "metrics.json").write_text('{"iteration": 1, "loss": 0.5}\n{"iteration": 2, "loss": 0.25}\n')
    assert load(tmp_path).format == "jsonl"


def epochs(folder: Path, count: int = 12) -> Path:
    """A serialisation folder as AllenNLP's trainer writes it."""
    folder.mkdir()
    for epoch in range(count):
        row = {"best_epoch": 0, "epoch": epoch, "training_duration": "0:00:12", "training_loss": 1 / (epoch + 1)}
        row |= {"validation_loss": 2 / (epoch + 1), "validation_accuracy": epoch / 10}
        (folder / f"metrics_epoch_{epoch}.json").write_text(json.dumps(row, indent=2))
    (folder / "metrics.json").write_text(json.dumps({"best_epoch": 11, "training_epochs": 11}))
    (folder / "config.json").write_text(json.dumps({"trainer": {"num_epochs": count}}))
    return folder


def test_the_epochs_of_a_folder_are_one_run_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    run = load(epochs(tmp_path / "sst"))
    assert run.format == "allennlp" and run.name == "sst" and run.config == {"trainer": {"num_epochs": 12}}
    rows = run.series("loss", split="train").select("epoch", "value").rows()
    assert rows == [(float(e), 1 / (e + 1)) for e in range(12)]
    assert run.series("loss", split="eval").height == 12 and run.series("accuracy", split="eval").height == 12
    assert json.loads(run.events_of("results")["payload"][0])["best_epoch"] == 11
    assert [found.name for found in load_all(tmp_path)] == ["sst"]


def test_a_damaged_epoch_is_a_reject_and_the_others_are_read(tmp_path: Path) -> None:
    folder = epochs(tmp_path / "sst")
    (folder / "metrics_epoch_3.json").write_text('{"epoch": 3, "training_loss": 0.25, "val')
    (folder / "metrics_epoch_5.json").write_text("")
    (folder / "metrics_epoch_7.json").write_text("[1]")
    run = load(folder)
    assert run.series("loss", split="train")["epoch"].to_list() == [0, 1, 2, 3, 4, 6, 8, 9, 10, 11]
    assert sorted(Path(f).name for f in run.rejects["file"]) == [f"metrics_epoch_{e}.json" for e in (3, 5, 7)]
