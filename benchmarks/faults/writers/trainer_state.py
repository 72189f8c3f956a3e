"""`trainer_state.json` of the Hugging Face Trainer, with the arguments beside it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from benchmarks.faults.trace import Row, Trace
from benchmarks.faults.writers.beside import write_json

__all__ = ["write_trainer_state"]

_NAMES = {"lr": "learning_rate"}
#: Checkpoints of a whole training.
_SAVES = 20


def write_trainer_state(trace: Trace, folder: Path, rng: np.random.Generator) -> Path:
    """The folder with the state: the loss to 4 decimals, `eval_` before what is held out, no times of rows.

    Of a process that was killed the state of its last checkpoint is left.
    """
    run = folder / "output"
    run.mkdir(parents=True)
    arguments = {key: value for key, value in trace.config.items() if key != "batch_size"}
    arguments["per_device_train_batch_size"] = trace.config["batch_size"]
    write_json(run / "training_args.json", arguments, trace.plan)
    save_steps = max(1, trace.steps // _SAVES)
    saved = trace.last_step if trace.status is not None else trace.last_step // save_steps * save_steps
    rows = [row for row in trace.rows if row.step <= saved]
    history = [_entry(row) for row in rows]
    if trace.status == "finished":
        losses = [row.values["loss"] for row in trace.where("train", "loss")]
        history.append({"epoch": trace.rows[-1].epoch, "step": trace.last_step, "total_flos": 0.0,
                        "train_loss": float(np.mean(losses)), "train_runtime": 60.0})  # fmt: skip
    state = {
        "best_metric": None, "best_model_checkpoint": None, "epoch": rows[-1].epoch,
        "eval_steps": _every(trace), "global_step": saved, "is_hyper_param_search": False,
        "is_local_process_zero": True, "is_world_process_zero": True, "log_history": history,
        "logging_steps": trace.every, "max_steps": trace.steps, "num_train_epochs": _epochs(trace),
        "save_steps": save_steps, "total_flos": 0.0, "train_batch_size": trace.config["batch_size"],
        "trial_name": None, "trial_params": None,
    }  # fmt: skip
    (run / "trainer_state.json").write_text(json.dumps(state, indent=2))
    return run


def _epochs(trace: Trace) -> int:
    """Epochs that are begun by the planned steps, as the Trainer works them out."""
    last = trace.rows[-1]
    return 1 if last.epoch is None else max(1, math.ceil(last.epoch * trace.steps / max(last.step, 1) - 1e-6))


def _every(trace: Trace) -> int:
    evals = [row.step for row in trace.where("eval")]
    return evals[0] if evals else 500


def _entry(row: Row) -> dict[str, float | None]:
    if row.split == "eval":
        values = {f"eval_{name}": value for name, value in row.values.items()}
        return {"epoch": row.epoch, **values, "eval_runtime": 1.5, "eval_samples_per_second": 640.0, "step": row.step}
    values = {
        _NAMES.get(name, name): round(value, 4) if name == "loss" else value for name, value in row.values.items()
    }
    return {"epoch": row.epoch, **values, "step": row.step}
