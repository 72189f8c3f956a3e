"""Runs of the Hugging Face Trainer: `trainer_state.json`, a folder with its checkpoints, LLaMA-Factory's log."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from eventstream.errors import InputError
from parsers.content.lines import to_utf8
from parsers.finish import Reject
from parsers.naming.names import split_tag
from parsers.places.beside import children, folder_name, load_beside, run_name
from parsers.run import Run
from parsers.tables.bulk import Bulk
from parsers.tables.constants import constant
from parsers.tables.generic import Records
from parsers.tables.generic_bulk import add_bulk
from parsers.trainer_files.branches import Branch, branches, spliced
from parsers.trainer_files.last_state import last_state
from parsers.trainer_files.same_run import compare_records
from parsers.trainer_files.trainer_log import log_records
from parsers.trainer_files.trainer_state import State, read_state

__all__ = ["owned", "read", "sniff"]

STATE = "trainer_state.json"
LOG = "trainer_log.jsonl"
#: Final numbers that the example scripts and LLaMA-Factory write beside the state.
RESULTS = ("all_results.json", "train_results.json", "eval_results.json", "predict_results.json", "test_results.json")
#: Pickles: they run code when they are opened, and so they are only mentioned.
PICKLES = ("training_args.bin",)
CHECKPOINT = re.compile(r"checkpoint-(\d{1,18})")
_STATE_KEYS = (b'"is_world_process_zero"', b'"max_steps"', b'"global_step"', b'"num_train_epochs"', b'"best_metric"')
_LOG_KEYS = (b'"current_steps"', b'"total_steps"', b'"percentage"')
_NOWHERE = (0, 0, 0, None, None, None, "")
SHOWN = 3


def sniff(path: Path, head: bytes) -> bool:
    """Whether `path` is a `trainer_state.json`, a `trainer_log.jsonl`, or a folder with checkpoints of the Trainer."""
    if not head:
        return path.is_dir() and any(_is_state(folder / STATE) for _, folder in _checkpoints(path))
    return _is_state_text(to_utf8(head)) or _is_log_text(to_utf8(head))


def _is_state_text(text: bytes) -> bool:
    return text.lstrip().startswith(b"{") and b'"log_history"' in text and any(key in text for key in _STATE_KEYS)


def _is_log_text(text: bytes) -> bool:
    first = text.lstrip().split(b"\n", 1)[0]
    return first.startswith(b"{") and all(key in first for key in _LOG_KEYS)


def _is_state(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return _is_state_text(to_utf8(file.read(1 << 16)))
    except OSError:
        return False  # `read` says why, where another checkpoint makes the folder a run


def _checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Step and folder of each `checkpoint-N`, by step."""
    matches = [(CHECKPOINT.fullmatch(path.name), path) for path in children(folder)]
    return sorted((int(match[1]), path) for match, path in matches if match)


def owned(folder: Path) -> set[str]:
    """Names of what `read` takes of a folder: the states, LLaMA-Factory's log, the results and the checkpoints."""
    return {STATE, LOG, *RESULTS, *(place.name for _, place in _checkpoints(folder))}


def read(path: Path | str) -> Run:
    """The run of a `trainer_state.json`, of a folder that holds it with its checkpoints, or of a `trainer_log.jsonl`.

    Every number of `log_history` is a scalar. Entries without a key of evaluation are of the split `train`;
    `train_loss` of the last entry, the mean over the whole job, keeps that name, so that it is not taken for a point of
    `loss`. Everything else in the state is `run.config`. Of a folder, the state that has come furthest counts (the one
    in the folder itself where two have come as far), unless another is of a training that was begun again before that
    one's end: then the one trained last counts, as logs beside them tell, else the times of the files, with a note.
    Each other one is compared with it: one that goes on otherwise after some entry was left behind by a resume, and
    what it tells from there on is an attempt of its own, with a note; where numbers differ in another way a note (level
    `warning`) and a reject say where. Checkpoints and results (`all_results.json` and its siblings) are events,
    `train_runtime` marks the end; a pickle is mentioned and never opened. `null` is a missing value, NaN is NaN. Of a
    damaged state the entries before and after the damage are read.

    Raises `InputError` when a file named as the run cannot be opened. Source: TrainerState in the documentation of
    transformers; trainer_log.jsonl as LLaMA-Factory writes it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "trainer_state.json")
    ...     _ = path.write_text('{"max_steps": 9, "log_history": [{"step": 3, "epoch": 0.5, "loss": 2.5}]}')
    ...     run = read(path)
    >>> run.config["max_steps"], run.scalars.select("step", "epoch", "split", "metric", "value").row(0)
    (9, (3, 0.5, 'train', 'loss', 2.5))
    """
    path = Path(path) if isinstance(path, str) else path
    if path.is_dir():
        return _read_folder(path)
    if _is_log(path):
        return _read_log(path)
    state = read_state(path)
    records = Records(str(path))
    _add_state(records, state)
    _add_beside(records, path.parent)
    return _finished(records, state, run_name(path))


