"""What of a run is given to another program: the files that it claims to read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import polars as pl

__all__ = ["flat_record", "logs_of", "plain_names"]

_SUFFIXES = (".jsonl", ".csv", ".log", ".txt")
_EVAL = ("eval", "val", "valid", "validation", "test")
#: What a record has for itself, whatever its split.
_OF_ROWS = ("step", "time", "epoch")


def logs_of(name: str, path: Path, folder: Path) -> list[Path]:
    """Files, or folders, of one run to give to the program; `folder` is for what is written for it."""
    files = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
    if any(_is_stream(one) for one in files):
        return [_flat(path, folder)]
    logs = [one for one in files if one.suffix in _SUFFIXES or one.name == "trainer_state.json"]
    logs = [_renamed(one, folder) if one.suffix == ".jsonl" else one for one in logs]
    boards = [one for one in files if "tfevents" in one.name]
    if boards and name == "trainspotter":
        return [*logs, path if path.is_dir() else path.parent]
    return [*logs, *boards]


def _renamed(path: Path, folder: Path) -> Path:
    """A copy of a JSONL log with the names that others know; lines that are no objects as they are."""
    out = folder / path.name
    with path.open(encoding="utf-8", errors="replace") as lines, out.open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(_plain_line(line.rstrip("\n")) + "\n")
    return out


def _plain_line(line: str) -> str:
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        return line
    return json.dumps(plain_names(record)) if isinstance(record, dict) else line


def plain_names(record: Mapping[str, object]) -> dict[str, object]:
    """`loss` for `train/loss`; `eval_loss` for `val/loss`, and for the `loss` of a record whose `split` is `eval`.

    >>> plain_names({"step": 1, "split": "eval", "loss": 2.0}), plain_names({"train/loss": 3.0, "val/loss": 2.0})
    ({'step': 1, 'eval_loss': 2.0}, {'loss': 3.0, 'eval_loss': 2.0})
    """
    of_eval = str(record.get("split", "")).lower() in _EVAL
    plain = {}
    for name, value in record.items():
        head, slash, rest = name.partition("/")
        if slash and head in ("train", *_EVAL):
            plain[rest if head == "train" else f"eval_{rest}"] = value
        elif name != "split":
            plain[f"eval_{name}" if of_eval and name not in _OF_ROWS else name] = value
    return plain


def _is_stream(path: Path) -> bool:
    if path.name != "manifest.json":
        return False
    try:
        return bool(json.loads(path.read_text(encoding="utf-8")).get("format") == "aftertrain-events")
    except (json.JSONDecodeError, UnicodeDecodeError):
        return False


def _flat(path: Path, folder: Path) -> Path:
    """The stream of the first process as flat JSONL, in the order logged; damaged lines as they are."""
    out = folder / "metrics.jsonl"
    ranks = sorted({one.name[:9] for one in path.glob("rank*-attempt*")})
    lines = [line for segment in sorted(path.glob(f"{ranks[0]}-*")) for line in _lines(segment)] if ranks else []
    out.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return out


def _lines(segment: Path) -> Iterator[str]:
    if segment.suffix == ".parquet":
        scalars = pl.read_parquet(segment).filter(pl.col("tag").is_not_null()).sort("seq", maintain_order=True)
        for (_, step, time, split), rows in scalars.group_by("seq", "step", "time", "split", maintain_order=True):
            values = dict(zip(rows["tag"], rows["value"], strict=True))
            yield json.dumps(flat_record(step, time.timestamp(), str(split), values))
    elif segment.suffix == ".jsonl":
        for line in segment.read_text(encoding="utf-8", errors="replace").splitlines():
            yield from _line(line)


def _line(line: str) -> Iterator[str]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        yield line
        return
    payload = record.get("payload", {})
    values = dict(record.get("values", {}))
    if record["kind"] == "losses" and payload.get("total") is not None:
        values["losses/total"] = payload["total"]
    if record["kind"] == "resources":
        values |= {f"resources/{name}": value for name, value in payload.items()}
    values |= record.get("nonfinite", {})
    if values:
        yield json.dumps(flat_record(record["step"], record["time"], record.get("split", ""), values))


def flat_record(step: object, time: object, split: str, values: Mapping[str, object]) -> dict[str, object]:
    """One record in the names that others know: `loss` of training, `eval_loss` of eval, and so on.

    The total of recorded components is the `loss` where none is logged beside it.
    """
    record: dict[str, object] = {"step": step, "time": time}
    for name, value in values.items():
        record[name if split in ("", "train") else f"{split}_{name}"] = value
    if "losses/total" in record:
        record.setdefault("loss", record["losses/total"])
    return record
