"""MLPerf logs: `:::MLLOG` lines inside the noise of a training job, and the older `:::MLPv0.5.0` and `:::MLL` lines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import polars as pl

from eventstream.errors import InputError
from parsers.content.json_damage import leading_value
from parsers.content.jsontext import UnreadableError, parse_line
from parsers.content.lines import Block, blocks
from parsers.finish import Reject
from parsers.places.beside import folder_name, run_name
from parsers.run import Run
from parsers.tables.columns import number, timestamp, to_step
from parsers.tables.generic import Records

__all__ = ["read", "sniff"]

_MARK = re.compile(rb":::ML(?:LOG|L|Pv\d+\.\d+(?:\.\d+)?)(?=[ \t])")
_SNIFF = re.compile(
    rb":::MLLOG[ \t]+\{|:::MLL[ \t]+\d+\.\d+[ \t]+\w+:|:::MLPv\d+\.\d+(?:\.\d+)?[ \t]+\S+[ \t]+\d+\.\d+[ \t]+\("
)
#: Version 0.5: benchmark, seconds since 1970, (file:line), key, and a value after a colon.
_V05 = re.compile(
    r"\S+\s+(?P<time>\d+\.\d+)\s+\((?P<file>[^()]*?):(?P<lineno>\d+)\)\s+(?P<key>[^\s:]+)(?::\s*(?P<value>.*))?"
)
#: Version 0.6: seconds since 1970, key, and an object of value and metadata.
_V06 = re.compile(r"(?P<time>\d+\.\d+)\s+(?P<key>[^\s:]+):\s*(?P<value>\{.*)")
#: Bytes searched for a first line: a job prints much before its logger starts.
_SEARCHED = 4 << 20
#: Where a number stands, the more exact first; samples seen count as steps where no step is told.
_STEPS = ("step", "step_num", "iteration", "samples_count", "train_samples_since_beginning")
_EPOCHS = ("epoch_num", "epoch", "epoch_count")
#: Objects of these keys hold measurements of their own, so that their names are the metrics.
_CONTAINER = "tracked_stats/"
_NUMBERED = re.compile(r"result_\d+")


def sniff(path: Path, head: bytes) -> bool:
    """Whether a line of the MLPerf logger stands in the first 4 MiB (`head` is looked at first)."""
    if _SNIFF.search(head):
        return True
    if len(head) < 1 << 16 or b"\0\0" in head or head.lstrip()[:1] in (b"{", b"["):
        return False  # shorter than the head, so all of it was seen, or no text log
    with path.open("rb") as file:
        return _SNIFF.search(file.read(_SEARCHED)) is not None


@dataclass(frozen=True, slots=True)
class _Entry:
    """One line of the logger, whatever its version."""

    line: int
    key: str
    value: Any
    time: float | None
    metadata: Mapping[str, Any]
    facts: Mapping[str, Any]  # event_type and namespace

    @property
    def index(self) -> tuple[Any, ...]:
        """Order, rank, attempt, step, epoch, time and split, as `Records` takes them."""
        step = _first(self.metadata, _STEPS, to_step)
        epoch = _first(self.metadata, _EPOCHS, number)
        micros = None if self.time is None else round(self.time * 1e6)
        return self.line, 0, 0, step, epoch, micros, ""

    def numbers(self) -> Iterator[tuple[str, float]]:
        """Tag and number of each measurement in the value."""
        if str(self.facts.get("event_type", "")).startswith("INTERVAL"):
            return  # the value of an interval's ends is a label such as the number of its first epoch
        given = self.value if isinstance(self.value, Mapping) else {"": self.value}
        for name, value in given.items():
            found = number(value)
            if found is not None:
                yield (f"{self.key}/{name}" if name else self.key), found


def _first(metadata: Mapping[str, Any], keys: tuple[str, ...], read: Any) -> Any:
    return next((v for v in (read(metadata.get(key)) for key in keys) if v is not None), None)


@dataclass(slots=True)
class _Log:
    """What was read so far; a number without a place waits until it is known whether its key comes again."""

    records: Records
    waiting: dict[str, list[tuple[_Entry, float]]] = field(default_factory=dict)

    def add(self, entry: _Entry) -> None:
        payload = {"key": entry.key, "value": entry.value, **entry.facts, "metadata": entry.metadata}
        self.records.event(entry.index, "mllog", payload)
        if entry.key == "run_stop":
            self.end(entry)
            return
        placed = entry.index[3] is not None or entry.index[4] is not None
        for tag, value in entry.numbers():
            if placed:
                self.records.pieces.add_row(entry.index, tag, value)
            else:
                self.waiting.setdefault(tag, []).append((entry, value))
        if not placed and isinstance(entry.value, str | bool):
            self.records.config[entry.key] = entry.value

    def end(self, entry: _Entry) -> None:
        """How the run ended, in the words of the event stream."""
        said = entry.metadata.get("status")
        if said is None and isinstance(entry.value, Mapping):
            said = {True: "success", False: "aborted"}.get(entry.value.get("success"))  # type: ignore[arg-type]
        if said is not None:
            status = "finished" if said == "success" else "failed"
            self.records.event(entry.index, "end", {"status": status, "said": said})

    def settle(self) -> None:
        """A number without a place is a hyper-parameter, unless its key says several different ones."""
        for tag, found in self.waiting.items():
            if len({value for _, value in found}) == 1:
                self.records.config[tag] = found[0][0].value if tag == found[0][0].key else found[0][1]
                continue
            for entry, value in found:
                self.records.pieces.add_row(entry.index, tag, value, named=True)


def read(path: Path | str) -> Run:
    r"""The run whose logger lines stand in the text file at `path`; all other text is passed over.

    Every line of the logger is an event of kind `mllog` with its key, value, event type, namespace and metadata (the
    source file and line among them). Numbers, and the numbers of an object (`tracked_stats`, `eval_accuracy` of
    several parts), are scalars where the metadata tells a place: the step is `step`, `iteration` or the samples
    seen so far, the epoch is `epoch_num`, `epoch` or `epoch_count`. Numbers without a place are hyper-parameters and
    go to `run.config`; where their key says several different numbers they are scalars without a step. Numbers of
    `tracked_stats` are of the split `train` under their own names. `run_stop` is an event `end`. A line that is cut or
    damaged is a reject with its number; two lines that ran into each other are both read.

    Raises `InputError` when the file cannot be opened or holds no line of the logger. Source: mlperf_logging (log
    format of the MLCommons training rules); lines of versions 0.5 and 0.6 as its parsers describe them.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "bert.log")
    ...     text = ':::MLLOG {"key": "eval_accuracy", "value": 0.7, "time_ms": 1634612077631, "metadata": {"step": 9}}'
    ...     _ = path.write_text(f"loading\n0: {text}\n")
    ...     run = read(path)
    >>> run.scalars.select("step", "split", "metric", "value").row(0), run.events["kind"].to_list()
    ((9, 'eval', 'accuracy', 0.7), ['mllog'])
    """
    path = Path(path) if isinstance(path, str) else path
    log = _Log(Records(str(path)))
    seen = False
    for block in blocks(path):
        if isinstance(block, Reject):
            log.records.rejects.append(block)
            continue
        for line, mark, text in _pieces(block):
            seen = True
            entry = _parsed(log.records, line, mark, text)
            if entry is not None:
                log.add(entry)
    if not seen:
        raise InputError(f"{path}: no line of the MLPerf logger (:::MLLOG) in this file")
    log.settle()
    return _named(log.records.run(_name(path), "mlperf"))


def _name(path: Path) -> str:
    stem = path.name.split(".")[0]
    return f"{folder_name(path.parent)}/{stem}" if _NUMBERED.fullmatch(stem) else run_name(path)


def _pieces(block: Block) -> Iterator[tuple[int, str, bytes]]:
    """Line number, mark and the text after it, of each logger line; the lines between are never looked at."""
    data, line, counted = block.data, block.first, 0
    found = list(_MARK.finditer(data))
    for match, following in zip_longest(found, found[1:]):
        line += data.count(b"\n", counted, match.start())
        counted = match.start()
        end = data.find(b"\n", match.end())
        end = len(data) if end < 0 else end
        if following is not None:
            end = min(end, following.start())
        yield line, match[0].decode(), data[match.end() : end].strip()


def _parsed(records: Records, line: int, mark: str, text: bytes) -> _Entry | None:
    shown = text[:400].decode("utf-8", "replace")
    if mark == ":::MLLOG":
        value, after = leading_value(text)
        if not isinstance(value, Mapping) or not isinstance(value.get("key"), str):
            records.reject(line, after or "a line of the logger without a key", shown)
            return None
        if after:
            records.reject(line, after, shown)
        metadata = value.get("metadata")
        metadata = metadata if isinstance(metadata, Mapping) else {}
        facts = {k: v for k, v in value.items() if k in ("namespace", "event_type") and v}
        time = timestamp(value.get("time_ms"))
        return _Entry(line, value["key"], value.get("value"), time, metadata, facts)
    match = (_V06 if mark == ":::MLL" else _V05).match(text.decode("utf-8", "replace"))
    if match is None:
        records.reject(line, f"not the form of a {mark} line", shown)
        return None
    return _old(line, mark, match)


def _old(line: int, mark: str, match: re.Match[str]) -> _Entry:
    said = match["value"]
    value: Any = None
    if said is not None:
        try:
            value = parse_line(said.encode())[0]
        except UnreadableError:
            value = said.strip()  # text without quotes, or an object as Python prints it
    metadata: dict[str, Any] = {}
    if mark != ":::MLL":
        metadata |= {"file": match["file"], "lineno": int(match["lineno"][:18])}
    if isinstance(value, Mapping) and "value" in value:
        inner = value.get("metadata")
        metadata |= inner if isinstance(inner, Mapping) else {k: v for k, v in value.items() if k != "value"}
        value = value["value"]
    return _Entry(line, match["key"], value, timestamp(match["time"]), metadata, {"version": mark.lstrip(":")})


def _named(run: Run) -> Run:
    """Numbers of `tracked_stats` under their own names: the container says only that they are of the training."""
    inside = pl.col("tag").str.starts_with(_CONTAINER)
    return replace(
        run,
        source=run.source.with_columns(
            split=pl.when(inside).then(pl.lit("train")).otherwise("split"),
            metric=pl.when(inside).then(pl.col("tag").str.strip_prefix(_CONTAINER)).otherwise("metric"),
        ),
    )
