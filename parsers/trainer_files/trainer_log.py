"""`trainer_log.jsonl` of LLaMA-Factory: one object a logging step, with the time that passed as text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from parsers.content.jsontext import UnreadableError, parse_line
from parsers.content.lines import Block, blocks
from parsers.finish import Reject
from parsers.tables.columns import to_step
from parsers.tables.generic import Records

__all__ = ["duration", "log_records"]

_DURATION = re.compile(r"(?:(\d{1,9}) days?, )?(\d{1,9}):(\d{1,2}):(\d{1,2}(?:\.\d{1,9})?)")
_DURATIONS = ("elapsed_time", "remaining_time")


def duration(text: object) -> float | None:
    """Seconds of a duration as Python's timedelta writes it, or None.

    >>> duration("9 days, 21:49:18"), duration("0:32:48"), duration("soon")
    (856158.0, 1968.0, None)
    """
    match = _DURATION.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        return None
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def log_records(path: Path, records: Records, totals: set[int]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Line number and object of each line, durations in seconds and the split named; `totals` takes the total steps.

    Lines that cannot be read are rejects of `records`.
    """
    for block in blocks(path):
        if isinstance(block, Reject):
            records.rejects.append(block)
            continue
        for line, text in enumerate(block.lines(), block.first):
            record = _record(path, records, line, text, block)
            if record is not None:
                total = to_step(record.pop("total_steps", None))
                if total is not None:
                    totals.add(total)
                yield line, record


def _record(path: Path, records: Records, line: int, text: bytes, block: Block) -> dict[str, Any] | None:
    if not text.strip():
        return None
    note, value = "", None
    try:
        value, note = parse_line(text)
    except UnreadableError as error:
        cut = not block.ended and line == block.first + block.count() - 1
        note = f"the last line is cut: {error}" if cut else str(error)
    else:
        if not isinstance(value, Mapping):
            value, note = None, "no JSON object"
    if note:
        shown = text[:400].decode("utf-8", "replace")
        records.rejects.append(Reject(str(path), note, line=line, text=shown))
    if value is None:
        return None
    record = dict(value)
    for key in _DURATIONS:
        seconds = duration(record.get(key))
        if seconds is not None:
            record[key] = seconds
    if not any(key.startswith(("eval_", "predict_")) for key in record) and "split" not in record:
        record["split"] = "train"
    return record
