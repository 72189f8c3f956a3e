"""Runs as bytes and back: JSON and Arrow IPC in one piece of memory, checked by a digest, nothing of it executed."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

import polars as pl

from parsers.content.plain_values import Form, UnkeptError, plain, restored
from parsers.run import Run, Source
from parsers.schema import EVENTS, REJECTS
from parsers.segments.sealed import EAGER
from parsers.tables.slices import KEYS, lazy_slices, whole_slices
from parsers.tables.slices import Source as Rows

__all__ = ["from_bytes", "stays_on_disk", "to_bytes"]

#: Begins every piece; another layout gets another number.
MAGIC = b"ATRUNS1\n"
_DIGEST = 16
_START = len(MAGIC) + _DIGEST + 8
_ALIGNED = 64
#: Up to this many rows a table of scalars is kept as it is; beyond, its names once a series, numbers by the row.
WHOLE = 1 << 16
_NAMES = ["run", "rank", "attempt", "split", "metric", "tag"]
_ROWS = ["step", "epoch", "time", "value"]
_LAZY = ("source", "whole")
#: Made once: most runs have none, and making one takes longer than reading the rest of a small run.
_EMPTY = {"events": EVENTS.to_frame(), "rejects": REJECTS.to_frame()}


def to_bytes(runs: Sequence[Run], more: Mapping[str, Any]) -> bytes | None:
    """Runs and some plain values beside them in one piece, or None where something in them has no plain form.

    None too where the scalars stay on disk until they are asked for (`stays_on_disk`): they are not copied.

    >>> from parsers.finish import finish
    >>> run = finish("a", "a.csv", "csv", pl.DataFrame({"tag": ["loss"], "value": [0.5]}), config={1: float("nan")})
    >>> (back,), more = from_bytes(to_bytes([run], {"unread": []}))
    >>> back.scalars.equals(run.scalars), back.config, more
    (True, {1: nan}, {'unread': []})
    """
    if any(stays_on_disk(run) for run in runs):
        return None
    sections = _Sections()
    try:
        told = {"more": plain(more), "runs": [_told(run, sections) for run in runs]}
    except UnkeptError:
        return None
    header = json.dumps({**told, "sections": sections.lengths}, separators=(",", ":")).encode("ascii")
    opening = len(header).to_bytes(8, "little") + header
    body = [opening, bytes(-(len(MAGIC) + _DIGEST + len(opening)) % _ALIGNED), *sections.parts]
    digest = hashlib.blake2b(digest_size=_DIGEST)
    for part in body:
        digest.update(part)
    return b"".join([MAGIC, digest.digest(), *body])


def from_bytes(data: bytes | memoryview) -> tuple[list[Run], dict[str, Any]]:
    """What `to_bytes` made into bytes; large tables are not copied, and keep `data` alive.

    Raises ValueError where the bytes are not whole, or not of this layout.
    """
    view = memoryview(data)
    if bytes(view[: len(MAGIC)]) != MAGIC or len(view) < _START:
        raise ValueError("not runs in this layout")
    digest = hashlib.blake2b(view[len(MAGIC) + _DIGEST :], digest_size=_DIGEST).digest()
    if digest != view[len(MAGIC) : len(MAGIC) + _DIGEST]:
        raise ValueError("damaged: the digest does not fit")
    end = _START + int.from_bytes(view[_START - 8 : _START], "little")
    told = json.loads(bytes(view[_START:end]))
    sections, place = [], end + -end % _ALIGNED
    for length in told["sections"]:
        sections.append(view[place : place + length])
        place += length + -length % _ALIGNED
    return [_run(one, sections) for one in told["runs"]], restored(told["more"])


def stays_on_disk(run: Run) -> bool:
    """Whether the scalars of a run are read from their own file when asked for, which needs no copy of them.

    So it is with long Parquet tables, and with streams that have a sealed segment of more than 32 MiB.
    """
    if run.whole is not None:
        return not isinstance(run.whole, _Kept)
    if run.format != "aftertrain" or "scalars" in run.__dict__:
        return False
    from parsers.places.place import place

    folder = place(run.path)
    try:
        files = folder.iterdir() if folder.is_dir() else [folder]
        return any(file.suffix == ".parquet" and file.stat().st_size > EAGER for file in files)
    except OSError:
        return True  # gone since it was read: nothing to keep


@dataclass(slots=True)
class _Sections:
    """Tables as Arrow IPC, each on a boundary from which numbers can be used in place."""

    parts: list[bytes] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)

    def add(self, frame: pl.DataFrame) -> int:
        """The number of the section that holds `frame`."""
        out = io.BytesIO()
        frame.write_ipc(out, compression="uncompressed")
        data = out.getvalue()
        self.parts += [data, bytes(-len(data) % _ALIGNED)]
        self.lengths.append(len(data))
        return len(self.lengths) - 1


def _told(run: Run, sections: _Sections) -> dict[str, Any]:
    """A run as plain values; its tables are sections."""
    forms = (Form("frame", pl.DataFrame, sections.add), Form("source", Source, partial(_source, sections)))
    told: dict[str, Any] = {}
    for name in (f.name for f in fields(Run) if f.name not in _LAZY):
        value = getattr(run, name)
        if name in _EMPTY and value.is_empty() and value.schema == _EMPTY[name].schema:
            continue
        told[name] = plain(value, forms)
    scalars = run.scalars
    if scalars.height <= WHOLE:
        told["scalars"] = [sections.add(scalars)]
    else:
        told["scalars"] = [sections.add(_stretches(scalars)), sections.add(scalars.select(_ROWS))]
    return told


def _source(sections: _Sections, source: Source) -> list[Any]:
    return [source.path, source.format, source.scalars, sections.add(source.against)]


def _stretches(scalars: pl.DataFrame) -> pl.DataFrame:
    """Stretches of rows with the same names, in the columns of `KEYS`."""
    changed = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift()) for name in _NAMES)
    changed = changed | (pl.int_range(pl.len()) == 0)
    starts = scalars.lazy().select(*_NAMES, offset=pl.int_range(pl.len())).filter(changed).collect()
    ends = starts["offset"].shift(-1, fill_value=scalars.height)
    told = starts.with_columns(source=pl.lit(0, pl.Int64), length=ends - starts["offset"])
    return told.select(pl.col(name).cast(dtype) for name, dtype in KEYS.items())


def _run(told: Mapping[str, Any], sections: Sequence[memoryview]) -> Run:
    def frame(number: int) -> pl.DataFrame:
        return _frame(sections[number])

    def source(given: list[Any]) -> Source:
        path, format, scalars, against = given
        return Source(path, format, scalars, frame(against))

    forms = (Form("frame", pl.DataFrame, frame), Form("source", Source, source))
    values = _EMPTY | {name: restored(value, forms) for name, value in told.items() if name != "scalars"}
    tables = [frame(number) for number in told["scalars"]]
    if len(tables) == 1:
        return Run(source=tables[0].lazy(), **values)
    keys, rows = tables
    sources = [Rows(rows.height, lambda columns, offset, length: rows.select(columns).slice(offset, length))]
    return Run(source=lazy_slices(keys, sources), whole=_Kept(whole_slices, keys, sources), **values)


class _Kept(partial[pl.DataFrame]):
    """The whole of a table whose bytes are at hand, told apart from one that stands in a file of its own."""


def _frame(section: memoryview) -> pl.DataFrame:
    import pyarrow as pa

    file = pa.ipc.open_file(pa.py_buffer(section))
    # each batch by itself: making a frame of a whole Arrow table takes ten times as long
    batches = [pl.DataFrame(file.get_batch(number)) for number in range(file.num_record_batches)]
    if not batches:
        return pl.DataFrame(file.schema.empty_table())
    return batches[0] if len(batches) == 1 else pl.concat(batches, rechunk=False)
