"""NVIDIA's DLLogger: `DLLL {...}` lines, alone in a file or inside the output of a job."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parsers.content.json_damage import leading_value
from parsers.content.lines import blocks
from parsers.finish import Reject
from parsers.places.beside import folder_name, run_name
from parsers.run import Run
from parsers.tables.columns import timestamp, to_step
from parsers.tables.epoch_steps import steps_over_epochs
from parsers.tables.generic import Records

__all__ = ["read", "sniff"]

_LINE = re.compile(rb"(?:^|[\s:\]>])DLLL (\{[^\n]*)", re.MULTILINE)
_SNIFF = re.compile(rb'(?:^|[\s:\]>])DLLL \{[^\n]{0,400}"(?:type|step)"', re.MULTILINE)
_GENERIC = re.compile(r"(nvlog|dllogger|dlll|log|raport|report)[^/]*", re.IGNORECASE)


def sniff(path: Path, head: bytes) -> bool:
    """Whether a `DLLL {...}` line stands in `head`."""
    return _SNIFF.search(head) is not None


@dataclass(slots=True)
class _Entry:
    """One record: `place` is epoch, iteration and iteration of the evaluation, as far as it tells them."""

    line: int
    place: tuple[int, ...]
    time: float | None
    data: Mapping[str, Any]


def read(path: Path | str) -> Run:
    r"""The run of the `DLLL` lines in the file at `path`; all other text is passed over.

    The step of a record is a list: epoch; epoch and iteration; or these and the iteration of an evaluation. Iterations
    that begin again with every epoch are counted on, and a note says how; a record of an epoch alone stands at the last
    iteration before it. Records of the step `PARAMETER` are `run.config`, those with an empty step (the summary)
    events `results`, units of metrics events `metric-metadata`. A damaged line is a reject with its number.

    Raises `InputError` when the file cannot be opened. Source: JSONStreamBackend and `default_step_format` of DLLogger.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "bert.json")
    ...     _ = path.write_text('DLLL {"type": "LOG", "step": [0, 9], "data": {"train_loss": 1.5}}\n')
    ...     run = read(path)
    >>> run.scalars.select("step", "epoch", "split", "metric", "value").row(0)
    (9, 0.0, 'train', 'loss', 1.5)
    """
    path = Path(path) if isinstance(path, str) else path
    records = Records(str(path))
    entries: list[_Entry] = []
    for line, row in _rows(path, records):
        time = timestamp(row.get("timestamp"))
        data, step = row.get("data"), row.get("step")
        if not isinstance(data, Mapping):
            _event(records, line, time, "metric-metadata", {k: row[k] for k in ("metric", "metadata") if k in row})
        elif step == "PARAMETER":
            records.config.update(data)
        elif step in ([], "", None):
            _event(records, line, time, "results", data)
        else:
            entries.append(_Entry(line, _place(step), time, data))
    _add(records, entries)
    name = folder_name(path.parent) if _GENERIC.fullmatch(path.name.split(".")[0]) else run_name(path)
    return records.run(name or path.name, "dllogger")


def _event(records: Records, line: int, time: float | None, kind: str, payload: Any) -> None:
    micros = None if time is None else round(time * 1e6)
    records.event((line, 0, 0, None, None, micros, ""), kind, payload)


def _place(step: object) -> tuple[int, ...]:
    """Epoch, iteration and iteration of the evaluation; a bare number is an iteration of epoch 0."""
    if isinstance(step, list):
        found = [to_step(part) for part in step[:3]]
        return tuple(part for part in found if part is not None) if None not in found else ()
    number = to_step(step)
    return () if number is None else (0, number)


def _add(records: Records, entries: list[_Entry]) -> None:
    trained = [(e.place[0], e.place[1]) for e in entries if len(e.place) >= 2]
    base = 0 if any(epoch <= 0 for epoch, _ in trained) else 1
    steps, many = steps_over_epochs(trained, base=base)
    if many is not None:
        text = f"iterations begin again with every epoch; the step is (epoch - {base}) x {many:,} + iteration"
        records.event((0, 0, 0, None, None, None, ""), "note", {"text": text, "level": "info"})
    following = iter(steps)
    last: int | None = None
    for entry in entries:
        row: dict[str, Any] = {"time": entry.time} if entry.time is not None else {}
        if len(entry.place) >= 2:
            last = next(following)
        if entry.place:
            row |= {"step": last, "epoch": entry.place[0]}
        if len(entry.place) == 3:
            row |= {"split": "eval", "eval_iteration": entry.place[2]}
        records.add(entry.line, {**entry.data, **row})


def _rows(path: Path, records: Records) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for block in blocks(path):
        if isinstance(block, Reject):
            records.rejects.append(block)
            continue
        line, counted = block.first, 0
        for match in _LINE.finditer(block.data):
            line += block.data.count(b"\n", counted, match.start(1))
            counted = match.start(1)
            value, reason = leading_value(match[1])
            if reason:
                records.reject(line, reason, match[1][:400].decode("utf-8", "replace"))
            if isinstance(value, Mapping):
                yield line, value
