"""Any records in every format that holds names of the user's own: what the tests of odd names and numbers write."""

from __future__ import annotations

import csv as tables
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from eventstream.recorder import Recorder
from parsers.tfevents.write import record, scalar_event
from tests.parsers.test_wandb import item, log_bytes
from tests.parsers.writers import WRITERS

__all__ = ["FIXED", "RECORDS", "Row"]

#: A step (a whole number), a time in seconds, and numbers by name.
Row = tuple[Any, float, dict[str, Any]]
#: Formats in which a program chooses the names, or in which only some can stand, and what shows them instead.
FIXED = {
    "ablation": "its log is of another format",
    "contract-dumps": "its numbers are those of the text around it",
    "debug-blocks": "a fixed form",
    "stable-baselines": "a fixed form",
    "tensorboard-file": "as a folder of TensorBoard",
    "wandb": "as its log",
    "huggingface-checkpoints": "as one state",
}


def aftertrain(folder: Path, rows: list[Row]) -> None:
    with Recorder(folder / "a7", seal=False) as recorder:  # a group of rows for each of many names takes its time
        for step, _, values in rows:
            recorder.log(step, values)


def _entries(rows: list[Row]) -> list[dict[str, Any]]:
    return [{"step": step, **values} for step, _, values in rows]


def huggingface(folder: Path, rows: list[Row]) -> None:
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 9, "log_history": _entries(rows)}))


def tensorboard(folder: Path, rows: list[Row]) -> None:
    events = [record(scalar_event(tag, float(v), int(s), t)) for s, t, values in rows for tag, v in values.items()]
    (folder / "events.out.tfevents.1700000000.host.1.0").write_bytes(b"".join(events))


def mlperf(folder: Path, rows: list[Row]) -> None:
    lines = []
    for step, time, values in rows:
        for key, value in values.items():
            line = {"namespace": "", "time_ms": int(time * 1000), "event_type": "POINT_IN_TIME", "key": key}
            lines.append(":::MLLOG " + json.dumps({**line, "value": value, "metadata": {"step_num": step}}))
    (folder / "a7.log").write_text("\n".join(lines) + "\n")


def wandb_file(folder: Path, rows: list[Row]) -> None:
    from wandb.proto import wandb_internal_pb2 as messages

    records = []
    for step, time, values in rows:
        message = messages.Record()
        held = {**values, "_step": step, "_timestamp": time}
        parts = [messages.HistoryItem.FromString(item([k], json.dumps(v))) for k, v in held.items()]
        message.history.item.extend(parts)
        records.append(bytes(message.SerializeToString()))
    (folder / "a7.wandb").write_bytes(log_bytes(records))


def mlflow(folder: Path, rows: list[Row]) -> None:
    run = folder / "mlruns" / "1" / "ab"
    for step, time, values in rows:
        for key, value in values.items():
            path = run / "metrics" / key
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                file.write(f"{int(time * 1000)} {value} {step}\n")
    (run / "meta.yaml").write_text("experiment_id: '1'\nrun_id: ab\nrun_name: a7\n")


def mlflow_db(folder: Path, rows: list[Row]) -> None:
    WRITERS["mlflow-db"](folder)
    with closing(sqlite3.connect(folder / "mlflow.db")) as base:
        run = base.execute("SELECT run_uuid FROM runs").fetchone()[0]
        base.execute("DELETE FROM metrics")
        told = [(k, v, int(t * 1000), run, s) for s, t, values in rows for k, v in values.items()]
        base.executemany("INSERT INTO metrics (key, value, timestamp, run_uuid, step) VALUES (?, ?, ?, ?, ?)", told)
        base.commit()


def sacred(folder: Path, rows: list[Row]) -> None:
    place = folder / "sacred" / "7"
    place.mkdir(parents=True)
    series: dict[str, Any] = {}
    for step, _, values in rows:
        for key, value in values.items():
            one = series.setdefault(key, {"steps": [], "timestamps": [], "values": []})
            one["steps"].append(step)
            one["timestamps"].append("2024-02-08T23:02:01")
            one["values"].append(value)
    (place / "metrics.json").write_text(json.dumps(series))
    (place / "config.json").write_text('{"lr": 0.1}')