def _is_log(path: Path) -> bool:
    with path.open("rb") as file:
        return _is_log_text(to_utf8(file.read(1 << 16)))


def _read_log(path: Path) -> Run:
    records = Records(str(path))
    totals: set[int] = set()
    for line, record in log_records(path, records, totals):
        records.add(line, record)
    if totals:
        records.config["max_steps"] = max(totals)
    _add_beside(records, path.parent)
    return records.run(run_name(path), "huggingface")


def _read_folder(folder: Path) -> Run:
    records = Records(str(folder))
    checkpoints = _checkpoints(folder)
    states = []
    for file in (*(place / STATE for _, place in checkpoints), folder / STATE):
        if not file.is_file():
            continue
        try:
            states.append(read_state(file))
        except InputError as error:
            records.rejects.append(Reject(str(file), str(error)))
    states.sort(key=lambda state: state.last_step)  # stable: of two that came as far, the folder's own is the last
    if not states:
        raise InputError(f"{folder}: no {STATE} can be read here")
    newest, why = last_state(states, folder, folder / LOG)
    older = [state for state in states if state is not newest]
    if why:
        records.event(_NOWHERE, "note", {"text": why, "level": "warning"})
    for step, place in checkpoints:
        records.event((0, 0, 0, step, None, None, ""), "checkpoint", {"path": place.name})
    dead, odd = branches(older, newest)
    for state in older:
        records.rejects += state.rejects
    for state in odd:
        _report(records, state.file, newest.file, state.last_step, *compare_records(state.entries, newest.entries))
    for branch in dead:
        _resumed(records, branch)
    whole = spliced(newest.entries, dead)
    _check_log(records, folder / LOG, newest, whole)
    _add_state(records, replace(newest, entries=whole))
    _add_beside(records, folder)
    return _finished(records, newest, folder_name(folder))


def _add_state(records: Records, state: State) -> None:
    """The facts of a state as configuration, its entries as numbers."""
    records.config.update(state.facts)
    records.rejects += state.rejects
    if state.facts:
        records.event(_NOWHERE, "config", state.facts)
    best = state.facts.get("best_model_checkpoint")
    if isinstance(best, str):
        step = state.facts.get("best_global_step")
        index = (0, 0, 0, step if type(step) is int and abs(step) < 2**63 else None, None, None, "")
        payload = {"path": best.replace("\\", "/").rsplit("/", 1)[-1], "best_metric": state.facts.get("best_metric")}
        records.event(index, "checkpoint", payload)
    frame = _as_columns(state.entries)
    if frame is not None:
        add_bulk(records, Bulk(frame, pl.Series(range(1, frame.height + 1), dtype=pl.Int64).to_numpy()))
        return
    for place, entry in enumerate(state.entries, 1):
        records.add(place, entry if "split" in entry else {**entry, "split": _split(entry)})


