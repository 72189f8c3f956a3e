"""A run of Sacred's FileStorageObserver: a numbered folder of `metrics.json`, `config.json`, `run.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eventstream.errors import InputError
from parsers.content.json_damage import read_document
from parsers.content.lines import to_utf8
from parsers.json_documents import add_series, is_series
from parsers.json_documents import sniff as sniff_document
from parsers.places.beside import children, folder_name, load_beside
from parsers.run import Run
from parsers.tables.columns import timestamp
from parsers.tables.generic import Records

__all__ = ["read", "sniff"]

METRICS, CONFIG, RUN, INFO = "metrics.json", "config.json", "run.json", "info.json"
#: Facts of `run.json` that are kept as configuration; the rest describes the machine.
_FACTS = ("experiment", "command", "host", "meta", "resources", "artifacts", "result", "comment")
_ENDS = {"COMPLETED": "finished", "FAILED": "failed", "INTERRUPTED": "interrupted"}
_HEAD = 1 << 16


def sniff(path: Path, head: bytes) -> bool:
    """Whether `path` is the folder of a run: `metrics.json` in Sacred's form beside `config.json` or `run.json`."""
    if head or not path.is_dir():
        return False
    if not (path / METRICS).is_file() or not ((path / CONFIG).is_file() or (path / RUN).is_file()):
        return False
    start = _start(path / METRICS)
    if start.strip() == b"{}":  # a run that logged nothing is told by its own description
        return b'"heartbeat"' in _start(path / RUN)
    # the steps of a long series come first and may fill all of the head
    return b'"steps"' in start and sniff_document(path / METRICS, start)


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return to_utf8(file.read(_HEAD))
    except OSError:
        return b""  # `read` says why


def read(path: Path | str) -> Run:
    """The run in one numbered folder.

    Every series of `metrics.json` is read with its own steps and times (local time without a zone is taken as UTC).
    `config.json` is `run.config`; what `run.json` says of experiment, host and result is an event `sacred`, its status
    an event `end`. Other files of the folder are named in an event. Damage is a reject, and what stands before it is
    read. Raises `InputError` when there is no `metrics.json` that can be opened. Source: Sacred documentation,
    FileStorageObserver and metrics API.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "sweep", "7")
    ...     path.mkdir(parents=True)
    ...     _ = (path / "config.json").write_text('{"lr": 0.1, "seed": 3}')
    ...     text = '{"training.loss": {"steps": [5], "values": [0.5], "timestamps": ["2024-02-08T23:02:17.7"]}}'
    ...     _ = (path / "metrics.json").write_text(text)
    ...     run = read(path)
    >>> run.name, run.config["lr"], run.scalars.select("step", "split", "metric", "value").row(0)
    ('sweep/7', 0.1, (5, 'train', 'loss', 0.5))
    """
    path = Path(path) if isinstance(path, str) else path
    if not (path / METRICS).is_file():
        raise InputError(f"{path}: no {METRICS} in this folder")
    document = read_document(path / METRICS)
    records = Records(str(path))
    records.rejects += document.rejects
    if isinstance(document.value, Mapping) and is_series(document.value):
        add_series(records, document.value)
    found, rejects = load_beside(path, (CONFIG, RUN, INFO))
    records.rejects += rejects
    records.config.update(found.get(CONFIG, {}))
    _describe(records, found.get(RUN, {}))
    known = (METRICS, CONFIG, RUN, INFO)
    others = {p.name: p.stat().st_size for p in children(path) if p.is_file() and p.name not in known}
    if found.get(INFO) or others:
        _event(records, 0, None, "sacred", {"info": found.get(INFO, {}), "files": others})
    return records.run(folder_name(path), "sacred")


def _describe(records: Records, run: Mapping[str, Any]) -> None:
    if not run:
        return
    facts = {key: run[key] for key in _FACTS if run.get(key) not in (None, [], {}, "")}
    _event(records, 0, timestamp(run.get("start_time")), "sacred", facts)
    status = run.get("status")
    if isinstance(status, str) and status != "RUNNING":
        payload = {"status": _ENDS.get(status, "failed"), "said": status}
        trace = run.get("fail_trace")
        if isinstance(trace, list) and trace:
            payload["error"] = str(trace[-1]).strip()
        _event(records, 1 << 40, timestamp(run.get("stop_time")), "end", payload)


def _event(records: Records, order: int, time: float | None, kind: str, payload: Any) -> None:
    records.event((order, 0, 0, None, None, None if time is None else round(time * 1e6), ""), kind, payload)
