"""Runs that aftertrain's own recorder wrote: a folder of segments, JSON lines or Parquet, and its manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from eventstream.errors import InputError
from eventstream.records import FORMAT, MANIFEST, VERSION, SegmentName
from eventstream.vectors import FOLDER as VECTORS
from parsers.finish import Reject, finish
from parsers.naming.names import resolve
from parsers.run import Run
from parsers.schema import SCALARS
from parsers.segments.sealed import NewerVersionError, Sealed, runs_of
from parsers.segments.segment_lines import SegmentLines
from parsers.tables.events import event_frame
from parsers.tables.slices import KEYS, Source, lazy_slices

__all__ = ["owned", "read", "sniff"]

#: A manifest holds a configuration; beyond this size it is something else.
MANIFEST_LIMIT = 64 << 20


def sniff(path: Path, head: bytes) -> bool:
    """Whether the folder holds segments, or a manifest of the format."""
    try:
        if any(SegmentName.parse(entry.name) for entry in path.iterdir()):
            return True
        manifest = path / MANIFEST
        if not manifest.is_file():
            return False
        with manifest.open("rb") as file:
            return FORMAT.encode() in file.read(1 << 16)
    except OSError:
        return False  # a folder that cannot be listed holds nothing that can be read


def owned(folder: Path) -> set[str]:
    """Names of the segments, the vectors and the manifest; all else in the folder is of other writers."""
    return {MANIFEST, VECTORS, *(entry.name for entry in folder.iterdir() if SegmentName.parse(entry.name))}


def read(path: Path | str) -> Run:
    """The run in a folder of the event stream (`docs/event-stream.md`), or in one segment given by its file.

    Scalars of sealed segments of more than 32 MiB stay on disk until they are asked for. Lines that cannot be read, a
    segment that is no whole Parquet file, and a manifest that is missing or broken are rejects, and the rest is read;
    `nonfinite` values are restored; events of unknown kinds are kept. `config` is the manifest's, with what later
    `config` events say in its place, and `world_size` where the job had several processes. Raises `InputError` for a
    format version that is newer than this reader.

    >>> import tempfile
    >>> from eventstream.recorder import Recorder
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with Recorder(Path(folder, "exp-1"), config={"lr": 0.1}) as recorder:
    ...         recorder.log(1, {"loss": float("nan")}, split="train")
    ...     run = read(Path(folder, "exp-1"))
    >>> run.config, run.scalars.select("step", "split", "metric", "value").row(0)
    ({'lr': 0.1}, (1, 'train', 'loss', nan))
    """
    path = Path(path) if isinstance(path, str) else path
    stream = _Stream(path)
    manifest: Mapping[str, Any] = {}
    if path.is_dir():
        manifest = stream.manifest()
        for name in stream.segments():
            stream.add(path, name)
    else:
        segment = SegmentName.parse(path.name)
        if segment is None:
            raise InputError(f"{path}: not a segment of an event stream")
        stream.add_file(path, segment)
    return stream.run(manifest)


@dataclass(slots=True)
class _Stream:
    """What is read so far: sources of numbers with their slices, events, rejects."""

    path: Path
    sources: list[Source] = field(default_factory=list)
    slices: list[tuple[Any, ...]] = field(default_factory=list)  # rank, attempt, tag, split, source, offset, length
    events: list[tuple[Any, ...]] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    #: Numbers of the segments that are JSON lines, by the place of their source.
    tables: dict[int, tuple[SegmentName, pl.DataFrame]] = field(default_factory=dict)

    def manifest(self) -> Mapping[str, Any]:
        """The manifest, or an empty mapping and a reject that says what is wrong with it."""
        file = self.path / MANIFEST
        try:
            if file.stat().st_size > MANIFEST_LIMIT:
                raise ValueError(f"more than {MANIFEST_LIMIT:,} bytes")
            found = orjson.loads(file.read_bytes())
        except FileNotFoundError:
            self.rejects.append(Reject(str(file), "the manifest is missing; configuration and plan are unknown"))
            return {}
        except (OSError, ValueError) as error:
            self.rejects.append(Reject(str(file), f"the manifest cannot be read: {error}"))
            return {}
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            self.rejects.append(Reject(str(file), f"the manifest is not one of format {FORMAT!r}"))
            return {}
        version = found.get("version")
        if not isinstance(version, int) or version > VERSION:
            raise NewerVersionError(file, version)
        return found

    def segments(self) -> list[SegmentName]:
        """Names of the segments, by rank, attempt and number."""
        names = (SegmentName.parse(entry.name) for entry in self.path.iterdir() if entry.is_file())
        return sorted({name for name in names if name is not None})

    def add(self, folder: Path, name: SegmentName) -> None:
        """One segment: the sealed file where it is whole, else the lines."""
        sealed, lines = folder / name.parquet, folder / name.jsonl
        if sealed.exists():
            try:
                self.add_file(sealed, name)
                return
            except NewerVersionError:
                raise
            except InputError as error:
                self.rejects.append(Reject(str(sealed), str(error).removeprefix(f"{sealed}: ")))
        if lines.exists():
            self.add_file(lines, name)

    def add_file(self, path: Path, name: SegmentName) -> None:
        """One file of a segment."""
        if path.suffix == ".parquet":
            sealed = Sealed(path, name).read()
            self._slice(name, len(self.sources), sealed.slices)
            self.sources.append(sealed.source)
            self.events += sealed.events
            self.rejects += sealed.rejects
            return
        segment = SegmentLines(path, name).read()
        self.tables[len(self.sources)] = name, segment.pieces.table("run")
        self.sources.append(_source(self.tables[len(self.sources)][1]))
        self.events += sorted(segment.events, key=lambda row: int(row[0]))
        self.rejects += sorted(segment.rejects, key=lambda reject: reject.line or 0)

    def _slice(self, name: SegmentName, source: int, slices: list[tuple[Any, Any, int, int]]) -> None:
        self.slices += [(name.rank, name.attempt, tag, split, source, *where) for tag, split, *where in slices]

    def scalars(self, run: str) -> pl.LazyFrame:
        """Every series, rows of its segments in their order."""
        if len(self.sources) == len(self.tables) == 1:
            return self.tables[0][1].lazy()
        for source, (name, table) in self.tables.items():
            self._slice(name, source, runs_of(table["tag"], table["split"]))
        if not self.slices:
            return SCALARS.to_frame().lazy()
        named = [
            (rank, attempt, tag, *resolve(tag, split), *where) for rank, attempt, tag, split, *where in self.slices
        ]
        rows = [
            (run, rank, attempt, own, metric, tag, *where) for rank, attempt, tag, own, metric, *where in sorted(named)
        ]
        return lazy_slices(pl.DataFrame(rows, schema=KEYS, orient="row"), self.sources)

    def _told(self, payload: str | None) -> dict[str, Any]:
        """The configuration that an event holds, with integers of any size; a reject where it is damaged."""
        try:
            return _object(json.loads(payload or "null"))
        except json.JSONDecodeError as error:
            reason = f"a config event cannot be read: {error}"
            self.rejects.append(Reject(str(self.path), reason, text=payload or ""))
            return {}

    def run(self, manifest: Mapping[str, Any]) -> Run:
        """The run of all that was added."""
        given = manifest.get("run")
        name = given if isinstance(given, str) and given else (self.path.resolve().name.split(".")[0] or "run")
        config = _object(manifest.get("config"))
        for row in self.events:
            if row[7] == "config":
                config |= self._told(row[8])
        processes = _processes(manifest.get("attempts"))
        if processes is not None:
            config.setdefault("world_size", processes)
        return finish(
            name,
            str(self.path),
            "aftertrain",
            self.scalars(name),
            events=event_frame(self.events),
            rejects=self.rejects,
            config=config,
            plan=_object(manifest.get("plan")),
            final_attempt=max((attempt for _, attempt, *_ in self.slices), default=None),
        )


def _source(table: pl.DataFrame) -> Source:
    kept = table.select("step", "epoch", "time", "value")
    return Source(kept.height, lambda columns, offset, length: kept.select(columns).slice(offset, length))


def _processes(attempts: object) -> int | None:
    """How many processes the job had at its last start, where it had several and the manifest tells."""
    last = _object(attempts[-1]).get("processes") if isinstance(attempts, list) and attempts else None
    return last if type(last) is int and last > 1 else None


def _object(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}
