"""One JSON document a run: a list of steps beside its configuration, columns of numbers, or lists by epoch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from parsers.content.json_damage import Document, read_document
from parsers.content.lines import to_utf8
from parsers.finish import Reject
from parsers.naming.roles import is_loss
from parsers.places.beside import folder_name, run_name
from parsers.run import Run
from parsers.tables.columns import CONFIG_KEYS, number, roles, timestamp, to_step
from parsers.tables.generic import Records

__all__ = ["add_columns", "add_series", "is_series", "read", "sniff"]

#: Names of the list that holds one object a step.
STEP_LISTS = (
    "per_step", "steps", "history", "log", "logs", "metrics", "results", "records", "train_log", "training_log",
    "train_history", "epochs", "iterations",
)  # fmt: skip
_COUNTED = re.compile(r'"(?:global_step|step|_step|iteration|iter|epoch)"\s*:\s*"?\d')
_STEP_LIST = re.compile(r'"(?:' + "|".join(STEP_LISTS) + r')"\s*:\s*\[\s*(?=\{)')
_SERIES = re.compile(r'\s*\{\s*"(?:[^"\\]|\\.){1,300}"\s*:\s*\{\s*"(?:steps|timestamps|values)"\s*:\s*\[')
_NVLOG = re.compile(r'"(?:epoch|iter)"\s*:\s*\{\s*"x"\s*:\s*\[')
_COLUMNS = re.compile(
    r'\s*\{\s*(?:"history"\s*:\s*\{\s*)?"((?:[^"\\]|\\.){1,300})"\s*:\s*(?:\[|\{\s*"0"\s*:)\s*(?:-?\d|NaN|-?Infinity)'
)
_METRIC = re.compile(
    r"(?:.*[/._ -])?(?:acc|accuracy|auc|f1|mae|mse|rmse|precision|recall|iou|dice|bleu|wer|cer)(?:[/._ @-].*)?"
)
_COLUMN_NAME = re.compile(r'"((?:[^"\\]|\\.){1,300})"\s*:\s*(?:\[|\{\s*"0"\s*:)\s*(?:-?\d|NaN)')
#: Columns that tell where a number stands.
_AXES = ("step", "epoch", "time")


def sniff(path: Path, head: bytes) -> bool:
    """Whether `head` begins one JSON object over the whole file that holds a run in one of the forms of `read`.

    A log of one object a line is none, and neither is a configuration: there must be a list of objects that count
    steps or epochs, series with their steps, or lists of numbers of which one is a loss or a score.
    """
    text = to_utf8(head).decode("utf-8", "replace")
    if not text.lstrip().startswith("{") or '"log_history"' in text:
        return False
    first, _, rest = text.lstrip().partition("\n")
    if rest.lstrip().startswith("{") and first.rstrip().endswith("}"):
        return False  # one object a line
    listed = _STEP_LIST.search(text)
    if listed and _COUNTED.search(text, listed.end(), listed.end() + 4000):
        return True
    if _SERIES.match(text) or (_NVLOG.search(text) and '"run"' in text):
        return True
    columns = _COLUMNS.match(text)
    return columns is not None and any(_is_measured(match[1]) for match in _COLUMN_NAME.finditer(text))


def _is_measured(name: str) -> bool:
    return (is_loss(name) and "weight" not in name) or _METRIC.fullmatch(name.lower()) is not None


def read(path: Path | str) -> Run:
    """The run in one JSON document.

    Read are: a list of objects that count steps or epochs (nanochat's `per_step`), where every other part of the
    document is configuration; `{metric: [numbers]}`, also under `history` or with the places as keys (Keras, pandas),
    one number an epoch from 0 on unless a column tells the step or epoch; `{metric: {steps, values, timestamps}}`
    (Sacred); `{run, epoch: {x, metric: [..]}, iter: {x: [[..]], metric: [[..]]}}` (the first DLLogger), whose
    iterations count on from epoch to epoch. Of a damaged document the part before the damage is read, and of a list
    of steps also the objects after it; the damage is a reject.

    Raises `InputError` when the file cannot be opened or is larger than 512 MiB.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "mnist.json")
    ...     _ = path.write_text('{"loss": [2.5, 1.5], "val_loss": [2.75, 2.0]}')
    ...     run = read(path)
    >>> run.scalars.select("epoch", "split", "metric", "value").rows()[-1]
    (1.0, 'eval', 'loss', 2.0)
    """
    path = Path(path) if isinstance(path, str) else path
    document = read_document(path)
    records = Records(str(path))
    records.rejects += document.rejects
    if isinstance(document.value, Mapping):
        _add(records, document)
    name = folder_name(path.parent) if path.name == "nvlog.json" else run_name(path)
    return records.run(name or path.name, "json-document")


def _add(records: Records, document: Document) -> None:
    value = document.value
    name = next((key for key in STEP_LISTS if _is_step_list(value.get(key))), None)
    if name is not None:
        _add_steps(records, [*value[name], *document.after])
        _configure(records, {k: v for k, v in value.items() if k != name})
    elif isinstance(value.get("run"), Mapping) and _is_mapping_with(value.get("epoch") or value.get("iter"), "x"):
        _add_nvlog(records, value)
    elif is_series(value):
        add_series(records, value)
    else:
        columns = value["history"] if isinstance(value.get("history"), Mapping) else value
        add_columns(records, columns)
        _configure(records, {k: v for k, v in value.items() if v is not columns and not _is_column(v)})


def _configure(records: Records, facts: Mapping[str, Any]) -> None:
    """What stands beside the numbers as configuration: objects named so give their own keys, others keep theirs."""
    for key, value in facts.items():
        if key in CONFIG_KEYS and isinstance(value, Mapping):
            records.config.update(value)
        else:
            records.config[key] = value


def _is_step_list(value: object) -> bool:
    if not isinstance(value, list) or not value:
        return False
    counted = [v for v in value[:20] if isinstance(v, Mapping) and roles(v).keys() & {"step", "epoch"}]
    return len(counted) * 2 >= len(value[:20])


def _is_mapping_with(value: object, key: str) -> bool:
    return isinstance(value, Mapping) and key in value


def _add_steps(records: Records, steps: list[Any]) -> None:
    for place, step in enumerate(steps, 1):
        if isinstance(step, Mapping):
            records.add(place, step)
        else:
            records.reject(place, f"element {place} of the list of steps is no object", str(step))


def is_series(value: Mapping[str, Any]) -> bool:
    """Whether `value` is `{metric: {"steps": [..], "values": [..]}}`.

    >>> is_series({"loss": {"steps": [1], "values": [0.5], "timestamps": []}}), is_series({"lr": 0.1})
    (True, False)
    """
    series = [v for v in value.values() if isinstance(v, Mapping) and {"steps", "values"} & v.keys()]
    return bool(series) and len(series) == sum(v != {} for v in value.values())  # an empty one was cut


def add_series(records: Records, value: Mapping[str, Any]) -> None:
    """Add Sacred's series, each with steps and times of its own, one number a row; unequal lengths are a reject."""
    order = 0
    for tag, series in value.items():
        columns = [_listed(series.get(key)) for key in ("steps", "values", "timestamps")]
        steps, values, times = columns
        if len(steps) != len(values):
            said = f"{tag!r} has {len(steps):,} steps and {len(values):,} values; the first of both are read"
            records.rejects.append(Reject(records.file, said))
        times += [None] * (len(values) - len(times))
        for step, given, moment in zip(steps, values, times, strict=False):
            order += 1
            found, time = number(given), timestamp(moment)
            if found is None:
                if given is not None:
                    records.reject(order, f"{tag!r} holds {str(given)[:40]!r}, which is no number")
                continue
            micros = None if time is None else round(time * 1e6)
            records.pieces.add_row((order, 0, 0, to_step(step), None, micros, ""), str(tag), found, named=True)


