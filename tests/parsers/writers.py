"""One run of every format, written by the format's own library or to its specification: what the common tests read."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from eventstream.recorder import Recorder
from parsers.tfevents.write import record, scalar_event
from tests.once import once
from tests.parsers.mlflow_stores import mlflow_stores

__all__ = ["NAME", "WITHIN", "WRITERS", "files", "write"]

#: The name under which each run is written.
NAME = "a7"


def aftertrain(folder: Path) -> None:
    with Recorder(folder / NAME, config={"lr": 0.1}) as recorder:
        for step in range(30):
            recorder.log(step, {"loss": 1 / (step + 1)}, split="train")


def huggingface(folder: Path) -> None:
    entries = [{"step": s, "epoch": s / 10, "loss": 2.0 / s, "learning_rate": 0.1} for s in range(1, 30)]
    (folder / NAME).mkdir()
    _json(folder / NAME / "trainer_state.json", {"max_steps": 30, "global_step": 29, "log_history": entries})


def huggingface_checkpoints(folder: Path) -> None:
    for last in (10, 20):
        entries = [{"step": s, "epoch": s / 10, "loss": 2.0 / s} for s in range(1, last)]
        place = folder / NAME / f"checkpoint-{last}"
        place.mkdir(parents=True)
        _json(place / "trainer_state.json", {"max_steps": 30, "global_step": last, "log_history": entries})


def tensorboard(folder: Path) -> None:
    """Two files, as a restart leaves them; of the second the last bytes are missing."""
    (folder / NAME).mkdir()
    for part in range(2):
        steps = range(20 * part, 20 * part + 20)
        events = b"".join(record(scalar_event("train/loss", 1 / (s + 1), s, 1.7e9 + s)) for s in steps)
        path = folder / NAME / f"events.out.tfevents.{1700000000 + 20 * part}.host.1.0"
        path.write_bytes(events[:-3] if part else events)


def tensorboard_file(folder: Path) -> None:
    """A file of events under another name than TensorBoard gives it: no folder of TensorBoard."""
    events = [record(scalar_event("train/loss", 1 / (s + 1), s, 1.7e9 + s)) for s in range(30)]
    (folder / f"{NAME}.tfevents").write_bytes(b"".join(events))


def ablation(folder: Path) -> None:
    place = folder / "phase4"
    (place / f"checkpoints_{NAME}").mkdir(parents=True)
    (place / f"checkpoints_{NAME}" / "epoch_3.pt").write_bytes(b"x" * 100)
    _json(place / f"config_{NAME}.json", {"lambda_adv": 0.5, "epochs": 4})
    _lines(place / f"logs_{NAME}.log", [f"epoch: {s // 5} step: {s} loss: {3 / s:.6f}" for s in range(1, 21)])


def mlperf(folder: Path) -> None:
    line = ':::MLLOG {"namespace": "", "time_ms": %d, "event_type": "POINT_IN_TIME", "key": "train_loss", '
    line += '"value": 0.5, "metadata": {"file": "a.py", "lineno": 3, "step_num": %d}}'
    _lines(folder / f"{NAME}.log", [line % (1_700_000_000_000 + s, s) for s in range(20)])


#: One run offline; the folder to write below and a home without settings of anybody.
_WANDB = """
import os, sys
os.environ.update(WANDB_SILENT="true", WANDB_MODE="offline", WANDB_DIR=sys.argv[1], HOME=sys.argv[1])
import wandb
quiet = wandb.Settings(mode="offline", console="off", x_disable_stats=True)
run = wandb.init(project="p", name="kind-sun", config={"lr": 0.1}, settings=quiet)
for i in range(30):
    run.log({"train/loss": 1 / (i + 1), "epoch": i / 10, "text": "x"})