def _as_columns(entries: list[Mapping[str, Any]]) -> pl.DataFrame | None:
    """The entries as columns of numbers with their split; None where one holds something else than numbers."""
    keys: set[str] = set().union(*entries)
    if not entries or "split" in keys or len(keys) * len(entries) > 8 * sum(map(len, entries)) + 1_000_000:
        return None
    try:
        frame = pl.from_dicts(entries, schema=dict.fromkeys(sorted(keys), pl.Float64))
    except (pl.exceptions.PolarsError, TypeError, OverflowError):
        return None
    for column in frame.get_columns():  # Polars takes truth values for 0 and 1
        flags = np.isin(column.to_numpy(), (0.0, 1.0)).sum() + column.null_count()
        if flags == len(column) and any(type(entry.get(column.name)) is bool for entry in entries):
            return None
    evaluated = [pl.col(key).is_not_null() for key in sorted(keys) if _is_no_step(key)]
    if not evaluated:
        return frame.hstack([constant("split", pl.String, "train", frame.height)])
    return frame.with_columns(split=pl.when(pl.any_horizontal(evaluated)).then(pl.lit("")).otherwise(pl.lit("train")))


def _is_no_step(key: str) -> bool:
    """Whether an entry with this key is of an evaluation or of the whole job, and no step of training."""
    return key == "train_runtime" or split_tag(key)[0] in ("eval", "test")


def _split(entry: Mapping[str, Any]) -> str:
    return "" if any(_is_no_step(key) and entry[key] is not None for key in entry) else "train"


def _resumed(records: Records, branch: Branch) -> None:
    """A note that the entries of a checkpoint are of an attempt that was given up."""
    state, step = branch.state, branch.state.last_step
    text = f"{state.file} goes on after step {branch.step} otherwise than the newest state, up to step {step:,}: "
    text += "training was begun again there, and these entries are of the attempt before"
    index = (branch.at, 0, 0, step if step >= 0 else None, None, None, "")
    records.event(index, "note", {"text": text, "level": "info"})


def _check_log(records: Records, path: Path, newest: State, whole: list[Mapping[str, Any]]) -> None:
    """Compare what LLaMA-Factory logged beside the state; the numbers stay those of the state.

    A log that goes on after a resume has what was left behind too (`whole`), one that was begun anew has not.
    """
    if not path.is_file():
        return
    rows = [
        {**record, "step": record.get("current_steps"), "learning_rate": record.get("lr")}
        for _, record in log_records(path, records, set())
    ]
    keys = ("loss", "learning_rate", "eval_loss")
    either = [compare_records(rows, entries, keys=keys) for entries in (newest.entries, whole)]
    _report(records, str(path), newest.file, newest.last_step, *min(either, key=lambda one: len(one[1])))


def _report(records: Records, older: str, newest: str, step: int, compared: int, differences: list[Any]) -> None:
    if not differences:
        return
    shown = "; ".join(map(str, differences[:SHOWN]))
    text = f"{len(differences):,} of {compared:,} numbers differ from {newest}, which counts: {shown}"
    records.rejects.append(Reject(older, text))
    index = (0, 0, 0, step if step >= 0 else None, None, None, "")
    records.event(index, "note", {"text": f"{older}: {text}", "level": "warning"})


def _add_beside(records: Records, folder: Path) -> None:
    """Results as events; pickles only mentioned."""
    found, rejects = load_beside(folder, RESULTS)
    records.rejects += rejects
    for name, content in found.items():
        records.event(_NOWHERE, "results", {"file": name, **content})
    for name in PICKLES:
        if (folder / name).is_file():
            text = f"{name} is a pickle, which can run code when it is opened; it was not opened"
            records.event(_NOWHERE, "note", {"text": text, "level": "info"})


def _finished(records: Records, state: State, name: str) -> Run:
    """The run, with an end where training said that it ended, and the mean over the job under its own name."""
    ends = [entry for entry in state.entries if "train_runtime" in entry]
    for entry in ends:
        step = entry.get("step")
        index = (len(state.entries), 0, 0, step if type(step) is int and abs(step) < 2**63 else None, None, None, "")
        records.event(index, "end", {"status": "finished"})
    run = records.run(name, "huggingface")
    if not any("train_loss" in entry for entry in ends):
        return run
    steps = [entry.get("step") for entry in ends]
    mean = (pl.col("tag") == "train_loss") & pl.col("step").is_in([s for s in steps if type(s) is int])
    own = pl.when(mean)
    return replace(
        run,
        source=run.source.with_columns(
            split=own.then(pl.lit("")).otherwise("split"), metric=own.then(pl.lit("train_loss")).otherwise("metric")
        ),
    )
