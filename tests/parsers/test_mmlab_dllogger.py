"""Logs of OpenMMLab and of DLLogger: one count of steps over epochs, evaluations at their place, damage told."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parsers import dllogger, mmlab
from parsers.loading import load
from parsers.tables.epoch_steps import steps_over_epochs
from tests.parsers.wild import disagreement, wild


def save(folder: Path, rows: list[Any], name: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows), encoding="utf-8")
    return path


def mmcv(epochs: int = 3, iterations: int = 200) -> list[dict[str, Any]]:
    """Lines in the layout of mmcv 1's TextLoggerHook."""
    rows: list[dict[str, Any]] = [{"env_info": "Python: 3.8", "seed": 7, "exp_name": "rcnn.py", "config": "lr = 1"}]
    for epoch in range(1, epochs + 1):
        rows += [
            {"mode": "train", "epoch": epoch, "iter": i, "lr": 0.1, "loss": 5 / epoch, "time": 0.38}
            for i in range(50, iterations + 1, 50)
        ]
        rows.append({"mode": "val", "epoch": epoch, "iter": 17, "lr": 0.1, "bbox_mAP": epoch / 10})
    return rows


@pytest.mark.parametrize(("path", "facts"), wild("mmcv_json"), ids=lambda v: v.name if isinstance(v, Path) else "")
def test_a_strangers_log_of_mmcv_is_read_as_it_was_counted(path: Path, facts: dict[str, Any]) -> None:
    run = load(path)
    assert run.format == "mmlab" and run.rejects.is_empty()
    assert [said for tag, counted in facts.items() if (said := disagreement(run, tag, counted))] == []
    assert run.series("loss", split="train")["step"].to_list() == [facts["loss"]["first"][0]]
    assert run.config["exp_name"] == "faster_rcnn_r50_fpn_1x_coco.py"


def test_iterations_that_begin_again_become_one_count_and_a_note_says_so(tmp_path: Path) -> None:
    run = load(save(tmp_path, mmcv(), "20210812_190636.log.json"))
    rows = run.series("loss", split="train")
    assert rows["step"].to_list() == list(range(50, 601, 50)) and rows["attempt"].max() == 0
    assert rows["epoch"].to_list() == [1.0] * 4 + [2.0] * 4 + [3.0] * 4
    assert "x 200 + iteration" in run.events_of("note")["payload"][0]
    assert run.config["seed"] == 7 and "time" in run.metrics


def test_an_evaluation_stands_at_the_step_of_training_before_it(tmp_path: Path) -> None:
    run = load(save(tmp_path, mmcv(), "a.log.json"))
    rows = run.series("bbox_mAP", split="eval").select("step", "epoch", "value").rows()
    assert rows == [(200, 1.0, 0.1), (400, 2.0, 0.2), (600, 3.0, 0.3)]