run.finish()
"""


@cache
def _by_library(library: str) -> dict[str, bytes]:
    """The files that its own process left: run once, for these libraries start slowly."""
    left = files(once("writers-wandb", _write_wandb) if library == "wandb" else mlflow_stores("one_run"))
    return {name: data for name, data in left.items() if "/logs/" not in f"/{name}"}


def _write_wandb(folder: Path) -> None:
    command = [sys.executable, "-c", _WANDB, str(folder)]
    environment = {**os.environ, "DO_NOT_TRACK": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment, cwd=folder)
    assert done.returncode == 0, done.stderr


def _put(folder: Path, library: str, start: str) -> None:
    """Those files whose path begins with `start`; links and empty files, which tell nothing, are left out."""
    for name, data in _by_library(library).items():
        if name.startswith(start) and data:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)


def wandb(folder: Path) -> None:
    _put(folder, "wandb", "wandb/offline-run-")


def wandb_file(folder: Path) -> None:
    logs = [data for name, data in _by_library("wandb").items() if name.endswith(".wandb") and data]
    (folder / f"{NAME}.wandb").write_bytes(logs[0])


def mlflow(folder: Path) -> None:
    _put(folder, "mlflow", "mlruns/")


def mlflow_db(folder: Path) -> None:
    _put(folder, "mlflow", "mlflow.db")


def sacred(folder: Path) -> None:
    """The layout of FileStorageObserver (sacred/observers/file_storage.py, 0.8)."""
    place = folder / "sacred" / "7"
    place.mkdir(parents=True)
    times = [f"2024-02-08T23:02:{s:02d}" for s in range(30)]
    series = {"steps": list(range(30)), "timestamps": times, "values": [1 / (s + 1) for s in range(30)]}
    _json(place / "metrics.json", {"training.loss": series})
    _json(place / "config.json", {"lr": 0.1, "seed": 3})
    _json(place / "run.json", {"experiment": {"name": "demo"}, "status": "COMPLETED", "heartbeat": times[-1]})


def allennlp(folder: Path) -> None:
    """The serialisation folder of AllenNLP's GradientDescentTrainer."""
    (folder / NAME).mkdir()
    for epoch in range(12):
        row = {"epoch": epoch, "training_duration": "0:00:12", "training_loss": 1 / (epoch + 1)}
        _json(folder / NAME / f"metrics_epoch_{epoch}.json", {**row, "validation_loss": 2 / (epoch + 1)})
    _json(folder / NAME / "metrics.json", {"best_epoch": 11, "training_epochs": 11})


