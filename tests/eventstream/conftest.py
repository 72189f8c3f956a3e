"""Slow and obvious readers of a run folder, written from docs/event-stream.md and nothing else."""

from __future__ import annotations

import json
import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from eventstream.errors import RecordingWarning
from eventstream.recorder import Recorder

Series = dict[tuple[str, str], list[tuple[int | None, float]]]


def _refuse(literal: str) -> float:
    raise AssertionError(f"{literal} is not strict JSON")


def read_lines(folder: Path) -> list[dict[str, Any]]:
    """Every record of the .jsonl files, strictly parsed, in the order of names and lines."""
    records = []
    for path in sorted(folder.glob("*.jsonl")):
        content = path.read_bytes()
        assert not content or content.endswith(b"\n")
        for line in content.split(b"\n")[:-1]:
            record = json.loads(line.decode("utf-8"), parse_constant=_refuse)
            assert line.startswith(b'{"kind":"')
            assert line.startswith(b'{"kind":"metrics",') == (record["kind"] == "metrics")
            records.append(record)
    return records


def metric_series(records: list[dict[str, Any]]) -> Series:
    """(name, split) to (step, value) pairs of the metrics records, nulls left out."""
    series: Series = defaultdict(list)
    for record in records:
        if record["kind"] == "metrics":
            for name, value in record["values"].items():
                text = record.get("nonfinite", {}).get(name)
                if text is not None or value is not None:
                    number = float(text.replace("Infinity", "inf")) if text is not None else float(value)
                    series[name, record.get("split", "")].append((record["step"], number))
    return dict(series)


def sealed_rows(folder: Path) -> list[dict[str, Any]]:
    """Every row of the sealed segments, in the order of names and rows."""
    import pyarrow.parquet as pq

    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def sealed_series(folder: Path) -> Series:
    series: Series = defaultdict(list)
    for row in sealed_rows(folder):
        if row["tag"] is not None and row["kind"] == "metrics":
            series[row["tag"], row["split"]].append((row["step"], row["value"]))
    return dict(series)


def same(left: Any, right: Any) -> bool:
    """Equal, a NaN equal to a NaN."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left):
        return math.isnan(right)
    return bool(left == right)


@contextmanager
def recorded_warnings() -> Iterator[list[str]]:
    """The texts of the recording warnings given inside, whatever the filters are."""
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield texts
    assert all(issubclass(w.category, RecordingWarning) for w in caught), [str(w.message) for w in caught]
    texts += [str(w.message) for w in caught]


@pytest.fixture(scope="session")
def lines_of() -> Callable[[Path], list[dict[str, Any]]]:
    return read_lines


@pytest.fixture(scope="session")
def series_of() -> Callable[[list[dict[str, Any]]], Series]:
    return metric_series


@pytest.fixture(scope="session")
def rows_of() -> Callable[[Path], list[dict[str, Any]]]:
    return sealed_rows


@pytest.fixture(scope="session")
def sealed_series_of() -> Callable[[Path], Series]:
    return sealed_series


@pytest.fixture(scope="session")
def equal() -> Callable[[Any, Any], bool]:
    return same


@pytest.fixture(scope="session")
def caught() -> Callable[[], Any]:
    return recorded_warnings


@pytest.fixture(scope="session")
def watched() -> Callable[[Recorder], dict[int, dict[str, float]]]:
    """The metrics records of a watched training: {step: values}, with what is not finite put back."""

    def read(recorder: Recorder) -> dict[int, dict[str, float]]:
        found: dict[int, dict[str, float]] = {}
        for record in read_lines(recorder.path):
            if record["kind"] == "metrics":
                others = {k: float(v.replace("Infinity", "inf")) for k, v in record.get("nonfinite", {}).items()}
                assert record["step"] not in found
                assert record["split"] == "train"
                found[record["step"]] = record["values"] | others
        return found

    return read


@pytest.fixture(scope="session", autouse=True)
def _no_rank() -> Iterator[None]:
    """The tests decide the rank, whatever launched them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RANK", raising=False)
        yield