def test_iterations_that_count_on_are_left_as_they_are(tmp_path: Path) -> None:
    rows = [{"mode": "train", "epoch": 1 + i // 100, "iter": i, "loss": 1.0} for i in range(50, 301, 50)]
    rows.append({"mode": "val", "epoch": 4, "iter": 500, "mIoU": 0.5})
    run = load(save(tmp_path, rows, "a.log.json"))
    assert run.series("loss")["step"].to_list() == list(range(50, 301, 50)) and run.events_of("note").is_empty()
    assert run.series("mIoU", split="eval")["step"].to_list() == [300]


def test_a_resume_is_another_attempt(tmp_path: Path) -> None:
    rows = [*mmcv(3)[1:], *[row for row in mmcv(4)[1:] if row["epoch"] >= 3]]
    run = load(save(tmp_path, rows, "a.log.json"))
    assert run.scalars["attempt"].max() == 1
    assert run.series("loss", split="train")["step"].to_list() == list(range(50, 801, 50))


def test_an_evaluation_of_mmengine_counts_epochs_and_is_placed_at_its_step(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    for epoch in (1, 2):
        rows += [
            {"lr": 0.1, "data_time": 0.1, "loss": 2.0, "epoch": epoch, "iter": i, "memory": 9, "step": i}
            for i in (epoch * 100 - 50, epoch * 100)
        ]
        rows.append({"coco/bbox_mAP": epoch / 4, "data_time": 0.1, "time": 0.2, "step": epoch})
    run = load(save(tmp_path, rows, "rcnn/20240101_000000/vis_data/scalars.json"))
    assert run.name == "rcnn/20240101_000000" and run.series("loss")["step"].to_list() == [50, 100, 150, 200]
    found = run.series("coco/bbox_mAP", split="eval").select("step", "epoch", "value").rows()
    assert found == [(100, 1.0, 0.25), (200, 2.0, 0.5)]


def test_damaged_lines_of_mmcv_are_rejects_with_their_number(tmp_path: Path) -> None:
    rows: list[Any] = [*mmcv(1), "[1]", '{"mode": "train", "epoch": 2, "iter": 50, "lo']
    run = load(save(tmp_path, rows, "a.log.json"))
    assert run.rejects["line"].to_list() == [7, 8] and run.series("loss").height == 4


@pytest.mark.parametrize(
    ("name", "rows", "metric", "count"),
    [
        ("metrics.json", [{"iteration": i, "total_loss": 1.0} for i in range(19, 200, 20)], "total_loss", 10),
        ("results.jsonl", [{"epoch": e, "imagenet-zeroshot-val-top1": 0.5} for e in range(3)],
         "imagenet-zeroshot-val-top1", 3),
        ("olmo.jsonl", [{"step": s, "train/CrossEntropyLoss": 2.0, "throughput/total_tokens": s} for s in range(5)],
         "CrossEntropyLoss", 5),
    ],
)  # fmt: skip
def test_detectron2_open_clip_and_olmo_are_json_lines(
    tmp_path: Path, name: str, rows: list[Any], metric: str, count: int
) -> None:
    run = load(save(tmp_path, rows, f"exp-a/{name}"))
    assert run.format == "jsonl" and run.series(metric).height == count


def dlll(epochs: int = 2, iterations: int = 5) -> list[str]:
    """Lines in the layout of DLLogger's JSONStreamBackend."""

    def line(step: Any, data: Any, at: int = 0) -> str:
        moment = {"timestamp": f"{1_600_000_000 + at}.5", "datetime": "2020-09-13 12:26:40.5", "elapsedtime": "1"}
        return "DLLL " + json.dumps({**moment, "type": "LOG", "step": step, "data": data})

    rows = [line("PARAMETER", {"lr": 0.1, "batch_size": 4})]
    rows.append('DLLL {"type": "METADATA", "metric": "val_loss", "metadata": {"unit": null, "format": ":5f"}}')
    for epoch in range(epochs):
        data = {"train_loss": 5.0 - epoch, "train_items/sec": "12.5"}
        rows += [line([epoch, i], data, epoch * 100 + i) for i in range(iterations)]
        rows.append(line([epoch], {"val_loss": 4.0 - epoch}, epoch * 100 + 99))
    return [*rows, line([], {"val_loss": 3.0})]


def test_records_of_dllogger_become_one_count_of_steps(tmp_path: Path) -> None:
    run = load(save(tmp_path, dlll(), "demo/nvlog.json"))
    rows = run.series("loss", split="train")
    assert run.format == "dllogger" and run.name == "demo" and run.config == {"lr": 0.1, "batch_size": 4}
    assert rows["step"].to_list() == list(range(10)) and rows["epoch"].to_list() == [0.0] * 5 + [1.0] * 5
    assert run.series("loss", split="eval").select("step", "value").rows() == [(4, 4.0), (9, 3.0)]
    assert rows["time"][0].timestamp() == 1_600_000_000.5
    assert json.loads(run.events_of("results")["payload"][0]) == {"val_loss": 3.0}
    assert json.loads(run.events_of("metric-metadata")["payload"][0])["metric"] == "val_loss"


def test_records_of_dllogger_are_found_inside_other_output(tmp_path: Path) -> None:
    rows = [f"{k}: {row}" if k % 2 else row for k, row in enumerate(dlll())]
    noise = [text for row in rows for text in ("Loading ...", "DLL 2020-09-13 - Epoch: 0", row)]
    run = load(save(tmp_path, noise, "job.log"))
    assert run.format == "dllogger" and run.series("loss", split="train").height == 10 and run.rejects.is_empty()


def test_counted_iterations_of_dllogger_are_kept_and_evaluations_have_their_own(tmp_path: Path) -> None:
    rows = [f'DLLL {{"type": "LOG", "step": [{i // 3}, {i}], "data": {{"loss": 1}}}}' for i in range(6)]
    rows.append('DLLL {"type": "LOG", "step": [1, 5, 2], "data": {"loss": 2}}')
    run = load(save(tmp_path, rows, "a.json"))
    assert run.series("loss", split="")["step"].to_list() == list(range(6))
    assert run.series("loss", split="eval").select("step", "value").rows() == [(5, 2.0)]


def test_steps_over_epochs_agree_with_a_count_of_whole_epochs() -> None:
    for first in (0, 1):
        places = [(epoch, i) for epoch in range(1, 6) for i in range(first, first + 7)]
        assert steps_over_epochs(places, base=1) == (list(range(first, first + 35)), 7)


CONTENTS = [
    (mmlab, "\n".join(map(json.dumps, mmcv(2))).encode()),
    (dllogger, "\n".join(dlll()).encode()),
]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(CONTENTS), st.floats(0, 1), st.floats(0, 1), st.integers(1, 255))
def test_logs_cut_and_flipped_anywhere_keep_their_whole_lines(
    case: tuple[Any, bytes], cut: float, place: float, flip: int
) -> None:
    module, content = case
    data = bytearray(content)
    data[int(place * (len(data) - 1))] ^= flip
    kept = bytes(data[: int(cut * len(data))])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.json")
        path.write_bytes(kept)
        module.sniff(path, kept)
        run = module.read(path)
        lost = len(set(kept.split(b"\n")) - set(content.split(b"\n")))
        assert run.rejects.height <= 2 * lost + 2
        assert run.scalars.height >= sum(b'"train' in row for row in kept.split(b"\n")[:-1]) - 2