def dllogger(folder: Path) -> None:
    """The lines of DLLogger's JSONStreamBackend (dllogger/logger.py, 1.0)."""
    line = 'DLLL {"timestamp": "%d.5", "datetime": "2020-09-13 12:26:40.5", "elapsedtime": "1", "type": "LOG", '
    line += '"step": [%d, %d], "data": {"train_loss": %r}}'
    rows = [line % (1_600_000_000 + s, s // 10, s % 10, 1 / (s + 1)) for s in range(30)]
    _lines(folder / f"{NAME}.json", rows)


def numpy_history(folder: Path) -> None:
    """What EvalCallback of Stable-Baselines3 writes."""
    results = np.random.default_rng(0).normal(size=(6, 10))
    (folder / NAME).mkdir()
    np.savez(folder / NAME / "evaluations.npz", timesteps=np.arange(1, 7) * 500, results=results)


def parquet(folder: Path) -> None:
    pl.DataFrame({"step": range(50), "loss": [0.5] * 50}).write_parquet(folder / f"{NAME}.parquet")


def mmlab(folder: Path) -> None:
    """The lines of mmcv 1's TextLoggerHook."""
    rows: list[Any] = [{"env_info": "Python: 3.8", "seed": 7, "exp_name": "rcnn.py"}]
    for epoch in range(1, 4):
        rows += [{"mode": "train", "epoch": epoch, "iter": i, "lr": 0.1, "loss": 5 / epoch} for i in (50, 100, 150)]
        rows.append({"mode": "val", "epoch": epoch, "iter": 17, "lr": 0.1, "bbox_mAP": epoch / 10})
    _lines(folder / f"{NAME}.log.json", [json.dumps(row) for row in rows])


def json_document(folder: Path) -> None:
    """The history of Keras, written with `json.dump`."""
    history = {"loss": [1 / (s + 1) for s in range(30)], "val_loss": [2 / (s + 1) for s in range(30)]}
    _json(folder / f"{NAME}.json", history)


def jsonl(folder: Path) -> None:
    lines = [json.dumps({"step": s, "loss": 1 / (s + 1), "note": "a" if s < 5 else "b"}) for s in range(50)]
    _lines(folder / f"{NAME}.jsonl", [*lines, "{broken"])


def lightning(folder: Path) -> None:
    (folder / NAME).mkdir()
    rows = [f"{s},{s // 10},{1 / (s + 1)}," for s in range(30)]
    _lines(folder / NAME / "metrics.csv", ["step,epoch,train_loss,val_loss", *rows])
    (folder / NAME / "hparams.yaml").write_text("lr: 0.1\n")


def _monitor(path: Path, first: int) -> None:
    """A file of Stable-Baselines3's Monitor: an object in a comment, a header, one line an episode."""
    lines = ['#{"t_start": 1600000000.0, "env_id": "Cart-v1"}', "r,l,t"]
    _lines(path, lines + [f"{first + i}.5,{10 + i},{1.5 * (i + 1)}" for i in range(20)])


def stable_baselines(folder: Path) -> None:
    (folder / NAME).mkdir()
    _monitor(folder / NAME / "monitor.csv", 0)


def stable_baselines_folder(folder: Path) -> None:
    (folder / NAME).mkdir()
    for rank in range(2):
        _monitor(folder / NAME / f"{rank}.monitor.csv", rank)
    rows = [f"{64 * i},{1 / i}" for i in range(1, 4)]
    _lines(folder / NAME / "progress.csv", ["time/total_timesteps,train/loss", *rows])


def csv(folder: Path) -> None:
    rows = [f"{s},{1 / (s + 1)},{2 / (s + 1)}" for s in range(30)]
    _lines(folder / f"{NAME}.csv", ["epoch,loss,val_loss", *rows])


def contract_dumps(folder: Path) -> None:
    keys = "['input_ids', 'attention_mask', 'labels']"
    lines: list[str] = []
    for step in range(5):
        lines += [f"step={step} loss={1 / (step + 1):.4f}", f"Input keys: {keys}", "Logits: NOT FOUND"]
        lines.append("WARNING:trainer:Found 'labels' in training_step inputs - removing it!")
    _lines(folder / f"{NAME}.log", lines)


def debug_blocks(folder: Path) -> None:
    (folder / f"{NAME}.log").write_bytes((Path(__file__).parent / "debug_blocks.log").read_bytes())


def structured_text(folder: Path) -> None:
    """A rotated set whose oldest part is compressed, as `RotatingFileHandler` with a packing rotator leaves it."""
    texts = ["", "", ""]
    for batch in range(1, 31):
        texts[(batch - 1) // 10] += (
            f"[2025-07-09 14:00:{batch:02d}.123] [INFO] [trainer] Training progress\n"
            f"  - Epoch: 1/100, Batch: {batch}/50\n  - Files processed: {batch * 32:,} ({batch} augmented)\n"
            f"  - Losses: {{recon: {1 / batch:.4f}, kl: 0.12}}\n  - Memory: GPU 3.20GB/4.00GB, RAM: 8.50GB\n"
        )
    (folder / f"{NAME}.log.2.gz").write_bytes(gzip.compress(texts[0].encode(), mtime=0))
    (folder / f"{NAME}.log.1").write_text(texts[1])
    (folder / f"{NAME}.log").write_text(texts[2])


def text(folder: Path) -> None:
    lines = [f"iter {s}: loss {1 / (s + 1):.4f}, time 31.52ms" for s in range(60)]
    _lines(folder / f"{NAME}.log", ["compiling", *lines])


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def _lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def files(folder: Path) -> dict[str, bytes]:
    """Path and content of each file below a folder; links are no files."""
    found = sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


_ALL = (
    aftertrain, huggingface, huggingface_checkpoints, tensorboard, tensorboard_file, ablation, mlperf, wandb,
    wandb_file, mlflow, mlflow_db, sacred, allennlp, dllogger, numpy_history, parquet, mmlab, json_document, jsonl,
    lightning, stable_baselines, stable_baselines_folder, csv, contract_dumps, debug_blocks, structured_text, text,
)  # fmt: skip
#: Name of the format -> what writes one run of it into a folder.
WRITERS: dict[str, Callable[[Path], None]] = {f.__name__.replace("_", "-"): f for f in _ALL}
#: What of the folder is to be named so that this format is the one that reads it; the folder itself for all others.
WITHIN: dict[str, str] = {"tensorboard-file": f"{NAME}.tfevents"}


def write(name: str, folder: Path) -> Path:
    """`folder` with one run of the format in it; what is to be loaded is `folder / WITHIN.get(name, "")`."""
    folder.mkdir(parents=True, exist_ok=True)
    WRITERS[name](folder)
    return folder
