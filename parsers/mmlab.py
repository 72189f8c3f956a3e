"""Logs of OpenMMLab: `*.log.json` of mmcv, `scalars.json` of mmengine; their iterations and epochs as one count."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from parsers.content.jsontext import UnreadableError, parse_line
from parsers.content.lines import blocks, to_utf8
from parsers.finish import Reject
from parsers.places.beside import folder_name, run_name
from parsers.run import Run
from parsers.tables.columns import to_step
from parsers.tables.epoch_steps import steps_over_epochs
from parsers.tables.generic import Records

__all__ = ["read", "sniff"]

#: Lines of the head that are looked at.
_LOOK = 50
_ENVIRONMENT = b'{"env_info"'
#: What a training record of mmengine holds beside its losses.
_ENGINE = ("data_time", "time", "memory")
#: What the timestamped folder of mmengine holds: the run is named by the folder above.
_VIS_DATA = "vis_data"

_Row = tuple[int, Mapping[str, Any]]


def sniff(path: Path, head: bytes) -> bool:
    """Whether `head` begins a log of mmcv or mmengine: lines of JSON with `mode`, `epoch` and `iter`, or with `iter`
    and the same `step` beside the times of an iteration."""
    lines = to_utf8(head).split(b"\n")
    if lines[0].startswith(_ENVIRONMENT):
        return True
    whole = lines if len(head) < (1 << 16) else lines[:-1]
    return any(_is_mmcv(row) or _is_engine(row) for row in map(_row, whole[:_LOOK]))


def _row(line: bytes) -> Mapping[str, Any]:
    if not line.lstrip().startswith(b"{"):
        return {}
    try:
        value = parse_line(line)[0]
    except UnreadableError:
        return {}
    return value if isinstance(value, Mapping) else {}


def _is_mmcv(row: Mapping[str, Any]) -> bool:
    return row.get("mode") in ("train", "val") and "epoch" in row and "iter" in row


def _is_engine(row: Mapping[str, Any]) -> bool:
    return "iter" in row and row["iter"] == row.get("step") and any(key in row for key in _ENGINE)


def read(path: Path | str) -> Run:
    r"""The run in a log of mmcv or mmengine.

    Every number of a record is a scalar; `mode` is the split. Iterations of mmcv begin again with every epoch: the step
    is then (epoch - 1) x iterations an epoch + iteration, where the largest iteration seen stands for the length of
    an epoch, and a note says so. The `iter` of an evaluation counts batches of the evaluation, and the `step` of an
    evaluation of mmengine is the epoch: both are placed at the last step of training before them. The first line
    (environment and configuration) is `run.config`. A line that cannot be read is a reject with its number.

    Raises `InputError` when the file cannot be opened. Source: TextLoggerHook of mmcv 1 and LoggerHook of mmengine.

    >>> import tempfile
    >>> rows = ['{"mode": "train", "epoch": %d, "iter": %d, "loss": 1.5}' % (e, i) for e in (1, 2) for i in (50, 100)]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "rcnn.log.json")
    ...     _ = path.write_text("\n".join(rows))
    ...     run = read(path)
    >>> run.series("loss", split="train").select("step", "epoch").rows()
    [(50, 1.0), (100, 1.0), (150, 2.0), (200, 2.0)]
    """
    path = Path(path) if isinstance(path, str) else path
    records = Records(str(path))
    rows: list[_Row] = []
    for line, row in _rows(path, records):
        if "env_info" in row:
            records.config.update(row)
        else:
            rows.append((line, row))
    for line, row in _placed(records, rows):
        records.add(line, row)
    return records.run(_name(path), "mmlab")


def _name(path: Path) -> str:
    if path.parent.name == _VIS_DATA and path.parent.parent.parent.name:
        return f"{path.parent.parent.parent.name}/{path.parent.parent.name}"
    stem = path.name.split(".")[0]
    return f"{folder_name(path.parent)}/{stem}" if stem.replace("_", "").isdigit() else run_name(path)


def _rows(path: Path, records: Records) -> Iterator[_Row]:
    for block in blocks(path):
        if isinstance(block, Reject):
            records.rejects.append(block)
            continue
        for line, text in enumerate(block.lines(), block.first):
            if not text.strip():
                continue
            shown = text[:400].decode("utf-8", "replace")
            try:
                value, note = parse_line(text)
            except UnreadableError as error:
                records.reject(line, str(error), shown)
                continue
            if note:
                records.reject(line, note, shown)
            if isinstance(value, Mapping):
                yield line, value
            else:
                records.reject(line, "no object of names and numbers", shown)


def _placed(records: Records, rows: list[_Row]) -> Iterator[_Row]:
    """The rows with a step that grows over the run."""
    trained = [place for _, row in rows if (place := _place(row)) is not None]
    steps, many = steps_over_epochs(trained, base=0 if any(epoch == 0 for epoch, _ in trained) else 1)
    if many is not None:
        text = (
            f"iterations begin again with every epoch; the step is (epoch - 1) x {many:,} + iteration, "
            f"where {many:,} is how many an epoch has by what was logged"
        )
        records.event((0, 0, 0, None, None, None, ""), "note", {"text": text, "level": "info"})
    following = iter(steps)
    last: int | None = None
    epoch: int | None = None
    for line, row in rows:
        place = _place(row)
        if place is not None:
            last, epoch = next(following), place[0]
            yield line, {**{k: v for k, v in row.items() if k != "iter"}, "step": last}
        elif row.get("mode") == "val" and "iter" in row:
            yield line, {**{k: v for k, v in row.items() if k != "iter"}, "step": last}
        elif "iter" not in row and epoch is not None and to_step(row.get("step")) == epoch and last != epoch:
            yield line, {**row, "step": last, "epoch": epoch, "split": "val"}
        elif "iter" not in row and "mode" not in row:
            yield line, {"split": "val", **row}
        else:
            yield line, row


def _place(row: Mapping[str, Any]) -> tuple[int, int] | None:
    """Epoch (0 where the record tells none) and iteration of a record of training."""
    if row.get("mode", "train") != "train":
        return None
    iteration = to_step(row.get("iter"))
    epoch = to_step(row.get("epoch", 1))
    return None if iteration is None or epoch is None else (epoch, iteration)