def _listed(value: object) -> list[Any]:
    return list(value) if isinstance(value, list) else []


def _is_column(value: object) -> bool:
    if isinstance(value, Mapping):  # {"0": 2.5, "1": 2.0}, as pandas writes a frame
        return bool(value) and list(value)[:2] == ["0", "1"][: len(value)]
    return isinstance(value, list) and any(number(v) is not None for v in value[:20])


def add_columns(records: Records, columns: Mapping[str, Any]) -> None:
    """Add `{metric: [numbers]}`: a column named as a step, epoch or time tells the place, else the place in the list
    is the epoch, from 0 on."""
    lists = {
        key: list(value.values()) if isinstance(value, Mapping) else list(value)
        for key, value in columns.items()
        if _is_column(value)
    }
    lengths = {len(values) for values in lists.values()}
    if len(lengths) > 1:
        said = f"the lists have {min(lengths):,} to {max(lengths):,} numbers; each is read from its start"
        records.rejects.append(Reject(records.file, said))
    told = {roles(lists).get(role) for role in _AXES[:2]} - {None}
    for place in range(max(lengths, default=0)):
        row = {key: values[place] for key, values in lists.items() if place < len(values)}
        records.add(place + 1, row if told else {"epoch": place, **row})


def _add_nvlog(records: Records, value: Mapping[str, Any]) -> None:
    run = value["run"]
    records.config.update(run["args"] if isinstance(run.get("args"), Mapping) else {})
    records.config |= {k: v for k, v in run.items() if k != "args" and v is not None}
    rows = [(epoch, False, step, row) for epoch, step, row in _iterations(value.get("iter"))]
    ends = {epoch: step for epoch, _, step, _ in rows}
    epochs = value.get("epoch")
    columns = {k: _listed(v) for k, v in epochs.items()} if isinstance(epochs, Mapping) else {}
    for place, epoch in enumerate(columns.pop("x", [])):
        told = to_step(epoch)
        at = place if told is None else told
        rows.append((at, True, ends.get(at), {k: v[place] for k, v in columns.items() if place < len(v)}))
    # the numbers of an epoch after those of its iterations, as they were logged
    for order, (epoch, _, step, row) in enumerate(sorted(rows, key=lambda r: r[:2]), 1):
        records.add(order, {"step": step, "epoch": epoch, **row})


def _iterations(value: object) -> Iterator[tuple[int, int | None, dict[str, Any]]]:
    """Epoch, step and numbers of each iteration: the list of an epoch goes on where the one before ended."""
    columns = {k: _listed(v) for k, v in value.items()} if isinstance(value, Mapping) else {}
    done = 0
    for epoch, places in enumerate(columns.pop("x", [])):
        for place in range(len(_listed(places))):
            rows = {k: _listed(v[epoch]) for k, v in columns.items() if epoch < len(v)}
            yield epoch, done + place, {k: v[place] for k, v in rows.items() if place < len(v)}
        done += len(_listed(places))