def allennlp(folder: Path, rows: list[Row]) -> None:
    for place, (_, _, values) in enumerate(rows):
        (folder / f"metrics_epoch_{place}.json").write_text(json.dumps({"epoch": place, **values}))


def dllogger(folder: Path, rows: list[Row]) -> None:
    lines = [
        "DLLL " + json.dumps({"timestamp": str(time), "type": "LOG", "step": [0, step], "data": values})
        for step, time, values in rows
    ]
    (folder / "a7.json").write_text("\n".join(lines) + "\n")


def numpy_history(folder: Path, rows: list[Row]) -> None:
    names = list(rows[0][2])
    kind = np.dtype([("step", "<i8"), *((name, "<f8") for name in names)])
    np.save(
        folder / "history.npy", np.array([(s, *(float(v) for v in values.values())) for s, _, values in rows], kind)
    )


def parquet(folder: Path, rows: list[Row]) -> None:
    pl.DataFrame(_entries(rows), infer_schema_length=None).write_parquet(folder / "a7.parquet")


def mmlab(folder: Path, rows: list[Row]) -> None:
    lines = [json.dumps({"mode": "train", "epoch": 1, "iter": step, **values}) for step, _, values in rows]
    (folder / "a7.log.json").write_text("\n".join(lines) + "\n")


def json_document(folder: Path, rows: list[Row]) -> None:
    (folder / "a7.json").write_text(json.dumps({"per_step": _entries(rows)}, indent=1))


def jsonl(folder: Path, rows: list[Row]) -> None:
    (folder / "a7.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in _entries(rows)))


def _table(path: Path, rows: list[Row], step: str = "step") -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = tables.writer(file)
        writer.writerow([step, *rows[0][2]])
        writer.writerows([place, *values.values()] for place, _, values in rows)


def lightning(folder: Path, rows: list[Row]) -> None:
    _table(folder / "metrics.csv", rows)
    (folder / "hparams.yaml").write_text("lr: 0.1\n")


def csv(folder: Path, rows: list[Row]) -> None:
    _table(folder / "a7.csv", rows)


def stable_baselines_folder(folder: Path, rows: list[Row]) -> None:
    WRITERS["stable-baselines-folder"](folder)
    _table(folder / "a7" / "progress.csv", rows, "time/total_timesteps")


def structured_text(folder: Path, rows: list[Row]) -> None:
    text = ""
    for step, _, values in rows:
        text += "[2025-07-09 14:00:00.123] [INFO] [trainer] Training progress\n"
        losses = ", ".join(f"{key}: {value}" for key, value in values.items())
        text += f"  - Epoch: 1/9, Batch: {step}/1000000\n  - Losses: {{{losses}}}\n"
    (folder / "a7.log").write_text(text)


def text(folder: Path, rows: list[Row]) -> None:
    """Lines of Megatron-LM."""
    lines = [
        f" iteration {step:8d}/  100000 | consumed samples: {step:12d} | elapsed time per iteration (ms): 2.5 | "
        + " | ".join(f"{key}: {value}" for key, value in values.items())
        + " |\n"
        for step, _, values in rows
    ]
    (folder / "a7.log").write_text("".join(lines), encoding="utf-8")


_ALL = (
    aftertrain, huggingface, tensorboard, mlperf, wandb_file, mlflow, mlflow_db, sacred, allennlp, dllogger,
    numpy_history, parquet, mmlab, json_document, jsonl, lightning, stable_baselines_folder, csv, structured_text, text,
)  # fmt: skip
#: Name of the format -> what writes records into a folder, one run.
RECORDS: dict[str, Callable[[Path, list[Row]], None]] = {f.__name__.replace("_", "-"): f for f in _ALL}
